"""Measure what shows whether a transcript is made up: where the recording is silent, and where there is no speech.

The result is stored with the transcript, so that later runs report the same without decoding the recording again.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from ..audio.chunk_boundaries import Span
from ..errors import RecordingError
from ..text.guard import MIN_SILENCE_S, list_phrase_spans
from ..threads import run_in_thread
from ..types.audio import Recording
from ..types.results import TranscriptionResult
from ..types.transcripts import Timing

# A longer recording is decoded only if it is sent in chunks, which needs its silences anyway. A quarter of an hour of
# MP3 takes a second (two cores, 2026-11).
MAX_DECODED_S = 900.0
# More phrases than these are not searched for speech, which takes about 20 ms for each second.
_MAX_PHRASES = 20


async def add_evidence(result: TranscriptionResult, recording: Recording) -> TranscriptionResult:
    """Return the result with the silences of its recording, and with the closing phrases without speech.

    Nothing is measured if it would take long, or if the transcript has no times to compare with.
    """
    transcript = result.transcript
    is_measurable = recording.selection.is_everything and recording.duration_s <= MAX_DECODED_S
    if not transcript.text.strip() or transcript.timing is Timing.NONE or not is_measurable:
        return result
    try:
        silences_s = result.silences_s
        if silences_s is None:
            silences_s = await _find_silences(recording.path)
        spans = list_phrase_spans(transcript)[-_MAX_PHRASES:]
        speechless_s = await _find_speechless(recording.path, spans) if spans else ()
    except (RecordingError, OSError):
        return result  # the transcript is paid for and stays as it is
    return result._replace(silences_s=silences_s, speechless_s=speechless_s)


def round_silences(silences: Iterable[Span]) -> tuple[tuple[float, float], ...]:
    """Return the silences that are longer than a pause, rounded to milliseconds."""
    return tuple(
        (round(silence.start_s, 3), round(silence.end_s, 3))
        for silence in silences
        if silence.end_s - silence.start_s >= MIN_SILENCE_S
    )


async def _find_silences(path: Path) -> tuple[tuple[float, float], ...]:
    from ..codecs.silence import scan_silence

    scan = scan_silence(path, check_truncation=False)
    try:
        while await run_in_thread(partial(next, scan, None)) is not None:
            continue
        return round_silences(scan.silences)
    finally:
        scan.close()


async def _find_speechless(path: Path, spans: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    from ..codecs.speech_detector import scan_spans

    scan = scan_spans(path, spans)
    may_have_speech: tuple[bool, ...] = ()
    try:
        while (found := await run_in_thread(partial(next, scan, None))) is not None:
            may_have_speech = found
    finally:
        scan.close()
    return tuple(span for span, is_possible in zip(spans, may_have_speech, strict=True) if not is_possible)
