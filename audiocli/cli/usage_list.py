"""`audiocli usage list` and `usage export`: print single entries of the ledger."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from ..amounts import format_usd, to_usd
from ..context import AppContext
from ..errors import UsageError
from ..ledger.reports import Entry, EntryFilter, list_entries
from ..ledger.reports import export_entries as exported
from .date_range import to_datetime

if TYPE_CHECKING:
    from ..console import Console
    from ..types.json import Json


class EntryQuery(NamedTuple):
    """Which entries to print, and whether their times are in UTC."""

    since: datetime | None
    until: datetime | None
    filter: EntryFilter
    utc: bool


def show(
    app: AppContext, console: Console, query: EntryQuery, limit: int | None, *, as_json: bool, as_csv: bool
) -> None:
    """Print entries, oldest first.

    Raises:
        UsageError: JSON and CSV are both requested.
        MoneyError: The ledger cannot be read.
    """
    if as_json and as_csv:
        raise UsageError("--json and --csv cannot be used together")
    entries = list_entries(app.ledger, since=query.since, until=query.until, entry_filter=query.filter, limit=limit)
    if as_json:
        for entry in entries:
            console.write_json_line(_build_document(entry, query))
    elif as_csv:
        from .usage_report import write_csv

        documents = [_build_document(entry, query) for entry in entries]
        header = list(documents[0]) if documents else ["id"]
        rows = [["" if value is None else str(value) for value in document.values()] for document in documents]
        write_csv(console, header, rows)
    else:
        lines = [
            [
                str(entry.id),
                to_datetime(entry.at_ms, utc=query.utc).strftime("%Y-%m-%d %H:%M:%S"),
                entry.command,
                f"{entry.gateway}:{entry.model}",
                str(entry.outcome),
                format_usd(entry.cost_nanousd),
                str(entry.cost_source),
                entry.tag or "",
                entry.error or "",
            ]
            for entry in entries
        ]
        if not lines:
            console.write_text("no requests in this period\n")
            return
        header = ["id", "at", "command", "model", "outcome", "cost", "source", "tag", "error"]
        console.write_table(header, lines, numeric=[True, False, False, False, False, True, False, False, False])


def export(app: AppContext, console: Console, query: EntryQuery) -> None:
    """Print all columns of the entries as JSON Lines.

    Raises:
        MoneyError: The ledger cannot be read.
    """
    for columns in exported(app.ledger, since=query.since, until=query.until, entry_filter=query.filter):
        at = to_datetime(columns["at_ms"], utc=query.utc).isoformat(timespec="milliseconds")
        console.write_json_line({"id": columns["id"], "at": at, **columns})


def _build_document(entry: Entry, query: EntryQuery) -> dict[str, Json]:
    return {
        "id": entry.id,
        "at": to_datetime(entry.at_ms, utc=query.utc).isoformat(timespec="milliseconds"),
        "command": entry.command,
        "gateway": entry.gateway,
        "model": entry.model,
        "outcome": str(entry.outcome),
        "cost_usd": to_usd(entry.cost_nanousd),
        "cost_source": str(entry.cost_source),
        "estimate_usd": to_usd(entry.estimate_nanousd),
        "upstream_usd": to_usd(entry.upstream_nanousd),
        "generation_id": entry.generation_id,
        "request_id": entry.request_id,
        "tag": entry.tag,
        "status": entry.status,
        "error": entry.error,
    }
