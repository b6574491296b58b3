"""The content of a caption file, independent of its format: cues of plain text with times, speakers and styles.

What only the format of the file can express stays in `NativeCue` and in `CaptionFile.header`, so that a file that is
written in its own format loses nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from .cues import Cue

MAX_TIME_S = 1e9  # 32 years; up to here a float holds milliseconds exactly
DEFAULT_FPS = 25.0

# Styles that the model has. `color` has a value, `#rrggbb`.
STYLE_NAMES = ("b", "i", "u", "s", "color")

_LINE_SEPARATOR = re.compile("\r\n|[\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")
# C0 and C1 controls except tab and line feed, lone surrogates, and what is not a character in XML.
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")


class StyleSpan(NamedTuple):
    """A style of `text[start:end]`: a name of `STYLE_NAMES`, and the value of a color."""

    start: int
    end: int
    name: str
    value: str = ""


class NativeCue(NamedTuple):
    """A cue as its file has it.

    Attributes:
        format: The format of the file.
        text: The text with its tags. Lines are separated as in the file: by line feeds, `\\N` or `|`.
        name: The number of SubRip, the identifier of WebVTT.
        settings: The settings of WebVTT, the fields of ASS between the times and the text.
    """

    format: str
    text: str
    name: str = ""
    settings: str = ""


class CaptionCue(NamedTuple):
    """One caption.

    Attributes:
        start_s: Start in seconds, and `end_s` the end. A file may have cues that end before they begin.
        text: The visible text. Lines are separated by line feeds; none is empty.
        styles: The styles of the text, in order of their start.
        line: The line of the file that has the times, from 1; 0 if the cue is not from a file.
    """

    start_s: float
    end_s: float
    text: str
    speaker: str | None = None
    styles: tuple[StyleSpan, ...] = ()
    line: int = 0
    native: NativeCue | None = None


class CaptionProblem(NamedTuple):
    """A line that does not follow the format. `is_malformed` means that its text would be lost."""

    check: str
    message: str
    line: int
    is_malformed: bool = False


class CaptionFile(NamedTuple):
    """A parsed file.

    Attributes:
        cues: In the order of the file.
        header: What precedes the cues, in the format of the file: styles, regions, metadata.
        language: A code such as `de`, or None.
        fps: Frames per second, of MicroDVD only.
        features: What the file has and `CaptionCue` has not, in words for a message, such as `positions`.
        problems: Lines that do not follow the format.
    """

    format: str
    cues: tuple[CaptionCue, ...]
    header: str = ""
    language: str | None = None
    fps: float | None = None
    features: frozenset[str] = frozenset()
    problems: tuple[CaptionProblem, ...] = ()


def build_caption_cues(cues: Iterable[Cue]) -> tuple[CaptionCue, ...]:
    """Return the cues of a transcript as cues of a file."""
    return tuple(CaptionCue(cue.start_s, cue.end_s, "\n".join(cue.lines), cue.speaker) for cue in cues)


def clean_text(text: str) -> str:
    """Return a text with line feeds as its only line ends, and without control characters."""
    return CONTROL_CHARACTERS.sub("", _LINE_SEPARATOR.sub("\n", text))


def strip_lines(text: str, styles: Iterable[StyleSpan] = ()) -> tuple[str, tuple[StyleSpan, ...]]:
    """Strip the lines of a text and remove empty ones. The spans move with their text; empty ones are removed."""
    spans = tuple(span for span in styles if span.start < span.end)
    stripped = "\n".join(line for part in text.split("\n") if (line := part.strip()))
    if not spans or stripped == text:
        return stripped, spans
    offsets: list[int] = []
    offset = 0
    for part in text.split("\n"):
        if line := part.strip():
            start = offset + len(part) - len(part.lstrip())
            if offsets:
                offsets.append(start - 1)  # the line feed before this line
            offsets.extend(range(start, start + len(line)))
        offset += len(part) + 1
    moved = (
        span._replace(start=bisect_left(offsets, span.start), end=bisect_left(offsets, span.end)) for span in spans
    )
    return stripped, tuple(span for span in moved if span.start < span.end)
