"""The environment as input: clock, time zone, limits, streams and interrupts end with a message, never as a bug."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from audiocli.mock import KEYS
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH

CHECKOUT = Path(__file__).parent.parent
COMMANDS = [
    ["speak", "hi", "-o", "{path}/x.mp3"],
    ["transcribe", "{path}/talk.wav"],
    ["chat", "hi"],
    ["models", "-g", "openrouter", "--refresh"],
    ["usage"],
    ["usage", "list"],
    ["jobs"],
    ["budget"],
    ["config", "check"],
]
EXIT_CODES = (0, 2, 3, 5, 7)


def run_process(
    cli: CommandLine,
    arguments: list[str],
    *,
    launcher: list[str] | None = None,
    variables: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    (cli.directory / "talk.wav").write_bytes(SPEECH)
    return subprocess.run(
        [
            *(launcher or []),
            *(sys.executable, "-m", "audiocli"),
            *(argument.replace("{path}", str(cli.directory)) for argument in arguments),
        ],
        env={**cli.variables, **(variables or {})},
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def require_message(completed: subprocess.CompletedProcess[str]) -> None:
    assert completed.returncode in EXIT_CODES, completed.stderr
    assert "Traceback" not in completed.stderr and "internal error" not in completed.stderr


def require_program(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        reason = f"{name} is not installed: apt-get install {name}"
        if os.environ.get("AUDIOCLI_TEST_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return program


@pytest.mark.parametrize("arguments", COMMANDS[::2], ids=" ".join)
def test_invalid_time_zone_is_not_a_bug(audiocli: CommandLine, arguments: list[str]) -> None:
    completed = run_process(audiocli, arguments, variables={"TZ": "UTC+99"})

    require_message(completed)
    if completed.returncode:
        assert "TZ=UTC+99" in completed.stderr + completed.stdout


@pytest.mark.parametrize("arguments", COMMANDS[::2], ids=" ".join)
def test_clock_in_the_year_9000_is_not_a_bug(audiocli: CommandLine, arguments: list[str]) -> None:
    launcher = [require_program("faketime"), "-f", "@9000-01-01 00:00:00"]

    completed = run_process(audiocli, arguments, launcher=launcher)

    require_message(completed)
    if completed.returncode == 2:
        assert "the clock of this computer is out of range" in completed.stderr


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_ledger_path_that_is_too_long_is_not_a_bug(audiocli: CommandLine, arguments: list[str]) -> None:
    (audiocli.directory / "talk.wav").write_bytes(SPEECH)
    path = audiocli.directory / ("a" * 300)

    r = audiocli(
        *(argument.replace("{path}", str(audiocli.directory)) for argument in arguments),
        variables={"AUDIOCLI_LEDGER": str(path)},
    )

    assert r.code in (0, 3, 5)
    if arguments[0] in ("speak", "transcribe", "chat", "usage", "jobs"):
        assert r.code == 5 and "File name too long" in r.err and not r.posts


@pytest.mark.parametrize("limit", [6, 8, 10])
@pytest.mark.parametrize("arguments", [COMMANDS[0], COMMANDS[3], COMMANDS[8]], ids=" ".join)
def test_limit_of_open_files_is_not_a_bug(audiocli: CommandLine, arguments: list[str], limit: int) -> None:
    launcher = [require_program("prlimit"), f"--nofile={limit}:{limit}"]

    completed = run_process(audiocli, arguments, launcher=launcher)

    assert completed.returncode in (*EXIT_CODES, 8, 10), completed.stderr
    assert "Traceback" not in completed.stderr and "internal error" not in completed.stderr
    if audiocli.ledger_path.exists() and not audiocli.gateway.posts:
        database = sqlite3.connect(audiocli.ledger_path)
        has_entries = database.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'entries'").fetchone()[0]
        rows = database.execute("SELECT outcome FROM entries").fetchall() if has_entries else []
        database.close()
        assert set(rows) <= {("unsent",)}, completed.stderr


# --- interrupts ------------------------------------------------------------------------------------------------------

# Sends SIGINT when the N-th module is looked up, which is a point in time that does not depend on the machine.
INTERRUPT_AT_IMPORT = """
import importlib.machinery, os, signal, sys
from audiocli.__main__ import run

class Finder:
    count = 0
    def find_spec(self, name, path=None, target=None):
        Finder.count += 1
        if Finder.count == int(os.environ["AT"]):
            os.kill(os.getpid(), signal.Signals[os.environ["SIGNAL"]])

sys.meta_path.insert(0, Finder())
run()
"""
# Sends SIGINT from outside of an import, at the first line of a function.
INTERRUPT_AT_CALL = """
import os, signal, sys
from audiocli.__main__ import run

def trace(frame, event, argument):
    if frame.f_code.co_name == os.environ["AT"] and "audiocli" in frame.f_code.co_filename:
        sys.setprofile(None)
        os.kill(os.getpid(), signal.Signals[os.environ["SIGNAL"]])

sys.setprofile(trace)
run()
"""


def interrupt(cli: CommandLine, program: str, at: str, signal_name: str = "SIGINT") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, "speak", "hi", "-o", str(cli.directory / "x.mp3")],
        env={**cli.variables, "AT": at, "SIGNAL": signal_name},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("at", [1, 3, 8, 30, 100])
def test_interrupt_during_an_import_is_not_a_traceback(audiocli: CommandLine, at: int) -> None:
    completed = interrupt(audiocli, INTERRUPT_AT_IMPORT, str(at))

    assert (completed.returncode, completed.stderr) == (130, "")


@pytest.mark.parametrize("at", ["_run", "main", "from_process", "load", "close"])
@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_interrupt_between_imports_is_not_a_traceback(audiocli: CommandLine, at: str, signal_name: str) -> None:
    completed = interrupt(audiocli, INTERRUPT_AT_CALL, at, signal_name)

    assert completed.returncode == 130 and "Traceback" not in completed.stderr


def test_ignored_interrupt_stays_ignored(audiocli: CommandLine) -> None:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for `command &`
    try:
        completed = interrupt(audiocli, INTERRUPT_AT_IMPORT, "5")
    finally:
        signal.signal(signal.SIGINT, previous)

    assert completed.returncode == 0, completed.stderr


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["speak", "hi", "-o", "-"], 10),
        (["transcribe", "{path}/talk.wav"], 10),
        (["chat", "hi"], 10),
        (["chat", "hi", "--no-stream"], 10),
        (["usage"], 10),
        (["config", "--json"], 10),
        (["speak", "hi", "--no-play"], 2),
        (["speak", "hi", "-o", "{path}/x.mp3"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
@pytest.mark.parametrize("redirection", [">&-", "<&- >&-"])
def test_closed_stdout_is_an_error_before_anything_is_sent(
    audiocli: CommandLine, arguments: list[str], code: int, redirection: str
) -> None:
    completed = run_process(audiocli, arguments, launcher=["/bin/sh", "-c", f'exec "$@" {redirection}', "sh"])

    assert completed.returncode == code, completed.stderr
    assert not completed.stderr or "Traceback" not in completed.stderr
    if code:
        assert (not audiocli.gateway.posts and "stdout" in completed.stderr) or code == 2


def test_closed_stderr_does_not_change_the_result(audiocli: CommandLine) -> None:
    launcher = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh"]

    completed = run_process(audiocli, ["speak", "hi", "-o", "{path}/x.mp3"], launcher=launcher)

    assert completed.returncode == 0 and KEYS["openrouter"] not in completed.stdout
    assert (audiocli.directory / "x.mp3").stat().st_size > 0
