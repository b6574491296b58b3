"""Server-sent events, cut in any way: bytes in, the data of whole events out. Source: WHATWG HTML, "EventSource"."""

from __future__ import annotations

import re

from ..errors import InvalidResponse

# One event can be a whole file of audio; what is larger than this has no end.
EVENT_BYTES = 256 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventStream:
    """Give the data of every event as it is complete, comments and other fields left out.

    The same events come out however the bytes are cut, also inside a character or between CR and LF.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._lines: list[bytes] = []
        self._held_bytes = 0
        self._is_first = True

    def feed(self, chunk: bytes) -> list[str]:
        """Raises: BadAnswer: an event without an end."""
        self._buffer += chunk
        events: list[str] = []
        start = 0
        while (end := _LINE_END.search(self._buffer, max(start, self._searched))) is not None:
            if end.group() == b"\r" and end.end() == len(self._buffer):
                break  # the LF of this CR may be on its way
            self._take(bytes(self._buffer[start : end.start()]), events)
            start = end.end()
        del self._buffer[:start]
        self._searched = max(0, len(self._buffer) - 1)
        if len(self._buffer) + self._held_bytes > EVENT_BYTES:
            raise InvalidResponse(f"an event of over {EVENT_BYTES // 2**20} MB and no end")
        return events

    def finish(self) -> list[str]:
        """Give what stood at the end without the blank line behind it."""
        events: list[str] = []
        self._take(bytes(self._buffer).rstrip(b"\r"), events)
        self._take(b"", events)
        self._buffer.clear()
        return events

    def _take(self, line: bytes, events: list[str]) -> None:
        if self._is_first:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._is_first = False
        if not line:
            if self._lines:
                events.append(b"\n".join(self._lines).decode("utf-8", "replace"))
                self._lines.clear()
                self._held_bytes = 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._lines.append(value.removeprefix(b" "))
            self._held_bytes += len(value)
