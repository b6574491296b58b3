"""Serve the requests of the `local` dialect in this process, with the interface of the HTTP transport.

Engines are imported at their first use. Errors are raised before a reply is given wherever they can be known by then:
speech waits for its first sound.
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
from ..gateways.local import SCHEME, missing
from ..threads import run_in_thread
from ..types.values import WireRequest

_JSON = {"content-type": "application/json"}

# 8 × 0.2 s of sound wait for a slow reader.
_CHUNKS_AHEAD = 8


@dataclass(frozen=True)
class LocalReply:
    """What an engine answers, in the shape of an HTTP reply; its chunks can be read once."""

    status: int
    headers: Mapping[str, str]
    _source: AsyncIterator[bytes]

    def chunks(self) -> AsyncIterator[bytes]:
        return self._source


class _Thread:
    """Run blocking work in a thread of its own, and carry what it makes to the event loop.

    Not the loop's pool of threads: texts that wait for their turn would fill it. The work is held back when
    `_CHUNKS_AHEAD` chunks wait, except while `crowded()`: then somebody waits for the engine, perhaps the very one for
    whom our reader waits, since pieces of a long text leave in order.
    """

    def __init__(self, work: Callable[[_Thread], None], crowded: Callable[[], bool] = lambda: False) -> None:
        self._work = work
        self._crowded = crowded
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._room = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._gone = False
        self._ended = False
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="audiocli-engine", daemon=True).start()

    def gone(self) -> bool:
        """Tell whether nobody wants more."""
        return self._gone

    def emit(self, chunk: bytes) -> bool:
        """Hand over a chunk, waiting for room; False when nobody wants more."""
        with self._room:
            while len(self._chunks) >= _CHUNKS_AHEAD and not self._gone and not self._crowded():
                self._room.wait(0.02)
            if self._gone:
                return False
            self._chunks.append(chunk)
        self._tell()
        return True

    def _tell(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:  # the loop is closed: nobody listens any more
            self._gone = True

    def _run(self) -> None:
        try:
            self._work(self)
        except BaseException as error:  # noqa: BLE001
            self._error = error  # raised again where the chunks are read
        self._ended = True
        self._tell()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Give the chunks in order, then raise what the work raised. However it is left, the thread has ended."""
        try:
            while True:
                self._news.clear()
                ended = self._ended  # read before the chunks: what the work made before its end is not missed
                while self._chunks:
                    with self._room:
                        chunk = self._chunks.popleft()
                        self._room.notify()
                    yield chunk
                if ended:
                    break
                await self._news.wait()
            if self._error is not None:
                raise self._error
        finally:
            with self._room:
                self._gone = True
                self._room.notify()
            while not self._ended:
                self._news.clear()
                if not self._ended:
                    await self._news.wait()


async def _after_first(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Wait for the first chunk now, so that an error comes before the reply; then give all of them."""
    first = await anext(chunks, b"")

    async def all_chunks() -> AsyncIterator[bytes]:
        if first:
            yield first
        async for chunk in chunks:
            yield chunk

    return all_chunks()


async def _in_slices(slices: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Read a blocking iterator off the loop, a slice at a time; when cancelled, wait for the slice under way."""
    try:
        while True:
            samples = await run_in_thread(partial(next, slices, None))
            if samples is None:
                return
            yield samples
    finally:
        if (close := getattr(slices, "close", None)) is not None:
            close()


class Engines:
    """The transport of `local:` URLs. It belongs to one event loop, as an HTTP client does.

    `read_samples` decodes a recording to signed 16 bit, 16 kHz, mono, in slices of well under a second each; it raises
    RecordingError.
    """

    def __init__(self, read_samples: Callable[[Path], Iterator[bytes]]) -> None:
        self._read_samples = read_samples
        # A recogniser keeps one processor busy and takes 100 MB.
        self._recognisers = asyncio.Semaphore(os.cpu_count() or 1)

    @asynccontextmanager
    async def open(self, request: WireRequest) -> AsyncIterator[LocalReply]:
        """Serve one request; leaving the block ends its work.

        Raises: AccessError: the engine is not installed. UsageError: unknown voice or model, or an unspeakable text.
            RecordingError: the recording cannot be read. BadAnswer: the engine broke off.
        """
        values = json.loads(b"".join(request.body.pieces())) if request.body is not None else {}
        match request.url.removeprefix(SCHEME):
            case "espeak":
                source, headers = self._speech(values), {"content-type": "audio/pcm;rate=22050;channels=1"}
            case "pocketsphinx":
                source, headers = self._transcription(Path(values["path"])), _JSON
            case "voices":
                source, headers = self._voices(), _JSON
            case other:
                raise UsageError(f"local has no model {other}")
        async with aclosing(source):
            yield LocalReply(200, headers, await _after_first(source))

    def _speech(self, values: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        from . import espeak

        def work(thread: _Thread) -> None:
            espeak.speak(
                values["text"], voice=values["voice"], speed=values["speed"], emit=thread.emit, gone=thread.gone
            )

        return _Thread(work, espeak.awaited).chunks()

    def _voices(self) -> AsyncGenerator[bytes, None]:
        from . import espeak

        def work(thread: _Thread) -> None:
            thread.emit(json.dumps(espeak.voices(thread.gone)).encode())

        return _Thread(work).chunks()

    async def _transcription(self, recording: Path) -> AsyncGenerator[bytes, None]:
        if (error := missing("pocketsphinx")) is not None:
            raise error
        async with self._recognisers:
            # -P: the folder of the program is not searched for modules. A session of its own: Ctrl-C reaches us alone,
            # and we end the program; when we are killed, it ends because its input does.
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                str(Path(__file__).with_name("sphinx.py")),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                yield await self._recognise(process, recording)
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()

    async def _recognise(self, process: asyncio.subprocess.Process, recording: Path) -> bytes:
        assert process.stdin is not None and process.stdout is not None
        try:
            async with aclosing(_in_slices(self._read_samples(recording))) as slices:
                async for samples in slices:
                    process.stdin.write(samples)
                    await process.stdin.drain()
            process.stdin.close()  # never wait_closed(): cancelled, it breaks asyncio's own callback (Python 3.11)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it died; its exit status says so below
        transcript = await process.stdout.read()
        if await process.wait() != 0 or not transcript:
            raise InvalidResponse(f"pocketsphinx broke off (exit status {process.returncode})")
        return transcript
