"""What is sent again: the table, and its rows played through the front door."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiocli.core.retry_policy import GiveUp, RetryPolicy, Retry, decide
from audiocli.errors import Retryability, AttemptError, InvalidResponse, FaultDomain, GatewayError, ResponseInterrupted, ConnectionFailed
from tests.conftest import CommandLine, Stream
from tests.gateway import CutAfter, Empty, Html, RateStorm, Status, closed_port, expected_audio

TEXT = "Hello there, world."
SEVERAL = RetryPolicy(several_models=True)
ALLOWED = RetryPolicy(retry_unknown=True)
WAIT = GatewayError("x", again=Retryability.AFTER_WAIT, wait_s=5)
BACKOFF = GatewayError("x", again=Retryability.AFTER_WAIT)
FEW = GatewayError("x", again=Retryability.FEW_TIMES)
OWN = GatewayError("x")
REQUEST = GatewayError("x", fault=FaultDomain.REQUEST)


@pytest.mark.parametrize(
    ("error", "facts", "step"),
    [
        (ConnectionFailed("x"), {}, Retry(0.25)),
        (ConnectionFailed("x"), {"same_kind": 3}, GiveUp.NEXT_ROUTE),
        (ConnectionFailed("x"), {"is_last": False}, GiveUp.NEXT_ROUTE),
        (WAIT, {}, Retry(5)),
        (WAIT, {"same_kind": 20, "waited_s": 115}, Retry(5)),
        (WAIT, {"waited_s": 116}, GiveUp.NEXT_ROUTE),
        (BACKOFF, {"same_kind": 10}, Retry(4.0)),
        (FEW, {"same_kind": 2}, Retry(0.5)),
        (FEW, {"same_kind": 3}, GiveUp.NEXT_ROUTE),
        (OWN, {}, GiveUp.NEXT_ROUTE),
        (REQUEST, {"policy": SEVERAL}, GiveUp.STOP),
        (ResponseInterrupted("x"), {}, GiveUp.STOP),
        (ResponseInterrupted("x"), {"policy": SEVERAL}, GiveUp.NEXT_ROUTE),
        (ResponseInterrupted("x"), {"policy": ALLOWED}, Retry(0.25)),
        (ResponseInterrupted("x"), {"policy": ALLOWED, "same_kind": 3}, GiveUp.STOP),
        (InvalidResponse("x"), {}, GiveUp.STOP),
        (InvalidResponse("x"), {"policy": SEVERAL}, GiveUp.NEXT_ROUTE),
        (WAIT, {"can_restart": False}, GiveUp.STOP),
        (ConnectionFailed("x"), {"can_restart": False, "is_last": False}, GiveUp.STOP),
    ],
)
def test_the_table_of_attempts(error: AttemptError, facts: dict[str, object], step: object) -> None:
    usual: dict[str, object] = {
        "same_kind": 1,
        "waited_s": 0.0,
        "is_last": True,
        "can_restart": True,
        "policy": RetryPolicy(),
        "random": lambda: 0.5,
    }

    assert decide(error, **{**usual, **facts}) == step  # type: ignore[arg-type]


def test_a_busy_gateway_is_asked_again_after_the_wait_it_names(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(RateStorm(3, retry_after=7))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", "--json")

    assert r.code == 0, r.err
    assert r.waits_s == [7, 7, 7]
    assert [entry["outcome"] for entry in r.ledger] == ["refused"] * 3 + ["ok"]
    assert [entry["cost_nanousd"] for entry in r.ledger] == [0, 0, 0, None]
    assert (r.json["requests"], r.json["attempts"]) == (1, 4)


def test_waiting_ends_after_two_minutes_in_all(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.always(Status(429, headers={"Retry-After": "50"}))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3")

    assert (r.code, r.waits_s) == (6, [50, 50])
    assert len(r.ledger) == len(r.requests) == 3


def test_a_storm_without_a_named_wait_ends_too(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.always(Status(503))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3")

    assert r.code == 6
    assert sum(r.waits_s) <= 120
    assert max(r.waits_s) <= 8


@pytest.mark.parametrize("status", [500, 502])
def test_a_gateway_that_fails_is_asked_three_times(audiocli: CommandLine, tmp_path: Path, status: int) -> None:
    audiocli.gateway.always(Status(status))

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
def test_every_way_to_name_a_wait_is_understood(
    audiocli: CommandLine, tmp_path: Path, headers: dict[str, str], body: str | None, wait_s: float
) -> None:
    audiocli.gateway.script(Status(429, body=body or '{"error":{"message":"slow down"}}', headers=headers))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert r.waits_s == [pytest.approx(wait_s)]


@pytest.mark.parametrize(
    ("status", "body", "code", "sends"),
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
def test_the_body_of_an_error_decides_as_well(
    audiocli: CommandLine, tmp_path: Path, status: int, body: str, code: int, sends: int
) -> None:
    audiocli.gateway.always(Status(status, body=body))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3")

    assert (r.code, len(r.requests), len(r.ledger)) == (code, sends, sends), r.err
    assert "test." not in r.err


def test_an_error_that_may_be_retried_is(audiocli: CommandLine, tmp_path: Path) -> None:
    busy = (
        '{"error":{"message":"x","availability":{"code":"temporarily_unavailable","retryable":true,"retry_after":2}}}'
    )
    in_flight = '{"error":{"code":402,"message":"x","metadata":{"limit_source":"openrouter_in_flight_budget"}}}'
    audiocli.gateway.script(Status(404, body=busy), Status(402, body=in_flight, headers={"Retry-After": "4"}))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3")

    assert (r.code, r.waits_s) == (0, [2, 4])


def test_what_may_have_been_billed_is_sent_again_only_if_allowed(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(CutAfter(100), Empty())

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
def test_the_next_model_serves_when_the_first_cannot(audiocli: CommandLine, tmp_path: Path, fault: object) -> None:
    audiocli.gateway.script(fault)

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", *TWO_MODELS, "--json")

    assert r.code == 0, r.err
    assert r.json["model"] == "hexgrad/kokoro-82m"
    assert [route["model"] for route in r.json["routes"]] == ["openai/gpt-4o-mini-tts-2025-12-15"]
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")


def test_a_rejected_text_does_not_move_on(audiocli: CommandLine, tmp_path: Path) -> None:
    rejected = '{"error":{"code":400,"message":"no","metadata":{"error_type":"content_policy_violation"}}}'
    audiocli.gateway.script(Status(400, body=rejected))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", *TWO_MODELS)

    assert (r.code, len(r.requests)) == (6, 1)


def test_a_pipe_that_had_its_first_byte_does_not_start_over(audiocli: CommandLine) -> None:
    audiocli.gateway.script(CutAfter(3000))

    r = audiocli("speak", TEXT, *TWO_MODELS)

    assert (r.code, len(r.requests)) == (7, 1)
    assert expected_audio(TEXT, "mp3").startswith(r.out)


def test_a_file_does_start_over_and_holds_nothing_of_the_first_try(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(CutAfter(3000))

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.flac", *TWO_MODELS)

    assert r.code == 0, r.err
    assert (tmp_path / "x.flac").read_bytes()[:4] == b"fLaC"


def test_routes_that_failed_alike_give_their_exit_code_and_others_six(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(Status(402), Status(402), Status(404), Status(402))

    alike = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", *TWO_MODELS, "--json")
    unlike = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", *TWO_MODELS, "--json")

    assert (alike.code, unlike.code) == (5, 6)
    assert alike.err_json["error"]["code"] == "routes_exhausted"
    assert [route["gateway"] for route in alike.err_json["error"]["routes"]] == ["openrouter", "openrouter"]
    assert all(route["reason"] for route in alike.err_json["error"]["routes"])


def test_an_unreachable_gateway_makes_room_for_the_next(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli(
        *("speak", TEXT, "-o", tmp_path / "x.wav", "-m", "openai:tts-1", "-m", "local:espeak", "--json"),
        variables={"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": f"http://127.0.0.1:{closed_port()}/v1"},
    )

    assert r.code == 0, r.err
    assert (r.json["gateway"], r.json["cost_usd"]) == ("local", 0.0)
    assert [entry["outcome"] for entry in r.ledger] == ["unsent"]


def test_routes_without_a_key_are_left_out_with_their_reason(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", "-m", "openai:tts-1", *TWO_MODELS, "--json")

    assert r.code == 0, r.err
    assert r.json["routes"] == [{"gateway": "openai", "model": "tts-1", "reason": "no key for openai"}]


def test_a_key_with_strange_characters_is_an_access_error_that_does_not_show_it(
    audiocli: CommandLine, tmp_path: Path
) -> None:
    for key in ("sk-or-\u201ctest\u201d", "sk-or-te\nst"):
        r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", variables={"OPENROUTER_API_KEY": key})

        assert (r.code, r.requests) == (4, []), r.err
        assert "sk-or" not in r.err


def test_a_megabyte_of_error_is_told_in_one_short_line(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(Status(400, body='{"error":{"message":"' + "x\\n\\u001b[31m" * 100_000 + '"}}'))
    err = Stream(is_terminal=True)

    r = audiocli("speak", TEXT, "-o", tmp_path / "x.mp3", terminal="err")

    assert r.code == 6
    assert len(r.err) < 3000
    assert "\x1b[31m" not in r.err
    err.close()
