"""Error responses of the gateways: exit code, outcome, and number of requests for every shape of error."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from audiocli.gateways.error_responses import parse_error
from audiocli.mock import Empty, Garbage, Html, OkWithError, Status, WrongTypes
from tests.conftest import CommandLine, Result
from tests.gateway_contract import (
    GATEWAY_PARAMS,
    GATEWAYS_BY_NAME,
    GatewayUnderTest,
    list_outputs,
)


def speak(cli: CommandLine, tested_gateway: GatewayUnderTest, *flags: object) -> Result:
    return cli(
        "speak",
        "Hello there",
        "-m",
        f"{tested_gateway.name}:{tested_gateway.speech_model}",
        "-o",
        cli.directory / "x.mp3",
        *map(str, flags),
    )


def transcribe(cli: CommandLine, tested_gateway: GatewayUnderTest, *flags: object) -> Result:
    argv = (
        cli.directory / "talk.wav",
        "-m",
        f"{tested_gateway.name}:{tested_gateway.transcription_model}",
        "-o",
        cli.directory / "x.txt",
    )
    return cli("transcribe", *argv, *map(str, flags))


EACH_COMMAND = pytest.mark.parametrize("run_command", [speak, transcribe])
OPENROUTER = GATEWAYS_BY_NAME["openrouter"]


def assert_failed(r: Result, directory: Path, code: int, outcome: str, request_count: int) -> None:
    assert (r.code, len(r.requests)) == (code, request_count), r.err
    assert [entry["outcome"] for entry in r.ledger] == [outcome] * request_count
    assert (r.out, list_outputs(directory)) == (b"", [])
    assert "Traceback" not in r.err
    assert len(r.err) < 6000


# --- statuses --------------------------------------------------------------------------------------------------------

STATUSES = {
    400: (6, "refused", 1),
    401: (4, "refused", 1),
    402: (5, "refused", 1),
    403: (4, "refused", 1),
    404: (6, "refused", 1),
    500: (6, "failed", 3),
    502: (6, "failed", 3),
    504: (7, "unknown", 1),
}


# Alternate between speech and transcription: both use the same error parser.
@pytest.mark.parametrize(
    ("tested_gateway", "status", "run_command"),
    [
        pytest.param(
            tested_gateway,
            status,
            (speak, transcribe)[(index + offset) % 2],
            id=f"{tested_gateway.name}-{status}",
        )
        for offset, tested_gateway in enumerate(GATEWAYS_BY_NAME.values())
        for index, status in enumerate(STATUSES)
    ],
)
def test_status_has_the_same_meaning_for_every_gateway(
    all_gateways_cli: CommandLine, tested_gateway: GatewayUnderTest, status: int, run_command: Any
) -> None:
    all_gateways_cli.gateway.add_default_fault(Status(status))

    r = run_command(all_gateways_cli, tested_gateway)

    assert_failed(r, all_gateways_cli.directory, *STATUSES[status])
    assert str(status) in r.err
    assert {entry["status"] for entry in r.ledger} == {status}


@pytest.mark.parametrize(
    ("tested_gateway", "status"),
    [
        pytest.param(tested_gateway, (429, 503, 529)[offset % 3], id=tested_gateway.name)
        for offset, tested_gateway in enumerate(GATEWAYS_BY_NAME.values())
    ],
)
def test_busy_gateway_is_retried(all_gateways_cli: CommandLine, tested_gateway: GatewayUnderTest, status: int) -> None:
    all_gateways_cli.gateway.queue_faults(Status(status), Status(status))

    r = speak(all_gateways_cli, tested_gateway, "--json")

    assert r.code == 0, r.err
    assert [entry["outcome"] for entry in r.ledger] == ["refused", "refused", "ok"]
    assert (r.json["attempts"], len(r.waits_s)) == (3, 2)


@pytest.mark.parametrize("tested_gateway", GATEWAY_PARAMS)
def test_error_in_200_response_is_read_by_its_status(
    all_gateways_cli: CommandLine, tested_gateway: GatewayUnderTest
) -> None:
    has_status = tested_gateway.name in ("openrouter", "therouter")
    for status, code in ((400, 6), (401, 4), (402, 5), (404, 6)) if has_status else ((401, 4), (429, 6)):
        all_gateways_cli.gateway.add_default_fault(OkWithError(status))

        r = speak(all_gateways_cli, tested_gateway)

        # Without a status, some error types still give the exit code; otherwise it is an invalid response.
        assert r.code in ((code,) if has_status else (code, 9)), r.err
        assert list_outputs(all_gateways_cli.directory) == []
        all_gateways_cli.gateway.clear_faults()


# --- bodies ----------------------------------------------------------------------------------------------------------


def build_zod_error(*issues: dict[str, Any]) -> str:
    return json.dumps({"success": False, "error": {"name": "ZodError", "message": json.dumps(issues, indent=2)}})


ERROR_BODIES: dict[str, tuple[str | bytes, str | None, str | None]] = {
    "OpenRouter": (
        '{"error":{"code":%d,"message":"Provider returned error","metadata":{"provider_name":"Acme","raw":"no luck"}},'
        '"user_id":"user_x"}',
        None,
        "no luck",
    ),
    "ZodError": (build_zod_error({"path": ["voice", "id"], "message": "Required"}), None, "voice.id: Required"),
    "ZodError without JSON in it": ('{"success":false,"error":{"name":"ZodError","message":"[odd"}}', None, "[odd"),
    "ZodError without a message": ('{"success":false,"error":{"name":"ZodError"}}', None, "ZodError"),
    "OpenAI": ('{"error":{"message":"bad voice","type":"x","param":"voice","code":null}}', None, "bad voice"),
    "OpenAI with a string code": ('{"error":{"message":"bad","type":"x","param":null,"code":"oh"}}', None, "bad"),
    "TheRouter": ('{"error":{"code":%d,"type":"x","message":"bad","metadata":{"request_id":"r"}}}', None, "bad"),
    "ARouter": ('{"error":{"message":"bad","type":"invalid_request_error"}}', None, "bad"),
    "FastAPI": ('{"detail":"no such thing"}', None, "no such thing"),
    "FastAPI's list": ('{"detail":[{"loc":["body","x"],"msg":"bad","type":"t"}]}', None, "body.x: bad"),
    "FastAPI's odd list": ('{"detail":["bad",7,null,{"loc":5,"msg":[]}]}', None, "bad"),
    "a string": ('{"error":"bad luck"}', None, "bad luck"),
    "a message": ('{"message":"bad luck"}', None, "bad luck"),
    "HTML": ("<!DOCTYPE html><title>Bad\ngateway</title><p>cf-ray", "text/html", "Bad gateway"),
    "HTML without a title": ("<html><body>x</body></html>", "text/html", "an HTML page"),
    "plain text": ("upstream connect error", "text/plain", "upstream connect error"),
    "nothing": ("", None, "without a message"),
    "broken JSON": ('{"error":{"message":"bad', "application/json", "bad"),
    "wrong types": (
        '{"error":{"message":{"a":1},"code":[],"type":7,"metadata":"x","availability":[1]},"user_id":5}',
        "application/json",
        None,
    ),
    "more wrong types": ('{"error":[1,2],"detail":{"a":[]},"message":7,"success":"no"}', "application/json", None),
    "a list": ("[1,2,3]", "application/json", "[1,2,3]"),
    "null": ("null", "application/json", "null"),
    "an infinite number": ('{"error":{"code":1e999,"message":"bad"}}', "application/json", "bad"),
    "not UTF-8": (b"\xff\xfe\x00bad\x80", "text/plain", None),
    "deeply nested JSON": ("[" * 50_000, "application/json", None),
    "control characters": ('{"error":{"message":"a\\u001b[31m\\nb\\ud800c"}}', None, "b"),
}


@pytest.mark.parametrize("name", ERROR_BODIES)
def test_error_body_of_every_shape_is_read(all_gateways_cli: CommandLine, name: str) -> None:
    body, content_type, expected_message = ERROR_BODIES[name]
    index = list(ERROR_BODIES).index(name)
    tested_gateway, status = list(GATEWAYS_BY_NAME.values())[index % len(GATEWAYS_BY_NAME)], (400, 400, 500)[index % 3]
    body = body.replace("%d", str(status)) if isinstance(body, str) else body
    all_gateways_cli.gateway.add_default_fault(Status(status, body=body, content_type=content_type))

    r = speak(all_gateways_cli, tested_gateway)

    assert_failed(r, all_gateways_cli.directory, *STATUSES[status])
    assert expected_message is None or expected_message in r.err
    assert "user_x" not in r.err
    assert "\x1b" not in r.err


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"detail": {"error": {"message": "unknown model: x"}}}, "unknown model: x"),  # faster-whisper-server
        ({"detail": {"error": "bad luck"}}, "bad luck"),
        ({"detail": {"message": "bad luck", "error": "x"}}, "bad luck"),
        ({"error": "Bad Request", "message": "bad luck"}, "bad luck"),
        ({"detail": [{"loc": ["body", "x"], "msg": "bad", "type": "t"}, "odd"]}, "body.x: bad; odd"),
        ({"error": {}, "detail": "bad luck"}, "bad luck"),
        ({"error": {"type": "x"}, "message": "bad luck"}, "bad luck"),
        ({"error": ["bad", {"message": "luck"}]}, "bad; luck"),
        ({"success": False, "errors": [{"code": 10000, "message": "bad"}, "luck"]}, "bad; luck"),
        ({"errors": {"message": "bad luck"}}, "bad luck"),
        ({"object": "error", "message": "bad luck", "type": "x", "code": 400}, "bad luck"),
        ({"statusCode": 400, "message": ["bad", "luck"]}, "bad; luck"),
        ({"error": {"metadata": {"raw": "bad luck"}}}, "bad luck"),
        ({"error": {"metadata": {"provider_name": "Acme"}}}, "(Acme)"),
        ({"error": {}}, '{"error": {}}'),
        ({"detail": {"reason": "bad luck"}}, '{"detail": {"reason": "bad luck"}}'),
        ({"title": "bad luck"}, '{"title": "bad luck"}'),
    ],
    ids=str,
)
def test_message_of_an_error_is_found_wherever_it_is(body: Any, message: str) -> None:
    assert parse_error(400, {}, json.dumps(body).encode()).message == f"400 {message}"


QUOTA_ERROR = {"message": "bad luck", "type": "insufficient_quota"}


@pytest.mark.parametrize("body", [{"detail": {"error": QUOTA_ERROR}}, {"detail": QUOTA_ERROR}, QUOTA_ERROR], ids=str)
def test_type_of_an_error_is_found_beside_its_message(body: Any) -> None:
    assert parse_error(429, {}, json.dumps(body).encode()).code == "no_credit"


@EACH_COMMAND
@pytest.mark.parametrize(
    ("fault", "code", "outcome", "request_count"),
    [
        (Status(200, body='{"error":{"code":400,"message":"x"}}', content_type="application/json"), 6, "refused", 1),
        (Status(200, body='{"error":{"code":"402","message":"x"}}', content_type="application/json"), 5, "refused", 1),
        (Status(200, body='{"error":{"code":500,"message":"x"}}', content_type="application/json"), 6, "failed", 3),
        (Status(200, body='{"error":{"code":504,"message":"x"}}', content_type="application/json"), 7, "unknown", 1),
        (Status(200, body='{"error":{"type":"authentication_error"}}', content_type="text/plain"), 4, "refused", 1),
        (Status(200, body='{"error":{"error_type":"refusal"}}', content_type="application/json"), 6, "refused", 1),
        (Status(200, body='{"error":{"message":"x","code":null}}', content_type="text/html"), 9, "failed", 1),
        (Status(200, body='{"error":{"message":"x","code":200}}', content_type="application/json"), 9, "failed", 1),
        (Status(200, body=build_zod_error({"path": ["input"], "message": "Required"})), 9, "failed", 1),
        (Status(200, body='{"detail":"oh no"}', content_type="application/json"), 9, "failed", 1),
        (Status(200, body='{"detail":{"error":{"code":404}}}', content_type="application/json"), 6, "refused", 1),
        (Html(200), 9, "failed", 1),
        (Empty(), 9, "failed", 1),
        (WrongTypes(), 9, "failed", 1),
        (Garbage(b"upstream connect error or disconnect", "text/plain"), 9, "failed", 1),
        (Garbage(b"\x00\x01", "application/json"), 9, "failed", 1),
    ],
    ids=lambda value: str(value)[:60],
)
def test_200_response_without_content_is_an_error(
    all_gateways_cli: CommandLine, run_command: Any, fault: Any, code: int, outcome: str, request_count: int
) -> None:
    all_gateways_cli.gateway.add_default_fault(fault)

    r = run_command(all_gateways_cli, OPENROUTER)

    assert_failed(r, all_gateways_cli.directory, code, outcome, request_count)


# --- hints -----------------------------------------------------------------------------------------------------------


def build_error_body(**error: Any) -> str:
    return json.dumps({"error": {"message": "x", **error}})


DATE_HEADER = {"Date": "Sat, 21 Nov 2026 10:00:00 GMT"}


@pytest.mark.parametrize(
    ("status", "headers", "error", "wait_s"),
    [
        (429, {"retry-after-ms": "1500"}, {}, 1.5),
        (429, {"retry-after-ms": "250", "Retry-After": "9"}, {}, 0.25),
        (429, {"Retry-After": "2"}, {}, 2),
        (429, {"Retry-After": "0.5"}, {}, 0.5),
        (429, {"Retry-After": "0"}, {}, 0),
        (503, {"Retry-After": "Sat, 21 Nov 2026 10:00:07 GMT", **DATE_HEADER}, {}, 7),
        (503, {"Retry-After": "Sat, 21 Nov 2026 09:00:00 GMT", **DATE_HEADER}, {}, 0),
        (429, {"X-RateLimit-Reset": "1795255212", **DATE_HEADER}, {}, 12),
        (429, {"X-RateLimit-Reset": "1795255212000", **DATE_HEADER}, {}, 12),
        (429, {"x-ratelimit-reset-requests": "1m0s", "x-ratelimit-reset-tokens": "12ms"}, {}, 60),
        (429, {"x-ratelimit-reset-tokens": "1m30.5s"}, {}, 90.5),
        (429, {}, {"availability": {"code": "capacity_exhausted", "retryable": True, "retry_after": 3}}, 3),
        (503, {"Retry-After": "50"}, {"availability": {"retry_after": 4}}, 4),
        (404, {}, {"availability": {"retryable": True, "retry_after": 5}}, 5),
        (402, {"Retry-After": "6"}, {"metadata": {"limit_source": "openrouter_in_flight_budget"}}, 6),
        (400, {"x-should-retry": "true", "Retry-After": "8"}, {}, 8),
        (409, {"x-should-retry": "true", "Retry-After": "1"}, {}, 1),
        (529, {"Retry-After": "11"}, {"metadata": {"retryable": True}}, 11),
    ],
)
def test_retry_after_is_respected(
    all_gateways_cli: CommandLine, status: int, headers: dict[str, str], error: dict[str, Any], wait_s: float
) -> None:
    all_gateways_cli.gateway.queue_faults(Status(status, body=build_error_body(**error), headers=headers))

    r = speak(all_gateways_cli, OPENROUTER)

    assert r.code == 0, r.err
    assert r.waits_s == [pytest.approx(wait_s)]
    assert [entry["outcome"] for entry in r.ledger] == ["refused", "ok"]


def test_retry_after_date_without_date_header_uses_local_clock(all_gateways_cli: CommandLine) -> None:
    retry_after = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    all_gateways_cli.gateway.queue_faults(Status(429, body=build_error_body(), headers={"Retry-After": retry_after}))

    r = speak(all_gateways_cli, OPENROUTER)

    assert r.code == 0, r.err
    assert 0 < r.waits_s[0] <= 40


@pytest.mark.parametrize("value", ["soon", "-5", "", "NaN", "1e999", "Sat, 99 Nov 2026"])
def test_invalid_retry_after_gives_a_short_wait(all_gateways_cli: CommandLine, value: str) -> None:
    all_gateways_cli.gateway.queue_faults(
        Status(429, body=build_error_body(), headers={"Retry-After": value, "X-RateLimit-Reset": value})
    )

    r = speak(all_gateways_cli, OPENROUTER)

    assert r.code == 0, r.err
    assert 0 <= r.waits_s[0] <= 8


@pytest.mark.parametrize(
    ("status", "headers", "error", "code", "request_count"),
    [
        (429, {"x-should-retry": "false"}, {}, 6, 1),
        (500, {"x-should-retry": "false"}, {}, 6, 1),
        (503, {}, {"metadata": {"retryable": False}}, 6, 1),
        (502, {}, {"metadata": {"retryable": False}}, 6, 1),
        (503, {"x-should-retry": "true"}, {"availability": {"retryable": False}}, 6, 1),
        (404, {}, {"availability": {"code": "no_endpoints", "retryable": False}}, 6, 1),
        (429, {"x-ratelimit-reset-requests": "6m0s"}, {}, 6, 1),
        (429, {"Retry-After": "121"}, {}, 6, 1),
        (429, {"retry-after-ms": "600000"}, {}, 6, 1),
        (503, {}, {"availability": {"retryable": True, "retry_after": 3600}}, 6, 1),
        (429, {}, {"code": "insufficient_quota", "type": "insufficient_quota"}, 5, 1),
        (401, {"x-should-retry": "true"}, {}, 4, 1),
        (402, {"x-should-retry": "true"}, {}, 5, 1),
        (504, {"x-should-retry": "true"}, {"metadata": {"retryable": True}}, 7, 1),
        (408, {"Retry-After": "1"}, {"metadata": {"retryable": True}}, 7, 1),
        (500, {}, {"metadata": {"retryable": True}}, 6, 3),
    ],
)
def test_non_retryable_error_is_not_retried(
    all_gateways_cli: CommandLine,
    status: int,
    headers: dict[str, str],
    error: dict[str, Any],
    code: int,
    request_count: int,
) -> None:
    all_gateways_cli.gateway.add_default_fault(Status(status, body=build_error_body(**error), headers=headers))

    r = speak(all_gateways_cli, OPENROUTER)

    assert (r.code, len(r.requests)) == (code, request_count), r.err
    assert sum(r.waits_s) <= 8 * (request_count - 1)


@pytest.mark.parametrize(
    ("metadata", "headers", "request_count"),
    [
        ({"limit_source": "openrouter_credits"}, {}, 1),
        ({"limit_source": "openrouter_credits", "reason": "weight_exceeds_budget"}, {}, 1),
        ({"limit_source": "openrouter_key_limit"}, {}, 1),
        ({"limit_source": "openrouter_in_flight_budget", "reason": "in_flight_budget_exhausted"}, {}, 1),
        ({"limit_source": "openrouter_in_flight_budget"}, {"Retry-After": "300"}, 1),
        ({"limit_source": "openrouter_in_flight_budget"}, {"Retry-After": "50"}, 3),
        pytest.param(
            {"limit_source": "openrouter_credits"},
            {"X-RateLimit-Reset": "1795255212", **DATE_HEADER},
            1,
        ),
    ],
)
def test_402_is_final_unless_a_wait_is_given(
    all_gateways_cli: CommandLine, metadata: dict[str, str], headers: dict[str, str], request_count: int
) -> None:
    all_gateways_cli.gateway.add_default_fault(
        Status(402, body=build_error_body(code=402, metadata=metadata), headers=headers)
    )

    r = speak(all_gateways_cli, OPENROUTER)

    assert_failed(r, all_gateways_cli.directory, 5, "refused", request_count)


@pytest.mark.parametrize(
    ("error", "code", "falls_back"),
    [
        ({"metadata": {"limit_source": "openrouter_guardrail_budget", "resets_at": "2026-11-01"}}, 5, True),
        ({"metadata": {"limit_source": "openrouter_workspace_budget", "scope": "workspace"}}, 5, True),
        ({"metadata": {"limit_source": "openrouter_key_limit", "limit_usd": 1}}, 5, True),
        ({"metadata": {"reasons": ["violence"], "flagged_input": "Hello"}}, 6, False),
        ({"metadata": {"error_type": "content_policy_violation"}}, 6, False),
        ({"availability": {"code": "region_restricted", "retryable": False}}, 6, True),
        ({"message": "Not available in your country"}, 6, True),
        ({"metadata": {"error_type": "permission_denied"}}, 4, True),
        ({"type": "forbidden_error"}, 4, True),
    ],
)
def test_403_is_classified_by_budget_content_region_or_key(
    all_gateways_cli: CommandLine, error: dict[str, Any], code: int, falls_back: bool
) -> None:
    all_gateways_cli.gateway.add_default_fault(Status(403, body=build_error_body(**error)), dialect="openrouter")

    single = speak(all_gateways_cli, OPENROUTER)
    with_fallback = speak(all_gateways_cli, OPENROUTER, "-m", "openai:tts-1")

    assert (single.code, len(single.requests), single.waits_s) == (code, 1, []), single.err
    assert (with_fallback.code, len(with_fallback.requests)) == ((0, 2) if falls_back else (code, 1)), with_fallback.err


@pytest.mark.parametrize("hint", ["x-should-retry", "retryable"])
def test_rejected_text_is_never_sent_again(all_gateways_cli: CommandLine, hint: str) -> None:
    headers = {"x-should-retry": "true"} if hint == "x-should-retry" else {}
    metadata = {"reasons": ["violence"], **({"retryable": True} if hint == "retryable" else {})}
    all_gateways_cli.gateway.add_default_fault(Status(403, body=build_error_body(metadata=metadata), headers=headers))

    r = speak(all_gateways_cli, OPENROUTER)

    assert (r.code, len(r.requests)) == (6, 1), r.err


def test_request_id_is_in_the_error_and_in_the_ledger(all_gateways_cli: CommandLine) -> None:
    for tested_gateway in GATEWAYS_BY_NAME.values():
        all_gateways_cli.gateway.queue_faults(Status(400, headers={"x-request-id": "req_1"}))

        r = speak(all_gateways_cli, tested_gateway, "--json")

        assert r.err_json["error"]["request_ids"] == ["req_1"]
        assert r.ledger[0]["request_id"] == "req_1"
