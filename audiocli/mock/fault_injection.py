"""Apply faults: `plan_response` to the response, `send_response` to the connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from . import event_streams
from .audio_codec import CONTENT_TYPES
from .dialects.base import Dialect, audio_response
from .faults import (
    MAX_FAULT_S,
    ChatFault,
    CleanTruncation,
    CutAfter,
    CutBeforeResponse,
    Drip,
    Empty,
    EventStreamFault,
    Fault,
    Garbage,
    Html,
    MegabyteLine,
    OkWithError,
    OpenEndedWav,
    OtherFormat,
    RateLimitBurst,
    Redirect,
    Stall,
    Status,
    TextAsJson,
    WrongTypes,
    build_rate_limit_status,
)
from .field_validation import Refusal
from .http_connection import Connection
from .messages import RequestInfo, Response, bytes_response, json_response
from .tasks import Task

BLOCK_BYTES = 64 * 1024
DEFAULT_ERROR_MESSAGES = {
    400: "Invalid request parameters",
    401: "Missing Authentication header",
    402: "Insufficient credits",
    403: "Forbidden",
    404: "Resource not found",
    408: "Request timed out",
    413: "Request entity too large",
    422: "Unprocessable entity",
    429: "Rate limit exceeded",
    500: "Internal Server Error",
    502: "Provider returned error",
    503: "Service temporarily unavailable",
    504: "Gateway timed out",
    524: "Request timed out. Please try again later.",
    529: "Provider is overloaded",
}
_HTML_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Error</title></head><body><h1>Error</h1><p>cf-ray</p></body></html>\n"
)


@dataclass(frozen=True, slots=True)
class PlannedResponse:
    """A response and the faults of its transfer. If `response` is None, the connection ends without a byte."""

    response: Response | None
    cut_after_bytes: int | None = None
    reset: bool = False
    stall_after_bytes: int | None = None
    stall_s: float = 0.0
    stall_before_status: bool = False
    block_bytes: int | None = None
    interval_s: float = 0.0
    close: bool = False


@dataclass(frozen=True, slots=True)
class FaultContext:
    """The request that a fault applies to. `build_response` builds the normal response."""

    dialect: Dialect
    task: Task | None
    build_response: Callable[[Task | None], Response]
    request_info: RequestInfo


def plan_response(fault: Fault, context: FaultContext) -> PlannedResponse:
    """Return the response to send for a fault, with the faults of its transfer."""
    if isinstance(fault, RateLimitBurst):
        fault = build_rate_limit_status(fault)
    match fault:
        case Status():
            return PlannedResponse(_build_status_response(fault, context), close=fault.before_body)
        case Redirect():
            headers = (("Location", fault.location),)
            return PlannedResponse(bytes_response(fault.status, "text/plain", b"", headers))
        case Html():
            return PlannedResponse(bytes_response(fault.status, "text/html; charset=UTF-8", _HTML_PAGE))
        case OkWithError():
            return PlannedResponse(json_response(200, _build_error_object(fault, context)))
        case WrongTypes():
            return PlannedResponse(json_response(200, _build_wrong_types(context.task)))
        case MegabyteLine(status=status) if status >= 400:
            refusal = Refusal(status, "x" * (1 << 20))
            return PlannedResponse(
                json_response(status, context.dialect.build_error_body(refusal, context.request_info))
            )
        case CutBeforeResponse():
            return PlannedResponse(None, reset=fault.reset)
    return _modify_response(fault, context)


def _modify_response(fault: Fault, context: FaultContext) -> PlannedResponse:
    task = context.task
    if isinstance(fault, MegabyteLine) and task is not None and task.kind != "speech":
        return PlannedResponse(
            context.build_response(replace(task, transcript=replace(task.transcript, text="long " * 210_000)))
        )
    response = context.build_response(task)
    match fault:
        case Empty():
            return PlannedResponse(replace(response, size_bytes=0, iter_blocks=lambda: iter(()), chunked=fault.chunked))
        case Garbage():
            content_type = fault.content_type or response.content_type
            return PlannedResponse(
                bytes_response(200, content_type, fault.content, response.headers, chunked=response.chunked)
            )
        case CleanTruncation(n_bytes=count):
            size = count if response.size_bytes is None else min(count, response.size_bytes)
            return PlannedResponse(
                replace(response, size_bytes=size, iter_blocks=lambda: _truncate(response.iter_blocks(), size))
            )
        case CutAfter():
            chunked = response.chunked if fault.chunked is None else fault.chunked
            return PlannedResponse(replace(response, chunked=chunked), cut_after_bytes=fault.n_bytes, reset=fault.reset)
        case Stall(after_bytes=after):
            seconds = min(fault.seconds, MAX_FAULT_S)
            return PlannedResponse(
                response, stall_after_bytes=after, stall_s=seconds, stall_before_status=after is None
            )
        case Drip():
            return PlannedResponse(response, block_bytes=max(1, fault.block_bytes), interval_s=fault.interval_s)
        case OtherFormat() if task is not None and task.kind == "speech":
            audio = context.dialect.codec.synthesize(
                task.text, fault.format, speed=task.speed, rate_hz=task.sample_rate_hz
            )
            content_type = CONTENT_TYPES[fault.format] if fault.correct_content_type else response.content_type
            return PlannedResponse(audio_response(audio, content_type, response.headers))
        case OpenEndedWav() if task is not None and task.format == "wav":
            audio = context.dialect.codec.synthesize(
                task.text, "wav", speed=task.speed, rate_hz=task.sample_rate_hz, unknown_size=True
            )
            return PlannedResponse(audio_response(audio, response.content_type, response.headers))
        case TextAsJson() if (
            task is not None and task.kind != "speech" and response.content_type.startswith("text/plain")
        ):
            return PlannedResponse(
                json_response(200, {"text": response.read().decode().rstrip("\n")}, response.headers)
            )
        case EventStreamFault() if response.content_type == event_streams.CONTENT_TYPE:
            return _modify_stream(response, fault, context)
        case ChatFault(events=EventStreamFault() as change) if response.content_type == event_streams.CONTENT_TYPE:
            return _modify_stream(response, change, context)
    return PlannedResponse(response)


def _modify_stream(response: Response, fault: EventStreamFault, context: FaultContext) -> PlannedResponse:
    error = _build_error_object(OkWithError(fault.error_status), context)
    if context.task is not None and context.task.kind == "chat":
        error |= {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]}
    stream = event_streams.apply_event_stream_fault(response.read(), fault, error)
    return PlannedResponse(
        replace(response, size_bytes=len(stream), iter_blocks=lambda: iter((stream,))), block_bytes=fault.split_bytes
    )


def _build_status_response(fault: Status, context: FaultContext) -> Response:
    headers = tuple(fault.headers.items())
    if isinstance(fault.body, str | bytes):
        body = fault.body.encode() if isinstance(fault.body, str) else fault.body
        return bytes_response(fault.code, fault.content_type or "text/plain; charset=utf-8", body, headers)
    value = fault.body
    if value is None:
        refusal = Refusal(fault.code, fault.message or DEFAULT_ERROR_MESSAGES.get(fault.code, "Unexpected status"))
        value = context.dialect.build_error_body(refusal, context.request_info)
    response = json_response(fault.code, value, headers)
    return replace(response, content_type=fault.content_type or response.content_type)


def _build_error_object(fault: OkWithError, context: FaultContext) -> Any:
    status = fault.code if isinstance(fault.code, int) else 500
    value = context.dialect.build_error_body(Refusal(status, fault.message), context.request_info)
    error = value.get("error")
    if not isinstance(error, dict):
        return {"error": {"message": fault.message, "code": fault.code}}
    if "code" in error:
        error["code"] = fault.code
    if not isinstance(fault.code, int):
        error.pop("metadata", None)
    return value


def _build_wrong_types(task: Task | None) -> Any:
    if task is None:
        return {"data": {"id": 5, "pricing": [], "supported_voices": 1}, "total_count": "many", "links": 3}
    usage: dict[str, Any] = {"cost": "free", "seconds": [], "input_tokens": "7", "output_tokens": None, "type": 4}
    return {"text": 7, "language": ["en"], "duration": "long", "segments": {"0": "x"}, "words": "none", "usage": usage}


def _truncate(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    for block in blocks:
        yield block[:size]
        size -= len(block)
        if size <= 0:
            return


def send_response(
    connection: Connection,
    planned: PlannedResponse,
    *,
    keep_alive: bool,
    pause: Callable[[float], object],
    before_block: Callable[[int], None],
    marks: tuple[int, ...] = (),
) -> bool:
    """Send the response as planned; return whether the connection can be used again.

    `before_block` is called with the number of body bytes sent so far, before each block and at the end. A block ends
    at each of `marks`.
    """
    if planned.stall_before_status:
        pause(planned.stall_s)
    response = planned.response
    if response is None:
        return _end_connection(connection, planned, pause)
    keep_alive = keep_alive and not planned.close
    framing = ("Transfer-Encoding", "chunked") if response.chunked else ("Content-Length", str(response.size_bytes))
    closing = [] if keep_alive else [("Connection", "close")]
    connection.send_head(
        response.status, [("Content-Type", response.content_type), *response.headers, framing, *closing]
    )
    position = 0
    boundaries = [mark for mark in (*marks, planned.cut_after_bytes, planned.stall_after_bytes) if mark is not None]
    size_bytes = response.size_bytes if response.size_bytes is not None else 3 * BLOCK_BYTES
    max_block_bytes = planned.block_bytes or max(1, min(BLOCK_BYTES, size_bytes // 3 + 1))
    for block in _split_blocks(response.iter_blocks(), max_block_bytes, boundaries):
        before_block(position)
        if block:
            connection.send(block, chunked=response.chunked)
        position += len(block)
        if planned.cut_after_bytes is not None and position >= planned.cut_after_bytes:
            return _end_connection(connection, planned, pause)
        if position == planned.stall_after_bytes:
            pause(planned.stall_s)
        if planned.interval_s and block and position != response.size_bytes:
            pause(min(planned.interval_s, MAX_FAULT_S))
    before_block(position)
    if planned.cut_after_bytes is not None:
        return _end_connection(connection, planned, pause)
    if response.chunked:
        connection.send_last_chunk()
    return keep_alive


def _end_connection(connection: Connection, planned: PlannedResponse, pause: Callable[[float], object]) -> bool:
    if planned.reset:
        pause(0.05)  # an RST discards bytes that the client has not read yet
        connection.reset_on_close()
    return False


def _split_blocks(blocks: Iterator[bytes], max_block_bytes: int, marks: list[int]) -> Iterator[bytes]:
    """Split blocks to at most `max_block_bytes`, with a boundary at each mark. The first block is empty."""
    yield b""
    position = 0
    for block in blocks:
        start = 0
        while start < len(block):
            size = min(max_block_bytes, len(block) - start)
            for mark in marks:
                if position < mark < position + size:
                    size = mark - position
            yield block[start : start + size]
            start += size
            position += size


def build_error_response(dialect: Dialect, refusal: Refusal, request_info: RequestInfo) -> Response:
    """Return the error response of the gateway for a refusal."""
    return json_response(refusal.status, dialect.build_error_body(refusal, request_info))
