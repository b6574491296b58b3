"""What the shells complete from: the command tree as plain values, and a file for each shell made from it.

The files are static. Only models and voices are asked for while people type (`completing`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Source(Enum):
    """Where the values of a flag or an argument come from."""

    FREE = "free"
    ONE_OF = "one"
    LIST_OF = "list"
    FILES = "files"
    FOLDERS = "folders"
    PROGRAMS = "programs"
    ASKED = "asked"


@dataclass(frozen=True)
class Values:
    """What may stand somewhere. `names`: the choices, or for ASKED what to ask `--complete` for (one name)."""

    source: Source = Source.FREE
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Flag:
    """One flag with all its spellings; `values` None takes no value. A `--play/--no-play` is two of these."""

    names: tuple[str, ...]
    help: str
    metavar: str = ""
    values: Values | None = None
    repeatable: bool = False
    excludes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Argument:
    metavar: str
    values: Values
    repeatable: bool = False


@dataclass(frozen=True)
class Command:
    """A command or a group; `path` is what is typed behind the program's name."""

    path: tuple[str, ...]
    help: str
    flags: tuple[Flag, ...]
    arguments: tuple[Argument, ...]
    commands: tuple[Command, ...] = ()

    def walk(self) -> Iterator[Command]:
        yield self
        for command in self.commands:
            yield from command.walk()


# The file in `completions/` for each shell; the wheel installs them where the shells look (pyproject.toml).
FILES = {"bash": "audiocli.bash", "zsh": "_audiocli", "fish": "audiocli.fish"}

REGENERATE = "python -m audiocli.completion"

HEADER = f"""\
# Completion of audiocli. Made by `audiocli completion`; do not edit, but run: {REGENERATE}
"""


def quoted(text: str) -> str:
    """Quote for bash and zsh."""
    return "'" + text.replace("'", "'\\''") + "'"
