"""Results of jobs on their way to where they are wanted: files, a pipe, a player; and what is told of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ..context import AppContext
from ..errors import AccessError, UsageError
from . import audio_outputs, transcript_outputs

if TYPE_CHECKING:
    from ..console import Console
    from ..core.audio_response import Received
    from ..core.jobs import PollThrottle
    from ..core.run_context import RunContext
    from ..types.jobs import RemoteJob, JobState
    from ..types.values import Json, Route, Transcript


# Where a result is wanted, and whether it is.
Destination: TypeAlias = "tuple[audio_outputs.Target | Path | None, bool]"


class JobResult(NamedTuple):
    """A result that is where it was wanted; `text` where it is a transcript."""

    job: RemoteJob
    output: str | None
    received: Received | None = None
    transcript: Transcript | None = None
    reply: bytes = b""
    content: bytes = b""


def route_of(env: AppContext, job: RemoteJob, base_url: str | None = None) -> Route:
    """Find the gateway that has a job. Raises: UsageError: it is not configured any more; AccessError: no key."""
    from ..types.values import Route

    found = next((one for one in env.settings.gateways if one.name == job.gateway), None)
    if found is None:
        raise UsageError(f"{job.ref} is at a gateway that is not configured any more: {job.gateway}")
    if found.key is None and found.key_needed:
        raise found.key_error or AccessError(f"no key for {job.gateway}", hint=found.key_hint)
    return Route(found.name, found.dialect, base_url or job.base_url, job.model, found.key, job.voice)


def target_of(job: RemoteJob, output: str | None, env: AppContext, *, is_only: bool) -> audio_outputs.Target | Path | None:
    """Choose where a result goes: what is said now, else what was said when it was handed in, else stdout for one.

    A `Target` is for sound, a `Path` for text, None for text on stdout. Raises: UsageError: nowhere.
    """
    named = output if output is not None else job.output
    if job.kind == "speech":
        if named is None and not (is_only and env.stdout_takes_audio):
            raise UsageError(f"nowhere to put the audio of {job.ref}", hint=f"audiocli jobs fetch {job.ref} -o FILE")
        asked = job.formats[0] if output in (None, "-") else None
        return audio_outputs.choose(env, named or "-", asked, job.formats[0], play=None, player=None)
    if named in (None, "-"):
        return None
    return Path(str(named))


async def collect(
    env: AppContext,
    tools: RunContext,
    job: RemoteJob,
    state: JobState,
    route: Route,
    pace: PollThrottle,
    target: audio_outputs.Target | Path | None,
) -> JobResult:
    """Fetch a result and put it where it is wanted. Nothing is left there when this raises."""
    from ..core.jobs import collect_sound, collect_text
    from ..outputs import MultiOutput, open_target

    if isinstance(target, audio_outputs.Target):
        outlets = await audio_outputs.open_outlets(env, target)
        output = MultiOutput([outlet.sink for outlet in outlets])
        received = await collect_sound(job, state, route, outlets, output, tools, pace)
        return JobResult(job, target.name, received)
    file = None
    if target is not None:
        file = await open_target(target, rescue_folder=env.scratch_folder("kept"), binary=False)
    try:
        transcript, reply = await collect_text(job, state, route, tools, pace)
        content = rendered(job, transcript, reply, target)
        if file is not None:
            await file.write(content)
    except BaseException:
        if file is not None:
            await file.abandon()
        raise
    if file is not None:
        await file.commit()
    return JobResult(job, None if target is None else str(target), None, transcript, reply, content)


def rendered(job: RemoteJob, transcript: Transcript, reply: bytes, target: Path | None) -> bytes:
    """Write a transcript in the format that was asked for, or that the name of its file asks for."""
    from ..text.line_breaking import CaptionLimits
    from ..types.values import CostSource, Route, RunResult, TranscriptionResult

    told = job.shape
    shape = CaptionLimits(
        max_line_width=int(told.get("max_line_width", 42)),
        max_lines=int(told.get("max_lines", 2)),
        max_cue_s=told.get("max_cue_s", 7.0),
        cps=told.get("cps", 17.0),
    )
    ending = target.suffix.lower().removeprefix(".") if target is not None else ""
    format = ending if ending in ("txt", "srt", "vtt", "tsv", "json") else job.formats[0]
    route = Route(job.gateway, "", job.base_url, job.model)
    served = RunResult(route, job.model, 1, 1, job.most_nanousd, CostSource.ESTIMATED)
    receipt = TranscriptionResult(served, transcript, reply)
    files = ((format, target),) if target is not None else ()
    return transcript_outputs.rendered(
        receipt, format, transcript_outputs.Targets(files, None, False), shape, by_word=job.by_word
    )


def document(done: JobResult) -> dict[str, Json]:
    """What `--json` tells of a result."""
    told: dict[str, Json] = {"output": done.output}
    if done.received is not None:
        delivered = done.received.delivered
        duration_s = done.received.duration_s
        told |= {
            "bytes": delivered.size_bytes,
            "sha256": delivered.sha256,
            "format": delivered.format,
            "duration_s": None if duration_s is None else round(duration_s, 3),
            "warnings": list(done.received.warnings),
        }
    if done.transcript is not None:
        from ..text.subtitle_formats import document as transcript_document

        told |= transcript_document(done.transcript)
    return {"ok": True, "command": "jobs", "job": job_document(done.job), **told}


def job_document(job: RemoteJob) -> dict[str, Json]:
    from ..amounts import usd_number

    return {
        "id": job.id,
        "gateway": job.gateway,
        "status": job.status,
        "kind": job.kind,
        "model": job.model,
        "submitted_at": _moment(job.at_s),
        "expires_at": _moment(job.expires_s),
        "format": ",".join(job.formats),
        "output": job.output,
        "price_usd_most": usd_number(job.most_nanousd),
        "reason": job.reason,
    }


def line(done: JobResult) -> str:
    from ..console import size

    parts = [f"{done.job.id}: {done.job.status}"]
    if done.output not in (None, "-"):
        parts.append(str(done.output))
    if done.received is not None:
        delivered = done.received.delivered
        parts.append(delivered.format)
        if done.received.duration_s is not None:
            parts.append(f"{done.received.duration_s:.2f} s")
        parts.append(size(delivered.size_bytes))
    return ", ".join(parts)


def _moment(at_s: float | None) -> str | None:
    if at_s is None:
        return None
    from datetime import datetime

    return datetime.fromtimestamp(at_s).astimezone().isoformat(timespec="seconds")


def absolute(path: str | None) -> str | None:
    """Write a name down so that it means the same file tomorrow and elsewhere."""
    return path if path in (None, "-") else os.path.abspath(str(path))  # noqa: PTH100 - links stay as they are


def write_text(screen: Console, done: JobResult) -> None:
    """Write a transcript that goes to stdout."""
    if done.transcript is not None and done.output is None:
        screen.write_bytes(done.content)
