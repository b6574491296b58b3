"""Find the paragraphs and sentences of a text in any language.

Everything is a span of code points in the text as it was given. What is blank (white space, control characters, marks
without width) belongs to no span, and no span is blank.

Sentences are sentencex's, in three respects helped along (1.0.32, 2026-11). It panics at white space of several bytes
before a full stop, and refuses lone surrogates: it is shown a text of the same length without either. Its time grows
with the square of a Chinese paragraph: it is shown windows. It finds sentences without a word in them, such as a
lone quotation mark, and ends some after an initial ("M. Dupont"): these are joined.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from .languages import code_of

_WINDOW = 600  # characters: Chinese is quickest this way, and sentences that are meant to be read are shorter

# White space, controls, and the format characters that are neither seen nor said. The joiners U+200C and U+200D are
# part of what they join.
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
BLANK = "".join(chr(code) for codes in _BLANK_RANGES for code in codes)
_INK = re.compile(f"[^{re.escape(BLANK)}]")

_LINE_END = r"(?:\r\n|\r(?!\n)|[\n\v\x1c-\x1e\x85\u2028])"
_PARAGRAPH_END = re.compile(rf"{_LINE_END}[^\S\n\r\v\x1c-\x1e\x85\u2028]*{_LINE_END}|[\f\u2029]")
_BLANK_RUN = re.compile(r"\s{2,}|[\f\u2029]")

_UNKNOWN_SPACE = re.compile(r"[^\S \n]|[\ud800-\udfff]")
_ONLY_WORDS = re.compile(r"[\w ,]*")
_WORD = re.compile(r"\w")
# An initial, as in "M. Dupont", and what is short and goes on in small letters, as in "p. ex. ici".
_INITIAL = re.compile(r"(?<!\w)[^\W\d_]\.\Z")
_SHORT = re.compile(r"(?<!\w)[^\W\d_]{1,3}\.\Z")
_LETTER = re.compile(r"[^\W\d_]")
# Where the script alone tells the language, or one whose marks and abbreviations are right for more than English's.
_LANGUAGE_OF_SCRIPT = {
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
    """A part of a text, half-open, in code points."""

    start: int
    end: int


def trimmed(text: str, start: int, end: int) -> Span | None:
    """Take what is blank off both ends of a span; None if nothing remains."""
    first = _INK.search(text, start, end)
    return None if first is None else Span(first.start(), start + len(text[start:end].rstrip(BLANK)))


def next_ink(text: str, place: int) -> int:
    """Find the first character from a place on that is not blank; the text's length if there is none."""
    found = _INK.search(text, place)
    return len(text) if found is None else found.start()


def ends_paragraph(gap: str) -> bool:
    """Tell whether white space is a paragraph's end: an empty line, a form feed, a paragraph separator."""
    return _PARAGRAPH_END.search(gap) is not None


def paragraphs(text: str) -> Iterator[Span]:
    """Find the paragraphs of a text. A single line end does not end one, for texts are often wrapped by hand."""
    begin = 0
    for run in _BLANK_RUN.finditer(text):
        if ends_paragraph(run.group()):
            if span := trimmed(text, begin, run.start()):
                yield span
            begin = run.end()
    if span := trimmed(text, begin, len(text)):
        yield span


def sentences(text: str, *, language: str | None = None) -> Iterator[Span]:
    """Find the sentences of a text; a paragraph's end is always a sentence's.

    `language` as in `languages.code_of`; without one it is guessed from the script, and where that tells nothing the
    rules are English ones. Thai and the like, which have no mark for it, have one sentence to a paragraph.
    """
    code = (code_of(language) if language else None) or _guessed(text)
    for paragraph in paragraphs(text):
        if _ONLY_WORDS.fullmatch(text, *paragraph):
            yield paragraph
            continue
        begin = paragraph.start
        held: Span | None = None
        has_word = False
        for end in _sentence_ends(text[paragraph.start : paragraph.end], code):
            end += paragraph.start
            span = trimmed(text, begin, end)
            begin = end
            if span is None:
                continue
            says_more = _WORD.search(text, *span) is not None
            if held is None:
                held, has_word = span, says_more
            elif has_word and says_more and not _is_one(text, held.end, span.start):
                yield held
                held = span
            else:
                held, has_word = Span(held.start, span.end), has_word or says_more
        if held is not None:
            yield held


def continues(text: str, place: int) -> bool:
    """Tell whether the character at a place may be one with what is before it, if that is a mark or a space."""
    char = text[place] if place < len(text) else ""
    if not char or char.isascii():
        return False
    return (
        unicodedata.category(char)[0] == "M"
        or char in "\u200c\u200d\u0e33\u0eb3\uff9e\uff9f"  # joiners, Thai and Lao AM, half-width sound marks
        or "\U0001f3fb" <= char <= "\U0001f3ff"  # emoji modifiers
        or "\U000e0020" <= char <= "\U000e007f"  # tags
        or text[place - 1 : place] == "\u200d"
    )


def _is_one(text: str, end: int, start: int) -> bool:
    """Tell whether what ends here and what starts there are one sentence after all."""
    if text[end - 1] == ".":
        last = text[max(0, end - 5) : end]
        if _INITIAL.search(last) or (_SHORT.search(last) and text[start].islower()):
            return True
    return continues(text, start)


def _sentence_ends(paragraph: str, code: str) -> Iterator[int]:
    from sentencex import get_sentence_boundaries

    plain = _UNKNOWN_SPACE.sub(" ", paragraph)
    begin = 0
    while begin < len(plain):
        window = plain[begin : begin + _WINDOW]
        ends = [boundary["end_index"] for boundary in get_sentence_boundaries(code, window)]
        if begin + len(window) == len(plain):
            yield from (begin + end for end in ends[:-1])
            yield len(plain)
            return
        if len(ends) > 1:  # the last one ends only because the window does
            yield from (begin + end for end in ends[:-1])
            begin += ends[-2]
        else:  # a sentence longer than the window: its end is looked for from its middle on, at a word
            begin += max(window.rfind(" ") + 1, _WINDOW // 2)


def _guessed(text: str) -> str:
    """Guess the language from the first letters."""
    counts: dict[str, int] = {}
    for letter in _LETTER.findall(text[:500]):
        script = unicodedata.name(letter, "").partition(" ")[0]
        counts[script] = counts.get(script, 0) + 1
    if counts.get("HIRAGANA", 0) or counts.get("KATAKANA", 0):
        return "ja"
    return _LANGUAGE_OF_SCRIPT.get(max(counts, key=lambda script: counts[script], default=""), "en")
