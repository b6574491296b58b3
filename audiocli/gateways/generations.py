"""What a finished request cost, as gateways tell it when asked afterwards: one reader for the three shapes.

    {"data": {"total_cost": 0.0004, …}}            OpenRouter, TheRouter
    {"usage": {"cost": 0.0004, …}, …}              ARouter

Source: OpenRouter's OpenAPI file (2026-08), TheRouter and ARouter documentation (read 2026-10).
"""

from __future__ import annotations

from urllib.parse import quote

from ..vocabulary import Route, Usage, WireRequest
from .base import as_count, as_nanousd, as_object, bearer, read_json


def query(url: str, generation_id: str, route: Route) -> WireRequest:
    return WireRequest("GET", f"{url}?id={quote(generation_id, safe='')}", bearer(route))


def read(body: bytes) -> Usage | None:
    """Read the cost; None where it is not told."""
    reply = as_object(read_json(body))
    told = as_object(reply.get("data")) or reply
    usage = told.get("usage")
    details = as_object(usage)
    found = (as_nanousd(value) for value in (told.get("total_cost"), details.get("cost"), usage))
    cost_nanousd = next((cost for cost in found if cost is not None), None)
    if cost_nanousd is None:
        return None
    return Usage(
        cost_nanousd=cost_nanousd,
        input_tokens=as_count(details.get("prompt_tokens") or told.get("tokens_prompt")),
        output_tokens=as_count(details.get("completion_tokens") or told.get("tokens_completion")),
    )
