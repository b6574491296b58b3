"""Process an item of a batch whose recording or outputs are objects.

`process_item` works on files. An object has a path below a directory of its own, where its content is written only when
it is needed: the state of an item follows from the versions of its objects, the hash that was recorded for the version
of the source, and the stored transcript. Outputs are written with the condition that they still have the version that
was seen, so another one is never replaced.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar, cast

from ...errors import AudiocliError, ObjectDenied, OutputError, RecordingError, StoreUnreachable
from ...object_store import ObjectConflict, ObjectStores
from ...outputs.file import FileOutput
from ...process_ids import is_running
from ...storage.local import check_free_space, get_fingerprint
from ...storage.manifest import FailureRecord, FileFingerprint, OutputRecord
from ...types.audio import Recording, Selection
from ...types.objects import Location, ObjectUrl
from ...types.stores import ObjectVersion
from ..progress import TranscriptionProgress
from ..run_context import RunContext
from ..selection import probe_selected, resolve_selection
from .context import BatchConfig, BatchContext, BatchState, Storage
from .item import ItemOutcome, ItemResult, process_item
from .object_items import Item, ObjectItem
from .output_paths import BatchItem
from .status import ItemStatus, OutputState, inspect_item

STAGE_NAME = re.compile(r"(\d+)-[0-9a-f]{8}")
STORED_HINT = "the transcript is stored; the same command writes it without sending the recording again"
_HASH_MASK = 2**63 - 1

T = TypeVar("T")


class ObjectServices(NamedTuple):
    """The object stores, and the directory for copies of objects that are needed as files."""

    stores: ObjectStores
    directory: Path

    def remove_abandoned(self) -> None:
        """Remove the copies that a killed process has left."""
        try:
            entries = list(os.scandir(self.directory))
        except OSError:
            return
        for entry in entries:
            match = STAGE_NAME.fullmatch(entry.name)
            if match is not None and not is_running(match[1]) and entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)


class ContentUnknown(AudiocliError):
    """The content of an object is not known, and it must not be read to find out."""


async def process_any_item(
    item: Item,
    config: BatchConfig,
    batch: BatchContext,
    ctx: RunContext,
    *,
    progress: TranscriptionProgress | None = None,
    hold_slot: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> ItemResult:
    """Bring the outputs of one recording up to date, as `process_item` does, whether they are files or objects."""
    if isinstance(item, BatchItem):
        return await process_item(item, config, batch, ctx, progress=progress, hold_slot=hold_slot)
    async with _open_stage(item, batch, ctx) as stage:
        result = await process_item(stage.item, config, stage.batch, ctx, progress=progress, hold_slot=hold_slot)
        return stage.restore(result)


class ItemInspection(NamedTuple):
    """The state of an item, for which no object was read.

    If the content of the source is not known, its transcript counts as missing.
    """

    outputs: tuple[tuple[Location, OutputState], ...]
    must_write: bool
    must_send: bool
    selection: Selection


async def inspect_any_item(
    item: Item, config: BatchConfig, batch: BatchContext, ctx: RunContext, *, fetch_results: bool = False
) -> ItemInspection:
    """Return the state of an item, as `inspect_item` does. A file is read if its content is not known.

    Raises:
        AudiocliError: The source or a store cannot be read.
    """
    if isinstance(item, BatchItem):
        return _build_inspection(await inspect_item(item, config, batch, fetch_results=fetch_results))
    async with _open_stage(item, batch, ctx, may_read=False) as stage:
        try:
            inspection = _build_inspection(
                await inspect_item(stage.item, config, stage.batch, fetch_results=fetch_results)
            )
        except ContentUnknown:
            states = [_get_unknown_state(stage, path) for _, path in stage.item.outputs]
            must_write = config.force or any(state is not OutputState.EDITED for state in states)
            outputs = tuple((path, state) for (_, path), state in zip(stage.item.outputs, states, strict=True))
            inspection = ItemInspection(outputs, must_write, must_write, config.request.recording.selection)
        return inspection._replace(
            outputs=tuple((stage.get_location(path), state) for path, state in inspection.outputs)
        )


def _build_inspection(status: ItemStatus) -> ItemInspection:
    outputs = tuple((path, state) for (_, path), state in zip(status.item.outputs, status.output_states, strict=True))
    return ItemInspection(outputs, bool(status.outputs_to_write), status.must_send, status.selection)


def _get_unknown_state(stage: _Stage, path: Path) -> OutputState:
    if stage.storage.get_fingerprint(path) is None:
        return OutputState.MISSING
    return OutputState.EDITED if stage.batch.state.get_output(path) is None else OutputState.STALE


async def probe_source(item: Item, batch: BatchContext, ctx: RunContext, selection: Selection) -> Recording:
    """Return the length of a source. Of an object, only the parts are read that tell it.

    Raises:
        AudiocliError: It cannot be read.
    """
    if isinstance(item.source, Path):
        return await probe_selected(item.source, str(item.source), selection)
    from ...codecs.probe import LengthUnknown, probe_reader

    assert batch.objects is not None and isinstance(item, ObjectItem)
    stores, url = batch.objects.stores, item.source
    version = item.version or await stores.head(url)
    if version is None:
        raise RecordingError(f"cannot read {url}: no such object")
    track = selection.track if isinstance(selection.track, int) else None
    reader = cast(BinaryIO, stores.open_reader(url, version))
    path = Path(url.name)
    try:
        recording = await batch.storage.run_in_thread(partial(probe_reader, reader, path, version.size_bytes, track))
        return recording._replace(selection=selection)
    except LengthUnknown:
        async with _open_stage(item, batch, ctx) as stage:
            await stage.storage.fetch(stage.item.source)
            return await probe_selected(stage.item.source, str(url), selection)


class _Stage(NamedTuple):
    """An item as files below a directory, and the services that know that they are objects."""

    item: BatchItem
    batch: BatchContext
    storage: StagedStorage

    def get_location(self, path: Location) -> Location:
        return (self.storage.get_url(path) if isinstance(path, Path) else None) or path

    def restore(self, result: ItemResult) -> ItemResult:
        """Return the result with URLs for paths. Outputs that another program has written meanwhile count as edited."""
        conflicts = self.storage.conflicts
        outputs = tuple((format, self.get_location(path)) for format, path in result.item.outputs)
        source = self.get_location(self.item.source)
        item = ObjectItem(source, outputs, result.item.name_template)
        written = [path for path in result.written if path not in conflicts]
        outcome = ItemOutcome.EDITED if conflicts and result.outcome is ItemOutcome.WRITTEN else result.outcome
        return result._replace(
            item=item,
            outcome=outcome,
            written=tuple(map(self.get_location, written)),
            edited=tuple(map(self.get_location, (*result.edited, *conflicts))),
            warnings=tuple(map(self.storage.replace_paths, result.warnings)),
        )


@asynccontextmanager
async def _open_stage(
    item: ObjectItem, batch: BatchContext, ctx: RunContext, *, may_read: bool = True
) -> AsyncIterator[_Stage]:
    """Give the objects of an item paths, and find out their versions. What was written there is removed at the end.

    Raises:
        RecordingError: The source does not exist, or its key cannot be used.
        AudiocliError: The store cannot be used.
    """
    if item.problem is not None:
        raise RecordingError(f"{item.source}: {item.problem}")
    assert batch.objects is not None
    root = batch.objects.directory / f"{os.getpid()}-{secrets.token_hex(4)}"
    storage = StagedStorage(batch.objects.stores, batch.storage, root, may_read=may_read)
    source = storage.build_path(item.source)
    outputs = tuple((format, storage.build_path(location)) for format, location in item.outputs)
    with storage.translate_errors():
        await storage.load_versions(item)
        staged = batch._replace(
            storage=storage,
            state=StagedState(batch.state, storage),
            resolve_selection=partial(_resolve_selection, storage, ctx),
        )
        try:
            yield _Stage(BatchItem(source, outputs, item.name_template), staged, storage)
        finally:
            if root.exists():
                await batch.storage.run_in_thread(partial(shutil.rmtree, root, ignore_errors=True))


async def _resolve_selection(
    storage: StagedStorage, ctx: RunContext, path: Path, requested: Selection, language: str | None, content_hash: str
) -> Selection:
    """Return what is selected of a source. The tracks of an object are cached, so that it is not read for them."""
    if requested.track is None and language is None and not (requested.channels or requested.split_channels):
        return requested
    name = str(storage.get_url(path) or path)
    if storage.get_url(path) is None:
        return await resolve_selection(path, name, requested, language)
    key = json.dumps([content_hash, requested, language])
    cached = ctx.cache.get("selections", key)
    if cached is not None and (selection := _parse_selection(cached.body, requested)) is not None:
        return selection
    await storage.fetch(path)
    selection = await resolve_selection(path, name, requested, language)
    fields = [selection.track, list(selection.channels), selection.split_channels, list(selection.channel_names)]
    ctx.cache.put("selections", key, json.dumps(fields).encode())
    return selection


def _parse_selection(body: bytes, requested: Selection) -> Selection | None:
    try:
        track, channels, split_channels, names = json.loads(body)
        return requested._replace(
            track=track, channels=tuple(channels), split_channels=bool(split_channels), channel_names=tuple(names)
        )
    except (ValueError, TypeError):
        return None


class StagedStorage:
    """Files that stand for objects, below `root`. All other paths are those of `local`. Implements `Storage`.

    `conflicts` are outputs that were not written, because another program has written them meanwhile.
    """

    def __init__(self, stores: ObjectStores, local: Storage, root: Path, *, may_read: bool) -> None:
        self._stores = stores
        self._local = local
        self._root = root
        self._may_read = may_read
        self._versions: dict[Path, ObjectVersion | None] = {}
        self._hashes: dict[Path, str] = {}
        self.conflicts: list[Path] = []

    # --- paths and URLs -----------------------------------------------------------------------------------------------

    def build_path(self, location: Location) -> Path:
        """Return the path of a location. Paths of one store have the structure of its keys, so links stay valid."""
        if isinstance(location, Path):
            return location
        return self._root.joinpath(location.scheme, location.bucket, *location.key.split("/"))

    def get_url(self, path: Path) -> ObjectUrl | None:
        """Return the URL of a path below `root`; None for a file."""
        if not path.is_relative_to(self._root):
            return None
        scheme, bucket, *parts = path.relative_to(self._root).parts
        return ObjectUrl(f"{scheme}://{bucket}", "/".join(parts))

    def replace_paths(self, text: str) -> str:
        """Return a message with URLs for the paths below `root`."""
        return re.sub(rf"{re.escape(str(self._root))}/([^/]+)/", r"\1://", text)

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Let errors name URLs."""
        try:
            yield
        except AudiocliError as error:
            error.message = self.replace_paths(error.message)
            error.hint = None if error.hint is None else self.replace_paths(error.hint)
            raise

    async def load_versions(self, item: ObjectItem) -> None:
        """Find out the versions of the objects of an item.

        Raises:
            RecordingError: The source does not exist.
            AudiocliError: The store cannot be used.
        """
        if isinstance(item.source, ObjectUrl):
            version = item.version or await self._stores.head(item.source)
            if version is None:
                raise RecordingError(f"cannot read {item.source}: no such object")
            self._versions[self.build_path(item.source)] = version
        if item.name_template is not None:
            return  # the names of the outputs are not known yet
        await self.look_up([self.build_path(location) for _, location in item.outputs])

    async def look_up(self, paths: Sequence[Path]) -> None:
        """Find out the versions of outputs. Raises: AudiocliError: the store cannot be used."""
        urls = {path: url for path in paths if path not in self._versions and (url := self.get_url(path)) is not None}
        versions = await asyncio.gather(*map(self._stores.head, urls.values()))
        self._versions |= zip(urls, versions, strict=True)

    # --- sources ------------------------------------------------------------------------------------------------------

    def get_fingerprint(self, path: Path) -> FileFingerprint | None:
        url = self.get_url(path)
        if url is None:
            return self._local.get_fingerprint(path)
        version = None if path in self.conflicts else self._versions.get(path)
        return None if version is None else build_fingerprint(version)

    async def fetch(self, path: Path) -> FileFingerprint | None:
        url = self.get_url(path)
        if url is None:
            return await self._local.fetch(path)
        if not self._may_read:
            raise ContentUnknown(f"{url} was not read")
        version = self._versions.get(path)
        assert version is not None
        if path not in self._hashes:
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                check_free_space(path.parent, str(url))
                with path.open("wb") as file:
                    self._hashes[path] = await self._stores.download(url, version, file)
            except OSError as error:
                raise OutputError(f"cannot write the temporary copy of {url}: {error.strerror}") from error
        return get_fingerprint(path)

    async def hash_content(self, path: Path) -> str:
        if self.get_url(path) is None:
            return await self._local.hash_content(path)
        await self.fetch(path)
        return self._hashes[path]

    async def has_prefix(self, path: Path, size_bytes: int, content_hash: str) -> bool:
        return await self._local.has_prefix(path, size_bytes, content_hash)

    # --- outputs ------------------------------------------------------------------------------------------------------

    def read(self, path: Path) -> bytes | None:
        url = self.get_url(path)
        return self._local.read(path) if url is None else self._stores.read_blocking(url)

    def open_outputs(self, paths: Sequence[Path]) -> list[FileOutput]:
        return self._local.open_outputs(paths)

    def write_outputs(self, files: Sequence[FileOutput], contents: Sequence[bytes]) -> None:
        """Write outputs. If some fail, the others are still written. Raises: AudiocliError: the first failure."""
        urls = [self.get_url(file.path) for file in files]
        if not any(urls):
            self._local.write_outputs(files, contents)
            return
        self._local.write_outputs(files, contents)
        first_error: AudiocliError | None = None
        for file, url in zip(files, urls, strict=True):
            assert url is not None
            try:
                seen = self._versions.get(file.path)
                self._versions[file.path] = self._stores.put(url, file.path, seen or "create")
            except ObjectConflict:
                # A write that was repeated because its response was lost, or another machine with the same transcript.
                if not self._has_content(file.path, url):
                    self.conflicts.append(file.path)
            except (OutputError, StoreUnreachable, ObjectDenied) as error:
                first_error = first_error or OutputError(f"cannot write {url}: {error.message}", hint=STORED_HINT)
        if first_error is not None:
            raise first_error

    def _has_content(self, path: Path, url: ObjectUrl) -> bool:
        """Return whether an object has the content of a file, and remember its version then."""
        version = self._stores.head_blocking(url)
        if version is None or version.size_bytes != path.stat().st_size:
            return False
        if self._stores.read_blocking(url) != path.read_bytes():
            return False
        self._versions[path] = version
        return True

    async def run_in_thread(self, call: Callable[[], T]) -> T:
        return await self._local.run_in_thread(call)


class StagedState:
    """The state of a batch, with URLs in place of the paths of objects. Implements `BatchState`."""

    def __init__(self, state: BatchState, storage: StagedStorage) -> None:
        self._state = state
        self._storage = storage

    async def get_content_hash(self, path: Path | str, fingerprint: FileFingerprint) -> str | None:
        return await self._state.get_content_hash(self._build_key(path), fingerprint)

    def record_content_hash(self, path: Path | str, fingerprint: FileFingerprint, content_hash: str) -> None:
        self._state.record_content_hash(self._build_key(path), fingerprint, content_hash)

    def get_output(self, path: Path | str) -> OutputRecord | None:
        return self._state.get_output(self._build_key(path))

    def record_output(self, path: Path | str, output: OutputRecord) -> None:
        self._state.record_output(self._build_key(path), output)

    async def claim(self, key: str) -> bool:
        return await self._state.claim(key)

    async def release(self, key: str) -> None:
        await self._state.release(key)

    def get_failure(self, key: str) -> FailureRecord | None:
        return self._state.get_failure(key)

    def record_failure(self, key: str, failure: FailureRecord) -> None:
        self._state.record_failure(key, failure._replace(message=self._storage.replace_paths(failure.message)))

    def clear_failure(self, key: str) -> None:
        self._state.clear_failure(key)

    def _build_key(self, path: Path | str) -> Path | str:
        url = self._storage.get_url(path) if isinstance(path, Path) else None
        return path if url is None else str(url)


def build_fingerprint(version: ObjectVersion) -> FileFingerprint:
    """Return what identifies a version of an object, as the manifest stores it.

    The entity tag decides. Times are left out, because an object that is written again with the same content gets a new
    one; without an entity tag the time is all there is.
    """
    identity = version.etag or version.generation or str(version.modified_ns)
    number = int.from_bytes(hashlib.sha256(identity.encode("utf-8", "surrogateescape")).digest()[:8], "big")
    return FileFingerprint(version.size_bytes, 0, 0, number & _HASH_MASK)
