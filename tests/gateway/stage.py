"""Acts the faults out: first on the reply (what is sent), then on the wire (how it is sent)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from . import events
from .base import WORDS, Dialect, Job, Reply, Turn, bytes_reply, json_reply, sound_reply
from .checks import Refusal
from .faults import (
    LONGEST_S,
    Answer,
    CleanTruncation,
    CutAfter,
    CutBeforeReply,
    Drip,
    Empty,
    Events,
    Fault,
    Garbage,
    Html,
    MegabyteLine,
    OkWithError,
    OpenEndedWav,
    OtherFormat,
    RateStorm,
    Redirect,
    Stall,
    Status,
    TextAsJson,
    WrongTypes,
    storm_status,
)
from .http1 import Connection
from .sound import CONTENT_TYPES, speak

CHUNK_BYTES = 64 * 1024
_PAGE = b"<!DOCTYPE html>\n<html><head><title>Error</title></head><body><h1>Error</h1><p>cf-ray</p></body></html>\n"


@dataclass(frozen=True, slots=True)
class Act:
    """A reply, and what befalls it on the way. `reply` None: the connection ends without a byte."""

    reply: Reply | None
    cut_after: int | None = None
    reset: bool = False
    stall_after: int | None = None
    stall_s: float = 0.0
    stalls_before_status: bool = False
    chunk_bytes: int | None = None
    interval_s: float = 0.0
    closes: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault needs to know. `ordinary` makes the reply that the gateway would give."""

    dialect: Dialect
    job: Job | None
    ordinary: Callable[[Job | None], Reply]
    turn: Turn


def act(fault: Fault, scene: Scene) -> Act:
    """Turn a fault into the reply to send and the way to send it."""
    if isinstance(fault, RateStorm):
        fault = storm_status(fault)
    match fault:
        case Status():
            return Act(_status(fault, scene), closes=fault.early)
        case Redirect():
            headers = (("Location", fault.location),)
            return Act(bytes_reply(fault.status, "text/plain", b"", headers))
        case Html():
            return Act(bytes_reply(fault.status, "text/html; charset=UTF-8", _PAGE))
        case OkWithError():
            return Act(json_reply(200, _error_object(fault, scene)))
        case WrongTypes():
            return Act(json_reply(200, _wrong_types(scene.job)))
        case MegabyteLine(status=status) if status >= 400:
            refusal = Refusal(status, "x" * (1 << 20))
            return Act(json_reply(status, scene.dialect.error(refusal, scene.turn)))
        case CutBeforeReply():
            return Act(None, reset=fault.reset)
    return _act_on_ordinary(fault, scene)


def _act_on_ordinary(fault: Fault, scene: Scene) -> Act:
    job = scene.job
    if isinstance(fault, MegabyteLine) and job is not None and job.kind != "speech":
        return Act(scene.ordinary(replace(job, said=replace(job.said, text="long " * 210_000))))
    reply = scene.ordinary(job)
    match fault:
        case Empty():
            return Act(replace(reply, size_bytes=0, pieces=lambda: iter(()), chunked=fault.chunked))
        case Garbage():
            kind = fault.content_type or reply.content_type
            return Act(bytes_reply(200, kind, fault.content, reply.headers, chunked=reply.chunked))
        case CleanTruncation(n_bytes=count):
            size = min(count, reply.size_bytes)
            return Act(replace(reply, size_bytes=size, pieces=lambda: _first(reply.pieces(), size)))
        case CutAfter():
            chunked = reply.chunked if fault.chunked is None else fault.chunked
            return Act(replace(reply, chunked=chunked), cut_after=fault.n_bytes, reset=fault.reset)
        case Stall(after_bytes=after):
            seconds = min(fault.seconds, LONGEST_S)
            return Act(reply, stall_after=after, stall_s=seconds, stalls_before_status=after is None)
        case Drip():
            return Act(reply, chunk_bytes=max(1, fault.chunk_bytes), interval_s=fault.interval_s)
        case OtherFormat() if job is not None and job.kind == "speech":
            sound = speak(job.text, fault.format, speed=job.speed, rate_hz=job.rate_hz)
            kind = CONTENT_TYPES[fault.format] if fault.honest else reply.content_type
            return Act(sound_reply(sound, kind, reply.headers))
        case OpenEndedWav() if job is not None and job.format == "wav":
            sound = speak(job.text, "wav", speed=job.speed, rate_hz=job.rate_hz, open_ended=True)
            return Act(sound_reply(sound, reply.content_type, reply.headers))
        case TextAsJson() if job is not None and job.kind != "speech" and reply.content_type.startswith("text/plain"):
            return Act(json_reply(200, {"text": b"".join(reply.pieces()).decode().rstrip("\n")}, reply.headers))
        case Events() if reply.content_type == events.CONTENT_TYPE:
            return _changed(reply, fault, scene)
        case Answer(events=Events() as change) if reply.content_type == events.CONTENT_TYPE:
            return _changed(reply, change, scene)
    return Act(reply)


def _changed(reply: Reply, fault: Events, scene: Scene) -> Act:
    error = _error_object(OkWithError(fault.error_status), scene)
    if scene.job is not None and scene.job.kind == "chat":
        error |= {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]}
    stream = events.changed(b"".join(reply.pieces()), fault, error)
    return Act(replace(reply, size_bytes=len(stream), pieces=lambda: iter((stream,))), chunk_bytes=fault.split_bytes)


def _status(fault: Status, scene: Scene) -> Reply:
    headers = tuple(fault.headers.items())
    if isinstance(fault.body, str | bytes):
        body = fault.body.encode() if isinstance(fault.body, str) else fault.body
        return bytes_reply(fault.code, fault.content_type or "text/plain; charset=utf-8", body, headers)
    value = fault.body
    if value is None:
        refusal = Refusal(fault.code, fault.message or WORDS.get(fault.code, "Unexpected status"))
        value = scene.dialect.error(refusal, scene.turn)
    reply = json_reply(fault.code, value, headers)
    return replace(reply, content_type=fault.content_type or reply.content_type)


def _error_object(fault: OkWithError, scene: Scene) -> Any:
    status = fault.code if isinstance(fault.code, int) else 500
    value = scene.dialect.error(Refusal(status, fault.message), scene.turn)
    error = value.get("error")
    if not isinstance(error, dict):
        return {"error": {"message": fault.message, "code": fault.code}}
    if "code" in error:
        error["code"] = fault.code
    if not isinstance(fault.code, int):
        error.pop("metadata", None)
    return value


def _wrong_types(job: Job | None) -> Any:
    if job is None:
        return {"data": {"id": 5, "pricing": [], "supported_voices": 1}, "total_count": "many", "links": 3}
    usage: dict[str, Any] = {"cost": "free", "seconds": [], "input_tokens": "7", "output_tokens": None, "type": 4}
    return {"text": 7, "language": ["en"], "duration": "long", "segments": {"0": "x"}, "words": "none", "usage": usage}


def _first(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    for piece in pieces:
        yield piece[:size]
        size -= len(piece)
        if size <= 0:
            return


def perform(
    connection: Connection,
    played: Act,
    *,
    keep_alive: bool,
    pause: Callable[[float], object],
    at_byte: Callable[[int], None],
    marks: tuple[int, ...] = (),
) -> bool:
    """Send the reply as the act says; tell whether the connection can go on.

    `at_byte` is called with the number of body bytes sent so far, before the first and after each portion; a
    portion ends at each of `marks`.
    """
    if played.stalls_before_status:
        pause(played.stall_s)
    reply = played.reply
    if reply is None:
        return _end(connection, played, pause)
    keep_alive = keep_alive and not played.closes
    framing = ("Transfer-Encoding", "chunked") if reply.chunked else ("Content-Length", str(reply.size_bytes))
    last = [] if keep_alive else [("Connection", "close")]
    connection.send_head(reply.status, [("Content-Type", reply.content_type), *reply.headers, framing, *last])
    position = 0
    stops = [mark for mark in (*marks, played.cut_after, played.stall_after) if mark is not None]
    step = played.chunk_bytes or max(1, min(CHUNK_BYTES, reply.size_bytes // 3 + 1))
    for portion in _portions(reply.pieces(), step, stops):
        at_byte(position)
        if portion:
            connection.send(portion, chunked=reply.chunked)
        position += len(portion)
        if played.cut_after is not None and position >= played.cut_after:
            return _end(connection, played, pause)
        if position == played.stall_after:
            pause(played.stall_s)
        if played.interval_s and portion and position < reply.size_bytes:
            pause(min(played.interval_s, LONGEST_S))
    at_byte(position)
    if played.cut_after is not None:
        return _end(connection, played, pause)
    if reply.chunked:
        connection.send_last_chunk()
    return keep_alive


def _end(connection: Connection, played: Act, pause: Callable[[float], object]) -> bool:
    if played.reset:
        pause(0.05)  # what was sent before an RST is lost to a client that has not read it yet
        connection.reset_on_close()
    return False


def _portions(pieces: Iterator[bytes], step: int, marks: list[int]) -> Iterator[bytes]:
    """Cut pieces to `step` bytes and so that one portion ends at every mark; an empty portion comes first."""
    yield b""
    position = 0
    for piece in pieces:
        start = 0
        while start < len(piece):
            size = min(step, len(piece) - start)
            for mark in marks:
                if position < mark < position + size:
                    size = mark - position
            yield piece[start : start + size]
            start += size
            position += size


def error_reply(dialect: Dialect, refusal: Refusal, turn: Turn) -> Reply:
    """Give a refusal as the reply of its gateway."""
    return json_reply(refusal.status, dialect.error(refusal, turn))
