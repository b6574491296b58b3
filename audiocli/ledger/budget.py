"""What may be spent: caps in US dollars for one run, a day, a week or a month of local time. Rules only."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from ..amounts import usd
from ..errors import LimitReached
from ..types.outcomes import NANOUSD_PER_USD

PERIODS = ("run", "day", "week", "month")


class Budget(NamedTuple):
    """The caps of `[budget]`, in nano-dollars; None: no cap. `confirm` is the price above which people are asked."""

    run: int | None = None
    day: int | None = None
    week: int | None = None
    month: int | None = None
    confirm: int | None = None


class SpendingLimit(NamedTuple):
    """One cap: what may be spent since a moment, or by one run."""

    name: str
    limit_nanousd: int
    since_ms: int | None = None
    run: str | None = None


def resolve_limits(budget: Budget, *, max_cost_nanousd: int | None, run: str, now: datetime) -> tuple[SpendingLimit, ...]:
    """Give the caps that hold now; `--max-cost` is one more for the run."""
    found = [
        SpendingLimit(name, limit, since_ms=int(start_of(name, now).timestamp() * 1000))
        for name in PERIODS[1:]
        if (limit := getattr(budget, name)) is not None
    ]
    if budget.run is not None:
        found.append(SpendingLimit("run", budget.run, run=run))
    if max_cost_nanousd is not None:
        found.append(SpendingLimit("--max-cost", max_cost_nanousd, run=run))
    return tuple(found)


def start_of(period: str, now: datetime) -> datetime:
    """Give the beginning of the local day, week (Monday) or month of a moment."""
    days = {"day": 0, "week": now.weekday(), "month": now.day - 1}[period]
    day = (now - timedelta(days=days)).date()
    return datetime(day.year, day.month, day.day).astimezone()


def check(cap: SpendingLimit, *, spent_nanousd: int, most_nanousd: int | None) -> None:
    """Hold one request against a cap. Raises: CapReached: it could pass it, or nobody knows what it costs at most."""
    name = f"the cap of {usd(cap.limit_nanousd)}" + (f" a {cap.name}" if cap.since_ms is not None else f" ({cap.name})")
    if most_nanousd is None:
        raise LimitReached(
            f"{name} cannot be kept: nobody knows what this costs at most",
            hint="audiocli models asks the gateways for their prices, [prices] in the configuration tells them; "
            "--allow-unpriced sends it all the same",
        )
    if spent_nanousd + most_nanousd > cap.limit_nanousd:
        spent = f"{usd(spent_nanousd)} are spent or reserved"
        raise LimitReached(
            f"{name} would be passed: {spent}, and this may cost {usd(most_nanousd)}",
            hint="audiocli budget shows the caps" if cap.since_ms is not None else None,
        )


def nanousd(amount_usd: float | None) -> int | None:
    return None if amount_usd is None else round(amount_usd * NANOUSD_PER_USD)
