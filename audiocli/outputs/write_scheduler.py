"""Pieces that arrive side by side, written one after the other while they come faster than they are written."""

from __future__ import annotations

import asyncio
from collections import deque

# Who has the right of way and writes nothing for so long leaves it to another.
PAUSE_S = 0.004
# Who waits goes on after this long all the same: no server may come to think that nobody reads.
PATIENCE_S = 0.5


class WriteScheduler:
    """The right of way among writers that are in each other's way.

    Written in turns, pieces that began together would all be whole late, and then all their gateways would think at
    once while nothing arrives. One after the other, the first is whole early, and another is asked for while the rest
    still come. It is no lock: who loses patience passes the others.
    """

    def __init__(self, *, pause_s: float = PAUSE_S, patience_s: float = PATIENCE_S) -> None:
        self._pause_s = pause_s
        self._patience_s = patience_s
        self._first: object | None = None
        self._entered = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self, who: object) -> None:
        """Wait until this one may write once more."""
        if self._first not in (None, who) and not await self._is_next():
            return
        self._first = who
        self._entered += 1
        asyncio.get_running_loop().call_later(self._pause_s, self._pass_on_after, self._entered)

    def leave(self, who: object) -> None:
        """Give the right of way to the one that has waited longest, if this one has it."""
        if self._first is who:
            self._pass_on()

    async def _is_next(self) -> bool:
        """Wait; tell whether it is our turn, or only our patience that has ended."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(ready)
        try:
            async with asyncio.timeout(self._patience_s):
                await ready
        except TimeoutError:
            return False
        except asyncio.CancelledError:
            if ready.done() and not ready.cancelled():
                self._pass_on()
            raise
        finally:
            if ready in self._waiting:
                self._waiting.remove(ready)
        return True

    def _pass_on_after(self, entered: int) -> None:
        if entered == self._entered:
            self._pass_on()

    def _pass_on(self) -> None:
        self._first = None
        while self._waiting:
            ready = self._waiting.popleft()
            if not ready.done():
                ready.set_result(None)
                return
