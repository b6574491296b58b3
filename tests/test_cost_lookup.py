"""Lookups at the gateways: models, voices and the costs of past requests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from audiocli.app import main
from audiocli.mock import CutAfter, Garbage, Html, Status, find_closed_port
from tests.conftest import CommandLine, Result
from tests.gateway_contract import (
    GATEWAYS,
    GATEWAYS_BY_NAME,
    build_app_context,
    build_model_list,
)

LOOKUP_GATEWAYS = ("openrouter", "therouter", "arouter")
"""The gateways that report the cost of a past request."""


# --- models and voices -----------------------------------------------------------------------------------------------


def read_models_by_ref(r: Result) -> dict[str, dict[str, Any]]:
    return {model["ref"]: model for model in map(json.loads, r.text.splitlines())}


def test_models_of_all_gateways_are_listed(all_gateways_cli: CommandLine) -> None:
    r = all_gateways_cli("models", "--json")

    models_by_ref = read_models_by_ref(r)
    assert r.code == 0, r.err
    assert {f"{gateway.name}:{gateway.speech_model}" for gateway in GATEWAYS} <= set(models_by_ref)
    assert {f"{gateway.name}:{gateway.transcription_model}" for gateway in GATEWAYS} <= set(models_by_ref)
    assert {ref.partition(":")[0] for ref in models_by_ref} == {*GATEWAYS_BY_NAME, "local"}
    # A configured gateway is also asked for the prices that LiteLLM proxies have.
    assert (len(r.requests), r.ledger) == (7, [])
    for gateway in GATEWAYS:
        assert models_by_ref[f"{gateway.name}:{gateway.speech_model}"]["kind"] == "speech"
        assert models_by_ref[f"{gateway.name}:{gateway.transcription_model}"]["kind"] == "transcription"


def test_model_list_request_has_the_query_of_its_gateway(all_gateways_cli: CommandLine) -> None:
    r = all_gateways_cli("models")

    queries = {seen.dialect: seen.query for seen in r.requests}
    assert queries["arouter"] == {"output_modalities": "all"}
    assert set(queries["openrouter"]["output_modalities"].split(",")) == {"speech", "transcription", "audio"}
    assert [queries[name] for name in ("openai", "therouter", "groq", "plain")] == [{}] * 4
    assert "authorization" not in next(seen for seen in r.requests if seen.dialect == "openrouter").headers


@pytest.mark.parametrize(
    ("ref", "expected_text", "expected_prices"),
    [
        (
            "therouter:openai/tts-1",
            "$15 / 1M characters",
            [{"usd": 0.000015, "per": "character", "unit_assumed": False}],
        ),
        (
            "therouter:alibaba/cosyvoice2-0.5b",
            "$7.15 / 1M bytes",
            [{"usd": 0.00000715, "per": "byte", "unit_assumed": False}],
        ),
        ("therouter:openai/whisper-1", "$0.006 / minute", [{"usd": 0.006, "per": "minute", "unit_assumed": False}]),
        (
            "therouter:alibaba/sensevoice-small",
            "$0.006 / minute",
            [{"usd": 0.006, "per": "minute", "unit_assumed": False}],
        ),
    ],
)
def test_therouter_prices_have_units(
    all_gateways_cli: CommandLine, ref: str, expected_text: str, expected_prices: list[dict[str, Any]]
) -> None:
    text_output, json_output = all_gateways_cli("models", ref), all_gateways_cli("models", ref, "--json")

    assert f"price       {expected_text}\n" in text_output.text
    assert json_output.json["price"] == expected_prices


def test_price_per_byte_counts_bytes(all_gateways_cli: CommandLine) -> None:
    r = all_gateways_cli("speak", "日本語で", "-m", "therouter:alibaba/cosyvoice2-0.5b", "-n", "--json")

    assert r.json["price_usd"] == pytest.approx(12 * 7.15e-6)


def test_only_audio_models_of_arouter_are_listed(all_gateways_cli: CommandLine) -> None:
    models_by_ref = read_models_by_ref(all_gateways_cli("models", "-g", "arouter", "--json"))

    assert {ref: model["kind"] for ref, model in models_by_ref.items()} == {
        "arouter:openai/tts-1": "speech",
        "arouter:openai/tts-1-hd": "speech",
        "arouter:openai/whisper-1": "transcription",
        "arouter:openai/whisper-large-v3": "transcription",
        "arouter:openai/whisper-large-v3-turbo": "transcription",
        "arouter:openai/gpt-5.4-audio-preview": "chat",
    }


@pytest.mark.parametrize("fault", [Status(500), Status(401), Html(200), Garbage(b"[1]", "application/json"), None])
def test_failed_gateway_is_reported_and_the_others_are_listed(all_gateways_cli: CommandLine, fault: Any) -> None:
    if fault is None:
        all_gateways_cli.variables["THEROUTER_BASE_URL"] = f"http://127.0.0.1:{find_closed_port()}/v1"
    else:
        all_gateways_cli.gateway.add_default_fault(fault, dialect="therouter", method="GET")

    r = all_gateways_cli("models", "--json")

    assert r.code == 0, r.err
    assert {ref.partition(":")[0] for ref in read_models_by_ref(r)} == {*GATEWAYS_BY_NAME, "local"} - {"therouter"}
    assert [line.startswith("warning: therouter: ") for line in r.err.splitlines()] == [True]


def test_failure_of_all_gateways_is_an_error(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.add_default_fault(Status(401), method="GET")

    r = all_gateways_cli("models")

    assert (r.code, r.out) == (4, b""), r.err
    assert all(r.err.count(f": {gateway.name}: 401") == 1 for gateway in GATEWAYS)


def test_voices_are_listed_with_their_character(all_gateways_cli: CommandLine) -> None:
    rows = [json.loads(line) for line in all_gateways_cli("voices", "--json").text.splitlines()]
    table = all_gateways_cli("voices", "nova", "-g", "therouter")

    characters = {(row["ref"], row["voice"]): row["character"] for row in rows}
    assert characters["therouter:openai/tts-1", "onyx"] == "deep, authoritative"
    assert characters["arouter:openai/tts-1", "nova"] == "friendly, energetic"
    assert characters["openai:tts-1", "shimmer"] == "warm, gentle"
    assert characters["openrouter:hexgrad/kokoro-82m", "af_heart"] is None
    assert characters["groq:canopylabs/orpheus-v1-english", "troy"] is None
    assert "friendly, energetic" in table.text
    assert "alloy" not in table.text


@pytest.mark.parametrize("name", ["openai", "therouter", "arouter", "groq", "openrouter", "home"])
def test_voices_of_a_model_match_in_both_commands(all_gateways_cli: CommandLine, name: str) -> None:
    model = f"{name}:{GATEWAYS_BY_NAME[name].speech_model}"

    listed, printed = (
        all_gateways_cli("voices", "-m", model, "--json"),
        all_gateways_cli("speak", "-v", "?", "-m", model),
    )

    assert (listed.code, printed.code) == (0, 0), listed.err
    voices = [json.loads(line)["voice"] for line in listed.text.splitlines()]
    assert printed.text.splitlines() == voices
    assert len(voices) >= 4


def test_unknown_fields_and_wrong_types_in_model_list_are_ignored(all_gateways_cli: CommandLine) -> None:
    response_body = build_model_list(
        {"id": "acme/a", "supported_voices": [1, "ann", None, ""], "news": {"x": 1}, "expiration_date": "2027-01-01"},
        {"id": "acme/b", "supported_voices": "ann", "pricing": [], "expiration_date": {}},
        {"id": "acme/c", "pricing": {"prompt": "0.1"}, "architecture": 7},
        {"id": None},
    )
    for name in LOOKUP_GATEWAYS:
        all_gateways_cli.gateway.queue_faults(Garbage(response_body, "application/json"), dialect=name, method="GET")

        r = all_gateways_cli("models", "-g", name, "--json", "--refresh")

        assert r.code == 0, r.err
        assert {"ann"} <= set(read_models_by_ref(r)[f"{name}:acme/a"]["voices"])
        assert f"{name}:acme/b" in read_models_by_ref(r)


# --- costs -----------------------------------------------------------------------------------------------------------


def create_entries(cli: CommandLine, *names: str) -> None:
    """Send speech and transcription requests to each gateway, for entries with an unknown or estimated cost."""
    for name in names:
        gateway = GATEWAYS_BY_NAME[name]
        # TheRouter publishes the prices of its other models.
        speech_model = "openai/gpt-4o-mini-tts" if name == "therouter" else gateway.speech_model
        speech = cli("speak", f"Hello {name}", "-m", f"{name}:{speech_model}", "-o", cli.directory / "x.mp3")
        assert speech.code == 0, speech.err
        if name not in ("openrouter", "therouter"):
            transcription = cli("transcribe", cli.directory / "talk.wav", "-m", f"{name}:{gateway.transcription_model}")
            assert transcription.code == 0, transcription.err


def reconcile(cli: CommandLine, *flags: str) -> Result:
    return cli("usage", "reconcile", *flags)


def read_costs(cli: CommandLine) -> list[tuple[str, int | None, str]]:
    return [(entry["gateway"], entry["cost_nanousd"], entry["cost_source"]) for entry in cli.read_ledger_entries()]


def test_reported_costs_of_all_gateways_are_recorded(all_gateways_cli: CommandLine) -> None:
    create_entries(all_gateways_cli, *LOOKUP_GATEWAYS)
    before = read_costs(all_gateways_cli)

    r = reconcile(all_gateways_cli, "--json")

    billed = [(charge.dialect, charge.cost_nanousd, "reported") for charge in all_gateways_cli.gateway.charges]
    assert all(source in ("unknown", "estimated") for _, _, source in before)
    assert read_costs(all_gateways_cli) == billed
    assert (r.code, r.json["corrected"], r.json["missing"], r.json["unanswered"]) == (0, 4, 0, 0), r.err
    assert round(r.json["after_usd"] * 1e9) == all_gateways_cli.gateway.billed_nanousd
    assert [seen.method for seen in r.requests] == ["GET"] * 4
    assert {seen.path.rpartition("/")[2] for seen in r.requests} == {"generation"}
    assert {seen.path for seen in r.requests if seen.dialect == "arouter"} == {"/arouter/api/v1/generation"}


def test_reconciled_entry_is_not_requested_again(all_gateways_cli: CommandLine) -> None:
    create_entries(all_gateways_cli, *LOOKUP_GATEWAYS)
    reconcile(all_gateways_cli)
    after = read_costs(all_gateways_cli)

    again = reconcile(all_gateways_cli)

    assert (again.code, again.requests, read_costs(all_gateways_cli)) == (0, [], after), again.err
    assert again.text == "0 of 0 corrected\n"


def test_cost_that_is_not_available_yet_stays_open(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.billing.generation_misses = 1
    create_entries(all_gateways_cli, "openrouter", "therouter")
    before = read_costs(all_gateways_cli)

    first = reconcile(all_gateways_cli)
    unchanged = read_costs(all_gateways_cli)
    second = reconcile(all_gateways_cli, "--json")

    assert (first.code, unchanged) == (0, before), first.err
    assert "2 not yet known to their gateway" in first.text
    assert (second.json["corrected"], {source for *_, source in read_costs(all_gateways_cli)}) == (2, {"reported"})


def test_failed_gateway_is_requested_once_and_others_are_reconciled(all_gateways_cli: CommandLine) -> None:
    create_entries(all_gateways_cli, *LOOKUP_GATEWAYS)
    all_gateways_cli.gateway.add_default_fault(Status(503), dialect="therouter", method="GET")

    r = reconcile(all_gateways_cli)

    sources = {
        gateway: {source for name, _, source in read_costs(all_gateways_cli) if name == gateway}
        for gateway in LOOKUP_GATEWAYS
    }
    assert r.code == 0, r.err
    assert sources["openrouter"] == sources["arouter"] == {"reported"}
    assert "reported" not in sources["therouter"]
    assert len([seen for seen in r.requests if seen.dialect == "therouter"]) == 1
    assert "note: therouter: 503" in r.err
    assert "3 of 4 corrected" in r.text and "1 could not be requested" in r.text


def test_error_status_does_not_change_the_cost(all_gateways_cli: CommandLine) -> None:
    create_entries(all_gateways_cli, "openrouter")
    before = read_costs(all_gateways_cli)
    for status in (400, 401, 403, 404, 429, 500, 502):
        all_gateways_cli.gateway.queue_faults(Status(status), method="GET")

        r = reconcile(all_gateways_cli)

        assert (r.code, read_costs(all_gateways_cli), len(r.requests)) == (0, before, 1), (status, r.err)


INVALID_COSTS = (
    {"data": {"total_cost": -1}},
    {"data": {"total_cost": "free"}},
    {"data": {"total_cost": 1e30}},
    {"data": {"total_cost": True}},
    {"data": {"total_cost": None}},
    {"data": {"total_cost": [1]}},
    {"data": {"usage": {"cost": "NaN"}}},
    {"data": 5},
    {"data": []},
    {"usage": {"cost": -0.5}},
    {"error": {"message": "x"}},
    [],
    "<html>",
)


def test_invalid_cost_is_ignored(all_gateways_cli: CommandLine) -> None:
    create_entries(all_gateways_cli, "openrouter")
    before = read_costs(all_gateways_cli)
    for response in INVALID_COSTS:
        all_gateways_cli.gateway.queue_faults(
            Status(200, body=json.dumps(response), content_type="application/json"), method="GET"
        )

        r = reconcile(all_gateways_cli)

        assert (r.code, read_costs(all_gateways_cli)) == (0, before), (response, r.err)
        assert "0 of 1 corrected" in r.text


def test_zero_cost_is_recorded_as_reported(all_gateways_cli: CommandLine) -> None:
    create_entries(all_gateways_cli, "openrouter")
    all_gateways_cli.gateway.add_default_fault(
        Status(200, body={"data": {"total_cost": 0, "tokens_prompt": 7}}), method="GET"
    )

    reconcile(all_gateways_cli)

    assert read_costs(all_gateways_cli) == [("openrouter", 0, "reported")]
    assert all_gateways_cli.read_ledger_entries()[0]["input_tokens"] == 7


def test_zero_cost_does_not_replace_an_estimate(all_gateways_cli: CommandLine) -> None:
    assert all_gateways_cli("models", "-g", "openrouter").code == 0
    create_entries(all_gateways_cli, "openrouter")
    before = read_costs(all_gateways_cli)
    all_gateways_cli.gateway.add_default_fault(Status(200, body={"data": {"total_cost": 0}}), method="GET")

    text, document = reconcile(all_gateways_cli), reconcile(all_gateways_cli, "--json").json

    assert read_costs(all_gateways_cli) == before
    assert before[0][1] and before[0][2] == "estimated"
    assert "0 of 1 corrected; 1 reported as $0, although the price list says more: the estimate stays" in text.text
    assert (document["corrected"], document["contradicted"], document["missing"]) == (0, 1, 0)


@pytest.mark.parametrize("is_byok", [True, False])
def test_zero_fee_with_a_charge_of_the_provider_is_recorded(all_gateways_cli: CommandLine, is_byok: bool) -> None:
    assert all_gateways_cli("models", "-g", "openrouter").code == 0
    create_entries(all_gateways_cli, "openrouter")
    body = {"data": {"total_cost": 0, "is_byok": is_byok, "upstream_inference_cost": 0.001}}
    all_gateways_cli.gateway.add_default_fault(Status(200, body=body), method="GET")

    reconcile(all_gateways_cli)

    [entry] = all_gateways_cli.read_ledger_entries()
    assert entry["cost_source"] == ("reported" if is_byok else "estimated")
    assert entry["upstream_nanousd"] == (1_000_000 if is_byok else None)


def test_gateway_without_key_is_not_requested(all_gateways_cli: CommandLine) -> None:
    create_entries(all_gateways_cli, "therouter", "arouter")
    all_gateways_cli.variables["THEROUTER_API_KEY"] = ""

    r = reconcile(all_gateways_cli)

    assert r.code == 0, r.err
    assert {seen.dialect for seen in r.requests} == {"arouter"}
    assert "1 could not be requested" in r.text


def test_entries_of_other_gateways_are_unchanged(all_gateways_cli: CommandLine) -> None:
    create_entries(all_gateways_cli, "openai", "groq", "home")
    before = all_gateways_cli.read_ledger_entries()

    r, document = reconcile(all_gateways_cli), reconcile(all_gateways_cli, "--json").json

    assert (r.code, r.requests, all_gateways_cli.read_ledger_entries()) == (0, [], before), r.err
    lines = [
        f"{name}: 2 requests have an estimated or unknown cost; {name} does not report costs afterwards"
        for name in ("groq", "home", "openai")
    ]
    assert r.text.splitlines() == ["0 of 0 corrected", *lines]
    assert "set the price under [prices] in config.toml" in r.err
    assert document["unsupported"] == [{"gateway": name, "requests": 2} for name in ("groq", "home", "openai")]


def test_price_of_the_hint_computes_the_next_cost(all_gateways_cli: CommandLine) -> None:
    create_entries(all_gateways_cli, "home")
    [hint] = [line for line in reconcile(all_gateways_cli).err.splitlines() if "[prices]" in line]
    price = hint.partition("for example: ")[2]
    path = Path(all_gateways_cli.variables["XDG_CONFIG_HOME"]) / "audiocli" / "config.toml"
    path.write_text(path.read_text() + f"\n[prices]\n{price}\n")

    listed = all_gateways_cli("models", "-g", "home", "--json")

    model = price.split('"')[1]
    assert [price["per"] for price in read_models_by_ref(listed)[model]["price"]] == ["minute"]


def test_reported_or_refused_entry_is_not_requested(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.queue_faults(Status(402, headers={"X-Generation-Id": "gen-tts-1-1"}))
    all_gateways_cli("speak", "Hi", "-m", "openrouter:hexgrad/kokoro-82m", "-o", all_gateways_cli.directory / "x.mp3")
    all_gateways_cli("transcribe", all_gateways_cli.directory / "talk.wav", "-m", "openrouter:openai/whisper-1")

    r = reconcile(all_gateways_cli)

    assert [source for *_, source in read_costs(all_gateways_cli)] == ["computed", "reported"]
    assert r.requests == []


def test_cost_of_truncated_response_is_looked_up(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.queue_faults(CutAfter(500))
    truncated = all_gateways_cli(
        "speak", "Hello there", "-m", "openrouter:hexgrad/kokoro-82m", "-o", all_gateways_cli.directory / "x.mp3"
    )

    reconcile(all_gateways_cli)

    assert truncated.code == 7
    assert [entry["outcome"] for entry in all_gateways_cli.read_ledger_entries()] == ["unknown"]
    assert read_costs(all_gateways_cli) == [("openrouter", all_gateways_cli.gateway.billed_nanousd, "reported")]


def test_interrupted_lookup_saves_completed_costs(all_gateways_cli: CommandLine) -> None:
    create_entries(all_gateways_cli, "openrouter", "therouter", "arouter")
    request_count = 0

    async def sleep(seconds: float) -> None:
        nonlocal request_count
        request_count += 1
        if request_count == 2:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()

    app, out, err = build_app_context(all_gateways_cli, sleep=sleep)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the parent process may ignore SIGINT
    try:
        code = main(["usage", "reconcile"], app)
    finally:
        signal.signal(signal.SIGINT, before)

    assert (code, out.getvalue()) == (130, b""), err.getvalue()
    assert "Traceback" not in err.getvalue().decode()
    assert [source for *_, source in read_costs(all_gateways_cli)].count("reported") == 2
    assert reconcile(all_gateways_cli, "--json").json["corrected"] == 2


def test_only_entries_in_date_range_are_requested(all_gateways_cli: CommandLine) -> None:
    create_entries(all_gateways_cli, "openrouter")

    before = reconcile(all_gateways_cli, "--since", "2020-01-01", "--until", "2020-01-02")
    today = reconcile(all_gateways_cli, "--since", "today")

    assert (before.requests, before.text) == ([], "0 of 0 corrected\n")
    assert "1 of 1 corrected" in today.text
