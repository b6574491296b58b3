"""Where output goes: a file that is whole or absent, a pipe, or several at once. Owns the bytes of the output.

A file is written as a hidden `.part` beside its target and renamed when it is whole. When the disk is full, what was
paid for is moved to the rescue folder, the rest is added there, and `commit` tells where it lies.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import re
import secrets
import select
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from .errors import OutputError, ReaderGone, UsageError
from .vocabulary import Pcm

# A pipe that polls writable takes this much without blocking (POSIX, PIPE_BUF). A write that blocks would hold up
# Ctrl-C for as long as the reader pleases.
NON_BLOCKING_BYTES = select.PIPE_BUF if hasattr(select, "PIPE_BUF") else 4096
NAME_MAX_BYTES = 255

# Names of streams that we were given: they are written as they are, and never replaced.
INHERITED = re.compile(r"/dev/(stdout|stderr)|/(?:dev|proc/self)/fd/(\d+)")


class Target(Protocol):
    """The part of `work.tools.Sink` that sinks need of each other."""

    @property
    def file(self) -> BinaryIO | None: ...
    @property
    def can_restart(self) -> bool: ...
    async def begin(self, format: str, pcm: Pcm) -> None: ...
    async def write(self, chunk: bytes) -> None: ...
    async def restart(self) -> None: ...
    async def commit(self) -> None: ...
    async def abandon(self) -> None: ...


class PartFile(io.RawIOBase):
    """A file under way. A write that fails moves everything to the rescue folder and goes on there."""

    def __init__(self, path: Path, *, mode: int, rescue_folder: Path, rescue_name: str) -> None:
        super().__init__()
        self.path = path
        self.trouble: OSError | None = None
        self._rescue_folder = rescue_folder
        self._rescue_name = rescue_name
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        chunk = os.read(self._descriptor, len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def write(self, chunk: bytes) -> int:  # type: ignore[override]
        view = memoryview(chunk).cast("B")
        done = 0
        while done < len(view):
            try:
                done += os.write(self._descriptor, view[done:])
            except OSError as error:
                self._rescue(error)
        return done

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def truncate(self, size: int | None = None) -> int:
        size = self.tell() if size is None else size
        os.ftruncate(self._descriptor, size)
        return size

    def sync(self) -> None:
        """Bring the bytes to the disk; a disk that finds out only now that it is full is a failed write."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTSUP):  # file systems without it
                return
            self._rescue(error)
            os.fsync(self._descriptor)

    def rescue(self, error: OSError) -> None:
        """Keep the finished bytes in the rescue folder because their own place cannot be had."""
        if self.trouble is None:
            self._rescue(error)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()

    def _rescue(self, error: OSError) -> None:
        if self.trouble is not None:
            raise OutputError(
                f"cannot write the output ({error.strerror}), nor keep it in {self.path.parent}"
            ) from error
        self.trouble = error
        position = self.tell()
        try:
            self._rescue_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            kept = self._rescue_folder / self._rescue_name
            descriptor = os.open(kept, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as second:
            raise OutputError(f"cannot write the output ({error.strerror}), nor keep it: {second}") from error
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            with (
                os.fdopen(os.dup(self._descriptor), "rb", buffering=0) as source,
                os.fdopen(os.dup(descriptor), "wb", buffering=0) as target,
            ):
                shutil.copyfileobj(source, target, 1024 * 1024)
            os.lseek(descriptor, position, os.SEEK_SET)
        except OSError as second:
            os.close(descriptor)
            kept.unlink(missing_ok=True)
            raise OutputError(f"cannot write the output ({error.strerror}), nor keep it: {second}") from error
        os.close(self._descriptor)
        self.path.unlink(missing_ok=True)
        self._descriptor, self.path = descriptor, kept


class FileSink:
    """A regular file: appears whole, or not at all."""

    can_restart = True

    def __init__(self, path: Path, *, rescue_folder: Path) -> None:
        """Open the `.part`. Raises: OutputError: the folder is missing or cannot be written."""
        self.path = path
        self._final = Path(os.path.realpath(path))
        suffix = f".{os.getpid()}-{secrets.token_hex(4)}.part"
        stem = self._final.name.encode("utf-8", "surrogateescape")[: NAME_MAX_BYTES - len(suffix) - 1]
        part = self._final.with_name("." + stem.decode("utf-8", "ignore") + suffix)
        try:
            mode = stat.S_IMODE(self._final.stat().st_mode)
            if not os.access(self._final, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except FileNotFoundError:
            mode = None
        except OSError as error:
            raise _cannot_write(path, error) from error
        try:
            self._part = PartFile(
                part,
                mode=0o666 if mode is None else 0o600,
                rescue_folder=rescue_folder,
                rescue_name=f"{secrets.token_hex(4)}-{stem.decode('utf-8', 'ignore')[-100:]}",
            )
        except OSError as error:
            raise _cannot_write(path, error) from error
        if mode is not None and hasattr(os, "fchmod"):
            os.fchmod(self._part.fileno(), mode)

    @property
    def file(self) -> BinaryIO:
        return cast(BinaryIO, self._part)

    async def begin(self, format: str, pcm: Pcm) -> None:
        return None

    async def write(self, chunk: bytes) -> None:
        self._part.write(chunk)

    async def restart(self) -> None:
        self._part.seek(0)
        self._part.truncate(0)

    async def commit(self) -> None:
        part = self._part
        try:
            part.sync()
            if part.trouble is None:
                try:
                    os.replace(part.path, self._final)  # noqa: PTH105 - os.replace says that it replaces
                    _sync_folder(self._final.parent)
                except OSError as error:
                    part.rescue(error)
        finally:
            part.close()
        if part.trouble is not None:
            raise OutputError(
                f"cannot write {self.path}: {part.trouble.strerror}",
                hint=f"the whole output is kept in {part.path}",
                kept=str(part.path),
            )

    async def abandon(self) -> None:
        self._part.close()
        self._part.path.unlink(missing_ok=True)


class StreamSink:
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
            self._rescued.write(chunk)
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
                raise ReaderGone from error
            except OSError as error:
                if error.errno in (errno.EPIPE, errno.ECONNRESET):
                    raise ReaderGone from error
                self._rescue(error, view)
                return
            self._written += sent
            view = view[sent:]

    async def restart(self) -> None:
        return None

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
        self._close()

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
            rescued = cast(BinaryIO, kept.open("xb", buffering=0))
            try:
                if self._start is not None and self._written:
                    with Path(f"/dev/fd/{self._descriptor}").open("rb", buffering=0) as written:
                        written.seek(self._start)
                        shutil.copyfileobj(written, rescued, 1024 * 1024)
            except OSError:
                # Not every system gives a write-only descriptor back for reading; then the rest must do.
                rescued.seek(0)
                rescued.truncate()
            rescued.write(rest)
        except OSError as second:
            raise OutputError(f"cannot write {self._name} ({error.strerror}), nor keep it: {second}") from error
        self._rescued, self._trouble = rescued, error


class Tee:
    """Several sinks as one, for work that treats them alike when it starts over, commits or gives up."""

    def __init__(self, sinks: Sequence[Target]) -> None:
        self._sinks = tuple(sinks)

    @property
    def can_restart(self) -> bool:
        return all(sink.can_restart for sink in self._sinks)

    async def restart(self) -> None:
        for sink in self._sinks:
            await sink.restart()

    async def commit(self) -> None:
        """Commit every sink, even if one fails; the first failure is raised at the end."""
        failed: OutputError | None = None
        for sink in self._sinks:
            try:
                await sink.commit()
            except OutputError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def abandon(self) -> None:
        for sink in self._sinks:
            await sink.abandon()


def open_target(path: Path, *, rescue_folder: Path, binary: bool = True) -> FileSink | StreamSink:
    """Open what `-o PATH` names: a regular file or a new one as `FileSink`, anything else straight.

    Raises: OutputError: it cannot be written; UsageError: `binary` output would land on a terminal.
    """
    inherited = INHERITED.fullmatch(str(path))
    try:
        if inherited:
            number = {"stdout": 1, "stderr": 2}.get(inherited[1]) if inherited[1] else int(inherited[2])
            stream = cast(BinaryIO, os.fdopen(os.dup(cast(int, number)), "wb", buffering=0))
        else:
            kind = _kind(path)
            if kind is not None and stat.S_ISDIR(kind):
                raise OutputError(f"{path} is a folder", hint="name a file in it")
            if kind is None or stat.S_ISREG(kind):
                return FileSink(path, rescue_folder=rescue_folder)
            stream = cast(BinaryIO, path.open("wb", buffering=0))
    except OSError as error:
        raise _cannot_write(path, error) from error
    if binary and stream.isatty():
        stream.close()
        raise UsageError(f"{path} is a terminal: audio is not written to it", hint="use -o FILE, a pipe, or --play")
    return StreamSink(stream, str(path), rescue_folder=rescue_folder, closes=True)


async def write_file(path: Path, content: bytes, *, rescue_folder: Path) -> None:
    """Write a small file at once, whole or not at all. Raises: OutputError: with the kept copy named."""
    sink = open_target(path, rescue_folder=rescue_folder, binary=False)
    try:
        await sink.write(content)
    except BaseException:
        await sink.abandon()
        raise
    await sink.commit()


def _kind(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _cannot_write(path: Path, error: OSError) -> OutputError:
    hint = None
    if isinstance(error, FileNotFoundError) and not path.parent.exists():
        hint = f"there is no folder {path.parent}: make it first"
    return OutputError(f"cannot write {path}: {error.strerror}", hint=hint)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where folders can be synced at all."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


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
