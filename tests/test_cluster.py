"""Batches on a Dask cluster: a real scheduler and worker processes on loopback, and the mock gateway."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from audiocli.core.batch.output_paths import BatchItem
from audiocli.errors import OutputError
from audiocli.mock import KEYS, NoFault, Stall, Status
from audiocli.storage.manifest import FailureRecord
from tests.conftest import CommandLine, Result
from tests.object_store import SECRET, ObjectStoreServer
from tests.requirements import require_packages
from tests.test_batch import LONG_CHUNK_COUNT, build_transcript, write_long_recording, write_recording
from tests.test_object_stores import bucket, make_recording, moto_port, store  # noqa: F401 - fixtures
from tests.test_processes import Program

ROOT = Path(__file__).parent.parent
# The nightly run has 1,000.
FILE_COUNT = int(os.environ.get("AUDIOCLI_TEST_CLUSTER_FILES", "60"))
START_TIMEOUT_S = 60.0


@dataclass
class LocalDask:
    """A scheduler and worker processes. Each worker has directories of its own, as if it were another machine."""

    directory: Path
    arguments: tuple[str, ...] = ()
    scheme: str = "tcp"
    variables: dict[str, str] = field(default_factory=dict)
    scheduler: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        content = json.loads((self.directory / "scheduler.json").read_text())
        return str(content["address"])

    def start(self, worker_count: int = 3) -> LocalDask:
        self.directory.mkdir(parents=True, exist_ok=True)
        scheduler_file = self.directory / "scheduler.json"
        scheduler = ["dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        self.scheduler = self._start(
            [*scheduler, "--scheduler-file", str(scheduler_file), "--protocol", self.scheme], {}
        )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not scheduler_file.exists() or not scheduler_file.read_text().endswith("}"):
            assert time.monotonic() < deadline_s and self.scheduler.poll() is None, "no scheduler"
            time.sleep(0.02)
        for _ in range(worker_count):
            self.add_worker()
        self.wait_for_workers(worker_count)
        return self

    def add_worker(self, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        home = self.directory / f"worker-{len(self.workers)}"
        environment = {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "OPENROUTER_API_KEY": KEYS["openrouter"],
            **self.variables,
            **variables,
        }
        command = ["dask_worker", "--scheduler-file", str(self.directory / "scheduler.json"), "--no-nanny"]
        options = ["--nthreads", "2", "--host", "127.0.0.1", "--no-dashboard", "--memory-limit", "0"]
        scratch = ["--local-directory", str(home / "dask"), "--protocol", self.scheme]
        home.mkdir(exist_ok=True)
        process = self._start([*command, *options, *scratch, *arguments], environment)
        self.workers.append(process)
        return process

    def _start(self, command: list[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.directory / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{command[0]}", *command[1:], *self.arguments],
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables},
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_for_workers(self, count: int) -> None:
        """Wait until the log of the scheduler has this number of workers."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while (self.directory / "log.txt").read_text().count("Register worker addr") < count:
            assert time.monotonic() < deadline_s, (self.directory / "log.txt").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        for process in filter(None, (*self.workers, self.scheduler)):
            if process.poll() is None:
                process.kill()
            process.wait(20)


@pytest.fixture(scope="module")
def shared_dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalDask]:
    """A cluster for tests that do not change it."""
    require_packages("distributed", extras="cluster")
    dask = LocalDask(tmp_path_factory.mktemp("dask"))
    try:
        yield dask.start()
    finally:
        dask.stop()


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[LocalDask]:
    """A cluster of one test."""
    require_packages("distributed", extras="cluster")
    dask = LocalDask(tmp_path / "dask")
    try:
        yield dask
    finally:
        dask.stop()


@pytest.fixture
def program(audiocli: CommandLine) -> Iterator[Program]:
    program = Program(audiocli)
    yield program
    program.kill_all()


@pytest.fixture
def directory(audiocli: CommandLine, tmp_path: Path) -> Path:
    audiocli.gateway.set_transcript(build_transcript)
    directory = tmp_path / "recordings"
    for number in range(24):
        write_recording(directory / f"{number % 3}" / f"{number:03}.wav")
    return directory


def read_tree(directory: Path) -> dict[str, bytes]:
    """Return the content of all files but those that a killed worker has left unfinished."""
    paths = (path for path in directory.rglob("*") if path.is_file() and not path.name.endswith(".part"))
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def sum_ledger(audiocli: CommandLine) -> int:
    return sum(entry["cost_nanousd"] or 0 for entry in audiocli.read_ledger_entries())


def count_sent(audiocli: CommandLine) -> Counter[str | None]:
    return Counter(request.audio_sha256 for request in audiocli.gateway.posts if request.complete)


def run_on(dask: LocalDask, audiocli: CommandLine, *arguments: str | Path) -> Result:
    return audiocli("transcribe", *arguments, "--executor", "dask", "--scheduler", dask.url)


def start_batch(
    program: Program, dask: LocalDask, directory: Path, output: Path, *options: str
) -> subprocess.Popen[bytes]:
    """Start a client for a directory of recordings."""
    arguments = ("transcribe", directory, "-R", "-O", output, *options)
    return program.start(*arguments, "--executor", "dask", "--scheduler", dask.url)


def kill_client_that_waits(
    program: Program, dask: LocalDask, audiocli: CommandLine, directory: Path, output: Path, *options: str
) -> None:
    """Start a client, and kill it while two workers wait for responses to two requests each. They stay held."""
    audiocli.gateway.hold_responses()
    process = start_batch(program, dask, directory, output, *options)
    audiocli.gateway.wait_for_held_responses(4)
    process.kill()
    process.communicate(timeout=20)


def test_outputs_and_ledger_equal_those_of_the_local_executor(
    shared_dask: LocalDask, audiocli: CommandLine, tmp_path: Path
) -> None:
    audiocli.gateway.set_transcript(build_transcript)
    directory = tmp_path / "recordings"
    for number in range(FILE_COUNT):
        write_recording(directory / f"{number % 7}" / f"{number:04}.wav")
    formats = ("-f", "txt,srt,html,tsv")
    local = audiocli(
        *("transcribe", directory, "-R", "-O", tmp_path / "local", *formats),
        variables={"XDG_DATA_HOME": str(tmp_path / "other"), "AUDIOCLI_LEDGER": str(tmp_path / "other.sqlite3")},
    )
    assert local.code == 0, local.err
    sent_before, billed_before = len(audiocli.gateway.posts), audiocli.gateway.billed_nanousd

    r = run_on(shared_dask, audiocli, directory, "-R", "-O", tmp_path / "remote", *formats, "--json")

    assert r.code == 0, r.err
    assert read_tree(tmp_path / "remote") == read_tree(tmp_path / "local")
    assert len(audiocli.gateway.posts) - sent_before == FILE_COUNT == len(audiocli.read_ledger_entries())
    assert sum_ledger(audiocli) == audiocli.gateway.billed_nanousd - billed_before > 0
    assert {entry["outcome"] for entry in audiocli.read_ledger_entries()} == {"ok"}
    summary = json.loads(r.out.splitlines()[-1])["summary"]
    assert (summary["transcribed"], summary["requests"]) == (FILE_COUNT, FILE_COUNT)
    assert KEYS["openrouter"].encode() not in b"".join(
        path.read_bytes() for path in shared_dask.directory.rglob("*") if path.is_file()
    )

    again = run_on(shared_dask, audiocli, directory, "-R", "-O", tmp_path / "remote", *formats)
    assert (again.code, again.requests) == (0, [])
    assert f"{FILE_COUNT} unchanged" in again.err


def test_long_recordings_are_sent_in_chunks(shared_dask: LocalDask, audiocli: CommandLine, tmp_path: Path) -> None:
    # Chunks are encoded again each time, so their bytes differ.
    audiocli.gateway.set_transcript(lambda audio, seconds: f"words of {seconds:.2f} seconds.")
    directory = tmp_path / "recordings"
    for number in range(3):
        write_recording(directory / f"{number}.wav", f"Recording {number} has some thirty seconds. " * 12)
    options = ("--max-chunk", "10", "-f", "txt,srt,html")
    local = audiocli(
        *("transcribe", directory, "-O", tmp_path / "local", *options),
        variables={"XDG_DATA_HOME": str(tmp_path / "other"), "AUDIOCLI_LEDGER": str(tmp_path / "other.sqlite3")},
    )
    sent_before = len(audiocli.gateway.posts)

    r = run_on(shared_dask, audiocli, directory, "-O", tmp_path / "remote", *options)

    assert (local.code, r.code) == (0, 0), r.err
    assert len(audiocli.gateway.posts) - sent_before == sent_before >= 9
    assert max(count_sent(audiocli).values()) == 1
    assert read_tree(tmp_path / "remote") == read_tree(tmp_path / "local")
    assert {entry["outcome"] for entry in audiocli.read_ledger_entries()} == {"ok"}


# Ends a worker that opens a recording of this name, as a fault in a decoder would.
POISON = """
import os, sys

def end(event, arguments):
    if event == "open" and str(arguments[0]).endswith("poison.wav"):
        os.kill(os.getpid(), 9)

sys.addaudithook(end)
"""


def test_recording_that_ends_its_workers_is_given_up(
    dask: LocalDask, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    write_recording(directory / "poison.wav")
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "sitecustomize.py").write_text(POISON)
    dask.variables = {"PYTHONPATH": f"{tmp_path / 'stub'}:{ROOT}"}
    dask.start(5)

    r = run_on(dask, audiocli, directory, "-R", "-O", tmp_path / "out", "--json")

    documents = [json.loads(line) for line in r.out.splitlines()]
    # Requests of other recordings may have been in flight on those workers.
    errors = {Path(item["source"]).name: item["error"] for item in documents if item.get("status") == "failed"}
    assert r.code == 3 and "workers ended while they processed the recording" in errors["poison.wav"]["message"], r.err
    # Dask tries a task on four workers. Their connections end before their processes do.
    deadline_s = time.monotonic() + 20
    while [worker.poll() for worker in dask.workers].count(None) > 1 and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert [worker.poll() for worker in dask.workers].count(None) == 1
    assert len(read_tree(tmp_path / "out")) == 25 - len(errors)
    assert max(count_sent(audiocli).values()) == 1


@pytest.mark.parametrize(
    ("selection", "unsent_count"),
    [
        (("--max-chunk", "10"), LONG_CHUNK_COUNT - 2),
        (("--range", "0-5", "--range", "10-15", "--range", "20-25"), 1),
    ],
    ids=["chunks", "parts"],
)
def test_chunks_and_parts_of_a_lost_worker_are_not_sent_again(
    dask: LocalDask, audiocli: CommandLine, tmp_path: Path, selection: tuple[str, ...], unsent_count: int
) -> None:
    write_long_recording(tmp_path / "recordings")
    options = ("-O", tmp_path / "out", "-j", "1", *selection)
    dask.start(1)
    audiocli.gateway.queue_faults(NoFault(), NoFault(), Status(400))

    failed = run_on(dask, audiocli, tmp_path / "recordings", *options)
    dask.workers[0].kill()
    dask.add_worker()
    dask.wait_for_workers(2)
    second = run_on(dask, audiocli, tmp_path / "recordings", *options)

    assert (failed.code, len(failed.posts)) == (3, 3), failed.err
    assert (second.code, len(second.posts)) == (0, unsent_count), second.err
    chunks = Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "texts"
    assert list(chunks.iterdir()) == []


def test_state_that_a_worker_reports_in_vain_is_a_warning(tmp_path: Path) -> None:
    require_packages("distributed", extras="cluster")
    from audiocli.cluster import Message
    from audiocli.core.batch.cluster_executor import ClusterExecutor

    class ReadOnlyState:
        def record_failure(self, key: str, failure: FailureRecord) -> None:
            raise OutputError("cannot write the manifest")

    messages: list[str] = []
    batch: Any = SimpleNamespace(state=ReadOnlyState())
    ctx: Any = SimpleNamespace(limiter=SimpleNamespace(), info=messages.append)
    nothing: Any = None
    executor = ClusterExecutor(nothing, batch, shares_results=False)
    executor.add_run(1, BatchItem(tmp_path / "a.wav", ()), nothing, ctx)

    executor.receive(Message("tcp://worker", 1, "execution", "record_failure", ("key", FailureRecord("m", 7, "c"))))

    assert messages == [f"warning: {tmp_path / 'a.wav'}: cannot write the manifest"]


def test_recordings_run_on_workers_with_the_resource_only(
    dask: LocalDask, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    audiocli.gateway.latency_s = 0.02
    dask.start(1)
    dask.add_worker("--resources", "GPU=1")
    dask.wait_for_workers(2)

    r = run_on(dask, audiocli, directory, "-R", "-O", tmp_path / "out", "--resources", "GPU=1")

    assert (r.code, len(r.posts)) == (0, 24), r.err
    # Workers store what they receive. That with one GPU has two threads.
    stored = [list((dask.directory / f"worker-{index}").rglob("transcripts/*.json")) for index in range(2)]
    assert [len(paths) for paths in stored] == [0, 24]
    assert audiocli.gateway.peak_in_flight == 1


def test_another_format_is_written_without_sending(
    shared_dask: LocalDask, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    assert run_on(shared_dask, audiocli, directory, "-R", "-O", tmp_path / "out").code == 0

    r = run_on(shared_dask, audiocli, directory, "-R", "-O", tmp_path / "out", "-f", "json")

    assert (r.code, r.requests) == (0, [])
    assert "24 written without sending" in r.err
    assert len(list((tmp_path / "out").rglob("*.json"))) == 24


def test_edited_output_is_left_unchanged(
    shared_dask: LocalDask, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    assert run_on(shared_dask, audiocli, directory, "-R", "-O", tmp_path / "out").code == 0
    edited = tmp_path / "out" / "0" / "000.txt"
    edited.write_text("mine")

    r = run_on(shared_dask, audiocli, directory, "-R", "-O", tmp_path / "out")

    assert (r.code, r.requests, edited.read_text()) == (0, [], "mine")


def test_local_workers(audiocli: CommandLine, directory: Path, tmp_path: Path) -> None:
    require_packages("distributed", "cryptography", extras="cluster")

    r = audiocli("transcribe", directory, "-R", "-O", tmp_path / "out", "--executor", "dask", "--workers", "2")

    assert (r.code, len(r.posts), len(r.ledger)) == (0, 24, 24), r.err
    assert len(read_tree(tmp_path / "out")) == 24


def test_spending_limit_is_exact(
    shared_dask: LocalDask, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    first = run_on(shared_dask, audiocli, directory / "0" / "000.wav", "-O", tmp_path / "one", "--force")
    assert first.code == 0, first.err
    price_nanousd = audiocli.gateway.billed_nanousd
    limit_usd = price_nanousd * 5.5 / 1e9

    r = run_on(shared_dask, audiocli, directory, "-R", "-O", tmp_path / "out", "--max-cost", f"{limit_usd:.12f}")

    assert r.code == 5, r.err
    assert len(r.posts) == 5
    assert sum(entry["cost_nanousd"] for entry in r.ledger) <= limit_usd * 1e9
    assert audiocli.gateway.billed_nanousd == sum_ledger(audiocli)


def test_jobs_limit_the_whole_run(shared_dask: LocalDask, audiocli: CommandLine, directory: Path) -> None:
    audiocli.gateway.latency_s = 0.05

    r = run_on(shared_dask, audiocli, directory, "-R", "-j", "2")

    assert r.code == 0, r.err
    assert audiocli.gateway.peak_in_flight == 2


def test_retry_after_pauses_all_workers(shared_dask: LocalDask, audiocli: CommandLine, directory: Path) -> None:
    from audiocli.mock import RateLimitBurst

    audiocli.gateway.queue_faults(RateLimitBurst(8, 1.0))

    r = run_on(shared_dask, audiocli, directory, "-R")

    assert r.code == 0, r.err
    assert Counter(entry["outcome"] for entry in audiocli.read_ledger_entries())["ok"] == 24
    assert sum_ledger(audiocli) == audiocli.gateway.billed_nanousd


def test_content_is_sent_once_if_two_recordings_have_it(
    shared_dask: LocalDask, audiocli: CommandLine, tmp_path: Path
) -> None:
    audiocli.gateway.set_transcript(build_transcript)
    for number in range(8):
        write_recording(tmp_path / "same" / f"{number}.wav", "the same")

    r = run_on(shared_dask, audiocli, tmp_path / "same", "-R")

    assert (r.code, len(r.posts), len(read_tree(tmp_path / "same"))) == (0, 1, 16), r.err


def test_two_clients_share_the_work(
    shared_dask: LocalDask, program: Program, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    audiocli.gateway.latency_s = 0.05
    arguments = ("transcribe", directory, "-R", "-O", tmp_path / "out", "--executor", "dask", "--scheduler")
    processes = [program.start(*arguments, shared_dask.url) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len(read_tree(tmp_path / "out")) == 24
    assert set(count_sent(audiocli).values()) == {1}
    assert sum_ledger(audiocli) == audiocli.gateway.billed_nanousd


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_worker_never_causes_a_second_request(
    dask: LocalDask, program: Program, audiocli: CommandLine, directory: Path, tmp_path: Path, seed: int
) -> None:
    audiocli.gateway.latency_s = 0.05
    dask.start()
    process = program.start(
        *(
            "transcribe",
            directory,
            "-R",
            "-O",
            tmp_path / "out",
            "--max-cost",
            "1",
            "--executor",
            "dask",
            "--scheduler",
            dask.url,
        )
    )
    audiocli.gateway.wait_for_requests(random.Random(seed).randint(3, 18))
    dask.workers[seed % 3].kill()
    _, err = process.communicate(timeout=60)

    assert process.returncode in (0, 3), err
    assert set(count_sent(audiocli).values()) == {1}
    entries = audiocli.read_ledger_entries()
    unknown = [entry for entry in entries if entry["outcome"] == "unknown"]
    assert Counter(entry["outcome"] for entry in entries)["reserved"] == 0
    # What was in flight on the killed worker is unknown, and counts with its maximum.
    known_nanousd = sum(entry["cost_nanousd"] or entry["most_nanousd"] for entry in entries)
    assert known_nanousd >= audiocli.gateway.billed_nanousd
    # A worker sends a transcript before it settles the entry, so that of an unknown one may be there.
    failed_count = 24 - len(read_tree(tmp_path / "out"))
    assert failed_count <= len(unknown) <= 2
    if failed_count:
        r = run_on(dask, audiocli, directory, "-R", "-O", tmp_path / "out")
        assert (r.code, r.posts) == (3, [])
        r = run_on(dask, audiocli, directory, "-R", "-O", tmp_path / "out", "--retry-failed")
        assert (r.code, len(r.posts)) == (0, failed_count), r.err


def test_killed_worker_that_holds_finished_results(
    dask: LocalDask, program: Program, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    """The client stands still while requests end, so that their results are on the worker only."""
    dask.start(1)
    audiocli.gateway.hold_responses()
    process = start_batch(program, dask, directory, tmp_path / "out")
    audiocli.gateway.wait_for_held_responses(2)
    process.send_signal(signal.SIGSTOP)
    audiocli.gateway.release_responses()
    deadline_s = time.monotonic() + 20
    while len(list(dask.directory.glob("worker-0/data/audiocli/transcripts/*.json"))) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    time.sleep(0.2)
    dask.workers[0].kill()
    dask.workers[0].wait(20)
    dask.add_worker()
    dask.wait_for_workers(2)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=60)

    assert set(count_sent(audiocli).values()) == {1}
    assert sum(count_sent(audiocli).values()) == 24
    assert process.returncode == 0, err
    assert b"24 transcribed" in err
    assert len(read_tree(tmp_path / "out")) == 24
    assert sum_ledger(audiocli) == audiocli.gateway.billed_nanousd


def test_retired_worker_never_causes_a_second_request(
    dask: LocalDask, program: Program, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    """Dask runs the tasks of a worker that leaves elsewhere, while they still run there."""
    dask.start(2)
    audiocli.gateway.hold_responses()
    process = start_batch(program, dask, directory, tmp_path / "out")
    audiocli.gateway.wait_for_held_responses(4)
    retire = (
        "import sys, distributed\n"
        "with distributed.Client(sys.argv[1]) as client:\n"
        "    client.retire_workers([next(iter(client.scheduler_info(n_workers=-1)['workers']))], close_workers=True)\n"
    )
    retirement = subprocess.Popen([sys.executable, "-c", retire, dask.url], stderr=subprocess.DEVNULL)
    try:
        retirement.wait(30)
    finally:
        retirement.kill()
    audiocli.gateway.release_responses()
    _, err = process.communicate(timeout=90)

    assert process.returncode in (0, 3), err
    assert set(count_sent(audiocli).values()) == {1}
    assert sum(count_sent(audiocli).values()) == 24
    assert Counter(entry["outcome"] for entry in audiocli.read_ledger_entries())["reserved"] == 0


def test_killed_client_is_run_again(
    dask: LocalDask, program: Program, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    audiocli.gateway.latency_s = 0.05
    dask.start(2)
    process = start_batch(program, dask, directory, tmp_path / "out")
    audiocli.gateway.wait_for_requests(8)
    process.kill()
    process.communicate(timeout=20)

    r = run_on(dask, audiocli, directory, "-R", "-O", tmp_path / "out")

    assert (r.code, len(read_tree(tmp_path / "out"))) == (0, 24), r.err
    # Only what was in progress at the kill may be sent again: two workers with two threads.
    assert sum(count_sent(audiocli).values()) <= 24 + 4


def test_clients_on_two_machines_share_the_work(
    shared_dask: LocalDask, program: Program, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    """They have different data directories, and share results and claims."""
    audiocli.gateway.latency_s = 0.05
    results = ("--results-url", f"file://{tmp_path}/results")
    arguments = ("transcribe", directory, "-R", "-O", tmp_path / "out", *results, "--scheduler", shared_dask.url)
    other = CommandLine(tmp_path, audiocli.gateway, dict(audiocli.variables))
    other.variables |= {"XDG_DATA_HOME": str(tmp_path / "other"), "AUDIOCLI_LEDGER": str(tmp_path / "other.sqlite3")}
    other_program = Program(other)
    processes = [program.start(*arguments), other_program.start(*arguments)]
    try:
        outputs = [process.communicate(timeout=60) for process in processes]
    finally:
        other_program.kill_all()

    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len(read_tree(tmp_path / "out")) == 24
    assert set(count_sent(audiocli).values()) == {1}
    assert sum_ledger(audiocli) + sum_ledger(other) == audiocli.gateway.billed_nanousd
    assert list((tmp_path / "results" / "claims").glob("*.claim")) == []


def test_killed_client_loses_nothing_with_shared_results(
    dask: LocalDask, program: Program, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    dask.start(2)
    results = ("--results-url", f"file://{tmp_path}/results")
    kill_client_that_waits(program, dask, audiocli, directory, tmp_path / "out", *results)
    audiocli.gateway.release_responses()
    deadline_s = time.monotonic() + 20
    while len(list((tmp_path / "results" / "transcripts").glob("*.json"))) < 4:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    # The claims of the killed client expire.
    for path in (tmp_path / "results" / "claims").iterdir():
        os.utime(path, (time.time() - 120, time.time() - 120))

    r = run_on(dask, audiocli, directory, "-R", "-O", tmp_path / "out", *results)

    assert (r.code, len(read_tree(tmp_path / "out"))) == (0, 24), r.err
    assert (len(r.posts), set(count_sent(audiocli).values())) == (20, {1})
    assert Counter(entry["outcome"] for entry in audiocli.read_ledger_entries()) == {"ok": 20, "reserved": 4}


def test_next_client_removes_what_a_killed_one_has_left(
    dask: LocalDask, program: Program, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    import distributed

    done = tmp_path / "done"
    write_recording(done / "a.wav")
    assert audiocli("transcribe", done, "-R").code == 0
    dask.start(2)
    results = ("--results-url", f"file://{tmp_path}/results")
    kill_client_that_waits(program, dask, audiocli, directory, tmp_path / "out", *results)
    with distributed.Client(dask.url, set_as_default=False) as client:

        def list_plugins() -> list[str]:
            names = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins))
            return [name for name in names if name.startswith("audiocli")]

        assert len(list_plugins()) == 1
        deadline_s = time.monotonic() + 20
        while len(client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.clients))) > 2:
            assert time.monotonic() < deadline_s  # the scheduler has one of its own
            time.sleep(0.02)

        # The requests of the killed client are still running.
        r = run_on(dask, audiocli, done, "-R")

        assert (r.code, list_plugins()) == (0, []), r.err
    audiocli.gateway.release_responses()
    deadline_s = time.monotonic() + 20
    while len(list((tmp_path / "results" / "transcripts").glob("*.json"))) < 4:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_killed_client_loses_nothing_with_results_in_a_store(
    dask: LocalDask,
    program: Program,
    audiocli: CommandLine,
    directory: Path,
    tmp_path: Path,
    store: ObjectStoreServer,  # noqa: F811 - fixtures
    bucket: str,  # noqa: F811
) -> None:
    dask.variables = store.variables
    dask.start(2)
    results = ("--results-url", f"s3://{bucket}/results")
    kill_client_that_waits(program, dask, audiocli, directory, tmp_path / "out", *results)
    deadline_s = time.monotonic() + 20
    # The workers hear of the end from the scheduler.
    time.sleep(1)
    audiocli.gateway.release_responses()
    while len(transcripts := store.list_keys(bucket, "results/")) - len(store.list_keys(bucket, "results/claims/")) < 4:
        assert time.monotonic() < deadline_s, transcripts
        time.sleep(0.05)
    for key in store.list_keys(bucket, "results/claims/"):
        store.delete(bucket, key)  # they expire
    # Workers that have nothing stored.
    for worker in dask.workers[:2]:
        worker.kill()
    dask.add_worker()
    dask.add_worker()
    dask.wait_for_workers(4)

    r = run_on(dask, audiocli, directory, "-R", "-O", tmp_path / "out", *results)

    assert (r.code, len(read_tree(tmp_path / "out"))) == (0, 24), r.err
    assert (len(r.posts), set(count_sent(audiocli).values())) == (20, {1})


def test_lost_scheduler_ends_the_batch(
    dask: LocalDask, program: Program, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    dask.start(2)
    audiocli.gateway.queue_faults(*[NoFault()] * 4)
    audiocli.gateway.add_default_fault(Stall(None, 30))
    process = start_batch(program, dask, directory, tmp_path / "out")
    audiocli.gateway.wait_for_requests(7)
    assert dask.scheduler is not None
    dask.scheduler.kill()
    _, err = process.communicate(timeout=60)

    assert process.returncode == 3, err
    assert b"lost the connection to the scheduler" in err and b"Traceback" not in err
    outcomes = Counter(entry["outcome"] for entry in audiocli.read_ledger_entries())
    assert outcomes["reserved"] == 0 and outcomes["unknown"] >= 3


def interrupt_held_batch(
    dask: LocalDask, program: Program, audiocli: CommandLine, directory: Path, output: Path
) -> tuple[subprocess.Popen[bytes], bytes]:
    """Press Ctrl-C while three responses are held. Return the process and the line that it prints."""
    audiocli.gateway.hold_responses()
    process = start_batch(program, dask, directory, output, "-j", "3")
    audiocli.gateway.wait_for_held_responses(3)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    return process, process.stderr.readline()


def test_first_ctrl_c_finishes_what_is_in_progress(
    shared_dask: LocalDask, program: Program, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    process, line = interrupt_held_batch(shared_dask, program, audiocli, directory, tmp_path / "out")
    audiocli.gateway.release_responses()
    _, rest = process.communicate(timeout=60)
    err = line + rest

    assert process.returncode == 130, err
    assert b"press Ctrl-C again" in err and b"recordings are stored (3 transcribed)" in err
    assert (len(read_tree(tmp_path / "out")), len(audiocli.gateway.posts)) == (3, 3)
    assert [entry["outcome"] for entry in audiocli.read_ledger_entries()] == ["ok"] * 3


def test_second_ctrl_c_cancels(
    shared_dask: LocalDask, program: Program, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    process, _ = interrupt_held_batch(shared_dask, program, audiocli, directory, tmp_path / "out")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert b"Traceback" not in err
    assert [entry["outcome"] for entry in audiocli.read_ledger_entries()] == ["cancelled"] * 3
    assert read_tree(tmp_path / "out") == {}


def test_worker_with_another_version_is_refused(
    dask: LocalDask, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    package = tmp_path / "old" / "audiocli"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "0.0.1"\n')
    dask.start(1)
    dask.add_worker(PYTHONPATH=str(tmp_path / "old"))
    dask.wait_for_workers(2)

    r = run_on(dask, audiocli, directory, "-R")

    assert (r.code, r.posts) == (2, []), r.err
    assert "has audiocli 0.0.1, and this is" in r.err


def test_worker_that_joins_late_without_a_key_ends_the_command(
    dask: LocalDask, program: Program, audiocli: CommandLine, directory: Path
) -> None:
    dask.start(1)
    audiocli.gateway.hold_responses()
    process = program.start("transcribe", directory, "-R", "--executor", "dask", "--scheduler", dask.url)
    audiocli.gateway.wait_for_held_responses(2)
    dask.add_worker(OPENROUTER_API_KEY="")
    dask.wait_for_workers(2)
    audiocli.gateway.release_responses()
    _, err = process.communicate(timeout=60)

    assert process.returncode == 4, err
    assert b"has no key for openrouter" in err and b"Traceback" not in err


def test_workers_that_join_late_get_recordings(
    dask: LocalDask, program: Program, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    dask.start(1)
    audiocli.gateway.hold_responses()
    process = start_batch(program, dask, directory, tmp_path / "out")
    audiocli.gateway.wait_for_held_responses(2)
    for _ in range(3):
        dask.add_worker()

    # Two threads each.
    audiocli.gateway.wait_for_held_responses(8, 30)
    audiocli.gateway.release_responses()
    _, err = process.communicate(timeout=60)

    assert (process.returncode, len(read_tree(tmp_path / "out"))) == (0, 24), err


def test_worker_that_is_lost_while_it_waits_for_a_permit_costs_nothing(
    dask: LocalDask, program: Program, audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    """Only one request may be in flight. The other worker, or the same one, sends what the lost one has waited for."""
    dask.start(2)
    audiocli.gateway.hold_responses()
    process = start_batch(program, dask, directory, tmp_path / "out", "-j", "1")
    audiocli.gateway.wait_for_held_responses(1)
    time.sleep(0.5)  # the other threads ask for permits
    dask.workers[0].kill()
    dask.workers[0].wait(20)
    dask.add_worker()
    dask.wait_for_workers(3)
    audiocli.gateway.release_responses()
    _, err = process.communicate(timeout=60)

    outcomes = Counter(entry["outcome"] for entry in audiocli.read_ledger_entries())
    assert process.returncode in (0, 3), err
    assert set(count_sent(audiocli).values()) <= {1}
    # What the killed worker had sent, if it was that one.
    assert outcomes["unknown"] <= 1 and outcomes["reserved"] == 0, outcomes
    assert outcomes["ok"] == len(read_tree(tmp_path / "out")) == 24 - outcomes["unknown"]


def test_worker_without_key_is_named(dask: LocalDask, audiocli: CommandLine, directory: Path) -> None:
    dask.start(1)
    dask.add_worker(OPENROUTER_API_KEY="")
    dask.wait_for_workers(2)

    r = run_on(dask, audiocli, directory, "-R")

    assert (r.code, r.posts) == (4, []), r.err
    assert "worker tcp://127.0.0.1:" in r.err and "has no key for openrouter" in r.err


def write_certificates(directory: Path) -> dict[str, str]:
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    directory.mkdir()
    paths = {name: str(directory / f"{name}.pem") for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    certificate.private_key_pem.write_to_path(paths["key"])
    certificate.cert_chain_pems[0].write_to_path(paths["cert"])
    return paths


def test_tls_with_a_private_authority(dask: LocalDask, audiocli: CommandLine, directory: Path, tmp_path: Path) -> None:
    own, other = write_certificates(tmp_path / "own"), write_certificates(tmp_path / "other")
    dask.scheme = "tls"
    dask.arguments = ("--tls-ca-file", own["ca"], "--tls-cert", own["cert"], "--tls-key", own["key"])
    dask.start(1)
    arguments = [f"--tls-{name}={path}" for name, path in own.items()]

    r = run_on(dask, audiocli, directory / "0", "-R", *arguments)
    assert (r.code, len(r.posts)) == (0, 8), r.err

    table = "".join(f'tls_{name} = "{path}"\n' for name, path in own.items())
    audiocli.write_config(f'[cluster]\nscheduler = "{dask.url}"\n{table}')
    r = audiocli("transcribe", directory / "1", "-R", "--executor", "dask")
    assert (r.code, len(r.posts)) == (0, 8), r.err

    audiocli.write_config("")
    r = run_on(dask, audiocli, directory / "2", "-R", *(f"--tls-{name}={path}" for name, path in other.items()))
    assert (r.code, r.posts) == (7, []), r.err
    r = run_on(dask, audiocli, directory / "2", "-R")
    assert (r.code, r.posts) == (2, []), r.err
    assert "--tls-ca" in r.err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--executor", "dusk"], 2, "did you mean 'dask'?"),
        (["--executor", "dask"], 2, "needs --scheduler URL or --workers N"),
        (["--executor", "local", "--workers", "2"], 2, "cannot be used with --workers"),
        (["--executor", "dask", "--scheduler", "tcp://10.0.0.1:8786"], 2, "needs TLS"),
        (["--scheduler", "head:8786"], 2, "expected tls://HOST:PORT"),
        (["--scheduler", "tls://head:99999"], 2, "--scheduler tls://head:99999"),
        (["--scheduler", "http://head:80"], 2, "expected tls://HOST:PORT"),
        (["--workers", "0"], 2, "must be between 1 and 256"),
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], 2, "cannot be used with --workers"),
        (["--resources", "GPU=1"], 2, "needs --executor dask"),
        (["--workers", "1", "--resources", "GPU"], 2, "expected NAME=N"),
        (["--workers", "2", "--watch"], 2, "cannot be used with --watch"),
        (["--scheduler", "tcp://127.0.0.1:1"], 7, "cannot connect to tcp://127.0.0.1:1"),
        (["--scheduler", "tls://127.0.0.1:1", "--tls-ca", "/nowhere"], 2, "no such file: /nowhere"),
    ],
)
def test_invalid_options(audiocli: CommandLine, directory: Path, arguments: list[str], code: int, text: str) -> None:
    require_packages("distributed", extras="cluster")

    r = audiocli("transcribe", directory, "-R", *arguments)

    assert (r.code, r.requests) == (code, []), r.err
    assert text in r.err


def test_one_recording_is_refused(audiocli: CommandLine, directory: Path) -> None:
    r = audiocli("transcribe", directory / "0" / "000.wav", "--workers", "2")

    assert r.code == 2 and "for several recordings" in r.err


def test_objects(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:  # noqa: F811 - fixtures
    require_packages("distributed", "cryptography", extras="cluster")
    for number in range(12):
        store.put(bucket, f"raw/{number % 2}/{number:02}.wav", make_recording(f"recording {number}"))
    arguments = ("transcribe", f"s3://{bucket}/raw", "-R", "-O", f"s3://{bucket}/texts", "--workers", "2")

    r = audiocli(*arguments)

    assert (r.code, len(r.posts)) == (0, 12), r.err
    assert len(store.list_keys(bucket, "texts/")) == 12
    assert sum_ledger(audiocli) == audiocli.gateway.billed_nanousd
    again = audiocli(*arguments)
    assert (again.code, again.requests) == (0, []), again.err


# --- objects ---------------------------------------------------------------------------------------------------------


def put_objects(store: ObjectStoreServer, bucket: str, count: int) -> None:  # noqa: F811 - fixtures
    for number in range(count):
        store.put(bucket, f"raw/{number % 7}/{number:04}.wav", make_recording(f"recording {number}"))


def read_objects(store: ObjectStoreServer, bucket: str, prefix: str) -> dict[str, bytes | None]:  # noqa: F811
    return {key.removeprefix(prefix): store.get(bucket, key) for key in store.list_keys(bucket, prefix)}


def test_objects_equal_those_of_the_local_executor(
    dask: LocalDask,
    audiocli: CommandLine,
    store: ObjectStoreServer,  # noqa: F811 - fixtures
    bucket: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    dask.variables = store.variables
    dask.start(3)
    put_objects(store, bucket, FILE_COUNT)
    arguments = ("transcribe", f"s3://{bucket}/raw", "-R", "-f", "txt,srt")
    local = audiocli(
        *(*arguments, "-O", f"s3://{bucket}/local"),
        variables={"XDG_DATA_HOME": str(tmp_path / "other"), "AUDIOCLI_LEDGER": str(tmp_path / "other.sqlite3")},
    )
    assert local.code == 0, local.err
    billed_before = audiocli.gateway.billed_nanousd
    store.reset()

    r = audiocli(*arguments, "-O", f"s3://{bucket}/remote", "--scheduler", dask.url)

    assert r.code == 0, r.err
    remote = read_objects(store, bucket, "remote/")
    assert remote == read_objects(store, bucket, "local/") and len(remote) == 2 * FILE_COUNT
    assert Counter(request.audio_sha256 for request in r.posts).most_common(1)[0][1] == 1
    assert len(r.posts) == len(r.ledger) == FILE_COUNT
    assert {entry["outcome"] for entry in r.ledger} == {"ok"}
    assert sum_ledger(audiocli) == audiocli.gateway.billed_nanousd - billed_before > 0
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in dask.directory.rglob("*") if path.is_file())
    again = audiocli(*arguments, "-O", f"s3://{bucket}/remote", "--scheduler", dask.url)
    assert (again.code, again.requests) == (0, []), again.err


def test_workers_have_their_own_stores(
    dask: LocalDask,
    audiocli: CommandLine,
    store: ObjectStoreServer,  # noqa: F811 - fixtures
    bucket: str,  # noqa: F811
) -> None:
    """The worker has the address and the credentials in its configuration, the client in its environment."""
    put_objects(store, bucket, 4)
    configuration = dask.directory / "worker-0" / "config" / "audiocli" / "config.toml"
    configuration.parent.mkdir(parents=True)
    configuration.write_text(
        f'[stores.tests]\nurl = "s3://{bucket}"\nendpoint = "{store.url}"\nregion = "us-east-1"\nallow_http = true\n'
        'access_key_id_env = "WORKER_ID"\nsecret_access_key_env = "WORKER_SECRET"\n'
    )
    dask.variables = {"WORKER_ID": "testing", "WORKER_SECRET": SECRET}
    dask.start(1)

    r = audiocli("transcribe", f"s3://{bucket}/raw", "-R", "-O", f"s3://{bucket}/texts", "--scheduler", dask.url)

    assert (r.code, len(r.posts)) == (0, 4), r.err
    assert len(store.list_keys(bucket, "texts/")) == 4


def test_worker_without_credentials_is_named(
    dask: LocalDask,
    audiocli: CommandLine,
    store: ObjectStoreServer,  # noqa: F811 - fixtures
    bucket: str,  # noqa: F811
) -> None:
    put_objects(store, bucket, 2)
    dask.variables = {"AWS_ENDPOINT_URL": store.url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    dask.start(1)

    r = audiocli("transcribe", f"s3://{bucket}/raw", "-R", "-O", f"s3://{bucket}/texts", "--scheduler", dask.url)

    assert (r.code, r.posts, store.list_keys(bucket, "texts/")) == (4, [], []), r.err
    assert "worker tcp://127.0.0.1:" in r.err and f"no credentials for s3://{bucket}" in r.err


def test_two_machines_send_each_object_once(
    dask: LocalDask,
    program: Program,
    audiocli: CommandLine,
    store: ObjectStoreServer,  # noqa: F811 - fixtures
    bucket: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Two clients with different data directories share results and claims in the store."""
    dask.variables = store.variables
    dask.start(2)
    put_objects(store, bucket, 24)
    audiocli.gateway.latency_s = 0.05
    outputs = ("-R", "-O", f"s3://{bucket}/texts", "--results-url", f"s3://{bucket}/results")
    arguments = ("transcribe", f"s3://{bucket}/raw", *outputs, "--scheduler", dask.url)
    other = CommandLine(tmp_path, audiocli.gateway, dict(audiocli.variables))
    other.variables |= {"XDG_DATA_HOME": str(tmp_path / "other"), "AUDIOCLI_LEDGER": str(tmp_path / "other.sqlite3")}
    other_program = Program(other)
    processes = [program.start(*arguments), other_program.start(*arguments)]
    try:
        results = [process.communicate(timeout=90) for process in processes]
    finally:
        other_program.kill_all()

    assert [process.returncode for process in processes] == [0, 0], results
    assert len(store.list_keys(bucket, "texts/")) == 24
    assert set(count_sent(audiocli).values()) == {1} and len(audiocli.gateway.posts) == 24
    assert sum_ledger(audiocli) + sum_ledger(other) == audiocli.gateway.billed_nanousd
    assert store.list_keys(bucket, "results/claims/") == []


def test_killed_workers_never_cause_a_second_request_for_an_object(
    dask: LocalDask,
    program: Program,
    audiocli: CommandLine,
    store: ObjectStoreServer,  # noqa: F811 - fixtures
    bucket: str,  # noqa: F811
) -> None:
    """Workers are killed at random moments over the run, and replaced. The first one holds finished results."""
    random_numbers = random.Random(22)
    moments = sorted(random_numbers.sample(range(6, FILE_COUNT - 12), max(2, FILE_COUNT // 100)))
    dask.variables = store.variables
    dask.start(3)
    put_objects(store, bucket, FILE_COUNT)
    audiocli.gateway.latency_s = 0.05
    outputs = ("-R", "-O", f"s3://{bucket}/texts", "--max-cost", "10")
    arguments = ("transcribe", f"s3://{bucket}/raw", *outputs, "--scheduler", dask.url)
    # Without -q, the pipe would be full after some 900 lines, because it is read at the end only.
    process = program.start(*arguments, "-q")
    alive = [0, 1, 2]
    for number, moment in enumerate(moments):
        audiocli.gateway.wait_for_requests(moment, 120)
        index = alive.pop(random_numbers.randrange(3))
        if number == 0:
            stop_client_until_worker_has_results(dask, process, audiocli, index)
        dask.workers[index].kill()
        dask.workers[index].wait(20)
        process.send_signal(signal.SIGCONT)
        alive.append(len(dask.workers))
        dask.add_worker()
    _, err = process.communicate(timeout=300)

    sent = count_sent(audiocli)
    entries = audiocli.read_ledger_entries()
    outcomes = Counter(entry["outcome"] for entry in entries)
    assert set(sent.values()) == {1}
    assert process.returncode in (0, 3), err
    assert outcomes["ok"] + outcomes["unknown"] == FILE_COUNT
    # A worker may have written an output that it could not report any more.
    written_count = len(store.list_keys(bucket, "texts/"))
    assert outcomes["ok"] <= written_count <= FILE_COUNT
    # What was in flight on a killed worker is unknown, and counts with its maximum.
    assert outcomes["reserved"] == 0 and outcomes["unknown"] <= 2 * len(moments)
    known_nanousd = sum(entry["cost_nanousd"] or entry["most_nanousd"] for entry in entries)
    assert known_nanousd >= audiocli.gateway.billed_nanousd
    r = audiocli(*arguments)
    assert (r.code, r.posts) == (3 if written_count < FILE_COUNT else 0, []), r.err
    r = audiocli(*arguments, "--retry-failed")
    assert (r.code, len(r.posts)) == (0, FILE_COUNT - written_count), r.err
    assert len(store.list_keys(bucket, "texts/")) == FILE_COUNT


def stop_client_until_worker_has_results(
    dask: LocalDask, process: subprocess.Popen[bytes], audiocli: CommandLine, index: int
) -> None:
    """Stop the client while all workers wait for responses, and wait until a worker has stored two results."""
    transcripts = dask.directory / f"worker-{index}" / "data" / "audiocli" / "transcripts"
    audiocli.gateway.hold_responses()
    audiocli.gateway.wait_for_held_responses(6, 30)
    process.send_signal(signal.SIGSTOP)
    stored_count = len(list(transcripts.glob("*.json")))
    audiocli.gateway.release_responses()
    deadline_s = time.monotonic() + 20
    while len(list(transcripts.glob("*.json"))) < stored_count + 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
