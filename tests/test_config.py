"""The commands `config` and `keys`."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from audiocli.config import _parse_price
from audiocli.errors import UsageError
from audiocli.mock import KEYS
from tests.conftest import CommandLine
from tests.programs import write_program

CONFIGURATION = Path(__file__).parent.parent / "docs" / "configuration.md"


def get_keys_path(audiocli: CommandLine) -> Path:
    return Path(audiocli.variables["XDG_CONFIG_HOME"]) / "audiocli" / "keys.toml"


# --- config ----------------------------------------------------------------------------------------------------------


def test_every_setting_shows_its_source(audiocli: CommandLine) -> None:
    audiocli.write_config('[speak]\nvoice = "coral"\n[gateways.openai]\nbase_url = "http://127.0.0.1:9/v1"')

    r = audiocli("config", "--json", variables={"OPENAI_BASE_URL": ""})

    settings = {row["name"]: (row["value"], row["source"]) for row in r.json["settings"]}
    file = str(get_keys_path(audiocli).with_name("config.toml"))
    assert settings["speak.voice"] == ("coral", file)
    assert settings["speak.format"] == ("mp3", "built in")
    assert settings["gateways.openai.base_url"] == ("http://127.0.0.1:9/v1", file)
    assert settings["gateways.openrouter.base_url"][1] == "OPENROUTER_BASE_URL"
    assert settings["gateways.openrouter.key"] == ("set", "OPENROUTER_API_KEY")
    assert KEYS["openrouter"] not in r.text


def test_environment_overrides_the_file(audiocli: CommandLine) -> None:
    audiocli.write_config('[gateways.openai]\nbase_url = "http://127.0.0.1:9/v1"')

    rows = audiocli("config", "--json").json["settings"]

    assert {
        "name": "gateways.openai.base_url",
        "value": audiocli.gateway.base_url("openai"),
        "source": "OPENAI_BASE_URL",
    } in rows


def test_voices_and_pronunciations_of_the_file_are_shown(audiocli: CommandLine) -> None:
    audiocli.write_config(
        '[speak]\ncache = false\ncache_mb = 7\n[cast]\nAlice = "nova"\n'
        '[pronunciations]\nSQL = "sequel"\n[pronunciations.de]\nChef = "Scheff"\n'
    )

    values = {row["name"]: row["value"] for row in audiocli("config", "--json").json["settings"]}

    expected = {
        "speak.cache": "false",
        "speak.cache_mb": "7",
        "cast.Alice": "nova",
        "pronunciations.SQL": "sequel",
        "pronunciations.de.Chef": "Scheff",
    }
    assert values.items() >= expected.items()


@pytest.mark.parametrize(
    ("rules", "status", "detail"),
    [
        ('SQL = "sequel"\n[pronunciations.de]\nChef = "Scheff"\n', "ok", "2 rules"),
        ('"/(/" = "x"\n', "error", "/(/"),
        ("SQL = 1\n", "error", "SQL"),
    ],
)
def test_config_check_checks_pronunciations(audiocli: CommandLine, rules: str, status: str, detail: str) -> None:
    audiocli.write_config(f"[pronunciations]\n{rules}")

    r = audiocli("config", "check", "--json")

    (check,) = [check for check in r.json["checks"] if check["check"] == "pronunciations"]
    assert check["status"] == status
    assert status == "ok" or r.code == 3
    assert detail in check["detail"]


def test_config_path_is_printed(audiocli: CommandLine) -> None:
    assert audiocli("config", "path").text == f"{get_keys_path(audiocli).with_name('config.toml')}\n"
    assert audiocli("config", "path", variables={"AUDIOCLI_CONFIG": "/x/y.toml"}).text == "/x/y.toml\n"


def test_configuration_example_of_documentation_is_valid(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.write_config(CONFIGURATION.read_text("utf-8").split("```toml\n")[1].split("```")[0])

    audiocli("models")  # the spending limits of the example need prices
    default_route = audiocli("speak", "hi", "-o", tmp_path / "x")
    local = audiocli("speak", "hi", "-g", "local", "-o", tmp_path / "x.wav")
    kokoro = audiocli("speak", "hi", "-m", "openrouter:hexgrad/kokoro-82m", "-o", tmp_path / "x.mp3")
    offline = audiocli("speak", "hi", "-o", tmp_path / "x.mp3", variables={"OPENROUTER_API_KEY": ""})

    assert [r.code for r in (default_route, local, kokoro, offline)] == [0, 0, 0, 0], (
        local.err + kokoro.err + offline.err
    )
    assert kokoro.requests[0].json["voice"] == "af_heart"


def test_configured_price_gives_the_cost(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.write_config(f"""
        [gateways.home]
        base_url = "{audiocli.gateway.base_url("plain")}"
        [prices]
        "home:tts" = {{ per = "1M characters", usd = 15.0 }}
    """)

    r = audiocli("speak", "hello", "-m", "home:tts", "-o", tmp_path / "x.mp3", "--json")

    assert (r.json["cost_usd"], r.json["cost_source"]) == (7.5e-05, "computed")


@pytest.mark.parametrize(
    ("per", "unit", "count"),
    [
        ("1M characters", "character", 10**6),
        ("bytes", "byte", 1),
        ("1k tokens", "token", 1000),
        ("minute", "minute", 1),
    ],
)
def test_price_is_per_unit(per: str, unit: str, count: int) -> None:
    price = _parse_price("x", per, 15.0, Path("c"))

    assert (price.unit, float(price.usd)) == (unit, pytest.approx(15 / count))


@pytest.mark.parametrize("per", ["", "words", "0 characters", "1G bytes", "characters per second"])
def test_unknown_unit_is_refused(per: str) -> None:
    with pytest.raises(UsageError, match="unknown unit"):
        _parse_price("x", per, 1.0, Path("c"))


def test_config_check_without_findings_succeeds(audiocli: CommandLine) -> None:
    write_program(Path(audiocli.variables["PATH"]) / "mpv", "#!/bin/sh\n")

    r = audiocli("config", "check", "--json")

    checks = r.json["checks"]
    assert r.code == 0, r.text
    assert list(r.json)[:3] == ["schema", "ok", "command"]
    assert (r.json["schema"], r.json["ok"], r.json["command"]) == (1, True, "config check")
    assert {(check["status"], check["fix"]) for check in checks} == {("ok", None)}
    assert {"key openrouter", "gateway openrouter", "ledger"} <= {check["check"] for check in checks}


@pytest.mark.parametrize("argv", [["config"], ["config", "path"], ["usage"], ["usage", "verify"], ["budget"]])
def test_top_json_object_starts_with_schema_version(audiocli: CommandLine, argv: list[str]) -> None:
    assert next(iter(audiocli(*argv, "--json").json.items())) == ("schema", 1)


def test_error_object_starts_with_schema_version(audiocli: CommandLine) -> None:
    assert next(iter(audiocli("keys", "remove", "openai", "--json").err_json.items())) == ("schema", 1)


@pytest.mark.parametrize("argv", [["keys", "list"], ["models"], ["voices"]])
def test_lines_of_lists_have_no_schema_version(audiocli: CommandLine, argv: list[str]) -> None:
    rows = [json.loads(line) for line in audiocli(*argv, "--json").text.splitlines()]

    assert rows
    assert not any("schema" in row or "ok" in row for row in rows)


def test_config_check_without_any_key_is_a_note(audiocli: CommandLine) -> None:
    write_program(Path(audiocli.variables["PATH"]) / "mpv", "#!/bin/sh\n")
    no_key = {"OPENROUTER_API_KEY": ""}

    r = audiocli("config", "check", "--json", variables=no_key)
    text = audiocli("config", "check", variables=no_key).text

    notes = [check for check in r.json["checks"] if check["status"] != "ok"]
    assert (r.code, r.json["ok"]) == (0, True), r.text
    assert {(note["check"], note["status"]) for note in notes} >= {("key openrouter", "note"), ("key openai", "note")}
    assert all(note["status"] == "note" and note["fix"] for note in notes)
    assert "note     key openrouter: not set; set OPENROUTER_API_KEY" in text


def test_config_check_shows_each_problem_with_its_fix(audiocli: CommandLine) -> None:
    r = audiocli("config", "check", variables={"OPENROUTER_API_KEY": ""})

    lines = r.text.splitlines()
    assert r.code == 3
    assert any(line.startswith("note ") and "OPENROUTER_API_KEY" in line for line in lines)
    assert any(line.startswith("warning  player: ") and "install" in line for line in lines)


def test_config_check_reports_unreachable_gateway(audiocli: CommandLine) -> None:
    r = audiocli("config", "check", variables={"OPENROUTER_BASE_URL": "http://127.0.0.1:9/v1"})

    assert r.code == 3
    assert any(line.startswith("error    gateway openrouter") for line in r.text.splitlines())


# --- keys ------------------------------------------------------------------------------------------------------------


def test_stored_key_is_used_and_never_shown(audiocli: CommandLine, tmp_path: Path) -> None:
    no_key = {"OPENROUTER_API_KEY": ""}

    stored = audiocli("keys", "set", "openrouter", stdin=b"sk-or-test\n", variables=no_key)
    listed = audiocli("keys", "list", variables=no_key)
    speech = audiocli("speak", "hi", "-g", "openrouter", "-o", tmp_path / "x.mp3", "--debug", variables=no_key)

    assert (stored.code, listed.code, speech.code) == (0, 0, 0), stored.err + speech.err
    assert speech.requests[0].headers["authorization"] == "Bearer sk-or-test"
    assert "sk-or-test" not in stored.err + listed.text + speech.err
    assert ["openrouter", "the", "keys", "file"] in [line.split() for line in listed.text.splitlines()]
    assert stat.S_IMODE(get_keys_path(audiocli).stat().st_mode) == 0o600
    assert stat.S_IMODE(get_keys_path(audiocli).parent.stat().st_mode) == 0o700


def test_key_in_environment_overrides_stored_key(audiocli: CommandLine) -> None:
    audiocli("keys", "set", "openrouter", "--no-verify", stdin=b"sk-or-other")

    rows = [json.loads(line) for line in audiocli("keys", "list", "--json").text.splitlines()]

    assert {"gateway": "openrouter", "source": "OPENROUTER_API_KEY"} in rows


def test_key_can_be_removed(audiocli: CommandLine) -> None:
    audiocli("keys", "set", "openrouter", stdin=b"sk-or-test")
    audiocli("keys", "set", "groq", stdin=b"gsk-test")

    removed = audiocli("keys", "remove", "openrouter")
    removed_again = audiocli("keys", "remove", "openrouter")

    assert (removed.code, removed_again.code) == (0, 2)
    assert "groq" in get_keys_path(audiocli).read_text()


def test_keys_file_readable_by_others_is_refused_with_a_fix(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli("keys", "set", "openrouter", stdin=b"sk-or-test")
    get_keys_path(audiocli).chmod(0o644)

    r = audiocli("speak", "hi", "-o", tmp_path / "x.mp3", variables={"OPENROUTER_API_KEY": ""})

    assert (r.code, r.requests) == (4, [])
    assert f"chmod 600 {get_keys_path(audiocli)}" in r.err


@pytest.mark.parametrize("key", [b"", b"  \n", b"two words", b"sk-\x07bell", "sk-\u201cquoted\u201d two".encode()])
def test_invalid_key_is_not_stored(audiocli: CommandLine, key: bytes) -> None:
    r = audiocli("keys", "set", "openrouter", stdin=key)

    assert (r.code, get_keys_path(audiocli).exists()) == (2, False)


def test_content_of_invalid_keys_file_is_not_shown(audiocli: CommandLine) -> None:
    get_keys_path(audiocli).parent.mkdir(parents=True)
    get_keys_path(audiocli).write_text("openrouter = sk-or-secret")
    get_keys_path(audiocli).chmod(0o600)

    r = audiocli("keys", "list")

    assert r.code == 4
    assert "sk-or-secret" not in r.err


def test_key_of_unknown_gateway_is_refused(audiocli: CommandLine) -> None:
    assert audiocli("keys", "set", "nowhere", stdin=b"x").code == 2
