"""Spending limits on a fresh machine: the public price list is fetched when a limit needs a price."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from audiocli.mock import Stall, Status
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH

KOKORO = "openrouter:hexgrad/kokoro-82m"
SPEAK = ("speak", "Hello there, world.", "-m", KOKORO)


@pytest.mark.parametrize("budget", ["day", "week", "month", "run", "--max-cost"])
def test_limit_works_before_any_list_is_cached(audiocli: CommandLine, tmp_path: Path, budget: str) -> None:
    flags = ("--max-cost", "2") if budget == "--max-cost" else ()
    if not flags:
        audiocli.write_config(f"[budget]\n{budget} = 2.0\n")

    first = audiocli(*SPEAK, *flags, "-o", tmp_path / "1.mp3")
    second = audiocli(*SPEAK, *flags, "-o", tmp_path / "2.mp3")

    assert (first.code, second.code) == (0, 0), first.err
    assert [request.method for request in first.requests] == ["GET", "POST"]
    assert [request.method for request in second.requests] == ["POST"]


@pytest.mark.parametrize("argv", [("transcribe", "talk.wav"), ("transcribe", "talk.wav", "more.wav", "-O", "out")])
def test_every_command_fetches_the_list_once(audiocli: CommandLine, tmp_path: Path, argv: tuple[str, ...]) -> None:
    for name in ("talk.wav", "more.wav"):
        (tmp_path / name).write_bytes(SPEECH)
    paths = [tmp_path / word if word.endswith(".wav") or word == "out" else word for word in argv]

    r = audiocli(*paths, "-m", "openrouter:openai/whisper-large-v3", "--max-cost", "2")

    assert r.code == 0, r.err
    assert [request.method for request in r.requests].count("GET") == 1
    assert r.requests[0].method == "GET"


def test_no_limit_fetches_no_list(audiocli: CommandLine, tmp_path: Path) -> None:
    unlimited = audiocli(*SPEAK, "-o", tmp_path / "1.mp3")
    unpriced = audiocli(*SPEAK, "--max-cost", "2", "--allow-unpriced", "-o", tmp_path / "2.mp3", "--no-cache")

    assert [request.method for request in (*unlimited.requests, *unpriced.requests)] == ["POST", "POST"]


@pytest.mark.parametrize("fault", [Status(500), Stall(after_bytes=0, seconds=20)], ids=["error", "stall"])
def test_limit_without_a_price_list_is_an_error(
    audiocli: CommandLine, tmp_path: Path, fault: Status | Stall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiocli.core.catalog.PRICE_LIST_TIMEOUT_S", 0.5)
    audiocli.gateway.queue_faults(fault, path="/models", method="GET")

    started_s = time.monotonic()
    r = audiocli(*SPEAK, "--max-cost", "2", "-o", tmp_path / "x.mp3")

    assert r.code == 5, r.err
    assert "cannot enforce --max-cost 2" in r.err
    assert time.monotonic() - started_s < 5
    assert (r.posts, len(r.requests), list(tmp_path.glob("*.mp3"))) == ([], 1, [])
