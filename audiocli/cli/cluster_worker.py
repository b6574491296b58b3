"""Prepare a worker of a cluster: configuration, keys, directories, connections and engines, once for all its items."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import gateways
from ..cluster import TaskCancelled
from ..context import AppContext
from ..core.batch.cluster_worker import ItemProcessor, SharedCache
from ..core.batch.object_item import ObjectServices
from ..errors import AccessError, OutputError, UsageError
from ..storage.local import LocalStorage
from ..threads import DaemonThreadExecutor
from ..types.routes import NO_TRAITS
from .results import build_result_stores

if TYPE_CHECKING:
    from ..cluster import WorkerLink
    from ..core.batch.cluster_task import WorkerSettings
    from ..routing import GatewayConfig
    from ..types.routes import Route


def open_service(link: WorkerLink, *, settings: WorkerSettings, routes: tuple[Route, ...]) -> ItemService:
    """Prepare a worker for a run over these routes.

    Raises:
        AccessError: The worker has no key for a route. The message names the worker.
        AudiocliError: It cannot be used.
    """
    return ItemService(link, settings, routes)


class ItemService:
    """Processes items in one event loop, in a thread of its own. Implements `cluster.WorkerService`."""

    def __init__(self, link: WorkerLink, settings: WorkerSettings, routes: tuple[Route, ...]) -> None:
        self._link = link
        self._app = AppContext(
            variables=os.environ, stdin=sys.stdin.buffer, stdout=sys.stdout.buffer, stderr=sys.stderr.buffer
        )
        for route in routes:
            self.add_key(route)
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(DaemonThreadExecutor())
        self._thread = threading.Thread(target=self._loop.run_forever, name="audiocli", daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        self._lock = threading.Lock()
        self._is_closing = False
        self._processor: ItemProcessor = self._run(self._open(settings))

    async def _open(self, settings: WorkerSettings) -> ItemProcessor:
        app = self._app
        ctx = await self._stack.enter_async_context(
            app.open_run_context(
                read_timeout_s=settings.read_timeout_s, info=_ignore, debug=_ignore, print_warning=_ignore
            )
        )
        cache = SharedCache(app.scratch_directory("cluster") / self._link.address.rpartition(":")[2])
        for kind, key, body in settings.cached_responses:
            cache.put(kind, key, body)
        stores = build_result_stores(app, settings.results_url)
        if stores.directory is not None and not (stores.directory / "transcripts").is_dir():
            raise OutputError(
                f"worker {self._link.address}: {stores.directory}: no such directory",
                hint="mount the directory of --results-url on all workers",
            )
        storage = LocalStorage(app.scratch_directory("kept"))
        self._stack.callback(storage.close)
        objects = None
        if settings.has_objects or stores.prefix is not None:
            objects = ObjectServices(app.object_stores, app.scratch_directory("objects"))
            objects.remove_abandoned()
        stores.chunks.remove_expired()
        return ItemProcessor(
            self._link,
            settings,
            ctx,
            cache=cache,
            storage=storage,
            results=stores.transcripts,
            chunks=stores.chunks,
            upload_directory=app.scratch_directory("uploads"),
            add_key=self.add_key,
            objects=objects,
        )

    def add_key(self, route: Route) -> Route:
        """Return a route with the key and the headers of this worker.

        Raises:
            AccessError: It has none, and the gateway needs one.
            UsageError: Its configuration has no such gateway.
        """
        if gateways.load_dialect(route.dialect).is_free:
            return route
        gateway: GatewayConfig | None = next(
            (gateway for gateway in self._app.settings.gateways if gateway.name == route.gateway), None
        )
        worker = f"worker {self._link.address}"
        if gateway is None:
            raise UsageError(f"{worker}: the gateway {route.gateway!r} is not configured")
        if gateway.key_error is not None:
            raise AccessError(f"{worker}: {gateway.key_error.message}", hint=gateway.key_error.hint)
        if gateway.key is None and gateway.requires_key:
            raise AccessError(
                f"{worker} has no key for {route.gateway}", hint="set it in the environment of the workers"
            )
        traits = gateway.traits if route.traits == NO_TRAITS else route.traits
        return route._replace(key=gateway.key, traits=traits)

    def process(self, task: int, payload: bytes, execution: str) -> bytes:
        with self._lock:
            if self._is_closing:
                raise TaskCancelled
            call = self._processor.process(task, pickle.loads(payload), execution)
            report = asyncio.run_coroutine_threadsafe(call, self._loop)
        return pickle.dumps(report.result())

    def _run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    @property
    def is_idle(self) -> bool:
        return self._processor.is_idle

    def cancel_all(self) -> None:
        self._loop.call_soon_threadsafe(self._processor.cancel_all)

    def close(self) -> None:
        with self._lock:
            self._is_closing = True
        self._run(self._processor.wait())
        self._run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._app.close()


def build_opener(settings: WorkerSettings, routes: tuple[Route, ...]) -> Callable[[WorkerLink], ItemService]:
    """Return the function that prepares a worker, to be sent to it."""
    return partial(open_service, settings=settings, routes=routes)


def _ignore(message: str) -> None:
    """Drop a message that concerns no item."""
