"""Write a transcript in any output format, in the style that the user wants."""

from __future__ import annotations

from ..types.transcripts import Transcript
from .subtitle_formats import render
from .transcript_style import TranscriptPage, TranscriptStyle

UNTITLED = TranscriptPage()


def correct(transcript: Transcript, style: TranscriptStyle) -> Transcript:
    """Return a transcript with the corrections of the user. Raises: UsageError: A rule takes too long."""
    return style.corrections.correct(transcript) if style.corrections else transcript


def render_formatted(
    transcript: Transcript, format: str, style: TranscriptStyle, page: TranscriptPage = UNTITLED
) -> bytes:
    """Return the content of a file. The same arguments always give the same bytes.

    `transcript` has its corrections already. json and verbose_json are documents of the result and not written here.

    Raises:
        AccessError: The format needs a library that is not installed.
        UsageError: The format is unknown.
    """
    # The modules of these formats are loaded only where they are written.
    if format == "docx":
        from .docx_transcript import write_docx

        return write_docx(transcript, page)
    if format == "html":
        from .html_transcript import write_html

        text = write_html(transcript, page)
    elif format == "md":
        from .reading_formats import DEFAULT_MARKDOWN_PARTS, write_markdown

        text = write_markdown(transcript, DEFAULT_MARKDOWN_PARTS if style.parts is None else style.parts, page)
    elif format == "txt" and style.parts is not None:
        from .reading_formats import write_text

        text = write_text(transcript, style.parts)
    else:
        text = render(transcript, format, limits=style.limits, by_word=style.by_word)
    return text.encode("utf-8", "replace")
