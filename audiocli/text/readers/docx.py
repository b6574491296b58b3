"""Read DOCX (Office Open XML, ISO/IEC 29500): the text as the last reviewer sees it.

Deleted and hidden text, comments, headers and footers, field codes and the table of contents are not spoken. Notes
follow the paragraph, list or table that refers to them. The document becomes HTML, which `html` reads.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html import escape
from typing import NamedTuple
from xml.etree.ElementTree import Element

from ...errors import DocumentError
from ..document import Document
from .archive import Archive, resolve_name
from .blocks import build_chapters, find_title, split_names
from .html import read_fragment
from .xml_tree import get_attribute, get_local_name

_HEADING_NAME = re.compile(r"heading ([1-9])", re.IGNORECASE)
_CONTENTS_NAME = re.compile(r"toc [1-9]|toc heading|table of figures", re.IGNORECASE)
_NUMBER_TYPES = {"lowerLetter": "a", "upperLetter": "A", "lowerRoman": "i", "upperRoman": "I"}
_UNNUMBERED = frozenset(("", "bullet", "none"))
# What is in the file and not on the page: deleted text, codes of fields, properties, and pronunciations.
_SKIPPED = split_names(
    "del moveFrom delText instrText delInstrText rPr pPr tblPr tblGrid trPr tcPr sectPr sdtPr sdtEndPr rt rubyPr "
    "commentReference annotationRef footnoteRef endnoteRef"
)
_INLINE_TEXT = {"tab": " ", "noBreakHyphen": "-", "cr": "<br>", "ptab": " "}
_FALSE_VALUES = frozenset(("0", "false", "off", "none"))
_MAX_STYLE_CHAIN = 20


class _Style(NamedTuple):
    """A paragraph style, with what it inherits from others. `level` is 0 for the title of the document."""

    name: str
    level: int | None
    number_id: str
    is_hidden: bool


class _Numbering(NamedTuple):
    """The format and the first number of a level of a list."""

    format: str
    start: int


def read(content: bytes, source: str, *, encoding: str | None = None) -> Document:
    """Read a document. `encoding` is ignored: the format names it.

    Raises:
        DocumentError: The document is damaged, or exceeds the limits.
    """
    archive = Archive(content, source)
    main_name = _find_main(archive, source)
    related = _read_relationships(archive, main_name)
    converter = _Converter(
        styles=_read_styles(archive, related.get("styles")),
        numberings=_read_numberings(archive, related.get("numbering")),
        notes={
            (kind, get_attribute(note, "id")): note
            for kind in ("footnote", "endnote")
            if (name := related.get(f"{kind}s", "")) in archive
            for note in archive.read_xml(name).root
        },
    )
    body = next((e for e in archive.read_xml(main_name).root if get_local_name(e) == "body"), None)
    if body is None:
        raise DocumentError(f"{source} is damaged: {main_name!r} has no body")
    blocks, omitted = read_fragment(converter.convert(body), source)
    properties = _read_properties(archive)
    return Document(
        build_chapters(blocks),
        title=properties.get("title") or find_title(blocks),
        author=properties.get("creator"),
        language=properties.get("language") or _read_language(archive, related.get("styles")),
        omitted={**omitted, **converter.omitted},
    )


def _find_main(archive: Archive, source: str) -> str:
    name = _read_relationships(archive, "").get("officeDocument", "word/document.xml")
    if name not in archive:
        raise DocumentError(f"{source} is not a Word document: it has no {name!r}")
    return name


def _read_relationships(archive: Archive, name: str) -> dict[str, str]:
    """Return the entries to which an entry of the archive, or the archive, is related, by the last part of the type."""
    directory, _, file_name = name.rpartition("/")
    path = f"{directory}/_rels/{file_name}.rels".lstrip("/")
    if path not in archive:
        return {}
    return {
        get_attribute(element, "Type").rpartition("/")[2]: resolve_name(name, get_attribute(element, "Target"))[0]
        for element in archive.read_xml(path).root
        if get_attribute(element, "TargetMode") != "External"
    }


def _read_properties(archive: Archive) -> dict[str, str]:
    name = _read_relationships(archive, "").get("core-properties", "docProps/core.xml")
    if name not in archive:
        return {}
    return {
        get_local_name(element): text
        for element in archive.read_xml(name).root
        if (text := " ".join((element.text or "").split()))
    }


def _read_language(archive: Archive, name: str | None) -> str | None:
    if name is None or name not in archive:
        return None
    for element in archive.read_xml(name).root.iter():
        if get_local_name(element) == "docDefaults":
            return next((get_attribute(e, "val") for e in element.iter() if get_local_name(e) == "lang"), "") or None
    return None


def _read_styles(archive: Archive, name: str | None) -> dict[str, _Style]:
    if name is None or name not in archive:
        return {}
    elements = {
        get_attribute(element, "styleId"): element
        for element in archive.read_xml(name).root
        if get_local_name(element) == "style"
    }
    return {style_id: _resolve_style(style_id, elements) for style_id in elements}


def _resolve_style(style_id: str, elements: dict[str, Element]) -> _Style:
    """Return a style with the properties of the styles on which it is based."""
    own_name, level, number_id, is_hidden = "", None, "", False
    for _ in range(_MAX_STYLE_CHAIN):
        element = elements.get(style_id)
        if element is None:
            break
        name = _get_value(element, "name")
        own_name = own_name or name
        number_id = number_id or _find_value(element, "numId")
        is_hidden = is_hidden or _is_hidden(element)
        if level is None:
            outline = _find_value(element, "outlineLvl")
            if match := _HEADING_NAME.fullmatch(name):
                level = int(match[1])
            elif name.lower() == "title":
                level = 0
            elif outline.isdecimal() and int(outline) < 9:
                level = int(outline) + 1
        style_id = _get_value(element, "basedOn")
    return _Style(own_name, level, number_id, is_hidden)


def _read_numberings(archive: Archive, name: str | None) -> dict[tuple[str, str], _Numbering]:
    """Return the levels of lists by the ID of the list and the level."""
    if name is None or name not in archive:
        return {}
    root = archive.read_xml(name).root
    levels: dict[str, dict[str, _Numbering]] = {}
    for element in root:
        if get_local_name(element) == "abstractNum":
            levels[get_attribute(element, "abstractNumId")] = {
                get_attribute(level, "ilvl"): _Numbering(
                    _get_value(level, "numFmt"), int(start) if (start := _get_value(level, "start")).isdecimal() else 1
                )
                for level in element
                if get_local_name(level) == "lvl"
            }
    return {
        (get_attribute(element, "numId"), level): numbering
        for element in root
        if get_local_name(element) == "num"
        for level, numbering in levels.get(_get_value(element, "abstractNumId"), {}).items()
    }


def _get_child(element: Element, name: str) -> Element | None:
    return next((child for child in element if get_local_name(child) == name), None)


def _get_value(element: Element, name: str) -> str:
    """Return the value of a child, such as `<w:name w:val="Title"/>`."""
    child = _get_child(element, name)
    return "" if child is None else get_attribute(child, "val")


def _find_value(element: Element, name: str) -> str:
    """Return the value of a descendant."""
    return next((get_attribute(child, "val") for child in element.iter() if get_local_name(child) == name), "")


def _is_hidden(element: Element) -> bool:
    properties = _get_child(element, "rPr")
    vanish = None if properties is None else _get_child(properties, "vanish")
    return vanish is not None and get_attribute(vanish, "val", "1") not in _FALSE_VALUES


class _Converter:
    """Convert the body of a document to HTML."""

    def __init__(
        self,
        styles: dict[str, _Style],
        numberings: dict[tuple[str, str], _Numbering],
        notes: dict[tuple[str, str], Element],
    ) -> None:
        self.omitted: Counter[str] = Counter()
        self._styles = styles
        self._numberings = numberings
        self._notes = notes
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._pending_notes: list[Element] = []
        # Headings move down by one level if a paragraph has the style of titles.
        self._shift = 0

    def convert(self, body: Element) -> str:
        """Return the HTML of the body."""
        self._shift = int(any(self._get_style(e).level == 0 for e in body.iter() if get_local_name(e) == "p"))
        return "".join(self._convert_blocks(body))

    def _convert_blocks(self, parent: Element, *, is_outer: bool = True) -> Iterator[str]:
        """Yield the HTML of paragraphs and tables. Notes follow where no list is open."""
        open_lists: list[str] = []
        for element in self._iterate_blocks(parent):
            item = self._find_list_item(element)
            if item is None:
                yield from _close_lists(open_lists, 0)
                if is_outer:
                    yield from self._convert_notes()
                yield self._convert_block(element)
                continue
            number_id, level, numbering = item
            tag = "ul" if numbering.format in _UNNUMBERED else "ol"
            yield from _close_lists(open_lists, level + 1)
            if len(open_lists) == level + 1 and open_lists[-1] != tag:
                yield from _close_lists(open_lists, level)
            if len(open_lists) == level + 1:
                yield "</li>"
            while len(open_lists) < level:
                yield "<ul><li>"
                open_lists.append("ul")
            if len(open_lists) == level:
                yield f'<{tag} type="{_NUMBER_TYPES.get(numbering.format, "1")}">'
                open_lists.append(tag)
            yield f'<li value="{self._count_item(number_id, level, numbering)}">'
            yield from self._convert_inlines(element)
        yield from _close_lists(open_lists, 0)
        if is_outer:
            yield from self._convert_notes()

    def _convert_notes(self) -> Iterator[str]:
        while self._pending_notes:
            yield "".join(self._convert_blocks(self._pending_notes.pop(0), is_outer=False))

    def _iterate_blocks(self, parent: Element) -> Iterator[Element]:
        """Yield paragraphs and tables, also those in content controls and inserted by a reviewer."""
        for element in parent:
            name = get_local_name(element)
            if name in ("p", "tbl"):
                yield element
            elif name == "AlternateContent":
                yield from self._iterate_blocks(_choose_alternative(element))
            elif name == "sdt" and _is_contents_control(element):
                self.omitted["table of contents"] += 1
            elif name not in _SKIPPED:
                yield from self._iterate_blocks(element)

    def _get_style(self, paragraph: Element) -> _Style:
        properties = _get_child(paragraph, "pPr")
        name = "" if properties is None else _get_value(properties, "pStyle")
        return self._styles.get(name) or _Style(name, None, "", False)

    def _find_list_item(self, element: Element) -> tuple[str, int, _Numbering] | None:
        """Return the list and the level of a paragraph that is an item of a list."""
        style = self._get_style(element)
        if get_local_name(element) != "p" or style.level is not None or not any(element.itertext()):
            return None
        properties = _get_child(element, "pPr")
        numbers = None if properties is None else _get_child(properties, "numPr")
        number_id = (numbers is not None and _get_value(numbers, "numId")) or style.number_id
        level = (numbers is not None and _get_value(numbers, "ilvl")) or "0"
        numbering = self._numberings.get((number_id, level))
        return None if numbering is None or not level.isdecimal() else (number_id, min(int(level), 8), numbering)

    def _count_item(self, number_id: str, level: int, numbering: _Numbering) -> int:
        """Return the number of an item. It continues after other paragraphs, and inner lists begin again."""
        for inner in range(level + 1, 9):
            self._numbers.pop((number_id, str(inner)), None)
        key = number_id, str(level)
        self._numbers[key] = self._numbers[key] + 1 if key in self._numbers else numbering.start
        return self._numbers[key]

    def _convert_block(self, element: Element) -> str:
        if get_local_name(element) == "tbl":
            return self._convert_table(element)
        style = self._get_style(element)
        if style.is_hidden or _CONTENTS_NAME.fullmatch(style.name):
            return ""
        content = "".join(self._convert_inlines(element))
        if style.level is None:
            return f"<p>{content}</p>"
        level = min(style.level + self._shift, 6)
        return f"<h{level}>{content}</h{level}>"

    def _convert_table(self, table: Element) -> str:
        rows = []
        for row in _iterate_named(table, "tr", "tbl"):
            cells = ("".join(self._convert_blocks(cell, is_outer=False)) for cell in _iterate_named(row, "tc", "tbl"))
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        return f"<table>{''.join(rows)}</table>"

    def _convert_inlines(self, parent: Element) -> Iterator[str]:
        for element in parent:
            name = get_local_name(element)
            if name in _SKIPPED or (name == "r" and _is_hidden(element)):
                continue
            if name == "t":
                yield escape(element.text or "")
            elif name == "br":
                yield " " if get_attribute(element, "type") in ("page", "column") else "<br>"
            elif name in _INLINE_TEXT:
                yield _INLINE_TEXT[name]
            elif name in ("footnoteReference", "endnoteReference"):
                note = self._notes.pop((name.removesuffix("Reference"), get_attribute(element, "id")), None)
                if note is not None:
                    self._pending_notes.append(note)
            elif name == "AlternateContent":
                yield from self._convert_inlines(_choose_alternative(element))
            elif name == "docPr":
                if description := get_attribute(element, "descr"):
                    yield escape(description)
            elif name == "txbxContent":
                yield f"<div>{''.join(self._convert_blocks(element, is_outer=False))}</div>"
            elif name == "r" and _is_superscript(element):
                yield f"<sup>{''.join(self._convert_inlines(element))}</sup>"
            else:
                yield from self._convert_inlines(element)


def _close_lists(open_lists: list[str], count: int) -> Iterator[str]:
    """Yield the end tags of all lists except the outer `count`."""
    while len(open_lists) > count:
        yield f"</li></{open_lists.pop()}>"


def _is_superscript(run: Element) -> bool:
    properties = _get_child(run, "rPr")
    return properties is not None and _get_value(properties, "vertAlign") == "superscript"


def _iterate_named(parent: Element, name: str, boundary: str) -> Iterator[Element]:
    """Yield descendants of a name, also in content controls, but not those of an inner `boundary`."""
    for element in parent:
        local_name = get_local_name(element)
        if local_name == name:
            if not _is_deleted_row(element):
                yield element
        elif local_name != boundary and local_name not in _SKIPPED:
            yield from _iterate_named(element, name, boundary)


def _is_deleted_row(element: Element) -> bool:
    properties = _get_child(element, "trPr")
    return properties is not None and _get_child(properties, "del") is not None


def _choose_alternative(element: Element) -> Element:
    """Return the first alternative: the others have the same content for older programs."""
    return next(iter(element), element)


def _is_contents_control(element: Element) -> bool:
    properties = _get_child(element, "sdtPr")
    return properties is not None and _find_value(properties, "docPartGallery") == "Table of Contents"
