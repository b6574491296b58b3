"""`--background`: submit speech and transcription as background jobs, and wait for them with `--wait`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..errors import AudiocliError, UsageError
from . import audio_outputs, job_results

if TYPE_CHECKING:
    from pathlib import Path

    from ..console import Console
    from ..core.attempts import AttemptRecord
    from ..core.jobs import JobSubmission, PollThrottle
    from ..core.run_context import RunContext
    from ..gateways.base import Dialect
    from ..routing import RoutePlan, RouteQuery
    from ..types.audio import Recording
    from ..types.jobs import JobState, RemoteJob
    from ..types.json import Json
    from ..types.requests import HttpRequest, TranscriptionRequest
    from ..types.routes import Route
    from .speak import SpeakPlan
    from .transcribe_run import TranscribePlan


class BackgroundOptions(NamedTuple):
    """Options of a background job. `output` is the path of the result as given on the command line."""

    wait: bool
    output: str | None


def parse_background_options(
    background: bool, wait: bool, output: str | None, *, play: bool = False
) -> BackgroundOptions | None:
    """Check `--background` and `--wait`. Return None without `--background`.

    Raises:
        UsageError: `--wait` without `--background`, or playback without `--wait`.
    """
    if wait and not background:
        raise UsageError("--wait requires --background")
    if background and play and not wait:
        raise UsageError("--background cannot play audio", hint="add --wait to wait for the result and play it")
    return BackgroundOptions(wait, output) if background else None


def select_job_gateway(app: AppContext, query: RouteQuery) -> RouteQuery:
    """Select the first gateway with a key that supports background jobs, unless the query names a gateway or model."""
    if query.gateway is not None or query.models or query.base_url is not None:
        return query
    from .. import gateways

    for gateway in app.settings.gateways:
        if gateway.key is not None and gateways.load_dialect(gateway.dialect).supports_jobs:
            return query._replace(gateway=gateway.name)
    return query


def check_job_support(dialect: Dialect, route: Route) -> AudiocliError | None:
    """Return an error if the gateway does not support background jobs."""
    if dialect.supports_jobs:
        return None
    return UsageError(f"{route.gateway} does not support --background", hint="use -g therouter")


def choose_output(
    app: AppContext, options: BackgroundOptions, requested_format: str | None, default_format: str | None
) -> audio_outputs.AudioDestination:
    """Choose the format of speech that is fetched later. Its path may still be unknown.

    Raises:
        UsageError: The format is unknown, or the output cannot be used.
    """
    if options.output not in (None, "-"):
        return audio_outputs.choose_destination(
            app, options.output, requested_format, default_format, play=False, player=None
        )
    format, warnings = audio_outputs.choose_format(None, requested_format, default_format or "mp3")
    return audio_outputs.AudioDestination(None, False, (), format, warnings)


async def submit_speech(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: SpeakPlan,
    options: BackgroundOptions,
    *,
    as_json: bool,
) -> None:
    """Submit a text to be spoken; wait for the audio with `--wait`.

    Raises:
        AudiocliError: No route accepted the job, the job failed, or its result cannot be written.
    """
    from .. import gateways
    from ..core.audio_response import receive_audio
    from ..core.jobs import JobSubmission
    from ..core.route_warnings import RouteWarnings
    from ..core.speech import SpeechTask, estimate, plan_format, prepare
    from ..outputs import MultiOutput
    from ..types.jobs import QUEUED, SUCCEEDED
    from ..types.jobs import RemoteJob as Job
    from ..types.ledger import Reservation

    request, destination, tag = plan.request, plan.destination, plan.tag
    task = SpeechTask(request, (), MultiOutput(()), plan.retry_policy, tag)
    route_warnings = RouteWarnings(ctx)
    size_bytes = len(request.text.encode("utf-8", "replace"))

    def choose_request_format(route: Route) -> str:
        return plan_format(task, route).request_format

    async def build_request(route: Route) -> HttpRequest:
        route_request = request._replace(format=choose_request_format(route))
        return gateways.load_dialect(route.dialect).build_speech_request(route_request, route)

    async def receive_immediately(
        route: Route, record: AttemptRecord, headers: Mapping[str, str], blocks: AsyncIterator[bytes]
    ) -> None:
        target = destination
        if target.path is None and not target.is_stdout and not target.players:
            target = target._replace(path=_create_rescue_path(app, destination.format))
        outputs = await audio_outputs.open_outputs(app, target)
        output = MultiOutput([audio_output.writer for audio_output in outputs])
        try:
            received = await receive_audio(
                headers, blocks, outputs, record, ctx, requested_format=choose_request_format(route)
            )
        except BaseException:
            await output.abandon()
            raise
        await output.commit()
        job = build_job(route)._replace(id=record.request_id or "", status=SUCCEEDED)
        _report_result(console, "speak", job_results.JobResult(job, target.name, received), as_json=as_json)

    def build_job(route: Route) -> Job:
        return Job(
            id="",
            gateway=route.gateway,
            base_url=route.base_url,
            kind="speech",
            model=route.model,
            status=QUEUED,
            submitted_at_s=time.time(),
            formats=(destination.format,),
            request_format=choose_request_format(route),
            voice=route.voice,
            output=job_results.make_absolute(options.output),
            characters=len(request.text),
            utf8_bytes=size_bytes,
        )

    submission = JobSubmission(
        build_request=build_request,
        build_job=build_job,
        build_reservation=lambda route: Reservation(
            command="speak",
            gateway=route.gateway,
            model=route.model,
            tag=tag,
            characters=len(request.text),
            utf8_bytes=size_bytes,
        ),
        estimate=lambda route: estimate(request.text, route, ctx.cache),
        prepare=lambda route: prepare(task, route, route_warnings),
        receive_immediately=receive_immediately,
        retry_policy=plan.retry_policy,
    )
    await _submit(app, console, ctx, submission, plan.routing, options, "speak", destination, as_json=as_json)


async def submit_transcription(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: TranscribePlan,
    request: TranscriptionRequest,
    format: str,
    target: Path | None,
    routing: RoutePlan,
    options: BackgroundOptions,
) -> None:
    """Submit a recording to be transcribed; wait for the transcript with `--wait`.

    Raises:
        AudiocliError: No route accepted the job, the job failed, or its result cannot be written.
    """
    from .. import gateways
    from ..core.jobs import JobSubmission
    from ..core.route_warnings import RouteWarnings
    from ..core.transcription import TextStream, TranscriptionTask, estimate, get_accepted_formats, prepare
    from ..core.uploads import Uploads
    from ..types.jobs import QUEUED, SUCCEEDED
    from ..types.jobs import RemoteJob as Job
    from ..types.ledger import Reservation

    directory = app.scratch_directory("uploads")
    task = TranscriptionTask(request, plan.retry_policy, directory, TextStream(), plan.tag)
    uploads = Uploads(request.recording, directory)
    route_warnings = RouteWarnings(ctx)

    async def build_request(route: Route) -> HttpRequest:
        recording = await uploads.convert_for(get_accepted_formats(route), route)
        route_request = request._replace(recording=recording)
        return gateways.load_dialect(route.dialect).build_transcription_request(route_request, route)

    async def receive_immediately(
        route: Route, record: AttemptRecord, headers: Mapping[str, str], blocks: AsyncIterator[bytes]
    ) -> None:
        from ..outputs import open_output

        body = b"".join([block async for block in blocks])
        transcript = gateways.load_dialect(route.dialect).parse_transcript(body, headers)
        record.usage = transcript.usage
        job = build_job(route)._replace(id=record.request_id or "", status=SUCCEEDED)
        content = job_results.render_transcript(job, transcript, body, target)
        if target is not None:
            output = await open_output(target, rescue_directory=app.scratch_directory("kept"), binary=False)
            await output.write(content)
            await output.commit()
        name = None if target is None else str(target)
        result = job_results.JobResult(job, name, None, transcript, body, content)
        _report_result(console, "transcribe", result, as_json=plan.as_json)

    def build_job(route: Route) -> Job:
        return Job(
            id="",
            gateway=route.gateway,
            base_url=route.base_url,
            kind="transcription",
            model=route.model,
            status=QUEUED,
            submitted_at_s=time.time(),
            formats=(format,),
            request_format="",
            output=job_results.make_absolute(options.output),
            audio_s=request.recording.duration_s,
            caption_limits=vars(plan.caption_limits),
            by_word=plan.by_word,
        )

    submission = JobSubmission(
        build_request=build_request,
        build_job=build_job,
        build_reservation=lambda route: Reservation(
            command="transcribe",
            gateway=route.gateway,
            model=route.model,
            tag=plan.tag,
            audio_s=request.recording.duration_s,
        ),
        estimate=lambda route: estimate(request.recording.duration_s, route, ctx.cache),
        prepare=lambda route: prepare(task, route, uploads, route_warnings),
        receive_immediately=receive_immediately,
        retry_policy=plan.retry_policy,
    )
    try:
        await _submit(app, console, ctx, submission, routing, options, "transcribe", target, as_json=plan.as_json)
    finally:
        uploads.remove()


def is_within_upload_limit(recording: Recording, routes: Sequence[Route]) -> bool:
    """Return whether every route accepts the recording in one upload. Jobs have no limit of duration."""
    from .. import gateways

    limits = [gateways.load_dialect(route.dialect).get_limits(route).max_upload_bytes for route in routes]
    return all(limit is None or recording.size_bytes <= limit for limit in limits)


async def _submit(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    submission: JobSubmission,
    routing: RoutePlan,
    options: BackgroundOptions,
    command: str,
    target: audio_outputs.AudioDestination | Path | None,
    *,
    as_json: bool,
) -> None:
    """Submit a job and print its ID, or wait for it and write its result."""
    from ..core.jobs import submit

    jobs = app.jobs
    async with console.activity(lambda: f"{routing.routes[0].ref}: submitting"):
        job, _ = await submit(submission, routing.routes, routing.skipped, ctx, jobs)
    if job is None:
        return
    if not options.wait:
        if as_json:
            document: dict[str, Json] = {"id": job.id, "gateway": job.gateway, "status": job.status}
            console.write_json({"ok": True, "command": command, "job": document})
        else:
            console.write_text(f"{job.id}\n")
            console.info(f"job {job.ref} is {job.status}; wait for it with: audiocli jobs wait {job.id}")
        return
    console.info(f"job {job.ref} is {job.status}")
    await _wait_for_job(app, console, ctx, job, command, target, as_json=as_json)


async def _wait_for_job(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    job: RemoteJob,
    command: str,
    target: audio_outputs.AudioDestination | Path | None,
    *,
    as_json: bool,
) -> None:
    from ..core.jobs import WaitOptions, build_job_error, build_timeout_error, wait_for_jobs
    from ..types.jobs import SUCCEEDED

    route = job_results.resolve_route(app, job)

    async def finish(job: RemoteJob, state: JobState, throttle: PollThrottle) -> None:
        if job.status != SUCCEEDED:
            raise build_job_error(job)
        result = await job_results.fetch_result(app, ctx, job, state, route, throttle, target)
        _report_result(console, command, result, as_json=as_json)

    async with console.activity(lambda: f"{job.ref}: waiting"):
        unfinished = await wait_for_jobs([job], WaitOptions({job.gateway: route}, app.jobs, finish), ctx)
    if unfinished:
        raise build_timeout_error(unfinished[0])


def _report_result(console: Console, command: str, result: job_results.JobResult, *, as_json: bool) -> None:
    if as_json:
        document = {**job_results.build_document(result), "command": command}
        (console.result_json if result.output == "-" else console.write_json)(document)
        return
    job_results.write_transcript(console, result)
    console.info(job_results.format_line(result))


def _create_rescue_path(app: AppContext, format: str) -> Path:
    """Return a new path for a result that arrived immediately although no output is known."""
    import secrets

    directory = app.scratch_directory("kept")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory / f"{secrets.token_hex(4)}-speech.{format}"
