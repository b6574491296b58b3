"""Choose unique output paths for the items of a batch."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

# Extensions that differ from the name of the format.
EXTENSIONS = {"verbose_json": "verbose.json"}
MAX_LEVEL = 12


class InputFile(NamedTuple):
    """A recording and the directory that it was found in or below, which is the root of the tree under `-O`."""

    path: Path
    base_directory: Path


class BatchItem(NamedTuple):
    """One recording, and the format and path of each of its outputs."""

    source: Path
    outputs: tuple[tuple[str, Path], ...]


def plan_outputs(
    inputs: Sequence[InputFile],
    formats: Sequence[str],
    output_directory: Path | None,
    *,
    normalize: Callable[[str], str] = lambda path: path,
) -> tuple[list[BatchItem], list[Path]]:
    """Return an item for each input, and the inputs whose outputs did not get the default name.

    The default name replaces the extension of the recording. Where two outputs, or an output and a recording, would
    have the same path, a higher level is tried for each of them:

    * level 1 keeps the extension of the recording,
    * level 2 also keeps the directories below the common parent (with `output_directory` only),
    * each further level appends a hyphen.

    Args:
        output_directory: Root of the outputs. None: each output is beside its recording.
        normalize: Map a path to a key that is equal for paths that the file system takes for the same.
    """
    paths = [make_absolute(file.path) for file in inputs]
    common_parent = None
    if output_directory is not None:
        common_parent = _find_common_parent([make_absolute(file.base_directory) for file in inputs])
    input_keys = {normalize(str(path)) for path in paths}
    levels = [0] * len(inputs)

    def build_paths(index: int) -> tuple[Path, ...]:
        stem = _build_stem(paths[index], inputs[index], output_directory, common_parent, levels[index])
        return tuple(stem.with_name(f"{stem.name}.{EXTENSIONS.get(format, format)}") for format in formats)

    pending = list(range(len(inputs)))
    while pending:
        indexes_by_key: dict[str, list[int]] = defaultdict(list)
        for index in range(len(inputs)):
            for path in build_paths(index):
                indexes_by_key[normalize(str(path))].append(index)
        conflicting = {
            index
            for key, indexes in indexes_by_key.items()
            if len(indexes) > 1 or key in input_keys
            for index in indexes
        }
        pending = [index for index in conflicting if levels[index] < MAX_LEVEL]
        for index in pending:
            levels[index] += 1
    items = [
        BatchItem(file.path, tuple(zip(formats, build_paths(index), strict=True))) for index, file in enumerate(inputs)
    ]
    return items, [file.path for file, level in zip(inputs, levels, strict=True) if level]


def _build_stem(
    path: Path, file: InputFile, output_directory: Path | None, common_parent: Path | None, level: int
) -> Path:
    """Return the output path without the extension of its format."""
    stem = path
    if output_directory is not None:
        root = common_parent if level >= 2 and common_parent is not None else make_absolute(file.base_directory)
        stem = output_directory / path.relative_to(root)
    return stem.with_name(stem.name + "-" * (level - 2)) if level else stem.with_name(stem.stem)


def make_absolute(path: Path) -> Path:
    """Return the absolute path, with its symlinks: `resolve` would follow them and change the name."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def make_relative(path: str) -> str:
    """Return the path relative to the working directory; unchanged on another drive (Windows)."""
    try:
        return os.path.relpath(path)
    except ValueError:
        return path


def _find_common_parent(directories: Sequence[Path]) -> Path | None:
    try:
        return Path(os.path.commonpath(directories)) if directories else None
    except ValueError:  # different drives (Windows)
        return None
