"""Long recordings on the command line: split in silence, sent concurrently, merged, and paid for once."""

from __future__ import annotations

import asyncio
import io
import json
import math
import os
import random
import secrets
import signal
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import av
import pytest

from audiocli.audio.wav import build_wav_header
from audiocli.codecs.probe import probe
from audiocli.core.progress import TranscriptionProgress
from audiocli.core.run_context import RunContext
from audiocli.core.transcription import TextStream, TranscriptionTask
from audiocli.core.transcription_plan import LongTranscriptionTask, build_chunk_plan
from audiocli.ledger.budget import RunBudget
from audiocli.mock import CutAfter, Empty, MockTranscript, NoFault, RecordedRequest, Stall, Status
from audiocli.storage.paid_results import PaidResultStore
from audiocli.types.audio import PcmFormat
from audiocli.types.requests import TranscriptionRequest
from audiocli.types.routes import Route
from tests.conftest import CommandLine
from tests.pyav_codec import encode
from tests.test_processes import Program, list_files
from tests.test_processes import program as program

RATE_HZ = 16_000
WINDOW_SAMPLES = RATE_HZ // 10
LOWEST_HZ, STEP_HZ = 300, 40


@cache
def build_tone(index: int, seconds: float) -> bytes:
    """Return a tone whose pitch encodes the index of a second, so that the mock can tell which part it received."""
    step = 2 * math.pi * (LOWEST_HZ + STEP_HZ * index) / RATE_HZ
    return array("h", (round(9000 * math.sin(step * n)) for n in range(round(seconds * RATE_HZ)))).tobytes()


@cache
def encode_recording(spans: tuple[tuple[int, float], ...], format: str) -> bytes:
    pcm, index = bytearray(), 0
    for tone_count, silent_s in spans:
        for _ in range(tone_count):
            pcm += build_tone(index, 1)
            index += 1
        pcm += bytes(2 * round(silent_s * RATE_HZ))
    return encode(bytes(pcm), format, rate_hz=RATE_HZ)


def write_recording(path: Path, *spans: tuple[int, float]) -> Path:
    """Write a recording of spans: a number of seconds, each with its own tone, then seconds of silence."""
    path.write_bytes(encode_recording(spans, path.suffix[1:]))
    return path


def list_start_times_s(*spans: tuple[int, float]) -> list[float]:
    """Return the start time of each tone in the recording."""
    starts_s, at_s = [], 0.0
    for tone_count, silent_s in spans:
        starts_s += [at_s + index for index in range(tone_count)]
        at_s += tone_count + silent_s
    return starts_s


@cache
def transcribe_tones(audio: bytes, duration_s: float) -> MockTranscript:
    """Return a transcript with one word for each tone in a chunk, and its times."""
    pcm = array("h")
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
    with av.open(io.BytesIO(audio), "r") as container:
        for frame in [*container.decode(audio=0), None]:
            for ready in resampler.resample(frame):
                pcm.frombytes(bytes(ready.planes[0])[: 2 * ready.samples])
    tone_per_window: list[int | None] = [None]
    for window in range(len(pcm) // WINDOW_SAMPLES):
        samples = pcm[window * WINDOW_SAMPLES : (window + 1) * WINDOW_SAMPLES]
        crossings = sum((a < 0) != (b < 0) for a, b in pairwise(samples))
        tone_per_window.append(round((crossings * 5 - LOWEST_HZ) / STEP_HZ) if max(samples) > 3000 else None)
    tone_per_window.append(None)
    windows_by_tone: dict[int, list[int]] = {}
    for window, (before, current, after) in enumerate(
        zip(tone_per_window, tone_per_window[1:], tone_per_window[2:], strict=False)
    ):
        # A window across two tones measures as a third tone, unlike its neighbors.
        if current is not None and current in (before, after):
            windows_by_tone.setdefault(current, []).append(window)
    words = [
        (f"w{index}", windows[0] / 10, (windows[-1] + 1) / 10)
        for index, windows in sorted(windows_by_tone.items())
        if len(windows) >= 3
    ]
    return MockTranscript(" ".join(word for word, *_ in words), words, [(word, a, b) for word, a, b in words])


def list_paid_results(audiocli: CommandLine) -> list[str]:
    directory = Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "texts"
    return sorted(path.name for path in directory.glob("*.json")) if directory.is_dir() else []


def list_durations_s(requests: Sequence[RecordedRequest]) -> list[float]:
    return [round(seen.audio_s or 0) for seen in requests if seen.method == "POST"]


@pytest.fixture
def build_argv(audiocli: CommandLine) -> Callable[[Path], list[str]]:
    """Return a function that builds a command line with chunks of ten seconds for whisper-1."""
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.gateway.set_transcript(transcribe_tones)
    return lambda path: ["transcribe", str(path), "-g", "openai", "-m", "whisper-1", "--max-chunk", "10"]


# Nine seconds of tones and one of silence, four times: chunks of 9.5 or 10 s.
FOUR_SPANS = ((9, 1.0),) * 4
WORDS = [f"w{number}" for number in range(36)]


# --- split and merge -------------------------------------------------------------------------------------------------


def test_recording_within_limits_is_sent_unchanged(audiocli: CommandLine, build_argv: object, tmp_path: Path) -> None:
    path = write_recording(tmp_path / "a.mp3", *FOUR_SPANS)

    r = audiocli("transcribe", path, "-g", "openai", "-m", "whisper-1")

    assert (r.code, len(r.posts)) == (0, 1), r.err
    assert r.posts[0].audio == path.read_bytes()


def test_max_piece_is_a_hidden_alias_of_max_chunk(
    audiocli: CommandLine, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    argv = build_argv(write_recording(tmp_path / "a.mp3", *FOUR_SPANS))[:-2]

    current = audiocli(*argv, "--max-chunk", "10")
    alias = audiocli(*argv, "--max-piece", "10", "--no-resume")
    refused = audiocli(*argv, "--max-piece", "0")
    listings = [audiocli("transcribe", "--help").text]
    listings += [audiocli("completion", shell).text for shell in ("bash", "zsh", "fish")]

    assert (current.code, alias.code) == (0, 0), current.err + alias.err
    assert list_durations_s(alias.posts) == list_durations_s(current.posts) and len(alias.posts) == 4
    assert refused.code == 2 and "--max-chunk 0" in refused.err
    assert all("max-chunk" in listing and "max-piece" not in listing for listing in listings)


@pytest.mark.parametrize("extension", ["wav", "mp3", "flac", "opus"])
def test_long_recording_is_split_in_silence_with_exact_times(
    audiocli: CommandLine, build_argv: Callable[[Path], list[str]], tmp_path: Path, extension: str
) -> None:
    path = write_recording(tmp_path / f"a.{extension}", *FOUR_SPANS)

    r = audiocli(*build_argv(path), "--json", "--timestamps", "word", "-j", "4")

    assert r.code == 0, r.err
    assert [word["word"] for word in r.json["words"]] == WORDS
    assert r.json["text"].split() == WORDS
    for word, start_s in zip(r.json["words"], list_start_times_s(*FOUR_SPANS), strict=True):
        assert word["start_s"] == pytest.approx(start_s, abs=0.15)
        assert word["end_s"] == pytest.approx(start_s + 1, abs=0.15)
    assert (r.json["duration_s"], r.json["timing"]) == (pytest.approx(40, abs=0.1), "word")
    assert sorted(list_durations_s(r.posts)) == [10, 10, 10, 10]
    assert [entry["outcome"] for entry in r.ledger] == ["ok"] * 4
    assert (list_paid_results(audiocli), audiocli.gateway.problems) == ([], [])


@pytest.mark.parametrize("seconds", [23, 31])
def test_overlapping_chunks_neither_repeat_nor_lose_words(
    audiocli: CommandLine, build_argv: Callable[[Path], list[str]], tmp_path: Path, seconds: int
) -> None:
    r = audiocli(*build_argv(write_recording(tmp_path / "a.wav", (seconds, 0))), "--json", "--timestamps", "word")

    assert r.code == 0, r.err
    assert sum(list_durations_s(r.posts)) > seconds + 3
    assert [word["word"] for word in r.json["words"]] == WORDS[:seconds]
    assert r.json["text"].split() == WORDS[:seconds]
    starts = [word["start_s"] for word in r.json["words"]]
    assert starts == sorted(starts)
    assert all(0 <= word["start_s"] <= word["end_s"] <= seconds for word in r.json["words"])


def test_long_silence_is_not_sent(
    audiocli: CommandLine, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    spans = ((6, 20.0), (6, 15.0))

    r = audiocli(*build_argv(write_recording(tmp_path / "a.wav", *spans)), "--json", "--timestamps", "word")

    assert r.code == 0, r.err
    assert sum(seen.audio_s or 0 for seen in r.posts) < 14.5
    assert [round(word["start_s"], 1) for word in r.json["words"]] == pytest.approx(
        list_start_times_s(*spans), abs=0.15
    )
    assert r.json["duration_s"] == pytest.approx(47)


def test_silent_recording_costs_nothing(
    audiocli: CommandLine, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    r = audiocli(*build_argv(write_recording(tmp_path / "a.wav", (0, 25.0))), "--json")

    assert (r.code, r.posts, r.json["text"]) == (0, [], ""), r.err
    assert "no speech" in r.json["warnings"][0]


def test_chunk_without_words_is_not_an_error(
    audiocli: CommandLine, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    audiocli.gateway.set_transcript(
        lambda audio, _: "" if "w9" in (transcript := transcribe_tones(audio, 0)).text.split() else transcript
    )

    r = audiocli(*build_argv(write_recording(tmp_path / "a.wav", *FOUR_SPANS)))

    assert (r.code, r.text.split()) == (0, WORDS[:9] + WORDS[18:]), r.err


def test_concurrency_limit_holds(
    audiocli: CommandLine, program: Program, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    audiocli.gateway.latency_s = 0.2
    process = program.start(*build_argv(write_recording(tmp_path / "a.wav", *FOUR_SPANS, *FOUR_SPANS[:2])), "-j", "2")
    out, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert len(out.split()) == 54
    assert audiocli.gateway.peak_in_flight == 2


@pytest.mark.parametrize(
    "ref",
    ["arouter:openai/whisper-1", "openrouter:openai/whisper-large-v3", "groq:whisper-large-v3-turbo"],
)
def test_every_gateway_accepts_chunks(audiocli: CommandLine, build_argv: object, tmp_path: Path, ref: str) -> None:
    audiocli.variables |= {"AROUTER_API_KEY": "lr_live_test", "GROQ_API_KEY": "gsk-test"}
    path = write_recording(tmp_path / "a.flac", *FOUR_SPANS)

    r = audiocli("transcribe", path, "-m", ref, "--max-chunk", "10", "-f", "srt")

    assert (r.code, len(r.posts), audiocli.gateway.problems) == (0, 4, []), r.err
    assert [line for line in r.text.split() if line.startswith("w")] == WORDS


def test_context_option_sends_the_end_of_the_previous_chunk(
    audiocli: CommandLine, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    r = audiocli(*build_argv(write_recording(tmp_path / "a.wav", *FOUR_SPANS)), "--context", "-p", "Numbers.")

    assert r.code == 0, r.err
    ends = [WORDS[:9], WORDS[9:18], WORDS[18:27]]
    assert [seen.get_form_values("prompt") for seen in r.posts] == [
        ["Numbers."],
        *[[f"Numbers. {' '.join(e)}"] for e in ends],
    ]


def test_captions_of_model_without_timestamps_are_timed_by_chunk(
    audiocli: CommandLine, build_argv: object, tmp_path: Path
) -> None:
    argv = ("transcribe", write_recording(tmp_path / "a.wav", *FOUR_SPANS), "-g", "openai", "-m", "gpt-4o-transcribe")

    r = audiocli(*argv, "-f", "srt")
    result = audiocli(*argv, "-f", "vtt", "-O", tmp_path / "out", "--json")
    refused = audiocli(*argv, "-f", "srt", "--strict-timestamps")

    assert r.code == 0, r.err
    assert "timed by chunk" in r.err
    assert result.json["timing"] == "chunk"
    assert [segment["start_s"] for segment in result.json["segments"]] == pytest.approx([0, 9.5, 19.5, 29.5], abs=0.3)
    assert result.json["text"].split() == WORDS
    assert (refused.code, refused.requests) == (2, [])


def test_speakers_are_merged_across_chunks(audiocli: CommandLine, build_argv: object, tmp_path: Path) -> None:
    path = write_recording(tmp_path / "a.wav", *FOUR_SPANS)

    r = audiocli("transcribe", path, "-g", "openai", "--diarize", "--max-chunk", "10", "--json")

    assert r.code == 0, r.err
    assert [segment["text"] for segment in r.json["segments"]] == WORDS
    assert {segment["speaker"] for segment in r.json["segments"]} == {"A", "B"}


def test_speakers_of_several_chunks_cause_a_warning(audiocli: CommandLine, build_argv: object, tmp_path: Path) -> None:
    path = write_recording(tmp_path / "a.wav", *FOUR_SPANS)

    r = audiocli("transcribe", path, "-g", "openai", "--diarize", "--max-chunk", "10", "--json")

    assert any("speaker" in warning for warning in r.json["warnings"])


def test_truncated_long_recording_is_transcribed_to_its_end(
    audiocli: CommandLine, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = write_recording(tmp_path / "a.mp3", *FOUR_SPANS)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])

    r = audiocli(*build_argv(path), "-o", tmp_path / "a.txt")

    words = (tmp_path / "a.txt").read_text().split()
    assert r.code == 3, r.err
    assert "breaks off after 24 s" in r.err
    assert words in (WORDS[:21], WORDS[:22])


def test_truncated_short_recording_is_reported(audiocli: CommandLine, build_argv: object, tmp_path: Path) -> None:
    path = write_recording(tmp_path / "a.mp3", *FOUR_SPANS)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])

    r = audiocli("transcribe", path, "-g", "openai", "-m", "whisper-1")

    assert (r.code, "breaks off" in r.err) == (3, True)


# --- failures and resume ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code"), [(Status(400), 6), (CutAfter(20), 7), (Empty(), 9)], ids=["400", "truncated", "empty"]
)
def test_failed_chunk_is_named_and_same_command_resumes(
    audiocli: CommandLine, build_argv: Callable[[Path], list[str]], tmp_path: Path, fault: object, code: int
) -> None:
    path = write_recording(tmp_path / "a.wav", *FOUR_SPANS)
    audiocli.gateway.queue_faults(NoFault(), NoFault(), fault)  # type: ignore[arg-type]
    argv: list[str | Path] = [*build_argv(path), "-o", tmp_path / "a.srt", "-j", "1"]

    r = audiocli(*argv)

    assert (r.code, list_files(tmp_path), len(r.ledger)) == (code, ["a.wav"], 3)
    assert "chunk 3 of 4, from 0:00:19 to 0:00:29" in r.err
    assert "run the same command again to resume" in r.err
    dry_run = audiocli(*argv, "-n", "--json")
    assert {name: dry_run.json[name] for name in ("pieces", "kept", "requests")} == {
        "pieces": 4,
        "kept": 2,
        "requests": 2,
    }
    resumed = audiocli(*argv)
    assert (resumed.code, len(resumed.posts)) == (0, 2), resumed.err
    assert [line for line in (tmp_path / "a.srt").read_text().split() if line.startswith("w")] == WORDS
    assert list_paid_results(audiocli) == []


def test_no_resume_sends_every_chunk_again(
    audiocli: CommandLine, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = write_recording(tmp_path / "a.wav", *FOUR_SPANS)
    audiocli.gateway.queue_faults(NoFault(), NoFault(), NoFault(), Status(400))
    assert audiocli(*build_argv(path), "-j", "1").code == 6

    r = audiocli(*build_argv(path), "--no-resume")

    assert (r.code, len(r.posts), r.text.split()) == (0, 4, WORDS), r.err


def test_only_the_failed_chunk_is_retried(
    audiocli: CommandLine, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    audiocli.gateway.queue_faults(NoFault(), Status(500), NoFault(), Status(429, headers={"Retry-After": "7"}))

    r = audiocli(*build_argv(write_recording(tmp_path / "a.wav", *FOUR_SPANS)), "-j", "1")

    assert (r.code, r.text.split()) == (0, WORDS), r.err
    assert Counter(entry["outcome"] for entry in r.ledger) == {"ok": 4, "failed": 1, "refused": 1}
    assert 7 in r.waits_s


def test_empty_transcripts_of_tones_are_stored(
    audiocli: CommandLine, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = write_recording(tmp_path / "a.wav", *FOUR_SPANS)
    audiocli.gateway.set_transcript("")
    first = audiocli(*build_argv(path))
    audiocli.gateway.set_transcript(transcribe_tones)

    second, ignoring = audiocli(*build_argv(path)), audiocli(*build_argv(path), "--no-resume")

    assert (first.code, second.code, second.posts) == (0, 0, []), first.err
    assert "no speech in the recording; the transcript is empty" in second.err
    assert (ignoring.code, ignoring.text.split()) == (0, WORDS), ignoring.err


def test_chunks_are_saved_until_the_transcript_is_written(
    audiocli: CommandLine, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = write_recording(tmp_path / "a.wav", *FOUR_SPANS)
    assert audiocli(*build_argv(path), "-f", "txt", "-o", "/dev/full").code == 10

    r = audiocli(*build_argv(path), "-f", "txt")

    assert (r.code, r.posts) == (0, []), r.err


def test_verbose_json_has_every_response_in_order(
    audiocli: CommandLine, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = write_recording(tmp_path / "a.wav", *FOUR_SPANS)
    audiocli.gateway.queue_faults(NoFault(), NoFault(), Status(400))
    assert audiocli(*build_argv(path), "-f", "verbose_json", "-j", "1").code == 6

    r = audiocli(*build_argv(path), "-f", "verbose_json")

    assert r.code == 0, r.err
    assert [word for line in r.text.splitlines() for word in json.loads(line)["text"].split()] == WORDS


# --- processes -------------------------------------------------------------------------------------------------------


def test_killed_run_resumes_without_repeating_paid_chunks(
    audiocli: CommandLine, program: Program, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    rng = random.Random(5)
    path = write_recording(tmp_path / "a.wav", *FOUR_SPANS, *FOUR_SPANS)
    argv: list[str | Path] = [*build_argv(path), "-o", tmp_path / "a.txt", "-j", "2"]
    audiocli.gateway.latency_s = 0.4
    for _ in range(3):
        before = set(list_paid_results(audiocli))
        process = program.start(*argv)
        audiocli.gateway.wait_for_requests(len(audiocli.gateway.posts) + 1)
        time.sleep(rng.uniform(0.0, 0.9))
        process.kill()
        process.communicate(timeout=20)
        assert before <= set(list_paid_results(audiocli))
        assert list_files(tmp_path)[-1] == "a.wav"
    remaining_count = 8 - len(list_paid_results(audiocli))
    audiocli.gateway.latency_s = 0

    r = audiocli(*argv)

    assert 0 < remaining_count < 8
    # Requests of the killed process may be recorded late, and it may have sent the head and not the body.
    sent_count = sum(request.complete and not request.client_disconnected for request in r.posts)
    assert (r.code, sent_count) == (0, remaining_count), r.err
    assert (tmp_path / "a.txt").read_text().split() == [f"w{number}" for number in range(72)]


def test_uploads_of_a_killed_run_are_removed(
    audiocli: CommandLine, program: Program, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = write_recording(tmp_path / "a.wav", *FOUR_SPANS)
    audiocli.gateway.hold_responses()
    process = program.start(*build_argv(path), "-j", "2")
    audiocli.gateway.wait_for_held_responses(2)
    process.kill()
    process.communicate(timeout=20)
    audiocli.gateway.release_responses()
    directory = Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "uploads"
    for upload in directory.iterdir():
        os.utime(upload, (0, 0))

    r = audiocli(*build_argv(path))

    assert (r.code, list(directory.iterdir())) == (0, []), r.err


def test_ctrl_c_exits_immediately_and_leaves_no_upload(
    audiocli: CommandLine, program: Program, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    audiocli.gateway.queue_faults(NoFault(), *[Stall(after_bytes=None, seconds=20)] * 3)
    process = program.start(
        *build_argv(write_recording(tmp_path / "a.wav", *FOUR_SPANS)), "-o", tmp_path / "a.txt", "-j", "3"
    )
    audiocli.gateway.wait_for_requests(4)

    started_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    assert (process.returncode, list_files(tmp_path)) == (130, ["a.wav"]), err
    assert time.monotonic() - started_s < 1.0
    assert list((Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "uploads").iterdir()) == []
    assert Counter(entry["outcome"] for entry in audiocli.read_ledger_entries()) == {"ok": 1, "cancelled": 3}


def test_concurrent_runs_of_same_recording_are_independent(
    audiocli: CommandLine, program: Program, build_argv: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = write_recording(tmp_path / "a.wav", *FOUR_SPANS)
    audiocli.gateway.queue_faults(Status(429, headers={"Retry-After": "3"}))
    # The first run waits for its retry while the other run does all of its work.
    first = program.start(*build_argv(path), "-j", "1", "--no-resume")
    audiocli.gateway.wait_for_requests(1)
    other = audiocli(*build_argv(path), "-j", "1", "--no-resume")
    out, err = first.communicate(timeout=60)

    assert (other.code, other.text.split()) == (0, WORDS), other.err
    assert (first.returncode, out.decode().split()) == (0, WORDS), err


# --- unfinished work of version 0.1 ----------------------------------------------------------------------------------


def test_copied_chunks_of_0_1_are_found(tmp_path: Path) -> None:
    """Version 0.1 copied packets, and the byte rate of the recording decided the boundaries of the chunks.

    The names are those that 0.1 computed for this recording: without silence, chunks of at most 301 s.
    """
    noise = random.Random(3).randbytes(2 * RATE_HZ * 7 + 26)
    path = tmp_path / "long.wav"
    path.write_bytes(build_wav_header(PcmFormat(RATE_HZ, 1), 58 * len(noise)) + 58 * noise)
    names = ("75bb2da388a26537eb32401b64de13a6", "9fa689ecf0dd88e5335815c6a0fa1950")
    route = Route("arouter", "arouter", "https://gateway.example/v1", "openai/whisper-1")

    def plan_chunk_names(*stored: str, resume: bool = True) -> tuple[str, ...]:
        store = PaidResultStore(tmp_path / secrets.token_hex(4), ".json")
        for name in stored:
            store.write(name, b"{}")
        transcription = TranscriptionTask(TranscriptionRequest(probe(path)), tmp_path, TextStream())
        task = LongTranscriptionTask(transcription, store, TranscriptionProgress(None), resume=resume)
        ctx = cast(RunContext, SimpleNamespace(debug=lambda message: None, budget=RunBudget()))
        return asyncio.run(build_chunk_plan(task, (route,), ctx)).chunk_names

    assert plan_chunk_names(names[1]) == names
    assert not set(plan_chunk_names()) & set(names)
    assert not set(plan_chunk_names(*names, resume=False)) & set(names)
