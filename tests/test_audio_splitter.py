"""Silence scan, splitting of recordings into chunks, and concatenation of speech, with real audio files."""

from __future__ import annotations

import array
import errno
import io
import itertools
import math
import time
from functools import cache
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.audio.chunk_boundaries import SPLIT_RATE_HZ, AudioChunk, ChunkLimits, Span, plan_chunks
from audiocli.codecs.audio_chunk_writer import AudioChunkWriter
from audiocli.codecs.concat import PcmConcatenator
from audiocli.codecs.convert import read_samples
from audiocli.codecs.encoder import Encoder
from audiocli.codecs.pcm_spool import PcmSpool, has_disk_space
from audiocli.codecs.probe import probe
from audiocli.codecs.silence import SilenceScan, scan_silence
from audiocli.errors import RecordingError
from audiocli.types.audio import PcmFormat
from tests.test_local import SPEAK_RATE_HZ, speak

SOURCES = ("mp3", "m4a", "opus", "webm", "wav", "flac")


@cache
def build_tone(rate: int, seconds: float, channels: int = 1, peak: int = 9_000) -> bytes:
    radians = 2 * math.pi * 440 / rate
    values = (int(peak * math.sin(i * radians)) for i in range(round(rate * seconds)))
    return array.array("h", (value for value in values for _ in range(channels))).tobytes()


@cache
def build_tone_and_silence(rate: int, *lengths_s: float, channels: int = 1) -> bytes:
    """Return a tone and silence by turns, each for the given number of seconds."""
    return b"".join(
        bytes(2 * channels * round(rate * seconds)) if index % 2 else build_tone(rate, seconds, channels)
        for index, seconds in enumerate(lengths_s)
    )


def write_recording(path: Path, audio: bytes, pcm: PcmFormat) -> Path:
    """Write a recording in the format of its extension."""
    name = path.suffix.removeprefix(".")
    with path.open("wb") as file:
        if name != "webm":
            with Encoder(name, pcm, file) as encoder:
                encoder.feed(audio)
                encoder.finish()
            return path
        with av.open(file, "w", format="webm") as container:
            stream = container.add_stream("libopus", rate=48_000, layout="mono" if pcm.channels == 1 else "stereo")
            frame = av.AudioFrame(format="s16", layout=stream.layout, samples=len(audio) // pcm.frame_bytes, align=1)
            frame.planes[0].update(audio)
            frame.sample_rate = pcm.sample_rate_hz
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def scan(path: Path) -> SilenceScan:
    silence_scan = scan_silence(path)
    positions_s = list(silence_scan)
    assert positions_s == sorted(positions_s) and positions_s[-1] == silence_scan.position_s
    return silence_scan


def round_spans(spans: tuple[Span, ...], digits: int = 3) -> list[tuple[float, float]]:
    return [(round(span.start_s, digits), round(span.end_s, digits)) for span in spans]


# --- silence scan ----------------------------------------------------------------------------------------------------


def test_silences_are_found_to_a_window_and_are_never_too_long(tmp_path: Path) -> None:
    audio = bytes(16_000) + build_tone_and_silence(SPLIT_RATE_HZ, 1.0, 0.35, 0.1, 0.25, 2.0, 1.7)

    silence_scan = scan(write_recording(tmp_path / "in.wav", audio, PcmFormat(SPLIT_RATE_HZ)))

    assert silence_scan.sample_count == len(audio) // 2 and silence_scan.is_complete
    assert round_spans(silence_scan.silences) == [(0, 0.5), (1.5, 1.84), (4.2, 5.9)]
    assert silence_scan.silences[-1].end_s == silence_scan.position_s
    assert silence_scan.pauses == silence_scan.silences


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(("rate", "channels"), [(48_000, 1), (48_000, 2), (24_000, 1)])
def test_silences_are_found_in_every_format(tmp_path: Path, name: str, rate: int, channels: int) -> None:
    if name == "webm" and rate != 48_000:
        rate = 16_000
    source = write_recording(
        tmp_path / f"in.{name}",
        build_tone_and_silence(rate, 1.0, 0.5, 1.0, channels=channels),
        PcmFormat(rate, channels),
    )

    silence_scan = scan(source)

    # The scan uses the original rate and channels; it is as long as the decoded samples, or one sample shorter.
    assert 0 <= sum(map(len, read_samples(source))) // 2 - silence_scan.sample_count <= 1
    assert silence_scan.position_s == pytest.approx(2.5, abs=0.07)
    assert [pytest.approx(span, abs=0.08) for span in round_spans(silence_scan.silences)] == [(1.0, 1.5)]


def test_quiet_audio_is_a_pause_but_not_silence(tmp_path: Path) -> None:
    hiss, hum = build_tone(SPLIT_RATE_HZ, 1.0, peak=200), build_tone(SPLIT_RATE_HZ, 1.0, peak=400)
    loud = build_tone(SPLIT_RATE_HZ, 1.0)

    silence_scan = scan(
        write_recording(tmp_path / "in.flac", loud + hiss + loud + hum + loud, PcmFormat(SPLIT_RATE_HZ))
    )

    assert silence_scan.silences == ()
    assert round_spans(silence_scan.pauses, 2) == [(1.0, 2.0)]


def test_inverted_stereo_channel_is_not_silence(tmp_path: Path) -> None:
    audio = array.array("h", (v for s in array.array("h", build_tone(SPLIT_RATE_HZ, 1.0)) for v in (s, -s))).tobytes()

    assert scan(write_recording(tmp_path / "in.wav", audio, PcmFormat(SPLIT_RATE_HZ, 2))).silences == ()


@pytest.mark.parametrize("name", ["mp3", "flac", "wav"])
def test_truncated_recording_is_scanned_and_split_to_its_end(tmp_path: Path, name: str) -> None:
    complete = write_recording(tmp_path / f"whole.{name}", build_tone(24_000, 4.0), PcmFormat())
    source = tmp_path / f"in.{name}"
    source.write_bytes(complete.read_bytes()[: complete.stat().st_size // 2])

    silence_scan = scan(source)
    chunks = plan_chunks(silence_scan.sample_count, silence_scan.silences, ChunkLimits(1.0, 0.1))
    sizes = [len(read_chunk(source, chunk, tmp_path)) for chunk in chunks]

    assert not silence_scan.is_complete
    assert 1.7 < silence_scan.position_s < 2.3
    assert chunks[-1].end == silence_scan.sample_count
    assert sizes == [2 * (chunk.end - chunk.start) for chunk in chunks]


def test_file_without_audio_is_not_scanned(tmp_path: Path) -> None:
    path = tmp_path / "in.mp3"
    path.write_bytes(b"just words\n" * 50)

    with pytest.raises(RecordingError):
        next(scan_silence(path))
    with pytest.raises(FileNotFoundError):
        next(scan_silence(tmp_path / "no.mp3"))


def test_scan_can_be_stopped_after_any_step(tmp_path: Path) -> None:
    # Thread time: other processes may use the processor at the same time.
    source = write_recording(tmp_path / "in.mp3", build_tone_and_silence(24_000, 3.0, 1.0) * 20, PcmFormat())
    silence_scan, step_times_s = scan_silence(source), [time.thread_time()]
    for _ in silence_scan:
        step_times_s.append(time.thread_time())
    stopped = scan_silence(source)
    next(stopped)
    stopped.close()

    assert max(b - a for a, b in itertools.pairwise(step_times_s)) < 0.1
    assert list(stopped) == []


# --- chunks ----------------------------------------------------------------------------------------------------------


def read_chunk(source: Path | AudioChunkWriter, chunk: AudioChunk, directory: Path) -> bytes:
    """Return the samples of a chunk."""
    target = directory / f"{chunk.start}.wav"
    list((AudioChunkWriter(source) if isinstance(source, Path) else source).write_chunk(chunk, target, "wav"))
    return target.read_bytes()[44:]


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 0, 2, 1, 1)])
def test_chunks_are_sample_exact_in_any_order(tmp_path: Path, name: str, order: tuple[int, ...]) -> None:
    source = write_recording(tmp_path / f"in.{name}", build_tone_and_silence(48_000, 2.5, 0.5, 4.0), PcmFormat(48_000))
    complete_samples = b"".join(read_samples(source))
    chunks = [
        AudioChunk(0, 16_000),
        AudioChunk(15_001, 50_003),
        AudioChunk(40_000, 40_001),
        AudioChunk(99_999, len(complete_samples) // 2),
    ]
    splitter = AudioChunkWriter(source)

    samples = {index: read_chunk(splitter, chunks[index], tmp_path) for index in order}
    splitter.close()

    assert samples == {index: complete_samples[2 * chunks[index].start : 2 * chunks[index].end] for index in order}


@pytest.mark.parametrize("name", ["opus", "ogg", "mp3", "flac", "wav", "m4a", "aac"])
def test_chunk_can_have_any_format(tmp_path: Path, name: str) -> None:
    source = write_recording(tmp_path / "in.flac", build_tone(SPLIT_RATE_HZ, 3.0), PcmFormat(SPLIT_RATE_HZ))
    target = tmp_path / f"chunk.{name}"

    positions_s = list(AudioChunkWriter(source).write_chunk(AudioChunk(8_000, 40_000), target, name))
    info = probe(target)

    assert positions_s == sorted(positions_s) and positions_s[-1] == 2.0
    assert info.format == ("opus" if name == "ogg" else name)
    assert info.duration_s == pytest.approx(2.0, abs=0.12)


@pytest.mark.parametrize(("name", "rate", "channels"), [("mp3", 44_100, 2), ("m4a", 24_000, 1), ("wav", 16_000, 1)])
def test_chunks_from_pcm_spool_equal_decoded_chunks(tmp_path: Path, name: str, rate: int, channels: int) -> None:
    audio = build_tone_and_silence(rate, 2.5, 0.5, 4.0, channels=channels)
    source = write_recording(tmp_path / f"in.{name}", audio, PcmFormat(rate, channels))
    silence_scan = scan_silence(source, spool=PcmSpool(tmp_path / "scratch"))
    list(silence_scan)
    chunks = [AudioChunk(0, 16_000), AudioChunk(99_999, silence_scan.sample_count), AudioChunk(15_001, 50_003)]
    spooled, decoded = AudioChunkWriter(source, spool=silence_scan.spool), AudioChunkWriter(source)

    for chunk in chunks:
        spooled_samples, decoded_samples = (
            array.array("h", read_chunk(splitter, chunk, tmp_path)) for splitter in (spooled, decoded)
        )
        assert len(spooled_samples) == len(decoded_samples) == chunk.end - chunk.start
        # The spooled samples were rounded twice.
        assert (
            max(abs(spooled - decoded) for spooled, decoded in zip(spooled_samples, decoded_samples, strict=True)) <= 3
        )
    with pytest.raises(RecordingError, match="shorter than"):
        read_chunk(spooled, AudioChunk(0, silence_scan.sample_count + 2_000), tmp_path)
    spooled.close()
    decoded.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_pcm_spool_is_dropped_when_the_disk_is_full(tmp_path: Path) -> None:
    class FullSpool(PcmSpool):
        def write(self, samples: bytes) -> None:
            if samples:
                raise OSError(errno.ENOSPC, "no space left on device")

    source = write_recording(
        tmp_path / "in.flac", build_tone_and_silence(SPLIT_RATE_HZ, 1.0, 0.5, 1.0), PcmFormat(SPLIT_RATE_HZ)
    )
    silence_scan = scan_silence(source, spool=FullSpool(tmp_path))
    list(silence_scan)

    assert silence_scan.spool is None and silence_scan.is_complete
    assert [pytest.approx(span, abs=0.03) for span in round_spans(silence_scan.silences)] == [(1.0, 1.5)]
    assert not has_disk_space(tmp_path / "missing", 1e12) and has_disk_space(tmp_path / "missing", 1.0)


def test_recording_with_changing_sample_rate_is_split_to_its_end(tmp_path: Path) -> None:
    parts = [
        write_recording(tmp_path / f"{rate}.mp3", build_tone(rate, 2.5), PcmFormat(rate)).read_bytes()
        for rate in (8_000, 22_050, 11_025)
    ]
    source = tmp_path / "in.mp3"
    source.write_bytes(b"".join(parts * 8))
    silence_scan = scan(source)
    splitter = AudioChunkWriter(source)

    samples = read_chunk(splitter, AudioChunk(silence_scan.sample_count - 30_000, silence_scan.sample_count), tmp_path)
    splitter.close()

    assert len(samples) == 60_000


def test_recording_with_changing_channels_is_read_correctly(tmp_path: Path) -> None:
    """libav's fifo does not notice that a layout changes, and would read channels that are not there."""
    right = array.array(
        "h", (value for one in array.array("h", build_tone(24_000, 1.0)) for value in (0, one))
    ).tobytes()
    mono, stereo = (
        write_recording(tmp_path / f"{channels}.mp3", audio, PcmFormat(24_000, channels)).read_bytes()
        for channels, audio in ((1, build_tone(24_000, 1.0)), (2, right))
    )
    source = tmp_path / "in.mp3"
    for parts in ((mono, stereo), (stereo, mono)):
        source.write_bytes(b"".join(parts * 2))
        values = array.array("h", b"".join(read_samples(source)))
        peaks = [max(values[at : at + 4_000]) for at in range(2_000, len(values) - 6_000, 4_000)]
        # Downmixing halves the peak of a signal in one of two channels.
        assert all(3_500 < peak < 10_000 for peak in peaks), peaks


def test_cancelled_split_leaves_no_file_and_the_next_is_complete(tmp_path: Path) -> None:
    source = write_recording(tmp_path / "in.wav", build_tone(SPLIT_RATE_HZ, 60.0), PcmFormat(SPLIT_RATE_HZ))
    splitter, target = AudioChunkWriter(source), tmp_path / "stopped.opus"

    writer = splitter.write_chunk(AudioChunk(0, 60 * SPLIT_RATE_HZ), target, "opus")
    next(writer)
    assert target.exists()
    writer.close()

    assert not target.exists()
    assert read_chunk(splitter, AudioChunk(100, 900), tmp_path) == build_tone(SPLIT_RATE_HZ, 60.0)[200:1_800]


def test_recording_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    source = write_recording(tmp_path / "in.wav", build_tone(SPLIT_RATE_HZ, 1.0), PcmFormat(SPLIT_RATE_HZ))
    target = tmp_path / "chunk.mp3"

    with pytest.raises(RecordingError, match="shorter than"):
        list(AudioChunkWriter(source).write_chunk(AudioChunk(8_000, 18_000), target, "mp3"))
    with pytest.raises(OSError, match="No such file"):
        list(AudioChunkWriter(source).write_chunk(AudioChunk(0, 1), tmp_path / "no" / "chunk.mp3", "mp3"))

    assert not target.exists()


def test_speech_is_split_between_sentences(tmp_path: Path) -> None:
    sentences = [speak("The harbour opens at nine."), speak("People were surprised."), speak("It rained all day.")]
    silence = bytes(2 * SPEAK_RATE_HZ)
    lengths = [len(sentence) / 2 / SPEAK_RATE_HZ for sentence in sentences]
    source = write_recording(tmp_path / "in.mp3", silence.join(sentences), PcmFormat(SPEAK_RATE_HZ))

    silence_scan = scan(source)
    chunks = plan_chunks(
        silence_scan.sample_count, silence_scan.silences, ChunkLimits(max(lengths) + 1.0), pauses=silence_scan.pauses
    )

    edges = [sum(lengths[:index]) + index for index in range(1, 3)]
    assert len(chunks) == 3 and not any(chunk.overlap_after for chunk in chunks)
    assert all(edge - 1.3 < chunk.end_s < edge + 0.3 for edge, chunk in zip(edges, chunks, strict=False))


# --- concatenation ---------------------------------------------------------------------------------------------------


def concatenate(
    *chunks: bytes,
    pcm: PcmFormat = PcmFormat(),  # noqa: B008
    pause_ms: float = 0.0,
    block_bytes: int = 999,
) -> tuple[PcmConcatenator, bytes]:
    concatenator, output = PcmConcatenator(), io.BytesIO()
    for audio in chunks:
        output.write(concatenator.start_chunk(pcm, pause_ms=pause_ms))
        for at in range(0, len(audio), block_bytes):
            output.write(concatenator.feed(audio[at : at + block_bytes]))
    output.write(concatenator.finish())
    return concatenator, output.getvalue()


def test_single_chunk_is_unchanged() -> None:
    audio = build_tone(24_000, 0.5)[100:]

    concatenator, output = concatenate(audio)

    assert output == audio
    assert concatenator.spans == (Span(0.0, len(audio) / 48_000),)


def test_concatenation_loses_no_samples_and_does_not_click() -> None:
    # Both chunks begin and end far from zero.
    steady = array.array("h", [20_000] * 24_000).tobytes()

    concatenator, output = concatenate(steady, steady)

    values = array.array("h", output)
    assert len(values) == 48_000 == concatenator.sample_count
    assert max(abs(a - b) for a, b in itertools.pairwise(values)) <= 20_000 / 119
    assert min(values) == 0 and values[0] == values[-1] == 20_000
    assert sum(1 for value in values if value != 20_000) <= 240


def test_pauses_are_between_chunks_and_belong_to_no_chunk() -> None:
    concatenator, output = concatenate(
        build_tone(24_000, 0.5), build_tone(24_000, 0.25), b"", build_tone(24_000, 0.1), pause_ms=200
    )

    assert round_spans(concatenator.spans) == [(0.0, 0.5), (0.7, 0.95), (1.15, 1.15), (1.35, 1.45)]
    assert len(output) == round(1.45 * 48_000)
    assert not any(output[24_000 : 24_000 + 9_600])


@settings(max_examples=80, deadline=None)
@given(
    chunks=st.lists(st.integers(0, 700), min_size=1, max_size=5),
    block_sizes=st.tuples(st.integers(1, 50), st.integers(1, 2_000)),
    channels=st.integers(1, 2),
    half=st.booleans(),
)
def test_concatenation_is_independent_of_block_size(
    chunks: list[int], block_sizes: tuple[int, int], channels: int, half: bool
) -> None:
    pcm = PcmFormat(24_000, channels)
    recordings = [build_tone(24_000, count / 24_000, channels) + b"\x01" * half for count in chunks]

    (first, first_output), (second, second_output) = (
        concatenate(*recordings, pcm=pcm, pause_ms=1, block_bytes=block_bytes) for block_bytes in block_sizes
    )

    assert first_output == second_output and len(first_output) == first.sample_count * pcm.frame_bytes
    assert first.spans == second.spans
    assert [round((span.end_s - span.start_s) * 24_000) for span in first.spans] == chunks


@pytest.mark.parametrize("other", [PcmFormat(16_000), PcmFormat(44_100, 2), PcmFormat(8_000), PcmFormat(24_000, 2)])
def test_chunk_with_other_pcm_format_is_converted(other: PcmFormat) -> None:
    concatenator, output = PcmConcatenator(), bytearray()
    for pcm in (PcmFormat(), other, PcmFormat()):
        output += concatenator.start_chunk(pcm)
        audio = build_tone(pcm.sample_rate_hz, 0.5, pcm.channels)
        for at in range(0, len(audio), 1_001):
            output += concatenator.feed(audio[at : at + 1_001])
    output += concatenator.finish()

    middle = array.array("h", output[24_000:48_000])
    crossings = sum(1 for a, b in itertools.pairwise(middle) if (a < 0) != (b < 0))
    assert concatenator.pcm == PcmFormat()
    assert len(output) == 2 * concatenator.sample_count
    assert concatenator.spans[-1].end_s == pytest.approx(1.5, abs=0.001)
    assert crossings == pytest.approx(440, abs=4)
