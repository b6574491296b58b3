"""Targets that are written straight and cannot be taken back: pipes, FIFOs, devices, a redirected stdout."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import select
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

from ..errors import OutputError, OutputClosed
from ..private_files import create_private_file
from ..types.values import Pcm

# A pipe that polls writable takes this much without blocking (POSIX, PIPE_BUF). A write that blocks would hold up
# Ctrl-C for as long as the reader pleases.
NON_BLOCKING_BYTES = select.PIPE_BUF if hasattr(select, "PIPE_BUF") else 4096


class StreamOutput:
    """A target that is written straight and cannot be taken back: a pipe, a FIFO, a device, a redirected stdout."""

    file = None

    def __init__(self, stream: BinaryIO, name: str, *, rescue_folder: Path, closes: bool = False) -> None:
        self._stream = stream
        self._name = name
        self._rescue_folder = rescue_folder
        self._closes = closes
        self._written = 0
        self._rescued: BinaryIO | None = None
        self._trouble: OSError | None = None
        try:
            self._descriptor: int | None = stream.fileno()
        except (OSError, ValueError, AttributeError):
            self._descriptor = None
        self._waits = self._descriptor is not None and _can_be_waited_for(self._descriptor)
        self._start = _position(self._descriptor)

    @property
    def can_restart(self) -> bool:
        return self._written == 0

    async def begin(self, format: str, pcm: Pcm) -> None:
        return None

    async def write(self, chunk: bytes) -> None:
        if self._rescued is not None:
            self._keep(memoryview(chunk))
            return
        view = memoryview(chunk)
        while view:
            try:
                if self._descriptor is None:
                    self._stream.write(view)
                    self._written += len(view)
                    return
                if self._waits:
                    await _writable(self._descriptor)
                sent = os.write(self._descriptor, view[:NON_BLOCKING_BYTES] if self._waits else view)
            except BlockingIOError:
                if self._descriptor is not None:
                    await _writable(self._descriptor)
                continue
            except BrokenPipeError as error:
                raise OutputClosed from error
            except OSError as error:
                if error.errno in (errno.EPIPE, errno.ECONNRESET):
                    raise OutputClosed from error
                self._rescue(error, view)
                return
            self._written += sent
            view = view[sent:]

    async def restart(self) -> None:
        # Nothing reached the target yet; what was rescued of the last try is none of the next one's business.
        if self._rescued is not None:
            self._rescued.seek(0)
            self._rescued.truncate()

    async def commit(self) -> None:
        self._close()
        if self._trouble is not None:
            assert self._rescued is not None
            raise OutputError(
                f"cannot write {self._name}: {self._trouble.strerror}",
                hint=f"what was paid for is kept in {self._rescued.name}",
                kept=self._rescued.name,
            )

    async def abandon(self) -> None:
        self.discard()

    def discard(self) -> None:
        self._close()
        if self._rescued is not None:
            Path(self._rescued.name).unlink(missing_ok=True)

    def _close(self) -> None:
        if self._rescued is not None:
            self._rescued.close()
        if self._closes:
            self._stream.close()

    def _rescue(self, error: OSError, rest: memoryview) -> None:
        """Go on in the rescue folder, with what already reached the target in front where it can be read back."""
        try:
            self._rescue_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            kept = self._rescue_folder / f"{secrets.token_hex(4)}-output"
            rescued = create_private_file(kept)
            try:
                if self._start is not None and self._written:
                    with Path(f"/dev/fd/{self._descriptor}").open("rb", buffering=0) as written:
                        written.seek(self._start)
                        shutil.copyfileobj(written, rescued, 1024 * 1024)
            except OSError:
                # Not every system gives a write-only descriptor back for reading; then the rest must do.
                rescued.seek(0)
                rescued.truncate()
        except OSError as second:
            raise OutputError(f"cannot write {self._name} ({error.strerror}), nor keep it: {second}") from error
        self._rescued, self._trouble = rescued, error
        self._keep(rest)

    def _keep(self, rest: memoryview) -> None:
        assert self._rescued is not None
        try:
            while rest:
                rest = rest[self._rescued.write(rest) :]
        except OSError as error:
            raise OutputError(f"cannot write {self._name}, nor keep it: {error.strerror}") from error


def _can_be_waited_for(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def _position(descriptor: int | None) -> int | None:
    """Tell where in a regular file our output begins; None for what is no regular file."""
    if descriptor is None or not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None
    end = os.fstat(descriptor).st_size
    return max(os.lseek(descriptor, 0, os.SEEK_CUR), 0) if not _appends(descriptor) else end


def _appends(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:
        return False
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _writable(descriptor: int) -> None:
    """Wait until a pipe takes bytes, without blocking the loop."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if poll.poll(0):
        return
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_writer(descriptor, _settle, ready)
    except (PermissionError, NotImplementedError):  # devices that are always ready; loops without writers
        return
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)
