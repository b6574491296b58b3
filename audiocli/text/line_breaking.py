"""Lay text out in lines: what is one character to the eye, how wide it is, where a line or a caption may end.

A cell is a column of a terminal: East Asian wide characters and emoji take two, combining marks none. Grapheme clusters
are an approximation with the standard library's tables: combining marks, variation selectors, joiners and other format
characters, emoji modifiers, ZWJ sequences, flags and conjoining Hangul. Indic conjuncts and prepended marks of UAX #29
are not known. Control characters count as white space; non-breaking spaces hold a token together.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from ..errors import UsageError

PAUSE_S = 0.6  # a silence that ends a cue

_SHORT_CELLS = 24  # texts this short are not cut only because nobody knows when in a long time they were said
_MOST_ATOMS = 400  # bounds the search for shapes far larger than any screen

_GLUE = "\u00a0\u2007\u202f"
_INK = re.compile(rf"(?:[^\s\x00-\x1f\x7f-\x9f]|[{_GLUE}])+")
_SENTENCE = re.compile(r"""[.!?…。！？｡؟।۔]["'”’»›)\]」』）]*$""")
_CLAUSE = re.compile(r"""[.!?…,;:—–、，；：､،؛]["'”’»›)\]」』）]*$""")
_ABBREVIATION = re.compile(r"(?:^|\W)(?:[A-Z]|Mrs?|Ms|Mme|Drs?|Prof|St|Jr|Sr|vs|No|e\.g|i\.e|z\.B|bzw|p\.ej)\.$")
# Scripts written without spaces, as first and last code points: Thai and Lao, Burmese, Khmer, CJK with kana and
# bopomofo, ideographs, full and half width forms, more ideographs. Hangul has spaces.
_UNSPACED = (
    *(0x0E00, 0x0EFF, 0x1000, 0x109F, 0x1780, 0x17FF, 0x2E80, 0x312F, 0x31A0, 0x31FF, 0x3400, 0x4DBF, 0x4E00, 0x9FFF),
    *(0xF900, 0xFAFF, 0xFF00, 0xFF9F, 0x20000, 0x3FFFF),
)
_NEVER_FIRST = frozenset(
    ",.!?:;%、。，．：；！？％…‥ー～〜・々ゝゞヽヾぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶะาๅๆฯ" + _GLUE
)
_NEVER_LAST = frozenset("$£€¥￥#＃เแโใไ" + _GLUE)

# What it costs to end a cue or a line there: after a sentence nothing.
_CLAUSE_COST, _PHRASE_COST, _SHORT_WORD_COST, _TORN_COST = 0.5, 2.0, 2.7, 5.0
_CUE_COST = 0.5


@dataclass(frozen=True)
class CaptionLimits:
    """How large a cue may be: cells per line, lines, seconds; `cps` is the aimed-at reading speed in cells per second.

    Raises: UsageError: a limit that leaves no room for any text.
    """

    max_line_width: int = 42
    max_lines: int = 2
    max_cue_s: float = 7.0
    cps: float = 17.0

    def __post_init__(self) -> None:
        if not (self.max_line_width >= 1 and self.max_lines >= 1 and 0.001 <= self.max_cue_s < math.inf):
            raise UsageError("captions need at least one character per line, one line and 0.001 seconds per cue")
        if not 0 < self.cps < math.inf:
            raise UsageError("the reading speed of captions must be more than zero")


@dataclass(slots=True)
class Atom:
    """A bit of text that no line break divides, with its place in the text.

    `spaced`: there is white space before it. `torn`: it begins inside a word that is longer than a line.
    `end_cost` is the price of ending a cue after it; times are for the caller to fill in.
    """

    text: str
    begin: int
    end: int
    cells: int
    spaced: bool
    torn: bool = False
    start_s: float = 0.0
    end_s: float = 0.0
    end_cost: float = 0.0


# --- characters ------------------------------------------------------------------------------------------------------


def graphemes(text: str) -> list[str]:
    """Divide a text into what the eye takes for characters; together they are the text."""
    if text.isascii():
        return list(text)
    clusters: list[list[str]] = []
    for char in text:
        if clusters and _continues(clusters[-1], char):
            clusters[-1].append(char)
        else:
            clusters.append([char])
    return ["".join(cluster) for cluster in clusters]


def _continues(cluster: Sequence[str], char: str) -> bool:
    if char.isascii():
        return False
    return (
        unicodedata.category(char) in ("Mn", "Me", "Mc", "Cf")
        or "\U0001f3fb" <= char <= "\U0001f3ff"  # emoji modifiers
        or "\u1160" <= char <= "\u11ff"  # Hangul vowels and finals
        or char in "\u0e33\u0eb3"  # Thai and Lao AM
        or (cluster[-1] == "\u200d" and unicodedata.category(char) == "So")
        or (len(cluster) == 1 and _is_flag_half(char) and _is_flag_half(cluster[0]))
    )


def _is_flag_half(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def width(text: str) -> int:
    """Count the cells that a line takes."""
    return len(text) if text.isascii() else sum(_cells(cluster) for cluster in graphemes(text))


def _cells(cluster: str) -> int:
    if cluster.isascii():
        return len(cluster)
    if "\ufe0f" in cluster or (len(cluster) > 1 and _is_flag_half(cluster[1])):
        return 2
    if any(unicodedata.east_asian_width(char) in "WF" for char in cluster):
        return 2
    return 0 if all(unicodedata.category(char) in ("Mn", "Me", "Cf") for char in cluster) else 1


# --- atoms -----------------------------------------------------------------------------------------------------------


def has_ink(text: str) -> bool:
    """Tell whether there is anything to see."""
    return any(match.group().strip() for match in _INK.finditer(text))


@lru_cache(maxsize=4096)
def folded(char: str) -> str:
    """Reduce a character to what two spellings of a word share; symbols stay, for a word may be an emoji."""
    kept = (c for c in unicodedata.normalize("NFKD", char).casefold() if unicodedata.category(c)[0] in "LNS")
    return "".join(kept)


def one_line(text: str) -> str:
    """Put single spaces for white space, line ends and control characters."""
    return " ".join(_INK.findall(text)).strip()


def is_unspaced(char: str) -> bool:
    """Tell whether a character is of a script that is written without spaces between words."""
    return char >= "\u0e00" and (bisect_right(_UNSPACED, ord(char)) % 2 == 1 or ord(char) in _UNSPACED)


def joined(parts: Sequence[str]) -> str:
    """Write words as one text: as they are if they bring their own spaces, else with spaces as their script wants."""
    if any(part[:1].isspace() for part in parts[1:]):
        return "".join(parts).strip()
    text = ""
    for part in filter(None, map(str.strip, parts)):
        close = not text or (is_unspaced(text[-1]) and is_unspaced(part[0])) or set(part) <= set(",.!?:;…)]}%")
        text += part if close else f" {part}"
    return text


def atoms(text: str, shape: CaptionLimits, indent: int = 0) -> list[Atom]:
    """Cut a text where a line may end: at white space, between characters of scripts without it, else at the width.

    `indent` cells of the first line are taken. No atom is wider than a line, unless it is a single grapheme.
    """
    found: list[Atom] = []
    for match in _INK.finditer(text):
        begin, spaced, torn = match.start(), True, False
        for bit, next_torn in _bits(match.group(), shape.max_line_width, 0 if found else indent):
            inked = bit.strip()
            if inked:
                spaced = spaced or bit[0].isspace()
                found.append(Atom(inked, begin, begin + len(bit), width(inked), spaced, torn))
                spaced = False
            spaced = spaced or bit[-1].isspace()
            begin, torn = begin + len(bit), next_torn
    return found


def _bits(token: str, room: int, indent: int) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a token between possible breaks; True with those that had to be cut for their width."""
    if token.isascii() and len(token) <= room - indent:
        yield token, False
        return
    bit, cells, last = "", 0, ""
    for cluster in graphemes(token):
        more = _cells(cluster)
        if bit and may_part(last, cluster):
            yield bit, False
            bit, cells, indent = "", 0, 0
        elif bit and cells + more > room - indent:
            yield bit, True
            bit, cells, indent = "", 0, 0
        bit, cells, last = bit + cluster, cells + more, cluster
    yield bit, False


def may_part(left: str, right: str) -> bool:
    """Tell whether a line may end between two neighbouring clusters that no space divides."""
    if right[0] in _NEVER_FIRST or left[0] in _NEVER_LAST:
        return False
    if left[0] in "—" and right[0].isalnum():
        return True
    if not (is_unspaced(left[0]) or is_unspaced(right[0])):
        return False
    return unicodedata.category(right[0]) not in ("Pe", "Pf") and unicodedata.category(left[0]) not in ("Ps", "Pi")


def priced(row: list[Atom]) -> list[Atom]:
    """Fill in what it costs to end after each atom; its times must be there already."""
    for atom, following in pairwise(row):
        if following.start_s - atom.end_s >= PAUSE_S:
            atom.end_cost = 0.0
        elif following.torn:
            atom.end_cost = _TORN_COST
        elif _ABBREVIATION.search(atom.text):
            atom.end_cost = _SHORT_WORD_COST
        elif _SENTENCE.search(atom.text) and not following.text[0].islower():
            atom.end_cost = 0.0
        elif _CLAUSE.search(atom.text):
            atom.end_cost = _CLAUSE_COST
        else:  # articles and prepositions are short in most languages that have them, and belong to what follows
            little = following.spaced and len(atom.text) <= 3 and atom.text.isalpha() and not is_unspaced(atom.text[0])
            atom.end_cost = _SHORT_WORD_COST if little else _PHRASE_COST
    return row


# --- lines and groups ------------------------------------------------------------------------------------------------


def line_count(row: Sequence[Atom], shape: CaptionLimits, indent: int = 0) -> int:
    """Count the lines that a text needs at least."""
    lines, used = 1, indent
    for place, atom in enumerate(row):
        step = atom.cells + (atom.spaced and place > 0)
        if place > 0 and used + step > shape.max_line_width:
            lines, used = lines + 1, atom.cells
        else:
            used += step
    return lines


def wrapped(row: Sequence[Atom], shape: CaptionLimits, indent: int = 0) -> tuple[str, ...]:
    """Lay atoms out on as few lines as they need, of about the same width, ending at good places."""
    costs, trails = [0.0] + [math.inf] * len(row), []
    for _ in range(line_count(row, shape, indent)):
        fresh, trail = [math.inf] * len(costs), [0] * len(costs)
        for first, cost in enumerate(costs[:-1]):
            if cost == math.inf:
                continue
            used = 0 if first else indent
            for last in range(first, len(row)):
                used += row[last].cells + (row[last].spaced and last > first)
                if used > shape.max_line_width and last > first:
                    break
                slack = (shape.max_line_width - used) / shape.max_line_width
                total = cost + slack * slack + 0.1 * row[last].end_cost * (last + 1 < len(row))
                if total < fresh[last + 1]:
                    fresh[last + 1], trail[last + 1] = total, first
        costs = fresh
        trails.append(trail)
    lines: list[str] = []
    after = len(row)
    for trail in reversed(trails):
        first = trail[after]
        lines.append("".join(f" {a.text}" if a.spaced and i else a.text for i, a in enumerate(row[first:after])))
        after = first
    return tuple(reversed(lines))


def grouped(row: Sequence[Atom], shape: CaptionLimits, indent: int = 0, *, vague: bool = False) -> list[Sequence[Atom]]:
    """Divide timed and priced atoms into cues that fit the shape, ending where a reader expects it.

    `vague` says that the times are shares of a long time, not heard: few words are then not cut for their length.
    """
    room = shape.max_line_width * shape.max_lines
    costs, trail = [0.0] + [math.inf] * len(row), [0] * (len(row) + 1)
    for first in range(len(row)):
        lines, used, cells, inside = 1, 0 if first else indent, 0, 0.0
        for last in range(first, min(len(row), first + _MOST_ATOMS)):
            atom = row[last]
            step = atom.cells + (atom.spaced and last > first)
            if last > first and used + step > shape.max_line_width:
                lines, used = lines + 1, 0
                step = atom.cells
            used += step
            cells += step
            lasts_s = atom.end_s - row[first].start_s
            if lines > shape.max_lines:
                break
            if last > first and lasts_s > shape.max_cue_s and not (vague and cells <= _SHORT_CELLS):
                break
            on_screen_s = (row[last + 1].start_s if last + 1 < len(row) else atom.end_s) - row[first].start_s
            wanted_s = cells / shape.cps
            slack = max(0.0, (room - cells) / room)
            cost = costs[first] + _CUE_COST + inside + atom.end_cost * (last + 1 < len(row)) + slack * slack
            cost += max(0.0, 1 - on_screen_s) + (0.5 * max(0.0, 1 - on_screen_s / wanted_s) if wanted_s else 0.0)
            if cost < costs[last + 1]:
                costs[last + 1], trail[last + 1] = cost, first
            if last + 1 < len(row):  # what is left unsaid when the cue goes on here
                inside += 2.0 * (row[last + 1].start_s - atom.end_s >= PAUSE_S) + 0.3 * (atom.end_cost == 0.0)
    groups: list[Sequence[Atom]] = []
    after = len(row)
    while after:
        groups.append(row[trail[after] : after])
        after = trail[after]
    return groups[::-1]
