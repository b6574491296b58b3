"""What the ledger tells: sums in groups, entries one by one. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from ..types.outcomes import CostSource, Outcome
from ..types.values import UnreconciledEntry
from .ledger import Ledger
from .schema import QUARTER_MS

# What a report can be grouped by besides days, weeks and months, and the expression that makes the group.
COLUMNS = {
    "gateway": "gateway",
    "model": "gateway || ':' || model",
    "command": "command",
    "outcome": "outcome",
    "tag": "tag",
}
TIMES = ("day", "week", "month")
GROUPS = (*TIMES, *COLUMNS)

# Requests that were made and served nothing. What the user cancelled is no failure.
FAILURES = (Outcome.REFUSED, Outcome.FAILED, Outcome.UNKNOWN)

# The end of the last year that Python knows, in all time zones.
_LAST_MS = 253_402_128_000_000


class Share(NamedTuple):
    """The part of a sum whose cost is known in one way."""

    requests: int = 0
    cost_nanousd: int = 0


class Row(NamedTuple):
    """One group of a report. `cost_nanousd` sums what is known; `unknown` counts the entries whose cost is not.

    `failures` counts the FAILURES. `upstream_nanousd` is what providers charged beside the gateways.
    """

    group: tuple[str, ...] = ()
    requests: int = 0
    failures: int = 0
    cost_nanousd: int | None = None
    unknown: int = 0
    by_source: dict[CostSource, Share] = {}  # noqa: RUF012 - never changed
    upstream_nanousd: int = 0
    audio_ms: int = 0
    characters: int = 0


class Filter(NamedTuple):
    """Which entries are wanted; `model` with or without its gateway before a colon."""

    gateway: str | None = None
    model: str | None = None
    command: str | None = None
    outcome: str | None = None
    tag: str | None = None


class Entry(NamedTuple):
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


class Drift(NamedTuple):
    """How far the estimates of a model were from its bills."""

    ref: str
    requests: int
    estimated_nanousd: int
    billed_nanousd: int

    @property
    def percent(self) -> float | None:
        """None: nothing was estimated for what was billed."""
        if not self.estimated_nanousd:
            return None
        return 100 * (self.billed_nanousd - self.estimated_nanousd) / self.estimated_nanousd


# Estimates that are off by more than this are told.
DRIFT_PERCENT = 10.0


def report(
    ledger: Ledger, *, since: datetime | None, until: datetime | None, by: Sequence[str], utc: bool = False
) -> list[Row]:
    """Sum the entries of [since, until) in groups; `by` names GROUPS. Requests that never left are not counted."""
    ledger.give_up_lost()
    first, last = _at_ms(since, 0) // QUARTER_MS, -(-_at_ms(until, _LAST_MS) // QUARTER_MS)
    unit = "day" if {"day"} & set(by) or {"week", "month"} <= set(by) else next((one for one in by if one in TIMES), "")
    groups: dict[tuple[str, ...], Row] = {}
    for start, end, day in _spans(ledger, first, last, unit, utc=utc) if unit else [(first, last, None)]:
        for group, row in _sums(ledger, start, end, by, day):
            groups[group] = added(groups[group], row) if group in groups else row
    return [groups[group] for group in sorted(groups)]


def added(one: Row, other: Row) -> Row:
    """Put two sums together."""
    sources = dict.fromkeys((*one.by_source, *other.by_source))
    shares = {}
    for source in sources:
        mine, others = one.by_source.get(source, Share()), other.by_source.get(source, Share())
        shares[source] = Share(mine.requests + others.requests, mine.cost_nanousd + others.cost_nanousd)
    return _judged(
        Row(
            group=one.group,
            requests=one.requests + other.requests,
            failures=one.failures + other.failures,
            unknown=one.unknown + other.unknown,
            by_source=shares,
            upstream_nanousd=one.upstream_nanousd + other.upstream_nanousd,
            audio_ms=one.audio_ms + other.audio_ms,
            characters=one.characters + other.characters,
        )
    )


def _judged(row: Row) -> Row:
    """Sum what is known. Nothing but refusals that cost 0 beside costs that are unknown is unknown, not 0."""
    cost = sum(share.cost_nanousd for share in row.by_source.values())
    is_known = bool(cost) or (row.requests > 0 and not row.unknown)
    return row._replace(cost_nanousd=cost if is_known else None)


def _sums(
    ledger: Ledger, start: int, end: int, by: Sequence[str], day: date | None
) -> Iterator[tuple[tuple[str, ...], Row]]:
    keys = [COLUMNS[name] for name in by if name in COLUMNS]
    failures = ", ".join(f"'{outcome}'" for outcome in FAILURES)
    grouping = ", ".join(str(number + 1) for number in range(len(keys) + 1))
    for *found, source, requests, failed, known, cost, upstream, audio_ms, characters in ledger.read(
        f"""
        SELECT {"".join(f"{key}, " for key in keys)} cost_source, sum(entries),
            sum(CASE WHEN outcome IN ({failures}) THEN entries ELSE 0 END), sum(known), sum(cost_nanousd),
            sum(upstream_nanousd), sum(audio_ms), sum(characters)
        FROM sums WHERE quarter >= ? AND quarter < ? AND outcome <> 'unsent' GROUP BY {grouping}
        """,
        (start, end),
    ):
        told = iter(found)
        group = tuple(_label(name, day) if name in TIMES else next(told) for name in by)
        share = {CostSource(source): Share(requests, cost)}
        row = Row(group, requests, failed, None, requests - known, share, upstream, audio_ms, characters)
        yield group, _judged(row)


def _label(name: str, day: date | None) -> str:
    assert day is not None
    if name == "month":
        return day.strftime("%Y-%m")
    return (day - timedelta(days=day.weekday() if name == "week" else 0)).isoformat()


def _spans(ledger: Ledger, first: int, last: int, unit: str, *, utc: bool) -> Iterator[tuple[int, int, date]]:
    """Give the days, weeks or months in which there is something, as quarters of an hour."""
    while True:
        [(found,)] = ledger.read("SELECT min(quarter) FROM sums WHERE quarter >= ? AND quarter < ?", (first, last))
        if found is None:
            return
        at = datetime.fromtimestamp(found * QUARTER_MS / 1000, UTC)
        day = (at if utc else at.astimezone()).date()
        after = day + timedelta(days=1)
        if unit == "week":
            after = day + timedelta(days=7 - day.weekday())
        elif unit == "month":
            after = (day.replace(day=28) + timedelta(days=4)).replace(day=1)
        midnight = datetime(after.year, after.month, after.day, tzinfo=UTC if utc else None)
        end = max(found + 1, min(last, int(midnight.timestamp() * 1000) // QUARTER_MS))
        yield first, end, day
        first = end


def entries(
    ledger: Ledger,
    *,
    since: datetime | None,
    until: datetime | None,
    wanted: Filter = Filter(),  # noqa: B008 - a constant
    limit: int | None = None,
) -> Iterator[Entry]:
    """Give the entries of [since, until), oldest first, without holding them all; `limit` gives the newest."""
    for values in _rows(ledger, ", ".join(Entry._fields), since, until, wanted, limit):
        entry = Entry(*values)
        yield entry._replace(outcome=Outcome(entry.outcome), cost_source=CostSource(entry.cost_source))


def export(
    ledger: Ledger, *, since: datetime | None, until: datetime | None, wanted: Filter
) -> Iterator[dict[str, Any]]:
    """Give every column of the entries of [since, until), oldest first, as they are in the file."""
    names = ledger.columns()
    for values in _rows(ledger, ", ".join(names), since, until, wanted, None):
        yield dict(zip(names, values, strict=True))


def _rows(
    ledger: Ledger, names: str, since: datetime | None, until: datetime | None, wanted: Filter, limit: int | None
) -> Iterator[tuple[Any, ...]]:
    ledger.give_up_lost()
    where, values = ["at_ms >= ?", "at_ms < ?"], [_at_ms(since, 0), _at_ms(until, 2**62)]
    told: list[object] = [*values]
    for name, value in wanted._asdict().items():
        if value is not None:
            where.append(f"? IN (model, {COLUMNS['model']})" if name == "model" else f"{name} = ?")
            told.append(value)
    found = f"SELECT {names} FROM entries WHERE {' AND '.join(where)}"
    if limit is None:
        return ledger.read(f"{found} ORDER BY at_ms, id", told)
    newest = f"{found} ORDER BY at_ms DESC, id DESC LIMIT ?"
    return ledger.read(f"SELECT * FROM ({newest}) ORDER BY at_ms, id", [*told, limit])


def open_entries(
    ledger: Ledger, *, since: datetime | None, until: datetime | None, limit: int
) -> tuple[list[UnreconciledEntry], int]:
    """Give entries whose cost is a guess or unknown and can be asked for, and how many there are in all.

    Newest first; those that their gateway did not know stand behind the others, so that all have their turn.
    """
    ledger.give_up_lost()
    where = (
        "FROM entries WHERE at_ms >= ? AND at_ms < ? AND cost_source IN ('estimated', 'unknown') "
        "AND outcome <> 'reserved' AND generation_id IS NOT NULL"
    )
    span = (_at_ms(since, 0), _at_ms(until, 2**62))
    [(count,)] = ledger.read(f"SELECT count(*) {where}", span)
    found = ledger.read(
        f"SELECT id, gateway, model, generation_id, cost_nanousd {where} ORDER BY ifnull(asked_ms, 0), id DESC LIMIT ?",
        (*span, limit),
    )
    return [UnreconciledEntry(*values) for values in found], count


def drifts(ledger: Ledger, *, since: datetime | None, until: datetime | None) -> list[Drift]:
    """Compare what gateways have billed with what was estimated before sending, for each model that has both."""
    found = ledger.read(
        f"SELECT {COLUMNS['model']}, count(*), sum(estimate_nanousd), sum(cost_nanousd + ifnull(upstream_nanousd, 0)) "
        "FROM entries WHERE at_ms >= ? AND at_ms < ? AND cost_source = 'reported' AND outcome = 'ok' "
        "AND estimate_nanousd IS NOT NULL GROUP BY 1 ORDER BY 1",
        (_at_ms(since, 0), _at_ms(until, 2**62)),
    )
    every = [Drift(*values) for values in found]
    return [one for one in every if one.billed_nanousd and (one.percent is None or abs(one.percent) > DRIFT_PERCENT)]


def _at_ms(at: datetime | None, default: int) -> int:
    return default if at is None else int(at.timestamp() * 1000)
