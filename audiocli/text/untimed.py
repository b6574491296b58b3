"""Estimate times for the text of a transcript that a gateway left without times.

Some replies have a text, but segments for a part of it only, or segments without times. Captions must not lose that
text, so it becomes segments of its own over the time that the timed segments leave free.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..types.transcripts import Segment
from .line_breaking import fold_character, has_visible_text, join_words

DEFAULT_LETTERS_PER_S = 14.0
MIN_LETTERS_PER_S, MAX_LETTERS_PER_S = 5.0, 25.0
# Text in a gap where it would have to be spoken faster than this belongs to the segment beside the gap.
MAX_GAP_LETTERS_PER_S = 50.0
# A shorter segment is searched near the previous one only, because its letters may occur anywhere.
MIN_DISTINCTIVE_LETTERS = 12
# Segments with this share of the letters of a passage are another spelling of it.
SAME_TEXT_SHARE = 0.9


class TimedText(NamedTuple):
    """The text of a transcript and segments that cover all of it.

    `untimed_letters` counts the letters whose times are estimates.
    """

    text: str
    segments: tuple[Segment, ...]
    untimed_letters: int = 0


class _Match(NamedTuple):
    """The segment with this index was found in the letters from `start` to `end`."""

    segment_index: int
    start: int
    end: int


def cover_text(text: str, segments: Sequence[Segment]) -> TimedText:
    """Return segments that have all of a text. A time that a gateway did not give is NaN before, and estimated after.

    Without a single usable time there are no segments to add to: they are returned unchanged. If the segments have
    more text than `text`, the text is built from them.
    """
    if not segments or not any(map(_has_time, segments)):
        return TimedText(text, tuple(segments))
    joined = join_words([segment.text for segment in segments])
    if not has_visible_text(text) or "".join(joined.split()) == "".join(text.split()):
        return _assign_times(text if has_visible_text(text) else joined, segments)
    letters, positions = _fold(text)
    spellings = [_fold(segment.text)[0] for segment in segments]
    if len(letters) < SAME_TEXT_SHARE * sum(map(len, spellings)):
        return _assign_times(joined, segments)
    matches = _find_segments(letters, spellings)
    by_time = sorted(range(len(segments)), key=lambda index: segments[index].start_s)  # NaN stays where it is
    if len(matches) < len(segments) and not any(math.isnan(segment.start_s) for segment in segments):
        sorted_matches = _find_segments(letters, [spellings[index] for index in by_time])
        if len(sorted_matches) > len(matches):
            segments = [segments[index] for index in by_time]
            spellings = [spellings[index] for index in by_time]
            matches = sorted_matches
    return _assign_times(text, list(_merge_passages(text, letters, positions, segments, spellings, matches)))


def covers_text(candidate: str, text: str) -> bool:
    """Return whether a text has about as many letters as another one, so that it may be another spelling of it."""
    return count_letters(candidate) >= SAME_TEXT_SHARE * count_letters(text)


def count_letters(text: str) -> int:
    """Return the number of letters, digits and symbols of a text."""
    return sum(len(fold_character(char)) for char in text)


def _fold(text: str) -> tuple[str, list[int]]:
    """Return the letters of a text, and the index in the text of each."""
    pairs = [(letter, index) for index, char in enumerate(text) for letter in fold_character(char)]
    return "".join(letter for letter, _ in pairs), [index for _, index in pairs]


def _find_segments(letters: str, spellings: Sequence[str]) -> list[_Match]:
    """Find the segments in the letters of the text, in order. Those that are not found have no match."""
    matches: list[_Match] = []
    position = skipped_letters = 0
    for index, spelling in enumerate(spellings):
        is_distinctive = len(spelling) >= MIN_DISTINCTIVE_LETTERS
        end = len(letters) if is_distinctive else position + 3 * len(spelling) + 2 * skipped_letters
        start = letters.find(spelling, position, end) if spelling else -1
        if start < 0:
            skipped_letters += len(spelling)
            continue
        position, skipped_letters = start + len(spelling), 0
        matches.append(_Match(index, start, position))
    return matches


def _merge_passages(
    text: str,
    letters: str,
    positions: Sequence[int],
    segments: Sequence[Segment],
    spellings: Sequence[str],
    matches: Sequence[_Match],
) -> Iterator[Segment]:
    """Yield the segments, and between them the passages of the text that no segment has."""
    next_index = next_letter = 0
    for match in (*matches, _Match(len(segments), len(letters), len(letters))):
        yield from _merge_passage(
            _slice_passage(text, positions, next_letter, match.start),
            letters,
            segments[next_index : match.segment_index],
            spellings[next_index : match.segment_index],
        )
        if match.segment_index < len(segments):
            yield segments[match.segment_index]
        next_index, next_letter = match.segment_index + 1, match.end


def _slice_passage(text: str, positions: Sequence[int], start: int, end: int) -> str:
    """Return the text from one letter to another, with the punctuation around it that no segment has."""
    if start >= end:
        return ""
    first = positions[start] if start else 0
    last = positions[end] if end < len(positions) else len(text)
    return text[first:last].strip()


def _merge_passage(
    passage: str, letters: str, segments: Sequence[Segment], spellings: Sequence[str]
) -> Iterator[Segment]:
    """Yield the segments for a passage of the text, from those in its place that were not found in the text."""
    passage_letters = count_letters(passage)
    segment_letters = sum(map(len, spellings))
    if not passage_letters:
        # Text that only the segments have, unless it stands at another position of the text.
        yield from (segment for segment, spelling in zip(segments, spellings, strict=True) if spelling not in letters)
    elif segments and segment_letters >= SAME_TEXT_SHARE * passage_letters:
        yield from segments
    else:
        starts = [segment.start_s for segment in segments if math.isfinite(segment.start_s)]
        ends = [segment.end_s for segment in segments if math.isfinite(segment.end_s)]
        speakers = {segment.speaker for segment in segments}
        yield Segment(
            min(starts) if starts and ends else math.nan,
            max(ends) if starts and ends else math.nan,
            passage,
            speakers.pop() if len(speakers) == 1 else None,
        )


# --- times -----------------------------------------------------------------------------------------------------------


def _has_time(segment: Segment) -> bool:
    return math.isfinite(segment.start_s) or math.isfinite(segment.end_s)


def _assign_times(text: str, segments: Sequence[Segment]) -> TimedText:
    """Spread each run of segments without times over the gap that it is in, by the number of letters."""
    letters_per_s = _measure_speed(segments)
    timed: list[Segment] = []
    untimed: list[Segment] = []
    untimed_letters = 0
    for segment in (*segments, None):
        if segment is not None and not _has_time(segment):
            untimed.append(segment)
            continue
        if untimed:
            untimed_letters += sum(count_letters(item.text) for item in untimed)
            segment = _fill_gap(timed, untimed, segment, letters_per_s)
            untimed = []
        if segment is not None:
            timed.append(segment)
    return TimedText(text, tuple(timed), untimed_letters)


def _fill_gap(
    timed: list[Segment], untimed: Sequence[Segment], following: Segment | None, letters_per_s: float
) -> Segment | None:
    """Append the untimed segments to `timed`. Return the following segment, which may have taken them in."""
    counts = [max(count_letters(item.text), 1) for item in untimed]
    start_s = max((_get_end_s(segment) for segment in timed), default=0.0)
    end_s = start_s + sum(counts) / letters_per_s if following is None else _get_start_s(following)
    if sum(counts) > MAX_GAP_LETTERS_PER_S * max(end_s - start_s, 0.0):
        joined = join_words([item.text for item in untimed])
        if timed:
            timed[-1] = timed[-1]._replace(text=join_words([timed[-1].text, joined]))
            return following
        assert following is not None
        return following._replace(text=join_words([joined, following.text]))
    position_s = start_s
    for item, count in zip(untimed, counts, strict=True):
        item_end_s = position_s + (end_s - start_s) * count / sum(counts)
        timed.append(item._replace(start_s=position_s, end_s=item_end_s))
        position_s = item_end_s
    return following


def _measure_speed(segments: Sequence[Segment]) -> float:
    """Return the letters per second of the timed segments."""
    timed = [segment for segment in segments if segment.end_s - segment.start_s > 0]
    duration_s = sum(segment.end_s - segment.start_s for segment in timed)
    if not math.isfinite(duration_s) or duration_s < 0.5:
        return DEFAULT_LETTERS_PER_S
    letters_per_s = sum(count_letters(segment.text) for segment in timed) / duration_s
    return min(max(letters_per_s, MIN_LETTERS_PER_S), MAX_LETTERS_PER_S)


def _get_start_s(segment: Segment) -> float:
    return segment.start_s if math.isfinite(segment.start_s) else segment.end_s


def _get_end_s(segment: Segment) -> float:
    return segment.end_s if math.isfinite(segment.end_s) else segment.start_s
