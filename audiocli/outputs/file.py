"""A file that is whole or absent: written as a hidden `.part` beside its target, renamed when it is whole."""

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
from ..types.values import Pcm

# A large file goes to the disk while it grows, so that nobody waits for all of it at the end.
FLUSHED_BYTES = 32 * 1024 * 1024


class PartFile(io.RawIOBase):
    """A file under way. A write that fails moves everything to the rescue folder and goes on there."""

    def __init__(self, path: Path, *, mode: int, rescue_folder: Path, rescue_name: str) -> None:
        super().__init__()
        self._descriptor = -1
        self.path = path
        self.trouble: OSError | None = None
        self._unflushed_bytes = 0
        self._flushing: Thread | None = None
        self._flush_failure: OSError | None = None
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
        self._unflushed_bytes += done
        if self._unflushed_bytes >= FLUSHED_BYTES and (self._flushing is None or not self._flushing.is_alive()):
            self._unflushed_bytes = 0
            self._begin_to_flush()
        return done

    def _begin_to_flush(self) -> None:
        try:
            descriptor = os.dup(self._descriptor)
        except OSError:
            return  # all of it is brought there at the end
        flushing = Thread(target=self._flush, args=(descriptor,), daemon=True)
        try:
            flushing.start()
        except RuntimeError:
            os.close(descriptor)
        else:
            self._flushing = flushing

    def _flush(self, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:
            # The system tells it once, and here it was told.
            self._flush_failure = error
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
        """Bring the bytes to the disk; a disk that finds out only now that it is full is a failed write."""
        if self._flushing is not None:
            self._flushing.join()
        try:
            if self._flush_failure is not None:
                raise self._flush_failure
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
        if not self.closed and self._descriptor >= 0:
            if os.name == "nt" and self._flushing is not None:
                self._flushing.join()  # what somebody has open cannot be removed there
            os.close(self._descriptor)
        super().close()

    def _rescue(self, error: OSError) -> None:
        if self.trouble is not None:
            raise OutputError(
                f"cannot write the output ({error.strerror}), nor keep it in {self.path.parent}"
            ) from error
        self.trouble = error
        if self._flushing is not None:
            self._flushing.join()
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
        self._flush_failure = None


class FileOutput:
    """A regular file: appears whole, or not at all."""

    can_restart = True

    def __init__(self, path: Path, *, rescue_folder: Path) -> None:
        """Open the `.part`. Raises: OutputError: the folder is missing or cannot be written."""
        self.path = path
        self._final = Path(os.path.realpath(path))
        part = build_part_path(self._final)
        try:
            mode = stat.S_IMODE(self._final.stat().st_mode)
            if not os.access(self._final, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except FileNotFoundError:
            mode = None
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            self._part = PartFile(
                part,
                mode=0o666 if mode is None else 0o600,
                rescue_folder=rescue_folder,
                rescue_name=f"{secrets.token_hex(4)}-{build_rescue_stem(self._final)}",
            )
        except OSError as error:
            raise cannot_write(path, error) from error
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
        self.commit_now()

    def commit_now(self, *, syncs_folder: bool = True) -> None:
        """Commit from a thread: a disk may take its time. Where the file can be made again, its name need not wait."""
        part = self._part
        try:
            part.sync()
            if part.trouble is None:
                try:
                    os.replace(part.path, self._final)  # noqa: PTH105 - os.replace says that it replaces
                    if syncs_folder:
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
        self.discard()

    def discard(self) -> None:
        self._part.close()
        self._part.path.unlink(missing_ok=True)


def build_rescue_stem(path: Path) -> str:
    """Return the name of an output, short enough to be part of another name."""
    return path.name.encode("utf-8", "surrogateescape").decode("utf-8", "ignore")[-100:]


def cannot_write(path: Path, error: OSError) -> OutputError:
    if isinstance(error, FileNotFoundError) and not path.parent.exists():
        return OutputError(f"cannot write {path}: there is no folder {path.parent}", hint="make it first")
    return OutputError(f"cannot write {path}: {error.strerror}")


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
