"""Values from outside: whatever a gateway sends or a file holds, readers return a value or raise an error of ours."""

from __future__ import annotations

import asyncio
import base64
import importlib
import inspect
import json
import math
import pkgutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st

from audiocli import config, credentials, gateways
from audiocli.audio.wav import build_wav_header
from audiocli.completion.runtime import complete
from audiocli.core.batch import transcript_cache
from audiocli.core.batch.transcript_cache import serialize_transcript
from audiocli.core.capabilities import CACHE_KIND, load_refusals
from audiocli.core.catalog import load_cached_listing
from audiocli.errors import AudiocliError
from audiocli.gateways import chat_completions, error_responses
from audiocli.gateways.base import as_date, as_unix_time_s, read_json
from audiocli.gateways.capability_errors import find_refused_feature
from audiocli.gateways.event_streams import SpeechStream, TranscriptStream
from audiocli.ledger.jobs import JobStore
from audiocli.ledger.ledger import Ledger
from audiocli.mock import KEYS, Status
from audiocli.storage.manifest import FailureRecord, FileFingerprint, Manifest
from audiocli.storage.paid_results import PaidResultStore
from audiocli.storage.response_cache import ResponseCache
from audiocli.text.subtitle_formats import parse_json
from audiocli.types.audio import PcmFormat
from audiocli.types.jobs import RemoteJob
from audiocli.types.ledger import CostSource
from audiocli.types.requests import Timestamps
from audiocli.types.results import RunResult, TranscriptionResult
from audiocli.types.routes import Route
from audiocli.types.transcripts import Transcript
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH

# Names that readers look for, so that generated objects reach them.
NAMES = [
    *("text", "segments", "words", "start", "end", "word", "speaker", "language", "languages", "code", "duration"),
    *("usage", "seconds", "cost", "input_tokens", "output_tokens", "cost_details", "is_byok", "total_cost", "data"),
    *(
        "upstream_inference_cost",
        "id",
        "architecture",
        "output_modalities",
        "pricing",
        "prompt",
        "completion",
        "voices",
    ),
    *("supported_voices", "expiration_date", "status", "unsigned_urls", "result", "url", "polling_url", "expires_at"),
    *("error", "message", "type", "metadata", "raw", "detail", "choices", "delta", "content", "audio", "transcript"),
    *("finish_reason", "object", "availability", "retry_after", "error_type", "provider_name", "version", "asked"),
    *("served", "reply", "warnings", "timing", "model", "at_s", "formats", "wire", "shape", "kind", "name", "path"),
    *("loc", "msg", "success", "voices"),
]

TEXTS = st.one_of(
    st.sampled_from(
        ["", "\ufeff", "\ud800", "\udcff", "\x1b[2J", "speech", "audio", "succeeded", "transcript.text.delta", "NaN"]
    ),
    st.sampled_from(["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "2026-02-30", "1e999", "-1", "1" * 5000]),
    st.text(st.characters(), max_size=8),
)
NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([-1, 10**19, 10**400, 2**63, -(2**63), 253402300800, 1e308, math.inf, -math.inf, math.nan]),
    st.floats(),
)
JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda values: st.one_of(
        st.lists(values, max_size=4), st.dictionaries(st.sampled_from(NAMES) | TEXTS, values, max_size=8)
    ),
    max_leaves=25,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), JSON_VALUES, max_size=12)
BODIES = st.one_of(
    OBJECTS.map(lambda value: json.dumps(value).encode()),
    OBJECTS.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=60),
    st.sampled_from([b"", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b'{"text": ' + b"9" * 5000 + b"}", b"NaN"]),
)
FAST = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

ROUTES = [
    Route(gateway.name, gateway.dialect, gateway.base_url, gateway.speech_model, "key") for gateway in gateways.BUILT_IN
]


def find_unencodable(value: object) -> list[str]:
    """Return the texts in a value that cannot be written as UTF-8."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return [value]
    elif isinstance(value, dict):
        return find_unencodable([*value, *value.values()])
    elif isinstance(value, list | tuple | set | frozenset):
        return [text for item in value for text in find_unencodable(item)]
    return []


def call(function: Callable[[], Any]) -> Any:
    """Return the result, or None after an error of ours, which has a message."""
    try:
        return function()
    except AudiocliError as error:
        assert error.message
        assert find_unencodable((error.message, error.hint)) == []
        return None


def read_stream(stream: Any, body: bytes, block_bytes: int) -> list[Any]:
    """Return what a reader makes of a stream that arrives in blocks. The last value is None after an error of ours."""
    values: list[Any] = []

    def read() -> Any:
        for index in range(0, len(body), block_bytes):
            values.extend(stream.feed(body[index : index + block_bytes]))
        return list(stream.finish())

    return [*values, call(read)]


HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("retry-after", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-reset-requests", "date"),
            *("content-type", "x-request-id", "x-generation-id", "x-router-model", "x-router-provider"),
            *("x-litellm-response-cost", "x-litellm-model-id", "x-cost", "x-usage", "x-sample-rate", "x-channels"),
        ]
    ),
    # httpx decodes headers, so that they have no surrogates.
    TEXTS.map(lambda text: text.encode("utf-8", "replace").decode()),
    max_size=6,
)


@FAST
@given(BODIES, st.sampled_from(ROUTES), st.sampled_from([200, 400, 401, 402, 404, 429, 500, 0, 999]))
def test_reply_readers_raise_only_errors_of_ours(body: bytes, route: Route, status: int) -> None:
    dialect = gateways.load_dialect(route.dialect)
    for content_type in ("application/json", "text/plain", ""):
        headers = {"content-type": content_type}
        transcript = call(lambda headers=headers: dialect.parse_transcript(body, headers))
        reply = call(lambda headers=headers: chat_completions.parse_reply(body, headers))
        assert isinstance(transcript, Transcript | None) and isinstance(reply, chat_completions.ChatReply | None)
        assert find_unencodable([transcript, reply]) == []
    cost = dialect.parse_cost(body)
    assert cost is None or cost.cost_nanousd is None or cost.cost_nanousd >= 0
    values = [dialect.parse_job_state(body), cost, dialect.parse_models(body, route), dialect.parse_voices(body, route)]
    assert find_unencodable(values) == []
    embedded_error = error_responses.find_embedded_error(read_json(body), {})
    for error in (dialect.parse_error(status, {}, body), *([embedded_error] if embedded_error else [])):
        assert error.message and error.exit_code not in (0, 1)
        assert find_unencodable((error.message, error.hint)) == []


EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["speech.audio.delta", "transcript.text.delta", "transcript.text.done"])},
    optional={
        "audio": st.binary(max_size=9).map(lambda audio: base64.b64encode(audio).decode()),
        "delta": TEXTS,
        "text": TEXTS,
        "choices": TEXTS.map(lambda text: [{"delta": {"content": text}}]),
    },
).map(lambda event: json.dumps(event).encode())


@FAST
@given(st.lists(BODIES | EVENTS, max_size=4), st.booleans())
def test_stream_readers_return_the_same_for_any_blocks(bodies: list[bytes], is_done: bool) -> None:
    body = b"".join(b"data: " + body.replace(b"\n", b" ") + b"\n\n" for body in bodies) + b"data: [DONE]\n\n" * is_done
    for reader in (SpeechStream, TranscriptStream, chat_completions.ChatStream):
        in_blocks, in_one_block = (read_stream(reader({}), body, size) for size in (7, len(body) + 1))
        assert find_unencodable(in_blocks) == []
        assert in_blocks == in_one_block or in_blocks[-1] is in_one_block[-1] is None


@FAST
@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset", "date"]), TEXTS))
def test_header_readers_raise_nothing(headers: dict[str, str]) -> None:
    wait_s = error_responses.parse_retry_after_s(headers)
    assert wait_s is None or (wait_s >= 0 and math.isfinite(wait_s))
    for route in ROUTES:
        dialect = gateways.load_dialect(route.dialect)
        dialect.parse_usage(headers)
        dialect.parse_served_model(headers, route)
        dialect.parse_generation_id(headers)


def find_readers() -> dict[str, Callable[..., Any]]:
    """Return every function of a dialect, or below `gateways`, that reads a body or headers of a response."""
    readers: dict[str, Callable[..., Any]] = {}
    for module_info in pkgutil.iter_modules(gateways.__path__):
        module = importlib.import_module(f"{gateways.__name__}.{module_info.name}")
        owners = [module, *([module.DIALECT] if hasattr(module, "DIALECT") else [])]
        for owner in owners:
            for name in dir(owner):
                function = getattr(owner, name)
                if not name.startswith(("parse_", "find_", "detect_")) or not inspect.isroutine(function):
                    continue
                parameters = inspect.signature(function).parameters
                if {"body", "headers"} & set(parameters):
                    readers[f"{module_info.name}.{name}"] = function
    return readers


READERS = find_readers()


def test_readers_are_found() -> None:
    assert {"openai.parse_models", "cost_lookup.parse_cost", "error_responses.parse_retry_after_s"} <= set(READERS)
    assert len(READERS) > 60


@FAST
@given(BODIES, HEADERS, st.sampled_from(ROUTES))
def test_every_reader_raises_only_errors_of_ours(body: bytes, headers: dict[str, str], route: Route) -> None:
    values: dict[str, Any] = {"body": body, "headers": headers, "value": read_json(body), "route": route}
    values |= {"dialect": gateways.load_dialect(route.dialect), "status": 400, "text": "3s", "request_id": "id"}
    for name, function in READERS.items():
        arguments = {parameter: values[parameter] for parameter in inspect.signature(function).parameters}
        note(name)
        assert find_unencodable(call(lambda function=function, arguments=arguments: function(**arguments))) == []


@FAST
@given(BODIES, st.sampled_from([400, 403, 422, 500]), st.lists(TEXTS, max_size=4))
@example(b'{"error": {"message": "response_format mp3 is not supported"}}', 400, [])
@example(b'{"error": {"message": "timestamp_granularities: no word timestamps"}}', 422, [])
def test_refused_feature_is_one_of_the_requested_ones(body: bytes, status: int, features: list[str]) -> None:
    error = error_responses.parse_error(status, {}, body)
    features = ["format:mp3", "word", "verbose_json", *features]

    assert find_refused_feature(error, features) in (None, *features)


# --- files that are read back ----------------------------------------------------------------------------------------


@FAST
@given(BODIES, st.sampled_from(ROUTES))
def test_cached_responses_of_any_content_are_read(tmp_path: Path, body: bytes, route: Route) -> None:
    cache = ResponseCache(tmp_path)
    cache.put("models", f"{route.gateway} {route.dialect} {route.base_url}", body)
    cache.put(CACHE_KIND, f"{route.gateway} {route.base_url} {route.model}", body)

    listing = load_cached_listing(route, cache)
    refusals = load_refusals(route, cache)

    assert find_unencodable([None if listing is None else listing.cards, refusals]) == []


WAV_HEADER = build_wav_header(PcmFormat(), 100)


@FAST
@given(st.one_of(BODIES, st.binary(max_size=60).map(lambda tail: WAV_HEADER[: len(tail)] + tail), st.just(WAV_HEADER)))
def test_paid_chunk_of_any_content_is_read(tmp_path: Path, body: bytes) -> None:
    store = PaidResultStore(tmp_path, ".wav")
    (tmp_path / "name.wav").write_bytes(body)

    chunk = store.create_chunk("name")
    is_complete = chunk.open_cached()
    chunk.discard()

    assert not is_complete or chunk.size_bytes <= len(body)
    assert store.read("name") == body


@FAST
@given(BODIES | st.lists(TEXTS, max_size=3).map(lambda texts: "\t".join(["speech", *texts]).encode("utf-8", "replace")))
@example(b"speech\tgroq:\x1b[2J\tnova \x07\nspeech\tgroq:\xc2\x9b\t\xff\n")
def test_completion_list_of_any_content_is_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "audiocli" / "completion.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)

    for query in ("models", "models:speech", "voices"):
        names = complete([query, ""], {"XDG_CACHE_HOME": str(tmp_path)})
        assert find_unencodable(names) == []
        assert names == "" or names.endswith("\n")
        assert all(name.isprintable() for name in names.split("\n"))


@FAST
@given(BODIES)
def test_paid_transcript_of_any_content_is_read(body: bytes) -> None:
    cached = transcript_cache.parse_transcript(body, ROUTES[0])

    assert cached is None or find_unencodable([cached.result.transcript, cached.result.run.model]) == []


@FAST
@given(BODIES)
def test_paid_transcript_of_a_chunk_is_read_if_it_is_an_object(body: bytes) -> None:
    document = read_json(body)

    if isinstance(document, dict):
        assert find_unencodable(parse_json(json.dumps(document))) == []
    else:
        with pytest.raises(ValueError, match="not a JSON object"):
            parse_json(json.dumps(document))


@given(st.binary(max_size=40))
def test_paid_response_that_is_not_utf8_is_read_back_unchanged(raw_response: bytes) -> None:
    run = RunResult(ROUTES[0], "m", 1, 1, 0, CostSource.REPORTED)
    result = TranscriptionResult(run, Transcript("text"), raw_response)

    stored = serialize_transcript(result, Timestamps.NONE, include_raw_response=True)
    cached = transcript_cache.parse_transcript(stored, ROUTES[0])

    assert cached is not None and cached.result.raw_response == raw_response


@FAST
@given(st.one_of(BODIES, TEXTS.map(lambda text: f"openrouter = {json.dumps(text)}".encode())))
def test_keys_and_configuration_of_any_content_are_read(tmp_path: Path, content: bytes) -> None:
    keys_path, config_path = tmp_path / "keys.toml", tmp_path / "config.toml"
    for path in (keys_path, config_path):
        path.write_bytes(content)
        path.chmod(0o600)

    keys = call(lambda: credentials.read(keys_path))
    loaded = call(lambda: config.load(config_path, {}, keys_path=keys_path, must_exist=True))

    assert keys is None or find_unencodable(keys) == []
    assert loaded is None or {gateway.name for gateway in loaded.gateways} >= {route.gateway for route in ROUTES}
    assert loaded is None or (keys is None) == (loaded.keys_error is not None)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    yield ledger
    ledger.close()


JOB = RemoteJob(
    "a", "therouter", "https://x/v1", "speech", "m", "queued", 1e9, ("mp3",), "mp3", caption_limits={"cps": 1}
)


@FAST
@given(BODIES.map(lambda body: body.decode("utf-8", "replace")) | TEXTS.map(lambda text: json.dumps({"at_s": text})))
def test_stored_job_of_any_content_hides_no_other_job(ledger: Ledger, details: str) -> None:
    store = JobStore(ledger)
    store.save(JOB)
    store.save(JOB._replace(id="b"))
    with ledger.transaction() as connection:
        connection.execute("UPDATE jobs SET details = ? WHERE id = 'b'", (details,))

    jobs = store.list_all()

    assert find_unencodable(tuple(jobs)) == []
    assert len(jobs) == 2 and JOB in jobs


@FAST
@given(st.tuples(TEXTS, st.integers(-(2**63), 2**63 - 1), TEXTS, st.none() | TEXTS))
def test_manifest_rows_of_any_content_are_read(tmp_path: Path, values: tuple[str, int, str, str | None]) -> None:
    manifest = Manifest(tmp_path / "manifest.sqlite3", warning=lambda message: None)
    try:
        manifest.record_failure("key", FailureRecord(values[0], values[1], values[2], values[3]))
        failure = manifest.get_failure("key")
        fingerprint = FileFingerprint(values[1], 0, 0, values[1])
        manifest.record_content_hash(tmp_path, fingerprint, values[0].encode("utf-8", "replace").decode())
        content_hash = asyncio.run(manifest.get_content_hash(tmp_path, fingerprint))
    finally:
        manifest.close()

    assert failure is not None and failure.exit_code not in (0, 1)
    assert find_unencodable(content_hash) == []


# --- single values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"text": "a\\ud800b", "x\\udfff": ["\\ud83d\\ude00"]}', {"text": "a\ufffdb", "x\ufffd": ["😀"]}),
        (b'{"text": "a\xed\xa0\x80b"}', {"text": "a\ufffdb"}),
        (b'{"text": "\\\\ud800"}', {"text": "\\ud800"}),
        (b'\xef\xbb\xbf{"text": "a"}', {"text": "a"}),
        ('{"text": "é"}'.encode("utf-16"), {"text": "é"}),
        (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", {"text": "a", "n": math.inf}),
        (b"{", None),
        (b"\xff", None),
    ],
)
def test_json_is_read_without_surrogates(body: bytes, value: Any) -> None:
    assert read_json(body) == value


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_800_000_000, 1_800_000_000),
        ("1800000000", 1_800_000_000),
        (1_800_000_000_000, 1_800_000_000),
        ("2027-01-15T08:00:00Z", 1_800_000_000),
        ("2027-01-15T08:00:00", 1_800_000_000),
        *((value, None) for value in ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z")),
        *((value, None) for value in (-1, 0, 1e300, math.inf, "x", "", None, True, [], "1" * 5000, 10**400)),
    ],
)
def test_time_out_of_range_is_unknown(value: Any, seconds: float | None) -> None:
    assert as_unix_time_s(value) == seconds


@pytest.mark.parametrize(
    ("value", "day"),
    [("2027-01-15T08:00:00Z", date(2027, 1, 15)), ("0001-01-01", None), ("9999-12-31", None), ("2027-02-30", None)],
)
def test_date_out_of_range_is_unknown(value: str, day: date | None) -> None:
    assert as_date(value) == day


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expires_at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", 1e300, -1, "never", [1]], ids=str
)
def test_job_with_expiry_out_of_range_is_listed_with_the_others(
    audiocli: CommandLine, tmp_path: Path, expires_at: Any
) -> None:
    audiocli.variables["THEROUTER_API_KEY"] = KEYS["therouter"]
    submit = ("speak", "hi", "-g", "therouter", "--background", "-o", tmp_path / "x.mp3")
    assert audiocli(*submit).code == 0
    audiocli.gateway.queue_faults(Status(202, body={"id": "aud_bad", "status": "queued", "expires_at": expires_at}))
    assert audiocli(*submit).code == 0

    listed, as_json, shown = audiocli("jobs"), audiocli("jobs", "--json"), audiocli("jobs", "show", "aud_bad", "--json")

    assert listed.code == 0 and "aud_bad" in listed.text and "aud_01" in listed.text
    rows = {row["id"]: row for row in map(json.loads, as_json.text.splitlines())}
    assert rows["aud_bad"]["expires_at"] is None and rows["aud_01"]["expires_at"] is not None
    assert shown.code != 1


@pytest.mark.parametrize("stored", [-6.2e10, 253402300799.0, 1e300, "soon"])
def test_job_that_was_stored_with_expiry_out_of_range_is_listed(
    audiocli: CommandLine, tmp_path: Path, stored: Any
) -> None:
    ledger = Ledger(audiocli.ledger_path)
    JobStore(ledger).save(JOB._replace(expires_at_s=stored))
    ledger.close()

    listed, as_json, forgotten = audiocli("jobs"), audiocli("jobs", "--json"), audiocli("jobs", "forget", "a")

    assert listed.code == 0 and as_json.json["expires_at"] is None and forgotten.code == 0


def test_reply_with_lone_surrogates_is_printed(audiocli: CommandLine) -> None:
    body = b'{"id": "x", "choices": [{"message": {"content": "paid \\ud800 text"}, "finish_reason": "stop"}]}'
    audiocli.gateway.add_default_fault(Status(200, body=body, content_type="application/json"))

    r = audiocli("chat", "hi", "--no-stream")

    assert r.code == 0 and r.text == "paid \ufffd text\n"


def test_model_list_with_lone_surrogates_is_listed(audiocli: CommandLine) -> None:
    body = b'{"data": [{"id": "x/tts-\\udc00", "architecture": {"output_modalities": ["speech"]}}]}'
    audiocli.gateway.add_default_fault(Status(200, body=body, content_type="application/json"), method="GET")

    for options in ([], ["--json"], ["--json"]):
        r = audiocli("models", "-g", "openrouter", *options)
        assert r.code == 0 and "x/tts-\ufffd" in r.text


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "complete"])
def test_byte_order_mark_of_reply_is_dropped(audiocli: CommandLine, tmp_path: Path, stream: bool) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    audiocli.gateway.chat_reply = "\ufeffHello \ufeff there"
    audiocli.gateway.set_transcript("\ufeffHello \ufeff there")
    options = [] if stream else ["--no-stream"]

    chat = audiocli("chat", "hi", *options)
    transcript = audiocli("transcribe", tmp_path / "talk.wav", "-f", "txt", *(["--stream"] if stream else []))
    captions = audiocli("transcribe", tmp_path / "talk.wav", "-f", "srt")

    assert chat.text == "Hello \ufeff there\n"
    assert transcript.text.startswith("Hello")
    assert captions.code == 0 and "\ufeffHello" not in captions.text


def test_byte_order_mark_of_plain_text_is_dropped(audiocli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    audiocli.gateway.queue_faults(Status(200, body="\ufeffHello".encode(), content_type="text/plain"))

    assert audiocli("transcribe", tmp_path / "talk.wav").text == "Hello\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["speak", "hi", "-o", "{path}/x.mp3"],
        ["transcribe", "{path}/talk.wav"],
        ["chat", "hi"],
        ["models", "-g", "openrouter"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_status_204_is_reported_as_such(audiocli: CommandLine, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    for method in ("GET", "POST"):
        audiocli.gateway.add_default_fault(Status(204, body=b""), method=method)

    r = audiocli(*audiocli.expand(arguments))

    assert r.code == 9 and "204 without a body" in r.err


@pytest.mark.parametrize(
    ("status", "kind"), [(404, "note"), (405, "note"), (501, "note"), (401, "error"), (500, "error")]
)
def test_server_without_model_list_is_a_note(audiocli: CommandLine, status: int, kind: str) -> None:
    audiocli.gateway.add_default_fault(Status(status), method="GET")

    checks = {check["check"]: check for check in audiocli("config", "check", "--json").json["checks"]}

    assert checks["gateway openrouter"]["status"] == kind and str(status) in checks["gateway openrouter"]["detail"]
