"""The nouns of conversations with models. Apart from `vocabulary` for its length; the same rules hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .vocabulary import NONE, Json, Recording, Served, Usage


class ChatRequest(NamedTuple):
    """Something said to a model: text, recordings, or both.

    `format` is what a spoken answer is wanted in, and on the wire what the gateway is asked for; None: the answer is
    text. `streams`: as it comes, where the gateway leaves the choice. `longest_tokens` bounds the answer.
    """

    text: str
    recordings: tuple[Recording, ...] = ()
    system: str | None = None
    format: str | None = None
    streams: bool = True
    longest_tokens: int | None = None
    options: Mapping[str, Json] = NONE


class ChatReceipt(NamedTuple):
    """A finished `chat`; the fields of the sound are None where the answer was text. `finish`: why the model ended."""

    served: Served
    text: str
    usage: Usage
    finish: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    format: str | None = None
    duration_s: float | None = None
    warnings: tuple[str, ...] = ()


class Job(NamedTuple):
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
