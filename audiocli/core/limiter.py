"""Adaptive concurrency (AIMD): one limit for each gateway, shared by all files and chunks of a run.

The limit grows while response times stay stable. When the gateway refuses a request because of a rate limit or
overload, the limit is halved and the limiter pauses for Retry-After. Afterwards it sends as many requests as the
gateway accepted in the last window, and one more as a probe. A gateway with a limit per minute therefore refuses at
most one request in each minute. Waiters are woken; nothing polls.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .. import gateways
from ..errors import AttemptError, GatewayError, Retryability
from ..gateways.base import as_number
from ..gateways.error_responses import parse_reset_s
from ..types.routes import Route
from .run_context import RunContext

MAX_CONCURRENCY = 64
DEFAULT_CONCURRENCY = 8
# The limit grows while a round of responses takes at most this many times as long as the fastest round.
MAX_SLOWDOWN = 2.0
SLOWDOWN_TOLERANCE_S = 0.1
# Pause after a refusal without Retry-After, doubled with each refusal in a row.
BACKOFF_BASE_S = 0.5
MAX_BACKOFF_S = 30.0
# Clocks differ: a window of the gateway may end slightly later than it reported.
CLOCK_MARGIN_S = 0.05
# For a longer delay the limiter does not pause: the next request fails, and the user sees the gateway's message.
MAX_PAUSE_S = 3600.0
# After a successful probe the allowance grows by an eighth, doubled with each further probe. After `MAX_PROBES` probes
# there is no allowance any more.
PROBE_DIVISOR = 8
MAX_PROBES = 5

REMAINING_HEADER = "x-ratelimit-remaining"
RESET_HEADER = "x-ratelimit-reset"


class Permit:
    """The right to send one request.

    `window` is the number of the period between two pauses. `was_full`: this permit was the last one within the limit.
    `is_probe`: the request exceeds the known allowance of its window.
    """

    __slots__ = ("is_probe", "started_s", "was_full", "window")

    def __init__(self, window: int, started_s: float, *, is_probe: bool, was_full: bool) -> None:
        self.window = window
        self.started_s = started_s
        self.is_probe = is_probe
        self.was_full = was_full


class AdaptiveLimiter:
    """The concurrency limit of one gateway. `limit` is the maximum number of requests in flight."""

    def __init__(
        self,
        *,
        start: int,
        max_limit: int,
        sleep: Callable[[float], Awaitable[None]],
        now_s: Callable[[], float],
        debug: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.limit = float(start)
        self.in_flight = 0
        self.is_paused = False
        self._max_limit = max(start, max_limit)
        self._sleep = sleep
        self._now_s = now_s
        self._debug = debug
        self._waiting: deque[asyncio.Future[Permit]] = deque()
        self._paused_until_s = 0.0
        self._resume_task: asyncio.Task[None] | None = None
        # Requests sent and refused since the last pause.
        self._window = 0
        self._sent_count = 0
        self._refused_count = 0
        self._consecutive_refusals = 0
        # Requests that a window accepts, known after a refusal, and requests that remain according to the headers.
        self._allowance: int | None = None
        self._is_probing = False
        self._probe_count = 0
        self._remaining: int | None = None
        # Response times of this round, and the mean of the fastest round.
        self._round_times_s: list[float] = []
        self._round_was_full = False
        self._best_round_s: float | None = None

    @property
    def waiting_count(self) -> int:
        """Number of requests that wait for a permit."""
        return len(self._waiting)

    async def acquire(self, *, at_front: bool = False) -> Permit:
        """Wait for a permit. `at_front`: wait at the front of the queue, for a request that was refused before."""
        if not self._waiting and self._has_capacity():
            return self._grant()
        while True:
            waiter: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
            (self._waiting.appendleft if at_front else self._waiting.append)(waiter)
            try:
                permit = await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._undo(waiter.result())
                else:
                    self._waiting.remove(waiter)
                self._admit()
                raise
            if not self.is_paused:
                return permit
            # The limiter paused before this waiter resumed.
            self._undo(permit)
            at_front = True

    def release(
        self, permit: Permit, *, refusal: GatewayError | None, is_served: bool, headers: Mapping[str, str] | None = None
    ) -> None:
        """Return a permit.

        Args:
            permit: The permit of the finished request.
            refusal: The error, if the gateway refused the request because of a rate limit or overload.
            is_served: Whether the gateway processed the request.
            headers: Response headers, which may report the remaining requests.
        """
        self._finish(permit)
        if refusal is not None:
            self._handle_rate_limit(refusal, permit)
        elif is_served:
            self._consecutive_refusals = 0
            self._grow(permit)
        is_informative = permit.window == self._window and not self._refused_count
        if permit.is_probe and is_informative and refusal is None and self._allowance is not None:
            self._probe_count += 1
            extra = max(1, self._allowance // PROBE_DIVISOR) * 2 ** (self._probe_count - 1)
            self._allowance = None if self._probe_count > MAX_PROBES else self._sent_count + extra
        if headers:
            self._read_headers(headers)
        self._admit()

    def close(self) -> None:
        if self._resume_task is not None:
            self._resume_task.cancel()

    # --- admission ---------------------------------------------------------------------------------------------------

    def _has_capacity(self) -> bool:
        if self.is_paused or self.in_flight >= int(self.limit):
            self._round_was_full = self._round_was_full or not self.is_paused
            return False
        if self._remaining is not None and self._remaining <= 0:
            return False
        return self._allowance is None or self._sent_count < self._allowance or not self._is_probing

    def _grant(self) -> Permit:
        is_probe = self._allowance is not None and self._sent_count >= self._allowance
        self._is_probing = self._is_probing or is_probe
        self.in_flight += 1
        self._sent_count += 1
        if self._remaining is not None:
            self._remaining -= 1
        was_full = self.in_flight >= int(self.limit)
        return Permit(self._window, self._now_s(), is_probe=is_probe, was_full=was_full)

    def _finish(self, permit: Permit) -> None:
        self.in_flight -= 1
        if permit.is_probe and permit.window == self._window:
            self._is_probing = False
        if not self.in_flight:
            self._remaining = None

    def _undo(self, permit: Permit) -> None:
        """Return a permit that was not used."""
        self._finish(permit)
        if permit.window == self._window:
            self._sent_count -= 1

    def _admit(self) -> None:
        while self._waiting and self._has_capacity():
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(self._grant())

    # --- adaptation --------------------------------------------------------------------------------------------------

    def _grow(self, permit: Permit) -> None:
        self._round_was_full = self._round_was_full or permit.was_full
        self._round_times_s.append(self._now_s() - permit.started_s)
        if len(self._round_times_s) < int(self.limit):
            return
        mean_s = sum(self._round_times_s) / len(self._round_times_s)
        self._best_round_s = mean_s if self._best_round_s is None else min(mean_s, self._best_round_s * 1.02)
        if self._round_was_full and mean_s <= self._best_round_s * MAX_SLOWDOWN + SLOWDOWN_TOLERANCE_S:
            step = 1.0 if self._allowance is not None else max(1.0, self.limit // 2)
            self.limit = min(float(self._max_limit), self.limit + step)
        self._round_times_s, self._round_was_full = [], False

    def _handle_rate_limit(self, refusal: GatewayError, permit: Permit) -> None:
        is_current = permit.window == self._window
        if is_current:
            if not self._refused_count:
                self.limit = max(1.0, self.limit / 2)
                self._round_times_s, self._round_was_full = [], False
                self._consecutive_refusals += 1
                self._debug(f"rate limited; reducing concurrency to {int(self.limit)}")
            self._refused_count += 1
        if refusal.wait_s is not None:
            self._pause(refusal.wait_s)
        elif is_current:
            self._pause(min(MAX_BACKOFF_S, BACKOFF_BASE_S * 2 ** min(self._consecutive_refusals - 1, 10)))
        if is_current and refusal.status == 429:
            # Count requests in flight as accepted: refusals arrive before responses.
            self._allowance = max(1, self._sent_count - self._refused_count)
            self._probe_count = 0

    def _read_headers(self, headers: Mapping[str, str]) -> None:
        """Read rate limit headers. Any exhausted resource (requests, seconds of audio, tokens) pauses the limiter."""
        for name, value in headers.items():
            if not name.startswith(REMAINING_HEADER):
                continue
            remaining = as_number(value)
            after_s = parse_reset_s(headers.get(RESET_HEADER + name.removeprefix(REMAINING_HEADER), ""), headers)
            if remaining is None or after_s is None:
                continue
            if remaining <= 0:
                self._pause(after_s)
            elif name in (REMAINING_HEADER, f"{REMAINING_HEADER}-requests"):
                # The number may or may not include the requests in flight, so assume that it does not.
                self._remaining = int(remaining) - self.in_flight if self.in_flight else None

    def _pause(self, wait_s: float) -> None:
        if wait_s > MAX_PAUSE_S:
            return
        self._paused_until_s = max(self._paused_until_s, self._now_s() + wait_s + CLOCK_MARGIN_S)
        self.is_paused = True
        if self._resume_task is None or self._resume_task.done():
            self._resume_task = asyncio.ensure_future(self._resume())

    async def _resume(self) -> None:
        while True:
            paused_until_s = self._paused_until_s
            # Sleep once for each requested delay, without checking the clock again.
            await self._sleep(max(0.0, paused_until_s - self._now_s()))
            if self._paused_until_s <= paused_until_s:
                break
        self.is_paused = False
        self._paused_until_s = 0.0
        self._window += 1
        self._sent_count = self._refused_count = 0
        self._is_probing = False
        self._remaining = None
        self._admit()


class LimiterPool:
    """The limiters of all gateways of one run."""

    def __init__(self, ctx: RunContext, *, start: int = DEFAULT_CONCURRENCY, max_limit: int = MAX_CONCURRENCY) -> None:
        self._ctx = ctx
        self._start = start
        self._max_limit = max_limit
        self._limiters: dict[tuple[str, str], AdaptiveLimiter] = {}
        self._refused_tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    @property
    def waiting_count(self) -> int:
        """Number of requests that wait for a permit."""
        return sum(limiter.waiting_count for limiter in self._limiters.values())

    @property
    def is_paused(self) -> bool:
        return any(limiter.is_paused for limiter in self._limiters.values())

    async def acquire(self, route: Route) -> Permit:
        task = asyncio.current_task()
        at_front = task in self._refused_tasks
        if task is not None:
            self._refused_tasks.discard(task)
        return await self._get_limiter(route).acquire(at_front=at_front)

    def release(
        self, route: Route, permit: Permit, headers: Mapping[str, str] | None, error: BaseException | None
    ) -> None:
        refusal = error if isinstance(error, GatewayError) and error.retryability is Retryability.AFTER_DELAY else None
        task = asyncio.current_task()
        if refusal is not None and task is not None:
            self._refused_tasks.add(task)
        is_served = error is None or (isinstance(error, AttemptError) and refusal is None)
        self._get_limiter(route).release(permit, refusal=refusal, is_served=is_served, headers=headers)

    def close(self) -> None:
        for limiter in self._limiters.values():
            limiter.close()

    def _get_limiter(self, route: Route) -> AdaptiveLimiter:
        key = route.gateway, route.base_url
        if key not in self._limiters:
            # Local engines are CPU-bound, so concurrency above the number of cores does not help.
            cores = os.cpu_count() or 1
            is_local = gateways.load_dialect(route.dialect).is_free
            self._limiters[key] = AdaptiveLimiter(
                start=min(self._start, cores) if is_local else self._start,
                max_limit=cores if is_local else self._max_limit,
                sleep=self._ctx.sleep,
                now_s=self._ctx.now_s,
                debug=lambda message: self._ctx.debug(f"{route.gateway}: {message}"),
            )
        return self._limiters[key]
