"""Change the tempo and the loudness of s16le samples with FFmpeg's filters. Sample rates: `resampler.Resampler`."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, cast

import av.filter
from av.audio.frame import AudioFrame
from av.error import FFmpegError

from ..audio.processing import MAX_TEMPO, MIN_TEMPO, Processing
from ..errors import OutputError
from ..types.audio import PcmFormat
from .pcm_spool import SampleSpool
from .pyav import build_frame, describe_error, get_layout_name
from .resampler import Resampler

MAX_TRUE_PEAK_DB = -1.0
"""What EBU R128 recommends for the true peak."""

# One instance of atempo skips samples outside of these.
_MIN_ATEMPO, _MAX_ATEMPO = 0.5, 2.0
# Its output is longer than computed by at most a window.
_MAX_SURPLUS_S = 0.1
_PUSH_S = 0.1
# ebur128 reports this if all of the audio is below its gate, or shorter than a block of 400 ms.
_SILENCE_LUFS = -70.0
# A limiter lowers the loudness, by an amount that only measuring shows. Speech needs two passes to reach -16 LUFS.
_MAX_LIMITER_PASSES = 6
_LOUDNESS_TOLERANCE_LU = 0.3
_MIN_SLOPE = 0.2
_MAX_LIMITED_GAIN_DB = 40.0
# A limiter limits samples. The wave between them is higher, by 0.3 dB in most speech.
_FIRST_CEILING_DB = MAX_TRUE_PEAK_DB - 0.3
_LIMITER_OPTIONS = "level=0:attack=5:release=50:latency=1"


class _FilterChain:
    """FFmpeg audio filters in a row, for a stream of s16le samples in blocks of any length."""

    def __init__(self, pcm: PcmFormat, filters: Sequence[tuple[str, str]]) -> None:
        self._pcm = pcm
        self._remainder = b""
        self.sample_count = 0
        self._graph = av.filter.Graph()
        source = self._graph.add_abuffer(
            sample_rate=pcm.sample_rate_hz,
            format="s16",
            layout=get_layout_name(pcm.channels),
            time_base=Fraction(1, pcm.sample_rate_hz),
        )
        nodes = [self._graph.add(name, options) for name, options in filters]
        self._graph.link_nodes(source, *nodes, self._graph.add("abuffersink")).configure()

    def push(self, samples: bytes) -> Iterator[AudioFrame]:
        """Add samples, and yield the frames that are ready.

        Raises:
            OutputError: FFmpeg cannot process the samples.
        """
        pending = self._remainder + samples if self._remainder else samples
        end = len(pending) - len(pending) % self._pcm.frame_bytes
        self._remainder = pending[end:]
        if end:
            yield from self._pull(build_frame(pending[:end], self._pcm, self.sample_count))
            self.sample_count += end // self._pcm.frame_bytes

    def flush(self) -> Iterator[AudioFrame]:
        """Yield the remaining frames. An incomplete sample at the end is dropped."""
        self._remainder = b""
        if self.sample_count:
            yield from self._pull(None)

    def _pull(self, frame: AudioFrame | None) -> Iterator[AudioFrame]:
        try:
            self._graph.push(frame)
            while True:
                yield cast(AudioFrame, self._graph.pull())
        except (BlockingIOError, EOFError):
            return
        except FFmpegError as error:
            raise OutputError(f"cannot process the audio: {describe_error(error)}") from error


class TempoChanger:
    """Change the tempo of s16le samples with the same pitch, in blocks of any length.

    The output has exactly the duration of the input divided by the factor. It lags behind by 0.2 to 0.5 s, and by 1.2 s
    at a factor of 0.25.

    Args:
        pcm: Format of the samples, before and after.
        factor: 0.25 to 4; 2 halves the duration.
    """

    def __init__(self, pcm: PcmFormat, factor: float) -> None:
        if not MIN_TEMPO <= factor <= MAX_TEMPO:
            raise ValueError(f"tempo {factor} is not between {MIN_TEMPO} and {MAX_TEMPO}")
        count = max(math.ceil(abs(math.log2(factor)) - 1e-9), 1)
        self._pcm = pcm
        self._factor = factor
        # The end is cut to the exact length, so it is held back.
        self._held_bytes = round(_MAX_SURPLUS_S * pcm.sample_rate_hz) * pcm.frame_bytes
        # The filter's output depends on how long pushed frames are, and comes when that of a whole frame is ready.
        self._push_bytes = round(_PUSH_S * pcm.sample_rate_hz) * pcm.frame_bytes
        self._chain = _FilterChain(pcm, [("atempo", f"{factor ** (1 / count):.9f}")] * count)
        self._unpushed = bytearray()
        self._pending = bytearray()
        self._written_samples = 0

    def feed(self, samples: bytes) -> bytes:
        """Return the samples that are ready."""
        self._unpushed += samples
        while len(self._unpushed) >= self._push_bytes:
            self._push(self._push_bytes)
        return self._release(len(self._pending) - self._held_bytes)

    def finish(self) -> bytes:
        """Return all remaining samples. An incomplete sample at the end is dropped."""
        self._push(len(self._unpushed))
        self._pending += join_samples(self._chain.flush(), self._pcm)
        # FFmpeg's length differs by up to a window.
        remaining_samples = round(self._chain.sample_count / self._factor) - self._written_samples
        remaining_bytes = max(remaining_samples, 0) * self._pcm.frame_bytes
        return self._release(remaining_bytes).ljust(remaining_bytes, b"\0")

    def _push(self, count: int) -> None:
        self._pending += join_samples(self._chain.push(bytes(self._unpushed[:count])), self._pcm)
        del self._unpushed[:count]

    def _release(self, count: int) -> bytes:
        data = bytes(self._pending[: max(count, 0)])
        del self._pending[: len(data)]
        self._written_samples += len(data) // self._pcm.frame_bytes
        return data


def change_tempo(samples: bytes, pcm: PcmFormat, factor: float) -> bytes:
    """Return s16le samples at another tempo: their duration divided by the factor, with the same pitch."""
    changer = TempoChanger(pcm, factor)
    step = pcm.bytes_per_second
    blocks = [changer.feed(samples[start : start + step]) for start in range(0, len(samples), step)]
    return b"".join([*blocks, changer.finish()])


class SampleProcessor:
    """Apply tempo and sample rate to a stream of s16le samples, in blocks of any length.

    `pcm` is the format of the output. Feed at most `max_feed_bytes` per call to keep calls short.
    """

    def __init__(self, processing: Processing, pcm: PcmFormat) -> None:
        self.pcm = pcm._replace(sample_rate_hz=processing.sample_rate_hz or pcm.sample_rate_hz)
        self.max_feed_bytes = pcm.bytes_per_second
        self._stages: list[TempoChanger | Resampler] = []
        if processing.tempo is not None and processing.changes_tempo:
            self._stages.append(TempoChanger(pcm, processing.tempo))
        if self.pcm != pcm:
            self._stages.append(Resampler(pcm, self.pcm))

    def feed(self, samples: bytes) -> bytes:
        """Return the samples that are ready."""
        for stage in self._stages:
            samples = stage.feed(samples)
        return samples

    def finish(self) -> bytes:
        """Return all remaining samples."""
        samples = b""
        for stage in self._stages:
            samples = stage.feed(samples) + stage.finish()
        return samples


class Loudness(NamedTuple):
    """Integrated loudness by EBU R128, None for silence and for less than 0.4 s; and the true peak in dBTP."""

    integrated_lufs: float | None
    true_peak_db: float


class LoudnessMeter:
    """Measure the loudness of a stream of s16le samples. One second of audio takes 4 ms."""

    def __init__(self, pcm: PcmFormat) -> None:
        self._chain = _FilterChain(pcm, [("ebur128", "metadata=1:peak=true")])
        self._integrated_lufs = _SILENCE_LUFS
        self._true_peak = 0.0

    def feed(self, samples: bytes) -> None:
        """Add samples, in blocks of any length."""
        self._read(self._chain.push(samples))

    def finish(self) -> Loudness:
        """Return the loudness of all samples."""
        self._read(self._chain.flush())
        integrated_lufs = self._integrated_lufs if self._integrated_lufs > _SILENCE_LUFS else None
        return Loudness(integrated_lufs, _to_decibels(self._true_peak))

    def _read(self, frames: Iterator[AudioFrame]) -> None:
        """Read the values so far. The last frame has none if it is shorter than 100 ms."""
        for frame in frames:
            if "lavfi.r128.I" in frame.metadata:
                self._integrated_lufs = float(frame.metadata["lavfi.r128.I"])
                self._true_peak = float(frame.metadata["lavfi.r128.true_peak"])


class GainLimiter:
    """Change the level of s16le samples, in blocks of any length.

    Args:
        pcm: Format of the samples, before and after.
        gain_db: By how much.
        ceiling_db: Highest level of a sample, for a limiter. None: no sample can reach full scale.
    """

    def __init__(self, pcm: PcmFormat, gain_db: float, ceiling_db: float | None = None) -> None:
        self._pcm = pcm
        filters = [("volume", f"volume={gain_db:.4f}dB:precision=double")]
        if ceiling_db is not None:
            filters.append(("alimiter", f"limit={10 ** (ceiling_db / 20):.6f}:{_LIMITER_OPTIONS}"))
        self._chain = _FilterChain(pcm, [*filters, ("aformat", "sample_fmts=s16")])

    def feed(self, samples: bytes) -> bytes:
        """Return the samples that are ready."""
        return join_samples(self._chain.push(samples), self._pcm)

    def finish(self) -> bytes:
        """Return all remaining samples."""
        return join_samples(self._chain.flush(), self._pcm)


class LoudnessNormalizer:
    """Bring speech or music to a loudness, with a true peak of at most -1 dBTP.

    The samples are measured while they are fed, and wait in a temporary file. A linear gain is enough unless peaks
    would exceed -1 dBTP. Otherwise a limiter lowers them; its gain and ceiling follow from passes over the file, each
    at 200 times real time, until the result is within 0.3 LU. Silence, and audio of less than 0.4 s, is unchanged.
    `final_lufs` is the result: None if it was not measured, and less than the target if no limiter can reach it.

    Args:
        pcm: Format of the samples, before and after.
        target_lufs: The loudness.
        directory: Where the temporary file is made. None: the temporary directory of the system.

    Raises:
        OSError: The temporary file cannot be created, written or read. After a failed `feed`, `read_back` yields what
            was fed before.
    """

    def __init__(self, pcm: PcmFormat, target_lufs: float, directory: Path | None = None) -> None:
        self.max_feed_bytes = pcm.bytes_per_second
        self._pcm = pcm
        self._target_lufs = target_lufs
        self.final_lufs: float | None = None
        self._meter = LoudnessMeter(pcm)
        self._spool = SampleSpool(directory)

    def feed(self, samples: bytes) -> None:
        """Add samples, in blocks of any length."""
        self._spool.write(samples)
        self._meter.feed(samples)

    def finish(self) -> Generator[bytes, None, None]:
        """Yield the samples in slices of a second, with an empty slice for each second that is only measured."""
        loudness = self._meter.finish()
        if loudness.integrated_lufs is None:
            yield from self.read_back()
            return
        self.final_lufs = self._target_lufs
        gain_db = self._target_lufs - loudness.integrated_lufs
        ceiling_db = None
        if loudness.true_peak_db + gain_db > MAX_TRUE_PEAK_DB:
            gain_db, ceiling_db = yield from self._find_limits(gain_db)
        limiter = GainLimiter(self._pcm, gain_db, ceiling_db)
        for samples in self.read_back():
            yield limiter.feed(samples)
        yield limiter.finish()

    def read_back(self) -> Iterator[bytes]:
        """Yield the samples as they were fed, in slices of a second."""
        return self._spool.read_blocks(self._pcm.bytes_per_second)

    def close(self) -> None:
        """Remove the temporary file."""
        self._spool.close()

    def _find_limits(self, gain_db: float) -> Generator[bytes, None, tuple[float, float]]:
        """Find the gain and the ceiling of the limiter. Yield an empty slice for each second.

        The more a limiter has to do, the less of an additional gain remains. Two passes show how much.
        """
        ceiling_db, previous = _FIRST_CEILING_DB, None
        for _ in range(_MAX_LIMITER_PASSES):
            loudness = yield from self._measure_limited(gain_db, ceiling_db)
            self.final_lufs = loudness.integrated_lufs
            excess_db = loudness.true_peak_db - MAX_TRUE_PEAK_DB
            limited_lufs = loudness.integrated_lufs if loudness.integrated_lufs is not None else _SILENCE_LUFS
            missing_lu = self._target_lufs - limited_lufs
            if excess_db <= 0 and (abs(missing_lu) <= _LOUDNESS_TOLERANCE_LU or gain_db >= _MAX_LIMITED_GAIN_DB):
                break
            slope = 1.0
            if previous is not None and gain_db != previous[0]:
                slope = (limited_lufs - previous[1]) / (gain_db - previous[0])
            previous = gain_db, limited_lufs
            if excess_db > 0:
                ceiling_db -= excess_db + 0.05
            gain_db = min(gain_db + missing_lu / max(slope, _MIN_SLOPE), _MAX_LIMITED_GAIN_DB)
        return gain_db, ceiling_db

    def _measure_limited(self, gain_db: float, ceiling_db: float) -> Generator[bytes, None, Loudness]:
        limiter, meter = GainLimiter(self._pcm, gain_db, ceiling_db), LoudnessMeter(self._pcm)
        for samples in self.read_back():
            meter.feed(limiter.feed(samples))
            yield b""
        meter.feed(limiter.finish())
        return meter.finish()


def join_samples(frames: Iterator[AudioFrame], pcm: PcmFormat) -> bytes:
    """Return the samples of s16 frames. A plane may be longer than its samples."""
    return b"".join(memoryview(frame.planes[0])[: frame.samples * pcm.frame_bytes] for frame in frames)


def _to_decibels(amplitude: float) -> float:
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf
