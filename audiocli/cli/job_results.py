"""Results of background jobs: fetch and write them, and build their JSON and text output."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ..context import AppContext
from ..errors import AccessError, UsageError
from ..redaction import remove_user_info
from .outputs import AudioDestination, TranscriptOutputs, choose_destination, open_audio_outputs, open_text_file
from .outputs import render_transcript as render_result

if TYPE_CHECKING:
    from datetime import datetime

    from ..console import Console
    from ..core.audio_response import ReceivedAudio
    from ..core.jobs import PollThrottle
    from ..core.run_context import RunContext
    from ..text.corrections import Corrections
    from ..types.jobs import JobState, RemoteJob
    from ..types.json import Json
    from ..types.routes import Route
    from ..types.transcripts import Transcript


# Audio goes to an `AudioDestination`, a transcript to a path; None is a transcript on stdout.
Destination: TypeAlias = "AudioDestination | Path | None"


class JobResult(NamedTuple):
    """The written result of a job: either `received` audio, or a `transcript` with its response body.

    `content` is the transcript in its output format. `output` is None for a transcript on stdout and for audio that
    was only played, and `-` for audio on stdout.
    """

    job: RemoteJob
    output: str | None
    received: ReceivedAudio | None = None
    transcript: Transcript | None = None
    raw_response: bytes = b""
    content: bytes = b""


def resolve_route(app: AppContext, job: RemoteJob, base_url: str | None = None) -> Route:
    """Build the route to the gateway of a job.

    Raises:
        UsageError: The gateway is no longer configured.
        AccessError: The gateway has no key.
    """
    from ..types.routes import Route

    gateway = next((config for config in app.settings.gateways if config.name == job.gateway), None)
    if gateway is None:
        raise UsageError(f"gateway of job {job.ref} is no longer configured")
    if gateway.key is None and gateway.requires_key:
        raise gateway.key_error or AccessError(f"no key for {job.gateway}", hint=gateway.key_hint)
    if gateway.traits_error is not None:
        raise gateway.traits_error
    # The user name and password of the URL are not stored with the job.
    stored_url = gateway.base_url if remove_user_info(gateway.base_url) == job.base_url else job.base_url
    url = base_url or stored_url
    return Route(gateway.name, gateway.dialect, url, job.model, gateway.key, job.voice, traits=gateway.traits)


def choose_output(job: RemoteJob, output: str | None, app: AppContext, *, is_only_job: bool) -> Destination:
    """Choose where a result goes: `output`, else the output given at submission, else stdout.

    Audio goes to stdout only if it is a pipe, socket or file, and only for a single job.

    Raises:
        UsageError: There is no output for the audio.
    """
    path = output if output is not None else job.output
    if job.kind == "speech":
        if path is None and not (is_only_job and app.stdout_accepts_audio):
            raise UsageError(
                f"no output for the audio of {job.ref}", hint=f"write it with: audiocli jobs fetch {job.ref} -o FILE"
            )
        requested_format = job.formats[0] if output in (None, "-") else None
        return choose_destination(app, path or "-", requested_format, job.formats[0], play=None, player=None)
    if path in (None, "-"):
        return None
    return Path(str(path))


async def fetch_result(
    app: AppContext,
    ctx: RunContext,
    job: RemoteJob,
    state: JobState,
    route: Route,
    throttle: PollThrottle,
    destination: Destination,
) -> JobResult:
    """Fetch a result and write it. No partial output remains if this raises.

    Raises:
        AudiocliError: The result cannot be fetched or written.
    """
    from ..core.jobs import fetch_audio, fetch_transcript
    from ..outputs import MultiOutput

    if isinstance(destination, AudioDestination):
        outputs = await open_audio_outputs(app, destination)
        output = MultiOutput([audio_output.writer for audio_output in outputs])
        received = await fetch_audio(job, state, route, outputs, output, ctx, throttle)
        return JobResult(job, destination.name, received)
    transcript, body = await fetch_transcript(job, state, route, ctx, throttle)
    return await write_job_transcript(app, job, transcript, body, destination)


async def write_job_transcript(
    app: AppContext, job: RemoteJob, transcript: Transcript, raw_response: bytes, path: Path | None
) -> JobResult:
    """Write a transcript to its file, if it has one. Raises: OutputError."""
    from .rendering import read_corrections

    content = render_transcript(job, transcript, raw_response, path, read_corrections(app, None))
    if path is not None:
        output = await open_text_file(app, path)
        try:
            await output.write(content)
        except BaseException:
            await output.abandon()
            raise
        await output.commit()
    return JobResult(job, None if path is None else str(path), None, transcript, raw_response, content)


def render_transcript(
    job: RemoteJob, transcript: Transcript, raw_response: bytes, path: Path | None, corrections: Corrections | None
) -> bytes:
    """Render a transcript in the format of its file name, else in the format given at submission."""
    from ..costs import resolve_cost
    from ..text.format_names import TRANSCRIPT_FORMATS
    from ..text.line_breaking import CaptionLimits
    from ..text.transcript_style import TranscriptStyle
    from ..types.ledger import Estimate, Outcome, Usage
    from ..types.results import RunResult, TranscriptionResult
    from ..types.routes import Route

    values = job.caption_limits
    limits = CaptionLimits(
        max_line_width=int(values.get("max_line_width", 42)),
        max_lines=int(values.get("max_lines", 2)),
        max_cue_s=values.get("max_cue_s", 7.0),
        cps=values.get("cps", 17.0),
        words_per_cue=int(words_per_cue) if (words_per_cue := values.get("words_per_cue")) is not None else None,
    )
    extension = path.suffix.lower().removeprefix(".") if path is not None else ""
    format = extension if extension in TRANSCRIPT_FORMATS else job.formats[0]
    route = Route(job.gateway, "", job.base_url, job.model)
    estimate = Estimate(job.min_nanousd, job.max_nanousd, job.is_exact, job.expected_nanousd)
    run = RunResult(route, job.model, 1, 1, *resolve_cost(Outcome.OK, Usage(), estimate))
    result = TranscriptionResult(run, transcript, raw_response)
    files = ((format, path),) if path is not None else ()
    return render_result(
        result,
        format,
        TranscriptOutputs(files, None, False),
        TranscriptStyle(limits, job.by_word, corrections=corrections),
    )


def build_document(result: JobResult) -> dict[str, Json]:
    """Build the JSON object of a result."""
    document: dict[str, Json] = {"output": result.output}
    if result.received is not None:
        written = result.received.written
        duration_s = result.received.final_duration_s
        document |= {
            "bytes": written.size_bytes,
            "sha256": written.sha256,
            "format": written.format,
            "duration_s": None if duration_s is None else round(duration_s, 3),
            "warnings": list(result.received.warnings),
        }
    if result.transcript is not None:
        from ..text.subtitle_formats import build_document as build_transcript_document

        document |= build_transcript_document(result.transcript)
    return {"ok": True, "command": "jobs", "job": build_job_document(result.job), **document}


def build_job_document(job: RemoteJob) -> dict[str, Json]:
    """Build the JSON object of a job, without its result."""
    from ..costs import to_usd

    return {
        "id": job.id,
        "gateway": job.gateway,
        "status": job.status,
        "kind": job.kind,
        "model": job.model,
        "submitted_at": _format_time(job.submitted_at_s),
        "expires_at": _format_time(job.expires_at_s),
        "format": ",".join(job.formats),
        "output": job.output,
        "price_usd_most": to_usd(job.max_nanousd),
        "reason": job.reason,
    }


def list_result_parts(result: JobResult) -> list[str]:
    """Return the parts of the result line: ID and status, and the path, duration, format and size of the output."""
    from ..console import format_size

    parts = [result.job.id, str(result.job.status)]
    if result.output not in (None, "-"):
        parts.append(str(result.output))
    if result.received is not None:
        written = result.received.written
        if result.received.final_duration_s is not None:
            parts.append(f"{result.received.final_duration_s:.2f} s")
        parts += [written.format, format_size(written.size_bytes)]
    return parts


def report_result(console: Console, result: JobResult, *, command: str, as_json: bool) -> None:
    """Report a result as JSON, or as a line on stderr after the transcript on stdout."""
    if as_json:
        document = {**build_document(result), "command": command}
        (console.result_json if result.output == "-" else console.write_json)(document)
        return
    write_transcript(console, result)
    console.result(*list_result_parts(result))


def format_local_time(at_s: float | None) -> str | None:
    """Format Unix time in seconds as local time, for people; None if it is unknown or out of range."""
    at = _to_local_time(at_s)
    return None if at is None else at.strftime("%Y-%m-%d %H:%M")


def _format_time(at_s: float | None) -> str | None:
    at = _to_local_time(at_s)
    return None if at is None else at.isoformat(timespec="seconds")


def _to_local_time(at_s: float | None) -> datetime | None:
    if at_s is None:
        return None
    from datetime import datetime

    try:
        return datetime.fromtimestamp(at_s).astimezone()
    except (ValueError, OverflowError, OSError):  # out of range: unknown
        return None


def make_absolute(path: str | None) -> str | None:
    """Return an absolute path, because a later command may run in another directory. `-` stays."""
    return path if path in (None, "-") else os.path.abspath(str(path))  # noqa: PTH100 - keeps symlinks


def write_transcript(console: Console, result: JobResult) -> None:
    """Write the transcript to stdout, unless it went to a file."""
    if result.transcript is not None and result.output is None:
        console.write_bytes(result.content)
