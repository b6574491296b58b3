"""Results of finished commands."""

from __future__ import annotations

from typing import NamedTuple

from .ledger import CostSource, Usage
from .routes import Route, SkippedRoute
from .transcripts import Transcript


class ServedModel(NamedTuple):
    """Model and provider behind a gateway, as reported. `is_substituted`: the model is not the requested one."""

    model: str | None = None
    provider: str | None = None
    is_substituted: bool = False


class RunResult(NamedTuple):
    """The part of a result that every command has: route, cost and duration.

    Attributes:
        model: The model that served the request; differs from that of the route if the gateway substituted it.
        first_byte_s: Seconds until the first byte of the response body.
        skipped: Routes that were not tried or have failed.
        warnings: What is unexpected about the model that served the request.
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


class SpeechResult(NamedTuple):
    """Result of `speak`."""

    run: RunResult
    size_bytes: int
    sha256: str
    format: str
    duration_s: float | None
    warnings: tuple[str, ...] = ()


class TranscriptionResult(NamedTuple):
    """Result of `transcribe`.

    Attributes:
        raw_response: Body of the response, unchanged.
        is_partial: Whether the recording is truncated.
        chunk_names: Stored chunks that can be removed when the transcript is written.
    """

    run: RunResult
    transcript: Transcript
    raw_response: bytes
    warnings: tuple[str, ...] = ()
    is_partial: bool = False
    chunk_names: tuple[str, ...] = ()


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
