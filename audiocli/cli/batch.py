"""`transcribe` of folders and many recordings: found, planned, run, and told."""

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
    from ..core.batch.output_paths import Task
    from ..core.run_context import RunContext
    from ..routing import Routing
    from ..storage.manifest import Manifest
    from ..types.values import Estimate, Recording, TranscriptionRequest

USUAL_JOBS = 8
# What a price is asked for to learn whether there is one at all.
NOMINAL_S = 1.0


class Batch(NamedTuple):
    """One `transcribe` of many. `job` has what every recording shares, and no recording of its own.

    `may_ask_for_times`: the user left it open whether times are asked for.
    """

    job: transcribe_run.TranscribePlan
    sources: tuple[str, ...]
    files_from: str | None
    search: discovery.DiscoveryOptions
    formats: tuple[str, ...]
    output_dir: str | None
    may_ask_for_times: bool
    jobs: int
    forces: bool
    retries: bool
    verifies: bool
    fails_fast: bool


def run(env: AppContext, screen: Console, batch: Batch, *, silence_s: float) -> int:
    """Do it; give the exit code. Raises: AudiocliError: before anything was begun."""
    from ..core.batch import output_paths
    from ..storage.manifest import Manifest

    finds = discovery.find(env, batch.sources, batch.files_from, batch.search)
    if not finds.recordings and not finds.unreadable:
        hint = "-R looks into folders in folders" if finds.left_out and not batch.search.recursive else None
        raise UsageError("no recordings there", hint=hint)
    tasks, renamed = output_paths.tasks(
        finds.recordings,
        batch.formats,
        _checked_folder(batch.output_dir),
        # The usual file systems there take A.txt and a.txt for one.
        fold=str.casefold if sys.platform in ("darwin", "win32") else str,
    )
    if renamed:
        names = ", ".join(path.name for path in renamed[:3]) + (" …" if len(renamed) > 3 else "")
        screen.info(f"{names}: outputs would have the same name, so they keep the endings of the recordings")
    account = Manifest(env.records_folder / "manifest.sqlite3", tell=screen.info)
    try:
        account.open()
        return env.run(
            lambda tools: _run(env, screen, tools, batch, tasks, finds, account),
            silence_s=silence_s,
            tell=screen.info,
            log=screen.debug,
        )
    finally:
        account.close()


async def _run(
    env: AppContext,
    screen: Console,
    tools: RunContext,
    batch: Batch,
    tasks: Sequence[Task],
    finds: discovery.DiscoveryResult,
    account: Manifest,
) -> int:
    order, routing = _order(env, screen, batch)
    with _site(env, account) as site:
        if batch.verifies:
            return await batch_plan.verify(screen, tasks, order, site, as_json=batch.job.as_json)
        return await _act(env, screen, tools, batch, tasks, finds, order, routing, site)


async def _act(
    env: AppContext,
    screen: Console,
    tools: RunContext,
    batch: Batch,
    tasks: Sequence[Task],
    finds: discovery.DiscoveryResult,
    order: BatchConfig,
    routing: Routing,
    site: BatchContext,
) -> int:
    tools = _allowed(env, tools, batch, routing)
    if batch.job.is_dry or (env.settings.budget.confirm is not None and not batch.job.spending.says_yes):
        survey = await batch_plan.survey(env, tasks, order, site)
        if batch.job.is_dry:
            return batch_plan.plan(screen, survey, order, as_json=batch.job.as_json)
        _confirmed(env, batch, survey.prices)
    return await _work(env, screen, tools, batch, tasks, finds, order, site)


async def _work(
    env: AppContext,
    screen: Console,
    tools: RunContext,
    batch: Batch,
    tasks: Sequence[Task],
    finds: discovery.DiscoveryResult,
    order: BatchConfig,
    site: BatchContext,
) -> int:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from ..core.batch.worker_pool import WorkerPool
    from ..core.ledger_writer import Scribe
    from ..core.limiter import LimiterPool
    from ..private_files import remove_abandoned_parts

    swept = sum(map(remove_abandoned_parts, {target.parent for task in tasks for _, target in task.targets}))
    if swept:
        screen.info(f"{swept} unfinished files of runs that were stopped are removed")
    pacing = LimiterPool(tools, start=batch.jobs)
    thread = ThreadPoolExecutor(1)
    told = batch_report.BatchReporter(env, screen, as_json=batch.job.as_json)
    crew = WorkerPool(
        order,
        site,
        tools._replace(turns=pacing, info=told.aside, scribe=Scribe(tools.ledger, thread)),
        jobs=min(batch.jobs, max(1, len(tasks))),
        tell=told.result,
        replan=lambda: _by_piece(env, screen, batch, order),
        fails_fast=batch.fails_fast,
    )
    for folder, reason in finds.unreadable:
        told.unreadable(folder, reason)
    try:
        async with screen.activity(lambda: batch_report.progress_text(crew.totals, pacing, tools.now_s())):
            await crew.run(tasks)
    except asyncio.CancelledError:
        told.interrupted(crew.totals)
        raise
    finally:
        pacing.close()
        thread.shutdown(wait=False)
    return told.summary(crew.totals, crew.stopped, elapsed_s=tools.now_s() - crew.totals.started_s)


def _checked_folder(output_dir: str | None) -> Path | None:
    """Look at `-O` before anything is done. Raises: UsageError: nothing could be written there."""
    if output_dir is None:
        return None
    folder = Path(os.path.abspath(output_dir))  # noqa: PTH100 - links stay links
    for place in (folder, *folder.parents):
        if os.path.lexists(place):
            if not place.is_dir():
                raise UsageError(f"-O {output_dir}: {place} is no folder")
            if not os.access(place, os.W_OK | os.X_OK):
                raise UsageError(f"-O {output_dir}: {place} cannot be written to")
            break
    return folder


@contextmanager
def _site(env: AppContext, account: Manifest) -> Iterator[BatchContext]:
    from ..core.batch.context import BatchContext
    from ..storage.local import LocalStorage
    from ..storage.paid_results import PaidResultStore

    pieces = PaidResultStore(env.scratch_folder("texts"), ".json")
    pieces.sweep()
    disk = LocalStorage(env.scratch_folder("kept"))
    try:
        yield BatchContext(
            storage=disk,
            account=account,
            kept=PaidResultStore(env.records_folder / "transcripts", ".json"),
            pieces=pieces,
            folder=env.scratch_folder("uploads"),
        )
    finally:
        disk.close()


def _order(env: AppContext, screen: Console, batch: Batch) -> tuple[BatchConfig, Routing]:
    """Choose the routes for all, and what every recording is asked for. Raises: the error of the routes."""
    from .. import gateways
    from ..types.values import Timestamps

    job = batch.job
    request = job.request(_blank())
    routing, by_piece = transcribe_run.routing_of(env, job, request)
    options.announce(screen, routing, "transcribing with the local engine, pocketsphinx (English, rough)")
    needs = request.timestamps
    if batch.may_ask_for_times and needs is Timestamps.NONE:
        # Captions may be wanted later, and times are free where a model gives them with the text.
        timed = request._replace(timestamps=Timestamps.SEGMENT)
        if all(gateways.dialect(route.dialect).gives_times(timed, route) for route in routing.routes):
            request = timed
    for route in routing.routes[:1]:
        for warning in (*route.notes, *gateways.dialect(route.dialect).transcription_warnings(request, route)):
            screen.warning(warning)
    if by_piece:
        _warn_of_pieces(screen)
    return _order_of(batch, request, routing, needs, by_piece=by_piece), routing


def _order_of(batch: Batch, request: TranscriptionRequest, routing: Routing, needs: object, *, by_piece: bool) -> BatchConfig:
    from ..core.batch.context import BatchConfig
    from ..types.values import Timestamps

    assert isinstance(needs, Timestamps)
    job = batch.job
    return BatchConfig(
        request=request,
        routes=routing.routes,
        skipped=routing.skipped,
        shape=job.shape,
        by_word=job.by_word,
        needs=needs,
        policy=job.policy,
        tag=job.tag,
        by_piece=by_piece,
        longest_s=job.longest_s,
        splits=job.splits,
        carries_context=job.carries_context,
        jobs=batch.jobs,
        forces=batch.forces,
        resumes=job.resumes,
        retries=batch.retries,
    )


def _by_piece(env: AppContext, screen: Console, batch: Batch, order: BatchConfig) -> BatchConfig | None:
    """Plan anew when no model gives times after all: captions can still be timed by pieces."""
    request = batch.job.request(_blank())
    routing = None if order.by_piece else transcribe_run.routing_by_piece(env, batch.job, request)
    if routing is None:
        return None
    _warn_of_pieces(screen)
    return _order_of(batch, request, routing, order.needs, by_piece=True)


def _warn_of_pieces(screen: Console) -> None:
    screen.warning("captions are timed by the pieces of the recordings (--strict-timestamps refuses that)")


def _blank() -> Recording:
    """What stands for any recording where routes are chosen."""
    from ..types.values import Recording

    return Recording(Path(), "wav", 0)


def _allowed(env: AppContext, tools: RunContext, batch: Batch, routing: Routing) -> RunContext:
    """Find out what may be spent. A cap of the run holds for each request; what has no price is refused at once.

    Raises: CapReached.
    """
    from ..core.transcription import estimate

    spending = batch.job.spending
    prices = {route.ref: estimate(NOMINAL_S, route, env.cache) for route in routing.routes}
    unpriced = {ref: price for ref, price in prices.items() if price.most_nanousd is None}
    allowance = options.resolve_budget(
        env,
        unpriced or (prices if spending.max_cost is not None else {}),
        max_cost=spending.max_cost,
        allows_unpriced=spending.allows_unpriced,
        says_yes=True,
        is_dry=True,
    )
    return allowance.apply_to(tools)


def _confirmed(env: AppContext, batch: Batch, prices: dict[str, Estimate]) -> None:
    """Ask before something dear. Raises: MoneyError: nobody said yes."""
    if prices:
        options.confirm(env, next(iter(prices.values())), says_yes=batch.job.spending.says_yes)
