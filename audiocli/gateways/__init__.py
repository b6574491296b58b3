"""The gateways: one file per dialect, and the table of those that are built in.

A module in this folder that has a `DIALECT` is a dialect; its file name is its name in the configuration.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import NamedTuple

from ..errors import UsageError
from .base import Gateway


class BuiltIn(NamedTuple):
    """A gateway that needs no configuration but its key. Models were read from the gateways' lists in 2026-10."""

    name: str
    dialect: str
    base_url: str
    key_variable: str | None
    base_url_variable: str | None
    speech_model: str
    voice: str
    transcription_model: str
    timed_transcription_model: str | None = None
    translation_model: str | None = None
    diarization_model: str | None = None
    chat_model: str | None = None


# In the order in which they are asked when the user names none.
BUILT_IN = (
    BuiltIn(
        name="openrouter",
        dialect="openrouter",
        base_url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
        base_url_variable="OPENROUTER_BASE_URL",
        speech_model="openai/gpt-4o-mini-tts-2025-12-15",
        voice="alloy",
        transcription_model="openai/whisper-large-v3",
        chat_model="openai/gpt-4o-audio-preview",
    ),
    BuiltIn(
        name="openai",
        dialect="openai",
        base_url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        base_url_variable="OPENAI_BASE_URL",
        speech_model="gpt-4o-mini-tts",
        voice="alloy",
        transcription_model="gpt-4o-transcribe",
        timed_transcription_model="whisper-1",
        translation_model="whisper-1",
        diarization_model="gpt-4o-transcribe-diarize",
        chat_model="gpt-4o-audio-preview",
    ),
    BuiltIn(
        name="therouter",
        dialect="therouter",
        base_url="https://api.therouter.ai/v1",
        key_variable="THEROUTER_API_KEY",
        base_url_variable="THEROUTER_BASE_URL",
        speech_model="openai/tts-1",
        voice="alloy",
        transcription_model="openai/whisper-1",
    ),
    BuiltIn(
        name="arouter",
        dialect="arouter",
        base_url="https://api.arouter.ai/v1",
        key_variable="AROUTER_API_KEY",
        base_url_variable="AROUTER_BASE_URL",
        speech_model="openai/tts-1",
        voice="nova",
        transcription_model="openai/whisper-large-v3",
        translation_model="openai/whisper-large-v3",
        chat_model="openai/gpt-5.4-audio-preview",
    ),
    BuiltIn(
        name="groq",
        dialect="openai",
        base_url="https://api.groq.com/openai/v1",
        key_variable="GROQ_API_KEY",
        base_url_variable="GROQ_BASE_URL",
        speech_model="canopylabs/orpheus-v1-english",
        voice="troy",
        transcription_model="whisper-large-v3-turbo",
        translation_model="whisper-large-v3",
    ),
    BuiltIn(
        name="local",
        dialect="local",
        base_url="local:",
        key_variable=None,
        base_url_variable=None,
        speech_model="espeak",
        voice="en-us",
        transcription_model="pocketsphinx",
    ),
)


def built_in(name: str) -> BuiltIn | None:
    return next((gateway for gateway in BUILT_IN if gateway.name == name), None)


@cache
def dialect(name: str) -> Gateway:
    """Load a dialect. Raises: UsageError: there is none of that name."""
    loaded: Gateway | None = (
        getattr(import_module(f".{name}", __name__), "DIALECT", None) if name in _modules() else None
    )
    if loaded is None:
        raise UsageError(f"unknown dialect {name!r}", hint="known dialects: " + ", ".join(dialect_names()))
    return loaded


def dialect_names() -> list[str]:
    """Name every dialect, which loads them all: for error messages and configuration files."""
    return sorted(name for name in _modules() if hasattr(import_module(f".{name}", __name__), "DIALECT"))


@cache
def _modules() -> frozenset[str]:
    return frozenset(module.name for module in iter_modules(__path__))
