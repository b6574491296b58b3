"""`audiocli completion`: the file from which a shell completes, made from the command tree as it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from . import options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..completion.command_tree import Argument, Command, Flag, Values

    Table = dict[tuple[str, str], Values]

# The kind of model that a command works with; where none is named, `-m` is completed with all models.
KINDS = {"speak": "speech", "voices": "speech", "transcribe": "transcription", "chat": "chat"}


def completion(
    context: typer.Context,
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell to write for.")],
    as_json: options.AsJson = False,
) -> None:
    """Print the file from which bash, zsh or fish completes."""
    from ..completion.command_tree import FILES

    if shell not in FILES:
        raise UsageError(f"unknown shell {shell!r}", hint=f"one of {', '.join(FILES)}")
    screen = options.build_console(options.get_app(context), is_quiet=False, is_debugging=False)
    if as_json:
        screen.write_json({"ok": True, "command": "completion", "shell": shell, "text": rendered(shell)})
    else:
        screen.write_text(rendered(shell))


def rendered(shell: str) -> str:
    """Make the file for a shell of `completion.FILES`."""
    from ..completion import bash, fish, zsh

    render = {"bash": bash.render, "zsh": zsh.render, "fish": fish.render}[shell]
    return render(tree())


def first_list() -> str:
    """Make the list of `completing` for a machine that has asked no gateway yet: the models used when none is named."""
    from ..gateways import BUILT_IN

    return "".join(
        f"speech\t{one.name}:{one.speech_model}\t{one.voice}\ntranscription\t{one.name}:{one.transcription_model}\t\n"
        + (f"chat\t{one.name}:{one.chat_model}\talloy\n" if one.chat_model else "")
        for one in BUILT_IN
    )


def tree() -> Command:
    """Walk the commands as they are registered. Raises: LookupError: the table below tells of a flag that is gone."""
    from typer.main import get_command

    from . import build

    program = get_command(build())
    context = typer.Context(program, info_name="audiocli", **program.context_settings)
    table = _values_of_flags()
    walked = _command((), program, context, table)
    seen = {(name, flag.metavar) for one in walked.walk() for flag in one.flags for name in flag.names}
    if gone := sorted(set(table) - seen):
        raise LookupError(f"no command has these flags any more: {gone}")
    return walked


def _command(path: tuple[str, ...], told: Any, context: typer.Context, table: Table) -> Command:
    from typer.core import TyperGroup

    from ..completion.command_tree import Command

    kind = KINDS.get(path[0]) if path else None
    parameters = [one for one in told.get_params(context) if not getattr(one, "hidden", False)]
    commands = (
        {name: one for name, one in told.commands.items() if not one.hidden} if isinstance(told, TyperGroup) else {}
    )
    return Command(
        path=path,
        help=_sentence(told.get_short_help_str(200)),
        flags=tuple(flag for one in parameters if one.param_type_name == "option" for flag in _flags(one, table, kind)),
        arguments=tuple(_argument(one, kind) for one in parameters if one.param_type_name == "argument"),
        commands=tuple(
            _command((*path, name), one, typer.Context(one, context, info_name=name, **one.context_settings), table)
            for name, one in commands.items()
        ),
    )


def _flags(option: Any, table: Table, kind: str | None) -> Iterator[Flag]:
    """Make one flag of an option, or two of `--this/--that`."""
    from ..completion.command_tree import Flag

    help, repeatable = _sentence(option.help or ""), option.multiple or option.count
    # In an order of our own: typer keeps the names of --help in a set.
    names, others = (tuple(sorted(some, key=_long_first)) for some in (option.opts, option.secondary_opts))
    if option.is_flag or option.count:
        yield Flag(names, help, repeatable=repeatable, excludes=others)
        if others:
            yield Flag(others, help, repeatable=repeatable, excludes=names)
        return
    metavar = _metavar(option)
    values = next((table[name, metavar] for name in names if (name, metavar) in table), None)
    yield Flag(names, help, metavar, values or _values(option, metavar, kind), repeatable)


def _long_first(name: str) -> tuple[bool, str]:
    return not name.startswith("--"), name


def _argument(argument: Any, kind: str | None) -> Argument:
    from ..completion.command_tree import Argument

    metavar = _metavar(argument)
    return Argument(metavar, _values(argument, metavar, kind), repeatable=argument.nargs < 0)


def _metavar(parameter: Any) -> str:
    """The metavar without the marks for what may be left out or repeated."""
    text: str = parameter.metavar or parameter.name.upper()
    return text.removesuffix("...").removeprefix("[").removesuffix("]")


def _sentence(help: str) -> str:
    """The help in one line and without its full stop, as shells show it in a list."""
    return " ".join(help.split()).removesuffix(".")


def _values_of_flags() -> Table:
    """What flags take whose metavar does not tell, from the tables that check those flags. A test sees to both."""
    from ..audio import formats
    from ..completion.command_tree import Source, Values
    from ..ledger.reports import GROUPS
    from . import models, transcribe

    return {
        ("--gateway", "NAME"): Values(Source.ONE_OF, _gateways()),
        ("--format", "NAME"): Values(Source.ONE_OF, formats.OUTPUT_FORMATS),
        ("--format", "LIST"): Values(Source.LIST_OF, transcribe.FORMATS),
        ("--stdin-format", "EXT"): Values(Source.ONE_OF, tuple(row.name for row in formats.FORMATS)),
        ("--kind", "KIND"): Values(Source.ONE_OF, models.KINDS),
        ("--by", "WHAT"): Values(Source.LIST_OF, tuple(GROUPS)),
        ("--voice", "NAME"): Values(Source.ASKED, ("voices",)),
    }


def _values(parameter: Any, metavar: str, kind: str | None) -> Values:
    """Tell what a parameter takes from its metavar, or from its type where that has choices."""
    from ..completion.command_tree import Source, Values

    if choices := getattr(parameter.type, "choices", None):
        return Values(Source.ONE_OF, tuple(str(getattr(one, "value", one)) for one in choices))
    if re.fullmatch(r"[\w-]+(\|[\w-]+)+", metavar):
        return Values(Source.ONE_OF, tuple(metavar.split("|")))
    if metavar == "GATEWAY":
        return Values(Source.ONE_OF, _gateways())
    return {
        "PATH": Values(Source.FILES),
        "FILE": Values(Source.FILES),
        "INPUT": Values(Source.FILES),
        "DIR": Values(Source.FOLDERS),
        "CMD": Values(Source.PROGRAMS),
        "REF": Values(Source.ASKED, (f"models:{kind}" if kind else "models",)),
        "WHEN": Values(Source.ONE_OF, ("today", "yesterday", "7d", "4w", "month", "all")),
    }.get(metavar, Values())


def _gateways() -> tuple[str, ...]:
    from ..gateways import BUILT_IN

    return tuple(gateway.name for gateway in BUILT_IN)
