"""The pieces of a long recording as files of their own, made one by one when they are needed.

Where its packets can be copied, a piece costs next to nothing and keeps its sound. Else it is decoded and encoded
again, small and exact to the sample.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path

from ..audio.split_plan import RATE_HZ, Piece
from ..errors import RecordingError
from .convert import PcmReader
from .encoder import Encoder
from .packet_index import Packets
from .pcm_spool import MISSING_BYTES, PCM, PcmSpool
from .stream_copy import Copier

_STEP_S = 0.02
# So much of what was read is kept, because the next piece may begin before the end of this one. 0.5 MB.
_KEPT_BYTES = 16 * PCM.bytes_per_second


class Cutter:
    """Cuts pieces out of one recording. In order, all of them cost one reading; backwards, it begins anew.

    With `packets`, which is what hearing it told, pieces in one of their formats are copied. All others are encoded, as
    mono at `RATE_HZ`, from the `tape` if there is one, which is closed in the end. One piece at a time, and one thread.
    Nothing is held in memory but a few seconds of sound.
    """

    def __init__(self, source: Path, packets: Packets | None = None, tape: PcmSpool | None = None) -> None:
        self._tape = tape if tape is not None else _Decoded(source)
        self._copier = Copier(source, packets) if packets is not None else None

    def cut(self, piece: Piece, target: Path, format: str) -> Cut:
        """Write a piece into a file, in any format that `formats` can write or `packets` names."""
        if self._copier is not None and self._copier.copies(format):
            return Cut(self._copier, piece, target, format)
        return Cut(self._tape, piece, target, format)

    def close(self) -> None:
        """Close the recording. Files that were cut stay."""
        self._tape.close()
        if self._copier is not None:
            self._copier.close()


class Cut:
    """One piece being written; every step takes about 50 ms at most and tells how many seconds of it are done.

    Steps that only look for the beginning of the piece tell 0. The target is whole after the last step, and gone if
    there is none (an error, `close`). Then `start_s` and `end_s` are where in the recording the sound in it truly
    begins and ends: a copy begins some packets early. Raises, from the first step on: RecordingError (also when the
    recording ends before the piece: it is not the one that was heard), OSError (either file), OutputError.
    """

    def __init__(self, source: PcmSpool | _Decoded | Copier, piece: Piece, target: Path, format: str) -> None:
        self.start_s, self.end_s = piece.start_s, piece.end_s
        self._steps = self._run(source, piece, target, format)

    def __iter__(self) -> Cut:
        return self

    def __next__(self) -> float:
        return next(self._steps)

    def close(self) -> None:
        """Stop, and remove what was written, unless it is whole."""
        self._steps.close()

    def _run(
        self, source: PcmSpool | _Decoded | Copier, piece: Piece, target: Path, format: str
    ) -> Generator[float, None, None]:
        done = False
        try:
            with target.open("wb") as file:
                if isinstance(source, Copier):
                    self.start_s, self.end_s = yield from source.copy(piece, file, format)
                else:
                    with Encoder(format, PCM, file, quick=True) as encoder:
                        yield from _encoded(source, piece, encoder)
            done = True
        finally:
            if not done and target.is_file():
                target.unlink()
        yield piece.duration_s


def _encoded(tape: PcmSpool | _Decoded, piece: Piece, encoder: Encoder) -> Generator[float, None, None]:
    at, begun = piece.start, time.perf_counter()
    while at < piece.end:
        samples = tape.read(at, piece.end)
        encoder.feed(samples)
        at += len(samples) // PCM.frame_bytes
        if time.perf_counter() - begun >= _STEP_S:
            yield (at - piece.start) / RATE_HZ
            begun = time.perf_counter()
    encoder.finish()


class _Decoded:
    """The samples of a recording by their place. What was read a moment ago is read again from memory."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._sound = PcmReader(source, RATE_HZ, 1)
        self._kept = bytearray()
        self._kept_from = 0

    def read(self, start: int, end: int) -> bytes:
        """Return some samples from `start` on, at most up to `end`; b"" if the place is still being looked for.

        Raises: RecordingError: there are none.
        """
        first, last = start * PCM.frame_bytes, end * PCM.frame_bytes
        if first < self._kept_from:
            self.close()
            self._sound, self._kept, self._kept_from = PcmReader(self._source, RATE_HZ, 1), bytearray(), 0
        if first >= self._kept_from + len(self._kept):
            self._advance(last)
        here = first - self._kept_from
        return bytes(self._kept[here : min(last - self._kept_from, here + PCM.bytes_per_second)])

    def close(self) -> None:
        self._sound.close()

    def _advance(self, last: int) -> None:
        more = next(self._sound, None)
        if more is None:
            missing = last - self._kept_from - len(self._kept)
            if missing > MISSING_BYTES:
                raise RecordingError(f"{self._source}: it ends earlier than when it was listened to; was it changed?")
            more = bytes(missing)
        self._kept += more
        surplus = len(self._kept) - _KEPT_BYTES
        if surplus > 0:
            del self._kept[:surplus]
            self._kept_from += surplus
