"""HTTP/1.1 over one socket, without a library, so that a fault can close the connection at any byte."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

BLOCK_BYTES = 256 * 1024
MAX_LINE_BYTES = 64 * 1024
MAX_HEADERS = 200
MAX_LENGTH_DIGITS = 18


class InvalidRequest(Exception):
    """The request is incomplete or not HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    method: str
    target: str
    version: str
    header_list: tuple[tuple[str, str], ...]

    @property
    def headers(self) -> dict[str, str]:
        """The headers with lower-case names. Repeated headers are joined by a comma."""
        joined: dict[str, str] = {}
        for name, value in self.header_list:
            key = name.lower()
            joined[key] = f"{joined[key]}, {value}" if key in joined else value
        return joined

    @property
    def path(self) -> str:
        """The path. Raises: InvalidRequest: The target is not a URL."""
        try:
            return unquote(urlsplit(self.target).path)
        except ValueError as error:
            raise InvalidRequest(f"not a URL: {self.target[:80]!r}") from error

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def keep_alive(self) -> bool:
        connection = self.headers.get("connection", "").lower()
        return "close" not in connection if self.version == "HTTP/1.1" else "keep-alive" in connection


class Connection:
    """One accepted connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._reader: Any = sock.makefile("rb", buffering=BLOCK_BYTES)
        self._reset = False

    def read_head(self) -> RequestHead | None:
        """Read a request head; return None if the client closed the connection between two requests."""
        request_line = self._read_line(allow_eof=True)
        while request_line == b"\r\n":
            request_line = self._read_line(allow_eof=True)
        if not request_line:
            return None
        parts = request_line.decode("latin-1").split()
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise InvalidRequest(f"not a request line: {request_line[:80]!r}")
        headers: list[tuple[str, str]] = []
        while (line := self._read_line()) != b"\r\n":
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or name != name.strip() or len(headers) >= MAX_HEADERS:
                raise InvalidRequest(f"not a header: {line[:80]!r}")
            headers.append((name, value.strip()))
        return RequestHead(parts[0], parts[1], parts[2], tuple(headers))

    def read_body(self, head: RequestHead) -> Iterator[bytes]:
        """Yield the body in blocks of at most 256 KB, without its framing."""
        headers = head.headers
        if headers.get("expect", "").lower() == "100-continue":
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return self._read_chunked()
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > MAX_LENGTH_DIGITS:
            raise InvalidRequest(f"Content-Length is {length[:80]!r}")
        return self._read_exactly(int(length))

    def _read_chunked(self) -> Iterator[bytes]:
        while True:
            line = self._read_line()
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                size = -1
            if size < 0:
                raise InvalidRequest(f"not a chunk size: {line[:40]!r}")
            if size == 0:
                while self._read_line() != b"\r\n":
                    pass
                return
            yield from self._read_exactly(size)
            if self._read_line() != b"\r\n":
                raise InvalidRequest("a chunk is longer than its size")

    def _read_exactly(self, size: int) -> Iterator[bytes]:
        while size:
            block: bytes = self._reader.read(min(size, BLOCK_BYTES))
            if not block:
                raise InvalidRequest(f"the client disconnected {size} bytes before the end of the body")
            size -= len(block)
            yield block

    def _read_line(self, *, allow_eof: bool = False) -> bytes:
        line: bytes = self._reader.readline(MAX_LINE_BYTES)
        if not line.endswith(b"\n") and not (allow_eof and not line):
            raise InvalidRequest("the client disconnected inside the head, or a line is too long")
        return line

    def send_head(self, status: int, headers: list[tuple[str, str]]) -> None:
        try:
            reason = HTTPStatus(status).phrase
        except ValueError:
            reason = "Unassigned"
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), "", ""]
        self.sock.sendall("\r\n".join(lines).encode("latin-1"))

    def send(self, block: bytes, *, chunked: bool) -> None:
        if block:
            self.sock.sendall(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)

    def send_last_chunk(self) -> None:
        self.sock.sendall(b"0\r\n\r\n")

    def drain(self, seconds: float = 1.0) -> None:
        """Shut down the sending side and read until the client stops sending.

        Without that, an RST could discard the response before the client reads it.
        """
        self.sock.shutdown(socket.SHUT_WR)
        self.sock.settimeout(seconds)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._reader.read1(BLOCK_BYTES):
            pass

    def reset_on_close(self) -> None:
        """End this connection with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._reset = True

    def shut_down(self) -> None:
        """Abort reads and writes of other threads on this connection."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        if not self._reset:
            self.shut_down()
        self._reader.close()
        self.sock.close()
