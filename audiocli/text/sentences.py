"""Find the paragraphs and sentences of a text in any language.

Results are spans of code points in the original text. Spans are not blank, and blank characters (white space, control
characters, invisible format characters) at their ends are trimmed.

Sentence boundaries come from sentencex, with three workarounds (1.0.32, 2026-11). It panics at multi-byte white space
before a full stop and rejects lone surrogates, so it receives a sanitized text of the same length. Its time is
quadratic in the length of a Chinese paragraph, so it receives windows. It returns sentences without a word, such as a
single quotation mark, and ends some after an initial ("M. Dupont"); these are joined with their neighbors.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from .languages import find_language_code

_WINDOW_CHARACTERS = 600  # the fastest size for Chinese; ordinary sentences are shorter

# White space, control characters and invisible format characters. The joiners U+200C and U+200D are not blank, because
# they belong to the characters that they join.
_BLANK_RANGES = (
    *(range(0x21), range(0x7F, 0xA1), range(0xAD, 0xAE), range(0x1680, 0x1681), range(0x2000, 0x200C)),
    *(
        range(0x200E, 0x2010),
        range(0x2028, 0x2030),
        range(0x205F, 0x2070),
        range(0x3000, 0x3001),
        range(0xFEFF, 0xFF00),
    ),
)
BLANK_CHARACTERS = "".join(chr(code) for codes in _BLANK_RANGES for code in codes)
_VISIBLE = re.compile(f"[^{re.escape(BLANK_CHARACTERS)}]")

_LINE_END = r"(?:\r\n|\r(?!\n)|[\n\v\x1c-\x1e\x85\u2028])"
_PARAGRAPH_END = re.compile(rf"{_LINE_END}[^\S\n\r\v\x1c-\x1e\x85\u2028]*{_LINE_END}|[\f\u2029]")
_BLANK_RUN = re.compile(r"\s{2,}|[\f\u2029]")

_UNSUPPORTED_CHARACTERS = re.compile(r"[^\S \n]|[\ud800-\udfff]")
_ONLY_WORDS = re.compile(r"[\w ,]*")
_WORD = re.compile(r"\w")
# An initial, as in "M. Dupont", and a short abbreviation before a lower-case word, as in "p. ex. ici".
_INITIAL = re.compile(r"(?<!\w)[^\W\d_]\.\Z")
_SHORT_ABBREVIATION = re.compile(r"(?<!\w)[^\W\d_]{1,3}\.\Z")
_LETTER = re.compile(r"[^\W\d_]")
_IN_NUMBER = re.compile(r"\d[.．,，:：]\d")
# The language to assume for a script. Its punctuation and abbreviations fit better than those of English.
_LANGUAGE_BY_SCRIPT = {
    "GREEK": "el",
    "CYRILLIC": "ru",
    "ARMENIAN": "hy",
    "ARABIC": "ar",
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "CJK": "zh",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
}


class Span(NamedTuple):
    """A half-open range of a text, in code points."""

    start: int
    end: int


def trim_span(text: str, start: int, end: int) -> Span | None:
    """Trim blank characters from both ends of a span. Return None if nothing remains."""
    first = _VISIBLE.search(text, start, end)
    return None if first is None else Span(first.start(), start + len(text[start:end].rstrip(BLANK_CHARACTERS)))


def find_visible(text: str, start: int) -> int:
    """Return the index of the first character that is not blank, or the length of the text if there is none."""
    match = _VISIBLE.search(text, start)
    return len(text) if match is None else match.start()


def is_paragraph_end(gap: str) -> bool:
    """Return whether white space ends a paragraph: an empty line, a form feed or a paragraph separator."""
    return _PARAGRAPH_END.search(gap) is not None


def split_paragraphs(text: str) -> Iterator[Span]:
    """Yield the paragraphs of a text. A single line end does not end one, because texts are often hard-wrapped."""
    start = 0
    for run in _BLANK_RUN.finditer(text):
        if is_paragraph_end(run.group()):
            if span := trim_span(text, start, run.start()):
                yield span
            start = run.end()
    if span := trim_span(text, start, len(text)):
        yield span


def split_sentences(text: str, *, language: str | None = None) -> Iterator[Span]:
    """Yield the sentences of a text. The end of a paragraph always ends a sentence.

    `language` is any form that `languages.find_language_code` accepts. Without it, the language is guessed from the
    script, with English as the default. Scripts without a sentence mark, such as Thai, have one sentence per paragraph.
    """
    code = (find_language_code(language) if language else None) or _guess_language(text)
    for paragraph in split_paragraphs(text):
        if _ONLY_WORDS.fullmatch(text, *paragraph):
            yield paragraph
            continue
        start = paragraph.start
        pending: Span | None = None
        pending_has_word = False
        for end in _find_sentence_ends(text[paragraph.start : paragraph.end], code):
            end += paragraph.start
            span = trim_span(text, start, end)
            start = end
            if span is None:
                continue
            span_has_word = _WORD.search(text, *span) is not None
            if pending is None:
                pending, pending_has_word = span, span_has_word
            elif pending_has_word and span_has_word and not _is_same_sentence(text, pending.end, span.start):
                yield pending
                pending = span
            else:
                pending, pending_has_word = Span(pending.start, span.end), pending_has_word or span_has_word
        if pending is not None:
            yield pending


def is_continuation(text: str, index: int) -> bool:
    """Return whether a character may combine with the punctuation mark or space before it."""
    char = text[index] if index < len(text) else ""
    if not char or char.isascii():
        return False
    return (
        unicodedata.category(char)[0] == "M"
        or char in "\u200c\u200d\u0e33\u0eb3\uff9e\uff9f"  # joiners, Thai and Lao AM, half-width sound marks
        or "\U0001f3fb" <= char <= "\U0001f3ff"  # emoji modifiers
        or "\U000e0020" <= char <= "\U000e007f"  # tags
        or text[index - 1 : index] == "\u200d"
    )


def is_in_number(text: str, index: int) -> bool:
    """Return whether an index follows the separator of a number or a time, such as a full-width decimal point."""
    return _IN_NUMBER.fullmatch(text, max(0, index - 2), index + 1) is not None


def _is_same_sentence(text: str, end: int, start: int) -> bool:
    """Return whether a boundary found by sentencex does not separate two sentences."""
    if end == start and is_in_number(text, start):
        return True
    if text[end - 1] == ".":
        last_characters = text[max(0, end - 5) : end]
        if _INITIAL.search(last_characters) or (_SHORT_ABBREVIATION.search(last_characters) and text[start].islower()):
            return True
    return is_continuation(text, start)


def _find_sentence_ends(paragraph: str, code: str) -> Iterator[int]:
    from sentencex import get_sentence_boundaries

    sanitized = _UNSUPPORTED_CHARACTERS.sub(" ", paragraph)
    start = 0
    while start < len(sanitized):
        window = sanitized[start : start + _WINDOW_CHARACTERS]
        ends = [boundary["end_index"] for boundary in get_sentence_boundaries(code, window)]
        if start + len(window) == len(sanitized):
            yield from (start + end for end in ends[:-1])
            yield len(sanitized)
            return
        if len(ends) > 1:  # the last sentence ends with the window
            yield from (start + end for end in ends[:-1])
            start += ends[-2]
        else:  # the sentence is longer than the window: move the window to a word in its second half
            start += max(window.rfind(" ") + 1, _WINDOW_CHARACTERS // 2)


def _guess_language(text: str) -> str:
    """Guess the language from the script of the first 500 characters."""
    counts: dict[str, int] = {}
    for letter in _LETTER.findall(text[:500]):
        script = unicodedata.name(letter, "").partition(" ")[0]
        counts[script] = counts.get(script, 0) + 1
    if counts.get("HIRAGANA", 0) or counts.get("KATAKANA", 0):
        return "ja"
    return _LANGUAGE_BY_SCRIPT.get(max(counts, key=lambda script: counts[script], default=""), "en")
