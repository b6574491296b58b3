"""How far something that is done in pieces has come, for whoever shows it."""

from __future__ import annotations

import time

from ..types.values import CostSource


class Progress:
    """Pieces in all (None: not known yet), those that are done, and those of them that an earlier run had done."""

    def __init__(self, pieces: int | None = None) -> None:
        self.pieces = pieces
        self.done = 0
        self.kept = 0
        self.costs: list[tuple[int | None, CostSource]] = []
        self._started_s = time.monotonic()

    @property
    def left_s(self) -> float | None:
        """How long the rest will take, if it goes on like this; None: not known yet."""
        fresh = self.done - self.kept
        if self.pieces is None or fresh < 1:
            return None
        return (time.monotonic() - self._started_s) / fresh * (self.pieces - self.done)


class SpeakingProgress(Progress):
    """`audio_s` is how much has been spoken."""

    def __init__(self, pieces: int | None) -> None:
        super().__init__(pieces)
        self.audio_s = 0.0


class HearingProgress(Progress):
    """`heard_s` is how much was listened to, of `duration_s` if that is known, before there were pieces."""

    def __init__(self, duration_s: float | None) -> None:
        super().__init__()
        self.duration_s = duration_s
        self.heard_s = 0.0
