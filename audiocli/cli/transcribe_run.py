"""Run `audiocli transcribe` for one recording: choose routes, check the budget, transcribe and write the outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..errors import AttemptError, AudiocliError, RoutesExhausted
from . import options, transcript_outputs

if TYPE_CHECKING:
    from ..console import Console
    from ..core.progress import TranscriptionProgress
    from ..core.retry_policy import RetryPolicy
    from ..core.run_context import RunContext
    from ..core.transcription import TranscriptionTask
    from ..core.transcription_plan import LongTranscriptionTask
    from ..gateways.base import Dialect
    from ..routing import RoutePlan, RouteQuery
    from ..text.line_breaking import CaptionLimits
    from ..types.audio import Recording
    from ..types.json import Json
    from ..types.ledger import Estimate
    from ..types.requests import TranscriptionRequest
    from ..types.results import TranscriptionResult
    from ..types.routes import Route
    from .background import BackgroundOptions

MAX_CONCURRENCY = 64
DEFAULT_CONCURRENCY = 4
LOCAL_FALLBACK_NOTE = "using the local engine pocketsphinx (English only, low accuracy)"
CHUNK_TIMING_WARNING = (
    "captions are timed by chunk: no model returns timestamps (use --strict-timestamps to fail instead)"
)


class BudgetOptions(NamedTuple):
    """Values of `--max-cost` (US dollars), `--allow-unpriced` and `--yes`."""

    max_cost_usd: float | None
    allow_unpriced: bool
    assume_yes: bool


class TranscribePlan(NamedTuple):
    """Validated settings of one `transcribe` command.

    `allow_chunk_timing`: if no model returns timestamps, each chunk of the recording may become one caption.
    """

    path: Path
    name: str
    build_request: Callable[[Recording], TranscriptionRequest]
    query: RouteQuery
    outputs: transcript_outputs.TranscriptOutputs
    caption_limits: CaptionLimits
    streaming_output: transcript_outputs.StreamingOutput
    retry_policy: RetryPolicy
    tag: str | None
    budget: BudgetOptions
    max_chunk_s: float | None
    split: bool
    allow_chunk_timing: bool
    carry_context: bool
    concurrency: int
    resume: bool
    dry_run: bool
    as_json: bool
    by_word: bool
    background: BackgroundOptions | None = None


async def run(app: AppContext, console: Console, ctx: RunContext, plan: TranscribePlan) -> TranscriptionResult | None:
    """Transcribe one recording and write its output files.

    Return None after a dry run and after the submission of a background job.

    Raises:
        AudiocliError: The recording, the routes, the budget or an output failed.
    """
    import asyncio

    from ..core.transcription import probe_recording
    from ..outputs import MultiOutput

    request = plan.build_request(await probe_recording(plan.path, plan.name))
    routing, time_by_chunk = resolve_routing(app, plan, request)
    options.report_routes(console, routing, LOCAL_FALLBACK_NOTE)
    prices = _estimate_costs(app, routing, request.recording)
    budget = options.resolve_budget(
        app,
        prices,
        max_cost=plan.budget.max_cost_usd,
        allow_unpriced=plan.budget.allow_unpriced,
        assume_yes=plan.budget.assume_yes,
        dry_run=plan.dry_run,
    )
    ctx = budget.apply_to(ctx)
    if plan.dry_run:
        await _print_plan(app, console, ctx, plan, routing, request, prices, time_by_chunk=time_by_chunk)
        return None
    if plan.background is not None and await _submit_job(
        app, console, ctx, plan, routing, request, time_by_chunk=time_by_chunk
    ):
        return None
    files = await transcript_outputs.open_files(app, plan.outputs)
    try:
        try:
            result = await _transcribe(app, console, ctx, plan, routing, request, time_by_chunk=time_by_chunk)
        except (AttemptError, RoutesExhausted):
            # The capability cache may now exclude every route with timestamps. Captions can still be timed by chunk.
            chunk_timed_routing = None if time_by_chunk else resolve_chunk_timed_routing(app, plan, request)
            if chunk_timed_routing is None:
                raise
            result = await _transcribe(app, console, ctx, plan, chunk_timed_routing, request, time_by_chunk=True)
        await plan.streaming_output.finish()
        for format, output in files:
            content = await asyncio.to_thread(
                transcript_outputs.render_transcript,
                result,
                format,
                plan.outputs,
                plan.caption_limits,
                by_word=plan.by_word,
            )
            await output.write(content)
    except BaseException:
        await MultiOutput([output for _, output in files]).abandon()
        raise
    await MultiOutput([output for _, output in files]).commit()
    if plan.outputs.stdout_format is None:
        remove_cached_chunks(app, result)
    return result


def remove_cached_chunks(app: AppContext, result: TranscriptionResult) -> None:
    """Remove the cached chunks of a transcript that is completely written."""
    if result.chunk_names:
        from ..storage.paid_results import PaidResultStore

        PaidResultStore(app.scratch_directory("texts"), ".json").remove(result.chunk_names)


async def _submit_job(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: TranscribePlan,
    routing: RoutePlan,
    request: TranscriptionRequest,
    *,
    time_by_chunk: bool,
) -> bool:
    """Submit the recording as a background job.

    Return False if one job is not possible: the recording exceeds the upload limit, or captions are timed by chunk.
    """
    from ..core.transcription_plan import must_split
    from . import background

    assert plan.background is not None
    recording = request.recording
    if time_by_chunk or not background.is_within_upload_limit(recording, routing.routes):
        reason = (
            "captions are timed by chunk"
            if time_by_chunk
            else f"recording of {recording.size_bytes:,} bytes exceeds the upload limit of a job"
        )
        console.info(f"{reason}; transcribing it now in chunks")
        return False
    if must_split(recording, routing.routes, None):
        duration = f"{recording.duration_s or 0:.0f} s"
        console.info(f"recording of {duration} is longer than the synchronous limit; submitting it as one job")
    [format] = [*(name for name, _ in plan.outputs.files), *filter(None, [plan.outputs.stdout_format])]
    output_path = plan.outputs.files[0][1] if plan.outputs.files else None
    await background.submit_transcription(
        app, console, ctx, plan, request, format, output_path, routing, plan.background
    )
    return True


def resolve_routing(app: AppContext, plan: TranscribePlan, request: TranscriptionRequest) -> tuple[RoutePlan, bool]:
    """Choose the routes, and return whether captions must be timed by chunk.

    Raises:
        AudiocliError: No route can serve the request.
    """
    try:
        return _resolve_routes(app, plan, request), False
    except AudiocliError:
        routing = resolve_chunk_timed_routing(app, plan, request)
        if routing is None:
            raise
        return routing, True


def resolve_chunk_timed_routing(
    app: AppContext, plan: TranscribePlan, request: TranscriptionRequest
) -> RoutePlan | None:
    """Choose routes without timestamps if no route returns them.

    Return None if a route returns timestamps, or if no route is left at all.
    """
    if not plan.allow_chunk_timing:
        return None
    try:
        _resolve_routes(app, plan, request)
    except AudiocliError:
        try:
            return _resolve_routes(app, plan, request._replace(timestamps_required=False))
        except AudiocliError:
            return None
    return None


def _resolve_routes(app: AppContext, plan: TranscribePlan, request: TranscriptionRequest) -> RoutePlan:
    def check_route(dialect: Dialect, route: Route) -> AudiocliError | None:
        if plan.background is not None:
            from . import background

            if (error := background.check_job_support(dialect, route)) is not None:
                return error
        return dialect.check_transcription(request, route)

    return options.resolve_routes(app, plan.query, check_route)


def _estimate_costs(app: AppContext, routing: RoutePlan, recording: Recording) -> dict[str, Estimate]:
    from ..core.transcription import estimate

    return {route.ref: estimate(recording.duration_s, route, app.cache) for route in routing.routes}


async def _transcribe(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: TranscribePlan,
    routing: RoutePlan,
    request: TranscriptionRequest,
    *,
    time_by_chunk: bool,
) -> TranscriptionResult:
    from ..core.long_transcription import transcribe_long
    from ..core.reconcile import reconcile_run
    from ..core.transcription import transcribe
    from ..core.transcription_plan import build_chunk_plan, must_split

    task = _build_task(app, plan, request)
    routes = routing.routes
    if not time_by_chunk and not (plan.split and must_split(request.recording, routes, plan.max_chunk_s)):
        async with console.activity(lambda: f"{routes[0].ref}: transcribing"):
            return await transcribe(task, routes, routing.skipped, ctx)
    warnings: list[str] = []
    if time_by_chunk:
        warnings.append(CHUNK_TIMING_WARNING)
    if request.stream:
        warnings.append("--stream has no effect on a recording that is sent in chunks")
    for warning in warnings:
        console.warning(warning)
    long_task = _build_long_task(app, plan, task, time_by_chunk=time_by_chunk)
    async with console.activity(lambda: _format_progress(long_task.progress, routes[0])):
        chunk_plan = await build_chunk_plan(long_task, routes, ctx, spool_audio=True)
        result = await transcribe_long(long_task, chunk_plan, routes, routing.skipped, ctx)
        if len(chunk_plan.chunks) > 1:
            result = result._replace(run=await reconcile_run(result.run, routes, ctx))
        result = result._replace(warnings=(*warnings, *result.warnings))
    if long_task.progress.cached_chunks:
        console.info(
            f"{long_task.progress.cached_chunks} of {len(chunk_plan.chunks)} chunks were cached by an earlier run"
        )
    return result


def _build_task(app: AppContext, plan: TranscribePlan, request: TranscriptionRequest) -> TranscriptionTask:
    from ..core.transcription import TranscriptionTask

    directory = app.scratch_directory("uploads")
    return TranscriptionTask(request, plan.retry_policy, directory, plan.streaming_output.text_stream, plan.tag)


def _build_long_task(
    app: AppContext, plan: TranscribePlan, task: TranscriptionTask, *, time_by_chunk: bool
) -> LongTranscriptionTask:
    from ..core.progress import TranscriptionProgress
    from ..core.transcription_plan import LongTranscriptionTask
    from ..core.uploads import UPLOAD_NAME
    from ..private_files import remove_expired_files
    from ..storage.paid_results import MAX_AGE_S, PaidResultStore

    store = PaidResultStore(app.scratch_directory("texts"), ".json")
    store.remove_expired()
    remove_expired_files(app.scratch_directory("uploads"), UPLOAD_NAME, MAX_AGE_S)  # left by killed runs
    return LongTranscriptionTask(
        transcription=task,
        store=store,
        progress=TranscriptionProgress(task.request.recording.duration_s),
        concurrency=plan.concurrency,
        max_chunk_s=plan.max_chunk_s,
        time_by_chunk=time_by_chunk,
        carry_context=plan.carry_context,
        resume=plan.resume,
    )


def _format_progress(progress: TranscriptionProgress, route: Route) -> str:
    if not progress.total_chunks:
        total = f" of {progress.duration_s:.0f}" if progress.duration_s else ""
        return f"finding split points: {progress.decoded_s:.0f}{total} s"
    cost_and_time = options.format_cost_and_time_left(progress)
    return f"{route.ref}: {progress.done_chunks} of {progress.total_chunks} chunks{cost_and_time}"


async def _print_plan(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: TranscribePlan,
    routing: RoutePlan,
    request: TranscriptionRequest,
    prices: Mapping[str, Estimate],
    *,
    time_by_chunk: bool,
) -> None:
    from .. import gateways
    from ..core.transcription_plan import build_chunk_plan, must_split

    recording, routes = request.recording, routing.routes
    warnings = (
        *routes[0].notes,
        *gateways.load_dialect(routes[0].dialect).get_transcription_warnings(request, routes[0]),
    )
    for warning in warnings:
        console.warning(warning)
    cached_count, chunk_count = 0, 1
    if time_by_chunk or (plan.split and must_split(recording, routes, plan.max_chunk_s)):
        long_task = _build_long_task(app, plan, _build_task(app, plan, request), time_by_chunk=time_by_chunk)
        async with console.activity(lambda: _format_progress(long_task.progress, routes[0])):
            chunk_plan = await build_chunk_plan(long_task, routes, ctx)
        chunk_count = len(chunk_plan.chunks)
        cached_count = sum(long_task.store.has(name) for name in chunk_plan.chunk_names) if plan.resume else 0
    units: dict[str, Json] = {
        "format": recording.format,
        "bytes": recording.size_bytes,
        "duration_s": None if recording.duration_s is None else round(recording.duration_s, 3),
        "pieces": chunk_count,
        "kept": cached_count,
        "outputs": [str(path) for _, path in plan.outputs.files],
    }
    document = options.build_plan_document(
        "transcribe", routes, prices, units, warnings, requests=chunk_count - cached_count
    )
    if plan.as_json:
        console.write_json(document)
        return
    duration = "unknown length" if recording.duration_s is None else f"{recording.duration_s:.1f} s"
    lines = [
        f"requests    {chunk_count - cached_count}"
        + (f" ({cached_count} of {chunk_count} chunks are cached by an earlier run)" if cached_count else ""),
        f"audio       {duration}, {recording.format}, {recording.size_bytes} bytes",
        f"price       {options.format_price(prices[routes[0].ref])}",
        *(f"route       {route.ref}" for route in routes),
    ]
    console.write_text("\n".join(lines) + "\n")
