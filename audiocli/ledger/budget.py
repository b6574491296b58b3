"""Spending limits for a run, or for a day, week or month of local time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from ..costs import Rounding, format_exact_usd, format_usd
from ..errors import LimitReached
from ..types.ledger import NANOUSD_PER_USD

PERIODS = ("run", "day", "week", "month")
MAX_COST_LIMIT = "--max-cost"
"""Name of the limit for one run that the user gives on the command line."""


class Budget(NamedTuple):
    """The spending limits of `[budget]`, in nano-dollars. None means no limit.

    `confirm` is the estimated cost above which the user must confirm a run.
    """

    run: int | None = None
    day: int | None = None
    week: int | None = None
    month: int | None = None
    confirm: int | None = None


class SpendingLimit(NamedTuple):
    """A maximum for the spending since a Unix time, or for the spending of one run."""

    name: str
    amount_nanousd: int
    since_ms: int | None = None
    run_id: str | None = None


class RunBudget(NamedTuple):
    """The spending limits of one run.

    Attributes:
        run_id: Identifies the entries of the run in the ledger.
        limits: Limits that apply to all requests of the run.
        allow_unpriced: Send requests of unknown price despite the limits.
    """

    run_id: str = ""
    limits: tuple[SpendingLimit, ...] = ()
    allow_unpriced: bool = False


def resolve_limits(
    budget: Budget, *, max_cost_nanousd: int | None, run_id: str, now: datetime
) -> tuple[SpendingLimit, ...]:
    """Return the limits in force. `--max-cost` is an additional limit for the run."""
    limits = [
        SpendingLimit(period, amount_nanousd, since_ms=int(find_period_start(period, now).timestamp() * 1000))
        for period in PERIODS[1:]
        if (amount_nanousd := getattr(budget, period)) is not None
    ]
    if budget.run is not None:
        limits.append(SpendingLimit("run", budget.run, run_id=run_id))
    if max_cost_nanousd is not None:
        limits.append(SpendingLimit(MAX_COST_LIMIT, max_cost_nanousd, run_id=run_id))
    return tuple(limits)


def find_period_start(period: str, now: datetime) -> datetime:
    """Return the start of the local day, week (Monday) or month that contains `now`."""
    days = {"day": 0, "week": now.weekday(), "month": now.day - 1}[period]
    day = (now - timedelta(days=days)).date()
    return datetime(day.year, day.month, day.day).astimezone()


def check_limit(
    limit: SpendingLimit, ref: str, *, spent_nanousd: int, max_nanousd: int | None, has_price: bool = False
) -> None:
    """Check one request against a spending limit.

    `ref` is the route of the request. `max_nanousd` is its maximum cost; `has_price` says that its price is known even
    if the maximum is not, because the length of a reply is unbounded.

    Raises:
        LimitReached: The request could exceed the limit, or its maximum cost is unknown.
    """
    amount = format_exact_usd(limit.amount_nanousd)
    is_max_cost = limit.name == MAX_COST_LIMIT
    name = f"--max-cost {amount[1:]}" if is_max_cost else f"the spending limit of {amount} per {limit.name}"
    if max_nanousd is None and has_price:
        raise LimitReached(
            f"cannot enforce {name}: the maximum cost of {ref} is unknown",
            hint="set --max-tokens, or allow it with --allow-unpriced",
        )
    if max_nanousd is None:
        raise LimitReached(
            f"cannot enforce {name}: the price of {ref} is unknown",
            hint="set it under [prices] in config.toml, or allow it with --allow-unpriced",
        )
    if spent_nanousd + max_nanousd > limit.amount_nanousd:
        raise LimitReached(
            f"{ref} would exceed {name}: {format_usd(spent_nanousd)} is spent or reserved, "
            f"and this may cost {format_usd(max_nanousd, Rounding.UP)}",
            hint="run 'audiocli budget' to see the limits" if limit.since_ms is not None else None,
            is_of_period=limit.since_ms is not None,
        )


def to_nanousd(amount_usd: float | None) -> int | None:
    """Convert US dollars to nano-dollars."""
    return None if amount_usd is None else round(amount_usd * NANOUSD_PER_USD)
