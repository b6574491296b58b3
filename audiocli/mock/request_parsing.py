"""Parsers of JSON and multipart bodies that need constant memory.

Strings and files of more than a megabyte are spooled to unnamed temporary files.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO, Any

MAX_MEMORY_BYTES = 1 << 20
_BLOB_MARKER = "\x00aside:"
_PARAMETER = re.compile(r'([\w*]+)="((?:[^"\\]|\\.)*)"|([\w*]+)=([^;"\s]+)')


class MalformedBody(ValueError):
    """The body does not match its content type."""


def open_spool() -> IO[bytes]:
    return SpooledTemporaryFile(max_size=MAX_MEMORY_BYTES)


@dataclass(slots=True)
class Blob:
    """Bytes that may be on disk. `prefix` is the first megabyte. `hashed=False` saves the time of the hash."""

    file: IO[bytes] = field(default_factory=open_spool)
    size_bytes: int = 0
    hashed: bool = True
    _hash: Any = field(default_factory=hashlib.sha256)

    def write(self, block: bytes) -> None:
        self.file.write(block)
        self.size_bytes += len(block)
        if self.hashed:
            self._hash.update(block)

    @property
    def sha256(self) -> str:
        return str(self._hash.hexdigest())

    def read(self, limit: int = -1) -> bytes:
        self.file.seek(0)
        content = self.file.read(limit)
        self.file.seek(0)
        return content

    @property
    def prefix(self) -> bytes:
        return self.read(MAX_MEMORY_BYTES)

    def close(self) -> None:
        self.file.close()


@dataclass(slots=True)
class BodySummary:
    """Size, hash and first megabyte of a body."""

    size_bytes: int = 0
    _prefix: bytearray = field(default_factory=bytearray)
    _hash: Any = field(default_factory=hashlib.sha256)

    def update(self, block: bytes) -> None:
        self.size_bytes += len(block)
        self._hash.update(block)
        if len(self._prefix) < MAX_MEMORY_BYTES:
            self._prefix += block[: MAX_MEMORY_BYTES - len(self._prefix)]

    @property
    def sha256(self) -> str:
        return str(self._hash.hexdigest())

    @property
    def prefix(self) -> bytes:
        return bytes(self._prefix)


class JsonParser:
    """Incremental JSON parser. A string of more than a megabyte becomes a `Blob` of its raw text."""

    def __init__(self) -> None:
        self._skeleton = bytearray()
        self._text = bytearray()
        self._blob: Blob | None = None
        self._blobs: list[Blob] = []
        self._in_string = self._escaped = False

    def feed(self, block: bytes) -> None:
        """Parse the next bytes."""
        offset = 0
        while offset < len(block):
            offset = self._feed_string(block, offset) if self._in_string else self._feed_outside(block, offset)

    def finish(self) -> Any:
        """Return the value, with `Blob`s in place of long strings.

        Raises: MalformedBody.
        """
        if self._in_string:
            raise MalformedBody("the body ends inside a string")
        try:
            value = json.loads(self._skeleton)
        except (ValueError, RecursionError) as error:
            raise MalformedBody(f"not JSON: {error}") from error
        return self._restore(value)

    def close(self) -> None:
        for blob in [*self._blobs, *([self._blob] if self._blob else [])]:
            blob.close()

    def _feed_outside(self, block: bytes, offset: int) -> int:
        quote = block.find(b'"', offset)
        end = len(block) if quote < 0 else quote + 1
        self._skeleton += block[offset:end]
        self._in_string = quote >= 0
        return end

    def _feed_string(self, block: bytes, offset: int) -> int:
        if self._escaped:
            self._escaped = False
            self._append(block[offset : offset + 1])
            return offset + 1
        quote = block.find(b'"', offset)
        end = len(block) if quote < 0 else quote
        escape = block.find(b"\\", offset, end)
        if escape >= 0:
            self._append(block[offset : escape + 1])
            self._escaped = True
            return escape + 1
        self._append(block[offset:end])
        if quote >= 0:
            self._end_string()
        return end + (quote >= 0)

    def _append(self, raw: bytes) -> None:
        if self._blob is not None:
            self._blob.write(raw)
            return
        self._text += raw
        if len(self._text) > MAX_MEMORY_BYTES:
            self._blob = Blob(hashed=False)
            self._blob.write(bytes(self._text))
            self._text.clear()

    def _end_string(self) -> None:
        if self._blob is not None:
            self._skeleton += json.dumps(f"{_BLOB_MARKER}{len(self._blobs)}")[1:-1].encode()
            self._blobs.append(self._blob)
            self._blob = None
        self._skeleton += self._text + b'"'
        self._text.clear()
        self._in_string = False

    def _restore(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._restore(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._restore(item) for item in value]
        if isinstance(value, str) and value.startswith(_BLOB_MARKER):
            return self._blobs[int(value.removeprefix(_BLOB_MARKER))]
        return value


def decode_base64(text: str | Blob) -> Blob:
    """Decode strict raw base64: no data URI, no white space, padding only at the end.

    Raises: MalformedBody.
    """
    decoded = Blob()
    try:
        if isinstance(text, str):
            decoded.write(binascii.a2b_base64(text.encode("ascii"), strict_mode=True))
            return decoded
        remaining = text.size_bytes
        text.file.seek(0)
        while block := text.file.read(1 << 20):
            remaining -= len(block)
            if remaining and b"=" in block:
                raise MalformedBody("base64 padding before the end")
            decoded.write(binascii.a2b_base64(block, strict_mode=True))
    except (ValueError, UnicodeEncodeError) as error:
        decoded.close()
        raise MalformedBody(f"not raw base64: {error}") from error
    return decoded


@dataclass(slots=True)
class FormPart:
    """One part of a multipart form."""

    name: str
    filename: str | None
    content_type: str | None
    blob: Blob = field(default_factory=Blob)


class MultipartParser:
    """Incremental parser of multipart/form-data."""

    def __init__(self, content_type: str) -> None:
        boundary = _parse_parameters(content_type).get("boundary")
        if not boundary:
            raise MalformedBody("multipart/form-data without a boundary")
        self._delimiter = b"\r\n--" + boundary.encode("latin-1")
        self._buffer = bytearray(b"\r\n")
        self._state = "preamble"
        self.parts: list[FormPart] = []

    def feed(self, block: bytes) -> None:
        self._buffer += block
        while self._step():
            pass

    def finish(self) -> list[FormPart]:
        """Return the parts.

        Raises: MalformedBody.
        """
        if self._state != "epilogue":
            raise MalformedBody(f"the form ends in its {self._state}")
        return self.parts

    def close(self) -> None:
        for part in self.parts:
            part.blob.close()

    def _step(self) -> bool:
        if self._state in ("preamble", "body"):
            return self._read_to_delimiter()
        if self._state == "epilogue":
            self._buffer.clear()
            return False
        if self._state == "boundary":
            if len(self._buffer) < 2:
                return False
            after = bytes(self._buffer[:2])
            if after not in (b"--", b"\r\n"):
                raise MalformedBody("a boundary is followed by other bytes")
            self._state = "epilogue" if after == b"--" else "headers"
            if after == b"--":
                del self._buffer[:2]
            return True
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        self.parts.append(_parse_part(bytes(self._buffer[2:end])))
        del self._buffer[: end + 4]
        self._state = "body"
        return True

    def _read_to_delimiter(self) -> bool:
        index = self._buffer.find(self._delimiter)
        ready = index if index >= 0 else max(0, len(self._buffer) - len(self._delimiter))
        if self._state == "body" and ready:
            self.parts[-1].blob.write(bytes(self._buffer[:ready]))
        del self._buffer[:ready]
        if index >= 0:
            del self._buffer[: len(self._delimiter)]
            self._state = "boundary"
        return index >= 0


def _parse_part(raw_headers: bytes) -> FormPart:
    headers: dict[str, str] = {}
    for line in raw_headers.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    disposition = _parse_parameters(headers.get("content-disposition", ""))
    if "name" not in disposition:
        raise MalformedBody("a part without a name")
    return FormPart(disposition["name"], disposition.get("filename"), headers.get("content-type"))


def _parse_parameters(header: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for match in _PARAMETER.finditer(header):
        name, quoted_value, token_name, token = match.groups()
        parameters[(name or token_name).lower()] = re.sub(r"\\(.)", r"\1", quoted_value) if name else token
    return parameters
