"""Build caption cues from a transcript.

Guarantees for any input: 0 <= start < end, in order, no overlap, within the recording, at most `max_lines` lines of at
most `max_line_width` cells, at most `max_cue_s` long, and every visible character exactly once, in the order of its
speaker. Reading speed, minimum duration, gaps and balanced lines are best effort. Times are whole milliseconds.

There are two exceptions. A grapheme wider than a line is a line of its own. If the declared duration has fewer
milliseconds than there are cues, the cues run past it, because lost text is worse than wrong times.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import NamedTuple

from ..types.transcripts import Entity, Segment, Transcript, Word
from .alignment import Anchor, align_words
from .line_breaking import (
    Atom,
    break_lines,
    collapse_whitespace,
    count_lines,
    count_words,
    ends_sentence,
    group_into_cues,
    has_visible_text,
    is_unspaced,
    join_words,
    measure_width,
    score_breaks,
    split_atoms,
    split_graphemes,
)
from .line_breaking import CaptionLimits as CaptionLimits  # re-exported
from .sounds import quote_event
from .untimed import DEFAULT_LETTERS_PER_S, count_letters, covers_text

DEFAULT_CAPTION_LIMITS = CaptionLimits()

# Nothing is divided because of its width.
_UNLIMITED = CaptionLimits(max_line_width=1_000_000)

_MIN_CUE_S = 1.0  # shorter cues cannot be read
_MIN_GAP_S = 2 / 24  # two frames at 24 fps; without a gap, viewers miss the change of text
_MIN_SCHEDULED_CUE_MS = 500  # kept for a cue at the expense of its neighbors, unless it is spoken faster
_MAX_TIME_S = 1e9  # 32 years; up to here a float holds milliseconds exactly
_MAX_MEASURE = 1e6  # of a logarithm or a ratio; also excludes what is not finite
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class Cue:
    """One caption. Lines are stripped and not empty. They do not contain the speaker."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]
    speaker: str | None = None


class TimedText(NamedTuple):
    """A word with its punctuation, or a character of a script without spaces. Times are None if none are known.

    `starts_segment`: the first part of a segment. `is_event`: a sound that is not speech.
    """

    text: str
    start_s: float | None
    end_s: float | None
    has_space_before: bool
    speaker: str | None = None
    confidence: float | None = None
    is_sentence_end: bool = False
    starts_segment: bool = False
    is_event: bool = False


class _Draft(NamedTuple):
    """A cue with the times of its text, before the times of its neighbors are considered."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]
    speaker: str | None


class _Passage(NamedTuple):
    """A text that becomes one or more cues. With `regroup` it may be split at pauses even if it fits one cue."""

    start_s: float
    end_s: float
    text: str
    speaker: str | None = None
    words: tuple[Word, ...] = ()
    regroup: bool = False


def build_cues(
    transcript: Transcript, limits: CaptionLimits = DEFAULT_CAPTION_LIMITS, *, by_word: bool = False
) -> tuple[Cue, ...]:
    """Build cues from segments, or from words if there are no segments. Split what is too long for one cue.

    Inside a segment, cue times come from its words, otherwise in proportion to the text. With `by_word` the words
    determine the cues, and the segments only supply punctuation and speakers. Without segments the cues show
    `transcript.text` if it matches the words, otherwise the words. Text without times is spread over the recording; the
    caller must report that these times are estimates. A cue may extend into silence for its reading speed. It starts
    late only if it would overlap the previous one. The first line of a turn has space for `format_speaker_prefix`.
    A sound that is not speech becomes a cue in square brackets if there is no speech at that time. If speakers talk at
    the same time, their cues are ordered by start.
    """
    normalized = normalize_transcript(transcript)
    passages = list(_split_passages(normalized, limits, by_word=by_word))
    drafts = _draft_passages(passages, limits)
    if _sort_by_start(drafts) != drafts:
        # Any cue may begin a turn after the sort, so that each needs space for the name of its speaker.
        drafts = _sort_by_start(_draft_passages(passages, limits, indent_each=True))
    drafts = _insert_events(drafts, normalized.events, limits)
    return tuple(
        Cue(start_ms / 1000, end_ms / 1000, draft.lines, draft.speaker)
        for draft, (start_ms, end_ms) in zip(drafts, _schedule_cues(drafts, normalized.duration_s, limits), strict=True)
    )


def format_speaker_prefix(speaker: str | None, limits: CaptionLimits = DEFAULT_CAPTION_LIMITS) -> str:
    """Format `NAME: ` for caption formats without speakers. Truncate it to half a line; return "" if nothing fits."""
    if speaker is None or measure_width(f"{speaker}: ") <= limits.max_line_width // 2:
        return f"{speaker}: " if speaker else ""
    shortened = ""
    for cluster in split_graphemes(speaker):
        if measure_width(f"{shortened}{cluster}…: ") > limits.max_line_width // 2:
            break
        shortened += cluster
    return f"{shortened.rstrip()}…: " if shortened.strip() else ""


# --- normalization ---------------------------------------------------------------------------------------------------


def normalize_transcript(transcript: Transcript) -> Transcript:
    """Repair invalid or unordered times and empty or padded texts in a transcript from a gateway.

    Segments and words are sorted by start, with 0 <= start <= end <= duration. A duration below a millisecond becomes
    unknown. A time that is not finite is taken from the neighbors. If no times are usable (none finite, or all equal),
    segments or words become () and the text remains; an empty text is built from them. Segment texts are stripped.
    Words keep their leading spaces, which `join_words` needs. Lone surrogates cannot be encoded and become U+FFFD.
    """
    duration_s = transcript.duration_s
    if duration_s is not None and not 0.001 <= duration_s <= _MAX_TIME_S:
        duration_s = None
    segments = [
        segment._replace(
            text=_replace_surrogates(segment.text).strip(),
            speaker=_normalize_speaker(segment.speaker),
            channel=_keep_index(segment.channel),
            no_speech_prob=_keep_share(segment.no_speech_prob),
            avg_logprob=_keep_measure(segment.avg_logprob),
            compression_ratio=_keep_measure(segment.compression_ratio),
        )
        for segment in transcript.segments
        if has_visible_text(segment.text)
    ]
    words = [_normalize_word(word) for word in transcript.words if has_visible_text(word.text)]
    text = _replace_surrogates(transcript.text).strip()
    if not has_visible_text(text):
        text = join_words([segment.text for segment in segments] or [word.text for word in words])
    segment_spans = _repair_times([(segment.start_s, segment.end_s) for segment in segments], duration_s)
    word_spans = _repair_times([(word.start_s, word.end_s) for word in words], duration_s)
    events = [
        _repair_event(_normalize_word(event), duration_s) for event in transcript.events if has_visible_text(event.text)
    ]
    repaired_segments = [
        segment._replace(start_s=start_s, end_s=end_s)
        for segment, (start_s, end_s) in zip(segments, segment_spans, strict=False)
    ]
    repaired_words = [
        word._replace(start_s=start_s, end_s=end_s) for word, (start_s, end_s) in zip(words, word_spans, strict=False)
    ]
    return transcript._replace(
        text=text,
        duration_s=duration_s,
        segments=tuple(sorted(repaired_segments, key=lambda segment: segment.start_s)),
        words=tuple(sorted(repaired_words, key=lambda word: word.start_s)),
        events=tuple(sorted(events, key=lambda event: event.start_s)),
        entities=tuple(map(_normalize_entity, transcript.entities)),
        confidence=_keep_share(transcript.confidence),
        language_confidence=_keep_share(transcript.language_confidence),
    )


def _normalize_word(word: Word) -> Word:
    return word._replace(
        text=_replace_surrogates(word.text),
        speaker=_normalize_speaker(word.speaker),
        channel=_keep_index(word.channel),
        confidence=_keep_share(word.confidence),
    )


def _normalize_entity(entity: Entity) -> Entity:
    return Entity(
        _replace_surrogates(entity.type),
        _replace_surrogates(entity.text),
        _keep_index(entity.start),
        _keep_index(entity.end),
    )


def _keep_index(index: int | None) -> int | None:
    return index if index is not None and index >= 0 else None


def _keep_share(share: float | None) -> float | None:
    return share if share is not None and 0 <= share <= 1 else None


def _keep_measure(value: float | None) -> float | None:
    return value if value is not None and abs(value) <= _MAX_MEASURE else None


def _normalize_speaker(name: str | None) -> str | None:
    return collapse_whitespace(_replace_surrogates(name or "")) or None


def _replace_surrogates(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)


def _repair_times(spans: Sequence[tuple[float, float]], duration_s: float | None) -> list[tuple[float, float]]:
    """Return the spans with finite times within the recording, or [] if the times are unusable."""
    max_time_s = _MAX_TIME_S if duration_s is None else duration_s
    clamped_times = [(_clamp_time(start_s, max_time_s), _clamp_time(end_s, max_time_s)) for start_s, end_s in spans]
    next_starts = [duration_s]
    for start, _ in reversed(clamped_times[1:]):
        next_starts.append(next_starts[-1] if start is None else start)
    repaired: list[tuple[float, float]] = []
    previous_end_s = 0.0
    for (start, end), next_start in zip(clamped_times, reversed(next_starts), strict=False):
        repaired_start_s = start if start is not None else previous_end_s if end is None else min(previous_end_s, end)
        end_s = end if end is not None else next_start if next_start is not None else repaired_start_s
        previous_end_s = max(repaired_start_s, end_s)
        repaired.append((repaired_start_s, previous_end_s))
    all_unknown = all(pair == (None, None) for pair in clamped_times)
    return [] if all_unknown or len({round(time_s, 3) for span in repaired for time_s in span}) < 2 else repaired


def _repair_event(event: Word, duration_s: float | None) -> Word:
    """Return an event with times in the recording. An unknown time is the other one, or the start."""
    max_time_s = _MAX_TIME_S if duration_s is None else duration_s
    start_s, end_s = _clamp_time(event.start_s, max_time_s), _clamp_time(event.end_s, max_time_s)
    known_start_s = start_s if start_s is not None else end_s or 0.0
    return event._replace(start_s=known_start_s, end_s=max(known_start_s, end_s or 0.0))


def _clamp_time(time_s: float, max_time_s: float) -> float | None:
    return min(max(float(time_s), 0.0), max_time_s) if abs(time_s) <= _MAX_TIME_S else None


# --- passages: texts with the words that time them -------------------------------------------------------------------


def _split_passages(transcript: Transcript, limits: CaptionLimits, *, by_word: bool) -> Iterator[_Passage]:
    if transcript.segments:
        turns = [list(turn) for _, turn in groupby(transcript.segments, key=lambda segment: segment.speaker)]
        word_starts = [word.start_s for word in transcript.words]
        for turn in turns:
            merged = _build_passage(turn, transcript.words, word_starts, regroup=True) if by_word else None
            if merged is not None and align_words(merged.text, merged.words):
                yield merged
            else:
                yield from (_build_passage([segment], transcript.words, word_starts) for segment in turn)
    elif transcript.words and (passage := _build_word_passage(transcript)) is not None:
        yield passage
    elif has_visible_text(transcript.text):
        yield _Passage(
            0.0, transcript.duration_s or max(_MIN_CUE_S, measure_width(transcript.text) / limits.cps), transcript.text
        )


def _build_word_passage(transcript: Transcript) -> _Passage | None:
    """Return the passage of a transcript without segments. None if the words are only a part of another text."""
    text, words = transcript.text, transcript.words
    start_s, end_s = words[0].start_s, max(word.end_s for word in words)
    anchors = align_words(text, words)
    if not anchors:
        joined = join_words([word.text for word in words])
        return _Passage(start_s, end_s, joined, words=words, regroup=True) if covers_text(joined, text) else None
    # Text before the first word and after the last one has no times.
    start_s = max(start_s - count_letters(text[: anchors[0].start]) / DEFAULT_LETTERS_PER_S, 0.0)
    last_s = end_s + count_letters(text[anchors[-1].end :]) / DEFAULT_LETTERS_PER_S
    end_s = last_s if transcript.duration_s is None else max(end_s, min(last_s, transcript.duration_s))
    return _Passage(start_s, end_s, text, words=words, regroup=True)


def _build_passage(
    segments: Sequence[Segment], words: Sequence[Word], word_starts: Sequence[float], *, regroup: bool = False
) -> _Passage:
    start_s, end_s = segments[0].start_s, max(segment.end_s for segment in segments)
    speaker = segments[0].speaker
    words_inside = tuple(words[bisect_left(word_starts, start_s - 0.05) : bisect_left(word_starts, end_s)])
    # Speakers may interrupt each other.
    words_of_speaker = tuple(word for word in words_inside if word.speaker in (None, speaker))
    return _Passage(
        start_s,
        end_s,
        join_words([segment.text for segment in segments]),
        speaker,
        words_of_speaker or words_inside,
        regroup,
    )


# --- words -----------------------------------------------------------------------------------------------------------


def list_timed_texts(transcript: Transcript) -> tuple[TimedText, ...]:
    """Return the text of a transcript in parts with times, each visible character once and in order.

    The times are those of its words. Where the gateway named none, they are shares of the segment. A transcript that
    has neither has no times.
    """
    normalized = normalize_transcript(transcript)
    parts: list[TimedText] = []
    for passage in _split_passages(normalized, _UNLIMITED, by_word=False):
        first, *others = _time_passage(passage, is_timed=bool(normalized.segments) or bool(passage.words))
        first = first._replace(starts_segment=True)
        if parts and is_unspaced(parts[-1].text[-1]) and is_unspaced(first.text[0]):
            first = first._replace(has_space_before=False)
        parts += [first, *others]
    return tuple(parts)


def join_timed_texts(words: Sequence[TimedText]) -> str:
    return "".join(
        f" {word.text}" if word.has_space_before and index else word.text for index, word in enumerate(words)
    )


def _time_passage(passage: _Passage, *, is_timed: bool) -> Iterator[TimedText]:
    anchors = align_words(passage.text, passage.words)
    atoms = split_atoms(passage.text, _UNLIMITED, 0, [(anchor.start, anchor.end) for anchor in anchors])
    _set_times(atoms, passage, anchors or [Anchor(0, len(passage.text), passage.start_s, passage.end_s)])
    confidences = {(word.start_s, word.end_s): word.confidence for word in passage.words}
    anchor_starts = [anchor.start for anchor in anchors]
    for atom in score_breaks(atoms):
        index = bisect_right(anchor_starts, max(atom.end - 1, atom.start)) - 1
        anchor = anchors[index] if index >= 0 and anchors[index].end > atom.start else None
        yield TimedText(
            atom.text,
            atom.start_s if is_timed else None,
            atom.end_s if is_timed else None,
            atom.has_space_before,
            passage.speaker,
            None if anchor is None else confidences.get((anchor.start_s, anchor.end_s)),
            is_sentence_end=ends_sentence(atom.text),
        )


# --- drafts: passages split into cues --------------------------------------------------------------------------------


def _draft_passages(passages: Sequence[_Passage], limits: CaptionLimits, *, indent_each: bool = False) -> list[_Draft]:
    """Draft the cues of passages, with space for the speaker in the first line of each turn, or in every line."""
    drafts: list[_Draft] = []
    speaker: str | None = None
    for passage in passages:
        indent = measure_width(format_speaker_prefix(passage.speaker, limits))
        if indent_each:
            drafts += _draft_cues(passage, replace(limits, max_line_width=limits.max_line_width - indent), 0)
        else:
            drafts += _draft_cues(passage, limits, indent if passage.speaker != speaker else 0)
        speaker = passage.speaker
    return drafts


def _sort_by_start(drafts: Sequence[_Draft]) -> list[_Draft]:
    """Sort cues of speakers who talk at the same time by start. The order of the cues of each speaker stays."""
    latest_starts: dict[str | None, float] = {}
    keys: list[float] = []
    for draft in drafts:
        keys.append(max(draft.start_s, latest_starts.get(draft.speaker, 0.0)))
        latest_starts[draft.speaker] = keys[-1]
    return [drafts[index] for index in sorted(range(len(drafts)), key=keys.__getitem__)]


def _draft_cues(passage: _Passage, limits: CaptionLimits, indent: int) -> list[_Draft]:
    anchors = align_words(passage.text, passage.words)
    atoms = split_atoms(passage.text, limits, indent, [(anchor.start, anchor.end) for anchor in anchors])
    duration_s = passage.end_s - passage.start_s
    fits_one_cue = duration_s <= limits.max_cue_s and count_lines(atoms, limits, indent) <= limits.max_lines
    if limits.words_per_cue is not None:
        fits_one_cue = fits_one_cue and count_words(atoms) <= limits.words_per_cue
    if fits_one_cue and not passage.regroup:
        return [
            _Draft(passage.start_s, passage.end_s, break_lines(score_breaks(atoms), limits, indent), passage.speaker)
        ]
    _set_times(atoms, passage, anchors or [Anchor(0, len(passage.text), passage.start_s, passage.end_s)])
    if not anchors:
        for atom, following in pairwise(atoms):
            atom.end_s = following.start_s  # the time share of a space is not a pause
    groups = group_into_cues(score_breaks(atoms), limits, indent, has_estimated_times=not anchors)
    drafts: list[_Draft] = []
    for index, group in enumerate(groups):
        start_s, end_s = group[0].start_s, group[-1].end_s
        if index + 1 < len(groups):
            end_before_gap_s = groups[index + 1][0].start_s - _MIN_GAP_S
            if end_before_gap_s < end_s and end_before_gap_s - start_s >= _MIN_CUE_S:
                end_s = end_before_gap_s
        drafts.append(_Draft(start_s, end_s, break_lines(group, limits, 0 if index else indent), passage.speaker))
    return drafts


def _insert_events(drafts: Sequence[_Draft], events: Sequence[Word], limits: CaptionLimits) -> list[_Draft]:
    """Add a cue for each event that overlaps no speech and no other event."""
    cues = list(drafts)
    for event in events:
        text = quote_event(event.text)
        index = bisect_right([cue.start_s for cue in cues], event.start_s)
        is_free = not (index and cues[index - 1].end_s > event.start_s) and not (
            index < len(cues) and cues[index].start_s < event.end_s
        )
        atoms = split_atoms(f"[{text}]", limits, 0, [])
        if is_free and has_visible_text(text) and count_lines(atoms, limits, 0) <= limits.max_lines:
            lines = break_lines(score_breaks(atoms), limits, 0)
            cues.insert(index, _Draft(event.start_s, min(event.end_s, event.start_s + limits.max_cue_s), lines, None))
    return cues


def _set_times(atoms: Sequence[Atom], passage: _Passage, anchors: Sequence[Anchor]) -> None:
    """Set the times of every atom from the anchors that contain it, and by interpolation between anchors."""
    text_end = len(passage.text)
    bounded_anchors = [
        Anchor(-1, 0, passage.start_s, passage.start_s),
        *anchors,
        Anchor(text_end, text_end + 1, passage.end_s, passage.end_s),
    ]
    anchor_starts = [anchor.start for anchor in bounded_anchors]
    position_s = passage.start_s
    for atom in atoms:
        position_s = atom.start_s = min(
            max(_interpolate_time(bounded_anchors, anchor_starts, atom.start, is_end=False), position_s), passage.end_s
        )
        position_s = atom.end_s = min(
            max(_interpolate_time(bounded_anchors, anchor_starts, atom.end, is_end=True), position_s), passage.end_s
        )


def _interpolate_time(
    anchors: Sequence[Anchor], anchor_starts: Sequence[int], text_index: int, *, is_end: bool
) -> float:
    """Return the time of an index in the text. `is_end` means that the index ends an atom and does not start one."""
    anchor_index = bisect_right(anchor_starts, text_index - is_end) - 1
    anchor = anchors[anchor_index]
    if text_index <= anchor.end:
        return anchor.start_s + (anchor.end_s - anchor.start_s) * (text_index - anchor.start) / (
            anchor.end - anchor.start
        )
    next_anchor = anchors[anchor_index + 1]
    return anchor.end_s + (next_anchor.start_s - anchor.end_s) * (text_index - anchor.end) / (
        next_anchor.start - anchor.end
    )


# --- scheduling ------------------------------------------------------------------------------------------------------


def _schedule_cues(drafts: Sequence[_Draft], duration_s: float | None, limits: CaptionLimits) -> list[tuple[int, int]]:
    """Return start and end of every cue in milliseconds, without overlap.

    A cue starts later if the previous one needs the time, and earlier near the end of the recording.
    """
    max_end_ms = None if duration_s is None else round(duration_s * 1000)
    if max_end_ms is not None and duration_s is not None:
        max_end_ms -= max_end_ms / 1000 > duration_s
        max_end_ms = None if max_end_ms < len(drafts) else max_end_ms
    min_cue_ms = (
        _MIN_SCHEDULED_CUE_MS
        if max_end_ms is None or not drafts
        else min(_MIN_SCHEDULED_CUE_MS, max_end_ms // len(drafts))
    )
    max_cue_ms = int(limits.max_cue_s * 1000)
    spans_ms = [(round(draft.start_s * 1000), round(draft.end_s * 1000)) for draft in drafts]
    min_durations_ms = [min(end - start, min_cue_ms) if end > start else min_cue_ms for start, end in spans_ms]
    starts_ms: list[int] = []
    next_free_ms = 0
    for (start_ms, _), min_duration_ms in zip(spans_ms, min_durations_ms, strict=True):
        starts_ms.append(max(start_ms, next_free_ms))
        next_free_ms = starts_ms[-1] + min_duration_ms
    if max_end_ms is not None:
        next_free_ms = max_end_ms
        for index in reversed(range(len(drafts))):
            next_free_ms = starts_ms[index] = min(starts_ms[index], next_free_ms - min_durations_ms[index])
    scheduled: list[tuple[int, int]] = []
    for index, (draft, start_ms) in enumerate(zip(drafts, starts_ms, strict=True)):
        is_final = index + 1 == len(drafts)
        end_ms = max(spans_ms[index][1], start_ms + min_durations_ms[index])
        latest_end_ms = max_end_ms if is_final else starts_ms[index + 1]
        reading_s = max(_MIN_CUE_S, sum(map(measure_width, draft.lines)) / limits.cps)
        reading_end_ms = start_ms + round(reading_s * 1000)
        if latest_end_ms is not None:
            reading_end_ms = min(
                reading_end_ms, latest_end_ms if is_final else latest_end_ms - round(_MIN_GAP_S * 1000)
            )
        end_ms = max(end_ms, reading_end_ms)
        if latest_end_ms is not None:
            end_ms = min(end_ms, latest_end_ms)
        scheduled.append((start_ms, min(end_ms, start_ms + max_cue_ms)))
    return scheduled
