"""`--background`: work that is handed in to be done later, and waited for if that is wanted."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..context import AppContext
from ..errors import AudiocliError, UsageError
from . import audio_outputs, job_results

if TYPE_CHECKING:
    from pathlib import Path

    from ..console import Console
    from ..core.attempts import AttemptRecord
    from ..core.jobs import JobSubmission, PollThrottle
    from ..core.retry_policy import RetryPolicy
    from ..core.run_context import RunContext
    from ..gateways.base import Gateway as Dialect
    from ..routing import Routing, RouteQuery
    from ..text.line_breaking import CaptionLimits
    from ..types.jobs import RemoteJob, JobState
    from ..types.values import Json, Recording, Route, SpeechRequest, TranscriptionRequest, WireRequest


class SpeakJob(Protocol):
    """What `speak` has decided."""

    @property
    def request(self) -> SpeechRequest: ...
    @property
    def target(self) -> audio_outputs.Target: ...
    @property
    def routing(self) -> Routing: ...
    @property
    def policy(self) -> RetryPolicy: ...
    @property
    def tag(self) -> str | None: ...


class TranscribeJob(Protocol):
    """What `transcribe` has decided."""

    @property
    def policy(self) -> RetryPolicy: ...
    @property
    def tag(self) -> str | None: ...
    @property
    def as_json(self) -> bool: ...
    @property
    def shape(self) -> CaptionLimits: ...
    @property
    def by_word(self) -> bool: ...


class BackgroundOptions(NamedTuple):
    """How work is done later. `output` is where its result is wanted, as it was typed."""

    waits: bool
    output: str | None


def later_of(background: bool, waits: bool, output: str | None, *, plays: bool = False) -> BackgroundOptions | None:
    """Read the flags. Raises: UsageError."""
    if waits and not background:
        raise UsageError("--wait is for --background")
    if background and plays and not waits:
        raise UsageError("--background plays nothing", hint="--wait waits for the result and plays it")
    return BackgroundOptions(waits, output) if background else None


def with_jobs(env: AppContext, wish: RouteQuery) -> RouteQuery:
    """Choose the first gateway with a key that has jobs, where none is named."""
    if wish.gateway is not None or wish.models or wish.base_url is not None:
        return wish
    from .. import gateways

    able = [one for one in env.settings.gateways if one.key is not None and gateways.dialect(one.dialect).has_jobs]
    return wish._replace(gateway=able[0].name) if able else wish


def refusal(dialect: Dialect, route: Route) -> AudiocliError | None:
    """Refuse a gateway without jobs."""
    if dialect.has_jobs:
        return None
    return UsageError(f"{route.gateway} has no jobs, so --background is not for it", hint="-g therouter has them")


def target_of(env: AppContext, later: BackgroundOptions, asked: str | None, configured: str | None) -> audio_outputs.Target:
    """Choose the format of speech that is fetched later; where it goes need not be known yet. Raises: UsageError."""
    if later.output not in (None, "-"):
        return audio_outputs.choose(env, later.output, asked, configured, play=False, player=None)
    format, warnings = audio_outputs.format_of(None, asked, configured or "mp3")
    return audio_outputs.Target(None, False, (), format, warnings)


async def speak(
    env: AppContext,
    screen: Console,
    tools: RunContext,
    job: SpeakJob,
    later: BackgroundOptions,
    *,
    as_json: bool,
) -> None:
    """Hand a text in to be spoken."""
    from .. import gateways
    from ..core.audio_response import receive
    from ..core.jobs import JobSubmission
    from ..core.route_warnings import RouteWarnings
    from ..core.speech import SpeechTask, estimate, plan_of, prepare
    from ..outputs import MultiOutput
    from ..types.jobs import QUEUED
    from ..types.jobs import RemoteJob as Handed
    from ..types.values import Reservation

    request, target, tag = job.request, job.target, job.tag
    speech = SpeechTask(request, (), MultiOutput(()), job.policy, tag)
    heeded = RouteWarnings(tools)
    size_bytes = len(request.text.encode("utf-8", "replace"))

    async def wire(route: Route) -> WireRequest:
        asked = request._replace(format=plan_of(speech, route).wire)
        return gateways.dialect(route.dialect).speech(asked, route)

    async def at_once(route: Route, told: AttemptRecord, headers: Mapping[str, str], chunks: AsyncIterator[bytes]) -> None:
        place = target
        if place.path is None and not place.is_stdout and not place.players:
            place = place._replace(path=_aside(env, target.format))
        outlets = await audio_outputs.open_outlets(env, place)
        output = MultiOutput([outlet.sink for outlet in outlets])
        try:
            received = await receive(headers, chunks, outlets, told, tools, asked=plan_of(speech, route).wire)
        except BaseException:
            await output.abandon()
            raise
        await output.commit()
        done = handed(route)._replace(id=told.request_id or "", status="succeeded")
        _tell_done(screen, "speak", job_results.JobResult(done, place.name, received), as_json=as_json)

    def handed(route: Route) -> Handed:
        return Handed(
            id="",
            gateway=route.gateway,
            base_url=route.base_url,
            kind="speech",
            model=route.model,
            status=QUEUED,
            at_s=time.time(),
            formats=(target.format,),
            wire=plan_of(speech, route).wire,
            voice=route.voice,
            output=job_results.absolute(later.output),
            characters=len(request.text),
            utf8_bytes=size_bytes,
        )

    errand = JobSubmission(
        request=wire,
        job=handed,
        charge=lambda route: Reservation(
            command="speak",
            gateway=route.gateway,
            model=route.model,
            tag=tag,
            characters=len(request.text),
            utf8_bytes=size_bytes,
        ),
        price=lambda route: estimate(request.text, route, tools.cache),
        prepare=lambda route: prepare(speech, route, heeded),
        at_once=at_once,
        policy=job.policy,
    )
    await _hand_in(env, screen, tools, errand, job.routing, later, "speak", target, as_json=as_json)


async def transcribe(
    env: AppContext,
    screen: Console,
    tools: RunContext,
    job: TranscribeJob,
    request: TranscriptionRequest,
    format: str,
    target: Path | None,
    routing: Routing,
    later: BackgroundOptions,
) -> None:
    """Hand a recording in to be written down."""
    from .. import gateways
    from ..core.jobs import JobSubmission
    from ..core.route_warnings import RouteWarnings
    from ..core.transcription import TextStream, TranscriptionTask, estimate, prepare, takes
    from ..core.uploads import Uploads
    from ..types.jobs import QUEUED
    from ..types.jobs import RemoteJob as Handed
    from ..types.values import Reservation

    folder = env.scratch_folder("uploads")
    policy, tag, as_json = job.policy, job.tag, job.as_json
    work = TranscriptionTask(request, policy, folder, TextStream(), tag)
    uploads = Uploads(request.recording, folder)
    heeded = RouteWarnings(tools)

    async def wire(route: Route) -> WireRequest:
        recording = await uploads.fit_for(takes(route), route)
        return gateways.dialect(route.dialect).transcription(request._replace(recording=recording), route)

    async def at_once(route: Route, told: AttemptRecord, headers: Mapping[str, str], chunks: AsyncIterator[bytes]) -> None:
        from ..outputs import open_target

        body = b"".join([chunk async for chunk in chunks])
        transcript = gateways.dialect(route.dialect).transcript(body, headers)
        told.usage = transcript.usage
        handed_in = handed(route)._replace(id=told.request_id or "", status="succeeded")
        content = job_results.rendered(handed_in, transcript, body, target)
        if target is not None:
            file = await open_target(target, rescue_folder=env.scratch_folder("kept"), binary=False)
            await file.write(content)
            await file.commit()
        name = None if target is None else str(target)
        done = job_results.JobResult(handed_in, name, None, transcript, body, content)
        _tell_done(screen, "transcribe", done, as_json=as_json)

    def handed(route: Route) -> Handed:
        return Handed(
            id="",
            gateway=route.gateway,
            base_url=route.base_url,
            kind="transcription",
            model=route.model,
            status=QUEUED,
            at_s=time.time(),
            formats=(format,),
            wire="",
            output=job_results.absolute(later.output),
            audio_s=request.recording.duration_s,
            shape=vars(job.shape),
            by_word=job.by_word,
        )

    errand = JobSubmission(
        request=wire,
        job=handed,
        charge=lambda route: Reservation(
            command="transcribe",
            gateway=route.gateway,
            model=route.model,
            tag=tag,
            audio_s=request.recording.duration_s,
        ),
        price=lambda route: estimate(request.recording.duration_s, route, tools.cache),
        prepare=lambda route: prepare(work, route, uploads, heeded),
        at_once=at_once,
        policy=policy,
    )
    try:
        await _hand_in(env, screen, tools, errand, routing, later, "transcribe", target, as_json=as_json)
    finally:
        uploads.remove()


def fits_one_job(recording: Recording, routes: Sequence[Route]) -> bool:
    """Tell whether a recording is small enough to go as one job; how long it is does not matter there."""
    from .. import gateways

    limits = [gateways.dialect(route.dialect).limits(route).upload_bytes for route in routes]
    return all(limit is None or recording.size_bytes <= limit for limit in limits)


async def _hand_in(
    env: AppContext,
    screen: Console,
    tools: RunContext,
    errand: JobSubmission,
    routing: Routing,
    later: BackgroundOptions,
    command: str,
    target: audio_outputs.Target | Path | None,
    *,
    as_json: bool,
) -> None:
    """Hand work in and print its name; or wait for it, and fetch what it made."""
    from ..core.jobs import hand_in

    table = env.jobs
    async with screen.activity(lambda: f"{routing.routes[0].ref}: handing it in"):
        job, _ = await hand_in(errand, routing.routes, routing.skipped, tools, table)
    if job is None:
        return
    if not later.waits:
        if as_json:
            short: dict[str, Json] = {"id": job.id, "gateway": job.gateway, "status": job.status}
            screen.write_json({"ok": True, "command": command, "job": short})
        else:
            screen.write_text(f"{job.id}\n")
            screen.info(f"{job.status} at {job.gateway}: audiocli jobs wait {job.id}")
        return
    screen.info(f"{job.ref} is {job.status}")
    await _wait_for(env, screen, tools, job, command, target, as_json=as_json)


async def _wait_for(
    env: AppContext,
    screen: Console,
    tools: RunContext,
    job: RemoteJob,
    command: str,
    target: audio_outputs.Target | Path | None,
    *,
    as_json: bool,
) -> None:
    from ..core.jobs import WaitOptions, failure, not_over, wait
    from ..types.jobs import SUCCEEDED

    route = job_results.route_of(env, job)

    async def finish(job: RemoteJob, state: JobState, pace: PollThrottle) -> None:
        if job.status != SUCCEEDED:
            raise failure(job)
        done = await job_results.collect(env, tools, job, state, route, pace, target)
        _tell_done(screen, command, done, as_json=as_json)

    async with screen.activity(lambda: f"{job.ref}: waiting"):
        left = await wait([job], WaitOptions({job.gateway: route}, env.jobs, finish), tools)
    if left:
        raise not_over(left[0])


def _tell_done(screen: Console, command: str, done: job_results.JobResult, *, as_json: bool) -> None:
    if as_json:
        document = {**job_results.document(done), "command": command}
        (screen.result_json if done.output == "-" else screen.write_json)(document)
        return
    job_results.write_text(screen, done)
    screen.info(job_results.line(done))


def _aside(env: AppContext, format: str) -> Path:
    """Name a file for a result that came before anybody said where to."""
    import secrets

    folder = env.scratch_folder("kept")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder / f"{secrets.token_hex(4)}-speech.{format}"
