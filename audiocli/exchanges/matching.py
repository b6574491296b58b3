"""What identifies a request: method, path, and its normalized body.

JSON is compared by its fields, whatever their order. A form is compared by the names and contents of its parts,
whatever its boundary. Other bodies are compared as a whole. Bodies are read in blocks; only JSON is held in memory.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import NamedTuple

from ..http.url import parse_url
from ..types.requests import HttpRequest, RequestBody
from .secret_remover import SecretRemover

# Larger JSON is compared as a whole.
MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_PART_HEAD_BYTES = 64 * 1024
_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
_PART_NAME = re.compile(rb'\bname="([^"]*)"')


class BodyPart(NamedTuple):
    """A field of JSON or a part of a form, with the hash of its value. A body without parts is one, without a name."""

    name: str
    sha256: str


class RequestKey(NamedTuple):
    """What identifies a request. `parts` are sorted."""

    method: str
    target: str
    parts: tuple[BodyPart, ...] = ()


def build_key(
    request: HttpRequest, remover: SecretRemover, write: Callable[[bytes], object] | None = None
) -> RequestKey:
    """Read the body of a request and return its key. `write` receives the body without secrets.

    Raises:
        UsageError: The URL is not valid.
        RecordingError: A file of the body cannot be read.
    """
    url = parse_url(request.url)
    target = remover.remove_from_target(url.path, url.query)
    if request.body is None:
        return RequestKey(request.method, target)
    digest = _create_digest(request.body)
    stream = remover.open_stream()
    for block in request.body.blocks():
        _pass_on(stream.feed(block), digest, write)
    _pass_on(stream.finish(), digest, write)
    return RequestKey(request.method, target, tuple(sorted(digest.finish())))


def _pass_on(content: bytes, digest: _Digest, write: Callable[[bytes], object] | None) -> None:
    digest.feed(content)
    if write is not None:
        write(content)


def describe_difference(key: RequestKey, other: RequestKey) -> str:
    """Return what differs between two requests: method, path, or the names of the parts that differ."""
    if key.method != other.method:
        return "the method differs"
    if key.target != other.target:
        return "the path differs"
    names = sorted({part.name for part in set(key.parts) ^ set(other.parts)})
    if not names:
        return "nothing differs"
    return f"{', '.join(name or 'the body' for name in names)} {'differ' if len(names) > 1 else 'differs'}"


def measure_similarity(key: RequestKey, other: RequestKey) -> tuple[bool, bool, int]:
    """Return how similar two requests are, for comparison: path, method, and the number of equal parts."""
    return key.target == other.target, key.method == other.method, len(set(key.parts) & set(other.parts))


class _Digest:
    """Hashes a body as a whole."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def feed(self, content: bytes) -> None:
        self._sha256.update(content)

    def finish(self) -> list[BodyPart]:
        return [BodyPart("", self._sha256.hexdigest())]


class _JsonDigest(_Digest):
    """Hashes the fields of a JSON object."""

    def __init__(self) -> None:
        super().__init__()
        self._content = bytearray()

    def feed(self, content: bytes) -> None:
        super().feed(content)
        if len(self._content) <= MAX_JSON_BYTES:
            self._content += content

    def finish(self) -> list[BodyPart]:
        if len(self._content) > MAX_JSON_BYTES:
            return super().finish()
        try:
            document = json.loads(bytes(self._content))
        except (ValueError, RecursionError):
            return super().finish()
        if not isinstance(document, dict):
            return super().finish()
        return [BodyPart(name, _hash_json(value)) for name, value in document.items()]


def _hash_json(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class _FormDigest(_Digest):
    """Hashes the parts of a multipart form (RFC 7578). Headers other than the name do not count."""

    def __init__(self, boundary: str) -> None:
        super().__init__()
        self._delimiter = b"\r\n--" + boundary.encode("utf-8", "replace")
        # The first delimiter follows no line break.
        self._pending = b"\r\n"
        self._parts: list[BodyPart] = []
        self._head: bytes | None = None
        self._name: str | None = None

    def feed(self, content: bytes) -> None:
        self._pending += content
        while (index := self._pending.find(self._delimiter)) >= 0:
            self._add(self._pending[:index])
            self._end_part()
            self._pending = self._pending[index + len(self._delimiter) :]
        end = max(0, len(self._pending) - len(self._delimiter) + 1)
        self._add(self._pending[:end])
        self._pending = self._pending[end:]

    def _add(self, content: bytes) -> None:
        """Add bytes to the current part: to its head, until an empty line, then to its content."""
        if self._name is not None:
            self._sha256.update(content)
            return
        if self._head is None:
            return  # before the first part
        head, separator, rest = (self._head + content).partition(b"\r\n\r\n")
        self._head = head[:MAX_PART_HEAD_BYTES]
        if separator:
            match = _PART_NAME.search(head)
            self._name = match[1].decode("utf-8", "replace") if match else ""
            self._sha256 = hashlib.sha256(rest)

    def _end_part(self) -> None:
        if self._name is not None:
            self._parts.append(BodyPart(self._name, self._sha256.hexdigest()))
        self._head, self._name = b"", None

    def finish(self) -> list[BodyPart]:
        return self._parts


def _create_digest(body: RequestBody) -> _Digest:
    media_type = body.content_type.partition(";")[0].strip().lower()
    if media_type == "application/json":
        return _JsonDigest()
    match = _BOUNDARY.search(body.content_type)
    return _FormDigest(match[1]) if media_type == "multipart/form-data" and match else _Digest()
