"""HTTP/1.1 over one socket, written out so that a fault can end it at any byte."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

PIECE_BYTES = 256 * 1024
MAX_LINE_BYTES = 64 * 1024
MAX_HEADERS = 200


class BrokenRequest(Exception):
    """The client left in the middle of a request, or what it sent is not HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Head:
    method: str
    target: str
    version: str
    header_list: tuple[tuple[str, str], ...]

    @property
    def headers(self) -> dict[str, str]:
        """The headers with lower-case names; of several with one name, joined by a comma."""
        joined: dict[str, str] = {}
        for name, value in self.header_list:
            key = name.lower()
            joined[key] = f"{joined[key]}, {value}" if key in joined else value
        return joined

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def keeps_alive(self) -> bool:
        wish = self.headers.get("connection", "").lower()
        return "close" not in wish if self.version == "HTTP/1.1" else "keep-alive" in wish


class Connection:
    """Both directions of one accepted socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._reader: Any = sock.makefile("rb", buffering=PIECE_BYTES)
        self._resets = False

    def read_head(self) -> Head | None:
        """Read up to the empty line; None when the client has closed the connection between two requests."""
        first = self._line(may_end=True)
        while first == b"\r\n":
            first = self._line(may_end=True)
        if not first:
            return None
        words = first.decode("latin-1").split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise BrokenRequest(f"not a request line: {first[:80]!r}")
        headers: list[tuple[str, str]] = []
        while (line := self._line()) != b"\r\n":
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or name != name.strip() or len(headers) >= MAX_HEADERS:
                raise BrokenRequest(f"not a header: {line[:80]!r}")
            headers.append((name, value.strip()))
        return Head(words[0], words[1], words[2], tuple(headers))

    def read_body(self, head: Head) -> Iterator[bytes]:
        """Give the body in pieces of at most 256 KB, its framing taken off."""
        headers = head.headers
        if headers.get("expect", "").lower() == "100-continue":
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return self._chunks()
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            raise BrokenRequest(f"Content-Length is {length!r}")
        return self._exactly(int(length))

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self._line()
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                raise BrokenRequest(f"not a chunk size: {line[:40]!r}") from None
            if size == 0:
                while self._line() != b"\r\n":
                    pass
                return
            yield from self._exactly(size)
            if self._line() != b"\r\n":
                raise BrokenRequest("a chunk is longer than its size")

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece: bytes = self._reader.read(min(size, PIECE_BYTES))
            if not piece:
                raise BrokenRequest(f"the client left {size} bytes before the end of the body")
            size -= len(piece)
            yield piece

    def _line(self, *, may_end: bool = False) -> bytes:
        line: bytes = self._reader.readline(MAX_LINE_BYTES)
        if not line.endswith(b"\n") and not (may_end and not line):
            raise BrokenRequest("the client left inside the head, or a line is too long")
        return line

    def send_head(self, status: int, headers: list[tuple[str, str]]) -> None:
        try:
            reason = HTTPStatus(status).phrase
        except ValueError:
            reason = "Unassigned"
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), "", ""]
        self.sock.sendall("\r\n".join(lines).encode("latin-1"))

    def send(self, piece: bytes, *, chunked: bool) -> None:
        if piece:
            self.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)

    def send_last_chunk(self) -> None:
        self.sock.sendall(b"0\r\n\r\n")

    def linger(self, seconds: float = 1.0) -> None:
        """Say that no more will come, and let the client finish sending: an RST would take the reply from it."""
        self.sock.shutdown(socket.SHUT_WR)
        self.sock.settimeout(seconds)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._reader.read1(PIECE_BYTES):
            pass

    def reset_on_close(self) -> None:
        """Let the end of this connection be an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._resets = True

    def wake(self) -> None:
        """End every read and write on this connection, from another thread."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        if not self._resets:
            self.wake()
        self._reader.close()
        self.sock.close()
