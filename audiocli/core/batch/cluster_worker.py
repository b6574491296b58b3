"""Process items on a worker of a cluster. The ledger, the manifest and the limits stay with the client."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ...cluster import TaskCancelled, WorkerLink
from ...errors import AudiocliError, ExitCode, OutputError
from ...ledger.budget import SpendingLimit
from ...storage.manifest import FailureRecord, FileFingerprint, OutputRecord
from ...storage.paid_results import PaidResultStore
from ...storage.response_cache import ResponseCache
from ...types.ledger import Reservation, Settlement
from ...types.routes import Route
from ..run_context import RunContext
from .cluster_task import (
    ClaimReply,
    ItemReport,
    ItemTask,
    SendingTaken,
    WorkerSettings,
    map_result_routes,
    map_routes,
    remove_keys,
)
from .context import BatchConfig, BatchContext, Storage
from .executor import ItemSkipped
from .object_item import ObjectServices, process_any_item

# Larger results are part of the report. The scheduler keeps the last 1,000 messages of a run.
MAX_MESSAGE_BYTES = 1_000_000


class ClientCalls:
    """The calls of one execution of a task to the client."""

    def __init__(self, link: WorkerLink, task: int, execution: str) -> None:
        self._link = link
        self._task = task
        self._execution = execution

    def notify(self, method: str, *arguments: object) -> None:
        self._link.notify(self._task, self._execution, method, *arguments)

    async def call(self, method: str, *arguments: object) -> Any:
        return await self._link.call(self._task, self._execution, method, *arguments)

    def call_blocking(self, method: str, *arguments: object) -> Any:
        return self._link.call_blocking(self._task, self._execution, method, *arguments)


class Permit:
    """The right to send one request. The client grants it together with the entry in the ledger."""

    __slots__ = ("is_granted", "number", "route")

    def __init__(self, number: int, route: Route) -> None:
        self.number = number
        self.route = route
        self.is_granted = False


# The permit of the request that the current task is about to send.
_permit: ContextVar[Permit] = ContextVar("permit")


class ClientLimiter:
    """The limits of the client: `-j`, and those of the gateways. Implements `Limiter`.

    A permit costs no call of its own: `ClientLedger.reserve` waits for it. Requests of local engines are free, and
    only the threads of the worker limit them.
    """

    def __init__(self, calls: ClientCalls) -> None:
        self._calls = calls
        self._numbers = itertools.count()

    async def acquire(self, route: Route) -> Permit:
        permit = Permit(next(self._numbers), route)
        _permit.set(permit)
        return permit

    def release(
        self, route: Route, permit: Any, headers: Mapping[str, str] | None, error: BaseException | None
    ) -> None:
        if permit.is_granted:
            reported = error if isinstance(error, AudiocliError) else None
            self._calls.notify("release", permit.number, None if headers is None else dict(headers), reported)


class ClientLedger:
    """The ledger of the client. Implements `EntryWriter`."""

    def __init__(self, calls: ClientCalls) -> None:
        self._calls = calls

    async def reserve(self, reservation: Reservation, limits: Sequence[SpendingLimit]) -> int:
        """Wait for a permit, and reserve the entry of the request.

        Raises:
            ItemSkipped: The batch has stopped.
            SendingTaken: Another execution of the task has begun to send.
            MoneyError: A spending limit would be exceeded, or the ledger cannot be written.
        """
        permit = _permit.get()
        entry_id = await self._calls.call("reserve", permit.number, permit.route.ref, reservation, tuple(limits))
        permit.is_granted = True
        assert isinstance(entry_id, int)
        return entry_id

    async def settle(self, entry_id: int, settlement: Settlement) -> None:
        self._calls.notify("settle", entry_id, settlement)

    async def sum_spending(self, limit: SpendingLimit) -> int:
        spent_nanousd = await self._calls.call("sum_spending", limit)
        assert isinstance(spent_nanousd, int)
        return spent_nanousd


class ClientState:
    """The manifest of the client, as far as one item needs it. Implements `BatchState`."""

    def __init__(self, calls: ClientCalls, task: ItemTask, results: ResultStore) -> None:
        self._calls = calls
        self._task = task
        self._results = results
        self._outputs = dict(task.outputs)
        self._failures: dict[str, FailureRecord | None] = {}

    async def get_content_hash(self, path: Path | str, fingerprint: FileFingerprint) -> str | None:
        if isinstance(path, str):  # an object, whose version the client may not know
            known_hash = await self._calls.call("get_content_hash", path, fingerprint)
            return known_hash if isinstance(known_hash, str) else None
        known = self._task.source
        return known[1] if known is not None and known[0] == fingerprint else None

    def record_content_hash(self, path: Path | str, fingerprint: FileFingerprint, content_hash: str) -> None:
        url = path if isinstance(path, str) else None
        self._calls.notify("record_content_hash", url, fingerprint, content_hash)

    def get_output(self, path: Path | str) -> OutputRecord | None:
        return self._outputs.get(os.fsencode(path))

    def record_output(self, path: Path | str, output: OutputRecord) -> None:
        self._outputs[os.fsencode(path)] = output
        self._calls.notify("record_output", os.fsencode(path), output)

    async def claim(self, key: str) -> bool:
        reply = await self._calls.call("claim", key)
        assert isinstance(reply, ClaimReply)
        self._failures[key] = reply.failure
        self._results.add_known(reply.results)
        return reply.is_granted

    async def release(self, key: str) -> None:
        """The client releases the claim when it has the result."""

    def get_failure(self, key: str) -> FailureRecord | None:
        return self._failures.get(key)

    def record_failure(self, key: str, failure: FailureRecord) -> None:
        self._calls.notify("record_failure", key, failure)

    def clear_failure(self, key: str) -> None:
        self._calls.notify("record_failure", key, None)


class ResultStore(PaidResultStore):
    """Paid results: those of this machine, and those that the client has sent.

    With `calls`, new results are sent to the client. `unsent` has those that the report of the item will have.
    `asks_client`: the client may have results that the task and the reply to a claim do not have.
    """

    def __init__(self, local: PaidResultStore, task: ItemTask, calls: ClientCalls | None) -> None:
        super().__init__(local.directory, local.suffix, local.shared)
        self._known = dict(task.results)
        self._calls = calls
        self._requested: set[str] = set()
        self.asks_client = task.has_unknown_outputs
        self.unsent: dict[str, bytes] = {}

    def add_known(self, results: Mapping[str, bytes]) -> None:
        self._known.update(results)

    def has(self, name: str) -> bool:
        return name in self._known or super().has(name)

    async def fetch(self, names: Iterable[str]) -> None:
        names = [name for name in dict.fromkeys(names) if not self.has(name)]
        unknown = [name for name in names if name not in self._requested]
        if self._calls is not None and self.asks_client and unknown:
            self._requested.update(unknown)
            self.add_known(await self._calls.call("read_results", unknown))
        await super().fetch(names)

    def read(self, name: str) -> bytes | None:
        content = super().read(name)
        return self._known.get(name) if content is None else content

    def write(self, name: str, content: bytes) -> None:
        """Store a result here, and with the client before its outputs are written.

        Outputs whose transcript is not stored would look like files of another program, if the client ended.

        Raises:
            OutputError: It cannot be stored here, and is not sent to the client.
        """
        self.unsent[name] = content
        try:
            super().write(name, content)
        except OutputError:
            if self._calls is None:
                raise
            self._known[name] = content
        if self._calls is None or len(content) > MAX_MESSAGE_BYTES:
            return
        if _is_in_event_loop():
            # The response has just arrived. The message is sent before the one that settles its entry.
            self._calls.notify("store_result", name, content)
        else:
            self._calls.call_blocking("store_result", name, content)
        del self.unsent[name]


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class ChunkStore(PaidResultStore):
    """Transcripts of the chunks of unfinished long recordings. The client has them too."""

    def __init__(self, local: PaidResultStore, calls: ClientCalls) -> None:
        super().__init__(local.directory, local.suffix, local.shared)
        self._calls = calls

    async def fetch(self, names: Iterable[str]) -> None:
        missing = [name for name in dict.fromkeys(names) if not self.has(name)]
        if missing:
            contents: Mapping[str, bytes] = await self._calls.call("read_chunks", missing)
            for name, content in contents.items():
                super().write(name, content)
        await super().fetch(missing)

    def write(self, name: str, content: bytes) -> None:
        # The message is sent before the one that settles the entry of the request.
        if len(content) <= MAX_MESSAGE_BYTES:
            self._calls.notify("store_chunk", name, content)
        super().write(name, content)

    def remove(self, names: Iterable[str]) -> None:
        names = tuple(names)
        if names:
            self._calls.notify("remove_chunks", names)
        super().remove(names)


class SharedCache(ResponseCache):
    """Cached responses of one worker. What it learns about a model is sent to the client."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.calls: ContextVar[ClientCalls | None] = ContextVar("calls", default=None)

    def put(self, kind: str, key: str, body: bytes) -> None:
        super().put(kind, key, body)
        calls = self.calls.get()
        if calls is not None:
            calls.notify("cache_response", kind, key, body)


class ItemProcessor:
    """Processes the items of a run, in the event loop of a worker.

    `add_key` adds the key of this worker to a route. `results` stores complete transcripts, `chunks` those of the
    chunks of unfinished long recordings.
    """

    def __init__(
        self,
        link: WorkerLink,
        settings: WorkerSettings,
        ctx: RunContext,
        *,
        cache: SharedCache,
        storage: Storage,
        results: PaidResultStore,
        chunks: PaidResultStore,
        upload_directory: Path,
        add_key: Callable[[Route], Route],
        objects: ObjectServices | None,
    ) -> None:
        self._link = link
        self._settings = settings
        self._cache = cache
        self._ctx = ctx._replace(
            cache=cache, budget=settings.budget, retry_policy=settings.retry_policy, tag=settings.tag
        )
        self._storage = storage
        self._results = results
        self._chunks = chunks
        self._upload_directory = upload_directory
        self._add_key = add_key
        self._objects = objects
        self._config: tuple[bytes, BatchConfig] | None = None
        self._tasks: set[asyncio.Task[ItemReport]] = set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in progress."""
        return not self._tasks

    async def wait(self) -> None:
        """Wait for what is in progress."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cancel_all(self) -> None:
        """Cancel what is in progress."""
        for task in self._tasks:
            task.cancel()

    async def process(self, number: int, task: ItemTask, execution: str) -> ItemReport:
        """Bring the outputs of one recording up to date. Errors of the item are in the report."""
        current = asyncio.current_task()
        assert current is not None
        self._tasks.add(current)
        try:
            return await self._process(task, ClientCalls(self._link, number, execution))
        finally:
            self._tasks.discard(current)

    async def _process(self, task: ItemTask, calls: ClientCalls) -> ItemReport:
        self._cache.calls.set(calls)
        sends_results = self._settings.sends_results
        results = ResultStore(self._results, task, calls if sends_results else None)
        chunks = ChunkStore(self._chunks, calls) if sends_results else self._chunks
        batch = BatchContext(
            storage=self._storage,
            state=ClientState(calls, task, results),
            transcripts=results,
            chunks=chunks,
            upload_directory=self._upload_directory,
            objects=self._objects,
        )
        ctx = self._ctx._replace(
            info=lambda message: calls.notify("info", message),
            debug=(lambda message: calls.notify("debug", message)) if self._settings.is_debugging else _ignore,
            limiter=ClientLimiter(calls),
            entries=ClientLedger(calls),
        )
        try:
            config = self._load_config(task.config)
            if not config.request.recording.selection.is_everything:
                results.asks_client = True  # parts are stored under names of their own
            # No permit is held while a recording is decoded, so each chunk waits for its own.
            result = await process_any_item(task.item, config, batch, ctx, hold_slot=nullcontext)
        except ItemSkipped:
            return ItemReport(None, is_skipped=True)
        except TaskCancelled:
            # The client is gone. What was paid for must be where the next one looks.
            for name in results.unsent:
                await results.publish(name)
            raise
        except SendingTaken:
            return ItemReport(None, is_taken=True, results=self._choose_results(results))
        except AudiocliError as error:
            if error.exit_code == ExitCode.ACCESS:
                # Keys and credentials are those of this worker.
                error.message = f"worker {self._link.address}: {error.message}"
            return ItemReport(None, error, self._choose_results(results))
        return ItemReport(map_result_routes(result, remove_keys), None, self._choose_results(results))

    def _choose_results(self, results: ResultStore) -> Mapping[str, bytes]:
        return results.unsent if self._settings.sends_results else {}

    def _load_config(self, content: bytes) -> BatchConfig:
        if self._config is None or self._config[0] != content:
            config: BatchConfig = pickle.loads(content)
            self._config = content, map_routes(config, self._add_key)
        return self._config[1]


def _ignore(message: str) -> None:
    """Drop a debug message."""
