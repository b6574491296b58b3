"""The phrase cache: speech that was paid for, found again by a hash of the request.

A phrase has two files: `NAME.json` describes it, and `NAME-HASH.audio` is its audio. NAME is the hash of the request
and HASH the beginning of that of the audio. The description is replaced atomically and is written last. Processes that
store the same phrase at the same time therefore cannot mix their files.

A failure to read or write is never an error: without the cache, the speech is paid for again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..private_files import (
    build_part_path,
    create_private_file,
    is_own_regular_file,
    open_regular_file,
    read_regular_file,
    remove_abandoned_parts,
    write_atomically,
)
from ..types.ledger import CostSource

PHRASE_FILE_NAME = re.compile(r"([0-9a-f]{32})(\.json|-[0-9a-f]{16}\.audio)")
TOTAL_FILE_NAME = "total"
READ_BLOCK_BYTES = 256 * 1024
MAX_DESCRIPTION_BYTES = 64 * 1024
# Phrases are removed until this share of the maximum size is left, so that the next one does not scan the directory.
SHARE_AFTER_EVICTION = 0.9
# The total is counted again after a day, because processes that write it at the same time make it inexact. That takes
# 0.4 s for 10,000 phrases (2026-11).
MAX_TOTAL_AGE_S = 24 * 3600


class PhraseDescription(NamedTuple):
    """What is stored with the audio of a phrase.

    `headers` are those of the response that state its format. `cost_nanousd` is what the phrase cost; None is unknown.
    """

    sha256: str
    size_bytes: int
    headers: Mapping[str, str]
    cost_nanousd: int | None
    cost_source: CostSource


class StoredPhrase:
    """The verified audio of a phrase, open for reading. It stays readable if another process removes it."""

    def __init__(self, path: Path, stream: BinaryIO, description: PhraseDescription) -> None:
        self.path = path
        self._stream = stream
        self.headers = description.headers

    def read_blocks(self) -> Iterator[bytes]:
        """Yield the audio from its first byte."""
        self._stream.seek(0)
        while block := self._stream.read(READ_BLOCK_BYTES):
            yield block

    def close(self) -> None:
        self._stream.close()


class PhraseWriter:
    """Stores the audio of a response while it arrives. `commit` or `abandon` ends it."""

    def __init__(self, cache: PhraseCache, name: str, headers: Mapping[str, str]) -> None:
        self._cache = cache
        self._name = name
        self._headers = headers
        self._hash = hashlib.sha256()
        self._part_path = build_part_path(cache.directory / name)
        self._file = _create_file(self._part_path)

    def write(self, block: bytes) -> None:
        if self._file is None:
            return
        self._hash.update(block)
        try:
            _write(self._file, block)
        except OSError:
            self.abandon()

    def commit(self, cost_nanousd: int | None, cost_source: CostSource) -> None:
        """Add the phrase to the cache."""
        if self._file is None:
            return
        size_bytes = self._file.tell()
        self._file.close()
        self._file = None
        description = PhraseDescription(self._hash.hexdigest(), size_bytes, self._headers, cost_nanousd, cost_source)
        self._cache.add(self._name, self._part_path, description)

    def abandon(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            _remove_file(self._part_path)


class PhraseCache:
    """A directory of phrases, of at most `max_bytes` after `evict`."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._added_bytes = 0

    def has(self, name: str) -> bool:
        """Return whether a phrase is stored. `open` may still find that it is damaged."""
        description = self._read_description(name)
        return description is not None and self._build_audio_path(name, description).is_file()

    def get_sha256(self, name: str) -> str | None:
        """Return the hash of the audio of a phrase as it was stored; None if it is not stored."""
        description = self._read_description(name)
        if description is None or not self._build_audio_path(name, description).is_file():
            return None
        return description.sha256

    def open(self, name: str) -> StoredPhrase | None:
        """Open a phrase, and mark it as used. A damaged one is removed."""
        description = self._read_description(name)
        if description is None:
            return None
        path = self._build_audio_path(name, description)
        try:
            stream = open_regular_file(path)
        except OSError:
            return None
        try:
            digest = hashlib.sha256()
            while block := stream.read(READ_BLOCK_BYTES):
                digest.update(block)
            is_intact = stream.tell() == description.size_bytes and digest.hexdigest() == description.sha256
        except OSError:
            is_intact = False
        if not is_intact:
            stream.close()
            self.remove([name])
            return None
        try:
            os.utime(self._build_description_path(name))
        except OSError:
            pass  # another process has removed it
        return StoredPhrase(path, stream, description)

    def create(self, name: str, headers: Mapping[str, str]) -> PhraseWriter:
        """Return a writer for the audio of a phrase. `headers` state its format."""
        return PhraseWriter(self, name, headers)

    def add(self, name: str, part_path: Path, description: PhraseDescription) -> None:
        """Move a complete file of the directory to its final name, then describe it."""
        content = {**description._asdict(), "headers": dict(description.headers)}
        try:
            part_path.replace(self._build_audio_path(name, description))
            write_atomically(self._build_description_path(name), json.dumps(content).encode())
        except OSError:
            _remove_file(part_path)
            return
        self._added_bytes += description.size_bytes

    def add_file(self, name: str, path: Path, cost_nanousd: int | None, cost_source: CostSource) -> None:
        """Add a file of another directory, which stays. The two share their content if the file system allows it."""
        part_path = build_part_path(self.directory / name)
        if not _link_or_copy(path, part_path):
            return
        digest = hashlib.sha256()
        try:
            with part_path.open("rb") as file:
                while block := file.read(READ_BLOCK_BYTES):
                    digest.update(block)
                size_bytes = file.tell()
        except OSError:
            _remove_file(part_path)
            return
        self.add(name, part_path, PhraseDescription(digest.hexdigest(), size_bytes, {}, cost_nanousd, cost_source))

    def copy_to(self, name: str, path: Path) -> bool:
        """Put the verified audio of a phrase at a path. Return False if it is not stored, or cannot be written.

        The file stays if the phrase is evicted.
        """
        phrase = self.open(name)
        if phrase is None:
            return False
        phrase.close()
        part_path = build_part_path(path)
        if not _link_or_copy(phrase.path, part_path):
            return False
        try:
            os.utime(part_path)  # chunks of unfinished runs are removed by their age
            part_path.replace(path)
        except OSError:
            return False
        finally:
            _remove_file(part_path)  # stays if `path` is the same file already
        return True

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            description = self._read_description(name)
            _remove_file(self._build_description_path(name))
            if description is not None:
                _remove_file(self._build_audio_path(name, description))

    def evict(self) -> None:
        """Remove the phrases that were not used for the longest time, if the cache has become too large.

        The directory is read only if its counted size exceeds the maximum, or the count is a day old.
        """
        if not self._added_bytes:
            return
        total_bytes, counted_at_s = self._read_total()
        total_bytes += self._added_bytes
        self._added_bytes = 0
        now_s = time.time()
        if total_bytes > self._max_bytes or not 0 <= now_s - counted_at_s < MAX_TOTAL_AGE_S:
            total_bytes, counted_at_s = self._remove_oldest(), now_s
        self._write_total(total_bytes, counted_at_s)

    def _remove_oldest(self) -> int:
        """Remove phrases in the order of their last use until the size is below the maximum. Return the size."""
        files: dict[str, list[tuple[str, os.stat_result]]] = {}
        remove_abandoned_parts(self.directory)
        try:
            if self.directory.is_symlink():
                return 0
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    match = PHRASE_FILE_NAME.fullmatch(entry.name)
                    if match and is_own_regular_file(entry):
                        files.setdefault(match[1], []).append((entry.path, entry.stat(follow_symlinks=False)))
        except OSError:
            return 0
        total_bytes = sum(status.st_size for phrase in files.values() for _, status in phrase)
        if total_bytes <= self._max_bytes:
            return total_bytes
        for phrase in sorted(files.values(), key=lambda phrase: max(status.st_mtime for _, status in phrase)):
            if total_bytes <= self._max_bytes * SHARE_AFTER_EVICTION:
                break
            for path, status in phrase:
                _remove_file(Path(path))
                total_bytes -= status.st_size
        return total_bytes

    def _read_total(self) -> tuple[int, float]:
        """Return the counted size of the directory, and when it was counted. Without a count, that is long ago."""
        try:
            size, counted_at_s = read_regular_file(self.directory / TOTAL_FILE_NAME, 100).split()
            return int(size), float(counted_at_s)
        except (OSError, ValueError):
            return 0, 0.0

    def _write_total(self, total_bytes: int, counted_at_s: float) -> None:
        """Overwrite the counted size, which always has the same length.

        A rename over a file would wait for the disk (3 ms, ext4). If the write is incomplete, the next run counts.
        """
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            descriptor = os.open(self.directory / TOTAL_FILE_NAME, flags, 0o600)
        except OSError:
            return
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            try:
                file.write(f"{total_bytes:020d} {counted_at_s:020.0f}\n".encode())
                file.truncate()
            except OSError:
                return

    def _read_description(self, name: str) -> PhraseDescription | None:
        try:
            return parse_description(read_regular_file(self._build_description_path(name), MAX_DESCRIPTION_BYTES))
        except OSError:
            return None

    def _build_description_path(self, name: str) -> Path:
        return self.directory / f"{name}.json"

    def _build_audio_path(self, name: str, description: PhraseDescription) -> Path:
        return self.directory / f"{name}-{description.sha256[:16]}.audio"


def parse_description(content: bytes) -> PhraseDescription | None:
    """Parse the description of a phrase. Return None if it is damaged."""
    try:
        values: Any = json.loads(content)
        cost_nanousd = values["cost_nanousd"]
        description = PhraseDescription(
            str(values["sha256"]),
            int(values["size_bytes"]),
            {str(header): str(value) for header, value in values["headers"].items()},
            None if cost_nanousd is None else int(cost_nanousd),
            CostSource(values["cost_source"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return description if re.fullmatch(r"[0-9a-f]{64}", description.sha256) else None


def _write(file: BinaryIO, block: bytes) -> None:
    """Write a complete block to an unbuffered file. Raises: OSError."""
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]


def _create_file(path: Path) -> BinaryIO | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return create_private_file(path)
    except OSError:
        return None


def _link_or_copy(source: Path, target: Path) -> bool:
    """Create a new file with the content of another one: by a hard link, else by a copy. Return False on failure."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            os.link(source, target, follow_symlinks=False)
        except (OSError, NotImplementedError):  # another file system, or one without links
            with open_regular_file(source) as reader, create_private_file(target) as writer:
                while block := reader.read(READ_BLOCK_BYTES):
                    _write(writer, block)
    except OSError:
        _remove_file(target)
        return False
    return True


def _remove_file(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # `evict` tries again
