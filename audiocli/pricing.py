"""Prices: what the numbers of the gateways mean, and what a request would cost by them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation

from .text.speech_rate import expected_s
from .types.outcomes import NANOUSD_PER_USD
from .types.values import Estimate, Price, Usage

# No unit of speech or transcription costs more than this; anything above is nonsense in the list.
ABSURD_USD = Decimal(1000)

# OpenRouter gives a number and no unit. These readings fit every price whose cost was recorded in 2026-10: an hour of
# transcription costs cents to a dollar, a second of it 0.00001 to 0.001 dollars, a token less.
HOUR_FROM_USD = Decimal("0.01")
SECOND_FROM_USD = Decimal("0.00001")


SECONDS = {"second": 1, "minute": 60, "hour": 3600}

# How many tokens a second of sound is, at least and at most: what models that are priced by tokens have been seen to
# count, with room on both sides, since it is for nobody but caps. Nobody says more than ten tokens in a second.
HEARD_TOKENS_PER_S = (8.0, 40.0)
SPOKEN_TOKENS_PER_S = (10.0, 60.0)
WRITTEN_TOKENS_PER_S = 10.0
# What stands around a question, such as who speaks.
PROMPT_TOKENS = 50

# Gateways that charge a shortest length (told by others, 2026-10).
LEAST_S = {"groq": 10.0}

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


def speaking(prices: tuple[Price, ...], text: str) -> Estimate:
    """Price a text: exactly where characters, bytes or requests decide, as a range where tokens do."""
    size_bytes = len(text.encode("utf-8", "replace"))
    seconds = expected_s(text)
    return _estimate(
        prices,
        {
            "character": (len(text), len(text)),
            "byte": (size_bytes, size_bytes),
            "request": (1, 1),
            # No token is shorter than a byte; a word of English is one or two.
            "token": (len(text) / 5, size_bytes),
            "output token": (seconds * SPOKEN_TOKENS_PER_S[0] / 2, seconds * SPOKEN_TOKENS_PER_S[1] * 3),
            **_times(seconds / 2, seconds * 3),
        },
    )


def listening(prices: tuple[Price, ...], duration_s: float | None, *, least_s: float = 0.0) -> Estimate:
    """Price a recording by its length; `least_s` is the shortest that its gateway charges."""
    if duration_s is None:
        return _estimate(prices, {"request": (1, 1)})
    least_s = max(least_s, *(price.least_s for price in prices)) if prices else least_s
    step_s = max((price.step_s for price in prices), default=0.0)
    charged_s = max(duration_s, least_s)
    if step_s:
        charged_s = math.ceil(charged_s / step_s - 1e-9) * step_s
    return _estimate(
        prices,
        {
            "request": (1, 1),
            "token": (charged_s * HEARD_TOKENS_PER_S[0], charged_s * HEARD_TOKENS_PER_S[1]),
            "output token": (0, charged_s * WRITTEN_TOKENS_PER_S),
            **_times(charged_s, charged_s),
        },
    )


def sound(heard: object, spoken: object) -> tuple[Price, ...]:
    """Read what a model that talks charges for tokens of sound, where its list tells that apart."""
    told = ((amount(heard), "audio token"), (amount(spoken), "audio output token"))
    return tuple(Price(usd, per, is_reading=True) for usd, per in told if usd)


def talking(prices: tuple[Price, ...], text: str, *, heard_s: float, speaks: bool, most_tokens: int | None) -> Estimate:
    """Price a question and its answer. Nobody knows how long an answer is, so without `most_tokens` it has no upper
    bound; and none of its tokens is known to be cheaper than the dearest.
    """
    heard = (heard_s * HEARD_TOKENS_PER_S[0], heard_s * HEARD_TOKENS_PER_S[1])
    asked = (len(text) / 5, float(len(text.encode("utf-8", "replace")) + PROMPT_TOKENS))
    told = {price.per for price in prices}
    if "audio token" not in told:
        asked, heard = (asked[0] + heard[0], asked[1] + heard[1]), (0.0, 0.0)
    answered = (1.0, float(most_tokens or 1))
    if _is_all_one(prices):
        asked = (asked[0] + answered[0], asked[1] + answered[1])
    estimate = _estimate(
        prices,
        {
            "request": (1, 1),
            "token": asked,
            "output token": answered,
            "audio token": heard,
            "audio output token": (0.0, answered[1] if speaks else 0.0),
        },
    )
    return estimate if most_tokens is not None else estimate._replace(most_nanousd=None)


def _is_all_one(prices: tuple[Price, ...]) -> bool:
    """Tell whether the user has one price for all tokens; a list that tells one only means the other is free."""
    return [price.per for price in prices if not price.is_reading] == ["token"]


def talked(prices: tuple[Price, ...], usage: Usage) -> Estimate:
    """Price a conversation by the tokens that its gateway counted; unknown where it did not."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return Estimate()
    heard, spoken = usage.input_audio_tokens or 0, usage.output_audio_tokens or 0
    told = {price.per for price in prices}
    asked = usage.input_tokens - (heard if "audio token" in told else 0)
    answered = usage.output_tokens - (spoken if "audio output token" in told else 0)
    asked += usage.output_tokens if _is_all_one(prices) else 0
    counts = {"token": asked, "output token": answered, "audio token": heard, "audio output token": spoken}
    return _estimate(prices, {"request": (1, 1), **{name: (count, count) for name, count in counts.items()}})


def _times(least_s: float, most_s: float) -> dict[str, tuple[float, float]]:
    return {name: (least_s / size, most_s / size) for name, size in SECONDS.items()}


def _estimate(prices: tuple[Price, ...], units: Mapping[str, tuple[float, float]]) -> Estimate:
    """Sum prices × units; unknown as soon as one of them is."""
    if not prices or any(price.per not in units for price in prices):
        return Estimate()
    least = most = Decimal(0)
    for price in prices:
        low, high = units[price.per or ""]
        least += price.usd * Decimal(str(low))
        most += price.usd * Decimal(str(high))
    counted = all(units[price.per or ""][0] == units[price.per or ""][1] for price in prices)
    return Estimate(
        _nanousd(least), _nanousd(most), is_certain=counted and not any(price.is_reading for price in prices)
    )


def _nanousd(usd: Decimal) -> int:
    return int((usd * NANOUSD_PER_USD).to_integral_value(ROUND_CEILING))


FREE = Estimate(0, 0, is_certain=True)
