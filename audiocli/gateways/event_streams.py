"""Streams of events: speech as base64, and transcripts as text deltas.

Source: OpenAI's specification 2.3.0 (`speech.audio.*`, `transcript.text.*`). speaches (2026-03) names the usage
`token_usage`. Unknown events are ignored.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping

from ..errors import MAY_BE_BILLED, InvalidResponse, ResponseInterrupted
from ..types.json import Json
from ..types.ledger import Usage
from ..types.transcripts import Transcript
from . import error_responses
from .base import as_count, as_list, as_object, as_text, get_media_type, read_json, remove_bom
from .sse import EventStream

# Types of the last event of a stream.
_END_TYPES = re.compile(r"(?:^|[._-])(?:done|completed?|end|finished)$")


def is_event_stream(headers: Mapping[str, str]) -> bool:
    """Return whether a response is a stream of server-sent events."""
    return get_media_type(headers) == "text/event-stream"


class Base64Stream:
    """Decode base64 that arrives in parts of any length, each padded or not."""

    def __init__(self) -> None:
        self._buffer = ""

    def feed(self, part: str) -> bytes:
        """Decode a part of the text.

        Raises:
            InvalidResponse: The text is not base64.
        """
        text = self._buffer + "".join(part.split())
        end = len(text) // 4 * 4
        self._buffer = text[end:]
        return self._decode(text[:end])

    def finish(self) -> bytes:
        """Decode the remaining characters."""
        text, self._buffer = self._buffer, ""
        return self._decode(text + "=" * (-len(text) % 4))

    def _decode(self, text: str) -> bytes:
        try:
            return binascii.a2b_base64(text.encode("ascii"))
        except (binascii.Error, UnicodeEncodeError) as error:
            raise InvalidResponse("the audio in the stream is not valid base64") from error


class SpeechStream:
    """Parse a stream of speech. `usage` is complete after `finish`.

    Args:
        headers: Headers of the response.
        audio_field: Field with the audio, such as `delta`, at servers whose table names it. The events of such a server
            have any type. Whether the end of its stream is marked is unknown, so a stream without a mark is not an
            error, but `is_complete` is False.
    """

    def __init__(self, headers: Mapping[str, str], audio_field: str | None = None) -> None:
        self._events = EventReader(headers, requires_end=audio_field is None)
        self._audio_field = audio_field
        self._audio = Base64Stream()
        self.usage = Usage()

    @property
    def is_complete(self) -> bool:
        """Whether the stream has marked its end."""
        return self._events.is_done

    def feed(self, block: bytes) -> bytes:
        """Return the audio in a block of the response.

        Raises:
            AttemptError: The stream holds an error or invalid data.
        """
        return b"".join(self._handle_event(event) for event in self._events.feed(block))

    def finish(self) -> bytes:
        """Return the remaining audio.

        Raises:
            ResponseInterrupted: The stream is truncated.
        """
        audio = b"".join(self._handle_event(event) for event in self._events.finish())
        return audio + self._audio.finish()

    def _handle_event(self, event: Mapping[str, Json]) -> bytes:
        kind = event.get("type")
        if kind == "speech.audio.done":
            usage = as_object(event.get("usage")) or as_object(event.get("token_usage"))
            counts = (as_count(usage.get("input_tokens")), as_count(usage.get("output_tokens")))
            # speaches sends zeros instead of counts.
            if any(counts):
                self.usage = Usage(input_tokens=counts[0], output_tokens=counts[1])
            self._events.is_done = True
        if self._audio_field is not None:
            from .server_tables import find_member

            audio = as_text(find_member(dict(event), self._audio_field))
            self._events.is_done = self._events.is_done or bool(_END_TYPES.search(as_text(kind) or ""))
        else:
            audio = as_text(event.get("audio")) if kind == "speech.audio.delta" else None
        return self._audio.feed(audio) if audio else b""


class TranscriptStream:
    """Parse a streamed transcript: text as it arrives, and the transcript at the end."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._events = EventReader(headers)
        self._deltas: list[str] = []
        self._segments: list[Json] = []
        self._done_event: Mapping[str, Json] = {}

    @property
    def text(self) -> str:
        """The text that has arrived so far."""
        return "".join(self._deltas)

    def feed(self, block: bytes) -> list[str]:
        """Return the text in a block of the response.

        Raises:
            AttemptError: The stream holds an error or invalid data.
        """
        return [text for event in self._events.feed(block) if (text := self._handle_event(event))]

    def finish(self) -> tuple[list[str], Transcript]:
        """Return the remaining text and the transcript.

        Raises:
            ResponseInterrupted: The stream is truncated.
        """
        texts = [text for event in self._events.finish() if (text := self._handle_event(event))]
        payload: dict[str, Json] = {**self._done_event}
        if as_text(payload.get("text")) is None:
            payload["text"] = "".join(self._deltas)
        if not as_list(payload.get("segments")):
            payload["segments"] = list(self._segments)
        from . import transcript_responses  # takes 10 ms, and speech does not need it

        return texts, transcript_responses.parse_transcript(payload)

    def _handle_event(self, event: Mapping[str, Json]) -> str | None:
        kind = event.get("type")
        if kind == "transcript.text.done":
            self._done_event = event
            self._events.is_done = True
            return None
        if kind == "transcript.text.segment":
            self._segments.append(dict(event))
            return None
        # Older servers send objects with text and no event type.
        text = as_text(event.get("delta")) if kind == "transcript.text.delta" else None
        if text is None and kind is None:
            text = as_text(event.get("text"))
            self._events.is_done = self._events.is_done or text is not None
        if text and not self._deltas:
            text = remove_bom(text)
        if text:
            self._deltas.append(text)
        return text


class EventReader:
    """Parse the JSON objects of a stream.

    `is_done` is set by `[DONE]`, or by the caller at the last event. With `requires_end`, a stream that ends without it
    is truncated.

    Raises:
        AttemptError: The stream holds an error, or is truncated.
    """

    def __init__(self, headers: Mapping[str, str], *, requires_end: bool = True) -> None:
        self._headers = headers
        self._requires_end = requires_end
        self._stream = EventStream()
        self.is_done = False

    def feed(self, block: bytes) -> Iterator[Mapping[str, Json]]:
        yield from map(self._parse_event, self._stream.feed(block))

    def finish(self) -> Iterator[Mapping[str, Json]]:
        yield from map(self._parse_event, self._stream.finish())
        if self._requires_end and not self.is_done:
            raise ResponseInterrupted("the stream ended before it was complete", hint=MAY_BE_BILLED)

    def _parse_event(self, event: str) -> Mapping[str, Json]:
        if event.strip() == "[DONE]":
            self.is_done = True
            return {}
        payload = read_json(event.encode())
        if not isinstance(payload, dict):
            return {}
        error = error_responses.find_embedded_error(payload, self._headers)
        if error is not None:
            raise error
        if payload.get("type") == "error":
            raise InvalidResponse(f"the stream contains an error: {as_text(payload.get('message')) or 'no message'}")
        return payload
