"""Run an operation over its routes, with retry, fallback and one ledger entry for each attempt.

`retry_policy.decide_retry` chooses between retry, fallback and stop.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from .. import gateways
from ..costs import is_reported_too_low, resolve_cost, sum_costs
from ..errors import (
    AccessError,
    AttemptError,
    AudiocliError,
    ExitCode,
    InvalidResponse,
    MoneyError,
    OutputClosed,
    Retryability,
    RoutesExhausted,
    UsageError,
)
from ..gateways import capability_errors, error_responses
from ..pricing import format_prices
from ..redaction import hide_credentials, hide_secrets, remove_secret_id
from ..types.ledger import CostSource, Estimate, Outcome, Reservation, Settlement, Usage
from ..types.requests import HttpRequest
from ..types.results import RunResult, ServedModel
from ..types.routes import Route, SkippedRoute
from .capabilities import COMBINATION_TTL_S, REFUSAL_TTL_S, downgrade_route, save_refusals
from .catalog import add_model_hint, find_prices
from .ledger_writer import reserve, settle
from .response_body import read_error_body
from .retry_policy import GiveUp, Retry, decide_retry
from .run_context import Response, RunContext

# Statuses of a gateway that does not have an endpoint.
MISSING_ENDPOINT_STATUSES = (404, 405)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


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
    # Set before the transport gets the request.
    is_opened: bool = False
    # The entry stays open because a background job settles it later.
    is_deferred: bool = False


class Operation(Protocol[T_co]):
    """What is sent over a route, and how the response is received. `command` is recorded in the ledger."""

    command: str

    def build_reservation(self, route: Route) -> Reservation:
        """Build the ledger reservation of an attempt: the command, the route and the units that prices apply to."""
        ...

    def estimate(self, route: Route, record: AttemptRecord | None) -> Estimate:
        """Estimate the cost of a request. The record is None before the request is sent."""
        ...

    async def prepare(self, route: Route) -> None:
        """Prepare a route before anything is reserved or sent. Raises: UsageError: it cannot serve the request."""
        ...

    def build_request(self, route: Route) -> HttpRequest:
        """Build the request for a route that was prepared."""
        ...

    async def receive(self, route: Route, response: Response, record: AttemptRecord) -> T_co:
        """Receive a successful response, and complete the record. Raises: AttemptError: it is unusable."""
        ...

    async def downgrade(self, route: Route, error: AttemptError) -> Route | None:
        """Return the route without the feature that the error refuses, prepared; None if it refuses no feature."""
        return None

    def add_hint(self, route: Route, error: AttemptError) -> None:
        """Add to an error what the user can do about it, if only the operation knows."""
        return

    def can_restart(self) -> bool:
        """Return whether the output can still start over."""
        return True

    async def restart(self) -> None:
        """Discard the output of the failed attempt."""
        return


class FeatureOperation(Operation[T]):
    """Base of operations whose request has features that a model may refuse."""

    def __init__(self, ctx: RunContext) -> None:
        self.ctx = ctx
        self.route_warnings = RouteWarnings(ctx)

    @abstractmethod
    def get_features(self, route: Route) -> tuple[str, ...]:
        """Return the features of the request, as named in `capability_errors`."""

    def list_fields(self) -> tuple[str, ...]:
        """Return the fields of the request that are no features, as named in `capability_errors`."""
        return ()

    def check(self, route: Route) -> AudiocliError | None:
        """Return an error if the request needs a feature that the route has refused."""
        return None

    async def downgrade(self, route: Route, error: AttemptError) -> Route | None:
        """Return the route without the refused feature; None if there is none, or the request needs the feature.

        A feature that is refused together with another field is cached for an hour: for the other recordings of a
        batch, and for captions that are then timed by chunk. One that is refused together with diarization is not
        cached, because the model is the wrong one.
        """
        features = self.get_features(route)
        downgraded = downgrade_route(route, error, features)
        if downgraded is None:
            return None
        is_usable = self.check(downgraded) is None
        if is_usable:
            try:
                await self.prepare(downgraded)
            except UsageError:
                return None  # a model that refuses every format fails for another reason
        [refused] = downgraded.unsupported - route.unsupported
        fields = self.list_fields()
        if not capability_errors.refuses_diarization(error, fields, route.model):
            is_combined = capability_errors.is_refused_in_combination(error, refused, features, fields, route.model)
            ttl_s = COMBINATION_TTL_S if is_combined else REFUSAL_TTL_S
            save_refusals(route, downgraded, self.ctx.cache, ttl_s=ttl_s)
        if not is_usable:
            return None
        self.ctx.debug(f"{route.ref}: {error.message}; retrying without {refused}")
        return downgraded


async def run(
    operation: Operation[T],
    routes: Sequence[Route],
    ctx: RunContext,
    skipped: Sequence[tuple[Route, AudiocliError]] = (),
) -> tuple[T, RunResult]:
    """Send an operation over the first route that can serve it.

    Reserves a ledger entry before each attempt and settles it afterwards. `retry_policy.decide_retry` chooses between
    retry, fallback and stop; nothing is sent again once the output cannot restart.

    Args:
        operation: What is sent, and how the response is received.
        routes: Routes in the order in which to try them.
        ctx: Services and settings of the run.
        skipped: Routes that were excluded earlier, each with the reason.

    Raises:
        AudiocliError: The only route failed.
        RoutesExhausted: Every route failed; `routes` has a reason for each.
    """
    return await _Run(operation, ctx, skipped).run(routes)


class _Run(Generic[T]):
    """The state of one operation over all routes."""

    def __init__(
        self, operation: Operation[T], ctx: RunContext, skipped: Sequence[tuple[Route, AudiocliError]]
    ) -> None:
        self._operation = operation
        self._ctx = ctx
        self._skipped = skipped
        self._started_s = ctx.now_s()
        self._waited_s = 0.0
        self._attempts = 0
        self._costs: list[tuple[int | None, CostSource]] = []
        self._generation_ids: list[str] = []
        self._failed: list[tuple[Route, AudiocliError]] = []

    async def run(self, routes: Sequence[Route]) -> tuple[T, RunResult]:
        for index, route in enumerate(routes):
            failures_by_kind: dict[Retryability, int] = {}
            try:
                await self._operation.prepare(route)
            except UsageError as error:
                self._failed.append((route, error))
                continue
            while True:
                try:
                    return await self._attempt(route)
                except (UsageError, AccessError) as error:
                    # The key, address or voice of this route is unusable. Nothing was sent.
                    if not self._operation.can_restart():
                        raise
                    self._failed.append((route, error))
                    self._report_fallback(routes[index + 1 :], route, error)
                    break
                except AttemptError as error:
                    if (
                        self._operation.can_restart()
                        and (downgraded := await self._operation.downgrade(route, error)) is not None
                    ):
                        route = downgraded
                        await self._operation.restart()
                        continue
                    self._operation.add_hint(route, error)
                    failures_by_kind[error.retryability] = failures_by_kind.get(error.retryability, 0) + 1
                    decision = decide_retry(
                        error,
                        same_kind_failures=failures_by_kind[error.retryability],
                        waited_s=self._waited_s,
                        is_last=index == len(routes) - 1,
                        can_restart=self._operation.can_restart(),
                        policy=self._ctx.retry_policy,
                        random=self._ctx.random,
                    )
                    self._ctx.debug(
                        f"{route.ref}: {error.message}: {decision if isinstance(decision, Retry) else decision.value}"
                    )
                    if isinstance(decision, Retry):
                        await self._wait(route, error, decision.wait_s)
                        continue
                    if (failure_count := sum(failures_by_kind.values())) > 1:
                        error.message += f" (after {failure_count} attempts)"
                    self._failed.append((route, error))
                    if decision is GiveUp.STOP:
                        raise build_exhausted_error(self._skipped, self._failed) from error
                    self._report_fallback(routes[index + 1 :], route, error)
                    await self._operation.restart()
                    break
        raise build_exhausted_error(self._skipped, self._failed)

    async def _attempt(self, route: Route) -> tuple[T, RunResult]:
        """Make one attempt once the limiter grants a permit.

        The entry is reserved after the permit is granted, so a cancelled wait leaves no entry. The permit is released
        with the response, so the next request can start while this entry is settled.
        """
        record = AttemptRecord()
        try:
            async with self._hold_permit(route, record):
                await self._reserve(route, record)
                self._attempts += 1
                result = await self._send(route, record)
        except BaseException as error:
            if isinstance(error, AttemptError):
                error_responses.redact_secrets(error, route.secrets)
                record.status = error.status or record.status
                record.request_id = error.request_id or record.request_id
            await self._settle(route, record, _choose_outcome(error, record), error)
            raise
        estimate = self._estimate_cost(route, record)
        is_too_low = record.entry_id is not None and is_reported_too_low(record.usage, estimate)
        warnings = _check_model_substitution(route, record)
        if is_too_low:
            warnings = (*warnings, _build_cost_warning(route, record, self._ctx))
        for warning in warnings:
            self._ctx.info(f"warning: {warning}")
        await self._settle(route, record, Outcome.OK, None, estimate)
        cost_nanousd, cost_source = sum_costs(self._costs)
        return result, RunResult(
            route=route,
            model=(record.served_model.is_substituted and record.served_model.model) or route.model,
            request_count=1,
            attempt_count=self._attempts,
            cost_nanousd=cost_nanousd,
            cost_source=cost_source,
            generation_ids=tuple(self._generation_ids),
            first_byte_s=None if record.first_byte_s is None else record.first_byte_s - self._started_s,
            elapsed_s=self._ctx.now_s() - self._started_s,
            skipped=tuple(_to_skipped_route(route, error) for route, error in (*self._skipped, *self._failed)),
            warnings=warnings,
            reported_nanousd=record.usage.cost_nanousd if is_too_low else None,
        )

    @asynccontextmanager
    async def _hold_permit(self, route: Route, record: AttemptRecord) -> AsyncIterator[None]:
        limiter = self._ctx.limiter
        if limiter is None:
            yield
            return
        permit = await limiter.acquire(route)
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            limiter.release(route, permit, record.headers, failure)

    async def _reserve(self, route: Route, record: AttemptRecord) -> None:
        """Reserve the ledger entry. Requests that are free get none.

        Raises:
            MoneyError: A spending limit would be exceeded, or the ledger cannot be written.
        """
        if gateways.load_dialect(route.dialect).is_free:
            return
        budget = self._ctx.budget
        estimate = self._operation.estimate(route, None)
        reservation = self._operation.build_reservation(route)._replace(
            estimate_nanousd=estimate.nanousd if estimate.listed_nanousd is None else estimate.listed_nanousd,
            max_nanousd=estimate.max_nanousd,
            run_id=budget.run_id,
            tag=self._ctx.tag,
        )
        limits = () if budget.allow_unpriced and estimate.max_nanousd is None else budget.limits
        record.entry_id = await reserve(self._ctx, reservation, limits)

    async def _send(self, route: Route, record: AttemptRecord) -> T:
        """Send the request, fill in the record, and receive the response."""
        ctx, dialect = self._ctx, gateways.load_dialect(route.dialect)
        request = self._operation.build_request(route)
        while True:
            transport = ctx.transport(request.url)
            record.is_opened = True
            async with transport.open(request if ctx.uploads is None else ctx.uploads.track(request)) as response:
                record.status, record.headers = response.status, response.headers
                record.request_id = error_responses.parse_request_id(response.headers)
                record.generation_id = dialect.parse_generation_id(response.headers)
                record.usage = dialect.parse_usage(response.headers)
                record.served_model = dialect.parse_served_model(response.headers, route)
                for name, value in dialect.find_diagnostic_headers(response.headers).items():
                    ctx.debug(hide_secrets(f"{route.ref}: {name}: {value}", route.secrets))
                if response.status in (204, 205):
                    raise InvalidResponse(f"{response.status} without a body", request_id=record.request_id)
                if 200 <= response.status < 300:
                    return await self._operation.receive(route, response, record)
                body = await read_error_body(response.iter_bytes())
                if request.alternative is None or response.status not in MISSING_ENDPOINT_STATUSES:
                    error = dialect.parse_error(response.status, response.headers, body)
                    raise add_model_hint(error, route, ctx.cache, hide_credentials(request.url))
                ctx.debug(f"{route.ref}: {response.status}; trying {hide_credentials(request.alternative.url)}")
                request = request.alternative

    def _estimate_cost(self, route: Route, record: AttemptRecord) -> Estimate:
        """Estimate the cost of a finished attempt. For a substituted model only a reported cost is certain."""
        if not record.served_model.is_substituted:
            return self._operation.estimate(route, record)
        if record.served_model.model is None:
            return Estimate()
        substituted_route = route._replace(model=record.served_model.model, price=None, estimate_correction=1.0)
        return self._operation.estimate(substituted_route, record)._replace(is_exact=False)

    async def _settle(
        self,
        route: Route,
        record: AttemptRecord,
        outcome: Outcome,
        error: BaseException | None,
        estimate: Estimate | None = None,
    ) -> None:
        # A gateway may repeat a secret as an ID. The ledger must not store it.
        record.request_id = remove_secret_id(record.request_id, route.secrets)
        record.generation_id = remove_secret_id(record.generation_id, route.secrets)
        if record.generation_id:
            self._generation_ids.append(record.generation_id)
        if record.entry_id is None:
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
        usage = record.usage
        if outcome in (Outcome.UNKNOWN, Outcome.CANCELLED) and is_reported_too_low(
            usage, self._operation.estimate(route, None)
        ):
            usage = usage._replace(cost_nanousd=None)  # the limits count the maximum cost
        cost_nanousd, source = resolve_cost(outcome, usage, estimate)
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
            await settle(self._ctx, record.entry_id, settlement)
        except MoneyError as ledger_error:
            # The result is paid for, so it is still returned. The entry stays reserved and later counts as unknown.
            self._ctx.info(f"warning: {ledger_error.message}; entry {record.entry_id} was not settled")

    async def _wait(self, route: Route, error: AttemptError, wait_s: float) -> None:
        self._waited_s += wait_s
        if wait_s >= 1:
            self._ctx.info(f"{route.ref}: {error.message}; retrying in {wait_s:.0f} s")
        await self._ctx.sleep(wait_s)
        await self._operation.restart()

    def _report_fallback(self, remaining: Sequence[Route], route: Route, error: AudiocliError) -> None:
        if remaining:
            self._ctx.info(f"{route.ref}: {error.message}; trying {remaining[0].ref}")


def _choose_outcome(error: BaseException, record: AttemptRecord) -> Outcome:
    """Return how the ledger records a failed attempt."""
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt | OutputClosed):
        return Outcome.CANCELLED
    if isinstance(error, AttemptError):
        return error.outcome
    if isinstance(error, AudiocliError):
        # A local failure, for example a full disk. With a status, the gateway has answered and may charge.
        return Outcome.UNSENT if record.status is None else Outcome.CANCELLED
    return Outcome.UNKNOWN if record.is_opened else Outcome.UNSENT


def _check_model_substitution(route: Route, record: AttemptRecord) -> tuple[str, ...]:
    """Return a warning if the gateway served the request with another model than the requested one."""
    served = record.served_model
    if not served.is_substituted:
        return ()
    provider = f" at {served.provider}" if served.provider else ""
    warning = (
        f"{route.gateway} served the request with {served.model or 'another model'}{provider} instead of {route.model}"
    )
    if route.voice:
        warning += f"; the voice may differ from {route.voice}"
    return (warning,)


def _build_cost_warning(route: Route, record: AttemptRecord, ctx: RunContext) -> str:
    """Build the warning about a reported cost that the price list contradicts.

    It has the price instead of an amount, so that the warnings of all chunks of a long input are equal.
    """
    assert record.usage.cost_nanousd is not None
    model = record.served_model.model if record.served_model.is_substituted else None
    prices = find_prices(route if model is None else route._replace(model=model, price=None), ctx.cache)
    amount = "$0" if not record.usage.cost_nanousd else "less than a tenth of the cost"
    return (
        f"{route.ref}: the gateway reported {amount}; by its price list this costs about {format_prices(prices)}; "
        "spending limits count the estimate"
    )


def merge_runs(runs: Sequence[RunResult], route: Route, *, first_byte_s: float | None, elapsed_s: float) -> RunResult:
    """Add up the runs of the chunks of a long input. `route` is the route of all chunks; cached chunks have no run."""
    reported = [run.reported_nanousd for run in runs if run.reported_nanousd is not None]
    cost_nanousd, cost_source = sum_costs([(run.cost_nanousd, run.cost_source) for run in runs])
    return RunResult(
        route=route,
        model=runs[0].model if runs else route.model,
        request_count=sum(run.request_count for run in runs),
        attempt_count=sum(run.attempt_count for run in runs),
        cost_nanousd=cost_nanousd,
        cost_source=cost_source,
        generation_ids=tuple(generation_id for run in runs for generation_id in run.generation_ids),
        first_byte_s=first_byte_s,
        elapsed_s=elapsed_s,
        skipped=runs[0].skipped if runs else (),
        reported_nanousd=sum(reported) if reported else None,
    )


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


class RouteWarnings:
    """Warnings of each route. They are printed when a route is prepared, and not again when it is prepared again."""

    def __init__(self, ctx: RunContext) -> None:
        self._ctx = ctx
        self._warnings: dict[str, tuple[str, ...]] = {}
        self._printed: set[str] = set()

    def emit(self, route: Route, warnings: Sequence[str]) -> None:
        """Store the notes and warnings of a route, and print those that are new."""
        self._warnings[route.ref] = (*route.notes, *warnings)
        for warning in self._warnings[route.ref]:
            if warning not in self._printed:
                self._printed.add(warning)
                self._ctx.info(f"warning: {warning}")

    def get(self, route: Route) -> tuple[str, ...]:
        """Return the warnings of a route."""
        return self._warnings.get(route.ref, ())


def deduplicate_messages(ctx: RunContext) -> RunContext:
    """Return a context that prints each message once, for operations that send many chunks."""
    printed: set[str] = set()

    def print_once(message: str) -> None:
        if message not in printed:
            printed.add(message)
            ctx.info(message)

    return ctx._replace(info=print_once)
