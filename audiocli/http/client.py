"""Send HTTP requests with httpx, and turn every failure into one of ours.

Transport only: what a status or a body means is up to the dialects. Money depends on one difference: after
`ConnectionFailed` nothing can have been billed, after `ResponseInterrupted` it may have been. Exception classes do not
tell (a ReadError may be a server that closed the connection at once), so the `trace` extension of each request does:
a request counts as sent once its headers are being written (httpx 0.28.1, httpcore 1.0.9).
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import h11
import httpcore
import httpx

from .. import __version__
from ..errors import (
    MAY_BE_BILLED,
    AccessError,
    AttemptError,
    ConnectionFailed,
    InvalidResponse,
    ResponseInterrupted,
    UsageError,
)
from ..system_limits import find_refused_resource, iter_causes
from ..types.requests import HttpRequest, RequestBody
from .connection import AsyncioBackend, DataBeforeRequest
from .proxies import Proxy, find_proxy
from .tls import CERTIFICATE_VARIABLES, create_ssl_context
from .url import Url, build_cleartext_warning, is_private, parse_url

CONNECT_TIMEOUT_S = 5.0
# A connection that has been idle for longer may be closed by the server just when a request that costs goes out.
KEEPALIVE_EXPIRY_S = 2.0
INFLATE_BLOCK_BYTES = 1024 * 1024
COMPRESSED = ("gzip", "x-gzip", "deflate")

# Any other header of a request may be a key: some gateways have headers of their own for it.
PUBLIC_HEADERS = frozenset({"accept", "range", "user-agent", "x-openrouter-title"})

MULTIPLE_ERRORS = re.compile(r"Multiple exceptions: \[Errno (\d+)\]")

# What httpx 0.28.1 and the libraries below it raise that is not an httpx.HTTPError: a body of the wrong length
# (h11.LocalProtocolError), addresses out of range (ValueError, OSError, ExceptionGroup).
LIBRARY_ERRORS = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    h11.ProtocolError,
    ssl.SSLError,
    OSError,
    ValueError,
    ExceptionGroup,
)
# What the system raises when it refuses memory or a thread, for example for the resolver.
RESOURCE_ERRORS = (MemoryError, RuntimeError, ImportError)


class HttpResponse:
    """The status and headers of a response; its body is still to be read. Header names are in lower case."""

    def __init__(self, response: httpx.Response, host: str) -> None:
        self._response = response
        self._host = host
        self.status = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """Yield the body, decompressed, in the blocks in which it arrives.

        Encodings that we do not know are passed on unchanged, as httpx does: servers send `none`, `utf-8` and
        `aws-chunked` with plain bodies.

        Raises:
            ResponseInterrupted: No data for the read timeout, or the body ended early.
        """
        codings = [coding.strip() for coding in self.headers.get("content-encoding", "").lower().split(",")]
        body = self._read()
        for coding in reversed(codings):
            if coding in COMPRESSED:
                body = _inflate(body)
        async for block in body:
            yield block

    async def _read(self) -> AsyncIterator[bytes]:
        try:
            async for block in self._response.aiter_raw():
                yield block
        except httpx.TimeoutException as error:
            raise ResponseInterrupted(
                f"no data from {self._host} in the middle of a response", hint=MAY_BE_BILLED
            ) from error
        except LIBRARY_ERRORS as error:
            raise ResponseInterrupted(
                f"the response from {self._host} was cut off{describe_reason(error)}", hint=MAY_BE_BILLED
            ) from error


class HttpClient:
    """Sends requests, each over a connection that no other request uses at the same time.

    A shared `httpx.AsyncClient` collapses at 64 requests in flight (encode/httpx#3215), so each slot has a transport
    of its own with one connection. Transports are reused; the TLS context is shared.

    Args:
        read_timeout_s: Seconds without data, not the time of the whole response. Connecting has its own limit.
        variables: The environment: proxies and certificates.
        debug: Receives a line for each response, without secrets.
        warning: Receives a warning, once for each server, before a key is sent to it without encryption.
    """

    def __init__(
        self,
        *,
        read_timeout_s: float,
        variables: Mapping[str, str],
        debug: Callable[[str], None],
        warning: Callable[[str], None] | None = None,
    ) -> None:
        self._read_timeout_s = read_timeout_s
        self._connect_timeout_s = min(CONNECT_TIMEOUT_S, read_timeout_s)
        self._variables = variables
        self._debug = debug
        self._warning = warning
        self._ssl_context: ssl.SSLContext | None = None
        self._idle: dict[tuple[str, bool], list[_Transport]] = {}
        self._warnings: set[str] = set()

    async def close(self) -> None:
        """Close the idle connections."""
        for transports in self._idle.values():
            for transport in transports:
                await transport.aclose()
        self._idle.clear()

    @asynccontextmanager
    async def open(self, request: HttpRequest) -> AsyncIterator[HttpResponse]:
        """Send a request and yield its response once the headers have arrived.

        Raises:
            ConnectionFailed: The request was not sent.
            ResponseInterrupted: It was sent, and no complete response came.
            InvalidResponse: `public_only`, and the host has a private address.
            UsageError: The URL or the proxy of the environment is not valid.
            AccessError: The key has characters that cannot be sent.
        """
        url = parse_url(request.url)
        if request.public_only and is_private(url.host):
            raise build_private_address_error(url)
        proxy = find_proxy(url, self._variables)
        has_secret = any(name.lower() not in PUBLIC_HEADERS for name in request.headers)
        secret = "API key" if has_secret else "password"
        if (url.basic_auth or has_secret) and (text := build_cleartext_warning(url, secret)):
            self._warn(text)
        idle = self._idle.setdefault((url.origin, request.public_only), [])
        transport = idle.pop() if idle else self._build_transport(url, proxy)
        is_reusable = False
        try:
            response = await self._send(transport, url, request)
            try:
                # Without the query and without user name and password, which may be secrets.
                self._debug(f"{request.method} {url.origin}{url.path}: {response.status_code}")
                yield HttpResponse(response, url.host)
            finally:
                try:
                    await response.aclose()
                except LIBRARY_ERRORS:
                    pass  # the connection is closed below
            is_reusable = transport.is_reusable()
        finally:
            if is_reusable:
                idle.append(transport)
            else:
                try:
                    await transport.aclose()
                except (ImportError, *LIBRARY_ERRORS):
                    pass  # the error of the request is the one to report

    def _warn(self, text: str) -> None:
        if self._warning is not None and text not in self._warnings:
            self._warnings.add(text)
            self._warning(text)

    async def _send(self, transport: _Transport, url: Url, request: HttpRequest) -> httpx.Response:
        """Send a request and return the head of its response. Raises: as `open`."""
        trace = _Trace(is_public_only=request.public_only)
        built = self._build_request(url, request, trace)
        try:
            return await transport.handle_async_request(built)
        except httpx.LocalProtocolError as error:
            if trace.has_sent_headers:
                raise _build_interrupted(url, error) from error
            raise build_header_error() from None  # the library's message would show the key
        except AttemptError:
            raise
        except LIBRARY_ERRORS as error:
            if isinstance(error.__cause__, DataBeforeRequest):
                raise ConnectionFailed(f"{url.authority} sent data before the request") from error
            if trace.is_sent and not isinstance(error, httpx.ProxyError):
                raise _build_interrupted(url, error) from error
            raise self._build_unsent(url, error) from error
        except RESOURCE_ERRORS as error:
            if find_refused_resource(error) is None:
                raise
            raise (_build_interrupted if trace.is_sent else self._build_unsent)(url, error) from error

    def _build_request(self, url: Url, request: HttpRequest, trace: _Trace) -> httpx.Request:
        headers = {
            "Host": url.authority,
            "User-Agent": f"audiocli/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        headers |= dict(request.headers)
        if url.basic_auth is not None:
            headers["Authorization"] = url.basic_auth
        if request.body is not None:
            headers |= {"Content-Type": request.body.content_type, "Content-Length": str(request.body.size_bytes)}
        elif request.method != "GET":
            headers["Content-Length"] = "0"
        timeout = {"connect": self._connect_timeout_s, "pool": self._connect_timeout_s}
        timeout |= {"read": self._read_timeout_s, "write": self._read_timeout_s}
        try:
            return httpx.Request(
                request.method,
                httpx.URL(url.origin + url.target),
                headers=[(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()],
                stream=_BodyStream(request.body),
                extensions={"timeout": timeout, "trace": trace},
            )
        except UnicodeEncodeError:
            raise build_header_error() from None
        except (httpx.InvalidURL, ValueError) as error:
            raise UsageError(f"not a valid URL: {url.origin}") from error

    def _build_transport(self, url: Url, proxy: Proxy | None) -> _Transport:
        """Build a transport without connecting. Raises: ConnectionFailed, UsageError."""
        needs_tls = url.scheme == "https" or (proxy is not None and proxy.url.startswith("https:"))
        try:
            if needs_tls and self._ssl_context is None:
                self._ssl_context = create_ssl_context(self._variables)
            return _Transport(self._ssl_context, proxy.url if proxy is not None else None)
        except RESOURCE_ERRORS as error:
            if find_refused_resource(error) is None:
                raise
            raise self._build_unsent(url, error) from error
        except (httpx.InvalidURL, ValueError):
            if proxy is None:
                raise
            # Neither the value nor the words of the library, which quote it: it may hold a password.
            raise UsageError(f"{proxy.variable} is not the URL of a proxy", hint=f"check {proxy.variable}") from None

    def _build_unsent(self, url: Url, error: BaseException) -> ConnectionFailed:
        """Return the error for a request that was not sent. It names the setting that is involved."""
        proxy = find_proxy(url, self._variables)
        if proxy is not None and isinstance(error, httpx.ProxyError):
            return ConnectionFailed(
                f"the proxy refused the connection to {url.authority}: {error}", hint=f"check {proxy.variable}"
            )
        over = f" over the proxy in {proxy.variable}" if proxy is not None else ""
        if isinstance(error, httpx.TimeoutException):
            return ConnectionFailed(
                f"{url.authority}{over} did not accept a connection in time",
                hint=None if proxy is None else f"check {proxy.variable}",
            )
        refused = find_refused_resource(error)
        if refused is not None:
            return ConnectionFailed(f"cannot connect to {url.authority}{over}: {refused.message}", hint=refused.hint)
        hint = "check the address and the network"
        if proxy is not None:
            hint = f"check {proxy.variable} and the network"
        if is_certificate_error(error):
            names = [name for name in CERTIFICATE_VARIABLES if self._variables.get(name)]
            hint = f"check {' and '.join(names)}" if names else "set SSL_CERT_FILE to the certificates of your network"
        return ConnectionFailed(f"cannot connect to {url.authority}{over}{describe_reason(error)}", hint=hint)


class _BodyStream(httpx.AsyncByteStream):
    """A request body that is generated while it is sent."""

    def __init__(self, body: RequestBody | None) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for block in self._body.blocks() if self._body is not None else ():
            yield block


class _Trace:
    """The `trace` extension of one request: was it sent, and to what kind of address?"""

    def __init__(self, *, is_public_only: bool) -> None:
        self._is_public_only = is_public_only
        self.is_sent = False
        self.has_sent_headers = False

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith("send_request_headers.started"):
            # A CONNECT to a proxy is not the request.
            self.is_sent = self.is_sent or info["request"].method != b"CONNECT"
        elif event.endswith("send_request_headers.complete"):
            self.has_sent_headers = self.is_sent
        elif event == "connection.connect_tcp.complete" and self._is_public_only:
            peer = info["return_value"].get_extra_info("server_addr")
            if peer and is_private(str(peer[0])):
                await info["return_value"].aclose()
                raise InvalidResponse(f"a link leads to the private address {peer[0]}; it is not followed")


class _Transport(httpx.AsyncHTTPTransport):
    """One connection, through a proxy where there is one."""

    def __init__(self, ssl_context: ssl.SSLContext | None, proxy: str | None) -> None:
        # The constructor of the base class would load certifi; `_pool` is all that its methods use.
        options: dict[str, Any] = {
            "ssl_context": ssl_context,
            "max_connections": 1,
            "max_keepalive_connections": 1,
            "keepalive_expiry": KEEPALIVE_EXPIRY_S,
            "http1": True,
            "http2": False,
            "network_backend": AsyncioBackend(),
        }
        if proxy is None:
            self._pool = httpcore.AsyncConnectionPool(**options)
            return
        address = httpx.Proxy(proxy)
        common = {"proxy_url": str(address.url), "proxy_auth": address.raw_auth, **options}
        if address.url.scheme.startswith("socks"):
            self._pool = httpcore.AsyncSOCKSProxy(**common)
        else:
            self._pool = httpcore.AsyncHTTPProxy(
                **common, proxy_ssl_context=ssl_context if address.url.scheme == "https" else None
            )

    def is_reusable(self) -> bool:
        """Return whether the connection may carry another request.

        A response that was longer than it declared leaves bytes in the parser, which the next request would read as
        its own response. httpcore looks at the socket only, so this looks into its connection; an unknown version of
        httpcore, where the parser is not found, is never reused.
        """
        for connection in self._pool.connections:
            while not hasattr(connection, "_h11_state"):
                connection = getattr(connection, "_connection", None)  # type: ignore[assignment]
                if connection is None:
                    return False
            if not connection.is_idle() or connection._h11_state.trailing_data[0]:
                return False
        return True


async def _inflate(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Decompress gzip, zlib or raw deflate in bounded steps: a small block can hold 400 MB.

    Raises:
        ResponseInterrupted: The data is damaged, or its end is missing.
    """
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    is_first = True
    try:
        async for block in body:
            data = block
            while data and not inflater.eof:
                try:
                    inflated = inflater.decompress(data, INFLATE_BLOCK_BYTES)
                except zlib.error:
                    if not is_first:
                        raise
                    # "deflate" without the header of zlib, which some servers send.
                    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
                    inflated = inflater.decompress(data, INFLATE_BLOCK_BYTES)
                is_first = False
                data = inflater.unconsumed_tail
                yield inflated
    except zlib.error as error:
        raise ResponseInterrupted(f"the compressed response is damaged: {error}", hint=MAY_BE_BILLED) from error
    if not inflater.eof:
        raise ResponseInterrupted("the compressed response was cut off", hint=MAY_BE_BILLED)


# --- errors -----------------------------------------------------------------------------------------------------------


def build_private_address_error(url: Url) -> InvalidResponse:
    """Return the error for a link of a gateway that leads into a private network."""
    return InvalidResponse(f"a link leads to the private address {url.authority}; it is not followed")


def build_header_error() -> AccessError:
    """Return the error for a key with a curly quote or a line break. The header is not shown."""
    return AccessError("a header has characters that cannot be sent", hint="check the API key for stray characters")


def is_certificate_error(error: BaseException) -> bool:
    """Return whether a certificate of the server is not trusted."""
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in iter_causes(error))


def describe_reason(error: BaseException) -> str:
    """Return `: reason` in the words of the system; empty where only the library's own words are known."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ExceptionGroup):
            cause = cause.exceptions[0]
            continue
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f": certificate verify failed ({cause.verify_message})"
        if isinstance(cause, ssl.SSLError):
            return f": TLS error ({cause.reason or 'handshake failed'})"
        if isinstance(cause, UnicodeError):
            return ": the host name is not valid"
        if isinstance(cause, socket.gaierror):
            return f": {cause.strerror}"
        # asyncio puts the errors of several addresses of a host into one message.
        match = MULTIPLE_ERRORS.match(str(cause)) if isinstance(cause, OSError) else None
        if isinstance(cause, OSError) and (number := cause.errno or (match and int(match[1]))):
            return f": {os.strerror(number)}"
        cause = cause.__cause__ or cause.__context__
    return ""


def _build_interrupted(url: Url, error: BaseException) -> ResponseInterrupted:
    if isinstance(error, httpx.WriteTimeout):
        return ResponseInterrupted(f"{url.authority} stopped reading the request", hint=MAY_BE_BILLED)
    if isinstance(error, httpx.TimeoutException):
        return ResponseInterrupted(f"no response from {url.authority}", hint=MAY_BE_BILLED)
    return ResponseInterrupted(
        f"{url.authority} closed the connection without a response{describe_reason(error)}", hint=MAY_BE_BILLED
    )
