# Completion of audiocli. Made by `audiocli completion`; do not edit, but run: python -m audiocli.completion

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
            case 'usage --since' 'usage --until' 'usage --by'
                set skipped 1
            case ' speak' ' transcribe' ' models' ' voices' ' completion' ' usage' ' config' ' keys' 'usage list' 'usage reconcile' 'usage path' 'config path' 'config check' 'keys set' 'keys list' 'keys remove'
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
complete -c audiocli -n '__audiocli_at \'\'' -a 'speak' -d 'Turn text into audio: to a file, a pipe or the loudspeaker'
complete -c audiocli -n '__audiocli_at \'\'' -a 'transcribe' -d 'Turn a recording into text or captions'
complete -c audiocli -n '__audiocli_at \'\'' -a 'models' -d 'List the models that speak, transcribe and talk, with their prices'
complete -c audiocli -n '__audiocli_at \'\'' -a 'voices' -d 'List the voices of the models that speak'
complete -c audiocli -n '__audiocli_at \'\'' -a 'completion' -d 'Print the file from which bash, zsh or fish completes'
complete -c audiocli -n '__audiocli_at \'\'' -a 'usage' -d 'What was spent, from the ledger'
complete -c audiocli -n '__audiocli_at \'\'' -a 'config' -d 'What holds, where it comes from, and what is wrong'
complete -c audiocli -n '__audiocli_at \'\'' -a 'keys' -d 'Keep keys in a file that only you can read'
complete -c audiocli -n '__audiocli_at \'\'' -s V -l version -d 'Print the version and leave'
complete -c audiocli -n '__audiocli_at \'\'' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at speak' -s F -l input-file -r -F -d 'Read the text from a file; - is stdin'
complete -c audiocli -n '__audiocli_at speak' -s o -l output -r -F -d 'Write the audio here; - is stdout'
complete -c audiocli -n '__audiocli_at speak' -s f -l format -r -f -a 'mp3\t wav\t flac\t opus\t ogg\t aac\t m4a\t pcm\t' -d 'mp3 wav flac opus ogg aac m4a pcm'
complete -c audiocli -n '__audiocli_at speak' -s m -l model -r -f -a '(__audiocli_asked models:speech)' -d '[GATEWAY:]MODEL; repeat for models in order of preference'
complete -c audiocli -n '__audiocli_at speak' -s v -l voice -r -f -a '(__audiocli_asked voices)' -d 'The voice; \'?\' lists those of the model'
complete -c audiocli -n '__audiocli_at speak' -s x -l speed -r -f -d '0.25 to 4'
complete -c audiocli -n '__audiocli_at speak' -s i -l instructions -r -f -d 'How to speak it'
complete -c audiocli -n '__audiocli_at speak' -l option -r -f -d 'Passed on as it is; PROVIDER.KEY=VALUE at OpenRouter'
complete -c audiocli -n '__audiocli_at speak' -l markdown -d 'The text is Markdown'
complete -c audiocli -n '__audiocli_at speak' -l captions -r -F -d 'Captions of what is said: .srt or .vtt'
complete -c audiocli -n '__audiocli_at speak' -l max-chars -r -f -d 'Longest piece of a long text'
complete -c audiocli -n '__audiocli_at speak' -l pause -r -f -d 'Silence between paragraphs'
complete -c audiocli -n '__audiocli_at speak' -s j -l jobs -r -f -d 'Pieces in flight'
complete -c audiocli -n '__audiocli_at speak' -l resume -d 'Go on where an earlier run stopped, or start over'
complete -c audiocli -n '__audiocli_at speak' -l no-resume -d 'Go on where an earlier run stopped, or start over'
complete -c audiocli -n '__audiocli_at speak' -l play -d 'Play it, or never do'
complete -c audiocli -n '__audiocli_at speak' -l no-play -d 'Play it, or never do'
complete -c audiocli -n '__audiocli_at speak' -l player -r -f -a '(__fish_complete_command)' -d 'The player to use'
complete -c audiocli -n '__audiocli_at speak' -s g -l gateway -r -f -a 'openrouter\t openai\t therouter\t arouter\t groq\t local\t' -d 'The gateway to call'
complete -c audiocli -n '__audiocli_at speak' -l base-url -r -f -d 'Call this URL instead of the gateway\'s'
complete -c audiocli -n '__audiocli_at speak' -l timeout -r -f -d 'Seconds of silence before giving up (connecting has 5)'
complete -c audiocli -n '__audiocli_at speak' -l retry-unknown -d 'Send again after a cut or silence, though it may be billed twice'
complete -c audiocli -n '__audiocli_at speak' -s n -l dry-run -d 'Print the plan and spend nothing'
complete -c audiocli -n '__audiocli_at speak' -l max-cost -r -f -d 'Refuse what may cost more'
complete -c audiocli -n '__audiocli_at speak' -l tag -r -f -d 'Mark the entries in the ledger (AUDIOCLI_TAG)'
complete -c audiocli -n '__audiocli_at speak' -l json -d 'One JSON object in place of the text'
complete -c audiocli -n '__audiocli_at speak' -s q -l quiet -d 'Errors only'
complete -c audiocli -n '__audiocli_at speak' -l debug -d 'Requests, waits, decisions and tracebacks'
complete -c audiocli -n '__audiocli_at speak' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at transcribe' -s o -l output -r -F -d 'Write the transcript here; - is stdout'
complete -c audiocli -n '__audiocli_at transcribe' -s O -l output-dir -r -f -a '(__fish_complete_directories)' -d 'Write the transcripts into this folder'
complete -c audiocli -n '__audiocli_at transcribe' -s f -l format -r -f -a '(__audiocli_list txt srt vtt json tsv verbose_json)' -d 'Comma list of txt srt vtt json tsv verbose_json'
complete -c audiocli -n '__audiocli_at transcribe' -s m -l model -r -f -a '(__audiocli_asked models:transcription)' -d '[GATEWAY:]MODEL; repeat for models in order of preference'
complete -c audiocli -n '__audiocli_at transcribe' -s l -l language -r -f -d 'pt, pt-BR or Portuguese'
complete -c audiocli -n '__audiocli_at transcribe' -s p -l prompt -r -f -d 'Names and words to expect'
complete -c audiocli -n '__audiocli_at transcribe' -l temperature -r -f -d '0 to 1'
complete -c audiocli -n '__audiocli_at transcribe' -l option -r -f -d 'Passed on as it is; PROVIDER.KEY=VALUE at OpenRouter'
complete -c audiocli -n '__audiocli_at transcribe' -l translate -d 'Into English'
complete -c audiocli -n '__audiocli_at transcribe' -l diarize -d 'Tell the speakers apart'
complete -c audiocli -n '__audiocli_at transcribe' -l speaker -r -f -d 'Who may speak; CLIP is 2 to 10 s of the voice'
complete -c audiocli -n '__audiocli_at transcribe' -l stream -d 'Text as it comes, where the gateway streams'
complete -c audiocli -n '__audiocli_at transcribe' -l max-piece -r -f -d 'Longest piece of a long recording'
complete -c audiocli -n '__audiocli_at transcribe' -l no-split -d 'Send it whole, or not at all'
complete -c audiocli -n '__audiocli_at transcribe' -l context -d 'Tell each piece how the one before it ended; one at a time'
complete -c audiocli -n '__audiocli_at transcribe' -l strict-timestamps -d 'No captions from models that give no times'
complete -c audiocli -n '__audiocli_at transcribe' -s j -l jobs -r -f -d 'Pieces in flight'
complete -c audiocli -n '__audiocli_at transcribe' -l resume -d 'Go on where an earlier run stopped, or start over'
complete -c audiocli -n '__audiocli_at transcribe' -l no-resume -d 'Go on where an earlier run stopped, or start over'
complete -c audiocli -n '__audiocli_at transcribe' -l timestamps -r -f -a 'none\t segment\t word\t' -d 'Default: what the formats need'
complete -c audiocli -n '__audiocli_at transcribe' -l stdin-format -r -f -a 'mp3\t wav\t flac\t opus\t ogg\t aac\t m4a\t pcm\t webm\t mp4\t mov\t mkv\t avi\t amr\t aiff\t caf\t wma\t mp2\t mpeg\t ts\t au\t' -d 'What - is, if its bytes do not tell'
complete -c audiocli -n '__audiocli_at transcribe' -l max-line-width -r -f -d 'Columns of a caption line'
complete -c audiocli -n '__audiocli_at transcribe' -l max-lines -r -f -d 'Lines of a caption'
complete -c audiocli -n '__audiocli_at transcribe' -l max-cue -r -f -d 'Longest caption in seconds'
complete -c audiocli -n '__audiocli_at transcribe' -l cps -r -f -d 'Reading speed to aim at, characters a second'
complete -c audiocli -n '__audiocli_at transcribe' -s g -l gateway -r -f -a 'openrouter\t openai\t therouter\t arouter\t groq\t local\t' -d 'The gateway to call'
complete -c audiocli -n '__audiocli_at transcribe' -l base-url -r -f -d 'Call this URL instead of the gateway\'s'
complete -c audiocli -n '__audiocli_at transcribe' -l timeout -r -f -d 'Seconds of silence before giving up (connecting has 5)'
complete -c audiocli -n '__audiocli_at transcribe' -l retry-unknown -d 'Send again after a cut or silence, though it may be billed twice'
complete -c audiocli -n '__audiocli_at transcribe' -s n -l dry-run -d 'Print the plan and spend nothing'
complete -c audiocli -n '__audiocli_at transcribe' -l max-cost -r -f -d 'Refuse what may cost more'
complete -c audiocli -n '__audiocli_at transcribe' -l tag -r -f -d 'Mark the entries in the ledger (AUDIOCLI_TAG)'
complete -c audiocli -n '__audiocli_at transcribe' -l json -d 'One JSON object in place of the text'
complete -c audiocli -n '__audiocli_at transcribe' -s q -l quiet -d 'Errors only'
complete -c audiocli -n '__audiocli_at transcribe' -l debug -d 'Requests, waits, decisions and tracebacks'
complete -c audiocli -n '__audiocli_at transcribe' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at transcribe' -F
complete -c audiocli -n '__audiocli_at models' -l kind -r -f -a 'speech\t transcription\t chat\t' -d 'speech, transcription or chat'
complete -c audiocli -n '__audiocli_at models' -s g -l gateway -r -f -a 'openrouter\t openai\t therouter\t arouter\t groq\t local\t' -d 'The gateway to call'
complete -c audiocli -n '__audiocli_at models' -l base-url -r -f -d 'Call this URL instead of the gateway\'s'
complete -c audiocli -n '__audiocli_at models' -l refresh -d 'Ask the gateways now, though the lists of today are kept'
complete -c audiocli -n '__audiocli_at models' -l timeout -r -f -d 'Seconds of silence before giving up (connecting has 5)'
complete -c audiocli -n '__audiocli_at models' -l json -d 'One JSON object in place of the text'
complete -c audiocli -n '__audiocli_at models' -s q -l quiet -d 'Errors only'
complete -c audiocli -n '__audiocli_at models' -l debug -d 'Requests, waits, decisions and tracebacks'
complete -c audiocli -n '__audiocli_at models' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at voices' -s m -l model -r -f -a '(__audiocli_asked models:speech)' -d 'The voices of this model'
complete -c audiocli -n '__audiocli_at voices' -s g -l gateway -r -f -a 'openrouter\t openai\t therouter\t arouter\t groq\t local\t' -d 'The gateway to call'
complete -c audiocli -n '__audiocli_at voices' -l base-url -r -f -d 'Call this URL instead of the gateway\'s'
complete -c audiocli -n '__audiocli_at voices' -l refresh -d 'Ask the gateways now, though the lists of today are kept'
complete -c audiocli -n '__audiocli_at voices' -l timeout -r -f -d 'Seconds of silence before giving up (connecting has 5)'
complete -c audiocli -n '__audiocli_at voices' -l json -d 'One JSON object in place of the text'
complete -c audiocli -n '__audiocli_at voices' -s q -l quiet -d 'Errors only'
complete -c audiocli -n '__audiocli_at voices' -l debug -d 'Requests, waits, decisions and tracebacks'
complete -c audiocli -n '__audiocli_at voices' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at completion' -l json -d 'One JSON object in place of the text'
complete -c audiocli -n '__audiocli_at completion' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at completion' -f -a 'bash\t zsh\t fish\t'
complete -c audiocli -n '__audiocli_at usage' -a 'list' -d 'Every entry, oldest first; JSON lines with --json'
complete -c audiocli -n '__audiocli_at usage' -a 'reconcile' -d 'Ask the gateways for the true cost of what is estimated or unknown'
complete -c audiocli -n '__audiocli_at usage' -a 'path' -d 'Where the ledger is'
complete -c audiocli -n '__audiocli_at usage' -l since -r -f -a 'today\t yesterday\t 7d\t 4w\t month\t all\t' -d 'A date, or today, yesterday, 7d, 4w, month, all. Default: 30d'
complete -c audiocli -n '__audiocli_at usage' -l until -r -f -a 'today\t yesterday\t 7d\t 4w\t month\t all\t' -d 'The last day to count. Default: now'
complete -c audiocli -n '__audiocli_at usage' -l by -r -f -a '(__audiocli_list day week month gateway model command outcome tag)' -d 'day week month gateway model command outcome tag; repeatable'
complete -c audiocli -n '__audiocli_at usage' -l json -d 'One JSON object in place of the text'
complete -c audiocli -n '__audiocli_at usage' -l csv -d 'Comma-separated values'
complete -c audiocli -n '__audiocli_at usage' -s q -l quiet -d 'Errors only'
complete -c audiocli -n '__audiocli_at usage' -l debug -d 'Requests, waits, decisions and tracebacks'
complete -c audiocli -n '__audiocli_at usage' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at \'usage list\'' -l since -r -f -a 'today\t yesterday\t 7d\t 4w\t month\t all\t' -d 'A date, or today, yesterday, 7d, 4w, month, all. Default: 30d'
complete -c audiocli -n '__audiocli_at \'usage list\'' -l until -r -f -a 'today\t yesterday\t 7d\t 4w\t month\t all\t' -d 'The last day to count. Default: now'
complete -c audiocli -n '__audiocli_at \'usage list\'' -l json -d 'One JSON object in place of the text'
complete -c audiocli -n '__audiocli_at \'usage list\'' -l csv -d 'Comma-separated values'
complete -c audiocli -n '__audiocli_at \'usage list\'' -s q -l quiet -d 'Errors only'
complete -c audiocli -n '__audiocli_at \'usage list\'' -l debug -d 'Requests, waits, decisions and tracebacks'
complete -c audiocli -n '__audiocli_at \'usage list\'' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at \'usage reconcile\'' -l since -r -f -a 'today\t yesterday\t 7d\t 4w\t month\t all\t' -d 'A date, or today, yesterday, 7d, 4w, month, all. Default: 30d'
complete -c audiocli -n '__audiocli_at \'usage reconcile\'' -l until -r -f -a 'today\t yesterday\t 7d\t 4w\t month\t all\t' -d 'The last day to count. Default: now'
complete -c audiocli -n '__audiocli_at \'usage reconcile\'' -l timeout -r -f -d 'Seconds of silence before giving up (connecting has 5)'
complete -c audiocli -n '__audiocli_at \'usage reconcile\'' -l json -d 'One JSON object in place of the text'
complete -c audiocli -n '__audiocli_at \'usage reconcile\'' -s q -l quiet -d 'Errors only'
complete -c audiocli -n '__audiocli_at \'usage reconcile\'' -l debug -d 'Requests, waits, decisions and tracebacks'
complete -c audiocli -n '__audiocli_at \'usage reconcile\'' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at \'usage path\'' -l json -d 'One JSON object in place of the text'
complete -c audiocli -n '__audiocli_at \'usage path\'' -s q -l quiet -d 'Errors only'
complete -c audiocli -n '__audiocli_at \'usage path\'' -l debug -d 'Requests, waits, decisions and tracebacks'
complete -c audiocli -n '__audiocli_at \'usage path\'' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at config' -a 'path' -d 'Where the configuration file is, or would be'
complete -c audiocli -n '__audiocli_at config' -a 'check' -d 'Check keys, gateways, players, folders, the ledger and the local engines; exit 3 if something is wrong'
complete -c audiocli -n '__audiocli_at config' -l json -d 'One JSON object in place of the text'
complete -c audiocli -n '__audiocli_at config' -s q -l quiet -d 'Errors only'
complete -c audiocli -n '__audiocli_at config' -l debug -d 'Requests, waits, decisions and tracebacks'
complete -c audiocli -n '__audiocli_at config' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at \'config path\'' -l json -d 'One JSON object in place of the text'
complete -c audiocli -n '__audiocli_at \'config path\'' -s q -l quiet -d 'Errors only'
complete -c audiocli -n '__audiocli_at \'config path\'' -l debug -d 'Requests, waits, decisions and tracebacks'
complete -c audiocli -n '__audiocli_at \'config path\'' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at \'config check\'' -l json -d 'One JSON object in place of the text'
complete -c audiocli -n '__audiocli_at \'config check\'' -s q -l quiet -d 'Errors only'
complete -c audiocli -n '__audiocli_at \'config check\'' -l debug -d 'Requests, waits, decisions and tracebacks'
complete -c audiocli -n '__audiocli_at \'config check\'' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at keys' -a 'set' -d 'Keep a key, asked for without showing it, or read from stdin'
complete -c audiocli -n '__audiocli_at keys' -a 'list' -d 'Say where the key of each gateway comes from; never the key'
complete -c audiocli -n '__audiocli_at keys' -a 'remove' -d 'Forget a key that was kept'
complete -c audiocli -n '__audiocli_at keys' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at \'keys set\'' -l json -d 'One JSON object in place of the text'
complete -c audiocli -n '__audiocli_at \'keys set\'' -s q -l quiet -d 'Errors only'
complete -c audiocli -n '__audiocli_at \'keys set\'' -l debug -d 'Requests, waits, decisions and tracebacks'
complete -c audiocli -n '__audiocli_at \'keys set\'' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at \'keys set\'' -f -a 'openrouter\t openai\t therouter\t arouter\t groq\t local\t'
complete -c audiocli -n '__audiocli_at \'keys list\'' -l json -d 'One JSON object in place of the text'
complete -c audiocli -n '__audiocli_at \'keys list\'' -s q -l quiet -d 'Errors only'
complete -c audiocli -n '__audiocli_at \'keys list\'' -l debug -d 'Requests, waits, decisions and tracebacks'
complete -c audiocli -n '__audiocli_at \'keys list\'' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at \'keys remove\'' -l json -d 'One JSON object in place of the text'
complete -c audiocli -n '__audiocli_at \'keys remove\'' -s q -l quiet -d 'Errors only'
complete -c audiocli -n '__audiocli_at \'keys remove\'' -l debug -d 'Requests, waits, decisions and tracebacks'
complete -c audiocli -n '__audiocli_at \'keys remove\'' -s h -l help -d 'Show this message and exit'
complete -c audiocli -n '__audiocli_at \'keys remove\'' -f -a 'openrouter\t openai\t therouter\t arouter\t groq\t local\t'
