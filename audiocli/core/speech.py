"""Speak a text: ask a gateway, judge what comes, deliver it while it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from .. import gateways
from ..audio import formats
from ..errors import AttemptError, AudiocliError, UsageError
from ..gateways import error_responses, event_streams
from ..pricing import FREE, speaking
from ..text import speech_rate
from ..types.values import Reservation, Estimate, Route, SpeechResult, SpeechRequest
from .attempts import AttemptRecord, RouteRunner
from .audio_pipeline import Delivered, Outlet
from .audio_response import error_body, receive, warm_codec
from .capabilities import keep, learnt
from .catalog import advised, prices_of
from .retry_policy import RetryPolicy
from .route_warnings import RouteWarnings, heed_swap, together
from .run_context import Output, ResponseCache, RunContext


class SpeechTask(NamedTuple):
    """One `speak`: the request as the user means it, with the format of the output in it."""

    request: SpeechRequest
    outlets: tuple[Outlet, ...]
    output: Output
    policy: RetryPolicy
    tag: str | None = None


class _Spoken(NamedTuple):
    delivered: Delivered
    duration_s: float | None
    warnings: tuple[str, ...]


async def speak(
    speech: SpeechTask, routes: Sequence[Route], skipped: Sequence[tuple[Route, AudiocliError]], tools: RunContext
) -> SpeechResult:
    """Walk the routes until one has spoken, then commit the sinks.

    Nothing is left at a target when this raises. Raises: any AudiocliError; OutputError names what was kept.
    """
    request = speech.request
    heeded = RouteWarnings(tools)
    walk = RouteRunner(
        tools,
        policy=speech.policy,
        is_free=lambda route: gateways.dialect(route.dialect).is_free,
        charge=lambda route: Reservation(
            command="speak",
            gateway=route.gateway,
            model=route.model,
            tag=speech.tag,
            characters=len(request.text),
            utf8_bytes=len(request.text.encode("utf-8", "replace")),
        ),
        price=lambda route, told: estimate(request.text, route, tools.cache),
        once=lambda route, told: _once(speech, route, told, tools),
        prepare=lambda route: prepare(speech, route, heeded),
        adapt=lambda route, error: _adapt(speech, route, error, tools, heeded),
        can_restart=lambda: speech.output.can_restart,
        restart=speech.output.restart,
    )
    try:
        spoken, served = await walk.run(routes, skipped)
    except BaseException:
        await speech.output.abandon()
        raise
    await speech.output.commit()
    return SpeechResult(
        run=served._replace(elapsed_s=tools.now_s() - walk.started_s),
        size_bytes=spoken.delivered.size_bytes,
        sha256=spoken.delivered.sha256,
        format=spoken.delivered.format,
        duration_s=spoken.duration_s,
        warnings=(*heeded.of(served.route), *spoken.warnings),
    )


async def prepare(speech: SpeechTask, route: Route, heeded: RouteWarnings) -> None:
    """Say what a route will not do, before it costs anything. Raises: UsageError: no format is left to ask for."""
    plan_of(speech, route)
    heeded.tell(route, gateways.dialect(route.dialect).speech_warnings(speech.request, route))


async def _adapt(speech: SpeechTask, route: Route, error: AttemptError, tools: RunContext, heeded: RouteWarnings) -> Route | None:
    """Ask for less where that is what was refused: another format, which is converted here."""
    request = speech.request._replace(format=plan_of(speech, route).wire)
    other = learnt(route, error, gateways.dialect(route.dialect).speech_features(request, route))
    if other is None:
        return None
    try:
        await prepare(speech, other, heeded)
    except UsageError:
        return None  # a model that refuses all it can make has some other trouble
    keep(route, other, tools.cache)
    tools.debug(f"{route.ref}: {error.message}: asking for {plan_of(speech, other).wire} instead")
    return other


def plan_of(speech: SpeechTask, route: Route) -> formats.Plan:
    """Choose what to ask a gateway for. Raises: UsageError: it has refused all that can be used."""
    made = gateways.dialect(route.dialect).speech_formats(route)
    left = [name for name in made if f"format:{name}" not in route.refused]
    if not left:
        raise UsageError(f"{route.ref} has refused every format: {', '.join(made)}")
    return formats.plan(speech.request.format, left)


def estimate(text: str, route: Route, cache: ResponseCache) -> Estimate:
    """Price a text by what is known of the model's prices."""
    if gateways.dialect(route.dialect).is_free:
        return FREE
    return speaking(prices_of(route, cache), text)


async def _once(speech: SpeechTask, route: Route, told: AttemptRecord, tools: RunContext) -> _Spoken:
    """Send one request over one route and deliver its audio."""
    dialect = gateways.dialect(route.dialect)
    plan = plan_of(speech, route)
    request = speech.request._replace(format=plan.wire)
    wire_request = dialect.speech(request, route)
    tools.debug(f"{route.ref}: asking for {plan.wire} ({plan.step.name.lower()})")
    warming = asyncio.create_task(asyncio.to_thread(warm_codec)) if plan.step is formats.Step.ENCODE else None
    try:
        async with tools.transport(wire_request.url).open(wire_request) as reply:
            told.status = reply.status
            told.request_id = error_responses.request_id(reply.headers)
            told.generation_id = dialect.generation_id(reply.headers)
            told.usage = dialect.usage(reply.headers)
            told.service = dialect.service(reply.headers, route)
            headers = reply.headers
            chunks = reply.chunks()
            if not 200 <= reply.status < 300:
                error = dialect.failure(reply.status, reply.headers, await error_body(chunks))
                raise advised(error, route, tools.cache)
            if event_streams.is_stream(headers):
                # What is inside has no type of its own.
                headers = {**headers, "content-type": ""}
                chunks = _unpacked(chunks, event_streams.SpeechStream(headers), told)
            received = await receive(headers, chunks, speech.outlets, told, tools, asked=plan.wire, warming=warming)
    finally:
        if warming is not None:
            await asyncio.gather(warming, return_exceptions=True)
    swapped = heed_swap(route, told)
    for warning in swapped:
        tools.info(f"warning: {warning}")
    warnings = (*received.warnings, *_too_short(speech.request, received.duration_s, tools), *swapped)
    return _Spoken(received.delivered, received.duration_s, warnings)


def _too_short(request: SpeechRequest, duration_s: float | None, tools: RunContext) -> tuple[str, ...]:
    """Warn about speech that is far shorter than its text."""
    if duration_s is None or not speech_rate.is_suspiciously_short(duration_s, request.text, request.speed):
        return ()
    expected_s = speech_rate.expected_s(request.text, request.speed)
    warning = f"{duration_s:.1f} s of audio is short for this text: about {expected_s:.0f} s were expected"
    tools.info(f"warning: {warning}")
    return (warning,)


async def _unpacked(
    chunks: AsyncIterator[bytes], stream: event_streams.SpeechStream, told: AttemptRecord
) -> AsyncIterator[bytes]:
    """Give the audio inside of events as they come. Raises: Lost: the end is missing."""
    async for chunk in chunks:
        if audio := stream.feed(chunk):
            yield audio
    if audio := stream.finish():
        yield audio
    told.usage = together(told.usage, stream.usage)
