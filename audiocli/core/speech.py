"""Speech: send a text to a gateway, and write the audio while it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from .. import gateways
from ..audio import formats
from ..errors import AttemptError, AudiocliError, UsageError
from ..gateways import error_responses, event_streams
from ..pricing import FREE, estimate_speech
from ..text import speech_rate
from ..types.ledger import Estimate, Reservation
from ..types.requests import SpeechRequest
from ..types.results import SpeechResult
from ..types.routes import Route
from .attempts import AttemptRecord, RouteRunner, merge_usage
from .audio_pipeline import AudioOutput
from .audio_response import ReceivedAudio, preload_codec, read_error_body, receive_audio
from .capabilities import downgrade_route, save_refusals
from .catalog import add_model_hint, find_prices
from .retry_policy import RetryPolicy
from .route_warnings import RouteWarnings, check_model_substitution
from .run_context import Output, ResponseCache, RunContext


class SpeechTask(NamedTuple):
    """One speech operation.

    `request.format` is the format of the output. The format requested from the gateway may differ.
    """

    request: SpeechRequest
    audio_outputs: tuple[AudioOutput, ...]
    output: Output
    retry_policy: RetryPolicy
    tag: str | None = None


async def speak(
    task: SpeechTask, routes: Sequence[Route], skipped: Sequence[tuple[Route, AudiocliError]], ctx: RunContext
) -> SpeechResult:
    """Send a text over the first route that can serve it, then commit the output.

    If this raises, the output is abandoned.

    Raises:
        OutputError: The output cannot be written; `saved_path` names the file with the paid audio.
        AudiocliError: No route served.
    """
    request = task.request
    route_warnings = RouteWarnings(ctx)
    runner = RouteRunner(
        ctx,
        retry_policy=task.retry_policy,
        is_free=lambda route: gateways.load_dialect(route.dialect).is_free,
        build_reservation=lambda route: Reservation(
            command="speak",
            gateway=route.gateway,
            model=route.model,
            tag=task.tag,
            characters=len(request.text),
            utf8_bytes=len(request.text.encode("utf-8", "replace")),
        ),
        estimate=lambda route, record: estimate(request.text, route, ctx.cache),
        send=lambda route, record: _send(task, route, record, ctx),
        prepare=lambda route: prepare(task, route, route_warnings),
        downgrade=lambda route, error: _downgrade(task, route, error, ctx, route_warnings),
        can_restart=lambda: task.output.can_restart,
        restart=task.output.restart,
    )
    try:
        received, run_result = await runner.run(routes, skipped)
    except BaseException:
        await task.output.abandon()
        raise
    await task.output.commit()
    return SpeechResult(
        run=run_result._replace(elapsed_s=ctx.now_s() - runner.started_s),
        size_bytes=received.written.size_bytes,
        sha256=received.written.sha256,
        format=received.written.format,
        duration_s=received.duration_s,
        warnings=(*route_warnings.get(run_result.route), *received.warnings),
    )


async def prepare(task: SpeechTask, route: Route, route_warnings: RouteWarnings) -> None:
    """Print warnings about unsupported options before anything is sent.

    Raises:
        UsageError: The route has refused every usable format.
    """
    plan_format(task, route)
    route_warnings.emit(route, gateways.load_dialect(route.dialect).get_speech_warnings(task.request, route))


async def _downgrade(
    task: SpeechTask, route: Route, error: AttemptError, ctx: RunContext, route_warnings: RouteWarnings
) -> Route | None:
    """Return the route without the refused format, which is then converted locally; None if no format was refused."""
    request = task.request._replace(format=plan_format(task, route).request_format)
    downgraded = downgrade_route(route, error, gateways.load_dialect(route.dialect).get_speech_features(request, route))
    if downgraded is None:
        return None
    try:
        await prepare(task, downgraded, route_warnings)
    except UsageError:
        return None  # a model that refuses every format fails for another reason
    save_refusals(route, downgraded, ctx.cache)
    ctx.debug(f"{route.ref}: {error.message}; requesting {plan_format(task, downgraded).request_format} instead")
    return downgraded


def plan_format(task: SpeechTask, route: Route) -> formats.FormatPlan:
    """Choose the format to request. Raises: UsageError: the route has refused every usable format."""
    offered = gateways.load_dialect(route.dialect).get_speech_formats(route)
    usable = [name for name in offered if f"format:{name}" not in route.unsupported]
    if not usable:
        raise UsageError(f"{route.ref} has refused every format: {', '.join(offered)}")
    return formats.plan_format(task.request.format, usable)


def estimate(text: str, route: Route, cache: ResponseCache) -> Estimate:
    """Estimate the cost of a text from the known prices of the model."""
    if gateways.load_dialect(route.dialect).is_free:
        return FREE
    return estimate_speech(find_prices(route, cache), text)


async def _send(task: SpeechTask, route: Route, record: AttemptRecord, ctx: RunContext) -> ReceivedAudio:
    """Send one request over one route and write its audio."""
    dialect = gateways.load_dialect(route.dialect)
    plan = plan_format(task, route)
    request = task.request._replace(format=plan.request_format)
    http_request = dialect.build_speech_request(request, route)
    ctx.debug(f"{route.ref}: requesting {plan.request_format} ({plan.step.name.lower()})")
    preload_task = (
        asyncio.create_task(asyncio.to_thread(preload_codec)) if plan.step is formats.FormatStep.ENCODE else None
    )
    try:
        async with ctx.transport(http_request.url).open(http_request) as response:
            record.status = response.status
            record.request_id = error_responses.parse_request_id(response.headers)
            record.generation_id = dialect.parse_generation_id(response.headers)
            record.usage = dialect.parse_usage(response.headers)
            record.served_model = dialect.parse_served_model(response.headers, route)
            headers = response.headers
            blocks = response.iter_bytes()
            if not 200 <= response.status < 300:
                error = dialect.parse_error(response.status, response.headers, await read_error_body(blocks))
                raise add_model_hint(error, route, ctx.cache)
            if event_streams.is_event_stream(headers):
                # The content type is that of the event stream, not of the audio inside.
                headers = {**headers, "content-type": ""}
                blocks = _unpack_events(blocks, event_streams.SpeechStream(headers), record)
            received = await receive_audio(
                headers,
                blocks,
                task.audio_outputs,
                record,
                ctx,
                requested_format=plan.request_format,
                preload_task=preload_task,
            )
    finally:
        if preload_task is not None:
            await asyncio.gather(preload_task, return_exceptions=True)
    substitution_warnings = check_model_substitution(route, record)
    for warning in substitution_warnings:
        ctx.info(f"warning: {warning}")
    warnings = (*received.warnings, *_warn_if_too_short(task.request, received.duration_s, ctx), *substitution_warnings)
    return received._replace(warnings=warnings)


def _warn_if_too_short(request: SpeechRequest, duration_s: float | None, ctx: RunContext) -> tuple[str, ...]:
    """Warn if the audio is far shorter than its text takes to speak."""
    if duration_s is None or not speech_rate.is_suspiciously_short(duration_s, request.text, request.speed):
        return ()
    expected_s = speech_rate.estimate_duration_s(request.text, request.speed)
    warning = f"{duration_s:.1f} s of audio is short for this text; expected about {expected_s:.0f} s"
    ctx.info(f"warning: {warning}")
    return (warning,)


async def _unpack_events(
    blocks: AsyncIterator[bytes], stream: event_streams.SpeechStream, record: AttemptRecord
) -> AsyncIterator[bytes]:
    """Yield the audio inside an event stream. Raises: ResponseInterrupted: the final event is missing."""
    async for block in blocks:
        if audio := stream.feed(block):
            yield audio
    if audio := stream.finish():
        yield audio
    record.usage = merge_usage(record.usage, stream.usage)
