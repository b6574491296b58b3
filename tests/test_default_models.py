"""Default models: the dated table, the model list of the day, and what happens when a model ends."""

from __future__ import annotations

import json
import os
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from audiocli.gateways import BUILT_IN, is_default_server
from audiocli.gateways.default_models import Purpose, choose_default
from audiocli.gateways.model_names import guess_kind
from audiocli.mock import KEYS, Garbage, Status
from audiocli.types.routes import ModelCard, Route
from tests.conftest import CommandLine, Result
from tests.gateway_contract import SPEECH, build_model_list, read_warnings

OPENAI = {"OPENROUTER_API_KEY": "", "OPENAI_API_KEY": KEYS["openai"]}
TODAY = date(2026, 11, 26)
AFTER_SPEECH_END = date(2027, 1, 7)
AFTER_TRANSCRIPTION_END = date(2027, 2, 27)

# OpenAI's list of each day, as far as it has audio models.
STAYING = ("gpt-transcribe", "gpt-audio-1.5", "gpt-5.4")
_TRANSCRIPTION_NAMES = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize")
TRANSCRIPTION: dict[str, str | None] = dict.fromkeys(_TRANSCRIPTION_NAMES, "2027-02-26")
LISTS: dict[date, dict[str, str | None]] = {
    TODAY: {**dict.fromkeys(STAYING), "gpt-4o-mini-tts": "2027-01-06", "tts-1": "2027-01-06", **TRANSCRIPTION},
    AFTER_SPEECH_END: {**dict.fromkeys(STAYING), **TRANSCRIPTION},
    AFTER_TRANSCRIPTION_END: dict.fromkeys(STAYING),
}


def serve_openai_list(cli: CommandLine, day: date, **changes: str | None) -> None:
    """Serve OpenAI's model list of a day, until the end of the test."""
    models = {**LISTS[day], **changes}
    body = {"object": "list", "data": [{"id": name, "shutdown_date": end} for name, end in models.items()]}
    fault = Garbage(json.dumps(body).encode(), "application/json")
    cli.gateway.queue_faults(*[fault] * 20, path="/models", method="GET", dialect="openai")


def serve_openrouter_list(cli: CommandLine, *cards: dict[str, Any]) -> None:
    """Serve and fetch a model list of OpenRouter."""
    fault = Garbage(build_model_list(*cards), "application/json")
    cli.gateway.queue_faults(fault, path="/models", method="GET", dialect="openrouter")
    r = cli("models", "-g", "openrouter", "--refresh")
    assert r.code == 0, r.err


@pytest.fixture
def recording(audiocli: CommandLine) -> Path:
    path = audiocli.directory / "talk.wav"
    path.write_bytes(SPEECH)
    return path


def read_gets(r: Result) -> list[str]:
    return [request.path for request in r.requests if request.method == "GET"]


# --- speech ----------------------------------------------------------------------------------------------------------


def test_openrouter_default_has_no_end(audiocli: CommandLine) -> None:
    for day in (TODAY, AFTER_SPEECH_END, AFTER_TRANSCRIPTION_END):
        audiocli.today = day

        r = audiocli("speak", "Guten Tag.", "-o", audiocli.directory / "x.mp3", "--json")

        assert r.code == 0, r.err
        assert (r.json["model"], r.json["voice"], r.json["warnings"]) == ("x-ai/grok-voice-tts-1.0", "eve", [])
        assert read_gets(r) == []


@pytest.mark.parametrize("day", [AFTER_SPEECH_END, AFTER_TRANSCRIPTION_END], ids=str)
def test_speech_without_a_model_left_names_other_models(audiocli: CommandLine, day: date) -> None:
    audiocli.today = day
    serve_openai_list(audiocli, day)

    r = audiocli("speak", "Hello", "-o", audiocli.directory / "x.mp3", "--json", variables=OPENAI)

    assert (r.code, r.posts, r.ledger) == (6, [], [])
    error = r.err_json["error"]
    assert (error["exit"], error["code"]) == (6, "no_model_left")
    assert "openrouter:x-ai/grok-voice-tts-1.0" in error["hint"] and "-m local:espeak" in error["hint"]
    assert "gpt-4o-mini-tts" in error["message"] and "OPENROUTER_API_KEY" in error["hint"]
    assert "openai/gpt-4o-mini-tts" not in error["hint"] or "2027-01-06" not in error["hint"]
    assert not (audiocli.directory / "x.mp3").exists()


def test_speech_uses_another_gateway_with_a_key(audiocli: CommandLine) -> None:
    audiocli.today = AFTER_SPEECH_END
    serve_openai_list(audiocli, AFTER_SPEECH_END)

    r = audiocli(
        *("speak", "Hello", "-o", audiocli.directory / "x.mp3", "--json"),
        variables={**OPENAI, "GROQ_API_KEY": KEYS["groq"]},
    )

    assert r.code == 0, r.err
    assert r.json["gateway"] == "groq"


def test_unlisted_default_is_replaced_with_a_note(audiocli: CommandLine) -> None:
    audiocli.today = AFTER_SPEECH_END
    serve_openrouter_list(
        audiocli,
        {"id": "acme/expensive", "pricing": {"prompt": "0.0003", "completion": "0"}, "supported_voices": ["d"]},
        {"id": "acme/cheap", "pricing": {"prompt": "0.000001", "completion": "0"}, "supported_voices": ["c"]},
        {"id": "acme/ended", "pricing": {"prompt": "0.0000005", "completion": "0"}, "expiration_date": "2027-01-01"},
        {"id": "acme/unpriced"},
        {"id": "acme/listener", "out": "transcription"},
    )

    r = audiocli("speak", "Hello", "-o", audiocli.directory / "x.mp3", "-n", "--json")

    assert r.code == 0, r.err
    assert r.json["routes"][0]["model"] == "acme/cheap"
    [note] = [warning for warning in r.json["warnings"] if "grok" in warning]
    assert "is not in the model list" in note and "using openrouter:acme/cheap" in note


def test_successor_of_the_table_comes_before_other_listed_models(audiocli: CommandLine) -> None:
    audiocli.today = AFTER_SPEECH_END
    serve_openrouter_list(
        audiocli,
        {"id": "acme/cheap", "pricing": {"prompt": "0.000001", "completion": "0"}},
        {"id": "x-ai/grok-voice-tts-1.0", "expiration_date": "2027-01-05"},
        {"id": "hexgrad/kokoro-82m", "supported_voices": ["af_heart"]},
    )

    r = audiocli("speak", "Hello", "-o", audiocli.directory / "x.mp3", "--json")

    assert r.code == 0, r.err
    assert (r.json["model"], r.json["voice"]) == ("hexgrad/kokoro-82m", "af_heart")
    assert "openrouter:x-ai/grok-voice-tts-1.0 was shut down on 2027-01-05" in r.json["warnings"][0]


def test_named_voice_selects_a_default_that_has_it(audiocli: CommandLine) -> None:
    audiocli.today = TODAY

    r = audiocli("speak", "Hello", "-v", "nova", "-o", audiocli.directory / "x.mp3", "--json")

    assert (r.json["model"], r.json["voice"]) == ("openai/gpt-4o-mini-tts-2025-12-15", "nova")


def test_instructions_select_a_default_that_follows_them(audiocli: CommandLine) -> None:
    audiocli.today = TODAY

    r = audiocli("speak", "Hello", "-i", "Whisper.", "-o", audiocli.directory / "x.mp3", "--json")

    assert r.json["model"] == "openai/gpt-4o-mini-tts-2025-12-15"
    assert r.posts[0].json["instructions"] == "Whisper."


def test_speed_selects_a_default_that_accepts_it(audiocli: CommandLine) -> None:
    audiocli.today = TODAY

    r = audiocli("speak", "Hello", "-x", "1.2", "-o", audiocli.directory / "x.mp3", "--json")

    assert (r.json["model"], r.posts[0].json["speed"]) == ("openai/gpt-4o-mini-tts-2025-12-15", 1.2)


def test_configured_voice_of_an_earlier_default_is_replaced_with_a_note(audiocli: CommandLine) -> None:
    audiocli.write_config('[speak]\nvoice = "nova"\n')
    audiocli.today = AFTER_SPEECH_END

    r = audiocli("speak", "Hello", "-o", audiocli.directory / "x.mp3", "--json")

    assert r.code == 0, r.err
    assert (r.json["model"], r.json["voice"]) == ("x-ai/grok-voice-tts-1.0", "eve")
    assert r.json["warnings"] == ["openrouter:x-ai/grok-voice-tts-1.0 has no voice 'nova'; using 'eve'"]


def test_unknown_configured_voice_is_sent_without_a_list(audiocli: CommandLine) -> None:
    audiocli.write_config('[speak]\nvoice = "zephyr"\n')

    r = audiocli("speak", "Hello", "-o", audiocli.directory / "x.mp3", "-n", "--json")

    assert r.json["routes"][0]["voice"] == "zephyr"


# --- named models ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_configured", [False, True])
@pytest.mark.parametrize(
    ("argv", "model", "end"),
    [
        (("speak", "Hello", "-o", "x.mp3"), "tts-1", "2027-01-06"),
        (("transcribe", "talk.wav"), "gpt-4o-transcribe", "2027-02-26"),
        (("transcribe", "talk.wav", "-f", "srt"), "whisper-1", "2027-02-26"),
        (("transcribe", "talk.wav", "--translate"), "whisper-1", "2027-02-26"),
        (("transcribe", "talk.wav", "--diarize"), "gpt-4o-transcribe-diarize", "2027-02-26"),
        (("chat", "Hello"), "gpt-audio", "2027-01-20"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_named_model_that_has_ended_is_not_replaced(
    audiocli: CommandLine,
    recording: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    model: str,
    end: str,
    is_configured: bool,
) -> None:
    monkeypatch.chdir(audiocli.directory)
    audiocli.today = AFTER_TRANSCRIPTION_END
    serve_openai_list(audiocli, AFTER_TRANSCRIPTION_END, **{model: end})
    audiocli("models", "-g", "openai", variables=OPENAI)
    audiocli.gateway.add_default_fault(Status(404), dialect="openai", method="POST")
    if is_configured:
        audiocli.write_config(f'[{argv[0]}]\nmodels = ["openai:{model}"]\n')

    r = audiocli(*argv, *(() if is_configured else ("-m", f"openai:{model}")), variables=OPENAI)

    assert (r.code, [request.model for request in r.posts]) == (6, [model]), r.err
    assert f"openai:{model} was shut down on {end}" in r.err


# --- transcription ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("day", [AFTER_SPEECH_END, AFTER_TRANSCRIPTION_END], ids=str)
def test_gpt_transcribe_is_the_default_once_it_is_listed(audiocli: CommandLine, recording: Path, day: date) -> None:
    audiocli.today = day
    serve_openai_list(audiocli, day)

    r = audiocli("transcribe", recording, "-l", "German", "--json", variables=OPENAI)

    assert r.code == 0, r.err
    assert r.json["model"] == "gpt-transcribe"
    # The first default of the table is replaced with a note, once it is no longer listed.
    note = "openai:gpt-4o-transcribe is not in the model list of openai; using openai:gpt-transcribe"
    notes = [warning for warning in r.json["warnings"] if "using" in warning]
    assert notes == ([] if "gpt-4o-transcribe" in LISTS[day] else [note])
    fields = {name: value for name, value, _, _ in r.posts[0].multipart or []}
    assert (fields["languages[]"], "language" in fields) == ("de", False)
    assert audiocli.gateway.problems == []
    assert r.json["cost_source"] == "computed"


def test_model_list_is_fetched_once_a_day_for_the_default(audiocli: CommandLine, recording: Path) -> None:
    audiocli.today = AFTER_SPEECH_END
    serve_openai_list(audiocli, AFTER_SPEECH_END)

    runs = [audiocli("transcribe", recording, "--no-resume", variables=OPENAI) for _ in range(2)]

    assert [len(read_gets(r)) for r in runs] == [1, 0]


def test_table_is_used_if_the_list_cannot_be_fetched(audiocli: CommandLine, recording: Path) -> None:
    audiocli.today = AFTER_SPEECH_END
    audiocli.gateway.queue_faults(*[Status(500)] * 4, path="/models", method="GET", dialect="openai")

    runs = [audiocli("transcribe", recording, "--no-resume", "--json", variables=OPENAI) for _ in range(2)]

    assert [r.code for r in runs] == [0, 0], runs[0].err
    assert [r.json["model"] for r in runs] == ["gpt-4o-transcribe"] * 2
    assert [len(read_gets(r)) for r in runs] == [1, 0]  # the next attempt is made in an hour


@pytest.mark.parametrize(
    ("flags", "model"),
    [
        (("-f", "srt"), "whisper-1"),
        (("--timestamps", "word", "-f", "json"), "whisper-1"),
        (("--translate",), "whisper-1"),
        (("--diarize",), "gpt-4o-transcribe-diarize"),
    ],
    ids=str,
)
def test_other_models_serve_what_gpt_transcribe_cannot(
    audiocli: CommandLine, recording: Path, flags: tuple[str, ...], model: str
) -> None:
    audiocli.today = AFTER_SPEECH_END
    serve_openai_list(audiocli, AFTER_SPEECH_END)

    r = audiocli("transcribe", recording, *flags, "-o", audiocli.directory / "out.json", variables=OPENAI)
    if flags[0] == "-f":
        r = audiocli("transcribe", recording, *flags, "-o", "-", variables=OPENAI)

    assert r.code == 0, r.err
    assert {request.model for request in audiocli.gateway.posts} == {model}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--translate",), "does not support translation"),
        (("--diarize",), "does not support diarization"),
        (("-f", "srt", "--strict-timestamps"), "does not return timestamps"),
    ],
    ids=str,
)
def test_what_no_listed_model_can_is_refused(
    audiocli: CommandLine, recording: Path, flags: tuple[str, ...], expected: str
) -> None:
    audiocli.today = AFTER_TRANSCRIPTION_END
    serve_openai_list(audiocli, AFTER_TRANSCRIPTION_END)

    r = audiocli("transcribe", recording, *flags, "-o", "-", variables=OPENAI)

    assert (r.code, r.posts) == (2, []), r.err
    assert f"openai:gpt-transcribe {expected}" in r.err
    assert "until it shuts down on 2027-02-26" in r.err  # a model of another gateway comes first


def test_captions_are_timed_by_chunk_when_no_model_returns_timestamps(audiocli: CommandLine, recording: Path) -> None:
    audiocli.today = AFTER_TRANSCRIPTION_END
    serve_openai_list(audiocli, AFTER_TRANSCRIPTION_END)

    r = audiocli("transcribe", recording, "-f", "srt", "-o", "-", variables=OPENAI)

    assert r.code == 0, r.err
    assert b"-->" in r.out
    assert {request.model for request in r.posts} == {"gpt-transcribe"}
    assert "timed by chunk" in r.err


@pytest.mark.parametrize("flags", [("--translate",), ("-f", "srt", "--strict-timestamps")], ids=str)
def test_another_gateway_serves_what_openai_cannot(
    audiocli: CommandLine, recording: Path, flags: tuple[str, ...]
) -> None:
    audiocli.today = AFTER_TRANSCRIPTION_END
    serve_openai_list(audiocli, AFTER_TRANSCRIPTION_END)

    r = audiocli("transcribe", recording, *flags, "-o", "-", variables={**OPENAI, "GROQ_API_KEY": KEYS["groq"]})

    assert r.code == 0, r.err
    assert [request.dialect for request in r.posts] == ["groq"]


def test_transcript_of_an_earlier_default_remains_valid(audiocli: CommandLine, recording: Path) -> None:
    audiocli.today = date(2026, 10, 1)
    directory = audiocli.directory / "talks"
    directory.mkdir()
    recording.rename(directory / "talk.wav")
    first = audiocli("transcribe", directory, variables=OPENAI)
    serve_openai_list(audiocli, AFTER_TRANSCRIPTION_END)
    audiocli.today = AFTER_TRANSCRIPTION_END

    second = audiocli("transcribe", directory, variables=OPENAI)
    (directory / "talk.txt").unlink()
    third = audiocli("transcribe", directory, variables=OPENAI)

    assert [r.code for r in (first, second, third)] == [0, 0, 0], second.err
    assert [request.model for request in first.posts] == ["gpt-4o-transcribe"]
    assert (second.posts, third.posts) == ([], [])
    assert (directory / "talk.txt").exists()


# --- chat ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("day", [AFTER_SPEECH_END, AFTER_TRANSCRIPTION_END], ids=str)
def test_chat_defaults_survive(audiocli: CommandLine, day: date) -> None:
    audiocli.today = day
    serve_openai_list(audiocli, day)

    r = audiocli("chat", "Hello", "--json", variables=OPENAI)

    assert (r.code, r.posts[0].model) == (0, "gpt-audio-1.5"), r.err


def test_chat_at_openrouter_prefers_the_listed_model_that_stays(audiocli: CommandLine) -> None:
    audiocli.today = TODAY
    audiocli.gateway.queue_faults(
        Garbage(
            build_model_list(
                {"id": "openai/gpt-audio", "out": "audio", "expiration_date": "2027-01-20"},
                {"id": "openai/gpt-audio-1.5", "out": "audio"},
            ),
            "application/json",
        ),
        path="/models",
        method="GET",
    )

    r = audiocli("chat", "Hello", "-n", "--json")

    assert r.json["routes"][0]["model"] == "openai/gpt-audio-1.5", r.err


# --- warnings --------------------------------------------------------------------------------------------------------


def test_warning_about_an_end_is_printed_once_a_day(audiocli: CommandLine) -> None:
    argv = ("speak", "Hello", "-m", "openrouter:openai/gpt-4o-mini-tts-2025-12-15", "-o", audiocli.directory / "x.mp3")
    audiocli("models", "-g", "openrouter")
    audiocli.today = TODAY
    quiet, first, second = audiocli(*argv, "-q"), audiocli(*argv), audiocli(*argv)
    as_json = audiocli(*argv, "--json")
    audiocli.today = date(2026, 11, 27)
    next_day = audiocli(*argv)

    expected = "openrouter:openai/gpt-4o-mini-tts-2025-12-15 shuts down on 2027-01-06"
    assert [read_warnings(r) for r in (quiet, first, second, next_day)] == [[], [expected], [], [expected]]
    assert (as_json.json["warnings"], read_warnings(as_json)) == ([expected], [])


def test_config_check_lists_configured_models_that_end(audiocli: CommandLine) -> None:
    audiocli.write_config(
        '[speak]\nmodels = ["openrouter:openai/gpt-4o-mini-tts-2025-12-15", "openrouter:hexgrad/kokoro-82m"]\n'
        '[transcribe]\nmodels = ["openrouter:openai/whisper-1"]\n'
    )

    def check(day: date) -> dict[str, str]:
        audiocli.today = day
        r = audiocli("config", "check", "--json")
        return {row["check"]: row["status"] for row in r.json["checks"] if row["check"].startswith("model ")}

    speech, transcription = "model openrouter:openai/gpt-4o-mini-tts-2025-12-15", "model openrouter:openai/whisper-1"
    assert check(TODAY) == {speech: "warning", transcription: "note"}
    assert check(AFTER_SPEECH_END) == {speech: "error", transcription: "warning"}


# --- the table -------------------------------------------------------------------------------------------------------


class FixedLists:
    """Model lists of one gateway that do not change."""

    def __init__(self, today: date, names: list[str] | None) -> None:
        self.today = today
        self._cards = None if names is None else [ModelCard("openai", name, guess_kind(name)) for name in names]

    def get_cards(self, route: Route) -> list[ModelCard] | None:
        return self._cards

    def get_end_date(self, route: Route) -> date | None:
        return None


PURPOSES: tuple[Purpose, ...] = (
    *("speech", "transcription", "timed_transcription", "translation", "diarization"),
    "chat",
)


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("gateway", BUILT_IN, ids=lambda gateway: gateway.name)
def test_no_default_is_used_after_its_end(gateway: Any, purpose: Purpose) -> None:
    route = Route(gateway.name, gateway.dialect, gateway.base_url, "")
    assert is_default_server(route)
    for day in (TODAY, AFTER_SPEECH_END, date(2027, 1, 21), AFTER_TRANSCRIPTION_END):
        choice = choose_default(route, purpose, FixedLists(day, None), lambda route: True)

        entries = [default for default in getattr(gateway, purpose) if default.model == choice.model]
        assert all(entry.end_date is None or entry.end_date > day for entry in entries)
        has_survivor = any(default.end_date is None for default in getattr(gateway, purpose))
        assert (choice.model is not None) >= has_survivor


def test_other_server_keeps_models_that_ended_at_openai() -> None:
    route = Route("openai", "openai", "http://127.0.0.1:8000/v1", "")

    for names in (None, ["gpt-4o-mini-tts", "whisper-1"], []):
        choice = choose_default(route, "speech", FixedLists(AFTER_SPEECH_END, names), lambda route: True)

        assert (choice.model, choice.note) == ("gpt-4o-mini-tts", None)


def test_lists_are_older_than_a_day_before_they_are_fetched_again(audiocli: CommandLine, recording: Path) -> None:
    audiocli.today = AFTER_SPEECH_END
    serve_openai_list(audiocli, AFTER_SPEECH_END)
    audiocli("transcribe", recording, variables=OPENAI)
    cache = Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli"
    for path in (*(cache / "models").iterdir(), *(cache / "model_requests").iterdir()):
        os.utime(path, (time.time() - 25 * 3600,) * 2)

    r = audiocli("transcribe", recording, "--no-resume", variables=OPENAI)

    assert len(read_gets(r)) == 1
