"""What both ways out have in common: the shape of an exchange, and the words of the network."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ..errors import AccessError, InvalidResponse, ConnectionFailed
from ..types.values import Body
from .url import Url


class Response(Protocol):
    """A request that was sent and the head of its reply. Header names are in lower case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def body(self) -> AsyncIterator[bytes]:
        """Give the bytes as they come. Raises: Lost."""
        ...


class Transport(Protocol):
    """A way to servers."""

    def exchange(
        self, method: str, address: Url, headers: Mapping[str, str], body: Body | None
    ) -> AbstractAsyncContextManager[Response]:
        """Send and wait for the head of the reply. Raises: NeverSent, Lost, AccessError."""
        ...

    async def close(self) -> None: ...


def unreachable(address: Url, error: BaseException) -> ConnectionFailed:
    return ConnectionFailed(f"cannot reach {address.place}{told(error)}", hint="check the address and the network")


def too_slow(address: Url) -> ConnectionFailed:
    return ConnectionFailed(f"{address.host} did not accept a connection in time")


def at_home(address: Url) -> InvalidResponse:
    """A link of a public gateway that leads into somebody's own network."""
    return InvalidResponse(f"a link leads to the private address {address.place}: it is not followed")


def unsendable() -> AccessError:
    """A key pasted with a curly quote or a line break; the header must not be shown."""
    return AccessError("a header holds characters that cannot be sent: check the key for stray ones")


def told(error: BaseException) -> str:
    """What the network said, as `: words`; nothing for an empty reason."""
    reason = str(error).strip()
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError | socket.gaierror):
        # asyncio wraps the words of the system in its own.
        reason = os.strerror(error.errno)
    return f": {reason}" if reason else ""
