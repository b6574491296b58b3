"""Break text into lines and cues, using grapheme clusters and display width.

A cell is a column of a terminal: East Asian wide characters and emoji take two, combining marks none. Grapheme clusters
are approximated with the tables of the standard library: combining marks, variation selectors, joiners and other format
characters, emoji modifiers, ZWJ sequences, flags and conjoining Hangul. Indic conjuncts and prepended marks of UAX #29
are not supported. Control characters count as white space. Non-breaking spaces do not end a token.
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

MIN_PAUSE_S = 0.6  # a pause of this length ends a cue

_MAX_UNSPLIT_CELLS = 24  # shorter texts with estimated times are not split, however long they last
_MAX_SPACED_TOKEN_CELLS = 24  # longer tokens of unspaced scripts are broken although they have spaces around them
_MAX_ATOMS_PER_CUE = 400  # bounds the search for limits far larger than any screen

_NO_BREAK_SPACES = "\u00a0\u2007\u202f"
_VISIBLE = re.compile(rf"(?:[^\s\x00-\x1f\x7f-\x9f]|[{_NO_BREAK_SPACES}])+")
_SENTENCE_END = re.compile(r"""[.!?…。！？｡؟।۔]["'”’»›)\]」』）]*$""")
_CLAUSE_END = re.compile(r"""[.!?…,;:—–、，；：､،؛]["'”’»›)\]」』）]*$""")
_ABBREVIATION = re.compile(r"(?:^|\W)(?:[A-Z]|Mrs?|Ms|Mme|Drs?|Prof|St|Jr|Sr|vs|No|e\.g|i\.e|z\.B|bzw|p\.ej)\.$")
# Scripts written without spaces, as pairs of first and last code points: Thai and Lao, Burmese, Khmer, CJK with kana
# and bopomofo, ideographs, full and half width forms, more ideographs. Hangul has spaces.
_UNSPACED_RANGES = (
    *(0x0E00, 0x0EFF, 0x1000, 0x109F, 0x1780, 0x17FF, 0x2E80, 0x312F, 0x31A0, 0x31FF, 0x3400, 0x4DBF, 0x4E00, 0x9FFF),
    *(0xF900, 0xFAFF, 0xFF00, 0xFF9F, 0x20000, 0x3FFFF),
)
_NEVER_AT_LINE_START = frozenset(
    ",.!?:;%、。，．：；！？％…‥ー～〜・々ゝゞヽヾぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶะาๅๆฯ" + _NO_BREAK_SPACES
)
_NEVER_AT_LINE_END = frozenset("$£€¥￥#＃เแโใไ" + _NO_BREAK_SPACES)

# Costs of ending a cue or a line at a break. A break after a sentence costs nothing.
_CLAUSE_COST, _PHRASE_COST, _SHORT_WORD_COST, _SPLIT_WORD_COST = 0.5, 2.0, 2.7, 5.0
_CUE_COST = 0.5


@dataclass(frozen=True)
class CaptionLimits:
    """The maximum size of a cue, and the target reading speed.

    `max_line_width` is in cells. `cps` is the target reading speed, in cells per second. `words_per_cue` is the maximum
    number of words; None means any number.

    Raises:
        UsageError: No text fits the limits.
    """

    max_line_width: int = 42
    max_lines: int = 2
    max_cue_s: float = 7.0
    cps: float = 17.0
    words_per_cue: int | None = None

    def __post_init__(self) -> None:
        if not (self.max_line_width >= 1 and self.max_lines >= 1 and 0.001 <= self.max_cue_s < math.inf):
            raise UsageError("captions need at least 1 character per line, 1 line and 0.001 seconds per cue")
        if not 0 < self.cps < math.inf:
            raise UsageError("the reading speed of captions must be greater than zero")
        if self.words_per_cue is not None and self.words_per_cue < 1:
            raise UsageError("captions need at least 1 word per cue")


@dataclass(slots=True)
class Atom:
    """An unbreakable part of a text: `text[start:end]` without surrounding white space.

    `is_word_continuation` is true if the atom starts inside a word that is wider than a line. `end_cost` is the cost of
    ending a cue after the atom. The caller fills in the times.
    """

    text: str
    start: int
    end: int
    cells: int
    has_space_before: bool
    is_word_continuation: bool = False
    start_s: float = 0.0
    end_s: float = 0.0
    end_cost: float = 0.0


# --- characters ------------------------------------------------------------------------------------------------------


def split_graphemes(text: str) -> list[str]:
    """Split a text into grapheme clusters. Their concatenation is the text."""
    if text.isascii():
        return list(text)
    clusters: list[list[str]] = []
    for char in text:
        if clusters and _is_extension(clusters[-1], char):
            clusters[-1].append(char)
        else:
            clusters.append([char])
    return ["".join(cluster) for cluster in clusters]


def _is_extension(cluster: Sequence[str], char: str) -> bool:
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


def measure_width(text: str) -> int:
    """Return the width of a line in cells."""
    return len(text) if text.isascii() else sum(_measure_cluster(cluster) for cluster in split_graphemes(text))


def _measure_cluster(cluster: str) -> int:
    if cluster.isascii():
        return len(cluster)
    if "\ufe0f" in cluster or (len(cluster) > 1 and _is_flag_half(cluster[1])):
        return 2
    if any(unicodedata.east_asian_width(char) in "WF" for char in cluster):
        return 2
    return 0 if all(unicodedata.category(char) in ("Mn", "Me", "Cf") for char in cluster) else 1


# --- atoms -----------------------------------------------------------------------------------------------------------


def has_visible_text(text: str) -> bool:
    """Return whether a text contains a visible character."""
    return any(match.group().strip() for match in _VISIBLE.finditer(text))


@lru_cache(maxsize=4096)
def fold_character(char: str) -> str:
    """Fold a character to the letters, digits and symbols by which words are compared.

    Symbols are kept because a word may be an emoji. Punctuation and marks become the empty string.
    """
    parts = (part for part in unicodedata.normalize("NFKD", char).casefold() if unicodedata.category(part)[0] in "LNS")
    return "".join(parts)


def collapse_whitespace(text: str) -> str:
    """Replace each run of white space, line ends and control characters with one space."""
    return " ".join(_VISIBLE.findall(text)).strip()


def is_unspaced(char: str) -> bool:
    """Return whether a character belongs to a script that is written without spaces between words."""
    return char >= "\u0e00" and (bisect_right(_UNSPACED_RANGES, ord(char)) % 2 == 1 or ord(char) in _UNSPACED_RANGES)


def join_words(words: Sequence[str]) -> str:
    """Join words or texts.

    If they have leading spaces, concatenate them. Otherwise insert the spaces that their script requires.
    """
    if any(word[:1].isspace() for word in words[1:]):
        return "".join(words).strip()
    text = ""
    for word in filter(None, map(str.strip, words)):
        needs_no_space = not text or (is_unspaced(text[-1]) and is_unspaced(word[0])) or set(word) <= set(",.!?:;…)]}%")
        text += word if needs_no_space else f" {word}"
    return text


def split_atoms(
    text: str, limits: CaptionLimits, indent: int = 0, word_spans: Sequence[tuple[int, int]] = ()
) -> list[Atom]:
    """Split a text at every position where a line may end.

    These are white space, positions between characters of unspaced scripts, and the line width in longer words.
    `indent` is the number of cells that are already used on the first line. No atom is wider than a line, except a
    single grapheme.

    `word_spans` are the known words of the text as (start, end), in order. In unspaced scripts a line may not end
    inside them. If a writer has put spaces into an unspaced script, they are preferred: a short token is not broken.
    """
    atoms: list[Atom] = []
    unbreakable = _find_unbreakable(text, limits, word_spans)
    for match in _VISIBLE.finditer(text):
        start, has_space, is_continuation = match.start(), True, False
        parts = _split_token(match.group(), limits.max_line_width, 0 if atoms else indent, start, unbreakable)
        for part, next_is_continuation in parts:
            visible = part.strip()
            if visible:
                has_space = has_space or part[0].isspace()
                atoms.append(
                    Atom(visible, start, start + len(part), measure_width(visible), has_space, is_continuation)
                )
                has_space = False
            has_space = has_space or part[-1].isspace()
            start, is_continuation = start + len(part), next_is_continuation
    return atoms


def _find_unbreakable(text: str, limits: CaptionLimits, word_spans: Sequence[tuple[int, int]]) -> frozenset[int]:
    """Return the indices inside known words, and inside short tokens with a space that their script does not need."""
    if text.isascii():
        return frozenset()
    spans = [span for span in word_spans if measure_width(text[slice(*span)]) <= limits.max_line_width]
    tokens = [match.span() for match in _VISIBLE.finditer(text)]
    for (start, end), (next_start, next_end) in pairwise(tokens):
        left, right = text[end - 1], text[next_start]
        if is_unspaced(left) and is_unspaced(right) and unicodedata.category(left)[0] != "P":
            max_cells = min(_MAX_SPACED_TOKEN_CELLS, limits.max_line_width)
            neighbors = ((start, end), (next_start, next_end))
            spans += [span for span in neighbors if measure_width(text[slice(*span)]) <= max_cells]
    return frozenset(index for start, end in spans for index in range(start + 1, end))


def _split_token(
    token: str, max_cells: int, indent: int, start: int, unbreakable: frozenset[int]
) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a token between possible breaks, and whether the width forced the break after each part.

    `start` is the index of the token in the text to which the indices of `unbreakable` refer.
    """
    if token.isascii() and len(token) <= max_cells - indent:
        yield token, False
        return
    part, used_cells, previous = "", 0, ""
    for cluster in split_graphemes(token):
        cluster_cells = _measure_cluster(cluster)
        if part and start not in unbreakable and can_break_between(previous, cluster):
            yield part, False
            part, used_cells, indent = "", 0, 0
        elif part and used_cells + cluster_cells > max_cells - indent:
            yield part, True
            part, used_cells, indent = "", 0, 0
        part, used_cells, previous = part + cluster, used_cells + cluster_cells, cluster
        start += len(cluster)
    yield part, False


def can_break_between(left: str, right: str) -> bool:
    """Return whether a line may end between two adjacent clusters without a space between them."""
    if right[0] in _NEVER_AT_LINE_START or left[0] in _NEVER_AT_LINE_END:
        return False
    if left[0] in "—" and right[0].isalnum():
        return True
    if right[0].isdecimal() and (left[0].isdecimal() or left[0] == "．"):
        return False  # full-width digits
    if not (is_unspaced(left[0]) or is_unspaced(right[0])):
        return False
    return unicodedata.category(right[0]) not in ("Pe", "Pf") and unicodedata.category(left[0]) not in ("Ps", "Pi")


def ends_sentence(text: str) -> bool:
    """Return whether a word ends a sentence, as far as its punctuation tells. Abbreviations do not."""
    return _SENTENCE_END.search(text) is not None and _ABBREVIATION.search(text) is None


def score_breaks(atoms: list[Atom]) -> list[Atom]:
    """Set the end cost of every atom and return the atoms. Set their times first, because pauses lower the cost."""
    for atom, following in pairwise(atoms):
        if following.start_s - atom.end_s >= MIN_PAUSE_S:
            atom.end_cost = 0.0
        elif following.is_word_continuation:
            atom.end_cost = _SPLIT_WORD_COST
        elif _ABBREVIATION.search(atom.text):
            atom.end_cost = _SHORT_WORD_COST
        elif _SENTENCE_END.search(atom.text) and not following.text[0].islower():
            atom.end_cost = 0.0
        elif _CLAUSE_END.search(atom.text):
            atom.end_cost = _CLAUSE_COST
        else:  # short words are mostly articles and prepositions, which belong to the next word
            is_short_word = (
                following.has_space_before
                and len(atom.text) <= 3
                and atom.text.isalpha()
                and not is_unspaced(atom.text[0])
            )
            atom.end_cost = _SHORT_WORD_COST if is_short_word else _PHRASE_COST
    return atoms


# --- lines and groups ------------------------------------------------------------------------------------------------


def count_lines(atoms: Sequence[Atom], limits: CaptionLimits, indent: int = 0) -> int:
    """Return the minimum number of lines for a text."""
    lines, used_cells = 1, indent
    for index, atom in enumerate(atoms):
        atom_cells = atom.cells + (atom.has_space_before and index > 0)
        if index > 0 and used_cells + atom_cells > limits.max_line_width:
            lines, used_cells = lines + 1, atom.cells
        else:
            used_cells += atom_cells
    return lines


def count_words(atoms: Sequence[Atom]) -> int:
    """Return the number of words. A word that is wider than a line has several atoms and counts once."""
    return sum(not (index and atom.is_word_continuation) for index, atom in enumerate(atoms))


def break_lines(atoms: Sequence[Atom], limits: CaptionLimits, indent: int = 0) -> tuple[str, ...]:
    """Arrange atoms on the minimum number of lines, balanced in width and broken at low cost."""
    costs, line_starts = [0.0] + [math.inf] * len(atoms), []
    for _ in range(count_lines(atoms, limits, indent)):
        next_costs, starts = [math.inf] * len(costs), [0] * len(costs)
        for first, cost in enumerate(costs[:-1]):
            if cost == math.inf:
                continue
            used_cells = 0 if first else indent
            for last in range(first, len(atoms)):
                used_cells += atoms[last].cells + (atoms[last].has_space_before and last > first)
                if used_cells > limits.max_line_width and last > first:
                    break
                slack = (limits.max_line_width - used_cells) / limits.max_line_width
                total = cost + slack * slack + 0.1 * atoms[last].end_cost * (last + 1 < len(atoms))
                if total < next_costs[last + 1]:
                    next_costs[last + 1], starts[last + 1] = total, first
        costs = next_costs
        line_starts.append(starts)
    lines: list[str] = []
    end = len(atoms)
    for starts in reversed(line_starts):
        first = starts[end]
        lines.append(
            "".join(f" {a.text}" if a.has_space_before and i else a.text for i, a in enumerate(atoms[first:end]))
        )
        end = first
    return tuple(reversed(lines))


def group_into_cues(
    atoms: Sequence[Atom], limits: CaptionLimits, indent: int = 0, *, has_estimated_times: bool = False
) -> list[Sequence[Atom]]:
    """Group timed and scored atoms into cues within the limits, with the lowest total cost.

    With `has_estimated_times` the times are proportional shares of a longer span. A short text is then not split
    because of its duration.
    """
    max_cells = limits.max_line_width * limits.max_lines
    best_costs, starts = [0.0] + [math.inf] * len(atoms), [0] * (len(atoms) + 1)
    for first in range(len(atoms)):
        lines, line_cells, cells, words, passed_break_cost = 1, 0 if first else indent, 0, 0, 0.0
        for last in range(first, min(len(atoms), first + _MAX_ATOMS_PER_CUE)):
            atom = atoms[last]
            atom_cells = atom.cells + (atom.has_space_before and last > first)
            if last > first and line_cells + atom_cells > limits.max_line_width:
                lines, line_cells = lines + 1, 0
                atom_cells = atom.cells
            line_cells += atom_cells
            cells += atom_cells
            words += last == first or not atom.is_word_continuation
            duration_s = atom.end_s - atoms[first].start_s
            if lines > limits.max_lines or (limits.words_per_cue is not None and words > limits.words_per_cue):
                break
            if (
                last > first
                and duration_s > limits.max_cue_s
                and not (has_estimated_times and cells <= _MAX_UNSPLIT_CELLS)
            ):
                break
            display_s = (atoms[last + 1].start_s if last + 1 < len(atoms) else atom.end_s) - atoms[first].start_s
            reading_s = cells / limits.cps
            slack = max(0.0, (max_cells - cells) / max_cells)
            cost = (
                best_costs[first]
                + _CUE_COST
                + passed_break_cost
                + atom.end_cost * (last + 1 < len(atoms))
                + slack * slack
            )
            cost += max(0.0, 1 - display_s) + (0.5 * max(0.0, 1 - display_s / reading_s) if reading_s else 0.0)
            if cost < best_costs[last + 1]:
                best_costs[last + 1], starts[last + 1] = cost, first
            if last + 1 < len(atoms):  # the cost of not ending the cue here
                passed_break_cost += 2.0 * (atoms[last + 1].start_s - atom.end_s >= MIN_PAUSE_S) + 0.3 * (
                    atom.end_cost == 0.0
                )
    groups: list[Sequence[Atom]] = []
    end = len(atoms)
    while end:
        groups.append(atoms[starts[end] : end])
        end = starts[end]
    return groups[::-1]
