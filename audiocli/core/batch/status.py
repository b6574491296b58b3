"""One recording of many: what is there of it already, found out without sending anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from ...errors import RecordingError
from ...storage.manifest import Fingerprint, Written
from ...types.values import Route, Timestamps, Timing, TranscriptionResult
from .context import BatchConfig, BatchContext
from .output_paths import Task
from .transcript_cache import KEPT_VERSION, read_kept, rendered

RECIPE_VERSION = 1
RANKS = {Timestamps.NONE: 0, Timestamps.SEGMENT: 1, Timestamps.WORD: 2}
CAPTIONS = frozenset({"srt", "vtt", "tsv"})


class OutputState(StrEnum):
    """What is found of an output."""

    CURRENT = "current"
    MISSING = "missing"
    STALE = "stale"
    EDITED = "edited"


@dataclass(slots=True)
class ItemStatus:
    """What was found of a task: the names of its transcripts, the state of each output, a transcript that is kept."""

    source: Fingerprint
    key: str
    names: list[str]
    states: list[OutputState]
    to_write: list[int]
    kept: TranscriptionResult | None = None
    kept_name: str = ""

    @property
    def must_send(self) -> bool:
        return bool(self.to_write) and self.kept is None


async def inspect_item(task: Task, order: BatchConfig, site: BatchContext) -> ItemStatus:
    """Find out what there is of a task, without sending anything. Raises: RecordingError: it cannot be read."""
    now = site.storage.fingerprint(task.source)
    if now is None:
        raise RecordingError(f"cannot read {task.source}: there is no such file")
    content = site.account.content(task.source, now)
    if content is None:
        content = await site.storage.content(task.source)
        site.account.remember(task.source, now, content)
    key = claim_key(content, order)
    names = [kept_name(key, route) for route in order.routes]
    recipes = {
        format: [recipe_of(name, format, order) for name in names] for format in {format for format, _ in task.targets}
    }
    states = [await _state(path, recipes[format], site) for format, path in task.targets]
    sight = ItemStatus(now, key, names, states, [])
    _choose(sight, order)
    is_foreign = any(state is OutputState.EDITED for state in states)
    if order.resumes and (sight.to_write or is_foreign):
        _take_kept(sight, order, site)
        if sight.kept is not None and is_foreign:
            await _adopt(task, sight, order, site)
            _choose(sight, order)
    return sight


def kept_name(key: str, route: Route) -> str:
    """Name a transcript by the sound, the settings and the model that decide what is in it."""
    return _hashed([key, route.gateway, route.base_url, route.model])


def claim_key(content: str, order: BatchConfig) -> str:
    """Name work by the sound and the settings: whoever has it in hand may take any of the models."""
    request = order.request
    told: list[object] = [KEPT_VERSION, content, request.language, request.prompt, request.temperature]
    told += [request.translates, request.diarizes, request.speakers, order.by_piece, order.carries_context]
    told += [order.longest_s, json.dumps(dict(request.options), sort_keys=True)]
    return _hashed(told)


def recipe_of(name: str, format: str, order: BatchConfig) -> str:
    """Name what an output is made from: a transcript, a format, and the shape where it matters."""
    shape = astuple(order.shape) if format in CAPTIONS else None
    return _hashed([RECIPE_VERSION, name, format, shape, order.by_word])


def _hashed(told: object) -> str:
    return hashlib.sha256(json.dumps(told).encode("utf-8", "surrogatepass")).hexdigest()[:32]


async def _state(path: Path, recipes: Sequence[str], site: BatchContext) -> OutputState:
    now = site.storage.fingerprint(path)
    if now is None:
        return OutputState.MISSING
    written = site.account.written(path)
    if written is None:
        return OutputState.EDITED
    if written.fingerprint != now:
        content = site.storage.read(path)
        if content is None or hashlib.sha256(content).hexdigest() != written.sha256:
            return OutputState.EDITED
        site.account.record(path, written._replace(fingerprint=now))
    return OutputState.CURRENT if written.recipe in recipes else OutputState.STALE


def _choose(sight: ItemStatus, order: BatchConfig) -> None:
    """Decide which outputs are to be written."""
    wanted = {OutputState.MISSING, OutputState.STALE}
    if order.forces:
        wanted |= {OutputState.EDITED} if order.resumes else {OutputState.EDITED, OutputState.CURRENT}
    sight.to_write = [place for place, state in enumerate(sight.states) if state in wanted]


def _take_kept(sight: ItemStatus, order: BatchConfig, site: BatchContext) -> None:
    for name, route in zip(sight.names, order.routes, strict=True):
        kept = read_kept(site.kept.read(name), route)
        if kept is not None and _satisfies(kept.receipt, kept.asked, kept.has_reply, order):
            sight.kept, sight.kept_name = kept.receipt, name
            return


def _satisfies(receipt: TranscriptionResult, asked: Timestamps, has_reply: bool, order: BatchConfig) -> bool:
    """Tell whether a transcript has all that is needed now: it may have been asked for less."""
    if order.request.verbatim and not has_reply:
        return False
    transcript = receipt.transcript
    if not transcript.text.strip():
        return True
    if order.request.timestamps_required and transcript.timing is Timing.NONE:
        return False
    has = {Timing.WORD: 2, Timing.SEGMENT: 1, Timing.PIECE: 1}.get(transcript.timing, 0)
    return max(has, RANKS[asked]) >= RANKS[order.needs]


async def _adopt(task: Task, sight: ItemStatus, order: BatchConfig, site: BatchContext) -> None:
    """Take outputs that nobody knows for ours where they are, byte for byte, what we would write."""
    assert sight.kept is not None
    for place, (format, path) in enumerate(task.targets):
        if sight.states[place] is not OutputState.EDITED:
            continue
        now = site.storage.fingerprint(path)
        content = await site.storage.aside(partial(rendered, sight.kept, format, order.shape, by_word=order.by_word))
        if now is not None and now.size_bytes == len(content) and site.storage.read(path) == content:
            recipe = recipe_of(sight.kept_name, format, order)
            site.account.record(path, Written(recipe, hashlib.sha256(content).hexdigest(), now))
            sight.states[place] = OutputState.CURRENT
