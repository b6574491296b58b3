"""Write ledger entries from async code: directly, or in batches while many requests are in flight."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import LedgerBusy
from ..threads import run_in_thread
from ..types.ledger import CostSource, Outcome, Reservation, Settlement

if TYPE_CHECKING:
    from ..ledger.budget import SpendingLimit
    from ..ledger.ledger import Ledger
    from .run_context import RunContext

BUSY_TIMEOUT_S = 30.0
BUSY_POLL_INTERVAL_S = 0.02

T = TypeVar("T")


class BatchedLedgerWriter:
    """Write to the ledger in a separate thread, because every write waits for the disk.

    Writes requested during a transaction go into the next one together.
    """

    def __init__(self, ledger: Ledger, executor: Executor) -> None:
        self._ledger = ledger
        self._executor = executor
        self._pending: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, call: Callable[[], T]) -> T:
        """Run a write of the ledger. If cancelled, wait for the write before raising. Raises: MoneyError."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append((call, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_all())
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    async def _write_all(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            calls = [call for call, _ in batch]
            try:
                results = await run_in_thread(partial(self._ledger.run_in_transaction, calls), self._executor)
            except Exception as error:  # noqa: BLE001 - raised again in `write`
                results = [error] * len(batch)
            for (_, future), result in zip(batch, results, strict=True):
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)


async def reserve(ctx: RunContext, reservation: Reservation, limits: Sequence[SpendingLimit]) -> int:
    """Reserve the entry of a request that is about to be sent, and return its ID. Raises: MoneyError.

    If cancelled while reserving, settle the entry as `unsent`.
    """
    if ctx.entries is not None:
        future = asyncio.ensure_future(ctx.entries.reserve(reservation, limits))
    else:
        future = asyncio.ensure_future(write(ctx, lambda: ctx.ledger.reserve(reservation, limits)))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if not future.cancelled() and future.exception() is None:
            await settle(ctx, future.result(), Settlement(Outcome.UNSENT, 0, CostSource.COMPUTED))
        raise


async def settle(ctx: RunContext, entry_id: int, settlement: Settlement) -> None:
    """Settle the entry of a finished request. Raises: MoneyError."""
    if ctx.entries is not None:
        await ctx.entries.settle(entry_id, settlement)
    else:
        await write(ctx, lambda: ctx.ledger.settle(entry_id, settlement))


async def sum_spending(ctx: RunContext, limit: SpendingLimit) -> int:
    """Return the nano-dollars that count against a spending limit. Raises: MoneyError."""
    return ctx.ledger.sum_spending(limit) if ctx.entries is None else await ctx.entries.sum_spending(limit)


async def write(ctx: RunContext, call: Callable[[], T]) -> T:
    """Run a write of the ledger, through the writer of the run if it has one. While the ledger is busy, try again.

    Raises: MoneyError.
    """
    deadline_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return call() if ctx.ledger_writer is None else await ctx.ledger_writer.write(call)
        except LedgerBusy:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(BUSY_POLL_INTERVAL_S)
