"""Speech at the times of captions, and processed audio: its tempo, sample rate, loudness and format."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from audiocli.codecs.concat import PcmConcatenator
from audiocli.mock import expected_pcm
from audiocli.types.audio import PcmFormat
from tests.conftest import CommandLine, Result
from tests.documents import build_epub
from tests.gateway_contract import read_warnings
from tests.requirements import require_program
from tests.test_books import find_speech_starts
from tests.test_documents import list_spoken
from tests.test_long_speech import read_samples
from tests.test_player_status import install_player
from tests.test_processing import judge_loudness
from tests.test_tags import decode, get_audio_stream, list_chapters, probe

RATE_HZ = 24_000
MODEL = "openai/gpt-4o-mini-tts-2025-12-15"
# Without a space: the mock speaks a space as silence.
SENTENCE = "Hello."
TEXT = "Alpha_is_here.\n\nBravo_is_here_too.\n\nCharlie_ends."


def build_srt(*cues: tuple[float, float, str]) -> str:
    def clock(seconds: float) -> str:
        ms = round(seconds * 1000)
        return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"

    return "\n".join(
        f"{number}\n{clock(start_s)} --> {clock(end_s)}\n{text}\n"
        for number, (start_s, end_s, text) in enumerate(cues, 1)
    )


def dub(cli: CommandLine, captions: str, *argv: str | Path, name: str = "a.srt") -> Result:
    path = cli.directory / name
    path.write_text(captions)
    return cli("speak", "-F", path, "-o", cli.directory / "dub.wav", "-m", MODEL, *argv)


def speak(cli: CommandLine, name: str, *argv: str | Path, text: str = TEXT) -> tuple[Result, Path]:
    path = cli.directory / name
    r = cli("speak", text, "-o", path, "-m", MODEL, *argv)
    assert r.code == 0, r.err
    return r, path


def read_rate_hz(path: Path) -> int:
    return int(get_audio_stream(probe(path))["sample_rate"])


def read_duration_s(path: Path) -> float:
    return len(decode(path)) / 2 / read_rate_hz(path)


# --- captions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["wav", "mp3", "opus", "m4a"])
def test_speech_begins_at_the_times_of_the_captions(audiocli: CommandLine, format: str) -> None:
    times_s = [0.5, 2.0, 3.25, 7.001, 61.5]
    captions = build_srt(*((at, at + 1, f"{SENTENCE[:-1]}{index}.") for index, at in enumerate(times_s)))
    output = audiocli.directory / f"dub.{format}"

    r = dub(audiocli, captions, "-o", output)

    assert r.code == 0, r.err
    starts = find_speech_starts(decode(output), rate_hz=read_rate_hz(output))
    assert starts == pytest.approx(times_s, abs=0.05)
    assert read_duration_s(output) == pytest.approx(61.5 + 0.06 * 7, abs=0.05)


def test_caption_that_is_too_long_is_spoken_faster(audiocli: CommandLine) -> None:
    # 3 s of speech in 2.5 s, then 3 s in 1 s.
    captions = build_srt((0, 2.5, "x" * 50), (2.5, 5, "y" * 10), (5, 6, "z" * 50), (6, 6.5, "late"), (9, 10, "in_time"))

    r = dub(audiocli, captions)

    assert r.code == 0, r.err
    assert all("speed" not in request.json for request in r.posts)
    samples = read_samples(audiocli.directory / "dub.wav")
    # The first one ends in time. The third one is 1.5 times as fast and takes 2 s, so the fourth begins at 7 s.
    assert find_speech_starts(samples, min_silence_s=0.1) == pytest.approx([0.0, 5.0, 9.0], abs=0.05)
    assert [warning for warning in read_warnings(r) if "late" in warning] == [
        "the speech of the caption at 0:00:06 begins 1.0 s late, because the one before it is too long"
    ]
    late = samples[2 * RATE_HZ * 7 : 2 * RATE_HZ * 7 + 2 * 1440 * 4]
    assert late[480:-480] == expected_pcm("late ")[: len(late)][480:-480]


def test_overlap_is_in_the_result(audiocli: CommandLine) -> None:
    r = dub(audiocli, build_srt((0, 1, "x" * 60), (1, 2, "y" * 10)), "--json")

    assert r.code == 0, r.err
    assert [warning for warning in r.json["warnings"] if "late" in warning]


def test_overlapping_captions_do_not_lose_speech(audiocli: CommandLine) -> None:
    r = dub(audiocli, build_srt((1, 3, "First_one."), (1, 3, "Second_one."), (0.5, 1, "Third_one.")))

    assert r.code == 0, r.err
    assert sorted(list_spoken(r.posts)) == ["First_one.", "Second_one.", "Third_one."]
    assert read_duration_s(audiocli.directory / "dub.wav") >= 1 + 3 * 0.06 * 10 / 1.5


def test_captions_of_dubbed_speech_have_its_times(audiocli: CommandLine) -> None:
    captions = build_srt((1, 2, "First_one."), (4, 5, "Second_one."))

    r = dub(audiocli, captions, "--captions", audiocli.directory / "out.srt", "--tempo", "2")

    assert r.code == 0, r.err
    times = re.findall(r"^(\S+) -->", (audiocli.directory / "out.srt").read_text(), re.MULTILINE)
    assert times == ["00:00:00,500", "00:00:02,000"]
    assert find_speech_starts(read_samples(audiocli.directory / "dub.wav")) == pytest.approx([0.5, 2.0], abs=0.05)


def test_hours_of_silence_are_written_in_blocks() -> None:
    pcm = PcmFormat(RATE_HZ, 1)
    concatenator = PcmConcatenator(pcm)
    sizes = [len(block) for block in concatenator.pad_until(3 * 3600.0, pcm)]

    assert max(sizes) == pcm.bytes_per_second
    assert sum(sizes) == 3 * 3600 * pcm.bytes_per_second


def test_minutes_of_silence_are_silent(audiocli: CommandLine) -> None:
    r = dub(audiocli, build_srt((600, 602, SENTENCE)), "--sample-rate", "8000")

    assert r.code == 0, r.err
    samples = read_samples(audiocli.directory / "dub.wav")
    assert not any(samples[: 2 * 8000 * 599])
    assert any(samples[2 * 8000 * 600 :])


@pytest.mark.parametrize("hours", [25, 99, 9999])
def test_caption_after_days_is_refused(audiocli: CommandLine, hours: int) -> None:
    r = dub(audiocli, build_srt((0, 1, "First."), (hours * 3600, hours * 3600 + 1, "Last.")))

    assert (r.code, r.posts) == (8, []), r.err
    assert "24 h" in r.err


def test_dubbed_speech_is_resumed(audiocli: CommandLine) -> None:
    captions = build_srt((0, 1, "First_one."), (2, 3, "Second_one."))
    dub(audiocli, captions)

    r = dub(audiocli, captions.replace("00:00:02,000", "00:00:02,500"))

    assert (r.code, r.posts) == (0, []), r.err
    assert find_speech_starts(read_samples(audiocli.directory / "dub.wav"))[1:] == pytest.approx([2.5], abs=0.05)


# --- processing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac", "a.opus"])
def test_tempo_and_sample_rate_of_a_file(audiocli: CommandLine, name: str) -> None:
    r, path = speak(audiocli, name, "--tempo", "2", "--sample-rate", "48000", "--json")

    assert read_rate_hz(path) == 48_000
    assert r.json["duration_s"] == pytest.approx(0.03 * len(TEXT), abs=0.001)
    assert read_duration_s(path) == pytest.approx(r.json["duration_s"], abs=0.06)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.opus", "a.m4a"])
@pytest.mark.parametrize("target_lufs", [-16.0, -30.0])
def test_loudness_is_within_one_unit(audiocli: CommandLine, name: str, target_lufs: float) -> None:
    _, path = speak(audiocli, name, "--loudness", f"{target_lufs:g}", text="Alpha_and_bravo_are_here. " * 2)

    loudness, peak = judge_loudness(decode(path), PcmFormat(read_rate_hz(path), 1))
    assert loudness == pytest.approx(target_lufs, abs=1.0)
    assert peak <= 0.0


def test_loudness_on_a_pipe(audiocli: CommandLine) -> None:
    text = "Alpha_and_bravo_are_here. " * 3
    r = audiocli("speak", text, "-o", "-", "-f", "wav", "--loudness", "-20", "--tempo", "1.25", "-m", MODEL)

    assert r.code == 0, r.err
    path = audiocli.directory / "piped.wav"
    path.write_bytes(r.out)
    loudness, _ = judge_loudness(decode(path), PcmFormat(RATE_HZ, 1))
    assert loudness == pytest.approx(-20, abs=1.0)
    assert read_duration_s(path) == pytest.approx(0.06 * len(text.strip()) / 1.25, abs=0.1)


def test_processing_with_a_player(audiocli: CommandLine) -> None:
    received = install_player(audiocli, "ffplay")

    r = audiocli("speak", "Hello_there.", "--play", "--tempo", "2", "-m", MODEL, "--json")

    assert r.code == 0, r.err
    assert r.json["duration_s"] == pytest.approx(0.36, abs=0.01)
    path = audiocli.directory / "received.wav"
    path.write_bytes(received.read_bytes())
    assert read_duration_s(path) == pytest.approx(0.36, abs=0.05)


@pytest.mark.parametrize(
    ("argv", "scale"), [((), 1.0), (("--tempo", "1.5"), 1.5), (("--tempo", "0.5", "--loudness", "-20"), 0.5)]
)
def test_captions_have_the_times_of_the_final_audio(audiocli: CommandLine, argv: tuple[str, ...], scale: float) -> None:
    _, path = speak(audiocli, "a.wav", "--captions", audiocli.directory / "a.vtt", "--pause", "600", *argv)

    starts = find_speech_starts(read_samples(path), min_silence_s=0.3)
    cues = re.findall(r"^00:(\d\d):(\S+) -->", (audiocli.directory / "a.vtt").read_text(), re.MULTILINE)
    # A slower tempo also stretches the beginning of a sound.
    assert [60 * int(minutes) + float(seconds) for minutes, seconds in cues] == pytest.approx(starts, abs=0.06)
    assert starts[1] == pytest.approx((0.06 * 14 + 0.6) / scale, abs=0.06)


def test_chapters_have_the_times_of_the_final_audio(audiocli: CommandLine) -> None:
    book = audiocli.directory / "a.epub"
    pages = {"1.xhtml": "<p>Alpha_is_here.</p>", "2.xhtml": "<p>Bravo_is_here.</p>"}
    links = "".join(f'<li><a href="{name}">{name[0]}</a></li>' for name in pages)
    book.write_bytes(build_epub(pages, contents=f"<ol>{links}</ol>"))
    argv = ("--pause", "600", "--tempo", "2", "--loudness", "-20", "--captions", audiocli.directory / "a.srt")

    r = audiocli("speak", "-F", book, "-o", audiocli.directory / "a.m4b", "-m", MODEL, *argv)

    assert r.code == 0, r.err
    chapters = list_chapters(probe(audiocli.directory / "a.m4b"))
    starts = find_speech_starts(decode(audiocli.directory / "a.m4b"), min_silence_s=0.15)
    assert [start_s for _, start_s in chapters][1] == pytest.approx(starts[1], abs=0.02)
    assert re.search(r"^00:00:00,7[12]\d -->", (audiocli.directory / "a.srt").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "option",
    [("--tempo", "5"), ("--tempo", "nan"), ("--sample-rate", "7999"), ("--loudness", "-4"), ("--loudness", "nan")],
)
def test_processing_out_of_range_is_a_usage_error(audiocli: CommandLine, option: tuple[str, str]) -> None:
    r = audiocli("speak", "x", *option, "-o", audiocli.directory / "x.wav")

    assert (r.code, r.posts) == (2, []), r.err
    assert option[0] in r.err


def test_processed_speech_is_cached_unprocessed(audiocli: CommandLine) -> None:
    speak(audiocli, "a.wav")
    r, path = speak(audiocli, "b.wav", "--tempo", "2")
    again, _ = speak(audiocli, "c.wav")

    assert (r.posts, again.posts) == ([], [])
    assert len(read_samples(path)) == len(expected_pcm(TEXT)) // 2


# --- telephone formats ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ulaw", "alaw"])
@pytest.mark.parametrize("argv", [(), ("--tempo", "2", "--loudness", "-20")])
def test_telephone_formats_are_raw_samples_at_8_khz(audiocli: CommandLine, name: str, argv: tuple[str, ...]) -> None:
    r, path = speak(audiocli, f"a.{name}", *argv, "--json", text="Alpha_and_bravo_are_here_for_now.")

    expected_s = 0.06 * 33 / (2 if argv else 1)
    assert (r.json["format"], r.json["bytes"]) == (name, path.stat().st_size)
    assert path.stat().st_size == pytest.approx(8000 * expected_s, abs=80)
    codec = {"ulaw": "mulaw", "alaw": "alaw"}[name]
    command = [
        require_program("ffmpeg"),
        "-v",
        "error",
        "-f",
        codec,
        "-ar",
        "8000",
        "-i",
        str(path),
        "-f",
        "s16le",
        "-",
    ]
    samples = subprocess.run(command, check=True, capture_output=True).stdout
    loudness, _ = judge_loudness(samples, PcmFormat(8000, 1))
    assert -35 < loudness < -10
    assert not argv or loudness == pytest.approx(-20, abs=1.0)


def test_telephone_format_to_a_pipe(audiocli: CommandLine) -> None:
    r = audiocli("speak", "Hello_there.", "-o", "-", "-f", "mulaw", "-m", MODEL)

    assert (r.code, len(r.out)) == (0, pytest.approx(8000 * 0.72, abs=80)), r.err


@pytest.mark.parametrize(("format", "rate_hz"), [("ulaw", 8_000), ("mp3", 48_000), ("opus", 48_000), ("m4a", 96_000)])
def test_sample_rate_that_a_format_lacks_is_a_warning(audiocli: CommandLine, format: str, rate_hz: int) -> None:
    r, path = speak(audiocli, f"a.{format}", "--sample-rate", "192000", "--json", text="Hello_there.")

    assert r.json["warnings"] == [f"--sample-rate 192000: {format} is written with {rate_hz} Hz"]
    assert r.json["duration_s"] == pytest.approx(0.72, abs=0.05)
    assert format == "ulaw" or read_rate_hz(path) == rate_hz
