"""`chat`, through the front door; its decoder by itself; the official client as an oracle."""

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
from tests.conftest import CommandLine
from tests.gateway import (
    ANSWER,
    KEYS,
    Answer,
    CutAfter,
    CutBeforeReply,
    Empty,
    Events,
    Garbage,
    Html,
    LoopbackGateway,
    Stall,
    Status,
    WrongTypes,
    encode,
    expected_audio,
    expected_pcm,
    ok_with_error,
)

QUESTION = expected_pcm("What time is it?")
SPOKEN = expected_pcm(ANSWER)
NOT_BASE64 = 'data: {"choices": [{"delta": {"audio": {"data": "ääää"}}}]}\n\n'.encode()
TALKERS = {
    "openrouter": "openai/gpt-4o-audio-preview",
    "openai": "gpt-4o-audio-preview",
    "arouter": "openai/gpt-5.4-audio-preview",
}


@pytest.fixture
def every(audiocli: CommandLine) -> CommandLine:
    """The command line with a key for each gateway that talks."""
    audiocli.variables |= {"OPENAI_API_KEY": KEYS["openai"] or "", "AROUTER_API_KEY": KEYS["arouter"] or ""}
    return audiocli


def question(folder: Path, format: str = "wav") -> Path:
    path = folder / f"question.{format}"
    path.write_bytes(encode(QUESTION, format))
    return path


def samples(content: bytes, format: str) -> int:
    decoder = Decoder(format)
    size = len(decoder.feed(content)) + sum(map(len, decoder.finish()))
    assert decoder.pcm is not None
    size //= decoder.pcm.frame_bytes * decoder.pcm.sample_rate_hz // 1000
    decoder.close()
    return size


# --- what goes out ---------------------------------------------------------------------------------------------------


def test_a_question_is_answered_on_stdout(audiocli: CommandLine) -> None:
    r = audiocli("chat", "What", "time", "is", "it?")

    assert (r.code, r.text) == (0, ANSWER + "\n")
    assert r.requests[0].json == {
        "model": "openai/gpt-4o-audio-preview",
        "stream": True,
        "messages": [{"role": "user", "content": "What time is it?"}],
    }
    assert audiocli.gateway.problems == []


def test_every_flag_reaches_the_wire(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli(
        *("chat", "And now?", "-a", question(tmp_path), "--system", "Be brief.", "-v", "nova", "--max-tokens", "90"),
        *("--option", "temperature=0.5", "--option", 'provider.order=["azure"]', "-o", tmp_path / "x.wav"),
    )

    asked = r.requests[0].json
    system, user = asked.pop("messages")
    assert r.code == 0, r.err
    assert asked == {
        "model": "openai/gpt-4o-audio-preview",
        "modalities": ["text", "audio"],
        "audio": {"voice": "nova", "format": "pcm16"},
        "stream": True,
        "max_tokens": 90,
        "temperature": 0.5,
        "provider": {"order": ["azure"]},
    }
    assert system == {"role": "system", "content": "Be brief."}
    assert [part["type"] for part in user["content"]] == ["text", "input_audio"]
    assert base64.b64decode(user["content"][1]["input_audio"]["data"]) == question(tmp_path).read_bytes()
    assert audiocli.gateway.problems == []


@pytest.mark.parametrize("where", TALKERS)
def test_every_gateway_that_talks_is_asked_for_what_it_can(every: CommandLine, where: str, tmp_path: Path) -> None:
    r = every("chat", "-g", where, "-a", question(tmp_path), "-o", tmp_path / "x.mp3", "--json")

    assert r.code == 0, r.err
    assert (r.json["gateway"], r.json["model"], r.json["text"]) == (where, TALKERS[where], ANSWER)
    assert r.requests[0].json["audio"] == {"voice": "alloy", "format": "pcm16"}
    assert every.gateway.problems == []


@pytest.mark.parametrize("format", ["wav", "mp3", "flac", "opus", "aac", "pcm", "m4a", "ogg"])
@pytest.mark.parametrize("where", ["openai", "arouter"])
def test_an_answer_at_once_is_asked_for_in_the_format_that_is_wanted(
    every: CommandLine, where: str, format: str, tmp_path: Path
) -> None:
    target = tmp_path / f"x.{format}"

    r = every("chat", "Hi", "-g", where, "--no-stream", "-o", target, "--json")

    wire = {"pcm": "pcm16", "m4a": "pcm16", "ogg": "opus"}.get(format, format)
    assert r.code == 0, r.err
    assert "stream" not in r.requests[0].json
    assert r.requests[0].json["audio"]["format"] == wire
    assert r.json["format"] == format
    if format != "m4a":
        assert target.read_bytes() == expected_audio(ANSWER, {"ogg": "opus"}.get(format, format))
    assert every.gateway.problems == []


def test_openrouter_speaks_in_a_stream_whatever_is_said(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("chat", "Hi", "--no-stream", "-o", tmp_path / "x.wav")

    assert r.code == 0
    assert r.requests[0].json["stream"] is True
    assert "--no-stream has no effect" in r.err


def test_without_a_stream_an_answer_in_text_comes_at_once(audiocli: CommandLine) -> None:
    r = audiocli("chat", "Hi", "--no-stream")

    assert (r.code, r.text) == (0, ANSWER + "\n")
    assert "stream" not in r.requests[0].json


@pytest.mark.parametrize(("where", "format", "sent"), [
    ("openai", "flac", "wav"), ("openai", "mp3", "mp3"), ("openai", "ogg", "wav"),
    ("openrouter", "flac", "flac"), ("openrouter", "ogg", "ogg"), ("arouter", "flac", "flac"),
    ("arouter", "aac", "flac"),
])  # fmt: skip
def test_a_recording_goes_out_as_it_is_or_in_a_format_that_is_taken(
    every: CommandLine, where: str, format: str, sent: str, tmp_path: Path
) -> None:
    r = every("chat", "-g", where, "-a", question(tmp_path, format))

    [(claimed, found, seconds)] = r.requests[0].heard
    assert r.code == 0, r.err
    assert claimed == found == sent
    assert seconds == pytest.approx(len(QUESTION) / 48_000, abs=0.15)
    assert every.gateway.problems == []


def test_several_recordings_stay_in_their_order(audiocli: CommandLine, tmp_path: Path) -> None:
    short = tmp_path / "short.wav"
    short.write_bytes(encode(expected_pcm("No."), "wav"))

    r = audiocli("chat", "Compare.", "-a", short, "-a", question(tmp_path, "mp3"))

    assert r.code == 0, r.err
    assert [claimed for claimed, _, _ in r.requests[0].heard] == ["wav", "mp3"]
    assert r.ledger[0]["audio_ms"] == pytest.approx(300 + 960, abs=80)


def test_a_recording_comes_from_stdin(audiocli: CommandLine) -> None:
    r = audiocli("chat", "-a", "-", stdin=encode(QUESTION, "wav"))

    assert (r.code, r.text) == (0, ANSWER + "\n")
    assert r.requests[0].heard == [("wav", "wav", 0.96)]


def test_a_wav_out_of_a_pipe_is_sent_with_its_true_length(audiocli: CommandLine) -> None:
    streamed = bytearray(encode(QUESTION, "wav"))
    streamed[4:8] = streamed[40:44] = (0x7FFF_F024).to_bytes(4, "little")

    r = audiocli("chat", "-a", "-", stdin=bytes(streamed))

    assert r.code == 0, r.err
    assert r.requests[0].heard[0][2] == pytest.approx(0.96, abs=0.01)
    sent = base64.b64decode(r.requests[0].json["messages"][0]["content"][0]["input_audio"]["data"])
    assert sent[:4] != b"RIFF" or int.from_bytes(sent[4:8], "little") == len(sent) - 8


def test_text_comes_from_stdin_when_it_is_piped(audiocli: CommandLine) -> None:
    r = audiocli("chat", stdin=b"What time is it?\n")

    assert r.code == 0
    assert r.requests[0].json["messages"] == [{"role": "user", "content": "What time is it?\n"}]


def test_what_is_too_large_for_a_gateway_goes_out_small(every: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(encode(bytes(48_000 * 200), "wav"))

    r = every("chat", "-g", "arouter", "-a", path)

    assert r.code == 0, r.err
    assert r.requests[0].heard[0][0] == "mp3"
    assert r.requests[0].size_bytes < 10 * 1024 * 1024


# --- what comes back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["mp3", "wav", "flac", "opus", "ogg", "aac", "m4a", "pcm"])
def test_a_spoken_answer_becomes_a_file_of_any_format(audiocli: CommandLine, format: str, tmp_path: Path) -> None:
    target = tmp_path / f"answer.{format}"

    r = audiocli("chat", "Hi", "-o", target, "--json")

    content = target.read_bytes()
    assert r.code == 0, r.err
    assert (r.json["format"], r.json["bytes"]) == (format, len(content))
    assert r.json["duration_s"] == pytest.approx(1.2)
    if format == "pcm":
        assert content == SPOKEN
    else:
        assert samples(content, format) == pytest.approx(1200, abs=100)


def test_the_transcript_of_a_spoken_answer_is_on_stderr(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("chat", "Hi", "-o", tmp_path / "x.wav")

    assert r.out == b""
    assert r.err.splitlines()[0] == ANSWER


def test_a_spoken_answer_goes_into_a_pipe(audiocli: CommandLine) -> None:
    r = audiocli("chat", "Hi", "-f", "pcm", "-o", "-", "--json")

    assert (r.code, r.out) == (0, SPOKEN)
    assert r.err_json["text"] == ANSWER
    assert r.err_json["output"] == "-"


def test_a_piped_stdout_and_a_format_of_sound_have_it_spoken(audiocli: CommandLine) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb", buffering=0) as out, os.fdopen(reader, "rb") as into:
        heard: list[bytes] = []
        thread = threading.Thread(target=lambda: heard.append(into.read()))
        thread.start()
        r = audiocli("chat", "Hi", "-f", "wav", stdout=out)
        out.close()
        thread.join(10)

    assert r.code == 0, r.err
    assert heard[0][44:] == SPOKEN


def test_a_spoken_answer_is_played(audiocli: CommandLine, tmp_path: Path) -> None:
    programs = Path(audiocli.variables["PATH"])
    programs.mkdir(parents=True)
    (programs / "mpv").write_text(f'#!/bin/sh\n/bin/cat > "{tmp_path}/heard"\n')
    (programs / "mpv").chmod(0o755)

    r = audiocli("chat", "-a", "-", "--play", stdin=encode(QUESTION, "wav"))

    assert r.code == 0, r.err
    assert (tmp_path / "heard").read_bytes()[44:] == SPOKEN
    assert ANSWER in r.err


def test_sound_leaves_with_the_first_piece(audiocli: CommandLine) -> None:
    audiocli.gateway.answer = "One two three four five six. " * 40
    audiocli.gateway.hold(after_bytes=60_000)
    reader, writer = os.pipe()
    done: list[Any] = []
    with os.fdopen(writer, "wb", buffering=0) as out, os.fdopen(reader, "rb", buffering=0) as into:
        thread = threading.Thread(
            target=lambda: done.append(audiocli("chat", "Hi", "-f", "wav", "-o", "-", stdout=out))
        )
        thread.start()
        audiocli.gateway.wait_for_held()
        first = into.read(4000)
        audiocli.gateway.release()
        rest = bytearray()
        while len(rest) + len(first) < 44 + 2880 * len(audiocli.gateway.answer):
            rest += into.read(65536)
        thread.join(20)

    assert first[:4] == b"RIFF"
    assert bytes(first + rest)[44:] == expected_pcm(audiocli.gateway.answer)
    assert done[0].code == 0


def test_text_leaves_with_the_first_word(audiocli: CommandLine) -> None:
    audiocli.gateway.hold(after_bytes=600)
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb", buffering=0) as out, os.fdopen(reader, "rb", buffering=0) as into:
        thread = threading.Thread(target=lambda: audiocli("chat", "Hi", stdout=out))
        thread.start()
        audiocli.gateway.wait_for_held()
        first = into.read(100)
        audiocli.gateway.release()
        thread.join(20)

    assert first and ANSWER.startswith(first.decode())


def test_an_answer_in_text_goes_to_a_file(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("chat", "Hi", "-o", tmp_path / "answer.txt")

    assert (r.code, r.out) == (0, b"")
    assert (tmp_path / "answer.txt").read_text() == ANSWER + "\n"
    assert "modalities" not in r.requests[0].json


def test_a_terminal_gets_no_controls_from_a_model(audiocli: CommandLine) -> None:
    audiocli.gateway.answer = "one \x1b]0;title\x07 two"

    r = audiocli("chat", "Hi", terminal="in out")

    assert "\x1b" not in r.text
    assert "two" in r.text


# --- streams of every sort -------------------------------------------------------------------------------------------

STREAMS = {
    "plain": Answer(),
    "whole": Answer(whole=True),
    "padded pieces": Answer(padded=True),
    "comments": Answer(events=Events(comments=True)),
    "crlf": Answer(events=Events(crlf=True)),
    "tight": Answer(events=Events(tight=True)),
    "seven bytes at a time": Answer(events=Events(split_bytes=7, crlf=True, comments=True)),
    "no [DONE]": Answer(events=Events(without_done=True)),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("where", TALKERS)
def test_a_stream_of_any_sort_gives_the_same_answer(every: CommandLine, where: str, name: str, tmp_path: Path) -> None:
    every.gateway.answer = "Es ist zehn nach neun, 日本 – naïve."
    every.gateway.script(STREAMS[name])

    r = every("chat", "Hi", "-g", where, "-o", tmp_path / "x.pcm", "--json")

    assert r.code == 0, r.err
    assert r.json["text"] == every.gateway.answer
    assert (tmp_path / "x.pcm").read_bytes() == expected_pcm(every.gateway.answer)
    assert r.json["usage"]["output_audio_tokens"] == 41


def test_one_piece_may_be_a_megabyte(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.answer = "A long answer it is. " * 20
    audiocli.gateway.script(Answer(whole=True))

    r = audiocli("chat", "Hi", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    assert (tmp_path / "x.wav").stat().st_size == 44 + len(expected_pcm(audiocli.gateway.answer)) > 1_000_000


@pytest.mark.parametrize(("fault", "code"), [
    (Answer(unfinished=True), 7),
    (CutAfter(20_000), 7),
    (CutAfter(20_000, reset=True), 7),
    (CutBeforeReply(), 7),
    (Answer(mute=True), 9),
    (Empty(chunked=True), 9),
    (Html(), 9),
    (Garbage(NOT_BASE64), 9),
    (WrongTypes(), 9),
    (ok_with_error(None), 9),
    (Answer(events=Events(error_after=3, error_status=400)), 6),
    (Answer(events=Events(error_after=3, error_status=402)), 5),
])  # fmt: skip
def test_an_answer_that_is_cut_short_leaves_nothing(
    audiocli: CommandLine, fault: Any, code: int, tmp_path: Path
) -> None:
    audiocli.gateway.always(fault)

    r = audiocli("chat", "Hi", "-o", tmp_path / "x.mp3")

    assert r.code == code, r.err
    assert [path.name for path in tmp_path.iterdir()] == ["world"]
    assert len(r.requests) == 1
    assert r.ledger[0]["outcome"] in ("unknown", "failed", "refused")


@pytest.mark.parametrize("fault", [Answer(unfinished=True), CutAfter(700), Stall(700, 30)])
def test_text_that_broke_off_is_no_success(audiocli: CommandLine, fault: Any) -> None:
    audiocli.gateway.script(fault)

    r = audiocli("chat", "Hi", "--timeout", "0.4")

    assert r.code == 7
    assert len(r.requests) == 1
    assert r.ledger[0]["outcome"] == "unknown"


def test_a_stream_that_fails_for_now_is_asked_again_while_nothing_was_heard(
    audiocli: CommandLine, tmp_path: Path
) -> None:
    audiocli.gateway.script(Answer(events=Events(error_after=4, error_status=503)), Status(429))

    r = audiocli("chat", "Hi", "-o", tmp_path / "x.pcm")

    assert r.code == 0, r.err
    assert (tmp_path / "x.pcm").read_bytes() == SPOKEN
    assert [entry["outcome"] for entry in r.ledger] == ["refused", "refused", "ok"]


def test_a_stream_that_fails_when_text_was_heard_is_not_asked_again(audiocli: CommandLine) -> None:
    audiocli.gateway.script(Answer(events=Events(error_after=8, error_status=503)))

    r = audiocli("chat", "Hi")

    assert r.code == 6
    assert len(r.requests) == 1


def test_an_answer_without_a_stream_that_was_asked_for_one_is_read_all_the_same(audiocli: CommandLine) -> None:
    body = {"choices": [{"message": {"content": "Noon."}, "finish_reason": "stop"}]}
    audiocli.gateway.script(Garbage(json.dumps(body).encode(), "application/json"))

    r = audiocli("chat", "Hi")

    assert (r.code, r.text) == (0, "Noon.\n")


def test_a_stream_under_another_type_is_known_by_its_first_line(audiocli: CommandLine) -> None:
    event = {"choices": [{"delta": {"content": "Noon."}, "finish_reason": "stop"}]}
    audiocli.gateway.script(Garbage(f": hello\n\ndata: {json.dumps(event)}\n\n".encode(), "text/plain"))

    r = audiocli("chat", "Hi")

    assert (r.code, r.text) == (0, "Noon.\n")


def test_sound_in_another_format_than_asked_for_is_converted_with_a_warning(
    audiocli: CommandLine, tmp_path: Path
) -> None:
    audiocli.gateway.script(Answer(sends="mp3"))

    r = audiocli("chat", "Hi", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    assert "sent mp3 although pcm" in r.err
    with wave.open(str(tmp_path / "x.wav")) as sound:
        assert sound.getnframes() / sound.getframerate() == pytest.approx(1.2, abs=0.1)


@pytest.mark.parametrize(("finish", "words"), [("length", "cut off at the longest"), ("content_filter", "filter")])
def test_why_an_answer_ended_early_is_said(audiocli: CommandLine, finish: str, words: str) -> None:
    audiocli.gateway.script(Answer(finish=finish))

    r = audiocli("chat", "Hi", "--max-tokens", "5", "--json")

    assert r.code == 0
    assert r.json["finish"] == finish
    assert words in " ".join(r.json["warnings"])


# --- money -----------------------------------------------------------------------------------------------------------


def test_tokens_of_sound_stand_apart_in_the_ledger(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("chat", "What is this?", "-a", question(tmp_path), "-o", tmp_path / "x.wav")

    [entry] = r.ledger
    assert (entry["command"], entry["outcome"], entry["cost_source"]) == ("chat", "ok", "reported")
    assert entry["cost_nanousd"] == audiocli.gateway.bill_nanousd
    assert (entry["input_tokens"], entry["input_audio_tokens"]) == (16, 10)
    assert (entry["output_tokens"], entry["output_audio_tokens"]) == (30, 24)
    assert entry["generation_id"] == r.requests[0].generation_id


def test_what_a_provider_charges_to_a_key_of_ones_own_is_kept(audiocli: CommandLine) -> None:
    audiocli.gateway.script(Answer(byok=True))

    r = audiocli("chat", "Hi", "--json")

    bill = audiocli.gateway.bill_nanousd
    assert r.ledger[0]["upstream_nanousd"] == bill
    assert r.ledger[0]["cost_nanousd"] == bill // 20
    assert r.json["upstream_cost_usd"] == pytest.approx(bill / 1e9)


def test_a_cost_that_nobody_tells_is_not_zero(audiocli: CommandLine) -> None:
    audiocli.gateway.script(Answer(no_usage=True))

    r = audiocli("chat", "Hi", "--json")

    assert r.code == 0
    assert r.json["cost_usd"] is None
    assert r.ledger[0]["cost_source"] == "unknown"


def test_tokens_are_priced_by_the_gateways_list_where_it_tells_no_cost(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli("models", "-g", "openrouter")
    audiocli.gateway.script(Answer(no_usage=True), Answer())

    plan = audiocli("chat", "Hi", "-n", "--max-tokens", "100", "-o", tmp_path / "x.wav", "--json").json
    open_ended = audiocli("chat", "Hi", "-n").text

    assert plan["price_usd_most"] >= 100 * 8 * 0.00001
    assert "or more" in open_ended


def test_a_cap_needs_to_know_how_long_an_answer_may_be(audiocli: CommandLine) -> None:
    audiocli("models", "-g", "openrouter")

    without = audiocli("chat", "Hi", "--max-cost", "1")
    dear = audiocli("chat", "Hi", "--max-cost", "0.0001", "--max-tokens", "100")
    fine = audiocli("chat", "Hi", "--max-cost", "1", "--max-tokens", "100")

    assert [without.code, dear.code, fine.code] == [5, 5, 0]
    assert without.requests == dear.requests == []
    assert "--max-tokens" in audiocli("chat", "--help").text


def test_a_configured_price_of_tokens_holds_for_those_of_the_answer_too(audiocli: CommandLine) -> None:
    audiocli.config('[prices]\n"openai:gpt-4o-audio-preview" = { per = "1M tokens", usd = 10.0 }\n')
    key = {"OPENAI_API_KEY": KEYS["openai"] or ""}

    plan = audiocli("chat", "Hi", "-g", "openai", "-n", "--max-tokens", "1000", "--json", variables=key).json
    done = audiocli("chat", "Hi", "-g", "openai", "--json", variables=key)

    assert plan["price_usd_most"] >= 0.01
    assert done.json["usage"]["input_tokens"] + done.json["usage"]["output_tokens"] == 9
    assert done.json["cost_usd"] == pytest.approx(0.00009)
    assert done.json["cost_source"] == "computed"


def test_a_ledger_of_an_older_audiocli_learns_of_tokens_of_sound(audiocli: CommandLine) -> None:
    from audiocli.ledger import schema

    audiocli.ledger_path.parent.mkdir(parents=True)
    old = sqlite3.connect(audiocli.ledger_path)
    for migrate in schema.MIGRATIONS[:2]:
        migrate(old)
    old.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    old.execute("PRAGMA user_version = 2")
    old.commit()
    old.close()

    r = audiocli("chat", "Hi")

    assert r.code == 0, r.err
    assert r.ledger[0]["input_audio_tokens"] == 0


# --- bad input -------------------------------------------------------------------------------------------------------


def test_nothing_to_say_is_a_usage_error(audiocli: CommandLine) -> None:
    for r in (audiocli("chat", terminal="in"), audiocli("chat", "  "), audiocli("chat", stdin=b"\n")):
        assert r.code == 2
        assert "nothing to say" in r.err
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
def test_what_cannot_be_done_costs_nothing(audiocli: CommandLine, argv: list[str]) -> None:
    r = audiocli(*argv, variables={"GROQ_API_KEY": KEYS["groq"] or ""})

    assert r.code == 2, r.err
    assert r.requests == []
    assert r.ledger == []


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("flags", [["-o", "x.mp3"], ["-f", "wav", "-o", "-"]])
def test_a_model_without_a_voice_is_refused_with_one_that_has_it(
    audiocli: CommandLine, flags: list[str], listed: bool
) -> None:
    if listed:
        audiocli("models", "-g", "openrouter")

    r = audiocli("chat", "Hi", "-m", "openrouter:openai/gpt-5.4", *flags)

    assert r.code == 2
    assert "openrouter:openai/gpt-5.4 does not speak" in r.err
    assert "openrouter:openai/gpt-4o-audio-preview does" in r.err
    assert r.requests == []


def test_a_model_that_does_not_hear_is_refused_with_one_that_does(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("chat", "-a", question(tmp_path), "-m", "openrouter:openai/gpt-5.4")

    assert r.code == 2
    assert "does not hear: openrouter:openai/gpt-4o-audio-preview does" in r.err
    assert r.requests == []


def test_a_format_that_was_refused_is_converted_and_not_sent_again(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(Status(400, message="Unsupported audio format flac"))

    first = audiocli("chat", "-a", question(tmp_path, "flac"))
    second = audiocli("chat", "-a", question(tmp_path, "flac"))

    assert (first.code, second.code) == (0, 0), first.err
    assert [seen.heard[0][0] for seen in first.requests] == ["flac", "wav"]
    assert [seen.heard[0][0] for seen in second.requests] == ["wav"]


@pytest.mark.parametrize("event", [
    {"type": "error", "message": "no"}, {"choices": [{"delta": {}, "finish_reason": "error"}]},
    {"error": "no"}, {"error": {"message": "no", "code": None}},
])  # fmt: skip
def test_an_error_without_a_status_in_a_stream_is_a_bad_answer(audiocli: CommandLine, event: Any) -> None:
    body = f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode()
    audiocli.gateway.always(Garbage(body, "text/event-stream"))

    r = audiocli("chat", "Hi")

    assert r.code == 9
    assert r.ledger[0]["outcome"] == "failed"


def test_a_model_without_sound_talks_in_text(audiocli: CommandLine) -> None:
    r = audiocli("chat", "Hi", "-m", "openrouter:openai/gpt-5.4")

    assert (r.code, r.text) == (0, ANSWER + "\n")


def test_the_next_model_speaks_where_the_first_has_no_voice(every: CommandLine, tmp_path: Path) -> None:
    r = every(
        *("chat", "Hi", "-m", "openrouter:openai/gpt-5.4", "-m", "arouter:openai/gpt-5.4-audio-preview"),
        *("-o", tmp_path / "x.wav", "--json"),
    )

    assert r.code == 0, r.err
    assert r.json["gateway"] == "arouter"
    assert "does not speak" in r.json["routes"][0]["reason"]


@pytest.mark.parametrize("content", [b"", b"this is no sound " * 100, encode(b"", "wav"), b"RIFF\x00\x00\x00\x00WAVE"])
def test_a_file_without_sound_is_not_sent(audiocli: CommandLine, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    path.write_bytes(content)

    r = audiocli("chat", "-a", path)

    assert r.code == 8
    assert r.requests == []


def test_an_answer_never_replaces_the_question(audiocli: CommandLine, tmp_path: Path) -> None:
    path = question(tmp_path)

    r = audiocli("chat", "-a", path, "-o", path)

    assert r.code == 2
    assert path.read_bytes() == encode(QUESTION, "wav")


def test_sound_is_never_written_to_a_terminal(audiocli: CommandLine) -> None:
    r = audiocli("chat", "Hi", "-o", "-", terminal="out in")

    assert r.code == 2
    assert r.requests == []


def test_without_a_key_the_gateways_that_talk_are_named(audiocli: CommandLine) -> None:
    r = audiocli("chat", "Hi", variables={"OPENROUTER_API_KEY": ""})

    assert r.code == 4
    assert "OPENROUTER_API_KEY" in r.err and "AROUTER_API_KEY" in r.err
    assert "GROQ_API_KEY" not in r.err


def test_a_voice_for_an_answer_in_text_is_warned_about(audiocli: CommandLine) -> None:
    r = audiocli("chat", "Hi", "-v", "nova")

    assert r.code == 0
    assert "--voice has no effect" in r.err


def test_models_and_voice_come_from_the_configuration(every: CommandLine, tmp_path: Path) -> None:
    every.config('[chat]\nmodels = ["arouter:openai/gpt-5.4-audio-preview"]\nvoice = "nova"\n')

    r = every("chat", "Hi", "-o", tmp_path / "x.wav", "--json")

    assert (r.json["gateway"], r.json["voice"]) == ("arouter", "nova")


def test_a_server_of_ones_own_talks_too(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli(
        *("chat", "Hi", "--base-url", audiocli.gateway.base_url("plain"), "-m", "talker", "-o", tmp_path / "x.pcm"),
        variables={"OPENROUTER_API_KEY": ""},
    )

    assert r.code == 0, r.err
    assert (tmp_path / "x.pcm").read_bytes() == SPOKEN


def test_a_full_stdout_keeps_what_was_paid_for(audiocli: CommandLine) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        r = audiocli("chat", "Hi", "-f", "wav", "-o", "-", stdout=full)

    assert r.code == 10
    assert "kept in" in r.err


def test_a_reader_that_leaves_is_no_failure(audiocli: CommandLine) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as out:
        r = audiocli("chat", "Hi", stdout=out)

    assert r.code == 0
    assert r.ledger[0]["outcome"] == "cancelled"


# --- the decoder by itself -------------------------------------------------------------------------------------------


def _stream(events: list[dict[str, Any]], *, done: bool, end: str) -> bytes:
    blocks = [f"data: {json.dumps(event, ensure_ascii=False)}" for event in events] + (["data: [DONE]"] if done else [])
    return "".join(block + 2 * end for block in blocks).encode()


def _decoded(chunks: list[bytes]) -> tuple[str, bytes, Any, str | None]:
    stream = chat_completions.ChatStream({})
    said = [one for chunk in chunks for one in stream.feed(chunk)]
    said += stream.end()
    return "".join(one.text for one in said), b"".join(one.audio for one in said), stream.usage, stream.finish


@settings(max_examples=150)
@given(
    sound=st.binary(max_size=200),
    text=st.text(max_size=40),
    cuts=st.lists(st.integers(0, 5000), max_size=12),
    pieces=st.lists(st.integers(0, 400), max_size=6),
    padded=st.booleans(),
    done=st.booleans(),
    full=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_any_cut_of_a_stream_gives_the_same_answer(
    sound: bytes, text: str, cuts: list[int], pieces: list[int], padded: bool, done: bool, full: bool, end: str
) -> None:
    if padded:
        at = sorted({min(piece, len(sound)) for piece in pieces} | {0, len(sound)})
        parts = [base64.b64encode(sound[a:b]).decode() for a, b in pairwise(at)]
    else:
        whole = base64.b64encode(sound).decode()
        at = sorted({min(piece, len(whole)) for piece in pieces} | {0, len(whole)})
        parts = [whole[a:b] for a, b in pairwise(at)]
    events: list[dict[str, Any]] = [{"choices": [{"delta": {"audio": {"data": part}}}]} for part in parts]
    events.insert(len(events) // 2, {"choices": [{"delta": {"audio": {"transcript": text}}}]})
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "cost": 0.001}
    if full:
        events.append({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage})
    else:
        events += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": usage}]
    stream = _stream(events, done=done, end=end)
    at = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})

    told, heard, counted, finish = _decoded([stream[a:b] for a, b in pairwise(at)])

    assert (told, heard, finish) == (text, sound, "stop")
    assert (counted.input_tokens, counted.output_tokens, counted.cost_nanousd) == (3, 4, 1_000_000)


@settings(max_examples=100)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "delta", "audio", "data", "usage", "message", "content", "cost_details", "id"]),
        inner, max_size=4),
    max_leaves=12,
))  # fmt: skip
def test_nonsense_in_a_stream_is_never_a_bug(value: Any) -> None:
    stream = chat_completions.ChatStream({})

    refused = None
    try:
        list(stream.feed(f"data: {json.dumps(value)}\n\n".encode()))
        list(stream.end())
        chat_completions.whole(json.dumps(value).encode(), {})
    except AudiocliError as error:
        refused = error

    assert refused is None or refused.message


def test_a_stream_without_its_end_is_lost() -> None:
    stream = chat_completions.ChatStream({})
    list(stream.feed(b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n'))

    with pytest.raises(ResponseInterrupted):
        list(stream.end())


# --- the official client as an oracle --------------------------------------------------------------------------------


@pytest.fixture
def official(gateway: LoopbackGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEYS["openai"], base_url=gateway.base_url("openai"), max_retries=0) as client:
        yield client


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("spoken", [False, True])
def test_a_chat_is_asked_like_the_official_client_asks_it(
    every: CommandLine, official: openai.OpenAI, tmp_path: Path, streams: bool, spoken: bool
) -> None:
    path = question(tmp_path)
    data = base64.b64encode(path.read_bytes()).decode()
    sound: Any = {
        "modalities": ["text", "audio"],
        "audio": {"voice": "ash", "format": "pcm16" if streams else "mp3"},
    }
    streamed: Any = {"stream": True, "stream_options": {"include_usage": True}}
    made = official.chat.completions.create(
        model="gpt-4o-audio-preview",
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
        **(sound if spoken else {}),
        **(streamed if streams else {}),
    )
    if streams:
        list(made)  # type: ignore[call-overload]
    flags = ["-o", str(tmp_path / "x.mp3"), "-v", "ash"] if spoken else []

    r = every(
        *("chat", "Olá", "-g", "openai", "-a", path, "--system", "Be brief.", "--max-tokens", "50", *flags),
        *("--option", "temperature=0.3", *([] if streams else ["--no-stream"])),
    )

    theirs, ours = every.gateway.posts
    assert r.code == 0, r.err
    assert ours.json == theirs.json
    assert (ours.path, ours.headers["authorization"]) == (theirs.path, theirs.headers["authorization"])
    assert ours.problems == theirs.problems == []
