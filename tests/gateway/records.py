"""What the gateways tell afterwards: of a finished request, and of a key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from .bill import Bill, Charged


def openrouter_generation(entry: Charged) -> dict[str, Any]:
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
        "created_at": _moment(entry),
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


def therouter_generation(entry: Charged) -> dict[str, Any]:
    return {
        "id": entry.generation_id,
        "model": entry.model,
        "provider_name": entry.provider,
        "created_at": _moment(entry),
        "tokens_prompt": entry.characters or 0,
        "tokens_completion": 0,
        "latency": 12,
        "finish_reason": "stop",
        "total_cost": entry.cost_nanousd / 1e9,
        "usage": entry.cost_nanousd / 1e9,
    }


def arouter_generation(entry: Charged) -> dict[str, Any]:
    prompt = entry.characters or 0
    return {
        "id": entry.generation_id,
        "model": entry.model,
        "provider": entry.model.partition("/")[0],
        "created_at": _moment(entry),
        "latency_ms": 12,
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": 0,
            "total_tokens": prompt,
            "cost": entry.cost_nanousd / 1e9,
            "is_byok": False,
            "cost_details": {"upstream_inference_cost": None},
        },
    }


def arouter_key(bill: Bill) -> dict[str, Any]:
    """Give the `data` of ARouter's `/key`."""
    used = bill.total_nanousd("arouter") / 1e9
    return {**_limits(bill, used), "label": "lr_live_...est", "is_free_tier": False, **_periods("usage", used)}


def openrouter_key(bill: Bill) -> dict[str, Any]:
    """Give the `data` of OpenRouter's `/key`."""
    used = bill.total_nanousd("openrouter") / 1e9
    return {
        "label": "sk-or-...est",
        **_limits(bill, used),
        **_periods("usage", used),
        **_periods("byok_usage", 0.0),
        "include_byok_in_limit": False,
        "is_free_tier": False,
        "is_management_key": False,
        "expires_at": None,
        "creator_user_id": "user_loopback",
    }


def _limits(bill: Bill, used: float) -> dict[str, float | None]:
    limit = bill.key_limit_usd
    return {"limit": limit, "limit_remaining": None if limit is None else limit - used, "limit_reset": None}


def _periods(name: str, value: float) -> dict[str, float]:
    return {name + period: value for period in ("", "_daily", "_weekly", "_monthly")}


def _moment(entry: Charged) -> str:
    return datetime.fromtimestamp(entry.at, UTC).isoformat()
