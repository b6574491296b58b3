"""The sound of a recording as it was heard, kept so that pieces can be made of it without decoding it again."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import IO

from ..audio.split_plan import RATE_HZ
from ..errors import RecordingError
from ..types.values import Pcm

PCM = Pcm(RATE_HZ, 1)
# Nobody expects a recording to fill the disk: 115 MB an hour is this share of what is free, or less.
_SHARE = 8
# Samples may be lost between two ways to count: one at the end, and one wherever a recording changes its own rate.
MISSING_BYTES = PCM.bytes_per_second // 10


class PcmSpool:
    """Samples at `cuts.RATE_HZ`, mono, in a file that has no name and is gone with the process.

    Raises: OSError.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives until `close`)
        self._size_bytes = 0

    def write(self, samples: bytes) -> None:
        """Add samples, cut anywhere."""
        self._file.write(samples)
        self._size_bytes += len(samples)

    def read(self, start: int, end: int) -> bytes:
        """Return the samples from `start` on, at most a second of them, up to `end`. Raises: RecordingError."""
        first, last = start * PCM.frame_bytes, end * PCM.frame_bytes
        if last > self._size_bytes + MISSING_BYTES:
            raise RecordingError("the recording ends earlier than when it was listened to")
        wanted = min(last - first, PCM.bytes_per_second)
        self._file.seek(first)
        return self._file.read(wanted).ljust(wanted, b"\0")

    def close(self) -> None:
        self._file.close()


def has_room(folder: Path, duration_s: float) -> bool:
    """Tell whether so much sound may be kept there."""
    try:
        place = next(place for place in (folder, *folder.parents) if place.is_dir())
        return duration_s * PCM.bytes_per_second <= shutil.disk_usage(place).free / _SHARE
    except OSError:
        return False
