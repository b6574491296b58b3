"""Chat: send text and recordings to a model, and pass on its reply, text or audio, while it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import gateways
from ..audio import formats
from ..audio.wav import WAV_PROBE_BYTES, InvalidWav, parse_wav_header
from ..errors import AudiocliError, InvalidResponse, UsageError
from ..gateways import chat_completions, event_streams
from ..gateways.sse import MAX_EVENT_BYTES
from ..outputs import Output
from ..pricing import FREE, estimate_chat, estimate_usage
from ..types.audio import Recording
from ..types.ledger import Estimate, Reservation, Usage
from ..types.requests import ChatRequest, HttpRequest
from ..types.results import ChatResult
from ..types.routes import Route
from .attempts import AttemptRecord, FeatureOperation, merge_usage, run
from .audio_pipeline import AudioOutput
from .audio_response import CodecLoader, ReceivedAudio, receive_audio
from .capabilities import list_option_names
from .catalog import find_prices
from .response_body import chain_blocks, read_body
from .run_context import Response, RunContext
from .transcription import TextStream
from .uploads import Uploads

if TYPE_CHECKING:
    from ..storage.response_cache import ResponseCache

# Start of an event stream, for responses with another content type.
EVENT_STREAM_PREFIXES = (b"data:", b"event:", b"id:", b":")
# Formats that are small enough for gateways that limit the size of the request.
COMPACT_FORMATS = ("mp3", "ogg", "opus")

FINISH_WARNINGS = {
    "length": "the reply was cut off at the maximum number of tokens",
    "content_filter": "the gateway's content filter ended the reply",
}


class ChatTask(NamedTuple):
    """A message to send, and where the reply goes.

    `request.format` is the format of the output. The format requested from the gateway may differ.
    Text goes to `text_stream` as it arrives, audio to `audio_outputs`. `directory` holds converted recordings.
    """

    request: ChatRequest
    audio_outputs: tuple[AudioOutput, ...]
    output: Output
    text_stream: TextStream
    directory: Path


class ReceivedReply(NamedTuple):
    """A reply. `audio` is None for a reply in text."""

    text: str
    finish_reason: str | None
    audio: ReceivedAudio | None
    usage: Usage
    warnings: tuple[str, ...]


async def send_chat(
    task: ChatTask, routes: Sequence[Route], skipped: Sequence[tuple[Route, AudiocliError]], ctx: RunContext
) -> ChatResult:
    """Send a message over the first route that can serve it, then commit the output.

    If this raises, the output is abandoned.

    Raises:
        AudiocliError: No route served.
    """
    operation = ChatOperation(task, ctx)
    started_s = ctx.now_s()
    try:
        reply, run_result = await run(operation, routes, ctx, skipped)
    except BaseException:
        await task.output.abandon()
        raise
    finally:
        await operation.codec.finish_loading()
        for upload in operation.uploads:
            upload.remove()
    await task.output.commit()
    audio = reply.audio
    return ChatResult(
        run=run_result._replace(elapsed_s=ctx.now_s() - started_s),
        text=reply.text,
        usage=reply.usage,
        finish_reason=reply.finish_reason,
        size_bytes=audio and audio.written.size_bytes,
        sha256=audio and audio.written.sha256,
        format=audio and audio.written.format,
        duration_s=audio and audio.duration_s,
        warnings=(*operation.route_warnings.get(run_result.route), *reply.warnings, *run_result.warnings),
    )


def estimate(request: ChatRequest, route: Route, cache: ResponseCache, record: AttemptRecord | None = None) -> Estimate:
    """Estimate the cost of a message: before it is sent from the request, afterwards from the reported tokens."""
    if gateways.load_dialect(route.dialect).is_free:
        return FREE
    prices = find_prices(route, cache)
    if record is not None:
        return estimate_usage(prices, record.usage)
    return estimate_chat(
        prices,
        request.text + (request.system or ""),
        input_audio_s=sum_input_audio_s(request),
        has_audio_output=request.format is not None,
        max_tokens=request.max_tokens,
    )


def sum_input_audio_s(request: ChatRequest) -> float:
    """Return the total length of the recordings."""
    return sum(recording.duration_s for recording in request.recordings)


class ChatOperation(FeatureOperation[ReceivedReply]):
    """Send a message with its recordings, and pass on the reply while it arrives."""

    command = "chat"

    def __init__(self, task: ChatTask, ctx: RunContext) -> None:
        super().__init__(ctx)
        self.task = task
        self.uploads = tuple(Uploads(recording, task.directory) for recording in task.request.recordings)
        self.codec = CodecLoader()
        # The request of each route, with converted recordings and the format to request.
        self._requests: dict[Route, ChatRequest] = {}

    def build_reservation(self, route: Route) -> Reservation:
        request = self.task.request
        text = request.text + (request.system or "")
        return Reservation(
            self.command,
            route.gateway,
            route.model,
            characters=len(text),
            utf8_bytes=len(text.encode("utf-8", "replace")),
            audio_s=sum_input_audio_s(request) if request.recordings else None,
        )

    def estimate(self, route: Route, record: AttemptRecord | None) -> Estimate:
        return estimate(self.task.request, route, self.ctx.cache, record)

    async def prepare(self, route: Route) -> None:
        """Convert the recordings if the route needs it, and print warnings about unsupported options.

        Raises:
            UsageError: No accepted or usable format can be made, or the request is too large.
        """
        dialect = gateways.load_dialect(route.dialect)
        limit_bytes = dialect.get_limits(route).max_chat_bytes
        recordings = await self._convert_recordings(route, limit_bytes)
        request = self.task.request._replace(recordings=recordings, format=self._choose_request_format(route))
        self.route_warnings.emit(route, dialect.get_chat_warnings(self.task.request, route))
        body = dialect.build_chat_request(request, route).body
        if limit_bytes is not None and body is not None and body.size_bytes > limit_bytes:
            raise UsageError(
                f"the request has {body.size_bytes:,} bytes; {route.gateway} accepts at most {limit_bytes:,}"
            )
        self._requests[route] = request

    async def _convert_recordings(self, route: Route, limit_bytes: int | None) -> tuple[Recording, ...]:
        dialect = gateways.load_dialect(route.dialect)
        accepted = [
            name for name in dialect.get_chat_upload_formats(route) if f"upload:{name}" not in route.unsupported
        ]
        recordings = self.task.request.recordings
        # Base64 adds a third; the rest of the request is small.
        is_large = (
            limit_bytes is not None and sum(recording.size_bytes for recording in recordings) * 1.35 > limit_bytes
        )
        converted = []
        for recording, upload in zip(recordings, self.uploads, strict=True):
            compact_formats = (
                [name for name in accepted if name in COMPACT_FORMATS]
                if is_large and recording.format not in COMPACT_FORMATS
                else []
            )
            converted.append(
                await upload.convert_for(
                    compact_formats or accepted, route, allow_original=not _is_open_ended(recording)
                )
            )
        return tuple(converted)

    def _choose_request_format(self, route: Route) -> str | None:
        request = self.task.request
        if request.format is None:
            return None
        offered = gateways.load_dialect(route.dialect).get_chat_formats(request, route)
        usable = [name for name in offered if f"format:{name}" not in route.unsupported]
        if not usable:
            raise UsageError(f"{route.ref} has refused every format: {', '.join(offered)}")
        return formats.plan_format(request.format, usable).request_format

    def get_features(self, route: Route) -> tuple[str, ...]:
        return gateways.load_dialect(route.dialect).get_chat_features(self._requests[route], route)

    def list_fields(self) -> tuple[str, ...]:
        request = self.task.request
        is_set = {
            "stream": request.stream,
            "system": request.system is not None,
            "max_tokens": request.max_tokens is not None,
            "voice": True,
        }
        return (*(name for name in is_set if is_set[name]), *list_option_names(request.options))

    def build_request(self, route: Route) -> HttpRequest:
        request = self._requests[route]
        self.ctx.debug(f"{route.ref}: requesting {request.format or 'text'}")
        if request.format is not None and any(
            _is_encoded(output, request.format) for output in self.task.audio_outputs
        ):
            self.codec.start_loading()
        return gateways.load_dialect(route.dialect).build_chat_request(request, route)

    async def receive(self, route: Route, response: Response, record: AttemptRecord) -> ReceivedReply:
        request_format = self._requests[route].format
        reader = _ReplyReader(route, record, self.ctx, self.task.text_stream)
        received = None
        if request_format is not None:
            received = await receive_audio(
                # The content type is that of the response, not of the audio inside.
                {**response.headers, "content-type": ""},
                reader.require_audio(reader.read_audio(response.iter_bytes(), response)),
                self.task.audio_outputs,
                record,
                self.ctx,
                requested_format=request_format,
                codec=self.codec,
            )
            record.audio_s = sum_input_audio_s(self.task.request) + (received.duration_s or 0.0)
        else:
            async for _ in reader.read_audio(_count_bytes(response.iter_bytes(), record), response):
                continue  # audio that was not requested
            if not reader.text.strip():
                raise InvalidResponse("200 with an empty reply", request_id=record.request_id)
        reply_warnings: list[str] = []
        for upload in self.uploads:
            reply_warnings += upload.warnings
        if reader.finish_reason in FINISH_WARNINGS:
            reply_warnings.append(FINISH_WARNINGS[reader.finish_reason])
        for warning in reply_warnings:
            self.ctx.info(f"warning: {warning}")
        warnings = [*(received.warnings if received is not None else ()), *reply_warnings]
        return ReceivedReply(reader.text, reader.finish_reason, received, record.usage, tuple(warnings))

    def can_restart(self) -> bool:
        return self.task.output.can_restart and not self.task.text_stream.has_emitted

    async def restart(self) -> None:
        await self.task.output.restart()


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
        body = await read_body(chain_blocks(head, blocks), MAX_EVENT_BYTES)
        reply = chat_completions.parse_reply(body, response.headers)
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
