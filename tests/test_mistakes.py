"""Command lines that people mistype: the exit code and the words of the message, and nothing is sent."""

from __future__ import annotations

import pytest

from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH

LONG_NAME = "n" * 300


@pytest.fixture
def cli(audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """A command line in a directory with files of many kinds."""
    path = audiocli.directory
    for name in (
        "talk.wav",
        "-talk.wav",
        "ünï 語.wav",
        "a b.wav",
        "[x].wav",
        "noext",
        "records/a.wav",
        "records/a.flac",
    ):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(SPEECH)
    (path / "text.txt").write_text("Hello from a file.")
    (path / "empty.txt").touch()
    (path / "empty.wav").touch()
    (path / "empty").mkdir()
    (path / "doc.pdf").write_bytes(b"%PDF-1.4 x")
    (path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    monkeypatch.chdir(path)
    return audiocli


# A command line, its exit code, and words of its message.
MISTAKES: list[tuple[list[str], int, str]] = [
    (["speak", "-5"], 2, "audiocli speak -- -5"),
    (["chat", "-3 apples"], 2, "audiocli chat -- '-3 apples'"),
    (["transcribe", "-talk.wav"], 2, "audiocli transcribe -- -talk.wav"),
    (["speak", "-z"], 2, "no such option: -z"),
    (["speak", "hi", "-o", "records"], 10, "it is a directory"),
    (["speak", "hi", "-o", "records/"], 2, "is not a file name"),
    (["speak", "hi", "-o", "new/"], 2, "is not a file name"),
    (["speak", "hi", "-o", ""], 2, "is not a file name"),
    (["speak", "hi", "-o", "x.xyz"], 2, "unknown extension of x.xyz"),
    (["speak", "hi", "-o", "x.txt"], 2, "unknown extension of x.txt"),
    (["speak", "hi", "-o", "new/x.mp3"], 10, "no such directory"),
    (["speak", "hi", "-o", "text.txt/x.mp3"], 10, "Not a directory"),
    (["speak", "hi", "-o", f"{LONG_NAME}.mp3"], 10, "File name too long"),
    (["speak", "hi", "-o", f"{LONG_NAME}.xyz"], 2, "unknown extension"),
    (["speak", "hi", "-f", "mp4", "-o", "x.mp3"], 2, "unknown format 'mp4'"),
    (["speak", "hi", "-f", "text.txt", "-o", "x.mp3"], 2, "-F text.txt"),
    (["speak", "", "-o", "x.mp3"], 2, "no text to speak"),
    (["speak", " ", "-o", "x.mp3"], 2, "no text to speak"),
    (["speak", "-F", "", "-o", "x.mp3"], 2, "the path of -F is empty"),
    (["speak", "-F", "nope.txt", "-o", "x.mp3"], 2, "No such file"),
    (["speak", "-F", "records", "-o", "x.mp3"], 2, "is a directory"),
    (["speak", "-F", "talk.wav", "-o", "x.mp3"], 2, "is binary"),
    (["speak", "-F", "empty.txt", "-o", "x.mp3"], 2, "no text to speak"),
    (["speak", "-F", "text.txt", "more", "-o", "x.mp3"], 2, "TEXT cannot be used with -F"),
    (["speak", "-F", "text.txt", "-o", "text.txt", "-f", "mp3"], 2, "would overwrite its input"),
    (["speak", "hi", "--captions", "x.txt", "-o", "x.mp3"], 2, "must be .srt or .vtt"),
    (["speak", "hi", "-x", "fast", "-o", "x.mp3"], 2, "--speed fast: must be a number"),
    (["speak", "hi", "-x", "nan", "-o", "x.mp3"], 2, "--speed nan"),
    (["speak", "hi", "-j", "0", "-o", "x.mp3"], 2, "--jobs 0"),
    (["speak", "hi", "--max-cost", "nan", "-o", "x.mp3"], 2, "--max-cost nan"),
    (["speak", "hi", "--timeout", "inf", "-o", "x.mp3"], 2, "--timeout inf"),
    (["speak", "hi", "--option", "x", "-o", "x.mp3"], 2, "expected KEY=VALUE"),
    (["speak", "hi", "--option", "input=x", "-o", "x.mp3"], 2, "audiocli sets this field itself"),
    (["speak", "hi", "--base-url", "localhost:80", "-o", "x.mp3"], 2, "invalid http or https URL"),
    (["speak", "hi", "--base-url", "file:///etc/passwd", "-o", "x.mp3"], 2, "invalid http or https URL"),
    (["speak", "hi", "-m", ":", "-o", "x.mp3"], 2, "unknown gateway ''"),
    (["speak", "hi", "-g", "openrouter", "-m", "openai:tts-1", "-o", "x.mp3"], 2, "contradicts"),
    (["speak", "hi", "--player", '"open'], 2, "--player"),
    (["speek", "hi"], 2, "did you mean 'speak'?"),
    (["transcribe", ""], 2, "the path of the recording is empty"),
    (["transcribe", "text.txt"], 8, "the file is text, not audio"),
    (["transcribe", "doc.pdf"], 8, "not audio"),
    (["transcribe", "picture.png"], 8, "no audio track"),
    (["transcribe", "empty.wav"], 8, "is empty"),
    (["transcribe", "empty"], 2, "no audio files found"),
    (["transcribe", "nope.wav"], 2, "No such file"),
    (["transcribe", "nope*.wav"], 2, "no files match 'nope*.wav'"),
    (["transcribe", f"{LONG_NAME}.wav"], 2, "File name too long"),
    (["transcribe", "talk.wav", "-"], 2, "- cannot be used with other recordings"),
    (["transcribe", "records", "-o", "x.txt"], 2, "-o supports only one recording"),
    (["transcribe", "talk.wav", "-o", "talk.wav"], 2, "would overwrite its input"),
    (["transcribe", "talk.wav", "-o", "records"], 10, "it is a directory"),
    (["transcribe", "talk.wav", "-o", "x.xyz"], 2, "unknown extension of x.xyz"),
    (["transcribe", "talk.wav", "-O", "text.txt"], 10, "cannot create the directory text.txt"),
    (["transcribe", "talk.wav", "-o", "x.txt", "-O", "out"], 2, "-o cannot be used with -O"),
    (["transcribe", "talk.wav", "-f", ","], 2, "unknown format"),
    (["transcribe", "talk.wav", "-l", "xx"], 2, "unknown language 'xx'"),
    (
        ["transcribe", "s4://a/b.mp3"],
        2,
        "error: not an http or https URL: s4://a/b.mp3\nhint: use a path, or",
    ),
    (["transcribe", "file:///x.mp3"], 2, "begins with http, https, s3, gs or az"),
    (["transcribe", "s3:/x"], 2, "error: s3:/x is not the URL of an object\nhint: write it as s3://BUCKET/KEY"),
    (["transcribe", "http:/x"], 2, "invalid http or https URL: http:/x"),
    (["speak", "hi", "-m", "local:pipr"], 2, "unknown model local:pipr; did you mean 'local:piper'?"),
    (["transcribe", "talk.wav", "-m", "local:whisper-tny"], 2, "did you mean 'local:whisper-tiny.en'?"),
    (["transcribe", "talk.wav", "-m", "local:x"], 2, "unknown model local:x\nhint: use local:whisper, local:"),
    (["speak", "hi", "-j", "abc"], 2, "error: --jobs abc: must be a whole number\nhint: see 'audiocli speak --help'"),
    (["speak", "hi", "-j1.5"], 2, "error: --jobs 1.5: must be a whole number\n"),
    (["speak", "hi", "-j", ""], 2, "error: --jobs '': must be a whole number\n"),
    (["speak", "hi", "--speed", 'it\'s "1"'], 2, "error: --speed 'it'\"'\"'s \"1\"': must be a number\n"),
    (["budget", "set", "--day", "abc"], 2, "error: --day abc: must be a number\n"),
    (["budget", "set", "--day=-1.5"], 2, "error: --day -1.5: must be 0 or more\n"),
    (["models", "--color", "x"], 2, "error: --color x: must be auto, always or never\n"),
    (["transcribe", "talk.wav", "--temperature", "hot"], 2, "--temperature hot: must be a number"),
    (["transcribe", "talk.wav", "--max-chunk", "0"], 2, "--max-chunk 0"),
    (["transcribe", "talk.wav", "--stdin-format", "mp3"], 2, "--stdin-format requires"),
    (["transcribe", "ftp://example/a.mp3"], 2, "http or https URL"),
    (["transcribe", "s3:///a.mp3"], 2, "has no bucket"),
    (["transcribe", "s3://example/a//b.mp3"], 2, "the key has an empty part"),
    (["chat", ""], 2, "no message"),
    (["chat", "hi", "-a", "nope.wav"], 2, "No such file"),
    (["chat", "hi", "-a", "text.txt"], 8, "the file is text, not audio"),
    (["usage", "--since", "2026-13-01"], 2, "invalid date"),
    (["usage", "--since", "99999999999d"], 2, "invalid date"),
    (["usage", "list", "--limit", "0"], 2, "--limit 0"),
    (["budget", "set"], 2, "no limit given"),
    (["budget", "set", "--day", "nan"], 2, "budget.day"),
    (["budget", "set", "--day", "1e300"], 2, "budget.day"),
    (["keys", "set", "nope"], 2, "unknown gateway 'nope'"),
    (["init", "--yes", "-g", "opnai"], 2, "unknown gateway 'opnai'; did you mean 'openai'?"),
    (["jobs", "show", "nope"], 2, "unknown job 'nope'"),
    (["completion", "tcsh"], 2, "unknown shell"),
    ([""], 2, "no such command"),
    (["--"], 2, "missing command"),
]


@pytest.mark.parametrize(
    ("argv", "code", "words"), MISTAKES, ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None
)
def test_mistake_is_explained_and_sends_nothing(cli: CommandLine, argv: list[str], code: int, words: str) -> None:
    r = cli(*argv)

    assert (r.code, r.posts) == (code, []), r.err
    assert words in r.err
    assert "internal error" not in r.err
    # What is on the disk was there before.
    assert not [path for path in cli.directory.iterdir() if path.suffix in (".mp3", ".part", ".xyz")]


@pytest.mark.parametrize("amount", ["nan", "1e300", "2e6"])
def test_limit_that_is_refused_leaves_the_configuration_usable(audiocli: CommandLine, amount: str) -> None:
    audiocli("budget", "set", "--day", "5")

    r = audiocli("budget", "set", "--month", amount)

    assert r.code == 2 and "budget.month" in r.err
    assert audiocli("budget", "--json").json["caps"]["day"]["cap_usd"] == 5


def test_invalid_limit_in_the_configuration_can_be_cleared(audiocli: CommandLine) -> None:
    audiocli.write_config("[budget]\nday = nan\n")

    assert audiocli("usage", "--json").code == 0
    assert audiocli("budget", "clear").code == 0
    assert audiocli("budget").text == "no spending limits\n"


@pytest.mark.parametrize("name", ["ünï 語", "a b", "[x]", "noext"])
def test_unusual_name_is_transcribed(cli: CommandLine, name: str) -> None:
    path = name if name == "noext" else f"{name}.wav"

    r = cli("transcribe", path, "-f", "txt,srt")

    assert r.code == 0, r.err
    assert (cli.directory / f"{name}.srt").exists()


def test_existing_output_with_an_unknown_extension_is_used(audiocli: CommandLine) -> None:
    """As `mktemp` makes it."""
    audio, text = audiocli.directory / "tmp.aBcD", audiocli.directory / "tmp.eFgH"
    audio.touch()
    text.touch()
    (audiocli.directory / "talk.wav").write_bytes(SPEECH)

    codes = [
        audiocli("speak", "hi", "-o", audio).code,
        audiocli("transcribe", audiocli.directory / "talk.wav", "-o", text).code,
    ]

    assert codes == [0, 0] and audio.stat().st_size and text.stat().st_size
