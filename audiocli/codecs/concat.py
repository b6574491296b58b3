"""Concatenate the PCM of speech chunks, without clicks or lost samples and with exact positions."""

from __future__ import annotations

import array
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..audio.chunk_boundaries import Span
from ..types.audio import PcmFormat

if TYPE_CHECKING:
    from .resampler import Resampler

FADE_MS = 5.0
"""Long enough to prevent a click, too short to be audible itself."""


class PcmConcatenator:
    """Concatenate the s16le samples of several chunks into one stream.

    Call `start_chunk` and `feed` for each chunk, and `finish` after the last. Each call returns the samples that are
    ready: all but the last few milliseconds, which are faded if another chunk follows. Where chunks meet, both are
    faded; a single chunk is unchanged. `pcm` is the output format, by default that of the first chunk. Chunks in other
    formats are resampled. Use it from one thread at a time. One second of audio takes at most a millisecond.
    """

    def __init__(self, pcm: PcmFormat | None = None, *, fade_ms: float = FADE_MS) -> None:
        self.pcm = pcm
        self.sample_count = 0
        self._fade_ms = fade_ms
        self._fade_samples = 0
        self._pending = bytearray()
        self._resampler: Resampler | None = None
        self._chunk_start: int | None = None
        self._needs_fade_in = False
        self._spans: list[tuple[int, int]] = []

    @property
    def duration_s(self) -> float:
        """Length of the output so far in seconds."""
        return self.sample_count / self.pcm.sample_rate_hz if self.pcm is not None else 0.0

    @property
    def spans(self) -> tuple[Span, ...]:
        """Time ranges of the complete chunks in the output, without pauses. An empty chunk has no length."""
        rate = self.pcm.sample_rate_hz if self.pcm is not None else 1
        return tuple(Span(start / rate, end / rate) for start, end in self._spans)

    def start_chunk(self, pcm: PcmFormat, *, pause_ms: float = 0.0) -> bytes:
        """Complete the previous chunk, append a pause, and start a chunk with samples in this format."""
        out = self._complete_chunk(fade_out=True)
        if self.pcm is None:
            self.pcm = pcm
        self._fade_samples = round(self._fade_ms * self.pcm.sample_rate_hz / 1000)
        if self.sample_count:
            pause_samples = round(pause_ms * self.pcm.sample_rate_hz / 1000)
            out += bytes(pause_samples * self.pcm.frame_bytes)
            self.sample_count += pause_samples
        self._chunk_start, self._needs_fade_in = self.sample_count, self.sample_count > 0
        if pcm != self.pcm:
            # Imported here, because chunks of the same format need no codec.
            from .resampler import Resampler

            self._resampler = Resampler(pcm, self.pcm)
        return out

    def pad_until(self, start_s: float, pcm: PcmFormat) -> Iterator[bytes]:
        """Complete the previous chunk, and yield silence up to a time, in blocks of at most a second.

        `pcm` is the format of the output if no chunk has determined it yet.
        """
        yield self._complete_chunk(fade_out=True)
        if self.pcm is None:
            self.pcm = pcm
        start = round(start_s * self.pcm.sample_rate_hz)
        while self.sample_count < start:
            count = min(start - self.sample_count, self.pcm.sample_rate_hz)
            self.sample_count += count
            yield bytes(count * self.pcm.frame_bytes)

    def feed(self, samples: bytes) -> bytes:
        """Add samples of the chunk, in blocks of any length."""
        assert self.pcm is not None and self._chunk_start is not None, "call start_chunk first"
        converted = samples if self._resampler is None else self._resampler.feed(samples)
        ready_samples = (len(self._pending) + len(converted)) // self.pcm.frame_bytes - self._fade_samples
        split_bytes = ready_samples * self.pcm.frame_bytes - len(self._pending)
        if split_bytes < 0 or (self._needs_fade_in and self.sample_count - self._chunk_start < self._fade_samples):
            self._pending += converted
            return self._release(keep_samples=self._fade_samples)
        # Most blocks of a chunk take this path, which copies them once.
        out = b"".join((self._pending, memoryview(converted)[:split_bytes]))
        self._pending[:] = converted[split_bytes:]
        self.sample_count += ready_samples
        return out

    def finish(self) -> bytes:
        """Complete the last chunk, without a fade-out."""
        return self._complete_chunk(fade_out=False)

    def _complete_chunk(self, *, fade_out: bool) -> bytes:
        if self.pcm is None or self._chunk_start is None:
            return b""
        if self._resampler is not None:
            self._pending += self._resampler.finish()
            self._resampler = None
        out = self._release(keep_samples=self._fade_samples)
        if fade_out:
            # Drop an incomplete sample at the end.
            del self._pending[len(self._pending) // self.pcm.frame_bytes * self.pcm.frame_bytes :]
            remaining = len(self._pending) // self.pcm.frame_bytes
            self._pending[:] = _apply_gain(
                bytes(self._pending), self.pcm, lambda index: (remaining - 1 - index) / self._fade_samples
            )
        out += self._release(keep_samples=0)
        self._pending.clear()
        self._spans.append((self._chunk_start, self.sample_count))
        self._chunk_start = None
        return out

    def _release(self, *, keep_samples: int) -> bytes:
        """Return all but the last `keep_samples` pending samples, faded in at the start of a chunk."""
        assert self.pcm is not None and self._chunk_start is not None
        ready_samples = max(len(self._pending) // self.pcm.frame_bytes - keep_samples, 0)
        out = bytes(self._pending[: ready_samples * self.pcm.frame_bytes])
        del self._pending[: len(out)]
        released_samples = self.sample_count - self._chunk_start
        self.sample_count += ready_samples
        fade_bytes = max(self._fade_samples - released_samples, 0) * self.pcm.frame_bytes
        if not self._needs_fade_in or not fade_bytes:
            return out
        return (
            _apply_gain(out[:fade_bytes], self.pcm, lambda index: (released_samples + index) / self._fade_samples)
            + out[fade_bytes:]
        )


def _apply_gain(samples: bytes, pcm: PcmFormat, gain: Callable[[int], float]) -> bytes:
    """Multiply each sample by the gain for its index."""
    values = array.array("h", samples)
    if sys.byteorder == "big":
        values.byteswap()
    scaled = array.array("h", (int(value * gain(index // pcm.channels)) for index, value in enumerate(values)))
    if sys.byteorder == "big":
        scaled.byteswap()
    return scaled.tobytes()
