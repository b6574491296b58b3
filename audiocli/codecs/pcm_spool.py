"""Temporary file with the decoded samples of a recording, so that chunks can be encoded without decoding again."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import IO

from ..audio.chunk_boundaries import SPLIT_RATE_HZ
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
