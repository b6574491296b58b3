"""`audiocli completion`: generate a completion script from the command tree."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..errors import UsageError
from .options import GeneralOptions, open_app, with_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..completion.command_tree import Argument, Command, Flag, Values
    from ..completion.man import ManPage
    from ..console import Console
    from ..context import AppContext
    from ..types.json import Json

    ValueTable = dict[tuple[str, str], Values]

# The kind of model that `-m` completes for a command. Other commands complete all models.
COMMAND_KINDS = {"speak": "speech", "voices": "speech", "transcribe": "transcription", "chat": "chat"}


class CompletionOptions(NamedTuple):
    """Options of `audiocli completion`."""

    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="Shell to generate the script for.")]
    install: Annotated[bool, typer.Option("--install", help="Install the script for this user.")] = False
    general: GeneralOptions = GeneralOptions()


@with_options
def completion(ctx: typer.Context, options: CompletionOptions) -> None:
    """Print or install a completion script for bash, zsh or fish."""
    from ..completion.command_tree import COMPLETION_FILES

    shell = options.shell
    if shell not in COMPLETION_FILES:
        raise UsageError(f"unknown shell {shell!r}", hint=f"one of {', '.join(COMPLETION_FILES)}")
    app, console = open_app(ctx, options.general)
    if options.install:
        _install(app, console, shell, as_json=options.general.as_json)
    elif options.general.as_json:
        console.write_json({"ok": True, "command": "completion", "shell": shell, "text": render_completion(shell)})
    else:
        console.write_text(render_completion(shell))


def _install(app: AppContext, console: Console, shell: str, *, as_json: bool) -> None:
    """Install the script of a shell, and report each file. Raises: AudiocliError."""
    from .completion_install import plan_install, write_changes

    changes = plan_install(shell, app.variables)
    write_changes(changes)
    if as_json:
        files: list[Json] = [
            {
                "path": str(change.path),
                "changed": change.content is not None,
                "backup": None if change.backup is None else str(change.backup),
            }
            for change in changes
        ]
        console.write_json({"ok": True, "command": "completion", "shell": shell, "files": files})
        return
    for change in changes:
        backup = f"; the previous file is {change.backup}" if change.backup is not None else ""
        console.result(f"{change.path} is unchanged" if change.content is None else f"wrote {change.path}{backup}")
    if any(change.content is not None for change in changes):
        console.hint(f"start a new {shell} to use the completion")


def render_completion(shell: str) -> str:
    """Render the completion script of a shell in `COMPLETION_FILES`."""
    from ..completion import bash, fish, zsh

    render = {"bash": bash.render, "zsh": zsh.render, "fish": fish.render}[shell]
    return render(_add_help_words(build_tree()))


def _add_help_words(tree: Command) -> Command:
    """Give `audiocli help` its topics and the commands as subcommands, so that a shell completes them."""
    from ..completion.command_tree import Command
    from .help_topics import TOPICS

    topics = [Command(("help", name), title, (), ()) for name, (title, _) in TOPICS.items()]
    commands = [_build_help_word(command) for command in tree.commands if command.path[-1] not in TOPICS]
    return replace(
        tree,
        commands=tuple(
            replace(command, arguments=(), commands=(*topics, *commands)) if command.path == ("help",) else command
            for command in tree.commands
        ),
    )


def _build_help_word(command: Command) -> Command:
    """Return a command as a word after `audiocli help`, which takes no options or arguments of the command."""
    children = tuple(_build_help_word(child) for child in command.commands)
    return replace(command, path=("help", *command.path), flags=(), arguments=(), commands=children)


def render_default_list() -> str:
    """Render the list that `completion.runtime` reads until a model list is cached: the default models."""
    from ..gateways import BUILT_IN

    lines = [
        line
        for gateway in BUILT_IN
        for line in (
            *(f"speech\t{gateway.name}:{default.model}\t{default.voice or ''}\n" for default in gateway.speech),
            *(f"transcription\t{gateway.name}:{default.model}\t\n" for default in gateway.transcription),
            *(f"chat\t{gateway.name}:{default.model}\talloy\n" for default in gateway.chat),
        )
    ]
    return "".join(dict.fromkeys(lines))


def render_man_pages() -> dict[str, str]:
    """Render the man pages by file name."""
    from ..completion import man

    tree = build_tree()
    return {f"{man.build_page_name(command)}.1": man.render(command, _build_page(command)) for command in tree.walk()}


def _build_page(command: Command) -> ManPage:
    from ..completion.man import ManPage
    from .help_pages import EXIT_CODES, PANELS, find_default, find_page, find_panel, find_variable
    from .help_topics import ENVIRONMENT

    path = " ".join(command.path)
    page = find_page(path)
    panels: dict[str, list[Flag]] = {panel: [] for panel in PANELS}
    for flag in command.flags:
        # The panel of `--no-play` is the one of `--play`.
        panel = find_panel(path, (*flag.names, *flag.excludes)) or "General"
        default, variable = find_default(path, flag.names) or flag.default, find_variable(path, flag.names)
        notes = [f"default: {default}"] * bool(default) + [f"environment: {variable}"] * bool(variable)
        help = f"{flag.help} ({', '.join(notes)})" if notes else flag.help
        panels[panel].append(replace(flag, help=help))
    return ManPage(
        description=page.description,
        examples=page.examples,
        panels={panel: flags for panel, flags in panels.items() if flags},
        exit_codes=[(code, EXIT_CODES[code][1]) for code in page.exit_codes],
        variables=() if command.path else ENVIRONMENT,
    )


def build_tree() -> Command:
    """Build the command tree from the registered Typer commands.

    Raises:
        LookupError: The value table has an option that no command has.
    """
    from typer.main import get_command

    from . import build

    program = get_command(build())
    context = typer.Context(program, info_name="audiocli", **program.context_settings)
    table = _build_value_table()
    tree = _build_command((), program, context, table)
    existing = {(name, flag.metavar) for command in tree.walk() for flag in command.flags for name in flag.names}
    if missing := sorted(set(table) - existing):
        raise LookupError(f"no command has these options: {missing}")
    return tree


def _build_command(path: tuple[str, ...], source: Any, context: typer.Context, table: ValueTable) -> Command:
    from typer.core import TyperGroup

    from ..completion.command_tree import Command

    kind = COMMAND_KINDS.get(path[0]) if path else None
    parameters = [parameter for parameter in source.get_params(context) if not getattr(parameter, "hidden", False)]
    options = [parameter for parameter in parameters if parameter.param_type_name == "option"]
    arguments = [parameter for parameter in parameters if parameter.param_type_name == "argument"]
    commands = []
    for name, child in source.commands.items() if isinstance(source, TyperGroup) else ():
        if not child.hidden:
            child_context = typer.Context(child, context, info_name=name, **child.context_settings)
            commands.append(_build_command((*path, name), child, child_context, table))
    return Command(
        path=path,
        help=_format_help(source.get_short_help_str(200)),
        flags=tuple(flag for option in options for flag in _build_flags(option, table, kind)),
        arguments=tuple(_build_argument(argument, kind) for argument in arguments),
        commands=tuple(commands),
    )


def _build_flags(option: Any, table: ValueTable, kind: str | None) -> Iterator[Flag]:
    """Yield one flag for an option, or two for `--name/--no-name`."""
    from ..completion.command_tree import Flag

    help, repeatable = _format_help(option.help or ""), option.multiple or option.count
    # Sorted, because Typer keeps the names of --help in a set.
    names, negative_names = (tuple(sorted(opts, key=_sort_long_first)) for opts in (option.opts, option.secondary_opts))
    if option.is_flag or option.count:
        yield Flag(names, help, repeatable=repeatable, excludes=negative_names)
        if negative_names:
            yield Flag(negative_names, help, repeatable=repeatable, excludes=names)
        return
    metavar = _clean_metavar(option)
    values = next((table[name, metavar] for name in names if (name, metavar) in table), None)
    default = f"{option.default:g}" if isinstance(option.default, int | float) else ""
    yield Flag(names, help, metavar, values or _derive_values(option, metavar, kind), repeatable, default=default)


def _sort_long_first(name: str) -> tuple[bool, str]:
    return not name.startswith("--"), name


def _build_argument(argument: Any, kind: str | None) -> Argument:
    from ..completion.command_tree import Argument

    metavar = _clean_metavar(argument)
    values = _derive_values(argument, metavar, kind)
    return Argument(metavar, values, repeatable=argument.nargs < 0, required=argument.required)


def _clean_metavar(parameter: Any) -> str:
    """Return the metavar without the brackets and dots of optional and repeatable parameters."""
    text: str = parameter.metavar or parameter.name.upper()
    return text.removesuffix("...").removeprefix("[").removesuffix("]")


def _format_help(help: str) -> str:
    """Return the help on one line without its period, for the lists that shells show."""
    return " ".join(help.split()).removesuffix(".")


def _build_value_table() -> ValueTable:
    """Return the values of options by option and metavar, from the tables that validate these options."""
    from ..audio import formats
    from ..completion.command_tree import Values, ValueSource
    from ..ledger.reports import GROUPS
    from ..text.format_names import PARTS, TRANSCRIPT_FORMATS
    from . import models
    from .rendering import GUARD_MODES

    return {
        ("--gateway", "NAME"): Values(ValueSource.ONE_OF, _list_gateways()),
        ("--format", "NAME"): Values(ValueSource.ONE_OF, formats.OUTPUT_FORMATS),
        ("--format", "LIST"): Values(ValueSource.LIST_OF, TRANSCRIPT_FORMATS),
        ("--stdin-format", "EXT"): Values(ValueSource.ONE_OF, tuple(row.name for row in formats.FORMATS)),
        ("--with", "LIST"): Values(ValueSource.LIST_OF, PARTS),
        ("--guard", "warn|off"): Values(ValueSource.ONE_OF, GUARD_MODES),
        ("--kind", "KIND"): Values(ValueSource.ONE_OF, models.KINDS),
        ("--by", "WHAT"): Values(ValueSource.LIST_OF, tuple(GROUPS)),
        ("--voice", "NAME"): Values(ValueSource.DYNAMIC, ("voices",)),
    }


def _derive_values(parameter: Any, metavar: str, kind: str | None) -> Values:
    """Return the values of a parameter, derived from the choices of its type or from its metavar.

    In a metavar such as `mix|split|N`, words in lower case are choices; the others name a value.
    """
    from ..completion.command_tree import Values, ValueSource
    from ..config_tables import list_fixed_keys

    if choices := getattr(parameter.type, "choices", None):
        return Values(ValueSource.ONE_OF, tuple(str(getattr(choice, "value", choice)) for choice in choices))
    if choices := [word for word in metavar.split("|") if re.fullmatch(r"[a-z\d_-]+", word)]:
        return Values(ValueSource.ONE_OF, tuple(choices))
    if metavar == "GATEWAY":
        return Values(ValueSource.ONE_OF, _list_gateways())
    if metavar == "KEY" and parameter.param_type_name == "argument":
        return Values(ValueSource.ONE_OF, list_fixed_keys())
    return {
        "PATH": Values(ValueSource.FILES),
        "FILE": Values(ValueSource.FILES),
        "INPUT": Values(ValueSource.FILES),
        "DIR": Values(ValueSource.DIRECTORIES),
        "CMD": Values(ValueSource.PROGRAMS),
        "REF": Values(ValueSource.DYNAMIC, (f"models:{kind}" if kind else "models",)),
        "WHEN": Values(ValueSource.ONE_OF, ("today", "yesterday", "7d", "4w", "month", "all")),
    }.get(metavar, Values())


def _list_gateways() -> tuple[str, ...]:
    from ..gateways import BUILT_IN

    return tuple(gateway.name for gateway in BUILT_IN)
