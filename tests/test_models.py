"""`models` and `voices`, through the front door."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.conftest import CommandLine, Result
from tests.gateway import KEYS, Garbage, Status, closed_port


def cards(r: Result) -> dict[str, dict[str, object]]:
    return {card["ref"]: card for card in map(json.loads, r.text.splitlines())}


def age_lists(audiocli: CommandLine, seconds: float) -> None:
    folder = Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "models"
    for path in folder.iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


def test_all_gateways_that_can_be_asked_stand_side_by_side(audiocli: CommandLine) -> None:
    r = audiocli("models", "--json", variables={"OPENAI_API_KEY": KEYS["openai"]})

    found = cards(r)
    assert r.code == 0, r.err
    assert {"openrouter:hexgrad/kokoro-82m", "openai:tts-1", "local:espeak", "local:pocketsphinx"} <= set(found)
    assert {card["kind"] for card in found.values()} == {"speech", "transcription", "chat"}
    assert r.ledger == []


def test_prices_have_their_units(audiocli: CommandLine) -> None:
    found = cards(audiocli("models", "--json"))

    prices = {ref: found[ref]["price"] for ref in found}
    assert prices["openrouter:hexgrad/kokoro-82m"] == [{"usd": 4e-06, "per": "character", "reading": True}]
    assert prices["openrouter:openai/whisper-1"][0]["per"] == "second"
    assert prices["openrouter:microsoft/mai-transcribe-2"][0]["per"] == "hour"
    assert [price["per"] for price in prices["openrouter:openai/gpt-4o-transcribe"]] == ["token", "output token"]
    assert prices["local:espeak"] == [{"usd": 0.0, "per": "request"}]


def test_the_table_shows_price_and_end_of_life(audiocli: CommandLine) -> None:
    r = audiocli("models", "openai/whisper", "--kind", "transcription")

    assert "$0.006 / minute" in r.text
    assert "ends 2027-02-26" in r.text


def test_one_model_has_a_card(audiocli: CommandLine) -> None:
    r = audiocli("models", "openrouter:hexgrad/kokoro-82m")

    assert r.text.startswith("reference   openrouter:hexgrad/kokoro-82m\n")
    assert "$4 / 1M characters" in r.text
    assert "af_heart" in r.text


def test_a_list_is_asked_for_once_a_day(audiocli: CommandLine) -> None:
    first, second = audiocli("models"), audiocli("models")
    age_lists(audiocli, 25 * 3600)
    third = audiocli("models")
    refreshed = audiocli("models", "--refresh")

    assert [len(r.requests) for r in (first, second, third, refreshed)] == [1, 0, 1, 1]


def test_without_a_network_the_kept_list_serves_with_its_age(audiocli: CommandLine) -> None:
    audiocli("models")
    age_lists(audiocli, 3 * 86_400)
    audiocli.gateway.script(Status(503), path="/models", method="GET")

    r = audiocli("models", "--json")

    assert r.code == 0
    assert "3 days old" in r.err
    assert "openrouter:hexgrad/kokoro-82m" in cards(r)


def test_without_a_network_and_a_list_it_is_a_network_error(audiocli: CommandLine) -> None:
    r = audiocli("models", variables={"OPENROUTER_BASE_URL": f"http://127.0.0.1:{closed_port()}/v1"})

    assert r.code == 7
    assert "Traceback" not in r.err


@pytest.mark.parametrize("price", ["-1", "free", None, [], "NaN", "1e9", True])
def test_a_price_that_makes_no_sense_is_unknown(audiocli: CommandLine, price: object) -> None:
    model = {
        "id": "acme/odd",
        "architecture": {"output_modalities": ["speech"]},
        "pricing": {"prompt": price, "completion": "0"},
        "supported_voices": None,
        "expiration_date": "someday",
    }
    listed = json.dumps({"data": [model, 7, {"id": 5}]}).encode()
    audiocli.gateway.script(Garbage(listed, "application/json"), path="/models", method="GET")

    r = audiocli("models", "--json", "-g", "openrouter")

    assert r.code == 0, r.err
    assert [(card["price"], card["ends"]) for card in cards(r).values()] == [([], None)]


def test_a_wrong_name_is_answered_with_the_nearest(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli("models")

    listed = audiocli("models", "wisper-1")
    spoken = audiocli("speak", "hi", "-m", "openrouter:openai/gpt-4o-mini-tts", "-o", tmp_path / "x.mp3")

    assert "openrouter:openai/whisper-1" in listed.err
    assert spoken.code == 6
    assert "openrouter:openai/gpt-4o-mini-tts-2025-12-15" in spoken.err


def test_voices_are_listed_by_model_and_by_name(audiocli: CommandLine) -> None:
    of_model = audiocli("voices", "-m", "openrouter:hexgrad/kokoro-82m", "--json")
    by_name = audiocli("voices", "AF_", "-g", "openrouter")

    assert {"ref": "openrouter:hexgrad/kokoro-82m", "voice": "af_heart", "character": None} in [
        json.loads(line) for line in of_model.text.splitlines()
    ]
    assert "af_bella" in by_name.text
    assert "alloy" not in by_name.text


def test_a_server_at_home_tells_its_voices(audiocli: CommandLine) -> None:
    r = audiocli(
        *("voices", "-m", "kokoro", "--base-url", audiocli.gateway.base_url("plain")),
        variables={"OPENROUTER_API_KEY": ""},
    )

    assert r.code == 0, r.err
    assert len(r.text.splitlines()) > 1


def test_what_was_listed_is_kept_for_the_shells(audiocli: CommandLine) -> None:
    audiocli("models")
    audiocli("models", "-g", "openai", variables={"OPENAI_API_KEY": KEYS["openai"]})

    kept = (Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "completion.txt").read_text()
    assert "speech\topenrouter:hexgrad/kokoro-82m\taf_heart" in kept
    assert "speech\topenai:tts-1" in kept


def test_a_cache_that_cannot_be_written_is_no_error(audiocli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    r = audiocli("models", variables={"XDG_CACHE_HOME": str(tmp_path / "file")})

    assert (r.code, "kokoro" in r.text) == (0, True)
