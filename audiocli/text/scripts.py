"""Find the scripts of a text, and the scripts in which a language is written."""

from __future__ import annotations

import unicodedata
from collections import Counter

# The first word of a character's Unicode name is its script. These names differ.
_SCRIPT_BY_NAME = {
    "FULLWIDTH": "LATIN",
    "HALFWIDTH": "KATAKANA",
    "MODIFIER": "LATIN",
    "MATHEMATICAL": "LATIN",
    "FEMININE": "LATIN",
    "MASCULINE": "LATIN",
    "MICRO": "GREEK",
    "IDEOGRAPHIC": "CJK",
    "KATAKANA-HIRAGANA": "KATAKANA",
}

# Languages that are not written in Latin script, by the first part of their tag.
_SCRIPTS_BY_LANGUAGE = {
    language: frozenset(scripts.split())
    for languages, scripts in (
        ("ba be bg cv kk ky mk mn nog ru tg tt uk", "CYRILLIC"),
        ("bs hbs hr sr", "CYRILLIC LATIN"),
        ("el grc", "GREEK"),
        ("ar fa ps sd ug ur", "ARABIC"),
        ("ku uz az tk", "LATIN ARABIC CYRILLIC"),
        ("he yi", "HEBREW"),
        ("hy hyw", "ARMENIAN"),
        ("ka", "GEORGIAN"),
        ("am ti", "ETHIOPIC"),
        ("hi kok mr ne sa", "DEVANAGARI"),
        ("as bn bpy", "BENGALI"),
        ("gu", "GUJARATI"),
        ("pa", "GURMUKHI"),
        ("or", "ORIYA"),
        ("ta", "TAMIL"),
        ("te", "TELUGU"),
        ("kn", "KANNADA"),
        ("ml", "MALAYALAM"),
        ("si", "SINHALA"),
        ("th", "THAI"),
        ("lo", "LAO"),
        ("my shn", "MYANMAR"),
        ("km", "KHMER"),
        ("ja", "HIRAGANA KATAKANA CJK"),
        ("ko", "HANGUL"),
        ("cmn hak yue zh", "CJK BOPOMOFO"),
        ("chr", "CHEROKEE"),
    )
    for language in languages.split()
}
_LATIN = frozenset({"LATIN"})
_MAX_CHARACTERS = 10_000
# A few foreign words in a text are usual.
_MIN_UNREADABLE_SHARE = 0.25


def count_scripts(text: str) -> Counter[str]:
    """Count the letters of each script, by the name of the script in Unicode."""
    scripts: Counter[str] = Counter()
    for character, count in Counter(text[:_MAX_CHARACTERS]).items():
        if character.isalpha():
            name = unicodedata.name(character, "UNKNOWN").partition(" ")[0]
            scripts[_SCRIPT_BY_NAME.get(name, name)] += count
    return scripts


def find_unreadable_script(text: str, language: str) -> str | None:
    """Return the script of much of a text that is not a script of a language, such as `Thai` for `en-us`, else None.

    Latin is always readable: every voice knows its letters. So is a script that the tag names (`en-shaw`).
    """
    if text.isascii():
        return None
    tag = language.lower().replace("_", "-")
    readable = _LATIN | _SCRIPTS_BY_LANGUAGE.get(tag.partition("-")[0], _LATIN)
    scripts = count_scripts(text)
    unreadable = Counter(
        {
            script: count
            for script, count in scripts.items()
            if script not in readable and not any(script.lower().startswith(part) for part in tag.split("-")[1:])
        }
    )
    if not unreadable or sum(unreadable.values()) < _MIN_UNREADABLE_SHARE * sum(scripts.values()):
        return None
    script = unreadable.most_common(1)[0][0]
    return {"CJK": "Chinese"}.get(script, script.capitalize())
