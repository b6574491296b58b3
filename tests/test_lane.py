"""The right of way among pieces that arrive side by side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from audiocli.outputs.write_scheduler import WriteScheduler

# Nothing here takes so long, unless it waits for what never comes.
LONG_S = 20.0


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, LONG_S))


async def write(lane: WriteScheduler, name: str, times: int, order: list[str], *, leaves: bool = True) -> None:
    for _ in range(times):
        await lane.enter(name)
        order.append(name)
        await asyncio.sleep(0)
    if leaves:
        lane.leave(name)


def test_one_is_written_to_its_end_before_the_next() -> None:
    async def work() -> None:
        lane, order = WriteScheduler(pause_s=LONG_S, patience_s=LONG_S), list[str]()
        await asyncio.gather(*(write(lane, name, 50, order) for name in "abc"))
        assert order == ["a"] * 50 + ["b"] * 50 + ["c"] * 50

    run(work())


def test_who_pauses_lets_the_next_one_go() -> None:
    async def work() -> None:
        lane, order = WriteScheduler(pause_s=0.01, patience_s=LONG_S), list[str]()
        await write(lane, "a", 3, order, leaves=False)
        await write(lane, "b", 3, order, leaves=False)
        await write(lane, "a", 1, order)
        assert order == ["a"] * 3 + ["b"] * 3 + ["a"]

    run(work())


def test_who_has_waited_long_enough_passes_the_others() -> None:
    async def work() -> None:
        lane, order = WriteScheduler(pause_s=LONG_S, patience_s=0.05), list[str]()
        await lane.enter("a")
        started_s = time.monotonic()
        await write(lane, "b", 2, order, leaves=False)
        assert time.monotonic() - started_s >= 0.1
        # The right of way is still that of the first.
        lane.leave("b")
        waiting = asyncio.create_task(lane.enter("c"))
        await asyncio.sleep(0)
        assert not waiting.done()
        lane.leave("a")
        await waiting
        assert waiting.done() and not waiting.cancelled()

    run(work())


def test_who_gives_up_is_passed_over() -> None:
    async def work() -> None:
        lane = WriteScheduler(pause_s=LONG_S, patience_s=LONG_S)
        await lane.enter("a")
        writers = [object() for _ in range(3)]
        tasks = [asyncio.create_task(lane.enter(writer)) for writer in writers]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        lane.leave("a")  # the second is told that it may go,
        tasks[1].cancel()  # and gives up before it does
        gone = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in gone] == [True, True, False]
        # The third has the right of way: another waits for it, and goes when the third leaves.
        waiting = asyncio.create_task(lane.enter("e"))
        await asyncio.sleep(0)
        assert not waiting.done()
        lane.leave(writers[2])
        await waiting

    run(work())
