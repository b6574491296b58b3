"""What a finished request cost, as gateways tell it when asked afterwards: one reader for the three shapes.

    {"data": {"total_cost": 0.0004, …}}            OpenRouter, TheRouter
    {"usage": {"cost": 0.0004, …}, …}              ARouter

With the user's own key at a provider ("is_byok") the cost is the gateway's fee, and what the provider charges comes
beside it as "upstream_inference_cost". Without one that is what the gateway itself pays, which is nobody's bill.

Source: OpenRouter's OpenAPI file (2026-08), TheRouter and ARouter documentation (read 2026-10).
"""

from __future__ import annotations

from urllib.parse import quote

from ..types.values import Route, Usage, WireRequest
from .base import as_count, as_nanousd, as_object, bearer, nonsense_in, read_json, upstream_of


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
        told_cost = next((value for value in (told.get("total_cost"), details.get("cost")) if value is not None), None)
        nonsense = nonsense_in(told_cost)
        return None if nonsense is None else Usage(nonsense=nonsense)
    return Usage(
        cost_nanousd=cost_nanousd,
        input_tokens=as_count(details.get("prompt_tokens") or told.get("tokens_prompt")),
        output_tokens=as_count(details.get("completion_tokens") or told.get("tokens_completion")),
        upstream_nanousd=upstream_of({**details, **told}),
    )
