"""Stream outputs: pipes, FIFOs, devices and redirected stdout, which are written directly and cannot be undone."""

from __future__ import annotations

import asyncio
import codecs
import errno
import os
import secrets
import select
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..console import escape_controls
from ..errors import OutputClosed, OutputError
from ..private_files import create_private_file
from ..types.audio import PcmFormat
from .rescue import iter_rescue_paths, require_memory

# A pipe that polls as writable accepts this many bytes without blocking (POSIX, PIPE_BUF). A blocking write would delay
# Ctrl-C until the reader continues.
NON_BLOCKING_BYTES = select.PIPE_BUF if hasattr(select, "PIPE_BUF") else 4096


class StreamOutput:
    """A pipe, FIFO, device or redirected stdout.

    Args:
        close_stream: Close the stream at the end.
        is_terminal: The stream is a terminal and receives text, whose control characters are escaped.
    """

    file = None

    def __init__(
        self,
        stream: BinaryIO,
        name: str,
        *,
        rescue_directory: Path,
        close_stream: bool = False,
        is_terminal: bool = False,
    ) -> None:
        self._stream = stream
        self._name = name
        self._rescue_paths = iter_rescue_paths(rescue_directory, f"{secrets.token_hex(4)}-output")
        self._close_stream = close_stream
        # A character may be split between two blocks.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if is_terminal else None
        self._written_bytes = 0
        self._rescue_file: BinaryIO | None = None
        self._write_error: OSError | None = None
        try:
            self._descriptor: int | None = stream.fileno()
        except (OSError, ValueError, AttributeError):
            self._descriptor = None
        self._stream_can_block = self._descriptor is not None and _can_block(self._descriptor)
        self._start_offset = _get_start_offset(self._descriptor)

    @property
    def can_restart(self) -> bool:
        return self._written_bytes == 0

    async def begin(self, format: str, pcm: PcmFormat) -> None:
        return None

    async def write(self, block: bytes) -> None:
        if self._rescue_file is not None:
            self._write_rescue(memoryview(block))
            return
        if self._decoder is not None:
            block = escape_controls(self._decoder.decode(block)).encode()
        view = memoryview(block)
        while view:
            try:
                if self._descriptor is None:
                    self._stream.write(view)
                    self._written_bytes += len(view)
                    return
                if self._stream_can_block:
                    await _wait_writable(self._descriptor)
                sent_bytes = os.write(self._descriptor, view[:NON_BLOCKING_BYTES] if self._stream_can_block else view)
            except BlockingIOError:
                if self._descriptor is not None:
                    await _wait_writable(self._descriptor)
                continue
            except BrokenPipeError as error:
                raise OutputClosed from error
            except OSError as error:
                if error.errno in (errno.EPIPE, errno.ECONNRESET):
                    raise OutputClosed from error
                self._start_rescue(error, view)
                return
            self._written_bytes += sent_bytes
            view = view[sent_bytes:]

    async def restart(self) -> None:
        # Nothing has been written to the stream. Drop the bytes of the failed attempt in the rescue file.
        if self._rescue_file is not None:
            self._rescue_file.seek(0)
            self._rescue_file.truncate()

    async def commit(self) -> None:
        self._close()
        if self._write_error is not None:
            assert self._rescue_file is not None
            raise OutputError(
                f"cannot write {self._name}: {self._write_error.strerror}",
                hint=f"the output is saved in {self._rescue_file.name}",
                saved_path=self._rescue_file.name,
            )

    async def abandon(self) -> None:
        self.discard()

    def discard(self) -> None:
        self._close()
        if self._rescue_file is not None:
            Path(self._rescue_file.name).unlink(missing_ok=True)

    def _close(self) -> None:
        if self._rescue_file is not None:
            self._rescue_file.close()
        if self._close_stream:
            self._stream.close()

    def _start_rescue(self, error: OSError, remaining: memoryview) -> None:
        """Continue in a file on another disk.

        If the stream is a regular file, the bytes written so far are copied to the rescue file first.
        """
        self._write_error = error
        self._open_rescue_file(error, self._copy_written_bytes)
        self._write_rescue(remaining)

    def _copy_written_bytes(self, rescue_file: BinaryIO) -> None:
        if self._start_offset is None or not self._written_bytes:
            return
        try:
            descriptor = os.open(f"/dev/fd/{self._descriptor}", os.O_RDONLY)
        except OSError:
            return  # not every system reopens a write-only descriptor for reading; the remaining bytes are saved
        with os.fdopen(descriptor, "rb", buffering=0) as source:
            source.seek(self._start_offset)
            shutil.copyfileobj(source, rescue_file, 1024 * 1024)

    def _open_rescue_file(self, error: OSError, copy: Callable[[BinaryIO], None]) -> None:
        """Open the next rescue file that can take the bytes that `copy` writes. Raises: OutputError: there is none."""
        rescue_error: OSError = error
        for path in self._rescue_paths:
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                rescue_file = create_private_file(path)
            except OSError as next_error:
                rescue_error = next_error
                continue
            try:
                copy(rescue_file)
            except OSError as next_error:
                rescue_error = next_error
                rescue_file.close()
                path.unlink(missing_ok=True)
                continue
            self._rescue_file = rescue_file
            return
        assert self._write_error is not None
        raise OutputError(
            f"cannot write {self._name} ({self._write_error.strerror}) or save it: {rescue_error}"
        ) from error

    def _write_rescue(self, remaining: memoryview) -> None:
        while remaining:
            assert self._rescue_file is not None
            try:
                require_memory(Path(self._rescue_file.name))
                remaining = remaining[self._rescue_file.write(remaining) :]
            except OSError as error:
                self._move_rescue_file(self._rescue_file, error)

    def _move_rescue_file(self, full_file: BinaryIO, error: OSError) -> None:
        """Continue in the next rescue file, because the disk of this one is full too."""

        def copy(rescue_file: BinaryIO) -> None:
            full_file.seek(0)
            shutil.copyfileobj(full_file, rescue_file, 1024 * 1024)

        self._open_rescue_file(error, copy)
        full_file.close()
        Path(full_file.name).unlink(missing_ok=True)


def _can_block(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def _get_start_offset(descriptor: int | None) -> int | None:
    """Return the offset in a regular file at which the output begins, or None for other streams."""
    if descriptor is None or not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None
    end_offset = os.fstat(descriptor).st_size
    return max(os.lseek(descriptor, 0, os.SEEK_CUR), 0) if not _is_append_mode(descriptor) else end_offset


def _is_append_mode(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:
        return False
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)


def _set_ready(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _wait_writable(descriptor: int) -> None:
    """Wait until a stream accepts bytes, without blocking the event loop."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if poll.poll(0):
        return
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_writer(descriptor, _set_ready, ready)
    except (PermissionError, NotImplementedError):  # devices that are always ready; event loops without add_writer
        return
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)
