"""A parsed request and a response, independent of the dialect and of the connection."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from .request_parsing import Blob, FormPart

Headers: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class ParsedRequest:
    """A request whose body has been parsed.

    `path` is relative to the base URL of the dialect; it begins with `/../` outside of the base URL. Strings of more
    than a megabyte in `json` are `Blob`s. `parse_error` says why the body could not be parsed.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    size_bytes: int = 0
    json: Any = None
    form_parts: list[FormPart] | None = None
    parse_error: str | None = None
    audio: Blob | None = None
    is_background_job: bool = False

    @property
    def model(self) -> str | None:
        """The requested model; it may not exist."""
        if isinstance(self.json, dict):
            return self.json.get("model") if isinstance(self.json.get("model"), str) else None
        for part in self.form_parts or []:
            if part.name == "model":
                return part.blob.read(1000).decode(errors="replace")
        return None

    @property
    def bearer_token(self) -> str | None:
        return parse_bearer_token(self.headers)

    @property
    def file_extension(self) -> str:
        """The extension of the uploaded file, in lower case."""
        for part in self.form_parts or []:
            if part.name == "file" and part.filename:
                return part.filename.rpartition(".")[2].lower()
        return ""


def parse_bearer_token(headers: Mapping[str, str]) -> str | None:
    """Return the key of a request. Header names are in lower case."""
    match = re.fullmatch(r"[Bb]earer\s+(\S+)", headers.get("authorization", ""))
    return match.group(1) if match else None


def read_text(request: ParsedRequest) -> str:
    """Return what the user has written: the text to speak, the messages of a chat, or the prompt of a transcription.

    A text of more than a megabyte is left out.
    """
    if request.form_parts is not None:
        parts = [part.blob for part in request.form_parts if part.name == "prompt" and part.filename is None]
        return "\n".join(blob.prefix.decode("utf-8", "replace") for blob in parts)
    if not isinstance(request.json, dict):
        return ""
    values = [request.json.get("input"), request.json.get("prompt")]
    messages = request.json.get("messages")
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        values += content if isinstance(content, list) else [content]
    texts = [value.get("text") if isinstance(value, dict) else value for value in values]
    return "\n".join(text for text in texts if isinstance(text, str))


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What headers and error bodies repeat of a request: its serial number and its model."""

    serial: str = "0"
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A response before a fault is applied. `iter_blocks` returns a new iterator over the body at each call.

    `size_bytes` is None if it is unknown until the end; such a response is chunked.
    """

    status: int
    content_type: str
    size_bytes: int | None
    iter_blocks: Callable[[], Iterator[bytes]]
    headers: Headers = ()
    chunked: bool = False

    def read(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.iter_blocks())

    def add_missing_headers(self, extra: Headers) -> Response:
        """Return the response with the headers that it does not have yet."""
        present = {name.lower() for name, _ in self.headers}
        more = tuple((name, value) for name, value in extra if name.lower() not in present)
        return replace(self, headers=(*self.headers, *more))


def bytes_response(
    status: int, content_type: str, body: bytes, headers: Headers = (), *, chunked: bool = False
) -> Response:
    return Response(status, content_type, len(body), lambda: iter((body,)), headers, chunked)


def json_response(status: int, value: Any, headers: Headers = ()) -> Response:
    return bytes_response(status, "application/json", json.dumps(value).encode(), headers)
