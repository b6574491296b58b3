"""Run batch items concurrently.

A failed item does not stop the batch. Errors that would fail every item (no credit, a refused key) stop it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...costs import sum_costs
from ...errors import AttemptError, AudiocliError, ExitCode, GatewayError, ObjectDenied, RoutesExhausted
from ...types.ledger import CostSource
from ...types.routes import Route
from ..limiter import MAX_PAUSE_S
from ..progress import BatchProgress, TranscriptionProgress
from ..run_context import Limiter, RunContext
from .context import BatchConfig, BatchContext
from .executor import Executor, ExecutorLost, ItemSkipped, LocalExecutor
from .item import ItemOutcome, ItemResult
from .output_paths import BatchItem

if TYPE_CHECKING:
    from .object_items import Item, ItemWindows

# How often to check whether another process has finished an item that it claimed.
CLAIM_POLL_INTERVAL_S = 0.25
# One extra worker for this many slots prepares or writes items, so that slots never wait for the disk.
SLOTS_PER_EXTRA_WORKER = 4
# Errors with these codes would fail every item. MONEY includes a ledger that cannot be written.
FATAL_EXIT_CODES = frozenset({ExitCode.MONEY, ExitCode.ACCESS})


@dataclass(slots=True)
class Totals:
    """Counts and costs of a batch.

    `cost_nanousd` is the sum of the known costs. `item_progress` has an entry for each item in progress.
    `is_listing`: more items may follow, so `item_count` is the number of those found so far.
    """

    item_count: int
    started_s: float
    counts: Counter[ItemOutcome] = field(default_factory=Counter)
    audio_s: float = 0.0
    cost_nanousd: int = 0
    cost_source: CostSource = CostSource.COMPUTED
    attempt_count: int = 0
    unknown_cost_count: int = 0
    partial_count: int = 0
    item_progress: list[TranscriptionProgress] = field(default_factory=list)
    progress: BatchProgress = field(default_factory=BatchProgress)
    is_listing: bool = False

    @property
    def done_count(self) -> int:
        return sum(self.counts.values())

    @property
    def done_share(self) -> float | None:
        """The share of the seconds of audio that is done; None while there is no basis for it."""
        return self.progress.compute_done_share(self.item_progress)

    @property
    def total_cost(self) -> tuple[int | None, CostSource]:
        """The cost of the finished items; unknown if that of one of them is unknown."""
        return (None, CostSource.UNKNOWN) if self.unknown_cost_count else (self.cost_nanousd, self.cost_source)

    @property
    def known_spending(self) -> tuple[int, CostSource]:
        """The known costs so far, with those of the finished chunks of recordings in progress."""
        return self._add_costs([cost for progress in self.item_progress for cost in progress.costs])

    @property
    def has_unknown_cost(self) -> bool:
        """Whether an item, or a finished chunk of a recording in progress, has an unknown cost."""
        costs = [cost for progress in self.item_progress for cost, _ in progress.costs]
        return self.unknown_cost_count > 0 or None in costs

    def add(self, result: ItemResult) -> None:
        self.counts[result.outcome] += 1
        self.progress.finish(result.item.source, None if result.run is None else result.duration_s)
        self.partial_count += result.is_partial
        run = result.run
        if run is None:
            return
        self.audio_s += result.duration_s or 0.0
        self.attempt_count += run.attempt_count
        self.unknown_cost_count += run.cost_nanousd is None
        self.cost_nanousd, self.cost_source = self._add_costs([(run.cost_nanousd, run.cost_source)])

    def _add_costs(self, costs: Sequence[tuple[int | None, CostSource]]) -> tuple[int, CostSource]:
        """Return the known costs of the finished items with those in `costs`."""
        known = [cost for cost in costs if cost[0] is not None]
        nanousd, source = sum_costs([(self.cost_nanousd, self.cost_source), *known])
        return nanousd or 0, source


class WorkerPool:
    """Processes items with at most `concurrency` of them sending at a time.

    `on_result` is called with each result as soon as it is complete. `replan` is called when every route has failed;
    it may return a different configuration, because a failed attempt may have shown that a model lacks a feature.
    `executor` processes each item; None does it in this process. `max_items` is the number of items that are prepared,
    sent or written at the same time; None follows from `concurrency`. `stop_error` is the error that stopped the batch.
    Items that were in progress at that time have been finished.
    """

    def __init__(
        self,
        config: BatchConfig,
        batch: BatchContext,
        ctx: RunContext,
        *,
        concurrency: int,
        on_result: Callable[[ItemResult], None],
        replan: Callable[[], BatchConfig | None] = lambda: None,
        fail_fast: bool = False,
        executor: Executor | None = None,
        max_items: int | None = None,
    ) -> None:
        self._config = config
        self._batch = batch
        self._ctx = ctx
        # With fail_fast no item is prepared beyond those that are being sent.
        self._worker_count = concurrency if fail_fast else max_items or count_workers(concurrency)
        self._executor: Executor = LocalExecutor(batch) if executor is None else executor
        self._slots = asyncio.Semaphore(concurrency)
        self._on_result = on_result
        self._replan = replan
        self._fail_fast = fail_fast
        self._deferred: list[Item] = []
        self.totals = Totals(0, ctx.now_s())
        self.stop_error: AudiocliError | None = None
        self._is_stopped = False
        self._queue: _ItemQueue | None = None
        self._workers: set[asyncio.Task[None]] = set()

    def grow(self, max_items: int) -> None:
        """Process more items at the same time from now on. A lower number than before has no effect."""
        if self._fail_fast:
            return
        self._worker_count = max(self._worker_count, max_items)
        if self._queue is not None:
            self._start_workers(self._queue)

    def stop(self) -> None:
        """Start no more items. Those in progress are finished."""
        self._is_stopped = True

    @property
    def _must_stop(self) -> bool:
        return self._is_stopped or self.stop_error is not None

    async def run(self, items: Sequence[Item] | ItemWindows) -> Totals:
        """Process all items. Exceptions other than AudiocliError cancel the items in progress and are raised.

        Items that come in windows are listed while earlier ones are processed. If the listing fails, the batch stops.
        """
        if isinstance(items, Sequence):
            self._add_items(items)
            await self._run_workers(_ItemQueue(_iterate_once(items)))
        else:
            self.totals.is_listing = True
            await self._run_workers(_ItemQueue(aiter(items), self._add_items))
            self.totals.is_listing = False
        while self._deferred and not self._must_stop:
            # Another process, or another item with the same content, holds the claim.
            deferred, self._deferred = self._deferred, []
            await self._run_workers(_ItemQueue(_iterate_once(deferred)))
            if len(self._deferred) == len(deferred):
                await self._ctx.sleep(CLAIM_POLL_INTERVAL_S)
        return self.totals

    def _add_items(self, items: Sequence[Item]) -> None:
        self.totals.item_count += len(items)
        for item in items:
            self.totals.progress.plan(item.source, self._get_size(item))

    def _get_size(self, item: Item) -> int:
        if not isinstance(item.source, Path):
            return 0 if isinstance(item, BatchItem) or item.version is None else item.version.size_bytes
        fingerprint = self._batch.storage.get_fingerprint(item.source)
        return 0 if fingerprint is None else fingerprint.size_bytes

    async def _run_workers(self, items: _ItemQueue) -> None:
        self._queue = items
        self._start_workers(items)
        try:
            while self._workers:
                done, _ = await asyncio.wait(self._workers, return_when=asyncio.FIRST_COMPLETED)
                self._workers -= done
                for worker in done:
                    worker.result()
        except BaseException:
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)
            raise
        finally:
            self._queue = None
            self._workers = set()

    def _start_workers(self, items: _ItemQueue) -> None:
        for _ in range(self._worker_count - len(self._workers)):
            self._workers.add(asyncio.create_task(self._run_worker(items)))

    async def _run_worker(self, items: _ItemQueue) -> None:
        while not self._must_stop:
            try:
                item = await items.take()
            except AudiocliError as error:
                self.stop_error = self.stop_error or error
                return
            if item is None or self._must_stop:
                return
            try:
                result = await self._process_or_replan(item)
            except ItemSkipped:
                return
            except ExecutorLost as lost:
                self.stop_error = self.stop_error or lost.reason
                if lost.item_error is None:
                    return
                result = ItemResult(item, ItemOutcome.FAILED, error=lost.item_error)
            if result.outcome is ItemOutcome.CLAIMED:
                self._deferred.append(item)
                continue
            self.totals.add(result)
            self._on_result(result)
            # Unchanged items never wait for anything; yield so that Ctrl-C is handled.
            await asyncio.sleep(0)

    async def _process_or_replan(self, item: Item) -> ItemResult:
        config = self._config
        try:
            try:
                result = await self._process(item, config)
            except (AttemptError, RoutesExhausted):
                if self._config == config and (replanned := self._replan()) is not None:
                    self._config = replanned
                if self._config == config:
                    raise
                return await self._process(item, self._config)
            if result.is_untimed and self._config == config:
                # The transcript of this item is paid for. Chunks are timed from the next item on.
                self._config = self._replan() or self._config
            return result
        except AudiocliError as error:
            if self.stop_error is None and (self._fail_fast or is_fatal(error)):
                self.stop_error = error
            return ItemResult(item, ItemOutcome.FAILED, error=error)

    async def _process(self, item: Item, config: BatchConfig) -> ItemResult:
        progress = TranscriptionProgress(None, item.source)
        self.totals.item_progress.append(progress)
        slot = _Slot(self.acquire_slot, self._release_slot, self._ctx.limiter)
        try:
            ctx, warnings = self._ctx._replace(limiter=slot).collect_warnings()
            result = await self._executor.process(item, config, ctx, progress=progress, hold_slot=slot.hold)
            return result._replace(warnings=tuple(dict.fromkeys((*result.warnings, *warnings))))
        finally:
            self.totals.item_progress.remove(progress)

    async def acquire_slot(self, *, has_started: bool) -> None:
        """Wait for a slot. Raises: ItemSkipped: the batch has stopped, and no request of the item was sent."""
        await self._slots.acquire()
        if self._must_stop and not has_started:
            self._slots.release()
            raise ItemSkipped

    def _release_slot(self, error: BaseException | None) -> None:
        """Release a slot. Stop the batch first if the error would fail every item and there is no other route."""
        if isinstance(error, AudiocliError) and len(self._config.routes) == 1 and is_fatal(error):
            self.stop_error = self.stop_error or error
        self._slots.release()


class _ItemQueue:
    """Items that come in windows, for several workers. A window is requested when the previous one is used up."""

    def __init__(
        self,
        windows: AsyncIterator[Sequence[Item]],
        on_window: Callable[[Sequence[Item]], None] = lambda window: None,
    ) -> None:
        self._windows = windows
        self._on_window = on_window
        self._items: deque[Item] = deque()
        self._lock = asyncio.Lock()
        self._is_at_end = False

    async def take(self) -> Item | None:
        """Return the next item; None at the end. Raises: AudiocliError: The items cannot be listed."""
        async with self._lock:
            while not self._items and not self._is_at_end:
                self._is_at_end = True  # also if the listing fails
                async for window in self._windows:
                    self._on_window(window)
                    self._items.extend(window)
                    self._is_at_end = False
                    break
            return self._items.popleft() if self._items else None


async def _iterate_once(items: Sequence[Item]) -> AsyncIterator[Sequence[Item]]:
    yield items


class _Slot:
    """The slot of one item. Implements `Limiter`.

    It is acquired for each request, or held while all chunks of a long recording are sent.
    """

    def __init__(
        self,
        acquire_slot: Callable[..., Awaitable[None]],
        release_slot: Callable[[BaseException | None], None],
        limiter: Limiter | None,
    ) -> None:
        self._acquire_slot = acquire_slot
        self._release_slot = release_slot
        self._limiter = limiter
        self._is_held = False
        self._has_started = False

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        await self._acquire_slot(has_started=self._has_started)
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            self._release_slot(None)

    async def acquire(self, route: Route) -> Any:
        if not self._is_held:
            await self._acquire_slot(has_started=self._has_started)
        try:
            permit = None if self._limiter is None else await self._limiter.acquire(route)
        except BaseException as error:
            self._release_unless_held(error)
            raise
        self._has_started = True
        return permit

    def release(
        self, route: Route, permit: Any, headers: Mapping[str, str] | None, error: BaseException | None
    ) -> None:
        try:
            if self._limiter is not None:
                self._limiter.release(route, permit, headers, error)
        finally:
            self._release_unless_held(error)

    def _release_unless_held(self, error: BaseException | None) -> None:
        if not self._is_held:
            self._release_slot(error)


def count_workers(concurrency: int) -> int:
    """Return how many items are in progress for a number of slots: some are prepared or written meanwhile."""
    return concurrency + -(-concurrency // SLOTS_PER_EXTRA_WORKER)


def is_fatal(error: AudiocliError) -> bool:
    """Return whether an error would fail every item: no credit, a refused key, or a gateway with a long pause."""
    if isinstance(error, ObjectDenied):
        return False  # other objects may be accessible
    has_long_pause = isinstance(error, GatewayError) and (error.wait_s or 0.0) > MAX_PAUSE_S
    return has_long_pause or error.exit_code in FATAL_EXIT_CODES
