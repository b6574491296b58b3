"""Order the writes of concurrent chunks, so that one is complete early."""

from __future__ import annotations

import asyncio
from collections import deque

# A writer that has priority and does not write for this long loses it.
IDLE_TIMEOUT_S = 0.004
# A waiting writer continues after this time without priority. Otherwise its server could close the connection because
# nothing is read.
MAX_WAIT_S = 0.5


class WriteScheduler:
    """Gives one of several concurrent writers priority.

    If chunks that started together were written in turns, all of them would be complete late. The next requests would
    then all start at the same time, and nothing would arrive until the first response. With priority, the first chunk
    is complete early, and the next one is requested while the others still arrive.

    This is not a lock: after `max_wait_s` a waiting writer writes without priority.
    """

    def __init__(self, *, idle_timeout_s: float = IDLE_TIMEOUT_S, max_wait_s: float = MAX_WAIT_S) -> None:
        self._idle_timeout_s = idle_timeout_s
        self._max_wait_s = max_wait_s
        self._owner: object | None = None
        self._write_count = 0
        self._waiting_permits: deque[asyncio.Future[None]] = deque()

    async def acquire(self, writer: object) -> None:
        """Wait until a writer may write one block."""
        if self._owner not in (None, writer) and not await self._wait_for_release():
            return
        self._owner = writer
        self._write_count += 1
        asyncio.get_running_loop().call_later(self._idle_timeout_s, self._release_if_idle, self._write_count)

    def release(self, writer: object) -> None:
        """Pass the priority of a writer to the one that has waited longest. Without priority, do nothing."""
        if self._owner is writer:
            self._release_owner()

    async def _wait_for_release(self) -> bool:
        """Wait for priority. Return False if `max_wait_s` has passed."""
        permit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting_permits.append(permit)
        try:
            async with asyncio.timeout(self._max_wait_s):
                await permit
        except TimeoutError:
            return False
        except asyncio.CancelledError:
            if permit.done() and not permit.cancelled():
                self._release_owner()
            raise
        finally:
            if permit in self._waiting_permits:
                self._waiting_permits.remove(permit)
        return True

    def _release_if_idle(self, write_number: int) -> None:
        if write_number == self._write_count:
            self._release_owner()

    def _release_owner(self) -> None:
        self._owner = None
        while self._waiting_permits:
            permit = self._waiting_permits.popleft()
            if not permit.done():
                permit.set_result(None)
                return
