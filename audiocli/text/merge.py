"""Merge the transcripts of the chunks of a long recording."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from ..audio.chunk_boundaries import AudioChunk
from ..types.ledger import Usage
from ..types.transcripts import Segment, Timing, Transcript, Word
from .cues import normalize_transcript
from .line_breaking import has_visible_text, join_words
from .overlap import TranscriptPart, dedupe_overlap
from .sounds import locate_entities
from .untimed import count_letters

T = TypeVar("T", Word, Segment)


def merge_transcripts(
    chunks: Sequence[AudioChunk], transcripts: Sequence[Transcript], *, duration_s: float | None = None
) -> Transcript:
    """Merge the transcripts of chunks into the transcript of the recording.

    The times of each transcript are relative to its chunk. They are shifted by the start of the chunk and clamped to
    the recording, in order. Duplicate text in overlaps is removed. A chunk without times becomes one segment
    (`segments_are_chunks`). Words are kept if every chunk with a text has words. The language is the first known one,
    and usage is added up by `sum_usage`. A sound in an overlap is taken from the chunk in which it is farther from the
    edge. The confidence is the mean, by letters, if all chunks have one.
    """
    texts: list[str] = []
    normalized_transcripts: list[Transcript] = []
    parts: list[TranscriptPart] = []
    for chunk, transcript in zip(chunks, transcripts, strict=True):
        normalized = normalize_transcript(transcript._replace(duration_s=chunk.duration_s))
        normalized_transcripts.append(normalized)
        if has_visible_text(normalized.text):
            texts.append(normalized.text)
            parts.append(_build_part(chunk, normalized))
    original_parts = list(parts)
    for index in range(len(parts) - 1):
        if parts[index].end_s > parts[index + 1].start_s:
            parts[index], parts[index + 1] = dedupe_overlap(parts[index], parts[index + 1])
    for index, part in enumerate(parts):
        if part.segments != original_parts[index].segments:
            texts[index] = join_words([segment.text for segment in part.segments])
    has_words = all(part.words for part in original_parts)
    needs_segments = any(part.has_gateway_segments for part in parts) or not has_words
    segments = [segment for part in parts for segment in part.segments] if needs_segments else []
    words = [word for part in parts for word in part.words] if has_words else []
    text = join_words(texts)
    entities = [entity for transcript in normalized_transcripts for entity in transcript.entities]
    return Transcript(
        text=text,
        language=next((transcript.language for transcript in transcripts if transcript.language), None),
        duration_s=duration_s,
        segments=tuple(_clamp_in_order(segments, duration_s)),
        words=tuple(_clamp_in_order(words, duration_s)),
        usage=sum_usage([transcript.usage for transcript in transcripts]),
        segments_are_chunks=bool(segments) and not all(part.has_gateway_segments for part in parts),
        events=tuple(_clamp_in_order(_merge_events(chunks, normalized_transcripts), duration_s)),
        entities=locate_entities(text, entities, drop_missing=True),
        confidence=_compute_mean(normalized_transcripts, [item.confidence for item in normalized_transcripts]),
        language_confidence=_compute_mean(
            normalized_transcripts, [item.language_confidence for item in normalized_transcripts]
        ),
    )


def shift_transcript(transcript: Transcript, offset_s: float, duration_s: float | None) -> Transcript:
    """Return the transcript of a part of a recording with the times and the length of the recording."""
    return transcript._replace(
        duration_s=duration_s,
        segments=tuple(_clamp_in_order(_shift_times(transcript.segments, offset_s), duration_s)),
        words=tuple(_clamp_in_order(_shift_times(transcript.words, offset_s), duration_s)),
        events=tuple(_clamp_in_order(_shift_times(transcript.events, offset_s), duration_s)),
    )


def join_ranges(
    transcripts: Sequence[Transcript], spans: Sequence[tuple[float, float]], *, duration_s: float | None
) -> Transcript:
    """Join the transcripts of ranges of a recording, which have its times, in order.

    A transcript without times becomes one segment from `spans`, unless no transcript has times.
    """
    spoken = [
        (transcript, span) for transcript, span in zip(transcripts, spans, strict=True) if transcript.text.strip()
    ]
    has_times = any(transcript.timing is not Timing.NONE for transcript, _ in spoken)
    has_segments = any(transcript.segments for transcript, _ in spoken)
    has_words = all(transcript.words for transcript, _ in spoken)
    segments: list[Segment] = []
    for transcript, span in spoken:
        if transcript.segments:
            segments += transcript.segments
        elif has_times and (has_segments or not has_words):
            segments.append(_build_untimed_segment(transcript, span))
    return _join_details(transcripts, join_words([transcript.text for transcript, _ in spoken]), duration_s)._replace(
        segments=tuple(segments),
        words=tuple(word for transcript, _ in spoken for word in transcript.words) if has_words else (),
        segments_are_chunks=bool(segments)
        and any(transcript.segments_are_chunks or not transcript.segments for transcript, _ in spoken),
        events=tuple(event for transcript in transcripts for event in transcript.events),
    )


def merge_channels(
    transcripts: Sequence[Transcript],
    channels: Sequence[int],
    names: Sequence[str],
    *,
    duration_s: float | None,
) -> Transcript:
    """Merge the transcripts of the channels of a recording by time. Each channel is one speaker.

    A transcript without segments becomes one segment for each turn of its words, or one that spans the recording.
    """
    segments: list[Segment] = []
    words: list[Word] = []
    events: list[Word] = []
    for transcript, channel, name in zip(transcripts, channels, names, strict=True):
        own_segments = transcript.segments
        if not own_segments and transcript.text.strip():
            own_segments = _build_turns(transcript, duration_s)
        segments += [segment._replace(speaker=name, channel=channel) for segment in own_segments]
        words += [word._replace(speaker=name, channel=channel) for word in transcript.words]
        events += [event._replace(channel=channel) for event in transcript.events]
    segments.sort(key=lambda segment: (segment.start_s, segment.channel or 0))
    words.sort(key=lambda word: (word.start_s, word.channel or 0))
    events.sort(key=lambda event: event.start_s)
    spoken = [transcript for transcript in transcripts if transcript.text.strip()]
    text = join_words([segment.text for segment in segments])
    return _join_details(transcripts, text, duration_s)._replace(
        segments=tuple(segments),
        words=tuple(words) if all(transcript.words for transcript in spoken) else (),
        segments_are_chunks=any(
            transcript.segments_are_chunks or not (transcript.segments or transcript.words) for transcript in spoken
        ),
        events=tuple(events),
    )


# Words of one channel with a longer pause between them are two turns.
_TURN_PAUSE_S = 1.0


def _build_turns(transcript: Transcript, duration_s: float | None) -> tuple[Segment, ...]:
    """Return segments for a transcript without segments: one for each stretch of words without a long pause."""
    if not transcript.words:
        return (_build_untimed_segment(transcript, (0.0, duration_s or 0.0)),)
    turns: list[list[Word]] = []
    for word in transcript.words:
        if turns and word.start_s - turns[-1][-1].end_s < _TURN_PAUSE_S:
            turns[-1].append(word)
        else:
            turns.append([word])
    return tuple(Segment(turn[0].start_s, turn[-1].end_s, join_words([word.text for word in turn])) for turn in turns)


def _build_untimed_segment(transcript: Transcript, span: tuple[float, float]) -> Segment:
    if transcript.words:
        span = transcript.words[0].start_s, max(word.end_s for word in transcript.words)
    return Segment(*span, transcript.text)


def _join_details(transcripts: Sequence[Transcript], text: str, duration_s: float | None) -> Transcript:
    """Return a transcript with the text and all that has no times."""
    entities = [entity for transcript in transcripts for entity in transcript.entities]
    return Transcript(
        text=text,
        language=next((transcript.language for transcript in transcripts if transcript.language), None),
        duration_s=duration_s,
        usage=sum_usage([transcript.usage for transcript in transcripts]),
        untimed_letters=sum(transcript.untimed_letters for transcript in transcripts),
        entities=locate_entities(text, entities, drop_missing=True),
        confidence=_compute_mean(transcripts, [item.confidence for item in transcripts]),
        language_confidence=_compute_mean(transcripts, [item.language_confidence for item in transcripts]),
    )


def _merge_events(chunks: Sequence[AudioChunk], transcripts: Sequence[Transcript]) -> Iterator[Word]:
    """Yield the events of the chunks. One in an overlap is yielded once, by the middle of the overlap."""
    for index, (chunk, transcript) in enumerate(zip(chunks, transcripts, strict=True)):
        min_s = (chunks[index - 1].end_s + chunk.start_s) / 2 if index else 0.0
        max_s = (chunk.end_s + chunks[index + 1].start_s) / 2 if index + 1 < len(chunks) else math.inf
        for event in _shift_times(transcript.events, chunk.start_s):
            if min_s <= (event.start_s + event.end_s) / 2 < max_s:
                yield event


def _compute_mean(transcripts: Sequence[Transcript], values: Sequence[float | None]) -> float | None:
    """Return the mean of a value, weighted by letters, over the chunks with a text; None if one of them has none."""
    weighted = [
        (value, count_letters(transcript.text))
        for transcript, value in zip(transcripts, values, strict=True)
        if has_visible_text(transcript.text)
    ]
    total = sum(letters for _, letters in weighted)
    if not total or any(value is None for value, _ in weighted):
        return None
    return sum((value or 0.0) * letters for value, letters in weighted) / total


def sum_usage(usages: Sequence[Usage]) -> Usage:
    """Add up the usage of several requests. A number that one of them does not report is unknown.

    `invalid_cost` is the first invalid one.
    """

    def sum_field(name: str) -> float | int | None:
        values = [getattr(usage, name) for usage in usages]
        return None if not values or None in values else sum(values)

    invalid_cost = next((usage.invalid_cost for usage in usages if usage.invalid_cost is not None), None)
    sums = {name: sum_field(name) for name in Usage._fields if name != "invalid_cost"}
    return Usage(**sums, invalid_cost=invalid_cost)  # type: ignore[arg-type]


def _build_part(chunk: AudioChunk, transcript: Transcript) -> TranscriptPart:
    """Shift the transcript of a chunk into the recording. Without segments, the text becomes one segment."""
    words = tuple(_shift_times(transcript.words, chunk.start_s))
    segments = tuple(_shift_times(transcript.segments, chunk.start_s))
    if not segments:
        start_s = words[0].start_s if words else chunk.start_s
        end_s = max(word.end_s for word in words) if words else chunk.end_s
        return TranscriptPart(
            chunk.start_s, chunk.end_s, (Segment(start_s, end_s, transcript.text),), words, has_gateway_segments=False
        )
    return TranscriptPart(
        chunk.start_s, chunk.end_s, segments, words, has_gateway_segments=not transcript.segments_are_chunks
    )


def _shift_times(items: Iterable[T], offset_s: float) -> Iterator[T]:
    for item in items:
        yield item._replace(start_s=item.start_s + offset_s, end_s=item.end_s + offset_s)


def _clamp_in_order(items: Iterable[T], duration_s: float | None) -> Iterator[T]:
    """Yield items that start no earlier than the previous item and lie within the recording."""
    previous_start_s = 0.0
    for item in items:
        start_s, end_s = max(item.start_s, previous_start_s), max(item.start_s, previous_start_s, item.end_s)
        if duration_s is not None:
            start_s, end_s = min(start_s, duration_s), min(end_s, duration_s)
        yield item._replace(start_s=start_s, end_s=end_s)
        previous_start_s = start_s
