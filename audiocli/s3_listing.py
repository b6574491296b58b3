"""List a page of an S3 bucket with a signed request of our own, for keys that obstore does not accept.

obstore 0.12.1 fails for a whole page of 1,000 keys if one of them has an empty part (`a//b`), a part `.` or `..`, or a
control character, before any key of the page arrives. Listing by directories fails in the same way (measured 2026-11).

Signature: AWS Signature Version 4 in headers. Response: ListObjectsV2 with `encoding-type=url`.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, unquote_plus, urlsplit

from .errors import StoreUnreachable
from .text.readers.xml_tree import MalformedXml, parse_xml
from .types.objects import ObjectUrl, find_key_problem
from .types.requests import HttpRequest
from .types.stores import ListedObject, ObjectVersion, S3Access

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
# A page of 1,000 keys of 1,024 bytes, three times as long when quoted.
MAX_PAGE_BYTES = 8 * 1024 * 1024


class ListedPage(NamedTuple):
    """The objects of a page, with those that cannot be used, and the last key. `is_last`: no page follows."""

    objects: list[ListedObject]
    last_key: str | None
    is_last: bool


def build_list_request(prefix: ObjectUrl, start_after: str | None, access: S3Access, now: datetime) -> HttpRequest:
    """Return the request for the keys below a prefix that follow `start_after`. `now` is in UTC."""
    endpoint = access.endpoint or f"https://s3.{access.region}.amazonaws.com"
    parts = urlsplit(endpoint)
    host, path = parts.netloc, parts.path.rstrip("/")
    if access.has_path_style:
        path = f"{path}/{quote(prefix.bucket, safe='')}"
    else:
        host = f"{prefix.bucket}.{host}"
    fields = {"list-type": "2", "encoding-type": "url"}
    if prefix.key:
        fields["prefix"] = f"{prefix.key}/"
    if start_after is not None:
        fields["start-after"] = start_after
    query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(fields.items()))
    headers = {"host": host, "x-amz-content-sha256": EMPTY_SHA256, "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ")}
    if access.session_token is not None:
        headers["x-amz-security-token"] = access.session_token
    if access.secret_access_key is not None:
        headers["authorization"] = _sign(path or "/", query, headers, access)
    del headers["host"]  # the client adds it
    return HttpRequest("GET", f"{parts.scheme}://{host}{path or '/'}?{query}", headers)


def parse_list_page(content: bytes, prefix: ObjectUrl) -> ListedPage:
    """Parse a response. Raises: StoreUnreachable: It is not one."""
    try:
        root = parse_xml(content).root
    except MalformedXml as error:
        raise StoreUnreachable(f"{prefix.store} returned an invalid listing: {error}") from error
    namespace = root.tag.rpartition("}")[0]
    namespace = f"{namespace}}}" if namespace else ""
    objects = []
    key = None
    for element in root.iter(f"{namespace}Contents"):
        fields = {child.tag.removeprefix(namespace): child.text or "" for child in element}
        key = unquote_plus(fields.get("Key", ""))
        size = fields.get("Size", "0")
        version = ObjectVersion(
            int(size) if size.isdecimal() else 0,
            fields.get("ETag") or None,
            modified_ns=_parse_time_ns(fields.get("LastModified", "")),
        )
        problem = find_key_problem(key.removesuffix("/"))
        if problem is None and key.endswith("/"):
            if not version.size_bytes:
                continue  # the mark of a directory
            problem = "the key ends with a slash"
        objects.append(ListedObject(ObjectUrl(prefix.store, key), version, problem))
    is_truncated = (root.findtext(f"{namespace}IsTruncated") or "").strip().lower() == "true"
    return ListedPage(objects, key, not is_truncated or key is None)


def _parse_time_ns(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1_000_000) * 1_000
    except (ValueError, OverflowError):
        return 0


def _sign(path: str, query: str, headers: dict[str, str], access: S3Access) -> str:
    """Return the value of `Authorization` (AWS Signature Version 4)."""
    assert access.secret_access_key is not None
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"GET\n{path}\n{query}\n{lines}\n{names}\n{EMPTY_SHA256}"
    time = headers["x-amz-date"]
    scope = f"{time[:8]}/{access.region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{access.secret_access_key}".encode()
    for part in (time[:8], access.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"{access.access_key_id}/{scope}"
    return f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"


def get_current_time() -> datetime:
    return datetime.now(UTC)
