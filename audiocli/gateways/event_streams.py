"""Work that comes as events: speech in pieces of base64, transcripts word by word.

Source: OpenAI's specification 2.3.0 (`speech.audio.*`, `transcript.text.*`); speaches (2026-03) names the usage
`token_usage`. What is not known is passed over.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Mapping

from ..errors import MAY_BE_BILLED, InvalidResponse, ResponseInterrupted
from ..types.values import Json, Transcript, Usage
from . import error_responses
from .base import as_count, as_list, as_object, as_text, media_type, read_json
from .sse import EventStream


def is_stream(headers: Mapping[str, str]) -> bool:
    return media_type(headers) == "text/event-stream"


class Base64Stream:
    """Decode base64 that comes in pieces, cut anywhere, each with padding of its own or none."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, piece: str) -> bytes:
        """Raises: BadAnswer: this is not base64."""
        text = self._rest + "".join(piece.split())
        whole = len(text) // 4 * 4
        self._rest = text[whole:]
        return self._decoded(text[:whole])

    def finish(self) -> bytes:
        rest, self._rest = self._rest, ""
        return self._decoded(rest + "=" * (-len(rest) % 4))

    def _decoded(self, text: str) -> bytes:
        try:
            return binascii.a2b_base64(text.encode("ascii"))
        except (binascii.Error, UnicodeEncodeError) as error:
            raise InvalidResponse("the stream holds audio that is not base64") from error


class SpeechStream:
    """Turn events into audio. `usage` is known at the end."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._events = _Events(headers)
        self._audio = Base64Stream()
        self.usage = Usage()

    def feed(self, chunk: bytes) -> bytes:
        """Raises: AttemptError: the gateway tells of an error, or sends nonsense."""
        return b"".join(self._take(event) for event in self._events.feed(chunk))

    def finish(self) -> bytes:
        """Raises: Lost: the end is missing."""
        last = b"".join(self._take(event) for event in self._events.finish())
        return last + self._audio.finish()

    def _take(self, event: Mapping[str, Json]) -> bytes:
        kind = event.get("type")
        if kind == "speech.audio.done":
            told = as_object(event.get("usage")) or as_object(event.get("token_usage"))
            counts = (as_count(told.get("input_tokens")), as_count(told.get("output_tokens")))
            # speaches sends zeros, which mean nothing.
            if any(counts):
                self.usage = Usage(input_tokens=counts[0], output_tokens=counts[1])
            self._events.is_done = True
        audio = as_text(event.get("audio")) if kind == "speech.audio.delta" else None
        return self._audio.feed(audio) if audio else b""


class TranscriptStream:
    """Turn events into text as it comes, and into a transcript at the end."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._events = _Events(headers)
        self._deltas: list[str] = []
        self._segments: list[Json] = []
        self._last: Mapping[str, Json] = {}

    def feed(self, chunk: bytes) -> list[str]:
        """Raises: AttemptError: the gateway tells of an error, or sends nonsense."""
        return [text for event in self._events.feed(chunk) if (text := self._take(event))]

    def finish(self) -> tuple[list[str], Transcript]:
        """Give the text that came last and the whole. Raises: Lost: the end is missing."""
        late = [text for event in self._events.finish() if (text := self._take(event))]
        reply: dict[str, Json] = {**self._last}
        if as_text(reply.get("text")) is None:
            reply["text"] = "".join(self._deltas)
        if not as_list(reply.get("segments")):
            reply["segments"] = list(self._segments)
        from . import transcript_responses  # 10 ms that speech can do without

        return late, transcript_responses.from_object(reply)

    def _take(self, event: Mapping[str, Json]) -> str | None:
        kind = event.get("type")
        if kind == "transcript.text.done":
            self._last = event
            self._events.is_done = True
            return None
        if kind == "transcript.text.segment":
            self._segments.append(dict(event))
            return None
        # Servers that are older than these names send bare pieces of text.
        text = as_text(event.get("delta")) if kind == "transcript.text.delta" else None
        if text is None and kind is None:
            text = as_text(event.get("text"))
            self._events.is_done = self._events.is_done or text is not None
        if text:
            self._deltas.append(text)
        return text


class _Events:
    """The objects of a stream, errors among them raised."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._stream = EventStream()
        self.is_done = False

    def feed(self, chunk: bytes) -> Iterator[Mapping[str, Json]]:
        yield from map(self._object, self._stream.feed(chunk))

    def finish(self) -> Iterator[Mapping[str, Json]]:
        yield from map(self._object, self._stream.finish())
        if not self.is_done:
            raise ResponseInterrupted("the stream broke off before its end", hint=MAY_BE_BILLED)

    def _object(self, event: str) -> Mapping[str, Json]:
        if event.strip() == "[DONE]":
            self.is_done = True
            return {}
        reply = read_json(event.encode())
        if not isinstance(reply, dict):
            return {}
        error = error_responses.embedded_failure(reply, self._headers)
        if error is not None:
            raise error
        if reply.get("type") == "error":
            raise InvalidResponse(f"an error in the stream: {as_text(reply.get('message')) or 'no message'}")
        return reply
