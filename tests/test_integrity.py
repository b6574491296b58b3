"""One integrity check for recordings and for the audio of gateways: truncation, and data after the end of the audio."""

from __future__ import annotations

import array
import io
import math
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
import pytest
from av.audio.stream import AudioStream

from audiocli.audio.byte_reader import NO_AUDIO, IntegrityReport, find_trailing_text
from audiocli.audio.integrity import check_recording, create_integrity_checker, probe_wav, read_stated_duration_s
from audiocli.codecs.convert import read_samples
from audiocli.codecs.probe import probe
from audiocli.codecs.silence import scan_silence
from audiocli.context import AppContext
from audiocli.errors import RecordingError
from audiocli.mock.faults import Garbage
from audiocli.types.audio import PcmFormat
from tests.conftest import CommandLine
from tests.recordings import CONTAINERS, make_recording

CUT_COUNT = 30
MAX_TEST_FILE_BYTES = 64 << 20
ROOT = Path(__file__).parents[1]

# --- formats without a parser, WAV without a codec, and tags before the audio ----------------------------------------


@pytest.mark.parametrize("name", ["m4a", "flac", "mov"])
def test_stated_duration_is_that_of_a_complete_recording(name: str) -> None:
    content = make_recording(name)
    cut = content[: len(content) * 3 // 4]

    assert read_stated_duration_s(io.BytesIO(content), len(content), name) == pytest.approx(2.0, abs=0.1)
    assert read_stated_duration_s(io.BytesIO(cut), len(cut), name) is None
    assert read_stated_duration_s(io.BytesIO(content), len(content), "unknown") is None


@pytest.mark.parametrize(("content", "report"), [(b"", NO_AUDIO), (b"x", IntegrityReport())])
def test_format_without_a_parser_is_checked_for_being_empty(content: bytes, report: IntegrityReport) -> None:
    checker = create_integrity_checker("midi", PcmFormat())
    checker.feed(content)

    assert checker.finish() == report


def test_wav_is_probed_without_a_codec_as_with_one(tmp_path: Path) -> None:
    path, body = tmp_path / "talk.wav", make_recording("wav")
    path.write_bytes(body)

    assert probe_wav(path, body, len(body)) == probe(path)
    assert probe_wav(path, make_recording("flac"), len(body)) is None


@pytest.mark.parametrize("name", ["flac", "aac"])
def test_audio_after_a_tag_is_checked(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"talk.{name}"
    path.write_bytes(b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10) + make_recording(name))
    tagged = check_recording(path)
    path.write_bytes(make_recording(name))

    assert tagged.duration_s is not None and tagged == check_recording(path)


def test_large_samples_are_skipped_and_their_end_is_checked(tmp_path: Path) -> None:
    path, size_bytes = tmp_path / "talk.wav", 1 << 20
    with av.open(path, "w", format="wav") as container:
        stream = cast(AudioStream, container.add_stream("pcm_s16le", rate=16_000, layout="mono"))
        frame = av.AudioFrame(format="s16", layout="mono", samples=size_bytes // 2)
        frame.planes[0].update(bytes(size_bytes))
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
    body = path.read_bytes()
    duration_s = size_bytes / 2 / 16_000

    checker = create_integrity_checker("wav", PcmFormat())
    checker.feed(body[:4096])
    skippable_bytes = checker.skippable_bytes
    checker.feed(body[4096:])

    assert skippable_bytes == pytest.approx(size_bytes, abs=8192)
    assert (checker.finish().problem, checker.skippable_bytes) == (None, 0)
    for present, problem in ((len(body), None), (len(body) - 2, "truncated"), (len(body) // 2, "truncated")):
        path.write_bytes(body[:present])
        assert check_recording(path).problem == problem, present
    path.write_bytes(body + b'{"error": "the server was restarted"}')
    assert check_recording(path).problem == "trailing"
    path.write_bytes(body)
    assert check_recording(path).duration_s == pytest.approx(duration_s, abs=0.01)


# --- truncated recordings --------------------------------------------------------------------------------------------


def cut_recording(name: str, index: int) -> bytes:
    """Return one of `CUT_COUNT` beginnings of a recording."""
    body = make_recording(name)
    return body[: len(body) * index // (CUT_COUNT + 1)]


# Streams of frames without a count: the end of any frame may be the end of the recording.
FORMATS_WITHOUT_COUNT = ("xing-less.mp3", "mp2", "aac", "amr")


def find_frame_borders(name: str) -> set[int]:
    """Return the offsets between two frames of a stream of frames, as FFmpeg finds them."""
    with av.open(io.BytesIO(make_recording(name))) as container:
        return {packet.pos for packet in container.demux(audio=0) if packet.pos is not None}


@pytest.mark.parametrize("name", CONTAINERS)
def test_complete_recording_is_not_truncated(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"talk.{name}"
    path.write_bytes(make_recording(name))

    assert probe(path).size_bytes == len(make_recording(name))
    assert check_recording(path).problem is None
    assert not probe(path).is_truncated
    reader = read_samples(path)
    assert sum(map(len, reader)) > 0
    assert reader.is_complete


@pytest.mark.parametrize("name", CONTAINERS)
def test_cut_recording_is_truncated_or_unreadable(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"talk.{name}"
    missed = []
    for index in range(1, CUT_COUNT + 1):
        path.write_bytes(cut_recording(name, index))
        try:
            if not probe(path).is_truncated:
                missed.append(path.stat().st_size)
        except RecordingError:
            continue

    assert set(missed) <= (find_frame_borders(name) if name in FORMATS_WITHOUT_COUNT else set())
    assert len(missed) <= 2


@pytest.mark.parametrize("name", ["rf64.wav", "au", "flac", "opus", "fragmented.m4a", "live.webm", "wma", "mp3"])
def test_decoding_cut_recording_reports_it_as_incomplete(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"talk.{name}"
    path.write_bytes(cut_recording(name, 20))

    reader = read_samples(path)

    assert sum(map(len, reader)) > 0
    assert not reader.is_complete


def test_cut_recordings_exit_with_partial_alone_and_in_a_directory(audiocli: CommandLine, tmp_path: Path) -> None:
    directory = tmp_path / "talks"
    directory.mkdir()
    paths = [directory / f"{name.replace('.', '-')}.{name.rpartition('.')[2]}" for name in CONTAINERS]
    for path, name in zip(paths, CONTAINERS, strict=True):
        path.write_bytes(cut_recording(name, 25))

    codes = {path.name: audiocli("transcribe", path).code for path in paths}
    batch = audiocli("transcribe", directory)

    assert {name: code for name, code in codes.items() if code not in (3, 8)} == {}
    assert {3, 8} == set(codes.values())
    assert batch.code == 3
    assert batch.err.count("breaks off after") == list(codes.values()).count(3)


@pytest.mark.parametrize("name", ["flac", "opus"])
def test_recording_without_its_last_bytes_is_truncated(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"talk.{name}"
    path.write_bytes(make_recording(name)[:-40])

    assert probe(path).is_truncated
    assert probe(path).duration_s == pytest.approx(2.0, abs=0.2)


def test_ogg_recording_without_end_of_stream_page_is_truncated(tmp_path: Path) -> None:
    body = make_recording("opus")
    path = tmp_path / "talk.opus"
    path.write_bytes(body[: body.rindex(b"OggS")])

    assert probe(path).is_truncated
    assert probe(path).duration_s == pytest.approx(1.9, abs=0.2)


def test_fragmented_recording_cut_between_fragments_is_truncated(tmp_path: Path) -> None:
    body = make_recording("fragmented.m4a")
    path = tmp_path / "talk.m4a"
    path.write_bytes(body[: body.rindex(b"moof") - 4])

    assert probe(path).is_truncated


@pytest.mark.parametrize("name", ["mp3", "xing-less.mp3"])
def test_joined_mp3_recordings_are_not_truncated(tmp_path: Path, name: str) -> None:
    path = tmp_path / "talk.mp3"
    path.write_bytes(make_recording(name) + make_recording("xing-less.mp3", 3.0))

    assert not probe(path).is_truncated


def test_m4a_without_index_is_reported_as_not_finished(audiocli: CommandLine, tmp_path: Path) -> None:
    body = make_recording("m4a")
    path = tmp_path / "talk.m4a"
    path.write_bytes(body[: body.rindex(b"moov") - 4])

    r = audiocli("transcribe", path)

    assert r.code == 8
    assert "not finished: the index (moov) is missing" in r.err
    assert r.posts == []


# --- data after the audio of a recording -----------------------------------------------------------------------------

EXTRA_BYTES = {
    "one byte": b"x",
    "three bytes": b"abc",
    "half a sync word": b"\xff\xf8",
    "some bytes": b"\xc1" + random.Random(4).randbytes(39),
    "many bytes": b"\xc1" + random.Random(5).randbytes(2_000),
    "zeros": bytes(300),
    "page": b"\xc1<html><body>" + b"<p>Service unavailable.</p>" * 20 + b"</body></html>",
}


# Without checksums, bytes after the last frame or packet look like an unfinished one.
WITHOUT_CHECKSUMS = {"alac.caf", "amr", "caf", "ts"}


@pytest.mark.parametrize("kind", EXTRA_BYTES)
@pytest.mark.parametrize("name", [name for name in CONTAINERS if name not in WITHOUT_CHECKSUMS])
def test_recording_with_bytes_after_its_audio_is_not_truncated(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / f"talk.{name}"
    path.write_bytes(make_recording(name) + EXTRA_BYTES[kind])

    recording, reader = probe(path), read_samples(path)

    assert sum(map(len, reader)) > 0
    assert (recording.is_truncated, reader.is_complete) == (False, True)


@pytest.mark.parametrize("name", ["flac", "aac", "mp3"])
def test_byte_after_the_audio_of_a_recording_is_no_failure(audiocli: CommandLine, tmp_path: Path, name: str) -> None:
    path = tmp_path / f"talk.{name}"
    path.write_bytes(make_recording(name) + b"x")

    for flags in ((), ("--range", "0-1"), ("--max-chunk", "1")):
        r = audiocli("transcribe", path, *flags)

        assert (r.code, "breaks off" in r.err) == (0, False), r.err


@pytest.mark.parametrize("appended", [b"x", b"abc", random.Random(6).randbytes(500)], ids=len)
@pytest.mark.parametrize("missing_bytes", [1, 2, 40, 900, 5_000])
def test_cut_flac_with_bytes_after_it_is_truncated(tmp_path: Path, missing_bytes: int, appended: bytes) -> None:
    path = tmp_path / "talk.flac"
    path.write_bytes(make_recording("flac")[:-missing_bytes] + appended)

    assert probe(path).is_truncated


def test_recording_without_its_middle_or_its_end_is_truncated(tmp_path: Path) -> None:
    amr, stream = make_recording("amr", 30.0), make_recording("ts", 30.0)
    half = len(amr) // 2
    contents = {
        "filled.amr": amr[:half] + bytes(len(amr) - half),  # an unfinished download
        "hole.ts": stream[: len(stream) // 2] + stream[len(stream) // 2 + 9_000 :],
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        recording, reader = probe(path), read_samples(path)
        assert sum(map(len, reader)) > 0
        assert recording.is_truncated or not reader.is_complete, name


@pytest.mark.parametrize("seed", range(40))
def test_damaged_frame_of_a_flac_file_is_no_bug(tmp_path: Path, seed: int) -> None:
    random_numbers = random.Random(seed)
    content = make_recording("flac")
    path = tmp_path / "talk.flac"
    for _ in range(20):
        frame = bytearray(content[-random_numbers.randint(20, 4_000) :])
        for _ in range(3):
            frame[random_numbers.randrange(len(frame))] = random_numbers.randrange(256)
        path.write_bytes(content[: -len(frame)] + frame + random_numbers.randbytes(3))
        check_recording(path)


@pytest.mark.parametrize(("layout", "format"), [("mono", "s16"), ("stereo", "s16"), ("stereo", "s32")])
@pytest.mark.parametrize("level", [0, 1, 5, 12])
@pytest.mark.parametrize("sound", ["silence", "noise", "tone", "wide tone"])
def test_end_of_a_flac_frame_is_found_in_every_coding(
    tmp_path: Path, layout: str, format: str, level: int, sound: str
) -> None:
    body = encode_flac(layout, format, level, sound)
    path = tmp_path / "talk.flac"
    problems = []
    for appended in (b"x", random.Random(7).randbytes(100)):
        path.write_bytes(body + appended)
        problems.append(check_recording(path).problem)
    path.write_bytes(body[:-1] + b"xyz")

    assert problems == [None, "trailing"]
    assert check_recording(path).problem == "truncated"


def encode_flac(layout: str, format: str, level: int, sound: str) -> bytes:
    """Return FLAC with a compression level. The low bits of a wide tone are zeros, which FLAC does not store."""
    rng = random.Random(1)
    channels, sample_bytes = {"mono": 1, "stereo": 2}[layout], {"s16": 2, "s32": 4}[format]
    amplitude = 1 << (8 * sample_bytes - 2)
    make_sample = {
        "silence": lambda index: 0,
        "noise": lambda index: rng.randrange(-amplitude, amplitude),
        "tone": lambda index: round(math.sin(index / 20) * amplitude),
        "wide tone": lambda index: round(math.sin(index / 20) * 100) * (amplitude >> 7),
    }[sound]
    samples = array.array("h" if sample_bytes == 2 else "i", (make_sample(index) for index in range(3_000)))
    interleaved = array.array(samples.typecode, (sample for sample in samples for _ in range(channels)))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac") as container:
        stream = cast(
            AudioStream,
            container.add_stream("flac", rate=16_000, layout=layout, options={"compression_level": str(level)}),
        )
        stream.format = av.AudioFormat(format)
        frame = av.AudioFrame(format=format, layout=layout, samples=len(samples))
        frame.planes[0].update(interleaved.tobytes())
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


# --- damaged recordings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTAINERS)
def test_damaged_recording_is_read_or_rejected(tmp_path: Path, name: str) -> None:
    rng = random.Random(name)
    path = tmp_path / f"talk.{name}"
    for _ in range(25):
        body = bytearray(make_recording(name, 0.5))
        for _ in range(rng.choice((1, 3, 20))):
            body[rng.randrange(min(len(body), rng.choice((600, 1 << 20))))] = rng.choice((0, 255, rng.randrange(256)))
        path.write_bytes(body)
        try:
            probe(path)
            for _ in scan_silence(path):
                continue
        except RecordingError as error:
            assert error.message.startswith(str(path))


# --- endless inputs --------------------------------------------------------------------------------------------------


class EndlessStream(io.RawIOBase):
    """A stream that repeats one block. It fails the test if far more is read than is needed to judge it."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self.read_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        self.read_bytes += len(self._block)
        assert self.read_bytes < 100 << 20, "the stream is copied without an end"
        return self._block


@pytest.mark.parametrize("block", [bytes(1 << 20), random.Random(3).randbytes(1 << 20)], ids=["zeros", "random"])
def test_endless_stream_that_is_not_audio_is_rejected(block: bytes, tmp_path: Path) -> None:
    from audiocli.cli.inputs import StdinFormat, open_recording

    app = AppContext(variables={}, stdin=EndlessStream(block), stdout=io.BytesIO(), stderr=io.BytesIO())

    with pytest.raises(RecordingError, match="not a supported recording"), open_recording(app, "-", StdinFormat()):
        pytest.fail("the stream was accepted")


def test_dev_zero_is_rejected(audiocli: CommandLine) -> None:
    # The limit on file sizes protects the disk of the machine that runs the test.
    r = subprocess.run(
        [sys.executable, "-m", "audiocli", "transcribe", "/dev/zero"],
        env=audiocli.variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_TEST_FILE_BYTES, MAX_TEST_FILE_BYTES)),
    )

    assert r.returncode == 8, r.stderr
    assert "/dev/zero" in r.stderr
    assert audiocli.gateway.posts == []


# --- data after the audio of a gateway -------------------------------------------------------------------------------

# What gateways send: the content type, and the audio.
GATEWAY_FORMATS = {
    "mp3": ("audio/mpeg", "xing-less.mp3"),
    "xing.mp3": ("audio/mpeg", "mp3"),
    "aac": ("audio/aac", "aac"),
    "flac": ("audio/flac", "flac"),
    "opus": ("audio/ogg", "opus"),
    "m4a": ("audio/mp4", "m4a"),
    "fragmented.m4a": ("audio/mp4", "fragmented.m4a"),
    "webm": ("audio/webm", "webm"),
    "wav": ("audio/wav", "wav"),
    "streamed.wav": ("audio/wav", "wav"),
    "pcm": ("audio/pcm", "wav"),
}
TEXTS = {
    "text": b"upstream error: the worker was stopped",
    "json": b'{"error":{"message":"Provider returned error","code":502}}',
    "sse": b'\ndata: {"error":{"message":"Provider returned error"}}\n\n',
    "html": b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>\n",
    "long-html": b"<html><body>" + b"<p>Service unavailable, try again later.</p>\n" * 200 + b"</body></html>",
}
# Samples without a length have no end at which appended bytes could be recognized.
UNBOUNDED_FORMATS = ("streamed.wav", "pcm")


def make_gateway_audio(name: str) -> bytes:
    body = make_recording(GATEWAY_FORMATS[name][1])
    if name == "pcm":
        return body[body.index(b"data") + 8 :]
    if name == "streamed.wav":
        start = body.index(b"data") + 4
        return body[:start] + b"\xff" * 4 + body[start + 4 :]
    return body


def speak(audiocli: CommandLine, name: str, appended: bytes) -> tuple[int, str]:
    """Speak with a gateway that sends this audio and more. Return the exit code and the messages."""
    content_type = GATEWAY_FORMATS[name][0]
    audiocli.gateway.queue_faults(Garbage(make_gateway_audio(name) + appended, content_type))
    suffix = name.rpartition(".")[2].replace("webm", "mp3")
    output_path = audiocli.directory / f"out.{suffix}"
    output_path.unlink(missing_ok=True)
    r = audiocli("speak", "hello", "-o", output_path)
    assert output_path.exists() == (r.code == 0)
    return r.code, r.err


@pytest.fixture(params=GATEWAY_FORMATS)
def format_name(request: pytest.FixtureRequest) -> Iterator[str]:
    yield cast(str, request.param)


def test_audio_of_gateway_is_accepted_as_it_is(audiocli: CommandLine, format_name: str) -> None:
    code, messages = speak(audiocli, format_name, b"")

    assert code == 0, messages
    assert "may be truncated" not in messages


def test_text_after_audio_is_an_invalid_response(audiocli: CommandLine, format_name: str) -> None:
    outcomes = {kind: speak(audiocli, format_name, text) for kind, text in TEXTS.items()}

    assert {kind: code for kind, (code, _) in outcomes.items() if code != 9} == {}
    assert all("bytes after the end of the audio" in messages for _, messages in outcomes.values())
    assert "Provider returned error" in outcomes["json"][1]


def test_second_container_after_audio_is_joined_or_an_invalid_response(audiocli: CommandLine, format_name: str) -> None:
    code, messages = speak(audiocli, format_name, make_recording(GATEWAY_FORMATS[format_name][1]))

    if format_name in ("mp3", "xing.mp3", "aac", "opus"):
        assert code == 0, messages
        assert "4." in messages or "3.9" in messages  # seconds: both recordings
    else:
        assert code == 9, messages
        assert "bytes after the end of the audio" in messages


def test_zero_bytes_after_audio_are_padding(audiocli: CommandLine, format_name: str) -> None:
    code, messages = speak(audiocli, format_name, bytes(400))

    assert code == 0, messages


def test_random_bytes_after_audio_are_an_invalid_response(audiocli: CommandLine, format_name: str) -> None:
    code, messages = speak(audiocli, format_name, random.Random(5).randbytes(2_000))

    assert code == (0 if format_name in UNBOUNDED_FORMATS else 9), messages


def test_audio_of_gateway_cut_at_any_place_is_an_invalid_response(audiocli: CommandLine) -> None:
    body = make_recording("flac")
    for missing_bytes in (1, 2, 40, 900, 5_000):
        audiocli.gateway.queue_faults(Garbage(body[:-missing_bytes], "audio/flac"))
        r = audiocli("speak", "hello", "-o", audiocli.directory / "out.flac")

        assert r.code == 9, missing_bytes
        assert "truncated" in r.err


FOREIGN_BODIES = {
    "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)) * 8,
    "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)) * 8,
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + bytes(range(256)) * 8,
    "zip": b"PK\x03\x04\x14\x00" + bytes(range(256)) * 8,
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(range(256)) * 8,
    "webp": b"RIFF\x00\x08\x00\x00WEBPVP8 " + bytes(range(256)) * 8,
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(range(256)) * 8,
}


@pytest.mark.parametrize("kind", FOREIGN_BODIES)
@pytest.mark.parametrize("content_type", ["audio/pcm", "application/octet-stream"])
def test_other_file_is_not_accepted_as_raw_samples(audiocli: CommandLine, kind: str, content_type: str) -> None:
    audiocli.gateway.queue_faults(Garbage(FOREIGN_BODIES[kind], content_type))

    r = audiocli("speak", "hello", "-f", "pcm", "-o", audiocli.directory / "out.pcm")

    assert r.code == 9
    assert "instead of audio" in r.err


@pytest.mark.parametrize("seed", range(20))
def test_samples_do_not_look_like_text(seed: int) -> None:
    rng = random.Random(seed)
    noise = rng.randbytes(4_096)
    square_wave = (b"\x28\x23" * 200 + b"\xd8\xdc" * 200) * 5

    assert find_trailing_text(noise) == ""
    assert find_trailing_text(square_wave[: 2_000 + 2 * seed * 17]) == ""
