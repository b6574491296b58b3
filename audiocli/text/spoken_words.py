"""Split a text into words by which it can be compared with a transcript of its speech.

Both are normalized in the same way, so that differences of spelling are not differences of speech:

| written | compared as |
|---|---|
| `Hello,` `hello` | `hello`: case, punctuation and accents do not count |
| `18` `1,200` `3.5` `1st` | `eighteen`, and so on, by the rules of the language |
| `Dr.` `z. B.` `p. ej.` | `doctor`, `zum beispiel`, `por ejemplo` |
| `%` `$5` `&` | `percent`, `five dollars`, `and` |
| `U.S.A.` `U S A` | `usa` |
| scripts without spaces (Chinese, Japanese, Thai) | each character |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from .line_breaking import fold_character, is_unspaced
from .spoken_numbers import spell_number

# A character of a script without spaces counts as half a word: a Chinese word has about one and a half.
CHARACTER_WEIGHT = 0.5


class SpokenWord(NamedTuple):
    """A word of a text, `text[start:end]`, with how it is spoken.

    Attributes:
        parts: What is compared: a number has several parts, and still counts as one word.
        weight: How many words it counts.
    """

    parts: tuple[str, ...]
    start: int
    end: int
    weight: float = 1.0


# Abbreviations by language. Those of a single word also stand for other words that are written like them.
_ABBREVIATIONS = {
    "en": "mr mister, mrs missus, ms miss, dr doctor, prof professor, st saint, mt mount, vs versus, etc et cetera,"
    " e.g for example, i.e that is, approx approximately, dept department, jr junior, sr senior, ok okay,"
    " ave avenue, blvd boulevard, mph miles per hour, km kilometers, kg kilograms",
    "de": "dr doktor, prof professor, hr herr, nr nummer, str straße, z.b zum beispiel, d.h das heißt,"
    " u.a unter anderem, usw und so weiter, bzw beziehungsweise, ca circa, ggf gegebenenfalls, evtl eventuell,"
    " inkl inklusive, st sankt, km kilometer, kg kilogramm",
    "fr": "m monsieur, dr docteur, mme madame, mlle mademoiselle, mm messieurs, p.ex par exemple, etc et cetera,"
    " st saint, ste sainte, av avenue, bd boulevard, env environ, km kilomètres, kg kilogrammes",
    "es": "dr doctor, dra doctora, sr señor, sra señora, srta señorita, p.ej por ejemplo, etc etcétera, ud usted,"
    " uds ustedes, ee.uu estados unidos, av avenida, núm número, km kilómetros, kg kilogramos",
    "it": "dott dottore, sig signore, sig.ra signora, ecc eccetera, es esempio, km chilometri, kg chilogrammi",
    "pt": "dr doutor, dra doutora, sr senhor, sra senhora, p.ex por exemplo, etc et cetera, km quilômetros",
    "nl": "dr dokter, dhr de heer, mevr mevrouw, bijv bijvoorbeeld, d.w.z dat wil zeggen, enz enzovoort,"
    " nr nummer, km kilometer, kg kilogram",
}
_SYMBOLS = {
    "en": "% percent, & and, $ dollars, € euros, £ pounds, + plus, = equals, ° degrees, @ at",
    "de": "% prozent, & und, $ dollar, € euro, £ pfund, + plus, = gleich, ° grad, @ at",
    "fr": "% pour cent, & et, $ dollars, € euros, £ livres, + plus, = égale, ° degrés, @ arobase",
    "es": "% por ciento, & y, $ dólares, € euros, £ libras, + más, = igual, ° grados, @ arroba",
    "it": "% per cento, & e, $ dollari, € euro, £ sterline, + più, = uguale, ° gradi, @ chiocciola",
    "pt": "% por cento, & e, $ dólares, € euros, £ libras, + mais, = igual, ° graus, @ arroba",
    "nl": "% procent, & en, $ dollar, € euro, £ pond, + plus, = is, ° graden, @ apenstaartje",
}
# Spellings of one word that occur in transcripts. Each is compared as the last one.
_VARIANTS = {"en": {"ok": "okay", "street": "st", "saint": "st", "mrs": "missus", "percentage": "percent"}}

_NUMBER = r"\d+(?:[.,'’\u202f]\d+)*"
_TOKEN = (
    rf"(?P<number>{_NUMBER})(?P<ordinal>(?:st|nd|rd|th|er|re|ème|e|º|ª)(?!\w))?"
    r"|(?P<initials>(?<!\w)(?:[^\W\d_]\.[ \u00a0]?){1,}[^\W\d_]\.?(?!\w)|(?<!\w)(?:[A-Z][ -]){1,}[A-Z](?!\w))"
    r"|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)*)"
    r"|(?P<symbol>[%&$€£+=°@])"
)
_CURRENCIES = frozenset("$€£")
_GROUP_SPACE = re.compile(r"(?<=\d)[\u00a0\u202f ](?=\d{3}(?!\d))")


def _parse_table(table: dict[str, str]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Parse `written spoken words` between commas."""
    return {
        language: {
            written: tuple(map(_fold, spoken.split()))
            for written, _, spoken in (entry.strip().partition(" ") for entry in entries.split(","))
        }
        for language, entries in table.items()
    }


def _fold(text: str) -> str:
    return "".join(map(fold_character, text))


_SPOKEN_ABBREVIATIONS = _parse_table(_ABBREVIATIONS)
_SPOKEN_SYMBOLS = _parse_table(_SYMBOLS)


@lru_cache(maxsize=16)
def _compile_token(code: str) -> re.Pattern[str]:
    """Return the pattern of the words of a language. Its abbreviations of several parts come first."""
    names = [name for name in _SPOKEN_ABBREVIATIONS.get(code, {}) if "." in name]
    patterns = [r"\.[ \u00a0\u202f]?".join(map(re.escape, name.split("."))) for name in names]
    abbreviations = rf"(?<!\w)(?:{'|'.join(patterns)})(?:\.|(?!\w))" if patterns else r"(?!)"
    return re.compile(rf"(?P<abbreviation>(?i:{abbreviations}))|{_TOKEN}")


def split_spoken_words(text: str, language: str | None) -> tuple[SpokenWord, ...]:
    """Return the words of a text in order. `language` is a code such as `de`; without one, numbers are English.

    What is not spoken, such as punctuation, belongs to no word.
    """
    code = (language or "en").partition("-")[0].lower()
    # The same length, so that positions stay valid.
    text = _GROUP_SPACE.sub("\u202f", text)
    return tuple(word for word in _iterate_words(text, code) if word.parts)


def _iterate_words(text: str, code: str) -> Iterator[SpokenWord]:
    currency: SpokenWord | None = None
    for match in _compile_token(code).finditer(text):
        start, end = match.span()
        if match["symbol"] is not None:
            word = SpokenWord(_speak_symbol(match["symbol"], code), start, end)
            if match["symbol"] in _CURRENCIES and text[end : end + 1].isdecimal():
                currency = word  # it is spoken after its amount
                continue
            yield word
        elif match["number"] is not None:
            yield _speak_number(match, code)
            if currency is not None:
                yield currency
                currency = None
        elif match["abbreviation"] is not None or match["initials"] is not None:
            yield _speak_initials(match[0], start, end, code)
        else:
            yield from _split_word(text, start, end, code)


def _speak_symbol(symbol: str, code: str) -> tuple[str, ...]:
    return _SPOKEN_SYMBOLS.get(code, _SPOKEN_SYMBOLS["en"]).get(symbol, ())


def _speak_number(match: re.Match[str], code: str) -> SpokenWord:
    words = spell_number(match["number"], code, is_ordinal=match["ordinal"] is not None)
    folded = tuple(filter(None, map(_fold, words)))
    if any(is_unspaced(character) for part in folded for character in part):
        folded = tuple(character for part in folded for character in part)
    return SpokenWord(folded, *match.span())


def _speak_initials(initials: str, start: int, end: int, code: str) -> SpokenWord:
    """Return an abbreviation such as `z. B.`, or initials such as `U.S.A.` as one word."""
    letters = re.sub(r"[. \u00a0\u202f-]+", ".", initials).strip(".")
    spoken = _SPOKEN_ABBREVIATIONS.get(code, {}).get(letters.lower())
    return SpokenWord(spoken or (_fold(letters.replace(".", "")),), start, end)


def _split_word(text: str, start: int, end: int, code: str) -> Iterator[SpokenWord]:
    """Yield a word, or each character of a script without spaces."""
    first = start
    for index in range(start, end + 1):
        if index < end and not is_unspaced(text[index]):
            continue
        if first < index:
            yield _speak_word(text, first, index, code)
        if index < end:
            yield SpokenWord((_fold(text[index]) or text[index],), index, index + 1, CHARACTER_WEIGHT)
        first = index + 1


def _speak_word(text: str, start: int, end: int, code: str) -> SpokenWord:
    spelling = _fold(text[start:end])
    abbreviations = _SPOKEN_ABBREVIATIONS.get(code, {})
    spoken = abbreviations.get(text[start:end].lower()) if text[end : end + 1] == "." else None
    if spoken is None and end - start > 1:
        # Transcripts leave out the full stop.
        spoken = abbreviations.get(text[start:end].lower()) if text[start:end].lower() not in _AMBIGUOUS else None
    parts = spoken or ((spelling,) if spelling else ())
    variants = _VARIANTS.get(code, {})
    return SpokenWord(tuple(variants.get(part, part) for part in parts), start, end)


# Abbreviations that are words of their own without a full stop.
_AMBIGUOUS = frozenset({"es", "st", "str", "nr", "mm", "av", "sr", "jr", "env", "ms", "ste", "ave"})
