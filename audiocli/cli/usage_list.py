"""`audiocli usage list` and `usage export`: the entries one by one."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from ..amounts import usd, usd_number
from ..context import AppContext
from ..errors import UsageError
from ..ledger.reports import Entry, Filter, entries
from ..ledger.reports import export as exported
from .date_range import moment

if TYPE_CHECKING:
    from ..console import Console
    from ..types.values import Json


class Asked(NamedTuple):
    """Which entries are wanted, and in whose time they are told."""

    since: datetime | None
    until: datetime | None
    wanted: Filter
    utc: bool


def show(env: AppContext, screen: Console, asked: Asked, limit: int | None, *, as_json: bool, as_csv: bool) -> None:
    """Print entries, oldest first. Raises: UsageError, MoneyError."""
    if as_json and as_csv:
        raise UsageError("--json and --csv at once: which one is it?")
    found = entries(env.ledger, since=asked.since, until=asked.until, wanted=asked.wanted, limit=limit)
    if as_json:
        for entry in found:
            screen.write_json(_document(entry, asked))
    elif as_csv:
        from .usage_report import emit_csv

        documents = [_document(entry, asked) for entry in found]
        header = list(documents[0]) if documents else ["id"]
        emit_csv(screen, header, [["" if value is None else str(value) for value in one.values()] for one in documents])
    else:
        lines = [
            [
                str(entry.id),
                moment(entry.at_ms, utc=asked.utc).strftime("%Y-%m-%d %H:%M:%S"),
                entry.command,
                f"{entry.gateway}:{entry.model}",
                str(entry.outcome),
                usd(entry.cost_nanousd),
                str(entry.cost_source),
                entry.tag or "",
                entry.error or "",
            ]
            for entry in found
        ]
        if not lines:
            screen.write_text("no requests in this time\n")
            return
        header = ["id", "at", "command", "model", "outcome", "cost", "known as", "tag", "why"]
        screen.write_table(header, lines, numeric=[True, False, False, False, False, True, False, False, False])


def export(env: AppContext, screen: Console, asked: Asked) -> None:
    """Print every column as it is in the file, an entry per line. Raises: MoneyError."""
    for columns in exported(env.ledger, since=asked.since, until=asked.until, wanted=asked.wanted):
        at = moment(columns["at_ms"], utc=asked.utc).isoformat(timespec="milliseconds")
        screen.write_json({"id": columns["id"], "at": at, **columns})


def _document(entry: Entry, asked: Asked) -> dict[str, Json]:
    return {
        "id": entry.id,
        "at": moment(entry.at_ms, utc=asked.utc).isoformat(timespec="milliseconds"),
        "command": entry.command,
        "gateway": entry.gateway,
        "model": entry.model,
        "outcome": str(entry.outcome),
        "cost_usd": usd_number(entry.cost_nanousd),
        "cost_source": str(entry.cost_source),
        "estimate_usd": usd_number(entry.estimate_nanousd),
        "upstream_usd": usd_number(entry.upstream_nanousd),
        "generation_id": entry.generation_id,
        "request_id": entry.request_id,
        "tag": entry.tag,
        "status": entry.status,
        "error": entry.error,
    }
