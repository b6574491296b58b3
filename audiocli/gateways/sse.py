"""Parse server-sent events. Source: WHATWG HTML, "EventSource"."""

from __future__ import annotations

import re

from ..errors import InvalidResponse

# One event can hold a whole audio file.
MAX_EVENT_BYTES = 256 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventStream:
    """Incremental parser that returns the data of each event, without comments and other fields.

    The result does not depend on where the bytes are split, also within a character or between CR and LF.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched_bytes = 0
        self._lines: list[bytes] = []
        self._pending_bytes = 0
        self._is_first_line = True

    def feed(self, block: bytes) -> list[str]:
        """Return the data of the events that are complete with this block.

        Raises:
            InvalidResponse: An event is too large.
        """
        self._buffer += block
        events: list[str] = []
        start = 0
        while (line_end := _LINE_END.search(self._buffer, max(start, self._searched_bytes))) is not None:
            if line_end.group() == b"\r" and line_end.end() == len(self._buffer):
                break  # an LF may follow in the next block
            self._handle_line(bytes(self._buffer[start : line_end.start()]), events)
            start = line_end.end()
        del self._buffer[:start]
        self._searched_bytes = max(0, len(self._buffer) - 1)
        if len(self._buffer) + self._pending_bytes > MAX_EVENT_BYTES:
            raise InvalidResponse(f"an event exceeds the limit of {MAX_EVENT_BYTES // 2**20} MB")
        return events

    def finish(self) -> list[str]:
        """Return the data of a last event without a blank line after it."""
        events: list[str] = []
        self._handle_line(bytes(self._buffer).rstrip(b"\r"), events)
        self._handle_line(b"", events)
        self._buffer.clear()
        return events

    def _handle_line(self, line: bytes, events: list[str]) -> None:
        if self._is_first_line:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._is_first_line = False
        if not line:
            if self._lines:
                events.append(b"\n".join(self._lines).decode("utf-8", "replace"))
                self._lines.clear()
                self._pending_bytes = 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._lines.append(value.removeprefix(b" "))
            self._pending_bytes += len(value)
