"""`audiocli budget`: the caps, and what is left of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..context import AppContext
from ..errors import UsageError
from . import options

if TYPE_CHECKING:
    from ..types.values import Json

Amount = Annotated[float | None, typer.Option(metavar="USD", help="US dollars.", min=0)]


def build() -> typer.Typer:
    app = typer.Typer(help="Caps on what is spent, and what is left of them.", rich_markup_mode=None)

    @app.callback(invoke_without_command=True)
    def budget(
        context: typer.Context,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Caps on what is spent, and what is left of them."""
        if context.invoked_subcommand is None:
            _show(context, as_json=as_json, quiet=quiet, debug=debug)
        elif as_json:
            raise UsageError(f"flags of {context.invoked_subcommand} go behind it")

    @app.command("set")
    def set_caps(
        context: typer.Context,
        run: Amount = None,
        day: Amount = None,
        week: Amount = None,
        month: Amount = None,
        confirm: Annotated[
            float | None, typer.Option(metavar="USD", help="Ask before what may cost more than this.", min=0)
        ] = None,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Write caps into the configuration file; those not named stay."""
        asked = {"run": run, "day": day, "week": week, "month": month, "confirm": confirm}
        named = {name: amount for name, amount in asked.items() if amount is not None}
        if not named:
            raise UsageError("no cap named", hint="such as: audiocli budget set --day 5")
        _write(options.get_app(context), named)
        _show(context, as_json=as_json, quiet=quiet, debug=debug)

    @app.command("clear")
    def clear(
        context: typer.Context,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Take all caps out of the configuration file."""
        _write(options.get_app(context), None)
        _show(context, as_json=as_json, quiet=quiet, debug=debug)

    return app


def _show(context: typer.Context, *, as_json: bool, quiet: bool, debug: bool) -> None:
    from ..amounts import usd, usd_number
    from ..ledger import budget as rules

    env = options.get_app(context)
    screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
    caps = rules.resolve_limits(env.settings.budget, max_cost_nanousd=None, run="", now=env.now())
    rows: list[tuple[str, int, int | None]] = [
        (cap.name, cap.limit_nanousd, env.ledger.spent(cap) if cap.since_ms is not None else None) for cap in caps
    ]
    if as_json:
        listed: dict[str, Json] = {
            name: {
                "cap_usd": usd_number(limit),
                "spent_usd": usd_number(spent),
                "left_usd": None if spent is None else usd_number(limit - spent),
            }
            for name, limit, spent in rows
        }
        confirm = usd_number(env.settings.budget.confirm)
        screen.write_json({"ok": True, "command": "budget", "caps": listed, "confirm_usd": confirm})
        return
    if not rows and env.settings.budget.confirm is None:
        screen.write_text("no caps\n")
        return
    lines = [
        [name, usd(limit), "-" if spent is None else usd(spent), "-" if spent is None else usd(limit - spent)]
        for name, limit, spent in rows
    ]
    if env.settings.budget.confirm is not None:
        lines.append(["confirm", usd(env.settings.budget.confirm), "-", "-"])
    screen.write_table(["cap", "amount", "spent or reserved", "left"], lines, numeric=[False, True, True, True])


def _write(env: AppContext, named: dict[str, float] | None) -> None:
    """Change `[budget]` in the configuration file and nothing else in it; None takes it out.

    Raises: UsageError: the file cannot be read or written.
    """
    from ..config import write_table

    write_table(env.config_path, "budget", named)
    env.forget_settings()
