"""`transcribe`, through the front door."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import wave
from pathlib import Path

import pytest

from audiocli.text.subtitle_formats import parse
from tests.conftest import CommandLine
from tests.gateway import (
    DEFAULT_TEXT,
    KEYS,
    CutAfter,
    CutBeforeReply,
    Empty,
    Garbage,
    Html,
    MegabyteLine,
    Status,
    WrongTypes,
    closed_port,
    encode,
    expected_pcm,
    ok_with_error,
)

OPENAI = {"OPENAI_API_KEY": KEYS["openai"], "OPENROUTER_API_KEY": ""}


def wav_of(pcm: bytes, *, rate_hz: int = 24_000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate_hz)
        writer.writeframes(pcm)
    return out.getvalue()


SPEECH = wav_of(expected_pcm("The quick brown fox jumps over the lazy dog."))
SECONDS = (len(SPEECH) - 44) / 48_000


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    path.write_bytes(SPEECH)
    return path


# --- the main job ----------------------------------------------------------------------------------------------------


def test_one_file_becomes_text_on_stdout(audiocli: CommandLine, talk: Path) -> None:
    r = audiocli("transcribe", talk)

    assert (r.code, r.text) == (0, DEFAULT_TEXT + "\n")
    assert audiocli.gateway.problems == []


def test_the_recording_travels_untouched_in_base64(audiocli: CommandLine, talk: Path) -> None:
    r = audiocli("transcribe", talk)

    sent = r.requests[0]
    assert sent.json["model"] == "openai/whisper-large-v3"
    assert sent.json["input_audio"]["format"] == "wav"
    assert base64.b64decode(sent.json["input_audio"]["data"]) == SPEECH
    assert int(sent.headers["content-length"]) == sent.size_bytes


def test_the_cost_that_the_gateway_reports_is_in_the_receipt_and_the_ledger(audiocli: CommandLine, talk: Path) -> None:
    r = audiocli("transcribe", talk, "--json")

    assert r.json["cost_source"] == "reported"
    assert round(r.json["cost_usd"] * 1e9) == r.ledger[0]["cost_nanousd"] == audiocli.gateway.bill_nanousd
    assert (r.ledger[0]["cost_source"], r.ledger[0]["outcome"]) == ("reported", "ok")


def test_the_receipt_has_the_transcript_with_its_times(audiocli: CommandLine, talk: Path) -> None:
    r = audiocli("transcribe", talk, "--json", "--timestamps", "word")

    receipt = r.json
    assert receipt["ok"] is True
    assert receipt["text"] == DEFAULT_TEXT
    assert receipt["language"] == "en"
    assert receipt["timing"] == "word"
    assert [word["word"].strip() for word in receipt["words"]] == DEFAULT_TEXT.split()
    assert all(0 <= word["start_s"] < word["end_s"] <= SECONDS + 0.01 for word in receipt["words"])
    assert receipt["outputs"] == []
    assert receipt["duration_s"] == pytest.approx(SECONDS, abs=0.02)


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_captions_are_made_here(audiocli: CommandLine, talk: Path, format: str) -> None:
    r = audiocli("transcribe", talk, "-f", format)

    cues = parse(r.text, format)
    assert r.requests[0].json["response_format"] == "verbose_json"
    assert " ".join(line for cue in cues for line in cue.lines) == DEFAULT_TEXT
    assert all(0 <= cue.start_s < cue.end_s <= SECONDS + 0.01 for cue in cues)


def test_the_same_recording_gives_the_same_files_from_every_gateway(audiocli: CommandLine, talk: Path) -> None:
    made = {}
    for name, model in (("openrouter", "openai/whisper-1"), ("openai", "whisper-1"), ("groq", "whisper-large-v3")):
        folder = audiocli.folder / name
        folder.mkdir()
        key = {f"{name.upper()}_API_KEY": KEYS[name]}

        r = audiocli("transcribe", talk, "-O", folder, "-f", "txt,srt,vtt,tsv", "-m", f"{name}:{model}", variables=key)

        assert r.code == 0, r.err
        made[name] = [(folder / f"talk.{ending}").read_bytes() for ending in ("txt", "srt", "vtt", "tsv")]
    assert made["openrouter"] == made["openai"] == made["groq"]
    assert audiocli.gateway.problems == []


def test_verbose_json_is_what_the_gateway_sent(audiocli: CommandLine, talk: Path) -> None:
    r = audiocli("transcribe", talk, "-f", "verbose_json")

    assert json.loads(r.out)["task"] == "transcribe"
    assert "segments" in json.loads(r.out)


def test_the_shape_of_captions_can_be_set(audiocli: CommandLine, talk: Path) -> None:
    r = audiocli("transcribe", talk, "-f", "srt", "--max-line-width", "12", "--max-lines", "1")

    cues = parse(r.text, "srt")
    assert all(len(cue.lines) == 1 and len(cue.lines[0]) <= 12 for cue in cues)


def test_a_form_carries_every_flag_to_an_openai_server(audiocli: CommandLine, talk: Path) -> None:
    r = audiocli(
        *("transcribe", talk, "-g", "openai", "-m", "whisper-1", "-l", "Portuguese", "-p", "Pelé"),
        *("--temperature", "0.2", "--timestamps", "word"),
        variables=OPENAI,
    )

    assert r.code == 0, r.err
    fields = [(name, value) for name, value, filename, _ in r.requests[0].multipart if filename is None]
    assert fields == [
        ("model", "whisper-1"),
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
        ("language", "pt"),
        ("prompt", "Pelé"),
        ("temperature", "0.2"),
    ]
    assert r.requests[0].audio_sha256 == hashlib.sha256(SPEECH).hexdigest()


def test_the_name_of_the_users_file_stays_at_home(audiocli: CommandLine, tmp_path: Path) -> None:
    secret = tmp_path / 'salary "talk"\n.wav'
    secret.write_bytes(SPEECH)

    r = audiocli("transcribe", secret, "-g", "openai", "-m", "whisper-1", variables=OPENAI)

    [name] = [filename for _, _, filename, _ in r.requests[0].multipart if filename]
    assert (r.code, name) == (0, "audio.wav")


def test_times_choose_the_model_that_has_them(audiocli: CommandLine, talk: Path) -> None:
    plain = audiocli("transcribe", talk, variables=OPENAI)
    timed = audiocli("transcribe", talk, "-f", "srt", variables=OPENAI)

    assert plain.requests[0].model == "gpt-4o-transcribe"
    assert timed.requests[0].model == "whisper-1"


def test_a_large_recording_goes_to_openrouter_as_a_form(audiocli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(wav_of(expected_pcm("x" * 100) * 18))

    r = audiocli("transcribe", path)
    with_options = audiocli("transcribe", path, "--option", "groq.prompt=Names")

    assert r.requests[0].multipart
    assert with_options.requests[0].json["provider"] == {"options": {"groq": {"prompt": "Names"}}}
    assert [r.code, with_options.code] == [0, 0]
    assert audiocli.gateway.problems == []


# --- inputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [["-"], []])
def test_stdin_is_a_recording_too(audiocli: CommandLine, argv: list[str]) -> None:
    r = audiocli("transcribe", *argv, stdin=SPEECH)

    assert (r.code, r.text) == (0, DEFAULT_TEXT + "\n")
    assert base64.b64decode(r.requests[0].json["input_audio"]["data"]) == SPEECH


def test_raw_samples_on_stdin_get_the_header_they_lack(audiocli: CommandLine) -> None:
    r = audiocli("transcribe", "-", "--stdin-format", "pcm", stdin=SPEECH[44:])

    assert r.code == 0, r.err
    assert r.requests[0].audio_format == "wav"


@pytest.mark.parametrize("format", ["mp3", "flac", "wav", "opus"])
def test_the_content_tells_the_format_and_not_the_name(audiocli: CommandLine, tmp_path: Path, format: str) -> None:
    path = tmp_path / "recording.txt"
    content = encode(SPEECH[44:], format)
    path.write_bytes(content)

    r = audiocli("transcribe", path)

    assert r.code == 0, r.err
    assert base64.b64decode(r.requests[0].json["input_audio"]["data"]) == content


def test_what_a_gateway_does_not_take_is_converted(audiocli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "talk.aac"
    path.write_bytes(encode(SPEECH[44:], "aac"))

    r = audiocli("transcribe", path, "-g", "openai", "-m", "whisper-1", variables=OPENAI)

    assert r.code == 0, r.err
    assert r.requests[0].audio_format == "flac"
    assert r.requests[0].audio_s == pytest.approx(SECONDS, abs=0.1)
    assert list((audiocli.folder / "world" / "cache" / "audiocli" / "uploads").iterdir()) == []


def film(path: Path, *, with_sound: bool = True) -> None:
    """Make a second of black video, with a tone or without."""
    import av

    with av.open(str(path), "w", format="mp4") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("aac", rate=16_000) if with_sound else None
        for _ in range(10):
            frame = av.VideoFrame(64, 64, "yuv420p")
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        if sound is not None:
            samples = expected_pcm("x" * 20, rate_hz=16_000)[: 2 * 16_000]
            frame = av.AudioFrame(format="s16", layout="mono", samples=len(samples) // 2)
            frame.planes[0].update(samples)
            frame.sample_rate = 16_000
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=16_000, frame_size=1024)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(sound.encode(part))
            container.mux(sound.encode(None))


def test_of_a_video_only_the_sound_is_sent(audiocli: CommandLine, tmp_path: Path) -> None:
    film(tmp_path / "film.mp4")

    r = audiocli("transcribe", tmp_path / "film.mp4", "-g", "openai", "-m", "whisper-1", variables=OPENAI)

    assert r.code == 0, r.err
    assert r.requests[0].audio_format == "flac"
    assert r.requests[0].audio_s == pytest.approx(1.0, abs=0.1)


def test_what_is_no_recording_is_told_before_anything_is_sent(audiocli: CommandLine, tmp_path: Path) -> None:
    film(tmp_path / "silent.mp4", with_sound=False)
    for name, content in (
        ("empty.wav", b""),
        ("text.mp3", b"this is not sound\n" * 100),
        ("page.html", b"<html></html>"),
        ("zeros.bin", bytes(10_000)),
        ("header.wav", wav_of(b"")),
        ("liar.mp3", b"ID3" + bytes(500)),
        ("cut.wav", SPEECH[:30]),
        ("silent.mp4", (tmp_path / "silent.mp4").read_bytes()),
    ):
        (tmp_path / name).write_bytes(content)

        r = audiocli("transcribe", tmp_path / name)

        assert (r.code, r.requests, r.ledger) == (8, [], []), (name, r.err)
        assert r.err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["missing.wav"], "missing.wav"),
        (["talk.wav", "-f", "doc"], "unknown format"),
        (["talk.wav", "-f", ","], "unknown format"),
        (["talk.wav", "-o", "x.txt", "-O", "out"], "which one"),
        (["talk.wav", "-o", "x.txt", "-f", "txt,srt"], "one format"),
        (["talk.wav", "-f", "srt", "--timestamps", "none"], "contradicts"),
        (["talk.wav", "--timestamps", "letter"], "--timestamps"),
        (["talk.wav", "--temperature", "2"], "0 to 1"),
        (["talk.wav", "-l", "Germen"], "german"),
        (["talk.wav", "--max-line-width", "0"], "--max-line-width"),
        (["talk.wav", "--stdin-format", "mp3"], "--stdin-format"),
        (["-", "--stdin-format", "nope"], "--stdin-format"),
        (["-", "-f", "txt,srt"], "-O DIR"),
        (["talk.wav", "-f", "srt", "--strict-timestamps", "-m", "openai:gpt-4o-transcribe"], "whisper-1"),
        (["talk.wav", "-f", "srt", "--strict-timestamps", "-m", "openrouter:openai/gpt-4o-transcribe"], "whisper"),
        (["talk.wav", "-l", "de", "-g", "local"], "English"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_sent(
    audiocli: CommandLine, talk: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], said: str
) -> None:
    monkeypatch.chdir(talk.parent)

    r = audiocli("transcribe", *argv, stdin=SPEECH, variables={"OPENAI_API_KEY": KEYS["openai"]})

    assert (r.code, r.requests) == (2, []), r.err
    assert said in r.err


# --- outputs ---------------------------------------------------------------------------------------------------------


def test_several_formats_lie_beside_the_recording(audiocli: CommandLine, talk: Path) -> None:
    r = audiocli("transcribe", talk, "-f", "txt,srt,json", "--json")

    assert r.json["outputs"] == [str(talk.with_suffix(ending)) for ending in (".txt", ".srt", ".json")]
    assert talk.with_suffix(".txt").read_text() == DEFAULT_TEXT + "\n"
    assert json.loads(talk.with_suffix(".json").read_text())["timing"] == "segment"


def test_the_ending_of_the_output_tells_the_format(audiocli: CommandLine, talk: Path, tmp_path: Path) -> None:
    audiocli("transcribe", talk, "-o", tmp_path / "captions.vtt")

    assert (tmp_path / "captions.vtt").read_text().startswith("WEBVTT\n")


def test_json_goes_to_stderr_only_where_the_transcript_was_asked_for_on_stdout(
    audiocli: CommandLine, talk: Path
) -> None:
    r = audiocli("transcribe", talk, "-o", "-", "--json")

    assert r.text == DEFAULT_TEXT + "\n"
    assert r.err_json["text"] == DEFAULT_TEXT


def test_a_transcript_cannot_make_a_terminal_do_things(audiocli: CommandLine, talk: Path) -> None:
    audiocli.gateway.says("bell \x07 and \x1b[31m red")

    on_terminal = audiocli("transcribe", talk, terminal="out")
    in_pipe = audiocli("transcribe", talk)

    assert b"\x1b" not in on_terminal.out
    assert b"\x1b[31m" in in_pipe.out


def test_a_transcript_that_cannot_be_written_is_kept(audiocli: CommandLine, talk: Path) -> None:
    r = audiocli("transcribe", talk, "-o", "/dev/full", "--json")

    assert r.code == 10
    assert Path(r.err_json["error"]["kept"]).read_text() == DEFAULT_TEXT + "\n"
    assert [entry["outcome"] for entry in r.ledger] == ["ok"]


def test_a_missing_output_folder_is_made(audiocli: CommandLine, talk: Path, tmp_path: Path) -> None:
    r = audiocli("transcribe", talk, "-O", tmp_path / "new" / "folder", "-f", "txt")

    assert r.code == 0, r.err
    assert (tmp_path / "new" / "folder" / "talk.txt").read_text() == DEFAULT_TEXT + "\n"


# --- bad answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "outcome"),
    [
        (Status(401), 4, "refused"),
        (Status(402), 5, "refused"),
        (Status(404), 6, "refused"),
        (Status(413), 6, "refused"),
        (Status(524), 7, "unknown"),
        (ok_with_error(400), 6, "refused"),
        (ok_with_error(401), 4, "refused"),
        (Empty(), 9, "failed"),
        (Html(200), 9, "failed"),
        (Garbage(b"\xff\xfe\x00nonsense", "application/json"), 9, "failed"),
        (Garbage(b'{"text": 7}', "application/json"), 9, "failed"),
        (Garbage(b"{}", "application/json"), 9, "failed"),
        (Garbage(b'"Internal error"', "application/json"), 9, "failed"),
        (Garbage(b"Internal Server Error", "text/plain"), 9, "failed"),
        (Garbage(b'data: {"type":"transcript.text.delta","delta":"hi"}\n\n', "text/event-stream"), 7, "unknown"),
        (Garbage(b"[]", "application/json"), 9, "failed"),
        (Garbage(b"[" * 100_000, "application/json"), 9, "failed"),
        (CutAfter(10), 7, "unknown"),
        (CutBeforeReply(), 7, "unknown"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_answer_is_an_error_with_one_entry(
    audiocli: CommandLine, talk: Path, tmp_path: Path, fault: object, code: int, outcome: str
) -> None:
    audiocli.gateway.script(fault)

    r = audiocli("transcribe", talk, "-o", tmp_path / "talk.txt")

    assert (r.code, r.out) == (code, b""), r.err
    assert [entry["outcome"] for entry in r.ledger] == [outcome]
    assert not (tmp_path / "talk.txt").exists()
    assert "Traceback" not in r.err


def test_wrong_types_in_a_reply_lose_what_is_wrong_and_keep_the_rest(audiocli: CommandLine, talk: Path) -> None:
    reply = {
        "text": DEFAULT_TEXT,
        "language": 7,
        "duration": "soon",
        "segments": [{"start": "0.0", "end": None, "text": 1}, 5, {"start": 0, "end": 1, "text": DEFAULT_TEXT}],
        "words": "none",
        "usage": {"cost": "NaN", "seconds": [], "input_tokens": -1},
    }
    audiocli.gateway.script(Garbage(json.dumps(reply).encode(), "application/json"))

    r = audiocli("transcribe", talk, "--json")

    assert r.code == 0, r.err
    assert r.json["text"] == DEFAULT_TEXT
    assert len(r.json["segments"]) == 1
    assert (r.json["cost_usd"], r.ledger[0]["cost_nanousd"]) == (None, None)


@pytest.mark.parametrize("cost", ["-1", "1e30", '"free"', "null", "true", "[1]", '{"a":1}'])
def test_an_absurd_cost_is_unknown(audiocli: CommandLine, talk: Path, cost: str) -> None:
    body = f'{{"text":"{DEFAULT_TEXT}","usage":{{"cost":{cost}}}}}'
    audiocli.gateway.script(Garbage(body.encode(), "application/json"))

    r = audiocli("transcribe", talk, "--json")

    assert (r.code, r.json["cost_usd"], r.ledger[0]["cost_source"]) == (0, None, "unknown")


def test_every_shape_of_wrong_is_survived(audiocli: CommandLine, talk: Path) -> None:
    for fault in (WrongTypes(), MegabyteLine()):
        audiocli.gateway.script(fault)

        r = audiocli("transcribe", talk)

        assert r.code in (0, 6, 9), r.err
        assert "Traceback" not in r.err


def test_an_empty_transcript_is_right_for_silence_and_wrong_for_speech(
    audiocli: CommandLine, talk: Path, tmp_path: Path
) -> None:
    silence = tmp_path / "silence.wav"
    silence.write_bytes(wav_of(bytes(48_000)))
    audiocli.gateway.says("")

    right = audiocli("transcribe", silence, "--json")
    wrong = audiocli("transcribe", talk)

    assert right.code == 0, right.err
    assert right.json["text"] == ""
    assert any("no speech" in warning for warning in right.json["warnings"])
    assert wrong.code == 9


def test_captions_without_the_promised_times_are_no_captions(audiocli: CommandLine, talk: Path) -> None:
    audiocli.gateway.script(Garbage(json.dumps({"text": DEFAULT_TEXT}).encode(), "application/json"))

    r = audiocli("transcribe", talk, "-f", "srt")

    assert (r.code, r.out) == (9, b"")


def test_an_unreachable_gateway_is_a_network_error(audiocli: CommandLine, talk: Path) -> None:
    url = f"http://127.0.0.1:{closed_port()}/v1"

    r = audiocli("transcribe", talk, variables={"OPENROUTER_BASE_URL": url})

    assert r.code == 7
    assert {entry["outcome"] for entry in r.ledger} == {"unsent"}


# --- other gateways ------------------------------------------------------------------------------------------------


def test_a_keyless_server_needs_only_its_address(audiocli: CommandLine, talk: Path) -> None:
    url = audiocli.gateway.base_url("plain")

    r = audiocli("transcribe", talk, "--base-url", url, "-m", "whisper-small", variables={"OPENROUTER_API_KEY": ""})

    assert (r.code, r.text) == (0, DEFAULT_TEXT + "\n"), r.err
    assert "authorization" not in r.requests[0].headers


def test_a_table_in_the_configuration_is_a_gateway(audiocli: CommandLine, talk: Path) -> None:
    audiocli.config(f"""
        [gateways.home]
        base_url = "{audiocli.gateway.base_url("plain")}"
        [transcribe]
        models = ["home:whisper-small"]
        language = "German"
    """)

    r = audiocli("transcribe", talk)

    assert r.code == 0, r.err
    assert r.requests[0].form("language") in ("de", ["de"])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[speak]\nvoices = 3", "did you mean voice?"),
        ("[speak", "line 1"),
        ("[gateways.x]\nbase_urll = 'y'", "base_url"),
        ("[gateways.x]\nbase_url = 'http://x'\ndialect = 'openia'", "openai"),
        ("[speak]\nmodels = 'one'", "speak.models"),
    ],
)
def test_a_wrong_configuration_is_told_with_the_place(
    audiocli: CommandLine, talk: Path, config: str, said: str
) -> None:
    audiocli.config(config)

    r = audiocli("transcribe", talk)

    assert (r.code, r.requests) == (2, [])
    assert said in r.err


def test_a_body_compressed_without_being_asked_is_read(audiocli: CommandLine, talk: Path) -> None:
    body = gzip.compress(json.dumps({"text": DEFAULT_TEXT}).encode())
    packed = {"content-encoding": "gzip"}
    audiocli.gateway.script(Status(200, body=body, headers=packed), Status(200, body=body[:-9], headers=packed))

    whole, cut = audiocli("transcribe", talk), audiocli("transcribe", talk)

    assert (whole.code, whole.text) == (0, DEFAULT_TEXT + "\n"), whole.err
    assert (cut.code, cut.out) == (7, b"")
