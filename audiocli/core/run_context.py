"""Services that use cases receive: `RunContext` and the protocols of its members."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeVar

from ..ledger.budget import SpendingLimit
from ..types.audio import PcmFormat
from ..types.ledger import CostSource, Reservation, Settlement, UnreconciledEntry, Usage
from ..types.requests import HttpRequest
from ..types.routes import Route

T = TypeVar("T")


class Response(Protocol):
    """Status and headers of a response whose body has not been read yet. Header names are in lower case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def iter_bytes(self) -> AsyncIterator[bytes]: ...


class Transport(Protocol):
    """Sends requests: over HTTP, or to a local engine."""

    def open(self, request: HttpRequest) -> AbstractAsyncContextManager[Response]: ...


class Ledger(Protocol):
    """The ledger, as far as use cases need it."""

    def reserve(self, reservation: Reservation, limits: Sequence[SpendingLimit] = ()) -> int: ...

    def settle(self, entry_id: int, settlement: Settlement) -> None: ...

    def correct_cost(self, entry_id: int, usage: Usage) -> bool: ...

    def defer(self, entry_id: int) -> None: ...

    def list_unreconciled(self, run_id: str) -> list[UnreconciledEntry]: ...

    def list_costs(self, run_id: str) -> list[tuple[int | None, CostSource]]: ...

    def run_in_transaction(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run several writes in one transaction. Return their results, with an exception in place of a failed one."""
        ...


class CachedResponse(Protocol):
    """A cached response body and its age."""

    @property
    def body(self) -> bytes: ...

    @property
    def age_s(self) -> float: ...


class ResponseCache(Protocol):
    """Cached responses. `put` may fail silently."""

    def get(self, kind: str, key: str) -> CachedResponse | None: ...

    def put(self, kind: str, key: str, body: bytes) -> None: ...


class Output(Protocol):
    """An output in progress. Only streams show bytes before `commit`, and cannot take them back."""

    @property
    def can_restart(self) -> bool: ...

    async def restart(self) -> None: ...

    async def commit(self) -> None: ...

    async def abandon(self) -> None: ...


class AudioWriter(Output, Protocol):
    """An output of audio.

    `file` is the seekable file, for encoders that patch their header; None for a pipe or a player.
    """

    @property
    def file(self) -> BinaryIO | None: ...

    async def begin(self, format: str, pcm: PcmFormat) -> None:
        """Prepare for audio of this format. Called before the first `write`."""
        ...

    async def write(self, block: bytes) -> None: ...


class Limiter(Protocol):
    """Concurrency limiter. A request that waits for a permit has no ledger entry yet."""

    async def acquire(self, route: Route) -> Any: ...

    def release(
        self, route: Route, permit: Any, headers: Mapping[str, str] | None, error: BaseException | None
    ) -> None: ...


class LedgerWriter(Protocol):
    """Runs ledger writes in batches."""

    async def write(self, call: Callable[[], T]) -> T: ...


class RunContext(NamedTuple):
    """Services and limits of one run.

    Attributes:
        transport: Return the transport for a URL.
        ledger: Records every request.
        cache: Cached responses of gateways.
        sleep: Wait for a number of seconds. Tests replace it, together with `now_s`.
        now_s: Monotonic time in seconds.
        random: Source of jitter, uniform in [0, 1).
        info: Print a message for the user.
        debug: Print a message if `--debug` is set.
        run_id: Identifies the entries of this run in the ledger.
        limits: Spending limits that apply to all requests of the run.
        allow_unpriced: Send requests of unknown price despite the spending limits.
        limiter: Concurrency limiter; None sends requests immediately.
        ledger_writer: Writes entries in batches; None writes them directly.
    """

    transport: Callable[[str], Transport]
    ledger: Ledger
    cache: ResponseCache
    sleep: Callable[[float], Awaitable[None]]
    now_s: Callable[[], float]
    random: Callable[[], float]
    info: Callable[[str], None]
    debug: Callable[[str], None]
    run_id: str = ""
    limits: tuple[SpendingLimit, ...] = ()
    allow_unpriced: bool = False
    limiter: Limiter | None = None
    ledger_writer: LedgerWriter | None = None
