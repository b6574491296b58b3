"""Generate the zsh script: one function for each command, which calls `_arguments`."""

from __future__ import annotations

from .command_tree import HEADER, Argument, Command, Flag, Values, ValueSource, quote

# In `fpath`, zsh runs the file as the body of the function at the first TAB. Sourced, it only registers the function.
TEMPLATE = """\
#compdef audiocli
{header}
{functions}
# Query the program for $1, with the word to complete and the rest of the line.
__audiocli_dynamic() {{
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

COMMAND_TEMPLATE = """\
{name}() {{
    _arguments -s -S -C \\
{specs}
}}
"""

GROUP_TEMPLATE = """\
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
    """Render the script."""
    functions = "\n".join(_render_function(command) for command in program.walk() if command.takes_words)
    return TEMPLATE.format(header=HEADER, functions=functions)


def _render_function(command: Command) -> str:
    specs = [spec for flag in command.flags for spec in _render_flag(flag)]
    if not command.commands:
        specs += [_render_argument(argument) for argument in command.arguments]
        return COMMAND_TEMPLATE.format(name=_build_function_name(command), specs=_render_specs(specs))
    commands = [f"                {quote(f'{child.path[-1]}:{child.help}')}" for child in command.commands]
    cases = [
        f"                {child.path[-1]}) {_build_function_name(child)} && ret=0 ;;"
        for child in command.commands
        if child.takes_words
    ]
    return GROUP_TEMPLATE.format(
        name=_build_function_name(command),
        specs=_render_specs([*specs, "1:command:->commands", "*::word:->words"]),
        commands="\n".join(commands),
        cases="\n".join(cases),
    )


def _build_function_name(command: Command) -> str:
    return "_".join(("__audiocli_at", *(word.replace("-", "_") for word in command.path)))


def _render_specs(specs: list[str]) -> str:
    return " \\\n".join(f"        {quote(spec)}" for spec in specs)


def _render_flag(flag: Flag) -> list[str]:
    """Render one spec for each name. `-m+` and `--model=` accept their value in the same word or the next."""
    specs = []
    for name in flag.names:
        excludes = "" if flag.repeatable else f"({' '.join((*flag.names, *flag.excludes))})"
        repeat = "*" if flag.repeatable else ""
        suffix = "" if flag.values is None else "=" if name.startswith("--") else "+"
        value = "" if flag.values is None else f":{_escape(flag.metavar)}:{_render_action(flag.values)}"
        specs.append(f"{excludes}{repeat}{name}{suffix}[{_escape(flag.help)}]{value}")
    return specs


def _render_argument(argument: Argument) -> str:
    # With a blank as action, zsh would show the metavar and not complete a flag in this position.
    action = "()" if argument.values.source is ValueSource.FREE else _render_action(argument.values)
    return f"{'*' if argument.repeatable else ''}:{_escape(argument.metavar)}:{action}"


def _render_action(values: Values) -> str:
    names = " ".join(values.names)
    return {
        ValueSource.FREE: " ",
        ValueSource.ONE_OF: f"({names})",
        ValueSource.LIST_OF: f"_values -s , name {names}",
        ValueSource.FILES: "_files",
        ValueSource.DIRECTORIES: "_files -/",
        ValueSource.PROGRAMS: "_command_names -e",
        # The leading blank keeps `_arguments` from inserting its own arguments before ours.
        ValueSource.DYNAMIC: f" __audiocli_dynamic {_escape(names)}",
    }[values.source]


def _escape(text: str) -> str:
    for special in "\\[]:":
        text = text.replace(special, f"\\{special}")
    return text
