"""The dialects that the double speaks, and where each of them lives."""

from __future__ import annotations

from .base import Dialect
from .openai_like import Groq, OpenAI
from .openrouter import OpenRouter
from .plain import Plain

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (OpenRouter(), OpenAI(), Groq(), Plain())}


def find(path: str) -> tuple[Dialect, str] | None:
    """Give the dialect that a path belongs to, and the path below its base URL."""
    for dialect in DIALECTS.values():
        if path == dialect.prefix or path.startswith(dialect.prefix + "/"):
            return dialect, path.removeprefix(dialect.prefix)
    return None


def owner_of(key: str) -> str | None:
    """Name the gateway that a key belongs to."""
    return next((dialect.name for dialect in DIALECTS.values() if key in (dialect.keys or ())), None)
