"""Tell when each sentence of a spoken text was said."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, pairwise

from ..types.values import Segment
from .sentences import sentences
from .speech_rate import expected_s
from .splitter import Chunk


def timed(
    spoken: Iterable[tuple[Chunk, float]], *, pause_s: float = 0.0, language: str | None = None
) -> tuple[Segment, ...]:
    """Make one segment of every sentence, from the pieces in their order and how many seconds each of them lasts.

    Inside a piece the time is divided in proportion to the characters, where a Chinese one counts for several Latin
    ones. `pause_s` is the silence that was put after every piece that ends a paragraph, except the last piece.
    """
    segments: list[Segment] = []
    start_s = 0.0
    for piece, duration_s in spoken:
        texts = [piece.text[slice(*span)] for span in sentences(piece.text, language=language)]
        said = list(accumulate((expected_s(text) for text in texts), initial=0.0))
        times_s = [start_s + duration_s * (so_far / said[-1]) for so_far in said]
        segments += [Segment(a, b, text) for text, (a, b) in zip(texts, pairwise(times_s), strict=True)]
        start_s += duration_s + (pause_s if piece.ends_paragraph else 0.0)
    return tuple(segments)
