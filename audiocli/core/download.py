"""Links that a gateway gives: presigned, so the key has no business there. Redirects are followed within reason."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urljoin, urlsplit

from ..errors import InvalidResponse
from ..http.url import is_private
from ..types.values import WireRequest
from .run_context import Reply, RunContext

MOST_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})


@asynccontextmanager
async def opened(url: str, base_url: str, tools: RunContext) -> AsyncIterator[Reply]:
    """Fetch what lies behind a link of the gateway at `base_url`, without its key.

    A redirect to another scheme is refused; so is a private address, unless the gateway itself is at one.
    Raises: BadAnswer: the link leads astray; NeverSent, Lost.
    """
    gateway = urlsplit(base_url)
    public_only = not is_private(gateway.hostname or "")
    scheme = _scheme(url)
    if gateway.scheme == "https" and scheme != "https":
        raise InvalidResponse(f"a link of the gateway is not encrypted: {_shown(url)}")
    for _ in range(MOST_REDIRECTS + 1):
        async with tools.transport(url).open(WireRequest("GET", url, public_only=public_only)) as reply:
            location = reply.headers.get("location")
            if reply.status not in REDIRECTS or not location:
                yield reply
                return
            url = redirected(url, location)
    raise InvalidResponse(f"a link of the gateway goes round in circles: {_shown(url)}")


def redirected(url: str, location: str, *, is_first: bool = False) -> str:
    """Read where a redirect leads; the first is the gateway's own word, which may name any place for its files.

    Raises: BadAnswer: to another scheme, or nowhere.
    """
    try:
        target = urljoin(url, location.strip())
    except ValueError as error:
        raise InvalidResponse("a link of the gateway leads nowhere") from error
    if _scheme(target) != _scheme(url) and not is_first:
        raise InvalidResponse(f"a link of the gateway leads from {_scheme(url)} to {_scheme(target)}: it is not followed")
    return target


def _scheme(url: str) -> str:
    """Raises: BadAnswer: neither http nor https."""
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError as error:
        raise InvalidResponse("a link of the gateway leads nowhere") from error
    if scheme not in ("http", "https"):
        raise InvalidResponse(f"a link of the gateway leads to {scheme[:20] or 'nothing'}: it is not followed")
    return scheme


def _shown(url: str) -> str:
    """Without the signature, which is a secret for as long as it holds."""
    return url.partition("?")[0][:200]
