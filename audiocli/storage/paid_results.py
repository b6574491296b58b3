"""Paid results: transcripts, and audio chunks of long texts, stored by name so that they are not paid for twice."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from ..audio.wav import WAV_PROBE_BYTES, InvalidWav, build_wav_header, parse_wav_header
from ..errors import AudiocliError, OutputError
from ..outputs.rescue import iter_rescue_paths, require_memory
from ..private_files import (
    PART_NAME,
    build_part_path,
    create_private_file,
    open_regular_file,
    read_regular_file,
    remove_abandoned_parts,
    remove_expired_files,
    write_atomically,
)
from ..types.audio import PcmFormat

READ_BLOCK_BYTES = 256 * 1024
# Results are removed if their run is not resumed within this time.
MAX_AGE_S = 7 * 24 * 3600
SHARE_HINT = "it is stored on this machine; the same command writes it without sending the recording again"


class SharedResults(Protocol):
    """Results that other machines have stored, or can use, by name.

    Raises:
        AudiocliError: From every method, if they cannot be read or written.
    """

    async def read(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """Return those that exist."""
        ...

    async def write(self, name: str, content: bytes, *, replace: bool) -> None:
        """Store a result, unless there is one of this name. `replace`: also then."""
        ...

    async def remove(self, names: Sequence[str]) -> None: ...


class DirectoryResults:
    """The results in a directory that machines share. Implements `SharedResults`."""

    def __init__(self, directory: Path, suffix: str) -> None:
        self._store = PaidResultStore(directory, suffix)

    def check(self) -> None:
        """Create the directory unless it exists, and check that it can be written. Raises: OutputError."""
        self._store.create_directory()
        name = f"check-{secrets.token_hex(8)}"
        self._store.write(name, b"")
        self._store.remove([name])

    async def read(self, names: Sequence[str]) -> Mapping[str, bytes]:
        def read_all() -> dict[str, bytes]:
            contents = {name: self._store.read(name) for name in names}
            return {name: content for name, content in contents.items() if content is not None}

        return await asyncio.to_thread(read_all)

    async def write(self, name: str, content: bytes, *, replace: bool) -> None:
        if replace or not self._store.has(name):
            await asyncio.to_thread(self._store.write, name, content)

    async def remove(self, names: Sequence[str]) -> None:
        await asyncio.to_thread(self._store.remove, names)


class PaidResultStore:
    """A directory with one file per result. Names are hashes of the request; `suffix` is the extension of the files.

    `shared` has the results of other machines. They are used after `fetch`, and those of this machine are there after
    `publish`.
    """

    def __init__(self, directory: Path, suffix: str, shared: SharedResults | None = None) -> None:
        self.directory = directory
        self.suffix = suffix
        self.shared = shared

    @property
    def is_shared(self) -> bool:
        return self.shared is not None

    def share(self, shared: SharedResults) -> PaidResultStore:
        """Return a store of the same directory that shares its results."""
        return PaidResultStore(self.directory, self.suffix, shared)

    async def fetch(self, names: Iterable[str]) -> None:
        """Copy the shared results that this machine does not have. Raises: AudiocliError: they cannot be read."""
        if self.shared is None:
            return
        missing = [name for name in dict.fromkeys(names) if not self.has(name)]
        for name, content in (await self.shared.read(missing)).items() if missing else ():
            self.write(name, content)

    async def publish(self, name: str, content: bytes | None = None, *, replace: bool = False) -> None:
        """Share a result, unless there is one of this name.

        Args:
            content: The result, in case that it could not be stored on this machine; None for what is stored here.
            replace: Also if there is one of this name.

        Raises:
            OutputError: It cannot be written. The same command tries again.
        """
        if self.shared is None or (content := content or self.read(name)) is None:
            return
        try:
            await self.shared.write(name, content, replace=replace)
        except AudiocliError as error:
            hint = SHARE_HINT if self.has(name) else error.hint
            raise OutputError(f"cannot share the transcript: {error.message}", hint=hint) from error

    async def discard(self, names: Sequence[str]) -> None:
        """Remove results that are not needed any more, also the shared ones."""
        self.remove(names)
        if self.shared is not None and names:
            try:
                await self.shared.remove(names)
            except AudiocliError:
                return  # they stay valid

    def build_path(self, name: str) -> Path:
        return self.directory / f"{name}{self.suffix}"

    def has(self, name: str) -> bool:
        return self.build_path(name).is_file()

    def read(self, name: str) -> bytes | None:
        try:
            return read_regular_file(self.build_path(name))
        except OSError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Store a small result atomically. Raises: OutputError."""
        try:
            write_atomically(self.build_path(name), content)
        except OSError as error:
            raise _build_store_error(self.directory, error) from error

    def create_chunk(self, name: str) -> ChunkFile:
        """Return a writer for the audio of a chunk. Raises: OutputError: the directory cannot be created."""
        self.create_directory()
        return ChunkFile(self.build_path(name))

    def rename(self, name: str, new_name: str) -> None:
        """Store a result under another name. A temporary result is not in the store. Raises: OutputError."""
        try:
            self.build_path(name).replace(self.build_path(new_name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise _build_store_error(self.directory, error) from error

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            _remove_file(self.build_path(name))

    def remove_expired(self) -> None:
        """Remove results that are older than a week, and unfinished files of processes that have ended.

        Files with other names stay.
        """
        remove_expired_files(self.directory, re.compile(rf"[0-9a-f]{{32}}{re.escape(self.suffix)}"), MAX_AGE_S)
        remove_abandoned_parts(self.directory)
        remove_expired_files(self.directory, PART_NAME, MAX_AGE_S)

    def create_directory(self) -> None:
        """Create the directory unless it exists. Raises: OutputError."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _build_store_error(self.directory, error) from error


class ChunkFile:
    """The audio of one chunk, stored as a WAV file and readable while it is written.

    It cannot restart once `read_blocks` has yielded samples. If the disk of the store is full, the audio is written to
    a temporary file on another one. It then serves this run only.
    """

    file = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part_path = build_part_path(path)
        self._rescue_paths = iter_rescue_paths(path.parent, f"{secrets.token_hex(4)}-chunk{path.suffix}")
        self._is_temporary = False
        self._writer: BinaryIO | None = None
        self._reader: BinaryIO | None = None
        self._changed = asyncio.Event()
        self._is_complete = False
        self._yielded_bytes = 0
        self.size_bytes = 0
        self.pcm: PcmFormat | None = None

    @property
    def path(self) -> Path:
        """Where the file is once it is complete."""
        return self._part_path if self._is_temporary else self._path

    @property
    def can_restart(self) -> bool:
        return self._yielded_bytes == 0

    @property
    def duration_s(self) -> float:
        return self.size_bytes / self.pcm.bytes_per_second if self.pcm is not None else 0.0

    def open_cached(self) -> bool:
        """Open the stored file for reading. Return False if it does not exist or is incomplete."""
        try:
            self._reader = open_regular_file(self._path)
            header = parse_wav_header(self._reader.read(WAV_PROBE_BYTES))
            size_bytes = os.fstat(self._reader.fileno()).st_size
        except (OSError, InvalidWav):
            header = None
        if header is None or header.data_bytes is None or header.data_offset + header.data_bytes > size_bytes:
            self._close()
            return False
        assert self._reader is not None
        self._reader.seek(header.data_offset)
        self.pcm, self.size_bytes = header.pcm, header.data_bytes
        self._is_complete = True
        self._changed.set()
        return True

    async def begin(self, format: str, pcm: PcmFormat) -> None:
        self._close()
        self.pcm, self.size_bytes = pcm, 0
        header = build_wav_header(pcm, None)
        try:
            self._part_path.unlink(missing_ok=True)  # from an earlier attempt
            self._open_part(header, len(header))
        except OSError as error:
            self._move(error, header, len(header))

    async def write(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            assert self._writer is not None and self._reader is not None
            try:
                require_memory(self._part_path)
                view = view[self._writer.write(view) :]
            except OSError as error:
                position = self._reader.tell()
                self._reader.seek(0)
                self._move(error, self._reader.read(self._writer.tell()), position)
        self.size_bytes += len(block)
        self._changed.set()

    async def restart(self) -> None:
        self._close()
        self.size_bytes = 0

    async def commit(self) -> None:
        """Complete the header and move the file to its final name. Raises: OutputError."""
        assert self._writer is not None and self.pcm is not None
        try:
            self._writer.seek(0)
            self._writer.write(build_wav_header(self.pcm, self.size_bytes))
            self._writer.close()
            self._writer = None
            if not self._is_temporary:
                self._part_path.replace(self._path)
        except OSError as error:
            raise _build_store_error(self._part_path.parent, error) from error
        self._mark_complete()

    async def abandon(self) -> None:
        self._close()
        _remove_file(self._part_path)
        self._mark_complete()

    def discard(self) -> None:
        """Close open files. A committed file stays, unless it is temporary."""
        self._close()
        if self._is_temporary:
            _remove_file(self._part_path)

    async def read_blocks(self, *, is_live: bool) -> AsyncIterator[bytes]:
        """Yield the samples: as they arrive if `is_live`, otherwise once all have arrived.

        If the request failed, yields the samples received so far. Raises: OutputError: the file became shorter.
        """
        while not self._is_complete and not (is_live and self.size_bytes):
            self._changed.clear()
            await self._changed.wait()
        while True:
            while self._yielded_bytes < self.size_bytes and self._reader is not None:
                block = self._reader.read(min(READ_BLOCK_BYTES, self.size_bytes - self._yielded_bytes))
                if not block:
                    raise OutputError(f"{self._path} was truncated while it was being read")
                self._yielded_bytes += len(block)
                yield block
            if self._is_complete:
                return
            self._changed.clear()
            await self._changed.wait()

    def _open_part(self, content: bytes, position: int) -> None:
        """Create the file with this content, and open it for reading at a position. Raises: OSError."""
        writer = create_private_file(self._part_path)
        view = memoryview(content)
        try:
            while view:
                view = view[writer.write(view) :]
            reader = self._part_path.open("rb", buffering=0)
        except OSError:
            writer.close()
            _remove_file(self._part_path)
            raise
        reader.seek(position)
        self._writer, self._reader = writer, reader

    def _move(self, error: OSError, content: bytes, position: int) -> None:
        """Continue in a temporary file on another disk. Raises: OutputError: no disk has space."""
        self._close()
        _remove_file(self._part_path)
        self._is_temporary = True
        for path in self._rescue_paths:
            self._part_path = path
            try:
                self._open_part(content, position)
            except OSError:
                continue
            return
        raise _build_store_error(self._path.parent, error) from error

    def _mark_complete(self) -> None:
        self._is_complete = True
        self._changed.set()

    def _close(self) -> None:
        for stream in (self._writer, self._reader):
            if stream is not None:
                stream.close()
        self._writer = self._reader = None


def _remove_file(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # remove_expired() tries again


def _build_store_error(directory: Path, error: OSError) -> OutputError:
    hint = "free some disk space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
    return OutputError(f"cannot save paid results in {directory}: {error.strerror}", hint=hint)
