"""`audiocli usage`: sums in groups, and how well they are known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import reduce
from typing import TYPE_CHECKING

from ..amounts import usd, usd_number
from ..context import AppContext
from ..errors import UsageError
from ..ledger.reports import GROUPS, Row, Share, added, report
from ..types.outcomes import CostSource

if TYPE_CHECKING:
    from ..console import Console
    from ..types.values import Json

BAR_COLUMNS = 20

# What people should think of a sum, by how it is known.
REMARKS = {
    CostSource.REPORTED: "told by the gateways",
    CostSource.COMPUTED: "true units × the listed price",
    CostSource.ESTIMATED: "a guess, not a bill",
    CostSource.UNKNOWN: "nobody has told; see audiocli usage reconcile",
}


def show(
    env: AppContext,
    screen: Console,
    span: tuple[datetime | None, datetime | None],
    by: Sequence[str],
    *,
    utc: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Print a report. Raises: UsageError, MoneyError."""
    if as_json and as_csv:
        raise UsageError("--json and --csv at once: which one is it?")
    keys = list(dict.fromkeys(name for word in by for name in word.split(",")))
    for name in keys:
        if name not in GROUPS:
            raise UsageError(f"--by {name}: one of {', '.join(GROUPS)}")
    rows = report(env.ledger, since=span[0], until=span[1], by=keys, utc=utc)
    if as_json:
        screen.write_json(_document(rows, keys, span))
    elif as_csv:
        header = [*keys, "requests", "failures", "cost_usd", "unknown", "audio_s", "characters", "upstream_usd"]
        header += [f"{source}_usd" for source in list(CostSource)[:-1]]
        emit_csv(screen, header, [_csv_row(row) for row in rows])
    elif not rows:
        screen.write_text("no requests in this time\n")
    else:
        _table(screen, rows, keys, with_bars=env.stdout_is_terminal)


def _table(screen: Console, rows: Sequence[Row], keys: Sequence[str], *, with_bars: bool) -> None:
    total = _total(rows)
    bars = _bars(rows) if with_bars else [""] * len(rows)
    lines = [[*(key or "-" for key in row.group), *_numbers(row), bar] for row, bar in zip(rows, bars, strict=True)]
    lines.append(["total", *[""] * (len(keys) - 1), *_numbers(total), ""])
    header = [*keys, "requests", "failures", "audio", "characters", "cost", "unknown", ""]
    screen.write_table(header, lines, numeric=[*[False] * len(keys), *[True] * 6, False])
    sources = [
        [str(source), usd(share.cost_nanousd if source is not CostSource.UNKNOWN else None), _requests(share), told]
        for source, told in REMARKS.items()
        if (share := total.by_source.get(source, Share())).requests
    ]
    if total.upstream_nanousd:
        sources.append(["upstream", usd(total.upstream_nanousd), "", "charged by providers, on your own keys"])
    screen.write_text("\n")
    screen.write_table(["of this", "cost", "requests", ""], sources, numeric=[False, True, True, False])


def _requests(share: Share) -> str:
    return str(share.requests)


def _bars(rows: Sequence[Row]) -> list[str]:
    """Draw the costs, or where there are none the requests, as lengths."""
    costs = [row.cost_nanousd or 0 for row in rows]
    amounts = costs if any(costs) else [row.requests for row in rows]
    most = max(amounts)
    return ["#" * max(1, round(BAR_COLUMNS * amount / most)) if amount else "" for amount in amounts]


def _numbers(row: Row) -> list[str]:
    counts = (row.failures, row.characters, row.unknown)
    failures, characters, unknown = (str(count) if count else "" for count in counts)
    audio = f"{row.audio_ms / 1000:.1f} s" if row.audio_ms else ""
    return [str(row.requests), failures, audio, characters, usd(row.cost_nanousd), unknown]


def _total(rows: Sequence[Row]) -> Row:
    return reduce(added, rows, Row())._replace(group=())


def _document(
    rows: Sequence[Row], keys: Sequence[str], span: tuple[datetime | None, datetime | None]
) -> dict[str, Json]:
    def row_document(row: Row) -> dict[str, Json]:
        by_source: dict[str, Json] = {
            str(source): usd_number(share.cost_nanousd)
            for source, share in row.by_source.items()
            if source is not CostSource.UNKNOWN
        }
        return {
            "requests": row.requests,
            "failures": row.failures,
            "cost_usd": usd_number(row.cost_nanousd),
            "unknown": row.unknown,
            "by_source": by_source,
            "upstream_usd": usd_number(row.upstream_nanousd),
            "audio_s": row.audio_ms / 1000,
            "characters": row.characters,
        }

    total = _total(rows)
    counts: dict[str, Json] = {str(source): share.requests for source, share in total.by_source.items()}
    return {
        "ok": True,
        "command": "usage",
        "since": span[0].isoformat() if span[0] else None,
        "until": span[1].isoformat() if span[1] else None,
        "total": {**row_document(total), "requests_by_source": counts},
        "rows": [{**dict(zip(keys, row.group, strict=True)), **row_document(row)} for row in rows],
    }


def _csv_row(row: Row) -> list[str]:
    def plain(nanousd: int | None) -> str:
        return "" if nanousd is None else usd(nanousd).removeprefix("$")

    return [
        *row.group,
        str(row.requests),
        str(row.failures),
        plain(row.cost_nanousd),
        str(row.unknown),
        f"{row.audio_ms / 1000:.3f}",
        str(row.characters),
        plain(row.upstream_nanousd),
        *(plain(row.by_source.get(source, Share()).cost_nanousd) for source in list(CostSource)[:-1]),
    ]


def emit_csv(screen: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([header, *rows])
    screen.write_text(out.getvalue())
