"""Many recordings, so many at a time: one that fails stops nobody, what would fail them all stops everything."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..errors import AttemptError, AudiocliError, ExitCode, GatewayError, RoutesExhausted
from ..money.costs import total
from ..vocabulary import CostSource
from .batch import Order, Result, Site, Status, do
from .long_recording import Progress
from .outputs import Task
from .pacing import LONGEST_S
from .tools import Tools

# How often is looked whether another process has finished what it has claimed.
AGAIN_S = 0.25
# A ledger that cannot be written is among them.
HOPELESS = frozenset({ExitCode.MONEY, ExitCode.ACCESS})


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
    long: list[Progress] = field(default_factory=list)

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


class Crew:
    """Runs tasks, `jobs` at a time, and hands each result to `tell` as it comes.

    `replan` is asked for another order when no route served: what was learnt on the way may call for one. `stopped` is
    the error that stopped everything; files that were under way then were finished.
    """

    def __init__(
        self,
        order: Order,
        site: Site,
        tools: Tools,
        *,
        jobs: int,
        tell: Callable[[Result], None],
        replan: Callable[[], Order | None] = lambda: None,
        fails_fast: bool = False,
    ) -> None:
        self._order = order
        self._site = site
        self._tools = tools
        self._jobs = jobs
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
        workers = [asyncio.create_task(self._work(tasks)) for _ in range(self._jobs)]
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
            result = await self._one(task)
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

    async def _do(self, task: Task, order: Order) -> Result:
        progress = Progress(None)
        self.totals.long.append(progress)
        try:
            return await do(task, order, self._site, self._tools, progress=progress)
        finally:
            self.totals.long.remove(progress)


def _is_hopeless(error: AudiocliError) -> bool:
    """Tell whether no other file could escape this: no money, a refused key, a gateway that is closed for hours."""
    is_closed = isinstance(error, GatewayError) and (error.wait_s or 0.0) > LONGEST_S
    return is_closed or error.exit_code in HOPELESS
