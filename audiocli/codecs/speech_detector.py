"""Measure how much clear speech a recording has."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from pathlib import Path

from ..audio.speech_detector import SAMPLE_RATE_HZ, SpeechDetector, stands_out
from .convert import MAX_STEP_S, PcmReader

# Samples for about 10 ms of work.
_FEED_BYTES = 4 * SAMPLE_RATE_HZ
# Sound around a part of a recording that is searched for speech, and the voiced sound that shows that it has some.
_CONTEXT_S = 1.0
_TIME_ERROR_S = 0.3
_MIN_VOICED_S = 0.1


def scan_speech(source: Path) -> Generator[float, None, None]:
    """Yield the seconds of clear speech found so far. Every step takes about 50 ms, and the last value is the result.

    See `audio.speech_detector` for what counts as speech. Memory use does not grow with the recording. A minute takes a
    third of a second (two cores, 2026-11): most of it is the detector, not the codec.

    Raises:
        RecordingError: The recording cannot be decoded.
        OSError: The file cannot be read.
    """
    detector = SpeechDetector()
    reader = PcmReader(source, SAMPLE_RATE_HZ, 1, check_truncation=False)
    try:
        step_start = time.perf_counter()
        for block in reader:
            for offset in range(0, len(block), _FEED_BYTES):
                detector.feed(block[offset : offset + _FEED_BYTES])
                if time.perf_counter() - step_start >= MAX_STEP_S:
                    yield detector.voiced_s
                    step_start = time.perf_counter()
        yield detector.voiced_s
    finally:
        reader.close()


def scan_spans(source: Path, spans: Sequence[tuple[float, float]]) -> Generator[tuple[bool, ...], None, None]:
    """Yield, for each part of a recording that was searched so far, whether there may be speech.

    The recording is decoded up to the end of the last part. `spans` are sorted by their start.

    Raises:
        RecordingError: The recording cannot be decoded.
        OSError: The file cannot be read.
    """
    parts = [_Part(start_s, end_s) for start_s, end_s in spans]
    found: list[bool] = []
    reader = PcmReader(source, SAMPLE_RATE_HZ, 1, check_truncation=False)
    position = 0
    try:
        step_start = time.perf_counter()
        for block in reader:
            for part in parts[len(found) :]:
                part.feed(block, position)
            position += len(block)
            while len(found) < len(parts) and parts[len(found)].end <= position:
                found.append(parts[len(found)].may_have_speech())
                yield tuple(found)
                step_start = time.perf_counter()
            if len(found) == len(parts):
                return
            if time.perf_counter() - step_start >= MAX_STEP_S:
                yield tuple(found)
                step_start = time.perf_counter()
        for part in parts[len(found) :]:
            found.append(part.may_have_speech())
            yield tuple(found)
    finally:
        reader.close()


class _Part:
    """Samples of a part of a recording, and of what is around it. `end` is where they end, in bytes."""

    def __init__(self, start_s: float, end_s: float) -> None:
        if end_s - start_s > 4 * _TIME_ERROR_S:
            # Times of models are not exact, and the neighbors may speak.
            start_s, end_s = start_s + _TIME_ERROR_S, end_s - _TIME_ERROR_S
        self._first = 2 * int(max(start_s - _CONTEXT_S, 0.0) * SAMPLE_RATE_HZ)
        self.end = 2 * int((end_s + _CONTEXT_S) * SAMPLE_RATE_HZ)
        offset_s = self._first / (2 * SAMPLE_RATE_HZ)
        self._span_s = (start_s - offset_s, end_s - offset_s)
        self._samples = bytearray()

    def feed(self, block: bytes, position: int) -> None:
        """Add what a block at a position has of the part."""
        if position < self.end and position + len(block) > self._first:
            self._samples += block[max(self._first - position, 0) : self.end - position]

    def may_have_speech(self) -> bool:
        detector = SpeechDetector(keep_frames=True)
        # Silence completes the last window of the detector.
        detector.feed(bytes(self._samples) + bytes(4 * SAMPLE_RATE_HZ))
        samples, self._samples = bytes(self._samples), bytearray()
        return detector.measure_speech_s(*self._span_s) >= _MIN_VOICED_S or stands_out(samples, *self._span_s)


def measure_voiced_s(source: Path, enough_s: float | None = None) -> float:
    """Return the seconds of clear speech in a recording.

    Args:
        source: A recording in any format.
        enough_s: Stop at this many seconds, and return what was found. Most speech is then decided within seconds.

    Raises:
        RecordingError: The recording cannot be decoded.
        OSError: The file cannot be read.
    """
    voiced_s = 0.0
    for voiced_s in scan_speech(source):
        if enough_s is not None and voiced_s >= enough_s:
            break
    return voiced_s
