"""Dialects, one module each, and the table of built-in gateways.

A module in this directory with a `DIALECT` is a dialect. Its file name is its name in the configuration.
"""

from __future__ import annotations

from datetime import date
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import NamedTuple

from ..errors import UsageError
from ..types.routes import Route
from .base import Dialect

# OpenAI's deprecations page, read 2026-11-26. Speech: tts-1, tts-1-hd, gpt-4o-mini-tts and its snapshots, without a
# successor on /audio/speech. Chat: gpt-audio and gpt-audio-mini; gpt-audio-1.5 stays. Transcription: every model except
# gpt-transcribe, and /audio/translations. Gateways that resell these models lose them on the same days.
OPENAI_SPEECH_END = date(2027, 1, 6)
OPENAI_CHAT_END = date(2027, 1, 20)
OPENAI_TRANSCRIPTION_END = date(2027, 2, 26)

OPENAI_VOICES = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"),
    *("marin", "nova", "onyx", "sage", "shimmer", "verse"),
)


class DefaultModel(NamedTuple):
    """A model that is used if the user names none.

    Attributes:
        voice: Its default voice, for speech.
        voices: Voices that it had at the date of the table; empty if only the gateway knows them.
        end_date: Announced shutdown date at the built-in server. A date in the model list takes precedence.
        only_if_listed: Whether the model is used only if a cached list has it.
        accepts_instructions: Whether it follows `--instructions`. `accepts_speed` likewise.
    """

    model: str
    voice: str | None = None
    voices: tuple[str, ...] = ()
    end_date: date | None = None
    only_if_listed: bool = False
    accepts_instructions: bool = False
    accepts_speed: bool = False


class BuiltInGateway(NamedTuple):
    """A gateway that needs no configuration except an API key.

    The default models of each purpose are in order of preference: a model that has ended or is not listed is replaced
    by the next one. They are from the gateways' lists and pages of 2026-11-26. `default_models` chooses among them.

    Attributes:
        timed_transcription: Models with timestamps, if those of `transcription` have none. `translation` and
            `diarization` likewise; empty if the gateway has no such model.
        model_list_needs_key: Whether the gateway refuses its model list to an invalid key (documentation, read
            2026-11).
    """

    name: str
    dialect: str
    base_url: str
    key_variable: str | None
    base_url_variable: str | None
    speech: tuple[DefaultModel, ...]
    transcription: tuple[DefaultModel, ...]
    timed_transcription: tuple[DefaultModel, ...] = ()
    translation: tuple[DefaultModel, ...] = ()
    diarization: tuple[DefaultModel, ...] = ()
    chat: tuple[DefaultModel, ...] = ()
    model_list_needs_key: bool = False

    @property
    def speech_model(self) -> str:
        return self.speech[0].model

    @property
    def default_voice(self) -> str | None:
        return self.speech[0].voice

    @property
    def transcription_model(self) -> str:
        return next(default.model for default in self.transcription if not default.only_if_listed)

    @property
    def chat_model(self) -> str | None:
        return next((default.model for default in self.chat if not default.only_if_listed), None)

    def find_speech_default(self, model: str) -> DefaultModel | None:
        """Return the entry of a default model for speech; None for other models."""
        return next((default for default in self.speech if default.model == model), None)


# In the order in which they are tried if no gateway is named.
BUILT_IN = (
    BuiltInGateway(
        name="openrouter",
        dialect="openrouter",
        base_url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
        base_url_variable="OPENROUTER_BASE_URL",
        speech=(
            # Until 2026-11 the default was gpt-4o-mini-tts, which ends. Grok Voice TTS has no announced end, the same
            # price ($15 per million characters, exact before the request), mp3 and pcm, 15,000 characters a request,
            # and five voices that speak more than 20 languages, which it detects. Compared: Gemini 3.8 Flash TTS has
            # more languages, but only pcm, a price per token that doubles on 2027-01-01, and a model name that changes
            # every few months. MAI-Voice 2.1 ($22), Voxtral TTS ($14 to $16) and Kokoro ($0.6 to $4) have a voice for
            # each language, so a text in another language than that of the voice is not spoken well.
            # (openrouter.ai/api/v1/models and the model pages, 2026-10 and 2026-11.)
            DefaultModel("x-ai/grok-voice-tts-1.0", "eve", ("ara", "eve", "leo", "rex", "sal")),
            DefaultModel(
                "openai/gpt-4o-mini-tts-2025-12-15",
                "alloy",
                OPENAI_VOICES,
                end_date=OPENAI_SPEECH_END,
                accepts_instructions=True,
                accepts_speed=True,
            ),
            DefaultModel("google/gemini-3.8-flash-tts", "Kore", ("Kore", "Puck", "Zephyr"), accepts_instructions=True),
            # Open weights with several providers: the least likely to end.
            DefaultModel("hexgrad/kokoro-82m", voices=("af_bella", "af_heart", "am_adam", "bf_emma")),
        ),
        transcription=(DefaultModel("openai/whisper-large-v3"), DefaultModel("openai/whisper-large-v3-turbo")),
        # gpt-4o-audio-preview was shut down by OpenAI on 2026-05-07.
        chat=(
            DefaultModel("openai/gpt-audio-1.5", only_if_listed=True),
            DefaultModel("openai/gpt-audio", end_date=OPENAI_CHAT_END),
            DefaultModel("openai/gpt-audio-1.5"),
        ),
    ),
    BuiltInGateway(
        name="openai",
        dialect="openai",
        base_url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        base_url_variable="OPENAI_BASE_URL",
        speech=(
            DefaultModel(
                "gpt-4o-mini-tts", "alloy", OPENAI_VOICES, end_date=OPENAI_SPEECH_END, accepts_instructions=True
            ),
        ),
        # gpt-transcribe is the successor of all others, but has no word times, captions, speakers or translation
        # (guide "Speech to text", read 2026-11).
        transcription=(
            DefaultModel("gpt-transcribe", only_if_listed=True),
            DefaultModel("gpt-4o-transcribe", end_date=OPENAI_TRANSCRIPTION_END),
            DefaultModel("gpt-transcribe"),
        ),
        timed_transcription=(DefaultModel("whisper-1", end_date=OPENAI_TRANSCRIPTION_END),),
        translation=(DefaultModel("whisper-1", end_date=OPENAI_TRANSCRIPTION_END),),
        diarization=(DefaultModel("gpt-4o-transcribe-diarize", end_date=OPENAI_TRANSCRIPTION_END),),
        # gpt-audio-1.5 is the successor of gpt-4o-audio-preview, and the only chat model with audio that stays.
        chat=(DefaultModel("gpt-audio-1.5"), DefaultModel("gpt-audio", end_date=OPENAI_CHAT_END)),
        model_list_needs_key=True,
    ),
    BuiltInGateway(
        name="therouter",
        dialect="therouter",
        base_url="https://api.therouter.ai/v1",
        key_variable="THEROUTER_API_KEY",
        base_url_variable="THEROUTER_BASE_URL",
        # The successors are those that the gateway itself falls back to ("Audio API" page, read 2026-10). They map
        # unknown voices to their own.
        speech=(
            DefaultModel("openai/tts-1", "alloy", end_date=OPENAI_SPEECH_END),
            DefaultModel("alibaba/cosyvoice2-0.5b", "alloy"),
        ),
        transcription=(
            DefaultModel("openai/whisper-1", end_date=OPENAI_TRANSCRIPTION_END),
            DefaultModel("alibaba/sensevoice-small"),
        ),
    ),
    BuiltInGateway(
        name="arouter",
        dialect="arouter",
        base_url="https://api.arouter.ai/v1",
        key_variable="AROUTER_API_KEY",
        base_url_variable="AROUTER_BASE_URL",
        # Its documentation names no other speech model than tts-1 and tts-1-hd (read 2026-10).
        speech=(DefaultModel("openai/tts-1", "nova", end_date=OPENAI_SPEECH_END),),
        transcription=(DefaultModel("openai/whisper-large-v3"), DefaultModel("openai/whisper-large-v3-turbo")),
        translation=(DefaultModel("openai/whisper-large-v3"),),
        chat=(DefaultModel("openai/gpt-5.4-audio-preview"),),
        model_list_needs_key=True,
    ),
    BuiltInGateway(
        name="groq",
        dialect="openai",
        base_url="https://api.groq.com/openai/v1",
        key_variable="GROQ_API_KEY",
        base_url_variable="GROQ_BASE_URL",
        speech=(DefaultModel("canopylabs/orpheus-v1-english", "troy"),),
        transcription=(DefaultModel("whisper-large-v3-turbo"), DefaultModel("whisper-large-v3")),
        translation=(DefaultModel("whisper-large-v3"),),
        model_list_needs_key=True,
    ),
    BuiltInGateway(
        name="local",
        dialect="local",
        base_url="local:",
        key_variable=None,
        base_url_variable=None,
        speech=(DefaultModel("espeak", "en-us"),),
        transcription=(DefaultModel("whisper"),),
    ),
)


def get_built_in(name: str) -> BuiltInGateway | None:
    """Return the built-in gateway of that name, if there is one."""
    return next((gateway for gateway in BUILT_IN if gateway.name == name), None)


def is_default_server(route: Route) -> bool:
    """Return whether a route goes to a built-in gateway at its own base URL, not to a proxy or another server."""
    built_in = get_built_in(route.gateway)
    return built_in is not None and route.base_url.rstrip("/") == built_in.base_url


def has_known_pcm_format(route: Route) -> bool:
    """Return whether the sample rate of raw samples is known: 24,000 Hz, or as the response states.

    A server that is not the built-in one may make any rate, and often does not state it (Piper: 22,050 or 16,000 Hz).
    """
    return is_default_server(route) or load_dialect(route.dialect).declares_pcm_format


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
