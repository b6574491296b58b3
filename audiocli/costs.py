"""Determine, add up and format costs. Amounts are integer nano-dollars; None is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from .types.ledger import NANOUSD_PER_USD, CostSource, Estimate, Outcome, Usage

# A reported cost below this share of the minimum by the price list is not plausible. LiteLLM reports the input of a
# speech model only, which is about 1 % of the cost (1.108.7, 2026-11).
MIN_PLAUSIBLE_SHARE = 0.1


def is_reported_too_low(usage: Usage, estimate: Estimate | None) -> bool:
    """Return whether the price list contradicts the reported cost: it is 0, or far below the minimum.

    A minimum that depends on an assumed unit contradicts a cost of 0 only.
    """
    if usage.cost_nanousd is None or estimate is None or not estimate.nanousd:
        return False
    reported_nanousd = usage.cost_nanousd + (usage.upstream_nanousd or 0)
    if not reported_nanousd:
        return True
    min_nanousd = 0 if estimate.unit_is_assumed else estimate.min_nanousd or 0
    return reported_nanousd < min_nanousd * MIN_PLAUSIBLE_SHARE


def resolve_cost(outcome: Outcome, usage: Usage, estimate: Estimate | None) -> tuple[int | None, CostSource]:
    """Return the cost of an attempt in nano-dollars, and its source. None is unknown, never free.

    `usage` has the cost from the gateway. `estimate` is computed from the delivered units; if it is exact, the source
    is `computed`, otherwise `estimated`. It replaces a reported cost that is too low, so that spending limits count
    the larger one.
    """
    reported_nanousd = usage.cost_nanousd
    if outcome is Outcome.OK and estimate is not None and is_reported_too_low(usage, estimate):
        return estimate.nanousd, CostSource.ESTIMATED
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


class Rounding(Enum):
    """How an amount is rounded: to the nearest value, down for what is left of a limit, up for a maximum cost."""

    NEAREST = "nearest"
    DOWN = "down"
    UP = "up"


def format_usd(nanousd: int | None, rounding: Rounding = Rounding.NEAREST) -> str:
    """Format an amount to two significant digits, from one dollar on to cents. An unknown amount is `unknown`."""
    if nanousd is None:
        return "unknown"
    magnitude = abs(nanousd)
    unit = min(10 ** max(len(str(magnitude)) - 2, 0), NANOUSD_PER_USD // 100)
    remainder = {Rounding.NEAREST: unit // 2, Rounding.DOWN: 0, Rounding.UP: unit - 1}[rounding]
    rounded = (magnitude + remainder) // unit * unit
    return format_exact_usd(-rounded if nanousd < 0 else rounded)


def format_exact_usd(nanousd: int) -> str:
    """Format an amount with all its digits, without trailing zeros: for limits that the user set, and for CSV."""
    dollars, fraction = divmod(abs(nanousd), NANOUSD_PER_USD)
    sign = "-" if nanousd < 0 else ""
    return f"{sign}${dollars}.{fraction:09d}".rstrip("0").rstrip(".")


def format_cost(nanousd: int | None, source: CostSource) -> str:
    """Format a cost for a table: `$0.0014`, `about $0.0014` for an estimate, or `unknown`."""
    text = format_usd(nanousd)
    return f"about {text}" if nanousd and source is CostSource.ESTIMATED else text


def format_run_cost(nanousd: int | None, source: CostSource) -> str:
    """Format the cost of a run for a result line: `free`, or `cost` with the amount."""
    return "free" if nanousd == 0 else f"cost {format_cost(nanousd, source)}"


def to_usd(nanousd: int | None) -> float | None:
    """Convert nano-dollars to US dollars."""
    return None if nanousd is None else nanousd / NANOUSD_PER_USD
