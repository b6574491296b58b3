"""Resolve routing options into an ordered list of routes, with an error for each route that is skipped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import Literal, NamedTuple, Protocol

from . import gateways
from .errors import AccessError, AudiocliError, NoModelLeft, UsageError, suggest
from .gateways import default_models
from .gateways.base import CUSTOM_VOICE_PREFIXES, Dialect
from .gateways.default_models import END_DATE_WARNING_DAYS, DefaultChoice, Purpose
from .gateways.model_hints import suggest_diarization
from .gateways.model_names import supports_timestamps
from .types.routes import NO_TRAITS, ModelCard, Price, Route, ServerTraits


class GatewayConfig(NamedTuple):
    """A built-in or configured gateway with its API key.

    Attributes:
        requires_key: Whether the gateway cannot be used without a key.
        key_hint: How to set a key.
        key_source: Where the key comes from, such as an environment variable. `base_url_source` likewise.
        key_error: Why the keys file could not be read.
        key_note: What was changed about the key.
        traits: Differences of the server from its dialect. `traits_error` is why it cannot be used.
    """

    name: str
    dialect: str
    base_url: str
    key: str | None = None
    requires_key: bool = True
    key_hint: str | None = None
    key_source: str | None = None
    base_url_source: str = "built in"
    key_error: AudiocliError | None = None
    key_note: str | None = None
    traits: ServerTraits = NO_TRAITS
    traits_error: AudiocliError | None = None

    def __repr__(self) -> str:
        """Return a representation without the API key and the base URL, which may have a password."""
        return f"GatewayConfig({self.name}, {self.dialect})"


class RouteQuery(NamedTuple):
    """Routing options of a command.

    Attributes:
        models: References, as in `-m [GATEWAY:]MODEL`.
        voice: Voice given on the command line.
        default_voice: Configured voice for models that are not in `model_voices`.
        language: Language of the text to speak; None if it is English or unknown.
        needs_timestamps: Prefer a default model with timestamps. `needs_instructions` and `needs_speed` likewise.
        model_voices: Configured voices by reference of the model. `model_prices` likewise.
        alias_names: Names in `[aliases]`, to suggest one for a model that no gateway has.
    """

    task: Literal["speech", "transcription", "chat"]
    models: tuple[str, ...] = ()
    gateway: str | None = None
    base_url: str | None = None
    voice: str | None = None
    default_voice: str | None = None
    language: str | None = None
    needs_timestamps: bool = False
    needs_instructions: bool = False
    needs_speed: bool = False
    translate: bool = False
    diarize: bool = False
    model_voices: Mapping[str, str] | None = None
    model_prices: Mapping[str, Price] | None = None
    alias_names: tuple[str, ...] = ()


class UnknownVoice(UsageError):
    """The list of voices of a route does not have the voice that the user named."""

    def __init__(self, route: Route, voices: Sequence[str]) -> None:
        similar = _find_similar_voice(route.voice or "", voices)
        suggestion = f"; did you mean {similar!r}?" if similar else f" of {route.ref}"
        super().__init__(
            f"unknown voice {route.voice!r}{suggestion}",
            hint=f"list the voices with: audiocli speak -v '?' -m {route.ref}",
        )
        self.route = route


class ModelInfo(Protocol):
    """Information about models that is available without a request."""

    @property
    def today(self) -> date: ...

    def has_model(self, route: Route) -> bool | None:
        """Return whether the model list of the gateway has this model; None if there is no list."""
        ...

    def get_cards(self, route: Route) -> Sequence[ModelCard] | None:
        """Return the cached model list of the gateway of a route; None if there is none."""
        ...

    def get_voices(self, route: Route) -> tuple[str, ...]: ...

    def get_end_date(self, route: Route) -> date | None: ...

    def get_unsupported(self, route: Route) -> frozenset[str]: ...

    def choose_local_model(self, name: str, is_default: bool) -> str:
        """Return the installed model that a name of the local engines stands for."""
        ...

    def choose_local_speech(
        self, model: str, voice: str | None, is_default: bool, language: str | None
    ) -> tuple[str, str | None]:
        """Return the local engine and its voice for a text of a language."""
        ...


def expand_aliases(references: Sequence[str], aliases: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Replace each name in `[aliases]` by its references. A reference that is listed twice stays where it is first."""
    expanded = (model for reference in references for model in aliases.get(reference, (reference,)))
    return tuple(dict.fromkeys(expanded))


class RoutePlan(NamedTuple):
    """Routes in order of preference, and skipped routes with their errors.

    Attributes:
        former_routes: Routes with models that were the default before, whose stored results remain valid.
        end_notes: The notes of the routes that are about the end of a model. They are shown once a day.
    """

    routes: tuple[Route, ...]
    skipped: tuple[tuple[Route, AudiocliError], ...] = ()
    fell_back_to_local: bool = False
    former_routes: tuple[Route, ...] = ()
    end_notes: tuple[str, ...] = ()


def resolve_routes(
    query: RouteQuery,
    gateway_configs: Sequence[GatewayConfig],
    check_route: Callable[[Dialect, Route], AudiocliError | None],
    info: ModelInfo,
) -> RoutePlan:
    """Resolve a query into routes.

    `check_route` returns an error if a route cannot serve the request at all.

    Raises:
        UsageError: Unknown gateway, unknown model, or a model that contradicts `--gateway`.
        UnknownVoice: The first route or every route lacks the voice that the user named.
        AccessError: No gateway has an API key.
        NoModelLeft: The gateway has no model left for the task, and the user named none.
    """
    gateways_by_name = {gateway.name: gateway for gateway in gateway_configs}
    if query.gateway is not None and query.gateway not in gateways_by_name:
        raise build_unknown_gateway_error(query.gateway, gateways_by_name)
    if query.base_url is not None:
        gateways_by_name, query = _apply_base_url(query, gateways_by_name)
    candidates: list[Route] = []
    for reference in query.models:
        candidates += _parse_reference(reference, query, gateways_by_name, info)
    former_routes: list[Route] = []
    end_notes: list[str] = []
    fell_back = False
    is_plain_default = False
    if not query.models:

        def is_suitable(route: Route) -> bool:
            return check_route(gateways.load_dialect(route.dialect), route) is None

        chosen = (
            gateways_by_name[query.gateway]
            if query.gateway
            else _choose_gateway(gateways_by_name.values(), query, info, is_suitable)
        )
        fell_back = chosen is not None and chosen.dialect == "local" and query.gateway is None
        if chosen is None or fell_back:
            # An unreadable keys file may hold a key, so it must not lead to the local engine without an error.
            for gateway in gateways_by_name.values():
                if gateway.requires_key and gateway.key_error is not None:
                    raise gateway.key_error
        if chosen is None:
            if query.task == "chat":
                chat_gateways = [
                    gateway for gateway in gateways_by_name.values() if _get_chat_model(gateway) is not None
                ]
                raise AccessError("no API key for a gateway with audio chat", hint=_join_key_hints(chat_gateways))
            raise AccessError("no API key for any gateway", hint=_join_key_hints(gateways_by_name.values()))
        choice = _choose_default_model(chosen, query, info, is_suitable)
        if choice.model is None:
            raise _build_no_model_error(chosen, choice, query, gateways_by_name, info)
        is_plain_default = not choice.serves_purpose
        candidates.append(_build_default_route(chosen, choice, query, info))
        former_routes = [_build_route(chosen, model, query) for model in choice.former_models]
        end_notes += filter(None, [choice.note])
    candidates = [
        _choose_local_engine(route, query, info) if route.dialect == "local" else route for route in candidates
    ]
    routes: list[Route] = []
    skipped: list[tuple[Route, AudiocliError]] = []
    candidates = list(dict.fromkeys(candidates))
    has_alternatives = len(candidates) > 1
    if query.task == "speech":
        _require_known_voice(candidates, query, gateways_by_name, info)
    for candidate in candidates:
        end_note = _describe_end(candidate, info)
        if end_note is not None:
            end_notes.append(end_note)
            candidate = candidate._replace(notes=(*candidate.notes, end_note))
        route = _apply_model_info(candidate, query, info, has_alternatives=has_alternatives)
        gateway = gateways_by_name[route.gateway]
        error = _check_key(gateway) or check_route(gateways.load_dialect(route.dialect), route)
        if error is None and query.diarize and is_plain_default:
            # The dialect allows models that may support it. The default for plain transcription is no such model.
            error = UsageError(f"{route.ref} does not support diarization", hint=suggest_diarization(route))
        if error is None:
            routes.append(route)
        else:
            skipped.append((route, error))
    return RoutePlan(tuple(routes), tuple(skipped), fell_back, tuple(former_routes), tuple(end_notes))


def _choose_local_engine(route: Route, query: RouteQuery, info: ModelInfo) -> Route:
    """Choose the installed engine that serves a route of the local engines, and its voice."""
    is_default = not query.models
    if query.task != "speech":
        return route._replace(model=info.choose_local_model(route.model, is_default))
    model, voice = info.choose_local_speech(route.model, query.voice, is_default, query.language)
    return route._replace(model=model, voice=voice or route.voice)


def _choose_gateway(
    gateway_configs: Iterable[GatewayConfig],
    query: RouteQuery,
    info: ModelInfo,
    is_suitable: Callable[[Route], bool],
) -> GatewayConfig | None:
    """Return the first usable gateway, preferably one with a model that serves the whole request.

    Configured gateways have no default model, so they are used only if the user names them. The local engines are used
    only if no gateway has a key.
    """
    usable = [
        gateway
        for gateway in gateway_configs
        if _is_usable(gateway) and gateways.get_built_in(gateway.name) is not None
    ]
    if query.task == "chat":
        usable = [gateway for gateway in usable if _get_chat_model(gateway) is not None]
    for gateway in usable:
        is_last_resort = gateway.dialect == "local" and gateway is not usable[0]
        if not is_last_resort and _serves_query(_choose_default_model(gateway, query, info, is_suitable), query):
            return gateway
    return next(iter(usable), None)


def _serves_query(choice: DefaultChoice, query: RouteQuery) -> bool:
    """Return whether the default model of a gateway serves the whole request.

    Models for diarization return segments with times, in another format than `verbose_json`.
    """
    return (
        choice.model is not None
        and choice.serves_purpose
        and (not query.needs_timestamps or query.diarize or supports_timestamps(choice.model))
    )


def _get_chat_model(gateway: GatewayConfig) -> str | None:
    built_in = gateways.get_built_in(gateway.name)
    return built_in.chat_model if built_in is not None else None


def _list_purposes(gateway: GatewayConfig, query: RouteQuery) -> list[Purpose]:
    """Return the purposes that a query has at a gateway, the most specific one first."""
    if query.task != "transcription":
        return ["chat" if query.task == "chat" else "speech"]
    built_in = gateways.get_built_in(gateway.name)
    purposes: list[Purpose] = []
    if query.translate:
        purposes.append("translation")
    elif query.diarize:
        purposes.append("diarization")
    elif query.needs_timestamps and built_in is not None and built_in.timed_transcription:
        purposes.append("timed_transcription")
    return [*purposes, "transcription"]


def _choose_default_model(
    gateway: GatewayConfig, query: RouteQuery, info: ModelInfo, is_suitable: Callable[[Route], bool]
) -> DefaultChoice:
    """Choose the default model of a gateway: one for the whole request, else one for plain transcription.

    Raises:
        UsageError: The gateway has no default models.
    """
    built_in = gateways.get_built_in(gateway.name)
    if built_in is None:
        raise UsageError(f"{gateway.name} has no default model", hint=f"use -m {gateway.name}:MODEL")
    if query.task == "chat" and built_in.chat_model is None:
        raise UsageError(f"{gateway.name} has no default model for chat", hint=f"use -m {gateway.name}:MODEL")
    purposes = _list_purposes(gateway, query)
    gateway_route = build_gateway_route(gateway)
    choice = DefaultChoice(None)
    former_models: tuple[str, ...] = ()
    for index, purpose in enumerate(purposes):
        choice = default_models.choose_default(
            gateway_route,
            purpose,
            info,
            is_suitable,
            voice=query.voice,
            needs_instructions=query.needs_instructions,
            needs_speed=query.needs_speed,
        )
        former_models += choice.former_models
        choice = choice._replace(
            serves_purpose=choice.serves_purpose and index == 0, former_models=tuple(dict.fromkeys(former_models))
        )
        if choice.model is not None:
            break
    return choice


def build_unknown_gateway_error(name: str, known_names: Collection[str]) -> UsageError:
    """Build the error for a name that no gateway has."""
    return UsageError(
        f"unknown gateway {name!r}{suggest(name, known_names)}", hint="known gateways: " + ", ".join(known_names)
    )


def build_gateway_route(gateway: GatewayConfig) -> Route:
    """Build the route for requests to a gateway that are about no model, such as those for its model list."""
    return Route(gateway.name, gateway.dialect, gateway.base_url, "", gateway.key, traits=gateway.traits)


def _build_default_route(gateway: GatewayConfig, choice: DefaultChoice, query: RouteQuery, info: ModelInfo) -> Route:
    """Build the route of a default model. A configured voice that it does not have is replaced by its own, with a note.

    That voice was configured for an earlier default. A voice of the command line is not replaced.
    """
    assert choice.model is not None
    route = _build_route(gateway, choice.model, query)
    notes = (*route.notes, *((choice.note,) if choice.note else ()))
    built_in = gateways.get_built_in(gateway.name)
    default = built_in.find_speech_default(choice.model) if built_in is not None else None
    is_configured_voice = query.task == "speech" and query.voice is None and route.voice == query.default_voice
    if is_configured_voice and route.voice is not None and built_in is not None:
        voices = info.get_voices(route)
        # Without a list, a voice is only known to belong to another model if the table says so.
        is_foreign = (
            not _may_have_voice(route, voices)
            if voices
            else default is not None
            and route.voice not in default.voices
            and any(route.voice in other.voices for other in built_in.speech)
        )
        if is_foreign:
            voice = default.voice if default is not None and (not voices or default.voice in voices) else voices[0]
            notes = (*notes, f"{route.ref} has no voice {route.voice!r}; using {voice!r}")
            route = route._replace(voice=voice)
    return route._replace(notes=notes)


def _build_no_model_error(
    gateway: GatewayConfig,
    choice: DefaultChoice,
    query: RouteQuery,
    gateways_by_name: Mapping[str, GatewayConfig],
    info: ModelInfo,
) -> NoModelLeft:
    """Build the error for a gateway without a model for the task. The hint names the models of another gateway."""
    message = f"{gateway.name} has no {query.task} model left" + (f": {choice.reason}" if choice.reason else "")
    other = next((config for config in gateways_by_name.values() if config.name == "openrouter"), None)
    hints = []
    if other is not None and other.name != gateway.name:
        purpose: Purpose = _list_purposes(other, query)[-1]
        refs = [
            f"{other.name}:{model}"
            for model in default_models.list_surviving_models(build_gateway_route(other), purpose, info)
        ]
        key_hint = f" ({other.key_hint})" if other.key is None and other.key_hint else ""
        hints.append(f"use {' or '.join(refs)}{key_hint}")
    local = gateways.get_built_in("local")
    if query.task != "chat" and local is not None:
        what = "voice" if query.task == "speech" else "engine"
        model = local.speech_model if query.task == "speech" else local.transcription_model
        hints.append(f"the local {what} with -m local:{model}")
    return NoModelLeft(message, hint=", or ".join(hints) or None)


def list_outdated_lists(query: RouteQuery, gateway_configs: Sequence[GatewayConfig], info: ModelInfo) -> list[Route]:
    """Return the gateways whose model lists decide which default model is used, in order of preference.

    Empty if the user named the models, or if the table decides without a list.
    """
    if query.models:
        return []
    routes = []
    for gateway in gateway_configs:
        is_candidate = _is_usable(gateway) if query.gateway is None else gateway.name == query.gateway
        built_in = gateways.get_built_in(gateway.name)
        if not is_candidate or gateway.dialect == "local" or built_in is None:
            continue
        if query.task == "chat" and built_in.chat_model is None:
            continue
        if query.base_url is not None:
            gateway = gateway._replace(base_url=query.base_url)
        route = build_gateway_route(gateway)
        if any(default_models.may_be_outdated(route, purpose, info) for purpose in _list_purposes(gateway, query)):
            routes.append(route)
        elif _serves_query(_choose_default_model(gateway, query, info, lambda route: True), query):
            break
        if query.base_url is not None:
            break
    return routes


def _describe_end(route: Route, info: ModelInfo) -> str | None:
    """Return a note about the end of a model that has ended or ends soon."""
    end_date = info.get_end_date(route)
    if end_date is None or (end_date - info.today).days > END_DATE_WARNING_DAYS:
        return None
    verb = "shuts down" if end_date > info.today else "was shut down"
    return f"{route.ref} {verb} on {end_date.isoformat()}"


def _apply_model_info(route: Route, query: RouteQuery, info: ModelInfo, *, has_alternatives: bool) -> Route:
    """Add a supported voice, unsupported features and notes to a route."""
    notes = [*route.notes]
    voice = route.voice
    if query.task == "speech" and route.dialect != "local":
        voice = _choose_voice(route, query, info.get_voices(route), has_alternatives=has_alternatives)
        if voice != route.voice:
            problem = f"{route.ref} has no voice {route.voice!r}" if route.voice else f"{route.ref} requires a voice"
            notes.append(f"{problem}; using {voice!r}")
    return route._replace(voice=voice, unsupported=info.get_unsupported(route), notes=tuple(notes))


def _find_similar_voice(voice: str, voices: Sequence[str]) -> str | None:
    import difflib

    names = {name.lower(): name for name in voices}
    matches = difflib.get_close_matches(voice.lower(), names, n=1)
    return names[matches[0]] if matches else None


def _require_known_voice(
    candidates: Sequence[Route],
    query: RouteQuery,
    gateways_by_name: Mapping[str, GatewayConfig],
    info: ModelInfo,
) -> None:
    """Refuse a voice that the user named for the first route, and a voice that no route has.

    Another voice is only substituted on a fallback route, for which the user did not name it.

    Raises:
        UnknownVoice: The voice is not in the list of voices.
    """
    may_have_voice = [_may_have_voice(route, info.get_voices(route)) for route in candidates]
    for index, route in enumerate(candidates):
        names = (query.voice, (query.model_voices or {}).get(route.ref), query.default_voice)
        if (
            route.voice in names
            and not may_have_voice[index]
            and (index == 0 or not any(may_have_voice))
            and _check_key(gateways_by_name[route.gateway]) is None
        ):
            raise UnknownVoice(route, info.get_voices(route))


def require_voices(plan: RoutePlan, voices: Collection[str], info: ModelInfo) -> RoutePlan:
    """Return the routes that may have all voices of a script. Routes that lack one are skipped.

    Raises:
        UnknownVoice: The first route lacks a voice.
    """
    routes: list[Route] = []
    skipped = list(plan.skipped)
    for index, route in enumerate(plan.routes):
        candidates = [route._replace(voice=voice) for voice in sorted(voices)]
        missing = [voiced for voiced in candidates if not _may_have_voice(voiced, info.get_voices(voiced))]
        error = UnknownVoice(missing[0], info.get_voices(route)) if missing else None
        if error is not None and index == 0:
            raise error
        if error is None:
            routes.append(route)
        else:
            skipped.append((route, error))
    return plan._replace(routes=tuple(routes), skipped=tuple(skipped))


def _may_have_voice(route: Route, listed_voices: Sequence[str]) -> bool:
    """Return whether the model may have the voice of the route. Custom voices are not listed.

    A built-in list may be outdated, so a voice that resembles none of its voices may be new.
    """
    voice = route.voice
    if voice is None or not listed_voices or voice in listed_voices or voice.startswith(CUSTOM_VOICE_PREFIXES):
        return True
    is_built_in_list = gateways.load_dialect(route.dialect).get_known_voices(route) is not None
    return route.dialect == "local" or (is_built_in_list and _find_similar_voice(voice, listed_voices) is None)


def _choose_voice(
    route: Route, query: RouteQuery, listed_voices: Sequence[str], *, has_alternatives: bool
) -> str | None:
    """Return the voice of the route if the model may have it, else the configured voice, else the first listed one."""
    voice = route.voice
    if not listed_voices or voice in listed_voices or (voice or "").startswith(CUSTOM_VOICE_PREFIXES):
        return voice
    # Built-in lists of voices may be outdated, so an unlisted voice is replaced only if there are other routes.
    is_built_in_list = gateways.load_dialect(route.dialect).get_known_voices(route) is not None
    if voice is not None and is_built_in_list and not has_alternatives:
        return voice
    configured_voice = (query.model_voices or {}).get(route.ref)
    return configured_voice if configured_voice in listed_voices else listed_voices[0]


def _parse_reference(
    reference: str, query: RouteQuery, gateways_by_name: Mapping[str, GatewayConfig], info: ModelInfo
) -> list[Route]:
    """Parse `[GATEWAY:]MODEL`. Without a gateway, return a route for each gateway that may have the model."""
    prefix, colon, model = reference.partition(":")
    if colon and prefix in gateways_by_name:
        if query.gateway not in (None, prefix):
            raise UsageError(f"-m {reference} contradicts -g {query.gateway}")
        if not model:
            raise UsageError(f"no model in -m {reference}")
        return [_build_route(gateways_by_name[prefix], model, query)]
    if not reference.strip():
        raise UsageError("no model in -m")
    if query.gateway is not None:
        return [_build_route(gateways_by_name[query.gateway], reference, query)]
    routes = [_build_route(gateway, reference, query) for gateway in gateways_by_name.values()]
    routes = [route for route in routes if _may_have_model(route, info)]
    if not routes and colon and "/" not in prefix:
        raise build_unknown_gateway_error(prefix, gateways_by_name)
    if not routes:
        suggestion = suggest(reference, query.alias_names)
        raise UsageError(f"no gateway is known to have the model {reference}{suggestion}", hint="use -m GATEWAY:MODEL")
    # Without a key for any of them, the error of the first one says which key is missing.
    return [route for route in routes if _is_usable(gateways_by_name[route.gateway])] or routes[:1]


def _may_have_model(route: Route, info: ModelInfo) -> bool:
    """Return whether a gateway may have a model, by its cached list or else by the name of the model."""
    is_listed = info.has_model(route)
    return gateways.load_dialect(route.dialect).may_have_model(route) if is_listed is None else is_listed


def _apply_base_url(
    query: RouteQuery, gateways_by_name: Mapping[str, GatewayConfig]
) -> tuple[dict[str, GatewayConfig], RouteQuery]:
    """Replace the base URL of one gateway: that of `-g`, of the models, or the first one with a key.

    Without any of these the URL is taken for an OpenAI-compatible server that needs no key.
    """
    prefixes = {reference.partition(":")[0] for reference in query.models} & set(gateways_by_name)
    if query.gateway is None and len(prefixes) > 1:
        raise UsageError("--base-url applies to one gateway, but the models are from several")
    with_key = (gateway.name for gateway in gateways_by_name.values() if gateway.key is not None)
    name = query.gateway or next(iter(prefixes), None) or next(with_key, None)
    if name is None:
        # Not named "openai", because the limits of OpenAI do not apply.
        server = GatewayConfig("server", "openai", query.base_url or "", requires_key=False)
        return {**gateways_by_name, server.name: server}, query._replace(gateway=server.name)
    chosen = gateways_by_name[name]
    if chosen.dialect == "local":
        raise UsageError("--base-url does not apply to the local engines")
    requires_key = chosen.requires_key and chosen.dialect != "openai"
    replaced = chosen._replace(base_url=query.base_url or chosen.base_url, requires_key=requires_key)
    return {**gateways_by_name, name: replaced}, query._replace(gateway=name)


def _build_route(gateway: GatewayConfig, model: str, query: RouteQuery) -> Route:
    built_in = gateways.get_built_in(gateway.name)
    default = built_in.find_speech_default(model) if built_in is not None else None
    built_in_voice = default.voice if default is not None else None
    # The configured default is a voice of a gateway; voices of the local engines are named by language.
    configured_voice = query.default_voice if gateway.dialect != "local" else None
    voice = query.voice or (query.model_voices or {}).get(f"{gateway.name}:{model}")
    if not voice and query.task == "speech" and gateway.traits.default_voice is not None:
        voice = gateway.traits.default_voice
    elif not voice:
        voice = configured_voice or built_in_voice
    if query.task == "chat" and query.default_voice is None:
        voice = None
    if query.task == "speech" and voice is None:
        voice = gateways.load_dialect(gateway.dialect).default_voice
    price = (query.model_prices or {}).get(f"{gateway.name}:{model}")
    notes = (gateway.key_note,) if gateway.key_note else ()
    return Route(
        gateway.name,
        gateway.dialect,
        gateway.base_url,
        model,
        gateway.key,
        voice,
        price,
        notes=notes,
        traits=gateway.traits,
    )


def _is_usable(gateway: GatewayConfig) -> bool:
    """Return whether the gateway has a key or, like the local one, needs none."""
    return gateway.key is not None or gateway.dialect == "local"


def _check_key(gateway: GatewayConfig) -> AudiocliError | None:
    if gateway.traits_error is not None:
        return gateway.traits_error
    if gateway.key is not None or not gateway.requires_key:
        return None
    return gateway.key_error or AccessError(f"no API key for {gateway.name}", hint=gateway.key_hint)


def _join_key_hints(gateway_configs: Iterable[GatewayConfig]) -> str:
    return "; or ".join(gateway.key_hint for gateway in gateway_configs if gateway.key_hint)


def resolve_first_route(query: RouteQuery, gateway_configs: Sequence[GatewayConfig], info: ModelInfo) -> Route:
    """Return the first route, for requests that cost nothing. A missing API key is not an error.

    Raises:
        AccessError: A header of the gateway needs a variable that is not set.
    """
    # The voice does not matter here, so a wrong one in the configuration must not prevent the request.
    query = query._replace(voice=None, default_voice=None, model_voices=None)
    plan = resolve_routes(query, gateway_configs, lambda dialect, route: None, info)
    route = [*plan.routes, *(route for route, _ in plan.skipped)][0]
    gateway = next((gateway for gateway in gateway_configs if gateway.name == route.gateway), None)
    if gateway is not None and gateway.traits_error is not None:
        raise gateway.traits_error
    return route
