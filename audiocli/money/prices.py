"""Prices: what the numbers of the gateways mean, and what a request would cost by them."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, InvalidOperation

from ..outcomes import NANOUSD_PER_USD
from ..vocabulary import Price

# No unit of speech or transcription costs more than this; anything above is nonsense in the list.
ABSURD_USD = Decimal(1000)

# OpenRouter gives a number and no unit. These readings fit every price whose cost was recorded in 2026-10: an hour of
# transcription costs cents to a dollar, a second of it 0.00001 to 0.001 dollars, a token less.
HOUR_FROM_USD = Decimal("0.01")
SECOND_FROM_USD = Decimal("0.00001")


# What is published where no list tells it. TheRouter: its "Audio API" page, read 2026-10.
_PER_MILLION = Decimal(1) / 1_000_000
PUBLISHED = {
    ("therouter", "openai/tts-1"): Price(15 * _PER_MILLION, "character"),
    ("therouter", "openai/tts-1-hd"): Price(30 * _PER_MILLION, "character"),
    **{
        ("therouter", model): Price(Decimal("7.15") * _PER_MILLION, "byte")
        for model in ("alibaba/cosyvoice2-0.5b", "fishaudio/fish-speech-1.5", "indexteam/indextts-2")
    },
    ("therouter", "openai/whisper-1"): Price(Decimal("0.006"), "minute"),
    ("therouter", "alibaba/sensevoice-small"): Price(Decimal("0.006"), "minute"),
}
PUBLISHED_READ = "2026-10"


def published(gateway: str, model: str) -> tuple[Price, ...]:
    """Give the price that a gateway publishes outside of its list; empty: none is known."""
    price = PUBLISHED.get((gateway, model))
    return () if price is None else (price,)


def amount(value: object) -> Decimal | None:
    """Read a price as a decimal; negative, absurd and unreadable ones are None (-1 is OpenRouter's "it depends")."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        usd = Decimal(str(value))
    except InvalidOperation:
        return None
    return usd if usd.is_finite() and 0 <= usd <= ABSURD_USD else None


def openrouter(kind: str | None, prompt: object, completion: object) -> tuple[Price, ...]:
    """Read OpenRouter's two numbers, whose unit is not in its data. Source: recorded replies and costs, 2026-10."""
    asked, answered = amount(prompt), amount(completion)
    if asked is None or answered is None:
        return ()
    if not asked and not answered:
        return (Price(Decimal(0), "request"),)
    if answered:
        # Two prices are tokens in and out; a price for the output alone may be per second of sound or per anything.
        known = bool(asked) or kind == "chat"
        return (
            *((Price(asked, "token", is_reading=True),) if asked else ()),
            Price(answered, "output token" if known else None, is_reading=known),
        )
    if kind == "speech":
        return (Price(asked, "character", is_reading=True),)
    if kind != "transcription":
        return (Price(asked, "token", is_reading=True),)
    unit = "hour" if asked >= HOUR_FROM_USD else "second" if asked >= SECOND_FROM_USD else "token"
    return (Price(asked, unit, is_reading=True),)


def speech_nanousd(prices: tuple[Price, ...], text: str) -> int | None:
    """Price a text exactly where its units decide; None where tokens or seconds do, or nothing is known."""
    if len(prices) != 1 or prices[0].per not in ("character", "byte", "request"):
        return None
    [price] = prices
    per_byte = price.per == "byte"
    units = 1 if price.per == "request" else len(text.encode("utf-8", "replace")) if per_byte else len(text)
    return int((price.usd * units * NANOUSD_PER_USD).to_integral_value(ROUND_CEILING))


def listening_nanousd(prices: tuple[Price, ...], duration_s: float | None) -> int | None:
    """Price a recording by its length; None where tokens decide, or the length or the price is not known."""
    if len(prices) != 1:
        return None
    [price] = prices
    seconds = {"second": 1, "minute": 60, "hour": 3600}.get(price.per or "")
    if price.per == "request":
        units = Decimal(1)
    elif seconds is None or duration_s is None:
        return None
    else:
        units = Decimal(str(duration_s)) / seconds
    return int((price.usd * units * NANOUSD_PER_USD).to_integral_value(ROUND_CEILING))
