"""Speech and transcription with faster-whisper-server, local-tts-studio, LiteLLM and aimock.

The servers are configured with the tables of `docs/gateways`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pysubs2
import pytest

from audiocli.mock import DEFAULT_TRANSCRIPT, Status
from tests.conftest import CommandLine
from tests.nightly.conftest import SENTENCE, Proxy
from tests.pyav_codec import CODEC

FORMATS = ("mp3", "wav", "m4a", "flac", "ogg", "opus", "aac")
UPLOAD_FORMATS = ("mp3", "wav", "m4a", "flac", "ogg", "opus")
# A long text: one request for each sentence, with `--max-chars 60`.
SENTENCES = (
    "The red fox sleeps under an old tree.",
    "A brown bear walks slowly to the river.",
    "My horse eats fresh apples every morning.",
    "That rabbit hides behind the garden wall.",
    "One elephant drinks water from the lake.",
)
ANIMALS = ("fox", "bear", "horse", "rabbit", "elephant")


def measure_s(path: Path) -> float:
    with path.open("rb") as file:
        return CODEC.measure_duration_s(file, path.suffix.removeprefix("."))


def read_checks(cli: CommandLine, gateway: str) -> dict[str, str]:
    """Return the status of what `config check` reports about a gateway, by the name of the check."""
    rows: list[dict[str, Any]] = cli("config", "check", "--json").json["checks"]
    return {row["check"]: row["status"] for row in rows if row["check"].split()[-1] == gateway}


def list_kinds(cli: CommandLine, gateway: str) -> dict[str, str | None]:
    """Return the kind of every model of a gateway."""
    result = cli("models", "-g", gateway, "--json")
    assert result.code == 0, result.err
    return {model["ref"]: model["kind"] for model in map(json.loads, result.text.splitlines())}


def compute_litellm_cost_usd(text: str) -> float:
    """Return the cost that LiteLLM reports for tts-1: $15 for 1M characters, without spaces."""
    return len(text.replace(" ", "")) * 15e-6


def assert_animals_in_order(text: str) -> None:
    positions = [text.lower().find(animal) for animal in ANIMALS]
    assert -1 not in positions and positions == sorted(positions), text


# --- local-tts-studio ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", FORMATS)
def test_studio_speech_is_written_in_every_format(speech_servers: CommandLine, extension: str) -> None:
    path = speech_servers.directory / f"out.{extension}"

    result = speech_servers("speak", SENTENCE, "-m", "tts-studio:tts-1", "-o", path, "--json")

    assert (result.code, result.json["warnings"], result.json["voice"]) == (0, [], ""), result.err
    assert result.json["duration_s"] == pytest.approx(measure_s(path), abs=0.1)
    assert measure_s(path) == pytest.approx(measure_s(speech_servers.directory / "talk.wav"), rel=0.15)


def test_studio_states_the_rate_of_its_samples(speech_servers: CommandLine) -> None:
    result = speech_servers("speak", SENTENCE, "-m", "tts-studio:tts-1", "-f", "pcm", "-o", "-")

    assert (result.code, "warning" in result.err) == (0, False), result.err
    assert len(result.out) / 2 / 22_050 == pytest.approx(measure_s(speech_servers.directory / "talk.wav"), rel=0.15)


def test_studio_lists_models_and_formats(speech_servers: CommandLine) -> None:
    assert list_kinds(speech_servers, "tts-studio") == {
        "tts-studio:tts-1": "speech",
        "tts-studio:tts-1-hd": "speech",
    }
    assert "formats     wav pcm\n" in speech_servers("models", "tts-studio:tts-1-hd").text


def test_studio_does_not_list_voices(speech_servers: CommandLine) -> None:
    result = speech_servers("voices", "-m", "tts-studio:tts-1")

    assert (result.code, "tts-studio does not list the voices of tts-1" in result.err) == (2, True), result.err


def test_studio_key_is_checked(speech_servers: CommandLine) -> None:
    assert read_checks(speech_servers, "tts-studio") == {"key tts-studio": "ok", "gateway tts-studio": "ok"}

    speech_servers.variables["TTS_STUDIO_KEY"] = "wrong"

    assert read_checks(speech_servers, "tts-studio") == {"key tts-studio": "error", "gateway tts-studio": "error"}
    path = speech_servers.directory / "out.wav"
    result = speech_servers("speak", SENTENCE, "-m", "tts-studio:tts-1", "-o", path)
    assert result.code == 4
    assert "Incorrect API key" in result.err
    assert not path.exists()


def test_long_text_is_split_and_joined(speech_servers: CommandLine) -> None:
    path, text = speech_servers.directory / "long.m4a", " ".join(SENTENCES)

    speech = speech_servers("speak", text, "-m", "tts-studio:tts-1", "--max-chars", "60", "-o", path, "--json")
    transcript = speech_servers("transcribe", path, "-m", "whisper-server:tiny", "--max-chunk", "6", "-o", "-")

    assert (speech.code, transcript.code) == (0, 0), speech.err + transcript.err
    assert (speech.json["requests"], len(speech.ledger)) == (len(SENTENCES), len(SENTENCES))
    assert speech.json["duration_s"] == pytest.approx(measure_s(path), abs=0.1)
    assert len(transcript.ledger) > 1
    assert_animals_in_order(transcript.text)


# --- faster-whisper-server -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", UPLOAD_FORMATS)
def test_whisper_understands_speech_of_every_format(speech_servers: CommandLine, extension: str) -> None:
    path = speech_servers.directory / f"upload.{extension}"
    speech_servers("speak", SENTENCE, "-m", "tts-studio:tts-1", "-o", path)

    result = speech_servers("transcribe", path, "-m", "whisper-server:tiny", "-l", "en", "-p", "fox", "-o", "-")

    assert result.code == 0, result.err
    assert "quick brown fox" in result.text.lower()


def test_whisper_writes_text_captions_and_json(speech_servers: CommandLine) -> None:
    talk = speech_servers.directory / "talk.wav"

    result = speech_servers("transcribe", talk, "-m", "whisper-server:tiny", "-f", "txt,srt,json")

    assert result.code == 0, result.err
    assert "quick brown fox" in talk.with_suffix(".txt").read_text("utf-8").lower()
    captions = pysubs2.load(str(talk.with_suffix(".srt")), encoding="utf-8")
    assert 0 <= captions[0].start < captions[-1].end <= measure_s(talk) * 1000 + 500
    assert json.loads(talk.with_suffix(".json").read_text("utf-8"))["segments"]


def test_whisper_translates(speech_servers: CommandLine) -> None:
    talk = speech_servers.directory / "talk.wav"

    result = speech_servers("transcribe", talk, "-m", "whisper-server:tiny", "--translate", "-o", "-")

    assert result.code == 0, result.err
    assert "quick brown fox" in result.text.lower()


def test_whisper_has_no_word_times(speech_servers: CommandLine) -> None:
    talk = speech_servers.directory / "talk.wav"

    result = speech_servers("transcribe", talk, "-m", "whisper-server:tiny", "--timestamps", "word", "--json")

    assert (result.code, result.json["timing"]) == (0, "segment"), result.err
    assert any("no word timestamps" in warning for warning in result.json["warnings"])


def test_whisper_reports_an_unknown_model(speech_servers: CommandLine) -> None:
    result = speech_servers("transcribe", speech_servers.directory / "talk.wav", "-m", "whisper-server:nothing")

    assert result.code == 6, result.err
    assert "unknown model: nothing" in result.err


def test_whisper_has_no_key_and_no_models(speech_servers: CommandLine) -> None:
    assert read_checks(speech_servers, "whisper-server") == {"gateway whisper-server": "ok"}
    assert list_kinds(speech_servers, "whisper-server") == {}


# --- LiteLLM ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [*FORMATS, "pcm"])
def test_litellm_speech_is_written_in_every_format(litellm: CommandLine, extension: str) -> None:
    path = litellm.directory / f"out.{extension}"

    result = litellm("speak", SENTENCE, "-m", "litellm:tts", "-v", "alloy", "-o", path)

    assert result.code == 0, result.err
    duration_s = path.stat().st_size / 48_000 if extension == "pcm" else measure_s(path)
    assert duration_s == pytest.approx(measure_s(litellm.directory / "talk.wav"), abs=0.15)


def test_litellm_cost_is_in_the_ledger(litellm: CommandLine) -> None:
    speech = litellm("speak", SENTENCE, "-m", "litellm:tts", "-o", litellm.directory / "out.mp3", "--json")
    transcript = litellm("transcribe", litellm.directory / "talk.wav", "-m", "litellm:stt", "--json")

    assert [entry["cost_source"] for entry in (*speech.ledger, *transcript.ledger)] == ["reported", "reported"]
    assert speech.json["cost_usd"] == pytest.approx(compute_litellm_cost_usd(SENTENCE))
    assert speech.ledger[0]["cost_nanousd"] == round(speech.json["cost_usd"] * 1e9)
    # whisper-1 costs $0.006 per minute.
    assert transcript.ledger[0]["cost_nanousd"] == pytest.approx(
        measure_s(litellm.directory / "talk.wav") * 1e5, rel=0.2
    )


def test_litellm_speaks_long_texts(litellm: CommandLine) -> None:
    path = litellm.directory / "long.mp3"

    result = litellm("speak", " ".join(SENTENCES), "-m", "litellm:tts", "--max-chars", "60", "-o", path, "--json")

    assert (result.code, result.json["requests"], len(result.ledger)) == (0, len(SENTENCES), len(SENTENCES)), result.err
    assert measure_s(path) == pytest.approx(result.json["duration_s"], abs=0.1)
    assert result.json["cost_usd"] == pytest.approx(sum(map(compute_litellm_cost_usd, SENTENCES)))


@pytest.mark.parametrize("extension", UPLOAD_FORMATS)
def test_litellm_writes_text_and_captions(litellm: CommandLine, extension: str) -> None:
    path = litellm.directory / f"upload.{extension}"
    litellm("speak", SENTENCE, "-m", "litellm:tts", "-o", path)

    result = litellm("transcribe", path, "-m", "litellm:stt", "-f", "txt,srt")

    assert result.code == 0, result.err
    assert path.with_suffix(".txt").read_text("utf-8").strip() == DEFAULT_TRANSCRIPT
    captions = pysubs2.load(str(path.with_suffix(".srt")), encoding="utf-8")
    assert "fox" in captions[0].plaintext


def test_litellm_lists_models_with_kinds_and_prices(litellm: CommandLine) -> None:
    assert list_kinds(litellm, "litellm") == {"litellm:tts": "speech", "litellm:stt": "transcription"}
    assert "price       $15 / 1M characters\n" in litellm("models", "litellm:tts").text


# Without a database, LiteLLM refuses a key that begins with sk- and is not the master key with 400.
@pytest.mark.parametrize("key", ["sk-wrong-4711", "wrong-4711"])
def test_litellm_key_is_checked(litellm: CommandLine, key: str) -> None:
    assert read_checks(litellm, "litellm") == {"key litellm": "ok", "gateway litellm": "ok"}

    litellm.variables["LITELLM_KEY"] = key

    assert read_checks(litellm, "litellm") == {"key litellm": "error", "gateway litellm": "error"}
    result = litellm("speak", SENTENCE, "-m", "litellm:tts", "-o", litellm.directory / "out.wav")
    assert (result.code, "the gateway refused the API key" in result.err) == (4, True), result.err
    assert "4711" not in result.err


@pytest.mark.parametrize(
    ("status", "code", "outcome", "requests"), [(400, 6, "refused", 1), (422, 6, "refused", 1), (500, 6, "failed", 3)]
)
@pytest.mark.parametrize("command", ["speak", "transcribe"])
def test_litellm_passes_on_errors(
    litellm: CommandLine,
    litellm_proxy: Proxy,
    command: str,
    status: int,
    code: int,
    outcome: str,
    requests: int,
) -> None:
    argv: tuple[str | Path, ...] = (
        ("speak", SENTENCE, "-m", "litellm:tts", "-o", litellm.directory / "out.wav")
        if command == "speak"
        else ("transcribe", litellm.directory / "talk.wav", "-m", "litellm:stt", "-o", "-")
    )
    litellm_proxy.upstream.add_default_fault(Status(status, message="No, not today"))
    try:
        result = litellm(*argv)
    finally:
        litellm_proxy.upstream.clear_faults()

    assert (result.code, [entry["outcome"] for entry in result.ledger]) == (code, [outcome] * requests), result.err
    assert "No, not today" in result.err
    assert litellm(*argv).code == 0


def test_litellm_reports_an_unknown_model(litellm: CommandLine) -> None:
    result = litellm("speak", SENTENCE, "-m", "litellm:nothing", "-o", litellm.directory / "out.wav")

    assert (result.code, "Invalid model name passed in model=nothing" in result.err) == (6, True), result.err


# --- aimock ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", ["wav", "mp3", "m4a", "pcm"])
def test_aimock_speech_is_written(aimock: CommandLine, extension: str) -> None:
    path = aimock.directory / f"out.{extension}"

    result = aimock("speak", SENTENCE, "-m", "aimock:tts-1", "-v", "alloy", "-o", path)

    assert result.code == 0, result.err
    duration_s = path.stat().st_size / 48_000 if extension == "pcm" else measure_s(path)
    assert duration_s == pytest.approx(measure_s(aimock.directory / "talk.wav"), abs=0.15)


def test_aimock_writes_text_and_streams_it(aimock: CommandLine) -> None:
    for options in (["aimock:whisper-1"], ["aimock:gpt-4o-transcribe", "--stream"]):
        result = aimock("transcribe", aimock.directory / "talk.wav", "-o", "-", "-m", *options)

        assert result.code == 0, result.err
        assert result.text.strip() == SENTENCE


def test_aimock_writes_captions(aimock: CommandLine) -> None:
    path = aimock.directory / "talk.srt"

    result = aimock("transcribe", aimock.directory / "talk.wav", "-m", "aimock:whisper-1", "-o", path)

    assert result.code == 0, result.err
    assert " ".join(pysubs2.load(str(path), encoding="utf-8")[0].plaintext.split()) == SENTENCE


def test_aimock_reports_the_message_of_an_error(aimock: CommandLine) -> None:
    result = aimock("speak", "overloaded", "-m", "aimock:tts-1", "-v", "alloy", "-o", aimock.directory / "o.wav")

    assert result.code == 6, result.err
    assert "The model is overloaded" in result.err


def test_aimock_is_reachable(aimock: CommandLine) -> None:
    assert read_checks(aimock, "aimock") == {"gateway aimock": "ok"}
