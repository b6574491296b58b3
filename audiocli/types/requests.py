"""Requests of the commands, and the HTTP requests that are sent for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from .audio import Recording
from .json import EMPTY_MAPPING, Json


class VoiceReference(NamedTuple):
    """A recording of the voice to use, with what is said in it if that is known."""

    path: Path
    size_bytes: int
    format: str
    sha256: str
    transcript: str | None = None


class SpeechRequest(NamedTuple):
    """Text to convert to speech.

    Attributes:
        format: The output format. In a request that is sent to a gateway it is the format of the response.
        turns: Turns of several speakers that are sent in place of `text`, which is then their text.
    """

    text: str
    format: str
    speed: float | None = None
    instructions: str | None = None
    options: Mapping[str, Json] = EMPTY_MAPPING
    references: tuple[VoiceReference, ...] = ()
    turns: tuple[Mapping[str, Json], ...] = ()


class Timestamps(StrEnum):
    """Granularity of the requested timestamps."""

    NONE = "none"
    SEGMENT = "segment"
    WORD = "word"


class Speaker(NamedTuple):
    """A known speaker. `clip_url` is a data URL with a few seconds of the voice."""

    name: str
    clip_url: str | None = None


class TranscriptionRequest(NamedTuple):
    """A recording to transcribe.

    Attributes:
        timestamps_required: Whether a transcript without timestamps is useless, as it is for captions.
        keep_raw_response: Whether the response itself is an output (`verbose_json`); requests the most detailed one.
        translate: Translate into English.
        stream: Receive text while the recording is processed, if the gateway supports it.
        keyterms: Names and terms to recognize.
    """

    recording: Recording
    timestamps: Timestamps = Timestamps.NONE
    timestamps_required: bool = False
    keep_raw_response: bool = False
    language: str | None = None
    prompt: str | None = None
    temperature: float | None = None
    options: Mapping[str, Json] = EMPTY_MAPPING
    translate: bool = False
    diarize: bool = False
    speakers: tuple[Speaker, ...] = ()
    stream: bool = False
    keyterms: tuple[str, ...] = ()


class ChatRequest(NamedTuple):
    """A message to a chat model: text, recordings, or both.

    Attributes:
        format: Audio format of a spoken reply; None for a reply in text. In a request that is sent to a gateway it is
            the format of the response.
        stream: Stream the reply, if the gateway offers the choice.
        max_tokens: Maximum length of the reply.
    """

    text: str
    recordings: tuple[Recording, ...] = ()
    system: str | None = None
    format: str | None = None
    stream: bool = True
    max_tokens: int | None = None
    options: Mapping[str, Json] = EMPTY_MAPPING


class RequestBody(NamedTuple):
    """A request body that can be sent again: every call of `blocks()` starts from the first byte.

    Blocks are at most 1 MB each. httpx needs 1.1 GB of memory for a body of 300 MB in one block, and 36 MB for a body
    in blocks (measured 2026-11). `size_bytes` is their exact sum.
    """

    content_type: str
    size_bytes: int
    blocks: Callable[[], Iterator[bytes]]


class HttpRequest(NamedTuple):
    """An HTTP request. The headers hold the API key, so `repr` leaves them out.

    Attributes:
        public_only: Refuse private addresses, including those that a public host name resolves to.
        alternative: Request to send if the gateway does not have the endpoint of this one (404, 405).
        is_optional: The result does not depend on the response, so a replay may lack it.
    """

    method: str
    url: str
    headers: Mapping[str, str] = EMPTY_MAPPING
    body: RequestBody | None = None
    public_only: bool = False
    alternative: HttpRequest | None = None
    is_optional: bool = False

    def __repr__(self) -> str:
        return f"HttpRequest({self.method} {self.url})"
