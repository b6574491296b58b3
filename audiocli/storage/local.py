"""The disk of this machine, as work on many files needs it: what is there, what is in it, and outputs made whole."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import RawIOBase
from pathlib import Path
from typing import TypeVar

from ..errors import OutputError, RecordingError
from ..outputs.file import FileOutput, cannot_write
from ..threads import run_in_thread
from .manifest import Fingerprint

# A slice of hashing, about 10 ms; what is smaller than a hop to a thread is worth is read at once.
SLICE_BYTES = 8 * 1024 * 1024
AT_ONCE_BYTES = 128 * 1024
LOOKED_AT_S = 0.5
WRITERS = 4
# Less room than this, and nothing is sent whose transcript could not be written.
LEAST_ROOM_BYTES = 4 * 1024 * 1024

_INODE_MASK = 2**63 - 1

T = TypeVar("T")


class LocalStorage:
    """Reads sources and writes outputs. `rescue_folder` takes what cannot be written where it belongs."""

    def __init__(self, rescue_folder: Path) -> None:
        self._rescue_folder = rescue_folder
        self._pool = ThreadPoolExecutor(WRITERS)
        self._looked_at: dict[Path, float] = {}

    def close(self) -> None:
        self._pool.shutdown(wait=False)

    def fingerprint(self, path: Path) -> Fingerprint | None:
        """Tell a file from its earlier self; None: it is not there, or no file."""
        try:
            about = path.stat()
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(about.st_mode):
            return None
        return Fingerprint(about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino & _INODE_MASK)

    async def content(self, path: Path) -> str:
        """Hash a file. Raises: RecordingError: it cannot be read."""
        content = hashlib.sha256()
        try:
            with path.open("rb", buffering=0) as source:
                if os.fstat(source.fileno()).st_size <= AT_ONCE_BYTES:
                    content.update(source.read())
                else:
                    while await run_in_thread(partial(_hash_slice, source, content), self._pool):
                        continue
        except OSError as error:
            raise RecordingError(f"cannot read {path}: {error.strerror}") from error
        return content.hexdigest()

    def read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except OSError:
            return None

    def open(self, paths: Sequence[Path]) -> list[FileOutput]:
        """Open outputs before anything is sent for them. Raises: OutputError."""
        sinks: list[FileOutput] = []
        try:
            for path in paths:
                try:
                    self._make(path.parent)
                except OSError as error:
                    raise cannot_write(path, error) from error
                if path.is_dir():
                    raise OutputError(f"cannot write {path}: it is a folder")
                sinks.append(FileOutput(path, rescue_folder=self._rescue_folder))
        except BaseException:
            for sink in sinks:
                sink.discard()
            raise
        return sinks

    def _make(self, folder: Path) -> None:
        """Have a folder with some room in it; where there was some a moment ago, there still is."""
        now_s = time.monotonic()
        if now_s - self._looked_at.get(folder, -LOOKED_AT_S) < LOOKED_AT_S:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < LEAST_ROOM_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._looked_at[folder] = now_s

    async def aside(self, call: Callable[[], T]) -> T:
        """Run what waits for the disk in a thread."""
        return await run_in_thread(call, self._pool)

    def write(self, sinks: Sequence[FileOutput], contents: Sequence[bytes]) -> None:
        """Fill outputs that were opened and make them appear. Raises: OutputError: the first that could not."""
        failed: OutputError | None = None
        for place, (sink, content) in enumerate(zip(sinks, contents, strict=True)):
            try:
                _fill(sink, content)
            except OutputError as error:
                failed = failed or error
                self._looked_at.clear()  # whatever was found of room there
            except BaseException:
                for later in sinks[place + 1 :]:
                    later.discard()
                raise
        if failed is not None:
            raise failed


def _hash_slice(source: RawIOBase, content: hashlib._Hash) -> bool:
    chunk = source.read(SLICE_BYTES)
    content.update(chunk or b"")
    return bool(chunk)


def _fill(sink: FileOutput, content: bytes) -> None:
    try:
        sink.file.write(content)
    except BaseException:
        sink.discard()
        raise
    sink.commit_now(syncs_folder=False)
