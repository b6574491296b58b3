"""How `transcribe` is done: the recording looked at, routes chosen, written down whole or in pieces, and told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..errors import AttemptError, AudiocliError, RoutesExhausted
from . import options, transcript_outputs

if TYPE_CHECKING:
    from ..console import Console
    from ..core.chunk_plan import LongTranscription, Plan
    from ..core.progress import HearingProgress
    from ..core.retry_policy import RetryPolicy
    from ..core.run_context import RunContext
    from ..gateways.base import Gateway as Dialect
    from ..routing import Routing, RouteQuery
    from ..text.line_breaking import CaptionLimits
    from ..types.values import Estimate, Json, Recording, Route, TranscriptionResult, TranscriptionRequest
    from .background import BackgroundOptions

MOST_JOBS = 64
USUAL_JOBS = 4


class Spending(NamedTuple):
    """What the user says about money: `--max-cost` in US dollars, `--allow-unpriced`, `--yes`."""

    max_cost: float | None
    allows_unpriced: bool
    says_yes: bool


class TranscribePlan(NamedTuple):
    """One `transcribe`, with all that was decided before the recording is looked at.

    `may_time_by_piece`: captions may be timed by the pieces of the recording where no model gives times.
    """

    path: Path
    name: str
    request: Callable[[Recording], TranscriptionRequest]
    wish: RouteQuery
    targets: transcript_outputs.Targets
    shape: CaptionLimits
    live: transcript_outputs.StreamingOutput
    policy: RetryPolicy
    tag: str | None
    spending: Spending
    longest_s: float | None
    splits: bool
    may_time_by_piece: bool
    carries_context: bool
    jobs: int
    resumes: bool
    is_dry: bool
    as_json: bool
    by_word: bool
    postponed: BackgroundOptions | None = None


async def run(env: AppContext, screen: Console, tools: RunContext, job: TranscribePlan) -> TranscriptionResult | None:
    """Do it, and write the files; None after a dry run. Raises: any AudiocliError."""
    import asyncio

    from ..core.transcription import look_at
    from ..outputs import MultiOutput

    request = job.request(await look_at(job.path, job.name))
    routing, by_piece = routing_of(env, job, request)
    options.announce(screen, routing, "transcribing with the local engine, pocketsphinx (English, rough)")
    prices = _prices(env, routing, request.recording)
    allowance = options.resolve_budget(
        env,
        prices,
        max_cost=job.spending.max_cost,
        allows_unpriced=job.spending.allows_unpriced,
        says_yes=job.spending.says_yes,
        is_dry=job.is_dry,
    )
    tools = allowance.apply_to(tools)
    if job.is_dry:
        await _print_plan(env, screen, tools, job, routing, request, prices, by_piece=by_piece)
        return None
    if job.postponed is not None and await _hand_in(env, screen, tools, job, routing, request, by_piece=by_piece):
        return None
    files = await transcript_outputs.open_files(env, job.targets)
    try:
        try:
            receipt = await _transcribe(env, screen, tools, job, routing, request, by_piece=by_piece)
        except (AttemptError, RoutesExhausted):
            # What was learnt on the way may leave no route with times; captions can still be timed by pieces.
            again = None if by_piece else routing_by_piece(env, job, request)
            if again is None:
                raise
            receipt = await _transcribe(env, screen, tools, job, again, request, by_piece=True)
        await job.live.finish()
        for name, sink in files:
            content = await asyncio.to_thread(
                transcript_outputs.rendered, receipt, name, job.targets, job.shape, by_word=job.by_word
            )
            await sink.write(content)
    except BaseException:
        await MultiOutput([sink for _, sink in files]).abandon()
        raise
    await MultiOutput([sink for _, sink in files]).commit()
    if job.targets.stdout_format is None:
        forget_pieces(env, receipt)
    return receipt


def forget_pieces(env: AppContext, receipt: TranscriptionResult) -> None:
    """Remove what was kept of a transcript that is written now."""
    if receipt.kept_names:
        from ..storage.paid_results import PaidResultStore

        PaidResultStore(env.scratch_folder("texts"), ".json").remove(receipt.kept_names)


async def _hand_in(
    env: AppContext,
    screen: Console,
    tools: RunContext,
    job: TranscribePlan,
    routing: Routing,
    request: TranscriptionRequest,
    *,
    by_piece: bool,
) -> bool:
    """Hand the recording in as a job; False: it is more than one job, or none that would do."""
    from ..core.chunk_plan import needs_cutting
    from . import background

    assert job.postponed is not None
    recording = request.recording
    if by_piece or not background.fits_one_job(recording, routing.routes):
        why = (
            "the captions are timed by pieces" if by_piece else f"{recording.size_bytes:,} bytes are more than one job"
        )
        screen.info(f"{why}: it is written down now, in pieces")
        return False
    if needs_cutting(recording, routing.routes, None):
        screen.info(f"{recording.duration_s or 0:.0f} s are more than is done at once: it goes as one job")
    [format] = [*(name for name, _ in job.targets.files), *filter(None, [job.targets.stdout_format])]
    target = job.targets.files[0][1] if job.targets.files else None
    await background.transcribe(env, screen, tools, job, request, format, target, routing, job.postponed)
    return True


def routing_of(env: AppContext, job: TranscribePlan, request: TranscriptionRequest) -> tuple[Routing, bool]:
    """Choose the routes; the second value tells that captions have to be timed by pieces."""
    try:
        return _routes(env, job, request), False
    except AudiocliError:
        routing = routing_by_piece(env, job, request)
        if routing is None:
            raise
        return routing, True


def routing_by_piece(env: AppContext, job: TranscribePlan, request: TranscriptionRequest) -> Routing | None:
    """Choose routes that give no times, if none is left that does; None: there is no need, or no way."""
    if not job.may_time_by_piece:
        return None
    try:
        _routes(env, job, request)
    except AudiocliError:
        try:
            return _routes(env, job, request._replace(timestamps_required=False))
        except AudiocliError:
            return None
    return None


def _routes(env: AppContext, job: TranscribePlan, request: TranscriptionRequest) -> Routing:
    def refusal(dialect: Dialect, route: Route) -> AudiocliError | None:
        if job.postponed is not None:
            from . import background

            if (without_jobs := background.refusal(dialect, route)) is not None:
                return without_jobs
        return dialect.transcription_refusal(request, route)

    return options.resolve_routes(env, job.wish, refusal)


def _prices(env: AppContext, routing: Routing, recording: Recording) -> dict[str, Estimate]:
    from ..core.transcription import estimate

    return {route.ref: estimate(recording.duration_s, route, env.cache) for route in routing.routes}


async def _transcribe(
    env: AppContext, screen: Console, tools: RunContext, job: TranscribePlan, routing: Routing, request: TranscriptionRequest, *, by_piece: bool
) -> TranscriptionResult:
    from ..core.chunk_plan import needs_cutting, planned
    from ..core.long_transcription import transcribe_long
    from ..core.reconcile import settled
    from ..core.transcription import TranscriptionTask, transcribe

    folder = env.scratch_folder("uploads")
    whole = TranscriptionTask(request, job.policy, folder, job.live.hearing, job.tag)
    routes = routing.routes
    if not by_piece and not (job.splits and needs_cutting(request.recording, routes, job.longest_s)):
        async with screen.activity(lambda: f"{routes[0].ref}: listening"):
            return await transcribe(whole, routes, routing.skipped, tools)
    own: list[str] = []
    if by_piece:
        own.append("captions are timed by the pieces of the recording (--strict-timestamps refuses that)")
    if request.streams:
        own.append("--stream has no effect on a recording that is sent in pieces")
    for warning in own:
        screen.warning(warning)
    long = _long(env, job, whole, by_piece=by_piece)
    async with screen.activity(lambda: _progress_text(long.progress, routes[0])):
        plan = await planned(long, routes, tools, keeps_sound=True)
        receipt = await transcribe_long(long, plan, routes, routing.skipped, tools)
        if len(plan.pieces) > 1:
            receipt = receipt._replace(run=await settled(receipt.run, routes, tools))
        receipt = receipt._replace(warnings=(*own, *receipt.warnings))
    if long.progress.kept:
        screen.info(f"{long.progress.kept} of {len(plan.pieces)} pieces were kept from an earlier run")
    return receipt


def _long(env: AppContext, job: TranscribePlan, whole: object, *, by_piece: bool) -> LongTranscription:
    from ..core.chunk_plan import LongTranscription
    from ..core.progress import HearingProgress
    from ..core.transcription import TranscriptionTask
    from ..core.uploads import UPLOAD_NAME
    from ..private_files import remove_expired_files
    from ..storage.paid_results import EXPIRED_S, PaidResultStore

    assert isinstance(whole, TranscriptionTask)
    stash = PaidResultStore(env.scratch_folder("texts"), ".json")
    stash.sweep()
    remove_expired_files(env.scratch_folder("uploads"), UPLOAD_NAME, EXPIRED_S)  # of runs that were killed
    return LongTranscription(
        whole=whole,
        stash=stash,
        progress=HearingProgress(whole.request.recording.duration_s),
        jobs=job.jobs,
        longest_s=job.longest_s,
        by_piece=by_piece,
        carries_context=job.carries_context,
        resumes=job.resumes,
    )


def _progress_text(progress: HearingProgress, route: Route) -> str:
    if not progress.pieces:
        of = f" of {progress.duration_s:.0f}" if progress.duration_s else ""
        return f"looking for places to cut: {progress.heard_s:.0f}{of} s"
    return f"{route.ref}: {progress.done} of {progress.pieces} pieces{options.spent_and_left(progress)}"


async def _print_plan(
    env: AppContext,
    screen: Console,
    tools: RunContext,
    job: TranscribePlan,
    routing: Routing,
    request: TranscriptionRequest,
    prices: Mapping[str, Estimate],
    *,
    by_piece: bool,
) -> None:
    from .. import gateways
    from ..core.chunk_plan import needs_cutting, planned
    from ..core.transcription import TranscriptionTask

    recording, routes = request.recording, routing.routes
    warnings = (*routes[0].notes, *gateways.dialect(routes[0].dialect).transcription_warnings(request, routes[0]))
    for warning in warnings:
        screen.warning(warning)
    plan: Plan | None = None
    kept, pieces = 0, 1
    if by_piece or (job.splits and needs_cutting(recording, routes, job.longest_s)):
        whole = TranscriptionTask(request, job.policy, env.scratch_folder("uploads"), job.live.hearing, job.tag)
        long = _long(env, job, whole, by_piece=by_piece)
        async with screen.activity(lambda: _progress_text(long.progress, routes[0])):
            plan = await planned(long, routes, tools)
        pieces = len(plan.pieces)
        kept = sum(long.stash.has(name) for name in plan.names) if job.resumes else 0
    units: dict[str, Json] = {
        "format": recording.format,
        "bytes": recording.size_bytes,
        "duration_s": None if recording.duration_s is None else round(recording.duration_s, 3),
        "pieces": pieces,
        "kept": kept,
        "outputs": [str(path) for _, path in job.targets.files],
    }
    document = options.plan_document("transcribe", routes, prices, units, warnings, requests=pieces - kept)
    if job.as_json:
        screen.write_json(document)
        return
    length = "?" if recording.duration_s is None else f"{recording.duration_s:.1f} s"
    lines = [
        f"requests    {pieces - kept}" + (f" ({kept} of {pieces} pieces are kept from an earlier run)" if kept else ""),
        f"audio       {length}, {recording.format}, {recording.size_bytes} bytes",
        f"price       {options.price_text(prices[routes[0].ref])}",
        *(f"route       {route.ref}" for route in routes),
    ]
    screen.write_text("\n".join(lines) + "\n")
