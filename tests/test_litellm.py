"""LiteLLM proxies: kinds and prices from `/model/info`, and costs that their headers report.

The responses were recorded from LiteLLM 1.108.7 (2026-11), without the fields that are null.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from audiocli.gateways.litellm_proxy import parse_details
from audiocli.pricing import parse_litellm_prices
from tests.conftest import CommandLine, Result
from tests.gateway_contract import SPEECH

INFO: dict[str, dict[str, Any]] = {
    "tts": {"mode": "audio_speech", "input_cost_per_character": 0.000015},
    "tts-tokens": {
        "mode": "audio_speech",
        "input_cost_per_token": 6e-07,
        "output_cost_per_token": 1e-05,
        "output_cost_per_audio_token": 1.2e-05,
        "output_cost_per_second": 0.00025,
    },
    "stt": {"mode": "audio_transcription", "input_cost_per_second": 0.0001, "output_cost_per_second": 0.0001},
    "stt-input": {"mode": "audio_transcription", "input_cost_per_second": 3.083e-05, "output_cost_per_second": 0.0},
    "stt-tokens": {
        "mode": "audio_transcription",
        "input_cost_per_token": 2.5e-06,
        "input_cost_per_second": 0.0001,
        "input_cost_per_audio_token": 2.5e-06,
        "output_cost_per_token": 1e-05,
    },
    "free-stt": {"mode": "audio_transcription", "input_cost_per_second": 0.0},
    "free-tts": {"mode": "audio_speech", "input_cost_per_character": 0.0},
    "unpriced": {"mode": "audio_speech"},
    "nothing": {"mode": None},
}
PRICES = {
    "tts": [(0.000015, "character", False)],
    "tts-tokens": [(6e-07, "token", False), (1.2e-05, "output token", False)],
    "stt": [(0.0001, "second", False)],
    "stt-input": [(3.083e-05, "second", False)],
    "stt-tokens": [(0.0001, "second", True)],
    "free-stt": [(0, "second", False)],
    "free-tts": [(0, "character", False)],
    "unpriced": [],
    "nothing": [],
}
KINDS = {
    name: {"audio_speech": "speech", "audio_transcription": "transcription", None: None}[info["mode"]]
    for name, info in INFO.items()
}


# Of a proxy that knows no key but its master key.
UNKNOWN_KEY = {"error": {"message": "No connected db.", "type": "no_db_connection", "param": None, "code": "400"}}


class Proxy(ThreadingHTTPServer):
    """A loopback server with the recorded responses. `headers` are added to responses that cost something."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths: list[str] = []
        self.headers: dict[str, str] = {}
        self.info_status = 200
        self.lists_modes = True
        self.refuses_keys = False


class Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        if self.server.refuses_keys:
            self.respond(400, UNKNOWN_KEY)
        elif self.path == "/v1/models":
            items: list[dict[str, Any]] = [
                {"id": name, "object": "model", "created": 1677610602, "owned_by": "openai"} for name in INFO
            ]
            for item in items if self.server.lists_modes else ():
                item["mode"] = INFO[item["id"]]["mode"]
            self.respond(200, {"data": items, "object": "list"})
        elif self.path == "/v1/model/info" and self.server.info_status == 200:
            items = [{"model_name": name, "litellm_params": {}, "model_info": info} for name, info in INFO.items()]
            self.respond(200, {"data": items})
        else:
            self.respond(404 if self.path != "/v1/model/info" else self.server.info_status, {"detail": "Not Found"})

    def do_POST(self) -> None:
        self.server.paths.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuses_keys:
            self.respond(400, UNKNOWN_KEY)
        elif self.path == "/v1/audio/speech":
            self.respond(200, SPEECH, "audio/wav", self.server.headers)
        else:
            self.respond(200, {"text": "The quick brown fox."}, headers=self.server.headers)

    def respond(
        self, status: int, body: object, content_type: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": content_type,
            "Content-Length": str(len(content)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cli(audiocli: CommandLine, proxy: Proxy) -> CommandLine:
    configure(audiocli, proxy)
    return audiocli


def configure(audiocli: CommandLine, proxy: Proxy, extra: str = "") -> None:
    audiocli.variables["LITELLM_KEY"] = "sk-litellm-test"
    url = f"http://127.0.0.1:{proxy.server_port}/v1"
    audiocli.write_config(
        f'[gateways.litellm]\ndialect = "openai"\nbase_url = "{url}"\nkey_env = "LITELLM_KEY"\n{extra}'
    )


def list_models(cli: CommandLine, *flags: str) -> dict[str, dict[str, Any]]:
    r = cli("models", "-g", "litellm", "--json", *flags)
    assert r.code == 0, r.err
    return {model["ref"].partition(":")[2]: model for model in map(json.loads, r.text.splitlines())}


def speak(cli: CommandLine, model: str, *flags: str) -> Result:
    """Send a request for speech, also if the phrase is cached."""
    output = cli.directory / "x.wav"
    return cli("speak", "Hello there", "-m", f"litellm:{model}", "-o", output, "--json", "--no-cache", *flags)


# --- kinds and prices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lists_modes", [True, False])
def test_kinds_and_prices_of_model_info_are_listed(cli: CommandLine, proxy: Proxy, lists_modes: bool) -> None:
    proxy.lists_modes = lists_modes

    models = list_models(cli)

    prices = {
        name: [(price["usd"], price["per"], price["unit_assumed"]) for price in model["price"]]
        for name, model in models.items()
    }
    assert prices == {name: [(pytest.approx(price[0]), *price[1:]) for price in PRICES[name]] for name in INFO}
    assert {name: models[name]["kind"] for name in INFO if KINDS[name]} == {
        name: kind for name, kind in KINDS.items() if kind
    }
    assert proxy.paths == ["/v1/models", "/v1/model/info"]


def test_cached_prices_need_no_request(cli: CommandLine, proxy: Proxy) -> None:
    first, second = list_models(cli), list_models(cli)

    assert first == second
    assert len(proxy.paths) == 2


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_server_without_model_info_still_lists_its_models(cli: CommandLine, proxy: Proxy, status: int) -> None:
    proxy.info_status = status

    models = list_models(cli)

    assert set(models) == set(INFO)
    assert all(model["price"] == [] for model in models.values())


def test_built_in_gateway_with_another_base_url_is_recognized_by_its_modes(audiocli: CommandLine, proxy: Proxy) -> None:
    audiocli.variables |= {
        "OPENAI_API_KEY": "sk-litellm-test",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{proxy.server_port}/v1",
    }

    r = audiocli("models", "-g", "openai", "openai:tts")

    assert "price       $15 / 1M characters\n" in r.text, r.err


def test_highest_price_of_several_deployments_counts() -> None:
    items = [
        {"model_name": "tts", "model_info": {"mode": "audio_speech", "input_cost_per_character": cost}}
        for cost in (0.00001, 0.00003, 0.00002)
    ]
    details = parse_details(json.dumps({"data": [*items, 7, {"model_name": 5}, {"model_info": []}]}).encode())

    assert details is not None
    assert [float(price.usd) for price in details["tts"][1]] == [0.00003]


@pytest.mark.parametrize("value", [None, "x", -1, True, [], float("inf")])
def test_invalid_price_is_unknown(value: object) -> None:
    for kind in ("speech", "transcription", "chat"):
        info = {name: value for infos in INFO.values() for name in infos}
        assert parse_litellm_prices(kind, info) == ()


# --- limits ----------------------------------------------------------------------------------------------------------


def test_limit_fetches_prices_and_allows_the_request(cli: CommandLine, proxy: Proxy) -> None:
    proxy.headers = {"x-litellm-response-cost": "0.000165"}

    r = speak(cli, "tts", "--max-cost", "0.01")
    above = speak(cli, "tts", "--max-cost", "0.0001")

    assert (r.code, r.json["cost_source"], r.json["cost_usd"]) == (0, "reported", 0.000165), r.err
    assert above.code == 5
    assert proxy.paths == ["/v1/models", "/v1/model/info", "/v1/audio/speech"]


def test_limit_without_a_price_is_refused(cli: CommandLine, proxy: Proxy) -> None:
    r = speak(cli, "unpriced", "--max-cost", "1")

    assert r.code == 5
    assert "the price of litellm:unpriced is unknown" in r.err
    assert "/v1/audio/speech" not in proxy.paths


# --- keys ------------------------------------------------------------------------------------------------------------


def test_key_that_a_proxy_without_database_does_not_know_is_refused(cli: CommandLine, proxy: Proxy) -> None:
    proxy.refuses_keys = True

    r = speak(cli, "tts")
    check = cli("config", "check", "--json").json["checks"]

    assert (r.code, r.err_json["error"]["code"]) == (4, "unauthorized"), r.err
    [key] = [row for row in check if row["check"] == "key litellm"]
    assert (key["status"], key["detail"]) == ("error", "set by LITELLM_KEY; refused: 400 No connected db"), check


# --- reported costs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "reported"),
    [("tts", "0.0"), ("tts", "0"), ("tts-tokens", "0.0"), ("tts-tokens", "1e-06"), ("stt", "0.0"), ("stt-tokens", "0")],
)
def test_reported_cost_below_the_price_list_is_not_believed(
    cli: CommandLine, proxy: Proxy, model: str, reported: str
) -> None:
    list_models(cli)
    proxy.headers = {"x-litellm-response-cost": reported}
    (cli.directory / "talk.wav").write_bytes(SPEECH)

    if KINDS[model] == "speech":
        r = speak(cli, model)
    else:
        r = cli("transcribe", cli.directory / "talk.wav", "-m", f"litellm:{model}", "--json")

    document = r.json
    assert (r.code, document["cost_source"], document["reported_cost_usd"]) == (0, "estimated", float(reported)), r.err
    assert document["cost_usd"] > 0.0001
    [warning] = [text for text in document["warnings"] if "the gateway reported" in text]
    assert "by its price list this costs about $" in warning
    [entry] = r.ledger
    assert (entry["cost_source"], entry["cost_nanousd"]) == ("estimated", round(document["cost_usd"] * 1e9))


def test_text_output_shows_both_costs(cli: CommandLine, proxy: Proxy) -> None:
    list_models(cli)
    proxy.headers = {"x-litellm-response-cost": "0.0"}

    r = cli("speak", "Hello there", "-m", "litellm:tts", "-o", cli.directory / "x.wav")

    assert r.code == 0, r.err
    assert "litellm:tts: the gateway reported $0; by its price list this costs about $15 / 1M characters" in r.err
    assert "cost about $0.00017" in r.err
    assert "free" not in r.err


def test_limit_counts_the_larger_cost(audiocli: CommandLine, proxy: Proxy) -> None:
    configure(audiocli, proxy, "[budget]\nday = 0.0004\n")
    proxy.headers = {"x-litellm-response-cost": "0.0"}

    codes = [speak(audiocli, "tts").code for _ in range(3)]

    assert codes == [0, 0, 5]


@pytest.mark.parametrize("model", ["free-tts", "unpriced"])
def test_zero_is_believed_without_a_price_that_contradicts_it(cli: CommandLine, proxy: Proxy, model: str) -> None:
    list_models(cli)
    proxy.headers = {"x-litellm-response-cost": "0.0"}

    r = speak(cli, model)

    assert (r.code, r.json["cost_source"], r.json["cost_usd"], r.json["warnings"]) == (0, "reported", 0, []), r.err
    assert "reported_cost_usd" not in r.json


def test_chunks_of_a_long_text_warn_once(cli: CommandLine, proxy: Proxy) -> None:
    list_models(cli)
    proxy.headers = {"x-litellm-response-cost": "0.0"}
    text = "The first sentence is short. The second sentence is a bit longer. The third one ends the text."

    r = cli("speak", text, "-m", "litellm:tts", "--max-chars", "40", "-o", cli.directory / "x.wav")

    assert r.code == 0, r.err
    assert len(r.ledger) > 2
    assert r.err.count("the gateway reported $0") == 1


def test_fallback_of_the_proxy_is_a_warning(cli: CommandLine, proxy: Proxy) -> None:
    list_models(cli)
    proxy.headers = {"x-litellm-attempted-fallbacks": "1", "x-litellm-response-cost": "0.0002"}

    r = speak(cli, "tts")

    assert r.json["cost_usd"] == 0.0002
    assert any("litellm served the request with another model" in warning for warning in r.json["warnings"])


def test_diagnostic_headers_are_in_the_debug_output(cli: CommandLine, proxy: Proxy) -> None:
    proxy.headers = {
        "x-litellm-model-id": "0b89",
        "x-litellm-attempted-fallbacks": "0",
        "x-litellm-key-spend": "0.5",
        "x-litellm-call-id": "77",
    }

    r = speak(cli, "tts", "--debug")

    for text in ("model-id: 0b89", "attempted-fallbacks: 0", "key-spend: 0.5"):
        assert f"litellm:tts: x-litellm-{text}" in r.err
    assert r.json["warnings"] == []


@pytest.mark.parametrize("path", [Path("x.wav"), Path("x.mp3")])
def test_truncated_response_with_zero_cost_counts_the_maximum(audiocli: CommandLine, proxy: Proxy, path: Path) -> None:
    configure(audiocli, proxy, "[budget]\nday = 0.0002\n")
    proxy.headers = {"x-litellm-response-cost": "0.0", "Content-Length": str(len(SPEECH) + 10_000)}

    first = audiocli("speak", "Hello there", "-m", "litellm:tts", "-o", audiocli.directory / path)
    second = audiocli("speak", "Hello there", "-m", "litellm:tts", "-o", audiocli.directory / path)

    assert first.code != 0
    assert [entry["cost_nanousd"] for entry in first.ledger] == [None]
    assert second.code == 5, second.err
