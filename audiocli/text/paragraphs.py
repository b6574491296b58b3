"""Divide a transcript into paragraphs for people who read it: by speaker, by pause and by length.

Every visible character of the transcript is in exactly one paragraph, in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..types.transcripts import Transcript
from .cues import TimedText, join_timed_texts, list_timed_texts
from .sounds import quote_event

# A paragraph ends at a sentence end after this pause, or after this many characters.
MIN_PAUSE_S = 2.0
MIN_CHARACTERS = 500
# It ends anywhere after this pause, or after this many characters of speech without a sentence end.
MAX_PAUSE_S = 6.0
MAX_CHARACTERS = 1_500


class Paragraph(NamedTuple):
    """Words of one speaker. The first has no space before it."""

    words: tuple[TimedText, ...]

    @property
    def speaker(self) -> str | None:
        return self.words[0].speaker

    @property
    def start_s(self) -> float | None:
        return self.words[0].start_s

    @property
    def end_s(self) -> float | None:
        return self.words[-1].end_s

    @property
    def text(self) -> str:
        return join_timed_texts(self.words)


def build_paragraphs(transcript: Transcript) -> tuple[Paragraph, ...]:
    """Return the paragraphs of a transcript. Sounds that are not speech are words in square brackets."""
    return tuple(_group(_insert_events(transcript)))


def _insert_events(transcript: Transcript) -> Iterator[TimedText]:
    events = iter(sorted(transcript.events, key=lambda event: event.start_s))
    event = next(events, None)
    previous: TimedText | None = None
    for word in list_timed_texts(transcript):
        while event is not None and word.start_s is not None and event.start_s <= word.start_s:
            # A sound during the last words of a speaker belongs to them.
            is_during = previous is not None and previous.end_s is not None and event.start_s < previous.end_s
            speaker = previous.speaker if previous is not None and is_during else word.speaker
            yield _build_event(event.text, event.start_s, event.end_s, speaker)
            event = next(events, None)
        yield word
        previous = word
    while event is not None:
        yield _build_event(event.text, event.start_s, event.end_s, None if previous is None else previous.speaker)
        event = next(events, None)


def _build_event(name: str, start_s: float, end_s: float, speaker: str | None) -> TimedText:
    return TimedText(f"[{quote_event(name)}]", start_s, end_s, True, speaker, is_event=True)


def _group(words: Iterator[TimedText]) -> Iterator[Paragraph]:
    current: list[TimedText] = []
    characters = 0
    for word in words:
        if current and _must_divide(current[-1], word, characters):
            yield Paragraph(tuple(current))
            current, characters = [], 0
        current.append(word)
        characters += len(word.text) + 1
    if current:
        yield Paragraph(tuple(current))


def _must_divide(previous: TimedText, word: TimedText, characters: int) -> bool:
    if word.speaker != previous.speaker:
        return True
    pause_s = 0.0 if word.start_s is None or previous.end_s is None else word.start_s - previous.end_s
    if previous.is_sentence_end or previous.is_event:
        return pause_s >= MIN_PAUSE_S or characters >= MIN_CHARACTERS
    return pause_s >= MAX_PAUSE_S or characters >= MAX_CHARACTERS
