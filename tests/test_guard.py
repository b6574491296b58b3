"""Passages that a model may have made up are reported with their times and never changed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiocli.mock import Status
from audiocli.text.guard import NO_EVIDENCE, Evidence, find_suspicions, list_warnings
from audiocli.types.transcripts import Segment, Transcript
from tests.conftest import CommandLine, Result
from tests.test_output_formats import TEXTS
from tests.test_transcribe import build_wav

MODEL = "openrouter:openai/whisper-large-v3"
LOUD, SILENT = b"\x00\x10" * 24_000, bytes(48_000)


def build_transcript(*texts: str, **fields: Any) -> Transcript:
    """Return a transcript with a segment of five seconds for each text."""
    segments = tuple(Segment(5.0 * i, 5.0 * i + 5, text, **fields) for i, text in enumerate(texts))
    return Transcript("", segments=segments, duration_s=5.0 * len(texts))


def list_kinds(transcript: Transcript, evidence: Evidence = NO_EVIDENCE) -> list[str]:
    return [suspicion.kind for suspicion in find_suspicions(transcript, evidence)]


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ("I know. " * 12, 12),
        ("you " * 20, 20),
        ("and then we went home again, " * 9, 9),
        ("是的。" * 15, 15),
        ("So the first thing that we want to look at is the number of people who came, and " * 5, 5),
    ],
)
def test_loops_are_reported_with_their_number(text: str, repeats: int) -> None:
    [suspicion] = find_suspicions(build_transcript("This is the beginning.", text, "This is the end of the talk."))

    assert (suspicion.kind, suspicion.repeats) == ("loop", repeats)
    assert suspicion.start_s == pytest.approx(5, abs=0.1) and suspicion.end_s == pytest.approx(10, abs=0.6)


@pytest.mark.parametrize(
    "text", ["No, no, no, no, no!", "Very, very good.", "1 1 1 1 1 1 1 1 1 1 1 1", "Ha ha ha ha ha."]
)
def test_what_people_repeat_is_not_a_loop(text: str) -> None:
    assert list_kinds(build_transcript(text)) == []


def test_channels_are_checked_separately() -> None:
    calm = "We will see what the weather does on Monday."
    loop = "and then we went home again,"
    same = [Segment(0, 5, calm, channel=channel) for channel in range(6)]
    turns = [Segment(i, i + 1, text, channel=c) for i in range(9) for c, text in enumerate((loop, f"Question {i}?"))]

    assert list_kinds(Transcript("", segments=tuple(same))) == []
    [suspicion] = find_suspicions(Transcript("", segments=tuple(turns)))
    assert (suspicion.kind, suspicion.repeats, suspicion.start_s, suspicion.end_s) == ("loop", 9, 0, 9)


def test_compression_ratio_of_the_model_counts() -> None:
    text = "A text of more than a hundred letters in which we see nothing suspicious ourselves, but the model does."

    assert list_kinds(build_transcript(text, compression_ratio=2.5)) == ["loop"]
    assert list_kinds(build_transcript(text, compression_ratio=2.3)) == []


@pytest.mark.parametrize(
    "text",
    ["Untertitel im Auftrag des ZDF, 2020", "Sous-titres réalisés para la communauté d'Amara.org", "字幕by索兰娅"],
)
def test_credits_are_reported_anywhere(text: str) -> None:
    [suspicion] = find_suspicions(build_transcript(f"And so we go home {text}"))

    assert suspicion.kind == "phrase" and suspicion.text.startswith(text.split(",")[0])


@pytest.mark.parametrize(
    ("evidence", "no_speech_prob", "kinds"),
    [
        (Evidence(), None, []),
        (Evidence(), 0.7, ["phrase"]),
        (Evidence(silences_s=((4.5, 11.0),)), None, ["phrase"]),
        (Evidence(silences_s=((8.0, 11.0),)), None, []),
        (Evidence(speechless_s=((5.0, 10.0),)), None, ["phrase"]),
    ],
)
def test_closing_phrase_needs_evidence(evidence: Evidence, no_speech_prob: float | None, kinds: list[str]) -> None:
    transcript = build_transcript("Hello.", "Thanks for watching!", no_speech_prob=no_speech_prob)

    assert list_kinds(transcript, evidence) == kinds


def test_silent_sentences_in_a_row_are_one_finding() -> None:
    transcript = build_transcript("We begin.", "This is invented.", "This is, too.", "We go on.")

    [suspicion] = find_suspicions(transcript, Evidence(silences_s=((4.9, 15.2),)))

    assert (suspicion.kind, suspicion.start_s, suspicion.end_s) == ("silence", 5.0, 15.0)
    assert suspicion.text == "This is invented. This is, too."


def test_segment_that_extends_into_silence_is_not_reported() -> None:
    assert list_kinds(build_transcript("This was said at once."), Evidence(silences_s=((1.2, 5.0),))) == []


@given(st.lists(TEXTS, max_size=4), st.lists(st.floats(0, 30), max_size=6))
def test_any_text_and_any_silence_gives_findings_in_order(texts: list[str], bounds: list[float]) -> None:
    silences = tuple(zip(sorted(bounds)[::2], sorted(bounds)[1::2], strict=False))

    found = find_suspicions(build_transcript(*texts), Evidence(silences))

    starts = [suspicion.start_s or 0.0 for suspicion in found]
    assert starts == sorted(starts) and all(math.isfinite(start) for start in starts)
    assert len(list_warnings(found)) == len({suspicion.kind for suspicion in found})


# --- command line ----------------------------------------------------------------------------------------------------


def transcribe(cli: CommandLine, path: Path, audio: bytes, *argv: str | Path) -> Result:
    """Transcribe a recording of ten seconds. The second half of the transcript is a closing phrase."""
    path.write_bytes(build_wav(audio))
    segments = [{"start": 0, "end": 4.8, "text": " Good morning."}, {"start": 5.5, "end": 9, "text": " Thank you."}]
    payload = {"text": "Good morning. Thank you.", "segments": segments}
    cli.gateway.add_default_fault(Status(200, payload, billed=True))
    return cli("transcribe", path, "-m", MODEL, *argv)


def test_text_over_silence_is_reported_and_stored(audiocli: CommandLine, tmp_path: Path) -> None:
    audio = LOUD * 5 + SILENT * 5

    first = transcribe(audiocli, tmp_path / "talk.wav", audio, "--json")
    again = transcribe(audiocli, tmp_path / "talk.wav", audio, "--json")
    off = transcribe(audiocli, tmp_path / "talk.wav", audio, "--json", "--guard", "off")
    document = transcribe(audiocli, tmp_path / "talk.wav", audio, "-f", "md", "--with", "times")

    finding = {"kind": "phrase", "start_s": 5.5, "end_s": 9.0, "text": "Thank you."}
    assert first.json["quality"] == again.json["quality"] == {"findings": [finding]}
    [warning] = again.json["warnings"]
    assert warning.startswith(
        "the transcript has phrases that models add where there is no speech (0:00:05 to 0:00:09)"
    )
    assert first.json["text"] == "Good morning. Thank you."
    assert "quality" not in off.json and off.json["warnings"] == []
    assert (again.requests, off.requests, document.requests) == ([], [], [])
    assert document.text.count("\u26a0") == 1 and "> - 0:00:05 to 0:00:09: " in document.text
    assert first.code == again.code == 0


def test_closing_phrase_over_steady_sound_is_reported(audiocli: CommandLine, tmp_path: Path) -> None:
    r = transcribe(audiocli, tmp_path / "talk.wav", LOUD * 10, "--json")

    assert [finding["kind"] for finding in r.json["quality"]["findings"]] == ["phrase"]


def test_closing_phrase_between_pauses_is_not_reported(audiocli: CommandLine, tmp_path: Path) -> None:
    audio = LOUD * 4 + SILENT * 2 + LOUD + SILENT * 3

    r = transcribe(audiocli, tmp_path / "talk.wav", audio, "--json")

    assert (r.code, r.json["segments"][1]["text"], r.json["warnings"]) == (0, "Thank you.", [])
    assert "quality" not in r.json


def test_batch_reports_each_recording(audiocli: CommandLine, tmp_path: Path) -> None:
    transcribe(audiocli, tmp_path / "talk.wav", LOUD * 5 + SILENT * 5, "-n")

    r = audiocli("transcribe", tmp_path, "-m", MODEL, "--json")
    html = audiocli("transcribe", tmp_path, "-m", MODEL, "-f", "html")

    assert "phrases that models add" in r.text and r.code == 0
    finding = {"kind": "phrase", "start_s": 5.5, "end_s": 9.0, "text": "Thank you."}
    assert json.loads(r.text.splitlines()[0])["quality"] == {"findings": [finding]}
    assert html.requests == [] and "Models add such phrases" in (tmp_path / "talk.html").read_text("utf-8")


def test_unknown_mode_is_refused(audiocli: CommandLine, tmp_path: Path) -> None:
    r = transcribe(audiocli, tmp_path / "talk.wav", LOUD, "--guard", "worn")

    assert (r.code, r.posts) == (2, [])
    assert "--guard worn: must be warn or off; did you mean 'warn'?" in r.err


def test_measures_of_the_model_stay_in_json(audiocli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(build_wav(LOUD * 2))

    r = audiocli("transcribe", tmp_path / "talk.wav", "-m", MODEL, "--json")

    [segment] = r.json["segments"]
    assert (segment["no_speech_prob"], segment["avg_logprob"], segment["compression_ratio"]) == (0.01, -0.25, 0.9)
