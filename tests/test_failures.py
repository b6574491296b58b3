"""The exam in failures: every shape of error of every gateway, what it ends in, and how often it is sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine, Result
from tests.gateway import Empty, Garbage, Html, Status, WrongTypes, ok_with_error
from tests.gateway_contract import BY_NAME, EVERYONE, SPEECH, Candidate, enrol, remains


@pytest.fixture
def school(audiocli: CommandLine) -> CommandLine:
    """A world with a key for every gateway, and a recording."""
    enrol(audiocli)
    (audiocli.folder / "talk.wav").write_bytes(SPEECH)
    return audiocli


def speak(cli: CommandLine, one: Candidate, *flags: object) -> Result:
    return cli("speak", "Hello there", "-m", f"{one.name}:{one.speaks}", "-o", cli.folder / "x.mp3", *map(str, flags))


def transcribe(cli: CommandLine, one: Candidate, *flags: object) -> Result:
    argv = (cli.folder / "talk.wav", "-m", f"{one.name}:{one.hears}", "-o", cli.folder / "x.txt")
    return cli("transcribe", *argv, *map(str, flags))


WORK = pytest.mark.parametrize("work", [speak, transcribe])
OPENROUTER = BY_NAME["openrouter"]


def assert_ended(r: Result, folder: Path, code: int, outcome: str, sends: int) -> None:
    assert (r.code, len(r.requests)) == (code, sends), r.err
    assert [entry["outcome"] for entry in r.ledger] == [outcome] * sends
    assert (r.out, remains(folder)) == (b"", [])
    assert "Traceback" not in r.err
    assert len(r.err) < 6000


# --- in the gateways' own words --------------------------------------------------------------------------------------

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


# Speech and transcription take turns: what reads errors is the same for both.
@pytest.mark.parametrize(
    ("one", "status", "work"),
    [
        pytest.param(
            one,
            status,
            (speak, transcribe)[(number + at) % 2],
            id=f"{one.name}-{status}",
        )
        for at, one in enumerate(BY_NAME.values())
        for number, status in enumerate(STATUSES)
    ],
)
def test_a_status_means_the_same_from_every_gateway(
    school: CommandLine, one: Candidate, status: int, work: Any
) -> None:
    school.gateway.always(Status(status))

    r = work(school, one)

    assert_ended(r, school.folder, *STATUSES[status])
    assert str(status) in r.err
    assert {entry["status"] for entry in r.ledger} == {status}


@pytest.mark.parametrize(
    ("one", "status"),
    [pytest.param(one, (429, 503, 529)[at % 3], id=one.name) for at, one in enumerate(BY_NAME.values())],
)
def test_a_gateway_that_is_busy_is_asked_again(school: CommandLine, one: Candidate, status: int) -> None:
    school.gateway.script(Status(status), Status(status))

    r = speak(school, one, "--json")

    assert r.code == 0, r.err
    assert [entry["outcome"] for entry in r.ledger] == ["refused", "refused", "ok"]
    assert (r.json["attempts"], len(r.waits_s)) == (3, 2)


@pytest.mark.parametrize("one", EVERYONE)
def test_an_error_inside_of_a_200_is_read_by_its_status(school: CommandLine, one: Candidate) -> None:
    says_its_status = one.name in ("openrouter", "therouter")
    for status, code in ((400, 6), (401, 4), (402, 5), (404, 6)) if says_its_status else ((401, 4), (429, 6)):
        school.gateway.always(ok_with_error(status))

        r = speak(school, one)

        # Where the error names no status, only some of its words do; without either it is a bad answer.
        assert r.code in ((code,) if says_its_status else (code, 9)), r.err
        assert remains(school.folder) == []
        school.gateway.behave()


# --- every shape -----------------------------------------------------------------------------------------------------


def zod(*issues: dict[str, Any]) -> str:
    return json.dumps({"success": False, "error": {"name": "ZodError", "message": json.dumps(issues, indent=2)}})


SHAPES: dict[str, tuple[str | bytes, str | None, str | None]] = {
    "OpenRouter": (
        '{"error":{"code":%d,"message":"Provider returned error","metadata":{"provider_name":"Acme","raw":"no luck"}},'
        '"user_id":"user_x"}',
        None,
        "no luck",
    ),
    "ZodError": (zod({"path": ["voice", "id"], "message": "Required"}), None, "voice.id: Required"),
    "ZodError without JSON in it": ('{"success":false,"error":{"name":"ZodError","message":"[odd"}}', None, "[odd"),
    "ZodError without a message": ('{"success":false,"error":{"name":"ZodError"}}', None, "ZodError"),
    "OpenAI": ('{"error":{"message":"bad voice","type":"x","param":"voice","code":null}}', None, "bad voice"),
    "OpenAI with a word": ('{"error":{"message":"bad","type":"x","param":null,"code":"oh"}}', None, "bad"),
    "TheRouter": ('{"error":{"code":%d,"type":"x","message":"bad","metadata":{"request_id":"r"}}}', None, "bad"),
    "ARouter": ('{"error":{"message":"bad","type":"invalid_request_error"}}', None, "bad"),
    "FastAPI": ('{"detail":"no such thing"}', None, "no such thing"),
    "FastAPI's list": ('{"detail":[{"loc":["body","x"],"msg":"bad","type":"t"}]}', None, "body.x: bad"),
    "FastAPI's odd list": ('{"detail":["bad",7,null,{"loc":5,"msg":[]}]}', None, "bad"),
    "a word": ('{"error":"bad luck"}', None, "bad luck"),
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
    "a number without end": ('{"error":{"code":1e999,"message":"bad"}}', "application/json", "bad"),
    "not UTF-8": (b"\xff\xfe\x00bad\x80", "text/plain", None),
    "a well without a ground": ("[" * 50_000, "application/json", None),
    "controls": ('{"error":{"message":"a\\u001b[31m\\nb\\ud800c"}}', None, "b"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_error_is_read(school: CommandLine, shape: str) -> None:
    body, content_type, said = SHAPES[shape]
    number = list(SHAPES).index(shape)
    one, status = list(BY_NAME.values())[number % len(BY_NAME)], (400, 400, 500)[number % 3]
    body = body.replace("%d", str(status)) if isinstance(body, str) else body
    school.gateway.always(Status(status, body=body, content_type=content_type))

    r = speak(school, one)

    assert_ended(r, school.folder, *STATUSES[status])
    assert said is None or said in r.err
    assert "user_x" not in r.err
    assert "\x1b" not in r.err


@WORK
@pytest.mark.parametrize(
    ("fault", "code", "outcome", "sends"),
    [
        (Status(200, body='{"error":{"code":400,"message":"x"}}', content_type="application/json"), 6, "refused", 1),
        (Status(200, body='{"error":{"code":"402","message":"x"}}', content_type="application/json"), 5, "refused", 1),
        (Status(200, body='{"error":{"code":500,"message":"x"}}', content_type="application/json"), 6, "failed", 3),
        (Status(200, body='{"error":{"code":504,"message":"x"}}', content_type="application/json"), 7, "unknown", 1),
        (Status(200, body='{"error":{"type":"authentication_error"}}', content_type="text/plain"), 4, "refused", 1),
        (Status(200, body='{"error":{"error_type":"refusal"}}', content_type="application/json"), 6, "refused", 1),
        (Status(200, body='{"error":{"message":"x","code":null}}', content_type="text/html"), 9, "failed", 1),
        (Status(200, body='{"error":{"message":"x","code":200}}', content_type="application/json"), 9, "failed", 1),
        (Status(200, body=zod({"path": ["input"], "message": "Required"})), 9, "failed", 1),
        (Status(200, body='{"detail":"oh no"}', content_type="application/json"), 9, "failed", 1),
        (Html(200), 9, "failed", 1),
        (Empty(), 9, "failed", 1),
        (WrongTypes(), 9, "failed", 1),
        (Garbage(b"upstream connect error or disconnect", "text/plain"), 9, "failed", 1),
        (Garbage(b"\x00\x01", "application/json"), 9, "failed", 1),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_200_that_holds_no_work_is_an_error(
    school: CommandLine, work: Any, fault: Any, code: int, outcome: str, sends: int
) -> None:
    school.gateway.always(fault)

    r = work(school, OPENROUTER)

    assert_ended(r, school.folder, code, outcome, sends)


# --- hints -----------------------------------------------------------------------------------------------------------


def wrapped(**error: Any) -> str:
    return json.dumps({"error": {"message": "x", **error}})


CLOCK = {"Date": "Sat, 21 Nov 2026 10:00:00 GMT"}


@pytest.mark.parametrize(
    ("status", "headers", "error", "wait_s"),
    [
        (429, {"retry-after-ms": "1500"}, {}, 1.5),
        (429, {"retry-after-ms": "250", "Retry-After": "9"}, {}, 0.25),
        (429, {"Retry-After": "2"}, {}, 2),
        (429, {"Retry-After": "0.5"}, {}, 0.5),
        (429, {"Retry-After": "0"}, {}, 0),
        (503, {"Retry-After": "Sat, 21 Nov 2026 10:00:07 GMT", **CLOCK}, {}, 7),
        (503, {"Retry-After": "Sat, 21 Nov 2026 09:00:00 GMT", **CLOCK}, {}, 0),
        (429, {"X-RateLimit-Reset": "1795255212", **CLOCK}, {}, 12),
        (429, {"X-RateLimit-Reset": "1795255212000", **CLOCK}, {}, 12),
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
def test_a_wait_that_is_named_is_kept(
    school: CommandLine, status: int, headers: dict[str, str], error: dict[str, Any], wait_s: float
) -> None:
    school.gateway.script(Status(status, body=wrapped(**error), headers=headers))

    r = speak(school, OPENROUTER)

    assert r.code == 0, r.err
    assert r.waits_s == [pytest.approx(wait_s)]
    assert [entry["outcome"] for entry in r.ledger] == ["refused", "ok"]


def test_a_date_without_a_clock_beside_it_is_read_by_our_own(school: CommandLine) -> None:
    in_40_s = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    school.gateway.script(Status(429, body=wrapped(), headers={"Retry-After": in_40_s}))

    r = speak(school, OPENROUTER)

    assert r.code == 0, r.err
    assert 0 < r.waits_s[0] <= 40


@pytest.mark.parametrize("told", ["soon", "-5", "", "NaN", "1e999", "Sat, 99 Nov 2026"])
def test_a_wait_that_makes_no_sense_is_a_short_one(school: CommandLine, told: str) -> None:
    school.gateway.script(Status(429, body=wrapped(), headers={"Retry-After": told, "X-RateLimit-Reset": told}))

    r = speak(school, OPENROUTER)

    assert r.code == 0, r.err
    assert 0 <= r.waits_s[0] <= 8


@pytest.mark.parametrize(
    ("status", "headers", "error", "code", "sends"),
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
def test_what_is_not_to_be_sent_again_is_not(
    school: CommandLine, status: int, headers: dict[str, str], error: dict[str, Any], code: int, sends: int
) -> None:
    school.gateway.always(Status(status, body=wrapped(**error), headers=headers))

    r = speak(school, OPENROUTER)

    assert (r.code, len(r.requests)) == (code, sends), r.err
    assert sum(r.waits_s) <= 8 * (sends - 1)


@pytest.mark.parametrize(
    ("metadata", "headers", "sends"),
    [
        ({"limit_source": "openrouter_credits"}, {}, 1),
        ({"limit_source": "openrouter_credits", "reason": "weight_exceeds_budget"}, {}, 1),
        ({"limit_source": "openrouter_key_limit"}, {}, 1),
        ({"limit_source": "openrouter_in_flight_budget", "reason": "in_flight_budget_exhausted"}, {}, 1),
        ({"limit_source": "openrouter_in_flight_budget"}, {"Retry-After": "300"}, 1),
        ({"limit_source": "openrouter_in_flight_budget"}, {"Retry-After": "50"}, 3),
        pytest.param(
            {"limit_source": "openrouter_credits"},
            {"X-RateLimit-Reset": "1795255212", **CLOCK},
            1,
        ),
    ],
)
def test_a_402_is_about_money_and_final_unless_a_wait_is_named(
    school: CommandLine, metadata: dict[str, str], headers: dict[str, str], sends: int
) -> None:
    school.gateway.always(Status(402, body=wrapped(code=402, metadata=metadata), headers=headers))

    r = speak(school, OPENROUTER)

    assert_ended(r, school.folder, 5, "refused", sends)


@pytest.mark.parametrize(
    ("error", "code", "goes_on"),
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
def test_a_403_is_about_a_budget_the_text_the_place_or_the_key(
    school: CommandLine, error: dict[str, Any], code: int, goes_on: bool
) -> None:
    school.gateway.always(Status(403, body=wrapped(**error)), dialect="openrouter")

    alone = speak(school, OPENROUTER)
    followed = speak(school, OPENROUTER, "-m", "openai:tts-1")

    assert (alone.code, len(alone.requests), alone.waits_s) == (code, 1, []), alone.err
    assert (followed.code, len(followed.requests)) == ((0, 2) if goes_on else (code, 1)), followed.err


@pytest.mark.parametrize("hint", ["x-should-retry", "retryable"])
def test_a_text_that_was_rejected_is_never_sent_again(school: CommandLine, hint: str) -> None:
    headers = {"x-should-retry": "true"} if hint == "x-should-retry" else {}
    metadata = {"reasons": ["violence"], **({"retryable": True} if hint == "retryable" else {})}
    school.gateway.always(Status(403, body=wrapped(metadata=metadata), headers=headers))

    r = speak(school, OPENROUTER)

    assert (r.code, len(r.requests)) == (6, 1), r.err


def test_a_request_is_named_in_the_error_and_in_the_ledger(school: CommandLine) -> None:
    for one in BY_NAME.values():
        school.gateway.script(Status(400, headers={"x-request-id": "req_of_theirs"}))

        r = speak(school, one, "--json")

        assert r.err_json["error"]["request_ids"] == ["req_of_theirs"]
        assert r.ledger[0]["request_id"] == "req_of_theirs"
