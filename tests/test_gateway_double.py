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
    Garbage,
    Html,
    LoopbackGateway,
    MegabyteLine,
    OpenEndedWav,
    OtherFormat,
    RateStorm,
    Redirect,
    Stall,
    Status,
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
) -> Answer:
    where = urlsplit(gateway.base_url(dialect))
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


def test_srt_is_no_format_of_openrouter_and_some_models_have_no_verbose_json(gateway: LoopbackGateway) -> None:
    assert hear(gateway, response_format="srt").json["error"]["name"] == "ZodError"
    assert hear(gateway, model="openai/gpt-4o-transcribe", response_format="verbose_json").status == 400


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
    assert "af_heart" in ask(gateway, "GET", "/audio/voices", dialect="plain").json["voices"]


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
