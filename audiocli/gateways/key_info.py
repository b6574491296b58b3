"""The response to a query about the API key itself, in the format of OpenRouter, which ARouter uses too.

Source: OpenRouter's OpenAPI file (edition of 2026-08-22) and error index (`effective_budget`, read 2026-11), ARouter's
API documentation (read 2026-10).
"""

from __future__ import annotations

from ..types.json import Json
from ..types.results import KeyInfo
from .base import as_nanousd, as_number, as_object, read_json


def parse_key_info(body: bytes) -> KeyInfo | None:
    """Parse what a gateway reports about an API key; None if the body is something else."""
    data = as_object(as_object(read_json(body)).get("data"))
    if not data:
        return None
    budget = as_object(data.get("effective_budget"))
    remaining = (_parse_remaining(value) for value in (budget.get("remaining_usd"), data.get("limit_remaining")))
    return KeyInfo(
        used_nanousd=as_nanousd(data.get("usage")),
        limit_nanousd=as_nanousd(data.get("limit")),
        remaining_nanousd=next((amount for amount in remaining if amount is not None), None),
        is_unlimited="limit" in data and data["limit"] is None,
        is_management_key=data.get("is_management_key") is True,
    )


def _parse_remaining(value: Json) -> int | None:
    """Parse the amount that is left. A key that is overdrawn has nothing left."""
    number = as_number(value)
    return 0 if number is not None and number < 0 else as_nanousd(value)
