"""Speak a text: ask a gateway, judge what comes, deliver it while it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import import_module
from typing import NamedTuple

from .. import gateways
from ..audio import formats, frames
from ..audio.inspector import inspector
from ..errors import AttemptError, AudiocliError, BadAnswer, Lost, UsageError
from ..gateways import failures, streams
from ..gateways.base import media_type, read_json
from ..money.prices import FREE, speaking
from ..text import pace
from ..vocabulary import Charge, Estimate, Pcm, Route, SpeechReceipt, SpeechRequest
from .attempts import Policy, Told, Walk
from .catalog import advised, prices_of
from .delivery import Delivered, Delivery, Outlet
from .heed import Heeded, heed_swap, together
from .lessons import keep, learnt
from .tools import Output, Replies, Tools

# Enough to recognise any format, and to see an error object or a page of HTML for what it is.
HEAD_BYTES = 64
ERROR_BODY_BYTES = 64 * 1024

# Formats that are known by eleven set bits alone.
SYNC_ONLY = frozenset({"mp3", "mp2", "aac"})
TWO_FRAMES_BYTES = 4096

# Content types that say nothing.
UNTOLD = frozenset({"", "application/octet-stream", "binary/octet-stream"})


class Speech(NamedTuple):
    """One `speak`: the request as the user means it, with the format of the output in it."""

    request: SpeechRequest
    outlets: tuple[Outlet, ...]
    output: Output
    policy: Policy
    tag: str | None = None


class _Spoken(NamedTuple):
    delivered: Delivered
    duration_s: float | None
    warnings: tuple[str, ...]


async def speak(
    speech: Speech, routes: Sequence[Route], skipped: Sequence[tuple[Route, AudiocliError]], tools: Tools
) -> SpeechReceipt:
    """Walk the routes until one has spoken, then commit the sinks.

    Nothing is left at a target when this raises. Raises: any AudiocliError; OutputError names what was kept.
    """
    request = speech.request
    heeded = Heeded(tools)
    walk = Walk(
        tools,
        policy=speech.policy,
        is_free=lambda route: gateways.dialect(route.dialect).is_free,
        charge=lambda route: Charge(
            command="speak",
            gateway=route.gateway,
            model=route.model,
            tag=speech.tag,
            characters=len(request.text),
            utf8_bytes=len(request.text.encode("utf-8", "replace")),
        ),
        price=lambda route, told: estimate(request.text, route, tools.cache),
        once=lambda route, told: _once(speech, route, told, tools),
        prepare=lambda route: _prepare(speech, route, heeded),
        adapt=lambda route, error: _adapt(speech, route, error, tools, heeded),
        can_restart=lambda: speech.output.can_restart,
        restart=speech.output.restart,
    )
    try:
        spoken, served = await walk.over(routes, skipped)
    except BaseException:
        await speech.output.abandon()
        raise
    await speech.output.commit()
    return SpeechReceipt(
        served=served._replace(elapsed_s=tools.now_s() - walk.started_s),
        size_bytes=spoken.delivered.size_bytes,
        sha256=spoken.delivered.sha256,
        format=spoken.delivered.format,
        duration_s=spoken.duration_s,
        warnings=(*heeded.of(served.route), *spoken.warnings),
    )


async def _prepare(speech: Speech, route: Route, heeded: Heeded) -> None:
    """Say what a route will not do, before it costs anything. Raises: UsageError: no format is left to ask for."""
    _plan(speech, route)
    heeded.tell(route, gateways.dialect(route.dialect).speech_warnings(speech.request, route))


async def _adapt(speech: Speech, route: Route, error: AttemptError, tools: Tools, heeded: Heeded) -> Route | None:
    """Ask for less where that is what was refused: another format, which is converted here."""
    request = speech.request._replace(format=_plan(speech, route).wire)
    other = learnt(route, error, gateways.dialect(route.dialect).speech_features(request, route))
    if other is None:
        return None
    try:
        await _prepare(speech, other, heeded)
    except UsageError:
        return None  # a model that refuses all it can make has some other trouble
    keep(route, other, tools.cache)
    tools.log(f"{route.ref}: {error.message}: asking for {_plan(speech, other).wire} instead")
    return other


def _plan(speech: Speech, route: Route) -> formats.Plan:
    """Choose what to ask a gateway for. Raises: UsageError: it has refused all that can be used."""
    made = gateways.dialect(route.dialect).speech_formats(route)
    left = [name for name in made if f"format:{name}" not in route.refused]
    if not left:
        raise UsageError(f"{route.ref} has refused every format: {', '.join(made)}")
    return formats.plan(speech.request.format, left)


def estimate(text: str, route: Route, cache: Replies) -> Estimate:
    """Price a text by what is known of the model's prices."""
    if gateways.dialect(route.dialect).is_free:
        return FREE
    return speaking(prices_of(route, cache), text)


async def _once(speech: Speech, route: Route, told: Told, tools: Tools) -> _Spoken:
    """Send one request over one route and deliver its audio."""
    dialect = gateways.dialect(route.dialect)
    plan = _plan(speech, route)
    request = speech.request._replace(format=plan.wire)
    wire_request = dialect.speech(request, route)
    tools.log(f"{route.ref}: asking for {plan.wire} ({plan.step.name.lower()})")
    warming = asyncio.create_task(asyncio.to_thread(_warm_codec)) if plan.step is formats.Step.ENCODE else None
    try:
        async with tools.transport(wire_request.url).open(wire_request) as reply:
            told.status = reply.status
            told.request_id = failures.request_id(reply.headers)
            told.generation_id = dialect.generation_id(reply.headers)
            told.usage = dialect.usage(reply.headers)
            told.service = dialect.service(reply.headers, route)
            headers = reply.headers
            chunks = reply.chunks()
            if not 200 <= reply.status < 300:
                error = dialect.failure(reply.status, reply.headers, await error_body(chunks))
                raise advised(error, route, tools.cache)
            if streams.is_stream(headers):
                # What is inside has no type of its own.
                headers = {**headers, "content-type": ""}
                chunks = _unpacked(chunks, streams.SpeechStream(headers), told)
            head = await _head(chunks, told, tools)
            if plan.wire == "pcm" and _may_be_samples(head):
                head = await _more(chunks, head)
            arriving, pcm = await _judge(headers, head, chunks, asked=plan.wire)
            if warming is not None:
                # Two threads that import PyAV at once break each other (KeyError: 'av', PyAV 18 on 3.11).
                await asyncio.shield(warming)
            spoken = await _deliver(speech, head, chunks, arriving, pcm, told, plan.wire, tools)
    finally:
        if warming is not None:
            await asyncio.gather(warming, return_exceptions=True)
    swapped = heed_swap(route, told)
    for warning in swapped:
        tools.tell(f"warning: {warning}")
    return spoken._replace(warnings=(*spoken.warnings, *swapped))


async def _deliver(
    speech: Speech,
    head: bytes,
    chunks: AsyncIterator[bytes],
    arriving: str,
    pcm: Pcm,
    told: Told,
    asked: str,
    tools: Tools,
) -> _Spoken:
    warnings = []
    if not formats.fits(asked, arriving):
        warnings.append(f"the gateway sent {arriving} although {asked} was asked for")
    inspection = inspector(arriving, pcm)
    deliveries = [Delivery(outlet, arriving=arriving, pcm=pcm) for outlet in speech.outlets]
    try:
        for delivery in deliveries:
            await delivery.begin()
        async for chunk in _rejoined(head, chunks):
            told.received_bytes += len(chunk)
            inspection.feed(chunk)
            for delivery in deliveries:
                await delivery.feed(chunk)
        finding = inspection.finish()
        if finding.problem:
            raise BadAnswer(f"200 with bad audio: {finding.problem}", request_id=told.request_id)
        delivered = [await delivery.finish() for delivery in deliveries]
    finally:
        for delivery in deliveries:
            delivery.close()
    told.audio_s = finding.duration_s
    spoken = speech.request
    if finding.duration_s is not None and pace.is_suspiciously_short(finding.duration_s, spoken.text, spoken.speed):
        warnings.append(
            f"{finding.duration_s:.1f} s of audio is short for this text: about "
            f"{pace.expected_s(spoken.text, spoken.speed):.0f} s were expected"
        )
    for warning in warnings:
        tools.tell(f"warning: {warning}")
    return _Spoken(delivered[0], finding.duration_s, tuple(warnings))


async def _unpacked(chunks: AsyncIterator[bytes], stream: streams.SpeechStream, told: Told) -> AsyncIterator[bytes]:
    """Give the audio inside of events as they come. Raises: Lost: the end is missing."""
    async for chunk in chunks:
        if audio := stream.feed(chunk):
            yield audio
    if audio := stream.finish():
        yield audio
    told.usage = together(told.usage, stream.usage)


async def _head(chunks: AsyncIterator[bytes], told: Told, tools: Tools) -> bytes:
    """Collect the first bytes, as few as are needed to judge them."""
    head = b""
    async for chunk in chunks:
        if told.first_byte_s is None and chunk:
            told.first_byte_s = tools.now_s()
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    return head


def _may_be_samples(head: bytes) -> bool:
    """Tell whether samples could look like this by chance: eleven set bits, but hardly four letters."""
    sniffed = formats.sniff(head)
    return sniffed is not None and sniffed.name in SYNC_ONLY and not head.startswith(b"ID3")


async def _more(chunks: AsyncIterator[bytes], head: bytes) -> bytes:
    """Collect enough for two frames of any bit rate."""
    async for chunk in chunks:
        head += chunk
        if len(head) >= TWO_FRAMES_BYTES:
            break
    return head


async def _judge(
    headers: Mapping[str, str], head: bytes, chunks: AsyncIterator[bytes], *, asked: str
) -> tuple[str, Pcm]:
    """Tell what kind of audio is coming. Raises: AttemptError: none is."""
    told = failures.request_id(headers)
    if not head:
        raise BadAnswer("200 with an empty body", request_id=told)
    announced, shape = formats.of_content_type(headers.get("content-type", ""))
    pcm = shape or Pcm()
    kind = media_type(headers)
    sniffed = formats.sniff(head)
    # Content that is certainly sound is believed against its type: frameworks announce text/html by default.
    announces_text = kind == "application/json" or kind.startswith("text/")
    is_announced_pcm = announced is not None and announced.name == "pcm"
    if sniffed is None and (announces_text or formats.looks_like_text(head)):
        raise await _not_audio(headers, head, chunks)
    if is_announced_pcm:
        if sniffed is None or _may_be_samples(head):
            return "pcm", pcm
    elif (
        asked == "pcm"
        and (kind.startswith("audio/") or kind in UNTOLD)
        # Nobody says that these are samples: a second frame where the first one ends says that they are not.
        and (sniffed is None or (_may_be_samples(head) and not frames.repeats(head)))
    ):
        return "pcm", pcm
    if sniffed is None:
        raise BadAnswer(f"200 with something that is not audio ({kind or 'no content type'})", request_id=told)
    return sniffed.name, pcm


async def _not_audio(headers: Mapping[str, str], head: bytes, chunks: AsyncIterator[bytes]) -> AttemptError:
    body = await _bounded(chunks, head)
    error = failures.embedded_failure(read_json(body), headers)
    if error is not None:
        return error
    what = "an HTML page" if body.lstrip()[:1] == b"<" else "text"
    return BadAnswer(f"200 with {what} instead of audio", request_id=failures.request_id(headers))


async def error_body(chunks: AsyncIterator[bytes]) -> bytes:
    """Read the body of an error, as far as it comes: the status has said what matters."""
    body = b""
    try:
        async for chunk in chunks:
            body += chunk
            if len(body) >= ERROR_BODY_BYTES:
                break
    except Lost:
        pass
    return body[:ERROR_BODY_BYTES]


async def _bounded(chunks: AsyncIterator[bytes], body: bytes) -> bytes:
    """Read the rest of an error, but not more than errors are long."""
    async for chunk in chunks:
        body += chunk
        if len(body) >= ERROR_BODY_BYTES:
            break
    return body[:ERROR_BODY_BYTES]


async def _rejoined(head: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in chunks:
        yield chunk


def _warm_codec() -> None:
    """Load the codec while the gateway thinks: it takes 60 ms."""
    import_module("audiocli.audio.encoder")
