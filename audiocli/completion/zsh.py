"""The file for zsh: a function for each command, in the words of `_arguments`."""

from __future__ import annotations

from .command_tree import HEADER, Argument, Command, Flag, Source, Values, quoted

# In `fpath`, zsh runs the file itself as the function at the first TAB; sourced, it only registers the function.
FRAME = """\
#compdef audiocli
{header}
{functions}
# Names that only the program knows: ask it for $1, with the word to complete and the rest of the line.
__audiocli_asked() {{
    local program=audiocli expl
    local -a names
    [[ $__audiocli_program == */* ]] && program=${{(Q)~__audiocli_program}}
    names=(${{(f)"$($program --complete $1 "${{(Q)PREFIX}}" \
        "${{(@Q)words[1,CURRENT-1]}}" "${{(@Q)words[CURRENT+1,-1]}}" 2>/dev/null)"}})
    _wanted names expl ${{1%%:*}} compadd -a names
}}

_audiocli() {{
    local __audiocli_program=$words[1]
    __audiocli_at
}}

if [[ $funcstack[1] == _audiocli ]]; then
    _audiocli "$@"
else
    (( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}
    compdef _audiocli audiocli
fi
"""

FUNCTION = """\
{name}() {{
    _arguments -s -S -C \\
{specs}
}}
"""

GROUP = """\
{name}() {{
    local curcontext=$curcontext state line ret=1
    local -A opt_args
    _arguments -s -S -C \\
{specs} && ret=0
    case $state in
        commands)
            local -a commands=(
{commands}
            )
            _describe -t commands command commands && ret=0
            ;;
        words)
            case $line[1] in
{cases}
            esac
            ;;
    esac
    return ret
}}
"""


def render(program: Command) -> str:
    return FRAME.format(header=HEADER, functions="\n".join(_function(command) for command in program.walk()))


def _function(command: Command) -> str:
    specs = [spec for flag in command.flags for spec in _flag(flag)]
    if not command.commands:
        specs += [_argument(argument) for argument in command.arguments]
        return FUNCTION.format(name=_name(command), specs=_lines(specs))
    commands = [f"                {quoted(f'{one.path[-1]}:{one.help}')}" for one in command.commands]
    cases = [f"                {one.path[-1]}) {_name(one)} && ret=0 ;;" for one in command.commands]
    return GROUP.format(
        name=_name(command),
        specs=_lines([*specs, "1:command:->commands", "*::word:->words"]),
        commands="\n".join(commands),
        cases="\n".join(cases),
    )


def _name(command: Command) -> str:
    return "_".join(("__audiocli_at", *(word.replace("-", "_") for word in command.path)))


def _lines(specs: list[str]) -> str:
    return " \\\n".join(f"        {quoted(spec)}" for spec in specs)


def _flag(flag: Flag) -> list[str]:
    """Write one spec for each spelling; `-m+` and `--model=` take their value in the same word or in the next."""
    specs = []
    for name in flag.names:
        excludes = "" if flag.repeatable else f"({' '.join((*flag.names, *flag.excludes))})"
        many = "*" if flag.repeatable else ""
        ending = "" if flag.values is None else "=" if name.startswith("--") else "+"
        value = "" if flag.values is None else f":{_escaped(flag.metavar)}:{_action(flag.values)}"
        specs.append(f"{excludes}{many}{name}{ending}[{_escaped(flag.help)}]{value}")
    return specs


def _argument(argument: Argument) -> str:
    # A blank as action would show the metavar, and keep zsh from inserting a flag that is typed in the same place.
    action = "()" if argument.values.source is Source.FREE else _action(argument.values)
    return f"{'*' if argument.repeatable else ''}:{_escaped(argument.metavar)}:{action}"


def _action(values: Values) -> str:
    names = " ".join(values.names)
    return {
        Source.FREE: " ",
        Source.ONE_OF: f"({names})",
        Source.LIST_OF: f"_values -s , name {names}",
        Source.FILES: "_files",
        Source.FOLDERS: "_files -/",
        Source.PROGRAMS: "_command_names -e",
        # The blank in front keeps `_arguments` from putting arguments of its own before ours.
        Source.ASKED: f" __audiocli_asked {_escaped(names)}",
    }[values.source]


def _escaped(text: str) -> str:
    for special in "\\[]:":
        text = text.replace(special, f"\\{special}")
    return text
