"""HTTP client.

Dialects interpret statuses and bodies. Every network failure is one of two errors, because the ledger depends on the
difference: `ConnectionFailed` (cannot have been billed) or `ResponseInterrupted` (may have been billed).

There are two transports. `h11_client` implements HTTP/1.1 with h11 and asyncio. `httpx_client` supports proxies and is
used if the environment names one. httpx for every request would add 120 ms of imports to each command (httpx, httpcore
and anyio; a bare interpreter starts in 16 ms; Python 3.11, 2026-11).
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from .. import __version__
from ..errors import MAY_BE_BILLED, InvalidResponse, ResponseInterrupted
from ..types.requests import HttpRequest
from .tls import create_ssl_context
from .transport import Response, Transport, describe_error, make_private_address_error
from .url import Url, is_private, parse_url

CONNECT_TIMEOUT_S = 5.0
MAX_INFLATED_BYTES = 1024 * 1024
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


class HttpResponse:
    """A response whose body has not been read yet. Header names are in lower case."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives.

        Raises:
            ResponseInterrupted: The read timed out, or the body is truncated.
            InvalidResponse: Unknown content encoding.
        """
        encoding = self.headers.get("content-encoding", "identity").strip().lower() or "identity"
        if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise InvalidResponse(f"unsupported content encoding {encoding[:20]!r}")
        body = self._response.body()
        if encoding == "identity":
            async for block in body:
                yield block
            return
        try:
            async for block in _inflate(body):
                yield block
        except (zlib.error, EOFError) as error:
            raise ResponseInterrupted(
                f"the response was truncated{describe_error(error)}", hint=MAY_BE_BILLED
            ) from error


class HttpClient:
    """Sends requests concurrently.

    `read_timeout_s` limits the time without data, not the total time. Connecting has a shorter limit of its own.
    """

    def __init__(self, *, read_timeout_s: float, variables: Mapping[str, str], debug: Callable[[str], None]) -> None:
        self._read_timeout_s = read_timeout_s
        self._connect_timeout_s = min(CONNECT_TIMEOUT_S, read_timeout_s)
        self._variables = variables
        self._log = debug
        self._transport: Transport | None = None
        self._ssl_context: ssl.SSLContext | None = None

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.close()

    @asynccontextmanager
    async def open(self, request: HttpRequest) -> AsyncIterator[HttpResponse]:
        """Send a request and return the response as soon as its headers have arrived.

        Raises:
            ConnectionFailed: The request was not sent.
            ResponseInterrupted: The request was sent, but there is no response.
            UsageError: The URL is invalid.
            AccessError: The API key contains characters that a header cannot have.
        """
        url = parse_url(request.url)._replace(public_only=request.public_only)
        if request.public_only and is_private(url.host):
            raise make_private_address_error(url)
        headers = {"User-Agent": f"audiocli/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
        headers |= dict(request.headers)
        if request.body is not None:
            headers |= {"Content-Type": request.body.content_type, "Content-Length": str(request.body.size_bytes)}
        elif request.method != "GET":
            headers["Content-Length"] = "0"
        async with self._get_transport().send(request.method, url, headers, request.body) as response:
            # The query, user name and password may be secrets.
            self._log(f"{request.method} {url.scheme}://{url.authority}{url.path}: {response.status}")
            yield HttpResponse(response)

    def _get_transport(self) -> Transport:
        if self._transport is None:
            names = {name.lower() for name, value in self._variables.items() if value}
            if names.intersection(PROXY_VARIABLES):
                from .httpx_client import HttpxClient

                self._transport = HttpxClient(self._read_timeout_s, self._connect_timeout_s, self._get_ssl_context)
            else:
                from .h11_client import H11Client

                self._transport = H11Client(self._read_timeout_s, self._connect_timeout_s, self._get_ssl_context)
        return self._transport

    def _get_ssl_context(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = create_ssl_context(self._variables)
        return self._ssl_context


async def _inflate(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Decompress gzip or deflate, which some servers send unasked, in blocks of limited size.

    httpx would return up to 400 MB in one block.

    Raises:
        zlib.error: The data is invalid.
        EOFError: The data is truncated.
    """
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    async for block in body:
        compressed = block
        while compressed and not inflater.eof:
            yield inflater.decompress(compressed, MAX_INFLATED_BYTES)
            compressed = inflater.unconsumed_tail
    if not inflater.eof:
        raise EOFError("incomplete compressed data")


__all__ = ["HttpClient", "HttpResponse", "Url"]
