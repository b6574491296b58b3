"""Routes: substitute models, fallback, voices, references, and the reports of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audiocli.mock import CutAfter, Empty, Garbage, Html, Status, SubstituteModel, expected_pcm, find_closed_port
from tests.conftest import CommandLine, Result
from tests.gateway_contract import SPEECH, build_model_list, list_outputs, read_warnings
from tests.pyav_codec import expected_audio

TEXT = "Hello there, world."
KOKORO, TTS = "openrouter:hexgrad/kokoro-82m", "openai:tts-1"


def speak(cli: CommandLine, *models: str, flags: tuple[object, ...] = (), output: str = "x.mp3") -> Result:
    argv = [word for model in models for word in ("-m", model)]
    return cli("speak", TEXT, *argv, "-o", cli.directory / output, *map(str, flags))


def transcribe(cli: CommandLine, *models: str, flags: tuple[object, ...] = ()) -> Result:
    argv = [word for model in models for word in ("-m", model)]
    return cli("transcribe", cli.directory / "talk.wav", *argv, *map(str, flags))


def fetch_model_lists(cli: CommandLine, *gateways: str) -> None:
    for name in gateways:
        r = cli("models", "-g", name)
        assert r.code == 0, r.err


# --- substitute models -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [None, "acme/unheard-of"])
def test_substitute_speech_model_is_reported_everywhere(all_gateways_cli: CommandLine, model: str | None) -> None:
    all_gateways_cli.gateway.queue_faults(SubstituteModel(model, "acme"), SubstituteModel(model, "acme"))
    substitute = model or "alibaba/cosyvoice2-0.5b"

    text_run = speak(all_gateways_cli, "therouter:openai/tts-1", flags=("-v", "nova"))
    r = speak(all_gateways_cli, "therouter:openai/tts-1", flags=("-v", "nova", "--json"))

    assert (text_run.code, r.code) == (0, 0), text_run.err
    [warning] = read_warnings(text_run)
    assert substitute in warning and "openai/tts-1" in warning and "acme" in warning and "nova" in warning
    assert r.json["warnings"] == [warning]
    assert (r.json["model"], r.json["asked_model"], r.json["gateway"]) == (substitute, "openai/tts-1", "therouter")
    assert {entry["model"] for entry in (*text_run.ledger, *r.ledger)} == {substitute}


def test_substitute_transcription_model_is_reported_everywhere(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.queue_faults(SubstituteModel(), SubstituteModel())

    text_run, r = (
        transcribe(all_gateways_cli, "therouter:openai/whisper-1", flags=("--no-resume", *flags))
        for flags in ((), ("--json",))
    )

    assert (text_run.code, r.code) == (0, 0), text_run.err
    warning = read_warnings(text_run)[0]
    assert "alibaba/sensevoice-small" in warning and "siliconflow" in warning
    assert (r.json["model"], r.json["asked_model"]) == ("alibaba/sensevoice-small", "openai/whisper-1")
    assert r.json["warnings"] == [warning]
    assert r.ledger[0]["model"] == "alibaba/sensevoice-small"


def test_substitute_transcription_model_is_reported_once(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.queue_faults(SubstituteModel())

    r = transcribe(all_gateways_cli, "therouter:openai/whisper-1")

    assert len(read_warnings(r)) == 1, r.err


def test_requested_model_causes_no_warning(all_gateways_cli: CommandLine) -> None:
    r = speak(all_gateways_cli, "therouter:openai/tts-1", flags=("--json",))

    assert r.json["model"] == r.ledger[0]["model"] == "openai/tts-1"
    assert "asked_model" not in r.json
    assert r.json["warnings"] == []


def test_invalid_fallback_headers_are_ignored(all_gateways_cli: CommandLine) -> None:
    audio = expected_audio(TEXT, "mp3")
    for headers in (
        {"x-router-model": "x" * 3000, "x-router-fallback": "true"},
        {"x-router-fallback": "TRUE"},
        {"x-router-model": "", "x-router-fallback": "maybe"},
        {"x-router-model": "openai/tts-1", "x-router-fallback": "1"},
    ):
        all_gateways_cli.gateway.queue_faults(Status(200, body=audio, content_type="audio/mpeg", headers=headers))

        r = speak(all_gateways_cli, "therouter:openai/tts-1", flags=("--json",))

        assert r.code == 0, r.err
        assert r.json["model"] == "openai/tts-1"
        assert len(r.json["warnings"]) == (headers.get("x-router-fallback", "").lower() == "true")


def test_cost_of_substitute_model_can_be_looked_up(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.queue_faults(SubstituteModel())

    r = speak(all_gateways_cli, "therouter:openai/tts-1", flags=("--json",))
    all_gateways_cli("usage", "reconcile")

    assert r.json["cost_source"] in ("estimated", "unknown")
    assert all_gateways_cli.read_ledger_entries()[0]["cost_nanousd"] == all_gateways_cli.gateway.billed_nanousd


# --- fallback --------------------------------------------------------------------------------------------------------

FAILURES = {
    "not found": (Status(404), "404", "refused"),
    "no credit": (Status(402), "402", "refused"),
    "invalid key": (Status(401), "401", "refused"),
    "long Retry-After": (Status(429, headers={"Retry-After": "600"}), "429", "refused"),
    "server error": (Status(500), "500", "failed"),
    "empty": (Empty(), "empty", "failed"),
    "HTML": (Html(200), "HTML", "failed"),
    "not audio": (Garbage(), "not audio", "failed"),
    "timeout": (Status(524), "524", "unknown"),
    "truncated": (CutAfter(700), "", "unknown"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_next_gateway_speaks_when_the_first_fails(all_gateways_cli: CommandLine, failure: str) -> None:
    fault, reason, outcome = FAILURES[failure]
    all_gateways_cli.gateway.add_default_fault(fault, dialect="openrouter")

    r = speak(all_gateways_cli, KOKORO, TTS, flags=("--json",))

    assert r.code == 0, r.err
    assert (r.json["gateway"], r.json["model"]) == ("openai", "tts-1")
    [route] = r.json["routes"]
    assert (route["gateway"], route["model"]) == ("openrouter", "hexgrad/kokoro-82m")
    assert reason in route["reason"]
    assert [(entry["gateway"], entry["outcome"]) for entry in r.ledger] == [
        *[("openrouter", outcome)] * (3 if failure == "server error" else 1),
        ("openai", "ok"),
    ]
    assert (all_gateways_cli.directory / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")


def test_next_gateway_transcribes_when_the_first_is_unreachable(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.variables["GROQ_BASE_URL"] = f"http://127.0.0.1:{find_closed_port()}/v1"

    r = transcribe(all_gateways_cli, "groq:whisper-large-v3", "home:whisper-1", flags=("--json", "--debug"))

    assert r.code == 0, r.err
    assert r.json["gateway"] == "home"
    assert [route["gateway"] for route in r.json["routes"]] == ["groq"]
    assert [entry["outcome"] for entry in r.ledger] == ["unsent", "ok"]
    assert "groq:whisper-large-v3" in r.err and "next route" in r.err


def test_six_gateways_are_tried_in_order(all_gateways_cli: CommandLine) -> None:
    models = (
        *("openrouter:openai/whisper-1", "openai:whisper-1", "therouter:openai/whisper-1"),
        *("arouter:openai/whisper-1", "groq:whisper-large-v3", "home:whisper-1"),
    )
    for dialect in ("openrouter", "openai", "therouter", "arouter", "groq"):
        all_gateways_cli.gateway.add_default_fault(Status(400), dialect=dialect)

    r = transcribe(all_gateways_cli, *models, flags=("--json",))

    assert (r.code, r.json["gateway"], r.json["attempts"]) == (0, "home", 6), r.err
    assert [f"{route['gateway']}:{route['model']}" for route in r.json["routes"]] == list(models[:-1])
    assert [f"{entry['gateway']}:{entry['model']}" for entry in r.ledger] == list(models)


def test_debug_output_shows_each_decision(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.add_default_fault(Status(404), dialect="openrouter")

    r = speak(all_gateways_cli, KOKORO, TTS, flags=("--debug",))

    assert "debug: route openrouter:hexgrad/kokoro-82m" in r.err
    assert "note: openrouter:hexgrad/kokoro-82m: 404 Resource not found; trying openai:tts-1" in r.err
    assert "openai:tts-1 (alloy)" in r.err.splitlines()[-1]


@pytest.mark.parametrize("format", ["mp3", "wav"])
def test_pipe_with_written_bytes_stays_on_its_route_and_a_file_falls_back(
    all_gateways_cli: CommandLine, format: str
) -> None:
    all_gateways_cli.gateway.add_default_fault(CutAfter(20_000), dialect="openrouter")
    long_text = TEXT * 20

    to_pipe = all_gateways_cli("speak", long_text, "-m", KOKORO, "-m", TTS, "-f", format)
    to_file = all_gateways_cli(
        "speak", long_text, "-m", KOKORO, "-m", TTS, "-o", all_gateways_cli.directory / f"x.{format}", "--json"
    )

    assert (to_pipe.code, [seen.dialect for seen in to_pipe.requests]) == (7, ["openrouter"]), to_pipe.err
    assert len(to_pipe.out) > 1000
    assert (to_file.code, to_file.json["gateway"]) == (0, "openai"), to_file.err
    assert (all_gateways_cli.directory / f"x.{format}").read_bytes() == expected_audio(long_text, format)


def test_pipe_without_written_bytes_falls_back(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.add_default_fault(Garbage(), dialect="openrouter")

    r = all_gateways_cli("speak", TEXT, "-m", KOKORO, "-m", TTS)

    assert (r.code, r.out) == (0, expected_audio(TEXT, "mp3")), r.err


@pytest.mark.parametrize(("fault", "code"), [(Empty(), 9), (CutAfter(70), 7), (Status(524), 7)], ids=str)
def test_possibly_billed_request_falls_back_only_to_a_listed_model(
    all_gateways_cli: CommandLine, fault: Any, code: int
) -> None:
    fetch_model_lists(all_gateways_cli, "openrouter", "therouter", "arouter", "openai", "groq", "home")
    all_gateways_cli.gateway.add_default_fault(fault, dialect="openrouter")

    single = transcribe(all_gateways_cli, "openai/whisper-1")
    several = transcribe(all_gateways_cli, "openai/whisper-1", "groq:whisper-large-v3")

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
def test_exhausted_routes_are_listed_with_reasons(
    all_gateways_cli: CommandLine, faults: tuple[Any, Any], code: int, outcomes: list[str]
) -> None:
    all_gateways_cli.gateway.add_default_fault(faults[0], dialect="openrouter")
    all_gateways_cli.gateway.add_default_fault(faults[1], dialect="openai")

    r = speak(all_gateways_cli, KOKORO, TTS, flags=("--json",))

    error = r.err_json["error"]
    assert (r.code, error["exit"], error["code"]) == (code, code, "routes_exhausted"), r.err
    assert [(route["gateway"], route["model"]) for route in error["routes"]] == [
        ("openrouter", "hexgrad/kokoro-82m"),
        ("openai", "tts-1"),
    ]
    assert all(route["reason"] in error["message"] and route["reason"] for route in error["routes"])
    assert [entry["outcome"] for entry in r.ledger] == outcomes
    assert list_outputs(all_gateways_cli.directory) == []


def test_route_without_key_does_not_decide_the_exit_code(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.variables["OPENROUTER_API_KEY"] = ""
    all_gateways_cli.gateway.add_default_fault(Status(402))

    r = speak(all_gateways_cli, KOKORO, TTS, flags=("--json",))

    assert r.code == 5, r.err
    assert r.err_json["error"]["routes"][0]["reason"] == "no API key for openrouter"


# --- voices ----------------------------------------------------------------------------------------------------------


def get_sent_voice(r: Result) -> str:
    return str(r.requests[-1].json.get("voice"))


def test_configured_voice_replaces_an_unknown_voice(all_gateways_cli: CommandLine) -> None:
    fetch_model_lists(all_gateways_cli, "openrouter")
    path = Path(all_gateways_cli.variables["XDG_CONFIG_HOME"]) / "audiocli" / "config.toml"
    path.write_text(path.read_text() + f'\n[voices]\n"{KOKORO}" = "am_adam"\n')
    all_gateways_cli.gateway.add_default_fault(Status(404), dialect="openai")

    r = speak(all_gateways_cli, TTS, KOKORO, flags=("-v", "nova", "--json"))

    assert (r.code, r.json["voice"], get_sent_voice(r)) == (0, "am_adam", "am_adam"), r.err
    assert r.json["warnings"] == [f"{KOKORO} has no voice 'nova'; using 'am_adam'"]


@pytest.mark.parametrize("configured", ["", '\n[voices]\n"openrouter:hexgrad/kokoro-82m" = "gone_away"\n'])
def test_first_listed_voice_replaces_an_unknown_voice(all_gateways_cli: CommandLine, configured: str) -> None:
    fetch_model_lists(all_gateways_cli, "openrouter")
    path = Path(all_gateways_cli.variables["XDG_CONFIG_HOME"]) / "audiocli" / "config.toml"
    path.write_text(path.read_text() + configured)
    all_gateways_cli.gateway.add_default_fault(Status(404), dialect="openai")

    r = speak(all_gateways_cli, TTS, KOKORO, flags=("-v", "nova"))

    assert (r.code, get_sent_voice(r)) == (0, "af_heart"), r.err
    assert read_warnings(r) == [f"{KOKORO} has no voice 'nova'; using 'af_heart'"]


def test_unknown_voice_of_single_model_is_reported(all_gateways_cli: CommandLine) -> None:
    unlisted = speak(all_gateways_cli, KOKORO, flags=("-v", "nova"))
    fetch_model_lists(all_gateways_cli, "openrouter")
    listed = speak(all_gateways_cli, KOKORO, flags=("-v", "nova"))

    assert unlisted.code == 6
    assert (listed.code, listed.requests) == (2, [])
    assert "unknown voice 'nova'" in listed.err


def test_model_that_requires_a_voice_uses_its_first(all_gateways_cli: CommandLine) -> None:
    fetch_model_lists(all_gateways_cli, "openrouter")

    r = speak(all_gateways_cli, "openrouter:mistralai/voxtral-mini-tts-2603")

    assert (r.code, get_sent_voice(r)) == (0, "en_paul_neutral"), r.err
    assert "requires a voice; using 'en_paul_neutral'" in r.err


def test_voice_available_on_every_route_is_unchanged(all_gateways_cli: CommandLine) -> None:
    fetch_model_lists(all_gateways_cli, "openrouter", "openai")
    all_gateways_cli.gateway.add_default_fault(Status(404), dialect="openrouter")

    r = speak(all_gateways_cli, "openrouter:openai/gpt-4o-mini-tts-2025-12-15", TTS, flags=("-v", "coral"))

    assert [seen.json["voice"] for seen in r.requests] == ["coral", "coral"]
    assert read_warnings(r) == []


# --- references and lists --------------------------------------------------------------------------------------------


def test_reference_without_gateway_uses_the_cached_lists(all_gateways_cli: CommandLine) -> None:
    before = all_gateways_cli("speak", TEXT, "-m", "alibaba/cosyvoice2-0.5b", "-n", "--json").json["routes"]
    fetch_model_lists(all_gateways_cli, "openrouter", "therouter", "arouter", "openai", "groq", "home")
    after = all_gateways_cli("speak", TEXT, "-m", "alibaba/cosyvoice2-0.5b", "-n", "--json").json["routes"]
    shared = all_gateways_cli(
        "transcribe", all_gateways_cli.directory / "talk.wav", "-m", "openai/whisper-1", "-n", "--json"
    ).json["routes"]
    unknown = speak(all_gateways_cli, "acme/unheard-of")

    assert before[0]["gateway"] == "openrouter"
    assert [route["gateway"] for route in after] == ["therouter"]
    assert [route["gateway"] for route in shared] == ["openrouter", "therouter", "arouter"]
    assert (unknown.code, unknown.requests) == (2, [])


def test_gateway_that_contradicts_the_reference_is_a_usage_error(all_gateways_cli: CommandLine) -> None:
    r = speak(all_gateways_cli, TTS, flags=("-g", "groq"))

    assert (r.code, r.requests) == (2, [])
    assert "contradicts" in r.err


@pytest.mark.parametrize(
    ("shutdown_date", "expected_warning"),
    [
        ("2026-11-20", "shuts down on 2026-11-20"),
        ("2026-11-30T12:00:00Z", "shuts down on 2026-11-30"),
        ("2026-10-02", "shuts down on 2026-10-02"),
        ("2026-09-30", "was shut down on 2026-09-30"),
        ("2026-12-01", None),
        ("soon", None),
        (None, None),
        (20261015, None),
    ],
)
def test_model_close_to_its_shutdown_causes_a_warning(
    all_gateways_cli: CommandLine, shutdown_date: object, expected_warning: str | None
) -> None:
    model_list = build_model_list({"id": "hexgrad/kokoro-82m", "expiration_date": shutdown_date})
    all_gateways_cli.gateway.queue_faults(Garbage(model_list, "application/json"), path="/models", method="GET")
    fetch_model_lists(all_gateways_cli, "openrouter")

    r = speak(all_gateways_cli, KOKORO, flags=("--json",))

    assert r.code == 0, r.err
    assert r.json["warnings"] == ([f"{KOKORO} {expected_warning}"] if expected_warning else [])


def test_shutdown_warning_of_failed_route_is_in_the_result(all_gateways_cli: CommandLine) -> None:
    model_list = build_model_list({"id": "hexgrad/kokoro-82m", "expiration_date": "2026-10-10"})
    all_gateways_cli.gateway.queue_faults(Garbage(model_list, "application/json"), path="/models", method="GET")
    fetch_model_lists(all_gateways_cli, "openrouter")
    all_gateways_cli.gateway.add_default_fault(Status(404), dialect="openrouter")

    r = speak(all_gateways_cli, KOKORO, TTS, flags=("--json",))

    assert r.json["warnings"] == ["openrouter:hexgrad/kokoro-82m shuts down on 2026-10-10"]


def test_unavailable_model_error_suggests_similar_models(all_gateways_cli: CommandLine) -> None:
    fetch_model_lists(all_gateways_cli, "openai")

    r = speak(all_gateways_cli, "openai:tts-2")

    assert r.code == 6
    assert "openai:tts-1" in r.err


def test_pcm_after_fallback_has_one_sample_rate(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.add_default_fault(Status(404), dialect="openrouter")

    r = speak(all_gateways_cli, KOKORO, TTS, output="x.pcm")

    assert r.code == 0, r.err
    assert (all_gateways_cli.directory / "x.pcm").read_bytes() == expected_pcm(TEXT)


# --- routes for diarization ------------------------------------------------------------------------------------------

DIARIZE_MODEL = "openai:gpt-4o-transcribe-diarize"


@pytest.mark.parametrize(
    "flags",
    [
        ("-f", "txt"),
        ("-f", "html"),
        ("-f", "html,vtt"),
        ("-f", "md", "--with", "times,speakers,paragraphs"),
        ("--json",),
    ],
    ids=" ".join,
)
def test_default_model_for_diarization_is_one_that_diarizes(
    all_gateways_cli: CommandLine, flags: tuple[str, ...]
) -> None:
    outputs = () if "--json" in flags else ("-O", all_gateways_cli.directory / "out")

    r = transcribe(all_gateways_cli, flags=("--diarize", *flags, *outputs))

    assert r.code == 0, r.err
    assert [request.model for request in r.posts] == [DIARIZE_MODEL.partition(":")[2]]
    assert "timed by chunk" not in r.err
    if outputs:
        written = [path.read_text() for path in (all_gateways_cli.directory / "out").iterdir()]
        assert all("A" in text for text in written)


def test_diarization_without_a_gateway_that_diarizes_is_refused_before_sending(audiocli: CommandLine) -> None:
    (audiocli.directory / "talk.wav").write_bytes(SPEECH)

    for flags in ((), ("-g", "openrouter"), ("-f", "html"), ("-f", "vtt")):
        r = transcribe(audiocli, flags=("--diarize", *flags))

        assert (r.code, r.requests, r.ledger) == (2, [], []), r.err
        assert "error: openrouter:openai/whisper-large-v3 does not support diarization\n" in r.err
        assert f"hint: use -m openrouter:deepgram/nova-3, or {DIARIZE_MODEL}" in r.err


@pytest.mark.parametrize("is_configured", [False, True])
def test_named_model_that_refuses_diarization_is_not_replaced(
    all_gateways_cli: CommandLine, is_configured: bool
) -> None:
    model = "openrouter:openai/whisper-large-v3"
    if is_configured:
        all_gateways_cli.write_config(f'[transcribe]\nmodels = ["{model}"]\n')

    r = transcribe(all_gateways_cli, *(() if is_configured else (model,)), flags=("--diarize", "-f", "html"))

    assert (r.code, [request.model for request in r.posts]) == (6, [model.partition(":")[2]]), r.err
    assert "400 diarize needs" in r.err
    assert f"hint: use -m openrouter:deepgram/nova-3, or {DIARIZE_MODEL}" in r.err


def test_hint_about_diarization_does_not_name_the_refused_model(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.queue_faults(Status(400, message="diarization is not available"))

    r = transcribe(all_gateways_cli, DIARIZE_MODEL, flags=("--diarize",))

    assert r.code == 6
    assert r.err.endswith("hint: use -m openrouter:deepgram/nova-3\n")


def test_other_refusal_of_a_diarized_request_has_no_hint(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.queue_faults(Status(400, message="Invalid language 'xx'"))

    r = transcribe(all_gateways_cli, DIARIZE_MODEL, flags=("--diarize",))

    assert (r.code, "hint" in r.err) == (6, False), r.err
