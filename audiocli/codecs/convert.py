"""The sound of a recording: as samples, in another format, or only how loud it is.

Everything here is an iterator whose steps take about 50 ms at most, so that a caller can run `next` in a thread and
leave between two steps. No iterator may be stepped by two threads at once; several iterators may run side by side.
"""

from __future__ import annotations

import array
import math
import sys
import time
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path

from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from ..errors import RecordingError
from ..private_files import create_private_file
from ..types.values import Pcm
from .encoder import Encoder
from .packet_index import Packets, PacketStats, copied_formats
from .probe import audio_track, has_video, opened, promised_s
from .pyav import Frames, ToSamples

_STEP_S = 0.02
_PIECE_S = 0.25
# Nobody waits for the next sample of a file: a fifth less work for an hour of mp3.
_GATHERED_SAMPLES = 16_384
# Gaps in the times of a container: smaller ones are rounding, larger ones are nonsense.
_SMALLEST_GAP_S, _LARGEST_GAP_S = 0.25, 600.0
_TIMED_DEMUXERS = ("matroska", "mov", "mpegts", "asf", "avi")
_MICROSECONDS = 1_000_000


class PcmReader:
    """The samples of a recording in pieces of a quarter of a second or more, in one shape.

    What is missing inside (lost packets, a track that starts later than the picture) is silence, so that positions are
    true times. A recording that breaks off is read up to there, and `complete` is False in the end; `packets` is then
    what there is to know for copying. Raises, from the first step on: RecordingError (not a recording, no sound in it),
    OSError.
    """

    def __init__(self, source: Path, sample_rate_hz: int, channels: int) -> None:
        self.pcm = Pcm(sample_rate_hz, channels)
        self.complete = True
        self.packets: Packets | None = None
        self._source = source
        self._bytes = 0
        self._pieces = self._read()

    @property
    def seconds(self) -> float:
        """How much has been yielded."""
        return self._bytes / self.pcm.bytes_per_second

    def __iter__(self) -> PcmReader:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        """Stop, and close the file."""
        self._pieces.close()

    def _read(self) -> Generator[bytes, None, None]:
        with opened(self._source) as container:
            stream = audio_track(self._source, container)
            promised = promised_s(self._source, container, stream)
            codec = stream.codec_context
            tally = PacketStats(copied_formats(self._source, container.format.name, codec.name, codec.profile))
            frames = Frames(container, stream)
            to_samples = ToSamples(self.pcm.sample_rate_hz, self.pcm.channels, _GATHERED_SAMPLES)
            clock = _Clock(container)
            held, piece_bytes = bytearray(), round(_PIECE_S * self.pcm.sample_rate_hz) * self.pcm.frame_bytes
            ticks = _ticks_per_sample(stream)
            due: int | None = None
            more = b""
            for frame in frames:
                pts = frame.pts
                # Most frames go on where the one before ended and tell nothing new; looking closely at each is half of
                # all the work there is.
                if pts is None or pts != due or more:
                    at_s = _at_s(frame)
                    heard_s = (self._bytes + len(held)) / self.pcm.bytes_per_second + to_samples.gathered_s
                    if gap_s := clock.gap_s(at_s, heard_s):
                        held += to_samples.flush()
                        missing = round(gap_s * self.pcm.sample_rate_hz) * self.pcm.frame_bytes
                        if self._bytes + len(held):
                            tally.spoil()
                        for at in range(0, missing, piece_bytes):
                            held += bytes(min(piece_bytes, missing - at))
                            yield self._counted(held)
                        heard_s += gap_s
                    tally.note(at_s, heard_s, frames.packets, frames.size_bytes)
                due = pts + frame.samples * ticks if pts is not None and ticks else None
                if more := to_samples.push(frame):
                    if held or len(more) < piece_bytes:
                        held += more
                        if len(held) >= piece_bytes:
                            yield self._counted(held)
                    else:
                        self._bytes += len(more)
                        yield more
            held += to_samples.flush()
            if to_samples.pcm is None:
                raise RecordingError(f"{self._source}: there is no sound in it that can be decoded")
            yield self._counted(held)
            short = promised is not None and self.seconds < promised - max(0.5, promised / 100)
            self.complete = not (frames.broke_off or short)
            if frames.renewed:
                tally.spoil()
            tally.count(self.seconds, frames.packets, frames.size_bytes)
            self.packets = tally.packets(self.seconds)

    def _counted(self, held: bytearray) -> bytes:
        piece = bytes(held)
        held.clear()
        self._bytes += len(piece)
        return piece


class _Clock:
    """Finds the gaps between the times that frames claim and the sound there is.

    Only in containers that give every packet a time of its own; elsewhere times are counted from the sound itself.
    """

    def __init__(self, container: InputContainer) -> None:
        self._trusted = container.format.name.startswith(_TIMED_DEMUXERS)
        # Beside a picture the sound counts from the beginning of the picture.
        both = has_video(container) and container.start_time is not None
        self._origin_s: float | None = (container.start_time or 0) / _MICROSECONDS if both else None

    def gap_s(self, at_s: float | None, heard_s: float) -> float:
        """Tell how much is missing before a frame that claims this time."""
        if at_s is None or not self._trusted:
            return 0.0
        if self._origin_s is None:
            self._origin_s = at_s - heard_s
        gap_s = at_s - self._origin_s - heard_s
        return gap_s if _SMALLEST_GAP_S <= gap_s <= _LARGEST_GAP_S else 0.0


def _ticks_per_sample(stream: AudioStream) -> int:
    """Tell how much later a frame is for each sample in the one before; 0: not by a whole number."""
    base, rate = stream.time_base, stream.codec_context.sample_rate
    ticks = 1 / (base * rate) if base and rate else Fraction(0)
    return ticks.numerator if ticks.denominator == 1 else 0


def _at_s(frame: AudioFrame) -> float | None:
    """Return the time that a frame claims."""
    return None if frame.pts is None or frame.time_base is None else frame.pts * float(frame.time_base)


class Conversion:
    """Writes the sound of a recording into a file of another format; every step tells how many seconds are done.

    The target is whole after the last step, and gone if there is none (an error, `close`). `complete` is False when the
    recording broke off. Raises, from the first step on: RecordingError, OSError (either file), OutputError.
    """

    def __init__(self, sound: PcmReader, target: Path, format: str) -> None:
        self._sound = sound
        self._steps = self._run(target, format)

    @property
    def complete(self) -> bool:
        return self._sound.complete

    @property
    def seconds(self) -> float:
        return self._sound.seconds

    def __iter__(self) -> Conversion:
        return self

    def __next__(self) -> float:
        return next(self._steps)

    def close(self) -> None:
        """Stop, and remove what was written."""
        self._steps.close()
        self._sound.close()

    def _run(self, target: Path, format: str) -> Generator[float, None, None]:
        done = False
        try:
            with create_private_file(target) as file, Encoder(format, self._sound.pcm, file) as encoder:
                begun = time.perf_counter()
                for piece in self._sound:
                    encoder.feed(piece)
                    if time.perf_counter() - begun >= _STEP_S:
                        yield self.seconds
                        begun = time.perf_counter()
                encoder.finish()
            done = True
        finally:
            if not done:
                self._sound.close()
                if target.is_file():
                    target.unlink()
        yield self.seconds


def samples(source: Path, *, sample_rate_hz: int = 16_000, channels: int = 1) -> PcmReader:
    """Read a recording as s16le samples."""
    return PcmReader(source, sample_rate_hz, channels)


def convert(source: Path, target: Path, format: str, *, sample_rate_hz: int = 16_000, channels: int = 1) -> Conversion:
    """Write the sound of a recording into `target` in any format that `formats` can write."""
    return Conversion(PcmReader(source, sample_rate_hz, channels), target, format)


def loudness(source: Path) -> Iterator[float]:
    """Yield the peak of every stretch of a recording in dBFS; digital silence is -inf."""
    # Two channels: mixed into one, a recording with a reversed plug would cancel itself out.
    for piece in PcmReader(source, 16_000, 2):
        values = array.array("h", piece)
        if sys.byteorder == "big":
            values.byteswap()
        peak = max(max(values, default=0), -min(values, default=0))
        yield 20 * math.log10(peak / 32_768) if peak else -math.inf


def is_silent(source: Path, threshold_dbfs: float = -50.0) -> bool:
    """Tell whether nothing in a recording is louder than that. Reads all of a silent one: an hour takes seconds."""
    return all(level <= threshold_dbfs for level in loudness(source))
