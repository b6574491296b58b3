"""`audiocli help`, and the pages of `--help`: panels, examples and exit codes around the options of Typer.

Only help loads this module and, through Typer, rich.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..context import AppContext
from ..errors import UsageError, suggest
from .help_pages import (
    EXIT_CODES,
    PANELS,
    HelpPage,
    find_default,
    find_page,
    find_panel,
    find_variable,
)
from .options import GeneralOptions, open_app, with_options

if TYPE_CHECKING:
    from collections.abc import Iterator

GENERAL_PANEL = "General"
# In narrower terminals, lines are wrapped by the terminal: rich would cut off the names of options.
MIN_WIDTH = 80
# A longer list of choices, such as `srt|vtt|ass`, is part of the description, which would otherwise be narrow.
MAX_METAVAR_WIDTH = 11
# What stands for these choices; NAME for others.
SHORT_METAVARS = {"auto|always|never": "WHEN"}


class HelpOptions(NamedTuple):
    """Options of `audiocli help`."""

    words: Annotated[
        list[str] | None, typer.Argument(metavar="[TOPIC|COMMAND]...", help="Topic, or a command and its subcommand.")
    ] = None
    general: GeneralOptions = GeneralOptions()


@with_options
def help(ctx: typer.Context, options: HelpOptions) -> None:
    """Show help for a command or a topic."""
    app, console = open_app(ctx, options.general)
    words = options.words or []
    text = _render_page(app, words)
    if options.general.as_json:
        plain_text = _trim(re.sub(r"\x1b\[[0-9;]*m", "", text))
        console.write_json({"ok": True, "command": "help", "topic": " ".join(words), "text": plain_text})
    else:
        write_page(app, text)


def write_page(app: AppContext, text: str) -> None:
    """Write a page to stdout, with the colors that rich has added for a terminal."""
    from ..console import Console

    Console(stdout=app.stdout, stderr=app.stderr).write_text(_trim(text))


def _trim(text: str) -> str:
    """Remove the blanks at the ends of lines and the empty lines around a page, which rich adds."""
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n") + "\n"


def _render_page(app: AppContext, words: Sequence[str]) -> str:
    from . import COMMANDS
    from .help_topics import TOPICS

    if len(words) == 1 and words[0] in TOPICS:
        title, render = TOPICS[words[0]]
        text = f"{title}\n\n{render()}"
        if words[0] in COMMANDS:
            text += f"\nThe options of the command of this name: audiocli {words[0]} --help\n"
        return text
    return render_command_help(app, words)


def render_command_help(app: AppContext, words: Sequence[str]) -> str:
    """Render the help of a command, or of the program if there are no words.

    Raises:
        UsageError: There is no such command or topic.
    """
    from typer.core import TyperGroup
    from typer.main import get_command

    from . import COMMANDS, build
    from .help_topics import TOPICS

    only = words[0] if words and words[0] in COMMANDS else None
    program: Any = get_command(build(only, names_only=only is None))
    prepare(program, app.variables, has_color=app.has_color(app.stdout))
    command, context = program, typer.Context(program, info_name="audiocli", **program.context_settings)
    for word in words:
        names = list(command.commands) if isinstance(command, TyperGroup) else []
        if word not in names or (only is None and word == words[0]):
            known = [*names, *(TOPICS if command is program else ())]
            subject = "command or topic" if command is program else f"subcommand of '{context.command_path}'"
            raise UsageError(
                f"unknown {subject} {word!r}{suggest(word, known)}",
                hint=f"topics: {', '.join(TOPICS)}; see 'audiocli --help' for the commands",
            )
        command = command.commands[word]
        context = typer.Context(command, context, info_name=word, **command.context_settings)
    text = io.StringIO()
    with redirect_stdout(text):
        text.write(command.get_help(context))
    return text.getvalue()


def prepare(program: Any, variables: Mapping[str, str], *, has_color: bool) -> None:
    """Add panels, defaults, descriptions, examples and exit codes to a tree of commands, and let rich print it."""
    _configure_rich(variables, has_color=has_color)
    for path, command in _walk((), program):
        name = " ".join(path)
        page = find_page(name)
        command.rich_markup_mode = "rich"
        command.help = _escape("\n\n".join(part for part in (_join_lines(command.help), page.description) if part))
        command.epilog = _build_epilog(page, is_program=not path)
        command.format_help = partial(_format_help, command, command.format_help)
        context = typer.Context(command, **program.context_settings)
        command.get_help_option(context).rich_help_panel = GENERAL_PANEL
        for parameter in command.params:
            if parameter.param_type_name == "option":
                _prepare_option(name, parameter)
            else:
                parameter.type = copy(parameter.type)
                parameter.type.get_metavar = _return_no_type
            parameter.help = _escape(parameter.help or "")
        panels = list(PANELS)
        command.params.sort(key=lambda parameter: _get_panel_index(parameter, panels))


def _walk(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _walk((*path, name), child)


def _format_help(command: Any, format_help: Callable[[Any, Any], None], context: Any, formatter: Any) -> None:
    """Format the help of a command. `--play` and `--no-play` stand in one column, which leaves the others their width.

    The names are changed only now, because the parser reads them before.
    """
    for parameter in command.params:
        if parameter.secondary_opts:
            parameter.opts = [*parameter.opts, *(f"\n{name}" for name in parameter.secondary_opts)]
            parameter.secondary_opts = []
    format_help(context, formatter)


def _shorten_metavar(option: Any) -> None:
    """Move the choices in a long metavar to the description, and its optional part to a line of its own."""
    metavar = option.metavar or ""
    if "|" in metavar and len(metavar) > MAX_METAVAR_WIDTH:
        help = option.help or ""
        option.metavar = SHORT_METAVARS.get(metavar, "LIST" if "comma-separated" in help else "NAME")
        option.help = f"{help} Values: {', '.join(metavar.split('|'))}.".strip()
    elif len(metavar) > MAX_METAVAR_WIDTH:
        option.metavar = metavar.replace("[", "\n[", 1)


def _prepare_option(path: str, option: Any) -> None:
    _shorten_metavar(option)
    option.rich_help_panel = find_panel(path, option.opts) or GENERAL_PANEL
    if option.secondary_opts:
        option.show_default = False  # rich would print the name of the option
    if isinstance(option.default, float) and option.default.is_integer():
        option.default = int(option.default)
    if (default := find_default(path, option.opts)) is not None:
        option.show_default = default
    if (variable := find_variable(path, option.opts)) is not None:
        option.envvar, option.show_envvar = variable, True


def _return_no_type(param: Any, ctx: Any) -> str:
    """Hide the type of an argument, whose metavar says enough."""
    return ""


def _get_panel_index(parameter: Any, panels: Sequence[str]) -> int:
    """Return the position of the panel of an option. Arguments are first."""
    return panels.index(parameter.rich_help_panel) if parameter.rich_help_panel in panels else -1


def _build_epilog(page: HelpPage, *, is_program: bool) -> str:
    parts = []
    if page.examples:
        parts.append("[bold]Examples[/bold]\n" + "\n".join(f"  {_escape(line)}" for line in page.examples))
    if page.exit_codes:
        lines = (f"  {code:<3}  {EXIT_CODES[code][0]}" for code in page.exit_codes)
        parts.append("[bold]Exit codes[/bold]\n" + "\n".join(lines))
    if is_program:
        from .help_topics import TOPICS

        lines = (f"  {f'audiocli help {name}':<28}{title}" for name, (title, _) in TOPICS.items())
        parts.append("[bold]More[/bold]\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _join_lines(text: str | None) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (text or "").split("\n\n"))


def _escape(text: str) -> str:
    """Escape what rich would read as markup, such as `[GATEWAY:]MODEL`."""
    return text.replace("[", "\\[")


def _configure_rich(variables: Mapping[str, str], *, has_color: bool) -> None:
    """Set the width and the colors that Typer passes to rich. rich itself would read the variables of the process."""
    from typer import rich_utils

    columns = variables.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and len(columns) < 5 else shutil.get_terminal_size().columns
    rich_utils.MAX_WIDTH = max(width, MIN_WIDTH)
    rich_utils.COLOR_SYSTEM = "standard" if has_color else None
    rich_utils.FORCE_TERMINAL = has_color
    rich_utils.Console = partial(rich_utils.Console, no_color=not has_color)  # type: ignore[assignment, attr-defined]
