"""Temporary files with samples: of a recording, whose chunks are encoded from them, and of speech to be processed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from ..audio.chunk_boundaries import SPLIT_RATE_HZ
from ..audio.wav import write_all
from ..errors import RecordingError
from ..types.audio import PcmFormat

SPLIT_PCM = PcmFormat(SPLIT_RATE_HZ, 1)
# A spool takes 115 MB per hour. It may use at most the free disk space divided by this.
_DISK_SPACE_DIVISOR = 8
# The length from the scan may differ from the resampled length by a few samples: one at the end, and one wherever the
# recording changes its sample rate.
MAX_MISSING_BYTES = SPLIT_PCM.bytes_per_second // 10


class PcmSpool:
    """Mono samples at `SPLIT_RATE_HZ` in an unnamed temporary file, which disappears with the process.

    Raises:
        OSError: The file cannot be created, written or read.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 (lives until `close`)
        self._size_bytes = 0

    def write(self, samples: bytes) -> None:
        """Append samples, in blocks of any length."""
        self._file.write(samples)
        self._size_bytes += len(samples)

    def read(self, start: int, end: int) -> bytes:
        """Return at most one second of samples from `start` on, up to `end`. A few missing samples at the end are 0.

        Raises:
            RecordingError: The recording is shorter than `end`.
        """
        first, last = start * SPLIT_PCM.frame_bytes, end * SPLIT_PCM.frame_bytes
        if last > self._size_bytes + MAX_MISSING_BYTES:
            raise RecordingError("the recording is shorter than when it was scanned")
        size_bytes = min(last - first, SPLIT_PCM.bytes_per_second)
        self._file.seek(first)
        return self._file.read(size_bytes).ljust(size_bytes, b"\0")

    def close(self) -> None:
        self._file.close()


class SampleSpool:
    """Samples in any format in an unnamed temporary file, which disappears with the process.

    Args:
        directory: Where the file is made. None: the temporary directory of the system.

    Raises:
        OSError: The file cannot be created, written or read. What was written before a failed `write` can be read.
    """

    def __init__(self, directory: Path | None = None) -> None:
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Unbuffered, so that a failed write leaves nothing behind that a later call would write.
        file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 (lives until `close`)
        self._file = cast(BinaryIO, file)
        self._size_bytes = 0

    def write(self, samples: bytes) -> None:
        """Append samples, in blocks of any length."""
        self._file.seek(self._size_bytes)
        write_all(self._file, samples)
        self._size_bytes += len(samples)

    def read_blocks(self, block_bytes: int) -> Iterator[bytes]:
        """Yield all samples from the start, in blocks of this size. The last one may be shorter."""
        for start in range(0, self._size_bytes, block_bytes):
            self._file.seek(start)
            yield self._file.read(min(block_bytes, self._size_bytes - start))

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


def has_disk_space(directory: Path, duration_s: float) -> bool:
    """Return whether the directory has enough disk space for this much audio."""
    try:
        existing_directory = next(
            existing_directory for existing_directory in (directory, *directory.parents) if existing_directory.is_dir()
        )
        return (
            duration_s * SPLIT_PCM.bytes_per_second <= shutil.disk_usage(existing_directory).free / _DISK_SPACE_DIVISOR
        )
    except OSError:
        return False
