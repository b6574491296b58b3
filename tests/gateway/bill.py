"""What the gateways charge."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from .base import Dialect, Job


@dataclass(frozen=True, slots=True)
class Charged:
    """One charge, made at the moment when the request was accepted."""

    dialect: str
    model: str
    kind: str
    cost_nanousd: int
    generation_id: str | None
    characters: int | None = None
    audio_s: float | None = None
    provider: str | None = None
    at: float = field(default_factory=time.time)


class Bill:
    """Thread-safe. `generation_lag`: how many times `/generation` says 404 for an id before it knows it."""

    def __init__(self, generation_lag: int = 0, key_limit_usd: float | None = None) -> None:
        self.generation_lag = generation_lag
        self.key_limit_usd = key_limit_usd
        self._lock = threading.Lock()
        self._charged: list[Charged] = []
        self._finished: dict[tuple[str, str], Charged] = {}
        self._asked: dict[tuple[str, str], int] = {}

    def charge(self, dialect: Dialect, job: Job, generation_id: str | None, *, billed: bool) -> int:
        """Enter an accepted request; give what it cost in nano-dollars."""
        cost = job.cost_nanousd if billed else 0
        speaks = job.kind == "speech"
        entry = Charged(
            dialect.name,
            job.model.id,
            job.kind,
            cost,
            generation_id,
            len(job.text) if speaks else None,
            None if speaks else job.duration_s,
            job.provider,
        )
        with self._lock:
            if billed:
                self._charged.append(entry)
            if generation_id is not None:
                self._finished[dialect.name, generation_id] = entry
        return cost

    @property
    def charged(self) -> list[Charged]:
        with self._lock:
            return list(self._charged)

    def total_nanousd(self, dialect: str | None = None) -> int:
        return sum(entry.cost_nanousd for entry in self.charged if dialect in (None, entry.dialect))

    def finished(self, dialect: str, generation_id: str) -> Charged | None:
        """Find a request by its id; None as long as the gateway lags behind."""
        id_ = (dialect, generation_id)
        with self._lock:
            asked = self._asked[id_] = self._asked.get(id_, 0) + 1
            return self._finished.get(id_) if asked > self.generation_lag else None
