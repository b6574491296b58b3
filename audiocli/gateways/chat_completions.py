"""Requests and responses of chat completions with audio. One parser for all gateways.

    {"choices": [{"delta": {"content": …, "audio": {"transcript": …, "data": …}}, "finish_reason": …}]}     streamed
    {"choices": [{"message": {…the same…}, "finish_reason": …}], "usage": {…}}                              not streamed

Source: OpenAI's specification 2.3.0, OpenRouter's guide "Audio" and recorded replies (2026-10), ARouter's audio guide.
The event with the usage has no choices at OpenAI and ARouter, and one at OpenRouter. `[DONE]` may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..errors import MAY_BE_BILLED, AudiocliError, InvalidResponse, ResponseInterrupted, UsageError
from ..types.json import Json
from ..types.ledger import Usage
from ..types.requests import ChatRequest, RequestBody
from ..types.routes import Route
from . import error_responses
from .base import (
    as_count,
    as_list,
    as_nanousd,
    as_object,
    as_text,
    build_voice_field,
    quote_invalid_cost,
    read_json,
    remove_bom,
)
from .event_streams import Base64Stream, EventReader
from .request_bodies import build_json_body_with_files, get_upload_name, make_placeholder, nest_options

# Formats of spoken replies. A stream can only have raw samples.
SPEECH_FORMATS = ("wav", "mp3", "flac", "opus", "aac", "pcm")
STREAMED_SPEECH_FORMATS = ("pcm",)

# Fields that have an option of their own, or that change the format of the response.
RESERVED_FIELDS = frozenset({"model", "messages", "modalities", "audio", "stream", "stream_options", "n"})

# Prefixes of models without audio. OpenAI's models with audio have "audio" in their names (2026-10). Other models are
# sent to the gateway, which accepts or refuses them.
TEXT_ONLY_PREFIXES = ("gpt-3", "gpt-4", "gpt-5", "chatgpt-", "o1", "o3", "o4", "claude-", "tts-", "whisper-")


class ChatDelta(NamedTuple):
    """Part of a reply: text, audio, or both. `is_spoken` if the text is the transcript of the audio."""

    text: str = ""
    audio: bytes = b""
    is_spoken: bool = False


def build_fields(request: ChatRequest, route: Route, *, max_tokens_field: str) -> dict[str, Json]:
    """Build the JSON fields of a request, without the messages."""
    fields: dict[str, Json] = {"model": route.model}
    if request.format is not None:
        audio_format = "pcm16" if request.format == "pcm" else request.format
        fields["modalities"] = ["text", "audio"]
        fields["audio"] = {"voice": build_voice_field(route.voice or "alloy", route), "format": audio_format}
    if request.stream:
        fields["stream"] = True
    if request.max_tokens is not None:
        fields[max_tokens_field] = request.max_tokens
    return fields | nest_options(request.options)


def build_body(request: ChatRequest, fields: Mapping[str, Json]) -> RequestBody:
    """Add the messages to the fields. Recordings are encoded as base64 while they are sent."""
    files = [(make_placeholder(), recording.path, recording.size_bytes) for recording in request.recordings]
    messages: list[Json] = []
    if request.system:
        messages.append({"role": "system", "content": request.system})
    if not files:
        messages.append({"role": "user", "content": request.text})
    else:
        parts: list[Json] = [{"type": "text", "text": request.text}] if request.text else []
        for (placeholder, _, _), recording in zip(files, request.recordings, strict=True):
            input_audio: dict[str, Json] = {"data": placeholder, "format": get_upload_name(recording.format)}
            parts.append({"type": "input_audio", "input_audio": input_audio})
        messages.append({"role": "user", "content": parts})
    return build_json_body_with_files({**fields, "messages": messages}, files)


def check_audio_support(request: ChatRequest, route: Route) -> AudiocliError | None:
    """Return an error if the model is known not to support the requested audio input or output."""
    name = route.model.rpartition("/")[2]
    if "audio" in name or "realtime" in name or not name.startswith(TEXT_ONLY_PREFIXES):
        return None
    if request.format is not None:
        return build_audio_support_error(route)
    return build_audio_support_error(route, "audio input") if request.recordings else None


def build_audio_support_error(route: Route, feature: str = "audio output") -> AudiocliError:
    """Build the error for a model that does not support audio input or output."""
    from . import BUILT_IN

    chat_gateways = [gateway for gateway in BUILT_IN if gateway.chat_model is not None]
    gateway = next((gateway for gateway in chat_gateways if gateway.name == route.gateway), chat_gateways[0])
    return UsageError(f"{route.ref} does not support {feature}", hint=f"try {gateway.name}:{gateway.chat_model}")


class ChatStream:
    """Parse a streamed reply. `usage`, `finish_reason` and `id` are complete after `finish`."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        # A reply that states why it ended is complete, also without `[DONE]`.
        self._events = EventReader(headers, requires_end=False)
        self._audio = Base64Stream()
        self._has_text = False
        self.usage = Usage()
        self.finish_reason: str | None = None
        self.id: str | None = None

    def feed(self, block: bytes) -> Iterator[ChatDelta]:
        """Parse a block of the response.

        Raises:
            AttemptError: The stream holds an error or invalid data.
        """
        for event in self._events.feed(block):
            yield from self._handle_event(event)

    def finish(self) -> Iterator[ChatDelta]:
        """Return the remaining parts.

        Raises:
            ResponseInterrupted: The stream is truncated.
        """
        for event in self._events.finish():
            yield from self._handle_event(event)
        if not self._events.is_done and self.finish_reason is None:
            raise ResponseInterrupted("the stream ended before the reply was complete", hint=MAY_BE_BILLED)
        if audio := self._audio.finish():
            yield ChatDelta(audio=audio, is_spoken=True)

    def _handle_event(self, event: Mapping[str, Json]) -> Iterator[ChatDelta]:
        self.id = as_text(event.get("id")) or self.id
        if as_object(event.get("usage")):
            self.usage = parse_usage(event)
        choice = _get_first_choice(event)
        self.finish_reason = as_text(choice.get("finish_reason")) or self.finish_reason
        if self.finish_reason == "error":
            raise InvalidResponse("the gateway ended the reply with an unspecified error")
        delta = _parse_delta(as_object(choice.get("delta")) or as_object(choice.get("message")), self._audio)
        if not self._has_text:
            delta = delta._replace(text=remove_bom(delta.text))
            self._has_text = bool(delta.text)
        if delta.text or delta.audio:
            yield delta


class ChatReply(NamedTuple):
    """A reply that was not streamed."""

    message: ChatDelta
    usage: Usage
    finish_reason: str | None
    id: str | None


def parse_reply(body: bytes, headers: Mapping[str, str]) -> ChatReply:
    """Parse the body of a response with status 200.

    Raises:
        AttemptError: The body holds an error, or no reply.
    """
    request_id = error_responses.parse_request_id(headers)
    if not body.strip():
        raise InvalidResponse("200 with an empty body", request_id=request_id)
    payload = read_json(body)
    error = error_responses.find_embedded_error(payload, headers)
    if error is not None:
        raise error
    payload = as_object(payload)
    choice = _get_first_choice(payload)
    if not choice:
        content = "an HTML page" if body.lstrip()[:1] == b"<" else "a body that is not a chat completion"
        raise InvalidResponse(f"200 with {content}", request_id=request_id)
    audio = Base64Stream()
    message = _parse_delta(as_object(choice.get("message")), audio)
    message = message._replace(text=remove_bom(message.text), audio=message.audio + audio.finish())
    return ChatReply(message, parse_usage(payload), as_text(choice.get("finish_reason")), as_text(payload.get("id")))


def parse_usage(payload: Mapping[str, Json]) -> Usage:
    """Parse tokens, audio tokens, cost, and what a provider charged to the user's own provider key."""
    usage = as_object(payload.get("usage"))
    details = as_object(usage.get("cost_details"))
    is_own_key = usage.get("is_byok") is not False
    return Usage(
        cost_nanousd=as_nanousd(usage.get("cost")),
        input_tokens=as_count(usage.get("prompt_tokens")),
        output_tokens=as_count(usage.get("completion_tokens")),
        upstream_nanousd=as_nanousd(details.get("upstream_inference_cost")) if is_own_key else None,
        input_audio_tokens=as_count(as_object(usage.get("prompt_tokens_details")).get("audio_tokens")),
        output_audio_tokens=as_count(as_object(usage.get("completion_tokens_details")).get("audio_tokens")),
        invalid_cost=quote_invalid_cost(usage.get("cost")),
    )


def _get_first_choice(payload: Mapping[str, Json]) -> dict[str, Json]:
    choices = as_list(payload.get("choices"))
    return as_object(choices[0]) if choices else {}


def _parse_delta(message: Mapping[str, Json], audio: Base64Stream) -> ChatDelta:
    spoken = as_object(message.get("audio"))
    data = as_text(spoken.get("data"))
    transcript = as_text(spoken.get("transcript"))
    text = transcript or _parse_text(message.get("content")) or as_text(message.get("refusal")) or ""
    return ChatDelta(text, audio.feed(data) if data else b"", is_spoken=bool(transcript or data))


def _parse_text(content: Json) -> str:
    """Return the text, or the joined text of a list of parts."""
    if isinstance(content, list):
        return "".join(as_text(as_object(part).get("text")) or "" for part in content)
    return as_text(content) or ""
