"""How long a text may be for several routes at once. Light, for every `speak` asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .. import gateways
from ..types.values import Route


def limit_of(routes: Sequence[Route], most: int | None) -> tuple[int | None, Literal["characters", "bytes"]]:
    """Tell how long a piece may be for all routes; `most` is the user's own limit, in characters.

    No text has fewer bytes than characters, so where one gateway counts these and another those, bytes will do.
    """
    limits = [gateways.dialect(route.dialect).limits(route) for route in routes]
    characters = [limit.text_characters for limit in limits if limit.text_characters is not None]
    characters += [most] if most is not None else []
    sizes = [limit.text_bytes for limit in limits if limit.text_bytes is not None]
    if sizes:
        return min(characters + sizes), "bytes"
    return min(characters, default=None), "characters"


def fits(text: str, limit: int | None, unit: Literal["characters", "bytes"]) -> bool:
    """Tell whether a text needs no cutting."""
    if limit is None:
        return True
    return len(text) <= limit if unit == "characters" else len(text.encode("utf-8", "replace")) <= limit
