"""Turn a transcript into cues: texts short enough to read, placed in time.

Laws, for any input: 0 <= start < end, in order, no overlap, within the recording, at most `max_lines` lines of at most
`max_line_width` cells, at most `max_cue_s` long, and every visible character exactly once, in order. Reading speed,
minimum length, gaps and balanced lines are aims. Times are whole milliseconds.

Two exceptions. A grapheme wider than a line stands alone on one. A recording said to have fewer milliseconds than there
are cues is not believed: the cues run past its end, for a text that is lost is worse than a time that is wrong.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

from ..types.values import Segment, Transcript, Word
from .line_breaking import (
    Atom,
    atoms,
    folded,
    graphemes,
    grouped,
    has_ink,
    joined,
    line_count,
    one_line,
    priced,
    width,
    wrapped,
)
from .line_breaking import CaptionLimits as CaptionLimits  # for those who call us

DEFAULT_SHAPE = CaptionLimits()

_MIN_CUE_S = 1.0  # shorter cues flash by
_GAP_S = 2 / 24  # two frames: without it the eye misses that the text has changed
_FLOOR_MS = 500  # what a cue without a length of its own may take from its neighbours
_LAST_S = 1e9  # a time beyond (32 years) is as good as infinite; before it milliseconds are exact in a float
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class Cue:
    """One caption. Lines have no white space at their ends and are not empty; the speaker is not part of them."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]
    speaker: str | None = None


class _Draft(NamedTuple):
    """A cue that knows when it should be shown, before its neighbours are asked."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]
    speaker: str | None


class _Passage(NamedTuple):
    """A text to be made into one cue or many; `regroup` if even one that fits may be divided at its pauses."""

    start_s: float
    end_s: float
    text: str
    speaker: str | None = None
    words: tuple[Word, ...] = ()
    regroup: bool = False


class _Anchor(NamedTuple):
    """text[begin:end] was said from start_s to end_s."""

    begin: int
    end: int
    start_s: float
    end_s: float


def cues(transcript: Transcript, shape: CaptionLimits = DEFAULT_SHAPE, *, by_word: bool = False) -> tuple[Cue, ...]:
    """Make cues from segments, cutting those that are too long for one; from words where there are no segments.

    A cut falls by the words inside the segment's time, else in proportion to the text. With `by_word` segments are only
    the source of punctuation and speakers, and words decide. Words alone show `transcript.text` as far as they agree
    with it, else themselves. Text without any times is spread over the recording: a guess, for the caller to tell.
    A cue may stay on into silence, for its reading speed; it begins late only where others overlap.
    The first line of a speaker's turn leaves room for `speaker_prefix`.
    """
    tidied = tidy(transcript)
    drafts: list[_Draft] = []
    speaker: str | None = None
    for passage in _passages(tidied, shape, by_word=by_word):
        indent = width(speaker_prefix(passage.speaker, shape)) if passage.speaker != speaker else 0
        speaker = passage.speaker
        drafts += _drafts(passage, shape, indent)
    return tuple(
        Cue(start_ms / 1000, end_ms / 1000, draft.lines, draft.speaker)
        for draft, (start_ms, end_ms) in zip(drafts, _placed(drafts, tidied.duration_s, shape), strict=True)
    )


def speaker_prefix(speaker: str | None, shape: CaptionLimits = DEFAULT_SHAPE) -> str:
    """Spell `NAME: ` as captions without voices show it: cut to half a line, nothing if not even that fits."""
    if speaker is None or width(f"{speaker}: ") <= shape.max_line_width // 2:
        return f"{speaker}: " if speaker else ""
    kept = ""
    for cluster in graphemes(speaker):
        if width(f"{kept}{cluster}…: ") > shape.max_line_width // 2:
            break
        kept += cluster
    return f"{kept.rstrip()}…: " if kept.strip() else ""


# --- replies made fit for use ----------------------------------------------------------------------------------------


def tidy(transcript: Transcript) -> Transcript:
    """Mend what gateways get wrong: times that are no times, out of order or past the end, empty or padded texts.

    Segments and words come out sorted by start, with 0 <= start <= end <= duration; a duration below a millisecond is
    unknown. A time that is not finite is taken from the neighbours. Where no times are usable (none finite, or all the
    same), segments or words become () and only the text stays, made from them if it was empty. Segment texts are
    stripped; words keep their leading spaces, which tell how to join them. Lone surrogates, which no file can hold,
    become U+FFFD.
    """
    duration_s = transcript.duration_s
    if duration_s is not None and not 0.001 <= duration_s <= _LAST_S:
        duration_s = None
    segments = [
        segment._replace(text=_legal(segment.text).strip(), speaker=one_line(_legal(segment.speaker or "")) or None)
        for segment in transcript.segments
        if has_ink(segment.text)
    ]
    words = [word._replace(word=_legal(word.word)) for word in transcript.words if has_ink(word.word)]
    text = _legal(transcript.text).strip()
    if not has_ink(text):
        text = joined([segment.text for segment in segments] or [word.word for word in words])
    segment_spans = _mended([(segment.start_s, segment.end_s) for segment in segments], duration_s)
    word_spans = _mended([(word.start_s, word.end_s) for word in words], duration_s)
    mended_segments = [s._replace(start_s=a, end_s=b) for s, (a, b) in zip(segments, segment_spans, strict=False)]
    mended_words = [w._replace(start_s=a, end_s=b) for w, (a, b) in zip(words, word_spans, strict=False)]
    return transcript._replace(
        text=text,
        duration_s=duration_s,
        segments=tuple(sorted(mended_segments, key=lambda segment: segment.start_s)),
        words=tuple(sorted(mended_words, key=lambda word: word.start_s)),
    )


def _legal(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)


def _mended(spans: Sequence[tuple[float, float]], duration_s: float | None) -> list[tuple[float, float]]:
    """Give every span finite times within the recording; [] if they tell nothing."""
    last_s = _LAST_S if duration_s is None else duration_s
    pairs = [(_known(start_s, last_s), _known(end_s, last_s)) for start_s, end_s in spans]
    following = [duration_s]
    for start, _ in reversed(pairs[1:]):
        following.append(following[-1] if start is None else start)
    mended: list[tuple[float, float]] = []
    before_s = 0.0
    for (start, end), after in zip(pairs, reversed(following), strict=False):
        start_s = start if start is not None else before_s if end is None else min(before_s, end)
        end_s = end if end is not None else after if after is not None else start_s
        before_s = max(start_s, end_s)
        mended.append((start_s, before_s))
    all_unknown = all(pair == (None, None) for pair in pairs)
    return [] if all_unknown or len({round(time_s, 3) for span in mended for time_s in span}) < 2 else mended


def _known(time_s: float, last_s: float) -> float | None:
    return min(max(float(time_s), 0.0), last_s) if abs(time_s) <= _LAST_S else None


# --- passages: what is to be cut, and by which words -----------------------------------------------------------------


def _passages(tidied: Transcript, shape: CaptionLimits, *, by_word: bool) -> Iterator[_Passage]:
    if tidied.segments:
        runs = [list(run) for _, run in groupby(tidied.segments, key=lambda segment: segment.speaker)]
        starts = [word.start_s for word in tidied.words]
        for run in runs:
            whole = _from_segments(run, tidied.words, starts, regroup=True) if by_word else None
            if whole is not None and _aligned(whole.text, whole.words):
                yield whole
            else:
                yield from (_from_segments([segment], tidied.words, starts) for segment in run)
    elif tidied.words:
        end_s = max(word.end_s for word in tidied.words)
        text = tidied.text if _aligned(tidied.text, tidied.words) else joined([word.word for word in tidied.words])
        yield _Passage(tidied.words[0].start_s, end_s, text, words=tidied.words, regroup=True)
    elif has_ink(tidied.text):
        yield _Passage(0.0, tidied.duration_s or max(_MIN_CUE_S, width(tidied.text) / shape.cps), tidied.text)


def _from_segments(
    run: Sequence[Segment], words: Sequence[Word], starts: Sequence[float], *, regroup: bool = False
) -> _Passage:
    start_s, end_s = run[0].start_s, max(segment.end_s for segment in run)
    inside = tuple(words[bisect_left(starts, start_s - 0.05) : bisect_left(starts, end_s)])
    return _Passage(start_s, end_s, joined([segment.text for segment in run]), run[0].speaker, inside, regroup)


def _aligned(text: str, words: Sequence[Word]) -> list[_Anchor]:
    """Find where in the text each word stands, by letters and digits alone; [] if most of the words are not there.

    OpenAI's words come without the punctuation of the text, and some gateways write numbers differently: a word
    that is missing widens the search for the next.
    """
    spelled = [(sign, place) for place, char in enumerate(text) for sign in folded(char)]
    letters = "".join(sign for sign, _ in spelled)
    found: list[_Anchor] = []
    at = missed = heard = told = 0
    for word in words:
        needle = "".join(map(folded, word.word))
        told += len(needle)
        place = letters.find(needle, at, at + 5 * len(needle) + 16 * missed) if needle else -1
        if place < 0:
            missed += bool(needle)
            continue
        at, missed, heard = place + len(needle), 0, heard + len(needle)
        found.append(_Anchor(spelled[place][1], spelled[at - 1][1] + 1, word.start_s, word.end_s))
    return _with_punctuation(text, found) if told and heard >= 0.7 * told else []


def _with_punctuation(text: str, anchors: Sequence[_Anchor]) -> list[_Anchor]:
    """Let every anchor take the unsaid signs that touch it: what follows, then what comes before."""
    taken: list[_Anchor] = []
    floor = 0
    for anchor, following in zip(anchors, [*anchors[1:], None], strict=True):
        begin, end = max(anchor.begin, floor), anchor.end
        ceiling = len(text) if following is None else following.begin
        while end < ceiling and not text[end].isspace() and not folded(text[end]):
            end += 1
        while begin > floor and not text[begin - 1].isspace() and not folded(text[begin - 1]):
            begin -= 1
        floor = max(floor, end)
        if begin < end:
            taken.append(_Anchor(begin, end, anchor.start_s, anchor.end_s))
    return taken


# --- drafts: a passage cut into cues ---------------------------------------------------------------------------------


def _drafts(passage: _Passage, shape: CaptionLimits, indent: int) -> list[_Draft]:
    row = atoms(passage.text, shape, indent)
    lasts_s = passage.end_s - passage.start_s
    fits = lasts_s <= shape.max_cue_s and line_count(row, shape, indent) <= shape.max_lines
    if fits and not passage.regroup:
        return [_Draft(passage.start_s, passage.end_s, wrapped(priced(row), shape, indent), passage.speaker)]
    anchors = _aligned(passage.text, passage.words)
    _set_times(row, passage, anchors or [_Anchor(0, len(passage.text), passage.start_s, passage.end_s)])
    if not anchors:
        for atom, following in pairwise(row):
            atom.end_s = following.start_s  # a space that takes its share of the time is no pause
    groups = grouped(priced(row), shape, indent, vague=not anchors)
    drafts: list[_Draft] = []
    for place, group in enumerate(groups):
        start_s, end_s = group[0].start_s, group[-1].end_s
        if place + 1 < len(groups):
            gap_s = groups[place + 1][0].start_s - _GAP_S
            if gap_s < end_s and gap_s - start_s >= _MIN_CUE_S:
                end_s = gap_s
        drafts.append(_Draft(start_s, end_s, wrapped(group, shape, 0 if place else indent), passage.speaker))
    return drafts


def _set_times(row: Sequence[Atom], passage: _Passage, anchors: Sequence[_Anchor]) -> None:
    """Time every atom by the anchors it lies in, and in proportion to the text where it lies between them."""
    size = len(passage.text)
    track = [
        _Anchor(-1, 0, passage.start_s, passage.start_s),
        *anchors,
        _Anchor(size, size + 1, passage.end_s, passage.end_s),
    ]
    begins = [anchor.begin for anchor in track]
    now_s = passage.start_s
    for atom in row:
        now_s = atom.start_s = min(max(_moment(track, begins, atom.begin, closing=False), now_s), passage.end_s)
        now_s = atom.end_s = min(max(_moment(track, begins, atom.end, closing=True), now_s), passage.end_s)


def _moment(track: Sequence[_Anchor], begins: Sequence[int], place: int, *, closing: bool) -> float:
    """Tell when the voice was at a place in the text; `closing` if the place ends something rather than begins it."""
    index = bisect_right(begins, place - closing) - 1
    here = track[index]
    if place <= here.end:
        return here.start_s + (here.end_s - here.start_s) * (place - here.begin) / (here.end - here.begin)
    there = track[index + 1]
    return here.end_s + (there.start_s - here.end_s) * (place - here.end) / (there.begin - here.end)


# --- times that hold -------------------------------------------------------------------------------------------------


def _placed(drafts: Sequence[_Draft], duration_s: float | None, shape: CaptionLimits) -> list[tuple[int, int]]:
    """Give every draft milliseconds of its own: later where the one before needs them, earlier near the end."""
    last_ms = None if duration_s is None else round(duration_s * 1000)
    if last_ms is not None and duration_s is not None:
        last_ms -= last_ms / 1000 > duration_s
        last_ms = None if last_ms < len(drafts) else last_ms
    share_ms = _FLOOR_MS if last_ms is None or not drafts else min(_FLOOR_MS, last_ms // len(drafts))
    longest_ms = int(shape.max_cue_s * 1000)
    spans_ms = [(round(draft.start_s * 1000), round(draft.end_s * 1000)) for draft in drafts]
    needs_ms = [min(end - start, share_ms) if end > start else share_ms for start, end in spans_ms]
    starts_ms: list[int] = []
    free_ms = 0
    for (start_ms, _), need_ms in zip(spans_ms, needs_ms, strict=True):
        starts_ms.append(max(start_ms, free_ms))
        free_ms = starts_ms[-1] + need_ms
    if last_ms is not None:
        free_ms = last_ms
        for place in reversed(range(len(drafts))):
            free_ms = starts_ms[place] = min(starts_ms[place], free_ms - needs_ms[place])
    placed: list[tuple[int, int]] = []
    for place, (draft, start_ms) in enumerate(zip(drafts, starts_ms, strict=True)):
        final = place + 1 == len(drafts)
        end_ms = max(spans_ms[place][1], start_ms + needs_ms[place])
        limit_ms = last_ms if final else starts_ms[place + 1]
        wanted_s = max(_MIN_CUE_S, sum(map(width, draft.lines)) / shape.cps)
        wanted_ms = start_ms + round(wanted_s * 1000)
        if limit_ms is not None:
            wanted_ms = min(wanted_ms, limit_ms if final else limit_ms - round(_GAP_S * 1000))
        end_ms = max(end_ms, wanted_ms)
        if limit_ms is not None:
            end_ms = min(end_ms, limit_ms)
        placed.append((start_ms, min(end_ms, start_ms + longest_ms)))
    return placed
