"""Serve requests from a recording. Nothing here opens a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from .. import gateways
from ..errors import (
    MAY_BE_BILLED,
    AttemptError,
    ConnectionFailed,
    InvalidResponse,
    ResponseInterrupted,
    UnrecordedRequest,
    UsageError,
)
from ..private_files import open_regular_file
from ..routing import GatewayConfig
from ..threads import run_in_thread
from ..types.json import Json
from ..types.ledger import UnreconciledEntry
from ..types.requests import HttpRequest
from .matching import RequestKey, build_key, describe_difference, measure_similarity
from .recording import (
    INTERRUPTED,
    Exchange,
    Failure,
    RecordedResponse,
    Run,
    build_response_path,
    check_version,
    read_exchanges,
    read_runs,
)
from .secret_remover import REMOVED, SecretRemover

# A larger block is passed on in several.
MAX_BLOCK_BYTES = 1024 * 1024
_ERRORS: Mapping[str, type[AttemptError]] = {
    error.code: error for error in (ConnectionFailed, ResponseInterrupted, InvalidResponse)
}


class Replay:
    """A recording that a command is replayed from.

    Requests are matched by their content, and equal ones in the order in which they were sent. The exchanges of the
    run with the same command line are preferred, then those of the latest run.

    Raises:
        UsageError: The directory is not a recording, is damaged, or is of a newer version.
    """

    def __init__(self, directory: Path, *, command: str, arguments_sha256: str) -> None:
        check_version(directory)
        self.directory = directory
        runs = read_runs(directory)
        self._run = _choose_run(runs, command, arguments_sha256)
        self._exchanges = list(read_exchanges(directory))
        self._waiting = _group(self._exchanges, self._run.number if self._run is not None else 0)
        self._last: dict[RequestKey, Exchange] = {}
        self._remover = SecretRemover()
        # Requests that the result depends on and that were not recorded.
        self.unrecorded: list[UnrecordedRequest] = []

    @property
    def jobs(self) -> tuple[Mapping[str, Json], ...]:
        """The background jobs that the command asked for, as stored in the ledger."""
        return self._run.jobs if self._run is not None else ()

    @property
    def entries(self) -> tuple[UnreconciledEntry, ...]:
        """The ledger entries whose costs the command requested, the newest first."""
        return self._run.entries if self._run is not None else ()

    def restore_gateways(self, configured: Sequence[GatewayConfig]) -> tuple[GatewayConfig, ...]:
        """Return the gateways of the recorded command, so that the same ones are chosen. No key is needed or used."""
        recorded = {gateway.name: gateway for gateway in (self._run.gateways if self._run is not None else ())}
        restored = [
            gateway
            if gateway.dialect == "local"
            else gateway._replace(
                base_url=recorded[gateway.name].base_url if gateway.name in recorded else gateway.base_url,
                key=REMOVED if gateway.name in recorded and recorded[gateway.name].has_key else None,
                key_source="the recording",
                key_error=None,
                key_note=None,
                traits_error=None,
            )
            for gateway in configured
        ]
        names = {gateway.name for gateway in configured}
        for gateway in recorded.values():
            if gateway.name in names:
                continue
            if gateway.dialect == "local" or gateway.dialect not in gateways.list_dialects():
                raise UsageError(f"{self.directory}: unknown dialect {gateway.dialect!r}", hint="update audiocli")
            key = REMOVED if gateway.has_key else None
            # Before the local engines, as in the configuration.
            restored.insert(
                len(restored) - 1, GatewayConfig(gateway.name, gateway.dialect, gateway.base_url, key, gateway.has_key)
            )
        return tuple(restored)

    async def take(self, request: HttpRequest) -> Exchange:
        """Return the exchange of a request. A query that is sent more often than recorded gets its last response.

        Raises:
            UnrecordedRequest: There is none.
        """
        key = await run_in_thread(partial(build_key, request, self._remover))
        waiting = self._waiting.get(key)
        if waiting:
            self._last[key] = waiting.pop(0)
        elif key not in self._last or request.method != "GET":
            error = self._build_error(key)
            if not request.is_optional:
                self.unrecorded.append(error)
            raise error
        return self._last[key]

    def raise_unrecorded(self) -> None:
        """Raise the error of the first request that was not recorded, if there is one."""
        if self.unrecorded:
            raise self.unrecorded[0]

    def _build_error(self, key: RequestKey) -> UnrecordedRequest:
        request = f"{key.method} {key.target}"
        hint = "record the command again, with --no-resume so that no stored result replaces a request"
        if key in self._last:
            return UnrecordedRequest(f"{self.directory} has no further exchange for {request}", hint=hint)
        nearest = max(self._exchanges, key=lambda exchange: measure_similarity(key, exchange.key), default=None)
        if nearest is None:
            return UnrecordedRequest(f"{self.directory} has no exchange for {request}: it is empty", hint=hint)
        return UnrecordedRequest(
            f"{self.directory} has no exchange for {request}; the nearest is {nearest.number:04} "
            f"({nearest.key.method} {nearest.key.target}): {describe_difference(key, nearest.key)}",
            hint=hint,
        )


class ReplayTransport:
    """Serves requests from a recording, with the interface of the HTTP client.

    Args:
        sleep: Waits as long as the gateway took; None serves everything immediately.
    """

    def __init__(self, replay: Replay, *, sleep: Callable[[float], Awaitable[None]] | None) -> None:
        self._replay = replay
        self._sleep = sleep

    @asynccontextmanager
    async def open(self, request: HttpRequest) -> AsyncIterator[_ReplayedResponse]:
        """Yield the recorded response.

        Raises:
            UnrecordedRequest: The request was not recorded.
            UsageError: The URL is not valid, or a file of the recording cannot be read.
            AttemptError: The recorded error.
        """
        exchange = await self._replay.take(request)
        if exchange.response is None:
            failure = exchange.failure or Failure(INTERRUPTED, "", None, 0.0)
            await self._wait(failure.after_s)
            raise _build_error(failure)
        await self._wait(exchange.response.head_s)
        path = build_response_path(self._replay.directory, exchange.number)
        try:
            body = open_regular_file(path)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error
        with body:
            yield _ReplayedResponse(exchange.response, exchange.failure, body, self._wait)

    async def _wait(self, seconds: float) -> None:
        if self._sleep is not None and seconds > 0:
            await self._sleep(seconds)


class _ReplayedResponse:
    """A response from a recording."""

    def __init__(
        self,
        response: RecordedResponse,
        failure: Failure | None,
        body: BinaryIO,
        wait: Callable[[float], Awaitable[None]],
    ) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._failure = failure
        self._body = body
        self._wait = wait

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """Yield the blocks of the body. Raises: AttemptError: The recorded error."""
        passed_s = self._response.head_s
        for at_s, size_bytes in self._response.blocks:
            await self._wait(at_s - passed_s)
            passed_s = max(passed_s, at_s)
            while size_bytes:
                block = self._body.read(min(size_bytes, MAX_BLOCK_BYTES))
                if not block:
                    raise UsageError("the recording was changed while it was replayed")
                size_bytes -= len(block)
                yield block
        if self._failure is not None:
            await self._wait(self._failure.after_s - passed_s)
            raise _build_error(self._failure)


def _build_error(failure: Failure) -> AttemptError:
    if failure.code not in _ERRORS:
        return ResponseInterrupted("the recorded command was interrupted here", hint=MAY_BE_BILLED)
    return _ERRORS[failure.code](failure.message, hint=failure.hint)


def _choose_run(runs: Sequence[Run], command: str, arguments_sha256: str) -> Run | None:
    """Return the latest run of the same command line, else of the same command, else the latest."""
    return max(
        runs,
        key=lambda run: (run.arguments_sha256 == arguments_sha256, run.command == command, run.number),
        default=None,
    )


def _group(exchanges: Sequence[Exchange], preferred_run: int) -> dict[RequestKey, list[Exchange]]:
    """Return the exchanges of each request: those of the preferred run, else of the latest run that has any."""
    grouped: dict[RequestKey, dict[int, list[Exchange]]] = {}
    for exchange in exchanges:
        grouped.setdefault(exchange.key, {}).setdefault(exchange.run, []).append(exchange)
    return {key: runs[preferred_run if preferred_run in runs else max(runs)] for key, runs in grouped.items()}
