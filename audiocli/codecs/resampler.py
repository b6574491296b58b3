"""Resample PCM streams."""

from __future__ import annotations

from ..types.audio import PcmFormat
from .pyav import SampleConverter, build_frame


class Resampler:
    """Change the sample rate and the channels of a stream of s16le samples, in blocks of any length."""

    def __init__(self, source: PcmFormat, target: PcmFormat) -> None:
        self._source = source
        self._converter = SampleConverter(target.sample_rate_hz, target.channels)
        self._remainder = b""

    def feed(self, samples: bytes) -> bytes:
        """Return the samples that are ready. Output lags behind by a few thousand samples."""
        pending = self._remainder + samples
        end = len(pending) - len(pending) % self._source.frame_bytes
        self._remainder = pending[end:]
        return self._converter.push(build_frame(pending[:end], self._source)) if end else b""

    def finish(self) -> bytes:
        """Return all remaining samples. An incomplete sample at the end is dropped."""
        self._remainder = b""
        return self._converter.flush()
