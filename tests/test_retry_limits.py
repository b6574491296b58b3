"""Bounds on waits and sends when a gateway asks for a delay or keeps failing."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiocli.mock import Status
from tests.conftest import CommandLine

TTS = "openai:tts-1"
KOKORO = "openrouter:hexgrad/kokoro-82m"


@pytest.mark.parametrize("status", [429, 503, 529])
@pytest.mark.parametrize("headers", [{"Retry-After": "1"}, {}], ids=["with wait", "without wait"])
def test_busy_route_gives_way_to_the_next_after_two_waits(
    all_gateways_cli: CommandLine, tmp_path: Path, status: int, headers: dict[str, str]
) -> None:
    all_gateways_cli.gateway.add_default_fault(Status(status, headers=headers), dialect="openai")

    r = all_gateways_cli("speak", "hi", "-m", TTS, "-m", KOKORO, "-o", tmp_path / "x.mp3", "--json")

    assert (r.code, r.json["gateway"]) == (0, "openrouter"), r.err
    assert (len(r.posts), len(r.waits_s)) == (4, 2)
    assert [entry["outcome"] for entry in r.ledger] == ["refused"] * 3 + ["ok"]


@pytest.mark.parametrize("status", [429, 503, 529])
def test_only_route_is_sent_at_most_eight_times(all_gateways_cli: CommandLine, tmp_path: Path, status: int) -> None:
    all_gateways_cli.gateway.add_default_fault(Status(status, headers={"Retry-After": "1"}))

    r = all_gateways_cli("speak", "hi", "-m", TTS, "-o", tmp_path / "x.mp3")

    assert (r.code, len(r.posts)) == (6, 8)
    assert sum(r.waits_s) <= 120
    assert "after 8 attempts" in r.err


def test_requested_wait_is_trusted_the_first_time_only(all_gateways_cli: CommandLine, tmp_path: Path) -> None:
    all_gateways_cli.gateway.add_default_fault(Status(429, headers={"Retry-After": "0"}))

    r = all_gateways_cli("speak", "hi", "-m", TTS, "-o", tmp_path / "x.mp3")

    assert (len(r.posts), len(r.waits_s)) == (8, 7)
    assert r.waits_s[0] == 0 and all(wait_s > 0 for wait_s in r.waits_s[1:])


def test_error_names_the_number_of_attempts(all_gateways_cli: CommandLine, tmp_path: Path) -> None:
    all_gateways_cli.gateway.add_default_fault(Status(500), dialect="openai")
    all_gateways_cli.gateway.add_default_fault(Status(400), dialect="openrouter")

    repeated = all_gateways_cli("speak", "hi", "-m", TTS, "-o", tmp_path / "x.mp3")
    single = all_gateways_cli("speak", "hi", "-m", KOKORO, "-o", tmp_path / "x.mp3")

    assert "after 3 attempts" in repeated.err
    assert "attempts" not in single.err
