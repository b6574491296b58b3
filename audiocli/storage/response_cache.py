"""What can be had again: replies worth keeping, each in a file of its own in the cache folder. Losing them loses time.

Bodies are kept as they came and read anew by whoever needs them, so that a newer audiocli is not bound by an older one.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import NamedTuple

from ..private_files import write_atomically


class CachedResponse(NamedTuple):
    """A reply and its age."""

    body: bytes
    age_s: float


class ResponseCache:
    """A folder of replies. A folder that cannot be written is told once, through `trouble`, and never an error."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.trouble: OSError | None = None
        self._read: dict[tuple[str, str], tuple[tuple[int, int, int], bytes]] = {}

    def get(self, kind: str, key: str) -> CachedResponse | None:
        """Give a reply that was kept. While nobody replaces it, its body is one and the same object."""
        try:
            path = self._path(kind, key)
            about = path.stat()
            state = about.st_ino, about.st_mtime_ns, about.st_size
            before, body = self._read.get((kind, key), (None, b""))
            if state != before:
                body = path.read_bytes()
                self._read[kind, key] = state, body
            return CachedResponse(body, max(0.0, time.time() - about.st_mtime))
        except OSError:
            return None

    def put(self, kind: str, key: str, body: bytes) -> None:
        """Keep a reply, whole or not at all."""
        self._write(self._path(kind, key), body)

    def get_text(self, name: str) -> str:
        try:
            return (self._folder / name).read_text("utf-8", "replace")
        except OSError:
            return ""

    def put_text(self, name: str, text: str) -> None:
        """Keep a text under a name of its own, for readers other than us."""
        self._write(self._folder / name, text.encode("utf-8", "replace"))

    def _write(self, path: Path, body: bytes) -> None:
        try:
            write_atomically(path, body)
        except OSError as error:
            self.trouble = error

    def _path(self, kind: str, key: str) -> Path:
        return self._folder / kind / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:24]
