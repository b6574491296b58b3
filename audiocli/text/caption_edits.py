"""Change the times of captions, merge files and split them. No cue is lost."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from ..errors import UsageError
from .caption_file import MAX_TIME_S, CaptionCue, CaptionFile, StyleSpan
from .caption_markup import map_word_times

_CLOCK = re.compile(r"(?:(?:(\d{1,6}):)?(\d{1,6}):)?(\d{1,9}(?:[.,]\d{1,9})?)", re.ASCII)
_UNITS = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,12})ms)?", re.ASCII)
# Cues of two languages belong together if they share this part of the shorter one.
_MIN_SHARED_RATIO = 0.5
# The last cues that begin before the end of a cue of the other language. More would take quadratic time.
_MAX_CANDIDATES = 50


class SyncPoint(NamedTuple):
    """A time of the file, and the time that it should have."""

    from_s: float
    to_s: float


class TimeMap:
    """A rising function of time: straight lines through points, and beyond them as between the nearest two."""

    def __init__(self, points: Sequence[SyncPoint]) -> None:
        """Build the function. One point moves all times by the same amount.

        Raises:
            UsageError: Two points contradict each other.
        """
        ordered = sorted(points)
        for earlier, later in pairwise(ordered):
            if later.from_s <= earlier.from_s or later.to_s <= earlier.to_s:
                raise UsageError("the sync points must be in the same order before and after")
        if len(ordered) == 1:
            ordered.append(SyncPoint(ordered[0].from_s + 1, ordered[0].to_s + 1))
        self._points = ordered
        self._starts = [point.from_s for point in ordered]

    def map(self, time_s: float) -> float:
        """Return the new time. It may be negative."""
        index = min(max(bisect_right(self._starts, time_s) - 1, 0), len(self._points) - 2)
        first, second = self._points[index], self._points[index + 1]
        slope = (second.to_s - first.to_s) / (second.from_s - first.from_s)
        return first.to_s + (time_s - first.from_s) * slope


class RetimedFile(NamedTuple):
    """A file with new times. `early` cues began before 0 and begin at 0 now; `lost` of them also ended before 0."""

    file: CaptionFile
    early: int
    lost: int


def parse_time(text: str, name: str) -> float:
    """Parse a time: `1:02:03.5`, `2:03`, `90`, `90.5`, `250ms`, `10m`, `1h30m`; with `+` or `-` before it.

    Raises:
        UsageError: It is none. `name` is the option or argument in the message.
    """
    body = text.strip()
    sign = -1.0 if body[:1] in ("-", "\u2212") else 1.0
    body = body[1:] if body[:1] in ("+", "-", "\u2212") else body
    time_s: float | None = None
    if (match := _CLOCK.fullmatch(body)) is not None:
        hours, minutes, seconds = match.groups()
        time_s = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds.replace(",", "."))
    elif body and (match := _UNITS.fullmatch(body)) is not None:
        hours, minutes, seconds, ms = match.groups()
        time_s = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds or 0) + int(ms or 0) / 1000
    if time_s is None or time_s >= MAX_TIME_S:
        raise UsageError(f"{name} {text}: not a time", hint="such as 90, 1.5, 1:30, 0:01:30.250, 250ms or 10m")
    return sign * time_s


def parse_sync_points(text: str) -> tuple[SyncPoint, ...]:
    """Parse `FROM=TO,FROM=TO`. Raises: UsageError: A point is malformed."""
    points = []
    for part in text.split(","):
        before, equals, after = part.partition("=")
        if not equals:
            raise UsageError(f"--sync {part}: expected FROM=TO", hint="such as --sync 0:01=0:02,1:00:00=1:00:05")
        points.append(SyncPoint(parse_time(before, "--sync"), parse_time(after, "--sync")))
    return tuple(points)


def build_shift(by_s: float) -> TimeMap:
    """Return the function that adds an amount to all times."""
    return TimeMap((SyncPoint(0.0, by_s),))


def build_scale(factor: float) -> TimeMap:
    """Return the function that multiplies all times."""
    return TimeMap((SyncPoint(0.0, 0.0), SyncPoint(1.0, factor)))


def retime(file: CaptionFile, times: TimeMap) -> RetimedFile:
    """Change all times of a file, also those of words inside the cues. Times below 0 become 0."""
    cues = []
    early = lost = 0
    for cue in file.cues:
        start_s, end_s = times.map(cue.start_s), times.map(cue.end_s)
        early += start_s < 0
        lost += start_s < 0 and end_s <= 0
        if max(start_s, end_s) >= MAX_TIME_S:
            raise UsageError(f"line {cue.line}: the new time is too large")
        cues.append(_retime_words(cue._replace(start_s=max(start_s, 0.0), end_s=max(end_s, 0.0)), times))
    return RetimedFile(file._replace(cues=tuple(cues)), early, lost)


def _retime_words(cue: CaptionCue, times: TimeMap) -> CaptionCue:
    """Change the times of words inside a cue."""
    if cue.native is None or "<" not in cue.native.text:
        return cue
    text = map_word_times(cue.native.text, cue.native.format, times.map)
    return cue._replace(native=cue.native._replace(text=text))


# --- merge -----------------------------------------------------------------------------------------------------------


def merge_by_time(files: Sequence[CaptionFile]) -> CaptionFile:
    """Return one file with the cues of all files in the order of their start. The first file gives the header."""
    cues = sorted((cue for file in files for cue in file.cues), key=lambda cue: cue.start_s)
    return files[0]._replace(cues=tuple(cues), features=frozenset().union(*(file.features for file in files)))


def find_first_overlap(files: Sequence[CaptionFile]) -> tuple[int, CaptionCue] | None:
    """Return the first cue of a file that overlaps a cue of an earlier file, with the index of its file; or None."""
    for index, file in enumerate(files[1:], 1):
        earlier = sorted((cue.start_s, cue.end_s) for other in files[:index] for cue in other.cues)
        starts = [start_s for start_s, _ in earlier]
        latest_ends = [0.0, *accumulate((end_s for _, end_s in earlier), max)]
        for cue in file.cues:
            if latest_ends[bisect_left(starts, cue.end_s)] > cue.start_s:
                return index, cue
    return None


def merge_languages(first: CaptionFile, second: CaptionFile) -> CaptionFile:
    """Return a file whose cues show two languages: the text of the second file below that of the first.

    A cue of the second file goes to the cue of the first file that it shares most time with, if that is at least half
    of the shorter one. Otherwise it stays a cue.
    """
    ordered = sorted(first.cues, key=lambda cue: cue.start_s)
    starts = [cue.start_s for cue in ordered]
    latest_ends = list(accumulate((cue.end_s for cue in ordered), max))
    partners: dict[int, list[CaptionCue]] = {}
    alone: list[CaptionCue] = []
    for cue in sorted(second.cues, key=lambda cue: cue.start_s):
        best_index, best_s = -1, 0.0
        end = bisect_left(starts, cue.end_s)
        for index in range(end - 1, max(end - _MAX_CANDIDATES, 0) - 1, -1):
            if latest_ends[index] <= cue.start_s:
                break  # this cue and all before it have ended
            other = ordered[index]
            shared_s = min(cue.end_s, other.end_s) - max(cue.start_s, other.start_s)
            if shared_s > 0 and shared_s >= best_s:
                best_index, best_s = index, shared_s
        shorter_s = min(_get_duration(cue), _get_duration(ordered[best_index])) if best_index >= 0 else 0.0
        if best_index >= 0 and best_s >= _MIN_SHARED_RATIO * shorter_s:
            partners.setdefault(best_index, []).append(cue)
        else:
            alone.append(cue)
    merged = [_join_cues([cue, *partners.get(index, [])]) for index, cue in enumerate(ordered)]
    cues = tuple(sorted([*merged, *alone], key=lambda cue: cue.start_s))
    return first._replace(cues=cues, features=first.features | second.features, language=None)


def _get_duration(cue: CaptionCue) -> float:
    return cue.end_s - cue.start_s


def _join_cues(cues: Sequence[CaptionCue]) -> CaptionCue:
    """Return the first cue with the texts of all cues. Tags that only its format has are lost."""
    if len(cues) == 1:
        return cues[0]
    texts: list[str] = []
    styles: list[StyleSpan] = []
    offset = 0
    for cue in cues:
        if cue.text:
            texts.append(cue.text)
            styles += (span._replace(start=span.start + offset, end=span.end + offset) for span in cue.styles)
            offset += len(cue.text) + 1
    speaker = next((cue.speaker for cue in cues if cue.speaker), None)
    return cues[0]._replace(text="\n".join(texts), styles=tuple(styles), speaker=speaker, native=None)


# --- split -----------------------------------------------------------------------------------------------------------


def split_captions(file: CaptionFile, times_s: Iterable[float]) -> list[CaptionFile]:
    """Split a file at times. Each part counts from 0.

    A cue across a time belongs to the part that shows most of it, and is clipped to that part.
    """
    edges = sorted({time_s for time_s in times_s if time_s > 0})
    parts: list[list[CaptionCue]] = [[] for _ in range(len(edges) + 1)]
    for cue in file.cues:
        index = bisect_right(edges, max((cue.start_s + cue.end_s) / 2, 0.0))
        start_s = edges[index - 1] if index else 0.0
        end_s = edges[index] if index < len(edges) else MAX_TIME_S
        clipped = cue._replace(
            start_s=min(max(cue.start_s, start_s), end_s) - start_s, end_s=min(max(cue.end_s, start_s), end_s) - start_s
        )
        parts[index].append(_retime_words(clipped, build_shift(-start_s)))
    return [file._replace(cues=tuple(cues)) for cues in parts]
