"""Ask the gateways what finished requests have really cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .. import gateways
from ..errors import AttemptError, AudiocliError
from ..gateways.base import Gateway
from ..vocabulary import OpenEntry, Route, Usage
from .arrival import error_body
from .tools import Tools

# Between two questions to the same gateway.
POLITE_S = 0.1


class Reconciled(NamedTuple):
    """What became of the entries that were open. `missing` are not known to their gateway, yet or any more."""

    corrected: int
    missing: int
    unanswered: int
    before_nanousd: int
    after_nanousd: int
    troubles: tuple[str, ...]


async def reconcile(entries: Iterable[OpenEntry], routes: Mapping[str, Route], tools: Tools) -> Reconciled:
    """Look up every entry that has a name at its gateway; `routes` are the gateways that can be asked, by name.

    A gateway that fails is not asked again. What was corrected stays so when this is interrupted.
    """
    corrected = missing = unanswered = before = after = 0
    troubles: dict[str, str] = {}
    for entry in entries:
        route = routes.get(entry.gateway)
        if route is None or entry.gateway in troubles:
            unanswered += 1
            continue
        try:
            usage = await _look_up(entry, route._replace(model=entry.model), tools)
        except AudiocliError as error:
            troubles[entry.gateway] = f"{entry.gateway}: {error.message}"
            unanswered += 1
            continue
        if usage is None or usage.cost_nanousd is None:
            missing += 1
        elif tools.ledger.correct(entry.id, usage):
            corrected += 1
            before += entry.cost_nanousd or 0
            after += usage.cost_nanousd
        await tools.sleep(POLITE_S)
    return Reconciled(corrected, missing, unanswered, before, after, tuple(troubles.values()))


async def _look_up(entry: OpenEntry, route: Route, tools: Tools) -> Usage | None:
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
