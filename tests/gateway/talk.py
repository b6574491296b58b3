"""Chat completions with sound in them: what the gateways take, and how they answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from . import events
from .checks import Field, Findings, Manner, check_fields
from .faults import Answer
from .intake import Blob
from .sound import SHORTEST_CHARACTERS, Deaf, expected_audio, expected_pcm, listen

if TYPE_CHECKING:
    from .base import Ask, Dialect, Job, Reply
    from .shelf import Model

ANSWER = "It is ten past nine."
ROLES = ("system", "developer", "user", "assistant")
_PIECE_CHARACTERS = 12
CHARACTER_BYTES = 2880
_ALIASES = {"pcm16": "pcm", "mpga": "mp3", "mp4": "m4a", "opus": "ogg"}

FIELDS: dict[str, Field] = {
    "model": Field(required=True),
    "messages": Field("list", required=True, shortest=1),
    "modalities": Field("list", choices=("text", "audio")),
    "audio": Field("object"),
    "stream": Field("boolean"),
    "stream_options": Field("object"),
    "temperature": Field("number", low=0, high=2),
    "top_p": Field("number", low=0, high=1),
    "max_tokens": Field("number", low=1, high=1e6),
    "max_completion_tokens": Field("number", low=1, high=1e6),
    "n": Field("number", low=1, high=8),
    "seed": Field("number", low=-1e18, high=1e18),
    "stop": Field("any"),
    "user": Field(),
    "store": Field("boolean"),
}
ROUTED_FIELDS: dict[str, Field] = {
    **FIELDS,
    "provider": Field("object"),
    "models": Field("list"),
    "usage": Field("object"),
    "route": Field(),
}


@dataclass(frozen=True, slots=True)
class Manners:
    """How one gateway talks. `takes`: the formats of recordings. `must_stream`: a spoken answer only comes in pieces.

    `full_usage`: the chunk with the usage has a choice in it, and comes unasked.
    """

    fields: Mapping[str, Field] = field(default_factory=lambda: FIELDS)
    takes: tuple[str, ...] = ("wav", "mp3")
    must_stream: bool = False
    full_usage: bool = False
    tells_cost: bool = False
    comments: bool = False


@dataclass(frozen=True, slots=True)
class Talk:
    """What a chat asks for. `heard`: (format as claimed, format, seconds) of each recording."""

    manners: Manners
    spoken: bool = False
    audio_format: str = "wav"
    voice: str | None = None
    tells_usage: bool = False
    heard: tuple[tuple[str, str, float], ...] = ()
    characters: int = 0
    answer: Answer = field(default_factory=Answer)


def accept(ask: Ask, dialect: Dialect, findings: Findings) -> tuple[Model, Talk, bool] | None:
    """Hold a chat against the rules of its gateway; give the model, what is asked for, and whether it streams."""
    manners = dialect.talks
    if manners is None:
        findings.refuse(404, f"Invalid URL (POST {ask.path})")
        return None
    values = ask.json
    if ask.malformed or not isinstance(values, dict):
        findings.refuse(400, f"We could not parse the JSON body of your request. {ask.malformed or ''}")
        return None
    check_fields(values, manners.fields, findings, dialect.manner)
    if findings.refusals:
        return None
    name = values["model"]
    model = dialect.models.get(name) or dialect.unknown_model(name, findings)
    if model is None:
        return None
    if model.kind not in ("chat", "text"):
        findings.refuse(404, "This is not a chat model and thus not supported in the v1/chat/completions endpoint.")
        return None
    heard, characters = _read_messages(values["messages"], ask, manners, findings)
    streams = values.get("stream") is True
    spoken = "audio" in values.get("modalities", ["text"])
    if model.kind == "text" and (heard or spoken):
        findings.refuse(404, f"No endpoints found for {model.id} that support {'output' if spoken else 'input'} audio")
    audio = values.get("audio")
    if spoken and not isinstance(audio, dict):
        findings.refuse(400, "audio is required with modalities [text, audio]", "audio")
    if not spoken and audio is not None:
        findings.refuse(400, "audio is set, but modalities has no audio", "audio")
    talk = Talk(manners, spoken, heard=heard, characters=characters)
    if spoken and isinstance(audio, dict):
        talk = _check_audio(audio, talk, manners, findings, streams=streams)
    if "stream_options" in values and not streams:
        findings.refuse(400, "stream_options is only allowed when stream is set", "stream_options")
    asked = values.get("stream_options") or {}
    talk = replace(talk, tells_usage=manners.full_usage or not streams or asked.get("include_usage") is True)
    return None if findings.refusals else (model, talk, streams)


def _check_audio(audio: dict[str, Any], talk: Talk, manners: Manners, findings: Findings, *, streams: bool) -> Talk:
    table = {
        "voice": Field(required=True, shortest=1),
        "format": Field(required=True, choices=("wav", "aac", "mp3", "flac", "opus", "pcm16")),
    }
    check_fields(audio, table, findings, Manner())
    if manners.must_stream and not streams:
        findings.refuse(400, "Audio output requires stream: true", "stream")
    if streams and audio.get("format") != "pcm16":
        words = f"audio.format does not support {audio.get('format')!r} when stream=true. Supported values: 'pcm16'"
        findings.refuse(400, words, "audio.format", "unsupported_value")
    return replace(talk, audio_format=str(audio.get("format")), voice=str(audio.get("voice")))


def _read_messages(
    messages: list[Any], ask: Ask, manners: Manners, findings: Findings
) -> tuple[tuple[tuple[str, str, float], ...], int]:
    heard: list[tuple[str, str, float]] = []
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
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "text" and isinstance(part.get("text"), str) and part["text"]:
                characters += len(part["text"])
            elif kind == "input_audio" and message["role"] == "user" and isinstance(part.get("input_audio"), dict):
                found = _listen(part["input_audio"], ask, manners, findings)
                heard += [found] if found else []
            else:
                findings.refuse(400, f"Invalid content part of type {kind!r}", "messages")
    return tuple(heard), characters


def _listen(part: dict[str, Any], ask: Ask, manners: Manners, findings: Findings) -> tuple[str, str, float] | None:
    from .base import unwrap_base64

    claimed, data = part.get("format"), part.get("data")
    if set(part) != {"data", "format"} or not isinstance(claimed, str) or not isinstance(data, str | Blob):
        findings.refuse(400, "input_audio has data and format, and nothing else", "messages")
        return None
    if claimed not in manners.takes:
        words = f"Invalid value: '{claimed}'. Supported values are: {', '.join(manners.takes)}."
        findings.refuse(400, words, "messages.content.input_audio.format", "invalid_value")
        return None
    audio = unwrap_base64(data, findings, "input_audio.data")
    if audio is None:
        return None
    if ask.audio is None:
        ask.audio = audio
    try:
        found = listen(audio.file, audio.size_bytes, claimed=claimed)
    except Deaf as error:
        findings.refuse(400, f"The audio file could not be decoded: {error}", "messages", "invalid_value")
        return None
    finally:
        if audio is not ask.audio:
            audio.close()
    if _ALIASES.get(claimed, claimed) != found.format:
        findings.remark(f"the recording is said to be {claimed}, but it is {found.format}")
    return claimed, found.format, round(found.duration_s, 3)


def tokens(job: Job) -> dict[str, int]:
    """Count: a token is four characters of text, or a tenth of a second of sound heard, a twentieth spoken."""
    assert job.talk is not None
    spoken_s = 0.06 * max(5, len(job.text)) if job.talk.spoken else 0.0
    return {
        "text_in": job.talk.characters // 4 + 3,
        "audio_in": round(10 * sum(seconds for _, _, seconds in job.talk.heard)),
        "text_out": len(job.text) // 4 + 1,
        "audio_out": round(20 * spoken_s),
    }


def usage(job: Job, cost_nanousd: int) -> dict[str, Any]:
    assert job.talk is not None
    count = tokens(job)
    asked, answered = count["text_in"] + count["audio_in"], count["text_out"] + count["audio_out"]
    told: dict[str, Any] = {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"audio_tokens": count["audio_in"], "cached_tokens": 0},
        "completion_tokens_details": {"audio_tokens": count["audio_out"], "reasoning_tokens": 0},
    }
    if job.talk.manners.tells_cost:
        byok = job.talk.answer.byok
        told |= {
            "cost": cost_nanousd / 1e9 / (20 if byok else 1),
            "is_byok": byok,
            "cost_details": {"upstream_inference_cost": cost_nanousd / 1e9 if byok else None},
        }
    return told


def audio_of(job: Job) -> bytes:
    """Give the sound of an answer, in the format that was asked for or the one that the gateway sends all the same."""
    assert job.talk is not None
    asked = {"pcm16": "pcm"}.get(job.talk.audio_format, job.talk.audio_format)
    return expected_audio(job.text, job.talk.answer.sends or asked)


def reply(job: Job, id_: str, headers: tuple[tuple[str, str], ...], *, cost_nanousd: int) -> Reply:
    from .base import Reply, json_reply

    assert job.talk is not None
    if job.streams:
        return Reply(200, events.CONTENT_TYPE, 1 << 20, lambda: _stream(job, id_, cost_nanousd), headers, chunked=True)
    message: dict[str, Any] = {"role": "assistant", "content": job.text, "refusal": None}
    if job.talk.spoken and not job.talk.answer.mute:
        data = base64.b64encode(audio_of(job)).decode()
        message |= {
            "content": None,
            "audio": {"id": "audio_1", "expires_at": 1_760_003_600, "data": data, "transcript": job.text},
        }
    return json_reply(
        200,
        {
            "id": id_,
            "object": "chat.completion",
            "created": 1_760_000_000,
            "model": job.model.id,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": job.talk.answer.finish}],
            "usage": usage(job, cost_nanousd),
        },
        headers,
    )


def _stream(job: Job, id_: str, cost_nanousd: int) -> Iterator[bytes]:
    assert job.talk is not None
    talk, answer = job.talk, job.talk.answer
    shell = {"id": id_, "object": "chat.completion.chunk", "created": 1_760_000_000, "model": job.model.id}

    def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        return events.event({**shell, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})

    if talk.manners.comments:
        yield b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n"
    yield chunk({"role": "assistant", "content": None if talk.spoken else ""})
    if talk.spoken and not answer.mute:
        yield from (chunk({"audio": delta}) for delta in _spoken(job))
    else:
        yield from (chunk({"content": delta}) for delta in events.words(job.text))
    if answer.unfinished:
        return
    told = {"usage": usage(job, cost_nanousd)} if talk.tells_usage and not answer.no_usage else {}
    if talk.manners.full_usage:
        yield chunk({}, answer.finish, **told)
    else:
        yield chunk({}, answer.finish, usage=None)
        if told:
            yield events.event({**shell, "choices": [], **told})
    yield b"data: [DONE]\n\n"


def _spoken(job: Job) -> Iterator[dict[str, Any]]:
    """Give transcript and sound in pieces, not always together."""
    assert job.talk is not None
    answer = job.talk.answer
    text = job.text
    if answer.whole:
        yield {"id": "audio_1", "transcript": text}
        yield {"data": base64.b64encode(audio_of(job)).decode()}
        return
    if answer.sends is not None or job.talk.audio_format != "pcm16":
        pieces: Iterable[bytes] = [audio_of(job)]
        texts = [text]
    else:
        size = _PIECE_CHARACTERS
        texts = [text[start : start + size] for start in range(0, len(text), size)]
        longest = CHARACTER_BYTES * len(text) if len(text) >= SHORTEST_CHARACTERS else None
        pieces = (expected_pcm(part)[: longest and CHARACTER_BYTES * len(part)] for part in texts)
    encoded = (base64.b64encode(piece).decode() for piece in pieces) if answer.padded else _joined(pieces)
    for at, data in enumerate(encoded):
        if at < len(texts):
            yield {"id": "audio_1", "transcript": texts[at]} if at == 0 else {"transcript": texts[at]}
        yield {"data": data}
    yield {"expires_at": 1_760_003_600}


def _joined(pieces: Iterable[bytes]) -> Iterator[str]:
    """Cut one base64 text wherever it falls; only its end is padded."""
    rest = b""
    for piece in pieces:
        rest += piece
        whole = len(rest) // 3 * 3
        text, rest = base64.b64encode(rest[:whole]).decode(), rest[whole:]
        yield text[: len(text) - 1]
        yield text[len(text) - 1 :]
    if rest:
        yield base64.b64encode(rest).decode()
