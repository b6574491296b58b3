"""Decode the bytes of a text: UTF-8, or UTF-16 and UTF-32 with a byte order mark.

Documents and binary files are refused.
"""

from __future__ import annotations

import codecs
import shlex
import unicodedata
from typing import NamedTuple

from ..errors import UsageError

# The marks of UTF-32 come first, because the one of UTF-32LE begins with the one of UTF-16LE.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


class _Document(NamedTuple):
    """A file type that contains text but is not text. `command` extracts the text; `{}` is the input."""

    name: str
    command: str


_PANDOC = "pandoc -t plain {}"
_SIGNATURES = {
    b"%PDF-": _Document("a PDF document", "pdftotext {} -"),
    b"{\\rtf": _Document("an RTF document", "pandoc -f rtf -t plain {}"),
    b"PK\x03\x04": _Document("a ZIP archive, such as docx, odt or epub", _PANDOC),
    b"PK\x05\x06": _Document("an empty ZIP archive", "unzip -l {}"),
    b"PK\x07\x08": _Document("a ZIP archive", "unzip -l {}"),
    b"\x1f\x8b\x08": _Document("a gzip file", "gunzip -c {}"),
    b"\xd0\xcf\x11\xe0": _Document("a Microsoft Office 97 document", "catdoc {}"),
}
_MAX_DETECTION_BYTES = 4096
# In hints that name an option for the encoding.
UNKNOWN_ENCODING = "ENCODING, for example windows-1252"
_IDEOGRAPHIC_PUNCTUATION_AND_KANA = ("\u3000", "\u30ff")


class TextDecoder:
    """Decode a text that arrives in blocks.

    `source` names the input in messages. `path` is its path, or None for a stream. `may_be_document` is false for a
    text from the command line, which may begin like a document. `encoding_hint` is the hint for a text in another
    encoding, in place of a command that converts it; `{}` is the encoding.
    """

    def __init__(
        self,
        source: str,
        path: str | None = None,
        *,
        may_be_document: bool = True,
        encoding_hint: str | None = None,
    ) -> None:
        self._source = source
        self._path = path
        self._may_be_document = may_be_document
        self._encoding_hint = encoding_hint
        self._encoding: str | None = None
        self._undecoded = b""
        self._offset = 0  # of `_undecoded` in the stream

    def decode(self, content: bytes, *, is_last: bool) -> str:
        """Decode a block. An incomplete last character is kept for the next block.

        Raises:
            UsageError: The bytes are not a text. The message has the offset of the byte and the hint has what to run.
        """
        content = self._undecoded + content
        self._undecoded = content
        if self._encoding is None:
            if not is_last and any(mark.startswith(content) for mark in (*BYTE_ORDER_MARKS, *_SIGNATURES)):
                return ""
            if self._may_be_document:
                self._reject_document(content)
            mark = next((mark for mark in BYTE_ORDER_MARKS if content.startswith(mark)), b"")
            self._encoding = BYTE_ORDER_MARKS.get(mark, "utf-8")
            self._offset, content = len(mark), content[len(mark) :]
        if self._encoding == "utf-8" and b"\x00" in content:
            raise self._build_binary_error(content)
        try:
            text, size = codecs.getincrementaldecoder(self._encoding)().decode(content, is_last), len(content)
            if not is_last:
                size -= len(content) - len(text.encode(self._encoding, "surrogatepass"))
        except UnicodeDecodeError as error:
            raise self._build_encoding_error(content, error.start) from error
        self._undecoded = content[size:]
        self._offset += size
        return text

    def _reject_document(self, content: bytes) -> None:
        beginning = content[:1024].removeprefix(codecs.BOM_UTF8).lstrip()
        for signature, document in _SIGNATURES.items():
            if beginning.startswith(signature):
                raise UsageError(
                    f"{self._source} is {document.name}, not text", hint=self._build_hint(document.command)
                )

    def _build_hint(self, command: str) -> str:
        name = "FILE" if self._path is None else shlex.quote(self._path)
        return f"pass the output of: {command.format(name)}"

    def _build_binary_error(self, content: bytes) -> UsageError:
        if (encoding := detect_encoding(content)) is not None:
            return self._build_unmarked_error(encoding)
        return UsageError(
            f"{self._source} is binary, not text: byte {self._offset + content.index(0)} is NUL",
            hint=f"show its type with: file {'FILE' if self._path is None else shlex.quote(self._path)}",
        )

    def _build_encoding_error(self, content: bytes, position: int) -> UsageError:
        assert self._encoding is not None
        if self._encoding == "utf-8" and not self._offset and (encoding := detect_encoding(content)) is not None:
            return self._build_unmarked_error(encoding)
        name = self._encoding.upper().removesuffix("-LE").removesuffix("-BE")
        return UsageError(
            f"{self._source} is not {name}: byte {self._offset + position}",
            hint=self._build_encoding_hint(None),
        )

    def _build_unmarked_error(self, encoding: str) -> UsageError:
        return UsageError(
            f"{self._source} seems to be {encoding} without a byte order mark",
            hint=self._build_encoding_hint(encoding),
        )

    def _build_encoding_hint(self, encoding: str | None) -> str:
        """Return how to read the text. `encoding` None: it is not known."""
        if self._encoding_hint is not None:
            return self._encoding_hint.format(encoding or UNKNOWN_ENCODING)
        return self._build_hint(f"iconv -f {encoding or 'ENCODING'} -t UTF-8 {{}}")


def detect_encoding(content: bytes) -> str | None:
    """Return `UTF-16LE`, `UTF-16BE`, `UTF-32LE` or `UTF-32BE` if bytes without a mark can only be that, else None.

    The text must consist of assigned, printable characters, some of them ASCII, kana or ideographic punctuation.
    """
    content = content[:_MAX_DETECTION_BYTES]
    text_bytes = content.replace(b"\x00", b"")
    # ASCII with a few NULs, such as the output of find -print0: two of its bytes are often an ideograph.
    ascii_count = sum(0x20 <= byte < 0x7F or byte in b"\t\n\r" for byte in text_bytes)
    if len(text_bytes) > 0.6 * len(content) and ascii_count > 0.85 * len(text_bytes):
        return None
    best_encoding, best_count = None, 0
    for encoding, unit_bytes in (("UTF-32LE", 4), ("UTF-32BE", 4), ("UTF-16LE", 2), ("UTF-16BE", 2)):
        # Python's names have a hyphen more, and bytes of an incomplete last character are ignored.
        codec = f"{encoding[:-2]}-{encoding[-2:]}"
        try:
            text = codecs.getincrementaldecoder(codec)().decode(content[: len(content) // unit_bytes * unit_bytes])
        except UnicodeDecodeError:
            continue
        first, last = _IDEOGRAPHIC_PUNCTUATION_AND_KANA
        count = sum(char.isascii() or first <= char <= last for char in text)
        if len(content) % unit_bytes and len(content) < _MAX_DETECTION_BYTES:
            continue
        is_printable = all(char in "\t\n\f\r" or unicodedata.category(char) not in _UNPRINTABLE for char in text)
        if is_printable and count > max(best_count, len(text) // 100):
            best_encoding, best_count = encoding, count
    return best_encoding


_UNPRINTABLE = ("Cc", "Cn", "Co", "Cs")
