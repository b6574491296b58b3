"""Test speakers, sounds, confidence, channels and entities of transcripts: nothing that was paid for is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audiocli.mock import Status
from audiocli.text.cues import build_cues
from audiocli.text.subtitle_formats import build_document, parse_document
from audiocli.types.transcripts import Entity, Segment, Transcript, Word
from tests.conftest import CommandLine, Result
from tests.test_transcribe import build_wav

MODEL = "openrouter:microsoft/mai-transcribe-2"
TEXT = "Good morning. Who is there? It is me."


def build_words(*, labels: tuple[object, object] | None, key: str = "speaker") -> list[dict[str, Any]]:
    """Return the words of `TEXT`, half a second each. The second speaker asks; the first one answers."""
    words: list[dict[str, Any]] = []
    for index, word in enumerate(TEXT.split()):
        item: dict[str, Any] = {"word": f" {word}", "start": index / 2, "end": index / 2 + 0.4, "confidence": 0.9}
        if labels is not None:
            item[key] = labels[2 <= index < 5]
        words.append(item)
    return words


def build_segments(*spans: tuple[int, int]) -> list[dict[str, Any]]:
    words = TEXT.split()
    return [
        {"id": number, "start": first / 2, "end": (last - 1) / 2 + 0.4, "text": " " + " ".join(words[first:last])}
        for number, (first, last) in enumerate(spans)
    ]


def transcribe(cli: CommandLine, tmp_path: Path, payload: dict[str, Any], *argv: str, format: str = "json") -> Result:
    (tmp_path / "talk.wav").write_bytes(build_wav(b"\x00\x10" * 24_000 * 10))
    cli.gateway.add_default_fault(Status(200, payload, billed=True))
    return cli("transcribe", tmp_path / "talk.wav", "-m", MODEL, "-f", format, *argv)


@pytest.mark.parametrize(("key", "labels"), [("speaker", (0, 1)), ("speaker_label", ("Ann", "Bob"))])
@pytest.mark.parametrize("spans", [(), ((0, 8),), ((0, 2), (2, 5), (5, 8)), ((0, 4), (4, 8))])
def test_speakers_on_words_are_in_every_format_with_speakers(
    audiocli: CommandLine, tmp_path: Path, key: str, labels: tuple[object, object], spans: tuple[tuple[int, int], ...]
) -> None:
    payload = {"text": TEXT, "words": build_words(labels=labels, key=key), "segments": build_segments(*spans)}
    first, second = map(str, labels)

    txt = transcribe(audiocli, tmp_path, payload, "--diarize", format="txt")
    vtt = transcribe(audiocli, tmp_path, payload, "--diarize", format="vtt")
    srt = transcribe(audiocli, tmp_path, payload, "--diarize", format="srt")
    document = transcribe(audiocli, tmp_path, payload, "--diarize", "--json").json

    assert txt.text == f"{first}: Good morning.\n{second}: Who is there?\n{first}: It is me.\n"
    assert f"<v {second}>Who is" in vtt.text
    assert f"{second}: Who is" in srt.text
    assert [word["speaker"] for word in document["words"]] == [first] * 2 + [second] * 3 + [first] * 3
    assert "".join(item["text"] + " " for item in document["segments"]).split() == TEXT.split()
    assert {item["speaker"] for item in document["segments"]} == {first, second}


def test_speaker_of_a_segment_remains_without_speakers_on_words(audiocli: CommandLine, tmp_path: Path) -> None:
    segments = [{**segment, "speaker_label": "Ann", "channel": 1} for segment in build_segments((0, 8))]

    r = transcribe(
        audiocli, tmp_path, {"text": TEXT, "words": build_words(labels=None), "segments": segments}, "--json"
    )

    assert [(item["speaker"], item["channel"]) for item in r.json["segments"]] == [("Ann", 1)]


@pytest.mark.parametrize("event", ["(laughter)", "[laughter]", "laughter"])
@pytest.mark.parametrize("is_in_text", [True, False])
def test_sound_is_not_shown_as_spoken(audiocli: CommandLine, tmp_path: Path, event: str, is_in_text: bool) -> None:
    words = build_words(labels=None)
    for word in words[5:]:
        word["start"] += 3
        word["end"] += 3
    words.insert(5, {"word": event, "start": 3.0, "end": 4.5, "type": "audio_event"})
    text = TEXT.replace("It is", f"{event} It is") if is_in_text else TEXT
    payload = {"text": text, "words": words, "segments": []}

    txt = transcribe(audiocli, tmp_path, payload, format="txt")
    srt = transcribe(audiocli, tmp_path, payload, "--timestamps", "word", format="srt")
    document = transcribe(audiocli, tmp_path, payload, "--timestamps", "word", "--json").json

    assert txt.text == TEXT + "\n"
    assert srt.text.count("[laughter]") == 1
    assert [word["word"] for word in document["words"]] == TEXT.split()
    assert document["events"] == [{"start_s": 3.0, "end_s": 4.5, "text": event}]


def test_word_that_is_also_the_name_of_a_sound_remains(audiocli: CommandLine, tmp_path: Path) -> None:
    words = build_words(labels=None)
    words.append({"word": "me", "start": 4.0, "end": 4.5, "type": "audio_event"})

    r = transcribe(audiocli, tmp_path, {"text": TEXT, "words": words, "segments": []}, format="txt")

    assert r.text == TEXT + "\n"


def test_sound_during_speech_is_no_caption() -> None:
    spoken = Transcript(TEXT, duration_s=5.0, segments=(Segment(0.0, 4.0, TEXT),))
    sounds = spoken._replace(events=(Word(1.0, 2.0, "(cough)"), Word(4.2, 4.8, "*door   closes*")))

    assert [cue.lines for cue in build_cues(sounds)] == [cue.lines for cue in build_cues(spoken)] + [("[door closes]",)]


def test_confidence_channel_and_entities_are_in_json(audiocli: CommandLine, tmp_path: Path) -> None:
    words = [{**word, "channel": 1} for word in build_words(labels=(0, 1))]
    entity = {"type": "greeting", "text": "morning", "start_char": 99, "end_char": 106}
    payload = {
        "text": f" {TEXT}", "words": words, "segments": [], "entities": [entity],
        "confidence": 0.75, "language_confidence": 1,
    }  # fmt: skip

    document = transcribe(audiocli, tmp_path, payload, "--timestamps", "word", "--json").json

    assert {(word["channel"], word["confidence"]) for word in document["words"]} == {(1, 0.9)}
    assert document["entities"] == [{"type": "greeting", "text": "morning", "start_char": 5, "end_char": 12}]
    assert document["text"][5:12] == "morning"
    assert (document["confidence"], document["language_confidence"]) == (0.75, 1.0)


def test_stored_transcript_keeps_all_details(audiocli: CommandLine, tmp_path: Path) -> None:
    words = build_words(labels=("Ann", "Bob"), key="speaker_label")
    words.append({"word": "(door)", "start": 4.2, "end": 4.6, "type": "audio_event"})
    payload = {"text": TEXT, "words": words, "segments": [], "confidence": 0.5}

    first = transcribe(audiocli, tmp_path, payload, "--json", "--timestamps", "word").json
    second = transcribe(audiocli, tmp_path, payload, "--json", "--timestamps", "word")

    assert second.posts == []
    for key in ("text", "segments", "words", "events", "confidence"):
        assert second.json[key] == first[key]


def test_document_without_details_has_no_new_keys() -> None:
    document = build_document(Transcript("Hi", segments=(Segment(0.0, 1.0, "Hi"),), words=(Word(0.0, 1.0, "Hi"),)))

    assert set(document) == {"text", "language", "duration_s", "segments", "words", "timing"}
    assert document["words"] == [{"start_s": 0.0, "end_s": 1.0, "word": "Hi"}]
    assert build_document(parse_document(document)) == document


COMPLETE = Transcript(
    "Hi there",
    language="en",
    duration_s=2.0,
    segments=(Segment(0.0, 1.0, "Hi there", "Ann", 0, 0.1, -0.2, 1.3),),
    words=(Word(0.0, 0.5, "Hi", "Ann", 0, 0.9), Word(0.5, 1.0, "there", "Ann", 0, 0.8)),
    events=(Word(1.0, 2.0, "(door)"),),
    entities=(Entity("greeting", "Hi", 0, 2),),
    confidence=0.5,
    language_confidence=0.9,
)
ODD_VALUES: list[object] = [None, True, -1, 0, 1e308, -1e308, 10**400, -(10**400), "NaN", "x", [], {}, [[]], [None]]


def list_paths(value: object) -> list[tuple[str | int, ...]]:
    """Return the path of each value within a document."""
    children: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    return [(key, *path) for key, child in children for path in ((), *list_paths(child))]


def test_odd_values_in_a_document_are_never_a_bug() -> None:
    text = json.dumps(build_document(COMPLETE))
    paths = list_paths(json.loads(text))
    for path in paths:
        for odd in ODD_VALUES:
            document = parent = json.loads(text)
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = odd

            json.dumps(build_document(parse_document(document)), allow_nan=False)

    assert len(paths) > 40
