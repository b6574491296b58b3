"""One recording of many: what is there already, what has to be made, and how it is made.

`look` and `do` are functions of plain values (`Task`, `Order`) over what is in a `Site`: a storage, a manifest and a
place for transcripts. An engine that runs work on many machines can call them there, with a site of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from ..errors import Again, AttemptError, AudiocliError, OutputError, RecordingError, RoutesExhausted
from ..manifest import Failure, Fingerprint, Written
from ..sinks.files import FileSink
from ..vocabulary import Route, Served, Timestamps, Timing, TranscriptionReceipt
from .keeping import KEPT_VERSION, kept_content, read_kept, rendered
from .long_recording import LongTranscription, Progress, needs_cutting, planned, transcribe_long
from .outputs import Task
from .sites import Order as Order
from .sites import Site as Site
from .tools import Tools
from .transcription import Hearing, Transcription, look_at, transcribe

RECIPE_VERSION = 1
RANKS = {Timestamps.NONE: 0, Timestamps.SEGMENT: 1, Timestamps.WORD: 2}
CAPTIONS = frozenset({"srt", "vtt", "tsv"})


class State(StrEnum):
    """What is found of an output."""

    CURRENT = "current"
    MISSING = "missing"
    STALE = "stale"
    EDITED = "edited"


class Status(StrEnum):
    """What became of a recording."""

    TRANSCRIBED = "transcribed"
    WRITTEN = "written"
    UNCHANGED = "unchanged"
    EDITED = "edited"
    FAILED = "failed"
    ELSEWHERE = "elsewhere"


@dataclass(slots=True)
class Sight:
    """What was found of a task: the names of its transcripts, the state of each output, a transcript that is kept."""

    source: Fingerprint
    key: str
    names: list[str]
    states: list[State]
    to_write: list[int]
    kept: TranscriptionReceipt | None = None
    kept_name: str = ""

    @property
    def must_send(self) -> bool:
        return bool(self.to_write) and self.kept is None


class Result(NamedTuple):
    """What became of one recording. `edited` were left alone; `served` None: nothing was sent."""

    task: Task
    status: Status
    written: tuple[Path, ...] = ()
    edited: tuple[Path, ...] = ()
    duration_s: float | None = None
    served: Served | None = None
    warnings: tuple[str, ...] = ()
    is_partial: bool = False
    error: AudiocliError | None = None


class FailedBefore(AudiocliError):
    """Work that failed in an earlier run and may have been billed; it is not sent again by itself."""


async def look(task: Task, order: Order, site: Site) -> Sight:
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
        format: [_recipe(name, format, order) for name in names] for format in {format for format, _ in task.targets}
    }
    states = [await _state(path, recipes[format], site) for format, path in task.targets]
    sight = Sight(now, key, names, states, [])
    _choose(sight, order)
    is_foreign = any(state is State.EDITED for state in states)
    if order.resumes and (sight.to_write or is_foreign):
        _take_kept(sight, order, site)
        if sight.kept is not None and is_foreign:
            await _adopt(task, sight, order, site)
            _choose(sight, order)
    return sight


async def do(task: Task, order: Order, site: Site, tools: Tools, *, progress: Progress | None = None) -> Result:
    """Make what is missing of one task. `Status.ELSEWHERE`: another process is at it. Raises: AudiocliError."""
    sight = await look(task, order, site)
    if not sight.to_write:
        return _untouched(task, sight)
    if not sight.must_send:
        return await _write(task, sight, order, site, Status.WRITTEN, _open(task, sight, site))
    if not site.account.claim(sight.key):
        return Result(task, Status.ELSEWHERE)
    try:
        if order.resumes and any(map(site.kept.has, sight.names)):
            # Whoever had the claim before may have finished meanwhile.
            sight = await look(task, order, site)
            if not sight.to_write:
                return _untouched(task, sight)
            if not sight.must_send:
                return await _write(task, sight, order, site, Status.WRITTEN, _open(task, sight, site))
        has_failed = site.account.failure(sight.key)
        if has_failed is not None:
            _heed(has_failed, order)
        sinks = _open(task, sight, site)
        try:
            receipt = await _send(task, order, site, tools, progress)
        except BaseException as error:
            for sink in sinks:
                sink.discard()
            _note_failure(sight, error, site)
            raise
        _refuse_changed(task, sight, site, sinks)
        _keep(sight, receipt, order, site)
        site.pieces.remove(receipt.kept_names)
        if has_failed is not None:
            site.account.forgive(sight.key)
        return await _write(task, sight, order, site, Status.TRANSCRIBED, sinks)
    finally:
        site.account.release(sight.key)


def kept_name(key: str, route: Route) -> str:
    """Name a transcript by the sound, the settings and the model that decide what is in it."""
    return _hashed([key, route.gateway, route.base_url, route.model])


def claim_key(content: str, order: Order) -> str:
    """Name work by the sound and the settings: whoever has it in hand may take any of the models."""
    request = order.request
    told: list[object] = [KEPT_VERSION, content, request.language, request.prompt, request.temperature]
    told += [request.translates, request.diarizes, request.speakers, order.by_piece, order.carries_context]
    told += [order.longest_s, json.dumps(dict(request.options), sort_keys=True)]
    return _hashed(told)


def _recipe(name: str, format: str, order: Order) -> str:
    """Name what an output is made from: a transcript, a format, and the shape where it matters."""
    shape = astuple(order.shape) if format in CAPTIONS else None
    return _hashed([RECIPE_VERSION, name, format, shape, order.by_word])


def _hashed(told: object) -> str:
    return hashlib.sha256(json.dumps(told).encode("utf-8", "surrogatepass")).hexdigest()[:32]


# --- what is there ---------------------------------------------------------------------------------------------------


async def _state(path: Path, recipes: Sequence[str], site: Site) -> State:
    now = site.storage.fingerprint(path)
    if now is None:
        return State.MISSING
    written = site.account.written(path)
    if written is None:
        return State.EDITED
    if written.fingerprint != now:
        content = site.storage.read(path)
        if content is None or hashlib.sha256(content).hexdigest() != written.sha256:
            return State.EDITED
        site.account.record(path, written._replace(fingerprint=now))
    return State.CURRENT if written.recipe in recipes else State.STALE


def _choose(sight: Sight, order: Order) -> None:
    """Decide which outputs are to be written."""
    wanted = {State.MISSING, State.STALE}
    if order.forces:
        wanted |= {State.EDITED} if order.resumes else {State.EDITED, State.CURRENT}
    sight.to_write = [place for place, state in enumerate(sight.states) if state in wanted]


def _take_kept(sight: Sight, order: Order, site: Site) -> None:
    for name, route in zip(sight.names, order.routes, strict=True):
        kept = read_kept(site.kept.read(name), route)
        if kept is not None and _satisfies(kept.receipt, kept.asked, kept.has_reply, order):
            sight.kept, sight.kept_name = kept.receipt, name
            return


def _satisfies(receipt: TranscriptionReceipt, asked: Timestamps, has_reply: bool, order: Order) -> bool:
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


async def _adopt(task: Task, sight: Sight, order: Order, site: Site) -> None:
    """Take outputs that nobody knows for ours where they are, byte for byte, what we would write."""
    assert sight.kept is not None
    for place, (format, path) in enumerate(task.targets):
        if sight.states[place] is not State.EDITED:
            continue
        now = site.storage.fingerprint(path)
        content = await rendered(sight.kept, format, order.shape, by_word=order.by_word)
        if now is not None and now.size_bytes == len(content) and site.storage.read(path) == content:
            recipe = _recipe(sight.kept_name, format, order)
            site.account.record(path, Written(recipe, hashlib.sha256(content).hexdigest(), now))
            sight.states[place] = State.CURRENT


def _untouched(task: Task, sight: Sight) -> Result:
    edited = _edited(task, sight)
    return Result(task, Status.EDITED if edited else Status.UNCHANGED, edited=edited)


def _edited(task: Task, sight: Sight) -> tuple[Path, ...]:
    return tuple(
        path
        for place, (_, path) in enumerate(task.targets)
        if sight.states[place] is State.EDITED and place not in sight.to_write
    )


# --- what is made ----------------------------------------------------------------------------------------------------


def _heed(failure: Failure, order: Order) -> None:
    """Leave alone what failed before and may have been billed, unless the user allows it. Raises: FailedBefore."""
    if order.retries or order.policy.retry_unknown:
        return
    error = FailedBefore(f"in an earlier run: {failure.message}", hint="--retry-failed sends it again")
    error.exit_code, error.code = failure.exit_code, failure.code
    raise error


def may_be_billed(error: BaseException) -> bool:
    """Tell whether a request of failed work may have been billed without anything to show for it."""
    if isinstance(error, RoutesExhausted):
        return error.may_be_billed
    return isinstance(error, AttemptError) and error.again is Again.IF_ALLOWED


def _note_failure(sight: Sight, error: BaseException, site: Site) -> None:
    if isinstance(error, AudiocliError) and may_be_billed(error):
        site.account.fail(sight.key, Failure(error.message, error.exit_code, error.code, error.hint))


async def _send(task: Task, order: Order, site: Site, tools: Tools, progress: Progress | None) -> TranscriptionReceipt:
    """Write one recording down, whole or in pieces. Raises: AudiocliError."""
    request = order.request._replace(recording=await look_at(task.source, str(task.source)))
    whole = Transcription(request, order.policy, site.folder, Hearing(), order.tag)
    if not order.by_piece and not (order.splits and needs_cutting(request.recording, order.routes, order.longest_s)):
        return await transcribe(whole, order.routes, order.skipped, tools)
    long = LongTranscription(
        whole=whole,
        stash=site.pieces,
        progress=progress or Progress(request.recording.duration_s),
        jobs=order.jobs,
        longest_s=order.longest_s,
        by_piece=order.by_piece,
        carries_context=order.carries_context,
        resumes=order.resumes,
    )
    plan = await planned(long, order.routes, tools)
    return await transcribe_long(long, plan, order.routes, order.skipped, tools)


def _refuse_changed(task: Task, sight: Sight, site: Site, sinks: Sequence[FileSink]) -> None:
    """Keep nothing under the name of a content that may not be the one that was sent. Raises: RecordingError."""
    now = site.storage.fingerprint(task.source)
    if now is None or now._replace(ctime_ns=0) != sight.source._replace(ctime_ns=0):
        for sink in sinks:
            sink.discard()
        raise RecordingError(f"{task.source}: it changed while it was sent", hint="run it again")


def _keep(sight: Sight, receipt: TranscriptionReceipt, order: Order, site: Site) -> None:
    """Keep what was paid for before anything else can fail, and go on with what is kept, as a later run would."""
    route = receipt.served.route
    content = kept_content(receipt, order.request.timestamps, keeps_reply=order.request.verbatim)
    sight.kept_name = kept_name(sight.key, route)
    kept = read_kept(content, route)
    sight.kept = kept.receipt._replace(served=receipt.served) if kept is not None else receipt
    try:
        site.kept.write(sight.kept_name, content)
    except OutputError:
        return  # there is no room for it; the outputs are tried all the same


def _open(task: Task, sight: Sight, site: Site) -> list[FileSink]:
    return site.storage.open([task.targets[place][1] for place in sight.to_write])


async def _write(
    task: Task, sight: Sight, order: Order, site: Site, status: Status, sinks: Sequence[FileSink]
) -> Result:
    """Fill the outputs and note what was written. Raises: OutputError."""
    receipt = sight.kept
    assert receipt is not None
    targets = [task.targets[place] for place in sight.to_write]
    try:
        contents = [await rendered(receipt, format, order.shape, by_word=order.by_word) for format, _ in targets]
    except BaseException:
        for sink in sinks:
            sink.discard()
        raise
    await site.storage.write(sinks, contents)
    for (format, path), content in zip(targets, contents, strict=True):
        now = site.storage.fingerprint(path)
        if now is not None:
            recipe = _recipe(sight.kept_name, format, order)
            site.account.record(path, Written(recipe, hashlib.sha256(content).hexdigest(), now))
    return Result(
        task,
        status,
        written=tuple(path for _, path in targets),
        edited=_edited(task, sight),
        duration_s=receipt.transcript.duration_s,
        served=receipt.served if status is Status.TRANSCRIBED else None,
        warnings=receipt.warnings,
        is_partial=receipt.is_partial,
    )
