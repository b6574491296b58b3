"""How long a text takes to be spoken: good enough to notice speech that was silently cut short."""

from __future__ import annotations

import unicodedata
from collections import Counter

# Ordinary reading aloud: about 150 words a minute in English, which is 15 characters a second with the spaces; in
# Chinese and Japanese about 4 characters a second (Pellegrino et al. 2011, "Across-language perspective on speech
# information rate": 5 to 8 syllables a second; careful reading is slower).
CHARACTERS_PER_S = 15.0
WIDE_CHARACTERS_PER_S = 4.0

# Below this share of the expected length speech is probably not all there.
SUSPICIOUS_SHARE = 1 / 3
# Too short to be judged: one word may take a moment or two.
JUDGED_FROM_S = 3.0


def expected_s(text: str, speed: float | None = None) -> float:
    """Estimate the seconds of speech in a text."""
    spoken = " ".join(text.split())
    # By distinct characters, for a book has few of them.
    wide = sum(count for character, count in Counter(spoken).items() if unicodedata.east_asian_width(character) in "WF")
    return (wide / WIDE_CHARACTERS_PER_S + (len(spoken) - wide) / CHARACTERS_PER_S) / (speed or 1.0)


def is_suspiciously_short(duration_s: float, text: str, speed: float | None = None) -> bool:
    expected = expected_s(text, speed)
    return expected >= JUDGED_FROM_S and duration_s < expected * SUSPICIOUS_SHARE


def has_words(text: str) -> bool:
    """Tell whether there is anything in a text to be spoken: white space and what is not seen is not."""
    if any(character.isalnum() for character in text):
        return True
    from .sentences import trimmed

    return trimmed(text, 0, len(text)) is not None
