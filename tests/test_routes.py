"""The exam in routes: who serves when the first cannot, with which voice, and what is told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine, Result
from tests.gateway import (
    CutAfter,
    Empty,
    Garbage,
    Html,
    Status,
    Swapped,
    closed_port,
    expected_audio,
    expected_pcm,
)
from tests.gateway_contract import SPEECH, enrol, listing, remains, warnings_of

TEXT = "Hello there, world."
KOKORO, TTS = "openrouter:hexgrad/kokoro-82m", "openai:tts-1"


@pytest.fixture
def school(audiocli: CommandLine) -> CommandLine:
    enrol(audiocli)
    (audiocli.folder / "talk.wav").write_bytes(SPEECH)
    return audiocli


def speak(cli: CommandLine, *models: str, flags: tuple[object, ...] = (), output: str = "x.mp3") -> Result:
    argv = [word for model in models for word in ("-m", model)]
    return cli("speak", TEXT, *argv, "-o", cli.folder / output, *map(str, flags))


def hear(cli: CommandLine, *models: str, flags: tuple[object, ...] = ()) -> Result:
    argv = [word for model in models for word in ("-m", model)]
    return cli("transcribe", cli.folder / "talk.wav", *argv, *map(str, flags))


def keep_lists(cli: CommandLine, *gateways: str) -> None:
    for name in gateways:
        r = cli("models", "-g", name)
        assert r.code == 0, r.err


# --- another model served --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [None, "acme/unheard-of"])
def test_a_model_that_stood_in_for_speech_is_told_everywhere(school: CommandLine, model: str | None) -> None:
    school.gateway.script(Swapped(model, "acme"), Swapped(model, "acme"))
    served = model or "alibaba/cosyvoice2-0.5b"

    told = speak(school, "therouter:openai/tts-1", flags=("-v", "nova"))
    r = speak(school, "therouter:openai/tts-1", flags=("-v", "nova", "--json"))

    assert (told.code, r.code) == (0, 0), told.err
    [warning] = warnings_of(told)
    assert served in warning and "openai/tts-1" in warning and "acme" in warning and "nova" in warning
    assert r.json["warnings"] == [warning]
    assert (r.json["model"], r.json["asked_model"], r.json["gateway"]) == (served, "openai/tts-1", "therouter")
    assert {entry["model"] for entry in (*told.ledger, *r.ledger)} == {served}


def test_a_model_that_stood_in_for_a_transcription_is_told_everywhere(school: CommandLine) -> None:
    school.gateway.script(Swapped(), Swapped())

    told, r = (hear(school, "therouter:openai/whisper-1", flags=flags) for flags in ((), ("--json",)))

    assert (told.code, r.code) == (0, 0), told.err
    warning = warnings_of(told)[0]
    assert "alibaba/sensevoice-small" in warning and "siliconflow" in warning
    assert (r.json["model"], r.json["asked_model"]) == ("alibaba/sensevoice-small", "openai/whisper-1")
    assert r.json["warnings"] == [warning]
    assert r.ledger[0]["model"] == "alibaba/sensevoice-small"


def test_a_model_that_stood_in_for_a_transcription_is_told_once(school: CommandLine) -> None:
    school.gateway.script(Swapped())

    r = hear(school, "therouter:openai/whisper-1")

    assert len(warnings_of(r)) == 1, r.err


def test_the_model_that_was_asked_needs_no_words(school: CommandLine) -> None:
    r = speak(school, "therouter:openai/tts-1", flags=("--json",))

    assert r.json["model"] == r.ledger[0]["model"] == "openai/tts-1"
    assert "asked_model" not in r.json
    assert r.json["warnings"] == []


def test_headers_of_a_swap_that_make_no_sense_are_survived(school: CommandLine) -> None:
    sound = expected_audio(TEXT, "mp3")
    for headers in (
        {"x-router-model": "x" * 3000, "x-router-fallback": "true"},
        {"x-router-fallback": "TRUE"},
        {"x-router-model": "", "x-router-fallback": "maybe"},
        {"x-router-model": "openai/tts-1", "x-router-fallback": "1"},
    ):
        school.gateway.script(Status(200, body=sound, content_type="audio/mpeg", headers=headers))

        r = speak(school, "therouter:openai/tts-1", flags=("--json",))

        assert r.code == 0, r.err
        assert r.json["model"] == "openai/tts-1"
        assert len(r.json["warnings"]) == (headers.get("x-router-fallback", "").lower() == "true")


def test_what_a_model_that_stood_in_has_cost_can_be_looked_up(school: CommandLine) -> None:
    school.gateway.script(Swapped())

    r = speak(school, "therouter:openai/tts-1", flags=("--json",))
    school("usage", "reconcile")

    assert r.json["cost_source"] in ("estimated", "unknown")
    assert school.entries()[0]["cost_nanousd"] == school.gateway.bill_nanousd


# --- fallback --------------------------------------------------------------------------------------------------------

REASONS = {
    "gone": (Status(404), "404", "refused"),
    "dear": (Status(402), "402", "refused"),
    "strange": (Status(401), "401", "refused"),
    "busy for long": (Status(429, headers={"Retry-After": "600"}), "429", "refused"),
    "ill": (Status(500), "500", "failed"),
    "empty": (Empty(), "empty", "failed"),
    "a page": (Html(200), "HTML", "failed"),
    "noise": (Garbage(), "not audio", "failed"),
    "late": (Status(524), "524", "unknown"),
    "cut": (CutAfter(700), "", "unknown"),
}


@pytest.mark.parametrize("why", REASONS)
def test_another_gateway_speaks_when_the_first_cannot(school: CommandLine, why: str) -> None:
    fault, reason, outcome = REASONS[why]
    school.gateway.always(fault, dialect="openrouter")

    r = speak(school, KOKORO, TTS, flags=("--json",))

    assert r.code == 0, r.err
    assert (r.json["gateway"], r.json["model"]) == ("openai", "tts-1")
    [route] = r.json["routes"]
    assert (route["gateway"], route["model"]) == ("openrouter", "hexgrad/kokoro-82m")
    assert reason in route["reason"]
    assert [(entry["gateway"], entry["outcome"]) for entry in r.ledger] == [
        *[("openrouter", outcome)] * (3 if why == "ill" else 1),
        ("openai", "ok"),
    ]
    assert (school.folder / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")


def test_another_gateway_hears_when_the_first_cannot_be_reached(school: CommandLine) -> None:
    school.variables["GROQ_BASE_URL"] = f"http://127.0.0.1:{closed_port()}/v1"

    r = hear(school, "groq:whisper-large-v3", "home:whisper-1", flags=("--json", "--debug"))

    assert r.code == 0, r.err
    assert r.json["gateway"] == "home"
    assert [route["gateway"] for route in r.json["routes"]] == ["groq"]
    assert [entry["outcome"] for entry in r.ledger] == ["unsent", "ok"]
    assert "groq:whisper-large-v3" in r.err and "next route" in r.err


def test_all_six_gateways_are_walked_in_their_order(school: CommandLine) -> None:
    models = (
        *("openrouter:openai/whisper-1", "openai:whisper-1", "therouter:openai/whisper-1"),
        *("arouter:openai/whisper-1", "groq:whisper-large-v3", "home:whisper-1"),
    )
    for dialect in ("openrouter", "openai", "therouter", "arouter", "groq"):
        school.gateway.always(Status(400), dialect=dialect)

    r = hear(school, *models, flags=("--json",))

    assert (r.code, r.json["gateway"], r.json["attempts"]) == (0, "home", 6), r.err
    assert [f"{route['gateway']}:{route['model']}" for route in r.json["routes"]] == list(models[:-1])
    assert [f"{entry['gateway']}:{entry['model']}" for entry in r.ledger] == list(models)


def test_debug_tells_each_decision(school: CommandLine) -> None:
    school.gateway.always(Status(404), dialect="openrouter")

    r = speak(school, KOKORO, TTS, flags=("--debug",))

    assert "audiocli: debug: route openrouter:hexgrad/kokoro-82m" in r.err
    assert "audiocli: openrouter:hexgrad/kokoro-82m: 404 Resource not found; trying openai:tts-1" in r.err
    assert "openai:tts-1 alloy" in r.err.splitlines()[-1]


@pytest.mark.parametrize("format", ["mp3", "wav"])
def test_a_pipe_with_its_first_byte_stays_with_its_route_and_a_file_moves_on(school: CommandLine, format: str) -> None:
    school.gateway.always(CutAfter(20_000), dialect="openrouter")
    long = TEXT * 20

    piped = school("speak", long, "-m", KOKORO, "-m", TTS, "-f", format)
    filed = school("speak", long, "-m", KOKORO, "-m", TTS, "-o", school.folder / f"x.{format}", "--json")

    assert (piped.code, [seen.dialect for seen in piped.requests]) == (7, ["openrouter"]), piped.err
    assert len(piped.out) > 1000
    assert (filed.code, filed.json["gateway"]) == (0, "openai"), filed.err
    assert (school.folder / f"x.{format}").read_bytes() == expected_audio(long, format)


def test_a_pipe_without_a_byte_moves_on(school: CommandLine) -> None:
    school.gateway.always(Garbage(), dialect="openrouter")

    r = school("speak", TEXT, "-m", KOKORO, "-m", TTS)

    assert (r.code, r.out) == (0, expected_audio(TEXT, "mp3")), r.err


@pytest.mark.parametrize(("fault", "code"), [(Empty(), 9), (CutAfter(70), 7), (Status(524), 7)], ids=str)
def test_what_may_be_billed_goes_to_another_gateway_only_where_another_model_was_listed(
    school: CommandLine, fault: Any, code: int
) -> None:
    keep_lists(school, "openrouter", "therouter", "arouter", "openai", "groq", "home")
    school.gateway.always(fault, dialect="openrouter")

    single = hear(school, "openai/whisper-1")
    several = hear(school, "openai/whisper-1", "groq:whisper-large-v3")

    assert (single.code, [seen.dialect for seen in single.requests]) == (code, ["openrouter"]), single.err
    assert (several.code, [seen.dialect for seen in several.requests]) == (0, ["openrouter", "therouter"]), several.err


@pytest.mark.parametrize(
    ("faults", "code", "outcomes"),
    [
        ((Status(401), Status(403)), 4, ["refused", "refused"]),
        ((Status(402), Status(402)), 5, ["refused", "refused"]),
        ((Status(404), Status(400)), 6, ["refused", "refused"]),
        ((CutAfter(9), Status(524)), 7, ["unknown", "unknown"]),
        ((Empty(), Html(200)), 9, ["failed", "failed"]),
        ((Status(401), Status(402)), 6, ["refused", "refused"]),
        ((Empty(), Status(524)), 6, ["failed", "unknown"]),
    ],
    ids=str,
)
def test_when_no_route_is_left_each_is_listed_with_its_reason(
    school: CommandLine, faults: tuple[Any, Any], code: int, outcomes: list[str]
) -> None:
    school.gateway.always(faults[0], dialect="openrouter")
    school.gateway.always(faults[1], dialect="openai")

    r = speak(school, KOKORO, TTS, flags=("--json",))

    error = r.err_json["error"]
    assert (r.code, error["exit"], error["code"]) == (code, code, "routes_exhausted"), r.err
    assert [(route["gateway"], route["model"]) for route in error["routes"]] == [
        ("openrouter", "hexgrad/kokoro-82m"),
        ("openai", "tts-1"),
    ]
    assert all(route["reason"] in error["message"] and route["reason"] for route in error["routes"])
    assert [entry["outcome"] for entry in r.ledger] == outcomes
    assert remains(school.folder) == []


def test_a_route_without_a_key_is_listed_but_does_not_decide_the_exit_code(school: CommandLine) -> None:
    school.variables["OPENROUTER_API_KEY"] = ""
    school.gateway.always(Status(402))

    r = speak(school, KOKORO, TTS, flags=("--json",))

    assert r.code == 5, r.err
    assert r.err_json["error"]["routes"][0]["reason"] == "no key for openrouter"


# --- voices ----------------------------------------------------------------------------------------------------------


def voice_sent(r: Result) -> str:
    return str(r.requests[-1].json.get("voice"))


def test_the_configured_voice_speaks_where_the_asked_one_is_unknown(school: CommandLine) -> None:
    keep_lists(school, "openrouter")
    path = Path(school.variables["XDG_CONFIG_HOME"]) / "audiocli" / "config.toml"
    path.write_text(path.read_text() + f'\n[voices]\n"{KOKORO}" = "am_adam"\n')
    school.gateway.always(Status(404), dialect="openai")

    r = speak(school, TTS, KOKORO, flags=("-v", "nova", "--json"))

    assert (r.code, r.json["voice"], voice_sent(r)) == (0, "am_adam", "am_adam"), r.err
    assert r.json["warnings"] == [f"{KOKORO} has no voice nova: am_adam speaks"]


@pytest.mark.parametrize("configured", ["", '\n[voices]\n"openrouter:hexgrad/kokoro-82m" = "gone_away"\n'])
def test_else_the_first_listed_voice_speaks(school: CommandLine, configured: str) -> None:
    keep_lists(school, "openrouter")
    path = Path(school.variables["XDG_CONFIG_HOME"]) / "audiocli" / "config.toml"
    path.write_text(path.read_text() + configured)
    school.gateway.always(Status(404), dialect="openai")

    r = speak(school, TTS, KOKORO, flags=("-v", "nova"))

    assert (r.code, voice_sent(r)) == (0, "af_heart"), r.err
    assert warnings_of(r) == [f"{KOKORO} has no voice nova: af_heart speaks"]


def test_a_voice_that_a_listed_model_lacks_is_told_for_a_single_model_too(school: CommandLine) -> None:
    unlisted = speak(school, KOKORO, flags=("-v", "nova"))
    keep_lists(school, "openrouter")
    listed = speak(school, KOKORO, flags=("-v", "nova"))

    assert unlisted.code == 6
    assert (listed.code, voice_sent(listed)) == (0, "af_heart"), listed.err
    assert warnings_of(listed) == [f"{KOKORO} has no voice nova: af_heart speaks"]


def test_a_model_that_must_have_a_voice_is_given_its_first(school: CommandLine) -> None:
    keep_lists(school, "openrouter")

    r = speak(school, "openrouter:mistralai/voxtral-mini-tts-2603")

    assert (r.code, voice_sent(r)) == (0, "en_paul_neutral"), r.err
    assert "needs a voice: en_paul_neutral speaks" in r.err


def test_a_voice_that_every_route_has_stays(school: CommandLine) -> None:
    keep_lists(school, "openrouter", "openai")
    school.gateway.always(Status(404), dialect="openrouter")

    r = speak(school, "openrouter:openai/gpt-4o-mini-tts-2025-12-15", TTS, flags=("-v", "coral"))

    assert [seen.json["voice"] for seen in r.requests] == ["coral", "coral"]
    assert warnings_of(r) == []


# --- references and lists --------------------------------------------------------------------------------------------


def test_a_reference_without_a_gateway_goes_where_the_lists_have_it(school: CommandLine) -> None:
    before = school("speak", TEXT, "-m", "alibaba/cosyvoice2-0.5b", "-n", "--json").json["routes"]
    keep_lists(school, "openrouter", "therouter", "arouter", "openai", "groq", "home")
    after = school("speak", TEXT, "-m", "alibaba/cosyvoice2-0.5b", "-n", "--json").json["routes"]
    shared = school("transcribe", school.folder / "talk.wav", "-m", "openai/whisper-1", "-n", "--json").json["routes"]
    nowhere = speak(school, "acme/unheard-of")

    assert before[0]["gateway"] == "openrouter"
    assert [route["gateway"] for route in after] == ["therouter"]
    assert [route["gateway"] for route in shared] == ["openrouter", "therouter", "arouter"]
    assert (nowhere.code, nowhere.requests) == (2, [])


def test_a_gateway_that_contradicts_the_reference_is_a_wrong_command(school: CommandLine) -> None:
    r = speak(school, TTS, flags=("-g", "groq"))

    assert (r.code, r.requests) == (2, [])
    assert "contradicts" in r.err


@pytest.mark.parametrize(
    ("ends", "note"),
    [
        ("2026-11-20", "ends on 2026-11-20"),
        ("2026-11-30T12:00:00Z", "ends on 2026-11-30"),
        ("2026-10-02", "ends on 2026-10-02"),
        ("2026-09-30", "ended on 2026-09-30"),
        ("2026-12-01", None),
        ("soon", None),
        (None, None),
        (20261015, None),
    ],
)
def test_a_model_near_its_end_is_told_of(school: CommandLine, ends: object, note: str | None) -> None:
    cards = listing({"id": "hexgrad/kokoro-82m", "expiration_date": ends})
    school.gateway.script(Garbage(cards, "application/json"), path="/models", method="GET")
    keep_lists(school, "openrouter")

    r = speak(school, KOKORO, flags=("--json",))

    assert r.code == 0, r.err
    assert r.json["warnings"] == ([f"{KOKORO} {note}"] if note else [])


def test_the_end_of_the_route_that_did_not_serve_is_not_in_the_receipt(school: CommandLine) -> None:
    cards = listing({"id": "hexgrad/kokoro-82m", "expiration_date": "2026-10-10"})
    school.gateway.script(Garbage(cards, "application/json"), path="/models", method="GET")
    keep_lists(school, "openrouter")
    school.gateway.always(Status(404), dialect="openrouter")

    r = speak(school, KOKORO, TTS, flags=("--json",))

    assert r.json["warnings"] == []


def test_a_model_that_is_gone_is_answered_with_its_neighbours(school: CommandLine) -> None:
    keep_lists(school, "openai")

    r = speak(school, "openai:tts-2")

    assert r.code == 6
    assert "openai:tts-1" in r.err


def test_samples_of_one_rate_are_the_same_from_both_ends_of_a_walk(school: CommandLine) -> None:
    school.gateway.always(Status(404), dialect="openrouter")

    r = speak(school, KOKORO, TTS, output="x.pcm")

    assert r.code == 0, r.err
    assert (school.folder / "x.pcm").read_bytes() == expected_pcm(TEXT)
