"""Transcription: probe a recording, convert it if the gateway does not accept its format, send it, check the reply."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import gateways
from ..audio import formats
from ..audio.integrity import check_recording
from ..audio.wav import parse_wav_duration_s
from ..errors import AttemptError, AudiocliError, InvalidResponse, RecordingError, UsageError
from ..gateways import capability_errors, event_streams, transcript_responses
from ..gateways.base import as_object, read_json
from ..pricing import FREE, MIN_BILLED_S, estimate_transcription
from ..threads import run_in_thread
from ..types.audio import Recording
from ..types.ledger import Estimate, Reservation
from ..types.requests import HttpRequest, Timestamps, TranscriptionRequest
from ..types.results import TranscriptionResult
from ..types.routes import Route
from ..types.transcripts import Transcript
from .attempts import AttemptRecord, FeatureOperation, merge_usage, run
from .capabilities import save_refusals
from .catalog import find_prices
from .response_body import read_body
from .run_context import Response, RunContext
from .uploads import Uploads

if TYPE_CHECKING:
    from ..storage.response_cache import ResponseCache

HEAD_BYTES = 64 * 1024
# Background noise is around -60 dBFS, soft speech around -35.
MAX_SILENCE_DBFS = -50.0


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
    """A recording to transcribe.

    `directory` holds a converted recording while it is needed. `is_chunk`: the recording is part of a longer one, so
    it may contain no speech.
    """

    request: TranscriptionRequest
    directory: Path
    text_stream: TextStream
    is_chunk: bool = False


class ReceivedTranscript(NamedTuple):
    """A transcript with the response body that contained it."""

    transcript: Transcript
    raw_response: bytes
    warnings: tuple[str, ...]


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
    recording = task.request.recording
    operation = TranscriptionOperation(task, ctx)
    # Check for truncation while the gateway works: an hour of audio takes a second.
    truncation_task = None if task.is_chunk else asyncio.create_task(_find_truncation_s(recording))
    try:
        received, run_result = await run(operation, routes, ctx, skipped)
    except BaseException:
        if truncation_task is not None:
            truncation_task.cancel()
        raise
    finally:
        operation.uploads.remove()
    warnings = received.warnings
    truncation_s = None if truncation_task is None else await truncation_task
    if truncation_s is None and truncation_task is not None:
        truncation_s = operation.uploads.truncation_s
    if truncation_s is not None:
        warnings = (*warnings, f"the recording breaks off after {truncation_s:.0f} s; the transcript ends there")
    transcript = received.transcript
    if transcript.duration_s is None and recording.duration_s is not None:
        transcript = transcript._replace(duration_s=recording.duration_s)
    for warning in warnings:
        ctx.info(f"warning: {warning}")
    return TranscriptionResult(
        run_result,
        transcript,
        received.raw_response,
        (*operation.route_warnings.get(run_result.route), *warnings, *run_result.warnings),
        is_partial=truncation_s is not None,
    )


def estimate(duration_s: float | None, route: Route, cache: ResponseCache) -> Estimate:
    """Estimate the cost of a recording from the known prices of the model."""
    if gateways.load_dialect(route.dialect).is_free:
        return FREE
    return estimate_transcription(
        find_prices(route, cache), duration_s, min_billed_s=MIN_BILLED_S.get(route.gateway, 0.0)
    )


class TranscriptionOperation(FeatureOperation[ReceivedTranscript]):
    """Send a recording, converted if the route needs it, and receive its transcript."""

    command = "transcribe"

    def __init__(self, task: TranscriptionTask, ctx: RunContext) -> None:
        super().__init__(ctx)
        self.task = task
        self.uploads = Uploads(task.request.recording, task.directory)
        self._requests: dict[Route, TranscriptionRequest] = {}
        # The route before and after the recording was converted because of an error that names no format.
        self._conversion: tuple[Route, Route] | None = None

    def build_reservation(self, route: Route) -> Reservation:
        return Reservation(self.command, route.gateway, route.model, audio_s=self.task.request.recording.duration_s)

    def estimate(self, route: Route, record: AttemptRecord | None) -> Estimate:
        # Gateways charge for the length that they report.
        reported_s = record.usage.audio_s if record is not None else None
        return estimate(reported_s or self.task.request.recording.duration_s, route, self.ctx.cache)

    async def prepare(self, route: Route) -> None:
        """Convert the recording if the route needs it, and print warnings about unsupported options.

        Raises:
            UsageError: No accepted format can be made, or the recording is too large.
        """
        dialect = gateways.load_dialect(route.dialect)
        self.route_warnings.emit(route, dialect.get_transcription_warnings(self.task.request, route))
        accepted = [name for name in dialect.get_upload_formats(route) if f"upload:{name}" not in route.unsupported]
        recording = await self.uploads.convert_for(accepted, route)
        limit_bytes = dialect.get_limits(route).max_upload_bytes
        if limit_bytes is not None and recording.size_bytes > limit_bytes:
            raise UsageError(
                f"recording is {recording.size_bytes:,} bytes; {route.gateway} accepts at most {limit_bytes:,}"
            )
        self._requests[route] = self.task.request._replace(recording=recording)

    def get_features(self, route: Route) -> tuple[str, ...]:
        return gateways.load_dialect(route.dialect).get_transcription_features(self._requests[route], route)

    def check(self, route: Route) -> AudiocliError | None:
        return gateways.load_dialect(route.dialect).check_transcription(self.task.request, route)

    def build_request(self, route: Route) -> HttpRequest:
        request = self._requests[route]
        http_request = gateways.load_dialect(route.dialect).build_transcription_request(request, route)
        size_bytes = http_request.body.size_bytes if http_request.body else 0
        self.ctx.debug(f"{route.ref}: sending {request.recording.format}, {size_bytes:,} bytes")
        return http_request

    async def downgrade(self, route: Route, error: AttemptError) -> Route | None:
        """Return the route without the refused feature.

        If the error may be due to the format of the recording, but does not name it, the recording is converted and
        sent once more. The refusal is cached only if that helps, because the recording may be damaged.
        """
        downgraded = await super().downgrade(route, error)
        if downgraded is not None or self._conversion is not None:
            return downgraded
        if not capability_errors.may_refuse_recording_format(error):
            return None
        refused_format = self._requests[route].recording.format
        converted = route._replace(unsupported=route.unsupported | {f"upload:{refused_format}"})
        try:
            await self.prepare(converted)
        except (UsageError, RecordingError):
            return None  # no other format can be made; the error of the gateway says more
        if self._requests[converted].recording.format == refused_format:
            return None
        self._conversion = (route, converted)
        self.ctx.debug(f"{route.ref}: {error.message}; retrying as {self._requests[converted].recording.format}")
        return converted

    async def receive(self, route: Route, response: Response, record: AttemptRecord) -> ReceivedTranscript:
        received = await self._receive(route, response, record)
        if self._conversion is not None and self._conversion[1] == route:
            save_refusals(*self._conversion, self.ctx.cache)
        return received

    async def _receive(self, route: Route, response: Response, record: AttemptRecord) -> ReceivedTranscript:
        request, dialect = self.task.request, gateways.load_dialect(route.dialect)
        stream = (
            event_streams.TranscriptStream(response.headers)
            if event_streams.is_event_stream(response.headers)
            else None
        )
        body = await read_body(self._follow(response.iter_bytes(), stream, record))
        # Read the usage before the transcript: a reported cost counts even if the transcript is unusable.
        record.usage = merge_usage(record.usage, transcript_responses.parse_usage(as_object(read_json(body))))
        if stream is None:
            transcript = dialect.parse_transcript(body, response.headers)
        else:
            remaining_texts, transcript = stream.finish()
            await self.task.text_stream.emit(remaining_texts)
        record.usage = merge_usage(record.usage, transcript.usage)
        warnings: list[str] = []
        if not transcript.text.strip() and not self.task.is_chunk:
            warnings.append(await _explain_empty_transcript(request.recording, record))
        if transcript.segments == () and request.timestamps_required and transcript.words == () and transcript.text:
            raise InvalidResponse("200 without the requested timestamps", request_id=record.request_id)
        if request.timestamps is Timestamps.WORD and transcript.segments and not transcript.words:
            warnings.append(f"{route.ref} returned segment timestamps only, no word timestamps")
        return ReceivedTranscript(transcript, body, tuple(warnings))

    async def _follow(
        self, blocks: AsyncIterator[bytes], stream: event_streams.TranscriptStream | None, record: AttemptRecord
    ) -> AsyncIterator[bytes]:
        """Yield the body, count its bytes, and emit the text of an event stream as it arrives."""
        async for block in blocks:
            if record.first_byte_s is None and block:
                record.first_byte_s = self.ctx.now_s()
            record.received_bytes += len(block)
            if stream is not None:
                await self.task.text_stream.emit(stream.feed(block))
            yield block

    def can_restart(self) -> bool:
        return not self.task.text_stream.has_emitted


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
        # No codec, as in `probe_recording`.
        report = await asyncio.to_thread(check_recording, recording.path)
        return (recording.duration_s or 0.0) if report.problem == "truncated" else None
    from ..codecs.probe import find_truncation_s

    try:
        return await asyncio.to_thread(find_truncation_s, recording.path)
    except (RecordingError, OSError):
        return None  # the gateway has decoded it, so the transcript counts


def _probe_with_codec(path: Path) -> Recording:
    from ..codecs.probe import probe

    return probe(path)
