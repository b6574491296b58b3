"""`audiocli transcribe`: options, validation and output of the command."""

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
    from ..types.audio import Recording

FORMATS = ("txt", "srt", "vtt", "json", "tsv", "verbose_json")
TIMED_FORMATS = frozenset({"srt", "vtt", "tsv"})
# A name with one of these characters is a glob, unless a file of that name exists.
GLOB_CHARACTERS = frozenset("*?[")


def transcribe(
    ctx: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[INPUT]...", help="Recordings, directories or globs; - reads a recording from stdin."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="PATH", help="Output file; - is stdout.")
    ] = None,
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", "-O", metavar="DIR", help="Directory for the transcripts.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", "-f", metavar="LIST", help="Output formats, comma-separated: txt srt vtt json tsv verbose_json."
        ),
    ] = None,
    model: options.Models = None,
    language: Annotated[
        str | None,
        typer.Option("--language", "-l", metavar="CODE", help="Language of the recording: pt, pt-BR or Portuguese."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            "-p",
            metavar="TEXT",
            help="Names and terms that occur in the recording, as a hint to the model.",
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", metavar="N", help="Sampling temperature of the model, 0 to 1.")
    ] = None,
    option: options.Options = None,
    translate: Annotated[bool, typer.Option("--translate", help="Translate into English.")] = False,
    diarize: Annotated[bool, typer.Option("--diarize", help="Label each segment with its speaker.")] = False,
    speaker: Annotated[
        list[str] | None,
        typer.Option(
            "--speaker", metavar="NAME[=CLIP]", help="Known speaker, with a voice sample of 2 to 10 s; repeatable."
        ),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print text as it arrives, if the gateway supports streaming.")
    ] = False,
    max_chunk: Annotated[
        float | None,
        typer.Option("--max-chunk", metavar="S", help="Maximum chunk length of a long recording in seconds."),
    ] = None,
    # Former name of --max-chunk.
    max_piece: Annotated[float | None, typer.Option("--max-piece", hidden=True)] = None,
    no_split: Annotated[
        bool, typer.Option("--no-split", help="Do not split long recordings; fail if one is above the limit.")
    ] = False,
    carry_context: Annotated[
        bool, typer.Option("--context", help="Send the end of the previous chunk as context; one chunk at a time.")
    ] = False,
    strict_timestamps: Annotated[
        bool, typer.Option("--strict-timestamps", help="Fail rather than time captions by chunk.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N",
            help="Maximum requests in flight: chunks (default 4) or recordings (default 8).",
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="Recurse into subdirectories.")] = False,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="GLOB", help="In directories, only take files that match this glob."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Skip files that match this glob.")
    ] = None,
    files_from: Annotated[
        str | None,
        typer.Option(
            "--files-from", metavar="PATH", help="Read names from a file, separated by newline or NUL; - is stdin."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite outputs that were edited or not written by audiocli.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry recordings that failed before; they may be billed twice.")
    ] = False,
    verify_only: Annotated[
        bool, typer.Option("--verify-only", help="Report missing and stale outputs without sending anything.")
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop starting new recordings after the first failure.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Use or ignore results cached by an earlier run.")
    ] = True,
    timestamps: Annotated[
        str | None,
        typer.Option(
            "--timestamps", metavar="none|segment|word", help="Timestamps to request (default: what the formats need)."
        ),
    ] = None,
    stdin_format: Annotated[
        str | None, typer.Option("--stdin-format", metavar="EXT", help="Format of stdin, if it cannot be detected.")
    ] = None,
    max_line_width: Annotated[
        int, typer.Option("--max-line-width", metavar="N", help="Maximum characters of a caption line.")
    ] = 42,
    max_lines: Annotated[int, typer.Option("--max-lines", metavar="N", help="Maximum lines of a caption.")] = 2,
    max_cue: Annotated[
        float, typer.Option("--max-cue", metavar="S", help="Maximum duration of a caption in seconds.")
    ] = 7.0,
    cps: Annotated[
        float, typer.Option("--cps", metavar="N", help="Target reading speed in characters per second.")
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
    """Transcribe recordings to text or captions."""
    from ..core.retry_policy import RetryPolicy
    from ..routing import RouteQuery
    from ..types.requests import Timestamps, TranscriptionRequest

    app = options.get_app(ctx)
    console = options.build_console(app, is_quiet=quiet or as_json, is_debugging=debug)
    settings = app.settings
    formats = _parse_formats(console, format, output)
    timestamp_options = _resolve_timestamps(timestamps, formats, as_json=as_json)
    caption_limits = _build_caption_limits(max_line_width, max_lines, max_cue, cps)
    temperature = _validate_temperature(temperature)
    language_code = _resolve_language(language or settings.transcription_language)
    provider_options = options.parse_provider_options(option)
    timeout_s = options.validate_timeout(timeout)
    models = options.resolve_models(model, settings.transcription_models, gateway)
    for value, flag in ((prompt, "--prompt"), *((reference, "--model") for reference in models)):
        options.validate_utf8(value, flag)
    query = RouteQuery(
        task="transcription",
        models=models,
        gateway=gateway,
        base_url=base_url,
        needs_timestamps=timestamp_options.is_required or timestamp_options.level == "word",
        translate=translate,
        diarize=diarize,
        model_prices=settings.prices,
    )
    background_options = None
    if background or wait:
        from . import background as background_jobs

        background_options = background_jobs.parse_background_options(background, wait, output)
        query = background_jobs.select_job_gateway(app, query)
        if len(formats) > 1 or output_dir is not None:
            raise UsageError("--background needs exactly one format and does not support -O", hint="use -o PATH")
    speakers = inputs.parse_speakers(speaker)
    max_chunk = max_piece if max_chunk is None else max_chunk
    if max_chunk is not None and not 1 <= max_chunk <= 86_400:
        raise UsageError(f"--max-chunk {max_chunk:g}: must be between 1 and 86400 seconds")
    if jobs is not None and not 1 <= jobs <= transcribe_run.MAX_CONCURRENCY:
        raise UsageError(f"--jobs {jobs}: must be between 1 and {transcribe_run.MAX_CONCURRENCY}")
    if no_split and max_chunk is not None:
        raise UsageError("--no-split cannot be used with --max-chunk")
    has_batch_options = bool(
        recursive or include or exclude or files_from is not None or force or retry_failed or verify_only or fail_fast
    )
    is_batch = _is_batch(sources or (), has_batch_options=has_batch_options)

    def build_request(recording: Recording) -> TranscriptionRequest:
        return TranscriptionRequest(
            recording=recording,
            timestamps=Timestamps(timestamp_options.level),
            timestamps_required=timestamp_options.is_required,
            keep_raw_response="verbose_json" in formats,
            language=language_code,
            prompt=prompt or None,
            temperature=temperature,
            options=provider_options,
            translate=translate,
            diarize=diarize,
            speakers=speakers,
            stream=stream,
        )

    plan = transcribe_run.TranscribePlan(
        path=Path(),
        name="",
        build_request=build_request,
        query=query,
        outputs=transcript_outputs.TranscriptOutputs((), None, False),
        caption_limits=caption_limits,
        streaming_output=transcript_outputs.StreamingOutput(app, is_enabled=False),
        retry_policy=RetryPolicy(retry_unknown=retry_unknown, has_multiple_models=len(models) > 1),
        tag=options.resolve_tag(tag, app),
        budget=transcribe_run.BudgetOptions(max_cost, allow_unpriced, yes),
        max_chunk_s=max_chunk,
        split=not no_split,
        allow_chunk_timing=timestamp_options.is_required
        and timestamp_options.level != "word"
        and not (strict_timestamps or no_split),
        carry_context=carry_context,
        concurrency=jobs or transcribe_run.DEFAULT_CONCURRENCY,
        resume=resume,
        dry_run=dry_run,
        as_json=as_json,
        by_word=timestamp_options.level == "word",
        background=background_options,
    )
    if is_batch:
        from . import batch, discovery

        for value, flag in ((output, "-o"), (stdin_format, "--stdin-format")):
            if value is not None:
                raise UsageError(f"{flag} supports only one recording", hint="use -O DIR for several recordings")
        if stream:
            console.warning("--stream has no effect on several recordings")
        batch_options = batch.BatchOptions(
            plan=plan,
            sources=tuple(sources or ()),
            files_from=files_from,
            discovery_options=discovery.DiscoveryOptions(recursive, tuple(include or ()), tuple(exclude or ())),
            formats=formats,
            output_dir=output_dir,
            may_request_timestamps=timestamps is None,
            concurrency=jobs or batch.DEFAULT_CONCURRENCY,
            force=force,
            retry_failed=retry_failed,
            verify_only=verify_only,
            fail_fast=fail_fast,
        )
        raise typer.Exit(batch.run(app, console, batch_options, read_timeout_s=timeout_s))
    _transcribe_one(
        app,
        console,
        plan,
        sources[0] if sources else None,
        output,
        output_dir,
        formats,
        stdin_format,
        timeout_s,
        stream=stream,
        diarize=diarize,
    )


def _transcribe_one(
    app: AppContext,
    console: Console,
    plan: transcribe_run.TranscribePlan,
    source: str | None,
    output: str | None,
    output_dir: str | None,
    formats: tuple[str, ...],
    stdin_format: str | None,
    read_timeout_s: float,
    *,
    stream: bool,
    diarize: bool,
) -> None:
    """Transcribe one recording to stdout or to files. Raises: typer.Exit: The transcript is partial."""
    with inputs.open_recording(app, source, stdin_format) as path:
        outputs = transcript_outputs.choose_outputs(source, path, output, output_dir, formats)
        for _, output_path in outputs.files:
            inputs.reject_overwriting_input(path, output_path)
        is_enabled = stream and outputs.stdout_format == "txt" and not (plan.as_json or diarize)
        streaming_output = transcript_outputs.StreamingOutput(app, is_enabled=is_enabled)
        name = "stdin" if source in (None, "-") else str(source)
        plan = plan._replace(path=path, name=name, outputs=outputs, streaming_output=streaming_output)
        result = app.run(
            lambda ctx: transcribe_run.run(app, console, ctx, plan),
            read_timeout_s=read_timeout_s,
            info=console.info,
            debug=console.debug,
        )
    if result is None:
        return
    transcript_outputs.print_result(
        app,
        console,
        result,
        outputs,
        plan.caption_limits,
        as_json=plan.as_json,
        by_word=plan.by_word,
        already_printed=streaming_output.text_stream.has_emitted,
    )
    transcribe_run.remove_cached_chunks(app, result)
    if result.is_partial:
        raise typer.Exit(ExitCode.PARTIAL)


def _is_batch(sources: Sequence[str], *, has_batch_options: bool) -> bool:
    """Return whether a command line is a batch. A name with glob characters that exists is a file."""
    if has_batch_options or len(sources) > 1:
        return True
    return any(
        os.path.isdir(source) or (not GLOB_CHARACTERS.isdisjoint(source) and not os.path.lexists(source))  # noqa: PTH112
        for source in sources
    )


class TimestampOptions(NamedTuple):
    """Level of the timestamps (none, segment or word), and whether the outputs cannot be written without them."""

    level: str
    is_required: bool


def _parse_formats(console: Console, format: str | None, output: str | None) -> tuple[str, ...]:
    """Parse the value of `-f`; without it, derive the format from the extension of `-o`.

    Raises:
        UsageError: Unknown format.
    """
    if format is None:
        extension = Path(output).suffix.lower().removeprefix(".") if output else ""
        if extension and extension not in FORMATS:
            console.warning(f"unknown extension of {output}; writing txt")
        return (extension if extension in FORMATS else "txt",)
    names = tuple(dict.fromkeys(name.strip().lower() for name in format.split(",") if name.strip()))
    aliases = {"text": "txt", "webvtt": "vtt", "subrip": "srt"}
    names = tuple(aliases.get(name, name) for name in names)
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise UsageError(f"unknown format {unknown[0] if unknown else format!r}", hint="formats: " + ", ".join(FORMATS))
    return names


def _resolve_timestamps(requested: str | None, formats: tuple[str, ...], *, as_json: bool) -> TimestampOptions:
    """Return the requested timestamps, else those that the formats need.

    Raises:
        UsageError: Unknown level, or caption formats with `none`.
    """
    captions = [name for name in formats if name in TIMED_FORMATS]
    if requested is None:
        is_useful = as_json or "json" in formats or "verbose_json" in formats
        return TimestampOptions("segment" if captions or is_useful else "none", bool(captions))
    if requested not in ("none", "segment", "word"):
        raise UsageError(f"--timestamps {requested}: must be none, segment or word")
    if requested == "none" and captions:
        raise UsageError(f"--timestamps none cannot be used with -f {captions[0]}")
    return TimestampOptions(requested, bool(captions) or requested == "word")


def _build_caption_limits(max_line_width: int, max_lines: int, max_cue_s: float, cps: float) -> CaptionLimits:
    from ..text.line_breaking import CaptionLimits

    for name, value, minimum in (
        ("--max-line-width", max_line_width, 1),
        ("--max-lines", max_lines, 1),
        ("--max-cue", max_cue_s, 0.1),
        ("--cps", cps, 1),
    ):
        if not minimum <= value <= 100_000:
            raise UsageError(f"{name} {value:g}: must be between {minimum:g} and 100000")
    return CaptionLimits(max_line_width=max_line_width, max_lines=max_lines, max_cue_s=max_cue_s, cps=cps)


def _validate_temperature(temperature: float | None) -> float | None:
    if temperature is not None and not 0 <= temperature <= 1:
        raise UsageError(f"--temperature {temperature:g}: must be between 0 and 1")
    return temperature


def _resolve_language(language: str | None) -> str | None:
    """Return the code of a language. Raises: UsageError: Unknown language; the hint has the nearest one."""
    if not language:
        return None
    from ..text.languages import find_language_code, suggest_languages

    code = find_language_code(language)
    if code is None:
        suggestions = suggest_languages(language)
        raise UsageError(
            f"unknown language {language!r}",
            hint=f"did you mean {suggestions[0]!r}?"
            if suggestions
            else "use a code such as en, or a name such as English",
        )
    return code
