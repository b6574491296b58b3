"""Look up the cost of a finished request. One parser for the three formats.

    {"data": {"total_cost": 0.0004, …}}            OpenRouter, TheRouter
    {"usage": {"cost": 0.0004, …}, …}              ARouter

With the user's own provider key ("is_byok") the cost is the fee of the gateway, and the provider charges
"upstream_inference_cost" in addition. Otherwise that is what the gateway pays, and the user is not charged for it.

Source: OpenRouter's OpenAPI file (2026-08), TheRouter and ARouter documentation (read 2026-10).
"""

from __future__ import annotations

from urllib.parse import quote

from ..types.ledger import Usage
from ..types.requests import HttpRequest
from ..types.routes import Route
from .base import (
    add_query,
    as_count,
    as_nanousd,
    as_object,
    build_auth_headers,
    parse_upstream_cost,
    quote_invalid_cost,
    read_json,
)


def build_query(url: str, generation_id: str, route: Route) -> HttpRequest:
    """Build the request for the cost of a finished request."""
    return HttpRequest("GET", add_query(url, f"id={quote(generation_id, safe='')}"), build_auth_headers(route))


def parse_cost(body: bytes) -> Usage | None:
    """Parse the cost; None if the response has none."""
    payload = as_object(read_json(body))
    generation = as_object(payload.get("data")) or payload
    usage = generation.get("usage")
    details = as_object(usage)
    values = (generation.get("total_cost"), details.get("cost"), usage)
    cost_nanousd = next((cost for cost in map(as_nanousd, values) if cost is not None), None)
    if cost_nanousd is None:
        reported_cost = next((value for value in values[:2] if value is not None), None)
        invalid_cost = quote_invalid_cost(reported_cost)
        return None if invalid_cost is None else Usage(invalid_cost=invalid_cost)
    return Usage(
        cost_nanousd=cost_nanousd,
        input_tokens=as_count(details.get("prompt_tokens") or generation.get("tokens_prompt")),
        output_tokens=as_count(details.get("completion_tokens") or generation.get("tokens_completion")),
        upstream_nanousd=parse_upstream_cost({**details, **generation}),
    )
