"""Test `speak` through the command line."""

from __future__ import annotations

import hashlib
import os
import stat
import wave
from pathlib import Path

import pytest

from audiocli.mock import (
    CleanTruncation,
    CutAfter,
    CutBeforeResponse,
    Empty,
    Garbage,
    Html,
    MockGateway,
    OkWithError,
    OtherFormat,
    Redirect,
    Status,
    expected_pcm,
    find_closed_port,
)
from tests.conftest import CommandLine
from tests.pyav_codec import expected_audio

TEXT = "Hello there, world."


# --- requests --------------------------------------------------------------------------------------------------------


def test_speech_is_written_with_the_bytes_of_the_gateway(audiocli: CommandLine, tmp_path: Path) -> None:
    output_path = tmp_path / "hello.mp3"

    r = audiocli("speak", "Hello", "there,", "world.", "-o", output_path)

    assert (r.code, r.out) == (0, b"")
    assert output_path.read_bytes() == expected_audio(TEXT, "mp3")
    assert r.requests[0].json == {
        "model": "x-ai/grok-voice-tts-1.0",
        "input": TEXT,
        "response_format": "mp3",
        "voice": "eve",
    }
    assert audiocli.gateway.problems == []


def test_json_result_describes_output_route_and_cost(audiocli: CommandLine, tmp_path: Path) -> None:
    output_path = tmp_path / "hello.mp3"

    r = audiocli("speak", TEXT, "-o", output_path, "--json")

    content = output_path.read_bytes()
    result = r.json
    assert r.err == ""
    assert result["ok"] is True
    assert result["command"] == "speak"
    assert result["output"] == str(output_path)
    assert result["bytes"] == len(content)
    assert result["sha256"] == hashlib.sha256(content).hexdigest()
    assert result["format"] == "mp3"
    assert result["duration_s"] == pytest.approx(len(expected_pcm(TEXT)) / 48_000, abs=0.08)
    assert result["gateway"] == "openrouter"
    assert result["model"] == "x-ai/grok-voice-tts-1.0"
    assert result["voice"] == "eve"
    assert result["generation_ids"] == [r.ledger[0]["generation_id"]]
    assert (result["requests"], result["attempts"]) == (1, 1)
    assert result["cost_usd"] is None
    assert result["cost_source"] == "unknown"
    assert result["elapsed_s"] >= result["first_byte_s"] > 0


def test_every_option_is_sent_in_the_request(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli(
        *("speak", TEXT, "-o", tmp_path / "x.mp3", "-m", "openrouter:openai/gpt-4o-mini-tts-2025-12-15"),
        *("-v", "coral", "-x", "1.5", "-i", "Whisper.", "--option", "azure.style=cheerful", "--option", "azure.n=2"),
    )

    assert r.code == 0, r.err
    assert r.requests[0].json["voice"] == "coral"
    assert r.requests[0].json["speed"] == 1.5
    assert r.requests[0].json["instructions"] == "Whisper."
    assert r.requests[0].json["provider"] == {"options": {"azure": {"style": "cheerful", "n": 2}}}


def test_key_is_sent_only_in_the_authorization_header(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", "--debug")

    assert r.requests[0].headers["authorization"] == "Bearer sk-or-test"
    assert "sk-or-test" not in r.err + str(audiocli.read_ledger_entries()) + r.requests[0].path
    assert audiocli.gateway.problems == []


@pytest.mark.parametrize(
    ("argv", "stdin"),
    [
        (["-F", "-"], TEXT.encode()),
        (["-"], TEXT.encode()),
        ([], TEXT.encode()),
        (["-F", "text.txt"], b""),
        ([], b"\xef\xbb\xbf" + TEXT.encode()),
    ],
)
def test_text_is_read_from_file_or_stdin(
    audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], stdin: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)

    r = audiocli("speak", *argv, "-o", "x.mp3", stdin=stdin)

    assert r.code == 0, r.err
    assert r.requests[0].json["input"] == TEXT


@pytest.mark.parametrize(
    "text", ["a", "a –", "你好，世界", "7 👩‍👩‍👧 👍🏽", 'say "\\n"', "x" * 3000, "<speak>&amp;</speak>"]
)
def test_text_is_sent_unchanged(audiocli: CommandLine, tmp_path: Path, text: str) -> None:
    r = audiocli("speak", "-o", tmp_path / "x.mp3", "--", text)

    assert r.code == 0, r.err
    assert r.requests[0].json["input"] == text


# --- outputs ---------------------------------------------------------------------------------------------------------


def test_piped_stdout_receives_audio_by_default(audiocli: CommandLine) -> None:
    r = audiocli("speak", TEXT)

    assert r.code == 0
    assert r.out == expected_audio(TEXT, "mp3")
    assert "cost unknown" in r.err


def test_json_is_written_to_stderr_if_stdout_has_audio(audiocli: CommandLine) -> None:
    r = audiocli("speak", TEXT, "-o", "-", "--json")

    assert r.out == expected_audio(TEXT, "mp3")
    assert r.err_json["output"] == "-"


def test_audio_is_not_written_to_a_terminal(audiocli: CommandLine) -> None:
    without_output = audiocli("speak", TEXT, terminal="out err")
    with_stdout = audiocli("speak", TEXT, "-o", "-", terminal="out err")

    assert (without_output.code, without_output.out, without_output.requests) == (2, b"", [])
    assert (with_stdout.code, with_stdout.out, with_stdout.requests) == (2, b"", [])
    assert "-o FILE" in without_output.err


def test_replaced_file_has_its_previous_mode(audiocli: CommandLine, tmp_path: Path) -> None:
    output_path = tmp_path / "x.mp3"
    output_path.write_bytes(b"old")
    output_path.chmod(0o640)

    audiocli("speak", TEXT, "-o", output_path)

    assert output_path.read_bytes() == expected_audio(TEXT, "mp3")
    assert stat.S_IMODE(output_path.stat().st_mode) == 0o640


def test_mode_of_a_new_file_follows_the_umask(audiocli: CommandLine, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        audiocli("speak", TEXT, "-o", tmp_path / "x.mp3")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "x.mp3").stat().st_mode) == 0o640


def test_symlink_is_followed(audiocli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "link.mp3").symlink_to("real.mp3")

    audiocli("speak", TEXT, "-o", tmp_path / "link.mp3")

    assert (tmp_path / "link.mp3").is_symlink()
    assert (tmp_path / "real.mp3").read_bytes() == expected_audio(TEXT, "mp3")


def test_device_is_written_not_replaced(audiocli: CommandLine) -> None:
    r = audiocli("speak", TEXT, "-o", "/dev/null")

    assert r.code == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("file_name", ["with space.mp3", "-dash.mp3", "new\nline.mp3", "ü👍.mp3", "x" * 250 + ".mp3"])
def test_unusual_file_names_are_supported(audiocli: CommandLine, tmp_path: Path, file_name: str) -> None:
    r = audiocli("speak", TEXT, "-o", tmp_path / file_name)

    assert r.code == 0, r.err
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file_name]


# --- formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["mp3", "wav", "flac", "opus", "ogg", "aac", "m4a", "pcm"])
@pytest.mark.parametrize("output_kind", ["file", "pipe"])
def test_every_format_is_encoded_from_the_gateway_format(
    audiocli: CommandLine, tmp_path: Path, format: str, output_kind: str
) -> None:
    from audiocli.audio.integrity import create_integrity_checker
    from audiocli.codecs.decoder import Decoder
    from audiocli.types.audio import PcmFormat

    output_path = tmp_path / f"x.{format}"

    r = audiocli("speak", TEXT, "-f", format, *(["-o", output_path] if output_kind == "file" else []))

    assert r.code == 0, r.err
    content = output_path.read_bytes() if output_kind == "file" else r.out
    checker = create_integrity_checker(format, PcmFormat())
    checker.feed(content)
    assert checker.finish().problem is None
    with Decoder(format) as decoder:
        samples = decoder.feed(content) + b"".join(decoder.finish())
        assert decoder.pcm is not None
        duration_s = len(samples) / decoder.pcm.bytes_per_second
    assert duration_s == pytest.approx(len(expected_pcm(TEXT)) / 48_000, abs=0.1)
    assert r.requests[0].json["response_format"] == ("mp3" if format == "mp3" else "pcm")


def test_wav_has_the_gateway_samples_and_a_correct_header(audiocli: CommandLine, tmp_path: Path) -> None:
    output_path = tmp_path / "x.wav"

    audiocli("speak", TEXT, "-o", output_path)

    with wave.open(str(output_path)) as reader:
        assert (reader.getframerate(), reader.getnchannels(), reader.getsampwidth()) == (24_000, 1, 2)
        assert reader.readframes(reader.getnframes()) == expected_pcm(TEXT)


def test_audio_in_another_format_than_requested_is_converted_with_a_warning(
    audiocli: CommandLine, tmp_path: Path
) -> None:
    audiocli.gateway.queue_faults(OtherFormat("wav"))
    output_path = tmp_path / "x.mp3"

    r = audiocli("speak", TEXT, "-o", output_path, "--json")

    assert r.code == 0, r.err
    assert output_path.read_bytes()[:3] in (b"ID3", b"\xff\xf3\x84") or output_path.read_bytes()[0] == 0xFF
    assert any("wav" in warning for warning in r.json["warnings"])


# --- invalid usage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no text"),
        ([""], "no text"),
        (["  \n "], "no text"),
        (["x", "-F", "y"], "TEXT cannot be used with -F"),
        (["x", "-f", "nope"], "unknown format"),
        (["x", "-f", "webm"], "unknown format"),
        (["x", "-o", "x.webm"], "cannot write webm files"),
        (["x", "-x", "5"], "between 0.25 and 4"),
        (["x", "-x", "nan"], "between 0.25 and 4"),
        (["x", "--option", "novalue"], "KEY=VALUE"),
        (["x", "--option", "input=other"], "audiocli sets this field itself"),
        (["x", "-g", "nowhere"], "unknown gateway"),
        (["x", "-m", "openrouter:"], "no model in -m"),
        (["x", "-g", "groq", "-m", "openrouter:a/b"], "contradicts"),
        (["x", "-m", "openrouter:tts-1"], "AUTHOR/SLUG"),
        (["x", "--timeout", "0"], "--timeout"),
        (["x", "--unknown"], "--unknown"),
        (["x", "--no-play", "--player", "mpv"], "--player cannot be used with --no-play"),
        (["-F", "missing.txt"], "missing.txt"),
        (["-F", "/"], "is a directory"),
        (["-F", "latin1.txt"], "byte 3"),
        (["x", "--base-url", "ftp://x"], "URL"),
        (["x", "--play"], "no player"),
        (["x", "-o", ""], "not a file name"),
    ],
)
def test_invalid_usage_is_rejected_before_sending(
    audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latin1.txt").write_bytes("olé".encode()[:2] + b"l\xe9")

    r = audiocli("speak", *argv, *([] if "-o" in argv else ["-o", "out.mp3"]))

    assert (r.code, r.requests) == (2, [])
    assert message in r.err
    assert "Traceback" not in r.err
    assert not Path("out.mp3").exists()


def test_missing_key_error_has_the_environment_variable(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", "x", "-g", "openrouter", "-o", tmp_path / "x.mp3", variables={"OPENROUTER_API_KEY": ""})

    assert (r.code, r.requests, r.ledger) == (4, [], [])
    assert "OPENROUTER_API_KEY" in r.err


def test_json_error_has_the_exit_code(audiocli: CommandLine) -> None:
    r = audiocli("speak", "x", "-f", "nope", "--json")

    assert r.out == b""
    assert r.err_json["ok"] is False
    assert r.err_json["command"] == "speak"
    assert (r.err_json["error"]["exit"], r.err_json["error"]["code"]) == (2, "usage")


# --- failed responses ------------------------------------------------------------------------------------------------

FAILURES = [
    (Status(401), 4, "refused"),
    (Status(403), 4, "refused"),
    (Status(402), 5, "refused"),
    (Status(400), 6, "refused"),
    (Status(404), 6, "refused"),
    (Status(413), 6, "refused"),
    (Status(422), 6, "refused"),
    (Redirect("http://127.0.0.1:9/"), 6, "refused"),
    (Status(408), 7, "unknown"),
    (Status(504), 7, "unknown"),
    (Status(524), 7, "unknown"),
    (OkWithError(400), 6, "refused"),
    (OkWithError(402), 5, "refused"),
    (Empty(), 9, "failed"),
    (Html(200), 9, "failed"),
    (Garbage(b"\x00\x01\x02not audio at all" * 20, "audio/mpeg"), 9, "failed"),
    (CleanTruncation(1000), 9, "failed"),
    (CutAfter(1000), 7, "unknown"),
    (CutAfter(0), 7, "unknown"),
    (CutAfter(1000, reset=True), 7, "unknown"),
    (CutBeforeResponse(), 7, "unknown"),
]


@pytest.mark.parametrize(("fault", "code", "outcome"), FAILURES, ids=lambda value: str(value)[:40])
def test_failed_response_leaves_no_file_and_one_entry(
    audiocli: CommandLine, tmp_path: Path, fault: object, code: int, outcome: str
) -> None:
    audiocli.gateway.queue_faults(fault)

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3")

    assert r.code == code, r.err
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []
    assert [entry["outcome"] for entry in r.ledger] == [outcome]
    assert len(r.requests) == 1
    assert "Traceback" not in r.err
    assert [line.partition(": ")[0] for line in r.err.splitlines()] in (["error"], ["error", "hint"])


def test_response_truncated_at_any_byte_leaves_no_file(audiocli: CommandLine, tmp_path: Path) -> None:
    size = len(expected_audio("hi", "mp3"))
    for size_sent in [*range(80), *range(80, size, 97)]:
        audiocli.gateway.queue_faults(CutAfter(size_sent))

        r = audiocli("speak", "hi", "-o", tmp_path / "x.mp3", "-q")

        assert r.code == 7, (size_sent, r.err)
        assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_pcm_response_with_a_partial_sample_is_invalid(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(CleanTruncation(4001))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.wav")

    assert r.code == 9
    assert not (tmp_path / "x.wav").exists()


def test_unreachable_gateway_is_a_connection_error_without_cost(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", "--base-url", f"http://127.0.0.1:{find_closed_port()}/v1")

    assert r.code == 7
    assert [entry["outcome"] for entry in r.ledger] == ["unsent"] * 3
    assert [entry["cost_nanousd"] for entry in r.ledger] == [0] * 3


def test_speech_too_short_for_its_text_is_a_warning(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(CleanTruncation(24_000))

    r = audiocli("speak", TEXT * 20, "-o", tmp_path / "x.wav", "--json")

    assert r.code == 0, r.err
    assert any("short for this text" in warning for warning in r.json["warnings"])


# --- unwritable outputs ----------------------------------------------------------------------------------------------


def test_missing_output_directory_is_reported_before_sending(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", TEXT, "-o", tmp_path / "no" / "x.mp3")

    assert (r.code, r.requests) == (10, [])
    assert str(tmp_path / "no") in r.err


def test_paid_audio_is_saved_if_the_device_is_full(audiocli: CommandLine) -> None:
    for format in ("mp3", "wav", "flac"):
        r = audiocli("speak", TEXT, "-f", format, "-o", "/dev/full", "--json", "--no-cache")

        saved_path = Path(r.err_json["error"]["kept"])
        assert r.code == 10
        assert [entry["outcome"] for entry in r.ledger] == ["ok"]
        if format == "mp3":
            assert saved_path.read_bytes() == expected_audio(TEXT, "mp3")
        assert saved_path.stat().st_size > 1000


# --- cost and ledger -------------------------------------------------------------------------------------------------


def test_dry_run_says_how_to_fetch_prices(audiocli: CommandLine, tmp_path: Path) -> None:
    command = ("speak", "hello", "-o", tmp_path / "x.mp3", "--dry-run")

    before = audiocli(*command)
    audiocli("models", "-q")
    after = audiocli(*command)

    assert "price       unknown" in before.text and before.requests == []
    assert "hint: fetch the prices with: audiocli models -g openrouter" in before.err
    assert "unknown" not in after.text and "hint" not in after.err


def test_dry_run_sends_nothing_and_reports_an_unknown_price(audiocli: CommandLine, tmp_path: Path) -> None:
    text_plan = audiocli("speak", TEXT, "-n", "-o", tmp_path / "x.mp3")
    json_plan = audiocli("speak", "日本", "-n", "--json").json

    assert (text_plan.code, text_plan.requests, text_plan.ledger) == (0, [], [])
    assert "price       unknown\n" in text_plan.text
    assert (json_plan["characters"], json_plan["utf8_bytes"], json_plan["price_usd"], json_plan["requests"]) == (
        2,
        6,
        None,
        1,
    )
    assert not (tmp_path / "x.mp3").exists()


def test_spending_limit_rejects_an_unpriced_model(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli(
        "speak", TEXT, "-m", "openai:gpt-4o-mini-tts", "--max-cost", "10", "-o", tmp_path / "x.mp3",
        variables={"OPENAI_API_KEY": "sk-test"},
    )  # fmt: skip

    assert (r.code, r.posts, r.ledger) == (5, [], []), r.err


def test_spending_limit_allows_the_local_engine(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", TEXT, "--max-cost", "0", "-g", "local", "-o", tmp_path / "x.wav", "--json")

    assert r.code == 0, r.err
    assert (r.json["cost_usd"], r.ledger) == (0.0, [])


def test_unwritable_ledger_prevents_requests(audiocli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for ledger_path in (tmp_path / "file" / "ledger", Path("/proc/ledger"), tmp_path):
        r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", variables={"AUDIOCLI_LEDGER": str(ledger_path)})

        assert (r.code, r.requests) == (5, []), r.err
        assert "AUDIOCLI_LEDGER" in r.err


def test_file_that_is_not_a_ledger_is_left_unchanged(audiocli: CommandLine, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_bytes(b"this is not a database, but it is long enough to be one" * 100)
    before = notes.read_bytes()

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", variables={"AUDIOCLI_LEDGER": str(notes)})

    assert (r.code, r.requests) == (5, [])
    assert notes.read_bytes() == before


def test_ledger_entry_has_the_priced_units(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", "日本語", "-o", tmp_path / "x.wav", "--tag", "book")

    entry = r.ledger[0]
    assert (entry["characters"], entry["utf8_bytes"], entry["tag"]) == (3, 9, "book")
    assert entry["audio_ms"] == round(len(expected_pcm("日本語")) / 48)
    assert (entry["cost_nanousd"], entry["cost_source"]) == (None, "unknown")


# --- voices ----------------------------------------------------------------------------------------------------------


def test_voice_question_mark_lists_voices(audiocli: CommandLine) -> None:
    remote = audiocli("speak", "-v", "?", "-m", "openrouter:hexgrad/kokoro-82m")
    local = audiocli("speak", "-v", "?", "-g", "local")

    assert "af_heart" in remote.text.split()
    assert {"en-us", "de", "fr"} <= set(local.text.split())
    assert (remote.ledger, remote.code, local.code) == ([], 0, 0)


def test_model_without_known_default_voice_is_sent_no_voice(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", TEXT, "-m", "openrouter:hexgrad/kokoro-82m", "-o", tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert "voice" not in r.requests[0].json


def test_requests_to_openai_and_groq_are_valid(audiocli: CommandLine, gateway: MockGateway) -> None:
    audiocli("speak", TEXT, "-g", "openai", variables={"OPENAI_API_KEY": "sk-test"})
    audiocli("speak", TEXT, "-g", "groq", variables={"GROQ_API_KEY": "gsk-test"})

    assert [request.status for request in gateway.posts] == [200, 200]
    assert gateway.problems == []
