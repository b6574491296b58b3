"""URLs of objects, and locations that are a path or such a URL."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import NamedTuple, TypeAlias

from ..errors import UsageError

# The schemes that the programs of the clouds use.
S3_SCHEMES = frozenset({"s3", "s3a"})
GOOGLE_SCHEMES = frozenset({"gs"})
AZURE_SCHEMES = frozenset({"az", "azure", "adl", "abfs", "abfss"})
OBJECT_SCHEMES = S3_SCHEMES | GOOGLE_SCHEMES | AZURE_SCHEMES
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(?:/(.*))?", re.DOTALL)


class ObjectUrl(NamedTuple):
    """The URL of an object, or of a prefix, which has the role of a directory.

    Attributes:
        store: Scheme and bucket, such as `s3://recordings`.
        key: Without a slash at its start. That of a prefix has none at its end either; it is empty for a whole bucket.
    """

    store: str
    key: str

    def __str__(self) -> str:
        return f"{self.store}/{self.key}"

    @property
    def scheme(self) -> str:
        return self.store.partition(":")[0]

    @property
    def bucket(self) -> str:
        return self.store.partition("://")[2]

    @property
    def name(self) -> str:
        """The part of the key after its last slash."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return posixpath.splitext(self.name)[0]

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.name)[1]

    @property
    def parent(self) -> ObjectUrl:
        return ObjectUrl(self.store, self.key.rpartition("/")[0])

    def join(self, relative_key: str) -> ObjectUrl:
        """Return the URL of a key below this prefix."""
        return ObjectUrl(self.store, f"{self.key}/{relative_key}" if self.key else relative_key)


Location: TypeAlias = Path | ObjectUrl
"""Where a recording or an output is: on the disk, or in an object store."""


def is_object_url(text: str | None) -> bool:
    """Return whether a text is the URL of an object store, by its scheme."""
    match = _URL.match(text) if text else None
    return match is not None and match[1].lower() in OBJECT_SCHEMES


def parse_object_url(text: str) -> ObjectUrl:
    """Parse the URL of an object or a prefix. Slashes at the end of the key are dropped.

    Raises:
        UsageError: It has no bucket, or a key that no client can address.
    """
    match = _URL.fullmatch(text)
    if match is None or not match[2]:
        raise UsageError(f"{text} has no bucket", hint="write it as s3://BUCKET/KEY")
    url = ObjectUrl(f"{match[1].lower()}://{match[2]}", (match[3] or "").rstrip("/"))
    if (problem := find_key_problem(url.key)) is not None:
        raise UsageError(f"{text}: {problem}")
    return url


def find_key_problem(key: str) -> str | None:
    """Return why a key cannot be used; None if it can.

    Paths with these parts mean something else to most programs, and obstore 0.12 does not accept them.
    """
    if not key:
        return None
    parts = key.split("/")
    if "" in parts:
        return "the key has an empty part (//)"
    if "." in parts or ".." in parts:
        return "the key has a part . or .."
    if any(ord(character) < 32 or ord(character) == 127 for character in key):
        return "the key has a control character"
    return None
