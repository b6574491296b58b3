"""Write audiocli's own files atomically, and create private files and directories.

Configuration, keys, ledger, manifest and caches are regular files. A path that is a device, a FIFO or a directory is
refused, a symlink is followed, and an existing directory keeps its mode. A directory in the system's temporary
directory is used only if it belongs to this user and other users cannot access it.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import tempfile
import time
from pathlib import Path
from typing import BinaryIO, cast

from .errors import OutputError
from .process_ids import is_running

# The name of a `.part` file has the PID of the process that writes it.
PART_NAME = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}\.part", re.DOTALL)
_MAX_NAME_BYTES = 255
READ_BLOCK_BYTES = 1024 * 1024
# The longest file of ours, the transcript of a day of speech with all word times, has about 30 MB.
MAX_FILE_BYTES = 500_000_000


def require_regular_file(path: Path) -> None:
    """Check that a path is a regular file or does not exist. Raises: OSError: it is something else."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "is a directory")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")


def open_regular_file(path: Path) -> BinaryIO:
    """Open a regular file for reading, unbuffered. Raises: OSError: It is missing, or not a regular file.

    A FIFO in its place would block, and a device such as /dev/zero would fill the memory.
    """
    require_regular_file(path)
    # Not blocking, for a FIFO that appears after the check.
    stream = cast(BinaryIO, open(path, "rb", buffering=0, opener=_open_non_blocking))  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "not a regular file")
    return stream


def read_regular_file(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Read a regular file of ours. Raises: OSError: It is missing, not a regular file or larger than `max_bytes`."""
    with open_regular_file(path) as stream:
        if os.fstat(stream.fileno()).st_size > max_bytes:
            raise OSError(errno.EFBIG, f"larger than {max_bytes // 1_000_000} MB")
        parts = []
        while block := stream.read(READ_BLOCK_BYTES):
            parts.append(block)
    return b"".join(parts)


def build_part_path(path: Path) -> Path:
    """Return a new path in the directory of `path` for its unfinished content."""
    suffix = f".{os.getpid()}-{secrets.token_hex(4)}.part"
    stem = path.name.encode("utf-8", "surrogateescape")[: _MAX_NAME_BYTES - len(suffix) - 1]
    return path.with_name("." + stem.decode("utf-8", "ignore") + suffix)


def write_atomically(path: Path, content: bytes, *, keep_mode: bool = False, durable: bool = False) -> None:
    """Create or replace a file atomically.

    If the path is a symlink, the file that it points to is replaced. Missing directories are created with mode 0700.

    Args:
        keep_mode: Keep the permissions and the owner of an existing file. Otherwise the file gets mode 0600.
        durable: Flush the content to the disk before the rename.

    Raises:
        OSError: The file cannot be written, or the path is not a regular file.
    """
    require_regular_file(path)
    real_path = Path(os.path.realpath(path)) if path.is_symlink() else path
    part_path = build_part_path(real_path)
    try:
        try:
            file = create_private_file(part_path)
        except FileNotFoundError:
            real_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = create_private_file(part_path)
        with file:
            if keep_mode and hasattr(os, "fchmod") and real_path.exists():
                _copy_owner_and_mode(real_path, file.fileno())
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]
            if durable:
                os.fsync(file.fileno())
        part_path.replace(real_path)
    except BaseException:
        try:
            part_path.unlink(missing_ok=True)
        except OSError:
            pass  # it was not created, or its disk is gone
        raise


def _copy_owner_and_mode(path: Path, descriptor: int) -> None:
    """Give an open file the owner, the group and the permissions of a file. Raises: OSError."""
    status, new_status = path.stat(), os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != (new_status.st_uid, new_status.st_gid):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    # After the owner, because a change of the owner clears some permissions.
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))


def create_private_file(path: Path) -> BinaryIO:
    """Create a new file with mode 0600, open for reading and writing, unbuffered. Raises: OSError: it exists."""
    return cast(BinaryIO, open(path, "x+b", buffering=0, opener=_open_private))


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _open_non_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def build_temporary_directory_path(name: str) -> Path:
    """Return the path that `open_temporary_directory` uses, without creating or checking the directory."""
    user = str(os.getuid()) if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"audiocli-{name}-{user}"


def open_temporary_directory(name: str) -> Path:
    """Create or check this user's directory `name` in the system's temporary directory.

    Raises:
        OutputError: It cannot be created, is not a directory, belongs to another user, or other users can access it.
    """
    path = build_temporary_directory_path(name)
    try:
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            pass
        status = path.lstat()
    except OSError as error:
        raise OutputError(f"cannot create the temporary directory {path}: {error.strerror}") from error
    problem = None
    if not stat.S_ISDIR(status.st_mode):
        problem = "it is not a directory"
    elif os.name == "posix" and status.st_uid != os.getuid():
        problem = "it belongs to another user"
    elif os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077:
        problem = f"other users can access it (mode {stat.S_IMODE(status.st_mode):o})"
    if problem is not None:
        raise OutputError(f"cannot use the temporary directory {path}: {problem}", hint="set TMPDIR to another one")
    return path


def remove_expired_files(directory: Path, name: re.Pattern[str], max_age_s: float) -> None:
    """Remove regular files of this user that match `name` and have not been written for `max_age_s`.

    Symlinks, directories, other names and other users' files stay. A directory that is a symlink is left alone.
    """
    try:
        if directory.is_symlink():
            return
        with os.scandir(directory) as entries:
            for entry in entries:
                if name.fullmatch(entry.name) and is_own_regular_file(entry) and _get_age_s(entry) > max_age_s:
                    Path(entry.path).unlink(missing_ok=True)
    except OSError:
        return  # it does not exist, or the next run removes the rest


def remove_abandoned_parts(directory: Path) -> int:
    """Remove the `.part` files of processes that have ended. Return how many were removed."""
    count = 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                match = PART_NAME.fullmatch(entry.name)
                if match and not is_running(match[1]) and is_own_regular_file(entry):
                    Path(entry.path).unlink(missing_ok=True)
                    count += 1
    except OSError:
        return count  # the next run removes the rest
    return count


def is_own_regular_file(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a regular file of this user; a symlink is not."""
    status = entry.stat(follow_symlinks=False)
    is_own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return stat.S_ISREG(status.st_mode) and is_own


def _get_age_s(entry: os.DirEntry[str]) -> float:
    return time.time() - entry.stat(follow_symlinks=False).st_mtime
