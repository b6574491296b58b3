"""Access to the local disk for batches: fingerprints, hashes and outputs."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from io import RawIOBase
from pathlib import Path
from typing import TypeVar

from ..errors import OutputError, RecordingError
from ..outputs.file import FileOutput, build_write_error
from ..threads import run_in_thread
from .manifest import FileFingerprint

# Hashing a block takes about 10 ms. Small files are hashed on the event loop, which is faster than a thread switch.
HASH_BLOCK_BYTES = 8 * 1024 * 1024
MAX_INLINE_HASH_BYTES = 128 * 1024
# After a successful check, a directory is not checked again for this time.
DIRECTORY_CHECK_LIFETIME_S = 0.5
WRITER_THREAD_COUNT = 4
# With less free space nothing is sent, because the transcript could not be written.
MIN_FREE_BYTES = 4 * 1024 * 1024
# What a temporary copy of a recording leaves for other programs.
MIN_COPY_FREE_BYTES = 256 * 1024 * 1024

# SQLite integers are signed 64-bit numbers.
_INODE_MASK = 2**63 - 1

T = TypeVar("T")


class LocalStorage:
    """Reads sources and writes outputs. Outputs that cannot be written go to `rescue_directory`."""

    def __init__(self, rescue_directory: Path) -> None:
        self._rescue_directory = rescue_directory
        self._executor = ThreadPoolExecutor(WRITER_THREAD_COUNT)
        self._checked_at_s: dict[Path, float] = {}

    def close(self) -> None:
        self._executor.shutdown(wait=False)

    def get_fingerprint(self, path: Path) -> FileFingerprint | None:
        """Return the fingerprint of a regular file, or None if there is none."""
        return get_fingerprint(path)

    async def look_up(self, paths: Sequence[Path]) -> None:
        """Do nothing: the disk is asked when a fingerprint is needed."""

    async def fetch(self, path: Path) -> FileFingerprint | None:
        """Do nothing: a file is its own source."""
        return None

    async def hash_content(self, path: Path) -> str:
        """Return the SHA-256 of a file. Raises: RecordingError: it cannot be read."""
        return await hash_file(path, self._executor)

    async def has_prefix(self, path: Path, size_bytes: int, content_hash: str) -> bool:
        """Return whether the first bytes of a file have this SHA-256, as when a recording only grew."""
        return await has_prefix(path, size_bytes, content_hash, self._executor)

    def read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except OSError:
            return None

    def open_outputs(self, paths: Sequence[Path]) -> list[FileOutput]:
        """Open outputs, so that errors appear before anything is sent. Raises: OutputError."""
        files: list[FileOutput] = []
        try:
            for path in paths:
                try:
                    self._prepare_directory(path.parent)
                except OSError as error:
                    raise build_write_error(path, error) from error
                if path.is_dir():
                    raise OutputError(f"cannot write {path}: it is a directory")
                files.append(FileOutput(path, rescue_directory=self._rescue_directory))
        except BaseException:
            for file in files:
                file.discard()
            raise
        return files

    def _prepare_directory(self, directory: Path) -> None:
        """Create a directory and check its free space, unless it was checked recently. Raises: OSError."""
        now_s = time.monotonic()
        if now_s - self._checked_at_s.get(directory, -DIRECTORY_CHECK_LIFETIME_S) < DIRECTORY_CHECK_LIFETIME_S:
            return
        directory.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(directory).free < MIN_FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._checked_at_s[directory] = now_s

    async def run_in_thread(self, call: Callable[[], T]) -> T:
        """Run a blocking call in a thread of this storage."""
        return await run_in_thread(call, self._executor)

    def write_outputs(self, files: Sequence[FileOutput], contents: Sequence[bytes]) -> None:
        """Write and commit open outputs. If some fail, the others are still written.

        Raises:
            OutputError: The first failure.
        """
        first_error: OutputError | None = None
        for index, (file, content) in enumerate(zip(files, contents, strict=True)):
            try:
                _write_and_commit(file, content)
            except OutputError as error:
                first_error = first_error or error
                self._checked_at_s.clear()  # free space must be checked again
            except BaseException:
                for remaining in files[index + 1 :]:
                    remaining.discard()
                raise
        if first_error is not None:
            raise first_error


def check_free_space(directory: Path, name: str) -> None:
    """Check that a temporary copy of a recording leaves some space. Raises: OutputError: There is hardly any."""
    usage = shutil.disk_usage(directory)
    if usage.free < min(MIN_COPY_FREE_BYTES, usage.total // 20):
        raise OutputError(
            f"the temporary copy of {name} would fill {directory.parent}",
            hint="save the recording to a file and pass its path, or set TMPDIR to a larger directory",
        )


def get_fingerprint(path: Path) -> FileFingerprint | None:
    """Return the fingerprint of a regular file, or None if there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return FileFingerprint(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & _INODE_MASK)


async def hash_file(path: Path, executor: Executor | None = None, *, max_bytes: int | None = None) -> str:
    """Return the SHA-256 of a file, or of its first `max_bytes`, read in a thread unless it is small.

    Raises:
        RecordingError: The file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as source:
            size_bytes = os.fstat(source.fileno()).st_size if max_bytes is None else max_bytes
            if size_bytes <= MAX_INLINE_HASH_BYTES:
                digest.update(source.read(-1 if max_bytes is None else max_bytes))
            else:
                remaining_bytes = math.inf if max_bytes is None else max_bytes
                while hashed_bytes := await run_in_thread(
                    partial(_hash_block, source, digest, int(min(HASH_BLOCK_BYTES, remaining_bytes))), executor
                ):
                    remaining_bytes -= hashed_bytes
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def hash_output(path: Path) -> str:
    """Return the SHA-256 of an output, which may be large. Raises: OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def has_prefix(path: Path, size_bytes: int, content_hash: str, executor: Executor | None = None) -> bool:
    """Return whether the first bytes of a file have this SHA-256, as when a recording only grew."""
    try:
        return await hash_file(path, executor, max_bytes=size_bytes) == content_hash
    except RecordingError:
        return False


def _hash_block(source: RawIOBase, digest: hashlib._Hash, max_bytes: int) -> int:
    block = source.read(max_bytes) or b""
    digest.update(block)
    return len(block)


def _write_and_commit(file: FileOutput, content: bytes) -> None:
    try:
        file.file.write(content)
    except BaseException:
        file.discard()
        raise
    file.commit_now(sync_directory=False)
