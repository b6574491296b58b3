"""Child processes of local engines that serve one request after another, and the errors of engines that end early.

A request and its responses are frames; `espeak_worker` describes them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from ..errors import AccessError, AudiocliError, InvalidResponse
from ..processes import find_signal_name, read_messages, start_process, stop_process

_HEADER_BYTES = 5
# After these kinds of frames, a child cannot serve another request: more frames follow, or it exits.
_INCOMPLETE = (b"", b"A", b"L", b"P", b"S", b"B")
# espeak has its first audio after 16 ms. With `site` and its search for packages it would be 1 ms later, and 2 ms later
# if the module was run as a script, because scripts are compiled at every start.
_ISOLATED = ("-I", "-S")
_RUN_MODULE = "import sys; sys.path.append(sys.argv[1]); __import__(sys.argv[2]).serve(*sys.argv[3:])"


class Frame(NamedTuple):
    """A message of a child. `kind` is one byte; it is empty at the end of the child's output."""

    kind: bytes
    content: bytes = b""

    @property
    def fields(self) -> list[str]:
        return self.content.decode("utf-8", "replace").split("\0")


class EngineChild:
    """A running child process. It serves one request at a time."""

    def __init__(self, engine: str, process: asyncio.subprocess.Process) -> None:
        self._engine = engine
        self._process = process
        self._messages = asyncio.create_task(read_messages(process))

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    def send(self, request: Frame) -> None:
        """Send a request."""
        assert self._process.stdin is not None
        self._process.stdin.write(request.kind + len(request.content).to_bytes(4, "big") + request.content)

    async def drain(self) -> None:
        """Wait until the child has read most of what was sent. Raises: OSError: it has ended."""
        assert self._process.stdin is not None
        await self._process.stdin.drain()

    async def receive(self) -> Frame:
        """Receive a frame. It has no kind if the child has closed its output."""
        assert self._process.stdout is not None
        try:
            header = await self._process.stdout.readexactly(_HEADER_BYTES)
            return Frame(header[:1], await self._process.stdout.readexactly(int.from_bytes(header[1:], "big")))
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return Frame(b"")

    async def wait(self) -> AudiocliError:
        """Wait until the child has ended, and build the error that reports its end."""
        return build_exit_error(self._engine, await self._process.wait(), await self._messages)

    async def stop(self) -> None:
        """Kill the child and wait for its end."""
        await stop_process(self._process)
        await self._messages


class EngineResponse:
    """The response of a child to one request.

    `release` is called once, when the child has sent the last frame, even if that has not been read yet, or when it has
    been stopped.
    """

    def __init__(
        self, engine: str, child: EngineChild, read_timeout_s: float, release: Callable[[EngineResponse], None]
    ) -> None:
        self.child = child
        self._engine = engine
        self._read_timeout_s = read_timeout_s
        self._release = release
        self._frames: deque[Frame] = deque()
        self._lock = asyncio.Lock()
        self._buffering: asyncio.Task[None] | None = None
        self._is_complete = False

    async def read_frame(self) -> Frame:
        """Return the next frame.

        Raises:
            InvalidResponse: The child has ended, or sent nothing for the read timeout.
        """
        try:
            async with asyncio.timeout(self._read_timeout_s), self._lock:
                frame = self._frames.popleft() if self._frames else await self._receive()
        except TimeoutError:
            raise build_timeout_error(self._engine, self._read_timeout_s) from None
        if not frame.kind:
            raise await self.child.wait()
        return frame

    def start_buffering(self, has_waiters: Callable[[], bool]) -> None:
        """Receive frames without waiting for the reader, while other requests wait for a child.

        The reader may be waiting for one of them.
        """
        if self._buffering is None or self._buffering.done():
            self._buffering = asyncio.create_task(self._buffer(has_waiters))

    async def close(self) -> None:
        """End the request. If the response is incomplete, its child is killed."""
        if self._buffering is not None:
            self._buffering.cancel()
            await asyncio.gather(self._buffering, return_exceptions=True)
        if not self._is_complete:
            try:
                await self.child.stop()
            finally:
                self._release(self)

    async def _buffer(self, has_waiters: Callable[[], bool]) -> None:
        is_open = True
        while is_open and has_waiters():
            async with self._lock:
                if self._is_complete:
                    break
                self._frames.append(frame := await self._receive())
                is_open = bool(frame.kind)

    async def _receive(self) -> Frame:
        frame = await self.child.receive()
        if frame.kind not in _INCOMPLETE:
            self._is_complete = True
            self._release(self)
        return frame


class ChildPool:
    """Children of one engine: as many as requests at the same time, up to a maximum."""

    def __init__(
        self,
        engine: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        read_timeout_s: float,
        max_children: int | None = None,
    ) -> None:
        """Prepare a pool, without starting a child.

        Args:
            engine: Name of the engine.
            arguments: Name of the child's module in this directory, and the arguments of its `serve`.
            environment: From `build_child_environment`.
            read_timeout_s: A child that sends nothing for this time is killed.
            max_children: Maximum number of children; one for each core if not given.
        """
        self._engine = engine
        self._arguments = [*_build_interpreter_command(), "-c", _RUN_MODULE, str(Path(__file__).parent), *arguments]
        self._environment = environment
        self._read_timeout_s = read_timeout_s
        self._slots = asyncio.Semaphore(max_children or os.cpu_count() or 1)
        self._waiting = 0
        self._idle: list[EngineChild] = []
        self._open: set[EngineResponse] = set()

    @asynccontextmanager
    async def request(self, request: Frame) -> AsyncIterator[EngineResponse]:
        """Send a request to a child, once one is free, and yield the response.

        Exiting the context kills the child if the response is incomplete. The next request starts a new one.

        Raises:
            AccessError: The child cannot be started.
        """
        response = await self._send(request)
        try:
            yield response
        finally:
            await response.close()

    async def close(self) -> None:
        """Stop the children that are idle. Those of open requests stop with them."""
        while self._idle:
            await self._idle.pop().stop()

    async def _send(self, request: Frame) -> EngineResponse:
        self._waiting += 1
        try:
            if self._slots.locked():
                for response in self._open:
                    response.start_buffering(self._has_waiters)
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            child = await self._find_child()
        except BaseException:
            self._slots.release()
            raise
        child.send(request)
        response = EngineResponse(self._engine, child, self._read_timeout_s, self._release)
        self._open.add(response)
        if self._has_waiters():
            response.start_buffering(self._has_waiters)
        return response

    def _has_waiters(self) -> bool:
        return self._waiting > 0

    def _release(self, response: EngineResponse) -> None:
        self._open.discard(response)
        if response.child.is_running:
            self._idle.append(response.child)
        self._slots.release()

    async def _find_child(self) -> EngineChild:
        while self._idle:
            child = self._idle.pop()
            if child.is_running:
                return child
            await child.stop()
        return EngineChild(self._engine, await start_engine(self._engine, self._arguments, self._environment))


def _build_interpreter_command() -> list[str]:
    """Return the command of an isolated interpreter that treats bytecode as this one does."""
    command = [sys.executable, *_ISOLATED]
    if sys.dont_write_bytecode:
        command.append("-B")
    if sys.pycache_prefix is not None:
        command += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    return command


async def start_engine(
    engine: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """Start the process of an engine in a session of its own: Ctrl-C reaches audiocli only, which then kills it.

    Raises:
        AccessError: The process cannot be started.
    """
    try:
        return await start_process(arguments, environment=environment, new_session=True)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # reported in one place for all of audiocli
        raise AccessError(f"cannot start the local engine {engine}: {error.strerror or error}") from error


def build_search_path() -> str:
    """Return the directories in which a child finds packages: ours, without the current directory."""
    directories = [Path(directory) for directory in sys.path if directory]
    current = Path.cwd()
    return os.pathsep.join(
        str(directory)
        for directory in directories
        if directory.is_absolute() and directory != current and directory.is_dir()
    )


def build_load_error(engine: str, reason: str) -> AccessError:
    """Build the error of an engine that is installed but cannot be used."""
    return AccessError(
        f"cannot load the local engine {engine}: {reason}",
        hint='pip install --force-reinstall "audiocli[local]"',
    )


def build_failure_error(engine: str, reason: str) -> InvalidResponse:
    """Build the error of an engine that could not serve a request."""
    return InvalidResponse(f"the local engine {engine} failed: {reason}")


def build_timeout_error(engine: str, read_timeout_s: float) -> AudiocliError:
    """Build the error of an engine that makes no progress."""
    return InvalidResponse(
        f"no data from the local engine {engine} for {read_timeout_s:g} s",
        hint="use --timeout to wait longer, or another model with -m",
    )


def build_exit_error(engine: str, return_code: int, messages: Sequence[str]) -> AudiocliError:
    """Build the error of an engine that ended without a complete response."""
    if (signal_name := find_signal_name(return_code)) is not None:
        # Its messages are those of the C library ("stack smashing detected") and explain nothing to the user.
        return InvalidResponse(
            f"the local engine {engine} crashed ({signal_name})",
            hint="the input may trigger a bug in the engine; change it, or use another model with -m",
        )
    reason = f": {messages[-1]}" if messages else ""
    return InvalidResponse(f"the local engine {engine} failed (exit status {return_code}){reason}")
