"""The file for fish: a line for each command and flag, under the condition that the command line is at that place."""

from __future__ import annotations

from .command_tree import HEADER, Argument, Command, Flag, Source, Values

# What follows a tab describes a value. It is empty here: else fish repeats the help of the flag beside each of them.
FRAME = r"""{header}
# Whether the words before the cursor lead to this place of the tree. fish asks once for each place, not for each line.
function __audiocli_at --argument-names wanted
    set -l words (commandline -opc)
    set -e words[1]
    set -l path ''
    set -l skipped 0
    for word in $words
        if test $skipped = 1
            set skipped 0
            continue
        end
        switch "$path $word"
            case {valued}
                set skipped 1
            case {paths}
                set path (string trim -- "$path $word")
        end
    end
    test "$path" = "$wanted"
end

# Names that only the program knows: ask it, with the word to complete and the rest of the line.
function __audiocli_asked --argument-names what
    set -l words (commandline -op)
    set -l program audiocli
    string match -q '*/*' -- $words[1]
    and set program (string replace -r '^~/' "$HOME/" -- $words[1])
    set -l current (commandline -ct | string unescape | string replace -r '^--[^=]*=' '')
    $program --complete $what "$current" $words[2..] 2>/dev/null | string replace -r '$' '\t'
end

# The names that may follow in a list with commas.
function __audiocli_list
    set -l before (commandline -ct | string replace -r '^--[^=]*=' '' | string replace -rf '(.*,)[^,]*' '$1')
    for name in $argv
        contains -- $name (string split , -- $before)
        or echo $before$name\t
    end
end

complete -c audiocli -f
{lines}
"""


def render(program: Command) -> str:
    groups = [command for command in program.walk() if command.commands]
    valued = [
        _at(group.path, name)
        for group in groups
        for flag in group.flags
        if flag.values is not None
        for name in flag.names
    ]
    paths = [_at(group.path, command.path[-1]) for group in groups for command in group.commands]
    lines = [line for command in program.walk() for line in _lines(command)]
    return FRAME.format(
        header=HEADER,
        valued=" ".join(valued) or "''",
        paths=" ".join(paths),
        lines="\n".join(lines),
    )


def _at(path: tuple[str, ...], word: str) -> str:
    return _quoted(f"{' '.join(path)} {word}")


def _lines(command: Command) -> list[str]:
    place = " ".join(command.path)
    begin = "complete -c audiocli -n " + _quoted(
        f"__audiocli_at {_quoted(place)}" if " " in place or not place else f"__audiocli_at {place}"
    )
    return [
        *(f"{begin} -a {_quoted(one.path[-1])} -d {_quoted(one.help)}" for one in command.commands),
        *(f"{begin}{_flag(flag)}" for flag in command.flags),
        *(begin + _values(argument.values) for argument in _told(command.arguments)),
    ]


def _told(arguments: tuple[Argument, ...]) -> list[Argument]:
    """Leave out what has no values to offer, and what was told already: fish knows no places."""
    kept: list[Argument] = []
    for one in arguments:
        if one.values.source is not Source.FREE and one.values not in [other.values for other in kept]:
            kept.append(one)
    return kept


def _flag(flag: Flag) -> str:
    spellings = "".join(
        f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in sorted(flag.names, key=len)
    )
    takes = "" if flag.values is None else " -r" + _values(flag.values)
    return f"{spellings}{takes} -d {_quoted(flag.help)}"


def _values(values: Values) -> str:
    names = " ".join(values.names)
    told = "".join(rf" {name}\t" for name in values.names).strip(" ")
    return {
        Source.FREE: " -f",
        Source.ONE_OF: f" -f -a '{told}'",
        Source.LIST_OF: f" -f -a {_quoted(f'(__audiocli_list {names})')}",
        Source.FILES: " -F",
        Source.FOLDERS: " -f -a '(__fish_complete_directories)'",
        Source.PROGRAMS: " -f -a '(__fish_complete_command)'",
        Source.ASKED: f" -f -a {_quoted(f'(__audiocli_asked {names})')}",
    }[values.source]


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
