"""Background jobs of TheRouter: submit, poll, and parse the state.

    202 {"id": …, "status": "queued", "polling_url": …, "expires_at": …}
    200 {"id": …, "status": "succeeded", "unsigned_urls": […]} or {…, "result": {"data": [{"url": …}]}} or with the text

Source: TheRouter's guide to async work and its news of 2026-05 (read 2026-10). The pages contradict each other:
`expires_at` is a number on some and text on others, and a result may be in any of three fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote, urljoin, urlsplit

from ..types.jobs import FAILED_STATUSES, SUCCEEDED, JobState
from ..types.json import Json
from ..types.ledger import Usage
from ..types.requests import HttpRequest
from ..types.routes import Route
from .base import (
    add_query,
    as_identifier,
    as_list,
    as_nanousd,
    as_object,
    as_text,
    as_unix_time_s,
    build_auth_headers,
    build_url,
    read_json,
)

# Statuses of finished jobs. Jobs with any other status than these and `FAILED_STATUSES` are still running.
SUCCESS_STATUSES = frozenset({SUCCEEDED, "success", "completed", "complete", "done"})


def build_submission(request: HttpRequest, route: Route) -> HttpRequest:
    """Build the request that submits a job. Its alternative is for gateways without `?async=true`."""
    alternative = request._replace(url=build_url(route, "/jobs"))
    return request._replace(url=add_query(request.url, "async=true"), alternative=alternative)


def build_query(job_id: str, polling_url: str | None, route: Route) -> HttpRequest:
    """Build the request that polls a job. `polling_url` is used only on the gateway's origin, as the key is sent."""
    return HttpRequest(
        "GET", _resolve_polling_url(polling_url, route) or _build_job_url(job_id, route), build_auth_headers(route)
    )


def build_result_query(job_id: str, route: Route) -> HttpRequest:
    """Build the request for the result of a job without a reported URL. The response redirects to it."""
    return HttpRequest("GET", f"{_build_job_url(job_id, route)}/content", build_auth_headers(route))


def parse_state(body: bytes) -> JobState | None:
    """Parse the state of a job; None if the body is something else."""
    payload = as_object(read_json(body))
    job = as_object(payload.get("data")) or payload
    status = as_text(job.get("status"))
    if status is None:
        return None
    status = status.strip().lower()[:40]
    status = SUCCEEDED if status in SUCCESS_STATUSES else status
    urls = [as_text(item) for item in as_list(job.get("unsigned_urls"))]
    urls += [as_text(as_object(item).get("url")) for item in as_list(as_object(job.get("result")).get("data"))]
    return JobState(
        id=as_identifier(as_text(job.get("id"))),
        status=status,
        result_urls=tuple(url for url in urls if url),
        result=_find_inline_result(job),
        polling_url=as_text(job.get("polling_url")),
        expires_at_s=as_unix_time_s(job.get("expires_at")),
        reason=_parse_reason(job) if status in FAILED_STATUSES else None,
        usage=Usage(cost_nanousd=as_nanousd(as_object(job.get("usage")).get("cost"))),
    )


def _find_inline_result(job: Mapping[str, Json]) -> bytes | None:
    """Return the JSON object of a transcript that the response itself contains."""
    result = job.get("result")
    if isinstance(result, str):
        return json.dumps({"text": result}).encode()
    for candidate in (as_object(result), job):
        if as_text(candidate.get("text")) is not None:
            return json.dumps(candidate).encode()
    return None


def _parse_reason(job: Mapping[str, Json]) -> str | None:
    error = job.get("error")
    message = as_text(error) or as_text(as_object(error).get("message")) or as_text(job.get("message"))
    return " ".join(message.split())[:400] if message else None


def _build_job_url(job_id: str, route: Route) -> str:
    return build_url(route, f"/jobs/{quote(job_id, safe='')}")


def _resolve_polling_url(polling_url: str | None, route: Route) -> str | None:
    if not polling_url:
        return None
    try:
        url = urljoin(build_url(route, "/"), polling_url)
        return url if parse_origin(url) == parse_origin(route.base_url) and urlsplit(url).username is None else None
    except ValueError:
        return None


def parse_origin(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port of a URL.

    Raises:
        ValueError: The URL is invalid.
    """
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
