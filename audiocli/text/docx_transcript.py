"""Write a transcript as a Word document, with python-docx (extra `documents`)."""

from __future__ import annotations

import io
import re
import zipfile

from ..errors import AccessError
from ..types.transcripts import Transcript
from .clock import format_position
from .guard import describe_suspicion
from .line_breaking import collapse_whitespace
from .paragraphs import build_paragraphs
from .transcript_style import TranscriptPage

INSTALL_HINT = 'install it with: pip install "audiocli[documents]"'

# What XML 1.0 does not allow.
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
# Archives cannot have earlier dates. A fixed one makes the same bytes of the same transcript.
_ARCHIVE_DATE = (1980, 1, 1, 0, 0, 0)
_TIME_COLOR = (0x5B, 0x5D, 0x66)


def require_docx() -> None:
    """Check that documents can be written. Raises: AccessError: The library is not installed."""
    from importlib.util import find_spec

    if find_spec("docx") is None:
        raise AccessError("Word documents need python-docx, which is not installed", hint=INSTALL_HINT)


def write_docx(transcript: Transcript, page: TranscriptPage) -> bytes:
    """Write a document with a title, notes, and paragraphs with times and speakers.

    Raises:
        AccessError: The library is not installed.
    """
    require_docx()
    from datetime import datetime

    from docx import Document
    from docx.shared import RGBColor

    document = Document()
    title = _clean(collapse_whitespace(page.title))
    properties = document.core_properties
    properties.title, properties.author, properties.comments = title[:255], "", ""
    properties.language = _clean(transcript.language or "")[:255]
    properties.created = properties.modified = datetime(*_ARCHIVE_DATE)
    if title:
        document.add_heading(title, level=0)
    for note in (*page.notes, *map(describe_suspicion, page.suspicions)):
        document.add_paragraph(_clean(note), style="List Bullet")
    for paragraph in build_paragraphs(transcript):
        block = document.add_paragraph()
        if paragraph.start_s is not None:
            time = block.add_run(f"{format_position(paragraph.start_s)}  ")
            time.font.color.rgb = RGBColor(*_TIME_COLOR)
        if paragraph.speaker:
            block.add_run(f"{_clean(paragraph.speaker)}: ").bold = True
        block.add_run(_clean(paragraph.text))
    content = io.BytesIO()
    document.save(content)
    return _fix_dates(content)


def _clean(text: str) -> str:
    return _ILLEGAL.sub("", text)


def _fix_dates(content: io.BytesIO) -> bytes:
    fixed = io.BytesIO()
    with zipfile.ZipFile(content) as source, zipfile.ZipFile(fixed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(zipfile.ZipInfo(entry.filename, _ARCHIVE_DATE), source.read(entry), zipfile.ZIP_DEFLATED)
    return fixed.getvalue()
