"""Speech: send a text to a gateway, and write the audio while it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from .. import gateways
from ..audio import formats
from ..errors import AttemptError, AudiocliError, UsageError
from ..gateways import event_streams, text_limits
from ..gateways.base import get_media_type
from ..outputs import Output
from ..pricing import FREE, correct_estimate, estimate_speech, estimate_usage, has_output_token_price
from ..text import speech_rate
from ..types.ledger import Estimate, Reservation
from ..types.requests import HttpRequest, SpeechRequest
from ..types.results import RunResult, SpeechResult
from ..types.routes import Route
from .attempts import AttemptRecord, FeatureOperation, build_exhausted_error, merge_runs, merge_usage, run
from .audio_pipeline import AudioOutput
from .audio_response import CodecLoader, ReceivedAudio, receive_audio
from .capabilities import list_option_names, save_refusals
from .catalog import find_prices
from .run_context import Response, RunContext
from .speech_names import compute_phrase_name

if TYPE_CHECKING:
    from ..gateways.event_streams import SpeechStream
    from ..gateways.json_audio import JsonAudioStream
    from ..storage.phrase_cache import PhraseCache, PhraseWriter, StoredPhrase
    from ..storage.response_cache import ResponseCache


MAX_UTF8_BYTES = 4
"""Maximum number of bytes of a character in UTF-8."""


class SpeechTask(NamedTuple):
    """A text to speak, and where its audio goes.

    `request.format` is the format of the output. The format requested from the gateway may differ.

    Attributes:
        needs_samples: The output is processed as raw samples, so their sample rate must be known.
        can_split: The caller can split the text and send it again.
        phrases: Speech that was paid for before; None neither uses nor stores any.
        resume: Use stored speech.
    """

    request: SpeechRequest
    audio_outputs: tuple[AudioOutput, ...]
    output: Output
    needs_samples: bool = False
    can_split: bool = False
    phrases: PhraseCache | None = None
    resume: bool = True

    @property
    def is_processed(self) -> bool:
        """Whether an output changes the samples, so that they are requested in a format without loss."""
        return any(output.processing is not None and output.processing.is_active for output in self.audio_outputs)


class TextTooLong(AudiocliError):
    """A gateway refused a text as too long and named the maximum.

    `route` has the maximum among its refused features. `refusal` is the error to report if the text is not split.
    """

    def __init__(self, route: Route, refusal: AudiocliError) -> None:
        super().__init__(refusal.message, hint=refusal.hint)
        self.exit_code, self.code = refusal.exit_code, refusal.code
        self.route = route
        self.refusal = refusal


async def speak(
    task: SpeechTask, routes: Sequence[Route], skipped: Sequence[tuple[Route, AudiocliError]], ctx: RunContext
) -> SpeechResult:
    """Send a text over the first route that can serve it, then commit the output.

    If the speech of one of the routes is in the phrase cache, nothing is sent. If this raises, the output is abandoned,
    or can be used again after `TextTooLong`.

    Raises:
        TextTooLong: The text can be split, and a gateway named the maximum length.
        OutputError: The output cannot be written; `saved_path` names the file with the paid audio.
        AudiocliError: No route served.
    """
    operation = SpeechOperation(task, ctx)
    started_s = ctx.now_s()
    try:
        stored = await _speak_stored(operation, routes)
        received, run_result = stored or await run(operation, routes, ctx, skipped)
    except TextTooLong:
        operation.abandon_phrase()
        await task.output.restart()
        raise
    except BaseException:
        operation.abandon_phrase()
        await task.output.abandon()
        raise
    finally:
        await operation.codec.finish_loading()
    operation.store_phrase(received, run_result)
    await task.output.commit()
    return SpeechResult(
        run=run_result._replace(elapsed_s=ctx.now_s() - started_s),
        size_bytes=received.written.size_bytes,
        sha256=received.written.sha256,
        format=received.written.format,
        duration_s=received.final_duration_s,
        warnings=(*operation.route_warnings.get(run_result.route), *received.warnings, *run_result.warnings),
        is_suspicious=received.is_suspicious,
        is_cached=stored is not None,
    )


async def _speak_stored(operation: SpeechOperation, routes: Sequence[Route]) -> tuple[ReceivedAudio, RunResult] | None:
    """Write the speech that an earlier run has paid for. Return None if no route has any."""
    task, ctx = operation.task, operation.ctx
    if task.phrases is None or not task.resume:
        return None
    started_s = ctx.now_s()
    for route in routes:
        name = find_phrase(
            task.request, route, task.phrases, needs_samples=task.needs_samples, is_processed=task.is_processed
        )
        phrase = None if name is None else task.phrases.open(name)
        if name is None or phrase is None:
            continue
        await operation.prepare(route)
        record = AttemptRecord()
        try:
            received = await operation.receive_stored(route, phrase, record)
        except AttemptError:  # a newer version may check more
            task.phrases.remove([name])
            if not operation.can_restart():
                raise
            await operation.restart()
            continue
        finally:
            phrase.close()
        first_byte_s = None if record.first_byte_s is None else record.first_byte_s - started_s
        return received, merge_runs((), route, first_byte_s=first_byte_s, elapsed_s=ctx.now_s() - started_s)
    return None


def find_phrase(
    request: SpeechRequest,
    route: Route,
    phrases: PhraseCache,
    *,
    needs_samples: bool = False,
    is_processed: bool = False,
) -> str | None:
    """Return the name of the speech that an earlier run has paid for; None if it is not in the phrase cache."""
    if not is_storable(route):
        return None
    try:
        plan = plan_format(request.format, route, needs_samples=needs_samples, is_processed=is_processed)
    except UsageError:
        return None
    name = compute_phrase_name(request._replace(format=plan.request_format), route)
    return name if phrases.has(name) else None


def is_storable(route: Route) -> bool:
    """Return whether speech of a route is worth storing: that of local engines is free."""
    return not gateways.load_dialect(route.dialect).is_free


def plan_format(
    output_format: str, route: Route, *, needs_samples: bool, is_processed: bool = False
) -> formats.FormatPlan:
    """Choose the format to request. Raises: UsageError: the route has refused every usable format.

    `is_processed`: the samples are changed and encoded here, whatever the format of the output.
    """
    offered = gateways.load_dialect(route.dialect).get_speech_formats(route)
    usable = [name for name in offered if f"format:{name}" not in route.unsupported]
    if not usable:
        raise UsageError(f"{route.ref} has refused every format: {', '.join(offered)}")
    plan = formats.plan_format(
        "pcm" if is_processed else output_format,
        usable,
        needs_samples=needs_samples or is_processed,
        is_pcm_known=route.traits.pcm_rate_hz is not None or gateways.has_known_pcm_format(route),
        samples=route.traits.samples,
    )
    return plan._replace(step=formats.FormatStep.ENCODE) if is_processed else plan


def estimate(
    text: str,
    route: Route,
    cache: ResponseCache,
    *,
    speed: float | None = None,
    record: AttemptRecord | None = None,
) -> Estimate:
    """Estimate the cost of a text from the known prices of the model.

    Before it is sent, earlier bills correct the estimate. Afterwards the reported tokens, or else the length of the
    received audio, are more precise.
    """
    if gateways.load_dialect(route.dialect).is_free:
        return FREE
    prices = find_prices(route, cache)
    if record is not None and record.usage.output_tokens and has_output_token_price(prices):
        return estimate_usage(prices, record.usage)
    if record is not None and record.audio_s:
        return estimate_speech(prices, text, audio_s=record.audio_s)
    return correct_estimate(estimate_speech(prices, text, speed=speed), route.estimate_correction)


class SpeechOperation(FeatureOperation[ReceivedAudio]):
    """Request speech and write the audio while it arrives."""

    command = "speak"

    def __init__(self, task: SpeechTask, ctx: RunContext) -> None:
        super().__init__(ctx)
        self.task = task
        self.codec = CodecLoader()
        self._phrase_writer: PhraseWriter | None = None

    def build_reservation(self, route: Route) -> Reservation:
        text = self.task.request.text
        return Reservation(
            self.command,
            route.gateway,
            route.model,
            characters=len(text),
            utf8_bytes=len(encode_text(text)),
        )

    def estimate(self, route: Route, record: AttemptRecord | None) -> Estimate:
        request = self.task.request
        return estimate(request.text, route, self.ctx.cache, speed=request.speed, record=record)

    async def prepare(self, route: Route) -> None:
        """Print warnings about unsupported options. Raises: UsageError: every usable format was refused."""
        self.plan_format(route)
        dialect = gateways.load_dialect(route.dialect)
        self.route_warnings.emit(route, dialect.get_speech_warnings(self.task.request, route))

    def plan_format(self, route: Route) -> formats.FormatPlan:
        """Choose the format to request. Raises: UsageError: the route has refused every usable format."""
        return plan_format(
            self.task.request.format,
            route,
            needs_samples=self.task.needs_samples,
            is_processed=self.task.is_processed,
        )

    async def downgrade(self, route: Route, error: AttemptError) -> Route | None:
        """Return the route without the refused feature.

        The maximum length of a text, if the error names it, is stored for the next run.

        Raises:
            TextTooLong: The error names the maximum, and the text can be split.
        """
        limit = text_limits.find_text_limit(error, self.task.request.text)
        if limit is None:
            return await super().downgrade(route, error)
        limited = route._replace(unsupported=route.unsupported | {limit.feature})
        save_refusals(route, limited, self.ctx.cache)
        if self.task.can_split:
            raise TextTooLong(limited, build_exhausted_error((), [(route, error)])) from error
        return None

    def get_features(self, route: Route) -> tuple[str, ...]:
        request = self.task.request._replace(format=self.plan_format(route).request_format)
        return gateways.load_dialect(route.dialect).get_speech_features(request, route)

    def list_fields(self) -> tuple[str, ...]:
        request = self.task.request
        is_set = {
            "speed": request.speed is not None,
            "instructions": request.instructions is not None,
            "references": bool(request.references),
            "voice": True,
        }
        return (*(name for name in is_set if is_set[name]), *list_option_names(request.options))

    def build_request(self, route: Route) -> HttpRequest:
        plan = self.plan_format(route)
        self.ctx.debug(f"{route.ref}: requesting {plan.request_format} ({plan.step.name.lower()})")
        if plan.step is formats.FormatStep.ENCODE and self.task.audio_outputs:
            self.codec.start_loading()
        request = self.task.request._replace(format=plan.request_format)
        return gateways.load_dialect(route.dialect).build_speech_request(request, route)

    async def receive(self, route: Route, response: Response, record: AttemptRecord) -> ReceivedAudio:
        headers, blocks = response.headers, response.iter_bytes()
        stream = _create_stream(headers, route.traits.speech_response)
        if stream is not None:
            # The content type is that of the response, not of the audio inside.
            headers = {**headers, "content-type": ""}
            blocks = _unpack_audio(blocks, stream, record)
        received = await self._receive_audio(route, headers, self._store_blocks(route, headers, blocks), record)
        warnings = _warn_if_too_short(self.task.request, received.duration_s, self.ctx)
        if stream is not None and not stream.is_complete:
            warnings = (*warnings, "the stream does not mark its end; the audio may be truncated")
            self.ctx.info(f"warning: {warnings[-1]}")
        return received._replace(
            warnings=(*received.warnings, *warnings),
            is_suspicious=received.is_suspicious
            or bool(warnings)
            or record.served_model.is_substituted
            # Samples are stored with their rate, so a later run would not warn again.
            or (self.task.needs_samples and received.is_rate_assumed),
        )

    async def receive_stored(self, route: Route, phrase: StoredPhrase, record: AttemptRecord) -> ReceivedAudio:
        """Write stored speech as if it arrived now."""
        return await self._receive_audio(route, phrase.headers, _iterate(phrase.read_blocks()), record)

    async def _receive_audio(
        self, route: Route, headers: Mapping[str, str], blocks: AsyncIterator[bytes], record: AttemptRecord
    ) -> ReceivedAudio:
        return await receive_audio(
            headers,
            blocks,
            self.task.audio_outputs,
            record,
            self.ctx,
            requested_format=self.plan_format(route).request_format,
            codec=self.codec,
            is_pcm_known=gateways.is_default_server(route),
            pcm_rate_hz=route.traits.pcm_rate_hz,
            max_duration_s=speech_rate.compute_max_duration_s(self.task.request.text, self.task.request.speed),
        )

    def _store_blocks(
        self, route: Route, headers: Mapping[str, str], blocks: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """Return the blocks, which are stored in the phrase cache as they pass, if there is one."""
        if self.task.phrases is None or not is_storable(route):
            return blocks
        self.abandon_phrase()  # of an earlier attempt
        name = compute_phrase_name(self.task.request._replace(format=self.plan_format(route).request_format), route)
        format_headers = {name: headers[name] for name in formats.FORMAT_HEADERS if name in headers}
        self._phrase_writer = self.task.phrases.create(name, format_headers)
        return _copy_blocks(blocks, self._phrase_writer)

    def store_phrase(self, received: ReceivedAudio, run_result: RunResult) -> None:
        """Add the received audio to the phrase cache, unless it may be wrong."""
        if received.is_suspicious:
            self.abandon_phrase()
        elif self._phrase_writer is not None:
            self._phrase_writer.commit(run_result.cost_nanousd, run_result.cost_source)

    def abandon_phrase(self) -> None:
        """Remove what was stored of a response that cannot be used."""
        if self._phrase_writer is not None:
            self._phrase_writer.abandon()

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


def _create_stream(headers: Mapping[str, str], speech_response: str) -> SpeechStream | JsonAudioStream | None:
    """Return the parser of a response with audio as base64; None if the body is the audio.

    `speech_response` is that of the table of the server. A response that is audio by its type is not parsed.
    """
    kind, _, field = speech_response.partition(":")
    if event_streams.is_event_stream(headers):
        return event_streams.SpeechStream(headers, field if kind == "sse" else None)
    if kind == "bytes" or get_media_type(headers).startswith("audio/"):
        return None
    if kind == "sse":
        return event_streams.SpeechStream(headers, field)
    from ..gateways.json_audio import JsonAudioStream

    return JsonAudioStream(headers, field)


async def _iterate(blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


async def _copy_blocks(blocks: AsyncIterator[bytes], writer: PhraseWriter) -> AsyncIterator[bytes]:
    async for block in blocks:
        writer.write(block)
        yield block


async def _unpack_audio(
    blocks: AsyncIterator[bytes], stream: SpeechStream | JsonAudioStream, record: AttemptRecord
) -> AsyncIterator[bytes]:
    """Yield the audio inside a response. Raises: AttemptError: it is truncated, or has no audio."""
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

    `max_characters` is the limit of the user. The limits that error responses have named count as well. A text has at
    least as many bytes as characters, so if any limit is in bytes or tokens, the smallest one in bytes satisfies all of
    them. A character has at most `MAX_UTF8_BYTES`, so a much smaller limit in characters satisfies them too.
    """
    character_limits = [max_characters] if max_characters is not None else []
    byte_limits = []
    for route in routes:
        limits = gateways.load_dialect(route.dialect).get_limits(route)
        named_limits = text_limits.parse_features(route.unsupported)
        character_limits += _list_sizes(limits.max_text_characters, named_limits, "characters")
        byte_limits += _list_sizes(limits.max_text_bytes, named_limits, "bytes")
        byte_limits += map(text_limits.convert_to_bytes, _list_sizes(limits.max_text_tokens, named_limits, "tokens"))
    if byte_limits and not (character_limits and min(character_limits) * MAX_UTF8_BYTES <= min(byte_limits)):
        return min(character_limits + byte_limits), "bytes"
    return min(character_limits, default=None), "characters"


def _list_sizes(size: int | None, named_limits: Sequence[text_limits.TextLimit], unit: str) -> list[int]:
    """Return the maximum sizes in one unit: the known one, and those that error responses have named."""
    named_sizes = [limit.size for limit in named_limits if limit.unit == unit]
    return named_sizes if size is None else [size, *named_sizes]


def is_within_limit(text: str, limit: int | None, unit: Literal["characters", "bytes"]) -> bool:
    """Return whether a text fits into one chunk."""
    if limit is None:
        return True
    return len(text) <= limit if unit == "characters" else len(encode_text(text)) <= limit


def encode_text(text: str) -> bytes:
    """Encode a text as it is sent."""
    return text.encode("utf-8", "replace")
