"""Where a request goes: a URL taken apart, and refused if it is none."""

from __future__ import annotations

import base64
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from ..errors import UsageError

DEFAULT_PORTS = {"http": 80, "https": 443}
# What stands in a path or query as it is: RFC 3986, and the percent sign of what is quoted already.
KEPT_IN_TARGET = "!#$%&'()*+,/:;=?@[]~"


class Url(NamedTuple):
    """`host` is in ASCII and without brackets; `path` is without the query; `basic` is a header value or None."""

    scheme: str
    host: str
    port: int
    path: str
    query: str
    basic: str | None
    public_only: bool = False

    @property
    def place(self) -> str:
        """Host and port as in a Host header: without a name and password, without the usual port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.place}"

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


def parsed(url: str) -> Url:
    """Take a URL apart. Raises: UsageError: it is none, or not for http or https."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host = host if host.isascii() else _in_ascii(host)
    except ValueError as error:
        raise UsageError(f"not a URL: {url}") from error
    if parts.scheme not in DEFAULT_PORTS or not host or not url.isprintable() or any(c in host for c in " %<>\"'\\"):
        raise UsageError(f"not an http or https URL: {url}")
    basic = None
    if parts.username is not None or parts.password is not None:
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        basic = "Basic " + base64.b64encode(pair.encode()).decode()
    return Url(
        scheme=parts.scheme,
        host=host,
        port=DEFAULT_PORTS[parts.scheme] if port is None else port,
        path=quote(parts.path, safe=KEPT_IN_TARGET) or "/",
        query=quote(parts.query, safe=KEPT_IN_TARGET),
        basic=basic,
    )


# Names that mean something inside of a network alone (RFC 6761, RFC 6762, RFC 9476 and custom).
PRIVATE_NAMES = (".localhost", ".local", ".internal", ".lan", ".home", ".corp", ".home.arpa")


def is_private(host: str) -> bool:
    """Tell whether a host is not on the public internet, as far as its name or number says."""
    import ipaddress

    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host.lower().rstrip(".")
        return "." not in name or name.endswith(PRIVATE_NAMES)
    mapped = getattr(number, "ipv4_mapped", None)
    return not (mapped or number).is_global


def _in_ascii(host: str) -> str:
    import idna

    return idna.encode(host, uts46=True).decode()
