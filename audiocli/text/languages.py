"""Map names and tags of languages, from users and gateways, to language codes."""

from __future__ import annotations

# The languages of Whisper, whose names transcription gateways use, with their ISO 639-1 code (639-3 if there is none).
# Source: the list of languages in OpenAI's Whisper documentation.
_NAMES = """
af afrikaans, am amharic, ar arabic, as assamese, az azerbaijani, ba bashkir, be belarusian, bg bulgarian, bn bengali,
bo tibetan, br breton, bs bosnian, ca catalan, cs czech, cy welsh, da danish, de german, el greek, en english,
es spanish, et estonian, eu basque, fa persian, fi finnish, fo faroese, fr french, gl galician, gu gujarati, ha hausa,
haw hawaiian, he hebrew, hi hindi, hr croatian, ht haitian creole, hu hungarian, hy armenian, id indonesian,
is icelandic, it italian, ja japanese, jw javanese, ka georgian, kk kazakh, km khmer, kn kannada, ko korean, la latin,
lb luxembourgish, ln lingala, lo lao, lt lithuanian, lv latvian, mg malagasy, mi maori, mk macedonian, ml malayalam,
mn mongolian, mr marathi, ms malay, mt maltese, my myanmar, ne nepali, nl dutch, nn nynorsk, no norwegian, oc occitan,
pa punjabi, pl polish, ps pashto, pt portuguese, ro romanian, ru russian, sa sanskrit, sd sindhi, si sinhala,
sk slovak, sl slovenian, sn shona, so somali, sq albanian, sr serbian, su sundanese, sv swedish, sw swahili, ta tamil,
te telugu, tg tajik, th thai, tk turkmen, tl tagalog, tr turkish, tt tatar, uk ukrainian, ur urdu, uz uzbek,
vi vietnamese, yi yiddish, yo yoruba, yue cantonese, zh chinese
"""
_ALIASES = {
    "burmese": "my",
    "castilian": "es",
    "farsi": "fa",
    "filipino": "tl",
    "flemish": "nl",
    "haitian": "ht",
    "javanese": "jw",
    "letzeburgesch": "lb",
    "mandarin": "zh",
    "moldavian": "ro",
    "moldovan": "ro",
    "panjabi": "pa",
    "pushto": "ps",
    "sinhalese": "si",
    "valencian": "ca",
}
_CODES_BY_NAME = {
    name: code for code, _, name in (entry.strip().partition(" ") for entry in _NAMES.replace("\n", " ").split(","))
} | _ALIASES
_CODES = frozenset(_CODES_BY_NAME.values()) | {"jv"}


def find_language_code(language: str) -> str | None:
    """Return the code of a language, `pt` for `pt-BR`, `pt_BR`, `PT` or `Portuguese`. Return None if it is unknown."""
    normalized = language.strip().lower()
    if normalized in _CODES_BY_NAME:
        return _CODES_BY_NAME[normalized]
    primary = normalized.replace("_", "-").partition("-")[0]
    return primary if primary in _CODES else None


def suggest_languages(language: str) -> list[str]:
    """Return the names of languages that are similar to an unknown one, best match first."""
    import difflib

    return difflib.get_close_matches(language.strip().lower(), _CODES_BY_NAME, n=2)
