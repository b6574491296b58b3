"""Hear a whole recording once: where it is silent, and how long it really is."""

from __future__ import annotations

import array
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from ..audio.split_plan import RATE_HZ, Span
from ..types.values import Pcm
from .convert import PcmReader
from .packet_index import Packets
from .pcm_spool import PCM, PcmSpool
from .probe import audio_track, opened
from .resampler import Resampler

# Nothing but silence is as quiet as the first, for a quiet room is around -60 dBFS; what is left out must be. A cut may
# fall into what is as quiet as the second: between the words, in most recordings.
SILENT_UP_TO_DBFS = -50.0
QUIET_UP_TO_DBFS = -40.0
# The closing of the lips before a p lasts a tenth of a second and is no pause.
SHORTEST_S = 0.3

_WINDOWS_PER_S = 50
# Of what is loud so many samples are looked at in a window; of what may be quiet, as many in a second as a recogniser
# hears, or nearly.
_GLANCES = 46
_ROUNDING_S = 1e-6
_STEP_S = 0.02


class SilenceScan:
    """One pass through a recording; every step tells how many seconds are done, and takes about 50 ms at most.

    After the last step `silences` and `pauses` are all there are, in order, as `cuts.plan` wants them; `samples` is the
    true length at `cuts.RATE_HZ`, and `complete` is False when the recording broke off there. Positions are those of
    `convert.Sound`. What is heard goes onto the `tape`, which is None in the end if there was no room for it.

    Raises, from the first step on: RecordingError, OSError.
    """

    def __init__(
        self, source: Path, silent_dbfs: float, quiet_dbfs: float, shortest_s: float, tape: PcmSpool | None
    ) -> None:
        self.tape = tape
        self.silences: tuple[Span, ...] = ()
        self.pauses: tuple[Span, ...] = ()
        self.samples = 0
        self._heard_s = 0.0
        self._sound: PcmReader | None = None
        self._steps = self._run(source, (silent_dbfs, quiet_dbfs), shortest_s)

    @property
    def complete(self) -> bool:
        return self._sound is None or self._sound.complete

    @property
    def packets(self) -> Packets | None:
        """What there is to know for cutting without decoding; None: that would not be exact."""
        return self._sound.packets if self._sound is not None else None

    @property
    def seconds(self) -> float:
        """How much has been heard."""
        return self._heard_s

    def __iter__(self) -> SilenceScan:
        return self

    def __next__(self) -> float:
        return next(self._steps)

    def close(self) -> None:
        """Stop, and close the file."""
        self._steps.close()
        if self._sound is not None:
            self._sound.close()

    def _run(self, source: Path, levels_dbfs: tuple[float, float], shortest_s: float) -> Generator[float, None, None]:
        self._sound = PcmReader(source, *_shape(source))
        detector = _Detector(self._sound.pcm, levels_dbfs, shortest_s)
        reshaper = Resampler(self._sound.pcm, PCM)
        begun = time.perf_counter()
        for piece in self._sound:
            detector.hear(piece)
            if self.tape is not None:
                self._keep(reshaper.feed(piece))
            if time.perf_counter() - begun >= _STEP_S:
                self._heard_s = self._sound.seconds
                yield self.seconds
                begun = time.perf_counter()
        self._heard_s = self._sound.seconds
        self.samples = int(self._heard_s * RATE_HZ)
        if self.tape is not None:
            self._keep(reshaper.finish())
        self.silences, self.pauses = detector.finish()
        yield self.seconds

    def _keep(self, samples: bytes) -> None:
        assert self.tape is not None
        try:
            self.tape.write(samples)
        except OSError:
            # Then it is decoded again.
            self.tape.close()
            self.tape = None


def _shape(source: Path) -> tuple[int, int]:
    """Tell in which rate and how many channels to listen: in its own rate, for to resample takes a third of the time.

    Two channels mixed into one would cancel each other out where a plug was reversed; one as two would be 3 dB quieter
    than it is, and takes longer.
    """
    with opened(source) as container:
        codec = audio_track(source, container).codec_context
        return codec.sample_rate or RATE_HZ, 1 if codec.layout.nb_channels == 1 else 2


class _Detector:
    """Finds the silences below several levels, to a window of 20 ms: one with a louder sample in it is not silent.

    In Python, and yet thousands of times real time: where somebody speaks, a few samples in every stretch as long as
    the shortest silence that counts tell that there is none in it. libav's own silencedetect is slower, and PyAV cannot
    read its answers before 18.1.
    """

    def __init__(self, pcm: Pcm, levels_dbfs: Sequence[float], shortest_s: float) -> None:
        self._runs = [_Run(int(32_768 * 10 ** (level / 20)), shortest_s) for level in levels_dbfs]
        self._loudest = max(run.limit for run in self._runs)
        window = max(pcm.sample_rate_hz // _WINDOWS_PER_S, 1)
        self._window_s = window / pcm.sample_rate_hz
        self._width = window * pcm.channels
        self._leap = max(int(shortest_s / self._window_s), 1)
        # Odd steps, so that they meet both channels.
        self._glance = self._width // _GLANCES | 1
        self._look = pcm.sample_rate_hz // RATE_HZ | 1
        # The samples from this window on.
        self._values, self._begin = array.array("h"), 0
        self._is_quiet = False

    def hear(self, samples: bytes) -> None:
        """Take whole samples."""
        more = array.array("h", samples)
        if sys.byteorder == "big":
            more.byteswap()
        self._values += more
        whole, at = len(self._values) // self._width, 0
        while at + (stride := 1 if self._is_quiet else self._leap) <= whole:
            if self._is_quiet or not self._is_loud(at + stride - 1):
                for place in range(at, at + stride):
                    self._look_closely(place)
            at += stride
        del self._values[: at * self._width]
        self._begin += at

    def finish(self) -> tuple[tuple[Span, ...], ...]:
        """Return the silences of every level; one that has no end lasts to the end of the recording."""
        for place in range(-(-len(self._values) // self._width)):
            self._look_closely(place)
        end_s = (self._begin + len(self._values) / self._width) * self._window_s
        for run in self._runs:
            run.close(end_s)
        return tuple(tuple(run.found) for run in self._runs)

    def _is_loud(self, place: int) -> bool:
        return max(self._values[place * self._width : (place + 1) * self._width : self._glance]) > self._loudest

    def _look_closely(self, place: int) -> None:
        window = self._values[place * self._width : (place + 1) * self._width : self._look]
        peak, at_s = max(max(window), -min(window)), (self._begin + place) * self._window_s
        for run in self._runs:
            if peak > run.limit:
                run.close(at_s)
            elif run.begun_s is None:
                run.begun_s = at_s
        self._is_quiet = any(run.begun_s is not None for run in self._runs)


class _Run:
    """The silences below one level."""

    def __init__(self, limit: int, shortest_s: float) -> None:
        self.limit = limit
        self.begun_s: float | None = None
        self.found: list[Span] = []
        self._shortest_s = shortest_s

    def close(self, at_s: float) -> None:
        """Note the silence that ends here, if there is one."""
        # What is as long as the shortest to the sample must not miss it by the rounding of its times.
        if self.begun_s is not None and at_s - self.begun_s > self._shortest_s - _ROUNDING_S:
            self.found.append(Span(self.begun_s, at_s))
        self.begun_s = None


def listen(
    source: Path,
    *,
    silent_dbfs: float = SILENT_UP_TO_DBFS,
    quiet_dbfs: float = QUIET_UP_TO_DBFS,
    shortest_s: float = SHORTEST_S,
    tape: PcmSpool | None = None,
) -> SilenceScan:
    """Hear a recording through. Silences and pauses that are shorter than `shortest_s` do not count."""
    return SilenceScan(source, silent_dbfs, quiet_dbfs, shortest_s, tape)
