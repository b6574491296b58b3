"""Names and codes of languages: what people type, what gateways take and what they answer."""

from __future__ import annotations

# The languages of Whisper, which is what transcription gateways speak of, by their ISO 639-1 code (639-3 where there
# is none). Source: the list of languages in OpenAI's Whisper documentation.
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
_ALSO = {
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
_CODE_OF_NAME = {
    name: code for code, _, name in (entry.strip().partition(" ") for entry in _NAMES.replace("\n", " ").split(","))
} | _ALSO
_CODES = frozenset(_CODE_OF_NAME.values()) | {"jv"}


def code_of(language: str) -> str | None:
    """Reduce `pt-BR`, `pt_BR`, `PT` or `Portuguese` to `pt`; None for what is not a language known here."""
    told = language.strip().lower()
    if told in _CODE_OF_NAME:
        return _CODE_OF_NAME[told]
    primary = told.replace("_", "-").partition("-")[0]
    return primary if primary in _CODES else None


def nearest(language: str) -> list[str]:
    """Name the languages that the user may have meant, best first."""
    import difflib

    return difflib.get_close_matches(language.strip().lower(), _CODE_OF_NAME, n=2)
