"""The dialects of the mock gateway, by name and by path."""

from __future__ import annotations

from .arouter import ARouter
from .base import Dialect
from .openai_compatible import OpenAICompatible
from .openai_like import Groq, OpenAI
from .openrouter import OpenRouter
from .therouter import TheRouter

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect for dialect in (OpenRouter(), OpenAI(), Groq(), TheRouter(), ARouter(), OpenAICompatible())
}


def find_dialect(path: str) -> tuple[Dialect, str] | None:
    """Return the dialect of a path, and the path relative to its base URL.

    A path outside of the base URL begins with `/../`: `/../api/v1/credits`.
    """
    for dialect in DIALECTS.values():
        if path == dialect.prefix or path.startswith(dialect.prefix + "/"):
            return dialect, path.removeprefix(dialect.prefix)
        if dialect.outer_prefix is not None and path.startswith(dialect.outer_prefix + "/"):
            return dialect, "/.." + path.removeprefix(dialect.prefix.rpartition("/")[0])
    return None


def find_key_owner(key: str) -> str | None:
    """Return the name of the gateway that a key belongs to."""
    return next((dialect.name for dialect in DIALECTS.values() if key in (dialect.keys or ())), None)
