"""Find the proxy for a URL in the environment.

httpx does this itself with `trust_env=True`, but 0.28.1 raises InvalidURL for `NO_PROXY=[::1]` and `fd00::/8`, and
never matches a network such as `10.0.0.0/8` (2026-11).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from importlib.util import find_spec
from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import AccessError, UsageError
from .url import Url

# httpx 0.28.1 accepts 65,536.
MAX_URL_CHARACTERS = 8000
PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


class Proxy(NamedTuple):
    """The URL of a proxy, and the environment variable that holds it. The URL may have a password."""

    url: str
    variable: str


def find_proxy(url: Url, variables: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for `url`; None: connect directly.

    The variables are those of curl: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in lower or upper case;
    lower case wins.

    Raises:
        UsageError: The variable does not hold a URL of a proxy that we can use.
        AccessError: It names a SOCKS proxy and the extra `socks` is not installed.
    """
    for name in (f"{url.scheme}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if value := variables.get(variable, "").strip():
                if is_excluded(url, variables.get("no_proxy") or variables.get("NO_PROXY") or ""):
                    return None
                return Proxy(_check_proxy(value, variable), variable)
    return None


def is_excluded(url: Url, no_proxy: str) -> bool:
    """Return whether a list of host names, suffixes, addresses and networks, as in `NO_PROXY`, covers a URL."""
    host = url.host.lower().rstrip(".")
    for entry in no_proxy.replace(",", " ").lower().split():
        if entry == "*":
            return True
        if "/" in entry and _is_in_network(host, entry):
            return True
        name, port = _split_port(entry)
        if port is not None and port != url.port:
            continue
        name = name.removeprefix("*").strip("[]").strip(".")
        if name and (host == name or host.endswith(f".{name}") or _is_same_address(host, name)):
            return True
    return False


def _split_port(entry: str) -> tuple[str, int | None]:
    """Split `host:port` and `[::1]:port`; a bare IPv6 address has no port."""
    name, colon, port = entry.rpartition(":")
    if colon and port.isdecimal() and (":" not in name or name.endswith("]")):
        return name, int(port)
    return entry, None


def _is_in_network(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(
            network.replace("[", "").replace("]", ""), strict=False
        )
    except ValueError:
        return False


def _is_same_address(host: str, name: str) -> bool:
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(name)
    except ValueError:
        return False


def _check_proxy(value: str, variable: str) -> str:
    address = value if "://" in value else f"http://{value}"
    hint = f"check {variable}"
    try:
        parts = urlsplit(address)
        is_valid = bool(parts.hostname) and (parts.port is None or parts.port > 0) and address.isascii()
    except ValueError:
        is_valid = False
    if not is_valid or not address.isprintable() or " " in address or len(address) > MAX_URL_CHARACTERS:
        # The value is not shown: it may hold a password.
        raise UsageError(f"{variable} is not the URL of a proxy", hint=hint)
    if parts.scheme not in PROXY_SCHEMES:
        raise UsageError(
            f"{variable}: proxies of type {parts.scheme}:// are not supported",
            hint=f"{hint}; known types: {', '.join(PROXY_SCHEMES)}",
        )
    if parts.scheme.startswith("socks") and find_spec("socksio") is None:
        raise AccessError(
            f"{variable} names a SOCKS proxy, which needs the extra 'socks'", hint="pip install 'audiocli[socks]'"
        )
    return address
