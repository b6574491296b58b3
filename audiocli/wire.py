"""HTTP: send, stream, wait, bound. Owns httpx.

Transport only: what a status or a body means is the dialect's business. Every failure leaves here as one of two
errors, because money depends on the difference: `NeverSent` (nothing can have been billed) or `Lost` (it may have).
"""

from __future__ import annotations

import os
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from . import __version__
from .errors import MAY_BE_BILLED, AccessError, AudiocliError, BadAnswer, Lost, NeverSent, UsageError
from .vocabulary import WireRequest

CONNECT_TIMEOUT_S = 5.0
INFLATED_BYTES = 1024 * 1024


class HttpReply:
    """The start of a reply; its body is still on the way."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the body as it comes. Raises: Lost: silence or a cut."""
        encoding = self.headers.get("content-encoding", "identity").strip().lower() or "identity"
        if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise BadAnswer(f"the answer is compressed as {encoding[:20]}, which was not asked for")
        body = self._response.aiter_raw()
        try:
            async for chunk in body if encoding == "identity" else _inflated(body):
                yield chunk
        except httpx.TimeoutException as error:
            raise Lost("the gateway fell silent in the middle of its answer", hint=MAY_BE_BILLED) from error
        except (httpx.TransportError, zlib.error, EOFError) as error:
            raise Lost(f"the answer was cut off{_told(error)}", hint=MAY_BE_BILLED) from error


class Wire:
    """A pool of single-connection clients: one shared `AsyncClient` collapses under load (encode/httpx#3215).

    `silence_s` bounds the time between two bytes, not the whole; connecting has its own short limit.
    """

    def __init__(self, *, silence_s: float, variables: Mapping[str, str], log: Callable[[str], None]) -> None:
        self._timeout = httpx.Timeout(silence_s, connect=min(CONNECT_TIMEOUT_S, silence_s))
        self._variables = variables
        self._log = log
        self._idle: dict[str, list[httpx.AsyncClient]] = {}
        self._context: ssl.SSLContext | None = None

    async def close(self) -> None:
        for clients in self._idle.values():
            for client in clients:
                await client.aclose()
        self._idle.clear()

    @asynccontextmanager
    async def open(self, request: WireRequest) -> AsyncIterator[HttpReply]:
        """Send a request and give its reply as soon as the headers are there.

        Raises: NeverSent, Lost; UsageError: the URL is none.
        """
        try:
            url = httpx.URL(request.url)
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            raise UsageError(f"not a URL: {request.url}") from error
        if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > 65_535:
            raise UsageError(f"not an http or https URL: {request.url}")
        origin = f"{url.scheme}://{url.host}:{url.port}"
        idle = self._idle.setdefault(origin, [])
        client = idle.pop() if idle else self._client(url.scheme)
        try:
            response = await self._send(client, request, url)
        except BaseException:
            await client.aclose()
            raise
        # Without a query and without a name and password, which may hold secrets.
        self._log(f"{request.method} {url.scheme}://{_place(url)}{url.path}: {response.status_code}")
        try:
            yield HttpReply(response)
        finally:
            await response.aclose()
            idle.append(client)

    async def _send(self, client: httpx.AsyncClient, request: WireRequest, url: httpx.URL) -> httpx.Response:
        headers = {
            "User-Agent": f"audiocli/{__version__}",
            "Accept-Encoding": "identity",
            **request.headers,
        }
        content: AsyncIterator[bytes] | None = None
        if request.body is not None:
            headers |= {"Content-Type": request.body.content_type, "Content-Length": str(request.body.size_bytes)}
            content = _pieces(request.body.pieces())
        try:
            built = client.build_request(request.method, url, headers=headers, content=content)
        except (UnicodeEncodeError, ValueError):
            # A key pasted with a curly quote or a line break; the header must not be shown.
            raise AccessError("a header holds characters that cannot be sent: check the key for stray ones") from None
        try:
            return await client.send(built, stream=True)
        except httpx.LocalProtocolError:
            # The library's own words would show the header.
            raise AccessError("the request cannot be sent: check the key for stray characters") from None
        except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NeverSent(f"{url.host} did not accept a connection in time") from error
        except (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
            raise NeverSent(
                f"cannot reach {_place(url)}{_told(error)}", hint="check the address and the network"
            ) from error
        except httpx.TimeoutException as error:
            raise Lost(f"{url.host} fell silent before it answered", hint=MAY_BE_BILLED) from error
        except httpx.TransportError as error:
            raise Lost(
                f"{url.host} closed the connection before it answered{_told(error)}", hint=MAY_BE_BILLED
            ) from error

    def _client(self, scheme: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=self._ssl_context(scheme),
            timeout=self._timeout,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            follow_redirects=False,
        )

    def _ssl_context(self, scheme: str) -> ssl.SSLContext:
        if scheme == "http":
            # An empty context trusts nobody and costs nothing; httpx would load certificates for http:// as well.
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self._context is None:
            self._context = trusted_context(self._variables)
        return self._context


def trusted_context(variables: Mapping[str, str]) -> ssl.SSLContext:
    """Make the one TLS context of the process from SSL_CERT_FILE, SSL_CERT_DIR, the system's folder, or certifi.

    A folder of hashed certificates is read one by one as they are needed: 0.1 ms instead of 20 for the whole bundle.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file, folder = variables.get("SSL_CERT_FILE"), variables.get("SSL_CERT_DIR")
    try:
        if file or folder:
            context.load_verify_locations(cafile=file or None, capath=folder or None)
            return context
    except (OSError, ssl.SSLError) as error:
        raise AudiocliError(
            f"the certificates named in SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {error}"
        ) from error
    system = ssl.get_default_verify_paths().capath
    if system and _has_hashed_certificates(system):
        context.load_verify_locations(capath=system)
    else:
        import certifi

        context.load_verify_locations(cafile=certifi.where())
    return context


def _has_hashed_certificates(folder: str) -> bool:
    try:
        with os.scandir(folder) as listing:
            return any(Path(entry.name).suffix == ".0" for entry in listing)
    except OSError:
        return False


async def _inflated(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Undo gzip or deflate that nobody asked for, in bounded steps: httpx would give 400 MB of it in one piece.

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


async def _pieces(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _place(url: httpx.URL) -> str:
    """Host and port, without a name and password."""
    return f"{url.host}:{url.port}" if url.port else url.host


def _told(error: Exception) -> str:
    """What the network said, without httpx's own words for an empty reason."""
    reason = str(error).strip()
    return f": {reason}" if reason else ""
