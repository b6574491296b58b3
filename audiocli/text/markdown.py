"""Convert Markdown to plain text for speech.

| Markdown | speech |
|---|---|
| heading, list item, table row | a sentence; a full stop is added if there is no final punctuation |
| numbered item | starts with its number, because texts refer to it; bullets are omitted |
| table | row by row, with commas between the cells |
| link, image | the link text, the description; a URL only if it is the link text |
| code | inline code and short blocks unchanged; a longer block is replaced by a placeholder |
| line breaks | spaces |
| emphasis, rules, HTML, footnotes, front matter, task boxes | omitted |

Empty lines separate paragraphs, lists, tables and code blocks. Line ends separate items, rows and lines of code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .line_breaking import is_unspaced

if TYPE_CHECKING:
    from markdown_it.tree import SyntaxTreeNode

# Longer code is replaced by a placeholder, because it is hard to follow by ear.
_MAX_CODE_LINES, _MAX_CODE_CHARACTERS = 3, 200
CODE_PLACEHOLDER = "Code left out."

_MAX_NESTING = 100  # deeper blocks are dropped; the default of 20 is too low for threads with nested quotations

_TERMINATED = re.compile(r"""[.!?…:;。！？：；｡؟؛।۔։።።။།]["'”’»›)\]」』）】*_]*$""")
_TASK_BOX = re.compile(r"^\[[ xX]\]\s+")
_LINE_BREAK_TAG = re.compile(r"<br\b", re.IGNORECASE)
_SKIPPED_BLOCKS = frozenset({"front_matter", "hr", "html_block", "footnote_reference"})
_SKIPPED_INLINES = frozenset({"html_inline", "footnote_ref"})
_LINE_BREAKS = frozenset({"softbreak", "hardbreak"})
_LIST_BLOCKS = frozenset({"bullet_list", "ordered_list"})


def markdown_to_speech(document: str, *, code_placeholder: str = CODE_PLACEHOLDER) -> str:
    """Convert a Markdown document to plain text for speech. `code_placeholder` replaces long code blocks."""
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode
    from mdit_py_plugins.footnote import footnote_plugin
    from mdit_py_plugins.front_matter import front_matter_plugin

    parser = MarkdownIt("commonmark", {"maxNesting": _MAX_NESTING}).enable(["table", "strikethrough"])
    parser.use(front_matter_plugin).use(footnote_plugin)
    # This rule moves notes to the end, and fails on a note within a note (mdit-py-plugins 0.7.0).
    parser.disable("footnote_tail")
    root = SyntaxTreeNode(parser.parse(document))
    return "\n\n".join(filter(None, _render_blocks(root.children, code_placeholder)))


def _render_blocks(nodes: Sequence[SyntaxTreeNode], code_placeholder: str) -> Iterator[str]:
    """Yield the paragraphs of the nodes. Some may be empty."""
    for node in nodes:
        if node.type in _SKIPPED_BLOCKS:
            continue
        if node.type == "heading":
            yield _terminate_sentence(_render_text(node))
        elif node.type == "paragraph":
            yield _render_text(node)
        elif node.type in ("fence", "code_block"):
            yield _render_code(node.content, code_placeholder)
        elif node.type == "table":
            yield _join_lines(_render_row(row) for part in node.children for row in part.children)
        elif node.type in _LIST_BLOCKS:
            yield from _render_list(node, code_placeholder)
        else:  # a quotation or another container of blocks
            yield from _render_blocks(node.children, code_placeholder)


def _render_list(node: SyntaxTreeNode, code_placeholder: str) -> Iterator[str]:
    """Yield the paragraphs of a list. Items with one paragraph, also of nested lists, are lines of one paragraph."""
    lines: list[str] = []
    number = int(node.attrs.get("start", 1))
    for item in node.children:
        paragraphs = [part for child in item.children for part in _render_blocks([child], code_placeholder) if part]
        is_short = all(child.type == "paragraph" or child.type in _LIST_BLOCKS for child in item.children)
        if paragraphs and item.children[0].type == "paragraph":
            paragraphs[0] = _terminate_sentence(_TASK_BOX.sub("", paragraphs[0]))
            if node.type == "ordered_list":
                paragraphs[0] = f"{number}. {paragraphs[0]}"
        number += 1
        if is_short and sum(child.type == "paragraph" for child in item.children) <= 1:
            lines += paragraphs
            continue
        yield _join_lines(lines)
        lines = []
        yield from paragraphs
    yield _join_lines(lines)


def _join_lines(parts: Iterator[str] | Sequence[str]) -> str:
    return "\n".join(filter(None, parts))


def _render_row(row: SyntaxTreeNode) -> str:
    return _terminate_sentence(", ".join(filter(None, (_render_text(cell) for cell in row.children))))


def _render_code(content: str, code_placeholder: str) -> str:
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    if len(lines) > _MAX_CODE_LINES or len(content) > _MAX_CODE_CHARACTERS:
        return code_placeholder
    return "\n".join(lines)


def _render_text(node: SyntaxTreeNode) -> str:
    return " ".join("".join(_render_inlines(node.children)).split())


def _render_inlines(nodes: Sequence[SyntaxTreeNode]) -> Iterator[str]:
    for node in nodes:
        if node.type in ("text", "code_inline"):
            yield node.content
        elif node.type in _LINE_BREAKS or (node.type == "html_inline" and _LINE_BREAK_TAG.match(node.content)):
            yield " "
        elif node.type not in _SKIPPED_INLINES:
            yield from _render_inlines(node.children)


def _terminate_sentence(text: str) -> str:
    """Add the full stop of the script of the text, unless the text ends with punctuation."""
    if not text or _TERMINATED.search(text):
        return text
    last_letter = next((char for char in reversed(text) if char.isalnum()), "")
    if "\u0900" <= last_letter <= "\u097f":
        return f"{text}।"
    ideographic = last_letter >= "\u2e80" and is_unspaced(last_letter)
    return f"{text}。" if ideographic else f"{text}."
