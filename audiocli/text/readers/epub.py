"""Read EPUB 2 and 3: the chapters in reading order, and title, author, language and cover.

Chapters come from the table of contents of the book, else from its headings. The table of contents itself, parts
outside of the reading order (`linear="no"`), page numbers and marks of notes are not spoken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple
from xml.etree.ElementTree import Element

from ...errors import DocumentError
from ..document import Chapter, Cover, Document
from .archive import Archive, resolve_name
from .blocks import Block, build_chapter, build_chapters
from .encoding import decode_content, find_declared_encoding
from .html import Scope, parse_html, render_html
from .xml_tree import get_attribute, get_local_name

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
# Fonts may be obfuscated in books that anyone may read (EPUB 3.3, section 4.2.6.3.1, and Adobe's own method).
_FONT_OBFUSCATIONS = frozenset(("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"))
_PAGE_TYPES = frozenset(("application/xhtml+xml", "text/html", "text/x-oeb1-document", "application/xml"))
_COVER_SIGNATURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
_MAX_COVER_BYTES = 16 * 1024 * 1024
_MAX_CONTENTS_DEPTH = 20


class _Item(NamedTuple):
    """An entry of the manifest."""

    name: str
    media_type: str
    properties: frozenset[str]


class _Entry(NamedTuple):
    """An entry of the table of contents, and where it points."""

    title: str
    name: str
    fragment: str
    children: tuple[_Entry, ...]


def read(content: bytes, source: str, *, encoding: str | None = None) -> Document:
    """Read a book. `encoding` replaces what its pages declare.

    Raises:
        DocumentError: The book is damaged, protected (DRM), or exceeds the limits.
        UsageError: A page is not in its encoding.
    """
    archive = Archive(content, source)
    _reject_encryption(archive, source)
    package_name = _find_package(archive, source)
    package = archive.read_xml(package_name).root
    items = _read_manifest(package, package_name)
    contents_names = {item.name for item in items.values() if "nav" in item.properties} | _find_guide(
        package, package_name
    )
    pages: dict[str, tuple[Block, ...]] = {}
    omitted: dict[str, int] = {}
    for item in _list_spine(package, items):
        if item.name in contents_names or item.name in pages:
            continue
        page = archive.read(item.name)
        markup = decode_content(page, f"{source}: {item.name}", encoding, declared=find_declared_encoding(page))
        rendered = render_html(parse_html(markup, f"{source}: {item.name}", is_xhtml=True), Scope.BOOK)
        # An entry of the table of contents without a fragment points to the page.
        pages[item.name] = rendered.blocks
        for kind, count in rendered.omitted.items():
            omitted[kind] = omitted.get(kind, 0) + count
    warnings: list[str] = []
    return Document(
        _divide(pages, _read_contents(archive, package, items, source)),
        title=_get_metadata(package, "title"),
        author=", ".join(_list_metadata(package, "creator")) or None,
        language=_get_metadata(package, "language"),
        cover=_read_cover(archive, package, items, warnings),
        warnings=tuple(warnings),
        omitted=omitted,
    )


def _reject_encryption(archive: Archive, source: str) -> None:
    if _ENCRYPTION not in archive:
        return
    for element in archive.read_xml(_ENCRYPTION).root.iter():
        if get_local_name(element) != "EncryptedData":
            continue
        methods = [get_attribute(e, "Algorithm") for e in element if get_local_name(e) == "EncryptionMethod"]
        if not methods or not _FONT_OBFUSCATIONS.issuperset(methods):
            raise DocumentError(f"{source} is protected (DRM) and cannot be read")


def _find_package(archive: Archive, source: str) -> str:
    for element in archive.read_xml(_CONTAINER).root.iter():
        if get_local_name(element) == "rootfile" and (path := get_attribute(element, "full-path")):
            return path
    raise DocumentError(f"{source} is damaged: {_CONTAINER} names no package")


def _read_manifest(package: Element, package_name: str) -> dict[str, _Item]:
    items = {}
    for element in package.iter():
        if get_local_name(element) == "item" and (reference := get_attribute(element, "href")):
            name, _ = resolve_name(package_name, reference)
            properties = frozenset(get_attribute(element, "properties").split())
            items[get_attribute(element, "id")] = _Item(name, get_attribute(element, "media-type"), properties)
    return items


def _find_guide(package: Element, package_name: str) -> set[str]:
    """Return the page that the guide of EPUB 2 calls the table of contents, unless it is a part of a page."""
    return {
        resolve_name(package_name, reference)[0]
        for element in package.iter()
        if get_local_name(element) == "reference" and get_attribute(element, "type") == "toc"
        if (reference := get_attribute(element, "href")) and "#" not in reference
    }


def _list_spine(package: Element, items: Mapping[str, _Item]) -> list[_Item]:
    return [
        item
        for element in package.iter()
        if get_local_name(element) == "itemref" and get_attribute(element, "linear") != "no"
        if (item := items.get(get_attribute(element, "idref"))) is not None and item.media_type in _PAGE_TYPES
    ]


def _list_metadata(package: Element, name: str) -> list[str]:
    metadata = next((element for element in package if get_local_name(element) == "metadata"), None)
    if metadata is None:
        return []
    texts = [" ".join("".join(e.itertext()).split()) for e in metadata.iter() if get_local_name(e) == name]
    return [text for text in texts if text]


def _get_metadata(package: Element, name: str) -> str | None:
    return next(iter(_list_metadata(package, name)), None)


def _read_cover(archive: Archive, package: Element, items: Mapping[str, _Item], warnings: list[str]) -> Cover | None:
    """Return the cover that EPUB 3 marks with a property, and EPUB 2 names in its metadata."""
    candidates = [item for item in items.values() if "cover-image" in item.properties]
    for element in package.iter():
        if get_local_name(element) == "meta" and get_attribute(element, "name") == "cover":
            item = items.get(get_attribute(element, "content"))
            candidates += [] if item is None else [item]
    for item in candidates:
        if item.name not in archive:
            continue
        content = archive.read(item.name)
        for signature, media_type in _COVER_SIGNATURES.items():
            if content.startswith(signature) and len(content) <= _MAX_COVER_BYTES:
                return Cover(content, media_type)
        warnings.append(f"the cover is not a JPEG or PNG file of at most {_MAX_COVER_BYTES >> 20} MB")
        return None
    return None


# --- table of contents ------------------------------------------------------------------------------------------------


def _read_contents(archive: Archive, package: Element, items: Mapping[str, _Item], source: str) -> tuple[_Entry, ...]:
    """Return the entries of the navigation document of EPUB 3, else of the NCX of EPUB 2."""
    for item in items.values():
        if "nav" in item.properties and item.name in archive:
            page = archive.read(item.name)
            markup = decode_content(page, f"{source}: {item.name}", declared=find_declared_encoding(page))
            if entries := _parse_navigation(parse_html(markup, source, is_xhtml=True), item.name):
                return entries
    for item in items.values():
        if item.media_type == "application/x-dtbncx+xml" and item.name in archive:
            root = archive.read_xml(item.name).root
            for element in root.iter():
                if get_local_name(element) == "navMap":
                    return _parse_ncx(element, item.name, 0)
    return ()


def _parse_navigation(parser: LexborHTMLParser, base: str) -> tuple[_Entry, ...]:
    for navigation in parser.css("nav"):
        if "toc" in (navigation.attributes.get("epub:type") or "").split():
            first_list = navigation.css_first("ol")
            return () if first_list is None else _parse_navigation_list(first_list, base, 0)
    return ()


def _parse_navigation_list(node: LexborNode, base: str, depth: int) -> tuple[_Entry, ...]:
    entries: list[_Entry] = []
    for item in node.iter():
        label, children = None, ()  # type: tuple[LexborNode | None, tuple[_Entry, ...]]
        for part in item.iter():
            if part.tag in ("a", "span") and label is None:
                label = part
            elif part.tag == "ol" and depth < _MAX_CONTENTS_DEPTH:
                children = _parse_navigation_list(part, base, depth + 1)
        if label is None:
            continue
        title = " ".join(label.text().split())
        reference = label.attributes.get("href")
        if reference:
            entries.append(_Entry(title, *resolve_name(base, reference), children))
        elif children:  # a heading of a group without a page of its own
            entries.append(_Entry(title, children[0].name, children[0].fragment, children))
    return tuple(entries)


def _parse_ncx(element: Element, base: str, depth: int) -> tuple[_Entry, ...]:
    entries = []
    for point in element:
        if get_local_name(point) != "navPoint":
            continue
        title = reference = ""
        for part in point:
            if get_local_name(part) == "navLabel":
                title = " ".join("".join(part.itertext()).split())
            elif get_local_name(part) == "content":
                reference = get_attribute(part, "src")
        children = _parse_ncx(point, base, depth + 1) if depth < _MAX_CONTENTS_DEPTH else ()
        entries.append(_Entry(title, *resolve_name(base, reference), children))
    return tuple(entries)


def _divide(pages: Mapping[str, Sequence[Block]], contents: Sequence[_Entry]) -> tuple[Chapter, ...]:
    """Divide the blocks of all pages into chapters at the positions to which the table of contents points."""
    blocks: list[Block] = []
    positions: dict[tuple[str, str], int] = {}
    for name, page in pages.items():
        positions[name, ""] = len(blocks)
        for block in page:
            for anchor in block.anchors:
                positions.setdefault((name, anchor), len(blocks))
            blocks.append(block)
    titles: dict[int, str] = {}
    for entry in _select_chapters(contents):
        position = positions.get((entry.name, entry.fragment), positions.get((entry.name, "")))
        if position is not None and entry.title:
            titles.setdefault(position, entry.title)
    if not titles:
        return build_chapters(blocks)
    starts = sorted({0, *titles})
    ends = [*starts[1:], len(blocks)]
    chapters = (build_chapter(titles.get(first), blocks[first:end]) for first, end in zip(starts, ends, strict=True))
    return tuple(chapter for chapter in chapters if chapter.paragraphs)


def _select_chapters(entries: Sequence[_Entry]) -> list[_Entry]:
    """Return the entries that are chapters: those of the first level, and those of parts that have pages of their own.

    Entries that point into the page of their parent are sections of a chapter. A single entry of the first level is the
    book.
    """
    chapters: list[_Entry] = []
    for entry in entries:
        chapters.append(entry)
        if len(entries) == 1 or any(child.name != entry.name for child in entry.children):
            chapters += _select_chapters(entry.children)
    return chapters
