"""Measure how much clear speech a recording has."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path

from ..audio.speech_detector import SAMPLE_RATE_HZ, SpeechDetector
from .convert import MAX_STEP_S, PcmReader

# Samples for about 10 ms of work.
_FEED_BYTES = 4 * SAMPLE_RATE_HZ


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
