"""Run blocking work in threads, outside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


async def run_in_thread(call: Callable[[], T], executor: Executor | None = None) -> T:
    """Run a call in a thread. A thread cannot be stopped, so cancellation waits for the end of the call.

    A call should take at most 50 ms, because Ctrl-C waits that long. For hundreds of calls, pass
    an `executor` to avoid the overhead of the default one.
    """
    task = asyncio.get_running_loop().run_in_executor(executor, call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class DaemonThreadExecutor(ThreadPoolExecutor):
    """An executor with daemon threads, which do not delay the exit of the process.

    asyncio resolves host names in its default executor. With ordinary threads it would wait for a name server that
    does not respond, long after Ctrl-C.
    """

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = call(*arguments, **keywords)
            except BaseException as error:  # noqa: BLE001 - raised again by the future
                future.set_exception(error)
            else:
                future.set_result(result)

        Thread(target=run, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        return None
