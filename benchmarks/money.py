"""Measure the ledger with a million entries: `python benchmarks/money.py`, where audiocli is installed.

`--fill PATH` only creates the ledger. Its entries are of the last 29 days and of four models, like those of a busy
machine. Measures one entry reserved and settled, without limits and with limits for the month, the week and the run,
and the reports. Times are medians in ms.
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
from audiocli.ledger.reports import build_report
from audiocli.types.ledger import CostSource, Outcome, Reservation, Settlement

ENTRIES = 1_000_000
DAY_MS = 86_400_000
DAYS = 29
WRITES = 300
READS = 5

# Command, gateway, model, cost source.
ENTRY_KINDS = (
    ("speak", "openrouter", "openai/gpt-4o-mini-tts-2025-12-15", "estimated"),
    ("speak", "openai", "tts-1", "computed"),
    ("transcribe", "openrouter", "openai/whisper-large-v3", "reported"),
    ("transcribe", "groq", "whisper-large-v3-turbo", "computed"),
)
MAX_MS = {"reserve and settle": 3.0, "the same with limits": 5.0, "report by day": 500.0, "report by model": 500.0}


def fill(path: Path, count: int) -> None:
    """Create a ledger with `count` entries."""
    ledger = Ledger(path)
    with ledger.transaction() as database:
        # The triggers take most of the time of a million inserts. The sums can be computed in one query afterwards.
        triggers = database.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            database.execute(f"DROP TRIGGER {name}")
        database.executemany(
            "INSERT INTO entries (at_ms, settled_ms, command, gateway, model, outcome, cost_nanousd, cost_source, "
            "estimate_nanousd, most_nanousd, tag, run, characters, audio_ms, host, process) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 500000, 900000, ?, ?, 120, 4000, 'here', '1 1')",
            _generate_entries(count),
        )
        for table in ("sums", "spending"):
            database.execute(f"DELETE FROM {table}")
        _build_sums(database)
        for _, sql in triggers:
            database.execute(sql)
    ledger.close()


def _build_sums(database: object) -> None:
    from audiocli.ledger.database import QUARTER_MS, build_counted_amount, build_sum_amounts, build_sum_key

    sums = ", ".join(f"sum({amount})" for amount in build_sum_amounts("entries").values())
    execute: Callable[[str], object] = database.execute  # type: ignore[attr-defined]
    execute(f"INSERT INTO sums SELECT {build_sum_key('entries')}, {sums} FROM entries GROUP BY 1, 2, 3, 4, 5, 6, 7")
    amount = build_counted_amount("entries")
    execute(f"INSERT INTO spending SELECT at_ms / {QUARTER_MS}, sum({amount}) FROM entries GROUP BY 1")


def _generate_entries(count: int) -> Iterator[tuple[object, ...]]:
    rng = random.Random(1)
    cost: int | None
    first_ms = time.time_ns() // 1_000_000 - DAYS * DAY_MS
    for number in range(count):
        at_ms = first_ms + DAYS * DAY_MS * number // count
        command, gateway, model, source = ENTRY_KINDS[rng.randrange(len(ENTRY_KINDS))]
        chance = rng.random()
        outcome, cost = ("ok", rng.randrange(1_000_000)) if chance < 0.95 else ("refused", 0)
        if chance > 0.98:
            outcome, cost, source = "unknown", None, "unknown"
        elif outcome == "refused":
            source = "computed"
        tag = (None, "book")[rng.randrange(2)]
        yield at_ms, at_ms + 900, command, gateway, model, outcome, cost, source, tag, f"run-{number // 50}"


def measure(path: Path) -> dict[str, float]:
    ledger = Ledger(path)
    now_ms = time.time_ns() // 1_000_000
    limits = (
        SpendingLimit("month", 10**18, since_ms=now_ms - DAYS * DAY_MS),
        SpendingLimit("week", 10**18, since_ms=now_ms - 6 * DAY_MS),
        SpendingLimit("run", 10**18, run_id="this"),
    )

    def write(limits_to_check: tuple[SpendingLimit, ...]) -> None:
        number = ledger.reserve(
            Reservation("speak", "openai", "tts-1", max_nanousd=900, run_id="this"), limits_to_check
        )
        ledger.settle(number, Settlement(Outcome.OK, 900, CostSource.COMPUTED))

    durations_ms = {
        "reserve and settle": _measure_median_ms(lambda: write(()), WRITES),
        "the same with limits": _measure_median_ms(lambda: write(limits), WRITES),
        "report by day": _measure_median_ms(lambda: build_report(ledger, since=None, until=None, by=["day"]), READS),
        "report by model": _measure_median_ms(
            lambda: build_report(ledger, since=None, until=None, by=["model"]), READS
        ),
    }
    ledger.close()
    return durations_ms


def _measure_median_ms(operation: Callable[[], object], times: int) -> float:
    operation()
    durations_ms = []
    for _ in range(times):
        started_s = time.perf_counter()
        operation()
        durations_ms.append((time.perf_counter() - started_s) * 1000)
    return median(durations_ms)


def main() -> int:
    parser = argparse.ArgumentParser(prog="money.py", description="Measure the ledger with a million entries in it.")
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--fill", metavar="PATH", type=Path, help="Only create the ledger.")
    args = parser.parse_args()
    if args.fill is not None:
        if not args.fill.exists():
            fill(args.fill, args.entries)
        return 0
    with tempfile.TemporaryDirectory(prefix="audiocli-money-") as directory:
        path = Path(directory) / "ledger.sqlite3"
        fill(path, args.entries)
        durations_ms = measure(path)
    for name, duration_ms in durations_ms.items():
        max_ms = MAX_MS[name]
        verdict = "ok" if duration_ms <= max_ms else "over"
        sys.stdout.write(f"{name:<22} {duration_ms:8.2f} ms   ≤ {max_ms:g} ms   {verdict}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
