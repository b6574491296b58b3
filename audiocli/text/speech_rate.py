"""Estimate the duration of spoken text, precisely enough to detect truncated speech."""

from __future__ import annotations

import unicodedata
from collections import Counter

# Reading aloud: about 150 words per minute in English, which is 15 characters per second including spaces, and about 4
# characters per second in Chinese and Japanese (Pellegrino et al. 2011, "Across-language perspective on speech
# information rate": 5 to 8 syllables per second; careful reading is slower).
CHARACTERS_PER_S = 15.0
WIDE_CHARACTERS_PER_S = 4.0

# Speech below this share of the estimated duration is probably truncated.
MIN_PLAUSIBLE_SHARE = 1 / 3
# Shorter estimates are not reliable enough, because the duration of a single word varies.
MIN_RELIABLE_ESTIMATE_S = 3.0


def estimate_duration_s(text: str, speed: float | None = None) -> float:
    """Return the estimated duration of a spoken text in seconds."""
    normalized = " ".join(text.split())
    # Counting by distinct characters is fast even for a book, which has few of them.
    wide_count = sum(
        count for character, count in Counter(normalized).items() if unicodedata.east_asian_width(character) in "WF"
    )
    return (wide_count / WIDE_CHARACTERS_PER_S + (len(normalized) - wide_count) / CHARACTERS_PER_S) / (speed or 1.0)


def is_suspiciously_short(duration_s: float, text: str, speed: float | None = None) -> bool:
    """Return whether speech is so short that part of the text is probably missing."""
    expected_s = estimate_duration_s(text, speed)
    return expected_s >= MIN_RELIABLE_ESTIMATE_S and duration_s < expected_s * MIN_PLAUSIBLE_SHARE


def has_speakable_text(text: str) -> bool:
    """Return whether a text has anything to speak: more than white space and invisible characters."""
    if any(character.isalnum() for character in text):
        return True
    from .sentences import trim_span

    return trim_span(text, 0, len(text)) is not None
