"""`audiocli usage`: what was spent, from the ledger."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from . import options

if TYPE_CHECKING:
    from ..money.reports import Entry, Row
    from ..screen import Screen
    from ..vocabulary import CostSource, Json

Since = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help="A date, or today, yesterday, 7d, 4w, month, all. Default: 30d."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="WHEN", help="The last day to count. Default: now.")]
By = Annotated[
    list[str] | None,
    typer.Option("--by", metavar="WHAT", help="day week month gateway model command outcome tag; repeatable."),
]
AsCsv = Annotated[bool, typer.Option("--csv", help="Comma-separated values.")]


def build() -> typer.Typer:
    app = typer.Typer(help="What was spent, from the ledger.", rich_markup_mode=None)

    @app.callback(invoke_without_command=True)
    def usage(
        context: typer.Context,
        since: Since = None,
        until: Until = None,
        by: By = None,
        as_json: options.AsJson = False,
        as_csv: AsCsv = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """What was spent, from the ledger."""
        if context.invoked_subcommand is None:
            _report(context, since, until, by or ["day"], as_json=as_json, as_csv=as_csv, quiet=quiet, debug=debug)
        elif since or until or by or as_json or as_csv:
            raise UsageError(
                f"flags of {context.invoked_subcommand} go behind it: audiocli usage {context.invoked_subcommand} …"
            )

    @app.command("list")
    def entries(
        context: typer.Context,
        since: Since = None,
        until: Until = None,
        as_json: options.AsJson = False,
        as_csv: AsCsv = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Every entry, oldest first; JSON lines with --json."""
        _list(context, since, until, as_json=as_json, as_csv=as_csv, quiet=quiet, debug=debug)

    @app.command("reconcile")
    def reconcile(
        context: typer.Context,
        since: Since = None,
        until: Until = None,
        timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Ask the gateways for the true cost of what is estimated or unknown."""
        _reconcile(context, since, until, options.checked_timeout(timeout), as_json=as_json, quiet=quiet, debug=debug)

    @app.command("path")
    def path(
        context: typer.Context,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Where the ledger is."""
        env = options.env_of(context)
        screen = options.screen_of(env, is_quiet=quiet, is_debugging=debug)
        options.emit_path(screen, "usage", env.ledger_path, as_json=as_json)

    return app


def _report(
    context: typer.Context,
    since: str | None,
    until: str | None,
    by: list[str],
    *,
    as_json: bool,
    as_csv: bool,
    quiet: bool,
    debug: bool,
) -> None:
    from ..money.reports import GROUPS, report

    env = options.env_of(context)
    screen = options.screen_of(env, is_quiet=quiet, is_debugging=debug)
    if as_json and as_csv:
        raise UsageError("--json and --csv at once: which one is it?")
    keys = list(dict.fromkeys(name for word in by for name in word.split(",")))
    for name in keys:
        if name not in GROUPS:
            raise UsageError(f"--by {name}: one of {', '.join(GROUPS)}")
    start, end = period(since, until, env.now())
    rows = report(env.ledger, since=start, until=end, by=keys)
    if as_json:
        screen.emit_json(_document(rows, keys, start, end))
    elif as_csv:
        header = [*keys, "requests", "cost_usd", "unknown", "audio_s", "characters"]
        _emit_csv(screen, header, [_csv_row(row) for row in rows])
    elif not rows:
        screen.emit("no requests in this time\n")
    else:
        lines = [[*(key or "-" for key in row.group), *_numbers(row)] for row in rows]
        total = _total(rows)
        lines.append(["total", *[""] * (len(keys) - 1), *_numbers(total)])
        header = [*keys, "requests", "cost", "unknown"]
        screen.emit_table(header, lines, numeric=[*[False] * len(keys), True, True, True])


def _list(
    context: typer.Context,
    since: str | None,
    until: str | None,
    *,
    as_json: bool,
    as_csv: bool,
    quiet: bool,
    debug: bool,
) -> None:
    from ..money.amounts import usd

    env = options.env_of(context)
    screen = options.screen_of(env, is_quiet=quiet, is_debugging=debug)
    if as_json and as_csv:
        raise UsageError("--json and --csv at once: which one is it?")
    start, end = period(since, until, env.now())
    from ..money.reports import entries as entries_of

    entries = entries_of(env.ledger, since=start, until=end)
    if as_json:
        for entry in entries:
            screen.emit_json(_entry_document(entry))
    elif as_csv:
        documents = [_entry_document(entry) for entry in entries]
        header = list(documents[0]) if documents else ["id"]
        _emit_csv(
            screen, header, [["" if value is None else str(value) for value in one.values()] for one in documents]
        )
    else:
        lines = [
            [
                str(entry.id),
                _local(entry.at_ms).strftime("%Y-%m-%d %H:%M:%S"),
                entry.command,
                f"{entry.gateway}:{entry.model}",
                str(entry.outcome),
                usd(entry.cost_nanousd),
                entry.error or "",
            ]
            for entry in entries
        ]
        if not lines:
            screen.emit("no requests in this time\n")
            return
        header = ["id", "at", "command", "model", "outcome", "cost", "why"]
        screen.emit_table(header, lines, numeric=[True, False, False, False, False, True, False])


def _reconcile(
    context: typer.Context,
    since: str | None,
    until: str | None,
    timeout_s: float,
    *,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> None:
    from ..money.amounts import usd, usd_number
    from ..vocabulary import Route
    from ..work.reconcile import reconcile

    env = options.env_of(context)
    screen = options.screen_of(env, is_quiet=quiet, is_debugging=debug)
    start, end = period(since, until, env.now())
    from ..money.reports import open_entries

    entries = open_entries(env.ledger, since=start, until=end)
    routes = {
        one.name: Route(one.name, one.dialect, one.base_url, "", one.key)
        for one in env.settings.gateways
        if one.key is not None or not one.key_needed
    }
    done = env.run(
        lambda tools: reconcile(entries, routes, tools), silence_s=timeout_s, tell=screen.tell, log=screen.log
    )
    for trouble in done.troubles:
        screen.tell(trouble)
    if as_json:
        screen.emit_json(
            {
                "ok": True,
                "command": "usage",
                "corrected": done.corrected,
                "missing": done.missing,
                "unanswered": done.unanswered,
                "before_usd": usd_number(done.before_nanousd),
                "after_usd": usd_number(done.after_nanousd),
            }
        )
        return
    text = f"{done.corrected} of {len(entries)} corrected"
    if done.corrected:
        text += f": {usd(done.after_nanousd)} instead of {usd(done.before_nanousd)}"
    if done.missing:
        text += f"; {done.missing} not known to their gateway, perhaps not yet"
    if done.unanswered:
        text += f"; {done.unanswered} could not be asked for"
    screen.emit(text + "\n")


def period(since: str | None, until: str | None, now: datetime) -> tuple[datetime | None, datetime | None]:
    """Read a span of time in local days: [since, until), where the day named by `--until` still counts.

    Raises: UsageError: not a time, or an empty span.
    """
    start = _start(since or "30d", now, "--since")
    end = None
    if until is not None:
        day = _start(until, now, "--until")
        try:
            end = None if day is None else _midnight(day + timedelta(days=1))
            if until == "month" and day is not None:
                end = _midnight((day.replace(day=28) + timedelta(days=4)).replace(day=1))
        except (OverflowError, ValueError):
            end = None  # the end of all days
    if start is not None and end is not None and end <= start:
        raise UsageError(f"--until {until} lies before --since {since}")
    return start, end


def _start(word: str, now: datetime, flag: str) -> datetime | None:
    today = _midnight(now)
    if word == "all":
        return None
    if word in ("today", "yesterday"):
        return _midnight(now - timedelta(days=word == "yesterday"))
    if word == "month":
        return _midnight(today.replace(day=1))
    span = re.fullmatch(r"(\d{1,5})([dw])", word)
    try:
        if span:
            return _midnight(now - timedelta(days=int(span[1]) * (7 if span[2] == "w" else 1)))
        return datetime.strptime(word, "%Y-%m-%d").astimezone()
    except (ValueError, OverflowError):
        raise UsageError(
            f"{flag} {word}: not a time", hint="a date such as 2026-11-21, or today, yesterday, 7d, 4w, month, all"
        ) from None


def _midnight(at: datetime) -> datetime:
    """The local midnight of a moment's day, also where the clock changed in between."""
    return at.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None).astimezone()


def _local(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000).astimezone()


def _numbers(row: Row) -> list[str]:
    from ..money.amounts import usd

    return [str(row.requests), usd(row.cost_nanousd), str(row.unknown) if row.unknown else ""]


def _total(rows: list[Row]) -> Row:
    from ..money.reports import Row as LedgerRow

    by_source: dict[CostSource, int] = {}
    for row in rows:
        for source, cost in row.by_source.items():
            by_source[source] = by_source.get(source, 0) + cost
    known = [row.cost_nanousd for row in rows if row.cost_nanousd is not None]
    if not any(known) and any(row.unknown for row in rows):
        known = []
    return LedgerRow(
        group=(),
        requests=sum(row.requests for row in rows),
        cost_nanousd=sum(known) if known else None,
        unknown=sum(row.unknown for row in rows),
        by_source=by_source,
        audio_ms=sum(row.audio_ms for row in rows),
        characters=sum(row.characters for row in rows),
    )


def _document(rows: list[Row], keys: list[str], start: datetime | None, end: datetime | None) -> dict[str, Json]:
    from ..money.amounts import usd_number

    def row_document(row: Row) -> dict[str, Json]:
        return {
            "requests": row.requests,
            "cost_usd": usd_number(row.cost_nanousd),
            "unknown": row.unknown,
            "audio_s": row.audio_ms / 1000,
            "characters": row.characters,
        }

    total = _total(rows)
    by_source: dict[str, Json] = {str(source): usd_number(cost) for source, cost in total.by_source.items()}
    return {
        "ok": True,
        "command": "usage",
        "since": start.isoformat() if start else None,
        "until": end.isoformat() if end else None,
        "total": {**row_document(total), "by_source": by_source},
        "rows": [{**dict(zip(keys, row.group, strict=True)), **row_document(row)} for row in rows],
    }


def _entry_document(entry: Entry) -> dict[str, Json]:
    from ..money.amounts import usd_number

    return {
        "id": entry.id,
        "at": _local(entry.at_ms).isoformat(timespec="milliseconds"),
        "command": entry.command,
        "gateway": entry.gateway,
        "model": entry.model,
        "outcome": str(entry.outcome),
        "cost_usd": usd_number(entry.cost_nanousd),
        "cost_source": str(entry.cost_source),
        "generation_id": entry.generation_id,
        "request_id": entry.request_id,
        "tag": entry.tag,
        "status": entry.status,
        "error": entry.error,
    }


def _csv_row(row: Row) -> list[str]:
    from ..money.amounts import usd

    cost = "" if row.cost_nanousd is None else usd(row.cost_nanousd).removeprefix("$")
    return [*row.group, str(row.requests), cost, str(row.unknown), f"{row.audio_ms / 1000:g}", str(row.characters)]


def _emit_csv(screen: Screen, header: list[str], rows: list[list[str]]) -> None:
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([header, *rows])
    screen.emit(out.getvalue())
