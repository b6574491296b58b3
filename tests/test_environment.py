"""The environment as input: clock, time zone, limits, streams and interrupts end with a message, never as a bug."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from audiocli.console import escape_controls
from audiocli.mock import KEYS
from audiocli.system_limits import MIN_ADDRESS_SPACE_BYTES
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH
from tests.requirements import needs_dev_full, require_packages, require_program

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
            *cli.expand(arguments),
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


# A zone that libc does not know is UTC.
@pytest.mark.parametrize("zone", ["Garbage/Zone", "A" * 5000], ids=ascii)
def test_unknown_time_zone_is_accepted(audiocli: CommandLine, zone: str) -> None:
    completed = run_process(audiocli, ["usage", "--by", "day"], variables={"TZ": zone})

    assert completed.returncode == 0, completed.stderr


def test_clock_that_steps_back_is_accepted(audiocli: CommandLine) -> None:
    """Entries, cached lists and limits of the future are no error, and entries still count."""
    faketime = require_program("faketime")
    audiocli.write_config("[budget]\nday = 5\n")
    for clock in ("@2150-01-01 00:00:00", "@2027-03-01 00:00:00", "@1970-01-01 00:00:30"):
        for arguments in (["speak", f"It is {clock}.", "-o", "{path}/x.mp3"], ["usage"]):
            completed = run_process(audiocli, arguments, launcher=[faketime, "-f", clock])

            assert completed.returncode == 0, (clock, completed.stderr)
    assert [entry["outcome"] for entry in audiocli.read_ledger_entries()] == ["ok"] * 3


# --- proxies and certificates ----------------------------------------------------------------------------------------

CLOSED = "127.0.0.1:9"
# Values of proxy variables that prevent a connection, with the exit code.
PROXIES = {
    "socks4": (f"socks4://{CLOSED}", 2),
    "socks": (f"socks://{CLOSED}", 2),
    "ftp": (f"ftp://{CLOSED}", 2),
    "open bracket": ("http://[::1", 2),
    "not an address": ("http://[zz]:1", 2),
    "large port": ("http://127.0.0.1:99999", 2),
    "port 0": ("http://127.0.0.1:0", 2),
    "negative port": ("http://127.0.0.1:-1", 2),
    "no host": ("http://", 2),
    "port only": (":8080", 2),
    "blank": ("http://a b:1", 2),
    "not ASCII": ("http://prößy:1", 2),
    "control character": ("http://a\x01b:1", 2),
    "line break": (f"http://{CLOSED}\r\nX-Header: y", 2),
    "not UTF-8": ("http://a\udcffb:1", 2),
    "quotes": (f'"http://{CLOSED}"', 2),
    "100,000 characters": (f"http://{'u' * 100_000}:p@{CLOSED}", 2),
    "refused": (f"http://{CLOSED}", 7),
    "refused over TLS": (f"https://{CLOSED}", 7),
    "refused SOCKS": (f"socks5h://{CLOSED}", 7),
    "IPv6": ("http://[::1]:9", 7),
    "scope": ("http://[fe80::1%25nowhere]:9", 7),
    "host without a scheme": (CLOSED, 7),
    "path": (f"http://{CLOSED}/path?query#fragment", 7),
    "user": (f"http://us%C3%A9r:p%zz@ss@{CLOSED}", 7),
    "long host": (f"http://{'a' * 300}:1", 7),
    "long label": (f"http://{'a' * 70}.invalid:1", 7),
    "empty label": ("http://a..invalid:1", 7),
}


@pytest.mark.parametrize("name", PROXIES)
def test_proxy_that_prevents_a_connection_is_named(audiocli: CommandLine, name: str) -> None:
    value, code = PROXIES[name]
    variable = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")[list(PROXIES).index(name) % 4]

    r = audiocli("speak", "hi", "-o", audiocli.directory / "x.mp3", variables={variable: value})

    assert (r.code, r.posts) == (code, []), r.err
    assert variable in r.err
    assert {entry["outcome"] for entry in r.ledger} == {"unsent"}


@pytest.mark.parametrize(
    "excluded",
    ["*", "127.0.0.1", "fe80::1%eth0/64,127.0.0.1/0", f"x,{'y,' * 10_000}127.0.0.1", "[::1],fd00::/8,127.0.0.0/8"],
    ids=lambda value: value[:30],
)
def test_excluded_host_is_reached_without_the_proxy(audiocli: CommandLine, excluded: str) -> None:
    variables = {"http_proxy": f"http://{CLOSED}", "no_proxy": excluded}

    r = audiocli("speak", "hi", "-o", audiocli.directory / "x.mp3", variables=variables)

    assert r.code == 0, r.err


@pytest.mark.parametrize(
    "excluded", ["/", ":", "*.", "[", "]", "%", "\udcff", "127.0.0.1:99999999999999999999", "127.0.0.1:²", "::1/129"]
)
def test_invalid_exclusion_is_ignored(audiocli: CommandLine, excluded: str) -> None:
    variables = {"http_proxy": f"http://{CLOSED}", "no_proxy": excluded}

    r = audiocli("speak", "hi", "-o", audiocli.directory / "x.mp3", variables=variables)

    assert r.code == 7 and "http_proxy" in r.err


# File names of SSL_CERT_FILE and SSL_CERT_DIR, with the exit code. Nothing listens at the base URL.
CERTIFICATES = {
    "missing file": ({"SSL_CERT_FILE": "missing.pem"}, 2),
    "empty file": ({"SSL_CERT_FILE": "empty.pem"}, 2),
    "no certificate": ({"SSL_CERT_FILE": "text.pem"}, 2),
    "damaged certificate": ({"SSL_CERT_FILE": "damaged.pem"}, 2),
    "directory as a file": ({"SSL_CERT_FILE": "directory"}, 2),
    "long name": ({"SSL_CERT_FILE": "a" * 5000}, 2),
    "missing directory": ({"SSL_CERT_DIR": "missing"}, 2),
    "file as a directory": ({"SSL_CERT_DIR": "text.pem"}, 2),
    "list of missing directories": ({"SSL_CERT_DIR": "missing:{path}/text.pem"}, 2),
    "list of directories": ({"SSL_CERT_DIR": "missing:{path}/directory"}, 7),
    "empty directory": ({"SSL_CERT_DIR": "directory"}, 7),
}


@pytest.mark.parametrize("name", CERTIFICATES)
def test_certificates_that_cannot_be_read_are_named(audiocli: CommandLine, name: str) -> None:
    path = audiocli.directory
    (path / "directory").mkdir()
    (path / "empty.pem").touch()
    (path / "text.pem").write_text("hello\n")
    (path / "damaged.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    names, code = CERTIFICATES[name]
    variables = {variable: f"{path}/{value}".replace("{path}", str(path)) for variable, value in names.items()}
    variables["OPENROUTER_BASE_URL"] = f"https://{CLOSED}/v1"

    r = audiocli("speak", "hi", "-o", path / "x.mp3", variables=variables)

    assert r.code == code, r.err
    assert {entry["outcome"] for entry in r.ledger} == {"unsent"}
    assert code == 7 or next(iter(names)) in r.err


# --- homes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("home", ["file/home", "/proc/nowhere", "loop/home", "a" * 300, "\x1b[2J"], ids=ascii)
@pytest.mark.parametrize("arguments", [*COMMANDS[::2], ["transcribe", "{path}/records"]], ids=" ".join)
def test_home_that_cannot_be_used_is_not_a_bug(
    audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch, arguments: list[str], home: str
) -> None:
    path = audiocli.directory
    (path / "file").touch()
    (path / "loop").symlink_to("loop")
    (path / "tmp").mkdir()
    (path / "records").mkdir()
    for name in ("talk.wav", "records/talk.wav"):
        (path / name).write_bytes(SPEECH)
    monkeypatch.setattr("tempfile.tempdir", str(path / "tmp"))
    directory = str(path / home)
    variables = {f"XDG_{name}_HOME": directory for name in ("CONFIG", "DATA", "CACHE")}

    r = audiocli(
        *audiocli.expand(arguments),
        variables={**variables, "HOME": directory, "AUDIOCLI_LEDGER": ""},
    )

    if home == "file/home":
        assert r.code in (0, 3), r.err
    else:
        assert r.code in (0, 2, 3, 5, 10), r.err
        assert not r.code or escape_controls(directory) in r.err + escape_controls(r.text)
    assert (path / "file").read_bytes() == b"" and (path / "loop").is_symlink()


# --- limits of the system --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_ledger_path_that_is_too_long_is_not_a_bug(audiocli: CommandLine, arguments: list[str]) -> None:
    (audiocli.directory / "talk.wav").write_bytes(SPEECH)
    path = audiocli.directory / ("a" * 300)

    r = audiocli(
        *audiocli.expand(arguments),
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


# Bytes of the address space that suffice for audio as the gateway sends it, but not for the codec.
MEMORY_BYTES = 100 << 20


def list_outcomes(cli: CommandLine) -> list[str]:
    return [entry["outcome"] for entry in cli.read_ledger_entries()]


def test_limit_of_memory_is_found_before_audio_is_paid_for(audiocli: CommandLine) -> None:
    launcher = [require_program("prlimit"), f"--as={MEMORY_BYTES}"]

    passed_through = run_process(audiocli, ["speak", "hi", "-o", "{path}/x.mp3"], launcher=launcher)
    converted = run_process(audiocli, ["speak", "hi", "-o", "{path}/x.flac"], launcher=launcher)

    assert (passed_through.returncode, converted.returncode) == (0, 2), converted.stderr
    assert "not enough memory" in converted.stderr and "ulimit -v" in converted.stderr
    assert len(audiocli.gateway.posts) == 1
    assert list_outcomes(audiocli) == ["ok", "unsent"]
    assert list(audiocli.directory.glob(".*.part")) == []


@pytest.mark.parametrize("limit_bytes", [34 << 20, 48 << 20, MIN_ADDRESS_SPACE_BYTES - 4096])
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_too_little_memory_is_found_before_anything_is_done(
    audiocli: CommandLine, arguments: list[str], limit_bytes: int
) -> None:
    launcher = [require_program("prlimit"), f"--as={limit_bytes}"]

    completed = run_process(audiocli, arguments, launcher=launcher)

    assert completed.returncode == 2, completed.stderr
    assert "needs 96 MiB" in completed.stderr and "ulimit -v 98304" in completed.stderr
    assert not audiocli.gateway.requests and not audiocli.ledger_path.exists()


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_least_memory_suffices_for_each_command(audiocli: CommandLine, arguments: list[str]) -> None:
    launcher = [require_program("prlimit"), f"--as={MIN_ADDRESS_SPACE_BYTES}"]

    completed = run_process(audiocli, arguments, launcher=launcher)

    assert completed.returncode in EXIT_CODES, completed.stderr
    assert "ulimit" not in completed.stderr and "Traceback" not in completed.stderr


# A limited size would also damage the bytecode that Python caches.
FILE_SIZE_VARIABLES = {"PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.parametrize(("arguments", "limit_bytes"), [(COMMANDS[0], 0), (COMMANDS[4], 0), (COMMANDS[0], 20_000)])
def test_limit_of_file_sizes_is_reported_as_an_unusable_ledger(
    audiocli: CommandLine, arguments: list[str], limit_bytes: int
) -> None:
    launcher = [require_program("prlimit"), f"--fsize={limit_bytes}"]

    completed = run_process(audiocli, arguments, launcher=launcher, variables=FILE_SIZE_VARIABLES)

    assert completed.returncode == 5 and not audiocli.gateway.posts, completed.stderr
    assert "cannot use the ledger" in completed.stderr
    assert run_process(audiocli, arguments).returncode == 0  # nothing that is left behind stops the next run


def test_limit_of_file_sizes_saves_no_partial_output(audiocli: CommandLine) -> None:
    """The ledger has 60 kB, the audio more."""
    launcher = [require_program("prlimit"), "--fsize=200000"]
    text = "Hello there, world. " * 60

    completed = run_process(
        audiocli, ["speak", text, "-f", "wav", "-o", "{path}/x.wav"], launcher=launcher, variables=FILE_SIZE_VARIABLES
    )

    assert completed.returncode == 10 and "File too large" in completed.stderr, completed.stderr
    assert not (audiocli.directory / "x.wav").exists()


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


# Sends SIGINT at a line of the entry point, before it handles signals.
INTERRUPT_AT_LINE = """
import os, signal, sys

def trace(frame, event, argument):
    if not frame.f_code.co_filename.endswith("audiocli/__main__.py"):
        return None
    if event == "line" and frame.f_code.co_name == "<module>":
        with open(frame.f_code.co_filename) as source:
            line = source.read().splitlines()[frame.f_lineno - 1]
        if line.startswith(os.environ["AT"]):
            sys.settrace(None)
            os.kill(os.getpid(), signal.SIGINT)
    return trace

sys.settrace(trace)
from audiocli.__main__ import run
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


@pytest.mark.parametrize("at", ["import os", "import sys", "TYPE_CHECKING", "def run", "def _main"])
def test_interrupt_before_signals_are_handled_is_not_a_traceback(audiocli: CommandLine, at: str) -> None:
    completed = interrupt(audiocli, INTERRUPT_AT_LINE, at)

    assert (completed.returncode, completed.stderr) == (-signal.SIGINT, "")


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


@needs_dev_full
@pytest.mark.parametrize("gateway_name", ["local", "openrouter"])
def test_output_for_a_full_device_is_saved(audiocli: CommandLine, gateway_name: str) -> None:
    if gateway_name == "local":
        require_packages("espeakng_loader")

    r = audiocli("speak", "hi", "-g", gateway_name, "-f", "wav", "-o", "/dev/full", "--json")

    error = r.err_json["error"]
    assert r.code == 10
    assert error["hint"].startswith("the output is saved in ")
    assert Path(error["hint"].removeprefix("the output is saved in ")).read_bytes()[:4] == b"RIFF"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["speak", "hi", "-o", "-"], 10),
        (["transcribe", "{path}/talk.wav"], 10),
        (["chat", "hi"], 10),
        (["chat", "hi", "--no-stream"], 10),
        (["usage"], 10),
        (["config", "--json"], 10),
        (["--version"], 10),
        (["--help"], 10),
        (["--complete", "models", ""], 10),
        (["completion", "bash"], 10),
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


@needs_dev_full
@pytest.mark.parametrize(
    "arguments",
    [
        ["chat", "hi"],
        ["transcribe", "{path}/talk.wav", "--stream"],
        ["transcribe", "{path}/talk.wav"],
        ["speak", "hi", "-o", "-"],
        ["--version"],
        ["--complete", "models", ""],
    ],
    ids=" ".join,
)
def test_full_stdout_is_an_error(audiocli: CommandLine, arguments: list[str]) -> None:
    launcher = ["/bin/sh", "-c", 'exec "$@" >/dev/full', "sh"]

    completed = run_process(audiocli, arguments, launcher=launcher)

    assert completed.returncode == 10, completed.stderr
    assert "stdout" in completed.stderr and "Traceback" not in completed.stderr


def test_streamed_reply_that_stdout_refuses_is_saved(audiocli: CommandLine) -> None:
    audiocli.gateway.chat_reply = "A reply that was paid for."
    launcher = ["/bin/sh", "-c", 'exec "$@" >/dev/full', "sh"]

    completed = run_process(audiocli, ["chat", "hi"], launcher=launcher)

    [path] = (Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "kept").iterdir()
    assert completed.returncode == 10 and str(path) in completed.stderr, completed.stderr
    assert path.read_text() == "A reply that was paid for.\n"
