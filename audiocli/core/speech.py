"""Speech: send a text to a gateway, and write the audio while it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from .. import gateways
from ..audio import formats
from ..errors import AudiocliError, UsageError
from ..gateways import event_streams
from ..outputs import Output
from ..pricing import FREE, estimate_speech
from ..text import speech_rate
from ..types.ledger import Estimate, Reservation
from ..types.requests import HttpRequest, SpeechRequest
from ..types.results import SpeechResult
from ..types.routes import Route
from .attempts import AttemptRecord, FeatureOperation, merge_usage, run
from .audio_pipeline import AudioOutput
from .audio_response import CodecLoader, ReceivedAudio, receive_audio
from .catalog import find_prices
from .run_context import Response, RunContext

if TYPE_CHECKING:
    from ..storage.response_cache import ResponseCache


class SpeechTask(NamedTuple):
    """A text to speak, and where its audio goes.

    `request.format` is the format of the output. The format requested from the gateway may differ.
    """

    request: SpeechRequest
    audio_outputs: tuple[AudioOutput, ...]
    output: Output


async def speak(
    task: SpeechTask, routes: Sequence[Route], skipped: Sequence[tuple[Route, AudiocliError]], ctx: RunContext
) -> SpeechResult:
    """Send a text over the first route that can serve it, then commit the output.

    If this raises, the output is abandoned.

    Raises:
        OutputError: The output cannot be written; `saved_path` names the file with the paid audio.
        AudiocliError: No route served.
    """
    operation = SpeechOperation(task, ctx)
    started_s = ctx.now_s()
    try:
        received, run_result = await run(operation, routes, ctx, skipped)
    except BaseException:
        await task.output.abandon()
        raise
    finally:
        await operation.codec.finish_loading()
    await task.output.commit()
    return SpeechResult(
        run=run_result._replace(elapsed_s=ctx.now_s() - started_s),
        size_bytes=received.written.size_bytes,
        sha256=received.written.sha256,
        format=received.written.format,
        duration_s=received.duration_s,
        warnings=(*operation.route_warnings.get(run_result.route), *received.warnings, *run_result.warnings),
    )


def estimate(text: str, route: Route, cache: ResponseCache) -> Estimate:
    """Estimate the cost of a text from the known prices of the model."""
    if gateways.load_dialect(route.dialect).is_free:
        return FREE
    return estimate_speech(find_prices(route, cache), text)


class SpeechOperation(FeatureOperation[ReceivedAudio]):
    """Request speech and write the audio while it arrives."""

    command = "speak"

    def __init__(self, task: SpeechTask, ctx: RunContext) -> None:
        super().__init__(ctx)
        self.task = task
        self.codec = CodecLoader()

    def build_reservation(self, route: Route) -> Reservation:
        text = self.task.request.text
        return Reservation(
            self.command,
            route.gateway,
            route.model,
            characters=len(text),
            utf8_bytes=len(text.encode("utf-8", "replace")),
        )

    def estimate(self, route: Route, record: AttemptRecord | None) -> Estimate:
        return estimate(self.task.request.text, route, self.ctx.cache)

    async def prepare(self, route: Route) -> None:
        """Print warnings about unsupported options. Raises: UsageError: every usable format was refused."""
        self.plan_format(route)
        dialect = gateways.load_dialect(route.dialect)
        self.route_warnings.emit(route, dialect.get_speech_warnings(self.task.request, route))

    def plan_format(self, route: Route) -> formats.FormatPlan:
        """Choose the format to request. Raises: UsageError: the route has refused every usable format."""
        offered = gateways.load_dialect(route.dialect).get_speech_formats(route)
        usable = [name for name in offered if f"format:{name}" not in route.unsupported]
        if not usable:
            raise UsageError(f"{route.ref} has refused every format: {', '.join(offered)}")
        return formats.plan_format(self.task.request.format, usable)

    def get_features(self, route: Route) -> tuple[str, ...]:
        request = self.task.request._replace(format=self.plan_format(route).request_format)
        return gateways.load_dialect(route.dialect).get_speech_features(request, route)

    def build_request(self, route: Route) -> HttpRequest:
        plan = self.plan_format(route)
        self.ctx.debug(f"{route.ref}: requesting {plan.request_format} ({plan.step.name.lower()})")
        if plan.step is formats.FormatStep.ENCODE and self.task.audio_outputs:
            self.codec.start_loading()
        request = self.task.request._replace(format=plan.request_format)
        return gateways.load_dialect(route.dialect).build_speech_request(request, route)

    async def receive(self, route: Route, response: Response, record: AttemptRecord) -> ReceivedAudio:
        headers, blocks = response.headers, response.iter_bytes()
        if event_streams.is_event_stream(headers):
            # The content type is that of the event stream, not of the audio inside.
            headers = {**headers, "content-type": ""}
            blocks = _unpack_events(blocks, event_streams.SpeechStream(headers), record)
        received = await receive_audio(
            headers,
            blocks,
            self.task.audio_outputs,
            record,
            self.ctx,
            requested_format=self.plan_format(route).request_format,
            codec=self.codec,
        )
        warnings = _warn_if_too_short(self.task.request, received.duration_s, self.ctx)
        return received._replace(warnings=(*received.warnings, *warnings))

    def can_restart(self) -> bool:
        return self.task.output.can_restart

    async def restart(self) -> None:
        await self.task.output.restart()


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


def find_text_limit(
    routes: Sequence[Route], max_characters: int | None
) -> tuple[int | None, Literal["characters", "bytes"]]:
    """Return the maximum length of a chunk that all routes accept, and its unit.

    `max_characters` is the limit of the user. A text has at least as many bytes as characters, so if any gateway
    counts bytes, the smallest limit in bytes satisfies all of them.
    """
    limits = [gateways.load_dialect(route.dialect).get_limits(route) for route in routes]
    character_limits = [limit.max_text_characters for limit in limits if limit.max_text_characters is not None]
    character_limits += [max_characters] if max_characters is not None else []
    byte_limits = [limit.max_text_bytes for limit in limits if limit.max_text_bytes is not None]
    if byte_limits:
        return min(character_limits + byte_limits), "bytes"
    return min(character_limits, default=None), "characters"


def is_within_limit(text: str, limit: int | None, unit: Literal["characters", "bytes"]) -> bool:
    """Return whether a text fits into one chunk."""
    if limit is None:
        return True
    return len(text) <= limit if unit == "characters" else len(text.encode("utf-8", "replace")) <= limit
