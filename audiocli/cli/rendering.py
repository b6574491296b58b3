"""Options of `transcribe` that decide how transcripts are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext
from ..errors import UsageError, suggest
from ..text.format_names import PARTS, PARTS_FORMATS
from .inputs import read_bytes

if TYPE_CHECKING:
    from ..text.corrections import Corrections
    from ..text.line_breaking import CaptionLimits
    from ..text.transcript_style import TranscriptStyle

GUARD_MODES = ("warn", "off")
MAX_CORRECTIONS_BYTES = 4 * 1024 * 1024


class CaptionOptions(NamedTuple):
    """Limits of captions."""

    max_line_width: Annotated[
        int, typer.Option("--max-line-width", metavar="N", help="Maximum characters of a caption line.")
    ] = 42
    max_lines: Annotated[int, typer.Option("--max-lines", metavar="N", help="Maximum lines of a caption.")] = 2
    max_cue_s: Annotated[
        float, typer.Option("--max-cue", metavar="S", help="Maximum duration of a caption in seconds.")
    ] = 7.0
    cps: Annotated[float, typer.Option("--cps", metavar="N", help="Target reading speed in characters per second.")] = (
        17.0
    )
    words_per_cue: Annotated[
        int | None, typer.Option("--words-per-cue", metavar="N", help="Maximum words of a caption.")
    ] = None


class RenderingOptions(NamedTuple):
    """What transcripts contain. None of these changes what is sent or stored."""

    parts: Annotated[
        str | None,
        typer.Option("--with", metavar="LIST", help=f"What txt and md have: {','.join(PARTS)}."),
    ] = None
    corrections: Annotated[
        str | None,
        typer.Option("--corrections", metavar="FILE", help="Words to replace in the transcript, in TOML or CSV."),
    ] = None
    embed_media: Annotated[
        bool, typer.Option("--embed-media", help="Put the recording into the HTML page, up to 20 MB.")
    ] = False
    guard: Annotated[
        str, typer.Option("--guard", metavar="warn|off", help="Report text that the model may have made up.")
    ] = "warn"


def build_style(
    app: AppContext, options: RenderingOptions, captions: CaptionOptions, formats: tuple[str, ...], *, by_word: bool
) -> TranscriptStyle:
    """Validate the options. Raises: UsageError, AccessError: A library that a format needs is not installed."""
    from ..text.transcript_style import TranscriptStyle, parse_parts

    if options.guard not in GUARD_MODES:
        raise UsageError(f"--guard {options.guard}: must be warn or off{suggest(options.guard, GUARD_MODES)}")
    if "docx" in formats:
        from ..text.docx_transcript import require_docx

        require_docx()
    return TranscriptStyle(
        limits=_build_caption_limits(captions),
        by_word=by_word,
        parts=parse_parts(options.parts),
        corrections=read_corrections(app, options.corrections),
        use_guard=options.guard != "off",
        embed_media=options.embed_media,
    )


def list_ignored_options(options: RenderingOptions, formats: tuple[str, ...], *, is_background: bool) -> list[str]:
    """Return a warning for each option that has no effect."""
    warnings = []
    if options.parts is not None and PARTS_FORMATS.isdisjoint(formats):
        warnings.append("--with has no effect without -f txt or -f md")
    if options.embed_media and "html" not in formats:
        warnings.append("--embed-media has no effect without -f html")
    if is_background:
        # The result is written by another command.
        ignored = (
            (options.parts, "--with"),
            (options.corrections, "--corrections"),
            (options.embed_media, "--embed-media"),
        )
        warnings += [f"{flag} has no effect with --background" for value, flag in ignored if value]
    return warnings


def read_corrections(app: AppContext, path: str | None) -> Corrections | None:
    """Return the corrections of a file, which have precedence, and of the configuration; None if there are none.

    Raises:
        UsageError: A rule is invalid.
    """
    if path is None and not app.settings.corrections:
        return None
    from ..text.corrections import Corrections

    configured = Corrections.from_mapping(app.settings.corrections, "config.toml")
    if path is None:
        return configured
    return Corrections.parse_file(read_bytes(app, path, MAX_CORRECTIONS_BYTES), path).merge(configured)


def _build_caption_limits(options: CaptionOptions) -> CaptionLimits:
    from ..text.line_breaking import CaptionLimits

    for name, value, minimum in (
        ("--max-line-width", options.max_line_width, 1),
        ("--max-lines", options.max_lines, 1),
        ("--max-cue", options.max_cue_s, 0.1),
        ("--cps", options.cps, 1),
        ("--words-per-cue", options.words_per_cue, 1),
    ):
        if value is not None and not minimum <= value <= 100_000:
            raise UsageError(f"{name} {value:g}: must be between {minimum:g} and 100000")
    return CaptionLimits(
        max_line_width=options.max_line_width,
        max_lines=options.max_lines,
        max_cue_s=options.max_cue_s,
        cps=options.cps,
        words_per_cue=options.words_per_cue,
    )
