"""What the ledger tells: sums in groups, entries one by one. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from ..outcomes import CostSource, Outcome
from ..vocabulary import OpenEntry
from .ledger import Ledger

# What a report can be grouped by, and the expression that makes the group. Days are local days.
GROUPS = {
    "day": "date(at_ms / 1000, 'unixepoch', 'localtime')",
    "week": "date(at_ms / 1000, 'unixepoch', 'localtime', '-6 days', 'weekday 1')",
    "month": "strftime('%Y-%m', at_ms / 1000, 'unixepoch', 'localtime')",
    "gateway": "gateway",
    "model": "gateway || ':' || model",
    "command": "command",
    "outcome": "outcome",
    "tag": "coalesce(tag, '')",
}


class Row(NamedTuple):
    """One group of a report. `cost_nanousd` sums what is known; `unknown` counts the entries whose cost is not."""

    group: tuple[str, ...]
    requests: int
    cost_nanousd: int | None
    unknown: int
    by_source: dict[CostSource, int]
    audio_ms: int
    characters: int


class Entry(NamedTuple):
    id: int
    at_ms: int
    command: str
    gateway: str
    model: str
    outcome: Outcome
    cost_nanousd: int | None
    cost_source: CostSource
    generation_id: str | None
    request_id: str | None
    tag: str | None
    status: int | None
    error: str | None


def open_entries(ledger: Ledger, *, since: datetime | None, until: datetime | None) -> list[OpenEntry]:
    """Give the entries whose cost is a guess or unknown and can be asked for, newest first."""
    from ..vocabulary import OpenEntry

    ledger.give_up_lost()
    return [
        OpenEntry(*values)
        for values in ledger.read(
            "SELECT id, gateway, model, generation_id, cost_nanousd FROM entries WHERE at_ms >= ? AND at_ms < ? "
            "AND cost_source IN ('estimated', 'unknown') AND outcome != 'reserved' AND generation_id IS NOT NULL "
            "ORDER BY id DESC",
            (_at_ms(since, 0), _at_ms(until, 2**62)),
        )
    ]


def report(ledger: Ledger, *, since: datetime | None, until: datetime | None, by: Sequence[str]) -> list[Row]:
    """Sum the entries of [since, until) in groups; `by` names GROUPS. Requests that never left are not counted."""
    ledger.give_up_lost()
    keys = [GROUPS[name] for name in by]
    columns = "".join(f"{expression}, " for expression in keys)
    grouping = ", ".join(str(number + 1) for number in range(len(keys) + 1))
    merged: dict[tuple[str, ...], Row] = {}
    for *group, source, requests, known, cost, audio_ms, characters in ledger.read(
        f"""
        SELECT {columns} cost_source, count(*), count(cost_nanousd), sum(cost_nanousd), total(audio_ms),
               total(characters)
        FROM entries INDEXED BY entries_by_time WHERE at_ms >= ? AND at_ms < ? AND outcome <> 'unsent'
        GROUP BY {grouping} ORDER BY {grouping}
        """,
        (_at_ms(since, 0), _at_ms(until, 2**62)),
    ):
        key = tuple(group)
        row = merged.get(key) or Row(key, 0, None, 0, {}, 0, 0)
        by_source = dict(row.by_source)
        if cost is not None:
            by_source[CostSource(source)] = by_source.get(CostSource(source), 0) + cost
        merged[key] = Row(
            group=key,
            requests=row.requests + requests,
            cost_nanousd=row.cost_nanousd if cost is None else (row.cost_nanousd or 0) + cost,
            unknown=row.unknown + requests - known,
            by_source=by_source,
            audio_ms=row.audio_ms + int(audio_ms),
            characters=row.characters + int(characters),
        )
    # Nothing but refusals that cost 0 beside costs that are unknown is unknown, not 0.
    return [row._replace(cost_nanousd=None) if row.unknown and not row.cost_nanousd else row for row in merged.values()]


def entries(ledger: Ledger, *, since: datetime | None, until: datetime | None) -> Iterator[Entry]:
    """Give the entries of [since, until), oldest first, without holding them all."""
    ledger.give_up_lost()
    names = ", ".join(Entry._fields)
    for values in ledger.read(
        f"SELECT {names} FROM entries WHERE at_ms >= ? AND at_ms < ? ORDER BY at_ms, id",
        (_at_ms(since, 0), _at_ms(until, 2**62)),
    ):
        entry = Entry(*values)
        yield entry._replace(outcome=Outcome(entry.outcome), cost_source=CostSource(entry.cost_source))


def _at_ms(at: datetime | None, default: int) -> int:
    return default if at is None else int(at.timestamp() * 1000)
