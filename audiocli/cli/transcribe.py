"""`audiocli transcribe`: recordings in, their words out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..errors import ExitCode, UsageError
from . import inputs, options, transcribe_run, transcript_outputs

if TYPE_CHECKING:
    from ..console import Console
    from ..context import AppContext
    from ..text.line_breaking import CaptionLimits
    from ..types.values import Recording

FORMATS = ("txt", "srt", "vtt", "json", "tsv", "verbose_json")
TIMED = frozenset({"srt", "vtt", "tsv"})
# What makes a pattern of a name.
MAGIC = frozenset("*?[")


def transcribe(
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[INPUT]...", help="Recordings, folders, patterns; - is a recording on stdin."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="PATH", help="Write the transcript here; - is stdout.")
    ] = None,
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", "-O", metavar="DIR", help="Write the transcripts into this folder.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="LIST", help="Comma list of txt srt vtt json tsv verbose_json."),
    ] = None,
    model: options.Models = None,
    language: Annotated[
        str | None, typer.Option("--language", "-l", metavar="CODE", help="pt, pt-BR or Portuguese.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="Names and words to expect.")
    ] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", metavar="N", help="0 to 1.")] = None,
    option: options.Options = None,
    translate: Annotated[bool, typer.Option("--translate", help="Into English.")] = False,
    diarize: Annotated[bool, typer.Option("--diarize", help="Tell the speakers apart.")] = False,
    speaker: Annotated[
        list[str] | None,
        typer.Option("--speaker", metavar="NAME[=CLIP]", help="Who may speak; CLIP is 2 to 10 s of the voice."),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Text as it comes, where the gateway streams.")] = False,
    max_piece: Annotated[
        float | None, typer.Option("--max-piece", metavar="S", help="Longest piece of a long recording.")
    ] = None,
    no_split: Annotated[bool, typer.Option("--no-split", help="Send it whole, or not at all.")] = False,
    carry: Annotated[
        bool, typer.Option("--context", help="Tell each piece how the one before it ended; one at a time.")
    ] = False,
    strict_timestamps: Annotated[
        bool, typer.Option("--strict-timestamps", help="No captions from models that give no times.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", metavar="N", help="Pieces in flight (4), or recordings (8).")
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="Folders in folders too.")] = False,
    include: Annotated[
        list[str] | None, typer.Option("--include", metavar="GLOB", help="In folders, only what fits.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="GLOB", help="In folders, nothing that fits.")
    ] = None,
    files_from: Annotated[
        str | None, typer.Option("--files-from", metavar="PATH", help="Names, by line or NUL; - is stdin.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace outputs that were edited, or are not ours.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Send again what failed before, though it may be billed twice.")
    ] = False,
    verify_only: Annotated[
        bool, typer.Option("--verify-only", help="Tell what is missing or stale, and send nothing.")
    ] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Begin nothing more after a failure.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where an earlier run stopped, or start over.")
    ] = True,
    timestamps: Annotated[
        str | None,
        typer.Option("--timestamps", metavar="none|segment|word", help="Default: what the formats need."),
    ] = None,
    stdin_format: Annotated[
        str | None, typer.Option("--stdin-format", metavar="EXT", help="What - is, if its bytes do not tell.")
    ] = None,
    max_line_width: Annotated[
        int, typer.Option("--max-line-width", metavar="N", help="Columns of a caption line.")
    ] = 42,
    max_lines: Annotated[int, typer.Option("--max-lines", metavar="N", help="Lines of a caption.")] = 2,
    max_cue: Annotated[float, typer.Option("--max-cue", metavar="S", help="Longest caption in seconds.")] = 7.0,
    cps: Annotated[
        float, typer.Option("--cps", metavar="N", help="Reading speed to aim at, characters a second.")
    ] = 17.0,
    background: options.Background = False,
    wait: options.Wait = False,
    gateway: options.Gateway = None,
    base_url: options.BaseUrl = None,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    retry_unknown: options.RetryUnknown = False,
    dry_run: options.DryRun = False,
    max_cost: options.MaxCost = None,
    allow_unpriced: options.AllowUnpriced = False,
    yes: options.Yes = False,
    tag: options.Tag = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Turn recordings into text or captions."""
    from ..core.retry_policy import RetryPolicy
    from ..routing import RouteQuery
    from ..types.values import Timestamps, TranscriptionRequest

    env = options.get_app(context)
    screen = options.build_console(env, is_quiet=quiet or as_json, is_debugging=debug)
    settings = env.settings
    asked = _formats(screen, format, output)
    stamps = _timestamps(timestamps, asked, as_json=as_json)
    shape = _shape(max_line_width, max_lines, max_cue, cps)
    temperature = _checked_temperature(temperature)
    wanted_language = _language(language or settings.transcription_language)
    extra = options.provider_options(option)
    timeout_s = options.checked_timeout(timeout)
    models = options.resolve_models(model, settings.transcription_models, gateway)
    for value, flag in ((prompt, "--prompt"), *((one, "--model") for one in models)):
        options.checked_text(value, flag)
    wish = RouteQuery(
        task="transcription",
        models=models,
        gateway=gateway,
        base_url=base_url,
        needs_times=stamps.required or stamps.level == "word",
        translates=translate,
        diarizes=diarize,
        prices=settings.prices,
    )
    postponed = None
    if background or wait:
        from . import background as background_jobs

        postponed = background_jobs.later_of(background, wait, output)
        wish = background_jobs.with_jobs(env, wish)
        if len(asked) > 1 or output_dir is not None:
            raise UsageError("--background takes one format, and -o for where it goes")
    speakers = inputs.speakers(speaker)
    if max_piece is not None and not 1 <= max_piece <= 86_400:
        raise UsageError(f"--max-piece {max_piece:g}: seconds, 1 or more")
    if jobs is not None and not 1 <= jobs <= transcribe_run.MOST_JOBS:
        raise UsageError(f"--jobs {jobs}: from 1 to {transcribe_run.MOST_JOBS}")
    if no_split and max_piece is not None:
        raise UsageError("--no-split contradicts --max-piece")
    many = (
        recursive or include or exclude or files_from is not None or force or retry_failed or verify_only or fail_fast
    )
    is_batch = _is_batch(sources or (), has_batch_flags=bool(many))

    def request_for(recording: Recording) -> TranscriptionRequest:
        return TranscriptionRequest(
            recording=recording,
            timestamps=Timestamps(stamps.level),
            timestamps_required=stamps.required,
            verbatim="verbose_json" in asked,
            language=wanted_language,
            prompt=prompt or None,
            temperature=temperature,
            options=extra,
            translates=translate,
            diarizes=diarize,
            speakers=speakers,
            streams=stream,
        )

    job = transcribe_run.TranscribePlan(
        path=Path(),
        name="",
        request=request_for,
        wish=wish,
        targets=transcript_outputs.Targets((), None, False),
        shape=shape,
        live=transcript_outputs.StreamingOutput(env, is_wanted=False),
        policy=RetryPolicy(retry_unknown=retry_unknown, several_models=len(models) > 1),
        tag=options.resolve_tag(tag, env),
        spending=transcribe_run.Spending(max_cost, allow_unpriced, yes),
        longest_s=max_piece,
        splits=not no_split,
        may_time_by_piece=stamps.required and stamps.level != "word" and not (strict_timestamps or no_split),
        carries_context=carry,
        jobs=jobs or transcribe_run.USUAL_JOBS,
        resumes=resume,
        is_dry=dry_run,
        as_json=as_json,
        by_word=stamps.level == "word",
        postponed=postponed,
    )
    if is_batch:
        from . import batch, discovery

        for is_given, flag in ((output, "-o"), (stdin_format, "--stdin-format")):
            if is_given is not None:
                raise UsageError(f"{flag} is for one recording", hint="-O DIR takes the outputs of many")
        if stream:
            screen.warning("--stream has no effect on many recordings")
        plan = batch.Batch(
            job=job,
            sources=tuple(sources or ()),
            files_from=files_from,
            search=discovery.DiscoveryOptions(recursive, tuple(include or ()), tuple(exclude or ())),
            formats=asked,
            output_dir=output_dir,
            may_ask_for_times=timestamps is None,
            jobs=jobs or batch.USUAL_JOBS,
            forces=force,
            retries=retry_failed,
            verifies=verify_only,
            fails_fast=fail_fast,
        )
        raise typer.Exit(batch.run(env, screen, plan, silence_s=timeout_s))
    _transcribe_one(
        env,
        screen,
        job,
        sources[0] if sources else None,
        output,
        output_dir,
        asked,
        stdin_format,
        timeout_s,
        is_streaming=stream,
        is_diarizing=diarize,
    )


def _transcribe_one(
    env: AppContext,
    screen: Console,
    job: transcribe_run.TranscribePlan,
    source: str | None,
    output: str | None,
    output_dir: str | None,
    formats: tuple[str, ...],
    stdin_format: str | None,
    silence_s: float,
    *,
    is_streaming: bool,
    is_diarizing: bool,
) -> None:
    """Write one recording down, to stdout or to files."""
    with inputs.recording(env, source, stdin_format) as path:
        targets = transcript_outputs.choose(source, path, output, output_dir, formats)
        for _, file in targets.files:
            inputs.refuse_same(path, file)
        is_wanted = is_streaming and targets.stdout_format == "txt" and not (job.as_json or is_diarizing)
        live = transcript_outputs.StreamingOutput(env, is_wanted=is_wanted)
        name = "stdin" if source in (None, "-") else str(source)
        one = job._replace(path=path, name=name, targets=targets, live=live)
        receipt = env.run(
            lambda tools: transcribe_run.run(env, screen, tools, one),
            silence_s=silence_s,
            tell=screen.info,
            log=screen.debug,
        )
    if receipt is None:
        return
    transcript_outputs.report(
        env,
        screen,
        receipt,
        targets,
        job.shape,
        as_json=job.as_json,
        by_word=job.by_word,
        is_told=live.hearing.has_heard,
    )
    transcribe_run.forget_pieces(env, receipt)
    if receipt.is_partial:
        raise typer.Exit(ExitCode.PARTLY_DONE)


def _is_batch(sources: Sequence[str], *, has_batch_flags: bool) -> bool:
    """Tell whether a command line is about many recordings; a name that exists is a file, whatever it looks like."""
    if has_batch_flags or len(sources) > 1:
        return True
    return any(
        os.path.isdir(source) or (not MAGIC.isdisjoint(source) and not os.path.lexists(source))  # noqa: PTH112
        for source in sources
    )


class Stamps(NamedTuple):
    """How finely times are asked for, and whether the work is useless without them."""

    level: str
    required: bool


def _formats(screen: Console, format: str | None, output: str | None) -> tuple[str, ...]:
    """Read the list of formats; without one, the ending of `-o` tells. Raises: UsageError."""
    if format is None:
        ending = Path(output).suffix.lower().removeprefix(".") if output else ""
        if ending and ending not in FORMATS:
            screen.warning(f"{output} will hold txt: its ending is no format")
        return (ending if ending in FORMATS else "txt",)
    names = tuple(dict.fromkeys(name.strip().lower() for name in format.split(",") if name.strip()))
    aliases = {"text": "txt", "webvtt": "vtt", "subrip": "srt"}
    names = tuple(aliases.get(name, name) for name in names)
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise UsageError(f"unknown format {unknown[0] if unknown else format!r}", hint="formats: " + ", ".join(FORMATS))
    return names


def _timestamps(asked: str | None, formats: tuple[str, ...], *, as_json: bool) -> Stamps:
    """Times as asked for, else as the formats need them. Captions without times are refused."""
    captions = [name for name in formats if name in TIMED]
    if asked is None:
        comfort = as_json or "json" in formats or "verbose_json" in formats
        return Stamps("segment" if captions or comfort else "none", bool(captions))
    if asked not in ("none", "segment", "word"):
        raise UsageError(f"--timestamps {asked}: none, segment or word")
    if asked == "none" and captions:
        raise UsageError(f"--timestamps none contradicts -f {captions[0]}")
    return Stamps(asked, bool(captions) or asked == "word")


def _shape(max_line_width: int, max_lines: int, max_cue_s: float, cps: float) -> CaptionLimits:
    from ..text.line_breaking import CaptionLimits

    for name, value, least in (
        ("--max-line-width", max_line_width, 1),
        ("--max-lines", max_lines, 1),
        ("--max-cue", max_cue_s, 0.1),
        ("--cps", cps, 1),
    ):
        if not least <= value <= 100_000:
            raise UsageError(f"{name} {value:g}: {least:g} or more")
    return CaptionLimits(max_line_width=max_line_width, max_lines=max_lines, max_cue_s=max_cue_s, cps=cps)


def _checked_temperature(temperature: float | None) -> float | None:
    if temperature is not None and not 0 <= temperature <= 1:
        raise UsageError(f"--temperature {temperature:g}: from 0 to 1")
    return temperature


def _language(language: str | None) -> str | None:
    """Reduce a language to its code. Raises: UsageError: with the nearest that is known."""
    if not language:
        return None
    from ..text.languages import code_of, nearest

    code = code_of(language)
    if code is None:
        near = nearest(language)
        raise UsageError(
            f"--language {language}: not a language known here",
            hint=f"did you mean {near[0]}?" if near else "use a code such as en, or a name such as English",
        )
    return code
