"""`audiocli transcribe --watch`: run a batch again for recordings that arrive or change."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..context import AppContext
from ..errors import ExitCode, LimitReached, UsageError
from .batch import BatchControl, BatchPlan, plan_batch, run_items, uses_objects
from .outputs import open_manifest

if TYPE_CHECKING:
    import asyncio

    from ..console import Console
    from ..core.batch.arrivals import FileState
    from ..core.run_context import RunContext
    from ..file_watcher import FileWatcher
    from ..ledger.budget import RunBudget
    from ..storage.manifest import Manifest
    from .transcribe import TranscribeOptions, TranscribePlan

# Directories are also listed without a reported change, because reports can be lost.
RESCAN_INTERVAL_S = 300.0
# How often directories are listed that do not report changes, such as network shares.
POLL_INTERVAL_S = 5.0
# How often the spending limits are read while they do not allow more.
LIMIT_POLL_INTERVAL_S = 60.0


def check_options(options: TranscribeOptions) -> None:
    """Check that the command can be repeated. Raises: UsageError."""
    for is_set, flag in (
        (options.money.dry_run, "--dry-run"),
        (options.batch.verify_only, "--verify-only"),
        (options.batch.fail_fast, "--fail-fast"),
        (not options.resume, "--no-resume"),
        (options.job.background, "--background"),
    ):
        if is_set:
            raise UsageError(f"--watch cannot be used with {flag}")
    if options.batch.files_from == "-":
        raise UsageError("--watch cannot be used with --files-from -", hint="name a file, which is read again")
    if not options.sources and options.batch.files_from is None:
        raise UsageError("--watch needs a directory", hint="for example: audiocli transcribe inbox --watch")
    if uses_objects(options):
        raise UsageError(
            "--watch cannot be used with object stores",
            hint="run the command again from time to time; objects that have not changed are not read",
        )
    from ..file_watcher import require_watchfiles

    require_watchfiles()


def run(app: AppContext, console: Console, plan: TranscribePlan, *, read_timeout_s: float) -> int:
    """Run a batch, and again for each change, until SIGTERM or Ctrl-C. Return the exit code.

    Raises:
        AudiocliError: The first batch cannot start, or no later one could.
    """
    first = plan_batch(app, console, plan, may_be_empty=True)
    with open_manifest(app, console) as manifest:
        manifest.open()
        return app.run(
            lambda ctx: _Watch(app, console, ctx, plan, manifest).run(first),
            read_timeout_s=read_timeout_s,
            info=console.info,
            debug=console.debug,
        )


class _Watch:
    """The loop of a watch. SIGTERM ends it after the recordings in progress; a second one cancels those."""

    def __init__(
        self, app: AppContext, console: Console, ctx: RunContext, plan: TranscribePlan, manifest: Manifest
    ) -> None:
        import asyncio

        from ..core.batch.arrivals import ArrivalTracker

        self._app = app
        self._console = console
        self._ctx = ctx
        self._plan = plan
        self._manifest = manifest
        self._tracker = ArrivalTracker()
        self._control = BatchControl()
        self._is_stopping = asyncio.Event()
        self._last_error = ""

    async def run(self, first: BatchPlan) -> int:
        import asyncio
        import time

        from ..core.batch.arrivals import QUIET_S
        from ..file_watcher import FileWatcher

        task = asyncio.current_task()
        assert task is not None
        self._handle_termination(task)
        directories = self._list_directories()
        modified_before_ns: int | None = time.time_ns() - round(QUIET_S * 1e9)
        async with FileWatcher(directories, recursive=self._plan.options.batch.recursive) as watcher:
            names = ", ".join(str(directory) for directory in directories)
            self._console.info(f"watching {names}")
            # Recordings may have arrived between the first listing and the start of the watcher.
            batch = await self._scan(first)
            while not self._is_stopping.is_set():
                found = _read_states(batch)
                ready = self._tracker.update(found, self._ctx.now_s(), modified_before_ns=modified_before_ns)
                modified_before_ns = None
                if ready:
                    code = await self._process(batch, ready)
                    if code is not None:
                        return code
                else:
                    await self._wait(watcher)
                if not self._is_stopping.is_set():
                    batch = await self._scan(batch)
        return ExitCode.OK

    def _handle_termination(self, task: asyncio.Task[object]) -> None:
        """Let SIGTERM end the watch. It has no effect where the loop cannot handle signals (Windows)."""
        import asyncio

        def stop() -> None:
            if self._is_stopping.is_set():
                task.cancel()
            self._is_stopping.set()
            self._control.stop()

        try:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        except (NotImplementedError, ValueError, RuntimeError):
            return

    def _list_directories(self) -> list[Path]:
        """Return the directories of the sources, each once."""
        sources = [Path(source) for source in self._plan.options.sources or ()]
        if self._plan.options.batch.files_from is not None:
            sources.append(Path(self._plan.options.batch.files_from))
        directories = [source if source.is_dir() else _find_existing_parent(source) for source in sources]
        return list(dict.fromkeys(directories))

    async def _scan(self, previous: BatchPlan) -> BatchPlan:
        """List the recordings again. A failure is reported once, and the watch goes on with what it had."""
        from ..threads import run_in_thread

        try:
            batch = await run_in_thread(lambda: plan_batch(self._app, self._console, self._plan, may_be_empty=True))
        except UsageError as error:
            if error.message != self._last_error:
                self._console.warning(error.message)
            self._last_error = error.message
            return previous
        self._last_error = ""
        return batch

    async def _process(self, batch: BatchPlan, ready: Sequence[Path]) -> int | None:
        """Process recordings that are complete. Return the exit code if the watch must end."""
        chosen = frozenset(ready)
        items = [item for item in batch.files if item.source in chosen]
        plan = BatchPlan(items, batch.discovered._replace(unreadable=()))
        while items:
            self._control = BatchControl(self._control.run_id)
            code = await run_items(self._app, self._console, self._ctx, self._plan, plan, self._manifest, self._control)
            error = self._control.stop_error
            if self._is_stopping.is_set() or error is None:
                break
            if not (isinstance(error, LimitReached) and error.is_of_period):
                return code
            await self._wait_for_limit(error)
            if self._is_stopping.is_set():
                break
        self._tracker.mark_processed(ready)
        return None

    async def _wait_for_limit(self, error: LimitReached) -> None:
        """Wait until the spending limits leave more than now: a new day, or a higher limit in the configuration."""
        remaining = self._compute_remaining()
        self._console.info(f"paused until the spending limit allows more: {error.message}")
        while not self._is_stopping.is_set():
            await self._sleep(LIMIT_POLL_INTERVAL_S)
            current = self._compute_remaining()
            if current.keys() != remaining.keys() or any(amount > remaining[name] for name, amount in current.items()):
                return

    def _compute_remaining(self) -> dict[str, int]:
        """Return what each limit of a period leaves, in nano-dollars, by the current configuration."""
        self._app.reload_settings()
        budget: RunBudget = self._app.create_run_budget(run_id=self._control.run_id)
        return {
            limit.name: limit.amount_nanousd - self._ctx.ledger.sum_spending(limit)
            for limit in budget.limits
            if limit.since_ms is not None
        }

    async def _wait(self, watcher: FileWatcher) -> None:
        """Wait for a change, for a file that may be complete, or for the next listing."""
        import asyncio

        interval_s = POLL_INTERVAL_S if watcher.needs_polling else RESCAN_INTERVAL_S
        quiet_s = self._tracker.compute_wait_s(self._ctx.now_s())
        change = asyncio.create_task(watcher.wait(min(interval_s, interval_s if quiet_s is None else quiet_s)))
        await self._wait_unless_stopping(change)

    async def _sleep(self, seconds: float) -> None:
        import asyncio

        await self._wait_unless_stopping(asyncio.create_task(asyncio.sleep(seconds)))

    async def _wait_unless_stopping(self, task: asyncio.Task[None]) -> None:
        import asyncio

        stopping = asyncio.create_task(self._is_stopping.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pending in (task, stopping):
                pending.cancel()
            await asyncio.gather(task, stopping, return_exceptions=True)


def _read_states(batch: BatchPlan) -> dict[Path, FileState]:
    """Return the state of each recording that exists."""
    from ..core.batch.arrivals import FileState

    states = {}
    for item in batch.files:
        try:
            status = os.stat(item.source)  # noqa: PTH116 - Path rejects some names
        except (OSError, ValueError):
            continue
        states[item.source] = FileState(status.st_size, status.st_mtime_ns)
    return states


def _find_existing_parent(path: Path) -> Path:
    """Return the nearest directory of a file or a glob that exists."""
    return next((parent for parent in path.parents if parent.is_dir()), Path())
