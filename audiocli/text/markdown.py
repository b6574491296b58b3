"""Turn Markdown into plain text that can be read aloud.

| in Markdown | aloud |
|---|---|
| heading, list item, table row | a sentence: a full stop is added where no mark ends it |
| numbered item | with its number, for texts refer to it; the dots of the others are not said |
| table | row by row, cells with commas between them |
| link, image | its text, its description; an address only where it is itself the text |
| code | between other words and in short blocks as it stands; a longer block is only announced |
| line breaks | spaces |
| emphasis, rules, HTML, footnotes, front matter, boxes of tasks | nothing |

Paragraphs, lists, tables and blocks of code have empty lines between them; items, rows and lines of code line ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .line_breaking import is_unspaced

if TYPE_CHECKING:
    from markdown_it.tree import SyntaxTreeNode

# Longer code is not worth hearing: nobody follows more lines than these.
_CODE_LINES, _CODE_CHARACTERS = 3, 200
LONG_CODE = "Code left out."

_LEVELS = 100  # what is nested deeper is lost; CommonMark's usual 20 is not much for a discussion in quotations

_ENDED = re.compile(r"""[.!?…:;。！？：；｡؟؛।۔։።።။།]["'”’»›)\]」』）】*_]*$""")
_TASK = re.compile(r"^\[[ xX]\]\s+")
_LINE_BREAK = re.compile(r"<br\b", re.IGNORECASE)
_DROPPED = frozenset({"front_matter", "hr", "html_block", "footnote_reference"})
_DROPPED_INLINE = frozenset({"html_inline", "footnote_ref"})
_BREAKS = frozenset({"softbreak", "hardbreak"})
_LISTS = frozenset({"bullet_list", "ordered_list"})


def speakable(source: str, *, long_code: str = LONG_CODE) -> str:
    """Write a Markdown document as plain text to be spoken; `long_code` is said in place of long code."""
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode
    from mdit_py_plugins.footnote import footnote_plugin
    from mdit_py_plugins.front_matter import front_matter_plugin

    parser = MarkdownIt("commonmark", {"maxNesting": _LEVELS}).enable(["table", "strikethrough"])
    parser.use(front_matter_plugin).use(footnote_plugin)
    # It gathers the notes at the end, and breaks on a note within a note (mdit-py-plugins 0.7.0).
    parser.disable("footnote_tail")
    root = SyntaxTreeNode(parser.parse(source))
    return "\n\n".join(filter(None, _blocks(root.children, long_code)))


def _blocks(nodes: Sequence[SyntaxTreeNode], long_code: str) -> Iterator[str]:
    """Yield the paragraphs of a part of a document; some may be empty."""
    for node in nodes:
        if node.type in _DROPPED:
            continue
        if node.type == "heading":
            yield _sentence(_words(node))
        elif node.type == "paragraph":
            yield _words(node)
        elif node.type in ("fence", "code_block"):
            yield _code(node.content, long_code)
        elif node.type == "table":
            yield _lines(_row(row) for part in node.children for row in part.children)
        elif node.type in _LISTS:
            yield from _items(node, long_code)
        else:  # a quotation, and whatever else only holds other blocks
            yield from _blocks(node.children, long_code)


def _items(node: SyntaxTreeNode, long_code: str) -> Iterator[str]:
    """Yield a list: items of one paragraph, and lists of such, as lines of one paragraph."""
    lines: list[str] = []
    number = int(node.attrs.get("start", 1))
    for item in node.children:
        parts = [part for child in item.children for part in _blocks([child], long_code) if part]
        short = all(child.type == "paragraph" or child.type in _LISTS for child in item.children)
        if parts and item.children[0].type == "paragraph":
            parts[0] = _sentence(_TASK.sub("", parts[0]))
            if node.type == "ordered_list":
                parts[0] = f"{number}. {parts[0]}"
        number += 1
        if short and sum(child.type == "paragraph" for child in item.children) <= 1:
            lines += parts
            continue
        yield _lines(lines)
        lines = []
        yield from parts
    yield _lines(lines)


def _lines(parts: Iterator[str] | Sequence[str]) -> str:
    return "\n".join(filter(None, parts))


def _row(row: SyntaxTreeNode) -> str:
    return _sentence(", ".join(filter(None, (_words(cell) for cell in row.children))))


def _code(content: str, long_code: str) -> str:
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    if len(lines) > _CODE_LINES or len(content) > _CODE_CHARACTERS:
        return long_code
    return "\n".join(lines)


def _words(node: SyntaxTreeNode) -> str:
    return " ".join("".join(_inline(node.children)).split())


def _inline(nodes: Sequence[SyntaxTreeNode]) -> Iterator[str]:
    for node in nodes:
        if node.type in ("text", "code_inline"):
            yield node.content
        elif node.type in _BREAKS or (node.type == "html_inline" and _LINE_BREAK.match(node.content)):
            yield " "
        elif node.type not in _DROPPED_INLINE:
            yield from _inline(node.children)


def _sentence(text: str) -> str:
    """Add the full stop of the text's script, unless a mark ends it already."""
    if not text or _ENDED.search(text):
        return text
    last = next((char for char in reversed(text) if char.isalnum()), "")
    if "\u0900" <= last <= "\u097f":
        return f"{text}।"
    ideographic = last >= "\u2e80" and is_unspaced(last)
    return f"{text}。" if ideographic else f"{text}."
