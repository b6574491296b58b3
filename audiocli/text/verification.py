"""Compare a text with the transcript of its speech, and find what is wrong with the speech.

Recognizers mishear single words, above all names and numbers. A stretch of several words that is missing or repeated is
the fault of the speech. On 80 correct and 160 spoilt chunks (the voice joe and Whisper tiny.en, 2026-11), the rule for
stretches flagged no correct chunk, and found dropped and doubled sentences 40 of 40 times. docs/verify.md has more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import groupby
from typing import NamedTuple

# The alignment of two lists of words by the edit distance, in C++: 20 ms for 10,000 words; imported only to verify.
from rapidfuzz.distance import Levenshtein

from ..types.transcripts import Transcript, Word
from .line_breaking import is_unspaced
from .spoken_words import SpokenWord, split_spoken_words

# A missing or repeated stretch of this many words is a fault.
MIN_STRETCH_WORDS = 3.0
# The end is missing if this many words are.
MIN_END_WORDS = 2.0
# A word error rate says little about fewer words.
MIN_RATED_WORDS = 12.0
# Of fewer words, this share differs only if something else was spoken. Correct sentences of ten words had 20 % at most.
MIN_FOREIGN_RATE = 0.75
MIN_FOREIGN_WORDS = 4.0
# Length of a quotation in a problem.
MAX_QUOTED_WORDS = 8

_TOKEN = re.compile(r"\S+")


class ProblemKind(StrEnum):
    """What is wrong with a speech."""

    MISSING = "missing"
    REPEATED = "repeated"
    END_MISSING = "end missing"
    MISPLACED = "misplaced"
    DIFFERENT = "different"


class Problem(NamedTuple):
    """A fault of a speech. `position` is the index of its first word in the text, `quote` the words it is about."""

    kind: ProblemKind
    position: int
    quote: str

    def describe(self, word_error_rate: float) -> str:
        """Return the problem as a phrase."""
        if self.kind is ProblemKind.DIFFERENT:
            return f"{100 * word_error_rate:.0f} % of the words differ"
        names = {
            ProblemKind.MISSING: "words are missing",
            ProblemKind.REPEATED: "words are repeated",
            ProblemKind.END_MISSING: "the end is missing",
            ProblemKind.MISPLACED: "other words of the text are spoken",
        }
        return f"{names[self.kind]}: {self.quote}"


class Comparison(NamedTuple):
    """The alignment of a text with a transcript.

    Attributes:
        words: The words of the text.
        times_s: Start and end of each word in the audio; None where the transcript has no time for it.
        error_count: Words of the text that differ or are missing, and words that were added.
        word_count: Number of words of the text. A character of a script without spaces counts half a word in both.
        problems: In the order of the text.
        is_time_known: Whether the transcript has times of words.
    """

    words: tuple[SpokenWord, ...]
    times_s: tuple[tuple[float, float] | None, ...]
    error_count: float
    word_count: float
    problems: tuple[Problem, ...]
    is_time_known: bool

    @property
    def word_error_rate(self) -> float:
        return self.error_count / self.word_count if self.word_count else 0.0

    def find_problem(self, threshold: float) -> Problem | None:
        """Return the first problem. `threshold` is the word error rate, from 0 to 1, above which there is one."""
        if self.problems:
            return self.problems[0]
        is_rated = self.word_count >= MIN_RATED_WORDS and self.word_error_rate > threshold
        is_foreign = self.word_count >= MIN_FOREIGN_WORDS and self.word_error_rate >= MIN_FOREIGN_RATE
        if is_rated or is_foreign:
            return Problem(ProblemKind.DIFFERENT, 0, "")
        return None

    def locate_s(self, position: int, duration_s: float) -> float:
        """Return when a word is spoken, in seconds from the start of the audio: its time, else an estimate."""
        for time_s in (*reversed(self.times_s[: position + 1]), *self.times_s[position + 1 :]):
            if time_s is not None:
                return time_s[0]
        return duration_s * position / max(len(self.words), 1)


class _Block(NamedTuple):
    """Words `start` to `end` of the text that differ from the words `other_start` to `other_end` of the transcript."""

    start: int
    end: int
    other_start: int
    other_end: int


def compare(text: str, transcript: Transcript, language: str | None = None) -> Comparison:
    """Align a text with the transcript of its speech by words, and find the problems of the speech.

    `language` is that of the text; without it, numbers are read in the language of the transcript.
    """
    code = language or transcript.language
    words = split_spoken_words(text, code)
    spoken_text, timed_words = _join_timed_words(transcript)
    spoken = split_spoken_words(spoken_text, code)
    blocks = [block for block in _find_different_blocks(words, spoken) if not _is_same_spelling(words, spoken, block)]
    times_s = _find_times(words, spoken, blocks, timed_words)
    return Comparison(
        words=words,
        times_s=times_s,
        error_count=sum(
            max(_weigh(words[b.start : b.end]), _weigh(spoken[b.other_start : b.other_end])) for b in blocks
        ),
        word_count=_weigh(words),
        problems=tuple(_find_problems(text, words, spoken, blocks)),
        is_time_known=bool(timed_words),
    )


def time_words(text: str, comparison: Comparison, duration_s: float) -> tuple[Word, ...]:
    """Return the words of a text between white space, with their times in the audio.

    Words that the transcript does not have share the time between their neighbors.
    """
    spans = [(start, start + len(token)) for start, token in _split_tokens(text)]
    starts_s: list[float | None] = []
    ends_s: list[float | None] = []
    index = 0
    for _, end in spans:
        times_s: list[tuple[float, float]] = []
        while index < len(comparison.words) and comparison.words[index].start < end:
            time_s = comparison.times_s[index]
            times_s += [time_s] if time_s is not None else []
            index += 1
        starts_s.append(times_s[0][0] if times_s else None)
        ends_s.append(times_s[-1][1] if times_s else None)
    filled = _fill_times(starts_s, ends_s, [end - start for start, end in spans], duration_s)
    return tuple(
        Word(start_s, end_s, text[start:end]) for (start, end), (start_s, end_s) in zip(spans, filled, strict=True)
    )


def _split_tokens(text: str) -> Iterator[tuple[int, str]]:
    """Yield what stands between white space, with its position. Scripts without spaces yield each word alone."""
    for match in _TOKEN.finditer(text):
        start, token = match.start(), match.group()
        first = 0
        for index, character in enumerate(token):
            # A character with the punctuation that follows it.
            if index > first and is_unspaced(character) and character.isalnum():
                yield start + first, token[first:index]
                first = index
        yield start + first, token[first:]


def _fill_times(
    starts_s: Sequence[float | None], ends_s: Sequence[float | None], sizes: Sequence[int], duration_s: float
) -> list[tuple[float, float]]:
    """Give each word without a time a share of the gap that it is in, by its length. Times never decrease."""
    times_s: list[tuple[float, float]] = []
    previous_s = 0.0
    for is_known, group in groupby(range(len(sizes)), lambda index: starts_s[index] is not None):
        indexes = list(group)
        if is_known:
            for index in indexes:
                start_s = min(max(starts_s[index] or 0.0, previous_s), duration_s)
                previous_s = min(max(ends_s[index] or 0.0, start_s), duration_s)
                times_s.append((start_s, previous_s))
            continue
        following = indexes[-1] + 1
        limit_s = duration_s if following == len(sizes) else max(starts_s[following] or 0.0, previous_s)
        step_s = (limit_s - previous_s) / max(sum(sizes[index] for index in indexes), 1)
        for index in indexes:
            end_s = min(previous_s + step_s * sizes[index], duration_s)
            times_s.append((previous_s, end_s))
            previous_s = end_s
    return times_s


def _join_timed_words(transcript: Transcript) -> tuple[str, tuple[tuple[int, Word], ...]]:
    """Return the text of a transcript, and its words with the position at which each ends, if it has times of words."""
    if not transcript.words:
        return transcript.text, ()
    text, ends = "", []
    for word in transcript.words:
        # Words of scripts without spaces have no space either; characters are compared one by one.
        text += word.text if word.text[:1].isspace() or not text else f" {word.text}"
        ends.append((len(text), word))
    return text, tuple(ends)


def _find_different_blocks(words: Sequence[SpokenWord], spoken: Sequence[SpokenWord]) -> Iterator[_Block]:
    """Yield the stretches that differ, in whole words."""
    parts, indexes = _list_parts(words)
    other_parts, other_indexes = _list_parts(spoken)
    # A word differs if one of its parts does.
    block: _Block | None = None
    for operation in Levenshtein.opcodes(parts, other_parts):
        if operation.tag == "equal":
            continue
        start, end = _widen(indexes, operation.src_start, operation.src_end, len(words))
        other_start, other_end = _widen(other_indexes, operation.dest_start, operation.dest_end, len(spoken))
        current = _Block(start, end, other_start, other_end)
        if block is not None and (start <= block.end and other_start <= block.other_end):
            block = _Block(block.start, max(end, block.end), block.other_start, max(other_end, block.other_end))
            continue
        if block is not None:
            yield block
        block = current
    if block is not None:
        yield block


def _list_parts(words: Sequence[SpokenWord]) -> tuple[list[str], list[int]]:
    """Return the parts of all words, and the index of the word of each."""
    return [part for word in words for part in word.parts], [i for i, word in enumerate(words) for _ in word.parts]


def _widen(indexes: Sequence[int], start: int, end: int, count: int) -> tuple[int, int]:
    """Return the words that have a part from `start` to `end`. An empty range between two words stays empty."""
    if start < end:
        return indexes[start], indexes[end - 1] + 1
    first = indexes[start] if start < len(indexes) else count
    is_inside = 0 < start < len(indexes) and indexes[start - 1] == first
    return (first, first + 1) if is_inside else (first, first)


def _is_same_spelling(words: Sequence[SpokenWord], spoken: Sequence[SpokenWord], block: _Block) -> bool:
    """Return whether only the spaces differ, as in "web site"."""
    return _spell(words[block.start : block.end]) == _spell(spoken[block.other_start : block.other_end])


def _spell(words: Sequence[SpokenWord]) -> str:
    return "".join(part for word in words for part in word.parts)


def _weigh(words: Sequence[SpokenWord]) -> float:
    return sum(word.weight for word in words)


def _find_problems(
    text: str, words: Sequence[SpokenWord], spoken: Sequence[SpokenWord], blocks: Sequence[_Block]
) -> Iterator[Problem]:
    """Yield the missing, repeated and misplaced stretches, and a missing end.

    A block where as many words differ as were heard is misheard, not missing, unless the words that were heard stand
    elsewhere in the text. Words that are not in the text are an invention of the recognizer, and count as errors only.
    """
    known, spoken_grams = Counter(_list_grams(words)), Counter(_list_grams(spoken))
    repeated = {gram for gram, count in spoken_grams.items() if count > max(known[gram], 1)}
    for block in blocks:
        expected, heard = words[block.start : block.end], spoken[block.other_start : block.other_end]
        missing = _weigh(expected) - _weigh(heard)
        is_end = block.end == len(words)
        if missing >= MIN_STRETCH_WORDS or (is_end and missing >= min(MIN_END_WORDS, _weigh(words))):
            kind = ProblemKind.END_MISSING if is_end and block.start else ProblemKind.MISSING
            yield Problem(kind, block.start, _quote(text, expected))
            continue
        # Words that are misheard in the same way twice are repeated as well.
        nearby = spoken[max(block.other_start - 2, 0) : block.other_end + 2] if -missing >= MIN_STRETCH_WORDS else ()
        is_known = any(gram in known for gram in _list_grams(heard))
        if _weigh(heard) >= MIN_STRETCH_WORDS and (is_known or any(gram in repeated for gram in _list_grams(nearby))):
            kind = ProblemKind.REPEATED if -missing >= MIN_STRETCH_WORDS else ProblemKind.MISPLACED
            quote = " ".join(_spell_words(heard[:MAX_QUOTED_WORDS]))
            yield Problem(kind, min(block.start, len(words) - 1), quote)


def _list_grams(words: Sequence[SpokenWord]) -> list[tuple[str, ...]]:
    """Return each stretch of three words, or of six characters of a script without spaces, by its spelling."""
    spellings = _spell_words(words)
    weights = [word.weight for word in words]
    size = int(MIN_STRETCH_WORDS / max(min(weights, default=1.0), 0.1))
    return [tuple(spellings[index : index + size]) for index in range(len(words) - size + 1)]


def _spell_words(words: Sequence[SpokenWord]) -> list[str]:
    return ["".join(word.parts) for word in words]


def _quote(text: str, words: Sequence[SpokenWord]) -> str:
    """Return the first words as they are written."""
    last = words[min(len(words), MAX_QUOTED_WORDS) - 1]
    quote = " ".join(text[words[0].start : last.end].split())
    return f"{quote}…" if len(words) > MAX_QUOTED_WORDS else quote


def _find_times(
    words: Sequence[SpokenWord],
    spoken: Sequence[SpokenWord],
    blocks: Sequence[_Block],
    timed_words: Sequence[tuple[int, Word]],
) -> tuple[tuple[float, float] | None, ...]:
    """Return the times of the words of the text that the transcript has too."""
    if not timed_words:
        return (None,) * len(words)
    spoken_times_s: list[tuple[float, float]] = []
    index = 0
    for word in spoken:
        while index + 1 < len(timed_words) and timed_words[index][0] <= word.start:
            index += 1
        spoken_times_s.append((timed_words[index][1].start_s, timed_words[index][1].end_s))
    times_s: list[tuple[float, float] | None] = [None] * len(words)
    position = other_position = 0
    for block in (*blocks, _Block(len(words), len(words), len(spoken), len(spoken))):
        times_s[position : block.start] = _match_times(
            words[position : block.start],
            spoken[other_position : block.other_start],
            spoken_times_s[other_position : block.other_start],
        )
        if block.end - block.start == block.other_end - block.other_start:
            # As many words, misheard.
            times_s[block.start : block.end] = spoken_times_s[block.other_start : block.other_end]
        position, other_position = block.end, block.other_end
    return tuple(times_s)


def _match_times(
    words: Sequence[SpokenWord], spoken: Sequence[SpokenWord], spoken_times_s: Sequence[tuple[float, float]]
) -> list[tuple[float, float] | None]:
    """Return the times of words with the same spelling on both sides, which may be divided differently."""
    spoken_ends: list[int] = []
    for word in spoken:
        spoken_ends.append((spoken_ends[-1] if spoken_ends else 0) + sum(map(len, word.parts)))
    times_s: list[tuple[float, float] | None] = []
    index = letters = 0
    for word in words:
        while index < len(spoken) - 1 and spoken_ends[index] <= letters:
            index += 1
        letters += sum(map(len, word.parts))
        last = index
        while last < len(spoken) - 1 and spoken_ends[last] < letters:
            last += 1
        times_s.append((spoken_times_s[index][0], spoken_times_s[last][1]) if spoken else None)
    return times_s
