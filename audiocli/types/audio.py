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


class Recording(NamedTuple):
    """A probed, but not decoded, file with audio.

    Attributes:
        format: A name in `audio.formats`.
        duration_s: The length of the audio that is present, counted in packets or samples. If not
            `is_duration_exact`, it is an estimate of the maximum: an upper bound for costs, and never used to clamp
            times.
        is_truncated: The file ends too early. `duration_s` is the length of what is present.
    """

    path: Path
    format: str
    size_bytes: int
    duration_s: float = 0.0
    has_video: bool = False
    is_duration_exact: bool = True
    is_truncated: bool = False

    @property
    def exact_duration_s(self) -> float | None:
        """The length, or None if it is only estimated."""
        return self.duration_s if self.is_duration_exact else None
