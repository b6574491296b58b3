"""`speak`, through the front door."""

from __future__ import annotations

import hashlib
import os
import stat
import wave
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.gateway import (
    CleanTruncation,
    CutAfter,
    CutBeforeReply,
    Empty,
    Garbage,
    Html,
    LoopbackGateway,
    OtherFormat,
    Redirect,
    Status,
    closed_port,
    expected_audio,
    expected_pcm,
    ok_with_error,
)

TEXT = "Hello there, world."


# --- what goes out ---------------------------------------------------------------------------------------------------


def test_a_text_becomes_a_file_with_the_gateways_own_bytes(audiocli: CommandLine, tmp_path: Path) -> None:
    target = tmp_path / "hello.mp3"

    r = audiocli("speak", "Hello", "there,", "world.", "-o", target)

    assert (r.code, r.out) == (0, b"")
    assert target.read_bytes() == expected_audio(TEXT, "mp3")
    assert r.requests[0].json == {
        "model": "openai/gpt-4o-mini-tts-2025-12-15",
        "input": TEXT,
        "response_format": "mp3",
        "voice": "alloy",
    }
    assert audiocli.gateway.problems == []


def test_the_receipt_tells_what_was_made_and_by_whom(audiocli: CommandLine, tmp_path: Path) -> None:
    target = tmp_path / "hello.mp3"

    r = audiocli("speak", TEXT, "-o", target, "--json")

    content = target.read_bytes()
    receipt = r.json
    assert r.err == ""
    assert receipt["ok"] is True
    assert receipt["command"] == "speak"
    assert receipt["output"] == str(target)
    assert receipt["bytes"] == len(content)
    assert receipt["sha256"] == hashlib.sha256(content).hexdigest()
    assert receipt["format"] == "mp3"
    assert receipt["duration_s"] == pytest.approx(len(expected_pcm(TEXT)) / 48_000, abs=0.08)
    assert receipt["gateway"] == "openrouter"
    assert receipt["model"] == "openai/gpt-4o-mini-tts-2025-12-15"
    assert receipt["voice"] == "alloy"
    assert receipt["generation_ids"] == [r.ledger[0]["generation_id"]]
    assert (receipt["requests"], receipt["attempts"]) == (1, 1)
    assert receipt["cost_usd"] is None
    assert receipt["cost_source"] == "unknown"
    assert receipt["elapsed_s"] >= receipt["first_byte_s"] > 0


def test_every_flag_reaches_the_wire(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli(
        *("speak", TEXT, "-o", tmp_path / "x.mp3", "-m", "openrouter:openai/gpt-4o-mini-tts-2025-12-15"),
        *("-v", "coral", "-x", "1.5", "-i", "Whisper.", "--option", "azure.style=cheerful", "--option", "azure.n=2"),
    )

    assert r.code == 0, r.err
    assert r.requests[0].json["voice"] == "coral"
    assert r.requests[0].json["speed"] == 1.5
    assert r.requests[0].json["provider"] == {
        "options": {"azure": {"style": "cheerful", "n": 2}, "openai": {"instructions": "Whisper."}}
    }


def test_the_key_travels_in_its_header_and_nowhere_else(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", "--debug")

    assert r.requests[0].headers["authorization"] == "Bearer sk-or-test"
    assert "sk-or-test" not in r.err + str(audiocli.entries()) + r.requests[0].path
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
def test_the_text_may_come_from_anywhere(
    audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], stdin: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)

    r = audiocli("speak", *argv, "-o", "x.mp3", stdin=stdin)

    assert r.code == 0, r.err
    assert r.requests[0].json["input"] == TEXT


@pytest.mark.parametrize(
    "text", ["a", "–", "你好，世界", "👩‍👩‍👧 👍🏽", 'say "\\n"', "x" * 4096, "<speak>&amp;</speak>"]
)
def test_any_text_arrives_as_it_was_typed(audiocli: CommandLine, tmp_path: Path, text: str) -> None:
    r = audiocli("speak", "-o", tmp_path / "x.mp3", "--", text)

    assert r.code == 0, r.err
    assert r.requests[0].json["input"] == text


# --- where it goes ---------------------------------------------------------------------------------------------------


def test_a_pipe_gets_audio_without_being_asked(audiocli: CommandLine) -> None:
    r = audiocli("speak", TEXT)

    assert r.code == 0
    assert r.out == expected_audio(TEXT, "mp3")
    assert "cost ?" in r.err


def test_with_audio_on_stdout_the_receipt_goes_to_stderr(audiocli: CommandLine) -> None:
    r = audiocli("speak", TEXT, "-o", "-", "--json")

    assert r.out == expected_audio(TEXT, "mp3")
    assert r.err_json["output"] == "-"


def test_audio_never_goes_to_a_terminal(audiocli: CommandLine) -> None:
    nowhere = audiocli("speak", TEXT, terminal="out err")
    named = audiocli("speak", TEXT, "-o", "-", terminal="out err")

    assert (nowhere.code, nowhere.out, nowhere.requests) == (2, b"", [])
    assert (named.code, named.out, named.requests) == (2, b"", [])
    assert "-o FILE" in nowhere.err


def test_an_existing_file_is_replaced_and_keeps_its_mode(audiocli: CommandLine, tmp_path: Path) -> None:
    target = tmp_path / "x.mp3"
    target.write_bytes(b"old")
    target.chmod(0o640)

    audiocli("speak", TEXT, "-o", target)

    assert target.read_bytes() == expected_audio(TEXT, "mp3")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_new_file_has_the_mode_of_the_umask(audiocli: CommandLine, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        audiocli("speak", TEXT, "-o", tmp_path / "x.mp3")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "x.mp3").stat().st_mode) == 0o640


def test_a_symlink_is_followed(audiocli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "link.mp3").symlink_to("real.mp3")

    audiocli("speak", TEXT, "-o", tmp_path / "link.mp3")

    assert (tmp_path / "link.mp3").is_symlink()
    assert (tmp_path / "real.mp3").read_bytes() == expected_audio(TEXT, "mp3")


def test_a_device_is_written_and_not_replaced(audiocli: CommandLine) -> None:
    r = audiocli("speak", TEXT, "-o", "/dev/null")

    assert r.code == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("name", ["with space.mp3", "-dash.mp3", "new\nline.mp3", "ü👍.mp3", "x" * 250 + ".mp3"])
def test_any_file_name_will_do(audiocli: CommandLine, tmp_path: Path, name: str) -> None:
    r = audiocli("speak", TEXT, "-o", tmp_path / name)

    assert r.code == 0, r.err
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]


# --- formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mp3", "wav", "flac", "opus", "ogg", "aac", "m4a", "pcm"])
@pytest.mark.parametrize("where", ["file", "pipe"])
def test_every_format_is_made_from_what_the_gateway_makes(
    audiocli: CommandLine, tmp_path: Path, name: str, where: str
) -> None:
    from audiocli.codecs.decoder import Decoder
    from audiocli.audio.integrity import inspector
    from audiocli.types.values import Pcm

    target = tmp_path / f"x.{name}"

    r = audiocli("speak", TEXT, "-f", name, *(["-o", target] if where == "file" else []))

    assert r.code == 0, r.err
    content = target.read_bytes() if where == "file" else r.out
    inspection = inspector(name, Pcm())
    inspection.feed(content)
    assert inspection.finish().problem is None
    with Decoder(name) as decoder:
        samples = decoder.feed(content) + b"".join(decoder.finish())
        assert decoder.pcm is not None
        seconds = len(samples) / decoder.pcm.bytes_per_second
    assert seconds == pytest.approx(len(expected_pcm(TEXT)) / 48_000, abs=0.1)
    assert r.requests[0].json["response_format"] == ("mp3" if name == "mp3" else "pcm")


def test_wav_is_the_gateways_samples_behind_a_true_header(audiocli: CommandLine, tmp_path: Path) -> None:
    target = tmp_path / "x.wav"

    audiocli("speak", TEXT, "-o", target)

    with wave.open(str(target)) as reader:
        assert (reader.getframerate(), reader.getnchannels(), reader.getsampwidth()) == (24_000, 1, 2)
        assert reader.readframes(reader.getnframes()) == expected_pcm(TEXT)


def test_another_format_than_asked_for_is_converted_with_a_warning(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(OtherFormat("wav"))
    target = tmp_path / "x.mp3"

    r = audiocli("speak", TEXT, "-o", target, "--json")

    assert r.code == 0, r.err
    assert target.read_bytes()[:3] in (b"ID3", b"\xff\xf3\x84") or target.read_bytes()[0] == 0xFF
    assert any("wav" in warning for warning in r.json["warnings"])


# --- what is refused before anything is sent -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "no text"),
        ([""], "no text"),
        (["  \n "], "no text"),
        (["x", "-F", "y"], "which one"),
        (["x", "-f", "nope"], "unknown format"),
        (["x", "-f", "webm"], "unknown format"),
        (["x", "-o", "x.webm"], "does not make"),
        (["x", "-x", "5"], "0.25 to 4"),
        (["x", "-x", "nan"], "0.25 to 4"),
        (["x", "--option", "novalue"], "KEY=VALUE"),
        (["x", "--option", "input=other"], "audiocli's own"),
        (["x", "-g", "nowhere"], "unknown gateway"),
        (["x", "-m", "openrouter:"], "names no model"),
        (["x", "-g", "groq", "-m", "openrouter:a/b"], "contradicts"),
        (["x", "-m", "openrouter:tts-1"], "author/slug"),
        (["x", "--timeout", "0"], "--timeout"),
        (["x", "--nonsense"], "--nonsense"),
        (["x", "--no-play", "--player", "mpv"], "contradicts"),
        (["-F", "missing.txt"], "missing.txt"),
        (["-F", "/"], "folder"),
        (["-F", "latin1.txt"], "byte 3"),
        (["x", "--base-url", "ftp://x"], "URL"),
        (["x", "--play"], "no player"),
        (["x", "-o", ""], "no file"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_sent(
    audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latin1.txt").write_bytes("olé".encode()[:2] + b"l\xe9")

    r = audiocli("speak", *argv, *([] if "-o" in argv else ["-o", "out.mp3"]))

    assert (r.code, r.requests) == (2, [])
    assert said in r.err
    assert "Traceback" not in r.err
    assert not Path("out.mp3").exists()


def test_no_key_names_the_variable(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", "x", "-g", "openrouter", "-o", tmp_path / "x.mp3", variables={"OPENROUTER_API_KEY": ""})

    assert (r.code, r.requests, r.ledger) == (4, [], [])
    assert "OPENROUTER_API_KEY" in r.err


def test_an_error_in_json_has_the_exit_code_in_it(audiocli: CommandLine) -> None:
    r = audiocli("speak", "x", "-f", "nope", "--json")

    assert r.out == b""
    assert r.err_json["ok"] is False
    assert r.err_json["command"] == "speak"
    assert (r.err_json["error"]["exit"], r.err_json["error"]["code"]) == (2, "usage")


# --- bad answers -----------------------------------------------------------------------------------------------------

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
    (ok_with_error(400), 6, "refused"),
    (ok_with_error(402), 5, "refused"),
    (Empty(), 9, "failed"),
    (Html(200), 9, "failed"),
    (Garbage(b"\x00\x01\x02not audio at all" * 20, "audio/mpeg"), 9, "failed"),
    (CleanTruncation(1000), 9, "failed"),
    (CutAfter(1000), 7, "unknown"),
    (CutAfter(0), 7, "unknown"),
    (CutAfter(1000, reset=True), 7, "unknown"),
    (CutBeforeReply(), 7, "unknown"),
]


@pytest.mark.parametrize(("fault", "code", "outcome"), FAILURES, ids=lambda value: str(value)[:40])
def test_a_bad_answer_leaves_no_file_and_one_entry(
    audiocli: CommandLine, tmp_path: Path, fault: object, code: int, outcome: str
) -> None:
    audiocli.gateway.script(fault)

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3")

    assert r.code == code, r.err
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []
    assert [entry["outcome"] for entry in r.ledger] == [outcome]
    assert len(r.requests) == 1
    assert "Traceback" not in r.err
    assert r.err.startswith("audiocli: ")
    assert r.err.count("\n") == 1


def test_a_cut_at_any_byte_leaves_nothing(audiocli: CommandLine, tmp_path: Path) -> None:
    size = len(expected_audio("hi", "mp3"))
    for cut in [*range(80), *range(80, size, 97)]:
        audiocli.gateway.script(CutAfter(cut))

        r = audiocli("speak", "hi", "-o", tmp_path / "x.mp3", "-q")

        assert r.code == 7, (cut, r.err)
        assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_a_truncated_body_of_any_length_is_noticed_in_pcm(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(CleanTruncation(4001))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.wav")

    assert r.code == 9
    assert not (tmp_path / "x.wav").exists()


def test_an_unreachable_gateway_is_a_network_error_without_a_bill(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", "--base-url", f"http://127.0.0.1:{closed_port()}/v1")

    assert r.code == 7
    assert [entry["outcome"] for entry in r.ledger] == ["unsent"] * 3
    assert [entry["cost_nanousd"] for entry in r.ledger] == [0] * 3


def test_speech_far_too_short_for_its_text_is_warned_about(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(CleanTruncation(24_000))

    r = audiocli("speak", TEXT * 20, "-o", tmp_path / "x.wav", "--json")

    assert r.code == 0, r.err
    assert any("short for this text" in warning for warning in r.json["warnings"])


# --- the output cannot be written ------------------------------------------------------------------------------------


def test_a_missing_folder_is_told_before_anything_is_sent(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", TEXT, "-o", tmp_path / "no" / "x.mp3")

    assert (r.code, r.requests) == (10, [])
    assert str(tmp_path / "no") in r.err


def test_a_full_device_keeps_what_was_paid_for(audiocli: CommandLine) -> None:
    for name in ("mp3", "wav", "flac"):
        r = audiocli("speak", TEXT, "-f", name, "-o", "/dev/full", "--json")

        kept = Path(r.err_json["error"]["kept"])
        assert r.code == 10
        assert [entry["outcome"] for entry in r.ledger] == ["ok"]
        if name == "mp3":
            assert kept.read_bytes() == expected_audio(TEXT, "mp3")
        assert kept.stat().st_size > 1000


# --- money -----------------------------------------------------------------------------------------------------------


def test_a_dry_run_sends_nothing_and_guesses_no_price(audiocli: CommandLine, tmp_path: Path) -> None:
    words = audiocli("speak", TEXT, "-n", "-o", tmp_path / "x.mp3")
    plan = audiocli("speak", "日本", "-n", "--json").json

    assert (words.code, words.requests, words.ledger) == (0, [], [])
    assert "?" in words.text
    assert (plan["characters"], plan["utf8_bytes"], plan["price_usd"], plan["requests"]) == (2, 6, None, 1)
    assert not (tmp_path / "x.mp3").exists()


def test_a_cap_refuses_what_has_no_price(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", TEXT, "--max-cost", "10", "-o", tmp_path / "x.mp3")

    assert (r.code, r.requests, r.ledger) == (5, [], [])


def test_a_cap_lets_the_free_engine_speak(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", TEXT, "--max-cost", "0", "-g", "local", "-o", tmp_path / "x.wav", "--json")

    assert r.code == 0, r.err
    assert (r.json["cost_usd"], r.ledger) == (0.0, [])


def test_a_ledger_that_cannot_be_written_stops_everything(audiocli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for broken in (tmp_path / "file" / "ledger", Path("/proc/ledger"), tmp_path):
        r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", variables={"AUDIOCLI_LEDGER": str(broken)})

        assert (r.code, r.requests) == (5, []), r.err
        assert "AUDIOCLI_LEDGER" in r.err


def test_a_file_that_is_no_ledger_stops_everything_and_is_left_alone(audiocli: CommandLine, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_bytes(b"this is not a database, but it is long enough to be one" * 100)
    before = notes.read_bytes()

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", variables={"AUDIOCLI_LEDGER": str(notes)})

    assert (r.code, r.requests) == (5, [])
    assert notes.read_bytes() == before


def test_the_entry_has_the_units_that_prices_are_made_of(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", "日本語", "-o", tmp_path / "x.wav", "--tag", "book")

    entry = r.ledger[0]
    assert (entry["characters"], entry["utf8_bytes"], entry["tag"]) == (3, 9, "book")
    assert entry["audio_ms"] == round(len(expected_pcm("日本語")) / 48)
    assert (entry["cost_nanousd"], entry["cost_source"]) == (None, "unknown")


# --- voices ----------------------------------------------------------------------------------------------------------


def test_a_question_mark_lists_the_voices(audiocli: CommandLine) -> None:
    remote = audiocli("speak", "-v", "?", "-m", "openrouter:hexgrad/kokoro-82m")
    local = audiocli("speak", "-v", "?", "-g", "local")

    assert "af_heart" in remote.text.split()
    assert {"en-us", "de", "fr"} <= set(local.text.split())
    assert (remote.ledger, remote.code, local.code) == ([], 0, 0)


def test_a_model_without_a_known_default_voice_gets_none(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", TEXT, "-m", "openrouter:hexgrad/kokoro-82m", "-o", tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert "voice" not in r.requests[0].json


def test_the_gateway_double_was_not_given_anything_wrong(audiocli: CommandLine, gateway: LoopbackGateway) -> None:
    audiocli("speak", TEXT, "-g", "openai", variables={"OPENAI_API_KEY": "sk-test"})
    audiocli("speak", TEXT, "-g", "groq", variables={"GROQ_API_KEY": "gsk-test"})

    assert [seen.status for seen in gateway.posts] == [200, 200]
    assert gateway.problems == []
