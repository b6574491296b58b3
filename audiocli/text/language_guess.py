"""Guess the language of a text from its script, its letters and its most frequent words."""

from __future__ import annotations

import re

from .scripts import count_scripts

# Languages by script, as tags that espeak has. Scripts of many languages have the one with the most speakers.
_LANGUAGE_BY_SCRIPT = {
    "CYRILLIC": "ru",
    "GREEK": "el",
    "ARABIC": "ar",
    "HEBREW": "he",
    "ARMENIAN": "hy",
    "GEORGIAN": "ka",
    "ETHIOPIC": "am",
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "SINHALA": "si",
    "MYANMAR": "my",
    "HANGUL": "ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "cmn",
}
_UKRAINIAN = re.compile("[іїєґ]", re.IGNORECASE)
_PERSIAN = re.compile("[پچژگ]")
_KANA = ("HIRAGANA", "KATAKANA")

# Frequent words without meaning of their own. Words that are frequent in English too are left out.
_WORDS = {
    language: frozenset(words.split())
    for language, words in {
        "en": "the and of to is it that was for on are with he you this be at have from or had by but not what were"
        " we when there can an your which their said if will how out up them then she many some so these would"
        " his her has its our they been more who did do does hello my me all one",
        "de": "der die das und ist nicht ich ein eine den dem des von zu mit auf für im sich auch es sie wir ihr er"
        " einen einer wie aber oder wenn dass noch nach bei aus zum zur sind wird haben werden wurde guten",
        "fr": "le la les des et est un une du que qui dans pour pas sur au avec ce il elle nous vous je ne se sont"
        " aux cette mais ou où ses être été fait très bonjour c'est",
        "es": "el la los las de y que en un una es se por con para su al lo como más pero sus le ya este sí porque"
        " esta entre cuando muy sin sobre también hasta hay donde está hola del",
        "it": "il lo la gli le di e che è una con del della dei delle si sono più ma anche al alla nel"
        " nella da questo questa ha io mi ci molto ciao buongiorno",
        "pt": "o os um uma de e que não da dos das em na para com por se mais como mas foi ao ele ela seu sua"
        " está muito também já você eu isso olá bom",
        "nl": "de het een en van niet dat ik je op te zijn met voor er maar om hem zou wat mijn dit deze"
        " ook aan uit bij naar wij worden goedendag geen",
        "sv": "och att det som en på är av för med den till inte har om ett han hon jag vi ni var eller från kan"
        " ska när hej",
        "da": "og det som en på er af med den til ikke har om et han hun jeg vi var eller fra kan skal når hej blev",
        "pl": "w na z się nie że jest jak od po co za ale czy przez dla są jego tak tym być już dzień o",
        "cs": "se v na je že s z jsem ale jak tak po za který které jsou bylo není jako dobrý",
        "ro": "și în de cu nu este un pe care să din ce mai pentru sunt dar au fost bună",
        "hu": "az és hogy nem egy ez meg van volt de csak ha már mint jó nagyon",
        "tr": "ve bir da de için ile çok var mı sen gibi daha kadar değil ama merhaba",
        "fi": "ja ei se että hän oli ovat mutta kun niin myös tai joka sen minä hyvää",
    }.items()
}
# Letters that occur in one language only, among those above.
_LETTERS = {
    "de": "ß",
    "es": "ñ¿¡",
    "pt": "ãõ",
    "pl": "łąęśćźżń",
    "cs": "řěů",
    "hu": "őű",
    "tr": "ğış",
    "ro": "șță",
}
# Words in the names of people and places, which are no evidence for the language of a text.
_NAME_PARTICLES = frozenset(
    (
        "da",
        "das",
        "de",
        "del",
        "della",
        "der",
        "des",
        "di",
        "dos",
        "du",
        "el",
        "la",
        "las",
        "le",
        "los",
        "van",
        "von",
        "y",
    )
)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_MAX_CHARACTERS = 5_000
# A language needs this many different words or letters, and this lead over English.
_MIN_EVIDENCE = 2
_MIN_LEAD = 1.5


def guess_language(text: str) -> str | None:
    """Return the tag of the language of a text; None if it is English or uncertain.

    One foreign word in an English text is no evidence.
    """
    language = identify_language(text)
    return None if language == "en" else language


def identify_language(text: str) -> str | None:
    """Return the tag of the language of a text, also `en`; None if it is uncertain."""
    text = text[:_MAX_CHARACTERS]
    if not text.isascii() and (language := _guess_by_script(text)) is not None:
        return language
    words = [word.replace("’", "'") for word in _WORD.findall(text.lower())]
    scores = {language: sum(word in known for word in words) for language, known in _WORDS.items()}
    distinct = {language: len(known.intersection(words) - _NAME_PARTICLES) for language, known in _WORDS.items()}
    for language, letters in _LETTERS.items():
        found = sum(any(letter in word for letter in letters) for word in words)
        found += sum(text.count(letter) for letter in "¿¡") if language == "es" else 0
        scores[language] += 2 * found
        distinct[language] += bool(found)
    best = max(scores, key=lambda language: (scores[language], distinct[language]))
    if distinct[best] < _MIN_EVIDENCE or (best != "en" and scores[best] < _MIN_LEAD * scores["en"]):
        return None
    return best


def _guess_by_script(text: str) -> str | None:
    """Return the language of the script that most letters have; None for Latin script and unknown ones."""
    scripts = count_scripts(text)
    if not scripts:
        return None
    script = scripts.most_common(1)[0][0]
    if script == "CJK" and any(scripts[kana] for kana in _KANA):
        return "ja"
    language = _LANGUAGE_BY_SCRIPT.get(script)
    if language == "ru" and _UKRAINIAN.search(text):
        return "uk"
    if language == "ar" and _PERSIAN.search(text):
        return "fa"
    return language
