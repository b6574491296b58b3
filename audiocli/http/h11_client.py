"""HTTP/1.1 transport without proxies, on h11 and asyncio."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import h11

from ..errors import MAY_BE_BILLED, ResponseInterrupted
from ..types.requests import RequestBody
from .stream import Socket
from .transport import (
    describe_error,
    make_connect_timeout_error,
    make_invalid_header_error,
    make_private_address_error,
    make_unreachable_error,
)
from .url import Url, is_private

MAX_HEAD_BYTES = 100 * 1024
MAX_INTERIM_RESPONSES = 100
MAX_BODY_WITH_HEAD_BYTES = 64 * 1024
# Delay before the next address of a host is tried as well (RFC 8305).
HAPPY_EYEBALLS_DELAY_S = 0.25


class H11Client:
    """Pool of connections with one request at a time each. Idle connections are reused."""

    def __init__(
        self, read_timeout_s: float, connect_timeout_s: float, get_ssl_context: Callable[[], ssl.SSLContext]
    ) -> None:
        self._read_timeout_s = read_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._get_ssl_context = get_ssl_context
        self._idle: dict[str, list[_Connection]] = {}

    async def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                await connection.close()
        self._idle.clear()

    @asynccontextmanager
    async def send(
        self, method: str, address: Url, headers: Mapping[str, str], body: RequestBody | None
    ) -> AsyncIterator[_Connection]:
        connection = await self._acquire_connection(address)
        try:
            if address.public_only and is_private(connection.peer_address):
                raise make_private_address_error(address)
            await connection.send(method, address, headers, body)
            yield connection
        finally:
            if connection.prepare_reuse():
                self._idle.setdefault(address.origin, []).append(connection)
            else:
                await connection.close()

    async def _acquire_connection(self, address: Url) -> _Connection:
        """Return an idle connection that is still open, or a new one.

        Raises:
            ConnectionFailed: The connection cannot be made.
        """
        idle = self._idle.get(address.origin, [])
        if idle:
            await asyncio.sleep(0)  # lets the event loop notice that the server has closed a connection
        while idle:
            connection = idle.pop()
            if connection.is_open:
                return connection
            await connection.close()
        context = self._get_ssl_context() if address.scheme == "https" else None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, socket = await asyncio.get_running_loop().create_connection(
                    Socket,
                    address.host,
                    address.port,
                    ssl=context,
                    server_hostname=address.host if context is not None else None,
                    happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY_S,
                )
        except TimeoutError as error:
            raise make_connect_timeout_error(address) from error
        except (OSError, UnicodeError) as error:
            raise make_unreachable_error(address, error) from error
        return _Connection(socket, self._read_timeout_s)


class _Connection:
    """One connection. `send` starts an exchange and `prepare_reuse` ends it."""

    def __init__(self, socket: Socket, read_timeout_s: float) -> None:
        self._socket = socket
        self._read_timeout_s = read_timeout_s
        self._protocol = _create_protocol()
        # Bytes of a body with Content-Length that have not arrived; None if h11 detects the end of the body.
        self._remaining_bytes: int | None = None
        self._has_surplus = False
        self._upload: asyncio.Task[None] | None = None
        self.status = 0
        self.headers: Mapping[str, str] = {}

    @property
    def peer_address(self) -> str:
        """IP address of the server."""
        return self._socket.peer_address

    @property
    def is_open(self) -> bool:
        """Whether the connection can be reused: not closed by the server, and without unread data."""
        return not self._socket.is_closed and not self._socket.has_unread

    async def close(self) -> None:
        if self._upload is not None:
            self._upload.cancel()
            await asyncio.gather(self._upload, return_exceptions=True)
            self._upload = None
        self._socket.close()

    async def send(self, method: str, address: Url, headers: Mapping[str, str], body: RequestBody | None) -> None:
        """Send a request and read the headers of the response. An early response ends the upload.

        Raises:
            ResponseInterrupted: There is no response.
            AccessError: A header contains invalid characters.
            RecordingError: The file in the body cannot be read.
        """
        # State of the previous exchange must not apply to this response.
        self._remaining_bytes, self._has_surplus = None, False
        basic = {"Authorization": address.basic_auth} if address.basic_auth else {}
        try:
            encoded = [(name.encode("ascii"), value.encode("ascii")) for name, value in {**headers, **basic}.items()]
            start = h11.Request(
                method=method, target=address.target, headers=[(b"Host", address.authority.encode("ascii")), *encoded]
            )
        except (h11.LocalProtocolError, UnicodeEncodeError):
            # The message of h11 would show the header.
            raise make_invalid_header_error() from None
        self._upload = asyncio.create_task(self._send_body(self._protocol.send(start) or b"", body, address))
        head = asyncio.create_task(self._read_head(address))
        try:
            await asyncio.wait((self._upload, head), return_when=asyncio.FIRST_COMPLETED)
            if not head.done():
                self._upload.result()
                async with asyncio.timeout(self._read_timeout_s):
                    await head
            response = head.result()
        except TimeoutError as error:
            raise ResponseInterrupted(
                f"no response from {address.host} for {self._read_timeout_s:g} s", hint=MAY_BE_BILLED
            ) from error
        finally:
            head.cancel()
            await asyncio.gather(head, return_exceptions=True)
        if response.status_code >= 300:
            self._upload.cancel()
        self.status = response.status_code
        self.headers = _merge_headers(response)
        self._remaining_bytes = _parse_content_length(self.status, self.headers)
        self._has_surplus = self._remaining_bytes == 0 and bool(self._protocol.trailing_data[0])

    async def body(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives.

        Raises:
            ResponseInterrupted: The read timed out, or the body is truncated.
        """
        try:
            if self._remaining_bytes is not None:
                async for block in self._read_sized_body(self._remaining_bytes):
                    yield block
                return
            while True:
                event = self._protocol.next_event()
                if event is h11.NEED_DATA:
                    async with asyncio.timeout(self._read_timeout_s):
                        self._protocol.receive_data(await self._socket.read())
                elif isinstance(event, h11.Data):
                    yield bytes(event.data)
                else:
                    return
        except TimeoutError as error:
            raise ResponseInterrupted(
                f"the response stopped: no data for {self._read_timeout_s:g} s", hint=MAY_BE_BILLED
            ) from error
        except (OSError, h11.RemoteProtocolError) as error:
            raise ResponseInterrupted(
                f"the response was truncated{describe_error(error)}", hint=MAY_BE_BILLED
            ) from error

    async def _read_sized_body(self, size_bytes: int) -> AsyncIterator[bytes]:
        """Iterate over a body with Content-Length without h11, which would copy it three times (a third more work)."""
        block, _ = self._protocol.trailing_data
        self._remaining_bytes = size_bytes
        while self._remaining_bytes:
            if not block:
                async with asyncio.timeout(self._read_timeout_s):
                    block = await self._socket.read()
                if not block:
                    received_bytes = size_bytes - self._remaining_bytes
                    raise h11.RemoteProtocolError(f"received {received_bytes:,} of {size_bytes:,} bytes")
            if len(block) > self._remaining_bytes:
                # Surplus data must not be read as the next response, so the connection cannot be reused.
                self._has_surplus = True
                block = block[: self._remaining_bytes]
            self._remaining_bytes -= len(block)
            yield block
            block = b""

    def prepare_reuse(self) -> bool:
        """Prepare for another exchange. Return False if the connection cannot be reused."""
        is_sent = self._upload is not None and self._upload.done() and not self._upload.cancelled()
        if not is_sent or not self.is_open:
            return False
        if self._protocol.our_state is not h11.DONE:
            return False
        if self._remaining_bytes == 0 and not self._has_surplus:
            self._protocol = _create_protocol()
        elif self._protocol.their_state is h11.DONE and not self._protocol.trailing_data[0]:
            self._protocol.start_next_cycle()
        else:
            return False
        self._upload = None
        return True

    async def _send_body(self, head: bytes, body: RequestBody | None, address: Url) -> None:
        """Send the request. A broken connection is not an error here, because the response may say why."""
        # A small body is sent together with the headers: a system call takes longer than the copy. The headers of a
        # large body are sent first, because the server may refuse the request.
        is_small = body is not None and body.size_bytes <= MAX_BODY_WITH_HEAD_BYTES
        try:
            pending = head
            if not is_small:
                await self._write(pending, address)
                pending = b""
            for block in body.blocks() if body is not None else ():
                for part in self._protocol.send_with_data_passthrough(h11.Data(data=block)) or ():
                    if is_small:
                        pending += part
                        continue
                    await self._write(pending, address)
                    pending = part
            await self._write(pending, address)
            await self._write(self._protocol.send(h11.EndOfMessage()) or b"", address)
        except OSError:
            return

    async def _write(self, data: bytes, address: Url) -> None:
        if not data:
            return
        try:
            async with asyncio.timeout(self._read_timeout_s):
                await self._socket.write(data)
        except TimeoutError as error:
            raise ResponseInterrupted(f"timed out while sending to {address.host}", hint=MAY_BE_BILLED) from error

    async def _read_head(self, address: Url) -> h11.Response:
        """Read the headers of the response. Interim responses are skipped."""
        interim = 0
        try:
            while True:
                event = self._protocol.next_event()
                if event is h11.NEED_DATA:
                    self._protocol.receive_data(await self._socket.read())
                elif isinstance(event, h11.Response):
                    return event
                elif isinstance(event, h11.InformationalResponse) and interim < MAX_INTERIM_RESPONSES:
                    interim += 1
                else:
                    raise h11.RemoteProtocolError("")
        except (OSError, h11.RemoteProtocolError) as error:
            raise ResponseInterrupted(
                f"{address.host} closed the connection without a response{describe_error(error)}", hint=MAY_BE_BILLED
            ) from error


def _create_protocol() -> h11.Connection:
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)


def _parse_content_length(status: int, headers: Mapping[str, str]) -> int | None:
    """Return the Content-Length of a body; None if it has none. h11 has validated the header."""
    if "transfer-encoding" in headers or status in (204, 304):
        return None
    size_bytes = headers.get("content-length")
    return None if size_bytes is None else int(size_bytes)


def _merge_headers(response: h11.Response) -> dict[str, str]:
    """Return headers by name. Values of a repeated header are joined with commas."""
    merged: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        merged[name] = f"{merged[name]}, {value}" if name in merged else value
    return merged
