"""Slices of computing, off the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


async def run_in_thread(call: Callable[[], T], pool: Executor | None = None) -> T:
    """Run one slice of work in a thread. A slice cannot be left, so when we are cancelled its end is awaited.

    Slices should take 50 ms at most: that is how long Ctrl-C may have to wait. A `pool` saves making a thread, which
    is worth it for slices by the hundred.
    """
    task = asyncio.get_running_loop().run_in_executor(pool, call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class DaemonThreadExecutor(ThreadPoolExecutor):
    """An executor whose threads are left behind at the end: a name server that does not answer holds nobody up.

    asyncio looks up names in its default executor and would wait for it before it ends, long after Ctrl-C.
    """

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = call(*arguments, **named)
            except BaseException as error:  # noqa: BLE001 - whoever waits for the future gets it
                future.set_exception(error)
            else:
                future.set_result(result)

        Thread(target=run, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        return None
