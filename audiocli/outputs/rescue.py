"""Paths for output that was paid for and cannot be written where it belongs."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# A file system in memory on Linux, which has space when every disk is full.
SHARED_MEMORY_DIRECTORY = Path("/dev/shm")
# This share of it stays free, because files there take the memory of the computer.
MIN_FREE_MEMORY_SHARE = 0.5


def iter_rescue_paths(directory: Path, name: str) -> Iterator[Path]:
    """Yield paths to try: in the rescue directory, in the temporary directory, and in memory.

    The output and the rescue directory are often on the same disk. `name` must be new and hard to guess, because other
    users can write to the last two directories.
    """
    yield directory / name
    try:
        temporary_directory = Path(tempfile.gettempdir())
    except OSError:  # none is writable
        temporary_directory = SHARED_MEMORY_DIRECTORY
    yield temporary_directory / f"audiocli-{name}"
    if temporary_directory != SHARED_MEMORY_DIRECTORY:
        yield SHARED_MEMORY_DIRECTORY / f"audiocli-{name}"


def require_memory(path: Path) -> None:
    """Check, before a write, that a file in memory leaves enough of it to other programs. Raises: OSError."""
    if path.parent != SHARED_MEMORY_DIRECTORY:
        return
    usage = shutil.disk_usage(SHARED_MEMORY_DIRECTORY)
    if usage.free < MIN_FREE_MEMORY_SHARE * usage.total:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
