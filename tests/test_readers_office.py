"""DOCX and ODT: the text as the last reviewer sees it, with chapters, lists, tables and notes."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from audiocli.errors import DocumentError
from audiocli.text.readers import read_document
from tests.documents import build_docx, build_odt, build_zip, list_texts
from tests.requirements import require_packages


def read_docx(body: str, **entries: str) -> list[str]:
    content = build_docx(body, entries={f"word/{name}.xml": text for name, text in entries.items()})
    return list_texts(read_document(content, "docx", "a.docx"))


def read_odt(body: str, styles: str = "") -> list[str]:
    return list_texts(read_document(build_odt(body, styles=styles), "odt", "a.odt"))


def build_paragraph(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def build_item(text: str, number_id: int, level: int = 0) -> str:
    return build_paragraph(text, f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number_id}"/></w:numPr>')


# --- DOCX -------------------------------------------------------------------------------------------------------------

STYLES = (
    '<w:docDefaults><w:rPrDefault><w:rPr><w:lang w:val="de-DE"/></w:rPr></w:rPrDefault></w:docDefaults>'
    '<w:style w:styleId="Kop1"><w:name w:val="heading 1"/></w:style>'
    '<w:style w:styleId="Mine"><w:name w:val="My heading"/><w:basedOn w:val="Kop1"/></w:style>'
    '<w:style w:styleId="Level"><w:name w:val="Level"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>'
    '<w:style w:styleId="T"><w:name w:val="Title"/></w:style>'
    '<w:style w:styleId="TOC1"><w:name w:val="toc 1"/></w:style>'
    '<w:style w:styleId="Hidden"><w:name w:val="Hidden"/><w:rPr><w:vanish/></w:rPr></w:style>'
    '<w:style w:styleId="Loop"><w:name w:val="Loop"/><w:basedOn w:val="Loop"/></w:style>'
)
NUMBERING = (
    '<w:abstractNum w:abstractNumId="1"><w:lvl w:ilvl="0"><w:start w:val="3"/><w:numFmt w:val="decimal"/></w:lvl>'
    '<w:lvl w:ilvl="1"><w:start w:val="1"/><w:numFmt w:val="lowerLetter"/></w:lvl></w:abstractNum>'
    '<w:abstractNum w:abstractNumId="2"><w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/></w:lvl></w:abstractNum>'
    '<w:num w:numId="7"><w:abstractNumId w:val="1"/></w:num><w:num w:numId="8"><w:abstractNumId w:val="2"/></w:num>'
)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("<w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r>", ["a b c"]),
        (
            '<w:r><w:t>a &amp; b &lt;i&gt;</w:t><w:noBreakHyphen/><w:t xml:space="preserve"> c</w:t></w:r>',
            ["a & b <i>- c"],
        ),
        ("<w:ins><w:r><w:t>new</w:t></w:r></w:ins><w:del><w:r><w:delText>old</w:delText></w:r></w:del>", ["new"]),
        ("<w:moveTo><w:r><w:t>new</w:t></w:r></w:moveTo><w:moveFrom><w:r><w:t>old</w:t></w:r></w:moveFrom>", ["new"]),
        ("<w:r><w:rPr><w:vanish/></w:rPr><w:t>old</w:t></w:r><w:r><w:t>new</w:t></w:r>", ["new"]),
        ('<w:r><w:rPr><w:vanish w:val="0"/></w:rPr><w:t>new</w:t></w:r>', ["new"]),
        ("<w:r><w:instrText>PAGE</w:instrText><w:t>new</w:t></w:r>", ["new"]),
        ("<w:hyperlink><w:r><w:t>link</w:t></w:r></w:hyperlink>", ["link"]),
        ("<w:sdt><w:sdtPr/><w:sdtContent><w:r><w:t>field</w:t></w:r></w:sdtContent></w:sdt>", ["field"]),
        ('<w:r><w:t>10</w:t></w:r><w:r><w:rPr><w:vertAlign w:val="superscript"/></w:rPr><w:t>6</w:t></w:r>', ["10⁶"]),
        ('<w:r><w:drawing><wp:docPr id="1" name="x" descr="a cat"/></w:drawing></w:r>', ["a cat"]),
        (
            "<w:r><w:ruby><w:rt><w:r><w:t>kan</w:t></w:r></w:rt><w:rubyBase><w:r><w:t>漢</w:t></w:r></w:rubyBase></w:ruby></w:r>",
            ["漢"],
        ),
        ("<m:oMath><m:r><m:t>x+1</m:t></m:r></m:oMath>", ["x+1"]),
        (
            "<w:r><w:t>a</w:t></w:r><w:r><mc:AlternateContent><mc:Choice><w:txbxContent><w:p><w:r><w:t>box</w:t></w:r></w:p>"
            "</w:txbxContent></mc:Choice><mc:Fallback><w:txbxContent><w:p><w:r><w:t>box</w:t></w:r></w:p></w:txbxContent>"
            "</mc:Fallback></mc:AlternateContent></w:r>",
            ["a", "box"],
        ),
    ],
)
def test_runs_of_docx_are_read(run: str, expected: list[str]) -> None:
    assert read_docx(f"<w:p>{run}</w:p>") == expected


def test_headings_of_docx_are_chapters() -> None:
    body = "".join(
        build_paragraph(text, f'<w:pStyle w:val="{style}"/>')
        for text, style in (
            ("The title", "T"),
            ("Contents 1", "TOC1"),
            ("One", "Kop1"),
            ("text", "Loop"),
            ("Part", "Level"),
            ("secret", "Hidden"),
            ("Two", "Mine"),
            ("more", ""),
        )
    )

    document = read_document(build_docx(body, entries={"word/styles.xml": STYLES}), "docx", "a.docx")

    assert [(chapter.title, [p.text for p in chapter.paragraphs]) for chapter in document.chapters] == [
        ("One", ["The title.", "One.", "text", "Part."]),
        ("Two", ["Two.", "more"]),
    ]
    assert (document.title, document.language) == ("The title", "de-DE")


def test_lists_of_docx_are_numbered_as_shown() -> None:
    body = (
        build_item("one", 7) + build_item("inner", 7, 1) + build_item("inner two", 7, 1) + build_item("two", 7)
        + build_item("inner again", 7, 1) + build_paragraph("between") + build_item("three", 7)
        + build_item("bullet", 8)
    )  # fmt: skip

    assert read_docx(body, numbering=NUMBERING) == [
        "3. one.\na. inner.\nb. inner two.\n4. two.\na. inner again.",
        "between",
        "5. three.",
        "bullet.",
    ]


def test_notes_of_docx_follow_their_paragraph_table_or_list_once() -> None:
    reference = '<w:r><w:footnoteReference w:id="2"/></w:r>'
    note = '<w:r><w:endnoteReference w:id="2"/></w:r>'
    body = (
        f"<w:p><w:r><w:t>a</w:t></w:r>{reference}{reference}</w:p>" + build_paragraph("b")
        + f"<w:tbl><w:tr><w:tc><w:p><w:r><w:t>c</w:t></w:r>{note}</w:p></w:tc>"
        "<w:tc><w:p><w:r><w:t>d</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
    )  # fmt: skip
    notes = "<w:footnote w:id='{}'><w:p><w:r><w:footnoteRef/></w:r><w:r><w:t>{}</w:t></w:r></w:p></w:footnote>"

    texts = read_docx(body, footnotes=notes.format(0, "no") + notes.format(2, "N1"), endnotes=notes.format(2, "N2"))

    assert texts == ["a", "N1", "b", "c, d.", "N2"]


def test_tables_and_contents_controls_of_docx() -> None:
    cell = "<w:tc><w:p><w:r><w:t>{}</w:t></w:r></w:p></w:tc>"
    contents = (
        "<w:sdt><w:sdtPr><w:docPartObj><w:docPartGallery w:val='Table of Contents'/></w:docPartObj></w:sdtPr>"
        f"<w:sdtContent>{build_paragraph('One 5')}</w:sdtContent></w:sdt>"
    )
    deleted = f"<w:tr><w:trPr><w:del/></w:trPr>{cell.format('gone')}</w:tr>"
    table = f"<w:tbl><w:tr>{cell.format('a')}{cell.format('b')}</w:tr>{deleted}<w:tr>{cell.format('c')}</w:tr></w:tbl>"

    document = read_document(build_docx(contents + table), "docx", "a.docx")

    assert list_texts(document) == ["a, b.\nc."]
    assert document.omitted == {"table of contents": 1}


def test_document_of_python_docx_is_read() -> None:
    require_packages("docx", extras="dev")
    import docx

    document = docx.Document()
    document.core_properties.title = "A title"
    document.core_properties.author = "Ann"
    document.core_properties.language = "fr"
    document.add_heading("One", 1)
    document.add_paragraph("text").add_run(" bold").bold = True
    document.add_paragraph("apples", style="List Bullet")
    document.add_paragraph("first", style="List Number")
    document.add_paragraph("second", style="List Number")
    table = document.add_table(rows=1, cols=2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "a", "b"
    document.add_heading("Two", 1)
    buffer = io.BytesIO()
    document.save(buffer)

    read = read_document(buffer.getvalue(), "docx", "a.docx")

    assert (read.title, read.author, read.language) == ("A title", "Ann", "fr")
    assert [chapter.title for chapter in read.chapters] == ["One", "Two"]
    assert list_texts(read) == ["One.", "text bold", "apples.", "1. first.\n2. second.", "a, b.", "Two."]


# --- ODT --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a<text:s text:c='3'/>b<text:tab/>c<text:line-break/>d", ["a b c d"]),
        ("a <text:span>b</text:span> &amp; <text:a>c</text:a>!", ["a b & c!"]),
        ("a<office:annotation><text:p>comment</text:p></office:annotation>b", ["ab"]),
        ("a<text:span text:style-name='H'>hidden</text:span>b", ["ab"]),
        ("a<text:hidden-text>hidden</text:hidden-text>b", ["ab"]),
        ("10<text:span text:style-name='S'>6</text:span>", ["10⁶"]),
        ("<text:ruby><text:ruby-base>漢</text:ruby-base><text:ruby-text>kan</text:ruby-text></text:ruby>", ["漢"]),
        ("<draw:frame><draw:image/><svg:title>cat</svg:title><svg:desc>a cat</svg:desc></draw:frame>", ["a cat"]),
        ("a<draw:frame><draw:text-box><text:p>box</text:p></draw:text-box></draw:frame>", ["a", "box"]),
        (
            "a<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>N</text:p></text:note-body>"
            "</text:note>b",
            ["ab", "N"],
        ),
    ],
)  # fmt: skip
def test_paragraphs_of_odt_are_read(content: str, expected: list[str]) -> None:
    styles = (
        '<style:style style:name="H"><style:text-properties text:display="none"/></style:style>'
        '<style:style style:name="S"><style:text-properties style:text-position="super 58%"/></style:style>'
    )

    assert read_odt(f"<text:p>{content}</text:p>", styles) == expected


def test_headings_lists_and_tables_of_odt() -> None:
    numbers = (
        '<text:list-style style:name="L"><text:list-level-style-number text:level="1" style:num-format="1" '
        'text:start-value="3"/><text:list-level-style-bullet text:level="2"/></text:list-style>'
    )
    body = (
        "<text:tracked-changes><text:changed-region><text:deletion><text:p>gone</text:p></text:deletion>"
        "</text:changed-region></text:tracked-changes>"
        '<text:table-of-content><text:index-body><text:p>One 5</text:p></text:index-body></text:table-of-content>'
        '<text:p text:style-name="Title">The title</text:p>'
        '<text:h text:outline-level="1">One</text:h>'
        '<text:list text:style-name="L"><text:list-item><text:p>a</text:p><text:list><text:list-item>'
        "<text:p>inner</text:p></text:list-item></text:list></text:list-item>"
        "<text:list-item><text:p>b</text:p></text:list-item></text:list>"
        '<text:section><text:p>between</text:p></text:section>'
        '<text:list text:style-name="L" text:continue-numbering="true"><text:list-item><text:p>c</text:p>'
        "</text:list-item></text:list>"
        '<text:h text:outline-level="1">Two</text:h>'
        "<table:table><table:table-header-rows><table:table-row><table:table-cell><text:p>x</text:p></table:table-cell>"
        "<table:table-cell><text:p>y</text:p></table:table-cell></table:table-row></table:table-header-rows></table:table>"
    )  # fmt: skip
    meta = (
        '<office:document-meta xmlns:office="urn:o" xmlns:dc="urn:dc"><office:meta><dc:title>Book</dc:title>'
        "<dc:creator>Ann</dc:creator><dc:language>en</dc:language></office:meta></office:document-meta>"
    )

    document = read_document(build_odt(body, styles=numbers, entries={"meta.xml": meta}), "odt", "a.odt")

    assert [(chapter.title, [p.text for p in chapter.paragraphs]) for chapter in document.chapters] == [
        ("One", ["The title.", "One.", "3. a.\ninner.\n4. b.", "between", "5. c."]),
        ("Two", ["Two.", "x, y."]),
    ]
    assert (document.title, document.author, document.language) == ("Book", "Ann", "en")
    assert document.omitted == {"table of contents": 1}


# --- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "content", "message"),
    [
        ("docx", build_zip({"a.txt": "x"}), "not a Word document"),
        ("odt", build_zip({"a.txt": "x"}), "not an OpenDocument text"),
        (
            "odt",
            build_odt("", entries={"META-INF/manifest.xml": "<manifest><encryption-data/></manifest>"}),
            "encrypted",
        ),
        ("docx", build_docx("<w:p>"), "damaged: 'word/document.xml', line 1"),
        ("odt", build_odt("<text:p>"), "damaged: 'content.xml', line 1"),
        ("docx", b"no archive", "not a complete ZIP archive"),
    ],
)
def test_other_archive_is_refused(format: str, content: bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read_document(content, format, "a.file")


@pytest.mark.parametrize("build", [lambda: build_docx(""), lambda: build_odt("")])
def test_empty_document_has_no_chapters(build: Callable[[], bytes]) -> None:
    format = "docx" if b"word/document.xml" in build() else "odt"

    assert read_document(build(), format, "a.file").chapters == ()
