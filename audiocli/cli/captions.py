"""`audiocli captions`: check, convert, shift, scale, merge and split caption files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import typer

from ..context import ColorMode
from ..errors import UsageError, suggest
from .options import Color, GeneralOptions, Output, open_app, with_options

_SHIFT_HELP = "see 'audiocli captions shift --help'"
FORMATS_METAVAR = "srt|vtt|ass|ttml|sub|lrc"

Files = Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="Caption files; - is stdin.")]
File = Annotated[str, typer.Argument(metavar="FILE", help="Caption file; - is stdin.")]
OutputFormat = Annotated[
    str | None, typer.Option("--format", "-f", metavar=FORMATS_METAVAR, help="Format of the output.")
]
OutputDirectory = Annotated[
    str | None, typer.Option("--output-dir", "-O", metavar="DIR", help="Directory for the output files.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace output files that exist.")]
Speakers = Annotated[
    bool,
    typer.Option(
        "--speakers/--no-speakers", help="Keep the names of speakers, as text if the format has no field for them."
    ),
]


class ReadOptions(NamedTuple):
    """How caption files are read."""

    from_format: Annotated[str | None, typer.Option("--from", metavar=FORMATS_METAVAR, help="Format of the input.")] = (
        None
    )
    encoding: Annotated[
        str | None, typer.Option("--encoding", metavar="NAME", help="Encoding of the input, such as cp1252.")
    ] = None
    fps: Annotated[
        float | None, typer.Option("--fps", metavar="N", help="Frame rate of sub files, whose times are frame numbers.")
    ] = None


class CheckOptions(NamedTuple):
    """Options of `audiocli captions check`. The limits of transcribe have the same names."""

    files: Files = None
    read: ReadOptions = ReadOptions()
    max_line_width: Annotated[
        int, typer.Option("--max-line-width", metavar="N", help="Maximum characters of a caption line.")
    ] = 42
    max_lines: Annotated[int, typer.Option("--max-lines", metavar="N", help="Maximum lines of a caption.")] = 2
    max_cue_s: Annotated[
        float, typer.Option("--max-cue", metavar="S", help="Maximum duration of a caption in seconds.")
    ] = 7.0
    min_cue_s: Annotated[
        float, typer.Option("--min-cue", metavar="S", help="Minimum duration of a caption in seconds.")
    ] = 0.7
    min_gap_s: Annotated[
        float, typer.Option("--min-gap", metavar="S", help="Minimum gap between captions in seconds.")
    ] = 0.083
    cps: Annotated[
        float, typer.Option("--cps", metavar="N", help="Maximum reading speed in characters per second.")
    ] = 17.0
    skip: Annotated[
        str | None, typer.Option("--skip", metavar="LIST", help="Checks to skip, such as gap,reading-speed.")
    ] = None
    general: GeneralOptions = GeneralOptions()


class ConvertOptions(NamedTuple):
    """Options of `audiocli captions convert`. A limit, or `relayout`, breaks the text into new cues."""

    files: Files = None
    read: ReadOptions = ReadOptions()
    output: Output = None
    output_dir: OutputDirectory = None
    formats: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar=FORMATS_METAVAR, help="Formats of the output, comma-separated."),
    ] = None
    speakers: Speakers = True
    relayout: Annotated[
        bool, typer.Option("--relayout", help="Break the text into new lines and captions, within the limits.")
    ] = False
    max_line_width: Annotated[
        int | None, typer.Option("--max-line-width", metavar="N", help="Maximum characters of a caption line.")
    ] = None
    max_lines: Annotated[int | None, typer.Option("--max-lines", metavar="N", help="Maximum lines of a caption.")] = (
        None
    )
    max_cue_s: Annotated[
        float | None, typer.Option("--max-cue", metavar="S", help="Maximum duration of a caption in seconds.")
    ] = None
    cps: Annotated[
        float | None, typer.Option("--cps", metavar="N", help="Target reading speed in characters per second.")
    ] = None
    force: Force = False
    general: GeneralOptions = GeneralOptions()


class ShiftOptions(NamedTuple):
    """Options of `audiocli captions shift`."""

    file: File
    by: Annotated[str, typer.Argument(metavar="TIME", help="Time to add, such as +1.5, -0:02 or -250ms.")]
    read: ReadOptions = ReadOptions()
    output: Output = None
    format: OutputFormat = None
    general: GeneralOptions = GeneralOptions()


class ScaleOptions(NamedTuple):
    """Options of `audiocli captions scale`. Exactly one of `factor`, the rates and `sync` is set."""

    file: File
    factor: Annotated[float | None, typer.Argument(metavar="[FACTOR]", help="Factor for all times, such as 1.001.")] = (
        None
    )
    from_fps: Annotated[
        float | None,
        typer.Option("--from-fps", metavar="N", help="Frame rate of the video that the captions were made for."),
    ] = None
    to_fps: Annotated[
        float | None, typer.Option("--to-fps", metavar="N", help="Frame rate of the video to use the captions with.")
    ] = None
    sync: Annotated[
        str | None,
        typer.Option(
            "--sync", metavar="FROM=TO,...", help="Times and their new values, such as 0:01=0:02,1:00:00=1:00:05."
        ),
    ] = None
    read: ReadOptions = ReadOptions()
    output: Output = None
    format: OutputFormat = None
    general: GeneralOptions = GeneralOptions()


class MergeOptions(NamedTuple):
    """Options of `audiocli captions merge`."""

    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Caption files, in order.")]
    offset: Annotated[
        str | None,
        typer.Option("--offset", metavar="TIME,...", help="Start times of the second file, the third, and so on."),
    ] = None
    media: Annotated[
        list[str] | None,
        typer.Option(
            "--media", metavar="FILE", help="Recording of each file but the last; its duration is the next offset."
        ),
    ] = None
    bilingual: Annotated[
        bool, typer.Option("--bilingual", help="Show texts of the same time in one caption, one below the other.")
    ] = False
    read: ReadOptions = ReadOptions()
    output: Output = None
    format: OutputFormat = None
    speakers: Speakers = True
    general: GeneralOptions = GeneralOptions()


class SplitOptions(NamedTuple):
    """Options of `audiocli captions split`."""

    file: File
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME,...", help="Times to split at, such as 0:30:00,1:00:00.")
    ] = None
    every: Annotated[
        str | None, typer.Option("--every", metavar="TIME", help="Duration of each part, such as 10m.")
    ] = None
    read: ReadOptions = ReadOptions()
    output_dir: OutputDirectory = None
    format: OutputFormat = None
    force: Force = False
    general: GeneralOptions = GeneralOptions()


def build() -> typer.Typer:
    """Build the command group."""
    group = typer.Typer(
        help="Check, convert, shift, scale, merge and split caption files.", rich_markup_mode=None, no_args_is_help=True
    )
    group.callback()(captions)
    group.command("check")(check)
    group.command("convert")(convert)
    # A time such as -0:02 is an argument and not an option.
    group.command("shift", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(shift)
    group.command("scale")(scale)
    group.command("merge")(merge)
    group.command("split")(split)
    return group


def captions(color: Color = ColorMode.AUTO) -> None:
    """Check, convert, shift, scale, merge and split caption files."""


@with_options
def check(ctx: typer.Context, options: CheckOptions) -> int:
    """Report overlaps, reading speed, long lines and other problems. Exit code 3 if there are any."""
    from .captions_check import run_check

    app, console = open_app(ctx, options.general)
    return run_check(app, console, options)


@with_options
def convert(ctx: typer.Context, options: ConvertOptions) -> int:
    """Convert captions to other formats, without losing text."""
    from .captions_run import run_convert

    app, console = open_app(ctx, options.general)
    return run_convert(app, console, options)


@with_options
def shift(ctx: typer.Context, options: ShiftOptions) -> None:
    """Shift all times by the same amount."""
    from .captions_run import run_shift

    _reject_unknown_options((options.file, options.by, *ctx.args), ctx)
    app, console = open_app(ctx, options.general)
    run_shift(app, console, options)


@with_options
def scale(ctx: typer.Context, options: ScaleOptions) -> None:
    """Scale all times: by a factor, to another frame rate or by sync points."""
    from .captions_run import run_scale

    app, console = open_app(ctx, options.general)
    run_scale(app, console, options)


@with_options
def merge(ctx: typer.Context, options: MergeOptions) -> None:
    """Join parts, merge files by time, or show two languages in one caption."""
    from .captions_run import run_merge

    app, console = open_app(ctx, options.general)
    run_merge(app, console, options)


@with_options
def split(ctx: typer.Context, options: SplitOptions) -> None:
    """Split captions into parts whose times begin at zero."""
    from .captions_run import run_split

    app, console = open_app(ctx, options.general)
    run_split(app, console, options)


def _reject_unknown_options(words: Sequence[str], ctx: typer.Context) -> None:
    """Check what Typer took for arguments, because a time may begin with a hyphen. Raises: UsageError."""
    for word in words:
        if word.startswith("-") and word != "-" and not word[1:2].isdecimal():
            names = [name for parameter in ctx.command.params for name in parameter.opts if name.startswith("--")]
            raise UsageError(f"no such option: {word}{suggest(word, names)}", hint=_SHIFT_HELP)
    if len(words) > 2:
        raise UsageError(f"unexpected extra argument: {words[2]}", hint=_SHIFT_HELP)
