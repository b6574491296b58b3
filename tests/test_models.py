"""The commands `models` and `voices`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from audiocli.mock import KEYS, Garbage, Status, find_closed_port
from tests.conftest import CommandLine, Result


def read_models_by_ref(r: Result) -> dict[str, dict[str, object]]:
    return {model_info["ref"]: model_info for model_info in map(json.loads, r.text.splitlines())}


def age_lists(audiocli: CommandLine, seconds: float) -> None:
    directory = Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "models"
    for path in directory.iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


def test_models_of_all_configured_gateways_are_listed(audiocli: CommandLine) -> None:
    r = audiocli("models", "--json", variables={"OPENAI_API_KEY": KEYS["openai"]})

    models_by_ref = read_models_by_ref(r)
    assert r.code == 0, r.err
    assert {"openrouter:hexgrad/kokoro-82m", "openai:tts-1", "local:espeak", "local:pocketsphinx"} <= set(models_by_ref)
    assert {model_info["kind"] for model_info in models_by_ref.values()} == {"speech", "transcription", "chat"}
    assert r.ledger == []


def test_prices_have_units(audiocli: CommandLine) -> None:
    models_by_ref = read_models_by_ref(audiocli("models", "--json"))

    prices = {ref: models_by_ref[ref]["price"] for ref in models_by_ref}
    assert prices["openrouter:hexgrad/kokoro-82m"] == [{"usd": 4e-06, "per": "character", "unit_assumed": True}]
    assert prices["openrouter:openai/whisper-1"][0]["per"] == "second"
    assert prices["openrouter:microsoft/mai-transcribe-2"][0]["per"] == "hour"
    assert [price["per"] for price in prices["openrouter:openai/gpt-4o-transcribe"]] == ["token", "output token"]
    assert prices["local:espeak"] == [{"usd": 0.0, "per": "request", "unit_assumed": False}]


def test_table_shows_price_and_shutdown_date(audiocli: CommandLine) -> None:
    r = audiocli("models", "openai/whisper", "--kind", "transcription")

    assert "$0.006 / minute" in r.text
    assert "ends 2027-02-26" in r.text


def test_single_model_shows_details(audiocli: CommandLine) -> None:
    r = audiocli("models", "openrouter:hexgrad/kokoro-82m")

    assert r.text.startswith("reference   openrouter:hexgrad/kokoro-82m\n")
    assert "$4 / 1M characters" in r.text
    assert "af_heart" in r.text


def test_model_list_is_requested_once_a_day(audiocli: CommandLine) -> None:
    first, second = audiocli("models"), audiocli("models")
    age_lists(audiocli, 25 * 3600)
    third = audiocli("models")
    refreshed = audiocli("models", "--refresh")

    assert [len(r.requests) for r in (first, second, third, refreshed)] == [1, 0, 1, 1]


def test_cached_list_is_used_without_a_network(audiocli: CommandLine) -> None:
    audiocli("models")
    age_lists(audiocli, 3 * 86_400)
    audiocli.gateway.queue_faults(Status(503), path="/models", method="GET")

    r = audiocli("models", "--json")

    assert r.code == 0
    assert "3 days old" in r.err
    assert "openrouter:hexgrad/kokoro-82m" in read_models_by_ref(r)


def test_missing_network_and_list_is_a_network_error(audiocli: CommandLine) -> None:
    variables = {"OPENROUTER_BASE_URL": f"http://127.0.0.1:{find_closed_port()}/v1"}

    r = audiocli("models", variables=variables)
    without_key = audiocli("models", "--json", variables={**variables, "OPENROUTER_API_KEY": ""})
    named = audiocli("models", "-g", "openrouter", variables={**variables, "OPENROUTER_API_KEY": ""})

    assert [(result.code, result.err.count("cannot connect")) for result in (r, named)] == [(7, 1), (7, 1)]
    # The models of this machine are listed nevertheless.
    assert (without_key.code, without_key.err.count("cannot connect")) == (0, 1), without_key.err
    assert {ref.partition(":")[0] for ref in read_models_by_ref(without_key)} == {"local"}


@pytest.mark.parametrize("price", ["-1", "free", None, [], "NaN", "1e9", True])
def test_invalid_price_is_unknown(audiocli: CommandLine, price: object) -> None:
    model = {
        "id": "acme/odd",
        "architecture": {"output_modalities": ["speech"]},
        "pricing": {"prompt": price, "completion": "0"},
        "supported_voices": None,
        "expiration_date": "someday",
    }
    listing = json.dumps({"data": [model, 7, {"id": 5}]}).encode()
    audiocli.gateway.queue_faults(Garbage(listing, "application/json"), path="/models", method="GET")

    r = audiocli("models", "--json", "-g", "openrouter")

    assert r.code == 0, r.err
    assert [(model_info["price"], model_info["ends"]) for model_info in read_models_by_ref(r).values()] == [([], None)]


def test_unknown_model_error_suggests_similar_models(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli("models")

    listing = audiocli("models", "wisper-1")
    speech = audiocli("speak", "hi", "-m", "openrouter:openai/gpt-4o-mini-tts", "-o", tmp_path / "x.mp3")

    assert "openrouter:openai/whisper-1" in listing.err
    assert speech.code == 6
    assert "openrouter:openai/gpt-4o-mini-tts-2025-12-15" in speech.err


def test_voices_are_listed_by_model_and_by_name(audiocli: CommandLine) -> None:
    by_model = audiocli("voices", "-m", "openrouter:hexgrad/kokoro-82m", "--json")
    by_name = audiocli("voices", "AF_", "-g", "openrouter")

    assert {"ref": "openrouter:hexgrad/kokoro-82m", "voice": "af_heart", "character": None} in [
        json.loads(line) for line in by_model.text.splitlines()
    ]
    assert "af_bella" in by_name.text
    assert "alloy" not in by_name.text


def test_voices_of_self_hosted_server_are_listed(audiocli: CommandLine) -> None:
    r = audiocli(
        *("voices", "-m", "kokoro", "--base-url", audiocli.gateway.base_url("plain")),
        variables={"OPENROUTER_API_KEY": ""},
    )

    assert r.code == 0, r.err
    assert len(r.text.splitlines()) > 1


def test_listed_models_are_saved_for_shell_completion(audiocli: CommandLine) -> None:
    audiocli("models")
    audiocli("models", "-g", "openai", variables={"OPENAI_API_KEY": KEYS["openai"]})

    completion_list = (Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "completion.txt").read_text()
    assert "speech\topenrouter:hexgrad/kokoro-82m\taf_heart" in completion_list
    assert "speech\topenai:tts-1" in completion_list


def test_unwritable_cache_is_not_an_error(audiocli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    r = audiocli("models", variables={"XDG_CACHE_HOME": str(tmp_path / "file")})

    assert (r.code, "kokoro" in r.text) == (0, True)


def test_unknown_values_are_marked_and_explained(audiocli: CommandLine) -> None:
    flags = ("-g", "openai")
    variables = {"OPENAI_API_KEY": KEYS["openai"]}

    table = audiocli("models", *flags, variables=variables)
    quiet = audiocli("models", *flags, "-q", variables=variables)
    card = audiocli("models", *flags, "openai:tts-1", variables=variables)
    document = audiocli("models", *flags, "openai:tts-1", "--json", variables=variables)

    rows = {row.split()[0]: row.split() for row in table.text.splitlines()[1:]}
    assert rows["openai:tts-1"][:3] == ["openai:tts-1", "speech", "?"]
    assert rows["openai:whisper-1"][:5] == ["openai:whisper-1", "transcription", "?", "-", "-"]
    assert "note: ? means unknown\nhint: set the price under [prices] in config.toml" in table.err
    assert '"openai:tts-1" = { usd = 15, per = "1M characters" }' in card.err
    assert quiet.err == document.err == ""
    assert document.json["price"] == []


def test_configured_price_is_listed(audiocli: CommandLine) -> None:
    audiocli.write_config('[prices]\n"openai:tts-1" = { usd = 15, per = "1M characters" }\n')

    r = audiocli("models", "-g", "openai", "openai:tts-1", variables={"OPENAI_API_KEY": KEYS["openai"]})

    assert "price       $15 / 1M characters\n" in r.text
    assert r.err == ""


@pytest.mark.parametrize("query", ["local:espeak", "local:pocketsphinx", "local:", "local:none"])
def test_query_for_a_gateway_asks_only_that_gateway(audiocli: CommandLine, query: str) -> None:
    closed = {"OPENROUTER_BASE_URL": f"http://127.0.0.1:{find_closed_port()}/v1"}

    offline = audiocli("models", query, variables=closed)
    r = audiocli("models", query)

    assert (offline.code, r.code) == (0, 0), offline.err
    assert r.requests == []
    assert ("no models match" in r.err) == (query == "local:none")


def test_query_for_a_remote_gateway_asks_no_other_one(audiocli: CommandLine) -> None:
    variables = {
        "OPENAI_API_KEY": KEYS["openai"],
        "OPENROUTER_BASE_URL": f"http://127.0.0.1:{find_closed_port()}/v1",
    }

    r = audiocli("models", "openai:tts", "--json", variables=variables)

    assert r.code == 0 and r.err == ""
    assert {ref.partition(":")[0] for ref in read_models_by_ref(r)} == {"openai"}
