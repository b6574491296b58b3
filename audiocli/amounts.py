"""Convert amounts for output. Internally, amounts are integer nano-dollars; None is unknown."""

from __future__ import annotations

from .types.ledger import NANOUSD_PER_USD


def format_usd(nanousd: int | None) -> str:
    """Format an amount without trailing zeros. An unknown amount is `?`."""
    if nanousd is None:
        return "?"
    dollars, fraction = divmod(abs(nanousd), NANOUSD_PER_USD)
    sign = "-" if nanousd < 0 else ""
    return f"{sign}${dollars}.{fraction:09d}".rstrip("0").rstrip(".")


def to_usd(nanousd: int | None) -> float | None:
    """Convert nano-dollars to US dollars."""
    return None if nanousd is None else nanousd / NANOUSD_PER_USD
