"""Generate the fish script: one line for each command and flag, with its command path as condition."""

from __future__ import annotations

from .command_tree import HEADER, Argument, Command, Flag, Values, ValueSource

# The text after a tab describes a value. It is empty, because fish would otherwise repeat the help of the flag.
TEMPLATE = r"""{header}
# Test whether the words before the cursor are this command path. fish calls it once for each path, not for each line.
function __audiocli_at --argument-names expected
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
    test "$path" = "$expected"
end

# Query the program for names, with the word to complete and the rest of the line.
function __audiocli_dynamic --argument-names query
    set -l words (commandline -op)
    set -l program audiocli
    string match -q '*/*' -- $words[1]
    and set program (string replace -r '^~/' "$HOME/" -- $words[1])
    set -l current (commandline -ct | string unescape | string replace -r '^--[^=]*=' '')
    $program --complete $query "$current" $words[2..] 2>/dev/null | string replace -r '$' '\t'
end

# Complete the next name of a comma-separated list.
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
    """Render the script."""
    groups = [command for command in program.walk() if command.commands]
    valued = [
        _render_path(group.path, name)
        for group in groups
        for flag in group.flags
        if flag.values is not None
        for name in flag.names
    ]
    paths = [_render_path(group.path, command.path[-1]) for group in groups for command in group.commands]
    lines = [line for command in program.walk() for line in _render_lines(command)]
    return TEMPLATE.format(
        header=HEADER,
        valued=" ".join(valued) or "''",
        paths=" ".join(paths),
        lines="\n".join(lines),
    )


def _render_path(path: tuple[str, ...], word: str) -> str:
    return _quote(f"{' '.join(path)} {word}")


def _render_lines(command: Command) -> list[str]:
    path = " ".join(command.path)
    prefix = "complete -c audiocli -n " + _quote(
        f"__audiocli_at {_quote(path)}" if " " in path or not path else f"__audiocli_at {path}"
    )
    return [
        *(f"{prefix} -a {_quote(child.path[-1])} -d {_quote(child.help)}" for child in command.commands),
        *(f"{prefix}{_render_flag(flag)}" for flag in command.flags),
        *(prefix + _render_values(argument.values) for argument in _select_arguments(command.arguments)),
    ]


def _select_arguments(arguments: tuple[Argument, ...]) -> list[Argument]:
    """Return the arguments that have values, without duplicates: fish does not count positions."""
    selected: list[Argument] = []
    for argument in arguments:
        is_duplicate = argument.values in [other.values for other in selected]
        if argument.values.source is not ValueSource.FREE and not is_duplicate:
            selected.append(argument)
    return selected


def _render_flag(flag: Flag) -> str:
    names = "".join(
        f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in sorted(flag.names, key=len)
    )
    takes = "" if flag.values is None else " -r" + _render_values(flag.values)
    return f"{names}{takes} -d {_quote(flag.help)}"


def _render_values(values: Values) -> str:
    names = " ".join(values.names)
    described = "".join(rf" {name}\t" for name in values.names).strip(" ")
    return {
        ValueSource.FREE: " -f",
        ValueSource.ONE_OF: f" -f -a '{described}'",
        ValueSource.LIST_OF: f" -f -a {_quote(f'(__audiocli_list {names})')}",
        ValueSource.FILES: " -F",
        ValueSource.DIRECTORIES: " -f -a '(__fish_complete_directories)'",
        ValueSource.PROGRAMS: " -f -a '(__fish_complete_command)'",
        ValueSource.DYNAMIC: f" -f -a {_quote(f'(__audiocli_dynamic {names})')}",
    }[values.source]


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
