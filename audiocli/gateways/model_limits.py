"""Limits of models, by their name at any gateway. Limits of the gateways themselves are in the dialects.

`tts-1` is not in the table: its limit is one of OpenAI's endpoint, and compatible servers have other models of this
name.
"""

from __future__ import annotations

from typing import Any

from .base import Limits

# OpenAI's tokenizer o200k_base has 2 to 9 UTF-8 bytes to a token in ordinary text: English 4.9, Russian 6.7, Chinese
# 2.6 to 3.4, Japanese 3.1, emoji 2.1 (gpt-tokenizer 4.0.0, measured 2026-11). At 2 bytes, a Chinese character counts
# 1.5 tokens. Amharic, rare ideographs and random strings have more tokens: a gateway then refuses the text, and it is
# split again.
BYTES_PER_TOKEN = 2

# By a part of the name, most specific first.
MODEL_LIMITS = (
    # "over the maximum input limit of 2000 tokens" (OpenAI in 2025-03, troykelly/live-news-break#222).
    ("gpt-4o-mini-tts", Limits(max_text_tokens=2000)),
    # About 200 characters (Groq's documentation and users, read 2026-10).
    ("canopylabs/orpheus-v1", Limits(max_text_characters=200)),
    ("canopylabs/orpheus-arabic", Limits(max_text_characters=200)),
    # OpenAI's help pages, read 2026-10.
    ("gpt-4o-transcribe-diarize", Limits(max_audio_s=1400.0)),
    ("gpt-4o-transcribe", Limits(max_audio_s=1500.0)),
    ("gpt-4o-mini-transcribe", Limits(max_audio_s=1500.0)),
    ("gpt-transcribe", Limits(max_audio_s=1500.0)),
)


def add_model_limits(limits: Limits, model: str) -> Limits:
    """Return the limits of a gateway combined with those of a model: for each limit, the lower one."""
    model_limits = next((limits for part, limits in MODEL_LIMITS if part in model), None)
    if model_limits is None:
        return limits
    changed: dict[str, Any] = {
        name: maximum if getattr(limits, name) is None else min(maximum, getattr(limits, name))
        for name, maximum in model_limits._asdict().items()
        if maximum is not None
    }
    return limits._replace(**changed)
