"""Pieces of something long, kept until the whole is whole: what was paid for once is not paid for twice."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import BinaryIO

from ..audio.wav import HEAD_BYTES, NotWav, wav_header, wav_shape
from ..errors import OutputError
from ..outputs.write_scheduler import WriteScheduler
from ..private_files import PART_NAME, create_private_file, remove_expired_files
from ..types.values import Pcm

READ_BYTES = 262144
# Pieces of a run that nobody came back to.
EXPIRED_S = 7 * 24 * 3600


class PaidResultStore:
    """A folder of pieces, each under the name of its request; `suffix` tells what they are."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self._folder = folder
        self._suffix = suffix

    def path(self, name: str) -> Path:
        return self._folder / f"{name}{self._suffix}"

    def has(self, name: str) -> bool:
        return self.path(name).is_file()

    def read(self, name: str) -> bytes | None:
        try:
            return self.path(name).read_bytes()
        except OSError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Keep a small piece, whole or not at all. Raises: OutputError."""
        part = self._part(name)
        try:
            try:
                file = create_private_file(part)
            except FileNotFoundError:
                self._make_folder()
                file = create_private_file(part)
            with file:
                view = memoryview(content)
                while view:
                    view = view[file.write(view) :]
            part.replace(self.path(name))
        except OSError as error:
            raise _cannot_keep(self._folder, error) from error

    def audio(self, name: str, lane: WriteScheduler | None = None) -> ChunkFile:
        """Make the sink of a piece of speech; it is kept already if `has` says so. Raises: OutputError."""
        self._make_folder()
        return ChunkFile(self.path(name), self._part(name), lane)

    def rename(self, name: str, other: str) -> None:
        """Keep a piece under another name. Raises: OutputError."""
        try:
            self.path(name).replace(self.path(other))
        except OSError as error:
            raise _cannot_keep(self._folder, error) from error

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            _remove(self.path(name))

    def sweep(self) -> None:
        """Remove what was left behind a week ago: pieces and unfinished pieces, and nothing else."""
        remove_expired_files(self._folder, re.compile(rf"[0-9a-f]{{32}}{re.escape(self._suffix)}"), EXPIRED_S)
        remove_expired_files(self._folder, PART_NAME, EXPIRED_S)

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _cannot_keep(self._folder, error) from error

    def _part(self, name: str) -> Path:
        return self._folder / f".{name}.{os.getpid()}-{secrets.token_hex(4)}.part"


class ChunkFile:
    """The samples of one piece: kept on disk as a WAV, and readable while they are still coming.

    Once `chunks` has given some, the piece cannot start over. Pieces that nobody hears yet share a `lane`.
    """

    file = None

    def __init__(self, path: Path, part: Path, lane: WriteScheduler | None = None) -> None:
        self._path = path
        self._part = part
        self._lane = lane
        self._stream: BinaryIO | None = None
        self._reader: BinaryIO | None = None
        self._has_more = asyncio.Event()
        self._is_over = False
        self._given_bytes = 0
        self.size_bytes = 0
        self.pcm: Pcm | None = None

    @property
    def can_restart(self) -> bool:
        return self._given_bytes == 0

    @property
    def duration_s(self) -> float:
        return self.size_bytes / self.pcm.bytes_per_second if self.pcm is not None else 0.0

    def reopen(self) -> bool:
        """Take the piece as it was kept; False: it is not there, or not whole."""
        try:
            self._reader = self._path.open("rb", buffering=0)
            shape = wav_shape(self._reader.read(HEAD_BYTES))
            size_bytes = os.fstat(self._reader.fileno()).st_size
        except (OSError, NotWav):
            shape = None
        if shape is None or shape.data_bytes is None or shape.data_offset + shape.data_bytes > size_bytes:
            self._close()
            return False
        assert self._reader is not None
        self._reader.seek(shape.data_offset)
        self.pcm, self.size_bytes = shape.pcm, shape.data_bytes
        self._is_over = True
        self._has_more.set()
        return True

    async def begin(self, format: str, pcm: Pcm) -> None:
        self._close()
        self.pcm, self.size_bytes = pcm, 0
        try:
            self._part.unlink(missing_ok=True)  # of an earlier attempt at the same piece
            self._stream = create_private_file(self._part)
            header = wav_header(pcm, None)
            self._stream.write(header)
            self._reader = self._part.open("rb", buffering=0)
            self._reader.seek(len(header))
        except OSError as error:
            raise _cannot_keep(self._part.parent, error) from error

    async def write(self, chunk: bytes) -> None:
        if self._lane is not None:
            await self._lane.enter(self)
        assert self._stream is not None
        view = memoryview(chunk)
        try:
            while view:
                view = view[self._stream.write(view) :]
        except OSError as error:
            raise _cannot_keep(self._part.parent, error) from error
        self.size_bytes += len(chunk)
        self._has_more.set()

    async def restart(self) -> None:
        self._close()
        self.size_bytes = 0

    async def commit(self) -> None:
        """Keep the piece under its name."""
        assert self._stream is not None and self.pcm is not None
        try:
            self._stream.seek(0)
            self._stream.write(wav_header(self.pcm, self.size_bytes))
            self._stream.close()
            self._stream = None
            self._part.replace(self._path)
        except OSError as error:
            raise _cannot_keep(self._part.parent, error) from error
        self._end()

    async def abandon(self) -> None:
        self._close()
        _remove(self._part)
        self._end()

    def discard(self) -> None:
        """Close what is open; what is kept stays."""
        self._close()

    async def chunks(self, *, is_live: bool) -> AsyncIterator[bytes]:
        """Give the samples: as they come if `is_live`, else when they are all there. Ends early when they do."""
        while not self._is_over and not (is_live and self.size_bytes):
            self._has_more.clear()
            await self._has_more.wait()
        while True:
            while self._given_bytes < self.size_bytes and self._reader is not None:
                chunk = self._reader.read(min(READ_BYTES, self.size_bytes - self._given_bytes))
                if not chunk:
                    raise OutputError(f"{self._path} became shorter while it was being read")
                self._given_bytes += len(chunk)
                yield chunk
            if self._is_over:
                return
            self._has_more.clear()
            await self._has_more.wait()

    def _end(self) -> None:
        if self._lane is not None:
            self._lane.leave(self)
        self._is_over = True
        self._has_more.set()

    def _close(self) -> None:
        if self._lane is not None:
            self._lane.leave(self)
        for stream in (self._stream, self._reader):
            if stream is not None:
                stream.close()
        self._stream = self._reader = None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # then it is swept another time


def _cannot_keep(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot keep the pieces in {folder}: {error.strerror}", hint="make room there")
