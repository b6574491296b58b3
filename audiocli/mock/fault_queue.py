"""The queue of faults, and the gate that holds responses."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from .faults import MAX_FAULT_S, Fault, NoFault, Status, expand_bursts


@dataclass(frozen=True, slots=True)
class QueuedFault:
    """A fault and the requests that it applies to; None matches every request."""

    fault: Fault
    dialect: str | None
    path: str | None
    model: str | None
    method: str

    def matches(self, method: str, dialect: str, path: str, model: str | None) -> bool:
        return (
            self.method == method
            and self.dialect in (None, dialect)
            and (self.path is None or path.endswith(self.path))
            and self.model in (None, model)
        )


class FaultQueue:
    """Thread-safe queue of faults.

    The first entry that matches a request is taken. If none matches, the default faults apply, the newest first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: list[QueuedFault] = []
        self._defaults: list[QueuedFault] = []

    def add(
        self,
        faults: tuple[Fault, ...],
        *,
        is_default: bool,
        dialect: str | None,
        path: str | None,
        model: str | None,
        method: str,
    ) -> None:
        entries = [QueuedFault(fault, dialect, path, model, method) for fault in expand_bursts(faults)]
        with self._lock:
            if is_default:
                self._defaults[:0] = entries
            else:
                self._queue += entries

    def clear(self) -> None:
        with self._lock:
            self._queue.clear()
            self._defaults.clear()

    @property
    def remaining(self) -> list[Fault]:
        with self._lock:
            return [entry.fault for entry in self._queue]

    def take(self, method: str, dialect: str, path: str, model: str | None) -> Fault:
        with self._lock:
            for index, entry in enumerate(self._queue):
                if entry.matches(method, dialect, path, model):
                    return self._queue.pop(index).fault
            return next((e.fault for e in self._defaults if e.matches(method, dialect, path, model)), NoFault())

    def take_before_body(self, method: str, dialect: str, path: str) -> Status | None:
        """Take the next fault if it responds before the body is read. The model is still unknown then."""
        with self._lock:
            for entry in [*self._queue, *self._defaults]:
                if entry.matches(method, dialect, path, None):
                    if not isinstance(entry.fault, Status) or not entry.fault.before_body:
                        return None
                    if entry in self._queue:
                        self._queue.remove(entry)
                    return entry.fault
        return None


class ResponseGate:
    """Hold responses to POSTs until `open`, at most a minute."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_closed = False
        self._held_count = 0
        self.after_bytes: int | None = None

    def close(self, after_bytes: int | None) -> None:
        with self._changed:
            self._is_closed, self.after_bytes = True, after_bytes

    def open(self) -> None:
        with self._changed:
            self._is_closed, self.after_bytes = False, None
            self._changed.notify_all()

    def wait_at(self, position: int | None) -> None:
        """Wait if the gate is closed at or before this byte of the body; None is before the status line."""
        with self._changed:
            after = self.after_bytes
            if not self._is_closed or (position is None) != (after is None) or (position or 0) < (after or 0):
                return
            self._held_count += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._is_closed, MAX_FAULT_S)
            self._held_count -= 1

    def wait_for_held(self, count: int, timeout_s: float) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._held_count >= count, timeout_s):
                raise TimeoutError(
                    f"timed out after {timeout_s} s waiting for {count} held responses; {self._held_count} are held"
                )
