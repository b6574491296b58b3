"""How attempts end and how their cost is known. Apart from `vocabulary`, whose dataclasses take 10 ms to make."""

from __future__ import annotations

from enum import StrEnum

NANOUSD_PER_USD = 1_000_000_000


class Outcome(StrEnum):
    """How one attempt ended, as the ledger keeps it."""

    RESERVED = "reserved"
    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"
    UNSENT = "unsent"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class CostSource(StrEnum):
    """How a cost is known, best first."""

    REPORTED = "reported"
    COMPUTED = "computed"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"
