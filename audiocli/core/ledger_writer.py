"""Entries of the ledger as attempts write them: at once, or by a scribe where many are at work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from ..errors import LedgerBusy
from ..ledger.budget import SpendingLimit
from ..threads import run_in_thread
from ..types.values import Reservation, CostSource, Outcome, Settlement
from .run_context import Ledger, RunContext

PATIENCE_S = 30.0
AGAIN_S = 0.02

T = TypeVar("T")


class Scribe:
    """Writes in a thread of its own, for every entry waits for the disk; what is asked meanwhile goes together."""

    def __init__(self, ledger: Ledger, thread: Executor) -> None:
        self._ledger = ledger
        self._thread = thread
        self._asked: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, call: Callable[[], T]) -> T:
        """Make a write of the ledger's. Who is cancelled meanwhile waits for its end. Raises: MoneyError."""
        written: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked.append((call, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        try:
            return await asyncio.shield(written)
        except asyncio.CancelledError:
            await asyncio.wait([written])
            raise

    async def _write_all(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, []
            calls = [call for call, _ in asked]
            try:
                results = await run_in_thread(lambda calls=calls: self._ledger.together(calls), self._thread)  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - whoever waits for it gets it
                results = [error] * len(asked)
            for (_, written), result in zip(asked, results, strict=True):
                if isinstance(result, Exception):
                    written.set_exception(result)
                else:
                    written.set_result(result)


async def reserve(tools: RunContext, charge: Reservation, caps: Sequence[SpendingLimit]) -> int:
    """Write the entry of a request that is about to be sent. Raises: MoneyError.

    Who is cancelled meanwhile has an entry all the same, and it is settled as what it is: nothing was sent.
    """
    written = asyncio.ensure_future(_patiently(tools, lambda: tools.ledger.reserve(charge, caps)))
    try:
        return await asyncio.shield(written)
    except asyncio.CancelledError:
        await asyncio.wait([written])
        if not written.cancelled() and written.exception() is None:
            await settle(tools, written.result(), Settlement(Outcome.UNSENT, 0, CostSource.COMPUTED))
        raise


async def settle(tools: RunContext, entry_id: int, settlement: Settlement) -> None:
    """Write how a request ended. Raises: MoneyError."""
    await _patiently(tools, lambda: tools.ledger.settle(entry_id, settlement))


async def _patiently(tools: RunContext, write: Callable[[], T]) -> T:
    """Write to the ledger, waiting for its other writers with the loop running. Raises: MoneyError."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return write() if tools.scribe is None else await tools.scribe.write(write)
        except LedgerBusy:
            if time.monotonic() > until_s:
                raise
            await asyncio.sleep(AGAIN_S)


async def patiently(write: Callable[[], T]) -> T:
    """Write something else to the ledger, waiting for its other writers with the loop running. Raises: MoneyError."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return write()
        except LedgerBusy:
            if time.monotonic() > until_s:
                raise
            await asyncio.sleep(AGAIN_S)
