"""The file for bash: one function that knows the tree, and one that reads the line. Works from bash 3.2 on, alone."""

from __future__ import annotations

from .command_tree import HEADER, Command, Flag, Values, quoted

# `bash-completion` is not needed: the line is read here. Words are split at blanks only, whatever COMP_WORDBREAKS
# says, so that `openrouter:openai/x` and `--format=mp3` are one word; bash replaces only what follows its last break
# (its second argument), so what lies before that is taken off the answers again.
READER = r"""
# Split a piece of a command line at blanks, as the shell would: finished words to `split`, the last one to `last`.
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

# Offer those of the lines in $1 that begin like the word `ahead``current`, each with $2 before it.
__audiocli_offer() {
    local name
    while IFS= read -r name; do
        if [[ -n $name && ${2-}$name == "$current"* ]]; then
            name=$ahead${2-}$name
            COMPREPLY+=("${name#"$kept"}")
        fi
    done <<<"$1"
}

__audiocli_values() {
    local names=${1#* }
    case $1 in
        files) compopt -o default 2>/dev/null ;;
        folders) compopt -o dirnames 2>/dev/null ;;
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
        asked\ *)
            __audiocli_offer "$("$program" --complete "$names" "$current" "${split[@]}" "${behind[@]}" 2>/dev/null)"
            ;;
    esac
}

_audiocli() {
    local program=audiocli current ahead='' kept='' split last behind word index redirected='^[0-9&]*[<>]+'
    local path='' flag='' commands flags takes arguments endless awaited='' place=0 ended=''
    COMPREPLY=()
    compopt +o default 2>/dev/null
    if [[ $1 == */* ]]; then program=${1/#\~\//$HOME/}; fi
    __audiocli_split "${COMP_LINE:COMP_POINT} "
    behind=("${split[@]}")
    __audiocli_split "${COMP_LINE:0:COMP_POINT}"
    split=("${split[@]:1}") current=$last
    if [[ $current == *"$2" ]]; then kept=${current%"$2"}; fi

    __audiocli_at
    for word in "${split[@]}"; do
        if [[ -n $awaited ]]; then
            awaited=''
        elif [[ $word =~ $redirected$ ]]; then
            awaited=files
        elif [[ -n $ended || $word != -?* ]]; then
            if [[ $place == 0 && " $commands " == *" $word "* ]]; then
                path+=${path:+ }$word
                __audiocli_at
            else
                place=$((place + 1))
            fi
        elif [[ $word == -- ]]; then
            ended=1
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
    elif [[ -z $ended && $current == --*=* ]]; then
        flag=${current%%=*}
        __audiocli_at
        ahead=$flag= current=${current#*=}
        __audiocli_values "$takes"
    elif [[ -z $ended && $current == -* ]]; then
        __audiocli_offer "${flags// /$'\n'}"
    elif [[ $place == 0 && -n $commands ]]; then
        __audiocli_offer "${commands// /$'\n'}"
    elif ((place < ${#arguments[@]})); then
        __audiocli_values "${arguments[place]}"
    elif [[ -n $endless ]]; then
        __audiocli_values "${arguments[${#arguments[@]} - 1]}"
    fi
}

complete -o default -F _audiocli audiocli
"""


def render(program: Command) -> str:
    return HEADER + "\n" + TREE.format(cases="".join(_case(command) for command in program.walk())) + READER


TREE = """\
# What may stand where: `commands`, `flags` and `arguments` at `path`, and what `flag` takes there.
__audiocli_at() {{
    commands='' flags='' takes='' arguments=() endless=''
    case $path in
{cases}    esac
}}
"""


def _case(command: Command) -> str:
    names = [name for flag in command.flags for name in flag.names]
    lines = [f"        {quoted(' '.join(command.path))})"]
    if command.commands:
        lines.append(f"            commands={quoted(' '.join(one.path[-1] for one in command.commands))}")
    lines.append(f"            flags={quoted(' '.join(names))}")
    if command.arguments:
        lines.append(f"            arguments=({' '.join(quoted(_spec(one.values)) for one in command.arguments)})")
        if command.arguments[-1].repeatable:
            lines.append("            endless=1")
    by_values: dict[str, list[Flag]] = {}
    for flag in command.flags:
        if flag.values is not None:
            by_values.setdefault(_spec(flag.values), []).append(flag)
    if by_values:
        lines.append("            case $flag in")
        for spec, flags in by_values.items():
            lines.append(f"                {' | '.join(n for f in flags for n in f.names)}) takes={quoted(spec)} ;;")
        lines.append("            esac")
    return "\n".join([*lines, "            ;;\n"])


def _spec(values: Values) -> str:
    """Write values as the reader above takes them: `files`, `one a b c`, `asked voices`."""
    return " ".join((values.source.value, *values.names))
