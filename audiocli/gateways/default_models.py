"""Choose the model of a gateway for a request that names none: from the dated table and the cached model list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Literal, NamedTuple, Protocol

from ..types.routes import ModelCard, Price, Route
from . import DefaultModel, get_built_in, is_default_server

# The names of the fields of `BuiltInGateway`.
Purpose = Literal["speech", "transcription", "timed_transcription", "translation", "diarization", "chat"]
KINDS: dict[Purpose, str] = {
    "speech": "speech",
    "transcription": "transcription",
    "timed_transcription": "transcription",
    "translation": "transcription",
    "diarization": "transcription",
    "chat": "chat",
}

# A model whose announced shutdown is at most this many days away gets a warning.
END_DATE_WARNING_DAYS = 60

# A model that costs up to this factor more than the model that it replaces has the same price.
SAME_PRICE_FACTOR = 1.25
# The request that prices are compared with: a page of text, a minute of audio.
SAMPLE_TEXT = "word " * 300
SAMPLE_DURATION_S = 60.0
SAMPLE_TOKENS = 1000


class ListedModels(Protocol):
    """What the cached model lists say."""

    @property
    def today(self) -> date: ...

    def get_cards(self, route: Route) -> Sequence[ModelCard] | None:
        """Return the cached list of the gateway of a route; None if there is none."""
        ...

    def get_end_date(self, route: Route) -> date | None: ...


class DefaultChoice(NamedTuple):
    """The default model of a gateway.

    Attributes:
        model: None if the gateway has no model left.
        serves_purpose: Whether the model serves the purpose. If not, it is the default for plain transcription.
        note: What was replaced, and why.
        reason: Why the first choice is not used.
        former_models: Models that were or may be the default, whose stored results remain valid.
    """

    model: str | None
    serves_purpose: bool = True
    note: str | None = None
    reason: str | None = None
    former_models: tuple[str, ...] = ()


def choose_default(
    gateway_route: Route,
    purpose: Purpose,
    info: ListedModels,
    is_suitable: Callable[[Route], bool],
    *,
    voice: str | None = None,
    needs_instructions: bool = False,
    needs_speed: bool = False,
) -> DefaultChoice:
    """Choose the default model of a built-in gateway.

    The first model of the table that has not ended and that the list does not lack is used; a later one if it has the
    voice that the user named, or accepts instructions or a speed. If none is left, it is the listed model of the same
    kind with the most similar price. A server that is not the built-in one may have models that it does not list: the
    first model of the table is then used as it is.

    Args:
        gateway_route: The gateway; its model is ignored.
        is_suitable: Whether a listed model may serve the request.
    """
    built_in = get_built_in(gateway_route.gateway)
    assert built_in is not None
    defaults: tuple[DefaultModel, ...] = getattr(built_in, purpose)
    if not defaults:
        return DefaultChoice(None, serves_purpose=False)
    if gateway_route.dialect == "local":
        return DefaultChoice(defaults[0].model)
    reasons = [_explain_absence(default, gateway_route, info) for default in defaults]
    # The absence of a model that is used only if it is listed is no reason for a note.
    reason = next(
        (
            f"{gateway_route.gateway}:{default.model} {reason}"
            for default, reason in zip(defaults, reasons, strict=True)
            if reason and not default.only_if_listed
        ),
        None,
    )
    available = [index for index, reason in enumerate(reasons) if reason is None]
    if available:
        chosen = min(
            available,
            key=lambda index: (
                voice is not None and voice not in defaults[index].voices,
                needs_instructions and not defaults[index].accepts_instructions,
                needs_speed and not defaults[index].accepts_speed,
            ),
        )
        model = defaults[chosen].model
        is_replaced = not any(index <= chosen and not defaults[index].only_if_listed for index in available) or (
            reason is not None and available[0] > 0 and chosen == available[0]
        )
        note = f"{reason}; using {gateway_route.gateway}:{model}" if reason and is_replaced else None
    else:
        found = _find_similar_model(gateway_route, defaults[0].model, KINDS[purpose], info, is_suitable)
        if (
            found is None
            and purpose in ("speech", "transcription", "chat")
            and not _is_gone(gateway_route, defaults, info)
        ):
            found = next(default.model for default in defaults if not default.only_if_listed)
            return DefaultChoice(found, former_models=_list_former_models(defaults, found))
        if found is None:
            former_models = tuple(default.model for default in defaults)
            return DefaultChoice(None, serves_purpose=False, reason=reason, former_models=former_models)
        model, note = found, f"{reason}; using {gateway_route.gateway}:{found}"
    return DefaultChoice(model, note=note, reason=reason, former_models=_list_former_models(defaults, model))


def may_be_outdated(gateway_route: Route, purpose: Purpose, info: ListedModels) -> bool:
    """Return whether a new model list is needed to find the default model.

    That is so if the first model that needs no list has ended, if the cached list lacks it, or if it ends soon and
    another model is preferred once it is listed.
    """
    built_in = get_built_in(gateway_route.gateway)
    defaults: tuple[DefaultModel, ...] = getattr(built_in, purpose) if built_in is not None else ()
    if not defaults:
        return False
    first = next(default for default in defaults if not default.only_if_listed)
    days_left = (first.end_date - info.today).days if first.end_date is not None else None
    if days_left is not None and days_left <= (END_DATE_WARNING_DAYS if defaults[0].only_if_listed else 0):
        return True
    return _explain_absence(first, gateway_route, info) is not None


def _explain_absence(default: DefaultModel, gateway_route: Route, info: ListedModels) -> str | None:
    """Return why a model cannot be used: it has ended, or is not listed. None if it can be used."""
    route = gateway_route._replace(model=default.model)
    cards = info.get_cards(gateway_route)
    if cards is None and default.only_if_listed:
        return "may not exist yet"
    end_date = info.get_end_date(route) or (default.end_date if is_default_server(route) else None)
    if end_date is not None and end_date <= info.today:
        return f"was shut down on {end_date.isoformat()}"
    if cards is not None and not any(card.model == default.model for card in cards):
        return f"is not in the model list of {gateway_route.gateway}"
    return None


def _is_gone(gateway_route: Route, defaults: Sequence[DefaultModel], info: ListedModels) -> bool:
    """Return whether the default models are certainly gone.

    Another server than the built-in one may have models that it does not list, also if they have ended elsewhere. They
    are gone if it has a list without them, and they have ended.
    """
    have_ended = all(default.end_date is not None and default.end_date <= info.today for default in defaults)
    return is_default_server(gateway_route) or (have_ended and bool(info.get_cards(gateway_route)))


def _list_former_models(defaults: Sequence[DefaultModel], model: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(default.model for default in defaults if default.model != model))


def _find_similar_model(
    gateway_route: Route,
    replaced_model: str,
    kind: str,
    info: ListedModels,
    is_suitable: Callable[[Route], bool],
) -> str | None:
    """Return the listed model of a kind whose price is nearest to that of the replaced model, from below if possible.

    Models without a known price come last. None if no suitable model is listed.
    """
    from .. import pricing  # only here, because a command that prints a report does not need it

    cards = info.get_cards(gateway_route) or ()
    replaced_prices = next((card.prices for card in cards if card.model == replaced_model), ())
    reference = _price_sample(
        kind, replaced_prices or pricing.find_published_prices(gateway_route.gateway, replaced_model)
    )

    def rank(card: ModelCard) -> tuple[bool, bool, float]:
        cost = _price_sample(kind, card.prices)
        if cost is None:
            return True, False, 0.0
        is_expensive = reference is None or cost > SAME_PRICE_FACTOR * reference
        return False, is_expensive, cost if is_expensive else -cost

    suitable = [
        card
        for card in cards
        if card.kind == kind
        and not ((end_date := info.get_end_date(gateway_route._replace(model=card.model))) and end_date <= info.today)
        and is_suitable(gateway_route._replace(model=card.model))
    ]
    return min(suitable, key=rank).model if suitable else None


def _price_sample(kind: str, prices: tuple[Price, ...]) -> int | None:
    """Return what a typical request costs in nano-dollars; None if the price is unknown."""
    from .. import pricing

    if kind == "speech":
        estimate = pricing.estimate_speech(prices, SAMPLE_TEXT)
    elif kind == "transcription":
        estimate = pricing.estimate_transcription(prices, SAMPLE_DURATION_S)
    else:
        estimate = pricing.estimate_chat(
            prices, SAMPLE_TEXT, input_audio_s=SAMPLE_DURATION_S, has_audio_output=True, max_tokens=SAMPLE_TOKENS
        )
    return None if estimate.min_nanousd is None or estimate.max_nanousd is None else estimate.nanousd


def list_surviving_models(gateway_route: Route, kind: Purpose, info: ListedModels, *, maximum: int = 3) -> list[str]:
    """Return models of a kind that have not ended: those of the table, then others of the cached list."""
    built_in = get_built_in(gateway_route.gateway)
    defaults: tuple[DefaultModel, ...] = getattr(built_in, kind) if built_in is not None else ()
    names = [default.model for default in defaults if _explain_absence(default, gateway_route, info) is None]
    names += [
        card.model
        for card in info.get_cards(gateway_route) or ()
        if card.kind == KINDS[kind] and (card.end_date is None or card.end_date > info.today)
    ]
    return list(dict.fromkeys(names))[:maximum]
