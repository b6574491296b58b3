"""Results of finished commands."""

from __future__ import annotations

from typing import NamedTuple

from .ledger import CostSource, Usage
from .routes import Route, SkippedRoute
from .transcripts import Transcript, Word


class ServedModel(NamedTuple):
    """Model and provider behind a gateway, as reported. `is_substituted`: the model is not the requested one."""

    model: str | None = None
    provider: str | None = None
    is_substituted: bool = False


class KeyInfo(NamedTuple):
    """What a gateway reports about an API key. None means unknown.

    Attributes:
        used_nanousd: Amount that was spent with the key.
        limit_nanousd: Spending limit of the key.
        remaining_nanousd: Amount that is left of the limit.
        is_unlimited: Whether the key is reported to have no limit.
        is_management_key: Whether the key manages other keys and cannot be used for requests.
    """

    used_nanousd: int | None = None
    limit_nanousd: int | None = None
    remaining_nanousd: int | None = None
    is_unlimited: bool = False
    is_management_key: bool = False


class RunResult(NamedTuple):
    """The part of a result that every command has: route, cost and duration.

    Attributes:
        model: The model that served the request; differs from that of the route if the gateway substituted it.
        first_byte_s: Seconds until the first byte of the response body.
        skipped: Routes that were not tried or have failed.
        warnings: What is unexpected about the model that served the request, or about its cost.
        reported_nanousd: The cost that the gateway reported, if the price list contradicts it; it is not in
            `cost_nanousd`.
    """

    route: Route
    model: str
    request_count: int
    attempt_count: int
    cost_nanousd: int | None
    cost_source: CostSource
    generation_ids: tuple[str, ...] = ()
    first_byte_s: float | None = None
    elapsed_s: float = 0.0
    skipped: tuple[SkippedRoute, ...] = ()
    warnings: tuple[str, ...] = ()
    reported_nanousd: int | None = None


class FailedChunk(NamedTuple):
    """A chunk of a text whose speech is wrong. `start_s` is when the problem is heard, in the final audio."""

    text: str
    start_s: float
    problem: str


class VerificationResult(NamedTuple):
    """What listening back to a speech has found.

    Attributes:
        word_error_rate: That of all chunks, from 0 to 1.
        redone_count: How many chunks were synthesized again, also by earlier runs.
        cost_nanousd: Cost of the transcripts; None if it is unknown.
        words: The words of the text with their times in the final audio, if they were requested.
    """

    word_error_rate: float
    chunk_count: int
    redone_count: int
    failed: tuple[FailedChunk, ...]
    cost_nanousd: int | None
    cost_source: CostSource
    words: tuple[Word, ...] = ()


class SpeechResult(NamedTuple):
    """Result of `speak`. `run` includes the cost of a verification.

    Attributes:
        is_suspicious: Whether the audio may be truncated, or come from another model. It is not stored for later runs.
        is_cached: Whether earlier runs have paid for all of it.
    """

    run: RunResult
    size_bytes: int
    sha256: str
    format: str
    duration_s: float | None
    warnings: tuple[str, ...] = ()
    is_suspicious: bool = False
    is_cached: bool = False
    verification: VerificationResult | None = None


class TranscriptionResult(NamedTuple):
    """Result of `transcribe`.

    Attributes:
        raw_response: Body of the response, unchanged.
        is_partial: Whether the transcript is that of a part of the recording; `partial_reason` says which.
        missing_s: Start and end of each part whose request failed or returned no text for speech.
        missed_speech_s: Seconds of voiced sound, if the transcript is empty although the recording has clear speech.
        is_accepted: Whether the user has accepted a partial or empty transcript.
        is_checked: False while the recording has not been checked for truncation.
        chunk_names: Stored chunks that can be removed when the transcript is written.
        silences_s: Start and end of each silence of the recording; None if they were not measured.
        speechless_s: Start and end of passages that were searched for speech and have none.
    """

    run: RunResult
    transcript: Transcript
    raw_response: bytes
    warnings: tuple[str, ...] = ()
    is_partial: bool = False
    chunk_names: tuple[str, ...] = ()
    partial_reason: str | None = None
    missing_s: tuple[tuple[float, float], ...] = ()
    missed_speech_s: float | None = None
    is_accepted: bool = False
    is_checked: bool = True
    silences_s: tuple[tuple[float, float], ...] | None = None
    speechless_s: tuple[tuple[float, float], ...] = ()

    @property
    def is_unaccepted_partial(self) -> bool:
        return self.is_partial and not self.is_accepted

    @property
    def is_unaccepted_empty(self) -> bool:
        return self.missed_speech_s is not None and not self.is_accepted


class ChatResult(NamedTuple):
    """Result of `chat`. The fields that describe audio are None for a reply in text."""

    run: RunResult
    text: str
    usage: Usage
    finish_reason: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    format: str | None = None
    duration_s: float | None = None
    warnings: tuple[str, ...] = ()
