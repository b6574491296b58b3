"""Amounts as people and scripts read them. Inside, they are whole nano-dollars; unknown is None."""

from __future__ import annotations

from .types.outcomes import NANOUSD_PER_USD


def usd(nanousd: int | None) -> str:
    """Write an amount without trailing zeros; unknown is `?`, never 0."""
    if nanousd is None:
        return "?"
    whole, rest = divmod(abs(nanousd), NANOUSD_PER_USD)
    sign = "-" if nanousd < 0 else ""
    return f"{sign}${whole}.{rest:09d}".rstrip("0").rstrip(".")


def usd_number(nanousd: int | None) -> float | None:
    return None if nanousd is None else nanousd / NANOUSD_PER_USD
