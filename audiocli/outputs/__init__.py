"""Where output goes: a file that is whole or absent, a stream, or several at once. Owns the bytes of the output.

When a disk is full, what was paid for is moved to the rescue folder, the rest is added there, and `commit` tells where
it lies.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from ..errors import OutputError, OutputClosed, UsageError
from ..private_files import remove_abandoned_parts
from .file import FileOutput as FileOutput
from .file import cannot_write
from .stream import StreamOutput as StreamOutput

FIFO_EVERY_S = 0.05

# Names of streams that we were given: they are written as they are, and never replaced.
INHERITED = re.compile(r"/dev/(stdout|stderr)|/(?:dev|proc/self)/fd/(\d+)")


class Output(Protocol):
    """What several sinks must be able to do together."""

    @property
    def can_restart(self) -> bool: ...
    async def restart(self) -> None: ...
    async def commit(self) -> None: ...
    async def abandon(self) -> None: ...


class MultiOutput:
    """Several sinks as one, for work that treats them alike when it starts over, commits or gives up."""

    def __init__(self, sinks: Sequence[Output]) -> None:
        self._sinks = tuple(sinks)

    @property
    def can_restart(self) -> bool:
        return all(sink.can_restart for sink in self._sinks)

    async def restart(self) -> None:
        for sink in self._sinks:
            await sink.restart()

    async def commit(self) -> None:
        """Commit every sink, even if one fails; the first failure is raised at the end."""
        failed: OutputError | OutputClosed | None = None
        for sink in self._sinks:
            try:
                await sink.commit()
            except (OutputError, OutputClosed) as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def abandon(self) -> None:
        for sink in self._sinks:
            await sink.abandon()


async def open_target(path: Path, *, rescue_folder: Path, binary: bool = True) -> FileOutput | StreamOutput:
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
                return _open_file(path, rescue_folder)
            stream = await _reader_of(path) if stat.S_ISFIFO(kind) else cast(BinaryIO, path.open("wb", buffering=0))
    except OverflowError:
        raise OutputError(f"cannot write {path}: there is no such stream") from None
    except OSError as error:
        raise cannot_write(path, error) from error
    if binary and stream.isatty():
        stream.close()
        raise UsageError(f"{path} is a terminal: audio is not written to it", hint="use -o FILE, a pipe, or --play")
    return StreamOutput(stream, str(path), rescue_folder=rescue_folder, closes=True)


def _open_file(path: Path, rescue_folder: Path) -> FileOutput:
    """Open a regular file, and remove what a run that was killed has left beside it."""
    remove_abandoned_parts(path.resolve().parent)
    return FileOutput(path, rescue_folder=rescue_folder)


async def _reader_of(path: Path) -> BinaryIO:
    """Open a FIFO once somebody reads it; a plain open would wait for that with Ctrl-C shut out."""
    while True:
        try:
            return cast(BinaryIO, os.fdopen(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "wb", buffering=0))
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            await asyncio.sleep(FIFO_EVERY_S)


def _kind(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
