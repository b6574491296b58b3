"""How many requests a gateway gets at once: one limit for each, shared by files and their pieces.

The limit grows while answers come as quickly as before, and is halved when the gateway says that it is too much. Then
nothing is sent until the gateway's own wait is over, and as many as it took before; one more is tried alone, so that a
gateway that allows so many a minute refuses at most one in each minute. Nothing here looks at a clock in turns: who
waits is woken.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .. import gateways
from ..errors import Retryability, AttemptError, GatewayError
from ..gateways.base import as_number
from ..gateways.error_responses import reset_s
from ..types.values import Route
from .run_context import RunContext

MOST = 64
USUAL = 8
# Answers may take this many times as long as the quickest round of them did, before the limit stops to grow.
HOLDS = 2.0
HOLDS_S = 0.1
# Refused without a wait: this long, doubled every time in a row.
BACKOFF_S = 0.5
BACKOFF_CAP_S = 30.0
# Clocks differ a little: a window of the gateway's may end after its own word.
MARGIN_S = 0.05
# A gateway that wants more than this is let to refuse, so that what it says is told.
LONGEST_S = 3600.0
# How much more than what was allowed once is tried after a success, and when it is forgotten.
SHARE = 8
FORGOTTEN_AFTER = 5

LEFT = "x-ratelimit-remaining"
RESET = "x-ratelimit-reset"


class Permit:
    """The right to send one request."""

    __slots__ = ("is_probe", "started_s", "was_full", "window")

    def __init__(self, window: int, started_s: float, *, is_probe: bool, was_full: bool) -> None:
        self.window = window
        self.started_s = started_s
        self.is_probe = is_probe
        self.was_full = was_full


class AdaptiveLimiter:
    """The limit of one gateway. `limit` is how many requests may be under way."""

    def __init__(
        self,
        *,
        start: int,
        most: int,
        sleep: Callable[[float], Awaitable[None]],
        now_s: Callable[[], float],
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.limit = float(start)
        self.in_flight = 0
        self.is_shut = False
        self._most = max(start, most)
        self._sleep = sleep
        self._now_s = now_s
        self._log = log
        self._waiting: deque[asyncio.Future[Permit]] = deque()
        self._until_s = 0.0
        self._waker: asyncio.Task[None] | None = None
        # Since the gate was opened last: what was sent, and what of it was refused.
        self._window = 0
        self._sent = 0
        self._refused = 0
        self._in_a_row = 0
        # How many a window takes, once the gateway has refused; what is left of it, by the gateway's own word.
        self._allowance: int | None = None
        self._probing = False
        self._probes = 0
        self._left: int | None = None
        # Answers of this round, and the quickest round.
        self._round: list[float] = []
        self._was_full = False
        self._best_s: float | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def enter(self, *, is_first: bool = False) -> Permit:
        """Wait for a turn; who was refused before is first."""
        if not self._waiting and self._is_free():
            return self._grant()
        while True:
            ready: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
            (self._waiting.appendleft if is_first else self._waiting.append)(ready)
            try:
                turn = await ready
            except asyncio.CancelledError:
                if ready.done() and not ready.cancelled():
                    self._take_back(ready.result())
                else:
                    self._waiting.remove(ready)
                self._admit()
                raise
            if not self.is_shut:
                return turn
            # The gate was shut between the turn and us.
            self._take_back(turn)
            is_first = True

    def leave(
        self, turn: Permit, *, refusal: GatewayError | None, is_served: bool, headers: Mapping[str, str] | None = None
    ) -> None:
        """End a turn. `refusal`: the gateway says that it was too much; its headers may tell what is left."""
        self._end(turn)
        if refusal is not None:
            self._heed(refusal, turn)
        elif is_served:
            self._in_a_row = 0
            self._grow(turn)
        is_news = turn.window == self._window and not self._refused
        if turn.is_probe and is_news and refusal is None and self._allowance is not None:
            self._probes += 1
            more = max(1, self._allowance // SHARE) * 2 ** (self._probes - 1)
            self._allowance = None if self._probes > FORGOTTEN_AFTER else self._sent + more
        if headers:
            self._read(headers)
        self._admit()

    def close(self) -> None:
        if self._waker is not None:
            self._waker.cancel()

    # --- who goes ----------------------------------------------------------------------------------------------------

    def _is_free(self) -> bool:
        if self.is_shut or self.in_flight >= int(self.limit):
            self._was_full = self._was_full or not self.is_shut
            return False
        if self._left is not None and self._left <= 0:
            return False
        return self._allowance is None or self._sent < self._allowance or not self._probing

    def _grant(self) -> Permit:
        is_probe = self._allowance is not None and self._sent >= self._allowance
        self._probing = self._probing or is_probe
        self.in_flight += 1
        self._sent += 1
        if self._left is not None:
            self._left -= 1
        was_full = self.in_flight >= int(self.limit)
        return Permit(self._window, self._now_s(), is_probe=is_probe, was_full=was_full)

    def _end(self, turn: Permit) -> None:
        self.in_flight -= 1
        if turn.is_probe and turn.window == self._window:
            self._probing = False
        if not self.in_flight:
            self._left = None

    def _take_back(self, turn: Permit) -> None:
        """Undo a turn that nothing was sent in."""
        self._end(turn)
        if turn.window == self._window:
            self._sent -= 1

    def _admit(self) -> None:
        while self._waiting and self._is_free():
            ready = self._waiting.popleft()
            if not ready.done():
                ready.set_result(self._grant())

    # --- what is learnt ----------------------------------------------------------------------------------------------

    def _grow(self, turn: Permit) -> None:
        self._was_full = self._was_full or turn.was_full
        self._round.append(self._now_s() - turn.started_s)
        if len(self._round) < int(self.limit):
            return
        mean_s = sum(self._round) / len(self._round)
        self._best_s = mean_s if self._best_s is None else min(mean_s, self._best_s * 1.02)
        if self._was_full and mean_s <= self._best_s * HOLDS + HOLDS_S:
            step = 1.0 if self._allowance is not None else max(1.0, self.limit // 2)
            self.limit = min(float(self._most), self.limit + step)
        self._round, self._was_full = [], False

    def _heed(self, refusal: GatewayError, turn: Permit) -> None:
        is_current = turn.window == self._window
        if is_current:
            if not self._refused:
                self.limit = max(1.0, self.limit / 2)
                self._round, self._was_full = [], False
                self._in_a_row += 1
                self._log(f"too much: {int(self.limit)} requests at once from now on")
            self._refused += 1
        if refusal.wait_s is not None:
            self._shut(refusal.wait_s)
        elif is_current:
            self._shut(min(BACKOFF_CAP_S, BACKOFF_S * 2 ** min(self._in_a_row - 1, 10)))
        if is_current and refusal.status == 429:
            # What is still under way counts as taken: refusals come first, answers take their time.
            self._allowance = max(1, self._sent - self._refused)
            self._probes = 0

    def _read(self, headers: Mapping[str, str]) -> None:
        """Learn from the headers of a reply what is left, of requests, seconds of audio or anything else."""
        for name, value in headers.items():
            if not name.startswith(LEFT):
                continue
            left = as_number(value)
            after_s = reset_s(headers.get(RESET + name.removeprefix(LEFT), ""), headers)
            if left is None or after_s is None:
                continue
            if left <= 0:
                self._shut(after_s)
            elif name in (LEFT, f"{LEFT}-requests"):
                # What is under way may be counted in it, or not yet; the last of them will tell.
                self._left = int(left) - self.in_flight if self.in_flight else None

    def _shut(self, wait_s: float) -> None:
        if wait_s > LONGEST_S:
            return
        self._until_s = max(self._until_s, self._now_s() + wait_s + MARGIN_S)
        self.is_shut = True
        if self._waker is None or self._waker.done():
            self._waker = asyncio.ensure_future(self._reopen())

    async def _reopen(self) -> None:
        while True:
            until_s = self._until_s
            # Slept once for each wait that was named, and believed: the clock is not asked again.
            await self._sleep(max(0.0, until_s - self._now_s()))
            if self._until_s <= until_s:
                break
        self.is_shut = False
        self._until_s = 0.0
        self._window += 1
        self._sent = self._refused = 0
        self._probing = False
        self._left = None
        self._admit()


class LimiterPool:
    """The paces of all gateways of one run."""

    def __init__(self, tools: RunContext, *, start: int = USUAL, most: int = MOST) -> None:
        self._tools = tools
        self._start = start
        self._most = most
        self._paces: dict[tuple[str, str], AdaptiveLimiter] = {}
        self._refused: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    @property
    def waiting(self) -> int:
        return sum(pace.waiting for pace in self._paces.values())

    @property
    def is_shut(self) -> bool:
        return any(pace.is_shut for pace in self._paces.values())

    async def enter(self, route: Route) -> Permit:
        task = asyncio.current_task()
        is_first = task in self._refused
        if task is not None:
            self._refused.discard(task)
        return await self._pace(route).enter(is_first=is_first)

    def leave(self, route: Route, turn: Permit, headers: Mapping[str, str] | None, error: BaseException | None) -> None:
        refusal = error if isinstance(error, GatewayError) and error.again is Retryability.AFTER_WAIT else None
        task = asyncio.current_task()
        if refusal is not None and task is not None:
            self._refused.add(task)
        is_served = error is None or (isinstance(error, AttemptError) and refusal is None)
        self._pace(route).leave(turn, refusal=refusal, is_served=is_served, headers=headers)

    def close(self) -> None:
        for pace in self._paces.values():
            pace.close()

    def _pace(self, route: Route) -> AdaptiveLimiter:
        key = route.gateway, route.base_url
        if key not in self._paces:
            import os

            # The local engines compute, so that more of them at once than cores are of no use.
            cores = os.cpu_count() or 1
            is_local = gateways.dialect(route.dialect).is_free
            self._paces[key] = AdaptiveLimiter(
                start=min(self._start, cores) if is_local else self._start,
                most=cores if is_local else self._most,
                sleep=self._tools.sleep,
                now_s=self._tools.now_s,
                log=lambda message: self._tools.debug(f"{route.gateway}: {message}"),
            )
        return self._paces[key]
