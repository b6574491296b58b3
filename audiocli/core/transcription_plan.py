"""Plan the chunks of a long recording: their boundaries, their format and the names of their cached transcripts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .. import gateways
from ..audio import chunk_boundaries
from ..audio.chunk_boundaries import AudioChunk, ChunkLimits
from ..codecs.packet_index import PacketIndex
from ..errors import RecordingError, UsageError
from ..threads import run_in_thread
from ..types.audio import Recording
from ..types.routes import Route
from .progress import TranscriptionProgress
from .run_context import RunContext
from .transcription import TranscriptionTask
from .transcription_formats import (
    DEFAULT_MAX_CHUNK_S,
    MAX_CAPTION_CHUNK_S,
    choose_copied_format,
    choose_encoded_format,
    compute_max_chunk_s,
)
from .uploads import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from ..codecs.pcm_spool import PcmSpool
    from ..codecs.silence import SilenceScan

HASH_BLOCK_BYTES = 1024 * 1024
# Increase when the same name could stand for a different transcript.
CHUNK_NAME_VERSION = 2


class TranscriptStore(Protocol):
    """Serialized transcripts by name; `storage.paid_results.PaidResultStore` implements it."""

    def has(self, name: str) -> bool: ...

    def read(self, name: str) -> bytes | None: ...

    def write(self, name: str, content: bytes) -> None: ...

    def remove(self, names: Sequence[str]) -> None: ...


class LongTranscriptionTask(NamedTuple):
    """A transcription that is sent in chunks.

    `transcription` describes the complete recording, and `store` holds the transcripts of finished chunks.
    `max_chunk_s` is the user's maximum. `time_by_chunk`: each chunk becomes one cue, because no model returns
    timestamps. `carry_context`: send the chunks in order, each with the end of the previous transcript in its prompt.
    """

    transcription: TranscriptionTask
    store: TranscriptStore
    progress: TranscriptionProgress
    concurrency: int = 4
    max_chunk_s: float | None = None
    time_by_chunk: bool = False
    carry_context: bool = False
    resume: bool = True


class ChunkPlan(NamedTuple):
    """The chunks of a recording, their format, and the names under which their transcripts are stored.

    With a `packet_index`, chunks are stream copies. Without one, they are encoded: from the decoded audio in `spool`
    if there is one, else from the recording. `is_complete` is False if the recording is truncated.
    """

    chunks: tuple[AudioChunk, ...]
    format: str
    packet_index: PacketIndex | None
    chunk_names: tuple[str, ...]
    duration_s: float
    is_complete: bool
    spool: PcmSpool | None = None


def must_split(recording: Recording, routes: Sequence[Route], max_chunk_s: float | None) -> bool:
    """Return whether a recording exceeds the limits of one of the routes for a single request."""
    for route in routes:
        limits = gateways.load_dialect(route.dialect).get_limits(route)
        if limits.max_upload_bytes is not None and recording.size_bytes > limits.max_upload_bytes:
            return True
        allowed_s = min(filter(None, (limits.max_audio_s, max_chunk_s)), default=None)
        if allowed_s is not None and (recording.duration_s is None or recording.duration_s > allowed_s):
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
    """
    recording = task.transcription.request.recording
    format = choose_encoded_format(routes)
    requested_s = min(task.max_chunk_s or DEFAULT_MAX_CHUNK_S, MAX_CAPTION_CHUNK_S if task.time_by_chunk else math.inf)
    spool = await run_in_thread(lambda: _create_spool(task, routes, requested_s)) if spool_audio else None
    scan = _start_scan(recording.path, spool)
    try:
        while (decoded_s := await run_in_thread(partial(next, scan, None))) is not None:
            task.progress.decoded_s = decoded_s
        plan = await _choose_chunks(task, routes, ctx, scan, format, requested_s)
    except BaseException as error:
        if scan.spool is not None:
            scan.spool.close()
        if isinstance(error, OSError):
            raise RecordingError(f"cannot read {recording.path}: {error.strerror}") from error
        raise
    finally:
        scan.close()
    return plan


async def _choose_chunks(
    task: LongTranscriptionTask,
    routes: Sequence[Route],
    ctx: RunContext,
    scan: SilenceScan,
    format: str,
    requested_s: float,
) -> ChunkPlan:
    recording = task.transcription.request.recording
    copied_format = choose_copied_format(scan.packet_index, routes, requested_s)
    packet_index = scan.packet_index if copied_format is not None else None
    format = copied_format or format
    max_chunk_s = compute_max_chunk_s(format, packet_index, routes, requested_s)
    try:
        limits = ChunkLimits(max_chunk_s)
    except ValueError as error:
        raise UsageError(f"chunks of {max_chunk_s:g} s are too short") from error
    chunks = await run_in_thread(
        lambda: chunk_boundaries.plan_chunks(scan.sample_count, scan.silences, limits, pauses=scan.pauses)
    )
    content_hash = await run_in_thread(lambda: _hash_file(recording.path))
    encoding = format if packet_index is None else f"copied {format}"
    chunk_names = tuple(_compute_chunk_name(task, routes[0], content_hash, chunk, encoding) for chunk in chunks)
    task.progress.total_chunks = len(chunks)
    task.progress.duration_s = scan.position_s
    ctx.debug(f"{len(chunks)} chunks of at most {max_chunk_s:.0f} s, as {encoding}")
    return ChunkPlan(chunks, format, packet_index, chunk_names, scan.position_s, scan.is_complete, scan.spool)


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
    return hashlib.sha256(json.dumps(hash_inputs).encode()).hexdigest()[:32]


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _create_spool(task: LongTranscriptionTask, routes: Sequence[Route], requested_s: float) -> PcmSpool | None:
    """Return a spool for the decoded audio. Return None if chunks will be copied or disk space is short."""
    from ..codecs.pcm_spool import PcmSpool, has_disk_space
    from ..codecs.probe import probe_copyable_formats

    recording, directory = task.transcription.request.recording, task.transcription.directory
    if not recording.duration_s:
        return None
    expected_index = PacketIndex(
        probe_copyable_formats(recording.path), ((0.0, 0.0),), recording.size_bytes / recording.duration_s
    )
    if choose_copied_format(expected_index, routes, requested_s) is not None or not has_disk_space(
        directory, recording.duration_s
    ):
        return None
    try:
        return PcmSpool(directory)
    except OSError:
        return None  # the recording is decoded twice instead


def _start_scan(path: Path, spool: PcmSpool | None) -> SilenceScan:
    # Imported here because loading the codec takes 60 ms.
    from ..codecs.silence import scan_silence

    return scan_silence(path, spool=spool)
