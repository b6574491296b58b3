"""The command `usage` and the ledger."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from audiocli.cli.date_range import parse_date_range
from audiocli.errors import MoneyError, UsageError
from audiocli.ledger.ledger import Ledger
from audiocli.ledger.reports import build_report, list_entries
from audiocli.types.ledger import CostSource, Outcome, Reservation, Settlement
from tests.conftest import CommandLine


@pytest.fixture
def four_entries(audiocli: CommandLine) -> CommandLine:
    """Return a command line whose ledger has four entries: two paid, one unknown, one unsent."""
    ledger = Ledger(audiocli.ledger_path)
    for command, gateway, outcome, cost, tag in (
        ("speak", "openrouter", Outcome.OK, 1_500_000, None),
        ("transcribe", "openrouter", Outcome.OK, 3, "talk"),
        ("speak", "openai", Outcome.UNKNOWN, None, None),
        ("speak", "openai", Outcome.UNSENT, 0, None),
    ):
        number = ledger.reserve(Reservation(command, gateway, "m", tag=tag, characters=10))
        source = CostSource.UNKNOWN if cost is None else CostSource.REPORTED
        ledger.settle(number, Settlement(outcome, cost, source))
    ledger.close()
    return audiocli


def test_report_sums_known_costs_and_counts_unknown_costs(four_entries: CommandLine) -> None:
    report = four_entries("usage", "--json").json

    today = datetime.now().astimezone().strftime("%Y-%m-%d")
    assert report["ok"] is True
    assert report["total"]["requests"] == 3
    assert report["total"]["cost_usd"] == 0.001500003
    assert report["total"]["by_source"] == {"reported": 0.001500003}
    assert report["total"]["unknown"] == 1
    assert [(row["day"], row["requests"]) for row in report["rows"]] == [(today, 3)]


def test_table_names_unknown_costs(four_entries: CommandLine) -> None:
    r = four_entries("usage", "--by", "gateway")

    table, sources = r.text.split("\n\n")
    assert [line.split() for line in table.splitlines()] == [
        ["gateway", "requests", "failures", "audio", "characters", "cost", "unknown"],
        ["openai", "1", "1", "10", "unknown", "1"],
        ["openrouter", "2", "20", "$0.0015"],
        ["total", "3", "1", "30", "$0.0015", "1"],
    ]
    assert [line.split()[:3] for line in sources.splitlines()[1:]] == [
        ["reported", "$0.0015", "2"],
        ["unknown", "unknown", "1"],
    ]


@pytest.mark.parametrize("by", ["day", "week", "month", "gateway", "model", "command", "outcome", "tag"])
def test_every_grouping_adds_up(four_entries: CommandLine, by: str) -> None:
    rows = four_entries("usage", "--by", by, "--json").json["rows"]

    assert sum(row["requests"] for row in rows) == 3
    assert all(by in row for row in rows)


def test_groupings_combine(four_entries: CommandLine) -> None:
    rows = four_entries("usage", "--by", "gateway", "--by", "outcome", "--json").json["rows"]

    assert [(row["gateway"], row["outcome"], row["requests"]) for row in rows] == [
        ("openai", "unknown", 1),
        ("openrouter", "ok", 2),
    ]


def test_csv_can_be_read(four_entries: CommandLine) -> None:
    rows = list(csv.DictReader(io.StringIO(four_entries("usage", "--by", "command", "--csv").text)))

    assert [(row["command"], row["requests"], row["cost_usd"], row["unknown"]) for row in rows] == [
        ("speak", "2", "0.0015", "1"),
        ("transcribe", "1", "0.000000003", "0"),
    ]


def test_list_has_every_entry_as_json_line(four_entries: CommandLine) -> None:
    entries = [json.loads(line) for line in four_entries("usage", "list", "--json").text.splitlines()]

    assert [entry["id"] for entry in entries] == [1, 2, 3, 4]
    assert [entry["outcome"] for entry in entries] == ["ok", "ok", "unknown", "unsent"]
    assert [entry["cost_usd"] for entry in entries] == [0.0015, 3e-9, None, 0.0]
    assert [entry["tag"] for entry in entries] == [None, "talk", None, None]
    assert {"at", "command", "gateway", "model", "cost_source", "generation_id"} <= set(entries[0])


def test_ledger_path_is_printed(audiocli: CommandLine) -> None:
    assert audiocli("usage", "path").text == f"{audiocli.ledger_path}\n"


def test_empty_ledger_is_not_an_error(audiocli: CommandLine) -> None:
    assert audiocli("usage").code == 0
    assert audiocli("usage", "--json").json["total"]["requests"] == 0
    assert audiocli("usage", "list", "--json").out == b""


@pytest.mark.parametrize(
    "argv",
    [
        ["--by", "hour"],
        ["--since", "soon"],
        ["--since", "2026-02-30"],
        ["--since", "today", "--until", "yesterday"],
    ],
)
def test_invalid_query_is_a_usage_error(audiocli: CommandLine, argv: list[str]) -> None:
    r = audiocli("usage", *argv)

    assert r.code == 2
    assert "Traceback" not in r.err


def test_date_range_consists_of_local_days() -> None:
    now = datetime(2026, 3, 29, 15, 30).astimezone()
    midnight = datetime(2026, 3, 29).astimezone()

    assert parse_date_range("today", None, now) == (midnight, None)
    assert parse_date_range("yesterday", "yesterday", now) == (datetime(2026, 3, 28).astimezone(), midnight)
    assert parse_date_range("2026-03-01", "2026-03-29", now)[1] == midnight + timedelta(days=1)
    assert parse_date_range("month", None, now)[0] == datetime(2026, 3, 1).astimezone()
    assert parse_date_range("all", None, now) == (None, None)
    assert parse_date_range("4w", None, now)[0] == datetime(2026, 3, 1).astimezone()
    with pytest.raises(UsageError):
        parse_date_range("999999w", None, now)


# --- ledger file -----------------------------------------------------------------------------------------------------


def test_entry_of_killed_process_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    script = (
        "import os, sys; from pathlib import Path; from audiocli.ledger.ledger import Ledger;"
        "from audiocli.types.ledger import Reservation;"
        "Ledger(Path(sys.argv[1])).reserve(Reservation('speak', 'openrouter', 'm')); os.kill(os.getpid(), 9)"
    )

    process = subprocess.run([sys.executable, "-c", script, str(path)], timeout=60)

    assert process.returncode == -9
    ledger = Ledger(path)
    assert [entry.outcome for entry in list_entries(ledger, since=None, until=None)] == [Outcome.UNKNOWN]
    ledger.close()


def test_entry_in_progress_is_reserved(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    ledger.reserve(Reservation("speak", "openrouter", "m"))

    assert [entry.outcome for entry in list_entries(ledger, since=None, until=None)] == [Outcome.RESERVED]
    ledger.close()


def test_entry_is_settled_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    number = ledger.reserve(Reservation("speak", "openrouter", "m"))
    ledger.settle(number, Settlement(Outcome.OK, 5, CostSource.REPORTED))
    ledger.settle(number, Settlement(Outcome.CANCELLED))

    assert [(entry.outcome, entry.cost_nanousd) for entry in list_entries(ledger, since=None, until=None)] == [
        (Outcome.OK, 5)
    ]
    ledger.close()


def test_concurrent_processes_lose_no_entries(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    script = (
        "import sys; from pathlib import Path; from audiocli.ledger.ledger import Ledger;"
        "from audiocli.types.ledger import *; ledger = Ledger(Path(sys.argv[1]));\n"
        "for n in range(50):\n"
        "    entry = ledger.reserve(Reservation('speak', 'g', 'm'))\n"
        "    ledger.settle(entry, Settlement(Outcome.OK, n, CostSource.REPORTED))\n"
    )

    writers = [subprocess.Popen([sys.executable, "-c", script, str(path)], stderr=subprocess.PIPE) for _ in range(8)]
    errors = [writer.communicate(timeout=100)[1] for writer in writers]

    assert errors == [b""] * 8
    ledger = Ledger(path)
    [row] = build_report(ledger, since=None, until=None, by=[])
    assert (row.requests, row.cost_nanousd, row.unknown_costs) == (400, 8 * sum(range(50)), 0)
    ledger.close()


def test_newer_ledger_and_foreign_database_are_unchanged(tmp_path: Path) -> None:
    newer, foreign = tmp_path / "newer.sqlite3", tmp_path / "foreign.sqlite3"
    ledger = Ledger(newer)
    ledger.reserve(Reservation("speak", "g", "m"))
    ledger.close()
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE letters (text)")
    database.close()

    for path, message in ((newer, "newer"), (foreign, "not a ledger")):
        with pytest.raises(MoneyError, match=message):
            Ledger(path).reserve(Reservation("speak", "g", "m"))


def test_ledger_uses_wal_with_full_sync(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    ledger.reserve(Reservation("speak", "g", "m"))
    database = sqlite3.connect(tmp_path / "ledger.sqlite3")

    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ledger._connect_read_write().execute("PRAGMA synchronous").fetchone() == (2,)
    database.close()
    ledger.close()


def test_temporary_ledger_is_used_when_no_directory_is_writable(
    audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "not-a-directory").write_text("")
    unwritable = str(tmp_path / "not-a-directory" / "data")
    variables = {"AUDIOCLI_LEDGER": "", "XDG_DATA_HOME": unwritable, "HOME": unwritable, "XDG_CACHE_HOME": unwritable}

    r = audiocli("speak", "hello", "-o", tmp_path / "x.mp3", variables=variables)
    report = audiocli("usage", "--json", variables=variables)

    assert r.code == 0, r.err
    assert "using the temporary ledger" in r.err
    assert report.json["total"]["requests"] == 1
    assert (tmp_path / "x.mp3").stat().st_size > 100


def test_temporary_ledger_of_another_user_is_not_used(
    audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"audiocli-ledger-{os.getuid()}").symlink_to(elsewhere)
    (tmp_path / "not-a-directory").write_text("")

    r = audiocli(
        "speak", "hello", "-o", tmp_path / "x.mp3",
        variables={"AUDIOCLI_LEDGER": "", "XDG_DATA_HOME": str(tmp_path / "not-a-directory" / "data")},
    )  # fmt: skip

    assert (r.code, r.requests) == (5, []), r.err
