"""Hostile documents: they end in an error of the user's document, within limits of time and memory."""

from __future__ import annotations

import io
import random
import re
import zipfile
from collections.abc import Callable

import pytest

from audiocli.errors import DocumentError, UsageError
from audiocli.text.readers import archive, read_document
from tests.documents import JPEG, build_docx, build_epub, build_odt, build_zip, list_texts
from tests.test_readers import DOCUMENTS

BOMB = b" " * 30_000_000


@pytest.mark.parametrize(
    ("format", "content"),
    [
        ("epub", build_epub({"1.xhtml": ""}, entries={"OEBPS/1.xhtml": BOMB})),
        ("docx", build_docx("", entries={"word/styles.xml": BOMB})),
        ("odt", build_odt("", entries={"content.xml": BOMB})),
    ],
)
def test_zip_bomb_is_refused(format: str, content: bytes) -> None:
    assert len(content) < 40_000
    with pytest.raises(DocumentError, match="expands to an unsafe size"):
        read_document(content, format, "bomb")


def test_sum_of_entries_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    book = build_epub({f"{n}.xhtml": f"<p>{random.Random(n).randbytes(50_000).hex()}</p>" for n in range(5)})
    assert len(list_texts(read_document(book, "epub", "book.epub"))) == 5

    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 400_000)

    with pytest.raises(DocumentError, match="expands to an unsafe size"):
        read_document(book, "epub", "book.epub")


def test_archive_with_very_many_entries_is_refused() -> None:
    with pytest.raises(DocumentError, match="more than 20,000 entries"):
        read_document(build_zip({f"{n}": b"" for n in range(20_001)}), "docx", "a.docx")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("content.xml", "<a/>")

    with pytest.raises(DocumentError, match="unsupported compression"):
        read_document(buffer.getvalue(), "odt", "a.odt")


def test_encrypted_archive_is_refused() -> None:
    content = bytearray(build_zip({"content.xml": "<a/>"}))
    content[content.index(b"PK\x01\x02") + 8] |= 1

    with pytest.raises(DocumentError, match="encrypted"):
        read_document(bytes(content), "odt", "a.odt")


ENTITIES = (
    '<!DOCTYPE a [<!ENTITY x0 "ha">' + "".join(f'<!ENTITY x{n} "{f"&x{n - 1};" * 10}">' for n in range(1, 10)) + "]>"
)
EXTERNAL = '<!DOCTYPE a [<!ENTITY x9 SYSTEM "file:///etc/hostname">]>'
PARAMETER = '<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///etc/hostname"> %p;]>'


@pytest.mark.parametrize("declaration", [ENTITIES, EXTERNAL, PARAMETER])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_declared_entities_are_refused(declaration: str, encoding: str) -> None:
    text = f"{declaration}<a>&x9;</a>".encode(encoding)

    for format, content in (
        ("odt", build_odt("", entries={"content.xml": text})),
        ("docx", build_docx("", entries={"word/document.xml": text})),
        ("epub", build_epub({}, entries={"META-INF/container.xml": text})),
        ("ssml", text),
    ):
        with pytest.raises((DocumentError, UsageError), match="is declared, which is not allowed"):
            read_document(content, format, "a.file")


@pytest.mark.parametrize("declaration", [ENTITIES, EXTERNAL, '<!DOCTYPE html SYSTEM "http://127.0.0.1:9/x.dtd">'])
def test_entities_of_html_stay_text(declaration: str) -> None:
    page = f'{declaration}<html xmlns="http://www.w3.org/1999/xhtml"><body><p>&x9; &eacute;</p></body></html>'

    assert list_texts(read_document(page.encode(), "html", "a.html"))[-1] == "&x9; é"


@pytest.mark.parametrize("tag", ["<div>", "<b>", "<ul><li>", "<table><tr><td>", "<blockquote>", "<svg>", "<x-y>"])
def test_a_million_nested_elements_are_refused(tag: str) -> None:
    for format in ("html", "html-page"):
        with pytest.raises(DocumentError, match="nested deeper"):
            read_document(tag.encode() * 1_000_000, format, "a.html")


def test_nested_html_in_markdown_is_refused() -> None:
    with pytest.raises(DocumentError, match="nested deeper"):
        read_document(b"<div>" * 1_000_000, "markdown", "a.md")


def test_nested_xml_is_refused() -> None:
    for format, content in (
        ("docx", build_docx("<w:sdt>" * 100_000)),
        ("odt", build_odt("<text:section>" * 100_000)),
        ("ssml", b"<speak>" * 100_000),
    ):
        with pytest.raises((DocumentError, UsageError), match="nested deeper than 256"):
            read_document(content, format, "a.file")


def test_nested_tables_within_the_limit_are_read() -> None:
    table = "<w:tbl><w:tr><w:tc>" * 60 + "<w:p><w:r><w:t>deep</w:t></w:r></w:p>" + "</w:tc></w:tr></w:tbl>" * 60
    lists = "<text:list><text:list-item>" * 100 + "<text:p>deep</text:p>" + "</text:list-item></text:list>" * 100

    assert list_texts(read_document(build_docx(table), "docx", "a.docx")) == ["deep."]
    assert list_texts(read_document(build_odt(lists), "odt", "a.odt")) == ["deep."]


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("html", "<!--" * 250_000),
        ("html", '<a x="' * 200_000),
        ("html", "<script>" * 200_000),
        ("html", "</script" * 200_000),
        ("html", "<?xml ?>" + "<![CDATA[" * 200_000),
        ("html", '<?xml ?><a b="' + "'<c d=\"" * 200_000),
        ("html", "<p>" + "\n \n" * 300_000),
        ("markdown", "<script>" * 100_000),
        ("markdown", "[[" * 3_000),
        ("markdown", "==a" * 30_000),
        ("markdown", ":a" * 100_000),
        ("text", " " * 1_000_000),
        ("text", "\n \t" * 500_000 + "x"),
        ("srt", "1\n00:00:01,000 --> 00:00:02,000\n" + "<" * 200_000),
        ("vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\n" + "<v " * 200_000),
        ("vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\n" + "<rt>" * 200_000),
        ("ssml", "<speak>" + "<s>a</s>" * 20_000 + "</speak>"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_repeated_markup_takes_linear_time(format: str, text: str) -> None:
    """Quadratic time would be minutes, which the time limit of the test run ends."""
    try:
        read_document(text.encode(), format, "a.file")
    except DocumentError as error:
        assert "nested deeper" in error.message


def build_rich_documents() -> dict[str, bytes]:
    metadata = '<dc:title>T</dc:title><meta name="cover" content="c"/>'
    manifest = '<item id="c" href="c.jpg" media-type="image/jpeg"/>'
    book = build_epub(
        {"1.xhtml": "<h1>One</h1><p>text</p>"},
        contents='<ol><li><a href="1.xhtml">One</a></li></ol>',
        metadata=metadata,
        manifest=manifest,
        entries={"OEBPS/c.jpg": JPEG},
    )
    return {
        **DOCUMENTS,
        "epub": book,
        "markdown": b"---\ntitle: x\n---\n# T[^1]\n\n> [!NOTE]\n> ==a== [[b|c]]\n\n<p>x</p>\n\n"
        b"| a |\n|---|\n| b |\n\n[^1]: note\n",
        "ssml": b"<speak>a<break time='1s'/><voice name='x'>b</voice>"
        b"<say-as interpret-as='date' format='dmy'>1</say-as></speak>",
    }


RICH_DOCUMENTS = build_rich_documents()


def check_damaged(format: str, content: bytes) -> None:
    """Only errors of the document are allowed; other exceptions fail the test."""
    try:
        read_document(content, format, "a.file")
    except (DocumentError, UsageError) as error:
        assert error.message


@pytest.mark.parametrize("format", RICH_DOCUMENTS)
def test_truncated_document_is_an_error_or_shorter(format: str) -> None:
    content = RICH_DOCUMENTS[format]
    for size in {*range(0, len(content), 50), *range(min(len(content), 60))}:
        check_damaged(format, content[:size])


@pytest.mark.parametrize("format", RICH_DOCUMENTS)
@pytest.mark.parametrize("mutate", ["change", "remove", "repeat"])
def test_damaged_document_is_an_error_or_different(format: str, mutate: str) -> None:
    source = random.Random(f"{format} {mutate}")
    mutations: dict[str, Callable[[bytearray, int, int], None]] = {
        "change": lambda content, start, end: content.__setitem__(slice(start, end), source.randbytes(end - start)),
        "remove": lambda content, start, end: content.__delitem__(slice(start, end)),
        "repeat": lambda content, start, end: content.__setitem__(slice(start, start), content[start:end]),
    }
    for _ in range(150):
        content = bytearray(RICH_DOCUMENTS[format])
        for _ in range(source.randint(1, 4)):
            start = source.randrange(max(1, len(content)))
            mutations[mutate](content, start, start + source.randint(1, 8))
        check_damaged(format, bytes(content))


@pytest.mark.parametrize("name", ["word/document.xml", "word/styles.xml", "word/numbering.xml", "word/footnotes.xml"])
def test_damaged_xml_inside_of_an_archive_is_an_error_or_different(name: str) -> None:
    body = (
        '<w:p><w:pPr><w:pStyle w:val="A"/><w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr></w:pPr>'
        '<w:r><w:t>a</w:t><w:footnoteReference w:id="1"/></w:r></w:p>'
    )
    parts = {
        "word/styles.xml": '<w:style w:styleId="A"><w:name w:val="heading 1"/><w:outlineLvl w:val="1"/></w:style>',
        "word/numbering.xml": '<w:abstractNum w:abstractNumId="1"><w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt '
        'w:val="decimal"/></w:lvl></w:abstractNum><w:num w:numId="1"><w:abstractNumId w:val="1"/></w:num>',
        "word/footnotes.xml": '<w:footnote w:id="1"><w:p><w:r><w:t>n</w:t></w:r></w:p></w:footnote>',
    }
    with zipfile.ZipFile(io.BytesIO(build_docx(body, entries=parts))) as file:
        entries = {entry: file.read(entry) for entry in file.namelist()}
    source = random.Random(name)
    for _ in range(200):
        text = entries[name].decode()
        old, new = (
            source.choice(re.findall(r'="[^"]*"', text)),
            source.choice(["", "-1", "9" * 30, "x", "²", "1e9", "None"]),
        )
        check_damaged("docx", build_zip({**entries, name: text.replace(old, f'="{new}"', 1)}))
