"""Ask the gateways what finished requests have really cost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from .. import gateways
from ..costs import total
from ..errors import AttemptError, AudiocliError
from ..gateways.base import Gateway
from ..gateways.error_responses import hide_key
from ..types.values import UnreconciledEntry, Route, RunResult, Usage
from .audio_response import error_body
from .ledger_writer import patiently
from .run_context import RunContext

# Between two questions to the same gateway.
POLITE_S = 0.1

# What the end of a long run may wait for its true cost, how many are asked for at a time, and how long a gateway that
# does not know a request yet is left alone.
RUN_WITHIN_S = 3.0
RUN_AT_ONCE = 4
RUN_PAUSES_S = (0.3, 0.9, 0.0)


class Reconciled(NamedTuple):
    """What became of the entries that were open. `missing` are not known to their gateway, yet or any more.

    `upstream_nanousd` is what providers charged beside it, where the user's own keys at them were used.
    """

    corrected: int
    missing: int
    unanswered: int
    before_nanousd: int
    after_nanousd: int
    upstream_nanousd: int
    troubles: tuple[str, ...]


async def reconcile(entries: Iterable[UnreconciledEntry], routes: Mapping[str, Route], tools: RunContext) -> Reconciled:
    """Look up every entry that has a name at its gateway; `routes` are the gateways that can be asked, by name.

    One after the other, with a pause between. A gateway that fails is not asked again. What was corrected stays so
    when this is interrupted, and what a gateway did not know comes last the next time.
    """
    corrected = missing = unanswered = before = after = upstream = 0
    troubles: dict[str, str] = {}
    for entry in entries:
        route = routes.get(entry.gateway)
        if route is None or entry.gateway in troubles:
            unanswered += 1
            continue
        try:
            usage = await _look_up(entry, route._replace(model=entry.model), tools)
        except AudiocliError as error:
            hide_key(error, route.key)
            troubles[entry.gateway] = f"{entry.gateway}: {error.message}"
            unanswered += 1
            continue
        if usage is not None and usage.nonsense is not None:
            tools.info(f"warning: {entry.gateway} tells a cost that cannot be one ({usage.nonsense}): entry {entry.id}")
        if usage is None or usage.cost_nanousd is None:
            missing += 1
            await patiently(partial(tools.ledger.put_off, entry.id))
        elif await patiently(partial(tools.ledger.correct, entry.id, usage)):
            corrected += 1
            before += entry.cost_nanousd or 0
            after += usage.cost_nanousd
            upstream += usage.upstream_nanousd or 0
        await tools.sleep(POLITE_S)
    return Reconciled(corrected, missing, unanswered, before, after, upstream, tuple(troubles.values()))


async def settled(served: RunResult, routes: Sequence[Route], tools: RunContext, *, within_s: float = RUN_WITHIN_S) -> RunResult:
    """Give a long run its true cost, as far as the gateways tell it in a few seconds; nothing is raised.

    The work is done by then: whatever goes wrong here, and Ctrl-C as well, only ends the asking.
    """
    by_name = {route.gateway: route for route in routes}
    room = asyncio.Semaphore(RUN_AT_ONCE)
    try:
        async with asyncio.timeout(within_s):
            for pause_s in RUN_PAUSES_S:
                left = [entry for entry in tools.ledger.open_of_run(tools.run) if entry.gateway in by_name]
                if not left:
                    break
                await asyncio.gather(*(_settle(entry, by_name, room, tools) for entry in left))
                await tools.sleep(pause_s)
    except (TimeoutError, AudiocliError) as error:
        tools.debug(f"the true cost is not known yet: {error or 'no time left'}")
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
    try:
        costs = tools.ledger.costs_of_run(tools.run)
    except AudiocliError:
        return served
    if not costs:
        return served
    cost_nanousd, source = total(costs)
    # Attempts that failed on the way count as well, as they do in the ledger.
    return served._replace(cost_nanousd=cost_nanousd, cost_source=source)


async def _settle(entry: UnreconciledEntry, routes: dict[str, Route], room: asyncio.Semaphore, tools: RunContext) -> None:
    """Ask about one request; a gateway that fails is taken out of `routes`."""
    async with room:
        route = routes.get(entry.gateway)
        if route is None:
            return
        try:
            usage = await _look_up(entry, route._replace(model=entry.model), tools)
            if usage is not None and usage.cost_nanousd is not None:
                await patiently(partial(tools.ledger.correct, entry.id, usage))
        except AudiocliError as error:
            routes.pop(entry.gateway, None)
            tools.debug(f"{entry.gateway}: {error.message}")


async def _look_up(entry: UnreconciledEntry, route: Route, tools: RunContext) -> Usage | None:
    """Ask about one request. None: its gateway does not know it. Raises: AudiocliError: the gateway cannot be asked."""
    dialect: Gateway = gateways.dialect(route.dialect)
    query = dialect.generation_query(entry.generation_id, route)
    if query is None:
        return None
    async with tools.transport(query.url).open(query) as reply:
        body = await error_body(reply.chunks())
        if 200 <= reply.status < 300:
            return dialect.generation_reply(body)
        if reply.status in (400, 404):
            return None
        error: AttemptError = dialect.failure(reply.status, reply.headers, body)
        raise error
