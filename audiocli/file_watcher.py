"""Wait until something changes in directories, with watchfiles. No other module imports it."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from .errors import AccessError

if TYPE_CHECKING:
    from asyncio import Task

# File systems whose changes on other machines the kernel does not report (`man 7 inotify`). Names of /proc/mounts.
_REMOTE_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre"})
_REMOTE_PREFIXES = ("fuse.",)
# Changes within this time are one.
DEBOUNCE_MS = 300


def require_watchfiles() -> None:
    """Check that the library is installed. Raises: AccessError."""
    if importlib.util.find_spec("watchfiles") is None:
        raise AccessError("--watch needs the package watchfiles", hint='pip install "audiocli[watch]"')


class FileWatcher:
    """Watches directories while it is open. No change after the start of the block is lost, also before `wait`.

    Directories that do not report changes, such as network shares, are not watched: the caller has to look at them from
    time to time (`needs_polling`).
    """

    def __init__(self, directories: Sequence[Path], *, recursive: bool) -> None:
        remote = find_remote_directories(directories)
        self.needs_polling = bool(remote)
        self._directories = [directory for directory in directories if directory not in remote]
        self._recursive = recursive
        self._has_changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._task: Task[None] | None = None

    async def __aenter__(self) -> FileWatcher:
        if self._directories:
            self._task = asyncio.create_task(self._watch())
            self._task.add_done_callback(self._handle_end)
            # The task registers the directories before it waits for the first time.
            await asyncio.sleep(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def wait(self, timeout_s: float) -> None:
        """Return when something has changed, or after a timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._has_changed.wait()
        except TimeoutError:
            return
        finally:
            self._has_changed.clear()

    async def _watch(self) -> None:
        import watchfiles

        async for _ in watchfiles.awatch(
            *self._directories,
            watch_filter=None,
            debounce=DEBOUNCE_MS,
            stop_event=self._stop,
            rust_timeout=1_000,
            recursive=self._recursive,
            ignore_permission_denied=True,
        ):
            self._has_changed.set()

    def _handle_end(self, task: Task[None]) -> None:
        """Poll from now on if reports have ended: no more watches (fs.inotify.max_user_watches), no directory."""
        self.needs_polling = True
        self._has_changed.set()


def find_remote_directories(directories: Sequence[Path]) -> list[Path]:
    """Return the directories on network file systems, as far as the system says so."""
    if not sys.platform.startswith("linux"):
        return []
    try:
        table = Path("/proc/self/mounts").read_text("utf-8", "surrogateescape")
    except OSError:
        return []
    return [directory for directory in directories if is_remote(directory.resolve(), table)]


def is_remote(directory: Path, mount_table: str) -> bool:
    """Return whether a directory is on a network file system. `mount_table` has the format of /proc/mounts."""
    best, file_system = -1, ""
    for line in mount_table.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount_point = fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        # A later mount hides an earlier one.
        if directory.is_relative_to(mount_point) and len(mount_point) >= best:
            best, file_system = len(mount_point), fields[2]
    return file_system in _REMOTE_FILE_SYSTEMS or file_system.startswith(_REMOTE_PREFIXES)
