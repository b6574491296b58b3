"""Shell completion: generated files, model and voice queries, and completion in bash."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from audiocli.cli.completion import build_tree
from audiocli.completion import runtime
from audiocli.completion.__main__ import write
from audiocli.completion.command_tree import COMPLETION_FILES, REGENERATE_COMMAND
from tests.conftest import CommandLine
from tests.programs import write_program
from tests.requirements import require_program

CHECKOUT = Path(__file__).parent.parent
CHECKED_IN_FILES = [
    *(f"completions/{name}" for name in COMPLETION_FILES.values()),
    "audiocli/completion/runtime.txt",
    *sorted(f"man/{path.name}" for path in (CHECKOUT / "man").glob("*.1")),
]
MODELS = (
    ("speech", "openrouter:openai/gpt-4o-mini-tts", "alloy nova"),
    ("speech", "openrouter:hexgrad/kokoro-82m", "af_heart"),
    ("speech", "local:espeak", "en-us de"),
    ("transcription", "local:pocketsphinx", ""),
    ("transcription", "openai:whisper-1", ""),
    ("chat", "openai:gpt-4o-audio-preview", "alloy"),
)


class Shell:
    """A bash with the completion file, an `audiocli` in its PATH and its own directories."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "work"
        self.directory.mkdir()
        program = directory / "bin" / "audiocli"
        write_program(program, f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m audiocli "$@"\n')
        self.variables = {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "HOME": str(directory),
            "XDG_CACHE_HOME": str(directory / "cache"),
            "PYTHONPATH": str(CHECKOUT),
            "LC_ALL": "C.UTF-8",
        }
        model_list = directory / "cache" / "audiocli" / runtime.LIST_NAME
        model_list.parent.mkdir(parents=True)
        model_list.write_text("".join("\t".join(row) + "\n" for row in MODELS))

    def complete_line(self, line: str, *, word_breaks: str = "\"'><=;|&(: \t\n") -> list[str]:
        """Return the completions that bash offers at the `^` of a line, or at its end, each as a whole word."""
        before, _, after = line.partition("^")
        point, word = len(before), before.split(" ")[-1].strip("\"'")
        # Bash passes the part of the word after its last word break.
        text = word[max(word.rfind(mark) for mark in word_breaks) + 1 :]
        script = (
            f"source {shlex.quote(str(CHECKOUT / 'completions' / 'audiocli.bash'))}\n"
            f"COMP_LINE={shlex.quote(before + after)} COMP_POINT={point}\n"
            f"_audiocli audiocli {shlex.quote(text)} ''\n"
            'printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        result = subprocess.run(
            [require_program("bash"), "--norc", "-u", "-c", script],
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=self.variables,
            timeout=60,
        )
        assert not [line for line in result.stderr.splitlines() if "compopt" not in line]
        return [word[: len(word) - len(text)] + name for name in result.stdout.splitlines() if name]

    def query(self, *argv: str) -> list[str]:
        result = subprocess.run(["audiocli", "--complete", *argv], capture_output=True, env=self.variables, timeout=60)
        assert (result.returncode, result.stderr) == (0, b"")
        return result.stdout.decode().splitlines()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


# --- files -----------------------------------------------------------------------------------------------------------


def test_checked_in_files_match_the_command_tree(tmp_path: Path) -> None:
    write(tmp_path)

    stale = [
        name
        for name in CHECKED_IN_FILES
        if (tmp_path / name).read_text("utf-8") != (CHECKOUT / name).read_text("utf-8")
    ]
    assert not stale, f"{', '.join(stale)}: generated from an older command tree; run: {REGENERATE_COMMAND}"


@pytest.mark.parametrize("name", COMPLETION_FILES)
def test_completion_command_prints_the_installed_file(audiocli: CommandLine, name: str) -> None:
    result = audiocli("completion", name)

    assert (result.code, result.text) == (0, (CHECKOUT / "completions" / COMPLETION_FILES[name]).read_text("utf-8"))


def test_unknown_shell_is_refused(audiocli: CommandLine) -> None:
    result = audiocli("completion", "tcsh")

    assert result.code == 2
    assert "one of bash, zsh, fish" in result.err


def test_no_completion_offers_the_name_of_a_value() -> None:
    tree = build_tree()
    values = [flag.values for command in tree.walk() for flag in command.flags]
    values += [argument.values for command in tree.walk() for argument in command.arguments]

    names = {name for value in values if value is not None for name in value.names}
    assert {name for name in names if name.isupper()} == set()


# --- queries ---------------------------------------------------------------------------------------------------------


def test_models_match_the_kind_of_the_command(shell: Shell) -> None:
    assert shell.query("models:transcription", "", "transcribe", "-m") == ["local:pocketsphinx", "openai:whisper-1"]
    assert len(shell.query("models", "")) == len(MODELS)


def test_models_omit_the_gateway_that_the_line_names(shell: Shell) -> None:
    assert shell.query("models:speech", "", "speak", "-g", "local", "-m") == ["espeak"]
    assert shell.query("models:speech", "", "speak", "--gateway=local", "-m") == ["espeak"]
    assert shell.query("models:speech", "local:", "speak", "-glocal", "-m") == ["local:espeak"]


def test_prefix_without_gateway_matches_models_of_any_gateway(shell: Shell) -> None:
    assert "hexgrad/kokoro-82m" in shell.query("models:speech", "hex", "speak", "-m")


def test_voices_belong_to_the_models_on_the_line(shell: Shell) -> None:
    assert shell.query("voices", "", "speak", "-m", "local:espeak", "-v") == ["en-us", "de"]
    assert shell.query("voices", "", "speak", "--model=hexgrad/kokoro-82m", "-mlocal:espeak") == [
        "af_heart",
        "en-us",
        "de",
    ]
    assert shell.query("voices", "", "speak", "-v") == ["alloy", "nova", "af_heart", "en-us", "de"]


def write_config(shell: Shell, text: str) -> None:
    path = Path(shell.variables["HOME"]) / ".config" / "audiocli" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    shell.variables.pop("XDG_CONFIG_HOME", None)


def test_aliases_are_offered_for_the_kind_of_their_models(shell: Shell) -> None:
    write_config(
        shell, '[aliases]\nread = "local:espeak"\nwrite = ["openai:whisper-1", "local:new"]\nother = "local:new"\n'
    )

    assert shell.query("models:speech", "", "speak", "-m")[:2] == ["read", "other"]
    assert shell.query("models:transcription", "", "transcribe", "-m")[:2] == ["write", "other"]
    assert "read" not in shell.query("models:speech", "", "speak", "-g", "openai", "-m")
    assert shell.query("voices", "", "speak", "-m", "read", "-v") == ["en-us", "de"]
    assert shell.complete_line("audiocli speak -m re") == ["read"]


@pytest.mark.parametrize("text", ["[aliases\n", "aliases = 3\n", "[speak]\n", '[aliases]\n"\\u0007" = 1\n'])
def test_config_file_without_usable_aliases_gives_the_models(shell: Shell, text: str) -> None:
    models = shell.query("models", "")
    write_config(shell, text)

    assert shell.query("models", "") == models


def test_default_models_are_offered_without_a_list(shell: Shell, tmp_path: Path) -> None:
    shell.variables["XDG_CACHE_HOME"] = str(tmp_path / "empty")

    assert "local:espeak" in shell.query("models:speech", "")


def test_damaged_list_and_unknown_queries_give_no_output(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "cache" / "audiocli" / runtime.LIST_NAME).write_bytes(b"\xff\xfe\nspeech\n\n\t\t\t\tx")

    assert shell.query() == shell.query("unknown", "x") == []
    assert "local:espeak" in shell.query("models:speech", "")


def test_models_command_writes_the_list_that_completion_reads(audiocli: CommandLine) -> None:
    assert audiocli("models").code == 0

    model_list = Path(runtime.find_list(audiocli.variables))
    assert model_list.is_file()
    refs = [line.split("\t")[1] for line in model_list.read_text("utf-8").splitlines()]
    assert runtime.complete(["models", ""], audiocli.variables).splitlines() == list(dict.fromkeys(refs))


@pytest.mark.parametrize(
    "changes",
    [
        {"XDG_CACHE_HOME": "/some/cache"},
        {"XDG_CACHE_HOME": ""},
        {},
        {"XDG_CACHE_HOME": "relative/cache"},
        {"XDG_CONFIG_HOME": "/some/config"},
        {"XDG_CONFIG_HOME": "relative/config"},
        {"AUDIOCLI_CONFIG": "other.toml"},
        {"HOME": ""},
        {"HOME": "relative"},
        {"HOME": None},
    ],
)
def test_files_are_in_the_directories_of_the_application(changes: dict[str, str | None], tmp_path: Path) -> None:
    script = (
        "import io, os\n"
        "from audiocli.completion.runtime import LIST_NAME, find_config, find_list\n"
        "from audiocli.context import AppContext\n"
        "nothing = io.BytesIO()\n"
        "env = AppContext(variables=os.environ, stdin=nothing, stdout=nothing, stderr=nothing)\n"
        "print(find_list(os.environ)); print(env.cache_directory / LIST_NAME)\n"
        "print(find_config(os.environ)); print(env.config_path)\n"
    )
    all_variables = {"HOME": str(tmp_path), "PYTHONPATH": str(CHECKOUT), **changes}
    variables = {name: value for name, value in all_variables.items() if value is not None}

    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=variables, timeout=60)

    completions, expected_list, config, expected_config = result.stdout.splitlines()
    assert (completions, config) == (expected_list, expected_config)


def test_default_directories_match_platformdirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from platformdirs.macos import MacOS
    from platformdirs.unix import Unix

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)

    for name, platform in {"linux": Unix, "darwin": MacOS}.items():
        directories = platform("audiocli", appauthor=False)
        assert str(tmp_path / runtime.CACHE_DIRECTORIES[name] / "audiocli") == directories.user_cache_dir
        assert str(tmp_path / runtime.CONFIG_DIRECTORIES[name] / "audiocli") == directories.user_config_dir


@pytest.mark.parametrize("argv", [["models:speech", ""], ["voices", "", "-m", "local:espeak"]])
def test_completion_loads_almost_no_modules(shell: Shell, argv: list[str]) -> None:
    script = (
        "import os, sys\n"
        "before = set(sys.modules)\n"
        f"sys.argv = ['audiocli', '--complete', *{argv!r}]\n"
        "from audiocli.__main__ import run\n"
        "run()\n"
        "sys.stderr.write(' '.join(sorted(set(sys.modules) - before)))\n"
    )

    result = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, env=shell.variables, timeout=60
    )

    assert result.stdout
    assert set(result.stderr.split()) <= {
        "__future__",
        "audiocli",
        "audiocli.__main__",
        "audiocli.completion",
        "audiocli.completion.runtime",
    }


# --- bash ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("audiocli sp", ["speak"]),
        ("audiocli speak --max-co", ["--max-cost"]),
        ("audiocli usage l", ["list"]),
        ("audiocli usage --by day l", ["list"]),
        ("audiocli usage list --unt", ["--until"]),
        ("audiocli speak -f o", ["opus", "ogg"]),
        ("audiocli speak --format=fl", ["--format=flac"]),
        ("audiocli transcribe -f txt,s", ["txt,srt"]),
        ("audiocli transcribe --timestamps w", ["word"]),
        ("audiocli models --kind t", ["transcription"]),
        ("audiocli usage --by day,we", ["day,week"]),
        ("audiocli speak -g gr", ["groq"]),
        ("audiocli speak -m openrouter:", ["openrouter:openai/gpt-4o-mini-tts", "openrouter:hexgrad/kokoro-82m"]),
        ("audiocli speak -m local:e", ["local:espeak"]),
        ("audiocli speak --model=local:e", ["--model=local:espeak"]),
        ("audiocli speak -m openai/", ["openai/gpt-4o-mini-tts"]),
        ('audiocli speak "it\'s" -qm loc', ["local:espeak"]),
        ('audiocli speak \'a \\\' b\\ c "d \\" e" -m loc', ["local:espeak"]),
        ("audiocli speak -v ^ -m local:espeak", ["en-us", "de"]),
        ("audiocli speak -m loc^ hello there", ["local:espeak"]),
        ("audiocli transcribe x --", None),
        ("audiocli speak -- --max-co", []),
        ("audiocli speak speak ", []),
        ("audiocli --tag x sp", []),
        ("audiocli speak --timeout ", []),
        ("audiocli speak -o fi", []),
        ("audiocli completion ", ["bash", "zsh", "fish"]),
        ("audiocli help s", ["speak"]),
        ("audiocli help m", ["models", "money", "mock"]),
        ("audiocli help usage li", ["list"]),
        ("audiocli help speak ", []),
        ("audiocli help money ", []),
        ("audiocli help --js", ["--json"]),
        ("audiocli config set spe", [f"speak.{name}" for name in ("models", "voice", "format", "cache", "cache_mb")]),
        ("audiocli config get budget.d", ["budget.day"]),
        ("audiocli config unset cluster.sch", ["cluster.scheduler"]),
        ("audiocli config set speak.voice ", []),
        ("audiocli mock --key ", []),
        ("audiocli transcribe --channel ", ["mix", "split"]),
        ("audiocli transcribe --track ", []),
    ],
)
def test_bash_completes_words(shell: Shell, line: str, expected: list[str] | None) -> None:
    completions = shell.complete_line(line)

    assert completions == expected if expected is not None else "--language" in completions


def test_bash_completes_whole_references_without_colon_word_break(shell: Shell) -> None:
    assert shell.complete_line("audiocli speak -m local:e", word_breaks=" \t\n") == ["local:espeak"]
    assert shell.complete_line("audiocli speak --model=local:e", word_breaks=" \t\n") == ["--model=local:espeak"]


def test_bash_completes_every_command(shell: Shell) -> None:
    assert {"speak", "transcribe", "models", "voices", "usage", "completion"} <= set(shell.complete_line("audiocli "))


def test_completion_file_is_available_as_json(audiocli: CommandLine) -> None:
    text_output = audiocli("completion", "fish")
    r = audiocli("completion", "fish", "--json")

    assert (r.code, r.json["shell"], r.json["text"]) == (0, "fish", text_output.text)
