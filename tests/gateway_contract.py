"""The gateway contract: the gateways that all contract tests run against, their models and shared helpers.

A new gateway is added to `GATEWAYS` and has to pass `test_gateways.py` and the tests that use `all_gateways_cli`.
"""

from __future__ import annotations

import io
import json
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from audiocli.context import AppContext
from audiocli.mock import expected_pcm

if TYPE_CHECKING:
    from tests.conftest import CommandLine, Result

SELF_HOSTED_KEY = "open-sesame-4711"
"""The key of the self-hosted server. It has no known prefix, so that no pattern can recognize it."""


class GatewayUnderTest(NamedTuple):
    """A gateway with the dialect of its mock, a model for speech and one for transcription."""

    name: str
    dialect: str
    speech_model: str
    transcription_model: str
    key: str

    @property
    def key_variable(self) -> str:
        """The environment variable of the key."""
        return f"{self.name.upper()}_API_KEY" if self.name != "home" else "HOME_KEY"


GATEWAYS = (
    GatewayUnderTest("openrouter", "openrouter", "hexgrad/kokoro-82m", "openai/whisper-1", "sk-or-test"),
    GatewayUnderTest("openai", "openai", "gpt-4o-mini-tts", "whisper-1", "sk-test"),
    GatewayUnderTest("therouter", "therouter", "openai/tts-1", "openai/whisper-1", "sk-tr-test"),
    GatewayUnderTest("arouter", "arouter", "openai/tts-1", "openai/whisper-1", "lr_live_test"),
    GatewayUnderTest("groq", "groq", "canopylabs/orpheus-v1-english", "whisper-large-v3", "gsk-test"),
    GatewayUnderTest("home", "plain", "tts-1", "whisper-1", SELF_HOSTED_KEY),
)
GATEWAY_PARAMS = [pytest.param(gateway, id=gateway.name) for gateway in GATEWAYS]
GATEWAYS_BY_NAME = {gateway.name: gateway for gateway in GATEWAYS}


def configure_all_gateways(audiocli: CommandLine) -> None:
    """Set the key of every gateway, and configure the self-hosted server."""
    audiocli.variables |= {gateway.key_variable: gateway.key for gateway in GATEWAYS}
    audiocli.write_config(f"""
        [gateways.home]
        dialect = "openai"
        base_url = "{audiocli.gateway.base_url("plain")}"
        key_env = "HOME_KEY"
    """)


def build_wav(pcm: bytes, *, rate_hz: int = 24_000) -> bytes:
    """Return a mono WAV file of 16-bit samples, written with the standard library."""
    out = io.BytesIO()
    with wave.open(out, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate_hz)
        writer.writeframes(pcm)
    return out.getvalue()


SPEECH = build_wav(expected_pcm("The quick brown fox jumps over the lazy dog."))


def list_outputs(directory: Path) -> list[str]:
    """Return the names in a directory, without the home directory and the recording of the fixture."""
    return sorted(path.name for path in directory.iterdir() if path.name not in ("world", "talk.wav"))


def read_warnings(result: Result) -> list[str]:
    """Return the warnings on stderr, in order."""
    prefix = "warning: "
    return [line.removeprefix(prefix) for line in result.err.splitlines() if line.startswith(prefix)]


def build_model_list(*cards: dict[str, Any]) -> bytes:
    """Return a model list as OpenRouter sends it. `out` of a card is the output modality."""
    models = [
        {"architecture": {"output_modalities": [card.pop("out", "speech")]}, "pricing": {}, **card} for card in cards
    ]
    return json.dumps({"data": models}).encode()


def build_app_context(audiocli: CommandLine, **replaced: Any) -> tuple[AppContext, io.BytesIO, io.BytesIO]:
    """Return an `AppContext` like that of the fixture, with some fields replaced, and its stdout and stderr."""
    out, err = io.BytesIO(), io.BytesIO()
    fields = {"variables": audiocli.variables, "stdin": io.BytesIO(), "stdout": out, "stderr": err, **replaced}
    return AppContext(**fields), out, err
