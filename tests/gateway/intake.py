"""Request bodies of any size read in flat memory: JSON with long strings put aside, and multipart forms.

Whatever is longer than a megabyte lies in an unnamed temporary file of the system.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO, Any

KEPT_BYTES = 1 << 20
_ASIDE = "\x00aside:"
_PARAMETER = re.compile(r'([\w*]+)="((?:[^"\\]|\\.)*)"|([\w*]+)=([^;"\s]+)')


class Malformed(ValueError):
    """A body that is not what its content type says."""


def spool() -> IO[bytes]:
    return SpooledTemporaryFile(max_size=KEPT_BYTES)


@dataclass(slots=True)
class Blob:
    """Bytes that may be on disk. `head` is the first megabyte. `hashed` False saves the time of the hash."""

    file: IO[bytes] = field(default_factory=spool)
    size_bytes: int = 0
    hashed: bool = True
    _hash: Any = field(default_factory=hashlib.sha256)

    def write(self, piece: bytes) -> None:
        self.file.write(piece)
        self.size_bytes += len(piece)
        if self.hashed:
            self._hash.update(piece)

    @property
    def sha256(self) -> str:
        return str(self._hash.hexdigest())

    def read(self, limit: int = -1) -> bytes:
        self.file.seek(0)
        content = self.file.read(limit)
        self.file.seek(0)
        return content

    @property
    def head(self) -> bytes:
        return self.read(KEPT_BYTES)

    def close(self) -> None:
        self.file.close()


@dataclass(slots=True)
class Tally:
    """Bytes that went by: how many, their hash, and the first megabyte."""

    size_bytes: int = 0
    _start: bytearray = field(default_factory=bytearray)
    _hash: Any = field(default_factory=hashlib.sha256)

    def take(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        self._hash.update(piece)
        if len(self._start) < KEPT_BYTES:
            self._start += piece[: KEPT_BYTES - len(self._start)]

    @property
    def sha256(self) -> str:
        return str(self._hash.hexdigest())

    @property
    def start(self) -> bytes:
        return bytes(self._start)


class JsonIntake:
    """Reads JSON piece by piece; a string of more than a megabyte becomes a `Blob` of its raw text."""

    def __init__(self) -> None:
        self._skeleton = bytearray()
        self._text = bytearray()
        self._aside: Blob | None = None
        self._blobs: list[Blob] = []
        self._inside = self._escaped = False

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        at = 0
        while at < len(piece):
            at = self._feed_string(piece, at) if self._inside else self._feed_outside(piece, at)

    def finish(self) -> Any:
        """Give the value, `Blob`s in the place of long strings. Raises: Malformed."""
        if self._inside:
            raise Malformed("the body ends inside a string")
        try:
            value = json.loads(self._skeleton)
        except (ValueError, RecursionError) as error:
            raise Malformed(f"not JSON: {error}") from error
        return self._restore(value)

    def close(self) -> None:
        for blob in [*self._blobs, *([self._aside] if self._aside else [])]:
            blob.close()

    def _feed_outside(self, piece: bytes, at: int) -> int:
        quote = piece.find(b'"', at)
        end = len(piece) if quote < 0 else quote + 1
        self._skeleton += piece[at:end]
        self._inside = quote >= 0
        return end

    def _feed_string(self, piece: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            self._keep(piece[at : at + 1])
            return at + 1
        quote = piece.find(b'"', at)
        end = len(piece) if quote < 0 else quote
        escape = piece.find(b"\\", at, end)
        if escape >= 0:
            self._keep(piece[at : escape + 1])
            self._escaped = True
            return escape + 1
        self._keep(piece[at:end])
        if quote >= 0:
            self._end_string()
        return end + (quote >= 0)

    def _keep(self, raw: bytes) -> None:
        if self._aside is not None:
            self._aside.write(raw)
            return
        self._text += raw
        if len(self._text) > KEPT_BYTES:
            self._aside = Blob(hashed=False)
            self._aside.write(bytes(self._text))
            self._text.clear()

    def _end_string(self) -> None:
        if self._aside is not None:
            self._skeleton += json.dumps(f"{_ASIDE}{len(self._blobs)}")[1:-1].encode()
            self._blobs.append(self._aside)
            self._aside = None
        self._skeleton += self._text + b'"'
        self._text.clear()
        self._inside = False

    def _restore(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._restore(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._restore(item) for item in value]
        if isinstance(value, str) and value.startswith(_ASIDE):
            return self._blobs[int(value.removeprefix(_ASIDE))]
        return value


def decode_base64(text: str | Blob) -> Blob:
    """Decode strict raw base64: no data URI, no white space, padding only at the end. Raises: Malformed."""
    decoded = Blob()
    try:
        if isinstance(text, str):
            decoded.write(binascii.a2b_base64(text.encode("ascii"), strict_mode=True))
            return decoded
        left = text.size_bytes
        text.file.seek(0)
        while piece := text.file.read(1 << 20):
            left -= len(piece)
            if left and b"=" in piece:
                raise Malformed("base64 padding before the end")
            decoded.write(binascii.a2b_base64(piece, strict_mode=True))
    except (ValueError, UnicodeEncodeError) as error:
        decoded.close()
        raise Malformed(f"not raw base64: {error}") from error
    return decoded


@dataclass(slots=True)
class Part:
    """One part of a form."""

    name: str
    filename: str | None
    content_type: str | None
    blob: Blob = field(default_factory=Blob)


class MultipartIntake:
    """Reads multipart/form-data piece by piece."""

    def __init__(self, content_type: str) -> None:
        boundary = _parameters(content_type).get("boundary")
        if not boundary:
            raise Malformed("multipart/form-data without a boundary")
        self._mark = b"\r\n--" + boundary.encode("latin-1")
        self._waiting = bytearray(b"\r\n")
        self._state = "preamble"
        self.parts: list[Part] = []

    def feed(self, piece: bytes) -> None:
        self._waiting += piece
        while self._step():
            pass

    def finish(self) -> list[Part]:
        """Give the parts. Raises: Malformed."""
        if self._state != "epilogue":
            raise Malformed(f"the form ends in its {self._state}")
        return self.parts

    def close(self) -> None:
        for part in self.parts:
            part.blob.close()

    def _step(self) -> bool:
        if self._state in ("preamble", "body"):
            return self._step_to_mark()
        if self._state == "epilogue":
            self._waiting.clear()
            return False
        if self._state == "boundary":
            if len(self._waiting) < 2:
                return False
            after = bytes(self._waiting[:2])
            if after not in (b"--", b"\r\n"):
                raise Malformed("a boundary is followed by other bytes")
            self._state = "epilogue" if after == b"--" else "headers"
            if after == b"--":
                del self._waiting[:2]
            return True
        end = self._waiting.find(b"\r\n\r\n")
        if end < 0:
            return False
        self.parts.append(_part(bytes(self._waiting[2:end])))
        del self._waiting[: end + 4]
        self._state = "body"
        return True

    def _step_to_mark(self) -> bool:
        found = self._waiting.find(self._mark)
        ready = found if found >= 0 else max(0, len(self._waiting) - len(self._mark))
        if self._state == "body" and ready:
            self.parts[-1].blob.write(bytes(self._waiting[:ready]))
        del self._waiting[:ready]
        if found >= 0:
            del self._waiting[: len(self._mark)]
            self._state = "boundary"
        return found >= 0


def _part(raw_headers: bytes) -> Part:
    headers: dict[str, str] = {}
    for line in raw_headers.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    disposition = _parameters(headers.get("content-disposition", ""))
    if "name" not in disposition:
        raise Malformed("a part without a name")
    return Part(disposition["name"], disposition.get("filename"), headers.get("content-type"))


def _parameters(header: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(header):
        name, quoted, bare_name, bare = match.groups()
        found[(name or bare_name).lower()] = re.sub(r"\\(.)", r"\1", quoted) if name else bare
    return found
