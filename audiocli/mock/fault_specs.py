"""Parse faults from the command line, such as `429:2,retry-after=1`.

    NAME[:COUNT][,OPTION=VALUE]...

NAME is a status from 400 to 599 or a name in `FAULTS`. The fault applies to COUNT requests, or to every request without
a COUNT.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .faults import (
    MAX_FAULT_S,
    WRONG_SPEECH,
    CleanTruncation,
    CutAfter,
    CutBeforeResponse,
    Drip,
    Empty,
    Fault,
    Garbage,
    Html,
    OkWithError,
    Stall,
    Status,
    WrongSpeech,
)

MAX_COUNT = 1_000_000
_DEFAULT_CUT_BYTES = 1000
_SLOW_BLOCK_BYTES, _SLOW_INTERVAL_S = 1024, 0.1


class InvalidSpec(ValueError):
    """The text is not a fault. `hint` says what is valid."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """A fault, the number of requests that it applies to (None: all), and which requests those are."""

    fault: Fault
    count: int | None = None
    path: str | None = None
    model: str | None = None
    dialect: str | None = None
    method: str = "POST"


class _Kind(NamedTuple):
    """A kind of fault: its description, its own options, and how it is built from their values."""

    description: str
    options: tuple[str, ...]
    build: Callable[[Mapping[str, Any]], Fault]


def _build_cut(values: Mapping[str, Any]) -> Fault:
    after_bytes = values.get("after", _DEFAULT_CUT_BYTES)
    return CutAfter(after_bytes) if after_bytes else CutBeforeResponse()


def _build_status(code: int, values: Mapping[str, Any]) -> Status:
    headers = {"Retry-After": f"{values['retry-after']:g}"} if "retry-after" in values else {}
    return Status(code, headers=headers, message=values.get("message"))


FAULTS: dict[str, _Kind] = {
    "cut": _Kind("close the connection after some bytes of the body; 0: no response", ("after",), _build_cut),
    "stall": _Kind(
        "pause after some bytes of the body; without `after`, before the status line",
        ("after", "delay"),
        lambda values: Stall(values.get("after"), values.get("delay", MAX_FAULT_S)),
    ),
    "slow": _Kind(
        "send the body in small blocks with a pause between them",
        ("delay",),
        lambda values: Drip(_SLOW_BLOCK_BYTES, values.get("delay", _SLOW_INTERVAL_S)),
    ),
    "empty": _Kind("status 200 with an empty body", (), lambda values: Empty()),
    "truncated": _Kind(
        "a complete response whose audio or JSON ends after some bytes",
        ("after",),
        lambda values: CleanTruncation(values.get("after", _DEFAULT_CUT_BYTES)),
    ),
    "html": _Kind("status 200 with the HTML page of a proxy", (), lambda values: Html()),
    "garbage": _Kind("status 200 with bytes that are neither audio nor JSON", (), lambda values: Garbage()),
    "error": _Kind(
        "status 200 with an error object",
        ("message",),
        lambda values: OkWithError(502, values.get("message", "Provider returned error")),
    ),
    "wrong-speech": _Kind(
        "speech without a sentence, or with one too much: kind=drop, double, swap or truncate",
        ("kind",),
        lambda values: WrongSpeech(values.get("kind", "drop")),
    ),
}
"""The faults that have a name."""

_STATUS_OPTIONS = ("retry-after", "message")
_FILTERS = ("path", "model", "dialect", "method")


def parse_fault_spec(text: str) -> FaultSpec:
    """Parse one fault.

    Raises:
        InvalidSpec: The name, the count or an option is not valid.
    """
    head, *pairs = text.split(",")
    name, colon, count_text = head.strip().partition(":")
    count = _parse_count(text, count_text) if colon else None
    if re.fullmatch(r"[45]\d\d", name):
        options: tuple[str, ...] = _STATUS_OPTIONS
    elif name in FAULTS:
        options = FAULTS[name].options
    else:
        known = ", ".join(FAULTS)
        near = difflib.get_close_matches(name, FAULTS, n=1)
        message = f"unknown fault {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        raise InvalidSpec(message, f"use a status from 400 to 599, or one of {known}")
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.strip().partition("=")
        if not equals or key not in (*options, *_FILTERS):
            raise InvalidSpec(
                f"unknown option {key!r} of the fault {name!r}", f"valid options: {', '.join((*options, *_FILTERS))}"
            )
        values[key] = _parse_value(key, value)
    fault = _build_status(int(name), values) if name not in FAULTS else FAULTS[name].build(values)
    return FaultSpec(
        fault,
        count,
        path=values.get("path"),
        model=values.get("model"),
        dialect=values.get("dialect"),
        method=values.get("method", "POST").upper(),
    )


def _parse_count(text: str, count_text: str) -> int:
    count = int(count_text) if re.fullmatch(r"[0-9]{1,7}", count_text) else 0
    if not 1 <= count <= MAX_COUNT:
        raise InvalidSpec(f"invalid count {count_text!r}", f"use a number from 1 to {MAX_COUNT}, such as {text[:3]}:2")
    return count


def _parse_value(key: str, value: str) -> Any:
    if key == "kind":
        if value not in WRONG_SPEECH:
            raise InvalidSpec(f"kind={value}: not a kind of wrong speech", f"use one of {', '.join(WRONG_SPEECH)}")
        return value
    if key == "after":
        if not re.fullmatch(r"[0-9]{1,12}", value):
            raise InvalidSpec(f"after={value}: not a number of bytes", "use after=1000")
        return int(value)
    if key in ("delay", "retry-after"):
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        longest_s = MAX_FAULT_S if key == "delay" else 1e6
        if not 0 <= seconds <= longest_s:
            raise InvalidSpec(f"{key}={value}: not a number of seconds", f"use a number from 0 to {longest_s:g}")
        return seconds
    return value
