"""Transcription: probe a recording, convert it if the gateway does not accept its format, send it, check the reply."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import gateways
from ..audio.integrity import probe_wav
from ..errors import AttemptError, AudiocliError, RecordingError, ResponseInterrupted, RoutesExhausted, UsageError
from ..gateways import capability_errors, event_streams, transcript_responses
from ..gateways.base import as_object, read_json
from ..gateways.model_hints import suggest_diarization
from ..outputs.rescue import iter_rescue_paths
from ..pricing import (
    FREE,
    MIN_BILLED_S,
    correct_estimate,
    estimate_transcription,
    estimate_usage,
    has_output_token_price,
)
from ..private_files import write_atomically
from ..types.audio import Recording
from ..types.ledger import CostSource, Estimate, Reservation
from ..types.requests import HttpRequest, Timestamps, TranscriptionRequest
from ..types.results import RunResult, TranscriptionResult
from ..types.routes import Route
from ..types.transcripts import Timing, Transcript
from .attempts import AttemptRecord, FeatureOperation, merge_usage, run
from .capabilities import list_option_names, save_refusals
from .catalog import find_prices
from .response_body import read_body
from .run_context import Response, RunContext
from .uploads import Uploads
from .verdicts import (
    MIN_SPEECH_S,
    NO_SPEECH_WARNING,
    EmptyTranscript,
    build_empty_error,
    format_truncation,
    measure_speech_s,
)

if TYPE_CHECKING:
    from ..storage.response_cache import ResponseCache

HEAD_BYTES = 64 * 1024


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
    it may contain no speech. `allow_empty`: accept an empty transcript of any recording. `save` stores a result as
    soon as its last byte has arrived; its cost and whether the recording is truncated are not known by then. The text
    of an interrupted stream is saved in `rescue_directory`, unless it was printed as it arrived. `command` is recorded
    in the ledger.
    """

    request: TranscriptionRequest
    directory: Path
    text_stream: TextStream
    is_chunk: bool = False
    allow_empty: bool = False
    save: Callable[[TranscriptionResult], object] | None = None
    rescue_directory: Path | None = None
    command: str = "transcribe"


class ReceivedTranscript(NamedTuple):
    """A transcript with the response body that contained it."""

    transcript: Transcript
    raw_response: bytes
    warnings: tuple[str, ...]


async def probe_recording(path: Path, name: str, track: int | None = None) -> Recording:
    """Return format and length of a recording, measured from its content. Messages use `name` for the path.

    `track` is the number of the audio track to measure, from 1; None is the one that a player chooses.

    Raises:
        RecordingError: The file cannot be read or has no audio.
    """
    try:
        return await _probe_file(path, track)
    except RecordingError as error:
        error.message = error.message.replace(str(path), name)
        raise


async def _probe_file(path: Path, track: int | None) -> Recording:
    try:
        with path.open("rb") as source:
            head = source.read(HEAD_BYTES)
            size_bytes = os.fstat(source.fileno()).st_size
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise RecordingError(f"{path} is empty")
    recording = await asyncio.to_thread(probe_wav, path, head, size_bytes)
    if recording is not None and recording.duration_s and track in (None, 1):
        return recording
    return await asyncio.to_thread(_probe_with_codec, path, track)


async def transcribe(
    task: TranscriptionTask,
    routes: Sequence[Route],
    skipped: Sequence[tuple[Route, AudiocliError]],
    ctx: RunContext,
) -> TranscriptionResult:
    """Send a recording over the first route that can serve it, and return the transcript.

    Raises:
        EmptyTranscript: A route returned no text for a recording with clear speech, and no other route served.
        AudiocliError: No route served.
    """
    recording = task.request.recording
    operation = TranscriptionOperation(task, ctx)
    try:
        received, run_result = await run(operation, routes, ctx, skipped)
    except RoutesExhausted as error:
        if operation.empty_result is not None:
            raise build_empty_error(operation.empty_result) from error
        raise
    finally:
        operation.uploads.remove()
    warnings = (*received.warnings, *operation.uploads.channel_warnings)
    truncation_s = operation.uploads.truncation_s
    if recording.is_truncated:
        truncation_s = recording.offset_s + recording.duration_s
    partial_reason = None if truncation_s is None else describe_truncation(truncation_s)
    if partial_reason is not None:
        warnings = (*warnings, partial_reason)
    transcript = _set_duration(received.transcript, recording)
    for warning in warnings:
        ctx.info(f"warning: {warning}")
    return TranscriptionResult(
        run_result,
        transcript,
        received.raw_response,
        (*operation.route_warnings.get(run_result.route), *warnings, *run_result.warnings),
        is_partial=partial_reason is not None,
        partial_reason=partial_reason,
    )


async def check_stored_result(result: TranscriptionResult, recording: Recording) -> TranscriptionResult:
    """Check the recording of a result that a killed process stored before it had done so."""
    truncation_s = recording.duration_s if recording.is_truncated else None
    if truncation_s is None:
        return result._replace(is_checked=True)
    reason = describe_truncation(truncation_s)
    return result._replace(is_checked=True, is_partial=True, partial_reason=reason, warnings=(*result.warnings, reason))


def describe_truncation(truncation_s: float) -> str:
    return f"the recording breaks off after {format_truncation(truncation_s)}; the transcript ends there"


def estimate(recording: Recording, route: Route, cache: ResponseCache, record: AttemptRecord | None = None) -> Estimate:
    """Estimate the cost of a recording from the known prices of the model.

    Before it is sent, earlier bills correct the estimate. Afterwards the reported tokens are more precise.
    """
    if gateways.load_dialect(route.dialect).is_free:
        return FREE
    prices = find_prices(route, cache)
    if record is not None and record.usage.output_tokens and has_output_token_price(prices):
        return estimate_usage(prices, record.usage)
    min_billed_s = MIN_BILLED_S.get(route.gateway, 0.0)
    listed = estimate_transcription(prices, _choose_billed_s(recording, record), min_billed_s=min_billed_s)
    if not recording.is_duration_exact:
        listed = listed._replace(is_exact=False)
    return correct_estimate(listed, route.estimate_correction)


def _choose_billed_s(recording: Recording, record: AttemptRecord | None) -> float:
    """Return the length that a gateway charges for.

    That is the length that it reports. Some report the end of the last segment, so a shorter one counts only if it may
    be the measured length in whole seconds.
    """
    reported_s = (record.usage.audio_s if record is not None else None) or 0.0
    is_rounded = recording.duration_s - reported_s <= 1.0
    return reported_s if reported_s and is_rounded else max(reported_s, recording.duration_s)


class TranscriptionOperation(FeatureOperation[ReceivedTranscript]):
    """Send a recording, converted if the route needs it, and receive its transcript."""

    command = "transcribe"

    def __init__(self, task: TranscriptionTask, ctx: RunContext) -> None:
        super().__init__(ctx)
        self.task = task
        self.command = task.command
        self.uploads = Uploads(task.request.recording, task.directory)
        self._requests: dict[Route, TranscriptionRequest] = {}
        # The route before and after the recording was converted because of an error that names no format.
        self._conversion: tuple[Route, Route] | None = None
        # An empty transcript of a recording with clear speech, for the case that no other route serves.
        self.empty_result: TranscriptionResult | None = None

    def build_reservation(self, route: Route) -> Reservation:
        return Reservation(self.command, route.gateway, route.model, audio_s=self.task.request.recording.duration_s)

    def estimate(self, route: Route, record: AttemptRecord | None) -> Estimate:
        return estimate(self.task.request.recording, route, self.ctx.cache, record)

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
                f"the recording has {recording.size_bytes:,} bytes; {route.gateway} accepts at most {limit_bytes:,}"
            )
        self._requests[route] = self.task.request._replace(recording=recording)

    def get_features(self, route: Route) -> tuple[str, ...]:
        return gateways.load_dialect(route.dialect).get_transcription_features(self._requests[route], route)

    def list_fields(self) -> tuple[str, ...]:
        request = self.task.request
        is_set = {
            "diarize": request.diarize,
            "speakers": bool(request.speakers),
            "language": request.language is not None,
            "prompt": request.prompt is not None,
            "temperature": request.temperature is not None,
            "stream": request.stream,
            "keyterms": bool(request.keyterms),
            "translate": request.translate,
        }
        return (*(name for name in is_set if is_set[name]), *list_option_names(request.options))

    def add_hint(self, route: Route, error: AttemptError) -> None:
        is_refused = error.status in capability_errors.REFUSAL_STATUSES and self.task.request.diarize
        if is_refused and error.hint is None and capability_errors.names_field(error.message, ("diarize",)):
            error.hint = suggest_diarization(route)

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
        try:
            body = await read_body(self._follow(response.iter_bytes(), stream, record))
        except ResponseInterrupted as error:
            self._rescue_text(stream, error)
            raise
        # Read the usage before the transcript: a reported cost counts even if the transcript is unusable.
        record.usage = merge_usage(record.usage, transcript_responses.parse_usage(as_object(read_json(body))))
        if stream is None:
            transcript = dialect.parse_transcript(body, response.headers)
        else:
            try:
                remaining_texts, transcript = stream.finish()
            except ResponseInterrupted as error:
                self._rescue_text(stream, error)
                raise
        record.usage = merge_usage(record.usage, transcript.usage)
        received = ReceivedTranscript(transcript, body, _describe_timing(transcript, request, route))
        if transcript.text.strip():
            self._save(route, record, received)
        elif not self.task.is_chunk:
            received = await self._judge_empty_transcript(route, record, received)
        if stream is not None:
            await self.task.text_stream.emit(remaining_texts)
        return received

    def _rescue_text(self, stream: event_streams.TranscriptStream | None, error: ResponseInterrupted) -> None:
        """Save the text of an interrupted stream, and add its path to the hint of the error."""
        text = stream.text.strip() if stream is not None else ""
        if not text or self.task.text_stream.has_emitted or self.task.rescue_directory is None:
            return
        for path in iter_rescue_paths(self.task.rescue_directory, f"{secrets.token_hex(4)}-transcript.txt"):
            try:
                write_atomically(path, f"{text}\n".encode("utf-8", "replace"))
            except OSError:
                continue
            saved = f"the text that had arrived is saved in {path}"
            error.hint = f"{error.hint}; {saved}" if error.hint else saved
            return

    async def _judge_empty_transcript(
        self, route: Route, record: AttemptRecord, received: ReceivedTranscript
    ) -> ReceivedTranscript:
        """Return an empty transcript with a warning, and save it with its verdict.

        Raises:
            EmptyTranscript: The recording has clear speech.
        """
        if self.task.allow_empty:
            received = received._replace(warnings=(*received.warnings, "the transcript is empty"))
            self._save(route, record, received)
            return received
        speech_s = await measure_speech_s(self.task.request.recording.path)
        if speech_s < MIN_SPEECH_S:
            received = received._replace(warnings=(*received.warnings, NO_SPEECH_WARNING))
            self._save(route, record, received)
            return received
        self.empty_result = self._save(route, record, received, missed_speech_s=speech_s)
        raise EmptyTranscript(self.empty_result, request_id=record.request_id)

    def _save(
        self,
        route: Route,
        record: AttemptRecord,
        received: ReceivedTranscript,
        *,
        missed_speech_s: float | None = None,
    ) -> TranscriptionResult:
        """Store a result before anything else is done, so that it is not lost if the process is killed."""
        cost_nanousd = record.usage.cost_nanousd
        result = TranscriptionResult(
            RunResult(
                route=route,
                model=(record.served_model.is_substituted and record.served_model.model) or route.model,
                request_count=1,
                attempt_count=1,
                cost_nanousd=cost_nanousd,
                cost_source=CostSource.UNKNOWN if cost_nanousd is None else CostSource.REPORTED,
                generation_ids=(record.generation_id,) if record.generation_id else (),
            ),
            _set_duration(received.transcript, self.task.request.recording),
            received.raw_response,
            (*self.route_warnings.get(route), *received.warnings),
            missed_speech_s=missed_speech_s,
            is_checked=missed_speech_s is not None,
        )
        if self.task.save is not None:
            self.task.save(result)
        return result

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


def _set_duration(transcript: Transcript, recording: Recording) -> Transcript:
    """Return the transcript with the length of the recording, unless that is only estimated.

    The length that a gateway reports may be the end of the last segment.
    """
    if recording.exact_duration_s is None:
        return transcript
    return transcript._replace(duration_s=recording.exact_duration_s)


def _describe_timing(transcript: Transcript, request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
    """Return the warning for a transcript with fewer times than requested."""
    if request.timestamps is Timestamps.NONE or not transcript.text.strip():
        return ()
    if transcript.timing is Timing.NONE:
        warning = f"{route.ref} returned no timestamps; the times of captions are estimated"
        return (warning,) if request.timestamps_required else ()
    warnings = []
    if transcript.untimed_letters:
        warnings.append(f"{route.ref} returned no timestamps for a part of the text; its times are estimated")
    if request.timestamps is Timestamps.WORD and transcript.segments and not transcript.words:
        warnings.append(f"{route.ref} returned segment timestamps only, no word timestamps")
    return tuple(warnings)


def _probe_with_codec(path: Path, track: int | None) -> Recording:
    from ..codecs.probe import probe

    return probe(path, track)
