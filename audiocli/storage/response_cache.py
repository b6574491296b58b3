"""Cached responses, one file each in the cache directory. They can be fetched again at any time.

Bodies are stored as received and parsed by the reader, so that a newer audiocli does not depend on an older format.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import NamedTuple

from ..private_files import read_regular_file, write_atomically


class CachedResponse(NamedTuple):
    """The body of a response and its age."""

    body: bytes
    age_s: float


class ResponseCache:
    """A directory of response bodies. A failure to write is not an error; the last one is in `write_error`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.write_error: OSError | None = None
        self._bodies: dict[tuple[str, str], tuple[tuple[int, int, int], bytes]] = {}

    def get(self, kind: str, key: str) -> CachedResponse | None:
        """Return a cached response. Its body is the same object until the file changes."""
        try:
            path = self._build_path(kind, key)
            status = path.stat()
            file_state = status.st_ino, status.st_mtime_ns, status.st_size
            cached_state, body = self._bodies.get((kind, key), (None, b""))
            if file_state != cached_state:
                body = read_regular_file(path)
                self._bodies[kind, key] = file_state, body
            return CachedResponse(body, max(0.0, time.time() - status.st_mtime))
        except OSError:
            return None

    def put(self, kind: str, key: str, body: bytes) -> None:
        """Store the body of a response atomically."""
        self._write(self._build_path(kind, key), body)

    def get_text(self, name: str) -> str:
        try:
            return read_regular_file(self._directory / name).decode("utf-8", "replace")
        except OSError:
            return ""

    def put_text(self, name: str, text: str) -> None:
        """Store a text under its own file name, for programs that read it directly (shell completion)."""
        self._write(self._directory / name, text.encode("utf-8", "replace"))

    def _write(self, path: Path, body: bytes) -> None:
        try:
            write_atomically(path, body)
        except OSError as error:
            self.write_error = error

    def _build_path(self, kind: str, key: str) -> Path:
        return self._directory / kind / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:24]
