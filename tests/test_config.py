"""`config` and `keys`, through the front door."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from audiocli.config import _price
from audiocli.errors import UsageError
from tests.conftest import CommandLine
from tests.gateway import KEYS

README = Path(__file__).parent.parent / "README.md"


def keys_path(audiocli: CommandLine) -> Path:
    return Path(audiocli.variables["XDG_CONFIG_HOME"]) / "audiocli" / "keys.toml"


# --- config -----------------------------------------------------------------------------------------------------------


def test_every_setting_tells_where_it_comes_from(audiocli: CommandLine) -> None:
    audiocli.config('[speak]\nvoice = "coral"\n[gateways.openai]\nbase_url = "http://127.0.0.1:9/v1"')

    r = audiocli("config", "--json", variables={"OPENAI_BASE_URL": ""})

    found = {row["name"]: (row["value"], row["source"]) for row in r.json["settings"]}
    file = str(keys_path(audiocli).with_name("config.toml"))
    assert found["speak.voice"] == ("coral", file)
    assert found["speak.format"] == ("mp3", "built in")
    assert found["gateways.openai.base_url"] == ("http://127.0.0.1:9/v1", file)
    assert found["gateways.openrouter.base_url"][1] == "OPENROUTER_BASE_URL"
    assert found["gateways.openrouter.key"] == ("set", "OPENROUTER_API_KEY")
    assert KEYS["openrouter"] not in r.text


def test_the_environment_wins_over_the_file(audiocli: CommandLine) -> None:
    audiocli.config('[gateways.openai]\nbase_url = "http://127.0.0.1:9/v1"')

    rows = audiocli("config", "--json").json["settings"]

    assert {
        "name": "gateways.openai.base_url",
        "value": audiocli.gateway.base_url("openai"),
        "source": "OPENAI_BASE_URL",
    } in rows


def test_the_path_is_printed(audiocli: CommandLine) -> None:
    assert audiocli("config", "path").text == f"{keys_path(audiocli).with_name('config.toml')}\n"
    assert audiocli("config", "path", variables={"AUDIOCLI_CONFIG": "/x/y.toml"}).text == "/x/y.toml\n"


def test_the_readmes_configuration_holds(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.config(README.read_text("utf-8").split("```toml\n")[1].split("```")[0])

    audiocli("models")  # its caps want to know what things cost
    usual = audiocli("speak", "hi", "-o", tmp_path / "x")
    local = audiocli("speak", "hi", "-g", "local", "-o", tmp_path / "x.wav")
    kokoro = audiocli("speak", "hi", "-m", "openrouter:hexgrad/kokoro-82m", "-o", tmp_path / "x.mp3")
    offline = audiocli("speak", "hi", "-o", tmp_path / "x.mp3", variables={"OPENROUTER_API_KEY": ""})

    assert [r.code for r in (usual, local, kokoro, offline)] == [0, 0, 0, 0], local.err + kokoro.err + offline.err
    assert kokoro.requests[0].json["voice"] == "af_heart"


def test_a_configured_price_tells_the_cost(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.config(f"""
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
def test_a_price_is_per_unit(per: str, unit: str, count: int) -> None:
    price = _price("x", per, 15.0, Path("c"))

    assert (price.per, float(price.usd)) == (unit, pytest.approx(15 / count))


@pytest.mark.parametrize("per", ["", "words", "0 characters", "1G bytes", "characters per second"])
def test_an_unknown_unit_is_refused(per: str) -> None:
    with pytest.raises(UsageError, match="no unit"):
        _price("x", per, 1.0, Path("c"))


def test_a_check_of_what_is_well_ends_well(audiocli: CommandLine) -> None:
    player = Path(audiocli.variables["PATH"]) / "mpv"
    player.parent.mkdir(parents=True)
    player.write_text("#!/bin/sh\n")
    player.chmod(0o755)

    r = audiocli("config", "check", "--json")

    findings = [json.loads(line) for line in r.text.splitlines()]
    assert r.code == 0, r.text
    assert all(finding["ok"] for finding in findings)
    assert any(finding["what"].startswith("gateway openrouter") for finding in findings)


def test_a_check_names_what_is_wrong_with_its_mend(audiocli: CommandLine) -> None:
    r = audiocli("config", "check", variables={"OPENROUTER_API_KEY": ""})

    wrong = [line for line in r.text.splitlines() if line.startswith("wrong")]
    assert r.code == 3
    assert any("OPENROUTER_API_KEY" in line for line in wrong)
    assert any("player" in line and "install" in line for line in wrong)


def test_a_check_tells_a_gateway_that_cannot_be_reached(audiocli: CommandLine) -> None:
    r = audiocli("config", "check", variables={"OPENROUTER_BASE_URL": "http://127.0.0.1:9/v1"})

    assert r.code == 3
    assert any(line.startswith("wrong  gateway openrouter") for line in r.text.splitlines())


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_that_is_kept_is_used_and_never_shown(audiocli: CommandLine, tmp_path: Path) -> None:
    no_key = {"OPENROUTER_API_KEY": ""}

    kept = audiocli("keys", "set", "openrouter", stdin=b"sk-or-test\n", variables=no_key)
    listed = audiocli("keys", "list", variables=no_key)
    spoken = audiocli("speak", "hi", "-g", "openrouter", "-o", tmp_path / "x.mp3", "--debug", variables=no_key)

    assert (kept.code, listed.code, spoken.code) == (0, 0, 0), kept.err + spoken.err
    assert spoken.requests[0].headers["authorization"] == "Bearer sk-or-test"
    assert "sk-or-test" not in kept.err + listed.text + spoken.err
    assert ["openrouter", "the", "keys", "file"] in [line.split() for line in listed.text.splitlines()]
    assert stat.S_IMODE(keys_path(audiocli).stat().st_mode) == 0o600
    assert stat.S_IMODE(keys_path(audiocli).parent.stat().st_mode) == 0o700


def test_a_key_in_the_environment_wins(audiocli: CommandLine) -> None:
    audiocli("keys", "set", "openrouter", stdin=b"sk-or-other")

    rows = [json.loads(line) for line in audiocli("keys", "list", "--json").text.splitlines()]

    assert {"gateway": "openrouter", "source": "OPENROUTER_API_KEY"} in rows


def test_a_key_can_be_forgotten(audiocli: CommandLine) -> None:
    audiocli("keys", "set", "openrouter", stdin=b"sk-or-test")
    audiocli("keys", "set", "groq", stdin=b"gsk-test")

    forgotten = audiocli("keys", "remove", "openrouter")
    again = audiocli("keys", "remove", "openrouter")

    assert (forgotten.code, again.code) == (0, 2)
    assert "groq" in keys_path(audiocli).read_text()


def test_a_keys_file_that_others_can_read_is_refused_with_the_command_to_run(
    audiocli: CommandLine, tmp_path: Path
) -> None:
    audiocli("keys", "set", "openrouter", stdin=b"sk-or-test")
    keys_path(audiocli).chmod(0o644)

    r = audiocli("speak", "hi", "-o", tmp_path / "x.mp3", variables={"OPENROUTER_API_KEY": ""})

    assert (r.code, r.requests) == (4, [])
    assert f"chmod 600 {keys_path(audiocli)}" in r.err


@pytest.mark.parametrize("key", [b"", b"  \n", b"two words", b"sk-\x07bell", "sk-\u201cquoted\u201d two".encode()])
def test_what_is_no_key_is_not_kept(audiocli: CommandLine, key: bytes) -> None:
    r = audiocli("keys", "set", "openrouter", stdin=key)

    assert (r.code, keys_path(audiocli).exists()) == (2, False)


def test_a_broken_keys_file_is_not_quoted(audiocli: CommandLine) -> None:
    keys_path(audiocli).parent.mkdir(parents=True)
    keys_path(audiocli).write_text("openrouter = sk-or-secret")
    keys_path(audiocli).chmod(0o600)

    r = audiocli("keys", "list")

    assert r.code == 4
    assert "sk-or-secret" not in r.err


def test_an_unknown_gateway_has_no_key(audiocli: CommandLine) -> None:
    assert audiocli("keys", "set", "nowhere", stdin=b"x").code == 2
