"""Cut a text that is still being written: a pipe that may never end."""

from __future__ import annotations

import re
from dataclasses import replace

from .line_breaking import is_unspaced
from .sentences import ends_paragraph, next_ink, sentences
from .splitter import Ends, Chunk, Unit, cut, size_of

_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_AT_LINE_END = re.compile(rf"[{_LINE_ENDS}][^\S{_LINE_ENDS}]*\Z")
_WHOLE_WORD = re.compile(r"\S\s")


class StreamSplitter:
    """Take a text as it comes, and give its pieces as soon as they are surely complete.

    A sentence is complete when the next one has begun with a whole word ("Dr." may go on), or when a line ends after
    it. All that has come is complete when it stands at a line end, for whoever writes may wait there. What is longer
    than the limit is cut without waiting for its end, so that no more than that is held.

    Pieces are placed in the whole stream. `ends_paragraph` goes by what has been seen when the piece is given.
    """

    def __init__(
        self,
        limit: int,
        *,
        unit: Unit = Unit.CHARACTERS,
        ends: Ends = Ends.SENTENCE,
        language: str | None = None,
    ) -> None:
        self._limit = limit
        self._unit = unit
        self._ends = ends
        self._language = language
        self._held = ""
        self._before = 0  # code points of the stream before what is held

    def feed(self, text: str) -> tuple[Chunk, ...]:
        self._held += text
        if _AT_LINE_END.search(self._held[-1000:]):
            return self._given(len(self._held))
        given = self._given(self._sure_end())
        if size_of(self._held, self._unit) > self._limit:
            pieces = self._cut(self._held)
            if len(pieces) > 1:
                given += self._given(pieces[-1].start)
        return given

    def finish(self) -> tuple[Chunk, ...]:
        """Give the rest; the end of a stream ends a paragraph."""
        pieces = self._given(len(self._held))
        return (*pieces[:-1], replace(pieces[-1], ends_paragraph=True)) if pieces else ()

    def _cut(self, text: str) -> tuple[Chunk, ...]:
        return cut(text, self._limit, unit=self._unit, ends=self._ends, language=self._language)

    def _sure_end(self) -> int:
        """Tell how much of what is held are sentences that nothing can change any more."""
        rows = list(sentences(self._held, language=self._language))
        while len(rows) > 1:
            follower, row = rows.pop(), rows[-1]
            gap = self._held[row.end : follower.start]
            begun = is_unspaced(self._held[follower.start]) or _WHOLE_WORD.search(self._held, follower.start)
            if begun or any(char in _LINE_ENDS for char in gap):
                return follower.start
        return 0

    def _given(self, end: int) -> tuple[Chunk, ...]:
        """Cut what is held up to a place, and hold the rest."""
        pieces = [
            replace(piece, start=piece.start + self._before, end=piece.end + self._before)
            for piece in self._cut(self._held[:end])
        ]
        kept_from = next_ink(self._held, end)
        if pieces:
            gap = self._held[pieces[-1].end - self._before : kept_from]
            pieces[-1] = replace(pieces[-1], ends_paragraph=ends_paragraph(gap))
        self._held = self._held[kept_from:]
        self._before += kept_from
        return tuple(pieces)
