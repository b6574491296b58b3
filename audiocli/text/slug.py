"""Build file names from templates such as `{n:04}-{slug}`, valid on every platform."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Mapping

from ..errors import UsageError, suggest
from .cleaning import clean_text
from .line_breaking import split_graphemes

# Of ext4, APFS, NTFS (in UTF-16 units) and others.
MAX_NAME_BYTES = 255
# A hidden `.part` file in the same directory has a longer name: dots, the process ID and a random number.
_RESERVED_BYTES = 32
UNTITLED = "untitled"

_APOSTROPHES = re.compile(r"(?<=\w)['’](?=\w)")
_JOINERS = "\u200c\u200d"
# Characters that Windows does not allow, with separators of every platform.
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\u2028\u2029\ud800-\udfff]+')
_LEADING = " .-\u3000"
_DANGLING = " .-_"  # separators of a template after which a field is empty
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?=\s*(?:\.|$))", re.IGNORECASE)
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,8}\Z")
_FORMAT = re.compile(r"0?\d{0,3}d?|[<>^]?\d{0,3}s?")


def slugify(text: str, max_length: int = 50) -> str:
    """Return the words of a text in lower case with hyphens between them, in all scripts: `Über uns!` is `über-uns`.

    `max_length` is in characters. The last words are left out if they do not fit; a single long word is cut. The result
    is empty if the text has no letter and no digit.
    """
    text = _APOSTROPHES.sub("", unicodedata.normalize("NFC", clean_text(text)).lower())
    text = "".join(char if _is_word_character(char) else " " for char in text)
    words = [word.strip(_JOINERS) for word in text.split() if any(map(str.isalnum, word))]
    slug = ""
    for word in words:
        longer = f"{slug}-{word}" if slug else word
        if len(longer) > max_length:
            return slug or _cut(word, max_length, len)
        slug = longer
    return slug


def _is_word_character(char: str) -> bool:
    # Words of many scripts contain combining marks and joiners.
    return char.isalnum() or char in _JOINERS or unicodedata.category(char)[0] == "M"


def _cut(text: str, max_size: int, measure: Callable[[str], int]) -> str:
    """Return the longest beginning of a text within a size that does not divide a character and its marks."""
    size = 0
    result = []
    for cluster in split_graphemes(text):
        size += measure(cluster)
        if size > max_size:
            break
        result.append(cluster)
    return "".join(result)


def render_name(template: str, fields: Mapping[str, str | int], *, extension: str = "") -> str:
    """Return a file name for a template and its fields, without directories. `extension` is added, without a dot.

    Characters that a platform does not allow become hyphens. A name that would be too long is cut before its extension.

    Raises:
        UsageError: The template has a directory, a field that does not exist, or a format that does not fit a field.
    """
    name = _sanitize(_fill_template(template, fields))
    suffix = f".{extension}" if extension else ""
    if not extension and (match := _EXTENSION.search(name)) is not None:
        name, suffix = name[: match.start()], match[0]
    max_bytes = MAX_NAME_BYTES - _RESERVED_BYTES - len(suffix.encode())
    name = _cut(name, max_bytes, lambda text: len(text.encode())).rstrip(_DANGLING) or UNTITLED
    if _DEVICE.match(name):
        name = _DEVICE.sub(lambda device: f"{device[0]}_", name, count=1)
    return name + suffix


def _fill_template(template: str, fields: Mapping[str, str | int]) -> str:
    """Return the template with its fields, which are not sanitized. Raises: UsageError."""
    hint = f"fields: {', '.join(f'{{{name}}}' for name in fields)}"
    if "/" in template or "\\" in template:
        raise UsageError(f"--name {template}: a name must not contain a directory", hint="name the directory with -O")
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UsageError(f"--name {template}: {error}", hint=hint) from error
    result = ""
    for literal, field, specification, conversion in parts:
        result += literal
        if field is None:
            continue
        if field not in fields:
            raise UsageError(f"--name {template}: unknown field {field!r}{suggest(field, fields)}", hint=hint)
        try:
            if conversion or not _FORMAT.fullmatch(specification or ""):
                raise ValueError("invalid format")
            result += format(fields[field], specification or "")
        except ValueError as error:
            raise UsageError(
                f"--name {template}: the format of {field!r} is not valid", hint="such as {n:04} for four digits"
            ) from error
    return result


def _sanitize(name: str) -> str:
    """Replace what is not allowed in names of files, and remove what would hide a file or look like an option."""
    name = _FORBIDDEN.sub("-", unicodedata.normalize("NFC", " ".join(clean_text(name).split())))
    return name.lstrip(_LEADING).rstrip(_DANGLING)
