"""Read ODT (OpenDocument, ISO/IEC 26300): the text as the last reviewer sees it.

Deleted and hidden text, comments and indexes are not spoken. Notes follow the paragraph, list or table that refers to
them. The document becomes HTML, which `html` reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from html import escape
from xml.etree.ElementTree import Element

from ...errors import DocumentError
from ..document import Document
from .archive import Archive
from .blocks import build_chapters, find_title, split_names
from .html import read_fragment
from .xml_tree import get_attribute, get_local_name

_INDEXES = {
    "table-of-content": "table of contents",
    "alphabetical-index": "index",
    "illustration-index": "index",
    "object-index": "index",
    "table-index": "index",
    "user-index": "index",
}
# What is in the file and not on the page.
_SKIPPED = split_names(
    "tracked-changes annotation annotation-end forms sequence-decls variable-decls user-field-decls note-citation "
    "ruby-text hidden-text hidden-paragraph script shapes list-header-style event-listeners"
)
_MAX_SPACES = 100


def read(content: bytes, source: str, *, encoding: str | None = None) -> Document:
    """Read a document. `encoding` is ignored: the format names it.

    Raises:
        DocumentError: The document is damaged, encrypted, or exceeds the limits.
    """
    archive = Archive(content, source)
    if "META-INF/manifest.xml" in archive:
        manifest = archive.read_xml("META-INF/manifest.xml").root
        if any(get_local_name(element) == "encryption-data" for element in manifest.iter()):
            raise DocumentError(f"{source} is encrypted")
    if "content.xml" not in archive:
        raise DocumentError(f"{source} is not an OpenDocument text: it has no 'content.xml'")
    root = archive.read_xml("content.xml").root
    styles = archive.read_xml("styles.xml").root if "styles.xml" in archive else None
    body = next((element for element in root.iter() if get_local_name(element) == "text"), None)
    if body is None:
        raise DocumentError(f"{source} is not an OpenDocument text: 'content.xml' has no text")
    converter = _Converter([root] if styles is None else [styles, root])
    blocks, omitted = read_fragment(converter.convert(body), source)
    properties = _read_properties(archive)
    return Document(
        build_chapters(blocks),
        title=properties.get("title") or find_title(blocks),
        author=properties.get("creator") or properties.get("initial-creator"),
        language=properties.get("language") or _find_language(styles),
        omitted={**omitted, **converter.omitted},
    )


def _read_properties(archive: Archive) -> dict[str, str]:
    if "meta.xml" not in archive:
        return {}
    return {
        get_local_name(element): text
        for element in archive.read_xml("meta.xml").root.iter()
        if (text := " ".join((element.text or "").split()))
    }


def _find_language(styles: Element | None) -> str | None:
    """Return the language of the default style of paragraphs."""
    for element in () if styles is None else styles.iter():
        if get_local_name(element) == "default-style" and get_attribute(element, "family") == "paragraph":
            for properties in element:
                language, country = get_attribute(properties, "language"), get_attribute(properties, "country")
                if language and language != "none":
                    return f"{language}-{country}" if country and country != "none" else language
    return None


class _Converter:
    """Convert the body of a document to HTML. `roots` have its styles."""

    def __init__(self, roots: list[Element]) -> None:
        self.omitted: Counter[str] = Counter()
        self._parents: dict[str, str] = {}
        self._hidden_styles: set[str] = set()
        self._superscript_styles: set[str] = set()
        # The levels of a list style that have numbers, with the first number.
        self._first_numbers: dict[tuple[str, int], int] = {}
        self._last_numbers: dict[str, int] = {}
        self._pending_notes: list[Element] = []
        self._shift = 0
        for root in roots:
            for element in root.iter():
                name = get_local_name(element)
                if name == "style":
                    self._read_style(element)
                elif name == "list-style":
                    self._read_list_style(element)

    def _read_style(self, element: Element) -> None:
        name = get_attribute(element, "name")
        self._parents[name] = get_attribute(element, "parent-style-name")
        for properties in element:
            if get_local_name(properties) == "text-properties":
                if get_attribute(properties, "display") == "none":
                    self._hidden_styles.add(name)
                if get_attribute(properties, "text-position").startswith("super"):
                    self._superscript_styles.add(name)

    def _read_list_style(self, element: Element) -> None:
        name = get_attribute(element, "name")
        for level in element:
            number = get_attribute(level, "level")
            if (
                get_local_name(level) == "list-level-style-number"
                and get_attribute(level, "num-format")
                and number.isdecimal()
            ):
                start = get_attribute(level, "start-value")
                self._first_numbers[name, int(number)] = int(start) if start.isdecimal() else 1

    def convert(self, body: Element) -> str:
        """Return the HTML of the body."""
        self._shift = int(any(self._is_title(element) for element in body.iter() if get_local_name(element) == "p"))
        return "".join(self._convert_blocks(body, is_outer=True))

    def _is_title(self, paragraph: Element) -> bool:
        name = get_attribute(paragraph, "style-name")
        return "Title" in (name, self._parents.get(name))

    def _convert_blocks(self, parent: Element, *, is_outer: bool = False) -> Iterator[str]:
        for element in parent:
            yield from self._convert_block(element)
            while is_outer and self._pending_notes:
                yield from self._convert_blocks(self._pending_notes.pop(0))

    def _convert_block(self, element: Element) -> Iterator[str]:
        name = get_local_name(element)
        if name in _SKIPPED or get_attribute(element, "style-name") in self._hidden_styles:
            return
        if name in _INDEXES:
            self.omitted[_INDEXES[name]] += 1
        elif name == "h":
            level = get_attribute(element, "outline-level")
            yield from self._wrap(element, f"h{min(max(int(level) if level.isdecimal() else 1, 1) + self._shift, 6)}")
        elif name == "p":
            yield from self._wrap(element, "h1" if self._is_title(element) else "p")
        elif name == "list":
            yield from self._convert_list(element, "", 1)
        elif name == "table":
            yield "<table>"
            yield from self._convert_rows(element)
            yield "</table>"
        elif name == "section" and get_attribute(element, "display") == "none":
            return
        else:
            yield from self._convert_blocks(element)

    def _wrap(self, element: Element, tag: str) -> Iterator[str]:
        yield f"<{tag}>"
        yield from self._convert_inlines(element)
        yield f"</{tag}>"

    def _convert_list(self, element: Element, style: str, level: int) -> Iterator[str]:
        """Yield a list. Inner lists have the style of the outer one, and a list may continue an earlier one."""
        own_style = get_attribute(element, "style-name")
        style = own_style or style
        first = self._first_numbers.get((style, level))
        if first is None and own_style:  # pandoc 2.17 describes the first level only
            first = self._first_numbers.get((own_style, 1))
        is_continued = get_attribute(element, "continue-numbering") == "true" or get_attribute(element, "continue-list")
        number = self._last_numbers.get(style, 0) + 1 if is_continued and level == 1 else first
        yield "<ul>" if first is None else f'<ol start="{number}">'
        for item in element:
            name = get_local_name(item)
            if name not in ("list-item", "list-header"):
                continue
            start = get_attribute(item, "start-value")
            if start.isdecimal():
                number = int(start)
            # A header has no number. As an inner list, it is a line.
            yield "<ul><li>" if name == "list-header" else f'<li value="{number}">'
            for child in item:
                if get_local_name(child) == "list":
                    yield from self._convert_list(child, style, level + 1)
                else:
                    yield from self._convert_block(child)
            yield "</li></ul>" if name == "list-header" else "</li>"
            if name == "list-item" and number is not None:
                if level == 1:
                    self._last_numbers[style] = number
                number += 1
        yield "</ul>" if first is None else "</ol>"

    def _convert_rows(self, parent: Element) -> Iterator[str]:
        for element in parent:
            name = get_local_name(element)
            if name == "table-row":
                yield "<tr>"
                for cell in element:
                    if get_local_name(cell) == "table-cell":
                        yield "<td>"
                        yield from self._convert_blocks(cell)
                        yield "</td>"
                yield "</tr>"
            elif name in ("table-rows", "table-header-rows", "table-row-group"):
                yield from self._convert_rows(element)

    def _convert_inlines(self, parent: Element) -> Iterator[str]:
        yield escape(parent.text or "")
        for element in parent:
            yield from self._convert_inline(element)
            yield escape(element.tail or "")

    def _convert_inline(self, element: Element) -> Iterator[str]:
        name = get_local_name(element)
        style = get_attribute(element, "style-name")
        if name in _SKIPPED or style in self._hidden_styles:
            return
        if name == "s":
            count = get_attribute(element, "c", "1")
            yield " " * (min(int(count), _MAX_SPACES) if count.isdecimal() else 1)
        elif name == "tab":
            yield " "
        elif name == "line-break":
            yield "<br>"
        elif name == "note":
            self._pending_notes += [part for part in element if get_local_name(part) == "note-body"]
        elif name == "frame":
            yield from self._convert_frame(element)
        elif name in ("p", "h", "list", "table"):
            yield from self._convert_block(element)
        elif style in self._superscript_styles:
            yield from self._wrap(element, "sup")
        else:
            yield from self._convert_inlines(element)

    def _convert_frame(self, frame: Element) -> Iterator[str]:
        """Yield the text of a text box, or the description of a picture."""
        texts = {get_local_name(part): part for part in reversed(frame)}
        if "text-box" in texts:
            yield "<div>"
            yield from self._convert_blocks(texts["text-box"])
            yield "</div>"
            return
        for name in ("desc", "title"):
            if name in texts and texts[name].text:
                yield escape(texts[name].text or "")
                return
