"""Incremental byte reader for container parsers.

Parsers are generators: they read as if all bytes were present and yield while they wait for more.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Generator
from typing import NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

Parser: TypeAlias = Generator[None, None, T]
"""A generator that yields when it needs more bytes and returns a T."""


TAIL_BYTES = 4096
"""The reader remembers this many bytes of the end of the stream."""

MIN_EXTRA_BYTES = 64
"""Fewer bytes after the announced end are an error in the sizes of the writer (such as the size of a header)."""

MAX_EXCERPT_CHARACTERS = 120


class IntegrityReport(NamedTuple):
    """Result of checking a container.

    Attributes:
        problem: None, "empty" (no audio), "truncated" (certainly ends too early) or "trailing" (other data follows the
            audio).
        duration_s: None if the container does not state it.
        extra_bytes: Bytes after the end of the audio, if the problem is "trailing".
        text: The text at the end of these bytes, if they end with text.
        is_unfinished: Whether the mark is missing that writers put at the end. Servers that stream may omit it.
    """

    problem: str | None = None
    duration_s: float | None = None
    extra_bytes: int = 0
    text: str = ""
    is_unfinished: bool = False

    @property
    def is_cut_off(self) -> bool:
        """Whether a recording ends too early. Unlike a stream of a gateway, a recording has its end mark."""
        return self.problem == "truncated" or self.is_unfinished

    @property
    def description(self) -> str:
        """The problem in words."""
        if self.problem != "trailing":
            return self.problem or ""
        excerpt = f": {self.text[:MAX_EXCERPT_CHARACTERS]}" if self.text else ""
        return f"{self.extra_bytes:,} bytes after the end of the audio{excerpt}"


NO_AUDIO = IntegrityReport("empty")


class ByteReader:
    """Buffer of bytes that were fed and not yet consumed.

    Consumed bytes are freed, so memory does not grow with the stream.
    """

    def __init__(self) -> None:
        self.position = 0
        self.at_eof = False
        self.tail = b""
        """The last `TAIL_BYTES` that were fed."""
        self.skippable_bytes = 0
        """Bytes that the parser skips whatever they are. A caller with a file may `seek` instead of reading them."""
        self._sought_bytes = 0
        self._buffer = bytearray()
        self._offset = 0
        self._is_discarding = False

    def feed(self, block: bytes) -> None:
        self.tail = block[-TAIL_BYTES:] if len(block) >= TAIL_BYTES else (self.tail + block)[-TAIL_BYTES:]
        if self._is_discarding:
            self.position += len(block)
            return
        if self._offset:
            del self._buffer[: self._offset]
            self._offset = 0
        self._buffer += block

    def seek(self, count: int) -> None:
        """Consume at most `skippable_bytes` without their content."""
        self.position += count
        self.tail = b""
        if not self._is_discarding:
            self.skippable_bytes -= count
            self._sought_bytes += count

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
            count, self._sought_bytes = count - self._sought_bytes, 0
            step = min(count, len(self._buffer) - self._offset)
            self._offset += step
            self.position += step
            count -= step
            if not count or self.at_eof:
                self.skippable_bytes = 0
                return count
            self.skippable_bytes = count
            yield

    def get_buffered(self) -> tuple[bytearray, int]:
        """Return the buffer and the offset of its first byte that is not consumed. Valid until the next call."""
        return self._buffer, self._offset

    def consume(self, count: int) -> None:
        """Consume bytes that are in the buffer."""
        self._offset += count
        self.position += count

    def skip_to(
        self, pattern: re.Pattern[bytes], max_match_bytes: int, skipped: bytearray | None = None
    ) -> Parser[bool]:
        """Consume everything before the next match of `pattern`, and return whether there is one.

        A match has at most `max_match_bytes`. The bytes that are consumed are appended to `skipped`.
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
            if skipped is not None:
                skipped += self._buffer[self._offset : self._offset + step]
            self._offset += step
            self.position += step
            if match or self.at_eof:
                return match is not None
            yield


def skip_to_end(reader: ByteReader) -> Parser[int]:
    """Consume everything until the end of the stream, and return the number of bytes."""
    start = reader.position
    reader.discard_all()
    reader.skippable_bytes = sys.maxsize
    while not reader.at_eof:
        yield
    return reader.position - start


NOT_PADDING = re.compile(rb"[^\x00\s]")


def check_end(reader: ByteReader, duration_s: float | None) -> Parser[IntegrityReport]:
    """Judge the bytes from here, where the audio has ended, to the end of the stream.

    Zeros and white space are padding.
    """
    start = reader.position
    if not (yield from reader.skip_to(NOT_PADDING, 1)):
        return IntegrityReport(None, duration_s)
    yield from skip_to_end(reader)
    return build_end_report(reader, start, duration_s)


def build_end_report(reader: ByteReader, audio_end: int, duration_s: float | None) -> IntegrityReport:
    """Report the bytes between the end of the audio and the end of the stream, where the reader is."""
    extra_bytes = reader.position - audio_end
    text = find_trailing_text(reader.tail[-extra_bytes:]) if extra_bytes else ""
    if text or extra_bytes >= MIN_EXTRA_BYTES:
        return IntegrityReport("trailing", duration_s, extra_bytes, text)
    return IntegrityReport(None, duration_s)


# How error objects, event streams and web pages begin.
_MARKUP = re.compile(
    r'\{\s*"|\[\s*\{|(?:^|\n)(?:data|event|error): ?|<(?:!doctype|html|\?xml|head|body|error|pre|h1)\b', re.I
)
_PROSE = re.compile(r"[A-Za-z0-9 .,:;'\"!?()/_%\r\n-]{16,}\Z")
_CONTROL_CHARACTERS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MIN_MARKUP_CHARACTERS, _MIN_PLAIN_CHARACTERS, _MIN_LETTERS = 8, 64, 6


def find_trailing_text(tail: bytes) -> str:
    """Return the text with which a stream ends, or "" if it does not end with text.

    Samples may be printable by chance. White noise ends with 16 characters of prose once in 10^8 streams. A constant
    sample or a square wave can be printable for longer, but has few different letters.
    """
    last_control = max((match.end() for match in _CONTROL_CHARACTERS.finditer(tail)), default=0)
    run = tail[last_control:]
    while True:
        try:
            text = run.decode()
            break
        except UnicodeDecodeError as error:
            run = run[error.end :]
    markup = _MARKUP.search(text)
    if markup is not None and len(text) - markup.start() >= _MIN_MARKUP_CHARACTERS:
        return text[markup.start() :].strip()
    prose = _PROSE.search(text)
    candidate = prose.group() if prose is not None else text if len(text) >= _MIN_PLAIN_CHARACTERS else ""
    has_words = " " in candidate.strip() and len({letter for letter in candidate if letter.isalpha()}) >= _MIN_LETTERS
    return candidate.strip() if has_words else ""
