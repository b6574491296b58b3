"""Speak one item of a batch: a row of a table of texts, or a chapter of a book."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...errors import AudiocliError
from ...outputs import MultiOutput
from ...storage.manifest import FailureRecord, OutputRecord
from ...storage.paid_results import PaidResultStore
from ...text.splitter import Chunk
from ...text.timing import TimedChunk
from ...types.requests import SpeechRequest
from ...types.results import SpeechResult
from ...types.routes import Route
from ..audio_pipeline import AudioOutput
from ..long_speech import LongSpeechTask, choose_voice, speak_long
from ..progress import SpeechProgress
from ..run_context import RunContext
from ..speech import SpeechTask, find_phrase, speak
from ..speech_names import compute_chunk_name
from .context import BatchState, Storage
from .item import build_previous_failure, may_be_billed
from .status import OutputState, inspect_output

if TYPE_CHECKING:
    from ...audio.processing import Processing
    from ...audio.tags import AudioTags
    from ...storage.phrase_cache import PhraseCache
    from ..speech_verification import Verification

# Increase when the same text and settings would give a different output.
OUTPUT_FINGERPRINT_VERSION = 1


class SpeechOutcome(StrEnum):
    """The final state of an item."""

    SPOKEN = "spoken"
    UNCHANGED = "unchanged"
    EDITED = "edited"
    FAILED = "failed"


class SpeechItem(NamedTuple):
    """A text and the file of its speech.

    Attributes:
        label: Names the item in messages, such as `row 3`.
        request: Has the text and the format of the output.
        chunks: The parts of a long text; empty if one request can hold it.
        routes: In order of preference, with the voice of the item.
        build_tags: Returns the tags of the complete file, from the positions of the chunks.
    """

    number: int
    label: str
    path: Path
    request: SpeechRequest
    chunks: tuple[Chunk, ...]
    routes: tuple[Route, ...]
    skipped: tuple[tuple[Route, AudiocliError], ...] = ()
    build_tags: Callable[[Sequence[TimedChunk]], AudioTags] | None = None


class SpeechItemResult(NamedTuple):
    """The result of one item. `result` is None if nothing was written."""

    item: SpeechItem
    outcome: SpeechOutcome
    result: SpeechResult | None = None
    error: AudiocliError | None = None


class SpeechBatchConfig(NamedTuple):
    """Settings that all items share. See `BatchConfig`.

    Attributes:
        concurrency: Maximum requests in flight for one item.
        pause_ms: Silence between paragraphs.
        verification: How the speech is verified; items then have chunks.
    """

    concurrency: int
    pause_ms: float = 0.0
    processing: Processing | None = None
    force: bool = False
    resume: bool = True
    retry_failed: bool = False
    verification: Verification | None = None


class SpeechBatchContext(NamedTuple):
    """Services that every item uses.

    Attributes:
        chunks: The audio of the chunks of unfinished items.
        locks: A lock for each claim, because rows with the same text have the same claim.
    """

    storage: Storage
    state: BatchState
    chunks: PaidResultStore
    phrases: PhraseCache | None
    scratch_directory: Path
    locks: defaultdict[str, asyncio.Lock]


def compute_output_fingerprint(
    item: SpeechItem, route: Route, config: SpeechBatchConfig, *, is_verified: bool = False
) -> str:
    """Return a hash of all that decides the content of an output. It is stored in the manifest.

    `is_verified`: the speech was verified and is right.
    """
    names = [name_chunk(item, chunk, route) for chunk in item.chunks] or [compute_chunk_name(item.request, route)]
    # A single chunk without a voice or a time exists for its verification only, and sounds like the text without it.
    is_single = len(item.chunks) == 1 and item.chunks[0].voice is None and item.chunks[0].start_s is None
    pauses = [] if is_single else [chunk.pause_ms for chunk in item.chunks]
    tags = None if item.build_tags is None else repr(item.build_tags(()))
    processing = None if config.processing is None else list(config.processing)
    inputs = [OUTPUT_FINGERPRINT_VERSION, "speech", names, pauses, item.request.format, config.pause_ms]
    if is_verified:
        inputs.append("verified")
    return hashlib.sha256(json.dumps([*inputs, processing, tags]).encode()).hexdigest()[:32]


def name_chunk(item: SpeechItem, chunk: Chunk, route: Route) -> str:
    """Return the name of the audio of a chunk of an item."""
    return compute_chunk_name(item.request._replace(text=chunk.text), choose_voice(route, chunk))


def list_remaining_texts(item: SpeechItem, config: SpeechBatchConfig, batch: SpeechBatchContext) -> list[str]:
    """Return the texts of an item that were not paid for before, one for each request, on the first route with any."""
    texts = [chunk.text for chunk in item.chunks] or [item.request.text]
    if not config.resume:
        return texts
    for route in item.routes:
        if not item.chunks:
            if batch.phrases is not None and find_phrase(item.request, route, batch.phrases) is not None:
                return []
            continue
        remaining = [
            chunk.text
            for chunk in item.chunks
            for name in [name_chunk(item, chunk, route)]
            if not (batch.chunks.has(name) or (batch.phrases is not None and batch.phrases.has(name)))
        ]
        if len(remaining) < len(item.chunks):
            return remaining
    return texts


def inspect_item(item: SpeechItem, config: SpeechBatchConfig, batch: SpeechBatchContext) -> OutputState:
    """Return how the output of an item compares to what would be written now.

    With verification, an output that was not verified is stale. Without it, one that was verified is current as well.
    """
    verdicts = (True, False) if config.verification is None else (True,)
    fingerprints = {
        compute_output_fingerprint(item, route, config, is_verified=is_verified)
        for route in item.routes
        for is_verified in verdicts
    }
    return inspect_output(item.path, fingerprints, batch.storage, batch.state)[0]


def must_write(state: OutputState, config: SpeechBatchConfig) -> bool:
    """Return whether an output is written: it is missing or stale, or `--force` replaces it."""
    if state is OutputState.CURRENT:
        return config.force and not config.resume
    return state is not OutputState.EDITED or config.force


async def process_item(
    item: SpeechItem, config: SpeechBatchConfig, batch: SpeechBatchContext, ctx: RunContext
) -> SpeechItemResult | None:
    """Bring the output of one item up to date.

    Return None if another process, or an item with the same text, is working on the same content.

    Raises:
        PreviouslyFailed: It failed in an earlier run and may have been billed.
        AudiocliError: It cannot be spoken or written.
    """
    claim_key = compute_output_fingerprint(item, item.routes[0], config)
    state = inspect_item(item, config, batch)
    if not must_write(state, config):
        is_edited = state is OutputState.EDITED
        return SpeechItemResult(item, SpeechOutcome.EDITED if is_edited else SpeechOutcome.UNCHANGED)
    if not await batch.state.claim(claim_key):
        return None
    try:
        can_retry = config.retry_failed or ctx.retry_policy.retry_unknown
        failure = batch.state.get_failure(claim_key)
        if failure is not None and not can_retry:
            raise build_previous_failure(failure)
        try:
            result = await _speak(item, config, batch, ctx)
        except AudiocliError as error:
            if may_be_billed(error):
                record = FailureRecord(error.message, error.exit_code, error.code, error.hint)
                batch.state.record_failure(claim_key, record)
            raise
        if failure is not None:
            batch.state.clear_failure(claim_key)
        _record_output(item, config, batch, result)
        return SpeechItemResult(item, SpeechOutcome.SPOKEN, result)
    finally:
        await batch.state.release(claim_key)


async def _speak(
    item: SpeechItem, config: SpeechBatchConfig, batch: SpeechBatchContext, ctx: RunContext
) -> SpeechResult:
    (file,) = batch.storage.open_outputs([item.path])
    timeline: list[TimedChunk] = []
    build_tags = item.build_tags
    output = AudioOutput(
        file,
        item.request.format,
        processing=config.processing,
        tags=None if build_tags is None else lambda: build_tags(timeline),
        scratch_directory=batch.scratch_directory,
    )
    if not item.chunks:
        task = SpeechTask(item.request, (output,), MultiOutput([file]), phrases=batch.phrases, resume=config.resume)
        return await speak(task, item.routes, item.skipped, ctx)
    long_task = LongSpeechTask(
        request=item.request,
        chunks=_iterate(item.chunks),
        audio_outputs=(output,),
        output=MultiOutput([file]),
        store=batch.chunks,
        progress=SpeechProgress(len(item.chunks)),
        concurrency=config.concurrency,
        pause_ms=config.pause_ms,
        resume=config.resume,
        timeline=timeline,
        phrases=batch.phrases,
        verification=config.verification,
    )
    return (await speak_long(long_task, item.routes, item.skipped, ctx)).result


def _record_output(
    item: SpeechItem, config: SpeechBatchConfig, batch: SpeechBatchContext, result: SpeechResult
) -> None:
    """Record what was written, so that the next run finds it up to date."""
    fingerprint = batch.storage.get_fingerprint(item.path)
    if fingerprint is None:
        return
    served = result.run.route
    route = next((route for route in item.routes if route.ref == served.ref), served)
    # What has failed is verified again by the next run, which sends nothing.
    is_verified = result.verification is not None and not result.verification.failed
    settings_fingerprint = compute_output_fingerprint(item, route, config, is_verified=is_verified)
    batch.state.record_output(item.path, OutputRecord(settings_fingerprint, result.sha256, fingerprint))


def write_playlist(path: Path, outputs: Sequence[Path], batch: SpeechBatchContext, *, force: bool) -> bool:
    """Write a playlist of the outputs that exist. Return False if another file has its name. Raises: OutputError."""
    lines = ["#EXTM3U", *(output.name for output in outputs if batch.storage.get_fingerprint(output) is not None)]
    content = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    sha256 = hashlib.sha256(content).hexdigest()
    state, _ = inspect_output(path, {sha256}, batch.storage, batch.state)
    if state is OutputState.EDITED and not force:
        return False
    if state is not OutputState.CURRENT:
        batch.storage.write_outputs(batch.storage.open_outputs([path]), [content])
        fingerprint = batch.storage.get_fingerprint(path)
        if fingerprint is not None:
            batch.state.record_output(path, OutputRecord(sha256, sha256, fingerprint))
    return True


async def _iterate(chunks: Sequence[Chunk]) -> AsyncIterator[Chunk]:
    for chunk in chunks:
        yield chunk
        await asyncio.sleep(0)
