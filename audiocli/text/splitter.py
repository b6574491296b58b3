"""Split a long text into chunks that fit the limit of a gateway, at paragraphs, sentences, clauses and words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ..errors import UsageError
from .line_breaking import can_break_between
from .sentences import (
    BLANK_CHARACTERS,
    find_visible,
    is_continuation,
    is_in_number,
    is_paragraph_end,
    split_sentences,
    trim_span,
)
from .speech_rate import has_speakable_text

_MIN_PARAGRAPH_SHARE = 0.75  # end at a paragraph if the chunk keeps this share of its size
_MIN_CLAUSE_SHARE = 0.5  # end at a clause or a space if the chunk has this share of the maximum size
_MIN_FIRST_SHARE = 0.25  # the same for the first chunk, which is short so that playback starts early

# Breaks inside a sentence that is too long. The first pattern is the end of a sentence inside a long quotation.
_SENTENCE_END = re.compile(r"""(?:[.!?…؟۔](?=\s|["'”’»)\]])|[。！？｡।])["'”’»›)\]」』）]*(?!["'”’»›)\]」』）])""")
_CLAUSE_END = re.compile(
    r"""[,;:،؛](?:["'”’»›)\]]+(?=\s)|(?=\s))"""  # not in 3,000 or 10:30
    r"|[、，；：､፣፤፥၊།។][」』）”’›»]*"
    r"|—+|(?<=\s)[–-]+(?=\s)"  # not in 1990–1995
    r"|(?=[\n\r\u2028])"  # the lines of poems and lists
    r"|(?<=[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])(?=\s)"  # Thai, Lao, Burmese and Khmer: the space is the comma
)
_SPACE = re.compile(r"[\s\u200b]")  # U+200B divides words in scripts without spaces
_NO_BREAK_SPACES = "\u00a0\u2007\u202f"


class Unit(StrEnum):
    """The unit of a maximum size: code points or UTF-8 bytes."""

    CHARACTERS = "characters"
    BYTES = "bytes"


class BreakAt(StrEnum):
    """Where chunks end: only at the maximum size, also after every paragraph, or also after every sentence."""

    MAX_SIZE = "where full"
    PARAGRAPH = "paragraph"
    SENTENCE = "sentence"


@dataclass(frozen=True)
class Chunk:
    """A part of a text, sent as one request: exactly the code points `start` to `end`, with no blanks at its ends.

    `is_paragraph_end` is also true for the last chunk. `is_word_split` is true if the chunk may end inside a word; in
    an unspaced script the ends of words are unknown.

    Attributes:
        voice: Voice of the chunk; None for that of the route.
        pause_ms: Silence after the chunk in milliseconds; None for that after a paragraph.
        chapter: Index of the chapter.
        start_s: Time at which the speech begins, in seconds; None for directly after the previous chunk.
        end_s: Time at which the speech should end, in seconds.
    """

    text: str
    start: int
    end: int
    is_paragraph_end: bool = False
    is_word_split: bool = False
    voice: str | None = None
    pause_ms: float | None = None
    chapter: int = 0
    start_s: float | None = None
    end_s: float | None = None


def measure_size(text: str, unit: Unit) -> int:
    """Return the size of a text in a unit. A lone surrogate counts 3 bytes, like the character that replaces it."""
    return len(text) if unit is Unit.CHARACTERS or text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def split_text(
    text: str,
    max_size: int | None,
    *,
    unit: Unit = Unit.CHARACTERS,
    max_first_size: int | None = None,
    break_at: BreakAt = BreakAt.MAX_SIZE,
    language: str | None = None,
) -> tuple[Chunk, ...]:
    """Split a text into few chunks of at most `max_size`, at suitable breaks.

    The chunks contain every character that is not blank, in order. A sentence that fits is never split. A longer one is
    split at clauses, otherwise between words. A word that does not fit is split between grapheme clusters. A chunk ends
    at a paragraph if that makes it only a little shorter.

    `max_size` None means that no limit is known. `max_first_size` keeps the first chunk short if it can end at a
    sentence or a clause. To end there it may be longer, up to `max_size`.

    Raises:
        UsageError: A maximum is below 1, or a single grapheme cluster exceeds it.
    """
    for size in (max_size, max_first_size):
        if size is not None and size < 1:
            raise UsageError(f"the maximum size of a chunk must be at least 1, not {size} ({unit.value})")
    span = trim_span(text, 0, len(text))
    if span is None:
        return ()
    fits = max_size is None or measure_size(text[slice(*span)], unit) <= max_size
    if fits and max_first_size is None and break_at is BreakAt.MAX_SIZE:
        return (Chunk(text[slice(*span)], *span, is_paragraph_end=True),)
    return tuple(_Splitter(text, max_size, unit, break_at, language).split(max_first_size))


def drop_unspeakable_chunks(chunks: Sequence[Chunk]) -> tuple[Chunk, ...]:
    """Return the chunks that have a letter or a digit.

    A dropped chunk becomes a paragraph end of the one before it, with the longer pause of both.
    """
    speakable: list[Chunk] = []
    for chunk in chunks:
        if has_speakable_text(chunk.text):
            speakable.append(chunk)
        elif speakable:
            pauses_ms = [pause_ms for pause_ms in (speakable[-1].pause_ms, chunk.pause_ms) if pause_ms is not None]
            speakable[-1] = replace(speakable[-1], is_paragraph_end=True, pause_ms=max(pauses_ms, default=None))
    return tuple(speakable)


class _Splitter:
    """Split one text."""

    def __init__(self, text: str, max_size: int | None, unit: Unit, break_at: BreakAt, language: str | None) -> None:
        self.text = text
        self.unit = unit
        self.break_at = break_at
        self.max_size = max_size if max_size is not None else 4 * len(text)  # UTF-8 has at most 4 bytes per code point
        self.sentences = tuple(split_sentences(text, language=language))
        next_starts = [sentence.start for sentence in self.sentences[1:]]
        self.paragraph_end_flags = [
            is_paragraph_end(text[sentence.end : next_start])
            for sentence, next_start in zip(self.sentences, next_starts, strict=False)
        ]
        self.paragraph_end_flags.append(True)

    def split(self, max_first_size: int | None) -> Iterator[Chunk]:
        sentence_index, start = 0, self.sentences[0].start
        max_first_size = None if max_first_size is None else min(max_first_size, self.max_size)
        while sentence_index < len(self.sentences):
            end = None
            max_size, max_first_size = max_first_size or self.max_size, None
            next_index = self._find_next_sentence(sentence_index, start, max_size)
            if next_index == sentence_index and max_size < self.max_size:
                end = self._find_early_end(start, self.sentences[sentence_index].end, max_size)
                if end is None:
                    next_index = min(self._find_next_sentence(sentence_index, start, self.max_size), sentence_index + 1)
            if next_index > sentence_index:
                yield self._build_chunk(
                    start,
                    self.sentences[next_index - 1].end,
                    is_paragraph_end=self.paragraph_end_flags[next_index - 1],
                )
                sentence_index = next_index
                start = self.sentences[sentence_index].start if sentence_index < len(self.sentences) else len(self.text)
                continue
            is_word_split = False
            if end is None:
                end, is_word_split = self._find_end_in_sentence(start, self.sentences[sentence_index].end)
            yield self._build_chunk(start, end, is_word_split=is_word_split)
            start = find_visible(self.text, end)

    def _build_chunk(
        self, start: int, end: int, *, is_paragraph_end: bool = False, is_word_split: bool = False
    ) -> Chunk:
        text = self.text[start:end].rstrip(BLANK_CHARACTERS)
        return Chunk(text, start, start + len(text), is_paragraph_end, is_word_split)

    def _find_next_sentence(self, first_index: int, start: int, max_size: int) -> int:
        """Return the index of the sentence after the chunk, or `first_index` if the first sentence does not fit."""
        used_size = 0
        next_index = paragraph_index = first_index
        position = start
        for index in range(first_index, len(self.sentences)):
            end = self.sentences[index].end
            if end - position > max_size - used_size:
                break
            used_size += measure_size(self.text[position:end], self.unit)
            if used_size > max_size:
                break
            next_index, position = index + 1, end
            if self.paragraph_end_flags[index]:
                paragraph_index, paragraph_size = next_index, used_size
                if self.break_at is BreakAt.PARAGRAPH:
                    return next_index
            if self.break_at is BreakAt.SENTENCE:
                return next_index
        else:
            return next_index  # all remaining sentences fit
        total_size = measure_size(self.text[start:position], self.unit) if paragraph_index > first_index else 0
        return (
            paragraph_index
            if paragraph_index > first_index and paragraph_size >= _MIN_PARAGRAPH_SHARE * total_size
            else next_index
        )

    def _find_early_end(self, start: int, end: int, max_size: int) -> int | None:
        """Return the clause end for the first chunk: the last one that fits, otherwise the next one, or None."""
        preferred_end, max_end = self._find_max_end(start, end, max_size), self._find_max_end(start, end, self.max_size)
        breaks = self._find_breaks(_CLAUSE_END, start, max_end, end)
        fitting_breaks = [
            index
            for index in breaks
            if index <= preferred_end and index - start >= _MIN_FIRST_SHARE * (preferred_end - start)
        ]
        later_breaks = [index for index in breaks if index > preferred_end]
        return fitting_breaks[-1] if fitting_breaks else later_breaks[0] if later_breaks else None

    def _find_end_in_sentence(self, start: int, end: int) -> tuple[int, bool]:
        """Return where to end a chunk inside a sentence, and whether that may be inside a word."""
        max_end = self._find_max_end(start, end, self.max_size)
        for pattern in (_SENTENCE_END, _CLAUSE_END):
            breaks = self._find_breaks(pattern, start, max_end, end)
            if breaks and breaks[-1] - start >= _MIN_CLAUSE_SHARE * (max_end - start):
                return breaks[-1], False
        # Use the last space, unless text of an unspaced script after it is longer than the text before it.
        space = self._find_last_space(start, max_end)
        if space and (space - start >= _MIN_CLAUSE_SHARE * (max_end - start) or not self._can_break_at(max_end)):
            return space, False
        return self._find_end_in_word(start, end, max_end), True

    def _find_max_end(self, start: int, end: int, max_size: int) -> int:
        """Return the maximum end of a chunk of at most `max_size`."""
        end = min(end, start + max_size)
        if self.unit is Unit.CHARACTERS:
            return end
        encoded = self.text[start:end].encode("utf-8", "surrogatepass")
        size = min(max_size, len(encoded))
        while 0 < size < len(encoded) and encoded[size] & 0xC0 == 0x80:
            size -= 1
        return start + len(encoded[:size].decode("utf-8", "surrogatepass"))

    def _find_breaks(self, pattern: re.Pattern[str], start: int, max_end: int, end: int) -> list[int]:
        """Return the ends of the matches of a pattern that leave text on both sides."""
        match_ends = (match.end() for match in pattern.finditer(self.text, start, min(max_end + 1, end)))
        last_break = min(max_end, end - 1)
        return [
            index
            for index in match_ends
            if start < index <= last_break
            and not is_continuation(self.text, index)
            and not is_in_number(self.text, index)
        ]

    def _find_last_space(self, start: int, max_end: int) -> int | None:
        """Return the last space, or None. A no-break space is used only if there is no other."""
        spaces = [match.start() for match in _SPACE.finditer(self.text, start, max_end + 1)]
        spaces = [index for index in spaces if index > start]
        breaking_spaces = [index for index in spaces if self.text[index] not in _NO_BREAK_SPACES]
        return breaking_spaces[-1] if breaking_spaces else spaces[-1] if spaces else None

    def _can_break_at(self, index: int) -> bool:
        return can_break_between(self.text[index - 1], self.text[index]) and not is_in_number(self.text, index)

    def _find_end_in_word(self, start: int, end: int, max_end: int) -> int:
        """Return the last boundary between two grapheme clusters, preferably one where a line may end."""
        cluster_ends = [index for index in _find_cluster_ends(self.text, start, max_end + 1) if index <= max_end]
        if not cluster_ends:
            size = measure_size(self.text[start : next(_find_cluster_ends(self.text, start, end))], self.unit)
            raise UsageError(
                f"a single character of the text has {size} {self.unit.value}; "
                f"the maximum of a chunk is {self.max_size}",
                hint="raise the maximum, or remove the character from the text",
            )
        preferred_ends = (
            index for index in reversed(cluster_ends[len(cluster_ends) // 2 :]) if self._can_break_at(index)
        )
        if (preferred_end := next(preferred_ends, None)) is not None:
            return preferred_end
        # A number that fits into the next chunk is not split, even if this chunk becomes short.
        early_ends = (index for index in reversed(cluster_ends) if self._can_break_at(index))
        return next(early_ends, cluster_ends[-1])


def _find_cluster_ends(text: str, start: int, stop: int) -> Iterator[int]:
    """Yield the ends of the grapheme clusters between two indices.

    The text is scanned in short slices, because `regex` scans back to the start of the string to pair each flag symbol.
    """
    import regex

    size = 256
    while start < stop:
        ends = [start + cluster.end() for cluster in regex.finditer(r"\X", text[start : min(start + size, stop)])]
        if start + size < stop:
            ends.pop()  # the last cluster may continue in the next slice
        yield from ends
        start = ends[-1] if ends else start
        size = 256 if ends else 2 * size
