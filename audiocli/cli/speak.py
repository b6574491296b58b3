"""`audiocli speak`: split the text, choose routes, check the budget, send it, and report the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from ..context import AppContext
from ..errors import ExitCode, UsageError
from ..ledger.budget import RunBudget
from .inputs import reject_overwriting_input
from .options import (
    fetch_default_lists,
    list_outdated_lists,
    list_voices,
    needs_prices,
    open_app,
    open_phrase_cache,
    parse_provider_options,
    report_routes,
    resolve_budget,
    resolve_models,
    resolve_routes,
    resolve_tag,
    validate_concurrency,
    validate_timeout,
    validate_utf8,
    with_options,
)
from .outputs import AudioDestination, choose_destination, open_audio_outputs, open_text_file
from .speak_options import SpeakOptions
from .speak_report import build_document, list_result_parts, print_plan
from .speech_fields import parse_references, parse_turns
from .speech_text import (
    SpeechSource,
    SpeechText,
    choose_text_format,
    iterate_chunks,
    read_source,
    split_source,
)
from .speech_verification import resolve_verification, validate_verification_options

if TYPE_CHECKING:
    from ..audio.processing import Processing
    from ..audio.tags import AudioTags
    from ..console import Console
    from ..core.audio_pipeline import AudioOutput
    from ..core.long_speech import LongSpeechResult
    from ..core.progress import SpeechProgress
    from ..core.retry_policy import RetryPolicy
    from ..core.run_context import RunContext
    from ..core.speech import TextTooLong
    from ..core.speech_verification import Verification
    from ..errors import AudiocliError
    from ..gateways.base import Dialect
    from ..outputs import FileOutput, MultiOutput, StreamOutput
    from ..routing import RoutePlan, RouteQuery
    from ..storage.phrase_cache import PhraseCache
    from ..text.document import Document
    from ..text.splitter import Chunk
    from ..text.timing import TimedChunk
    from ..types.json import Json
    from ..types.ledger import Estimate
    from ..types.requests import SpeechRequest
    from ..types.results import SpeechResult
    from ..types.routes import Route
    from ..types.transcripts import Word

MIN_CHUNK_CHARACTERS = 20
# Documents whose title and author become tags, even without chapters.
BOOK_FORMATS = frozenset({"epub", "docx", "odt"})
MAX_PAUSE_MS = 60_000
# Words of a caption with --caption-words.
WORDS_PER_CUE = 4


class SpeakPlan(NamedTuple):
    """A `speak` command after validation. `phrases` is the phrase cache, if it is used.

    `source` is the text before it was split. `can_split`: it may be split again, which is done once.
    `has_chapter_marks`: the output gets the chapters of the document.
    """

    options: SpeakOptions
    request: SpeechRequest
    source: SpeechSource
    speech_text: SpeechText
    destination: AudioDestination
    routing: RoutePlan
    retry_policy: RetryPolicy
    tag: str | None
    can_split: bool
    budget: RunBudget = RunBudget()
    phrases: PhraseCache | None = None
    has_chapter_marks: bool = False
    processing: Processing | None = None
    verification: Verification | None = None


@with_options
def speak(ctx: typer.Context, options: SpeakOptions) -> int:
    """Speak text to a file, a pipe or a player."""
    app, console = open_app(
        ctx, options.general, quiet_json=True, bell=options.bell, exchanges=options.gateway.exchanges
    )
    return run(app, console, options)


def run(app: AppContext, console: Console, options: SpeakOptions) -> int:
    """Speak a text, submit it as a background job, print the plan of a dry run, or list the voices for `-v ?`.

    Return the exit code.

    Raises:
        AudiocliError: An option is invalid, or the routes, the budget, a request or an output failed.
    """
    query = build_query(app, options)
    timeout_s = validate_timeout(options.gateway.timeout_s)
    if options.voice == "?":
        _print_voices(app, console, query, timeout_s, as_json=options.general.as_json)
        return ExitCode.OK
    _validate_split_options(options)
    validate_verification_options(options)
    if options.verification.audio is not None:
        from . import verify_audio

        return verify_audio.run(app, console, options, query, read_timeout_s=timeout_s)
    if options.book.split_chapters or choose_text_format(options).has_rows:
        from . import speak_batch

        return speak_batch.run(app, console, options, query, read_timeout_s=timeout_s)
    _reject_batch_options(options)
    background_options = None
    if options.job.background or options.job.wait:
        from . import background as background_jobs

        background_options = background_jobs.parse_background_options(
            options.job.background,
            options.job.wait,
            options.output,
            play=bool(options.play) or options.player is not None,
        )
    if background_options is not None and not background_options.wait:
        destination = background_jobs.choose_output(
            app, background_options, options.format or None, app.settings.speech_format
        )
    else:
        destination = choose_destination(
            app,
            options.output,
            options.format or None,
            app.settings.speech_format,
            play=options.play,
            player=options.player,
        )
    for warning in destination.warnings:
        console.warning(warning)
    if options.input_path is not None:
        reject_overwriting_input(options.input_path, destination.path)
    for path in (destination.path, options.input_path):
        if isinstance(path, Path) and options.captions_path is not None:
            reject_overwriting_input(path, options.captions_path)
    source, request = _read_request(app, console, options, destination.format)
    if background_options is not None:
        query = background_jobs.select_job_gateway(app, query)

    def check_job(dialect: Dialect, route: Route) -> AudiocliError | None:
        return background_jobs.check_job_support(dialect, route) if background_options is not None else None

    routing = resolve_routing(app, console, query, request, source.document, timeout_s, check_route=check_job)
    verification = None
    if options.verification.verify:
        verification = resolve_verification(
            app,
            console,
            options,
            speech_route=routing.routes[0],
            request_options=request.options,
            language=source.document.language,
            text=source.text,
            read_timeout_s=timeout_s,
        )
    has_chapter_marks = _has_chapter_marks(source, destination)
    speech_text, request = _split(source, request, routing, options, console, has_chapter_marks=has_chapter_marks)
    plan = SpeakPlan(
        options=options,
        request=request,
        source=source,
        speech_text=speech_text,
        destination=destination,
        routing=routing,
        retry_policy=build_retry_policy(options, query),
        tag=resolve_tag(options.money.tag, app),
        can_split=speech_text.reader is None and not request.turns,
        phrases=open_phrase_cache(app, console, options.cache) if background_options is None else None,
        has_chapter_marks=has_chapter_marks,
        processing=build_processing(options, destination.format, console),
        verification=verification,
    )
    prices = _estimate_costs(app, console, plan, timeout_s)
    plan = plan._replace(budget=resolve_budget(app, prices, options.money))
    if options.money.dry_run:
        print_plan(app, console, plan, prices, _count_cached_chunks(app, plan))
        return ExitCode.OK
    if background_options is not None and speech_text.is_long:
        if destination.name is None and not destination.players:
            raise UsageError(
                "the text is too long for a single job", hint="run without --background to speak it in chunks"
            )
        chunk_count = len(speech_text.chunks) or "several"
        console.info(f"the text is too long for a single job; speaking it now in {chunk_count} requests")
    elif background_options is not None:
        app.run(
            lambda ctx: background_jobs.submit_speech(
                app, console, ctx, plan, background_options, as_json=options.general.as_json
            ),
            read_timeout_s=timeout_s,
            info=console.info,
            debug=console.debug,
        )
        return ExitCode.OK
    plan, result, cached_count = app.run(
        lambda ctx: _speak(app, console, ctx, plan),
        read_timeout_s=timeout_s,
        info=console.info,
        debug=console.debug,
    )
    if options.general.as_json:
        document = build_document(result, plan, cached_count, [*destination.warnings, *result.warnings])
        (console.result_json if destination.is_stdout else console.write_json)(document)
    else:
        console.result(*list_result_parts(result, destination))
    is_wrong = result.verification is not None and bool(result.verification.failed)
    return ExitCode.PARTIAL if is_wrong else ExitCode.OK


def build_query(app: AppContext, options: SpeakOptions) -> RouteQuery:
    """Return the routing options of a command. Raises: UsageError: An option is not valid text."""
    from ..routing import RouteQuery

    settings = app.settings
    models = resolve_models(options.models, settings.speech_models, options.gateway.name, settings.aliases)
    for value, flag in (
        (options.voice, "--voice"),
        (options.instructions, "--instructions"),
        *((reference, "--model") for reference in models),
    ):
        validate_utf8(value, flag)
    return RouteQuery(
        task="speech",
        models=models,
        gateway=options.gateway.name,
        base_url=options.gateway.base_url,
        voice=None if options.voice == "?" else options.voice,
        default_voice=settings.speech_voice,
        needs_instructions=bool(options.instructions),
        needs_speed=options.speed is not None,
        model_voices=settings.voices,
        model_prices=settings.prices,
    )


def build_retry_policy(options: SpeakOptions, query: RouteQuery) -> RetryPolicy:
    from ..core.retry_policy import RetryPolicy

    return RetryPolicy(retry_unknown=options.money.retry_unknown, has_multiple_models=len(query.models) > 1)


def resolve_routing(
    app: AppContext,
    console: Console,
    query: RouteQuery,
    request: SpeechRequest,
    document: Document,
    read_timeout_s: float,
    *,
    check_route: Callable[[Dialect, Route], AudiocliError | None] = lambda dialect, route: None,
) -> RoutePlan:
    """Choose the routes for a request and the voices of its document, and report them.

    `check_route` returns an error if a route cannot serve the request for another reason.

    Raises:
        AudiocliError: No route can serve the request, or a voice is unknown.
    """
    from ..gateways.base import check_privacy_options, check_speech_input
    from ..routing import UnknownVoice, require_voices

    if _may_use_local_engine(app, query):
        from ..text.language_guess import guess_language
        from ..text.languages import find_language_code

        language = document.language or guess_language(request.text)
        if language is not None and find_language_code(language) == "en":
            language = None
        query = query._replace(language=language)

    def check(dialect: Dialect, route: Route) -> AudiocliError | None:
        return (
            check_route(dialect, route)
            or check_privacy_options(request.options, dialect, route)
            or check_speech_input(request, dialect, route)
            or dialect.check_speech(request, route)
        )

    def resolve() -> RoutePlan:
        voices = {paragraph.voice for paragraph in document.paragraphs if paragraph.voice is not None}
        return require_voices(resolve_routes(app, query, check), voices, app.catalog)

    if list_outdated_lists(app, query):
        app.run(
            lambda ctx: fetch_default_lists(app, query, ctx),
            read_timeout_s=read_timeout_s,
            info=console.info,
            debug=console.debug,
        )
    try:
        routing = resolve()
    except UnknownVoice as error:
        unresolved_route = error.route
        if not app.catalog.has_old_list(unresolved_route):
            raise
        app.run(
            lambda ctx: app.catalog.refresh(unresolved_route, ctx),
            read_timeout_s=read_timeout_s,
            info=console.info,
            debug=console.debug,
        )
        routing = resolve()
    report_routes(console, routing, build_local_note(routing))
    return routing


def _split(
    source: SpeechSource,
    request: SpeechRequest,
    routing: RoutePlan,
    options: SpeakOptions,
    console: Console,
    *,
    has_chapter_marks: bool,
    refused_chunks: Sequence[str] = (),
) -> tuple[SpeechText, SpeechRequest]:
    """Split the text, and return the request with the text that is left, or with the turns of its voices."""
    if request.turns:
        return _build_single_chunk(request.text, None, options), request
    speech_text = split_source(
        source, routing.routes, options, console, has_chapter_marks=has_chapter_marks, refused_chunks=refused_chunks
    )
    request = request._replace(text=speech_text.text)
    turns = _build_turns(speech_text, routing.routes, options) if not refused_chunks else ()
    if turns:
        single = _build_single_chunk(speech_text.text, speech_text.max_chunk_size, options)
        return single, request._replace(turns=turns)
    return speech_text, request


def _build_single_chunk(text: str, max_chunk_size: int | None, options: SpeakOptions) -> SpeechText:
    """Return a text that is sent in one request. With `--verify` it is a chunk."""
    if not options.verification.verify:
        return SpeechText(text, (), None, max_chunk_size, None)
    from ..text.splitter import Chunk

    chunk = Chunk(text, 0, len(text), is_paragraph_end=True)
    return SpeechText(text, (chunk,), None, max_chunk_size, None, is_verified=True)


def _build_turns(
    speech_text: SpeechText, routes: Sequence[Route], options: SpeakOptions
) -> tuple[Mapping[str, Json], ...]:
    """Return the turns of several voices if one request can serve them; otherwise an empty tuple."""
    from .. import gateways
    from ..core.speech import is_within_limit

    chunks = speech_text.chunks
    if len({chunk.voice for chunk in chunks}) < 2 or options.captions_path or options.pause_ms:
        return ()
    if any(chunk.pause_ms is not None or chunk.start_s is not None or chunk.chapter for chunk in chunks):
        return ()
    if not all(gateways.load_dialect(route.dialect).takes_turns(route) for route in routes):
        return ()
    is_in_bytes = speech_text.unit is not None and speech_text.unit.value == "bytes"
    if not is_within_limit(speech_text.text, speech_text.max_chunk_size, "bytes" if is_in_bytes else "characters"):
        return ()
    return tuple(
        {"text": chunk.text} if chunk.voice is None else {"text": chunk.text, "voice": chunk.voice} for chunk in chunks
    )


def _has_chapter_marks(source: SpeechSource, destination: AudioDestination) -> bool:
    """Return whether a text must be split at its chapters, because its output gets chapter marks.

    The headings of other texts, such as Markdown, are no reason to split the text, except for an audiobook.
    """
    if destination.path is None or len(source.document.chapters) < 2:
        return False
    from ..audio.tags import supports_chapters

    is_book = source.format in BOOK_FORMATS or destination.format == "m4b"
    return is_book and supports_chapters(destination.format)


def _estimate_costs(
    app: AppContext, console: Console, plan: SpeakPlan, read_timeout_s: float
) -> Mapping[str, Estimate]:
    """Estimate the cost of the text that was not paid for before, by reference of the route."""
    from ..core.speech import estimate
    from ..pricing import FREE
    from ..types.ledger import Estimate

    request, routes, verification = plan.request, plan.routing.routes, plan.verification
    remaining_text = _find_remaining_text(app, plan)
    if not remaining_text and verification is None:
        return {route.ref: FREE for route in routes}
    if needs_prices(app, plan.options.money):
        from ..core.catalog import fetch_missing_prices

        app.run(
            lambda ctx: fetch_missing_prices((*routes, *(() if verification is None else verification.routes)), ctx),
            read_timeout_s=read_timeout_s,
            info=console.info,
            debug=console.debug,
        )
    if plan.speech_text.reader is not None:
        return {route.ref: Estimate() for route in routes}
    if verification is not None:
        return {route.ref: _estimate_verified(app, plan, route, verification) for route in routes}
    return {route.ref: estimate(remaining_text, route, app.cache, speed=request.speed) for route in routes}


def _estimate_verified(app: AppContext, plan: SpeakPlan, route: Route, verification: Verification) -> Estimate:
    """Estimate the cost of the text on a route, with its verification and all further attempts."""
    from ..core.long_speech import choose_voice
    from ..core.speech import estimate
    from ..core.speech_names import compute_chunk_name
    from ..core.speech_verification import estimate_chunks
    from ..storage.paid_results import PaidResultStore

    chunks = [
        (chunk, compute_chunk_name(plan.request._replace(text=chunk.text), choose_voice(route, chunk)))
        for chunk in plan.speech_text.chunks
    ]
    return estimate_chunks(
        chunks,
        verification,
        plan.phrases,
        PaidResultStore(app.scratch_directory("speech"), ".wav"),
        [estimate(chunk.text, route, app.cache, speed=plan.request.speed) for chunk, _ in chunks],
        app.cache,
        resume=plan.options.resume,
    )


def _may_use_local_engine(app: AppContext, query: RouteQuery) -> bool:
    """Return whether the text may be spoken by a local engine that depends on its language."""
    if query.models:
        return any("piper" in reference for reference in query.models)
    return query.gateway == "local" or not any(gateway.key for gateway in app.settings.gateways)


def build_local_note(routing: RoutePlan) -> str:
    """Name the local engine that is used without a key, and how to get a better one."""
    route = [*routing.routes, *(route for route, _ in routing.skipped)][0]
    if route.model == "espeak" and route.voice == "en-us":
        return f'using {route.ref}; for a natural voice: pip install "audiocli[local,local-models]"'
    return f"using {route.ref} ({route.voice})"


def _validate_split_options(options: SpeakOptions) -> None:
    """Check `--max-chars`, `--pause`, `--jobs` and `--captions`. Raises: UsageError."""
    if options.max_characters is not None and options.max_characters < MIN_CHUNK_CHARACTERS:
        raise UsageError(f"--max-chars {options.max_characters}: must be at least {MIN_CHUNK_CHARACTERS}")
    if options.pause_ms is not None and not 0 <= options.pause_ms <= MAX_PAUSE_MS:
        raise UsageError(f"--pause {options.pause_ms:g}: must be between 0 and {MAX_PAUSE_MS} ms")
    validate_concurrency(options.concurrency)
    if options.captions_path is not None and options.captions_path.suffix.lower() not in (".srt", ".vtt"):
        raise UsageError(f"--captions {options.captions}: the extension must be .srt or .vtt")


def _reject_batch_options(options: SpeakOptions) -> None:
    """Check that no option for many output files is given. Raises: UsageError."""
    for value, flag in (
        (options.files.output_dir, "-O"),
        (options.files.name_template, "--name"),
        (options.files.force, "--force"),
        (options.files.retry_failed, "--retry-failed"),
        (options.files.fail_fast, "--fail-fast"),
    ):
        if value:
            raise UsageError(
                f"{flag} is for many output files",
                hint="use --split-chapters, or a text with rows: --from jsonl, csv, lines",
            )


def _read_request(
    app: AppContext, console: Console, options: SpeakOptions, format: str
) -> tuple[SpeechSource, SpeechRequest]:
    """Read the text, or the turns of `--option input`. Raises: UsageError, DocumentError."""
    turns, request_fields = parse_turns(options.request_fields or ())
    request = build_request(options, format, request_fields)
    if not turns:
        source = read_source(app, console, options)
        return source, request._replace(text=source.text)
    from ..text.document import create_plain_document
    from ..text.preparation import Preparation

    _validate_turn_options(options)
    text = "\n".join(str(turn["text"]) for turn in turns)
    source = SpeechSource(create_plain_document(text), "text", Preparation(is_raw=True))
    return source, request._replace(text=text, turns=turns)


def build_request(options: SpeakOptions, format: str, request_fields: Sequence[str]) -> SpeechRequest:
    """Return a request without text. `request_fields` are the pairs of `--option`. Raises: UsageError."""
    from ..types.requests import SpeechRequest

    if options.speed is not None:
        validate_speed(options.speed, "--speed")
    provider_options = parse_provider_options(request_fields)
    references = parse_references(options.references)
    return SpeechRequest("", format, options.speed, options.instructions, provider_options, references)


def build_processing(options: SpeakOptions, format: str, console: Console) -> Processing | None:
    """Return the processing of the audio; None if there is none. `format` is that of the output.

    Raises:
        UsageError: A value is out of range.
    """
    sample_rate_hz, loudness_lufs, tempo = options.processing
    if all(value is None for value in options.processing):
        return None
    from ..audio import processing

    for flag, value, minimum, maximum in (
        ("--sample-rate", sample_rate_hz, processing.MIN_SAMPLE_RATE_HZ, processing.MAX_SAMPLE_RATE_HZ),
        ("--loudness", loudness_lufs, processing.MIN_LOUDNESS_LUFS, processing.MAX_LOUDNESS_LUFS),
        ("--tempo", tempo, processing.MIN_TEMPO, processing.MAX_TEMPO),
    ):
        if value is not None and not minimum <= value <= maximum:
            raise UsageError(f"{flag} {value:g}: must be between {minimum:g} and {maximum:g}")
    if sample_rate_hz is not None:
        from ..audio.formats import find_format, find_sample_rate

        output_format = find_format(format)
        rate_hz = sample_rate_hz if output_format is None else find_sample_rate(output_format, sample_rate_hz)
        if rate_hz != sample_rate_hz:
            console.warning(f"--sample-rate {sample_rate_hz}: {format} is written with {rate_hz} Hz")
    return processing.Processing(sample_rate_hz=sample_rate_hz, tempo=tempo, loudness_lufs=loudness_lufs)


def validate_speed(speed: float, name: str) -> None:
    """Check a speaking rate. Raises: UsageError: Out of range."""
    if not 0.25 <= speed <= 4:
        raise UsageError(f"{name} {speed:g}: must be between 0.25 and 4")


def _validate_turn_options(options: SpeakOptions) -> None:
    """Check that nothing contradicts a list of turns, which replaces the text. Raises: UsageError."""
    for value, flag in (
        (options.text, "TEXT"),
        (options.input_file, "-F"),
        (options.text_options.markdown, "--markdown"),
        (options.text_options.from_format, "--from"),
        (options.captions, "--captions"),
        (options.max_characters, "--max-chars"),
        (options.pause_ms, "--pause"),
    ):
        if value:
            raise UsageError(f"{flag} cannot be used with --option input")


def _find_cached_chunks(app: AppContext, plan: SpeakPlan) -> tuple[Chunk, ...]:
    """Return the chunks that earlier runs have paid for, for the first route that has any."""
    if not plan.speech_text.is_long:
        return ()
    from ..core.long_speech import choose_voice
    from ..core.speech_names import compute_chunk_name
    from ..storage.paid_results import PaidResultStore

    store = PaidResultStore(app.scratch_directory("speech"), ".wav")
    for route in plan.routing.routes:
        cached_chunks = tuple(
            chunk
            for chunk in plan.speech_text.chunks
            for name in [compute_chunk_name(plan.request._replace(text=chunk.text), choose_voice(route, chunk))]
            if store.has(name) or (plan.phrases is not None and plan.phrases.has(name))
        )
        if cached_chunks:
            return cached_chunks
    return ()


def _find_remaining_text(app: AppContext, plan: SpeakPlan) -> str:
    """Return the text that is not cached yet, which is the text that will cost something."""
    if not plan.options.resume:
        return plan.speech_text.text
    if not plan.speech_text.is_long and _is_phrase_stored(plan):
        return ""
    cached_chunks = set(_find_cached_chunks(app, plan))
    if not cached_chunks:
        return plan.speech_text.text
    return "".join(chunk.text for chunk in plan.speech_text.chunks if chunk not in cached_chunks)


def _count_cached_chunks(app: AppContext, plan: SpeakPlan) -> int:
    """Return how many chunks earlier runs have paid for."""
    if not plan.options.resume:
        return 0
    return len(_find_cached_chunks(app, plan)) if plan.speech_text.is_long else int(_is_phrase_stored(plan))


def _is_phrase_stored(plan: SpeakPlan) -> bool:
    """Return whether an earlier run has paid for the speech of a text that fits into one request."""
    from ..core.speech import find_phrase

    phrases, processing = plan.phrases, plan.processing
    is_processed = processing is not None and processing.is_active
    return phrases is not None and any(
        find_phrase(plan.request, route, phrases, is_processed=is_processed) is not None
        for route in plan.routing.routes
    )


async def _speak(
    app: AppContext, console: Console, ctx: RunContext, plan: SpeakPlan
) -> tuple[SpeakPlan, SpeechResult, int]:
    """Speak the text and write the captions.

    If a gateway refuses the text as too long and names the maximum, split it and send it again, once. Return the plan
    that was carried out, the result and the number of chunks cached by an earlier run.
    """
    from ..core.speech import TextTooLong
    from ..outputs import MultiOutput

    options = plan.options
    ctx = ctx._replace(budget=plan.budget, retry_policy=plan.retry_policy, tag=plan.tag)
    captions = None if options.captions_path is None else await open_text_file(app, options.captions_path)
    try:
        timeline: list[TimedChunk] = []
        outputs = await open_audio_outputs(
            app,
            plan.destination,
            compute_hash=options.general.as_json,
            processing=plan.processing,
            tags=_choose_tags(plan, timeline),
        )
        output = MultiOutput([audio_output.writer for audio_output in outputs])
        try:
            sent = await _send_text(app, console, ctx, plan, outputs, output, timeline)
        except TextTooLong as error:
            try:
                plan = _split_again(console, plan, error)
            except UsageError:  # a single character exceeds the maximum
                await output.abandon()
                raise error.refusal from error
            sent = await _send_text(app, console, ctx, plan, outputs, output, timeline)
        result, timed_chunks, cached_count = sent
    except BaseException:
        if captions is not None:
            await captions.abandon()
        raise
    if captions is not None and options.captions_path is not None:
        scale = 1.0 if plan.processing is None else plan.processing.scale
        if options.caption_words and result.verification is not None:
            await _write_word_captions(captions, options.captions_path, result.verification.words)
        else:
            await _write_captions(captions, options.captions_path, [timed.scale(scale) for timed in timed_chunks])
    if plan.speech_text.is_long:
        from ..core.reconcile import reconcile_run

        verification_routes = () if plan.verification is None else plan.verification.routes
        routes = (*verification_routes, *plan.routing.routes)
        result = result._replace(run=await reconcile_run(result.run, routes, ctx))
    return plan, result, cached_count


def _choose_tags(plan: SpeakPlan, timeline: Sequence[TimedChunk]) -> Callable[[], AudioTags] | None:
    """Return what builds the tags of a book when its audio is complete; None for a text without them.

    `timeline` then has the positions of the chunks.
    """
    document = plan.source.document
    is_book = plan.source.format in BOOK_FORMATS
    has_chapters = len({chunk.chapter for chunk in plan.speech_text.chunks}) > 1
    if plan.destination.path is None or not (has_chapters or is_book):
        return None
    from ..audio.tags import supports_chapters
    from ..core.book_tags import build_tags

    if not is_book and not supports_chapters(plan.destination.format):
        return None

    scale = 1.0 if plan.processing is None else plan.processing.scale
    return lambda: build_tags(document, timeline, scale=scale)


async def _send_text(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: SpeakPlan,
    outputs: tuple[AudioOutput, ...],
    output: MultiOutput,
    timeline: list[TimedChunk],
) -> tuple[SpeechResult, tuple[TimedChunk, ...], int]:
    """Speak the text in one request, or in chunks. Return the fields of a `LongSpeechResult`.

    Raises:
        TextTooLong: The text can be split into shorter chunks.
    """
    from ..core.speech import SpeechTask, speak

    if plan.speech_text.is_long:
        return await _speak_long(app, console, ctx, plan, outputs, output, timeline)
    task = SpeechTask(
        plan.request,
        outputs,
        output,
        can_split=plan.can_split,
        phrases=plan.phrases,
        resume=plan.options.resume,
    )
    async with console.activity(lambda: f"{plan.routing.routes[0].ref}: speaking"):
        result = await speak(task, plan.routing.routes, plan.routing.skipped, ctx)
    from ..text.timing import TimedChunk

    return result, tuple(TimedChunk(chunk, 0.0, result.duration_s or 0.0) for chunk in plan.speech_text.chunks), 0


def _split_again(console: Console, plan: SpeakPlan, error: TextTooLong) -> SpeakPlan:
    """Split the text by the maximum that a gateway has named.

    Raises:
        UsageError: The text cannot be split into chunks of that length.
    """
    limited = error.route
    routes = tuple(
        route._replace(unsupported=route.unsupported | limited.unsupported) if route.ref == limited.ref else route
        for route in plan.routing.routes
    )
    routing = plan.routing._replace(routes=routes)
    speech_text, request = _split(
        plan.source,
        plan.request,
        routing,
        plan.options,
        console,
        has_chapter_marks=plan.has_chapter_marks,
        refused_chunks=[chunk.text for chunk in plan.speech_text.chunks] or [plan.source.text],
    )
    console.info(f"{error.message}; splitting the text into {len(speech_text.chunks)} chunks")
    return plan._replace(request=request, speech_text=speech_text, routing=routing, can_split=False)


async def _speak_long(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: SpeakPlan,
    outputs: tuple[AudioOutput, ...],
    output: MultiOutput,
    timeline: list[TimedChunk],
) -> LongSpeechResult:
    import asyncio

    from ..core.long_speech import LongSpeechTask, speak_long
    from ..core.progress import SpeechProgress
    from ..storage.paid_results import PaidResultStore
    from .progress import describe_speech

    store = PaidResultStore(app.scratch_directory("speech"), ".wav")
    store.remove_expired()
    progress = SpeechProgress(len(plan.speech_text.chunks) or None)
    task = LongSpeechTask(
        request=plan.request,
        chunks=iterate_chunks(plan.speech_text, console),
        audio_outputs=outputs,
        output=output,
        store=store,
        progress=progress,
        concurrency=plan.options.concurrency,
        pause_ms=plan.options.pause_ms or 0.0,
        is_live=plan.destination.is_live,
        resume=plan.options.resume,
        can_split=plan.can_split,
        phrases=plan.phrases,
        timeline=timeline,
        verification=plan.verification,
    )
    try:
        async with console.activity(lambda: describe_speech(progress, plan.routing.routes[0].ref)):
            result = await speak_long(task, plan.routing.routes, plan.routing.skipped, ctx)
    except asyncio.CancelledError:
        console.info(_format_interruption(app, plan, progress))
        raise
    if result.cached_count:
        console.info(f"{result.cached_count} of {len(result.timed_chunks)} chunks were cached by an earlier run")
    return result


def _format_interruption(app: AppContext, plan: SpeakPlan, progress: SpeechProgress) -> str:
    """Describe what an interrupted run has cached and what the finished chunks cost."""
    from .progress import format_interruption

    cached_chunks = _find_cached_chunks(app, plan)
    cached_count = len(cached_chunks) or progress.done_chunks
    return format_interruption(progress, cached_count, plan.routing.routes, can_resume=plan.options.resume)


async def _write_captions(output: FileOutput | StreamOutput, path: Path, timed_chunks: Sequence[TimedChunk]) -> None:
    """Write one cue for each sentence. Raises: OutputError."""
    from ..text.subtitle_formats import render
    from ..text.timing import time_sentences
    from ..types.transcripts import Transcript

    segments = time_sentences(timed_chunks)
    text = " ".join(segment.text for segment in segments)
    transcript = Transcript(text, duration_s=segments[-1].end_s if segments else None, segments=segments)
    await output.write(render(transcript, path.suffix.lower().removeprefix(".")).encode("utf-8", "replace"))
    await output.commit()


async def _write_word_captions(output: FileOutput | StreamOutput, path: Path, words: Sequence[Word]) -> None:
    """Write a cue for each few words, with the times at which they are heard. Raises: OutputError."""
    from ..text.cues import CaptionLimits
    from ..text.line_breaking import join_words
    from ..text.subtitle_formats import render
    from ..types.transcripts import Transcript

    text = join_words([word.text for word in words])
    transcript = Transcript(text, duration_s=words[-1].end_s if words else None, words=tuple(words))
    limits = CaptionLimits(max_lines=1, words_per_cue=WORDS_PER_CUE)
    content = render(transcript, path.suffix.lower().removeprefix("."), limits=limits, by_word=True)
    await output.write(content.encode("utf-8", "replace"))
    await output.commit()


def _print_voices(app: AppContext, console: Console, query: RouteQuery, timeout_s: float, *, as_json: bool) -> None:
    from ..routing import resolve_first_route

    route = resolve_first_route(query, app.settings.gateways, app.catalog)
    names = list_voices(app, console, route, timeout_s)
    if route.dialect == "local" and not query.models:
        # The name of the voice selects the engine.
        others = [route._replace(model=model) for model in ("piper", "espeak") if model != route.model]
        names += tuple(name for other in others for name in _list_installed_voices(app, console, other, timeout_s))
    if as_json:
        document: dict[str, Json] = {"gateway": route.gateway, "model": route.model, "voices": list(names)}
        console.write_json({"ok": True, "command": "speak", **document})
    else:
        console.write_text("".join(f"{name}\n" for name in names))


def _list_installed_voices(app: AppContext, console: Console, route: Route, timeout_s: float) -> tuple[str, ...]:
    """Return the voices of a local engine; empty if it has none."""
    if route.model == "piper" and not app.piper_voices.list_names():
        return ()
    return list_voices(app, console, route, timeout_s)
