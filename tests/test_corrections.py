"""Corrections replace whole words when a transcript is written. Words keep their times, and nothing is sent again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiocli.errors import UsageError
from audiocli.text.corrections import Corrections
from audiocli.types.transcripts import Entity, Segment, Transcript, Word
from tests.conftest import CommandLine
from tests.test_batch import write_recording
from tests.test_output_formats import get_states

MODEL = "openrouter:openai/whisper-large-v3"
RULES = {
    "api": "API",
    "color": "colour",
    "pie torch": "PyTorch",
    "audiocli": "audio cli",
    "um": "",
    "Jon": "John",
    "/(\\d+) percent/": "\\1 %",
}


def build_words(text: str, *, has_spaces: bool = False) -> tuple[Word, ...]:
    prefix = " " if has_spaces else ""
    return tuple(
        Word(float(i), i + 0.9, prefix + word, confidence=0.9 - i / 100) for i, word in enumerate(text.split())
    )


@pytest.mark.parametrize(
    ("text", "corrected"),
    [
        ("the api, Api and apis", "the API, API and apis"),
        ("Color, color! COLOR?", "Colour, colour! COLOUR?"),
        ("Pie  torch and pie\ntorch", "PyTorch and PyTorch"),
        ("Jon and JON", "John and JON"),
        ("So, um we um go", "So, we go"),
        ("50 percent", "50 %"),
        ("capital colored", "capital colored"),
    ],
)
def test_whole_words_are_replaced_with_the_capitals_of_the_text(text: str, corrected: str) -> None:
    assert Corrections.from_mapping(RULES, "x").correct_text(text, None) == corrected


@pytest.mark.parametrize("has_spaces", [False, True])
def test_words_keep_their_times(has_spaces: bool) -> None:
    text = "The api, pie torch! Um audiocli 50 percent."
    transcript = Transcript(text, "en", 9.0, (Segment(0.0, 7.9, text),), build_words(text, has_spaces=has_spaces))

    corrected = Corrections.from_mapping(RULES, "x").correct(transcript)

    assert [(word.text.strip(), round(word.start_s, 2), round(word.end_s, 2)) for word in corrected.words] == [
        *(("The", 0, 0.9), ("API,", 1, 1.9), ("PyTorch!", 2, 3.9), ("audio", 5, 5.56), ("cli", 5.56, 5.9)),
        *(("50", 6, 6.9), ("%.", 7, 7.9)),
    ]
    assert corrected.words[2].confidence == pytest.approx(0.87)
    assert corrected.text == corrected.segments[0].text == "The API, PyTorch! audio cli 50 %."
    assert all(word.text.startswith(" ") == has_spaces for word in corrected.words)


def test_entities_are_found_in_the_corrected_text() -> None:
    transcript = Transcript("Ask Jon now.", entities=(Entity("person", "Jon", 4, 7),))

    [entity] = Corrections.from_mapping(RULES, "x").correct(transcript).entities

    assert entity == Entity("person", "John", 4, 8)


WORDS = st.sampled_from(
    ["api", "Api,", "pie", "torch", "Torch.", "color", "um", "50", "percent", "Jon", "是的", "audiocli!"]
)


@given(st.lists(WORDS, max_size=20), st.booleans())
def test_words_and_text_are_corrected_alike(words: list[str], has_spaces: bool) -> None:
    text = " ".join(words)
    transcript = Transcript(text, words=build_words(text, has_spaces=has_spaces))

    corrected = Corrections.from_mapping(RULES, "x").correct(transcript)

    if "是的" not in words:  # spaces between words of such scripts are no part of the words
        assert " ".join(word.text.strip() for word in corrected.words).split() == corrected.text.split()
    starts = [word.start_s for word in corrected.words]
    assert starts == sorted(starts) and all(word.start_s < word.end_s for word in corrected.words)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "api", "a.txt, line 1: 'api' has no ="),
        ("a.txt", "a = b\na = c", "a.txt, line 2: 'a' already has a correction in line 1"),
        ("a.toml", "a = 1", "a.toml, line 1: the correction of 'a' is not a string"),
        ("a.csv", "from,to,language\na,b,xx", "a.csv, line 2: unknown language 'xx'"),
    ],
)
def test_invalid_files_are_usage_errors(name: str, content: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        Corrections.parse_file(content.encode(), name)

    assert raised.value.message == message


def test_header_of_csv_is_no_rule() -> None:
    assert Corrections.parse_file(b"from,to\napi,API\n", "a.csv").correct_text("from api", None) == "from API"


def test_file_and_configuration_are_applied_without_a_request(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.set_transcript("The api of open ai. Api!")
    path = write_recording(tmp_path / "talk.wav")
    original = audiocli("transcribe", path, "-m", MODEL)
    audiocli.write_config('[corrections]\napi = "API"\n"open ai" = "Open AI"\n[corrections.de]\nof = "von"\n')
    (tmp_path / "rules.csv").write_text("from,to\nopen ai,OpenAI\n")

    configured = audiocli("transcribe", path, "-m", MODEL)
    both = audiocli("transcribe", path, "-m", MODEL, "--corrections", tmp_path / "rules.csv", "--json")
    srt = audiocli("transcribe", path, "-m", MODEL, "--corrections", tmp_path / "rules.csv", "-f", "json,txt")

    assert original.text == "The api of open ai. Api!\n"
    assert configured.text == "The API of Open AI. API!\n"
    assert both.json["text"] == "The API of OpenAI. API!"
    assert [segment["text"] for segment in both.json["segments"]] == ["The API of OpenAI.", "API!"]
    assert (len(original.posts), configured.requests, srt.requests) == (1, [], [])
    assert (tmp_path / "talk.txt").read_text() == "The API of OpenAI. API!\n"


def test_batch_writes_again_if_a_correction_changes(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.set_transcript("The api.")
    write_recording(tmp_path / "talks" / "talk.wav")
    rules = tmp_path / "rules.txt"
    rules.write_text("api = API\n")
    command = ("transcribe", tmp_path / "talks", "-m", MODEL, "--corrections", rules)
    audiocli(*command)
    current = audiocli(*command, "--verify-only", "--json")

    rules.write_text("api = interface\n")
    stale = audiocli(*command, "--verify-only", "--json")
    r = audiocli(*command)

    assert (get_states(current), get_states(stale)) == ({".txt": "current"}, {".txt": "stale"})
    assert (r.code, r.requests) == (0, [])
    assert (tmp_path / "talks" / "talk.txt").read_text() == "The interface.\n"


def test_missing_file_is_an_error_before_anything_is_sent(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("transcribe", write_recording(tmp_path / "a.wav"), "-m", MODEL, "--corrections", tmp_path / "none.txt")

    assert (r.code, r.posts) == (2, [])
