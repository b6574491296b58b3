"""Tags of the speech of a document: title, author, language, cover and chapter marks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..audio.tags import AudioTags, ChapterMark, Cover
from ..text.document import Chapter, Document
from ..text.timing import TimedChunk


def build_tags(document: Document, timed_chunks: Sequence[TimedChunk], *, scale: float = 1.0) -> AudioTags:
    """Return the tags of a file with the whole document. Chapters begin where their first chunk begins.

    `scale` converts times in the speech to times in the file.
    """
    cover = document.cover
    return AudioTags(
        title=document.title or "",
        artist=document.author or "",
        language=document.language or "",
        chapters=_build_marks(document, timed_chunks, scale),
        cover=None if cover is None else Cover(cover.content, cover.media_type),
    )


def build_chapter_tags(document: Document, chapter: Chapter, number: int) -> AudioTags:
    """Return the tags of a file with one chapter of a document. The title of the document is the album."""
    title = name_chapter(chapter.title, number)
    return build_tags(document, ())._replace(title=title, album=document.title or "", track=number)


def name_chapter(title: str | None, number: int) -> str:
    """Return the title of a chapter, or a name with its number."""
    return title or f"Chapter {number}"


def _build_marks(document: Document, timed_chunks: Sequence[TimedChunk], scale: float) -> tuple[ChapterMark, ...]:
    starts_s: dict[int, float] = {}
    for timed in timed_chunks:
        starts_s.setdefault(timed.chunk.chapter, timed.start_s * scale)
    if len(starts_s) < 2:
        return ()
    # The first mark covers a pause or silence at the beginning.
    starts_s[next(iter(starts_s))] = 0.0
    end_s = timed_chunks[-1].end_s * scale
    chapters = document.chapters
    return tuple(
        ChapterMark(name_chapter(chapters[index].title, chapters[index].number or number), start_s, next_start_s)
        for number, (index, (start_s, next_start_s)) in enumerate(
            zip(starts_s, pairwise([*starts_s.values(), end_s]), strict=True), 1
        )
    )
