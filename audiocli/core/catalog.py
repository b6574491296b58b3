"""What gateways have to offer: their models, prices and voices, kept for a day and usable without a network."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncIterator, Sequence
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from .. import gateways, pricing
from ..errors import AttemptError, AudiocliError, InvalidResponse, UsageError
from ..gateways.error_responses import hide_key
from ..types.values import ModelCard, Price, Route
from . import capabilities
from .run_context import ResponseCache, RunContext

LIST_BYTES = 32 * 1024 * 1024
FRESH_S = 24 * 3600


class Listing(NamedTuple):
    """The models of one gateway. `age_s` is that of a kept list, None for a fresh one; `error` says why it is kept."""

    route: Route
    cards: tuple[ModelCard, ...]
    age_s: float | None = None
    error: AudiocliError | None = None


async def listings(routes: Sequence[Route], tools: RunContext, *, refresh: bool = False) -> list[Listing]:
    """List the models of several gateways at once; one that cannot be asked gives what was kept, or its error."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(listing(route, tools, refresh=refresh)) for route in routes]
    return [task.result() for task in tasks]


async def listing(route: Route, tools: RunContext, *, refresh: bool = False) -> Listing:
    """List the models of one gateway: from the cache within a day, else from the gateway, else from the cache."""
    kept = remembered(route, tools.cache)
    if kept is not None and not refresh and kept.age_s is not None and kept.age_s < FRESH_S:
        return kept
    try:
        return Listing(route, await _ask(route, tools))
    except AudiocliError as error:
        hide_key(error, route.key)
        if kept is not None:
            return Listing(route, kept.cards, kept.age_s, error)
        return Listing(route, (), None, error)


def remembered(route: Route, cache: ResponseCache) -> Listing | None:
    """Give the list that was kept, however old, without asking anybody."""
    kept = cache.get("models", _key(route))
    if kept is None:
        return None
    cards = _cards(kept.body, route.gateway, route.dialect, route.base_url)
    return None if cards is None else Listing(route, cards, kept.age_s)


@lru_cache(maxsize=8)
def _cards(body: bytes, gateway: str, dialect: str, base_url: str) -> tuple[ModelCard, ...] | None:
    """Read a list of models; once for as long as it is the same, for every request asks for its price."""
    cards = gateways.dialect(dialect).models_reply(body, Route(gateway, dialect, base_url, model=""))
    return None if cards is None else _priced(cards)


class ModelCatalog:
    """What was kept of all lists, and what was learnt, for choosing routes without asking anybody."""

    def __init__(self, cache: ResponseCache, today: date) -> None:
        self._cache = cache
        self._cards: dict[str, dict[str, ModelCard] | None] = {}
        self.today = today

    def has(self, route: Route) -> bool | None:
        """Tell whether the gateway's list has this model; None: there is no list."""
        cards = self._listed(route)
        return None if cards is None else route.model in cards

    def voices(self, route: Route) -> tuple[str, ...]:
        """Name the voices of a model; empty: not known."""
        card = (self._listed(route) or {}).get(route.model)
        return (card.voices if card is not None else ()) or gateways.dialect(route.dialect).voices(route) or ()

    def speaks(self, route: Route) -> bool | None:
        """Tell whether a model that talks has a voice; None: the gateway's list is not there, or does not tell."""
        cards = self._listed(route) if gateways.dialect(route.dialect).tells_modalities else None
        if not cards or not any(card.kind == "chat" for card in cards.values()):
            return None
        # Variants of a model stand behind a colon and are not listed.
        card = cards.get(route.model) or cards.get(route.model.partition(":")[0])
        return card is not None and card.kind == "chat"

    def talkers(self, route: Route) -> tuple[str, ...]:
        """Name the models with a voice that the gateway lists."""
        return tuple(card.ref for card in (self._listed(route) or {}).values() if card.kind == "chat")

    def ends(self, route: Route) -> date | None:
        card = (self._listed(route) or {}).get(route.model)
        return (card.ends if card is not None else None) or gateways.dialect(route.dialect).ends(route)

    def refused(self, route: Route) -> frozenset[str]:
        return capabilities.refused(route, self._cache)

    def _listed(self, route: Route) -> dict[str, ModelCard] | None:
        key = _key(route)
        if key not in self._cards:
            kept = remembered(route, self._cache)
            self._cards[key] = None if kept is None else {card.model: card for card in kept.cards}
        return self._cards[key]


async def voices(route: Route, tools: RunContext) -> tuple[str, ...]:
    """Name the voices of a model. Raises: UsageError: nobody tells; AttemptError: the gateway cannot be asked."""
    dialect = gateways.dialect(route.dialect)
    known = dialect.voices(route)
    if known is not None:
        return known
    found = await listing(route, tools)
    names = next((card.voices for card in found.cards if card.model == route.model), ())
    if names:
        return names
    if found.error is not None and not found.cards:
        raise found.error
    query = dialect.voices_query(route)
    told = None
    if query is not None:
        async with tools.transport(query.url).open(query) as reply:
            body = await _whole(reply.chunks())
            if 200 <= reply.status < 300:
                told = dialect.voices_reply(body, route)
            elif reply.status != 404:
                error = dialect.failure(reply.status, reply.headers, body)
                hide_key(error, route.key)
                raise error
    if not told:
        raise UsageError(
            f"{route.gateway} does not list the voices of {route.model}",
            hint="its documentation names them; use -v NAME",
        )
    return told


def card_of(route: Route, cache: ResponseCache) -> ModelCard | None:
    """Give what was kept of one model, without asking anybody."""
    kept = remembered(route, cache)
    return None if kept is None else next((card for card in kept.cards if card.model == route.model), None)


def prices_of(route: Route, cache: ResponseCache) -> tuple[Price, ...]:
    """Give the prices of a model: of the kept list, else as configured, else as published elsewhere."""
    card = card_of(route, cache)
    if card is not None and card.prices:
        return card.prices
    return (route.price,) if route.price else pricing.published(route.gateway, route.model)


def advised(error: AttemptError, route: Route, cache: ResponseCache) -> AttemptError:
    """Add the names that may have been meant to the answer that there is no such model."""
    if error.status == 404 and error.hint is None:
        kept = remembered(route, cache)
        near = nearest(route.model, kept.cards) if kept is not None else []
        error.hint = f"did you mean {' or '.join(near)}?" if near else f"audiocli models -g {route.gateway} lists them"
    return error


async def _ask(route: Route, tools: RunContext) -> tuple[ModelCard, ...]:
    dialect = gateways.dialect(route.dialect)
    query = dialect.models_query(route)
    if query is None:
        return ()
    async with tools.transport(query.url).open(query) as reply:
        body = await _whole(reply.chunks())
        if not 200 <= reply.status < 300:
            raise dialect.failure(reply.status, reply.headers, body)
    cards = dialect.models_reply(body, route)
    if cards is None:
        raise InvalidResponse("200 without a list of models in it")
    tools.cache.put("models", _key(route), body)
    return _priced(cards)


def _priced(cards: tuple[ModelCard, ...]) -> tuple[ModelCard, ...]:
    """Give the prices that are known from elsewhere to models whose list tells none, or none with a unit."""
    return tuple(
        card._replace(prices=pricing.published(card.gateway, card.model) or card.prices)
        if not card.prices or any(price.is_reading or price.per is None for price in card.prices)
        else card
        for card in cards
    )


async def _whole(chunks: AsyncIterator[bytes]) -> bytes:
    body = b""
    async for chunk in chunks:
        body += chunk
        if len(body) > LIST_BYTES:
            raise InvalidResponse(f"the list is over {LIST_BYTES // 2**20} MB and no end")
    return body


def _key(route: Route) -> str:
    return f"{route.gateway} {route.dialect} {route.base_url}"


def nearest(name: str, cards: Sequence[ModelCard]) -> list[str]:
    """Name the models that somebody may have meant, best first: `whisper-1` is `openai/whisper-1` at OpenRouter."""
    wanted = name.lower()
    by_slug = [card.ref for card in cards if card.model.lower().rpartition("/")[2] == wanted.rpartition("/")[2]]
    refs = {card.ref.lower(): card.ref for card in cards} | {card.model.lower(): card.ref for card in cards}
    close = difflib.get_close_matches(wanted, refs, n=3, cutoff=0.6)
    return list(dict.fromkeys([*by_slug, *(refs[match] for match in close)]))[:3]
