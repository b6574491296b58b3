"""Options of whisper, say, edge-tts and curl, options before the command, and suggestions for misspelled names."""

from __future__ import annotations

import pytest

from audiocli.cli.completion import build_tree
from audiocli.cli.mistakes import REPLACEMENTS, SAME_MEANING, SAME_MEANING_BY_VALUE
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH

TREE = {" ".join(command.path): command for command in build_tree().walk()}


@pytest.fixture
def cli(audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    (audiocli.directory / "talk.wav").write_bytes(SPEECH)
    (audiocli.directory / "text.txt").write_text("Hello from a file.")
    monkeypatch.chdir(audiocli.directory)
    return audiocli


# A command line of another program, and ours.
EQUAL_LINES: list[tuple[list[str], list[str]]] = [
    (["speak", "--text", "hi there", "--write-media", "x.mp3"], ["speak", "hi there", "-o", "x.mp3"]),
    (["--text", "hi there", "--write-media=x.mp3"], ["speak", "hi there", "-o", "x.mp3"]),
    (["speak", "--file", "text.txt", "--output-file", "x.mp3"], ["speak", "-F", "text.txt", "-o", "x.mp3"]),
    (["speak", "--silent", "hi", "-o", "x.mp3"], ["speak", "-q", "hi", "-o", "x.mp3"]),
    (["speak", "hi", "--output_format", "flac", "-o", "-"], ["speak", "hi", "-f", "flac", "-o", "-"]),
    (["speak", "-i", "--text", "hi", "-o", "x.mp3"], ["speak", "-i", "--text", "hi", "-o", "x.mp3"]),
    (["transcribe", "talk.wav", "--output_format", "srt"], ["transcribe", "talk.wav", "-f", "srt"]),
    (["transcribe", "talk.wav", "--output_format=txt"], ["transcribe", "talk.wav", "-f", "txt"]),
    (["transcribe", "talk.wav", "--task", "transcribe"], ["transcribe", "talk.wav"]),
    (["transcribe", "talk.wav", "--initial_prompt", "Ada"], ["transcribe", "talk.wav", "-p", "Ada"]),
    (
        ["transcribe", "talk.wav", "-f", "srt", "--max_line_width", "30"],
        ["transcribe", "talk.wav", "-f", "srt", "--max-line-width", "30"],
    ),
    (["transcribe", "--file", "talk.wav", "--verbose", "False"], ["transcribe", "talk.wav"]),
    (["usage", "list", "--silent", "--json"], ["usage", "list", "-q", "--json"]),
    (["speak", "--dry_run", "hi", "-o", "x.mp3"], ["speak", "-n", "hi", "-o", "x.mp3"]),
    (["version"], ["--version"]),
    (["--list-voices", "-g", "local"], ["voices", "-g", "local"]),
    (["--json", "usage"], ["usage", "--json"]),
    (["--json", "usage", "list"], ["usage", "list", "--json"]),
    (["usage", "--json", "list"], ["usage", "list", "--json"]),
    (
        ["-q", "-g", "openrouter", "speak", "hi", "-o", "x.mp3"],
        ["speak", "hi", "-q", "-g", "openrouter", "-o", "x.mp3"],
    ),
    (["--gateway=openrouter", "--json", "speak", "hi", "-n"], ["speak", "hi", "--gateway=openrouter", "--json", "-n"]),
    (["--json", "speak", "-n", "--", "-5"], ["speak", "--json", "-n", "--", "-5"]),
]


@pytest.mark.parametrize(("foreign", "ours"), EQUAL_LINES, ids=lambda words: " ".join(words))
def test_option_with_the_same_meaning_is_accepted(cli: CommandLine, foreign: list[str], ours: list[str]) -> None:
    cli.write_config("[speak]\ncache = false\n")
    output = cli.directory / "x.mp3"
    results = []
    for argv in (ours, foreign):
        # An existing transcript would not be requested again.
        r = cli(*argv, *(["--no-resume"] if "transcribe" in argv else []))
        results.append((r.code, r.out, len(r.posts), output.read_bytes() if output.exists() else None))
        output.unlink(missing_ok=True)

    assert results[0] == results[1]
    assert results[0][0] == 0


# A command line of another program, and the words of the hint.
REPLACED_LINES: list[tuple[list[str], str]] = [
    (["speak", "--rate", "+50%", "hi"], "use --speed 1.5"),
    (["speak", "--rate=-20%", "hi"], "use --speed 0.8"),
    (["speak", "-r", "350", "hi"], "use --speed 2"),
    (["speak", "--text", "-5"], "use: audiocli speak -- -5"),
    (["transcribe", "talk.wav", "--model_dir", "/m"], "set AUDIOCLI_MODEL_DIR=/m"),
    (["transcribe", "talk.wav", "--fp16", "False"], "remove it"),
    (["speak", "hi", "--api-key", "sk-secret"], "store the key: audiocli keys set GATEWAY"),
    (["chat", "hi", "--max-time", "30"], "use --timeout 30, in seconds without data"),
    (["talk.wav", "--model", "tiny"], "use: audiocli transcribe talk.wav --model tiny"),
    (["speak", "hi", "--write-media"], "use --output VALUE"),
    (["transcribe", "talk.wav", "--task", "sing"], "use --translate"),
    (["text.txt"], "use: audiocli speak -F text.txt"),
    (["hello world", "-o", "x.mp3"], "use: audiocli speak 'hello world' -o x.mp3"),
    (["say", "hi"], "use: audiocli speak hi"),
]


@pytest.mark.parametrize(("argv", "hint"), REPLACED_LINES, ids=lambda value: " ".join(value)[:40])
def test_option_without_an_equal_is_answered_with_its_replacement(cli: CommandLine, argv: list[str], hint: str) -> None:
    r = cli(*argv)

    assert (r.code, r.posts) == (2, [])
    assert r.err.splitlines()[-1] == f"hint: {hint}"
    assert "sk-secret" not in r.err


def test_every_replacement_names_an_option_that_exists() -> None:
    for (command, option), words in [
        *SAME_MEANING.items(),
        *(
            ((command, option), words)
            for (command, option), by_value in SAME_MEANING_BY_VALUE.items()
            for words in by_value.values()
        ),
    ]:
        names = {name for flag in TREE[command or "usage list"].flags for name in flag.names}
        assert option not in names, f"{command} has {option}"
        assert {word for word in words if word.startswith("--")} <= names, (command, option)
    for command, option in REPLACEMENTS:
        for name in [command] if command else ("speak", "transcribe", "chat"):
            assert option not in {name for flag in TREE[name].flags for name in flag.names}, (name, option)


# A misspelled name, and the suggestion; "" if no name is similar enough.
SUGGESTIONS: list[tuple[list[str], str]] = [
    (["speek", "hi"], "'speak'"),
    (["--json", "trancribe", "a.wav"], "'transcribe'"),
    (["usage", "lst"], "'list'"),
    (["xyzzy"], ""),
    (["speak", "hi", "--vice", "x"], "'--voice'"),
    (["usage", "list", "--limt", "3"], "'--limit'"),
    (["speak", "hi", "--qqqq"], ""),
    (["speak", "hi", "-g", "opnrouter", "-o", "x.mp3"], "'openrouter'"),
    (["models", "-g", "gorq"], "'groq'"),
    (["keys", "set", "opneai"], "'openai'"),
    (["speak", "hi", "-f", "falc", "-o", "x.mp3"], "'flac'"),
    (["transcribe", "talk.wav", "-f", "str"], "'srt'"),
    (["models", "--kind", "speach"], "'speech'"),
    (["usage", "--by", "gatway"], "'gateway'"),
]


@pytest.mark.parametrize(("argv", "name"), SUGGESTIONS, ids=lambda value: " ".join(value)[:40])
def test_misspelled_name_is_answered_with_the_most_similar_one(cli: CommandLine, argv: list[str], name: str) -> None:
    r = cli(*argv, stdin=b"x")

    assert (r.code, r.posts) == (2, [])
    assert (f"did you mean {name}?" in r.err) if name else ("did you mean" not in r.err), r.err


@pytest.mark.parametrize(
    ("argv", "path"),
    [
        (["usage", "list", "--limit"], "audiocli usage list"),
        (["jobs", "show"], "audiocli jobs show"),
        (["jobs", "--bogus"], "audiocli jobs"),
        (["speak", "--zzzz"], "audiocli speak"),
        (["bogus"], "audiocli"),
    ],
)
def test_hint_names_the_command_that_failed(cli: CommandLine, argv: list[str], path: str) -> None:
    assert cli(*argv).err.splitlines()[-1] == f"hint: see '{path} --help'"


def test_error_object_names_the_command_after_leading_options(cli: CommandLine) -> None:
    assert cli("-g", "openrouter", "--json", "speak", "").err_json["command"] == "speak"


def test_options_without_a_command_are_an_error(cli: CommandLine) -> None:
    r = cli("--json")

    assert (r.code, r.err_json["error"]["message"]) == (2, "missing command")
