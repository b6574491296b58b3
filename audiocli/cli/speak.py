"""`audiocli speak`: options, validation and output of the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext
from ..errors import UsageError
from . import audio_outputs, inputs, options, speech_input

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..console import Console
    from ..core.audio_pipeline import AudioOutput
    from ..core.long_speech import LongSpeechResult
    from ..core.progress import SpeechProgress
    from ..core.retry_policy import RetryPolicy
    from ..core.run_context import RunContext
    from ..outputs import MultiOutput
    from ..routing import RoutePlan, RouteQuery
    from ..types.json import Json
    from ..types.ledger import Estimate
    from ..types.requests import SpeechRequest
    from ..types.results import SpeechResult
    from .background import BackgroundOptions


def speak(
    ctx: typer.Context,
    text: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Text to speak; - reads from stdin.")
    ] = None,
    input_file: Annotated[
        str | None, typer.Option("--input-file", "-F", metavar="PATH", help="Read the text from this file; - is stdin.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="PATH", help="Output file; - is stdout.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="NAME", help="Output format: mp3 wav flac opus ogg aac m4a pcm."),
    ] = None,
    model: options.Models = None,
    voice: Annotated[
        str | None,
        typer.Option("--voice", "-v", metavar="NAME", help="Voice to use; '?' lists the voices of the model."),
    ] = None,
    speed: Annotated[float | None, typer.Option("--speed", "-x", metavar="N", help="Speaking rate, 0.25 to 4.")] = None,
    instructions: Annotated[
        str | None,
        typer.Option("--instructions", "-i", metavar="TEXT", help="Instructions on tone and style for the model."),
    ] = None,
    option: options.Options = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Read the text as Markdown.")] = False,
    captions: Annotated[
        str | None, typer.Option("--captions", metavar="PATH", help="Also write captions to this .srt or .vtt file.")
    ] = None,
    max_chars: Annotated[
        int | None, typer.Option("--max-chars", metavar="N", help="Maximum chunk length of a long text in characters.")
    ] = None,
    pause: Annotated[
        float | None, typer.Option("--pause", metavar="MS", help="Silence between paragraphs in milliseconds.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", metavar="N", help="Maximum requests in flight.")] = 4,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Use or ignore chunks cached by an unfinished run.")
    ] = True,
    play: Annotated[bool | None, typer.Option("--play/--no-play", help="Play the audio, or never play it.")] = None,
    player: Annotated[str | None, typer.Option("--player", metavar="CMD", help="Player program to use.")] = None,
    background: options.Background = False,
    wait: options.Wait = False,
    gateway: options.Gateway = None,
    base_url: options.BaseUrl = None,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    retry_unknown: options.RetryUnknown = False,
    dry_run: options.DryRun = False,
    max_cost: options.MaxCost = None,
    allow_unpriced: options.AllowUnpriced = False,
    yes: options.Yes = False,
    tag: options.Tag = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Speak text to a file, a pipe or a player."""
    from ..core.retry_policy import RetryPolicy
    from ..core.speech import estimate
    from ..routing import RouteQuery
    from ..types.ledger import Estimate

    app = options.get_app(ctx)
    console = options.build_console(app, is_quiet=quiet or as_json, is_debugging=debug)
    settings = app.settings
    models = options.resolve_models(model, settings.speech_models, gateway)
    for value, flag in (
        (voice, "--voice"),
        (instructions, "--instructions"),
        *((reference, "--model") for reference in models),
    ):
        options.validate_utf8(value, flag)
    query = RouteQuery(
        task="speech",
        models=models,
        gateway=gateway,
        base_url=base_url,
        voice=None if voice == "?" else voice,
        default_voice=settings.speech_voice,
        model_voices=settings.voices,
        model_prices=settings.prices,
    )
    timeout_s = options.validate_timeout(timeout)
    if voice == "?":
        _print_voices(app, console, query, timeout_s, as_json=as_json)
        return
    background_options: BackgroundOptions | None = None
    if background or wait:
        from . import background as background_jobs

        background_options = background_jobs.parse_background_options(
            background, wait, output, play=bool(play) or player is not None
        )
    if background_options is not None and not background_options.wait:
        destination = background_jobs.choose_output(app, background_options, format or None, settings.speech_format)
    else:
        destination = audio_outputs.choose_destination(
            app, output, format or None, settings.speech_format, play=play, player=player
        )
    for warning in destination.warnings:
        console.warning(warning)
    if input_file not in (None, "-"):
        inputs.reject_overwriting_input(Path(str(input_file)), destination.path)
    split_options = speech_input.parse_split_options(max_chars, pause, jobs, captions)
    for path in (destination.path, None if input_file in (None, "-") else Path(str(input_file))):
        if path is not None and split_options.captions_path is not None:
            inputs.reject_overwriting_input(path, split_options.captions_path)
    request, reader = _build_request(
        app,
        console,
        text or [],
        input_file,
        format=destination.format,
        speed=speed,
        instructions=instructions,
        option=option,
        is_markdown=markdown,
    )
    retry_policy = RetryPolicy(retry_unknown=retry_unknown, has_multiple_models=len(models) > 1)
    if background_options is not None:
        query = background_jobs.select_job_gateway(app, query)
    routing = options.resolve_routes(
        app,
        query,
        lambda dialect, route: (
            (background_options and background_jobs.check_job_support(dialect, route))
            or dialect.check_speech(request, route)
        ),
    )
    options.report_routes(console, routing, "using the local engine espeak")
    speech_text = speech_input.split_input_text(request, reader, routing.routes, split_options, console)
    remaining_text = speech_input.find_remaining_text(app, speech_text, request, routing.routes, resume=resume)
    prices = {
        route.ref: Estimate() if speech_text.reader else estimate(remaining_text, route, app.cache)
        for route in routing.routes
    }
    budget = options.resolve_budget(
        app, prices, max_cost=max_cost, allow_unpriced=allow_unpriced, assume_yes=yes, dry_run=dry_run
    )
    plan = SpeakPlan(
        request=request,
        speech_text=speech_text,
        split_options=split_options,
        destination=destination,
        routing=routing,
        retry_policy=retry_policy,
        tag=options.resolve_tag(tag, app),
        resume=resume,
        as_json=as_json,
    )
    if dry_run:
        _print_plan(app, console, plan, prices)
        return
    if background_options is not None and speech_text.is_long:
        if destination.name is None and not destination.players:
            raise UsageError("text is too long for a single job", hint="run without --background to speak it in chunks")
        chunk_count = len(speech_text.chunks) or "several"
        console.info(f"text is too long for a single job; speaking it now in {chunk_count} requests")
    elif background_options is not None:
        app.run(
            lambda run_ctx: background_jobs.submit_speech(
                app, console, budget.apply_to(run_ctx), plan, background_options, as_json=as_json
            ),
            read_timeout_s=timeout_s,
            info=console.info,
            debug=console.debug,
        )
        return
    result, cached_count = app.run(
        lambda run_ctx: _run_speech(app, console, budget.apply_to(run_ctx), plan),
        read_timeout_s=timeout_s,
        info=console.info,
        debug=console.debug,
    )
    if as_json:
        document = _build_document(result, plan, cached_count, [*destination.warnings, *result.warnings])
        (console.result_json if destination.is_stdout else console.write_json)(document)
    else:
        console.info(_format_result(result, destination))


class SpeakPlan(NamedTuple):
    """Validated settings of one `speak` command."""

    request: SpeechRequest
    speech_text: speech_input.SpeechText
    split_options: speech_input.SplitOptions
    destination: audio_outputs.AudioDestination
    routing: RoutePlan
    retry_policy: RetryPolicy
    tag: str | None
    resume: bool
    as_json: bool


def _build_request(
    app: AppContext,
    console: Console,
    words: list[str],
    input_file: str | None,
    *,
    format: str,
    speed: float | None,
    instructions: str | None,
    option: list[str] | None,
    is_markdown: bool,
) -> tuple[SpeechRequest, inputs.TextReader | None]:
    from ..text.speech_rate import has_speakable_text
    from ..types.requests import SpeechRequest

    if speed is not None and not 0.25 <= speed <= 4:
        raise UsageError(f"--speed {speed:g}: must be between 0.25 and 4")
    provider_options = options.parse_provider_options(option)
    text, reader = inputs.read_text(app, words, input_file, wait_for_end=is_markdown)
    if is_markdown:
        from ..text.markdown import markdown_to_speech

        text = markdown_to_speech(text)
    if reader is None and not has_speakable_text(text):
        raise UsageError("no text to speak", hint="pass it as an argument, with -F FILE or on stdin")
    if words and words != ["-"] and len(words) == 1 and len(words[0]) < 200 and _is_file(words[0]):
        console.warning(f"speaking the words {words[0]!r}; use -F {words[0]} to speak the content of that file")
    return SpeechRequest(text, format, speed, instructions, provider_options), reader


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


async def _run_speech(app: AppContext, console: Console, ctx: RunContext, plan: SpeakPlan) -> tuple[SpeechResult, int]:
    """Speak the text and write the captions. Return the result and the number of chunks cached by an earlier run."""
    from ..core.speech import SpeechTask
    from ..core.speech import speak as speak_once
    from ..outputs import MultiOutput

    captions = await speech_input.open_captions(app, plan.split_options)
    try:
        outputs = await audio_outputs.open_outputs(app, plan.destination, compute_hash=plan.as_json)
        output = MultiOutput([audio_output.writer for audio_output in outputs])
        if plan.speech_text.is_long:
            result, chunk_durations, cached_count = await _speak_long(app, console, ctx, plan, outputs, output)
        else:
            task = SpeechTask(plan.request, outputs, output, plan.retry_policy, plan.tag)
            async with console.activity(lambda: f"{plan.routing.routes[0].ref}: speaking"):
                result = await speak_once(task, plan.routing.routes, plan.routing.skipped, ctx)
            chunk_durations = tuple((chunk, result.duration_s or 0.0) for chunk in plan.speech_text.chunks)
            cached_count = 0
    except BaseException:
        if captions is not None:
            await captions.abandon()
        raise
    if captions is not None and plan.split_options.captions_path is not None:
        await speech_input.write_captions(
            captions, plan.split_options.captions_path, chunk_durations, plan.split_options.pause_ms or 0.0
        )
    if plan.speech_text.is_long:
        from ..core.reconcile import reconcile_run

        result = result._replace(run=await reconcile_run(result.run, plan.routing.routes, ctx))
    return result, cached_count


async def _speak_long(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: SpeakPlan,
    outputs: tuple[AudioOutput, ...],
    output: MultiOutput,
) -> LongSpeechResult:
    from ..core.long_speech import LongSpeechTask, speak_long
    from ..core.progress import SpeechProgress
    from ..storage.paid_results import PaidResultStore

    store = PaidResultStore(app.scratch_directory("speech"), ".wav")
    store.remove_expired()
    progress = SpeechProgress(len(plan.speech_text.chunks) or None)
    task = LongSpeechTask(
        request=plan.request,
        chunks=speech_input.iterate_chunks(plan.speech_text),
        audio_outputs=outputs,
        output=output,
        retry_policy=plan.retry_policy,
        store=store,
        progress=progress,
        concurrency=plan.split_options.concurrency,
        pause_ms=plan.split_options.pause_ms or 0.0,
        is_live=plan.destination.is_live,
        resume=plan.resume,
        tag=plan.tag,
    )
    async with console.activity(lambda: _format_progress(progress, plan.routing.routes[0].ref)):
        result = await speak_long(task, plan.routing.routes, plan.routing.skipped, ctx)
    if result.cached_count:
        console.info(f"{result.cached_count} of {len(result.chunk_durations)} chunks were cached by an earlier run")
    return result


def _format_progress(progress: SpeechProgress, ref: str) -> str:
    total = f" of {progress.total_chunks}" if progress.total_chunks else ""
    cost_and_time = options.format_cost_and_time_left(progress)
    return f"{ref}: {progress.done_chunks}{total} chunks, {progress.audio_s:.0f} s of audio{cost_and_time}"


def _print_voices(app: AppContext, console: Console, query: RouteQuery, timeout_s: float, *, as_json: bool) -> None:
    from ..routing import resolve_first_route

    route = resolve_first_route(query, app.settings.gateways, app.catalog)
    names = options.list_voices(app, console, route, timeout_s)
    if as_json:
        document: dict[str, Json] = {"gateway": route.gateway, "model": route.model, "voices": list(names)}
        console.write_json({"ok": True, "command": "speak", **document})
    else:
        console.write_text("".join(f"{name}\n" for name in names))


def _print_plan(app: AppContext, console: Console, plan: SpeakPlan, prices: Mapping[str, Estimate]) -> None:
    from .. import gateways
    from ..text.speech_rate import estimate_duration_s

    request, routes = plan.request, plan.routing.routes
    warnings = (*routes[0].notes, *gateways.load_dialect(routes[0].dialect).get_speech_warnings(request, routes[0]))
    for warning in warnings:
        console.warning(warning)
    cached_count = len(speech_input.find_cached_chunks(app, plan.speech_text, request, routes)) if plan.resume else 0
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
    document = options.build_plan_document(
        "speak", routes, prices, units, [*plan.destination.warnings, *warnings], requests=chunk_count - cached_count
    )
    if plan.as_json:
        console.write_json(document)
        return
    lines = [
        f"requests    {chunk_count - cached_count}"
        + (f" ({cached_count} of {chunk_count} chunks are cached by an earlier run)" if cached_count else ""),
        f"characters  {units['characters']}",
        f"bytes       {units['utf8_bytes']}",
        f"audio       about {units['expected_s']:.0f} s",
        f"price       {options.format_price(prices[routes[0].ref])}",
        *(f"route       {route.ref}" + (f", voice {route.voice}" if route.voice else "") for route in routes),
    ]
    console.write_text("\n".join(lines) + "\n")


def _build_document(result: SpeechResult, plan: SpeakPlan, cached_count: int, warnings: list[str]) -> dict[str, Json]:
    from ..core.result_documents import build_run_document

    destination = plan.destination
    optional: dict[str, Json] = {"kept": cached_count} if plan.speech_text.is_long else {}
    if plan.split_options.captions_path is not None:
        optional["captions"] = str(plan.split_options.captions_path)
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


def _format_result(result: SpeechResult, destination: audio_outputs.AudioDestination) -> str:
    from ..amounts import format_usd
    from ..console import format_size

    run = result.run
    name = destination.name or "played"
    parts = [result.format]
    if result.duration_s is not None:
        parts.append(f"{result.duration_s:.2f} s")
    parts += [format_size(result.size_bytes), run.route.ref + (f" {run.route.voice}" if run.route.voice else "")]
    parts.append("free" if run.cost_nanousd == 0 else f"cost {format_usd(run.cost_nanousd)}")
    return f"{'stdout' if name == '-' else name}: " + ", ".join(parts)
