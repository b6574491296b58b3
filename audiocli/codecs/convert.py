"""Read a recording as samples, convert it to another format, or measure its level.

Long work is done by iterators whose steps take at most about 50 ms, so that a caller can run `next` in a thread and
stop between two steps. An iterator must not be advanced by two threads at the same time. Several iterators may run in
parallel.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from ..audio.integrity import check_recording
from ..audio.stereo import MIN_CANCELED_S
from ..errors import RecordingError
from ..private_files import create_private_file
from ..types.audio import EVERYTHING, PcmFormat, Selection, TimeRange
from .encoder import Encoder
from .length import GapDetector, PacketCounter, has_all_audio, is_shorter_than_declared
from .probe import open_recording, select_audio_track, translate_codec_errors
from .pyav import FrameDecoder, SampleConverter

# Steps end with the block of samples after this time, which takes about 30 ms more.
MAX_STEP_S = 0.02
_BLOCK_S = 0.25
# Decoders need some packets before their samples are right: MP3 half a second at most, Opus 80 ms.
_PREROLL_S = 1.0
# Files have no latency requirement. Large batches save a fifth of the time for an hour of MP3.
_RESAMPLE_BATCH_SAMPLES = 16_384
_BYTE_RATE_WINDOW_S, _MAX_PACKET_OVERHEAD_BYTES = 10.0, 12


class PcmReader:
    """Read the samples of a recording in blocks of at least a quarter of a second, in one format.

    Gaps (lost packets, an audio track that starts after the video) are filled with silence, so that positions are true
    times. A truncated recording is read up to its end, and `is_complete` is False afterwards. `max_bytes_per_s` is then
    the byte rate of the ten seconds with the most bytes.

    Of a selection with one range, only that range is decoded, from a second before it on. Packets before it are read,
    because positions in many containers are only known by counting.

    Args:
        selection: What to read, with at most one range. Several channels are mixed.
        check_truncation: Whether to check the container for truncation, after the last block. With False, only a
            recording that cannot be read to its end is incomplete.

    Raises:
        RecordingError: Not a recording, or it has no audio. Raised by the first step.
        OSError: The file cannot be read.
    """

    def __init__(
        self,
        source: Path,
        sample_rate_hz: int,
        channels: int,
        *,
        selection: Selection = EVERYTHING,
        check_truncation: bool = True,
    ) -> None:
        self.pcm = PcmFormat(sample_rate_hz, channels)
        self.is_complete = True
        self.max_bytes_per_s = 0.0
        self._source = source
        self._check_truncation = check_truncation
        # Bytes that were decoded, also before and after the range, and bytes that were returned.
        self._yielded_bytes = self._returned_bytes = 0
        channel = selection.channels[0] if len(selection.channels) == 1 else None
        self._converter = SampleConverter(sample_rate_hz, channels, _RESAMPLE_BATCH_SAMPLES, channel=channel)
        self._track = selection.track if isinstance(selection.track, int) else None
        self._range = selection.ranges[0] if selection.ranges else TimeRange()
        self._skipped_s = 0.0
        self._blocks = self._clip(self._read()) if selection.ranges else self._read()

    @property
    def position_s(self) -> float:
        """Seconds of audio returned so far."""
        return self._returned_bytes / self.pcm.bytes_per_second

    @property
    def canceled_s(self) -> float:
        """Seconds read as one channel so far in which a mix of two channels would cancel out."""
        return self._converter.canceled_s

    def __iter__(self) -> PcmReader:
        return self

    def __next__(self) -> bytes:
        block = next(self._blocks)
        self._returned_bytes += len(block)
        return block

    def close(self) -> None:
        """Stop and close the file."""
        self._blocks.close()

    def _clip(self, blocks: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
        """Yield the samples of the range. Yield an empty block for each block before it, so that steps stay short."""
        start = round(self._range.start_s * self.pcm.sample_rate_hz) * self.pcm.frame_bytes
        end = None
        if self._range.end_s is not None:
            end = round(self._range.end_s * self.pcm.sample_rate_hz) * self.pcm.frame_bytes
        try:
            for block in blocks:
                # The first block determines how much was skipped.
                block_end = self._yielded_bytes + self._measure_skipped_bytes()
                block_start = block_end - len(block)
                yield block[max(start - block_start, 0) : None if end is None else max(end - block_start, 0)]
                if end is not None and block_end >= end:
                    return
        finally:
            blocks.close()

    def _measure_skipped_bytes(self) -> int:
        return round(self._skipped_s * self.pcm.sample_rate_hz) * self.pcm.frame_bytes

    def _read(self) -> Generator[bytes, None, None]:
        with translate_codec_errors(self._source), open_recording(self._source) as container:
            stream = select_audio_track(self._source, container, self._track)
            byte_rate = _ByteRateMeter()
            counter = PacketCounter(container, stream)
            first_packet, skips = None, False
            if self._range.start_s > _PREROLL_S:
                first_packet = counter.read_until(self._range.start_s - _PREROLL_S)
                skips = not counter.needs_decoding and first_packet is not None
                if not skips:
                    container.seek(0)
                    first_packet = None
            frames = FrameDecoder(container, stream, first_packet)
            converter = self._converter
            gap_detector = GapDetector(container)
            buffer, block_bytes = bytearray(), round(_BLOCK_S * self.pcm.sample_rate_hz) * self.pcm.frame_bytes
            ticks_per_sample = _compute_ticks_per_sample(stream)
            expected_pts: int | None = None
            samples = b""
            for frame in frames:
                pts = frame.pts
                if skips:
                    assert first_packet is not None
                    delay = pts - first_packet.pts if pts is not None and first_packet.pts is not None else 0
                    base_s = float(stream.time_base) if stream.time_base is not None else 0.0
                    self._skipped_s = max(counter.duration_s - counter.get_start_padding_s() + delay * base_s, 0.0)
                    skips = False
                # Most frames continue where the previous one ended. Checking every frame would double the time.
                if pts is None or pts != expected_pts or samples:
                    pts_s = _compute_pts_s(frame)
                    decoded_s = (self._yielded_bytes + len(buffer)) / self.pcm.bytes_per_second + converter.pending_s
                    decoded_s += self._skipped_s
                    if gap_s := gap_detector.measure_gap_s(pts_s, decoded_s):
                        buffer += converter.flush()
                        missing_bytes = round(gap_s * self.pcm.sample_rate_hz) * self.pcm.frame_bytes
                        for offset in range(0, missing_bytes, block_bytes):
                            buffer += bytes(min(block_bytes, missing_bytes - offset))
                            yield self._take_block(buffer)
                        decoded_s += gap_s
                    byte_rate.update(decoded_s, frames.packet_count, frames.size_bytes)
                expected_pts = pts + frame.samples * ticks_per_sample if pts is not None and ticks_per_sample else None
                if samples := converter.push(frame):
                    if buffer or len(samples) < block_bytes:
                        buffer += samples
                        if len(buffer) >= block_bytes:
                            yield self._take_block(buffer)
                    else:
                        self._yielded_bytes += len(samples)
                        yield samples
            buffer += converter.flush()
            if converter.pcm is None:
                raise RecordingError(f"{self._source}: no audio could be decoded")
            yield self._take_block(buffer)
            decoded_s = self._skipped_s + self._yielded_bytes / self.pcm.bytes_per_second
            self.is_complete = not frames.is_truncated or has_all_audio(self._source, decoded_s, frames.end_position)
            if self._check_truncation and self.is_complete:
                self.is_complete = not check_recording(self._source).is_cut_off and not is_shorter_than_declared(
                    self._source, container, stream, decoded_s, frames.end_position
                )
            decoded_s = self._yielded_bytes / self.pcm.bytes_per_second
            byte_rate.update(decoded_s, frames.packet_count, frames.size_bytes)
            self.max_bytes_per_s = byte_rate.get_max(decoded_s)

    def _take_block(self, buffer: bytearray) -> bytes:
        block = bytes(buffer)
        buffer.clear()
        self._yielded_bytes += len(block)
        return block


class _ByteRateMeter:
    """Measure the highest byte rate of a recording, over windows of ten seconds.

    Version 0.1 copied packets, and this rate decided the boundaries of its chunks (`core.transcription_plan`).
    """

    def __init__(self) -> None:
        self._size_bytes, self._window_start_bytes = 0, 0
        self._window_start_s, self._max_bytes_per_s = 0.0, 0.0

    def update(self, decoded_s: float, packet_count: int, size_bytes: int) -> None:
        """Count the packets so far."""
        self._size_bytes = size_bytes + packet_count * _MAX_PACKET_OVERHEAD_BYTES
        if decoded_s >= self._window_start_s + _BYTE_RATE_WINDOW_S:
            window_bytes, window_s = self._size_bytes - self._window_start_bytes, decoded_s - self._window_start_s
            self._max_bytes_per_s = max(self._max_bytes_per_s, window_bytes / window_s)
            self._window_start_s, self._window_start_bytes = decoded_s, self._size_bytes

    def get_max(self, decoded_s: float) -> float:
        """Return the highest rate, but at least the average."""
        return max(self._max_bytes_per_s, self._size_bytes / decoded_s) if decoded_s > 0 else 0.0


def _compute_ticks_per_sample(stream: AudioStream) -> int:
    """Return the time base ticks per sample, or 0 if that is not a whole number."""
    base, rate = stream.time_base, stream.codec_context.sample_rate
    ticks = 1 / (base * rate) if base and rate else Fraction(0)
    return ticks.numerator if ticks.denominator == 1 else 0


def _compute_pts_s(frame: AudioFrame) -> float | None:
    """Return the timestamp of a frame in seconds."""
    return None if frame.pts is None or frame.time_base is None else frame.pts * float(frame.time_base)


class Conversion:
    """Convert a recording to another format. Every step yields the seconds done.

    The output file is complete after the last step, and removed after an error or `close`. `is_complete` is False if
    the recording is truncated. A recording shorter than `min_duration_s` is followed by silence.

    Raises:
        RecordingError: The recording cannot be decoded.
        OutputError: The audio cannot be encoded.
        OSError: Reading or writing a file failed.
    """

    def __init__(self, reader: PcmReader, output_path: Path, format: str, min_duration_s: float = 0.0) -> None:
        self._reader = reader
        self._steps = self._run(output_path, format, min_duration_s)

    @property
    def is_complete(self) -> bool:
        return self._reader.is_complete

    @property
    def canceled_s(self) -> float:
        return self._reader.canceled_s

    @property
    def position_s(self) -> float:
        """Seconds of the recording that were converted."""
        return self._reader.position_s

    def __iter__(self) -> Conversion:
        return self

    def __next__(self) -> float:
        return next(self._steps)

    def close(self) -> None:
        """Stop and remove an incomplete output file."""
        self._steps.close()
        self._reader.close()

    def _run(self, output_path: Path, format: str, min_duration_s: float) -> Generator[float, None, None]:
        is_done = False
        try:
            with create_private_file(output_path) as file, Encoder(format, self._reader.pcm, file) as encoder:
                step_start = time.perf_counter()
                for block in self._reader:
                    encoder.feed(block)
                    if time.perf_counter() - step_start >= MAX_STEP_S:
                        yield self.position_s
                        step_start = time.perf_counter()
                missing_frames = round((min_duration_s - self.position_s) * self._reader.pcm.sample_rate_hz)
                encoder.feed(bytes(max(missing_frames, 0) * self._reader.pcm.frame_bytes))
                encoder.finish()
            is_done = True
        finally:
            if not is_done:
                self._reader.close()
                if output_path.is_file():
                    output_path.unlink()
        yield self.position_s


def read_samples(source: Path, *, sample_rate_hz: int = 16_000, channels: int = 1) -> PcmReader:
    """Read a recording as s16le samples."""
    return PcmReader(source, sample_rate_hz, channels)


def convert(
    source: Path,
    output_path: Path,
    format: str,
    *,
    sample_rate_hz: int = 16_000,
    channels: int = 1,
    min_duration_s: float = 0.0,
    selection: Selection = EVERYTHING,
) -> Conversion:
    """Convert a recording, or what is selected of it, to any format that `audio.formats` can write."""
    reader = PcmReader(source, sample_rate_hz, channels, selection=selection)
    return Conversion(reader, output_path, format, min_duration_s)


def find_cancellation(source: Path, max_s: float) -> Generator[bool, None, None]:
    """Find out whether a recording is stereo whose channels cancel out. Every step yields the answer so far.

    At most `max_s` seconds are decoded, not counting silence, and nothing if the recording is not stereo.

    Raises:
        RecordingError: The recording cannot be decoded.
        OSError: The file cannot be read.
    """
    with translate_codec_errors(source), open_recording(source) as container:
        if select_audio_track(source, container).codec_context.layout.nb_channels != 2:
            yield False
            return
    reader = PcmReader(source, 16_000, 1, check_truncation=False)
    audible_s = 0.0
    try:
        for block in reader:
            yield reader.canceled_s >= MIN_CANCELED_S
            if any(block):
                audible_s += len(block) / reader.pcm.bytes_per_second
            if audible_s >= max_s:
                break
        yield 0 < min(MIN_CANCELED_S, reader.position_s / 2) <= reader.canceled_s
    finally:
        reader.close()
