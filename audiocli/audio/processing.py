"""What is done to the samples of speech before they are encoded, as values, without a codec."""

from __future__ import annotations

import math
from typing import NamedTuple

MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ = 8_000, 192_000
MIN_TEMPO, MAX_TEMPO = 0.25, 4.0
MIN_LOUDNESS_LUFS, MAX_LOUDNESS_LUFS = -70.0, -5.0
# Twice this would round to the same number of samples.
_SAME_TEMPO = 1e-6


class Processing(NamedTuple):
    """Processing of samples, in this order: tempo, sample rate, loudness. None leaves a property as it is.

    Attributes:
        sample_rate_hz: Sample rate of the final audio. A format without this rate is resampled once more.
        tempo: Factor of the speed, with the same pitch: 2 halves the duration.
        loudness_lufs: Integrated loudness by EBU R128, with a true peak of at most -1 dBTP. It is known at the end
            only, so nothing is written before.
    """

    sample_rate_hz: int | None = None
    tempo: float | None = None
    loudness_lufs: float | None = None

    @property
    def is_active(self) -> bool:
        """Whether anything is to be done."""
        return self.sample_rate_hz is not None or self.changes_tempo or self.loudness_lufs is not None

    @property
    def changes_tempo(self) -> bool:
        return self.tempo is not None and abs(self.tempo - 1) > _SAME_TEMPO

    @property
    def scale(self) -> float:
        """What times in the speech are multiplied by to get times in the final audio."""
        return 1 / self.tempo if self.tempo is not None else 1.0


def fit_tempo(duration_s: float, available_s: float, max_factor: float, *, min_factor: float = 1.0) -> float:
    """Return the tempo at which speech fits into the time available, within limits.

    Speech that is too long even at `max_factor` overlaps what follows; the caller compares the durations. By default
    speech is not slowed down to fill the time.
    """
    if duration_s <= 0:
        return 1.0
    factor = duration_s / available_s if available_s > 0 else math.inf
    lower, upper = max(min_factor, MIN_TEMPO), min(max_factor, MAX_TEMPO)
    return min(max(factor, lower), upper)
