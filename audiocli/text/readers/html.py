"""Read HTML: what a browser shows, as paragraphs and headings. Other readers turn their formats into HTML first.

| HTML | speech |
|---|---|
| heading, list item, table row | a sentence; a full stop is added if there is no final punctuation |
| numbered item | starts with its number, because texts refer to it; bullets are omitted |
| table | row by row, with commas between the cells; a table for layout as paragraphs |
| image | its description (`alt`) |
| code | inline code and short blocks unchanged; a longer block is replaced by a placeholder |
| line break | a space; two in a row end the paragraph |
| scripts, styles, hidden elements, pronunciations of ruby, marks of notes | omitted |

Lists, tables and code blocks are paragraphs. Line ends separate their items, rows and lines.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from selectolax.lexbor import LexborHTMLParser, LexborNode

from ...errors import DocumentError
from ..document import Document
from .blocks import Block, BlockKind, build_chapters, find_title, split_names, terminate_sentence
from .encoding import decode_content, find_declared_encoding

# Longer code is replaced by a placeholder, because it is hard to follow by ear.
_MAX_CODE_LINES, _MAX_CODE_CHARACTERS = 3, 200
CODE_PLACEHOLDER = "Code left out."

# Deeper elements become plain text. Pages have some 30 levels, Chromium stops at 512.
_MAX_DEPTH = 200
# Each block element searches the open elements (HTML Standard, 13.2.4.2), so the time grows with the square of the
# depth: 0.4 s for 20,000 levels.
_MAX_OPEN_ELEMENTS = 1000
# A tag, or text without tags: a comment, a script with comparisons such as `i<n`, or a style.
_TAG = re.compile(
    r"<!--.*?(?:-->|\Z)|<(?P<raw>script|style|textarea|title|xmp)\b.*?(?:</(?P=raw)|\Z)"
    r"|<(?P<slash>/?)(?P<tag>[a-zA-Z][a-zA-Z0-9]*)",
    re.DOTALL | re.IGNORECASE,
)
# Elements without an end tag, and those whose end tag may be missing.
_VOID = split_names("area base br col embed hr img input link meta param source track wbr")
_OPTIONAL_END = split_names(
    "a body caption colgroup dd dt head html li optgroup option p rp rt rb rtc tbody td tfoot th thead tr"
)

_XHTML = re.compile(r"<\?xml\s|//DTD XHTML|xmlns\s*=\s*[\"']http://www\.w3\.org/1999/xhtml")
_XHTML_CONSTRUCT = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<!\[CDATA\[(?P<cdata>.*?)(?:\]\]>|\Z)"
    r"|<(?P<tag>[A-Za-z][\w:.-]*)(?P<attributes>(?:[^\"'<>/]|/(?!>)|\"[^\"]*\"|'[^']*')*+)/>",
    re.DOTALL,
)

_BLOCKS = split_names(
    "address article aside blockquote body button caption center dd details dialog dir div dl dt fieldset "
    "figcaption figure footer form header hgroup hr legend li main menu nav ol optgroup option p search section "
    "summary table tbody td tfoot th thead tr ul"
)
_LISTS = frozenset(("ul", "ol", "menu", "dir", "dl"))
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
# Never shown, or shown by other means than text.
_INVISIBLE = split_names(
    "audio base canvas datalist embed head iframe input link meta noembed noframes noscript object param rp rt "
    "rtc script source style template textarea title track video"
)
_INVISIBLE_STYLE = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
# Marks of notes and links back from them, page numbers, and links of headings to themselves. The classes are those
# of pandoc, Sphinx, MkDocs and MediaWiki.
_MARK_TYPES = frozenset(
    ("noteref", "backlink", "referrer", "pagebreak", "doc-noteref", "doc-backlink", "doc-pagebreak")
)
_MARK_CLASSES = frozenset(
    ("footnote-ref", "footnoteRef", "footnote-back", "footnote-backref", "headerlink", "mw-editsection")
)
_BOILERPLATE = frozenset(("nav", "aside", "button", "select", "dialog", "menu"))
_BOILERPLATE_ROLES = frozenset(("navigation", "banner", "contentinfo", "complementary", "search", "menu", "toolbar"))
_CODE_CLASS = re.compile(r"highlight|code|prettyprint|src\b", re.IGNORECASE)
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_BREAK = "\0"  # the parser removes this character from texts
_PARAGRAPH_BREAK = re.compile(rf"{_BREAK}\s*{_BREAK}[\s{_BREAK}]*")


class Scope(Enum):
    """Which part of a page is read: its main content, all that is visible, or all except navigation."""

    MAIN = "main"
    PAGE = "page"
    BOOK = "book"


class HtmlContent(NamedTuple):
    """The blocks of a page. `omitted` counts what was left out."""

    blocks: tuple[Block, ...]
    omitted: Mapping[str, int]


def read(content: bytes, source: str, *, encoding: str | None = None) -> Document:
    """Read the main content of a page: its `main` or `article` elements, else its body without navigation.

    Raises:
        UsageError: The bytes are not in the encoding.
        DocumentError: The elements are nested too deeply.
    """
    return _read_page(content, source, encoding, Scope.MAIN)


def read_page(content: bytes, source: str, *, encoding: str | None = None) -> Document:
    """Read all that is visible on a page. Raises: see `read`."""
    return _read_page(content, source, encoding, Scope.PAGE)


def _read_page(content: bytes, source: str, encoding: str | None, scope: Scope) -> Document:
    markup = decode_content(content, source, encoding, declared=find_declared_encoding(content))
    parser = parse_html(markup, source)
    blocks, omitted = render_html(parser, scope)
    return Document(
        build_chapters(blocks),
        title=_get_meta(parser, "og:title") or _get_title(parser) or find_title(blocks),
        author=_get_meta(parser, "author"),
        language=_get_language(parser),
        omitted=omitted,
    )


def read_fragment(markup: str, source: str, *, code_placeholder: str = CODE_PLACEHOLDER) -> HtmlContent:
    """Read the markup of a body that another reader has made. Raises: DocumentError: It is nested too deeply."""
    parser = parse_html(f"<!doctype html><body>{markup}", source, is_xhtml=False)
    return render_html(parser, Scope.PAGE, code_placeholder)


def parse_html(markup: str, source: str, *, is_xhtml: bool | None = None) -> LexborHTMLParser:
    """Parse a page. `is_xhtml` is detected by default.

    Raises:
        DocumentError: The elements are nested too deeply.
    """
    if _XHTML.search(markup, 0, 2000) if is_xhtml is None else is_xhtml:
        markup = _convert_xhtml(markup)
    depth = 0
    for match in _TAG.finditer(markup):
        tag = (match["tag"] or "br").lower()
        if tag not in _VOID and tag not in _OPTIONAL_END:
            depth = max(0, depth - 1) if match["slash"] else depth + 1
            if depth > _MAX_OPEN_ELEMENTS:
                raise DocumentError(f"{source} is nested deeper than {_MAX_OPEN_ELEMENTS:,} elements")
    return LexborHTMLParser(markup)


def render_html(parser: LexborHTMLParser, scope: Scope, code_placeholder: str = CODE_PLACEHOLDER) -> HtmlContent:
    """Return what is spoken of a parsed page."""
    renderer = _Renderer(scope, code_placeholder)
    blocks: list[Block] = []
    body = parser.body
    for root in [] if body is None else _find_main(body) if scope is Scope.MAIN else [body]:
        blocks += renderer.render(root, 0)
    return HtmlContent(tuple(blocks), dict(renderer.omitted))


def _convert_xhtml(markup: str) -> str:
    """Return XHTML as HTML. The parser of HTML takes `<script/>` for a start tag, and CDATA for a comment."""

    def convert(match: re.Match[str]) -> str:
        if match["cdata"] is not None:
            return match["cdata"].replace("&", "&amp;").replace("<", "&lt;")
        tag = match["tag"]
        if tag is None or tag.lower() in _VOID:
            return match[0]
        return f"<{tag}{match['attributes']}></{tag}>"

    return _XHTML_CONSTRUCT.sub(convert, markup)


def _find_main(body: LexborNode) -> list[LexborNode]:
    for selector in ("main", "[role=main]"):
        nodes = [node for node in body.css(selector) if node.text(strip=True)]
        if nodes:
            return nodes[:1]
    articles = [node for node in body.css("article") if not _has_ancestor(node, ("article",))]
    return [node for node in articles if node.text(strip=True)] or [body]


def _has_ancestor(node: LexborNode, tags: tuple[str, ...]) -> bool:
    parent = node.parent
    while parent is not None:
        if parent.tag in tags:
            return True
        parent = parent.parent
    return False


def _get_title(parser: LexborHTMLParser) -> str | None:
    node = parser.css_first("head > title")
    return None if node is None else " ".join(node.text().split()) or None


def _get_meta(parser: LexborHTMLParser, name: str) -> str | None:
    for node in parser.css("meta"):
        attributes = node.attributes
        if (attributes.get("name") or attributes.get("property") or "").lower() == name:
            return " ".join((attributes.get("content") or "").split()) or None
    return None


def _get_language(parser: LexborHTMLParser) -> str | None:
    root = parser.root
    attributes = {} if root is None else root.attributes
    return (attributes.get("lang") or attributes.get("xml:lang") or "").strip() or None


class _Flow:
    """The blocks of an element, and the inline text that is not a block yet."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.anchors: list[str] = []
        self._parts: list[str] = []
        self._last_description = ""

    def add_text(self, text: str) -> None:
        self._parts.append(text)

    def add_image(self, description: str) -> None:
        """Add the description of an image, with a space after that of an adjacent image."""
        if self._parts and self._parts[-1] is self._last_description:
            self._parts.append(" ")
        self._parts.append(description)
        self._last_description = description

    def flush(self) -> None:
        """End the paragraph."""
        if not self._parts:
            return
        text = "".join(self._parts)
        self._parts.clear()
        for part in _PARAGRAPH_BREAK.split(text) if _BREAK in text else (text,):
            if paragraph := " ".join(part.replace(_BREAK, " ").split()):
                self.add(Block(paragraph))

    def add(self, block: Block) -> None:
        """Add a block. It takes the anchors that precede it."""
        if self.anchors:
            block = block._replace(anchors=(*self.anchors, *block.anchors))
            self.anchors.clear()
        self.blocks.append(block)


class _Renderer:
    def __init__(self, scope: Scope, code_placeholder: str) -> None:
        self.omitted: Counter[str] = Counter()
        self._scope = scope
        self._code_placeholder = code_placeholder

    def render(self, node: LexborNode, depth: int) -> list[Block]:
        """Return the blocks of an element."""
        flow = _Flow()
        self._walk(node, flow, depth)
        flow.flush()
        if flow.anchors and flow.blocks:
            last = flow.blocks[-1]
            flow.blocks[-1] = last._replace(anchors=(*last.anchors, *flow.anchors))
        return flow.blocks

    def _walk(self, node: LexborNode, flow: _Flow, depth: int) -> None:
        if depth > _MAX_DEPTH:
            for hidden in node.css("script, style, template, noscript, [hidden]"):
                hidden.decompose()
            flow.add_text(node.text(separator=" "))
            return
        for child in node.iter(include_text=True):
            tag = child.tag or "-"
            if tag == "-text":
                flow.add_text(child.text(deep=False))
            elif tag == "br":
                flow.add_text(_BREAK)
            elif not tag.startswith("-"):
                attributes = child.attributes
                if not self._is_skipped(child, tag, attributes):
                    self._add_element(child, tag, attributes, flow, depth + 1)

    def _add_element(
        self, node: LexborNode, tag: str, attributes: Mapping[str, str | None], flow: _Flow, depth: int
    ) -> None:
        anchors = [value for key in ("id", "name") if (value := attributes.get(key))] if attributes else []
        is_block = tag in _BLOCKS or tag in _HEADINGS or tag == "pre"
        if is_block:
            flow.flush()
        flow.anchors += anchors
        if tag in _HEADINGS:
            parts = self.render(node, depth)
            title = " ".join(part.text for part in parts)
            if title:
                flow.anchors += [anchor for part in parts for anchor in part.anchors]
                flow.add(Block(terminate_sentence(title), BlockKind.OTHER, _HEADINGS[tag], title))
        elif tag in _LISTS:
            for block in self._render_list(node, tag, attributes, depth):
                flow.add(block._replace(kind=BlockKind.LIST))
        elif tag == "table":
            for block in self._render_table(node, depth):
                flow.add(block._replace(kind=BlockKind.OTHER))
        elif tag == "blockquote":
            for block in self.render(node, depth):
                flow.add(block._replace(kind=BlockKind.OTHER))
        elif tag == "pre":
            for text in self._render_preformatted(node, attributes):
                flow.add(Block(text, BlockKind.OTHER))
        elif tag == "img":
            flow.add_image(attributes.get("alt") or "")
        elif tag == "svg":
            caption = node.css_first("title")
            flow.add_text(attributes.get("aria-label") or ("" if caption is None else caption.text()))
        elif tag == "sup" and (number := _get_plain_number(node)):
            flow.add_text(number.translate(_SUPERSCRIPTS))
        else:
            self._walk(node, flow, depth)
        if is_block:
            flow.flush()

    def _is_skipped(self, node: LexborNode, tag: str, attributes: Mapping[str, str | None]) -> bool:
        if tag in _INVISIBLE:
            return tag != "textarea" or self._scope is not Scope.PAGE
        if tag in ("annotation", "annotation-xml"):  # the source of a formula
            return True
        if self._scope is Scope.BOOK and tag == "nav":
            return True
        if self._scope is Scope.MAIN and self._is_boilerplate(node, tag, attributes):
            return True
        if tag == "dialog" and "open" not in attributes:
            return True
        if not attributes:
            return False
        if "hidden" in attributes or attributes.get("aria-hidden") == "true":
            return True
        if (style := attributes.get("style")) and _INVISIBLE_STYLE.search(style):
            return True
        types = f"{attributes.get('role') or ''} {attributes.get('epub:type') or ''}".split()
        if not _MARK_TYPES.isdisjoint(types):
            return True
        classes = (attributes.get("class") or "").split()
        return not _MARK_CLASSES.isdisjoint(classes) or (tag == "sup" and "reference" in classes)

    def _is_boilerplate(self, node: LexborNode, tag: str, attributes: Mapping[str, str | None]) -> bool:
        if tag in _BOILERPLATE or attributes.get("role") in _BOILERPLATE_ROLES:
            return True
        # The header of an article has its title, that of a site has links. The footer of a quotation has its source.
        if tag == "header":
            is_title = node.css_first("h1") is not None and node.css_first("a, nav, form") is None
            return not is_title and not _has_ancestor(node, ("article", "main", "section"))
        return tag == "footer" and not _has_ancestor(node, ("blockquote",))

    def _render_list(self, node: LexborNode, tag: str, attributes: Mapping[str, str | None], depth: int) -> list[Block]:
        """Return the blocks of a list. Items with one paragraph, also of nested lists, are lines of one block."""
        blocks: list[Block] = []
        lines: list[Block] = []
        number = _parse_number(attributes.get("start"), 1)
        for child in node.iter():
            child_attributes = child.attributes
            if self._is_skipped(child, child.tag or "", child_attributes):
                continue
            item = _Flow()
            self._add_element(child, child.tag or "", child_attributes, item, depth)
            item.flush()
            parts = item.blocks
            number = _parse_number(child_attributes.get("value"), number)
            is_short = (
                all(part.kind is not BlockKind.OTHER for part in parts)
                and sum(part.kind is BlockKind.PARAGRAPH for part in parts) <= 1
            )
            if parts and parts[0].kind is BlockKind.PARAGRAPH:
                text = terminate_sentence(parts[0].text)
                if tag == "ol" and child.tag == "li":
                    text = f"{_format_number(number, attributes.get('type'))}. {text}"
                parts[0] = parts[0]._replace(text=text)
            number += child.tag == "li"
            if is_short:
                lines += parts
            else:
                blocks += [*_join_lines(lines), *parts]
                lines = []
        return [*blocks, *_join_lines(lines)]

    def _render_table(self, node: LexborNode, depth: int) -> list[Block]:
        """Return the rows of a table as lines of one block, and other content as blocks in its place."""
        blocks: list[Block] = []
        lines: list[Block] = []
        for row in self._iterate_rows(node):
            if row.tag != "tr":  # a caption
                blocks += [*_join_lines(lines), *self.render(row, depth)]
                lines = []
                continue
            cells = [
                self.render(cell, depth + 1)
                for cell in row.iter()
                if not self._is_skipped(cell, cell.tag or "", cell.attributes)
            ]
            if any(len(cell) > 1 or any(block.level for block in cell) for cell in cells):
                blocks += [*_join_lines(lines), *(block for cell in cells for block in cell)]
                lines = []
            elif parts := [block for cell in cells for block in cell]:
                text = terminate_sentence(", ".join(" ".join(part.text.split()) for part in parts))
                lines.append(Block(text, anchors=tuple(anchor for part in parts for anchor in part.anchors)))
        return [*blocks, *_join_lines(lines)]

    def _iterate_rows(self, table: LexborNode) -> Iterable[LexborNode]:
        for child in table.iter():
            if self._is_skipped(child, child.tag or "", child.attributes):
                continue
            if child.tag in ("thead", "tbody", "tfoot"):
                yield from (row for row in child.iter() if not self._is_skipped(row, "tr", row.attributes))
            else:
                yield child

    def _render_preformatted(self, node: LexborNode, attributes: Mapping[str, str | None]) -> Iterable[str]:
        parent = node.parent
        classes = f"{attributes.get('class') or ''} {'' if parent is None else parent.attributes.get('class') or ''}"
        is_code = node.css_first("code, samp, kbd") is not None or _CODE_CLASS.search(classes) is not None
        for line_break in node.css("br"):
            line_break.replace_with("\n")
        content = node.text()
        lines = [line.strip() for line in content.splitlines()]
        if not is_code:  # a poem or a plain text
            for paragraph in re.split(r"\n{2,}", "\n".join(lines)):
                if paragraph.strip():
                    yield paragraph.strip()
            return
        lines = [line for line in lines if line]
        if len(lines) > _MAX_CODE_LINES or len(content) > _MAX_CODE_CHARACTERS:
            self.omitted["code block"] += 1
            lines = [self._code_placeholder]
        if any(lines):
            yield "\n".join(lines)


def _get_plain_number(node: LexborNode) -> str:
    """Return the digits of an element that contains nothing else, or an empty string."""
    text = node.text()
    is_plain = all(child.tag == "-text" for child in node.iter(include_text=True))
    return text if is_plain and text.isascii() and text.isdecimal() else ""


def _join_lines(lines: list[Block]) -> list[Block]:
    text = "\n".join(line.text for line in lines)
    return [Block(text, BlockKind.LIST, anchors=tuple(a for line in lines for a in line.anchors))] if text else []


def _parse_number(value: str | None, default: int) -> int:
    return int(value) if value and re.fullmatch(r"-?[0-9]{1,9}", value) else default


def _format_number(number: int, type: str | None) -> str:
    """Return the number of an item: a letter in lists of the types `a` and `A`."""
    if type in ("a", "A") and 1 <= number <= 26:
        return chr(ord(type) + number - 1)
    return str(number)
