"""One limit for each gateway: it grows, it is halved, it waits as it is told, and it never spins."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.core.limiter import MOST, AdaptiveLimiter, Permit
from audiocli.errors import Retryability, GatewayError
from tests.virtual import run


def pace_of(start: int = 8, most: int = MOST) -> AdaptiveLimiter:
    return AdaptiveLimiter(start=start, most=most, sleep=asyncio.sleep, now_s=lambda: asyncio.get_running_loop().time())


def too_many(wait_s: float | None, status: int = 429) -> GatewayError:
    return GatewayError("x", again=Retryability.AFTER_WAIT, wait_s=wait_s, status=status)


class Server:
    """A gateway in virtual time. `allows` tells whether a request at this moment is taken, else how long to wait."""

    def __init__(self, allows: Callable[[float], float | None] = lambda _: None, latency_s: float = 0.3) -> None:
        self._allows = allows
        self.latency_s = latency_s
        self.in_flight = self.peak = 0
        self.taken: list[float] = []
        self.refused: list[float] = []

    async def answer(self) -> GatewayError | None:
        now_s = asyncio.get_running_loop().time()
        wait_s = self._allows(now_s)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            if wait_s is not None:
                self.refused.append(now_s)
                await asyncio.sleep(0.01)
                return too_many(wait_s)
            self.taken.append(now_s)
            await asyncio.sleep(self.latency_s)
            return None
        finally:
            self.in_flight -= 1


async def client(pace: AdaptiveLimiter, server: Server, count: int, workers: int) -> None:
    """Send so many requests; what is refused waits as it is told and comes again, first in line."""
    todo = deque(range(count))

    async def work() -> None:
        while todo:
            todo.pop()
            is_first = False
            while True:
                turn = await pace.enter(is_first=is_first)
                refusal = await server.answer()
                pace.leave(turn, refusal=refusal, is_served=refusal is None)
                if refusal is None:
                    break
                is_first = True
                await asyncio.sleep(refusal.wait_s or 0.5)

    await asyncio.gather(*(work() for _ in range(workers)))


def a_minute(most: int, length_s: float = 60.0) -> Callable[[float], float | None]:
    """Take so many requests in each minute of the clock."""
    seen: dict[int, int] = {}

    def allows(now_s: float) -> float | None:
        window = int(now_s // length_s)
        seen[window] = seen.get(window, 0) + 1
        if seen[window] > most:
            seen[window] -= 1
            return (window + 1) * length_s - now_s
        return None

    return allows


def test_it_begins_where_it_is_told_and_grows_while_answers_are_quick() -> None:
    async def main() -> tuple[AdaptiveLimiter, Server]:
        pace, server = pace_of(8), Server()
        await client(pace, server, 400, 100)
        return pace, server

    pace, server = run(main())

    assert server.peak == pace.limit == MOST
    assert pace.in_flight == 0


def test_it_does_not_grow_when_answers_take_longer() -> None:
    async def main() -> Server:
        pace, server = pace_of(8), Server()
        # A server that works on eight at a time.
        answer = server.answer

        async def crowded() -> GatewayError | None:
            server.latency_s = 0.3 * max(1.0, (server.in_flight + 1) / 8) ** 2
            return await answer()

        server.answer = crowded  # type: ignore[method-assign]
        await client(pace, server, 400, 100)
        return server

    assert run(main()).peak < 32


def test_it_does_not_grow_where_nobody_waits() -> None:
    async def main() -> AdaptiveLimiter:
        pace = pace_of(8)
        await client(pace, Server(), 100, 3)
        return pace

    assert run(main()).limit == 8


@pytest.mark.parametrize("workers", [8, 32])
@pytest.mark.parametrize("starts_at_s", [0.0, 41.0])
def test_a_gateway_that_allows_twenty_a_minute_refuses_one_a_minute_after_the_first(
    workers: int, starts_at_s: float
) -> None:
    async def main() -> Server:
        await asyncio.sleep(starts_at_s)
        server = Server(a_minute(20))
        await client(pace_of(8), server, 130, workers)
        return server

    server = run(main())

    minutes = [int(at_s // 60) for at_s in server.refused]
    first = int(starts_at_s // 60)
    assert len(server.taken) == 130
    assert max(server.taken) < 60 * (first + 8)
    assert all(minutes.count(minute) <= 1 for minute in set(minutes) if minute > first)
    assert minutes.count(first) <= workers


def test_a_gateway_that_is_too_busy_once_is_used_fully_again() -> None:
    async def main() -> tuple[float, Server]:
        calls = iter(range(10_000))
        server = Server(lambda _: 2.0 if next(calls) == 300 else None)
        pace = pace_of(32)
        await client(pace, server, 1000, 32)
        return asyncio.get_running_loop().time(), server

    elapsed_s, server = run(main())

    assert len(server.refused) == 1
    assert elapsed_s < 1000 / 32 * 0.3 * 1.5 + 4


def test_the_limit_is_halved_once_for_all_that_was_under_way() -> None:
    async def main() -> list[float]:
        pace = pace_of(16)
        turns = [await pace.enter() for _ in range(16)]
        limits = []
        for turn in turns[:5]:
            pace.leave(turn, refusal=too_many(1.0), is_served=False)
            limits.append(pace.limit)
        pace.close()
        return limits

    assert run(main()) == [8.0] * 5


def test_nothing_is_sent_before_the_wait_that_was_named_is_over() -> None:
    async def main() -> list[float]:
        pace, loop = pace_of(4), asyncio.get_running_loop()
        first = await pace.enter()
        pace.leave(first, refusal=too_many(7.0), is_served=False)
        times = []

        async def one() -> None:
            turn = await pace.enter()
            times.append(loop.time())
            pace.leave(turn, refusal=None, is_served=True)

        await asyncio.gather(one(), one())
        return times

    assert all(7.0 < at_s < 7.2 for at_s in run(main()))


def test_without_a_named_wait_the_gate_is_shut_longer_each_time() -> None:
    async def main() -> list[float]:
        pace, loop = pace_of(1), asyncio.get_running_loop()
        times = []
        for _ in range(5):
            turn = await pace.enter()
            times.append(loop.time())
            pace.leave(turn, refusal=too_many(None), is_served=False)
        pace.close()
        return [round(later - earlier, 1) for earlier, later in itertools.pairwise(times)]

    waits = run(main())

    assert waits == sorted(waits) and waits[0] >= 0.5 and waits[-1] >= 3


@pytest.mark.parametrize(
    ("headers", "opens_after_s"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "12s"}, 12.0),
        ({"x-ratelimit-remaining-audio-seconds": "0", "x-ratelimit-reset-audio-seconds": "1m30s"}, 90.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "5"}, 5.0),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "12s"}, 0.0),
        # Half a day: the gateway is let to say so itself.
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "12h0m0s"}, 0.0),
        ({"x-ratelimit-remaining-requests": "no", "x-ratelimit-reset-requests": "12s"}, 0.0),
    ],
)
def test_headers_that_tell_what_is_left_are_obeyed(headers: dict[str, str], opens_after_s: float) -> None:
    async def main() -> float:
        pace = pace_of(4)
        pace.leave(await pace.enter(), refusal=None, is_served=True, headers=headers)
        await pace.enter()
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(opens_after_s, abs=0.1)


def test_what_is_left_is_not_overdrawn() -> None:
    async def main() -> Server:
        left = 20
        server, pace = Server(), pace_of(8)

        async def one() -> None:
            nonlocal left
            turn = await pace.enter()
            if left <= 0:
                left = 20 if asyncio.get_running_loop().time() > 60 else 0
            refusal = too_many(30.0) if left <= 0 else None
            left -= 1
            if refusal is None:
                await server.answer()
            else:
                server.refused.append(0.0)
            headers = {"x-ratelimit-remaining": str(max(0, left)), "x-ratelimit-reset": "61"}
            pace.leave(turn, refusal=refusal, is_served=True, headers=headers)

        await asyncio.gather(*(one() for _ in range(40)))
        return server

    server = run(main())

    assert (len(server.taken), server.refused) == (40, [])


def test_who_stops_waiting_leaves_the_turn_to_others() -> None:
    async def main() -> AdaptiveLimiter:
        pace = pace_of(1)
        first = await pace.enter()
        waiting = [asyncio.create_task(pace.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        pace.leave(first, refusal=None, is_served=True)
        # The turn was given away already when this one is cancelled.
        waiting[1].cancel()
        await asyncio.gather(*waiting[:2], return_exceptions=True)
        pace.leave(await waiting[2], refusal=None, is_served=True)
        return pace

    pace = run(main())

    assert (pace.in_flight, pace.waiting) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(1, 16),
    workers=st.integers(1, 40),
    fates=st.lists(st.sampled_from(["ok", "429", "503", "named", "lost"]), max_size=120),
)
def test_whatever_happens_all_get_their_turn_and_the_limit_holds(start: int, workers: int, fates: list[str]) -> None:
    async def main() -> tuple[int, AdaptiveLimiter]:
        pace, left, done = pace_of(start), deque(fates), 0

        async def work() -> None:
            nonlocal done
            while left:
                fate = left.popleft()
                turn: Permit = await pace.enter()
                assert not pace.is_shut
                await asyncio.sleep(0.1)
                refusal = {"429": too_many(None), "503": too_many(None, 503), "named": too_many(3.0)}.get(fate)
                pace.leave(turn, refusal=refusal, is_served=fate == "ok")
                assert 1 <= pace.limit <= MOST
                done += 1

        await asyncio.gather(*(work() for _ in range(workers)))
        pace.close()
        return done, pace

    done, pace = run(main())

    assert done == len(fates)
    assert (pace.in_flight, pace.waiting) == (0, 0)
