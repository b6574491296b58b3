"""Find the words of a transcript in its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..types.transcripts import Word
from .line_breaking import fold_character


class Anchor(NamedTuple):
    """The text `text[start:end]` was spoken from `start_s` to `end_s`, by `speaker` if that is known."""

    start: int
    end: int
    start_s: float
    end_s: float
    speaker: str | None = None


def align_words(text: str, words: Sequence[Word]) -> list[Anchor]:
    """Find each word in the text by its letters and digits. Return [] if fewer than 70 % of the letters are found.

    OpenAI's words come without the punctuation of the text, and some gateways write numbers differently. Each missing
    word therefore widens the search for the next one.
    """
    letters_with_index = [(letter, index) for index, char in enumerate(text) for letter in fold_character(char)]
    letters = "".join(letter for letter, _ in letters_with_index)
    anchors: list[Anchor] = []
    search_from = skipped_words = matched_letters = total_letters = 0
    for word in words:
        spelling = "".join(map(fold_character, word.text))
        total_letters += len(spelling)
        index = (
            letters.find(spelling, search_from, search_from + 5 * len(spelling) + 16 * skipped_words)
            if spelling
            else -1
        )
        if index < 0:
            skipped_words += bool(spelling)
            continue
        search_from, skipped_words, matched_letters = index + len(spelling), 0, matched_letters + len(spelling)
        anchors.append(
            Anchor(
                letters_with_index[index][1],
                letters_with_index[search_from - 1][1] + 1,
                word.start_s,
                word.end_s,
                word.speaker,
            )
        )
    return _extend_over_punctuation(text, anchors) if total_letters and matched_letters >= 0.7 * total_letters else []


def _extend_over_punctuation(text: str, anchors: Sequence[Anchor]) -> list[Anchor]:
    """Extend every anchor over adjacent punctuation, first after it, then before it."""
    extended: list[Anchor] = []
    min_start = 0
    for anchor, following in zip(anchors, [*anchors[1:], None], strict=True):
        start, end = max(anchor.start, min_start), anchor.end
        max_end = len(text) if following is None else following.start
        while end < max_end and not text[end].isspace() and not fold_character(text[end]):
            end += 1
        while start > min_start and not text[start - 1].isspace() and not fold_character(text[start - 1]):
            start -= 1
        min_start = max(min_start, end)
        if start < end:
            extended.append(anchor._replace(start=start, end=end))
    return extended
