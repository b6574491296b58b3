"""Models, prices and voices of gateways, cached for a day and usable offline."""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Callable, Sequence
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from .. import gateways, pricing
from ..errors import AttemptError, AudiocliError, InvalidResponse, UsageError
from ..types.routes import ModelCard, Price, Route
from . import capabilities
from .response_body import open_response, read_body
from .run_context import RunContext

if TYPE_CHECKING:
    from ..storage.response_cache import CachedResponse, ResponseCache

MAX_LIST_BYTES = 32 * 1024 * 1024
CACHE_TTL_S = 24 * 3600
# A list older than this is fetched again before a name that it does not have is refused.
MAX_REFUSAL_AGE_S = 3600
# The version in the path of an API.
VERSION_PATTERN = r"/v\d+\w*(/|$)"
# A request waits at most this long for the price list that a spending limit needs.
PRICE_LIST_TIMEOUT_S = 5.0


class Listing(NamedTuple):
    """The models of one gateway.

    `age_s` is the age of a cached list, None for a new one. `error` is the reason why there is no
    new list.
    """

    route: Route
    cards: tuple[ModelCard, ...]
    age_s: float | None = None
    error: AudiocliError | None = None


async def fetch_listings(routes: Sequence[Route], ctx: RunContext, *, refresh: bool = False) -> list[Listing]:
    """List the models of several gateways concurrently. After an error the cached list is used, if there is one."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(fetch_listing(route, ctx, refresh=refresh)) for route in routes]
    return [task.result() for task in tasks]


async def fetch_listing(route: Route, ctx: RunContext, *, refresh: bool = False) -> Listing:
    """List the models of one gateway: from the cache if it is less than a day old, else from the gateway.

    If the request fails, the listing holds the cached models, if any, and the error.
    """
    cached = load_cached_listing(route, ctx.cache)
    # The voices of the local engines are those that are installed now.
    is_fresh = cached is not None and (cached.age_s or 0.0) < CACHE_TTL_S and route.dialect != "local"
    if cached is not None and is_fresh and not refresh:
        return cached
    try:
        return Listing(route, await _request_models(route, ctx))
    except AudiocliError as error:
        if cached is not None:
            return Listing(route, cached.cards, cached.age_s, error)
        return Listing(route, (), None, error)


async def fetch_missing_prices(routes: Sequence[Route], ctx: RunContext) -> None:
    """Cache the lists that may price these routes: one list for each gateway, at most 5 s in all.

    After an error or a timeout the prices stay unknown.
    """
    missing = {
        _cache_key(route): route
        for route in routes
        if gateways.load_dialect(route.dialect).may_list_prices(route) and not find_prices(route, ctx.cache)
    }
    if not missing:
        return
    try:
        async with asyncio.timeout(PRICE_LIST_TIMEOUT_S):
            listings = await fetch_listings(tuple(missing.values()), ctx)
    except TimeoutError:
        ctx.debug(f"no price list after {PRICE_LIST_TIMEOUT_S:.0f} s")
        return
    for listing in listings:
        if listing.error is not None:
            ctx.debug(f"no price list from {listing.route.gateway}: {listing.error.message}")


def load_cached_listing(route: Route, cache: ResponseCache) -> Listing | None:
    """Return the cached list of any age, without a request; None if there is none."""
    cached = cache.get("models", _cache_key(route))
    if cached is None:
        return None
    details = cache.get("model_details", _cache_key(route))
    # What a list says about the gateway does not depend on the model and the key.
    gateway_route = Route(route.gateway, route.dialect, route.base_url, model="", traits=route.traits)
    cards = _parse_cards(cached.body, None if details is None else details.body, gateway_route)
    return None if cards is None else Listing(route, cards, cached.age_s)


@lru_cache(maxsize=8)
def _parse_cards(body: bytes, details: bytes | None, route: Route) -> tuple[ModelCard, ...] | None:
    """Parse a list of models with its details. Cached, because every request looks up its price."""
    dialect = gateways.load_dialect(route.dialect)
    cards = dialect.parse_models(body, route)
    if cards is not None and details is not None:
        cards = dialect.add_model_details(cards, details, route)
    return None if cards is None else _add_published_prices(cards)


class ModelCatalog:
    """Cached model lists and refused features, for choosing routes without a request."""

    def __init__(
        self,
        cache: ResponseCache,
        today: date,
        *,
        choose_local_model: Callable[[str, bool], str] | None = None,
        choose_local_speech: Callable[[str, str | None, bool, str | None], tuple[str, str | None]] | None = None,
    ) -> None:
        """Create the catalog. `choose_local_model` and `choose_local_speech` have the arguments of the methods."""
        self._cache = cache
        self._choose_local_model = choose_local_model
        self._choose_local_speech = choose_local_speech
        self._cards: dict[str, dict[str, ModelCard] | None] = {}
        self.today = today

    def has_model(self, route: Route) -> bool | None:
        """Return whether the gateway lists this model; None if no list is cached."""
        cards = self._load_cards(route)
        return None if cards is None else route.model in cards

    def get_cards(self, route: Route) -> Sequence[ModelCard] | None:
        """Return the cached list of the gateway of a route; None if there is none."""
        cards = self._load_cards(route)
        return None if cards is None else tuple(cards.values())

    def get_voices(self, route: Route) -> tuple[str, ...]:
        """Return the voices of a model; empty if they are unknown."""
        card = (self._load_cards(route) or {}).get(route.model)
        return (
            (card.voices if card is not None else ())
            or gateways.load_dialect(route.dialect).get_known_voices(route)
            or ()
        )

    def has_old_list(self, route: Route) -> bool:
        """Return whether the cached list of the gateway is too old to refuse what it does not have."""
        cached = load_cached_listing(route, self._cache)
        return cached is not None and (cached.age_s or 0.0) > MAX_REFUSAL_AGE_S

    async def refresh_lists(self, routes: Sequence[Route], ctx: RunContext) -> None:
        """Fetch lists that decide which default model is used, at most once a day each.

        They are fetched concurrently, within 5 s. After an error the cached lists stay, and the next attempt is made in
        an hour.
        """
        outdated = [
            route
            for route in routes
            if _is_older_than(self._cache.get("models", _cache_key(route)), CACHE_TTL_S)
            and _is_older_than(self._cache.get("model_requests", _cache_key(route)), MAX_REFUSAL_AGE_S)
        ]
        for route in outdated:
            self._cache.put("model_requests", _cache_key(route), b"")
        if not outdated:
            return
        try:
            async with asyncio.timeout(PRICE_LIST_TIMEOUT_S):
                listings = await fetch_listings(outdated, ctx, refresh=True)
        except TimeoutError:
            ctx.debug(f"no model list after {PRICE_LIST_TIMEOUT_S:.0f} s")
            return
        for listing in listings:
            if listing.error is not None:
                ctx.debug(f"no model list from {listing.route.gateway}: {listing.error.message}")
            self._cards.pop(_cache_key(listing.route), None)

    async def refresh(self, route: Route, ctx: RunContext) -> None:
        """Fetch the list of a gateway. After an error the cached list stays."""
        await fetch_listing(route, ctx, refresh=True)
        self._cards.pop(_cache_key(route), None)

    def supports_speech(self, route: Route) -> bool | None:
        """Return whether a chat model can return audio; None if the gateway's list is missing or does not say."""
        cards = self._load_cards(route) if gateways.load_dialect(route.dialect).model_list_has_modalities else None
        if not cards or not any(card.kind == "chat" for card in cards.values()):
            return None
        # Variants of a model are named after a colon and are not listed.
        card = cards.get(route.model) or cards.get(route.model.partition(":")[0])
        return card is not None and card.kind == "chat"

    def get_audio_chat_models(self, route: Route) -> tuple[str, ...]:
        """Return the references of listed chat models that return audio."""
        return tuple(card.ref for card in (self._load_cards(route) or {}).values() if card.kind == "chat")

    def get_end_date(self, route: Route) -> date | None:
        """Return the announced shutdown date of a model; None if there is none."""
        card = (self._load_cards(route) or {}).get(route.model)
        return (card.end_date if card is not None else None) or gateways.load_dialect(route.dialect).get_end_date(route)

    def get_unsupported(self, route: Route) -> frozenset[str]:
        """Return the features that a model has refused."""
        return capabilities.load_refusals(route, self._cache)

    def choose_local_model(self, name: str, is_default: bool) -> str:
        """Return the installed model that a name of the local engines stands for.

        `is_default`: the user did not name it, so another engine is possible.
        """
        return name if self._choose_local_model is None else self._choose_local_model(name, is_default)

    def choose_local_speech(
        self, model: str, voice: str | None, is_default: bool, language: str | None
    ) -> tuple[str, str | None]:
        """Return the local engine and its voice for a text of a language; no voice for the default one of the engine.

        `voice` is the one that the user named. `is_default`: the user did not name the engine.
        """
        if self._choose_local_speech is None:
            return model, voice
        return self._choose_local_speech(model, voice, is_default, language)

    def _load_cards(self, route: Route) -> dict[str, ModelCard] | None:
        key = _cache_key(route)
        if key not in self._cards:
            cached = load_cached_listing(route, self._cache)
            self._cards[key] = None if cached is None else {card.model: card for card in cached.cards}
        return self._cards[key]


async def fetch_voices(route: Route, ctx: RunContext) -> tuple[str, ...]:
    """Return the voices of a model.

    Raises:
        UsageError: The gateway does not list them.
        AttemptError: The request failed.
    """
    dialect = gateways.load_dialect(route.dialect)
    known_voices = dialect.get_known_voices(route)
    if known_voices is not None:
        return known_voices
    listing = await fetch_listing(route, ctx)
    listed_voices = next((card.voices for card in listing.cards if card.model == route.model), ())
    if listed_voices:
        return listed_voices
    if listing.error is not None and not listing.cards:
        raise listing.error
    query = dialect.build_voices_query(route)
    reported_voices = None
    if query is not None:
        async with open_response(query, route, ctx) as response:
            body = await read_body(response.iter_bytes(), MAX_LIST_BYTES)
            if 200 <= response.status < 300:
                reported_voices = dialect.parse_voices(body, route)
            elif response.status != 404:
                raise dialect.parse_error(response.status, response.headers, body)
    if not reported_voices:
        raise UsageError(
            f"{route.gateway} does not list the voices of {route.model}",
            hint="see its documentation and use -v NAME",
        )
    return reported_voices


def find_card(route: Route, cache: ResponseCache) -> ModelCard | None:
    """Return the cached entry of one model, without a request; None if there is none."""
    cached = load_cached_listing(route, cache)
    return None if cached is None else next((card for card in cached.cards if card.model == route.model), None)


def find_prices(route: Route, cache: ResponseCache) -> tuple[Price, ...]:
    """Return the prices of a model: from the cached list, else as configured, else as published by the provider."""
    card = find_card(route, cache)
    if card is not None and card.prices:
        return card.prices
    return (route.price,) if route.price else pricing.find_published_prices(route.gateway, route.model)


def add_model_hint(error: AttemptError, route: Route, cache: ResponseCache, url: str) -> AttemptError:
    """Add a hint to a 404: the endpoint is missing if the model is listed, else the base URL or the model is wrong.

    `url` is the address of the request, without credentials.
    """
    if error.status != 404 or error.hint is not None:
        return error
    cached = load_cached_listing(route, cache)
    cards = cached.cards if cached is not None else ()
    similar = find_similar_models(route.model, cards)
    if any(card.model == route.model for card in cards):
        endpoint = url.partition("?")[0].rpartition("/v1")[2]
        error.hint = f"{route.gateway} lists this model, but may not support {endpoint}; use another gateway with -m"
    elif similar:
        error.hint = f"did you mean {' or '.join(similar)}?"
    elif not re.search(VERSION_PATTERN, url):
        error.hint = f"check the base URL of {route.gateway}: it usually ends with /v1, but the request went to {url}"
    else:
        error.hint = f"list models with: audiocli models -g {route.gateway}"
    return error


async def _request_models(route: Route, ctx: RunContext) -> tuple[ModelCard, ...]:
    dialect = gateways.load_dialect(route.dialect)
    query = dialect.build_models_query(route)
    if query is None:
        return ()
    async with open_response(query, route, ctx) as response:
        body = await read_body(response.iter_bytes(), MAX_LIST_BYTES)
        if not 200 <= response.status < 300:
            raise dialect.parse_error(response.status, response.headers, body)
        if response.status == 204:
            raise InvalidResponse("204 without a body")
    cards = dialect.parse_models(body, route)
    if cards is None:
        raise InvalidResponse("200 without a list of models")
    details = await _request_details(body, route, ctx)
    if details is not None:
        ctx.cache.put("model_details", _cache_key(route), details)
        cards = dialect.add_model_details(cards, details, route)
    ctx.cache.put("models", _cache_key(route), body)
    return _add_published_prices(cards)


async def _request_details(models_body: bytes, route: Route, ctx: RunContext) -> bytes | None:
    """Request kinds and prices that the list of models lacks. Most servers have no such endpoint: None."""
    query = gateways.load_dialect(route.dialect).build_details_query(models_body, route)
    if query is None:
        return None
    try:
        async with open_response(query, route, ctx) as response:
            if 200 <= response.status < 300:
                return await read_body(response.iter_bytes(), MAX_LIST_BYTES)
            ctx.debug(f"{route.gateway}: no model details: {response.status}")
    except AttemptError as error:
        ctx.debug(f"{route.gateway}: no model details: {error.message}")
    return None


def _add_published_prices(cards: tuple[ModelCard, ...]) -> tuple[ModelCard, ...]:
    """Add published prices to models whose list has no price, or no price with a known unit."""
    return tuple(
        card._replace(prices=pricing.find_published_prices(card.gateway, card.model) or card.prices)
        if not card.prices or any(price.unit_is_assumed or price.unit is None for price in card.prices)
        else card
        for card in cards
    )


def _is_older_than(cached: CachedResponse | None, age_s: float) -> bool:
    return cached is None or cached.age_s >= age_s


def _cache_key(route: Route) -> str:
    return f"{route.gateway} {route.dialect} {route.base_url}"


def list_cached_responses(routes: Sequence[Route], cache: ResponseCache) -> tuple[tuple[str, str, bytes], ...]:
    """Return the kind, key and body of the cached responses that prices and capabilities of routes depend on."""
    keys = {
        *((kind, _cache_key(route)) for route in routes for kind in ("models", "model_details")),
        *(capabilities.get_cache_location(route) for route in routes),
    }
    found = ((kind, key, cache.get(kind, key)) for kind, key in sorted(keys))
    return tuple((kind, key, cached.body) for kind, key, cached in found if cached is not None)


def find_similar_models(name: str, cards: Sequence[ModelCard]) -> list[str]:
    """Return references of models with a similar name, best first: `openai/whisper-1` for `whisper-1` at OpenRouter."""
    lowered = name.lower()
    by_slug = [card.ref for card in cards if card.model.lower().rpartition("/")[2] == lowered.rpartition("/")[2]]
    refs = {card.ref.lower(): card.ref for card in cards} | {card.model.lower(): card.ref for card in cards}
    matches = difflib.get_close_matches(lowered, refs, n=3, cutoff=0.6)
    return list(dict.fromkeys([*by_slug, *(refs[match] for match in matches)]))[:3]
