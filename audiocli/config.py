"""Read the settings: gateways, keys and preferences, from config.toml, the keys file and the environment.

Precedence: option, environment, file, built-in. An empty variable counts as not set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import credentials, gateways
from .errors import AccessError, UsageError
from .ledger.budget import Budget, to_nanousd
from .routing import GatewayConfig
from .types.json import EMPTY_MAPPING
from .types.routes import Price

if TYPE_CHECKING:
    from .types.stores import StoreTable


class UnknownKey(UsageError):
    """A key of the config file that audiocli does not know."""


# Stops the read of an endless file such as /dev/zero.
MAX_CONFIG_BYTES = 1_000_000
# Eight hours of mp3, or three hours of the samples of long texts.
DEFAULT_SPEECH_CACHE_MB = 500


class ClusterSettings(NamedTuple):
    """The Dask cluster of `[cluster]`: the address of its scheduler, and PEM files for TLS."""

    scheduler: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None


class Settings(NamedTuple):
    """The settings of this run, before command-line options.

    Attributes:
        speech_cache: Whether speech that was paid for is stored and used again, in at most `speech_cache_mb`.
        aliases: References of models by the name of the alias.
        pronunciations: Words and how they are spoken, also by language.
        corrections: Words that are replaced in transcripts, also by language.
        cast: Voices by the names of the speakers of a script.
        keys_error: Why the keys file cannot be used.
        models_directory: Directory with weights of the local engines.
        voices_directory: Directory with Piper voices.
    """

    gateways: tuple[GatewayConfig, ...]
    speech_models: tuple[str, ...] = ()
    speech_voice: str | None = None
    speech_format: str | None = None
    speech_cache: bool = True
    speech_cache_mb: int = DEFAULT_SPEECH_CACHE_MB
    transcription_models: tuple[str, ...] = ()
    transcription_language: str | None = None
    pronunciations: Mapping[str, object] = EMPTY_MAPPING
    corrections: Mapping[str, object] = EMPTY_MAPPING
    cast: Mapping[str, str] = EMPTY_MAPPING
    chat_models: tuple[str, ...] = ()
    chat_voice: str | None = None
    voices: Mapping[str, str] = EMPTY_MAPPING
    aliases: Mapping[str, tuple[str, ...]] = EMPTY_MAPPING
    prices: Mapping[str, Price] = EMPTY_MAPPING
    budget: Budget = Budget()
    keys_error: AccessError | None = None
    models_directory: str | None = None
    voices_directory: str | None = None
    cluster: ClusterSettings = ClusterSettings()
    stores: tuple[StoreTable, ...] = ()


def load(path: Path, variables: Mapping[str, str], *, keys_path: Path, must_exist: bool) -> Settings:
    """Read the config file, if it exists, and look up each key in the environment and in the keys file.

    A keys file that cannot be used is not an error until a key is needed: see `Settings.keys_error`.

    Raises:
        UsageError: The config file is invalid or cannot be read, or it does not exist and `must_exist` is set.
    """
    tables = read_tables(path, must_exist=must_exist)
    keys_error: AccessError | None = None
    try:
        stored_keys = credentials.read(keys_path)
    except AccessError as error:
        # Gateways whose key is in the environment still work.
        stored_keys, keys_error = {}, error
    if tables:
        settings = _parse_settings(tables, path, variables, stored_keys)
    else:
        # Validation imports pydantic, which takes 80 ms; without a file there is nothing to validate.
        builtin = (_build_builtin_gateway(gateway, variables, stored_keys) for gateway in gateways.BUILT_IN)
        settings = Settings(tuple(builtin))
    if keys_error is None:
        return settings
    configured = tuple(
        gateway if gateway.key else gateway._replace(key_error=keys_error) for gateway in settings.gateways
    )
    return settings._replace(gateways=configured, keys_error=keys_error)


def read_tables(path: Path, *, must_exist: bool) -> dict[str, object]:
    """Read and parse the config file. It is empty if the file does not exist.

    Raises:
        UsageError: The file cannot be read or is not valid TOML, or it does not exist and `must_exist` is set.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        # The home of a user without one is often /dev/null.
        if must_exist:
            raise UsageError(f"config file {path} does not exist", hint="check AUDIOCLI_CONFIG") from None
        return {}
    except OSError as error:
        raise UsageError(f"cannot read the config file {path}: {error.strerror}") from error
    return parse_tables(content, path)


def parse_tables(content: bytes, path: Path) -> dict[str, object]:
    """Parse the content of the config file. `path` is its name in messages.

    Raises:
        UsageError: It is too large, not UTF-8, or not valid TOML.
    """
    if len(content) > MAX_CONFIG_BYTES:
        raise UsageError(f"the config file {path} is larger than {MAX_CONFIG_BYTES // 1_000_000} MB")
    import tomllib

    try:
        text = content.decode("utf-8-sig")
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        lines = text.rstrip("\n").split("\n")
        end = f"at line {len(lines)}, column {len(lines[-1]) + 1}"
        raise UsageError(f"{path} is not valid TOML: {str(error).replace('at end of document', end)}") from error


def validate(tables: dict[str, object], path: Path) -> None:
    """Check the tables of a config file. Raises: UsageError: A key is unknown (`UnknownKey`) or a value is invalid."""
    _parse_settings(tables, path, {}, {})


def _parse_settings(
    tables: dict[str, object], path: Path, variables: Mapping[str, str], stored_keys: Mapping[str, str]
) -> Settings:
    from .config_tables import validate_tables

    file = validate_tables(tables, path)
    configured = [_build_builtin_gateway(gateway, variables, stored_keys) for gateway in gateways.BUILT_IN]
    prices = {}
    for name, table in file.gateways.items():
        builtin = next((gateway for gateway in configured if gateway.name == name), None)
        dialect = table.dialect or (builtin.dialect if builtin else "openai")
        if dialect not in gateways.list_dialects():
            raise UsageError(
                f"{path}: gateways.{name}.dialect: unknown dialect {dialect!r}",
                hint="known dialects: " + ", ".join(gateways.list_dialects()),
            )
        gateway = _build_gateway(name, dialect, table.base_url, table.key_env, builtin, variables, stored_keys, path)
        values = table.model_dump(exclude_none=True, exclude_defaults=True)
        gateway = _add_traits(gateway, values, variables, path)
        for model, price in table.prices.items():
            prices[f"{name}:{model}"] = _parse_price(f"gateways.{name}.prices.{model}", price.per, price.usd, path)
        # A table with the name of a built-in gateway replaces it and keeps its position. Others come before `local`.
        if builtin is not None:
            configured[configured.index(builtin)] = gateway
        else:
            configured.insert(len(configured) - 1, gateway)
    return Settings(
        gateways=tuple(configured),
        speech_models=tuple(file.speak.models),
        speech_voice=file.speak.voice,
        speech_format=file.speak.format,
        speech_cache=file.speak.cache,
        speech_cache_mb=file.speak.cache_mb,
        pronunciations=file.pronunciations,
        corrections=file.corrections,
        cast=file.cast,
        transcription_models=tuple(file.transcribe.models),
        transcription_language=file.transcribe.language,
        chat_models=tuple(file.chat.models),
        chat_voice=file.chat.voice,
        voices=dict(file.voices),
        aliases=_parse_aliases(file.aliases, [gateway.name for gateway in configured], path),
        prices=prices
        | {ref: _parse_price(f"prices.{ref}", table.per, table.usd, path) for ref, table in file.prices.items()},
        budget=Budget(*(to_nanousd(getattr(file.budget, name)) for name in Budget._fields)),
        models_directory=file.local.models_dir or None,
        voices_directory=file.local.voices_dir or None,
        stores=_parse_stores({name: table.model_dump() for name, table in file.stores.items()}, path),
        cluster=ClusterSettings(*(getattr(file.cluster, name) or None for name in ClusterSettings._fields)),
    )


def _parse_stores(tables: Mapping[str, Mapping[str, Any]], path: Path) -> tuple[StoreTable, ...]:
    """Parse the tables `[stores.NAME]`. Raises: UsageError: A URL is not that of an object store."""
    from .types.objects import is_object_url, parse_object_url
    from .types.stores import StoreTable

    stores = []
    for name, values in tables.items():
        if not is_object_url(values["url"]):
            raise UsageError(f"{path}: stores.{name}.url: {values['url']!r} is not a URL such as s3://BUCKET/PREFIX")
        stores.append(StoreTable(**{**values, "name": name, "url": str(parse_object_url(values["url"])).rstrip("/")}))
    return tuple(stores)


def _build_gateway(
    name: str,
    dialect: str,
    base_url: str | None,
    key_env: str | None,
    builtin: GatewayConfig | None,
    variables: Mapping[str, str],
    stored_keys: Mapping[str, str],
    path: Path,
) -> GatewayConfig:
    """Build a gateway from its table.

    Missing keys of the table default to those of the built-in gateway of that name. The environment takes precedence.

    Raises:
        UsageError: Neither the table nor a built-in gateway has a base URL.
    """
    is_url_in_environment = builtin is not None and builtin.base_url_source != "built in"
    url = builtin.base_url if builtin is not None and (is_url_in_environment or base_url is None) else base_url
    if url is None:
        raise UsageError(f"{path}: gateways.{name}: base_url is missing")
    source = builtin.base_url_source if builtin is not None and url == builtin.base_url else str(path)
    if key_env is None:
        gateway = builtin or GatewayConfig(name, dialect, url, requires_key=False)
        key_source = builtin.key_source if builtin else ("the keys file" if name in stored_keys else None)
        if builtin is None:
            key, _, key_note = _find_key(name, None, variables, stored_keys)
            gateway = gateway._replace(key=key, key_note=key_note)
        return gateway._replace(dialect=dialect, base_url=url, base_url_source=source, key_source=key_source)
    key, key_source, key_note = _find_key(name, key_env, variables, stored_keys)
    hint = f"set {key_env}, or run: audiocli keys set {name}"
    return GatewayConfig(name, dialect, url, key, True, hint, key_source, source, key_note=key_note)


def _add_traits(
    gateway: GatewayConfig, values: Mapping[str, object], variables: Mapping[str, str], path: Path
) -> GatewayConfig:
    """Add the traits of a table to a gateway. A server that needs no bearer key is usable without one.

    Raises:
        UsageError: A value is not valid.
    """
    if not values.keys() - {"dialect", "base_url", "key_env", "prices"}:
        return gateway
    from .gateways.server_tables import parse_traits

    try:
        traits, error = parse_traits(gateway.name, values, variables)
    except UsageError as invalid:
        raise UsageError(f"{path}: gateways.{gateway.name}.{invalid.message}", hint=invalid.hint) from invalid
    if traits.auth == "none":
        gateway = gateway._replace(key=None, key_source=None, requires_key=False)
    elif any(name.lower() in ("authorization", "api-key", "x-api-key") for name, _ in traits.headers):
        gateway = gateway._replace(requires_key=False)
    return gateway._replace(traits=traits, traits_error=error)


def _parse_aliases(
    values: Mapping[str, object], gateway_names: Sequence[str], path: Path
) -> dict[str, tuple[str, ...]]:
    """Parse `[aliases]`: each name stands for a reference or a list of references.

    Raises:
        UsageError: A name has a colon or is that of a gateway, or a value is not a reference.
    """
    aliases = {}
    for name, value in values.items():
        setting = f"{path}: aliases.{name}"
        if ":" in name or not name.strip():
            raise UsageError(f"{setting}: the name of an alias must not be empty or contain ':'")
        if name in gateway_names:
            raise UsageError(f"{setting}: {name!r} is the name of a gateway", hint="choose another name")
        references = value if isinstance(value, list) else [value]
        if not references or not all(isinstance(reference, str) and reference.strip() for reference in references):
            raise UsageError(
                f"{setting}: must be a model reference such as 'openai:whisper-1', or a list of references"
            )
        nested = next((reference for reference in references if reference in values), None)
        if nested is not None:
            raise UsageError(f"{setting}: {nested!r} is an alias; an alias stands for models", hint="use GATEWAY:MODEL")
        aliases[name] = tuple(references)
    return aliases


def _parse_price(key: str, per: str, usd: float, path: Path) -> Price:
    """Parse a price such as `{ per = "1M characters", usd = 15.0 }`.

    Raises:
        UsageError: The unit is unknown.
    """
    match = re.fullmatch(
        r"\s*(?:(\d+)\s*([kM]?)\s+|([kM])\s+)?(character|byte|second|minute|hour|token|request)s?\s*", per
    )
    if match is None:
        raise UsageError(
            f"{path}: {key}.per: unknown unit {per!r}",
            hint='use a unit such as "1M characters", "bytes", "seconds", "minutes", "hours", "tokens" or "requests"',
        )
    count = int(match[1] or 1) * {"k": 1_000, "M": 1_000_000}.get(match[2] or match[3] or "", 1)
    if not count:
        raise UsageError(f"{path}: {key}.per: unknown unit {per!r}")
    return Price(Decimal(str(usd)) / count, match[4])


def _find_key(
    name: str, variable: str | None, variables: Mapping[str, str], stored_keys: Mapping[str, str]
) -> tuple[str | None, str | None, str | None]:
    """Return the key of a gateway, its source (the environment variable, else the keys file), and a note about it."""
    key = variables.get(variable, "").strip() if variable else ""
    source = variable if key else "the keys file"
    key = key or stored_keys.get(name, "")
    if not key:
        return None, None, None
    key, has_prefix = credentials.remove_bearer(key)
    note = f"the key for {name} in {source} begins with 'Bearer'; it is used without this prefix"
    return key, source, note if has_prefix else None


def _build_builtin_gateway(
    gateway: gateways.BuiltInGateway, variables: Mapping[str, str], stored_keys: Mapping[str, str]
) -> GatewayConfig:
    key, key_source, key_note = _find_key(gateway.name, gateway.key_variable, variables, stored_keys)
    base_url = variables.get(gateway.base_url_variable, "").strip() if gateway.base_url_variable else ""
    return GatewayConfig(
        name=gateway.name,
        dialect=gateway.dialect,
        base_url=base_url or gateway.base_url,
        key=key,
        requires_key=gateway.key_variable is not None,
        key_hint=f"set {gateway.key_variable}, or run: audiocli keys set {gateway.name}"
        if gateway.key_variable
        else None,
        key_source=key_source,
        base_url_source=str(gateway.base_url_variable) if base_url else "built in",
        key_note=key_note,
    )
