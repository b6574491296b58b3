"""Make the documents that the tests of readers read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from html import escape

from audiocli.text.document import Document

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
JPEG = b"\xff\xd8\xff\xe0" + bytes(16)

CONTAINER = (
    '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
    '<rootfiles><rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles>'
    "</container>"
)
XHTML = (
    '<?xml version="1.0" encoding="utf-8"?>'
    '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops">'
)


def build_zip(entries: Mapping[str, str | bytes], *, first: Mapping[str, str] = {}) -> bytes:
    """Build a ZIP archive. The entries of `first` are not compressed, as that of `mimetype` must be."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in first.items():
            archive.writestr(name, text, zipfile.ZIP_STORED)
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def build_page(body: str, *, title: str = "<title>Page</title>") -> str:
    return f"{XHTML}<head>{title}</head><body>{body}</body></html>"


def build_epub(
    pages: Mapping[str, str],
    *,
    contents: str | None = None,
    ncx: str | None = None,
    metadata: str = "",
    manifest: str = "",
    spine: str | None = None,
    guide: str = "",
    entries: Mapping[str, str | bytes] = {},
) -> bytes:
    """Build a book whose pages have these bodies. `contents` is the list of the navigation document of EPUB 3."""
    items = "".join(
        f'<item id="{escape(name)}" href="{escape(name)}" media-type="application/xhtml+xml"/>' for name in pages
    )
    if contents is not None:
        items += '<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
    if ncx is not None:
        items += '<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
    if spine is None:
        spine = "".join(f'<itemref idref="{escape(name)}"/>' for name in pages)
    package = (
        '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<metadata>{metadata}</metadata><manifest>{items}{manifest}</manifest><spine>{spine}</spine>{guide}</package>"
    )
    files: dict[str, str | bytes] = {"META-INF/container.xml": CONTAINER, "OEBPS/book.opf": package}
    files |= {f"OEBPS/{name}": build_page(body) for name, body in pages.items()}
    if contents is not None:
        files["OEBPS/nav.xhtml"] = build_page(f'<nav epub:type="toc"><h1>Contents</h1>{contents}</nav>')
    if ncx is not None:
        files["OEBPS/toc.ncx"] = (
            '<?xml version="1.0"?><!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" '
            '"http://www.daisy.org/z3986/2005/ncx-2005-1.dtd"><ncx xmlns="http://www.daisy.org/z3986/2005/ncx/">'
            f"<navMap>{ncx}</navMap></ncx>"
        )
    return build_zip({**files, **entries}, first={"mimetype": "application/epub+zip"})


WORD = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" '
    'xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing" '
    'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
)


def build_docx(body: str, *, entries: Mapping[str, str | bytes] = {}) -> bytes:
    """Build a Word document with this body. Parts such as `word/styles.xml` are related to it by their names."""
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    related = "".join(
        f'<Relationship Id="r{index}" Type="{relations}/{kind}" Target="{kind}.xml"/>'
        for index, kind in enumerate(("styles", "numbering", "footnotes", "endnotes"))
    )
    package = f'<Relationship Id="r1" Type="{relations}/officeDocument" Target="word/document.xml"/>'
    namespace = 'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"'
    return build_zip(
        {
            "[Content_Types].xml": "<Types/>",
            "_rels/.rels": f"<Relationships {namespace}>{package}</Relationships>",
            "word/_rels/document.xml.rels": f"<Relationships {namespace}>{related}</Relationships>",
            "word/document.xml": f'<?xml version="1.0"?><w:document {WORD}><w:body>{body}</w:body></w:document>',
            **{
                name: f"<w:part {WORD}>{content}</w:part>" if isinstance(content, str) else content
                for name, content in entries.items()
            },
        }
    )


OPEN_DOCUMENT = " ".join(
    f'xmlns:{prefix}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for prefix, name in {
        "office": "office",
        "text": "text",
        "table": "table",
        "style": "style",
        "draw": "drawing",
        "svg": "svg-compatible",
        "fo": "xsl-fo-compatible",
    }.items()
)


def build_odt(body: str, *, styles: str = "", entries: Mapping[str, str | bytes] = {}) -> bytes:
    """Build an OpenDocument text with this body and these automatic styles."""
    content = (
        f'<?xml version="1.0"?><office:document-content {OPEN_DOCUMENT}>'
        f"<office:automatic-styles>{styles}</office:automatic-styles>"
        f"<office:body><office:text>{body}</office:text></office:body></office:document-content>"
    )
    mimetype = "application/vnd.oasis.opendocument.text"
    return build_zip({"content.xml": content, **entries}, first={"mimetype": mimetype})


def list_texts(document: Document) -> list[str]:
    return [paragraph.text for paragraph in document.paragraphs]
