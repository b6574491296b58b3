"""Secrets: passwords in URLs, keys in child processes and responses, keys without encryption, and `Bearer` prefixes."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiocli.credentials import remove_bearer
from audiocli.errors import UsageError
from audiocli.http.url import parse_url
from audiocli.mock import KEYS, Status
from audiocli.processes import build_child_environment
from audiocli.redaction import hide_credentials
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH
from tests.programs import write_program
from tests.requirements import require_packages

PASSWORD = "pa55-Word"


def add_password(url: str) -> str:
    return url.replace("://", f"://user:{PASSWORD}@")


@pytest.fixture
def password_cli(audiocli: CommandLine) -> CommandLine:
    """A command line whose base URLs have a password."""
    audiocli.variables["THEROUTER_API_KEY"] = KEYS["therouter"]
    for name, value in audiocli.variables.items():
        if name.endswith("_BASE_URL"):
            audiocli.variables[name] = add_password(value)
    (audiocli.directory / "talk.wav").write_bytes(SPEECH)
    return audiocli


@pytest.mark.parametrize(
    "arguments",
    [
        ["config"],
        ["config", "check"],
        ["models"],
        ["voices"],
        ["speak", "hi", "-o", "{path}/x.mp3"],
        ["speak", "hi", "-o", "{path}/x.mp3", "--dry-run"],
        ["speak", "hi", "-g", "therouter", "--background", "-o", "{path}/x.mp3"],
        ["transcribe", "{path}/talk.wav"],
        ["chat", "hi"],
        ["speak", "hi", "-o", "{path}/x.mp3", "--base-url", f"http://user:{PASSWORD}@[::1/v1"],
        ["speak", "hi", "-o", "{path}/x.mp3", "--base-url", f"http://user:{PASSWORD}@host:99999/v1"],
        ["speak", "hi", "-o", "{path}/x.mp3", "--base-url", f"http://user:{PASSWORD}/x@host/v1"],
        ["speak", "hi", "-o", "{path}/x.mp3", "--base-url", f"ftp://user:{PASSWORD}@host/v1"],
        ["speak", "hi", "-o", "{path}/x.mp3", "--base-url", f"user:{PASSWORD}@host/v1"],
        ["speak", "hi", "-o", "{path}/x.mp3", "--base-url", f"http://user:{PASSWORD}@127.0.0.1:9/v1"],
        ["models", "--base-url", f"http://127.0.0.1:9/v1?key={PASSWORD}"],
        ["jobs"],
        ["usage", "export"],
    ],
    ids=lambda arguments: " ".join(arguments).replace(PASSWORD, "…").replace("{path}/", ""),
)
@pytest.mark.parametrize("fault", [None, Status(401)], ids=["ok", "refused"])
def test_password_of_base_url_is_not_shown_or_stored(
    password_cli: CommandLine, tmp_path: Path, arguments: list[str], fault: Status | None
) -> None:
    if fault is not None:
        password_cli.gateway.add_default_fault(fault)
        password_cli.gateway.add_default_fault(fault, method="GET")

    for options in (["--json"], ["--debug"]):
        r = password_cli(*password_cli.expand(arguments), *options)

        assert PASSWORD not in r.text + r.err
        assert r.code != 1
    for path in (tmp_path / "world").rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path


def test_job_is_polled_with_the_configured_password(password_cli: CommandLine, tmp_path: Path) -> None:
    password_cli.gateway.queue_faults(Status(202, body={"id": "aud_01", "status": "queued"}))
    submitted = password_cli("speak", "hi", "-g", "therouter", "--background", "-o", tmp_path / "x.mp3")
    assert submitted.code == 0, submitted.err
    password_cli.gateway.queue_faults(Status(200, body={"id": "aud_01", "status": "running"}), method="GET")

    r = password_cli("jobs", "show", "aud_01")

    [poll] = [request for request in r.requests if request.method == "GET"]
    assert r.code == 0 and poll.headers["authorization"].startswith("Basic ")
    stored = sqlite3.connect(password_cli.ledger_path)
    [(details,)] = stored.execute("SELECT details FROM jobs")
    stored.close()
    assert json.loads(details)["base_url"] == password_cli.gateway.base_url("therouter")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/v1", "https://host/v1"),
        ("https://user@host:8443/v1", "https://***@host:8443/v1"),
        ("https://u:p@host/v1?api-version=1&key=2#x", "https://***@host/v1?api-version=***&key=***#x"),
        ("https://u:p/q@host/v1", "https://***@host/v1"),
        ("https://u:p#q@host/v1", "https://***@host/v1"),
        ("u:p@host/v1", "***@host/v1"),
        ("http://[::1]:80/@me", "http://[::1]:80/@me"),
    ],
)
def test_credentials_are_hidden_in_urls(url: str, shown: str) -> None:
    assert hide_credentials(url) == shown


@given(st.text(st.characters(), max_size=6))
def test_password_with_any_characters_is_hidden(password: str) -> None:
    for url in (f"http://user:S3cr3t{password}S3cr3t@127.0.0.1:x/v1", f"https://S3cr3t{password}S3cr3t@host/v1"):
        assert "S3cr3t" not in hide_credentials(url) and "S3cr3t" not in hide_credentials(hide_credentials(url))
        try:
            parse_url(url)
        except UsageError as error:
            assert "S3cr3t" not in error.message and error.__cause__ is None


# --- child processes -------------------------------------------------------------------------------------------------

SECRET = "s3cret-value-1"
SECRET_VARIABLES = {
    "OPENAI_API_KEY": SECRET,
    "GROQ_API_KEY": SECRET,
    "ANTHROPIC_API_KEY": SECRET,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": SECRET,
    "HF_TOKEN": SECRET,
    "DB_PASSWORD": SECRET,
    "MY_ODD_NAME": SECRET,
    "COPY_OF_MY_ODD_NAME": f"Bearer {SECRET}",
    "GROQ_BASE_URL": f"http://user:{SECRET}@127.0.0.1:9",
}
CONFIG = '[gateways.mine]\nbase_url = "http://127.0.0.1:9/v1"\nkey_env = "MY_ODD_NAME"\n'


def read_environment(path: Path) -> dict[str, str]:
    lines = path.read_bytes().split(b"\0")
    return dict(line.decode().partition("=")[::2] for line in lines if line)


def test_player_inherits_no_key(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.write_config(CONFIG)
    program = Path(audiocli.variables["PATH"]) / "mpv"
    write_program(program, f"#!/bin/sh\n/bin/cat /proc/$$/environ > {tmp_path}/environment\n/bin/cat > /dev/null\n")

    r = audiocli("speak", "hi", "--play", variables={**SECRET_VARIABLES, "PULSE_SERVER": "unix:/run/pulse"})

    assert r.code == 0, r.err
    environment = read_environment(tmp_path / "environment")
    assert environment["PULSE_SERVER"] == "unix:/run/pulse" and environment["HOME"] == audiocli.variables["HOME"]
    assert not set(environment) & set(SECRET_VARIABLES) and "OPENROUTER_API_KEY" not in environment
    assert SECRET not in str(environment) and KEYS["openrouter"] not in str(environment)


def test_only_secrets_are_removed_from_the_environment() -> None:
    variables = {
        "PATH": "/bin",
        "TOKENIZERS": "1",
        "KEYBOARD": "us",
        "XAUTHORITY": "/x",
        "DBUS_SESSION_BUS_ADDRESS": "u",
    }

    environment = build_child_environment(
        {**variables, **SECRET_VARIABLES}, key_variables={"MY_ODD_NAME", "GROQ_BASE_URL"}, keys=[SECRET]
    )

    assert environment == variables


def test_short_key_removes_no_other_variable() -> None:
    variables = {"PATH": "/bin", "LANG": "C"}

    assert build_child_environment(variables, key_variables=(), keys=["C", "/bin"]) == variables


def test_engine_inherits_no_key(audiocli: CommandLine, tmp_path: Path) -> None:
    require_packages("pocketsphinx")
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    # The recognizer is a Python process, which loads this module if the environment names its directory.
    (tmp_path / "sitecustomize.py").write_text(
        f"open({str(tmp_path / 'environment')!r}, 'wb').write(open('/proc/self/environ', 'rb').read())\n"
    )

    r = audiocli(
        *("transcribe", "-m", "local:pocketsphinx", tmp_path / "talk.wav"),
        variables={**SECRET_VARIABLES, "PYTHONPATH": str(tmp_path)},
    )

    assert r.code in (0, 9), r.err
    environment = read_environment(tmp_path / "environment")
    assert environment["PYTHONPATH"] == str(tmp_path)
    assert not set(environment) & {*SECRET_VARIABLES, "OPENROUTER_API_KEY"} - {"MY_ODD_NAME", "COPY_OF_MY_ODD_NAME"}
    assert KEYS["openrouter"] not in str(environment)


# --- secrets that a gateway repeats ----------------------------------------------------------------------------------

ECHOED_KEY = "open-sesame-4712"


def configure_server(cli: CommandLine, *, key: str, headers: str = "{}") -> None:
    """Configure the mock of OpenAI as a server with a key of its own."""
    cli.write_config(
        f"[gateways.home]\nbase_url = {json.dumps(cli.gateway.url + '/openai/v1')}\n"
        f'key_env = "HOME_KEY"\nheaders = {headers}\n'
    )
    cli.variables["HOME_KEY"] = key


@pytest.mark.parametrize("key", ["n", "no", "un"])
def test_short_key_is_not_replaced_inside_words(audiocli: CommandLine, tmp_path: Path, key: str) -> None:
    configure_server(audiocli, key=key)
    message = "unknown language: no such one"
    audiocli.gateway.add_default_fault(
        Status(400, body={"error": {"message": message}}, headers={"x-request-id": "n1"})
    )

    r = audiocli("speak", "hi", "-m", "home:tts-1", "-v", "alloy", "-o", tmp_path / "x.mp3")

    assert message in r.err
    assert [entry["request_id"] for entry in r.ledger] == ["n1"]


def test_secret_header_that_a_response_repeats_as_its_id_is_not_stored(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.variables["HOME_TOKEN"] = ECHOED_KEY
    configure_server(audiocli, key="k" * 20, headers='{ X-Token = "${HOME_TOKEN}" }')
    audiocli.gateway.add_default_fault(Status(204, body=b"", headers={"x-request-id": ECHOED_KEY}))

    r = audiocli("speak", "hi", "-m", "home:tts-1", "-v", "alloy", "-o", tmp_path / "x.mp3", "--debug")

    assert r.requests[0].headers["x-token"] == ECHOED_KEY
    assert [entry["request_id"] for entry in r.ledger] == [None]
    assert ECHOED_KEY not in r.err


@pytest.mark.parametrize("arguments", [["wait", "aud_01"], ["show", "aud_01"], ["fetch", "aud_01"]], ids=" ".join)
def test_key_that_a_poll_repeats_is_not_shown(audiocli: CommandLine, arguments: list[str]) -> None:
    audiocli.variables["THEROUTER_API_KEY"] = KEYS["therouter"] or ""
    assert audiocli("speak", "hi", "--background").code == 0
    audiocli.variables["THEROUTER_API_KEY"] = ECHOED_KEY
    body = {"error": {"message": f"Incorrect API key provided: {ECHOED_KEY}."}}
    audiocli.gateway.add_default_fault(Status(400, body=body, headers={"x-request-id": ECHOED_KEY}), method="GET")

    r = audiocli("jobs", *arguments, "--debug")

    assert r.requests
    assert ECHOED_KEY not in r.err + r.text


def test_key_that_a_cost_lookup_repeats_is_not_shown(audiocli: CommandLine, tmp_path: Path) -> None:
    key = audiocli.variables["OPENROUTER_API_KEY"]
    audiocli.gateway.add_default_fault(
        Status(401, body={"error": {"message": f"Incorrect API key provided: {key}."}}), method="GET"
    )

    r = audiocli(
        *("speak", "One fish. " * 40, "--max-chars", "100", "-o", tmp_path / "x.mp3", "--debug"),
        *("-m", "openrouter:hexgrad/kokoro-82m"),
    )

    assert r.code == 0, r.err
    assert [request for request in r.requests if request.method == "GET"]
    assert key not in r.err


# --- keys without encryption -----------------------------------------------------------------------------------------

WARNING = "the API key is sent to api.example.com without encryption; use https://"


@pytest.mark.parametrize(
    "arguments",
    [
        ["speak", "hi", "-o", "{path}/x.mp3"],
        ["transcribe", "{path}/talk.wav"],
        ["chat", "hi"],
        ["models", "-g", "openai"],
        ["config", "check"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_key_without_encryption_is_warned_about_before_it_is_sent(
    audiocli: CommandLine, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    # The proxy refuses every request, so nothing leaves this machine.
    variables = {
        "OPENROUTER_API_KEY": "",
        "OPENAI_API_KEY": KEYS["openai"],
        "OPENAI_BASE_URL": "http://api.example.com/v1",
        "http_proxy": audiocli.gateway.base_url("openai").partition("/openai")[0],
    }

    r = audiocli(*audiocli.expand(arguments), variables=variables)

    shown = r.err + r.text
    assert r.code != 0 and r.requests
    assert shown.count(WARNING) == 1, shown


def test_warning_about_encryption_is_in_the_plan(audiocli: CommandLine, tmp_path: Path) -> None:
    variables = {"OPENAI_API_KEY": KEYS["openai"], "OPENAI_BASE_URL": "http://api.example.com/v1"}

    r = audiocli("speak", "hi", "-g", "openai", "-o", tmp_path / "x.mp3", "-n", "--json", variables=variables)

    assert WARNING in r.json["warnings"] and not r.requests


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/v1",
        "http://localhost:9/v1",
        "http://[::1]:9/v1",
        "http://10.1.2.3/v1",
        "http://server.lan/v1",
        "http://speaches/v1",
        "https://api.example.com/v1",
    ],
)
def test_private_and_encrypted_hosts_need_no_warning(audiocli: CommandLine, tmp_path: Path, url: str) -> None:
    variables = {"OPENAI_API_KEY": KEYS["openai"], "OPENAI_BASE_URL": url}

    r = audiocli("speak", "hi", "-g", "openai", "-o", tmp_path / "x.mp3", "-n", "--json", variables=variables)

    assert not any("without encryption" in warning for warning in r.json["warnings"])


# --- Bearer ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "cleaned"),
    [
        ("Bearer sk-1", ("sk-1", True)),
        ("bearer   sk-1", ("sk-1", True)),
        ("BEARER\tsk-1", ("sk-1", True)),
        ("sk-1", ("sk-1", False)),
        ("Bearer", ("Bearer", False)),
        ("bearer-token-1", ("bearer-token-1", False)),
    ],
)
def test_bearer_prefix_is_removed(key: str, cleaned: tuple[str, bool]) -> None:
    assert remove_bearer(key) == cleaned


def test_bearer_prefix_of_variable_is_not_sent(audiocli: CommandLine, tmp_path: Path) -> None:
    variables = {"OPENROUTER_API_KEY": f"Bearer {KEYS['openrouter']}"}

    r = audiocli("speak", "hi", "-o", tmp_path / "x.mp3", variables=variables)
    checked = audiocli("config", "check", variables=variables)

    assert r.code == 0, r.err
    assert r.posts[0].headers["authorization"] == f"Bearer {KEYS['openrouter']}"
    assert "OPENROUTER_API_KEY begins with 'Bearer'; it is used without this prefix" in r.err
    assert "note     key openrouter: " in checked.text


def test_bearer_prefix_is_not_stored(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.variables.pop("OPENROUTER_API_KEY")

    stored = audiocli("keys", "set", "openrouter", stdin=f"Bearer {KEYS['openrouter']}\n".encode())
    r = audiocli("speak", "hi", "-g", "openrouter", "-o", tmp_path / "x.mp3")

    assert "note: the prefix 'Bearer' is not part of the key and was removed" in stored.err
    assert r.code == 0 and r.posts[0].headers["authorization"] == f"Bearer {KEYS['openrouter']}"
    assert "Bearer" not in r.err


def test_bearer_prefix_in_keys_file_is_not_sent(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.variables.pop("OPENROUTER_API_KEY")
    path = Path(audiocli.variables["XDG_CONFIG_HOME"]) / "audiocli" / "keys.toml"
    path.parent.mkdir(parents=True)
    path.write_text(f'openrouter = "Bearer {KEYS["openrouter"]}"\nmine = "Bearer {KEYS["openai"]}"\n')
    path.chmod(0o600)
    audiocli.write_config(f'[gateways.mine]\nbase_url = "{audiocli.gateway.base_url("openai")}"\n')

    r = audiocli("speak", "hi", "-g", "openrouter", "-o", tmp_path / "x.mp3")
    custom = audiocli("speak", "hi", "-m", "mine:tts-1", "-o", tmp_path / "y.mp3")

    assert r.code == 0 and r.posts[0].headers["authorization"] == f"Bearer {KEYS['openrouter']}"
    assert custom.code == 0 and custom.posts[0].headers["authorization"] == f"Bearer {KEYS['openai']}"
    assert "in the keys file begins with 'Bearer'" in r.err and "in the keys file begins with 'Bearer'" in custom.err
