"""Reconcile ledger entries with the costs that gateways report afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from .. import gateways
from ..costs import sum_costs
from ..errors import AttemptError, AudiocliError
from ..gateways.base import Dialect
from ..types.ledger import UnreconciledEntry, Usage
from ..types.results import RunResult
from ..types.routes import Route
from .ledger_writer import write
from .response_body import open_response, read_error_body
from .run_context import RunContext

# Pause between two lookups.
LOOKUP_INTERVAL_S = 0.1

# At the end of a run: total time, concurrent lookups, and pauses between rounds. A gateway may need a moment until it
# can report the cost of a request.
RUN_TIMEOUT_S = 3.0
RUN_CONCURRENCY = 4
RUN_RETRY_DELAYS_S = (0.3, 0.9, 0.0)


class ReconcileResult(NamedTuple):
    """Counts and costs of a reconciliation.

    `missing` counts entries that their gateway does not know yet, or no longer. `contradicted` counts entries that
    their gateway reports as $0 although they have a price; their estimates stay. `upstream_nanousd` is what providers
    charged in addition, for requests that used the user's own provider keys.
    """

    corrected: int
    missing: int
    contradicted: int
    failed: int
    before_nanousd: int
    after_nanousd: int
    upstream_nanousd: int
    errors: tuple[str, ...]


async def reconcile(
    entries: Iterable[UnreconciledEntry], routes: Mapping[str, Route], ctx: RunContext
) -> ReconcileResult:
    """Look up the cost of every entry at its gateway. `routes` maps names of gateways to routes.

    Lookups run one after the other with a pause between them. After an error, the other entries of that gateway are
    skipped. If interrupted, corrected entries stay corrected. Missing entries come last in the next reconciliation.
    """
    corrected = missing = contradicted = failed = before_nanousd = after_nanousd = upstream_nanousd = 0
    errors: dict[str, str] = {}
    for entry in entries:
        route = routes.get(entry.gateway)
        if route is None or entry.gateway in errors:
            failed += 1
            continue
        try:
            usage = await _look_up(entry, route._replace(model=entry.model), ctx, is_optional=False)
        except AudiocliError as error:
            errors[entry.gateway] = f"{entry.gateway}: {error.message}"
            failed += 1
            continue
        if usage is not None and usage.invalid_cost is not None:
            ctx.info(f"warning: {entry.gateway} reported an invalid cost ({usage.invalid_cost}) for entry {entry.id}")
        if usage is None or usage.cost_nanousd is None:
            missing += 1
            await write(ctx, partial(ctx.ledger.defer, entry.id))
        elif _is_contradicted(entry, usage):
            contradicted += 1
            await write(ctx, partial(ctx.ledger.defer, entry.id))
        elif await write(ctx, partial(ctx.ledger.correct_cost, entry.id, usage)):
            corrected += 1
            before_nanousd += entry.cost_nanousd or 0
            after_nanousd += usage.cost_nanousd
            upstream_nanousd += usage.upstream_nanousd or 0
        await ctx.sleep(LOOKUP_INTERVAL_S)
    return ReconcileResult(
        corrected,
        missing,
        contradicted,
        failed,
        before_nanousd,
        after_nanousd,
        upstream_nanousd,
        tuple(errors.values()),
    )


def _is_contradicted(entry: UnreconciledEntry, usage: Usage) -> bool:
    """Return whether a gateway reports $0 for an entry whose price says more. Spending limits count the larger."""
    return not ((usage.cost_nanousd or 0) + (usage.upstream_nanousd or 0)) and bool(entry.cost_nanousd)


def can_look_up_costs(route: Route) -> bool:
    """Return whether the gateway reports the costs of finished requests."""
    dialect: Dialect = gateways.load_dialect(route.dialect)
    return dialect.build_cost_query("id", route) is not None


async def reconcile_run(
    run: RunResult, routes: Sequence[Route], ctx: RunContext, *, timeout_s: float = RUN_TIMEOUT_S
) -> RunResult:
    """Update the cost of a finished run with what the gateways report within `timeout_s` seconds.

    The result exists already, so errors and Ctrl-C only end the lookups, and nothing is raised.
    """
    routes_by_gateway = {route.gateway: route for route in routes}
    semaphore = asyncio.Semaphore(RUN_CONCURRENCY)
    try:
        async with asyncio.timeout(timeout_s):
            for pause_s in RUN_RETRY_DELAYS_S:
                entries = [
                    entry
                    for entry in ctx.ledger.list_unreconciled(ctx.budget.run_id)
                    if entry.gateway in routes_by_gateway
                ]
                if not entries:
                    break
                await asyncio.gather(*(_correct_entry(entry, routes_by_gateway, semaphore, ctx) for entry in entries))
                await ctx.sleep(pause_s)
    except (TimeoutError, AudiocliError) as error:
        ctx.debug(f"final cost is not reported yet: {error or 'timed out'}")
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
    try:
        costs = ctx.ledger.list_costs(ctx.budget.run_id)
    except AudiocliError:
        return run
    if not costs:
        return run
    cost_nanousd, source = sum_costs(costs)
    # Failed attempts count as well, as in the ledger.
    return run._replace(cost_nanousd=cost_nanousd, cost_source=source)


async def _correct_entry(
    entry: UnreconciledEntry, routes: dict[str, Route], semaphore: asyncio.Semaphore, ctx: RunContext
) -> None:
    """Look up the cost of one entry and correct it. After an error, remove the gateway from `routes`."""
    async with semaphore:
        route = routes.get(entry.gateway)
        if route is None:
            return
        try:
            usage = await _look_up(entry, route._replace(model=entry.model), ctx, is_optional=True)
            if usage is not None and usage.cost_nanousd is not None and not _is_contradicted(entry, usage):
                await write(ctx, partial(ctx.ledger.correct_cost, entry.id, usage))
        except AudiocliError as error:
            routes.pop(entry.gateway, None)
            ctx.debug(f"{entry.gateway}: {error.message}")


async def _look_up(entry: UnreconciledEntry, route: Route, ctx: RunContext, *, is_optional: bool) -> Usage | None:
    """Return the usage that the gateway reports for an entry; None if it does not know the request.

    `is_optional`: a replay may lack the request.

    Raises:
        AudiocliError: The lookup failed.
    """
    dialect: Dialect = gateways.load_dialect(route.dialect)
    query = dialect.build_cost_query(entry.generation_id, route)
    if query is None:
        return None
    async with open_response(query._replace(is_optional=is_optional), route, ctx) as response:
        body = await read_error_body(response.iter_bytes())
        if 200 <= response.status < 300:
            return dialect.parse_cost(body)
        if response.status in (400, 404):
            return None
        error: AttemptError = dialect.parse_error(response.status, response.headers, body)
        raise error
