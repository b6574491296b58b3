"""Text length limits over several routes. Cheap to import, because every `speak` needs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .. import gateways
from ..types.routes import Route


def find_text_limit(
    routes: Sequence[Route], max_characters: int | None
) -> tuple[int | None, Literal["characters", "bytes"]]:
    """Return the maximum length of a chunk that all routes accept, and its unit.

    `max_characters` is the limit of the user. A text has at least as many bytes as characters, so if any gateway
    counts bytes, the smallest limit in bytes satisfies all of them.
    """
    limits = [gateways.load_dialect(route.dialect).get_limits(route) for route in routes]
    character_limits = [limit.max_text_characters for limit in limits if limit.max_text_characters is not None]
    character_limits += [max_characters] if max_characters is not None else []
    byte_limits = [limit.max_text_bytes for limit in limits if limit.max_text_bytes is not None]
    if byte_limits:
        return min(character_limits + byte_limits), "bytes"
    return min(character_limits, default=None), "characters"


def is_within_limit(text: str, limit: int | None, unit: Literal["characters", "bytes"]) -> bool:
    """Return whether a text fits into one chunk."""
    if limit is None:
        return True
    return len(text) <= limit if unit == "characters" else len(text.encode("utf-8", "replace")) <= limit
