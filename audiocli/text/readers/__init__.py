"""Readers: bytes of a document → `Document`. They open no files and no network.

The table of formats is here; the module of a format is loaded when a document is read.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import PurePath
from typing import NamedTuple

from ...errors import UsageError, suggest
from ..document import Document


class DocumentFormat(NamedTuple):
    """A format that can be read.

    Attributes:
        module: The module of this package that reads it, and `function` in it.
        is_text: Whether the content is text, which a pipe may deliver in parts and `--encoding` may describe.
        has_rows: Whether the content is many texts, for `rows.read_rows`.
    """

    name: str
    extensions: tuple[str, ...]
    module: str
    function: str = "read"
    is_text: bool = True
    has_rows: bool = False


_FORMATS = (
    DocumentFormat("text", (".txt", ".text"), "plain"),
    DocumentFormat("markdown", (".md", ".markdown", ".mdown", ".mkd"), "markdown"),
    DocumentFormat("html", (".html", ".htm", ".xhtml"), "html"),
    DocumentFormat("html-page", (), "html", "read_page"),
    DocumentFormat("epub", (".epub",), "epub", is_text=False),
    DocumentFormat("docx", (".docx", ".docm", ".dotx"), "docx", is_text=False),
    DocumentFormat("odt", (".odt", ".ott"), "odt", is_text=False),
    DocumentFormat("srt", (".srt",), "captions", "read_srt"),
    DocumentFormat("vtt", (".vtt",), "captions", "read_vtt"),
    DocumentFormat("ssml", (".ssml",), "ssml"),
    DocumentFormat("jsonl", (".jsonl", ".ndjson"), "rows", has_rows=True),
    DocumentFormat("csv", (".csv", ".tsv"), "rows", has_rows=True),
    DocumentFormat("lines", (), "rows", has_rows=True),
)
FORMATS = {format.name: format for format in _FORMATS}
_FORMATS_BY_EXTENSION = {extension: format for format in _FORMATS for extension in format.extensions}

# Documents that another program can convert: what they are, and its command.
_CONVERTERS = {
    ".pdf": ("PDF documents", "pdftotext {name} - | audiocli speak"),
    ".doc": ("Word 97 documents", "catdoc {name} | audiocli speak"),
    ".rtf": ("RTF documents", "pandoc -t markdown {name} | audiocli speak --from markdown"),
    ".fb2": ("FictionBook", "pandoc {name} -o book.epub"),
    ".mobi": ("Mobipocket books", "ebook-convert {name} book.epub"),
    ".azw": ("Kindle books", "ebook-convert {name} book.epub"),
    ".azw3": ("Kindle books", "ebook-convert {name} book.epub"),
    ".kfx": ("Kindle books", "ebook-convert {name} book.epub"),
}

_HEAD_BYTES = 64 * 1024
_XML_PROLOG = r"(?:<\?[^>]*>|<!--.*?-->|<!DOCTYPE[^>\[]*>|\s)*"
_SSML = re.compile(rf"{_XML_PROLOG}<speak[\s>]", re.DOTALL | re.IGNORECASE)
_HTML = re.compile(rf"(?=\s*<)(?:{_XML_PROLOG}<html[\s>]|\s*<!DOCTYPE\s+html\b)", re.DOTALL | re.IGNORECASE)
_VTT = re.compile(r"WEBVTT(?:[ \t\r\n]|\Z)")
_SRT = re.compile(r"\s*\d+[ \t]*\r?\n\d{1,2}:\d{2}:\d{2},\d{3}[ \t]+-->[ \t]+\d{1,2}:\d{2}:\d{2},\d{3}")
_ZIP_MEMBERS = {
    b"mimetypeapplication/epub+zip": "epub",
    b"mimetypeapplication/vnd.oasis.opendocument.text": "odt",
    b"META-INF/container.xml": "epub",
    b"word/document.xml": "docx",
    b"[Content_Types].xml": "docx",
}


def find_reader(name: str) -> DocumentFormat:
    """Return the format of a name. Raises: UsageError: The name is unknown."""
    format = FORMATS.get(name.lower())
    if format is None:
        raise UsageError(
            f"unknown document format {name!r}{suggest(name, FORMATS)}", hint=f"formats: {', '.join(FORMATS)}"
        )
    return format


def find_reader_for_path(path: str) -> DocumentFormat | None:
    """Return the format that the extension of a path names, or None.

    Raises:
        UsageError: The extension is that of a document which another program can convert. The hint has the command.
    """
    import shlex

    suffix = PurePath(path).suffix.lower()
    if suffix in _CONVERTERS:
        kind, command = _CONVERTERS[suffix]
        raise UsageError(f"{path}: {kind} are not supported", hint=f"run: {command.format(name=shlex.quote(path))}")
    return _FORMATS_BY_EXTENSION.get(suffix)


def detect_format(head: bytes) -> str:
    """Return the name of the format of a document, from its first bytes. `text` if there is no sign of another one."""
    head = head[:_HEAD_BYTES]
    if head.startswith(b"PK\x03\x04"):
        return next((name for member, name in _ZIP_MEMBERS.items() if member in head), "text")
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = head.decode(encoding, "replace")[:4096]
    for pattern, name in ((_SSML, "ssml"), (_HTML, "html"), (_VTT, "vtt"), (_SRT, "srt")):
        if pattern.match(text):
            return name
    return "text"


def read_document(content: bytes, format: str, source: str, *, encoding: str | None = None) -> Document:
    """Read a document. `source` names it in messages.

    Raises:
        UsageError: The format or the encoding is unknown, or the text is malformed.
        DocumentError: The document is damaged, encrypted, or exceeds the safety limits.
    """
    reader = find_reader(format)
    if reader.has_rows:
        raise UsageError(
            f"{source}: {format} has many texts, which need a directory for their files", hint="pass -O DIR"
        )
    module = import_module(f".{reader.module}", __name__)
    document: Document = getattr(module, reader.function)(content, source, encoding=encoding)
    return document
