"""Work that a gateway does in its own time: how it is handed in, asked after, and told of.

    202 {"id": …, "status": "queued", "polling_url": …, "expires_at": …}
    200 {"id": …, "status": "succeeded", "unsigned_urls": […]} or {…, "result": {"data": [{"url": …}]}} or with the text

Source: TheRouter's guide to async work and its news of 2026-05 (read 2026-10), pieced together from pages that differ:
`expires_at` is a number on some and a text on others, and a result may be in any of three places.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote, urljoin, urlsplit

from ..types.jobs import FAILED, SUCCEEDED, JobState
from ..types.values import Json, Route, Usage, WireRequest
from .base import as_id, as_list, as_nanousd, as_number, as_object, as_text, bearer, join_url, read_json

# What a job that is over may be called; every other state goes on.
SUCCESSES = frozenset({SUCCEEDED, "success", "completed", "complete", "done"})


def submissions(request: WireRequest, route: Route) -> tuple[WireRequest, ...]:
    """Give the ways to hand work in, best first; the second is for gateways that know no `?async=true`."""
    return request._replace(url=f"{request.url}?async=true"), request._replace(url=join_url(route.base_url, "/jobs"))


def query(job_id: str, polling_url: str | None, route: Route) -> WireRequest:
    """Ask after a job. Where the gateway says to ask is believed on its own origin only: the key goes along."""
    return WireRequest("GET", _own_url(polling_url, route) or _usual_url(job_id, route), bearer(route))


def content(job_id: str, route: Route) -> WireRequest:
    """Ask for the result where no link was told; the answer leads to it."""
    return WireRequest("GET", f"{_usual_url(job_id, route)}/content", bearer(route))


def state(body: bytes) -> JobState | None:
    """Read what is told of a job; None when this is something else."""
    reply = as_object(read_json(body))
    told = as_object(reply.get("data")) or reply
    status = as_text(told.get("status"))
    if status is None:
        return None
    status = status.strip().lower()[:40]
    status = SUCCEEDED if status in SUCCESSES else status
    links = [as_text(one) for one in as_list(told.get("unsigned_urls"))]
    result = told.get("result")
    links += [as_text(as_object(one).get("url")) for one in as_list(as_object(result).get("data"))]
    return JobState(
        id=as_id(as_text(told.get("id"))),
        status=status,
        urls=tuple(link for link in links if link),
        result=_inline(told),
        polling_url=as_text(told.get("polling_url")),
        expires_s=_moment(told.get("expires_at")),
        reason=_reason(told) if status in FAILED else None,
        usage=Usage(cost_nanousd=as_nanousd(as_object(told.get("usage")).get("cost"))),
    )


def _inline(told: Mapping[str, Json]) -> bytes | None:
    """Give a transcript that stands in the answer itself, with all that stands around it."""
    result = told.get("result")
    if isinstance(result, str):
        return json.dumps({"text": result}).encode()
    for place in (as_object(result), told):
        if as_text(place.get("text")) is not None:
            return json.dumps(place).encode()
    return None


def _reason(told: Mapping[str, Json]) -> str | None:
    error = told.get("error")
    words = as_text(error) or as_text(as_object(error).get("message")) or as_text(told.get("message"))
    return " ".join(words.split())[:400] if words else None


def _moment(value: Json) -> float | None:
    """Read a point in time: Unix seconds or milliseconds, also as text, or ISO 8601."""
    number = as_number(value)
    if number is not None:
        number = number / 1000 if number > 1e11 else number
        return number if 0 < number < 1e11 else None
    if not isinstance(value, str):
        return None
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _usual_url(job_id: str, route: Route) -> str:
    return join_url(route.base_url, f"/jobs/{quote(job_id, safe='')}")


def _own_url(polling_url: str | None, route: Route) -> str | None:
    if not polling_url:
        return None
    try:
        url = urljoin(route.base_url.rstrip("/") + "/", polling_url)
        return url if origin(url) == origin(route.base_url) and urlsplit(url).username is None else None
    except ValueError:
        return None


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Give scheme, host and port. Raises: ValueError: this is no URL."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
