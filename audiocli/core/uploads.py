"""A recording in the formats that gateways take: as it is where that will do, else converted once for all routes."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..audio import formats
from ..errors import OutputError, UsageError
from ..threads import run_in_thread
from ..types.values import Recording, Route

# A recording that was converted, or a part of one: see `Uploads._convert` and `long_recording`.
UPLOAD_NAME = re.compile(r"[0-9a-f]{8}-upload\.\w+|[0-9a-f]{16}-\d+\.\w+")

# Up to this length a recording is converted without loss and still fits the usual 25 MB (mono at 16 kHz takes about
# 1 MB a minute as FLAC); beyond it, to what speech survives.
LOSSLESS_UP_TO_S = 15 * 60
LOSSLESS = ("flac", "wav", "mp3", "opus", "ogg")
SMALL = ("mp3", "opus", "ogg", "flac", "wav")

# Speech recognition works at this rate; whisper resamples everything to it.
SAMPLE_RATE_HZ = 16_000


class Uploads:
    """The forms of one recording. What was converted lies in `folder` until `remove`."""

    def __init__(self, recording: Recording, folder: Path) -> None:
        self._recording = recording
        self._folder = folder
        self._converted: dict[str, Recording] = {}
        self.warnings: tuple[str, ...] = ()

    async def fit_for(self, takes: Sequence[str], route: Route, *, as_it_is: bool = True) -> Recording:
        """Give the recording in a format out of `takes`. A video gives its sound only; without `as_it_is` it is made
        anew in any case.

        Raises: UsageError: nothing that we can make is taken; RecordingError: it cannot be decoded.
        """
        recording = self._recording
        if as_it_is and ("*" in takes or (recording.format in takes and not recording.has_video)):
            return recording
        is_short = recording.duration_s is not None and recording.duration_s <= LOSSLESS_UP_TO_S
        wanted = next((name for name in (LOSSLESS if is_short else SMALL) if name in takes), None)
        if wanted is None:
            raise UsageError(f"{route.ref} takes only {', '.join(takes)}, which audiocli does not make")
        if wanted not in self._converted:
            self._converted[wanted] = await self._convert(wanted)
        return self._converted[wanted]

    def remove(self) -> None:
        for recording in self._converted.values():
            recording.path.unlink(missing_ok=True)

    async def _convert(self, wanted: str) -> Recording:
        from ..codecs.convert import convert

        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(f"cannot convert the recording in {self._folder}: {error.strerror}") from error
        row = formats.named(wanted)
        assert row is not None
        target = self._folder / f"{secrets.token_hex(4)}-upload{row.upload_suffix}"
        conversion = convert(self._recording.path, target, wanted, sample_rate_hz=SAMPLE_RATE_HZ, channels=1)
        try:
            while await run_in_thread(partial(next, conversion, None)) is not None:
                continue
        except OSError as error:
            raise OutputError(f"cannot convert the recording in {self._folder}: {error.strerror or error}") from error
        finally:
            conversion.close()
        if not conversion.complete:
            self.warnings = (f"the recording breaks off after {conversion.seconds:.0f} s; it was sent up to there",)
        return Recording(target, wanted, target.stat().st_size, conversion.seconds)
