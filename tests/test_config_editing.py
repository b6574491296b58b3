"""The commands `config get`, `set`, `unset` and `edit`, and `[aliases]`."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from audiocli.mock import KEYS
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH
from tests.programs import write_program

CHECKOUT = Path(__file__).parent.parent
COMMENTED = """\
# Mine.
[speak]
voice = "eve"  # the best one

# Money.
[budget]
day = 5.0
"""


def get_config_path(audiocli: CommandLine) -> Path:
    return Path(audiocli.variables["XDG_CONFIG_HOME"]) / "audiocli" / "config.toml"


def read_config(audiocli: CommandLine) -> dict[str, object]:
    return tomllib.loads(get_config_path(audiocli).read_text("utf-8"))


# --- set, get and unset ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "values", "stored", "printed"),
    [
        ("speak.voice", ["nova"], "nova", "nova\n"),
        ("speak.voice", ["5"], "5", "5\n"),
        ("speak.voice", ['"quoted"'], "quoted", "quoted\n"),
        ("speak.models", ["openai:tts-1"], ["openai:tts-1"], "openai:tts-1\n"),
        ("speak.models", ["openai:tts-1", "local:espeak"], ["openai:tts-1", "local:espeak"], None),
        ("speak.models", ['["openai:tts-1"]'], ["openai:tts-1"], "openai:tts-1\n"),
        ("budget.day", ["2.5"], 2.5, "2.5\n"),
        ("budget.day", ["3"], 3, "3\n"),
        ("aliases.narrator", ["openai:tts-1"], "openai:tts-1", "openai:tts-1\n"),
        ("voices.openrouter:x-ai/grok-voice-tts-1.0", ["eve"], "eve", "eve\n"),
        ('voices."openrouter:x-ai/grok-voice-tts-1.0"', ["eve"], "eve", "eve\n"),
        ("gateways.home.base_url", ["http://127.0.0.1:1/v1"], "http://127.0.0.1:1/v1", None),
        ("prices.home:tts-1.0", ['{ per = "minute", usd = 1 }'], {"per": "minute", "usd": 1}, None),
    ],
)
def test_config_set_stores_a_value_that_get_prints_and_unset_removes(
    audiocli: CommandLine, key: str, values: list[str], stored: object, printed: str | None
) -> None:
    audiocli.write_config(COMMENTED)

    first = audiocli("config", "set", key, *values)
    again = audiocli("config", "set", key, *values, "--json")
    shown = audiocli("config", "get", key)
    shown_json = audiocli("config", "get", key, "--json")

    assert (first.code, again.code, shown.code) == (0, 0, 0), first.err + again.err + shown.err
    assert again.json["changed"] is False
    assert shown_json.json["value"] == stored
    assert printed is None or shown.text == printed
    text = get_config_path(audiocli).read_text("utf-8")
    assert "# Mine.\n" in text and "# the best one\n" in text and "# Money.\n" in text

    removed = audiocli("config", "unset", key)

    assert removed.code == 0, removed.err
    assert audiocli("config", "get", key, "--json").json["value"] is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["set", "speak.voise", "x"], "did you mean voice?"),
        (["get", "speak.voise"], "did you mean voice?"),
        (["unset", "speak.voise"], "did you mean voice?"),
        (["set", "spek.voice", "x"], "did you mean speak?"),
        (["get", "gateways.home.base_ur"], "did you mean base_url?"),
        (["set", "budget.day", "much"], "budget.day"),
        (["set", "aliases.openai", "x"], "is the name of a gateway"),
        (["set", "aliases.a:b", "x"], "must not be empty or contain ':'"),
        (["set", "aliases.a", ""], "must be a model reference"),
        (["set", "speak.voice.x", "y"], "not a table"),
        (["set", "speak..x", "y"], "is not a key"),
    ],
)
def test_config_refuses_unknown_keys_and_invalid_values(audiocli: CommandLine, argv: list[str], message: str) -> None:
    audiocli.write_config(COMMENTED)

    r = audiocli("config", *argv)

    assert r.code == 2
    assert message in r.err
    assert get_config_path(audiocli).read_text("utf-8") == COMMENTED


def test_config_unset_removes_a_key_that_makes_the_file_invalid(audiocli: CommandLine) -> None:
    audiocli.write_config("[speak]\nvoise = 1\n[budget]\nday = 'x'\n")

    assert audiocli("config", "unset", "speak.voise").code == 0
    assert audiocli("config", "unset", "budget.day").code == 0
    assert audiocli("config").code == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('[speak]\nvoice = "x"\n', ""),
        ('speak = { voice = "x" }\n', ""),
        ('speak.voice = "x"\n', ""),
        (
            '[chat]\nvoice = "y"\n\n[speak]\nvoice = "x"\n\n[budget]\nday = 3\n',
            '[chat]\nvoice = "y"\n\n[budget]\nday = 3\n',
        ),
        ('[speak]\nvoice = "x"\nformat = "mp3"\n', '[speak]\nformat = "mp3"\n'),
        ('[speak] # mine\nvoice = "x"\n', "[speak] # mine\n"),
        ('[speak]\nvoice = "x"\n\n# Dollars.\n[budget]\nday = 3\n', "[speak]\n\n# Dollars.\n[budget]\nday = 3\n"),
    ],
)
def test_config_unset_removes_an_empty_table_without_comments(audiocli: CommandLine, before: str, after: str) -> None:
    audiocli.write_config(before)

    assert audiocli("config", "unset", "speak.voice").code == 0
    assert get_config_path(audiocli).read_text("utf-8") == after


def test_config_unset_keeps_what_the_rest_of_the_file_needs(audiocli: CommandLine) -> None:
    audiocli.write_config('[gateways.home]\nbase_url = "http://127.0.0.1:1/v1"\nkey_env = "K"\n')

    r = audiocli("config", "unset", "gateways.home.base_url")

    assert r.code == 2
    assert "base_url is missing" in r.err
    assert read_config(audiocli)["gateways"] == {"home": {"base_url": "http://127.0.0.1:1/v1", "key_env": "K"}}


def test_config_set_keeps_mode_owner_symlink_and_line_ends(audiocli: CommandLine, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles.toml"
    target.write_bytes(b"\xef\xbb\xbf# Mine.\r\n[speak]\r\nformat = 'mp3'\r\n")
    target.chmod(0o640)
    if os.getuid() == 0:
        os.chown(target, 12345, 12346)
    before = target.stat()
    path = get_config_path(audiocli)
    path.parent.mkdir(parents=True)
    path.parent.chmod(0o755)
    path.symlink_to(target)

    assert audiocli("config", "set", "speak.format", "wav").code == 0

    after = target.stat()
    assert path.is_symlink()
    assert target.read_bytes().startswith(b"\xef\xbb\xbf# Mine.\r\n[speak]\r\nformat = ")
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert audiocli("config", "get", "speak.format").text == "wav\n"


def test_config_set_refuses_a_path_that_is_not_a_regular_file(audiocli: CommandLine, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    fifo.symlink_to(tmp_path)

    r = audiocli("config", "set", "speak.voice", "x", variables={"AUDIOCLI_CONFIG": str(fifo)})

    assert r.code == 2
    assert tmp_path.is_dir()


def test_config_set_does_not_print_the_key_of_a_gateway(audiocli: CommandLine) -> None:
    audiocli.write_config('[gateways.home]\nbase_url = "http://127.0.0.1:1/v1"\n')
    argv = ("config", "set", "gateways.home.headers.Authorization", "Bearer sk-secret")

    as_json, text = audiocli(*argv, "--json"), audiocli(*argv[:3], "Bearer sk-secret-2")

    assert (as_json.code, text.code) == (0, 0), text.err
    assert "sk-secret" not in as_json.text + as_json.err + text.text + text.err
    assert audiocli("config", "get", argv[2]).text == "Bearer sk-secret-2\n"


# --- aliases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["speak hi -n", "chat hi -n"])
def test_misspelt_alias_gets_a_suggestion(audiocli: CommandLine, command: str) -> None:
    audiocli.write_config('[aliases]\nfast = "openai:tts-1"\n')

    r = audiocli(*command.split(), "-m", "fsat")

    assert r.code == 2
    assert "no gateway is known to have the model fsat; did you mean 'fast'?" in r.err


def test_alias_stands_for_a_model_in_every_command(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.write_config(
        '[aliases]\nsay = "openrouter:x-ai/grok-voice-tts-1.0"\nwrite = "openrouter:openai/whisper-large-v3"\n'
        'talk = "openrouter:openai/gpt-audio"\n'
    )
    recording = tmp_path / "talk.wav"
    recording.write_bytes(SPEECH)

    speech = audiocli("speak", "hi", "-m", "say", "-o", tmp_path / "x.mp3", "--json")
    transcript = audiocli("transcribe", recording, "-m", "write", "--json")
    reply = audiocli("chat", "hi", "-m", "talk", "--json")
    voices = audiocli("voices", "-m", "say")

    assert [r.code for r in (speech, transcript, reply, voices)] == [0, 0, 0, 0], speech.err + reply.err + voices.err
    assert speech.json["model"] == "x-ai/grok-voice-tts-1.0"
    assert transcript.json["model"] == "openai/whisper-large-v3"
    assert reply.json["model"] == "openai/gpt-audio"


def test_alias_for_a_list_adds_fallback_models(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.write_config(
        '[aliases]\nany = ["openai:tts-1", "openrouter:x-ai/grok-voice-tts-1.0"]\n[speak]\nmodels = ["any"]\n'
    )

    configured = audiocli("speak", "hi", "-o", tmp_path / "a.mp3", "--json")
    narrowed = audiocli("speak", "hi", "-g", "openai", "-o", tmp_path / "b.mp3", "--json")

    assert (configured.code, configured.json["gateway"]) == (0, "openrouter")  # openai has no key
    assert narrowed.code == 4
    assert audiocli("config", "check", "--json").json["checks"][0]["status"] == "ok"


def test_alias_of_an_alias_is_refused(audiocli: CommandLine) -> None:
    audiocli.write_config('[aliases]\na = "b"\nb = ["a"]\n')

    r = audiocli("config")

    assert r.code == 2
    assert "is an alias" in r.err


# --- edit ------------------------------------------------------------------------------------------------------------


def run_in_terminal(
    audiocli: CommandLine, *argv: str, answers: bytes = b"", variables: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run a command line in a new terminal that has the answers already. Return its exit code and what it shows."""
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "audiocli", *argv],
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        start_new_session=True,
        cwd=audiocli.directory,
        env={
            **audiocli.variables,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(CHECKOUT),
            "TERM": "dumb",
            "COLUMNS": "1000",
            **(variables or {}),
        },
    )
    os.close(secondary)
    shown = b""
    pending = answers.splitlines(keepends=True)
    try:
        while True:
            block = os.read(primary, 4096)
            if not block:
                break
            shown += block
            # A prompt ends without a line feed. getpass discards what was typed before its prompt.
            if pending and shown.endswith((b"] ", b": ", b"model) ")):
                os.write(primary, pending.pop(0))
    except OSError:  # Linux: the other side is closed
        pass
    finally:
        os.close(primary)
    return process.wait(60), shown.decode()


def make_editor(directory: Path, *contents: str) -> str:
    """Return the command of an editor that writes one content after the other, and records its environment."""
    for index, content in enumerate(contents):
        (directory / f"content{index}").write_text(content)
    script = write_program(
        directory / "editor.sh",
        f'#!/bin/sh\nenv > "{directory}/environment"\nn=$(cat "{directory}/count" 2>/dev/null || echo 0)\n'
        f'cat "{directory}/content$n" > "$2"\necho $((n + 1)) > "{directory}/count"\n',
    )
    return f"{script} --wait"


def test_config_edit_replaces_the_file_by_a_valid_one_only(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.write_config(COMMENTED)
    good = COMMENTED + '[aliases]\nx = "openai:tts-1"\n'
    editor = make_editor(tmp_path, "[speak]\nvoise = 1\n", good)

    code, shown = run_in_terminal(audiocli, "config", "edit", answers=b"y\n", variables={"VISUAL": editor})

    assert code == 0, shown
    assert "did you mean voice?" in shown
    assert get_config_path(audiocli).read_text() == good
    assert KEYS["openrouter"] not in (tmp_path / "environment").read_text()


def test_config_edit_keeps_an_invalid_text_in_its_own_file(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.write_config(COMMENTED)
    editor = make_editor(tmp_path, "[speak\n")

    code, shown = run_in_terminal(audiocli, "config", "edit", answers=b"n\n", variables={"EDITOR": editor})

    assert code == 2, shown
    assert get_config_path(audiocli).read_text() == COMMENTED
    edited_path = shown.rpartition("the edited text is in ")[2].strip()
    assert Path(edited_path.replace("\r\n", "")).read_text() == "[speak\n"


@pytest.mark.parametrize("editor", ["false", "/nonexistent/editor", "'unbalanced"])
def test_config_edit_reports_an_editor_that_fails(audiocli: CommandLine, editor: str) -> None:
    audiocli.write_config(COMMENTED)

    code, shown = run_in_terminal(audiocli, "config", "edit", variables={"EDITOR": editor})

    assert code == 2, shown
    assert "editor" in shown
    assert get_config_path(audiocli).read_text() == COMMENTED


def test_config_edit_needs_a_terminal(audiocli: CommandLine) -> None:
    r = audiocli("config", "edit", variables={"EDITOR": "true"})

    assert r.code == 2
    assert "config set" in r.err
