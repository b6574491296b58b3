"""Tags of audio files as values: title, author, language, chapters and cover, without a codec."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterable
from typing import NamedTuple

# What each format can carry. The formats that are missing have no place for tags: raw samples, and ADTS.
_TAGGED_FORMATS = frozenset({"mp3", "m4a", "m4b", "opus", "ogg", "flac", "wav"})
_FORMATS_WITHOUT_CHAPTERS = frozenset({"wav"})
_COVER_TYPES = frozenset({"image/jpeg", "image/png"})

# Players show a line. A longer title would not fit into the 16-bit length of a chapter in MP4.
_MAX_TITLE_CHARACTERS = 500
_BREAKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
# "Front cover" in ID3v2 and FLAC.
_FRONT_COVER = 3


class ChapterMark(NamedTuple):
    """A chapter, with its times in the final audio."""

    title: str
    start_s: float
    end_s: float


class Cover(NamedTuple):
    """A picture: its file, and its MIME type."""

    data: bytes
    media_type: str


class AudioTags(NamedTuple):
    """Tags of an audio file. Empty values are not written. `language` is a code or a tag, such as `de` or `pt-BR`."""

    title: str = ""
    artist: str = ""
    album: str = ""
    language: str = ""
    track: int | None = None
    genre: str = "Audiobook"
    chapters: tuple[ChapterMark, ...] = ()
    cover: Cover | None = None


def supports_tags(format: str) -> bool:
    """Return whether files of a format can have tags."""
    return format in _TAGGED_FORMATS


def supports_chapters(format: str) -> bool:
    """Return whether files of a format can have chapters."""
    return format in _TAGGED_FORMATS - _FORMATS_WITHOUT_CHAPTERS


def supports_cover(format: str, media_type: str) -> bool:
    """Return whether files of a format can have a cover of this MIME type."""
    return supports_chapters(format) and media_type in _COVER_TYPES


def scale_chapters(chapters: Iterable[ChapterMark], scale: float) -> tuple[ChapterMark, ...]:
    """Return chapters of audio whose duration was multiplied by `scale`."""
    return tuple(chapter._replace(start_s=chapter.start_s * scale, end_s=chapter.end_s * scale) for chapter in chapters)


def clean_tag(value: str) -> str:
    """Return a value as one line of valid Unicode: control characters and runs of white space become a space."""
    line = _BREAKS.sub(" ", value.encode("utf-8", "replace").decode()).strip()
    return line[:_MAX_TITLE_CHARACTERS]


def build_chapter_comments(chapters: Iterable[ChapterMark]) -> dict[str, str]:
    """Return Vorbis comments with chapters, as FLAC and Ogg files have them.

    Source: the chapter extension of Vorbis comments, https://wiki.xiph.org/Chapter_Extension
    """
    comments = {}
    for index, chapter in enumerate(chapters):
        comments[f"CHAPTER{index:03d}"] = _format_time(chapter.start_s)
        comments[f"CHAPTER{index:03d}NAME"] = clean_tag(chapter.title)
    return comments


def build_picture_comment(cover: Cover, *, width: int, height: int) -> str:
    """Return the value of METADATA_BLOCK_PICTURE, which is the picture block of FLAC in base64.

    Source: RFC 9639 8.8.
    """
    media_type = cover.media_type.encode()
    block = struct.pack(">II", _FRONT_COVER, len(media_type)) + media_type
    # No description, 24 bits per pixel, no palette.
    block += struct.pack(">IIIIII", 0, width, height, 24, 0, len(cover.data)) + cover.data
    return base64.b64encode(block).decode()


def _format_time(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"
