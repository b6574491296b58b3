"""Choose unique output paths for the items of a batch."""

from __future__ import annotations

import os
import string
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import UsageError
from ...text.format_names import CAPTIONED_VIDEO
from ...text.slug import render_name

# Extensions that differ from the name of the format.
EXTENSIONS = {"verbose_json": "verbose.json"}
# Extensions of videos, and the extension of a copy with captions. Other containers become Matroska.
VIDEO_COPIES = {".mp4": ".mp4", ".m4v": ".mp4", ".mov": ".mov", ".3gp": ".mp4"} | dict.fromkeys(
    (*(".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".vob"),), ".mkv"
)
MAX_LEVEL = 12
# The code of ISO 639-2 for a language that is not known.
UNKNOWN_LANGUAGE = "und"
MEDIA_SERVER_TEMPLATE = "{stem}.{lang}.{ext}"
NAME_HINT = "use {stem} and {ext} in the template, and leave out recordings of the same name with --exclude"


class InputFile(NamedTuple):
    """A recording and the directory that it was found in or below, which is the root of the tree under `-O`."""

    path: Path
    base_directory: Path


class BatchItem(NamedTuple):
    """One recording, and the format and path of each of its outputs.

    `name_template`: the names have the language of the transcript, which is not known yet. Until `name_item`, they have
    `{lang}` in its place.
    """

    source: Path
    outputs: tuple[tuple[str, Path], ...]
    name_template: str | None = None


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
        source = inputs[index].path
        return tuple(
            stem.with_name(f"{stem.name}.{get_extension(format, source)}") for format in select_formats(formats, source)
        )

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
        BatchItem(file.path, tuple(zip(select_formats(formats, file.path), build_paths(index), strict=True)))
        for index, file in enumerate(inputs)
    ]
    return items, [file.path for file, level in zip(inputs, levels, strict=True) if level]


def plan_named_outputs(
    inputs: Sequence[InputFile],
    formats: Sequence[str],
    output_directory: Path | None,
    template: str,
    language: str | None,
    *,
    normalize: Callable[[str], str] = lambda path: path,
) -> list[BatchItem]:
    """Return an item for each input, whose outputs are named by a template.

    `language` None: it is not known before the transcript. The other arguments are those of `plan_outputs`.

    Raises:
        UsageError: The template is invalid, or two outputs, or an output and a recording, would have one path.
    """
    recordings = {normalize(str(make_absolute(file.path))): file.path for file in inputs}
    sources_by_key: dict[str, Path] = {}
    items = []
    for file in inputs:
        outputs: list[tuple[str, Path]] = []
        stem_path = _build_stem(make_absolute(file.path), file, output_directory, None, 0)
        for format in select_formats(formats, file.path):
            path = stem_path.with_name(render_output_name(template, file.path, format, language))
            key = normalize(str(path))
            other = sources_by_key.setdefault(key, file.path)
            if other != file.path or any(path == output for _, output in outputs):
                both = f"{other} and {file.path}" if other != file.path else f"all formats of {file.path}"
                raise UsageError(f"--name {template}: {both} would be written to {path.name}", hint=NAME_HINT)
            if key in recordings:
                raise UsageError(f"--name {template}: the transcript would overwrite the recording {recordings[key]}")
            outputs.append((format, path))
        is_open = language is None and "lang" in list_fields(template)
        items.append(BatchItem(file.path, tuple(outputs), template if is_open else None))
    return items


def name_item(item: BatchItem, language: str | None) -> BatchItem:
    """Return an item with final names, now that the language of its transcript is known. None is `und`."""
    if item.name_template is None:
        return item
    names = [
        render_output_name(item.name_template, item.source, format, language or UNKNOWN_LANGUAGE)
        for format, _ in item.outputs
    ]
    outputs = ((format, path.with_name(name)) for (format, path), name in zip(item.outputs, names, strict=True))
    return BatchItem(item.source, tuple(outputs))


def render_output_name(template: str, source: Path, format: str, language: str | None) -> str:
    """Return the name of an output. Without `{ext}` in the template, the extension is added.

    Raises:
        UsageError: The template has a directory, an unknown field or an invalid format.
    """
    extension = get_extension(format, source)
    fields = {"stem": source.stem, "lang": "{lang}" if language is None else language, "ext": extension}
    return render_name(template, fields, extension="" if "ext" in list_fields(template) else extension)


def select_formats(formats: Sequence[str], source: Path) -> tuple[str, ...]:
    """Return the formats of a recording: captions are only written into a copy of a video."""
    is_video = source.suffix.lower() in VIDEO_COPIES
    return tuple(format for format in formats if format != CAPTIONED_VIDEO or is_video)


def get_extension(format: str, source: Path) -> str:
    """Return the extension of an output, without its first dot. That of a video follows from the recording."""
    if format == CAPTIONED_VIDEO:
        return f"{CAPTIONED_VIDEO}{VIDEO_COPIES.get(source.suffix.lower(), '.mkv')}"
    return EXTENSIONS.get(format, format)


def list_fields(template: str) -> frozenset[str]:
    """Return the fields of a template; none if it is invalid."""
    try:
        return frozenset(field for _, field, _, _ in string.Formatter().parse(template) if field)
    except ValueError:
        return frozenset()


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
