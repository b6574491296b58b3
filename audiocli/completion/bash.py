"""Generate the bash script: a function with the command tree, and functions that parse the line. Needs bash 3.2."""

from __future__ import annotations

from .command_tree import HEADER, Command, Flag, Values, quote

# The script parses the line without `bash-completion`. Words are split at blanks only, independent of COMP_WORDBREAKS,
# so that `openrouter:openai/x` and `--format=mp3` are one word. Bash replaces only the text after its last break (its
# second argument), so the text before it is removed from the completions.
READER_SCRIPT = r"""
# Split part of a command line at blanks, as the shell does: complete words into `split`, the last one into `last`.
__audiocli_split() {
    local rest=$1 run word='' begun=''
    split=()
    while [[ -n $rest ]]; do
        run=${rest%%[[:space:]\'\"\\]*}
        if [[ -n $run ]]; then
            word+=$run begun=1 rest=${rest:${#run}}
            continue
        fi
        case $rest in
            \\*) word+=${rest:1:1} begun=1 rest=${rest:2} ;;
            \'*)
                run=${rest:1} run=${run%%\'*}
                word+=$run begun=1 rest=${rest:${#run}+2}
                ;;
            \"*)
                begun=1 rest=${rest:1}
                while [[ -n $rest && $rest != \"* ]]; do
                    if [[ $rest == \\[\"\\\$\`]* ]]; then rest=${rest:1}; fi
                    run=${rest:1} run=${run%%[\"\\]*}
                    word+=${rest:0:1}$run rest=${rest:${#run}+1}
                done
                rest=${rest:1}
                ;;
            *)
                if [[ -n $begun ]]; then split+=("$word"); fi
                word='' begun='' rest=${rest:1}
                ;;
        esac
    done
    last=$word
}

# Add the lines of $1 that start with `current` as completions, each with the prefix $2.
__audiocli_offer() {
    local name
    while IFS= read -r name; do
        if [[ -n $name && ${2-}$name == "$current"* ]]; then
            name=$option_prefix${2-}$name
            COMPREPLY+=("${name#"$unbroken"}")
        fi
    done <<<"$1"
}

__audiocli_values() {
    local names=${1#* }
    case $1 in
        files) compopt -o default 2>/dev/null ;;
        directories) compopt -o dirnames 2>/dev/null ;;
        programs) __audiocli_offer "$(compgen -c -- "$current" | sort -u)" ;;
        one\ *) __audiocli_offer "${names// /$'\n'}" ;;
        list\ *)
            local before='' name
            if [[ $current == *,* ]]; then before=${current%,*},; fi
            for name in $names; do
                if [[ ,$before != *,$name,* ]]; then __audiocli_offer "$name" "$before"; fi
            done
            compopt -o nospace 2>/dev/null
            ;;
        dynamic\ *)
            __audiocli_offer "$("$program" --complete "$names" "$current" "${split[@]}" "${following[@]}" 2>/dev/null)"
            ;;
    esac
}

_audiocli() {
    local program=audiocli current option_prefix='' unbroken='' split last following word index
    local redirected='^[0-9&]*[<>]+'
    local path='' flag='' commands flags takes arguments is_repeatable awaited='' position=0 options_ended=''
    COMPREPLY=()
    compopt +o default 2>/dev/null
    if [[ $1 == */* ]]; then program=${1/#\~\//$HOME/}; fi
    __audiocli_split "${COMP_LINE:COMP_POINT} "
    following=("${split[@]}")
    __audiocli_split "${COMP_LINE:0:COMP_POINT}"
    split=("${split[@]:1}") current=$last
    if [[ $current == *"$2" ]]; then unbroken=${current%"$2"}; fi

    __audiocli_at
    for word in "${split[@]}"; do
        if [[ -n $awaited ]]; then
            awaited=''
        elif [[ $word =~ $redirected$ ]]; then
            awaited=files
        elif [[ -n $options_ended || $word != -?* ]]; then
            if [[ $position == 0 && " $commands " == *" $word "* ]]; then
                path+=${path:+ }$word
                __audiocli_at
            else
                position=$((position + 1))
            fi
        elif [[ $word == -- ]]; then
            options_ended=1
        elif [[ $word == --* ]]; then
            flag=$word
            __audiocli_at
            awaited=$takes
        else
            for ((index = 1; index < ${#word}; index++)); do
                flag=-${word:index:1}
                __audiocli_at
                if [[ -n $takes ]]; then
                    if ((index + 1 == ${#word})); then awaited=$takes; fi
                    break
                fi
            done
        fi
    done

    if [[ -n $awaited ]]; then
        __audiocli_values "$awaited"
    elif [[ $current =~ $redirected ]]; then
        __audiocli_values files
    elif [[ -z $options_ended && $current == --*=* ]]; then
        flag=${current%%=*}
        __audiocli_at
        option_prefix=$flag= current=${current#*=}
        __audiocli_values "$takes"
    elif [[ -z $options_ended && $current == -* ]]; then
        __audiocli_offer "${flags// /$'\n'}"
    elif [[ $position == 0 && -n $commands ]]; then
        __audiocli_offer "${commands// /$'\n'}"
    elif ((position < ${#arguments[@]})); then
        __audiocli_values "${arguments[position]}"
    elif [[ -n $is_repeatable ]]; then
        __audiocli_values "${arguments[${#arguments[@]} - 1]}"
    fi
}

complete -o default -F _audiocli audiocli
"""


def render(program: Command) -> str:
    """Render the script."""
    return (
        HEADER
        + "\n"
        + TREE_TEMPLATE.format(
            cases="".join(_render_case(command) for command in program.walk() if command.takes_words)
        )
        + READER_SCRIPT
    )


TREE_TEMPLATE = """\
# Set `commands`, `flags` and `arguments` of the command at `path`, and `takes` to the values of its option `flag`.
__audiocli_at() {{
    commands='' flags='' takes='' arguments=() is_repeatable=''
    case $path in
{cases}    esac
}}
"""


def _render_case(command: Command) -> str:
    names = [name for flag in command.flags for name in flag.names]
    lines = [f"        {quote(' '.join(command.path))})"]
    if command.commands:
        lines.append(f"            commands={quote(' '.join(child.path[-1] for child in command.commands))}")
    lines.append(f"            flags={quote(' '.join(names))}")
    if command.arguments:
        arguments = " ".join(quote(_encode_values(argument.values)) for argument in command.arguments)
        lines.append(f"            arguments=({arguments})")
        if command.arguments[-1].repeatable:
            lines.append("            is_repeatable=1")
    by_values: dict[str, list[Flag]] = {}
    for flag in command.flags:
        if flag.values is not None:
            by_values.setdefault(_encode_values(flag.values), []).append(flag)
    if by_values:
        lines.append("            case $flag in")
        for spec, flags in by_values.items():
            pattern = " | ".join(name for flag in flags for name in flag.names)
            lines.append(f"                {pattern}) takes={quote(spec)} ;;")
        lines.append("            esac")
    return "\n".join([*lines, "            ;;\n"])


def _encode_values(values: Values) -> str:
    """Encode values for `__audiocli_values`: `files`, `one a b c`, `dynamic voices`."""
    return " ".join((values.source.value, *values.names))
