"""Audio as base64 in a field of a JSON response, decoded while the response arrives.

The response is not stored: memory use does not grow with its size, and the first audio is written when it arrives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import MAY_BE_BILLED, InvalidResponse, ResponseInterrupted
from ..types.ledger import Usage
from . import error_responses
from .base import read_json
from .event_streams import Base64Stream

# The start of a response is kept for the error that it may be.
MAX_HEAD_BYTES = 64 * 1024
MAX_KEY_BYTES = 1024
# `data:audio/mpeg;base64,`, in front of the audio.
MAX_PREFIX_CHARACTERS = 100

_STRUCTURE = re.compile(rb'["{}\[\],:]')
_STRING_END = re.compile(rb'["\\]')
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_UNFINISHED_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?$")


class JsonAudioStream:
    """Parse a JSON response with audio at a path such as `audio_data`, `data.audio` or `choices.0.audio`."""

    def __init__(self, headers: Mapping[str, str], path: str) -> None:
        self._headers = headers
        self._path = path
        self._head = b""
        self._buffer = b""
        # The names and positions that lead to the value which is read now.
        self._names: list[str | int] = []
        self._key: str | None = None
        self._string: str | None = None  # "key", "audio" or "other"
        self._prefix: str | None = ""
        self._audio = Base64Stream()
        self._is_found = False
        self.usage = Usage()
        self.is_complete = True

    def feed(self, block: bytes) -> bytes:
        """Return the audio in a block of the response.

        Raises:
            InvalidResponse: The field is not base64.
        """
        if len(self._head) < MAX_HEAD_BYTES:
            self._head += block[: MAX_HEAD_BYTES - len(self._head)]
        self._buffer += block
        audio = b""
        while True:
            size = len(self._buffer)
            audio += self._read_audio() if self._string == "audio" else b""
            if self._string in ("key", "other"):
                self._skip_string()
            elif self._string is None:
                self._read_structure()
            if len(self._buffer) == size:
                return audio

    def finish(self) -> bytes:
        """Return the remaining audio.

        Raises:
            AttemptError: The response is an error, has no audio, or is truncated.
        """
        if not self._is_found:
            error = error_responses.find_embedded_error(read_json(self._head), self._headers)
            raise error or InvalidResponse(
                f"200 without audio in the field {self._path!r}",
                request_id=error_responses.parse_request_id(self._headers),
            )
        if self._string == "audio":
            raise ResponseInterrupted("the response ended before it was complete", hint=MAY_BE_BILLED)
        return self._audio.finish()

    def _read_structure(self) -> None:
        """Read one character of the structure between strings, or drop everything else."""
        match = _STRUCTURE.search(self._buffer)
        if match is None:
            self._buffer = b""
            return
        sign, self._buffer = match.group(), self._buffer[match.end() :]
        if sign == b"{":
            self._names.append("")
            self._key = ""
        elif sign == b"[":
            self._names.append(0)
            self._key = None
        elif sign in (b"}", b"]"):
            if self._names:
                self._names.pop()
            self._key = None
        elif sign == b"," and self._names:
            last = self._names[-1]
            if isinstance(last, int):
                self._names[-1] = last + 1
            self._key = None if isinstance(last, int) else ""
        elif sign == b'"':
            self._start_string()

    def _start_string(self) -> None:
        if self._key is not None:
            self._string = "key"
        elif ".".join(map(str, self._names)) == self._path and not self._is_found:
            self._string, self._is_found = "audio", True
        else:
            self._string = "other"

    def _skip_string(self) -> None:
        """Read a string that is not the audio up to its end. Of a key, the start is kept."""
        match = _STRING_END.search(self._buffer)
        end = len(self._buffer) if match is None else match.start()
        if self._key is not None:
            self._key = (self._key + self._buffer[:end].decode("utf-8", "replace"))[:MAX_KEY_BYTES]
        if match is not None and match.group() == b"\\":
            # The escaped character cannot end the string.
            self._buffer = self._buffer[end:] if len(self._buffer) < end + 2 else self._buffer[end + 2 :]
            return
        self._buffer = self._buffer[end + 1 :]
        if match is None:
            return
        if self._key is not None and self._names:
            self._names[-1], self._key = self._key, None
        self._string = None

    def _read_audio(self) -> bytes:
        end = self._buffer.find(b'"')
        is_end = end >= 0
        if not is_end:
            unfinished = _UNFINISHED_ESCAPE.search(self._buffer)
            end = len(self._buffer) if unfinished is None else unfinished.start()
        text = self._buffer[:end].decode("utf-8", "replace")
        self._buffer = self._buffer[end + is_end :]
        if is_end:
            self._string = None
        return self._audio.feed(self._remove_prefix(_ESCAPE.sub(_decode_escape, text), is_end=is_end))

    def _remove_prefix(self, text: str, *, is_end: bool) -> str:
        """Remove the start of a data URL."""
        if self._prefix is None:
            return text
        text = self._prefix + text
        if not is_end and len(text) < MAX_PREFIX_CHARACTERS:
            self._prefix = text
            return ""
        self._prefix = None
        start, comma, remainder = text.partition(",")
        return remainder if comma and start.startswith("data:") else text


def _decode_escape(match: re.Match[str]) -> str:
    """Decode an escape of JSON. Escaped white space is not part of base64."""
    return chr(int(match[1], 16)) if match[1] else "" if match[2] in "nrtbf" else match[2]
