"""What requests have cost, and how well that is known."""

from __future__ import annotations

from collections.abc import Sequence

from .types.outcomes import CostSource, Outcome
from .types.values import Estimate


def cost_of(outcome: Outcome, reported: int | None, estimate: Estimate | None) -> tuple[int | None, CostSource]:
    """Settle what an attempt cost, in nano-dollars, and how that is known; None is unknown, never free.

    `estimate` is the price of what was served; where its units are certain it is no guess any more.
    """
    if reported is not None:
        return reported, CostSource.REPORTED
    if outcome in (Outcome.UNSENT, Outcome.REFUSED):
        return 0, CostSource.COMPUTED
    if outcome is Outcome.OK and estimate is not None and estimate.nanousd is not None:
        return estimate.nanousd, CostSource.COMPUTED if estimate.is_certain else CostSource.ESTIMATED
    return None, CostSource.UNKNOWN


def total(costs: Sequence[tuple[int | None, CostSource]]) -> tuple[int | None, CostSource]:
    """Sum several costs: as well known as the worst known of them."""
    if any(cost is None for cost, _ in costs):
        return None, CostSource.UNKNOWN
    charged = [source for cost, source in costs if cost] or [source for _, source in costs]
    order = list(CostSource)
    source = max(charged, key=order.index, default=CostSource.COMPUTED)
    return sum(cost or 0 for cost, _ in costs), source
