"""The seam between two transcripts of sound that overlaps: what is in both is kept once.

Each of them is at its worst near its own edge, where a word may have been cut. So what they agree on is found first,
and the seam is laid in the middle of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import NamedTuple, TypeAlias

from ..types.values import Segment, Word
from .line_breaking import folded, has_ink, is_unspaced

# The same word in two pieces lies no further apart: recognisers are rarely off by more.
_SAME_WITHIN_S = 1.0
# Nobody says more in a second than so many words, or characters of a script without spaces.
_MOST_PER_S, _SPARE_TOKENS = 12, 4
# What a word that only one of two texts has takes from their agreement.
_ODD_COST = 0.5

_Seam: TypeAlias = tuple[int, int]
"""How many of the left ones are kept, and how many of the right ones are left out."""


@dataclass(frozen=True)
class OverlapRemover:
    """A part of a transcript, with times in the whole; `is_told` if the segments are those of the gateway."""

    start_s: float
    end_s: float
    segments: tuple[Segment, ...]
    words: tuple[Word, ...]
    is_told: bool


def parted(left: OverlapRemover, right: OverlapRemover) -> tuple[OverlapRemover, OverlapRemover]:
    """Take out of two parts that overlap what is in both. Words decide where both have them, else the texts do."""
    begin_s, end_s = right.start_s, left.end_s
    tails, heads = _tokens(left.segments), _tokens(right.segments)
    kept, dropped = len(left.words), 0
    at_s: float | None = None
    seam: _Seam | None
    if left.words and right.words:
        kept, dropped = _seam_of_words(left.words, right.words, begin_s, end_s)
        if kept == len(left.words) and not dropped:
            return left, right
        at_s = left.words[kept - 1].end_s if kept else begin_s
        unsaid = "".join(folded(char) for word in left.words[kept:] for char in word.word)
        said = "".join(folded(char) for word in right.words[:dropped] for char in word.word)
        seam = _seam_of_spelling(tails, heads, unsaid, said) or _seam_of_texts(tails, heads, end_s - begin_s)
        seam = seam or (len(tails) - _count(tails[::-1], len(unsaid)), _count(heads, len(said)))
    else:
        seam = _seam_of_texts(tails, heads, end_s - begin_s)
    if seam is not None:
        first = _first_tokens(left.segments, tails, seam[0], at_s, (begin_s, end_s))
        last = _last_tokens(right.segments, heads, seam[1], first[-1].end_s if first else begin_s)
    elif left.is_told and right.is_told:
        middle_s = (begin_s + end_s) / 2
        first = tuple(s for s in left.segments if s.start_s < begin_s or _middle_s(s) < middle_s)
        last = tuple(s for s in right.segments if s.end_s > end_s or _middle_s(s) >= middle_s)
    else:
        first, last = left.segments, right.segments
    return replace(left, segments=first, words=left.words[:kept]), replace(
        right, segments=last, words=right.words[dropped:]
    )


# --- words with times ------------------------------------------------------------------------------------------------


def _seam_of_words(left: Sequence[Word], right: Sequence[Word], begin_s: float, end_s: float) -> _Seam:
    """Lay the seam at the word nearest to the middle that both have, else at the middle itself."""
    middle_s = (begin_s + end_s) / 2
    tail = [word for word in left if word.start_s >= begin_s]
    head = list(takewhile(lambda word: word.end_s <= end_s, right))

    def likeness(i: int, j: int) -> float:
        apart_s = abs(tail[i].start_s - head[j].start_s)
        return 1 - 0.3 * apart_s if apart_s <= _SAME_WITHIN_S else 0.0

    common = _common([_spelled(w.word) for w in tail], [_spelled(w.word) for w in head], likeness, odd_cost=0.0)
    if common:
        i, j = min(common, key=lambda pair: abs(_middle_s(tail[pair[0]]) - middle_s))
        return len(left) - len(tail) + i + 1, j + 1
    early = [sum(1 for _ in takewhile(lambda word: _middle_s(word) < middle_s, words)) for words in (left, right)]
    return early[0], early[1]


def _middle_s(timed: Word | Segment) -> float:
    return (timed.start_s + timed.end_s) / 2


def _spelled(text: str) -> str:
    return "".join(map(folded, text)) or text.strip()


# --- texts -----------------------------------------------------------------------------------------------------------


class _Token(NamedTuple):
    """A word of a segment with the signs that touch it, or a character of a script without spaces."""

    segment: int
    begin: int
    end: int
    spelling: str


def _tokens(segments: Sequence[Segment]) -> list[_Token]:
    found: list[_Token] = []
    for place, segment in enumerate(segments):
        begin = len(found)
        for at, char in enumerate(segment.text):
            if char.isspace():
                continue
            last = found[-1] if len(found) > begin else None
            spelling = folded(char)
            touches = last is not None and last.end == at
            splits = bool(spelling) and touches and (is_unspaced(char) or is_unspaced(segment.text[at - 1]))
            if last is not None and (not last.spelling or (touches and not splits)):
                found[-1] = last._replace(end=at + 1, spelling=last.spelling + spelling)
            else:
                found.append(_Token(place, at, at + 1, spelling))
    return found


def _seam_of_texts(tails: Sequence[_Token], heads: Sequence[_Token], shared_s: float) -> _Seam | None:
    """Lay the seam in the middle of what the end of one text and the beginning of the other agree on, if they do."""
    most = int(_MOST_PER_S * shared_s) + _SPARE_TOKENS
    skipped = max(len(tails) - most, 0)
    left, right = [token.spelling for token in tails[skipped:]], [token.spelling for token in heads[:most]]
    common = _common(left, right, lambda i, j: 1.0, odd_cost=_ODD_COST)
    if not common:
        return None
    i, j = common[len(common) // 2]
    return skipped + i + 1, j + 1


def _seam_of_spelling(tails: Sequence[_Token], heads: Sequence[_Token], unsaid: str, said: str) -> _Seam | None:
    """Find exactly the tokens that the words left out spell; None where the text spells them in another way."""
    last, first = _count(tails[::-1], len(unsaid)), _count(heads, len(said))
    kept = len(tails) - last
    same = "".join(t.spelling for t in tails[kept:]) == unsaid and "".join(t.spelling for t in heads[:first]) == said
    return (kept, first) if same else None


def _count(tokens: Sequence[_Token], letters: int) -> int:
    """Tell how many tokens have about so many letters."""
    count = passed = 0
    for token in tokens:
        if passed + len(token.spelling) / 2 >= letters:
            break
        passed += len(token.spelling)
        count += 1
    return count


def _first_tokens(
    segments: Sequence[Segment], tokens: Sequence[_Token], count: int, at_s: float | None, window_s: tuple[float, float]
) -> tuple[Segment, ...]:
    """Keep so many tokens. A segment that is cut ends at `at_s`, else where its text lets guess, within the window."""
    if count >= len(tokens):
        return tuple(segments)
    if not count:
        return ()
    last = tokens[count - 1]
    segment = segments[last.segment]
    if tokens[count].segment != last.segment:
        return tuple(segments[: last.segment + 1])
    if at_s is None:
        share = last.end / len(segment.text)
        guess_s = segment.start_s + (segment.end_s - segment.start_s) * share
        at_s = min(max(guess_s, window_s[0]), window_s[1])
    end_s = min(max(at_s, segment.start_s), segment.end_s)
    return (*segments[: last.segment], segment._replace(text=segment.text[: last.end], end_s=end_s))


def _last_tokens(segments: Sequence[Segment], tokens: Sequence[_Token], count: int, at_s: float) -> tuple[Segment, ...]:
    """Leave so many tokens out. A segment that is cut begins at `at_s`."""
    if count >= len(tokens):
        return ()
    first = tokens[count]
    segment = segments[first.segment]
    if not first.begin or not has_ink(segment.text[: first.begin]):
        return tuple(segments[first.segment :])
    start_s = min(max(at_s, segment.start_s), segment.end_s)
    return (segment._replace(text=segment.text[first.begin :], start_s=start_s), *segments[first.segment + 1 :])


# --- what two lists have in common -----------------------------------------------------------------------------------


def _common(
    left: Sequence[str], right: Sequence[str], likeness: Callable[[int, int], float], *, odd_cost: float
) -> list[tuple[int, int]]:
    """Pair what the end of one list shares with the beginning of another; [] if that is not worth what is odd.

    The best alignment of any tail with any head. What stands between the pairs, after the last one on the left and
    before the first one on the right costs.
    """
    columns = len(right) + 1
    worth = [[-odd_cost * j for j in range(columns)]]
    for i, here in enumerate(left):
        row, above = [0.0], worth[-1]
        for j, there in enumerate(right):
            like = likeness(i, j) if here and here == there else 0.0
            paired = above[j] + like if like else 0.0
            row.append(max(paired, above[j + 1] - odd_cost, row[j] - odd_cost))
        worth.append(row)
    i, j = len(left), max(range(columns), key=worth[-1].__getitem__)
    if worth[i][j] <= (_ODD_COST if odd_cost else 0.0):
        return []
    pairs: list[tuple[int, int]] = []
    while i and j:
        like = likeness(i - 1, j - 1) if left[i - 1] and left[i - 1] == right[j - 1] else 0.0
        if like and worth[i][j] == worth[i - 1][j - 1] + like:
            pairs.append((i - 1, j - 1))
            i, j = i - 1, j - 1
        elif worth[i][j] == worth[i - 1][j] - odd_cost:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
