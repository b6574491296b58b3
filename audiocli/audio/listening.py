"""Hear a whole recording once: where it is silent, and how long it really is."""

from __future__ import annotations

import array
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from ..vocabulary import Pcm
from .convert import Sound
from .copies import Packets
from .cuts import RATE_HZ, Span
from .probe import audio_track, opened

# Nothing but silence is as quiet as the first, for a quiet room is around -60 dBFS; what is left out must be. A cut may
# fall into what is as quiet as the second: between the words, in most recordings.
SILENT_UP_TO_DBFS = -50.0
QUIET_UP_TO_DBFS = -40.0
# The closing of the lips before a p lasts a tenth of a second and is no pause.
SHORTEST_S = 0.3

_WINDOW = RATE_HZ // 50
_STRIDE = 7
_STEP_S = 0.02


class Listening:
    """One pass through a recording; every step tells how many seconds are done, and takes about 50 ms at most.

    After the last step `silences` and `pauses` are all there are, in order, as `cuts.plan` wants them; `samples` is the
    true length at `cuts.RATE_HZ`, and `complete` is False when the recording broke off there. Positions are those of
    `convert.Sound`. Raises, from the first step on: RecordingError, OSError.
    """

    def __init__(self, source: Path, silent_dbfs: float, quiet_dbfs: float, shortest_s: float) -> None:
        self.silences: tuple[Span, ...] = ()
        self.pauses: tuple[Span, ...] = ()
        self.samples = 0
        self._sound: Sound | None = None
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
        return self.samples / RATE_HZ

    def __iter__(self) -> Listening:
        return self

    def __next__(self) -> float:
        return next(self._steps)

    def close(self) -> None:
        """Stop, and close the file."""
        self._steps.close()
        if self._sound is not None:
            self._sound.close()

    def _run(self, source: Path, levels_dbfs: tuple[float, float], shortest_s: float) -> Generator[float, None, None]:
        self._sound = Sound(source, RATE_HZ, _channels(source))
        detector = _Detector(self._sound.pcm, levels_dbfs, shortest_s)
        begun = time.perf_counter()
        for piece in self._sound:
            self.samples += detector.hear(piece)
            if time.perf_counter() - begun >= _STEP_S:
                yield self.seconds
                begun = time.perf_counter()
        self.silences, self.pauses = detector.finish()
        yield self.seconds


def _channels(source: Path) -> int:
    """Tell how to listen: two channels mixed into one would cancel each other out where a plug was reversed.

    One as two would be 3 dB quieter than it is, and takes longer.
    """
    with opened(source) as container:
        return 1 if audio_track(source, container).codec_context.layout.nb_channels == 1 else 2


class _Detector:
    """Finds the silences below several levels, to a window of 20 ms: one with a louder sample in it is not silent.

    In Python, and yet more than a thousand times real time: a few samples are enough to tell that somebody speaks.
    libav's own silencedetect is hardly faster, and PyAV cannot read its answers before 18.1.
    """

    def __init__(self, pcm: Pcm, levels_dbfs: Sequence[float], shortest_s: float) -> None:
        self._runs = [_Run(int(32_768 * 10 ** (level / 20)), round(shortest_s * RATE_HZ)) for level in levels_dbfs]
        self._loudest = max(run.limit for run in self._runs)
        self._channels = pcm.channels
        self._values = array.array("h")
        self._samples = 0
        self._is_quiet = False

    def hear(self, samples: bytes) -> int:
        """Take whole samples; return how many they are."""
        more = array.array("h", samples)
        if sys.byteorder == "big":
            more.byteswap()
        self._values += more
        width = _WINDOW * self._channels
        whole = len(self._values) - len(self._values) % width
        for at in range(0, whole, width):
            self._note(self._values[at : at + width])
        del self._values[:whole]
        return len(more) // self._channels

    def finish(self) -> tuple[tuple[Span, ...], ...]:
        """Return the silences of every level; one that has no end lasts to the end of the recording."""
        if self._values:
            self._note(self._values)
        for run in self._runs:
            run.close(self._samples)
        return tuple(tuple(run.found) for run in self._runs)

    def _note(self, window: array.array[int]) -> None:
        # An odd step, so that it meets both channels.
        peak = max(window[::_STRIDE])
        if peak > self._loudest and not self._is_quiet:
            self._samples += len(window) // self._channels
            return
        if peak <= self._loudest:
            peak = max(max(window), -min(window))
        for run in self._runs:
            if peak > run.limit:
                run.close(self._samples)
            elif run.begun is None:
                run.begun = self._samples
        self._is_quiet = any(run.begun is not None for run in self._runs)
        self._samples += len(window) // self._channels


class _Run:
    """The silences below one level."""

    def __init__(self, limit: int, shortest: int) -> None:
        self.limit = limit
        self.begun: int | None = None
        self.found: list[Span] = []
        self._shortest = shortest

    def close(self, at: int) -> None:
        """Note the silence that ends here, if there is one."""
        if self.begun is not None and at - self.begun >= self._shortest:
            self.found.append(Span(self.begun / RATE_HZ, at / RATE_HZ))
        self.begun = None


def listen(
    source: Path,
    *,
    silent_dbfs: float = SILENT_UP_TO_DBFS,
    quiet_dbfs: float = QUIET_UP_TO_DBFS,
    shortest_s: float = SHORTEST_S,
) -> Listening:
    """Hear a recording through. Silences and pauses that are shorter than `shortest_s` do not count."""
    return Listening(source, silent_dbfs, quiet_dbfs, shortest_s)
