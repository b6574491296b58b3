"""From what the user asked for to the routes that may serve it, in order, with a reason for each one left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Literal, NamedTuple, Protocol

from . import gateways
from .errors import AccessError, AudiocliError, UsageError
from .gateways.base import Gateway
from .types.values import Price, Route

# How long before its end a model is warned about.
SOON_DAYS = 60


class GatewayConfig(NamedTuple):
    """A gateway as it can be called: built in or from the configuration, its key already looked up.

    `key_needed` is whether it is of any use without a key; `key_hint` says how one would be given; the sources say
    where key and address come from. `key_error` is why the keys file could not be read.
    """

    name: str
    dialect: str
    base_url: str
    key: str | None = None
    key_needed: bool = True
    key_hint: str | None = None
    key_source: str | None = None
    base_url_source: str = "built in"
    key_error: AudiocliError | None = None

    def __repr__(self) -> str:
        """Without the key."""
        return f"GatewayConfig({self.name}, {self.dialect}, {self.base_url})"


class RouteQuery(NamedTuple):
    """What the user said about where the work is to be done.

    `needs_times` chooses the default model. `voice` was asked for; without it `voices` has one for some models, by
    reference, and `usual_voice` is the one configured for the others.
    """

    task: Literal["speech", "transcription", "chat"]
    models: tuple[str, ...] = ()
    gateway: str | None = None
    base_url: str | None = None
    voice: str | None = None
    usual_voice: str | None = None
    needs_times: bool = False
    translates: bool = False
    diarizes: bool = False
    voices: Mapping[str, str] | None = None
    prices: Mapping[str, Price] | None = None


class ModelInfo(Protocol):
    """What is known of the gateways' models without asking anybody."""

    @property
    def today(self) -> date: ...

    def has(self, route: Route) -> bool | None: ...

    def voices(self, route: Route) -> tuple[str, ...]: ...

    def ends(self, route: Route) -> date | None: ...

    def refused(self, route: Route) -> frozenset[str]: ...


class Routing(NamedTuple):
    """`routes` in order of preference; `skipped` with the error that each would have ended in."""

    routes: tuple[Route, ...]
    skipped: tuple[tuple[Route, AudiocliError], ...] = ()
    is_local_for_want_of_a_key: bool = False


def plan(
    wish: RouteQuery,
    configured: Sequence[GatewayConfig],
    refusal: Callable[[Gateway, Route], AudiocliError | None],
    known: ModelInfo,
) -> Routing:
    """Order the routes for a wish. `refusal` asks a dialect whether it could serve a route at all.

    Raises: UsageError: an unknown gateway, or a model that contradicts `-g`; the only route's own error when there is
    but one and it is out of the question.
    """
    by_name = {gateway.name: gateway for gateway in configured}
    if wish.gateway is not None and wish.gateway not in by_name:
        raise UsageError(f"unknown gateway {wish.gateway!r}", hint="known gateways: " + ", ".join(by_name))
    if wish.base_url is not None:
        by_name, wish = _with_base_url(wish, by_name)
    candidates: list[Route] = []
    for reference in wish.models:
        candidates += _of_reference(reference, wish, by_name, known)
    fell_back = False
    if not wish.models:
        # A gateway of the user's own has no default model, so it serves only where it is named.
        chosen = by_name[wish.gateway] if wish.gateway else _first_able(by_name.values(), wish)
        fell_back = chosen is not None and chosen.dialect == "local" and wish.gateway is None
        if chosen is None or fell_back:
            # A key may be in a file that cannot be read; that must not silently choose the local engine.
            for gateway in by_name.values():
                if gateway.key_needed and gateway.key_error is not None:
                    raise gateway.key_error
        if chosen is None:
            talkers = [one for one in by_name.values() if wish.task != "chat" or _chat_model(one) is not None]
            which = "no gateway that talks has a key" if wish.task == "chat" else "no gateway has a key"
            raise AccessError(which, hint=_key_hints(talkers))
        candidates.append(_route(chosen, _default_model(chosen, wish), wish))
    routes: list[Route] = []
    skipped: list[tuple[Route, AudiocliError]] = []
    several = len(set(candidates)) > 1
    for route in (_informed(one, wish, known, several=several) for one in dict.fromkeys(candidates)):
        gateway = by_name[route.gateway]
        error = _missing_key(gateway) or refusal(gateways.dialect(route.dialect), route)
        if error is None:
            routes.append(route)
        else:
            skipped.append((route, error))
    return Routing(tuple(routes), tuple(skipped), fell_back)


def _first_able(configured: Iterable[GatewayConfig], wish: RouteQuery) -> GatewayConfig | None:
    """Choose the gateway when none is named: the first of those that can be used, if possible one that can do it all.

    A gateway of the user's own has no default model, so it serves only where it is named.
    """
    usable = [one for one in configured if _usable(one) and gateways.built_in(one.name) is not None]
    if wish.task == "chat":
        return next((one for one in usable if _chat_model(one) is not None), None)
    able = (one for one in usable if _special_model(one, wish) is not None)
    return next(able, None) or next(iter(usable), None)


def _chat_model(gateway: GatewayConfig) -> str | None:
    built_in = gateways.built_in(gateway.name)
    return built_in.chat_model if built_in is not None else None


def _special_model(gateway: GatewayConfig, wish: RouteQuery) -> str | None:
    """Name the default model for what only some can do; any default model where nothing special is wanted."""
    built_in = gateways.built_in(gateway.name)
    assert built_in is not None
    if wish.translates:
        return built_in.translation_model
    return built_in.diarization_model if wish.diarizes else built_in.transcription_model


def _informed(route: Route, wish: RouteQuery, known: ModelInfo, *, several: bool) -> Route:
    """Add to a route what is known of its model: refusals, a voice that it has, what the user should hear of."""
    notes: list[str] = []
    ends = known.ends(route)
    if ends is not None and (ends - known.today).days <= SOON_DAYS:
        notes.append(f"{route.ref} {'ends' if ends > known.today else 'ended'} on {ends.isoformat()}")
    voice = route.voice
    if wish.task == "speech" and route.dialect != "local":
        voice = _fitting_voice(route, wish, known.voices(route), several=several)
        if voice != route.voice:
            why = f"{route.ref} has no voice {route.voice}" if route.voice else f"{route.ref} needs a voice"
            notes.append(f"{why}: {voice} speaks")
    return route._replace(voice=voice, refused=known.refused(route), notes=tuple(notes))


def _fitting_voice(route: Route, wish: RouteQuery, listed: Sequence[str], *, several: bool) -> str | None:
    """Keep the voice if the model has it, or nobody knows; else take the configured one, else the first listed."""
    voice = route.voice
    if not listed or voice in listed or (voice or "").startswith("voice_"):
        return voice
    # What we know by heart may be older than the gateway: then the voice is only changed where another route had it.
    if voice is not None and gateways.dialect(route.dialect).voices(route) is not None and not several:
        return voice
    configured = (wish.voices or {}).get(route.ref)
    return configured if configured in listed else listed[0]


def _of_reference(reference: str, wish: RouteQuery, by_name: Mapping[str, GatewayConfig], known: ModelInfo) -> list[Route]:
    """Read `[GATEWAY:]MODEL`; without a gateway, one route for each gateway that could have the model."""
    prefix, colon, model = reference.partition(":")
    if colon and prefix in by_name:
        if wish.gateway not in (None, prefix):
            raise UsageError(f"-m {reference} contradicts -g {wish.gateway}")
        if not model:
            raise UsageError(f"-m {reference} names no model")
        return [_route(by_name[prefix], model, wish)]
    if not reference.strip():
        raise UsageError("-m names no model")
    if wish.gateway is not None:
        return [_route(by_name[wish.gateway], reference, wish)]
    able = [route for route in (_route(one, reference, wish) for one in by_name.values()) if _may_have(route, known)]
    if not able and colon and "/" not in prefix:
        raise UsageError(f"unknown gateway {prefix!r}", hint="known gateways: " + ", ".join(by_name))
    if not able:
        raise UsageError(f"no gateway is known to have a model {reference}", hint="say GATEWAY:MODEL")
    # With no key for any of them, the first one tells which key would be needed.
    return [route for route in able if _usable(by_name[route.gateway])] or able[:1]


def _may_have(route: Route, known: ModelInfo) -> bool:
    """Tell whether a gateway has a model: by its list if one was kept, else by the look of the name."""
    listed = known.has(route)
    return gateways.dialect(route.dialect).plausible(route) if listed is None else listed


def _with_base_url(wish: RouteQuery, by_name: Mapping[str, GatewayConfig]) -> tuple[dict[str, GatewayConfig], RouteQuery]:
    """Put `--base-url` in the place of one gateway's own: that of `-g`, of the models, or the first one with a key.

    With none of these it is taken for an OpenAI-compatible server that wants no key.
    """
    prefixes = {reference.partition(":")[0] for reference in wish.models} & set(by_name)
    if wish.gateway is None and len(prefixes) > 1:
        raise UsageError("--base-url belongs to one gateway, but the models name several")
    with_key = (one.name for one in by_name.values() if one.key is not None)
    name = wish.gateway or next(iter(prefixes), None) or next(with_key, None)
    if name is None:
        # A server of somebody's own: none of OpenAI's limits are its limits.
        own = GatewayConfig("server", "openai", wish.base_url or "", key_needed=False)
        return {**by_name, own.name: own}, wish._replace(gateway=own.name)
    chosen = by_name[name]
    if chosen.dialect == "local":
        raise UsageError("--base-url has no meaning for the local engines")
    needed = chosen.key_needed and chosen.dialect != "openai"
    changed = chosen._replace(base_url=wish.base_url or chosen.base_url, key_needed=needed)
    return {**by_name, name: changed}, wish._replace(gateway=name)


def _route(gateway: GatewayConfig, model: str, wish: RouteQuery) -> Route:
    built_in = gateways.built_in(gateway.name)
    usual = built_in.voice if built_in is not None and model == built_in.speech_model else None
    # The usual voice is one of a gateway's; the local engines name theirs by language.
    configured = wish.usual_voice if gateway.dialect != "local" else None
    voice = wish.voice or (wish.voices or {}).get(f"{gateway.name}:{model}") or configured or usual
    if wish.task == "chat" and wish.usual_voice is None:
        voice = None
    if wish.task == "speech" and voice is None:
        voice = gateways.dialect(gateway.dialect).usual_voice
    price = (wish.prices or {}).get(f"{gateway.name}:{model}")
    return Route(gateway.name, gateway.dialect, gateway.base_url, model, gateway.key, voice, price)


def _default_model(gateway: GatewayConfig, wish: RouteQuery) -> str:
    built_in = gateways.built_in(gateway.name)
    if built_in is None:
        raise UsageError(f"{gateway.name} has no default model", hint=f"name one: -m {gateway.name}:MODEL")
    if wish.task == "chat":
        if built_in.chat_model is None:
            raise UsageError(f"{gateway.name} has no model to talk with", hint=f"name one: -m {gateway.name}:MODEL")
        return built_in.chat_model
    if wish.task == "speech":
        return built_in.speech_model
    special = _special_model(gateway, wish) if wish.translates or wish.diarizes else None
    if special is not None:
        return special
    if wish.needs_times and built_in.timed_transcription_model:
        return built_in.timed_transcription_model
    return built_in.transcription_model


def _usable(gateway: GatewayConfig) -> bool:
    """A gateway that is asked when none is named: it has a key, or it is the local one, which needs none."""
    return gateway.key is not None or gateway.dialect == "local"


def _missing_key(gateway: GatewayConfig) -> AudiocliError | None:
    if gateway.key is not None or not gateway.key_needed:
        return None
    return gateway.key_error or AccessError(f"no key for {gateway.name}", hint=gateway.key_hint)


def _key_hints(configured: Iterable[GatewayConfig]) -> str:
    return "; or ".join(one.key_hint for one in configured if one.key_hint)


def first_route(wish: RouteQuery, configured: Sequence[GatewayConfig], known: ModelInfo) -> Route:
    """Give the first route of a wish for questions that cost nothing: a missing key is no reason to withhold names."""
    planned = plan(wish, configured, lambda dialect, route: None, known)
    return [*planned.routes, *(route for route, _ in planned.skipped)][0]
