"""Order of the writes to one output that several responses share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from audiocli.outputs.write_scheduler import WriteScheduler

# Each test takes less than a second, unless a writer is never let through.
TIMEOUT_S = 20.0


def run(main: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(asyncio.wait_for(main, TIMEOUT_S))
    except TimeoutError:
        pytest.fail(f"a writer still waits for its permission to write after {TIMEOUT_S:g} s")


async def write(scheduler: WriteScheduler, name: str, count: int, order: list[str], *, release: bool = True) -> None:
    for _ in range(count):
        await scheduler.acquire(name)
        order.append(name)
        await asyncio.sleep(0)
    if release:
        scheduler.release(name)


def test_output_is_written_to_its_end_before_the_next() -> None:
    async def main() -> None:
        scheduler, order = WriteScheduler(idle_timeout_s=TIMEOUT_S, max_wait_s=TIMEOUT_S), list[str]()
        await asyncio.gather(*(write(scheduler, name, 50, order) for name in "abc"))
        assert order == ["a"] * 50 + ["b"] * 50 + ["c"] * 50

    run(main())


def test_paused_writer_yields_to_the_next() -> None:
    async def main() -> None:
        scheduler, order = WriteScheduler(idle_timeout_s=0.01, max_wait_s=TIMEOUT_S), list[str]()
        await write(scheduler, "a", 3, order, release=False)
        await write(scheduler, "b", 3, order, release=False)
        await write(scheduler, "a", 1, order)
        assert order == ["a"] * 3 + ["b"] * 3 + ["a"]

    run(main())


def test_writer_that_exceeds_max_wait_is_let_through() -> None:
    async def main() -> None:
        scheduler, order = WriteScheduler(idle_timeout_s=TIMEOUT_S, max_wait_s=0.05), list[str]()
        await scheduler.acquire("a")
        started_s = time.monotonic()
        await write(scheduler, "b", 2, order, release=False)
        assert time.monotonic() - started_s >= 0.1
        # The first writer still has the permission.
        scheduler.release("b")
        waiting = asyncio.create_task(scheduler.acquire("c"))
        await asyncio.sleep(0)
        assert not waiting.done()
        scheduler.release("a")
        await waiting
        assert waiting.done() and not waiting.cancelled()

    run(main())


def test_cancelled_writer_is_skipped() -> None:
    async def main() -> None:
        scheduler = WriteScheduler(idle_timeout_s=TIMEOUT_S, max_wait_s=TIMEOUT_S)
        await scheduler.acquire("a")
        writers = [object() for _ in range(3)]
        tasks = [asyncio.create_task(scheduler.acquire(writer)) for writer in writers]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        scheduler.release("a")  # the second writer gets the permission,
        tasks[1].cancel()  # and is cancelled before it runs
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, True, False]
        # The third writer has the permission: the fourth waits until the third releases it.
        waiting = asyncio.create_task(scheduler.acquire("e"))
        await asyncio.sleep(0)
        assert not waiting.done()
        scheduler.release(writers[2])
        await waiting

    run(main())
