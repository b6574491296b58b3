"""`audiocli jobs`: list, show, wait for, fetch and forget background jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext
from ..errors import AttemptError, AudiocliError, ExitCode, UsageError
from . import job_results
from .options import Bell, GatewayName, GatewayOptions, GeneralOptions, open_app, validate_timeout, with_options

if TYPE_CHECKING:
    from ..console import Console
    from ..core.jobs import PollThrottle
    from ..core.run_context import RunContext
    from ..types.jobs import JobState, RemoteJob

JobId = Annotated[str, typer.Argument(metavar="ID", help="ID of the job.")]
JobIds = Annotated[list[str], typer.Argument(metavar="ID...", help="IDs of the jobs.")]
Output = Annotated[
    str | None, typer.Option("--output", "-o", metavar="PATH", help="Write the result to this file; - is stdout.")
]


class ShowOptions(NamedTuple):
    """Options of `audiocli jobs show`."""

    job_id: JobId
    gateway: GatewayOptions = GatewayOptions()
    general: GeneralOptions = GeneralOptions()


class WaitOptions(NamedTuple):
    """Options of `audiocli jobs wait`."""

    job_ids: JobIds
    output: Output = None
    deadline_s: Annotated[
        float | None,
        typer.Option("--deadline", metavar="S", help="Stop waiting after this many seconds; jobs continue."),
    ] = None
    bell: Bell = False
    gateway: GatewayOptions = GatewayOptions()
    general: GeneralOptions = GeneralOptions()


class FetchOptions(NamedTuple):
    """Options of `audiocli jobs fetch`."""

    job_id: JobId
    output: Output = None
    gateway: GatewayOptions = GatewayOptions()
    general: GeneralOptions = GeneralOptions()


class ForgetOptions(NamedTuple):
    """Options of `audiocli jobs forget`."""

    job_ids: JobIds
    gateway: GatewayName = None
    general: GeneralOptions = GeneralOptions()


def build() -> typer.Typer:
    """Build the command group."""
    group = typer.Typer(help="Manage background jobs.", rich_markup_mode=None)
    group.callback(invoke_without_command=True)(jobs)
    group.command("show")(show)
    group.command("wait")(wait)
    group.command("fetch")(fetch)
    group.command("forget")(forget)
    return group


@with_options
def jobs(ctx: typer.Context, options: GeneralOptions) -> None:
    """Manage background jobs."""
    if ctx.invoked_subcommand is None:
        app, console = open_app(ctx, options)
        run_list(app, console, as_json=options.as_json)
    elif options.as_json:
        raise UsageError(f"put options after the subcommand: audiocli jobs {ctx.invoked_subcommand} --json")


@with_options
def show(ctx: typer.Context, options: ShowOptions) -> None:
    """Show the state of a job."""
    app, console = open_app(ctx, options.general, exchanges=options.gateway.exchanges)
    run_show(app, console, options)


@with_options
def wait(ctx: typer.Context, options: WaitOptions) -> int:
    """Wait for jobs to end, and fetch their results."""
    app, console = open_app(ctx, options.general, bell=options.bell, exchanges=options.gateway.exchanges)
    return run_wait(app, console, options)


@with_options
def fetch(ctx: typer.Context, options: FetchOptions) -> None:
    """Fetch the result of a finished job."""
    app, console = open_app(ctx, options.general, quiet_json=True, exchanges=options.gateway.exchanges)
    run_fetch(app, console, options)


@with_options
def forget(ctx: typer.Context, options: ForgetOptions) -> None:
    """Remove jobs from the list. They continue at the gateway, which charges for them."""
    app, console = open_app(ctx, options.general, quiet_json=True)
    for job in [_find_job(app, job_id, options.gateway) for job_id in dict.fromkeys(options.job_ids)]:
        app.jobs.delete(job)
        if options.general.as_json:
            console.write_json({"ok": True, "command": "jobs", "job": {"id": job.id, "gateway": job.gateway}})
        else:
            console.result(f"removed {job.ref} from the list")


def _find_job(app: AppContext, job_id: str, gateway: str | None) -> RemoteJob:
    """Find a job by its ID.

    Raises:
        UsageError: There is no such job, or several gateways have one.
    """
    matches = [job for job in app.jobs.find(job_id) if gateway in (None, job.gateway)]
    if not matches:
        recent_ids = ", ".join(job.id for job in app.jobs.list_all()[-5:])
        raise UsageError(f"unknown job {job_id!r}", hint=f"recent jobs: {recent_ids}" if recent_ids else None)
    if len(matches) > 1:
        raise UsageError(f"several gateways have a job {job_id}", hint="use " + " or ".join(job.ref for job in matches))
    app.record_job(matches[0])
    return matches[0]


def run_list(app: AppContext, console: Console, *, as_json: bool) -> None:
    """Print all jobs."""
    jobs = app.jobs.list_all()
    if as_json:
        for job in jobs:
            console.write_json_line(job_results.build_job_document(job))
        return
    if not jobs:
        console.write_text("no jobs\n")
        return
    rows = []
    for job in jobs:
        times = (job_results.format_local_time(at_s) for at_s in (job.submitted_at_s, job.expires_at_s))
        fields = [field or "-" for field in (*times, job.output)]
        rows.append([job.id, job.gateway, job.kind, job.model, job.status, *fields])
    header = ["id", "gateway", "kind", "model", "status", "submitted", "expires", "output"]
    optional = ["kind", "expires", "submitted", "gateway", "output"]
    console.write_table(header, rows, numeric=[False] * len(header), optional=optional)


def run_show(app: AppContext, console: Console, options: ShowOptions) -> None:
    """Poll a job and print its state. If the poll fails, print the last known state.

    Raises:
        UsageError: There is no such job, or its gateway cannot be used.
    """
    from ..core.jobs import poll_job

    job = _find_job(app, options.job_id, options.gateway.name)
    timeout_s = validate_timeout(options.gateway.timeout_s)
    try:
        route = job_results.resolve_route(app, job, options.gateway.base_url)
        job, _ = app.run(
            lambda ctx: poll_job(job, route, app.jobs, ctx),
            read_timeout_s=timeout_s,
            info=console.info,
            debug=console.debug,
        )
    except AttemptError as error:
        console.warning(f"cannot poll {job.gateway}; showing the last known state: {error.message}")
    document = job_results.build_job_document(job)
    if options.general.as_json:
        console.write_json({"ok": True, "command": "jobs", "job": document})
    else:
        document["submitted_at"] = job_results.format_local_time(job.submitted_at_s)
        document["expires_at"] = job_results.format_local_time(job.expires_at_s)
        console.write_text("".join(f"{name:<15} {value}\n" for name, value in document.items() if value is not None))


def run_wait(app: AppContext, console: Console, options: WaitOptions) -> int:
    """Wait for jobs, report each when it ends, and return the exit code.

    Raises:
        UsageError: An option is invalid, or there is no such job.
        AudiocliError: The only job failed or has not ended by the deadline.
    """
    from ..core import jobs as core_jobs
    from ..core.jobs import build_job_error, build_timeout_error, wait_for_jobs
    from ..types.jobs import SUCCEEDED

    output, as_json = options.output, options.general.as_json
    jobs = [_find_job(app, job_id, options.gateway.name) for job_id in dict.fromkeys(options.job_ids)]
    if output is not None and len(jobs) > 1:
        raise UsageError(
            "-o cannot be used with several jobs", hint="use -o when submitting, or fetch the jobs one by one"
        )
    if options.deadline_s is not None and not 0 <= options.deadline_s <= 1e9:
        raise UsageError(f"--deadline {options.deadline_s:g}: must be between 0 and 1000000000 seconds")
    timeout_s = validate_timeout(options.gateway.timeout_s)
    routes = {job.gateway: job_results.resolve_route(app, job, options.gateway.base_url) for job in jobs}
    is_only_job = len(jobs) == 1
    store = app.jobs
    errors: list[AudiocliError] = []
    destinations = {job.ref: _choose_destination(app, job, output, is_only_job=is_only_job) for job in jobs}

    async def wait(ctx: RunContext) -> list[RemoteJob]:
        async def finish(job: RemoteJob, state: JobState, throttle: PollThrottle) -> None:
            try:
                if job.status != SUCCEEDED:
                    raise build_job_error(job)
                route = routes[job.gateway]
                destination, has_destination = destinations[job.ref]
                if has_destination:
                    result = await job_results.fetch_result(app, ctx, job, state, route, throttle, destination)
                    _report_result(console, result, as_json=as_json)
                else:
                    _report_unfetched(console, job, as_json=as_json)
            except AudiocliError as error:
                if is_only_job:
                    raise
                errors.append(error)
                _report_error(console, job, error, as_json=as_json)

        async with console.activity(lambda: f"waiting for {len(jobs)} job{'s' * (not is_only_job)}"):
            return await wait_for_jobs(jobs, core_jobs.WaitOptions(routes, store, finish, options.deadline_s), ctx)

    unfinished = app.run(wait, read_timeout_s=timeout_s, info=console.info, debug=console.debug)
    if unfinished and is_only_job:
        raise build_timeout_error(unfinished[0])
    for job in unfinished:
        errors.append(build_timeout_error(job))
        _report_error(console, job, errors[-1], as_json=as_json)
    if not errors:
        return ExitCode.OK
    return errors[0].exit_code if len(errors) == len(jobs) else ExitCode.PARTIAL


def _choose_destination(
    app: AppContext, job: RemoteJob, output: str | None, *, is_only_job: bool
) -> tuple[job_results.Destination, bool]:
    """Choose where a result goes, and whether it goes anywhere: audio without an output can be fetched later."""
    try:
        return job_results.choose_output(job, output, app, is_only_job=is_only_job), True
    except UsageError:
        if output is not None:
            raise
        return None, False


def _report_unfetched(console: Console, job: RemoteJob, *, as_json: bool) -> None:
    """Report a job that succeeded but has no output for its audio."""
    if as_json:
        console.write_json({"ok": True, "command": "jobs", "job": job_results.build_job_document(job)})
    else:
        console.write_text(f"{job.id}  {job.status}\n")
        console.hint(f"fetch it with: audiocli jobs fetch {job.id} -o FILE")


def _report_result(console: Console, result: job_results.JobResult, *, as_json: bool) -> None:
    if as_json:
        (console.result_json if result.output == "-" else console.write_json)(job_results.build_document(result))
    elif result.transcript is not None and result.output is None:
        job_results.write_transcript(console, result)
    elif result.output == "-":
        console.result(*job_results.list_result_parts(result))
    else:
        console.write_text("  ".join(job_results.list_result_parts(result)) + "\n")


def _report_error(console: Console, job: RemoteJob, error: AudiocliError, *, as_json: bool) -> None:
    if as_json:
        from ..console import build_error_document

        console.write_json({**build_error_document(error, "jobs"), "job": job_results.build_job_document(job)})
    else:
        console.write_text(f"{job.id}: {error.message}\n")


def run_fetch(app: AppContext, console: Console, options: FetchOptions) -> None:
    """Fetch the result of a job and write it.

    Raises:
        UsageError: There is no such job, or it has not ended.
        AudiocliError: The job failed, or its result cannot be fetched or written.
    """
    from ..core.jobs import PollThrottle, build_job_error, poll_job
    from ..types.jobs import FAILED_STATUSES, SUCCEEDED

    job = _find_job(app, options.job_id, options.gateway.name)
    timeout_s = validate_timeout(options.gateway.timeout_s)
    route = job_results.resolve_route(app, job, options.gateway.base_url)
    destination = job_results.choose_output(job, options.output, app, is_only_job=True)

    async def fetch(ctx: RunContext) -> job_results.JobResult:
        polled, state = await poll_job(job, route, app.jobs, ctx)
        if polled.status in FAILED_STATUSES:
            raise build_job_error(polled)
        if polled.status != SUCCEEDED:
            raise UsageError(
                f"{polled.ref} is {polled.status}", hint=f"wait for it with: audiocli jobs wait {polled.id}"
            )
        return await job_results.fetch_result(app, ctx, polled, state, route, PollThrottle(ctx), destination)

    result = app.run(fetch, read_timeout_s=timeout_s, info=console.info, debug=console.debug)
    job_results.report_result(console, result, command="jobs", as_json=options.general.as_json)
