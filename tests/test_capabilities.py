"""Cached refusals: a feature that a model refused is not requested again, and other errors are not cached."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from audiocli.core.capabilities import COMBINATION_TTL_S
from audiocli.mock import DEFAULT_TRANSCRIPT, Status, detect_format
from tests.conftest import CommandLine, Result
from tests.gateway_contract import SPEECH, list_outputs, read_warnings
from tests.pyav_codec import encode

MONTH_S = 30 * 24 * 3600


def transcribe(cli: CommandLine, model: str, *flags: object, file: str = "talk.wav") -> Result:
    """Transcribe a recording, without the transcript that an earlier run stored."""
    return cli("transcribe", cli.directory / file, "-m", model, "--no-resume", *map(str, flags))


def list_outcomes(r: Result) -> list[str]:
    return [entry["outcome"] for entry in r.ledger]


def list_capability_files(cli: CommandLine) -> list[Path]:
    directory = Path(cli.variables["XDG_CACHE_HOME"]) / "audiocli" / "lessons"
    return sorted(directory.iterdir()) if directory.is_dir() else []


def read_refused_features(cli: CommandLine) -> set[str]:
    return {feature for path in list_capability_files(cli) for feature in json.loads(path.read_bytes())}


def build_refusal(message: str, status: int = 400) -> Status:
    return Status(status, body={"error": {"code": status, "message": message}})


NO_VERBOSE = build_refusal("openai/whisper-1 does not support response_format verbose_json")
NO_WORDS = build_refusal("timestamp_granularities: word is not supported by this model")


# --- timestamps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["openrouter:openai/whisper-1", "openai:whisper-1", "home:whisper-1"])
def test_optional_timestamps_are_dropped_after_first_refusal(all_gateways_cli: CommandLine, model: str) -> None:
    all_gateways_cli.gateway.queue_faults(NO_VERBOSE)

    first, second = transcribe(all_gateways_cli, model, "-f", "json"), transcribe(all_gateways_cli, model, "-f", "json")

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert (list_outcomes(first), list_outcomes(second)) == (["refused", "ok"], ["ok"])
    assert (len(first.requests), len(second.requests)) == (2, 1)
    assert first.json["text"] == second.json["text"] == DEFAULT_TRANSCRIPT
    assert [r.json["timing"] for r in (first, second)] == ["none", "none"]
    for r in (first, second):
        assert [warning for warning in read_warnings(r) if "does not return timestamps" in warning], r.err


def test_model_with_json_only_is_sent_json_from_then_on(all_gateways_cli: CommandLine) -> None:
    first, second = (transcribe(all_gateways_cli, "openrouter:deepgram/nova-3", "-f", "verbose_json") for _ in range(2))

    assert (first.code, second.code) == (0, 0), first.err
    assert [seen.json.get("response_format") for seen in first.requests] == ["verbose_json", None]
    assert [seen.json.get("response_format") for seen in second.requests] == [None]
    assert list_outcomes(first) == ["refused", "ok"]
    assert [entry["cost_nanousd"] == 0 for entry in first.ledger] == [True, False]
    assert any("does not return timestamps" in warning for warning in read_warnings(first))


def test_diarization_without_timestamps_requests_json(all_gateways_cli: CommandLine) -> None:
    first, second = (
        transcribe(all_gateways_cli, "openrouter:deepgram/nova-3", "-f", "json", "--diarize") for _ in range(2)
    )

    assert (first.code, list_outcomes(first), list_outcomes(second)) == (0, ["refused", "ok"], ["ok"]), first.err
    assert second.requests[0].json["provider"]["options"]["deepgram"] == {"diarize": True}


@pytest.mark.parametrize("format", ["srt", "vtt", "tsv"])
def test_strict_captions_fail_for_model_without_timestamps(all_gateways_cli: CommandLine, format: str) -> None:
    first, second = (
        transcribe(all_gateways_cli, "openrouter:deepgram/nova-3", "-f", format, "--strict-timestamps")
        for _ in range(2)
    )

    assert (first.code, first.out, len(first.requests)) == (6, b"", 1), first.err
    assert "verbose_json" in first.err
    assert (second.code, second.requests, second.ledger) == (2, [], [])
    assert "does not return timestamps" in second.err


def test_captions_are_timed_by_chunk_for_model_without_timestamps(all_gateways_cli: CommandLine) -> None:
    first, second = (transcribe(all_gateways_cli, "openrouter:deepgram/nova-3", "-f", "srt") for _ in range(2))

    assert (first.code, list_outcomes(first), list_outcomes(second)) == (0, ["refused", "ok"], ["ok"]), first.err
    assert first.out == second.out
    for r in (first, second):
        assert [warning for warning in read_warnings(r) if "timed by chunk" in warning], r.err


def test_captions_fall_back_to_model_with_timestamps(all_gateways_cli: CommandLine) -> None:
    models = ("openrouter:deepgram/nova-3", "-m", "openrouter:openai/whisper-1")
    for sent_count in (2, 1):
        r = transcribe(all_gateways_cli, *models, "-f", "srt", "--strict-timestamps")

        assert (r.code, len(r.requests)) == (0, sent_count), r.err
        assert "00:00:00,000 -->" in r.text


def test_refused_word_timestamps_fall_back_to_segments(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.queue_faults(NO_WORDS)

    first, second = (
        transcribe(all_gateways_cli, "openai:whisper-1", "--timestamps", "word", "--json") for _ in range(2)
    )

    assert (first.code, second.code) == (0, 0), first.err
    assert [seen.get_form_values("timestamp_granularities[]") for seen in first.requests] == [
        ["word", "segment"],
        ["segment"],
    ]
    assert [seen.get_form_values("timestamp_granularities[]") for seen in second.requests] == [["segment"]]
    assert (second.json["timing"], second.json["words"]) == ("segment", [])
    assert any("segment timestamps only" in warning for warning in second.json["warnings"])


# --- refusals that name two fields -----------------------------------------------------------------------------------

WHISPER = "openrouter:openai/whisper-large-v3"
WORDS = ("--timestamps", "word")


def pass_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lessons expire that are about two fields."""
    later_s = time.time() + COMBINATION_TTL_S + 1
    monkeypatch.setattr("audiocli.core.capabilities.time", SimpleNamespace(time=lambda: later_s))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--diarize",), None),  # the refusal of the mock gateway
        (("--diarize",), "diarization is not supported with response_format verbose_json"),
        (("--diarize",), "verbose_json cannot be combined with speaker_labels"),
        (("-p", "Names"), "prompt is not supported with response_format verbose_json"),
        (("-p", "Names"), "timestamp_granularities cannot be used together with a prompt"),
        (("-l", "de"), "language 'de' is not supported for word timestamps"),
        (("--temperature", "0.5"), "temperature must be 0 if timestamps are requested"),
        (("--temperature", "0"), "verbose_json needs a temperature above 0"),
        (("--keyterms", "Pelé"), "keyterms are not available with timestamps"),
        (("--option", "groq.smart_format=true"), "smart_format requires response_format json, not verbose_json"),
        ((), "wav files do not support response_format verbose_json"),
    ],
)
def test_refusal_that_names_another_field_does_not_worsen_later_captions(
    all_gateways_cli: CommandLine, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], message: str | None
) -> None:
    if message is not None:
        all_gateways_cli.gateway.queue_faults(build_refusal(message))
    transcribe(all_gateways_cli, WHISPER, "-f", "srt", *flags, "--strict-timestamps")
    if "--diarize" in flags:
        assert read_refused_features(all_gateways_cli) == set()
    else:
        pass_an_hour(monkeypatch)

    later = transcribe(all_gateways_cli, WHISPER, "-f", "srt", "--strict-timestamps")

    assert (later.code, len(later.requests)) == (0, 1), later.err
    assert later.requests[0].json["response_format"] == "verbose_json"
    assert read_warnings(later) == []


def test_captions_are_timed_by_chunk_after_a_refusal_that_names_the_language(all_gateways_cli: CommandLine) -> None:
    message = "language 'de' is not supported with response_format verbose_json"
    all_gateways_cli.gateway.queue_faults(build_refusal(message))

    first = transcribe(all_gateways_cli, WHISPER, "-f", "srt", "-l", "de")
    second = transcribe(all_gateways_cli, WHISPER, "-f", "srt", "-l", "de", "--no-resume")

    assert (first.code, second.code) == (0, 0), first.err
    formats = [[request.json.get("response_format") for request in r.requests] for r in (first, second)]
    assert formats == [["verbose_json", None], [None]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("-l", "de"), "This language model does not support response_format verbose_json"),
        (("-p", "Names"), "response_format verbose_json is not supported. Supported values are: json, prompt"),
        ((), "verbose_json is available for diarization and streaming only"),
    ],
)
def test_refusal_that_names_no_other_field_of_the_request_is_cached(
    all_gateways_cli: CommandLine, flags: tuple[str, ...], message: str
) -> None:
    all_gateways_cli.gateway.queue_faults(build_refusal(message))

    transcribe(all_gateways_cli, WHISPER, "-f", "json", *flags)

    assert read_refused_features(all_gateways_cli) == {"verbose_json"}


def test_name_of_the_model_is_no_field(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.queue_faults(build_refusal("language-prompt-1 does not support verbose_json"))

    transcribe(all_gateways_cli, "home:language-prompt-1", "-f", "json", "-p", "Names", "-l", "de")

    assert read_refused_features(all_gateways_cli) == {"verbose_json"}


def test_words_that_are_refused_with_a_language_are_requested_an_hour_later(
    all_gateways_cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_gateways_cli.gateway.queue_faults(build_refusal("language 'de' is not supported for word timestamps"))

    first = transcribe(all_gateways_cli, "openai:whisper-1", *WORDS, "--json", "-l", "de")
    again = transcribe(all_gateways_cli, "openai:whisper-1", *WORDS, "--json", "-l", "de", "--no-resume")
    pass_an_hour(monkeypatch)
    later = transcribe(all_gateways_cli, "openai:whisper-1", *WORDS, "--json", "-l", "en")

    assert (first.code, list_outcomes(first), first.json["timing"]) == (0, ["refused", "ok"], "segment"), first.err
    assert (again.code, list_outcomes(again), again.json["timing"]) == (0, ["ok"], "segment"), again.err
    assert (later.code, list_outcomes(later), later.json["timing"]) == (0, ["ok"], "word"), later.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--speed", "1.5"), "speed is supported with pcm only"),
        (("--instructions", "Calmly"), "instructions require response_format pcm"),
        ((), "voice 'Kore' does not support response_format mp3"),
    ],
)
def test_format_that_is_refused_with_another_field_is_requested_later(
    all_gateways_cli: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    flags: tuple[str, ...],
    message: str,
) -> None:
    argv = ("speak", "Hello there", "-m", "openrouter:openai/gpt-4o-mini-tts-2025-12-15", "--no-cache")
    all_gateways_cli.gateway.queue_faults(build_refusal(message))

    first = all_gateways_cli(*argv, "-o", tmp_path / "1.mp3", *flags)
    pass_an_hour(monkeypatch)
    later = all_gateways_cli(*argv, "-o", tmp_path / "2.mp3")

    assert (first.code, later.code) == (0, 0), first.err + later.err
    assert [seen.json["response_format"] for seen in first.requests] == ["mp3", "pcm"]
    assert [seen.json["response_format"] for seen in later.requests] == ["mp3"]


@pytest.mark.parametrize(
    "model", ["openrouter:openai/whisper-large-v3", "groq:whisper-large-v3-turbo", "openai:whisper-1"]
)
def test_hint_about_timestamps_does_not_name_the_refused_model(all_gateways_cli: CommandLine, model: str) -> None:
    all_gateways_cli.gateway.queue_faults(build_refusal("response_format verbose_json is not supported"))
    transcribe(all_gateways_cli, model, "-f", "json")

    r = transcribe(all_gateways_cli, model, "-f", "srt", "--strict-timestamps")

    hint = r.err.partition("hint: ")[2]
    assert (r.code, r.requests) == (2, []), r.err
    assert "captions need a model with timestamps, such as" in hint
    assert f"{model}," not in hint and not hint.rstrip().endswith(model) and f"{model} until" not in hint


# --- formats ---------------------------------------------------------------------------------------------------------

GEMINI = "openrouter:google/gemini-3.8-flash-tts"


@pytest.mark.parametrize("format", ["mp3", "flac", "wav"])
def test_model_that_returns_only_pcm_is_sent_pcm(all_gateways_cli: CommandLine, tmp_path: Path, format: str) -> None:
    first, second = (
        all_gateways_cli(
            *("speak", "Hello there", "-m", GEMINI, "-v", "Kore", "-o", tmp_path / f"{n}.{format}", "--no-cache")
        )
        for n in (1, 2)
    )

    formats = [[seen.json["response_format"] for seen in r.requests] for r in (first, second)]
    assert (first.code, second.code) == (0, 0), first.err
    assert formats == ([["mp3", "pcm"], ["pcm"]] if format == "mp3" else [["pcm"], ["pcm"]])
    assert list_outcomes(first) == ["refused", "ok"][2 - len(formats[0]) :]
    assert detect_format((tmp_path / f"1.{format}").read_bytes()[:16]) == format
    assert (tmp_path / f"1.{format}").read_bytes() == (tmp_path / f"2.{format}").read_bytes()
    assert read_warnings(second) == []


def test_model_that_refuses_every_format_is_not_retried_forever(all_gateways_cli: CommandLine, tmp_path: Path) -> None:
    all_gateways_cli.gateway.add_default_fault(build_refusal("response_format is not supported"))

    first, second = (all_gateways_cli("speak", "Hi there", "-m", GEMINI, "-o", tmp_path / "x.mp3") for _ in range(2))

    # A refusal of every format is not cached: the cause is elsewhere, and may be fixed soon.
    assert (first.code, len(first.requests)) == (6, 2), first.err
    assert (second.code, len(second.requests)) == (6, 1), second.err
    assert list_outputs(tmp_path) == []


@pytest.mark.parametrize(
    ("format", "converted"),
    [
        ("flac", "wav"),
        ("mp3", "flac"),
        ("ogg", "flac"),
    ],
)
def test_refused_upload_format_is_converted(all_gateways_cli: CommandLine, format: str, converted: str) -> None:
    name = f"talk.{format}"
    (all_gateways_cli.directory / name).write_bytes(encode(SPEECH[44:], format))
    all_gateways_cli.gateway.queue_faults(
        build_refusal(f"unsupported audio: the format {format} is not supported by this provider", 415)
    )

    first, second = (transcribe(all_gateways_cli, "openrouter:openai/whisper-1", file=name) for _ in range(2))

    assert (first.code, second.code) == (0, 0), first.err
    assert first.requests[0].json["input_audio"]["format"] == format
    assert [seen.audio_format for seen in first.requests] == [format, converted]
    assert [seen.audio_format for seen in second.requests] == [converted]


@pytest.mark.parametrize("status", [400, 415, 422])
def test_gateway_that_refuses_json_is_sent_multipart(all_gateways_cli: CommandLine, status: int) -> None:
    all_gateways_cli.gateway.queue_faults(build_refusal("Content-Type must be multipart/form-data", status))

    first, second = (transcribe(all_gateways_cli, "openrouter:openai/whisper-1") for _ in range(2))

    assert (first.code, second.code) == (0, 0), first.err
    assert [bool(seen.multipart) for seen in (*first.requests, *second.requests)] == [False, True, True]


# --- cache -----------------------------------------------------------------------------------------------------------


def age_capabilities(cli: CommandLine, seconds: float) -> None:
    for path in list_capability_files(cli):
        path.write_text(
            json.dumps({name: refused_at_s - seconds for name, refused_at_s in json.loads(path.read_bytes()).items()})
        )


@pytest.mark.parametrize(("age_s", "sent_count"), [(MONTH_S - 60, 1), (MONTH_S + 60, 2), (-3600, 2)])
def test_capability_expires_after_a_month(all_gateways_cli: CommandLine, age_s: float, sent_count: int) -> None:
    transcribe(all_gateways_cli, "openrouter:deepgram/nova-3", "-f", "verbose_json")
    age_capabilities(all_gateways_cli, age_s)

    r = transcribe(all_gateways_cli, "openrouter:deepgram/nova-3", "-f", "verbose_json")

    assert (r.code, len(r.requests)) == (0, sent_count), r.err


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b'"verbose_json"',
        b'{"verbose_json": "soon"}',
        b'{"verbose_json": NaN}',
        b"[" * 9999,
    ],
)
def test_damaged_capability_file_is_ignored(all_gateways_cli: CommandLine, damage: bytes) -> None:
    transcribe(all_gateways_cli, "openrouter:deepgram/nova-3", "-f", "verbose_json")
    [path] = list_capability_files(all_gateways_cli)
    path.write_bytes(damage)

    r = transcribe(all_gateways_cli, "openrouter:deepgram/nova-3", "-f", "verbose_json")

    assert (r.code, list_outcomes(r)) == (0, ["refused", "ok"]), r.err
    assert read_refused_features(all_gateways_cli) == {"verbose_json"}


def test_capability_belongs_to_one_model_and_base_url(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.queue_faults(NO_VERBOSE)
    transcribe(all_gateways_cli, "openrouter:openai/whisper-1", "-f", "json")

    r = transcribe(all_gateways_cli, "openrouter:openai/whisper-large-v3", "-f", "json")
    other_url = transcribe(
        all_gateways_cli,
        "openrouter:openai/whisper-1",
        "-f",
        "json",
        "--base-url",
        all_gateways_cli.gateway.base_url("openrouter") + "/",
    )

    assert [seen.json["response_format"] for seen in r.requests] == ["verbose_json"]
    assert [seen.json["response_format"] for seen in other_url.requests] == ["verbose_json"]


def test_unwritable_cache_costs_one_refusal_per_run(all_gateways_cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    all_gateways_cli.variables["XDG_CACHE_HOME"] = str(tmp_path / "file")

    for _ in range(2):
        r = transcribe(all_gateways_cli, "openrouter:deepgram/nova-3", "-f", "verbose_json")

        assert (r.code, list_outcomes(r)) == (0, ["refused", "ok"]), r.err


def test_model_details_show_refused_features(all_gateways_cli: CommandLine, tmp_path: Path) -> None:
    before = all_gateways_cli("models", "openrouter:deepgram/nova-3")
    transcribe(all_gateways_cli, "openrouter:deepgram/nova-3", "-f", "verbose_json")
    all_gateways_cli("speak", "Hi there", "-m", GEMINI, "-o", tmp_path / "x.mp3")

    details = all_gateways_cli("models", "openrouter:deepgram/nova-3")
    document = all_gateways_cli("models", GEMINI, "--json").json

    assert "refuses" not in before.text
    assert "refuses     no verbose_json, so no timestamps" in details.text
    assert document["refuses"] == ["no mp3"]


# --- errors that are not cached --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        build_refusal("Invalid 'temperature': 3 is not between 0 and 1"),
        build_refusal("acme/x is not a valid model ID"),
        build_refusal("language 'xx' is not supported"),
        build_refusal("The audio is longer than 1500 seconds"),
        build_refusal("This prompt was rejected"),
        build_refusal(""),
        build_refusal("does not support response_format verbose_json", 403),
        build_refusal("does not support response_format verbose_json", 404),
        build_refusal("does not support response_format verbose_json", 413),
        Status(400, body="<html><title>Bad request</title></html>", content_type="text/html"),
    ],
    ids=lambda fault: f"{fault.code} {str(fault.body)[:60]}",
)
def test_unrelated_refusal_is_not_cached(all_gateways_cli: CommandLine, fault: Status) -> None:
    all_gateways_cli.gateway.queue_faults(fault)

    r = transcribe(all_gateways_cli, "openrouter:openai/whisper-1", "-f", "json")

    assert (len(r.requests), list_capability_files(all_gateways_cli)) == (1, []), r.err
    assert r.code in (4, 6)


@pytest.mark.parametrize(
    "message",
    [
        "Invalid 'voice'. Supported values are: 'alloy', 'echo'",
        "input is longer than 4096 characters",
        "speed must be between 0.25 and 4",
    ],
)
def test_refused_voice_or_text_does_not_change_the_format(
    all_gateways_cli: CommandLine, tmp_path: Path, message: str
) -> None:
    all_gateways_cli.gateway.queue_faults(build_refusal(message))

    r = all_gateways_cli("speak", "Hi there", "-m", GEMINI, "-o", tmp_path / "x.mp3")

    assert (r.code, len(r.requests), list_capability_files(all_gateways_cli)) == (6, 1, []), r.err


@pytest.mark.parametrize("format", ["flac", "mp3"])
def test_broken_recording_does_not_mark_its_format_as_refused(all_gateways_cli: CommandLine, format: str) -> None:
    name = f"talk.{format}"
    (all_gateways_cli.directory / name).write_bytes(encode(SPEECH[44:], format))
    formats = "['flac', 'm4a', 'mp3', 'mp4', 'mpeg', 'mpga', 'oga', 'ogg', 'wav', 'webm']"
    # Refused again after the conversion.
    all_gateways_cli.gateway.queue_faults(*[build_refusal(f"Invalid file format. Supported formats: {formats}")] * 2)

    r = transcribe(all_gateways_cli, "openai:whisper-1", file=name)

    assert list_capability_files(all_gateways_cli) == []
    assert (r.code, len(r.requests)) == (6, 2), r.err
