"""Configured servers: every table of `docs/gateways` against a server that its vendor documents."""

from __future__ import annotations

import base64
import email.message
import io
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from audiocli.config import load
from audiocli.context import AppContext
from audiocli.errors import AttemptError
from audiocli.gateways.json_audio import JsonAudioStream
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH
from tests.pyav_codec import encode
from tests.small_server import Answer, Received, SmallServer, serve
from tests.test_other_servers import ASSUMPTION, Samples, check_tone

PAGES = Path(__file__).parent.parent / "docs" / "gateways"
KEY = "sk-table-secret"
TOKEN = "token-of-a-header"


def read_tables() -> dict[str, str]:
    """Return the tables of all pages by the name of the gateway, as TOML."""
    tables: dict[str, str] = {}
    for page in sorted(PAGES.glob("*.md")):
        for block in re.findall(r"^```toml\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            tables |= dict.fromkeys(tomllib.loads(block)["gateways"], block)
    return tables


TABLES = read_tables()


class Vendor(NamedTuple):
    """What a vendor documents.

    Attributes:
        speech_path: Path of speech behind the host, with the query. `transcription_path` likewise; None without it.
        auth: Name and value of the header with the key; None without one.
        fields: Accepted fields of speech. `form_fields` likewise of a transcription.
        constants: Fields of speech that must have these values.
        formats: Formats of the vendor, by its own names.
        rate_hz: Sample rate of what it makes.
        pcm_headers: Headers of raw samples.
    """

    speech_path: str | None
    transcription_path: str | None = None
    auth: tuple[str, str] | None = ("authorization", f"Bearer {KEY}")
    model: str = "a-model"
    model_field: str | None = "model"
    input_field: str = "input"
    format_field: str | None = "response_format"
    fields: tuple[str, ...] = ("model", "input", "voice", "response_format", "speed", "instructions")
    form_fields: tuple[str, ...] = ("model", "file", "language", "prompt", "response_format", "temperature")
    constants: Mapping[str, Any] = MappingProxyType({})
    formats: tuple[str, ...] = ("mp3", "opus", "aac", "flac", "wav", "pcm")
    rate_hz: int = 24_000
    pcm_headers: tuple[tuple[str, str], ...] = ()
    respond: Callable[[bytes], Answer] = lambda audio: Answer(200, audio)


def respond_with_json(audio: bytes) -> Answer:
    body = {"usage": {"x": [1, {"audio_data": "no"}]}, "audio_data": base64.b64encode(audio).decode()}
    return Answer(200, body, (("Content-Type", "application/json"),))


def respond_with_events(audio: bytes) -> Answer:
    parts = [audio[start : start + 5001] for start in range(0, len(audio), 5001)]
    events: list[dict[str, Any]] = [
        {"type": "conversation.item.audio_output.delta", "item_id": "tts_1", "delta": base64.b64encode(part).decode()}
        for part in parts
    ]
    events.insert(1, {"type": "conversation.item.word_timestamps", "words": ["Hi"], "start_seconds": [0.0]})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return Answer(200, body.encode(), (("Content-Type", "text/event-stream"),))


OPENAI_FIELDS = Vendor._field_defaults["fields"]
VENDORS = {
    "azure": Vendor(
        "/openai/v1/audio/speech?api-version=preview",
        "/openai/v1/audio/transcriptions?api-version=preview",
        auth=("api-key", KEY),
    ),
    "azure-deployments": Vendor(
        "/openai/deployments/a-model/audio/speech?api-version=2024-10-21",
        "/openai/deployments/a-model/audio/transcriptions?api-version=2024-10-21",
        auth=("api-key", KEY),
    ),
    "together": Vendor(
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        fields=("model", "input", "voice", "response_format", "response_encoding", "sample_rate", "stream"),
        constants={"voice": "tara", "response_encoding": "pcm_s16le"},
        formats=("mp3", "wav", "raw"),
    ),
    "together-stream": Vendor(
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        fields=("model", "input", "voice", "response_format", "response_encoding", "sample_rate", "stream"),
        constants={"voice": "tara", "response_encoding": "pcm_s16le", "stream": True},
        formats=("raw",),
        respond=respond_with_events,
    ),
    "mistral": Vendor(
        "/v1/audio/speech",
        fields=("model", "input", "voice_id", "response_format", "ref_audio", "stream"),
        constants={"voice_id": "gb_jane_neutral"},
        formats=("mp3", "wav", "flac", "opus", "pcm"),
        respond=respond_with_json,
    ),
    "mistral-transcription": Vendor(
        None,
        "/v1/audio/transcriptions",
        form_fields=("model", "file", "language", "temperature", "diarize", "stream", "context_bias"),
    ),
    "fish": Vendor(
        "/compat/v1/audio/speech",
        "/compat/v1/audio/transcriptions",
        model="fish-audio/s2.1-pro",
        constants={"voice": ""},
        rate_hz=44_100,
    ),
    "assemblyai": Vendor(
        "/v1/openai/audio/speech",
        model="assemblyai-tts-1",
        constants={"voice": "aai-jane"},
        pcm_headers=(("Content-Type", "audio/pcm;rate=24000;channels=1"),),
        formats=("mp3", "wav", "pcm"),
    ),
    "litellm": Vendor("/v1/audio/speech", "/v1/audio/transcriptions"),
    "speaches": Vendor(
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        auth=None,
        constants={"voice": "af_heart"},
        rate_hz=22_050,
    ),
    "whisper-server": Vendor(
        None,
        "/v1/audio/transcriptions",
        auth=None,
        model_field="model_name",
        form_fields=("model_name", "file", "language", "prompt", "response_format", "temperature"),
    ),
    "kokoro": Vendor(
        "/v1/audio/speech",
        auth=None,
        model="kokoro",
        fields=(*OPENAI_FIELDS, "stream", "lang_code", "volume_multiplier"),
        constants={"voice": "af_heart"},
    ),
    "piper": Vendor(
        "/synthesize",
        auth=None,
        model_field=None,
        input_field="text",
        format_field=None,
        fields=("text", "voice", "speaker", "length_scale"),
        constants={"voice": "en_US-lessac-medium"},
        rate_hz=22_050,
    ),
    "piper-openai": Vendor(
        "/v1/audio/speech",
        auth=None,
        constants={"voice": "en_US-lessac-medium"},
        formats=("wav", "pcm"),
        rate_hz=22_050,
    ),
    "tts-studio": Vendor(
        "/v1/audio/speech",
        model="tts-1",
        fields=("model", "input", "voice", "response_format", "speed"),
        constants={"voice": ""},
        formats=("wav", "pcm"),
        rate_hz=22_050,
        pcm_headers=(("Content-Type", "audio/pcm_s16le"), ("X-Sample-Rate", "22050"), ("X-Channels", "1")),
    ),
}
SPEAKERS = [name for name, vendor in VENDORS.items() if vendor.speech_path is not None]
TRANSCRIBERS = [name for name, vendor in VENDORS.items() if vendor.transcription_path is not None]


def refuse(message: str, status: int = 400) -> Answer:
    return Answer(status, {"error": {"message": message, "type": "invalid_request_error"}})


def check_request(request: Received, vendor: Vendor, path: str | None) -> Answer | None:
    """Return the refusal of a wrong path, query or key."""
    expected = urlsplit(path or "")
    received = urlsplit(request.path)
    if received.path != expected.path:
        return refuse(f"no such path {request.path}", 404)
    if parse_qs(received.query) != parse_qs(expected.query):
        return refuse(f"wrong query {received.query}", 404)
    sent = [(name, request.headers[name]) for name in ("authorization", "api-key") if name in request.headers]
    if sent != ([vendor.auth] if vendor.auth else []):
        return refuse("wrong authentication", 401)
    return None


def speak_like(vendor: Vendor, request: Received) -> Answer:
    """Answer a request for speech as the vendor documents: a tone of one second."""
    if (refusal := check_request(request, vendor, vendor.speech_path)) is not None:
        return refusal
    fields = request.json
    if unknown := set(fields) - set(vendor.fields):
        return refuse(f"extra fields not permitted: {sorted(unknown)}")
    if vendor.model_field is not None and fields.get(vendor.model_field) != vendor.model:
        return refuse("model not found")
    if not fields.get(vendor.input_field):
        return refuse(f"{vendor.input_field} is required")
    if any(fields.get(name) != value for name, value in vendor.constants.items()):
        return refuse(f"expected {vendor.constants}")
    format = fields.get(vendor.format_field, "mp3") if vendor.format_field is not None else "wav"
    if format not in vendor.formats:
        return refuse(f"response_format: Input should be one of {', '.join(vendor.formats)}")
    samples = Samples(vendor.rate_hz, 1)
    if format in ("pcm", "raw"):
        answer = vendor.respond(samples.pcm)
        return answer._replace(headers=vendor.pcm_headers) if vendor.pcm_headers else answer
    return vendor.respond(samples.wav if format == "wav" else encode(samples.pcm, format, rate_hz=vendor.rate_hz))


def transcribe_like(vendor: Vendor, request: Received) -> Answer:
    """Answer a request for a transcript as the vendor documents."""
    if (refusal := check_request(request, vendor, vendor.transcription_path)) is not None:
        return refusal
    message = email.message_from_bytes(
        b"Content-Type: " + request.headers["content-type"].encode() + b"\r\n\r\n" + request.body
    )
    parts = message.get_payload()
    assert isinstance(parts, list)
    names = {
        str(part.get_param("name", header="content-disposition"))
        for part in parts
        if isinstance(part, email.message.Message)
    }
    allowed = {*vendor.form_fields, "timestamp_granularities[]"}
    if unknown := names - allowed:
        return refuse(f"extra fields not permitted: {sorted(unknown)}")
    if not {"file", vendor.model_field} <= names:
        return refuse(f"file and {vendor.model_field} are required")
    return Answer(200, {"text": "Hello there.", "language": "en"})


def build_table(name: str, origin: str) -> str:
    """Return the table of a page with another server, by its address without a path."""
    return re.sub(r'(base_url = ")https?://[^/"]+', rf"\g<1>{origin}", TABLES[name])


def use_table(cli: CommandLine, name: str, server: SmallServer) -> Vendor:
    """Write the table of a page, with the server in place of the vendor's, and set the key that it names."""
    table = tomllib.loads(TABLES[name])["gateways"][name]
    if "key_env" in table:
        cli.variables[table["key_env"]] = KEY
    cli.write_config(build_table(name, server.url.removesuffix("/v1")))
    return VENDORS[name]


def test_every_table_has_a_vendor() -> None:
    assert set(TABLES) == set(VENDORS)
    assert {path.stem for path in PAGES.glob("*.md")} - {"README"} == {
        *("azure", "together", "mistral", "fish-audio", "assemblyai", "litellm", "speaches", "kokoro-fastapi", "piper"),
        *("faster-whisper-server", "local-tts-studio"),
    }


@pytest.mark.parametrize("extension", ["mp3", "wav", "m4a", "pcm"])
@pytest.mark.parametrize("name", SPEAKERS)
def test_table_speaks_in_every_format(audiocli: CommandLine, tmp_path: Path, name: str, extension: str) -> None:
    path = tmp_path / f"x.{extension}"
    with serve(lambda request: speak_like(VENDORS[name], request)) as server:
        vendor = use_table(audiocli, name, server)
        r = audiocli("speak", "Hi there", "-m", f"{name}:{vendor.model}", "-o", path, "--json")

    assert r.code == 0, r.err
    # What a LiteLLM proxy makes depends on the provider behind it.
    warnings = [ASSUMPTION] if (name, extension) == ("litellm", "pcm") else []
    assert (len(server.posts), r.json["warnings"]) == (1, warnings)
    if extension == "pcm":
        assert len(path.read_bytes()) == 2 * vendor.rate_hz
    else:
        check_tone(path.read_bytes(), seconds=1.0, tolerance_s=0.15)


@pytest.mark.parametrize("name", SPEAKERS)
def test_table_speaks_long_texts(audiocli: CommandLine, tmp_path: Path, name: str) -> None:
    text = "The first one is here. The second one follows."
    with serve(lambda request: speak_like(VENDORS[name], request)) as server:
        vendor = use_table(audiocli, name, server)
        r = audiocli("speak", text, "--max-chars", "25", "-m", f"{name}:{vendor.model}", "-o", tmp_path / "x.wav")

    assert (r.code, len(server.posts), r.err.count("warning")) == (0, 2, 0), r.err
    check_tone((tmp_path / "x.wav").read_bytes(), seconds=2.0, tolerance_s=0.15)


@pytest.mark.parametrize("name", TRANSCRIBERS)
def test_table_transcribes(audiocli: CommandLine, tmp_path: Path, name: str) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    with serve(lambda request: transcribe_like(VENDORS[name], request)) as server:
        vendor = use_table(audiocli, name, server)
        r = audiocli("transcribe", tmp_path / "talk.wav", "-m", f"{name}:{vendor.model}", "--language", "en")

    assert (r.code, r.text.strip(), len(server.posts)) == (0, "Hello there.", 1), r.err


# --- secrets ---------------------------------------------------------------------------------------------------------

HEADERS_TABLE = """
[gateways.home]
base_url = "{url}"
headers = {{ X-Token = "Token ${{HOME_TOKEN}}", x-plain = "plain-secret-value" }}
query = {{ sig = "${{HOME_TOKEN}}" }}
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["config"],
        ["config", "check"],
        ["models", "-g", "home"],
        ["voices", "-m", "home:tts"],
        ["speak", "hi", "-m", "home:tts", "-o", "{path}/x.mp3"],
        ["speak", "hi", "-m", "home:tts", "-o", "{path}/x.mp3", "--dry-run"],
        ["transcribe", "{path}/talk.wav", "-m", "home:stt"],
        ["chat", "hi", "-m", "home:chat"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("option", ["--json", "--debug"])
def test_headers_are_never_shown(audiocli: CommandLine, tmp_path: Path, arguments: list[str], option: str) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    audiocli.variables["HOME_TOKEN"] = TOKEN

    def answer(request: Received) -> Answer:
        echo = {name: request.headers.get(name) for name in ("x-token", "x-plain")}
        return refuse(f"invalid token {echo} in {request.path}", 403)

    with serve(answer) as server:
        audiocli.write_config(HEADERS_TABLE.format(url=server.url))
        r = audiocli(*audiocli.expand(arguments), option)

    assert r.code != 1
    assert TOKEN not in r.text + r.err
    assert "plain-secret-value" not in r.text + r.err
    for request in server.requests:
        assert request.headers["x-token"] == f"Token {TOKEN}"
        assert parse_qs(urlsplit(request.path).query)["sig"] == [TOKEN]
    for path in (tmp_path / "world" / "data", tmp_path / "world" / "cache"):
        for file in path.rglob("*"):
            assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    "arguments",
    [
        ["speak", "hi", "-m", "home:tts", "-o", "{path}/x.mp3"],
        ["transcribe", "{path}/talk.wav", "-m", "home:stt"],
        ["chat", "hi", "-m", "home:chat"],
        ["models", "-g", "home"],
        ["voices", "-m", "home:tts"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("value", ["", "caf\u00e9", "two\nlines"])
def test_missing_variable_is_an_access_error_that_names_it(
    audiocli: CommandLine, tmp_path: Path, arguments: list[str], value: str
) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    audiocli.variables["HOME_TOKEN"] = value
    with serve(lambda _: Answer(500)) as server:
        audiocli.write_config(HEADERS_TABLE.format(url=server.url))
        r = audiocli(*audiocli.expand(arguments))
        check = audiocli("config", "check")
        other = audiocli("speak", "hi", "-o", tmp_path / "y.mp3")

    assert (r.code, server.requests) == (4, [])
    assert "HOME_TOKEN" in r.err
    assert "HOME_TOKEN" in check.text
    assert other.code == 0


def test_child_processes_do_not_get_the_variables_of_headers(audiocli: CommandLine) -> None:
    audiocli.write_config(HEADERS_TABLE.format(url="http://127.0.0.1:9/v1"))
    variables = {**audiocli.variables, "HOME_TOKEN": TOKEN, "COPY": TOKEN, "OTHER": "x"}
    app = AppContext(variables=variables, stdin=io.BytesIO(), stdout=io.BytesIO(), stderr=io.BytesIO())

    assert "HOME_TOKEN" not in app.child_variables
    assert TOKEN not in app.child_variables.values()
    assert app.child_variables["OTHER"] == "x"


# --- keys of a table -------------------------------------------------------------------------------------------------


def serve_pcm(request: Received) -> Answer:
    """Make raw samples at 22,050 Hz that are declared as 16,000 Hz, and FLAC."""
    samples = Samples(22_050, 1)
    if request.method == "POST" and request.json["response_format"] == "pcm":
        return Answer(200, samples.pcm, (("Content-Type", "audio/pcm;rate=16000"),))
    return Answer(200, encode(samples.pcm, "flac", rate_hz=22_050))


@pytest.mark.parametrize("text", [("Hi",), ("The first one is here. The second one follows.", "--max-chars", "25")])
def test_pcm_rate_takes_precedence_over_the_response(
    audiocli: CommandLine, tmp_path: Path, text: tuple[str, ...]
) -> None:
    with serve(serve_pcm) as server:
        audiocli.write_config(f'[gateways.home]\nbase_url = "{server.url}"\npcm_rate = 22050\nsamples = "pcm"')
        r = audiocli("speak", *text, "-m", "home:tts", "-o", tmp_path / "x.m4a", "--json")

    assert {request.json["response_format"] for request in server.posts} == {"pcm"}
    assert r.json["warnings"] == [
        "the gateway states a sample rate of 16,000 Hz; using pcm_rate: 22,050 Hz",
    ]
    check_tone((tmp_path / "x.m4a").read_bytes(), seconds=len(server.posts), tolerance_s=0.15)


@pytest.mark.parametrize(("extension", "requested"), [("m4a", "flac"), ("wav", "wav"), ("mp3", "mp3")])
def test_samples_are_requested_where_another_format_is_needed(
    audiocli: CommandLine, tmp_path: Path, extension: str, requested: str
) -> None:
    with serve(serve_pcm) as server:
        audiocli.write_config(f'[gateways.home]\nbase_url = "{server.url}"\nsamples = "flac"')
        r = audiocli("speak", "Hi", "-m", "home:tts", "-o", tmp_path / f"x.{extension}")

    assert (r.code, [request.json["response_format"] for request in server.posts]) == (0, [requested]), r.err


def test_option_and_voice_take_precedence_over_fields(audiocli: CommandLine, tmp_path: Path) -> None:
    with serve(lambda _: Answer(200, Samples(24_000, 1).wav)) as server:
        audiocli.write_config(
            f'[gateways.home]\nbase_url = "{server.url}"\nfields = {{ voice = "a", lang = "de", deep = {{ x = 1 }} }}'
        )
        audiocli("speak", "Hi", "-m", "home:tts", "-o", tmp_path / "x.wav")
        audiocli("speak", "Hi", "-m", "home:tts", "-v", "b", "--option", "lang=fr", "-o", tmp_path / "y.wav")

    sent = [[request.json[name] for name in ("voice", "lang", "deep")] for request in server.posts]
    assert sent == [["a", "de", {"x": 1}], ["b", "fr", {"x": 1}]]


@pytest.mark.parametrize("dialect", ["openai", "openrouter", "therouter", "arouter"])
def test_every_dialect_follows_a_table(audiocli: CommandLine, tmp_path: Path, dialect: str) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    audiocli.variables["HOME_TOKEN"] = TOKEN

    def answer(request: Received) -> Answer:
        is_speech = request.path.startswith("/v1/audio/speech")
        return Answer(200, Samples(24_000, 1).wav) if is_speech else Answer(200, {"text": "Hello.", "data": []})

    with serve(answer) as server:
        table = HEADERS_TABLE.format(url=server.url)
        audiocli.write_config(
            f'{table}dialect = "{dialect}"\nauth = "none"\nspeech_formats = ["wav"]\nfields = {{ tone = "x" }}\n'
            'voice_field = "voice_id"\nmodel_field = "model_name"\npaths = { transcription = "/stt/{model}" }\n'
        )
        models = audiocli("models", "-g", "home")
        speech = audiocli("speak", "Hi", "-m", "home:a/tts", "-v", "b", "-o", tmp_path / "x.wav")
        transcript = audiocli("transcribe", tmp_path / "talk.wav", "-m", "home:a/stt")

    assert (models.code, speech.code, transcript.code) == (0, 0, 0), speech.err + transcript.err
    for request in server.requests:
        assert (request.headers["x-token"], "authorization" in request.headers) == (f"Token {TOKEN}", False)
        assert parse_qs(urlsplit(request.path).query)["sig"] == [TOKEN]
    sent, form = server.posts
    assert (sent.json["voice_id"], sent.json["model_name"], sent.json["tone"]) == ("b", "a/tts", "x")
    assert not {"voice", "model"} & set(sent.json)
    assert urlsplit(form.path).path == "/v1/stt/a%2Fstt"
    assert b"tone" in form.body
    assert b"model_name" in form.body


def test_limits_and_prices_of_a_table_are_used(audiocli: CommandLine, tmp_path: Path) -> None:
    with serve(lambda _: Answer(200, Samples(24_000, 1).wav)) as server:
        audiocli.write_config(
            f'[gateways.home]\nbase_url = "{server.url}"\nmodels = false\nlimits = {{ max_text_characters = 25 }}\n'
            'prices = { "tts" = { per = "characters", usd = 0.5 } }\n'
        )
        text = "The first one is here. The second one follows."
        dry = audiocli("speak", text, "-m", "home:tts", "-o", tmp_path / "x.wav", "--dry-run", "--json")
        r = audiocli("speak", text, "-m", "home:tts", "-o", tmp_path / "x.wav", "--max-cost", "1", "--yes")

    assert dry.code == 0
    assert (dry.json["requests"], dry.json["price_usd"]) == (2, 22.5)
    assert (r.code, server.requests) == (5, [])


def test_formats_of_a_table_are_listed(audiocli: CommandLine) -> None:
    with serve(lambda _: Answer(200, {"data": [{"id": "tts-1"}]})) as server:
        audiocli.write_config(f'[gateways.home]\nbase_url = "{server.url}"\nspeech_formats = ["wav", "pcm"]')
        fetched, cached = (audiocli("models", "-g", "home", "--json") for _ in range(2))

    assert [r.json["formats"] for r in (fetched, cached)] == [["wav", "pcm"]] * 2
    assert len([request for request in server.requests if request.path == "/v1/models"]) == 1


def test_transcripts_are_not_reused_after_a_change_of_fields(audiocli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    tables = ["", "models = false\n", 'transcription_fields = { tone = "x" }\n', 'query = { tone = "y" }\n']
    counts = []
    with serve(lambda _: Answer(200, {"text": "Hello."})) as server:
        for table in tables:
            audiocli.write_config(f'[gateways.home]\nbase_url = "{server.url}"\n{table}')
            r = audiocli("transcribe", tmp_path / "talk.wav", "-m", "home:stt")
            assert r.code == 0, r.err
            counts.append(len(server.posts))

    assert counts == [1, 1, 2, 3]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('auth = "basic"', "auth: input should be 'bearer', 'api-key' or 'none'"),
        ("pcm_rate = 10", "pcm_rate: input should be greater than or equal to 1000"),
        ('samples = "mp3"', "samples: input should be 'wav', 'flac' or 'pcm'"),
        ('paths = { talk = "/x" }', "paths: unknown endpoint 'talk'"),
        ('paths = { speech = "https://elsewhere/x" }', "paths.speech: 'https://elsewhere/x' does not begin with /"),
        ('format_names = { xyz = "raw" }', "format_names: unknown format 'xyz'"),
        ('speech_response = "json"', "speech_response: 'json' is not bytes, json:FIELD or sse:FIELD"),
        ("fields = { day = 2026-01-01 }", "fields: dates, inf and nan cannot be sent as JSON"),
        ("fields = { x = inf }", "fields: dates, inf and nan cannot be sent as JSON"),
        ("fields = { voice = 1 }", "speech_fields: the voice must be a string"),
        ('headers = { "a b" = "x" }', "headers: 'a b' is not the name of a header"),
        ('headers = { Host = "x" }', "headers: Host is set by audiocli"),
        ('headers = { X = "\\n" }', "headers.X: the value has characters that cannot be sent"),
        ("limits = { max_text_chars = 1 }", "did you mean max_text_characters?"),
        ("limits = { max_audio_s = 0 }", "limits.max_audio_s: input should be greater than or equal to 1"),
        ("voice_fields = 1", "did you mean voice_field?"),
        ('prices = { "tts" = { per = "moons", usd = 1.0 } }', "gateways.home.prices.tts.per: unknown unit 'moons'"),
    ],
)
def test_invalid_value_of_a_table_is_named(audiocli: CommandLine, table: str, message: str) -> None:
    audiocli.write_config(f'[gateways.home]\nbase_url = "http://127.0.0.1:9/v1"\n{table}')

    r = audiocli("config")

    assert (r.code, message in r.err) == (2, True), r.err


def test_config_shows_the_keys_of_a_table(audiocli: CommandLine) -> None:
    audiocli.write_config(TABLES["azure-deployments"] + HEADERS_TABLE.format(url="http://127.0.0.1:9/v1"))

    settings = {row["name"]: row["value"] for row in audiocli("config", "--json").json["settings"]}

    assert settings["gateways.azure-deployments.auth"] == "api-key"
    assert settings["gateways.azure-deployments.paths.speech"] == "/deployments/{model}/audio/speech"
    assert settings["gateways.azure-deployments.limits.max_upload_bytes"] == "26214400"
    assert settings["gateways.home.headers.X-Token"] == "hidden"


def test_fingerprint_of_a_table_without_deciding_keys_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[gateways.home]\nbase_url = "http://x/v1"\nheaders = { X = "abcd" }\nlimits = { max_audio_s = 9 }')
    settings = load(path, {}, keys_path=tmp_path / "keys.toml", must_exist=True)
    traits = next(gateway.traits for gateway in settings.gateways if gateway.name == "home")

    assert (traits.speech_fingerprint, traits.transcription_fingerprint) == ("", "")
    assert "abcd" not in repr(traits)


# --- audio in JSON ---------------------------------------------------------------------------------------------------

AUDIO = bytes(range(256)) * 3


def read_json_audio(body: bytes, path: str, block_bytes: int) -> bytes:
    stream = JsonAudioStream({"content-type": "application/json"}, path)
    audio = b"".join(stream.feed(body[start : start + block_bytes]) for start in range(0, len(body), block_bytes))
    return audio + stream.finish()


@pytest.mark.parametrize("block_bytes", [1, 2, 7, 10_000])
@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("audio", '{"audio":"%s"}'),
        ("audio", ' \n{ "text" : "a \\" , \\\\" , "n": [1, {"audio": "no"}, "audio"] ,"audio" : "%s", "z":null}'),
        ("data.audio", '{"audio":"bad!","data":{"x":"audio","audio":"%s"}}'),
        ("choices.1.audio", '{"choices":[{"audio":"bad!"},{"audio":"%s"},{"audio":"bad!"}]}'),
        ("audio", '{"audio":"data:audio/wav;base64,%s"}'),
        ("audios.0", '{"audios":["%s","bad!"]}'),
    ],
)
@pytest.mark.parametrize("escape", ["", "/", "+", "line"])
def test_audio_is_read_from_a_field_of_json(path: str, template: str, block_bytes: int, escape: str) -> None:
    text = base64.b64encode(AUDIO).decode()
    text = {
        "": text,
        "/": text.replace("/", "\\/"),
        "+": text.replace("+", "\\u002b").replace("=", "\\u003D"),
        "line": "\\n".join(re.findall(".{1,76}", text)),
    }[escape]

    assert read_json_audio((template % text).encode(), path, block_bytes) == AUDIO


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error":{"message":"quota exceeded","code":429}}', "quota exceeded"),
        ('{"audio":null}', "200 without audio in the field 'audio'"),
        ('{"other":"x"}', "200 without audio in the field 'audio'"),
        ("<html>", "200 without audio in the field 'audio'"),
        ("", "200 without audio in the field 'audio'"),
        ('{"audio":"QUJD', "the response ended before it was complete"),
    ],
)
def test_response_without_audio_is_an_error(body: str, message: str) -> None:
    with pytest.raises(AttemptError, match=re.escape(message)):
        read_json_audio(body.encode(), "audio", 5)


def test_stream_without_an_end_mark_is_a_warning(audiocli: CommandLine, tmp_path: Path) -> None:
    def answer(_: Received) -> Answer:
        full = respond_with_events(Samples(24_000, 1).pcm)
        return full._replace(body=full.body.replace(b"data: [DONE]\n\n", b""))

    with serve(answer) as server:
        use_table(audiocli, "together-stream", server)
        r = audiocli("speak", "Hi", "-m", "together-stream:a-model", "-o", tmp_path / "x.wav", "--json")

    assert (r.code, r.json["warnings"]) == (0, ["the stream does not mark its end; the audio may be truncated"])
