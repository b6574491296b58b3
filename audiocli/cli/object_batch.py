"""`audiocli transcribe` for several recordings whose inputs or outputs are in an object store."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..audio import formats
from ..context import AppContext
from ..core.batch.object_items import (
    InputLocation,
    Item,
    Naming,
    ObjectItem,
    PrefixPlan,
    plan_object_outputs,
    plan_windows,
)
from ..core.batch.object_listing import iter_objects
from ..core.batch.output_paths import VIDEO_COPIES
from ..errors import UsageError
from ..text.format_names import CAPTIONED_VIDEO
from ..types.objects import Location, ObjectUrl, parse_object_url
from ..types.stores import ObjectVersion
from .batch import BatchControl, BatchPlan, get_path_normalizer, run_items
from .discovery import DiscoveryOptions, DiscoveryResult, find_recordings
from .inputs import is_object
from .outputs import open_manifest, resolve_output_directory

if TYPE_CHECKING:
    from ..console import Console
    from ..core.run_context import RunContext
    from ..object_store import ObjectStores
    from .transcribe import TranscribeOptions, TranscribePlan

# An extension of raw samples says nothing about their rate.
UNUSABLE_FORMATS = frozenset({"pcm"})


def run(
    app: AppContext, console: Console, plan: TranscribePlan, listed: Sequence[str], *, read_timeout_s: float
) -> int:
    """Run a batch and return its exit code. `listed` are the names of `--files-from`.

    Raises:
        AudiocliError: The batch cannot start. Failures of single items only change the exit code.
    """
    stores = app.object_stores
    with open_manifest(app, console) as manifest:
        manifest.open()

        async def run_batch(ctx: RunContext) -> int:
            batch_plan = await plan_batch(app, console, ctx, plan, listed, stores)
            return await run_items(app, console, ctx, plan, batch_plan, manifest, BatchControl())

        return app.run(run_batch, read_timeout_s=read_timeout_s, info=console.info, debug=console.debug)


class _Sources(NamedTuple):
    """The inputs of a batch: objects, prefixes, and what was found on the disk."""

    objects: list[ObjectUrl]
    prefixes: list[ObjectUrl]
    versions: dict[ObjectUrl, ObjectVersion]
    local: DiscoveryResult


async def plan_batch(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: TranscribePlan,
    listed: Sequence[str],
    stores: ObjectStores,
) -> BatchPlan:
    """Find the recordings of a batch and name their outputs. Prefixes are listed while items are processed.

    Raises:
        UsageError: There are none, a source is missing, or inputs cannot be combined.
        AudiocliError: A store cannot be used.
    """
    options = plan.options
    output_directory = await _resolve_output(options.output_dir, stores)
    sources = await _find_sources(options, listed, stores)
    _check_places(plan, sources, output_directory)
    naming = None if plan.naming is None else Naming(*plan.naming)
    if sources.prefixes and naming is None:
        explicit = _list_inputs(sources)
        items, _ = plan_object_outputs(explicit, plan.formats, output_directory, None, {})
        listing = ItemListing(
            tuple(item for item in items if item.outputs), sources.prefixes, plan, output_directory, stores, ctx
        )
        await listing.require_items()
        return BatchPlan(listing, sources.local, has_objects=True)
    inputs = _list_inputs(sources)
    versions = dict(sources.versions)
    unusable: list[ObjectItem] = []
    for prefix in sources.prefixes:
        # A template can give two recordings one name, which is an error before anything is sent.
        accepts = _Filter(prefix, options)
        async for window in iter_objects(stores, prefix, ctx):
            for listed_object in window:
                if listed_object.problem is not None:
                    unusable.append(ObjectItem(listed_object.url, (), problem=listed_object.problem))
                elif accepts(listed_object.url):
                    inputs.append(InputLocation(listed_object.url, prefix))
                    versions[listed_object.url] = listed_object.version
    if not inputs and not unusable and not sources.local.unreadable:
        _raise_no_audio(options)
    items, renamed = plan_object_outputs(
        inputs, plan.formats, output_directory, naming, versions, normalize=get_path_normalizer()
    )
    items = [item for item in items if item.outputs]
    if not items and inputs:
        raise UsageError("--embed-captions: none of the recordings is a video", hint="add -f srt for captions")
    if renamed:
        names = ", ".join(location.name for location in renamed[:3]) + (" …" if len(renamed) > 3 else "")
        console.info(f"{names}: outputs would have the same name; adding the extensions of the recordings")
    return BatchPlan([*items, *unusable], sources.local, has_objects=True)


async def _resolve_output(output_dir: str | None, stores: ObjectStores) -> Location | None:
    """Return the location of `-O`, and check that it can be used. Raises: AudiocliError."""
    if output_dir is None or not is_object(output_dir):
        return resolve_output_directory(output_dir)
    url = parse_object_url(output_dir)
    await stores.check(url)
    return url


async def _find_sources(options: TranscribeOptions, listed: Sequence[str], stores: ObjectStores) -> _Sources:
    """Find out which inputs are objects and which are prefixes.

    Raises:
        UsageError: An input is missing.
        AudiocliError: A store cannot be used.
    """
    names = options.sources or []
    local = find_recordings(
        [name for name in names if not is_object(name)],
        [name for name in listed if not is_object(name)],
        DiscoveryOptions(
            options.batch.recursive, tuple(options.batch.include or ()), tuple(options.batch.exclude or ())
        ),
    )
    sources = _Sources([], [], {}, local)
    for name in filter(is_object, names):
        url = parse_object_url(name)
        await stores.check(url)
        version = await stores.head(url) if url.key and not name.endswith("/") else None
        if version is None:
            sources.prefixes.append(url)
        else:
            sources.objects.append(url)
            sources.versions[url] = version
    sources.objects.extend(parse_object_url(name) for name in listed if is_object(name))
    for url in list(dict.fromkeys(sources.prefixes)):
        others = [other for other in sources.prefixes if other.store == url.store and _is_below(url, other)]
        if others and options.batch.recursive:
            sources.prefixes.remove(url)
    unique = list(dict.fromkeys(sources.objects)), list(dict.fromkeys(sources.prefixes))
    return sources._replace(objects=unique[0], prefixes=unique[1])


def _is_below(url: ObjectUrl, prefix: ObjectUrl) -> bool:
    return url != prefix and (not prefix.key or url.key.startswith(f"{prefix.key}/"))


def _list_inputs(sources: _Sources) -> list[InputLocation]:
    files = [InputLocation(file.path, file.base_directory) for file in sources.local.recordings]
    return [*files, *(InputLocation(url, url.parent) for url in sources.objects)]


def _check_places(plan: TranscribePlan, sources: _Sources, output_directory: Location | None) -> None:
    """Check that outputs of different kinds of inputs cannot have the same names, and that pages have recordings.

    Raises:
        UsageError: They can, or a page could not play its recording.
    """
    if sources.prefixes and (sources.objects or (output_directory is not None and sources.local.recordings)):
        raise UsageError(
            "a prefix of an object store cannot be used with other inputs", hint="run a command for each of them"
        )
    has_objects, has_files = bool(sources.objects or sources.prefixes), bool(sources.local.recordings)
    writes_objects = isinstance(output_directory, ObjectUrl)
    is_mixed = output_directory is not None and (has_files if writes_objects else has_objects)
    if is_mixed and "html" in plan.formats and not plan.style.embed_media:
        raise UsageError(
            "-f html cannot link a recording that is in another place than the page",
            hint="add --embed-media, or write the pages to where the recordings are",
        )


def _raise_no_audio(options: TranscribeOptions) -> None:
    hint = None if options.batch.recursive else "use -R to search below other prefixes"
    raise UsageError("no audio files found", hint=hint)


class ItemListing:
    """The items of a batch with prefixes, which are listed each time that they are iterated."""

    def __init__(
        self,
        explicit: Sequence[ObjectItem],
        prefixes: Sequence[ObjectUrl],
        plan: TranscribePlan,
        output_directory: Location | None,
        stores: ObjectStores,
        ctx: RunContext,
    ) -> None:
        self._explicit = explicit
        self._prefixes = prefixes
        self._plan = plan
        self._output_directory = output_directory
        self._stores = stores
        self._ctx = ctx

    async def __aiter__(self) -> AsyncIterator[Sequence[Item]]:
        if self._explicit:
            yield self._explicit
        for prefix in self._prefixes:
            # The name of the bucket is part of the names if there are several.
            base, root = prefix, self._output_directory
            if len(self._prefixes) > 1 and root is not None:
                base = ObjectUrl(prefix.store, _find_common_key(self._prefixes))
                if len({other.store for other in self._prefixes}) > 1:
                    base = ObjectUrl(prefix.store, "")
                    root = root / prefix.bucket if isinstance(root, Path) else root.join(prefix.bucket)
            prefix_plan = PrefixPlan(base, self._plan.formats, root, _Filter(prefix, self._plan.options))
            async for window in plan_windows(iter_objects(self._stores, prefix, self._ctx), prefix_plan):
                if items := [item for item in window if item.outputs or item.problem is not None]:
                    yield items

    async def require_items(self) -> None:
        """Check that there is an item. Raises: UsageError: there is none; AudiocliError: a store cannot be listed."""
        async for _ in self:
            return
        _raise_no_audio(self._plan.options)


def _find_common_key(prefixes: Sequence[ObjectUrl]) -> str:
    return os.path.commonpath([f"/{prefix.key}" for prefix in prefixes]).strip("/").replace(os.sep, "/")


class _Filter:
    """Returns whether a key below a prefix is that of a recording that was asked for, by its name."""

    def __init__(self, prefix: ObjectUrl, options: TranscribeOptions) -> None:
        self._offset = len(prefix.key) + 1 if prefix.key else 0
        self._is_recursive = options.batch.recursive
        self._include = options.batch.include or []
        self._exclude = options.batch.exclude or []

    def __call__(self, url: ObjectUrl) -> bool:
        relative = url.key[self._offset :]
        parts = relative.split("/")
        if (len(parts) > 1 and not self._is_recursive) or any(part.startswith(".") for part in parts):
            return False
        if not _is_recording(url.name):
            return False
        if self._include and not _matches_any(relative, self._include):
            return False
        ancestors = ("/".join(parts[: count + 1]) for count in range(len(parts)))
        return not (self._exclude and any(_matches_any(ancestor, self._exclude) for ancestor in ancestors))


def _matches_any(relative: str, patterns: Sequence[str]) -> bool:
    name = relative.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(relative if "/" in pattern else name, pattern.strip("/")) for pattern in patterns)


def _is_recording(name: str) -> bool:
    format = formats.find_format_for_path(Path(name))
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a key is not a path
    is_captioned_copy = stem.endswith(f".{CAPTIONED_VIDEO}") and suffix in VIDEO_COPIES.values()
    return format is not None and format.name not in UNUSABLE_FORMATS and not is_captioned_copy
