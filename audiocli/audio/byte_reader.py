"""Read bytes that arrive piecemeal as if they were all there: the ground that the container walkers stand on."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

Parser: TypeAlias = Generator[None, None, T]
"""A computation that stops whenever it needs more bytes than have come, and ends in a T."""


class IntegrityReport(NamedTuple):
    """What a container tells about itself.

    `problem` is None, "empty" (no audio in it) or "truncated" (it certainly ends too early); `duration_s` is None
    where the container does not tell.
    """

    problem: str | None = None
    duration_s: float | None = None


EMPTY = IntegrityReport("empty")


class ByteReader:
    """Holds the bytes that were fed and not yet passed, and no others, so that memory stays flat."""

    def __init__(self) -> None:
        self.passed = 0
        self.ended = False
        self._bytes = bytearray()
        self._at = 0
        self._only_counts = False

    def push(self, chunk: bytes) -> None:
        if self._only_counts:
            self.passed += len(chunk)
            return
        if self._at:
            del self._bytes[: self._at]
            self._at = 0
        self._bytes += chunk

    def end(self) -> None:
        self.ended = True

    def drop_all(self) -> None:
        """Pass all that is here, and all that will come."""
        self.passed += len(self._bytes) - self._at
        self._bytes.clear()
        self._at = 0
        self._only_counts = True

    def peek(self, count: int) -> Parser[bytes]:
        """Return the next bytes without passing them: exactly `count`, or fewer when the stream ends before."""
        while len(self._bytes) - self._at < count and not self.ended:
            yield
        return bytes(self._bytes[self._at : self._at + count])

    def skip(self, count: int) -> Parser[int]:
        """Pass `count` bytes; return how many of them never came."""
        while True:
            here = min(count, len(self._bytes) - self._at)
            self._at += here
            self.passed += here
            count -= here
            if not count or self.ended:
                return count
            yield

    def skip_to(self, mark: re.Pattern[bytes], mark_bytes: int) -> Parser[bool]:
        """Pass everything before the next match, which is at most `mark_bytes` long; False when there is none."""
        while True:
            found = mark.search(self._bytes, self._at)
            here = len(self._bytes) - self._at
            # Without a match, the beginning of one may still stand at the end.
            step = found.start() - self._at if found else here if self.ended else max(here - mark_bytes + 1, 0)
            self._at += step
            self.passed += step
            if found or self.ended:
                return found is not None
            yield


def rest_bytes(tap: ByteReader) -> Parser[int]:
    """Pass everything until the end; return how much that was."""
    before = tap.passed
    tap.drop_all()
    while not tap.ended:
        yield
    return tap.passed - before
