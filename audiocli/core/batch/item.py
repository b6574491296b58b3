"""Process one item of a batch.

`process_item` and `status.inspect_item` depend only on plain values (`BatchItem`, `BatchConfig`) and on the services of
a `BatchContext`. A program that runs items on several machines can call both with its own context.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...errors import AttemptError, AudiocliError, OutputError, RecordingError, Retryability, RoutesExhausted
from ...outputs.file import FileOutput
from ...storage.manifest import FailureRecord, OutputRecord
from ...types.results import RunResult, TranscriptionResult
from ..long_transcription import transcribe_long
from ..progress import TranscriptionProgress
from ..run_context import RunContext
from ..transcription import TextStream, TranscriptionTask, probe_recording, transcribe
from ..transcription_plan import LongTranscriptionTask, build_chunk_plan, must_split
from .context import BatchConfig, BatchContext
from .output_paths import BatchItem
from .status import ItemStatus, OutputState, compute_settings_fingerprint, compute_transcript_name, inspect_item
from .transcript_cache import parse_transcript, render_transcript, serialize_transcript


class ItemOutcome(StrEnum):
    """The final state of an item. `CLAIMED`: another process or item works on the same content."""

    TRANSCRIBED = "transcribed"
    WRITTEN = "written"
    UNCHANGED = "unchanged"
    EDITED = "edited"
    FAILED = "failed"
    CLAIMED = "elsewhere"


class ItemResult(NamedTuple):
    """The result of one item. `edited` lists outputs that were left unchanged; `run` is None if nothing was sent."""

    item: BatchItem
    outcome: ItemOutcome
    written: tuple[Path, ...] = ()
    edited: tuple[Path, ...] = ()
    duration_s: float | None = None
    run: RunResult | None = None
    warnings: tuple[str, ...] = ()
    is_partial: bool = False
    # Files that audiocli did not write have the names of all outputs, so the recording has no transcript.
    is_without_output: bool = False
    error: AudiocliError | None = None


class PreviouslyFailed(AudiocliError):
    """The item failed in an earlier run and may have been billed. Sending it again needs permission."""


async def process_item(
    item: BatchItem,
    config: BatchConfig,
    batch: BatchContext,
    ctx: RunContext,
    *,
    progress: TranscriptionProgress | None = None,
    hold_slot: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> ItemResult:
    """Bring the outputs of one recording up to date.

    Args:
        hold_slot: Context manager that holds one slot of the worker pool while the chunks of a long recording are
            sent.

    Raises:
        PreviouslyFailed: It failed in an earlier run and may have been billed.
        AudiocliError: It cannot be transcribed or written.
    """
    status = await inspect_item(item, config, batch)
    if not status.outputs_to_write:
        return _build_unsent_result(item, status, batch)
    if not status.must_send:
        return await _write_outputs(item, status, config, batch, ItemOutcome.WRITTEN, _open_files(item, status, batch))
    if not batch.state.claim(status.claim_key):
        return ItemResult(item, ItemOutcome.CLAIMED)
    try:
        if config.resume and any(map(batch.transcripts.has, status.transcript_names)):
            # The previous owner of the claim may have finished in the meantime.
            status = await inspect_item(item, config, batch)
            if not status.outputs_to_write:
                return _build_unsent_result(item, status, batch)
            if not status.must_send:
                return await _write_outputs(
                    item, status, config, batch, ItemOutcome.WRITTEN, _open_files(item, status, batch)
                )
        failure = batch.state.get_failure(status.claim_key)
        if failure is not None and not (config.retry_failed or ctx.retry_policy.retry_unknown):
            raise _build_previous_failure(failure)
        files = _open_files(item, status, batch)
        try:
            result = await _send(item, config, batch, ctx, progress, hold_slot)
        except BaseException as error:
            for file in files:
                file.discard()
            _record_failure(status, error, batch)
            raise
        _check_unchanged(item, status, batch, files)
        if failure is not None:
            batch.state.clear_failure(status.claim_key)
        content = _apply_result(status, result, config)
        item_result = await _write_outputs(item, status, config, batch, ItemOutcome.TRANSCRIBED, files, content)
        batch.chunks.remove(result.chunk_names)
        return item_result
    finally:
        batch.state.release(status.claim_key)


def _build_unsent_result(item: BatchItem, status: ItemStatus, batch: BatchContext) -> ItemResult:
    edited = _list_edited_outputs(item, status)
    return ItemResult(
        item,
        ItemOutcome.EDITED if edited else ItemOutcome.UNCHANGED,
        edited=edited,
        is_without_output=all(batch.state.get_output(path) is None for _, path in item.outputs) if edited else False,
    )


def _list_edited_outputs(item: BatchItem, status: ItemStatus) -> tuple[Path, ...]:
    return tuple(
        path
        for index, (_, path) in enumerate(item.outputs)
        if status.output_states[index] is OutputState.EDITED and index not in status.outputs_to_write
    )


def _build_previous_failure(failure: FailureRecord) -> PreviouslyFailed:
    error = PreviouslyFailed(f"failed in an earlier run: {failure.message}", hint="use --retry-failed to send it again")
    error.exit_code, error.code = failure.exit_code, failure.code
    return error


def may_be_billed(error: BaseException) -> bool:
    """Return whether a request of the failed item may have been billed."""
    if isinstance(error, RoutesExhausted):
        return error.may_be_billed
    return isinstance(error, AttemptError) and error.retryability is Retryability.IF_USER_ALLOWS


def _record_failure(status: ItemStatus, error: BaseException, batch: BatchContext) -> None:
    if isinstance(error, AudiocliError) and may_be_billed(error):
        batch.state.record_failure(
            status.claim_key, FailureRecord(error.message, error.exit_code, error.code, error.hint)
        )


async def _send(
    item: BatchItem,
    config: BatchConfig,
    batch: BatchContext,
    ctx: RunContext,
    progress: TranscriptionProgress | None,
    hold_slot: Callable[[], AbstractAsyncContextManager[None]],
) -> TranscriptionResult:
    """Transcribe one recording, in chunks if necessary. Raises: AudiocliError."""
    request = config.request._replace(recording=await probe_recording(item.source, str(item.source)))
    task = TranscriptionTask(request, batch.upload_directory, TextStream())
    if not config.time_by_chunk and not (
        config.split and must_split(request.recording, config.routes, config.max_chunk_s)
    ):
        return await transcribe(task, config.routes, config.skipped, ctx)
    long_task = LongTranscriptionTask(
        transcription=task,
        store=batch.chunks,
        progress=progress or TranscriptionProgress(request.recording.duration_s),
        concurrency=config.concurrency,
        max_chunk_s=config.max_chunk_s,
        time_by_chunk=config.time_by_chunk,
        carry_context=config.carry_context,
        resume=config.resume,
    )
    async with hold_slot():
        plan = await build_chunk_plan(long_task, config.routes, ctx, spool_audio=True)
        return await transcribe_long(long_task, plan, config.routes, config.skipped, ctx)


def _check_unchanged(item: BatchItem, status: ItemStatus, batch: BatchContext, files: Sequence[FileOutput]) -> None:
    """Check that the source did not change while it was sent. Results are cached under the hash of its content.

    Raises:
        RecordingError: It changed. The open files are discarded.
    """
    fingerprint = batch.storage.get_fingerprint(item.source)
    if fingerprint is None or fingerprint._replace(ctime_ns=0) != status.source_fingerprint._replace(ctime_ns=0):
        for file in files:
            file.discard()
        raise RecordingError(f"{item.source} changed while it was sent", hint="run the same command again")


def _apply_result(status: ItemStatus, result: TranscriptionResult, config: BatchConfig) -> bytes:
    """Set `status.cached` to a new result, as a later run would read it. Return the content for the cache."""
    route = result.run.route
    content = serialize_transcript(
        result, config.request.timestamps, include_raw_response=config.request.keep_raw_response
    )
    status.cached_name = compute_transcript_name(status.claim_key, route)
    cached = parse_transcript(content, route)
    status.cached = cached.result._replace(run=result.run) if cached is not None else result
    return content


def _open_files(item: BatchItem, status: ItemStatus, batch: BatchContext) -> list[FileOutput]:
    return batch.storage.open_outputs([item.outputs[index][1] for index in status.outputs_to_write])


async def _write_outputs(
    item: BatchItem,
    status: ItemStatus,
    config: BatchConfig,
    batch: BatchContext,
    outcome: ItemOutcome,
    files: Sequence[FileOutput],
    content_to_cache: bytes | None = None,
) -> ItemResult:
    """Write the outputs and record them in the manifest. Raises: OutputError."""
    result = status.cached
    assert result is not None
    outputs = [item.outputs[index] for index in status.outputs_to_write]
    for path, output in await batch.storage.run_in_thread(
        partial(_render_and_write, status, config, batch, outputs, files, content_to_cache)
    ):
        batch.state.record_output(path, output)
    return ItemResult(
        item,
        outcome,
        written=tuple(path for _, path in outputs),
        edited=_list_edited_outputs(item, status),
        duration_s=result.transcript.duration_s,
        run=result.run if outcome is ItemOutcome.TRANSCRIBED else None,
        warnings=result.warnings,
        is_partial=result.is_partial,
    )


def _render_and_write(
    status: ItemStatus,
    config: BatchConfig,
    batch: BatchContext,
    outputs: Sequence[tuple[str, Path]],
    files: Sequence[FileOutput],
    content_to_cache: bytes | None,
) -> list[tuple[Path, OutputRecord]]:
    """Cache a new transcript first, because it was paid for; then render and write the outputs. Raises: OutputError."""
    assert status.cached is not None
    try:
        if content_to_cache is not None:
            _cache_transcript(status.cached_name, content_to_cache, batch)
        contents = [
            render_transcript(status.cached, format, config.caption_limits, by_word=config.by_word)
            for format, _ in outputs
        ]
    except BaseException:
        for file in files:
            file.discard()
        raise
    batch.storage.write_outputs(files, contents)
    written: list[tuple[Path, OutputRecord]] = []
    for (format, path), content in zip(outputs, contents, strict=True):
        fingerprint = batch.storage.get_fingerprint(path)
        if fingerprint is not None:
            settings_fingerprint = compute_settings_fingerprint(status.cached_name, format, config)
            written.append((path, OutputRecord(settings_fingerprint, hashlib.sha256(content).hexdigest(), fingerprint)))
    return written


def _cache_transcript(name: str, content: bytes, batch: BatchContext) -> None:
    try:
        batch.transcripts.write(name, content)
    except OutputError:
        return  # without a cached copy the outputs can still be written
