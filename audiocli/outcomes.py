"""The fate of one attempt. Apart from `vocabulary`, whose two dozen dataclasses cost every command 10 ms."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How one attempt ended, as the ledger keeps it."""

    RESERVED = "reserved"
    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"
    UNSENT = "unsent"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
