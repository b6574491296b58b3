"""Adaptive concurrency of one gateway (AIMD): growth, backoff, pauses and permits."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.core.limiter import MAX_CONCURRENCY, AdaptiveLimiter, Permit
from audiocli.errors import GatewayError, Retryability
from tests.virtual_clock import run_in_virtual_time


def build_limiter(start: int = 8, max_limit: int = MAX_CONCURRENCY) -> AdaptiveLimiter:
    return AdaptiveLimiter(
        start=start, max_limit=max_limit, sleep=asyncio.sleep, now_s=lambda: asyncio.get_running_loop().time()
    )


def build_refusal(wait_s: float | None, status: int = 429) -> GatewayError:
    return GatewayError("x", retryability=Retryability.AFTER_DELAY, wait_s=wait_s, status=status)


class Server:
    """A gateway in virtual time. `get_wait_s` returns None for a request that is accepted, else the seconds to wait."""

    def __init__(self, get_wait_s: Callable[[float], float | None] = lambda _: None, latency_s: float = 0.3) -> None:
        self._get_wait_s = get_wait_s
        self.latency_s = latency_s
        self.in_flight = self.peak = 0
        self.accepted_at_s: list[float] = []
        self.refused_at_s: list[float] = []

    async def respond(self) -> GatewayError | None:
        now_s = asyncio.get_running_loop().time()
        wait_s = self._get_wait_s(now_s)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            if wait_s is not None:
                self.refused_at_s.append(now_s)
                await asyncio.sleep(0.01)
                return build_refusal(wait_s)
            self.accepted_at_s.append(now_s)
            await asyncio.sleep(self.latency_s)
            return None
        finally:
            self.in_flight -= 1


async def send_requests(limiter: AdaptiveLimiter, server: Server, count: int, workers: int) -> None:
    """Send `count` requests. A refused request waits for its Retry-After and is sent again before the others."""
    pending = deque(range(count))

    async def run_worker() -> None:
        while pending:
            pending.pop()
            at_front = False
            while True:
                permit = await limiter.acquire(at_front=at_front)
                refusal = await server.respond()
                limiter.release(permit, refusal=refusal, is_served=refusal is None)
                if refusal is None:
                    break
                at_front = True
                await asyncio.sleep(refusal.wait_s or 0.5)

    await asyncio.gather(*(run_worker() for _ in range(workers)))


def allow_per_window(max_requests: int, window_s: float = 60.0) -> Callable[[float], float | None]:
    """Accept at most `max_requests` in each window of the clock."""
    request_counts: dict[int, int] = {}

    def get_wait_s(now_s: float) -> float | None:
        window = int(now_s // window_s)
        request_counts[window] = request_counts.get(window, 0) + 1
        if request_counts[window] > max_requests:
            request_counts[window] -= 1
            return (window + 1) * window_s - now_s
        return None

    return get_wait_s


def test_limiter_starts_at_its_start_value_and_grows_while_latency_is_low() -> None:
    async def main() -> tuple[AdaptiveLimiter, Server]:
        limiter, server = build_limiter(8), Server()
        await send_requests(limiter, server, 400, 100)
        return limiter, server

    limiter, server = run_in_virtual_time(main())

    assert server.peak == limiter.limit == MAX_CONCURRENCY
    assert limiter.in_flight == 0


def test_limiter_does_not_grow_when_latency_rises() -> None:
    async def main() -> Server:
        limiter, server = build_limiter(8), Server()
        # The server handles eight requests at a time.
        respond = server.respond

        async def respond_under_load() -> GatewayError | None:
            server.latency_s = 0.3 * max(1.0, (server.in_flight + 1) / 8) ** 2
            return await respond()

        server.respond = respond_under_load  # type: ignore[method-assign]
        await send_requests(limiter, server, 400, 100)
        return server

    assert run_in_virtual_time(main()).peak < 32


def test_limiter_does_not_grow_without_waiting_requests() -> None:
    async def main() -> AdaptiveLimiter:
        limiter = build_limiter(8)
        await send_requests(limiter, Server(), 100, 3)
        return limiter

    assert run_in_virtual_time(main()).limit == 8


@pytest.mark.parametrize("workers", [8, 32])
@pytest.mark.parametrize("starts_at_s", [0.0, 41.0])
def test_limit_of_twenty_per_minute_causes_one_refusal_per_minute(workers: int, starts_at_s: float) -> None:
    async def main() -> Server:
        await asyncio.sleep(starts_at_s)
        server = Server(allow_per_window(20))
        await send_requests(build_limiter(8), server, 130, workers)
        return server

    server = run_in_virtual_time(main())

    minutes = [int(at_s // 60) for at_s in server.refused_at_s]
    first = int(starts_at_s // 60)
    assert len(server.accepted_at_s) == 130
    assert max(server.accepted_at_s) < 60 * (first + 8)
    assert all(minutes.count(minute) <= 1 for minute in set(minutes) if minute > first)
    assert minutes.count(first) <= workers


def test_limiter_recovers_after_one_refusal() -> None:
    async def main() -> tuple[float, Server]:
        calls = iter(range(10_000))
        server = Server(lambda _: 2.0 if next(calls) == 300 else None)
        limiter = build_limiter(32)
        await send_requests(limiter, server, 1000, 32)
        return asyncio.get_running_loop().time(), server

    elapsed_s, server = run_in_virtual_time(main())

    assert len(server.refused_at_s) == 1
    assert elapsed_s < 1000 / 32 * 0.3 * 1.5 + 4


def test_limit_is_halved_once_for_concurrent_refusals() -> None:
    async def main() -> list[float]:
        limiter = build_limiter(16)
        permits = [await limiter.acquire() for _ in range(16)]
        limits = []
        for permit in permits[:5]:
            limiter.release(permit, refusal=build_refusal(1.0), is_served=False)
            limits.append(limiter.limit)
        limiter.close()
        return limits

    assert run_in_virtual_time(main()) == [8.0] * 5


def test_no_request_is_sent_before_retry_after_ends() -> None:
    async def main() -> list[float]:
        limiter, loop = build_limiter(4), asyncio.get_running_loop()
        first = await limiter.acquire()
        limiter.release(first, refusal=build_refusal(7.0), is_served=False)
        times = []

        async def send() -> None:
            permit = await limiter.acquire()
            times.append(loop.time())
            limiter.release(permit, refusal=None, is_served=True)

        await asyncio.gather(send(), send())
        return times

    assert all(7.0 < at_s < 7.2 for at_s in run_in_virtual_time(main()))


def test_backoff_without_retry_after_grows() -> None:
    async def main() -> list[float]:
        limiter, loop = build_limiter(1), asyncio.get_running_loop()
        times = []
        for _ in range(5):
            permit = await limiter.acquire()
            times.append(loop.time())
            limiter.release(permit, refusal=build_refusal(None), is_served=False)
        limiter.close()
        return [round(later - earlier, 1) for earlier, later in itertools.pairwise(times)]

    waits = run_in_virtual_time(main())

    assert waits == sorted(waits) and waits[0] >= 0.5 and waits[-1] >= 3


@pytest.mark.parametrize(
    ("headers", "resumes_after_s"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "12s"}, 12.0),
        ({"x-ratelimit-remaining-audio-seconds": "0", "x-ratelimit-reset-audio-seconds": "1m30s"}, 90.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "5"}, 5.0),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "12s"}, 0.0),
        # Half a day is too long to wait: the request is sent, and the gateway refuses it.
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "12h0m0s"}, 0.0),
        ({"x-ratelimit-remaining-requests": "no", "x-ratelimit-reset-requests": "12s"}, 0.0),
    ],
)
def test_rate_limit_headers_pause_the_limiter(headers: dict[str, str], resumes_after_s: float) -> None:
    async def main() -> float:
        limiter = build_limiter(4)
        limiter.release(await limiter.acquire(), refusal=None, is_served=True, headers=headers)
        await limiter.acquire()
        return asyncio.get_running_loop().time()

    assert run_in_virtual_time(main()) == pytest.approx(resumes_after_s, abs=0.1)


def test_remaining_requests_are_not_exceeded() -> None:
    async def main() -> Server:
        remaining = 20
        server, limiter = Server(), build_limiter(8)

        async def send() -> None:
            nonlocal remaining
            permit = await limiter.acquire()
            if remaining <= 0:
                remaining = 20 if asyncio.get_running_loop().time() > 60 else 0
            refusal = build_refusal(30.0) if remaining <= 0 else None
            remaining -= 1
            if refusal is None:
                await server.respond()
            else:
                server.refused_at_s.append(0.0)
            headers = {"x-ratelimit-remaining": str(max(0, remaining)), "x-ratelimit-reset": "61"}
            limiter.release(permit, refusal=refusal, is_served=True, headers=headers)

        await asyncio.gather(*(send() for _ in range(40)))
        return server

    server = run_in_virtual_time(main())

    assert (len(server.accepted_at_s), server.refused_at_s) == (40, [])


def test_cancelled_waiter_passes_its_permit_on() -> None:
    async def main() -> AdaptiveLimiter:
        limiter = build_limiter(1)
        first = await limiter.acquire()
        waiting = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        limiter.release(first, refusal=None, is_served=True)
        # This waiter has the permit already when it is cancelled.
        waiting[1].cancel()
        await asyncio.gather(*waiting[:2], return_exceptions=True)
        limiter.release(await waiting[2], refusal=None, is_served=True)
        return limiter

    limiter = run_in_virtual_time(main())

    assert (limiter.in_flight, limiter.waiting_count) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(1, 16),
    workers=st.integers(1, 40),
    results=st.lists(st.sampled_from(["ok", "429", "503", "named", "lost"]), max_size=120),
)
def test_every_request_gets_a_permit_and_the_limit_holds(start: int, workers: int, results: list[str]) -> None:
    async def main() -> tuple[int, AdaptiveLimiter]:
        limiter, pending, done = build_limiter(start), deque(results), 0

        async def run_worker() -> None:
            nonlocal done
            while pending:
                result = pending.popleft()
                permit: Permit = await limiter.acquire()
                assert not limiter.is_paused
                await asyncio.sleep(0.1)
                refusal = {
                    "429": build_refusal(None),
                    "503": build_refusal(None, 503),
                    "named": build_refusal(3.0),
                }.get(result)
                limiter.release(permit, refusal=refusal, is_served=result == "ok")
                assert 1 <= limiter.limit <= MAX_CONCURRENCY
                done += 1

        await asyncio.gather(*(run_worker() for _ in range(workers)))
        limiter.close()
        return done, limiter

    done, limiter = run_in_virtual_time(main())

    assert done == len(results)
    assert (limiter.in_flight, limiter.waiting_count) == (0, 0)
