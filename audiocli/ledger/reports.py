"""Query the ledger: totals by group, entries, and the accuracy of estimates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from ..types.ledger import CostSource, Outcome, UnreconciledEntry
from .database import QUARTER_MS
from .ledger import Ledger

# SQL expressions for the groups of a report, other than periods.
GROUP_EXPRESSIONS = {
    "gateway": "gateway",
    "model": "gateway || ':' || model",
    "command": "command",
    "outcome": "outcome",
    "tag": "tag",
}
PERIOD_GROUPS = ("day", "week", "month")
GROUPS = (*PERIOD_GROUPS, *GROUP_EXPRESSIONS)

# Outcomes that count as failures. A request that the user cancelled does not.
FAILURE_OUTCOMES = (Outcome.REFUSED, Outcome.FAILED, Outcome.UNKNOWN)

# The end of the year 9999, the last one of Python's datetime, in all time zones.
_MAX_MS = 253_402_128_000_000


class CostShare(NamedTuple):
    """The part of a total whose cost has one cost source."""

    requests: int = 0
    cost_nanousd: int = 0


class ReportRow(NamedTuple):
    """The totals of one group of a report.

    `cost_nanousd` is the sum of the known costs; `unknown_costs` is the number of requests with an unknown cost.
    `failures` is the number of requests with one of FAILURE_OUTCOMES. `upstream_nanousd` is what providers charged in
    addition to the gateways.
    """

    group: tuple[str, ...] = ()
    requests: int = 0
    failures: int = 0
    cost_nanousd: int | None = None
    unknown_costs: int = 0
    by_source: dict[CostSource, CostShare] = {}  # noqa: RUF012 - never modified
    upstream_nanousd: int = 0
    audio_ms: int = 0
    characters: int = 0


class EntryFilter(NamedTuple):
    """Conditions on the columns of an entry. `model` is `MODEL` or `GATEWAY:MODEL`."""

    gateway: str | None = None
    model: str | None = None
    command: str | None = None
    outcome: str | None = None
    tag: str | None = None


class Entry(NamedTuple):
    """An entry, with columns of the table `entries` as fields."""

    id: int
    at_ms: int
    command: str
    gateway: str
    model: str
    outcome: Outcome
    cost_nanousd: int | None
    cost_source: CostSource
    estimate_nanousd: int | None
    upstream_nanousd: int | None
    generation_id: str | None
    request_id: str | None
    tag: str | None
    status: int | None
    error: str | None


class EstimateDrift(NamedTuple):
    """The difference between the estimates and the reported costs of a model."""

    ref: str
    requests: int
    estimated_nanousd: int
    billed_nanousd: int

    @property
    def percent(self) -> float | None:
        """The difference in percent of the estimate, or None if the estimate is 0."""
        if not self.estimated_nanousd:
            return None
        return 100 * (self.billed_nanousd - self.estimated_nanousd) / self.estimated_nanousd


# Smaller differences are not reported.
MIN_DRIFT_PERCENT = 10.0


def build_report(
    ledger: Ledger, *, since: datetime | None, until: datetime | None, by: Sequence[str], utc: bool = False
) -> list[ReportRow]:
    """Return the totals of the entries of [since, until) in groups.

    `by` contains names of GROUPS. Requests with the outcome `unsent` are not counted.
    """
    ledger.expire_lost_entries()
    first_quarter, last_quarter = _to_ms(since, 0) // QUARTER_MS, -(-_to_ms(until, _MAX_MS) // QUARTER_MS)
    period = (
        "day"
        if {"day"} & set(by) or {"week", "month"} <= set(by)
        else next((name for name in by if name in PERIOD_GROUPS), "")
    )
    groups: dict[tuple[str, ...], ReportRow] = {}
    spans: Iterable[tuple[int, int, date | None]] = [(first_quarter, last_quarter, None)]
    if period:
        spans = _split_periods(ledger, first_quarter, last_quarter, period, utc=utc)
    for start_quarter, end_quarter, day in spans:
        for group, row in _read_sums(ledger, start_quarter, end_quarter, by, day):
            groups[group] = add_rows(groups[group], row) if group in groups else row
    return [groups[group] for group in sorted(groups)]


def add_rows(row: ReportRow, other: ReportRow) -> ReportRow:
    """Add two rows of one group."""
    sources = dict.fromkeys((*row.by_source, *other.by_source))
    shares = {}
    for source in sources:
        share, other_share = row.by_source.get(source, CostShare()), other.by_source.get(source, CostShare())
        shares[source] = CostShare(share.requests + other_share.requests, share.cost_nanousd + other_share.cost_nanousd)
    return _set_total_cost(
        ReportRow(
            group=row.group,
            requests=row.requests + other.requests,
            failures=row.failures + other.failures,
            unknown_costs=row.unknown_costs + other.unknown_costs,
            by_source=shares,
            upstream_nanousd=row.upstream_nanousd + other.upstream_nanousd,
            audio_ms=row.audio_ms + other.audio_ms,
            characters=row.characters + other.characters,
        )
    )


def _set_total_cost(row: ReportRow) -> ReportRow:
    """Set the total cost to the sum of the known costs.

    If the known costs are all 0, as for refused requests, and other costs are unknown, the total is unknown.
    """
    cost_nanousd = sum(share.cost_nanousd for share in row.by_source.values())
    is_known = bool(cost_nanousd) or (row.requests > 0 and not row.unknown_costs)
    return row._replace(cost_nanousd=cost_nanousd if is_known else None)


def _read_sums(
    ledger: Ledger, start_quarter: int, end_quarter: int, by: Sequence[str], day: date | None
) -> Iterator[tuple[tuple[str, ...], ReportRow]]:
    expressions = [GROUP_EXPRESSIONS[name] for name in by if name in GROUP_EXPRESSIONS]
    failure_outcomes = ", ".join(f"'{outcome}'" for outcome in FAILURE_OUTCOMES)
    group_columns = ", ".join(str(number + 1) for number in range(len(expressions) + 1))
    for (
        *values,
        source,
        requests,
        failures,
        known_costs,
        cost_nanousd,
        upstream_nanousd,
        audio_ms,
        characters,
    ) in ledger.query(
        f"""
        SELECT {"".join(f"{expression}, " for expression in expressions)} cost_source, sum(entries),
            sum(CASE WHEN outcome IN ({failure_outcomes}) THEN entries ELSE 0 END), sum(known), sum(cost_nanousd),
            sum(upstream_nanousd), sum(audio_ms), sum(characters)
        FROM sums WHERE quarter >= ? AND quarter < ? AND outcome <> 'unsent' GROUP BY {group_columns}
        """,
        (start_quarter, end_quarter),
    ):
        remaining_values = iter(values)
        group = tuple(_format_period(name, day) if name in PERIOD_GROUPS else next(remaining_values) for name in by)
        by_source = {CostSource(source): CostShare(requests, cost_nanousd)}
        row = ReportRow(
            group, requests, failures, None, requests - known_costs, by_source, upstream_nanousd, audio_ms, characters
        )
        yield group, _set_total_cost(row)


def _format_period(name: str, day: date | None) -> str:
    assert day is not None
    if name == "month":
        return day.strftime("%Y-%m")
    return (day - timedelta(days=day.weekday() if name == "week" else 0)).isoformat()


def _split_periods(
    ledger: Ledger, start_quarter: int, end_quarter: int, period: str, *, utc: bool
) -> Iterator[tuple[int, int, date]]:
    """Yield the days, weeks or months with entries, as [start, end) in quarters of an hour with their first day."""
    while True:
        [(first_quarter,)] = ledger.query(
            "SELECT min(quarter) FROM sums WHERE quarter >= ? AND quarter < ?", (start_quarter, end_quarter)
        )
        if first_quarter is None:
            return
        first_time = datetime.fromtimestamp(first_quarter * QUARTER_MS / 1000, UTC)
        day = (first_time if utc else first_time.astimezone()).date()
        next_day = day + timedelta(days=1)
        if period == "week":
            next_day = day + timedelta(days=7 - day.weekday())
        elif period == "month":
            next_day = (day.replace(day=28) + timedelta(days=4)).replace(day=1)
        midnight = datetime(next_day.year, next_day.month, next_day.day, tzinfo=UTC if utc else None)
        period_end = max(first_quarter + 1, min(end_quarter, int(midnight.timestamp() * 1000) // QUARTER_MS))
        yield start_quarter, period_end, day
        start_quarter = period_end


def list_entries(
    ledger: Ledger,
    *,
    since: datetime | None,
    until: datetime | None,
    entry_filter: EntryFilter = EntryFilter(),  # noqa: B008 - immutable
    limit: int | None = None,
) -> Iterator[Entry]:
    """Yield the entries of [since, until), oldest first. With `limit`, yield only the newest ones."""
    for values in _query_entries(ledger, ", ".join(Entry._fields), since, until, entry_filter, limit):
        entry = Entry(*values)
        yield entry._replace(outcome=Outcome(entry.outcome), cost_source=CostSource(entry.cost_source))


def export_entries(
    ledger: Ledger, *, since: datetime | None, until: datetime | None, entry_filter: EntryFilter
) -> Iterator[dict[str, Any]]:
    """Yield the entries of [since, until) with every column, oldest first, with the stored values."""
    columns = ledger.list_columns()
    for values in _query_entries(ledger, ", ".join(columns), since, until, entry_filter, None):
        yield dict(zip(columns, values, strict=True))


def _query_entries(
    ledger: Ledger,
    columns: str,
    since: datetime | None,
    until: datetime | None,
    entry_filter: EntryFilter,
    limit: int | None,
) -> Iterator[tuple[Any, ...]]:
    ledger.expire_lost_entries()
    conditions, times_ms = ["at_ms >= ?", "at_ms < ?"], [_to_ms(since, 0), _to_ms(until, 2**62)]
    parameters: list[object] = [*times_ms]
    for name, value in entry_filter._asdict().items():
        if value is not None:
            conditions.append(f"? IN (model, {GROUP_EXPRESSIONS['model']})" if name == "model" else f"{name} = ?")
            parameters.append(value)
    query = f"SELECT {columns} FROM entries WHERE {' AND '.join(conditions)}"
    if limit is None:
        return ledger.query(f"{query} ORDER BY at_ms, id", parameters)
    newest_query = f"{query} ORDER BY at_ms DESC, id DESC LIMIT ?"
    return ledger.query(f"SELECT * FROM ({newest_query}) ORDER BY at_ms, id", [*parameters, limit])


def list_unreconciled(
    ledger: Ledger, *, since: datetime | None, until: datetime | None, limit: int
) -> tuple[list[UnreconciledEntry], int]:
    """Return up to `limit` entries with an estimated or unknown cost that can be looked up, and their total number.

    The newest entries are first. Entries that their gateway did not know are last, so that every entry is looked up
    eventually.
    """
    ledger.expire_lost_entries()
    where = (
        "FROM entries WHERE at_ms >= ? AND at_ms < ? AND cost_source IN ('estimated', 'unknown') "
        "AND outcome <> 'reserved' AND generation_id IS NOT NULL"
    )
    times_ms = (_to_ms(since, 0), _to_ms(until, 2**62))
    [(count,)] = ledger.query(f"SELECT count(*) {where}", times_ms)
    rows = ledger.query(
        f"SELECT id, gateway, model, generation_id, cost_nanousd {where} ORDER BY ifnull(asked_ms, 0), id DESC LIMIT ?",
        (*times_ms, limit),
    )
    return [UnreconciledEntry(*values) for values in rows], count


class UnreportedCosts(NamedTuple):
    """The requests to one gateway without a reported cost and without an ID to look it up.

    `model` is one whose price is unknown; None if all costs are estimated.
    """

    gateway: str
    requests: int
    model: str | None


def list_unreported(ledger: Ledger, *, since: datetime | None, until: datetime | None) -> list[UnreportedCosts]:
    """Return the gateways that have requests with an estimated or unknown cost that cannot be looked up."""
    rows = ledger.query(
        """
        SELECT gateway, count(*), max(CASE WHEN cost_source = 'unknown' AND outcome = 'ok' THEN model END)
        FROM entries WHERE at_ms >= ? AND at_ms < ? AND cost_source IN ('estimated', 'unknown')
            AND outcome <> 'reserved' AND generation_id IS NULL
        GROUP BY gateway ORDER BY gateway
        """,
        (_to_ms(since, 0), _to_ms(until, 2**62)),
    )
    return [UnreportedCosts(*values) for values in rows]


def find_drift(ledger: Ledger, *, since: datetime | None, until: datetime | None) -> list[EstimateDrift]:
    """Return the models whose reported costs differ from the estimates by more than MIN_DRIFT_PERCENT."""
    rows = ledger.query(
        f"SELECT {GROUP_EXPRESSIONS['model']}, count(*), sum(estimate_nanousd), "
        "sum(cost_nanousd + ifnull(upstream_nanousd, 0)) "
        "FROM entries WHERE at_ms >= ? AND at_ms < ? AND cost_source = 'reported' AND outcome = 'ok' "
        "AND estimate_nanousd IS NOT NULL GROUP BY 1 ORDER BY 1",
        (_to_ms(since, 0), _to_ms(until, 2**62)),
    )
    drifts = [EstimateDrift(*values) for values in rows]
    return [
        drift
        for drift in drifts
        if drift.billed_nanousd and (drift.percent is None or abs(drift.percent) > MIN_DRIFT_PERCENT)
    ]


def _to_ms(time: datetime | None, default_ms: int) -> int:
    return default_ms if time is None else int(time.timestamp() * 1000)
