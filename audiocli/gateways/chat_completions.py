"""Chat completions with sound: what is asked, and what comes back, whole or in pieces. One reader for all gateways.

    {"choices": [{"delta": {"content": …, "audio": {"transcript": …, "data": …}}, "finish_reason": …}]}     in a stream
    {"choices": [{"message": {…the same…}, "finish_reason": …}], "usage": {…}}                              whole

Source: OpenAI's specification 2.3.0, OpenRouter's guide "Audio" and recorded replies (2026-10), ARouter's audio guide.
The usage comes with an empty list of choices at OpenAI and ARouter, with one at OpenRouter; `[DONE]` may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..audio import formats
from ..errors import MAY_BE_BILLED, AudiocliError, InvalidResponse, ResponseInterrupted, UsageError
from ..types.chat import ChatRequest
from ..types.values import Body, Json, Recording, Route, Usage
from . import error_responses
from .base import as_count, as_list, as_nanousd, as_object, as_text, read_json
from .event_streams import Base64Stream
from .request_bodies import json_body_with_files, placeholder
from .sse import EventStream

# What a spoken answer can be asked for in when it comes whole; in a stream it is samples alone.
WHOLE_FORMATS = ("wav", "mp3", "flac", "opus", "aac", "pcm")
STREAMED_FORMATS = ("pcm",)

# Fields that have a flag of their own, or that decide how the reply must be read.
OWNED_FIELDS = frozenset({"model", "messages", "modalities", "audio", "stream", "stream_options", "n"})

# OpenAI's models that are known to have no sound; those that have it say so in their names (2026-10). Of any other
# name nobody knows, and the gateway will tell.
SILENT_FAMILIES = ("gpt-3", "gpt-4", "gpt-5", "chatgpt-", "o1", "o3", "o4", "claude-", "tts-", "whisper-")


class Said(NamedTuple):
    """A part of an answer: text, sound, or both. `is_spoken`: the text is the transcript of the sound."""

    text: str = ""
    audio: bytes = b""
    is_spoken: bool = False


def fields_of(request: ChatRequest, route: Route, *, bound: str) -> dict[str, Json]:
    """Write down what is asked, without the messages. `bound` is how the gateway calls the longest answer."""
    fields: dict[str, Json] = {"model": route.model}
    if request.format is not None:
        wire = "pcm16" if request.format == "pcm" else request.format
        fields["modalities"] = ["text", "audio"]
        fields["audio"] = {"voice": route.voice or "alloy", "format": wire}
    if request.streams:
        fields["stream"] = True
    if request.longest_tokens is not None:
        fields[bound] = request.longest_tokens
    for name, value in request.options.items():
        *outer, last = name.split(".")
        place = fields
        for part in outer:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                inner = place[part] = {}
            place = inner
        place[last] = value
    return fields


def body_of(request: ChatRequest, fields: Mapping[str, Json]) -> Body:
    """Add the messages, with the recordings in them as base64 that is made while it is sent."""
    files = [(placeholder(), one.path, one.size_bytes) for one in request.recordings]
    messages: list[Json] = []
    if request.system:
        messages.append({"role": "system", "content": request.system})
    if not files:
        messages.append({"role": "user", "content": request.text})
    else:
        parts: list[Json] = [{"type": "text", "text": request.text}] if request.text else []
        for (marker, _, _), recording in zip(files, request.recordings, strict=True):
            sound: dict[str, Json] = {"data": marker, "format": wire_format(recording)}
            parts.append({"type": "input_audio", "input_audio": sound})
        messages.append({"role": "user", "content": parts})
    return json_body_with_files({**fields, "messages": messages}, files)


def wire_format(recording: Recording) -> str:
    """Name the format of a recording as gateways do: what is in an .opus file is ogg."""
    row = formats.named(recording.format)
    return row.upload_suffix.removeprefix(".") if row is not None else recording.format


def silent(request: ChatRequest, route: Route) -> AudiocliError | None:
    """Refuse to ask a model for speech, or to listen, that is known to do neither."""
    name = route.model.rpartition("/")[2]
    if "audio" in name or "realtime" in name or not name.startswith(SILENT_FAMILIES):
        return None
    if request.format is not None:
        return cannot_speak(route)
    return cannot_speak(route, "hear") if request.recordings else None


def cannot_speak(route: Route, verb: str = "speak") -> AudiocliError:
    from . import BUILT_IN

    able = [one for one in BUILT_IN if one.chat_model is not None]
    one = next((one for one in able if one.name == route.gateway), able[0])
    return UsageError(f"{route.ref} does not {verb}", hint=f"{one.name}:{one.chat_model} does")


class ChatStream:
    """Turn a stream into what was said. `usage`, `finish` and `id` are known at the end."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._events = EventStream()
        self._audio = Base64Stream()
        self._is_done = False
        self.usage = Usage()
        self.finish: str | None = None
        self.id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[Said]:
        """Raises: AttemptError: the gateway tells of an error, or sends nonsense."""
        for event in self._events.feed(chunk):
            yield from self._take(event)

    def end(self) -> Iterator[Said]:
        """Give what came last. Raises: Lost: the end is missing."""
        for event in self._events.finish():
            yield from self._take(event)
        if not self._is_done and self.finish is None:
            raise ResponseInterrupted("the answer broke off before its end", hint=MAY_BE_BILLED)
        if rest := self._audio.finish():
            yield Said(audio=rest, is_spoken=True)

    def _take(self, event: str) -> Iterator[Said]:
        if event.strip() == "[DONE]":
            self._is_done = True
            return
        reply = read_json(event.encode())
        if not isinstance(reply, dict):
            return
        error = error_responses.embedded_failure(reply, self._headers)
        if error is not None:
            raise error
        if reply.get("type") == "error":
            raise InvalidResponse(f"an error in the stream: {as_text(reply.get('message')) or 'no message'}")
        self.id = as_text(reply.get("id")) or self.id
        if as_object(reply.get("usage")):
            self.usage = usage_of(reply)
        choice = _first_choice(reply)
        self.finish = as_text(choice.get("finish_reason")) or self.finish
        if self.finish == "error":
            raise InvalidResponse("the gateway ended the answer with an error and did not say which")
        said = _said(as_object(choice.get("delta")) or as_object(choice.get("message")), self._audio)
        if said.text or said.audio:
            yield said


class WholeChat(NamedTuple):
    """An answer that came in one piece."""

    said: Said
    usage: Usage
    finish: str | None
    id: str | None


def whole(body: bytes, headers: Mapping[str, str]) -> WholeChat:
    """Read the body of a 200. Raises: AttemptError (there is an error inside), BadAnswer (no answer in it)."""
    request_id = error_responses.request_id(headers)
    if not body.strip():
        raise InvalidResponse("200 with an empty body", request_id=request_id)
    reply = read_json(body)
    error = error_responses.embedded_failure(reply, headers)
    if error is not None:
        raise error
    choice = _first_choice(as_object(reply))
    if not choice:
        what = "an HTML page" if body.lstrip()[:1] == b"<" else "something that is not an answer"
        raise InvalidResponse(f"200 with {what}", request_id=request_id)
    audio = Base64Stream()
    said = _said(as_object(choice.get("message")), audio)
    said = said._replace(audio=said.audio + audio.finish())
    told = as_object(reply)
    return WholeChat(said, usage_of(told), as_text(choice.get("finish_reason")), as_text(told.get("id")))


def usage_of(reply: Mapping[str, Json]) -> Usage:
    """Read tokens, those of sound apart, the cost, and what a provider charged to a key of the user's own."""
    told = as_object(reply.get("usage"))
    details = as_object(told.get("cost_details"))
    is_own_key = told.get("is_byok") is not False
    return Usage(
        cost_nanousd=as_nanousd(told.get("cost")),
        input_tokens=as_count(told.get("prompt_tokens")),
        output_tokens=as_count(told.get("completion_tokens")),
        upstream_nanousd=as_nanousd(details.get("upstream_inference_cost")) if is_own_key else None,
        input_audio_tokens=as_count(as_object(told.get("prompt_tokens_details")).get("audio_tokens")),
        output_audio_tokens=as_count(as_object(told.get("completion_tokens_details")).get("audio_tokens")),
    )


def _first_choice(reply: Mapping[str, Json]) -> dict[str, Json]:
    choices = as_list(reply.get("choices"))
    return as_object(choices[0]) if choices else {}


def _said(message: Mapping[str, Json], audio: Base64Stream) -> Said:
    sound = as_object(message.get("audio"))
    data = as_text(sound.get("data"))
    spoken = as_text(sound.get("transcript"))
    text = spoken or _text(message.get("content")) or as_text(message.get("refusal")) or ""
    return Said(text, audio.feed(data) if data else b"", is_spoken=bool(spoken or data))


def _text(content: Json) -> str:
    """Read a text, or the texts in a list of parts."""
    if isinstance(content, list):
        return "".join(as_text(as_object(part).get("text")) or "" for part in content)
    return as_text(content) or ""
