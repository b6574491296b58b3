"""Convert a recording to a format that a gateway accepts, at most once per format for all routes."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..audio import formats
from ..audio.stereo import describe_cancellation, find_wav_cancellation
from ..errors import OutputError, RecordingError, UsageError
from ..threads import run_in_thread
from ..types.audio import EVERYTHING, Recording, Selection
from ..types.routes import Route
from .verdicts import format_truncation

# File names of converted recordings (`Uploads._convert`) and of chunks (`long_transcription`).
UPLOAD_NAME = re.compile(r"[0-9a-f]{8}-upload\.\w+|[0-9a-f]{16}-\d+\.\w+")

# Up to this length a recording is converted losslessly: FLAC (mono, 16 kHz) takes about 1 MB per minute, and gateways
# usually accept 25 MB. Longer recordings are converted to a lossy format.
MAX_LOSSLESS_S = 15 * 60
LOSSLESS_FIRST = ("flac", "wav", "mp3", "opus", "ogg")
LOSSY_FIRST = ("mp3", "opus", "ogg", "flac", "wav")

# OpenAI refuses shorter recordings: "Minimum audio length is 0.1 seconds." They are followed by silence up to the
# second length, which leaves time for the rounding of codecs.
MIN_UPLOAD_S, PADDED_S = 0.1, 0.2

# A recording that is sent unchanged is decoded this far to find channels that cancel out: 20 ms for stereo MP3.
CANCELLATION_SEARCH_S = 10.0

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
        self.canceled_s = 0.0
        """Seconds in which only one of two channels is used, because a mix would be silent."""
        self._is_canceling: bool | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the recording that was sent."""
        if self.truncation_s is None:
            return self.channel_warnings
        return (
            f"the recording breaks off after {format_truncation(self.truncation_s)}; only the part before was sent",
            *self.channel_warnings,
        )

    @property
    def channel_warnings(self) -> tuple[str, ...]:
        """Warnings about the channels that were sent."""
        warning = describe_cancellation(self.canceled_s, self._recording.duration_s)
        return () if warning is None else (warning,)

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
        if "*" in accepted and allow_original:
            # The engine decodes the recording with our codec, which does not mix channels that cancel out.
            self.canceled_s = recording.duration_s if await self._has_canceling_channels() else 0.0
            return recording
        is_accepted = allow_original and recording.format in accepted and not recording.has_video
        if is_accepted and recording.duration_s >= MIN_UPLOAD_S and not await self._has_canceling_channels():
            return recording
        is_short = recording.duration_s <= MAX_LOSSLESS_S
        format = next((name for name in (LOSSLESS_FIRST if is_short else LOSSY_FIRST) if name in accepted), None)
        if format is None and is_accepted:
            return recording
        if format is None:
            raise UsageError(f"{route.ref} accepts only {', '.join(accepted)}, which audiocli cannot encode")
        if format not in self._converted:
            self._converted[format] = await self._convert(format)
        return self._converted[format]

    async def _has_canceling_channels(self) -> bool:
        """Return whether the recording would be silent if its channels were mixed. A damaged one is left as it is."""
        if self._is_canceling is None:
            try:
                self._is_canceling = await run_in_thread(lambda: find_wav_cancellation(self._recording.path))
                if self._is_canceling is None:
                    self._is_canceling = await self._decode_channels()
            except (RecordingError, OSError):
                self._is_canceling = False
        return self._is_canceling

    async def _decode_channels(self) -> bool:
        from ..codecs.convert import find_cancellation

        steps = find_cancellation(self._recording.path, CANCELLATION_SEARCH_S)
        is_canceling = False
        while not is_canceling and (answer := await run_in_thread(partial(next, steps, None))) is not None:
            is_canceling = answer
        steps.close()
        return is_canceling

    def remove(self) -> None:
        """Delete the converted copies."""
        for recording in self._converted.values():
            recording.path.unlink(missing_ok=True)

    async def _convert(self, format: str) -> Recording:
        converted = await convert_recording(self._recording, self._directory, format)
        self.canceled_s = converted.canceled_s
        if converted.recording.is_truncated:
            self.truncation_s = self._recording.offset_s + converted.recording.duration_s
        return converted.recording._replace(is_truncated=False)


class ConvertedRecording(NamedTuple):
    """A converted copy. In `canceled_s` seconds only one of two channels is used."""

    recording: Recording
    canceled_s: float


async def convert_recording(
    recording: Recording, directory: Path, format: str, selection: Selection = EVERYTHING
) -> ConvertedRecording:
    """Convert a recording, or what is selected of it, to a file of one channel at 16 kHz.

    Raises:
        RecordingError: The recording cannot be decoded.
        OutputError: The converted file cannot be written.
    """
    from ..codecs.convert import convert

    try:
        await run_in_thread(partial(directory.mkdir, parents=True, exist_ok=True, mode=0o700))
    except OSError as error:
        raise OutputError(f"cannot convert the recording in {directory}: {error.strerror}") from error
    format_info = formats.find_format(format)
    assert format_info is not None
    path = directory / f"{secrets.token_hex(4)}-upload{format_info.upload_suffix}"
    conversion = convert(
        recording.path,
        path,
        format,
        sample_rate_hz=SAMPLE_RATE_HZ,
        channels=1,
        min_duration_s=PADDED_S,
        selection=selection,
    )
    try:
        while await run_in_thread(partial(next, conversion, None)) is not None:
            continue
    except OSError as error:
        raise OutputError(f"cannot convert the recording in {directory}: {error.strerror or error}") from error
    finally:
        conversion.close()
    converted = Recording(
        path, format, path.stat().st_size, conversion.position_s, is_truncated=not conversion.is_complete
    )
    return ConvertedRecording(converted, conversion.canceled_s)
