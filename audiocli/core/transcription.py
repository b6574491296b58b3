"""Write a recording down: look at it, convert what the gateway does not take, ask, judge the answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .. import gateways
from ..audio import formats
from ..audio.wav import wav_duration, wav_promise
from ..errors import AttemptError, AudiocliError, InvalidResponse, RecordingError, UsageError
from ..gateways import error_responses, event_streams, transcript_responses
from ..gateways.base import as_object, read_json
from ..pricing import FREE, LEAST_S, listening
from ..threads import run_in_thread
from ..types.values import (
    Reservation,
    Estimate,
    Recording,
    Route,
    Timestamps,
    Transcript,
    TranscriptionResult,
    TranscriptionRequest,
)
from .attempts import AttemptRecord, RouteRunner
from .audio_response import error_body
from .capabilities import keep, learnt
from .catalog import advised, prices_of
from .retry_policy import RetryPolicy
from .route_warnings import RouteWarnings, heed_swap, together
from .run_context import ResponseCache, RunContext
from .uploads import Uploads

HEAD_BYTES = 64 * 1024
# A quiet room is around -60 dBFS, soft speech around -35.
SILENT_UP_TO_DBFS = -50.0
# An hour of words with times is 2 MB; nothing that is a transcript is larger than this.
REPLY_BYTES = 64 * 1024 * 1024


class TextStream:
    """Passes text on as it comes. Once something was passed on, nothing can start over."""

    def __init__(self, listener: Callable[[str], Awaitable[None]] | None = None) -> None:
        self._listener = listener
        self.has_heard = False

    async def hear(self, texts: Sequence[str]) -> None:
        for text in texts if self._listener is not None else ():
            self.has_heard = True
            assert self._listener is not None
            await self._listener(text)


class TranscriptionTask(NamedTuple):
    """One `transcribe`; `folder` is where a converted recording may lie for as long as it is needed.

    `is_piece`: of something longer, so that nothing need be said in it.
    """

    request: TranscriptionRequest
    policy: RetryPolicy
    folder: Path
    hearing: TextStream
    tag: str | None = None
    is_piece: bool = False


async def look_at(path: Path, name: str) -> Recording:
    """Find out what a file is, by its content; `name` is what the user calls it.

    Raises: RecordingError: no sound in it.
    """
    try:
        return await _look_at(path)
    except RecordingError as error:
        error.message = error.message.replace(str(path), name)
        raise


async def _look_at(path: Path) -> Recording:
    try:
        with path.open("rb") as source:
            head = source.read(HEAD_BYTES)
            size_bytes = os.fstat(source.fileno()).st_size
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise RecordingError(f"{path} is empty")
    sniffed = formats.sniff(head)
    if sniffed is not None and sniffed.name == "wav":
        # The usual case needs no codec, which takes 60 ms and 30 MB.
        duration_s = wav_duration(head, size_bytes)
        if duration_s:
            return Recording(path, "wav", size_bytes, duration_s)
    return await asyncio.to_thread(_probe, path)


async def transcribe(
    transcription: TranscriptionTask,
    routes: Sequence[Route],
    skipped: Sequence[tuple[Route, AudiocliError]],
    tools: RunContext,
) -> TranscriptionResult:
    """Walk the routes until one has written the recording down. Raises: any AudiocliError."""
    request = transcription.request
    uploads = Uploads(request.recording, transcription.folder)
    heeded = RouteWarnings(tools)
    walk = RouteRunner(
        tools,
        policy=transcription.policy,
        is_free=lambda route: gateways.dialect(route.dialect).is_free,
        charge=lambda route: Reservation(
            command="transcribe",
            gateway=route.gateway,
            model=route.model,
            tag=transcription.tag,
            audio_s=request.recording.duration_s,
        ),
        # What a gateway says that it heard is what it charges.
        price=lambda route, told: estimate(
            (told.usage.audio_s if told is not None else None) or request.recording.duration_s, route, tools.cache
        ),
        once=lambda route, told: _once(transcription, route, told, tools, uploads),
        prepare=lambda route: prepare(transcription, route, uploads, heeded),
        can_restart=lambda: not transcription.hearing.has_heard,
        adapt=lambda route, error: _adapt(transcription, route, error, uploads, tools, heeded),
    )
    # Looked for while the gateway works: it takes a second for an hour of sound.
    looking = None if transcription.is_piece else asyncio.create_task(_break_s(request.recording))
    try:
        (transcript, reply, warnings), served = await walk.run(routes, skipped)
    except BaseException:
        if looking is not None:
            looking.cancel()
        raise
    finally:
        uploads.remove()
    break_s = None if looking is None else await looking
    if break_s is not None:
        warnings = (*warnings, f"the recording breaks off after {break_s:.0f} s: it was written down up to there")
    if transcript.duration_s is None and request.recording.duration_s is not None:
        transcript = transcript._replace(duration_s=request.recording.duration_s)
    for warning in warnings:
        tools.info(f"warning: {warning}")
    return TranscriptionResult(
        served, transcript, reply, (*heeded.of(served.route), *warnings), is_partial=break_s is not None
    )


def estimate(duration_s: float | None, route: Route, cache: ResponseCache) -> Estimate:
    """Price a recording by what is known of the model's prices."""
    if gateways.dialect(route.dialect).is_free:
        return FREE
    return listening(prices_of(route, cache), duration_s, least_s=LEAST_S.get(route.gateway, 0.0))


async def prepare(transcription: TranscriptionTask, route: Route, uploads: Uploads, heeded: RouteWarnings) -> None:
    """Have the recording in a format and of a size that the gateway takes, and say what the gateway will not do.

    Raises: UsageError: it cannot be.
    """
    dialect = gateways.dialect(route.dialect)
    heeded.tell(route, dialect.transcription_warnings(transcription.request, route))
    recording = await uploads.fit_for(takes(route), route)
    limit_bytes = dialect.limits(route).upload_bytes
    if limit_bytes is not None and recording.size_bytes > limit_bytes:
        raise UsageError(f"{recording.size_bytes:,} bytes are more than the {limit_bytes:,} that {route.gateway} takes")


async def _adapt(
    transcription: TranscriptionTask, route: Route, error: AttemptError, uploads: Uploads, tools: RunContext, heeded: RouteWarnings
) -> Route | None:
    """Ask for less where that is what was refused; None: then the work cannot be done over this route."""
    dialect = gateways.dialect(route.dialect)
    request = transcription.request._replace(recording=await uploads.fit_for(takes(route), route))
    other = learnt(route, error, dialect.transcription_features(request, route))
    if other is None:
        return None
    if dialect.transcription_refusal(transcription.request, other) is not None:
        keep(route, other, tools.cache)
        return None
    try:
        await prepare(transcription, other, uploads, heeded)
    except UsageError:
        return None
    keep(route, other, tools.cache)
    tools.debug(f"{route.ref}: {error.message}: asking without {', '.join(other.refused - route.refused)}")
    return other


def takes(route: Route) -> tuple[str, ...]:
    takes = gateways.dialect(route.dialect).upload_formats(route)
    return tuple(name for name in takes if f"upload:{name}" not in route.refused)


async def _once(
    transcription: TranscriptionTask, route: Route, told: AttemptRecord, tools: RunContext, uploads: Uploads
) -> tuple[Transcript, bytes, tuple[str, ...]]:
    """Send one request over one route and read its answer."""
    dialect = gateways.dialect(route.dialect)
    request = transcription.request
    recording = await uploads.fit_for(takes(route), route)
    warnings = list(uploads.warnings)
    wire_request = dialect.transcription(request._replace(recording=recording), route)
    size_bytes = wire_request.body.size_bytes if wire_request.body else 0
    tools.debug(f"{route.ref}: sending {recording.format}, {size_bytes:,} bytes")
    async with tools.transport(wire_request.url).open(wire_request) as reply:
        told.status, told.headers = reply.status, reply.headers
        told.request_id = error_responses.request_id(reply.headers)
        told.generation_id = dialect.generation_id(reply.headers)
        told.usage = dialect.usage(reply.headers)
        told.service = dialect.service(reply.headers, route)
        if not 200 <= reply.status < 300:
            error = dialect.failure(reply.status, reply.headers, await error_body(reply.chunks()))
            raise advised(error, route, tools.cache)
        stream = event_streams.TranscriptStream(reply.headers) if event_streams.is_stream(reply.headers) else None
        body = await _whole(reply.chunks(), told, tools, stream, transcription.hearing)
        # What a reply says of its cost holds also when it is of no use.
        told.usage = together(told.usage, transcript_responses.usage(as_object(read_json(body))))
        if stream is None:
            transcript = dialect.transcript(body, reply.headers)
        else:
            late, transcript = stream.finish()
            await transcription.hearing.hear(late)
    told.usage = together(told.usage, transcript.usage)
    if not transcript.text.strip() and not transcription.is_piece:
        warnings.append(await _explain_silence(request.recording, told))
    if transcript.segments == () and request.timestamps_required and transcript.words == () and transcript.text:
        raise InvalidResponse("200 without the times that were asked for", request_id=told.request_id)
    if request.timestamps is Timestamps.WORD and transcript.segments and not transcript.words:
        warnings.append(f"{route.ref} gave times for segments only, not for words")
    warnings += heed_swap(route, told)
    return transcript, body, tuple(warnings)


async def _whole(
    chunks: AsyncIterator[bytes],
    told: AttemptRecord,
    tools: RunContext,
    stream: event_streams.TranscriptStream | None,
    hearing: TextStream,
) -> bytes:
    """Read a whole reply, within reason; what a stream tells is heard as it comes."""
    parts: list[bytes] = []
    async for chunk in chunks:
        if told.first_byte_s is None and chunk:
            told.first_byte_s = tools.now_s()
        parts.append(chunk)
        if stream is not None:
            await hearing.hear(stream.feed(chunk))
        told.received_bytes += len(chunk)
        if told.received_bytes > REPLY_BYTES:
            raise InvalidResponse(f"the answer is over {REPLY_BYTES // 2**20} MB and no end", request_id=told.request_id)
    return b"".join(parts)


async def _explain_silence(recording: Recording, told: AttemptRecord) -> str:
    """An empty transcript is right for silence and wrong for anything else. Raises: BadAnswer: it is wrong."""
    from ..codecs.convert import loudness

    levels = loudness(recording.path)
    is_silent = True
    try:
        while is_silent and (level_dbfs := await run_in_thread(partial(next, levels, None))) is not None:
            is_silent = level_dbfs <= SILENT_UP_TO_DBFS
    except RecordingError:
        is_silent = False
    if not is_silent:
        raise InvalidResponse("200 with an empty transcript, although there is sound in it", request_id=told.request_id)
    return "no speech in the recording: the transcript is empty"


async def _break_s(recording: Recording) -> float | None:
    """Tell where a recording breaks off, if it does."""
    if recording.format == "wav":
        with recording.path.open("rb") as source:
            promise_s = wav_promise(source.read(HEAD_BYTES))
        there_s = recording.duration_s or 0.0
        return there_s if promise_s is not None and there_s < promise_s - 0.5 else None
    from ..codecs.probe import break_s

    try:
        return await asyncio.to_thread(break_s, recording.path)
    except (RecordingError, OSError):
        return None  # what it was worth, the gateway has said


def _probe(path: Path) -> Recording:
    from ..codecs.probe import probe

    return probe(path)
