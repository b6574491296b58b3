"""List the objects below a prefix, past keys that obstore does not accept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from ...errors import AttemptError, ObjectDenied, StoreUnreachable
from ...object_store import InvalidKeyListed, ObjectStores
from ...s3_listing import MAX_PAGE_BYTES, ListedPage, build_list_request, get_current_time, parse_list_page
from ...types.objects import ObjectUrl
from ...types.stores import ListedObject, ObjectVersion
from ..retry_policy import BACKOFF_BASE_S, MAX_BACKOFF_S
from ..run_context import RunContext

MAX_SENDS = 6
UNLISTABLE = "a key here has an empty part, . or .., or a control character; the objects after it are not listed"


async def iter_objects(
    stores: ObjectStores, prefix: ObjectUrl, ctx: RunContext
) -> AsyncIterator[Sequence[ListedObject]]:
    """Yield the objects below a prefix in the order of their keys, in windows of at most 1,000.

    A page with a key that obstore does not accept is listed with a request of our own; such keys have a `problem`.
    Where that is not possible (Google, Azure, credentials that only obstore can get), the listing ends with an object
    that has the problem.

    Raises:
        AudiocliError: The store cannot be listed.
    """
    last_key: str | None = None
    while True:
        try:
            async for window in stores.iter_windows(prefix, last_key):
                yield window
                last_key = window[-1].url.key
            return
        except InvalidKeyListed:
            access = stores.get_s3_access(prefix)
        if access is None:
            yield [ListedObject(prefix, ObjectVersion(0, None), UNLISTABLE)]
            return
        has_problem = True
        while has_problem:
            page = await _fetch_page(stores, prefix, last_key, ctx)
            if page.objects:
                yield page.objects
            if page.is_last:
                return
            last_key = page.last_key
            # obstore continues after a key that it accepts.
            has_problem = not page.objects or page.objects[-1].url.key != last_key or bool(page.objects[-1].problem)


async def _fetch_page(stores: ObjectStores, prefix: ObjectUrl, start_after: str | None, ctx: RunContext) -> ListedPage:
    """Fetch a page of keys. Raises: ObjectDenied, StoreUnreachable."""
    access = stores.get_s3_access(prefix)
    assert access is not None
    for number in range(1, MAX_SENDS + 1):
        request = build_list_request(prefix, start_after, access, get_current_time())
        status, body = 0, b""
        try:
            async with ctx.transport(request.url).open(request) as response:
                status = response.status
                async for block in response.iter_bytes():
                    body += block
                    if len(body) > MAX_PAGE_BYTES:
                        raise StoreUnreachable(f"{prefix.store} returned an invalid listing: it is too large")
            if status == 200:
                return parse_list_page(body, prefix)
        except AttemptError as error:
            if number == MAX_SENDS:
                raise StoreUnreachable(f"cannot list {prefix}: {error.message}") from error
        if status in (401, 403):
            raise ObjectDenied(
                f"no right to list {prefix}", hint="the credentials need the right to list, read and write"
            )
        if 400 <= status < 500 and status != 429:
            break
        await ctx.sleep(ctx.random() * min(MAX_BACKOFF_S, BACKOFF_BASE_S * 2 ** (number - 1)))
    raise StoreUnreachable(f"cannot list {prefix} (HTTP {status})", is_throttled=status >= 500)
