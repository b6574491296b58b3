"""The faults that the mock gateway can inject, as frozen values. `fault_injection.py` applies them.

Faults that replace the gateway (`Status`, `Redirect`, `Html` with an error status) take precedence over validation,
because a gateway that is down does not validate. All other faults apply to accepted requests. An invalid request is
refused, and the fault is consumed nevertheless.

`billed`: whether the gateway charges for the request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

MAX_FAULT_S = 60.0
"""Bound of every stall and pause."""
WRONG_SPEECH = ("drop", "double", "swap", "truncate")


@dataclass(frozen=True, slots=True)
class NoFault:
    """No fault: the queue entry of a normal response."""

    billed: bool = True


@dataclass(frozen=True, slots=True)
class Status:
    """Respond with a status.

    `body`: None is the error body of the gateway; str and bytes are sent unchanged, other values as JSON.
    `before_body`: respond before the request body was read and close the connection, as a proxy does with 413.
    """

    code: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    message: str | None = None
    billed: bool = False
    before_body: bool = False


@dataclass(frozen=True, slots=True)
class OkWithError:
    """Status 200 with the error object of the gateway. `code` may be a string or None."""

    code: int | str | None
    message: str = "Provider returned error"
    billed: bool = False


@dataclass(frozen=True, slots=True)
class Empty:
    """Status 200, the correct content type and an empty body."""

    chunked: bool = False
    billed: bool = True


@dataclass(frozen=True, slots=True)
class Html:
    """The HTML page of an edge proxy."""

    status: int = 200
    billed: bool = False


@dataclass(frozen=True, slots=True)
class CutAfter:
    """Close the connection after `n_bytes` of the body.

    `chunked`: None keeps the framing of the normal response. A chunked body lacks its terminator, even if all bytes
    were sent. `reset`: send RST in place of FIN; the client may lose bytes that it has not read yet.
    """

    n_bytes: int
    reset: bool = False
    chunked: bool | None = None
    billed: bool = True


@dataclass(frozen=True, slots=True)
class CutBeforeResponse:
    """Read the request, then close the connection without a response."""

    reset: bool = False
    billed: bool = True


@dataclass(frozen=True, slots=True)
class CleanTruncation:
    """A complete HTTP response whose audio or JSON ends after `n_bytes`."""

    n_bytes: int
    billed: bool = True


@dataclass(frozen=True, slots=True)
class Stall:
    """Pause for `seconds` after some bytes of the body; 0 is after the headers, None before the status line."""

    after_bytes: int | None
    seconds: float
    billed: bool = True


@dataclass(frozen=True, slots=True)
class Drip:
    """Send the body in blocks of `block_bytes` with a pause between them."""

    block_bytes: int
    interval_s: float
    billed: bool = True


@dataclass(frozen=True, slots=True)
class Garbage:
    """Bytes that are neither audio nor JSON, with the content type of the normal response."""

    content: bytes = b"\x00\x01\x02\x03 this is not audio \xff\xfe" * 64
    content_type: str | None = None
    billed: bool = True


@dataclass(frozen=True, slots=True)
class OtherFormat:
    """Valid audio in another format than the requested one. `correct_content_type`: declare the format that is sent."""

    format: str
    correct_content_type: bool = True
    billed: bool = True


@dataclass(frozen=True, slots=True)
class OpenEndedWav:
    """A WAV file with the sizes 0xFFFFFFFF, as servers stream it. Applies to requests for wav only."""

    billed: bool = True


@dataclass(frozen=True, slots=True)
class WrongTypes:
    """JSON with the correct names and a wrong type for every value."""

    billed: bool = True


@dataclass(frozen=True, slots=True)
class MegabyteLine:
    """One line of a megabyte: the text of a transcript, or the error message if `status` is an error."""

    status: int = 200
    billed: bool | None = None


@dataclass(frozen=True, slots=True)
class WrongSpeech:
    """Speak something else than the text, which is divided into sentences.

    `kind`: `drop` leaves the middle sentence out, `double` says it twice, `swap` exchanges it with its neighbor, and
    `truncate` ends after two thirds of the words.
    """

    kind: str = "drop"
    billed: bool = True


@dataclass(frozen=True, slots=True)
class Redirect:
    """Redirect the client. `location` may be relative."""

    location: str
    status: int = 307
    billed: bool = False


@dataclass(frozen=True, slots=True)
class RateLimitBurst:
    """Status 429 for `count` requests. `retry_after` is sent unchanged in the header."""

    count: int
    retry_after: float | str | None = None
    billed: bool = False


@dataclass(frozen=True, slots=True)
class SubstituteModel:
    """Serve the request with another model and report that in headers only, as TheRouter does.

    None stands for the default fallback model and its provider.
    """

    model: str | None = None
    provider: str | None = None
    billed: bool = True


@dataclass(frozen=True, slots=True)
class TextAsJson:
    """Send a transcript that was requested as text, srt or vtt as JSON: `{"text": ...}`."""

    billed: bool = True


@dataclass(frozen=True, slots=True)
class EventStreamFault:
    """Variations of an event stream. Other responses are sent unchanged.

    `add_comments`: a comment before each event. `omit_space`: no space after `data:`. `split_bytes`: block size on the
    wire. `done_marker`: `[DONE]` at the end. `omit_done_event`: end without the final event. `error_after`: send an
    error with `error_status` after this number of events, and end the stream.
    """

    add_comments: bool = False
    use_crlf: bool = False
    omit_space: bool = False
    split_bytes: int | None = None
    done_marker: bool = False
    omit_done_event: bool = False
    error_after: int | None = None
    error_status: int = 500
    billed: bool = True


@dataclass(frozen=True, slots=True)
class ChatFault:
    """Variations of a chat reply.

    `single_audio_delta`: all audio in one delta. `pad_each_delta`: encode each delta as base64 with its own padding.
    `byok`: bill a provider key of the user. `truncate`: end the stream in the middle, without an error. `text_only`:
    send text although audio was requested. `audio_format`: send this format in place of the requested one. `events`:
    variations of the event stream.
    """

    single_audio_delta: bool = False
    pad_each_delta: bool = False
    byok: bool = False
    omit_usage: bool = False
    truncate: bool = False
    text_only: bool = False
    audio_format: str | None = None
    finish_reason: str = "stop"
    events: EventStreamFault | None = None
    billed: bool = True


Fault: TypeAlias = (
    ChatFault
    | NoFault
    | Status
    | OkWithError
    | Empty
    | Html
    | CutAfter
    | CutBeforeResponse
    | CleanTruncation
    | Stall
    | Drip
    | Garbage
    | OtherFormat
    | OpenEndedWav
    | WrongTypes
    | MegabyteLine
    | Redirect
    | RateLimitBurst
    | SubstituteModel
    | TextAsJson
    | EventStreamFault
    | WrongSpeech
)


def expand_bursts(faults: tuple[Fault, ...]) -> list[Fault]:
    """Replace each burst by its single responses."""
    expanded: list[Fault] = []
    for fault in faults:
        expanded += [build_rate_limit_status(fault)] * fault.count if isinstance(fault, RateLimitBurst) else [fault]
    return expanded


def build_rate_limit_status(burst: RateLimitBurst) -> Status:
    headers = {} if burst.retry_after is None else {"Retry-After": str(burst.retry_after)}
    return Status(429, headers=headers, billed=burst.billed)


def is_charged(fault: Fault) -> bool:
    """Return whether an accepted request with this fault is charged."""
    if isinstance(fault, MegabyteLine) and fault.billed is None:
        return fault.status < 400
    return bool(fault.billed)


def precedes_validation(fault: Fault) -> bool:
    """Return whether the fault takes precedence over the validation of the request."""
    if isinstance(fault, MegabyteLine | Html):
        return fault.status >= 400
    return isinstance(fault, Status | Redirect)


_BY_NAME: dict[str, type[Fault]] = {
    kind.__name__: kind
    for kind in (
        NoFault, Status, OkWithError, Empty, Html, CutAfter, CutBeforeResponse, CleanTruncation, Stall, Drip, Garbage,
        OtherFormat, OpenEndedWav, WrongTypes, MegabyteLine, Redirect, RateLimitBurst, SubstituteModel, TextAsJson,
        EventStreamFault, ChatFault, WrongSpeech,
    )
}  # fmt: skip


def parse_fault(text: str) -> Fault:
    """Parse a fault: `{"fault": "Stall", "after_bytes": 100, "seconds": 5}`."""
    values = json.loads(text)
    if "content" in values:
        values["content"] = values["content"].encode()
    return _BY_NAME[values.pop("fault")](**values)
