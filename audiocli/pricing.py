"""Parse the prices of gateways, and estimate what requests cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation

from .text.speech_rate import estimate_duration_s
from .types.ledger import NANOUSD_PER_USD, Estimate, Usage
from .types.routes import Price

# Higher unit prices in a model list are errors.
MAX_UNIT_PRICE_USD = Decimal(1000)

# OpenRouter lists a price without a unit. These thresholds fit every price with a recorded cost (2026-10):
# transcription costs cents to a dollar per hour, 0.00001 to 0.001 dollars per second, and less per token.
MIN_HOUR_PRICE_USD = Decimal("0.01")
MIN_SECOND_PRICE_USD = Decimal("0.00001")

SECONDS_PER_UNIT = {"second": 1, "minute": 60, "hour": 3600}

# Minimum and maximum tokens per second of audio, as counted by models with token prices, with a margin on both sides
# because they are used for spending limits. Speech has at most 10 text tokens per second.
INPUT_AUDIO_TOKENS_PER_S = (8.0, 40.0)
OUTPUT_AUDIO_TOKENS_PER_S = (10.0, 60.0)
MAX_TEXT_TOKENS_PER_S = 10.0
# Tokens of a prompt in addition to its text, such as role markers.
PROMPT_OVERHEAD_TOKENS = 50

# The minimum duration that a gateway bills (according to third parties, 2026-10).
MIN_BILLED_S = {"groq": 10.0}

# Published prices that are not in a model list. TheRouter: "Audio API" page, read 2026-10.
_PER_MILLION = Decimal(1) / 1_000_000
PUBLISHED_PRICES = {
    ("therouter", "openai/tts-1"): Price(15 * _PER_MILLION, "character"),
    ("therouter", "openai/tts-1-hd"): Price(30 * _PER_MILLION, "character"),
    **{
        ("therouter", model): Price(Decimal("7.15") * _PER_MILLION, "byte")
        for model in ("alibaba/cosyvoice2-0.5b", "fishaudio/fish-speech-1.5", "indexteam/indextts-2")
    },
    ("therouter", "openai/whisper-1"): Price(Decimal("0.006"), "minute"),
    ("therouter", "alibaba/sensevoice-small"): Price(Decimal("0.006"), "minute"),
}


def find_published_prices(gateway: str, model: str) -> tuple[Price, ...]:
    """Return the price that a gateway publishes outside its model list, or () if none is known."""
    price = PUBLISHED_PRICES.get((gateway, model))
    return () if price is None else (price,)


def parse_price(value: object) -> Decimal | None:
    """Parse a price in US dollars. Return None if it is negative, implausible or invalid.

    OpenRouter uses -1 for a price that depends on the request.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        usd = Decimal(str(value))
    except InvalidOperation:
        return None
    return usd if usd.is_finite() and 0 <= usd <= MAX_UNIT_PRICE_USD else None


def parse_openrouter_prices(kind: str | None, prompt: object, completion: object) -> tuple[Price, ...]:
    """Parse the two prices of an OpenRouter model, which have no units.

    The units are inferred. Source: recorded responses and costs, 2026-10.
    """
    prompt_usd, completion_usd = parse_price(prompt), parse_price(completion)
    if prompt_usd is None or completion_usd is None:
        return ()
    if not prompt_usd and not completion_usd:
        return (Price(Decimal(0), "request"),)
    if completion_usd:
        # Two prices are per input and output token. The unit of a single output price is unknown.
        has_token_unit = bool(prompt_usd) or kind == "chat"
        return (
            *((Price(prompt_usd, "token", unit_is_assumed=True),) if prompt_usd else ()),
            Price(completion_usd, "output token" if has_token_unit else None, unit_is_assumed=has_token_unit),
        )
    if kind == "speech":
        return (Price(prompt_usd, "character", unit_is_assumed=True),)
    if kind != "transcription":
        return (Price(prompt_usd, "token", unit_is_assumed=True),)
    unit = "hour" if prompt_usd >= MIN_HOUR_PRICE_USD else "second" if prompt_usd >= MIN_SECOND_PRICE_USD else "token"
    return (Price(prompt_usd, unit, unit_is_assumed=True),)


def estimate_speech(prices: tuple[Price, ...], text: str) -> Estimate:
    """Estimate the cost of speech: exactly for character, byte and request prices, as a range for token prices."""
    size_bytes = len(text.encode("utf-8", "replace"))
    # Speech may last half or three times as long as estimated.
    duration_s = estimate_duration_s(text)
    return _build_estimate(
        prices,
        {
            "character": (len(text), len(text)),
            "byte": (size_bytes, size_bytes),
            "request": (1, 1),
            # A token has at least one byte; an English word has one or two tokens.
            "token": (len(text) / 5, size_bytes),
            "output token": (
                duration_s * OUTPUT_AUDIO_TOKENS_PER_S[0] / 2,
                duration_s * OUTPUT_AUDIO_TOKENS_PER_S[1] * 3,
            ),
            **_build_time_units(duration_s / 2, duration_s * 3),
        },
    )


def estimate_transcription(
    prices: tuple[Price, ...], duration_s: float | None, *, min_billed_s: float = 0.0
) -> Estimate:
    """Estimate the cost of a transcription from the duration. `min_billed_s` is the minimum that the gateway bills."""
    if duration_s is None:
        return _build_estimate(prices, {"request": (1, 1)})
    min_billed_s = max(min_billed_s, *(price.min_billed_s for price in prices)) if prices else min_billed_s
    increment_s = max((price.billing_increment_s for price in prices), default=0.0)
    billed_s = max(duration_s, min_billed_s)
    if increment_s:
        billed_s = math.ceil(billed_s / increment_s - 1e-9) * increment_s
    return _build_estimate(
        prices,
        {
            "request": (1, 1),
            "token": (billed_s * INPUT_AUDIO_TOKENS_PER_S[0], billed_s * INPUT_AUDIO_TOKENS_PER_S[1]),
            "output token": (0, billed_s * MAX_TEXT_TOKENS_PER_S),
            **_build_time_units(billed_s, billed_s),
        },
    )


def parse_audio_prices(input_price: object, output_price: object) -> tuple[Price, ...]:
    """Parse the prices of audio tokens of a chat model, if they are listed separately."""
    priced_units = ((parse_price(input_price), "audio token"), (parse_price(output_price), "audio output token"))
    return tuple(Price(usd, unit, unit_is_assumed=True) for usd, unit in priced_units if usd)


def estimate_chat(
    prices: tuple[Price, ...], text: str, *, input_audio_s: float, has_audio_output: bool, max_tokens: int | None
) -> Estimate:
    """Estimate the cost of a chat request and its reply.

    The length of the reply is unknown, so without `max_tokens` the maximum cost is unknown. Every output token may be
    an audio token, which is the most expensive kind.
    """
    input_audio_tokens = (input_audio_s * INPUT_AUDIO_TOKENS_PER_S[0], input_audio_s * INPUT_AUDIO_TOKENS_PER_S[1])
    input_tokens = (len(text) / 5, float(len(text.encode("utf-8", "replace")) + PROMPT_OVERHEAD_TOKENS))
    units = {price.unit for price in prices}
    if "audio token" not in units:
        input_tokens, input_audio_tokens = (
            (input_tokens[0] + input_audio_tokens[0], input_tokens[1] + input_audio_tokens[1]),
            (0.0, 0.0),
        )
    output_tokens = (1.0, float(max_tokens or 1))
    if _has_single_token_price(prices):
        input_tokens = (input_tokens[0] + output_tokens[0], input_tokens[1] + output_tokens[1])
    estimate = _build_estimate(
        prices,
        {
            "request": (1, 1),
            "token": input_tokens,
            "output token": output_tokens,
            "audio token": input_audio_tokens,
            "audio output token": (0.0, output_tokens[1] if has_audio_output else 0.0),
        },
    )
    return estimate if max_tokens is not None else estimate._replace(max_nanousd=None)


def _has_single_token_price(prices: tuple[Price, ...]) -> bool:
    """Return whether a configured price applies to all tokens.

    In a model list, a missing price for one kind of token means that this kind is free.
    """
    return [price.unit for price in prices if not price.unit_is_assumed] == ["token"]


def estimate_chat_usage(prices: tuple[Price, ...], usage: Usage) -> Estimate:
    """Compute the cost of a chat from the token counts of the gateway. Without counts it is unknown."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return Estimate()
    input_audio_tokens, output_audio_tokens = usage.input_audio_tokens or 0, usage.output_audio_tokens or 0
    units = {price.unit for price in prices}
    input_tokens = usage.input_tokens - (input_audio_tokens if "audio token" in units else 0)
    output_tokens = usage.output_tokens - (output_audio_tokens if "audio output token" in units else 0)
    input_tokens += usage.output_tokens if _has_single_token_price(prices) else 0
    counts = {
        "token": input_tokens,
        "output token": output_tokens,
        "audio token": input_audio_tokens,
        "audio output token": output_audio_tokens,
    }
    return _build_estimate(prices, {"request": (1, 1), **{name: (count, count) for name, count in counts.items()}})


def _build_time_units(min_s: float, max_s: float) -> dict[str, tuple[float, float]]:
    return {unit: (min_s / seconds, max_s / seconds) for unit, seconds in SECONDS_PER_UNIT.items()}


def _build_estimate(prices: tuple[Price, ...], units: Mapping[str, tuple[float, float]]) -> Estimate:
    """Add up prices multiplied by counts. The result is unknown if the count of one unit is unknown."""
    if not prices or any(price.unit not in units for price in prices):
        return Estimate()
    min_usd = max_usd = Decimal(0)
    for price in prices:
        min_count, max_count = units[price.unit or ""]
        min_usd += price.usd * Decimal(str(min_count))
        max_usd += price.usd * Decimal(str(max_count))
    has_exact_counts = all(units[price.unit or ""][0] == units[price.unit or ""][1] for price in prices)
    return Estimate(
        _to_nanousd(min_usd),
        _to_nanousd(max_usd),
        is_exact=has_exact_counts and not any(price.unit_is_assumed for price in prices),
    )


def _to_nanousd(usd: Decimal) -> int:
    return int((usd * NANOUSD_PER_USD).to_integral_value(ROUND_CEILING))


FREE = Estimate(0, 0, is_exact=True)
