"""`audiocli models` and `audiocli voices`: list models, prices and voices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext
from ..errors import UsageError, suggest
from .options import (
    DEFAULT_TIMEOUT_S,
    BaseUrl,
    ExchangeOptions,
    GatewayName,
    GeneralOptions,
    Timeout,
    list_voices,
    open_app,
    validate_timeout,
    with_options,
)

if TYPE_CHECKING:
    from ..console import Console
    from ..core.catalog import Listing
    from ..routing import GatewayConfig
    from ..types.json import Json
    from ..types.routes import ModelCard

KINDS = ("speech", "transcription", "chat")
MAX_VOICES_SHOWN = 4
# What tables show for a value that is not known; "-" is a value that the model does not have.
UNKNOWN = "?"


class ListingOptions(NamedTuple):
    """`GatewayOptions`, and `--refresh`."""

    gateway: GatewayName = None
    base_url: BaseUrl = None
    refresh: Annotated[bool, typer.Option("--refresh", help="Fetch the model lists again, ignoring the cache.")] = False
    timeout_s: Timeout = DEFAULT_TIMEOUT_S
    exchanges: ExchangeOptions = ExchangeOptions()


class ModelsOptions(NamedTuple):
    """Options of `audiocli models`."""

    query: Annotated[
        str | None,
        typer.Argument(metavar="[QUERY]", help="Part of a name; a full name shows all details of the model."),
    ] = None
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Kind of model: speech, transcription or chat.")
    ] = None
    listing: ListingOptions = ListingOptions()
    general: GeneralOptions = GeneralOptions()


class VoicesOptions(NamedTuple):
    """Options of `audiocli voices`."""

    query: Annotated[str | None, typer.Argument(metavar="[QUERY]", help="Part of a voice name.")] = None
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="REF", help="List the voices of this model only.")
    ] = None
    listing: ListingOptions = ListingOptions()
    general: GeneralOptions = GeneralOptions()


@with_options
def models(ctx: typer.Context, options: ModelsOptions) -> None:
    """List speech, transcription and chat models with their prices."""
    app, console = open_app(ctx, options.general, exchanges=options.listing.exchanges)
    run_models(app, console, options)


def run_models(app: AppContext, console: Console, options: ModelsOptions) -> None:
    """Print the models that match. Raises: AudiocliError: An option is invalid, or no list is available."""
    query, kind = options.query, options.kind
    if kind is not None and kind not in KINDS:
        raise UsageError(f"--kind {kind}: must be one of {', '.join(KINDS)}{suggest(kind, KINDS)}")
    cards = fetch_cards(app, console, _narrow_listing(app, options.listing, query))
    matches = [card for card in cards if kind in (None, card.kind) and _matches(card, query)]
    exact_matches = [card for card in matches if query in (card.ref, card.model)]
    if options.general.as_json:
        for card in exact_matches or matches:
            console.write_json_line(_build_document(card, _list_unsupported(app, card), _find_installation(app, card)))
    elif len(exact_matches) == 1:
        card = _add_installation(app, exact_matches[0])
        console.write_text(_format_card(card, _list_unsupported(app, card)))
        _explain_unknown(console, [card])
    elif not matches:
        console.info(f"no models match {query!r}{_suggest(query, cards)}" if query else "no models")
    else:
        header = ["reference", "kind", "price", "voices", "formats", "notes"]
        rows = [_build_row(_add_installation(app, card)) for card in matches]
        console.write_table(header, rows, numeric=[False] * 6, optional=["formats", "notes", "voices", "kind"])
        _explain_unknown(console, matches)


@with_options
def voices(ctx: typer.Context, options: VoicesOptions) -> None:
    """List the voices of speech models."""
    app, console = open_app(ctx, options.general, exchanges=options.listing.exchanges)
    run_voices(app, console, options)


def run_voices(app: AppContext, console: Console, options: VoicesOptions) -> None:
    """Print the voices that match. Raises: AudiocliError: An option is invalid, or no list is available."""
    from ..gateways.model_names import VOICE_DESCRIPTIONS
    from ..routing import RouteQuery, expand_aliases, resolve_first_route

    query, listing = options.query, options.listing
    if options.model is not None:
        timeout_s = validate_timeout(listing.timeout_s)
        route_query = RouteQuery(
            task="speech",
            models=expand_aliases((options.model,), app.settings.aliases),
            gateway=listing.gateway,
            base_url=listing.base_url,
        )
        route = resolve_first_route(route_query, app.settings.gateways, app.catalog)
        pairs = [(route.ref, name) for name in list_voices(app, console, route, timeout_s)]
    else:
        cards = fetch_cards(app, console, listing)
        pairs = [(card.ref, name) for card in cards if card.kind == "speech" for name in card.voices]
    matches = [(ref, name) for ref, name in pairs if query is None or query.lower() in name.lower()]
    if options.general.as_json:
        for ref, name in matches:
            console.write_json_line({"ref": ref, "voice": name, "character": VOICE_DESCRIPTIONS.get(name)})
    elif not matches:
        console.info(f"no voices match {query!r}" if query else "no voices")
    else:
        rows = [[name, VOICE_DESCRIPTIONS.get(name, ""), ref] for ref, name in matches]
        console.write_table(["voice", "character", "model"], rows, numeric=[False] * 3, optional=["character"])


def _narrow_listing(app: AppContext, options: ListingOptions, query: str | None) -> ListingOptions:
    """Return the options with the gateway that the query names, so that no other one has to be reachable."""
    name, separator, _ = (query or "").partition(":")
    is_gateway = bool(separator) and any(config.name == name for config in app.settings.gateways)
    return options._replace(gateway=name) if is_gateway and options.gateway is None else options


def fetch_cards(app: AppContext, console: Console, options: ListingOptions) -> list[ModelCard]:
    """Fetch the model lists of the selected gateways. A list that cannot be fetched is reported on stderr.

    Raises:
        UsageError: The gateway is unknown, or the timeout is out of range.
        AudiocliError: No list of a gateway can be fetched, none is cached, and there is a key for one of them, or no
            local model.
    """
    from ..core.catalog import fetch_listings
    from ..routing import build_gateway_route

    timeout_s = validate_timeout(options.timeout_s)
    configs = _select_gateways(app, options.gateway, options.base_url)
    routes = [build_gateway_route(config) for config in configs]
    listings: list[Listing] = app.run(
        lambda ctx: fetch_listings(routes, ctx, refresh=options.refresh),
        read_timeout_s=timeout_s,
        info=console.info,
        debug=console.debug,
    )
    failures = [(listing.route, listing.error) for listing in listings if listing.error and listing.age_s is None]
    remote_count = sum(listing.route.dialect != "local" for listing in listings)
    # Without a key, the models of this machine are what can be used.
    is_error = any(route.key is not None for route, _ in failures) or remote_count == len(listings)
    if failures and len(failures) == remote_count and is_error:
        (first_route, first_error), *others = failures
        for route, error in others:
            console.warning(f"{route.gateway}: {error.message}")
        first_error.message = f"{first_route.gateway}: {first_error.message}"
        raise first_error
    for listing in listings:
        if listing.error is not None and listing.age_s is not None:
            age = _format_age(listing.age_s)
            console.warning(f"{listing.route.gateway}: {listing.error.message}; using a cached list that is {age} old")
        elif listing.error is not None:
            console.warning(f"{listing.route.gateway}: {listing.error.message}")
    configured_prices = app.settings.prices
    cards = [
        card._replace(prices=(configured_prices[card.ref],))
        if not card.prices and card.ref in configured_prices
        else card
        for listing in listings
        for card in listing.cards
    ]
    _cache_for_completion(app, cards)
    if app.cache.write_error is not None:
        console.warning(f"cannot cache the model lists in {app.cache_directory}: {app.cache.write_error.strerror}")
    return cards


def _select_gateways(app: AppContext, gateway: str | None, base_url: str | None) -> list[GatewayConfig]:
    """Return the gateway of `-g`, else every gateway that has a key, needs none, or has a public model list.

    Raises:
        UsageError: The gateway is unknown.
    """
    from .. import gateways
    from ..routing import build_unknown_gateway_error

    configured = app.settings.gateways
    if gateway is not None or base_url is not None:
        name = gateway or "openai"
        for config in configured:
            if config.name == name:
                if config.traits_error is not None:
                    raise config.traits_error
                return [config._replace(base_url=base_url or config.base_url)]
        raise build_unknown_gateway_error(name, [config.name for config in configured])
    return [
        config
        for config in configured
        if config.traits_error is None
        and (
            config.key is not None
            or not config.requires_key
            or gateways.load_dialect(config.dialect).model_list_is_public
        )
    ]


def _matches(card: ModelCard, query: str | None) -> bool:
    return query is None or query.lower() in card.ref.lower()


def _suggest(query: str, cards: list[ModelCard]) -> str:
    from ..core.catalog import find_similar_models

    similar = find_similar_models(query, cards)
    return f"; did you mean {' or '.join(similar)}?" if similar else ""


def _build_row(card: ModelCard) -> list[str]:
    from ..pricing import format_prices

    names = ", ".join(card.voices[:MAX_VOICES_SHOWN]) + (
        f" … {len(card.voices)} in total" if len(card.voices) > MAX_VOICES_SHOWN else ""
    )
    return [
        card.ref,
        card.kind or UNKNOWN,
        format_prices(card.prices),
        names or _mark_missing(card),
        " ".join(card.formats) or _mark_missing(card),
        _format_notes(card),
    ]


def _mark_missing(card: ModelCard) -> str:
    """Return what a table shows for voices and formats that a card lacks; only speech models have them."""
    return UNKNOWN if card.kind in ("speech", None) else "-"


def _explain_unknown(console: Console, cards: list[ModelCard]) -> None:
    """Explain the mark of unknown values, and how to set a price."""
    card = next((card for card in cards if not card.prices or any(price.unit is None for price in card.prices)), None)
    if card is not None:
        price = '{ usd = 15, per = "1M characters" }' if card.kind == "speech" else '{ usd = 0.006, per = "minute" }'
        console.info(f"note: {UNKNOWN} means unknown")
        console.hint(f'set the price under [prices] in config.toml, for example: "{card.ref}" = {price}')
    elif any(card.kind is None for card in cards):
        console.info(f"note: {UNKNOWN} means unknown: the gateway does not list the kind of the model")


def _format_notes(card: ModelCard) -> str:
    parts = [card.note] if card.note else []
    if card.end_date is not None:
        parts.append(f"ends {card.end_date.isoformat()}")
    return ", ".join(parts)


def _list_unsupported(app: AppContext, card: ModelCard) -> list[str]:
    """Describe the features that the model has refused, from the capability cache."""
    from ..gateways.capability_errors import describe_refusal
    from ..types.routes import Route

    config = next((config for config in app.settings.gateways if config.name == card.gateway), None)
    if config is None:
        return []
    route = Route(config.name, config.dialect, config.base_url, card.model)
    return [describe_refusal(feature) for feature in sorted(app.catalog.get_unsupported(route))]


def _format_card(card: ModelCard, unsupported: list[str]) -> str:
    from ..pricing import format_prices

    unit_is_assumed = any(price.unit_is_assumed for price in card.prices)
    lines = [
        ("reference", card.ref),
        ("kind", card.kind or UNKNOWN),
        ("price", format_prices(card.prices) + (" (unit assumed)" if unit_is_assumed else "")),
        ("voices", ", ".join(card.voices) or _mark_missing(card)),
        ("formats", " ".join(card.formats) or _mark_missing(card)),
        ("ends", card.end_date.isoformat() if card.end_date else "-"),
        *([("refuses", "; ".join(unsupported))] if unsupported else []),
        *([("note", card.note)] if card.note else []),
    ]
    return "".join(f"{name:<10}  {text}\n" for name, text in lines)


class _Installation(NamedTuple):
    """Whether a local model can be used, and the directory or package that has it, or the command that installs it."""

    is_installed: bool
    detail: str


def _find_installation(app: AppContext, card: ModelCard) -> _Installation | None:
    """Return whether a model of the local engines is installed; None for models of gateways."""
    config = next((config for config in app.settings.gateways if config.name == card.gateway), None)
    if config is None or config.dialect != "local":
        return None
    from ..engines.weights import build_install_command
    from ..gateways import local
    from ..gateways.local_models import find_local_model, list_local_models

    weights = find_local_model(card.model)
    if (error := local.check_installed(card.model)) is not None and weights is None:
        return _Installation(False, error.hint or "")
    if card.model == "piper" and not (names := app.piper_voices.list_names()):
        return _Installation(False, build_install_command(list_local_models("piper")[0]))
    if card.model == "piper":
        return _Installation(True, f"installed: {', '.join(names)}")
    if weights is None:
        return _Installation(True, "installed")
    found = app.weights.find(weights)
    if found is None or error is not None:
        return _Installation(False, build_install_command(weights))
    return _Installation(True, f"installed in {found.source}")


def _add_installation(app: AppContext, card: ModelCard) -> ModelCard:
    """Add to the note of a local model whether it is installed."""
    installation = _find_installation(app, card)
    if installation is None:
        return card
    state = installation.detail if installation.is_installed else f"not installed: {installation.detail}"
    return card._replace(note=f"{card.note}, {state}" if card.note else state)


def _build_document(card: ModelCard, unsupported: list[str], installation: _Installation | None) -> dict[str, Json]:
    return {
        "ref": card.ref,
        "kind": card.kind,
        "price": [
            {"usd": float(price.usd), "per": price.unit, "unit_assumed": price.unit_is_assumed} for price in card.prices
        ],
        "voices": list(card.voices),
        "formats": list(card.formats),
        "ends": card.end_date.isoformat() if card.end_date else None,
        **({"refuses": list(unsupported)} if unsupported else {}),
        **({"note": card.note} if card.note else {}),
        **({"installed": installation.is_installed} if installation is not None else {}),
    }


def _format_age(seconds: float) -> str:
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "moments"


def _cache_for_completion(app: AppContext, cards: list[ModelCard]) -> None:
    """Update the list that shell completion reads. Lines of gateways that were not fetched stay unchanged.

    It is plain text, because completion reads it before any heavy import. Format: see `completion.runtime`.
    """
    prefixes = {f"{card.gateway}:" for card in cards}
    other_lines = [
        line
        for line in app.cache.get_text("completion.txt").splitlines()
        if not any(line.partition("\t")[2].startswith(prefix) for prefix in prefixes)
    ]
    lines = [
        f"{card.kind}\t{card.ref}\t{' '.join(name for name in card.voices if ' ' not in name)}"
        for card in cards
        if card.kind
    ]
    app.cache.put_text("completion.txt", "".join(f"{line}\n" for line in [*other_lines, *lines]))
