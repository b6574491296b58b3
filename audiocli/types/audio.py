"""Properties of raw audio and of audio files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class PcmFormat(NamedTuple):
    """Format of raw audio: interleaved signed 16-bit little-endian samples.

    The defaults, 24,000 Hz mono, are what every gateway means by a bare `audio/pcm` (OpenAI text-to-speech guide, read
    2026-11).
    """

    sample_rate_hz: int = 24_000
    channels: int = 1

    @property
    def frame_bytes(self) -> int:
        """Bytes per frame, which is one sample of every channel."""
        return 2 * self.channels

    @property
    def bytes_per_second(self) -> int:
        return self.frame_bytes * self.sample_rate_hz


TELEPHONE_PCM = PcmFormat(8_000, 1)
"""Sample rate and channels of raw G.711 (ulaw, alaw), which never differ."""


class TimeRange(NamedTuple):
    """A part of a recording, in seconds from its start. Without `end_s` it extends to the end."""

    start_s: float = 0.0
    end_s: float | None = None


class Selection(NamedTuple):
    """What is transcribed of a recording. The default is all of it, with its channels mixed.

    Attributes:
        ranges: In order, without overlaps. Empty: from the start to the end.
        track: Number of an audio track from 1, or the code of its language; None is the track that a player chooses.
        channels: Indexes from 0. Empty: all channels.
        split_channels: Whether each channel gets a transcript of its own. Otherwise they are mixed.
        channel_names: The speakers of the channels, in order, if they are split.
    """

    ranges: tuple[TimeRange, ...] = ()
    track: int | str | None = None
    channels: tuple[int, ...] = ()
    split_channels: bool = False
    channel_names: tuple[str, ...] = ()

    @property
    def is_everything(self) -> bool:
        return self == EVERYTHING


EVERYTHING = Selection()


class AudioTrack(NamedTuple):
    """One audio track of a recording. `language` is the code that the file states; `duration_s` is None if unknown."""

    number: int
    codec: str
    language: str | None
    title: str | None
    channels: int
    sample_rate_hz: int
    duration_s: float | None
    is_default: bool


class Recording(NamedTuple):
    """A probed, but not decoded, file with audio.

    Attributes:
        format: A name in `audio.formats`.
        duration_s: The length of the audio that is present, counted in packets or samples. If not
            `is_duration_exact`, it is an estimate of the maximum: an upper bound for costs, and never used to clamp
            times.
        is_truncated: The file ends too early. `duration_s` is the length of what is present.
        selection: What is transcribed of it. `duration_s` is that of the complete track.
        original: The file that this one was extracted from, by `selection`.
    """

    path: Path
    format: str
    size_bytes: int
    duration_s: float = 0.0
    has_video: bool = False
    is_duration_exact: bool = True
    is_truncated: bool = False
    selection: Selection = EVERYTHING
    original: Path | None = None

    @property
    def offset_s(self) -> float:
        """Where an extracted recording starts in the original one."""
        has_range = self.original is not None and self.selection.ranges
        return self.selection.ranges[0].start_s if has_range else 0.0

    @property
    def exact_duration_s(self) -> float | None:
        """The length, or None if it is only estimated."""
        return self.duration_s if self.is_duration_exact else None
