"""Plan the chunks of a long recording: their boundaries, their format and the names of their cached transcripts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import gateways
from ..audio import chunk_boundaries
from ..audio.chunk_boundaries import AudioChunk, ChunkLimits
from ..errors import RecordingError, UsageError
from ..ledger.budget import MAX_COST_LIMIT, check_limit
from ..storage.local import hash_file
from ..storage.paid_results import PaidResultStore
from ..threads import run_in_thread
from ..types.audio import Recording
from ..types.routes import Route
from .ledger_writer import sum_spending
from .progress import TranscriptionProgress
from .run_context import RunContext
from .transcription import TranscriptionTask, estimate
from .uploads import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from ..codecs.pcm_spool import PcmSpool
    from ..codecs.silence import SilenceScan

# Formats of chunks, in order of preference. Opus takes half the bytes of mp3 and a third of the time.
ENCODED_FORMATS = ("opus", "ogg", "mp3", "flac", "wav")
# Used even if a gateway accepts more: shorter chunks are sent concurrently and answered before a timeout.
DEFAULT_MAX_CHUNK_S = 900.0
# When each chunk becomes one cue, short chunks give accurate cues.
MAX_CAPTION_CHUNK_S = 12.0

# Increase when the same name could stand for a different transcript.
CHUNK_NAME_VERSION = 2

# Version 0.1 copied packets where the gateway accepted one of these formats. The transcripts of such chunks are still
# used. They are stored for a week, so this can be removed one release later.
COPIED_FORMATS = ("mp3", "m4a", "mp4", "opus", "ogg", "webm", "wav")


class LongTranscriptionTask(NamedTuple):
    """A transcription that is sent in chunks.

    `transcription` describes the complete recording, and `store` holds the transcripts of finished chunks.
    `max_chunk_s` is the user's maximum. `time_by_chunk`: each chunk becomes one cue, because no model returns
    timestamps. `carry_context`: send the chunks in order, each with the end of the previous transcript in its prompt.
    `retry_empty`: send chunks again whose stored transcript is empty although they have speech. `accept_partial`:
    return a partial transcript if a chunk fails.
    """

    transcription: TranscriptionTask
    store: PaidResultStore
    progress: TranscriptionProgress
    concurrency: int = 4
    max_chunk_s: float | None = None
    time_by_chunk: bool = False
    carry_context: bool = False
    resume: bool = True
    retry_empty: bool = False
    accept_partial: bool = False


class ChunkPlan(NamedTuple):
    """The chunks of a recording, their format, and the names under which their transcripts are stored.

    Chunks are encoded from the decoded audio in `spool` if there is one, else from the recording. `is_complete` is
    False if the recording is truncated. In `canceled_s` seconds, only one of two channels is used. `silences` are those
    of the recording.
    """

    chunks: tuple[AudioChunk, ...]
    format: str
    chunk_names: tuple[str, ...]
    duration_s: float
    is_complete: bool
    spool: PcmSpool | None = None
    canceled_s: float = 0.0
    silences: tuple[chunk_boundaries.Span, ...] = ()


def must_split(recording: Recording, routes: Sequence[Route], max_chunk_s: float | None) -> bool:
    """Return whether a recording exceeds the limits of one of the routes for a single request."""
    for route in routes:
        limits = gateways.load_dialect(route.dialect).get_limits(route)
        if limits.max_upload_bytes is not None and recording.size_bytes > limits.max_upload_bytes:
            return True
        allowed_s = min(filter(None, (limits.max_audio_s, max_chunk_s)), default=None)
        if allowed_s is not None and recording.duration_s > allowed_s:
            return True
    return False


async def build_chunk_plan(
    task: LongTranscriptionTask, routes: Sequence[Route], ctx: RunContext, *, spool_audio: bool = False
) -> ChunkPlan:
    """Decode a recording once to find its silences, and plan its chunks.

    Args:
        spool_audio: Store the decoded audio, so that encoding the chunks does not decode the recording again.

    Raises:
        RecordingError: The recording cannot be read or decoded.
        UsageError: The routes have no format in common, or the chunks would be too short.
        LimitReached: The chunks may cost more than is left of `--max-cost`.
    """
    recording = task.transcription.request.recording
    format = choose_encoded_format(routes)
    requested_s = min(task.max_chunk_s or DEFAULT_MAX_CHUNK_S, MAX_CAPTION_CHUNK_S if task.time_by_chunk else math.inf)
    spool = await run_in_thread(lambda: _create_spool(task)) if spool_audio else None
    scan = _start_scan(recording.path, spool)
    try:
        while (decoded_s := await run_in_thread(partial(next, scan, None))) is not None:
            task.progress.decoded_s = decoded_s
        plan = await _choose_chunks(task, routes, ctx, scan, format, requested_s)
        await _check_run_limits(task, plan, routes, ctx)
    except BaseException as error:
        if scan.spool is not None:
            scan.spool.close()
        if isinstance(error, OSError):
            raise RecordingError(f"cannot read {recording.path}: {error.strerror}") from error
        raise
    finally:
        scan.close()
    return plan


async def _check_run_limits(
    task: LongTranscriptionTask, plan: ChunkPlan, routes: Sequence[Route], ctx: RunContext
) -> None:
    """Check the chunks that are not stored against `--max-cost`, before the first one is sent.

    Otherwise the limit would be reached in the middle of the recording. Limits of a period apply to each chunk, because
    the rest can be sent in the next period.

    Raises:
        LimitReached: The chunks may cost more than is left.
    """
    limits = [limit for limit in ctx.budget.limits if limit.name == MAX_COST_LIMIT]
    chunks = [
        chunk
        for chunk, name in zip(plan.chunks, plan.chunk_names, strict=True)
        if not (task.resume and task.store.has(name))
    ]
    recording = task.transcription.request.recording._replace(duration_s=sum(chunk.duration_s for chunk in chunks))
    for limit in limits if chunks else ():
        spent_nanousd = await sum_spending(ctx, limit)
        for route in routes:
            max_nanousd = estimate(recording, route, ctx.cache).max_nanousd
            if max_nanousd is not None or not ctx.budget.allow_unpriced:
                check_limit(limit, route.ref, spent_nanousd=spent_nanousd, max_nanousd=max_nanousd)


async def _choose_chunks(
    task: LongTranscriptionTask,
    routes: Sequence[Route],
    ctx: RunContext,
    scan: SilenceScan,
    format: str,
    requested_s: float,
) -> ChunkPlan:
    max_chunk_s = _compute_max_chunk_s(format, routes, requested_s)
    try:
        limits = ChunkLimits(max_chunk_s)
    except ValueError as error:
        raise UsageError(f"chunks of {max_chunk_s:g} s are too short") from error
    recording = task.transcription.request.recording
    content_hash = await hash_file(recording.original or recording.path)
    chunks = await run_in_thread(lambda: _plan_chunks(scan, limits))
    chunk_names = _compute_chunk_names(task, routes[0], content_hash, chunks, format)
    if task.resume:
        await task.store.fetch(chunk_names)
    if task.resume and not any(map(task.store.has, chunk_names)):
        copied_s = _compute_max_copied_chunk_s(scan.max_bytes_per_s, routes, requested_s)
        copied = await run_in_thread(partial(_find_copied_chunks, task, routes[0], scan, content_hash, copied_s))
        if copied is not None:
            chunks, chunk_names = copied
            await task.store.fetch(chunk_names)
    task.progress.total_chunks = len(chunks)
    task.progress.duration_s = scan.position_s
    ctx.debug(f"{len(chunks)} chunks of at most {max_chunk_s:.0f} s, as {format}")
    is_complete = scan.is_complete and not task.transcription.request.recording.is_truncated
    return ChunkPlan(
        chunks, format, chunk_names, scan.position_s, is_complete, scan.spool, scan.canceled_s, scan.silences
    )


def choose_encoded_format(routes: Sequence[Route]) -> str:
    """Return the format with the smallest files that every route accepts.

    Raises:
        UsageError: The routes have no format in common.
    """
    accepted = [gateways.load_dialect(route.dialect).get_upload_formats(route) for route in routes]
    for format in ENCODED_FORMATS:
        if all(format in formats or "*" in formats for formats in accepted):
            return format
    raise UsageError(
        "the models have no input format in common that audiocli can encode", hint="use only one of the models"
    )


def _compute_max_chunk_s(format: str, routes: Sequence[Route], requested_s: float) -> float:
    """Return the maximum length of a chunk in seconds, given the user's maximum and the limits of the routes."""
    max_chunk_s = requested_s
    for limits in (gateways.load_dialect(route.dialect).get_limits(route) for route in routes):
        if limits.max_audio_s is not None:
            max_chunk_s = min(max_chunk_s, limits.max_audio_s)
        if limits.max_upload_bytes is not None:
            max_chunk_s = min(max_chunk_s, chunk_boundaries.compute_max_chunk_s(format, limits.max_upload_bytes))
    return max_chunk_s


def _compute_max_copied_chunk_s(max_bytes_per_s: float, routes: Sequence[Route], requested_s: float) -> float:
    """Return the maximum length of a chunk that version 0.1 copied, in seconds.

    Such a chunk began a little early and ended with a complete packet: half a second, and two windows of the byte rate.
    """
    max_chunk_s = requested_s
    for limits in (gateways.load_dialect(route.dialect).get_limits(route) for route in routes):
        if limits.max_audio_s is not None:
            max_chunk_s = min(max_chunk_s, limits.max_audio_s - 0.5)
        if limits.max_upload_bytes is not None and max_bytes_per_s:
            max_chunk_s = min(max_chunk_s, (limits.max_upload_bytes - 16_384) / max_bytes_per_s - 20.0 - 0.5)
    return max_chunk_s


def _find_copied_chunks(
    task: LongTranscriptionTask, route: Route, scan: SilenceScan, content_hash: str, max_chunk_s: float
) -> tuple[tuple[AudioChunk, ...], tuple[str, ...]] | None:
    """Return the chunks that version 0.1 copied and their names, or None if no transcript of them is stored."""
    try:
        chunks = _plan_chunks(scan, ChunkLimits(max_chunk_s))
    except ValueError:
        return None  # it was too short to be copied
    for format in COPIED_FORMATS:
        names = _compute_chunk_names(task, route, content_hash, chunks, f"copied {format}")
        if any(map(task.store.has, names)):
            return chunks, names
    return None


def _plan_chunks(scan: SilenceScan, limits: ChunkLimits) -> tuple[AudioChunk, ...]:
    return chunk_boundaries.plan_chunks(scan.sample_count, scan.silences, limits, pauses=scan.pauses)


def _compute_chunk_names(
    task: LongTranscriptionTask, route: Route, content_hash: str, chunks: Sequence[AudioChunk], encoding: str
) -> tuple[str, ...]:
    return tuple(_compute_chunk_name(task, route, content_hash, chunk, encoding) for chunk in chunks)


def _compute_chunk_name(
    task: LongTranscriptionTask, route: Route, content_hash: str, chunk: AudioChunk, encoding: str
) -> str:
    """Return the name of a chunk's transcript: a hash of its audio, its encoding and the settings."""
    request = task.transcription.request
    hash_inputs: list[object] = [
        CHUNK_NAME_VERSION,
        content_hash,
        chunk.start,
        chunk.end,
        encoding,
        route.gateway,
        route.base_url,
        route.model,
    ]
    hash_inputs += [request.timestamps, request.language, request.prompt, request.temperature, request.translate]
    hash_inputs += [request.diarize, request.speakers, task.time_by_chunk, task.carry_context, SAMPLE_RATE_HZ]
    hash_inputs.append(json.dumps(dict(request.options), sort_keys=True))
    if not request.recording.selection.is_everything:  # older names have none
        hash_inputs.append(["selection", *request.recording.selection])
    if request.keyterms:  # older names have none
        hash_inputs.append(["keyterms", *request.keyterms])
    if route.traits.transcription_fingerprint:
        hash_inputs.append(route.traits.transcription_fingerprint)
    return hashlib.sha256(json.dumps(hash_inputs).encode()).hexdigest()[:32]


def _create_spool(task: LongTranscriptionTask) -> PcmSpool | None:
    """Return a spool for the decoded audio. Return None if disk space is short."""
    from ..codecs.pcm_spool import PcmSpool, has_disk_space

    recording, directory = task.transcription.request.recording, task.transcription.directory
    if not has_disk_space(directory, recording.duration_s):
        return None
    try:
        return PcmSpool(directory)
    except OSError:
        return None  # the recording is decoded twice instead


def _start_scan(path: Path, spool: PcmSpool | None) -> SilenceScan:
    # Imported here because loading the codec takes 60 ms.
    from ..codecs.silence import scan_silence

    # Whether the recording is truncated is known since it was probed.
    return scan_silence(path, spool=spool, check_truncation=False)
