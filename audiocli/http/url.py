"""Parse and validate URLs."""

from __future__ import annotations

import base64
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from ..errors import UsageError
from ..redaction import hide_credentials

DEFAULT_PORTS = {"http": 80, "https": 443}
# Not quoted in a path or query: RFC 3986, and the percent sign of what is quoted already.
SAFE_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"


class Url(NamedTuple):
    """A parsed URL. `host` is ASCII and has no brackets. `basic_auth` is the value of the Authorization header."""

    scheme: str
    host: str
    port: int
    path: str
    query: str
    basic_auth: str | None

    @property
    def authority(self) -> str:
        """Value of the Host header: host, and port unless it is the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


def parse_url(url: str) -> Url:
    """Parse a URL.

    Raises:
        UsageError: The URL is invalid, or its scheme is not http or https.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host = host if host.isascii() else _encode_host(host)
    except ValueError:
        # The message of the cause may quote a part of the password.
        raise UsageError(f"invalid URL: {hide_credentials(url)}") from None
    if parts.scheme not in DEFAULT_PORTS or not host or not url.isprintable() or any(c in host for c in " %<>\"'\\"):
        raise UsageError(f"invalid http or https URL: {hide_credentials(url)}")
    basic = None
    if parts.username is not None or parts.password is not None:
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        basic = "Basic " + base64.b64encode(pair.encode()).decode()
    return Url(
        scheme=parts.scheme,
        host=host,
        port=DEFAULT_PORTS[parts.scheme] if port is None else port,
        path=quote(parts.path, safe=SAFE_CHARACTERS) or "/",
        query=quote(parts.query, safe=SAFE_CHARACTERS),
        basic_auth=basic,
    )


# Names that are resolved only within a private network (RFC 6761, RFC 6762, RFC 9476 and custom).
PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".lan", ".home", ".corp", ".home.arpa")


def is_private(host: str) -> bool:
    """Return whether a host name or IP address is not on the public internet."""
    import ipaddress

    try:
        ip_address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host.lower().rstrip(".")
        return "." not in name or name.endswith(PRIVATE_SUFFIXES)
    mapped = getattr(ip_address, "ipv4_mapped", None)
    return not (mapped or ip_address).is_global


def build_cleartext_warning(url: Url, secret: str = "API key") -> str | None:
    """Return a warning if a secret for this URL would be sent over the public internet without encryption."""
    if url.scheme != "http" or is_private(url.host):
        return None
    return f"the {secret} is sent to {url.authority} without encryption; use https://"


def _encode_host(host: str) -> str:
    import idna

    return idna.encode(host, uts46=True).decode()
