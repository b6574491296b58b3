"""`audiocli keys`: store, list and remove API keys in the keys file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext
from ..errors import UsageError
from .inputs import read_text
from .options import GeneralOptions, open_app, with_options

if TYPE_CHECKING:
    from ..types.json import Json


class KeyOptions(NamedTuple):
    """Options of `audiocli keys set` and `keys remove`."""

    gateway: Annotated[str, typer.Argument(metavar="GATEWAY", help="Gateway of the key.")]
    general: GeneralOptions = GeneralOptions()


def build() -> typer.Typer:
    """Build the command group."""
    group = typer.Typer(help="Manage API keys in a private file.", rich_markup_mode=None, no_args_is_help=True)
    group.command("set")(set_key)
    group.command("list")(list_keys)
    group.command("remove")(remove)
    return group


@with_options
def set_key(ctx: typer.Context, options: KeyOptions) -> None:
    """Store a key, read from a hidden prompt or from stdin."""
    app, console = open_app(ctx, options.general, quiet_json=True)
    name = options.gateway
    _require_gateway(app, name)
    key = _prompt_key(name) if app.stdin.isatty() else read_text(app, (), "-", wait_for_end=True)[0].strip()
    from .. import credentials

    key, has_prefix = credentials.remove_bearer(key)
    if has_prefix:
        console.info("note: the prefix 'Bearer' is not part of the key and was removed")
    if not key or any(not character.isprintable() or character.isspace() for character in key):
        raise UsageError("invalid API key: it must not be empty or contain whitespace or control characters")
    _require_config_file(app)
    credentials.write(app.keys_path, {**credentials.read(app.keys_path), name: key})
    key_source = next((config.key_source for config in app.settings.gateways if config.name == name), None)
    warnings: list[Json] = []
    if key_source is not None and key_source in app.variables:
        warnings.append(f"{key_source} is set and is used instead of the stored key; unset it to use the stored key")
        console.warning(str(warnings[0]))
    if options.general.as_json:
        document: dict[str, Json] = {"ok": True, "command": "keys", "gateway": name, "path": str(app.keys_path)}
        console.write_json({**document, "warnings": warnings})
    else:
        console.info(f"stored the key for {name} in {app.keys_path}")


@with_options
def list_keys(ctx: typer.Context, options: GeneralOptions) -> None:
    """List the source of each gateway's key, never the key."""
    app, console = open_app(ctx, options)
    if app.settings.keys_error is not None:
        raise app.settings.keys_error
    rows = [(config.name, config.key_source) for config in app.settings.gateways if config.requires_key or config.key]
    if options.as_json:
        for name, source in rows:
            console.write_json_line({"gateway": name, "source": source})
    else:
        console.write_table(
            ["gateway", "key"], [[name, source or "none"] for name, source in rows], numeric=[False] * 2
        )


@with_options
def remove(ctx: typer.Context, options: KeyOptions) -> None:
    """Remove a stored key."""
    from .. import credentials

    app, console = open_app(ctx, options.general, quiet_json=True)
    name = options.gateway
    _require_config_file(app)
    keys = credentials.read(app.keys_path)
    if name not in keys:
        raise UsageError(f"no key for {name} in {app.keys_path}")
    credentials.write(app.keys_path, {other: key for other, key in keys.items() if other != name})
    if options.general.as_json:
        console.write_json({"ok": True, "command": "keys", "gateway": name, "path": str(app.keys_path)})
    else:
        console.info(f"removed the key for {name}")


def _require_config_file(app: AppContext) -> None:
    """Check that the config file is a regular file, because the keys file is written to its directory.

    Raises:
        UsageError: It is something else, such as /dev/null.
    """
    from ..private_files import require_regular_file

    try:
        require_regular_file(app.config_path)
    except OSError as error:
        raise UsageError(
            f"cannot store keys next to {app.config_path}: {error.strerror}", hint="check AUDIOCLI_CONFIG"
        ) from error


def _require_gateway(app: AppContext, name: str) -> None:
    names = [config.name for config in app.settings.gateways if config.dialect != "local"]
    if name not in names:
        raise UsageError(f"unknown gateway {name!r}", hint="known gateways: " + ", ".join(names))


def _prompt_key(name: str) -> str:
    """Prompt for a key on the terminal without echo. Raises: KeyboardInterrupt."""
    import getpass

    from ..console import escape_line

    return getpass.getpass(f"key for {escape_line(name)}: ").strip()
