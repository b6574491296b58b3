"""Run functions on the workers of a Dask cluster, and answer their calls. No other module imports distributed.

Dask runs a task again when its worker is lost, also one that had finished, so a task must be safe to run twice. While a
task runs, its worker can call the client (`WorkerLink`). Calls travel as events over the scheduler, and replies as
functions that run on the worker, because workers often cannot open a connection to the client.

    client ──submit──▶ scheduler ──▶ worker: run_task
    client ◀──event── scheduler ◀── worker: WorkerLink.call
    client ──run────▶ scheduler ──▶ worker: WorkerLink.deliver
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import logging
import pickle
import ssl
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

import dask
import distributed
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker
from distributed.security import Security

from . import __version__
from .errors import AudiocliError, ClusterError, UsageError

CONNECT_TIMEOUT_S = 5.0
# How long workers get to end what they run, and local ones to exit.
CLOSE_TIMEOUT_S = 5.0
# How often replies are sent again to a worker that has not taken them.
REPLY_INTERVAL_S = 1.0
# Messages that a connection keeps for debugging, with the tasks that they submit: 1,000 by default, which is 5 MB.
DASK_SETTINGS = {"distributed.admin.low-level-log-length": 10}
# The rest of the name of a plugin is the client that has registered it.
PLUGIN_PREFIX = "audiocli of "
VERSION_HINT = "install the same version everywhere"
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


class TlsFiles(NamedTuple):
    """The certificate authority, the certificate and its key, as PEM files. None is what Dask's configuration has."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class ClusterPlan(NamedTuple):
    """Which cluster to use: that of a scheduler, or `worker_count` local processes with `thread_count` threads each.

    `variables` is the environment of local processes.
    """

    scheduler: str | None
    tls: TlsFiles = TlsFiles()
    worker_count: int = 0
    thread_count: int = 1
    resources: tuple[tuple[str, float], ...] = ()
    variables: Mapping[str, str] | None = None


class Message(NamedTuple):
    """A message of a worker about a task. `call_id` is None if it needs no reply."""

    worker: str
    task: int
    execution: str
    method: str
    arguments: tuple[Any, ...]
    call_id: int | None = None


class TaskCancelled(Exception):
    """The client has cancelled the task, or is gone."""


class WorkerLost(Exception):
    """The workers that Dask has tried a task on have ended, `count` of them. The task may have begun."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count = count


class SchedulerLost(Exception):
    """The connection to the scheduler ended. Tasks may be running."""


class MessageHandler(Protocol):
    """Receives the messages of tasks, in the order in which a worker sent them."""

    def receive(self, message: Message) -> Awaitable[object] | None:
        """Handle a message. For a call, return what awaits the value of the reply."""
        ...

    def remove_worker(self, worker: str) -> None:
        """Handle the end of a worker."""
        ...


class WorkerService(Protocol):
    """What runs on a worker."""

    def process(self, task: int, payload: bytes, execution: str) -> bytes:
        """Run one task in a thread of the worker, and return its result."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether no task is running."""
        ...

    def cancel_all(self) -> None:
        """Cancel all tasks."""
        ...

    def close(self) -> None:
        """Release what the service holds, after the tasks that are running have ended."""
        ...


def parse_scheduler(url: str) -> str:
    """Check the address of a scheduler, and return it. Raises: UsageError."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise UsageError(f"--scheduler {url}: {error}") from error
    if parts.scheme not in ("tls", "tcp") or not host or not port or parts.path.strip("/") or parts.query:
        raise UsageError(f"--scheduler {url}: expected tls://HOST:PORT", hint="for example tls://head:8786")
    if parts.scheme == "tcp" and host not in LOOPBACK_HOSTS:
        raise UsageError(
            f"--scheduler {url}: a scheduler on another machine needs TLS", hint=f"use tls://{host}:{port}"
        )
    return f"{parts.scheme}://{parts.netloc}"


def load_security(tls: TlsFiles, *, is_needed: bool) -> Any:
    """Return the certificates of the options, else of Dask's configuration; None if none are needed.

    Raises:
        UsageError: One is missing or cannot be used.
    """
    if not is_needed:
        return None
    values = {"tls_ca_file": tls.ca, "tls_client_cert": tls.cert, "tls_client_key": tls.key}
    create: Callable[..., Any] = Security
    security = create(require_encryption=True, **{name: value for name, value in values.items() if value})
    missing = [
        flag
        for flag, value in (
            ("--tls-ca", security.tls_ca_file),
            ("--tls-cert", security.tls_client_cert),
            ("--tls-key", security.tls_client_key),
        )
        if not value
    ]
    if missing:
        raise UsageError(
            f"the scheduler needs TLS; {', '.join(missing)} missing",
            hint="or set distributed.comm.tls in Dask's configuration",
        )
    try:
        security.get_connection_args("client")
    except (OSError, ssl.SSLError, ValueError) as error:
        names = ", ".join(str(value) for value in values.values() if value)
        raise UsageError(f"cannot use the TLS files {names}: {error}".replace(" : ", ": ")) from error
    return security


class Cluster:
    """A connection to a cluster, used as an asynchronous context manager.

    Raises:
        ClusterError: At the start of the block, if the scheduler or local workers cannot be reached.
    """

    def __init__(self, plan: ClusterPlan, topic: str, *, debug: Callable[[str], None]) -> None:
        self.topic = topic
        self._plan = plan
        self._debug = debug
        self._client: Any = None
        self._local_cluster: Any = None
        self._handler: MessageHandler | None = None
        self._replies: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self._senders: dict[str, asyncio.Task[None]] = {}
        self._removed_workers: set[str] = set()
        # Called when a worker has joined.
        self.on_growth: Callable[[], None] = lambda: None
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = itertools.count()
        self._thread_counts: dict[str, int] = {}

    async def __aenter__(self) -> Cluster:
        _redirect_logs(self._debug)
        dask.config.set(DASK_SETTINGS)
        security = load_security(self._plan.tls, is_needed=(self._plan.scheduler or "").startswith("tls:"))
        try:
            if self._plan.scheduler is None:
                security = Security.temporary()  # type: ignore[no-untyped-call]
                self._local_cluster = await self._start_workers(security)
            self._client = await distributed.Client(  # type: ignore[no-untyped-call]
                self._plan.scheduler or self._local_cluster.scheduler_address,
                asynchronous=True,
                set_as_default=False,
                security=security,
                timeout=CONNECT_TIMEOUT_S,
                name="audiocli",
            )
            await self._list_workers()
        except (OSError, TimeoutError, RuntimeError, ValueError) as error:
            await self._close_local_cluster()
            where = self._plan.scheduler or "local workers"
            raise ClusterError(f"cannot connect to {where}: {_describe(error)}") from error
        except BaseException:
            await self._close_local_cluster()
            raise
        return self

    async def _start_workers(self, security: Any) -> Any:
        plan = self._plan
        return await distributed.LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=plan.worker_count,
            threads_per_worker=plan.thread_count,
            processes=True,
            host="127.0.0.1",
            protocol="tls://",
            security=security,
            # A worker that is above a limit is killed by its nanny, in the middle of a request.
            memory_limit=0,
            # Pages of Dask, which would be served to other machines.
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            asynchronous=True,
            env=dict(plan.variables or {}),
            resources=dict(plan.resources) or None,
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in (*self._tasks, *self._senders.values()):
            task.cancel()
        if self._handler is not None and self.is_connected:
            # Also if a worker could not be prepared: those that join later must not be either.
            await self._ignore_loss(self._client.unregister_worker_plugin(self._plugin_name))
        if self._client is not None:
            await self._ignore_loss(self._client.close(timeout=CLOSE_TIMEOUT_S))
        await self._close_local_cluster()

    async def _close_local_cluster(self) -> None:
        if self._local_cluster is not None:
            await self._ignore_loss(self._local_cluster.close())
            self._local_cluster = None

    async def _ignore_loss(self, call: Awaitable[object]) -> None:
        """Await the end of a connection. The other side may be gone."""
        try:
            async with asyncio.timeout(2 * CLOSE_TIMEOUT_S):
                await call
        except (OSError, TimeoutError, RuntimeError, ValueError, FutureCancelledError) as error:
            self._debug(f"cluster: {_describe(error)}")

    # --- workers -----------------------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        return self._client is not None and self._client.status == "running"

    @property
    def worker_count(self) -> int:
        return len(self._thread_counts)

    @property
    def thread_count(self) -> int:
        """Number of tasks that can run at the same time."""
        return sum(self._thread_counts.values())

    async def _list_workers(self) -> None:
        identity = await self._client.scheduler.identity(n_workers=-1)
        self._thread_counts = {name: int(worker["nthreads"]) for name, worker in identity["workers"].items()}

    async def _add_worker(self) -> None:
        await self._list_workers()
        self.on_growth()

    async def wait_for_workers(self) -> None:
        """Wait for the first worker."""
        await self._client.wait_for_workers(1)
        await self._list_workers()

    async def check_versions(self) -> None:
        """Check that the scheduler and all workers have this version of audiocli.

        Raises:
            UsageError: One of them has another version, or none.
            ClusterError: They cannot be asked.
        """

        # Nested, so that it is sent as code: a worker without audiocli could not import it.
        def read_version() -> str | None:
            try:
                import audiocli
            except ImportError:
                return None
            return audiocli.__version__

        try:
            versions = {"the scheduler": await self._client.run_on_scheduler(read_version)}
            found_by_worker = await self._client.run(read_version)
        except (OSError, TimeoutError, RuntimeError, FutureCancelledError) as error:
            raise ClusterError(f"cannot ask the workers for their version: {_describe(error)}") from error
        versions |= {f"worker {address}": version for address, version in found_by_worker.items()}
        for name, version in versions.items():
            if version != __version__:
                found = "has no audiocli" if version is None else f"has audiocli {version}"
                raise UsageError(f"{name} {found}, and this is {__version__}", hint=VERSION_HINT)

    async def prepare(self, open_service: Callable[[WorkerLink], WorkerService], handler: MessageHandler) -> None:
        """Prepare all workers, also those that join later. `handler` receives the messages of tasks.

        Raises:
            AudiocliError: A worker cannot be used.
        """
        self._handler = handler
        self._client.subscribe_topic(self.topic, self._receive)
        self._client.subscribe_topic("all", self._receive_cluster_event)
        try:
            for name in await self._client.run_on_scheduler(_list_abandoned_plugins):
                await self._ignore_loss(self._client.unregister_worker_plugin(name))
            plugin = _RunPlugin(self.topic, __version__, open_service)
            await self._client.register_plugin(plugin, name=self._plugin_name)
        except AudiocliError:
            raise
        except (OSError, TimeoutError, RuntimeError, FutureCancelledError) as error:
            raise ClusterError(f"cannot prepare the workers: {_describe(error)}") from error

    @property
    def _plugin_name(self) -> str:
        """The name of the plugin tells later clients whether this one is still connected."""
        return f"{PLUGIN_PREFIX}{self._client.id}"

    # --- tasks -------------------------------------------------------------------------------------------------------

    async def run(self, task: int, payload: bytes) -> bytes:
        """Run a task on a worker and return its result. If cancelled, cancel the task.

        Raises:
            WorkerLost: The workers that started it have ended.
            SchedulerLost: The connection to the scheduler ended.
        """
        if not self.is_connected:
            raise SchedulerLost
        future = self._client.submit(
            _run_task,
            self.topic,
            task,
            payload,
            key=f"{self.topic}-{task}-{next(self._number)}",
            pure=False,
            resources=dict(self._plan.resources) or None,
        )
        try:
            return cast(bytes, await future)
        except KilledWorker as error:
            raise WorkerLost(error.allowed_failures + 1) from error
        except FutureCancelledError as error:
            raise SchedulerLost from error
        finally:
            future.release()

    async def cancel_all(self) -> None:
        """Cancel the tasks that are running on workers."""
        if self.is_connected:
            await self._ignore_loss(self._client.run(_cancel_tasks, self.topic, on_error="ignore"))

    # --- messages ----------------------------------------------------------------------------------------------------

    def _receive(self, event: tuple[float, Mapping[str, Any]]) -> None:
        _, values = event
        message = Message(
            values["worker"],
            values["task"],
            values["execution"],
            values["method"],
            pickle.loads(values["arguments"]),
            values["call_id"],
        )
        assert self._handler is not None
        try:
            answer = self._handler.receive(message)
        except AudiocliError as error:
            answer = _raise(error)
        if answer is not None:
            self._start(self._answer(message, answer))

    def _start(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Message, answer: Awaitable[object]) -> None:
        reply: tuple[bool, object]
        try:
            reply = True, await answer
        except Exception as error:  # noqa: BLE001 - raised again on the worker
            reply = False, error
        if message.call_id is None:
            if not reply[0]:
                self._debug(f"cluster: {message.method}: {reply[1]}")
            return
        self._replies[message.worker].append((message.call_id, pickle.dumps(reply)))
        if message.worker not in self._senders:
            self._senders[message.worker] = asyncio.create_task(self._send_replies(message.worker))

    async def _send_replies(self, worker: str) -> None:
        """Send replies until the worker has taken them, or is removed. It ignores those that it has already."""
        try:
            while replies := self._replies.get(worker):
                sent_count = len(replies)
                if await self._deliver(worker, replies[:sent_count]):
                    del replies[:sent_count]
                elif worker in self._removed_workers or not self.is_connected:
                    return
                else:
                    await asyncio.sleep(REPLY_INTERVAL_S)
        finally:
            self._replies.pop(worker, None)
            del self._senders[worker]

    async def _deliver(self, worker: str, replies: list[tuple[int, bytes]]) -> bool:
        """Send replies, and return whether the worker has taken them."""
        try:
            async with asyncio.timeout(2 * CLOSE_TIMEOUT_S):
                taken = await self._client.run(_deliver, self.topic, replies, workers=[worker], on_error="return")
        except (OSError, TimeoutError, RuntimeError, ValueError, KeyError, FutureCancelledError) as error:
            self._debug(f"cluster: {worker}: {_describe(error)}")
            return False
        return taken.get(worker) is True

    def _receive_cluster_event(self, event: tuple[float, Mapping[str, Any]]) -> None:
        _, values = event
        if values.get("action") == "add-worker":
            self._removed_workers.discard(values["worker"])
            self._start(self._add_worker())
        elif values.get("action") == "remove-worker" and self._handler is not None:
            self._thread_counts.pop(values["worker"], None)
            self._removed_workers.add(values["worker"])
            self._handler.remove_worker(values["worker"])


async def _raise(error: AudiocliError) -> None:
    raise error


def _list_abandoned_plugins(dask_scheduler: Any = None) -> list[str]:
    """Return the plugins of clients that were killed. Every worker that joins would be prepared for them."""
    names = [str(name) for name in dask_scheduler.worker_plugins]
    return [
        name
        for name in names
        if name.startswith(PLUGIN_PREFIX) and name.removeprefix(PLUGIN_PREFIX) not in dask_scheduler.clients
    ]


def _describe(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]


class _DebugHandler(logging.Handler):
    def __init__(self, debug: Callable[[str], None]) -> None:
        super().__init__()
        self._debug = debug

    def emit(self, record: logging.LogRecord) -> None:
        self._debug(f"{record.name}: {record.getMessage()}".partition("\n")[0])


def _redirect_logs(debug: Callable[[str], None]) -> None:
    """Send the log of the library to the debug output. It would write to stderr."""
    for name in ("distributed", "distributed.client", "distributed.scheduler", "distributed.nanny", "tornado"):
        logger = logging.getLogger(name)
        logger.handlers = [_DebugHandler(debug)]
        logger.propagate = False


# --- on a worker -----------------------------------------------------------------------------------------------------

# By the address of the worker and the topic of the run: one process may have several workers.
_LINKS: dict[tuple[str, str], WorkerLink] = {}
_SERVICES: dict[tuple[str, str], WorkerService] = {}
# Why a worker could not be prepared. Dask uses it nevertheless if it has joined during the run.
_ERRORS: dict[tuple[str, str], AudiocliError] = {}


class WorkerLink:
    """Sends messages about tasks from a worker to the client."""

    def __init__(self, worker: Any, topic: str) -> None:
        self._worker = worker
        self._topic = topic
        self._pending: dict[int, tuple[str, concurrent.futures.Future[Any]]] = {}
        self._ended: set[str] = set()
        self._is_closed = False
        self._ids = itertools.count()
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        return str(self._worker.address)

    def notify(self, task: int, execution: str, method: str, *arguments: object) -> None:
        """Send a message that needs no reply. Messages arrive in order."""
        self._send(None, task, execution, method, arguments)

    async def call(self, task: int, execution: str, method: str, *arguments: object) -> Any:
        """Call the client, and return the reply. Raises: what the client raises; TaskCancelled."""
        return await asyncio.wrap_future(self._start_call(task, execution, method, arguments))

    def call_blocking(self, task: int, execution: str, method: str, *arguments: object) -> Any:
        """Call the client as `call` does, and block the thread."""
        return self._start_call(task, execution, method, arguments).result()

    def _start_call(
        self, task: int, execution: str, method: str, arguments: tuple[object, ...]
    ) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        call_id = next(self._ids)
        with self._lock:
            if self._is_closed or execution in self._ended:
                raise TaskCancelled
            self._pending[call_id] = execution, future
        self._send(call_id, task, execution, method, arguments)
        return future

    def _send(self, call_id: int | None, task: int, execution: str, method: str, arguments: tuple[object, ...]) -> None:
        message = Message(self.address, task, execution, method, (), call_id)._asdict()
        self._worker.log_event(self._topic, {**message, "arguments": pickle.dumps(arguments)})

    def deliver(self, replies: list[tuple[int, bytes]]) -> None:
        """Take replies of the client."""
        for call_id, content in replies:
            with self._lock:
                _, future = self._pending.pop(call_id, ("", None))
            if future is None or not future.set_running_or_notify_cancel():
                continue
            is_value, value = pickle.loads(content)
            if is_value:
                future.set_result(value)
            else:
                future.set_exception(value)

    def end_execution(self, execution: str) -> None:
        """Let the calls of an execution fail: its task is cancelled, or its client is gone."""
        with self._lock:
            self._ended.add(execution)
            ended = [call_id for call_id, (name, _) in self._pending.items() if name == execution]
            futures = [self._pending.pop(call_id)[1] for call_id in ended]
        _cancel_calls(futures)

    def close(self) -> None:
        """Let all calls fail: the run has ended."""
        with self._lock:
            self._is_closed = True
            futures = [future for _, future in self._pending.values()]
            self._pending.clear()
        _cancel_calls(futures)

    def forget_execution(self, execution: str) -> None:
        """Forget an execution that has returned."""
        with self._lock:
            self._ended.discard(execution)


def _cancel_calls(futures: list[concurrent.futures.Future[Any]]) -> None:
    for future in futures:
        if future.set_running_or_notify_cancel():
            future.set_exception(TaskCancelled())


class _RunPlugin(distributed.WorkerPlugin):
    """Prepares a worker for the tasks of a run."""

    def __init__(self, topic: str, version: str, open_service: Callable[[WorkerLink], WorkerService]) -> None:
        self.topic = topic
        self.version = version
        # Pickled separately: a worker with another version may not be able to read it.
        self.content = pickle.dumps(open_service)

    async def setup(self, worker: Any) -> None:
        key = worker.address, self.topic
        if self.version != __version__:
            _ERRORS[key] = UsageError(
                f"worker {worker.address} has audiocli {__version__}, and the client is {self.version}",
                hint=VERSION_HINT,
            )
            raise _ERRORS[key]
        link = WorkerLink(worker, self.topic)
        open_service = pickle.loads(self.content)
        try:
            _SERVICES[key] = await asyncio.to_thread(open_service, link)
        except AudiocliError as error:
            _ERRORS[key] = error
            raise
        _LINKS[key] = link

    async def teardown(self, worker: Any) -> None:
        key = worker.address, self.topic
        _ERRORS.pop(key, None)
        link = _LINKS.pop(key, None)
        if link is not None:
            link.close()
        service = _SERVICES.pop(key, None)
        if service is None:
            return
        if service.is_idle:
            await asyncio.to_thread(service.close)
        else:
            # The client is gone. What its tasks have sent is paid for, so they end in their own time.
            threading.Thread(target=service.close, name="audiocli-close", daemon=True).start()

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """End the execution of a task that the scheduler has released: its client cancelled it, or is gone."""
        if start in ("executing", "long-running") and finish in ("released", "cancelled", "forgotten"):
            for (_, topic), link in list(_LINKS.items()):
                if topic == self.topic:
                    link.end_execution(_EXECUTIONS.get(str(key), ""))


# The executions that are running, by the key of their task.
_EXECUTIONS: dict[str, str] = {}


def _run_task(topic: str, task: int, payload: bytes) -> bytes:
    """Run a task on the service of its run."""
    import secrets

    worker = distributed.get_worker()
    key = str(worker.get_current_task())
    run_key = worker.address, topic
    if run_key not in _LINKS:
        raise _ERRORS.get(run_key) or ClusterError(f"worker {worker.address} is not prepared for this run")
    service, link = _SERVICES[run_key], _LINKS[run_key]
    execution = _EXECUTIONS[key] = secrets.token_hex(8)
    try:
        return service.process(task, payload, execution)
    finally:
        _EXECUTIONS.pop(key, None)
        link.forget_execution(execution)


def _deliver(topic: str, replies: list[tuple[int, bytes]], dask_worker: Any = None) -> bool:
    link = _LINKS.get((dask_worker.address, topic))
    if link is not None:
        link.deliver(replies)
    return True


def _cancel_tasks(topic: str, dask_worker: Any = None) -> None:
    service = _SERVICES.get((dask_worker.address, topic))
    if service is not None:
        service.cancel_all()


def check_file(path: str | None, flag: str) -> None:
    """Check that a file exists. Raises: UsageError."""
    if path is not None and not Path(path).is_file():
        raise UsageError(f"{flag}: no such file: {path}")
