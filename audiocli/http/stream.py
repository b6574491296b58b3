"""A TCP or TLS connection whose received data stays readable after the connection breaks.

asyncio streams raise the error of a broken connection before they return the data received earlier. The response of a
gateway that refuses an upload and closes the connection would be lost.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque

# Reading pauses at this many unread bytes, so that memory does not grow if the reader is slow.
MAX_UNREAD_BYTES = 256 * 1024
# Maximum size of a response that is read after a write has failed.
MAX_FINAL_READ_BYTES = 1024 * 1024


class Socket(asyncio.Protocol):
    """Protocol for `loop.create_connection`. Supports one reader and one writer at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._is_paused = False
        self._reading: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._may_write = True
        self._error: Exception | None = None
        self.is_closed = False

    @property
    def has_unread(self) -> bool:
        return bool(self._unread)

    async def read(self) -> bytes:
        """Return received data, at least one byte; empty at the end.

        Raises:
            OSError: The connection is broken.
        """
        while not self._unread and not self.is_closed:
            self._reading = asyncio.get_running_loop().create_future()
            try:
                await self._reading
            finally:
                self._reading = None
        if self._unread:
            block = self._unread.popleft()
            self._unread_bytes -= len(block)
            if self._is_paused and self._unread_bytes < MAX_UNREAD_BYTES and self._transport is not None:
                self._is_paused = False
                self._transport.resume_reading()
            return block
        if self._error is not None:
            raise self._error
        return b""

    async def write(self, data: bytes) -> None:
        """Write data and wait while the buffer is full.

        Raises:
            OSError: The connection is broken.
        """
        if self._transport is None or self._transport.is_closing():
            raise self._error or ConnectionResetError("the connection is closed")
        self._transport.write(data)
        while not self._may_write and not self.is_closed:
            self._writing = asyncio.get_running_loop().create_future()
            try:
                await self._writing
            finally:
                self._writing = None
        if self._error is not None:
            raise self._error

    @property
    def peer_address(self) -> str:
        address = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(address[0]) if address else ""

    def close(self) -> None:
        """Close the connection immediately and discard unsent data."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # --- called by asyncio -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes >= MAX_UNREAD_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        _wake(self._reading)

    def eof_received(self) -> bool:
        self.is_closed = True
        _wake(self._reading)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._read_remaining()
        self._error = exc
        self.is_closed = True
        # Aborting a transport that has drained its buffer after the peer closed raises an error (Python 3.11).
        self._transport = None
        _wake(self._reading)
        _wake(self._writing)

    def _read_remaining(self) -> None:
        """Read remaining data from the socket, as a failed write closes the connection before all data is read."""
        transport = self._transport
        if transport is None or transport.get_extra_info("sslcontext") is not None:
            return
        try:
            while (block := os.read(transport.get_extra_info("socket").fileno(), MAX_UNREAD_BYTES)) and (
                self._unread_bytes < MAX_FINAL_READ_BYTES
            ):
                self.data_received(block)
        except (OSError, AttributeError):
            return  # no data, or not supported on this system

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        _wake(self._writing)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
