"""What outputs are called: beside their recordings or in a tree of their own, and never two of the same name."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ENDINGS = {"verbose_json": "verbose.json"}
HIGHEST = 12


class Found(NamedTuple):
    """A recording, and the folder it was found in or below: that of the tree under `-O`."""

    path: Path
    base: Path


class Task(NamedTuple):
    """One recording and what is to be made of it: formats and files."""

    source: Path
    targets: tuple[tuple[str, Path], ...]


def tasks(
    found: Sequence[Found],
    formats: Sequence[str],
    folder: Path | None,
    *,
    fold: Callable[[str], str] = lambda name: name,
) -> tuple[list[Task], list[Path]]:
    """Give every recording its outputs; the second value are those that could not have the usual name.

    The usual name is that of the recording without its ending. Where two would have the same, or one that of a
    recording, both keep their endings; where that is the same still, they stand below the folders they come from, and
    in the end marks are added. `fold` tells which names are one to the file system.
    """
    paths = [_absolute(one.path) for one in found]
    common = _common([_absolute(one.base) for one in found]) if folder is not None else None
    taken = {fold(str(path)) for path in paths}
    levels = [0] * len(found)

    def names(place: int) -> tuple[Path, ...]:
        stem = _stem(paths[place], found[place], folder, common, levels[place])
        return tuple(stem.with_name(f"{stem.name}.{ENDINGS.get(format, format)}") for format in formats)

    pending = list(range(len(found)))
    while pending:
        claimed: dict[str, list[int]] = defaultdict(list)
        for place in range(len(found)):
            for name in names(place):
                claimed[fold(str(name))].append(place)
        crowded = {place for key, places in claimed.items() if len(places) > 1 or key in taken for place in places}
        pending = [place for place in crowded if levels[place] < HIGHEST]
        for place in pending:
            levels[place] += 1
    made = [Task(one.path, tuple(zip(formats, names(place), strict=True))) for place, one in enumerate(found)]
    return made, [one.path for place, one in enumerate(found) if levels[place]]


def _stem(path: Path, found: Found, folder: Path | None, common: Path | None, level: int) -> Path:
    """Give the name of an output without the ending of its format."""
    base = _absolute(found.base)
    if folder is None:
        place = path
    else:
        below = common if level >= 2 and common is not None else base
        place = folder / path.relative_to(below)
    return place.with_name(place.name + "-" * (level - 2)) if level else place.with_name(place.stem)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` would follow links, and names are names


def _common(bases: Sequence[Path]) -> Path | None:
    try:
        return Path(os.path.commonpath(bases)) if bases else None
    except ValueError:  # drives of Windows
        return None
