"""Dialects, one module each, and the table of built-in gateways.

A module in this directory with a `DIALECT` is a dialect. Its file name is its name in the configuration.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import NamedTuple

from ..errors import UsageError
from .base import Dialect


class BuiltInGateway(NamedTuple):
    """A gateway that needs no configuration except an API key. Models are from the gateways' lists of 2026-10."""

    name: str
    dialect: str
    base_url: str
    key_variable: str | None
    base_url_variable: str | None
    speech_model: str
    default_voice: str
    transcription_model: str
    timed_transcription_model: str | None = None
    translation_model: str | None = None
    diarization_model: str | None = None
    chat_model: str | None = None


# In the order in which they are tried if no gateway is named.
BUILT_IN = (
    BuiltInGateway(
        name="openrouter",
        dialect="openrouter",
        base_url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
        base_url_variable="OPENROUTER_BASE_URL",
        speech_model="openai/gpt-4o-mini-tts-2025-12-15",
        default_voice="alloy",
        transcription_model="openai/whisper-large-v3",
        chat_model="openai/gpt-4o-audio-preview",
    ),
    BuiltInGateway(
        name="openai",
        dialect="openai",
        base_url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        base_url_variable="OPENAI_BASE_URL",
        speech_model="gpt-4o-mini-tts",
        default_voice="alloy",
        transcription_model="gpt-4o-transcribe",
        timed_transcription_model="whisper-1",
        translation_model="whisper-1",
        diarization_model="gpt-4o-transcribe-diarize",
        chat_model="gpt-4o-audio-preview",
    ),
    BuiltInGateway(
        name="therouter",
        dialect="therouter",
        base_url="https://api.therouter.ai/v1",
        key_variable="THEROUTER_API_KEY",
        base_url_variable="THEROUTER_BASE_URL",
        speech_model="openai/tts-1",
        default_voice="alloy",
        transcription_model="openai/whisper-1",
    ),
    BuiltInGateway(
        name="arouter",
        dialect="arouter",
        base_url="https://api.arouter.ai/v1",
        key_variable="AROUTER_API_KEY",
        base_url_variable="AROUTER_BASE_URL",
        speech_model="openai/tts-1",
        default_voice="nova",
        transcription_model="openai/whisper-large-v3",
        translation_model="openai/whisper-large-v3",
        chat_model="openai/gpt-5.4-audio-preview",
    ),
    BuiltInGateway(
        name="groq",
        dialect="openai",
        base_url="https://api.groq.com/openai/v1",
        key_variable="GROQ_API_KEY",
        base_url_variable="GROQ_BASE_URL",
        speech_model="canopylabs/orpheus-v1-english",
        default_voice="troy",
        transcription_model="whisper-large-v3-turbo",
        translation_model="whisper-large-v3",
    ),
    BuiltInGateway(
        name="local",
        dialect="local",
        base_url="local:",
        key_variable=None,
        base_url_variable=None,
        speech_model="espeak",
        default_voice="en-us",
        transcription_model="pocketsphinx",
    ),
)


def get_built_in(name: str) -> BuiltInGateway | None:
    """Return the built-in gateway of that name, if there is one."""
    return next((gateway for gateway in BUILT_IN if gateway.name == name), None)


@cache
def load_dialect(name: str) -> Dialect:
    """Import and return a dialect.

    Raises:
        UsageError: There is no dialect of that name.
    """
    dialect: Dialect | None = (
        getattr(import_module(f".{name}", __name__), "DIALECT", None) if name in _list_modules() else None
    )
    if dialect is None:
        raise UsageError(f"unknown dialect {name!r}", hint="known dialects: " + ", ".join(list_dialects()))
    return dialect


def list_dialects() -> list[str]:
    """Return the names of all dialects, which imports every one of them."""
    return sorted(name for name in _list_modules() if hasattr(import_module(f".{name}", __name__), "DIALECT"))


@cache
def _list_modules() -> frozenset[str]:
    return frozenset(module.name for module in iter_modules(__path__))
