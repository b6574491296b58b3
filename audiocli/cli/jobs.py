"""`audiocli jobs`: work that gateways do in their own time."""

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
    from ..types.jobs import RemoteJob, JobState
    from ..types.values import Route

Name = Annotated[str, typer.Argument(metavar="ID", help="The job.")]
Names = Annotated[list[str], typer.Argument(metavar="ID...", help="The jobs.")]
Output = Annotated[
    str | None, typer.Option("--output", "-o", metavar="PATH", help="Write the result here; - is stdout.")
]
Deadline = Annotated[
    float | None, typer.Option("--deadline", metavar="S", help="Give up waiting after so many seconds; jobs go on.")
]


def build() -> typer.Typer:
    app = typer.Typer(help="Work that gateways do in their own time.", rich_markup_mode=None)

    @app.callback(invoke_without_command=True)
    def jobs(
        context: typer.Context,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Work that gateways do in their own time."""
        if context.invoked_subcommand is None:
            _list(context, as_json=as_json, quiet=quiet, debug=debug)
        elif as_json:
            raise UsageError(f"flags of {context.invoked_subcommand} go behind it")

    @app.command("show")
    def show(
        context: typer.Context,
        name: Name,
        gateway: options.Gateway = None,
        base_url: options.BaseUrl = None,
        timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Ask after one job, and print all that is known of it."""
        env = options.get_app(context)
        screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
        job = _job(env, name, gateway)
        _show(env, screen, job, base_url, options.checked_timeout(timeout), as_json=as_json)

    @app.command("wait")
    def wait(
        context: typer.Context,
        names: Names,
        output: Output = None,
        deadline: Deadline = None,
        gateway: options.Gateway = None,
        base_url: options.BaseUrl = None,
        timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> int:
        """Wait until jobs are over, and fetch what they made."""
        env = options.get_app(context)
        screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
        found = [_job(env, name, gateway) for name in dict.fromkeys(names)]
        if output is not None and len(found) > 1:
            raise UsageError("-o is for one job", hint="say -o when handing work in, or fetch one at a time")
        if deadline is not None and not 0 <= deadline <= 1e9:
            raise UsageError(f"--deadline {deadline:g}: seconds, 0 or more")
        silence_s = options.checked_timeout(timeout)
        return _wait(env, screen, found, output, deadline, base_url, silence_s, as_json=as_json)

    @app.command("fetch")
    def fetch(
        context: typer.Context,
        name: Name,
        output: Output = None,
        gateway: options.Gateway = None,
        base_url: options.BaseUrl = None,
        timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Fetch what a finished job made, without waiting for it."""
        env = options.get_app(context)
        screen = options.build_console(env, is_quiet=quiet or as_json, is_debugging=debug)
        job = _job(env, name, gateway)
        _fetch(env, screen, job, output, base_url, options.checked_timeout(timeout), as_json=as_json)

    @app.command("forget")
    def forget(
        context: typer.Context,
        names: Names,
        gateway: options.Gateway = None,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Strike jobs off the list; at the gateway they go on, and are charged."""
        env = options.get_app(context)
        screen = options.build_console(env, is_quiet=quiet or as_json, is_debugging=debug)
        for job in [_job(env, name, gateway) for name in dict.fromkeys(names)]:
            env.jobs.forget(job)
            if as_json:
                screen.write_json({"ok": True, "command": "jobs", "job": {"id": job.id, "gateway": job.gateway}})
            else:
                screen.info(f"{job.ref} is forgotten")

    return app


def _job(env: AppContext, name: str, gateway: str | None) -> RemoteJob:
    """Find a job by its name. Raises: UsageError: there is none, or several gateways have one."""
    found = [job for job in env.jobs.named(name) if gateway in (None, job.gateway)]
    if not found:
        known = ", ".join(job.id for job in env.jobs.all()[-5:])
        raise UsageError(f"no job {name!r} is known here", hint=f"the last ones: {known}" if known else None)
    if len(found) > 1:
        raise UsageError(f"several jobs are called {name}", hint="say " + " or ".join(job.ref for job in found))
    return found[0]


def _list(context: typer.Context, *, as_json: bool, quiet: bool, debug: bool) -> None:
    env = options.get_app(context)
    screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
    found = env.jobs.all()
    if as_json:
        for job in found:
            screen.write_json(job_results.job_document(job))
        return
    if not found:
        screen.write_text("no jobs\n")
        return
    rows = []
    for job in found:
        told = job_results.job_document(job)
        rows.append([job.id, job.gateway, job.kind, job.model, job.status, *(str(told[n] or "-") for n in MOMENTS)])
    header = ["id", "gateway", "kind", "model", "status", "handed in", "kept until", "output"]
    screen.write_table(header, rows, numeric=[False] * len(header))


MOMENTS = ("submitted_at", "expires_at", "output")


def _show(env: AppContext, screen: Console, job: RemoteJob, base_url: str | None, silence_s: float, *, as_json: bool) -> None:
    from ..core.jobs import look

    try:
        route = job_results.route_of(env, job, base_url)
        job, _ = env.run(
            lambda tools: look(job, route, env.jobs, tools), silence_s=silence_s, tell=screen.info, log=screen.debug
        )
    except AttemptError as error:
        screen.warning(f"{job.gateway} cannot be asked, so this is what was last known: {error.message}")
    told = job_results.job_document(job)
    if as_json:
        screen.write_json({"ok": True, "command": "jobs", "job": told})
    else:
        screen.write_text("".join(f"{name:<15} {value}\n" for name, value in told.items() if value is not None))


def _wait(
    env: AppContext,
    screen: Console,
    jobs: list[RemoteJob],
    output: str | None,
    deadline_s: float | None,
    base_url: str | None,
    silence_s: float,
    *,
    as_json: bool,
) -> int:
    """Wait for jobs and tell of each as it ends; give the exit code."""
    from ..core.jobs import WaitOptions, failure, not_over, wait
    from ..types.jobs import SUCCEEDED

    routes = {job.gateway: job_results.route_of(env, job, base_url) for job in jobs}
    is_only = len(jobs) == 1
    table = env.jobs
    errors: list[AudiocliError] = []
    wanted = {job.ref: _wanted(env, job, output, is_only=is_only) for job in jobs}

    async def work(tools: RunContext) -> list[RemoteJob]:
        async def finish(job: RemoteJob, state: JobState, pace: PollThrottle) -> None:
            try:
                if job.status != SUCCEEDED:
                    raise failure(job)
                route = routes[job.gateway]
                await _tell_result(env, screen, tools, job, state, route, pace, wanted[job.ref], as_json=as_json)
            except AudiocliError as error:
                if is_only:
                    raise
                errors.append(error)
                _tell_trouble(screen, job, error, as_json=as_json)

        async with screen.activity(lambda: f"waiting for {len(jobs)} job{'s' * (not is_only)}"):
            return await wait(jobs, WaitOptions(routes, table, finish, deadline_s), tools)

    left = env.run(work, silence_s=silence_s, tell=screen.info, log=screen.debug)
    if left and is_only:
        raise not_over(left[0])
    for job in left:
        errors.append(not_over(job))
        _tell_trouble(screen, job, errors[-1], as_json=as_json)
    if not errors:
        return ExitCode.DONE
    return errors[0].exit_code if len(errors) == len(jobs) else ExitCode.PARTLY_DONE


def _wanted(env: AppContext, job: RemoteJob, output: str | None, *, is_only: bool) -> job_results.Destination:
    """Choose where a result goes; nowhere is fine for sound that can be fetched later."""
    try:
        return job_results.target_of(job, output, env, is_only=is_only), True
    except UsageError:
        if output is not None:
            raise
        return None, False


async def _tell_result(
    env: AppContext,
    screen: Console,
    tools: RunContext,
    job: RemoteJob,
    state: JobState,
    route: Route,
    pace: PollThrottle,
    wanted: job_results.Destination,
    *,
    as_json: bool,
) -> None:
    """Fetch a result, and say where it is."""
    target, is_wanted = wanted
    if not is_wanted:
        if as_json:
            screen.write_json({"ok": True, "command": "jobs", "job": job_results.job_document(job)})
        else:
            screen.write_text(f"{job.id}: {job.status}\n")
            screen.info(f"fetch it with: audiocli jobs fetch {job.id} -o FILE")
        return
    done = await job_results.collect(env, tools, job, state, route, pace, target)
    if as_json:
        (screen.result_json if done.output == "-" else screen.write_json)(job_results.document(done))
    elif done.transcript is not None and done.output is None:
        job_results.write_text(screen, done)
    elif done.output == "-":
        screen.info(job_results.line(done))
    else:
        screen.write_text(job_results.line(done) + "\n")


def _tell_trouble(screen: Console, job: RemoteJob, error: AudiocliError, *, as_json: bool) -> None:
    if as_json:
        from ..console import error_document

        screen.write_json({**error_document(error, "jobs"), "job": job_results.job_document(job)})
    else:
        screen.write_text(f"{job.id}: {error.message}\n")


def _fetch(
    env: AppContext,
    screen: Console,
    job: RemoteJob,
    output: str | None,
    base_url: str | None,
    silence_s: float,
    *,
    as_json: bool,
) -> None:
    from ..core.jobs import PollThrottle, failure, look
    from ..types.jobs import FAILED, SUCCEEDED

    route = job_results.route_of(env, job, base_url)
    target = job_results.target_of(job, output, env, is_only=True)

    async def work(tools: RunContext) -> job_results.JobResult:
        now, state = await look(job, route, env.jobs, tools)
        if now.status in FAILED:
            raise failure(now)
        if now.status != SUCCEEDED:
            raise UsageError(f"{now.ref} is {now.status}", hint=f"audiocli jobs wait {now.id} waits for it")
        return await job_results.collect(env, tools, now, state, route, PollThrottle(tools), target)

    done = env.run(work, silence_s=silence_s, tell=screen.info, log=screen.debug)
    if as_json:
        (screen.result_json if done.output == "-" else screen.write_json)(job_results.document(done))
    else:
        job_results.write_text(screen, done)
        screen.info(job_results.line(done))
