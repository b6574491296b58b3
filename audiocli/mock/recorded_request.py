"""Recorded requests, for assertions in tests."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from .audio_codec import detect_format
from .http_connection import RequestHead
from .messages import ParsedRequest, read_text
from .request_parsing import Blob, BodySummary

KEY_PATTERN = re.compile(r"\b(?:sk-|gsk[-_]|lr_(?:live|mgmt)_)[\w-]{3,}")


@dataclass(slots=True)
class RecordedRequest:
    """One request. It is recorded after its validation and before the response begins.

    * `number`: 1 for the first response that began.
    * `json`: the parsed body. A string of more than a megabyte is replaced by a note of its length.
    * `multipart`: (name, value, file name, content type) of each part. The value of a file is its first megabyte.
    * `audio`: the first megabyte of the recording, or all of it with `keep_audio`. `audio_format`: the detected format.
    * `recordings`: (declared format, detected format, seconds) of each recording in a chat.
    * `status`: None if the connection ended without a response.
    * `problems`: the rules that the request violates, including those that the gateway tolerates.
    * `text`: the text to speak, the messages of a chat, or the prompt of a transcription; None without one.
    * `rule_line`: the line of the rule of a script that chose the response.
    * `complete`: False if the client disconnected before the request was read.
    * `client_disconnected`: True if the client disconnected before the response was sent.
    """

    method: str
    path: str
    dialect: str | None
    number: int = 0
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    query: dict[str, str] = field(default_factory=dict)
    json: Any = None
    multipart: list[tuple[str, str | bytes, str | None, str | None]] | None = field(default=None, repr=False)
    size_bytes: int = 0
    body_sha256: str = ""
    body_prefix: bytes = field(default=b"", repr=False)
    model: str | None = None
    text: str | None = None
    audio: bytes | None = field(default=None, repr=False)
    audio_sha256: str | None = None
    audio_size_bytes: int | None = None
    audio_format: str | None = None
    audio_s: float | None = None
    recordings: list[tuple[str, str, float]] = field(default_factory=list)
    received_at_s: float = 0.0
    status: int | None = None
    fault: str | None = None
    rule_line: int | None = None
    problems: list[str] = field(default_factory=list)
    accepted: bool = False
    billed: bool = False
    cost_nanousd: int = 0
    generation_id: str | None = None
    complete: bool = True
    client_disconnected: bool = False
    sent_bytes: int = 0

    def get_form_values(self, name: str) -> list[str]:
        """Return the text values of a form field, in the order of the parts."""
        return [
            value for field_name, value, *_ in self.multipart or [] if field_name == name and isinstance(value, str)
        ]

    def to_log_entry(self) -> dict[str, Any]:
        """Return the log entry: no headers and no audio."""
        text = self.json.get("input") if isinstance(self.json, dict) else None
        return {
            "at": self.received_at_s,
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


def record_content(recorded: RecordedRequest, request: ParsedRequest, body: BodySummary, *, keep_audio: bool) -> None:
    """Copy the content of the parsed request, whose buffers are closed afterwards."""
    recorded.size_bytes = body.size_bytes
    recorded.body_sha256 = body.sha256
    recorded.body_prefix = body.prefix
    recorded.json = _shorten_blobs(request.json)
    recorded.model = request.model
    recorded.text = read_text(request) or None
    if request.form_parts is not None:
        recorded.multipart = [
            (part.name, part.blob.prefix if is_file else part.blob.prefix.decode("utf-8", "replace"), part.filename,
             part.content_type)
            for part in request.form_parts
            for is_file in (part.filename is not None or part.name == "file",)
        ]  # fmt: skip
    if request.audio is not None:
        recorded.audio = request.audio.read() if keep_audio else request.audio.prefix
        recorded.audio_sha256 = request.audio.sha256
        recorded.audio_size_bytes = request.audio.size_bytes
        recorded.audio_format = detect_format(recorded.audio[:16])


def find_leaked_keys(head: RequestHead, body_prefix: bytes, token: str | None) -> list[str]:
    """Return a problem for each key outside of the Authorization header."""
    problems = []
    if KEY_PATTERN.search(head.target) or (token and token in head.target):
        problems.append("a key is in the URL")
    if token and token.encode() in body_prefix:
        problems.append("the key is in the body")
    for name, value in head.header_list:
        if name.lower() != "authorization" and (KEY_PATTERN.search(value) or (token and token in value)):
            problems.append(f"a key is in the header {name}")
    return problems


def _shorten_blobs(value: Any) -> Any:
    if isinstance(value, Blob):
        return f"<{value.size_bytes} characters>"
    if isinstance(value, dict):
        return {key: _shorten_blobs(item) for key, item in value.items()}
    return [_shorten_blobs(item) for item in value] if isinstance(value, list) else value
