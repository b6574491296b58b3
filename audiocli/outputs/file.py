"""File outputs: written to a hidden `.part` file in the same directory, and renamed when they are complete."""

from __future__ import annotations

import errno
import io
import os
import secrets
import shutil
import stat
from pathlib import Path
from threading import Thread
from typing import BinaryIO, cast

from ..errors import OutputError
from ..private_files import build_part_path
from ..types.audio import PcmFormat
from .rescue import iter_rescue_paths, require_memory

# A large file is flushed while it grows, so that the fsync at the end is short.
FLUSH_INTERVAL_BYTES = 32 * 1024 * 1024


class PartFile(io.RawIOBase):
    """An unfinished file. If a write fails, its content moves to another directory and writing continues there."""

    def __init__(self, path: Path, *, mode: int, rescue_directory: Path, rescue_name: str) -> None:
        super().__init__()
        self._descriptor = -1
        self.path = path
        self.write_error: OSError | None = None
        self._unflushed_bytes = 0
        self._flush_thread: Thread | None = None
        self._flush_error: OSError | None = None
        self._rescue_paths = iter_rescue_paths(rescue_directory, rescue_name)
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
        block = os.read(self._descriptor, len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def write(self, block: bytes) -> int:  # type: ignore[override]
        view = memoryview(block).cast("B")
        written_bytes = 0
        while written_bytes < len(view):
            try:
                require_memory(self.path)
                written_bytes += os.write(self._descriptor, view[written_bytes:])
            except OSError as error:
                self._move_to_rescue(error)
        self._unflushed_bytes += written_bytes
        if self._unflushed_bytes >= FLUSH_INTERVAL_BYTES and (
            self._flush_thread is None or not self._flush_thread.is_alive()
        ):
            self._unflushed_bytes = 0
            self._start_flush()
        return written_bytes

    def _start_flush(self) -> None:
        try:
            descriptor = os.dup(self._descriptor)
        except OSError:
            return  # sync() flushes everything at the end
        thread = Thread(target=self._flush, args=(descriptor,), daemon=True)
        try:
            thread.start()
        except RuntimeError:
            os.close(descriptor)
        else:
            self._flush_thread = thread

    def _flush(self, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:
            # The kernel reports a write error only once, so keep it for sync().
            self._flush_error = error
        finally:
            os.close(descriptor)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def truncate(self, size: int | None = None) -> int:
        size = self.tell() if size is None else size
        os.ftruncate(self._descriptor, size)
        return size

    def sync(self) -> None:
        """Flush the file to the disk. If the disk reports only now that it is full, move the file to rescue."""
        if self._flush_thread is not None:
            self._flush_thread.join()
        try:
            if self._flush_error is not None:
                raise self._flush_error
            os.fsync(self._descriptor)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTSUP):  # the file system does not support fsync
                return
            self._move_to_rescue(error)
            os.fsync(self._descriptor)

    def rescue(self, error: OSError) -> None:
        """Move the complete file to the rescue directory, because it cannot be renamed to the output path."""
        if self.write_error is None:
            self._move_to_rescue(error)

    def close(self) -> None:
        if not self.closed and self._descriptor >= 0:
            if os.name == "nt" and self._flush_thread is not None:
                self._flush_thread.join()  # an open file cannot be removed on Windows
            os.close(self._descriptor)
        super().close()

    def _move_to_rescue(self, error: OSError) -> None:
        """Continue in a file on another disk. It is called again if that disk is full too."""
        self.write_error = self.write_error or error
        if self._flush_thread is not None:
            self._flush_thread.join()
        rescue_error: OSError = error
        for path in self._rescue_paths:
            try:
                descriptor = self._copy_to(path)
            except OSError as next_error:
                rescue_error = next_error
                continue
            os.close(self._descriptor)
            self.path.unlink(missing_ok=True)
            self._descriptor, self.path = descriptor, path
            self._flush_error = None
            return
        raise OutputError(
            f"cannot write the output ({self.write_error.strerror}) or save it: {rescue_error}"
        ) from error

    def _copy_to(self, path: Path) -> int:
        """Copy the content to a new file. Return its descriptor, at the same position. Raises: OSError."""
        position = self.tell()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        require_memory(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            with (
                os.fdopen(os.dup(self._descriptor), "rb", buffering=0) as source,
                os.fdopen(os.dup(descriptor), "wb", buffering=0) as destination,
            ):
                shutil.copyfileobj(source, destination, 1024 * 1024)
            os.lseek(descriptor, position, os.SEEK_SET)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            os.lseek(self._descriptor, position, os.SEEK_SET)
            raise
        return descriptor


class FileOutput:
    """A regular file that appears complete or not at all."""

    can_restart = True

    def __init__(self, path: Path, *, rescue_directory: Path) -> None:
        """Open the `.part` file. Raises: OutputError: the directory is missing or not writable."""
        self.path = path
        self._target_path = Path(os.path.realpath(path))
        part = build_part_path(self._target_path)
        try:
            mode = stat.S_IMODE(self._target_path.stat().st_mode)
            if not os.access(self._target_path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except FileNotFoundError:
            mode = None
        except OSError as error:
            raise build_write_error(path, error) from error
        try:
            self._part = PartFile(
                part,
                mode=0o666 if mode is None else 0o600,
                rescue_directory=rescue_directory,
                rescue_name=f"{secrets.token_hex(4)}-{build_rescue_stem(self._target_path)}",
            )
        except OSError as error:
            raise build_write_error(path, error) from error
        if mode is not None and hasattr(os, "fchmod"):
            os.fchmod(self._part.fileno(), mode)

    @property
    def file(self) -> BinaryIO:
        return cast(BinaryIO, self._part)

    async def begin(self, format: str, pcm: PcmFormat) -> None:
        return None

    async def write(self, block: bytes) -> None:
        self._part.write(block)

    async def restart(self) -> None:
        self._part.seek(0)
        self._part.truncate(0)

    async def commit(self) -> None:
        self.commit_now()

    def commit_now(self, *, sync_directory: bool = True) -> None:
        """Commit synchronously. May be called from a thread.

        `sync_directory`: also flush the rename. Not needed if the file can be written again after a power failure.
        """
        part = self._part
        try:
            part.sync()
            if part.write_error is None:
                try:
                    part.path.replace(self._target_path)
                    if sync_directory:
                        _sync_directory(self._target_path.parent)
                except OSError as error:
                    part.rescue(error)
        finally:
            part.close()
        if part.write_error is not None:
            raise OutputError(
                f"cannot write {self.path}: {part.write_error.strerror}",
                hint=f"the complete output is saved in {part.path}",
                saved_path=str(part.path),
            )

    async def abandon(self) -> None:
        self.discard()

    def discard(self) -> None:
        self._part.close()
        self._part.path.unlink(missing_ok=True)


def build_rescue_stem(path: Path) -> str:
    """Return the file name of an output, shortened for use in the name of its rescue file."""
    return path.name.encode("utf-8", "surrogateescape").decode("utf-8", "ignore")[-100:]


def build_write_error(path: Path, error: OSError) -> OutputError:
    """Return the error for a path that cannot be opened or written."""
    if isinstance(error, FileNotFoundError) and not path.parent.exists():
        return OutputError(f"cannot write {path}: no such directory: {path.parent}", hint="create it first")
    return OutputError(f"cannot write {path}: {error.strerror}")


def _sync_directory(directory: Path) -> None:
    """Make a rename survive a power failure, if the platform can sync directories."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
