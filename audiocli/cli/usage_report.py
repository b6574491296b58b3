"""`audiocli usage`: totals by group, and the sources of the costs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import reduce
from typing import TYPE_CHECKING

from ..context import AppContext
from ..costs import format_cost, format_exact_usd, format_usd, to_usd
from ..errors import UsageError, suggest
from ..ledger.reports import GROUPS, CostShare, ReportRow, add_rows, build_report
from ..types.ledger import CostSource

if TYPE_CHECKING:
    from ..console import Console
    from ..types.json import Json
    from .usage import ReportOptions

BAR_WIDTH = 20

# Explanations of the cost sources, shown below the report.
COST_SOURCE_NOTES = {
    CostSource.REPORTED: "reported by the gateways",
    CostSource.COMPUTED: "actual units × listed price",
    CostSource.ESTIMATED: "not billed amounts; see audiocli usage reconcile",
    CostSource.UNKNOWN: "not reported; see audiocli usage reconcile",
}


def run(
    app: AppContext,
    console: Console,
    date_range: tuple[datetime | None, datetime | None],
    options: ReportOptions,
) -> None:
    """Print a report.

    Raises:
        UsageError: JSON and CSV are both requested, or a group is unknown.
        MoneyError: The ledger cannot be read.
    """
    as_json, as_csv = options.table.as_json, options.table.as_csv
    if as_json and as_csv:
        raise UsageError("--json and --csv cannot be used together")
    keys = list(dict.fromkeys(name for names in options.by or ["day"] for name in names.split(",")))
    for name in keys:
        if name not in GROUPS:
            raise UsageError(f"--by {name}: must be one of {', '.join(GROUPS)}{suggest(name, GROUPS)}")
    rows = build_report(app.ledger, since=date_range[0], until=date_range[1], by=keys, utc=options.utc)
    if as_json:
        console.write_json(_build_document(rows, keys, date_range))
    elif as_csv:
        header = [*keys, "requests", "failures", "cost_usd", "unknown", "audio_s", "characters", "upstream_usd"]
        header += [f"{source}_usd" for source in list(CostSource)[:-1]]
        write_csv(console, header, [_build_csv_row(row) for row in rows])
    elif not rows:
        console.write_text("no requests in this period\n")
    else:
        _write_table(console, rows, keys, show_bars=app.stdout.isatty())


def _write_table(console: Console, rows: Sequence[ReportRow], keys: Sequence[str], *, show_bars: bool) -> None:
    total = _sum_rows(rows)
    bars = _draw_bars(rows) if show_bars else [""] * len(rows)
    lines = [
        [*(key or "-" for key in row.group), *_format_numbers(row), bar] for row, bar in zip(rows, bars, strict=True)
    ]
    lines.append(["total", *[""] * (len(keys) - 1), *_format_numbers(total), ""])
    header = [*keys, "requests", "failures", "audio", "characters", "cost", "unknown", ""]
    optional = ["characters", "audio", "", "unknown", "failures"]
    console.write_table(header, lines, numeric=[*[False] * len(keys), *[True] * 7], optional=optional)
    sources = [
        [
            str(source),
            format_cost(share.cost_nanousd if source is not CostSource.UNKNOWN else None, source),
            str(share.requests),
            note,
        ]
        for source, note in COST_SOURCE_NOTES.items()
        if (share := total.by_source.get(source, CostShare())).requests
    ]
    if total.upstream_nanousd:
        sources.append(["upstream", format_usd(total.upstream_nanousd), "", "charged by providers on your own keys"])
    console.write_text("\n")
    console.write_table(["source", "cost", "requests", ""], sources, numeric=[False, True, True, False])


def _draw_bars(rows: Sequence[ReportRow]) -> list[str]:
    """Draw a bar for the cost of each row, or for its number of requests if no row has a cost."""
    costs = [row.cost_nanousd or 0 for row in rows]
    amounts = costs if any(costs) else [row.requests for row in rows]
    maximum = max(amounts)
    # Equal widths, because the column is treated as numeric: a shortened bar would show another amount.
    return [
        ("#" * max(1, round(BAR_WIDTH * amount / maximum)) if amount else "").ljust(BAR_WIDTH) for amount in amounts
    ]


def _format_numbers(row: ReportRow) -> list[str]:
    counts = (row.failures, row.characters, row.unknown_costs)
    failures, characters, unknown = (str(count) if count else "" for count in counts)
    audio = f"{row.audio_ms / 1000:.1f} s" if row.audio_ms else ""
    has_estimates = row.by_source.get(CostSource.ESTIMATED, CostShare()).cost_nanousd
    cost = format_cost(row.cost_nanousd, CostSource.ESTIMATED if has_estimates else CostSource.COMPUTED)
    return [str(row.requests), failures, audio, characters, cost, unknown]


def _sum_rows(rows: Sequence[ReportRow]) -> ReportRow:
    return reduce(add_rows, rows, ReportRow())._replace(group=())


def _build_document(
    rows: Sequence[ReportRow], keys: Sequence[str], date_range: tuple[datetime | None, datetime | None]
) -> dict[str, Json]:
    def build_row_document(row: ReportRow) -> dict[str, Json]:
        by_source: dict[str, Json] = {
            str(source): to_usd(share.cost_nanousd)
            for source, share in row.by_source.items()
            if source is not CostSource.UNKNOWN
        }
        return {
            "requests": row.requests,
            "failures": row.failures,
            "cost_usd": to_usd(row.cost_nanousd),
            "unknown": row.unknown_costs,
            "by_source": by_source,
            "upstream_usd": to_usd(row.upstream_nanousd),
            "audio_s": row.audio_ms / 1000,
            "characters": row.characters,
        }

    total = _sum_rows(rows)
    counts: dict[str, Json] = {str(source): share.requests for source, share in total.by_source.items()}
    return {
        "ok": True,
        "command": "usage",
        "since": date_range[0].isoformat() if date_range[0] else None,
        "until": date_range[1].isoformat() if date_range[1] else None,
        "total": {**build_row_document(total), "requests_by_source": counts},
        "rows": [{**dict(zip(keys, row.group, strict=True)), **build_row_document(row)} for row in rows],
    }


def _build_csv_row(row: ReportRow) -> list[str]:
    def format_amount(nanousd: int | None) -> str:
        return "" if nanousd is None else format_exact_usd(nanousd).removeprefix("$")

    return [
        *row.group,
        str(row.requests),
        str(row.failures),
        format_amount(row.cost_nanousd),
        str(row.unknown_costs),
        f"{row.audio_ms / 1000:.3f}",
        str(row.characters),
        format_amount(row.upstream_nanousd),
        *(format_amount(row.by_source.get(source, CostShare()).cost_nanousd) for source in list(CostSource)[:-1]),
    ]


def write_csv(console: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a header and rows to stdout as comma-separated values."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *rows])
    console.write_text(text.getvalue())
