"""Many recordings, so many at a time: one that fails stops nobody, what would fail them all stops everything."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ...costs import total
from ...errors import AttemptError, AudiocliError, ExitCode, GatewayError, RoutesExhausted
from ...types.values import CostSource, Route
from ..limiter import LONGEST_S
from ..progress import HearingProgress
from ..run_context import RunContext, Limiter
from .context import BatchConfig, BatchContext
from .item import Result, Status, process_item
from .output_paths import Task

# How often is looked whether another process has finished what it has claimed.
AGAIN_S = 0.25
# Beside those that are being sent, this share of them is got ready or written down: no gateway waits for our disk.
BESIDES = 4
# A ledger that cannot be written is among them.
HOPELESS = frozenset({ExitCode.MONEY, ExitCode.ACCESS})


class Dropped(Exception):
    """Work that was got ready and not sent, because everything has stopped meanwhile."""


@dataclass(slots=True)
class Totals:
    """What a batch has come to; `files` is how many there are in all."""

    files: int
    started_s: float
    counts: Counter[Status] = field(default_factory=Counter)
    audio_s: float = 0.0
    cost_nanousd: int = 0
    cost_source: CostSource = CostSource.COMPUTED
    requests: int = 0
    unknown_costs: int = 0
    partial: int = 0
    long: list[HearingProgress] = field(default_factory=list)

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    def add(self, result: Result) -> None:
        self.counts[result.status] += 1
        served = result.served
        if served is None:
            return
        self.partial += result.is_partial
        self.audio_s += result.duration_s or 0.0
        self.requests += served.attempts
        _, self.cost_source = total([(self.cost_nanousd, self.cost_source), (served.cost_nanousd, served.cost_source)])
        if served.cost_nanousd is None:
            self.unknown_costs += 1
        else:
            self.cost_nanousd += served.cost_nanousd


class WorkerPool:
    """Runs tasks, `jobs` being sent at a time, and hands each result to `tell` as it comes.

    `replan` is asked for another order when no route served: what was learnt on the way may call for one. `stopped` is
    the error that stopped everything; files that were under way then were finished.
    """

    def __init__(
        self,
        order: BatchConfig,
        site: BatchContext,
        tools: RunContext,
        *,
        jobs: int,
        tell: Callable[[Result], None],
        replan: Callable[[], BatchConfig | None] = lambda: None,
        fails_fast: bool = False,
    ) -> None:
        self._order = order
        self._site = site
        self._tools = tools
        # Where the first failure ends it all, nothing is begun beside what is under way.
        self._workers = jobs if fails_fast else jobs + -(-jobs // BESIDES)
        self._places = asyncio.Semaphore(jobs)
        self._tell = tell
        self._replan = replan
        self._fails_fast = fails_fast
        self._later: list[Task] = []
        self.totals = Totals(0, tools.now_s())
        self.stopped: AudiocliError | None = None

    async def run(self, tasks: Sequence[Task]) -> Totals:
        """Run them all. Raises: what is no failure of ours; then what was under way is cancelled."""
        self.totals.files = len(tasks)
        await self._all(iter(tasks))
        while self._later and self.stopped is None:
            # Another process, or another file with the same content, has it in hand.
            waiting, self._later = self._later, []
            await self._all(iter(waiting))
            if len(self._later) == len(waiting):
                await self._tools.sleep(AGAIN_S)
        return self.totals

    async def _all(self, tasks: Iterator[Task]) -> None:
        workers = [asyncio.create_task(self._work(tasks)) for _ in range(self._workers)]
        try:
            await asyncio.gather(*workers)
        except BaseException:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            raise

    async def _work(self, tasks: Iterator[Task]) -> None:
        for task in tasks:
            if self.stopped is not None:
                return
            try:
                result = await self._one(task)
            except Dropped:
                return
            if result.status is Status.ELSEWHERE:
                self._later.append(task)
                continue
            self.totals.add(result)
            self._tell(result)
            # What is unchanged is passed over without waiting for anything, and Ctrl-C must get a word in.
            await asyncio.sleep(0)

    async def _one(self, task: Task) -> Result:
        order = self._order
        try:
            try:
                return await self._do(task, order)
            except (AttemptError, RoutesExhausted):
                if self._order == order and (other := self._replan()) is not None:
                    self._order = other
                if self._order == order:
                    raise
                return await self._do(task, self._order)
        except AudiocliError as error:
            if self.stopped is None and (self._fails_fast or _is_hopeless(error)):
                self.stopped = error
            return Result(task, Status.FAILED, error=error)

    async def _do(self, task: Task, order: BatchConfig) -> Result:
        progress = HearingProgress(None)
        self.totals.long.append(progress)
        place = _Place(self.take, self._give_back, self._tools.turns)
        try:
            tools = self._tools._replace(turns=place)
            return await process_item(task, order, self._site, tools, progress=progress, held=place.held)
        finally:
            self.totals.long.remove(progress)

    async def take(self, *, has_begun: bool) -> None:
        """Wait for a place among those that are being sent; what has begun is finished. Raises: Dropped."""
        await self._places.acquire()
        if self.stopped is not None and not has_begun:
            self._places.release()
            raise Dropped

    def _give_back(self, error: BaseException | None) -> None:
        """Free a place; where nothing can come of the others either, they are told before they take it."""
        if isinstance(error, AudiocliError) and len(self._order.routes) == 1 and _is_hopeless(error):
            self.stopped = self.stopped or error
        self._places.release()


class _Place:
    """The place of one recording among those that are being sent: taken for its request, or held for all its pieces."""

    def __init__(
        self,
        take: Callable[..., Awaitable[None]],
        give_back: Callable[[BaseException | None], None],
        turns: Limiter | None,
    ) -> None:
        self._take = take
        self._give_back = give_back
        self._turns = turns
        self._is_held = False
        self._has_begun = False

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        await self._take(has_begun=self._has_begun)
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            self._give_back(None)

    async def enter(self, route: Route) -> Any:
        if not self._is_held:
            await self._take(has_begun=self._has_begun)
        try:
            turn = None if self._turns is None else await self._turns.enter(route)
        except BaseException as error:
            self._free(error)
            raise
        self._has_begun = True
        return turn

    def leave(self, route: Route, turn: Any, headers: Mapping[str, str] | None, error: BaseException | None) -> None:
        try:
            if self._turns is not None:
                self._turns.leave(route, turn, headers, error)
        finally:
            self._free(error)

    def _free(self, error: BaseException | None) -> None:
        if not self._is_held:
            self._give_back(error)


def _is_hopeless(error: AudiocliError) -> bool:
    """Tell whether no other file could escape this: no money, a refused key, a gateway that is closed for hours."""
    is_closed = isinstance(error, GatewayError) and (error.wait_s or 0.0) > LONGEST_S
    return is_closed or error.exit_code in HOPELESS
