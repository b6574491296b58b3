"""Measure the ledger with a million entries in it: `python benchmarks/money.py`, where audiocli is installed.

`--fill PATH` only makes the ledger. Its entries are of the last 29 days, from four models, as a busy machine would have
them. What is measured: one entry written and settled, with no cap and with a cap for the month, the week and the run;
and the reports. Times are medians, in ms.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from audiocli.ledger.budget import SpendingLimit
from audiocli.ledger.ledger import Ledger
from audiocli.ledger.reports import report
from audiocli.types.values import Reservation, CostSource, Outcome, Settlement

ENTRIES = 1_000_000
DAY_MS = 86_400_000
DAYS = 29
WRITES = 300
READS = 5

# Command, gateway, model, how its cost is known.
WORK = (
    ("speak", "openrouter", "openai/gpt-4o-mini-tts-2025-12-15", "estimated"),
    ("speak", "openai", "tts-1", "computed"),
    ("transcribe", "openrouter", "openai/whisper-large-v3", "reported"),
    ("transcribe", "groq", "whisper-large-v3-turbo", "computed"),
)
LIMITS_MS = {"written and settled": 3.0, "the same under caps": 5.0, "report by day": 500.0, "report by model": 500.0}


def fill(path: Path, count: int) -> None:
    """Make a ledger with so many entries."""
    ledger = Ledger(path)
    with ledger._transaction() as database:
        # The triggers are the slow part of a million insertions, and sums can be made at once.
        triggers = database.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            database.execute(f"DROP TRIGGER {name}")
        database.executemany(
            "INSERT INTO entries (at_ms, settled_ms, command, gateway, model, outcome, cost_nanousd, cost_source, "
            "estimate_nanousd, most_nanousd, tag, run, characters, audio_ms, host, process) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 500000, 900000, ?, ?, 120, 4000, 'here', '1 1')",
            _entries(count),
        )
        for table in ("sums", "spending"):
            database.execute(f"DELETE FROM {table}")
        _sum_up(database)
        for _, sql in triggers:
            database.execute(sql)
    ledger.close()


def _sum_up(database: object) -> None:
    from audiocli.ledger.schema import QUARTER_MS, amounts_of, counted, keys_of

    sums = ", ".join(f"sum({amount})" for amount in amounts_of("entries").values())
    execute: Callable[[str], object] = database.execute  # type: ignore[attr-defined]
    execute(f"INSERT INTO sums SELECT {keys_of('entries')}, {sums} FROM entries GROUP BY 1, 2, 3, 4, 5, 6, 7")
    execute(f"INSERT INTO spending SELECT at_ms / {QUARTER_MS}, sum({counted('entries')}) FROM entries GROUP BY 1")


def _entries(count: int) -> Iterator[tuple[object, ...]]:
    dice = random.Random(1)
    first_ms = time.time_ns() // 1_000_000 - DAYS * DAY_MS
    for number in range(count):
        at_ms = first_ms + DAYS * DAY_MS * number // count
        command, gateway, model, source = WORK[dice.randrange(len(WORK))]
        luck = dice.random()
        outcome, cost = ("ok", dice.randrange(1_000_000)) if luck < 0.95 else ("refused", 0)
        if luck > 0.98:
            outcome, cost, source = "unknown", None, "unknown"
        elif outcome == "refused":
            source = "computed"
        tag = (None, "book")[dice.randrange(2)]
        yield at_ms, at_ms + 900, command, gateway, model, outcome, cost, source, tag, f"run-{number // 50}"


def measure(path: Path) -> dict[str, float]:
    ledger = Ledger(path)
    now_ms = time.time_ns() // 1_000_000
    caps = (
        SpendingLimit("month", 10**18, since_ms=now_ms - DAYS * DAY_MS),
        SpendingLimit("week", 10**18, since_ms=now_ms - 6 * DAY_MS),
        SpendingLimit("run", 10**18, run="this"),
    )

    def write(under: tuple[SpendingLimit, ...]) -> None:
        number = ledger.reserve(Reservation("speak", "openai", "tts-1", most_nanousd=900, run="this"), under)
        ledger.settle(number, Settlement(Outcome.OK, 900, CostSource.COMPUTED))

    found = {
        "written and settled": _median_ms(lambda: write(()), WRITES),
        "the same under caps": _median_ms(lambda: write(caps), WRITES),
        "report by day": _median_ms(lambda: report(ledger, since=None, until=None, by=["day"]), READS),
        "report by model": _median_ms(lambda: report(ledger, since=None, until=None, by=["model"]), READS),
    }
    ledger.close()
    return found


def _median_ms(once: Callable[[], object], times: int) -> float:
    once()
    taken = []
    for _ in range(times):
        started_s = time.perf_counter()
        once()
        taken.append((time.perf_counter() - started_s) * 1000)
    return median(taken)


def main() -> int:
    parser = argparse.ArgumentParser(prog="money.py", description="Measure the ledger with a million entries in it.")
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--fill", metavar="PATH", type=Path, help="only make the ledger")
    asked = parser.parse_args()
    if asked.fill is not None:
        if not asked.fill.exists():
            fill(asked.fill, asked.entries)
        return 0
    with tempfile.TemporaryDirectory(prefix="audiocli-money-") as folder:
        path = Path(folder) / "ledger.sqlite3"
        fill(path, asked.entries)
        found = measure(path)
    for name, taken_ms in found.items():
        limit_ms = LIMITS_MS[name]
        verdict = "good" if taken_ms <= limit_ms else "MISSED"
        sys.stdout.write(f"{name:<22} {taken_ms:8.2f} ms   ≤ {limit_ms:g} ms   {verdict}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
