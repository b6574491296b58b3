"""A voice that the user named is spoken by that voice, or refused."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from audiocli.mock import Status
from tests.conftest import CommandLine

KOKORO = "openrouter:hexgrad/kokoro-82m"
TTS = "openai:tts-1"


def cache_lists(audiocli: CommandLine, *, age_s: float) -> None:
    assert audiocli("models", "--refresh").code == 0
    for path in (Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "models").iterdir():
        os.utime(path, (time.time() - age_s,) * 2)


@pytest.mark.parametrize(
    ("model", "voice", "similar"),
    [(KOKORO, "af_hart", "af_heart"), (KOKORO, "AF_heart", "af_heart"), (TTS, "novaa", "nova")],
)
def test_misspelt_voice_is_refused_before_anything_is_sent(
    all_gateways_cli: CommandLine, tmp_path: Path, model: str, voice: str, similar: str
) -> None:
    cache_lists(all_gateways_cli, age_s=0)

    r = all_gateways_cli("speak", "hello", "-m", model, "-v", voice, "-o", tmp_path / "v.mp3")

    assert (r.code, r.requests, r.ledger) == (2, [], [])
    assert f"unknown voice {voice!r}; did you mean {similar!r}?" in r.err


@pytest.mark.parametrize("available", [True, False])
def test_old_list_is_fetched_again_before_refusing(audiocli: CommandLine, tmp_path: Path, available: bool) -> None:
    cache_lists(audiocli, age_s=3700)
    if not available:
        audiocli.gateway.add_default_fault(Status(503), path="/models", method="GET")

    r = audiocli("speak", "hello", "-m", KOKORO, "-v", "af_hart", "-o", tmp_path / "v.mp3")

    assert (r.code, r.posts) == (2, []), r.err
    assert [request.method for request in r.requests] == ["GET"]


def test_voice_that_the_new_list_has_is_used(audiocli: CommandLine, tmp_path: Path) -> None:
    cache_lists(audiocli, age_s=0)
    for path in (Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "models").iterdir():
        path.write_bytes(path.read_bytes().replace(b"af_heart", b"af_older"))
        os.utime(path, (time.time() - 3700,) * 2)

    r = audiocli("speak", "hello", "-m", KOKORO, "-v", "af_heart", "-o", tmp_path / "v.mp3")

    assert r.code == 0, r.err
    assert [request.method for request in r.requests] == ["GET", "POST"]
    assert r.posts[0].json["voice"] == "af_heart"


def test_voice_that_no_listed_model_has_is_refused(all_gateways_cli: CommandLine, tmp_path: Path) -> None:
    cache_lists(all_gateways_cli, age_s=0)

    r = all_gateways_cli("speak", "hi", "-m", TTS, "-m", KOKORO, "-v", "novaa", "-o", tmp_path / "v.mp3")

    assert (r.code, r.requests) == (2, [])
    assert "unknown voice 'novaa'; did you mean 'nova'?" in r.err


def test_configured_voice_that_does_not_exist_is_refused(audiocli: CommandLine, tmp_path: Path) -> None:
    cache_lists(audiocli, age_s=0)
    audiocli.write_config(f'[voices]\n"{KOKORO}" = "af_hart"\n')

    r = audiocli("speak", "hi", "-m", KOKORO, "-o", tmp_path / "v.mp3")
    listed = audiocli("speak", "-v", "?", "-m", KOKORO)

    assert (r.code, r.posts) == (2, [])
    assert (listed.code, "af_heart" in listed.text) == (0, True)
