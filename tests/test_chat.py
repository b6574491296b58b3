"""Test `chat` through the command line, its stream decoder, and its requests against the official client."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import threading
import wave
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.codecs.decoder import Decoder
from audiocli.errors import AudiocliError, ResponseInterrupted
from audiocli.gateways import chat_completions
from audiocli.mock import (
    DEFAULT_CHAT_REPLY,
    KEYS,
    ChatFault,
    CutAfter,
    CutBeforeResponse,
    Empty,
    EventStreamFault,
    Garbage,
    Html,
    MockGateway,
    OkWithError,
    Stall,
    Status,
    WrongTypes,
    expected_pcm,
)
from tests.conftest import CommandLine
from tests.programs import write_program
from tests.pyav_codec import encode, expected_audio

MESSAGE_PCM = expected_pcm("What time is it?")
REPLY_PCM = expected_pcm(DEFAULT_CHAT_REPLY)
INVALID_BASE64_EVENT = 'data: {"choices": [{"delta": {"audio": {"data": "ääää"}}}]}\n\n'.encode()
CHAT_MODELS = {
    "openrouter": "openai/gpt-audio",
    "openai": "gpt-audio-1.5",
    "arouter": "openai/gpt-5.4-audio-preview",
}


@pytest.fixture
def audiocli_with_all_keys(audiocli: CommandLine) -> CommandLine:
    """Return a command line with a key for each gateway that supports chat."""
    audiocli.variables |= {"OPENAI_API_KEY": KEYS["openai"] or "", "AROUTER_API_KEY": KEYS["arouter"] or ""}
    return audiocli


def write_message_audio(directory: Path, format: str = "wav") -> Path:
    path = directory / f"message.{format}"
    path.write_bytes(encode(MESSAGE_PCM, format))
    return path


def measure_duration_ms(content: bytes, format: str) -> int:
    decoder = Decoder(format)
    size_bytes = len(decoder.feed(content)) + sum(map(len, decoder.finish()))
    assert decoder.pcm is not None
    duration_ms = size_bytes // (decoder.pcm.frame_bytes * decoder.pcm.sample_rate_hz // 1000)
    decoder.close()
    return duration_ms


def join_thread(thread: threading.Thread, timeout_s: float = 20) -> None:
    """Wait until the command that runs in a thread has exited."""
    thread.join(timeout_s)
    assert not thread.is_alive(), f"audiocli chat did not exit within {timeout_s:g} s"


# --- requests --------------------------------------------------------------------------------------------------------


def test_reply_is_written_to_stdout(audiocli: CommandLine) -> None:
    r = audiocli("chat", "What", "time", "is", "it?")

    assert (r.code, r.text) == (0, DEFAULT_CHAT_REPLY + "\n")
    assert r.requests[0].json == {
        "model": "openai/gpt-audio",
        "stream": True,
        "messages": [{"role": "user", "content": "What time is it?"}],
    }
    assert audiocli.gateway.problems == []


def test_every_option_is_sent_in_the_request(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli(
        *(
            "chat",
            "And now?",
            "-a",
            write_message_audio(tmp_path),
            "--system",
            "Be brief.",
            "-v",
            "nova",
            "--max-tokens",
            "90",
        ),
        *("--option", "temperature=0.5", "--option", 'provider.order=["azure"]', "-o", tmp_path / "x.wav"),
    )

    payload = r.requests[0].json
    system, user = payload.pop("messages")
    assert r.code == 0, r.err
    assert payload == {
        "model": "openai/gpt-audio",
        "modalities": ["text", "audio"],
        "audio": {"voice": "nova", "format": "pcm16"},
        "stream": True,
        "max_tokens": 90,
        "temperature": 0.5,
        "provider": {"order": ["azure"]},
    }
    assert system == {"role": "system", "content": "Be brief."}
    assert [part["type"] for part in user["content"]] == ["text", "input_audio"]
    assert base64.b64decode(user["content"][1]["input_audio"]["data"]) == write_message_audio(tmp_path).read_bytes()
    assert audiocli.gateway.problems == []


@pytest.mark.parametrize("gateway_name", CHAT_MODELS)
def test_each_chat_gateway_receives_a_supported_request(
    audiocli_with_all_keys: CommandLine, gateway_name: str, tmp_path: Path
) -> None:
    r = audiocli_with_all_keys(
        "chat", "-g", gateway_name, "-a", write_message_audio(tmp_path), "-o", tmp_path / "x.mp3", "--json"
    )

    assert r.code == 0, r.err
    assert (r.json["gateway"], r.json["model"], r.json["text"]) == (
        gateway_name,
        CHAT_MODELS[gateway_name],
        DEFAULT_CHAT_REPLY,
    )
    assert r.requests[0].json["audio"] == {"voice": "alloy", "format": "pcm16"}
    assert audiocli_with_all_keys.gateway.problems == []


@pytest.mark.parametrize("format", ["wav", "mp3", "flac", "opus", "aac", "pcm", "m4a", "ogg"])
@pytest.mark.parametrize("gateway_name", ["openai", "arouter"])
def test_reply_without_streaming_is_requested_in_the_output_format(
    audiocli_with_all_keys: CommandLine, gateway_name: str, format: str, tmp_path: Path
) -> None:
    output_path = tmp_path / f"x.{format}"

    r = audiocli_with_all_keys("chat", "Hi", "-g", gateway_name, "--no-stream", "-o", output_path, "--json")

    wire_format = {"pcm": "pcm16", "m4a": "pcm16", "ogg": "opus"}.get(format, format)
    assert r.code == 0, r.err
    assert "stream" not in r.requests[0].json
    assert r.requests[0].json["audio"]["format"] == wire_format
    assert r.json["format"] == format
    if format != "m4a":
        assert output_path.read_bytes() == expected_audio(DEFAULT_CHAT_REPLY, {"ogg": "opus"}.get(format, format))
    assert audiocli_with_all_keys.gateway.problems == []


def test_openrouter_audio_is_always_streamed(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("chat", "Hi", "--no-stream", "-o", tmp_path / "x.wav")

    assert r.code == 0
    assert r.requests[0].json["stream"] is True
    assert "--no-stream has no effect" in r.err


def test_no_stream_requests_a_complete_text_reply(audiocli: CommandLine) -> None:
    r = audiocli("chat", "Hi", "--no-stream")

    assert (r.code, r.text) == (0, DEFAULT_CHAT_REPLY + "\n")
    assert "stream" not in r.requests[0].json


@pytest.mark.parametrize(("gateway_name", "format", "sent_format"), [
    ("openai", "flac", "wav"), ("openai", "mp3", "mp3"), ("openai", "ogg", "wav"),
    ("openrouter", "flac", "flac"), ("openrouter", "ogg", "ogg"), ("arouter", "flac", "flac"),
    ("arouter", "aac", "flac"),
])  # fmt: skip
def test_recording_is_sent_unchanged_or_in_a_supported_format(
    audiocli_with_all_keys: CommandLine, gateway_name: str, format: str, sent_format: str, tmp_path: Path
) -> None:
    r = audiocli_with_all_keys("chat", "-g", gateway_name, "-a", write_message_audio(tmp_path, format))

    [(declared_format, detected_format, duration_s)] = r.requests[0].recordings
    assert r.code == 0, r.err
    assert declared_format == detected_format == sent_format
    assert duration_s == pytest.approx(len(MESSAGE_PCM) / 48_000, abs=0.15)
    assert audiocli_with_all_keys.gateway.problems == []


def test_several_recordings_are_sent_in_order(audiocli: CommandLine, tmp_path: Path) -> None:
    short_recording = tmp_path / "short.wav"
    short_recording.write_bytes(encode(expected_pcm("No."), "wav"))

    r = audiocli("chat", "Compare.", "-a", short_recording, "-a", write_message_audio(tmp_path, "mp3"))

    assert r.code == 0, r.err
    assert [declared_format for declared_format, _, _ in r.requests[0].recordings] == ["wav", "mp3"]
    assert r.ledger[0]["audio_ms"] == pytest.approx(300 + 960, abs=80)


def test_recording_is_read_from_stdin(audiocli: CommandLine) -> None:
    r = audiocli("chat", "-a", "-", stdin=encode(MESSAGE_PCM, "wav"))

    assert (r.code, r.text) == (0, DEFAULT_CHAT_REPLY + "\n")
    assert r.requests[0].recordings == [("wav", "wav", 0.96)]


def test_streamed_wav_from_stdin_is_sent_with_its_actual_length(audiocli: CommandLine) -> None:
    wav = bytearray(encode(MESSAGE_PCM, "wav"))
    wav[4:8] = wav[40:44] = (0x7FFF_F024).to_bytes(4, "little")

    r = audiocli("chat", "-a", "-", stdin=bytes(wav))

    assert r.code == 0, r.err
    assert r.requests[0].recordings[0][2] == pytest.approx(0.96, abs=0.01)
    sent = base64.b64decode(r.requests[0].json["messages"][0]["content"][0]["input_audio"]["data"])
    assert sent[:4] != b"RIFF" or int.from_bytes(sent[4:8], "little") == len(sent) - 8


def test_text_is_read_from_piped_stdin(audiocli: CommandLine) -> None:
    r = audiocli("chat", stdin=b"What time is it?\n")

    assert r.code == 0
    assert r.requests[0].json["messages"] == [{"role": "user", "content": "What time is it?\n"}]


def test_recording_above_the_size_limit_is_compressed(audiocli_with_all_keys: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(encode(bytes(48_000 * 200), "wav"))

    r = audiocli_with_all_keys("chat", "-g", "arouter", "-a", path)

    assert r.code == 0, r.err
    assert r.requests[0].recordings[0][0] == "mp3"
    assert r.requests[0].size_bytes < 10 * 1024 * 1024


# --- outputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["mp3", "wav", "flac", "opus", "ogg", "aac", "m4a", "pcm"])
def test_audio_reply_is_written_in_every_format(audiocli: CommandLine, format: str, tmp_path: Path) -> None:
    output_path = tmp_path / f"reply.{format}"

    r = audiocli("chat", "Hi", "-o", output_path, "--json")

    content = output_path.read_bytes()
    assert r.code == 0, r.err
    assert (r.json["format"], r.json["bytes"]) == (format, len(content))
    assert r.json["duration_s"] == pytest.approx(1.2)
    if format == "pcm":
        assert content == REPLY_PCM
    else:
        assert measure_duration_ms(content, format) == pytest.approx(1200, abs=100)


def test_transcript_of_audio_reply_is_written_to_stderr(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("chat", "Hi", "-o", tmp_path / "x.wav")

    assert r.out == b""
    assert r.err.splitlines()[0] == DEFAULT_CHAT_REPLY


def test_audio_reply_is_written_to_stdout(audiocli: CommandLine) -> None:
    r = audiocli("chat", "Hi", "-f", "pcm", "-o", "-", "--json")

    assert (r.code, r.out) == (0, REPLY_PCM)
    assert r.err_json["text"] == DEFAULT_CHAT_REPLY
    assert r.err_json["output"] == "-"


def test_audio_format_with_piped_stdout_requests_audio(audiocli: CommandLine) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb", buffering=0) as out, os.fdopen(reader, "rb") as reader_file:
        received: list[bytes] = []
        thread = threading.Thread(target=lambda: received.append(reader_file.read()))
        thread.start()
        r = audiocli("chat", "Hi", "-f", "wav", stdout=out)
        out.close()
        join_thread(thread)

    assert r.code == 0, r.err
    assert received[0][44:] == REPLY_PCM


def test_audio_reply_is_played(audiocli: CommandLine, tmp_path: Path) -> None:
    player = Path(audiocli.variables["PATH"]) / "mpv"
    write_program(player, f'#!/bin/sh\n/bin/cat > "{tmp_path}/played"\n')

    r = audiocli("chat", "-a", "-", "--play", stdin=encode(MESSAGE_PCM, "wav"))

    assert r.code == 0, r.err
    assert (tmp_path / "played").read_bytes()[44:] == REPLY_PCM
    assert DEFAULT_CHAT_REPLY in r.err


def test_audio_is_written_when_the_first_delta_arrives(audiocli: CommandLine) -> None:
    audiocli.gateway.chat_reply = "One two three four five six. " * 40
    audiocli.gateway.hold_responses(after_bytes=60_000)
    reader, writer = os.pipe()
    results: list[Any] = []
    with os.fdopen(writer, "wb", buffering=0) as out, os.fdopen(reader, "rb", buffering=0) as reader_file:
        thread = threading.Thread(
            target=lambda: results.append(audiocli("chat", "Hi", "-f", "wav", "-o", "-", stdout=out))
        )
        thread.start()
        audiocli.gateway.wait_for_held_responses()
        first = reader_file.read(4000)
        audiocli.gateway.release_responses()
        remainder = bytearray()
        while len(remainder) + len(first) < 44 + 2880 * len(audiocli.gateway.chat_reply):
            remainder += reader_file.read(65536)
        join_thread(thread)

    assert first[:4] == b"RIFF"
    assert bytes(first + remainder)[44:] == expected_pcm(audiocli.gateway.chat_reply)
    assert results[0].code == 0


def test_text_is_written_when_the_first_delta_arrives(audiocli: CommandLine) -> None:
    audiocli.gateway.hold_responses(after_bytes=600)
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb", buffering=0) as out, os.fdopen(reader, "rb", buffering=0) as reader_file:
        thread = threading.Thread(target=lambda: audiocli("chat", "Hi", stdout=out))
        thread.start()
        audiocli.gateway.wait_for_held_responses()
        first = reader_file.read(100)
        audiocli.gateway.release_responses()
        join_thread(thread)

    assert first and DEFAULT_CHAT_REPLY.startswith(first.decode())


def test_text_reply_is_written_to_a_file(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("chat", "Hi", "-o", tmp_path / "reply.txt")

    assert (r.code, r.out) == (0, b"")
    assert (tmp_path / "reply.txt").read_text() == DEFAULT_CHAT_REPLY + "\n"
    assert "modalities" not in r.requests[0].json


def test_control_characters_are_removed_on_a_terminal(audiocli: CommandLine) -> None:
    audiocli.gateway.chat_reply = "one \x1b]0;title\x07 two"

    r = audiocli("chat", "Hi", terminal="in out")

    assert "\x1b" not in r.text
    assert "two" in r.text


# --- event streams ---------------------------------------------------------------------------------------------------

STREAM_FAULTS = {
    "plain": ChatFault(),
    "single delta": ChatFault(single_audio_delta=True),
    "padded deltas": ChatFault(pad_each_delta=True),
    "comments": ChatFault(events=EventStreamFault(add_comments=True)),
    "crlf": ChatFault(events=EventStreamFault(use_crlf=True)),
    "no space after colon": ChatFault(events=EventStreamFault(omit_space=True)),
    "blocks of seven bytes": ChatFault(events=EventStreamFault(split_bytes=7, use_crlf=True, add_comments=True)),
    "no [DONE]": ChatFault(events=EventStreamFault(omit_done_event=True)),
}


@pytest.mark.parametrize("name", STREAM_FAULTS)
@pytest.mark.parametrize("gateway_name", CHAT_MODELS)
def test_every_stream_variant_gives_the_same_reply(
    audiocli_with_all_keys: CommandLine, gateway_name: str, name: str, tmp_path: Path
) -> None:
    audiocli_with_all_keys.gateway.chat_reply = "Es ist zehn nach neun, 日本 – naïve."
    audiocli_with_all_keys.gateway.queue_faults(STREAM_FAULTS[name])

    r = audiocli_with_all_keys("chat", "Hi", "-g", gateway_name, "-o", tmp_path / "x.pcm", "--json")

    assert r.code == 0, r.err
    assert r.json["text"] == audiocli_with_all_keys.gateway.chat_reply
    assert (tmp_path / "x.pcm").read_bytes() == expected_pcm(audiocli_with_all_keys.gateway.chat_reply)
    assert r.json["usage"]["output_audio_tokens"] == 41


def test_audio_delta_larger_than_a_megabyte_is_accepted(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.chat_reply = "A long answer it is. " * 20
    audiocli.gateway.queue_faults(ChatFault(single_audio_delta=True))

    r = audiocli("chat", "Hi", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    assert (tmp_path / "x.wav").stat().st_size == 44 + len(expected_pcm(audiocli.gateway.chat_reply)) > 1_000_000


@pytest.mark.parametrize(("fault", "code"), [
    (ChatFault(truncate=True), 7),
    (CutAfter(20_000), 7),
    (CutAfter(20_000, reset=True), 7),
    (CutBeforeResponse(), 7),
    (ChatFault(text_only=True), 9),
    (Empty(chunked=True), 9),
    (Html(), 9),
    (Garbage(INVALID_BASE64_EVENT), 9),
    (WrongTypes(), 9),
    (OkWithError(None), 9),
    (ChatFault(events=EventStreamFault(error_after=3, error_status=400)), 6),
    (ChatFault(events=EventStreamFault(error_after=3, error_status=402)), 5),
])  # fmt: skip
def test_failed_reply_leaves_no_output_file(audiocli: CommandLine, fault: Any, code: int, tmp_path: Path) -> None:
    audiocli.gateway.add_default_fault(fault)

    r = audiocli("chat", "Hi", "-o", tmp_path / "x.mp3")

    assert r.code == code, r.err
    assert [path.name for path in tmp_path.iterdir()] == ["world"]
    assert len(r.requests) == 1
    assert r.ledger[0]["outcome"] in ("unknown", "failed", "refused")


@pytest.mark.parametrize("fault", [ChatFault(truncate=True), CutAfter(700), Stall(700, 30)])
def test_truncated_text_reply_is_an_error(audiocli: CommandLine, fault: Any) -> None:
    audiocli.gateway.queue_faults(fault)

    r = audiocli("chat", "Hi", "--timeout", "0.4")

    assert r.code == 7
    assert len(r.requests) == 1
    assert r.ledger[0]["outcome"] == "unknown"


def test_temporary_stream_error_is_retried_before_any_output(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(ChatFault(events=EventStreamFault(error_after=4, error_status=503)), Status(429))

    r = audiocli("chat", "Hi", "-o", tmp_path / "x.pcm")

    assert r.code == 0, r.err
    assert (tmp_path / "x.pcm").read_bytes() == REPLY_PCM
    assert [entry["outcome"] for entry in r.ledger] == ["refused", "refused", "ok"]


def test_temporary_stream_error_is_not_retried_after_output(audiocli: CommandLine) -> None:
    audiocli.gateway.queue_faults(ChatFault(events=EventStreamFault(error_after=8, error_status=503)))

    r = audiocli("chat", "Hi")

    assert r.code == 6
    assert len(r.requests) == 1


def test_json_reply_to_a_streaming_request_is_accepted(audiocli: CommandLine) -> None:
    body = {"choices": [{"message": {"content": "Noon."}, "finish_reason": "stop"}]}
    audiocli.gateway.queue_faults(Garbage(json.dumps(body).encode(), "application/json"))

    r = audiocli("chat", "Hi")

    assert (r.code, r.text) == (0, "Noon.\n")


def test_event_stream_with_wrong_content_type_is_detected(audiocli: CommandLine) -> None:
    event = {"choices": [{"delta": {"content": "Noon."}, "finish_reason": "stop"}]}
    audiocli.gateway.queue_faults(Garbage(f": hello\n\ndata: {json.dumps(event)}\n\n".encode(), "text/plain"))

    r = audiocli("chat", "Hi")

    assert (r.code, r.text) == (0, "Noon.\n")


def test_audio_in_another_format_than_requested_is_converted_with_a_warning(
    audiocli: CommandLine, tmp_path: Path
) -> None:
    audiocli.gateway.queue_faults(ChatFault(audio_format="mp3"))

    r = audiocli("chat", "Hi", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    assert "sent mp3 instead of pcm" in r.err
    with wave.open(str(tmp_path / "x.wav")) as reader:
        assert reader.getnframes() / reader.getframerate() == pytest.approx(1.2, abs=0.1)


@pytest.mark.parametrize(
    ("finish_reason", "warning"), [("length", "cut off at the maximum"), ("content_filter", "filter")]
)
def test_early_finish_reason_is_a_warning(audiocli: CommandLine, finish_reason: str, warning: str) -> None:
    audiocli.gateway.queue_faults(ChatFault(finish_reason=finish_reason))

    r = audiocli("chat", "Hi", "--max-tokens", "5", "--json")

    assert r.code == 0
    assert r.json["finish"] == finish_reason
    assert warning in " ".join(r.json["warnings"])


# --- cost ------------------------------------------------------------------------------------------------------------


def test_audio_tokens_are_recorded_separately_in_the_ledger(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("chat", "What is this?", "-a", write_message_audio(tmp_path), "-o", tmp_path / "x.wav")

    [entry] = r.ledger
    assert (entry["command"], entry["outcome"], entry["cost_source"]) == ("chat", "ok", "reported")
    assert entry["cost_nanousd"] == audiocli.gateway.billed_nanousd
    assert (entry["input_tokens"], entry["input_audio_tokens"]) == (16, 10)
    assert (entry["output_tokens"], entry["output_audio_tokens"]) == (30, 24)
    assert entry["generation_id"] == r.requests[0].generation_id


def test_upstream_cost_of_a_provider_key_is_recorded(audiocli: CommandLine) -> None:
    audiocli.gateway.queue_faults(ChatFault(byok=True))

    r = audiocli("chat", "Hi", "--json")

    billed_nanousd = audiocli.gateway.billed_nanousd
    assert r.ledger[0]["upstream_nanousd"] == billed_nanousd
    assert r.ledger[0]["cost_nanousd"] == billed_nanousd // 20
    assert r.json["upstream_cost_usd"] == pytest.approx(billed_nanousd / 1e9)


def test_cost_that_is_not_reported_is_unknown(audiocli: CommandLine) -> None:
    audiocli.gateway.queue_faults(ChatFault(omit_usage=True))

    r = audiocli("chat", "Hi", "--json")

    assert r.code == 0
    assert r.json["cost_usd"] is None
    assert r.ledger[0]["cost_source"] == "unknown"


@pytest.mark.parametrize("cost", ["free", -1, 1e30])
def test_invalid_cost_of_a_reply_is_unknown_with_a_warning(audiocli: CommandLine, cost: Any) -> None:
    audiocli("models", "-g", "openrouter")
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "cost": cost}
    body = {"choices": [{"message": {"content": "Noon."}, "finish_reason": "stop"}], "usage": usage}
    audiocli.gateway.queue_faults(Garbage(json.dumps(body).encode(), "application/json"))

    r = audiocli("chat", "Hi", "--no-stream")

    assert r.code == 0, r.err
    assert "reported an invalid cost" in r.err
    assert r.ledger[0]["cost_source"] == "unknown"


def test_dry_run_estimates_the_cost_from_token_prices(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli("models", "-g", "openrouter")
    audiocli.gateway.queue_faults(ChatFault(omit_usage=True), ChatFault())

    plan = audiocli("chat", "Hi", "-n", "--max-tokens", "100", "-o", tmp_path / "x.wav", "--json").json
    open_ended = audiocli("chat", "Hi", "-n").text

    assert plan["price_usd_most"] >= 100 * 8 * 0.00001
    assert "or more" in open_ended


def test_spending_limit_requires_a_maximum_reply_length(audiocli: CommandLine) -> None:
    audiocli("models", "-g", "openrouter")

    without_maximum = audiocli("chat", "Hi", "--max-cost", "1")
    too_low = audiocli("chat", "Hi", "--max-cost", "0.0001", "--max-tokens", "100")
    sufficient = audiocli("chat", "Hi", "--max-cost", "1", "--max-tokens", "100")

    assert [without_maximum.code, too_low.code, sufficient.code] == [5, 5, 0]
    assert without_maximum.requests == too_low.requests == []
    assert "--max-tokens" in audiocli("chat", "--help").text


def test_configured_token_price_applies_to_input_and_output(audiocli: CommandLine) -> None:
    audiocli.write_config('[prices]\n"openai:gpt-audio-1.5" = { per = "1M tokens", usd = 10.0 }\n')
    key = {"OPENAI_API_KEY": KEYS["openai"] or ""}

    plan = audiocli("chat", "Hi", "-g", "openai", "-n", "--max-tokens", "1000", "--json", variables=key).json
    result = audiocli("chat", "Hi", "-g", "openai", "--json", variables=key)

    assert plan["price_usd_most"] >= 0.01
    assert result.json["usage"]["input_tokens"] + result.json["usage"]["output_tokens"] == 9
    assert result.json["cost_usd"] == pytest.approx(0.00009)
    assert result.json["cost_source"] == "computed"


def test_ledger_of_an_older_version_gains_audio_token_columns(audiocli: CommandLine) -> None:
    from audiocli.ledger import database as schema

    audiocli.ledger_path.parent.mkdir(parents=True)
    database = sqlite3.connect(audiocli.ledger_path)
    for migrate in schema.MIGRATIONS[:2]:
        migrate(database)
    database.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    database.execute("PRAGMA user_version = 2")
    database.commit()
    database.close()

    r = audiocli("chat", "Hi")

    assert r.code == 0, r.err
    assert r.ledger[0]["input_audio_tokens"] == 0


# --- invalid input ---------------------------------------------------------------------------------------------------


def test_missing_message_is_a_usage_error(audiocli: CommandLine) -> None:
    for r in (audiocli("chat", terminal="in"), audiocli("chat", "  "), audiocli("chat", stdin=b"\n")):
        assert r.code == 2
        assert "no message" in r.err
        assert r.requests == []


@pytest.mark.parametrize(
    "argv",
    [
        ["chat", "-", "-a", "-"],
        ["chat", "-a", "-", "-a", "-"],
        ["chat", "hi", "-o", "x.txt", "--play"],
        ["chat", "hi", "-f", "txt", "--play"],
        ["chat", "hi", "-f", "bogus"],
        ["chat", "hi", "-a", "missing.wav"],
        ["chat", "hi", "--max-tokens", "0"],
        ["chat", "hi", "--option", "messages=[]"],
        ["chat", "hi", "--option", "stream=false"],
        ["chat", "hi", "--option", "audio.voice=nova"],
        ["chat", "hi", "-m", "openrouter:gpt-4o-audio-preview"],
        ["chat", "hi", "-g", "groq"],
        ["chat", "hi", "-m", "groq:llama-4", "-o", "x.mp3"],
        ["chat", "hi", "-g", "local"],
        ["chat", "hi", "-m", "local:espeak"],
    ],
)
def test_invalid_usage_sends_nothing(audiocli: CommandLine, argv: list[str]) -> None:
    r = audiocli(*argv, variables={"GROQ_API_KEY": KEYS["groq"] or ""})

    assert r.code == 2, r.err
    assert r.requests == []
    assert r.ledger == []


@pytest.mark.parametrize("models_cached", [False, True])
@pytest.mark.parametrize("options", [["-o", "x.mp3"], ["-f", "wav", "-o", "-"]])
def test_model_without_audio_output_is_rejected_with_an_alternative(
    audiocli: CommandLine, options: list[str], models_cached: bool
) -> None:
    if models_cached:
        audiocli("models", "-g", "openrouter")

    r = audiocli("chat", "Hi", "-m", "openrouter:openai/gpt-5.4", *options)

    assert r.code == 2
    assert "openrouter:openai/gpt-5.4 does not support audio output" in r.err
    assert "try openrouter:openai/gpt-audio" in r.err
    assert r.requests == []


def test_model_without_audio_input_is_rejected_with_an_alternative(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("chat", "-a", write_message_audio(tmp_path), "-m", "openrouter:openai/gpt-5.4")

    assert r.code == 2
    assert "does not support audio input\nhint: try openrouter:openai/gpt-audio" in r.err
    assert r.requests == []


def test_refused_audio_format_is_converted_and_not_sent_again(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(Status(400, message="Unsupported audio format flac"))

    first = audiocli("chat", "-a", write_message_audio(tmp_path, "flac"))
    second = audiocli("chat", "-a", write_message_audio(tmp_path, "flac"))

    assert (first.code, second.code) == (0, 0), first.err
    assert [request.recordings[0][0] for request in first.requests] == ["flac", "wav"]
    assert [request.recordings[0][0] for request in second.requests] == ["wav"]


@pytest.mark.parametrize("event", [
    {"type": "error", "message": "no"}, {"choices": [{"delta": {}, "finish_reason": "error"}]},
    {"error": "no"}, {"error": {"message": "no", "code": None}},
])  # fmt: skip
def test_stream_error_without_status_is_an_invalid_response(audiocli: CommandLine, event: Any) -> None:
    body = f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode()
    audiocli.gateway.add_default_fault(Garbage(body, "text/event-stream"))

    r = audiocli("chat", "Hi")

    assert r.code == 9
    assert r.ledger[0]["outcome"] == "failed"


def test_model_without_audio_replies_with_text(audiocli: CommandLine) -> None:
    r = audiocli("chat", "Hi", "-m", "openrouter:openai/gpt-5.4")

    assert (r.code, r.text) == (0, DEFAULT_CHAT_REPLY + "\n")


def test_model_without_audio_output_falls_back_to_the_next(audiocli_with_all_keys: CommandLine, tmp_path: Path) -> None:
    r = audiocli_with_all_keys(
        *("chat", "Hi", "-m", "openrouter:openai/gpt-5.4", "-m", "arouter:openai/gpt-5.4-audio-preview"),
        *("-o", tmp_path / "x.wav", "--json"),
    )

    assert r.code == 0, r.err
    assert r.json["gateway"] == "arouter"
    assert "does not support audio output" in r.json["routes"][0]["reason"]


@pytest.mark.parametrize("content", [b"", b"this is not audio " * 100, encode(b"", "wav"), b"RIFF\x00\x00\x00\x00WAVE"])
def test_file_without_audio_is_not_sent(audiocli: CommandLine, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "invalid.wav"
    path.write_bytes(content)

    r = audiocli("chat", "-a", path)

    assert r.code == 8
    assert r.requests == []


def test_output_cannot_overwrite_the_input_recording(audiocli: CommandLine, tmp_path: Path) -> None:
    path = write_message_audio(tmp_path)

    r = audiocli("chat", "-a", path, "-o", path)

    assert r.code == 2
    assert path.read_bytes() == encode(MESSAGE_PCM, "wav")


def test_audio_is_not_written_to_a_terminal(audiocli: CommandLine) -> None:
    r = audiocli("chat", "Hi", "-o", "-", terminal="out in")

    assert r.code == 2
    assert r.requests == []


def test_missing_key_error_lists_the_chat_gateways(audiocli: CommandLine) -> None:
    r = audiocli("chat", "Hi", variables={"OPENROUTER_API_KEY": ""})

    assert r.code == 4
    assert "OPENROUTER_API_KEY" in r.err and "AROUTER_API_KEY" in r.err
    assert "GROQ_API_KEY" not in r.err


def test_voice_for_a_text_reply_is_a_warning(audiocli: CommandLine) -> None:
    r = audiocli("chat", "Hi", "-v", "nova")

    assert r.code == 0
    assert "--voice has no effect" in r.err


def test_models_and_voice_are_read_from_the_config_file(audiocli_with_all_keys: CommandLine, tmp_path: Path) -> None:
    audiocli_with_all_keys.write_config('[chat]\nmodels = ["arouter:openai/gpt-5.4-audio-preview"]\nvoice = "nova"\n')

    r = audiocli_with_all_keys("chat", "Hi", "-o", tmp_path / "x.wav", "--json")

    assert (r.json["gateway"], r.json["voice"]) == ("arouter", "nova")


def test_chat_supports_a_custom_base_url(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli(
        *("chat", "Hi", "--base-url", audiocli.gateway.base_url("plain"), "-m", "talker", "-o", tmp_path / "x.pcm"),
        variables={"OPENROUTER_API_KEY": ""},
    )

    assert r.code == 0, r.err
    assert (tmp_path / "x.pcm").read_bytes() == REPLY_PCM


def test_paid_reply_is_saved_if_stdout_is_full(audiocli: CommandLine) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full_device:
        r = audiocli("chat", "Hi", "-f", "wav", "-o", "-", stdout=full_device)

    assert r.code == 10
    assert "saved in" in r.err


def test_closed_stdout_is_not_an_error(audiocli: CommandLine) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as out:
        r = audiocli("chat", "Hi", stdout=out)

    assert r.code == 0
    assert r.ledger[0]["outcome"] == "cancelled"


# --- stream decoder --------------------------------------------------------------------------------------------------


def build_event_stream(events: list[dict[str, Any]], *, has_done_event: bool, line_end: str) -> bytes:
    fields = [f"data: {json.dumps(event, ensure_ascii=False)}" for event in events] + (
        ["data: [DONE]"] if has_done_event else []
    )
    return "".join(field + 2 * line_end for field in fields).encode()


def decode_stream(blocks: list[bytes]) -> tuple[str, bytes, Any, str | None]:
    stream = chat_completions.ChatStream({})
    deltas = [delta for block in blocks for delta in stream.feed(block)]
    deltas += stream.finish()
    return (
        "".join(delta.text for delta in deltas),
        b"".join(delta.audio for delta in deltas),
        stream.usage,
        stream.finish_reason,
    )


@settings(max_examples=150)
@given(
    audio=st.binary(max_size=200),
    text=st.text(max_size=40),
    block_offsets=st.lists(st.integers(0, 5000), max_size=12),
    delta_offsets=st.lists(st.integers(0, 400), max_size=6),
    pad_each_delta=st.booleans(),
    has_done_event=st.booleans(),
    usage_in_last_choice=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_stream_split_at_any_byte_gives_the_same_reply(
    audio: bytes,
    text: str,
    block_offsets: list[int],
    delta_offsets: list[int],
    pad_each_delta: bool,
    has_done_event: bool,
    usage_in_last_choice: bool,
    line_end: str,
) -> None:
    if pad_each_delta:
        offsets = sorted({min(offset, len(audio)) for offset in delta_offsets} | {0, len(audio)})
        deltas = [base64.b64encode(audio[start:end]).decode() for start, end in pairwise(offsets)]
    else:
        encoded = base64.b64encode(audio).decode()
        offsets = sorted({min(offset, len(encoded)) for offset in delta_offsets} | {0, len(encoded)})
        deltas = [encoded[start:end] for start, end in pairwise(offsets)]
    events: list[dict[str, Any]] = [{"choices": [{"delta": {"audio": {"data": delta}}}]} for delta in deltas]
    events.insert(len(events) // 2, {"choices": [{"delta": {"audio": {"transcript": text}}}]})
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "cost": 0.001}
    if usage_in_last_choice:
        events.append({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage})
    else:
        events += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": usage}]
    stream = build_event_stream(events, has_done_event=has_done_event, line_end=line_end)
    offsets = sorted({min(offset, len(stream)) for offset in block_offsets} | {0, len(stream)})

    reply_text, reply_audio, reply_usage, finish_reason = decode_stream(
        [stream[start:end] for start, end in pairwise(offsets)]
    )

    assert (reply_text, reply_audio, finish_reason) == (text, audio, "stop")
    assert (reply_usage.input_tokens, reply_usage.output_tokens, reply_usage.cost_nanousd) == (3, 4, 1_000_000)


@settings(max_examples=100)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "delta", "audio", "data", "usage", "message", "content", "cost_details", "id"]),
        inner, max_size=4),
    max_leaves=12,
))  # fmt: skip
def test_invalid_stream_events_raise_only_audiocli_errors(value: Any) -> None:
    stream = chat_completions.ChatStream({})

    raised = None
    try:
        list(stream.feed(f"data: {json.dumps(value)}\n\n".encode()))
        list(stream.finish())
        chat_completions.parse_reply(json.dumps(value).encode(), {})
    except AudiocliError as error:
        raised = error

    assert raised is None or raised.message


def test_stream_without_its_end_is_truncated() -> None:
    stream = chat_completions.ChatStream({})
    list(stream.feed(b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n'))

    with pytest.raises(ResponseInterrupted):
        list(stream.finish())


# --- comparison with the official client -----------------------------------------------------------------------------


@pytest.fixture
def official_client(gateway: MockGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEYS["openai"], base_url=gateway.base_url("openai"), max_retries=0) as client:
        yield client


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("audio_reply", [False, True])
def test_request_equals_the_request_of_the_official_client(
    audiocli_with_all_keys: CommandLine, official_client: openai.OpenAI, tmp_path: Path, stream: bool, audio_reply: bool
) -> None:
    path = write_message_audio(tmp_path)
    data = base64.b64encode(path.read_bytes()).decode()
    audio_options: Any = {
        "modalities": ["text", "audio"],
        "audio": {"voice": "ash", "format": "pcm16" if stream else "mp3"},
    }
    stream_options: Any = {"stream": True, "stream_options": {"include_usage": True}}
    completion = official_client.chat.completions.create(
        model="gpt-audio-1.5",
        max_completion_tokens=50,
        temperature=0.3,
        messages=[
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Olá"},
                    {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
                ],
            },
        ],
        **(audio_options if audio_reply else {}),
        **(stream_options if stream else {}),
    )
    if stream:
        list(completion)  # type: ignore[call-overload]
    options = ["-o", str(tmp_path / "x.mp3"), "-v", "ash"] if audio_reply else []

    r = audiocli_with_all_keys(
        *("chat", "Olá", "-g", "openai", "-a", path, "--system", "Be brief.", "--max-tokens", "50", *options),
        *("--option", "temperature=0.3", *([] if stream else ["--no-stream"])),
    )

    expected, actual = audiocli_with_all_keys.gateway.posts
    assert r.code == 0, r.err
    assert actual.json == expected.json
    assert (actual.path, actual.headers["authorization"]) == (expected.path, expected.headers["authorization"])
    assert actual.problems == expected.problems == []
