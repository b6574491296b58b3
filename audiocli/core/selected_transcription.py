"""Transcribe what is selected of a recording, part by part.

A part is extracted to a file, so only what is selected is decoded and paid for, and transcribed like any other
recording. Its transcript gets the times of the complete recording and is stored under a name of its own. After a
failure, finished parts are not sent again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from ..audio.stereo import describe_cancellation
from ..console import WARNING_PREFIX
from ..errors import AudiocliError
from ..text.merge import join_ranges, merge_channels, shift_transcript
from ..types.audio import Recording, Selection
from ..types.results import RunResult, TranscriptionResult
from .attempts import merge_runs
from .paid_transcript import PaidTranscript
from .run_context import RunContext
from .selection import PART_FORMAT, format_range, plan_parts
from .transcription import TranscriptionTask, check_stored_result
from .uploads import convert_recording
from .verdicts import accept, build_empty_error, can_improve


async def transcribe_parts(
    paid: PaidTranscript,
    task: TranscriptionTask,
    send: Callable[[TranscriptionTask, RunContext], Awaitable[TranscriptionResult]],
    name: str,
    ctx: RunContext,
) -> TranscriptionResult:
    """Extract and transcribe the parts of a recording, in order, and merge their transcripts.

    Args:
        paid: The stored transcript of the complete selection. Those of the parts are stored beside it.
        task: Its recording is the complete one, with a resolved selection.
        send: Transcribe one recording, in one request or in chunks.
        name: The recording, in messages.

    Raises:
        AudiocliError: A part failed. Finished parts are stored.
    """
    recording, started_s = task.request.recording, ctx.now_s()
    parts = plan_parts(recording, name)
    results: list[TranscriptionResult] = []
    runs: list[RunResult] = []
    for part in parts:
        label = _describe_part(part, recording.selection) if len(parts) > 1 else ""
        part_paid = paid._replace(config=paid.config.select(part.selection))
        try:
            stored = await _find_stored(part_paid, part) if label else None
            result = stored or await _transcribe_part(part_paid, task, recording, part, label, send, ctx)
        except AudiocliError as error:
            if label:
                error.message = f"{label}: {error.message}"
            if label and results:
                saved = "the finished parts are saved; run the same command again to resume"
                error.hint = f"{error.hint}; {saved}" if error.hint else saved
            raise
        results.append(result)
        if stored is None:
            runs.append(result.run)
    return _merge_results(recording, parts, results, runs, elapsed_s=ctx.now_s() - started_s)


async def _find_stored(paid: PaidTranscript, part: Recording) -> TranscriptionResult | None:
    """Return the stored transcript of a part, unless it must be sent again.

    Raises:
        EmptyTranscript: It is empty, but the part has clear speech.
    """
    if paid.config.resume:
        await paid.store.fetch(paid.list_names())
    stored = paid.find() if paid.config.resume else None
    if stored is None or (paid.config.retry_failed and can_improve(stored[0])):
        return None
    result = stored[0] if stored[0].is_checked else await check_stored_result(stored[0], part)
    result = accept(result, paid.config.acceptance)
    if result.is_unaccepted_empty:
        raise build_empty_error(result)
    return result


async def _transcribe_part(
    paid: PaidTranscript,
    task: TranscriptionTask,
    recording: Recording,
    part: Recording,
    label: str,
    send: Callable[[TranscriptionTask, RunContext], Awaitable[TranscriptionResult]],
    ctx: RunContext,
) -> TranscriptionResult:
    extracted, canceled_s = await convert_recording(recording, task.directory, PART_FORMAT, part.selection)
    warning = describe_cancellation(canceled_s, extracted.duration_s)
    extracted = extracted._replace(selection=part.selection, original=recording.path)
    if label:
        ctx = _label_warnings(ctx, label)

    def convert(result: TranscriptionResult) -> TranscriptionResult:
        return _convert_to_recording(result, extracted, recording, label, (warning,) if warning else ())

    def save(result: TranscriptionResult) -> None:
        paid.save(convert(result))

    try:
        if warning is not None:
            ctx.info(f"{WARNING_PREFIX}{warning}")
        # Text of several parts would be printed before it is merged.
        request = task.request._replace(recording=extracted, stream=task.request.stream and not label)
        result = await send(task._replace(request=request, save=save), ctx)
    finally:
        extracted.path.unlink(missing_ok=True)
    result = convert(result)
    if label:
        # With its cost, and as a later run reads it.
        await paid.publish(result)
        result = paid.convert_to_stored(result)
    return result


def _convert_to_recording(
    result: TranscriptionResult, part: Recording, recording: Recording, label: str, warnings: Sequence[str]
) -> TranscriptionResult:
    """Return the result of a part with the times of the complete recording."""
    offset_s = part.offset_s
    return result._replace(
        transcript=shift_transcript(result.transcript, offset_s, recording.exact_duration_s),
        missing_s=tuple((start_s + offset_s, end_s + offset_s) for start_s, end_s in result.missing_s),
        warnings=tuple(f"{label}: {warning}" if label else warning for warning in (*warnings, *result.warnings)),
    )


def _label_warnings(ctx: RunContext, label: str) -> RunContext:
    """Return a context whose warnings name the part."""
    info = ctx.info

    def print_message(message: str) -> None:
        if message.startswith(WARNING_PREFIX):
            message = f"{WARNING_PREFIX}{label}: {message.removeprefix(WARNING_PREFIX)}"
        info(message)

    return ctx._replace(info=print_message)


def _describe_part(part: Recording, selection: Selection) -> str:
    """Name a part in messages, by what distinguishes it from the others."""
    words = []
    if selection.split_channels:
        words.append(f"channel {part.selection.channels[0] + 1}")
    if len(selection.ranges) > 1:
        words.append(format_range(part.selection.ranges[0]))
    return ", ".join(words)


def _merge_results(
    recording: Recording,
    parts: Sequence[Recording],
    results: Sequence[TranscriptionResult],
    runs: Sequence[RunResult],
    *,
    elapsed_s: float,
) -> TranscriptionResult:
    if len(results) == 1:
        return results[0]
    selection, duration_s = recording.selection, recording.exact_duration_s
    range_count = len(selection.ranges) or 1
    transcripts = [result.transcript for result in results]
    spans = [
        (start_s, start_s + part.duration_s)
        for part in parts
        for start_s in [part.selection.ranges[0].start_s if part.selection.ranges else 0.0]
    ]
    channel_transcripts = [
        join_ranges(transcripts[first : first + range_count], spans[first : first + range_count], duration_s=duration_s)
        for first in range(0, len(parts), range_count)
    ]
    transcript = channel_transcripts[0]
    if selection.split_channels:
        names = [
            *selection.channel_names,
            *(f"Channel {channel + 1}" for channel in selection.channels[len(selection.channel_names) :]),
        ]
        transcript = merge_channels(channel_transcripts, selection.channels, names, duration_s=duration_s)
    reasons = dict.fromkeys(result.partial_reason for result in results if result.partial_reason)
    partial_results = [result for result in results if result.is_partial]
    run = merge_runs(
        runs,
        results[0].run.route,
        first_byte_s=runs[0].first_byte_s if runs else None,
        elapsed_s=elapsed_s,
    )
    return TranscriptionResult(
        run=run if runs else run._replace(model=results[0].run.model),
        transcript=transcript,
        raw_response=b"".join(result.raw_response.strip() + b"\n" for result in results if result.raw_response),
        warnings=tuple(dict.fromkeys(warning for result in results for warning in result.warnings)),
        is_partial=bool(partial_results),
        chunk_names=tuple(name for result in results for name in result.chunk_names),
        partial_reason="; ".join(reasons) or None,
        is_accepted=bool(partial_results) and all(result.is_accepted for result in partial_results),
        missing_s=tuple(sorted(span for result in results for span in result.missing_s)),
    )
