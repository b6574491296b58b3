"""The text of help pages and man pages that is not in the commands: descriptions, examples, exit codes and panels.

`audiocli COMMAND --help` and the man pages show it. Example lines have at most `MAX_EXAMPLE_WIDTH` characters.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_EXAMPLE_WIDTH = 76

# The meaning of each exit code, on help pages (short) and in `audiocli help exit-codes` (complete).
EXIT_CODES: dict[int, tuple[str, str]] = {
    0: ("done", "done; also if the reader of the output closed the pipe"),
    1: ("a bug in audiocli", "a bug in audiocli; run it again with --debug and report the traceback"),
    2: (
        "invalid options or input",
        "invalid or contradictory options, no text, a missing input file, an unknown model, voice or gateway, a "
        "request that is not in the recording of --replay, or audio that would go to a terminal",
    ),
    3: (
        "partly done, or a check found a problem",
        "partly done, or a check found a problem: some inputs failed, a recording is truncated, a transcript is "
        "partial, speech failed --verify, or config check, usage verify or captions check found something",
    ),
    4: ("no key, a refused key, or a missing engine", "no API key, a refused key, or an engine that is not installed"),
    5: ("a spending limit, no credit, or the ledger", "a spending limit, no credit, or a ledger that cannot be used"),
    6: ("the gateway failed", "the gateway refused the request or failed, and no other model or gateway is left"),
    7: ("a network failure", "the gateway cannot be reached, timed out, or the connection was cut"),
    8: (
        "an unusable recording or document",
        "a recording that cannot be decoded or has no audio, or a document that is damaged or exceeds the limits",
    ),
    9: (
        "an unusable response",
        "an unusable response: empty, truncated, not audio or not a transcript; or a local engine that crashed",
    ),
    10: (
        "output could not be written or played",
        "the output could not be written or played; what was paid for is saved, and the message gives its path",
    ),
    130: ("interrupted", "interrupted by Ctrl-C, SIGTERM or SIGHUP"),
}

_EVERY_COMMAND = (0, 2, 10)
_WITH_MONEY_AND_FILES = (0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 130)
_WITH_KEYS = (0, 2, 4, 10)
_WITH_KEY_CHECK = (0, 2, 4, 10, 130)
_WITH_LISTS = (0, 2, 4, 6, 7, 9, 10, 130)
_WITH_JOBS = (0, 2, 4, 5, 6, 7, 9, 10, 130)
_WITH_LEDGER = (0, 2, 5, 10)


class HelpPage(NamedTuple):
    """What a help page adds to the options of a command. `exit_codes` are the ones that the command can return."""

    description: str
    examples: tuple[str, ...]
    exit_codes: tuple[int, ...]


# By the words of the command after `audiocli`.
PAGES: dict[str, HelpPage] = {
    "": HelpPage(
        "Without an API key, the local engines are used. Options such as --json, -q and -g may also stand before the "
        "command.",
        (
            "audiocli speak 'The build is green.' -o green.mp3",
            "audiocli transcribe talk.mp4 -f srt,txt",
            "audiocli keys set openrouter",
            "audiocli help recipes",
        ),
        tuple(EXIT_CODES),
    ),
    "speak": HelpPage(
        "The text comes from the arguments, from -F, or from stdin. The audio goes to -o, to stdout if that is a pipe "
        "or a file, else to a player. A long text is split, and its chunks are joined.",
        (
            "audiocli speak 'Hello, world' -o hello.mp3 -v leo",
            "git log -1 --format=%B | audiocli speak --play",
            "audiocli speak -F book.epub -o book.m4b --max-cost 2",
            "audiocli speak -F phrases.csv -O phrases -f mp3",
            "audiocli speak -F chapter.txt -o chapter.m4a --verify",
        ),
        _WITH_MONEY_AND_FILES,
    ),
    "transcribe": HelpPage(
        "One recording in one format goes to stdout; several formats go next to the recording, or into -O. Recordings "
        "whose transcripts are up to date are not sent again.",
        (
            "audiocli transcribe talk.mp4 -f srt,txt",
            "audiocli transcribe meeting.wav -l de -o meeting.txt",
            "audiocli transcribe lectures -R -O texts --max-cost 5",
            "ffmpeg -i in.mkv -f wav - | audiocli transcribe -",
            "audiocli transcribe interview.mp3 --diarize -f html,vtt",
        ),
        _WITH_MONEY_AND_FILES,
    ),
    "captions": HelpPage(
        "Formats: srt, vtt, ass (also ssa), ttml, sub (MicroDVD) and lrc. Nothing is sent. The text of every cue "
        "is preserved. Styles that a format does not have are dropped, with a note.",
        (
            "audiocli captions check talk.srt",
            "audiocli captions convert talk.srt -o talk.ass",
            "audiocli captions shift talk.srt +1.5 -o shifted.srt",
            "audiocli captions split talk.srt --every 10m -O parts",
        ),
        (0, 2, 3, 8, 10),
    ),
    "captions check": HelpPage(
        "Checks: encoding, header, time, text, tag, numbering, order, overlap, gap, empty, duration, reading-speed, "
        "line-length, lines. Each finding has the line of the file and the number of the cue.",
        (
            "audiocli captions check talk.srt",
            "audiocli captions check *.vtt --cps 20 --skip gap",
            "audiocli captions check talk.srt --json | jq .findings",
        ),
        (0, 2, 3, 10),
    ),
    "captions convert": HelpPage(
        "One file and one format go to stdout, or to -o; otherwise next to the input, or into -O. Cues stay as they "
        "are without --relayout or a limit.",
        (
            "audiocli captions convert talk.srt -o talk.vtt",
            "audiocli captions convert *.srt -f vtt,ass -O out",
            "audiocli captions convert old.srt --encoding cp1252 -o new.srt",
            "audiocli captions convert talk.srt --max-line-width 32 -f srt",
        ),
        (0, 2, 3, 10),
    ),
    "captions shift": HelpPage(
        "Times below 0 become 0, with a warning. Without -o, the result goes to stdout.",
        (
            "audiocli captions shift talk.srt +1.5 -o shifted.srt",
            "audiocli captions shift talk.srt -0:02 > shifted.srt",
            "audiocli captions shift talk.vtt -250ms -o talk-2.vtt",
        ),
        _EVERY_COMMAND,
    ),
    "captions scale": HelpPage(
        "--sync moves times so that each FROM becomes its TO; other times are interpolated or extrapolated linearly.",
        (
            "audiocli captions scale talk.srt --from-fps 25 --to-fps 23.976",
            "audiocli captions scale talk.srt 1.001 -o talk-2.srt",
            "audiocli captions scale a.srt --sync 0:01=0:02,1:00:00=1:00:05",
        ),
        _EVERY_COMMAND,
    ),
    "captions merge": HelpPage(
        "Parts of one recording are joined with --offset or --media, two languages with --bilingual. Otherwise the "
        "cues are sorted by time, and must not overlap.",
        (
            "audiocli captions merge a.srt b.srt --offset 0:45:10 -o all.srt",
            "audiocli captions merge a.srt b.srt --media a.mp4 -o all.srt",
            "audiocli captions merge en.srt de.srt --bilingual -o both.srt",
        ),
        (0, 2, 8, 10),
    ),
    "captions split": HelpPage(
        "The parts are named NAME.1.srt, NAME.2.srt and so on. A cue that crosses a split time goes to the part that "
        "shows most of it.",
        (
            "audiocli captions split talk.srt --at 0:30:00,1:00:00",
            "audiocli captions split talk.srt --every 10m -O parts",
            "audiocli captions split talk.srt --every 1h -f vtt",
        ),
        _EVERY_COMMAND,
    ),
    "chat": HelpPage(
        "The message is text, recordings, or both. The reply is text on stdout; it is spoken with -o FILE, with "
        "--play, or with -f and an audio format.",
        (
            "audiocli chat 'Explain a spectrogram in one sentence.'",
            "audiocli chat -a question.wav --play",
            "audiocli chat -a call.mp3 'Who calls, and why?' --json",
            "audiocli chat 'Tell a short story.' -o story.mp3 -v alloy",
        ),
        (0, 2, 4, 5, 6, 7, 8, 9, 10, 130),
    ),
    "jobs": HelpPage(
        "Without a subcommand, list the jobs that speak and transcribe submitted with --background.",
        (
            "audiocli speak -F book.txt --background",
            "audiocli jobs",
            "audiocli jobs wait job_123 -o book.mp3",
        ),
        (0, 2, 3, 4, 5, 6, 7, 9, 10, 130),
    ),
    "jobs show": HelpPage(
        "Ask the gateway for the current state.",
        (
            "audiocli jobs show job_123",
            "audiocli jobs show job_123 --json",
            "audiocli jobs show job_123 -g therouter",
        ),
        _WITH_JOBS,
    ),
    "jobs wait": HelpPage(
        "Results go to the paths that were given when the jobs were submitted, unless -o names another.",
        (
            "audiocli jobs wait job_123",
            "audiocli jobs wait job_123 -o book.mp3",
            "audiocli jobs wait job_123 job_124 --deadline 600",
        ),
        (0, 2, 3, 4, 5, 6, 7, 9, 10, 130),
    ),
    "jobs fetch": HelpPage(
        "The job must have finished; 'audiocli jobs wait' waits for it.",
        (
            "audiocli jobs fetch job_123",
            "audiocli jobs fetch job_123 -o book.mp3",
            "audiocli jobs fetch job_124 -o - > talk.txt",
        ),
        _WITH_JOBS,
    ),
    "jobs forget": HelpPage(
        "'audiocli jobs' lists the IDs.",
        (
            "audiocli jobs forget job_123",
            "audiocli jobs forget job_123 job_124",
            "audiocli jobs forget job_123 -g therouter",
        ),
        _WITH_LEDGER,
    ),
    "models": HelpPage(
        "QUERY selects the models whose names contain it; a full name shows all details of the model.",
        (
            "audiocli models --kind speech",
            "audiocli models whisper -g groq",
            "audiocli models openrouter:openai/gpt-4o-mini-tts",
            "audiocli models --refresh --json",
        ),
        _WITH_LISTS,
    ),
    "voices": HelpPage(
        "Without -m, list the voices of all speech models. QUERY selects the voices whose names contain it.",
        (
            "audiocli voices",
            "audiocli voices -m groq:canopylabs/orpheus-v1-english",
            "audiocli voices -g local de",
            "audiocli voices --json",
        ),
        _WITH_LISTS,
    ),
    "usage": HelpPage(
        "Without a subcommand, report the requests of the last 30 days.",
        (
            "audiocli usage --since month",
            "audiocli usage --since month --by gateway --by model",
            "audiocli usage --since 7d --by day --csv > week.csv",
            "audiocli usage --since yesterday --json",
        ),
        (0, 2, 3, 4, 5, 6, 7, 10, 130),
    ),
    "usage list": HelpPage(
        "Every request that may cost something has an entry.",
        (
            "audiocli usage list --limit 20",
            "audiocli usage list --outcome unknown",
            "audiocli usage list --since 7d --command speak --json",
            "audiocli usage list --tag podcast --csv > podcast.csv",
        ),
        _WITH_LEDGER,
    ),
    "usage export": HelpPage(
        "Each line is one JSON object, for a spreadsheet or a database.",
        (
            "audiocli usage export > ledger.jsonl",
            "audiocli usage export --since month -g openrouter",
            "audiocli usage export --outcome unknown | jq .id",
        ),
        _WITH_LEDGER,
    ),
    "usage reconcile": HelpPage(
        "Only gateways that report costs afterwards are queried.",
        (
            "audiocli usage reconcile",
            "audiocli usage reconcile --since 7d",
            "audiocli usage reconcile --limit 50 --json",
        ),
        (0, 2, 4, 5, 6, 7, 10, 130),
    ),
    "usage verify": HelpPage(
        "Nothing is changed and nothing is sent.",
        (
            "audiocli usage verify",
            "audiocli usage verify --json",
            "audiocli usage verify -q && echo ok",
        ),
        (0, 2, 3, 5, 10),
    ),
    "usage path": HelpPage(
        "AUDIOCLI_LEDGER names another file.",
        (
            "audiocli usage path",
            'cp "$(audiocli usage path)" backup.sqlite3',
            "audiocli usage path --json",
        ),
        _EVERY_COMMAND,
    ),
    "budget": HelpPage(
        "Without a subcommand, show each limit and how much of it is spent.",
        (
            "audiocli budget",
            "audiocli budget set --day 5 --month 50",
            "audiocli budget --json",
        ),
        _WITH_LEDGER,
    ),
    "budget set": HelpPage(
        "A request that may exceed a limit is not sent.",
        (
            "audiocli budget set --day 5",
            "audiocli budget set --run 1 --month 50",
            "audiocli budget set --confirm 0.50",
        ),
        _WITH_LEDGER,
    ),
    "budget clear": HelpPage(
        "The ledger stays unchanged.",
        (
            "audiocli budget clear",
            "audiocli budget clear --json",
            "audiocli budget clear -q",
        ),
        _WITH_LEDGER,
    ),
    "cache": HelpPage(
        "Without a subcommand, show what is stored.",
        (
            "audiocli cache",
            "audiocli cache clear",
            "audiocli cache --json",
        ),
        (0, 2, 10, 130),
    ),
    "cache show": HelpPage(
        "Paid results cost money to produce again; the column 'paid' shows what they cost, if known.",
        (
            "audiocli cache show",
            "audiocli cache show --json",
            "audiocli cache show --json | jq .total.bytes",
        ),
        _EVERY_COMMAND,
    ),
    "cache clear": HelpPage(
        "Running commands are not affected. With --paid, chunks of unfinished runs are also removed, and a rerun pays "
        "for them again. Results that could not be written to their path are never removed.",
        (
            "audiocli cache clear",
            "audiocli cache clear --paid",
            "audiocli cache clear --paid --yes --json",
        ),
        (0, 2, 10, 130),
    ),
    "cache path": HelpPage(
        "The second directory has the ledger, transcripts and speech.",
        (
            "audiocli cache path",
            "du -sh $(audiocli cache path)",
            "audiocli cache path --json",
        ),
        _EVERY_COMMAND,
    ),
    "config": HelpPage(
        "Without a subcommand, show each setting and where it comes from. Keys are never shown.",
        (
            "audiocli config",
            "audiocli config check",
            "audiocli config --json",
        ),
        (0, 2, 3, 10, 130),
    ),
    "config path": HelpPage(
        "AUDIOCLI_CONFIG names another file.",
        (
            "audiocli config path",
            'ls -l "$(audiocli config path)"',
            "audiocli config path --json",
        ),
        _EVERY_COMMAND,
    ),
    "config check": HelpPage(
        "Each problem has a fix. The keys are verified with the gateways.",
        (
            "audiocli config check",
            "audiocli config check --json",
            "audiocli config check -q || echo 'not ready'",
        ),
        (0, 2, 3, 10, 130),
    ),
    "config get": HelpPage(
        "KEY is a table and a name, such as speak.voice.",
        (
            "audiocli config get speak.voice",
            "audiocli config get budget.day",
            "audiocli config get speak.models --json",
        ),
        _EVERY_COMMAND,
    ),
    "config set": HelpPage(
        "Spending limits can also be set with 'audiocli budget set'.",
        (
            "audiocli config set speak.voice nova",
            "audiocli config set speak.format opus",
            "audiocli config set transcribe.language de",
        ),
        _EVERY_COMMAND,
    ),
    "config unset": HelpPage(
        "The built-in default applies again.",
        (
            "audiocli config unset speak.voice",
            "audiocli config unset transcribe.language",
            "audiocli config unset budget",
        ),
        _EVERY_COMMAND,
    ),
    "config edit": HelpPage(
        "The file is checked afterwards; an invalid one can be edited again.",
        (
            "audiocli config edit",
            "EDITOR=nano audiocli config edit",
            "VISUAL='code --wait' audiocli config edit",
        ),
        _EVERY_COMMAND,
    ),
    "keys": HelpPage(
        "Keys are stored in a file that only you can read. A key in an environment variable takes precedence.",
        (
            "audiocli keys set openrouter",
            "audiocli keys list",
            "audiocli keys remove openrouter",
        ),
        _WITH_KEY_CHECK,
    ),
    "keys set": HelpPage(
        "A key is never an argument, because other users could see it in the list of processes.",
        (
            "audiocli keys set openrouter",
            "pass show openrouter | audiocli keys set openrouter",
            "audiocli keys set groq --no-verify < key.txt",
        ),
        _WITH_KEY_CHECK,
    ),
    "keys list": HelpPage(
        "A source is an environment variable, the config file or the file of stored keys.",
        (
            "audiocli keys list",
            "audiocli keys list --json",
            "audiocli keys list --json | jq -r .gateway",
        ),
        _WITH_KEYS,
    ),
    "keys remove": HelpPage(
        "Environment variables and the config file stay unchanged.",
        (
            "audiocli keys remove openrouter",
            "audiocli keys remove groq --json",
            "audiocli keys remove groq -q",
        ),
        _WITH_KEYS,
    ),
    "mock": HelpPage(
        "The command gets its own keys, base URLs, config, ledger and caches, so that nothing real is used or changed. "
        "Its exit code is returned. Without a command, print the variables and serve until Ctrl-C or SIGTERM.",
        (
            "audiocli mock -- ./test-my-script.sh",
            "audiocli mock --fault 429:2,retry-after=1 -- make test",
            "audiocli mock --port 8080 > mock.env",
            "audiocli mock --engine local --port 8000",
        ),
        (0, 2, 10, 130),
    ),
    "init": HelpPage(
        "Each step names the file that it writes and can be skipped. A second run changes only what is missing.",
        (
            "audiocli init",
            "audiocli init --dry-run",
            "audiocli init --gateway openrouter --key-stdin --yes < key.txt",
        ),
        _WITH_KEY_CHECK,
    ),
    "completion": HelpPage(
        "The scripts complete commands, options, files, models and voices.",
        (
            "source <(audiocli completion bash)",
            "audiocli completion zsh --install",
            "audiocli completion fish --install",
        ),
        _EVERY_COMMAND,
    ),
    "report": HelpPage(
        "The archive contains versions, the configuration, the results of 'audiocli config check', and the last "
        "entries of the ledger. With DIR, it also contains the exchanges of that recording. The contents are shown "
        "first, and nothing is sent.",
        (
            "audiocli report",
            "audiocli report hi",
            "audiocli report hi --with-bodies -o report.zip -y",
        ),
        (0, 2, 10, 130),
    ),
    "help": HelpPage(
        "Topics: gateways, models, formats, money, environment, exit-codes, recipes.",
        (
            "audiocli help",
            "audiocli help formats",
            "audiocli help usage list",
        ),
        _EVERY_COMMAND,
    ),
}

# Panels in the order in which help shows them, with the long options of each.
PANELS: dict[str, tuple[str, ...]] = {
    "Input": (
        *("--input-file", "--from", "--encoding", "--markdown", "--raw", "--clean", "--pronunciations"),
        *("--audio", "--system", "--language", "--prompt", "--keyterms", "--speaker"),
        *("--stdin-format", "--stdin-rate", "--stdin-channels"),
        *("--track", "--list-tracks", "--channel", "--range", "--mic", "--device", "--list-devices"),
        *("--since", "--until", "--command", "--outcome", "--tag", "--kind", "--utc", "--limit"),
        *("--fps", "--media"),
    ),
    "Output": (
        *("--output", "--output-dir", "--name", "--media-server", "--embed-captions", "--format", "--captions"),
        "--caption-words",
        *("--sample-rate", "--loudness", "--tempo"),
        *("--translate", "--diarize", "--stream", "--with-bodies"),
        *(
            "--play",
            "--player",
            "--install",
            "--timestamps",
            "--strict-timestamps",
            "--allow-empty",
            "--accept-partial",
        ),
        *("--with", "--corrections", "--embed-media", "--guard"),
        *("--max-line-width", "--max-lines", "--max-cue", "--cps", "--words-per-cue"),
        *("--relayout", "--speakers"),
    ),
    "Model and voice": (
        *(
            "--model",
            "--voice",
            "--voice-for",
            "--reference",
            "--speed",
            "--instructions",
            "--temperature",
            "--max-tokens",
            "--option",
        ),
    ),
    "Verification": (*("--verify-model", "--verify-threshold", "--verify-retries", "--verify-audio"),),
    "Checks": ("--min-cue", "--min-gap", "--skip"),
    "Times": ("--from-fps", "--to-fps", "--sync", "--offset", "--bilingual", "--at", "--every"),
    "Long texts": ("--chapters", "--split-chapters", "--preview", "--max-chars", "--pause"),
    "Long recordings": ("--max-chunk", "--no-split", "--context"),
    "Batch": (
        *("--recursive", "--include", "--exclude", "--files-from", "--force", "--retry-failed", "--verify-only"),
        *("--fail-fast", "--watch", "--results-url"),
    ),
    "Cluster": ("--executor", "--scheduler", "--workers", "--resources", "--tls-ca", "--tls-cert", "--tls-key"),
    "Money": (
        *("--dry-run", "--max-cost", "--allow-unpriced", "--yes", "--retry-unknown"),
        *("--run", "--day", "--week", "--month", "--confirm"),
    ),
    "Background": ("--background", "--wait", "--deadline"),
    "Mock gateway": (
        *(
            "--port",
            "--dialect",
            "--latency",
            "--fault",
            "--script",
            "--journal",
            "--engine",
            "--allow-remote",
            "--key",
        ),
        *("--keep", "--shell"),
    ),
    "Gateway": (
        *("--gateway", "--base-url", "--timeout", "--refresh", "--verify", "--key-stdin"),
        *("--record", "--replay", "--replay-timing"),
    ),
    "Output format": ("--json", "--csv", "--by"),
    "General": ("--quiet", "--debug", "--color", "--bell", "--help", "--version"),
}

# Options that belong to another panel on the page of one command.
COMMAND_PANELS: dict[tuple[str, str], str] = {
    **{("init", option): "General" for option in ("--yes", "--dry-run", "--completion")},
    ("completion", "--install"): "Output",
    ("report", "--yes"): "General",
    **{("captions check", option): "Checks" for option in ("--max-line-width", "--max-lines", "--max-cue", "--cps")},
    ("speak", "--tag"): "Money",
    ("transcribe", "--tag"): "Money",
    ("chat", "--tag"): "Money",
    **{("speak", option): "Long texts" for option in ("--jobs", "--resume")},
    ("speak", "--cache"): "Money",
    ("speak", "--verify"): "Verification",
    **{("cache clear", option): "General" for option in ("--paid", "--yes")},
    **{("transcribe", option): "Long recordings" for option in ("--jobs", "--resume")},
    **{(f"usage {name}", option): "Input" for name in ("list", "export") for option in ("--gateway", "--model")},
}

# Defaults that are decided when the command runs.
DEFAULTS: dict[tuple[str, str], str] = {
    ("speak", "--format"): "from -o, else mp3",
    ("speak", "--output"): "stdout if piped, else play",
    ("speak", "--model"): "of the first gateway with a key",
    ("speak", "--voice"): "of the model",
    ("speak", "--verify-model"): "local Whisper, else the cheapest of the gateway",
    ("speak", "--verify-threshold"): "25",
    ("speak", "--verify-retries"): "2",
    ("transcribe", "--format"): "from -o, else txt",
    ("transcribe", "--output"): "stdout",
    ("transcribe", "--output-dir"): "next to the input",
    ("transcribe", "--model"): "of the first gateway with a key",
    ("transcribe", "--timestamps"): "what the formats need",
    ("transcribe", "--language"): "detected by the model",
    ("captions check", "--from"): "from the extension, else detected",
    ("captions convert", "--from"): "from the extension, else detected",
    ("captions convert", "--format"): "from -o",
    ("captions convert", "--output"): "stdout",
    ("captions convert", "--output-dir"): "next to the input",
    ("captions shift", "--format"): "from -o, else that of the input",
    ("captions shift", "--output"): "stdout",
    ("captions scale", "--format"): "from -o, else that of the input",
    ("captions scale", "--output"): "stdout",
    ("captions merge", "--format"): "from -o, else that of the first file",
    ("captions merge", "--output"): "stdout",
    ("captions split", "--format"): "that of the input",
    ("captions split", "--output-dir"): "next to the input",
    ("chat", "--format"): "from -o, else text",
    ("chat", "--output"): "stdout",
    ("chat", "--model"): "of the first gateway with a key",
    ("chat", "--voice"): "alloy",
}

# Environment variables that set an option. NAME is the gateway, such as OPENROUTER.
ENVIRONMENT_VARIABLES: dict[str, str] = {
    "--tag": "AUDIOCLI_TAG",
    "--base-url": "NAME_BASE_URL",
    "--key": "AUDIOCLI_MOCK_KEY",
}
# Filters of the ledger are not set by the environment.
WITHOUT_ENVIRONMENT = ("usage",)


def find_page(path: str) -> HelpPage:
    """Return the page of a command; an empty one if there is none."""
    return PAGES.get(path, HelpPage("", (), _EVERY_COMMAND))


def find_panel(path: str, names: tuple[str, ...] | list[str]) -> str | None:
    """Return the panel of an option of a command; None if it is in no panel."""
    for name in names:
        if (path, name) in COMMAND_PANELS:
            return COMMAND_PANELS[path, name]
    return next((panel for panel, options in PANELS.items() for name in names if name in options), None)


def find_variable(path: str, names: tuple[str, ...] | list[str]) -> str | None:
    """Return the environment variable that sets an option of a command; None if there is none."""
    if path.partition(" ")[0] in WITHOUT_ENVIRONMENT:
        return None
    return next((ENVIRONMENT_VARIABLES[name] for name in names if name in ENVIRONMENT_VARIABLES), None)


def find_default(path: str, names: tuple[str, ...] | list[str]) -> str | None:
    """Return the default that is decided when the command runs; None if the default is a constant."""
    return next((DEFAULTS[path, name] for name in names if (path, name) in DEFAULTS), None)
