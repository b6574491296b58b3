"""Read SubRip and WebVTT: each cue is a paragraph with its times, and the voice of `<v Alice>`.

pysubs2 1.8 drops the voices of WebVTT, keeps its entities, and reads its comments as text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import DocumentError, UsageError
from ..document import Chapter, Document, Paragraph
from .encoding import decode_content

_CLOCK = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMING = re.compile(rf"\s*{_CLOCK}\s*--?>\s*{_CLOCK}(?:\s.*)?$", re.ASCII)
_SRT_TAG = re.compile(r"</?(?:b|i|u|s|font|c|v|ruby)\b[^<>]*>|\{\\[^{}]*\}|<rt>.*?</rt>", re.IGNORECASE)
_VTT_TAG = re.compile(r"<rt\b[^<>]*>[^<]*(?:</rt>)?|<[^<>]*>", re.IGNORECASE)
_VTT_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?[ \t]+([^<>]+)>|(</v>)")
_VTT_LANGUAGE = re.compile(r"^Language:[ \t]*([A-Za-z]{2,3}(?:-[A-Za-z0-9]+)*)\s*$", re.MULTILINE)
_VTT_BLOCKS = ("NOTE", "STYLE", "REGION")


# Audio is written up to the last cue, silence included: a day has 4 GB at 24 kHz.
_MAX_START_H = 24


class _Cue(NamedTuple):
    start_s: float
    end_s: float
    text: str


def read_srt(content: bytes, source: str, *, encoding: str | None = None) -> Document:
    """Read SubRip. Tags of style and override codes are removed.

    Raises:
        UsageError: The bytes are not in the encoding, there is no cue, or a time is malformed.
        DocumentError: A cue begins after more than a day.
    """
    lines = _split_lines(decode_content(content, source, encoding))
    cues = list(_find_cues(lines, source))
    paragraphs = (
        Paragraph(text, start_s=cue.start_s, end_s=cue.end_s)
        for cue in cues
        if (text := " ".join(_SRT_TAG.sub("", cue.text).split()))
    )
    return _build_document(tuple(paragraphs), bool(cues), source)


def read_vtt(content: bytes, source: str, *, encoding: str | None = None) -> Document:
    """Read WebVTT. Comments, styles, regions and tags are removed. Raises: see `read_srt`."""
    lines = _split_lines(decode_content(content, source, encoding))
    if not lines or not re.match(r"WEBVTT(?:[ \t]|$)", lines[0]):
        raise UsageError(f"{source} is not WebVTT: line 1 does not begin with WEBVTT")
    header = "\n".join(lines[: lines.index("")] if "" in lines else lines)
    language = _VTT_LANGUAGE.search(header)
    cues = list(_find_cues(lines, source))
    paragraphs = tuple(paragraph for cue in cues for paragraph in _split_voices(cue))
    document = _build_document(paragraphs, bool(cues), source)
    return document._replace(language=None if language is None else language[1])


def _split_lines(text: str) -> list[str]:
    return [line.rstrip("\ufeff \t") for line in re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))]


def _build_document(paragraphs: tuple[Paragraph, ...], has_cues: bool, source: str) -> Document:
    if not has_cues:
        raise UsageError(f"{source} has no captions", hint="a cue begins with its times: 00:00:01,000 --> 00:00:04,000")
    return Document((Chapter(None, paragraphs),) if paragraphs else ())


def _find_cues(lines: list[str], source: str) -> Iterator[_Cue]:
    """Yield the cues. The text of a cue ends before the number of the next one, so it may have empty lines."""
    timings = []
    for number, line in enumerate(lines):
        if "->" in line and (match := _TIMING.match(line)) is not None:
            timings.append((number, match))
        elif "-->" in line and re.match(r"\s*\d", line) and (number == 0 or _is_boundary(lines, number)):
            raise UsageError(f"{source}: line {number + 1} has malformed times: {line.strip()!r}")
    for index, (number, match) in enumerate(timings):
        next_number = timings[index + 1][0] if index + 1 < len(timings) else len(lines)
        start_s, end_s = _parse_clock(match.groups()[:4]), _parse_clock(match.groups()[4:])
        if end_s < start_s:
            raise UsageError(f"{source}: the cue on line {number + 1} ends before it begins")
        if start_s > _MAX_START_H * 3600:
            raise DocumentError(f"{source}: the cue on line {number + 1} begins later than {_MAX_START_H} h")
        yield _Cue(start_s, end_s, "\n".join(_find_text(lines[number + 1 : next_number], index + 1 < len(timings))))


def _is_boundary(lines: list[str], number: int) -> bool:
    """Return whether a cue may begin with this line: after an empty line, or after a number or name that does."""
    return not lines[number - 1] or number == 1 or not lines[number - 2]


def _find_text(lines: list[str], has_next: bool) -> list[str]:
    """Return the lines of a cue, without the number or name of the next one and without comments."""
    end = len(lines)
    if has_next and end and (lines[end - 1].strip().isdecimal() or (end > 1 and lines[end - 1] and not lines[end - 2])):
        end -= 1  # the number or name of the next cue
    text: list[str] = []
    is_comment = False
    for index, line in enumerate(lines[:end]):
        if index and not lines[index - 1]:
            is_comment = line.split(" ")[0].split("\t")[0] in _VTT_BLOCKS
        if line and not is_comment:
            text.append(line)
    return text


def _parse_clock(groups: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = groups
    ms = int((fraction or "0").ljust(3, "0"))
    return (int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)) + ms / 1000


def _split_voices(cue: _Cue) -> Iterator[Paragraph]:
    """Yield a paragraph for each voice of a cue. Several voices share its time by the length of their texts."""
    parts: list[tuple[str | None, str]] = []
    voice: str | None = None
    position = 0
    for match in _VTT_VOICE.finditer(cue.text):
        parts.append((voice, cue.text[position : match.start()]))
        voice = html.unescape(match[1]).strip() if match[1] else None
        position = match.end()
    parts.append((voice, cue.text[position:]))
    texts = [(name, " ".join(html.unescape(_VTT_TAG.sub("", text)).split())) for name, text in parts]
    spoken = [(name, text) for name, text in texts if text]
    total = sum(len(text) for _, text in spoken)
    start_s = cue.start_s
    for name, text in spoken:
        end_s = start_s + (cue.end_s - cue.start_s) * len(text) / total
        yield Paragraph(text, voice=name, start_s=start_s, end_s=end_s)
        start_s = end_s
