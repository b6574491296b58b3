"""HTTP/1.1 straight to the server. Owns h11, which knows the protocol; asyncio has the sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import h11

from ..errors import MAY_BE_BILLED, ResponseInterrupted
from ..types.values import Body
from .stream import Socket
from .transport import at_home, told, too_slow, unreachable, unsendable
from .url import Url, is_private

HEAD_BYTES = 100 * 1024
INTERIM_REPLIES = 100
TOGETHER_BYTES = 64 * 1024
# How long one address of a host may keep us waiting before the next is tried as well (RFC 8305).
HAPPY_EYEBALLS_S = 0.25


class H11Client:
    """Connections, each with one request at a time; those that are idle are used again."""

    def __init__(self, silence_s: float, connect_s: float, context: Callable[[], ssl.SSLContext]) -> None:
        self._silence_s = silence_s
        self._connect_s = connect_s
        self._context = context
        self._idle: dict[str, list[_Connection]] = {}

    async def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                await connection.close()
        self._idle.clear()

    @asynccontextmanager
    async def exchange(
        self, method: str, address: Url, headers: Mapping[str, str], body: Body | None
    ) -> AsyncIterator[_Connection]:
        connection = await self._connection(address)
        try:
            if address.public_only and is_private(connection.peer):
                raise at_home(address)
            await connection.ask(method, address, headers, body)
            yield connection
        finally:
            if connection.make_ready():
                self._idle.setdefault(address.origin, []).append(connection)
            else:
                await connection.close()

    async def _connection(self, address: Url) -> _Connection:
        """Take an idle connection that is still open, or make one. Raises: NeverSent."""
        idle = self._idle.get(address.origin, [])
        if idle:
            await asyncio.sleep(0)  # a server that hung up meanwhile is noticed by the loop, not by us
        while idle:
            connection = idle.pop()
            if connection.is_open:
                return connection
            await connection.close()
        context = self._context() if address.scheme == "https" else None
        try:
            async with asyncio.timeout(self._connect_s):
                _, socket = await asyncio.get_running_loop().create_connection(
                    Socket,
                    address.host,
                    address.port,
                    ssl=context,
                    server_hostname=address.host if context is not None else None,
                    happy_eyeballs_delay=HAPPY_EYEBALLS_S,
                )
        except TimeoutError as error:
            raise too_slow(address) from error
        except (OSError, UnicodeError) as error:
            raise unreachable(address, error) from error
        return _Connection(socket, self._silence_s)


class _Connection:
    """One connection, and what is going on over it: after `ask` an exchange, until `make_ready`."""

    def __init__(self, socket: Socket, silence_s: float) -> None:
        self._socket = socket
        self._silence_s = silence_s
        self._protocol = _protocol()
        # Of a body whose length was told, what has not come yet; None: h11 knows when another one ends.
        self._left_bytes: int | None = None
        self._has_surplus = False
        self._upload: asyncio.Task[None] | None = None
        self.status = 0
        self.headers: Mapping[str, str] = {}

    @property
    def peer(self) -> str:
        """The number of the server: what its name was resolved to."""
        return self._socket.peer

    @property
    def is_open(self) -> bool:
        """Whether it can be used again: the server has not hung up, and says nothing that nobody asked for."""
        return not self._socket.ended and not self._socket.has_unread

    async def close(self) -> None:
        if self._upload is not None:
            self._upload.cancel()
            await asyncio.gather(self._upload, return_exceptions=True)
            self._upload = None
        self._socket.close()

    async def ask(self, method: str, address: Url, headers: Mapping[str, str], body: Body | None) -> None:
        """Send a request and read the head of its reply; a reply that comes early ends the upload.

        Raises: Lost, AccessError; what `body` raises when it cannot be read.
        """
        # Nothing of the exchange before may tell anything about this one: its answer could be taken for ours.
        self._left_bytes, self._has_surplus = None, False
        basic = {"Authorization": address.basic} if address.basic else {}
        try:
            every = [(name.encode("ascii"), value.encode("ascii")) for name, value in {**headers, **basic}.items()]
            start = h11.Request(
                method=method, target=address.target, headers=[(b"Host", address.place.encode("ascii")), *every]
            )
        except (h11.LocalProtocolError, UnicodeEncodeError):
            # The library's own words would show the header.
            raise unsendable() from None
        self._upload = asyncio.create_task(self._send(self._protocol.send(start) or b"", body, address))
        answer = asyncio.create_task(self._head(address))
        try:
            await asyncio.wait((self._upload, answer), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                self._upload.result()
                async with asyncio.timeout(self._silence_s):
                    await answer
            response = answer.result()
        except TimeoutError as error:
            raise ResponseInterrupted(f"{address.host} fell silent before it answered", hint=MAY_BE_BILLED) from error
        finally:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
        if response.status_code >= 300:
            self._upload.cancel()
        self.status = response.status_code
        self.headers = _merged(response)
        self._left_bytes = _told_bytes(self.status, self.headers)
        self._has_surplus = self._left_bytes == 0 and bool(self._protocol.trailing_data[0])

    async def body(self) -> AsyncIterator[bytes]:
        """Give the body as it comes. Raises: Lost."""
        try:
            if self._left_bytes is not None:
                async for chunk in self._told_body(self._left_bytes):
                    yield chunk
                return
            while True:
                event = self._protocol.next_event()
                if event is h11.NEED_DATA:
                    async with asyncio.timeout(self._silence_s):
                        self._protocol.receive_data(await self._socket.read())
                elif isinstance(event, h11.Data):
                    yield bytes(event.data)
                else:
                    return
        except TimeoutError as error:
            raise ResponseInterrupted("the gateway fell silent in the middle of its answer", hint=MAY_BE_BILLED) from error
        except (OSError, h11.RemoteProtocolError) as error:
            raise ResponseInterrupted(f"the answer was cut off{told(error)}", hint=MAY_BE_BILLED) from error

    async def _told_body(self, size_bytes: int) -> AsyncIterator[bytes]:
        """Pass on what comes without h11, which would copy it three times: a long body is a third less work."""
        chunk, _ = self._protocol.trailing_data
        self._left_bytes = size_bytes
        while self._left_bytes:
            if not chunk:
                async with asyncio.timeout(self._silence_s):
                    chunk = await self._socket.read()
                if not chunk:
                    came_bytes = size_bytes - self._left_bytes
                    raise h11.RemoteProtocolError(f"{came_bytes:,} of {size_bytes:,} bytes came")
            if len(chunk) > self._left_bytes:
                # Nobody asked for what follows: the connection is of no more use.
                self._has_surplus = True
                chunk = chunk[: self._left_bytes]
            self._left_bytes -= len(chunk)
            yield chunk
            chunk = b""

    def make_ready(self) -> bool:
        """Get ready for another exchange; False: this one did not end well, or the server wants no other."""
        is_sent = self._upload is not None and self._upload.done() and not self._upload.cancelled()
        if not is_sent or not self.is_open:
            return False
        if self._protocol.our_state is not h11.DONE:
            return False
        if self._left_bytes == 0 and not self._has_surplus:
            self._protocol = _protocol()
        elif self._protocol.their_state is h11.DONE and not self._protocol.trailing_data[0]:
            self._protocol.start_next_cycle()
        else:
            return False
        self._upload = None
        return True

    async def _send(self, head: bytes, body: Body | None, address: Url) -> None:
        """Send everything. A connection that breaks meanwhile is no error here: the reply may say why."""
        # A small body goes out with its head: a system call takes longer than the copy. Before a large one the server
        # gets the head by itself, for it may refuse that.
        is_small = body is not None and body.size_bytes <= TOGETHER_BYTES
        try:
            held = head
            if not is_small:
                await self._write(held, address)
                held = b""
            for piece in body.pieces() if body is not None else ():
                for part in self._protocol.send_with_data_passthrough(h11.Data(data=piece)) or ():
                    if is_small:
                        held += part
                        continue
                    await self._write(held, address)
                    held = part
            await self._write(held, address)
            await self._write(self._protocol.send(h11.EndOfMessage()) or b"", address)
        except OSError:
            return

    async def _write(self, chunk: bytes, address: Url) -> None:
        if not chunk:
            return
        try:
            async with asyncio.timeout(self._silence_s):
                await self._socket.write(chunk)
        except TimeoutError as error:
            raise ResponseInterrupted(f"{address.host} fell silent while it was being sent to", hint=MAY_BE_BILLED) from error

    async def _head(self, address: Url) -> h11.Response:
        """Wait for the head of the reply, past interim ones."""
        interim = 0
        try:
            while True:
                event = self._protocol.next_event()
                if event is h11.NEED_DATA:
                    self._protocol.receive_data(await self._socket.read())
                elif isinstance(event, h11.Response):
                    return event
                elif isinstance(event, h11.InformationalResponse) and interim < INTERIM_REPLIES:
                    interim += 1
                else:
                    raise h11.RemoteProtocolError("")
        except (OSError, h11.RemoteProtocolError) as error:
            raise ResponseInterrupted(
                f"{address.host} closed the connection before it answered{told(error)}", hint=MAY_BE_BILLED
            ) from error


def _protocol() -> h11.Connection:
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)


def _told_bytes(status: int, headers: Mapping[str, str]) -> int | None:
    """Tell how long a body is by its head alone; h11 has seen to it that this is a number, and said once."""
    if "transfer-encoding" in headers or status in (204, 304):
        return None
    size_bytes = headers.get("content-length")
    return None if size_bytes is None else int(size_bytes)


def _merged(response: h11.Response) -> dict[str, str]:
    """Headers by name; what is sent several times stands behind commas."""
    merged: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        merged[name] = f"{merged[name]}, {value}" if name in merged else value
    return merged
