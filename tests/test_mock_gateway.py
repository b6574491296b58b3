"""Tests of the mock gateway, with the official OpenAI client as the reference for the wire format."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from audiocli.mock import (
    DEFAULT_TRANSCRIPT,
    KEYS,
    CleanTruncation,
    CutAfter,
    CutBeforeResponse,
    Drip,
    Empty,
    EventStreamFault,
    Garbage,
    Html,
    MegabyteLine,
    MockGateway,
    NoFault,
    OkWithError,
    OpenEndedWav,
    OtherFormat,
    RateLimitBurst,
    Redirect,
    Stall,
    Status,
    SubstituteModel,
    TextAsJson,
    WrongTypes,
    expected_pcm,
    expected_segments,
    expected_words,
    find_closed_port,
)
from tests.pyav_codec import CODEC, encode, expected_audio

TEXT = "Good morning, everyone."
RECORDING = encode(expected_pcm("a" * 50), "wav")
RECORDING_S = 3.0
DATA_URL = "data:audio/wav;base64," + base64.b64encode(RECORDING).decode()
TRANSCRIPTION_MODELS = {
    "openrouter": "openai/whisper-1",
    "openai": "whisper-1",
    "groq": "whisper-large-v3",
    "therouter": "openai/whisper-1",
    "arouter": "openai/whisper-large-v3",
    "plain": "Systran/faster-whisper-large-v3",
}
SPEECH_REQUEST = {"model": "hexgrad/kokoro-82m", "input": TEXT, "voice": "af_heart", "response_format": "pcm"}


@pytest.fixture
def client(gateway: MockGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url("openai"), api_key="sk-test", max_retries=0) as openai_client:
        yield openai_client


class ReceivedResponse:
    """One response, read with the standard library."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def send_request(
    gateway: MockGateway,
    method: str,
    path: str,
    body: Any = None,
    *,
    dialect: str = "openrouter",
    key: str | None = "",
    headers: dict[str, str] | None = None,
    base: str | None = None,
) -> ReceivedResponse:
    url = urlsplit(base or gateway.base_url(dialect))
    connection = http.client.HTTPConnection(url.netloc, timeout=5)
    token = KEYS[dialect] if key == "" else key
    request_headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
    if isinstance(body, dict):
        body, request_headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    try:
        connection.request(method, url.path + path, body, request_headers)
        return ReceivedResponse(connection.getresponse())
    finally:
        connection.close()


def speak(gateway: MockGateway, **changes: Any) -> ReceivedResponse:
    return send_request(gateway, "POST", "/audio/speech", {**SPEECH_REQUEST, **changes})


def transcribe_json(
    gateway: MockGateway, audio: bytes = RECORDING, format_: str = "wav", **fields: Any
) -> ReceivedResponse:
    source = {"data": base64.b64encode(audio).decode(), "format": format_}
    body = {"model": "openai/whisper-large-v3", "input_audio": source, **fields}
    return send_request(gateway, "POST", "/audio/transcriptions", body)


def transcribe_form(gateway: MockGateway, dialect: str, *, audio: bytes = RECORDING, **fields: Any) -> ReceivedResponse:
    """Send a form. Lists are repeated under a name with []. `to` is the last part of the path."""
    endpoint = fields.pop("to", "transcriptions")
    parts = [(name, value) for name, value in ({"model": TRANSCRIPTION_MODELS[dialect]} | fields).items()]
    texts = [(name, value) for name, value in parts if not isinstance(value, list)]
    texts += [(f"{name}[]", item) for name, value in parts if isinstance(value, list) for item in value]
    body = b"".join(
        b'--edge\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), str(value).encode())
        for name, value in texts
    )
    body += b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%b\r\n--edge--\r\n' % audio
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    return send_request(gateway, "POST", f"/audio/{endpoint}", body, dialect=dialect, headers=headers)


def parse_events(response: ReceivedResponse) -> list[Any]:
    """Parse the data lines of an event stream."""
    lines = response.body.decode().splitlines()
    return [
        json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:") and "[DONE]" not in line
    ]


# --- OpenAI client --------------------------------------------------------------------------------------------------


def test_openai_client_streams_exact_samples(gateway: MockGateway, client: openai.OpenAI) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", input=TEXT, voice="alloy", response_format="pcm"
    ) as response:
        blocks = list(response.iter_bytes())

    assert b"".join(blocks) == expected_pcm(TEXT)
    assert response.headers["x-request-id"].startswith("req_")
    assert gateway.problems == []
    assert gateway.billed_nanousd == len(TEXT) * 12_000


def test_openai_client_reads_transcript_and_usage(client: openai.OpenAI) -> None:
    transcript = client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", RECORDING))

    assert transcript.text == DEFAULT_TRANSCRIPT
    assert transcript.usage is not None and transcript.usage.type == "tokens" and transcript.usage.input_tokens == 30


def test_openai_client_raises_error_of_refused_request(gateway: MockGateway, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as wrong_voice:
        client.audio.speech.create(model="tts-1", input=TEXT, voice="unknown")
    with pytest.raises(openai.NotFoundError) as wrong_model:
        client.audio.speech.create(model="tts-9", input=TEXT, voice="alloy")
    with pytest.raises(openai.BadRequestError) as unknown_field:
        client.audio.speech.create(model="tts-1", input=TEXT, voice="alloy", extra_body={"provider": {}})
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-or-test").models.list()

    assert wrong_voice.value.param == "voice"
    assert wrong_model.value.code == "model_not_found"
    assert unknown_field.value.code == "unknown_parameter"
    assert "the key of openrouter was sent to openai" in gateway.requests[-1].problems
    assert gateway.billed_nanousd == 0


@pytest.mark.parametrize(
    ("model", "changes", "status"),
    [
        ("gpt-4o-transcribe", {"response_format": "verbose_json"}, 400),
        ("gpt-4o-transcribe-diarize", {"response_format": "diarized_json"}, None),
        ("whisper-1", {"response_format": "diarized_json"}, 400),
        ("whisper-1", {"timestamp_granularities": ["word"]}, 400),
        ("whisper-1", {"language": "english"}, 400),
        ("whisper-1", {"temperature": 1.5}, 400),
        ("whisper-1", {"file": ("noname", RECORDING)}, 400),
        ("whisper-1", {"file": ("a.wav", b"RIFF garbage")}, 400),
        ("whisper-1", {"file": ("a.wav", RECORDING + bytes(26_214_400))}, 413),
    ],
)
def test_openai_validates_fields_by_model(
    client: openai.OpenAI, model: str, changes: dict[str, Any], status: int | None
) -> None:
    call = {"model": model, "file": ("a.wav", RECORDING), **changes}
    if status is None:
        assert client.audio.transcriptions.create(**call).text == DEFAULT_TRANSCRIPT
        return

    with pytest.raises(openai.APIStatusError) as refused:
        client.audio.transcriptions.create(**call)

    assert refused.value.status_code == status


# --- OpenRouter -----------------------------------------------------------------------------------------------------


def test_openrouter_speech_defaults_to_pcm_and_is_billed_by_character(gateway: MockGateway) -> None:
    body = {name: value for name, value in SPEECH_REQUEST.items() if name != "response_format"}

    response = send_request(gateway, "POST", "/audio/speech", body)

    assert response.body == expected_pcm(TEXT)
    assert response.headers["content-type"] == "audio/pcm;rate=24000;channels=1"
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.headers["x-generation-id"].startswith("gen-tts-")
    assert [(c.model, c.cost_nanousd, c.characters) for c in gateway.charges] == [
        (SPEECH_REQUEST["model"], 23 * 4000, 23)
    ]


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"response_format": "wav"}, 400, "ZodError"),
        ({"model": "kokoro-82m"}, 400, "not a valid model ID"),
        ({"model": "acme/kokoro-82m"}, 404, "No endpoints found"),
        ({"model": "openai/whisper-1"}, 400, "not a speech model"),
        ({"model": "google/gemini-3.8-flash-tts", "voice": "Kore", "response_format": "mp3"}, 400, "pcm"),
        ({"model": "mistralai/voxtral-mini-tts-2603", "voice": "alloy"}, 400, "no voice"),
        ({"input": 7}, 400, "expected a text or a list of turns"),
        ({"voice": ""}, 400, "too short"),
        ({"provider": {"options": {"openai": 1}}}, 400, "provider.options"),
    ],
)
def test_openrouter_refuses_invalid_request_with_its_error_body(
    gateway: MockGateway, changes: dict[str, Any], status: int, message: str
) -> None:
    response = speak(gateway, **changes)

    assert response.status == status
    assert message in response.body.decode()
    assert "success" in response.json or response.json["error"]["code"] == status
    assert gateway.problems and gateway.billed_nanousd == 0


def test_openrouter_ignores_unknown_fields_with_warning(gateway: MockGateway) -> None:
    response = speak(gateway, instructions="slowly", provider={"order": ["acme"]}, speed=2)

    assert response.status == 200
    assert sorted(gateway.requests[0].problems) == [
        "provider.order has no effect on audio",
        "speed has no effect on hexgrad/kokoro-82m",
    ]


@pytest.mark.parametrize("format_", ["wav", "mp3", "flac", "ogg", "aac"])
def test_openrouter_measures_duration_of_base64_audio(gateway: MockGateway, format_: str) -> None:
    audio = RECORDING if format_ == "wav" else encode(expected_pcm("a" * 50), format_)

    response = transcribe_json(
        gateway, audio, format_, response_format="verbose_json", timestamp_granularities=["word"]
    )

    assert response.json["duration"] == pytest.approx(RECORDING_S, abs=0.08)
    assert len(response.json["words"]) == 9 and response.json["segments"]
    assert response.json["usage"]["cost"] * 1e9 == gateway.billed_nanousd > 0
    request = gateway.requests[0]
    assert (request.audio_sha256, request.audio_format) == (hashlib.sha256(audio).hexdigest(), format_)
    assert gateway.problems == []


@pytest.mark.parametrize("data", ["data:audio/wav;base64,UklGRg==", "UklG\nRg==", "UklGRg", "AA==AAAA", "ü"])
def test_invalid_base64_is_refused(gateway: MockGateway, data: str) -> None:
    body = {"model": "openai/whisper-1", "input_audio": {"data": data, "format": "wav"}}

    response = send_request(gateway, "POST", "/audio/transcriptions", body)

    assert response.status == 400
    assert "input_audio.data" in response.json["error"]["message"]


@pytest.mark.parametrize("model", ["openai/gpt-4o-transcribe", "deepgram/nova-3", "assemblyai/universal-3-5-pro"])
def test_openrouter_refuses_srt_and_unsupported_verbose_json(gateway: MockGateway, model: str) -> None:
    refused = transcribe_json(gateway, model=model, response_format="verbose_json")

    assert transcribe_json(gateway, response_format="srt").json["error"]["name"] == "ZodError"
    assert refused.status == 400
    assert refused.json["error"]["message"] == f"{model} does not support response_format verbose_json"
    assert transcribe_json(gateway, model=model).status == 200


def test_generation_cost_is_found_after_configured_misses() -> None:
    with MockGateway(CODEC, generation_misses=2) as gateway:
        id_ = speak(gateway).headers["x-generation-id"]
        responses = [send_request(gateway, "GET", f"/generation?id={id_}") for _ in range(3)]

    assert [response.status for response in responses] == [404, 404, 200]
    assert responses[2].json["data"]["total_cost"] == 0.000092
    assert responses[2].json["data"]["api_type"] == "tts"


def test_model_list_contains_speech_models_only_on_request(gateway: MockGateway) -> None:
    default = send_request(gateway, "GET", "/models", key=None).json["data"]
    speech = send_request(gateway, "GET", "/models?output_modalities=speech", key=None).json["data"]
    invalid = send_request(gateway, "GET", "/models?output_modalities=tts")

    assert "hexgrad/kokoro-82m" not in {card["id"] for card in default}
    kokoro = next(card for card in speech if card["id"] == "hexgrad/kokoro-82m")
    assert kokoro["pricing"] == {"prompt": "0.000004", "completion": "0"}
    assert "af_heart" in kokoro["supported_voices"]
    assert invalid.json["error"]["name"] == "ZodError"
    assert send_request(gateway, "GET", "/key", key=None).status == 401
    assert send_request(gateway, "GET", "/credits").status == 403
    assert send_request(gateway, "GET", "/model/openai/whisper-1").json["data"]["id"] == "openai/whisper-1"


# --- Groq and OpenAI-compatible -------------------------------------------------------------------------------------


def test_groq_bills_minimum_of_ten_seconds_and_refuses_captions(gateway: MockGateway) -> None:
    with openai.OpenAI(base_url=gateway.base_url("groq"), api_key="gsk-test", max_retries=0) as client:
        transcript = client.audio.transcriptions.create(model="whisper-large-v3", file=("a.wav", RECORDING))
        with pytest.raises(openai.BadRequestError):
            client.audio.transcriptions.create(
                model="whisper-large-v3", file=("a.wav", RECORDING), response_format="srt"
            )
        speech = client.audio.speech.create(
            model="canopylabs/orpheus-v1-english", input=TEXT, voice="troy", response_format="wav"
        )

    assert transcript.model_dump()["x_groq"]["id"]
    assert speech.content == expected_audio(TEXT, "wav")
    assert gateway.charges[0].cost_nanousd == 308_333


def test_openai_compatible_server_accepts_any_model_without_key(gateway: MockGateway) -> None:
    body = {"model": "my-voice", "input": "hi", "voice": "me", "response_format": "wav", "wild": 1}

    speech = send_request(gateway, "POST", "/audio/speech", body, dialect="plain")
    missing = send_request(gateway, "POST", "/audio/speech", {**body, "model": "missing-voice"}, dialect="plain")
    invalid = send_request(gateway, "POST", "/audio/speech", {**body, "speed": 9}, dialect="plain")

    assert speech.body == expected_audio("hi", "wav")
    assert (missing.status, missing.json) == (404, {"detail": "Model 'missing-voice' is not installed locally."})
    assert (invalid.status, invalid.json["detail"][0]["loc"]) == (422, ["body", "speed"])


def test_openai_compatible_server_lists_voices_and_models_by_task(gateway: MockGateway) -> None:
    voices = send_request(gateway, "GET", "/audio/voices", dialect="plain").json["voices"]
    transcription = send_request(gateway, "GET", "/models?task=automatic-speech-recognition", dialect="plain").json[
        "data"
    ]
    speech = send_request(gateway, "GET", "/models?task=text-to-speech", dialect="plain").json["data"]
    all_ = send_request(gateway, "GET", "/models", dialect="plain").json["data"]

    assert {"af_heart", "am_adam"} <= {voice["name"] for voice in voices}
    assert [card["id"] for card in transcription] == ["Systran/faster-whisper-large-v3", "whisper-1"]
    assert [card["id"] for card in speech] == ["speaches-ai/Kokoro-82M-v1.0-ONNX", "tts-1"]
    assert len(all_) == 4


def test_openai_compatible_server_ignores_openai_fields(gateway: MockGateway) -> None:
    call: dict[str, Any] = {
        "known_speaker_names": ["Anna"],
        "include": ["logprobs"],
        "keywords": ["fox"],
        "chunking_strategy": "none",
    }

    response = transcribe_form(gateway, "plain", hotwords="fox", without_timestamps="true", **call)
    invalid = transcribe_form(gateway, "plain", response_format="diarized_json")

    assert response.json == {"text": DEFAULT_TRANSCRIPT}
    assert (invalid.status, invalid.json["detail"][0]["loc"]) == (422, ["body", "response_format"])


def test_openai_compatible_server_streams_segments_and_speech(gateway: MockGateway) -> None:
    gateway.set_transcript("Hello there. How are you?")

    transcription = parse_events(transcribe_form(gateway, "plain", stream="true", model="whisper-1"))
    body = {"model": "tts-1", "input": "hi", "voice": "alloy", "response_format": "pcm", "stream_format": "sse"}
    speech = parse_events(
        send_request(gateway, "POST", "/audio/speech", {**body, "model": "my-voice"}, dialect="plain")
    )

    assert [event.get("delta") for event in transcription] == [" Hello there.", " How are you?", None]
    assert transcription[-1] == {"type": "transcript.text.done", "text": "Hello there. How are you?"}
    assert b"".join(base64.b64decode(event["audio"]) for event in speech[:-1]) == expected_pcm("hi")
    assert speech[-1]["token_usage"] == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    assert "usage" not in speech[-1]


# --- TheRouter ------------------------------------------------------------------------------------------------------


def speak_at(gateway: MockGateway, dialect: str, **changes: Any) -> ReceivedResponse:
    body = {"model": "openai/tts-1", "input": TEXT, "voice": "nova", "response_format": "wav", **changes}
    return send_request(gateway, "POST", "/audio/speech", body, dialect=dialect)


@pytest.mark.parametrize("dialect", ["therouter", "arouter"])
@pytest.mark.parametrize("format_", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_router_sends_speech_in_all_formats(gateway: MockGateway, dialect: str, format_: str) -> None:
    response = speak_at(gateway, dialect, response_format=format_)

    assert response.body == expected_audio(TEXT, format_)
    assert response.headers["content-type"].startswith("audio/")
    assert (gateway.problems, gateway.billed_nanousd) == ([], 23 * 15_000)


def test_therouter_reports_route_in_headers_of_every_response(gateway: MockGateway) -> None:
    gateway.queue_faults(NoFault(), Status(502))

    responses = [
        speak_at(gateway, "therouter"),
        speak_at(gateway, "therouter"),
        speak_at(gateway, "therouter", voice="unknown"),
    ]
    listed = send_request(gateway, "GET", "/models", dialect="therouter")

    assert [response.status for response in responses] == [200, 502, 400]
    for response in responses:
        assert response.headers["x-request-id"] == response.headers["x-router-request-id"]
        assert response.headers["x-router-model"] == "openai/tts-1"
        assert response.headers["x-router-provider"] == "openai"
        assert response.headers["x-router-fallback"] == "false"
        assert int(response.headers["x-router-latency-ms"]) > 0
    assert len({response.headers["x-request-id"] for response in [*responses, listed]}) == 4


@pytest.mark.parametrize(
    ("changes", "status", "problem"),
    [
        ({"input": "a" * 4096}, 200, None),
        ({"input": "a" * 4097}, 400, "longer than 4096 characters"),
        ({"model": "alibaba/cosyvoice2-0.5b", "input": "ü" * 500}, 200, None),
        ({"model": "fishaudio/fish-speech-1.5", "input": "ü" * 501}, 400, "longer than 1000 bytes"),
        ({"model": "indexteam/indextts-2", "voice": "anna"}, 200, "uses its default voice"),
        ({"model": "indexteam/indextts-2", "speed": 2}, 200, "speed has no effect"),
        ({"speed": 2}, 200, None),
        ({"speed": 5}, 400, "speed"),
        ({"voice": "coral"}, 400, "no voice of openai/tts-1"),
        ({"model": "tts-1"}, 400, "Unknown model"),
        ({"instructions": "slowly"}, 200, "instructions is ignored"),
        ({"sample_rate": "high", "stream_format": "sse"}, 200, "stream_format is ignored"),
    ],
)
def test_therouter_validates_limits(
    gateway: MockGateway, changes: dict[str, Any], status: int, problem: str | None
) -> None:
    response = speak_at(gateway, "therouter", **changes)

    assert response.status == status
    assert bool(gateway.problems) == (problem is not None)
    assert problem is None or problem in "; ".join(gateway.problems)
    assert len(gateway.charges) == (status == 200)


def test_therouter_error_reports_whether_it_is_retryable(gateway: MockGateway) -> None:
    gateway.queue_faults(Status(502), Status(429), NoFault())

    upstream, rate_limited, refused = (speak_at(gateway, "therouter", voice="unknown") for _ in range(3))

    error = upstream.json["error"]
    assert (error["code"], error["type"]) == (502, "upstream_error")
    assert error["metadata"] == {
        "provider": "openai", "request_id": upstream.headers["x-request-id"], "retryable": True,
    }  # fmt: skip
    assert rate_limited.json["error"]["metadata"]["retryable"] is True
    assert (refused.json["error"]["code"], refused.json["error"]["metadata"]["retryable"]) == (400, False)


def test_therouter_returns_duration_and_warns_of_granularities(gateway: MockGateway) -> None:
    bare = transcribe_form(gateway, "therouter")
    timed = transcribe_form(
        gateway, "therouter", response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    translated = transcribe_form(gateway, "therouter", to="translations")

    assert bare.json == {"text": DEFAULT_TRANSCRIPT, "duration": RECORDING_S}
    assert len(timed.json["words"]) == 9 and "usage" not in timed.json
    assert translated.status == 404
    assert gateway.requests[0].problems == []
    assert gateway.requests[1].problems == ["timestamp_granularities[] is not a documented field of this gateway"]


def test_sensevoice_tags_text_and_segments_but_not_words(gateway: MockGateway) -> None:
    gateway.set_transcript("Hello there. How are you?")
    call: dict[str, Any] = {"model": "alibaba/sensevoice-small", "timestamp_granularities": ["word", "segment"]}

    received = transcribe_form(gateway, "therouter", response_format="verbose_json", **call).json
    captions = transcribe_form(gateway, "therouter", model=call["model"], response_format="srt").body.decode()

    assert received["text"] == "<|HAPPY|><|Speech|>Hello there. How are you?"
    assert [segment["text"] for segment in received["segments"]] == [
        " <|HAPPY|><|Speech|>Hello there.",
        " <|NEUTRAL|><|BGM|>How are you?",
    ]
    assert [word["word"] for word in received["words"]] == ["Hello", "there", "How", "are", "you"]
    assert "\n<|HAPPY|><|Speech|>Hello there.\n" in captions


def test_therouter_substitutes_model(gateway: MockGateway) -> None:
    gateway.queue_faults(SubstituteModel(), SubstituteModel(), SubstituteModel("acme/voice", "acme"), NoFault())

    speech = speak_at(gateway, "therouter", speed=2)
    transcription = transcribe_form(gateway, "therouter")
    other = speak_at(gateway, "therouter")
    normal = speak_at(gateway, "therouter")

    routed = [
        tuple(response.headers[f"x-router-{name}"] for name in ("fallback", "model", "provider"))
        for response in (speech, transcription, other, normal)
    ]
    assert routed == [
        ("true", "alibaba/cosyvoice2-0.5b", "siliconflow"),
        ("true", "alibaba/sensevoice-small", "siliconflow"),
        ("true", "acme/voice", "acme"),
        ("false", "openai/tts-1", "openai"),
    ]
    assert speech.body == expected_audio(TEXT, "wav")
    assert transcription.json["text"] == "<|HAPPY|><|Speech|>" + DEFAULT_TRANSCRIPT
    assert [charge.model for charge in gateway.charges] == [model for _, model, _ in routed]
    assert gateway.charges[0].cost_nanousd == 23 * 7150


def test_other_gateways_do_not_substitute_models(gateway: MockGateway) -> None:
    gateway.queue_faults(SubstituteModel())

    assert speak(gateway).body == expected_pcm(TEXT)
    assert gateway.charges[0].model == SPEECH_REQUEST["model"]


def test_therouter_ignores_model_filter_and_refuses_credits(gateway: MockGateway) -> None:
    listed = send_request(gateway, "GET", "/models?output_modalities=speech", dialect="therouter").json["data"]
    credits = [
        send_request(gateway, "GET", "/api/v1/credits", base=f"{gateway.url}/therouter", key=key)
        for key in ("sk-tr-test", "sk-mgmt-other")
    ]

    outputs = {card["id"]: card["architecture"]["output_modalities"] for card in listed}
    assert outputs["openai/tts-1"] == ["speech"]
    assert outputs["openai/whisper-1"] == ["transcription"]
    assert outputs["openai/gpt-5.4"] == ["text"]
    assert all("supported_voices" not in card for card in listed)
    assert [response.status for response in credits] == [403, 401]


# --- ARouter --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["whisper-1", "openai/whisper-1", "openai/whisper-large-v3-turbo"])
def test_arouter_accepts_granularities_with_and_without_brackets(gateway: MockGateway, model: str) -> None:
    call: dict[str, Any] = {
        "model": model, "response_format": "verbose_json", "language": "zh-Hant-TW", "prompt": "Fox",
    }  # fmt: skip

    with_brackets = transcribe_form(gateway, "arouter", timestamp_granularities=["word", "segment"], **call).json
    without = transcribe_form(gateway, "arouter", timestamp_granularities="word", **call).json

    assert len(with_brackets["words"]) == len(without["words"]) == 9
    assert "segments" in with_brackets and "segments" not in without
    assert gateway.problems == []


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"language": "english please"}, 400),
        ({"response_format": "diarized_json"}, 400),
        ({"temperature": 2}, 400),
        ({"model": "whisper-9"}, 400),
        ({"model": "tts-1"}, 400),
        ({"audio": RECORDING + bytes(10_485_760 - len(RECORDING))}, 413),
    ],
)
def test_arouter_error_has_no_code(gateway: MockGateway, changes: dict[str, Any], status: int) -> None:
    response = transcribe_form(gateway, "arouter", **changes)

    assert response.status == status
    assert set(response.json["error"]) == {"message", "type"}
    assert response.json["error"]["type"] == "invalid_request_error"
    assert gateway.billed_nanousd == 0


def test_arouter_sends_text_and_captions_as_text_or_json(gateway: MockGateway) -> None:
    gateway.queue_faults(NoFault(), TextAsJson(), NoFault())

    text, wrapped, captions = (transcribe_form(gateway, "arouter", response_format=f) for f in ("text", "text", "vtt"))

    assert (text.body.decode(), text.headers["content-type"]) == (
        DEFAULT_TRANSCRIPT + "\n",
        "text/plain; charset=utf-8",
    )
    assert (wrapped.json, wrapped.headers["content-type"]) == ({"text": DEFAULT_TRANSCRIPT}, "application/json")
    assert captions.body.startswith(b"WEBVTT\n\n00:00:00.000 --> 00:00:03.000\n")


def test_arouter_translates_and_warns_of_undocumented_fields(gateway: MockGateway) -> None:
    plain = transcribe_form(gateway, "arouter", to="translations", model="whisper-1", response_format="verbose_json")
    more = transcribe_form(gateway, "arouter", to="translations", model="whisper-1", prompt="Fox", temperature=0)
    refused = transcribe_form(gateway, "arouter", to="translations", model="whisper-1", language="de")

    assert (plain.json["task"], plain.json["language"]) == ("translate", "english")
    assert (more.status, refused.status) == (200, 400)
    assert [len(request.problems) for request in gateway.requests] == [0, 2, 1]


def test_arouter_sends_rate_limit_headers_with_every_response(gateway: MockGateway) -> None:
    gateway.queue_faults(NoFault(), NoFault(), Status(429), Status(429, headers={"X-RateLimit-Reset": "1790000000"}))

    responses = [
        speak_at(gateway, "arouter"),
        speak_at(gateway, "arouter", voice="coral"),
        *(speak_at(gateway, "arouter") for _ in "12"),
    ]

    assert [response.status for response in responses] == [200, 400, 429, 429]
    remaining = [int(response.headers["x-ratelimit-remaining"]) for response in responses]
    assert (
        int(responses[0].headers["x-ratelimit-limit"]) > remaining[0] > remaining[1] > remaining[2] == remaining[3] == 0
    )
    assert float(responses[0].headers["x-ratelimit-reset"]) > gateway.requests[0].received_at_s
    assert responses[3].headers["x-ratelimit-reset"] == "1790000000"


def test_arouter_serves_cost_lookup_outside_of_base_url() -> None:
    with MockGateway(CODEC, generation_misses=1, key_limit_usd=1.0) as gateway:
        id_ = speak_at(gateway, "arouter", model="tts-1").headers["x-request-id"]
        base = f"{gateway.url}/arouter/api/v1"
        inside = send_request(gateway, "GET", f"/generation?id={id_}", dialect="arouter")
        early, late = (
            send_request(gateway, "GET", f"/generation?id={id_}", dialect="arouter", base=base) for _ in "12"
        )
        balance = send_request(gateway, "GET", "/balance", dialect="arouter", base=base)
        without_key = send_request(gateway, "GET", "/balance", dialect="arouter", base=base, key=None)
        key = send_request(gateway, "GET", "/key", dialect="arouter")

    assert (inside.status, early.status, late.status, without_key.status) == (404, 404, 200, 401)
    assert (late.json["id"], late.json["model"]) == (id_, "openai/tts-1")
    assert late.json["usage"]["cost"] == 0.000345
    assert balance.json == {"balance": 25.0 - 0.000345, "currency": "USD"}
    assert (key.json["data"]["usage"], key.json["data"]["limit_remaining"]) == (0.000345, 1.0 - 0.000345)


def test_generation_cost_is_known_to_its_gateway_only() -> None:
    with MockGateway(CODEC, generation_misses=1) as gateway:
        id_ = speak_at(gateway, "therouter").headers["x-request-id"]
        early, late = (send_request(gateway, "GET", f"/generation?id={id_}", dialect="therouter") for _ in "12")
        other_gateway = [send_request(gateway, "GET", f"/generation?id={id_}", dialect="openrouter") for _ in "12"]

    assert (early.status, late.status) == (404, 200)
    record = late.json["data"]
    assert (record["id"], record["model"], record["provider_name"]) == (id_, "openai/tts-1", "openai")
    assert (record["total_cost"], record["usage"]) == (0.000345, 0.000345)
    assert [response.status for response in other_gateway] == [404, 404]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", {"openai/whisper-1", "openai/gpt-5.4", "openai/gpt-5.4-audio-preview"}),
        ("?output_modalities=audio", {"openai/tts-1", "openai/gpt-5.4-audio-preview"}),
        ("?output_modalities=all", {"openai/tts-1", "openai/whisper-1", "openai/gpt-5.4"}),
        ("?output_modalities=speech", None),
    ],
)
def test_arouter_model_list_has_text_and_audio_modalities_only(
    gateway: MockGateway, query: str, ids: set[str] | None
) -> None:
    response = send_request(gateway, "GET", f"/models{query}", dialect="arouter")

    assert response.status == (400 if ids is None else 200)
    listed = {card["id"]: card["architecture"] for card in response.json.get("data", ())}
    assert (ids or set()) <= listed.keys()
    assert ("openai/tts-1" in listed) == ("=a" in query)
    assert "openai/whisper-1" not in listed or listed["openai/whisper-1"]["output_modalities"] == ["text"]


# --- all gateways ---------------------------------------------------------------------------------------------------


def test_all_gateways_return_same_segments_and_words(gateway: MockGateway) -> None:
    gateway.set_transcript("Hello there. How are you? It is late, no?")
    call: dict[str, Any] = {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]}

    received = {dialect: transcribe_form(gateway, dialect, **call).json for dialect in TRANSCRIPTION_MODELS}

    segments = {
        dialect: [(s["text"].strip(), s["start"], s["end"]) for s in response["segments"]]
        for dialect, response in received.items()
    }
    words = {
        dialect: [(w["word"].strip(" .,?"), w["start"], w["end"]) for w in response["words"]]
        for dialect, response in received.items()
    }
    assert len(received) == len(KEYS) == 6
    assert segments == dict.fromkeys(received, expected_segments("Hello there. How are you? It is late, no?", 3.0))
    assert words == dict.fromkeys(received, expected_words("Hello there How are you It is late no", 3.0))
    assert {(response["text"], response["duration"]) for response in received.values()} == {
        ("Hello there. How are you? It is late, no?", 3.0)
    }


def test_all_gateways_with_captions_return_same_bytes(gateway: MockGateway) -> None:
    gateway.set_transcript("Hello there. How are you?")

    captions = {
        (dialect, format_): transcribe_form(gateway, dialect, response_format=format_).body
        for dialect in ("openai", "therouter", "arouter", "plain")
        for format_ in ("srt", "vtt")
    }

    assert len(set(captions.values())) == 2
    assert captions["plain", "srt"].startswith(b"1\n00:00:00,000 --> 00:00:01,200\nHello there.\n\n2\n")


# --- event streams --------------------------------------------------------------------------------------------------


def test_diarized_stream_contains_segments_with_speaker_names(gateway: MockGateway, client: openai.OpenAI) -> None:
    gateway.set_transcript("Hello there. How are you? Fine.")

    stream = client.audio.transcriptions.create(
        model="gpt-4o-transcribe-diarize",
        file=("a.wav", RECORDING),
        response_format="diarized_json",
        stream=True,
        chunking_strategy={"type": "server_vad", "threshold": 0.4},
        known_speaker_names=["Anna"],
        known_speaker_references=[DATA_URL],
    )
    received = list(stream)

    assert [(e.speaker, e.text) for e in received if e.type == "transcript.text.segment"] == [
        ("Anna", "Hello there."),
        ("A", "How are you?"),
        ("Anna", "Fine."),
    ]
    assert (
        "".join(event.delta for event in received if event.type == "transcript.text.delta")
        == "Hello there. How are you? Fine."
    )
    assert received[-1].type == "transcript.text.done"
    assert gateway.problems == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"known_speaker_names": ["Anna"]}, "without known_speaker_references"),
        ({"known_speaker_names": ["Anna", "Ben"], "known_speaker_references": [DATA_URL]}, "2 known_speaker_names"),
        ({"known_speaker_names": ["Anna"], "known_speaker_references": ["UklGRg=="]}, "must be data URLs"),
        ({"known_speaker_names": list("abcde"), "known_speaker_references": [DATA_URL] * 5}, "too long"),
        ({"chunking_strategy": "sometimes"}, "neither auto nor server_vad"),
        ({"chunking_strategy": '{"type": "server_vad", "threshold": 0.5}'}, None),
        ({"chunking_strategy": "auto"}, None),
        ({"prompt": "Fox"}, "prompt is not supported"),
        (
            {"model": "whisper-1", "known_speaker_names": ["Anna"], "response_format": "json"},
            "not supported by whisper",
        ),
    ],
)
def test_openai_validates_speaker_fields(gateway: MockGateway, changes: dict[str, Any], problem: str | None) -> None:
    call = {"model": "gpt-4o-transcribe-diarize", "response_format": "diarized_json", **changes}

    response = transcribe_form(gateway, "openai", **call)

    assert bool(gateway.problems) == (problem is not None)
    assert problem is None or problem in "; ".join(gateway.problems)
    assert response.status == (200 if problem is None or "without" in problem else 400)


def test_logprobs_are_in_response_and_in_each_delta(client: openai.OpenAI) -> None:
    call: dict[str, Any] = {"model": "gpt-4o-transcribe", "file": ("a.wav", RECORDING), "include": ["logprobs"]}

    transcript = client.audio.transcriptions.create(**call)
    received = list(client.audio.transcriptions.create(**call, stream=True))

    assert "".join(chance.token for chance in transcript.logprobs) == DEFAULT_TRANSCRIPT
    assert received[1].logprobs[0].token == " quick" and received[1].logprobs[0].logprob < 0
    assert len(received[-1].logprobs) == 9


STREAM_FAULTS = [
    EventStreamFault(add_comments=True),
    EventStreamFault(use_crlf=True),
    EventStreamFault(omit_space=True),
    EventStreamFault(done_marker=True),
    EventStreamFault(split_bytes=1),
    EventStreamFault(add_comments=True, use_crlf=True, omit_space=True, done_marker=True, split_bytes=7),
]


@pytest.mark.parametrize("fault", STREAM_FAULTS)
def test_openai_client_reads_every_variation_of_event_stream(
    gateway: MockGateway, client: openai.OpenAI, fault: EventStreamFault
) -> None:
    gateway.queue_faults(fault)

    events: list[Any] = list(
        client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", RECORDING), stream=True)
    )

    assert "".join(event.delta for event in events[:-1]) == DEFAULT_TRANSCRIPT == events[-1].text
    assert gateway.requests[0].fault == "EventStreamFault"


def test_event_stream_bytes_follow_fault(gateway: MockGateway) -> None:
    gateway.set_transcript("Hi you")
    gateway.queue_faults(
        *STREAM_FAULTS[:4],
        EventStreamFault(omit_done_event=True),
        EventStreamFault(omit_done_event=True, done_marker=True),
    )

    bodies = [transcribe_form(gateway, "openai", model="gpt-4o-transcribe", stream="true").body for _ in range(6)]

    assert bodies[0].count(b": keep-alive\n\ndata: {") == 3
    assert bodies[1].count(b"\r\n\r\n") == 3 == bodies[1].count(b"\n") // 2
    assert bodies[2].count(b"data:{") == 3
    assert bodies[3].endswith(b"}\n\ndata: [DONE]\n\n")
    assert b"transcript.text.done" not in bodies[4] and bodies[4].count(b'delta"') == 4
    assert b"transcript.text.done" not in bodies[5] and bodies[5].endswith(b"data: [DONE]\n\n")


def test_event_stream_is_sent_byte_by_byte(gateway: MockGateway) -> None:
    gateway.set_transcript("Grüße")
    gateway.queue_faults(EventStreamFault(split_bytes=1))
    url = urlsplit(gateway.base_url("plain"))
    form = b'--e\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    body = form % (b"model", b"whisper") + form % (b"stream", b"true")
    body += b'--e\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%b\r\n--e--\r\n' % RECORDING
    head = (
        f"POST {url.path}/audio/transcriptions HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: multipart/form-data; boundary=e\r\n\r\n"
    )
    with socket.create_connection((url.hostname, url.port), timeout=5) as raw:
        raw.sendall(head.encode() + body)
        response = b"".join(iter(lambda: raw.recv(65536), b""))

    chunks = response.partition(b"\r\n\r\n")[2]
    assert chunks.startswith(b"1\r\nd\r\n1\r\na\r\n1\r\nt\r\n1\r\na\r\n1\r\n:\r\n")
    assert chunks.endswith(b"\r\n0\r\n\r\n")


def test_transcript_stream_ends_with_error_event(gateway: MockGateway, client: openai.OpenAI) -> None:
    gateway.queue_faults(EventStreamFault(error_after=3, error_status=503))
    received = []

    with pytest.raises(openai.APIError, match="Provider returned error"):
        for event in client.audio.transcriptions.create(
            model="gpt-4o-transcribe", file=("a.wav", RECORDING), stream=True
        ):
            received.append(event.type)

    assert received == ["transcript.text.delta"] * 3
    assert gateway.charges


@pytest.mark.parametrize(("dialect", "model"), [("openai", "gpt-4o-mini-tts"), ("plain", "my-voice")])
def test_speech_stream_ends_with_error_or_without_done_event(gateway: MockGateway, dialect: str, model: str) -> None:
    gateway.queue_faults(EventStreamFault(error_after=2), EventStreamFault(omit_done_event=True))
    call = {"model": model, "stream_format": "sse", "response_format": "pcm"}

    broken, incomplete = (parse_events(speak_at(gateway, dialect, **call)) for _ in "12")

    assert [event.get("type") for event in broken] == ["speech.audio.delta", "speech.audio.delta", None]
    assert broken[2]["error"]["message"] == "Provider returned error"
    assert {event["type"] for event in incomplete} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(event["audio"]) for event in incomplete) == expected_pcm(TEXT)


def test_event_stream_fault_does_not_change_other_responses(gateway: MockGateway) -> None:
    gateway.queue_faults(EventStreamFault(error_after=0), TextAsJson())

    assert [speak(gateway).body for _ in "12"] == [expected_pcm(TEXT)] * 2


# --- recorded requests ----------------------------------------------------------------------------------------------


def test_key_outside_of_authorization_header_is_reported(gateway: MockGateway) -> None:
    send_request(gateway, "GET", "/models?key=sk-or-test")
    speak(gateway, input="sk-or-test")

    assert gateway.problems == [
        "GET /openrouter/api/v1/models: a key is in the URL",
        "POST /openrouter/api/v1/audio/speech: the key is in the body",
    ]


def test_chunked_upload_is_read_and_connection_reused(gateway: MockGateway) -> None:
    url = urlsplit(gateway.base_url("openrouter"))
    connection = http.client.HTTPConnection(url.netloc, timeout=5)
    headers = {"Authorization": "Bearer sk-or-test", "Content-Type": "application/json"}
    blocks = [json.dumps(SPEECH_REQUEST).encode()[start : start + 7] for start in range(0, 200, 7)]
    responses = []
    try:
        for _ in range(2):
            connection.request("POST", url.path + "/audio/speech", iter(blocks), headers, encode_chunked=True)
            responses.append(ReceivedResponse(connection.getresponse()))
        raw = socket.create_connection((url.hostname, url.port), timeout=5)
        with raw:
            head = (f"POST {url.path}/audio/speech HTTP/1.1", "Expect: 100-continue", "Content-Length: 2", "", "")
            raw.sendall("\r\n".join(head).encode())
            interim = raw.recv(1000)
    finally:
        connection.close()

    assert [response.body for response in responses] == [expected_pcm(TEXT)] * 2
    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert gateway.connection_count == 2


def test_large_upload_is_hashed_and_truncated_in_record(gateway: MockGateway) -> None:
    pcm = expected_pcm("b" * 1000) * 4
    response = transcribe_json(gateway, encode(pcm, "wav"), response_format="verbose_json")

    request = gateway.requests[0]
    assert response.json["duration"] == 240.0
    assert request.json["input_audio"]["data"] == f"<{4 * -(-(len(pcm) + 44) // 3)} characters>"
    assert (len(request.audio or b""), request.audio_size_bytes) == (1 << 20, len(pcm) + 44)
    assert request.audio_sha256 == hashlib.sha256(encode(pcm, "wav")).hexdigest()


def test_transcript_is_fixed_or_computed_from_audio(gateway: MockGateway) -> None:
    gateway.set_transcript("Hi you", words=[("Hi", 0.1, 0.4), ("you", 0.5, 0.9)])
    fixed = transcribe_json(gateway, response_format="verbose_json", timestamp_granularities=["word"]).json
    gateway.set_transcript(lambda audio, seconds: f"{len(audio)} bytes, {seconds} s")
    computed = transcribe_json(gateway).json

    assert [(word["start"], word["end"]) for word in fixed["words"]] == [(0.1, 0.4), (0.5, 0.9)]
    assert computed["text"] == f"{len(RECORDING)} bytes, 3.0 s"


def test_incomplete_upload_is_recorded_and_not_billed(gateway: MockGateway) -> None:
    url = urlsplit(gateway.base_url("openrouter"))
    with socket.create_connection((url.hostname, url.port), timeout=5) as raw:
        raw.sendall(f"POST {url.path}/audio/speech HTTP/1.1\r\nContent-Length: 100\r\n\r\n{{".encode())

    request = gateway.wait_for_requests(1)[0]

    assert (request.complete, request.billed, request.status) == (False, False, None)


# --- faults ---------------------------------------------------------------------------------------------------------


def test_queued_faults_apply_in_order_to_matching_requests(gateway: MockGateway) -> None:
    gateway.queue_faults(Status(503), RateLimitBurst(2, retry_after=1), Status(418, body="tea"))
    gateway.queue_faults(Status(500), method="GET", path="/models")
    gateway.add_default_fault(Status(402), model="openai/whisper-large-v3")

    responses = [speak(gateway) for _ in range(5)]

    assert [response.status for response in responses] == [503, 429, 429, 418, 200]
    assert responses[0].json["error"]["code"] == 503
    assert responses[1].headers["retry-after"] == "1"
    assert responses[3].body == b"tea"
    assert send_request(gateway, "GET", "/models").status == 500
    assert [transcribe_json(gateway).status for _ in range(2)] == [402, 402]
    assert len(gateway.charges) == 1


@pytest.mark.parametrize("dialect", list(KEYS))
def test_status_fault_sends_given_headers_and_body(gateway: MockGateway, dialect: str) -> None:
    waits = {
        "retry-after-ms": "1500", "x-should-retry": "false", "x-ratelimit-reset-requests": "6m0s",
        "X-RateLimit-Reset": "1790000000",
    }  # fmt: skip
    gateway.queue_faults(
        Status(429, {"detail": ["busy"]}, headers=waits),
        Status(503, b"\xff\x00", content_type="application/octet-stream"),
        Status(413),
    )

    busy, raw, plain_status = (speak_at(gateway, dialect) for _ in range(3))

    assert {name: busy.headers[name.lower()] for name in waits} == waits
    assert (busy.json, busy.headers["content-type"]) == ({"detail": ["busy"]}, "application/json")
    assert (raw.status, raw.body, raw.headers["content-type"]) == (503, b"\xff\x00", "application/octet-stream")
    assert plain_status.status == 413 and "too large" in plain_status.body.decode()


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("n_bytes", [0, 1000, 10**9])
def test_cut_response_is_incomplete_for_client(gateway: MockGateway, *, chunked: bool, n_bytes: int) -> None:
    gateway.queue_faults(CutAfter(n_bytes, chunked=chunked))
    if n_bytes > 10**6 and not chunked:
        assert speak(gateway).body == expected_pcm(TEXT)
        return

    with pytest.raises(http.client.IncompleteRead) as cut:
        speak(gateway)

    assert cut.value.partial == expected_pcm(TEXT)[:n_bytes]
    assert gateway.charges


@pytest.mark.parametrize("fault", [CutBeforeResponse(), CutBeforeResponse(reset=True), CutAfter(100, reset=True)])
def test_connection_closed_before_response_is_billed(gateway: MockGateway, fault: Any) -> None:
    gateway.queue_faults(fault)

    with pytest.raises((ConnectionError, http.client.HTTPException)):
        speak(gateway)

    assert gateway.billed_nanousd == 23 * 4000


def test_speech_response_is_replaced_by_fault(gateway: MockGateway) -> None:
    full = expected_pcm(TEXT)
    gateway.queue_faults(
        Empty(), Empty(chunked=True), Html(), Html(502), OkWithError(429), Garbage(b"junk"), CleanTruncation(999),
        OtherFormat("wav", correct_content_type=False), OtherFormat("mp3"), WrongTypes(),
        Redirect("/elsewhere"), Drip(20_000, 0.001), MegabyteLine(400),
    )  # fmt: skip

    responses = [speak(gateway) for _ in range(13)]

    content_types = [response.headers["content-type"].partition(";")[0] for response in responses]
    assert (responses[0].body, content_types[0], responses[1].body) == (b"", "audio/pcm", b"")
    assert (responses[2].status, content_types[2], responses[3].status) == (200, "text/html", 502)
    assert (responses[4].status, responses[4].json["error"]["code"]) == (200, 429)
    assert (responses[5].body, content_types[5]) == (b"junk", "audio/pcm")
    assert responses[6].body == full[:999]
    assert (responses[7].body[:4], content_types[7], content_types[8]) == (b"RIFF", "audio/pcm", "audio/mpeg")
    assert responses[9].json["text"] == 7
    assert (responses[10].status, responses[10].headers["location"]) == (307, "/elsewhere")
    assert responses[11].body == full
    assert responses[12].status == 400 and len(responses[12].body) > 1 << 20
    assert len(gateway.charges) == 8


def test_json_response_is_replaced_by_fault(gateway: MockGateway) -> None:
    gateway.queue_faults(MegabyteLine(), CleanTruncation(20), WrongTypes(), OpenEndedWav())

    long, short, invalid, normal = (transcribe_json(gateway) for _ in range(4))

    assert len(long.json["text"]) > 1 << 20
    assert len(short.body) == 20
    assert invalid.json["usage"]["cost"] == "free"
    assert normal.json["text"] == DEFAULT_TRANSCRIPT


def test_status_before_body_is_sent_during_upload(gateway: MockGateway) -> None:
    gateway.queue_faults(Status(413, before_body=True))

    response = transcribe_json(gateway, bytes(100_000))

    assert response.status == 413
    assert not gateway.requests[0].complete


def test_held_response_waits_for_release(gateway: MockGateway) -> None:
    responses: list[ReceivedResponse] = []
    gateway.hold_responses(after_bytes=1000)
    threads = [threading.Thread(target=lambda: responses.append(speak(gateway))) for _ in range(3)]
    for thread in threads:
        thread.start()
    gateway.wait_for_held_responses(3)

    assert responses == [] and [request.sent_bytes for request in gateway.wait_for_requests(3)] == [1000] * 3
    gateway.release_responses()
    for thread in threads:
        thread.join(5)
    assert [response.body for response in responses] == [expected_pcm(TEXT)] * 3
    assert gateway.peak_in_flight == 3


def test_exit_closes_stalled_and_idle_connections_immediately() -> None:
    other_threads = set(threading.enumerate())  # of servers that other tests share
    with MockGateway(CODEC) as gateway:
        gateway.add_default_fault(Stall(after_bytes=100, seconds=60))
        url = urlsplit(gateway.base_url("openrouter"))
        connection = http.client.HTTPConnection(url.netloc, timeout=5)
        idle = socket.create_connection((url.hostname, url.port))
        headers = {"Authorization": "Bearer sk-or-test", "Content-Type": "application/json"}
        connection.request("POST", url.path + "/audio/speech", json.dumps(SPEECH_REQUEST), headers)
        response = connection.getresponse()
        assert response.read(100) == expected_pcm(TEXT)[:100]
        started_at_s = time.monotonic()
    elapsed_s = time.monotonic() - started_at_s
    response.close()
    connection.close()
    idle.close()

    assert elapsed_s < 1
    assert set(threading.enumerate()) <= other_threads


@pytest.mark.parametrize("format_", ["mp3", "ogg", "flac", "aac", "wav"])
def test_default_codec_encodes_wav_only_and_measures_uploads(format_: str) -> None:
    with MockGateway() as gateway:
        speech = {to: speak_at(gateway, "arouter", response_format=to) for to in ("wav", "mp3")}
        upload = encode(expected_pcm("a" * 50), format_)
        timed = transcribe_json(gateway, upload, format_, response_format="verbose_json")
        garbage = transcribe_json(gateway, upload[:3] + bytes(1000), format_)

    assert speech["wav"].body == expected_audio(TEXT, "wav")
    assert (speech["mp3"].status, speech["mp3"].json["error"]["message"]) == (
        400, "this mock gateway has no encoder for mp3",
    )  # fmt: skip
    assert timed.json["duration"] == pytest.approx(RECORDING_S, abs=0.08)
    assert garbage.status == 400


def test_closed_port_refuses_connections() -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", find_closed_port()), timeout=1)


@pytest.mark.parametrize("end", ["stdin", "sigterm"])
def test_process_logs_requests_and_exits(tmp_path: Path, end: str) -> None:
    port_file, log = tmp_path / "port", tmp_path / "log"
    command = [sys.executable, "-m", "audiocli.mock", "--port-file", str(port_file), "--log", str(log)]
    root = Path(__file__).parent.parent
    fault = json.dumps({"fault": "CutBeforeResponse"})
    with subprocess.Popen([*command, "--fault", fault], stdin=subprocess.PIPE, cwd=root) as process:
        deadline = time.monotonic() + 10
        while not port_file.exists():
            assert time.monotonic() < deadline, f"timed out after 10 s waiting for {port_file}"
            time.sleep(0.01)
        host = f"127.0.0.1:{port_file.read_text()}"
        connection = http.client.HTTPConnection(host, timeout=5)
        body = io.BytesIO(json.dumps(SPEECH_REQUEST).encode())
        headers = {"Authorization": "Bearer sk-or-test", "Content-Type": "application/json"}
        with pytest.raises(ConnectionError):
            connection.request("POST", "/openrouter/api/v1/audio/speech", body, headers)
            connection.getresponse()
        connection.close()
        if end == "sigterm":
            os.kill(process.pid, signal.SIGTERM)
        assert process.stdin is not None
        if end == "stdin":
            process.stdin.close()
        assert process.wait(5) == 0

    line = json.loads(log.read_text())
    assert (line["input"], line["billed"], line["fault"]) == (TEXT, True, "CutBeforeResponse")
