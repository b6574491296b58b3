"""Convert a recording to a format that a gateway accepts, at most once per format for all routes."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..audio import formats
from ..errors import OutputError, UsageError
from ..threads import run_in_thread
from ..types.audio import Recording
from ..types.routes import Route

# File names of converted recordings (`Uploads._convert`) and of chunks (`long_transcription`).
UPLOAD_NAME = re.compile(r"[0-9a-f]{8}-upload\.\w+|[0-9a-f]{16}-\d+\.\w+")

# Up to this length a recording is converted losslessly: FLAC (mono, 16 kHz) takes about 1 MB per minute, and gateways
# usually accept 25 MB. Longer recordings are converted to a lossy format.
MAX_LOSSLESS_S = 15 * 60
LOSSLESS_FIRST = ("flac", "wav", "mp3", "opus", "ogg")
LOSSY_FIRST = ("mp3", "opus", "ogg", "flac", "wav")

# Speech recognition uses this rate; Whisper resamples all input to it.
SAMPLE_RATE_HZ = 16_000


class Uploads:
    """Converted copies of one recording. They stay in `directory` until `remove`."""

    def __init__(self, recording: Recording, directory: Path) -> None:
        self._recording = recording
        self._directory = directory
        self._converted: dict[str, Recording] = {}
        self.truncation_s: float | None = None
        """Where a truncated recording ended when it was converted."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the recording that was sent."""
        if self.truncation_s is None:
            return ()
        return (f"the recording breaks off after {self.truncation_s:.0f} s; only the part before was sent",)

    async def convert_for(self, accepted: Sequence[str], route: Route, *, allow_original: bool = True) -> Recording:
        """Return the recording in an accepted format. Only the audio of a video is used.

        Args:
            accepted: Names of formats; `*` accepts any.
            route: Named in error messages.
            allow_original: Return the original if its format is accepted.

        Raises:
            UsageError: No accepted format can be made.
            RecordingError: The recording cannot be decoded.
            OutputError: The converted file cannot be written.
        """
        recording = self._recording
        if allow_original and ("*" in accepted or (recording.format in accepted and not recording.has_video)):
            return recording
        is_short = recording.duration_s is not None and recording.duration_s <= MAX_LOSSLESS_S
        format = next((name for name in (LOSSLESS_FIRST if is_short else LOSSY_FIRST) if name in accepted), None)
        if format is None:
            raise UsageError(f"{route.ref} accepts only {', '.join(accepted)}, which audiocli cannot encode")
        if format not in self._converted:
            self._converted[format] = await self._convert(format)
        return self._converted[format]

    def remove(self) -> None:
        """Delete the converted copies."""
        for recording in self._converted.values():
            recording.path.unlink(missing_ok=True)

    async def _convert(self, format: str) -> Recording:
        from ..codecs.convert import convert

        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(f"cannot convert the recording in {self._directory}: {error.strerror}") from error
        format_info = formats.find_format(format)
        assert format_info is not None
        path = self._directory / f"{secrets.token_hex(4)}-upload{format_info.upload_suffix}"
        conversion = convert(self._recording.path, path, format, sample_rate_hz=SAMPLE_RATE_HZ, channels=1)
        try:
            while await run_in_thread(partial(next, conversion, None)) is not None:
                continue
        except OSError as error:
            raise OutputError(
                f"cannot convert the recording in {self._directory}: {error.strerror or error}"
            ) from error
        finally:
            conversion.close()
        if not conversion.is_complete:
            self.truncation_s = conversion.position_s
        return Recording(path, format, path.stat().st_size, conversion.position_s)
