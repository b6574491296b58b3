"""Blocks: the paragraphs and headings of a document in reading order, and the chapters that they form."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from ..document import Chapter, Paragraph
from ..line_breaking import is_unspaced

_TERMINATED = re.compile(r"""[.!?…:;。！？：；｡؟؛।۔።։။។།]["'”’»›)\]」』）】*_]*$""")


class BlockKind(Enum):
    """What a block was in its document. It decides how the block is joined with others in a list or a table."""

    PARAGRAPH = "paragraph"
    LIST = "list"
    OTHER = "other"


class Block(NamedTuple):
    """A paragraph, a heading, or a list or table whose items and rows are lines.

    Attributes:
        level: Level of a heading, 1 to 6; 0 for everything else.
        title: Text of a heading without an added full stop.
        anchors: IDs to which links may point, of this block and of elements that begin before it.
    """

    text: str
    kind: BlockKind = BlockKind.PARAGRAPH
    level: int = 0
    title: str = ""
    anchors: tuple[str, ...] = ()


def build_chapters(blocks: Sequence[Block]) -> tuple[Chapter, ...]:
    """Divide blocks into chapters at the headings of the highest level, or of the next one if there is only one.

    A single heading of the highest level is the title of the document. It is spoken before the heading that follows.
    """
    levels = Counter(block.level for block in blocks if block.level)
    highest, *lower = sorted(levels) or [0]
    chapter_level = lower[0] if lower and levels[highest] == 1 else highest
    chapters: list[Chapter] = []
    title: str | None = None
    title_level, first = 0, 0
    has_text = False
    for index, block in enumerate(blocks):
        if not 0 < block.level <= chapter_level:
            has_text = True
            continue
        if has_text or block.level <= title_level:
            chapters.append(build_chapter(title, blocks[first:index]))
            first, has_text = index, False
        title, title_level = block.title, block.level
    if blocks[first:]:
        chapters.append(build_chapter(title, blocks[first:]))
    return tuple(chapters)


def build_chapter(title: str | None, blocks: Iterable[Block]) -> Chapter:
    """Build a chapter whose paragraphs are the blocks."""
    return Chapter(title or None, tuple(Paragraph(block.text) for block in blocks))


def find_title(blocks: Iterable[Block]) -> str | None:
    """Return the title of a document: the text of its only heading of level 1."""
    titles = [block.title for block in blocks if block.level == 1]
    return titles[0] if len(titles) == 1 else None


def terminate_sentence(text: str) -> str:
    """Add the full stop of the script of the text, unless the text ends with punctuation."""
    if not text or _TERMINATED.search(text):
        return text
    last_letter = next((char for char in reversed(text) if char.isalnum()), "")
    if "\u0900" <= last_letter <= "\u097f":
        return f"{text}।"
    ideographic = last_letter >= "\u2e80" and is_unspaced(last_letter)
    return f"{text}。" if ideographic else f"{text}."


def split_names(names: str) -> frozenset[str]:
    """Return the names of elements in a string, which spaces separate."""
    return frozenset(names.split())
