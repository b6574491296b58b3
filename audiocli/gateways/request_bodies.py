"""Request bodies that are generated while they are sent, in constant memory, as often as they are needed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import RecordingError
from ..types.values import Body, Json

# A multiple of 3, so that base64 pieces join without padding, and small enough for flat memory.
PIECE_BYTES = 3 * 128 * 1024


def json_body(fields: Mapping[str, Json]) -> Body:
    """Make a JSON body that fits in memory."""
    text = _dump(fields)
    return Body("application/json", len(text), lambda: iter((text,)))


def json_body_with_file(before: Mapping[str, Json], path: Path, size_bytes: int, *, field: tuple[str, str]) -> Body:
    """Make a JSON body with one file in it as base64, at `{…, outer: {inner: "…"}}` where `field` is (outer, inner).

    `before` must hold `outer` as an object; the file is added to it as its last member.
    """
    outer, inner = field
    marker = placeholder()
    shell = dict(before)
    container = shell[outer]
    assert isinstance(container, dict)
    shell[outer] = {**container, inner: marker}
    return json_body_with_files(shell, [(marker, path, size_bytes)])


def placeholder() -> str:
    """Make a text that stands for a file in a JSON body, and nowhere else."""
    import secrets

    return secrets.token_hex(16)


def json_body_with_files(shell: Mapping[str, Json], files: Sequence[tuple[str, Path, int]]) -> Body:
    """Make a JSON body with files in it as base64: (placeholder, path, size), in the order in which they stand."""
    rest = _dump(shell)
    between = []
    for marker, _, _ in files:
        before, rest = rest.split(marker.encode())
        between.append(before)

    def pieces() -> Iterator[bytes]:
        for head, (_, path, size_bytes) in zip(between, files, strict=True):
            yield head
            for chunk in _file(path, size_bytes):
                yield base64.b64encode(chunk)
        yield rest

    encoded_bytes = sum(4 * ((size_bytes + 2) // 3) for _, _, size_bytes in files)
    return Body("application/json", sum(map(len, between)) + encoded_bytes + len(rest), pieces)


def multipart_body(
    fields: Sequence[tuple[str, str]], *, path: Path, size_bytes: int, file_name: str, media_type: str
) -> Body:
    """Make a multipart form whose last part, `file`, is streamed from disk.

    `file_name` is invented by the caller from the format: gateways read the format from its ending, and the user's
    own file names are nobody's business.
    """
    import secrets

    boundary = f"audiocli-{secrets.token_hex(16)}"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n'.encode("utf-8", "replace")
        + value.encode("utf-8", "replace")
        + b"\r\n"
        for name, value in fields
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file_name}"\r\n'
        f"Content-Type: {media_type}\r\n\r\n".encode()
    )
    head = b"".join(parts)
    tail = f"\r\n--{boundary}--\r\n".encode()

    def pieces() -> Iterator[bytes]:
        yield head
        yield from _file(path, size_bytes)
        yield tail

    return Body(f"multipart/form-data; boundary={boundary}", len(head) + size_bytes + len(tail), pieces)


def _quoted(name: str) -> str:
    """Escape a name for a Content-Disposition, as browsers do (WHATWG, "multipart/form-data")."""
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


def _dump(fields: Mapping[str, Json]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _file(path: Path, size_bytes: int) -> Iterator[bytes]:
    """Read exactly the announced bytes: a file that grows is cut there, one that shrinks cannot be sent."""
    left = size_bytes
    try:
        source = path.open("rb")
    except OSError as error:
        raise RecordingError(f"{path} cannot be read any more: {error.strerror}") from error
    with source:
        while left:
            try:
                chunk = source.read(min(PIECE_BYTES, left))
            except OSError as error:
                raise RecordingError(f"{path} cannot be read any more: {error.strerror}") from error
            if not chunk:
                raise RecordingError(f"{path} became shorter while it was being sent")
            left -= len(chunk)
            yield chunk
