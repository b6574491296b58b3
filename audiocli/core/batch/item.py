"""Process one item of a batch.

`process_item` and `status.inspect_item` depend only on plain values (`BatchItem`, `BatchConfig`) and on the services of
a `BatchContext`. A program that runs items on several machines can call both with its own context.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...errors import AttemptError, AudiocliError, OutputError, Retryability, RoutesExhausted
from ...outputs.file import FileOutput
from ...storage.local import hash_output
from ...storage.manifest import FailureRecord, OutputRecord
from ...text.format_names import CAPTION_FORMATS, CAPTIONED_VIDEO
from ...text.guard import Suspicion, list_warnings
from ...types.results import RunResult, TranscriptionResult
from ..capabilities import save_missing_timestamps
from ..captioned_video import check_video, write_captioned_video
from ..long_transcription import transcribe_long
from ..paid_transcript import PaidTranscript
from ..progress import TranscriptionProgress
from ..recording_evidence import add_evidence
from ..run_context import RunContext
from ..selected_transcription import transcribe_parts
from ..selection import plan_parts, probe_selected
from ..transcript_pages import check_embedded_size, find_result_suspicions
from ..transcription import TextStream, TranscriptionTask, check_stored_result, transcribe
from ..transcription_plan import LongTranscriptionTask, build_chunk_plan, must_split
from ..verdicts import EmptyTranscript, accept, build_empty_error, build_strict_error, can_improve, lacks_timestamps
from .context import BatchConfig, BatchContext
from .output_paths import BatchItem, name_item
from .status import (
    ItemStatus,
    OutputState,
    compute_settings_fingerprint,
    compute_transcript_name,
    embeds_source,
    inspect_item,
    inspect_outputs,
)
from .transcript_cache import parse_transcript, render_output, serialize_result, update_transcript

if TYPE_CHECKING:
    from ...types.objects import Location
    from .object_items import Item


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

    item: Item
    outcome: ItemOutcome
    written: tuple[Location, ...] = ()
    edited: tuple[Location, ...] = ()
    duration_s: float | None = None
    run: RunResult | None = None
    warnings: tuple[str, ...] = ()
    # Passages that the model may have made up.
    suspicions: tuple[Suspicion, ...] = ()
    # The user has not accepted that the transcript is partial.
    is_partial: bool = False
    # The model returned no timestamps although captions need them.
    is_untimed: bool = False
    # Files that audiocli did not write have the names of all outputs, so the recording has no transcript.
    is_without_output: bool = False
    error: AudiocliError | None = None


class _SentRecording(NamedTuple):
    """The result of a recording, and the size that it had when it was sent."""

    result: TranscriptionResult
    size_bytes: int


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
        EmptyTranscript: The transcript is empty, also that of an earlier run, but the recording has clear speech.
        AudiocliError: It cannot be transcribed or written.
    """
    can_retry_item = config.retry_failed or ctx.retry_policy.retry_unknown
    status = await _inspect_and_judge(item, config, batch, can_retry=can_retry_item)
    item = status.item
    await _check_embedding(item, status, config, batch)
    if not status.must_send:
        return await _use_stored_result(item, status, config, batch)
    if not await batch.state.claim(status.claim_key):
        return ItemResult(item, ItemOutcome.CLAIMED)
    try:
        if config.resume:
            await batch.transcripts.fetch(name for name, _ in status.candidates)
        if config.resume and any(batch.transcripts.has(name) for name, _ in status.candidates):
            # The previous owner of the claim may have finished in the meantime.
            status = await _inspect_and_judge(item, config, batch, can_retry=can_retry_item)
            item = status.item
            if not status.must_send:
                return await _use_stored_result(item, status, config, batch)
        failure = batch.state.get_failure(status.claim_key)
        if failure is not None and not can_retry_item:
            raise build_previous_failure(failure)
        files = _open_files(item, status, batch)
        try:
            sent = await _send(item, status, config, batch, ctx, progress, hold_slot)
        except BaseException as error:
            for file in files:
                file.discard()
            _record_failure(status, error, batch)
            raise
        if failure is not None:
            batch.state.clear_failure(status.claim_key)
        result = sent.result
        if item.name_template is not None:
            item = status.item = name_item(item, result.transcript.language)
            await batch.storage.look_up([path for _, path in item.outputs])
            inspect_outputs(status, config, batch)
            files = _open_files(item, status, batch)
        is_untimed = _remember_timing(result, config, ctx)
        if not _is_unchanged(item, status, batch):
            return await _write_changed(item, status, config, batch, files, sent)
        content = _apply_result(status, accept(result, config.acceptance), config)
        content_to_cache: bytes | None = content
        if batch.transcripts.is_shared:
            await batch.storage.run_in_thread(partial(_cache_transcript, status.cached_name, content, batch))
            content_to_cache = None
            await _publish(status, batch, files, content)
            await batch.chunks.discard(result.chunk_names)
        item_result = await _write_outputs(
            item, status, config, batch, ItemOutcome.TRANSCRIBED, files, content_to_cache
        )
        if content_to_cache is not None:
            await batch.chunks.discard(result.chunk_names)
        return item_result._replace(is_untimed=is_untimed)
    finally:
        await batch.state.release(status.claim_key)


async def _inspect_and_judge(
    item: BatchItem, config: BatchConfig, batch: BatchContext, *, can_retry: bool
) -> ItemStatus:
    """Return the state of an item, with the verdict on a stored transcript.

    Raises:
        EmptyTranscript: The stored transcript is empty, but the recording has clear speech.
        RecordingError: The source cannot be read.
    """
    status = await inspect_item(item, config, batch)
    if status.cached is None:
        return status
    if not status.cached.is_checked:
        await batch.storage.fetch(item.source)
        recording = await probe_selected(item.source, str(item.source), status.selection)
        _store_again(status, await check_stored_result(status.cached, recording), batch)
    if can_retry and can_improve(status.cached):
        status.cached = None
        status.outputs_to_write = [
            index for index, state in enumerate(status.output_states) if state is not OutputState.EDITED
        ]
        return status
    accepted = accept(status.cached, config.acceptance)
    if accepted != status.cached:
        _store_again(status, accepted, batch)
    if status.outputs_to_write and status.cached.is_unaccepted_empty:
        raise build_empty_error(status.cached)
    return status


async def _check_embedding(item: BatchItem, status: ItemStatus, config: BatchConfig, batch: BatchContext) -> None:
    """Get the recording if an output to write contains it. Raises: UsageError: It is too large for a page."""
    formats = [item.outputs[index][0] for index in status.outputs_to_write]
    if any(embeds_source(format, config) for format in formats):
        await batch.storage.fetch(item.source)
        if config.style.embed_media and "html" in formats:
            check_embedded_size(item.source)


def _store_again(status: ItemStatus, result: TranscriptionResult, batch: BatchContext) -> None:
    """Store a transcript with a new verdict."""
    status.cached = result
    update = update_transcript(batch.transcripts.read(status.cached_name), result)
    if update is not None:
        _cache_transcript(status.cached_name, update, batch)


def _is_unchanged(item: BatchItem, status: ItemStatus, batch: BatchContext) -> bool:
    """Return whether the source is still the file that was hashed."""
    fingerprint = batch.storage.get_fingerprint(item.source)
    return fingerprint is not None and fingerprint._replace(ctime_ns=0) == status.source_fingerprint._replace(
        ctime_ns=0
    )


async def _use_stored_result(
    item: BatchItem, status: ItemStatus, config: BatchConfig, batch: BatchContext
) -> ItemResult:
    if not status.outputs_to_write:
        return _build_unsent_result(item, status, batch)
    files = _open_files(item, status, batch)
    await _publish(status, batch, files)
    return await _write_outputs(item, status, config, batch, ItemOutcome.WRITTEN, files)


async def _publish(
    status: ItemStatus,
    batch: BatchContext,
    files: Sequence[FileOutput],
    content: bytes | None = None,
) -> None:
    """Store the transcript where other machines find it, before the outputs.

    Args:
        content: A new transcript. It replaces one that was not sufficient, or damaged.

    Raises:
        OutputError: It cannot be stored there.
    """
    try:
        await batch.transcripts.publish(status.cached_name, content, replace=content is not None)
    except BaseException:
        for file in files:
            file.discard()
        raise


def _remember_timing(result: TranscriptionResult, config: BatchConfig, ctx: RunContext) -> bool:
    """Store that a model returned no timestamps for captions, and return whether it is so."""
    is_untimed = lacks_timestamps(result, config.request) and config.allow_chunk_timing
    if is_untimed:
        save_missing_timestamps(result.run.route, ctx.cache)
    return is_untimed


def _build_unsent_result(item: BatchItem, status: ItemStatus, batch: BatchContext) -> ItemResult:
    edited = _list_edited_outputs(item, status)
    is_partial = status.cached is not None and status.cached.is_unaccepted_partial
    return ItemResult(
        item,
        ItemOutcome.EDITED if edited else ItemOutcome.UNCHANGED,
        edited=edited,
        warnings=(status.cached.partial_reason or "",) if is_partial and status.cached is not None else (),
        is_partial=is_partial,
        is_without_output=all(batch.state.get_output(path) is None for _, path in item.outputs) if edited else False,
    )


def _list_edited_outputs(item: BatchItem, status: ItemStatus) -> tuple[Path, ...]:
    return tuple(
        path
        for index, (_, path) in enumerate(item.outputs)
        if status.output_states[index] is OutputState.EDITED and index not in status.outputs_to_write
    )


def build_previous_failure(failure: FailureRecord) -> PreviouslyFailed:
    error = PreviouslyFailed(f"failed in an earlier run: {failure.message}", hint="use --retry-failed to send it again")
    error.exit_code, error.code = failure.exit_code, failure.code
    return error


def may_be_billed(error: BaseException) -> bool:
    """Return whether a request of the failed item may have been billed."""
    if isinstance(error, RoutesExhausted):
        return error.may_be_billed
    return isinstance(error, AttemptError) and error.retryability is Retryability.IF_USER_ALLOWS


def _record_failure(status: ItemStatus, error: BaseException, batch: BatchContext) -> None:
    # The verdict on an empty transcript is stored with the transcript.
    if isinstance(error, AudiocliError) and may_be_billed(error) and not isinstance(error, EmptyTranscript):
        batch.state.record_failure(
            status.claim_key, FailureRecord(error.message, error.exit_code, error.code, error.hint)
        )


async def _send(
    item: BatchItem,
    status: ItemStatus,
    config: BatchConfig,
    batch: BatchContext,
    ctx: RunContext,
    progress: TranscriptionProgress | None,
    hold_slot: Callable[[], AbstractAsyncContextManager[None]],
) -> _SentRecording:
    """Transcribe one recording, in chunks if necessary. Raises: AudiocliError."""
    fetched = await batch.storage.fetch(item.source)
    recording = await probe_selected(item.source, str(item.source), status.selection)
    if any(format == CAPTIONED_VIDEO for format, _ in item.outputs):
        check_video(recording, str(item.source))
    request = config.request._replace(recording=recording)
    if progress is not None:
        progress.duration_s = sum(part.duration_s for part in plan_parts(recording, str(item.source)))

    def save(result: TranscriptionResult) -> None:
        if _is_unchanged(item, status, batch):
            content = serialize_result(result, config.request)
            _cache_transcript(compute_transcript_name(status.claim_key, result.run.route), content, batch)

    task = TranscriptionTask(
        request, batch.upload_directory, TextStream(), allow_empty=config.acceptance.allow_empty, save=save
    )
    send = partial(_send_recording, config=config, batch=batch, progress=progress, hold_slot=hold_slot)
    if recording.selection.is_everything:
        result = await send(task, ctx)
    else:
        paid = PaidTranscript(
            batch.transcripts,
            item.source,
            fetched or status.source_fingerprint,
            status.content_hash,
            config.select(status.selection),
        )
        result = await transcribe_parts(paid, task, send, str(item.source), ctx)
    if config.style.use_guard:
        result = await add_evidence(result, recording)
    return _SentRecording(result, recording.size_bytes)


async def _send_recording(
    task: TranscriptionTask,
    ctx: RunContext,
    *,
    config: BatchConfig,
    batch: BatchContext,
    progress: TranscriptionProgress | None,
    hold_slot: Callable[[], AbstractAsyncContextManager[None]],
) -> TranscriptionResult:
    recording = task.request.recording
    if not config.time_by_chunk and not (config.split and must_split(recording, config.routes, config.max_chunk_s)):
        return await transcribe(task, config.routes, config.skipped, ctx)
    long_task = LongTranscriptionTask(
        transcription=task,
        store=batch.chunks,
        progress=progress or TranscriptionProgress(recording.duration_s),
        concurrency=config.concurrency,
        max_chunk_s=config.max_chunk_s,
        time_by_chunk=config.time_by_chunk,
        carry_context=config.carry_context,
        resume=config.resume,
        retry_empty=config.retry_failed,
        accept_partial=config.acceptance.accept_partial,
    )
    async with hold_slot():
        plan = await build_chunk_plan(long_task, config.routes, ctx, spool_audio=True)
        return await transcribe_long(long_task, plan, config.routes, config.skipped, ctx)


async def _write_changed(
    item: BatchItem,
    status: ItemStatus,
    config: BatchConfig,
    batch: BatchContext,
    files: Sequence[FileOutput],
    sent: _SentRecording,
) -> ItemResult:
    """Write the outputs of a recording that changed while it was sent. The next run sends its new content.

    Transcripts are stored under the hash of the content that was sent. It is known if the file only grew, because a
    request has as many bytes as the file had. The chunks of a long recording are read while they are sent.
    """
    warning = f"{item.source} changed while it was sent; the transcript is that of its earlier content"
    fingerprint, content = status.source_fingerprint, None
    is_chunked = bool(sent.result.chunk_names or sent.result.missing_s or not status.selection.is_everything)
    is_known = sent.size_bytes == fingerprint.size_bytes and not is_chunked
    if is_known and await batch.storage.has_prefix(item.source, fingerprint.size_bytes, status.content_hash):
        content = _apply_result(status, accept(sent.result, config.acceptance), config)
    else:
        status.cached, status.cached_name = sent.result, secrets.token_hex(16)
    written = await _write_outputs(item, status, config, batch, ItemOutcome.TRANSCRIBED, files, content)
    return written._replace(warnings=(*written.warnings, warning), is_partial=not config.acceptance.accept_partial)


def _apply_result(status: ItemStatus, result: TranscriptionResult, config: BatchConfig) -> bytes:
    """Set `status.cached` to a new result, as a later run would read it. Return the content for the cache."""
    route = result.run.route
    content = serialize_result(result, config.request)
    status.cached_name = compute_transcript_name(status.claim_key, route)
    cached = parse_transcript(content, route)
    status.cached = cached.result._replace(run=result.run) if cached is not None else result
    return content


def _open_files(item: BatchItem, status: ItemStatus, batch: BatchContext) -> list[FileOutput]:
    """Open the outputs to write; none if their names are not known yet. Raises: OutputError."""
    if item.name_template is not None:
        return []
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
    """Write the outputs and record them in the manifest.

    Raises:
        InvalidResponse: Captions need timestamps (`--strict-timestamps`), and the transcript has none. The other
            formats are written.
        OutputError: An output cannot be written.
    """
    result = status.cached
    assert result is not None
    outputs = [item.outputs[index] for index in status.outputs_to_write]
    is_refused = config.strict_timestamps and lacks_timestamps(result, config.request)
    if is_refused:
        for (format, _), file in zip(outputs, files, strict=True):
            if format in CAPTION_FORMATS:
                file.discard()
        files = [file for (format, _), file in zip(outputs, files, strict=True) if format not in CAPTION_FORMATS]
        outputs = [output for output in outputs if output[0] not in CAPTION_FORMATS]
    if any(format == CAPTIONED_VIDEO for format, _ in outputs):
        # The transcript first, because it was paid for.
        if content_to_cache is not None:
            await batch.storage.run_in_thread(partial(_cache_transcript, status.cached_name, content_to_cache, batch))
        await _write_videos(item, result, config, outputs, files)
        content_to_cache = None
    for path, output in await batch.storage.run_in_thread(
        partial(_render_and_write, item, status, config, batch, outputs, files, content_to_cache)
    ):
        batch.state.record_output(path, output)
    if is_refused and len(outputs) < len(status.outputs_to_write):
        raise build_strict_error(result)
    suspicions = find_result_suspicions(result, config.style)
    return ItemResult(
        item,
        outcome,
        written=tuple(path for _, path in outputs),
        edited=_list_edited_outputs(item, status),
        duration_s=result.transcript.duration_s,
        run=result.run if outcome is ItemOutcome.TRANSCRIBED else None,
        warnings=(*result.warnings, *list_warnings(suspicions)),
        suspicions=suspicions,
        is_partial=result.is_unaccepted_partial,
    )


async def _write_videos(
    item: BatchItem,
    result: TranscriptionResult,
    config: BatchConfig,
    outputs: Sequence[tuple[str, Path]],
    files: Sequence[FileOutput],
) -> None:
    """Write the copies with captions to their open files. Raises: RecordingError, OutputError."""
    try:
        for (format, path), file in zip(outputs, files, strict=True):
            if format == CAPTIONED_VIDEO:
                await write_captioned_video(item.source, file.file, path, result.transcript, config.style)
    except BaseException:
        for file in files:
            file.discard()
        raise


def _render_and_write(
    item: BatchItem,
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
            b""  # the video is in the file already
            if format == CAPTIONED_VIDEO
            else render_output(status.cached, format, config.style, source=item.source, path=path)
            for format, path in outputs
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
            settings_fingerprint = compute_settings_fingerprint(status.cached_name, format, config, item.source, path)
            sha256 = hash_output(path) if format == CAPTIONED_VIDEO else hashlib.sha256(content).hexdigest()
            written.append((path, OutputRecord(settings_fingerprint, sha256, fingerprint)))
    return written


def _cache_transcript(name: str, content: bytes, batch: BatchContext) -> None:
    try:
        batch.transcripts.write(name, content)
    except OutputError:
        return  # without a cached copy the outputs can still be written
