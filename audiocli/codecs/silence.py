"""Scan a recording for silence, and measure its true duration."""

from __future__ import annotations

import array
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from ..audio.chunk_boundaries import SPLIT_RATE_HZ, Span
from ..audio.stereo import CancellationDetector
from ..types.audio import PcmFormat
from .convert import MAX_STEP_S, PcmReader
from .pcm_spool import SPLIT_PCM, PcmSpool
from .probe import open_recording, select_audio_track, translate_codec_errors
from .resampler import Resampler

# Audio below the first threshold is silence and may be skipped: a quiet recording has a noise level of about -60 dBFS.
# Audio below the second is quiet enough to split in: between words, in most recordings.
MAX_SILENCE_DBFS = -50.0
MAX_PAUSE_DBFS = -40.0
# The closure before a plosive such as p lasts 0.1 s and is not a pause.
MIN_SILENCE_S = 0.3

_WINDOWS_PER_S = 50
# A loud window is detected from this many samples. A quiet one is measured with about as many samples per second as a
# recognizer uses.
_COARSE_SAMPLES_PER_WINDOW = 46
_ROUNDING_S = 1e-6


class SilenceScan:
    """One pass over a recording. Every step yields the seconds done and takes at most about 50 ms.

    After the last step, `silences` and `pauses` are complete and sorted, as `chunk_boundaries.plan_chunks` expects;
    `sample_count` is the true length at `SPLIT_RATE_HZ`, and `is_complete` is False if the recording is truncated.
    `canceled_s` are the seconds in which two channels would cancel out when mixed.
    Positions are those of `convert.PcmReader`. Decoded samples are written to `spool`, which is None afterwards if the
    disk was full.

    Raises:
        RecordingError: The recording cannot be decoded. Raised by the first step or a later one.
        OSError: The file cannot be read.
    """

    def __init__(
        self,
        source: Path,
        max_silence_dbfs: float,
        max_pause_dbfs: float,
        min_silence_s: float,
        spool: PcmSpool | None,
        *,
        check_truncation: bool = True,
    ) -> None:
        self.spool = spool
        self.silences: tuple[Span, ...] = ()
        self.pauses: tuple[Span, ...] = ()
        self.sample_count = 0
        self.canceled_s = 0.0
        self._position_s = 0.0
        self._check_truncation = check_truncation
        self._reader: PcmReader | None = None
        self._steps = self._run(source, (max_silence_dbfs, max_pause_dbfs), min_silence_s)

    @property
    def is_complete(self) -> bool:
        return self._reader is None or self._reader.is_complete

    @property
    def max_bytes_per_s(self) -> float:
        """Byte rate of the ten seconds with the most bytes, after the last step."""
        return self._reader.max_bytes_per_s if self._reader is not None else 0.0

    @property
    def position_s(self) -> float:
        """Seconds of audio scanned so far."""
        return self._position_s

    def __iter__(self) -> SilenceScan:
        return self

    def __next__(self) -> float:
        return next(self._steps)

    def close(self) -> None:
        """Stop and close the file."""
        self._steps.close()
        if self._reader is not None:
            self._reader.close()

    def _run(
        self, source: Path, thresholds_dbfs: tuple[float, float], min_silence_s: float
    ) -> Generator[float, None, None]:
        self._reader = PcmReader(source, *_choose_scan_pcm(source), check_truncation=self._check_truncation)
        detector = _SilenceDetector(self._reader.pcm, thresholds_dbfs, min_silence_s)
        resampler = Resampler(self._reader.pcm, SPLIT_PCM)
        cancellation = CancellationDetector(self._reader.pcm) if self._reader.pcm.channels == 2 else None
        step_start = time.perf_counter()
        for block in self._reader:
            detector.feed(block)
            if cancellation is not None:
                cancellation.split(block)
                self.canceled_s = cancellation.canceled_s
            if self.spool is not None:
                self._write_spool(resampler.feed(block))
            if time.perf_counter() - step_start >= MAX_STEP_S:
                self._position_s = self._reader.position_s
                yield self.position_s
                step_start = time.perf_counter()
        self._position_s = self._reader.position_s
        self.sample_count = int(self._position_s * SPLIT_RATE_HZ)
        if self.spool is not None:
            self._write_spool(resampler.finish())
        self.silences, self.pauses = detector.finish()
        yield self.position_s

    def _write_spool(self, samples: bytes) -> None:
        assert self.spool is not None
        try:
            self.spool.write(samples)
        except OSError:
            # Without a spool, the recording is decoded again for splitting.
            self.spool.close()
            self.spool = None


def _choose_scan_pcm(source: Path) -> tuple[int, int]:
    """Return the sample rate and channels for scanning: the native rate, and at most two channels.

    Resampling would take a third of the time. Two channels mixed into one would cancel out where one has inverted
    polarity. One channel as two would be 3 dB quieter and slower.
    """
    with translate_codec_errors(source), open_recording(source) as container:
        codec = select_audio_track(source, container).codec_context
        return codec.sample_rate or SPLIT_RATE_HZ, 1 if codec.layout.nb_channels == 1 else 2


class _SilenceDetector:
    """Find silences below several thresholds, with a resolution of 20 ms.

    A window with one louder sample is not silent. Although written in Python, this runs at thousands of times real
    time: during speech, a few samples per stretch of the minimum silence length show that it contains no silence.
    FFmpeg's silencedetect is slower, and PyAV cannot read its results before 18.1.
    """

    def __init__(self, pcm: PcmFormat, thresholds_dbfs: Sequence[float], min_silence_s: float) -> None:
        self._trackers = [
            _SilenceTracker(int(32_768 * 10 ** (threshold / 20)), min_silence_s) for threshold in thresholds_dbfs
        ]
        self._highest_max_peak = max(tracker.max_peak for tracker in self._trackers)
        window = max(pcm.sample_rate_hz // _WINDOWS_PER_S, 1)
        self._window_s = window / pcm.sample_rate_hz
        self._window_values = window * pcm.channels
        self._windows_per_stride = max(int(min_silence_s / self._window_s), 1)
        # Odd steps sample both channels.
        self._coarse_step = self._window_values // _COARSE_SAMPLES_PER_WINDOW | 1
        self._fine_step = pcm.sample_rate_hz // SPLIT_RATE_HZ | 1
        # `_values` holds the samples from `_first_window` on.
        self._values, self._first_window = array.array("h"), 0
        self._is_quiet = False

    def feed(self, samples: bytes) -> None:
        """Add complete samples."""
        values = array.array("h", samples)
        if sys.byteorder == "big":
            values.byteswap()
        self._values += values
        window_count, window = len(self._values) // self._window_values, 0
        while window + (stride := 1 if self._is_quiet else self._windows_per_stride) <= window_count:
            if self._is_quiet or not self._is_loud(window + stride - 1):
                for index in range(window, window + stride):
                    self._measure_window(index)
            window += stride
        del self._values[: window * self._window_values]
        self._first_window += window

    def finish(self) -> tuple[tuple[Span, ...], ...]:
        """Return the silences for each threshold. An open one extends to the end of the recording."""
        for window in range(-(-len(self._values) // self._window_values)):
            self._measure_window(window)
        end_s = (self._first_window + len(self._values) / self._window_values) * self._window_s
        for tracker in self._trackers:
            tracker.end_silence(end_s)
        return tuple(tuple(tracker.silences) for tracker in self._trackers)

    def _is_loud(self, window: int) -> bool:
        return (
            max(self._values[window * self._window_values : (window + 1) * self._window_values : self._coarse_step])
            > self._highest_max_peak
        )

    def _measure_window(self, window: int) -> None:
        values = self._values[window * self._window_values : (window + 1) * self._window_values : self._fine_step]
        peak, start_s = max(max(values), -min(values)), (self._first_window + window) * self._window_s
        for tracker in self._trackers:
            if peak > tracker.max_peak:
                tracker.end_silence(start_s)
            elif tracker.start_s is None:
                tracker.start_s = start_s
        self._is_quiet = any(tracker.start_s is not None for tracker in self._trackers)


class _SilenceTracker:
    """Collect the silences below one threshold. `max_peak` is the largest sample value that counts as silence."""

    def __init__(self, max_peak: int, min_silence_s: float) -> None:
        self.max_peak = max_peak
        self.start_s: float | None = None
        self.silences: list[Span] = []
        self._min_silence_s = min_silence_s

    def end_silence(self, end_s: float) -> None:
        """End the current silence, and record it if it is long enough."""
        # A silence of exactly the minimum length must not be lost to rounding.
        if self.start_s is not None and end_s - self.start_s > self._min_silence_s - _ROUNDING_S:
            self.silences.append(Span(self.start_s, end_s))
        self.start_s = None


def scan_silence(
    source: Path,
    *,
    max_silence_dbfs: float = MAX_SILENCE_DBFS,
    max_pause_dbfs: float = MAX_PAUSE_DBFS,
    min_silence_s: float = MIN_SILENCE_S,
    spool: PcmSpool | None = None,
    check_truncation: bool = True,
) -> SilenceScan:
    """Scan a recording. Silences and pauses shorter than `min_silence_s` do not count.

    With `check_truncation=False`, only a recording that cannot be read to its end is incomplete.
    """
    return SilenceScan(
        source, max_silence_dbfs, max_pause_dbfs, min_silence_s, spool, check_truncation=check_truncation
    )
