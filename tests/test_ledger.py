"""The ledger file: damaged, read-only, on a full disk, of an older or newer version, and killed processes."""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from audiocli.errors import LedgerDamaged, MoneyError
from audiocli.ledger.database import APPLICATION_ID, MIGRATIONS
from audiocli.ledger.ledger import Ledger
from audiocli.ledger.reports import build_report
from audiocli.ledger.verify import verify
from audiocli.mock import Drip
from audiocli.types.ledger import CostSource, Outcome, Reservation, Settlement
from tests.conftest import CommandLine

ROOT = Path(__file__).parent.parent
PR_CAPBSET_DROP = 24


def fill_ledger(path: Path, count: int = 300) -> None:
    ledger = Ledger(path)
    for number in range(count):
        entry = ledger.reserve(
            Reservation("speak", "openrouter", f"model-{number % 3}", characters=3, run_id=f"{number % 7}")
        )
        ledger.settle(entry, Settlement(Outcome.OK, number, CostSource.REPORTED))
    ledger.close()


def damage_ledger(path: Path) -> bytes:
    """Overwrite all pages except the first; return the content of the file."""
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 64] = os.urandom(64)
    path.write_bytes(content)
    return bytes(content)


def list_damaged_ledgers(path: Path) -> list[Path]:
    """Return the ledgers that were set aside, without the WAL files that SQLite may leave next to one."""
    return sorted(
        found for found in path.parent.glob(f"{path.name}.damaged-*") if found.name[-4:] not in ("-wal", "-shm")
    )


# --- damaged ---------------------------------------------------------------------------------------------------------


def test_damaged_ledger_is_moved_aside_with_a_warning_and_not_overwritten(
    audiocli: CommandLine, tmp_path: Path
) -> None:
    fill_ledger(audiocli.ledger_path)
    before = damage_ledger(audiocli.ledger_path)

    r = audiocli("speak", "hello", "-o", tmp_path / "x.mp3", "-q")
    second = audiocli("speak", "hello again", "-o", tmp_path / "y.mp3")

    [damaged_path] = list_damaged_ledgers(audiocli.ledger_path)
    assert (r.code, second.code) == (0, 0), r.err
    assert "is damaged" in r.err and str(damaged_path) in r.err
    assert "is damaged" not in second.err
    assert damaged_path.read_bytes() == before
    assert len(audiocli.read_ledger_entries()) == 2


def test_ledger_with_damaged_header_is_moved_aside(audiocli: CommandLine, tmp_path: Path) -> None:
    fill_ledger(audiocli.ledger_path)
    audiocli.ledger_path.write_bytes(b"\0" * 100 + audiocli.ledger_path.read_bytes()[100:])

    r = audiocli("speak", "hello", "-o", tmp_path / "x.mp3")

    assert (r.code, len(list_damaged_ledgers(audiocli.ledger_path))) == (0, 1), r.err


def test_damaged_ledger_stops_requests_under_a_limit(audiocli: CommandLine, tmp_path: Path) -> None:
    fill_ledger(audiocli.ledger_path)
    before = damage_ledger(audiocli.ledger_path)
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.write_config('[prices]\n"openai:tts-1" = { per = "characters", usd = 0.1 }\n[budget]\nday = 5.0\n')

    r = audiocli("speak", "hello", "-m", "openai:tts-1", "-o", tmp_path / "x.mp3")

    assert (r.code, r.requests, list_damaged_ledgers(audiocli.ledger_path)) == (5, [], [])
    assert "spending limits cannot be checked" in r.err and "usage verify" in r.err
    assert audiocli.ledger_path.read_bytes() == before


def test_reports_do_not_move_a_damaged_ledger(audiocli: CommandLine) -> None:
    fill_ledger(audiocli.ledger_path)
    before = damage_ledger(audiocli.ledger_path)

    r = audiocli("usage", "list")

    assert (r.code, list_damaged_ledgers(audiocli.ledger_path)) == (5, [])
    assert "usage verify" in r.err
    assert audiocli.ledger_path.read_bytes() == before


def test_reservation_of_moved_ledger_is_not_settled_in_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    outputs: list[str] = []
    fill_ledger(path)
    ledger = Ledger(path, warn=outputs.append)
    old_reservation = ledger.reserve(Reservation("speak", "g", "old"))
    ledger.close()
    damage_ledger(path)

    new_reservation = ledger.reserve(Reservation("speak", "g", "new"))
    with pytest.raises(MoneyError, match="set aside"):
        ledger.settle(old_reservation, Settlement(Outcome.OK, 1, CostSource.REPORTED))
    ledger.settle(new_reservation, Settlement(Outcome.OK, 2, CostSource.REPORTED))

    assert new_reservation > old_reservation and len(outputs) == 1
    assert list(ledger.query("SELECT id, model, cost_nanousd FROM entries", ())) == [(new_reservation, "new", 2)]
    ledger.close()


def test_damaged_ledger_is_not_moved_without_warning_callback(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    fill_ledger(path)
    damage_ledger(path)

    with pytest.raises(LedgerDamaged):
        Ledger(path).reserve(Reservation("speak", "g", "m"))
    assert list_damaged_ledgers(path) == []


def test_concurrent_processes_move_a_damaged_ledger_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    fill_ledger(path)
    damage_ledger(path)
    script = (
        "import sys; from pathlib import Path; from audiocli.ledger.ledger import Ledger;"
        "from audiocli.types.ledger import *; ledger = Ledger(Path(sys.argv[1]), warn=print);\n"
        "for n in range(5):\n"
        "    entry = ledger.reserve(Reservation('speak', 'g', 'm'))\n"
        "    ledger.settle(entry, Settlement(Outcome.OK, 1, CostSource.REPORTED))\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(6)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]

    assert [err for _, err in outputs] == [b""] * 6
    assert len(list_damaged_ledgers(path)) == sum(out.count(b"set aside") for out, _ in outputs) == 1
    ledger = Ledger(path)
    [row] = build_report(ledger, since=None, until=None, by=[])
    assert (row.requests, row.cost_nanousd) == (30, 30)
    ledger.close()


# --- verify ----------------------------------------------------------------------------------------------------------


def test_verify_does_not_change_a_valid_ledger(audiocli: CommandLine) -> None:
    fill_ledger(audiocli.ledger_path)
    before = audiocli.ledger_path.read_bytes()

    r = audiocli("usage", "verify", "--json")

    assert (r.code, r.json["ok"], r.json["entries"]) == (0, True, 300), r.text
    assert r.json["cost_usd"] == sum(range(300)) / 1e9
    assert audiocli.ledger_path.read_bytes() == before
    assert audiocli("usage", "verify", variables={"AUDIOCLI_LEDGER": str(audiocli.directory / "none")}).code == 0


@pytest.mark.parametrize(
    ("change", "check_name"),
    [
        ("UPDATE entries SET cost_nanousd = -5 WHERE id = 9", "costs"),
        ("UPDATE entries SET cost_nanousd = 20000000000000 WHERE id = 9", "costs"),
        ("UPDATE entries SET outcome = 'fine' WHERE id = 9", "outcomes"),
        ("UPDATE entries SET settled_ms = NULL WHERE id = 9", "outcomes"),
        ("UPDATE entries SET cost_source = 'unknown' WHERE id = 9", "sources"),
        ("UPDATE entries SET outcome = 'refused', cost_source = 'computed' WHERE id = 9", "unserved requests"),
        ("UPDATE entries SET at_ms = -1 WHERE id = 9", "times"),
        ("DROP TRIGGER sums_after_update; UPDATE entries SET cost_nanousd = 1 WHERE id = 9", "report sums"),
        ("DELETE FROM spending", "spending sums"),
        ("DELETE FROM sums", "report sums"),
    ],
)
def test_verify_finds_inconsistent_data(audiocli: CommandLine, change: str, check_name: str) -> None:
    fill_ledger(audiocli.ledger_path, 20)
    database = sqlite3.connect(audiocli.ledger_path)
    database.executescript(change)
    database.close()

    r = audiocli("usage", "verify", "--json")

    assert r.code == 3
    assert check_name in [check["check"] for check in r.json["checks"] if check["status"] == "error"]


def test_verify_counts_readable_entries_of_damaged_ledger(audiocli: CommandLine) -> None:
    fill_ledger(audiocli.ledger_path, 3000)
    content = bytearray(audiocli.ledger_path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = os.urandom(4096)
    audiocli.ledger_path.write_bytes(content)

    r = audiocli("usage", "verify", "--json")
    text = audiocli("usage", "verify")

    assert (r.code, text.code) == (3, 3)
    assert 1000 < r.json["entries"] <= 3000
    assert f"{r.json['entries']} readable entries" in text.text


def test_verify_refuses_a_file_that_is_not_a_ledger(audiocli: CommandLine) -> None:
    notes = audiocli.directory / "notes.txt"
    notes.write_text("my notes " * 1000)

    r = audiocli("usage", "verify", variables={"AUDIOCLI_LEDGER": str(notes)})

    assert r.code == 3
    assert r.text.startswith("error    ")


# --- read-only and full disks ----------------------------------------------------------------------------------------


@pytest.fixture
def read_only() -> Iterator[Path]:
    """Yield a directory with a ledger that the command cannot write."""
    directory = Path(tempfile.mkdtemp())
    fill_ledger(directory / "ledger.sqlite3", 20)
    (directory / "ledger.sqlite3").chmod(0o444)
    directory.chmod(0o555)
    yield directory
    directory.chmod(0o755)
    shutil.rmtree(directory)


def drop_write_override() -> None:
    """Drop CAP_DAC_OVERRIDE, so that file modes also apply to root in the next program."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, 1, 0, 0, 0)


def run_unprivileged(*argv: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command as a user for whom file modes apply."""
    return subprocess.run(
        [sys.executable, "-m", "audiocli", *argv],
        env={**variables, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=drop_write_override, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("version", ["current", "version 1"])
def test_read_only_ledger_can_be_read_and_nothing_is_sent(audiocli: CommandLine, read_only: Path, version: str) -> None:
    path = read_only / "ledger.sqlite3"
    if version == "version 1":
        read_only.chmod(0o755)
        path.unlink()
        write_version_1_ledger(path, 20)
        path.chmod(0o444)
        read_only.chmod(0o555)
    variables = {"AUDIOCLI_LEDGER": str(path), "OPENROUTER_API_KEY": "sk-or-test"}
    variables["OPENROUTER_BASE_URL"] = audiocli.variables["OPENROUTER_BASE_URL"]
    report = run_unprivileged("usage", "--since", "all", "--json", variables=variables)
    verified = run_unprivileged("usage", "verify", variables=variables)
    speech = run_unprivileged("speak", "hello", "-o", "/dev/null", variables=variables)

    assert report.returncode == 0, report.stderr
    assert json.loads(report.stdout)["total"]["requests"] == 20
    assert verified.returncode == 0, verified.stdout
    assert speech.returncode == 5, speech.stderr
    assert "make its directory writable" in speech.stderr
    assert audiocli.gateway.requests == []
    assert sorted(file.name for file in read_only.iterdir()) == ["ledger.sqlite3"]


def test_nothing_is_sent_when_the_disk_is_full(audiocli: CommandLine, tmp_path: Path) -> None:
    fill_ledger(audiocli.ledger_path, 50)
    max_bytes = audiocli.ledger_path.stat().st_size // 8

    process = subprocess.run(
        [sys.executable, "-m", "audiocli", "speak", "hello", "-o", "/dev/null"],
        env={**audiocli.variables, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes)),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert process.returncode == 5, process.stderr
    assert "ledger" in process.stderr and "nothing is sent" in process.stderr
    assert audiocli.gateway.posts == []


def test_newer_ledger_stops_requests_and_asks_for_an_update(audiocli: CommandLine, tmp_path: Path) -> None:
    fill_ledger(audiocli.ledger_path, 3)
    database = sqlite3.connect(audiocli.ledger_path)
    database.execute("PRAGMA user_version = 99")
    database.close()

    speech = audiocli("speak", "hello", "-o", tmp_path / "x.mp3")
    report, verified = audiocli("usage"), audiocli("usage", "verify")

    assert (speech.code, speech.requests, report.code, verified.code) == (5, [], 5, 3)
    assert "update audiocli" in speech.err and "update audiocli" in verified.text
    assert list_damaged_ledgers(audiocli.ledger_path) == []


# --- older versions --------------------------------------------------------------------------------------------------


def write_version_1_ledger(path: Path, count: int) -> None:
    """Write a ledger with the schema of the first version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, isolation_level=None)
    MIGRATIONS[0](database)
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute("PRAGMA user_version = 1")
    now_ms = time.time_ns() // 1_000_000
    database.execute("BEGIN")
    database.executemany(
        "INSERT INTO entries (at_ms, settled_ms, command, gateway, model, outcome, cost_nanousd, cost_source, tag, "
        "characters, audio_ms, host, process) VALUES (?, ?, 'speak', 'openrouter', ?, ?, ?, ?, ?, 5, 70, 'h', '1 1')",
        [
            (
                now_ms - 1000 * number, now_ms, f"m{number % 4}", "ok" if number % 5 else "failed",
                number if number % 5 else None, "reported" if number % 5 else "unknown", None if number % 2 else "t",
            )
            for number in range(count)
        ],
    )  # fmt: skip
    database.execute("COMMIT")
    database.close()


def test_version_1_ledger_is_migrated_by_concurrent_processes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    write_version_1_ledger(path, 1000)
    database = sqlite3.connect(path)
    before = database.execute("SELECT * FROM entries ORDER BY id").fetchall()
    database.close()
    script = (
        "import sys; from pathlib import Path; from audiocli.ledger.ledger import Ledger;"
        "from audiocli.types.ledger import *; ledger = Ledger(Path(sys.argv[1]));\n"
        "entry = ledger.reserve(Reservation('speak', 'g', 'm'))\n"
        "ledger.settle(entry, Settlement(Outcome.OK, 1, CostSource.REPORTED))\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script, str(path)], stderr=subprocess.PIPE) for _ in range(8)]
    outputs = [process.communicate(timeout=60)[1] for process in processes]

    ledger = Ledger(path)
    names = list(ledger.list_columns())[: len(before[0])]
    after = list(ledger.query(f"SELECT {', '.join(names)} FROM entries WHERE id <= 1000 ORDER BY id", ()))
    [row] = build_report(ledger, since=None, until=None, by=[])
    ledger.close()
    assert outputs == [b""] * 8
    assert after == before
    assert (row.requests, row.unknown_costs) == (1008, 200)
    assert row.cost_nanousd == sum(number for number in range(1000) if number % 5) + 8
    assert verify(path).is_ok, verify(path)


# --- killed processes ------------------------------------------------------------------------------------------------


def test_killed_process_leaves_an_entry_with_cost_for_each_request(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.write_config('[prices]\n"openai:tts-1" = { per = "1M characters", usd = 15.0 }\n[budget]\nday = 100.0\n')
    audiocli.gateway.add_default_fault(Drip(block_bytes=4000, interval_s=0.005))
    text = " ".join(f"This is sentence number {number} of a text." for number in range(6))
    rng = random.Random(int(os.environ.get("AUDIOCLI_DICE", "11")))
    kill_count = int(os.environ.get("AUDIOCLI_KILLS", "20"))
    argv = ["speak", "-m", "openai:tts-1", "--max-chars", "60", "--no-resume", text, "-o", str(tmp_path / "x.wav")]
    for _ in range(kill_count):
        process = subprocess.Popen(
            [sys.executable, "-m", "audiocli", *argv],
            env={**audiocli.variables, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(rng.uniform(0.15, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    audiocli.gateway.clear_faults()

    spent = audiocli("budget", "--json").json["caps"]["day"]["spent_usd"]
    entries, posts = audiocli.read_ledger_entries(), audiocli.gateway.posts
    assert len(entries) >= len(posts)
    assert {entry["outcome"] for entry in entries} <= {"ok", "unknown"}
    assert all(entry["cost_nanousd"] != 0 for entry in entries)
    assert round(spent * 1e9) >= audiocli.gateway.billed_nanousd
    assert verify(audiocli.ledger_path).is_ok, verify(audiocli.ledger_path)


def test_wal_of_read_only_ledger_is_read_or_reported(audiocli: CommandLine, read_only: Path) -> None:
    path = read_only / "ledger.sqlite3"
    read_only.chmod(0o755)
    path.chmod(0o644)
    ledger = Ledger(path)
    ledger.reserve(Reservation("speak", "g", "m"))
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", read_only / f"copy.sqlite3{suffix}")
    ledger.close()
    read_only.chmod(0o555)

    report = run_unprivileged("usage", "--json", variables={"AUDIOCLI_LEDGER": str(read_only / "copy.sqlite3")})

    assert report.returncode == 0, report.stderr
    requests = json.loads(report.stdout)["total"]["requests"]
    assert requests == 21 or "cannot be read here" in report.stderr
