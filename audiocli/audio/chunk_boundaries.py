"""Plan where to split a long recording.

Positions are integer samples at `SPLIT_RATE_HZ`, the rate of scanning and splitting. Times of a chunk are therefore
converted to times of the recording without rounding errors.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

SPLIT_RATE_HZ = 16_000

# Silence of at least this length is not sent at the start or end of a chunk: models invent text for it, and it costs
# money.
MIN_SKIPPED_SILENCE_S = 2.0
# Silence to keep next to the audio: recognizers miss words that begin immediately.
SILENCE_MARGIN_S = 0.3
# A split in silence may shorten a chunk by this many seconds, or by its maximum length over this divisor.
_SPLIT_SEARCH_S, _SPLIT_SEARCH_DIVISOR = 10.0, 4
_MIN_CHUNK_LIMIT_S = 1.0

# Maximum bytes for one second of mono audio at `SPLIT_RATE_HZ` (measured with white noise, square waves and clicks),
# and for an empty chunk. Opus is variable: 4,000 bytes are typical.
_MAX_BYTES_PER_S = {
    "opus": 8_000,
    "ogg": 8_000,
    "mp3": 6_100,
    "aac": 6_200,
    "m4a": 6_200,
    "flac": 32_300,
    "wav": 32_000,
}
_HEADER_BYTES = 4_096

_SampleRange: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Span:
    """A time range of a recording, half-open."""

    start_s: float
    end_s: float


@dataclass(frozen=True)
class ChunkLimits:
    """Maximum length of a chunk, and the overlap where it must be split inside audio.

    An overlap of more than a quarter of a chunk is reduced to a quarter.

    Raises:
        ValueError: The maximum is below one second, or a value is not finite.
    """

    max_s: float
    overlap_s: float = 3.0

    def __post_init__(self) -> None:
        if not _MIN_CHUNK_LIMIT_S <= self.max_s < math.inf or not 0 <= self.overlap_s < math.inf:
            raise ValueError(f"invalid chunk limits: {self.max_s} s with an overlap of {self.overlap_s} s")


@dataclass(frozen=True)
class AudioChunk:
    """The samples from `start` up to `end` (exclusive).

    `overlap_before` and `overlap_after` count the samples at each edge that the neighbor contains as well.
    """

    start: int
    end: int
    overlap_before: int = 0
    overlap_after: int = 0

    @property
    def start_s(self) -> float:
        return self.start / SPLIT_RATE_HZ

    @property
    def end_s(self) -> float:
        return self.end / SPLIT_RATE_HZ

    @property
    def duration_s(self) -> float:
        return (self.end - self.start) / SPLIT_RATE_HZ


def compute_max_chunk_s(format: str, max_bytes: int) -> float:
    """Return the maximum length of a chunk that never exceeds `max_bytes`, as mono at `SPLIT_RATE_HZ`.

    Raises:
        KeyError: Chunks cannot be encoded in this format.
    """
    return max(max_bytes - _HEADER_BYTES, 0) / _MAX_BYTES_PER_S[format]


def plan_chunks(
    sample_count: int, silences: Sequence[Span], limits: ChunkLimits, *, pauses: Sequence[Span] = ()
) -> tuple[AudioChunk, ...]:
    """Choose the chunks of a recording, in order.

    No chunk exceeds the limit. Together, the chunks contain everything that is not silence.

    A chunk ends in the best quiet range near the limit: first in a silence long enough to skip, else in the longest
    pause. Without one it ends at the limit, and the next chunk begins a little earlier, so that no word is lost.
    `pauses` are quiet enough to split in, but too loud to count as silence. A silent recording has no chunks.
    """
    silent_ranges = _merge_spans(silences, sample_count)
    gaps = [_Gap.from_silence(silence, sample_count) for silence in silent_ranges if _is_skippable(silence)]
    quiet_ranges = sorted({*silent_ranges, *_merge_spans(pauses, sample_count)})
    chunks = [
        AudioChunk(start, end)
        for start, end in _split(sample_count, quiet_ranges, gaps, limits)
        if start < end and not _is_within(start, end, silent_ranges)
    ]
    overlaps = [max(previous.end - following.start, 0) for previous, following in pairwise(chunks)]
    return tuple(
        replace(chunk, overlap_before=overlap_before, overlap_after=overlap_after)
        for chunk, overlap_before, overlap_after in zip(chunks, [0, *overlaps], [*overlaps, 0], strict=False)
    )


@dataclass(frozen=True)
class _Gap:
    """A long silence, and the part of it that is not sent (`skip_start` to `skip_end`)."""

    start: int
    skip_start: int
    skip_end: int
    end: int

    @classmethod
    def from_silence(cls, silence: _SampleRange, sample_count: int) -> _Gap:
        start, end = silence
        margin = round(SILENCE_MARGIN_S * SPLIT_RATE_HZ)
        return cls(start, start + margin if start else 0, end - margin if end < sample_count else sample_count, end)


def _is_skippable(silence: _SampleRange) -> bool:
    return silence[1] - silence[0] >= MIN_SKIPPED_SILENCE_S * SPLIT_RATE_HZ


def _is_within(start: int, end: int, silences: Sequence[_SampleRange]) -> bool:
    index = bisect_right(silences, start, key=lambda silence: silence[0])
    return index > 0 and end <= silences[index - 1][1]


def _merge_spans(spans: Sequence[Span], sample_count: int) -> list[_SampleRange]:
    """Convert spans to sample ranges, rounded inwards; sorted, merged and clipped to the recording."""
    merged: list[_SampleRange] = []
    for span in sorted(spans, key=lambda span: span.start_s):
        start, end = (
            max(_to_samples(span.start_s, math.ceil), 0),
            min(_to_samples(span.end_s, math.floor), sample_count),
        )
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    return merged


def _to_samples(time_s: float, rounding: Callable[[float], int]) -> int:
    # Rounding first maps a time that was computed from a sample back to that sample.
    return rounding(round(time_s * SPLIT_RATE_HZ, 3))


def _split(
    sample_count: int, quiet_ranges: Sequence[_SampleRange], gaps: Sequence[_Gap], limits: ChunkLimits
) -> Iterator[tuple[int, int]]:
    max_samples = int(limits.max_s * SPLIT_RATE_HZ)
    overlap = min(round(limits.overlap_s * SPLIT_RATE_HZ), max_samples // 4)
    end = _move_end(sample_count, gaps)
    start = _move_start(0, gaps)
    while end - start > max_samples:
        max_end = start + max_samples
        split = _find_split(start, max_end, quiet_ranges, gaps)
        yield start, _move_end(max_end if split is None else split, gaps)
        start = _move_start(max_end - overlap if split is None else split, gaps)
    if start < end:
        yield start, end


def _find_gap(sample: int, gaps: Sequence[_Gap]) -> _Gap | None:
    index = bisect_right(gaps, sample, key=lambda gap: gap.start)
    gap = gaps[index - 1] if index else None
    return gap if gap is not None and sample <= gap.end else None


def _move_start(sample: int, gaps: Sequence[_Gap]) -> int:
    """Move the start of a chunk out of a long silence."""
    gap = _find_gap(sample, gaps)
    return sample if gap is None else max(sample, gap.skip_end)


def _move_end(sample: int, gaps: Sequence[_Gap]) -> int:
    """Move the end of a chunk out of a long silence."""
    gap = _find_gap(sample, gaps)
    return sample if gap is None else min(sample, gap.skip_start)


def _find_split(start: int, max_end: int, quiet_ranges: Sequence[_SampleRange], gaps: Sequence[_Gap]) -> int | None:
    """Find the split point with the most silence on both sides, close to `max_end` first.

    Return None if no quiet range is close enough.
    """
    max_samples = max_end - start
    candidate_ranges = quiet_ranges[bisect_left(quiet_ranges, (start + 1, 0)) : bisect_left(quiet_ranges, (max_end, 0))]
    near_window = min(round(_SPLIT_SEARCH_S * SPLIT_RATE_HZ), max_samples // 2)
    for window in (near_window, max(near_window, max_samples // _SPLIT_SEARCH_DIVISOR)):
        candidates: list[tuple[bool, int, int]] = []
        for range_start, range_end in candidate_ranges:
            if range_end > max_end - window:
                split = min(max((range_start + range_end) // 2, max_end - window), max_end)
                is_in_gap = _move_end(split, gaps) < _move_start(split, gaps)
                candidates.append((is_in_gap, min(split - range_start, range_end - split), split))
        if candidates:
            return max(candidates)[2]
    return None
