"""EPUB: chapters of the table of contents, metadata, and what is not spoken."""

from __future__ import annotations

import pytest

from audiocli.errors import DocumentError
from audiocli.text.document import Document
from audiocli.text.readers import read_document
from tests.documents import JPEG, PNG, build_epub, list_texts

DUBLIN_CORE = (
    "<dc:title>The\n Book</dc:title><dc:creator>Ann</dc:creator><dc:creator>Ben</dc:creator>"
    "<dc:language>en-GB</dc:language>"
)


def read_book(content: bytes, encoding: str | None = None) -> Document:
    return read_document(content, "epub", "book.epub", encoding=encoding)


def list_chapters(document: Document) -> list[tuple[str | None, list[str]]]:
    return [(chapter.title, [paragraph.text for paragraph in chapter.paragraphs]) for chapter in document.chapters]


def build_contents(*entries: tuple[str, str]) -> str:
    return "<ol>" + "".join(f'<li><a href="{target}">{title}</a></li>' for title, target in entries) + "</ol>"


def build_ncx(*entries: tuple[str, str]) -> str:
    return "".join(
        f'<navPoint id="{n}"><navLabel><text>{title}</text></navLabel><content src="{target}"/></navPoint>'
        for n, (title, target) in enumerate(entries)
    )


PAGES = {
    "cover.xhtml": "<p>Half title</p>",
    "1.xhtml": "<h2>I</h2><p>one</p>",
    "1b.xhtml": "<p>one goes on</p>",
    "2.xhtml": '<section id="two"><h2>II</h2><p>two</p></section><a id="three"/><h2>III</h2><p>three</p>',
}
ENTRIES = (("One", "1.xhtml"), ("Two", "2.xhtml#two"), ("Three", "2.xhtml#three"))
CHAPTERS = [
    (None, ["Half title"]),
    ("One", ["I.", "one", "one goes on"]),
    ("Two", ["II.", "two"]),
    ("Three", ["III.", "three"]),
]


def test_chapters_come_from_the_navigation_document() -> None:
    document = read_book(build_epub(PAGES, contents=build_contents(*ENTRIES), metadata=DUBLIN_CORE))

    assert list_chapters(document) == CHAPTERS
    assert (document.title, document.author, document.language) == ("The Book", "Ann, Ben", "en-GB")


def test_chapters_come_from_the_ncx_of_epub_2() -> None:
    assert list_chapters(read_book(build_epub(PAGES, ncx=build_ncx(*ENTRIES)))) == CHAPTERS


def test_chapters_come_from_headings_without_a_table_of_contents() -> None:
    chapters = list_chapters(read_book(build_epub(PAGES)))

    assert [title for title, _ in chapters] == [None, "I", "II", "III"]


@pytest.mark.parametrize(
    ("contents", "titles"),
    [
        # Parts have pages of their own; sections are inside the page of their chapter.
        (
            '<ol><li><a href="1.xhtml">Part</a><ol><li><a href="1b.xhtml">Chapter</a></li></ol></li>'
            '<li><a href="2.xhtml">Last</a><ol><li><a href="2.xhtml#three">Section</a></li></ol></li></ol>',
            [None, "Part", "Chapter", "Last"],
        ),
        (
            '<ol><li><a href="cover.xhtml">Book</a><ol><li><a href="1.xhtml">One</a></li>'
            '<li><a href="2.xhtml">Two</a></li></ol></li></ol>',
            ["Book", "One", "Two"],
        ),
        (
            '<ol><li><span>Part</span><ol><li><a href="1.xhtml">One</a></li>'
            '<li><a href="2.xhtml">Two</a></li></ol></li></ol>',
            [None, "Part", "Two"],
        ),
        ('<ol><li><a href="./x/../2.xhtml#missing">Two &amp; <i>more</i></a></li></ol>', [None, "Two & more"]),
        ('<ol><li><a href="missing.xhtml">Nothing</a></li></ol>', [None, "I", "II", "III"]),
        ("<ol></ol>", [None, "I", "II", "III"]),
    ],
)
def test_levels_of_the_table_of_contents_are_chapters_or_sections(contents: str, titles: list[str | None]) -> None:
    document = read_book(build_epub(PAGES, contents=contents))

    assert [chapter.title for chapter in document.chapters] == titles
    assert list_texts(document) == [text for _, texts in CHAPTERS for text in texts]


@pytest.mark.parametrize(
    "page",
    [
        '<p>one</p><h2 id="x">Two</h2>',
        '<p>one</p><h2><a id="x"/>Two</h2>',
        '<p>one</p><a name="x"></a><h2>Two</h2>',
        '<p>one</p><div id="x"><div><h2>Two</h2></div></div>',
        '<p>one</p><p id="x"/><h2>Two</h2>',
        '<p>one</p><ul><li id="x">Two</li></ul>',
        '<p>one</p><table><tr><td id="y"><span id="x">Two</span></td></tr></table>',
    ],
)
def test_chapter_begins_at_the_element_with_the_id(page: str) -> None:
    document = read_book(build_epub({"1.xhtml": page}, contents=build_contents(("A", "1.xhtml"), ("B", "1.xhtml#x"))))

    assert list_chapters(document) == [("A", ["one"]), ("B", ["Two."])]


def test_page_names_are_decoded() -> None:
    book = build_epub(
        {"ch 1.xhtml": "<p>one</p>", "é.xhtml": "<p>two</p>"},
        contents=build_contents(("A", "ch%201.xhtml"), ("B", "%C3%A9.xhtml")),
    )

    assert list_chapters(read_book(book)) == [("A", ["one"]), ("B", ["two"])]


def test_only_the_text_in_reading_order_is_spoken() -> None:
    pages = {
        "2.xhtml": "<p>two</p>",
        "1.xhtml": '<nav><a href="2.xhtml">Menu</a></nav><p>one<a epub:type="noteref" href="#n">1</a>'
        '<span epub:type="pagebreak">17</span></p>'
        '<aside id="n" epub:type="footnote">The note <a role="doc-backlink">↩</a></aside>',
        "extra.xhtml": "<p>Solutions</p>",
        "unlisted.xhtml": "<p>Unlisted</p>",
        "toc.xhtml": "<p>Contents 17</p>",
    }
    spine = "".join(f'<itemref idref="{name}"/>' for name in ("nav", "toc.xhtml", "1.xhtml", "2.xhtml"))
    spine += '<itemref idref="extra.xhtml" linear="no"/>'
    guide = '<guide><reference type="toc" href="toc.xhtml"/></guide>'

    document = read_book(build_epub(pages, contents=build_contents(("One", "1.xhtml")), spine=spine, guide=guide))

    assert list_texts(document) == ["one", "The note", "two"]


@pytest.mark.parametrize(
    ("manifest", "metadata", "image", "media_type"),
    [
        ('<item id="c" href="c.jpg" media-type="image/jpeg" properties="cover-image"/>', "", JPEG, "image/jpeg"),
        ('<item id="c" href="c.jpg" media-type="image/jpeg"/>', '<meta name="cover" content="c"/>', PNG, "image/png"),
        ('<item id="c" href="c.jpg" media-type="image/jpeg"/>', "", JPEG, None),
        ('<item id="c" href="c.jpg" media-type="image/jpeg"/>', '<meta name="cover" content="x"/>', JPEG, None),
        ('<item id="c" href="no.jpg" media-type="image/jpeg" properties="cover-image"/>', "", JPEG, None),
    ],
)
def test_cover_is_read(manifest: str, metadata: str, image: bytes, media_type: str | None) -> None:
    book = build_epub({"1.xhtml": "<p>x</p>"}, manifest=manifest, metadata=metadata, entries={"OEBPS/c.jpg": image})

    document = read_book(book)

    assert (None if document.cover is None else document.cover.media_type) == media_type
    assert document.cover is None or document.cover.content == image
    assert document.warnings == ()


def test_cover_of_another_format_is_a_warning() -> None:
    manifest = '<item id="c" href="c.svg" media-type="image/svg+xml" properties="cover-image"/>'

    document = read_book(build_epub({"1.xhtml": "<p>x</p>"}, manifest=manifest, entries={"OEBPS/c.svg": b"<svg/>"}))

    assert document.cover is None
    assert "cover" in document.warnings[0]


ENCRYPTION = (
    '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><EncryptedData xmlns='
    '"http://www.w3.org/2001/04/xmlenc#"><EncryptionMethod Algorithm="{}"/></EncryptedData></encryption>'
)


def test_protected_book_is_refused_and_obfuscated_fonts_are_not() -> None:
    def build(algorithm: str) -> bytes:
        entries = {"META-INF/encryption.xml": ENCRYPTION.format(algorithm)}
        return build_epub({"1.xhtml": "<p>x</p>"}, entries=entries)

    with pytest.raises(DocumentError, match="DRM") as caught:
        read_book(build("http://www.w3.org/2001/04/xmlenc#aes256-cbc"))
    assert (caught.value.exit_code, caught.value.code) == (8, "document")
    assert list_texts(read_book(build("http://www.idpf.org/2008/embedding"))) == ["x"]


def test_names_of_pages_are_no_paths_and_missing_pages_are_skipped() -> None:
    pages = {"../../../etc/passwd": "<p>one</p>", "a/../2.xhtml": "<p>two</p>"}
    spine = "".join(f'<itemref idref="{name}"/>' for name in (*pages, "missing"))

    assert list_texts(read_book(build_epub(pages, spine=spine))) == ["one", "two"]


def test_encoding_of_pages_can_be_named() -> None:
    page = "<html><body><p>caf\u00e9</p></body></html>"

    book = build_epub({"1.xhtml": ""}, entries={"OEBPS/1.xhtml": page.encode("cp1252")})

    assert list_texts(read_book(book, "cp1252")) == ["café"]
    declared = f'<?xml version="1.0" encoding="ISO-8859-1"?>{page}'.encode("cp1252")
    assert list_texts(read_book(build_epub({"1.xhtml": ""}, entries={"OEBPS/1.xhtml": declared}))) == ["café"]
