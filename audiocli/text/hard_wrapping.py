"""Join the lines of hard-wrapped paragraphs, such as those of mails, man pages and old books.

A line is wrapped if the first word of the next line did not fit behind it. The width of a paragraph is that of its
longest line. Shorter lines keep their end.

| unchanged | recognized by |
|---|---|
| list items, headings, quotations (`>`), rules | their first characters; lines below an item are joined with it |
| tables, code | columns, indentation, fences |
| verses, addresses | a capital at the beginning of every line, lines below 40 columns, lines of different length |
| lines of a dialogue, such as `Alice: Hello` | the label of the next line |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median

from .line_breaking import is_unspaced, measure_width

_MIN_WIDTH = 40
_MAX_VERSE_WIDTH = 60  # longer lines that all begin with a capital are prose
_MIN_WRAPPED_SHARE = 0.75  # of the lines of a paragraph
_MAX_MERGED_SHARE = 1.25  # lines that are longer than the median by this factor lost the hyphen at their end

_FENCE = re.compile(r"\s*(?:```|~~~)")
_LIST_ITEM = re.compile(r"\s*(?:[-*+•‣–·◦▪●]|\(?(?:\d{1,3}|[a-z]|[ivx]{1,4})[.)]|\[\d+\])\s", re.IGNORECASE)
_SINGLE_LINE = re.compile(
    r"\s*(?:[>|#]|\[[^\]]*\]\s*$|[-=_~*#+|:\s]+$)"  # a quotation, a table, a heading, a directive, a rule
    r"|.*(?:\S {3,}\S| \| |[{}\\]\s*$|\w\(.*\)[:;]?\s*$)"  # columns, code
)
_LABEL = re.compile(r"\s*[^\W\d_][\w .'’-]{0,30}[:：](?=\s|$)")
_FIRST_WORD = re.compile(r"\s*(\S+)")
_OPEN_HYPHEN = re.compile(r"\w[-\u2010]$")


def join_wrapped_lines(text: str) -> str:
    """Replace the line ends within hard-wrapped paragraphs by spaces. Other line ends become `\\n`."""
    lines = text.replace("\r\n", "\n").split("\n")
    expanded = [line.expandtabs() for line in lines]
    wrapped = {
        start + index for start, end in _find_paragraphs(expanded) for index in _find_wrapped_lines(expanded[start:end])
    }
    parts = []
    for index, line in enumerate(lines):
        # The indentation of a line goes with the line end before it.
        content = line.lstrip() if index - 1 in wrapped else line
        if index in wrapped:
            content = content.rstrip()
            parts.append(content + _select_space(content, lines[index + 1].lstrip()))
        else:
            parts.append(content + "\n" * (index + 1 < len(lines)))
    return "".join(parts)


def _find_paragraphs(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the first index and the end of each group of lines that may be one paragraph."""
    start = 0
    in_fence = False
    for index, line in enumerate(lines):
        is_fence = _FENCE.match(line) is not None
        if in_fence or is_fence or not line.strip():
            yield start, index
            start = index + 1
            in_fence ^= is_fence
        elif index > start and _begins_paragraph(line, lines[index - 1], is_second=index == start + 1):
            yield start, index
            start = index
    yield start, len(lines)


def _begins_paragraph(line: str, previous: str, *, is_second: bool) -> bool:
    """Return whether a line cannot continue the previous one. `is_second`: the previous one begins a paragraph."""
    if _LIST_ITEM.match(line) or _LABEL.match(line) or _SINGLE_LINE.match(line) or _SINGLE_LINE.match(previous):
        return True
    difference = _measure_indentation(line) - _measure_indentation(previous)
    if not is_second:
        return difference != 0
    # The first line of a paragraph may be indented, and the lines below a list item are.
    return difference > 0 and not _LIST_ITEM.match(previous)


def _find_wrapped_lines(lines: Sequence[str]) -> set[int]:
    """Return the indexes of the lines of a paragraph that are wrapped; none if it does not seem to be hard-wrapped."""
    if len(lines) < 2:
        return set()
    widths = [measure_width(line.rstrip()) for line in lines]
    typical_width = median(widths[:-1])
    width = max(width for width in widths if width <= _MAX_MERGED_SHARE * typical_width)
    if width < _MIN_WIDTH or (width < _MAX_VERSE_WIDTH and len(lines) > 2 and _is_verse(lines)):
        return set()
    # Programs that balance lines, such as fmt, leave a few more columns free.
    min_width = width - width // 8
    wrapped = {
        index
        for index, (_, following) in enumerate(pairwise(lines))
        if widths[index] + 1 + _measure_first_word(following) > min_width
    }
    return wrapped if len(wrapped) >= _MIN_WRAPPED_SHARE * (len(lines) - 1) else set()


def _is_verse(lines: Sequence[str]) -> bool:
    """Return whether every line begins with a capital letter, after quotation marks or a dash."""
    first_letters = [next((char for char in line if char.isalnum()), "") for line in lines]
    return all(letter.isupper() for letter in first_letters)


def _measure_indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def _measure_first_word(line: str) -> int:
    match = _FIRST_WORD.match(line)
    if match is None:
        return 0
    return measure_width(match[1][:1]) if is_unspaced(match[1][0]) else measure_width(match[1])


def _select_space(line: str, following: str) -> str:
    """Return what replaces the line end: nothing after the hyphen of a compound, and in scripts without spaces."""
    if _OPEN_HYPHEN.search(line) and (following[0].isupper() or following[0].isdigit()):
        return ""
    return "" if is_unspaced(line[-1]) and is_unspaced(following[0]) else " "
