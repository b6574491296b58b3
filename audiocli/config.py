"""config.toml and the environment → Settings: which gateways there are, and what the user prefers.

Precedence: flag, environment, file, built-in. An empty variable counts as not set.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import credentials, gateways
from .errors import AccessError, UsageError
from .ledger.budget import Budget, nanousd
from .routing import GatewayConfig
from .types.values import NONE, Price

if TYPE_CHECKING:
    from pydantic import ValidationError


# A file that never ends, such as /dev/zero, is not a configuration.
MAX_CONFIG_BYTES = 1_000_000


class Settings(NamedTuple):
    """What holds for this run, flags apart."""

    gateways: tuple[GatewayConfig, ...]
    speech_models: tuple[str, ...] = ()
    speech_voice: str | None = None
    speech_format: str | None = None
    transcription_models: tuple[str, ...] = ()
    transcription_language: str | None = None
    chat_models: tuple[str, ...] = ()
    chat_voice: str | None = None
    voices: Mapping[str, str] = NONE
    prices: Mapping[str, Price] = NONE
    budget: Budget = Budget()
    keys_error: AccessError | None = None


def load(path: Path, variables: Mapping[str, str], *, keys_path: Path, is_named: bool) -> Settings:
    """Read the configuration file, if there is one, and find the keys: in the environment, else in the keys file.

    `is_named`: the user named the file, so it must be there. A keys file that cannot be used is no error until a key
    is needed: see `Settings.keys_error`. Raises: UsageError.
    """
    tables = _read(path, is_named=is_named)
    keys_error: AccessError | None = None
    try:
        kept = credentials.read(keys_path)
    except AccessError as error:
        # Only a gateway whose key may be in that file cannot be used.
        kept, keys_error = {}, error
    if tables:
        settings = _checked(tables, path, variables, kept)
    else:
        # Most people have no file, and checking one costs 80 ms.
        settings = Settings(tuple(_built_in(gateway, variables, kept) for gateway in gateways.BUILT_IN))
    if keys_error is None:
        return settings
    configured = tuple(one if one.key else one._replace(key_error=keys_error) for one in settings.gateways)
    return settings._replace(gateways=configured, keys_error=keys_error)


def _read(path: Path, *, is_named: bool) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        if is_named:
            raise UsageError(f"there is no configuration file {path}", hint="check AUDIOCLI_CONFIG") from None
        return {}
    except OSError as error:
        raise UsageError(f"the configuration file {path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_CONFIG_BYTES:
        raise UsageError(f"the configuration file {path} is larger than {MAX_CONFIG_BYTES // 1_000_000} MB")
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


def write_table(path: Path, name: str, values: Mapping[str, float] | None) -> None:
    """Set keys of a table of the configuration file, or take the table out; comments and all else stay as they are.

    Raises: UsageError.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    from .private_files import require_regular_file, write_atomically

    try:
        require_regular_file(path)
        _read(path, is_named=False)  # reports a file that cannot be parsed
        document = tomlkit.parse(path.read_text("utf-8-sig") if path.exists() else "")
        if values is None:
            document.pop(name, None)
        else:
            if name not in document:
                document[name] = tomlkit.table()
            for key, value in values.items():
                document[name][key] = value
        write_atomically(path, tomlkit.dumps(document).encode(), keep_mode=True)
    except (OSError, TOMLKitError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(f"cannot change the configuration file {path}: {reason}") from error


def _checked(tables: dict[str, object], path: Path, variables: Mapping[str, str], kept: Mapping[str, str]) -> Settings:
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

    class Chat(Table):
        models: list[str] = Field(default_factory=list)
        voice: str | None = None

    class GatewayTable(Table):
        dialect: str | None = None
        base_url: str | None = None
        key_env: str | None = None

    class PriceTable(Table):
        per: str
        usd: float = Field(ge=0, le=1_000_000)

    class BudgetTable(Table):
        run: float | None = Field(default=None, ge=0, le=1_000_000)
        day: float | None = Field(default=None, ge=0, le=1_000_000)
        week: float | None = Field(default=None, ge=0, le=1_000_000)
        month: float | None = Field(default=None, ge=0, le=1_000_000)
        confirm: float | None = Field(default=None, ge=0, le=1_000_000)

    class File(Table):
        speak: Speak = Speak()
        transcribe: Transcribe = Transcribe()
        chat: Chat = Chat()
        voices: dict[str, str] = Field(default_factory=dict)
        gateways: dict[str, GatewayTable] = Field(default_factory=dict)
        prices: dict[str, PriceTable] = Field(default_factory=dict)
        budget: BudgetTable = BudgetTable()

    try:
        file = File.model_validate(tables)
    except ValidationError as error:
        known: dict[tuple[str, ...], list[str]] = {
            (): list(File.model_fields),
            ("speak",): list(Speak.model_fields),
            ("transcribe",): list(Transcribe.model_fields),
            ("chat",): list(Chat.model_fields),
            ("budget",): list(BudgetTable.model_fields),
        }
        raise UsageError(_first_problem(error, path, known, list(GatewayTable.model_fields))) from error
    configured = [_built_in(gateway, variables, kept) for gateway in gateways.BUILT_IN]
    for name, table in file.gateways.items():
        usual = next((one for one in configured if one.name == name), None)
        dialect = table.dialect or (usual.dialect if usual else "openai")
        if dialect not in gateways.dialect_names():
            raise UsageError(
                f"{path}: gateways.{name}.dialect: unknown dialect {dialect!r}",
                hint="known dialects: " + ", ".join(gateways.dialect_names()),
            )
        own = _own(name, dialect, table.base_url, table.key_env, usual, variables, kept, path)
        # A table with the name of a built-in gateway replaces it, in its place.
        if usual is not None:
            configured[configured.index(usual)] = own
        else:
            configured.insert(len(configured) - 1, own)
    return Settings(
        gateways=tuple(configured),
        speech_models=tuple(file.speak.models),
        speech_voice=file.speak.voice,
        speech_format=file.speak.format,
        transcription_models=tuple(file.transcribe.models),
        transcription_language=file.transcribe.language,
        chat_models=tuple(file.chat.models),
        chat_voice=file.chat.voice,
        voices=dict(file.voices),
        prices={ref: _price(ref, table.per, table.usd, path) for ref, table in file.prices.items()},
        budget=Budget(*(nanousd(getattr(file.budget, name)) for name in Budget._fields)),
    )


def _own(
    name: str,
    dialect: str,
    base_url: str | None,
    key_env: str | None,
    usual: GatewayConfig | None,
    variables: Mapping[str, str],
    kept: Mapping[str, str],
    path: Path,
) -> GatewayConfig:
    """Make a gateway of a table; what it leaves out is as built in, and the environment wins over the file."""
    url_is_set = usual is not None and usual.base_url_source != "built in"
    address = usual.base_url if usual is not None and (url_is_set or base_url is None) else base_url
    if address is None:
        raise UsageError(f"{path}: gateways.{name}: base_url is missing")
    source = usual.base_url_source if usual is not None and address == usual.base_url else str(path)
    if key_env is None:
        found = usual or GatewayConfig(name, dialect, address, kept.get(name), key_needed=False)
        key_source = usual.key_source if usual else ("the keys file" if name in kept else None)
        return found._replace(dialect=dialect, base_url=address, base_url_source=source, key_source=key_source)
    key, key_source = _key(name, key_env, variables, kept)
    hint = f"set {key_env}, or run: audiocli keys set {name}"
    return GatewayConfig(name, dialect, address, key, True, hint, key_source, source)


def _price(ref: str, per: str, usd: float, path: Path) -> Price:
    """Read `{ per = "1M characters", usd = 15.0 }`. Raises: UsageError."""
    told = re.fullmatch(
        r"\s*(?:(\d+)\s*([kM]?)\s+|([kM])\s+)?(character|byte|second|minute|hour|token|request)s?\s*", per
    )
    if told is None:
        raise UsageError(
            f"{path}: prices.{ref}.per: {per!r} is no unit",
            hint='such as "1M characters", "bytes", "seconds", "minutes", "hours", "tokens", "requests"',
        )
    count = int(told[1] or 1) * {"k": 1_000, "M": 1_000_000}.get(told[2] or told[3] or "", 1)
    if not count:
        raise UsageError(f"{path}: prices.{ref}.per: {per!r} is no unit")
    return Price(Decimal(str(usd)) / count, told[4])


def _key(
    name: str, variable: str | None, variables: Mapping[str, str], kept: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """Find a key and say where it comes from: the environment wins over the keys file."""
    told = variables.get(variable, "").strip() if variable else ""
    if told:
        return told, variable
    return (kept[name], "the keys file") if kept.get(name) else (None, None)


def _built_in(gateway: gateways.BuiltIn, variables: Mapping[str, str], kept: Mapping[str, str]) -> GatewayConfig:
    key, key_source = _key(gateway.name, gateway.key_variable, variables, kept)
    base_url = variables.get(gateway.base_url_variable, "").strip() if gateway.base_url_variable else ""
    return GatewayConfig(
        name=gateway.name,
        dialect=gateway.dialect,
        base_url=base_url or gateway.base_url,
        key=key,
        key_needed=gateway.key_variable is not None,
        key_hint=f"set {gateway.key_variable}, or run: audiocli keys set {gateway.name}"
        if gateway.key_variable
        else None,
        key_source=key_source,
        base_url_source=str(gateway.base_url_variable) if base_url else "built in",
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
