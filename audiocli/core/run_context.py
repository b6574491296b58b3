"""The tools that work is given: what it needs of the world, and nothing more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeVar

from ..ledger.budget import SpendingLimit
from ..types.values import Reservation, CostSource, UnreconciledEntry, Pcm, Route, Settlement, Usage, WireRequest

T = TypeVar("T")


class Reply(Protocol):
    """The start of an answer: header names are in lower case, the body is still on its way."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def chunks(self) -> AsyncIterator[bytes]: ...


class Transport(Protocol):
    def open(self, request: WireRequest) -> AbstractAsyncContextManager[Reply]: ...


class Ledger(Protocol):
    def reserve(self, charge: Reservation, caps: Sequence[SpendingLimit] = ()) -> int: ...

    def settle(self, entry_id: int, settlement: Settlement) -> None: ...

    def correct(self, entry_id: int, usage: Usage) -> bool: ...

    def put_off(self, entry_id: int) -> None: ...

    def open_of_run(self, run: str) -> list[UnreconciledEntry]: ...

    def costs_of_run(self, run: str) -> list[tuple[int | None, CostSource]]: ...

    def together(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Make several writes in one transaction; what one of them raises stands in its place."""
        ...


class CachedResponse(Protocol):
    @property
    def body(self) -> bytes: ...

    @property
    def age_s(self) -> float: ...


class ResponseCache(Protocol):
    """Replies that are kept for later. Keeping may fail in silence: it is no more than a convenience."""

    def get(self, kind: str, key: str) -> CachedResponse | None: ...

    def put(self, kind: str, key: str, body: bytes) -> None: ...


class Output(Protocol):
    """An output under way: nothing is there before `commit`, unless the target cannot be taken back."""

    @property
    def can_restart(self) -> bool: ...

    async def restart(self) -> None: ...

    async def commit(self) -> None: ...

    async def abandon(self) -> None: ...


class Sink(Output, Protocol):
    """Where audio goes. `file` is a seekable file for encoders that patch what they wrote; None where bytes leave."""

    @property
    def file(self) -> BinaryIO | None: ...

    async def begin(self, format: str, pcm: Pcm) -> None:
        """Learn what the first bytes will be."""
        ...

    async def write(self, chunk: bytes) -> None: ...


class Limiter(Protocol):
    """Lets requests go one after the other as a gateway can take them. Who waits for a turn has no entry yet."""

    async def enter(self, route: Route) -> Any: ...

    def leave(
        self, route: Route, turn: Any, headers: Mapping[str, str] | None, error: BaseException | None
    ) -> None: ...


class LedgerWriter(Protocol):
    async def write(self, call: Callable[[], T]) -> T: ...


class RunContext(NamedTuple):
    """`sleep` and `now_s` are injected so that waiting takes no time in tests; `transport` maps URL schemes.

    `run` names the command in the ledger; `caps` hold for all that it sends; `turns` None: everything goes at once.
    `scribe` writes to the ledger while many requests are under way; None: what is to be written is written at once.
    """

    transport: Callable[[str], Transport]
    ledger: Ledger
    cache: ResponseCache
    sleep: Callable[[float], Awaitable[None]]
    now_s: Callable[[], float]
    random: Callable[[], float]
    info: Callable[[str], None]
    debug: Callable[[str], None]
    run: str = ""
    limits: tuple[SpendingLimit, ...] = ()
    allows_unpriced: bool = False
    turns: Limiter | None = None
    scribe: LedgerWriter | None = None
