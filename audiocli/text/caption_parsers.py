"""Find the cues of SubRip and WebVTT, for the commands that work on captions and for those that speak them.

Both formats are read as players do: times may have a point or a comma and few digits, numbers may be missing, and the
text of a cue ends before the number of the next one, so that it may have empty lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from .caption_file import MAX_TIME_S, CaptionProblem

_CLOCK = r"(?:(\d{1,9}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMING = re.compile(rf"\s*+{_CLOCK}\s*+--?>\s*+{_CLOCK}(?:\s+(.*))?$", re.ASCII)
_MARKED_LINE = re.compile(r"\s*+-?\d", re.ASCII)
_VTT_HEADER = re.compile(r"WEBVTT(?:[ \t]|$)")
_VTT_BLOCKS = ("NOTE", "STYLE", "REGION")
_LINE_END = re.compile(r"\r\n|\r|\n")
_OTHER_LINE_SEPARATOR = re.compile("[\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")


class ParsedCue(NamedTuple):
    """A cue with its text as the file has it.

    Attributes:
        text: Lines separated by line feeds, without empty ones and comments.
        line: The line of the times, from 1, and `timing` its content.
        name: The number of SubRip or the identifier of WebVTT; "" if there is none.
        settings: What follows the times on their line.
    """

    start_s: float
    end_s: float
    text: str
    line: int
    timing: str
    name: str = ""
    settings: str = ""


class ParsedCues(NamedTuple):
    """The cues of a file. `preamble` has the lines before the first cue, and `comments` counts blocks of comments."""

    cues: tuple[ParsedCue, ...]
    preamble: tuple[str, ...]
    comments: int
    problems: tuple[CaptionProblem, ...]


def split_lines(text: str) -> list[str]:
    """Split a file into lines without white space at their end. Other line separators become spaces."""
    text = _OTHER_LINE_SEPARATOR.sub(" ", text.removeprefix("\ufeff"))
    return [line.rstrip("\ufeff \t") for line in _LINE_END.split(text)]


def is_vtt(lines: Sequence[str]) -> bool:
    """Return whether a file begins as WebVTT must."""
    return bool(lines) and _VTT_HEADER.match(lines[0]) is not None


def parse_cues(lines: Sequence[str]) -> ParsedCues:
    """Parse the cues of SubRip or WebVTT. A malformed line of times is a problem, and its cue is not returned."""
    timings: list[tuple[int, re.Match[str]]] = []
    problems: list[CaptionProblem] = []
    for index, line in enumerate(lines):
        if "->" not in line:
            continue
        match = _TIMING.match(line)
        if match is not None and int(match[1] or 0) * 3600 < MAX_TIME_S and int(match[5] or 0) * 3600 < MAX_TIME_S:
            timings.append((index, match))
        elif "-->" in line and _MARKED_LINE.match(line) and (index == 0 or _is_boundary(lines, index)):
            problems.append(CaptionProblem("time", f"malformed times: {_shorten(line)!r}", index + 1, True))
    if not timings:
        return ParsedCues((), tuple(lines), 0, tuple(problems))
    first = timings[0][0]
    name = lines[first - 1] if first and (first == 1 or not lines[first - 2]) else ""
    name = "" if is_vtt([name]) else name
    preamble = tuple(lines[: first - bool(name)])
    cues: list[ParsedCue] = []
    comments = 0
    for position, (index, match) in enumerate(timings):
        has_next = position + 1 < len(timings)
        end = timings[position + 1][0] if has_next else len(lines)
        text, next_name, count = _split_block(lines[index + 1 : end], has_next)
        comments += count
        cues.append(
            ParsedCue(
                _parse_clock(match.groups()[:4]),
                _parse_clock(match.groups()[4:8]),
                "\n".join(text),
                index + 1,
                lines[index],
                name,
                (match[9] or "").strip(),
            )
        )
        name = next_name
    return ParsedCues(tuple(cues), preamble, comments, tuple(problems))


def _is_boundary(lines: Sequence[str], index: int) -> bool:
    """Return whether a cue may begin with this line: after an empty line, or after a number or name that does."""
    return not lines[index - 1] or index == 1 or not lines[index - 2]


def _split_block(lines: Sequence[str], has_next: bool) -> tuple[list[str], str, int]:
    """Return the lines of a cue, the number or name of the next one, and how many comments were left out."""
    end = len(lines)
    name = ""
    if has_next and end and (lines[end - 1].strip().isdecimal() or (end > 1 and lines[end - 1] and not lines[end - 2])):
        end -= 1
        name = lines[end]
    text: list[str] = []
    comments = 0
    is_comment = False
    for index, line in enumerate(lines[:end]):
        if index and not lines[index - 1]:
            is_comment = line.split(" ", 1)[0].split("\t", 1)[0] in _VTT_BLOCKS
            comments += is_comment
        if line and not is_comment:
            text.append(line)
    return text, name, comments


def _parse_clock(groups: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = groups
    ms = int((fraction or "0").ljust(3, "0"))
    return (int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)) + ms / 1000


def _shorten(line: str) -> str:
    stripped = line.strip()
    return stripped if len(stripped) <= 60 else f"{stripped[:59]}…"
