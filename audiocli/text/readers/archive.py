"""Read the files inside a ZIP document (EPUB, DOCX, ODT) within limits. Their names are never used as paths."""

from __future__ import annotations

import io
import posixpath
import zipfile
import zlib
from urllib.parse import unquote

from ...errors import DocumentError
from .xml_tree import MalformedXml, XmlTree, parse_xml

MAX_ENTRIES = 20_000
MAX_ENTRY_BYTES = 64 * 1024 * 1024
MAX_TOTAL_BYTES = 256 * 1024 * 1024
# Text compresses to a tenth, tables of a word processor to a fiftieth. Deflate reaches 1,032.
MAX_RATIO = 200
_MIN_RATIO_BYTES = 4 * 1024 * 1024  # smaller entries do no harm
_ENTRY_SIGNATURE = b"PK\x01\x02"


class Archive:
    """The entries of a ZIP document. `source` names the document in messages."""

    def __init__(self, content: bytes, source: str) -> None:
        """Read the directory of the archive. Raises: DocumentError: It is damaged or has too many entries."""
        self._source = source
        self._read_bytes = 0
        # Counted before zipfile makes an object for each entry.
        if content.count(_ENTRY_SIGNATURE) > MAX_ENTRIES:
            raise DocumentError(f"{source} has more than {MAX_ENTRIES:,} entries")
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(content))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, OverflowError) as error:
            raise DocumentError(f"{source} is not a complete ZIP archive: {error}") from error
        self._entries = {_normalize_name(info.filename): info for info in self._archive.infolist()}

    def __contains__(self, name: str) -> bool:
        return _normalize_name(name) in self._entries

    def read(self, name: str) -> bytes:
        """Return the content of an entry.

        Raises:
            DocumentError: The entry is missing, damaged, encrypted or exceeds the limits.
        """
        info = self._entries.get(_normalize_name(name))
        if info is None:
            raise DocumentError(f"{self._source} has no {name!r}")
        if info.flag_bits & 1:
            raise DocumentError(f"{self._source} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DocumentError(f"{self._source}: {name!r} uses an unsupported compression method")
        is_bomb = info.file_size > max(_MIN_RATIO_BYTES, MAX_RATIO * info.compress_size)
        self._read_bytes += info.file_size
        if is_bomb or info.file_size > MAX_ENTRY_BYTES or self._read_bytes > MAX_TOTAL_BYTES:
            raise DocumentError(f"{self._source} expands to an unsafe size: {name!r} has {info.file_size:,} bytes")
        try:
            # zipfile reads no more than the size in the directory, which was checked.
            return self._archive.read(info)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            ValueError,
            NotImplementedError,
            OSError,
            RuntimeError,
        ) as error:
            raise DocumentError(f"{self._source} is damaged: cannot read {name!r}: {error}") from error

    def read_xml(self, name: str) -> XmlTree:
        """Parse an entry as XML. Raises: DocumentError: It cannot be read, is malformed or declares entities."""
        try:
            return parse_xml(self.read(name))
        except MalformedXml as error:
            raise DocumentError(f"{self._source} is damaged: {name!r}, {error}") from error


def resolve_name(base: str, reference: str) -> tuple[str, str]:
    """Return the entry and the fragment to which a relative URL in the entry `base` points."""
    path, _, fragment = reference.partition("#")
    directory = posixpath.dirname(base)
    return _normalize_name(posixpath.join(directory, unquote(path)) if path else base), unquote(fragment)


def _normalize_name(name: str) -> str:
    """Return a name without `.` and `..`, relative to the root of the archive. It is only a key of entries."""
    return posixpath.normpath("/" + name.replace("\\", "/")).lstrip("/")
