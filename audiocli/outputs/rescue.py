"""Paths for output that was paid for and cannot be written where it belongs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

# A file system in memory on Linux, which has space when every disk is full.
SHARED_MEMORY_DIRECTORY = Path("/dev/shm")


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
