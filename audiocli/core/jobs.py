"""Work that a gateway does in its own time: handed in, asked after politely, and fetched."""

from __future__ import annotations

import heapq
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from .. import gateways
from ..costs import cost_of
from ..errors import AttemptError, AudiocliError, InvalidResponse, ExitCode, GatewayError, ResponseInterrupted, ConnectionFailed
from ..gateways import error_responses
from ..gateways.base import media_type, read_json
from ..types.jobs import FAILED, LOST, SUCCEEDED, RemoteJob, JobState
from ..types.values import Reservation, CostSource, Estimate, Outcome, Route, RunResult, Settlement, Transcript, WireRequest
from . import download
from .attempts import AttemptRecord, RouteRunner
from .audio_pipeline import Outlet
from .audio_response import Received, error_body, receive
from .ledger_writer import patiently
from .retry_policy import RetryPolicy
from .route_warnings import heed_swap
from .run_context import Output, Reply, RunContext

# TheRouter's guide: every 5 to 10 seconds. However many jobs there are, one request a second is enough.
FIRST_S, SLOWEST_S = 5.0, 10.0
POLITE_S = 1.0
# How long TheRouter keeps jobs and their results, where it does not say (guide to async work, read 2026-10).
RETENTION_S = 7 * 24 * 3600.0
# A gateway that cannot be asked so often in a row is gone.
MOST_TROUBLES = 10
STATE_BYTES = 64 * 1024 * 1024
GONE = frozenset({401, 403, 404, 410})


T = TypeVar("T")


class Jobs(Protocol):
    """Where jobs are kept."""

    def keep(self, job: RemoteJob) -> None: ...

    def settle(self, job: RemoteJob, settlement: Settlement) -> None: ...


class JobSubmission(NamedTuple):
    """Work to be handed in. `request` makes what would be sent to have it done at once; `job` begins its description.

    `at_once` takes the result where the gateway gives it in place of a job.
    """

    request: Callable[[Route], Awaitable[WireRequest]]
    job: Callable[[Route], RemoteJob]
    charge: Callable[[Route], Reservation]
    price: Callable[[Route], Estimate]
    prepare: Callable[[Route], Awaitable[None]]
    at_once: Callable[[Route, AttemptRecord, Mapping[str, str], AsyncIterator[bytes]], Awaitable[None]]
    policy: RetryPolicy


async def hand_in(
    errand: JobSubmission,
    routes: Sequence[Route],
    skipped: Sequence[tuple[Route, AudiocliError]],
    tools: RunContext,
    jobs: Jobs,
) -> tuple[RemoteJob | None, RunResult]:
    """Hand work in over the first route that takes it, and write the job down before anything else.

    The job is None where the gateway did the work at once. Raises: any AudiocliError.
    """
    walk = RouteRunner[RemoteJob | None](
        tools,
        policy=errand.policy,
        is_free=lambda route: gateways.dialect(route.dialect).is_free,
        charge=errand.charge,
        price=lambda route, told: errand.price(route),
        once=lambda route, told: _once(errand, route, told, tools, jobs),
        prepare=errand.prepare,
    )
    return await walk.run(routes, skipped)


async def _once(errand: JobSubmission, route: Route, told: AttemptRecord, tools: RunContext, jobs: Jobs) -> RemoteJob | None:
    dialect = gateways.dialect(route.dialect)
    ways = dialect.submissions(await errand.request(route), route)
    for number, way in enumerate(ways):
        async with tools.transport(way.url).open(way) as reply:
            told.status = reply.status
            told.request_id = error_responses.request_id(reply.headers)
            told.generation_id = dialect.generation_id(reply.headers)
            told.service = dialect.service(reply.headers, route)
            if reply.status in (404, 405) and number + 1 < len(ways):
                await error_body(reply.chunks())
                tools.debug(f"{route.ref}: {reply.status}: handing it in another way")
                continue
            if not 200 <= reply.status < 300:
                raise dialect.failure(reply.status, reply.headers, await error_body(reply.chunks()))
            for warning in heed_swap(route, told):
                tools.info(f"warning: {warning}")
            if media_type(reply.headers) != "application/json":
                await errand.at_once(route, told, reply.headers, reply.chunks())
                return None
            body = await _bounded(reply)
            told.received_bytes = len(body)
            state = dialect.job_reply(body)
            if state is None and reply.status != 202:
                await errand.at_once(route, told, reply.headers, _one(body))
                return None
            error = error_responses.embedded_failure(read_json(body), reply.headers) if state is None else None
            if state is None or state.id is None:
                raise error or InvalidResponse(f"{reply.status} without the id of a job", request_id=told.request_id)
            return await _entrust(errand, route, told, state, jobs, tools)
    raise InvalidResponse(f"{route.gateway} takes no jobs")


async def _entrust(errand: JobSubmission, route: Route, told: AttemptRecord, state: JobState, jobs: Jobs, tools: RunContext) -> RemoteJob:
    """Write a job down; what it costs stays reserved until it is over."""
    price = errand.price(route)
    job = errand.job(route)._replace(
        id=state.id or "",
        status=state.status,
        entry_id=told.entry_id,
        polling_url=state.polling_url,
        expires_s=state.expires_s,
        least_nanousd=price.least_nanousd,
        most_nanousd=price.most_nanousd,
        is_certain=price.is_certain,
        request_id=told.generation_id or told.request_id,
    )
    try:
        await patiently(lambda: jobs.keep(job))
    except AudiocliError:
        tools.info(f"{job.ref} could not be written down: remember its name")
        raise
    told.is_entrusted = True
    return job


# --- asking after them -----------------------------------------------------------------------------------------------


class PollThrottle:
    """Keeps requests apart. Time is what has passed, or what was waited for, whichever is more."""

    def __init__(self, tools: RunContext) -> None:
        self._tools = tools
        self._started_s = tools.now_s()
        self._waited_s = 0.0
        self._last_s: float | None = None

    @property
    def now_s(self) -> float:
        return max(self._tools.now_s() - self._started_s, self._waited_s)

    async def until(self, due_s: float) -> None:
        """Wait until a moment, and until a second has gone since the last request; then the next one may go."""
        due_s = max(due_s, self._last_s + POLITE_S if self._last_s is not None else 0.0)
        pause_s = due_s - self.now_s
        if pause_s > 0:
            self._waited_s = self.now_s + pause_s
            await self._tools.sleep(pause_s)
        self._last_s = self.now_s


class WaitOptions(NamedTuple):
    """What to wait with: `finish` is called for every job that is over, in the order in which they end."""

    routes: Mapping[str, Route]
    jobs: Jobs
    finish: Callable[[RemoteJob, JobState, PollThrottle], Awaitable[None]]
    deadline_s: float | None = None


async def wait(waited_for: Sequence[RemoteJob], waiting: WaitOptions, tools: RunContext) -> list[RemoteJob]:
    """Ask after jobs until all are over; give those that are not when the deadline comes.

    Raises: AccessError, GatewayError: the gateway will not tell; NeverSent, Lost: it cannot be asked.
    """
    pace = PollThrottle(tools)
    started_s = time.time()
    queue = [(0.0, number, FIRST_S, job) for number, job in enumerate(waited_for)]
    heapq.heapify(queue)
    troubles = 0
    left: list[RemoteJob] = []
    while queue:
        due_s, number, interval_s, job = heapq.heappop(queue)
        # An unknown state goes on, but not for ever: what the gateway does not keep any more cannot end well.
        ends_s = _kept_until_s(job) - started_s + SLOWEST_S
        if waiting.deadline_s is not None:
            ends_s = min(ends_s, waiting.deadline_s)
        if max(due_s, pace.now_s) > ends_s and due_s > 0:
            left.append(job)
            continue
        await pace.until(due_s)
        try:
            job, state = await look(job, waiting.routes[job.gateway], waiting.jobs, tools)
            troubles = 0
        except AttemptError as error:
            troubles += 1
            if not _passes(error) or troubles >= MOST_TROUBLES:
                raise
            tools.info(f"{job.ref}: {error.message}; asking again")
            wait_s = (error.wait_s if isinstance(error, GatewayError) else None) or SLOWEST_S
            heapq.heappush(queue, (pace.now_s + max(wait_s, interval_s), number, interval_s, job))
            continue
        if job.status == SUCCEEDED or job.status in FAILED:
            await waiting.finish(job, state, pace)
        else:
            tools.debug(f"{job.ref}: {job.status}")
            heapq.heappush(queue, (pace.now_s + interval_s, number, min(SLOWEST_S, interval_s + 1), job))
    return left


def _passes(error: AttemptError) -> bool:
    """Tell whether asking costs nothing and may help: the network, or a gateway that is busy."""
    return isinstance(error, ConnectionFailed | ResponseInterrupted) or (error.status or 0) >= 500 or error.status in (408, 429)


async def look(job: RemoteJob, route: Route, jobs: Jobs, tools: RunContext) -> tuple[RemoteJob, JobState]:
    """Ask after one job once, and write down what is new. Raises: AttemptError."""
    dialect = gateways.dialect(route.dialect)
    query = dialect.job_query(job.id, job.polling_url, route)
    if query is None:
        raise InvalidResponse(f"{job.gateway} has no jobs")
    async with tools.transport(query.url).open(query) as reply:
        body = await (_bounded(reply) if 200 <= reply.status < 300 else error_body(reply.chunks()))
        if reply.status in (404, 410):
            state = JobState(job.id, LOST, reason=f"{job.gateway} does not know it any more: {retention(job)}")
        elif not 200 <= reply.status < 300:
            raise dialect.failure(reply.status, reply.headers, body)
        else:
            told = dialect.job_reply(body)
            if told is None:
                raise error_responses.embedded_failure(read_json(body), reply.headers) or InvalidResponse(
                    "200 without the state of a job", request_id=error_responses.request_id(reply.headers)
                )
            state = told
    now = job._replace(
        status=state.status,
        reason=state.reason,
        expires_s=state.expires_s or job.expires_s,
        polling_url=state.polling_url or job.polling_url,
    )
    if now != job:
        await _settle(now, state, jobs)
        await patiently(lambda: jobs.keep(now))
    return now, state


async def _settle(job: RemoteJob, state: JobState, jobs: Jobs) -> None:
    """Enter how a job ended: what was reserved is charged, or given back where the work failed upstream."""
    if job.status == SUCCEEDED:
        estimate = Estimate(job.least_nanousd, job.most_nanousd, job.is_certain)
        cost_nanousd, source = cost_of(Outcome.OK, state.usage.cost_nanousd, estimate)
        settlement = Settlement(Outcome.OK, cost_nanousd, source)
    elif job.status == "failed":
        settlement = Settlement(Outcome.FAILED, 0, CostSource.COMPUTED, error=job.reason or "failed")
    elif job.status in FAILED:
        settlement = Settlement(Outcome.UNKNOWN, error=job.reason or job.status)
    else:
        return
    settlement = settlement._replace(status=200, request_id=job.request_id, generation_id=job.request_id)
    await patiently(lambda: jobs.settle(job, settlement))


def failure(job: RemoteJob) -> GatewayError:
    """Make the error of a job that came to nothing."""
    reason = f": {job.reason}" if job.reason else ""
    return GatewayError(
        f"{job.ref} {'is gone' if job.status == LOST else job.status}{reason}", code=f"job_{job.status}"
    )


def not_over(job: RemoteJob) -> GatewayError:
    """Make the error of a deadline that came before a job was over."""
    return GatewayError(
        f"{job.ref} is still {job.status}",
        exit_code=ExitCode.NETWORK,
        code="timed_out",
        hint=f"it goes on: audiocli jobs wait {job.id}",
    )


def _kept_until_s(job: RemoteJob) -> float:
    """Tell until when a gateway keeps a job; a moment before it was handed in is nonsense."""
    if job.expires_s is not None and job.expires_s > job.at_s:
        return job.expires_s
    return job.at_s + RETENTION_S


def retention(job: RemoteJob) -> str:
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(_kept_until_s(job)))
    return f"it keeps results for {RETENTION_S / 86400:.0f} days, this one until {until}"


# --- fetching what they made -----------------------------------------------------------------------------------------


async def collect_sound(
    job: RemoteJob, state: JobState, route: Route, outlets: Sequence[Outlet], output: Output, tools: RunContext, pace: PollThrottle
) -> Received:
    """Fetch the audio of a job and deliver it. Nothing is left at a target when this raises."""
    told = AttemptRecord(request_id=job.request_id)

    async def take(reply: Reply) -> Received:
        return await receive(reply.headers, reply.chunks(), outlets, told, tools, asked=job.wire)

    try:
        received = await _fetched(job, state, route, tools, pace, take)
    except BaseException:
        await output.abandon()
        raise
    await output.commit()
    return received


async def collect_text(job: RemoteJob, state: JobState, route: Route, tools: RunContext, pace: PollThrottle) -> tuple[Transcript, bytes]:
    """Fetch the transcript of a job, out of the answer itself where it stands there. Raises: AttemptError."""
    dialect = gateways.dialect(route.dialect)
    if state.result is not None:
        return dialect.transcript(state.result, {"content-type": "application/json"}), state.result

    async def take(reply: Reply) -> tuple[Transcript, bytes]:
        body = await _bounded(reply)
        kind = media_type(reply.headers)
        # Stores know nothing of what they keep; text is text whatever they call it.
        untold = kind in ("", "application/octet-stream", "binary/octet-stream")
        headers = {**reply.headers, "content-type": "text/plain"} if untold else reply.headers
        return dialect.transcript(body, headers), body

    return await _fetched(job, state, route, tools, pace, take)


async def _fetched(
    job: RemoteJob, state: JobState, route: Route, tools: RunContext, pace: PollThrottle, take: Callable[[Reply], Awaitable[T]]
) -> T:
    """Open the link of a result and take what is there. Raises: GatewayError: it is gone."""
    if not state.urls:
        return await _fetched_by_name(job, route, tools, pace, take)
    async with download.opened(state.urls[0], job.base_url, tools) as reply:
        return await _taken(job, reply, take)


async def _fetched_by_name(
    job: RemoteJob, route: Route, tools: RunContext, pace: PollThrottle, take: Callable[[Reply], Awaitable[T]]
) -> T:
    """Ask the gateway itself for the result, which as a rule says where it lies. Raises: AttemptError."""
    dialect = gateways.dialect(route.dialect)
    query = dialect.job_content(job.id, route)
    assert query is not None
    await pace.until(0.0)
    async with tools.transport(query.url).open(query) as reply:
        location = reply.headers.get("location")
        if 200 <= reply.status < 300:
            return await take(reply)
        body = await error_body(reply.chunks())
        if reply.status not in download.REDIRECTS or not location:
            raise dialect.failure(reply.status, reply.headers, body)
    async with download.opened(download.redirected(query.url, location, is_first=True), job.base_url, tools) as reply:
        return await _taken(job, reply, take)


async def _taken(job: RemoteJob, reply: Reply, take: Callable[[Reply], Awaitable[T]]) -> T:
    if 200 <= reply.status < 300:
        return await take(reply)
    if reply.status in GONE:
        raise GatewayError(
            f"the link to the result of {job.ref} has expired ({reply.status}): {retention(job)}",
            code="job_expired",
            status=reply.status,
            hint=f"audiocli jobs fetch {job.ref} asks for a fresh link",
        )
    raise GatewayError(f"the result of {job.ref} cannot be fetched: {reply.status}", status=reply.status)


async def _bounded(reply: Reply) -> bytes:
    parts = []
    size_bytes = 0
    async for chunk in reply.chunks():
        parts.append(chunk)
        size_bytes += len(chunk)
        if size_bytes > STATE_BYTES:
            raise InvalidResponse(f"the answer is over {STATE_BYTES // 2**20} MB and no end")
    return b"".join(parts)


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body
