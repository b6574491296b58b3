"""Recognize resources that the operating system refuses: open files, memory and threads.

Any line may fail with them, and each library reports them with an exception of its own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from .errors import UsageError


class RefusedResource(NamedTuple):
    """What the system refused, and which limit to raise."""

    message: str
    hint: str


OPEN_FILES = RefusedResource("too many open files", "raise the limit of the system: ulimit -n 1024")
MEMORY = RefusedResource("not enough memory", "close other programs, or raise the limit of the system: ulimit -v")
THREADS = RefusedResource("cannot start another thread", "raise the limits of the system: ulimit -u and ulimit -v")

# With less, libraries and CPython itself may crash rather than raise MemoryError (measured with 3.11: up to 66 MiB).
MIN_ADDRESS_SPACE_BYTES = 96 << 20

# The words of the dynamic linker (glibc 2.36), which Python puts into an ImportError.
LINKER_MEMORY_ERRORS = ("failed to map segment", "cannot map zero-fill", os.strerror(errno.ENOMEM).lower())


def find_refused_resource(error: BaseException) -> RefusedResource | None:
    """Return the resource whose lack caused an exception, or None if the cause is another one."""
    for cause in iter_causes(error):
        if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
            return OPEN_FILES
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM):
            return MEMORY
        if isinstance(cause, ImportError):
            text = str(cause).lower()
            if os.strerror(errno.EMFILE).lower() in text:
                return OPEN_FILES
            if any(words in text for words in LINKER_MEMORY_ERRORS):
                return MEMORY
        if isinstance(cause, RuntimeError) and str(cause) == "can't start new thread":
            return THREADS
    return None


def check_address_space() -> None:
    """Check that a limit of the address space, as with `ulimit -v`, leaves enough for every command.

    Raises:
        UsageError: It does not.
    """
    limit_bytes = read_address_space_limit()
    if limit_bytes is not None and limit_bytes < MIN_ADDRESS_SPACE_BYTES:
        raise UsageError(
            f"{MEMORY.message}: the limit is {limit_bytes >> 20} MiB and audiocli needs"
            f" {MIN_ADDRESS_SPACE_BYTES >> 20} MiB",
            hint=f"ulimit -v {MIN_ADDRESS_SPACE_BYTES >> 10}",
        )


def read_address_space_limit() -> int | None:
    """Return the limit of the address space of this process, as with `ulimit -v`, in bytes; None if there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit_bytes = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit_bytes == resource.RLIM_INFINITY else limit_bytes


def is_out_of_files() -> bool:
    """Return whether this process cannot open the files of one more database.

    SQLite reports only that it cannot open its own: the database, its WAL, its shared memory and their directory.
    """
    descriptors = []
    try:
        for _ in range(4):
            descriptors.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return False


def iter_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and the exceptions that caused it; of a group the first one."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__ or cause.__context__
