"""The table of document formats, their detection, encodings, and documents of other programs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from audiocli.errors import UsageError
from audiocli.text.readers import FORMATS, detect_format, find_reader, find_reader_for_path, read_document
from tests.documents import build_docx, build_epub, build_odt, build_zip, list_texts

HTML = "<!doctype html><html><body><p>café</p></body></html>"
DOCUMENTS: dict[str, bytes] = {
    "text": b"Hello.\n\nMore.",
    "markdown": b"# Hello",
    "html": HTML.encode(),
    "html-page": HTML.encode(),
    "epub": build_epub({"1.xhtml": "<p>Hello</p>"}),
    "docx": build_docx("<w:p><w:r><w:t>Hello</w:t></w:r></w:p>"),
    "odt": build_odt("<text:p>Hello</text:p>"),
    "srt": b"1\n00:00:01,000 --> 00:00:02,000\nHello\n",
    "vtt": b"WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n",
    "ssml": b"<speak>Hello</speak>",
}


def test_every_format_is_read() -> None:
    assert set(DOCUMENTS) == {name for name, format in FORMATS.items() if not format.has_rows}
    for name, content in DOCUMENTS.items():
        document = read_document(content, name, "a.file")
        assert list_texts(document), name


def test_unknown_format_is_a_usage_error_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean 'markdown'"):
        find_reader("markdwn")
    assert find_reader("EPUB").name == "epub"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.MD", "markdown"),
        ("dir.epub/a.htm", "html"),
        ("a.tsv", "csv"),
        ("a.b.docx", "docx"),
        ("README", None),
        ("a.log", None),
    ],
)
def test_extension_names_the_format(path: str, name: str | None) -> None:
    found = find_reader_for_path(path)

    assert (found and found.name) == name


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("my book.pdf", "pdftotext 'my book.pdf' -"),
        ("a.rtf", "pandoc"),
        ("a.DOC", "catdoc"),
        ("a.azw3", "ebook-convert a.azw3"),
    ],
)
def test_document_of_another_program_is_refused_with_a_command(path: str, command: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_reader_for_path(path)

    assert command in str(caught.value.hint)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_format_is_detected_by_content(name: str) -> None:
    expected = {"html-page": "html", "markdown": "text"}.get(name, name)

    assert detect_format(DOCUMENTS[name]) == expected
    assert detect_format(b"\xef\xbb\xbf" + DOCUMENTS[name]) == (expected if find_reader(expected).is_text else "text")


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"", "text"),
        (b"Hello <speak> and <html>", "text"),
        (b"<p>fragment</p>", "text"),
        (b"<speaker>", "text"),
        (b"WEBVTTX", "text"),
        (b"1\n2\n3 --> 4", "text"),
        (b"PK\x03\x04 something else", "text"),
        (b"\xff\xfe" + "<html lang=de>".encode("utf-16-le"), "html"),
        (b'<?xml version="1.0"?>\n<!-- c -->\n<speak version="1.1">', "ssml"),
        (b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "x" "y">\n<html xmlns="z">', "html"),
        (b"<!-- " * 20_000, "text"),
        (b"<?" * 40_000, "text"),
    ],
)
def test_unclear_content_is_text(head: bytes, name: str) -> None:
    assert detect_format(head) == name


def test_format_of_documents_by_real_programs_is_detected() -> None:
    word = build_zip({"docProps/app.xml": "x", "word/document.xml": "x"})

    assert detect_format(word) == "docx"
    assert detect_format(build_zip({"META-INF/container.xml": "x"})) == "epub"


def test_paragraphs_of_text_end_at_empty_lines() -> None:
    document = read_document(b"\n One\r\ntwo\r\n \t\r\n\r\nThree \n\n\n\fFour\n", "text", "a.txt")

    assert list_texts(document) == ["One\ntwo", "Three", "Four"]
    assert read_document(b" \n\n", "text", "a.txt").chapters == ()


@pytest.mark.parametrize(
    ("content", "encoding", "text"),
    [
        ("café".encode(), None, "café"),
        ("café".encode("utf-8-sig"), None, "café"),
        ("café".encode("utf-16"), None, "café"),
        ("café".encode("cp1252"), "windows-1252", "café"),
        ("café".encode("utf-8-sig"), "utf-8", "café"),
        ("привет".encode("koi8-r"), "koi8-r", "привет"),
    ],
)
def test_encoding_is_named_or_marked(content: bytes, encoding: str | None, text: str) -> None:
    for format in ("text", "markdown", "html"):
        assert list_texts(read_document(content, format, "a.file", encoding=encoding)) == [text]


@pytest.mark.parametrize(
    ("declaration", "codec"),
    [
        ('<meta charset="iso-8859-1">', "cp1252"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS">', "cp932"),
        ('<?xml version="1.0" encoding="iso-8859-2"?>', "iso-8859-2"),
        ('<meta charset="utf-8">', "utf-8"),
        ('<meta charset="utf-16">', "utf-8"),
        ('<meta charset="nonsense-1">', "utf-8"),
    ],
)
def test_declared_encoding_of_html_is_used(declaration: str, codec: str) -> None:
    text = {"cp932": "今日", "iso-8859-2": "ł"}.get(codec, "“é”")
    page = f"{declaration}<body><p>{text}</p>"

    assert list_texts(read_document(page.encode(codec), "html", "a.html")) == [text]


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (b"caf\xe9", None, "a.file is not UTF-8: byte 3"),
        (b"caf\xe9", "utf-8", "a.file is not utf-8: byte 3"),
        (b"caf", "windows-1253x", "unknown encoding 'windows-1253x'; did you mean"),
        (b"caf", "zlib", "unknown encoding 'zlib'"),
        (b"caf", "a\0b", "unknown encoding"),
        (b"caf", "", "unknown encoding ''"),
        (b"<meta charset=shift_jis>\x81", None, "not shift_jis, which it declares: byte"),
    ],
)
def test_wrong_encoding_is_a_usage_error(content: bytes, encoding: str | None, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_document(content, "html", "a.file", encoding=encoding)

    assert message in caught.value.message
    if encoding is None:
        assert "--encoding" in str(caught.value.hint)


def test_parsers_are_loaded_with_the_first_document_only() -> None:
    code = (
        "import sys; from audiocli.text import readers;"
        "readers.detect_format(b''); readers.find_reader_for_path('a.epub');"
        "print([name for name in ('selectolax', 'markdown_it', 'zipfile', 'csv', 'xml') if name in sys.modules])"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
