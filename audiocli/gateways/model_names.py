"""What the name of a model tells, where that is all that is known of it."""

from __future__ import annotations

# How OpenAI's first voices sound, in the words of those who use them (ARouter's audio guide, read 2026-10).
CHARACTERS = {
    "alloy": "neutral, balanced",
    "echo": "softer, reflective",
    "fable": "expressive, storytelling",
    "onyx": "deep, authoritative",
    "nova": "friendly, energetic",
    "shimmer": "warm, gentle",
}


def gives_times(model: str) -> bool:
    """Tell whether a model of this name answers `verbose_json`.

    OpenAI's specification: only whisper-1 does, gpt-4o-transcribe and gpt-transcribe do not. A model that nobody has
    heard of is asked: compatible servers mostly run some kind of whisper.
    """
    name = model.rpartition("/")[2]
    return not ("transcribe" in name and name.startswith(("gpt-", "chatgpt-")))


def kind_of_name(model: str) -> str | None:
    """Guess what a model is for from its name, which is all that an OpenAI-compatible list tells."""
    name = model.lower()
    if any(word in name for word in ("transcri", "whisper", "parakeet", "sensevoice", "-stt", "asr")):
        return "transcription"
    if any(word in name for word in ("tts", "orpheus", "kokoro", "piper", "cosyvoice", "speech")):
        return "speech"
    return "chat" if "audio" in name else None


def tells_speakers(model: str) -> bool:
    """Tell whether a model of this name answers `diarized_json` (OpenAI's specification 2.3.0: one does)."""
    return "diarize" in model.rpartition("/")[2]
