"""Values of `chat`: what is sent to a model, and its reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .values import NONE, Json, Recording, RunResult, Usage


class ChatRequest(NamedTuple):
    """Something said to a model: text, recordings, or both.

    `format` is what a spoken answer is wanted in, and on the wire what the gateway is asked for; None: the answer is
    text. `streams`: as it comes, where the gateway leaves the choice. `longest_tokens` bounds the answer.
    """

    text: str
    recordings: tuple[Recording, ...] = ()
    system: str | None = None
    format: str | None = None
    streams: bool = True
    longest_tokens: int | None = None
    options: Mapping[str, Json] = NONE


class ChatResult(NamedTuple):
    """A finished `chat`; the fields of the sound are None where the answer was text. `finish`: why the model ended."""

    run: RunResult
    text: str
    usage: Usage
    finish: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    format: str | None = None
    duration_s: float | None = None
    warnings: tuple[str, ...] = ()
