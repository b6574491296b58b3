"""Verification of API keys by `keys set` and `config check`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiocli.mock import KEYS, MockGateway, Status, find_closed_port
from tests.conftest import CommandLine, Result
from tests.gateway_contract import read_warnings
from tests.pyav_codec import CODEC
from tests.small_server import Answer, Received, serve
from tests.test_config import get_keys_path

MODELS = {"data": [{"id": "tts-1"}, {"id": "whisper-1"}]}
WRONG_KEY = {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}
MISSING_SCOPE = {"error": {"message": "You have insufficient permissions. Missing scopes: api.model.read."}}
NO_VARIABLES = {f"{name}_API_KEY": "" for name in ("OPENROUTER", "OPENAI", "THEROUTER", "AROUTER", "GROQ")}


def set_key(cli: CommandLine, name: str, key: str, *flags: str) -> Result:
    return cli("keys", "set", name, *flags, stdin=key.encode(), variables=NO_VARIABLES)


def find_check(r: Result, name: str) -> dict[str, Any]:
    [check] = [check for check in r.json["checks"] if check["check"] == name]
    return dict(check)


def refuse_other_keys(status: int, body: Any) -> Callable[[Received], Answer]:
    """Return a server that lists its models to the key `right` only."""
    return lambda request: Answer(body=MODELS) if request.key == "right" else Answer(status, body)


# --- gateways that have a key ----------------------------------------------------------------------------------------

KEYED_GATEWAYS = [name for name, key in KEYS.items() if key is not None]


@pytest.mark.parametrize("name", KEYED_GATEWAYS)
def test_valid_key_is_verified_and_stored(audiocli: CommandLine, name: str) -> None:
    text, as_json = (set_key(audiocli, name, str(KEYS[name]), *flags) for flags in ((), ("--json",)))

    assert (text.code, as_json.code, as_json.json["verified"], as_json.json["warnings"]) == (0, 0, True, []), text.err
    assert f"stored the key for {name} in {get_keys_path(audiocli)}; {name} accepts it" in text.err
    assert str(KEYS[name]) in get_keys_path(audiocli).read_text()
    assert {request.method for request in text.requests} == {"GET"}
    assert text.ledger == []


@pytest.mark.parametrize("name", KEYED_GATEWAYS)
def test_wrong_key_is_refused_and_not_stored(audiocli: CommandLine, name: str) -> None:
    text, as_json = (set_key(audiocli, name, "sk-wrong-4711", *flags) for flags in ((), ("--json",)))

    assert (text.code, as_json.code, as_json.err_json["error"]["exit"]) == (4, 4, 4), text.err
    assert f"{name} refused the key, which was not stored: 401" in text.err
    assert not get_keys_path(audiocli).exists()
    assert "4711" not in text.err + as_json.err


@pytest.mark.parametrize("name", KEYED_GATEWAYS)
def test_wrong_key_is_an_error_of_config_check(audiocli: CommandLine, name: str) -> None:
    wrong, right = (
        audiocli("config", "check", "--json", variables={**NO_VARIABLES, f"{name.upper()}_API_KEY": key})
        for key in ("sk-wrong-4711", str(KEYS[name]))
    )

    check = find_check(wrong, f"key {name}")
    assert (wrong.code, check["status"], check["verified"]) == (3, "error", False), wrong.text
    assert "refused: 401" in check["detail"] and check["fix"]
    assert "4711" not in wrong.text
    check = find_check(right, f"key {name}")
    assert (check["status"], check["verified"]) == ("ok", True), right.text


def test_wrong_key_does_not_replace_stored_key(audiocli: CommandLine) -> None:
    set_key(audiocli, "openrouter", str(KEYS["openrouter"]))
    before = get_keys_path(audiocli).read_bytes()

    r = set_key(audiocli, "openrouter", "sk-wrong")

    assert (r.code, get_keys_path(audiocli).read_bytes()) == (4, before)


@pytest.mark.parametrize("name", KEYED_GATEWAYS)
def test_no_verify_stores_without_a_request(audiocli: CommandLine, name: str) -> None:
    r = set_key(audiocli, name, "sk-wrong", "--no-verify", "--json")

    assert (r.code, r.requests, r.json["verified"], r.json["warnings"]) == (0, [], False, [])
    assert "sk-wrong" in get_keys_path(audiocli).read_text()


@pytest.mark.parametrize("name", KEYED_GATEWAYS)
def test_key_without_network_is_stored_but_not_verified(audiocli: CommandLine, name: str) -> None:
    audiocli.variables[f"{name.upper()}_BASE_URL"] = f"http://127.0.0.1:{find_closed_port()}/v1"

    stored = set_key(audiocli, name, "sk-any", "--json")
    text = set_key(audiocli, name, "sk-any")
    checked = audiocli("config", "check", "--json", variables=NO_VARIABLES)

    assert (stored.code, stored.json["verified"]) == (0, False), stored.err
    [warning] = stored.json["warnings"]
    assert warning.startswith(f"the key for {name} was not verified: ")
    assert read_warnings(text) == [warning]
    check = find_check(checked, f"key {name}")
    assert (check["status"], check["verified"]) == ("note", False)
    assert "not verified: " in check["detail"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_failing_gateway_does_not_refuse_the_key(audiocli: CommandLine, status: int) -> None:
    audiocli.gateway.add_default_fault(Status(status), method="GET")

    r = set_key(audiocli, "openrouter", "sk-any", "--json")

    assert (r.code, r.json["verified"], len(r.json["warnings"])) == (0, False, 1), r.err


def test_key_is_only_sent_to_the_base_url_in_use(audiocli: CommandLine) -> None:
    with serve(refuse_other_keys(401, WRONG_KEY)) as server:
        audiocli.variables["OPENAI_BASE_URL"] = server.url
        r = set_key(audiocli, "openai", "right", "--json")

    assert (r.code, r.json["verified"], r.requests) == (0, True, [])
    assert [request.path for request in server.requests] == ["/v1/models", "/v1/models"]


def test_variable_that_overrides_the_stored_key_is_a_warning(audiocli: CommandLine) -> None:
    text, as_json = (audiocli("keys", "set", "openrouter", *flags, stdin=b"sk-or-test") for flags in ((), ("--json",)))

    assert (text.code, as_json.code) == (0, 0), text.err
    [warning] = read_warnings(text)
    assert warning.startswith("OPENROUTER_API_KEY is set and is used instead of the stored key")
    assert as_json.json["warnings"] == [warning]


# --- credit ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "credit_usd", "used_usd", "status", "text"),
    [
        ({"usage": 6, "limit": 10, "limit_remaining": 4}, 4.0, 6.0, "ok", "$4 of $10 left"),
        ({"usage": 1.25, "limit": None}, None, 1.25, "ok", "$1.25 used, no limit for this key"),
        ({"usage": 11, "limit": 10, "limit_remaining": -1}, 0.0, 11.0, "warning", "accepted, $0 of $10 left"),
        ({"usage": "6", "effective_budget": {"remaining_usd": 2}}, 2.0, 6.0, "ok", "$2 left"),
        ({"label": "x", "usage": [], "limit": {}}, None, None, "ok", "; accepted"),
    ],
)
def test_credit_of_the_key_is_shown(
    audiocli: CommandLine,
    data: dict[str, Any],
    credit_usd: float | None,
    used_usd: float | None,
    status: str,
    text: str,
) -> None:
    with serve(lambda request: Answer(body={"data": data} if request.path == "/v1/key" else MODELS)) as server:
        audiocli.variables["OPENROUTER_BASE_URL"] = server.url
        check = find_check(audiocli("config", "check", "--json"), "key openrouter")
        stored = audiocli("keys", "set", "openrouter", "--json", stdin=b"sk-or-x")

    assert (check["credit_usd"], check["used_usd"], check["status"]) == (credit_usd, used_usd, status)
    assert check["detail"].endswith(text)
    assert (stored.json["credit_usd"], stored.json["used_usd"]) == (credit_usd, used_usd)


def test_credit_of_the_mock_gateway_is_shown(audiocli: CommandLine) -> None:
    with MockGateway(CODEC, key_limit_usd=10.0) as limited:
        audiocli.variables["OPENROUTER_BASE_URL"] = limited.base_url("openrouter")
        r = audiocli("config", "check", "--json")

    assert find_check(r, "key openrouter")["credit_usd"] == 10.0


def test_management_key_is_refused(audiocli: CommandLine) -> None:
    with serve(lambda _: Answer(body={"data": {"usage": 0, "is_management_key": True}})) as server:
        audiocli.variables["OPENROUTER_BASE_URL"] = server.url
        r = set_key(audiocli, "openrouter", "sk-or-manage")

    assert (r.code, get_keys_path(audiocli).exists()) == (4, False)
    assert "management key" in r.err


# --- other servers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "key", "code", "verified"),
    [
        (401, WRONG_KEY, "right", 0, True),
        (401, WRONG_KEY, "wrong", 4, None),
        (401, b"<html>Unauthorized</html>", "wrong", 4, None),
        # Google's servers.
        (400, {"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}, "right", 0, True),
        (400, {"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}, "wrong", 4, None),
        (403, {"detail": "Invalid API key"}, "wrong", 4, None),
        # A refusal that is not about the key.
        (403, {"error": {"message": "Country, region, or territory not supported"}}, "wrong", 0, False),
        # OpenAI, for a restricted key that may not list models.
        (401, MISSING_SCOPE, "x", 0, True),
        (403, MISSING_SCOPE, "x", 0, True),
        (402, {"error": {"message": "Insufficient credits"}}, "x", 0, True),
        # Servers without a model list are not called wrong.
        (404, {"detail": "Not Found"}, "x", 0, False),
        (405, b"", "x", 0, False),
        (501, b"", "x", 0, False),
        (302, b"", "x", 0, False),
        (204, b"", "x", 0, False),
        # The server does not look at keys, or is no such server at all.
        (200, MODELS, "x", 0, False),
        (200, b"<html>Welcome to the hotel</html>", "x", 0, False),
        (200, b"", "x", 0, False),
    ],
)
def test_configured_server_is_believed_only_if_it_refuses_invalid_keys(
    audiocli: CommandLine, status: int, body: Any, key: str, code: int, verified: bool | None
) -> None:
    with serve(refuse_other_keys(status, body)) as server:
        audiocli.write_config(f'[gateways.home]\nbase_url = "{server.url}"\nkey_env = "HOME_KEY"')
        stored = set_key(audiocli, "home", key, "--json")
        checked = audiocli("config", "check", "--json", variables={**NO_VARIABLES, "HOME_KEY": key})

    check = find_check(checked, "key home")
    assert stored.code == code, stored.err
    assert get_keys_path(audiocli).exists() == (code == 0)
    assert check["status"] == ("error" if code else "ok" if verified else "note"), check
    if not code:
        assert stored.json["verified"] is check["verified"] is verified
        assert bool(stored.json["warnings"]) is not verified


def test_key_of_a_server_that_needs_none_is_checked(audiocli: CommandLine) -> None:
    with serve(refuse_other_keys(401, WRONG_KEY)) as server:
        audiocli.write_config(f'[gateways.home]\nbase_url = "{server.url}"')
        before = audiocli("config", "check", "--json", variables=NO_VARIABLES)
        r = set_key(audiocli, "home", "right", "--json")
        after = audiocli("config", "check", "--json", variables=NO_VARIABLES)

    assert "key home" not in [check["check"] for check in before.json["checks"]]
    assert (r.json["verified"], find_check(after, "key home")["status"]) == (True, "ok")


def test_key_that_cannot_be_sent_is_refused(audiocli: CommandLine) -> None:
    r = set_key(audiocli, "openrouter", "sk-schlüssel")

    assert (r.code, get_keys_path(audiocli).exists(), r.requests) == (4, False, [])


def test_checks_store_no_key_outside_the_keys_file(audiocli: CommandLine, tmp_path: Path) -> None:
    set_key(audiocli, "openai", "sk-secret-0815", "--no-verify")
    audiocli("config", "check", variables=NO_VARIABLES)

    holders = [path for path in tmp_path.rglob("*") if path.is_file() and b"sk-secret-0815" in path.read_bytes()]
    assert holders == [get_keys_path(audiocli)]
