"""Services that use cases receive: `RunContext`, and protocols of services with several implementations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

from ..console import WARNING_PREFIX
from ..ledger.budget import RunBudget
from ..outputs import Output
from ..types.audio import PcmFormat
from ..types.requests import HttpRequest
from ..types.routes import Route
from .retry_policy import RetryPolicy

if TYPE_CHECKING:
    from ..ledger.budget import SpendingLimit
    from ..ledger.ledger import Ledger
    from ..storage.response_cache import ResponseCache
    from ..types.ledger import Reservation, Settlement
    from .ledger_writer import BatchedLedgerWriter
    from .progress import UploadProgress


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


class EntryWriter(Protocol):
    """Writes the entries of requests to a ledger that is not on this machine. Every method raises MoneyError."""

    async def reserve(self, reservation: Reservation, limits: Sequence[SpendingLimit]) -> int:
        """Reserve the entry of a request that is about to be sent, and return its ID."""
        ...

    async def settle(self, entry_id: int, settlement: Settlement) -> None:
        """Settle the entry of a finished request."""
        ...

    async def sum_spending(self, limit: SpendingLimit) -> int:
        """Return the nano-dollars that count against a spending limit."""
        ...


class RunContext(NamedTuple):
    """Services and settings of one run.

    Attributes:
        transport: Return the transport for a URL.
        ledger: Records every request.
        cache: Cached responses of gateways.
        sleep: Wait for a number of seconds. Tests replace it, together with `now_s`.
        now_s: Monotonic time in seconds.
        random: Source of jitter, uniform in [0, 1).
        info: Print a message for the user.
        debug: Print a message if `--debug` is set.
        budget: Spending limits.
        retry_policy: What the user allows to be sent again.
        tag: Label of the entries in the ledger.
        limiter: Concurrency limiter; None sends requests immediately.
        ledger_writer: Writes entries in batches; None writes them directly.
        entries: Writes entries elsewhere than to `ledger`; None writes them there.
        uploads: Progress of request bodies; None if it is not shown.
    """

    transport: Callable[[str], Transport]
    ledger: Ledger
    cache: ResponseCache
    sleep: Callable[[float], Awaitable[None]]
    now_s: Callable[[], float]
    random: Callable[[], float]
    info: Callable[[str], None]
    debug: Callable[[str], None]
    budget: RunBudget = RunBudget()
    retry_policy: RetryPolicy = RetryPolicy()
    tag: str | None = None
    limiter: Limiter | None = None
    ledger_writer: BatchedLedgerWriter | None = None
    entries: EntryWriter | None = None
    uploads: UploadProgress | None = None

    def collect_warnings(self) -> tuple[RunContext, list[str]]:
        """Return a context that also stores the warnings that are printed, and the list that they are stored in."""
        warnings: list[str] = []

        def info(message: str) -> None:
            if message.startswith(WARNING_PREFIX):
                warnings.append(message.removeprefix(WARNING_PREFIX))
            self.info(message)

        return self._replace(info=info), warnings
