"""The charges of the mock gateways."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from .tasks import Task


@dataclass(frozen=True, slots=True)
class Charge:
    """The charge for one accepted request."""

    dialect: str
    model: str
    kind: str
    cost_nanousd: int
    generation_id: str | None
    characters: int | None = None
    audio_s: float | None = None
    provider: str | None = None
    charged_at_s: float = field(default_factory=time.time)


class Billing:
    """Thread-safe record of charges.

    `generation_misses`: how many lookups of an ID fail before `/generation` returns its charge.
    """

    def __init__(self, generation_misses: int = 0, key_limit_usd: float | None = None) -> None:
        self.generation_misses = generation_misses
        self.key_limit_usd = key_limit_usd
        self._lock = threading.Lock()
        self._charges: list[Charge] = []
        self._by_generation_id: dict[tuple[str, str], Charge] = {}
        self._lookup_counts: dict[tuple[str, str], int] = {}

    def charge(self, dialect: str, task: Task, generation_id: str | None, *, billed: bool) -> int:
        """Record an accepted request; return its cost in nano-dollars."""
        cost_nanousd = task.cost_nanousd if billed else 0
        is_speech = task.kind == "speech"
        charge = Charge(
            dialect,
            task.model.id,
            task.kind,
            cost_nanousd,
            generation_id,
            len(task.text) if is_speech else None,
            None if is_speech else task.duration_s,
            task.provider,
        )
        with self._lock:
            if billed:
                self._charges.append(charge)
            if generation_id is not None:
                self._by_generation_id[dialect, generation_id] = charge
        return cost_nanousd

    @property
    def charges(self) -> list[Charge]:
        with self._lock:
            return list(self._charges)

    def total_nanousd(self, dialect: str | None = None) -> int:
        return sum(charge.cost_nanousd for charge in self.charges if dialect in (None, charge.dialect))

    def find(self, dialect: str, generation_id: str) -> Charge | None:
        """Find a charge by generation ID; return None during the first `generation_misses` lookups."""
        id_ = (dialect, generation_id)
        with self._lock:
            lookups = self._lookup_counts[id_] = self._lookup_counts.get(id_, 0) + 1
            return self._by_generation_id.get(id_) if lookups > self.generation_misses else None
