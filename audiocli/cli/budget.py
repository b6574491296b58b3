"""`audiocli budget`: show, set and clear the spending limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..context import AppContext
from ..errors import UsageError
from . import options

if TYPE_CHECKING:
    from ..types.json import Json


def build() -> typer.Typer:
    """Build the command group."""
    group = typer.Typer(help="Show and set spending limits.", rich_markup_mode=None)

    @group.callback(invoke_without_command=True)
    def budget(
        ctx: typer.Context,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Show and set spending limits."""
        if ctx.invoked_subcommand is None:
            _show(ctx, as_json=as_json, quiet=quiet, debug=debug)
        elif as_json:
            raise UsageError(f"put options after the subcommand: audiocli budget {ctx.invoked_subcommand} --json")

    @group.command("set")
    def set_limits(
        ctx: typer.Context,
        run: Annotated[float | None, typer.Option(metavar="USD", help="Limit of each run.", min=0)] = None,
        day: Annotated[float | None, typer.Option(metavar="USD", help="Limit of each day.", min=0)] = None,
        week: Annotated[float | None, typer.Option(metavar="USD", help="Limit of each week.", min=0)] = None,
        month: Annotated[float | None, typer.Option(metavar="USD", help="Limit of each month.", min=0)] = None,
        confirm: Annotated[
            float | None, typer.Option(metavar="USD", help="Confirm runs that may cost more than this.", min=0)
        ] = None,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Set spending limits in the config file. Other limits stay unchanged."""
        amounts = {"run": run, "day": day, "week": week, "month": month, "confirm": confirm}
        changes = {name: amount for name, amount in amounts.items() if amount is not None}
        if not changes:
            raise UsageError("no limit given", hint="for example: audiocli budget set --day 5")
        _write_budget(options.get_app(ctx), changes)
        _show(ctx, as_json=as_json, quiet=quiet, debug=debug)

    @group.command("clear")
    def clear(
        ctx: typer.Context,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Remove all spending limits from the config file."""
        _write_budget(options.get_app(ctx), None)
        _show(ctx, as_json=as_json, quiet=quiet, debug=debug)

    return group


def _show(ctx: typer.Context, *, as_json: bool, quiet: bool, debug: bool) -> None:
    from ..amounts import format_usd, to_usd
    from ..ledger.budget import resolve_limits

    app = options.get_app(ctx)
    console = options.build_console(app, is_quiet=quiet, is_debugging=debug)
    limits = resolve_limits(app.settings.budget, max_cost_nanousd=None, run_id="", now=app.now())
    rows: list[tuple[str, int, int | None]] = [
        (limit.name, limit.amount_nanousd, app.ledger.sum_spending(limit) if limit.since_ms is not None else None)
        for limit in limits
    ]
    if as_json:
        documents: dict[str, Json] = {
            name: {
                "cap_usd": to_usd(amount),
                "spent_usd": to_usd(spent),
                "left_usd": None if spent is None else to_usd(amount - spent),
            }
            for name, amount, spent in rows
        }
        confirm = to_usd(app.settings.budget.confirm)
        console.write_json({"ok": True, "command": "budget", "caps": documents, "confirm_usd": confirm})
        return
    if not rows and app.settings.budget.confirm is None:
        console.write_text("no spending limits\n")
        return
    lines = [
        [name, format_usd(amount), *(("-", "-") if spent is None else (format_usd(spent), format_usd(amount - spent)))]
        for name, amount, spent in rows
    ]
    if app.settings.budget.confirm is not None:
        lines.append(["confirm", format_usd(app.settings.budget.confirm), "-", "-"])
    console.write_table(["limit", "amount", "spent or reserved", "left"], lines, numeric=[False, True, True, True])


def _write_budget(app: AppContext, changes: dict[str, float] | None) -> None:
    """Change keys of `[budget]` in the config file; None removes the table.

    Raises:
        UsageError: The file cannot be read or written.
    """
    from ..config import write_table

    write_table(app.config_path, "budget", changes)
    app.reload_settings()
