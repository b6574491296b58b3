"""`audiocli usage`: report, list, export, reconcile and verify the entries of the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext, ColorMode
from ..costs import format_cost, format_usd, to_usd
from ..errors import ExitCode, UsageError
from .options import (
    DEFAULT_TIMEOUT_S,
    AsJson,
    Color,
    Debug,
    ExchangeOptions,
    GeneralOptions,
    Quiet,
    Timeout,
    open_app,
    print_path,
    validate_timeout,
    with_options,
)

if TYPE_CHECKING:
    from ..console import Console
    from ..ledger.reports import Entry, EntryFilter, EstimateDrift
    from ..types.json import Json

MAX_ROWS = 1_000_000

Since = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help="Start: date, today, yesterday, 7d, 4w, month or all (default: 30d)."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Last day, inclusive (default: today).")]
Utc = Annotated[bool, typer.Option("--utc", help="Use UTC instead of local time.")]


class FilterOptions(NamedTuple):
    """The period and the properties of entries."""

    since: Since = None
    until: Until = None
    gateway: Annotated[
        str | None, typer.Option("--gateway", "-g", metavar="NAME", help="Only entries of this gateway.")
    ] = None
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="REF", help="Only entries of this [GATEWAY:]MODEL.")
    ] = None
    command: Annotated[
        str | None, typer.Option("--command", metavar="NAME", help="Only entries of this command, such as speak.")
    ] = None
    outcome: Annotated[
        str | None,
        typer.Option(
            "--outcome",
            metavar="NAME",
            help="Only entries with this outcome: ok refused failed unsent cancelled unknown reserved.",
        ),
    ] = None
    tag: Annotated[str | None, typer.Option("--tag", metavar="NAME", help="Only entries with this tag.")] = None


class TableOptions(NamedTuple):
    """`GeneralOptions`, and `--csv`."""

    as_json: AsJson = False
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False
    quiet: Quiet = False
    debug: Debug = False
    color: Color = ColorMode.AUTO

    @property
    def general(self) -> GeneralOptions:
        return GeneralOptions(self.as_json, self.quiet, self.debug, self.color)


class ReportOptions(NamedTuple):
    """Options of `audiocli usage`."""

    since: Since = None
    until: Until = None
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", metavar="WHAT", help="Group by: day week month gateway model command outcome tag; repeatable."
        ),
    ] = None
    utc: Utc = False
    table: TableOptions = TableOptions()


class ListOptions(NamedTuple):
    """Options of `audiocli usage list`."""

    filter: FilterOptions = FilterOptions()
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", help="Only the newest N entries.")] = None
    utc: Utc = False
    table: TableOptions = TableOptions()


class ExportOptions(NamedTuple):
    """Options of `audiocli usage export`."""

    filter: FilterOptions = FilterOptions()
    utc: Utc = False
    general: GeneralOptions = GeneralOptions()


class ReconcileOptions(NamedTuple):
    """Options of `audiocli usage reconcile`."""

    since: Since = None
    until: Until = None
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="Maximum number of entries to reconcile.")] = 500
    timeout_s: Timeout = DEFAULT_TIMEOUT_S
    exchanges: ExchangeOptions = ExchangeOptions()
    general: GeneralOptions = GeneralOptions()


def build() -> typer.Typer:
    """Build the command group."""
    group = typer.Typer(help="Report spending from the ledger.", rich_markup_mode=None)
    group.callback(invoke_without_command=True)(usage)
    group.command("list")(list_entries)
    group.command("export")(export)
    group.command("reconcile")(reconcile)
    group.command("verify")(verify)
    group.command("path")(path)
    return group


@with_options
def usage(ctx: typer.Context, options: ReportOptions) -> None:
    """Report spending from the ledger."""
    if ctx.invoked_subcommand is None:
        from .usage_report import run

        app, console = open_app(ctx, options.table.general)
        date_range = _parse_range(app, options.since, options.until, utc=options.utc)
        run(app, console, date_range, options)
    elif options.since or options.until or options.by or options.utc or options.table.as_json or options.table.as_csv:
        raise UsageError(f"put options after the subcommand: audiocli usage {ctx.invoked_subcommand} …")


@with_options
def list_entries(ctx: typer.Context, options: ListOptions) -> None:
    """List entries, oldest first; --json prints JSON Lines."""
    app, console = open_app(ctx, options.table.general)
    run_list(app, console, options)


@with_options
def export(ctx: typer.Context, options: ExportOptions) -> None:
    """Export all columns of entries as JSON Lines. Default: all entries."""
    app, console = open_app(ctx, options.general)
    run_export(app, console, options)


@with_options
def reconcile(ctx: typer.Context, options: ReconcileOptions) -> None:
    """Fetch the actual costs of requests whose cost is estimated or unknown."""
    app, console = open_app(ctx, options.general, exchanges=options.exchanges)
    run_reconcile(app, console, options)


@with_options
def verify(ctx: typer.Context, options: GeneralOptions) -> int:
    """Check the ledger file and its totals. Exit code 3 if a check fails."""
    app, console = open_app(ctx, options)
    return run_verify(app, console, as_json=options.as_json)


@with_options
def path(ctx: typer.Context, options: GeneralOptions) -> None:
    """Print the path of the ledger."""
    app, console = open_app(ctx, options)
    print_path(console, "usage", app.ledger_path, as_json=options.as_json)


def _parse_range(
    app: AppContext, since: str | None, until: str | None, *, utc: bool, default_since: str | None = None
) -> tuple[datetime | None, datetime | None]:
    from .date_range import DEFAULT_SINCE, parse_date_range

    now = app.now().astimezone(UTC) if utc else app.now()
    return parse_date_range(since, until, now, default_since=default_since or DEFAULT_SINCE)


def _build_filter(options: FilterOptions) -> EntryFilter:
    """Build the filter of entries. Raises: UsageError: The outcome is unknown."""
    from ..ledger.reports import EntryFilter
    from ..types.ledger import Outcome

    if options.outcome is not None and options.outcome not in list(Outcome):
        raise UsageError(f"--outcome {options.outcome}: must be one of {', '.join(Outcome)}")
    return EntryFilter(options.gateway, options.model, options.command, options.outcome, options.tag)


def run_list(app: AppContext, console: Console, options: ListOptions) -> None:
    """Print entries, oldest first.

    Raises:
        UsageError: An option is invalid, or JSON and CSV are both requested.
        MoneyError: The ledger cannot be read.
    """
    from ..ledger.reports import list_entries
    from .date_range import to_datetime

    if options.limit is not None and not 1 <= options.limit <= MAX_ROWS:
        raise UsageError(f"--limit {options.limit}: must be between 1 and {MAX_ROWS}")
    since, until = _parse_range(app, options.filter.since, options.filter.until, utc=options.utc)
    entry_filter = _build_filter(options.filter)
    if options.table.as_json and options.table.as_csv:
        raise UsageError("--json and --csv cannot be used together")
    entries = list_entries(app.ledger, since=since, until=until, entry_filter=entry_filter, limit=options.limit)
    if options.table.as_json:
        for entry in entries:
            console.write_json_line(build_entry_document(entry, utc=options.utc))
    elif options.table.as_csv:
        from .usage_report import write_csv

        documents = [build_entry_document(entry, utc=options.utc) for entry in entries]
        header = list(documents[0]) if documents else ["id"]
        rows = [["" if value is None else str(value) for value in document.values()] for document in documents]
        write_csv(console, header, rows)
    else:
        lines = [
            [
                str(entry.id),
                to_datetime(entry.at_ms, utc=options.utc).strftime("%Y-%m-%d %H:%M:%S"),
                entry.command,
                f"{entry.gateway}:{entry.model}",
                str(entry.outcome),
                format_cost(entry.cost_nanousd, entry.cost_source),
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
        console.write_table(
            header,
            lines,
            numeric=[True, False, False, False, False, True, False, False, False],
            optional=["tag", "source", "error", "command"],
        )


def run_export(app: AppContext, console: Console, options: ExportOptions) -> None:
    """Print all columns of the entries as JSON Lines.

    Raises:
        UsageError: An option is invalid.
        MoneyError: The ledger cannot be read.
    """
    from ..ledger.reports import export_entries
    from .date_range import to_datetime

    since, until = _parse_range(app, options.filter.since, options.filter.until, utc=options.utc, default_since="all")
    entry_filter = _build_filter(options.filter)
    for columns in export_entries(app.ledger, since=since, until=until, entry_filter=entry_filter):
        at = to_datetime(columns["at_ms"], utc=options.utc).isoformat(timespec="milliseconds")
        console.write_json_line({"id": columns["id"], "at": at, **columns})


def build_entry_document(entry: Entry, *, utc: bool) -> dict[str, Json]:
    from .date_range import to_datetime

    return {
        "id": entry.id,
        "at": to_datetime(entry.at_ms, utc=utc).isoformat(timespec="milliseconds"),
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


def run_reconcile(app: AppContext, console: Console, options: ReconcileOptions) -> None:
    """Request actual costs for up to `options.limit` entries, and report how far the estimates differed.

    Raises:
        UsageError: An option is invalid.
        AudiocliError: The ledger cannot be used.
    """
    from ..core.reconcile import can_look_up_costs, reconcile
    from ..ledger.reports import find_drift, list_unreconciled, list_unreported
    from ..routing import build_gateway_route
    from ..types.routes import Route

    if not 1 <= options.limit <= MAX_ROWS:
        raise UsageError(f"--limit {options.limit}: must be between 1 and {MAX_ROWS}")
    since, until = _parse_range(app, options.since, options.until, utc=False)
    timeout_s = validate_timeout(options.timeout_s)
    if app.is_replaying:
        since = until = None  # the ledger has the recorded entries only
    entries, count = list_unreconciled(app.ledger, since=since, until=until, limit=options.limit)
    app.record_entries(entries)
    routes = {
        config.name: build_gateway_route(config)
        for config in app.settings.gateways
        if config.traits_error is None and (config.key is not None or not config.requires_key)
    }
    result = app.run(
        lambda ctx: reconcile(entries, routes, ctx),
        read_timeout_s=timeout_s,
        info=console.info,
        debug=console.debug,
    )
    for message in result.errors:
        console.info(message)
    drifts = find_drift(app.ledger, since=since, until=until)
    unreported = list_unreported(app.ledger, since=since, until=until)
    if options.general.as_json:
        console.write_json(
            {
                "ok": True,
                "command": "usage",
                "corrected": result.corrected,
                "missing": result.missing,
                "contradicted": result.contradicted,
                "unanswered": result.failed,
                "left": count - len(entries),
                "before_usd": to_usd(result.before_nanousd),
                "after_usd": to_usd(result.after_nanousd),
                "upstream_usd": to_usd(result.upstream_nanousd),
                "drift": [_build_drift_document(drift) for drift in drifts],
                "unsupported": [{"gateway": costs.gateway, "requests": costs.requests} for costs in unreported],
            }
        )
        return
    text = f"{result.corrected} of {len(entries)} corrected"
    if result.corrected:
        text += f": {format_usd(result.after_nanousd)} instead of about {format_usd(result.before_nanousd)}"
    if result.upstream_nanousd:
        text += f", and {format_usd(result.upstream_nanousd)} charged by providers on your own keys"
    if result.missing:
        text += f"; {result.missing} not yet known to their gateway"
    if result.contradicted:
        text += f"; {result.contradicted} reported as $0, although the price list says more: the estimate stays"
    if result.failed:
        text += f"; {result.failed} could not be requested"
    if count > len(entries):
        text += f"; {count - len(entries)} remaining: run the command again"
    console.write_text(text + "\n")
    for drift in drifts:
        percent = "" if drift.percent is None else f" ({drift.percent:+.0f} %)"
        console.write_text(
            f"{drift.ref}: billed {format_usd(drift.billed_nanousd)}, estimated "
            f"{format_usd(drift.estimated_nanousd)}{percent}, {drift.requests} requests\n"
        )
    dialects = {config.name: config.dialect for config in app.settings.gateways}
    for costs in unreported:
        phrase = "1 request has" if costs.requests == 1 else f"{costs.requests} requests have"
        route = Route(costs.gateway, dialects.get(costs.gateway, ""), "", "")
        reason = (
            "there is no ID to look it up"
            if costs.gateway in dialects and can_look_up_costs(route)
            else f"{costs.gateway} does not report costs afterwards"
        )
        console.write_text(f"{costs.gateway}: {phrase} an estimated or unknown cost; {reason}\n")
    unpriced = [f"{costs.gateway}:{costs.model}" for costs in unreported if costs.model is not None]
    if unpriced:
        console.hint(
            "to compute the cost of later requests, set the price under [prices] in config.toml, for example: "
            f'"{unpriced[0]}" = {{ usd = 0.006, per = "minute" }}'
        )


def _build_drift_document(drift: EstimateDrift) -> dict[str, Json]:
    return {
        "model": drift.ref,
        "requests": drift.requests,
        "estimated_usd": to_usd(drift.estimated_nanousd),
        "billed_usd": to_usd(drift.billed_nanousd),
        "percent": None if drift.percent is None else round(drift.percent, 1),
    }


def run_verify(app: AppContext, console: Console, *, as_json: bool) -> int:
    """Check the ledger without changing it, and return the exit code."""
    from ..ledger.verify import verify
    from ..types.ledger import CostSource

    report = verify(app.ledger_path)
    code = ExitCode.OK if report.is_ok else ExitCode.PARTIAL
    source = CostSource.ESTIMATED if report.has_estimates else CostSource.COMPUTED
    if as_json:
        checks: list[Json] = [
            {"check": check.name, "status": "ok" if check.is_ok else "error", "detail": check.detail, "fix": None}
            for check in report.checks
        ]
        console.write_json(
            {
                "ok": report.is_ok,
                "command": "usage",
                "path": str(app.ledger_path),
                "entries": report.entries,
                "cost_usd": to_usd(report.cost_nanousd),
                "cost_source": str(source),
                "checks": checks,
            }
        )
        return code
    for check in report.checks:
        console.write_check("ok" if check.is_ok else "error", f"{check.name}: {check.detail}")
    total = format_cost(report.cost_nanousd, source)
    console.write_text(f"{app.ledger_path}: {report.entries} readable entries, total cost {total}\n")
    return code
