"""`speak --verify`: validate the options, choose the model that listens, and report what it has heard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..context import AppContext
from ..errors import AccessError, AudiocliError, UsageError
from .mock_environment import URL_VARIABLE
from .options import open_phrase_cache, resolve_routes, validate_utf8

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    from ..console import Console
    from ..core.speech_verification import Verification
    from ..gateways.base import Dialect
    from ..routing import RoutePlan, RouteQuery
    from ..types.json import Json
    from ..types.results import VerificationResult
    from ..types.routes import ModelCard, Route
    from .speak_options import SpeakOptions

    _Check: TypeAlias = Callable[[Dialect, Route], AudiocliError | None]

MAX_RETRIES = 10
# Length of the recording for which prices of models are compared.
SAMPLE_DURATION_S = 60.0
INSTALL_HINT = 'pip install "audiocli[local,local-multilingual]", or name a model with --verify-model'


def validate_verification_options(options: SpeakOptions) -> None:
    """Check the options of `--verify`. Raises: UsageError: One has no effect, or is out of range."""
    verification = options.verification
    if verification.verify and verification.audio is not None:
        raise UsageError("--verify-audio checks an existing recording; it cannot be used with --verify")
    if verification.audio == "":
        raise UsageError("--verify-audio needs a file")
    is_active = verification.verify or verification.audio is not None
    for value, flag in (
        (verification.model, "--verify-model"),
        (verification.threshold_percent, "--verify-threshold"),
        (verification.retries, "--verify-retries"),
    ):
        if value is not None and not is_active:
            raise UsageError(f"{flag} needs --verify")
    threshold, retries = verification.threshold_percent, verification.retries
    if threshold is not None and not 0 <= threshold <= 100:
        raise UsageError(f"--verify-threshold {threshold:g}: must be between 0 and 100 %")
    if retries is not None and not 0 <= retries <= MAX_RETRIES:
        raise UsageError(f"--verify-retries {retries}: must be between 0 and {MAX_RETRIES}")
    validate_utf8(verification.model, "--verify-model")
    if options.caption_words and not (options.captions and verification.verify):
        missing = "--verify" if options.captions else "--captions"
        raise UsageError(f"--caption-words needs {missing}", hint="the times of the words come from the verification")
    if verification.verify and options.job.background:
        raise UsageError("--verify cannot be used with --background", hint="use --verify-audio when the job is done")


def resolve_verification(
    app: AppContext,
    console: Console,
    options: SpeakOptions,
    *,
    speech_route: Route,
    request_options: Mapping[str, Json],
    language: str | None,
    text: str,
    read_timeout_s: float,
) -> Verification:
    """Choose the model that listens. `speech_route` is the first route of the speech.

    `language` is that of the document; None: that of the text.

    Raises:
        AudiocliError: No model can be used.
    """
    from ..core.speech_verification import (
        DEFAULT_RETRIES,
        DEFAULT_THRESHOLD_PERCENT,
        Verification,
        build_request,
    )
    from ..gateways.base import PRIVACY_OPTIONS, check_privacy_options
    from ..storage.paid_results import PaidResultStore
    from ..text.language_guess import identify_language
    from ..text.languages import find_language_code

    values = options.verification
    detected = language or identify_language(text)
    has_cache = open_phrase_cache(app, console, options.cache) is not None
    threshold = DEFAULT_THRESHOLD_PERCENT if values.threshold_percent is None else values.threshold_percent
    verification = Verification(
        routes=(),
        skipped=(),
        transcripts=PaidResultStore(app.records_directory / "verifications", ".json"),
        chunk_transcripts=PaidResultStore(app.scratch_directory("texts"), ".json"),
        rejected=app.rejected_speech if has_cache else None,
        directory=app.scratch_directory("uploads"),
        threshold=threshold / 100,
        max_attempts=1 + (DEFAULT_RETRIES if values.retries is None else values.retries),
        language=find_language_code(detected) if detected else None,
        options={name: value for name, value in request_options.items() if name in PRIVACY_OPTIONS},
        needs_word_times=options.caption_words,
    )
    request = build_request(verification)

    def check(dialect: Dialect, route: Route) -> AudiocliError | None:
        return check_privacy_options(request_options, dialect, route) or dialect.check_transcription(request, route)

    query = _build_query(app, console, options, speech_route, verification, check, read_timeout_s)
    routing = _resolve(app, query, check)
    for route in routing.routes:
        console.debug(f"verification by {route.ref}")
    return verification._replace(routes=routing.routes, skipped=routing.skipped)


def _resolve(app: AppContext, query: RouteQuery, check: _Check) -> RoutePlan:
    try:
        return resolve_routes(app, query, check)
    except AudiocliError as error:
        error.message = f"--verify: {error.message}"
        if error.hint and "-m " in error.hint:
            error.hint = "name a model with --verify-model"
        raise


def _build_query(
    app: AppContext,
    console: Console,
    options: SpeakOptions,
    speech_route: Route,
    verification: Verification,
    check: _Check,
    read_timeout_s: float,
) -> RouteQuery:
    """Return the query for the model: the named one, else local Whisper, else the cheapest one of the gateway.

    Audio goes to another gateway than the text only if the user names it.
    """
    from ..routing import RouteQuery

    names = [config.name for config in app.settings.gateways]
    query = RouteQuery(
        task="transcription",
        gateway=speech_route.gateway if speech_route.gateway in names else options.gateway.name,
        base_url=options.gateway.base_url if speech_route.dialect != "local" else None,
        needs_timestamps=verification.needs_word_times,
        model_prices=app.settings.prices,
    )
    name = options.verification.model
    if name is not None:
        gateway = name.partition(":")[0] if ":" in name else None
        if gateway in names and gateway != query.gateway:
            return query._replace(models=(name,), gateway=None, base_url=None)
        return query._replace(models=(name,))
    # The mock gateway makes tones, which only itself can transcribe.
    mock_url = app.variables.get(URL_VARIABLE)
    is_mock = mock_url is not None and speech_route.base_url.startswith(mock_url)
    local_model = None if is_mock else _find_local_model(app, verification.language)
    if local_model is not None:
        return query._replace(models=(f"local:{local_model}",), gateway=None, base_url=None)
    if speech_route.dialect == "local":
        raise _build_missing_error(verification.language)
    cards = _list_cards(app, console, speech_route, read_timeout_s)
    model = _find_cheapest_model(app, cards, speech_route, check, needs_times=verification.needs_word_times)
    return query if model is None else query._replace(models=(model,))


def _build_missing_error(language: str | None) -> AccessError:
    """Return the error for local speech that no installed model can verify."""
    from ..gateways.local import check_installed

    if check_installed("whisper") is None:
        message = f"no model of Whisper for {language or 'other languages'} is installed"
    else:
        message = "Whisper is not installed"
    return AccessError(f"{message}, so the speech cannot be verified", hint=INSTALL_HINT)


def _find_local_model(app: AppContext, language: str | None) -> str | None:
    """Return the installed model of Whisper for a language. An unknown language needs one for all, if there is one."""
    from ..gateways.local import check_installed
    from ..gateways.local_models import list_local_models

    if check_installed("whisper") is not None:
        return None
    models = [model for model in list_local_models("whisper") if language is None or model.language in (None, language)]
    if language is None:
        models.sort(key=lambda model: model.language is not None)
    best = app.weights.find_best(models)
    return None if best is None else best.name


def _list_cards(app: AppContext, console: Console, route: Route, read_timeout_s: float) -> Sequence[ModelCard]:
    """Return the models of the gateway of a route. Without a stored list, it is fetched, which is free."""
    gateway_route = route._replace(model="", voice=None)
    if app.catalog.get_cards(gateway_route) is None:
        app.run(
            lambda ctx: app.catalog.refresh_lists([gateway_route], ctx),
            read_timeout_s=read_timeout_s,
            info=console.info,
            debug=console.debug,
        )
    return app.catalog.get_cards(gateway_route) or ()


def _find_cheapest_model(
    app: AppContext, cards: Sequence[ModelCard], speech_route: Route, check: _Check, *, needs_times: bool
) -> str | None:
    """Return the cheapest model that can serve; None if no price is known, so that the default model is used."""
    from .. import gateways
    from ..core.catalog import find_prices
    from ..gateways.model_names import supports_timestamps
    from ..pricing import estimate_transcription

    costs: list[tuple[int, str]] = []
    for card in cards:
        route = speech_route._replace(model=card.model, voice=None, price=None)
        has_ended = card.end_date is not None and card.end_date <= app.today
        if card.kind != "transcription" or has_ended or check(gateways.load_dialect(route.dialect), route) is not None:
            continue
        cost_nanousd = estimate_transcription(find_prices(route, app.cache), SAMPLE_DURATION_S).nanousd
        if cost_nanousd is not None and (not needs_times or supports_timestamps(card.model)):
            costs.append((cost_nanousd, card.model))
    return min(costs)[1] if costs else None


def build_verification_document(result: VerificationResult) -> dict[str, Json]:
    """Return the field `verify` of a result."""
    from ..costs import to_usd

    return {
        "word_error_rate": round(result.word_error_rate, 4),
        "chunks": result.chunk_count,
        "redone": result.redone_count,
        "failed": [
            {"text": failed.text, "start_s": round(failed.start_s, 3), "problem": failed.problem}
            for failed in result.failed
        ],
        "cost_usd": to_usd(result.cost_nanousd),
    }


def format_verification(result: VerificationResult) -> str:
    """Return the part of a result line."""
    failed = len(result.failed)
    verdict = f"{failed} of {result.chunk_count} chunks wrong" if failed else "verified"
    redone = f", {result.redone_count} redone" if result.redone_count else ""
    return f"{verdict}{redone}"
