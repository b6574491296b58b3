"""What audiocli has stored, for `audiocli cache`: sizes, what it cost, and removal.

Files are recognized by their names. Symlinks, other names and the files of other users are never counted or removed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..gateways.local_models import LOCAL_MODELS
from ..private_files import PART_NAME, build_temporary_directory_path, is_own_regular_file, read_regular_file
from ..process_ids import is_running
from ..types.ledger import CostSource
from .phrase_cache import PHRASE_FILE_NAME, TOTAL_FILE_NAME

_HASH_NAME = r"[0-9a-f]{32}"
_RESPONSE_NAME = re.compile(r"[0-9a-f]{24}")
_RESPONSE_KINDS = ("models", "model_details", "model_requests", "lessons", "weights", "daily_warnings")
_RESCUED_NAME = re.compile(r"[0-9a-f]{8}-.+", re.DOTALL)
# The names of `core.uploads`.
_UPLOAD_NAME = re.compile(r"[0-9a-f]{8}-upload\.\w+|[0-9a-f]{16}-\d+\.\w+")
# A younger upload may be in use: its name does not say by which process.
MIN_UPLOAD_AGE_S = 24 * 3600
# In transcripts and in descriptions of phrases. Quotation marks inside a string are escaped, so these are keys.
_STORED_COST = re.compile(rb'"cost_nanousd": (\d+), "cost_source": "(\w+)"')


class StorePart(NamedTuple):
    """The files of a store in one directory. `min_age_s`: younger ones are not removed."""

    directory: Path
    names: re.Pattern[str]
    min_age_s: float = 0.0


class Store(NamedTuple):
    """A kind of stored files.

    Attributes:
        is_paid: Whether the files cost money.
        is_removable: Whether `audiocli cache clear` may remove them.
        cost_names: Names of the files that say what they cost.
    """

    name: str
    content: str
    is_paid: bool
    parts: tuple[StorePart, ...]
    is_removable: bool = True
    cost_names: re.Pattern[str] | None = None


class StoreUsage(NamedTuple):
    """The files of a store: `costs` are the known ones, `unknown_count` is the number of results of unknown cost."""

    file_count: int = 0
    size_bytes: int = 0
    oldest_s: float | None = None
    costs: tuple[tuple[int, CostSource], ...] = ()
    unknown_count: int = 0


def list_stores(data_directory: Path, cache_directory: Path) -> tuple[Store, ...]:
    """Return every store, first those that are free to fetch again."""

    def build_scratch_parts(name: str, pattern: str) -> tuple[StorePart, ...]:
        names = re.compile(pattern, re.DOTALL)
        directories = (cache_directory / name, build_temporary_directory_path(name))
        return tuple(StorePart(directory, names) for directory in directories)

    transcript_names = re.compile(rf"{_HASH_NAME}\.json")
    phrases_directory = data_directory / "phrases"
    return (
        Store(
            "responses",
            "model lists, prices, capabilities",
            False,
            (
                *(StorePart(cache_directory / kind, _RESPONSE_NAME) for kind in _RESPONSE_KINDS),
                StorePart(cache_directory, re.compile(r"completion\.txt")),
            ),
        ),
        Store("scratch", "uploads, joined models", False, tuple(_list_scratch_parts(cache_directory))),
        Store(
            "phrases",
            "speech of finished runs",
            True,
            (
                StorePart(phrases_directory, PHRASE_FILE_NAME),
                StorePart(phrases_directory, re.compile(TOTAL_FILE_NAME)),
            ),
            cost_names=re.compile(rf"{_HASH_NAME}\.json"),
        ),
        Store(
            "rejected",
            "speech that failed --verify",
            True,
            (
                StorePart(data_directory / "rejected", PHRASE_FILE_NAME),
                StorePart(data_directory / "rejected", re.compile(TOTAL_FILE_NAME)),
            ),
            cost_names=re.compile(rf"{_HASH_NAME}\.json"),
        ),
        Store(
            "verifications",
            "transcripts of verified speech",
            True,
            (StorePart(data_directory / "verifications", transcript_names),),
            cost_names=transcript_names,
        ),
        Store(
            "transcripts",
            "transcripts of recordings",
            True,
            (StorePart(data_directory / "transcripts", transcript_names),),
            cost_names=transcript_names,
        ),
        Store(
            "unfinished",
            "chunks of unfinished runs",
            True,
            build_scratch_parts("speech", rf"{_HASH_NAME}\.wav") + build_scratch_parts("texts", rf"{_HASH_NAME}\.json"),
            cost_names=re.compile(rf"{_HASH_NAME}\.(json|wav)"),
        ),
        Store(
            "rescued",
            "results that could not be written",
            True,
            build_scratch_parts("kept", _RESCUED_NAME.pattern),
            is_removable=False,
            cost_names=_RESCUED_NAME,
        ),
    )


def _list_scratch_parts(cache_directory: Path) -> Iterator[StorePart]:
    for directory in (cache_directory / "uploads", build_temporary_directory_path("uploads")):
        yield StorePart(directory, _UPLOAD_NAME, MIN_UPLOAD_AGE_S)
    for model in LOCAL_MODELS:
        names = re.compile("|".join(re.escape(file.name) for file in model.files))
        for directory in (cache_directory / "models", build_temporary_directory_path("models")):
            yield StorePart(directory / model.name, names)


def measure_store(store: Store) -> StoreUsage:
    """Return the number, the size, the age and the cost of the files of a store."""
    return _add_up(store, remove=False)


def clear_store(store: Store) -> StoreUsage:
    """Remove the files of a store, and return what was removed. The files of running processes stay usable."""
    return _add_up(store, remove=True)


def _add_up(store: Store, *, remove: bool) -> StoreUsage:
    usage = StoreUsage()
    costs: list[tuple[int, CostSource]] = []
    for part in store.parts:
        for path, status in _list_files(part, for_removal=remove):
            is_result = store.cost_names is not None and store.cost_names.fullmatch(path.name) is not None
            cost = _read_cost(path) if is_result else None
            if remove:
                try:
                    path.unlink()
                except OSError:
                    continue  # another process has removed it, or it is not permitted
            usage = StoreUsage(
                usage.file_count + 1,
                usage.size_bytes + status.st_size,
                status.st_mtime if usage.oldest_s is None else min(usage.oldest_s, status.st_mtime),
                unknown_count=usage.unknown_count + (is_result and cost is None),
            )
            if cost is not None:
                costs.append(cost)
    return usage._replace(costs=tuple(costs))


def _list_files(part: StorePart, *, for_removal: bool) -> list[tuple[Path, os.stat_result]]:
    """Return the files of a part of a store, with the unfinished ones of processes that have ended."""
    files = []
    min_age_s = part.min_age_s if for_removal else 0.0
    try:
        if part.directory.is_symlink():
            return []
        with os.scandir(part.directory) as entries:
            for entry in entries:
                unfinished = PART_NAME.fullmatch(entry.name)
                is_ours = not is_running(unfinished[1]) if unfinished else part.names.fullmatch(entry.name) is not None
                if is_ours and is_own_regular_file(entry):
                    status = entry.stat(follow_symlinks=False)
                    if time.time() - status.st_mtime >= min_age_s:
                        files.append((Path(entry.path), status))
    except OSError:
        return files  # it does not exist, or is not readable
    return files


def _read_cost(path: Path) -> tuple[int, CostSource] | None:
    """Return what a stored result cost in nano-dollars; None if that is unknown."""
    if path.suffix != ".json":
        return None
    try:
        match = _STORED_COST.search(read_regular_file(path))
    except OSError:
        return None
    return (int(match[1]), CostSource(match[2].decode())) if match else None
