"""The engine of `audiocli mock --engine local`: the local engines, behind the interface of the mock gateway."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

from ..audio.formats import parse_pcm_format
from ..codecs.encoder import Encoder
from ..codecs.probe import probe
from ..codecs.resampler import Resampler
from ..context import AppContext
from ..core.run_context import RunContext
from ..errors import AccessError, AudiocliError, RecordingError, UsageError
from ..gateways import load_dialect
from ..gateways.local import MODELS, check_installed
from ..gateways.local_models import find_local_model
from ..mock import EngineError, EngineModel, EngineSpeech, EngineTranscription, Refusal
from ..routing import RouteQuery
from ..text.language_guess import guess_language
from ..types.audio import PcmFormat
from ..types.requests import HttpRequest, SpeechRequest, Timestamps, TranscriptionRequest
from ..types.routes import Route
from ..types.transcripts import Transcript
from .mock_codec import copy_upload
from .options import DEFAULT_TIMEOUT_S, resolve_routes

T = TypeVar("T")

# Names of OpenAI, which programs have as their defaults. They stand for the best engine that is installed.
SPEECH_ALIASES = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
TRANSCRIPTION_ALIASES = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-transcribe")
# Voices of OpenAI stand for the default voice.
_OPENAI_VOICES = frozenset(
    ("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse")
)
# A text is spoken 15 times as fast as it is heard, so a client that stops reading must stop the engine.
_MAX_QUEUED_BLOCKS = 8


class LocalEngine:
    """Serves the requests of several threads with the local engines, whose event loop runs in one more thread.

    Use it as a context manager, whose end stops the child processes.
    """

    def __init__(self, app: AppContext, debug: Callable[[str], None]) -> None:
        self._app = app
        self._debug = debug
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._ctx: RunContext | None = None
        self._pending: set[Future[Any]] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> LocalEngine:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *error: object) -> None:
        for future in tuple(self._pending):
            future.cancel()
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        async def host(ctx: RunContext) -> None:
            self._ctx, self._loop, self._stopping = ctx, asyncio.get_running_loop(), asyncio.Event()
            self._started.set()
            await self._stopping.wait()

        try:
            self._app.run(host, read_timeout_s=DEFAULT_TIMEOUT_S, info=self._debug, debug=self._debug)
        finally:
            self._started.set()

    def list_models(self) -> list[EngineModel]:
        """Return the models that are installed, and the names of OpenAI that stand for them."""
        models = [
            EngineModel(name, task)
            for name, (task, _) in MODELS.items()
            if check_installed(name) is None and self._has_weights(name)
        ]
        return [
            *models,
            EngineModel(SPEECH_ALIASES[0], "speech"),
            EngineModel(TRANSCRIPTION_ALIASES[0], "transcription"),
        ]

    def find_model(self, name: str) -> EngineModel | None:
        if name in MODELS:
            return EngineModel(name, MODELS[name][0])
        if name.startswith(SPEECH_ALIASES):
            return EngineModel(name, "speech")
        return EngineModel(name, "transcription") if name.startswith(TRANSCRIPTION_ALIASES) else None

    def _has_weights(self, name: str) -> bool:
        model = find_local_model(name)
        return model is None or self._app.weights.find(model) is not None

    def speak(self, speech: EngineSpeech) -> Iterator[bytes]:
        blocks = self._iterate(self._speak(speech))
        first = next(blocks, b"")  # errors are raised before the response begins

        def chain() -> Iterator[bytes]:
            try:
                yield first
                yield from blocks
            finally:
                blocks.close()

        return chain()

    def transcribe(self, transcription: EngineTranscription) -> Transcript:
        with tempfile.TemporaryDirectory(prefix="audiocli-mock-") as directory:
            path = Path(directory) / f"upload.{transcription.extension}"
            copy_upload(transcription.file, path)
            return self._call(self._transcribe(transcription, path))

    # --- in the thread of the event loop -----------------------------------------------------------------------------

    async def _speak(self, speech: EngineSpeech) -> AsyncGenerator[bytes, None]:
        voice = None if speech.voice in _OPENAI_VOICES else speech.voice
        dialect = load_dialect("local")
        request = SpeechRequest(speech.text, "pcm", speed=None if speech.speed == 1 else speech.speed)
        query = RouteQuery("speech", _list_references(speech.model), "local", voice=voice)
        query = query._replace(language=guess_language(speech.text))
        route = self._resolve(query, lambda found: dialect.check_speech(request, found))
        async with self._open(dialect.build_speech_request(request, route)) as response:
            source, _ = parse_pcm_format(response.headers)
            encoder = _SpeechEncoder(speech.format, source)
            try:
                async for samples in response.iter_bytes():
                    if block := encoder.feed(samples):
                        yield block
                yield encoder.finish()
            finally:
                encoder.close()

    async def _transcribe(self, transcription: EngineTranscription, path: Path) -> Transcript:
        dialect = load_dialect("local")
        request = TranscriptionRequest(
            probe(path),
            timestamps=Timestamps.WORD if transcription.wants_words else Timestamps.SEGMENT,
            language=transcription.language,
            prompt=transcription.prompt,
            temperature=transcription.temperature,
            translate=transcription.translate,
        )
        query = RouteQuery("transcription", _list_references(transcription.model), "local")
        query = query._replace(language=transcription.language, translate=transcription.translate)
        route = self._resolve(query, lambda found: dialect.check_transcription(request, found))
        async with self._open(dialect.build_transcription_request(request, route)) as response:
            body = b"".join([block async for block in response.iter_bytes()])
            return dialect.parse_transcript(body, response.headers)

    def _resolve(self, query: RouteQuery, check: Callable[[Route], AudiocliError | None]) -> Route:
        return resolve_routes(self._app, query, lambda _, route: check(route)).routes[0]

    def _open(self, request: HttpRequest) -> Any:
        assert self._ctx is not None
        return self._ctx.transport(request.url).open(request)

    # --- in the threads of the requests ------------------------------------------------------------------------------

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop and return its result. Raises: EngineError."""
        future = self._start(coroutine)
        try:
            return future.result()
        except CancelledError as error:
            raise EngineError(Refusal(503, "the server is shutting down", None, "engine_failed")) from error
        except AudiocliError as error:
            raise EngineError(_build_refusal(error)) from error

    def _iterate(self, source: AsyncGenerator[bytes, None]) -> Generator[bytes, None, None]:
        """Yield the blocks of an asynchronous generator, which one task reads. Raises: EngineError."""
        queue: asyncio.Queue[bytes | AudiocliError | None] = asyncio.Queue(_MAX_QUEUED_BLOCKS)

        async def read() -> None:
            try:
                async with aclosing(source) as blocks:
                    async for block in blocks:
                        await queue.put(block)
                await queue.put(None)
            except AudiocliError as error:
                await queue.put(error)

        reading = self._start(read())
        try:
            while (block := self._call(queue.get())) is not None:
                if isinstance(block, AudiocliError):
                    raise EngineError(_build_refusal(block))
                yield block
        finally:
            reading.cancel()


class _SpeechEncoder:
    """Encodes samples as one of OpenAI's formats. Its pcm has 24 kHz."""

    def __init__(self, format: str, source: PcmFormat) -> None:
        self._resampler = Resampler(source, PcmFormat()) if format == "pcm" else None
        self._encoder = Encoder(format, source) if self._resampler is None else None

    def feed(self, samples: bytes) -> bytes:
        if self._encoder is None:
            assert self._resampler is not None
            return self._resampler.feed(samples)
        return b"".join(
            self._encoder.feed(samples[start : start + self._encoder.max_feed_bytes])
            for start in range(0, len(samples), self._encoder.max_feed_bytes)
        )

    def finish(self) -> bytes:
        if self._encoder is not None:
            return self._encoder.finish()
        assert self._resampler is not None
        return self._resampler.finish()

    def close(self) -> None:
        if self._encoder is not None:
            self._encoder.close()


def _list_references(model: str) -> tuple[str, ...]:
    """Return the reference of a local model; nothing for a name that stands for the best one."""
    return (f"local:{model}",) if model in MODELS else ()


def _build_refusal(error: AudiocliError) -> Refusal:
    """Return the refusal for an error of the engines: faults of the request have 400, an engine that is missing 503."""
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    match error:
        case RecordingError():
            reason = error.message.rpartition(": ")[2]  # without our path of the upload
            return Refusal(400, f"Audio file might be corrupted or unsupported: {reason}", "file", "invalid_value")
        case UsageError():
            return Refusal(400, message, None, "invalid_value")
        case AccessError():
            return Refusal(503, message, None, "engine_not_installed")
    return Refusal(500, message, None, "engine_failed")
