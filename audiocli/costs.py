"""Determine the costs of requests and their cost sources."""

from __future__ import annotations

from collections.abc import Sequence

from .types.ledger import CostSource, Estimate, Outcome


def resolve_cost(
    outcome: Outcome, reported_nanousd: int | None, estimate: Estimate | None
) -> tuple[int | None, CostSource]:
    """Return the cost of an attempt in nano-dollars, and its source. None is unknown, never free.

    `reported_nanousd` is the cost from the gateway. `estimate` is computed from the delivered units; if it is exact,
    the source is `computed`, otherwise `estimated`.
    """
    if reported_nanousd is not None:
        return reported_nanousd, CostSource.REPORTED
    if outcome in (Outcome.UNSENT, Outcome.REFUSED):
        return 0, CostSource.COMPUTED
    if outcome is Outcome.OK and estimate is not None and estimate.nanousd is not None:
        return estimate.nanousd, CostSource.COMPUTED if estimate.is_exact else CostSource.ESTIMATED
    return None, CostSource.UNKNOWN


def sum_costs(costs: Sequence[tuple[int | None, CostSource]]) -> tuple[int | None, CostSource]:
    """Add up costs. The source is the least reliable one of the costs that are not 0."""
    if any(cost is None for cost, _ in costs):
        return None, CostSource.UNKNOWN
    sources = [source for cost, source in costs if cost] or [source for _, source in costs]
    best_first = list(CostSource)
    source = max(sources, key=best_first.index, default=CostSource.COMPUTED)
    return sum(cost or 0 for cost, _ in costs), source
