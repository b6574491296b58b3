"""The ledger's file in bad times: damaged, read-only, full, of yesterday and of tomorrow; and processes that die."""

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
from audiocli.ledger.ledger import Ledger
from audiocli.ledger.reports import report
from audiocli.ledger.schema import APPLICATION_ID, MIGRATIONS
from audiocli.ledger.verify import verify
from audiocli.types.values import Reservation, CostSource, Outcome, Settlement
from tests.conftest import CommandLine
from tests.gateway import Drip

ROOT = Path(__file__).parent.parent
PR_CAPBSET_DROP = 24


def fill(path: Path, count: int = 300) -> None:
    ledger = Ledger(path)
    for number in range(count):
        entry = ledger.reserve(Reservation("speak", "openrouter", f"model-{number % 3}", characters=3, run=f"{number % 7}"))
        ledger.settle(entry, Settlement(Outcome.OK, number, CostSource.REPORTED))
    ledger.close()


def damage(path: Path) -> bytes:
    """Overwrite the pages of the entries, all but the first page; give what the file is now."""
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 64] = os.urandom(64)
    path.write_bytes(content)
    return bytes(content)


def set_aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.damaged-*"))


# --- damaged ---------------------------------------------------------------------------------------------------------


def test_a_damaged_ledger_is_set_aside_loudly_and_never_overwritten(audiocli: CommandLine, tmp_path: Path) -> None:
    fill(audiocli.ledger_path)
    before = damage(audiocli.ledger_path)

    r = audiocli("speak", "hello", "-o", tmp_path / "x.mp3", "-q")
    again = audiocli("speak", "hello", "-o", tmp_path / "y.mp3")

    [aside] = set_aside(audiocli.ledger_path)
    assert (r.code, again.code) == (0, 0), r.err
    assert "is damaged" in r.err and str(aside) in r.err
    assert "is damaged" not in again.err
    assert aside.read_bytes() == before
    assert len(audiocli.entries()) == 2


def test_a_ledger_whose_head_is_gone_is_set_aside_as_well(audiocli: CommandLine, tmp_path: Path) -> None:
    fill(audiocli.ledger_path)
    audiocli.ledger_path.write_bytes(b"\0" * 100 + audiocli.ledger_path.read_bytes()[100:])

    r = audiocli("speak", "hello", "-o", tmp_path / "x.mp3")

    assert (r.code, len(set_aside(audiocli.ledger_path))) == (0, 1), r.err


def test_under_caps_a_damaged_ledger_stops_everything(audiocli: CommandLine, tmp_path: Path) -> None:
    fill(audiocli.ledger_path)
    before = damage(audiocli.ledger_path)
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.config('[prices]\n"openai:tts-1" = { per = "characters", usd = 0.1 }\n[budget]\nday = 5.0\n')

    r = audiocli("speak", "hello", "-m", "openai:tts-1", "-o", tmp_path / "x.mp3")

    assert (r.code, r.requests, set_aside(audiocli.ledger_path)) == (5, [], [])
    assert "under your caps" in r.err and "usage verify" in r.err
    assert audiocli.ledger_path.read_bytes() == before


def test_reports_leave_a_damaged_ledger_where_it_is(audiocli: CommandLine) -> None:
    fill(audiocli.ledger_path)
    before = damage(audiocli.ledger_path)

    r = audiocli("usage", "list")

    assert (r.code, set_aside(audiocli.ledger_path)) == (5, [])
    assert "usage verify" in r.err
    assert audiocli.ledger_path.read_bytes() == before


def test_what_is_under_way_in_a_ledger_that_is_set_aside_is_not_mistaken_for_another(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    said: list[str] = []
    fill(path)
    ledger = Ledger(path, alarm=said.append)
    old = ledger.reserve(Reservation("speak", "g", "old"))
    ledger.close()
    damage(path)

    new = ledger.reserve(Reservation("speak", "g", "new"))
    with pytest.raises(MoneyError, match="set aside"):
        ledger.settle(old, Settlement(Outcome.OK, 1, CostSource.REPORTED))
    ledger.settle(new, Settlement(Outcome.OK, 2, CostSource.REPORTED))

    assert new > old and len(said) == 1
    assert list(ledger.read("SELECT id, model, cost_nanousd FROM entries", ())) == [(new, "new", 2)]
    ledger.close()


def test_without_somebody_to_tell_nothing_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    fill(path)
    damage(path)

    with pytest.raises(LedgerDamaged):
        Ledger(path).reserve(Reservation("speak", "g", "m"))
    assert set_aside(path) == []


def test_processes_that_find_it_damaged_together_set_it_aside_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    fill(path)
    damage(path)
    script = (
        "import sys; from pathlib import Path; from audiocli.ledger.ledger import Ledger;"
        "from audiocli.types.values import *; ledger = Ledger(Path(sys.argv[1]), alarm=print);\n"
        "for n in range(5):\n"
        "    ledger.settle(ledger.reserve(Reservation('speak', 'g', 'm')), Settlement(Outcome.OK, 1, CostSource.REPORTED))\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(6)
    ]
    said = [process.communicate(timeout=60) for process in running]

    assert [err for _, err in said] == [b""] * 6
    assert len(set_aside(path)) == sum(out.count(b"set aside") for out, _ in said) == 1
    ledger = Ledger(path)
    [row] = report(ledger, since=None, until=None, by=[])
    assert (row.requests, row.cost_nanousd) == (30, 30)
    ledger.close()


# --- verify ----------------------------------------------------------------------------------------------------------


def test_a_sound_ledger_is_verified_and_not_touched(audiocli: CommandLine) -> None:
    fill(audiocli.ledger_path)
    before = audiocli.ledger_path.read_bytes()

    r = audiocli("usage", "verify", "--json")

    assert (r.code, r.json["ok"], r.json["entries"]) == (0, True, 300), r.text
    assert r.json["cost_usd"] == sum(range(300)) / 1e9
    assert audiocli.ledger_path.read_bytes() == before
    assert audiocli("usage", "verify", variables={"AUDIOCLI_LEDGER": str(audiocli.folder / "none")}).code == 0


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE entries SET cost_nanousd = -5 WHERE id = 9", "costs"),
        ("UPDATE entries SET cost_nanousd = 20000000000000 WHERE id = 9", "costs"),
        ("UPDATE entries SET outcome = 'fine' WHERE id = 9", "outcomes"),
        ("UPDATE entries SET settled_ms = NULL WHERE id = 9", "outcomes"),
        ("UPDATE entries SET cost_source = 'unknown' WHERE id = 9", "sources"),
        ("UPDATE entries SET outcome = 'refused', cost_source = 'computed' WHERE id = 9", "what was not served"),
        ("UPDATE entries SET at_ms = -1 WHERE id = 9", "times"),
        ("DROP TRIGGER sums_after_update; UPDATE entries SET cost_nanousd = 1 WHERE id = 9", "sums of the reports"),
        ("DELETE FROM spending", "sums of the caps"),
        ("DELETE FROM sums", "sums of the reports"),
    ],
)
def test_what_is_wrong_with_a_ledger_is_found(audiocli: CommandLine, change: str, what: str) -> None:
    fill(audiocli.ledger_path, 20)
    database = sqlite3.connect(audiocli.ledger_path)
    database.executescript(change)
    database.close()

    r = audiocli("usage", "verify", "--json")

    assert r.code == 3
    assert what in [check["what"] for check in r.json["checks"] if not check["ok"]]


def test_of_a_damaged_ledger_it_is_told_what_can_be_read(audiocli: CommandLine) -> None:
    fill(audiocli.ledger_path, 3000)
    content = bytearray(audiocli.ledger_path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = os.urandom(4096)
    audiocli.ledger_path.write_bytes(content)

    r = audiocli("usage", "verify", "--json")
    text = audiocli("usage", "verify")

    assert (r.code, text.code) == (3, 3)
    assert 1000 < r.json["entries"] <= 3000
    assert f"{r.json['entries']} entries can be read" in text.text


def test_something_that_is_no_ledger_is_wrong(audiocli: CommandLine) -> None:
    notes = audiocli.folder / "notes.txt"
    notes.write_text("my notes " * 1000)

    r = audiocli("usage", "verify", variables={"AUDIOCLI_LEDGER": str(notes)})

    assert r.code == 3
    assert "wrong" in r.text


# --- a disk that is read-only, or full -------------------------------------------------------------------------------


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that whoever runs the command cannot write, with a ledger in it."""
    folder = Path(tempfile.mkdtemp())
    fill(folder / "ledger.sqlite3", 20)
    (folder / "ledger.sqlite3").chmod(0o444)
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def _obey_modes() -> None:
    """Take from root the right to write whatever it likes (CAP_DAC_OVERRIDE), for what is executed next."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, 1, 0, 0, 0)


def as_somebody(*argv: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command as somebody who may not write everywhere."""
    return subprocess.run(
        [sys.executable, "-m", "audiocli", *argv],
        env={**variables, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=_obey_modes, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("age", ["of today", "of version 1"])
def test_a_ledger_on_a_read_only_disk_can_be_read_and_nothing_is_sent(
    audiocli: CommandLine, read_only: Path, age: str
) -> None:
    path = read_only / "ledger.sqlite3"
    if age == "of version 1":
        read_only.chmod(0o755)
        path.unlink()
        old_ledger(path, 20)
        path.chmod(0o444)
        read_only.chmod(0o555)
    variables = {"AUDIOCLI_LEDGER": str(path), "OPENROUTER_API_KEY": "sk-or-test"}
    variables["OPENROUTER_BASE_URL"] = audiocli.variables["OPENROUTER_BASE_URL"]
    told = as_somebody("usage", "--since", "all", "--json", variables=variables)
    verified = as_somebody("usage", "verify", variables=variables)
    spoken = as_somebody("speak", "hello", "-o", "/dev/null", variables=variables)

    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["total"]["requests"] == 20
    assert verified.returncode == 0, verified.stdout
    assert spoken.returncode == 5, spoken.stderr
    assert "make its folder writable" in spoken.stderr
    assert audiocli.gateway.requests == []
    assert sorted(file.name for file in read_only.iterdir()) == ["ledger.sqlite3"]


def test_on_a_full_disk_nothing_is_sent(audiocli: CommandLine, tmp_path: Path) -> None:
    fill(audiocli.ledger_path, 50)
    full = audiocli.ledger_path.stat().st_size // 8

    done = subprocess.run(
        [sys.executable, "-m", "audiocli", "speak", "hello", "-o", "/dev/null"],
        env={**audiocli.variables, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (full, full)),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 5, done.stderr
    assert "ledger" in done.stderr and "nothing is sent" in done.stderr
    assert audiocli.gateway.posts == []


def test_a_ledger_of_tomorrow_stops_everything_and_names_the_mend(audiocli: CommandLine, tmp_path: Path) -> None:
    fill(audiocli.ledger_path, 3)
    database = sqlite3.connect(audiocli.ledger_path)
    database.execute("PRAGMA user_version = 99")
    database.close()

    spoken = audiocli("speak", "hello", "-o", tmp_path / "x.mp3")
    told, verified = audiocli("usage"), audiocli("usage", "verify")

    assert (spoken.code, spoken.requests, told.code, verified.code) == (5, [], 5, 3)
    assert "update audiocli" in spoken.err and "update it" in verified.text
    assert set_aside(audiocli.ledger_path) == []


# --- yesterday's -----------------------------------------------------------------------------------------------------


def old_ledger(path: Path, count: int) -> None:
    """Make a ledger as the first version made it."""
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


def test_a_ledger_of_version_1_keeps_everything_whoever_updates_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    old_ledger(path, 1000)
    database = sqlite3.connect(path)
    before = database.execute("SELECT * FROM entries ORDER BY id").fetchall()
    database.close()
    script = (
        "import sys; from pathlib import Path; from audiocli.ledger.ledger import Ledger;"
        "from audiocli.types.values import *; ledger = Ledger(Path(sys.argv[1]));\n"
        "ledger.settle(ledger.reserve(Reservation('speak', 'g', 'm')), Settlement(Outcome.OK, 1, CostSource.REPORTED))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(path)], stderr=subprocess.PIPE) for _ in range(8)]
    said = [process.communicate(timeout=60)[1] for process in running]

    ledger = Ledger(path)
    names = list(ledger.columns())[: len(before[0])]
    after = list(ledger.read(f"SELECT {', '.join(names)} FROM entries WHERE id <= 1000 ORDER BY id", ()))
    [row] = report(ledger, since=None, until=None, by=[])
    ledger.close()
    assert said == [b""] * 8
    assert after == before
    assert (row.requests, row.unknown) == (1008, 200)
    assert row.cost_nanousd == sum(number for number in range(1000) if number % 5) + 8
    assert verify(path).is_well, verify(path)


# --- processes that are killed ---------------------------------------------------------------------------------------


def test_whenever_a_process_is_killed_each_request_has_an_entry_and_none_is_free(
    audiocli: CommandLine, tmp_path: Path
) -> None:
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.config('[prices]\n"openai:tts-1" = { per = "1M characters", usd = 15.0 }\n[budget]\nday = 100.0\n')
    audiocli.gateway.always(Drip(chunk_bytes=4000, interval_s=0.005))
    text = " ".join(f"This is sentence number {number} of a text." for number in range(6))
    dice = random.Random(int(os.environ.get("AUDIOCLI_DICE", "11")))
    kills = int(os.environ.get("AUDIOCLI_KILLS", "20"))
    argv = ["speak", "-m", "openai:tts-1", "--max-chars", "60", "--no-resume", text, "-o", str(tmp_path / "x.wav")]
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-m", "audiocli", *argv],
            env={**audiocli.variables, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(dice.uniform(0.15, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    audiocli.gateway.behave()

    spent = audiocli("budget", "--json").json["caps"]["day"]["spent_usd"]
    entries, posts = audiocli.entries(), audiocli.gateway.posts
    assert len(entries) >= len(posts)
    assert {entry["outcome"] for entry in entries} <= {"ok", "unknown"}
    assert all(entry["cost_nanousd"] != 0 for entry in entries)
    assert round(spent * 1e9) >= audiocli.gateway.bill_nanousd
    assert verify(audiocli.ledger_path).is_well, verify(audiocli.ledger_path)


def test_what_lies_beside_a_ledger_that_cannot_be_written_is_read_or_missed_aloud(
    audiocli: CommandLine, read_only: Path
) -> None:
    path = read_only / "ledger.sqlite3"
    read_only.chmod(0o755)
    path.chmod(0o644)
    ledger = Ledger(path)
    ledger.reserve(Reservation("speak", "g", "m"))
    for ending in ("", "-wal"):
        shutil.copy(f"{path}{ending}", read_only / f"copy.sqlite3{ending}")
    ledger.close()
    read_only.chmod(0o555)

    told = as_somebody("usage", "--json", variables={"AUDIOCLI_LEDGER": str(read_only / "copy.sqlite3")})

    assert told.returncode == 0, told.stderr
    requests = json.loads(told.stdout)["total"]["requests"]
    assert requests == 21 or "cannot be read here" in told.stderr
