"""Download from presigned URLs that a gateway returns.

The key of the gateway is not sent. A limited number of redirects is followed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urljoin, urlsplit

from ..errors import InvalidResponse
from ..http.url import is_private
from ..types.requests import HttpRequest
from .run_context import Response, RunContext

MAX_REDIRECTS = 5
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})


@asynccontextmanager
async def open_presigned(url: str, base_url: str, ctx: RunContext) -> AsyncIterator[Response]:
    """Open a presigned URL of the gateway at `base_url`, without its key.

    A redirect to another scheme is refused. So is a private address, unless the gateway itself has one.

    Raises:
        InvalidResponse: The URL is invalid, not allowed, or redirects too often.
        ConnectionFailed, ResponseInterrupted: The network failed.
    """
    gateway_url = urlsplit(base_url)
    public_only = not is_private(gateway_url.hostname or "")
    scheme = _parse_scheme(url)
    if gateway_url.scheme == "https" and scheme != "https":
        raise InvalidResponse(f"the gateway returned an http URL; https is required: {_strip_query(url)}")
    for _ in range(MAX_REDIRECTS + 1):
        async with ctx.transport(url).open(HttpRequest("GET", url, public_only=public_only)) as response:
            location = response.headers.get("location")
            if response.status not in REDIRECT_STATUSES or not location:
                yield response
                return
            url = resolve_redirect(url, location)
    raise InvalidResponse(f"too many redirects: {_strip_query(url)}")


def resolve_redirect(url: str, location: str, *, is_first: bool = False) -> str:
    """Return the target of a redirect. `is_first`: the gateway itself redirects, which may change the scheme.

    Raises:
        InvalidResponse: The target is invalid, or has another scheme.
    """
    try:
        target = urljoin(url, location.strip())
    except ValueError as error:
        raise InvalidResponse("the gateway returned an invalid URL") from error
    if _parse_scheme(target) != _parse_scheme(url) and not is_first:
        raise InvalidResponse(f"refused a redirect from {_parse_scheme(url)} to {_parse_scheme(target)}")
    return target


def _parse_scheme(url: str) -> str:
    """Return the scheme of a URL. Raises: InvalidResponse: it is neither http nor https."""
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError as error:
        raise InvalidResponse("the gateway returned an invalid URL") from error
    if scheme not in ("http", "https"):
        raise InvalidResponse(f"the gateway returned a URL with an unsupported scheme: {scheme[:20] or 'none'}")
    return scheme


def _strip_query(url: str) -> str:
    """Return the URL without its query, because a signature is a secret."""
    return url.partition("?")[0][:200]
