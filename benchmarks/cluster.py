"""Measure the executor on Dask, and compute how far it reaches: `python benchmarks/cluster.py`.

Starts a mock gateway, a Dask scheduler, worker processes and audiocli on the loopback interface, needs the extra
`cluster`, and sends nothing to other machines. It measures

* the overhead: items whose requests take no time, so that all time is that of client, scheduler and workers;
* the CPU time of the client and of the scheduler for each item;
* the steps of the client for each item, one by one: list, ledger (reserve and settle), manifest (claim and outputs);
* the efficiency: the rate with requests of two seconds, as a share of workers times the rate of one slot;
* the peak memory of the client for more and more items.

The prediction for more workers is the smallest of three rates: what the workers can send, what the client and the
scheduler can do with one core each, and what the ledger can write.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from audiocli.cli.discovery import DiscoveryOptions, find_recordings  # noqa: E402
from audiocli.core.batch.output_paths import plan_outputs  # noqa: E402
from audiocli.ledger.ledger import Ledger  # noqa: E402
from audiocli.mock import KEYS, MockGateway, expected_pcm  # noqa: E402
from audiocli.storage.manifest import FileFingerprint, Manifest, OutputRecord  # noqa: E402
from audiocli.types.ledger import CostSource, Outcome, Reservation, Settlement  # noqa: E402

WORKER_COUNTS = (1, 3, 10, 30, 100, 300, 1000)
START_TIMEOUT_S = 60.0
# Writes of the ledger that arrive while one is on its way to the disk share a transaction.
LEDGER_BATCH = 32


@dataclass(frozen=True, slots=True)
class Run:
    """One batch: its items, seconds, and the CPU seconds of the client and of the scheduler."""

    items: int
    elapsed_s: float
    client_cpu_s: float
    scheduler_cpu_s: float
    peak_bytes: int

    @property
    def rate(self) -> float:
        return self.items / self.elapsed_s


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Cluster:
    """A gateway, a scheduler and workers, for one benchmark."""

    def __init__(self, directory: Path, worker_count: int, thread_count: int, latency_s: float) -> None:
        self.directory = directory
        self.gateway = MockGateway(latency_s=latency_s, keep_requests=False)
        self._worker_count = worker_count
        self._thread_count = thread_count
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Cluster:
        self.gateway.__enter__()
        self.directory.mkdir(parents=True)
        file = str(self.directory / "scheduler.json")
        local = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", file]
        self._start("dask_scheduler", [*local, "--port", "0"], "scheduler")
        self._wait(lambda: (self.directory / "scheduler.json").exists())
        for index in range(self._worker_count):
            options = ["--no-nanny", "--nthreads", str(self._thread_count), "--memory-limit", "0"]
            scratch = ["--local-directory", str(self.directory / f"dask-{index}")]
            self._start("dask_worker", [*local, *options, *scratch], f"worker-{index}")
        log = self.directory / "scheduler.log"
        self._wait(lambda: log.read_text().count("Register worker addr") >= self._worker_count)
        return self

    def __exit__(self, *details: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self.gateway.__exit__(None, None, None)

    def _start(self, program: str, arguments: list[str], name: str) -> None:
        with (self.directory / f"{name}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", f"distributed.cli.{program}", *arguments],
                    env=self.build_environment(name),
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )

    def _wait(self, is_ready: Any) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not is_ready():
            if time.monotonic() > deadline_s:
                raise SystemExit(f"the cluster did not start, see {self.directory}")
            time.sleep(0.05)

    def build_environment(self, name: str) -> dict[str, str]:
        home = self.directory / name
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(CHECKOUT),
            "HOME": str(home),
            **{f"XDG_{kind.upper()}_HOME": str(home / kind) for kind in ("config", "data", "cache")},
            "OPENROUTER_API_KEY": KEYS["openrouter"],
            "OPENROUTER_BASE_URL": self.gateway.base_url("openrouter"),
        }

    def _read_scheduler_cpu_s(self) -> float:
        fields = Path(f"/proc/{self._processes[0].pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def run(self, recordings: Path, *, jobs: int, local: bool = False) -> Run:
        """Transcribe a directory and return what it took."""
        address = json.loads((self.directory / "scheduler.json").read_text())["address"]
        name = f"client-{len(list(self.directory.iterdir()))}"
        arguments = ["-R", "-O", str(self.directory / name / "out"), "-j", str(jobs), "-q"]
        where = [] if local else ["--executor", "dask", "--scheduler", address]
        cpu_before_s, started_s = self._read_scheduler_cpu_s(), time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "audiocli", "transcribe", str(recordings), *arguments, *where],
            env=self.build_environment(name),
            stdin=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        elapsed_s = time.monotonic() - started_s
        if process.returncode:
            raise SystemExit(f"audiocli ended with exit code {process.returncode}")
        count = sum(1 for _ in recordings.rglob("*.wav"))
        client_cpu_s = usage.ru_utime + usage.ru_stime
        scheduler_cpu_s = self._read_scheduler_cpu_s() - cpu_before_s
        return Run(count, elapsed_s, client_cpu_s, scheduler_cpu_s, usage.ru_maxrss * 1024)


def write_recordings(directory: Path, count: int) -> Path:
    """Write short recordings, each with content of its own, in directories of 1,000."""
    from audiocli.audio.wav import build_wav_header
    from audiocli.types.audio import PcmFormat

    pcm = expected_pcm("benchmark")[:4800]
    header = build_wav_header(PcmFormat(), len(pcm))
    for number in range(count):
        path = directory / f"{number // 1000:04}" / f"{number:07}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(header + number.to_bytes(4, "little") + pcm[4:])
    return directory


def measure_steps(directory: Path, recordings: Path) -> dict[str, float]:
    """Return the seconds that the client needs for each item, by step."""
    started_s = time.perf_counter()
    found = find_recordings([str(recordings)], (), DiscoveryOptions(recursive=True))
    plan_outputs(found.recordings, ("txt",), directory / "out")
    list_s = (time.perf_counter() - started_s) / len(found.recordings)
    ledger = Ledger(directory / "steps.sqlite3")
    reservation = Reservation("transcribe", "openrouter", "model", max_nanousd=100, run_id="run")
    settlement = Settlement(Outcome.OK, 100, CostSource.REPORTED)
    started_s = time.perf_counter()
    for _ in range(0, 2000, LEDGER_BATCH):
        entries = ledger.run_in_transaction([partial(ledger.reserve, reservation)] * LEDGER_BATCH)
        ledger.run_in_transaction([partial(ledger.settle, entry, settlement) for entry in entries])
    ledger_s = (time.perf_counter() - started_s) / 2000
    ledger.close()
    manifest = Manifest(directory / "steps-manifest.sqlite3", warning=_print)
    started_s = time.perf_counter()
    asyncio.run(write_manifest(manifest, 2000))
    manifest_s = (time.perf_counter() - started_s) / 2000
    manifest.close()
    return {"list": list_s, "ledger": ledger_s, "manifest": manifest_s}


async def write_manifest(manifest: Manifest, count: int) -> None:
    fingerprint = FileFingerprint(1, 1, 1, 1)
    for number in range(count):
        await manifest.claim(str(number))
        manifest.record_content_hash(Path(f"/{number}.wav"), fingerprint, "hash")
        manifest.record_output(Path(f"/{number}.txt"), OutputRecord("settings", "hash", fingerprint))
        await manifest.release(str(number))


def predict(client_s: float, scheduler_s: float, ledger_s: float, request_s: float, threads: int) -> list[list[str]]:
    """Return a row for each number of workers: what workers can do, the rate, its limit, and days for 10 million."""
    limits = {"client": 1 / client_s, "scheduler": 1 / scheduler_s, "ledger": 1 / ledger_s}
    rows = []
    for workers in WORKER_COUNTS:
        demand = workers * threads / request_s
        name, rate = min([("workers", demand), *limits.items()], key=lambda pair: pair[1])
        rows.append([f"{workers:,}", f"{demand:,.0f}", f"{rate:,.0f}", name, f"{1e7 / rate / 86400:.1f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1000, help="items of the overhead")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--threads", type=int, default=4, help="threads of each worker")
    parser.add_argument("--latency", type=float, default=2.0, help="seconds of a request, for the efficiency")
    parser.add_argument("--memory-items", type=int, nargs="*", default=[], help="items for the memory of the client")
    options = parser.parse_args()
    slots = options.workers * options.threads
    # Threads that begin the next item while all slots are sending.
    spare = -(-options.threads // 4)
    with tempfile.TemporaryDirectory(prefix="audiocli-cluster-") as name:
        directory = Path(name)
        recordings = write_recordings(directory / "recordings", options.items)
        steps = measure_steps(directory, recordings)
        with Cluster(directory / "overhead", options.workers, options.threads + spare, 0.0) as cluster:
            run = cluster.run(recordings, jobs=slots)
            few = cluster.run(write_recordings(directory / "one", 1), jobs=slots)
            local = cluster.run(recordings, jobs=slots, local=True)
        client_s = (run.client_cpu_s - few.client_cpu_s) / run.items
        scheduler_s = (run.scheduler_cpu_s - few.scheduler_cpu_s) / run.items
        _print(f"{run.items} items, {options.workers} workers with {options.threads} slots, {os.cpu_count()} cores")
        _print(f"rate           {run.rate:.0f} items/s; in one process {local.rate:.0f}")
        _print(f"client         {client_s * 1e3:.2f} ms of CPU time for each item")
        _print(f"scheduler      {scheduler_s * 1e3:.2f} ms")
        for step, seconds in steps.items():
            _print(f"{step:14} {seconds * 1e3:.3f} ms (part of the client)")
        wave = write_recordings(directory / "wave", slots * 10)
        with Cluster(directory / "latency", options.workers, options.threads + spare, options.latency) as cluster:
            empty = cluster.run(directory / "one", jobs=slots)
            full = cluster.run(wave, jobs=slots)
        elapsed_s = full.elapsed_s - (empty.elapsed_s - options.latency)
        share = full.items * options.latency / (elapsed_s * slots)
        _print(f"efficiency     {share:.1%} of {slots} slots, with requests of {options.latency:g} s")
        for count in options.memory_items:
            many = write_recordings(directory / f"many-{count}", count)
            with Cluster(directory / f"memory-{count}", options.workers, options.threads + spare, 0.0) as cluster:
                peak = cluster.run(many, jobs=slots).peak_bytes
            _print(f"memory         {peak / 1e6:.0f} MB for {count:,} items")
        _print(f"\nworkers with {options.threads} slots, requests of {options.latency:g} s:")
        _print("workers  they can send/s  rate/s  limited by  days for 10 million")
        for row in predict(client_s, scheduler_s, steps["ledger"], options.latency, options.threads):
            _print("{:>7}  {:>15}  {:>6}  {:10}  {}".format(*row))


if __name__ == "__main__":
    main()
