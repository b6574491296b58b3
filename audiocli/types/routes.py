"""Routes, models and prices."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import NamedTuple


class Price(NamedTuple):
    """Price of one unit.

    Attributes:
        unit: Character, byte, second, minute, hour, token, output token, audio token, audio output token or request;
            None if the gateway does not state it.
        unit_is_assumed: Whether the unit is inferred from the amount.
        min_billed_s: Duration that is charged for shorter recordings.
        billing_increment_s: Durations are rounded up to a multiple of this.
    """

    usd: Decimal
    unit: str | None
    unit_is_assumed: bool = False
    min_billed_s: float = 0.0
    billing_increment_s: float = 0.0


class Route(NamedTuple):
    """A gateway and a model (and a voice), with everything that is needed to send a request.

    Attributes:
        price: Configured price, used if the gateway does not publish one.
        estimate_correction: Factor for estimates, from earlier bills of the model (`pricing.compute_correction`).
        unsupported: Features that the model has refused before (`gateways.capability_errors`).
        notes: Warnings to print before this route is used.
    """

    gateway: str
    dialect: str
    base_url: str
    model: str
    key: str | None = None
    voice: str | None = None
    price: Price | None = None
    unsupported: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    estimate_correction: float = 1.0

    @property
    def ref(self) -> str:
        return f"{self.gateway}:{self.model}"

    def __repr__(self) -> str:
        """Return a representation without the API key and the base URL, which may have a password."""
        return f"Route({self.ref}, voice={self.voice})"


class SkippedRoute(NamedTuple):
    """A route that was not tried or has failed, and the reason."""

    gateway: str
    model: str
    reason: str


class ModelCard(NamedTuple):
    """A model in the list of a gateway.

    Attributes:
        kind: `speech`, `transcription` or `chat`; None if unknown.
        prices: Empty if unknown, like `voices` and `formats`.
        end_date: Announced shutdown date.
    """

    gateway: str
    model: str
    kind: str | None
    prices: tuple[Price, ...] = ()
    voices: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    end_date: date | None = None
    note: str | None = None

    @property
    def ref(self) -> str:
        return f"{self.gateway}:{self.model}"
