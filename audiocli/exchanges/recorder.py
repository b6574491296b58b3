"""Record exchanges while they happen: a transport around the HTTP client.

Nothing is delayed or changed by a recording. If the disk is full, the command continues without one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast
from urllib.parse import urlsplit

from .. import __version__
from ..errors import AttemptError, OutputError, UsageError
from ..http.client import PUBLIC_HEADERS
from ..http.url import parse_url
from ..private_files import create_private_file, write_atomically
from ..threads import run_in_thread
from ..types.json import Json
from ..types.ledger import UnreconciledEntry
from ..types.requests import HttpRequest
from .matching import RequestKey, build_key
from .recording import (
    INTERRUPTED,
    LOG_NAME,
    MARKER_NAME,
    README,
    README_NAME,
    VERSION,
    Exchange,
    Failure,
    RecordedGateway,
    RecordedResponse,
    Run,
    build_exchange_path,
    build_request_path,
    build_response_path,
    build_run_path,
    check_version,
    encode_exchange,
    encode_run,
    is_recording,
)
from .secret_remover import (
    SecretRemover,
    StreamRemover,
    list_gateway_secrets,
    list_header_secrets,
    list_url_secrets,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..routing import GatewayConfig

# Options that do not change what a command asks for, and those of them that have a value.
_IGNORED_FLAGS = frozenset({"--quiet", "-q", "--debug", "--replay-timing", "--bell"})
_IGNORED_OPTIONS = frozenset({"--record", "--replay", "--output", "-o", "--output-dir", "-O", "--color"})


class Response(Protocol):
    """A response of the transport that is recorded."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def iter_bytes(self) -> AsyncIterator[bytes]: ...


class Transport(Protocol):
    """The transport that is recorded."""

    def open(self, request: HttpRequest) -> AbstractAsyncContextManager[Response]: ...


def hash_arguments(arguments: Sequence[str]) -> str:
    """Return a hash of the arguments that decide what a command sends."""
    decisive: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, _ = word.partition("=")
        if name in _IGNORED_OPTIONS:
            if not equals:
                next(words, None)
        elif word not in _IGNORED_FLAGS:
            decisive.append(word)
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


class Recorder:
    """Writes the recording of one command into a directory, which may have recordings of other commands.

    Args:
        arguments: The command line, with the command first.
        gateways: The configured gateways. Their keys are removed from everything that is written.
        warn: Receives a warning if the recording cannot be continued.

    Raises:
        UsageError: The directory is not a recording and not empty, or is of a newer version.
        OutputError: The directory cannot be written.
    """

    def __init__(
        self,
        directory: Path,
        *,
        arguments: Sequence[str],
        gateways: Iterable[GatewayConfig],
        warn: Callable[[str], None],
    ) -> None:
        gateways = [gateway for gateway in gateways if gateway.dialect != "local"]
        self.directory = directory
        self.remover = SecretRemover(list_gateway_secrets(gateways))
        self._warn = warn
        # A file could not be written, so nothing more is recorded.
        self.is_stopped = False
        self._started_s = time.monotonic()
        self._log: BinaryIO | None = None
        self._next_number = 1
        try:
            _prepare_directory(directory)
            self._run = self._create_run(arguments, gateways)
            self._log = _open_log(directory / LOG_NAME)
        except OSError as error:
            raise OutputError(f"cannot record in {directory}: {error.strerror}") from error

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def wrap(self, transport: Transport) -> RecordingTransport:
        """Return a transport that records."""
        return RecordingTransport(transport, self)

    def add_job(self, details: Mapping[str, Json]) -> None:
        """Record a background job of the ledger, which the command asks the gateway for."""
        # Where the result goes is of no use to others.
        public = json.loads(self.remover.remove_from_text(json.dumps({**details, "output": None})))
        if public not in self._run.jobs:
            self._run = self._run._replace(jobs=(*self._run.jobs, public))
            with self.guard():
                write_atomically(build_run_path(self.directory, self._run.number), encode_run(self._run))

    def add_entries(self, entries: Sequence[UnreconciledEntry]) -> None:
        """Record the ledger entries whose costs the command requests."""
        self._run = self._run._replace(entries=tuple(entries))
        with self.guard():
            write_atomically(build_run_path(self.directory, self._run.number), encode_run(self._run))

    def log(self, message: str) -> None:
        """Record a debug message."""
        if self._log is not None and not self.is_stopped:
            text = self.remover.remove_from_text(message.replace("\n", "\\n"), is_error=True)
            with self.guard():
                line = f"{self._run.number:04} {self.elapsed_s:8.3f} {text}\n"
                self._log.write(line.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def create_writer(self, request: HttpRequest) -> ExchangeWriter:
        """Reserve the number of an exchange, in the order in which requests are sent."""
        self.remover.add(list_header_secrets(request.headers.items(), PUBLIC_HEADERS))
        self.remover.add(list_url_secrets(request.url))
        return ExchangeWriter(self, self._reserve_number(), self._run.number, request)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Stop the recording, with a warning, if a file cannot be written."""
        try:
            yield
        except OSError as error:
            if not self.is_stopped:
                self.is_stopped = True
                self._warn(f"cannot record in {self.directory}: {error.strerror}; continuing without")

    def _reserve_number(self) -> int:
        """Create the file of the next exchange, and return its number. Other processes may record here too."""
        with self.guard():
            while True:
                try:
                    create_private_file(build_exchange_path(self.directory, self._next_number)).close()
                    break
                except FileExistsError:
                    self._next_number += 1
        self._next_number += 1
        return self._next_number - 1

    def _create_run(self, arguments: Sequence[str], gateways: Sequence[GatewayConfig]) -> Run:
        number = 1
        while True:
            path = build_run_path(self.directory, number)
            run = Run(
                number=number,
                command=arguments[0] if arguments else "",
                arguments_sha256=hash_arguments(arguments),
                audiocli_version=__version__,
                gateways=tuple(
                    RecordedGateway(
                        gateway.name,
                        gateway.dialect,
                        self._remove_from_base_url(gateway.base_url),
                        gateway.key is not None,
                    )
                    for gateway in gateways
                ),
            )
            try:
                with create_private_file(path) as file:
                    file.write(encode_run(run))
                return run
            except FileExistsError:
                number += 1

    def _remove_from_base_url(self, url: str) -> str:
        try:
            parts = urlsplit(url)
        except ValueError:
            return ""  # reported when the gateway is used
        base_url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        return self.remover.remove_from_text(base_url)


class ExchangeWriter:
    """Writes the files of one exchange."""

    def __init__(self, recorder: Recorder, number: int, run: int, request: HttpRequest) -> None:
        self._recorder = recorder
        self._number = number
        self._run = run
        self._started_s = recorder.elapsed_s
        self._request = request
        self._exchange: Exchange | None = None
        self._body: BinaryIO | None = None
        self._stream: StreamRemover | None = None
        self._blocks: list[tuple[float, int]] = []

    @property
    def elapsed_s(self) -> float:
        return self._recorder.elapsed_s - self._started_s

    def write_request(self) -> None:
        """Write the request with its body.

        Raises:
            UsageError: The URL is not valid.
            RecordingError: A file of the body cannot be read.
        """
        request, remover = self._request, self._recorder.remover
        url = parse_url(request.url)
        key = RequestKey(request.method, remover.remove_from_target(url.path, url.query))
        with self._recorder.guard():
            if request.body is None:
                key = build_key(request, remover)
            else:
                with create_private_file(build_request_path(self._recorder.directory, self._number)) as file:
                    key = build_key(request, remover, lambda block: _write_all(file, block))
        self._exchange = Exchange(
            number=self._number,
            run=self._run,
            key=key,
            origin=remover.remove_from_text(url.origin),
            headers={
                name: remover.remove_from_text(value) if name.lower() in PUBLIC_HEADERS else "[removed]"
                for name, value in request.headers.items()
            },
            content_type=request.body.content_type if request.body is not None else None,
            body_bytes=request.body.size_bytes if request.body is not None else None,
            started_s=self._started_s,
        )
        # If the process is killed, the exchange is one without a response.
        self._write()

    def write_head(self, response: Response) -> None:
        """Write status and headers of the response."""
        assert self._exchange is not None
        is_error = response.status >= 400
        remover = self._recorder.remover
        headers = remover.remove_from_headers(response.headers.items(), is_error=is_error)
        self._exchange = self._exchange._replace(
            response=RecordedResponse(response.status, headers, self.elapsed_s), failure=None
        )
        self._stream = remover.open_stream(is_error=is_error)
        with self._recorder.guard():
            self._body = create_private_file(build_response_path(self._recorder.directory, self._number))

    def write_block(self, block: bytes) -> None:
        """Write a block of the response body."""
        assert self._stream is not None
        self._blocks.append((self.elapsed_s, len(block)))
        self._write_body(self._stream.feed(block))

    def set_complete(self) -> None:
        """Note that the response body is complete."""
        assert self._exchange is not None and self._exchange.response is not None
        self._exchange = self._exchange._replace(response=self._exchange.response._replace(is_complete=True))

    def set_failure(self, error: BaseException) -> None:
        """Note why the exchange failed: an error of the transport, or an interruption."""
        assert self._exchange is not None
        remover = self._recorder.remover
        if isinstance(error, AttemptError):
            message = remover.remove_from_text(error.message, is_error=True)
            hint = error.hint and remover.remove_from_text(error.hint)
            failure = Failure(error.code, message, hint, self.elapsed_s)
        else:
            failure = Failure(INTERRUPTED, "the command was interrupted", None, self.elapsed_s)
        self._exchange = self._exchange._replace(failure=failure)

    def finish(self) -> None:
        """Write the rest of the body, and the exchange."""
        if self._stream is not None:
            self._write_body(self._stream.finish())
        if self._body is not None:
            self._body.close()
        if self._exchange is not None and self._exchange.response is not None:
            response = self._exchange.response._replace(blocks=self._blocks)
            self._exchange = self._exchange._replace(response=response)
        if self._exchange is None or self._recorder.is_stopped:
            build_exchange_path(self._recorder.directory, self._number).unlink(missing_ok=True)
        else:
            self._write()

    def _write_body(self, content: bytes) -> None:
        if self._body is not None and not self._recorder.is_stopped:
            with self._recorder.guard():
                _write_all(self._body, content)

    def _write(self) -> None:
        assert self._exchange is not None
        with self._recorder.guard():
            path = build_exchange_path(self._recorder.directory, self._number)
            write_atomically(path, encode_exchange(self._exchange))


class _RecordedResponse:
    """A response whose body is recorded while it is read."""

    def __init__(self, response: Response, writer: ExchangeWriter) -> None:
        self._response = response
        self._writer = writer
        self.status = response.status
        self.headers = response.headers

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """Yield the body. Raises: as the response itself."""
        try:
            async for block in self._response.iter_bytes():
                self._writer.write_block(block)
                yield block
            self._writer.set_complete()
        except (AttemptError, asyncio.CancelledError) as error:
            self._writer.set_failure(error)
            raise


class RecordingTransport:
    """Sends requests over another transport, and records them."""

    def __init__(self, transport: Transport, recorder: Recorder) -> None:
        self._transport = transport
        self._recorder = recorder

    @asynccontextmanager
    async def open(self, request: HttpRequest) -> AsyncIterator[Response]:
        """Send a request and yield its response. Raises: as the other transport."""
        writer = self._recorder.create_writer(request)
        try:
            await run_in_thread(writer.write_request)
            async with AsyncExitStack() as stack:
                try:
                    response = await stack.enter_async_context(self._transport.open(request))
                except (AttemptError, asyncio.CancelledError) as error:
                    writer.set_failure(error)
                    raise
                writer.write_head(response)
                yield _RecordedResponse(response, writer)
        finally:
            writer.finish()


def _prepare_directory(directory: Path) -> None:
    """Create a recording, or check an existing one. Raises: UsageError, OSError."""
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"--record {directory}: not a directory")
    if is_recording(directory):
        check_version(directory)
        return
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise UsageError(
            f"--record {directory}: the directory is not empty and not a recording", hint="name a new directory"
        )
    for name, content in (
        (README_NAME, README.encode()),
        (MARKER_NAME, json.dumps({"version": VERSION, "audiocli_version": __version__}).encode() + b"\n"),
    ):
        with create_private_file(directory / name) as file:
            file.write(content)


def _open_log(path: Path) -> BinaryIO:
    """Open the log of a recording for appending. Raises: OSError: It is a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    return cast(BinaryIO, os.fdopen(os.open(path, flags, 0o600), "ab", buffering=0))


def _write_all(file: BinaryIO, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]
