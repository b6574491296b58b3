"""Incremental byte reader for container parsers.

Parsers are generators: they read as if all bytes were present and yield while they wait for more.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

Parser: TypeAlias = Generator[None, None, T]
"""A generator that yields when it needs more bytes and returns a T."""


class IntegrityReport(NamedTuple):
    """Result of checking a container.

    `problem` is None, "empty" (no audio) or "truncated" (certainly ends too early). `duration_s` is None if the
    container does not state it.
    """

    problem: str | None = None
    duration_s: float | None = None


NO_AUDIO = IntegrityReport("empty")


class ByteReader:
    """Buffer of bytes that were fed and not yet consumed.

    Consumed bytes are freed, so memory does not grow with the stream.
    """

    def __init__(self) -> None:
        self.position = 0
        self.at_eof = False
        self._buffer = bytearray()
        self._offset = 0
        self._is_discarding = False

    def feed(self, block: bytes) -> None:
        if self._is_discarding:
            self.position += len(block)
            return
        if self._offset:
            del self._buffer[: self._offset]
            self._offset = 0
        self._buffer += block

    def feed_eof(self) -> None:
        self.at_eof = True

    def discard_all(self) -> None:
        """Consume all buffered bytes and all bytes that are fed later."""
        self.position += len(self._buffer) - self._offset
        self._buffer.clear()
        self._offset = 0
        self._is_discarding = True

    def peek(self, count: int) -> Parser[bytes]:
        """Return the next `count` bytes without consuming them, or fewer at the end of the stream."""
        while len(self._buffer) - self._offset < count and not self.at_eof:
            yield
        return bytes(self._buffer[self._offset : self._offset + count])

    def skip(self, count: int) -> Parser[int]:
        """Consume `count` bytes. Return how many of them were missing at the end of the stream."""
        while True:
            step = min(count, len(self._buffer) - self._offset)
            self._offset += step
            self.position += step
            count -= step
            if not count or self.at_eof:
                return count
            yield

    def skip_to(self, pattern: re.Pattern[bytes], max_match_bytes: int) -> Parser[bool]:
        """Consume everything before the next match of `pattern`, and return whether there is one.

        A match has at most `max_match_bytes`.
        """
        while True:
            match = pattern.search(self._buffer, self._offset)
            available = len(self._buffer) - self._offset
            # A match may begin in the last bytes of the buffer.
            step = (
                match.start() - self._offset
                if match
                else available
                if self.at_eof
                else max(available - max_match_bytes + 1, 0)
            )
            self._offset += step
            self.position += step
            if match or self.at_eof:
                return match is not None
            yield


def skip_to_end(reader: ByteReader) -> Parser[int]:
    """Consume everything until the end of the stream, and return the number of bytes."""
    start = reader.position
    reader.discard_all()
    while not reader.at_eof:
        yield
    return reader.position - start
