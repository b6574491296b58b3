"""`audiocli usage`: what was spent, from the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ExitCode, UsageError
from . import options

if TYPE_CHECKING:
    from datetime import datetime

    from ..context import AppContext
    from .usage_list import Asked

MOST_ROWS = 1_000_000

Since = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help="A date, or today, yesterday, 7d, 4w, month, all. Default: 30d."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="WHEN", help="The last day to count. Default: now.")]
Utc = Annotated[bool, typer.Option("--utc", help="Days and times in UTC, not in local time.")]
By = Annotated[
    list[str] | None,
    typer.Option("--by", metavar="WHAT", help="day week month gateway model command outcome tag; repeatable."),
]
AsCsv = Annotated[bool, typer.Option("--csv", help="Comma-separated values.")]
OfGateway = Annotated[str | None, typer.Option("--gateway", "-g", metavar="NAME", help="Of this gateway only.")]
OfModel = Annotated[str | None, typer.Option("--model", "-m", metavar="REF", help="Of this [GATEWAY:]MODEL only.")]
OfCommand = Annotated[str | None, typer.Option("--command", metavar="NAME", help="Of speak, transcribe … only.")]
OfOutcome = Annotated[
    str | None, typer.Option("--outcome", metavar="NAME", help="ok refused failed unsent cancelled unknown reserved.")
]
OfTag = Annotated[str | None, typer.Option("--tag", metavar="NAME", help="With this tag only.")]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", help="The newest N only.")]
Questions = Annotated[int, typer.Option("--limit", metavar="N", help="Ask for at most so many; the rest next time.")]


def build() -> typer.Typer:
    app = typer.Typer(help="What was spent, from the ledger.", rich_markup_mode=None)

    @app.callback(invoke_without_command=True)
    def usage(
        context: typer.Context,
        since: Since = None,
        until: Until = None,
        by: By = None,
        utc: Utc = False,
        as_json: options.AsJson = False,
        as_csv: AsCsv = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """What was spent, from the ledger."""
        if context.invoked_subcommand is None:
            from .usage_report import show

            env = options.get_app(context)
            screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
            span = _span(env, since, until, utc=utc)
            show(env, screen, span, by or ["day"], utc=utc, as_json=as_json, as_csv=as_csv)
        elif since or until or by or utc or as_json or as_csv:
            raise UsageError(
                f"flags of {context.invoked_subcommand} go behind it: audiocli usage {context.invoked_subcommand} …"
            )

    @app.command("list")
    def entries(
        context: typer.Context,
        since: Since = None,
        until: Until = None,
        gateway: OfGateway = None,
        model: OfModel = None,
        command: OfCommand = None,
        outcome: OfOutcome = None,
        tag: OfTag = None,
        limit: Limit = None,
        utc: Utc = False,
        as_json: options.AsJson = False,
        as_csv: AsCsv = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Every entry, oldest first; JSON lines with --json."""
        from .usage_list import show

        env = options.get_app(context)
        screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
        if limit is not None and not 1 <= limit <= MOST_ROWS:
            raise UsageError(f"--limit {limit}: from 1 to {MOST_ROWS}")
        asked = _asked(_span(env, since, until, utc=utc), gateway, model, command, outcome, tag, utc=utc)
        show(env, screen, asked, limit, as_json=as_json, as_csv=as_csv)

    @app.command("export")
    def export(
        context: typer.Context,
        since: Since = None,
        until: Until = None,
        gateway: OfGateway = None,
        model: OfModel = None,
        command: OfCommand = None,
        outcome: OfOutcome = None,
        tag: OfTag = None,
        utc: Utc = False,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Every column of every entry as JSON lines; all of them, unless --since or --until is given."""
        from .usage_list import export

        env = options.get_app(context)
        screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
        span = _span(env, since, until, utc=utc, usual="all")
        export(env, screen, _asked(span, gateway, model, command, outcome, tag, utc=utc))

    @app.command("reconcile")
    def reconcile(
        context: typer.Context,
        since: Since = None,
        until: Until = None,
        limit: Questions = 500,
        timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Ask the gateways for the true cost of what is estimated or unknown."""
        from .usage_check import reconcile

        env = options.get_app(context)
        screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
        if not 1 <= limit <= MOST_ROWS:
            raise UsageError(f"--limit {limit}: from 1 to {MOST_ROWS}")
        span = _span(env, since, until, utc=False)
        reconcile(env, screen, span, limit, options.checked_timeout(timeout), as_json=as_json)

    @app.command("verify")
    def verify(
        context: typer.Context,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> int:
        """Check the ledger's file and its sums; exit 3 if something is wrong."""
        from .usage_check import verify

        env = options.get_app(context)
        screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
        return ExitCode.DONE if verify(env, screen, as_json=as_json) else ExitCode.PARTLY_DONE

    @app.command("path")
    def path(
        context: typer.Context,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Where the ledger is."""
        env = options.get_app(context)
        screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
        options.emit_path(screen, "usage", env.ledger_path, as_json=as_json)

    return app


def _span(
    env: AppContext, since: str | None, until: str | None, *, utc: bool, usual: str = "30d"
) -> tuple[datetime | None, datetime | None]:
    from datetime import UTC

    from .date_range import period

    now = env.now()
    return period(since, until, now.astimezone(UTC) if utc else now, usual=usual)


def _asked(
    span: tuple[datetime | None, datetime | None],
    gateway: str | None,
    model: str | None,
    command: str | None,
    outcome: str | None,
    tag: str | None,
    *,
    utc: bool,
) -> Asked:
    """Check the words of the filters. Raises: UsageError."""
    from ..ledger.reports import Filter
    from ..types.outcomes import Outcome
    from .usage_list import Asked

    if outcome is not None and outcome not in list(Outcome):
        raise UsageError(f"--outcome {outcome}: one of {', '.join(Outcome)}")
    return Asked(*span, Filter(gateway, model, command, outcome, tag), utc)
