"""Run a batch on a Dask cluster: options, connection, and Ctrl-C."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext
from ..errors import AccessError, UsageError, suggest

if TYPE_CHECKING:
    from ..cluster import Cluster, ClusterPlan
    from ..console import Console
    from ..core.batch.cluster_executor import ClusterExecutor
    from ..core.batch.context import BatchConfig, BatchContext
    from ..core.batch.object_items import Item, ItemWindows
    from ..core.batch.worker_pool import WorkerPool
    from ..core.run_context import RunContext
    from .transcribe import TranscribeOptions, TranscribePlan

EXECUTORS = ("local", "dask")
MAX_CONCURRENCY = 10_000
MAX_LOCAL_WORKERS = 256


class ClusterOptions(NamedTuple):
    """Options for batches on several machines."""

    executor: Annotated[
        str | None,
        typer.Option("--executor", metavar="local|dask", help="Where recordings are processed: here, or on a cluster."),
    ] = None
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="URL", help="Scheduler of a Dask cluster, as tls://HOST:PORT.")
    ] = None
    worker_count: Annotated[
        int | None, typer.Option("--workers", metavar="N", help="Start N worker processes on this machine.")
    ] = None
    resources: Annotated[
        list[str] | None,
        typer.Option("--resources", metavar="NAME=N", help="What a recording needs of a worker, such as GPU=1."),
    ] = None
    tls_ca: Annotated[
        str | None, typer.Option("--tls-ca", metavar="PATH", help="Certificate authority of the cluster.")
    ] = None
    tls_cert: Annotated[
        str | None, typer.Option("--tls-cert", metavar="PATH", help="Certificate of this client for the cluster.")
    ] = None
    tls_key: Annotated[
        str | None, typer.Option("--tls-key", metavar="PATH", help="Key of the certificate of this client.")
    ] = None


def uses_cluster(options: ClusterOptions) -> bool:
    """Return whether recordings are processed on a cluster. Raises: UsageError."""
    if options.executor is not None and options.executor not in EXECUTORS:
        raise UsageError(f"--executor {options.executor}: must be local or dask{suggest(options.executor, EXECUTORS)}")
    if options.executor == "dask":
        return True
    flags = _list_flags(options)
    if options.executor == "local" and flags:
        raise UsageError(f"--executor local cannot be used with {flags[0]}")
    needs_place = [flag for flag in flags if flag not in ("--scheduler", "--workers")]
    if needs_place and len(needs_place) == len(flags):
        raise UsageError(f"{needs_place[0]} needs --executor dask")
    return bool(flags)


def _list_flags(options: ClusterOptions) -> list[str]:
    """Return the options of a cluster that are set."""
    values = {
        "--scheduler": options.scheduler,
        "--workers": options.worker_count,
        "--resources": options.resources,
        "--tls-ca": options.tls_ca,
        "--tls-cert": options.tls_cert,
        "--tls-key": options.tls_key,
    }
    return [flag for flag, value in values.items() if value is not None]


def check_options(options: TranscribeOptions, *, is_batch: bool) -> None:
    """Check that a command can run on a cluster. Raises: UsageError, AccessError."""
    if not is_batch:
        raise UsageError("--executor dask is for several recordings", hint="name a directory, or add -R")
    exchanges = options.gateway.exchanges
    for is_set, flag in (
        (options.batch.watch, "--watch"),
        (exchanges.record is not None, "--record"),
        (exchanges.replay is not None, "--replay"),
        (options.stream, "--stream"),
    ):
        if is_set:
            raise UsageError(f"--executor dask cannot be used with {flag}")
    if "{lang" in (options.name_template or "") or options.media_server:
        raise UsageError(
            "--executor dask cannot be used with names that have the language", hint="remove --media-server and {lang}"
        )
    if importlib.util.find_spec("distributed") is None:
        raise AccessError("--executor dask needs the package distributed", hint='pip install "audiocli[cluster]"')


def build_cluster_plan(app: AppContext, options: ClusterOptions, concurrency: int) -> ClusterPlan:
    """Return which cluster to use. Raises: UsageError."""
    from ..cluster import ClusterPlan, TlsFiles, check_file, load_security, parse_scheduler
    from ..core.batch.worker_pool import count_workers

    settings = app.settings.cluster
    if options.scheduler is not None and options.worker_count is not None:
        raise UsageError("--scheduler cannot be used with --workers")
    scheduler = options.scheduler
    if scheduler is None and options.worker_count is None:
        scheduler = settings.scheduler
    resources = parse_resources(options.resources)
    if scheduler is None:
        if options.worker_count is None:
            raise UsageError("--executor dask needs --scheduler URL or --workers N")
        if not 1 <= options.worker_count <= MAX_LOCAL_WORKERS:
            raise UsageError(f"--workers {options.worker_count}: must be between 1 and {MAX_LOCAL_WORKERS}")
        thread_count = -(-count_workers(concurrency) // options.worker_count)
        return ClusterPlan(
            None,
            worker_count=options.worker_count,
            thread_count=thread_count,
            resources=resources,
            variables=app.variables,
        )
    scheduler = parse_scheduler(scheduler)
    tls = TlsFiles(
        options.tls_ca or settings.tls_ca, options.tls_cert or settings.tls_cert, options.tls_key or settings.tls_key
    )
    for path, flag in zip(tls, ("--tls-ca", "--tls-cert", "--tls-key"), strict=True):
        check_file(path, flag)
    load_security(tls, is_needed=scheduler.startswith("tls:"))
    return ClusterPlan(scheduler, tls, resources=resources)


def parse_resources(pairs: list[str] | None) -> tuple[tuple[str, float], ...]:
    """Parse `NAME=N` pairs. Raises: UsageError."""
    resources = []
    for pair in pairs or ():
        name, _, text = pair.partition("=")
        try:
            amount = float(text)
        except ValueError:
            amount = 0.0
        if not name or not 0 < amount < 1e6:
            raise UsageError(f"--resources {pair}: expected NAME=N, such as GPU=1")
        resources.append((name, amount))
    return tuple(resources)


class ClusterSession:
    """A cluster that is ready for the items of a run."""

    def __init__(self, cluster: Cluster, executor: ClusterExecutor) -> None:
        self._cluster = cluster
        self.executor = executor

    @property
    def worker_count(self) -> int:
        return self._cluster.worker_count

    @property
    def max_items(self) -> int:
        """Number of items that are submitted at the same time: what runs, and what workers begin next."""
        from ..core.batch.worker_pool import count_workers

        return count_workers(max(self._cluster.thread_count, 1))

    async def run(self, pool: WorkerPool, items: Sequence[Item] | ItemWindows, console: Console) -> bool:
        """Process all items, and return whether Ctrl-C was pressed.

        The first Ctrl-C starts no more items, and those in progress are finished. A second one cancels them.
        """

        def stop() -> None:
            pool.stop()
            count = len(pool.totals.item_progress)
            console.info(f"interrupted: waiting for {count} in progress; press Ctrl-C again to cancel them")

        self._cluster.on_growth = lambda: pool.grow(self.max_items)
        async with interruptible_twice(stop) as interruptions:
            try:
                await pool.run(items)
            except BaseException:
                await self._cluster.cancel_all()
                raise
        return bool(interruptions)


@asynccontextmanager
async def open_session(
    app: AppContext,
    console: Console,
    plan: TranscribePlan,
    config: BatchConfig,
    ctx: RunContext,
    batch: BatchContext,
) -> AsyncIterator[ClusterSession | None]:
    """Connect to the cluster and prepare its workers. Provide None if the batch runs in this process.

    Raises:
        UsageError: A worker or the scheduler has another version of audiocli.
        AccessError: A worker has no key.
        ClusterError: The cluster cannot be reached.
    """
    if not uses_cluster(plan.options.cluster):
        yield None
        return
    import secrets

    from ..cluster import Cluster
    from ..core.batch.cluster_executor import ClusterExecutor
    from ..core.batch.cluster_task import WorkerSettings, remove_keys
    from ..core.catalog import list_cached_responses
    from .cluster_worker import build_opener

    cluster_plan = build_cluster_plan(app, plan.options.cluster, config.concurrency)
    shares_results = cluster_plan.scheduler is None
    settings = WorkerSettings(
        budget=ctx.budget,
        retry_policy=ctx.retry_policy,
        tag=ctx.tag,
        read_timeout_s=plan.options.gateway.timeout_s,
        cached_responses=list_cached_responses(config.routes, ctx.cache),
        results_url=plan.options.results_url,
        sends_results=not shares_results,
        has_objects=batch.objects is not None,
        is_debugging=plan.options.general.debug,
    )
    async with Cluster(cluster_plan, f"audiocli-{secrets.token_hex(8)}", debug=ctx.debug) as cluster:
        if not cluster.worker_count:
            console.info("waiting for a worker")
            await cluster.wait_for_workers()
        await cluster.check_versions()
        executor = ClusterExecutor(cluster, batch, shares_results=shares_results)
        await cluster.prepare(build_opener(settings, tuple(map(remove_keys, config.routes))), executor)
        yield ClusterSession(cluster, executor)


@asynccontextmanager
async def interruptible_twice(stop: Callable[[], None]) -> AsyncIterator[list[bool]]:
    """Let the first Ctrl-C call `stop`, and the second one cancel the current task.

    The list that is provided has an element once Ctrl-C was pressed. Without signal handlers (Windows), the first one
    cancels.
    """
    import asyncio
    import signal

    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    interruptions: list[bool] = []

    def interrupt() -> None:
        if interruptions:
            task.cancel()
        else:
            stop()
        interruptions.append(True)

    try:
        loop.add_signal_handler(signal.SIGINT, interrupt)
    except (NotImplementedError, ValueError, RuntimeError):
        yield interruptions
        return
    try:
        yield interruptions
    finally:
        loop.add_signal_handler(signal.SIGINT, task.cancel)
