"""Guess properties of a model from its name."""

from __future__ import annotations

# Descriptions of OpenAI's first voices (ARouter's audio guide, read 2026-10).
VOICE_DESCRIPTIONS = {
    "alloy": "neutral, balanced",
    "echo": "softer, reflective",
    "fable": "expressive, storytelling",
    "onyx": "deep, authoritative",
    "nova": "friendly, energetic",
    "shimmer": "warm, gentle",
}


def supports_timestamps(model: str) -> bool:
    """Return whether a model of this name may support `verbose_json`, which has the timestamps.

    OpenAI's specification: whisper-1 supports it, gpt-4o-transcribe and gpt-transcribe do not. Unknown models are
    assumed to support it, because most compatible servers run a variant of Whisper.
    """
    name = model.rpartition("/")[2]
    return not ("transcribe" in name and name.startswith(("gpt-", "chatgpt-")))


def guess_kind(model: str) -> str | None:
    """Return `speech`, `transcription` or `chat`, guessed from the name; None if the name gives no indication."""
    name = model.lower()
    if any(word in name for word in ("transcri", "whisper", "parakeet", "sensevoice", "-stt", "asr")):
        return "transcription"
    if any(word in name for word in ("tts", "orpheus", "kokoro", "piper", "cosyvoice", "speech")):
        return "speech"
    return "chat" if "audio" in name else None


def has_language_list(model: str) -> bool:
    """Return whether a model of this name has the field `languages` in place of `language` (OpenAI, read 2026-11)."""
    return model.rpartition("/")[2].startswith("gpt-transcribe")


def supports_diarization(model: str) -> bool:
    """Return whether a model of this name supports `diarized_json` (OpenAI's specification 2.3.0: one does)."""
    return "diarize" in model.rpartition("/")[2]
