"""`audiocli budget`: show, set and clear the spending limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext
from ..errors import UsageError
from .options import GeneralOptions, open_app, with_options

if TYPE_CHECKING:
    from ..console import Console
    from ..types.json import Json


class SetOptions(NamedTuple):
    """Options of `audiocli budget set`."""

    run: Annotated[float | None, typer.Option("--run", metavar="USD", help="Spending limit for each run.", min=0)] = (
        None
    )
    day: Annotated[float | None, typer.Option("--day", metavar="USD", help="Spending limit for each day.", min=0)] = (
        None
    )
    week: Annotated[
        float | None, typer.Option("--week", metavar="USD", help="Spending limit for each week.", min=0)
    ] = None
    month: Annotated[
        float | None, typer.Option("--month", metavar="USD", help="Spending limit for each month.", min=0)
    ] = None
    confirm: Annotated[
        float | None,
        typer.Option(
            "--confirm", metavar="USD", help="Require confirmation of runs that may cost more than this.", min=0
        ),
    ] = None
    general: GeneralOptions = GeneralOptions()


def build() -> typer.Typer:
    """Build the command group."""
    group = typer.Typer(help="Show and set spending limits.", rich_markup_mode=None)
    group.callback(invoke_without_command=True)(budget)
    group.command("set")(set_limits)
    group.command("clear")(clear)
    return group


@with_options
def budget(ctx: typer.Context, options: GeneralOptions) -> None:
    """Show and set spending limits."""
    if ctx.invoked_subcommand is None:
        _show(*open_app(ctx, options), as_json=options.as_json)
    elif options.as_json:
        raise UsageError(f"put options after the subcommand: audiocli budget {ctx.invoked_subcommand} --json")


@with_options
def set_limits(ctx: typer.Context, options: SetOptions) -> None:
    """Set spending limits in the config file. Other limits stay unchanged."""
    app, console = open_app(ctx, options.general)
    amounts = {
        "run": options.run,
        "day": options.day,
        "week": options.week,
        "month": options.month,
        "confirm": options.confirm,
    }
    changes = {name: amount for name, amount in amounts.items() if amount is not None}
    if not changes:
        raise UsageError("no limit given", hint="for example: audiocli budget set --day 5")
    _write_budget(app, changes)
    _show(app, console, as_json=options.general.as_json)


@with_options
def clear(ctx: typer.Context, options: GeneralOptions) -> None:
    """Remove all spending limits from the config file."""
    app, console = open_app(ctx, options)
    _write_budget(app, None)
    _show(app, console, as_json=options.as_json)


def _show(app: AppContext, console: Console, *, as_json: bool) -> None:
    from ..costs import format_exact_usd, to_usd
    from ..ledger.budget import resolve_limits

    limits = resolve_limits(app.settings.budget, max_cost_nanousd=None, run_id="", now=app.now())
    rows: list[tuple[str, int, int | None]] = [
        (limit.name, limit.amount_nanousd, app.ledger.sum_spending(limit) if limit.since_ms is not None else None)
        for limit in limits
    ]
    estimated = {limit.name for limit in limits if limit.since_ms is not None and app.ledger.has_estimates(limit)}
    if as_json:
        documents: dict[str, Json] = {
            name: {
                "cap_usd": to_usd(amount),
                "spent_usd": to_usd(spent),
                "left_usd": None if spent is None else to_usd(amount - spent),
                "estimated": name in estimated,
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
        [
            name,
            format_exact_usd(amount),
            *(("-", "-") if spent is None else _format_spending(spent, amount, is_estimated=name in estimated)),
        ]
        for name, amount, spent in rows
    ]
    if app.settings.budget.confirm is not None:
        lines.append(["confirm", format_exact_usd(app.settings.budget.confirm), "-", "-"])
    console.write_table(["limit", "amount", "spent or reserved", "left"], lines, numeric=[False, True, True, True])


def _format_spending(spent: int, amount: int, *, is_estimated: bool) -> tuple[str, str]:
    """Format what counts against a limit, and what is left of it."""
    from ..costs import Rounding, format_cost, format_usd
    from ..types.ledger import CostSource

    source = CostSource.ESTIMATED if is_estimated else CostSource.COMPUTED
    left = format_usd(amount - spent, Rounding.DOWN)
    return format_cost(spent, source), f"about {left}" if is_estimated and spent else left


def _write_budget(app: AppContext, changes: dict[str, float] | None) -> None:
    """Change keys of `[budget]` in the config file; None removes the table.

    Raises:
        UsageError: The file cannot be read or written.
    """
    from ..config_editor import write_table

    write_table(app.config_path, "budget", changes)
    app.reload_settings()
