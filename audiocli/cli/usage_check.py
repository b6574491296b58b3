"""`audiocli usage reconcile` and `usage verify`: correct and check the ledger."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from ..amounts import format_usd, to_usd
from ..context import AppContext

if TYPE_CHECKING:
    from ..console import Console
    from ..ledger.reports import EstimateDrift
    from ..types.json import Json


def reconcile(
    app: AppContext,
    console: Console,
    date_range: tuple[datetime | None, datetime | None],
    limit: int,
    timeout_s: float,
    *,
    as_json: bool,
) -> None:
    """Request actual costs for up to `limit` entries, and report how far the estimates differed.

    Raises:
        AudiocliError: The ledger cannot be used.
    """
    from ..core.reconcile import reconcile as reconcile_entries
    from ..ledger.reports import find_drift, list_unreconciled
    from ..types.routes import Route

    since, until = date_range
    entries, count = list_unreconciled(app.ledger, since=since, until=until, limit=limit)
    routes = {
        config.name: Route(config.name, config.dialect, config.base_url, "", config.key)
        for config in app.settings.gateways
        if config.key is not None or not config.requires_key
    }
    result = app.run(
        lambda ctx: reconcile_entries(entries, routes, ctx),
        read_timeout_s=timeout_s,
        info=console.info,
        debug=console.debug,
    )
    for message in result.errors:
        console.info(message)
    drifts = find_drift(app.ledger, since=since, until=until)
    if as_json:
        console.write_json(
            {
                "ok": True,
                "command": "usage",
                "corrected": result.corrected,
                "missing": result.missing,
                "unanswered": result.failed,
                "left": count - len(entries),
                "before_usd": to_usd(result.before_nanousd),
                "after_usd": to_usd(result.after_nanousd),
                "upstream_usd": to_usd(result.upstream_nanousd),
                "drift": [_build_drift_document(drift) for drift in drifts],
            }
        )
        return
    text = f"{result.corrected} of {len(entries)} corrected"
    if result.corrected:
        text += f": {format_usd(result.after_nanousd)} instead of {format_usd(result.before_nanousd)}"
    if result.upstream_nanousd:
        text += f", and {format_usd(result.upstream_nanousd)} charged by providers on your own keys"
    if result.missing:
        text += f"; {result.missing} not yet known to their gateway"
    if result.failed:
        text += f"; {result.failed} could not be requested"
    if count > len(entries):
        text += f"; {count - len(entries)} remaining: run it again"
    console.write_text(text + "\n")
    for drift in drifts:
        percent = "" if drift.percent is None else f" ({drift.percent:+.0f} %)"
        console.write_text(
            f"{drift.ref}: billed {format_usd(drift.billed_nanousd)}, estimated "
            f"{format_usd(drift.estimated_nanousd)}{percent}, {drift.requests} requests\n"
        )


def _build_drift_document(drift: EstimateDrift) -> dict[str, Json]:
    return {
        "model": drift.ref,
        "requests": drift.requests,
        "estimated_usd": to_usd(drift.estimated_nanousd),
        "billed_usd": to_usd(drift.billed_nanousd),
        "percent": None if drift.percent is None else round(drift.percent, 1),
    }


def verify(app: AppContext, console: Console, *, as_json: bool) -> bool:
    """Check the ledger without changing it. Return whether every check passed."""
    from ..ledger.verify import verify as verify_ledger

    report = verify_ledger(app.ledger_path)
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
                "checks": checks,
            }
        )
        return report.is_ok
    for check in report.checks:
        console.write_text(f"{'ok' if check.is_ok else 'error':<7}  {check.name}: {check.detail}\n")
    total = format_usd(report.cost_nanousd)
    console.write_text(f"{app.ledger_path}: {report.entries} readable entries, total cost {total}\n")
    return report.is_ok
