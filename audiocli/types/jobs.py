"""Background jobs at a gateway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .json import EMPTY_MAPPING
from .ledger import Usage


class RemoteJob(NamedTuple):
    """A submitted job, as stored in the ledger file.

    Attributes:
        formats: Output formats.
        request_format: Format that was requested from the gateway.
        output: Output path.
        entry_id: Ledger entry, reserved until the job has finished.
        min_nanousd: Minimum cost, estimated at submission, like `max_nanousd`, `is_exact` and `expected_nanousd`.
        submitted_at_s: Unix time, like `expires_at_s`.
        caption_limits: Fields of `CaptionLimits`.
        by_word: Whether captions have one cue for each word.
    """

    id: str
    gateway: str
    base_url: str
    kind: str
    model: str
    status: str
    submitted_at_s: float
    formats: tuple[str, ...]
    request_format: str
    entry_id: int | None = None
    voice: str | None = None
    output: str | None = None
    polling_url: str | None = None
    expires_at_s: float | None = None
    reason: str | None = None
    characters: int | None = None
    utf8_bytes: int | None = None
    audio_s: float | None = None
    min_nanousd: int | None = None
    max_nanousd: int | None = None
    is_exact: bool = False
    request_id: str | None = None
    caption_limits: Mapping[str, float] = EMPTY_MAPPING
    by_word: bool = False
    expected_nanousd: int | None = None

    @property
    def ref(self) -> str:
        return f"{self.gateway}:{self.id}"


class JobState(NamedTuple):
    """State of a job as reported by its gateway. `result` is the result itself, if the response contains it."""

    id: str | None
    status: str
    result_urls: tuple[str, ...] = ()
    result: bytes | None = None
    polling_url: str | None = None
    expires_at_s: float | None = None
    reason: str | None = None
    usage: Usage = Usage()


QUEUED, SUCCEEDED, LOST = "queued", "succeeded", "lost"
FAILED_STATUSES = frozenset({"failed", "cancelled", "canceled", "expired", LOST})
