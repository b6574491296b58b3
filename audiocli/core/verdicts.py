"""Judge a transcript that is empty or partial, and apply what the user accepts.

A verdict is stored with the transcript, so that every run of the same command ends in the same way.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..errors import InvalidResponse, RecordingError
from ..threads import run_in_thread
from ..types.requests import TranscriptionRequest
from ..types.results import TranscriptionResult
from ..types.transcripts import Timing

# An empty transcript is an error from this much voiced sound on. Less may be noise, music or a cough.
MIN_SPEECH_S = 3.0
NO_SPEECH_WARNING = "no speech in the recording; the transcript is empty"
ACCEPT_PARTIAL_HINT = "use --accept-partial to accept a partial transcript"
EMPTY_HINT = "use --retry-failed to send it again, or --allow-empty to accept the empty transcript"


class Acceptance(NamedTuple):
    """What the user accepts: empty transcripts of speech, and partial transcripts."""

    allow_empty: bool = False
    accept_partial: bool = False


class EmptyTranscript(InvalidResponse):
    """The transcript is empty, but the recording has clear speech. `result` has what was paid for."""

    def __init__(self, result: TranscriptionResult, *, request_id: str | None = None) -> None:
        super().__init__(
            "200 with an empty transcript for a recording with clear speech",
            hint=EMPTY_HINT,
            request_id=request_id,
        )
        self.result = result


def build_empty_error(result: TranscriptionResult) -> EmptyTranscript:
    """Return the error of a stored result, with the same message as when it was received."""
    error = EmptyTranscript(result)
    error.message = f"{result.run.route.ref}: {error.message}"
    return error


def accept(result: TranscriptionResult, acceptance: Acceptance) -> TranscriptionResult:
    """Return the result, accepted if the user accepts its verdict."""
    is_accepted = (result.is_partial and acceptance.accept_partial) or (
        result.missed_speech_s is not None and acceptance.allow_empty
    )
    return result._replace(is_accepted=True) if is_accepted else result


def can_improve(result: TranscriptionResult) -> bool:
    """Return whether another request may give more text than the stored result has."""
    return not result.is_accepted and (result.missed_speech_s is not None or bool(result.missing_s))


def lacks_timestamps(result: TranscriptionResult, request: TranscriptionRequest) -> bool:
    """Return whether captions are requested and the transcript has no timestamps."""
    transcript = result.transcript
    return request.timestamps_required and bool(transcript.text.strip()) and transcript.timing is Timing.NONE


def build_strict_error(result: TranscriptionResult) -> InvalidResponse:
    """Return the error for captions of a transcript without timestamps, if their times must not be estimated."""
    return InvalidResponse(
        f"{result.run.route.ref}: 200 without the requested timestamps",
        hint="the text is stored; run the command without --strict-timestamps, or with -f txt, to write it",
    )


async def measure_speech_s(path: Path) -> float:
    """Return the seconds of clear speech in a recording, at most about `MIN_SPEECH_S`.

    A recording that cannot be decoded has none, because that is uncertain.
    """
    from ..codecs.speech_detector import scan_speech

    speech_s = 0.0
    scan = scan_speech(path)
    try:
        while (found_s := await run_in_thread(partial(next, scan, None))) is not None:
            speech_s = found_s
            if speech_s >= MIN_SPEECH_S:
                break
    except (RecordingError, OSError):
        return 0.0
    finally:
        scan.close()
    return speech_s


def describe_gaps(missing_s: tuple[tuple[float, float], ...]) -> str:
    """Return the parts of a recording that a transcript does not have."""
    spans = ", ".join(f"{format_time(start_s)} to {format_time(end_s)}" for start_s, end_s in missing_s)
    return f"the transcript has no text from {spans}"


def format_truncation(seconds: float) -> str:
    """Format where a recording breaks off: with one decimal below ten seconds."""
    return f"{seconds:.0f} s" if round(seconds, 1) >= 10 else f"{seconds:.1f} s"


def format_time(seconds: float) -> str:
    """Format a position in a recording as H:MM:SS."""
    minutes, whole_seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole_seconds:02d}"
