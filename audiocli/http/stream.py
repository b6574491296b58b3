"""One TCP or TLS connection as asyncio gives it, with what arrived kept even when the connection breaks.

asyncio's own streams raise the error of a broken connection before the bytes that came ahead of it; a gateway that
refuses an upload and closes would then never be heard.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque

# Reading stops while this much waits to be taken, so that memory stays flat behind a slow disk.
UNREAD_BYTES = 256 * 1024
# A refusal is no longer than this.
LAST_WORDS_BYTES = 1024 * 1024


class Socket(asyncio.Protocol):
    """Made by `loop.create_connection`. One reader and one writer at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._is_paused = False
        self._reading: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._may_write = True
        self._error: Exception | None = None
        self.ended = False

    @property
    def has_unread(self) -> bool:
        return bool(self._unread)

    async def read(self) -> bytes:
        """Give what has come, at least one byte; empty at the end. Raises: OSError: the connection broke."""
        while not self._unread and not self.ended:
            self._reading = asyncio.get_running_loop().create_future()
            try:
                await self._reading
            finally:
                self._reading = None
        if self._unread:
            chunk = self._unread.popleft()
            self._unread_bytes -= len(chunk)
            if self._is_paused and self._unread_bytes < UNREAD_BYTES and self._transport is not None:
                self._is_paused = False
                self._transport.resume_reading()
            return chunk
        if self._error is not None:
            raise self._error
        return b""

    async def write(self, chunk: bytes) -> None:
        """Hand bytes to the system, waiting while it has enough of them. Raises: OSError: the connection is gone."""
        if self._transport is None or self._transport.is_closing():
            raise self._error or ConnectionResetError("the connection is closed")
        self._transport.write(chunk)
        while not self._may_write and not self.ended:
            self._writing = asyncio.get_running_loop().create_future()
            try:
                await self._writing
            finally:
                self._writing = None
        if self._error is not None:
            raise self._error

    @property
    def peer(self) -> str:
        told = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(told[0]) if told else ""

    def close(self) -> None:
        """Hang up at once: what is not sent yet is not sent."""
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
        if self._unread_bytes >= UNREAD_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        _wake(self._reading)

    def eof_received(self) -> bool:
        self.ended = True
        _wake(self._reading)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._read_on()
        self._error = exc
        self.ended = True
        # One that drained its buffer after the other end hung up breaks when it is aborted (Python 3.11).
        self._transport = None
        _wake(self._reading)
        _wake(self._writing)

    def _read_on(self) -> None:
        """Take what the system still holds: a write that fails ends the connection before its last words are read."""
        transport = self._transport
        if transport is None or transport.get_extra_info("sslcontext") is not None:
            return
        try:
            while (chunk := os.read(transport.get_extra_info("socket").fileno(), UNREAD_BYTES)) and (
                self._unread_bytes < LAST_WORDS_BYTES
            ):
                self.data_received(chunk)
        except (OSError, AttributeError):
            return  # there are none, or not on this system

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        _wake(self._writing)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
