"""Measure audiocli against the bare interpreter and curl: `python benchmarks/bench.py`.

Makes a clean virtual environment of the checkout (the packages come from where pip finds them; all else stays on the
loopback), starts its own gateway and runs everything in turn: the bare interpreter, curl, the command, and again.
Ratios are taken within a turn, so that a busy machine slows both sides of them. Nothing of the user's is read or
written: no key, no configuration, no ledger. Times are from the start of the process to its end unless a line says
otherwise; `cpu` is how long the process itself computed, in ms. For Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from figures import Row
from report import Round, as_json, lines, machine, noise, table
from rig import Failed, Gateway, Installation, Sample, Stopwatch, install, variables_of_nobody
from rows import all_rows, bare

RUNS = 21
QUICK_RUNS = 5
# An upload takes seconds, and a peak varies little.
HEAVY_SHARE = 7
HEAVY_TIMEOUT_S = 300.0


class Bench:
    """Runs the rows, and gathers what they gave and what was left out."""

    def __init__(self, stopwatch: Stopwatch, place: Installation) -> None:
        self._stopwatch = stopwatch
        self._bare = bare(place)
        self._has_curl = shutil.which("curl") is not None
        self.bare: list[Sample] = []
        self.rounds: dict[str, list[Round]] = {}
        self.notes: list[str] = [] if self._has_curl else ["there is no curl here to compare with"]

    def warm_up(self, rows: list[Row]) -> list[Row]:
        """Run each command once, so that the disk's cache and the ledger are there; give those that work.

        Raises: Failed: one does not that should.
        """
        working = []
        for row in rows:
            try:
                if row.before is not None:
                    self._stopwatch.run(row.before, variables=row.variables)
                self._once(row, row.argv)
            except Failed as error:
                if not row.may_be_missing:
                    raise
                self.notes.append(f"{row.name} is left out: {error}")
                continue
            working.append(row)
        return working

    def turn(self, rows: list[Row]) -> None:
        """Run every row once, each right after what it is compared with. Raises: Failed."""
        for row in rows:
            alone = self._stopwatch.run(self._bare)
            curl = self._once(row, row.curl) if row.curl is not None and self._has_curl else None
            self.bare.append(alone)
            self.rounds.setdefault(row.name, []).append(Round(self._once(row, row.argv), alone, curl))

    def _once(self, row: Row, argv: tuple[str, ...]) -> Sample:
        return self._stopwatch.run(
            argv,
            variables=row.variables,
            watches_output=row.watches_output,
            asks_gateway=row.asks_gateway,
            timeout_s=HEAVY_TIMEOUT_S if row.heavy else 60.0,
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.py", description="Measure audiocli against the interpreter and curl.")
    parser.add_argument("--runs", type=int, help=f"turns ({RUNS}); uploads take a {HEAVY_SHARE}th of them")
    parser.add_argument("--only", metavar="NAME", action="append", help="rows whose names begin so; can be repeated")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_RUNS} turns, no upload of 1 GB, no 10,000 files")
    parser.add_argument("--json", metavar="PATH", type=Path, help="default: a new temporary folder")
    asked = parser.parse_args()
    runs = max(1, asked.runs or (QUICK_RUNS if asked.quick else RUNS))
    try:
        with tempfile.TemporaryDirectory(prefix="audiocli-bench-") as folder, Gateway() as gateway:
            results = measure(Path(folder), gateway, runs=runs, only=asked.only, quick=asked.quick)
    except Failed as error:
        sys.stderr.write(f"bench.py: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    target = asked.json or Path(tempfile.mkdtemp(prefix="audiocli-bench-")) / "results.json"
    target.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"\nevery run is in {target}\n")
    return 0


def measure(folder: Path, gateway: Gateway, *, runs: int, only: list[str] | None, quick: bool) -> dict[str, object]:
    """Install, measure and print. Raises: Failed."""
    place, work = Installation(folder / "environment"), folder / "work"
    work.mkdir()
    known = all_rows(place, gateway.url, work)
    rows = [row for row in known if row.name.startswith(tuple(only or ("",)))]
    if not rows:
        raise Failed("no row has a name that begins so; there are " + ", ".join(row.name for row in known))
    _tell("installing the checkout into a clean environment")
    install(place)
    stopwatch = Stopwatch(variables=variables_of_nobody(folder / "home"), folder=work, gateway=gateway)
    bench = Bench(stopwatch, place)
    _tell("running everything once")
    rows = bench.warm_up([row for row in rows if not (quick and row.name.endswith(("1gb", "memory")))])
    if not rows:
        raise Failed("nothing is left to measure")
    before = machine()["load"]
    for number in range(runs):
        _tell(f"turn {number + 1} of {runs}")
        bench.turn([row for row in rows if not row.heavy or number % HEAVY_SHARE == 0])
    _tell("")
    found = lines(rows, bench.rounds)
    here = machine()
    bench.notes += [
        noise(bench.bare),
        f"load {before} before, {here['load']} after, on {here['cores']} cores, Python {here['python']}",
    ]
    sys.stdout.write(table(found, bench.bare) + "".join(f"note: {note}\n" for note in bench.notes))
    return as_json(found, bench.bare, bench.notes)


def _tell(words: str) -> None:
    """Show people what is going on; a log gets nothing."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{words}")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
