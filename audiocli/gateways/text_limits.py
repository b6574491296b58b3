"""The maximum length of a text, as an error response names it, and as it is stored with the refused features.

Source: issues of public repositories (read 2026-11): OpenAI (troykelly/live-news-break#222), Google
(ziobudda/n8n-nodes-google-speech#1), ElevenLabs (elevenlabs/elevenlabs-python#107), alltalk (erew123/alltalk_tts#129),
context lengths (webtimemachine/wtm2#579), FastAPI servers (pydantic 2), OpenAI's specification 2.3.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import AttemptError
from .model_limits import BYTES_PER_TOKEN

REFUSAL_STATUSES = frozenset({400, 413, 422})
# A lower number is not the maximum length of a text.
MIN_LIMIT = 20

_NUMBER = r"(?P<number>\d{1,3}(?:[,'’_ ]\d{3})+(?!\d)|\d+)"
_UNIT = r"\s*-?\s*(?P<unit>(?:unicode |input |text )?(?:char(?:acter)?s?|bytes?|tokens?)\b)?"
_WORDS = r"(?:\s+(?:allowed|supported|permitted|input|text|prompt|string|context|window|request|length|size|limit|count"
_WORDS += r"|number|character|characters|chars|token|tokens|bytes?|of|is|the|for|this|model|per|in|are|be))*"
# In these phrases the number is the maximum, not the length of the text that was sent.
_LIMIT_PATTERNS = (
    rf"\b(?:max(?:imum)?|limit)(?:[_ ]?(?:length|chars|characters|tokens))?\b{_WORDS}\s*[:=(]?\s*{_NUMBER}{_UNIT}",
    rf"\b(?:at most|no more than|not exceed|(?:less|fewer|shorter) than(?: or equal to)?|up to|under|within){_WORDS}"
    rf"\s+{_NUMBER}{_UNIT}",
    rf"\b(?:exceed(?:s|ed|ing)?|longer than|greater than|more than|over|above){_WORDS}\s+{_NUMBER}{_UNIT}",
    rf"\b{_NUMBER}{_UNIT}\s*(?:limit|max(?:imum)?\b|or (?:less|fewer)|is the (?:limit|maximum)|allowed)",
    rf"\d\s*[>/]\s*{_NUMBER}{_UNIT}",
)
# Limits of other fields, of rates and of credit.
_OTHER_LIMIT_PATTERN = (
    r"(?i)\bper (?:second|minute|hour|day|month)\b|\b(?:rate limit|quota|credits?|remaining)\b"
    r"|\binvalid ['\"`](?!input|text|prompt)\w+"
    r"|^(?:\d{3} )?(?:body\.)?['\"`]?(?:voice|model|instructions?|speaker|language|style|name)\b"
)


class TextLimit(NamedTuple):
    """The maximum length of a text. `unit` is `characters`, `bytes` or `tokens`."""

    size: int
    unit: str

    @property
    def feature(self) -> str:
        """The name under which the limit is stored with the features that a model refuses."""
        return f"max_{self.unit}:{self.size}"

    def allows(self, text: str) -> bool:
        """Return whether the text is surely within the limit. A token has at least one byte."""
        return (len(text) if self.unit == "characters" else len(text.encode("utf-8", "replace"))) <= self.size


def find_text_limit(error: AttemptError, text: str) -> TextLimit | None:
    """Return the maximum length that an error response names; None if it is about something else.

    A maximum that the text does not exceed is not the reason for the refusal.
    """
    if error.status not in REFUSAL_STATUSES or re.search(_OTHER_LIMIT_PATTERN, error.message):
        return None
    message = error.message.removeprefix(f"{error.status} ")
    default_unit = next((unit for unit in ("tokens", "bytes") if unit[:-1] in message.lower()), "characters")
    for pattern in _LIMIT_PATTERNS:
        for match in re.finditer(pattern, message, re.IGNORECASE):
            size = int(re.sub(r"\D", "", match["number"])) if len(match["number"]) < 12 else 0
            limit = TextLimit(size, _parse_unit(match["unit"]) or default_unit)
            if size >= MIN_LIMIT and not limit.allows(text):
                return limit
    return None


def parse_features(features: Iterable[str]) -> tuple[TextLimit, ...]:
    """Return the limits among the features that a model has refused."""
    matches = (re.fullmatch(r"max_(characters|bytes|tokens):(\d{1,9})", feature) for feature in features)
    return tuple(TextLimit(int(match[2]), match[1]) for match in matches if match is not None and int(match[2]))


def convert_to_bytes(token_count: int) -> int:
    """Return the number of UTF-8 bytes that surely have no more tokens in ordinary text."""
    return token_count * BYTES_PER_TOKEN


def _parse_unit(text: str | None) -> str | None:
    name = (text or "").lower()
    return next((unit for unit in ("characters", "tokens", "bytes") if unit[:4] in name), None)
