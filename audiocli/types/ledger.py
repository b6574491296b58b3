"""Usage, estimates and the contents of ledger entries. Amounts are in nano-dollars."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

NANOUSD_PER_USD = 1_000_000_000


class Outcome(StrEnum):
    """Outcome of an attempt, as stored in the ledger."""

    RESERVED = "reserved"
    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"
    UNSENT = "unsent"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> Outcome:
        """Return `UNKNOWN` for a value that a damaged or newer file has."""
        return cls.UNKNOWN


class CostSource(StrEnum):
    """Where a cost comes from, most reliable first."""

    REPORTED = "reported"
    COMPUTED = "computed"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> CostSource:
        """Return `UNKNOWN` for a value that a damaged or newer file has."""
        return cls.UNKNOWN


class Usage(NamedTuple):
    """Usage and cost that a gateway reports. None means not reported, never zero.

    Attributes:
        input_tokens: All input tokens, including those of audio.
        output_tokens: All output tokens, including those of audio.
        upstream_nanousd: Charged by the provider in addition to the gateway, if the user's own provider key was used.
        invalid_cost: The reported cost as text, if it cannot be a cost.
    """

    cost_nanousd: int | None = None
    audio_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    upstream_nanousd: int | None = None
    invalid_cost: str | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None


class Estimate(NamedTuple):
    """Estimated cost of a request. None means unknown.

    Attributes:
        max_nanousd: Maximum cost, for spending limits.
        is_exact: Whether the units are known before sending and the gateway publishes the price.
        expected_nanousd: Expected cost within the range; None is its middle.
        listed_nanousd: Expected cost by the price list alone, if `expected_nanousd` was corrected by earlier bills.
        unit_is_assumed: Whether the unit of a price is inferred from its amount.
    """

    min_nanousd: int | None = None
    max_nanousd: int | None = None
    is_exact: bool = False
    expected_nanousd: int | None = None
    listed_nanousd: int | None = None
    unit_is_assumed: bool = False

    @property
    def nanousd(self) -> int | None:
        """The expected cost; None if it or its maximum is unknown."""
        if self.min_nanousd is None or self.max_nanousd is None:
            return None
        if self.expected_nanousd is not None:
            return self.expected_nanousd
        return (self.min_nanousd + self.max_nanousd) // 2


class Reservation(NamedTuple):
    """Contents of a ledger entry before the attempt: what is requested, and the units that prices apply to.

    Attributes:
        max_nanousd: Maximum cost, which counts towards spending limits until the entry is settled; None if unknown.
        run_id: Identifies the run of the command.
    """

    command: str
    gateway: str
    model: str
    tag: str | None = None
    characters: int | None = None
    utf8_bytes: int | None = None
    audio_s: float | None = None
    estimate_nanousd: int | None = None
    max_nanousd: int | None = None
    run_id: str | None = None


class Settlement(NamedTuple):
    """Contents of a ledger entry after the attempt. `model` is set if the gateway substituted the requested model."""

    outcome: Outcome
    cost_nanousd: int | None = None
    cost_source: CostSource = CostSource.UNKNOWN
    status: int | None = None
    error: str | None = None
    request_id: str | None = None
    generation_id: str | None = None
    audio_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    received_bytes: int | None = None
    model: str | None = None
    upstream_nanousd: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None


class UnreconciledEntry(NamedTuple):
    """A finished request whose cost was not reported. `generation_id` identifies it at the gateway."""

    id: int
    gateway: str
    model: str
    generation_id: str
    cost_nanousd: int | None
