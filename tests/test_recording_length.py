"""The length of recordings whose headers have no length, a wrong one or that of another file."""

from __future__ import annotations

import io
import json
import math
import random
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from email import message_from_bytes
from functools import cache, partial
from pathlib import Path
from struct import pack
from typing import Any, NamedTuple

import av
import pytest
from av.container import InputContainer

from audiocli.audio.integrity import create_integrity_checker
from audiocli.types.audio import PcmFormat
from tests.conftest import CommandLine
from tests.recordings import CONTAINERS, Container, encode_recording
from tests.small_server import Answer, Received, serve

ROOT = Path(__file__).parents[1]
SECONDS = 6.0
PRICE_PER_S = 0.001
PRICE_CONFIG = f'[prices]\n"openai:whisper-1" = {{ per = "hours", usd = {PRICE_PER_S * 3600} }}\n'
MODEL = ("-m", "openai:whisper-1")


def make(name: str, **changes: Any) -> bytes:
    return encode_recording(CONTAINERS[name]._replace(**changes), SECONDS)


def join(name: str, count: int) -> bytes:
    return count * make(name)


def overwrite(body: bytes, marker: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite the bytes at `offset` after every `marker`."""
    patched = bytearray(body)
    for match in re.finditer(re.escape(marker), body):
        start = match.end() + offset
        patched[start : start + len(value)] = value
    assert patched != body
    return bytes(patched)


def vary(name: str, *bit_rates: int) -> bytes:
    """Return one stream of frames with several bit rates, as of an encoder for a variable bit rate."""
    return b"".join(make(name, bit_rate=rate) for rate in bit_rates)


class Case(NamedTuple):
    """A recording. `is_partial`: not all that its header promises can be read, which is reported."""

    extension: str
    build: Callable[[], bytes]
    is_partial: bool = False


LATE = ("output_ts_offset", "5")
MP4_VIDEO = Container("mp4", "aac", has_video=True)
MKV_VIDEO = Container("matroska", "aac", has_video=True)
# The sizes of the header of a streamed WAV.
UNKNOWN_SIZE = b"\xff\xff\xff\xff"

# One of each kind of container.
NAMES = (
    *("mp3", "xing-less.mp3", "aac", "m4a", "mkv", "webm", "vorbis.ogg", "opus", "flac"),
    *("wav", "aiff", "caf", "wma", "ts"),
)

CASES = {
    "complete mp4 with video": Case("mp4", lambda: encode_recording(MP4_VIDEO, SECONDS)),
    "complete mkv with video": Case("mkv", lambda: encode_recording(MKV_VIDEO, SECONDS)),
    # Joined: `cat a b`. The header is that of the first file.
    "joined mp3 of two bit rates": Case(
        "mp3", lambda: make("mp3", bit_rate=160_000) + make("mp3", bit_rate=16_000, rate_hz=16_000)
    ),
    # FFmpeg stops at the second codec, so the length is an estimate.
    "joined ogg of opus and flac": Case("ogg", lambda: make("opus") + make("flac", muxer="ogg")),
    # No length in the header.
    "mp3 without Xing header, loud first": Case("mp3", lambda: vary("xing-less.mp3", 96_000, 16_000)),
    "mp3 without Xing header, quiet first": Case("mp3", lambda: vary("xing-less.mp3", 16_000, 96_000)),
    "adts, loud first": Case("aac", lambda: vary("aac", 96_000, 16_000)),
    "adts, quiet first": Case("aac", lambda: vary("aac", 16_000, 96_000)),
    "mkv without Duration": Case("mkv", lambda: make("mkv", is_pipe=True)),
    "webm without Duration": Case("webm", lambda: make("webm", is_pipe=True)),
    "live webm": Case("webm", lambda: make("live.webm")),
    "fragmented m4a": Case("m4a", lambda: make("fragmented.m4a")),
    "flac without a sample count": Case("flac", lambda: make("flac", is_pipe=True)),
    "wav of unknown size": Case("wav", lambda: overwrite(make("wav"), b"data", 0, UNKNOWN_SIZE)),
    "au of unknown size": Case("au", lambda: overwrite(make("au"), b".snd", 4, UNKNOWN_SIZE)),
    "packets without durations": Case("mkv", lambda: make("mkv", muxer="nut")),
    # A wrong length in the header.
    "mp3 with 100 frames in its header": Case("mp3", lambda: overwrite(make("mp3"), b"Info", 4, pack(">I", 100))),
    "mp3 with 9999 frames in its header": Case("mp3", lambda: overwrite(make("mp3"), b"Info", 4, pack(">I", 9_999))),
    "flac with too few samples": Case("flac", lambda: overwrite(make("flac"), b"fLaC", 18, pack(">I", 24_000))),
    "flac with too many samples": Case(
        "flac", lambda: overwrite(make("flac"), b"fLaC", 18, pack(">I", 24_000_000)), is_partial=True
    ),
    "mkv with a short Duration": Case("mkv", lambda: overwrite(make("mkv"), b"\x44\x89\x88", 0, pack(">d", 900.0))),
    "mkv with a long Duration": Case("mkv", lambda: overwrite(make("mkv"), b"\x44\x89\x88", 0, pack(">d", 9e5))),
    "webm with a long Duration": Case("webm", lambda: overwrite(make("webm"), b"\x44\x89\x88", 0, pack(">d", 9e5))),
    "m4a with a long duration": Case(
        "m4a", lambda: overwrite(overwrite(make("m4a"), b"mvhd", 16, b"\0\x0f"), b"mdhd", 16, b"\0\x0f")
    ),
    "wav with too few samples": Case("wav", lambda: overwrite(make("wav"), b"data", 0, pack("<I", 96_000))),
    "wav with too many samples": Case(
        "wav", lambda: overwrite(make("wav"), b"data", 0, pack("<I", 48_000_000)), is_partial=True
    ),
    # The audio starts late. A video counts from its start.
    "late mp4 with video": Case("mp4", lambda: encode_recording(MP4_VIDEO._replace(start_s=2.0), SECONDS)),
    "late mkv with video": Case("mkv", lambda: encode_recording(MKV_VIDEO._replace(start_s=2.0), SECONDS)),
    "joined late mkv": Case("mkv", lambda: 2 * make("mkv", options=(LATE,))),
}
for _name in NAMES:
    _extension = _name.rpartition(".")[2]
    CASES[f"complete {_name}"] = Case(_extension, partial(make, _name))
    CASES[f"joined {_name}"] = Case(_extension, partial(join, _name, 3))
    if _name in ("m4a", "mkv", "webm", "vorbis.ogg", "opus", "wma", "ts"):
        CASES[f"late {_name}"] = Case(_extension, partial(make, _name, options=(*CONTAINERS[_name].options, LATE)))


def write_case(name: str, directory: Path) -> Path:
    """Write the recording of a case."""
    path = directory / f"{name.replace(' ', '-').replace('.', '-')}.{CASES[name].extension}"
    path.write_bytes(CASES[name].build())
    return path


@pytest.fixture
def priced(audiocli: CommandLine) -> CommandLine:
    """A command line with the price of one model. A second costs a tenth of a cent."""
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.write_config(PRICE_CONFIG)
    return audiocli


@cache
def decode_seconds(body: bytes) -> float:
    """Return the length of all samples that FFmpeg decodes, with the video before late audio.

    NaN if FFmpeg cannot read the file to its end.
    """
    seconds = 0.0
    with av.open(io.BytesIO(body)) as container:
        assert isinstance(container, InputContainer)
        stream = container.streams.audio[0]
        if container.streams.video and stream.start_time is not None and stream.time_base is not None:
            seconds = float(stream.start_time * stream.time_base) - (container.start_time or 0) / 1e6
        try:
            for packet in container.demux(stream):
                with suppress(av.InvalidDataError):
                    seconds += sum(frame.samples / frame.sample_rate for frame in packet.decode())
        except av.FFmpegError:
            return math.nan
    return seconds


# --- display and spending limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_length_is_that_of_the_decoded_audio(priced: CommandLine, tmp_path: Path, name: str) -> None:
    path = write_case(name, tmp_path)
    decoded_s = decode_seconds(path.read_bytes())
    is_exact = not math.isnan(decoded_s)
    length_s = decoded_s if is_exact else 2 * SECONDS

    shown = priced("transcribe", path, *MODEL, "-n", "--json")
    refused = priced("transcribe", path, *MODEL, "--max-cost", f"{PRICE_PER_S * length_s * 0.97:.7f}", "-f", "txt")

    assert shown.code == 0, shown.err
    assert shown.json["duration_s"] == pytest.approx(length_s, rel=0.01)
    assert shown.json["duration_is_exact"] == is_exact
    assert (refused.code, refused.posts) == (5, []), refused.err
    assert "would exceed --max-cost" in refused.err


def test_spending_limit_holds_in_a_directory(priced: CommandLine, tmp_path: Path) -> None:
    for name in ("joined mp3", "mp3 with 100 frames in its header", "webm without Duration"):
        write_case(name, tmp_path)
    total_s = sum(decode_seconds(path.read_bytes()) for path in tmp_path.glob("*.*"))

    shown = priced("transcribe", tmp_path, *MODEL, "-n", "--json")
    r = priced("transcribe", tmp_path, *MODEL, "-j", "1", "--max-cost", f"{PRICE_PER_S * (total_s - SECONDS):.7f}")

    assert shown.json["audio_s"] == pytest.approx(total_s, rel=0.01)
    assert r.code == 5, r.err
    assert 0 < PRICE_PER_S * sum(post.audio_s or 0 for post in r.posts) <= PRICE_PER_S * (total_s - SECONDS)


def test_chunks_of_a_recording_above_the_limit_are_not_sent(priced: CommandLine, tmp_path: Path) -> None:
    path = write_case("joined mp3", tmp_path)
    argv = ("transcribe", tmp_path, *MODEL, "--max-chunk", "6", "-j", "2")
    cost_usd = PRICE_PER_S * decode_seconds(path.read_bytes())

    refused = priced(*argv, "--max-cost", f"{cost_usd * 0.9:.7f}")
    allowed = priced(*argv, "--max-cost", f"{cost_usd * 1.5:.7f}")

    assert (refused.code, refused.posts) == (5, []), refused.err
    assert allowed.code == 0, allowed.err
    assert len(allowed.posts) > 1


@pytest.mark.parametrize(("reported_s", "billed_s"), [(0.5, 6.0), (5.5, 5.5), (60.0, 60.0)])
def test_cost_is_not_below_that_of_the_measured_length(
    priced: CommandLine, tmp_path: Path, reported_s: float, billed_s: float
) -> None:
    path = write_case("complete wav", tmp_path)

    with serve(lambda _: Answer(body={"text": "Hello.", "duration": reported_s})) as server:
        r = priced("transcribe", path, *MODEL, "--json", variables={"OPENAI_BASE_URL": server.url})

    assert r.code == 0, r.err
    assert r.json["cost_usd"] == pytest.approx(PRICE_PER_S * billed_s)
    assert r.json["duration_s"] == pytest.approx(SECONDS)


def test_estimated_length_is_marked(priced: CommandLine, tmp_path: Path) -> None:
    estimated = write_case("joined ogg of opus and flac", tmp_path)
    measured = write_case("webm without Duration", tmp_path)

    outputs = [priced("transcribe", path, *MODEL, "-n").text for path in (estimated, measured, tmp_path)]

    assert ["about" in re.findall(r"^audio.*", output, re.M)[0] for output in outputs] == [True, False, True]


def test_missing_price_is_reported_as_such(audiocli: CommandLine, tmp_path: Path) -> None:
    path = write_case("webm without Duration", tmp_path)
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"

    r = audiocli("transcribe", path, "-m", "openai:my-transcribe", "--max-cost", "1")

    assert r.code == 5
    assert "the price of openai:my-transcribe is unknown" in r.err


# --- captions --------------------------------------------------------------------------------------------------------


def read_upload(received: Received) -> bytes:
    """Return the recording in a multipart body."""
    head = f"Content-Type: {received.headers['content-type']}\r\n\r\n".encode()
    [part] = [part for part in message_from_bytes(head + received.body).walk() if part.get_filename()]
    body = part.get_payload(decode=True)
    assert isinstance(body, bytes)
    return body


def choose_last_s(body: bytes) -> float:
    """Return when the last words of a recording end."""
    decoded_s = decode_seconds(body)
    return 0.95 * (2 * SECONDS if math.isnan(decoded_s) else decoded_s)


def transcribe_first_and_last_words(received: Received) -> Answer:
    last_s = choose_last_s(read_upload(received))
    segments = [
        {"start": 0.0, "end": 0.5, "text": "First words."},
        {"start": last_s - 0.5, "end": last_s, "text": "Last words."},
    ]
    # Some gateways report the end of a segment as the length.
    return Answer(body={"text": "First words. Last words.", "segments": segments, "duration": 0.5})


def test_captions_have_the_times_of_the_reply(priced: CommandLine, tmp_path: Path) -> None:
    paths = {write_case(name, tmp_path): case for name, case in CASES.items()}

    with serve(transcribe_first_and_last_words) as server:
        r = priced(
            *("transcribe", tmp_path, *MODEL, "-f", "json", "--no-split", "--json"),
            variables={"OPENAI_BASE_URL": server.url},
        )

    assert r.code == 3, r.err
    assert len(server.posts) == len({path.read_bytes() for path in paths})
    partial_paths = {path for path, case in paths.items() if case.is_partial}
    results = [json.loads(line) for line in r.text.splitlines()]
    assert {Path(result["source"]) for result in results if result.get("is_partial")} == partial_paths
    for path in paths:
        document = json.loads(path.with_suffix(".json").read_text())
        body = path.read_bytes()
        last_s, decoded_s = choose_last_s(body), decode_seconds(body)
        times_s = [(segment["start_s"], segment["end_s"]) for segment in document["segments"]]
        assert times_s == [
            (0.0, 0.5),
            (pytest.approx(last_s - 0.5, rel=0.01), pytest.approx(last_s, rel=0.01)),
        ], path.name
        expected_s = None if math.isnan(decoded_s) else pytest.approx(decoded_s, rel=0.01)
        assert document["duration_s"] == expected_s, path.name


# --- truncation and speed --------------------------------------------------------------------------------------------


def test_unfinished_download_with_the_size_of_the_whole_file_is_truncated(priced: CommandLine, tmp_path: Path) -> None:
    path = write_case("complete mkv", tmp_path)
    body = path.read_bytes()
    path.write_bytes(body[: len(body) // 2].ljust(len(body), b"\0"))

    r = priced("transcribe", path, *MODEL, "--json")

    assert r.code == 3, r.err
    assert r.json["is_partial"]
    assert r.json["duration_s"] == pytest.approx(SECONDS / 2, rel=0.1)


def write_tracks(path: Path, *lengths_s: float, has_video: bool = False) -> None:
    """Write a Matroska file with tracks of these lengths, in the order of their timestamps."""
    rate_hz, frame_samples = 24_000, 1_024
    with av.open(path, "w", format="matroska") as container:
        packets: list[Any] = []
        for length_s in lengths_s:
            stream: Any = container.add_stream("aac", rate=rate_hz, layout="mono")
            for index in range(round(length_s * rate_hz / frame_samples)):
                frame = av.AudioFrame(format="fltp", layout="mono", samples=frame_samples)
                rng = random.Random(index)
                frame.planes[0].update(
                    pack(f"{frame_samples}f", *(rng.uniform(-0.1, 0.1) for _ in range(frame_samples)))
                )
                frame.sample_rate, frame.pts = rate_hz, index * frame_samples
                packets += stream.encode(frame)
            packets += stream.encode(None)
        if has_video:
            video: Any = container.add_stream("mpeg4", rate=5)
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
            for index in range(round(max(lengths_s) * 5)):
                picture = av.VideoFrame(64, 64, "yuv420p")
                picture.pts = index
                packets += video.encode(picture)
            packets += video.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)


@pytest.mark.parametrize("has_video", [False, True])
@pytest.mark.parametrize("lengths_s", [(11.0, 2.4), (2.4, 11.0), (11.0, 2.4, 5.0)])
def test_track_that_ends_before_another_one_is_complete(
    priced: CommandLine, tmp_path: Path, lengths_s: tuple[float, ...], has_video: bool
) -> None:
    path = tmp_path / "film.mkv"
    write_tracks(path, *lengths_s, has_video=has_video)

    for number, length_s in enumerate(lengths_s, 1):
        for flags in ((), ("--max-chunk", "3")):
            r = priced("transcribe", path, *MODEL, "--track", str(number), "--json", *flags)

            assert (r.code, "breaks off" in r.err) == (0, False), r.err
            assert r.json["duration_s"] == pytest.approx(length_s, abs=0.1)


@pytest.mark.parametrize(("lengths_s", "track"), [((6.0, 6.0), 2), ((6.0, 1.5, 6.0), 1), ((6.0, 5.0), 2)])
def test_unfinished_download_of_several_tracks_is_truncated(
    priced: CommandLine, tmp_path: Path, lengths_s: tuple[float, ...], track: int
) -> None:
    path = tmp_path / "tracks.mkv"
    write_tracks(path, *lengths_s)
    body = path.read_bytes()
    path.write_bytes(body[: len(body) // 2].ljust(len(body), b"\0"))

    r = priced("transcribe", path, *MODEL, "--track", str(track), "--json")

    assert (r.code, r.json["is_partial"]) == (3, True), r.err


@pytest.mark.parametrize(("seconds", "expected"), [(0.4, "0.2 s"), (6.0, "3.0 s"), (30.0, "15 s")])
def test_position_of_a_truncation_has_a_decimal_below_ten_seconds(
    priced: CommandLine, tmp_path: Path, seconds: float, expected: str
) -> None:
    body = encode_recording(CONTAINERS["wav"], seconds)
    path = tmp_path / "cut.wav"
    path.write_bytes(body[: 44 + round(seconds / 2 * 48_000)])

    for flags in ((), ("--max-chunk", "1"), ("-m", "openrouter:openai/whisper-large-v3")):
        r = priced("transcribe", path, *(flags if "-m" in flags else (*MODEL, *flags)))

        assert r.code == 3, r.err
        assert f"the recording breaks off after {expected};" in r.err


@pytest.mark.parametrize("name", ["joined mp3 of two bit rates", "mp3 without Xing header, loud first", "joined aac"])
def test_counted_frames_do_not_depend_on_block_boundaries(name: str) -> None:
    body = b"ID3\x04\0\0\0\0\0\x05title" + CASES[name].build()
    rng = random.Random(1)
    reports = set()
    for max_block_bytes in (len(body), 10_000, 700, 1):
        checker = create_integrity_checker(CASES[name].extension, PcmFormat())
        position = 0
        while position < len(body):
            size = rng.randrange(max_block_bytes) + 1
            checker.feed(body[position : position + size])
            position += size
        reports.add(checker.finish())

    assert len(reports) == 1


def test_wav_is_measured_without_the_codec_library(priced: CommandLine, tmp_path: Path) -> None:
    path = write_case("complete wav", tmp_path)
    program = (
        "import sys\n"
        "from audiocli.app import main\n"
        "from audiocli.context import AppContext\n"
        f"code = main(['transcribe', {str(path)!r}, *{MODEL!r}, '-n'], AppContext.from_process())\n"
        "sys.stderr.write(f'{code} {\"av\" in sys.modules}')\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT, env=priced.variables
    )

    assert done.stderr.endswith("0 False"), done.stderr
    assert f"{SECONDS:.1f} s, wav" in done.stdout
