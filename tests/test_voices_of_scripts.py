"""Several voices at the front door: one request with turns where the model takes them, else a request for each run."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiocli.mock import expected_pcm
from tests.conftest import CommandLine, Result
from tests.gateway_contract import read_warnings
from tests.test_long_speech import check_joined, read_samples

DIALOGUE = """Alice: Good morning, all of you.
Bob: Hello there, Alice.
It is late.

Carol (whispers): Be quiet, please.
Alice: Why?
"""
CAST = {"Alice": "af_heart", "Bob": "am_adam", "Carol": "bf_emma"}
RUNS = [
    ("Good morning, all of you.", "af_heart"),
    ("Hello there, Alice.\nIt is late.", "am_adam"),
    ("Be quiet, please.", "bf_emma"),
    ("Why?", "af_heart"),
]
VOICES = tuple(value for name, voice in CAST.items() for value in ("--voice-for", f"{name}={voice}"))


def speak(cli: CommandLine, text: str, *argv: str, model: str = "hexgrad/kokoro-82m", name: str = "a.txt") -> Result:
    path = cli.directory / name
    path.write_text(text, "utf-8")
    return cli("speak", "-F", path, "-m", model, "-o", cli.directory / "x.wav", "-j", "1", *argv)


def list_turns(r: Result) -> list[tuple[str, str | None]]:
    """Return the text and the voice of each request."""
    return [(request.json["input"].strip(), request.json.get("voice")) for request in r.posts]


def test_dialogue_is_a_request_for_each_run_of_a_voice(audiocli: CommandLine) -> None:
    r = speak(audiocli, DIALOGUE, *VOICES)

    assert (r.code, list_turns(r), read_warnings(r)) == (0, RUNS, []), r.err
    check_joined(read_samples(audiocli.directory / "x.wav"), [text for text, _ in RUNS])


@pytest.mark.parametrize("model", ["google/gemini-3.8-flash-tts", "fish-audio/s2.1-pro"])
def test_dialogue_is_one_request_if_the_model_takes_turns(audiocli: CommandLine, model: str) -> None:
    voices = ("--voice-for", "Alice=Kore", "--voice-for", "Bob=Puck", "--voice-for", "Carol=Zephyr")

    r = speak(audiocli, DIALOGUE, *voices, model=model)

    assert r.code == 0, r.err
    (request,) = r.posts
    assert [(turn["text"].strip(), turn["voice"]) for turn in request.json["input"]] == [
        (text, voice) for (text, _), voice in zip(RUNS, ("Kore", "Puck", "Zephyr", "Kore"), strict=True)
    ]
    assert speak(audiocli, DIALOGUE, *voices, model=model).posts == []


@pytest.mark.parametrize("argv", [("--pause", "200"), ("--captions", "{path}/x.srt"), ("--max-chars", "60")])
def test_turns_are_separate_requests_if_their_times_matter(audiocli: CommandLine, argv: tuple[str, str]) -> None:
    voices = ("--voice-for", "Alice=Kore", "--voice-for", "Bob=Puck", "--voice-for", "Carol=Zephyr")

    r = speak(audiocli, DIALOGUE, *voices, *audiocli.expand(argv), model="google/gemini-3.8-flash-tts")

    assert r.code == 0, r.err
    assert all(isinstance(request.json["input"], str) for request in r.posts)
    assert [voice for _, voice in list_turns(r)][-1] == "Kore"


def test_text_outside_the_script_has_the_default_voice(audiocli: CommandLine) -> None:
    r = speak(audiocli, "A hall.\n\n[voice: am_adam] Hello.\n\n[voice: default] They leave.", "-v", "af_bella")

    assert r.code == 0, r.err
    assert list_turns(r) == [("A hall.", "af_bella"), ("Hello.", "am_adam"), ("They leave.", "af_bella")]


def test_cast_of_the_configuration_is_used(audiocli: CommandLine) -> None:
    audiocli.write_config('[cast]\nALICE = "af_bella"\nbob = "am_adam"\n')

    r = speak(audiocli, "Alice: Hi there.\nBob: Hello.\n", "--voice-for", "Alice=bf_emma")

    assert r.code == 0, r.err
    assert list_turns(r) == [("Hi there.", "bf_emma"), ("Hello.", "am_adam")]


def test_speaker_without_a_voice_is_a_warning(audiocli: CommandLine) -> None:
    r = speak(audiocli, "Alice: Hello.\nDora: Hi.\nAlice: Well.\nDora: Bye.\n", "--voice-for", "Alice=af_heart")

    assert r.code == 0, r.err
    assert any("speakers without a voice: Dora" in warning for warning in read_warnings(r))
    assert any("Dora: Hi." in text for text, _ in list_turns(r))


@pytest.mark.parametrize("text", ["Note: this is text.\nWarning: so is this.", "At 12:30 we eat.", "[1] A source."])
def test_text_without_a_cast_has_one_voice(audiocli: CommandLine, text: str) -> None:
    r = speak(audiocli, text)

    assert (r.code, [spoken for spoken, _ in list_turns(r)], read_warnings(r)) == (0, [text], []), r.err


@pytest.mark.parametrize(
    ("text", "argv", "config"),
    [
        ("Alice: Hi.", ("--voice-for", "Alice=af_hart"), ""),
        ("Alice: Hi.", (), '[cast]\nAlice = "af_hart"\n'),
        ("Hi.\n[voice: af_hart]\nHello.", (), ""),
    ],
)
def test_unknown_voice_is_refused_before_anything_is_sent(
    audiocli: CommandLine, text: str, argv: tuple[str, ...], config: str
) -> None:
    audiocli("models")
    audiocli.write_config(config)

    r = speak(audiocli, f"Bob: First.\n{text}", "--voice-for", "Bob=am_adam", *argv)

    assert (r.code, r.posts) == (2, []), r.err
    assert "did you mean 'af_heart'?" in r.err
    assert not (audiocli.directory / "x.wav").exists()


def test_unknown_voice_that_is_not_used_is_no_error(audiocli: CommandLine) -> None:
    """A cast in the configuration serves many scripts and models."""
    audiocli("models")
    audiocli.write_config('[cast]\nAlice = "nova"\nBob = "am_adam"\n')

    r = speak(audiocli, "Bob: Hello.")

    assert (r.code, list_turns(r)) == (0, [("Hello.", "am_adam")]), r.err


@pytest.mark.parametrize("value", ["Alice", "=nova", "Alice=", " = "])
def test_malformed_voice_is_a_usage_error(audiocli: CommandLine, value: str) -> None:
    r = audiocli("speak", "x", "--voice-for", value, "-o", audiocli.directory / "x.wav")

    assert (r.code, r.posts) == (2, [])
    assert "NAME=VOICE" in r.err


# --- voices that a document names -------------------------------------------------------------------------------------

CAPTIONS = (
    "WEBVTT\n\n00:00.000 --> 00:03.000\n<v Alice>Hello there.\n\n"
    "00:03.000 --> 00:06.000\n<v Bob>Hi, Alice.\n\n00:06.000 --> 00:08.000\nThe end.\n"
)


def test_speaker_of_captions_has_the_voice_of_the_cast(audiocli: CommandLine) -> None:
    r = speak(audiocli, CAPTIONS, "--voice-for", "alice=bf_emma", "--voice-for", "Bob=am_adam", name="a.vtt")

    assert (r.code, read_warnings(r)) == (0, []), r.err
    assert list_turns(r)[:2] == [("Hello there.", "bf_emma"), ("Hi, Alice.", "am_adam")]


@pytest.mark.parametrize("argv", [(), ("--voice-for", "Bob=am_adam")])
def test_speaker_of_captions_without_a_voice_has_the_default_voice(
    audiocli: CommandLine, argv: tuple[str, ...]
) -> None:
    r = speak(audiocli, CAPTIONS, "-v", "af_bella", *argv, name="a.vtt")

    assert r.code == 0, r.err
    assert [voice for _, voice in list_turns(r)] == ["af_bella", "am_adam" if argv else "af_bella", "af_bella"]
    names = "Alice" if argv else "Alice, Bob"
    assert read_warnings(r) == [
        f"speakers without a voice: {names}; they have the default voice; use --voice-for NAME=VOICE"
    ]


def test_voices_of_ssml_are_voices_or_speakers(audiocli: CommandLine) -> None:
    text = '<speak><voice name="am_adam">One.</voice><voice name="Alice">Two.</voice></speak>'

    r = speak(audiocli, text, "--voice-for", "Alice=bf_emma", name="a.ssml")

    assert (r.code, list_turns(r)) == (0, [("One.", "am_adam"), ("Two.", "bf_emma")]), r.err


def test_unknown_voice_of_ssml_is_refused(audiocli: CommandLine) -> None:
    audiocli("models")

    r = speak(audiocli, '<speak><voice name="am_adamm">One.</voice></speak>', name="a.ssml")

    assert (r.code, r.posts) == (2, []), r.err
    assert "did you mean 'am_adam'?" in r.err


def test_voices_of_rows_are_not_those_of_other_rows(audiocli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,voice\nHello there.,am_adam\nHello there.,bf_emma\nAlice: hi.,\n")
    argv = ("-O", tmp_path / "out", "-f", "wav", "-j", "1", "-m", "hexgrad/kokoro-82m", "--voice-for", "Alice=af_bella")

    r = audiocli("speak", "-F", path, *argv)

    assert r.code == 0, r.err
    assert list_turns(r) == [("Hello there.", "am_adam"), ("Hello there.", "bf_emma"), ("hi.", "af_bella")]


def test_unknown_voice_of_a_script_in_rows_is_refused(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli("models")
    path = tmp_path / "rows.csv"
    path.write_text('text\nHello.\n"[voice: af_hart] Hi."\n')

    r = audiocli("speak", "-F", path, "-O", tmp_path / "out", "-m", "hexgrad/kokoro-82m")

    assert (r.code, r.posts) == (2, []), r.err
    assert "did you mean 'af_heart'?" in r.err


def test_same_words_in_two_voices_are_two_requests(audiocli: CommandLine) -> None:
    r = speak(audiocli, "Alice: Yes, I do.\nBob: Yes, I do.\nAlice: Yes, I do.\n", *VOICES)

    assert (r.code, [voice for _, voice in list_turns(r)]) == (0, ["af_heart", "am_adam"]), r.err
    assert read_samples(audiocli.directory / "x.wav")[: 2 * 1440] == expected_pcm("Yes, I do.")[: 2 * 1440]
