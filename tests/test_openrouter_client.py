"""The official OpenRouter client as a reference: audiocli sends the same requests and parses responses alike."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openrouter
import openrouter.errors
import pytest

from audiocli.mock import KEYS, MockGateway, Status
from tests.conftest import CommandLine
from tests.pyav_codec import encode
from tests.test_openai_client import SAMPLES, TEXT, read_envelope, read_file_part, read_form_fields, write_recording

MINI_TTS = "openai/gpt-4o-mini-tts-2025-12-15"


@pytest.fixture
def openrouter_client(gateway: MockGateway) -> Iterator[openrouter.OpenRouter]:
    with openrouter.OpenRouter(
        api_key=KEYS["openrouter"], server_url=gateway.base_url("openrouter"), retry_config=None
    ) as client:
        yield client


@pytest.mark.parametrize(
    ("model", "flags", "fields"),
    [
        (MINI_TTS, (), {"voice": "alloy"}),
        (MINI_TTS, ("-v", "coral", "-x", "1.5"), {"voice": "coral", "speed": 1.5}),
        (
            MINI_TTS,
            ("-i", 'Calm, "slow" — bitte'),
            {"voice": "alloy", "instructions": 'Calm, "slow" — bitte'},
        ),
        ("hexgrad/kokoro-82m", (), {}),
        ("google/gemini-3.8-flash-tts", ("-v", "Kore", "-f", "pcm"), {"voice": "Kore"}),
        (
            "microsoft/mai-voice-2.1",
            ("--option", "azure.style=cheerful", "--option", "azure.styledegree=1.5"),
            {"provider": {"options": {"azure": {"style": "cheerful", "styledegree": 1.5}}}},
        ),
        (
            "hexgrad/kokoro-82m",
            (
                *("--option", "user=u1", "--option", "session_id=s1"),
                *("--option", "trace.trace_id=t", "--option", "trace.n=2"),
            ),
            {"user": "u1", "session_id": "s1", "trace": {"trace_id": "t", "n": 2}},
        ),
        (
            "hexgrad/kokoro-82m",
            (
                *("--option", "provider.zdr=true", "--option", "provider.data_collection=deny"),
                *("--option", "deepinfra.seed=7"),
            ),
            {"provider": {"zdr": True, "data_collection": "deny", "options": {"deepinfra": {"seed": 7}}}},
        ),
    ],
    ids=["plain", "voice and speed", "instructions", "no voice", "samples", "options", "observability", "privacy"],
)
def test_speech_request_equals_openrouter_client(
    audiocli: CommandLine,
    openrouter_client: openrouter.OpenRouter,
    tmp_path: Path,
    model: str,
    flags: tuple[str, ...],
    fields: dict[str, Any],
) -> None:
    format: Any = "pcm" if "pcm" in flags else "mp3"
    reference = openrouter_client.tts.create_speech(input=TEXT, model=model, response_format=format, **fields).read()

    r = audiocli("speak", TEXT, "-m", f"openrouter:{model}", "-o", tmp_path / f"x.{format}", *flags)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert ours.json == theirs.json
    assert read_envelope(ours) == read_envelope(theirs)
    assert (tmp_path / f"x.{format}").read_bytes() == reference


@pytest.mark.parametrize(
    ("model", "fields"), [("google/gemini-3.8-flash-tts", {"voice": "Kore"}), ("fish-audio/s2.1-pro", {})]
)
def test_instructions_field_equals_openrouter_client(
    audiocli: CommandLine, openrouter_client: openrouter.OpenRouter, tmp_path: Path, model: str, fields: dict[str, Any]
) -> None:
    openrouter_client.tts.create_speech(input=TEXT, model=model, response_format="pcm", instructions="Calm", **fields)

    audiocli("speak", TEXT, "-m", f"openrouter:{model}", "-o", tmp_path / "x.pcm", "-i", "Calm")

    theirs, ours = audiocli.gateway.requests
    assert ours.json == theirs.json


def test_turns_equal_openrouter_client(
    audiocli: CommandLine, openrouter_client: openrouter.OpenRouter, tmp_path: Path
) -> None:
    turns: Any = [{"text": "Who is there?", "voice": "Puck"}, {"text": "Me — 日本.", "instructions": "Calm"}]
    model = "google/gemini-3.8-flash-tts"
    reference = openrouter_client.tts.create_speech(
        input=turns, model=model, response_format="pcm", voice="Kore"
    ).read()

    r = audiocli(
        *("speak", "-m", f"openrouter:{model}", "-v", "Kore", "-o", tmp_path / "x.pcm"),
        *("--option", f"input={json.dumps(turns)}"),
    )

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert ours.json == theirs.json
    assert ours.problems == []
    assert (tmp_path / "x.pcm").read_bytes() == reference


@pytest.mark.parametrize("count", [1, 3])
def test_voice_references_equal_openrouter_client(
    audiocli: CommandLine, openrouter_client: openrouter.OpenRouter, tmp_path: Path, count: int
) -> None:
    clips = [(write_recording(tmp_path, name), name) for name in ("wav", "mp3", "flac")[:count]]
    parts: list[Any] = []
    for path, name in clips:
        data = base64.b64encode(path.read_bytes()).decode()
        parts += [
            {"type": "input_audio", "input_audio": {"data": data, "format_": name}},
            {"type": "text", "text": f"Said in a={name}"},
        ]
    openrouter_client.tts.create_speech(
        input=TEXT, model="fish-audio/s2.1-pro", response_format="mp3", input_references=parts
    )

    references = [value for path, name in clips for value in ("--reference", f"{path}=Said in a={name}")]
    r = audiocli("speak", TEXT, "-m", "openrouter:fish-audio/s2.1-pro", "-o", tmp_path / "x.mp3", *references)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert ours.json == theirs.json
    assert ours.problems == []


def test_image_of_the_scene_equals_openrouter_client(
    audiocli: CommandLine, openrouter_client: openrouter.OpenRouter, tmp_path: Path
) -> None:
    clip = write_recording(tmp_path, "wav")
    data = base64.b64encode(clip.read_bytes()).decode()
    image: Any = {"type": "image_url", "image_url": {"url": "https://example.com/scene.png"}}
    openrouter_client.tts.create_speech(
        input=TEXT,
        model="fish-audio/s2.1-pro",
        response_format="mp3",
        input_references=[{"type": "input_audio", "input_audio": {"data": data, "format_": "wav"}}, image],
    )

    r = audiocli(
        *("speak", TEXT, "-m", "openrouter:fish-audio/s2.1-pro", "-o", tmp_path / "x.mp3", "--reference", clip),
        *("--option", f"input_references={json.dumps([image])}"),
    )

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert ours.json == theirs.json


ATTRIBUTION_HEADERS = ("http-referer", "x-openrouter-title", "x-openrouter-categories")


@pytest.mark.parametrize("is_configured", [False, True])
def test_attribution_headers_equal_openrouter_client(
    audiocli: CommandLine, openrouter_client: openrouter.OpenRouter, tmp_path: Path, is_configured: bool
) -> None:
    talk = write_recording(tmp_path, "wav")
    input_audio: Any = {"data": base64.b64encode(talk.read_bytes()).decode(), "format_": "wav"}
    attribution: dict[str, Any] = {"x_open_router_title": "audiocli"}
    if is_configured:
        attribution |= {"http_referer": "https://example.com", "x_open_router_categories": "cli-agent"}
        audiocli.write_config(
            "[gateways.openrouter]\n"
            'headers = { HTTP-Referer = "https://example.com", X-OpenRouter-Categories = "cli-agent" }\n'
        )
    openrouter_client.tts.create_speech(input="Hi", model=MINI_TTS, response_format="mp3", **attribution).read()
    openrouter_client.stt.create_transcription(input_audio=input_audio, model="openai/whisper-1", **attribution)

    audiocli("speak", "Hi", "-m", f"openrouter:{MINI_TTS}", "-o", tmp_path / "x.mp3")
    audiocli("transcribe", talk, "-m", "openrouter:openai/whisper-1", "-o", tmp_path / "x.txt")

    requests = [request for request in audiocli.gateway.requests if request.method == "POST"]
    sent = [{name: request.headers.get(name) for name in ATTRIBUTION_HEADERS} for request in requests]
    assert len(sent) == 4
    assert sent[2:] == sent[:2]
    assert sent[0]["x-openrouter-title"] == "audiocli"


TRANSCRIPTION_CASES = [
    ("openai/gpt-4o-transcribe", (), {}),
    ("openai/whisper-1", ("-l", "German", "--temperature", "0.2"), {"language": "de", "temperature": 0.2}),
    ("openai/whisper-1", ("-f", "srt"), {"response_format": "verbose_json", "timestamp_granularities": ["segment"]}),
    (
        "openai/whisper-large-v3",
        ("--timestamps", "word"),
        {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]},
    ),
    (
        "openai/gpt-4o-transcribe",
        ("-p", "Pelé"),
        {"provider": {"options": {"openai": {"prompt": "Pelé"}}}},
    ),
    (
        "deepgram/nova-3",
        ("--option", "deepgram.smart_format=true", "--option", 'deepgram.keyterm=["a", "b"]'),
        {"provider": {"options": {"deepgram": {"smart_format": True, "keyterm": ["a", "b"]}}}},
    ),
    (
        "microsoft/mai-transcribe-2",
        ("--keyterms", "Pelé, São Paulo,Pelé", "--option", 'trace={"trace_id": "t"}', "--option", "user=u"),
        {"keyterms": ["Pelé", "São Paulo"], "trace": {"trace_id": "t"}, "user": "u"},
    ),
    (
        "openai/whisper-1",
        (
            *("--option", "session_id=s1", "--option", "trace.span_name=n"),
            *("--option", "provider.zdr=true", "--option", "provider.data_collection=deny"),
        ),
        {"session_id": "s1", "trace": {"span_name": "n"}, "provider": {"zdr": True, "data_collection": "deny"}},
    ),
    (
        "microsoft/mai-transcribe-2",
        ("--diarize",),
        {"diarize": True, "response_format": "verbose_json", "timestamp_granularities": ["segment"]},
    ),
]


@pytest.mark.parametrize(
    ("model", "flags", "fields", "format"),
    [(*row, ("wav", "mp3", "opus", "flac")[number % 4]) for number, row in enumerate(TRANSCRIPTION_CASES)],
    ids=lambda value: str(value)[:40],
)
def test_transcription_request_equals_openrouter_client(
    audiocli: CommandLine,
    openrouter_client: openrouter.OpenRouter,
    tmp_path: Path,
    model: str,
    flags: tuple[str, ...],
    fields: dict[str, Any],
    format: str,
) -> None:
    talk = write_recording(tmp_path, format)
    input_audio: Any = {
        "data": base64.b64encode(talk.read_bytes()).decode(),
        "format_": "ogg" if format == "opus" else format,
    }
    reference = openrouter_client.stt.create_transcription(input_audio=input_audio, model=model, **fields)

    r = audiocli("transcribe", talk, "-m", f"openrouter:{model}", "-o", tmp_path / "x", "-f", *split_format(flags))

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert ours.json == theirs.json
    assert read_envelope(ours) == read_envelope(theirs)
    written = (tmp_path / "x").read_text()
    spoken = re.sub(r"(?m)^\d: ", "", written) if "--diarize" in flags else written
    assert reference.text in " ".join(spoken.split())


def split_format(flags: tuple[str, ...]) -> tuple[str, ...]:
    """Return the arguments after -f: a format and further flags."""
    return flags[1:] if flags[:1] == ("-f",) else ("txt", *flags)


def test_form_upload_equals_openrouter_client(
    audiocli: CommandLine, openrouter_client: openrouter.OpenRouter, tmp_path: Path
) -> None:
    talk = tmp_path / "long.wav"
    talk.write_bytes(encode(SAMPLES * 34, "wav"))
    reference = openrouter_client.stt.create_transcription_multipart(
        model="openai/whisper-1",
        file={"file_name": "audio.wav", "content": talk.read_bytes(), "content_type": "audio/wav"},
        language="de",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )

    r = audiocli("transcribe", talk, "-m", "openrouter:openai/whisper-1", "-l", "de", "--timestamps", "word", "--json")

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert talk.stat().st_size > 4 * 2**20
    # The OpenRouter client 1.3.84 writes the brackets of a list twice, which its documentation does not mention.
    assert read_form_fields(ours) == [(name.replace("[][]", "[]"), value) for name, value in read_form_fields(theirs)]
    assert read_file_part(ours) == read_file_part(theirs)
    assert {**read_envelope(ours), "problems": []} == {**read_envelope(theirs), "problems": []}
    assert ours.problems == []
    assert r.json["text"] == reference.text


def test_times_and_cost_are_parsed_like_openrouter_client(
    audiocli: CommandLine, openrouter_client: openrouter.OpenRouter, tmp_path: Path
) -> None:
    talk = write_recording(tmp_path, "wav")
    input_audio: Any = {"data": base64.b64encode(talk.read_bytes()).decode(), "format_": "wav"}
    reference = openrouter_client.stt.create_transcription(
        input_audio=input_audio,
        model="openai/whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )

    r = audiocli("transcribe", talk, "-m", "openrouter:openai/whisper-1", "--timestamps", "word", "--json")

    assert reference.words and reference.segments and reference.usage
    assert [(w["word"], w["start_s"], w["end_s"]) for w in r.json["words"]] == [
        (word.word.strip(), word.start, word.end) for word in reference.words
    ]
    assert [(s["text"], s["start_s"], s["end_s"]) for s in r.json["segments"]] == [
        (part.text.strip(), part.start, part.end) for part in reference.segments
    ]
    assert r.json["cost_usd"] == reference.usage.cost
    assert r.ledger[0]["audio_ms"] == round((reference.usage.seconds or 0) * 1000)


@pytest.mark.parametrize("status", [400, 401, 402, 404, 500])
def test_error_message_is_parsed_like_openrouter_client(
    audiocli: CommandLine, openrouter_client: openrouter.OpenRouter, gateway: MockGateway, tmp_path: Path, status: int
) -> None:
    gateway.add_default_fault(Status(status, message="No, not today"))
    with pytest.raises(openrouter.errors.OpenRouterError) as caught:
        openrouter_client.tts.create_speech(input="Hi", model=MINI_TTS, response_format="mp3")

    r = audiocli("speak", "Hi", "-m", f"openrouter:{MINI_TTS}", "-o", tmp_path / "x.mp3", "--json")

    assert caught.value.message == "No, not today"
    assert caught.value.status_code == status
    assert f"{status} No, not today" in r.err_json["error"]["message"]


def test_voices_are_listed_like_openrouter_client(
    audiocli: CommandLine, openrouter_client: openrouter.OpenRouter
) -> None:
    reference = openrouter_client.models.list(output_modalities="speech")

    r = audiocli("voices", "-g", "openrouter")

    voices = [
        (f"openrouter:{model.id}", name) for model in reference.result.data for name in model.supported_voices or []
    ]
    ours = [(row.split()[-1], row.split()[0]) for row in r.text.splitlines()[1:]]
    assert r.code == 0, r.err
    assert sorted(ours) == sorted(voices)
    assert len(voices) > 10
