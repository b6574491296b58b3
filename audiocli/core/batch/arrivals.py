"""Find out which files of a watched directory are complete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

# A file is complete when its size and its time have not changed for this long.
QUIET_S = 2.0


class FileState(NamedTuple):
    """What changes while a file is written."""

    size_bytes: int
    mtime_ns: int


class _Observation(NamedTuple):
    state: FileState
    quiet_since_s: float


class ArrivalTracker:
    """Remembers the states of files, and which of them were processed in that state.

    Times are those of a monotonic clock. A file that disappears is forgotten, so one that returns is new.
    """

    def __init__(self) -> None:
        self._observed: dict[Path, _Observation] = {}
        self._processed: dict[Path, FileState] = {}

    def update(
        self, found: Mapping[Path, FileState], now_s: float, *, modified_before_ns: int | None = None
    ) -> list[Path]:
        """Return the complete files that were not processed in their present state, in the order of `found`.

        Args:
            modified_before_ns: Files with an earlier time count as complete although they were not observed: those
                that exist when the watch begins.
        """
        ready = []
        observed: dict[Path, _Observation] = {}
        for path, state in found.items():
            previous = self._observed.get(path)
            if previous is None or previous.state != state:
                is_old = modified_before_ns is not None and state.mtime_ns < modified_before_ns
                previous = _Observation(state, now_s - QUIET_S if is_old else now_s)
            observed[path] = previous
            if self._processed.get(path) != state and state.size_bytes and now_s - previous.quiet_since_s >= QUIET_S:
                ready.append(path)
        self._observed = observed
        self._processed = {path: state for path, state in self._processed.items() if path in found}
        return ready

    def mark_processed(self, paths: Iterable[Path]) -> None:
        """Remember that files were processed in the state in which they were observed."""
        for path in paths:
            self._processed[path] = self._observed[path].state

    def compute_wait_s(self, now_s: float) -> float | None:
        """Return the seconds until the next file may be complete; None if no file is waiting."""
        waits = [
            observation.quiet_since_s + QUIET_S - now_s
            for path, observation in self._observed.items()
            if observation.state.size_bytes and self._processed.get(path) != observation.state
        ]
        return max(min(waits), 0.0) if waits else None
