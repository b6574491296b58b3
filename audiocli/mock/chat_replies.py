"""Chat completions with audio: validation of requests, and responses."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import event_streams
from .audio_codec import AudioCodec, UndecodableAudio, is_declared_as
from .audio_synthesis import MIN_CHARACTERS, expected_pcm
from .field_validation import Field, FieldPolicy, Findings, check_fields, decode_base64_field
from .messages import Headers, ParsedRequest, Response, json_response
from .request_parsing import Blob
from .tasks import ChatDialect, ChatTask, Task

if TYPE_CHECKING:
    from .dialects.base import Dialect

DEFAULT_CHAT_REPLY = "It is ten past nine."
ROLES = ("system", "developer", "user", "assistant")
_DELTA_CHARACTERS = 12
BYTES_PER_CHARACTER = 2880

CHAT_FIELDS: dict[str, Field] = {
    "model": Field(required=True),
    "messages": Field("list", required=True, min_length=1),
    "modalities": Field("list", choices=("text", "audio")),
    "audio": Field("object"),
    "stream": Field("boolean"),
    "stream_options": Field("object"),
    "temperature": Field("number", minimum=0, maximum=2),
    "top_p": Field("number", minimum=0, maximum=1),
    "max_tokens": Field("number", minimum=1, maximum=1e6),
    "max_completion_tokens": Field("number", minimum=1, maximum=1e6),
    "n": Field("number", minimum=1, maximum=8),
    "seed": Field("number", minimum=-1e18, maximum=1e18),
    "stop": Field("any"),
    "user": Field(),
    "store": Field("boolean"),
}
ROUTED_CHAT_FIELDS: dict[str, Field] = {
    **CHAT_FIELDS,
    "provider": Field("object"),
    "models": Field("list"),
    "usage": Field("object"),
    "route": Field(),
}


def validate_chat(
    request: ParsedRequest, dialect: Dialect, chat_dialect: ChatDialect, findings: Findings
) -> Task | None:
    """Validate a chat request; return the task, or None if it was refused."""
    values = request.json
    if request.parse_error or not isinstance(values, dict):
        findings.refuse(400, f"We could not parse the JSON body of your request. {request.parse_error or ''}")
        return None
    check_fields(values, chat_dialect.fields, findings, dialect.field_policy)
    if findings.refusals:
        return None
    name = values["model"]
    model = dialect.models.get(name) or dialect.resolve_unknown_model(name, findings)
    if model is None:
        return None
    if model.kind not in ("chat", "text"):
        findings.refuse(404, "This is not a chat model and thus not supported in the v1/chat/completions endpoint.")
        return None
    recordings, characters = _read_messages(values["messages"], request, chat_dialect, dialect.codec, findings)
    stream = values.get("stream") is True
    wants_audio = "audio" in values.get("modalities", ["text"])
    if model.kind == "text" and (recordings or wants_audio):
        findings.refuse(
            404, f"No endpoints found for {model.id} that support {'output' if wants_audio else 'input'} audio"
        )
    audio = values.get("audio")
    if wants_audio and not isinstance(audio, dict):
        findings.refuse(400, "audio is required with modalities [text, audio]", "audio")
    if not wants_audio and audio is not None:
        findings.refuse(400, "audio is set, but modalities has no audio", "audio")
    chat = ChatTask(chat_dialect, wants_audio, recordings=recordings, characters=characters)
    if wants_audio and isinstance(audio, dict):
        chat = _check_audio(audio, chat, chat_dialect, findings, stream=stream)
    if "stream_options" in values and not stream:
        findings.refuse(400, "stream_options is only allowed when stream is set", "stream_options")
    stream_options = values.get("stream_options") or {}
    chat = replace(
        chat, send_usage=chat_dialect.always_send_usage or not stream or stream_options.get("include_usage") is True
    )
    if wants_audio and not findings.refusals and chat.audio_format not in (*dialect.codec.formats, "pcm16"):
        findings.refuse(400, f"this mock gateway has no encoder for {chat.audio_format}", "audio.format")
    if findings.refusals:
        return None
    duration_s = sum(seconds for _, _, seconds in recordings)
    return Task("chat", model, stream=stream, duration_s=duration_s, chat=chat)


def _check_audio(
    audio: dict[str, Any], chat: ChatTask, chat_dialect: ChatDialect, findings: Findings, *, stream: bool
) -> ChatTask:
    table = {
        "voice": Field(required=True, min_length=1),
        "format": Field(required=True, choices=("wav", "aac", "mp3", "flac", "opus", "pcm16")),
    }
    check_fields(audio, table, findings, FieldPolicy())
    if chat_dialect.audio_requires_stream and not stream:
        findings.refuse(400, "Audio output requires stream: true", "stream")
    if stream and audio.get("format") != "pcm16":
        message = f"audio.format does not support {audio.get('format')!r} when stream=true. Supported values: 'pcm16'"
        findings.refuse(400, message, "audio.format", "unsupported_value")
    return replace(chat, audio_format=str(audio.get("format")), voice=str(audio.get("voice")))


def _read_messages(
    messages: list[Any], request: ParsedRequest, chat_dialect: ChatDialect, codec: AudioCodec, findings: Findings
) -> tuple[tuple[tuple[str, str, float], ...], int]:
    recordings: list[tuple[str, str, float]] = []
    characters = 0
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES or set(message) - {"role", "content"}:
            findings.refuse(400, f"Invalid message: {json.dumps(message, default=str)[:100]}", "messages")
            continue
        content = message.get("content")
        if isinstance(content, str):
            characters += len(content)
            continue
        for part in content if isinstance(content, list) and content else [None]:
            if not isinstance(part, dict):
                part = {}
            kind = part.get("type")
            if kind == "text" and isinstance(part.get("text"), str) and part["text"]:
                characters += len(part["text"])
            elif kind == "input_audio" and message["role"] == "user" and isinstance(part.get("input_audio"), dict):
                recording = _read_recording(part["input_audio"], request, chat_dialect, codec, findings)
                recordings += [recording] if recording else []
            else:
                findings.refuse(400, f"Invalid content part of type {kind!r}", "messages")
    return tuple(recordings), characters


def _read_recording(
    part: dict[str, Any], request: ParsedRequest, chat_dialect: ChatDialect, codec: AudioCodec, findings: Findings
) -> tuple[str, str, float] | None:
    claimed, data = part.get("format"), part.get("data")
    if set(part) != {"data", "format"} or not isinstance(claimed, str) or not isinstance(data, str | Blob):
        findings.refuse(400, "input_audio takes exactly data and format", "messages")
        return None
    if claimed not in chat_dialect.audio_formats:
        message = f"Invalid value: '{claimed}'. Supported values are: {', '.join(chat_dialect.audio_formats)}."
        findings.refuse(400, message, "messages.content.input_audio.format", "invalid_value")
        return None
    audio = decode_base64_field(data, findings, "input_audio.data")
    if audio is None:
        return None
    if request.audio is None:
        request.audio = audio
    try:
        info = codec.inspect(audio.file, audio.size_bytes, claimed=claimed)
    except UndecodableAudio as error:
        findings.refuse(400, f"The audio file could not be decoded: {error}", "messages", "invalid_value")
        return None
    finally:
        if audio is not request.audio:
            audio.close()
    if not is_declared_as(info.format, claimed):
        findings.warn(f"the recording is declared as {claimed}, but is {info.format}")
    return claimed, info.format or "", round(info.duration_s, 3)


def build_chat_usage(task: Task, cost_nanousd: int) -> dict[str, Any]:
    assert task.chat is not None
    count = task.chat.count_tokens(task.text)
    prompt_tokens, completion_tokens = count["text_in"] + count["audio_in"], count["text_out"] + count["audio_out"]
    usage: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"audio_tokens": count["audio_in"], "cached_tokens": 0},
        "completion_tokens_details": {"audio_tokens": count["audio_out"], "reasoning_tokens": 0},
    }
    if task.chat.dialect.report_cost:
        byok = task.chat.fault.byok
        usage |= {
            "cost": cost_nanousd / 1e9 / (20 if byok else 1),
            "is_byok": byok,
            "cost_details": {"upstream_inference_cost": cost_nanousd / 1e9 if byok else None},
        }
    return usage


def encode_reply_audio(task: Task, codec: AudioCodec) -> bytes:
    """Return the audio of a reply, in the requested format or in the format of the fault."""
    assert task.chat is not None
    requested = {"pcm16": "pcm"}.get(task.chat.audio_format, task.chat.audio_format)
    return codec.expected_audio(task.text, task.chat.fault.audio_format or requested)


def build_chat_response(task: Task, id_: str, headers: Headers, codec: AudioCodec, *, cost_nanousd: int) -> Response:
    assert task.chat is not None
    if task.stream:
        return Response(
            200,
            event_streams.CONTENT_TYPE,
            1 << 20,
            lambda: _iter_chat_events(task, id_, codec, cost_nanousd),
            headers,
            chunked=True,
        )
    message: dict[str, Any] = {"role": "assistant", "content": task.text, "refusal": None}
    if task.chat.wants_audio and not task.chat.fault.text_only:
        data = base64.b64encode(encode_reply_audio(task, codec)).decode()
        message |= {
            "content": None,
            "audio": {"id": "audio_1", "expires_at": 1_760_003_600, "data": data, "transcript": task.text},
        }
    return json_response(
        200,
        {
            "id": id_,
            "object": "chat.completion",
            "created": 1_760_000_000,
            "model": task.model.id,
            "choices": [
                {"index": 0, "message": message, "logprobs": None, "finish_reason": task.chat.fault.finish_reason}
            ],
            "usage": build_chat_usage(task, cost_nanousd),
        },
        headers,
    )


def _iter_chat_events(task: Task, id_: str, codec: AudioCodec, cost_nanousd: int) -> Iterator[bytes]:
    assert task.chat is not None
    chat, fault = task.chat, task.chat.fault
    envelope = {"id": id_, "object": "chat.completion.chunk", "created": 1_760_000_000, "model": task.model.id}

    def encode_chunk(delta: dict[str, Any], finish_reason: str | None = None, **fields: Any) -> bytes:
        return event_streams.encode_event(
            {**envelope, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **fields}
        )

    if chat.dialect.send_comments:
        yield b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n"
    yield encode_chunk({"role": "assistant", "content": None if chat.wants_audio else ""})
    if chat.wants_audio and not fault.text_only:
        yield from (encode_chunk({"audio": delta}) for delta in _iter_audio_deltas(task, codec))
    else:
        yield from (encode_chunk({"content": delta}) for delta in event_streams.split_words(task.text))
    if fault.truncate:
        return
    usage = {"usage": build_chat_usage(task, cost_nanousd)} if chat.send_usage and not fault.omit_usage else {}
    if chat.dialect.always_send_usage:
        yield encode_chunk({}, fault.finish_reason, **usage)
    else:
        yield encode_chunk({}, fault.finish_reason, usage=None)
        if usage:
            yield event_streams.encode_event({**envelope, "choices": [], **usage})
    yield b"data: [DONE]\n\n"


def _iter_audio_deltas(task: Task, codec: AudioCodec) -> Iterator[dict[str, Any]]:
    """Yield deltas with transcript or audio, as gateways do: they are not always in step."""
    assert task.chat is not None
    fault = task.chat.fault
    text = task.text
    if fault.single_audio_delta:
        yield {"id": "audio_1", "transcript": text}
        yield {"data": base64.b64encode(encode_reply_audio(task, codec)).decode()}
        return
    if fault.audio_format is not None or task.chat.audio_format != "pcm16":
        blocks: Iterable[bytes] = [encode_reply_audio(task, codec)]
        transcript_parts = [text]
    else:
        size = _DELTA_CHARACTERS
        transcript_parts = [text[start : start + size] for start in range(0, len(text), size)]
        max_bytes = BYTES_PER_CHARACTER * len(text) if len(text) >= MIN_CHARACTERS else None
        blocks = (expected_pcm(part)[: max_bytes and BYTES_PER_CHARACTER * len(part)] for part in transcript_parts)
    encoded = (
        (base64.b64encode(block).decode() for block in blocks)
        if fault.pad_each_delta
        else _encode_base64_stream(blocks)
    )
    for index, data in enumerate(encoded):
        if index < len(transcript_parts):
            yield (
                {"id": "audio_1", "transcript": transcript_parts[index]}
                if index == 0
                else {"transcript": transcript_parts[index]}
            )
        yield {"data": data}
    yield {"expires_at": 1_760_003_600}


def _encode_base64_stream(blocks: Iterable[bytes]) -> Iterator[str]:
    """Yield parts of one base64 text, split at arbitrary positions. Only the end is padded."""
    pending = b""
    for block in blocks:
        pending += block
        encodable = len(pending) // 3 * 3
        text, pending = base64.b64encode(pending[:encodable]).decode(), pending[encodable:]
        yield text[: len(text) - 1]
        yield text[len(text) - 1 :]
    if pending:
        yield base64.b64encode(pending).decode()
