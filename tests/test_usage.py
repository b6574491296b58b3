"""`usage`, through the front door, and the ledger below it."""

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

from audiocli.cli.date_range import period
from audiocli.errors import MoneyError, UsageError
from audiocli.ledger.ledger import Ledger
from audiocli.ledger.reports import entries, report
from audiocli.types.values import Reservation, CostSource, Outcome, Settlement
from tests.conftest import CommandLine


@pytest.fixture
def spent(audiocli: CommandLine) -> CommandLine:
    """A ledger with four requests: two paid, one unknown, one that never left."""
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


def test_the_report_sums_what_is_known_and_counts_what_is_not(spent: CommandLine) -> None:
    report = spent("usage", "--json").json

    today = datetime.now().astimezone().strftime("%Y-%m-%d")
    assert report["ok"] is True
    assert report["total"]["requests"] == 3
    assert report["total"]["cost_usd"] == 0.001500003
    assert report["total"]["by_source"] == {"reported": 0.001500003}
    assert report["total"]["unknown"] == 1
    assert [(row["day"], row["requests"]) for row in report["rows"]] == [(today, 3)]


def test_the_table_shows_the_unknown_as_a_question_mark(spent: CommandLine) -> None:
    r = spent("usage", "--by", "gateway")

    table, sources = r.text.split("\n\n")
    assert [line.split() for line in table.splitlines()] == [
        ["gateway", "requests", "failures", "audio", "characters", "cost", "unknown"],
        ["openai", "1", "1", "10", "?", "1"],
        ["openrouter", "2", "20", "$0.001500003"],
        ["total", "3", "1", "30", "$0.001500003", "1"],
    ]
    assert [line.split()[:3] for line in sources.splitlines()[1:]] == [
        ["reported", "$0.001500003", "2"],
        ["unknown", "?", "1"],
    ]


@pytest.mark.parametrize("by", ["day", "week", "month", "gateway", "model", "command", "outcome", "tag"])
def test_every_grouping_adds_up(spent: CommandLine, by: str) -> None:
    rows = spent("usage", "--by", by, "--json").json["rows"]

    assert sum(row["requests"] for row in rows) == 3
    assert all(by in row for row in rows)


def test_groupings_combine(spent: CommandLine) -> None:
    rows = spent("usage", "--by", "gateway", "--by", "outcome", "--json").json["rows"]

    assert [(row["gateway"], row["outcome"], row["requests"]) for row in rows] == [
        ("openai", "unknown", 1),
        ("openrouter", "ok", 2),
    ]


def test_csv_can_be_read_back(spent: CommandLine) -> None:
    rows = list(csv.DictReader(io.StringIO(spent("usage", "--by", "command", "--csv").text)))

    assert [(row["command"], row["requests"], row["cost_usd"], row["unknown"]) for row in rows] == [
        ("speak", "2", "0.0015", "1"),
        ("transcribe", "1", "0.000000003", "0"),
    ]


def test_the_list_has_every_entry_as_a_json_line(spent: CommandLine) -> None:
    entries = [json.loads(line) for line in spent("usage", "list", "--json").text.splitlines()]

    assert [entry["id"] for entry in entries] == [1, 2, 3, 4]
    assert [entry["outcome"] for entry in entries] == ["ok", "ok", "unknown", "unsent"]
    assert [entry["cost_usd"] for entry in entries] == [0.0015, 3e-9, None, 0.0]
    assert [entry["tag"] for entry in entries] == [None, "talk", None, None]
    assert {"at", "command", "gateway", "model", "cost_source", "generation_id"} <= set(entries[0])


def test_the_path_is_printed(audiocli: CommandLine) -> None:
    assert audiocli("usage", "path").text == f"{audiocli.ledger_path}\n"


def test_an_empty_ledger_is_no_error(audiocli: CommandLine) -> None:
    assert audiocli("usage").code == 0
    assert audiocli("usage", "--json").json["total"]["requests"] == 0
    assert audiocli("usage", "list", "--json").out == b""


@pytest.mark.parametrize(
    "argv",
    [
        ["--by", "nonsense"],
        ["--since", "soon"],
        ["--since", "2026-02-30"],
        ["--since", "today", "--until", "yesterday"],
    ],
)
def test_a_bad_question_names_the_accepted_words(audiocli: CommandLine, argv: list[str]) -> None:
    r = audiocli("usage", *argv)

    assert r.code == 2
    assert "Traceback" not in r.err


def test_a_period_is_made_of_local_days() -> None:
    now = datetime(2026, 3, 29, 15, 30).astimezone()
    midnight = datetime(2026, 3, 29).astimezone()

    assert period("today", None, now) == (midnight, None)
    assert period("yesterday", "yesterday", now) == (datetime(2026, 3, 28).astimezone(), midnight)
    assert period("2026-03-01", "2026-03-29", now)[1] == midnight + timedelta(days=1)
    assert period("month", None, now)[0] == datetime(2026, 3, 1).astimezone()
    assert period("all", None, now) == (None, None)
    assert period("4w", None, now)[0] == datetime(2026, 3, 1).astimezone()
    with pytest.raises(UsageError):
        period("999999w", None, now)


# --- the file itself -------------------------------------------------------------------------------------------------


def test_an_entry_whose_process_was_killed_counts_as_unknown(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    script = (
        "import os, sys; from pathlib import Path; from audiocli.ledger.ledger import Ledger;"
        "from audiocli.types.values import Reservation;"
        "Ledger(Path(sys.argv[1])).reserve(Reservation('speak', 'openrouter', 'm')); os.kill(os.getpid(), 9)"
    )

    done = subprocess.run([sys.executable, "-c", script, str(path)], timeout=60)

    assert done.returncode == -9
    ledger = Ledger(path)
    assert [entry.outcome for entry in entries(ledger, since=None, until=None)] == [Outcome.UNKNOWN]
    ledger.close()


def test_an_entry_under_way_stays_reserved(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    ledger.reserve(Reservation("speak", "openrouter", "m"))

    assert [entry.outcome for entry in entries(ledger, since=None, until=None)] == [Outcome.RESERVED]
    ledger.close()


def test_an_entry_is_settled_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    number = ledger.reserve(Reservation("speak", "openrouter", "m"))
    ledger.settle(number, Settlement(Outcome.OK, 5, CostSource.REPORTED))
    ledger.settle(number, Settlement(Outcome.CANCELLED))

    assert [(entry.outcome, entry.cost_nanousd) for entry in entries(ledger, since=None, until=None)] == [
        (Outcome.OK, 5)
    ]
    ledger.close()


def test_eight_processes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    script = (
        "import sys; from pathlib import Path; from audiocli.ledger.ledger import Ledger;"
        "from audiocli.types.values import *; ledger = Ledger(Path(sys.argv[1]));\n"
        "for n in range(50):\n"
        "    ledger.settle(ledger.reserve(Reservation('speak', 'g', 'm')), Settlement(Outcome.OK, n, CostSource.REPORTED))\n"
    )

    writers = [subprocess.Popen([sys.executable, "-c", script, str(path)], stderr=subprocess.PIPE) for _ in range(8)]
    said = [writer.communicate(timeout=100)[1] for writer in writers]

    assert said == [b""] * 8
    ledger = Ledger(path)
    [row] = report(ledger, since=None, until=None, by=[])
    assert (row.requests, row.cost_nanousd, row.unknown) == (400, 8 * sum(range(50)), 0)
    ledger.close()


def test_a_newer_ledger_and_a_foreign_database_are_left_alone(tmp_path: Path) -> None:
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

    for path, said in ((newer, "newer"), (foreign, "not a ledger")):
        with pytest.raises(MoneyError, match=said):
            Ledger(path).reserve(Reservation("speak", "g", "m"))


def test_it_is_kept_in_wal_with_full_sync(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    ledger.reserve(Reservation("speak", "g", "m"))
    database = sqlite3.connect(tmp_path / "ledger.sqlite3")

    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ledger._to_write().execute("PRAGMA synchronous").fetchone() == (2,)
    database.close()
    ledger.close()


def test_without_a_place_for_a_ledger_the_work_is_done_and_the_ledger_kept_aside(
    audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "no-folder").write_text("")
    nowhere = str(tmp_path / "no-folder" / "data")
    variables = {"AUDIOCLI_LEDGER": "", "XDG_DATA_HOME": nowhere, "HOME": nowhere, "XDG_CACHE_HOME": nowhere}

    r = audiocli("speak", "hello", "-o", tmp_path / "x.mp3", variables=variables)
    report = audiocli("usage", "--json", variables=variables)

    assert r.code == 0, r.err
    assert "nothing can be kept in" in r.err
    assert report.json["total"]["requests"] == 1
    assert (tmp_path / "x.mp3").stat().st_size > 100


def test_a_ledger_aside_that_is_somebody_elses_is_not_used(
    audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"audiocli-ledger-{os.getuid()}").symlink_to(elsewhere)
    (tmp_path / "no-folder").write_text("")

    r = audiocli(
        "speak", "hello", "-o", tmp_path / "x.mp3",
        variables={"AUDIOCLI_LEDGER": "", "XDG_DATA_HOME": str(tmp_path / "no-folder" / "data")},
    )  # fmt: skip

    assert (r.code, r.requests) == (5, []), r.err
