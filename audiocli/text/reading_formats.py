"""Write transcripts for people who read them: txt with times, speakers and paragraphs, and Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from ..types.transcripts import Transcript
from .clock import format_position
from .cues import normalize_transcript
from .guard import describe_suspicion, find_overlapping
from .line_breaking import collapse_whitespace, join_words
from .paragraphs import build_paragraphs
from .transcript_style import TranscriptPage

DEFAULT_MARKDOWN_PARTS = ("speakers", "paragraphs")
MARK = "\u26a0"  # a warning sign

# Characters that begin or end markup of CommonMark or of GitHub wherever they are, and those of formulas.
_MARKDOWN_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#|~$&]")
# At the beginning of a block: lists, headings, quotations, rules.
_MARKDOWN_BLOCK_START = re.compile(r"(?:[-+=](?=[\s-]|$)|\d{1,9}(?=[.)](?:\s|$))|:(?=\s)|-{3,}|={3,})")


class _Block(NamedTuple):
    """A paragraph, a segment or a turn."""

    start_s: float | None
    end_s: float | None
    speaker: str | None
    text: str


def write_text(transcript: Transcript, parts: Sequence[str]) -> str:
    """Write the parts of a transcript: paragraphs, else a line for each segment with times, else for each turn."""
    blocks = [_prefix(block, parts, "[{}] ", "{}: ") + block.text for block in _divide(transcript, parts)]
    separator = "\n\n" if "paragraphs" in parts else "\n"
    return separator.join(blocks) + "\n" if blocks else ""


def write_markdown(transcript: Transcript, parts: Sequence[str], page: TranscriptPage) -> str:
    """Write a document of Markdown: a title, notes, and a paragraph for each block of `write_text`."""
    blocks = [f"# {_escape_markdown(collapse_whitespace(page.title))}"] if collapse_whitespace(page.title) else []
    notes = [*page.notes, *map(describe_suspicion, page.suspicions)]
    if notes:
        blocks.append("\n".join(f"> - {_escape_markdown(note)}" for note in notes))
    for block in _divide(transcript, parts):
        marked = find_overlapping(page.suspicions, block.start_s, block.end_s)
        prefix = f"{MARK} " if marked else ""
        text = _escape_markdown(block.text)
        label = _prefix(block._replace(speaker=_escape_markdown(block.speaker or "")), parts, "\\[{}\\] ", "**{}:** ")
        blocks.append(prefix + label + (text if prefix or label else _escape_block_start(text)))
    return "\n\n".join(blocks) + "\n" if blocks else ""


def _divide(transcript: Transcript, parts: Sequence[str]) -> Iterator[_Block]:
    """Yield the blocks of a transcript. Without speakers, those of several people may be in one block."""
    normalized = normalize_transcript(transcript)
    if "speakers" not in parts:
        normalized = normalized._replace(
            segments=tuple(segment._replace(speaker=None) for segment in normalized.segments)
        )
    if "paragraphs" in parts or ("times" in parts and not normalized.segments):
        for paragraph in build_paragraphs(normalized):
            yield _Block(paragraph.start_s, paragraph.end_s, paragraph.speaker, paragraph.text)
    elif "times" in parts:
        for segment in normalized.segments:
            yield _Block(segment.start_s, segment.end_s, segment.speaker, collapse_whitespace(segment.text))
    elif any(segment.speaker for segment in normalized.segments):
        for speaker, turn in groupby(normalized.segments, key=lambda segment: segment.speaker):
            segments = list(turn)
            text = join_words([collapse_whitespace(segment.text) for segment in segments])
            yield _Block(segments[0].start_s, segments[-1].end_s, speaker, text)
    elif normalized.text:
        yield _Block(None, None, None, normalized.text)


def _prefix(block: _Block, parts: Sequence[str], time_pattern: str, speaker_pattern: str) -> str:
    has_time = "times" in parts and block.start_s is not None
    time = time_pattern.format(format_position(block.start_s)) if has_time and block.start_s is not None else ""
    speaker = speaker_pattern.format(block.speaker) if block.speaker and "speakers" in parts else ""
    return time + speaker


def _escape_markdown(text: str) -> str:
    return _MARKDOWN_SPECIAL.sub(r"\\\g<0>", text)


def _escape_block_start(text: str) -> str:
    """Escape the beginning of each line where it would begin a list, a heading or a rule."""
    return "\n".join(_escape_line_start(line.strip()) for line in text.split("\n"))


def _escape_line_start(line: str) -> str:
    match = _MARKDOWN_BLOCK_START.match(line)
    if match is None:
        return line
    # A number is not escaped, but the dot or bracket after it.
    position = match.end() if match[0].isdigit() else 0
    return f"{line[:position]}\\{line[position:]}"
