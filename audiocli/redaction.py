"""Keep secrets out of messages, of the ledger, and of the environment of child processes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

# Names of variables that hold a secret by the conventions of cloud and AI services.
_SECRET_NAME = re.compile(r"(?:^|_)(?:API_?KEYS?|ACCESS_KEY|SECRET|SECRET_KEY|TOKEN|PASSWORD|PASSWD)(?:_ID)?$", re.I)
_USER_INFO = re.compile(r"(?<=//)[^/?#]*@")
# A shorter value is not searched for in other variables, because it could be part of any of them.
_MIN_KEY_CHARACTERS = 8


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


def build_child_environment(
    variables: Mapping[str, str], *, key_variables: Collection[str], keys: Collection[str]
) -> dict[str, str]:
    """Return the environment of a child process: without variables that hold a secret.

    Args:
        variables: The environment of this process.
        key_variables: Names of variables that hold an API key or a URL with a password.
        keys: API keys. A variable that contains one of them is removed, whatever its name.
    """
    searched_keys = [key for key in keys if len(key) >= _MIN_KEY_CHARACTERS]
    return {
        name: value
        for name, value in variables.items()
        if name not in key_variables
        and not _SECRET_NAME.search(name)
        and not any(key in value for key in searched_keys)
    }
