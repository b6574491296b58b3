"""`audiocli speak`: split the text, choose routes, check the budget, send it, and report the result."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext
from ..errors import UsageError
from .inputs import TextReader, read_text, reject_overwriting_input
from .options import (
    GatewayOptions,
    GeneralOptions,
    JobOptions,
    Models,
    MoneyOptions,
    Output,
    Player,
    RequestFields,
    build_plan_document,
    fetch_default_lists,
    format_cost_and_time_left,
    format_price,
    list_outdated_lists,
    list_voices,
    needs_prices,
    open_app,
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
from .speech_fields import parse_references, parse_turns

if TYPE_CHECKING:
    from ..console import Console
    from ..core.audio_pipeline import AudioOutput
    from ..core.long_speech import LongSpeechResult
    from ..core.progress import SpeechProgress
    from ..core.retry_policy import RetryPolicy
    from ..core.run_context import RunContext
    from ..core.speech import TextTooLong
    from ..errors import AudiocliError
    from ..gateways.base import Dialect
    from ..ledger.budget import RunBudget
    from ..outputs import FileOutput, MultiOutput, StreamOutput
    from ..routing import RoutePlan, RouteQuery
    from ..text.splitter import Chunk, Unit
    from ..types.json import Json
    from ..types.ledger import Estimate
    from ..types.requests import SpeechRequest
    from ..types.results import SpeechResult
    from ..types.routes import Route

# A short first chunk of a long text lets the audio start early.
FIRST_CHUNK_CHARACTERS = 200
# For text from an open pipe, if the limit of the model is unknown.
LIVE_CHUNK_CHARACTERS = 2000
MIN_CHUNK_CHARACTERS = 20
MAX_PAUSE_MS = 60_000


class SpeakOptions(NamedTuple):
    """Options of `audiocli speak`."""

    text: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Text to speak; - reads from stdin.")
    ] = None
    input_file: Annotated[
        str | None, typer.Option("--input-file", "-F", metavar="PATH", help="Read the text from this file; - is stdin.")
    ] = None
    output: Output = None
    format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="NAME", help="Output format: mp3 wav flac opus ogg aac m4a pcm."),
    ] = None
    models: Models = None
    voice: Annotated[
        str | None,
        typer.Option(
            "--voice", "-v", metavar="NAME", help="Voice to use; id:ID is a custom voice, '?' lists the voices."
        ),
    ] = None
    speed: Annotated[float | None, typer.Option("--speed", "-x", metavar="N", help="Speaking rate, 0.25 to 4.")] = None
    instructions: Annotated[
        str | None,
        typer.Option("--instructions", "-i", metavar="TEXT", help="Instructions on tone and style for the model."),
    ] = None
    request_fields: RequestFields = None
    references: Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            metavar="PATH[=TRANSCRIPT]",
            help="Recording of the voice to imitate, and what it says; repeatable up to three times (OpenRouter).",
        ),
    ] = None
    markdown: Annotated[bool, typer.Option("--markdown", help="Read the text as Markdown.")] = False
    captions: Annotated[
        str | None, typer.Option("--captions", metavar="PATH", help="Also write captions to this .srt or .vtt file.")
    ] = None
    max_characters: Annotated[
        int | None, typer.Option("--max-chars", metavar="N", help="Maximum chunk length of a long text in characters.")
    ] = None
    pause_ms: Annotated[
        float | None, typer.Option("--pause", metavar="MS", help="Silence between paragraphs in milliseconds.")
    ] = None
    concurrency: Annotated[int, typer.Option("--jobs", "-j", metavar="N", help="Maximum requests in flight.")] = 4
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Use or ignore chunks cached by an unfinished run.")
    ] = True
    play: Annotated[bool | None, typer.Option("--play/--no-play", help="Play the audio, or never play it.")] = None
    player: Player = None
    job: JobOptions = JobOptions()
    gateway: GatewayOptions = GatewayOptions()
    money: MoneyOptions = MoneyOptions()
    general: GeneralOptions = GeneralOptions()

    @property
    def input_path(self) -> Path | None:
        """The file of `-F`; None if the text comes from the arguments or stdin."""
        return None if self.input_file in (None, "-") else Path(str(self.input_file))

    @property
    def captions_path(self) -> Path | None:
        return None if self.captions is None else Path(self.captions)


class SpeechText(NamedTuple):
    """Text to speak, and its chunks.

    Without chunks and `reader`, the text is sent in one request. With chunks, `text` is what they contain. With
    `reader`, `text` is only the beginning of stdin, not cleaned yet, and chunks are made as the rest arrives.
    `max_chunk_size` is in `unit`.
    """

    text: str
    chunks: tuple[Chunk, ...]
    reader: TextReader | None
    max_chunk_size: int | None
    unit: Unit | None

    @property
    def is_long(self) -> bool:
        """Whether the text needs, or may need, more than one request."""
        return self.reader is not None or len(self.chunks) > 1


class SpeakPlan(NamedTuple):
    """A `speak` command after validation.

    `full_text` is the text before it was split. `can_split`: it may be split again, which is done once.
    """

    options: SpeakOptions
    request: SpeechRequest
    speech_text: SpeechText
    destination: AudioDestination
    routing: RoutePlan
    budget: RunBudget
    retry_policy: RetryPolicy
    tag: str | None
    full_text: str
    can_split: bool


@with_options
def speak(ctx: typer.Context, options: SpeakOptions) -> None:
    """Speak text to a file, a pipe or a player."""
    app, console = open_app(ctx, options.general, quiet_json=True)
    run(app, console, options)


def run(app: AppContext, console: Console, options: SpeakOptions) -> None:
    """Speak a text, submit it as a background job, print the plan of a dry run, or list the voices for `-v ?`.

    Raises:
        AudiocliError: An option is invalid, or the routes, the budget, a request or an output failed.
    """
    from ..core.retry_policy import RetryPolicy
    from ..core.speech import estimate
    from ..gateways.base import check_privacy_options, check_speech_input
    from ..routing import RouteQuery, UnknownVoice
    from ..types.ledger import Estimate

    settings = app.settings
    models = resolve_models(options.models, settings.speech_models, options.gateway.name, settings.aliases)
    for value, flag in (
        (options.voice, "--voice"),
        (options.instructions, "--instructions"),
        *((reference, "--model") for reference in models),
    ):
        validate_utf8(value, flag)
    query = RouteQuery(
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
    timeout_s = validate_timeout(options.gateway.timeout_s)
    if options.voice == "?":
        _print_voices(app, console, query, timeout_s, as_json=options.general.as_json)
        return
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
            app, background_options, options.format or None, settings.speech_format
        )
    else:
        destination = choose_destination(
            app,
            options.output,
            options.format or None,
            settings.speech_format,
            play=options.play,
            player=options.player,
        )
    for warning in destination.warnings:
        console.warning(warning)
    if options.input_path is not None:
        reject_overwriting_input(options.input_path, destination.path)
    _validate_split_options(options)
    for path in (destination.path, options.input_path):
        if path is not None and options.captions_path is not None:
            reject_overwriting_input(path, options.captions_path)
    request, reader = _build_request(app, console, options, destination.format)
    retry_policy = RetryPolicy(retry_unknown=options.money.retry_unknown, has_multiple_models=len(models) > 1)
    if background_options is not None:
        query = background_jobs.select_job_gateway(app, query)
    if _may_use_local_engine(app, query):
        from ..text.language_guess import guess_language

        query = query._replace(language=guess_language(request.text))

    def check_route(dialect: Dialect, route: Route) -> AudiocliError | None:
        job_error = background_jobs.check_job_support(dialect, route) if background_options is not None else None
        return (
            job_error
            or check_privacy_options(request.options, dialect, route)
            or check_speech_input(request, dialect, route)
            or dialect.check_speech(request, route)
        )

    if list_outdated_lists(app, query):
        app.run(
            lambda ctx: fetch_default_lists(app, query, ctx),
            read_timeout_s=timeout_s,
            info=console.info,
            debug=console.debug,
        )
    try:
        routing = resolve_routes(app, query, check_route)
    except UnknownVoice as error:
        unresolved_route = error.route
        if not app.catalog.has_old_list(unresolved_route):
            raise
        app.run(
            lambda ctx: app.catalog.refresh(unresolved_route, ctx),
            read_timeout_s=timeout_s,
            info=console.info,
            debug=console.debug,
        )
        routing = resolve_routes(app, query, check_route)
    report_routes(console, routing, build_local_note(routing))
    speech_text = _split_input_text(request, reader, routing.routes, options, console)
    full_text = request.text
    request = request._replace(text=speech_text.text)
    if needs_prices(app, options.money):
        from ..core.catalog import fetch_missing_prices

        app.run(
            lambda ctx: fetch_missing_prices(routing.routes, ctx),
            read_timeout_s=timeout_s,
            info=console.info,
            debug=console.debug,
        )
    remaining_text = _find_remaining_text(app, speech_text, request, routing.routes, resume=options.resume)
    prices = {
        route.ref: Estimate() if speech_text.reader else estimate(remaining_text, route, app.cache, speed=request.speed)
        for route in routing.routes
    }
    budget = resolve_budget(app, prices, options.money)
    plan = SpeakPlan(
        options=options,
        request=request,
        speech_text=speech_text,
        destination=destination,
        routing=routing,
        budget=budget,
        retry_policy=retry_policy,
        tag=resolve_tag(options.money.tag, app),
        full_text=full_text,
        can_split=speech_text.reader is None and not request.turns,
    )
    if options.money.dry_run:
        _print_plan(app, console, plan, prices)
        return
    if background_options is not None and speech_text.is_long:
        if destination.name is None and not destination.players:
            raise UsageError("text is too long for a single job", hint="run without --background to speak it in chunks")
        chunk_count = len(speech_text.chunks) or "several"
        console.info(f"text is too long for a single job; speaking it now in {chunk_count} requests")
    elif background_options is not None:
        app.run(
            lambda ctx: background_jobs.submit_speech(
                app, console, ctx, plan, background_options, as_json=options.general.as_json
            ),
            read_timeout_s=timeout_s,
            info=console.info,
            debug=console.debug,
        )
        return
    plan, result, cached_count = app.run(
        lambda ctx: _speak(app, console, ctx, plan),
        read_timeout_s=timeout_s,
        info=console.info,
        debug=console.debug,
    )
    if options.general.as_json:
        document = _build_document(result, plan, cached_count, [*destination.warnings, *result.warnings])
        (console.result_json if destination.is_stdout else console.write_json)(document)
    else:
        console.result(*_list_result_parts(result, destination))


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


def _build_request(
    app: AppContext, console: Console, options: SpeakOptions, format: str
) -> tuple[SpeechRequest, TextReader | None]:
    from ..text.cleaning import clean_text
    from ..text.speech_rate import has_speakable_text
    from ..types.requests import SpeechRequest

    if options.speed is not None and not 0.25 <= options.speed <= 4:
        raise UsageError(f"--speed {options.speed:g}: must be between 0.25 and 4")
    turns, request_fields = parse_turns(options.request_fields or ())
    provider_options = parse_provider_options(request_fields)
    references = parse_references(options.references)
    if turns:
        _validate_turn_options(options)
        text = "\n".join(str(turn["text"]) for turn in turns)
        return (
            SpeechRequest(text, format, options.speed, options.instructions, provider_options, references, turns),
            None,
        )
    words = options.text or []
    text, reader = read_text(app, words, options.input_file, wait_for_end=options.markdown)
    if reader is None:
        text = clean_text(text)
    if options.markdown:
        from ..text.markdown import markdown_to_speech

        text = markdown_to_speech(text)
    if reader is None and not has_speakable_text(text):
        raise UsageError("no text to speak", hint="pass it as an argument, with -F FILE or on stdin")
    if words and words != ["-"] and len(words) == 1 and len(words[0]) < 200 and _is_file(words[0]):
        console.warning(f"speaking the words {words[0]!r}; use -F {words[0]} to speak the content of that file")
    return SpeechRequest(text, format, options.speed, options.instructions, provider_options, references), reader


def _validate_turn_options(options: SpeakOptions) -> None:
    """Check that nothing contradicts a list of turns, which replaces the text. Raises: UsageError."""
    for value, flag in (
        (options.text, "TEXT"),
        (options.input_file, "-F"),
        (options.markdown, "--markdown"),
        (options.captions, "--captions"),
        (options.max_characters, "--max-chars"),
        (options.pause_ms, "--pause"),
    ):
        if value:
            raise UsageError(f"{flag} cannot be used with --option input")


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def _split_input_text(
    request: SpeechRequest,
    reader: TextReader | None,
    routes: Sequence[Route],
    options: SpeakOptions,
    console: Console,
    *,
    refused_chunks: Sequence[str] = (),
) -> SpeechText:
    """Split a text into chunks that every route accepts.

    The text stays in one chunk if it is within the limits and neither captions nor pauses need boundaries.
    `refused_chunks` is an earlier split that was too long. The new chunks are shorter than the longest of these.

    Raises:
        UsageError: The text cannot be split into chunks of that length.
    """
    from ..core.speech import encode_text, find_text_limit, is_within_limit

    if request.turns:
        return SpeechText(request.text, (), None, None, None)
    max_chunk_size, unit_name = find_text_limit(routes, options.max_characters)
    if refused_chunks:
        refused_size = max(len(text if unit_name == "characters" else encode_text(text)) for text in refused_chunks)
        # Text with more tokens than estimated is within the limit and was refused all the same.
        if max_chunk_size is None or max_chunk_size >= refused_size:
            max_chunk_size = max(refused_size // 2, 1)
    is_too_long = not is_within_limit(request.text, max_chunk_size, unit_name)
    if reader is None and not (is_too_long or options.captions_path or options.pause_ms):
        return SpeechText(request.text, (), None, max_chunk_size, None)
    # Imported only when needed: loading the splitter takes 20 ms.
    from ..text.splitter import BreakAt, Unit, drop_unspeakable_chunks, split_text

    unit = Unit(unit_name)
    if reader is not None:
        return SpeechText(request.text, (), reader, max_chunk_size, unit)
    if options.captions_path:
        break_at = BreakAt.SENTENCE
    elif options.pause_ms:
        break_at = BreakAt.PARAGRAPH
    else:
        break_at = BreakAt.MAX_SIZE
    chunks = drop_unspeakable_chunks(
        split_text(
            request.text,
            max_chunk_size,
            unit=unit,
            break_at=break_at,
            max_first_size=FIRST_CHUNK_CHARACTERS if is_too_long else None,
        )
    )
    if any(chunk.is_word_split for chunk in chunks):
        console.warning(
            f"parts of the text have no word boundary within {max_chunk_size:,} {unit.value}; splitting inside words"
        )
    return SpeechText("".join(chunk.text for chunk in chunks), chunks, None, max_chunk_size, unit)


def _find_cached_chunks(
    app: AppContext, speech_text: SpeechText, request: SpeechRequest, routes: Sequence[Route]
) -> tuple[Chunk, ...]:
    """Return the chunks that an unfinished run has cached, for the first route that has any."""
    if not speech_text.is_long:
        return ()
    from ..core.long_speech import compute_chunk_name
    from ..storage.paid_results import PaidResultStore

    store = PaidResultStore(app.scratch_directory("speech"), ".wav")
    for route in routes:
        cached_chunks = tuple(
            chunk
            for chunk in speech_text.chunks
            if store.has(compute_chunk_name(request._replace(text=chunk.text), route))
        )
        if cached_chunks:
            return cached_chunks
    return ()


def _find_remaining_text(
    app: AppContext, speech_text: SpeechText, request: SpeechRequest, routes: Sequence[Route], *, resume: bool
) -> str:
    """Return the text that is not cached yet, which is the text that will cost something."""
    cached_chunks = set(_find_cached_chunks(app, speech_text, request, routes)) if resume else set()
    if not cached_chunks:
        return speech_text.text
    return "".join(chunk.text for chunk in speech_text.chunks if chunk not in cached_chunks)


async def _iterate_chunks(speech_text: SpeechText) -> AsyncIterator[Chunk]:
    """Yield the chunks. Those of an open pipe are yielded as soon as they are complete."""
    for chunk in speech_text.chunks:
        yield chunk
    if speech_text.reader is None:
        return
    from ..text.cleaning import StreamCleaner
    from ..text.stream_splitter import StreamSplitter

    assert speech_text.unit is not None
    cleaner = StreamCleaner()
    splitter = StreamSplitter(speech_text.max_chunk_size or LIVE_CHUNK_CHARACTERS, unit=speech_text.unit)
    for chunk in splitter.feed(cleaner.feed(speech_text.text)):
        yield chunk
    while (text := await speech_text.reader.read_more()) is not None:
        for chunk in splitter.feed(cleaner.feed(text)):
            yield chunk
    for chunk in (*splitter.feed(cleaner.finish()), *splitter.finish()):
        yield chunk


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
        outputs = await open_audio_outputs(app, plan.destination, compute_hash=options.general.as_json)
        output = MultiOutput([audio_output.writer for audio_output in outputs])
        try:
            sent = await _send_text(app, console, ctx, plan, outputs, output)
        except TextTooLong as error:
            try:
                plan = _split_again(console, plan, error)
            except UsageError:  # a single character exceeds the maximum
                await output.abandon()
                raise error.refusal from error
            sent = await _send_text(app, console, ctx, plan, outputs, output)
        result, chunk_durations, cached_count = sent
    except BaseException:
        if captions is not None:
            await captions.abandon()
        raise
    if captions is not None and options.captions_path is not None:
        await _write_captions(captions, options.captions_path, chunk_durations, options.pause_ms or 0.0)
    if plan.speech_text.is_long:
        from ..core.reconcile import reconcile_run

        result = result._replace(run=await reconcile_run(result.run, plan.routing.routes, ctx))
    return plan, result, cached_count


async def _send_text(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: SpeakPlan,
    outputs: tuple[AudioOutput, ...],
    output: MultiOutput,
) -> tuple[SpeechResult, tuple[tuple[Chunk, float], ...], int]:
    """Speak the text in one request, or in chunks. Return the fields of a `LongSpeechResult`.

    Raises:
        TextTooLong: The text can be split into shorter chunks.
    """
    from ..core.speech import SpeechTask, speak

    if plan.speech_text.is_long:
        return await _speak_long(app, console, ctx, plan, outputs, output)
    task = SpeechTask(plan.request, outputs, output, can_split=plan.can_split)
    async with console.activity(lambda: f"{plan.routing.routes[0].ref}: speaking"):
        result = await speak(task, plan.routing.routes, plan.routing.skipped, ctx)
    return result, tuple((chunk, result.duration_s or 0.0) for chunk in plan.speech_text.chunks), 0


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
    refused_chunks = [chunk.text for chunk in plan.speech_text.chunks] or [plan.full_text]
    request = plan.request._replace(text=plan.full_text)
    speech_text = _split_input_text(request, None, routes, plan.options, console, refused_chunks=refused_chunks)
    console.info(f"{error.message}; splitting the text into {len(speech_text.chunks)} chunks")
    return plan._replace(
        request=request._replace(text=speech_text.text),
        speech_text=speech_text,
        routing=plan.routing._replace(routes=routes),
        can_split=False,
    )


async def _speak_long(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: SpeakPlan,
    outputs: tuple[AudioOutput, ...],
    output: MultiOutput,
) -> LongSpeechResult:
    import asyncio

    from ..core.long_speech import LongSpeechTask, speak_long
    from ..core.progress import SpeechProgress
    from ..storage.paid_results import PaidResultStore

    store = PaidResultStore(app.scratch_directory("speech"), ".wav")
    store.remove_expired()
    progress = SpeechProgress(len(plan.speech_text.chunks) or None)
    task = LongSpeechTask(
        request=plan.request,
        chunks=_iterate_chunks(plan.speech_text),
        audio_outputs=outputs,
        output=output,
        store=store,
        progress=progress,
        concurrency=plan.options.concurrency,
        pause_ms=plan.options.pause_ms or 0.0,
        is_live=plan.destination.is_live,
        resume=plan.options.resume,
        can_split=plan.can_split,
    )
    try:
        async with console.activity(lambda: _format_progress(progress, plan.routing.routes[0].ref)):
            result = await speak_long(task, plan.routing.routes, plan.routing.skipped, ctx)
    except asyncio.CancelledError:
        console.info(_format_interruption(app, plan, progress))
        raise
    if result.cached_count:
        console.info(f"{result.cached_count} of {len(result.chunk_durations)} chunks were cached by an earlier run")
    return result


def _format_interruption(app: AppContext, plan: SpeakPlan, progress: SpeechProgress) -> str:
    """Describe what an interrupted run has cached and what the finished chunks cost."""
    from ..costs import format_run_cost, sum_costs

    cached_chunks = _find_cached_chunks(app, plan.speech_text, plan.request, plan.routing.routes)
    cached_count = len(cached_chunks) or progress.done_chunks
    total = f" of {progress.total_chunks}" if progress.total_chunks else ""
    text = f"interrupted: {cached_count}{total} chunks are cached"
    if progress.costs:
        text += f", {format_run_cost(*sum_costs(progress.costs))}"
    text += "; requests in progress may be billed"
    if cached_count and plan.options.resume:
        text += "; run the same command again to resume"
    return text


async def _write_captions(
    output: FileOutput | StreamOutput, path: Path, chunk_durations: Sequence[tuple[Chunk, float]], pause_ms: float
) -> None:
    """Write one cue for each sentence, from the chunks and their durations in seconds. Raises: OutputError."""
    from ..text.subtitle_formats import render
    from ..text.timing import time_sentences
    from ..types.transcripts import Transcript

    segments = time_sentences(chunk_durations, pause_s=pause_ms / 1000)
    text = " ".join(segment.text for segment in segments)
    transcript = Transcript(text, duration_s=segments[-1].end_s if segments else None, segments=segments)
    await output.write(render(transcript, path.suffix.lower().removeprefix(".")).encode("utf-8", "replace"))
    await output.commit()


def _format_progress(progress: SpeechProgress, ref: str) -> str:
    total = f" of {progress.total_chunks}" if progress.total_chunks else ""
    cost_and_time = format_cost_and_time_left(progress)
    return f"{ref}: {progress.done_chunks}{total} chunks, {progress.audio_s:.0f} s of audio{cost_and_time}"


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


def _print_plan(app: AppContext, console: Console, plan: SpeakPlan, prices: Mapping[str, Estimate]) -> None:
    from .. import gateways
    from ..text.speech_rate import estimate_duration_s

    request, routes = plan.request, plan.routing.routes
    warnings = (*routes[0].notes, *gateways.load_dialect(routes[0].dialect).get_speech_warnings(request, routes[0]))
    for warning in warnings:
        console.warning(warning)
    cached_count = len(_find_cached_chunks(app, plan.speech_text, request, routes)) if plan.options.resume else 0
    chunk_count = max(1, len(plan.speech_text.chunks))
    units: dict[str, Json] = {
        "pieces": chunk_count,
        "kept": cached_count,
        "characters": len(request.text),
        "utf8_bytes": len(request.text.encode("utf-8", "replace")),
        "expected_s": round(estimate_duration_s(request.text, request.speed), 1),
        "format": plan.destination.format,
        "output": plan.destination.name,
    }
    document = build_plan_document(
        "speak", routes, prices, units, [*plan.destination.warnings, *warnings], requests=chunk_count - cached_count
    )
    if plan.options.general.as_json:
        console.write_json(document)
        return
    lines = [
        f"requests    {chunk_count - cached_count}"
        + (f" ({cached_count} of {chunk_count} chunks are cached by an earlier run)" if cached_count else ""),
        f"characters  {units['characters']}",
        f"bytes       {units['utf8_bytes']}",
        f"audio       about {units['expected_s']:.0f} s",
        f"price       {format_price(prices[routes[0].ref])}",
        *(f"route       {route.ref}" + (f", voice {route.voice}" if route.voice else "") for route in routes),
    ]
    console.write_text("\n".join(lines) + "\n")


def _build_document(result: SpeechResult, plan: SpeakPlan, cached_count: int, warnings: list[str]) -> dict[str, Json]:
    from ..core.result_documents import build_run_document

    destination = plan.destination
    optional: dict[str, Json] = {"kept": cached_count} if plan.speech_text.is_long else {}
    if plan.options.captions_path is not None:
        optional["captions"] = str(plan.options.captions_path)
    return {
        "ok": True,
        "command": "speak",
        "output": destination.name,
        "bytes": result.size_bytes,
        "sha256": result.sha256,
        "format": result.format,
        "duration_s": None if result.duration_s is None else round(result.duration_s, 3),
        **build_run_document(result.run),
        **optional,
        "warnings": list(warnings),
    }


def _list_result_parts(result: SpeechResult, destination: AudioDestination) -> list[str]:
    from ..console import format_route, format_size
    from ..costs import format_run_cost

    run = result.run
    name = destination.name or "played"
    return [
        "stdout" if name == "-" else name,
        "" if result.duration_s is None else f"{result.duration_s:.2f} s",
        result.format,
        format_size(result.size_bytes),
        format_route(run.route.ref, run.route.voice),
        format_run_cost(run.cost_nanousd, run.cost_source),
    ]
