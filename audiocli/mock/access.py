"""Who may send requests to the mock gateway: host names and a key."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from urllib.parse import urlsplit

from .field_validation import Refusal
from .http_connection import RequestHead
from .messages import parse_bearer_token

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
"""Host names of this computer. A web page that resolves a name of its own to 127.0.0.1 (DNS rebinding) sends that."""


@dataclass(frozen=True, slots=True)
class Access:
    """Conditions that every request must meet, checked before its body is read.

    `hosts`: valid names in the Host header; None accepts all. `key`: replaces the keys of all gateways.
    """

    hosts: frozenset[str] | None = None
    key: str | None = None

    def find_refusal(self, head: RequestHead) -> Refusal | None:
        """Return why a request is refused; None if it is accepted."""
        host = head.headers.get("host", "")
        if self.hosts is not None and _read_host_name(host) not in self.hosts:
            return Refusal(403, f"The host {host[:100]!r} is not served here.", None, "host_not_allowed")
        if self.key is not None:
            token = parse_bearer_token(head.headers) or ""
            if not hmac.compare_digest(token.encode("utf-8", "replace"), self.key.encode()):
                return Refusal(401, "Incorrect API key provided.", None, "invalid_api_key")
        return None


OPEN_ACCESS = Access()
"""No conditions besides the keys of the gateways."""


def _read_host_name(host: str) -> str | None:
    """Return the name in a Host header, without its port; None if it is not valid."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
