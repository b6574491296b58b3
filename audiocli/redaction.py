"""Keep secrets out of messages and of the ledger."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A shorter secret is not searched for, because it could be part of any word. Keys of self-hosted servers are short.
MIN_SECRET_CHARACTERS = 7

_USER_INFO = re.compile(r"(?<=//)[^/?#]*@")


def hide_credentials(url: str) -> str:
    """Return a URL for messages: without user name and password, and without the values of its query.

    A password that is not quoted may have `/`, `#` or `@`, so everything up to the last `@` is hidden.
    """
    if "@" in url.replace("/@", "/"):  # a path such as /@me is no password
        scheme, separator, _ = url.partition("//")
        url = (f"{scheme}//" if separator and "@" not in scheme else "") + "***@" + url.rpartition("@")[2]
    base, question_mark, query = url.partition("?")
    return base + question_mark + re.sub(r"=[^&#]*", "=***", query)


def remove_user_info(url: str) -> str:
    """Return a URL without user name, password and fragment, which is never sent."""
    return _USER_INFO.sub("", url.partition("#")[0])


def hide_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return a text without API keys and other secrets, which some gateways repeat."""
    for secret in secrets:
        if len(secret) >= MIN_SECRET_CHARACTERS:
            text = text.replace(secret, "[key]")
    return text


def remove_secret_id(request_id: str | None, secrets: Iterable[str]) -> str | None:
    """Return an ID that a gateway reported; None if it repeats a secret."""
    return None if request_id is not None and hide_secrets(request_id, secrets) != request_id else request_id
