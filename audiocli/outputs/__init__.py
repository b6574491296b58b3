"""Outputs: a file that appears complete or not at all, a stream, or several outputs together.

If the disk is full, the bytes written so far move to the rescue directory and the remaining bytes are added there.
`commit` then raises an OutputError that names the file.
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

from ..errors import OutputClosed, OutputError, UsageError
from ..private_files import remove_abandoned_parts
from .file import FileOutput as FileOutput
from .file import build_write_error
from .stream import StreamOutput as StreamOutput

FIFO_POLL_INTERVAL_S = 0.05

# Paths of inherited streams. They are written directly and never replaced.
INHERITED_STREAM = re.compile(r"/dev/(stdout|stderr)|/(?:dev|proc/self)/fd/(\d+)")


class Output(Protocol):
    """An output in progress. Only streams show bytes before `commit`, and cannot take them back."""

    @property
    def can_restart(self) -> bool: ...
    async def restart(self) -> None: ...
    async def commit(self) -> None: ...
    async def abandon(self) -> None: ...


class MultiOutput:
    """Several outputs that restart, commit or abandon together."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = tuple(outputs)

    @property
    def can_restart(self) -> bool:
        return all(output.can_restart for output in self._outputs)

    async def restart(self) -> None:
        for output in self._outputs:
            await output.restart()

    async def commit(self) -> None:
        """Commit every output, even if one fails. Raises: the first failure, at the end."""
        first_error: OutputError | OutputClosed | None = None
        for output in self._outputs:
            try:
                await output.commit()
            except (OutputError, OutputClosed) as error:
                first_error = first_error or error
        if first_error is not None:
            raise first_error

    async def abandon(self) -> None:
        for output in self._outputs:
            await output.abandon()


async def open_output(path: Path, *, rescue_directory: Path, binary: bool = True) -> FileOutput | StreamOutput:
    """Open the path of an output: a regular or new file as `FileOutput`, anything else as `StreamOutput`.

    Raises:
        OutputError: The path cannot be written.
        UsageError: `binary` output would be written to a terminal.
    """
    match = INHERITED_STREAM.fullmatch(str(path))
    try:
        if match:
            number = {"stdout": 1, "stderr": 2}.get(match[1]) if match[1] else int(match[2])
            stream = cast(BinaryIO, os.fdopen(os.dup(cast(int, number)), "wb", buffering=0))
        else:
            mode = _get_mode(path)
            if mode is not None and stat.S_ISDIR(mode):
                raise OutputError(f"cannot write {path}: it is a directory", hint="add a file name")
            if mode is None or stat.S_ISREG(mode):
                return _open_file(path, rescue_directory)
            stream = await _open_fifo(path) if stat.S_ISFIFO(mode) else cast(BinaryIO, path.open("wb", buffering=0))
    except OverflowError:
        raise OutputError(f"cannot write {path}: no such file descriptor") from None
    except OSError as error:
        raise build_write_error(path, error) from error
    if binary and stream.isatty():
        stream.close()
        raise UsageError(f"cannot write audio to a terminal: {path}", hint="use -o FILE, a pipe, or --play")
    return StreamOutput(
        stream, str(path), rescue_directory=rescue_directory, close_stream=True, is_terminal=stream.isatty()
    )


def _open_file(path: Path, rescue_directory: Path) -> FileOutput:
    """Open a regular file, and remove unfinished files that a killed process left beside it."""
    remove_abandoned_parts(path.resolve().parent)
    return FileOutput(path, rescue_directory=rescue_directory)


async def _open_fifo(path: Path) -> BinaryIO:
    """Open a FIFO once it has a reader. A blocking open would not react to Ctrl-C."""
    while True:
        try:
            return cast(BinaryIO, os.fdopen(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "wb", buffering=0))
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            await asyncio.sleep(FIFO_POLL_INTERVAL_S)


def _get_mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
