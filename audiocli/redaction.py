"""Keep secrets out of messages and of the ledger."""

from __future__ import annotations

import re

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
