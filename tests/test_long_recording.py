"""Long recordings through the front door: cut in silence, sent several at a time, stitched, and paid for once."""

from __future__ import annotations

import io
import json
import math
import os
import random
import signal
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import av
import pytest

from tests.conftest import CommandLine
from tests.gateway import CutAfter, Empty, Normal, Said, Seen, Stall, Status, encode
from tests.test_processes import Program, files_in
from tests.test_processes import program as program

RATE_HZ = 16_000
WINDOW = RATE_HZ // 10
LOWEST_HZ, STEP_HZ = 300, 40


@cache
def tone(second: int, seconds: float) -> bytes:
    """Sing the number of a second, so that the double can hear which part of a recording it has got."""
    step = 2 * math.pi * (LOWEST_HZ + STEP_HZ * second) / RATE_HZ
    return array("h", (round(9000 * math.sin(step * n)) for n in range(round(seconds * RATE_HZ)))).tobytes()


@cache
def encoded(stretches: tuple[tuple[int, float], ...], format: str) -> bytes:
    pcm, second = bytearray(), 0
    for sung, silent_s in stretches:
        for _ in range(sung):
            pcm += tone(second, 1)
            second += 1
        pcm += bytes(2 * round(silent_s * RATE_HZ))
    return encode(bytes(pcm), format, rate_hz=RATE_HZ)


def recording(path: Path, *stretches: tuple[int, float]) -> Path:
    """Write a recording: so many seconds of sound, each with its own tone, then so many of silence, and so on."""
    path.write_bytes(encoded(stretches, path.suffix[1:]))
    return path


def places(*stretches: tuple[int, float]) -> list[float]:
    """Tell where in the recording each of its sung seconds begins."""
    found, at_s = [], 0.0
    for sung, silent_s in stretches:
        found += [at_s + second for second in range(sung)]
        at_s += sung + silent_s
    return found


@cache
def hear(head: bytes, duration_s: float) -> Said:
    """Write down which seconds are in a piece, with the times of what is there of them."""
    pcm = array("h")
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
    with av.open(io.BytesIO(head), "r") as container:
        for frame in [*container.decode(audio=0), None]:
            for ready in resampler.resample(frame):
                pcm.frombytes(bytes(ready.planes[0])[: 2 * ready.samples])
    tones: list[int | None] = [None]
    for window in range(len(pcm) // WINDOW):
        here = pcm[window * WINDOW : (window + 1) * WINDOW]
        crossings = sum((a < 0) != (b < 0) for a, b in pairwise(here))
        tones.append(round((crossings * 5 - LOWEST_HZ) / STEP_HZ) if max(here) > 3000 else None)
    tones.append(None)
    heard: dict[int, list[int]] = {}
    for window, (before, tone, after) in enumerate(zip(tones, tones[1:], tones[2:], strict=False)):
        # A window between two tones sounds like a third, which nothing beside it does.
        if tone is not None and tone in (before, after):
            heard.setdefault(tone, []).append(window)
    words = [
        (f"w{second}", windows[0] / 10, (windows[-1] + 1) / 10)
        for second, windows in sorted(heard.items())
        if len(windows) >= 3
    ]
    return Said(" ".join(word for word, *_ in words), words, [(word, a, b) for word, a, b in words])


def texts(audiocli: CommandLine) -> list[str]:
    folder = Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "texts"
    return sorted(path.name for path in folder.glob("*.json")) if folder.is_dir() else []


def lengths(requests: Sequence[Seen]) -> list[float]:
    return [round(seen.audio_s or 0) for seen in requests if seen.method == "POST"]


@pytest.fixture
def openai(audiocli: CommandLine) -> Callable[[Path], list[str]]:
    """Give the beginning of a command line that sends pieces of ten seconds to whisper-1."""
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.gateway.says(hear)
    return lambda path: ["transcribe", str(path), "-g", "openai", "-m", "whisper-1", "--max-piece", "10"]


# Nine seconds and one of silence, four times: pieces of nine and a half or ten.
FOUR = ((9, 1.0),) * 4
WORDS = [f"w{number}" for number in range(36)]


# --- cutting and stitching -------------------------------------------------------------------------------------------


def test_a_recording_within_the_limits_goes_as_it_is(audiocli: CommandLine, openai: object, tmp_path: Path) -> None:
    path = recording(tmp_path / "a.mp3", *FOUR)

    r = audiocli("transcribe", path, "-g", "openai", "-m", "whisper-1")

    assert (r.code, len(r.posts)) == (0, 1), r.err
    assert r.posts[0].audio == path.read_bytes()


@pytest.mark.parametrize("ending", ["wav", "mp3", "flac", "opus"])
def test_a_long_recording_is_cut_in_its_silence_and_its_times_are_exact(
    audiocli: CommandLine, openai: Callable[[Path], list[str]], tmp_path: Path, ending: str
) -> None:
    path = recording(tmp_path / f"a.{ending}", *FOUR)

    r = audiocli(*openai(path), "--json", "--timestamps", "word", "-j", "4")

    assert r.code == 0, r.err
    assert [word["word"] for word in r.json["words"]] == WORDS
    assert r.json["text"].split() == WORDS
    for word, place_s in zip(r.json["words"], places(*FOUR), strict=True):
        assert word["start_s"] == pytest.approx(place_s, abs=0.15)
        assert word["end_s"] == pytest.approx(place_s + 1, abs=0.15)
    assert (r.json["duration_s"], r.json["timing"]) == (pytest.approx(40, abs=0.1), "word")
    assert sorted(lengths(r.posts)) == [10, 10, 10, 10]
    assert [entry["outcome"] for entry in r.ledger] == ["ok"] * 4
    assert (texts(audiocli), audiocli.gateway.problems) == ([], [])


@pytest.mark.parametrize("seconds", [23, 31])
def test_without_silence_the_pieces_overlap_and_nothing_is_doubled_or_lost(
    audiocli: CommandLine, openai: Callable[[Path], list[str]], tmp_path: Path, seconds: int
) -> None:
    r = audiocli(*openai(recording(tmp_path / "a.wav", (seconds, 0))), "--json", "--timestamps", "word")

    assert r.code == 0, r.err
    assert sum(lengths(r.posts)) > seconds + 3
    assert [word["word"] for word in r.json["words"]] == WORDS[:seconds]
    assert r.json["text"].split() == WORDS[:seconds]
    starts = [word["start_s"] for word in r.json["words"]]
    assert starts == sorted(starts)
    assert all(0 <= word["start_s"] <= word["end_s"] <= seconds for word in r.json["words"])


def test_long_silence_is_not_sent(audiocli: CommandLine, openai: Callable[[Path], list[str]], tmp_path: Path) -> None:
    stretches = ((6, 20.0), (6, 15.0))

    r = audiocli(*openai(recording(tmp_path / "a.wav", *stretches)), "--json", "--timestamps", "word")

    assert r.code == 0, r.err
    assert sum(seen.audio_s or 0 for seen in r.posts) < 14.5
    assert [round(word["start_s"], 1) for word in r.json["words"]] == pytest.approx(places(*stretches), abs=0.15)
    assert r.json["duration_s"] == pytest.approx(47)


def test_a_recording_of_silence_costs_nothing(
    audiocli: CommandLine, openai: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    r = audiocli(*openai(recording(tmp_path / "a.wav", (0, 25.0))), "--json")

    assert (r.code, r.posts, r.json["text"]) == (0, [], ""), r.err
    assert "no speech" in r.json["warnings"][0]


def test_a_piece_without_words_is_no_failure(
    audiocli: CommandLine, openai: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    audiocli.gateway.says(lambda head, _: "" if "w9" in (heard := hear(head, 0)).text.split() else heard)

    r = audiocli(*openai(recording(tmp_path / "a.wav", *FOUR)))

    assert (r.code, r.text.split()) == (0, WORDS[:9] + WORDS[18:]), r.err


def test_no_more_pieces_are_in_flight_than_allowed(
    audiocli: CommandLine, program: Program, openai: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    audiocli.gateway.latency_s = 0.2
    process = program.start(*openai(recording(tmp_path / "a.wav", *FOUR, *FOUR[:2])), "-j", "2")
    out, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert len(out.split()) == 54
    assert audiocli.gateway.peak_in_flight == 2


@pytest.mark.parametrize(
    "ref",
    ["arouter:openai/whisper-1", "openrouter:openai/whisper-large-v3", "groq:whisper-large-v3-turbo"],
)
def test_every_gateway_takes_the_pieces(audiocli: CommandLine, openai: object, tmp_path: Path, ref: str) -> None:
    audiocli.variables |= {"AROUTER_API_KEY": "lr_live_test", "GROQ_API_KEY": "gsk-test"}
    path = recording(tmp_path / "a.flac", *FOUR)

    r = audiocli("transcribe", path, "-m", ref, "--max-piece", "10", "-f", "srt")

    assert (r.code, len(r.posts), audiocli.gateway.problems) == (0, 4, []), r.err
    assert [line for line in r.text.split() if line.startswith("w")] == WORDS


def test_context_tells_each_piece_how_the_one_before_it_ended(
    audiocli: CommandLine, openai: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    r = audiocli(*openai(recording(tmp_path / "a.wav", *FOUR)), "--context", "-p", "Numbers.")

    assert r.code == 0, r.err
    ends = [WORDS[:9], WORDS[9:18], WORDS[18:27]]
    assert [seen.form("prompt") for seen in r.posts] == [["Numbers."], *[[f"Numbers. {' '.join(e)}"] for e in ends]]


def test_captions_of_a_model_without_times_are_timed_by_pieces(
    audiocli: CommandLine, openai: object, tmp_path: Path
) -> None:
    argv = ("transcribe", recording(tmp_path / "a.wav", *FOUR), "-g", "openai", "-m", "gpt-4o-transcribe")

    r = audiocli(*argv, "-f", "srt")
    told = audiocli(*argv, "-f", "vtt", "-O", tmp_path / "out", "--json")
    refused = audiocli(*argv, "-f", "srt", "--strict-timestamps")

    assert r.code == 0, r.err
    assert "timed by the pieces" in r.err
    assert told.json["timing"] == "piece"
    assert [segment["start_s"] for segment in told.json["segments"]] == pytest.approx([0, 9.5, 19.5, 29.5], abs=0.3)
    assert told.json["text"].split() == WORDS
    assert (refused.code, refused.requests) == (2, [])


def test_speakers_come_with_their_pieces(audiocli: CommandLine, openai: object, tmp_path: Path) -> None:
    path = recording(tmp_path / "a.wav", *FOUR)

    r = audiocli("transcribe", path, "-g", "openai", "--diarize", "--max-piece", "10", "--json")

    assert r.code == 0, r.err
    assert [segment["text"] for segment in r.json["segments"]] == WORDS
    assert {segment["speaker"] for segment in r.json["segments"]} == {"A", "B"}


def test_speakers_of_several_pieces_are_warned_about(audiocli: CommandLine, openai: object, tmp_path: Path) -> None:
    path = recording(tmp_path / "a.wav", *FOUR)

    r = audiocli("transcribe", path, "-g", "openai", "--diarize", "--max-piece", "10", "--json")

    assert any("speaker" in warning for warning in r.json["warnings"])


def test_a_recording_that_breaks_off_is_written_down_to_the_break(
    audiocli: CommandLine, openai: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = recording(tmp_path / "a.mp3", *FOUR)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])

    r = audiocli(*openai(path), "-o", tmp_path / "a.txt")

    heard = (tmp_path / "a.txt").read_text().split()
    assert r.code == 3, r.err
    assert "breaks off after 24 s" in r.err
    assert heard in (WORDS[:21], WORDS[:22])


def test_a_short_recording_that_breaks_off_is_told_too(audiocli: CommandLine, openai: object, tmp_path: Path) -> None:
    path = recording(tmp_path / "a.mp3", *FOUR)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])

    r = audiocli("transcribe", path, "-g", "openai", "-m", "whisper-1")

    assert (r.code, "breaks off" in r.err) == (3, True)


# --- failures, and going on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code"), [(Status(400), 6), (CutAfter(20), 7), (Empty(), 9)], ids=["400", "cut", "empty"]
)
def test_a_piece_that_fails_is_named_and_the_same_command_sends_what_is_missing(
    audiocli: CommandLine, openai: Callable[[Path], list[str]], tmp_path: Path, fault: object, code: int
) -> None:
    path = recording(tmp_path / "a.wav", *FOUR)
    audiocli.gateway.script(Normal(), Normal(), fault)  # type: ignore[arg-type]
    argv: list[str | Path] = [*openai(path), "-o", tmp_path / "a.srt", "-j", "1"]

    r = audiocli(*argv)

    assert (r.code, files_in(tmp_path), len(r.ledger)) == (code, ["a.wav"], 3)
    assert "piece 3 of 4, from 0:00:19 to 0:00:29" in r.err
    assert "the same command goes on" in r.err
    dry = audiocli(*argv, "-n", "--json")
    assert {name: dry.json[name] for name in ("pieces", "kept", "requests")} == {"pieces": 4, "kept": 2, "requests": 2}
    again = audiocli(*argv)
    assert (again.code, len(again.posts)) == (0, 2), again.err
    assert [line for line in (tmp_path / "a.srt").read_text().split() if line.startswith("w")] == WORDS
    assert texts(audiocli) == []


def test_no_resume_sends_all_of_it_again(
    audiocli: CommandLine, openai: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = recording(tmp_path / "a.wav", *FOUR)
    audiocli.gateway.script(Normal(), Normal(), Normal(), Status(400))
    assert audiocli(*openai(path), "-j", "1").code == 6

    r = audiocli(*openai(path), "--no-resume")

    assert (r.code, len(r.posts), r.text.split()) == (0, 4, WORDS), r.err


def test_what_may_be_sent_again_is_sent_again_for_that_piece_alone(
    audiocli: CommandLine, openai: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    audiocli.gateway.script(Normal(), Status(500), Normal(), Status(429, headers={"Retry-After": "7"}))

    r = audiocli(*openai(recording(tmp_path / "a.wav", *FOUR)), "-j", "1")

    assert (r.code, r.text.split()) == (0, WORDS), r.err
    assert Counter(entry["outcome"] for entry in r.ledger) == {"ok": 4, "failed": 1, "refused": 1}
    assert 7 in r.waits_s


def test_after_empty_transcripts_of_sound_the_same_command_asks_again(
    audiocli: CommandLine, openai: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = recording(tmp_path / "a.wav", *FOUR)
    audiocli.gateway.says("")
    assert audiocli(*openai(path)).code == 9
    audiocli.gateway.says(hear)

    r = audiocli(*openai(path))

    assert (r.code, r.text.split()) == (0, WORDS), r.err


def test_pieces_are_kept_until_the_transcript_is_written(
    audiocli: CommandLine, openai: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = recording(tmp_path / "a.wav", *FOUR)
    assert audiocli(*openai(path), "-f", "txt", "-o", "/dev/full").code == 10

    r = audiocli(*openai(path), "-f", "txt")

    assert (r.code, r.posts) == (0, []), r.err


def test_verbose_json_has_the_reply_of_every_piece_in_order(
    audiocli: CommandLine, openai: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = recording(tmp_path / "a.wav", *FOUR)
    audiocli.gateway.script(Normal(), Normal(), Status(400))
    assert audiocli(*openai(path), "-f", "verbose_json", "-j", "1").code == 6

    r = audiocli(*openai(path), "-f", "verbose_json")

    assert r.code == 0, r.err
    assert [word for line in r.text.splitlines() for word in json.loads(line)["text"].split()] == WORDS


# --- processes -------------------------------------------------------------------------------------------------------


def test_after_a_kill_only_what_was_not_finished_is_sent_again(
    audiocli: CommandLine, program: Program, openai: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    dice = random.Random(5)
    path = recording(tmp_path / "a.wav", *FOUR, *FOUR)
    argv: list[str | Path] = [*openai(path), "-o", tmp_path / "a.txt", "-j", "2"]
    audiocli.gateway.latency_s = 0.4
    for _ in range(3):
        before = set(texts(audiocli))
        process = program.start(*argv)
        audiocli.gateway.wait_for_requests(len(audiocli.gateway.posts) + 1)
        time.sleep(dice.uniform(0.0, 0.9))
        process.kill()
        process.communicate(timeout=20)
        assert before <= set(texts(audiocli))
        assert files_in(tmp_path)[-1] == "a.wav"
    left = 8 - len(texts(audiocli))
    audiocli.gateway.latency_s = 0

    r = audiocli(*argv)

    assert 0 < left < 8
    assert (r.code, len(r.posts)) == (0, left), r.err
    assert (tmp_path / "a.txt").read_text().split() == [f"w{number}" for number in range(72)]


def test_pieces_that_a_killed_run_was_sending_do_not_lie_about_for_ever(
    audiocli: CommandLine, program: Program, openai: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = recording(tmp_path / "a.wav", *FOUR)
    audiocli.gateway.hold()
    process = program.start(*openai(path), "-j", "2")
    audiocli.gateway.wait_for_held(2)
    process.kill()
    process.communicate(timeout=20)
    audiocli.gateway.release()
    folder = Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "uploads"
    for left in folder.iterdir():
        os.utime(left, (0, 0))

    r = audiocli(*openai(path))

    assert (r.code, list(folder.iterdir())) == (0, []), r.err


def test_ctrl_c_ends_at_once_and_leaves_no_piece_behind(
    audiocli: CommandLine, program: Program, openai: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    audiocli.gateway.script(Normal(), *[Stall(after_bytes=None, seconds=20)] * 3)
    process = program.start(*openai(recording(tmp_path / "a.wav", *FOUR)), "-o", tmp_path / "a.txt", "-j", "3")
    audiocli.gateway.wait_for_requests(4)

    started_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    assert (process.returncode, files_in(tmp_path)) == (130, ["a.wav"]), err
    assert time.monotonic() - started_s < 1.0
    assert list((Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "uploads").iterdir()) == []
    assert Counter(entry["outcome"] for entry in audiocli.entries()) == {"ok": 1, "cancelled": 3}


def test_two_at_once_on_the_same_recording_do_not_disturb_each_other(
    audiocli: CommandLine, program: Program, openai: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = recording(tmp_path / "a.wav", *FOUR)
    audiocli.gateway.script(Status(429, headers={"Retry-After": "3"}))
    # The first one waits before it sends its first piece again, and the second one does all of its work meanwhile.
    first = program.start(*openai(path), "-j", "1", "--no-resume")
    audiocli.gateway.wait_for_requests(1)
    second = audiocli(*openai(path), "-j", "1", "--no-resume")
    out, err = first.communicate(timeout=60)

    assert (second.code, second.text.split()) == (0, WORDS), second.err
    assert (first.returncode, out.decode().split()) == (0, WORDS), err
