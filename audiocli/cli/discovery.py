"""Find the recordings of a batch: files, directories, globs and lists of names."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..audio import formats, signatures
from ..context import AppContext
from ..core.batch.output_paths import VIDEO_COPIES, InputFile
from ..errors import UsageError
from ..text.format_names import CAPTIONED_VIDEO
from .inputs import is_stream_source, read_bytes, reject_url

# Extensions that other file types share. These files are detected by their content.
AMBIGUOUS_FORMATS = frozenset({"ts", "pcm", "au", "mpeg"})
MAX_LIST_BYTES = 256 * 1024 * 1024


class DiscoveryOptions(NamedTuple):
    """Values of `--recursive`, `--include` and `--exclude`."""

    recursive: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class DiscoveryResult(NamedTuple):
    """Recordings in order, and unreadable directories with the reason.

    `skipped_directories` counts subdirectories that were skipped without `--recursive`.
    """

    recordings: tuple[InputFile, ...]
    unreadable: tuple[tuple[Path, str], ...]
    skipped_directories: int = 0


def find_recordings(
    sources: Sequence[str], listed: Sequence[str], discovery_options: DiscoveryOptions
) -> DiscoveryResult:
    """Return all recordings without duplicates. Those of a directory are sorted by name.

    `listed` are the names of a list (`read_names`).

    Raises:
        UsageError: A source is missing, or a glob has no matches.
    """
    finder = _RecordingFinder(discovery_options)
    for source in sources:
        finder.add_source(source)
    for name in listed:
        finder.add_source(name, is_listed=True)
    return DiscoveryResult(tuple(finder.recordings.values()), tuple(finder.unreadable), finder.skipped_directories)


class DirectoryListing:
    """The recordings below one directory, listed while the first ones are processed.

    `unreadable` has the directories that could not be listed so far, with the reason.
    """

    def __init__(self, directory: Path, discovery_options: DiscoveryOptions) -> None:
        self._finder = _RecordingFinder(discovery_options)
        self._windows = self._finder.iterate_directories(directory)
        self._first = next(filter(None, self._windows), [])

    @property
    def unreadable(self) -> list[tuple[Path, str]]:
        return self._finder.unreadable

    @property
    def is_empty(self) -> bool:
        return not self._first

    def __iter__(self) -> Iterator[list[InputFile]]:
        """Yield the recordings of each directory, once."""
        yield self._first
        yield from filter(None, self._windows)


class _RecordingFinder:
    def __init__(self, discovery_options: DiscoveryOptions) -> None:
        self._options = discovery_options
        self.recordings: dict[str, InputFile] = {}
        self.unreadable: list[tuple[Path, str]] = []
        self.skipped_directories = 0

    def add_source(self, source: str, *, is_listed: bool = False) -> None:
        """Add a file, a directory or the matches of a glob.

        A missing file in a list of names is accepted here; it fails later as one item of the batch.
        """
        if not source:
            raise UsageError("the path of a recording is empty")
        if source == "-":
            raise UsageError(
                "- cannot be used with other recordings", hint="use --files-from - to read names from stdin"
            )
        reject_url(source)
        if is_stream_source(source):
            raise UsageError(
                f"{source} is a pipe or a device, which cannot be used with other recordings",
                hint="transcribe it in a command of its own, or save it to a file",
            )
        if os.path.isdir(source):  # noqa: PTH112 - Path rejects some names
            self._add_directory(Path(source))
        elif os.path.lexists(source) or is_listed:
            self._add_file(Path(source), Path(source).parent)
        elif glob.has_magic(source):
            self._add_matches(source)
        else:
            raise UsageError(f"cannot read {source}: No such file or directory")

    def _add_file(self, path: Path, base: Path) -> None:
        self.recordings.setdefault(os.path.abspath(path), InputFile(path, base))  # noqa: PTH100 - keeps symlinks

    def _add_matches(self, pattern: str) -> None:
        base = _find_base_directory(pattern)
        names = sorted(glob.iglob(pattern, recursive=True), key=os.fsencode)  # noqa: PTH207 - no base directory
        if not names:
            raise UsageError(f"no files match {pattern!r}")
        for name in names:
            path = Path(name)
            if path.is_dir():
                if "**" not in pattern:
                    self._add_directory(path)
            elif self._passes_filters(path, base) and _is_recording(path):
                self._add_file(path, base)

    def _add_directory(self, directory: Path) -> None:
        for path in self._walk(directory, directory, set()):
            self._add_file(path, directory)

    def _walk(self, directory: Path, base: Path, visited: set[tuple[int, int]]) -> Iterator[Path]:
        """Yield the recordings below a directory. Each directory is visited once, even with symlink cycles."""
        for path, is_directory in self._list(directory, base, visited):
            if not is_directory:
                yield path
            elif self._options.recursive:
                yield from self._walk(path, base, visited)
            else:
                self.skipped_directories += 1

    def iterate_directories(self, base: Path) -> Iterator[list[InputFile]]:
        """Yield the recordings of one directory after the other, so that memory does not grow with a tree."""
        visited: set[tuple[int, int]] = set()
        pending = [base]
        while pending:
            entries = list(self._list(pending.pop(), base, visited))
            yield [InputFile(path, base) for path, is_directory in entries if not is_directory]
            directories = [path for path, is_directory in entries if is_directory]
            pending += reversed(directories if self._options.recursive else [])

    def _list(self, directory: Path, base: Path, visited: set[tuple[int, int]]) -> Iterator[tuple[Path, bool]]:
        """Yield the recordings and the subdirectories of a directory, and whether each is a directory."""
        try:
            status = directory.stat()
            if (status.st_dev, status.st_ino) in visited:
                return
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(directory) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            self.unreadable.append((directory, error.strerror or str(error)))
            return
        for entry in entries:
            path = directory / entry.name
            if entry.name.startswith("."):
                continue
            try:
                is_directory, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # symlink loop
                continue
            if is_directory and not _matches_any(path, base, self._options.exclude):
                yield path, True
            elif is_file and self._passes_filters(path, base) and _is_recording(path):
                yield path, False

    def _passes_filters(self, path: Path, base: Path) -> bool:
        include, exclude = self._options.include, self._options.exclude
        return (not include or _matches_any(path, base, include)) and not _matches_any(path, base, exclude)


def _matches_any(path: Path, base: Path, patterns: Sequence[str]) -> bool:
    """Return whether a name matches a glob. A glob with a slash is matched against the path relative to `base`."""
    if not patterns:
        return False
    relative_path = os.path.relpath(path, base).replace(os.sep, "/")
    return any(
        fnmatch.fnmatchcase(relative_path if "/" in pattern else path.name, pattern.strip("/")) for pattern in patterns
    )


def _is_recording(path: Path) -> bool:
    """Return whether a file has the extension or the content of a recording."""
    if _is_captioned_copy(path):
        return False
    format = formats.find_format_for_path(path)
    if format is not None and format.name not in AMBIGUOUS_FORMATS:
        return True
    try:
        with path.open("rb", buffering=0) as file:
            return signatures.sniff_name(file.read(signatures.SNIFF_BYTES)) is not None
    except OSError:
        return False


def _is_captioned_copy(path: Path) -> bool:
    """Return whether a file is the copy that `--embed-captions` writes beside a video."""
    stem, dot, suffix = path.stem.rpartition(".")
    if not dot or suffix != CAPTIONED_VIDEO or path.suffix not in VIDEO_COPIES.values():
        return False
    return any(path.with_name(stem + extension).is_file() for extension in VIDEO_COPIES)


def _find_base_directory(pattern: str) -> Path:
    """Return the part of a glob before its first wildcard."""
    parts = Path(pattern).parts
    count = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:count]) if count else Path()


def read_names(app: AppContext, source: str) -> list[str]:
    """Read names separated by newlines or NUL. Raises: UsageError: No names, or an unreadable list."""
    if source == "-" and app.stdin.isatty():
        raise UsageError("--files-from - requires a pipe on stdin")
    content = read_bytes(app, source, MAX_LIST_BYTES)
    separator = b"\0" if b"\0" in content else b"\n"
    lines = content.split(separator)
    if separator == b"\n":
        lines = [line.removesuffix(b"\r") for line in lines]
    names = [os.fsdecode(line) for line in lines if line]
    if not names:
        raise UsageError(f"no names in {'stdin' if source == '-' else source}")
    return names
