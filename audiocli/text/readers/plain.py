"""Read plain text: empty lines separate paragraphs."""

from __future__ import annotations

import re

from ..document import Chapter, Document, Paragraph
from .encoding import decode_content

_EMPTY_LINES = re.compile(r"\n\s*\n\s*|\f\s*|\u2029\s*")


def read(content: bytes, source: str, *, encoding: str | None = None) -> Document:
    """Read a text. Line ends within a paragraph stay. Raises: UsageError: The bytes are not in the encoding."""
    text = decode_content(content, source, encoding).replace("\r\n", "\n").replace("\r", "\n")
    parts = (part.strip() for part in _EMPTY_LINES.split(text))
    paragraphs = tuple(Paragraph(part) for part in parts if part)
    return Document((Chapter(None, paragraphs),) if paragraphs else ())
