"""Talk with a model: send text and recordings, pass the answer on while it comes, as text or as sound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .. import gateways
from ..audio import formats
from ..audio.wav import HEAD_BYTES, NotWav, wav_shape
from ..errors import AttemptError, AudiocliError, InvalidResponse, UsageError
from ..gateways import chat_completions, error_responses, event_streams
from ..gateways.sse import EVENT_BYTES
from ..pricing import FREE, talked, talking
from ..types.chat import ChatResult, ChatRequest
from ..types.values import Reservation, Estimate, Recording, Route, Usage
from .attempts import AttemptRecord, RouteRunner
from .audio_pipeline import Outlet
from .audio_response import Received, error_body, receive, rejoined, warm_codec
from .capabilities import keep, learnt
from .catalog import advised, prices_of
from .retry_policy import RetryPolicy
from .route_warnings import RouteWarnings, heed_swap, together
from .run_context import Output, ResponseCache, Reply, RunContext
from .transcription import TextStream
from .uploads import Uploads

# How an event stream begins, where its type does not tell.
STREAM_STARTS = (b"data:", b"event:", b"id:", b":")
# What is small enough for any gateway that bounds the whole request.
SMALL = ("mp3", "ogg", "opus")

ENDS = {
    "length": "the answer was cut off at the longest that was allowed",
    "content_filter": "the gateway's filter ended the answer",
}


class ChatTask(NamedTuple):
    """One `chat`: the request as the user means it, with the format of the output in it, and where the answer goes.

    Text goes to `hearing` as it comes, sound to the outlets. `folder` is where converted recordings may lie.
    """

    request: ChatRequest
    outlets: tuple[Outlet, ...]
    output: Output
    hearing: TextStream
    policy: RetryPolicy
    folder: Path
    tag: str | None = None


class _Answered(NamedTuple):
    text: str
    finish: str | None
    received: Received | None
    warnings: tuple[str, ...]


async def talk(
    talk: ChatTask, routes: Sequence[Route], skipped: Sequence[tuple[Route, AudiocliError]], tools: RunContext
) -> ChatResult:
    """Walk the routes until one has answered, then commit the output.

    Nothing is left at a target when this raises. Raises: any AudiocliError.
    """
    request = talk.request
    uploads = tuple(Uploads(recording, talk.folder) for recording in request.recordings)
    heeded = RouteWarnings(tools)
    last = AttemptRecord()

    async def once(route: Route, told: AttemptRecord) -> _Answered:
        nonlocal last
        last = told
        return await _once(talk, route, told, tools, uploads)

    walk = RouteRunner(
        tools,
        policy=talk.policy,
        is_free=lambda route: gateways.dialect(route.dialect).is_free,
        charge=lambda route: Reservation(
            command="chat",
            gateway=route.gateway,
            model=route.model,
            tag=talk.tag,
            characters=len(request.text) + len(request.system or ""),
            utf8_bytes=len((request.text + (request.system or "")).encode("utf-8", "replace")),
            audio_s=heard_s(request) if request.recordings else None,
        ),
        price=lambda route, told: estimate(request, route, tools.cache, told),
        once=once,
        prepare=lambda route: _prepare(talk, route, uploads, heeded),
        adapt=lambda route, error: _adapt(talk, route, error, uploads, tools, heeded),
        can_restart=lambda: talk.output.can_restart and not talk.hearing.has_heard,
        restart=talk.output.restart,
    )
    try:
        answered, served = await walk.run(routes, skipped)
    except BaseException:
        await talk.output.abandon()
        raise
    finally:
        for one in uploads:
            one.remove()
    await talk.output.commit()
    sound = answered.received
    return ChatResult(
        run=served._replace(elapsed_s=tools.now_s() - walk.started_s),
        text=answered.text,
        usage=last.usage,
        finish=answered.finish,
        size_bytes=sound and sound.delivered.size_bytes,
        sha256=sound and sound.delivered.sha256,
        format=sound and sound.delivered.format,
        duration_s=sound and sound.duration_s,
        warnings=(*heeded.of(served.route), *answered.warnings),
    )


def estimate(request: ChatRequest, route: Route, cache: ResponseCache, told: AttemptRecord | None = None) -> Estimate:
    """Price a conversation: before it by what is asked, after it by the tokens that were counted."""
    if gateways.dialect(route.dialect).is_free:
        return FREE
    prices = prices_of(route, cache)
    if told is not None:
        return talked(prices, told.usage)
    return talking(
        prices,
        request.text + (request.system or ""),
        heard_s=heard_s(request),
        speaks=request.format is not None,
        most_tokens=request.longest_tokens,
    )


def heard_s(request: ChatRequest) -> float:
    return sum(recording.duration_s or 0.0 for recording in request.recordings)


async def _prepare(talk: ChatTask, route: Route, uploads: Sequence[Uploads], heeded: RouteWarnings) -> None:
    """Have the recordings in a format and of a size that the gateway takes. Raises: UsageError: it cannot be."""
    dialect = gateways.dialect(route.dialect)
    request = await _fitted(talk, route, uploads)
    heeded.tell(route, dialect.chat_warnings(talk.request, route))
    body = dialect.chat(request, route).body
    limit_bytes = dialect.limits(route).chat_bytes
    if limit_bytes is not None and body is not None and body.size_bytes > limit_bytes:
        raise UsageError(f"{body.size_bytes:,} bytes are more than the {limit_bytes:,} that {route.gateway} takes")


async def _adapt(
    talk: ChatTask, route: Route, error: AttemptError, uploads: Sequence[Uploads], tools: RunContext, heeded: RouteWarnings
) -> Route | None:
    """Ask for less where that is what was refused: another format, which is converted here."""
    request = await _fitted(talk, route, uploads)
    other = learnt(route, error, gateways.dialect(route.dialect).chat_features(request, route))
    if other is None:
        return None
    try:
        await _prepare(talk, other, uploads, heeded)
    except UsageError:
        return None
    keep(route, other, tools.cache)
    tools.debug(f"{route.ref}: {error.message}: asking without {', '.join(other.refused - route.refused)}")
    return other


async def _fitted(talk: ChatTask, route: Route, uploads: Sequence[Uploads]) -> ChatRequest:
    """Give the request as it is sent over a route. Raises: UsageError: something in it cannot be had there."""
    dialect = gateways.dialect(route.dialect)
    request = talk.request
    takes = [name for name in dialect.chat_uploads(route) if f"upload:{name}" not in route.refused]
    limit_bytes = dialect.limits(route).chat_bytes
    # Base64 makes it a third larger; what stands around it is small.
    is_large = limit_bytes is not None and sum(one.size_bytes for one in request.recordings) * 1.35 > limit_bytes
    recordings = []
    for recording, upload in zip(request.recordings, uploads, strict=True):
        small = [name for name in takes if name in SMALL] if is_large and recording.format not in SMALL else []
        fitting = await upload.fit_for(small or takes, route, as_it_is=not _is_open_ended(recording))
        recordings.append(fitting)
    wire = None
    if request.format is not None:
        made = dialect.chat_formats(request, route)
        left = [name for name in made if f"format:{name}" not in route.refused]
        if not left:
            raise UsageError(f"{route.ref} has refused every format: {', '.join(made)}")
        wire = formats.plan(request.format, left).wire
    return request._replace(recordings=tuple(recordings), format=wire)


def _is_open_ended(recording: Recording) -> bool:
    """Tell a WAV that was written into a pipe: its header claims hours, which gateways believe."""
    if recording.format != "wav":
        return False
    try:
        with recording.path.open("rb") as source:
            shape = wav_shape(source.read(HEAD_BYTES))
    except (OSError, NotWav):
        return False
    return shape is not None and shape.data_bytes is None


async def _once(talk: ChatTask, route: Route, told: AttemptRecord, tools: RunContext, uploads: Sequence[Uploads]) -> _Answered:
    """Send one request over one route and pass its answer on."""
    dialect = gateways.dialect(route.dialect)
    request = await _fitted(talk, route, uploads)
    wire_request = dialect.chat(request, route)
    converts = request.format is not None and any(_is_encoded(outlet, request.format) for outlet in talk.outlets)
    tools.debug(f"{route.ref}: asking for {request.format or 'text'}")
    warming = asyncio.create_task(asyncio.to_thread(warm_codec)) if converts else None
    received = None
    try:
        async with tools.transport(wire_request.url).open(wire_request) as reply:
            told.status = reply.status
            told.request_id = error_responses.request_id(reply.headers)
            told.generation_id = dialect.generation_id(reply.headers)
            told.usage = dialect.usage(reply.headers)
            told.service = dialect.service(reply.headers, route)
            if not 200 <= reply.status < 300:
                error = dialect.failure(reply.status, reply.headers, await error_body(reply.chunks()))
                raise advised(error, route, tools.cache)
            answer = _Answer(route, told, tools, talk.hearing)
            sound = answer.sound(
                reply.chunks() if request.format is not None else _counted(reply.chunks(), told), reply
            )
            if request.format is not None:
                # What is inside has no type of its own.
                headers = {**reply.headers, "content-type": ""}
                sounding = answer.sounding(sound)
                received = await receive(
                    headers, sounding, talk.outlets, told, tools, asked=request.format, warming=warming
                )
                told.audio_s = heard_s(request) + (received.duration_s or 0.0)
            else:
                async for _ in sound:
                    continue  # sound that nobody asked for
                if not answer.text.strip():
                    raise InvalidResponse("200 with an empty answer", request_id=told.request_id)
    finally:
        if warming is not None:
            await asyncio.gather(warming, return_exceptions=True)
    swapped = heed_swap(route, told)
    for warning in swapped:
        tools.info(f"warning: {warning}")
    warnings = [*(received.warnings if received is not None else ()), *swapped]
    for one in uploads:
        warnings += one.warnings
    if answer.finish in ENDS:
        warnings.append(ENDS[answer.finish])
        tools.info(f"warning: {ENDS[answer.finish]}")
    return _Answered(answer.text, answer.finish, received, tuple(warnings))


async def _counted(chunks: AsyncIterator[bytes], told: AttemptRecord) -> AsyncIterator[bytes]:
    """Count what comes, where it is not counted as sound."""
    async for chunk in chunks:
        told.received_bytes += len(chunk)
        yield chunk


def _is_encoded(outlet: Outlet, wire: str) -> bool:
    """Tell whether the codec is needed; samples alone need no more than a header to be a WAV."""
    if outlet.format is None or formats.fits(outlet.format, wire):
        return False
    return not (wire == "pcm" and outlet.format == "wav")


class _Answer:
    """An answer on its way: its text is heard and kept, its sound is given on."""

    def __init__(self, route: Route, told: AttemptRecord, tools: RunContext, hearing: TextStream) -> None:
        self._route = route
        self._told = told
        self._tools = tools
        self._hearing = hearing
        self._texts: list[str] = []
        self.finish: str | None = None

    @property
    def text(self) -> str:
        return "".join(self._texts)

    async def sounding(self, sound: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Raises: BadAnswer: there is no sound in the answer."""
        has_sound = False
        async for chunk in sound:
            has_sound = True
            yield chunk
        if not has_sound:
            told = f": {self.text.strip()[:200]}" if self.text.strip() else ""
            raise InvalidResponse(f"200 with an answer without sound{told}", request_id=self._told.request_id)

    async def sound(self, chunks: AsyncIterator[bytes], reply: Reply) -> AsyncIterator[bytes]:
        """Give the sound as it comes. Raises: AttemptError: an error in it, or the end is missing."""
        head = await anext(chunks, b"")
        if not head:
            raise InvalidResponse("200 with an empty body", request_id=self._told.request_id)
        if event_streams.is_stream(reply.headers) or head.lstrip().startswith(STREAM_STARTS):
            async for chunk in self._streamed(head, chunks, reply.headers):
                yield chunk
            return
        body = [head]
        size_bytes = len(head)
        async for chunk in chunks:
            body.append(chunk)
            size_bytes += len(chunk)
            if size_bytes > EVENT_BYTES:
                raise InvalidResponse(f"the answer is over {EVENT_BYTES // 2**20} MB and no end")
        whole = chat_completions.whole(b"".join(body), reply.headers)
        self._learn(whole.usage, whole.finish, whole.id)
        await self._take(whole.said)
        if whole.said.audio:
            yield whole.said.audio

    async def _streamed(
        self, head: bytes, chunks: AsyncIterator[bytes], headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        stream = chat_completions.ChatStream(headers)
        try:
            async for chunk in rejoined(head, chunks):
                for said in stream.feed(chunk):
                    await self._take(said)
                    if said.audio:
                        yield said.audio
            for said in stream.end():
                await self._take(said)
                if said.audio:
                    yield said.audio
        finally:
            # What a reply says of its cost holds also when it is of no use.
            self._learn(stream.usage, stream.finish, stream.id)

    def _learn(self, usage: Usage, finish: str | None, id: str | None) -> None:
        self.finish = finish
        self._told.usage = together(self._told.usage, usage)
        dialect = gateways.dialect(self._route.dialect)
        if self._told.generation_id is None and id and dialect.generation_query(id, self._route) is not None:
            self._told.generation_id = id[:200]

    async def _take(self, said: chat_completions.Said) -> None:
        if not said.text:
            return
        if self._told.first_byte_s is None and not said.is_spoken:
            self._told.first_byte_s = self._tools.now_s()
        self._texts.append(said.text)
        await self._hearing.hear([said.text])
