"""`audiocli keys`: keys that are kept in a file instead of the environment."""

from __future__ import annotations

from typing import Annotated

import typer

from ..context import AppContext
from ..errors import UsageError
from . import inputs, options

Name = Annotated[str, typer.Argument(metavar="GATEWAY", help="The gateway whose key it is.")]


def build() -> typer.Typer:
    app = typer.Typer(help="Keep keys in a file that only you can read.", rich_markup_mode=None, no_args_is_help=True)

    @app.command("set")
    def set_(
        context: typer.Context,
        name: Name,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Keep a key, asked for without showing it, or read from stdin."""
        env = options.get_app(context)
        screen = options.build_console(env, is_quiet=quiet or as_json, is_debugging=debug)
        _known(env, name)
        key = _asked(name) if env.stdin_is_terminal else inputs.text(env, (), "-", is_whole=True)[0].strip()
        if not key or any(not character.isprintable() or character.isspace() for character in key):
            raise UsageError("that is no key", hint="one word, without spaces or line breaks")
        from .. import credentials

        _require_config_file(env)
        credentials.write(env.keys_path, {**credentials.read(env.keys_path), name: key})
        if as_json:
            screen.write_json({"ok": True, "command": "keys", "gateway": name, "path": str(env.keys_path)})
        else:
            screen.info(f"the key for {name} is kept in {env.keys_path}")

    @app.command("list")
    def list_(
        context: typer.Context,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Say where the key of each gateway comes from; never the key."""
        env = options.get_app(context)
        screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
        if env.settings.keys_error is not None:
            raise env.settings.keys_error
        rows = [(one.name, one.key_source) for one in env.settings.gateways if one.key_needed or one.key]
        if as_json:
            for name, source in rows:
                screen.write_json({"gateway": name, "source": source})
        else:
            screen.write_table(
                ["gateway", "key"], [[name, source or "none"] for name, source in rows], numeric=[False] * 2
            )

    @app.command("remove")
    def remove(
        context: typer.Context,
        name: Name,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Forget a key that was kept."""
        from .. import credentials

        env = options.get_app(context)
        screen = options.build_console(env, is_quiet=quiet or as_json, is_debugging=debug)
        _require_config_file(env)
        kept = credentials.read(env.keys_path)
        if name not in kept:
            raise UsageError(f"no key for {name} is kept in {env.keys_path}")
        credentials.write(env.keys_path, {other: key for other, key in kept.items() if other != name})
        if as_json:
            screen.write_json({"ok": True, "command": "keys", "gateway": name, "path": str(env.keys_path)})
        else:
            screen.info(f"the key for {name} is forgotten")

    return app


def _require_config_file(env: AppContext) -> None:
    """Refuse to write keys beside something that is not a configuration file, such as /dev/null. Raises: UsageError."""
    from ..private_files import require_regular_file

    try:
        require_regular_file(env.config_path)
    except OSError as error:
        raise UsageError(
            f"cannot write keys beside {env.config_path}: {error.strerror}", hint="check AUDIOCLI_CONFIG"
        ) from error


def _known(env: AppContext, name: str) -> None:
    names = [one.name for one in env.settings.gateways if one.dialect != "local"]
    if name not in names:
        raise UsageError(f"unknown gateway {name!r}", hint="known gateways: " + ", ".join(names))


def _asked(name: str) -> str:
    """Ask on the terminal without an echo. Raises: KeyboardInterrupt."""
    import getpass

    return getpass.getpass(f"key for {name}: ").strip()
