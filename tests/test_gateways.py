"""The gateway contract: keys are protected, outputs are the same, and unsupported options are reported."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from audiocli.mock import MockTranscript, Redirect, Status, SubstituteModel
from tests.conftest import CommandLine, Result
from tests.gateway_contract import (
    GATEWAY_PARAMS,
    GATEWAYS,
    GATEWAYS_BY_NAME,
    SPEECH,
    GatewayUnderTest,
    build_wav,
    read_warnings,
)

FORMATS = ("txt", "srt", "vtt", "tsv")
VOLATILE = ("gateway", "model", "generation_ids", "cost_usd", "cost_source", "first_byte_s", "elapsed_s", "outputs")


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    path.write_bytes(SPEECH)
    return path


def speak(cli: CommandLine, target: GatewayUnderTest, *flags: object, text: str = "Hello there, world.") -> Result:
    return cli(
        "speak", text, "-m", f"{target.name}:{target.speech_model}", "-o", cli.directory / "x.mp3", *map(str, flags)
    )


def transcribe(cli: CommandLine, target: GatewayUnderTest, *flags: object) -> Result:
    return cli(
        "transcribe", cli.directory / "talk.wav", "-m", f"{target.name}:{target.transcription_model}", *map(str, flags)
    )


# --- keys ------------------------------------------------------------------------------------------------------------


def read_all_files(cli: CommandLine) -> bytes:
    """Return the content of all files of the fixture: ledger with its journal, caches and rescued files."""
    if cli.ledger_path.is_file():
        sqlite3.connect(cli.ledger_path).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    return b"\n".join(path.read_bytes() for path in sorted(cli.directory.rglob("*")) if path.is_file())


def assert_key_is_in_header_only(cli: CommandLine, target: GatewayUnderTest, *results: Result) -> None:
    requests = [request for result in results for request in result.requests]
    assert requests
    assert {request.headers.get("authorization", "") for request in requests} <= {f"Bearer {target.key}", ""}
    for request in requests:
        assert "key is in" not in " ".join(request.problems)
        assert target.key not in f"{request.path} {request.query}"
        assert target.key.encode() not in request.body_prefix
        assert [name for name, value in request.headers.items() if target.key in value] in (["authorization"], [])
    for r in results:
        assert target.key not in r.err + r.out.decode("latin-1")
        assert target.key not in json.dumps(r.ledger)
    assert target.key.encode() not in read_all_files(cli)


@pytest.mark.parametrize("target", GATEWAY_PARAMS)
def test_key_is_sent_in_authorization_header_only(
    all_gateways_cli: CommandLine, talk: Path, target: GatewayUnderTest
) -> None:
    speech, transcription = (
        speak(all_gateways_cli, target, "--debug"),
        transcribe(all_gateways_cli, target, "--debug", "--json"),
    )
    models = all_gateways_cli("models", "-g", target.name, "--debug", "--json")

    assert (speech.code, transcription.code, models.code) == (0, 0, 0), speech.err + transcription.err + models.err
    assert speech.requests[0].headers["authorization"] == f"Bearer {target.key}"
    assert_key_is_in_header_only(all_gateways_cli, target, speech, transcription, models)


ECHOES = {
    "in the message": lambda key: Status(401, body={"error": {"message": f"Incorrect API key provided: {key}."}}),
    "in plain text": lambda key: Status(400, body=f"denied for {key}", headers={"x-request-id": key}),
    "in an HTML page": lambda key: Status(502, body=f"<html><title>no {key}</title></html>", content_type="text/html"),
    "in an error of a provider": lambda key: Status(
        400, body={"error": {"code": 400, "message": "x", "metadata": {"raw": f"Bearer {key} refused"}}}
    ),
    "in a response with status 200": lambda key: Status(200, body={"error": {"code": 400, "message": f"key={key}"}}),
    "in the request IDs": lambda key: Status(
        422,
        body={"detail": [{"loc": ["header", key], "msg": "bad"}]},
        headers={"x-generation-id": key, "x-router-request-id": key},
    ),
}


@pytest.mark.parametrize("location", ECHOES)
@pytest.mark.parametrize("target", GATEWAY_PARAMS)
def test_key_repeated_in_error_is_redacted(
    all_gateways_cli: CommandLine, talk: Path, target: GatewayUnderTest, location: str
) -> None:
    all_gateways_cli.gateway.add_default_fault(ECHOES[location](target.key))

    r = (
        transcribe(all_gateways_cli, target, "--json")
        if list(ECHOES).index(location) % 2
        else speak(all_gateways_cli, target)
    )

    assert r.code != 0
    assert_key_is_in_header_only(all_gateways_cli, target, r)


@pytest.mark.parametrize("target", GATEWAYS, ids=lambda target: target.name)
def test_key_repeated_in_error_is_redacted_in_traceback(
    all_gateways_cli: CommandLine, target: GatewayUnderTest
) -> None:
    all_gateways_cli.gateway.add_default_fault(ECHOES["in the message"](target.key))

    r = speak(all_gateways_cli, target, "--debug")

    assert "Traceback" in r.err
    assert_key_is_in_header_only(all_gateways_cli, target, r)


@pytest.mark.parametrize("target", GATEWAYS, ids=lambda target: target.name)
@pytest.mark.parametrize("command", ["models", "voices"])
def test_key_repeated_in_model_list_is_redacted(
    all_gateways_cli: CommandLine, target: GatewayUnderTest, command: str
) -> None:
    all_gateways_cli.gateway.add_default_fault(ECHOES["in the message"](target.key), method="GET")

    r = all_gateways_cli(command, "-g", target.name)

    assert r.code != 0
    assert_key_is_in_header_only(all_gateways_cli, target, r)


def test_key_repeated_in_cost_lookup_is_redacted(all_gateways_cli: CommandLine) -> None:
    target = GATEWAYS_BY_NAME["openrouter"]._replace(key="open-sesame-4712")
    assert speak(all_gateways_cli, target).code == 0
    all_gateways_cli.variables["OPENROUTER_API_KEY"] = target.key
    all_gateways_cli.gateway.add_default_fault(ECHOES["in the message"](target.key), method="GET")

    r = all_gateways_cli("usage", "reconcile")

    assert len(r.requests) == 1
    assert_key_is_in_header_only(all_gateways_cli, target, r)


def test_key_truncated_with_long_message_is_redacted(all_gateways_cli: CommandLine) -> None:
    target = GATEWAYS_BY_NAME["home"]
    for filler in (384, 390, 396):
        all_gateways_cli.gateway.queue_faults(Status(400, body={"error": {"message": "x" * filler + target.key}}))

        r = speak(all_gateways_cli, target)

        assert target.key[:6] not in r.err, filler


# --- same outputs ----------------------------------------------------------------------------------------------------

TRANSCRIPTS = {
    "a sentence": MockTranscript(),
    "several sentences": MockTranscript(
        "One fish. Two fish! Red fish, blue fish? This one has a little star, this one a car."
    ),
    "another script": MockTranscript(
        "今日は天気がいいですね。散歩に行きましょう。 明日は雨です。", language="japanese", language_code="ja"
    ),
    "signs": MockTranscript("a --> b & <c> {\\an8} <i>d</i> … “e” 👋🏽. Tom & Jerry."),
}


@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_outputs_and_json_are_same_for_every_gateway(
    all_gateways_cli: CommandLine, talk: Path, transcript: str
) -> None:
    all_gateways_cli.gateway.set_transcript(TRANSCRIPTS[transcript])
    files: dict[str, list[bytes]] = {}
    results: dict[str, dict[str, Any]] = {}
    for target in GATEWAYS:
        directory = all_gateways_cli.directory / target.name

        r = transcribe(all_gateways_cli, target, "-O", directory, "-f", ",".join(FORMATS), "--json")

        assert r.code == 0, r.err
        files[target.name] = [(directory / f"talk.{extension}").read_bytes() for extension in FORMATS]
        results[target.name] = {name: value for name, value in r.json.items() if name not in VOLATILE}

    assert [name for name in files if files[name] != files["openai"]] == []
    assert [name for name in results if results[name] != results["openai"]] == []
    assert all(files["openai"])
    assert not [problem for problem in all_gateways_cli.gateway.problems if "not a documented field" not in problem]


def test_plain_text_is_same_for_every_gateway(all_gateways_cli: CommandLine, talk: Path) -> None:
    all_gateways_cli.gateway.set_transcript("  Two words.\n")

    assert {transcribe(all_gateways_cli, target).out for target in GATEWAYS} == {b"Two words.\n"}


def test_word_times_are_same_for_every_gateway(all_gateways_cli: CommandLine, talk: Path) -> None:
    words = {}
    for target in GATEWAYS:
        r = transcribe(all_gateways_cli, target, "--timestamps", "word", "--json")

        assert r.code == 0, r.err
        words[target.name] = [(w["start_s"], w["end_s"], w["word"].strip(".")) for w in r.json["words"]]

    assert [name for name in words if words[name] != words["openai"]] == []
    assert len(words["openai"]) == 9


SENSEVOICE = GatewayUnderTest("therouter", "therouter", "", "alibaba/sensevoice-small", "")


@pytest.mark.parametrize("format", ["txt", "srt", "vtt", "tsv", "json"])
@pytest.mark.parametrize("text", ["Hello there.", "I am glad. You are not. 1 < 2 | 3 > 2."])
def test_sensevoice_tags_are_removed_from_transcripts(
    all_gateways_cli: CommandLine, talk: Path, format: str, text: str
) -> None:
    all_gateways_cli.gateway.set_transcript(text)

    tagged = transcribe(all_gateways_cli, SENSEVOICE, "-f", format)
    bare = transcribe(all_gateways_cli, GATEWAYS_BY_NAME["therouter"], "-f", format)

    assert tagged.code == 0, tagged.err
    assert "<|" not in tagged.text
    assert tagged.out == bare.out if format != "json" else tagged.json["segments"] == bare.json["segments"]


def test_verbose_json_contains_sensevoice_tags_unchanged(all_gateways_cli: CommandLine, talk: Path) -> None:
    r = transcribe(all_gateways_cli, SENSEVOICE, "-f", "verbose_json")

    assert r.json["text"].startswith("<|HAPPY|><|Speech|>")


@pytest.mark.parametrize("format", ["txt", "srt"])
def test_tags_of_substituted_sensevoice_are_removed(all_gateways_cli: CommandLine, talk: Path, format: str) -> None:
    all_gateways_cli.gateway.queue_faults(SubstituteModel())

    r = transcribe(all_gateways_cli, GATEWAYS_BY_NAME["therouter"], "-f", format)

    assert r.code == 0, r.err
    assert "<|" not in r.text


# --- unsupported options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--translate", "-g", "openrouter"), "arouter:"),
        (("--translate", "-g", "therouter"), "arouter:"),
        (("--translate", "-m", "openrouter:openai/whisper-1"), "openai:whisper-1"),
        (("--translate", "-m", "therouter:openai/whisper-1"), "groq:whisper-large-v3"),
        (("--translate", "-m", "openai:gpt-4o-transcribe"), "openai:whisper-1"),
        (("--translate", "-m", "groq:whisper-large-v3-turbo"), "groq:whisper-large-v3"),
        (("--diarize", "-m", "openai:whisper-1"), "gpt-4o-transcribe-diarize"),
        (("--diarize", "-g", "therouter"), "gpt-4o-transcribe-diarize"),
        (("--diarize", "-g", "arouter"), "gpt-4o-transcribe-diarize"),
        (("--diarize", "-g", "groq"), "gpt-4o-transcribe-diarize"),
        (("--diarize", "-m", "home:whisper-1"), "gpt-4o-transcribe-diarize"),
        (("--diarize", "-g", "openai", "--timestamps", "word"), "times"),
        (("-f", "srt", "--strict-timestamps", "-m", "openai:gpt-4o-transcribe"), "does not return timestamps"),
        (
            ("-f", "vtt", "--strict-timestamps", "-m", "openrouter:openai/gpt-4o-transcribe"),
            "does not return timestamps",
        ),
        (("--speaker", "Ann", "--speaker", "Bob=talk.wav", "--diarize"), "for every speaker or for none"),
        (("--speaker", "A", "--speaker", "B", "--speaker", "C", "--speaker", "D", "--speaker", "E"), "at most 4"),
        (("--speaker", "Ann=nowhere.wav", "--diarize"), "nowhere.wav"),
        (("--option", "model=x"), "audiocli sets this field itself"),
        (("--option", "timestamp_granularities[]=word"), "audiocli sets this field itself"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_unsupported_transcription_is_refused_before_sending(
    all_gateways_cli: CommandLine, talk: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(talk.parent)

    r = all_gateways_cli("transcribe", "talk.wav", *argv)

    assert (r.code, r.requests, r.ledger, r.out) == (2, [], [], b""), r.err
    assert message in r.err


@pytest.mark.parametrize(
    ("model", "flags", "warning", "absent"),
    [
        ("openrouter:openai/whisper-1", ("--stream",), "--stream has no effect", "stream"),
        ("therouter:openai/whisper-1", ("--stream",), "--stream has no effect", "stream"),
        ("arouter:openai/whisper-1", ("--stream",), "--stream has no effect", "stream"),
        ("groq:whisper-large-v3", ("--stream",), "--stream has no effect", "stream"),
        ("openai:whisper-1", ("--stream",), "--stream has no effect", "stream"),
        ("openrouter:deepgram/nova-3", ("-p", "Names"), "--prompt has no effect", "prompt"),
        ("openai:gpt-4o-transcribe-diarize", ("--diarize", "-p", "Names"), "--prompt has no effect", "prompt"),
        ("groq:whisper-large-v3", ("-p", "x" * 897), "896 characters", None),
        ("openai:whisper-1", ("--translate", "-l", "de"), "--language has no effect", "language"),
        (
            "openai:gpt-4o-transcribe",
            ("--timestamps", "segment"),
            "does not return timestamps",
            "timestamp_granularities[]",
        ),
        ("openai:whisper-1", ("--speaker", "Ann"), "--speaker has no effect", "known_speaker_names[]"),
        ("openrouter:openai/whisper-1", ("--speaker", "Ann"), "--speaker has no effect", "known_speaker_names[]"),
        ("openai:whisper-1", ("--keyterms", "Pelé"), "--keyterms has no effect", "keywords[]"),
        ("groq:whisper-large-v3", ("--keyterms", "Pelé"), "--keyterms has no effect", "keywords[]"),
        ("openrouter:openai/whisper-1", ("--option", "seed=1"), "--option seed has no effect", "seed"),
        ("openrouter:openai/whisper-1", ("--option", 'order=["azure"]'), "does not apply routing keys", "provider"),
        ("openrouter:openai/whisper-1", ("--option", "max_price.audio=1"), "does not apply routing keys", "provider"),
    ],
)
def test_transcription_option_without_effect_is_warned_of_and_not_sent(
    all_gateways_cli: CommandLine, talk: Path, model: str, flags: tuple[str, ...], warning: str, absent: str | None
) -> None:
    r = all_gateways_cli("transcribe", talk, "-m", model, *flags)

    assert r.code == 0, r.err
    assert len([line for line in read_warnings(r) if warning in line]) == 1, r.err
    sent = r.requests[0]
    assert absent is None or (absent not in (sent.json or {}) and sent.get_form_values(absent) == [])
    assert not [problem for problem in sent.problems if "ignored" in problem]


@pytest.mark.parametrize(
    ("model", "flags", "warning", "absent"),
    [
        ("openai:tts-1", ("-i", "Calm"), "--instructions has no effect", "instructions"),
        ("groq:canopylabs/orpheus-v1-english", ("-i", "Calm"), "--instructions has no effect", "instructions"),
        ("arouter:openai/tts-1", ("-i", "Calm"), "--instructions has no effect", "instructions"),
        ("therouter:openai/tts-1", ("-i", "Calm"), "--instructions has no effect", "instructions"),
        ("therouter:alibaba/cosyvoice2-0.5b", ("-i", "Calm"), "--instructions has no effect", "instructions"),
        ("openrouter:hexgrad/kokoro-82m", ("-i", "Calm"), "--instructions has no effect", "instructions"),
        ("openrouter:hexgrad/kokoro-82m", ("-x", "2"), "--speed may have no effect", None),
        ("therouter:alibaba/cosyvoice2-0.5b", ("-x", "2"), "--speed has no effect", None),
        ("therouter:fishaudio/fish-speech-1.5", ("-v", "Kore"), "has no voice 'Kore'", None),
        ("openrouter:hexgrad/kokoro-82m", ("--option", "pitch=1"), "--option pitch has no effect", "pitch"),
        ("openrouter:hexgrad/kokoro-82m", ("--option", "allow_fallbacks=false"), "routing keys", "provider"),
        ("openrouter:hexgrad/kokoro-82m", ("--option", 'provider.only=["x"]'), "routing keys", "provider"),
        ("openrouter:hexgrad/kokoro-82m", ("--option", 'models=["a/b"]'), "routing keys", "models"),
    ],
)
def test_speech_option_without_effect_is_warned_of_and_not_sent(
    all_gateways_cli: CommandLine, tmp_path: Path, model: str, flags: tuple[str, ...], warning: str, absent: str | None
) -> None:
    r = all_gateways_cli("speak", "Hello there", "-m", model, "-o", tmp_path / "x.mp3", *flags)

    assert r.code == 0, r.err
    assert len([line for line in read_warnings(r) if warning in line]) == 1, r.err
    assert absent is None or absent not in r.requests[0].json


@pytest.mark.parametrize(
    ("command", "model", "flags"),
    [
        ("transcribe", "openrouter:deepgram/nova-3", ("-p", "Names", "--stream")),
        ("transcribe", "arouter:openai/whisper-1", ("--keyterms", "Pelé", "--stream")),
        ("speak", "therouter:alibaba/cosyvoice2-0.5b", ("-v", "Kore", "-x", "2")),
        ("speak", "openrouter:hexgrad/kokoro-82m", ("--option", "order=x", "-i", "Calm")),
    ],
)
def test_option_warnings_are_in_dry_run_and_json(
    all_gateways_cli: CommandLine, talk: Path, command: str, model: str, flags: tuple[str, ...]
) -> None:
    argv = (command, talk if command == "transcribe" else "Hello there", "-m", model, "-o", talk.parent / "x", *flags)

    normal, dry_run, with_json = (
        all_gateways_cli(*argv),
        all_gateways_cli(*argv, "-n", "--json"),
        all_gateways_cli(*argv, "--json"),
    )

    warnings = [warning for warning in read_warnings(normal) if "will hold" not in warning]
    assert (dry_run.code, dry_run.requests, len(warnings)) == (0, [], 2), normal.err
    assert set(warnings) <= set(dry_run.json["warnings"])
    assert set(warnings) <= set(with_json.json["warnings"])


@pytest.mark.parametrize("flag", [("--translate",), ("--diarize",)])
def test_route_without_required_feature_is_skipped(
    all_gateways_cli: CommandLine, talk: Path, flag: tuple[str, ...]
) -> None:
    supporting = {"--translate": "openai:whisper-1", "--diarize": "openai:gpt-4o-transcribe-diarize"}[flag[0]]

    r = all_gateways_cli("transcribe", talk, *flag, "-m", "therouter:openai/whisper-1", "-m", supporting, "--json")

    assert r.code == 0, r.err
    assert f"{r.json['gateway']}:{r.json['model']}" == supporting
    assert [route["gateway"] for route in r.json["routes"]] == ["therouter"]
    assert [request.dialect for request in r.requests] == ["openai"]


def test_translation_is_sent_to_translations_endpoint(all_gateways_cli: CommandLine, talk: Path) -> None:
    for name in ("openai", "arouter", "groq", "home"):
        r = transcribe(all_gateways_cli, GATEWAYS_BY_NAME[name], "--translate", "-f", "srt")

        assert r.code == 0, r.err
        assert [request.path.rpartition("/")[2] for request in r.requests] == ["translations"]
        assert r.requests[0].problems == []


@pytest.mark.parametrize(
    ("model", "character", "limit", "unit"),
    [
        ("openai:tts-1", "x", 4096, "characters"),
        ("openai:gpt-4o-mini-tts", "語", 3999, "bytes"),
        ("openrouter:openai/gpt-4o-mini-tts-2025-12-15", "é", 4000, "bytes"),
        ("therouter:openai/tts-1", "語", 4096, "characters"),
        ("arouter:openai/tts-1", "x", 4096, "characters"),
        ("groq:canopylabs/orpheus-v1-english", "語", 200, "characters"),
        ("therouter:alibaba/cosyvoice2-0.5b", "語", 999, "bytes"),
        ("therouter:fishaudio/fish-speech-1.5", "𝒂", 1000, "bytes"),
        ("therouter:indexteam/indextts-2", "x", 1000, "bytes"),
    ],
)
def test_text_limit_uses_unit_of_gateway(
    all_gateways_cli: CommandLine, tmp_path: Path, model: str, character: str, limit: int, unit: str
) -> None:
    def size(text: str) -> int:
        return len(text.encode() if unit == "bytes" else text)

    longest_text = character * (limit // size(character))

    within_limit = all_gateways_cli("speak", longest_text, "-m", model, "-o", tmp_path / "x.wav", "-n", "--json")
    above_limit = all_gateways_cli("speak", longest_text + character, "-m", model, "-o", tmp_path / "x.wav")

    assert (within_limit.code, within_limit.json["requests"]) == (0, 1), within_limit.err
    # Refused before sending, or split: never sent as one request.
    assert [size(request.json["input"]) for request in above_limit.posts if size(request.json["input"]) > limit] == []
    assert above_limit.code == (0 if above_limit.posts else 2), above_limit.err
    assert above_limit.posts or f"{size(longest_text + character):,} {unit}" in above_limit.err


def test_body_over_ten_megabytes_is_not_sent_to_arouter(all_gateways_cli: CommandLine, tmp_path: Path) -> None:
    large = tmp_path / "large.wav"
    large.write_bytes(build_wav(SPEECH[44:] * 84))

    single_route = all_gateways_cli("transcribe", large, "-m", "arouter:openai/whisper-1")
    with_fallback = all_gateways_cli(
        "transcribe", large, "--no-resume", "-m", "arouter:openai/whisper-1", "-m", "groq:whisper-large-v3"
    )

    # Refused before sending, or split: never sent as one request.
    assert single_route.code == (0 if single_route.requests else 2), single_route.err
    assert (with_fallback.code, len(with_fallback.requests) > 0) == (0, True), with_fallback.err
    sent = [*single_route.requests, *with_fallback.requests]
    assert [
        request.size_bytes for request in sent if request.dialect == "arouter" and request.size_bytes > 10_485_760
    ] == []


# --- redirects -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", GATEWAY_PARAMS)
def test_redirect_is_not_followed(all_gateways_cli: CommandLine, target: GatewayUnderTest) -> None:
    other_gateway = "groq" if target.name != "groq" else "openai"
    all_gateways_cli.gateway.add_default_fault(
        Redirect(all_gateways_cli.gateway.base_url(other_gateway) + "/audio/speech", 307)
    )

    r = speak(all_gateways_cli, target)

    assert (r.code, [request.dialect for request in r.requests]) == (6, [target.dialect]), r.err
    assert_key_is_in_header_only(all_gateways_cli, target, r)
