"""Split a document into chunks: each has one voice and belongs to one chapter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple

from .document import PARAGRAPH_SEPARATOR, Document, Paragraph
from .splitter import BreakAt, Chunk, Unit, split_text


class _Run(NamedTuple):
    """Paragraphs that are split together."""

    paragraphs: list[Paragraph]
    chapter: int


def split_document(
    document: Document,
    max_size: int | None,
    *,
    unit: Unit = Unit.CHARACTERS,
    max_first_size: int | None = None,
    break_at: BreakAt = BreakAt.MAX_SIZE,
) -> tuple[Chunk, ...]:
    """Split a document into few chunks of at most `max_size`, as `split_text` does.

    A chunk ends where the chapter or the voice changes, and at a paragraph with its own pause or time. Positions refer
    to `document.text`.

    Raises:
        UsageError: A maximum is below 1, or a single grapheme cluster exceeds it.
    """
    chunks: list[Chunk] = []
    offset = 0
    runs = list(_group_paragraphs(document))
    for run, following in zip_longest(runs, runs[1:]):
        text = PARAGRAPH_SEPARATOR.join(paragraph.text for paragraph in run.paragraphs)
        first, last = run.paragraphs[0], run.paragraphs[-1]
        end_s = _get_available_end(first, following)
        parts = split_text(text, max_size, unit=unit, max_first_size=max_first_size, break_at=break_at)
        if parts:
            max_first_size = None
        for index, part in enumerate(parts):
            chunks.append(
                replace(
                    part,
                    start=offset + part.start,
                    end=offset + part.end,
                    voice=first.voice,
                    pause_ms=last.pause_ms if index == len(parts) - 1 else None,
                    chapter=run.chapter,
                    start_s=first.start_s if index == 0 else None,
                    end_s=end_s if len(parts) == 1 else None,
                )
            )
        offset += len(text) + len(PARAGRAPH_SEPARATOR)
    return tuple(chunks)


def _get_available_end(paragraph: Paragraph, following: _Run | None) -> float | None:
    """Return when the speech of a caption must end: at the beginning of the next caption, if that is later."""
    next_start_s = None if following is None else following.paragraphs[0].start_s
    if paragraph.end_s is None or next_start_s is None:
        return paragraph.end_s
    return max(paragraph.end_s, next_start_s)


def _group_paragraphs(document: Document) -> Iterator[_Run]:
    for index, chapter in enumerate(document.chapters):
        run: _Run | None = None
        for paragraph in chapter.paragraphs:
            if run is not None and _belongs_to(paragraph, run.paragraphs[-1]):
                run.paragraphs.append(paragraph)
                continue
            if run is not None:
                yield run
            run = _Run([paragraph], index)
        if run is not None:
            yield run


def _belongs_to(paragraph: Paragraph, previous: Paragraph) -> bool:
    """Return whether a paragraph may share a chunk with the previous one."""
    return paragraph.voice == previous.voice and previous.pause_ms is None and paragraph.start_s is None
