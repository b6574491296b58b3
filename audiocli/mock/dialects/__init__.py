"""The dialects of the mock gateway, and the dialect of a path."""

from __future__ import annotations

from collections.abc import Mapping

from ..audio_codec import AudioCodec
from ..engine import SpeechEngine
from .arouter import ARouter
from .base import Dialect
from .engine_server import EngineServer
from .groq import Groq
from .openai import OpenAI
from .openai_compatible import OpenAICompatible
from .openrouter import OpenRouter
from .therouter import TheRouter

DIALECTS: dict[str, type[Dialect]] = {
    dialect.name: dialect for dialect in (OpenRouter, OpenAI, Groq, TheRouter, ARouter, OpenAICompatible)
}
KEYS: dict[str, str | None] = {name: dialect.key for name, dialect in DIALECTS.items()}
"""The valid key of each dialect; `plain` needs none."""


def build_dialects(codec: AudioCodec, engine: SpeechEngine | None = None) -> dict[str, Dialect]:
    """Return the dialects by name; with an engine, also `engine`."""
    dialects: dict[str, Dialect] = {name: dialect(codec) for name, dialect in DIALECTS.items()}
    return dialects if engine is None else {**dialects, EngineServer.name: EngineServer(codec, engine)}


def find_dialect(dialects: Mapping[str, Dialect], path: str) -> tuple[Dialect, str] | None:
    """Return the dialect of a path, and the path relative to its base URL.

    A path outside of the base URL begins with `/../`: `/../api/v1/credits`.
    """
    for dialect in dialects.values():
        if path == dialect.prefix or path.startswith(dialect.prefix + "/"):
            return dialect, path.removeprefix(dialect.prefix)
        if dialect.outer_prefix is not None and path.startswith(dialect.outer_prefix + "/"):
            return dialect, "/.." + path.removeprefix(dialect.prefix.rpartition("/")[0])
    return None


def find_key_owner(key: str) -> str | None:
    """Return the name of the gateway that a key belongs to."""
    return next((name for name, gateway_key in KEYS.items() if gateway_key == key), None)
