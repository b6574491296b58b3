"""Spoken pieces set end to end, as samples: no clicks between them, nothing lost, and every length exact."""

from __future__ import annotations

import array
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..audio.split_plan import Span
from ..types.values import Pcm

if TYPE_CHECKING:
    from .resampler import Resampler

FADE_MS = 5.0
"""Long enough that a jump is not heard as a click, too short to be heard itself."""


class PcmConcatenator:
    """Makes one stream of s16le samples out of those of several pieces, as they come, for one encoder.

    `begin` a piece, `feed` it, and so on; `finish` after the last. Each returns the samples that are ready: all but
    the last few milliseconds, which fade if another piece follows. Where pieces meet both are faded; a piece alone
    stays as it is. `pcm` is the shape that comes out: that of the first piece, unless another is given. Pieces of other
    shapes are converted. One thread at a time; a second of sound costs a millisecond at most.
    """

    def __init__(self, pcm: Pcm | None = None, *, fade_ms: float = FADE_MS) -> None:
        self.pcm = pcm
        self.samples = 0
        self._fade_ms = fade_ms
        self._fade = 0
        self._held = bytearray()
        self._reshaper: Resampler | None = None
        self._begins: int | None = None
        self._fades_in = False
        self._spans: list[tuple[int, int]] = []

    @property
    def spans(self) -> tuple[Span, ...]:
        """Where the pieces that are complete stand in the whole, without the pauses; an empty one has no length."""
        rate = self.pcm.sample_rate_hz if self.pcm is not None else 1
        return tuple(Span(start / rate, end / rate) for start, end in self._spans)

    def begin(self, pcm: Pcm, *, pause_ms: float = 0.0) -> bytes:
        """Complete the piece before, put a pause after it, and begin one with samples of this shape."""
        out = self._complete(fades_out=True)
        if self.pcm is None:
            self.pcm = pcm
        self._fade = round(self._fade_ms * self.pcm.sample_rate_hz / 1000)
        if self.samples:
            pause = round(pause_ms * self.pcm.sample_rate_hz / 1000)
            out += bytes(pause * self.pcm.frame_bytes)
            self.samples += pause
        self._begins, self._fades_in = self.samples, self.samples > 0
        if pcm != self.pcm:
            # Here, for most pieces have one shape and need no codec.
            from .resampler import Resampler

            self._reshaper = Resampler(pcm, self.pcm)
        return out

    def feed(self, samples: bytes) -> bytes:
        """Take samples of the piece, cut anywhere."""
        assert self.pcm is not None and self._begins is not None, "fed before it has begun"
        more = samples if self._reshaper is None else self._reshaper.feed(samples)
        ready = (len(self._held) + len(more)) // self.pcm.frame_bytes - self._fade
        cut = ready * self.pcm.frame_bytes - len(self._held)
        if cut < 0 or (self._fades_in and self.samples - self._begins < self._fade):
            self._held += more
            return self._pass_on(keep=self._fade)
        # Most of a piece passes here, copied once.
        out = b"".join((self._held, memoryview(more)[:cut]))
        self._held[:] = more[cut:]
        self.samples += ready
        return out

    def finish(self) -> bytes:
        """Complete the last piece, whose end stays as it is."""
        return self._complete(fades_out=False)

    def _complete(self, *, fades_out: bool) -> bytes:
        if self.pcm is None or self._begins is None:
            return b""
        if self._reshaper is not None:
            self._held += self._reshaper.finish()
            self._reshaper = None
        out = self._pass_on(keep=self._fade)
        if fades_out:
            # Half a sample at the end goes no further.
            del self._held[len(self._held) // self.pcm.frame_bytes * self.pcm.frame_bytes :]
            left = len(self._held) // self.pcm.frame_bytes
            self._held[:] = _scaled(bytes(self._held), self.pcm, lambda place: (left - 1 - place) / self._fade)
        out += self._pass_on(keep=0)
        self._held.clear()
        self._spans.append((self._begins, self.samples))
        self._begins = None
        return out

    def _pass_on(self, *, keep: int) -> bytes:
        """Let all go but so many samples, faded in where the piece has just begun."""
        assert self.pcm is not None and self._begins is not None
        ready = max(len(self._held) // self.pcm.frame_bytes - keep, 0)
        out = bytes(self._held[: ready * self.pcm.frame_bytes])
        del self._held[: len(out)]
        passed = self.samples - self._begins
        self.samples += ready
        fresh = max(self._fade - passed, 0) * self.pcm.frame_bytes
        if not self._fades_in or not fresh:
            return out
        return _scaled(out[:fresh], self.pcm, lambda place: (passed + place) / self._fade) + out[fresh:]


def _scaled(samples: bytes, pcm: Pcm, gain: Callable[[int], float]) -> bytes:
    """Multiply samples by a gain for each place."""
    values = array.array("h", samples)
    if sys.byteorder == "big":
        values.byteswap()
    scaled = array.array("h", (int(value * gain(at // pcm.channels)) for at, value in enumerate(values)))
    if sys.byteorder == "big":
        scaled.byteswap()
    return scaled.tobytes()
