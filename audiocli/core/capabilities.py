"""Cache of the features that models have refused, so that a refused feature is not requested again."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import AttemptError
from ..gateways import capability_errors
from ..gateways.base import as_number, as_object, read_json
from ..types.json import Json
from ..types.routes import Route

if TYPE_CHECKING:
    from ..storage.response_cache import ResponseCache

# Models change, so a refused feature is requested again after 30 days.
REFUSAL_TTL_S = 30 * 24 * 3600
# A feature that is refused together with another field of the request may be accepted without that field.
COMBINATION_TTL_S = 3600
# Stored in the cache; do not rename.
CACHE_KIND = "lessons"


def load_refusals(route: Route, cache: ResponseCache) -> frozenset[str]:
    """Return the features that this model has refused."""
    return frozenset(_load_refusal_times(route, cache))


def downgrade_route(route: Route, error: AttemptError, features: Sequence[str]) -> Route | None:
    """Return the route without the feature that the error refuses; None if the error refuses no feature."""
    feature = capability_errors.find_refused_feature(error, features)
    if feature is None or feature in route.unsupported:
        return None
    return route._replace(unsupported=route.unsupported | {feature})


def list_option_names(options: Mapping[str, Json]) -> tuple[str, ...]:
    """Return how an error response may name options of `--option`: `deepgram.smart_format` also as `smart_format`."""
    return tuple(dict.fromkeys(name for option in options for name in (option, option.rpartition(".")[2])))


def save_refusals(route: Route, downgraded: Route, cache: ResponseCache, *, ttl_s: float = REFUSAL_TTL_S) -> None:
    """Store for a time that the features are refused that `downgraded` excludes and `route` does not."""
    refused_at_s = time.time() - REFUSAL_TTL_S + ttl_s  # expires as if it were older
    refusals = {
        **_load_refusal_times(route, cache),
        **dict.fromkeys(downgraded.unsupported - route.unsupported, refused_at_s),
    }
    cache.put(CACHE_KIND, _cache_key(route), json.dumps(refusals).encode())


def save_missing_timestamps(route: Route, cache: ResponseCache) -> None:
    """Store that a model returns no timestamps although they are requested, so that the next run uses short chunks."""
    save_refusals(route, route._replace(unsupported=route.unsupported | {"timestamps"}), cache)


def get_cache_location(route: Route) -> tuple[str, str]:
    """Return the kind and the key of the cached response with the refused features of a model."""
    return CACHE_KIND, _cache_key(route)


def _load_refusal_times(route: Route, cache: ResponseCache) -> dict[str, float]:
    """Return the refused features with the Unix time of each refusal, without the expired ones."""
    cached = cache.get(CACHE_KIND, _cache_key(route))
    stored = as_object(read_json(cached.body)) if cached is not None else {}
    now_s = time.time()
    times = ((feature, as_number(at_s)) for feature, at_s in stored.items())
    return {feature: at_s for feature, at_s in times if at_s is not None and 0 <= now_s - at_s < REFUSAL_TTL_S}


def _cache_key(route: Route) -> str:
    return f"{route.gateway} {route.base_url} {route.model}"
