"""Samples of one shape in, of another out."""

from __future__ import annotations

from ..types.values import Pcm
from .pyav import ToSamples, frame_of


class Resampler:
    """Change the rate and the channels of s16le samples, cut anywhere, while they pass."""

    def __init__(self, source: Pcm, target: Pcm) -> None:
        self._source = source
        self._to_samples = ToSamples(target.sample_rate_hz, target.channels)
        self._remainder = b""

    def feed(self, samples: bytes) -> bytes:
        """Return what is ready: it lags behind by a few thousand samples."""
        whole = self._remainder + samples
        cut = len(whole) - len(whole) % self._source.frame_bytes
        self._remainder = whole[cut:]
        return self._to_samples.push(frame_of(whole[:cut], self._source)) if cut else b""

    def finish(self) -> bytes:
        """Return all that is left; half a sample at the end is dropped."""
        self._remainder = b""
        return self._to_samples.flush()
