"""Estimate when each sentence of a spoken text begins and ends."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, pairwise

from ..types.transcripts import Segment
from .sentences import split_sentences
from .speech_rate import estimate_duration_s
from .splitter import Chunk


def time_sentences(
    chunks: Iterable[tuple[Chunk, float]], *, pause_s: float = 0.0, language: str | None = None
) -> tuple[Segment, ...]:
    """Return one segment for each sentence of the chunks.

    `chunks` are in order, each with its duration in seconds. Inside a chunk, time is distributed in proportion to the
    estimated duration of each sentence. `pause_s` is the silence after every chunk that ends a paragraph.
    """
    segments: list[Segment] = []
    start_s = 0.0
    for chunk, duration_s in chunks:
        texts = [chunk.text[slice(*span)] for span in split_sentences(chunk.text, language=language)]
        offsets = list(accumulate((estimate_duration_s(text) for text in texts), initial=0.0))
        times_s = [start_s + duration_s * (offset / offsets[-1]) for offset in offsets]
        segments += [
            Segment(sentence_start_s, sentence_end_s, text)
            for text, (sentence_start_s, sentence_end_s) in zip(texts, pairwise(times_s), strict=True)
        ]
        start_s += duration_s + (pause_s if chunk.is_paragraph_end else 0.0)
    return tuple(segments)
