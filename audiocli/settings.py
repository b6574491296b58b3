"""config.toml and the environment → Settings: which gateways there are, and what the user prefers.

Precedence: flag, environment, file, built-in. An empty variable counts as not set.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import gateways
from .errors import UsageError
from .routing import GatewayConfig

if TYPE_CHECKING:
    from pydantic import ValidationError


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for this run, flags apart."""

    gateways: tuple[GatewayConfig, ...]
    speech_models: tuple[str, ...] = ()
    speech_voice: str | None = None
    speech_format: str | None = None
    transcription_models: tuple[str, ...] = ()
    transcription_language: str | None = None
    voices: Mapping[str, str] = field(default_factory=dict)


def load(path: Path, variables: Mapping[str, str], *, is_named: bool) -> Settings:
    """Read the configuration file, if there is one, and the keys in the environment.

    `is_named`: the user named the file, so it must be there. Raises: UsageError.
    """
    tables = _read(path, is_named=is_named)
    if not tables:
        # Most people have no file, and checking one costs 80 ms.
        return Settings(tuple(_built_in(gateway, variables) for gateway in gateways.BUILT_IN))
    return _checked(tables, path, variables)


def _read(path: Path, *, is_named: bool) -> dict[str, object]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if is_named:
            raise UsageError(f"there is no configuration file {path}", hint="check AUDIOCLI_CONFIG") from None
        return {}
    except OSError as error:
        raise UsageError(f"the configuration file {path} cannot be read: {error.strerror}") from error
    import tomllib

    try:
        text = content.decode("utf-8-sig")
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        last = text.rstrip("\n").split("\n")
        end = f"at line {len(last)}, column {len(last[-1]) + 1}"
        raise UsageError(f"{path} is not TOML: {str(error).replace('at end of document', end)}") from error


def _checked(tables: dict[str, object], path: Path, variables: Mapping[str, str]) -> Settings:
    from pydantic import BaseModel, ConfigDict, Field, ValidationError

    class Table(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)

    class Speak(Table):
        models: list[str] = Field(default_factory=list)
        voice: str | None = None
        format: str | None = None

    class Transcribe(Table):
        models: list[str] = Field(default_factory=list)
        language: str | None = None

    class GatewayTable(Table):
        dialect: str = "openai"
        base_url: str | None = None
        key_env: str | None = None

    class File(Table):
        speak: Speak = Speak()
        transcribe: Transcribe = Transcribe()
        voices: dict[str, str] = Field(default_factory=dict)
        gateways: dict[str, GatewayTable] = Field(default_factory=dict)

    try:
        file = File.model_validate(tables)
    except ValidationError as error:
        known: dict[tuple[str, ...], list[str]] = {
            (): list(File.model_fields),
            ("speak",): list(Speak.model_fields),
            ("transcribe",): list(Transcribe.model_fields),
        }
        raise UsageError(_first_problem(error, path, known, list(GatewayTable.model_fields))) from error
    configured = [_built_in(gateway, variables) for gateway in gateways.BUILT_IN]
    for name, table in file.gateways.items():
        if table.dialect not in gateways.dialect_names():
            raise UsageError(
                f"{path}: gateways.{name}.dialect: unknown dialect {table.dialect!r}",
                hint="known dialects: " + ", ".join(gateways.dialect_names()),
            )
        usual = next((_built_in(one, variables) for one in gateways.BUILT_IN if one.name == name), None)
        base_url = table.base_url or (usual.base_url if usual else None)
        if base_url is None:
            raise UsageError(f"{path}: gateways.{name}: base_url is missing")
        if usual is not None and usual.base_url != gateways.built_in_url(name):
            base_url = usual.base_url  # its variable is set, and wins over the file
        key = variables.get(table.key_env, "").strip() if table.key_env else (usual.key if usual else None)
        own = GatewayConfig(
            name=name,
            dialect=table.dialect,
            base_url=base_url,
            key=key or None,
            key_needed=table.key_env is not None or (usual is not None and usual.key_needed),
            key_hint=f"set {table.key_env}" if table.key_env else (usual.key_hint if usual else None),
        )
        # A table with the name of a built-in gateway replaces it, in its place.
        names = [gateway.name for gateway in configured]
        if name in names:
            configured[names.index(name)] = own
        else:
            configured.insert(len(configured) - 1, own)
    return Settings(
        gateways=tuple(configured),
        speech_models=tuple(file.speak.models),
        speech_voice=file.speak.voice,
        speech_format=file.speak.format,
        transcription_models=tuple(file.transcribe.models),
        transcription_language=file.transcribe.language,
        voices=dict(file.voices),
    )


def _built_in(gateway: gateways.BuiltIn, variables: Mapping[str, str]) -> GatewayConfig:
    key = variables.get(gateway.key_variable, "").strip() if gateway.key_variable else ""
    base_url = variables.get(gateway.base_url_variable, "").strip() if gateway.base_url_variable else ""
    return GatewayConfig(
        name=gateway.name,
        dialect=gateway.dialect,
        base_url=base_url or gateway.base_url,
        key=key or None,
        key_needed=gateway.key_variable is not None,
        key_hint=f"set {gateway.key_variable}" if gateway.key_variable else None,
    )


def _first_problem(
    error: ValidationError, path: Path, known: Mapping[tuple[str, ...], list[str]], of_gateways: list[str]
) -> str:
    """Say what is wrong with the file, and name the nearest known key for an unknown one."""
    problem = error.errors()[0]
    where = tuple(str(part) for part in problem["loc"])
    dotted = ".".join(where)
    if problem["type"] != "extra_forbidden":
        return f"{path}: {dotted}: {problem['msg'].lower()}"
    names = of_gateways if where[:1] == ("gateways",) else known.get(where[:-1], [])
    near = difflib.get_close_matches(where[-1], names, n=1, cutoff=0.5)
    return f"{path}: unknown key {dotted}" + (f"; did you mean {near[0]}?" if near else f"; known: {', '.join(names)}")
