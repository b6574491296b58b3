"""The interface of transports, and the errors that they share."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ..errors import AccessError, ConnectionFailed, InvalidResponse
from ..types.requests import RequestBody
from .url import Url


class Response(Protocol):
    """A response whose body has not been read yet. Header names are in lower case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def body(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives.

        Raises:
            ResponseInterrupted: The read timed out, or the body is truncated.
        """
        ...


class Transport(Protocol):
    """Sends requests to servers."""

    def send(
        self, method: str, address: Url, headers: Mapping[str, str], body: RequestBody | None
    ) -> AbstractAsyncContextManager[Response]:
        """Send a request and wait for the headers of the response.

        Raises:
            ConnectionFailed: The request was not sent.
            ResponseInterrupted: The request was sent, but there is no response.
            AccessError: A header contains invalid characters.
        """
        ...

    async def close(self) -> None: ...


def make_unreachable_error(address: Url, error: BaseException) -> ConnectionFailed:
    return ConnectionFailed(
        f"cannot connect to {address.authority}{describe_error(error)}", hint="check the base URL and the network"
    )


def make_connect_timeout_error(address: Url) -> ConnectionFailed:
    return ConnectionFailed(f"connecting to {address.host} timed out")


def make_private_address_error(address: Url) -> InvalidResponse:
    """Build the error for a public gateway that returns a URL with a private address."""
    return InvalidResponse(f"refused to open a URL with the private address {address.authority}")


def make_invalid_header_error() -> AccessError:
    """Build the error for a header with invalid characters, such as a key with a line break. Does not show it."""
    return AccessError("a header contains invalid characters", hint="check the API key for stray characters")


def describe_error(error: BaseException) -> str:
    """Return the reason of a network error as `: reason`; empty if it has none."""
    reason = str(error).strip()
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError | socket.gaierror):
        # asyncio wraps the message of the system.
        reason = os.strerror(error.errno)
    return f": {reason}" if reason else ""
