"""`audiocli transcribe` for several recordings: discovery, verification, dry run, budget check and processing."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..core.batch.context import BatchConfig, BatchContext
from ..core.batch.object_items import Item, ItemWindows
from ..core.batch.output_paths import BatchItem, make_relative, plan_named_outputs, plan_outputs
from ..core.batch.status import OutputState
from ..errors import AudiocliError, ExitCode, UsageError
from .batch_report import BatchReporter, describe_progress, format_duration, format_recording_count
from .cluster import open_session, uses_cluster
from .discovery import DirectoryListing, DiscoveryOptions, DiscoveryResult, find_recordings, read_names
from .inputs import is_object
from .options import (
    MoneyOptions,
    build_plan_document,
    confirm_cost,
    fetch_default_lists,
    format_price,
    hint_missing_prices,
    needs_prices,
    report_routes,
    resolve_budget,
)
from .outputs import open_manifest, resolve_output_directory
from .results import build_result_stores, prepare_result_stores
from .transcribe import (
    CHUNK_TIMING_WARNING,
    TranscribeOptions,
    TranscribePlan,
    build_config,
    build_local_note,
    prefer_word_times,
    resolve_chunk_timed_routing,
    resolve_routing,
)

if TYPE_CHECKING:
    from ..console import Console
    from ..core.batch.worker_pool import WorkerPool
    from ..core.run_context import RunContext
    from ..ledger.budget import RunBudget
    from ..storage.manifest import Manifest
    from ..types.json import Json
    from ..types.ledger import Estimate
    from ..types.routes import Route

# An estimate for this duration shows whether the price of a route is known.
NOMINAL_DURATION_S = 1.0


class BatchPlan(NamedTuple):
    """The items of a batch, and what was found. Items of object stores may come in windows."""

    items: Sequence[Item] | ItemWindows
    discovered: DiscoveryResult
    has_objects: bool = False

    @property
    def files(self) -> list[BatchItem]:
        """The items whose recordings and outputs are files."""
        items = self.items if isinstance(self.items, Sequence) else ()
        return [item for item in items if isinstance(item, BatchItem)]


def uses_objects(options: TranscribeOptions, listed: Sequence[str] = ()) -> bool:
    """Return whether a recording or the directory of the transcripts is in an object store."""
    output_dir = options.output_dir or ""
    return any(map(is_object, (*(options.sources or ()), *listed, output_dir)))


async def iterate_items(items: Sequence[Item] | ItemWindows) -> AsyncIterator[Item]:
    """Yield the items of a batch."""
    if isinstance(items, Sequence):
        for item in items:
            yield item
        return
    async for window in items:
        for item in window:
            yield item


class BatchControl:
    """What a caller that runs several batches needs of one: why it stopped, and a way to stop it.

    `run_id` identifies the run for its spending limits; None begins a new one.
    """

    def __init__(self, run_id: str | None = None) -> None:
        self.run_id = run_id
        self.pool: WorkerPool | None = None

    @property
    def stop_error(self) -> AudiocliError | None:
        return self.pool.stop_error if self.pool is not None else None

    def stop(self) -> None:
        """Start no more items. Those in progress are finished."""
        if self.pool is not None:
            self.pool.stop()


def run(app: AppContext, console: Console, plan: TranscribePlan, *, read_timeout_s: float) -> int:
    """Run a batch and return its exit code.

    Raises:
        AudiocliError: The batch cannot start. Failures of single items only change the exit code.
    """
    files_from = plan.options.batch.files_from
    listed = None if files_from is None else read_names(app, files_from)
    if uses_objects(plan.options, listed or ()):
        from . import object_batch

        return object_batch.run(app, console, plan, listed or (), read_timeout_s=read_timeout_s)
    batch_plan = plan_windows(plan) if listed is None else None
    batch_plan = batch_plan or plan_batch(app, console, plan, listed=listed)
    with open_manifest(app, console) as manifest:
        manifest.open()
        return app.run(
            lambda ctx: run_items(app, console, ctx, plan, batch_plan, manifest, BatchControl()),
            read_timeout_s=read_timeout_s,
            info=console.info,
            debug=console.debug,
        )


def plan_batch(
    app: AppContext,
    console: Console,
    plan: TranscribePlan,
    *,
    may_be_empty: bool = False,
    listed: Sequence[str] | None = None,
) -> BatchPlan:
    """Find the recordings of a batch and name their outputs. `listed` are the names of `--files-from`, if it was read.

    Raises:
        UsageError: There are none, a source is missing, or two outputs have one name.
    """
    options = plan.options.batch
    if listed is None:
        listed = () if options.files_from is None else read_names(app, options.files_from)
    discovered = find_recordings(
        plan.options.sources or (),
        listed,
        DiscoveryOptions(options.recursive, tuple(options.include or ()), tuple(options.exclude or ())),
    )
    if not discovered.recordings and not discovered.unreadable and not may_be_empty:
        hint = "use -R to search subdirectories" if discovered.skipped_directories and not options.recursive else None
        raise UsageError("no audio files found", hint=hint)
    output_directory = resolve_output_directory(plan.options.output_dir)
    normalize = get_path_normalizer()
    renamed: list[Path] = []
    if plan.naming is not None:
        items = plan_named_outputs(
            discovered.recordings, plan.formats, output_directory, *plan.naming, normalize=normalize
        )
    else:
        items, renamed = plan_outputs(discovered.recordings, plan.formats, output_directory, normalize=normalize)
    items = [item for item in items if item.outputs]
    if not items and discovered.recordings and not may_be_empty:
        raise UsageError("--embed-captions: none of the recordings is a video", hint="add -f srt for captions")
    if renamed:
        names = ", ".join(path.name for path in renamed[:3]) + (" …" if len(renamed) > 3 else "")
        console.info(f"{names}: outputs would have the same name; adding the extensions of the recordings")
    return BatchPlan(items, discovered)


def plan_windows(plan: TranscribePlan) -> BatchPlan | None:
    """Return a plan for a cluster whose items are listed while the first ones are processed.

    Names are unique within a directory then. Return None if that is not sufficient, or the total must be known.
    """
    options, sources = plan.options, plan.options.sources or ()
    is_checked = options.batch.verify_only or options.money.dry_run
    if not uses_cluster(options.cluster) or is_checked or plan.naming is not None or len(sources) != 1:
        return None
    directory = Path(sources[0])
    if not directory.is_dir():
        return None
    listing = DirectoryListing(
        directory,
        DiscoveryOptions(
            options.batch.recursive, tuple(options.batch.include or ()), tuple(options.batch.exclude or ())
        ),
    )
    if listing.is_empty or listing.unreadable:
        return None  # `plan_batch` reports it
    return BatchPlan(_iterate_windows(plan, listing), DiscoveryResult((), ()))


async def _iterate_windows(plan: TranscribePlan, listing: DirectoryListing) -> AsyncIterator[list[Item]]:
    """Yield the items of each directory.

    Raises:
        RecordingError: A directory cannot be listed. The others are listed before.
    """
    from functools import partial

    from ..errors import RecordingError
    from ..private_files import remove_abandoned_parts
    from ..threads import run_in_thread

    output_directory, normalize = resolve_output_directory(plan.options.output_dir), get_path_normalizer()
    windows = iter(listing)
    while (files := await run_in_thread(partial(next, windows, None))) is not None:
        planned, _ = plan_outputs(files, plan.formats, output_directory, normalize=normalize)
        for directory in {path.parent for item in planned for _, path in item.outputs}:
            remove_abandoned_parts(directory)
        yield [item for item in planned if item.outputs]
    for unreadable, reason in listing.unreadable:
        raise RecordingError(f"{unreadable}: {reason}")


def get_path_normalizer() -> Callable[[str], str]:
    """Return a function that maps names that the file system takes for the same to one key.

    The default file systems of macOS and Windows ignore case: A.txt and a.txt are the same file.
    """
    return str.casefold if sys.platform in ("darwin", "win32") else str


async def run_items(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: TranscribePlan,
    batch_plan: BatchPlan,
    manifest: Manifest,
    control: BatchControl,
) -> int:
    """Bring the outputs of the items up to date, verify them, or print an estimate. Return the exit code.

    Raises:
        AudiocliError: The batch cannot start.
    """
    from ..core.catalog import fetch_missing_prices

    options = plan.options
    items = batch_plan.items
    as_json = options.general.as_json
    await fetch_default_lists(app, plan.query, ctx)
    config = _resolve_config(app, console, plan)
    async with _open_batch_context(
        app,
        manifest,
        has_objects=batch_plan.has_objects,
        results_url=options.results_url,
        is_read_only=options.batch.verify_only or options.money.dry_run,
    ) as batch_context:
        if options.batch.verify_only:
            return await _verify(console, ctx, items, config, batch_context, options.output_dir, as_json=as_json)
        if needs_prices(app, options.money):
            await fetch_missing_prices(config.routes, ctx)
        budget = _resolve_budget(app, options.money, config.routes, control.run_id)
        control.run_id = budget.run_id
        ctx = ctx._replace(budget=budget, retry_policy=plan.retry_policy, tag=plan.tag)
        if options.money.dry_run or (app.settings.budget.confirm is not None and not options.money.assume_yes):
            estimate = await _estimate_batch(app, ctx, items, config, batch_context)
            if options.money.dry_run:
                _print_estimate(console, estimate, config, as_json=as_json)
                route = config.routes[0]
                hint_missing_prices(app, console, route, estimate.prices[route.ref])
                return ExitCode.OK
            if estimate.prices:
                confirm_cost(app, next(iter(estimate.prices.values())), assume_yes=options.money.assume_yes)
        return await _process_items(app, console, ctx, plan, batch_plan, config, batch_context, control)


async def _process_items(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: TranscribePlan,
    batch_plan: BatchPlan,
    config: BatchConfig,
    batch_context: BatchContext,
    control: BatchControl,
) -> int:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from ..core.batch.worker_pool import WorkerPool
    from ..core.ledger_writer import BatchedLedgerWriter
    from ..core.limiter import LimiterPool
    from ..private_files import remove_abandoned_parts

    items, discovered = batch_plan.items, batch_plan.discovered
    known_items = items if isinstance(items, Sequence) else ()
    directories = {path.parent for item in known_items for _, path in item.outputs if isinstance(path, Path)}
    removed_count = sum(map(remove_abandoned_parts, directories))
    if removed_count:
        console.info(f"removed {removed_count} unfinished output files of interrupted runs")
    max_items = max(1, len(items)) if isinstance(items, Sequence) else sys.maxsize
    limiter_pool = LimiterPool(ctx, start=config.concurrency)
    ledger_executor = ThreadPoolExecutor(1)
    reporter = BatchReporter(app, console, as_json=plan.options.general.as_json)
    try:
        async with open_session(app, console, plan, config, ctx, batch_context) as session:
            pool = WorkerPool(
                config,
                batch_context,
                ctx._replace(
                    limiter=limiter_pool,
                    info=reporter.note,
                    ledger_writer=BatchedLedgerWriter(ctx.ledger, ledger_executor),
                ),
                concurrency=min(config.concurrency, max_items),
                on_result=reporter.report_item,
                replan=lambda: _replan_with_chunk_timing(app, console, plan, config),
                fail_fast=plan.options.batch.fail_fast,
                executor=None if session is None else session.executor,
                max_items=None if session is None else min(session.max_items, max_items),
            )
            control.pool = pool
            for directory, reason in discovered.unreadable:
                reporter.report_unreadable(directory, reason)
            try:
                async with console.activity(
                    lambda: describe_progress(
                        pool.totals,
                        limiter_pool,
                        ctx.now_s(),
                        worker_count=None if session is None else session.worker_count,
                    )
                ):
                    if session is None:
                        await pool.run(items)
                    elif await session.run(pool, items, console):
                        reporter.report_interruption(pool.totals, config.routes)
                        return ExitCode.INTERRUPTED
            except asyncio.CancelledError:
                reporter.report_interruption(pool.totals, config.routes)
                raise
    finally:
        limiter_pool.close()
        ledger_executor.shutdown(wait=False)
    return reporter.report_summary(pool.totals, pool.stop_error, elapsed_s=ctx.now_s() - pool.totals.started_s)


@asynccontextmanager
async def _open_batch_context(
    app: AppContext, manifest: Manifest, *, has_objects: bool, results_url: str | None, is_read_only: bool
) -> AsyncIterator[BatchContext]:
    """Open the services of a batch. Raises: AudiocliError: the results of other machines cannot be used."""
    from ..storage.lease_files import LeaseFiles
    from ..storage.local import LocalStorage

    storage = LocalStorage(app.scratch_directory("kept"))
    objects = None
    if has_objects:
        from ..core.batch.object_item import ObjectServices

        objects = ObjectServices(app.object_stores, app.scratch_directory("objects"))
        objects.remove_abandoned()
    stores = build_result_stores(app, results_url)
    await prepare_result_stores(app, stores, is_read_only=is_read_only)
    if stores.directory is not None:
        manifest.shared_claims = claims = LeaseFiles(stores.directory / "claims")
        if not is_read_only:
            claims.check()
    if stores.prefix is not None:
        from ..storage.lease_objects import LeaseObjects

        manifest.shared_claims = LeaseObjects(stores.prefix.join("claims"), app.object_stores)
    try:
        yield BatchContext(
            storage=storage,
            state=manifest,
            transcripts=stores.transcripts,
            chunks=stores.chunks,
            upload_directory=app.scratch_directory("uploads"),
            objects=objects,
        )
    finally:
        storage.close()
        if manifest.shared_claims is not None:
            manifest.shared_claims.close()


def _resolve_config(app: AppContext, console: Console, plan: TranscribePlan) -> BatchConfig:
    """Choose the routes and the request settings that all recordings share.

    Raises:
        AudiocliError: No route can serve the request.
    """
    from .. import gateways
    from ..types.requests import Timestamps

    request = plan.request
    routing, time_by_chunk = resolve_routing(app, plan, request)
    report_routes(console, routing, build_local_note(routing))
    required_timestamps = request.timestamps
    if plan.options.timestamps is None and required_timestamps is Timestamps.NONE:
        # A later run may ask for captions. Request timestamps now if they cost nothing.
        timed_request = request._replace(timestamps=Timestamps.SEGMENT)
        if all(
            gateways.load_dialect(route.dialect).supports_timestamps(timed_request, route) for route in routing.routes
        ):
            request = timed_request
    request = prefer_word_times(plan, request, routing.routes)
    route = routing.routes[0]
    for warning in (*route.notes, *gateways.load_dialect(route.dialect).get_transcription_warnings(request, route)):
        console.warning(warning)
    if time_by_chunk:
        console.warning(CHUNK_TIMING_WARNING)
    return build_config(plan, request, routing, required_timestamps, time_by_chunk=time_by_chunk)


def _replan_with_chunk_timing(
    app: AppContext, console: Console, plan: TranscribePlan, config: BatchConfig
) -> BatchConfig | None:
    """Return a configuration with captions timed by chunk, once no model is left that returns timestamps."""
    routing = None if config.time_by_chunk else resolve_chunk_timed_routing(app, plan, plan.request)
    if routing is None:
        return None
    console.warning(CHUNK_TIMING_WARNING)
    return build_config(plan, plan.request, routing, config.required_timestamps, time_by_chunk=True)


def _resolve_budget(app: AppContext, options: MoneyOptions, routes: Sequence[Route], run_id: str | None) -> RunBudget:
    """Return the spending limits of the run. They are checked before each request.

    Raises:
        MoneyError: A spending limit is set, and the price of a route is unknown or above it.
    """
    from ..core.transcription import estimate
    from ..types.audio import Recording

    nominal = Recording(Path(), "wav", 0, NOMINAL_DURATION_S)
    prices = {route.ref: estimate(nominal, route, app.cache) for route in routes}
    unpriced = {ref: price for ref, price in prices.items() if price.max_nanousd is None}
    checked_prices = unpriced or (prices if options.max_cost_usd is not None else {})
    # The cost is confirmed later, when the recordings are inspected.
    return resolve_budget(app, checked_prices, options._replace(dry_run=True), run_id)


async def _verify(
    console: Console,
    ctx: RunContext,
    items: Sequence[Item] | ItemWindows,
    config: BatchConfig,
    batch_context: BatchContext,
    output_dir: str | None,
    *,
    as_json: bool,
) -> int:
    """Report which outputs are missing or stale, and return the exit code.

    Paths in text are relative if the argument that they follow from, a recording or `-O`, is relative.
    """
    from ..core.batch.object_item import inspect_any_item

    counts = dict.fromkeys(OutputState, 0)
    count = failed = 0
    async for item in iterate_items(items):
        count += 1
        try:
            outputs = (await inspect_any_item(item, config, batch_context, ctx)).outputs
        except AudiocliError as error:
            failed += 1
            if as_json:
                console.write_json({"ok": False, "source": str(item.source), "status": "failed", "why": error.message})
            else:
                console.item_error(str(item.source), error)
            continue
        states = {state for _, state in outputs}
        for _, state in outputs:
            counts[state] += 1
        state_by_path = {str(path): state.value for path, state in outputs}
        if as_json:
            ok = not {OutputState.MISSING, OutputState.STALE} & states
            console.write_json({"ok": ok, "source": str(item.source), "outputs": {**state_by_path}})
        else:
            named = item.source if output_dir is None else Path(output_dir)
            is_relative = isinstance(named, Path) and not named.is_absolute()
            for path, state in outputs:
                if state is not OutputState.CURRENT:
                    is_file = isinstance(path, Path)
                    console.result(make_relative(str(path)) if is_relative and is_file else str(path), state.value)
    is_complete = not (failed or counts[OutputState.MISSING] or counts[OutputState.STALE])
    code = ExitCode.OK if is_complete else ExitCode.PARTIAL
    if as_json:
        summary: dict[str, Json] = {"files": count, **{str(s): n for s, n in counts.items()}, "failed": failed}
        console.write_json({"ok": is_complete, "command": "transcribe", "exit": code, "summary": summary})
    else:
        count_texts = [f"{number} {state.value}" for state, number in counts.items() if number]
        count_texts += [f"{failed} failed"] if failed else []
        console.result(f"outputs of {format_recording_count(count)}: {', '.join(count_texts) or 'none'}")
    return code


class BatchEstimate(NamedTuple):
    """Totals of a dry run. `to_write` counts items that are written from the cache; `prices` has estimates by route."""

    files: int
    to_send: int
    to_write: int
    edited: int
    failed: int
    duration_s: float
    is_duration_exact: bool
    requests: int
    prices: dict[str, Estimate]


async def _estimate_batch(
    app: AppContext,
    ctx: RunContext,
    items: Sequence[Item] | ItemWindows,
    config: BatchConfig,
    batch_context: BatchContext,
) -> BatchEstimate:
    """Inspect every recording and return the totals, without sending a request."""
    from ..core.batch.object_item import inspect_any_item, probe_source
    from ..core.selection import count_requests, estimate_parts, plan_parts
    from ..pricing import sum_estimates

    count = to_send = to_write = edited = failed = requests = 0
    duration_s, is_duration_exact = 0.0, True
    estimates_by_route: dict[str, list[Estimate]] = {route.ref: [] for route in config.routes}
    async for item in iterate_items(items):
        count += 1
        try:
            inspection = await inspect_any_item(item, config, batch_context, ctx, fetch_results=True)
            to_write += inspection.must_write and not inspection.must_send
            edited += any(state is OutputState.EDITED for _, state in inspection.outputs)
            if not inspection.must_send:
                continue
            recording = await probe_source(item, batch_context, ctx, inspection.selection)
            parts = plan_parts(recording, str(item.source))
        except AudiocliError:
            failed += 1
            continue
        to_send += 1
        duration_s += sum(part.duration_s for part in parts)
        is_duration_exact = is_duration_exact and recording.is_duration_exact
        requests += count_requests(parts, config.routes, config.max_chunk_s)
        for route in config.routes:
            estimates_by_route[route.ref].append(estimate_parts(parts, route, app.cache))
    prices = {ref: sum_estimates(estimates) for ref, estimates in estimates_by_route.items()}
    return BatchEstimate(count, to_send, to_write, edited, failed, duration_s, is_duration_exact, requests, prices)


def _print_estimate(console: Console, estimate: BatchEstimate, config: BatchConfig, *, as_json: bool) -> None:
    """Print the result of a dry run."""
    if as_json:
        units: dict[str, Json] = {
            "files": estimate.files,
            "to_send": estimate.to_send,
            "to_write": estimate.to_write,
            "edited": estimate.edited,
            "failed": estimate.failed,
            "audio_s": round(estimate.duration_s, 3),
            "audio_is_exact": estimate.is_duration_exact,
        }
        document = build_plan_document(
            "transcribe", config.routes, estimate.prices, units, (), requests=estimate.requests
        )
        console.write_json(document)
        return
    lines = [
        f"recordings  {estimate.files}: {estimate.to_send} to send, {estimate.to_write} to write without sending"
        + (f", {estimate.edited} edited" if estimate.edited else "")
        + (f", {estimate.failed} unreadable" if estimate.failed else ""),
        f"requests    {estimate.requests}",
        f"audio       {'' if estimate.is_duration_exact else 'about '}{format_duration(estimate.duration_s)}",
        f"price       {format_price(estimate.prices[config.routes[0].ref])}",
        *(f"route       {route.ref}" for route in config.routes),
    ]
    console.write_text("\n".join(lines) + "\n")
