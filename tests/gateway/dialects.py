"""The dialects that the double speaks, and where each of them lives."""

from __future__ import annotations

from .arouter import ARouter
from .base import Dialect
from .openai_like import Groq, OpenAI
from .openrouter import OpenRouter
from .plain import Plain
from .therouter import TheRouter

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect for dialect in (OpenRouter(), OpenAI(), Groq(), TheRouter(), ARouter(), Plain())
}


def find(path: str) -> tuple[Dialect, str] | None:
    """Give the dialect that a path belongs to, and the path seen from its base URL.

    What lies beside the base URL begins with `/../`: `/../api/v1/credits`.
    """
    for dialect in DIALECTS.values():
        if path == dialect.prefix or path.startswith(dialect.prefix + "/"):
            return dialect, path.removeprefix(dialect.prefix)
        if dialect.beside is not None and path.startswith(dialect.beside + "/"):
            return dialect, "/.." + path.removeprefix(dialect.prefix.rpartition("/")[0])
    return None


def owner_of(key: str) -> str | None:
    """Name the gateway that a key belongs to."""
    return next((dialect.name for dialect in DIALECTS.values() if key in (dialect.keys or ())), None)
