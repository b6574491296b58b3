"""`--background`: submit speech and transcription as background jobs, and wait for them with `--wait`."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, NamedTuple

from .. import gateways
from ..context import AppContext
from ..core.attempts import AttemptRecord
from ..core.audio_response import ReceivedAudio
from ..core.jobs import PollThrottle, WaitOptions, build_job_error, build_timeout_error, submit, wait_for_jobs
from ..core.progress import UploadProgress
from ..core.run_context import Response, RunContext
from ..core.speech import SpeechOperation, SpeechTask
from ..core.transcription import TextStream, TranscriptionOperation, TranscriptionTask
from ..errors import AudiocliError, UsageError
from ..outputs import MultiOutput
from ..types.jobs import QUEUED, SUCCEEDED, JobState, RemoteJob
from . import job_results
from .inputs import is_object
from .outputs import AudioDestination, choose_destination, choose_format, open_audio_outputs
from .progress import describe_request

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..console import Console
    from ..gateways.base import Dialect
    from ..routing import RoutePlan, RouteQuery
    from ..types.audio import Recording
    from ..types.json import Json
    from ..types.requests import TranscriptionRequest
    from ..types.routes import Route
    from .speak import SpeakPlan
    from .transcribe import TranscribePlan


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
    if background and is_object(output):
        raise UsageError("--background cannot write to an object store", hint="use -o FILE, and copy it")
    return BackgroundOptions(wait, output) if background else None


def select_job_gateway(app: AppContext, query: RouteQuery) -> RouteQuery:
    """Select the first gateway with a key that supports background jobs, unless the query names a gateway or model."""
    if query.gateway is not None or query.models or query.base_url is not None:
        return query
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
) -> AudioDestination:
    """Choose the format of speech that is fetched later. Its path may still be unknown.

    Raises:
        UsageError: The format is unknown, or the output cannot be used.
    """
    if options.output not in (None, "-"):
        return choose_destination(app, options.output, requested_format, default_format, play=False, player=None)
    format, warnings = choose_format(None, requested_format, default_format or "mp3")
    return AudioDestination(None, False, (), format, warnings)


def _build_job(route: Route, kind: str, format: str, output: str | None) -> RemoteJob:
    """Build a job that is about to be submitted. The gateway has not given it an ID yet."""
    return RemoteJob(
        id="",
        gateway=route.gateway,
        base_url=route.base_url,
        kind=kind,
        model=route.model,
        status=QUEUED,
        submitted_at_s=time.time(),
        formats=(format,),
        request_format="",
        output=job_results.make_absolute(output),
    )


class _SpeechJob(SpeechOperation):
    """Speech as a background job. Its output is opened only if the gateway returns the audio immediately."""

    def __init__(self, app: AppContext, ctx: RunContext, plan: SpeakPlan, options: BackgroundOptions) -> None:
        super().__init__(SpeechTask(plan.request, (), MultiOutput(())), ctx)
        self._app = app
        self._format = plan.destination.format
        self._output = options.output
        self.destination = plan.destination

    def build_job(self, route: Route) -> RemoteJob:
        reservation = self.build_reservation(route)
        return _build_job(route, "speech", self._format, self._output)._replace(
            request_format=self.plan_format(route).request_format,
            voice=route.voice,
            characters=reservation.characters,
            utf8_bytes=reservation.utf8_bytes,
        )

    async def receive(self, route: Route, response: Response, record: AttemptRecord) -> ReceivedAudio:
        if self.destination.path is None and not self.destination.is_stdout and not self.destination.players:
            self.destination = self.destination._replace(path=_create_rescue_path(self._app, self._format))
        outputs = await open_audio_outputs(self._app, self.destination)
        output = MultiOutput([audio_output.writer for audio_output in outputs])
        self.task = self.task._replace(audio_outputs=outputs)
        try:
            received = await super().receive(route, response, record)
        except BaseException:
            await output.abandon()
            raise
        await output.commit()
        return received


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
    ctx = ctx._replace(budget=plan.budget, retry_policy=plan.retry_policy, tag=plan.tag)
    operation = _SpeechJob(app, ctx, plan, options)
    async with console.activity(lambda: f"{plan.routing.routes[0].ref}: submitting"):
        job, received = await submit(operation, plan.routing.routes, plan.routing.skipped, ctx, app.jobs)
    if received is None:
        await _report_job(app, console, ctx, job, options, operation.command, plan.destination, as_json=as_json)
    else:
        result = job_results.JobResult(job, operation.destination.name, received)
        job_results.report_result(console, result, command=operation.command, as_json=as_json)


class _TranscriptionJob(TranscriptionOperation):
    """Transcription as a background job."""

    def __init__(
        self, task: TranscriptionTask, ctx: RunContext, plan: TranscribePlan, format: str, output: str | None
    ) -> None:
        super().__init__(task, ctx)
        self._plan = plan
        self._format = format
        self._output = output

    def build_job(self, route: Route) -> RemoteJob:
        style = self._plan.style
        return _build_job(route, "transcription", self._format, self._output)._replace(
            audio_s=self.task.request.recording.duration_s,
            caption_limits={name: value for name, value in vars(style.limits).items() if value is not None},
            by_word=style.by_word,
        )


async def submit_transcription(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: TranscribePlan,
    request: TranscriptionRequest,
    format: str,
    path: Path | None,
    routing: RoutePlan,
    options: BackgroundOptions,
) -> None:
    """Submit a recording to be transcribed; wait for the transcript with `--wait`.

    Raises:
        AudiocliError: No route accepted the job, the job failed, or its result cannot be written.
    """
    task = TranscriptionTask(request, app.scratch_directory("uploads"), TextStream())
    operation = _TranscriptionJob(task, ctx, plan, format, options.output)
    try:
        uploads = UploadProgress()
        async with console.activity(lambda: describe_request(f"{routing.routes[0].ref}: submitting", uploads)):
            ctx = ctx._replace(uploads=uploads)
            job, received = await submit(operation, routing.routes, routing.skipped, ctx, app.jobs)
    finally:
        operation.uploads.remove()
    if received is None:
        await _report_job(
            app, console, ctx, job, options, operation.command, path, as_json=plan.options.general.as_json
        )
        return
    for warning in received.warnings:
        console.warning(warning)
    result = await job_results.write_job_transcript(app, job, received.transcript, received.raw_response, path)
    job_results.report_result(console, result, command=operation.command, as_json=plan.options.general.as_json)


def is_within_upload_limit(recording: Recording, routes: Sequence[Route]) -> bool:
    """Return whether every route accepts the recording in one upload. Jobs have no limit of duration."""
    limits = [gateways.load_dialect(route.dialect).get_limits(route).max_upload_bytes for route in routes]
    return all(limit is None or recording.size_bytes <= limit for limit in limits)


async def _report_job(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    job: RemoteJob,
    options: BackgroundOptions,
    command: str,
    destination: job_results.Destination,
    *,
    as_json: bool,
) -> None:
    """Print the ID of a submitted job, or wait for it and write its result."""
    if options.wait:
        console.info(f"job {job.ref} is {job.status}")
        await _wait_for_job(app, console, ctx, job, command, destination, as_json=as_json)
    elif as_json:
        document: dict[str, Json] = {"id": job.id, "gateway": job.gateway, "status": job.status}
        console.write_json({"ok": True, "command": command, "job": document})
    else:
        console.write_text(f"{job.id}\n")
        console.info(f"job {job.ref} is {job.status}")
        console.hint(f"wait for it with: audiocli jobs wait {job.id}")


async def _wait_for_job(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    job: RemoteJob,
    command: str,
    destination: job_results.Destination,
    *,
    as_json: bool,
) -> None:
    route = job_results.resolve_route(app, job)

    async def finish(job: RemoteJob, state: JobState, throttle: PollThrottle) -> None:
        if job.status != SUCCEEDED:
            raise build_job_error(job)
        result = await job_results.fetch_result(app, ctx, job, state, route, throttle, destination)
        job_results.report_result(console, result, command=command, as_json=as_json)

    async with console.activity(lambda: f"{job.ref}: waiting"):
        unfinished = await wait_for_jobs([job], WaitOptions({job.gateway: route}, app.jobs, finish), ctx)
    if unfinished:
        raise build_timeout_error(unfinished[0])


def _create_rescue_path(app: AppContext, format: str) -> Path:
    """Return a new path for a result that arrived immediately although no output is known."""
    directory = app.scratch_directory("kept")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory / f"{secrets.token_hex(4)}-speech.{format}"
