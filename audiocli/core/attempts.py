"""Run an operation over its routes, with retry, fallback and one ledger entry for each attempt.

`retry_policy.decide_retry` chooses between retry, fallback and stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ..costs import resolve_cost, sum_costs
from ..errors import (
    AccessError,
    AttemptError,
    AudiocliError,
    ExitCode,
    MoneyError,
    OutputClosed,
    Retryability,
    RoutesExhausted,
    UsageError,
)
from ..gateways.error_responses import redact_key
from ..types.ledger import CostSource, Estimate, Outcome, Reservation, Settlement, Usage
from ..types.results import RunResult, ServedModel
from ..types.routes import Route, SkippedRoute
from .ledger_writer import reserve, settle
from .retry_policy import GiveUp, Retry, RetryPolicy, decide_retry
from .run_context import RunContext

# Replaces a permit that was returned to the limiter.
RELEASED = object()

T = TypeVar("T")


@dataclass(slots=True)
class AttemptRecord:
    """What is known about one attempt, for its ledger entry.

    Fields are set as soon as they are known, so a failed attempt has some of them.
    `first_byte_s` is a reading of `RunContext.now_s`; `audio_s` is the length of the audio that was sent or received.
    """

    status: int | None = None
    request_id: str | None = None
    generation_id: str | None = None
    received_bytes: int = 0
    audio_s: float | None = None
    usage: Usage = field(default_factory=Usage)
    served_model: ServedModel = field(default_factory=ServedModel)
    first_byte_s: float | None = None
    headers: Mapping[str, str] | None = None
    entry_id: int | None = None
    # The entry stays open because a background job settles it later.
    is_deferred: bool = False


class RouteRunner(Generic[T]):
    """Send one operation over the first route that can serve it.

    Args:
        is_free: Whether requests over a route cost nothing. Free requests get no ledger entry.
        build_reservation: Build the ledger reservation of an attempt.
        estimate: Estimate the cost of a request. The record is None before the request is sent.
        send: Send one request over a route, fill in the record, and return the result.
        prepare: Prepare a route before anything is reserved or sent. May raise UsageError.
        can_restart: Whether the output can still start over.
        restart: Discard the output of the failed attempt.
        downgrade: After an error, return the route without the refused feature, or None.
    """

    def __init__(
        self,
        ctx: RunContext,
        *,
        retry_policy: RetryPolicy,
        is_free: Callable[[Route], bool],
        build_reservation: Callable[[Route], Reservation],
        estimate: Callable[[Route, AttemptRecord | None], Estimate],
        send: Callable[[Route, AttemptRecord], Awaitable[T]],
        prepare: Callable[[Route], Awaitable[None]] | None = None,
        can_restart: Callable[[], bool] = lambda: True,
        restart: Callable[[], Awaitable[None]] | None = None,
        downgrade: Callable[[Route, AttemptError], Awaitable[Route | None]] | None = None,
    ) -> None:
        self._ctx = ctx
        self._retry_policy = retry_policy
        self._is_free = is_free
        self._build_reservation = build_reservation
        self._estimate = estimate
        self._send = send
        self._prepare = prepare
        self._can_restart = can_restart
        self._restart = restart
        self._downgrade = downgrade
        self.started_s = ctx.now_s()
        self._waited_s = 0.0
        self._attempts = 0
        self._costs: list[tuple[int | None, CostSource]] = []
        self._generation_ids: list[str] = []
        self._failed: list[tuple[Route, AudiocliError]] = []

    async def run(
        self, routes: Sequence[Route], skipped: Sequence[tuple[Route, AudiocliError]] = ()
    ) -> tuple[T, RunResult]:
        """Try the routes in order.

        `skipped` has the routes that were excluded earlier, each with the reason.

        Raises:
            AudiocliError: The only route failed.
            RoutesExhausted: Every route failed; `routes` has a reason for each.
        """
        for index, route in enumerate(routes):
            failures_by_kind: dict[Retryability, int] = {}
            try:
                if self._prepare is not None:
                    await self._prepare(route)
            except UsageError as error:
                self._failed.append((route, error))
                continue
            while True:
                try:
                    return await self._attempt_with_permit(route, skipped)
                except (UsageError, AccessError) as error:
                    # The key, address or voice of this route is unusable. Nothing was sent.
                    if not self._can_restart():
                        raise
                    self._failed.append((route, error))
                    self._report_fallback(routes[index + 1 :], route, error)
                    break
                except AttemptError as error:
                    if (downgraded := await self._downgrade_route(route, error)) is not None:
                        route = downgraded
                        await self._restart_output()
                        continue
                    failures_by_kind[error.retryability] = failures_by_kind.get(error.retryability, 0) + 1
                    decision = decide_retry(
                        error,
                        same_kind_failures=failures_by_kind[error.retryability],
                        waited_s=self._waited_s,
                        is_last=index == len(routes) - 1,
                        can_restart=self._can_restart(),
                        policy=self._retry_policy,
                        random=self._ctx.random,
                    )
                    self._ctx.debug(
                        f"{route.ref}: {error.message}: {decision if isinstance(decision, Retry) else decision.value}"
                    )
                    if isinstance(decision, Retry):
                        await self._wait(route, error, decision.wait_s)
                        continue
                    self._failed.append((route, error))
                    if decision is GiveUp.STOP:
                        raise build_exhausted_error(skipped, self._failed) from error
                    self._report_fallback(routes[index + 1 :], route, error)
                    await self._restart_output()
                    break
        raise build_exhausted_error(skipped, self._failed)

    async def _downgrade_route(self, route: Route, error: AttemptError) -> Route | None:
        """Return the route without the refused feature; None if there is none or the output cannot start over."""
        if self._downgrade is None or not self._can_restart():
            return None
        return await self._downgrade(route, error)

    async def _attempt_with_permit(
        self, route: Route, skipped: Sequence[tuple[Route, AudiocliError]]
    ) -> tuple[T, RunResult]:
        """Make one attempt once the limiter grants a permit.

        The entry is reserved after the permit is granted, so a cancelled wait leaves no entry. The permit is released
        with the response, so the next request can start while this entry is settled.
        """
        limiter, record = self._ctx.limiter, AttemptRecord()
        if limiter is None:
            return await self._attempt(route, skipped, record)
        permit: Any = await limiter.acquire(route)

        def release(failure: BaseException | None) -> None:
            nonlocal permit
            if permit is not RELEASED:
                limiter.release(route, permit, record.headers, failure)
                permit = RELEASED

        try:
            return await self._attempt(route, skipped, record, release)
        except BaseException as error:
            release(error)
            raise

    async def _send_and_release(
        self, route: Route, record: AttemptRecord, release: Callable[[BaseException | None], None]
    ) -> T:
        failure = None
        try:
            return await self._send(route, record)
        except BaseException as error:
            failure = error
            raise
        finally:
            release(failure)

    async def _attempt(
        self,
        route: Route,
        skipped: Sequence[tuple[Route, AudiocliError]],
        record: AttemptRecord,
        release: Callable[[BaseException | None], None] = lambda _: None,
    ) -> tuple[T, RunResult]:
        ctx = self._ctx
        # A ledger that cannot be written raises here, before anything is sent.
        estimate = self._estimate(route, None)
        reservation = self._build_reservation(route)._replace(
            estimate_nanousd=estimate.nanousd, max_nanousd=estimate.max_nanousd, run_id=ctx.run_id
        )
        limits = () if ctx.allow_unpriced and estimate.max_nanousd is None else ctx.limits
        entry_id = None if self._is_free(route) else await reserve(ctx, reservation, limits)
        self._attempts += 1
        record.entry_id = entry_id
        try:
            result = await self._send_and_release(route, record, release)
        except (asyncio.CancelledError, OutputClosed, KeyboardInterrupt) as error:
            await self._settle(route, entry_id, record, Outcome.CANCELLED, error)
            raise
        except AttemptError as error:
            redact_key(error, route.key)
            record.status = error.status or record.status
            record.request_id = error.request_id or record.request_id
            await self._settle(route, entry_id, record, error.outcome, error)
            raise
        except AudiocliError as error:
            # A local failure, for example a full disk. With a status, the gateway has answered and may charge.
            await self._settle(
                route, entry_id, record, Outcome.UNSENT if record.status is None else Outcome.CANCELLED, error
            )
            raise
        except BaseException as error:
            await self._settle(route, entry_id, record, Outcome.UNKNOWN, error)
            raise
        await self._settle(route, entry_id, record, Outcome.OK, None, self._estimate_cost(route, record))
        cost_nanousd, cost_source = sum_costs(self._costs)
        first_byte_s = None if record.first_byte_s is None else record.first_byte_s - self.started_s
        return result, RunResult(
            route=route,
            model=(record.served_model.is_substituted and record.served_model.model) or route.model,
            request_count=1,
            attempt_count=self._attempts,
            cost_nanousd=cost_nanousd,
            cost_source=cost_source,
            generation_ids=tuple(self._generation_ids),
            first_byte_s=first_byte_s,
            elapsed_s=ctx.now_s() - self.started_s,
            skipped=tuple(_to_skipped_route(route, error) for route, error in (*skipped, *self._failed)),
        )

    def _estimate_cost(self, route: Route, record: AttemptRecord) -> Estimate:
        """Estimate the cost of a finished attempt. For a substituted model only a reported cost is certain."""
        if not record.served_model.is_substituted:
            return self._estimate(route, record)
        if record.served_model.model is None:
            return Estimate()
        substituted_route = route._replace(model=record.served_model.model, price=None)
        return self._estimate(substituted_route, record)._replace(is_exact=False)

    async def _settle(
        self,
        route: Route,
        entry_id: int | None,
        record: AttemptRecord,
        outcome: Outcome,
        error: BaseException | None,
        estimate: Estimate | None = None,
    ) -> None:
        # A gateway may echo the key in an ID. The ledger must not store it.
        record.request_id, record.generation_id = (
            None if route.key and value and route.key in value else value
            for value in (record.request_id, record.generation_id)
        )
        if record.generation_id:
            self._generation_ids.append(record.generation_id)
        if entry_id is None:
            return
        if record.is_deferred:
            self._costs.append((None, CostSource.UNKNOWN))
            return
        if record.usage.invalid_cost is not None and record.usage.cost_nanousd is None:
            # An estimate here would be mistaken for the reported cost, so the cost is recorded as unknown.
            estimate = None
            self._ctx.info(
                f"warning: {route.ref} reported an invalid cost ({record.usage.invalid_cost}); recording it as unknown"
            )
        cost_nanousd, source = resolve_cost(outcome, record.usage.cost_nanousd, estimate)
        self._costs.append((cost_nanousd, source))
        settlement = Settlement(
            outcome=outcome,
            model=record.served_model.model if record.served_model.is_substituted else None,
            cost_nanousd=cost_nanousd,
            cost_source=source,
            status=record.status,
            error=None if error is None else _describe_error(error),
            request_id=record.request_id,
            generation_id=record.generation_id,
            audio_s=record.usage.audio_s if record.usage.audio_s is not None else record.audio_s,
            input_tokens=record.usage.input_tokens,
            output_tokens=record.usage.output_tokens,
            received_bytes=record.received_bytes,
            upstream_nanousd=record.usage.upstream_nanousd,
            input_audio_tokens=record.usage.input_audio_tokens,
            output_audio_tokens=record.usage.output_audio_tokens,
        )
        try:
            await settle(self._ctx, entry_id, settlement)
        except MoneyError as ledger_error:
            # The result is paid for, so it is still returned. The entry stays reserved and later counts as unknown.
            self._ctx.info(f"warning: {ledger_error.message}; entry {entry_id} was not settled")

    async def _wait(self, route: Route, error: AttemptError, wait_s: float) -> None:
        self._waited_s += wait_s
        if wait_s >= 1:
            self._ctx.info(f"{route.ref}: {error.message}; retrying in {wait_s:.0f} s")
        await self._ctx.sleep(wait_s)
        await self._restart_output()

    def _report_fallback(self, remaining: Sequence[Route], route: Route, error: AudiocliError) -> None:
        if remaining:
            self._ctx.info(f"{route.ref}: {error.message}; trying {remaining[0].ref}")

    async def _restart_output(self) -> None:
        if self._restart is not None:
            await self._restart()


def merge_usage(headers: Usage, body: Usage) -> Usage:
    """Combine the usage from headers and body. The cost that the body reports takes precedence."""
    return body._replace(
        cost_nanousd=headers.cost_nanousd if body.cost_nanousd is None else body.cost_nanousd,
        upstream_nanousd=headers.upstream_nanousd if body.upstream_nanousd is None else body.upstream_nanousd,
        invalid_cost=None if body.cost_nanousd is not None else body.invalid_cost or headers.invalid_cost,
    )


def build_exhausted_error(
    skipped: Sequence[tuple[Route, AudiocliError]], failed: Sequence[tuple[Route, AudiocliError]]
) -> AudiocliError:
    """Build the error of an operation that no route served: the only error, or RoutesExhausted with all of them."""
    failures = [*skipped, *failed]
    if len(failures) == 1:
        route, error = failures[0]
        if not error.message.startswith(route.ref):
            error.message = f"{route.ref}: {error.message}"
        return error
    decisive = failed or failures
    codes = {error.exit_code for _, error in decisive}
    request_ids = [error.request_id for _, error in failures if isinstance(error, AttemptError) and error.request_id]
    return RoutesExhausted(
        "every route failed: " + "; ".join(f"{route.ref}: {error.message}" for route, error in failures),
        exit_code=codes.pop() if len(codes) == 1 else ExitCode.GATEWAY,
        routes=[_to_skipped_route(route, error) for route, error in failures],
        hint=next((error.hint for _, error in reversed(decisive) if error.hint), None),
        request_ids=request_ids,
        may_be_billed=any(
            isinstance(error, AttemptError) and error.retryability is Retryability.IF_USER_ALLOWS for _, error in failed
        ),
    )


def _to_skipped_route(route: Route, error: AudiocliError) -> SkippedRoute:
    return SkippedRoute(route.gateway, route.model, error.message)


def _describe_error(error: BaseException) -> str:
    if isinstance(error, AudiocliError):
        return error.message
    interrupted = isinstance(error, asyncio.CancelledError | KeyboardInterrupt)
    return "interrupted" if interrupted else type(error).__name__
