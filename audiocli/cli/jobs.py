"""`audiocli jobs`: list, show, wait for, fetch and forget background jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..context import AppContext
from ..errors import AttemptError, AudiocliError, ExitCode, UsageError
from . import job_results, options

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
Deadline = Annotated[
    float | None, typer.Option("--deadline", metavar="S", help="Stop waiting after this many seconds; jobs continue.")
]


def build() -> typer.Typer:
    """Build the command group."""
    group = typer.Typer(help="Manage background jobs.", rich_markup_mode=None)

    @group.callback(invoke_without_command=True)
    def jobs(
        ctx: typer.Context,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Manage background jobs."""
        if ctx.invoked_subcommand is None:
            _list(ctx, as_json=as_json, quiet=quiet, debug=debug)
        elif as_json:
            raise UsageError(f"put options after the subcommand: audiocli jobs {ctx.invoked_subcommand} --json")

    @group.command("show")
    def show(
        ctx: typer.Context,
        job_id: JobId,
        gateway: options.Gateway = None,
        base_url: options.BaseUrl = None,
        timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Show the state of a job."""
        app = options.get_app(ctx)
        console = options.build_console(app, is_quiet=quiet, is_debugging=debug)
        job = _find_job(app, job_id, gateway)
        _show(app, console, job, base_url, options.validate_timeout(timeout), as_json=as_json)

    @group.command("wait")
    def wait(
        ctx: typer.Context,
        job_ids: JobIds,
        output: Output = None,
        deadline: Deadline = None,
        gateway: options.Gateway = None,
        base_url: options.BaseUrl = None,
        timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> int:
        """Wait for jobs to end, and fetch their results."""
        app = options.get_app(ctx)
        console = options.build_console(app, is_quiet=quiet, is_debugging=debug)
        jobs = [_find_job(app, job_id, gateway) for job_id in dict.fromkeys(job_ids)]
        if output is not None and len(jobs) > 1:
            raise UsageError(
                "-o cannot be used with several jobs", hint="use -o when submitting, or fetch the jobs one by one"
            )
        if deadline is not None and not 0 <= deadline <= 1e9:
            raise UsageError(f"--deadline {deadline:g}: must be between 0 and 1000000000 seconds")
        read_timeout_s = options.validate_timeout(timeout)
        return _wait(app, console, jobs, output, deadline, base_url, read_timeout_s, as_json=as_json)

    @group.command("fetch")
    def fetch(
        ctx: typer.Context,
        job_id: JobId,
        output: Output = None,
        gateway: options.Gateway = None,
        base_url: options.BaseUrl = None,
        timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Fetch the result of a finished job."""
        app = options.get_app(ctx)
        console = options.build_console(app, is_quiet=quiet or as_json, is_debugging=debug)
        job = _find_job(app, job_id, gateway)
        _fetch(app, console, job, output, base_url, options.validate_timeout(timeout), as_json=as_json)

    @group.command("forget")
    def forget(
        ctx: typer.Context,
        job_ids: JobIds,
        gateway: options.Gateway = None,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Remove jobs from the list. They continue at the gateway, which charges for them."""
        app = options.get_app(ctx)
        console = options.build_console(app, is_quiet=quiet or as_json, is_debugging=debug)
        for job in [_find_job(app, job_id, gateway) for job_id in dict.fromkeys(job_ids)]:
            app.jobs.delete(job)
            if as_json:
                console.write_json({"ok": True, "command": "jobs", "job": {"id": job.id, "gateway": job.gateway}})
            else:
                console.info(f"removed {job.ref} from the list")

    return group


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
    return matches[0]


def _list(ctx: typer.Context, *, as_json: bool, quiet: bool, debug: bool) -> None:
    app = options.get_app(ctx)
    console = options.build_console(app, is_quiet=quiet, is_debugging=debug)
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
        document = job_results.build_job_document(job)
        fields = [str(document[name] or "-") for name in ("submitted_at", "expires_at", "output")]
        rows.append([job.id, job.gateway, job.kind, job.model, job.status, *fields])
    header = ["id", "gateway", "kind", "model", "status", "submitted", "expires", "output"]
    console.write_table(header, rows, numeric=[False] * len(header))


def _show(
    app: AppContext, console: Console, job: RemoteJob, base_url: str | None, read_timeout_s: float, *, as_json: bool
) -> None:
    from ..core.jobs import poll_job

    try:
        route = job_results.resolve_route(app, job, base_url)
        job, _ = app.run(
            lambda ctx: poll_job(job, route, app.jobs, ctx),
            read_timeout_s=read_timeout_s,
            info=console.info,
            debug=console.debug,
        )
    except AttemptError as error:
        console.warning(f"cannot poll {job.gateway}; showing the last known state: {error.message}")
    document = job_results.build_job_document(job)
    if as_json:
        console.write_json({"ok": True, "command": "jobs", "job": document})
    else:
        console.write_text("".join(f"{name:<15} {value}\n" for name, value in document.items() if value is not None))


def _wait(
    app: AppContext,
    console: Console,
    jobs: list[RemoteJob],
    output: str | None,
    deadline_s: float | None,
    base_url: str | None,
    read_timeout_s: float,
    *,
    as_json: bool,
) -> int:
    """Wait for jobs, report each when it ends, and return the exit code.

    Raises:
        AudiocliError: The only job failed or has not ended by the deadline.
    """
    from ..core.jobs import WaitOptions, build_job_error, build_timeout_error, wait_for_jobs
    from ..types.jobs import SUCCEEDED

    routes = {job.gateway: job_results.resolve_route(app, job, base_url) for job in jobs}
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
            return await wait_for_jobs(jobs, WaitOptions(routes, store, finish, deadline_s), ctx)

    unfinished = app.run(wait, read_timeout_s=read_timeout_s, info=console.info, debug=console.debug)
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
        console.write_text(f"{job.id}: {job.status}\n")
        console.info(f"fetch it with: audiocli jobs fetch {job.id} -o FILE")


def _report_result(console: Console, result: job_results.JobResult, *, as_json: bool) -> None:
    if as_json:
        (console.result_json if result.output == "-" else console.write_json)(job_results.build_document(result))
    elif result.transcript is not None and result.output is None:
        job_results.write_transcript(console, result)
    elif result.output == "-":
        console.info(job_results.format_line(result))
    else:
        console.write_text(job_results.format_line(result) + "\n")


def _report_error(console: Console, job: RemoteJob, error: AudiocliError, *, as_json: bool) -> None:
    if as_json:
        from ..console import build_error_document

        console.write_json({**build_error_document(error, "jobs"), "job": job_results.build_job_document(job)})
    else:
        console.write_text(f"{job.id}: {error.message}\n")


def _fetch(
    app: AppContext,
    console: Console,
    job: RemoteJob,
    output: str | None,
    base_url: str | None,
    read_timeout_s: float,
    *,
    as_json: bool,
) -> None:
    from ..core.jobs import PollThrottle, build_job_error, poll_job
    from ..types.jobs import FAILED_STATUSES, SUCCEEDED

    route = job_results.resolve_route(app, job, base_url)
    destination = job_results.choose_output(job, output, app, is_only_job=True)

    async def fetch(ctx: RunContext) -> job_results.JobResult:
        polled, state = await poll_job(job, route, app.jobs, ctx)
        if polled.status in FAILED_STATUSES:
            raise build_job_error(polled)
        if polled.status != SUCCEEDED:
            raise UsageError(
                f"{polled.ref} is {polled.status}", hint=f"wait for it with: audiocli jobs wait {polled.id}"
            )
        return await job_results.fetch_result(app, ctx, polled, state, route, PollThrottle(ctx), destination)

    result = app.run(fetch, read_timeout_s=read_timeout_s, info=console.info, debug=console.debug)
    if as_json:
        (console.result_json if result.output == "-" else console.write_json)(job_results.build_document(result))
    else:
        job_results.write_transcript(console, result)
        console.info(job_results.format_line(result))
