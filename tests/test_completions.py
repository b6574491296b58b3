"""Completion: the files are those of the command tree, the program answers at once, and bash finds what it should."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from audiocli.completion import runtime
from audiocli.completion.__main__ import write
from audiocli.completion.command_tree import FILES, REGENERATE
from tests.conftest import CommandLine

CHECKOUT = Path(__file__).parent.parent
KEPT = [*(f"completions/{name}" for name in FILES.values()), "audiocli/completion/runtime.txt"]
MODELS = (
    ("speech", "openrouter:openai/gpt-4o-mini-tts", "alloy nova"),
    ("speech", "openrouter:hexgrad/kokoro-82m", "af_heart"),
    ("speech", "local:espeak", "en-us de"),
    ("transcription", "local:pocketsphinx", ""),
    ("transcription", "openai:whisper-1", ""),
    ("chat", "openai:gpt-4o-audio-preview", "alloy"),
)


class Shell:
    """A bash with the completion file in it, an `audiocli` in its PATH and a world of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "here"
        self.folder.mkdir()
        program = folder / "bin" / "audiocli"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m audiocli "$@"\n')
        program.chmod(0o755)
        self.variables = {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHONPATH": str(CHECKOUT),
            "LC_ALL": "C.UTF-8",
        }
        listed = folder / "cache" / "audiocli" / runtime.LIST_NAME
        listed.parent.mkdir(parents=True)
        listed.write_text("".join("\t".join(row) + "\n" for row in MODELS))

    def tab(self, line: str, *, breaks: str = "\"'><=;|&(: \t\n") -> list[str]:
        """What bash has to offer at the `^` of a line, or at its end: each as the whole word that it would become."""
        before, _, after = line.partition("^")
        point, word = len(before), before.split(" ")[-1].strip("\"'")
        # What bash hands over as the word is what follows its last break.
        text = word[max(word.rfind(mark) for mark in breaks) + 1 :]
        script = (
            f"source {shlex.quote(str(CHECKOUT / 'completions' / 'audiocli.bash'))}\n"
            f"COMP_LINE={shlex.quote(before + after)} COMP_POINT={point}\n"
            f"_audiocli audiocli {shlex.quote(text)} ''\n"
            'printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        done = subprocess.run(
            ["bash", "--norc", "-u", "-c", script],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.variables,
            timeout=60,
        )
        assert not [line for line in done.stderr.splitlines() if "compopt" not in line]
        return [word[: len(word) - len(text)] + name for name in done.stdout.splitlines() if name]

    def ask(self, *argv: str) -> list[str]:
        done = subprocess.run(["audiocli", "--complete", *argv], capture_output=True, env=self.variables, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode().splitlines()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


# --- the files -------------------------------------------------------------------------------------------------------


def test_the_kept_files_are_what_the_command_tree_makes(tmp_path: Path) -> None:
    write(tmp_path)

    stale = [name for name in KEPT if (tmp_path / name).read_text("utf-8") != (CHECKOUT / name).read_text("utf-8")]
    assert not stale, f"{', '.join(stale)}: made from an older command tree; run: {REGENERATE}"


@pytest.mark.parametrize("name", FILES)
def test_the_program_prints_the_file_that_the_wheel_installs(audiocli: CommandLine, name: str) -> None:
    done = audiocli("completion", name)

    assert (done.code, done.text) == (0, (CHECKOUT / "completions" / FILES[name]).read_text("utf-8"))


def test_an_unknown_shell_is_refused(audiocli: CommandLine) -> None:
    done = audiocli("completion", "tcsh")

    assert done.code == 2
    assert "one of bash, zsh, fish" in done.err


# --- the answers -----------------------------------------------------------------------------------------------------


def test_models_are_those_of_the_kind_that_the_command_works_with(shell: Shell) -> None:
    assert shell.ask("models:transcription", "", "transcribe", "-m") == ["local:pocketsphinx", "openai:whisper-1"]
    assert len(shell.ask("models", "")) == len(MODELS)


def test_models_come_without_their_gateway_where_the_line_names_it(shell: Shell) -> None:
    assert shell.ask("models:speech", "", "speak", "-g", "local", "-m") == ["espeak"]
    assert shell.ask("models:speech", "", "speak", "--gateway=local", "-m") == ["espeak"]
    assert shell.ask("models:speech", "local:", "speak", "-glocal", "-m") == ["local:espeak"]


def test_a_word_that_begins_no_reference_is_taken_for_a_model_of_any_gateway(shell: Shell) -> None:
    assert "hexgrad/kokoro-82m" in shell.ask("models:speech", "hex", "speak", "-m")


def test_voices_are_those_of_the_models_on_the_line(shell: Shell) -> None:
    assert shell.ask("voices", "", "speak", "-m", "local:espeak", "-v") == ["en-us", "de"]
    assert shell.ask("voices", "", "speak", "--model=hexgrad/kokoro-82m", "-mlocal:espeak") == [
        "af_heart",
        "en-us",
        "de",
    ]
    assert shell.ask("voices", "", "speak", "-v") == ["alloy", "nova", "af_heart", "en-us", "de"]


def test_before_the_first_list_the_usual_models_are_offered(shell: Shell, tmp_path: Path) -> None:
    shell.variables["XDG_CACHE_HOME"] = str(tmp_path / "empty")

    assert "local:espeak" in shell.ask("models:speech", "")


def test_a_damaged_list_and_odd_questions_say_nothing(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "cache" / "audiocli" / runtime.LIST_NAME).write_bytes(b"\xff\xfe\nspeech\n\n\t\t\t\tx")

    assert shell.ask() == shell.ask("nonsense", "x") == []
    assert "local:espeak" in shell.ask("models:speech", "")


def test_the_list_that_models_writes_is_the_list_that_is_read(audiocli: CommandLine) -> None:
    assert audiocli("models").code == 0

    listed = Path(runtime.list_path(audiocli.variables))
    assert listed.is_file()
    refs = [line.split("\t")[1] for line in listed.read_text("utf-8").splitlines()]
    assert runtime.answer(["models", ""], audiocli.variables).splitlines() == list(dict.fromkeys(refs))


@pytest.mark.parametrize(
    "changes",
    [
        {"XDG_CACHE_HOME": "/some/cache"},
        {"XDG_CACHE_HOME": ""},
        {},
        {"XDG_CACHE_HOME": "relative/cache"},
        {"HOME": ""},
        {"HOME": "relative"},
        {"HOME": None},
    ],
)
def test_the_list_is_looked_for_where_env_has_its_cache(changes: dict[str, str | None], tmp_path: Path) -> None:
    probe = (
        "import io, os\n"
        "from audiocli.completion.runtime import LIST_NAME, list_path\n"
        "from audiocli.context import AppContext\n"
        "nothing = io.BytesIO()\n"
        "env = AppContext(variables=os.environ, stdin=nothing, stdout=nothing, stderr=nothing)\n"
        "print(list_path(os.environ)); print(env.cache_folder / LIST_NAME)\n"
    )
    wanted = {"HOME": str(tmp_path), "PYTHONPATH": str(CHECKOUT), **changes}
    variables = {name: value for name, value in wanted.items() if value is not None}

    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=variables, timeout=60)

    found, right = done.stdout.splitlines()
    assert found == right


def test_the_usual_folders_are_those_of_each_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from platformdirs.macos import MacOS
    from platformdirs.unix import Unix

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    right = {
        name: platform("audiocli", appauthor=False).user_cache_dir
        for name, platform in {"linux": Unix, "darwin": MacOS}.items()
    }
    assert {name: str(tmp_path / below / "audiocli") for name, below in runtime.CACHES.items()} == right


@pytest.mark.parametrize("argv", [["models:speech", ""], ["voices", "", "-m", "local:espeak"]])
def test_an_answer_loads_next_to_nothing(shell: Shell, argv: list[str]) -> None:
    probe = (
        "import os, sys\n"
        "before = set(sys.modules)\n"
        f"sys.argv = ['audiocli', '--complete', *{argv!r}]\n"
        "from audiocli.__main__ import run\n"
        "run()\n"
        "sys.stderr.write(' '.join(sorted(set(sys.modules) - before)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-S", "-c", probe], capture_output=True, text=True, env=shell.variables, timeout=60
    )

    assert done.stdout
    assert set(done.stderr.split()) <= {
        "__future__",
        "audiocli",
        "audiocli.__main__",
        "audiocli.completion",
        "audiocli.completion.runtime",
    }


# --- bash ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "offered"),
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
    ],
)
def test_bash_offers_what_may_stand_there(shell: Shell, line: str, offered: list[str] | None) -> None:
    found = shell.tab(line)

    assert found == offered if offered is not None else "--language" in found


def test_bash_offers_whole_names_where_a_colon_breaks_no_word(shell: Shell) -> None:
    assert shell.tab("audiocli speak -m local:e", breaks=" \t\n") == ["local:espeak"]
    assert shell.tab("audiocli speak --model=local:e", breaks=" \t\n") == ["--model=local:espeak"]


def test_bash_offers_every_command_at_the_first_tab(shell: Shell) -> None:
    assert {"speak", "transcribe", "models", "voices", "usage", "completion"} <= set(shell.tab("audiocli "))


def test_the_file_of_a_shell_comes_as_json_too(audiocli: CommandLine) -> None:
    plain = audiocli("completion", "fish")
    r = audiocli("completion", "fish", "--json")

    assert (r.code, r.json["shell"], r.json["text"]) == (0, "fish", plain.text)
