"""Chunks of recordings that are copied packet by packet: the same audio at the declared position."""

from __future__ import annotations

import array
import io
import itertools
import math
import operator
import random
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import pytest

from audiocli.audio.chunk_boundaries import SPLIT_RATE_HZ, AudioChunk, ChunkLimits, plan_chunks
from audiocli.audio.mp3_bit_reservoir import build_silent_frame, parse_reservoir_bytes, read_reservoir_tail
from audiocli.audio.mpeg import parse_mpeg_header
from audiocli.codecs.audio_chunk_writer import AudioChunkWriter, ChunkWriting
from audiocli.codecs.convert import read_samples
from audiocli.codecs.packet_index import PacketIndex, PacketStats
from audiocli.codecs.probe import probe
from audiocli.codecs.silence import SilenceScan, scan_silence
from audiocli.errors import RecordingError
from audiocli.text.merge import shift_transcript
from audiocli.types.transcripts import Transcript, Word

SECONDS = 8
# Name of the file: container, codec, rate, options of the encoder.
RECORDINGS = {
    "steady.mp3": ("mp3", "libmp3lame", 44_100, {"b": "64000"}),
    "small.mp3": ("mp3", "libmp3lame", 16_000, {"b": "24000"}),
    "varying.mp3": ("mp3", "libmp3lame", 24_000, {"q": "4", "b": "0", "flags": "+qscale", "global_quality": "472"}),
    "index.m4a": ("ipod", "aac", 44_100, {"b": "64000"}),
    "picture.mp4": ("mp4", "aac", 48_000, {"b": "64000"}),
    "in.mov": ("mov", "aac", 16_000, {"b": "32000"}),
    "in.opus": ("ogg", "libopus", 48_000, {"b": "32000"}),
    "long.opus": ("ogg", "libopus", 16_000, {"b": "24000", "frame_duration": "60"}),
    "in.webm": ("webm", "libopus", 48_000, {"b": "32000"}),
    "vorbis.ogg": ("ogg", "vorbis", 44_100, {"strict": "experimental"}),
    "vorbis.webm": ("webm", "vorbis", 48_000, {"strict": "experimental"}),
    "in.wav": ("wav", "pcm_s16le", 22_050, {}),
    "deep.wav": ("wav", "pcm_s24le", 48_000, {}),
}


@cache
def build_clicks(rate: int) -> bytes:
    """Return a burst every half second, each with another pitch, over noise."""
    values, noise, hiss = array.array("h"), random.Random(7), 0
    for at in range(rate * SECONDS):
        tick, offset = divmod(at, rate // 2)
        burst = 14_000 * math.sin(2 * math.pi * (300 + 83 * tick) * offset / rate) if offset < rate // 20 else 0.0
        if at % (rate // 2_000) == 0:
            hiss = noise.randint(-900, 900)
        values.append(int(burst) + hiss)
    return values.tobytes()


def write_recording(path: Path) -> Path:
    """Write the recording that RECORDINGS describes under the name of the file."""
    container, codec, rate, options = RECORDINGS[path.name]
    with av.open(str(path), "w", format=container) as container:
        video_stream = container.add_stream("mpeg4", rate=10) if path.name == "picture.mp4" else None
        layout = "stereo" if codec == "vorbis" else "mono"
        stream = container.add_stream(codec, rate=rate, layout=layout, options=options)
        if video_stream is not None:
            video_stream.width = video_stream.height = 64
            for number in range(10 * SECONDS):
                frame = av.VideoFrame(64, 64, "yuv420p")
                frame.pts = number
                container.mux(video_stream.encode(frame))
            container.mux(video_stream.encode(None))
        content, step = build_clicks(rate), 640 if codec == "vorbis" else rate
        for at in range(0, rate * SECONDS, step):
            part = content[2 * at : 2 * (at + step)]
            audio = av.AudioFrame(format="s16", layout="mono", samples=len(part) // 2, align=1)
            audio.planes[0].update(part)
            audio.sample_rate, audio.pts, audio.time_base = rate, at, Fraction(1, rate)
            container.mux(stream.encode(audio))
        container.mux(stream.encode(None))
    return path


def scan_recording(path: Path) -> tuple[SilenceScan, PacketIndex]:
    silence_scan = scan_silence(path)
    list(silence_scan)
    assert silence_scan.packet_index is not None
    return silence_scan, silence_scan.packet_index


def decode_without_timestamps(path: Path) -> array.array[int]:
    """Decode as a server does: every sample of the decoder, without the timestamps of the container."""
    samples = array.array("h")
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("s16", "mono", SPLIT_RATE_HZ)
        for frame in itertools.chain(container.decode(audio=0), [None]):
            if frame is not None:
                frame.pts = None
            for resampled in resampler.resample(frame):
                samples.frombytes(bytes(resampled.planes[0])[: 2 * resampled.samples])
    return samples


def compute_similarity(samples: array.array[int], chunk_samples: array.array[int], start: int, at: int) -> float:
    """Return the best correlation (at most 1.0) of part of a chunk and the recording, within 3 ms of its position."""
    expected = chunk_samples[at : at + 8_000 : 7]
    power, best = sum(x * x for x in expected) or 1, 0.0
    for shift in range(-48, 49):
        actual = samples[max(start + at + shift, 0) :][: 7 * len(expected) : 7]
        product = sum(map(operator.mul, expected, actual))
        best = max(best, product / math.sqrt(power * (sum(map(operator.mul, actual, actual)) or 1)))
    return best


def copy_chunk(splitter: AudioChunkWriter, chunk: AudioChunk, target: Path) -> ChunkWriting:
    writer = splitter.write_chunk(chunk, target, target.suffix.removeprefix("."))
    positions_s = list(writer)
    assert positions_s == sorted(positions_s) and positions_s[-1] == chunk.duration_s
    return writer


@pytest.mark.parametrize("name", RECORDINGS)
def test_copied_chunk_has_the_audio_of_its_position(tmp_path: Path, name: str) -> None:
    source = write_recording(tmp_path / name)
    silence_scan, packet_index = scan_recording(source)
    samples = array.array("h", b"".join(read_samples(source)))
    splitter = AudioChunkWriter(source, packet_index)
    chunks = [
        AudioChunk(0, 41_003),
        AudioChunk(39_001, 100_000),
        AudioChunk(20_011, 70_000),
        AudioChunk(90_000, silence_scan.sample_count),
    ]

    for number, chunk in enumerate(chunks):
        target = tmp_path / f"{number}.{packet_index.formats[0]}"
        writer = copy_chunk(splitter, chunk, target)
        audio = decode_without_timestamps(target)

        # The copy starts at most 0.2 s before the chunk and ends after it.
        assert chunk.start_s - 0.2 < writer.start_s <= chunk.start_s + 0.001
        # The last AAC frame may be declared as padding and be decoded anyway.
        assert chunk.end_s - (0.05 if chunk is chunks[-1] else 0.003) <= writer.end_s < chunk.end_s + 0.1
        assert len(audio) / SPLIT_RATE_HZ == pytest.approx(
            writer.end_s - writer.start_s, abs=0.05 if chunk is chunks[-1] else 0.01
        )
        start = round(writer.start_s * SPLIT_RATE_HZ)
        for at in (chunk.start - start + 800, len(audio) - 9_500):
            assert compute_similarity(samples, audio, start, at) > 0.95, (number, at)
    splitter.close()


@pytest.mark.parametrize("name", ["steady.mp3", "picture.mp4", "in.opus", "in.wav"])
def test_chunks_cover_the_whole_recording(tmp_path: Path, name: str) -> None:
    source = write_recording(tmp_path / name)
    silence_scan, packet_index = scan_recording(source)
    chunks = plan_chunks(
        silence_scan.sample_count, silence_scan.silences, ChunkLimits(2.5, 0.3), pauses=silence_scan.pauses
    )
    splitter = AudioChunkWriter(source, packet_index)

    writers = [copy_chunk(splitter, chunk, tmp_path / f"{chunk.start}.{packet_index.formats[0]}") for chunk in chunks]
    splitter.close()

    assert len(writers) >= 4
    assert writers[0].start_s <= 0 and writers[-1].end_s >= silence_scan.position_s - 0.05
    assert all(a.end_s >= b.start_s for a, b in itertools.pairwise(writers))


@pytest.mark.parametrize("target", ["m4a", "mp4"])
def test_only_the_audio_of_a_video_is_copied(tmp_path: Path, target: str) -> None:
    source = write_recording(tmp_path / "picture.mp4")
    _, packet_index = scan_recording(source)

    copy_chunk(AudioChunkWriter(source, packet_index), AudioChunk(16_000, 80_000), tmp_path / f"out.{target}")
    info = probe(tmp_path / f"out.{target}")

    assert info.format == target and not info.has_video
    assert info.duration_s == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("target", ["opus", "ogg", "webm"])
def test_opus_can_be_remuxed(tmp_path: Path, target: str) -> None:
    source = write_recording(tmp_path / "in.webm")
    _, packet_index = scan_recording(source)

    copy_chunk(AudioChunkWriter(source, packet_index), AudioChunk(16_000, 80_000), tmp_path / f"out.{target}")

    assert probe(tmp_path / f"out.{target}").format == ("webm" if target == "webm" else "opus")


def test_copied_vbr_mp3_declares_its_duration(tmp_path: Path) -> None:
    source = write_recording(tmp_path / "varying.mp3")
    _, packet_index = scan_recording(source)

    writer = copy_chunk(AudioChunkWriter(source, packet_index), AudioChunk(16_000, 112_000), tmp_path / "out.mp3")

    assert b"Xing" in (tmp_path / "out.mp3").read_bytes()[:60]
    assert probe(tmp_path / "out.mp3").duration_s == pytest.approx(writer.end_s - writer.start_s, abs=0.01)


def test_mp3_bit_reservoir_is_complete_in_copied_chunk(tmp_path: Path) -> None:
    source = write_recording(tmp_path / "steady.mp3")
    _, packet_index = scan_recording(source)
    copy_chunk(AudioChunkWriter(source, packet_index), AudioChunk(60_000, 90_000), tmp_path / "out.mp3")
    content = (tmp_path / "out.mp3").read_bytes()

    frames = []
    while frame := parse_mpeg_header(content[:4]):
        frames.append(content[: frame.size_bytes])
        content = content[frame.size_bytes :]

    assert not content and parse_reservoir_bytes(frames[0]) == 0
    assert all(
        len(read_reservoir_tail(frames[:index], 511)) >= parse_reservoir_bytes(frames[index])
        for index in range(1, len(frames))
    )
    blank = build_silent_frame(frames[1], b"x" * 300)
    assert parse_mpeg_header(blank).size_bytes == len(blank) and blank.endswith(b"x" * 300)  # type: ignore[union-attr]


def test_other_formats_are_encoded(tmp_path: Path) -> None:
    source = write_recording(tmp_path / "steady.mp3")
    _, packet_index = scan_recording(source)

    writer = AudioChunkWriter(source, packet_index).write_chunk(
        AudioChunk(8_001, 40_000), tmp_path / "out.flac", "flac"
    )
    list(writer)

    assert (writer.start_s, writer.end_s) == (8_001 / SPLIT_RATE_HZ, 2.5)
    assert b"".join(read_samples(tmp_path / "out.flac")) == b"".join(read_samples(source))[2 * 8_001 : 2 * 40_000]


def test_chunks_are_identical_in_any_order(tmp_path: Path) -> None:
    source = write_recording(tmp_path / "in.opus")
    _, packet_index = scan_recording(source)
    chunks = [AudioChunk(0, 30_000), AudioChunk(25_000, 60_000), AudioChunk(100_000, 125_000)]
    copies = []

    for order in ((0, 1, 2), (2, 1, 0)):
        splitter = AudioChunkWriter(source, packet_index)
        copies.append({number: copy_and_decode(splitter, chunks[number], tmp_path / "out.wav") for number in order})

    assert copies[0] == copies[1]


def copy_and_decode(splitter: AudioChunkWriter, chunk: AudioChunk, target: Path) -> tuple[float, bytes]:
    path = target.with_suffix(".webm")
    writer = copy_chunk(splitter, chunk, path)
    return writer.start_s, decode_without_timestamps(path).tobytes()


@pytest.mark.parametrize("name", ["steady.mp3", "index.m4a", "in.opus", "in.wav"])
def test_cancelled_copy_leaves_no_file_and_the_next_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("audiocli.codecs.stream_copy.MAX_STEP_S", 0.0)
    source = write_recording(tmp_path / name)
    silence_scan, packet_index = scan_recording(source)
    splitter, target = AudioChunkWriter(source, packet_index), tmp_path / f"out.{packet_index.formats[0]}"

    writer = splitter.write_chunk(AudioChunk(0, silence_scan.sample_count), target, packet_index.formats[0])
    next(writer)
    assert target.exists()
    writer.close()

    assert not target.exists() and list(writer) == []
    assert copy_chunk(splitter, AudioChunk(16_000, 32_000), target).end_s >= 1.997
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, target.name])


@pytest.mark.parametrize("name", ["steady.mp3", "in.opus", "in.wav"])
def test_recording_that_became_shorter_is_an_error(tmp_path: Path, name: str) -> None:
    source = write_recording(tmp_path / name)
    silence_scan, packet_index = scan_recording(source)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    target = tmp_path / f"out.{packet_index.formats[0]}"

    for start in (0, 100_000):
        with pytest.raises(RecordingError, match="shorter than"):
            list(
                AudioChunkWriter(source, packet_index).write_chunk(
                    AudioChunk(start, silence_scan.sample_count), target, packet_index.formats[0]
                )
            )
    assert not target.exists()


def test_damage_in_the_middle_does_not_shift_positions(tmp_path: Path) -> None:
    source = write_recording(tmp_path / "steady.mp3")
    content = bytearray(source.read_bytes())
    content[20_000:21_500] = random.Random(1).randbytes(1_500)
    source.write_bytes(content)
    silence_scan = scan_silence(source)
    list(silence_scan)
    samples = array.array("h", b"".join(read_samples(source)))
    chunk = AudioChunk(70_000, 120_000)

    # Without a known position, the chunk is not copied.
    if silence_scan.packet_index is not None:
        writer = copy_chunk(AudioChunkWriter(source, silence_scan.packet_index), chunk, tmp_path / "out.mp3")
        start = round(writer.start_s * SPLIT_RATE_HZ)
        assert compute_similarity(samples, decode_without_timestamps(tmp_path / "out.mp3"), start, 20_000) > 0.95


def test_formats_that_cannot_be_copied_exactly_have_no_index(tmp_path: Path) -> None:
    stats = PacketStats(("mp3",))
    flac = io.BytesIO()
    with av.open(flac, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=16_000, layout="mono")
        audio = av.AudioFrame(format="s16", layout="mono", samples=16_000, align=1)
        audio.planes[0].update(build_clicks(16_000)[:32_000])
        audio.sample_rate = 16_000
        container.mux(stream.encode(audio))
        container.mux(stream.encode(None))
    (tmp_path / "in.flac").write_bytes(flac.getvalue())
    silence_scan = scan_silence(tmp_path / "in.flac")
    list(silence_scan)

    stats.add_frame(0.0, 0.0, 1, 100)
    stats.add_frame(5.0, 1.0, 2, 200)

    assert silence_scan.packet_index is None
    assert stats.build_index(2.0) is None


def test_highest_bit_rate_bounds_the_chunk_length() -> None:
    stats = PacketStats(("mp3", "opus"))
    for second in range(100):
        busy = 30_000 if 40 <= second < 50 else 1_000
        size = second * 1_000 + 29_000 * max(0, min(second, 50) - 40)
        stats.add_frame(float(second), float(second), 0, size)
        assert busy
    packet_index = stats.build_index(100.0)

    assert packet_index is not None and packet_index.bytes_per_s == 30_000
    assert 0 < packet_index.compute_max_chunk_s(3_000_000) < 80
    assert packet_index.choose_format([("wav", "opus"), ("*",)]) == "opus"
    assert packet_index.choose_format([("wav",)]) is None
    assert packet_index.get_shift_s(-1.0) == packet_index.get_shift_s(99.0) == 0.0


def test_times_of_copied_chunk_are_shifted_to_the_chunk() -> None:
    words = (Word(0.02, 0.3, "one"), Word(0.4, 0.6, "two"))

    shifted = shift_transcript(Transcript("one two", words=words), -0.06)

    assert [(round(word.start_s, 3), round(word.end_s, 3)) for word in shifted.words] == [(0.0, 0.24), (0.34, 0.54)]
