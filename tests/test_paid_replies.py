"""What follows a paid reply: its text reaches the user, it is stored, and later runs send nothing and end the same."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pysubs2
import pytest

from audiocli.mock import CutAfter, Empty, Garbage, NoFault, Status, expected_pcm
from tests import signals
from tests.conftest import CommandLine, Result
from tests.gateway_contract import build_wav
from tests.recordings import make_recording
from tests.requirements import skip_without_namespaces
from tests.test_processes import Program
from tests.test_processes import program as program

SPOKEN = "One two three four five. Six seven eight nine ten. Eleven twelve thirteen fourteen fifteen."
SENTENCES = re.findall(r"[^.]+\.", SPOKEN)
FORMATS = ("txt", "srt", "vtt", "tsv", "json")
MODEL = ("-m", "openrouter:openai/whisper-1")


def segment(start: Any, end: Any, text: str = SPOKEN, **fields: Any) -> dict[str, Any]:
    return {"start": start, "end": end, "text": text, **fields}


def build_segments(*times: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [segment(start, end, text.strip()) for (start, end), text in zip(times, SENTENCES, strict=False)]


WORDS = [{"word": word, "start": 0.3 * index, "end": 0.3 * index + 0.2} for index, word in enumerate(SPOKEN.split())]
THREE = build_segments((0, 1.5), (1.5, 3), (3, 5))
NAN, INF = float("nan"), float("inf")

# Replies as gateways send them: JSON in UTF-8 unless they are bytes.
REPLIES: dict[str, Any] = {
    "text only": {"text": SPOKEN},
    "segments null": {"text": SPOKEN, "segments": None},
    "segments empty": {"text": SPOKEN, "segments": []},
    "segments are a text": {"text": SPOKEN, "segments": "none"},
    "segments are an object": {"text": SPOKEN, "segments": {"0": THREE[0]}},
    "segments are a number": {"text": SPOKEN, "segments": 3},
    "segments are texts": {"text": SPOKEN, "segments": [sentence.strip() for sentence in SENTENCES]},
    "segments of the first third": {"text": SPOKEN, "segments": THREE[:1]},
    "segments of 60 %": {"text": SPOKEN, "segments": THREE[:2], "duration": 3},
    "segments of the end": {"text": SPOKEN, "segments": THREE[2:]},
    "a gap between segments": {"text": SPOKEN, "segments": [THREE[0], THREE[2]]},
    "a gap without time": {"text": SPOKEN, "segments": [THREE[0], {**THREE[2], "start": 1.5}]},
    "95 % of the text": {"text": f"{SPOKEN} Bye now", "segments": THREE},
    "times null": {"text": SPOKEN, "segments": build_segments((None, None), (None, None), (None, None))},
    "some times null": {"text": SPOKEN, "segments": build_segments((0, 1.5), (None, None), (3, None))},
    "times missing": {"text": SPOKEN, "segments": [{"text": SPOKEN}]},
    "times NaN": {"text": SPOKEN, "segments": build_segments((NAN, NAN), (NAN, NAN), (NAN, NAN))},
    "times infinite": {"text": SPOKEN, "segments": build_segments((0, INF), (-INF, 3), (3, 5))},
    "times zero": {"text": SPOKEN, "segments": build_segments((0, 0), (0, 0), (0, 0))},
    "times negative": {"text": SPOKEN, "segments": build_segments((-5, -4), (-3, -2), (0, 5))},
    "times huge": {"text": SPOKEN, "segments": build_segments((1e12, 1e13), (1e300, 1e308), (3, 5))},
    "times as texts": {"text": SPOKEN, "segments": build_segments(("0", "1.5"), ("1.5", "3"), ("3,0", "5 s"))},
    "times as clocks": {"text": SPOKEN, "segments": build_segments(("00:00:00,500", "00:00:02,500"), ("2.5", "00:03"))},
    "times of other types": {"text": SPOKEN, "segments": build_segments(("soon", []), ({}, True), ("a:b", "1:2:3:4"))},
    "times backward": {"text": SPOKEN, "segments": build_segments((4, 5), (2, 3), (0, 1))},
    "ends before starts": {"text": SPOKEN, "segments": build_segments((1.5, 0), (3, 1.5), (5, 3))},
    "segments overlap": {"text": SPOKEN, "segments": build_segments((0, 4), (1, 5), (0, 5))},
    "segments reversed": {"text": SPOKEN, "segments": THREE[::-1]},
    "segments without text": {"text": "", "segments": THREE},
    "segments only": {"segments": THREE},
    "words only": {"text": SPOKEN, "words": WORDS},
    "words without text": {"words": WORDS},
    "words of 40 %": {"text": SPOKEN, "words": WORDS[:6]},
    "words of another text": {"text": SPOKEN, "words": [{"word": "la", "start": 0, "end": 1}]},
    "words without times": {"text": SPOKEN, "words": [{"word": word} for word in SPOKEN.split()]},
    "extra fields": {"text": SPOKEN, "segments": [{**THREE[0], "id": "x", "tokens": [{}]}, *THREE[1:]], "x": [[]]},
    "a list of segments": THREE,
    "lone surrogates": json.dumps({"text": f"\ud800{SPOKEN}\udfff", "segments": THREE}).encode(),
    "unicode": {"text": f"{SPOKEN} 你好 नमस्ते 👩‍👩‍👧 \u202eabc e\u0301", "segments": THREE},
    "a byte order mark": {"text": f"\ufeff{SPOKEN}", "segments": THREE},
    "a megabyte of text": {"text": " ".join([SPOKEN] * 11_000)},
    "plain text": SPOKEN.encode(),
    "plain text in Windows-1252": f"{SPOKEN} caf\xe9".encode("cp1252"),
}


def build_reply(reply: Any) -> Garbage:
    is_text = isinstance(reply, bytes) and not reply.startswith(b"{")
    body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    return Garbage(body, "text/plain" if is_text else "application/json")


def find_words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{3,}", text)


def read_captions(path: Path) -> list[str]:
    """Return the words of captions, in order of their times."""
    if path.suffix == ".tsv":
        return find_words(path.read_text("utf-8").partition("\n")[2])
    return find_words(" ".join(event.plaintext for event in pysubs2.load(str(path))))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    path.write_bytes(build_wav(expected_pcm(SPOKEN)))
    return path


def run_three_times(audiocli: CommandLine, *argv: str | Path, stdin: bytes | None = None) -> list[Result]:
    """Run a command three times; only the first run may send a request."""
    results = [audiocli(*argv, stdin=stdin) for _ in range(3)]
    assert [len(r.posts) for r in results] == [1, 0, 0], results[1].err
    assert len({r.code for r in results}) == 1, [r.code for r in results]
    return results


# --- odd replies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPLIES)
def test_text_of_an_odd_reply_is_in_every_output_and_paid_for_once(
    audiocli: CommandLine, recording: Path, tmp_path: Path, name: str
) -> None:
    audiocli.gateway.queue_faults(build_reply(REPLIES[name]))
    out = tmp_path / "out"
    # Captions of a megabyte take seconds.
    formats = ("txt", "json") if name == "a megabyte of text" else FORMATS
    argv = ("transcribe", recording, "-O", out, "-f", ",".join(formats), *MODEL)

    first = audiocli(*argv)
    contents = {path.name: path.read_bytes() for path in out.iterdir()}
    second, third = audiocli(*argv), audiocli(*argv)

    assert [first.code, second.code, third.code] == [0, 0, 0], first.err + second.err
    assert [len(r.posts) for r in (first, second, third)] == [1, 0, 0]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == contents
    words = find_words(SPOKEN) * (11_000 if name == "a megabyte of text" else 1)
    texts = [(out / "talk.txt").read_text("utf-8"), json.loads((out / "talk.json").read_bytes())["text"]]
    for text in texts:
        assert find_words(text)[: len(words)] == words
    for format in set(formats) & {"srt", "vtt", "tsv"}:
        # Captions are in order of their times, which these replies may contradict.
        assert not Counter(words) - Counter(read_captions(out / f"talk.{format}"))


@pytest.mark.parametrize("name", ["text only", "segments of 60 %", "times null", "words of 40 %", "segments only"])
def test_odd_reply_of_a_directory_is_paid_for_once(audiocli: CommandLine, recording: Path, name: str) -> None:
    audiocli.gateway.queue_faults(build_reply(REPLIES[name]))

    results = run_three_times(audiocli, "transcribe", recording.parent, "-f", "srt,txt", *MODEL)

    assert results[0].code == 0, results[0].err
    assert find_words(recording.with_suffix(".txt").read_text()) == find_words(SPOKEN)
    assert read_captions(recording.with_suffix(".srt")) == find_words(SPOKEN)


@pytest.mark.parametrize("format", FORMATS)
def test_odd_reply_on_stdout_is_paid_for_once(audiocli: CommandLine, recording: Path, format: str) -> None:
    audiocli.gateway.queue_faults(build_reply(REPLIES["segments of 60 %"]))

    results = run_three_times(audiocli, "transcribe", "-", "-f", format, *MODEL, stdin=recording.read_bytes())

    assert len({r.out for r in results}) == 1 and set(find_words(SPOKEN)) <= set(find_words(results[0].text))


def test_text_without_times_fills_the_time_that_is_left(audiocli: CommandLine, recording: Path) -> None:
    audiocli.gateway.queue_faults(build_reply({"text": SPOKEN, "segments": [THREE[0], THREE[2]]}))

    r = audiocli("transcribe", recording, "--json", *MODEL)

    assert [(part["start_s"], part["end_s"]) for part in r.json["segments"]] == [(0, 1.5), (1.5, 3), (3, 5)]
    assert [part["text"] for part in r.json["segments"]] == [sentence.strip() for sentence in SENTENCES]
    assert any("no timestamps for a part of the text" in warning for warning in r.json["warnings"])


def test_clock_times_are_parsed(audiocli: CommandLine, recording: Path) -> None:
    segments = build_segments(("00:00:00,500", "00:00:02,500"), ("2.5", "0:03"), ("3,25", 5))
    audiocli.gateway.queue_faults(build_reply({"text": SPOKEN, "segments": segments}))

    r = audiocli("transcribe", recording, "--json", *MODEL)

    assert [(part["start_s"], part["end_s"]) for part in r.json["segments"]] == [(0.5, 2.5), (2.5, 3), (3.25, 5)]


# --- missing timestamps ----------------------------------------------------------------------------------------------


def test_model_without_timestamps_is_remembered_for_other_recordings(
    audiocli: CommandLine, recording: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(build_wav(expected_pcm("Another one is longer than twelve seconds. " * 6)))
    audiocli.gateway.queue_faults(build_reply({"text": SPOKEN}))
    argv = ("-f", "srt", "--json", *MODEL)

    first, again, next_one = (audiocli("transcribe", path, *argv) for path in (recording, recording, other))

    assert (first.json["timing"], again.json["timing"]) == ("none", "none")
    assert any("the times of captions are estimated" in warning for warning in again.json["warnings"])
    assert (next_one.code, next_one.json["timing"], len(next_one.posts)) == (0, "chunk", 2), next_one.err
    assert not again.posts


def test_batch_times_captions_by_chunk_after_a_reply_without_timestamps(audiocli: CommandLine, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.wav").write_bytes(build_wav(expected_pcm(f"Recording {number}. " * 20)))
    audiocli.gateway.queue_faults(build_reply({"text": SPOKEN}))
    argv = ("transcribe", tmp_path, "-f", "srt", "-j", "1", "--fail-fast", *MODEL)

    first, second = audiocli(*argv), audiocli(*argv)

    assert (first.code, second.code, second.posts) == (0, 0, []), first.err
    assert len(first.posts) > 3 and "timed by chunk" in first.err
    assert read_captions(tmp_path / "0.srt") == find_words(SPOKEN)


@pytest.mark.parametrize("is_batch", [False, True])
def test_strict_timestamps_fail_in_the_same_way_and_text_is_stored(
    audiocli: CommandLine, recording: Path, is_batch: bool
) -> None:
    audiocli.gateway.queue_faults(build_reply({"text": SPOKEN}))
    source = recording.parent if is_batch else recording

    results = run_three_times(audiocli, "transcribe", source, "-f", "srt,txt", "--strict-timestamps", *MODEL)
    accepted = audiocli("transcribe", source, "-f", "srt,txt", *MODEL)

    assert results[0].code == (3 if is_batch else 9), results[0].err
    assert "200 without the requested timestamps" in results[2].err
    assert recording.with_suffix(".txt").read_text() == f"{SPOKEN}\n"
    assert (accepted.code, accepted.posts) == (0, [])
    assert read_captions(recording.with_suffix(".srt")) == find_words(SPOKEN)


# --- empty transcripts -----------------------------------------------------------------------------------------------


def write_sound(path: Path, *, has_speech: bool) -> Path:
    samples = signals.make_speech(3) if has_speech else signals.NOT_SPEECH["melody with vibrato"]()
    path.write_bytes(build_wav(signals.to_samples(samples), rate_hz=signals.RATE_HZ))
    return path


@pytest.mark.parametrize("options", [(), ("-f", "srt"), ("--json",)])
def test_recording_without_speech_may_have_an_empty_transcript(
    audiocli: CommandLine, tmp_path: Path, options: tuple[str, ...]
) -> None:
    music = write_sound(tmp_path / "music.wav", has_speech=False)
    audiocli.gateway.set_transcript("")

    results = run_three_times(audiocli, "transcribe", music, *MODEL, *options)

    assert results[0].code == 0, results[0].err
    for r in results:
        warnings = r.json["warnings"] if "--json" in options else [r.err]
        assert any("no speech in the recording; the transcript is empty" in warning for warning in warnings)


def test_recording_without_speech_of_a_directory_gets_an_empty_output(audiocli: CommandLine, tmp_path: Path) -> None:
    write_sound(tmp_path / "music.wav", has_speech=False)
    audiocli.gateway.set_transcript("")

    results = run_three_times(audiocli, "transcribe", tmp_path, *MODEL)

    assert (results[0].code, (tmp_path / "music.txt").read_bytes()) == (0, b"")


def test_empty_transcript_of_speech_is_the_same_error_until_it_is_retried(
    audiocli: CommandLine, tmp_path: Path
) -> None:
    speech = write_sound(tmp_path / "speech.wav", has_speech=True)
    audiocli.gateway.set_transcript("")
    argv = ("transcribe", speech, "-o", tmp_path / "out.txt", *MODEL)

    results = run_three_times(audiocli, *argv)
    audiocli.gateway.set_transcript("Now it has a text.")
    retried, again = audiocli(*argv, "--retry-failed"), audiocli(*argv)

    assert (results[0].code, {r.err for r in results}) == (9, {results[0].err})
    assert "--allow-empty" in results[0].err
    assert (retried.code, len(retried.posts), again.code, again.posts) == (0, 1, 0, []), retried.err
    assert (tmp_path / "out.txt").read_text() == "Now it has a text.\n"


def test_empty_transcript_of_speech_in_a_directory_is_stored(audiocli: CommandLine, tmp_path: Path) -> None:
    write_sound(tmp_path / "speech.wav", has_speech=True)
    audiocli.gateway.set_transcript("")

    results = run_three_times(audiocli, "transcribe", tmp_path, *MODEL, "--json")
    allowed, afterwards = (
        audiocli("transcribe", tmp_path, *MODEL, "--allow-empty"),
        audiocli("transcribe", tmp_path, *MODEL),
    )

    lines = [[json.loads(line) for line in r.out.splitlines()] for r in results]
    assert (results[0].code, {line[0]["error"]["exit"] for line in lines}) == (3, {9})
    assert len({line[0]["error"]["message"] for line in lines}) == 1
    assert (allowed.code, allowed.posts, (tmp_path / "speech.txt").read_bytes()) == (0, [], b""), allowed.err
    assert (afterwards.code, afterwards.posts) == (0, [])


@pytest.mark.parametrize("is_first_run", [True, False])
def test_allow_empty_accepts_an_empty_transcript_for_all_later_runs(
    audiocli: CommandLine, tmp_path: Path, is_first_run: bool
) -> None:
    speech = write_sound(tmp_path / "speech.wav", has_speech=True)
    audiocli.gateway.set_transcript("")
    argv = ("transcribe", speech, "-o", tmp_path / "out.txt", *MODEL)
    if not is_first_run:
        assert audiocli(*argv).code == 9

    allowed, afterwards = audiocli(*argv, "--allow-empty"), audiocli(*argv)

    assert (allowed.code, len(allowed.posts)) == (0, int(is_first_run)), allowed.err
    assert (afterwards.code, afterwards.posts, (tmp_path / "out.txt").read_bytes()) == (0, [], b"")


def test_empty_transcript_of_speech_falls_back_to_another_model_once(audiocli: CommandLine, tmp_path: Path) -> None:
    speech = write_sound(tmp_path / "speech.wav", has_speech=True)
    audiocli.gateway.queue_faults(build_reply({"text": ""}))
    argv = ("transcribe", speech, *MODEL, "-m", "openrouter:openai/whisper-large-v3")

    first, second = audiocli(*argv), audiocli(*argv)

    assert (first.code, len(first.posts), second.code, second.posts) == (0, 2, 0, []), first.err
    assert first.out == second.out != b""


# --- partial transcripts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize("options", [(), ("--max-chunk", "4")])
def test_truncated_recording_is_partial_until_it_is_accepted(
    audiocli: CommandLine, tmp_path: Path, is_batch: bool, options: tuple[str, ...]
) -> None:
    content = make_recording("flac", 6.0)
    path = tmp_path / "in" / "cut.flac"
    path.parent.mkdir()
    path.write_bytes(content[: len(content) * 6 // 10])
    argv = ("transcribe", path.parent if is_batch else path, "-f", "txt", "-O", tmp_path / "out", *MODEL, *options)

    results = [audiocli(*argv) for _ in range(3)]
    accepted, afterwards = audiocli(*argv, "--accept-partial"), audiocli(*argv)

    assert [r.code for r in results] == [3, 3, 3], results[0].err
    assert [bool(r.posts) for r in (*results, accepted, afterwards)] == [True, False, False, False, False]
    reasons = {
        match[0] for r in results if (match := re.search(r"the recording breaks off after [\d.]+ s[^;]*", r.err))
    }
    assert len(reasons) == 1 and all("breaks off" in r.err for r in results)
    assert (accepted.code, afterwards.code) == (0, 0), accepted.err
    assert (tmp_path / "out" / "cut.txt").read_text()


def test_partial_result_is_described_in_json(audiocli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    content = make_recording("flac", 6.0)
    path.write_bytes(content[: len(content) // 2])

    results = [audiocli("transcribe", path, "--json", *MODEL) for _ in range(2)]

    assert [(r.code, r.json["is_partial"]) for r in results] == [(3, True)] * 2
    assert results[0].json["partial_reason"] == results[1].json["partial_reason"]
    assert results[1].json["partial_reason"] in results[1].json["warnings"]
    assert (results[1].json["requests"], results[1].json["cost_usd"]) == (0, 0)


@pytest.fixture
def long_recording(tmp_path: Path) -> Path:
    """Four sentences of three seconds with a second of silence after each: a chunk each with --max-chunk 4."""
    path = tmp_path / "long.wav"
    path.write_bytes(build_wav(b"".join(expected_pcm("x" * 50) + bytes(48_000) for _ in range(4))))
    return path


CHUNKED = ("--max-chunk", "4.2", "-j", "1", *MODEL)


@pytest.mark.parametrize(
    ("fault", "code"), [(Status(400), 6), (CutAfter(20), 7), (Empty(), 9)], ids=["refused", "cut off", "empty"]
)
def test_failed_chunk_is_accepted_on_request(
    audiocli: CommandLine, long_recording: Path, tmp_path: Path, fault: Any, code: int
) -> None:
    argv = ("transcribe", long_recording, "-o", tmp_path / "out.txt", *CHUNKED)
    audiocli.gateway.queue_faults(NoFault(), fault)

    failed = audiocli(*argv)
    audiocli.gateway.queue_faults(fault)
    accepted = audiocli(*argv, "--accept-partial")
    afterwards = audiocli(*argv)

    assert (failed.code, "--accept-partial" in failed.err) == (code, True), failed.err
    assert (accepted.code, len(accepted.posts)) == (0, 3), accepted.err
    assert "the transcript has no text from 0:00:0" in accepted.err
    assert (tmp_path / "out.txt").read_text().count("The quick brown fox") == 3
    assert (afterwards.code, afterwards.posts) == (0, [])


def test_empty_chunk_with_speech_makes_the_transcript_partial(audiocli: CommandLine, tmp_path: Path) -> None:
    speech = signals.to_samples(signals.make_speech(3)) + bytes(2 * signals.RATE_HZ)
    path = tmp_path / "long.wav"
    path.write_bytes(build_wav(speech * 3, rate_hz=signals.RATE_HZ))
    argv = ("transcribe", path, "--max-chunk", f"{len(speech) / 2 / signals.RATE_HZ + 0.2:.1f}", "-j", "1", *MODEL)
    audiocli.gateway.queue_faults(NoFault(), build_reply({"text": ""}))

    results = [audiocli(*argv) for _ in range(3)]
    retried, afterwards = audiocli(*argv, "-o", tmp_path / "out.txt", "--retry-failed"), audiocli(*argv)

    assert [(r.code, len(r.posts)) for r in results] == [(3, 3), (3, 0), (3, 0)], results[0].err
    assert all("the transcript has no text from 0:00:" in r.err for r in results)
    assert (retried.code, len(retried.posts), afterwards.code, afterwards.posts) == (0, 1, 0, []), retried.err
    assert (tmp_path / "out.txt").read_text().count("The quick brown fox") == 3


# --- the recording changes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["append", "rewrite", "delete"])
@pytest.mark.parametrize("is_batch", [False, True])
def test_text_of_a_recording_that_changes_while_it_is_sent_is_written(
    audiocli: CommandLine, recording: Path, tmp_path: Path, change: str, is_batch: bool
) -> None:
    content = recording.read_bytes()
    out = tmp_path / "out"

    def change_recording(audio: bytes, seconds: float) -> str:
        if change == "append":
            with recording.open("ab") as file:
                file.write(bytes(2000))
        elif change == "rewrite":
            recording.write_bytes(build_wav(expected_pcm("Something else, which is longer than it was before.")))
        else:
            recording.unlink()
        return SPOKEN

    audiocli.gateway.set_transcript(change_recording)
    argv = ("transcribe", recording.parent if is_batch else recording, "-O", out, "-f", "txt", *MODEL)

    first = audiocli(*argv)
    audiocli.gateway.set_transcript("The new content.")
    text = (out / "talk.txt").read_text()
    second = audiocli(*argv) if change != "delete" else None
    recording.write_bytes(content)
    original = audiocli("transcribe", recording, *MODEL)

    assert (first.code, text) == (3, f"{SPOKEN}\n"), first.err
    assert "changed while it was sent" in first.err
    assert len(original.posts) == (0 if change == "append" else 1)
    if second is not None:
        assert (second.code, len(second.posts)) == (0, 1), second.err
        assert (out / "talk.txt").read_text() == "The new content.\n"


# --- killed processes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["file", "stdin", "directory"])
def test_transcript_of_a_process_killed_before_its_output_is_used(
    audiocli: CommandLine, program: Program, recording: Path, tmp_path: Path, source: str
) -> None:
    """Stdout is a pipe that nothing reads, so the process waits there with the rest of the text.

    A file that was written in time is deleted, so that only the stored transcript remains.
    """
    text = "word " * 40_000
    audiocli.gateway.set_transcript(text)
    outputs: dict[str, tuple[str | Path, ...]] = {
        "file": (recording,),
        "stdin": ("-",),
        "directory": (recording.parent, "-O", tmp_path / "out"),
    }
    argv = ("transcribe", *outputs[source], *MODEL)
    with recording.open("rb") as stdin:
        process = program.start(*argv, stdin=stdin)
    wait_for_file(Path(audiocli.variables["XDG_DATA_HOME"]) / "audiocli" / "transcripts")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    (tmp_path / "out" / "talk.txt").unlink(missing_ok=True)

    r = audiocli(*argv, stdin=recording.read_bytes())

    assert (r.code, r.posts) == (0, []), r.err
    written = (tmp_path / "out" / "talk.txt").read_text() if source == "directory" else r.text
    assert written == f"{text.strip()}\n"


def wait_for_file(directory: Path) -> None:
    deadline_s = time.monotonic() + 20
    while not (directory.is_dir() and list(directory.glob("*.json"))):
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def test_truncation_is_reported_after_a_kill(audiocli: CommandLine, program: Program, tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    content = make_recording("flac", 6.0)
    path.write_bytes(content[: len(content) // 2])
    store = Path(audiocli.variables["XDG_DATA_HOME"]) / "audiocli" / "transcripts"
    argv = ("transcribe", path, *MODEL)
    assert audiocli(*argv).code == 3
    [record_path] = store.glob("*.json")
    record = json.loads(record_path.read_bytes())
    # As it was stored with the last byte, before the recording was checked.
    unchecked = {"is_checked": False, "is_partial": False, "partial_reason": None, "warnings": []}
    record_path.write_text(json.dumps({**record, **unchecked}))

    for source in (path, path.parent):
        r = audiocli("transcribe", source, "-f", "txt", "-O", tmp_path / "out", *MODEL)
        assert (r.code, r.posts, "breaks off" in r.err) == (3, [], True), r.err


# --- disks without space ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["speak", "speak in chunks", "transcribe", "transcribe to stdout"])
def test_paid_result_is_saved_elsewhere_if_its_disk_and_the_cache_are_full(
    audiocli: CommandLine, recording: Path, tmp_path: Path, command: str
) -> None:
    """Output, cache and data are on one disk, which is full before the response arrives."""
    launcher = skip_without_namespaces("--user", "--map-root-user", "--mount")
    disk, temporary = tmp_path / "disk", tmp_path / "temporary"
    disk.mkdir()
    temporary.mkdir()
    text = "word " * 100_000
    audiocli.gateway.set_transcript(text)
    spoken = "Hello there, world. " * 20
    variables = audiocli.variables | {
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "XDG_CACHE_HOME": str(disk / "cache"),
        "XDG_DATA_HOME": str(disk / "data"),
        "TMPDIR": str(temporary),
        "PATH": os.environ["PATH"],
    }
    argv = {
        "speak": ["speak", spoken, "-o", str(disk / "x.wav"), "--json"],
        "speak in chunks": ["speak", spoken, "-o", str(disk / "x.wav"), "--max-chars", "120", "--json"],
        "transcribe": ["transcribe", str(recording), "-o", str(disk / "x.txt"), "--json", *MODEL],
        "transcribe to stdout": ["transcribe", str(recording), "-o", "-", "--json", *MODEL],
    }[command]
    script = (
        f"mount -t tmpfs -o size=256k none '{disk}' && exec "
        f"""{sys.executable} -m audiocli "$@" {f"> '{disk}/stdout'" if "stdout" in command else ""}"""
    )
    process = subprocess.run(
        [*launcher, "sh", "-c", script, "sh", *argv], env=variables, capture_output=True, timeout=60, check=False
    )

    assert process.returncode == 10, process.stderr
    error = json.loads(process.stderr.splitlines()[-1])["error"]
    saved = Path(error["kept"])
    assert saved.parent == temporary and str(saved) in error["hint"]
    if command == "speak":
        assert len(saved.read_bytes()) == 44 + len(expected_pcm(spoken))
    elif command == "speak in chunks":
        assert len(saved.read_bytes()) > 0.9 * len(expected_pcm(spoken))
        assert list(temporary.iterdir()) == [saved]
    else:
        assert saved.read_text() == f"{text.strip()}\n"


def test_text_of_an_interrupted_stream_is_saved(audiocli: CommandLine, recording: Path, tmp_path: Path) -> None:
    events = [{"type": "transcript.text.delta", "delta": sentence} for sentence in SENTENCES[:2]]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
    audiocli.gateway.queue_faults(Garbage(body, "text/event-stream"))
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    argv = ("transcribe", recording, "-m", "openai:gpt-4o-transcribe", "--stream", "-o", tmp_path / "out.txt")

    r = audiocli(*argv)

    saved = re.search(r"the text that had arrived is saved in (\S+)", r.err)
    assert (r.code, (tmp_path / "out.txt").exists()) == (7, False)
    assert saved is not None and Path(saved[1]).read_text() == "".join(SENTENCES[:2]) + "\n"


def test_store_without_space_does_not_lose_the_output(audiocli: CommandLine, recording: Path, tmp_path: Path) -> None:
    store = Path(audiocli.variables["XDG_DATA_HOME"]) / "audiocli" / "transcripts"
    store.parent.mkdir(parents=True)
    store.write_bytes(b"a file where a directory should be")

    r = audiocli("transcribe", recording, "-o", tmp_path / "out.txt", *MODEL)

    assert (r.code, len(r.posts)) == (0, 1), r.err
    assert (tmp_path / "out.txt").read_text()
