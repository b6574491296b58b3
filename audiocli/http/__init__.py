"""HTTP: send, stream, wait, bound.

Transport only: what a status or a body means is the dialect's business. Every failure leaves here as one of two
errors, because money depends on the difference: `NeverSent` (nothing can have been billed) or `Lost` (it may have).

Two ways lead out. `direct` speaks HTTP/1.1 through h11 on asyncio's own sockets; `proxied` is httpx, which knows all
about proxies, and is taken where the environment names one. httpx for everything would cost each command 120 ms of
imports (httpx, httpcore and anyio; a bare interpreter takes 16; Python 3.11, 2026-11).
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from .. import __version__
from ..errors import MAY_BE_BILLED, InvalidResponse, ResponseInterrupted
from ..types.values import WireRequest
from .tls import trusted_context
from .transport import Transport, Response, at_home, told
from .url import Url, is_private, parsed

CONNECT_TIMEOUT_S = 5.0
INFLATED_BYTES = 1024 * 1024
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


class HttpReply:
    """The start of a reply; its body is still on the way. Header names are in lower case."""

    def __init__(self, exchange: Response) -> None:
        self._exchange = exchange
        self.status = exchange.status
        self.headers: Mapping[str, str] = exchange.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the body as it comes. Raises: Lost: silence or a cut; BadAnswer: packed in a way nobody asked for."""
        encoding = self.headers.get("content-encoding", "identity").strip().lower() or "identity"
        if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise InvalidResponse(f"the answer is compressed as {encoding[:20]}, which was not asked for")
        body = self._exchange.body()
        if encoding == "identity":
            async for chunk in body:
                yield chunk
            return
        try:
            async for chunk in _inflated(body):
                yield chunk
        except (zlib.error, EOFError) as error:
            raise ResponseInterrupted(f"the answer was cut off{told(error)}", hint=MAY_BE_BILLED) from error


class HttpClient:
    """Sends requests, as many at once as are asked for.

    `silence_s` bounds the time between two bytes, not the whole; connecting has its own short limit.
    """

    def __init__(self, *, silence_s: float, variables: Mapping[str, str], log: Callable[[str], None]) -> None:
        self._silence_s = silence_s
        self._connect_s = min(CONNECT_TIMEOUT_S, silence_s)
        self._variables = variables
        self._log = log
        self._channel: Transport | None = None
        self._context: ssl.SSLContext | None = None

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    @asynccontextmanager
    async def open(self, request: WireRequest) -> AsyncIterator[HttpReply]:
        """Send a request and give its reply as soon as the headers are there.

        Raises: NeverSent, Lost; UsageError: the URL is none; AccessError: the key cannot be sent.
        """
        address = parsed(request.url)._replace(public_only=request.public_only)
        if request.public_only and is_private(address.host):
            raise at_home(address)
        headers = {"User-Agent": f"audiocli/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
        headers |= dict(request.headers)
        if request.body is not None:
            headers |= {"Content-Type": request.body.content_type, "Content-Length": str(request.body.size_bytes)}
        elif request.method != "GET":
            headers["Content-Length"] = "0"
        async with self._way().exchange(request.method, address, headers, request.body) as exchange:
            # Without a query and without a name and password, which may hold secrets.
            self._log(f"{request.method} {address.scheme}://{address.place}{address.path}: {exchange.status}")
            yield HttpReply(exchange)

    def _way(self) -> Transport:
        if self._channel is None:
            names = {name.lower() for name, value in self._variables.items() if value}
            if names.intersection(PROXY_VARIABLES):
                from .httpx_client import HttpxClient

                self._channel = HttpxClient(self._silence_s, self._connect_s, self._ssl_context)
            else:
                from .h11_client import H11Client

                self._channel = H11Client(self._silence_s, self._connect_s, self._ssl_context)
        return self._channel

    def _ssl_context(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = trusted_context(self._variables)
        return self._context


async def _inflated(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Undo gzip or deflate that nobody asked for, in bounded steps: a library would give 400 MB of it in one piece.

    Raises: zlib.error, EOFError: broken, or cut off.
    """
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    async for chunk in body:
        rest = chunk
        while rest and not inflater.eof:
            yield inflater.decompress(rest, INFLATED_BYTES)
            rest = inflater.unconsumed_tail
    if not inflater.eof:
        raise EOFError("compressed, and the end is missing")


__all__ = ["Url", "HttpReply", "HttpClient"]
