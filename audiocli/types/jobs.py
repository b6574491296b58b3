"""Values of background jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .values import NONE, Usage


class RemoteJob(NamedTuple):
    """Work that a gateway does in its own time, as it is kept here.

    `wire` is the format that was asked of the gateway, `formats` what the user wants of it, `output` where. `entry_id`
    is its entry in the ledger, open until the job is over, and what that may cost was priced when it was handed in.
    `shape` and `by_word` are those of captions. Times are Unix time in seconds.
    """

    id: str
    gateway: str
    base_url: str
    kind: str
    model: str
    status: str
    at_s: float
    formats: tuple[str, ...]
    wire: str
    entry_id: int | None = None
    voice: str | None = None
    output: str | None = None
    polling_url: str | None = None
    expires_s: float | None = None
    reason: str | None = None
    characters: int | None = None
    utf8_bytes: int | None = None
    audio_s: float | None = None
    least_nanousd: int | None = None
    most_nanousd: int | None = None
    is_certain: bool = False
    request_id: str | None = None
    shape: Mapping[str, float] = NONE
    by_word: bool = False

    @property
    def ref(self) -> str:
        return f"{self.gateway}:{self.id}"


class JobState(NamedTuple):
    """What a gateway tells of a job. `result` is the result itself, where it stands in the answer."""

    id: str | None
    status: str
    urls: tuple[str, ...] = ()
    result: bytes | None = None
    polling_url: str | None = None
    expires_s: float | None = None
    reason: str | None = None
    usage: Usage = Usage()


QUEUED, SUCCEEDED, LOST = "queued", "succeeded", "lost"
FAILED = frozenset({"failed", "cancelled", "canceled", "expired", LOST})
