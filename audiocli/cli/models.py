"""`audiocli models` and `audiocli voices`: what there is to choose from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..context import AppContext
from ..errors import UsageError
from . import options

if TYPE_CHECKING:
    from ..console import Console
    from ..core.catalog import Listing
    from ..routing import GatewayConfig
    from ..types.values import Json, ModelCard, Price, Route

KINDS = ("speech", "transcription", "chat")
VOICES_SHOWN = 4

Query = Annotated[
    str | None, typer.Argument(metavar="[QUERY]", help="Part of a name; one whole reference shows its card.")
]
Refresh = Annotated[bool, typer.Option("--refresh", help="Ask the gateways now, though the lists of today are kept.")]


def models(
    context: typer.Context,
    query: Query = None,
    kind: Annotated[str | None, typer.Option("--kind", metavar="KIND", help="speech, transcription or chat.")] = None,
    gateway: options.Gateway = None,
    base_url: options.BaseUrl = None,
    refresh: Refresh = False,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """List the models that speak, transcribe and talk, with their prices."""
    if kind is not None and kind not in KINDS:
        raise UsageError(f"--kind {kind}: one of {', '.join(KINDS)}")
    env = options.get_app(context)
    screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
    cards = _cards(env, screen, gateway, base_url, options.checked_timeout(timeout), refresh=refresh)
    found = [card for card in cards if kind in (None, card.kind) and _matches(card, query)]
    whole = [card for card in found if query in (card.ref, card.model)]
    if as_json:
        for card in whole or found:
            screen.write_json(_document(card, _refused(env, card)))
    elif len(whole) == 1:
        screen.write_text(_card_text(whole[0], _refused(env, whole[0])))
    elif not found:
        screen.info(f"no model of that name{_nearest(query, cards)}" if query else "no models")
    else:
        header = ["reference", "kind", "price", "voices", "formats", "notes"]
        screen.write_table(header, [_row(card, env) for card in found], numeric=[False] * 6)


def voices(
    context: typer.Context,
    query: Annotated[str | None, typer.Argument(metavar="[QUERY]", help="Part of the name of a voice.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", metavar="REF", help="The voices of this model.")] = None,
    gateway: options.Gateway = None,
    base_url: options.BaseUrl = None,
    refresh: Refresh = False,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """List the voices of the models that speak."""
    from ..gateways.model_names import CHARACTERS

    env = options.get_app(context)
    screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
    timeout_s = options.checked_timeout(timeout)
    if model is not None:
        route = options.speech_route(env, model, gateway, base_url)
        pairs = [(route.ref, name) for name in options.voices_of(env, screen, route, timeout_s)]
    else:
        cards = _cards(env, screen, gateway, base_url, timeout_s, refresh=refresh)
        pairs = [(card.ref, name) for card in cards if card.kind == "speech" for name in card.voices]
    found = [(ref, name) for ref, name in pairs if query is None or query.lower() in name.lower()]
    if as_json:
        for ref, name in found:
            screen.write_json({"ref": ref, "voice": name, "character": CHARACTERS.get(name)})
    elif not found:
        screen.info("no voice of that name")
    else:
        rows = [[name, CHARACTERS.get(name, ""), ref] for ref, name in found]
        screen.write_table(["voice", "character", "model"], rows, numeric=[False] * 3)


def _cards(
    env: AppContext, screen: Console, gateway: str | None, base_url: str | None, timeout_s: float, *, refresh: bool
) -> list[ModelCard]:
    """Collect the lists of the gateways that can be asked; what could not be is told.

    Raises: UsageError: an unknown gateway; the gateway's own error when none of those asked over a network answered.
    """
    from ..core.catalog import listings

    configs = _asked(env, gateway, base_url)
    routes = [_listing_route(config) for config in configs]
    found: list[Listing] = env.run(
        lambda tools: listings(routes, tools, refresh=refresh),
        silence_s=timeout_s,
        tell=screen.info,
        log=screen.debug,
    )
    for listing in found:
        if listing.error is not None and listing.age_s is not None:
            screen.info(f"{listing.route.gateway}: {listing.error.message}; the list is {_age(listing.age_s)} old")
        elif listing.error is not None:
            screen.info(f"{listing.route.gateway}: {listing.error.message}")
    remote = [listing for listing in found if listing.route.dialect != "local"]
    failed = [listing.error for listing in remote if listing.error is not None and listing.age_s is None]
    if remote and len(failed) == len(remote):
        raise failed[0]
    _keep_for_completion(env, [card for listing in found for card in listing.cards])
    if env.cache.trouble is not None:
        screen.info(f"the lists could not be kept in {env.cache_folder}: {env.cache.trouble.strerror}")
    return [card for listing in found for card in listing.cards]


def _asked(env: AppContext, gateway: str | None, base_url: str | None) -> list[GatewayConfig]:
    """Choose whom to ask: the one of `-g`, else everyone that has a key, needs none, or lists its models in public."""

    from .. import gateways

    configured = env.settings.gateways
    if gateway is not None or base_url is not None:
        name = gateway or "openai"
        chosen = [config for config in configured if config.name == name]
        if not chosen:
            known = ", ".join(config.name for config in configured)
            raise UsageError(f"unknown gateway {name!r}", hint=f"known gateways: {known}")
        return [chosen[0]._replace(base_url=base_url or chosen[0].base_url)]
    return [
        config
        for config in configured
        if config.key is not None or not config.key_needed or gateways.dialect(config.dialect).lists_in_public
    ]


def _listing_route(config: GatewayConfig) -> Route:
    from ..types.values import Route

    return Route(config.name, config.dialect, config.base_url, "", config.key)


def _matches(card: ModelCard, query: str | None) -> bool:
    return query is None or query.lower() in card.ref.lower()


def _nearest(query: str, cards: list[ModelCard]) -> str:
    from ..core.catalog import nearest

    near = nearest(query, cards)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _row(card: ModelCard, env: AppContext) -> list[str]:
    names = ", ".join(card.voices[:VOICES_SHOWN]) + (
        f" … {len(card.voices)} in all" if len(card.voices) > VOICES_SHOWN else ""
    )
    return [card.ref, card.kind or "?", _price_text(card.prices), names or "?", " ".join(card.formats), _notes(card)]


def _notes(card: ModelCard) -> str:
    parts = [card.note] if card.note else []
    if card.ends is not None:
        parts.append(f"ends {card.ends.isoformat()}")
    return ", ".join(parts)


def _price_text(prices: tuple[Price, ...]) -> str:
    """Write prices with their units, in amounts that people can compare: `$15 / 1M characters`."""
    if not prices:
        return "?"
    if all(price.usd == 0 for price in prices):
        return "free"
    return " + ".join(_one_price(price) for price in prices)


def _one_price(price: Price) -> str:
    if price.per is None:
        return f"${price.usd.normalize():f} / ?"
    scale, unit = {
        "second": (60, "minute"),
        "minute": (1, "minute"),
        "hour": (1, "hour"),
        "request": (1, "request"),
    }.get(price.per, (1_000_000, f"1M {price.per}s"))
    amount = (price.usd * scale).quantize(price.usd.__class__("0.0001")).normalize()
    return f"${amount:f} / {unit}"


def _refused(env: AppContext, card: ModelCard) -> list[str]:
    """Say in words what a model was seen to refuse."""
    from ..gateways.capability_errors import in_words
    from ..types.values import Route

    config = next((one for one in env.settings.gateways if one.name == card.gateway), None)
    if config is None:
        return []
    route = Route(config.name, config.dialect, config.base_url, card.model)
    return [in_words(feature) for feature in sorted(env.shelf.refused(route))]


def _card_text(card: ModelCard, refused: list[str]) -> str:
    lines = [
        ("reference", card.ref),
        ("kind", card.kind or "?"),
        (
            "price",
            _price_text(card.prices) + (" (unit as we read it)" if any(p.is_reading for p in card.prices) else ""),
        ),
        ("voices", ", ".join(card.voices) or "?"),
        ("formats", " ".join(card.formats) or "?"),
        ("ends", card.ends.isoformat() if card.ends else "-"),
        *([("refuses", "; ".join(refused))] if refused else []),
        *([("note", card.note)] if card.note else []),
    ]
    return "".join(f"{name:<10}  {text}\n" for name, text in lines)


def _document(card: ModelCard, refused: list[str]) -> dict[str, Json]:
    return {
        "ref": card.ref,
        "kind": card.kind,
        "price": [
            {"usd": float(price.usd), "per": price.per, **({"reading": True} if price.is_reading else {})}
            for price in card.prices
        ],
        "voices": list(card.voices),
        "formats": list(card.formats),
        "ends": card.ends.isoformat() if card.ends else None,
        **({"refuses": list(refused)} if refused else {}),
    }


def _age(seconds: float) -> str:
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "moments"


def _keep_for_completion(env: AppContext, cards: list[ModelCard]) -> None:
    """Write what the shells complete from: plain text, read before anything heavy is loaded.

    What other gateways have stays as it was last seen.
    """
    asked = {f"{card.gateway}:" for card in cards}
    kept = [
        line
        for line in env.cache.get_text("completion.txt").splitlines()
        if not any(line.partition("\t")[2].startswith(prefix) for prefix in asked)
    ]
    told = [
        f"{card.kind}\t{card.ref}\t{' '.join(name for name in card.voices if ' ' not in name)}"
        for card in cards
        if card.kind
    ]
    env.cache.put_text("completion.txt", "".join(f"{line}\n" for line in [*kept, *told]))
