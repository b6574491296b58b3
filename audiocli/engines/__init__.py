"""Transport of the `local` dialect: serves requests with local engines.

Engines are imported on first use. Errors are raised before a response is returned where possible: speech waits for its
first audio.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InvalidResponse, UsageError
from ..gateways.local import SCHEME, check_installed
from ..threads import run_in_thread
from ..types.requests import HttpRequest

_JSON = {"content-type": "application/json"}

# Blocks of 0.2 s that may wait for a slow reader.
_MAX_QUEUED_BLOCKS = 8


@dataclass(frozen=True)
class LocalResponse:
    """Response of an engine, with the interface of an HTTP response. Its body can be read once."""

    status: int
    headers: Mapping[str, str]
    _source: AsyncIterator[bytes]

    def iter_bytes(self) -> AsyncIterator[bytes]:
        return self._source


class _EngineThread:
    """Run blocking work in a dedicated thread, and pass its blocks to the event loop.

    The loop's thread pool is not used: texts that wait for the engine would fill it. The work pauses while
    `_MAX_QUEUED_BLOCKS` blocks are unread, unless `has_waiters()` is true. Chunks of a long text are read in order, so
    the reader may be waiting for a chunk that itself waits for the engine.
    """

    def __init__(self, work: Callable[[_EngineThread], None], has_waiters: Callable[[], bool] = lambda: False) -> None:
        self._work = work
        self._has_waiters = has_waiters
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._space = threading.Condition()
        self._blocks: deque[bytes] = deque()
        self._is_cancelled = False
        self._has_ended = False
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="audiocli-engine", daemon=True).start()

    def is_cancelled(self) -> bool:
        """Return whether the reader has stopped."""
        return self._is_cancelled

    def emit(self, block: bytes) -> bool:
        """Pass a block to the reader, after waiting for space. Return False if the reader has stopped."""
        with self._space:
            while len(self._blocks) >= _MAX_QUEUED_BLOCKS and not self._is_cancelled and not self._has_waiters():
                self._space.wait(0.02)
            if self._is_cancelled:
                return False
            self._blocks.append(block)
        self._notify_loop()
        return True

    def _notify_loop(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._changed.set)
        except RuntimeError:  # the loop is closed
            self._is_cancelled = True

    def _run(self) -> None:
        try:
            self._work(self)
        except BaseException as error:  # noqa: BLE001
            self._error = error  # raised again by `iter_bytes`
        self._has_ended = True
        self._notify_loop()

    async def iter_bytes(self) -> AsyncGenerator[bytes, None]:
        """Yield the blocks in order, then raise the error of the work.

        The thread has ended when the generator is closed, also after an error or a cancellation.
        """
        try:
            while True:
                self._changed.clear()
                has_ended = self._has_ended  # read before the blocks, so that none is missed
                while self._blocks:
                    with self._space:
                        block = self._blocks.popleft()
                        self._space.notify()
                    yield block
                if has_ended:
                    break
                await self._changed.wait()
            if self._error is not None:
                raise self._error
        finally:
            with self._space:
                self._is_cancelled = True
                self._space.notify()
            while not self._has_ended:
                self._changed.clear()
                if not self._has_ended:
                    await self._changed.wait()


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
    """Transport of `local:` URLs. It belongs to one event loop, like an HTTP client.

    `read_samples` decodes a recording to s16le, 16 kHz, mono, in blocks well under one second, and raises
    RecordingError.
    """

    def __init__(
        self, read_samples: Callable[[Path], Iterator[bytes]], environment: Mapping[str, str] | None = None
    ) -> None:
        self._read_samples = read_samples
        self._environment = environment
        # Each recognizer keeps one core busy and takes 100 MB.
        self._recognizer_slots = asyncio.Semaphore(os.cpu_count() or 1)

    @asynccontextmanager
    async def open(self, request: HttpRequest) -> AsyncIterator[LocalResponse]:
        """Serve one request. Exiting the context stops the engine.

        Raises:
            AccessError: The engine is not installed or is broken.
            UsageError: Unknown voice or model, or the text cannot be spoken.
            RecordingError: The recording cannot be read.
            InvalidResponse: The engine failed.
        """
        values = json.loads(b"".join(request.body.blocks())) if request.body is not None else {}
        match request.url.removeprefix(SCHEME):
            case "espeak":
                source, headers = self._speak(values), {"content-type": "audio/pcm;rate=22050;channels=1"}
            case "pocketsphinx":
                source, headers = self._transcribe(Path(values["path"])), _JSON
            case "voices":
                source, headers = self._list_voices(), _JSON
            case model:
                raise UsageError(f"unknown local model {model!r}")
        async with aclosing(source):
            yield LocalResponse(200, headers, await _await_first_block(source))

    def _speak(self, values: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        from . import espeak

        def work(thread: _EngineThread) -> None:
            espeak.speak(
                values["text"],
                voice=values["voice"],
                speed=values["speed"],
                emit=thread.emit,
                is_cancelled=thread.is_cancelled,
            )

        return _EngineThread(work, espeak.has_waiters).iter_bytes()

    def _list_voices(self) -> AsyncGenerator[bytes, None]:
        from . import espeak

        def work(thread: _EngineThread) -> None:
            thread.emit(json.dumps(espeak.list_voices(thread.is_cancelled)).encode())

        return _EngineThread(work).iter_bytes()

    async def _transcribe(self, recording: Path) -> AsyncGenerator[bytes, None]:
        if (error := check_installed("pocketsphinx")) is not None:
            raise error
        async with self._recognizer_slots:
            # -P: modules are not imported from the directory of the program. New session: Ctrl-C reaches only this
            # process, which then kills the recognizer. If this process is killed, the recognizer ends at the end of its
            # input.
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                str(Path(__file__).with_name("sphinx.py")),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env=self._environment,
            )
            try:
                yield await self._recognize(process, recording)
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()

    async def _recognize(self, process: asyncio.subprocess.Process, recording: Path) -> bytes:
        assert process.stdin is not None and process.stdout is not None
        try:
            async with aclosing(_iterate_in_thread(self._read_samples(recording))) as blocks:
                async for samples in blocks:
                    process.stdin.write(samples)
                    await process.stdin.drain()
            process.stdin.close()  # not wait_closed(): if cancelled, it breaks an asyncio callback (Python 3.11)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the process has ended; its exit status is checked below
        transcript = await process.stdout.read()
        if await process.wait() != 0 or not transcript:
            raise InvalidResponse(f"pocketsphinx failed (exit status {process.returncode})")
        return transcript
