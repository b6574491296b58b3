"""The language of a text, which selects the local voice."""

from __future__ import annotations

import pytest

from audiocli.text.language_guess import guess_language

TEXTS = {
    "de": "Guten Tag, ich wohne in Berlin und komme morgen nicht.",
    "fr": "Je ne sais pas où il est, mais nous partons avec elle.",
    "es": "Hola, ¿cómo estás? Esta es una prueba muy corta.",
    "it": "Buongiorno, questa è una prova di come si legge il testo.",
    "pt": "Ei, o que é isso? Não sei, mas você também está aqui.",
    "nl": "Het is een mooie dag en ik ga niet naar het werk.",
    "sv": "Det är en bra dag och jag är glad att du är här.",
    "da": "Jeg ved ikke hvad det er, men hun kan ikke være her.",
    "pl": "Dzień dobry, nie wiem, czy to jest tak.",
    "cs": "Dobrý den, nevím, jak to je, ale jsem tady.",
    "ro": "Bună ziua, nu știu ce este, dar sunt aici.",
    "hu": "Nem tudom, hogy mi ez, de már jó nagyon.",
    "tr": "Merhaba, bu çok güzel bir gün, ama ben değil.",
    "fi": "En tiedä mitä se on, mutta hän oli myös täällä.",
    "ru": "Привет мир",
    "uk": "Привіт, як справи?",
    "el": "Καλημέρα",
    "ja": "こんにちは世界",
    "cmn": "你好",
    "ko": "안녕하세요",
    "ar": "مرحبا بالعالم",
    "fa": "سلام چطوری",
    "he": "שלום",
    "hi": "नमस्ते",
}


@pytest.mark.parametrize("language", TEXTS)
def test_language_is_guessed_by_script_letters_and_words(language: str) -> None:
    assert guess_language(TEXTS[language]) == language


@pytest.mark.parametrize(
    "text",
    [
        "hello world",
        "The build is green.",
        "git commit -m fix",
        "Smith & Co. de la Vega",
        "Vincent van der Meer",
        "No. 5 is alive",
        "I want to do it on a plan, no?",
        "A naïve café in São Paulo, and a señor",
        "The word Schadenfreude and die Zeit und der Spiegel are German",
        "The word мир in a long English sentence",
        "12:30",
        "",
        "สวัสดี",
    ],
)
def test_english_and_uncertain_texts_have_no_guess(text: str) -> None:
    assert guess_language(text) is None


def test_only_the_beginning_of_a_long_text_is_read() -> None:
    assert guess_language("The weather is good today. " * 1_000 + TEXTS["de"] * 10_000) is None
