"""The faults that a script can play: frozen values, no behaviour. `stage.py` acts them out.

A fault that answers in place of the gateway (`Status`, `Redirect`, `Html` with an error status) wins over validation,
as a gateway that is down does not look at fields. Every other fault begins after a request was accepted, so an invalid
request gets its refusal and the fault is used up all the same.

`billed` says whether the gateway charges for the request that meets the fault.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

LONGEST_S = 60.0
"""No fault lasts longer, whatever it asks for."""


@dataclass(frozen=True, slots=True)
class Normal:
    """No fault: a place in the script for an ordinary reply."""

    billed: bool = True


@dataclass(frozen=True, slots=True)
class Status:
    """Answer with a status. `body`: None is the gateway's own error shape; a str or bytes goes out as it is, anything
    else as JSON.

    `early`: answer before the body of the request was read and close, as a proxy does with 413.
    """

    code: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    message: str | None = None
    billed: bool = False
    early: bool = False


@dataclass(frozen=True, slots=True)
class OkWithError:
    """200 with an error object in the gateway's shape: `ok_with_error(429)`. `code` may be a word or None."""

    code: int | str | None
    message: str = "Provider returned error"
    billed: bool = False


@dataclass(frozen=True, slots=True)
class Empty:
    """200, the right content type, not one byte."""

    chunked: bool = False
    billed: bool = True


@dataclass(frozen=True, slots=True)
class Html:
    """A page of an edge proxy."""

    status: int = 200
    billed: bool = False


@dataclass(frozen=True, slots=True)
class CutAfter:
    """Close the connection after `n_bytes` of the body. `chunked`: None keeps the framing of the ordinary reply.

    With a Content-Length the rest is missing; chunked, the terminator is (also when all bytes were sent). `reset`
    sends RST in place of FIN; what the client has not read by then may be lost to it.
    """

    n_bytes: int
    reset: bool = False
    chunked: bool | None = None
    billed: bool = True


@dataclass(frozen=True, slots=True)
class CutBeforeReply:
    """Read the whole request, then close without a byte."""

    reset: bool = False
    billed: bool = True


@dataclass(frozen=True, slots=True)
class CleanTruncation:
    """A reply that is whole for HTTP, but the audio (or the JSON) ends after `n_bytes`."""

    n_bytes: int
    billed: bool = True


@dataclass(frozen=True, slots=True)
class Stall:
    """Silence for `seconds`, then go on. `after_bytes`: of the body; 0 is after the headers, None before the status."""

    after_bytes: int | None
    seconds: float
    billed: bool = True


@dataclass(frozen=True, slots=True)
class Drip:
    """Send the body in pieces of `chunk_bytes` with a pause between them."""

    chunk_bytes: int
    interval_s: float
    billed: bool = True


@dataclass(frozen=True, slots=True)
class Garbage:
    """Bytes that are not audio (or not JSON) under the content type of the ordinary reply."""

    content: bytes = b"\x00\x01\x02\x03 this is not audio \xff\xfe" * 64
    content_type: str | None = None
    billed: bool = True


@dataclass(frozen=True, slots=True)
class OtherFormat:
    """Valid audio of another format than asked for; `honest`: with the content type of what it is."""

    format: str
    honest: bool = True
    billed: bool = True


@dataclass(frozen=True, slots=True)
class OpenEndedWav:
    """A WAV whose header gives 0xFFFFFFFF as its sizes, as a server does that streams it; only where wav is asked."""

    billed: bool = True


@dataclass(frozen=True, slots=True)
class WrongTypes:
    """JSON with the right names and the wrong type everywhere."""

    billed: bool = True


@dataclass(frozen=True, slots=True)
class MegabyteLine:
    """One line of a megabyte: the text of a transcript, or with an error status the message of the error."""

    status: int = 200
    billed: bool | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """Send the client elsewhere. `location` may be relative."""

    location: str
    status: int = 307
    billed: bool = False


@dataclass(frozen=True, slots=True)
class RateStorm:
    """`n` times 429; in a script it stands for `n` entries. `retry_after` goes into the header as it is."""

    n: int
    retry_after: float | str | None = None
    billed: bool = False


@dataclass(frozen=True, slots=True)
class Swapped:
    """Another model than was asked for does the work, and only headers tell; therouter alone does this.

    None is the model and the provider that the gateway falls back to by itself.
    """

    model: str | None = None
    provider: str | None = None
    billed: bool = True


@dataclass(frozen=True, slots=True)
class TextAsJson:
    """A transcript that was asked for as text, srt or vtt comes as JSON: `{"text": ...}`."""

    billed: bool = True


@dataclass(frozen=True, slots=True)
class Events:
    """What an event stream may look like; a reply that is none stays as it is.

    `comments`: a comment before each event. `crlf`: how lines end. `tight`: no space after `data:`. `split_bytes`:
    the size of the pieces on the wire, 1 for each byte by itself. `marker`: `[DONE]` at the end. `without_done`: the
    stream ends cleanly without the event that says so. `error_after`: after so many events comes an error, and then
    nothing; `error_status` is what the error says.
    """

    comments: bool = False
    crlf: bool = False
    tight: bool = False
    split_bytes: int | None = None
    marker: bool = False
    without_done: bool = False
    error_after: int | None = None
    error_status: int = 500
    billed: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """How a chat is answered; `events` is what befalls the stream.

    `whole`: all the sound in one piece. `padded`: each piece of base64 for itself, with its own padding. `byok`: paid
    with a key of the user's own at the provider. `no_usage`: nothing is told of it. `unfinished`: the stream ends
    cleanly in the middle. `mute`: text, although sound was asked for. `sends`: sound in another format than asked for.
    `finish`: the reason told at the end.
    """

    whole: bool = False
    padded: bool = False
    byok: bool = False
    no_usage: bool = False
    unfinished: bool = False
    mute: bool = False
    sends: str | None = None
    finish: str = "stop"
    events: Events | None = None
    billed: bool = True


Fault: TypeAlias = (
    Answer
    | Normal
    | Status
    | OkWithError
    | Empty
    | Html
    | CutAfter
    | CutBeforeReply
    | CleanTruncation
    | Stall
    | Drip
    | Garbage
    | OtherFormat
    | OpenEndedWav
    | WrongTypes
    | MegabyteLine
    | Redirect
    | RateStorm
    | Swapped
    | TextAsJson
    | Events
)

ok_with_error = OkWithError


def expand(faults: tuple[Fault, ...]) -> list[Fault]:
    """Write a storm out as its single replies."""
    single: list[Fault] = []
    for fault in faults:
        single += [storm_status(fault)] * fault.n if isinstance(fault, RateStorm) else [fault]
    return single


def storm_status(storm: RateStorm) -> Status:
    headers = {} if storm.retry_after is None else {"Retry-After": str(storm.retry_after)}
    return Status(429, headers=headers, billed=storm.billed)


def charges(fault: Fault) -> bool:
    """Tell whether an accepted request that meets this fault is charged."""
    if isinstance(fault, MegabyteLine) and fault.billed is None:
        return fault.status < 400
    return bool(fault.billed)


def replaces_gateway(fault: Fault) -> bool:
    """Tell whether the fault answers before the gateway looks at the fields."""
    if isinstance(fault, MegabyteLine | Html):
        return fault.status >= 400
    return isinstance(fault, Status | Redirect)


_BY_NAME: dict[str, type[Fault]] = {
    kind.__name__: kind
    for kind in (
        Normal, Status, OkWithError, Empty, Html, CutAfter, CutBeforeReply, CleanTruncation, Stall, Drip, Garbage,
        OtherFormat, OpenEndedWav, WrongTypes, MegabyteLine, Redirect, RateStorm, Swapped, TextAsJson, Events, Answer,
    )
}  # fmt: skip


def from_json(text: str) -> Fault:
    """Read a fault from the command line: `{"fault": "Stall", "after_bytes": 100, "seconds": 5}`."""
    values = json.loads(text)
    if "content" in values:
        values["content"] = values["content"].encode()
    return _BY_NAME[values.pop("fault")](**values)
