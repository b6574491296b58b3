"""Test `transcribe` through the command line."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import wave
from pathlib import Path

import pysubs2
import pytest

from audiocli.mock import (
    DEFAULT_TRANSCRIPT,
    KEYS,
    CutAfter,
    CutBeforeResponse,
    Empty,
    Garbage,
    Html,
    MegabyteLine,
    OkWithError,
    Status,
    WrongTypes,
    expected_pcm,
    find_closed_port,
)
from tests import signals
from tests.conftest import CommandLine
from tests.pyav_codec import encode

OPENAI_VARIABLES = {"OPENAI_API_KEY": KEYS["openai"], "OPENROUTER_API_KEY": ""}


def build_wav(pcm: bytes, *, rate_hz: int = 24_000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate_hz)
        writer.writeframes(pcm)
    return out.getvalue()


SPEECH_WAV = build_wav(expected_pcm("The quick brown fox jumps over the lazy dog."))
SPEECH_S = (len(SPEECH_WAV) - 44) / 48_000


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "recording.wav"
    path.write_bytes(SPEECH_WAV)
    return path


# --- transcripts and requests ----------------------------------------------------------------------------------------


def test_transcript_is_written_to_stdout(audiocli: CommandLine, recording: Path) -> None:
    r = audiocli("transcribe", recording)

    assert (r.code, r.text) == (0, DEFAULT_TRANSCRIPT + "\n")
    assert audiocli.gateway.problems == []


def test_recording_is_sent_unchanged_in_base64(audiocli: CommandLine, recording: Path) -> None:
    r = audiocli("transcribe", recording)

    sent = r.requests[0]
    assert sent.json["model"] == "openai/whisper-large-v3"
    assert sent.json["input_audio"]["format"] == "wav"
    assert base64.b64decode(sent.json["input_audio"]["data"]) == SPEECH_WAV
    assert int(sent.headers["content-length"]) == sent.size_bytes


def test_reported_cost_is_in_the_result_and_the_ledger(audiocli: CommandLine, recording: Path) -> None:
    r = audiocli("transcribe", recording, "--json")

    assert r.json["cost_source"] == "reported"
    assert round(r.json["cost_usd"] * 1e9) == r.ledger[0]["cost_nanousd"] == audiocli.gateway.billed_nanousd
    assert (r.ledger[0]["cost_source"], r.ledger[0]["outcome"]) == ("reported", "ok")


def test_json_result_has_the_transcript_with_timestamps(audiocli: CommandLine, recording: Path) -> None:
    r = audiocli("transcribe", recording, "--json", "--timestamps", "word")

    result = r.json
    assert result["ok"] is True
    assert result["text"] == DEFAULT_TRANSCRIPT
    assert result["language"] == "en"
    assert result["timing"] == "word"
    assert [word["word"].strip() for word in result["words"]] == DEFAULT_TRANSCRIPT.split()
    assert all(0 <= word["start_s"] < word["end_s"] <= SPEECH_S + 0.01 for word in result["words"])
    assert result["outputs"] == []
    assert result["duration_s"] == pytest.approx(SPEECH_S, abs=0.02)


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_captions_are_built_from_verbose_json(audiocli: CommandLine, recording: Path, format: str) -> None:
    r = audiocli("transcribe", recording, "-f", format)

    cues = pysubs2.SSAFile.from_string(r.text, format_=format)
    assert r.requests[0].json["response_format"] == "verbose_json"
    assert " ".join(cue.plaintext.replace("\n", " ") for cue in cues) == DEFAULT_TRANSCRIPT
    assert all(0 <= cue.start < cue.end <= SPEECH_S * 1000 + 10 for cue in cues)


def test_every_gateway_gives_the_same_output_files(audiocli: CommandLine, recording: Path) -> None:
    output_files = {}
    for name, model in (("openrouter", "openai/whisper-1"), ("openai", "whisper-1"), ("groq", "whisper-large-v3")):
        directory = audiocli.directory / name
        directory.mkdir()
        key = {f"{name.upper()}_API_KEY": KEYS[name]}

        r = audiocli(
            "transcribe", recording, "-O", directory, "-f", "txt,srt,vtt,tsv", "-m", f"{name}:{model}", variables=key
        )

        assert r.code == 0, r.err
        output_files[name] = [
            (directory / f"recording.{extension}").read_bytes() for extension in ("txt", "srt", "vtt", "tsv")
        ]
    assert output_files["openrouter"] == output_files["openai"] == output_files["groq"]
    assert audiocli.gateway.problems == []


def test_verbose_json_is_the_response_of_the_gateway(audiocli: CommandLine, recording: Path) -> None:
    r = audiocli("transcribe", recording, "-f", "verbose_json")

    assert json.loads(r.out)["task"] == "transcribe"
    assert "segments" in json.loads(r.out)


def test_caption_limits_are_set_by_options(audiocli: CommandLine, recording: Path) -> None:
    r = audiocli("transcribe", recording, "-f", "srt", "--max-line-width", "12", "--max-lines", "1")

    cues = pysubs2.SSAFile.from_string(r.text, format_="srt")
    assert all("\n" not in cue.plaintext and len(cue.plaintext) <= 12 for cue in cues)


def test_every_option_is_sent_in_the_form_to_openai(audiocli: CommandLine, recording: Path) -> None:
    r = audiocli(
        *("transcribe", recording, "-g", "openai", "-m", "whisper-1", "-l", "Portuguese", "-p", "Pelé"),
        *("--temperature", "0.2", "--timestamps", "word"),
        variables=OPENAI_VARIABLES,
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
    assert r.requests[0].audio_sha256 == hashlib.sha256(SPEECH_WAV).hexdigest()


def test_file_name_is_not_sent(audiocli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / 'salary "2026"\n.wav'
    path.write_bytes(SPEECH_WAV)

    r = audiocli("transcribe", path, "-g", "openai", "-m", "whisper-1", variables=OPENAI_VARIABLES)

    [name] = [filename for _, _, filename, _ in r.requests[0].multipart if filename]
    assert (r.code, name) == (0, "audio.wav")


def test_timestamps_select_a_model_that_supports_them(audiocli: CommandLine, recording: Path) -> None:
    without_timestamps = audiocli("transcribe", recording, variables=OPENAI_VARIABLES)
    with_timestamps = audiocli("transcribe", recording, "-f", "srt", variables=OPENAI_VARIABLES)

    assert without_timestamps.requests[0].model == "gpt-4o-transcribe"
    assert with_timestamps.requests[0].model == "whisper-1"


def test_large_recording_is_sent_to_openrouter_as_a_form(audiocli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(build_wav(expected_pcm("x" * 100) * 18))

    r = audiocli("transcribe", path)
    with_options = audiocli("transcribe", path, "--option", "groq.prompt=Names")

    assert r.requests[0].multipart
    assert with_options.requests[0].json["provider"] == {"options": {"groq": {"prompt": "Names"}}}
    assert [r.code, with_options.code] == [0, 0]
    assert audiocli.gateway.problems == []


# --- inputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [["-"], []])
def test_recording_is_read_from_stdin(audiocli: CommandLine, argv: list[str]) -> None:
    r = audiocli("transcribe", *argv, stdin=SPEECH_WAV)

    assert (r.code, r.text) == (0, DEFAULT_TRANSCRIPT + "\n")
    assert base64.b64decode(r.requests[0].json["input_audio"]["data"]) == SPEECH_WAV


def test_raw_samples_on_stdin_are_sent_with_a_header(audiocli: CommandLine) -> None:
    r = audiocli("transcribe", "-", "--stdin-format", "pcm", stdin=SPEECH_WAV[44:])

    assert r.code == 0, r.err
    assert r.requests[0].audio_format == "wav"


@pytest.mark.parametrize("format", ["mp3", "flac", "wav", "opus"])
def test_format_is_detected_from_content_not_name(audiocli: CommandLine, tmp_path: Path, format: str) -> None:
    path = tmp_path / "recording.txt"
    content = encode(SPEECH_WAV[44:], format)
    path.write_bytes(content)

    r = audiocli("transcribe", path)

    assert r.code == 0, r.err
    assert base64.b64decode(r.requests[0].json["input_audio"]["data"]) == content


def test_unsupported_format_is_converted(audiocli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "recording.aac"
    path.write_bytes(encode(SPEECH_WAV[44:], "aac"))

    r = audiocli("transcribe", path, "-g", "openai", "-m", "whisper-1", variables=OPENAI_VARIABLES)

    assert r.code == 0, r.err
    assert r.requests[0].audio_format == "flac"
    assert r.requests[0].audio_s == pytest.approx(SPEECH_S, abs=0.1)
    assert list((audiocli.directory / "world" / "cache" / "audiocli" / "uploads").iterdir()) == []


def write_video(path: Path, *, has_audio: bool = True) -> None:
    """Write one second of black video with or without an audio stream."""
    import av

    with av.open(str(path), "w", format="mp4") as container:
        video_stream = container.add_stream("mpeg4", rate=10)
        video_stream.width, video_stream.height, video_stream.pix_fmt = 64, 64, "yuv420p"
        audio_stream = container.add_stream("aac", rate=16_000) if has_audio else None
        for _ in range(10):
            frame = av.VideoFrame(64, 64, "yuv420p")
            container.mux(video_stream.encode(frame))
        container.mux(video_stream.encode(None))
        if audio_stream is not None:
            samples = expected_pcm("x" * 20, rate_hz=16_000)[: 2 * 16_000]
            frame = av.AudioFrame(format="s16", layout="mono", samples=len(samples) // 2)
            frame.planes[0].update(samples)
            frame.sample_rate = 16_000
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=16_000, frame_size=1024)
            for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(audio_stream.encode(resampled))
            container.mux(audio_stream.encode(None))


def test_only_the_audio_of_a_video_is_sent(audiocli: CommandLine, tmp_path: Path) -> None:
    write_video(tmp_path / "video.mp4")

    r = audiocli("transcribe", tmp_path / "video.mp4", "-g", "openai", "-m", "whisper-1", variables=OPENAI_VARIABLES)

    assert r.code == 0, r.err
    assert r.requests[0].audio_format == "flac"
    assert r.requests[0].audio_s == pytest.approx(1.0, abs=0.1)


def test_file_without_audio_is_rejected_before_sending(audiocli: CommandLine, tmp_path: Path) -> None:
    write_video(tmp_path / "silent.mp4", has_audio=False)
    for name, content in (
        ("empty.wav", b""),
        ("text.mp3", b"this is not audio\n" * 100),
        ("page.html", b"<html></html>"),
        ("zeros.bin", bytes(10_000)),
        ("header.wav", build_wav(b"")),
        ("invalid.mp3", b"ID3" + bytes(500)),
        ("truncated.wav", SPEECH_WAV[:30]),
        ("silent.mp4", (tmp_path / "silent.mp4").read_bytes()),
    ):
        (tmp_path / name).write_bytes(content)

        r = audiocli("transcribe", tmp_path / name)

        assert (r.code, r.requests, r.ledger) == (8, [], []), (name, r.err)
        assert r.err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["missing.wav"], "missing.wav"),
        (["recording.wav", "-f", "doc"], "unknown format"),
        (["recording.wav", "-f", ","], "unknown format"),
        (["recording.wav", "-o", "x.txt", "-O", "out"], "-o cannot be used with -O"),
        (["recording.wav", "-o", "x.txt", "-f", "txt,srt"], "one format"),
        (["recording.wav", "-f", "srt", "--timestamps", "none"], "--timestamps none cannot be used with -f srt"),
        (["recording.wav", "--timestamps", "letter"], "--timestamps"),
        (["recording.wav", "--temperature", "2"], "between 0 and 1"),
        (["recording.wav", "-l", "Germen"], "german"),
        (["recording.wav", "--max-line-width", "0"], "--max-line-width"),
        (["recording.wav", "--stdin-format", "mp3"], "--stdin-format"),
        (["-", "--stdin-format", "nope"], "--stdin-format"),
        (["-", "-f", "txt,srt"], "-O DIR"),
        (["recording.wav", "-f", "srt", "--strict-timestamps", "-m", "openai:gpt-4o-transcribe"], "whisper-1"),
        (["recording.wav", "-f", "srt", "--strict-timestamps", "-m", "openrouter:openai/gpt-4o-transcribe"], "whisper"),
        (["recording.wav", "-l", "de", "-m", "local:pocketsphinx"], "English"),
    ],
)
def test_invalid_usage_is_rejected_before_sending(
    audiocli: CommandLine, recording: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], message: str
) -> None:
    monkeypatch.chdir(recording.parent)

    r = audiocli("transcribe", *argv, stdin=SPEECH_WAV, variables={"OPENAI_API_KEY": KEYS["openai"]})

    assert (r.code, r.requests) == (2, []), r.err
    assert message in r.err


# --- outputs ---------------------------------------------------------------------------------------------------------


def test_several_formats_are_written_next_to_the_recording(audiocli: CommandLine, recording: Path) -> None:
    r = audiocli("transcribe", recording, "-f", "txt,srt,json", "--json")

    assert r.json["outputs"] == [str(recording.with_suffix(extension)) for extension in (".txt", ".srt", ".json")]
    assert recording.with_suffix(".txt").read_text() == DEFAULT_TRANSCRIPT + "\n"
    assert json.loads(recording.with_suffix(".json").read_text())["timing"] == "segment"


def test_extension_of_the_output_selects_the_format(audiocli: CommandLine, recording: Path, tmp_path: Path) -> None:
    audiocli("transcribe", recording, "-o", tmp_path / "captions.vtt")

    assert (tmp_path / "captions.vtt").read_text().startswith("WEBVTT\n")


def test_json_is_written_to_stderr_if_stdout_has_the_transcript(audiocli: CommandLine, recording: Path) -> None:
    r = audiocli("transcribe", recording, "-o", "-", "--json")

    assert r.text == DEFAULT_TRANSCRIPT + "\n"
    assert r.err_json["text"] == DEFAULT_TRANSCRIPT


def test_control_characters_are_removed_on_a_terminal(audiocli: CommandLine, recording: Path) -> None:
    audiocli.gateway.set_transcript("bell \x07 and \x1b[31m red")

    on_terminal = audiocli("transcribe", recording, terminal="out")
    in_pipe = audiocli("transcribe", recording)

    assert b"\x1b" not in on_terminal.out
    assert b"\x1b[31m" in in_pipe.out


def test_unwritable_transcript_is_saved(audiocli: CommandLine, recording: Path) -> None:
    r = audiocli("transcribe", recording, "-o", "/dev/full", "--json")

    assert r.code == 10
    assert Path(r.err_json["error"]["kept"]).read_text() == DEFAULT_TRANSCRIPT + "\n"
    assert [entry["outcome"] for entry in r.ledger] == ["ok"]


def test_missing_output_directory_is_created(audiocli: CommandLine, recording: Path, tmp_path: Path) -> None:
    r = audiocli("transcribe", recording, "-O", tmp_path / "new" / "directory", "-f", "txt")

    assert r.code == 0, r.err
    assert (tmp_path / "new" / "directory" / "recording.txt").read_text() == DEFAULT_TRANSCRIPT + "\n"


# --- failed responses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "outcome"),
    [
        (Status(401), 4, "refused"),
        (Status(402), 5, "refused"),
        (Status(404), 6, "refused"),
        (Status(413), 6, "refused"),
        (Status(524), 7, "unknown"),
        (OkWithError(400), 6, "refused"),
        (OkWithError(401), 4, "refused"),
        (Empty(), 9, "failed"),
        (Html(200), 9, "failed"),
        (Garbage(b"\xff\xfe\x00garbage", "application/json"), 9, "failed"),
        (Garbage(b'{"text": 7}', "application/json"), 9, "failed"),
        (Garbage(b"{}", "application/json"), 9, "failed"),
        (Garbage(b'"Internal error"', "application/json"), 9, "failed"),
        (Garbage(b"Internal Server Error", "text/plain"), 9, "failed"),
        (Garbage(b'data: {"type":"transcript.text.delta","delta":"hi"}\n\n', "text/event-stream"), 7, "unknown"),
        (Garbage(b"[]", "application/json"), 9, "failed"),
        (Garbage(b"[" * 100_000, "application/json"), 9, "failed"),
        (CutAfter(10), 7, "unknown"),
        (CutBeforeResponse(), 7, "unknown"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_failed_response_is_an_error_with_one_entry(
    audiocli: CommandLine, recording: Path, tmp_path: Path, fault: object, code: int, outcome: str
) -> None:
    audiocli.gateway.queue_faults(fault)

    r = audiocli("transcribe", recording, "-o", tmp_path / "transcript.txt")

    assert (r.code, r.out) == (code, b""), r.err
    assert [entry["outcome"] for entry in r.ledger] == [outcome]
    assert not (tmp_path / "transcript.txt").exists()
    assert "Traceback" not in r.err


def test_response_fields_of_wrong_type_are_ignored(audiocli: CommandLine, recording: Path) -> None:
    reply = {
        "text": DEFAULT_TRANSCRIPT,
        "language": 7,
        "duration": "soon",
        "segments": [{"start": "0.0", "end": None, "text": 1}, 5, {"start": 0, "end": 1, "text": DEFAULT_TRANSCRIPT}],
        "words": "none",
        "usage": {"cost": "NaN", "seconds": [], "input_tokens": -1},
    }
    audiocli.gateway.queue_faults(Garbage(json.dumps(reply).encode(), "application/json"))

    r = audiocli("transcribe", recording, "--json")

    assert r.code == 0, r.err
    assert r.json["text"] == DEFAULT_TRANSCRIPT
    assert len(r.json["segments"]) == 1
    assert (r.json["cost_usd"], r.ledger[0]["cost_nanousd"]) == (None, None)


@pytest.mark.parametrize("cost", ["-1", "1e30", '"free"', "null", "true", "[1]", '{"a":1}'])
def test_invalid_cost_is_unknown(audiocli: CommandLine, recording: Path, cost: str) -> None:
    body = f'{{"text":"{DEFAULT_TRANSCRIPT}","usage":{{"cost":{cost}}}}}'
    audiocli.gateway.queue_faults(Garbage(body.encode(), "application/json"))

    r = audiocli("transcribe", recording, "--json")

    assert (r.code, r.json["cost_usd"], r.ledger[0]["cost_source"]) == (0, None, "unknown")


def test_malformed_responses_do_not_crash(audiocli: CommandLine, recording: Path) -> None:
    for fault in (WrongTypes(), MegabyteLine()):
        audiocli.gateway.queue_faults(fault)

        r = audiocli("transcribe", recording)

        assert r.code in (0, 6, 9), r.err
        assert "Traceback" not in r.err


def test_empty_transcript_is_accepted_for_silence_but_not_for_speech(audiocli: CommandLine, tmp_path: Path) -> None:
    silence, speech = tmp_path / "silence.wav", tmp_path / "speech.wav"
    silence.write_bytes(build_wav(bytes(48_000)))
    speech.write_bytes(build_wav(signals.get_speech_samples(), rate_hz=signals.RATE_HZ))
    audiocli.gateway.set_transcript("")

    for_silence = audiocli("transcribe", silence, "--json")
    for_speech = audiocli("transcribe", speech)

    assert for_silence.code == 0, for_silence.err
    assert for_silence.json["text"] == ""
    assert any("no speech" in warning for warning in for_silence.json["warnings"])
    assert for_speech.code == 9


def test_captions_without_timestamps_are_an_error_only_if_they_must_be_exact(
    audiocli: CommandLine, recording: Path
) -> None:
    audiocli.gateway.queue_faults(Garbage(json.dumps({"text": DEFAULT_TRANSCRIPT}).encode(), "application/json"))

    strict = audiocli("transcribe", recording, "-f", "srt", "--strict-timestamps")
    estimated = audiocli("transcribe", recording, "-f", "srt")

    assert (strict.code, strict.out) == (9, b"")
    assert (estimated.code, estimated.posts, DEFAULT_TRANSCRIPT in estimated.text.replace("\n", " ")) == (0, [], True)


def test_unreachable_gateway_is_a_connection_error(audiocli: CommandLine, recording: Path) -> None:
    url = f"http://127.0.0.1:{find_closed_port()}/v1"

    r = audiocli("transcribe", recording, variables={"OPENROUTER_BASE_URL": url})

    assert r.code == 7
    assert {entry["outcome"] for entry in r.ledger} == {"unsent"}


# --- other gateways ------------------------------------------------------------------------------------------------


def test_server_without_key_needs_only_a_base_url(audiocli: CommandLine, recording: Path) -> None:
    url = audiocli.gateway.base_url("plain")

    r = audiocli(
        "transcribe", recording, "--base-url", url, "-m", "whisper-small", variables={"OPENROUTER_API_KEY": ""}
    )

    assert (r.code, r.text) == (0, DEFAULT_TRANSCRIPT + "\n"), r.err
    assert "authorization" not in r.requests[0].headers


def test_gateway_is_defined_in_the_config_file(audiocli: CommandLine, recording: Path) -> None:
    audiocli.write_config(f"""
        [gateways.example]
        base_url = "{audiocli.gateway.base_url("plain")}"
        [transcribe]
        models = ["example:whisper-small"]
        language = "German"
    """)

    r = audiocli("transcribe", recording)

    assert r.code == 0, r.err
    assert r.requests[0].get_form_values("language") in ("de", ["de"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[speak]\nvoices = 3", "did you mean voice?"),
        ("[speak", "line 1"),
        ("[gateways.x]\nbase_urll = 'y'", "base_url"),
        ("[gateways.x]\nbase_url = 'http://x'\ndialect = 'openia'", "openai"),
        ("[speak]\nmodels = 'one'", "speak.models"),
    ],
)
def test_config_error_has_its_location(audiocli: CommandLine, recording: Path, config: str, message: str) -> None:
    audiocli.write_config(config)

    r = audiocli("transcribe", recording)

    assert (r.code, r.requests) == (2, [])
    assert message in r.err


def test_unrequested_gzip_response_is_decompressed(audiocli: CommandLine, recording: Path) -> None:
    body = gzip.compress(json.dumps({"text": DEFAULT_TRANSCRIPT}).encode())
    gzip_headers = {"content-encoding": "gzip"}
    audiocli.gateway.queue_faults(
        Status(200, body=body, headers=gzip_headers), Status(200, body=body[:-9], headers=gzip_headers)
    )

    complete, truncated = (audiocli("transcribe", recording, "--no-resume") for _ in range(2))

    assert (complete.code, complete.text) == (0, DEFAULT_TRANSCRIPT + "\n"), complete.err
    assert (truncated.code, truncated.out) == (7, b"")
