"""Batched writes of ledger entries: one transaction for several requests, each with its own result."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from audiocli.core.ledger_writer import BatchedLedgerWriter, reserve, settle
from audiocli.core.run_context import RunContext
from audiocli.errors import LimitReached
from audiocli.ledger.budget import SpendingLimit
from audiocli.ledger.ledger import Ledger
from audiocli.types.ledger import CostSource, Outcome, Reservation, Settlement

RESERVATION = Reservation("transcribe", "openrouter", "m", max_nanousd=10, estimate_nanousd=10, run_id="r")
SETTLEMENT = Settlement(Outcome.OK, 10, CostSource.REPORTED)


class SlowLedger(Ledger):
    """A ledger on a slow disk that records the size of each transaction and can hold it back."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.transaction_sizes: list[int] = []
        self.may_commit = threading.Event()
        self.may_commit.set()

    def run_in_transaction(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        assert self.may_commit.wait(10), "the test did not release the transaction within 10 s"
        self.transaction_sizes.append(len(calls))
        return super().run_in_transaction(calls)


@pytest.fixture
def ledger(tmp_path: Path) -> SlowLedger:
    return SlowLedger(tmp_path / "ledger.sqlite3")


def build_run_context(ledger: Ledger, ledger_writer: BatchedLedgerWriter | None) -> RunContext:
    return RunContext(
        None, ledger, None, asyncio.sleep, lambda: 0.0, lambda: 0.5, print, print, ledger_writer=ledger_writer
    )  # type: ignore[arg-type]


def read_entries(ledger: Ledger) -> list[tuple[str, int | None]]:
    database = sqlite3.connect(ledger.path)
    try:
        return list(database.execute("SELECT outcome, cost_nanousd FROM entries ORDER BY id"))
    finally:
        database.close()


def test_concurrent_reservations_share_one_transaction(ledger: SlowLedger) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1) as thread:
            ctx = build_run_context(ledger, BatchedLedgerWriter(ledger, thread))

            async def reserve_and_settle() -> None:
                await settle(ctx, await reserve(ctx, RESERVATION, ()), SETTLEMENT)

            await asyncio.gather(*(reserve_and_settle() for _ in range(50)))

    asyncio.run(main())

    assert read_entries(ledger) == [("ok", 10)] * 50
    assert sum(ledger.transaction_sizes) == 100 and len(ledger.transaction_sizes) < 30
    ledger.close()


def test_spending_limit_holds_within_one_transaction(ledger: SlowLedger) -> None:
    limit = SpendingLimit("--max-cost", 35, run_id="r")

    async def main() -> list[object]:
        with ThreadPoolExecutor(1) as thread:
            ctx = build_run_context(ledger, BatchedLedgerWriter(ledger, thread))
            return await asyncio.gather(
                *(reserve(ctx, RESERVATION, (limit,)) for _ in range(8)), return_exceptions=True
            )

    results = asyncio.run(main())

    assert [isinstance(result, LimitReached) for result in results] == [False] * 3 + [True] * 5
    assert len(read_entries(ledger)) == 3
    ledger.close()


def test_reservation_cancelled_before_commit_is_settled_as_unsent(ledger: SlowLedger) -> None:
    async def main() -> bool:
        with ThreadPoolExecutor(1) as thread:
            ctx = build_run_context(ledger, BatchedLedgerWriter(ledger, thread))
            ledger.may_commit.clear()
            reserving = asyncio.create_task(reserve(ctx, RESERVATION, ()))
            await asyncio.sleep(0.05)
            reserving.cancel()
            await asyncio.sleep(0)
            ledger.may_commit.set()
            await asyncio.gather(reserving, return_exceptions=True)
            return reserving.cancelled()

    assert asyncio.run(main())
    assert read_entries(ledger) == [("unsent", 0)]
    ledger.close()
