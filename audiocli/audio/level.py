"""Measure the level of a live recording, and how long it has been silent."""

from __future__ import annotations

import array
import math
import sys

from ..types.audio import PcmFormat

# Shorter than a syllable.
WINDOW_S = 0.05
# Sound is louder than the quietest moment so far by this, and never quieter than the second value.
MIN_RISE_DB = 10.0
MIN_SOUND_DBFS = -55.0
# The quietest moment counts less with time, because noise changes.
FLOOR_RISE_DB_PER_S = 0.5
# What the quietest moment is taken for at the start, when there may be speech immediately.
FIRST_FLOOR_DBFS = -45.0
# A click is shorter.
MIN_SOUND_S = 0.2
LOWEST_DBFS = -96.0


class LevelMeter:
    """Measures 16-bit samples while they are recorded.

    `level_dbfs` is the level of the last window, `silent_s` the time since the last sound, `position_s` the length so
    far. `has_sound`: there was sound of at least `MIN_SOUND_S`.
    """

    def __init__(self, pcm: PcmFormat) -> None:
        self._pcm = pcm
        self._window_bytes = round(WINDOW_S * pcm.sample_rate_hz) * pcm.frame_bytes
        self._pending = b""
        self._floor_dbfs = FIRST_FLOOR_DBFS
        self._sound_s = 0.0
        self.level_dbfs = LOWEST_DBFS
        self.silent_s = 0.0
        self.position_s = 0.0

    @property
    def has_sound(self) -> bool:
        return self._sound_s >= MIN_SOUND_S

    @property
    def level_share(self) -> float:
        """The level as a share of a bar, from 0 at -60 dBFS to 1."""
        return min(max((self.level_dbfs + 60) / 60, 0.0), 1.0)

    def feed(self, samples: bytes) -> None:
        """Add samples, which need not be complete windows."""
        self._pending += samples
        count = len(self._pending) // self._window_bytes
        for index in range(count):
            self._measure(self._pending[index * self._window_bytes : (index + 1) * self._window_bytes])
        self._pending = self._pending[count * self._window_bytes :]

    def _measure(self, window: bytes) -> None:
        values = array.array("h", window)
        if sys.byteorder == "big":
            values.byteswap()
        mean_square = sum(value * value for value in values) / len(values)
        self.level_dbfs = 10 * math.log10(mean_square / 32_768**2) if mean_square else LOWEST_DBFS
        self._floor_dbfs = max(min(self._floor_dbfs + FLOOR_RISE_DB_PER_S * WINDOW_S, self.level_dbfs), LOWEST_DBFS)
        self.position_s += WINDOW_S
        if self.level_dbfs > max(self._floor_dbfs + MIN_RISE_DB, MIN_SOUND_DBFS):
            self._sound_s += WINDOW_S
            self.silent_s = 0.0
        else:
            self.silent_s += WINDOW_S
