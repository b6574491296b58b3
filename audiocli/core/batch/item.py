"""One recording of many: what is missing of it is made.

`do` and `looking.look` are functions of plain values (`Task`, `Order`) over what is in a `Site`: a storage, a manifest
and a place for transcripts. An engine that runs work on many machines can call them there, with a site of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...errors import Retryability, AttemptError, AudiocliError, OutputError, RecordingError, RoutesExhausted
from ...outputs.file import FileOutput
from ...storage.manifest import Failure, Written
from ...types.values import RunResult, TranscriptionResult
from ..chunk_plan import LongTranscription, needs_cutting, planned
from ..long_transcription import transcribe_long
from ..progress import HearingProgress
from ..run_context import RunContext
from ..transcription import TextStream, TranscriptionTask, look_at, transcribe
from .context import BatchConfig, BatchContext
from .output_paths import Task
from .status import ItemStatus, OutputState, kept_name, inspect_item, recipe_of
from .transcript_cache import kept_content, read_kept, rendered


class Status(StrEnum):
    """What became of a recording."""

    TRANSCRIBED = "transcribed"
    WRITTEN = "written"
    UNCHANGED = "unchanged"
    EDITED = "edited"
    FAILED = "failed"
    ELSEWHERE = "elsewhere"


class Result(NamedTuple):
    """What became of one recording. `edited` were left alone; `served` None: nothing was sent."""

    task: Task
    status: Status
    written: tuple[Path, ...] = ()
    edited: tuple[Path, ...] = ()
    duration_s: float | None = None
    served: RunResult | None = None
    warnings: tuple[str, ...] = ()
    is_partial: bool = False
    error: AudiocliError | None = None


class FailedBefore(AudiocliError):
    """Work that failed in an earlier run and may have been billed; it is not sent again by itself."""


async def process_item(
    task: Task,
    order: BatchConfig,
    site: BatchContext,
    tools: RunContext,
    *,
    progress: HearingProgress | None = None,
    held: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> Result:
    """Make what is missing of one task. `Status.ELSEWHERE`: another process is at it. Raises: AudiocliError.

    Requests go in the turns of `tools`; those for the pieces of a long recording while a place for it is `held`.
    """
    sight = await inspect_item(task, order, site)
    if not sight.to_write:
        return _untouched(task, sight)
    if not sight.must_send:
        return await _write(task, sight, order, site, Status.WRITTEN, _open(task, sight, site))
    if not site.account.claim(sight.key):
        return Result(task, Status.ELSEWHERE)
    try:
        if order.resumes and any(map(site.kept.has, sight.names)):
            # Whoever had the claim before may have finished meanwhile.
            sight = await inspect_item(task, order, site)
            if not sight.to_write:
                return _untouched(task, sight)
            if not sight.must_send:
                return await _write(task, sight, order, site, Status.WRITTEN, _open(task, sight, site))
        has_failed = site.account.failure(sight.key)
        if has_failed is not None:
            _heed(has_failed, order)
        sinks = _open(task, sight, site)
        try:
            receipt = await _send(task, order, site, tools, progress, held)
        except BaseException as error:
            for sink in sinks:
                sink.discard()
            _note_failure(sight, error, site)
            raise
        _refuse_changed(task, sight, site, sinks)
        if has_failed is not None:
            site.account.forgive(sight.key)
        content = _taken(sight, receipt, order)
        result = await _write(task, sight, order, site, Status.TRANSCRIBED, sinks, content)
        site.pieces.remove(receipt.kept_names)
        return result
    finally:
        site.account.release(sight.key)


def _untouched(task: Task, sight: ItemStatus) -> Result:
    edited = _edited(task, sight)
    return Result(task, Status.EDITED if edited else Status.UNCHANGED, edited=edited)


def _edited(task: Task, sight: ItemStatus) -> tuple[Path, ...]:
    return tuple(
        path
        for place, (_, path) in enumerate(task.targets)
        if sight.states[place] is OutputState.EDITED and place not in sight.to_write
    )


def _heed(failure: Failure, order: BatchConfig) -> None:
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
    return isinstance(error, AttemptError) and error.again is Retryability.IF_ALLOWED


def _note_failure(sight: ItemStatus, error: BaseException, site: BatchContext) -> None:
    if isinstance(error, AudiocliError) and may_be_billed(error):
        site.account.fail(sight.key, Failure(error.message, error.exit_code, error.code, error.hint))


async def _send(
    task: Task,
    order: BatchConfig,
    site: BatchContext,
    tools: RunContext,
    progress: HearingProgress | None,
    held: Callable[[], AbstractAsyncContextManager[None]],
) -> TranscriptionResult:
    """Write one recording down, whole or in pieces. Raises: AudiocliError."""
    request = order.request._replace(recording=await look_at(task.source, str(task.source)))
    whole = TranscriptionTask(request, order.policy, site.folder, TextStream(), order.tag)
    if not order.by_piece and not (order.splits and needs_cutting(request.recording, order.routes, order.longest_s)):
        return await transcribe(whole, order.routes, order.skipped, tools)
    long = LongTranscription(
        whole=whole,
        stash=site.pieces,
        progress=progress or HearingProgress(request.recording.duration_s),
        jobs=order.jobs,
        longest_s=order.longest_s,
        by_piece=order.by_piece,
        carries_context=order.carries_context,
        resumes=order.resumes,
    )
    async with held():
        plan = await planned(long, order.routes, tools, keeps_sound=True)
        return await transcribe_long(long, plan, order.routes, order.skipped, tools)


def _refuse_changed(task: Task, sight: ItemStatus, site: BatchContext, sinks: Sequence[FileOutput]) -> None:
    """Keep nothing under the name of a content that may not be the one that was sent. Raises: RecordingError."""
    now = site.storage.fingerprint(task.source)
    if now is None or now._replace(ctime_ns=0) != sight.source._replace(ctime_ns=0):
        for sink in sinks:
            sink.discard()
        raise RecordingError(f"{task.source}: it changed while it was sent", hint="run it again")


def _taken(sight: ItemStatus, receipt: TranscriptionResult, order: BatchConfig) -> bytes:
    """Go on with a transcript as a later run would, and give it as it is kept."""
    route = receipt.run.route
    content = kept_content(receipt, order.request.timestamps, keeps_reply=order.request.verbatim)
    sight.kept_name = kept_name(sight.key, route)
    kept = read_kept(content, route)
    sight.kept = kept.receipt._replace(run=receipt.run) if kept is not None else receipt
    return content


def _open(task: Task, sight: ItemStatus, site: BatchContext) -> list[FileOutput]:
    return site.storage.open([task.targets[place][1] for place in sight.to_write])


async def _write(
    task: Task,
    sight: ItemStatus,
    order: BatchConfig,
    site: BatchContext,
    status: Status,
    sinks: Sequence[FileOutput],
    to_keep: bytes | None = None,
) -> Result:
    """Fill the outputs and note what was written. Raises: OutputError."""
    receipt = sight.kept
    assert receipt is not None
    targets = [task.targets[place] for place in sight.to_write]
    for path, written in await site.storage.aside(partial(_put_down, sight, order, site, targets, sinks, to_keep)):
        site.account.record(path, written)
    return Result(
        task,
        status,
        written=tuple(path for _, path in targets),
        edited=_edited(task, sight),
        duration_s=receipt.transcript.duration_s,
        served=receipt.run if status is Status.TRANSCRIBED else None,
        warnings=receipt.warnings,
        is_partial=receipt.is_partial,
    )


def _put_down(
    sight: ItemStatus,
    order: BatchConfig,
    site: BatchContext,
    targets: Sequence[tuple[str, Path]],
    sinks: Sequence[FileOutput],
    to_keep: bytes | None,
) -> list[tuple[Path, Written]]:
    """Keep a transcript that is fresh, before anything else can fail, and write the outputs. Raises: OutputError."""
    assert sight.kept is not None
    try:
        if to_keep is not None:
            _keep(sight.kept_name, to_keep, site)
        contents = [rendered(sight.kept, format, order.shape, by_word=order.by_word) for format, _ in targets]
    except BaseException:
        for sink in sinks:
            sink.discard()
        raise
    site.storage.write(sinks, contents)
    written: list[tuple[Path, Written]] = []
    for (format, path), content in zip(targets, contents, strict=True):
        now = site.storage.fingerprint(path)
        if now is not None:
            recipe = recipe_of(sight.kept_name, format, order)
            written.append((path, Written(recipe, hashlib.sha256(content).hexdigest(), now)))
    return written


def _keep(name: str, content: bytes, site: BatchContext) -> None:
    try:
        site.kept.write(name, content)
    except OutputError:
        return  # there is no room for it; the outputs are tried all the same
