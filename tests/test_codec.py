"""Encoder, decoder, probe and conversion: round trips through every format, and errors."""

from __future__ import annotations

import array
import errno
import gc
import io
import itertools
import math
import random
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import BinaryIO

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.audio.formats import G711_FORMATS, OUTPUT_FORMATS, RAW_FORMATS, build_wav_header
from audiocli.audio.wav import UncompressedEncoder
from audiocli.codecs.convert import PcmReader, convert, read_samples
from audiocli.codecs.decoder import Decoder
from audiocli.codecs.encoder import Encoder
from audiocli.codecs.probe import probe
from audiocli.errors import InvalidResponse, RecordingError
from audiocli.types.audio import PcmFormat

RATES = (8_000, 22_050, 24_000, 44_100, 48_000)
COMPRESSED_FORMATS = ("mp3", "flac", "opus", "ogg", "aac", "m4a")


@cache
def build_tone(rate: int, channels: int = 1, seconds: float = 0.4, frequency_hz: float = 440.0) -> bytes:
    step = 2 * math.pi * frequency_hz / rate
    values = (int(9_000 * math.sin(i * step)) for i in range(int(rate * seconds)))
    return array.array("h", (value for value in values for _ in range(channels))).tobytes()


def encode(name: str, pcm: PcmFormat, audio: bytes, *, pipe: bool = False, step: int = 3_001) -> bytes:
    target = None if pipe else io.BytesIO()
    with Encoder(name, pcm, target) as encoder:
        blocks = [encoder.feed(audio[at : at + step]) for at in range(0, len(audio), step)]
        output = b"".join([*blocks, encoder.finish()])
    if target is None:
        return output
    assert not output
    return target.getvalue()


def decode(name: str, body: bytes, pcm: PcmFormat | None = None, sizes: Iterable[int] = ()) -> tuple[PcmFormat, bytes]:
    with Decoder(name, pcm) as decoder:
        output, at, remaining_sizes = bytearray(), 0, list(sizes) or [len(body)]
        while at < len(body):
            size = remaining_sizes[0]
            remaining_sizes.append(remaining_sizes.pop(0))
            output += decoder.feed(body[at : at + size])
            at += size
        for block in decoder.finish():
            output += block
        assert decoder.pcm is not None
        return decoder.pcm, bytes(output)


def measure_frequency_hz(audio: bytes, pcm: PcmFormat) -> float:
    """Count the zero crossings in the middle of the first channel."""
    values = array.array("h", audio)[:: pcm.channels]
    middle = values[len(values) // 4 : len(values) * 3 // 4]
    crossings = sum(1 for a, b in itertools.pairwise(middle) if (a < 0) != (b < 0))
    return crossings / 2 / (len(middle) / pcm.sample_rate_hz)


def write(path: Path, body: bytes) -> Path:
    path.write_bytes(body)
    return path


# --- round trips -----------------------------------------------------------------------------------------------------

# The number of extra samples that may come out, in codec frames. Padding that a container cannot declare (both ends of
# an mp3 in a pipe, of ADTS, of a fragmented m4a) is decoded as a few milliseconds of silence.
FRAME_SAMPLES = {"mp3": 1_152, "aac": 1_024, "m4a": 1_024, "m4b": 1_024, "opus": 960, "ogg": 960}
SPARE_FRAMES = {("mp3", True): 2.0, ("aac", True): 2.0, ("aac", False): 2.0} | {
    (name, pipe): frames for name in ("m4a", "m4b") for pipe, frames in ((True, 2.0), (False, 1.0))
}


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
@pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("channels", [1, 2])
def test_encoded_audio_decodes_to_the_same_audio(name: str, pipe: bool, rate: int, channels: int) -> None:
    pcm = PcmFormat(rate, channels)
    audio = build_tone(rate, channels)

    decoded_pcm, decoded_audio = decode(name, encode(name, pcm, audio, pipe=pipe), pcm)

    spare_samples = SPARE_FRAMES.get((name, pipe), 0) * FRAME_SAMPLES.get(name, 1) + (
        0 if name in ("flac", "wav", "pcm") else 2
    )
    expected_samples = len(audio) / pcm.frame_bytes
    decoded_samples = len(decoded_audio) / decoded_pcm.frame_bytes * rate / decoded_pcm.sample_rate_hz
    assert decoded_pcm.channels == channels or name in ("opus", "ogg", *G711_FORMATS)
    assert -2 <= decoded_samples - expected_samples <= spare_samples
    assert measure_frequency_hz(decoded_audio, decoded_pcm) == pytest.approx(440, rel=0.02)


@pytest.mark.parametrize("name", ["wav", "flac", "pcm"])
def test_lossless_formats_preserve_every_sample(name: str) -> None:
    audio = build_tone(24_000, 2)

    _, decoded_audio = decode(name, encode(name, PcmFormat(24_000, 2), audio), PcmFormat(24_000, 2))

    assert decoded_audio == audio


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_encoding_is_independent_of_block_size(name: str) -> None:
    audio = build_tone(24_000)

    outputs = {encode(name, PcmFormat(), audio, pipe=True, step=step) for step in (7, 999, len(audio))}

    if name in ("opus", "ogg", "m4a", "m4b"):
        # Ogg streams have a random serial number; the first fragment of an m4a begins with the first call.
        outputs = {decode(name, output)[1] for output in outputs}
    assert len(outputs) == 1


@pytest.mark.parametrize("name", ["mp3", "aac", "flac", "wav", "opus"])
@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=9))
def test_decoding_is_independent_of_block_size(name: str, sizes: list[int]) -> None:
    body = encode_tone(name)

    assert decode(name, body, sizes=sizes) == decode(name, body)


@cache
def encode_tone(name: str) -> bytes:
    return encode(name, PcmFormat(), build_tone(24_000))


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_pipe_receives_audio_early(name: str) -> None:
    encoder = Encoder(name, PcmFormat())
    second = build_tone(24_000, seconds=1.0)
    sizes = [len(encoder.feed(second[at : at + 960])) for at in range(0, len(second), 960)]
    encoder.close()

    # After 0.3 s of samples there is more than the headers, and then more at least every 0.3 s.
    assert sum(sizes[:15]) > 300
    assert all(sum(sizes[at : at + 15]) for at in range(0, 45, 5))


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
@pytest.mark.parametrize("pipe", [False, True])
def test_empty_and_partial_samples_are_accepted(name: str, pipe: bool) -> None:
    outputs = [encode(name, PcmFormat(), samples, pipe=pipe) for samples in (b"", b"\x01", b"\x01\x00\x01")]

    assert outputs[0] == outputs[1] or name in ("opus", "ogg")  # Ogg streams have random serial numbers
    assert len(outputs[2]) >= len(outputs[0])


def test_six_channels_are_mixed_down() -> None:
    decoded_pcm, decoded_audio = decode("flac", encode("flac", PcmFormat(24_000, 6), build_tone(24_000, 6)))

    assert decoded_pcm == PcmFormat(24_000, 2)
    assert len(decoded_audio) == len(build_tone(24_000, 2))


def test_uncompressed_encoder_equals_encoder() -> None:
    audio, file = build_tone(24_000), io.BytesIO()
    uncompressed = UncompressedEncoder("wav", PcmFormat(), file)
    uncompressed.feed(audio)
    uncompressed.finish()

    assert file.getvalue() == encode("wav", PcmFormat(), audio) == build_wav_header(PcmFormat(), len(audio)) + audio


# --- write errors ----------------------------------------------------------------------------------------------------


class SmallDisk(io.BytesIO):
    """A file on a disk with a number of free bytes."""

    def __init__(self, free_bytes: int) -> None:
        super().__init__()
        self.free_bytes = free_bytes

    def write(self, block: object) -> int:
        self.free_bytes -= memoryview(block).nbytes  # type: ignore[arg-type]
        if self.free_bytes < 0:
            raise OSError(errno.ENOSPC, "no space left on device")
        return super().write(block)  # type: ignore[arg-type]


def write_tone(name: str, target: BinaryIO) -> Encoder:
    encoder = Encoder(name, PcmFormat(), target)
    audio = build_tone(24_000)
    for at in range(0, len(audio), 4_000):
        encoder.feed(audio[at : at + 4_000])
    encoder.finish()
    return encoder


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_full_disk_is_reported_at_every_byte(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    large_disk = SmallDisk(1 << 30)
    write_tone(name, large_disk)
    needed_bytes = (1 << 30) - large_disk.free_bytes

    for free_bytes in (*range(0, needed_bytes, max(needed_bytes // 60, 1)), needed_bytes - 1):
        with pytest.raises(OSError) as caught:
            write_tone(name, SmallDisk(free_bytes))
        assert caught.value.errno == errno.ENOSPC
    gc.collect()

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_closed_encoder_writes_nothing_more(name: str) -> None:
    target = io.BytesIO()
    encoder = Encoder(name, PcmFormat(), target)
    encoder.feed(build_tone(24_000))
    before = target.getvalue()
    encoder.close()
    encoder.close()
    del encoder
    gc.collect()

    assert target.getvalue() == before


@pytest.mark.parametrize("name", COMPRESSED_FORMATS)
def test_abandoned_encoder_is_collected_without_output(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    target = io.BytesIO()
    encoder = Encoder(name, PcmFormat(), target)
    encoder.feed(build_tone(24_000))
    target.close()
    del encoder
    gc.collect()

    assert capfd.readouterr() == ("", "")


def test_encoder_can_change_threads() -> None:
    audio, output = build_tone(24_000), bytearray()
    with Encoder("mp3", PcmFormat()) as encoder:
        for at in range(0, len(audio), 4_000):
            worker = threading.Thread(target=lambda at=at: output.extend(encoder.feed(audio[at : at + 4_000])))
            worker.start()
            worker.join()
        output += encoder.finish()

    assert bytes(output) == encode("mp3", PcmFormat(), audio, pipe=True)


# --- invalid responses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*OUTPUT_FORMATS, "webm"])
@pytest.mark.parametrize("body", [b"", b"{}", b"<html>" * 500, bytes(3_000)], ids=["empty", "json", "html", "zeros"])
def test_undecodable_response_is_invalid(name: str, body: bytes) -> None:
    if name in RAW_FORMATS and body:
        return

    with pytest.raises(InvalidResponse):
        decode(name, body)


@pytest.mark.parametrize("name", [name for name in OUTPUT_FORMATS if name not in ("pcm", "m4a", "m4b")])
def test_truncated_response_is_decoded_to_its_end(name: str) -> None:
    body = encode(name, PcmFormat(), build_tone(24_000, seconds=1.0), pipe=True)

    decoded_pcm, decoded_audio = decode(name, body[: len(body) * 2 // 3])

    assert 0.4 < len(decoded_audio) / decoded_pcm.bytes_per_second < 0.8


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(OUTPUT_FORMATS), at=st.integers(0, 1 << 16), garbage=st.binary(max_size=40))
def test_damaged_response_is_decoded_or_refused(name: str, at: int, garbage: bytes) -> None:
    body = encode_tone(name)
    at %= len(body)
    try:
        decoded_pcm, decoded_audio = decode(name, body[:at] + garbage + body[at + 10 :], PcmFormat())
    except InvalidResponse:
        return

    assert name in ("pcm", "wav") or len(decoded_audio) % decoded_pcm.frame_bytes == 0


@pytest.mark.parametrize(
    ("tag", "bits", "sample"), [(3, 32, struct.pack("<f", 0.5)), (1, 24, b"\x00\x00\x40"), (1, 8, b"\xc0")]
)
def test_wav_samples_of_other_formats_become_16_bit(tag: int, bits: int, sample: bytes) -> None:
    decoded_pcm = struct.pack("<HHIIHH", tag, 1, 8_000, 1_000 * bits, bits // 8, bits)
    body = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0" + decoded_pcm + b"data\xff\xff\xff\xff" + sample * 800

    pcm, decoded_audio = decode("wav", body)

    assert pcm == PcmFormat(8_000, 1)
    assert array.array("h", decoded_audio) == array.array("h", [16_384] * 800)


def test_mp3_with_sync_words_in_its_cover_loses_nothing() -> None:
    body = encode("mp3", PcmFormat(), build_tone(24_000), pipe=True)
    audio = body[body.index(b"\xff\xf3") :]
    cover = b"ID3\x04\x00\x00\x00\x00\x20\x00" + b"\xff\xf3\x84\xc4" * 1_024

    assert decode("mp3", cover + audio, sizes=[100]) == decode("mp3", audio)


# --- recordings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mp3", "flac", "opus", "aac", "m4a", "wav"])
def test_recording_format_is_detected_by_content(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "recording.txt", encode(name, PcmFormat(), build_tone(24_000, seconds=1.0)))

    info = probe(path)

    assert (info.format, info.has_video) == (name, False)
    assert info.size_bytes == path.stat().st_size
    assert info.duration_s == pytest.approx(1.0, abs=0.1)


def write_video(path: Path, *, audio: bool = True, start_s: float = 0.0) -> Path:
    """Write a gray video of 1.5 s with one second of audio that starts at `start_s`."""
    with av.open(str(path), "w") as container:
        video_stream = container.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        if audio:
            audio = container.add_stream("aac", rate=24_000, layout="mono")
            frame = av.AudioFrame(format="s16", layout="mono", samples=24_000)
            frame.planes[0].update(build_tone(24_000, seconds=1.0))
            frame.sample_rate, frame.pts = 24_000, int(start_s * 24_000)
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
        for _ in range(15):
            frame_image = av.VideoFrame(32, 32, "yuv420p")
            for plane in frame_image.planes:
                plane.update(bytes([128]) * plane.buffer_size)
            container.mux(video_stream.encode(frame_image))
        container.mux(video_stream.encode(None))
    return path


def test_video_file_has_a_readable_audio_track(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mp4")

    info, audio = probe(path), read_samples(path)
    decoded_samples = b"".join(audio)

    assert (info.format, info.has_video) == ("mp4", True)
    assert measure_frequency_hz(decoded_samples, audio.pcm) == pytest.approx(440, rel=0.02)


def test_audio_that_starts_after_the_video_has_its_offset(tmp_path: Path) -> None:
    path = write_video(tmp_path / "late.mkv", start_s=0.5)

    values = array.array("h", b"".join(read_samples(path)))

    assert max(values[:7_000]) < 200 < max(values[8_500:12_000])


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_audio_without_gaps_gets_no_gaps(tmp_path: Path, rate: int) -> None:
    source = write(tmp_path / "in.m4a", encode("m4a", PcmFormat(rate), build_tone(rate, seconds=4.0)))

    audio = read_samples(source)
    decoded_samples = b"".join(audio)

    assert audio.position_s == pytest.approx(4.0, abs=1_100 / rate)
    assert max(map(abs, array.array("h", decoded_samples[-20_000:-8_000]))) > 8_000


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "empty"),
        (b"just words\n" * 20, "text"),
        (b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n", "text"),
        (build_wav_header(PcmFormat(), 0), "no samples"),
        (random.Random(1).randbytes(3_000), "not a supported recording"),
    ],
)
def test_file_without_audio_is_a_recording_error(tmp_path: Path, body: bytes, message: str) -> None:
    path = write(tmp_path / "x.mp3", body)

    with pytest.raises(RecordingError, match=message) as caught:
        probe(path)
    with pytest.raises(RecordingError):
        list(read_samples(path))

    assert caught.value.exit_code == 8


def test_video_without_audio_track_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no audio track"):
        probe(write_video(tmp_path / "mute.mp4", audio=False))


def test_missing_recording_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        probe(tmp_path / "no.mp3")


def test_non_utf8_tags_are_ignored(tmp_path: Path) -> None:
    text = b"\x00Gr\xfc\xdfe"
    tag = (
        b"TPE1"
        + struct.pack(">IH", len(text), 0)
        + text
        + b"TXXX"
        + struct.pack(">IH", 7, 0)
        + b"\x03\xff\xfe\x00\xe9\xe9\xe9"
    )
    path = write(
        tmp_path / "old.mp3",
        b"ID3\x03\x00\x00\x00\x00\x00"
        + bytes([len(tag)])
        + tag
        + encode("mp3", PcmFormat(), build_tone(24_000), pipe=True)[45:],
    )

    assert probe(path).format == "mp3"


@pytest.mark.parametrize("name", ["opus", "flac", "mp3", "wav", "m4a"])
def test_recording_is_converted_in_steps(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "in.mp3", encode("mp3", PcmFormat(44_100, 2), build_tone(44_100, 2, seconds=3.0)))
    target = tmp_path / "out"

    conversion = convert(source, target, name)
    positions_s = list(conversion)

    assert positions_s == sorted(positions_s)
    assert positions_s[-1] == conversion.position_s == pytest.approx(3.0, abs=0.01)
    assert conversion.is_complete
    assert probe(target).duration_s == pytest.approx(3.0, abs=0.1)


def test_samples_come_in_small_blocks_without_gaps(tmp_path: Path) -> None:
    source = write(tmp_path / "in.flac", encode("flac", PcmFormat(16_000), build_tone(16_000, seconds=3.0)))

    blocks = list(read_samples(source))

    assert b"".join(blocks) == build_tone(16_000, seconds=3.0)
    assert max(map(len, blocks)) <= 40_000


@pytest.mark.parametrize("name", ["mp3", "flac", "wav"])
def test_truncated_recording_is_read_to_its_end(tmp_path: Path, name: str) -> None:
    body = encode(name, PcmFormat(), build_tone(24_000, seconds=3.0))
    source = write(tmp_path / "in", body[: len(body) // 2])

    audio = read_samples(source)
    decoded_samples = b"".join(audio)

    assert not audio.is_complete
    assert 1.2 < len(decoded_samples) / audio.pcm.bytes_per_second == audio.position_s < 1.8


def test_cancelled_or_failed_conversion_leaves_no_file(tmp_path: Path) -> None:
    source = write(tmp_path / "in.wav", encode("wav", PcmFormat(), build_tone(24_000, seconds=20.0)))
    broken = write(tmp_path / "broken.mp3", b"\xff\xfb\x90\xc4" + bytes(3_000))
    target = tmp_path / "out.mp3"

    conversion = convert(source, target, "mp3")
    next(conversion)
    conversion.close()
    with pytest.raises(RecordingError):
        list(convert(broken, target, "mp3"))

    assert not target.exists()


def test_reading_can_stop_at_any_time(tmp_path: Path) -> None:
    source = write(tmp_path / "in.wav", encode("wav", PcmFormat(), build_tone(24_000, seconds=3.0)))

    audio = PcmReader(source, 16_000, 1)
    next(audio)
    audio.close()

    assert list(audio) == []


def test_libav_writes_nothing_to_the_terminal(tmp_path: Path) -> None:
    body = encode("mp3", PcmFormat(), build_tone(24_000, seconds=2.0))
    source = write(tmp_path / "in.mp3", body[:3_000] + random.Random(1).randbytes(500) + body[3_500:-100])
    script = (
        "import sys; from pathlib import Path; from audiocli.codecs.convert import read_samples; "
        "print(sum(map(len, read_samples(Path(sys.argv[1])))) > 0)"
    )

    done = subprocess.run([sys.executable, "-c", script, str(source)], capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("True\n", "")
