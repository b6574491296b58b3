"""Parse the prices of gateways, and estimate what requests cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import NamedTuple

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


class Count(NamedTuple):
    """The expected number of units, between a minimum and a maximum. The maximum is for spending limits."""

    min: float
    expected: float
    max: float


# Tokens per second of audio. OpenAI counts 10 for input and 20 for output audio, Google 25 to 32 (documentation and
# price pages, read 2026-11). The bounds have a margin.
INPUT_AUDIO_TOKENS_PER_S = Count(8.0, 10.0, 40.0)
OUTPUT_AUDIO_TOKENS_PER_S = Count(10.0, 20.0, 30.0)
# Tokens of transcribed speech: 150 words per minute are about 3 tokens per second.
TEXT_TOKENS_PER_S = Count(0.0, 3.0, 10.0)
# A token has about four bytes: four characters of English, or one and a half of Chinese. It has at least one byte.
BYTES_PER_TOKEN = 4.0
MAX_CHARACTERS_PER_TOKEN = 5.0
# Tokens of a prompt in addition to its text, such as role markers.
PROMPT_OVERHEAD_TOKENS = 50

# Speech may last half or three times as long as estimated.
SPEECH_DURATION_FACTORS = Count(0.5, 1.0, 3.0)

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
    # developers.openai.com/api/docs/models/gpt-transcribe, read 2026-11.
    ("openai", "gpt-transcribe"): Price(Decimal("0.0045"), "minute"),
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


def parse_litellm_prices(kind: str | None, info: Mapping[str, object]) -> tuple[Price, ...]:
    """Parse the `model_info` of a model in LiteLLM's `GET /model/info`. The fields name the units.

    LiteLLM charges `output_cost_per_second` of a recording if it is set, else `input_cost_per_second`, never both
    (source of LiteLLM 1.108.7). If a transcription model has prices per second and per token, tokens are charged, and
    the price per second is a good approximation.
    """

    def find_price(*names: str) -> Decimal | None:
        listed_prices = [price for price in (parse_price(info.get(name)) for name in names) if price is not None]
        return next((price for price in listed_prices if price), listed_prices[0] if listed_prices else None)

    character_usd = find_price("input_cost_per_character", "output_cost_per_character") if kind == "speech" else None
    second_usd = find_price("output_cost_per_second", "input_cost_per_second") if kind != "chat" else None
    token_usd, output_token_usd = find_price("input_cost_per_token"), find_price("output_cost_per_token")
    audio_token_usd = find_price("input_cost_per_audio_token")
    audio_output_token_usd = find_price("output_cost_per_audio_token")
    if character_usd is not None and (character_usd or not (token_usd or second_usd)):
        return (Price(character_usd, "character"),)
    if kind == "speech":
        output_usd = find_price("output_cost_per_audio_token", "output_cost_per_token")
        input_price = (Price(token_usd, "token"),) if token_usd else ()
        if output_usd:
            return (*input_price, Price(output_usd, "output token"))
        if second_usd is not None and (second_usd or not token_usd):
            return (*input_price, Price(second_usd, "second"))
        # Without a price of the output the cost is unknown, because the output is most of it.
        return ()
    if kind == "transcription":
        has_token_price = bool(token_usd or audio_token_usd)
        if second_usd is not None and (second_usd or not has_token_price):
            return (Price(second_usd, "second", unit_is_assumed=has_token_price),)
        input_usd = find_price("input_cost_per_audio_token", "input_cost_per_token")
        priced_units = [(input_usd, "token"), (output_token_usd, "output token")]
    else:
        priced_units = [
            *((token_usd, "token"), (output_token_usd, "output token")),
            *((audio_token_usd, "audio token"), (audio_output_token_usd, "audio output token")),
        ]
    return tuple(Price(usd, unit) for usd, unit in priced_units if usd)


def estimate_speech(
    prices: tuple[Price, ...], text: str, *, speed: float | None = None, audio_s: float | None = None
) -> Estimate:
    """Estimate the cost of speech: exactly for character, byte and request prices, as a range for other prices.

    `audio_s` is the length of the received audio, which replaces the expected length. A speed above 1 shortens the
    expected length, but not the maximum, because some models ignore it.
    """
    size_bytes = len(text.encode("utf-8", "replace"))
    duration_s = (
        Count(audio_s, audio_s, audio_s)
        if audio_s is not None
        else _multiply(SPEECH_DURATION_FACTORS, estimate_duration_s(text))
    )
    if audio_s is None and speed:
        duration_s = Count(duration_s.min / max(speed, 1), duration_s.expected / speed, duration_s.max / min(speed, 1))
    estimate = _build_estimate(
        prices,
        {
            "character": _build_exact_count(len(text)),
            "byte": _build_exact_count(size_bytes),
            "request": _build_exact_count(1),
            "token": _count_text_tokens(text, size_bytes),
            "output token": Count(*(s * n for s, n in zip(duration_s, OUTPUT_AUDIO_TOKENS_PER_S, strict=True))),
            **_build_time_units(duration_s),
        },
    )
    # The length that the gateway charges may differ from that of the received audio.
    has_time_price = any(price.unit in SECONDS_PER_UNIT for price in prices)
    return estimate._replace(is_exact=False) if has_time_price else estimate


def estimate_transcription(
    prices: tuple[Price, ...], duration_s: float | None, *, min_billed_s: float = 0.0
) -> Estimate:
    """Estimate the cost of a transcription from the duration. `min_billed_s` is the minimum that the gateway bills."""
    if duration_s is None:
        return _build_estimate(prices, {"request": _build_exact_count(1)})
    min_billed_s = max(min_billed_s, *(price.min_billed_s for price in prices)) if prices else min_billed_s
    increment_s = max((price.billing_increment_s for price in prices), default=0.0)
    billed_s = max(duration_s, min_billed_s)
    if increment_s:
        billed_s = math.ceil(billed_s / increment_s - 1e-9) * increment_s
    return _build_estimate(
        prices,
        {
            "request": _build_exact_count(1),
            "token": _multiply(INPUT_AUDIO_TOKENS_PER_S, billed_s),
            "output token": _multiply(TEXT_TOKENS_PER_S, billed_s),
            **_build_time_units(_build_exact_count(billed_s)),
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

    Without `max_tokens` the length of the reply is unbounded, so the maximum cost is unknown. Every output token may be
    an audio token, which is the most expensive kind.
    """
    input_tokens = _count_text_tokens(text, len(text.encode("utf-8", "replace")))
    input_tokens = _add(input_tokens, Count(0.0, PROMPT_OVERHEAD_TOKENS / 2, PROMPT_OVERHEAD_TOKENS))
    input_audio_tokens = _multiply(INPUT_AUDIO_TOKENS_PER_S, input_audio_s)
    if "audio token" not in {price.unit for price in prices}:
        input_tokens, input_audio_tokens = _add(input_tokens, input_audio_tokens), _build_exact_count(0)
    # The length of the reply is unknown, so the expected number of tokens is the middle.
    max_output_tokens = float(max_tokens or 1)
    output_tokens = Count(1.0, (1.0 + max_output_tokens) / 2, max_output_tokens)
    if _has_single_token_price(prices):
        input_tokens = _add(input_tokens, output_tokens)
    max_audio_tokens = max_output_tokens if has_audio_output else 0.0
    estimate = _build_estimate(
        prices,
        {
            "request": _build_exact_count(1),
            "token": input_tokens,
            "output token": output_tokens,
            "audio token": input_audio_tokens,
            "audio output token": Count(0.0, max_audio_tokens / 2, max_audio_tokens),
        },
    )
    return estimate if max_tokens is not None else estimate._replace(max_nanousd=None, expected_nanousd=None)


def _has_single_token_price(prices: tuple[Price, ...]) -> bool:
    """Return whether a configured price applies to all tokens.

    In a model list, a missing price for one kind of token means that this kind is free.
    """
    return [price.unit for price in prices if not price.unit_is_assumed] == ["token"]


def estimate_usage(prices: tuple[Price, ...], usage: Usage) -> Estimate:
    """Compute the cost of a request from the token counts of the gateway. Without counts it is unknown."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return Estimate()
    input_audio_tokens, output_audio_tokens = usage.input_audio_tokens or 0, usage.output_audio_tokens or 0
    units = {price.unit for price in prices}
    input_tokens = usage.input_tokens - (input_audio_tokens if "audio token" in units else 0)
    output_tokens = usage.output_tokens - (output_audio_tokens if "audio output token" in units else 0)
    input_tokens += usage.output_tokens if _has_single_token_price(prices) else 0
    counts = {
        "request": 1,
        "token": input_tokens,
        "output token": output_tokens,
        "audio token": input_audio_tokens,
        "audio output token": output_audio_tokens,
    }
    return _build_estimate(prices, {name: _build_exact_count(count) for name, count in counts.items()})


def sum_estimates(estimates: Sequence[Estimate]) -> Estimate:
    """Add estimates. The sum is unknown if one of them is unknown."""
    minimums = [estimate.min_nanousd for estimate in estimates]
    maximums = [estimate.max_nanousd for estimate in estimates]
    return Estimate(
        None if None in minimums else sum(price or 0 for price in minimums),
        None if None in maximums else sum(price or 0 for price in maximums),
        all(estimate.is_exact for estimate in estimates),
        sum(estimate.nanousd or 0 for estimate in estimates),
    )


def has_output_token_price(prices: tuple[Price, ...]) -> bool:
    """Return whether the tokens of the output have a price, so that the token counts of the gateway decide the cost."""
    return any(price.unit == "output token" for price in prices)


# Bounds of the correction of an estimate. A larger difference is an error in a price or in a reported cost.
MIN_CORRECTION, MAX_CORRECTION = 0.25, 4.0


def compute_correction(ratios: Sequence[float]) -> float:
    """Return the factor for the estimates of a model: the median of its ratios of billed to estimated costs.

    The price list itself counts as one ratio of 1, so that a single unusual request has little influence.
    """
    ordered = sorted((*ratios, 1.0))
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return min(max(median, MIN_CORRECTION), MAX_CORRECTION)


def correct_estimate(estimate: Estimate, correction: float) -> Estimate:
    """Correct an estimate by the ratio of earlier bills to their estimates. An exact estimate stays as it is.

    The maximum can only grow, because it is for spending limits.
    """
    if correction == 1 or estimate.is_exact or estimate.nanousd is None or estimate.max_nanousd is None:
        return estimate
    return estimate._replace(
        max_nanousd=math.ceil(estimate.max_nanousd * max(correction, 1)),
        expected_nanousd=math.ceil(estimate.nanousd * correction),
        listed_nanousd=estimate.nanousd,
    )


def format_prices(prices: tuple[Price, ...]) -> str:
    """Format prices in units that make models comparable, such as `$15 / 1M characters`; `?` if they are unknown."""
    if not prices:
        return "?"
    if all(price.usd == 0 for price in prices):
        return "free"
    return " + ".join(_format_price(price) for price in prices)


def _format_price(price: Price) -> str:
    if price.unit is None:
        return f"${price.usd.normalize():f} / ?"
    scale, unit = {
        "second": (60, "minute"),
        "minute": (1, "minute"),
        "hour": (1, "hour"),
        "request": (1, "request"),
    }.get(price.unit, (1_000_000, f"1M {price.unit}s"))
    amount = (price.usd * scale).quantize(Decimal("0.0001")).normalize()
    return f"${amount:f} / {unit}"


def _build_exact_count(count: float) -> Count:
    return Count(count, count, count)


def _multiply(count: Count, factor: float) -> Count:
    return Count(*(value * factor for value in count))


def _add(count: Count, other: Count) -> Count:
    return Count(*(value + other_value for value, other_value in zip(count, other, strict=True)))


def _count_text_tokens(text: str, size_bytes: int) -> Count:
    return Count(len(text) / MAX_CHARACTERS_PER_TOKEN, size_bytes / BYTES_PER_TOKEN, size_bytes)


def _build_time_units(duration_s: Count) -> dict[str, Count]:
    return {unit: _multiply(duration_s, 1 / seconds) for unit, seconds in SECONDS_PER_UNIT.items()}


def _build_estimate(prices: tuple[Price, ...], units: Mapping[str, Count]) -> Estimate:
    """Add up prices multiplied by counts. The result is unknown if the count of one unit is unknown."""
    if not prices or any(price.unit not in units for price in prices):
        return Estimate()
    counts = [units[price.unit or ""] for price in prices]
    min_usd, expected_usd, max_usd = (
        sum((price.usd * Decimal(str(number)) for price, number in zip(prices, numbers, strict=True)), Decimal(0))
        for numbers in zip(*counts, strict=True)
    )
    unit_is_assumed = any(price.unit_is_assumed for price in prices)
    return Estimate(
        _to_nanousd(min_usd),
        _to_nanousd(max_usd),
        is_exact=not unit_is_assumed and all(count.min == count.max for count in counts),
        expected_nanousd=_to_nanousd(expected_usd),
        unit_is_assumed=unit_is_assumed,
    )


def _to_nanousd(usd: Decimal) -> int:
    return int((usd * NANOUSD_PER_USD).to_integral_value(ROUND_CEILING))


FREE = Estimate(0, 0, is_exact=True)
