"""What the double remembers of a request, for tests to look at."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from .base import Ask
from .http1 import Head
from .intake import Blob, Tally
from .sound import sniff

_KEY = re.compile(r"\b(?:sk-|gsk[-_]|lr_(?:live|mgmt)_)[\w-]{3,}")


@dataclass(slots=True)
class Seen:
    """One request. It is entered when it has been read and judged, before the reply begins.

    `json` is the parsed body; a string of more than a megabyte in it is replaced by a note of its length. `multipart`
    holds (name, value, filename, content type); the value of a file is its first megabyte. `audio` is the first
    megabyte of the decoded recording (all of it with `keep_audio`), `audio_format` is what its bytes say.
    `heard` holds (claimed format, format, seconds) of each recording in a chat.
    `status` is the status answered, None where the connection ended without one. `problems` are the rules of the
    gateway that the request broke, also those that the gateway lets pass. `complete` is False where the client left
    before its request was read; `client_left` is True where it left before the reply was sent.
    """

    method: str
    path: str
    dialect: str | None
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    query: dict[str, str] = field(default_factory=dict)
    json: Any = None
    multipart: list[tuple[str, str | bytes, str | None, str | None]] | None = field(default=None, repr=False)
    size_bytes: int = 0
    body_sha256: str = ""
    body_start: bytes = field(default=b"", repr=False)
    model: str | None = None
    audio: bytes | None = field(default=None, repr=False)
    audio_sha256: str | None = None
    audio_size_bytes: int | None = None
    audio_format: str | None = None
    audio_s: float | None = None
    heard: list[tuple[str, str, float]] = field(default_factory=list)
    received_at: float = 0.0
    status: int | None = None
    fault: str | None = None
    problems: list[str] = field(default_factory=list)
    accepted: bool = False
    billed: bool = False
    cost_nanousd: int = 0
    generation_id: str | None = None
    complete: bool = True
    client_left: bool = False
    sent_bytes: int = 0

    def form(self, name: str) -> list[str]:
        """Give the text values of a form field, in the order they came."""
        return [
            value for field_name, value, *_ in self.multipart or [] if field_name == name and isinstance(value, str)
        ]

    def note(self) -> dict[str, Any]:
        """Give the line of the log: no header and no audio."""
        text = self.json.get("input") if isinstance(self.json, dict) else None
        return {
            "at": self.received_at,
            "method": self.method,
            "path": self.path,
            "dialect": self.dialect,
            "model": self.model,
            "input": text[:200] if isinstance(text, str) else None,
            "size_bytes": self.size_bytes,
            "body_sha256": self.body_sha256,
            "audio_sha256": self.audio_sha256,
            "audio_s": self.audio_s,
            "status": self.status,
            "fault": self.fault,
            "problems": self.problems,
            "accepted": self.accepted,
            "billed": self.billed,
            "cost_nanousd": self.cost_nanousd,
            "generation_id": self.generation_id,
        }


def remember(seen: Seen, ask: Ask, body: Tally, *, keep_audio: bool) -> None:
    """Copy out of the request what outlives it."""
    seen.size_bytes = body.size_bytes
    seen.body_sha256 = body.sha256
    seen.body_start = body.start
    seen.json = _noted(ask.json)
    seen.model = ask.model
    if ask.parts is not None:
        seen.multipart = [
            (part.name, part.blob.head if is_file else part.blob.head.decode("utf-8", "replace"), part.filename,
             part.content_type)
            for part in ask.parts
            for is_file in (part.filename is not None or part.name == "file",)
        ]  # fmt: skip
    if ask.audio is not None:
        seen.audio = ask.audio.read() if keep_audio else ask.audio.head
        seen.audio_sha256 = ask.audio.sha256
        seen.audio_size_bytes = ask.audio.size_bytes
        seen.audio_format = sniff(seen.audio[:16])


def key_problems(head: Head, body_start: bytes, token: str | None) -> list[str]:
    """Find keys where no key may be."""
    problems = []
    if _KEY.search(head.target) or (token and token in head.target):
        problems.append("a key is in the URL")
    if token and token.encode() in body_start:
        problems.append("the key is in the body")
    for name, value in head.header_list:
        if name.lower() != "authorization" and (_KEY.search(value) or (token and token in value)):
            problems.append(f"a key is in the header {name}")
    return problems


def _noted(value: Any) -> Any:
    if isinstance(value, Blob):
        return f"<{value.size_bytes} characters>"
    if isinstance(value, dict):
        return {key: _noted(item) for key, item in value.items()}
    return [_noted(item) for item in value] if isinstance(value, list) else value
