"""The command `init`, and `completion SHELL --install`."""

from __future__ import annotations

import os
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from audiocli.mock import KEYS
from tests.conftest import CommandLine
from tests.programs import write_program
from tests.requirements import require_packages, require_program, require_weights
from tests.test_config_editing import run_in_terminal

BEGIN = "# >>> audiocli completion >>>"


def get_home(audiocli: CommandLine) -> Path:
    home = Path(audiocli.variables["HOME"])
    home.mkdir(parents=True, exist_ok=True)
    return home


def list_files(directory: Path) -> dict[str, bytes]:
    """Return the files below a directory, without the ledger and the phrase cache, which requests write."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and "ledger" not in path.name and path.parent.name != "phrases"
    }


def read_steps(document: dict[str, object]) -> dict[str, str]:
    steps = document["steps"]
    assert isinstance(steps, list)
    return {step["name"]: step["status"] for step in steps}


# --- init ------------------------------------------------------------------------------------------------------------


def test_init_stores_a_verified_key_and_changes_nothing_the_second_time(audiocli: CommandLine) -> None:
    home = get_home(audiocli)
    variables = {"OPENROUTER_API_KEY": "", "SHELL": "/usr/bin/fish"}
    argv = ("init", "--gateway", "openrouter", "--key-stdin", "--yes", "--json")
    key = KEYS["openrouter"].encode()

    first = audiocli(*argv, stdin=key + b"\n", variables=variables)
    files = list_files(home)
    second = audiocli(*argv, stdin=key, variables=variables)
    speech = audiocli("speak", "hi", "-o", audiocli.directory / "x.mp3", variables=variables)

    assert first.code == 0, first.err
    assert read_steps(first.json) == {
        "gateway": "done",
        "key": "done",
        "prices": "done",
        "voice": "skipped",
        "completion": "done",
    }
    keys_path = home / "config" / "audiocli" / "keys.toml"
    assert tomllib.loads(keys_path.read_text()) == {"openrouter": KEYS["openrouter"]}
    assert stat.S_IMODE(keys_path.stat().st_mode) == 0o600
    assert (home / "config" / "fish" / "completions" / "audiocli.fish").is_file()
    steps = read_steps(second.json)
    assert (second.code, steps["key"], steps["completion"]) == (0, "unchanged", "unchanged")
    assert list_files(home) == files
    assert speech.code == 0, speech.err
    assert KEYS["openrouter"] not in first.text + first.err


def test_init_refused_key_is_not_stored(audiocli: CommandLine) -> None:
    r = audiocli(
        "init", "-g", "openrouter", "--key-stdin", "-y", stdin=b"sk-wrong", variables={"OPENROUTER_API_KEY": ""}
    )

    assert r.code == 4
    assert "refused the key" in r.err
    assert not (get_home(audiocli) / "config" / "audiocli" / "keys.toml").exists()


def test_init_reports_a_refused_key_of_the_environment(audiocli: CommandLine) -> None:
    r = audiocli("init", "-g", "openrouter", "-y", variables={"OPENROUTER_API_KEY": "sk-wrong"})

    assert r.code == 4
    assert "OPENROUTER_API_KEY" in r.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_init_dry_run_names_every_file_and_writes_and_sends_nothing(audiocli: CommandLine, shell: str) -> None:
    home = get_home(audiocli)

    r = audiocli(
        *("init", "--gateway", "groq", "--voice", "autumn", "--dry-run", "--json"), variables={"SHELL": f"/bin/{shell}"}
    )

    assert r.code == 0, r.err
    assert list_files(home) == {}
    assert r.requests == []
    paths = {step["name"]: step["path"] for step in r.json["steps"] if step["status"] == "planned"}
    config = str(home / "config" / "audiocli" / "config.toml")
    assert paths["key"] == str(home / "config" / "audiocli" / "keys.toml")
    assert (paths["models"], paths["voice"]) == (config, config)
    assert paths["completion"]


def test_init_without_a_terminal_asks_nothing(audiocli: CommandLine) -> None:
    for stdin in (b"", b"y\n" * 20):
        r = audiocli("init", stdin=stdin)

        assert r.code == 2
        assert "--yes" in r.err
        assert list_files(get_home(audiocli)) == {}


def test_init_makes_the_chosen_gateway_the_default(audiocli: CommandLine) -> None:
    r = audiocli("init", "-g", "groq", "--key-stdin", "-y", "--no-completion", stdin=KEYS["groq"].encode())
    speech = audiocli("speak", "hi", "-o", audiocli.directory / "x.wav", "--json")

    assert r.code == 0, r.err
    assert (speech.code, speech.json["gateway"]) == (0, "groq"), speech.err
    assert audiocli("config", "get", "transcribe.models").text.startswith("groq:")


def test_init_local_needs_no_key_and_sends_nothing(audiocli: CommandLine) -> None:
    r = audiocli("init", "-g", "local", "-y", "--no-completion")

    assert r.code == 0, r.err
    assert r.requests == []
    assert audiocli("config", "get", "speak.models").text.startswith("local:")


def test_init_keeps_configured_models_and_voice(audiocli: CommandLine) -> None:
    text = '[speak]  # mine\nmodels = ["openrouter:x-ai/grok-voice-tts-1.0"]\nvoice = "eve"\n'
    audiocli.write_config(text + '[transcribe]\nmodels = ["local:whisper"]\n')

    r = audiocli("init", "-g", "groq", "--key-stdin", "-y", "--no-completion", "--json", stdin=KEYS["groq"].encode())

    steps = read_steps(r.json)
    assert (r.code, steps["models"], steps["voice"]) == (0, "unchanged", "unchanged")
    assert (get_home(audiocli) / "config" / "audiocli" / "config.toml").read_text().startswith(text)


def test_init_refuses_an_unknown_gateway_and_voice(audiocli: CommandLine) -> None:
    gateway = audiocli("init", "-g", "openruter", "-y")
    voice = audiocli("init", "-g", "openrouter", "-y", "-v", "evee", "--no-completion")

    assert (gateway.code, voice.code) == (2, 2)
    assert "did you mean 'eve'" in voice.err


@pytest.mark.parametrize(
    ("voice", "key"),
    [("de", "voices.local:espeak"), ("en_US+f3", "voices.local:espeak"), ("en_US-joe-medium", "voices.local:piper")],
)
def test_init_stores_a_local_voice_where_speak_reads_it(audiocli: CommandLine, voice: str, key: str) -> None:
    require_packages("espeakng_loader")
    if "piper" in key:
        require_packages("onnxruntime")
        require_weights(voice)

    dry_run = audiocli("init", "-g", "local", "-v", voice, "-n", "--no-completion")
    assert (dry_run.code, list_files(get_home(audiocli))) == (0, {}), dry_run.err
    assert f"would set {key} = {voice}" in dry_run.err

    r = audiocli("init", "-g", "local", "-v", voice, "-y", "--no-completion")
    speech = audiocli("speak", "hi", "-n")

    assert r.code == 0, r.err
    assert f"{key} = {voice}" in r.err
    assert f"route       {key.removeprefix('voices.')}, voice {voice}\n" in speech.text


@pytest.mark.parametrize("mode", ["--dry-run", "--yes"])
def test_init_refuses_an_unknown_local_voice(audiocli: CommandLine, mode: str) -> None:
    require_packages("espeakng_loader")

    r = audiocli("init", "-g", "local", "-v", "en-uk", mode, "--no-completion")

    assert r.code == 2
    assert "unknown voice 'en-uk'" in r.err


def test_init_without_a_key_says_that_the_gateway_cannot_be_used(audiocli: CommandLine) -> None:
    r = audiocli("init", "-g", "groq", "-y", "--no-completion", variables={"GROQ_API_KEY": ""})

    assert r.code == 0, r.err
    assert "gateway    chosen     groq" in r.err and "done" not in r.err.replace("prices     done", "")
    assert "hint: to use groq, run: audiocli keys set groq" in r.err and "try:" not in r.err


def test_init_says_that_a_stored_key_is_not_verified(audiocli: CommandLine) -> None:
    variables = {"OPENROUTER_API_KEY": "", "OPENROUTER_BASE_URL": "http://127.0.0.1:9/v1"}

    r = audiocli(
        *("init", "-g", "openrouter", "--key-stdin", "-y", "--no-completion"), stdin=b"sk-1", variables=variables
    )

    assert r.code == 0, r.err
    assert "key        done       stored, not verified: cannot connect to 127.0.0.1:9" in r.err


def test_init_asks_on_a_terminal(audiocli: CommandLine) -> None:
    home = get_home(audiocli)
    answers = b"\n".join([b"nonsuch", b"1", b"sk-wrong", KEYS["openrouter"].encode(), b"eve", b"y", b"n", b""])

    code, shown = run_in_terminal(
        audiocli,
        "init",
        answers=answers,
        variables={"OPENROUTER_API_KEY": "", "SHELL": "/usr/bin/fish", "PATH": str(home / "bin")},
    )

    assert code == 0, shown
    config = tomllib.loads((home / "config" / "audiocli" / "config.toml").read_text())
    keys = tomllib.loads((home / "config" / "audiocli" / "keys.toml").read_text())
    assert (config["speak"]["voice"], keys["openrouter"]) == ("eve", KEYS["openrouter"])
    assert "https://openrouter.ai/settings/keys" in shown
    assert str(home / "config" / "audiocli" / "keys.toml") in shown
    assert KEYS["openrouter"] not in shown and "sk-wrong" not in shown
    assert not (home / "config" / "fish").exists()


def test_init_names_the_price_of_a_sample_before_it_is_played(audiocli: CommandLine) -> None:
    home = get_home(audiocli)
    write_program(home / "bin" / "mpv", f'#!/bin/sh\n/bin/cat > "{home}/played"\n')
    answers = b"\n".join([b"eve", b"y", b"n", b"eve", b"n", b"y", b""])

    code, shown = run_in_terminal(
        audiocli, "init", "-g", "openrouter", "--no-completion", answers=answers, variables={"PATH": f"{home}/bin"}
    )

    assert code == 0, shown
    assert "Play a sample (price: " in shown and "$" in shown.partition("Play a sample (price: ")[2][:20]
    assert (home / "played").stat().st_size > 100
    assert [entry["command"] for entry in audiocli.read_ledger_entries()] == ["speak"]
    assert audiocli("config", "get", "speak.voice").text == "eve\n"


# --- completion --install --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shell", "path"),
    [
        ("bash", "data/bash-completion/completions/audiocli"),
        ("zsh", "data/zsh/site-functions/_audiocli"),
        ("fish", "config/fish/completions/audiocli.fish"),
    ],
)
def test_completion_install_writes_the_script_once(audiocli: CommandLine, shell: str, path: str) -> None:
    home = get_home(audiocli)

    first = audiocli("completion", shell, "--install", "--json")
    files = list_files(home)
    second = audiocli("completion", shell, "--install", "--json")

    assert (first.code, second.code) == (0, 0), first.err
    assert (home / path).read_text() == audiocli("completion", shell).text
    assert all(file["changed"] for file in first.json["files"])
    assert not any(file["changed"] for file in second.json["files"])
    assert list_files(home) == files


def test_completion_install_keeps_an_rc_file_with_backup_mode_owner_and_symlink(audiocli: CommandLine) -> None:
    home = get_home(audiocli)
    target = home / "dotfiles" / "zshrc"
    target.parent.mkdir()
    target.write_bytes(b"export A=1 # no line feed")
    target.chmod(0o644)
    if os.getuid() == 0:
        os.chown(target, 12345, 12346)
    before = target.stat()
    (home / ".zshrc").symlink_to(target)
    (home / ".zshrc.audiocli-backup").write_text("an older backup")

    r = audiocli("completion", "zsh", "--install", "--json")

    backup = Path(r.json["files"][1]["backup"])
    after = target.stat()
    assert (home / ".zshrc").is_symlink()
    assert target.read_text().startswith(f"export A=1 # no line feed\n{BEGIN}\n")
    assert backup.read_bytes() == b"export A=1 # no line feed"
    assert (home / ".zshrc.audiocli-backup").read_text() == "an older backup"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_completion_install_replaces_its_own_block_in_place(audiocli: CommandLine) -> None:
    home = get_home(audiocli)
    old = f"a=1\n{BEGIN}\nsource /old\n# <<< audiocli completion <<<\nb=2\n"
    (home / ".zshrc").write_text(old)

    r = audiocli("completion", "zsh", "--install")

    text = (home / ".zshrc").read_text()
    assert r.code == 0, r.err
    assert text.startswith("a=1\n") and text.endswith("b=2\n") and text.count(BEGIN) == 1 and "/old" not in text


def test_completion_install_leaves_files_of_others_unchanged(audiocli: CommandLine) -> None:
    path = get_home(audiocli) / "config" / "fish" / "completions" / "audiocli.fish"
    path.parent.mkdir(parents=True)
    path.write_text("# mine\n")
    (get_home(audiocli) / ".zshrc").mkdir()

    fish = audiocli("completion", "fish", "--install")
    zsh = audiocli("completion", "zsh", "--install")

    assert (fish.code, zsh.code) == (2, 2)
    assert path.read_text() == "# mine\n"
    assert not (get_home(audiocli) / "data" / "zsh").exists()


def test_completion_install_is_read_by_bash(audiocli: CommandLine) -> None:
    home = get_home(audiocli)
    assert audiocli("completion", "bash", "--install").code == 0

    script = home / "data" / "bash-completion" / "completions" / "audiocli"
    rc_path = home / ".bashrc"
    source = rc_path if rc_path.exists() else script
    result = subprocess.run(
        [require_program("bash"), "--norc", "-c", f"source '{source}' && complete -p audiocli"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        timeout=60,
    )

    assert "_audiocli" in result.stdout, result.stderr
