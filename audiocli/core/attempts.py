"""Walk the routes until one serves: what is sent again, what goes to the next route, and one entry for every send.

What follows a failure is decided by `retries.after` alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ..costs import cost_of, total
from ..errors import (
    AccessError,
    Retryability,
    AttemptError,
    AudiocliError,
    ExitCode,
    MoneyError,
    OutputClosed,
    RoutesExhausted,
    UsageError,
)
from ..gateways.error_responses import hide_key
from ..types.values import (
    Reservation,
    CostSource,
    Estimate,
    Outcome,
    Route,
    RunResult,
    Service,
    Settlement,
    SkippedRoute,
    Usage,
)
from .ledger_writer import reserve, settle
from .retry_policy import GiveUp, RetryPolicy, Retry, decide
from .run_context import RunContext

# A turn that was given back.
LEFT = object()

T = TypeVar("T")


@dataclass(slots=True)
class AttemptRecord:
    """What an attempt learns on its way, for its entry: also true if the attempt fails in the end."""

    status: int | None = None
    request_id: str | None = None
    generation_id: str | None = None
    received_bytes: int = 0
    audio_s: float | None = None
    usage: Usage = field(default_factory=Usage)
    service: Service = field(default_factory=Service)
    first_byte_s: float | None = None
    headers: Mapping[str, str] | None = None
    entry_id: int | None = None
    # The entry is left open, for a job that goes on elsewhere.
    is_entrusted: bool = False


class RouteRunner(Generic[T]):
    """One piece of work on its way over the routes.

    `price` tells what a request will cost, and what it has cost when it is told what came back. `prepare` does what a
    route needs before anything is sent or reserved, and may refuse with a UsageError. `once` sends one request over one
    route, fills in what it learns, and gives the result or raises. `can_restart` says whether the output can still
    start over, `restart` makes it do so. `adapt` gives a route that asks for less where that is what was refused; it is
    taken at once.
    """

    def __init__(
        self,
        tools: RunContext,
        *,
        policy: RetryPolicy,
        is_free: Callable[[Route], bool],
        charge: Callable[[Route], Reservation],
        price: Callable[[Route, AttemptRecord | None], Estimate],
        once: Callable[[Route, AttemptRecord], Awaitable[T]],
        prepare: Callable[[Route], Awaitable[None]] | None = None,
        can_restart: Callable[[], bool] = lambda: True,
        restart: Callable[[], Awaitable[None]] | None = None,
        adapt: Callable[[Route, AttemptError], Awaitable[Route | None]] | None = None,
    ) -> None:
        self._tools = tools
        self._policy = policy
        self._is_free = is_free
        self._charge = charge
        self._price = price
        self._once = once
        self._prepare = prepare
        self._can_restart = can_restart
        self._restart = restart
        self._adapt = adapt
        self.started_s = tools.now_s()
        self._waited_s = 0.0
        self._attempts = 0
        self._costs: list[tuple[int | None, CostSource]] = []
        self._generation_ids: list[str] = []
        self._failed: list[tuple[Route, AudiocliError]] = []

    async def run(
        self, routes: Sequence[Route], skipped: Sequence[tuple[Route, AudiocliError]] = ()
    ) -> tuple[T, RunResult]:
        """Try the routes in order. Raises: the error of the only route, or RoutesExhausted."""
        for number, route in enumerate(routes):
            kinds: dict[Retryability, int] = {}
            try:
                if self._prepare is not None:
                    await self._prepare(route)
            except UsageError as error:
                self._failed.append((route, error))
                continue
            while True:
                try:
                    return await self._in_turn(route, skipped)
                except (UsageError, AccessError) as error:
                    # The route's own: its key, its address, its voice. Nothing was sent.
                    if not self._can_restart():
                        raise
                    self._failed.append((route, error))
                    self._tell_next(routes[number + 1 :], route, error)
                    break
                except AttemptError as error:
                    if (other := await self._wiser(route, error)) is not None:
                        route = other
                        await self._start_over()
                        continue
                    kinds[error.again] = kinds.get(error.again, 0) + 1
                    step = decide(
                        error,
                        same_kind=kinds[error.again],
                        waited_s=self._waited_s,
                        is_last=number == len(routes) - 1,
                        can_restart=self._can_restart(),
                        policy=self._policy,
                        random=self._tools.random,
                    )
                    self._tools.debug(
                        f"{route.ref}: {error.message}: {step if isinstance(step, Retry) else step.value}"
                    )
                    if isinstance(step, Retry):
                        await self._wait(route, error, step.wait_s)
                        continue
                    self._failed.append((route, error))
                    if step is GiveUp.STOP:
                        raise exhausted(skipped, self._failed) from error
                    self._tell_next(routes[number + 1 :], route, error)
                    await self._start_over()
                    break
        raise exhausted(skipped, self._failed)

    async def _wiser(self, route: Route, error: AttemptError) -> Route | None:
        """Give the route that asks for less, where that is what was refused and the output can still start over."""
        if self._adapt is None or not self._can_restart():
            return None
        return await self._adapt(route, error)

    async def _in_turn(self, route: Route, skipped: Sequence[tuple[Route, AudiocliError]]) -> tuple[T, RunResult]:
        """Make an attempt when it is its turn: its entry is written then and not before, for it may never come.

        The turn ends with the answer: another request may go while this one's entry is settled.
        """
        turns, told = self._tools.turns, AttemptRecord()
        if turns is None:
            return await self._attempt(route, skipped, told)
        turn: Any = await turns.enter(route)

        def leave(failure: BaseException | None) -> None:
            nonlocal turn
            if turn is not LEFT:
                turns.leave(route, turn, told.headers, failure)
                turn = LEFT

        try:
            return await self._attempt(route, skipped, told, leave)
        except BaseException as error:
            leave(error)
            raise

    async def _sent(self, route: Route, told: AttemptRecord, leave: Callable[[BaseException | None], None]) -> T:
        failure = None
        try:
            return await self._once(route, told)
        except BaseException as error:
            failure = error
            raise
        finally:
            leave(failure)

    async def _attempt(
        self,
        route: Route,
        skipped: Sequence[tuple[Route, AudiocliError]],
        told: AttemptRecord,
        leave: Callable[[BaseException | None], None] = lambda _: None,
    ) -> tuple[T, RunResult]:
        tools = self._tools
        # A ledger that cannot be written ends everything here, before a cent is spent.
        estimate = self._price(route, None)
        charge = self._charge(route)._replace(
            estimate_nanousd=estimate.nanousd, most_nanousd=estimate.most_nanousd, run=tools.run
        )
        caps = () if tools.allows_unpriced and estimate.most_nanousd is None else tools.limits
        entry_id = None if self._is_free(route) else await reserve(tools, charge, caps)
        self._attempts += 1
        told.entry_id = entry_id
        try:
            result = await self._sent(route, told, leave)
        except (asyncio.CancelledError, OutputClosed, KeyboardInterrupt) as error:
            await self._settle(route, entry_id, told, Outcome.CANCELLED, error)
            raise
        except AttemptError as error:
            hide_key(error, route.key)
            told.status = error.status or told.status
            told.request_id = error.request_id or told.request_id
            await self._settle(route, entry_id, told, error.outcome, error)
            raise
        except AudiocliError as error:
            # Our own trouble: with nothing received nothing was served, else the gateway did its part.
            await self._settle(
                route, entry_id, told, Outcome.UNSENT if told.status is None else Outcome.CANCELLED, error
            )
            raise
        except BaseException as error:
            await self._settle(route, entry_id, told, Outcome.UNKNOWN, error)
            raise
        await self._settle(route, entry_id, told, Outcome.OK, None, self._price_of_served(route, told))
        cost_nanousd, cost_source = total(self._costs)
        first_byte_s = None if told.first_byte_s is None else told.first_byte_s - self.started_s
        return result, RunResult(
            route=route,
            model=(told.service.swapped and told.service.model) or route.model,
            requests=1,
            attempts=self._attempts,
            cost_nanousd=cost_nanousd,
            cost_source=cost_source,
            generation_ids=tuple(self._generation_ids),
            first_byte_s=first_byte_s,
            elapsed_s=tools.now_s() - self.started_s,
            skipped=tuple(_skipped(route, error) for route, error in (*skipped, *self._failed)),
        )

    def _price_of_served(self, route: Route, told: AttemptRecord) -> Estimate:
        """Price what was served; of a model that another was put in the place of, only the bill is certain."""
        if not told.service.swapped:
            return self._price(route, told)
        if told.service.model is None:
            return Estimate()
        other = route._replace(model=told.service.model, price=None)
        return self._price(other, told)._replace(is_certain=False)

    async def _settle(
        self,
        route: Route,
        entry_id: int | None,
        told: AttemptRecord,
        outcome: Outcome,
        error: BaseException | None,
        estimate: Estimate | None = None,
    ) -> None:
        told.request_id, told.generation_id = (
            None if route.key and told_id and route.key in told_id else told_id
            for told_id in (told.request_id, told.generation_id)
        )
        if told.generation_id:
            self._generation_ids.append(told.generation_id)
        if entry_id is None:
            return
        if told.is_entrusted:
            self._costs.append((None, CostSource.UNKNOWN))
            return
        if told.usage.nonsense is not None and told.usage.cost_nanousd is None:
            # An estimate in the place of a bill that makes no sense would be trusted as one.
            estimate = None
            self._tools.info(
                f"warning: {route.ref} told a cost that cannot be one ({told.usage.nonsense}): it counts as unknown"
            )
        cost_nanousd, source = cost_of(outcome, told.usage.cost_nanousd, estimate)
        self._costs.append((cost_nanousd, source))
        settlement = Settlement(
            outcome=outcome,
            model=told.service.model if told.service.swapped else None,
            cost_nanousd=cost_nanousd,
            cost_source=source,
            status=told.status,
            error=None if error is None else _reason(error),
            request_id=told.request_id,
            generation_id=told.generation_id,
            audio_s=told.usage.audio_s if told.usage.audio_s is not None else told.audio_s,
            input_tokens=told.usage.input_tokens,
            output_tokens=told.usage.output_tokens,
            received_bytes=told.received_bytes,
            upstream_nanousd=told.usage.upstream_nanousd,
            input_audio_tokens=told.usage.input_audio_tokens,
            output_audio_tokens=told.usage.output_audio_tokens,
        )
        try:
            await settle(self._tools, entry_id, settlement)
        except MoneyError as trouble:
            # The work is paid for and must not be lost; the entry stays reserved and will count as unknown.
            self._tools.info(f"{trouble.message}: entry {entry_id} stays open")

    async def _wait(self, route: Route, error: AttemptError, wait_s: float) -> None:
        self._waited_s += wait_s
        if wait_s >= 1:
            self._tools.info(f"{route.ref}: {error.message}; waiting {wait_s:.0f} s")
        await self._tools.sleep(wait_s)
        await self._start_over()

    def _tell_next(self, rest: Sequence[Route], route: Route, error: AudiocliError) -> None:
        if rest:
            self._tools.info(f"{route.ref}: {error.message}; trying {rest[0].ref}")

    async def _start_over(self) -> None:
        if self._restart is not None:
            await self._restart()


def exhausted(
    skipped: Sequence[tuple[Route, AudiocliError]], failed: Sequence[tuple[Route, AudiocliError]]
) -> AudiocliError:
    """Make the error of work that no route did: the only one there was, or the list of all."""
    every = [*skipped, *failed]
    if len(every) == 1:
        route, error = every[0]
        if not error.message.startswith(route.ref):
            error.message = f"{route.ref}: {error.message}"
        return error
    decisive = failed or every
    codes = {error.exit_code for _, error in decisive}
    request_ids = [error.request_id for _, error in every if isinstance(error, AttemptError) and error.request_id]
    return RoutesExhausted(
        "no route served: " + "; ".join(f"{route.ref}: {error.message}" for route, error in every),
        exit_code=codes.pop() if len(codes) == 1 else ExitCode.GATEWAY,
        routes=[_skipped(route, error) for route, error in every],
        hint=next((error.hint for _, error in reversed(decisive) if error.hint), None),
        request_ids=request_ids,
        may_be_billed=any(isinstance(error, AttemptError) and error.again is Retryability.IF_ALLOWED for _, error in failed),
    )


def _skipped(route: Route, error: AudiocliError) -> SkippedRoute:
    return SkippedRoute(route.gateway, route.model, error.message)


def _reason(error: BaseException) -> str:
    if isinstance(error, AudiocliError):
        return error.message
    interrupted = isinstance(error, asyncio.CancelledError | KeyboardInterrupt)
    return "interrupted" if interrupted else type(error).__name__
