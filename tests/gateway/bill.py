"""What the gateways charge, and the records that they keep of it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

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
    at: float = field(default_factory=time.time)


class Bill:
    """Thread-safe. `generation_lag`: how many times `/generation` says 404 for an id before it knows it."""

    def __init__(self, generation_lag: int = 0) -> None:
        self.generation_lag = generation_lag
        self._lock = threading.Lock()
        self._charged: list[Charged] = []
        self._generations: dict[str, dict[str, Any]] = {}
        self._asked: dict[str, int] = {}

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
        )
        with self._lock:
            if billed:
                self._charged.append(entry)
            if generation_id is not None:
                self._generations[generation_id] = _generation(entry)
        return cost

    @property
    def charged(self) -> list[Charged]:
        with self._lock:
            return list(self._charged)

    def total_nanousd(self, dialect: str | None = None) -> int:
        return sum(entry.cost_nanousd for entry in self.charged if dialect in (None, entry.dialect))

    def generation(self, generation_id: str) -> dict[str, Any] | None:
        """Give the record of a request; None as long as the gateway lags behind."""
        with self._lock:
            asked = self._asked[generation_id] = self._asked.get(generation_id, 0) + 1
            return self._generations.get(generation_id) if asked > self.generation_lag else None

    def key(self, limit_usd: float | None, dialect: str) -> dict[str, Any]:
        """Give the `data` of OpenRouter's `/key`."""
        used = self.total_nanousd(dialect) / 1e9
        periods = {f"{kind}{period}": value for kind, value in (("usage", used), ("byok_usage", 0.0))
                   for period in ("", "_daily", "_weekly", "_monthly")}  # fmt: skip
        return {
            "label": "sk-or-...est",
            "limit": limit_usd,
            "limit_remaining": None if limit_usd is None else limit_usd - used,
            "limit_reset": None,
            **periods,
            "include_byok_in_limit": False,
            "is_free_tier": False,
            "is_management_key": False,
            "expires_at": None,
            "creator_user_id": "user_loopback",
        }


def _generation(entry: Charged) -> dict[str, Any]:
    cost = entry.cost_nanousd / 1e9
    empty = (
        "upstream_id", "cache_discount", "app_id", "moderation_latency", "service_tier", "native_tokens_prompt",
        "native_tokens_completion", "native_tokens_completion_images", "native_tokens_reasoning",
        "native_tokens_cached",
        "num_media_prompt", "num_input_audio_prompt", "num_media_completion", "num_search_results", "num_fetches",
        "web_search_engine", "native_finish_reason", "external_user", "preset_id", "router", "user_agent",
        "http_referer", "workspace_id",
    )  # fmt: skip
    return {
        **dict.fromkeys(empty),
        "id": entry.generation_id,
        "model": entry.model,
        "created_at": datetime.fromtimestamp(entry.at, UTC).isoformat(),
        "origin": "",
        "request_id": f"req-{entry.generation_id}",
        "data_region": "global",
        "api_type": "tts" if entry.kind == "speech" else "stt",
        "total_cost": cost,
        "usage": cost,
        "upstream_inference_cost": 0,
        "is_byok": False,
        "provider_name": "Acme",
        "provider_responses": [{"provider_name": "Acme", "status": 200, "latency": 12, "is_byok": False}],
        "latency": 12,
        "generation_time": 34,
        "tokens_prompt": entry.characters,
        "tokens_completion": 0,
        "streamed": True,
        "cancelled": False,
        "finish_reason": "stop",
    }
