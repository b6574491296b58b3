"""Measure audiocli against the bare interpreter and curl: `python benchmarks/bench.py`.

Installs the checkout into a clean virtual environment (packages come from pip's index; all other traffic stays on the
loopback interface) and starts its own gateway. Each round runs the bare interpreter, curl and the command for every
case. Ratios are computed within a round, so that a busy machine slows both sides. No key, configuration or ledger of
the user is read or written. Times are from process start to process end unless a line says otherwise. `cpu` is the CPU
time of the process in ms. Supports Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from cases import build_bare_command, build_cases
from harness import (
    BenchmarkError,
    CommandRunner,
    GatewayProcess,
    Installation,
    Measurement,
    build_clean_environment,
    install,
)
from metrics import Case
from report import Round, build_json, build_lines, describe_machine, describe_noise, render_table

RUNS = 21
QUICK_RUNS = 5
# Uploads take seconds, and their peak memory varies little.
HEAVY_SHARE = 7
HEAVY_TIMEOUT_S = 300.0


class Benchmark:
    """Run the cases, and collect their results and notes."""

    def __init__(self, runner: CommandRunner, installation: Installation) -> None:
        self._runner = runner
        self._bare = build_bare_command(installation)
        self._has_curl = shutil.which("curl") is not None
        self.bare: list[Measurement] = []
        self.rounds: dict[str, list[Round]] = {}
        self.notes: list[str] = [] if self._has_curl else ["curl is not installed; no comparison with it"]

    def warm_up(self, cases: list[Case]) -> list[Case]:
        """Run each command once, to fill the disk cache and create the ledger. Return the cases that work.

        Raises:
            BenchmarkError: A case that is not optional failed.
        """
        working_cases = []
        for case in cases:
            try:
                if case.setup is not None:
                    self._runner.run(case.setup, environment=case.environment)
                self._run_once(case, case.argv)
            except BenchmarkError as error:
                if not case.is_optional:
                    raise
                self.notes.append(f"{case.name} is skipped: {error}")
                continue
            working_cases.append(case)
        return working_cases

    def run_round(self, cases: list[Case]) -> None:
        """Run every case once, each right after its baselines.

        Raises:
            BenchmarkError: A command failed.
        """
        for case in cases:
            bare_measurement = self._runner.run(self._bare)
            curl = self._run_once(case, case.curl) if case.curl is not None and self._has_curl else None
            self.bare.append(bare_measurement)
            self.rounds.setdefault(case.name, []).append(Round(self._run_once(case, case.argv), bare_measurement, curl))

    def _run_once(self, case: Case, argv: tuple[str, ...]) -> Measurement:
        return self._runner.run(
            argv,
            environment=case.environment,
            watch_output=case.watch_output,
            read_gateway_times=case.read_gateway_times,
            timeout_s=HEAVY_TIMEOUT_S if case.is_heavy else 60.0,
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.py", description="Measure audiocli against the interpreter and curl.")
    parser.add_argument(
        "--runs", type=int, help=f"Number of rounds ({RUNS}). Heavy cases run in every {HEAVY_SHARE}th."
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="Run cases whose name starts with NAME. May be repeated."
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_RUNS} rounds, without the 1 GB upload and the 10,000 files."
    )
    parser.add_argument(
        "--json", metavar="PATH", type=Path, help="Write the results to PATH (default: a new temporary directory)."
    )
    args = parser.parse_args()
    runs = max(1, args.runs or (QUICK_RUNS if args.quick else RUNS))
    try:
        with tempfile.TemporaryDirectory(prefix="audiocli-bench-") as directory, GatewayProcess() as gateway:
            results = measure(Path(directory), gateway, runs=runs, only=args.only, quick=args.quick)
    except BenchmarkError as error:
        sys.stderr.write(f"bench.py: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    json_path = args.json or Path(tempfile.mkdtemp(prefix="audiocli-bench-")) / "results.json"
    json_path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"\nresults: {json_path}\n")
    return 0


def measure(
    directory: Path, gateway: GatewayProcess, *, runs: int, only: list[str] | None, quick: bool
) -> dict[str, object]:
    """Install, measure and print the results.

    Raises:
        BenchmarkError: A command failed, or there are no cases to run.
    """
    installation, work_directory = Installation(directory / "environment"), directory / "work"
    work_directory.mkdir()
    all_cases = build_cases(installation, gateway.url, work_directory)
    cases = [case for case in all_cases if case.name.startswith(tuple(only or ("",)))]
    if not cases:
        raise BenchmarkError("no case name starts with this; cases: " + ", ".join(case.name for case in all_cases))
    _show_progress("installing the checkout into a clean environment")
    install(installation)
    runner = CommandRunner(
        environment=build_clean_environment(directory / "home"), directory=work_directory, gateway=gateway
    )
    benchmark = Benchmark(runner, installation)
    _show_progress("warming up")
    cases = benchmark.warm_up([case for case in cases if not (quick and case.name.endswith(("1gb", "memory")))])
    if not cases:
        raise BenchmarkError("no cases to measure")
    load_before = describe_machine()["load"]
    for round_index in range(runs):
        _show_progress(f"round {round_index + 1} of {runs}")
        benchmark.run_round([case for case in cases if not case.is_heavy or round_index % HEAVY_SHARE == 0])
    _show_progress("")
    lines = build_lines(cases, benchmark.rounds)
    machine = describe_machine()
    benchmark.notes += [
        describe_noise(benchmark.bare),
        f"load {load_before} before, {machine['load']} after, on {machine['cores']} cores, Python {machine['python']}",
    ]
    sys.stdout.write(render_table(lines, benchmark.bare) + "".join(f"note: {note}\n" for note in benchmark.notes))
    return build_json(lines, benchmark.bare, benchmark.notes)


def _show_progress(message: str) -> None:
    """Show a progress message on a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{message}")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
