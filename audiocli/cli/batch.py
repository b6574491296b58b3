"""Run `audiocli transcribe` for several recordings: discovery, budget check and processing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..errors import UsageError
from . import batch_plan, batch_report, discovery, options, transcribe_run

if TYPE_CHECKING:
    from ..console import Console
    from ..core.batch.context import BatchConfig, BatchContext
    from ..core.batch.output_paths import BatchItem
    from ..core.run_context import RunContext
    from ..routing import RoutePlan
    from ..storage.manifest import Manifest
    from ..types.audio import Recording
    from ..types.requests import Timestamps, TranscriptionRequest

DEFAULT_CONCURRENCY = 8
# An estimate for this duration shows whether the price of a route is known.
NOMINAL_DURATION_S = 1.0


class BatchOptions(NamedTuple):
    """Validated settings of a batch.

    `plan` has the settings that all recordings share; its `path` is a placeholder.
    `may_request_timestamps`: `--timestamps` was not given, so timestamps may be requested if they cost nothing.
    """

    plan: transcribe_run.TranscribePlan
    sources: tuple[str, ...]
    files_from: str | None
    discovery_options: discovery.DiscoveryOptions
    formats: tuple[str, ...]
    output_dir: str | None
    may_request_timestamps: bool
    concurrency: int
    force: bool
    retry_failed: bool
    verify_only: bool
    fail_fast: bool


def run(app: AppContext, console: Console, batch_options: BatchOptions, *, read_timeout_s: float) -> int:
    """Run a batch and return its exit code.

    Raises:
        AudiocliError: The batch cannot start. Failures of single items only change the exit code.
    """
    from ..core.batch import output_paths
    from ..storage.manifest import Manifest

    discovered = discovery.find_recordings(
        app, batch_options.sources, batch_options.files_from, batch_options.discovery_options
    )
    if not discovered.recordings and not discovered.unreadable:
        hint = (
            "use -R to search subdirectories"
            if discovered.skipped_directories and not batch_options.discovery_options.recursive
            else None
        )
        raise UsageError("no audio files found", hint=hint)
    items, renamed = output_paths.plan_outputs(
        discovered.recordings,
        batch_options.formats,
        _resolve_output_directory(batch_options.output_dir),
        # The default file systems of macOS and Windows ignore case: A.txt and a.txt are the same file.
        normalize=str.casefold if sys.platform in ("darwin", "win32") else str,
    )
    if renamed:
        names = ", ".join(path.name for path in renamed[:3]) + (" …" if len(renamed) > 3 else "")
        console.info(f"{names}: outputs would have the same name; adding the extensions of the recordings")
    manifest = Manifest(app.records_directory / "manifest.sqlite3", warning=console.info)
    try:
        manifest.open()
        return app.run(
            lambda ctx: _run(app, console, ctx, batch_options, items, discovered, manifest),
            read_timeout_s=read_timeout_s,
            info=console.info,
            debug=console.debug,
        )
    finally:
        manifest.close()


async def _run(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    batch_options: BatchOptions,
    items: Sequence[BatchItem],
    discovered: discovery.DiscoveryResult,
    manifest: Manifest,
) -> int:
    plan = batch_options.plan
    config, routing = _resolve_config(app, console, batch_options)
    with _open_batch_context(app, manifest) as batch_context:
        if batch_options.verify_only:
            return await batch_plan.verify(console, items, config, batch_context, as_json=plan.as_json)
        ctx = _apply_budget(app, ctx, plan.budget, routing)
        if plan.dry_run or (app.settings.budget.confirm is not None and not plan.budget.assume_yes):
            summary = await batch_plan.plan_batch(app, items, config, batch_context)
            if plan.dry_run:
                return batch_plan.print_plan(console, summary, config, as_json=plan.as_json)
            if summary.prices:
                options.confirm_cost(app, next(iter(summary.prices.values())), assume_yes=plan.budget.assume_yes)
        return await _process_items(app, console, ctx, batch_options, items, discovered, config, batch_context)


async def _process_items(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    batch_options: BatchOptions,
    items: Sequence[BatchItem],
    discovered: discovery.DiscoveryResult,
    config: BatchConfig,
    batch_context: BatchContext,
) -> int:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from ..core.batch.worker_pool import WorkerPool
    from ..core.ledger_writer import BatchedLedgerWriter
    from ..core.limiter import LimiterPool
    from ..private_files import remove_abandoned_parts

    removed_count = sum(map(remove_abandoned_parts, {path.parent for item in items for _, path in item.outputs}))
    if removed_count:
        console.info(f"removed {removed_count} unfinished output files of interrupted runs")
    limiter_pool = LimiterPool(ctx, start=batch_options.concurrency)
    ledger_executor = ThreadPoolExecutor(1)
    reporter = batch_report.BatchReporter(app, console, as_json=batch_options.plan.as_json)
    pool = WorkerPool(
        config,
        batch_context,
        ctx._replace(
            limiter=limiter_pool, info=reporter.note, ledger_writer=BatchedLedgerWriter(ctx.ledger, ledger_executor)
        ),
        concurrency=min(batch_options.concurrency, max(1, len(items))),
        on_result=reporter.report_item,
        replan=lambda: _replan_with_chunk_timing(app, console, batch_options, config),
        fail_fast=batch_options.fail_fast,
    )
    for directory, reason in discovered.unreadable:
        reporter.report_unreadable(directory, reason)
    try:
        async with console.activity(lambda: batch_report.format_progress(pool.totals, limiter_pool, ctx.now_s())):
            await pool.run(items)
    except asyncio.CancelledError:
        reporter.report_interruption(pool.totals)
        raise
    finally:
        limiter_pool.close()
        ledger_executor.shutdown(wait=False)
    return reporter.report_summary(pool.totals, pool.stop_error, elapsed_s=ctx.now_s() - pool.totals.started_s)


def _resolve_output_directory(output_dir: str | None) -> Path | None:
    """Return the absolute path of `-O`.

    Raises:
        UsageError: The directory, or its nearest existing parent, is not a writable directory.
    """
    if output_dir is None:
        return None
    directory = Path(os.path.abspath(output_dir))  # noqa: PTH100 - keeps symlinks
    for path in (directory, *directory.parents):
        if os.path.lexists(path):
            if not path.is_dir():
                raise UsageError(f"-O {output_dir}: {path} is not a directory")
            if not os.access(path, os.W_OK | os.X_OK):
                raise UsageError(f"-O {output_dir}: {path} is not writable")
            break
    return directory


@contextmanager
def _open_batch_context(app: AppContext, manifest: Manifest) -> Iterator[BatchContext]:
    from ..core.batch.context import BatchContext
    from ..storage.local import LocalStorage
    from ..storage.paid_results import PaidResultStore

    chunk_store = PaidResultStore(app.scratch_directory("texts"), ".json")
    chunk_store.remove_expired()
    storage = LocalStorage(app.scratch_directory("kept"))
    try:
        yield BatchContext(
            storage=storage,
            state=manifest,
            transcripts=PaidResultStore(app.records_directory / "transcripts", ".json"),
            chunks=chunk_store,
            upload_directory=app.scratch_directory("uploads"),
        )
    finally:
        storage.close()


def _resolve_config(app: AppContext, console: Console, batch_options: BatchOptions) -> tuple[BatchConfig, RoutePlan]:
    """Choose the routes and the request settings that all recordings share.

    Raises:
        AudiocliError: No route can serve the request.
    """
    from .. import gateways
    from ..types.requests import Timestamps

    plan = batch_options.plan
    request = plan.build_request(_placeholder_recording())
    routing, time_by_chunk = transcribe_run.resolve_routing(app, plan, request)
    options.report_routes(console, routing, transcribe_run.LOCAL_FALLBACK_NOTE)
    required_timestamps = request.timestamps
    if batch_options.may_request_timestamps and required_timestamps is Timestamps.NONE:
        # A later run may ask for captions. Request timestamps now if they cost nothing.
        timed_request = request._replace(timestamps=Timestamps.SEGMENT)
        if all(
            gateways.load_dialect(route.dialect).supports_timestamps(timed_request, route) for route in routing.routes
        ):
            request = timed_request
    for route in routing.routes[:1]:
        for warning in (*route.notes, *gateways.load_dialect(route.dialect).get_transcription_warnings(request, route)):
            console.warning(warning)
    if time_by_chunk:
        console.warning(transcribe_run.CHUNK_TIMING_WARNING)
    return _build_config(batch_options, request, routing, required_timestamps, time_by_chunk=time_by_chunk), routing


def _build_config(
    batch_options: BatchOptions,
    request: TranscriptionRequest,
    routing: RoutePlan,
    required_timestamps: Timestamps,
    *,
    time_by_chunk: bool,
) -> BatchConfig:
    from ..core.batch.context import BatchConfig

    plan = batch_options.plan
    return BatchConfig(
        request=request,
        routes=routing.routes,
        skipped=routing.skipped,
        caption_limits=plan.caption_limits,
        by_word=plan.by_word,
        required_timestamps=required_timestamps,
        retry_policy=plan.retry_policy,
        tag=plan.tag,
        time_by_chunk=time_by_chunk,
        max_chunk_s=plan.max_chunk_s,
        split=plan.split,
        carry_context=plan.carry_context,
        concurrency=batch_options.concurrency,
        force=batch_options.force,
        resume=plan.resume,
        retry_failed=batch_options.retry_failed,
    )


def _replan_with_chunk_timing(
    app: AppContext, console: Console, batch_options: BatchOptions, config: BatchConfig
) -> BatchConfig | None:
    """Return a configuration with captions timed by chunk, once no model is left that returns timestamps."""
    request = batch_options.plan.build_request(_placeholder_recording())
    routing = (
        None if config.time_by_chunk else transcribe_run.resolve_chunk_timed_routing(app, batch_options.plan, request)
    )
    if routing is None:
        return None
    console.warning(transcribe_run.CHUNK_TIMING_WARNING)
    return _build_config(batch_options, request, routing, config.required_timestamps, time_by_chunk=True)


def _placeholder_recording() -> Recording:
    """Return a recording that stands for any recording while routes are chosen."""
    from ..types.audio import Recording

    return Recording(Path(), "wav", 0)


def _apply_budget(
    app: AppContext, ctx: RunContext, budget_options: transcribe_run.BudgetOptions, routing: RoutePlan
) -> RunContext:
    """Apply the spending limits to the run. They are checked before each request.

    Raises:
        MoneyError: A spending limit is set, and the price of a route is unknown or above it.
    """
    from ..core.transcription import estimate

    prices = {route.ref: estimate(NOMINAL_DURATION_S, route, app.cache) for route in routing.routes}
    unpriced = {ref: price for ref, price in prices.items() if price.max_nanousd is None}
    budget = options.resolve_budget(
        app,
        unpriced or (prices if budget_options.max_cost_usd is not None else {}),
        max_cost=budget_options.max_cost_usd,
        allow_unpriced=budget_options.allow_unpriced,
        assume_yes=True,
        dry_run=True,
    )
    return budget.apply_to(ctx)
