"""Transcripts, their segments and their words."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from .ledger import Usage


class Word(NamedTuple):
    """A word, or a sound that is not speech, with its times in seconds from the start of the recording.

    Attributes:
        channel: Index of its audio channel, from 0, if the channels were transcribed separately.
        confidence: Confidence of the recognition, 0 to 1.
    """

    start_s: float
    end_s: float
    text: str
    speaker: str | None = None
    channel: int | None = None
    confidence: float | None = None


class Segment(NamedTuple):
    """A passage of a transcript with its times, in seconds from the start of the recording. `channel` as in `Word`.

    Attributes:
        no_speech_prob: Probability that there is no speech, 0 to 1. This and the next two are those of Whisper.
        avg_logprob: Mean logarithm of the probability of its tokens.
        compression_ratio: How much shorter the text becomes by compression. A text that repeats itself has a high one.
    """

    start_s: float
    end_s: float
    text: str
    speaker: str | None = None
    channel: int | None = None
    no_speech_prob: float | None = None
    avg_logprob: float | None = None
    compression_ratio: float | None = None


class Entity(NamedTuple):
    """A name, number or the like that the gateway found in a transcript.

    `start` and `end` are its position in the text of the transcript, in characters; None if it is not in the text.
    """

    type: str
    text: str
    start: int | None = None
    end: int | None = None


class Timing(StrEnum):
    """Where the times of a transcript come from. `CHUNK` is the coarsest: the bounds of the chunks that were sent."""

    WORD = "word"
    SEGMENT = "segment"
    CHUNK = "chunk"
    NONE = "none"


class Transcript(NamedTuple):
    """A transcript.

    Attributes:
        language: Two-letter code, or the reported name if it has no known code.
        segments_are_chunks: Whether some segments are chunks of a long recording instead of segments of the gateway.
        untimed_letters: Letters in `segments` whose times are estimates, because the gateway gave none for them.
        events: Sounds that are not speech, such as "(laughter)". They are not in `text`, `segments` and `words`.
        confidence: Confidence of the recognition, 0 to 1. `language_confidence` likewise.
    """

    text: str
    language: str | None = None
    duration_s: float | None = None
    segments: tuple[Segment, ...] = ()
    words: tuple[Word, ...] = ()
    usage: Usage = Usage()
    segments_are_chunks: bool = False
    untimed_letters: int = 0
    events: tuple[Word, ...] = ()
    entities: tuple[Entity, ...] = ()
    confidence: float | None = None
    language_confidence: float | None = None

    @property
    def timing(self) -> Timing:
        if self.words:
            return Timing.WORD
        if self.segments:
            return Timing.CHUNK if self.segments_are_chunks else Timing.SEGMENT
        return Timing.NONE
