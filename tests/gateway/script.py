"""The queue of faults, and the gate that holds replies back."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from .faults import LONGEST_S, Fault, Normal, Status, expand


@dataclass(frozen=True, slots=True)
class Entry:
    """A fault, and the requests that it is meant for; None fits all."""

    fault: Fault
    dialect: str | None
    path: str | None
    model: str | None
    method: str

    def fits(self, method: str, dialect: str, path: str, model: str | None) -> bool:
        return (
            self.method == method
            and self.dialect in (None, dialect)
            and (self.path is None or path.endswith(self.path))
            and self.model in (None, model)
        )


class Script:
    """Thread-safe. The first entry that fits is taken; with none left the standing faults apply, newest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: list[Entry] = []
        self._standing: list[Entry] = []

    def add(
        self,
        faults: tuple[Fault, ...],
        *,
        standing: bool,
        dialect: str | None,
        path: str | None,
        model: str | None,
        method: str,
    ) -> None:
        entries = [Entry(fault, dialect, path, model, method) for fault in expand(faults)]
        with self._lock:
            if standing:
                self._standing[:0] = entries
            else:
                self._queue += entries

    def clear(self) -> None:
        with self._lock:
            self._queue.clear()
            self._standing.clear()

    @property
    def left(self) -> list[Fault]:
        with self._lock:
            return [entry.fault for entry in self._queue]

    def take(self, method: str, dialect: str, path: str, model: str | None) -> Fault:
        with self._lock:
            for at, entry in enumerate(self._queue):
                if entry.fits(method, dialect, path, model):
                    return self._queue.pop(at).fault
            return next((e.fault for e in self._standing if e.fits(method, dialect, path, model)), Normal())

    def take_early(self, method: str, dialect: str, path: str) -> Status | None:
        """Take the next fault if it answers before the body is read. The model is not known yet."""
        with self._lock:
            for entry in [*self._queue, *self._standing]:
                if entry.fits(method, dialect, path, None):
                    if not isinstance(entry.fault, Status) or not entry.fault.early:
                        return None
                    if entry in self._queue:
                        self._queue.remove(entry)
                    return entry.fault
        return None


class Gate:
    """Holds replies to POSTs until they are let go, at most a minute."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shut = False
        self._waiting = 0
        self.after_bytes: int | None = None

    def shut(self, after_bytes: int | None) -> None:
        with self._changed:
            self._shut, self.after_bytes = True, after_bytes

    def open(self) -> None:
        with self._changed:
            self._shut, self.after_bytes = False, None
            self._changed.notify_all()

    def pass_at(self, position: int | None) -> None:
        """Wait here if the gate is shut at or before this byte of the body; None is before the status line."""
        with self._changed:
            after = self.after_bytes
            if not self._shut or (position is None) != (after is None) or (position or 0) < (after or 0):
                return
            self._waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._shut, LONGEST_S)
            self._waiting -= 1

    def wait_for(self, count: int, timeout_s: float) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting >= count, timeout_s):
                raise TimeoutError(f"{self._waiting} replies are held after {timeout_s} s, not {count}")
