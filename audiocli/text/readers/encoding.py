"""Decode the bytes of a document: the encoding of the user, a byte order mark, a declared encoding, or UTF-8."""

from __future__ import annotations

import codecs
import re

from ...errors import UsageError, suggest
from ..decoding import BYTE_ORDER_MARKS, UNKNOWN_ENCODING, TextDecoder

# Names that mean a larger encoding in practice (WHATWG Encoding Standard, section 4.2).
_SUPERSETS = {
    "ascii": "cp1252",
    "us-ascii": "cp1252",
    "iso-8859-1": "cp1252",
    "iso8859-1": "cp1252",
    "latin1": "cp1252",
    "latin-1": "cp1252",
    "iso-8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "x-sjis": "cp932",
    "ks_c_5601-1987": "cp949",
    "euc-kr": "cp949",
}
_DECLARATION_BYTES = 4096
_XML_DECLARATION = re.compile(rb"""\s*<\?xml[^>]{0,200}?\sencoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']""")
_META_DECLARATION = re.compile(rb"""<meta\s[^>]{0,400}?charset\s*=\s*["']?\s*([A-Za-z0-9._:-]{1,40})""", re.IGNORECASE)
_ENCODING_HINT = "name its encoding: --encoding {}"
_COMMON_ENCODINGS = ("utf-8", "utf-16", "windows-1252", "iso-8859-1", "iso-8859-15", "shift_jis", "gb18030", "koi8-r")


def decode_content(content: bytes, source: str, encoding: str | None = None, *, declared: str | None = None) -> str:
    """Decode a text. `declared` is the encoding that its format declares; unknown names are ignored.

    Raises:
        UsageError: The encoding is unknown, or the bytes are not in it. The message has the offset of the byte.
    """
    if encoding is not None:
        try:
            codecs.lookup(encoding)
            return _strip_mark(content.decode(encoding))
        except UnicodeDecodeError as error:
            raise UsageError(f"{source} is not {encoding}: byte {error.start}") from error
        except (LookupError, ValueError) as error:  # also names of codecs that do not decode text, such as zlib
            guess = suggest(encoding, _COMMON_ENCODINGS)
            raise UsageError(f"unknown encoding {encoding!r}{guess}", hint="use a name such as windows-1252") from error
    if declared is not None and not content.startswith(tuple(BYTE_ORDER_MARKS)):
        name = _SUPERSETS.get(declared.lower(), declared)
        try:
            # The declaration was read as ASCII, so that UTF-16 is a mistake (HTML Standard, section 13.2.3.2).
            if not codecs.lookup(name).name.startswith(("utf-16", "utf-32", "utf-8")):
                return content.decode(name)
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{source} is not {declared}, which it declares: byte {error.start}",
                hint=_ENCODING_HINT.format(UNKNOWN_ENCODING),
            ) from error
        except (LookupError, ValueError):
            pass
    return TextDecoder(source, encoding_hint=_ENCODING_HINT).decode(content, is_last=True)


def find_declared_encoding(content: bytes) -> str | None:
    """Return the encoding that an XML declaration or a `meta` element names, or None."""
    head = content[:_DECLARATION_BYTES]
    match = _XML_DECLARATION.match(head) or _META_DECLARATION.search(head)
    return None if match is None else match[1].decode("ascii")


def _strip_mark(text: str) -> str:
    return text.removeprefix("\ufeff")
