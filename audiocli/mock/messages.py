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
        match = re.fullmatch(r"[Bb]earer\s+(\S+)", self.headers.get("authorization", ""))
        return match.group(1) if match else None

    @property
    def file_extension(self) -> str:
        """The extension of the uploaded file, in lower case."""
        for part in self.form_parts or []:
            if part.name == "file" and part.filename:
                return part.filename.rpartition(".")[2].lower()
        return ""


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What headers and error bodies repeat of a request: its serial number and its model."""

    serial: str = "0"
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A response before a fault is applied. `iter_blocks` returns a new iterator over the body at each call."""

    status: int
    content_type: str
    size_bytes: int
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
