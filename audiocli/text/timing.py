"""Estimate when each sentence of a spoken text begins and ends."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import NamedTuple

from ..types.transcripts import Segment
from .sentences import split_sentences
from .speech_rate import estimate_duration_s
from .splitter import Chunk


class TimedChunk(NamedTuple):
    """A chunk of a text with its position in the audio, in seconds."""

    chunk: Chunk
    start_s: float
    duration_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + self.duration_s

    def scale(self, factor: float) -> TimedChunk:
        """Return the chunk with its times multiplied by a factor."""
        return TimedChunk(self.chunk, self.start_s * factor, self.duration_s * factor)


def time_sentences(timed_chunks: Iterable[TimedChunk], *, language: str | None = None) -> tuple[Segment, ...]:
    """Return one segment for each sentence of the chunks.

    Inside a chunk, time is distributed in proportion to the estimated duration of each sentence.
    """
    segments: list[Segment] = []
    for chunk, start_s, duration_s in timed_chunks:
        texts = [chunk.text[slice(*span)] for span in split_sentences(chunk.text, language=language)]
        offsets = list(accumulate((estimate_duration_s(text) for text in texts), initial=0.0))
        times_s = [start_s + duration_s * (offset / offsets[-1]) for offset in offsets]
        segments += [
            Segment(sentence_start_s, sentence_end_s, text)
            for text, (sentence_start_s, sentence_end_s) in zip(texts, pairwise(times_s), strict=True)
        ]
    return tuple(segments)
