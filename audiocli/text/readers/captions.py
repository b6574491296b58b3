"""Read SubRip and WebVTT: each cue is a paragraph with its times, and the voice of `<v Alice>`.

pysubs2 1.8 drops the voices of WebVTT, keeps its entities, and reads its comments as text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from ...errors import DocumentError, UsageError
from ..caption_parsers import ParsedCue, is_vtt, parse_cues, split_lines
from ..document import Chapter, Document, Paragraph
from .encoding import decode_content

_SRT_TAG = re.compile(r"</?(?:b|i|u|s|font|c|v|ruby)\b[^<>]*>|\{\\[^{}]*\}|<rt>[^<]*</rt>", re.IGNORECASE)
_VTT_TAG = re.compile(r"<rt\b[^<>]*>[^<]*(?:</rt>)?|<[^<>]*>", re.IGNORECASE)
_VTT_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?[ \t]++([^<>]++)>|(</v>)")
_VTT_LANGUAGE = re.compile(r"^Language:[ \t]*([A-Za-z]{2,3}(?:-[A-Za-z0-9]+)*)\s*$", re.MULTILINE)

# Audio is written up to the last cue, silence included: a day has 4 GB at 24 kHz.
_MAX_START_H = 24


def read_srt(content: bytes, source: str, *, encoding: str | None = None) -> Document:
    """Read SubRip. Tags of style and override codes are removed.

    Raises:
        UsageError: The bytes are not in the encoding, there is no cue, or a time is malformed.
        DocumentError: A cue begins after more than a day.
    """
    lines = split_lines(decode_content(content, source, encoding))
    cues = _find_cues(lines, source)
    paragraphs = (
        Paragraph(text, start_s=cue.start_s, end_s=cue.end_s)
        for cue in cues
        if (text := " ".join(_SRT_TAG.sub("", cue.text).split()))
    )
    return _build_document(tuple(paragraphs), bool(cues), source)


def read_vtt(content: bytes, source: str, *, encoding: str | None = None) -> Document:
    """Read WebVTT. Comments, styles, regions and tags are removed. Raises: see `read_srt`."""
    lines = split_lines(decode_content(content, source, encoding))
    if not is_vtt(lines):
        raise UsageError(f"{source} is not WebVTT: line 1 does not begin with WEBVTT")
    header = "\n".join(lines[: lines.index("")] if "" in lines else lines)
    language = _VTT_LANGUAGE.search(header)
    cues = _find_cues(lines, source)
    paragraphs = tuple(paragraph for cue in cues for paragraph in _split_voices(cue))
    document = _build_document(paragraphs, bool(cues), source)
    return document._replace(language=None if language is None else language[1])


def _build_document(paragraphs: tuple[Paragraph, ...], has_cues: bool, source: str) -> Document:
    if not has_cues:
        raise UsageError(f"{source} has no captions", hint="a cue begins with its times: 00:00:01,000 --> 00:00:04,000")
    return Document((Chapter(None, paragraphs),) if paragraphs else ())


def _find_cues(lines: list[str], source: str) -> tuple[ParsedCue, ...]:
    """Return the cues. Raises: UsageError: A time is malformed, or a cue ends before it begins."""
    parsed = parse_cues(lines)
    for problem in parsed.problems:
        raise UsageError(f"{source}: line {problem.line} has {problem.message}")
    for cue in parsed.cues:
        if cue.end_s < cue.start_s:
            raise UsageError(f"{source}: the cue on line {cue.line} ends before it begins")
        if cue.start_s > _MAX_START_H * 3600:
            raise DocumentError(f"{source}: the cue on line {cue.line} begins later than {_MAX_START_H} h")
    return parsed.cues


def _split_voices(cue: ParsedCue) -> Iterator[Paragraph]:
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
