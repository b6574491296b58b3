"""The tables of config.toml and their keys, which `audiocli.config` validates.

Import it inside of functions, and only if there is a config file or its keys are listed: pydantic takes 80 ms.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .config import DEFAULT_SPEECH_CACHE_MB, UnknownKey
from .errors import UsageError


class Table(BaseModel):
    """A table that refuses unknown keys and converts no types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Speak(Table):
    """`[speak]`."""

    models: list[str] = Field(default_factory=list)
    voice: str | None = None
    format: str | None = None
    cache: bool = True
    cache_mb: int = Field(default=DEFAULT_SPEECH_CACHE_MB, ge=0, le=1_000_000)


class Transcribe(Table):
    """`[transcribe]`."""

    models: list[str] = Field(default_factory=list)
    language: str | None = None


class Chat(Table):
    """`[chat]`."""

    models: list[str] = Field(default_factory=list)
    voice: str | None = None


class PriceTable(Table):
    """A price in `[prices]`, such as `{ per = "1M characters", usd = 15.0 }`."""

    per: str
    usd: float = Field(ge=0, le=1_000_000)


class LimitsTable(Table):
    """`[gateways.NAME.limits]`."""

    max_text_characters: int | None = Field(default=None, ge=1)
    max_text_bytes: int | None = Field(default=None, ge=4)
    max_text_tokens: int | None = Field(default=None, ge=2)
    max_upload_bytes: int | None = Field(default=None, ge=1)
    max_audio_s: int | None = Field(default=None, ge=1)
    max_prompt_characters: int | None = Field(default=None, ge=1)
    max_chat_bytes: int | None = Field(default=None, ge=1)


class GatewayTable(Table):
    """`[gateways.NAME]`."""

    dialect: str | None = None
    base_url: str | None = None
    key_env: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    query: dict[str, str] = Field(default_factory=dict)
    auth: Literal["bearer", "api-key", "none"] | None = None
    pcm_rate: int | None = Field(default=None, ge=1_000, le=384_000)
    samples: Literal["wav", "flac", "pcm"] | None = None
    models: bool | None = None
    paths: dict[str, str] = Field(default_factory=dict)
    format_names: dict[str, str] = Field(default_factory=dict)
    speech_formats: list[str] | None = Field(default=None, min_length=1)
    upload_formats: list[str] | None = Field(default=None, min_length=1)
    input_field: str | None = Field(default=None, min_length=1)
    model_field: str | None = Field(default=None, min_length=1)
    voice_field: str | None = Field(default=None, min_length=1)
    format_field: str | None = Field(default=None, min_length=1)
    fields: dict[str, object] = Field(default_factory=dict)
    speech_fields: dict[str, object] = Field(default_factory=dict)
    transcription_fields: dict[str, object] = Field(default_factory=dict)
    omit_fields: list[str] | None = None
    speech_response: str | None = None
    limits: LimitsTable = LimitsTable()
    prices: dict[str, PriceTable] = Field(default_factory=dict)


class BudgetTable(Table):
    """`[budget]`, in US dollars."""

    run: float | None = Field(default=None, ge=0, le=1_000_000)
    day: float | None = Field(default=None, ge=0, le=1_000_000)
    week: float | None = Field(default=None, ge=0, le=1_000_000)
    month: float | None = Field(default=None, ge=0, le=1_000_000)
    confirm: float | None = Field(default=None, ge=0, le=1_000_000)


class Local(Table):
    """`[local]`."""

    models_dir: str | None = None
    voices_dir: str | None = None


class ClusterTable(Table):
    """`[cluster]`."""

    scheduler: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None


class StoreSettings(Table):
    """`[stores.NAME]`."""

    url: str
    endpoint: str | None = None
    region: str | None = None
    path_style: bool | None = None
    allow_http: bool | None = None
    anonymous: bool | None = None
    ca_file: str | None = None
    access_key_id_env: str | None = None
    secret_access_key_env: str | None = None
    session_token_env: str | None = None
    account_name_env: str | None = None
    account_key_env: str | None = None
    service_account: str | None = None


class File(Table):
    """The config file."""

    speak: Speak = Speak()
    transcribe: Transcribe = Transcribe()
    chat: Chat = Chat()
    voices: dict[str, str] = Field(default_factory=dict)
    aliases: dict[str, object] = Field(default_factory=dict)
    pronunciations: dict[str, object] = Field(default_factory=dict)
    corrections: dict[str, object] = Field(default_factory=dict)
    cast: dict[str, str] = Field(default_factory=dict)
    gateways: dict[str, GatewayTable] = Field(default_factory=dict)
    prices: dict[str, PriceTable] = Field(default_factory=dict)
    budget: BudgetTable = BudgetTable()
    local: Local = Local()
    cluster: ClusterTable = ClusterTable()
    stores: dict[str, StoreSettings] = Field(default_factory=dict)


def validate_tables(tables: Mapping[str, object], path: Path) -> File:
    """Check the tables of the config file at a path, and fill in the defaults.

    Raises:
        UnknownKey: A key is unknown.
        UsageError: A value has the wrong type or is out of range.
    """
    try:
        return File.model_validate(tables)
    except ValidationError as error:
        is_unknown = error.errors()[0]["type"] == "extra_forbidden"
        message = _describe_first_error(error, path, list_known_keys())
        raise (UnknownKey if is_unknown else UsageError)(message) from error


def list_known_keys() -> dict[tuple[str, ...], list[str]]:
    """Return the keys of each table that has fixed ones, by the path of the table. `*` is a name of the user."""
    return dict(_walk((), File))


def list_fixed_keys() -> tuple[str, ...]:
    """Return the dotted keys that have no name of the user in them, such as `speak.voice`."""
    return tuple(
        ".".join((*path, name)) for path, names in _walk((), File) if path and "*" not in path for name in names
    )


def _walk(path: tuple[str, ...], table: type[BaseModel]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    yield path, list(table.model_fields)
    for name, field in table.model_fields.items():
        annotation: Any = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _walk((*path, name), annotation)
        for value in get_args(annotation)[1:]:
            if isinstance(value, type) and issubclass(value, BaseModel):
                yield from _walk((*path, name, "*"), value)


def _describe_first_error(error: ValidationError, path: Path, known_keys: Mapping[tuple[str, ...], list[str]]) -> str:
    """Describe the first validation error. An unknown key gets the nearest known one as a suggestion.

    `known_keys` has the keys by the path of their table, with `*` for any name.
    """
    problem = error.errors()[0]
    location = tuple(str(part) for part in problem["loc"])
    dotted = ".".join(location)
    if problem["type"] != "extra_forbidden":
        return f"{path}: {dotted}: {problem['msg'].lower()}"
    table = location[:-1]
    names = next(
        (
            names
            for pattern, names in known_keys.items()
            if len(pattern) == len(table) and all(a in ("*", b) for a, b in zip(pattern, table, strict=True))
        ),
        [],
    )
    near = difflib.get_close_matches(location[-1], names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(names)}"
    return f"{path}: unknown key {dotted}; {hint}"
