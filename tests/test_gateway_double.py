"""The double is held to account here: the official OpenAI client is the oracle for what goes over the wire."""

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

from tests.gateway import (
    DEFAULT_TEXT,
    KEYS,
    CleanTruncation,
    CutAfter,
    CutBeforeReply,
    Drip,
    Empty,
    Events,
    Garbage,
    Html,
    LoopbackGateway,
    MegabyteLine,
    Normal,
    OpenEndedWav,
    OtherFormat,
    RateStorm,
    Redirect,
    Stall,
    Status,
    Swapped,
    TextAsJson,
    WrongTypes,
    closed_port,
    encode,
    expected_audio,
    expected_pcm,
    expected_segments,
    expected_words,
    ok_with_error,
    sniff,
)

TEXT = "Good morning, everyone."
RECORDING = encode(expected_pcm("a" * 50), "wav")
RECORDING_S = 3.0
DATA_URL = "data:audio/wav;base64," + base64.b64encode(RECORDING).decode()
WHISPERS = {
    "openrouter": "openai/whisper-1",
    "openai": "whisper-1",
    "groq": "whisper-large-v3",
    "therouter": "openai/whisper-1",
    "arouter": "openai/whisper-large-v3",
    "plain": "Systran/faster-whisper-large-v3",
}
KOKORO = {"model": "hexgrad/kokoro-82m", "input": TEXT, "voice": "af_heart", "response_format": "pcm"}


@pytest.fixture
def gateway() -> Iterator[LoopbackGateway]:
    with LoopbackGateway() as running:
        yield running


@pytest.fixture
def client(gateway: LoopbackGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url("openai"), api_key="sk-test", max_retries=0) as ready:
        yield ready


class Answer:
    """One reply, read with the standard library."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    gateway: LoopbackGateway,
    method: str,
    path: str,
    body: Any = None,
    *,
    dialect: str = "openrouter",
    key: str | None = "",
    headers: dict[str, str] | None = None,
    base: str | None = None,
) -> Answer:
    where = urlsplit(base or gateway.base_url(dialect))
    connection = http.client.HTTPConnection(where.netloc, timeout=5)
    token = KEYS[dialect] if key == "" else key
    sent = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
    if isinstance(body, dict):
        body, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
    try:
        connection.request(method, where.path + path, body, sent)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def speak(gateway: LoopbackGateway, **changes: Any) -> Answer:
    return ask(gateway, "POST", "/audio/speech", {**KOKORO, **changes})


def hear(gateway: LoopbackGateway, audio: bytes = RECORDING, format_: str = "wav", **more: Any) -> Answer:
    source = {"data": base64.b64encode(audio).decode(), "format": format_}
    body = {"model": "openai/whisper-large-v3", "input_audio": source, **more}
    return ask(gateway, "POST", "/audio/transcriptions", body)


def transcribe(gateway: LoopbackGateway, dialect: str, *, audio: bytes = RECORDING, **fields: Any) -> Answer:
    """Send a form; a list is repeated under a name in brackets. `to` is the last word of the path."""
    to = fields.pop("to", "transcriptions")
    parts = [(name, value) for name, value in ({"model": WHISPERS[dialect]} | fields).items()]
    texts = [(name, value) for name, value in parts if not isinstance(value, list)]
    texts += [(f"{name}[]", item) for name, value in parts if isinstance(value, list) for item in value]
    body = b"".join(
        b'--edge\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), str(value).encode())
        for name, value in texts
    )
    body += b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%b\r\n--edge--\r\n' % audio
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    return ask(gateway, "POST", f"/audio/{to}", body, dialect=dialect, headers=headers)


def events_of(answer: Answer) -> list[Any]:
    """Give what the data lines of a stream hold."""
    lines = answer.body.decode().splitlines()
    return [
        json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:") and "[DONE]" not in line
    ]


# --- the official client --------------------------------------------------------------------------------------------


def test_the_official_client_streams_speech_and_gets_the_exact_samples(
    gateway: LoopbackGateway, client: openai.OpenAI
) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", input=TEXT, voice="alloy", response_format="pcm"
    ) as response:
        pieces = list(response.iter_bytes())

    assert b"".join(pieces) == expected_pcm(TEXT)
    assert response.headers["x-request-id"].startswith("req_")
    assert gateway.problems == []
    assert gateway.bill_nanousd == len(TEXT) * 12_000


@pytest.mark.parametrize("format_", ["mp3", "opus", "aac", "flac", "wav"])
def test_speech_comes_in_the_format_that_was_asked_for(client: openai.OpenAI, format_: Any) -> None:
    response = client.audio.speech.create(model="tts-1", input=TEXT, voice="nova", response_format=format_)

    assert response.content == expected_audio(TEXT, format_)
    assert sniff(response.content[:16]) == {"opus": "ogg"}.get(format_, format_)


def test_the_official_client_gets_a_transcript_with_its_usage(client: openai.OpenAI) -> None:
    made = client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", RECORDING))

    assert made.text == DEFAULT_TEXT
    assert made.usage is not None and made.usage.type == "tokens" and made.usage.input_tokens == 30


def test_the_official_client_gets_the_time_of_every_word(gateway: LoopbackGateway, client: openai.OpenAI) -> None:
    made = client.audio.transcriptions.create(
        model="whisper-1",
        file=("a.wav", RECORDING),
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )

    assert made.duration == RECORDING_S
    assert [(w.start, w.end) for w in made.words or []] == [w[1:] for w in expected_words(DEFAULT_TEXT, RECORDING_S)]
    assert [(s.start, s.end) for s in made.segments or []] == [
        s[1:] for s in expected_segments(DEFAULT_TEXT, RECORDING_S)
    ]
    assert gateway.requests[0].form("timestamp_granularities[]") == ["word", "segment"]
    assert gateway.requests[0].audio == RECORDING
    assert gateway.problems == []


def test_the_official_client_reads_captions_and_streams(client: openai.OpenAI) -> None:
    captions = client.audio.transcriptions.create(model="whisper-1", file=("a.wav", RECORDING), response_format="srt")
    events = list(client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", RECORDING), stream=True))

    assert captions == f"1\n00:00:00,000 --> 00:00:03,000\n{DEFAULT_TEXT}\n\n"
    assert events[-1].type == "transcript.text.done" and events[-1].text == DEFAULT_TEXT
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta") == DEFAULT_TEXT


def test_the_official_client_lists_models_and_translates(client: openai.OpenAI) -> None:
    assert {"whisper-1", "gpt-4o-mini-tts"} <= {model.id for model in client.models.list()}
    with pytest.deprecated_call():
        assert client.audio.translations.create(model="whisper-1", file=("a.wav", RECORDING)).text == DEFAULT_TEXT


def test_the_official_client_sees_the_errors_of_openai(gateway: LoopbackGateway, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as wrong_voice:
        client.audio.speech.create(model="tts-1", input=TEXT, voice="nobody")
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
    assert gateway.bill_nanousd == 0


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
        ("whisper-1", {"file": ("a.wav", b"RIFF nonsense")}, 400),
        ("whisper-1", {"file": ("a.wav", RECORDING + bytes(26_214_400))}, 413),
    ],
)
def test_openai_minds_its_matrix_of_models_and_fields(
    client: openai.OpenAI, model: str, changes: dict[str, Any], status: int | None
) -> None:
    call = {"model": model, "file": ("a.wav", RECORDING), **changes}
    if status is None:
        assert client.audio.transcriptions.create(**call).text == DEFAULT_TEXT
        return

    with pytest.raises(openai.APIStatusError) as refused:
        client.audio.transcriptions.create(**call)

    assert refused.value.status_code == status


# --- openrouter -----------------------------------------------------------------------------------------------------


def test_openrouter_speaks_pcm_by_default_and_bills_each_character(gateway: LoopbackGateway) -> None:
    body = {name: value for name, value in KOKORO.items() if name != "response_format"}

    answer = ask(gateway, "POST", "/audio/speech", body)

    assert answer.body == expected_pcm(TEXT)
    assert answer.headers["content-type"] == "audio/pcm;rate=24000;channels=1"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.headers["x-generation-id"].startswith("gen-tts-")
    assert [(c.model, c.cost_nanousd, c.characters) for c in gateway.billed] == [(KOKORO["model"], 23 * 4000, 23)]


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"response_format": "wav"}, 400, "ZodError"),
        ({"model": "kokoro-82m"}, 400, "not a valid model ID"),
        ({"model": "acme/kokoro-82m"}, 404, "No endpoints found"),
        ({"model": "openai/whisper-1"}, 400, "not a speech model"),
        ({"model": "google/gemini-3.8-flash-tts", "voice": "Kore", "response_format": "mp3"}, 400, "pcm"),
        ({"model": "mistralai/voxtral-mini-tts-2603", "voice": "alloy"}, 400, "no voice"),
        ({"input": 7}, 400, "Invalid type for 'input'"),
        ({"voice": ""}, 400, "too short"),
        ({"provider": {"options": {"openai": 1}}}, 400, "provider.options"),
    ],
)
def test_openrouter_refuses_in_its_own_shapes(
    gateway: LoopbackGateway, changes: dict[str, Any], status: int, words: str
) -> None:
    answer = speak(gateway, **changes)

    assert answer.status == status
    assert words in answer.body.decode()
    assert "success" in answer.json or answer.json["error"]["code"] == status
    assert gateway.problems and gateway.bill_nanousd == 0


def test_what_openrouter_lets_pass_is_remarked_all_the_same(gateway: LoopbackGateway) -> None:
    answer = speak(gateway, instructions="slowly", provider={"order": ["acme"]}, speed=2)

    assert answer.status == 200
    assert sorted(gateway.requests[0].problems) == [
        "provider.order has no effect on audio",
        "speed has no effect on hexgrad/kokoro-82m",
        "unknown field instructions is ignored",
    ]


@pytest.mark.parametrize("format_", ["wav", "mp3", "flac", "ogg", "aac"])
def test_openrouter_hears_base64_and_its_true_length(gateway: LoopbackGateway, format_: str) -> None:
    audio = RECORDING if format_ == "wav" else encode(expected_pcm("a" * 50), format_)

    answer = hear(gateway, audio, format_, response_format="verbose_json", timestamp_granularities=["word"])

    assert answer.json["duration"] == pytest.approx(RECORDING_S, abs=0.08)
    assert len(answer.json["words"]) == 9 and answer.json["segments"]
    assert answer.json["usage"]["cost"] * 1e9 == gateway.bill_nanousd > 0
    seen = gateway.requests[0]
    assert (seen.audio_sha256, seen.audio_format) == (hashlib.sha256(audio).hexdigest(), format_)
    assert gateway.problems == []


@pytest.mark.parametrize("data", ["data:audio/wav;base64,UklGRg==", "UklG\nRg==", "UklGRg", "AA==AAAA", "ü"])
def test_only_strict_base64_is_heard(gateway: LoopbackGateway, data: str) -> None:
    body = {"model": "openai/whisper-1", "input_audio": {"data": data, "format": "wav"}}

    answer = ask(gateway, "POST", "/audio/transcriptions", body)

    assert answer.status == 400
    assert "input_audio.data" in answer.json["error"]["message"]


@pytest.mark.parametrize("model", ["openai/gpt-4o-transcribe", "deepgram/nova-3", "assemblyai/universal-3-5-pro"])
def test_srt_is_no_format_of_openrouter_and_some_models_have_no_verbose_json(
    gateway: LoopbackGateway, model: str
) -> None:
    refused = hear(gateway, model=model, response_format="verbose_json")

    assert hear(gateway, response_format="srt").json["error"]["name"] == "ZodError"
    assert refused.status == 400
    assert refused.json["error"]["message"] == f"{model} does not support response_format verbose_json"
    assert hear(gateway, model=model).status == 200


def test_the_bill_of_a_generation_appears_after_its_lag() -> None:
    with LoopbackGateway(generation_lag=2) as gateway:
        id_ = speak(gateway).headers["x-generation-id"]
        answers = [ask(gateway, "GET", f"/generation?id={id_}") for _ in range(3)]

    assert [answer.status for answer in answers] == [404, 404, 200]
    assert answers[2].json["data"]["total_cost"] == 0.000092
    assert answers[2].json["data"]["api_type"] == "tts"


def test_models_hide_speech_until_it_is_asked_for(gateway: LoopbackGateway) -> None:
    default = ask(gateway, "GET", "/models", key=None).json["data"]
    speech = ask(gateway, "GET", "/models?output_modalities=speech", key=None).json["data"]
    wrong = ask(gateway, "GET", "/models?output_modalities=tts")

    assert "hexgrad/kokoro-82m" not in {card["id"] for card in default}
    kokoro = next(card for card in speech if card["id"] == "hexgrad/kokoro-82m")
    assert kokoro["pricing"] == {"prompt": "0.000004", "completion": "0"}
    assert "af_heart" in kokoro["supported_voices"]
    assert wrong.json["error"]["name"] == "ZodError"
    assert ask(gateway, "GET", "/key", key=None).status == 401
    assert ask(gateway, "GET", "/credits").status == 403
    assert ask(gateway, "GET", "/model/openai/whisper-1").json["data"]["id"] == "openai/whisper-1"


# --- groq and plain -------------------------------------------------------------------------------------------------


def test_groq_bills_ten_seconds_at_least_and_makes_no_captions(gateway: LoopbackGateway) -> None:
    with openai.OpenAI(base_url=gateway.base_url("groq"), api_key="gsk-test", max_retries=0) as client:
        made = client.audio.transcriptions.create(model="whisper-large-v3", file=("a.wav", RECORDING))
        with pytest.raises(openai.BadRequestError):
            client.audio.transcriptions.create(
                model="whisper-large-v3", file=("a.wav", RECORDING), response_format="srt"
            )
        spoken = client.audio.speech.create(
            model="canopylabs/orpheus-v1-english", input=TEXT, voice="troy", response_format="wav"
        )

    assert made.model_dump()["x_groq"]["id"]
    assert spoken.content == expected_audio(TEXT, "wav")
    assert gateway.billed[0].cost_nanousd == 308_333


def test_a_plain_server_takes_anything_without_a_key(gateway: LoopbackGateway) -> None:
    body = {"model": "my-voice", "input": "hi", "voice": "me", "response_format": "wav", "wild": 1}

    spoken = ask(gateway, "POST", "/audio/speech", body, dialect="plain")
    missing = ask(gateway, "POST", "/audio/speech", {**body, "model": "missing-voice"}, dialect="plain")
    invalid = ask(gateway, "POST", "/audio/speech", {**body, "speed": 9}, dialect="plain")

    assert spoken.body == expected_audio("hi", "wav")
    assert (missing.status, missing.json) == (404, {"detail": "Model 'missing-voice' is not installed locally."})
    assert (invalid.status, invalid.json["detail"][0]["loc"]) == (422, ["body", "speed"])


def test_a_plain_server_lists_its_voices_and_its_models_by_task(gateway: LoopbackGateway) -> None:
    voices = ask(gateway, "GET", "/audio/voices", dialect="plain").json["voices"]
    heard = ask(gateway, "GET", "/models?task=automatic-speech-recognition", dialect="plain").json["data"]
    spoken = ask(gateway, "GET", "/models?task=text-to-speech", dialect="plain").json["data"]
    all_ = ask(gateway, "GET", "/models", dialect="plain").json["data"]

    assert {"af_heart", "am_adam"} <= {voice["name"] for voice in voices}
    assert [card["id"] for card in heard] == ["Systran/faster-whisper-large-v3", "whisper-1"]
    assert [card["id"] for card in spoken] == ["speaches-ai/Kokoro-82M-v1.0-ONNX", "tts-1"]
    assert len(all_) == 4


def test_a_plain_server_passes_over_fields_that_only_openai_has(gateway: LoopbackGateway) -> None:
    call: dict[str, Any] = {
        "known_speaker_names": ["Anna"],
        "include": ["logprobs"],
        "keywords": ["fox"],
        "chunking_strategy": "none",
    }

    answer = transcribe(gateway, "plain", hotwords="fox", without_timestamps="true", **call)
    wrong = transcribe(gateway, "plain", response_format="diarized_json")

    assert answer.json == {"text": DEFAULT_TEXT}
    assert (wrong.status, wrong.json["detail"][0]["loc"]) == (422, ["body", "response_format"])


def test_a_plain_server_streams_segments_and_speech_with_its_own_usage(gateway: LoopbackGateway) -> None:
    gateway.says("Hello there. How are you?")

    heard = events_of(transcribe(gateway, "plain", stream="true", model="whisper-1"))
    body = {"model": "tts-1", "input": "hi", "voice": "alloy", "response_format": "pcm", "stream_format": "sse"}
    spoken = events_of(ask(gateway, "POST", "/audio/speech", {**body, "model": "my-voice"}, dialect="plain"))

    assert [event.get("delta") for event in heard] == [" Hello there.", " How are you?", None]
    assert heard[-1] == {"type": "transcript.text.done", "text": "Hello there. How are you?"}
    assert b"".join(base64.b64decode(event["audio"]) for event in spoken[:-1]) == expected_pcm("hi")
    assert spoken[-1]["token_usage"] == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    assert "usage" not in spoken[-1]


# --- therouter ------------------------------------------------------------------------------------------------------


def say(gateway: LoopbackGateway, dialect: str, **changes: Any) -> Answer:
    body = {"model": "openai/tts-1", "input": TEXT, "voice": "nova", "response_format": "wav", **changes}
    return ask(gateway, "POST", "/audio/speech", body, dialect=dialect)


@pytest.mark.parametrize("dialect", ["therouter", "arouter"])
@pytest.mark.parametrize("format_", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_both_routers_speak_the_six_formats(gateway: LoopbackGateway, dialect: str, format_: str) -> None:
    answer = say(gateway, dialect, response_format=format_)

    assert answer.body == expected_audio(TEXT, format_)
    assert answer.headers["content-type"].startswith("audio/")
    assert (gateway.problems, gateway.bill_nanousd) == ([], 23 * 15_000)


def test_therouter_tells_in_headers_who_did_the_work_also_of_errors(gateway: LoopbackGateway) -> None:
    gateway.script(Normal(), Status(502))

    answers = [say(gateway, "therouter"), say(gateway, "therouter"), say(gateway, "therouter", voice="nobody")]
    listed = ask(gateway, "GET", "/models", dialect="therouter")

    assert [answer.status for answer in answers] == [200, 502, 400]
    for answer in answers:
        assert answer.headers["x-request-id"] == answer.headers["x-router-request-id"]
        assert answer.headers["x-router-model"] == "openai/tts-1"
        assert answer.headers["x-router-provider"] == "openai"
        assert answer.headers["x-router-fallback"] == "false"
        assert int(answer.headers["x-router-latency-ms"]) > 0
    assert len({answer.headers["x-request-id"] for answer in [*answers, listed]}) == 4


@pytest.mark.parametrize(
    ("changes", "status", "problem"),
    [
        ({"input": "a" * 4096}, 200, None),
        ({"input": "a" * 4097}, 400, "longer than 4096 characters"),
        ({"model": "alibaba/cosyvoice2-0.5b", "input": "ü" * 500}, 200, None),
        ({"model": "fishaudio/fish-speech-1.5", "input": "ü" * 501}, 400, "longer than 1000 bytes"),
        ({"model": "indexteam/indextts-2", "voice": "anna"}, 200, "its default voice speaks"),
        ({"model": "indexteam/indextts-2", "speed": 2}, 200, "speed has no effect"),
        ({"speed": 2}, 200, None),
        ({"speed": 5}, 400, "speed"),
        ({"voice": "coral"}, 400, "no voice of openai/tts-1"),
        ({"model": "tts-1"}, 400, "Unknown model"),
        ({"instructions": "slowly"}, 200, "instructions is ignored"),
        ({"sample_rate": "high", "stream_format": "sse"}, 200, "stream_format is ignored"),
    ],
)
def test_therouter_minds_its_limits(
    gateway: LoopbackGateway, changes: dict[str, Any], status: int, problem: str | None
) -> None:
    answer = say(gateway, "therouter", **changes)

    assert answer.status == status
    assert bool(gateway.problems) == (problem is not None)
    assert problem is None or problem in "; ".join(gateway.problems)
    assert len(gateway.billed) == (status == 200)


def test_therouter_says_whether_an_error_may_be_retried(gateway: LoopbackGateway) -> None:
    gateway.script(Status(502), Status(429), Normal())

    upstream, storm, refused = (say(gateway, "therouter", voice="nobody") for _ in range(3))

    error = upstream.json["error"]
    assert (error["code"], error["type"]) == (502, "upstream_error")
    assert error["metadata"] == {
        "provider": "openai", "request_id": upstream.headers["x-request-id"], "retryable": True,
    }  # fmt: skip
    assert storm.json["error"]["metadata"]["retryable"] is True
    assert (refused.json["error"]["code"], refused.json["error"]["metadata"]["retryable"]) == (400, False)


def test_therouter_gives_text_and_duration_and_remarks_granularities(gateway: LoopbackGateway) -> None:
    bare = transcribe(gateway, "therouter")
    timed = transcribe(
        gateway, "therouter", response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    translated = transcribe(gateway, "therouter", to="translations")

    assert bare.json == {"text": DEFAULT_TEXT, "duration": RECORDING_S}
    assert len(timed.json["words"]) == 9 and "usage" not in timed.json
    assert translated.status == 404
    assert gateway.requests[0].problems == []
    assert gateway.requests[1].problems == ["timestamp_granularities[] is no listed field of this gateway"]


def test_sensevoice_writes_moods_into_texts_and_segments_but_not_into_words(gateway: LoopbackGateway) -> None:
    gateway.says("Hello there. How are you?")
    call: dict[str, Any] = {"model": "alibaba/sensevoice-small", "timestamp_granularities": ["word", "segment"]}

    told = transcribe(gateway, "therouter", response_format="verbose_json", **call).json
    captions = transcribe(gateway, "therouter", model=call["model"], response_format="srt").body.decode()

    assert told["text"] == "<|HAPPY|><|Speech|>Hello there. How are you?"
    assert [segment["text"] for segment in told["segments"]] == [
        " <|HAPPY|><|Speech|>Hello there.",
        " <|NEUTRAL|><|BGM|>How are you?",
    ]
    assert [word["word"] for word in told["words"]] == ["Hello", "there", "How", "are", "you"]
    assert "\n<|HAPPY|><|Speech|>Hello there.\n" in captions


def test_therouter_may_let_another_model_do_the_work(gateway: LoopbackGateway) -> None:
    gateway.script(Swapped(), Swapped(), Swapped("acme/voice", "acme"), Normal())

    spoken = say(gateway, "therouter", speed=2)
    heard = transcribe(gateway, "therouter")
    other = say(gateway, "therouter")
    normal = say(gateway, "therouter")

    routed = [
        tuple(answer.headers[f"x-router-{name}"] for name in ("fallback", "model", "provider"))
        for answer in (spoken, heard, other, normal)
    ]
    assert routed == [
        ("true", "alibaba/cosyvoice2-0.5b", "siliconflow"),
        ("true", "alibaba/sensevoice-small", "siliconflow"),
        ("true", "acme/voice", "acme"),
        ("false", "openai/tts-1", "openai"),
    ]
    assert spoken.body == expected_audio(TEXT, "wav")
    assert heard.json["text"] == "<|HAPPY|><|Speech|>" + DEFAULT_TEXT
    assert [charge.model for charge in gateway.billed] == [model for _, model, _ in routed]
    assert gateway.billed[0].cost_nanousd == 23 * 7150


def test_other_gateways_do_not_swap_models(gateway: LoopbackGateway) -> None:
    gateway.script(Swapped())

    assert speak(gateway).body == expected_pcm(TEXT)
    assert gateway.billed[0].model == KOKORO["model"]


def test_therouter_lists_models_unfiltered_and_keeps_its_credits_to_itself(gateway: LoopbackGateway) -> None:
    listed = ask(gateway, "GET", "/models?output_modalities=speech", dialect="therouter").json["data"]
    credits = [
        ask(gateway, "GET", "/api/v1/credits", base=f"{gateway.url}/therouter", key=key)
        for key in ("sk-tr-test", "sk-mgmt-other")
    ]

    outputs = {card["id"]: card["architecture"]["output_modalities"] for card in listed}
    assert outputs["openai/tts-1"] == ["speech"]
    assert outputs["openai/whisper-1"] == ["transcription"]
    assert outputs["openai/gpt-5.4"] == ["text"]
    assert all("supported_voices" not in card for card in listed)
    assert [answer.status for answer in credits] == [403, 401]


# --- arouter --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["whisper-1", "openai/whisper-1", "openai/whisper-large-v3-turbo"])
def test_arouter_takes_granularities_with_and_without_brackets(gateway: LoopbackGateway, model: str) -> None:
    call: dict[str, Any] = {
        "model": model, "response_format": "verbose_json", "language": "zh-Hant-TW", "prompt": "Fox",
    }  # fmt: skip

    with_brackets = transcribe(gateway, "arouter", timestamp_granularities=["word", "segment"], **call).json
    without = transcribe(gateway, "arouter", timestamp_granularities="word", **call).json

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
def test_arouter_refuses_without_a_code(gateway: LoopbackGateway, changes: dict[str, Any], status: int) -> None:
    answer = transcribe(gateway, "arouter", **changes)

    assert answer.status == status
    assert set(answer.json["error"]) == {"message", "type"}
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert gateway.bill_nanousd == 0


def test_arouter_gives_captions_and_text_as_text_or_inside_json(gateway: LoopbackGateway) -> None:
    gateway.script(Normal(), TextAsJson(), Normal())

    text, wrapped, captions = (transcribe(gateway, "arouter", response_format=f) for f in ("text", "text", "vtt"))

    assert (text.body.decode(), text.headers["content-type"]) == (DEFAULT_TEXT + "\n", "text/plain; charset=utf-8")
    assert (wrapped.json, wrapped.headers["content-type"]) == ({"text": DEFAULT_TEXT}, "application/json")
    assert captions.body.startswith(b"WEBVTT\n\n00:00:00.000 --> 00:00:03.000\n")


def test_arouter_translates_and_remarks_what_it_does_not_list(gateway: LoopbackGateway) -> None:
    plain = transcribe(gateway, "arouter", to="translations", model="whisper-1", response_format="verbose_json")
    more = transcribe(gateway, "arouter", to="translations", model="whisper-1", prompt="Fox", temperature=0)
    refused = transcribe(gateway, "arouter", to="translations", model="whisper-1", language="de")

    assert (plain.json["task"], plain.json["language"]) == ("translate", "english")
    assert (more.status, refused.status) == (200, 400)
    assert [len(seen.problems) for seen in gateway.requests] == [0, 2, 1]


def test_arouter_tells_its_limits_on_every_reply(gateway: LoopbackGateway) -> None:
    gateway.script(Normal(), Normal(), Status(429), Status(429, headers={"X-RateLimit-Reset": "1790000000"}))

    answers = [
        say(gateway, "arouter"),
        say(gateway, "arouter", voice="coral"),
        *(say(gateway, "arouter") for _ in "12"),
    ]

    assert [answer.status for answer in answers] == [200, 400, 429, 429]
    left = [int(answer.headers["x-ratelimit-remaining"]) for answer in answers]
    assert int(answers[0].headers["x-ratelimit-limit"]) > left[0] > left[1] > left[2] == left[3] == 0
    assert float(answers[0].headers["x-ratelimit-reset"]) > gateway.requests[0].received_at
    assert answers[3].headers["x-ratelimit-reset"] == "1790000000"


def test_arouter_tells_beside_its_base_what_a_request_cost() -> None:
    with LoopbackGateway(generation_lag=1, key_limit_usd=1.0) as gateway:
        id_ = say(gateway, "arouter", model="tts-1").headers["x-request-id"]
        base = f"{gateway.url}/arouter/api/v1"
        inside = ask(gateway, "GET", f"/generation?id={id_}", dialect="arouter")
        late, found = (ask(gateway, "GET", f"/generation?id={id_}", dialect="arouter", base=base) for _ in "12")
        balance = ask(gateway, "GET", "/balance", dialect="arouter", base=base)
        without_key = ask(gateway, "GET", "/balance", dialect="arouter", base=base, key=None)
        key = ask(gateway, "GET", "/key", dialect="arouter")

    assert (inside.status, late.status, found.status, without_key.status) == (404, 404, 200, 401)
    assert (found.json["id"], found.json["model"]) == (id_, "openai/tts-1")
    assert found.json["usage"]["cost"] == 0.000345
    assert balance.json == {"balance": 25.0 - 0.000345, "currency": "USD"}
    assert (key.json["data"]["usage"], key.json["data"]["limit_remaining"]) == (0.000345, 1.0 - 0.000345)


def test_therouter_tells_what_a_request_cost_and_each_gateway_knows_only_its_own() -> None:
    with LoopbackGateway(generation_lag=1) as gateway:
        id_ = say(gateway, "therouter").headers["x-request-id"]
        late, found = (ask(gateway, "GET", f"/generation?id={id_}", dialect="therouter") for _ in "12")
        strange = [ask(gateway, "GET", f"/generation?id={id_}", dialect="openrouter") for _ in "12"]

    assert (late.status, found.status) == (404, 200)
    record = found.json["data"]
    assert (record["id"], record["model"], record["provider_name"]) == (id_, "openai/tts-1", "openai")
    assert (record["total_cost"], record["usage"]) == (0.000345, 0.000345)
    assert [answer.status for answer in strange] == [404, 404]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", {"openai/whisper-1", "openai/gpt-5.4", "openai/gpt-5.4-audio-preview"}),
        ("?output_modalities=audio", {"openai/tts-1", "openai/gpt-5.4-audio-preview"}),
        ("?output_modalities=all", {"openai/tts-1", "openai/whisper-1", "openai/gpt-5.4"}),
        ("?output_modalities=speech", None),
    ],
)
def test_arouter_knows_only_text_and_audio(gateway: LoopbackGateway, query: str, ids: set[str] | None) -> None:
    answer = ask(gateway, "GET", f"/models{query}", dialect="arouter")

    assert answer.status == (400 if ids is None else 200)
    listed = {card["id"]: card["architecture"] for card in answer.json.get("data", ())}
    assert (ids or set()) <= listed.keys()
    assert ("openai/tts-1" in listed) == ("=a" in query)
    assert "openai/whisper-1" not in listed or listed["openai/whisper-1"]["output_modalities"] == ["text"]


# --- all gateways ---------------------------------------------------------------------------------------------------


def test_every_gateway_hears_the_same_segments_and_words_at_the_same_times(gateway: LoopbackGateway) -> None:
    gateway.says("Hello there. How are you? It is late, no?")
    call: dict[str, Any] = {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]}

    told = {dialect: transcribe(gateway, dialect, **call).json for dialect in WHISPERS}

    segments = {
        dialect: [(s["text"].strip(), s["start"], s["end"]) for s in reply["segments"]]
        for dialect, reply in told.items()
    }
    words = {
        dialect: [(w["word"].strip(" .,?"), w["start"], w["end"]) for w in reply["words"]]
        for dialect, reply in told.items()
    }
    assert len(told) == len(KEYS) == 6
    assert segments == dict.fromkeys(told, expected_segments("Hello there. How are you? It is late, no?", 3.0))
    assert words == dict.fromkeys(told, expected_words("Hello there How are you It is late no", 3.0))
    assert {(reply["text"], reply["duration"]) for reply in told.values()} == {
        ("Hello there. How are you? It is late, no?", 3.0)
    }


def test_every_gateway_with_captions_gives_the_same_bytes(gateway: LoopbackGateway) -> None:
    gateway.says("Hello there. How are you?")

    captions = {
        (dialect, format_): transcribe(gateway, dialect, response_format=format_).body
        for dialect in ("openai", "therouter", "arouter", "plain")
        for format_ in ("srt", "vtt")
    }

    assert len(set(captions.values())) == 2
    assert captions["plain", "srt"].startswith(b"1\n00:00:00,000 --> 00:00:01,200\nHello there.\n\n2\n")


# --- streams --------------------------------------------------------------------------------------------------------


def test_a_diarized_stream_tells_every_segment_and_the_speakers_by_name(
    gateway: LoopbackGateway, client: openai.OpenAI
) -> None:
    gateway.says("Hello there. How are you? Fine.")

    stream = client.audio.transcriptions.create(
        model="gpt-4o-transcribe-diarize",
        file=("a.wav", RECORDING),
        response_format="diarized_json",
        stream=True,
        chunking_strategy={"type": "server_vad", "threshold": 0.4},
        known_speaker_names=["Anna"],
        known_speaker_references=[DATA_URL],
    )
    told = list(stream)

    assert [(e.speaker, e.text) for e in told if e.type == "transcript.text.segment"] == [
        ("Anna", "Hello there."),
        ("A", "How are you?"),
        ("Anna", "Fine."),
    ]
    assert (
        "".join(event.delta for event in told if event.type == "transcript.text.delta")
        == "Hello there. How are you? Fine."
    )
    assert told[-1].type == "transcript.text.done"
    assert gateway.problems == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"known_speaker_names": ["Anna"]}, "without known_speaker_references"),
        ({"known_speaker_names": ["Anna", "Ben"], "known_speaker_references": [DATA_URL]}, "2 known_speaker_names"),
        ({"known_speaker_names": ["Anna"], "known_speaker_references": ["UklGRg=="]}, "no data URLs"),
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
def test_openai_minds_what_belongs_to_speakers(
    gateway: LoopbackGateway, changes: dict[str, Any], problem: str | None
) -> None:
    call = {"model": "gpt-4o-transcribe-diarize", "response_format": "diarized_json", **changes}

    answer = transcribe(gateway, "openai", **call)

    assert bool(gateway.problems) == (problem is not None)
    assert problem is None or problem in "; ".join(gateway.problems)
    assert answer.status == (200 if problem is None or "without" in problem else 400)


def test_logprobs_come_with_the_reply_and_with_each_delta(client: openai.OpenAI) -> None:
    call: dict[str, Any] = {"model": "gpt-4o-transcribe", "file": ("a.wav", RECORDING), "include": ["logprobs"]}

    made = client.audio.transcriptions.create(**call)
    told = list(client.audio.transcriptions.create(**call, stream=True))

    assert "".join(chance.token for chance in made.logprobs) == DEFAULT_TEXT
    assert told[1].logprobs[0].token == " quick" and told[1].logprobs[0].logprob < 0
    assert len(told[-1].logprobs) == 9


CHANGES = [
    Events(comments=True),
    Events(crlf=True),
    Events(tight=True),
    Events(marker=True),
    Events(split_bytes=1),
    Events(comments=True, crlf=True, tight=True, marker=True, split_bytes=7),
]


@pytest.mark.parametrize("fault", CHANGES)
def test_the_official_client_reads_every_way_to_write_a_stream(
    gateway: LoopbackGateway, client: openai.OpenAI, fault: Events
) -> None:
    gateway.script(fault)

    told: list[Any] = list(
        client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", RECORDING), stream=True)
    )

    assert "".join(event.delta for event in told[:-1]) == DEFAULT_TEXT == told[-1].text
    assert gateway.requests[0].fault == "Events"


def test_streams_look_on_the_wire_as_they_were_asked_to(gateway: LoopbackGateway) -> None:
    gateway.says("Hi you")
    gateway.script(*CHANGES[:4], Events(without_done=True), Events(without_done=True, marker=True))

    bodies = [transcribe(gateway, "openai", model="gpt-4o-transcribe", stream="true").body for _ in range(6)]

    assert bodies[0].count(b": keep-alive\n\ndata: {") == 3
    assert bodies[1].count(b"\r\n\r\n") == 3 == bodies[1].count(b"\n") // 2
    assert bodies[2].count(b"data:{") == 3
    assert bodies[3].endswith(b"}\n\ndata: [DONE]\n\n")
    assert b"transcript.text.done" not in bodies[4] and bodies[4].count(b'delta"') == 4
    assert b"transcript.text.done" not in bodies[5] and bodies[5].endswith(b"data: [DONE]\n\n")


def test_a_stream_can_come_byte_by_byte(gateway: LoopbackGateway) -> None:
    gateway.says("Grüße")
    gateway.script(Events(split_bytes=1))
    where = urlsplit(gateway.base_url("plain"))
    form = b'--e\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    body = form % (b"model", b"whisper") + form % (b"stream", b"true")
    body += b'--e\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%b\r\n--e--\r\n' % RECORDING
    head = (
        f"POST {where.path}/audio/transcriptions HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: multipart/form-data; boundary=e\r\n\r\n"
    )
    with socket.create_connection((where.hostname, where.port), timeout=5) as raw:
        raw.sendall(head.encode() + body)
        reply = b"".join(iter(lambda: raw.recv(65536), b""))

    chunks = reply.partition(b"\r\n\r\n")[2]
    assert chunks.startswith(b"1\r\nd\r\n1\r\na\r\n1\r\nt\r\n1\r\na\r\n1\r\n:\r\n")
    assert chunks.endswith(b"\r\n0\r\n\r\n")


def test_a_transcript_can_break_off_with_an_error(gateway: LoopbackGateway, client: openai.OpenAI) -> None:
    gateway.script(Events(error_after=3, error_status=503))
    told = []

    with pytest.raises(openai.APIError, match="Provider returned error"):
        for event in client.audio.transcriptions.create(
            model="gpt-4o-transcribe", file=("a.wav", RECORDING), stream=True
        ):
            told.append(event.type)

    assert told == ["transcript.text.delta"] * 3
    assert gateway.billed


@pytest.mark.parametrize(("dialect", "model"), [("openai", "gpt-4o-mini-tts"), ("plain", "my-voice")])
def test_speech_can_break_off_with_an_error(gateway: LoopbackGateway, dialect: str, model: str) -> None:
    gateway.script(Events(error_after=2), Events(without_done=True))
    call = {"model": model, "stream_format": "sse", "response_format": "pcm"}

    broken, open_ended = (events_of(say(gateway, dialect, **call)) for _ in "12")

    assert [event.get("type") for event in broken] == ["speech.audio.delta", "speech.audio.delta", None]
    assert broken[2]["error"]["message"] == "Provider returned error"
    assert {event["type"] for event in open_ended} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(event["audio"]) for event in open_ended) == expected_pcm(TEXT)


def test_a_reply_that_is_no_stream_stays_as_it_is(gateway: LoopbackGateway) -> None:
    gateway.script(Events(error_after=0), TextAsJson())

    assert [speak(gateway).body for _ in "12"] == [expected_pcm(TEXT)] * 2


# --- what was seen --------------------------------------------------------------------------------------------------


def test_a_key_outside_its_header_is_a_problem(gateway: LoopbackGateway) -> None:
    ask(gateway, "GET", "/models?key=sk-or-test")
    speak(gateway, input="sk-or-test")

    assert gateway.problems == [
        "GET /openrouter/api/v1/models: a key is in the URL",
        "POST /openrouter/api/v1/audio/speech: the key is in the body",
    ]


def test_a_chunked_upload_with_expect_is_read_and_the_connection_lives_on(gateway: LoopbackGateway) -> None:
    where = urlsplit(gateway.base_url("openrouter"))
    connection = http.client.HTTPConnection(where.netloc, timeout=5)
    headers = {"Authorization": "Bearer sk-or-test", "Content-Type": "application/json"}
    pieces = [json.dumps(KOKORO).encode()[at : at + 7] for at in range(0, 200, 7)]
    answers = []
    try:
        for _ in range(2):
            connection.request("POST", where.path + "/audio/speech", iter(pieces), headers, encode_chunked=True)
            answers.append(Answer(connection.getresponse()))
        raw = socket.create_connection((where.hostname, where.port), timeout=5)
        with raw:
            head = (f"POST {where.path}/audio/speech HTTP/1.1", "Expect: 100-continue", "Content-Length: 2", "", "")
            raw.sendall("\r\n".join(head).encode())
            interim = raw.recv(1000)
    finally:
        connection.close()

    assert [answer.body for answer in answers] == [expected_pcm(TEXT)] * 2
    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert gateway.connections == 2


def test_a_large_upload_is_counted_and_hashed_but_not_kept(gateway: LoopbackGateway) -> None:
    pcm = expected_pcm("b" * 1000) * 4
    answer = hear(gateway, encode(pcm, "wav"), response_format="verbose_json")

    seen = gateway.requests[0]
    assert answer.json["duration"] == 240.0
    assert seen.json["input_audio"]["data"] == f"<{4 * -(-(len(pcm) + 44) // 3)} characters>"
    assert (len(seen.audio or b""), seen.audio_size_bytes) == (1 << 20, len(pcm) + 44)
    assert seen.audio_sha256 == hashlib.sha256(encode(pcm, "wav")).hexdigest()


def test_the_transcript_can_be_set_and_computed(gateway: LoopbackGateway) -> None:
    gateway.says("Hi you", words=[("Hi", 0.1, 0.4), ("you", 0.5, 0.9)])
    set_ = hear(gateway, response_format="verbose_json", timestamp_granularities=["word"]).json
    gateway.says(lambda audio, seconds: f"{len(audio)} bytes, {seconds} s")
    computed = hear(gateway).json

    assert [(word["start"], word["end"]) for word in set_["words"]] == [(0.1, 0.4), (0.5, 0.9)]
    assert computed["text"] == f"{len(RECORDING)} bytes, 3.0 s"


def test_a_client_that_leaves_in_its_upload_is_seen_and_pays_nothing(gateway: LoopbackGateway) -> None:
    where = urlsplit(gateway.base_url("openrouter"))
    with socket.create_connection((where.hostname, where.port), timeout=5) as raw:
        raw.sendall(f"POST {where.path}/audio/speech HTTP/1.1\r\nContent-Length: 100\r\n\r\n{{".encode())

    seen = gateway.wait_for_requests(1)[0]

    assert (seen.complete, seen.billed, seen.status) == (False, False, None)


# --- faults ---------------------------------------------------------------------------------------------------------


def test_a_script_is_played_in_order_and_only_to_whom_it_fits(gateway: LoopbackGateway) -> None:
    gateway.script(Status(503), RateStorm(2, retry_after=1), Status(418, body="tea"))
    gateway.script(Status(500), method="GET", path="/models")
    gateway.always(Status(402), model="openai/whisper-large-v3")

    answers = [speak(gateway) for _ in range(5)]

    assert [answer.status for answer in answers] == [503, 429, 429, 418, 200]
    assert answers[0].json["error"]["code"] == 503
    assert answers[1].headers["retry-after"] == "1"
    assert answers[3].body == b"tea"
    assert ask(gateway, "GET", "/models").status == 500
    assert [hear(gateway).status for _ in range(2)] == [402, 402]
    assert len(gateway.billed) == 1


@pytest.mark.parametrize("dialect", list(KEYS))
def test_a_status_carries_any_header_and_any_body(gateway: LoopbackGateway, dialect: str) -> None:
    waits = {
        "retry-after-ms": "1500", "x-should-retry": "false", "x-ratelimit-reset-requests": "6m0s",
        "X-RateLimit-Reset": "1790000000",
    }  # fmt: skip
    gateway.script(
        Status(429, {"detail": ["busy"]}, headers=waits),
        Status(503, b"\xff\x00", content_type="application/octet-stream"),
        Status(413),
    )

    busy, raw, own = (say(gateway, dialect) for _ in range(3))

    assert {name: busy.headers[name.lower()] for name in waits} == waits
    assert (busy.json, busy.headers["content-type"]) == ({"detail": ["busy"]}, "application/json")
    assert (raw.status, raw.body, raw.headers["content-type"]) == (503, b"\xff\x00", "application/octet-stream")
    assert own.status == 413 and "too large" in own.body.decode()


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("n_bytes", [0, 1000, 10**9])
def test_a_cut_reply_never_looks_whole(gateway: LoopbackGateway, *, chunked: bool, n_bytes: int) -> None:
    gateway.script(CutAfter(n_bytes, chunked=chunked))
    if n_bytes > 10**6 and not chunked:
        assert speak(gateway).body == expected_pcm(TEXT)
        return

    with pytest.raises(http.client.IncompleteRead) as cut:
        speak(gateway)

    assert cut.value.partial == expected_pcm(TEXT)[:n_bytes]
    assert gateway.billed


@pytest.mark.parametrize("fault", [CutBeforeReply(), CutBeforeReply(reset=True), CutAfter(100, reset=True)])
def test_a_connection_can_end_without_a_reply_and_is_billed(gateway: LoopbackGateway, fault: Any) -> None:
    gateway.script(fault)

    with pytest.raises((ConnectionError, http.client.HTTPException)):
        speak(gateway)

    assert gateway.bill_nanousd == 23 * 4000


def test_replies_can_be_empty_or_something_else(gateway: LoopbackGateway) -> None:
    full = expected_pcm(TEXT)
    gateway.script(
        Empty(), Empty(chunked=True), Html(), Html(502), ok_with_error(429), Garbage(b"junk"), CleanTruncation(999),
        OtherFormat("wav", honest=False), OtherFormat("mp3"), WrongTypes(), Redirect("/elsewhere"), Drip(20_000, 0.001),
        MegabyteLine(400),
    )  # fmt: skip

    got = [speak(gateway) for _ in range(13)]

    kinds = [answer.headers["content-type"].partition(";")[0] for answer in got]
    assert (got[0].body, kinds[0], got[1].body) == (b"", "audio/pcm", b"")
    assert (got[2].status, kinds[2], got[3].status) == (200, "text/html", 502)
    assert (got[4].status, got[4].json["error"]["code"]) == (200, 429)
    assert (got[5].body, kinds[5]) == (b"junk", "audio/pcm")
    assert got[6].body == full[:999]
    assert (got[7].body[:4], kinds[7], kinds[8]) == (b"RIFF", "audio/pcm", "audio/mpeg")
    assert got[9].json["text"] == 7
    assert (got[10].status, got[10].headers["location"]) == (307, "/elsewhere")
    assert got[11].body == full
    assert got[12].status == 400 and len(got[12].body) > 1 << 20
    assert len(gateway.billed) == 8


def test_json_replies_have_their_faults_too(gateway: LoopbackGateway) -> None:
    gateway.script(MegabyteLine(), CleanTruncation(20), WrongTypes(), OpenEndedWav())

    long, short, wrong, normal = (hear(gateway) for _ in range(4))

    assert len(long.json["text"]) > 1 << 20
    assert len(short.body) == 20
    assert wrong.json["usage"]["cost"] == "free"
    assert normal.json["text"] == DEFAULT_TEXT


def test_an_early_status_comes_before_the_upload_is_read(gateway: LoopbackGateway) -> None:
    gateway.script(Status(413, early=True))

    answer = hear(gateway, bytes(100_000))

    assert answer.status == 413
    assert not gateway.requests[0].complete


def test_a_held_reply_waits_for_its_release(gateway: LoopbackGateway) -> None:
    answers: list[Answer] = []
    gateway.hold(after_bytes=1000)
    threads = [threading.Thread(target=lambda: answers.append(speak(gateway))) for _ in range(3)]
    for thread in threads:
        thread.start()
    gateway.wait_for_held(3)

    assert answers == [] and [seen.sent_bytes for seen in gateway.wait_for_requests(3)] == [1000] * 3
    gateway.release()
    for thread in threads:
        thread.join(5)
    assert [answer.body for answer in answers] == [expected_pcm(TEXT)] * 3
    assert gateway.peak_in_flight == 3


def test_leaving_the_block_ends_stalled_and_idle_connections_at_once() -> None:
    with LoopbackGateway() as gateway:
        gateway.always(Stall(after_bytes=100, seconds=60))
        where = urlsplit(gateway.base_url("openrouter"))
        connection = http.client.HTTPConnection(where.netloc, timeout=5)
        idle = socket.create_connection((where.hostname, where.port))
        headers = {"Authorization": "Bearer sk-or-test", "Content-Type": "application/json"}
        connection.request("POST", where.path + "/audio/speech", json.dumps(KOKORO), headers)
        response = connection.getresponse()
        assert response.read(100) == expected_pcm(TEXT)[:100]
        started = time.monotonic()
    took = time.monotonic() - started
    response.close()
    connection.close()
    idle.close()

    assert took < 1
    assert threading.active_count() == 1


def test_nobody_listens_on_a_closed_port() -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", closed_port()), timeout=1)


@pytest.mark.parametrize("way", ["stdin", "sigterm"])
def test_the_double_runs_as_a_process_and_logs_what_it_accepted(tmp_path: Path, way: str) -> None:
    port_file, log = tmp_path / "port", tmp_path / "log"
    command = [sys.executable, "-m", "tests.gateway", "--port-file", str(port_file), "--log", str(log)]
    root = Path(__file__).parent.parent
    fault = json.dumps({"fault": "CutBeforeReply"})
    with subprocess.Popen([*command, "--script", fault], stdin=subprocess.PIPE, cwd=root) as process:
        deadline = time.monotonic() + 10
        while not port_file.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        where = f"127.0.0.1:{port_file.read_text()}"
        connection = http.client.HTTPConnection(where, timeout=5)
        body = io.BytesIO(json.dumps(KOKORO).encode())
        headers = {"Authorization": "Bearer sk-or-test", "Content-Type": "application/json"}
        with pytest.raises(ConnectionError):
            connection.request("POST", "/openrouter/api/v1/audio/speech", body, headers)
            connection.getresponse()
        connection.close()
        if way == "sigterm":
            os.kill(process.pid, signal.SIGTERM)
        assert process.stdin is not None
        if way == "stdin":
            process.stdin.close()
        assert process.wait(5) == 0

    line = json.loads(log.read_text())
    assert (line["input"], line["billed"], line["fault"]) == (TEXT, True, "CutBeforeReply")
