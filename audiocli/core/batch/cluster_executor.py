"""Process the items of a batch on the workers of a cluster.

This process keeps all that must exist once: the ledger and the spending limits, the slots and the limiters of the
gateways, the manifest, and who may send an item. A worker calls it before each request (`reserve`) and reports the
outcome (`settle`), so limits are exact and what is known about a lost worker is complete. See docs/adr/0016.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple

from ...cluster import Cluster, Message, SchedulerLost, WorkerLost
from ...costs import sum_costs
from ...errors import (
    MAY_BE_BILLED,
    AudiocliError,
    ClusterError,
    MoneyError,
    OutputError,
    ResponseInterrupted,
)
from ...ledger.budget import SpendingLimit
from ...storage.manifest import FailureRecord, FileFingerprint, OutputRecord
from ...storage.paid_results import PaidResultStore
from ...types.ledger import CostSource, Outcome, Reservation, Settlement
from ...types.objects import Location, ObjectUrl
from ...types.results import RunResult
from ...types.routes import Route
from ..ledger_writer import reserve, settle, sum_spending
from ..progress import TranscriptionProgress
from ..run_context import Limiter, RunContext
from .cluster_task import ClaimReply, ItemReport, ItemTask, SendingTaken, map_result_routes, serialize_config
from .context import BatchConfig, BatchContext
from .executor import ExecutorLost, ItemSkipped
from .item import ItemOutcome, ItemResult
from .object_item import inspect_any_item, process_any_item
from .object_items import Item, ObjectItem
from .output_paths import make_absolute
from .status import ItemStatus, compute_transcript_name, inspect_item

# An item that had not begun to send is submitted again until this number of workers was lost with it, because a
# recording can be what ends them. Dask itself tries four, unless the scheduler has another setting.
MAX_LOST_WORKERS = 3
# Outcomes of requests that a gateway does not charge for.
UNBILLED_OUTCOMES = frozenset({Outcome.UNSENT, Outcome.REFUSED})
UNSENT = Settlement(Outcome.UNSENT, 0, CostSource.COMPUTED)
LOST_WORKER_MESSAGE = "worker lost; outcome unknown"


class ClusterExecutor:
    """Sends items to workers and answers their messages. Implements `Executor` and `cluster.MessageHandler`.

    `shares_results`: all workers read and write the store of paid results of this process.
    """

    def __init__(
        self,
        cluster: Cluster,
        batch: BatchContext,
        *,
        shares_results: bool,
    ) -> None:
        self._cluster = cluster
        self.batch = batch
        self.shares_results = shares_results
        self._numbers = itertools.count()
        self._runs: dict[int, _ItemRun] = {}
        self._config: tuple[BatchConfig, bytes] | None = None

    async def process(
        self,
        item: Item,
        config: BatchConfig,
        ctx: RunContext,
        *,
        progress: TranscriptionProgress,
        hold_slot: Callable[[], AbstractAsyncContextManager[None]],
    ) -> ItemResult:
        known = await self._inspect(item, config, ctx)
        if known.is_done:
            # Nothing has to be read, sent or written.
            return await process_any_item(item, config, self.batch, ctx, progress=progress, hold_slot=hold_slot)
        number = next(self._numbers)
        run = self.add_run(number, item, config, ctx)
        try:
            task = self._build_task(item, config, known)
            result = await run.finish(await self._run_task(number, run, task))
            if result.outcome is ItemOutcome.EDITED and not task.has_unknown_outputs:
                # Another client may have written the outputs after the manifest was read.
                task = self._build_task(item, config, known)
                if task.has_unknown_outputs or task.outputs:
                    result = await run.finish(await self._run_task(number, run, task))
        except asyncio.CancelledError:
            await run.close(Settlement(Outcome.CANCELLED, error="interrupted"))
            raise
        else:
            return result
        finally:
            del self._runs[number]
            await run.close(Settlement(Outcome.UNKNOWN, error=LOST_WORKER_MESSAGE))

    def add_run(self, number: int, item: Item, config: BatchConfig, ctx: RunContext) -> _ItemRun:
        """Handle the messages of the task `number` from now on."""
        run = self._runs[number] = _ItemRun(self, item, config, ctx)
        return run

    async def _run_task(self, number: int, run: _ItemRun, task: ItemTask) -> ItemReport:
        payload = pickle.dumps(task)
        lost_count = 0
        while True:
            try:
                report = pickle.loads(await self._cluster.run(number, payload))
            except SchedulerLost as error:
                lost = ClusterError("lost the connection to the scheduler", hint="run the same command again to resume")
                raise ExecutorLost(lost, run.record_loss("the scheduler was lost")) from error
            except WorkerLost as error:
                if (item_error := run.record_loss("its worker was lost")) is not None:
                    raise item_error from error
                lost_count += error.count
                if lost_count >= MAX_LOST_WORKERS:
                    raise ClusterError(
                        f"{lost_count} workers ended while they processed the recording",
                        hint="start workers with a nanny, which replaces them",
                    ) from error
                run.restart()
                continue
            assert isinstance(report, ItemReport)
            return report

    async def _inspect(self, item: Item, config: BatchConfig, ctx: RunContext) -> _KnownState:
        """Return what is known about an item without reading its source."""
        if isinstance(item, ObjectItem):
            inspection = await inspect_any_item(item, config, self.batch, ctx)
            return _KnownState(is_done=not inspection.must_write)
        fingerprint = self.batch.storage.get_fingerprint(item.source)
        if fingerprint is None:
            return _KnownState(is_done=True)  # it is missing, which is reported here
        content_hash = await self.batch.state.get_content_hash(make_absolute(item.source), fingerprint)
        if content_hash is None:
            return _KnownState()
        status = await inspect_item(item, config, self.batch)
        return _KnownState((fingerprint, content_hash), status, is_done=not status.outputs_to_write)

    def _build_task(self, item: Item, config: BatchConfig, known: _KnownState) -> ItemTask:
        status = known.status
        if self._config is None or self._config[0] is not config:
            self._config = config, serialize_config(config)
        absolute = _make_item_absolute(item)
        outputs, has_unknown_outputs = {}, False
        for _, location in absolute.outputs:
            record = self.batch.state.get_output(_get_state_key(location))
            if record is not None:
                outputs[os.fsencode(_get_state_key(location))] = record
            elif isinstance(location, ObjectUrl) or self.batch.storage.get_fingerprint(location) is not None:
                has_unknown_outputs = True
        results = {}
        if status is not None and status.cached is not None and not self.shares_results:
            content = self.batch.transcripts.read(status.cached_name)
            results = {} if content is None else {status.cached_name: content}
        return ItemTask(absolute, self._config[1], known.source, outputs, results, has_unknown_outputs)

    # --- messages ----------------------------------------------------------------------------------------------------

    def receive(self, message: Message) -> Awaitable[object] | None:
        run = self._runs.get(message.task)
        if run is None:
            return _refuse()  # the task has ended, or was cancelled
        try:
            return run.receive(message)
        except AudiocliError as error:
            if message.call_id is None:
                # No call waits for it, but the next run may send or write the item again because of it.
                run.warn(error)
                return None
            raise

    def remove_worker(self, worker: str) -> None:
        for run in self._runs.values():
            run.remove_worker(worker)


class _KnownState(NamedTuple):
    """What is known about an item without reading its source.

    `source` has the fingerprint and the hash of the content. `is_done`: no worker is needed for it.
    """

    source: tuple[FileFingerprint, str] | None = None
    status: ItemStatus | None = None
    is_done: bool = False


def _make_item_absolute(item: Item) -> Item:
    """Return an item for workers, whose working directory is another one."""
    source = make_absolute(item.source) if isinstance(item.source, Path) else item.source
    outputs = tuple(
        (format, make_absolute(location) if isinstance(location, Path) else location)
        for format, location in item.outputs
    )
    return item._replace(source=source, outputs=outputs)  # type: ignore[arg-type]  # the types of the locations stay


def _get_state_key(location: Location) -> Path | str:
    """Return how the manifest names a file or an object."""
    return location if isinstance(location, Path) else str(location)


async def _read_results(store: PaidResultStore, names: Sequence[str]) -> dict[str, bytes]:
    contents = {name: store.read(name) for name in names}
    return {name: content for name, content in contents.items() if content is not None}


async def _refuse() -> object:
    raise ItemSkipped


class _Attempt:
    """A request of an item. `permit` is None once it was released; `outcome` is None until the entry is settled."""

    __slots__ = ("cost", "execution", "number", "outcome", "permit", "route", "worker")

    def __init__(self, worker: str, execution: str, number: int, route: Route, permit: Any) -> None:
        self.worker = worker
        self.execution = execution
        self.number = number
        self.route = route
        self.permit: Any = permit
        self.outcome: Outcome | None = None
        self.cost: tuple[int | None, CostSource] = (None, CostSource.UNKNOWN)


class _ItemRun:
    """One item in progress: which execution may send it, its requests, and its claim."""

    def __init__(self, executor: ClusterExecutor, item: Item, config: BatchConfig, ctx: RunContext) -> None:
        assert ctx.limiter is not None
        self.item = item
        self._executor = executor
        self._config = config
        self._ctx = ctx
        self._limiter: Limiter = ctx.limiter
        self._batch = executor.batch
        self._sender: str | None = None
        self._attempts: dict[int, _Attempt] = {}
        # The worker of each execution that has asked for a permit.
        self._workers: dict[str, str] = {}
        self._lost_executions: set[str] = set()
        self._claim_key: str | None = None
        self._claim_lock = asyncio.Lock()
        self._writes: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def receive(self, message: Message) -> Awaitable[object] | None:
        """Handle one message. Calls return what awaits their value."""
        arguments = message.arguments
        match message.method:
            case "reserve":
                return self._reserve(message, *arguments)
            case "release":
                self._release(message.execution, *arguments)
            case "settle":
                self._settle(*arguments)
            case "sum_spending":
                return self._sum_spending(*arguments)
            case "claim":
                return self._claim(*arguments)
            case "read_results":
                return _read_results(self._batch.transcripts, *arguments)
            case "read_chunks":
                return _read_results(self._batch.chunks, *arguments)
            case "store_result":
                return self._store_result(self._batch.transcripts, *arguments)
            case "store_chunk":
                return self._store_result(self._batch.chunks, *arguments)
            case "remove_chunks":
                self._batch.chunks.remove(*arguments)
            case "get_content_hash":
                return self._batch.state.get_content_hash(*arguments)
            case "record_content_hash":
                self._record_content_hash(*arguments)
            case "record_output":
                self._record_output(*arguments)
            case "record_failure":
                self._record_failure(*arguments)
            case "cache_response":
                self._ctx.cache.put(*arguments)
            case "info":
                self._ctx.info(*arguments)
            case "debug":
                self._ctx.debug(f"{message.worker}: {arguments[0]}")
        return None

    def warn(self, error: AudiocliError) -> None:
        self._ctx.info(f"warning: {self.item.source}: {error.message}")

    # --- requests ----------------------------------------------------------------------------------------------------

    async def _reserve(
        self,
        message: Message,
        number: int,
        route_ref: str,
        reservation: Reservation,
        limits: Sequence[SpendingLimit],
    ) -> int:
        """Wait for a slot and a permit, and reserve the entry of a request.

        Raises:
            ItemSkipped: The batch has stopped, or the worker is lost, and nothing was sent.
            SendingTaken: Another execution has begun to send.
            MoneyError: A spending limit would be exceeded, or the ledger cannot be written.
        """
        route = self._find_route(route_ref)
        self._take(message.execution)
        self._workers[message.execution] = message.worker
        permit = await self._limiter.acquire(route)
        try:
            if self._is_closed or message.execution in self._lost_executions:
                raise ItemSkipped
            self._take(message.execution)  # another execution may have taken it meanwhile
            entry_id = await reserve(self._ctx, reservation, limits)
        except BaseException as error:
            self._limiter.release(route, permit, None, error)
            raise
        attempt = _Attempt(message.worker, message.execution, number, route, permit)
        self._attempts[entry_id] = attempt
        if self._is_closed or message.execution in self._lost_executions:
            self._close_attempt(entry_id, attempt, UNSENT)
            raise ItemSkipped
        return entry_id

    def _take(self, execution: str) -> None:
        """Let an execution send the item. Raises: SendingTaken: another one has begun."""
        if self._sender not in (None, execution) and self.may_be_billed and not self._ctx.retry_policy.retry_unknown:
            raise SendingTaken("another execution of the task has begun to send")
        self._sender = execution

    def _find_route(self, ref: str) -> Route:
        return next((route for route in self._config.routes if route.ref == ref), self._config.routes[0])

    def _release(
        self, execution: str, number: int, headers: Mapping[str, str] | None, error: AudiocliError | None
    ) -> None:
        for attempt in self._attempts.values():
            if (attempt.execution, attempt.number) == (execution, number):
                self._release_permit(attempt, headers, error)

    def _release_permit(
        self, attempt: _Attempt, headers: Mapping[str, str] | None = None, error: BaseException | None = None
    ) -> None:
        permit, attempt.permit = attempt.permit, None
        if permit is not None:
            self._limiter.release(attempt.route, permit, headers, error)

    def remove_worker(self, worker: str) -> None:
        """Release what a worker held that has ended. Nothing more is reserved for its executions."""
        self._lost_executions.update(execution for execution, name in self._workers.items() if name == worker)
        for attempt in self._attempts.values():
            if attempt.worker == worker:
                self._release_permit(attempt)

    def _settle(self, entry_id: int, settlement: Settlement) -> None:
        attempt = self._attempts.get(entry_id)
        if attempt is None or attempt.outcome is not None:
            return
        attempt.outcome = settlement.outcome
        attempt.cost = settlement.cost_nanousd, settlement.cost_source
        task = asyncio.create_task(self._write_settlement(entry_id, settlement))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write_settlement(self, entry_id: int, settlement: Settlement) -> None:
        try:
            await settle(self._ctx, entry_id, settlement)
        except MoneyError as error:
            # The result is paid for, so it is used. The entry stays reserved and later counts as unknown.
            self._ctx.info(f"warning: {error.message}; entry {entry_id} was not settled")

    async def _sum_spending(self, limit: SpendingLimit) -> int:
        return await sum_spending(self._ctx, limit)

    @property
    def may_be_billed(self) -> bool:
        """Whether a request was sent that a gateway may charge for."""
        return any(attempt.outcome not in UNBILLED_OUTCOMES for attempt in self._attempts.values())

    # --- manifest ----------------------------------------------------------------------------------------------------

    async def _claim(self, key: str) -> ClaimReply:
        """Claim the content of the item for this client, once for all executions of its task."""
        state = self._batch.state
        async with self._claim_lock:
            if self._is_closed:
                raise ItemSkipped
            if self._claim_key != key:
                await self._release_claim()
                if not await state.claim(key):
                    return ClaimReply(False)
                self._claim_key = key
        results = {}
        if self._config.resume and not self._executor.shares_results:
            routes = (*self._config.routes, *self._config.former_routes)
            names = [compute_transcript_name(key, route) for route in routes]
            results = await _read_results(self._batch.transcripts, names)
        return ClaimReply(True, state.get_failure(key), results)

    async def _store_result(self, store: PaidResultStore, name: str, content: bytes) -> None:
        try:
            store.write(name, content)
        except OutputError as error:
            self._ctx.info(f"warning: {error.message}")

    async def _release_claim(self) -> None:
        key, self._claim_key = self._claim_key, None
        if key is not None:
            await self._batch.state.release(key)

    def _record_content_hash(self, url: str | None, fingerprint: FileFingerprint, content_hash: str) -> None:
        path = _get_state_key(_make_item_absolute(self.item).source) if url is None else url
        self._batch.state.record_content_hash(path, fingerprint, content_hash)

    def _record_output(self, path: bytes, output: OutputRecord) -> None:
        for _, location in _make_item_absolute(self.item).outputs:
            key = _get_state_key(location)
            if os.fsencode(key) == path:
                self._batch.state.record_output(key, output)

    def _record_failure(self, key: str, failure: FailureRecord | None) -> None:
        if failure is None:
            self._batch.state.clear_failure(key)
        else:
            self._batch.state.record_failure(key, failure)

    # --- the end -----------------------------------------------------------------------------------------------------

    def record_loss(self, reason: str) -> AudiocliError | None:
        """Return the error of an item that was being sent when its worker was lost, and record it as a failure.

        Return None if nothing was sent that may be billed.
        """
        if not self.may_be_billed:
            return None
        error = ResponseInterrupted(f"{reason} while it was sent", hint=MAY_BE_BILLED)
        if self._claim_key is not None:
            self._batch.state.record_failure(
                self._claim_key, FailureRecord(error.message, error.exit_code, error.code, error.hint)
            )
        return error

    def restart(self) -> None:
        """Prepare for another submission. Nothing was sent that may be billed."""
        self._close_attempts(UNSENT)
        self._sender = None

    async def finish(self, report: ItemReport) -> ItemResult:
        """Store what the worker has returned, and return the result of the item.

        Raises:
            ItemSkipped: The batch has stopped, and nothing was sent.
            AudiocliError: The item failed.
        """
        for name, content in report.results.items():
            await self._store_result(self._batch.transcripts, name, content)
        if report.is_skipped:
            raise ItemSkipped
        if report.is_taken:
            raise self.record_loss("its worker was lost") or ClusterError("the worker was lost")
        if report.error is not None:
            message = report.error.message
            absolute = _make_item_absolute(self.item)
            report.error.message = message.replace(str(absolute.source), str(self.item.source))
            raise report.error
        assert report.result is not None
        result = map_result_routes(report.result, lambda route: self._find_route(route.ref))._replace(item=self.item)
        return self._add_lost_run(result)

    def _add_lost_run(self, result: ItemResult) -> ItemResult:
        """Return a result that was stored by an execution whose worker was lost as that of this run."""
        sent = [attempt for attempt in self._attempts.values() if attempt.outcome is not Outcome.UNSENT]
        if result.outcome is not ItemOutcome.WRITTEN or not sent:
            return result
        cost_nanousd, cost_source = sum_costs([attempt.cost for attempt in sent])
        run = RunResult(sent[-1].route, sent[-1].route.model, 1, len(sent), cost_nanousd, cost_source)
        return result._replace(outcome=ItemOutcome.TRANSCRIBED, run=run)

    async def close(self, settlement: Settlement) -> None:
        """Settle what no worker will settle, and release the claim."""
        self._is_closed = True
        self._close_attempts(settlement)
        if self._writes:
            await asyncio.wait(tuple(self._writes))
        async with self._claim_lock:
            await self._release_claim()

    def _close_attempts(self, settlement: Settlement) -> None:
        for entry_id, attempt in self._attempts.items():
            self._close_attempt(entry_id, attempt, settlement)

    def _close_attempt(self, entry_id: int, attempt: _Attempt, settlement: Settlement) -> None:
        self._release_permit(attempt)
        self._settle(entry_id, settlement)
