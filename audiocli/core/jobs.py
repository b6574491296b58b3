"""Background jobs: submit them, poll their state, and fetch their results."""

from __future__ import annotations

import heapq
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from .. import gateways
from ..costs import format_usd, is_reported_too_low, resolve_cost
from ..errors import (
    AttemptError,
    AudiocliError,
    ConnectionFailed,
    ExitCode,
    GatewayError,
    InvalidResponse,
    MoneyError,
    ResponseInterrupted,
    UsageError,
)
from ..gateways import error_responses
from ..gateways.base import get_media_type, read_json
from ..outputs import Output
from ..types.jobs import FAILED_STATUSES, LOST, SUCCEEDED, JobState, RemoteJob
from ..types.ledger import CostSource, Estimate, Outcome, Reservation, Settlement
from ..types.requests import HttpRequest
from ..types.routes import Route
from ..types.transcripts import Transcript
from . import download
from .attempts import AttemptRecord, Operation, run
from .audio_pipeline import AudioOutput
from .audio_response import ReceivedAudio, receive_audio
from .ledger_writer import write
from .response_body import open_response, read_body, read_error_body
from .run_context import Response, RunContext

if TYPE_CHECKING:
    from ..ledger.jobs import JobStore

# TheRouter's guide recommends polling every 5 to 10 seconds. All jobs together send at most one request per second.
MIN_POLL_INTERVAL_S, MAX_POLL_INTERVAL_S = 5.0, 10.0
MIN_REQUEST_INTERVAL_S = 1.0
# TheRouter's retention of jobs and results, if the job does not report it (guide to async work, read 2026-10).
RETENTION_S = 7 * 24 * 3600.0
# Polling stops after this number of errors in a row.
MAX_POLL_ERRORS = 10
EXPIRED_STATUSES = frozenset({401, 403, 404, 410})

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class JobOperation(Operation[T_co], Protocol[T_co]):
    """An operation that can be submitted as a background job."""

    def build_job(self, route: Route) -> RemoteJob:
        """Build the job without the fields that the gateway reports."""
        ...


async def submit(
    operation: JobOperation[T],
    routes: Sequence[Route],
    skipped: Sequence[tuple[Route, AudiocliError]],
    ctx: RunContext,
    store: JobStore,
) -> tuple[RemoteJob, T | None]:
    """Submit an operation as a job over the first route that accepts it, and save the job.

    If the gateway returns the result immediately, no job is saved, and the result is returned with it.

    Raises:
        AudiocliError: No route accepted the job, or it cannot be saved.
    """
    submitted, _ = await run(JobSubmission(operation, ctx, store), routes, ctx, skipped)
    return submitted


class JobSubmission(Operation[tuple[RemoteJob, T | None]], Generic[T]):
    """Submit the request of another operation as a background job."""

    def __init__(self, operation: JobOperation[T], ctx: RunContext, store: JobStore) -> None:
        self.command = operation.command
        self._operation = operation
        self._ctx = ctx
        self._store = store

    def build_reservation(self, route: Route) -> Reservation:
        return self._operation.build_reservation(route)

    def estimate(self, route: Route, record: AttemptRecord | None) -> Estimate:
        return self._operation.estimate(route, record)

    async def prepare(self, route: Route) -> None:
        await self._operation.prepare(route)

    async def downgrade(self, route: Route, error: AttemptError) -> Route | None:
        return await self._operation.downgrade(route, error)

    def add_hint(self, route: Route, error: AttemptError) -> None:
        self._operation.add_hint(route, error)

    def build_request(self, route: Route) -> HttpRequest:
        dialect = gateways.load_dialect(route.dialect)
        submission = dialect.build_job_submission(self._operation.build_request(route), route)
        if submission is None:
            raise UsageError(f"{route.gateway} does not support background jobs")
        return submission

    async def receive(self, route: Route, response: Response, record: AttemptRecord) -> tuple[RemoteJob, T | None]:
        if get_media_type(response.headers) == "application/json":
            body = await read_body(response.iter_bytes())
            state = gateways.load_dialect(route.dialect).parse_job_state(body)
            if state is not None or response.status == 202:
                record.received_bytes = len(body)
                if state is None or state.id is None:
                    error = None if state else error_responses.find_embedded_error(read_json(body), response.headers)
                    raise error or InvalidResponse(f"{response.status} without a job ID", request_id=record.request_id)
                return await self._save_job(route, record, state), None
            response = _BufferedResponse(response.status, response.headers, body)
        result = await self._operation.receive(route, response, record)
        job = self._operation.build_job(route)
        return job._replace(id=record.request_id or "", status=SUCCEEDED), result

    async def _save_job(self, route: Route, record: AttemptRecord, state: JobState) -> RemoteJob:
        """Save a submitted job. Its ledger entry stays reserved until the job ends."""
        estimate = self._operation.estimate(route, None)
        job = self._operation.build_job(route)._replace(
            id=state.id or "",
            status=state.status,
            reason=state.reason,
            entry_id=record.entry_id,
            polling_url=state.polling_url,
            expires_at_s=state.expires_at_s,
            min_nanousd=estimate.min_nanousd,
            max_nanousd=estimate.max_nanousd,
            expected_nanousd=estimate.nanousd,
            is_exact=estimate.is_exact,
            request_id=record.generation_id or record.request_id,
        )
        try:
            await write(self._ctx, lambda: self._store.save(job))
        except AudiocliError:
            self._ctx.info(f"could not save job {job.ref}; note its ID")
            raise
        record.is_deferred = True
        try:
            await _settle(job, state, self._store, self._ctx)
        except MoneyError as error:
            self._ctx.debug(f"{error.message}; the next poll settles {job.ref}")
        return job


class _BufferedResponse(NamedTuple):
    """A response whose body has been read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        yield self.body


# --- polling ---------------------------------------------------------------------------------------------------------


class PollThrottle:
    """Keep a minimum interval between requests.

    `now_s` is the elapsed time or the total time slept, whichever is longer.
    """

    def __init__(self, ctx: RunContext) -> None:
        self._ctx = ctx
        self._started_s = ctx.now_s()
        self._waited_s = 0.0
        self._last_request_s: float | None = None

    @property
    def now_s(self) -> float:
        return max(self._ctx.now_s() - self._started_s, self._waited_s)

    async def wait_until(self, due_s: float) -> None:
        """Wait until `due_s`, and until `MIN_REQUEST_INTERVAL_S` after the last request."""
        due_s = max(due_s, self._last_request_s + MIN_REQUEST_INTERVAL_S if self._last_request_s is not None else 0.0)
        pause_s = due_s - self.now_s
        if pause_s > 0:
            self._waited_s = self.now_s + pause_s
            await self._ctx.sleep(pause_s)
        self._last_request_s = self.now_s


class WaitOptions(NamedTuple):
    """How to wait for jobs.

    Attributes:
        routes: Route of each gateway, by name.
        store: Where jobs are saved.
        on_finished: Called for every job that ended, in the order in which they end.
        deadline_s: Maximum time to wait, in seconds; None waits until every job has ended.
    """

    routes: Mapping[str, Route]
    store: JobStore
    on_finished: Callable[[RemoteJob, JobState, PollThrottle], Awaitable[None]]
    deadline_s: float | None = None


async def wait_for_jobs(jobs: Sequence[RemoteJob], options: WaitOptions, ctx: RunContext) -> list[RemoteJob]:
    """Poll jobs until all have ended. Return those that have not when the deadline passes.

    Raises:
        AccessError, GatewayError: The gateway refuses to report a job.
        ConnectionFailed, ResponseInterrupted: The gateway cannot be reached.
    """
    throttle = PollThrottle(ctx)
    started_s = time.time()
    queue = [(0.0, number, MIN_POLL_INTERVAL_S, job) for number, job in enumerate(jobs)]
    heapq.heapify(queue)
    consecutive_errors = 0
    unfinished: list[RemoteJob] = []
    while queue:
        due_s, number, interval_s, job = heapq.heappop(queue)
        # Poll a job in an unknown state no longer than the gateway retains it.
        poll_until_s = _find_expiry_s(job) - started_s + MAX_POLL_INTERVAL_S
        if options.deadline_s is not None:
            poll_until_s = min(poll_until_s, options.deadline_s)
        if max(due_s, throttle.now_s) > poll_until_s and due_s > 0:
            unfinished.append(job)
            continue
        await throttle.wait_until(due_s)
        try:
            job, state = await poll_job(job, options.routes[job.gateway], options.store, ctx)
            consecutive_errors = 0
        except AttemptError as error:
            consecutive_errors += 1
            if not _is_transient(error) or consecutive_errors >= MAX_POLL_ERRORS:
                raise
            ctx.info(f"{job.ref}: {error.message}; polling again")
            wait_s = (error.wait_s if isinstance(error, GatewayError) else None) or MAX_POLL_INTERVAL_S
            heapq.heappush(queue, (throttle.now_s + max(wait_s, interval_s), number, interval_s, job))
            continue
        if job.status == SUCCEEDED or job.status in FAILED_STATUSES:
            await options.on_finished(job, state, throttle)
        else:
            ctx.debug(f"{job.ref}: {job.status}")
            heapq.heappush(queue, (throttle.now_s + interval_s, number, min(MAX_POLL_INTERVAL_S, interval_s + 1), job))
    return unfinished


def _is_transient(error: AttemptError) -> bool:
    """Return whether polling again may help: after a network error, or if the gateway is busy."""
    return (
        isinstance(error, ConnectionFailed | ResponseInterrupted)
        or (error.status or 0) >= 500
        or error.status in (408, 429)
    )


async def poll_job(job: RemoteJob, route: Route, store: JobStore, ctx: RunContext) -> tuple[RemoteJob, JobState]:
    """Request the state of a job, and save what changed. Raises: AttemptError."""
    dialect = gateways.load_dialect(route.dialect)
    query = dialect.build_job_query(job.id, job.polling_url, route)
    if query is None:
        raise InvalidResponse(f"{job.gateway} does not support background jobs")
    async with open_response(query, route, ctx) as response:
        is_success = 200 <= response.status < 300
        body = await (read_body if is_success else read_error_body)(response.iter_bytes())
        if response.status in (404, 410):
            state = JobState(job.id, LOST, reason=f"{job.gateway} no longer has the job: {describe_retention(job)}")
        elif not is_success:
            raise dialect.parse_error(response.status, response.headers, body)
        else:
            reported = dialect.parse_job_state(body)
            if reported is None:
                raise error_responses.find_embedded_error(read_json(body), response.headers) or InvalidResponse(
                    "200 without a job state", request_id=error_responses.parse_request_id(response.headers)
                )
            state = reported
    updated = job._replace(
        status=state.status,
        reason=state.reason,
        expires_at_s=state.expires_at_s or job.expires_at_s,
        polling_url=state.polling_url or job.polling_url,
    )
    await _settle(updated, state, store, ctx)
    if updated != job:
        await write(ctx, lambda: store.save(updated))
    return updated, state


async def _settle(job: RemoteJob, state: JobState, store: JobStore, ctx: RunContext) -> None:
    """Settle the ledger entry of a job that ended, if it is open. A job that failed upstream costs nothing."""
    if job.status == SUCCEEDED:
        estimate = Estimate(job.min_nanousd, job.max_nanousd, job.is_exact, job.expected_nanousd)
        if is_reported_too_low(state.usage, estimate):
            ctx.info(
                f"warning: {job.ref}: the gateway reported {format_usd(state.usage.cost_nanousd)}; by its price list "
                f"this costs about {format_usd(estimate.nanousd)}; spending limits count the estimate"
            )
        cost_nanousd, source = resolve_cost(Outcome.OK, state.usage, estimate)
        settlement = Settlement(Outcome.OK, cost_nanousd, source)
    elif job.status == "failed":
        settlement = Settlement(Outcome.FAILED, 0, CostSource.COMPUTED, error=job.reason or "failed")
    elif job.status in FAILED_STATUSES:
        settlement = Settlement(Outcome.UNKNOWN, error=job.reason or job.status)
    else:
        return
    settlement = settlement._replace(status=200, request_id=job.request_id, generation_id=job.request_id)
    if store.has_open_entry(job):
        await write(ctx, lambda: store.settle(job, settlement))


def build_job_error(job: RemoteJob) -> GatewayError:
    """Build the error of a job that failed."""
    reason = f": {job.reason}" if job.reason else ""
    return GatewayError(
        f"{job.ref} {'is gone' if job.status == LOST else job.status}{reason}", code=f"job_{job.status}"
    )


def build_timeout_error(job: RemoteJob) -> GatewayError:
    """Build the error of a job that has not ended by the deadline."""
    return GatewayError(
        f"{job.ref} is still {job.status}",
        exit_code=ExitCode.NETWORK,
        code="timed_out",
        hint=f"the job continues; wait for it with: audiocli jobs wait {job.id}",
    )


def _find_expiry_s(job: RemoteJob) -> float:
    """Return the Unix time until which a gateway retains a job. A time before the submission is ignored."""
    if job.expires_at_s is not None and job.expires_at_s > job.submitted_at_s:
        return job.expires_at_s
    return job.submitted_at_s + RETENTION_S


def describe_retention(job: RemoteJob) -> str:
    """Say how long the gateway retains the result of a job."""
    try:
        expiry = time.strftime("%Y-%m-%d %H:%M", time.localtime(_find_expiry_s(job)))
    except (ValueError, OverflowError, OSError):  # the time of submission is out of range
        expiry = "an unknown time"
    return f"results are available for {RETENTION_S / 86400:.0f} days, this one until {expiry}"


# --- results ---------------------------------------------------------------------------------------------------------


async def fetch_audio(
    job: RemoteJob,
    state: JobState,
    route: Route,
    outputs: Sequence[AudioOutput],
    output: Output,
    ctx: RunContext,
    throttle: PollThrottle,
) -> ReceivedAudio:
    """Fetch the audio of a job, write it, and commit the output. If this raises, the output is abandoned."""
    record = AttemptRecord(request_id=job.request_id)

    async def receive(response: Response) -> ReceivedAudio:
        return await receive_audio(
            response.headers,
            response.iter_bytes(),
            outputs,
            record,
            ctx,
            requested_format=job.request_format,
            is_pcm_known=gateways.is_default_server(route),
        )

    try:
        received = await _fetch_result(job, state, route, ctx, throttle, receive)
    except BaseException:
        await output.abandon()
        raise
    await output.commit()
    return received


async def fetch_transcript(
    job: RemoteJob, state: JobState, route: Route, ctx: RunContext, throttle: PollThrottle
) -> tuple[Transcript, bytes]:
    """Return the transcript of a job and its body. The job state may already hold it. Raises: AttemptError."""
    dialect = gateways.load_dialect(route.dialect)
    if state.result is not None:
        return dialect.parse_transcript(state.result, {"content-type": "application/json"}), state.result

    async def receive(response: Response) -> tuple[Transcript, bytes]:
        body = await read_body(response.iter_bytes())
        content_type = get_media_type(response.headers)
        # Object stores return a generic content type for text.
        is_generic = content_type in ("", "application/octet-stream", "binary/octet-stream")
        headers = {**response.headers, "content-type": "text/plain"} if is_generic else response.headers
        return dialect.parse_transcript(body, headers), body

    return await _fetch_result(job, state, route, ctx, throttle, receive)


async def _fetch_result(
    job: RemoteJob,
    state: JobState,
    route: Route,
    ctx: RunContext,
    throttle: PollThrottle,
    receive: Callable[[Response], Awaitable[T]],
) -> T:
    """Open the URL of a result and receive it. Raises: GatewayError: the URL has expired."""
    if not state.result_urls:
        return await _fetch_by_id(job, route, ctx, throttle, receive)
    async with download.open_presigned(state.result_urls[0], job.base_url, ctx) as response:
        return await _receive_result(job, response, receive)


async def _fetch_by_id(
    job: RemoteJob, route: Route, ctx: RunContext, throttle: PollThrottle, receive: Callable[[Response], Awaitable[T]]
) -> T:
    """Request the result by job ID. The gateway usually redirects to a presigned URL. Raises: AttemptError."""
    dialect = gateways.load_dialect(route.dialect)
    query = dialect.build_job_result_query(job.id, route)
    assert query is not None
    await throttle.wait_until(0.0)
    async with open_response(query, route, ctx) as response:
        location = response.headers.get("location")
        if 200 <= response.status < 300:
            return await receive(response)
        body = await read_error_body(response.iter_bytes())
        if response.status not in download.REDIRECT_STATUSES or not location:
            raise dialect.parse_error(response.status, response.headers, body)
    async with download.open_presigned(
        download.resolve_redirect(query.url, location, is_first=True), job.base_url, ctx
    ) as response:
        return await _receive_result(job, response, receive)


async def _receive_result(job: RemoteJob, response: Response, receive: Callable[[Response], Awaitable[T]]) -> T:
    if 200 <= response.status < 300:
        return await receive(response)
    if response.status in EXPIRED_STATUSES:
        raise GatewayError(
            f"the result URL of {job.ref} has expired ({response.status}): {describe_retention(job)}",
            code="job_expired",
            status=response.status,
            hint=f"request a new URL with: audiocli jobs fetch {job.ref}",
        )
    raise GatewayError(f"cannot fetch the result of {job.ref}: {response.status}", status=response.status)
