"""The environment of `audiocli mock`: keys, base URLs and directories of its own, so that real state is untouched."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import gateways

if TYPE_CHECKING:
    from ..context import AppContext
    from ..mock import MockGateway

URL_VARIABLE = "AUDIOCLI_MOCK_URL"
KEY_VARIABLE = "AUDIOCLI_MOCK_KEY"
# Variables of ours that a command inherits, because they name files that are only read.
_INHERITED = frozenset({"AUDIOCLI_MODEL_DIR"})
_PLAIN = "plain"


class Environment(NamedTuple):
    """Variables for a command that uses the mock gateway, and those that it must not inherit."""

    variables: Mapping[str, str]
    removed: tuple[str, ...]

    def apply(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a command."""
        remaining = {name: value for name, value in inherited.items() if name not in self.removed}
        return remaining | dict(self.variables)


def build_environment(
    app: AppContext,
    gateway: MockGateway,
    directory: Path,
    *,
    dialects: tuple[str, ...],
    has_engine: bool,
    key: str | None,
) -> Environment:
    """Return the environment, and write the configuration file that it names.

    Every gateway has the address of the mock gateway, also those without a key, because model lists are fetched without
    one.

    Args:
        dialects: The gateways that get a key. `plain` is a gateway of that name in the configuration.
        key: The key of every gateway, if the mock gateway demands one of its own.
    """
    from ..mock import KEYS

    variables = {
        **_build_store_variables(app, directory),
        "XDG_CONFIG_HOME": str(directory / "config"),
        "AUDIOCLI_CONFIG": str(directory / "config" / "audiocli" / "config.toml"),
        **_build_proxy_exceptions(app.variables),
        URL_VARIABLE: gateway.url,
    }
    key_variables = {config.key_source for config in app.settings.gateways if config.key_source is not None}
    key_variables &= app.variables.keys()
    for built_in in gateways.BUILT_IN:
        if built_in.key_variable is None or built_in.base_url_variable is None:
            continue
        key_variables.add(built_in.key_variable)
        mock_name = "engine" if has_engine and built_in.name == "openai" else built_in.name
        variables[built_in.base_url_variable] = gateway.base_url(mock_name)
        if built_in.name in dialects:
            variables[built_in.key_variable] = key or KEYS.get(mock_name) or "local"
    _write_config(app, gateway, directory, key=key, has_plain=_PLAIN in dialects)
    own_names = [name for name in app.variables if name.startswith("AUDIOCLI_") and name not in _INHERITED]
    removed = {*key_variables, *own_names} - variables.keys()
    return Environment(variables, tuple(sorted(removed)))


def build_engine_variables(app: AppContext, directory: Path) -> dict[str, str]:
    """Return the environment of the local engines: the configuration of the user, and stores of their own."""
    return {**app.variables, **_build_store_variables(app, directory / "engine")}


def _build_store_variables(app: AppContext, directory: Path) -> dict[str, str]:
    from ..engines.weights import find_hub

    return {
        "XDG_DATA_HOME": str(directory / "data"),
        "XDG_CACHE_HOME": str(directory / "cache"),
        "AUDIOCLI_LEDGER": str(directory / "data" / "audiocli" / "ledger.sqlite3"),
        # Depends on XDG_CACHE_HOME. The models in it are only read.
        "HF_HUB_CACHE": str(find_hub(app.variables)),
    }


def _build_proxy_exceptions(variables: Mapping[str, str]) -> dict[str, str]:
    """Return `no_proxy` with the addresses of this computer, if the environment names a proxy."""
    if not any(name.lower().endswith("_proxy") for name in variables):
        return {}
    known = variables.get("no_proxy") or variables.get("NO_PROXY") or ""
    value = ",".join(filter(None, ("127.0.0.1,localhost", known)))
    return {"no_proxy": value, "NO_PROXY": value}


def _write_config(app: AppContext, gateway: MockGateway, directory: Path, *, key: str | None, has_plain: bool) -> None:
    """Write a configuration with the directories of local models, which are only read, and the gateway `plain`."""
    import json

    settings = app.settings
    tables: dict[str, dict[str, str | None]] = {
        "local": {"models_dir": settings.models_directory, "voices_dir": settings.voices_directory}
    }
    if has_plain:
        tables[f"gateways.{_PLAIN}"] = {"dialect": "openai", "base_url": gateway.base_url(_PLAIN)}
        tables[f"gateways.{_PLAIN}"] |= {"key_env": KEY_VARIABLE} if key else {}
    lines = []
    for name, table in tables.items():
        # A JSON string is also a TOML string.
        pairs = [f"{option} = {json.dumps(value)}\n" for option, value in table.items() if value is not None]
        lines += [f"[{name}]\n", *pairs] if pairs else []
    path = directory / "config" / "audiocli" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), "utf-8")
    (directory / "data" / "audiocli").mkdir(parents=True, exist_ok=True)
    (directory / "cache").mkdir(exist_ok=True)


def render_environment(environment: Environment, shell: str) -> str:
    """Return the lines that set and remove the variables in a shell: `sh` or `fish`."""
    is_fish = shell == "fish"
    lines = [f"set -e {name}" if is_fish else f"unset {name}" for name in environment.removed]
    # The URL is the last line, so a script that waits for it knows that the others are complete.
    for name, value in sorted(environment.variables.items(), key=lambda pair: (pair[0] == URL_VARIABLE, pair[0])):
        lines.append(f"set -gx {name} {_quote_fish(value)}" if is_fish else f"export {name}={shlex.quote(value)}")
    return "".join(f"{line}\n" for line in lines)


def _quote_fish(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
