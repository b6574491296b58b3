"""Chat: send text and recordings to a model, and pass on its reply, text or audio, while it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .. import gateways
from ..audio import formats
from ..audio.wav import WAV_PROBE_BYTES, InvalidWav, parse_wav_header
from ..errors import AttemptError, AudiocliError, InvalidResponse, UsageError
from ..gateways import chat_completions, error_responses, event_streams
from ..gateways.sse import MAX_EVENT_BYTES
from ..pricing import FREE, estimate_chat, estimate_chat_usage
from ..types.audio import Recording
from ..types.ledger import Estimate, Reservation, Usage
from ..types.requests import ChatRequest
from ..types.results import ChatResult
from ..types.routes import Route
from .attempts import AttemptRecord, RouteRunner, merge_usage
from .audio_pipeline import AudioOutput
from .audio_response import ReceivedAudio, chain_blocks, preload_codec, read_error_body, receive_audio
from .capabilities import downgrade_route, save_refusals
from .catalog import add_model_hint, find_prices
from .retry_policy import RetryPolicy
from .route_warnings import RouteWarnings, check_model_substitution
from .run_context import Output, Response, ResponseCache, RunContext
from .transcription import TextStream
from .uploads import Uploads

# Start of an event stream, for responses with another content type.
EVENT_STREAM_PREFIXES = (b"data:", b"event:", b"id:", b":")
# Formats that are small enough for gateways that limit the size of the request.
COMPACT_FORMATS = ("mp3", "ogg", "opus")

FINISH_WARNINGS = {
    "length": "the reply was cut off at the maximum number of tokens",
    "content_filter": "the gateway's content filter ended the reply",
}


class ChatTask(NamedTuple):
    """One chat operation.

    `request.format` is the format of the output. The format requested from the gateway may differ.
    Text goes to `text_stream` as it arrives, audio to `audio_outputs`. `directory` holds converted recordings.
    """

    request: ChatRequest
    audio_outputs: tuple[AudioOutput, ...]
    output: Output
    text_stream: TextStream
    retry_policy: RetryPolicy
    directory: Path
    tag: str | None = None


class _ReceivedReply(NamedTuple):
    text: str
    finish_reason: str | None
    received: ReceivedAudio | None
    warnings: tuple[str, ...]


async def send_chat(
    task: ChatTask, routes: Sequence[Route], skipped: Sequence[tuple[Route, AudiocliError]], ctx: RunContext
) -> ChatResult:
    """Send a message over the first route that can serve it, then commit the output.

    If this raises, the output is abandoned.

    Raises:
        AudiocliError: No route served.
    """
    request = task.request
    uploads = tuple(Uploads(recording, task.directory) for recording in request.recordings)
    route_warnings = RouteWarnings(ctx)
    last_record = AttemptRecord()

    async def send(route: Route, record: AttemptRecord) -> _ReceivedReply:
        nonlocal last_record
        last_record = record
        return await _send(task, route, record, ctx, uploads)

    runner = RouteRunner(
        ctx,
        retry_policy=task.retry_policy,
        is_free=lambda route: gateways.load_dialect(route.dialect).is_free,
        build_reservation=lambda route: Reservation(
            command="chat",
            gateway=route.gateway,
            model=route.model,
            tag=task.tag,
            characters=len(request.text) + len(request.system or ""),
            utf8_bytes=len((request.text + (request.system or "")).encode("utf-8", "replace")),
            audio_s=sum_input_audio_s(request) if request.recordings else None,
        ),
        estimate=lambda route, record: estimate(request, route, ctx.cache, record),
        send=send,
        prepare=lambda route: _prepare(task, route, uploads, route_warnings),
        downgrade=lambda route, error: _downgrade(task, route, error, uploads, ctx, route_warnings),
        can_restart=lambda: task.output.can_restart and not task.text_stream.has_emitted,
        restart=task.output.restart,
    )
    try:
        reply, run_result = await runner.run(routes, skipped)
    except BaseException:
        await task.output.abandon()
        raise
    finally:
        for upload in uploads:
            upload.remove()
    await task.output.commit()
    audio = reply.received
    return ChatResult(
        run=run_result._replace(elapsed_s=ctx.now_s() - runner.started_s),
        text=reply.text,
        usage=last_record.usage,
        finish_reason=reply.finish_reason,
        size_bytes=audio and audio.written.size_bytes,
        sha256=audio and audio.written.sha256,
        format=audio and audio.written.format,
        duration_s=audio and audio.duration_s,
        warnings=(*route_warnings.get(run_result.route), *reply.warnings),
    )


def estimate(request: ChatRequest, route: Route, cache: ResponseCache, record: AttemptRecord | None = None) -> Estimate:
    """Estimate the cost of a message: before it is sent from the request, afterwards from the reported tokens."""
    if gateways.load_dialect(route.dialect).is_free:
        return FREE
    prices = find_prices(route, cache)
    if record is not None:
        return estimate_chat_usage(prices, record.usage)
    return estimate_chat(
        prices,
        request.text + (request.system or ""),
        input_audio_s=sum_input_audio_s(request),
        has_audio_output=request.format is not None,
        max_tokens=request.max_tokens,
    )


def sum_input_audio_s(request: ChatRequest) -> float:
    """Return the total length of the recordings, as far as known."""
    return sum(recording.duration_s or 0.0 for recording in request.recordings)


async def _prepare(task: ChatTask, route: Route, uploads: Sequence[Uploads], route_warnings: RouteWarnings) -> None:
    """Convert the recordings if the route needs it, and print warnings about unsupported options.

    Raises:
        UsageError: No accepted format can be made, or the request is too large.
    """
    dialect = gateways.load_dialect(route.dialect)
    request = await _fit_request(task, route, uploads)
    route_warnings.emit(route, dialect.get_chat_warnings(task.request, route))
    body = dialect.build_chat_request(request, route).body
    limit_bytes = dialect.get_limits(route).max_chat_bytes
    if limit_bytes is not None and body is not None and body.size_bytes > limit_bytes:
        raise UsageError(f"request is {body.size_bytes:,} bytes; {route.gateway} accepts at most {limit_bytes:,}")


async def _downgrade(
    task: ChatTask,
    route: Route,
    error: AttemptError,
    uploads: Sequence[Uploads],
    ctx: RunContext,
    route_warnings: RouteWarnings,
) -> Route | None:
    """Return the route without the refused feature; None if no feature was refused."""
    request = await _fit_request(task, route, uploads)
    downgraded = downgrade_route(route, error, gateways.load_dialect(route.dialect).get_chat_features(request, route))
    if downgraded is None:
        return None
    try:
        await _prepare(task, downgraded, uploads, route_warnings)
    except UsageError:
        return None
    save_refusals(route, downgraded, ctx.cache)
    ctx.debug(f"{route.ref}: {error.message}; retrying without {', '.join(downgraded.unsupported - route.unsupported)}")
    return downgraded


async def _fit_request(task: ChatTask, route: Route, uploads: Sequence[Uploads]) -> ChatRequest:
    """Return the request as it is sent over a route, with converted recordings and the format to request.

    Raises:
        UsageError: The route supports no usable format.
    """
    dialect = gateways.load_dialect(route.dialect)
    request = task.request
    accepted = [name for name in dialect.get_chat_upload_formats(route) if f"upload:{name}" not in route.unsupported]
    limit_bytes = dialect.get_limits(route).max_chat_bytes
    # Base64 adds a third; the rest of the request is small.
    is_large = (
        limit_bytes is not None and sum(recording.size_bytes for recording in request.recordings) * 1.35 > limit_bytes
    )
    recordings = []
    for recording, upload in zip(request.recordings, uploads, strict=True):
        compact_formats = (
            [name for name in accepted if name in COMPACT_FORMATS]
            if is_large and recording.format not in COMPACT_FORMATS
            else []
        )
        converted = await upload.convert_for(
            compact_formats or accepted, route, allow_original=not _is_open_ended(recording)
        )
        recordings.append(converted)
    request_format = None
    if request.format is not None:
        offered = dialect.get_chat_formats(request, route)
        usable = [name for name in offered if f"format:{name}" not in route.unsupported]
        if not usable:
            raise UsageError(f"{route.ref} has refused every format: {', '.join(offered)}")
        request_format = formats.plan_format(request.format, usable).request_format
    return request._replace(recordings=tuple(recordings), format=request_format)


def _is_open_ended(recording: Recording) -> bool:
    """Return whether a recording is a WAV written to a pipe. Its header declares hours, and gateways trust it."""
    if recording.format != "wav":
        return False
    try:
        with recording.path.open("rb") as source:
            header = parse_wav_header(source.read(WAV_PROBE_BYTES))
    except (OSError, InvalidWav):
        return False
    return header is not None and header.data_bytes is None


async def _send(
    task: ChatTask, route: Route, record: AttemptRecord, ctx: RunContext, uploads: Sequence[Uploads]
) -> _ReceivedReply:
    """Send one request over one route and pass on its reply."""
    dialect = gateways.load_dialect(route.dialect)
    request = await _fit_request(task, route, uploads)
    http_request = dialect.build_chat_request(request, route)
    needs_codec = request.format is not None and any(
        _is_encoded(output, request.format) for output in task.audio_outputs
    )
    ctx.debug(f"{route.ref}: requesting {request.format or 'text'}")
    preload_task = asyncio.create_task(asyncio.to_thread(preload_codec)) if needs_codec else None
    received = None
    try:
        async with ctx.transport(http_request.url).open(http_request) as response:
            record.status = response.status
            record.request_id = error_responses.parse_request_id(response.headers)
            record.generation_id = dialect.parse_generation_id(response.headers)
            record.usage = dialect.parse_usage(response.headers)
            record.served_model = dialect.parse_served_model(response.headers, route)
            if not 200 <= response.status < 300:
                error = dialect.parse_error(
                    response.status, response.headers, await read_error_body(response.iter_bytes())
                )
                raise add_model_hint(error, route, ctx.cache)
            reader = _ReplyReader(route, record, ctx, task.text_stream)
            audio = reader.read_audio(
                response.iter_bytes() if request.format is not None else _count_bytes(response.iter_bytes(), record),
                response,
            )
            if request.format is not None:
                # The content type is that of the response, not of the audio inside.
                headers = {**response.headers, "content-type": ""}
                audio_blocks = reader.require_audio(audio)
                received = await receive_audio(
                    headers,
                    audio_blocks,
                    task.audio_outputs,
                    record,
                    ctx,
                    requested_format=request.format,
                    preload_task=preload_task,
                )
                record.audio_s = sum_input_audio_s(request) + (received.duration_s or 0.0)
            else:
                async for _ in audio:
                    continue  # audio that was not requested
                if not reader.text.strip():
                    raise InvalidResponse("200 with an empty reply", request_id=record.request_id)
    finally:
        if preload_task is not None:
            await asyncio.gather(preload_task, return_exceptions=True)
    substitution_warnings = check_model_substitution(route, record)
    for warning in substitution_warnings:
        ctx.info(f"warning: {warning}")
    warnings = [*(received.warnings if received is not None else ()), *substitution_warnings]
    for upload in uploads:
        warnings += upload.warnings
    if reader.finish_reason in FINISH_WARNINGS:
        warnings.append(FINISH_WARNINGS[reader.finish_reason])
        ctx.info(f"warning: {FINISH_WARNINGS[reader.finish_reason]}")
    return _ReceivedReply(reader.text, reader.finish_reason, received, tuple(warnings))


async def _count_bytes(blocks: AsyncIterator[bytes], record: AttemptRecord) -> AsyncIterator[bytes]:
    """Count the received bytes of a text reply. `receive_audio` counts those of audio."""
    async for block in blocks:
        record.received_bytes += len(block)
        yield block


def _is_encoded(output: AudioOutput, request_format: str) -> bool:
    """Return whether an output needs the codec. Raw samples become WAV with a header only."""
    if output.format is None or formats.is_compatible(output.format, request_format):
        return False
    return not (request_format == "pcm" and output.format == "wav")


class _ReplyReader:
    """Parses a reply while it arrives: emits and collects its text, and yields its audio."""

    def __init__(self, route: Route, record: AttemptRecord, ctx: RunContext, text_stream: TextStream) -> None:
        self._route = route
        self._record = record
        self._ctx = ctx
        self._text_stream = text_stream
        self._texts: list[str] = []
        self.finish_reason: str | None = None

    @property
    def text(self) -> str:
        return "".join(self._texts)

    async def require_audio(self, audio: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the audio. Raises: InvalidResponse: the reply has none."""
        has_audio = False
        async for block in audio:
            has_audio = True
            yield block
        if not has_audio:
            text = f": {self.text.strip()[:200]}" if self.text.strip() else ""
            raise InvalidResponse(f"200 with a reply without audio{text}", request_id=self._record.request_id)

    async def read_audio(self, blocks: AsyncIterator[bytes], response: Response) -> AsyncIterator[bytes]:
        """Yield the audio as it arrives. Raises: AttemptError: the reply holds an error, or its end is missing."""
        head = await anext(blocks, b"")
        if not head:
            raise InvalidResponse("200 with an empty body", request_id=self._record.request_id)
        if event_streams.is_event_stream(response.headers) or head.lstrip().startswith(EVENT_STREAM_PREFIXES):
            async for block in self._read_stream(head, blocks, response.headers):
                yield block
            return
        body = [head]
        size_bytes = len(head)
        async for block in blocks:
            body.append(block)
            size_bytes += len(block)
            if size_bytes > MAX_EVENT_BYTES:
                raise InvalidResponse(f"response exceeds {MAX_EVENT_BYTES // 2**20} MB limit")
        reply = chat_completions.parse_reply(b"".join(body), response.headers)
        self._record_usage(reply.usage, reply.finish_reason, reply.id)
        await self._emit_text(reply.message)
        if reply.message.audio:
            yield reply.message.audio

    async def _read_stream(
        self, head: bytes, blocks: AsyncIterator[bytes], headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        stream = chat_completions.ChatStream(headers)
        try:
            async for block in chain_blocks(head, blocks):
                for delta in stream.feed(block):
                    await self._emit_text(delta)
                    if delta.audio:
                        yield delta.audio
            for delta in stream.finish():
                await self._emit_text(delta)
                if delta.audio:
                    yield delta.audio
        finally:
            # A reported cost counts even if the reply is unusable.
            self._record_usage(stream.usage, stream.finish_reason, stream.id)

    def _record_usage(self, usage: Usage, finish_reason: str | None, id: str | None) -> None:
        self.finish_reason = finish_reason
        self._record.usage = merge_usage(self._record.usage, usage)
        dialect = gateways.load_dialect(self._route.dialect)
        if self._record.generation_id is None and id and dialect.build_cost_query(id, self._route) is not None:
            self._record.generation_id = id[:200]

    async def _emit_text(self, delta: chat_completions.ChatDelta) -> None:
        if not delta.text:
            return
        if self._record.first_byte_s is None and not delta.is_spoken:
            self._record.first_byte_s = self._ctx.now_s()
        self._texts.append(delta.text)
        await self._text_stream.emit([delta.text])
