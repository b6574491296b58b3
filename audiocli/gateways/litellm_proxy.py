"""What LiteLLM proxies report in addition to OpenAI's API: kinds and prices of models, and headers.

Source: LiteLLM 1.108.7 (2026-11): its source, and responses of a running proxy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import pricing
from ..types.json import Json
from ..types.requests import HttpRequest
from ..types.results import ServedModel
from ..types.routes import ModelCard, Price, Route
from .base import as_count, as_list, as_object, as_text, build_auth_headers, build_url, read_json

# Values of `mode` in `/models` and `/model/info`.
MODE_KINDS = {"audio_speech": "speech", "audio_transcription": "transcription", "chat": "chat"}

DIAGNOSTIC_HEADERS = tuple(
    f"x-litellm-{name}"
    for name in ("model-id", "model-group", "attempted-retries", "attempted-fallbacks", "response-cost", "key-spend")
)


def build_details_query(route: Route) -> HttpRequest:
    """Build the request for kinds and prices. The proxy has the endpoint with and without `/v1`."""
    return HttpRequest("GET", build_url(route, "/model/info"), build_auth_headers(route))


def lists_modes(body: bytes) -> bool:
    """Return whether a model list has the field `mode` of LiteLLM."""
    items = as_list(as_object(read_json(body)).get("data"))
    return any(as_text(as_object(item).get("mode")) in MODE_KINDS for item in items)


def parse_details(body: bytes) -> dict[str, tuple[str | None, tuple[Price, ...]]] | None:
    """Parse kinds and prices of `/model/info` by model name; None if the body is something else.

    A name may have several deployments. Any of them may serve a request, so the highest prices are used.
    """
    items = as_object(read_json(body)).get("data")
    if not isinstance(items, list):
        return None
    details: dict[str, tuple[str | None, tuple[Price, ...]]] = {}
    for item in map(as_object, items):
        name, info = as_text(item.get("model_name")), as_object(item.get("model_info"))
        if not name:
            continue
        kind = MODE_KINDS.get(as_text(info.get("mode")) or "")
        known_kind, known_prices = details.get(name, (None, ()))
        prices = pricing.parse_litellm_prices(kind, info) if kind is not None else ()
        details[name] = (kind or known_kind, max(known_prices, prices, key=_sum_prices))
    return details


def _sum_prices(prices: Sequence[Price]) -> tuple[bool, float]:
    return bool(prices), float(sum(price.usd for price in prices))


def parse_served_model(headers: Mapping[str, str]) -> ServedModel:
    """Parse whether a fallback served the request. The headers do not name its model."""
    return ServedModel(is_substituted=bool(as_count(headers.get("x-litellm-attempted-fallbacks"))))


def find_diagnostic_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers about how the proxy served a request."""
    return {name: headers[name] for name in DIAGNOSTIC_HEADERS if name in headers}


def add_details(cards: Sequence[ModelCard], body: bytes) -> tuple[ModelCard, ...]:
    """Add kinds and prices from `/model/info` to the models of a list."""
    details = parse_details(body) or {}
    return tuple(
        card._replace(kind=details[card.model][0] or card.kind, prices=details[card.model][1] or card.prices)
        if card.model in details
        else card
        for card in cards
    )


def parse_kind(item: Mapping[str, Json]) -> str | None:
    """Return the kind of a model in `/models`, which newer proxies state; None if there is none."""
    return MODE_KINDS.get(as_text(item.get("mode")) or "")
