"""Items of a batch with objects, and names for their outputs."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias

from ...types.objects import Location, ObjectUrl
from ...types.stores import ListedObject, ObjectVersion
from .output_paths import BatchItem, InputFile, get_extension, plan_named_outputs, plan_outputs, select_formats


class ObjectItem(NamedTuple):
    """A recording with its outputs, where the recording or the outputs are objects.

    Attributes:
        name_template: That of `BatchItem`.
        version: The version of the source in a listing; None if it was not listed.
        problem: Why the source cannot be used.
    """

    source: Location
    outputs: tuple[tuple[str, Location], ...]
    name_template: str | None = None
    version: ObjectVersion | None = None
    problem: str | None = None


Item: TypeAlias = BatchItem | ObjectItem
ItemWindows: TypeAlias = AsyncIterable[Sequence[Item]]
"""Items that are listed in windows, each time that they are iterated."""


class InputLocation(NamedTuple):
    """A recording and the directory or prefix that it was found below, which is the root of the tree under `-O`."""

    location: Location
    base: Location


class Naming(NamedTuple):
    """How outputs are named. The language is None if it is not known before the transcript."""

    template: str
    language: str | None


def plan_object_outputs(
    inputs: Sequence[InputLocation],
    formats: Sequence[str],
    output_directory: Location | None,
    naming: Naming | None,
    versions: Mapping[ObjectUrl, ObjectVersion],
    *,
    normalize: Callable[[str], str] = lambda path: path,
) -> tuple[list[ObjectItem], list[Location]]:
    """Name the outputs of recordings as `plan_outputs` and `plan_named_outputs` do, for files and objects together.

    Objects are planned as files below a directory that stands for their store.

    Raises:
        UsageError: The template is invalid, or two outputs would have one name.
    """
    locations = {_build_planning_path(entry.location): entry.location for entry in inputs}
    files = [InputFile(_build_planning_path(entry.location), _build_planning_path(entry.base)) for entry in inputs]
    directory = None if output_directory is None else _build_planning_path(output_directory)
    if naming is not None:
        items, renamed = plan_named_outputs(files, formats, directory, *naming, normalize=normalize), list[Path]()
    else:
        items, renamed = plan_outputs(files, formats, directory, normalize=normalize)
    planned = []
    for item in items:
        source = locations[item.source]
        root = source if output_directory is None else output_directory
        outputs = tuple((format, _parse_planning_path(path, root)) for format, path in item.outputs)
        version = versions.get(source) if isinstance(source, ObjectUrl) else None
        planned.append(ObjectItem(source, outputs, item.name_template, version))
    return planned, [locations[path] for path in renamed]


def _build_planning_path(location: Location) -> Path:
    if isinstance(location, Path):
        return location
    return Path("/", location.scheme, location.bucket, *PurePosixPath(location.key).parts)


def _parse_planning_path(path: Path, root: Location) -> Location:
    if isinstance(root, Path):
        return path
    scheme, bucket, *parts = path.parts[1:]
    return ObjectUrl(f"{scheme}://{bucket}", "/".join(parts))


class NamedObject(NamedTuple):
    """An object of a listing, and whether the names of its outputs keep its extension."""

    listed: ListedObject
    keeps_extension: bool


class StemTracker:
    """Finds keys of a sorted listing whose outputs would have the same names, with few keys in memory.

    Outputs are named after the key without its extension. The extension is kept if another recording has the same key
    without extension (`a.mp3`, `a.wav`), or if that is the key of another one (`a.mp3.flac`, `a.mp3`). Names are then
    unique, whatever else the listing has. All keys that matter for a key begin with its stem and a dot, and they are
    neighbors in the order of the listing.
    """

    def __init__(self, reserved_stem_suffix: str | None = None) -> None:
        """Create a tracker. Stems with the suffix keep their extension, because a format adds the same one."""
        self._reserved = reserved_stem_suffix
        self._pending: list[_PendingKey] = []

    def add(self, listed: ListedObject) -> Iterator[NamedObject]:
        """Add the next key, and yield those that no later key can affect."""
        key = listed.url.key
        entry = _PendingKey(listed, key[: len(key) - len(listed.url.suffix)])
        entry.keeps_extension = self._reserved is not None and entry.stem.endswith(self._reserved)
        remaining = []
        for pending in self._pending:
            if not key.startswith(f"{pending.stem}."):
                yield NamedObject(pending.listed, pending.keeps_extension)
                continue
            remaining.append(pending)
            if pending.stem == entry.stem:
                pending.keeps_extension = entry.keeps_extension = True
            if pending.listed.url.key == entry.stem:
                entry.keeps_extension = True
        self._pending = [*remaining, entry]

    def finish(self) -> Iterator[NamedObject]:
        """Yield the keys that are left."""
        for pending in self._pending:
            yield NamedObject(pending.listed, pending.keeps_extension)
        self._pending = []


class _PendingKey:
    __slots__ = ("keeps_extension", "listed", "stem")

    def __init__(self, listed: ListedObject, stem: str) -> None:
        self.listed = listed
        self.stem = stem
        self.keeps_extension = False


class PrefixPlan(NamedTuple):
    """How the recordings below a prefix become items.

    Attributes:
        base: The prefix whose keys are relative under `output_directory`.
        output_directory: Root of the outputs; None: each output is beside its recording.
        accepts: Return whether a key is that of a recording that was asked for.
    """

    base: ObjectUrl
    formats: tuple[str, ...]
    output_directory: Location | None
    accepts: Callable[[ObjectUrl], bool]


async def plan_windows(
    windows: AsyncIterator[Iterable[ListedObject]], plan: PrefixPlan
) -> AsyncIterator[list[ObjectItem]]:
    """Yield the items of a listing in windows. Their outputs have unique names. Few items are in memory."""
    reserved = ".verbose" if {"json", "verbose_json"} <= set(plan.formats) else None
    tracker = StemTracker(reserved)
    async for window in windows:
        items: list[ObjectItem] = []
        for listed in window:
            if listed.problem is not None:
                items.append(ObjectItem(listed.url, (), problem=listed.problem))
            elif plan.accepts(listed.url):
                items += [plan_item(named, plan) for named in tracker.add(listed)]
        if items:
            yield items
    if remaining := [plan_item(named, plan) for named in tracker.finish()]:
        yield remaining


def plan_item(named: NamedObject, plan: PrefixPlan) -> ObjectItem:
    """Return the item of an object. It has no outputs if no format applies to it."""
    source = named.listed.url
    relative = source.key[len(plan.base.key) + 1 :] if plan.base.key else source.key
    stem = relative if named.keeps_extension else relative[: len(relative) - len(source.suffix)]
    root = plan.output_directory if plan.output_directory is not None else plan.base
    source_name = Path(source.name)
    outputs = tuple(
        (format, join_location(root, f"{stem}.{get_extension(format, source_name)}"))
        for format in select_formats(plan.formats, source_name)
    )
    return ObjectItem(source, outputs, version=named.listed.version)


def join_location(root: Location, relative_key: str) -> Location:
    """Return a location below a directory or a prefix."""
    return root.joinpath(*relative_key.split("/")) if isinstance(root, Path) else root.join(relative_key)
