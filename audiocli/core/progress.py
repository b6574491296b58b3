"""Progress of operations that consist of chunks. The command line renders it."""

from __future__ import annotations

import time

from ..types.ledger import CostSource


class Progress:
    """Counts and costs of chunks.

    `total_chunks` is None while unknown. Of `done_chunks`, `cached_chunks` were reused from an earlier run.
    """

    def __init__(self, total_chunks: int | None = None) -> None:
        self.total_chunks = total_chunks
        self.done_chunks = 0
        self.cached_chunks = 0
        self.costs: list[tuple[int | None, CostSource]] = []
        self._started_s = time.monotonic()

    @property
    def remaining_s(self) -> float | None:
        """Estimated remaining time in seconds at the current rate; None while unknown."""
        new_chunks = self.done_chunks - self.cached_chunks
        if self.total_chunks is None or new_chunks < 1:
            return None
        return (time.monotonic() - self._started_s) / new_chunks * (self.total_chunks - self.done_chunks)


class SpeechProgress(Progress):
    """Progress of long speech. `audio_s` is the length of the audio so far."""

    def __init__(self, total_chunks: int | None) -> None:
        super().__init__(total_chunks)
        self.audio_s = 0.0


class TranscriptionProgress(Progress):
    """Progress of long transcription.

    While the chunks are planned, `decoded_s` of `duration_s` (None if unknown) have been decoded.
    """

    def __init__(self, duration_s: float | None) -> None:
        super().__init__()
        self.duration_s = duration_s
        self.decoded_s = 0.0
