"""What gateways have to offer."""

from __future__ import annotations

from ..errors import UsageError
from ..gateways.base import Gateway
from ..vocabulary import Route
from .tools import Tools

LIST_BYTES = 32 * 1024 * 1024


async def voices(route: Route, dialect: Gateway, tools: Tools) -> tuple[str, ...]:
    """Name the voices of a model. Raises: UsageError: the gateway does not tell; AttemptError: it cannot be asked."""
    known = dialect.voices(route)
    if known is not None:
        return known
    query = dialect.voices_query(route)
    names = None
    if query is not None:
        async with tools.transport(query.url).open(query) as reply:
            body = b""
            async for chunk in reply.chunks():
                body += chunk
                if len(body) > LIST_BYTES:
                    break
            if reply.status == 404:
                names = None
            elif not 200 <= reply.status < 300:
                raise dialect.failure(reply.status, reply.headers, body)
            else:
                names = dialect.voices_reply(body, route)
    if not names:
        raise UsageError(
            f"{route.gateway} does not list the voices of {route.model}",
            hint="its documentation names them; use -v NAME",
        )
    return names
