"""Responses of the cost lookups: one generation, and the usage of a key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from .billing import Billing, Charge


def build_openrouter_generation(charge: Charge) -> dict[str, Any]:
    cost_usd = charge.cost_nanousd / 1e9
    null_fields = (
        "upstream_id", "cache_discount", "app_id", "moderation_latency", "service_tier", "native_tokens_prompt",
        "native_tokens_completion", "native_tokens_completion_images", "native_tokens_reasoning",
        "native_tokens_cached",
        "num_media_prompt", "num_input_audio_prompt", "num_media_completion", "num_search_results", "num_fetches",
        "web_search_engine", "native_finish_reason", "external_user", "preset_id", "router", "user_agent",
        "http_referer", "workspace_id",
    )  # fmt: skip
    record = {
        **dict.fromkeys(null_fields),
        "id": charge.generation_id,
        "model": charge.model,
        "created_at": _format_time(charge),
        "origin": "",
        "request_id": f"req-{charge.generation_id}",
        "data_region": "global",
        "api_type": "tts" if charge.kind == "speech" else "stt",
        "total_cost": cost_usd,
        "usage": cost_usd,
        "upstream_inference_cost": 0,
        "is_byok": False,
        "provider_name": "Acme",
        "provider_responses": [{"provider_name": "Acme", "status": 200, "latency": 12, "is_byok": False}],
        "latency": 12,
        "generation_time": 34,
        "tokens_prompt": charge.characters,
        "tokens_completion": 0,
        "streamed": True,
        "cancelled": False,
        "finish_reason": "stop",
    }
    return {"data": record}


def build_therouter_generation(charge: Charge) -> dict[str, Any]:
    record = {
        "id": charge.generation_id,
        "model": charge.model,
        "provider_name": charge.provider,
        "created_at": _format_time(charge),
        "tokens_prompt": charge.characters or 0,
        "tokens_completion": 0,
        "latency": 12,
        "finish_reason": "stop",
        "total_cost": charge.cost_nanousd / 1e9,
        "usage": charge.cost_nanousd / 1e9,
    }
    return {"data": record}


def build_arouter_generation(charge: Charge) -> dict[str, Any]:
    prompt_tokens = charge.characters or 0
    return {
        "id": charge.generation_id,
        "model": charge.model,
        "provider": charge.model.partition("/")[0],
        "created_at": _format_time(charge),
        "latency_ms": 12,
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": 0,
            "total_tokens": prompt_tokens,
            "cost": charge.cost_nanousd / 1e9,
            "is_byok": False,
            "cost_details": {"upstream_inference_cost": None},
        },
    }


def build_arouter_key(billing: Billing) -> dict[str, Any]:
    """Return `data` of `/key` of ARouter."""
    used_usd = billing.total_nanousd("arouter") / 1e9
    return {
        **_build_limits(billing, used_usd),
        "label": "lr_live_...est",
        "is_free_tier": False,
        **_build_periods("usage", used_usd),
    }


def build_openrouter_key(billing: Billing) -> dict[str, Any]:
    """Return `data` of `/key` of OpenRouter."""
    used_usd = billing.total_nanousd("openrouter") / 1e9
    return {
        "label": "sk-or-...est",
        **_build_limits(billing, used_usd),
        **_build_periods("usage", used_usd),
        **_build_periods("byok_usage", 0.0),
        "include_byok_in_limit": False,
        "is_free_tier": False,
        "is_management_key": False,
        "expires_at": None,
        "creator_user_id": "user_loopback",
    }


def _build_limits(billing: Billing, used_usd: float) -> dict[str, float | None]:
    limit = billing.key_limit_usd
    return {"limit": limit, "limit_remaining": None if limit is None else limit - used_usd, "limit_reset": None}


def _build_periods(name: str, value: float) -> dict[str, float]:
    return {name + suffix: value for suffix in ("", "_daily", "_weekly", "_monthly")}


def _format_time(charge: Charge) -> str:
    return datetime.fromtimestamp(charge.charged_at_s, UTC).isoformat()
