"""HTTP through the proxies that the environment names. Owns httpx."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

import httpx

from ..errors import MAY_BE_BILLED, ResponseInterrupted
from ..types.values import Body
from .transport import told, too_slow, unreachable, unsendable
from .url import Url


class ProxiedExchange:
    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    async def body(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_raw():
                yield chunk
        except httpx.TimeoutException as error:
            raise ResponseInterrupted("the gateway fell silent in the middle of its answer", hint=MAY_BE_BILLED) from error
        except httpx.TransportError as error:
            raise ResponseInterrupted(f"the answer was cut off{told(error)}", hint=MAY_BE_BILLED) from error


class HttpxClient:
    """A pool of single-connection clients: one shared `AsyncClient` collapses under load (encode/httpx#3215)."""

    def __init__(self, silence_s: float, connect_s: float, context: Callable[[], ssl.SSLContext]) -> None:
        self._timeout = httpx.Timeout(silence_s, connect=connect_s)
        self._context = context
        self._idle: dict[str, list[httpx.AsyncClient]] = {}

    async def close(self) -> None:
        for clients in self._idle.values():
            for client in clients:
                await client.aclose()
        self._idle.clear()

    @asynccontextmanager
    async def exchange(
        self, method: str, address: Url, headers: Mapping[str, str], body: Body | None
    ) -> AsyncIterator[ProxiedExchange]:
        idle = self._idle.setdefault(address.origin, [])
        client = idle.pop() if idle else self._client()
        try:
            response = await self._send(client, method, address, headers, body)
        except BaseException:
            await client.aclose()
            raise
        try:
            yield ProxiedExchange(response)
        finally:
            await response.aclose()
            idle.append(client)

    async def _send(
        self, client: httpx.AsyncClient, method: str, address: Url, headers: Mapping[str, str], body: Body | None
    ) -> httpx.Response:
        content = None if body is None else _pieces(body.pieces())
        own = {**headers, **({"Authorization": address.basic} if address.basic else {})}
        try:
            built = client.build_request(method, address.origin + address.target, headers=own, content=content)
        except (UnicodeEncodeError, ValueError):
            raise unsendable() from None
        try:
            return await client.send(built, stream=True)
        except httpx.LocalProtocolError:
            # The library's own words would show the header.
            raise unsendable() from None
        except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise too_slow(address) from error
        except (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
            raise unreachable(address, error) from error
        except httpx.TimeoutException as error:
            raise ResponseInterrupted(f"{address.host} fell silent before it answered", hint=MAY_BE_BILLED) from error
        except httpx.TransportError as error:
            raise ResponseInterrupted(
                f"{address.host} closed the connection before it answered{told(error)}", hint=MAY_BE_BILLED
            ) from error

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=self._context(),
            timeout=self._timeout,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            follow_redirects=False,
        )


async def _pieces(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
