# Completion of audiocli. Made by `audiocli completion`; do not edit, but run: python -m audiocli.completion

# What may stand where: `commands`, `flags` and `arguments` at `path`, and what `flag` takes there.
__audiocli_at() {
    commands='' flags='' takes='' arguments=() endless=''
    case $path in
        '')
            commands='speak transcribe chat models voices completion jobs usage budget config keys'
            flags='--version -V --help -h'
            ;;
        'speak')
            flags='--input-file -F --output -o --format -f --model -m --voice -v --speed -x --instructions -i --option --markdown --captions --max-chars --pause --jobs -j --resume --no-resume --play --no-play --player --background --wait --gateway -g --base-url --timeout --retry-unknown --dry-run -n --max-cost --allow-unpriced --yes -y --tag --json --quiet -q --debug --help -h'
            arguments=('free')
            endless=1
            case $flag in
                --input-file | -F | --output | -o | --captions) takes='files' ;;
                --format | -f) takes='one mp3 wav flac opus ogg aac m4a pcm' ;;
                --model | -m) takes='asked models:speech' ;;
                --voice | -v) takes='asked voices' ;;
                --speed | -x | --instructions | -i | --option | --max-chars | --pause | --jobs | -j | --base-url | --timeout | --max-cost | --tag) takes='free' ;;
                --player) takes='programs' ;;
                --gateway | -g) takes='one openrouter openai therouter arouter groq local' ;;
            esac
            ;;
        'transcribe')
            flags='--output -o --output-dir -O --format -f --model -m --language -l --prompt -p --temperature --option --translate --diarize --speaker --stream --max-piece --no-split --context --strict-timestamps --jobs -j --recursive -R --include --exclude --files-from --force --retry-failed --verify-only --fail-fast --resume --no-resume --timestamps --stdin-format --max-line-width --max-lines --max-cue --cps --background --wait --gateway -g --base-url --timeout --retry-unknown --dry-run -n --max-cost --allow-unpriced --yes -y --tag --json --quiet -q --debug --help -h'
            arguments=('files')
            endless=1
            case $flag in
                --output | -o | --files-from) takes='files' ;;
                --output-dir | -O) takes='folders' ;;
                --format | -f) takes='list txt srt vtt json tsv verbose_json' ;;
                --model | -m) takes='asked models:transcription' ;;
                --language | -l | --prompt | -p | --temperature | --option | --speaker | --max-piece | --jobs | -j | --include | --exclude | --max-line-width | --max-lines | --max-cue | --cps | --base-url | --timeout | --max-cost | --tag) takes='free' ;;
                --timestamps) takes='one none segment word' ;;
                --stdin-format) takes='one mp3 wav flac opus ogg aac m4a pcm webm mp4 mov mkv avi amr aiff caf wma mp2 mpeg ts au' ;;
                --gateway | -g) takes='one openrouter openai therouter arouter groq local' ;;
            esac
            ;;
        'chat')
            flags='--audio -a --system --output -o --format -f --model -m --voice -v --option --max-tokens --stream --no-stream --stdin-format --play --no-play --player --gateway -g --base-url --timeout --retry-unknown --dry-run -n --max-cost --allow-unpriced --yes -y --tag --json --quiet -q --debug --help -h'
            arguments=('free')
            endless=1
            case $flag in
                --audio | -a | --output | -o) takes='files' ;;
                --system | --option | --max-tokens | --base-url | --timeout | --max-cost | --tag) takes='free' ;;
                --format | -f) takes='one mp3 wav flac opus ogg aac m4a pcm' ;;
                --model | -m) takes='asked models:chat' ;;
                --voice | -v) takes='asked voices' ;;
                --stdin-format) takes='one mp3 wav flac opus ogg aac m4a pcm webm mp4 mov mkv avi amr aiff caf wma mp2 mpeg ts au' ;;
                --player) takes='programs' ;;
                --gateway | -g) takes='one openrouter openai therouter arouter groq local' ;;
            esac
            ;;
        'models')
            flags='--kind --gateway -g --base-url --refresh --timeout --json --quiet -q --debug --help -h'
            arguments=('free')
            case $flag in
                --kind) takes='one speech transcription chat' ;;
                --gateway | -g) takes='one openrouter openai therouter arouter groq local' ;;
                --base-url | --timeout) takes='free' ;;
            esac
            ;;
        'voices')
            flags='--model -m --gateway -g --base-url --refresh --timeout --json --quiet -q --debug --help -h'
            arguments=('free')
            case $flag in
                --model | -m) takes='asked models:speech' ;;
                --gateway | -g) takes='one openrouter openai therouter arouter groq local' ;;
                --base-url | --timeout) takes='free' ;;
            esac
            ;;
        'completion')
            flags='--json --help -h'
            arguments=('one bash zsh fish')
            ;;
        'jobs')
            commands='show wait fetch forget'
            flags='--json --quiet -q --debug --help -h'
            ;;
        'jobs show')
            flags='--gateway -g --base-url --timeout --json --quiet -q --debug --help -h'
            arguments=('free')
            case $flag in
                --gateway | -g) takes='one openrouter openai therouter arouter groq local' ;;
                --base-url | --timeout) takes='free' ;;
            esac
            ;;
        'jobs wait')
            flags='--output -o --deadline --gateway -g --base-url --timeout --json --quiet -q --debug --help -h'
            arguments=('free')
            endless=1
            case $flag in
                --output | -o) takes='files' ;;
                --deadline | --base-url | --timeout) takes='free' ;;
                --gateway | -g) takes='one openrouter openai therouter arouter groq local' ;;
            esac
            ;;
        'jobs fetch')
            flags='--output -o --gateway -g --base-url --timeout --json --quiet -q --debug --help -h'
            arguments=('free')
            case $flag in
                --output | -o) takes='files' ;;
                --gateway | -g) takes='one openrouter openai therouter arouter groq local' ;;
                --base-url | --timeout) takes='free' ;;
            esac
            ;;
        'jobs forget')
            flags='--gateway -g --json --quiet -q --debug --help -h'
            arguments=('free')
            endless=1
            case $flag in
                --gateway | -g) takes='one openrouter openai therouter arouter groq local' ;;
            esac
            ;;
        'usage')
            commands='list export reconcile verify path'
            flags='--since --until --by --utc --json --csv --quiet -q --debug --help -h'
            case $flag in
                --since | --until) takes='one today yesterday 7d 4w month all' ;;
                --by) takes='list day week month gateway model command outcome tag' ;;
            esac
            ;;
        'usage list')
            flags='--since --until --gateway -g --model -m --command --outcome --tag --limit --utc --json --csv --quiet -q --debug --help -h'
            case $flag in
                --since | --until) takes='one today yesterday 7d 4w month all' ;;
                --gateway | -g) takes='one openrouter openai therouter arouter groq local' ;;
                --model | -m) takes='asked models' ;;
                --command | --outcome | --tag | --limit) takes='free' ;;
            esac
            ;;
        'usage export')
            flags='--since --until --gateway -g --model -m --command --outcome --tag --utc --json --quiet -q --debug --help -h'
            case $flag in
                --since | --until) takes='one today yesterday 7d 4w month all' ;;
                --gateway | -g) takes='one openrouter openai therouter arouter groq local' ;;
                --model | -m) takes='asked models' ;;
                --command | --outcome | --tag) takes='free' ;;
            esac
            ;;
        'usage reconcile')
            flags='--since --until --limit --timeout --json --quiet -q --debug --help -h'
            case $flag in
                --since | --until) takes='one today yesterday 7d 4w month all' ;;
                --limit | --timeout) takes='free' ;;
            esac
            ;;
        'usage verify')
            flags='--json --quiet -q --debug --help -h'
            ;;
        'usage path')
            flags='--json --quiet -q --debug --help -h'
            ;;
        'budget')
            commands='set clear'
            flags='--json --quiet -q --debug --help -h'
            ;;
        'budget set')
            flags='--run --day --week --month --confirm --json --quiet -q --debug --help -h'
            case $flag in
                --run | --day | --week | --month | --confirm) takes='free' ;;
            esac
            ;;
        'budget clear')
            flags='--json --quiet -q --debug --help -h'
            ;;
        'config')
            commands='path check'
            flags='--json --quiet -q --debug --help -h'
            ;;
        'config path')
            flags='--json --quiet -q --debug --help -h'
            ;;
        'config check')
            flags='--json --quiet -q --debug --help -h'
            ;;
        'keys')
            commands='set list remove'
            flags='--help -h'
            ;;
        'keys set')
            flags='--json --quiet -q --debug --help -h'
            arguments=('one openrouter openai therouter arouter groq local')
            ;;
        'keys list')
            flags='--json --quiet -q --debug --help -h'
            ;;
        'keys remove')
            flags='--json --quiet -q --debug --help -h'
            arguments=('one openrouter openai therouter arouter groq local')
            ;;
    esac
}

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
