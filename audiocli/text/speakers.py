"""Label the segments of a transcript with the speakers of its words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from ..types.transcripts import Segment, Word
from .alignment import Anchor, align_words
from .line_breaking import join_words
from .untimed import count_letters, covers_text

# Times of words and segments differ by less.
_MAX_DRIFT_S = 0.05


def label_segments(text: str, segments: Sequence[Segment], words: Sequence[Word]) -> tuple[Segment, ...]:
    """Return the segments with the speakers of the words. Split a segment in which several people speak.

    A segment keeps its own speaker if only the words of others overlap it in time. Without segments, every turn of a
    speaker becomes one. Every character of the segments remains, in order.
    """
    if not any(word.speaker for word in words):
        return tuple(segments)
    if not segments:
        return tuple(_build_turns(text, words))
    return tuple(part for index in range(len(segments)) for part in _label_segment(segments, index, words))


def _build_turns(text: str, words: Sequence[Word]) -> Iterator[Segment]:
    """Yield a segment for each turn, with the text of the transcript if it matches the words."""
    whole = Segment(words[0].start_s, max(word.end_s for word in words), text)
    if align_words(text, words):
        yield from _split_by_speaker(whole, words)
    elif covers_text(join_words([word.text for word in words]), text):
        for speaker, turn in groupby(words, key=lambda word: word.speaker):
            spoken = list(turn)
            yield Segment(
                spoken[0].start_s, max(word.end_s for word in spoken), join_words([w.text for w in spoken]), speaker
            )


def _label_segment(segments: Sequence[Segment], index: int, words: Sequence[Word]) -> Iterator[Segment]:
    segment = segments[index]
    inside = [
        word
        for word in words
        if segment.start_s - _MAX_DRIFT_S <= (word.start_s + word.end_s) / 2 <= segment.end_s + _MAX_DRIFT_S
        and (segment.channel is None or word.channel in (None, segment.channel))
    ]
    if segment.speaker is not None and any(
        other.start_s < segment.end_s - _MAX_DRIFT_S and other.end_s > segment.start_s + _MAX_DRIFT_S
        for position, other in enumerate(segments)
        if position != index
    ):
        yield segment
    else:
        yield from _split_by_speaker(segment, inside)


def _split_by_speaker(segment: Segment, words: Sequence[Word]) -> Iterator[Segment]:
    """Yield the turns in a segment. If its text does not match the words, it is the turn of who says the most."""
    letters: dict[str, int] = {}
    for word in words:
        if word.speaker is not None:
            letters[word.speaker] = letters.get(word.speaker, 0) + count_letters(word.text)
    anchors = align_words(segment.text, words) if len(letters) > 1 else []
    turns = _group_by_speaker(anchors)
    if len(turns) < 2:
        speaker = max(letters, key=letters.__getitem__) if letters else segment.speaker
        yield segment._replace(speaker=speaker)
        return
    starts = [0, *(turn[0].start for turn in turns[1:]), len(segment.text)]
    for number, turn in enumerate(turns):
        yield segment._replace(
            start_s=segment.start_s if number == 0 else turn[0].start_s,
            end_s=segment.end_s if number == len(turns) - 1 else max(anchor.end_s for anchor in turn),
            text=segment.text[starts[number] : starts[number + 1]].strip(),
            speaker=turn[0].speaker,
        )


def _group_by_speaker(anchors: Sequence[Anchor]) -> list[list[Anchor]]:
    """Group the words into turns. A word without a speaker belongs to the previous turn, the first to the next one."""
    turns: list[list[Anchor]] = []
    for anchor in anchors:
        if turns and (anchor.speaker is None or turns[-1][0].speaker in (anchor.speaker, None)):
            turns[-1].append(anchor)
            if turns[-1][0].speaker is None:
                turns[-1][0] = turns[-1][0]._replace(speaker=anchor.speaker)
        else:
            turns.append([anchor])
    return turns
