"""The candidates of the exam for gateways: who sits it, with which models, and the recording that all are given."""

from __future__ import annotations

import io
import json
import wave
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from audiocli.context import AppContext
from tests.conftest import CommandLine, Result
from tests.gateway import expected_pcm

HOME_KEY = "open-sesame-4711"
"""The key of the server at home: of no known shape, so that nothing can find it by its looks."""


class Candidate(NamedTuple):
    """One gateway: its name, the dialect of the double behind it, and models for both kinds of work."""

    name: str
    dialect: str
    speaks: str
    hears: str
    key: str

    @property
    def variable(self) -> str:
        return f"{self.name.upper()}_API_KEY" if self.name != "home" else "HOME_KEY"


CANDIDATES = (
    Candidate("openrouter", "openrouter", "hexgrad/kokoro-82m", "openai/whisper-1", "sk-or-test"),
    Candidate("openai", "openai", "gpt-4o-mini-tts", "whisper-1", "sk-test"),
    Candidate("therouter", "therouter", "openai/tts-1", "openai/whisper-1", "sk-tr-test"),
    Candidate("arouter", "arouter", "openai/tts-1", "openai/whisper-1", "lr_live_test"),
    Candidate("groq", "groq", "canopylabs/orpheus-v1-english", "whisper-large-v3", "gsk-test"),
    Candidate("home", "plain", "tts-1", "whisper-1", HOME_KEY),
)
EVERYONE = [pytest.param(candidate, id=candidate.name) for candidate in CANDIDATES]
BY_NAME = {candidate.name: candidate for candidate in CANDIDATES}


def enrol(audiocli: CommandLine) -> None:
    """Give this world every key, and the server at home its table."""
    audiocli.variables |= {candidate.variable: candidate.key for candidate in CANDIDATES}
    audiocli.config(f"""
        [gateways.home]
        dialect = "openai"
        base_url = "{audiocli.gateway.base_url("plain")}"
        key_env = "HOME_KEY"
    """)


def wav_of(pcm: bytes, *, rate_hz: int = 24_000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate_hz)
        writer.writeframes(pcm)
    return out.getvalue()


SPEECH = wav_of(expected_pcm("The quick brown fox jumps over the lazy dog."))


def remains(folder: Path) -> list[str]:
    """Name what lies in a folder besides the world and the recording."""
    return sorted(path.name for path in folder.iterdir() if path.name not in ("world", "talk.wav"))


def warnings_of(r: Result) -> list[str]:
    """The warnings on stderr, in order."""
    head = "audiocli: warning: "
    return [line.removeprefix(head) for line in r.err.splitlines() if line.startswith(head)]


def listing(*cards: dict[str, Any]) -> bytes:
    """A list of models in OpenRouter's shape; each card needs an id and what comes out of the model."""
    shaped = [
        {"architecture": {"output_modalities": [card.pop("out", "speech")]}, "pricing": {}, **card} for card in cards
    ]
    return json.dumps({"data": shaped}).encode()


def world_of(audiocli: CommandLine, **own: Any) -> tuple[AppContext, io.BytesIO, io.BytesIO]:
    """An `Env` like that of the fixture, with parts of one's own, and its stdout and stderr."""
    out, err = io.BytesIO(), io.BytesIO()
    parts = {"variables": audiocli.variables, "stdin": io.BytesIO(), "stdout": out, "stderr": err, **own}
    return AppContext(**parts), out, err
