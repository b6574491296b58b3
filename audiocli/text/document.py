"""The document model: what readers make of a file, and what is split into chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..types.json import EMPTY_MAPPING

PARAGRAPH_SEPARATOR = "\n\n"


class Paragraph(NamedTuple):
    """A paragraph that is spoken in one voice.

    Attributes:
        voice: Name of a voice or of a speaker; None for the default voice.
        pause_ms: Silence after the paragraph in milliseconds, in place of the default.
        start_s: Time at which the speech of a caption begins, in seconds; None without captions.
        end_s: Time at which the caption ends, in seconds.
    """

    text: str
    voice: str | None = None
    pause_ms: float | None = None
    start_s: float | None = None
    end_s: float | None = None


class Chapter(NamedTuple):
    """A chapter. The title is not part of the paragraphs unless the document shows it as a heading.

    Attributes:
        number: Its position among the chapters with text, from 1; None if the chapters are not numbered.
    """

    title: str | None
    paragraphs: tuple[Paragraph, ...]
    number: int | None = None


class Cover(NamedTuple):
    """The cover picture of a book: a JPEG or PNG file."""

    content: bytes
    media_type: str


class Document(NamedTuple):
    """A document to speak.

    Attributes:
        language: BCP 47 tag, such as `de` or `en-GB`.
        warnings: What the user should know about the text that was read, such as unsupported tags.
        omitted: How many things of each kind were left out, such as `{"code block": 2}`.
    """

    chapters: tuple[Chapter, ...]
    title: str | None = None
    author: str | None = None
    language: str | None = None
    cover: Cover | None = None
    warnings: tuple[str, ...] = ()
    omitted: Mapping[str, int] = EMPTY_MAPPING

    @property
    def paragraphs(self) -> tuple[Paragraph, ...]:
        """The paragraphs of all chapters."""
        return tuple(paragraph for chapter in self.chapters for paragraph in chapter.paragraphs)

    @property
    def text(self) -> str:
        """The text of all paragraphs, with an empty line between them."""
        return PARAGRAPH_SEPARATOR.join(paragraph.text for paragraph in self.paragraphs)

    @property
    def needs_chunks(self) -> bool:
        """Whether the document has voices, pauses or times, which the text alone cannot express."""
        return any(paragraph != Paragraph(paragraph.text) for paragraph in self.paragraphs)


def create_plain_document(text: str) -> Document:
    """Return a document that consists of a text without structure."""
    return Document((Chapter(None, (Paragraph(text),)),))
