"""`audiocli completion`: the file from which a shell completes, made from the command tree as it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from . import options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..completion import Argument, Command, Flag, Values

# The kind of model that a command works with; where none is named, `-m` is completed with all models.
KINDS = {"speak": "speech", "voices": "speech", "transcribe": "transcription", "chat": "chat"}


def completion(
    context: typer.Context,
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell to write for.")],
) -> None:
    """Print the file from which bash, zsh or fish completes."""
    from ..completion import FILES

    if shell not in FILES:
        raise UsageError(f"unknown shell {shell!r}", hint=f"one of {', '.join(FILES)}")
    env = options.env_of(context)
    # As it is, also to a terminal: a file that is pasted has to be the file.
    env.stdout.write(rendered(shell).encode())


def rendered(shell: str) -> str:
    """Make the file for a shell of `completion.FILES`."""
    from ..completion import bash, fish, zsh

    return {"bash": bash, "zsh": zsh, "fish": fish}[shell].render(tree())


def tree() -> Command:
    """Walk the commands as they are registered. Raises: LookupError: `_table` tells of a flag that is not there."""
    from typer.main import get_command

    from . import build

    program = get_command(build())
    table = _table()
    untold = set(table)
    walked = _command(program, typer.Context(program, info_name="audiocli", **program.context_settings), table, untold)
    if untold:
        raise LookupError(f"no command has these flags any more: {sorted(untold)}")
    return walked


Table = "dict[tuple[str, str], Values]"
