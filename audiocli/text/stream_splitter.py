"""Split a text while it is being written, such as the text of a pipe that may never end."""

from __future__ import annotations

import re
from dataclasses import replace

from .line_breaking import is_unspaced
from .sentences import find_visible, is_paragraph_end, split_sentences
from .splitter import BreakAt, Chunk, Unit, measure_size, split_text

_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_AT_LINE_END = re.compile(rf"[{_LINE_ENDS}][^\S{_LINE_ENDS}]*\Z")
_WORD_AND_SPACE = re.compile(r"\S\s")


class StreamSplitter:
    """Split a stream of text into chunks, and return each chunk when it is complete.

    A sentence is complete when the first word of the next one is complete ("Dr." may not end a sentence), or when a
    line ends after it. When the buffer ends with a line, all of it is complete, because the writer may wait there. A
    sentence longer than `max_size` is split before its end arrives, which bounds the buffer.

    Chunk positions are relative to the stream. `is_paragraph_end` depends on the text received so far.
    """

    def __init__(
        self,
        max_size: int,
        *,
        unit: Unit = Unit.CHARACTERS,
        break_at: BreakAt = BreakAt.SENTENCE,
        language: str | None = None,
    ) -> None:
        self._max_size = max_size
        self._unit = unit
        self._break_at = break_at
        self._language = language
        self._buffer = ""
        self._buffer_start = 0  # position of the buffer in the stream, in code points

    def feed(self, text: str) -> tuple[Chunk, ...]:
        """Add text to the buffer and return the chunks that are complete."""
        self._buffer += text
        if _AT_LINE_END.search(self._buffer[-1000:]):
            return self._take(len(self._buffer))
        complete = self._take(self._find_complete_end())
        if measure_size(self._buffer, self._unit) > self._max_size:
            chunks = self._split(self._buffer)
            if len(chunks) > 1:
                complete += self._take(chunks[-1].start)
        return complete

    def finish(self) -> tuple[Chunk, ...]:
        """Return the remaining chunks. The last one ends a paragraph."""
        chunks = self._take(len(self._buffer))
        return (*chunks[:-1], replace(chunks[-1], is_paragraph_end=True)) if chunks else ()

    def _split(self, text: str) -> tuple[Chunk, ...]:
        return split_text(text, self._max_size, unit=self._unit, break_at=self._break_at, language=self._language)

    def _find_complete_end(self) -> int:
        """Return the end of the sentences in the buffer that later text cannot change."""
        spans = list(split_sentences(self._buffer, language=self._language))
        while len(spans) > 1:
            follower, span = spans.pop(), spans[-1]
            gap = self._buffer[span.end : follower.start]
            has_whole_word = is_unspaced(self._buffer[follower.start]) or _WORD_AND_SPACE.search(
                self._buffer, follower.start
            )
            if has_whole_word or any(char in _LINE_ENDS for char in gap):
                return follower.start
        return 0

    def _take(self, end: int) -> tuple[Chunk, ...]:
        """Remove the text before `end` from the buffer and return it as chunks."""
        chunks = [
            replace(chunk, start=chunk.start + self._buffer_start, end=chunk.end + self._buffer_start)
            for chunk in self._split(self._buffer[:end])
        ]
        next_start = find_visible(self._buffer, end)
        if chunks:
            gap = self._buffer[chunks[-1].end - self._buffer_start : next_start]
            chunks[-1] = replace(chunks[-1], is_paragraph_end=is_paragraph_end(gap))
        self._buffer = self._buffer[next_start:]
        self._buffer_start += next_start
        return tuple(chunks)
