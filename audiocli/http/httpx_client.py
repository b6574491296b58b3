"""HTTP transport through the proxies of the environment, on httpx."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

import httpx

from ..errors import MAY_BE_BILLED, ResponseInterrupted
from ..types.requests import RequestBody
from .transport import describe_error, make_connect_timeout_error, make_invalid_header_error, make_unreachable_error
from .url import Url


class HttpxResponse:
    """Adapts an httpx response to `Response`."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    async def body(self) -> AsyncIterator[bytes]:
        try:
            async for block in self._response.aiter_raw():
                yield block
        except httpx.TimeoutException as error:
            raise ResponseInterrupted(
                "the response stopped: no data within the read timeout", hint=MAY_BE_BILLED
            ) from error
        except httpx.TransportError as error:
            raise ResponseInterrupted(
                f"the response was truncated{describe_error(error)}", hint=MAY_BE_BILLED
            ) from error


class HttpxClient:
    """Pool of clients with one connection each. A shared `AsyncClient` collapses under load (encode/httpx#3215)."""

    def __init__(
        self, read_timeout_s: float, connect_timeout_s: float, get_ssl_context: Callable[[], ssl.SSLContext]
    ) -> None:
        self._timeout = httpx.Timeout(read_timeout_s, connect=connect_timeout_s)
        self._get_ssl_context = get_ssl_context
        self._idle: dict[str, list[httpx.AsyncClient]] = {}

    async def close(self) -> None:
        for clients in self._idle.values():
            for client in clients:
                await client.aclose()
        self._idle.clear()

    @asynccontextmanager
    async def send(
        self, method: str, address: Url, headers: Mapping[str, str], body: RequestBody | None
    ) -> AsyncIterator[HttpxResponse]:
        idle = self._idle.setdefault(address.origin, [])
        client = idle.pop() if idle else self._create_client()
        try:
            response = await self._send(client, method, address, headers, body)
        except BaseException:
            await client.aclose()
            raise
        try:
            yield HttpxResponse(response)
        finally:
            await response.aclose()
            idle.append(client)

    async def _send(
        self, client: httpx.AsyncClient, method: str, address: Url, headers: Mapping[str, str], body: RequestBody | None
    ) -> httpx.Response:
        content = None if body is None else _iter_blocks(body.blocks())
        all_headers = {**headers, **({"Authorization": address.basic_auth} if address.basic_auth else {})}
        try:
            request = client.build_request(
                method, address.origin + address.target, headers=all_headers, content=content
            )
        except (UnicodeEncodeError, ValueError):
            raise make_invalid_header_error() from None
        try:
            return await client.send(request, stream=True)
        except httpx.LocalProtocolError:
            # The message of httpx would show the header.
            raise make_invalid_header_error() from None
        except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise make_connect_timeout_error(address) from error
        except (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
            raise make_unreachable_error(address, error) from error
        except httpx.TimeoutException as error:
            raise ResponseInterrupted(
                f"no response from {address.host} within the read timeout", hint=MAY_BE_BILLED
            ) from error
        except httpx.TransportError as error:
            raise ResponseInterrupted(
                f"{address.host} closed the connection without a response{describe_error(error)}", hint=MAY_BE_BILLED
            ) from error

    def _create_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=self._get_ssl_context(),
            timeout=self._timeout,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            follow_redirects=False,
        )


async def _iter_blocks(blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block
