"""Which recordings are meant: files, folders, patterns and lists of them."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..audio import formats, signatures
from ..context import AppContext
from ..core.batch.output_paths import Found
from ..errors import UsageError
from . import inputs

# Endings that other kinds of files have as well, or that say nothing: only what is inside counts.
AMBIGUOUS = frozenset({"ts", "pcm", "au", "mpeg"})
LIST_BYTES = 256 * 1024 * 1024


class DiscoveryOptions(NamedTuple):
    """How folders are looked through."""

    recursive: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class DiscoveryResult(NamedTuple):
    """What was found, in order, and folders that could not be read, with the reason."""

    recordings: tuple[Found, ...]
    unreadable: tuple[tuple[Path, str], ...]
    left_out: int = 0


def find(env: AppContext, sources: Sequence[str], files_from: str | None, search: DiscoveryOptions) -> DiscoveryResult:
    """Find all recordings, each once, those of a folder in the order of their names.

    Raises: UsageError: a source that is not there, a pattern that nothing fits, an unreadable list.
    """
    finder = _Finder(search)
    for source in sources:
        finder.take(source)
    if files_from is not None:
        for name in _listed(env, files_from):
            finder.take(name, is_listed=True)
    return DiscoveryResult(tuple(finder.found.values()), tuple(finder.unreadable), finder.left_out)


class _Finder:
    def __init__(self, search: DiscoveryOptions) -> None:
        self._search = search
        self.found: dict[str, Found] = {}
        self.unreadable: list[tuple[Path, str]] = []
        self.left_out = 0

    def take(self, source: str, *, is_listed: bool = False) -> None:
        """Take what the user named. What a list names and is not there fails by itself, later."""
        if not source:
            raise UsageError("an empty name among the recordings")
        if source == "-":
            raise UsageError("stdin goes alone", hint="names of recordings on stdin: --files-from -")
        if os.path.isdir(source):  # noqa: PTH112 - names may hold what Path refuses
            self._folder(Path(source))
        elif os.path.lexists(source) or is_listed:
            self._add(Path(source), Path(source).parent)
        elif glob.has_magic(source):
            self._pattern(source)
        else:
            raise UsageError(f"cannot read {source}: No such file or directory")

    def _add(self, path: Path, base: Path) -> None:
        self.found.setdefault(os.path.abspath(path), Found(path, base))  # noqa: PTH100 - links stay links

    def _pattern(self, pattern: str) -> None:
        base = _fixed(pattern)
        names = sorted(glob.iglob(pattern, recursive=True), key=os.fsencode)  # noqa: PTH207 - Path wants a base
        if not names:
            raise UsageError(f"nothing fits {pattern}")
        for name in names:
            path = Path(name)
            if path.is_dir():
                if "**" not in pattern:
                    self._folder(path)
            elif self._is_wanted(path, base) and _is_recording(path):
                self._add(path, base)

    def _folder(self, folder: Path) -> None:
        for path in self._below(folder, folder, set()):
            self._add(path, folder)

    def _below(self, folder: Path, base: Path, passed: set[tuple[int, int]]) -> Iterator[Path]:
        """Walk a folder; one that was passed already, by whatever way, is not walked again."""
        try:
            about = folder.stat()
            if (about.st_dev, about.st_ino) in passed:
                return
            passed.add((about.st_dev, about.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            self.unreadable.append((folder, error.strerror or str(error)))
            return
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # links that lead to themselves
                continue
            if is_folder and not _fits(path, base, self._search.exclude):
                if self._search.recursive:
                    yield from self._below(path, base, passed)
                else:
                    self.left_out += 1
            elif is_file and self._is_wanted(path, base) and _is_recording(path):
                yield path

    def _is_wanted(self, path: Path, base: Path) -> bool:
        include, exclude = self._search.include, self._search.exclude
        return (not include or _fits(path, base, include)) and not _fits(path, base, exclude)


def _fits(path: Path, base: Path, patterns: Sequence[str]) -> bool:
    """Hold a name against patterns; one with a slash in it is held against the path below the folder."""
    if not patterns:
        return False
    below = os.path.relpath(path, base).replace(os.sep, "/")
    return any(fnmatch.fnmatchcase(below if "/" in pattern else path.name, pattern.strip("/")) for pattern in patterns)


def _is_recording(path: Path) -> bool:
    """Tell whether a file in a folder is meant: it is called a recording, or it is one."""
    row = formats.of_path(path)
    if row is not None and row.name not in AMBIGUOUS:
        return True
    try:
        with path.open("rb", buffering=0) as file:
            return signatures.sniff(file.read(signatures.HEAD_BYTES)) is not None
    except OSError:
        return False


def _fixed(pattern: str) -> Path:
    """Give the folder that a pattern begins with."""
    parts = Path(pattern).parts
    count = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:count]) if count else Path()


def _listed(env: AppContext, source: str) -> list[str]:
    """Read names, one on a line or with NUL between them. Raises: UsageError."""
    if source == "-" and env.stdin_is_terminal:
        raise UsageError("--files-from - reads names from a pipe")
    content = inputs.read_list(env, source, LIST_BYTES)
    mark = b"\0" if b"\0" in content else b"\n"
    lines = content.split(mark)
    if mark == b"\n":
        lines = [line.removesuffix(b"\r") for line in lines]
    names = [os.fsdecode(line) for line in lines if line]
    if not names:
        raise UsageError(f"no names in {'stdin' if source == '-' else source}")
    return names
