"""Where to cut a long recording.

Places are counted in samples at `RATE_HZ`, the rate at which recordings are listened to and cut: integers, so that the
times of a piece are moved into the recording without any error.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

RATE_HZ = 16_000

# Silence as long as this is not sent where a piece begins or ends: models invent text for it, and it costs money.
LEFT_OUT_FROM_S = 2.0
# So much of it stays beside the sound: recognisers miss words that begin at once.
MARGIN_S = 0.3
# A cut that nobody hears is worth a piece that is so much shorter than it may be, or shorter by this share of it.
_SEARCH_S, _SEARCH_SHARE = 10.0, 4
_SHORTEST_LIMIT_S = 1.0

# What an encoder of ours makes of a second of mono sound at `RATE_HZ`, at most (white noise, square waves and clicks
# measured), and of a piece without any. Opus varies: 4,000 bytes are usual.
_MOST_BYTES_PER_S = {
    "opus": 8_000,
    "ogg": 8_000,
    "mp3": 6_100,
    "aac": 6_200,
    "m4a": 6_200,
    "flac": 32_300,
    "wav": 32_000,
}
_HEADER_BYTES = 4_096

_Stretch: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Span:
    """A stretch of a recording, half-open."""

    start_s: float
    end_s: float


@dataclass(frozen=True)
class PieceLimits:
    """How long a piece may be, and how much of it the next one repeats where it had to be cut in the middle of sound.

    An overlap of more than a quarter of a piece is taken as a quarter. Raises: ValueError: pieces below a second.
    """

    longest_s: float
    overlap_s: float = 3.0

    def __post_init__(self) -> None:
        if not _SHORTEST_LIMIT_S <= self.longest_s < math.inf or not 0 <= self.overlap_s < math.inf:
            raise ValueError(f"no pieces of {self.longest_s} s with {self.overlap_s} s in common")


@dataclass(frozen=True)
class Piece:
    """The samples from `start` to before `end`; so many at each edge are those of its neighbour as well."""

    start: int
    end: int
    overlap_before: int = 0
    overlap_after: int = 0

    @property
    def start_s(self) -> float:
        return self.start / RATE_HZ

    @property
    def end_s(self) -> float:
        return self.end / RATE_HZ

    @property
    def duration_s(self) -> float:
        return (self.end - self.start) / RATE_HZ


def longest_piece_s(format: str, upload_bytes: int) -> float:
    """Tell how long a piece may be that is certain to have no more bytes, as mono at `RATE_HZ`.

    Raises: KeyError: a format that pieces are not made in.
    """
    return max(upload_bytes - _HEADER_BYTES, 0) / _MOST_BYTES_PER_S[format]


def plan(
    samples: int, silences: Sequence[Span], limits: PieceLimits, *, pauses: Sequence[Span] = ()
) -> tuple[Piece, ...]:
    """Choose the pieces of a recording: in order, none over the limit, together all that is not silence.

    A piece ends in the best rest near the limit: first a silence long enough to be left out, else the longest pause.
    Where there is none it ends at the limit, and the next one begins a little earlier, so that no word is lost. Pauses
    are what is quiet enough to cut in but not to be called silence. A silent recording has no pieces.
    """
    quiet = _merged(silences, samples)
    gaps = [_Gap.of(stretch, samples) for stretch in quiet if _is_long(stretch)]
    rests = sorted({*quiet, *_merged(pauses, samples)})
    pieces = [
        Piece(start, end)
        for start, end in _pieces(samples, rests, gaps, limits)
        if start < end and not _is_within(start, end, quiet)
    ]
    shared = [max(here.end - there.start, 0) for here, there in pairwise(pieces)]
    return tuple(
        replace(piece, overlap_before=before, overlap_after=after)
        for piece, before, after in zip(pieces, [0, *shared], [*shared, 0], strict=False)
    )


@dataclass(frozen=True)
class _Gap:
    """A long silence, and the part of it that is not sent."""

    begin: int
    first: int
    last: int
    finish: int

    @classmethod
    def of(cls, silence: _Stretch, samples: int) -> _Gap:
        begin, finish = silence
        margin = round(MARGIN_S * RATE_HZ)
        return cls(begin, begin + margin if begin else 0, finish - margin if finish < samples else samples, finish)


def _is_long(silence: _Stretch) -> bool:
    return silence[1] - silence[0] >= LEFT_OUT_FROM_S * RATE_HZ


def _is_within(start: int, end: int, quiet: Sequence[_Stretch]) -> bool:
    before = bisect_right(quiet, start, key=lambda silence: silence[0])
    return before > 0 and end <= quiet[before - 1][1]


def _merged(spans: Sequence[Span], samples: int) -> list[_Stretch]:
    """Count spans in samples, the whole ones inside; in order, without overlap, within the recording."""
    merged: list[_Stretch] = []
    for span in sorted(spans, key=lambda span: span.start_s):
        start, end = max(_samples(span.start_s, math.ceil), 0), min(_samples(span.end_s, math.floor), samples)
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    return merged


def _samples(time_s: float, rounded: Callable[[float], int]) -> int:
    # A time that came from a sample is that sample again.
    return rounded(round(time_s * RATE_HZ, 3))


def _pieces(
    samples: int, rests: Sequence[_Stretch], gaps: Sequence[_Gap], limits: PieceLimits
) -> Iterator[tuple[int, int]]:
    longest = int(limits.longest_s * RATE_HZ)
    overlap = min(round(limits.overlap_s * RATE_HZ), longest // 4)
    last = _back(samples, gaps)
    start = _onward(0, gaps)
    while last - start > longest:
        limit = start + longest
        cut = _best_cut(start, limit, rests, gaps)
        yield start, _back(limit if cut is None else cut, gaps)
        start = _onward(limit - overlap if cut is None else cut, gaps)
    if start < last:
        yield start, last


def _gap_at(place: int, gaps: Sequence[_Gap]) -> _Gap | None:
    before = bisect_right(gaps, place, key=lambda gap: gap.begin)
    gap = gaps[before - 1] if before else None
    return gap if gap is not None and place <= gap.finish else None


def _onward(place: int, gaps: Sequence[_Gap]) -> int:
    """Move the beginning of a piece out of a long silence."""
    gap = _gap_at(place, gaps)
    return place if gap is None else max(place, gap.last)


def _back(place: int, gaps: Sequence[_Gap]) -> int:
    """Move the end of a piece out of a long silence."""
    gap = _gap_at(place, gaps)
    return place if gap is None else min(place, gap.first)


def _best_cut(start: int, limit: int, rests: Sequence[_Stretch], gaps: Sequence[_Gap]) -> int | None:
    """Find the rest with most room on both sides of the cut, near the limit first; None where there is none."""
    longest = limit - start
    inside = rests[bisect_left(rests, (start + 1, 0)) : bisect_left(rests, (limit, 0))]
    near = min(round(_SEARCH_S * RATE_HZ), longest // 2)
    for window in (near, max(near, longest // _SEARCH_SHARE)):
        found: list[tuple[bool, int, int]] = []
        for begin, finish in inside:
            if finish > limit - window:
                cut = min(max((begin + finish) // 2, limit - window), limit)
                is_left_out = _back(cut, gaps) < _onward(cut, gaps)
                found.append((is_left_out, min(cut - begin, finish - cut), cut))
        if found:
            return max(found)[2]
    return None
