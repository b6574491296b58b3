"""Write numbers as they are spoken: `18` is `eighteen`."""

from __future__ import annotations

import re
from functools import lru_cache

# The rules of Unicode CLDR for some 80 languages; loaded only to compare a text with its transcript.
from unicode_rbnf import FormatPurpose, RbnfEngine
from unicode_rbnf.engine import RbnfError

# A number with more digits is read digit by digit.
MAX_DIGITS = 12
# Numbers of four digits that are read as years: "nineteen ninety-nine". Elsewhere a year is read like any number.
_YEAR_LANGUAGES = frozenset({"en", "de", "nl", "sv", "da", "no", "nn"})
_YEARS = (*range(1100, 2000), *range(2010, 2100))
# Languages that group digits with a comma and write fractions with a full stop. The others do the reverse.
_COMMA_GROUPS = frozenset({"en", "zh", "ja", "ko", "th", "he", "hi", "yue"})
# How the decimal mark is read.
_MARK_WORDS = {
    "en": "point",
    "de": "Komma",
    "fr": "virgule",
    "es": "coma",
    "it": "virgola",
    "pt": "vírgula",
    "nl": "komma",
    "zh": "点",
    "ja": "点",
    "pl": "przecinek",
    "sv": "komma",
    "da": "komma",
}
_SEPARATORS = re.compile(r"[\s-]+")
_SOFT_HYPHEN = "\u00ad"


@lru_cache(maxsize=16)
def _load_engine(language: str) -> RbnfEngine | None:
    """Return the rules of a language; None if there are none."""
    try:
        return RbnfEngine.for_language(language)
    except (ValueError, OSError, RbnfError):
        return None


@lru_cache(maxsize=4096)
def spell_number(number: str, language: str, *, is_ordinal: bool = False) -> tuple[str, ...]:
    """Return the words of a number, such as `1,200.5`. In a language without rules, it is one word.

    Separators are read as the language writes them. A number with leading zeros, or a very long one, is read digit by
    digit.
    """
    parts = re.split(r"[.,]", number)
    if len(parts) > 2 and any(len(part) != 3 for part in parts[1:-1]):
        # A version or a date.
        return tuple(word for part in parts for word in spell_number(part, language))
    whole, fraction = _split_fraction(number, language)
    engine = _load_engine(language)
    if engine is None or not whole:
        return (whole + fraction,)
    if (len(whole) > 1 and whole.startswith("0")) or len(whole) > MAX_DIGITS:
        words = _spell_digits(engine, whole)
    elif is_ordinal:
        words = _format(engine, whole, FormatPurpose.ORDINAL)
    else:
        is_year = whole == number and language in _YEAR_LANGUAGES and int(whole) in _YEARS
        words = _format(engine, whole, FormatPurpose.YEAR if is_year else FormatPurpose.CARDINAL)
    mark = [_MARK_WORDS[language]] if fraction and language in _MARK_WORDS else []
    return (*words, *mark, *_spell_digits(engine, fraction))


def _spell_digits(engine: RbnfEngine, digits: str) -> list[str]:
    return [word for digit in digits for word in _format(engine, digit, FormatPurpose.CARDINAL)]


def _format(engine: RbnfEngine, digits: str, purpose: FormatPurpose) -> list[str]:
    try:
        text = engine.format_number(digits, purpose).text
    except (RbnfError, ValueError):
        return [digits]
    return [word for word in _SEPARATORS.split(text.replace(_SOFT_HYPHEN, "")) if word]


def _split_fraction(number: str, language: str) -> tuple[str, str]:
    """Return the digits before and after the decimal mark, without separators.

    A separator followed by three digits groups them, unless the language writes fractions with it.
    """
    group, mark = (",", ".") if language in _COMMA_GROUPS else (".", ",")
    parts = number.split(mark)
    if len(parts) == 2 and parts[1]:
        return _keep_digits(parts[0]), _keep_digits(parts[1])
    # The other mark: a group if three digits follow, else a fraction in foreign notation.
    head, separator, tail = number.rpartition(group)
    if separator and len(tail) != 3 and group not in head:
        return _keep_digits(head), _keep_digits(tail)
    return _keep_digits(number), ""


def _keep_digits(text: str) -> str:
    return "".join(str(int(character)) for character in text if character.isdecimal())
