"""Retries and fallback: the decision table, and its rows on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiocli.core.retry_policy import GiveUp, Retry, RetryPolicy, decide_retry
from audiocli.errors import (
    AttemptError,
    ConnectionFailed,
    FaultDomain,
    GatewayError,
    InvalidResponse,
    ResponseInterrupted,
    Retryability,
)
from audiocli.mock import CutAfter, Empty, Html, RateLimitBurst, Status, find_closed_port
from tests.conftest import CommandLine, Stream
from tests.pyav_codec import expected_audio

TEXT = "Hello there, world."
MULTIPLE_MODELS = RetryPolicy(has_multiple_models=True)
RETRY_UNKNOWN = RetryPolicy(retry_unknown=True)
WITH_WAIT = GatewayError("x", retryability=Retryability.AFTER_DELAY, wait_s=5)
WITHOUT_WAIT = GatewayError("x", retryability=Retryability.AFTER_DELAY)
LIMITED_RETRIES = GatewayError("x", retryability=Retryability.LIMITED)
NOT_RETRYABLE = GatewayError("x")
REQUEST_FAULT = GatewayError("x", fault=FaultDomain.REQUEST)


@pytest.mark.parametrize(
    ("error", "state", "decision"),
    [
        (ConnectionFailed("x"), {}, Retry(0.25)),
        (ConnectionFailed("x"), {"same_kind_failures": 3}, GiveUp.NEXT_ROUTE),
        (ConnectionFailed("x"), {"is_last": False}, GiveUp.NEXT_ROUTE),
        (WITH_WAIT, {}, Retry(5)),
        (WITH_WAIT, {"same_kind_failures": 7, "waited_s": 115}, Retry(5)),
        (WITH_WAIT, {"same_kind_failures": 8}, GiveUp.NEXT_ROUTE),
        (WITH_WAIT, {"same_kind_failures": 2, "is_last": False}, Retry(5)),
        (WITH_WAIT, {"same_kind_failures": 3, "is_last": False}, GiveUp.NEXT_ROUTE),
        (WITH_WAIT, {"waited_s": 116}, GiveUp.NEXT_ROUTE),
        (WITHOUT_WAIT, {"same_kind_failures": 7}, Retry(4.0)),
        (LIMITED_RETRIES, {"same_kind_failures": 2}, Retry(0.5)),
        (LIMITED_RETRIES, {"same_kind_failures": 3}, GiveUp.NEXT_ROUTE),
        (NOT_RETRYABLE, {}, GiveUp.NEXT_ROUTE),
        (REQUEST_FAULT, {"policy": MULTIPLE_MODELS}, GiveUp.STOP),
        (ResponseInterrupted("x"), {}, GiveUp.STOP),
        (ResponseInterrupted("x"), {"policy": MULTIPLE_MODELS}, GiveUp.NEXT_ROUTE),
        (ResponseInterrupted("x"), {"policy": RETRY_UNKNOWN}, Retry(0.25)),
        (ResponseInterrupted("x"), {"policy": RETRY_UNKNOWN, "same_kind_failures": 3}, GiveUp.STOP),
        (InvalidResponse("x"), {}, GiveUp.STOP),
        (InvalidResponse("x"), {"policy": MULTIPLE_MODELS}, GiveUp.NEXT_ROUTE),
        (WITH_WAIT, {"can_restart": False}, GiveUp.STOP),
        (ConnectionFailed("x"), {"can_restart": False, "is_last": False}, GiveUp.STOP),
    ],
)
def test_retry_policy_decides_by_error_and_state(
    error: AttemptError, state: dict[str, object], decision: object
) -> None:
    default_state: dict[str, object] = {
        "same_kind_failures": 1,
        "waited_s": 0.0,
        "is_last": True,
        "can_restart": True,
        "policy": RetryPolicy(),
        "random": lambda: 0.5,
    }

    assert decide_retry(error, **{**default_state, **state}) == decision  # type: ignore[arg-type]


def test_busy_gateway_is_retried_after_retry_after(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(RateLimitBurst(3, retry_after=7))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", "--json")

    assert r.code == 0, r.err
    assert r.waits_s == [7, 7, 7]
    assert [entry["outcome"] for entry in r.ledger] == ["refused"] * 3 + ["ok"]
    assert [entry["cost_nanousd"] for entry in r.ledger] == [0, 0, 0, None]
    assert (r.json["requests"], r.json["attempts"]) == (1, 4)


def test_total_wait_is_at_most_two_minutes(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.add_default_fault(Status(429, headers={"Retry-After": "50"}))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3")

    assert (r.code, r.waits_s) == (6, [50, 50])
    assert len(r.ledger) == len(r.requests) == 3


def test_repeated_503_without_retry_after_ends(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.add_default_fault(Status(503))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3")

    assert r.code == 6
    assert sum(r.waits_s) <= 120
    assert max(r.waits_s) <= 8


@pytest.mark.parametrize("status", [500, 502])
def test_server_error_is_sent_three_times(audiocli: CommandLine, tmp_path: Path, status: int) -> None:
    audiocli.gateway.add_default_fault(Status(status))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3")

    assert r.code == 6
    assert [entry["outcome"] for entry in r.ledger] == ["failed"] * 3


@pytest.mark.parametrize(
    ("headers", "body", "wait_s"),
    [
        ({"Retry-After": "3"}, None, 3),
        ({"Retry-After": "1.5"}, None, 1.5),
        ({"retry-after-ms": "250"}, None, 0.25),
        ({"Retry-After": "Sat, 21 Nov 2026 10:00:30 GMT", "Date": "Sat, 21 Nov 2026 10:00:00 GMT"}, None, 30),
        ({"X-RateLimit-Reset": "1795255230", "Date": "Sat, 21 Nov 2026 10:00:00 GMT"}, None, 30),
        ({"x-ratelimit-reset-requests": "1m10s"}, None, 70),
        ({"x-ratelimit-reset-requests": "120ms"}, None, 0.12),
        ({}, '{"error":{"message":"x","availability":{"code":"capacity_exhausted","retry_after":9}}}', 9),
    ],
)
def test_every_form_of_retry_after_is_read(
    audiocli: CommandLine, tmp_path: Path, headers: dict[str, str], body: str | None, wait_s: float
) -> None:
    audiocli.gateway.queue_faults(Status(429, body=body or '{"error":{"message":"slow down"}}', headers=headers))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert r.waits_s == [pytest.approx(wait_s)]


@pytest.mark.parametrize(
    ("status", "body", "code", "request_count"),
    [
        (402, '{"error":{"code":402,"message":"no credit"}}', 5, 1),
        (429, '{"error":{"message":"quota","type":"insufficient_quota","code":"insufficient_quota"}}', 5, 1),
        (403, '{"error":{"code":403,"message":"x","metadata":{"limit_source":"openrouter_key_limit"}}}', 5, 1),
        (403, '{"error":{"code":403,"message":"x","metadata":{"reasons":["violence"],"flagged_input":"…"}}}', 6, 1),
        (403, '{"error":{"code":403,"message":"x","availability":{"code":"region_restricted"}}}', 6, 1),
        (404, '{"error":{"message":"x","availability":{"code":"no_endpoints","retryable":false}}}', 6, 1),
        (500, '{"error":{"code":500,"message":"x","metadata":{"retryable":false}}}', 6, 1),
        (400, '{"success":false,"error":{"name":"ZodError","message":"[{\\"path\\":[\\"voice\\"]}]"}}', 6, 1),
        (422, '{"detail":[{"loc":["body","speed"],"msg":"too fast","type":"x"}]}', 6, 1),
        (500, "", 6, 3),
        (502, "<html><title>Bad gateway</title></html>", 6, 3),
        (401, '{"error":{"message":"Incorrect API key provided: sk-or-te*****test."}}', 4, 1),
    ],
)
def test_error_body_decides_the_exit_code_and_retries(
    audiocli: CommandLine, tmp_path: Path, status: int, body: str, code: int, request_count: int
) -> None:
    audiocli.gateway.add_default_fault(Status(status, body=body))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3")

    assert (r.code, len(r.requests), len(r.ledger)) == (code, request_count, request_count), r.err
    assert "test." not in r.err


def test_retryable_error_is_retried(audiocli: CommandLine, tmp_path: Path) -> None:
    unavailable = (
        '{"error":{"message":"x","availability":{"code":"temporarily_unavailable","retryable":true,"retry_after":2}}}'
    )
    in_flight = '{"error":{"code":402,"message":"x","metadata":{"limit_source":"openrouter_in_flight_budget"}}}'
    audiocli.gateway.queue_faults(
        Status(404, body=unavailable), Status(402, body=in_flight, headers={"Retry-After": "4"})
    )

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3")

    assert (r.code, r.waits_s) == (0, [2, 4])


def test_possibly_billed_request_is_retried_only_if_allowed(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(CutAfter(100), Empty())

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", "--retry-unknown", "--json")

    assert r.code == 0, r.err
    assert [entry["outcome"] for entry in r.ledger] == ["unknown", "failed", "ok"]
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")
    assert (r.json["cost_usd"], r.json["cost_source"]) == (None, "unknown")


TWO_MODELS = (
    *("-m", "openrouter:openai/gpt-4o-mini-tts-2025-12-15"),
    *("-m", "openrouter:hexgrad/kokoro-82m"),
)


@pytest.mark.parametrize("fault", [Status(404), Status(402), CutAfter(1000), Html(200), Status(504)])
def test_next_model_is_used_when_the_first_fails(audiocli: CommandLine, tmp_path: Path, fault: object) -> None:
    audiocli.gateway.queue_faults(fault)

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", *TWO_MODELS, "--json")

    assert r.code == 0, r.err
    assert r.json["model"] == "hexgrad/kokoro-82m"
    assert [route["model"] for route in r.json["routes"]] == ["openai/gpt-4o-mini-tts-2025-12-15"]
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")


def test_rejected_text_does_not_fall_back(audiocli: CommandLine, tmp_path: Path) -> None:
    rejected = '{"error":{"code":400,"message":"no","metadata":{"error_type":"content_policy_violation"}}}'
    audiocli.gateway.queue_faults(Status(400, body=rejected))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", *TWO_MODELS)

    assert (r.code, len(r.requests)) == (6, 1)


def test_pipe_with_written_bytes_does_not_fall_back(audiocli: CommandLine) -> None:
    audiocli.gateway.queue_faults(CutAfter(3000))

    r = audiocli("speak", TEXT, *TWO_MODELS)

    assert (r.code, len(r.requests)) == (7, 1)
    assert expected_audio(TEXT, "mp3").startswith(r.out)


def test_file_output_falls_back_and_has_no_bytes_of_the_first_attempt(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(CutAfter(3000))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.flac", *TWO_MODELS)

    assert r.code == 0, r.err
    assert (tmp_path / "x.flac").read_bytes()[:4] == b"fLaC"


def test_exit_code_is_shared_or_six_when_all_routes_fail(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(Status(402), Status(402), Status(404), Status(402))

    same_failures = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", *TWO_MODELS, "--json")
    different_failures = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", *TWO_MODELS, "--json")

    assert (same_failures.code, different_failures.code) == (5, 6)
    assert same_failures.err_json["error"]["code"] == "routes_exhausted"
    assert [route["gateway"] for route in same_failures.err_json["error"]["routes"]] == ["openrouter", "openrouter"]
    assert all(route["reason"] for route in same_failures.err_json["error"]["routes"])


def test_unreachable_gateway_falls_back(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli(
        *("speak", TEXT, "-o", tmp_path / "x.wav", "-m", "openai:tts-1", "-m", "local:espeak", "--json"),
        variables={"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": f"http://127.0.0.1:{find_closed_port()}/v1"},
    )

    assert r.code == 0, r.err
    assert (r.json["gateway"], r.json["cost_usd"]) == ("local", 0.0)
    assert [entry["outcome"] for entry in r.ledger] == ["unsent"]


OPERATIONS: dict[str, tuple[str, ...]] = {
    "speech": ("speak", TEXT, "-o", "x.mp3", "-m", "broken:tts-1", "-m", "therouter:openai/tts-1"),
    "transcription": ("transcribe", "talk.wav", "-m", "broken:whisper-1", "-m", "therouter:openai/whisper-1"),
    "chat": ("chat", TEXT, "-m", "broken:openai/gpt-4o-audio-preview", "-m", "openrouter:openai/gpt-4o-audio-preview"),
    "speech job": ("speak", TEXT, "--background", "-m", "broken:tts-1", "-m", "therouter:openai/tts-1"),
    "transcription job": (
        *("transcribe", "talk.wav", "--background"),
        *("-m", "broken:whisper-1", "-m", "therouter:openai/whisper-1"),
    ),
}
UNUSABLE_ROUTES = {
    "key with a control character": {"BROKEN_KEY": "sk-\x01"},
    "malformed proxy": {"BROKEN_KEY": "sk-test", "https_proxy": "http://[::1"},
    "missing certificates": {"BROKEN_KEY": "sk-test", "SSL_CERT_FILE": "/nonexistent.pem"},
}


@pytest.mark.parametrize("cause", UNUSABLE_ROUTES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_route_that_cannot_be_opened_is_unsent_and_the_next_is_tried(
    all_gateways_cli: CommandLine, operation: str, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(all_gateways_cli.directory)
    dialect = "openrouter" if operation == "chat" else "therouter"
    all_gateways_cli.write_config(
        f'[gateways.broken]\nbase_url = "https://127.0.0.1:9/v1"\ndialect = "{dialect}"\nkey_env = "BROKEN_KEY"\n'
    )

    r = all_gateways_cli(*OPERATIONS[operation], variables=UNUSABLE_ROUTES[cause])

    assert r.code == 0, r.err
    unsent, sent = r.ledger
    assert (unsent["gateway"], unsent["outcome"], unsent["cost_nanousd"]) == ("broken", "unsent", 0)
    assert sent["outcome"] == ("reserved" if "job" in operation else "ok")
    assert len(r.requests) == 1


def test_route_without_key_is_skipped_with_a_reason(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", "-m", "openai:tts-1", *TWO_MODELS, "--json")

    assert r.code == 0, r.err
    assert r.json["routes"] == [{"gateway": "openai", "model": "tts-1", "reason": "no API key for openai"}]


def test_key_with_invalid_characters_is_an_access_error_without_the_key(audiocli: CommandLine, tmp_path: Path) -> None:
    for key in ("sk-or-\u201ctest\u201d", "sk-or-te\nst"):
        r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", variables={"OPENROUTER_API_KEY": key})

        assert (r.code, r.requests) == (4, []), r.err
        assert "sk-or" not in r.err


def test_huge_error_body_is_shortened(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(Status(400, body='{"error":{"message":"' + "x\\n\\u001b[31m" * 100_000 + '"}}'))
    err = Stream(is_terminal=True)

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", terminal="err")

    assert r.code == 6
    assert len(r.err) < 3000
    assert "\x1b[31m" not in r.err
    err.close()
