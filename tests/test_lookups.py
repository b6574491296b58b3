"""The exam in look-ups: what gateways tell when asked, of their models and voices, and of what a request has cost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

import pytest

from audiocli.app import main
from tests.conftest import CommandLine, Result
from tests.gateway import CutAfter, Garbage, Html, Status, closed_port
from tests.gateway_contract import BY_NAME, CANDIDATES, SPEECH, enrol, listing, world_of

COUNTED = ("openrouter", "therouter", "arouter")
"""The gateways that tell afterwards what a request has cost."""


@pytest.fixture
def school(audiocli: CommandLine) -> CommandLine:
    enrol(audiocli)
    (audiocli.folder / "talk.wav").write_bytes(SPEECH)
    return audiocli


# --- models and voices -----------------------------------------------------------------------------------------------


def cards(r: Result) -> dict[str, dict[str, Any]]:
    return {card["ref"]: card for card in map(json.loads, r.text.splitlines())}


def test_all_gateways_stand_side_by_side(school: CommandLine) -> None:
    r = school("models", "--json")

    found = cards(r)
    assert r.code == 0, r.err
    assert {f"{one.name}:{one.speaks}" for one in CANDIDATES} <= set(found)
    assert {f"{one.name}:{one.hears}" for one in CANDIDATES} <= set(found)
    assert {ref.partition(":")[0] for ref in found} == {*BY_NAME, "local"}
    assert (len(r.requests), r.ledger) == (6, [])
    for one in CANDIDATES:
        assert found[f"{one.name}:{one.speaks}"]["kind"] == "speech"
        assert found[f"{one.name}:{one.hears}"]["kind"] == "transcription"


def test_each_list_is_asked_for_as_its_gateway_wants_it(school: CommandLine) -> None:
    r = school("models")

    queries = {seen.dialect: seen.query for seen in r.requests}
    assert queries["arouter"] == {"output_modalities": "all"}
    assert set(queries["openrouter"]["output_modalities"].split(",")) == {"speech", "transcription", "audio"}
    assert [queries[name] for name in ("openai", "therouter", "groq", "plain")] == [{}] * 4
    assert "authorization" not in next(seen for seen in r.requests if seen.dialect == "openrouter").headers


@pytest.mark.parametrize(
    ("ref", "shown", "price"),
    [
        ("therouter:openai/tts-1", "$15 / 1M characters", [{"usd": 0.000015, "per": "character"}]),
        ("therouter:alibaba/cosyvoice2-0.5b", "$7.15 / 1M bytes", [{"usd": 0.00000715, "per": "byte"}]),
        ("therouter:openai/whisper-1", "$0.006 / minute", [{"usd": 0.006, "per": "minute"}]),
        ("therouter:alibaba/sensevoice-small", "$0.006 / minute", [{"usd": 0.006, "per": "minute"}]),
    ],
)
def test_the_prices_of_therouter_have_their_units(
    school: CommandLine, ref: str, shown: str, price: list[dict[str, Any]]
) -> None:
    card, document = school("models", ref), school("models", ref, "--json")

    assert f"price       {shown}\n" in card.text
    assert document.json["price"] == price


def test_a_price_in_bytes_counts_bytes(school: CommandLine) -> None:
    r = school("speak", "日本語で", "-m", "therouter:alibaba/cosyvoice2-0.5b", "-n", "--json")

    assert r.json["price_usd"] == pytest.approx(12 * 7.15e-6)


def test_of_arouters_models_those_that_speak_transcribe_or_talk_are_listed(school: CommandLine) -> None:
    found = cards(school("models", "-g", "arouter", "--json"))

    assert {ref: card["kind"] for ref, card in found.items()} == {
        "arouter:openai/tts-1": "speech",
        "arouter:openai/tts-1-hd": "speech",
        "arouter:openai/whisper-1": "transcription",
        "arouter:openai/whisper-large-v3": "transcription",
        "arouter:openai/whisper-large-v3-turbo": "transcription",
        "arouter:openai/gpt-5.4-audio-preview": "chat",
    }


@pytest.mark.parametrize("fault", [Status(500), Status(401), Html(200), Garbage(b"[1]", "application/json"), None])
def test_a_gateway_that_cannot_be_asked_is_a_line_and_the_others_are_listed(school: CommandLine, fault: Any) -> None:
    if fault is None:
        school.variables["THEROUTER_BASE_URL"] = f"http://127.0.0.1:{closed_port()}/v1"
    else:
        school.gateway.always(fault, dialect="therouter", method="GET")

    r = school("models", "--json")

    assert r.code == 0, r.err
    assert {ref.partition(":")[0] for ref in cards(r)} == {*BY_NAME, "local"} - {"therouter"}
    assert [line.startswith("audiocli: therouter: ") for line in r.err.splitlines()] == [True]


def test_when_no_gateway_answers_it_is_an_error(school: CommandLine) -> None:
    school.gateway.always(Status(401), method="GET")

    r = school("models")

    assert (r.code, r.out) == (4, b""), r.err
    assert all(f"audiocli: {one.name}: 401" in r.err for one in CANDIDATES)


def test_voices_are_listed_with_how_they_sound(school: CommandLine) -> None:
    rows = [json.loads(line) for line in school("voices", "--json").text.splitlines()]
    table = school("voices", "nova", "-g", "therouter")

    sound = {(row["ref"], row["voice"]): row["character"] for row in rows}
    assert sound["therouter:openai/tts-1", "onyx"] == "deep, authoritative"
    assert sound["arouter:openai/tts-1", "nova"] == "friendly, energetic"
    assert sound["openai:tts-1", "shimmer"] == "warm, gentle"
    assert sound["openrouter:hexgrad/kokoro-82m", "af_heart"] is None
    assert sound["groq:canopylabs/orpheus-v1-english", "troy"] is None
    assert "friendly, energetic" in table.text
    assert "alloy" not in table.text


@pytest.mark.parametrize("one", ["openai", "therouter", "arouter", "groq", "openrouter", "home"])
def test_the_voices_of_one_model_are_told_or_it_is_said_that_they_are_not(school: CommandLine, one: str) -> None:
    model = f"{one}:{BY_NAME[one].speaks}"

    listed, asked = school("voices", "-m", model, "--json"), school("speak", "-v", "?", "-m", model)

    assert (listed.code, asked.code) == (0, 0), listed.err
    voices = [json.loads(line)["voice"] for line in listed.text.splitlines()]
    assert asked.text.splitlines() == voices
    assert len(voices) >= 4


def test_fields_nobody_knows_and_types_nobody_meant_are_passed_over_in_a_list(school: CommandLine) -> None:
    odd = listing(
        {"id": "acme/a", "supported_voices": [1, "ann", None, ""], "news": {"x": 1}, "expiration_date": "2027-01-01"},
        {"id": "acme/b", "supported_voices": "ann", "pricing": [], "expiration_date": {}},
        {"id": "acme/c", "pricing": {"prompt": "0.1"}, "architecture": 7},
        {"id": None},
    )
    for name in COUNTED:
        school.gateway.script(Garbage(odd, "application/json"), dialect=name, method="GET")

        r = school("models", "-g", name, "--json", "--refresh")

        assert r.code == 0, r.err
        assert {"ann"} <= set(cards(r)[f"{name}:acme/a"]["voices"])
        assert f"{name}:acme/b" in cards(r)


# --- what it has cost ------------------------------------------------------------------------------------------------


def spend(cli: CommandLine, *names: str) -> None:
    """Have every one of these gateways speak and hear something; what that cost is neither reported nor certain."""
    for name in names:
        one = BY_NAME[name]
        # TheRouter publishes what its other models cost.
        speaks = "openai/gpt-4o-mini-tts" if name == "therouter" else one.speaks
        spoken = cli("speak", f"Hello {name}", "-m", f"{name}:{speaks}", "-o", cli.folder / "x.mp3")
        assert spoken.code == 0, spoken.err
        if name not in ("openrouter", "therouter"):
            heard = cli("transcribe", cli.folder / "talk.wav", "-m", f"{name}:{one.hears}")
            assert heard.code == 0, heard.err


def reconcile(cli: CommandLine, *flags: str) -> Result:
    return cli("usage", "reconcile", *flags)


def costs(cli: CommandLine) -> list[tuple[str, int | None, str]]:
    return [(entry["gateway"], entry["cost_nanousd"], entry["cost_source"]) for entry in cli.entries()]


def test_the_true_costs_of_all_three_shapes_come_into_the_ledger(school: CommandLine) -> None:
    spend(school, *COUNTED)
    before = costs(school)

    r = reconcile(school, "--json")

    charged = [(one.dialect, one.cost_nanousd, "reported") for one in school.gateway.billed]
    assert all(source in ("unknown", "estimated") for _, _, source in before)
    assert costs(school) == charged
    assert (r.code, r.json["corrected"], r.json["missing"], r.json["unanswered"]) == (0, 4, 0, 0), r.err
    assert round(r.json["after_usd"] * 1e9) == school.gateway.bill_nanousd
    assert [seen.method for seen in r.requests] == ["GET"] * 4
    assert {seen.path.rpartition("/")[2] for seen in r.requests} == {"generation"}
    assert {seen.path for seen in r.requests if seen.dialect == "arouter"} == {"/arouter/api/v1/generation"}


def test_nothing_is_asked_for_twice(school: CommandLine) -> None:
    spend(school, *COUNTED)
    reconcile(school)
    after = costs(school)

    again = reconcile(school)

    assert (again.code, again.requests, costs(school)) == (0, [], after), again.err
    assert again.text == "0 of 0 corrected\n"


def test_what_a_gateway_does_not_know_yet_stays_open(school: CommandLine) -> None:
    school.gateway.bill.generation_lag = 1
    spend(school, "openrouter", "therouter")
    before = costs(school)

    early = reconcile(school)
    unchanged = costs(school)
    late = reconcile(school, "--json")

    assert (early.code, unchanged) == (0, before), early.err
    assert "2 not known to their gateway" in early.text
    assert (late.json["corrected"], {source for *_, source in costs(school)}) == (2, {"reported"})


def test_a_gateway_that_is_down_is_asked_once_and_the_others_are_corrected(school: CommandLine) -> None:
    spend(school, *COUNTED)
    school.gateway.always(Status(503), dialect="therouter", method="GET")

    r = reconcile(school)

    sources = {gateway: {source for name, _, source in costs(school) if name == gateway} for gateway in COUNTED}
    assert r.code == 0, r.err
    assert sources["openrouter"] == sources["arouter"] == {"reported"}
    assert "reported" not in sources["therouter"]
    assert len([seen for seen in r.requests if seen.dialect == "therouter"]) == 1
    assert "audiocli: therouter: 503" in r.err
    assert "3 of 4 corrected" in r.text and "1 could not be asked for" in r.text


def test_no_status_makes_a_cost(school: CommandLine) -> None:
    spend(school, "openrouter")
    before = costs(school)
    for status in (400, 401, 403, 404, 429, 500, 502):
        school.gateway.script(Status(status), method="GET")

        r = reconcile(school)

        assert (r.code, costs(school), len(r.requests)) == (0, before, 1), (status, r.err)


NONSENSE = (
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


def test_a_cost_that_makes_no_sense_is_none(school: CommandLine) -> None:
    spend(school, "openrouter")
    before = costs(school)
    for told in NONSENSE:
        school.gateway.script(Status(200, body=json.dumps(told), content_type="application/json"), method="GET")

        r = reconcile(school)

        assert (r.code, costs(school)) == (0, before), (told, r.err)
        assert "0 of 1 corrected" in r.text


def test_a_request_that_cost_nothing_is_known_to_have_cost_nothing(school: CommandLine) -> None:
    spend(school, "openrouter")
    school.gateway.always(Status(200, body={"data": {"total_cost": 0, "tokens_prompt": 7}}), method="GET")

    reconcile(school)

    assert costs(school) == [("openrouter", 0, "reported")]
    assert school.entries()[0]["input_tokens"] == 7


def test_without_a_key_nobody_is_asked(school: CommandLine) -> None:
    spend(school, "therouter", "arouter")
    school.variables["THEROUTER_API_KEY"] = ""

    r = reconcile(school)

    assert r.code == 0, r.err
    assert {seen.dialect for seen in r.requests} == {"arouter"}
    assert "1 could not be asked for" in r.text


def test_entries_of_other_gateways_are_left_as_they_are(school: CommandLine) -> None:
    spend(school, "openai", "groq", "home")
    before = school.entries()

    r = reconcile(school)

    assert (r.code, r.requests, school.entries()) == (0, [], before), r.err


def test_what_was_reported_or_refused_is_not_asked_for(school: CommandLine) -> None:
    school.gateway.script(Status(402, headers={"X-Generation-Id": "gen-tts-1-1"}))
    school("speak", "Hi", "-m", "openrouter:hexgrad/kokoro-82m", "-o", school.folder / "x.mp3")
    school("transcribe", school.folder / "talk.wav", "-m", "openrouter:openai/whisper-1")

    r = reconcile(school)

    assert [source for *_, source in costs(school)] == ["computed", "reported"]
    assert r.requests == []


def test_a_cut_reply_has_its_cost_looked_up_like_any_other(school: CommandLine) -> None:
    school.gateway.script(CutAfter(500))
    cut = school("speak", "Hello there", "-m", "openrouter:hexgrad/kokoro-82m", "-o", school.folder / "x.mp3")

    reconcile(school)

    assert cut.code == 7
    assert [entry["outcome"] for entry in school.entries()] == ["unknown"]
    assert costs(school) == [("openrouter", school.gateway.bill_nanousd, "reported")]


def test_an_interrupted_look_up_keeps_what_it_has(school: CommandLine) -> None:
    spend(school, "openrouter", "therouter", "arouter")
    questions = 0

    async def sleep(seconds: float) -> None:
        nonlocal questions
        questions += 1
        if questions == 2:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()

    env, out, err = world_of(school, sleep=sleep)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
    try:
        code = main(["usage", "reconcile"], env)
    finally:
        signal.signal(signal.SIGINT, before)

    assert (code, out.getvalue()) == (130, b""), err.getvalue()
    assert "Traceback" not in err.getvalue().decode()
    assert [source for *_, source in costs(school)].count("reported") == 2
    assert reconcile(school, "--json").json["corrected"] == 2


def test_only_the_days_that_were_named_are_asked_for(school: CommandLine) -> None:
    spend(school, "openrouter")

    before = reconcile(school, "--since", "2020-01-01", "--until", "2020-01-02")
    today = reconcile(school, "--since", "today")

    assert (before.requests, before.text) == ([], "0 of 0 corrected\n")
    assert "1 of 1 corrected" in today.text
