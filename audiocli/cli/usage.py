"""`audiocli usage`: report, list, export, reconcile and verify the entries of the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ExitCode, UsageError
from . import options

if TYPE_CHECKING:
    from datetime import datetime

    from ..context import AppContext
    from .usage_list import EntryQuery

MAX_ROWS = 1_000_000

Since = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help="Start: date, today, yesterday, 7d, 4w, month or all (default: 30d)."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Last day, inclusive (default: today).")]
Utc = Annotated[bool, typer.Option("--utc", help="Use UTC instead of local time.")]
GroupBy = Annotated[
    list[str] | None,
    typer.Option(
        "--by", metavar="WHAT", help="Group by: day week month gateway model command outcome tag; repeatable."
    ),
]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")]
GatewayFilter = Annotated[
    str | None, typer.Option("--gateway", "-g", metavar="NAME", help="Only entries of this gateway.")
]
ModelFilter = Annotated[
    str | None, typer.Option("--model", "-m", metavar="REF", help="Only entries of this [GATEWAY:]MODEL.")
]
CommandFilter = Annotated[
    str | None, typer.Option("--command", metavar="NAME", help="Only entries of this command, such as speak.")
]
OutcomeFilter = Annotated[
    str | None,
    typer.Option(
        "--outcome",
        metavar="NAME",
        help="Only entries with this outcome: ok refused failed unsent cancelled unknown reserved.",
    ),
]
TagFilter = Annotated[str | None, typer.Option("--tag", metavar="NAME", help="Only entries with this tag.")]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", help="Only the newest N entries.")]
ReconcileLimit = Annotated[int, typer.Option("--limit", metavar="N", help="Maximum number of entries to reconcile.")]


def build() -> typer.Typer:
    """Build the command group."""
    group = typer.Typer(help="Report spending from the ledger.", rich_markup_mode=None)

    @group.callback(invoke_without_command=True)
    def usage(
        ctx: typer.Context,
        since: Since = None,
        until: Until = None,
        by: GroupBy = None,
        utc: Utc = False,
        as_json: options.AsJson = False,
        as_csv: AsCsv = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Report spending from the ledger."""
        if ctx.invoked_subcommand is None:
            from .usage_report import show

            app = options.get_app(ctx)
            console = options.build_console(app, is_quiet=quiet, is_debugging=debug)
            date_range = _parse_range(app, since, until, utc=utc)
            show(app, console, date_range, by or ["day"], utc=utc, as_json=as_json, as_csv=as_csv)
        elif since or until or by or utc or as_json or as_csv:
            raise UsageError(f"put options after the subcommand: audiocli usage {ctx.invoked_subcommand} …")

    @group.command("list")
    def entries(
        ctx: typer.Context,
        since: Since = None,
        until: Until = None,
        gateway: GatewayFilter = None,
        model: ModelFilter = None,
        command: CommandFilter = None,
        outcome: OutcomeFilter = None,
        tag: TagFilter = None,
        limit: Limit = None,
        utc: Utc = False,
        as_json: options.AsJson = False,
        as_csv: AsCsv = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """List entries, oldest first; --json prints JSON Lines."""
        from .usage_list import show

        app = options.get_app(ctx)
        console = options.build_console(app, is_quiet=quiet, is_debugging=debug)
        if limit is not None and not 1 <= limit <= MAX_ROWS:
            raise UsageError(f"--limit {limit}: must be between 1 and {MAX_ROWS}")
        date_range = _parse_range(app, since, until, utc=utc)
        query = _build_query(date_range, gateway, model, command, outcome, tag, utc=utc)
        show(app, console, query, limit, as_json=as_json, as_csv=as_csv)

    @group.command("export")
    def export(
        ctx: typer.Context,
        since: Since = None,
        until: Until = None,
        gateway: GatewayFilter = None,
        model: ModelFilter = None,
        command: CommandFilter = None,
        outcome: OutcomeFilter = None,
        tag: TagFilter = None,
        utc: Utc = False,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Export all columns of entries as JSON Lines. Default: all entries."""
        from .usage_list import export

        app = options.get_app(ctx)
        console = options.build_console(app, is_quiet=quiet, is_debugging=debug)
        date_range = _parse_range(app, since, until, utc=utc, default_since="all")
        export(app, console, _build_query(date_range, gateway, model, command, outcome, tag, utc=utc))

    @group.command("reconcile")
    def reconcile(
        ctx: typer.Context,
        since: Since = None,
        until: Until = None,
        limit: ReconcileLimit = 500,
        timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Fetch actual costs that are estimated or unknown."""
        from .usage_check import reconcile

        app = options.get_app(ctx)
        console = options.build_console(app, is_quiet=quiet, is_debugging=debug)
        if not 1 <= limit <= MAX_ROWS:
            raise UsageError(f"--limit {limit}: must be between 1 and {MAX_ROWS}")
        date_range = _parse_range(app, since, until, utc=False)
        reconcile(app, console, date_range, limit, options.validate_timeout(timeout), as_json=as_json)

    @group.command("verify")
    def verify(
        ctx: typer.Context,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> int:
        """Check the ledger file and its totals. Exit code 3 if a check fails."""
        from .usage_check import verify

        app = options.get_app(ctx)
        console = options.build_console(app, is_quiet=quiet, is_debugging=debug)
        return ExitCode.OK if verify(app, console, as_json=as_json) else ExitCode.PARTIAL

    @group.command("path")
    def path(
        ctx: typer.Context,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Print the path of the ledger."""
        app = options.get_app(ctx)
        console = options.build_console(app, is_quiet=quiet, is_debugging=debug)
        options.print_path(console, "usage", app.ledger_path, as_json=as_json)

    return group


def _parse_range(
    app: AppContext, since: str | None, until: str | None, *, utc: bool, default_since: str = "30d"
) -> tuple[datetime | None, datetime | None]:
    from datetime import UTC

    from .date_range import parse_date_range

    now = app.now()
    return parse_date_range(since, until, now.astimezone(UTC) if utc else now, default_since=default_since)


def _build_query(
    date_range: tuple[datetime | None, datetime | None],
    gateway: str | None,
    model: str | None,
    command: str | None,
    outcome: str | None,
    tag: str | None,
    *,
    utc: bool,
) -> EntryQuery:
    """Build a query from the filter options.

    Raises:
        UsageError: The outcome is unknown.
    """
    from ..ledger.reports import EntryFilter
    from ..types.ledger import Outcome
    from .usage_list import EntryQuery

    if outcome is not None and outcome not in list(Outcome):
        raise UsageError(f"--outcome {outcome}: must be one of {', '.join(Outcome)}")
    return EntryQuery(*date_range, EntryFilter(gateway, model, command, outcome, tag), utc)
