"""Transcription: probe a recording, convert it if the gateway does not accept its format, send it, check the reply."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .. import gateways
from ..audio import formats
from ..audio.wav import parse_declared_wav_duration_s, parse_wav_duration_s
from ..errors import AttemptError, AudiocliError, InvalidResponse, RecordingError, UsageError
from ..gateways import error_responses, event_streams, transcript_responses
from ..gateways.base import as_object, read_json
from ..pricing import FREE, MIN_BILLED_S, estimate_transcription
from ..threads import run_in_thread
from ..types.audio import Recording
from ..types.ledger import Estimate, Reservation
from ..types.requests import Timestamps, TranscriptionRequest
from ..types.results import TranscriptionResult
from ..types.routes import Route
from ..types.transcripts import Transcript
from .attempts import AttemptRecord, RouteRunner, merge_usage
from .audio_response import read_error_body
from .capabilities import downgrade_route, save_refusals
from .catalog import add_model_hint, find_prices
from .retry_policy import RetryPolicy
from .route_warnings import RouteWarnings, check_model_substitution
from .run_context import ResponseCache, RunContext
from .uploads import Uploads

HEAD_BYTES = 64 * 1024
# Background noise is around -60 dBFS, soft speech around -35.
MAX_SILENCE_DBFS = -50.0
# An hour of words with times is 2 MB.
MAX_RESPONSE_BYTES = 64 * 1024 * 1024


class TextStream:
    """Pass streamed text to a listener. After the first text the output cannot start over."""

    def __init__(self, listener: Callable[[str], Awaitable[None]] | None = None) -> None:
        self._listener = listener
        self.has_emitted = False

    async def emit(self, texts: Sequence[str]) -> None:
        """Pass texts to the listener, if there is one."""
        for text in texts if self._listener is not None else ():
            self.has_emitted = True
            assert self._listener is not None
            await self._listener(text)


class TranscriptionTask(NamedTuple):
    """One transcription operation.

    `directory` holds a converted recording while it is needed. `is_chunk`: the recording is part of a longer one, so
    it may contain no speech.
    """

    request: TranscriptionRequest
    retry_policy: RetryPolicy
    directory: Path
    text_stream: TextStream
    tag: str | None = None
    is_chunk: bool = False


async def probe_recording(path: Path, name: str) -> Recording:
    """Return format and length of a recording, detected from its content. Messages use `name` for the path.

    Raises:
        RecordingError: The file cannot be read or has no audio.
    """
    try:
        return await _probe_file(path)
    except RecordingError as error:
        error.message = error.message.replace(str(path), name)
        raise


async def _probe_file(path: Path) -> Recording:
    try:
        with path.open("rb") as source:
            head = source.read(HEAD_BYTES)
            size_bytes = os.fstat(source.fileno()).st_size
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise RecordingError(f"{path} is empty")
    sniffed = formats.sniff_format(head)
    if sniffed is not None and sniffed.name == "wav":
        # WAV needs no codec, whose import takes 60 ms and 30 MB.
        duration_s = parse_wav_duration_s(head, size_bytes)
        if duration_s:
            return Recording(path, "wav", size_bytes, duration_s)
    return await asyncio.to_thread(_probe_with_codec, path)


async def transcribe(
    task: TranscriptionTask,
    routes: Sequence[Route],
    skipped: Sequence[tuple[Route, AudiocliError]],
    ctx: RunContext,
) -> TranscriptionResult:
    """Send a recording over the first route that can serve it, and return the transcript.

    Raises:
        AudiocliError: No route served.
    """
    request = task.request
    uploads = Uploads(request.recording, task.directory)
    route_warnings = RouteWarnings(ctx)
    runner = RouteRunner(
        ctx,
        retry_policy=task.retry_policy,
        is_free=lambda route: gateways.load_dialect(route.dialect).is_free,
        build_reservation=lambda route: Reservation(
            command="transcribe",
            gateway=route.gateway,
            model=route.model,
            tag=task.tag,
            audio_s=request.recording.duration_s,
        ),
        # Gateways charge for the length that they report.
        estimate=lambda route, record: estimate(
            (record.usage.audio_s if record is not None else None) or request.recording.duration_s, route, ctx.cache
        ),
        send=lambda route, record: _send(task, route, record, ctx, uploads),
        prepare=lambda route: prepare(task, route, uploads, route_warnings),
        can_restart=lambda: not task.text_stream.has_emitted,
        downgrade=lambda route, error: _downgrade(task, route, error, uploads, ctx, route_warnings),
    )
    # Check for truncation while the gateway works: an hour of audio takes a second.
    truncation_task = None if task.is_chunk else asyncio.create_task(_find_truncation_s(request.recording))
    try:
        (transcript, body, warnings), run_result = await runner.run(routes, skipped)
    except BaseException:
        if truncation_task is not None:
            truncation_task.cancel()
        raise
    finally:
        uploads.remove()
    truncation_s = None if truncation_task is None else await truncation_task
    if truncation_s is not None:
        warnings = (*warnings, f"the recording breaks off after {truncation_s:.0f} s; the transcript ends there")
    if transcript.duration_s is None and request.recording.duration_s is not None:
        transcript = transcript._replace(duration_s=request.recording.duration_s)
    for warning in warnings:
        ctx.info(f"warning: {warning}")
    return TranscriptionResult(
        run_result,
        transcript,
        body,
        (*route_warnings.get(run_result.route), *warnings),
        is_partial=truncation_s is not None,
    )


def estimate(duration_s: float | None, route: Route, cache: ResponseCache) -> Estimate:
    """Estimate the cost of a recording from the known prices of the model."""
    if gateways.load_dialect(route.dialect).is_free:
        return FREE
    return estimate_transcription(
        find_prices(route, cache), duration_s, min_billed_s=MIN_BILLED_S.get(route.gateway, 0.0)
    )


async def prepare(task: TranscriptionTask, route: Route, uploads: Uploads, route_warnings: RouteWarnings) -> None:
    """Convert the recording if the route needs it, and print warnings about unsupported options.

    Raises:
        UsageError: No accepted format can be made, or the recording is too large.
    """
    dialect = gateways.load_dialect(route.dialect)
    route_warnings.emit(route, dialect.get_transcription_warnings(task.request, route))
    recording = await uploads.convert_for(get_accepted_formats(route), route)
    limit_bytes = dialect.get_limits(route).max_upload_bytes
    if limit_bytes is not None and recording.size_bytes > limit_bytes:
        raise UsageError(
            f"recording is {recording.size_bytes:,} bytes; {route.gateway} accepts at most {limit_bytes:,}"
        )


async def _downgrade(
    task: TranscriptionTask,
    route: Route,
    error: AttemptError,
    uploads: Uploads,
    ctx: RunContext,
    route_warnings: RouteWarnings,
) -> Route | None:
    """Return the route without the refused feature; None if there is none, or the request needs the feature."""
    dialect = gateways.load_dialect(route.dialect)
    request = task.request._replace(recording=await uploads.convert_for(get_accepted_formats(route), route))
    downgraded = downgrade_route(route, error, dialect.get_transcription_features(request, route))
    if downgraded is None:
        return None
    if dialect.check_transcription(task.request, downgraded) is not None:
        save_refusals(route, downgraded, ctx.cache)
        return None
    try:
        await prepare(task, downgraded, uploads, route_warnings)
    except UsageError:
        return None
    save_refusals(route, downgraded, ctx.cache)
    ctx.debug(f"{route.ref}: {error.message}; retrying without {', '.join(downgraded.unsupported - route.unsupported)}")
    return downgraded


def get_accepted_formats(route: Route) -> tuple[str, ...]:
    """Return the upload formats that a route accepts and has not refused."""
    names = gateways.load_dialect(route.dialect).get_upload_formats(route)
    return tuple(name for name in names if f"upload:{name}" not in route.unsupported)


async def _send(
    task: TranscriptionTask, route: Route, record: AttemptRecord, ctx: RunContext, uploads: Uploads
) -> tuple[Transcript, bytes, tuple[str, ...]]:
    """Send one request over one route. Return the transcript, the response body and warnings."""
    dialect = gateways.load_dialect(route.dialect)
    request = task.request
    recording = await uploads.convert_for(get_accepted_formats(route), route)
    warnings = list(uploads.warnings)
    http_request = dialect.build_transcription_request(request._replace(recording=recording), route)
    size_bytes = http_request.body.size_bytes if http_request.body else 0
    ctx.debug(f"{route.ref}: sending {recording.format}, {size_bytes:,} bytes")
    async with ctx.transport(http_request.url).open(http_request) as response:
        record.status, record.headers = response.status, response.headers
        record.request_id = error_responses.parse_request_id(response.headers)
        record.generation_id = dialect.parse_generation_id(response.headers)
        record.usage = dialect.parse_usage(response.headers)
        record.served_model = dialect.parse_served_model(response.headers, route)
        if not 200 <= response.status < 300:
            error = dialect.parse_error(response.status, response.headers, await read_error_body(response.iter_bytes()))
            raise add_model_hint(error, route, ctx.cache)
        stream = (
            event_streams.TranscriptStream(response.headers)
            if event_streams.is_event_stream(response.headers)
            else None
        )
        body = await _read_body(response.iter_bytes(), record, ctx, stream, task.text_stream)
        # Read the usage before the transcript: a reported cost counts even if the transcript is unusable.
        record.usage = merge_usage(record.usage, transcript_responses.parse_usage(as_object(read_json(body))))
        if stream is None:
            transcript = dialect.parse_transcript(body, response.headers)
        else:
            remaining_texts, transcript = stream.finish()
            await task.text_stream.emit(remaining_texts)
    record.usage = merge_usage(record.usage, transcript.usage)
    if not transcript.text.strip() and not task.is_chunk:
        warnings.append(await _explain_empty_transcript(request.recording, record))
    if transcript.segments == () and request.timestamps_required and transcript.words == () and transcript.text:
        raise InvalidResponse("200 without the requested timestamps", request_id=record.request_id)
    if request.timestamps is Timestamps.WORD and transcript.segments and not transcript.words:
        warnings.append(f"{route.ref} returned segment timestamps only, no word timestamps")
    warnings += check_model_substitution(route, record)
    return transcript, body, tuple(warnings)


async def _read_body(
    blocks: AsyncIterator[bytes],
    record: AttemptRecord,
    ctx: RunContext,
    stream: event_streams.TranscriptStream | None,
    text_stream: TextStream,
) -> bytes:
    """Read a response body up to `MAX_RESPONSE_BYTES`, and emit the text of an event stream as it arrives."""
    received: list[bytes] = []
    async for block in blocks:
        if record.first_byte_s is None and block:
            record.first_byte_s = ctx.now_s()
        received.append(block)
        if stream is not None:
            await text_stream.emit(stream.feed(block))
        record.received_bytes += len(block)
        if record.received_bytes > MAX_RESPONSE_BYTES:
            raise InvalidResponse(
                f"response exceeds {MAX_RESPONSE_BYTES // 2**20} MB limit", request_id=record.request_id
            )
    return b"".join(received)


async def _explain_empty_transcript(recording: Recording, record: AttemptRecord) -> str:
    """Return the warning for an empty transcript of a silent recording.

    Raises:
        InvalidResponse: The recording is not silent.
    """
    from ..codecs.convert import measure_peaks_dbfs

    levels = measure_peaks_dbfs(recording.path)
    is_silent = True
    try:
        while is_silent and (level_dbfs := await run_in_thread(partial(next, levels, None))) is not None:
            is_silent = level_dbfs <= MAX_SILENCE_DBFS
    except RecordingError:
        is_silent = False
    if not is_silent:
        raise InvalidResponse(
            "200 with an empty transcript for a recording that is not silent", request_id=record.request_id
        )
    return "no speech in the recording; the transcript is empty"


async def _find_truncation_s(recording: Recording) -> float | None:
    """Return the time in seconds at which a truncated recording ends; None if it is complete."""
    if recording.format == "wav":
        with recording.path.open("rb") as source:
            declared_s = parse_declared_wav_duration_s(source.read(HEAD_BYTES))
        actual_s = recording.duration_s or 0.0
        return actual_s if declared_s is not None and actual_s < declared_s - 0.5 else None
    from ..codecs.probe import find_truncation_s

    try:
        return await asyncio.to_thread(find_truncation_s, recording.path)
    except (RecordingError, OSError):
        return None  # the gateway has decoded it, so the transcript counts


def _probe_with_codec(path: Path) -> Recording:
    from ..codecs.probe import probe

    return probe(path)
