"""What was learnt about models from their refusals, kept in the cache, so that nothing refused is sent twice."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from ..errors import AttemptError
from ..gateways import capability_errors
from ..gateways.base import as_number, as_object, read_json
from ..types.values import Route
from .run_context import ResponseCache

# Models change: what was refused a month ago is tried again.
LESSON_S = 30 * 24 * 3600
KIND = "lessons"


def refused(route: Route, cache: ResponseCache) -> frozenset[str]:
    """Name the features that this model was seen to refuse."""
    return frozenset(_kept(route, cache))


def learnt(route: Route, error: AttemptError, features: Sequence[str]) -> Route | None:
    """Draw the lesson from a refusal. Give the route that knows it; None: there is none to draw."""
    feature = capability_errors.lesson(error, features)
    if feature is None or feature in route.refused:
        return None
    return route._replace(refused=route.refused | {feature})


def keep(route: Route, wiser: Route, cache: ResponseCache) -> None:
    """Keep what a route has learnt since."""
    known = {**_kept(route, cache), **dict.fromkeys(wiser.refused - route.refused, time.time())}
    cache.put(KIND, _key(route), json.dumps(known).encode())


def _kept(route: Route, cache: ResponseCache) -> dict[str, float]:
    kept = cache.get(KIND, _key(route))
    told = as_object(read_json(kept.body)) if kept is not None else {}
    now_s = time.time()
    dated = ((feature, as_number(at_s)) for feature, at_s in told.items())
    return {feature: at_s for feature, at_s in dated if at_s is not None and 0 <= now_s - at_s < LESSON_S}


def _key(route: Route) -> str:
    return f"{route.gateway} {route.base_url} {route.model}"
