"""One transcript out of those of the pieces of something long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from ..audio.split_plan import Piece, Span
from ..types.values import Segment, Transcript, Usage, Word
from .cues import tidy
from .line_breaking import has_ink, joined
from .overlap import OverlapRemover, parted

T = TypeVar("T", Word, Segment)


def stitched(
    pieces: Sequence[Piece], transcripts: Sequence[Transcript], *, duration_s: float | None = None
) -> Transcript:
    """Join the transcripts of pieces, with times in each piece, to that of the whole recording.

    What an overlap doubled is there once. Times are moved by the piece's own start, in order and within the recording.
    A piece that gave text only is one segment (`by_piece`). Words are kept if every piece with a text has some. The
    language is the first that is told; usage is summed as `summed` does.
    """
    texts: list[str] = []
    parts: list[OverlapRemover] = []
    for piece, transcript in zip(pieces, transcripts, strict=True):
        own = tidy(transcript._replace(duration_s=piece.duration_s))
        if has_ink(own.text):
            texts.append(own.text)
            parts.append(_lines(piece, own))
    whole = list(parts)
    for place in range(len(parts) - 1):
        if parts[place].end_s > parts[place + 1].start_s:
            parts[place], parts[place + 1] = parted(parts[place], parts[place + 1])
    for place, part in enumerate(parts):
        if part.segments != whole[place].segments:
            texts[place] = joined([segment.text for segment in part.segments])
    is_timed = all(part.words for part in whole)
    needs_segments = any(part.is_told for part in parts) or not is_timed
    segments = [segment for part in parts for segment in part.segments] if needs_segments else []
    words = [word for part in parts for word in part.words] if is_timed else []
    return Transcript(
        text=joined(texts),
        language=next((told.language for told in transcripts if told.language), None),
        duration_s=duration_s,
        segments=tuple(_in_order(segments, duration_s)),
        words=tuple(_in_order(words, duration_s)),
        usage=summed([transcript.usage for transcript in transcripts]),
        by_piece=bool(segments) and not all(part.is_told for part in parts),
    )


def of_pieces(spans: Sequence[Span], texts: Sequence[str], *, duration_s: float | None = None) -> Transcript:
    """Make a transcript whose only times are those of its pieces: for captions of a text that was spoken."""
    segments = [
        Segment(span.start_s, span.end_s, text.strip())
        for span, text in zip(spans, texts, strict=True)
        if has_ink(text)
    ]
    return Transcript(
        joined([segment.text for segment in segments]),
        duration_s=duration_s,
        segments=tuple(segments),
        by_piece=True,
    )


def moved(transcript: Transcript, by_s: float) -> Transcript:
    """Move all times of a transcript; none before its beginning."""
    return transcript._replace(
        segments=tuple(_in_order(_moved(transcript.segments, by_s), None)),
        words=tuple(_in_order(_moved(transcript.words, by_s), None)),
    )


def summed(usages: Sequence[Usage]) -> Usage:
    """Add up what several requests used. A number that one of them does not tell is unknown."""

    def total(name: str) -> float | int | None:
        told = [getattr(usage, name) for usage in usages]
        return None if not told or None in told else sum(told)

    nonsense = next((usage.nonsense for usage in usages if usage.nonsense is not None), None)
    return Usage(**{name: total(name) for name in Usage._fields if name != "nonsense"}, nonsense=nonsense)  # type: ignore[arg-type]


def _lines(piece: Piece, own: Transcript) -> OverlapRemover:
    """Move what a piece tells into the recording; without segments of its own it is one."""
    words = tuple(_moved(own.words, piece.start_s))
    segments = tuple(_moved(own.segments, piece.start_s))
    if not segments:
        start_s = words[0].start_s if words else piece.start_s
        end_s = max(word.end_s for word in words) if words else piece.end_s
        return OverlapRemover(piece.start_s, piece.end_s, (Segment(start_s, end_s, own.text),), words, is_told=False)
    return OverlapRemover(piece.start_s, piece.end_s, segments, words, is_told=not own.by_piece)


def _moved(timed: Iterable[T], by_s: float) -> Iterator[T]:
    for item in timed:
        yield item._replace(start_s=item.start_s + by_s, end_s=item.end_s + by_s)


def _in_order(timed: Iterable[T], duration_s: float | None) -> Iterator[T]:
    """Let nothing begin before what stands before it, nor be outside of the recording."""
    before_s = 0.0
    for item in timed:
        start_s, end_s = max(item.start_s, before_s), max(item.start_s, before_s, item.end_s)
        if duration_s is not None:
            start_s, end_s = min(start_s, duration_s), min(end_s, duration_s)
        yield item._replace(start_s=start_s, end_s=end_s)
        before_s = start_s
