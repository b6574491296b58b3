"""`audiocli config get`, `set`, `unset` and `edit`: read and change the config file."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext
from ..errors import AudiocliError, UsageError
from .options import GeneralOptions, open_app, with_options
from .prompts import confirm

if TYPE_CHECKING:
    from ..config_editor import Change
    from ..console import Console
    from ..types.json import Json

DEFAULT_EDITORS = ("editor", "nano", "vi", "notepad")

Key = Annotated[str, typer.Argument(metavar="KEY", help="Key in the config file, such as speak.voice.")]


class KeyOptions(NamedTuple):
    """Options of `audiocli config get` and `audiocli config unset`."""

    key: Key
    general: GeneralOptions = GeneralOptions()


class SetOptions(NamedTuple):
    """Options of `audiocli config set`."""

    key: Key
    values: Annotated[
        list[str], typer.Argument(metavar="VALUE...", help="Value as text or TOML; several values form a list.")
    ]
    general: GeneralOptions = GeneralOptions()


@with_options
def get(ctx: typer.Context, options: KeyOptions) -> None:
    """Print a value of the config file. Each item of a list has its own line."""
    from .. import config_editor

    app, console = open_app(ctx, options.general)
    _require_config_file(app)
    key = config_editor.parse_key(options.key)
    value = config_editor.get_value(app.config_path, key)
    if options.general.as_json:
        document: dict[str, Json] = {"key": options.key, "value": _encode(value), "path": str(app.config_path)}
        console.write_json({"ok": True, "command": "config get", **document})
    elif value is None:
        console.info(f"{options.key} is not set in {app.config_path}")
    else:
        items = value if isinstance(value, list) else [value]
        console.write_text("".join(f"{_format_item(item)}\n" for item in items))


@with_options
def set_value(ctx: typer.Context, options: SetOptions) -> None:
    """Set a value in the config file. Its other lines and comments stay unchanged."""
    from .. import config_editor

    app, console = open_app(ctx, options.general, quiet_json=True)
    for text in options.values:
        _require_utf8(text)
    change = config_editor.set_value(app.config_path, config_editor.parse_key(options.key), options.values)
    # Headers and URLs of a gateway may have a key or a password.
    is_private = change.key[0] == "gateways"
    text = f"{options.key} is set" if is_private else f"{options.key} = {config_editor.format_value(change.value)}"
    if is_private:
        change = change._replace(value=None)
    _report(app, console, options.general, change, text, command="config set")


@with_options
def unset(ctx: typer.Context, options: KeyOptions) -> None:
    """Remove a value or a table from the config file."""
    from .. import config_editor

    app, console = open_app(ctx, options.general, quiet_json=True)
    change = config_editor.unset_value(app.config_path, config_editor.parse_key(options.key))
    _report(app, console, options.general, change, f"removed {options.key}", command="config unset")


@with_options
def edit(ctx: typer.Context, options: GeneralOptions) -> None:
    """Edit the config file in $VISUAL or $EDITOR. It is replaced only by a valid configuration."""
    from ..config_editor import read_content, replace_content

    app, console = open_app(ctx, options, quiet_json=True)
    if not (app.stdin.isatty() and app.stderr.isatty()):
        raise UsageError("config edit needs a terminal", hint="use: audiocli config set KEY VALUE")
    path = app.config_path
    before = read_content(path)
    directory = Path(tempfile.mkdtemp(prefix="audiocli-"))
    copy = directory / path.name
    copy.write_bytes(before)
    content = before
    is_done = False
    try:
        while not is_done:
            _run_editor(app, copy)
            content = read_content(copy)
            if content != before and read_content(path) != before:
                raise UsageError(f"{path} was changed by another program", hint=f"the edited text is in {copy}")
            try:
                if content != before:
                    replace_content(path, content)
                is_done = True
            except UsageError as error:
                console.error(error)
                if not confirm(app, "Edit again?", default=True):
                    raise UsageError(f"{path} is unchanged", hint=f"the edited text is in {copy}") from error
    finally:
        if is_done or (copy.exists() and copy.read_bytes() == before):
            copy.unlink(missing_ok=True)
            _remove_directory(directory)
    if options.as_json:
        console.write_json({"ok": True, "command": "config edit", "path": str(path), "changed": content != before})
    else:
        console.result(f"changed {path}" if content != before else f"{path} is unchanged")


def _remove_directory(directory: Path) -> None:
    """Remove the temporary directory, unless an editor left its own files there."""
    try:
        directory.rmdir()
    except OSError:
        return


def _run_editor(app: AppContext, path: Path) -> None:
    """Run the editor and wait for it. Raises: UsageError: There is none, or it failed."""
    import shutil

    from ..processes import run_in_terminal

    search_path = app.variables.get("PATH")
    command = app.variables.get("VISUAL") or app.variables.get("EDITOR")
    if command is None:
        command = next((name for name in DEFAULT_EDITORS if shutil.which(name, path=search_path)), None)
    if command is None:
        raise UsageError("no editor found", hint="set EDITOR to the command of an editor")
    try:
        program, *arguments = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"cannot parse the editor command {command!r}", hint="check VISUAL and EDITOR") from error
    try:
        code = run_in_terminal(
            [shutil.which(program, path=search_path) or program, *arguments, str(path)],
            environment=_build_editor_environment(app),
        )
    except OSError as error:
        raise UsageError(
            f"cannot start the editor {program}: {error.strerror}", hint="check VISUAL and EDITOR"
        ) from error
    if code != 0:
        raise UsageError(f"the editor {program} failed with exit code {code}; nothing was changed")


def _build_editor_environment(app: AppContext) -> dict[str, str]:
    """Return the environment of the editor, without API keys. The config file to be edited may be invalid."""
    from .. import gateways
    from ..processes import build_child_environment

    try:
        return app.child_variables
    except AudiocliError:
        names = {name for gateway in gateways.BUILT_IN for name in (gateway.key_variable, gateway.base_url_variable)}
        keys = [app.variables[name] for name in names if name is not None and name in app.variables]
        return build_child_environment(app.variables, key_variables={name for name in names if name}, keys=keys)


def _require_config_file(app: AppContext) -> None:
    """Refuse an AUDIOCLI_CONFIG that does not exist. Raises: UsageError."""
    from ..config import read_tables

    read_tables(app.config_path, must_exist="AUDIOCLI_CONFIG" in app.variables)


def _require_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError("the value is not UTF-8") from error


def _format_item(item: object) -> str:
    """Format an item for a script: a text without quotes, anything else as TOML."""
    from ..config_editor import format_value

    return item if isinstance(item, str) else format_value(item)


def _encode(value: object) -> Json:
    """Return a TOML value as JSON. Dates, which no key has, become text."""
    if isinstance(value, dict):
        return {str(name): _encode(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _report(
    app: AppContext, console: Console, options: GeneralOptions, change: Change, text: str, *, command: str
) -> None:
    path = app.config_path
    if options.as_json:
        document: dict[str, Json] = {
            "key": ".".join(change.key),
            "value": _encode(change.value),
            "changed": change.is_changed,
            "path": str(path),
        }
        console.write_json({"ok": True, "command": command, **document})
    elif change.is_changed:
        console.result(f"{text} (in {path})")
    else:
        console.result(f"{path} is unchanged")
