"""Estimate the duration of spoken text, precisely enough to detect truncated speech."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

# Reading aloud: about 150 words per minute in English, which is 15 characters per second including spaces, and about 4
# characters per second in Chinese and Japanese (Pellegrino et al. 2011, "Across-language perspective on speech
# information rate": 5 to 8 syllables per second; careful reading is slower).
CHARACTERS_PER_S = 15.0
WIDE_CHARACTERS_PER_S = 4.0

# Speech below this share of the estimated duration is probably truncated.
MIN_PLAUSIBLE_SHARE = 1 / 3
# Shorter estimates are not reliable enough, because the duration of a single word varies.
MIN_RELIABLE_ESTIMATE_S = 3.0

# Speech above this length is not of the text: a server sends without end. A factor and seconds, both generous.
MAX_PLAUSIBLE_FACTOR = 10.0
MIN_PLAUSIBLE_MAXIMUM_S = 120.0

# The chunks of one run have one voice, so their rates differ little. The rates of shorter chunks differ more.
MIN_SHARE_OF_OTHERS = 0.6
MIN_COMPARED_CHUNKS = 4
MIN_COMPARED_S = 1.5

# Rulers and boxes take no time.
_UNSPEAKABLE_RUN = re.compile(r"[\W_]{3,}")


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


def compute_max_duration_s(text: str, speed: float | None = None) -> float:
    """Return the length that no speech of a text reaches, in seconds."""
    return max(MIN_PLAUSIBLE_MAXIMUM_S, estimate_duration_s(text, speed) * MAX_PLAUSIBLE_FACTOR)


def find_short_speech(chunks: Sequence[tuple[str, float]]) -> Iterator[tuple[int, float]]:
    """Yield the index and the expected duration of each chunk whose speech is probably incomplete.

    `chunks` are texts with their durations in seconds. A chunk is compared with the median rate of the other chunks.
    """
    estimates_s = [estimate_duration_s(_UNSPEAKABLE_RUN.sub(" ", text)) for text, _ in chunks]
    rates = sorted(duration_s / estimate_s for estimate_s, (_, duration_s) in zip(estimates_s, chunks, strict=True))
    if len(chunks) < MIN_COMPARED_CHUNKS:
        return
    for index, (estimate_s, (_, duration_s)) in enumerate(zip(estimates_s, chunks, strict=True)):
        # The rates without this one are not copied and sorted again, because a book has thousands of chunks.
        position = bisect_left(rates, duration_s / estimate_s)
        middle = [rates[rank + (rank >= position)] for rank in ((len(rates) - 2) // 2, (len(rates) - 1) // 2)]
        expected_s = estimate_s * sum(middle) / 2
        if expected_s >= MIN_COMPARED_S and duration_s < expected_s * MIN_SHARE_OF_OTHERS:
            yield index, expected_s


def has_speakable_text(text: str) -> bool:
    """Return whether a text has anything to speak: a letter or a digit.

    Hangul fillers are letters in Unicode but are invisible.
    """
    return any(character.isalnum() and character not in "\u115f\u1160\u3164\uffa0" for character in text)
