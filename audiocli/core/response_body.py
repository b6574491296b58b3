"""Open responses, and read their bodies into memory, with a limit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..errors import AudiocliError, InvalidResponse, ResponseInterrupted
from ..gateways.error_responses import redact_secrets
from ..types.requests import HttpRequest
from ..types.routes import Route
from .run_context import Response, RunContext

# An hour of words with times is 2 MB.
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_ERROR_BODY_BYTES = 64 * 1024


@asynccontextmanager
async def open_response(request: HttpRequest, route: Route, ctx: RunContext) -> AsyncIterator[Response]:
    """Send a request that is not an attempt, and yield its response.

    Errors that are raised meanwhile do not show the secrets of the route, which some gateways repeat.

    Raises:
        AudiocliError: The request failed.
    """
    try:
        async with ctx.transport(request.url).open(request) as response:
            yield response
    except AudiocliError as error:
        redact_secrets(error, route.secrets)
        raise


async def read_body(blocks: AsyncIterator[bytes], max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Read a body. Raises: InvalidResponse: it exceeds `max_bytes`."""
    received: list[bytes] = []
    size_bytes = 0
    async for block in blocks:
        received.append(block)
        size_bytes += len(block)
        if size_bytes > max_bytes:
            raise InvalidResponse(f"the response exceeds the limit of {max_bytes // 2**20} MB")
    return b"".join(received)


async def read_error_body(blocks: AsyncIterator[bytes]) -> bytes:
    """Read the body of an error response. A truncated body is accepted, because the status is enough."""
    body = b""
    try:
        async for block in blocks:
            body += block
            if len(body) >= MAX_ERROR_BODY_BYTES:
                break
    except ResponseInterrupted:
        pass
    return body[:MAX_ERROR_BODY_BYTES]


async def chain_blocks(head: bytes, blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the block that was already read, then the rest."""
    yield head
    async for block in blocks:
        yield block
