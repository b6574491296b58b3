"""`audiocli usage reconcile` and `usage verify`: whether what the ledger says is true."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from ..amounts import usd, usd_number
from ..context import AppContext

if TYPE_CHECKING:
    from ..console import Console
    from ..ledger.reports import Drift
    from ..types.values import Json


def reconcile(
    env: AppContext,
    screen: Console,
    span: tuple[datetime | None, datetime | None],
    limit: int,
    timeout_s: float,
    *,
    as_json: bool,
) -> None:
    """Ask for true costs, at most `limit` of them, and tell how far estimates were off. Raises: AudiocliError."""
    from ..core.reconcile import reconcile as work
    from ..ledger.reports import drifts, open_entries
    from ..types.values import Route

    entries, count = open_entries(env.ledger, since=span[0], until=span[1], limit=limit)
    routes = {
        one.name: Route(one.name, one.dialect, one.base_url, "", one.key)
        for one in env.settings.gateways
        if one.key is not None or not one.key_needed
    }
    done = env.run(lambda tools: work(entries, routes, tools), silence_s=timeout_s, tell=screen.info, log=screen.debug)
    for trouble in done.troubles:
        screen.info(trouble)
    off = drifts(env.ledger, since=span[0], until=span[1])
    if as_json:
        screen.write_json(
            {
                "ok": True,
                "command": "usage",
                "corrected": done.corrected,
                "missing": done.missing,
                "unanswered": done.unanswered,
                "left": count - len(entries),
                "before_usd": usd_number(done.before_nanousd),
                "after_usd": usd_number(done.after_nanousd),
                "upstream_usd": usd_number(done.upstream_nanousd),
                "drift": [_drift_document(drift) for drift in off],
            }
        )
        return
    text = f"{done.corrected} of {len(entries)} corrected"
    if done.corrected:
        text += f": {usd(done.after_nanousd)} instead of {usd(done.before_nanousd)}"
    if done.upstream_nanousd:
        text += f", and {usd(done.upstream_nanousd)} charged by providers on your own keys"
    if done.missing:
        text += f"; {done.missing} not known to their gateway, perhaps not yet"
    if done.unanswered:
        text += f"; {done.unanswered} could not be asked for"
    if count > len(entries):
        text += f"; {count - len(entries)} are left: run it again"
    screen.write_text(text + "\n")
    for drift in off:
        percent = "" if drift.percent is None else f" ({drift.percent:+.0f} %)"
        screen.write_text(
            f"{drift.ref}: billed {usd(drift.billed_nanousd)} where {usd(drift.estimated_nanousd)} was "
            f"estimated{percent}, {drift.requests} requests\n"
        )


def _drift_document(drift: Drift) -> dict[str, Json]:
    return {
        "model": drift.ref,
        "requests": drift.requests,
        "estimated_usd": usd_number(drift.estimated_nanousd),
        "billed_usd": usd_number(drift.billed_nanousd),
        "percent": None if drift.percent is None else round(drift.percent, 1),
    }


def verify(env: AppContext, screen: Console, *, as_json: bool) -> bool:
    """Check the ledger without changing it; tell whether all is well."""
    from ..ledger.verify import verify as checked

    found = checked(env.ledger_path)
    if as_json:
        checks: list[Json] = [{"what": one.what, "ok": one.is_well, "told": one.told} for one in found.checks]
        screen.write_json(
            {
                "ok": found.is_well,
                "command": "usage",
                "path": str(env.ledger_path),
                "entries": found.entries,
                "cost_usd": usd_number(found.cost_nanousd),
                "checks": checks,
            }
        )
        return found.is_well
    for one in found.checks:
        screen.write_text(f"{'ok   ' if one.is_well else 'wrong'}  {one.what}: {one.told}\n")
    screen.write_text(f"{env.ledger_path}: {found.entries} entries can be read, {usd(found.cost_nanousd)} in all\n")
    return found.is_well
