"""The entries of many requests: one transaction for several, each with its own answer, and none left open."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from audiocli.core.ledger_writer import Scribe, reserve, settle
from audiocli.core.run_context import RunContext
from audiocli.errors import LimitReached
from audiocli.ledger.budget import SpendingLimit
from audiocli.ledger.ledger import Ledger
from audiocli.types.outcomes import CostSource, Outcome
from audiocli.types.values import Reservation, Settlement

CHARGE = Reservation("transcribe", "openrouter", "m", most_nanousd=10, estimate_nanousd=10, run="r")
OK = Settlement(Outcome.OK, 10, CostSource.REPORTED)


class Slow(Ledger):
    """A ledger on a slow disk: it counts its transactions, and waits in each until it may go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.groups: list[int] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def together(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        self.may_go.wait(10)
        self.groups.append(len(calls))
        return super().together(calls)


@pytest.fixture
def ledger(tmp_path: Path) -> Slow:
    return Slow(tmp_path / "ledger.sqlite3")


def tools_of(ledger: Ledger, scribe: Scribe | None) -> RunContext:
    return RunContext(None, ledger, None, asyncio.sleep, lambda: 0.0, lambda: 0.5, print, print, scribe=scribe)  # type: ignore[arg-type]


def entries(ledger: Ledger) -> list[tuple[str, int | None]]:
    database = sqlite3.connect(ledger.path)
    try:
        return list(database.execute("SELECT outcome, cost_nanousd FROM entries ORDER BY id"))
    finally:
        database.close()


def test_what_is_asked_meanwhile_goes_into_one_transaction(ledger: Slow) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1) as thread:
            tools = tools_of(ledger, Scribe(ledger, thread))

            async def one() -> None:
                await settle(tools, await reserve(tools, CHARGE, ()), OK)

            await asyncio.gather(*(one() for _ in range(50)))

    asyncio.run(main())

    assert entries(ledger) == [("ok", 10)] * 50
    assert sum(ledger.groups) == 100 and len(ledger.groups) < 30
    ledger.close()


def test_a_cap_holds_among_those_that_are_written_together(ledger: Slow) -> None:
    cap = SpendingLimit("--max-cost", 35, run="r")

    async def main() -> list[object]:
        with ThreadPoolExecutor(1) as thread:
            tools = tools_of(ledger, Scribe(ledger, thread))
            return await asyncio.gather(*(reserve(tools, CHARGE, (cap,)) for _ in range(8)), return_exceptions=True)

    results = asyncio.run(main())

    assert [isinstance(result, LimitReached) for result in results] == [False] * 3 + [True] * 5
    assert len(entries(ledger)) == 3
    ledger.close()


def test_who_is_cancelled_before_the_entry_is_written_has_sent_nothing(ledger: Slow) -> None:
    async def main() -> bool:
        with ThreadPoolExecutor(1) as thread:
            tools = tools_of(ledger, Scribe(ledger, thread))
            ledger.may_go.clear()
            asking = asyncio.create_task(reserve(tools, CHARGE, ()))
            await asyncio.sleep(0.05)
            asking.cancel()
            await asyncio.sleep(0)
            ledger.may_go.set()
            await asyncio.gather(asking, return_exceptions=True)
            return asking.cancelled()

    assert asyncio.run(main())
    assert entries(ledger) == [("unsent", 0)]
    ledger.close()
