"""Test batches in real processes: Ctrl-C, kill -9 and concurrent batches."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from audiocli.mock import CutAfter, CutBeforeResponse, NoFault, RateLimitBurst, Stall, Status
from tests.conftest import CommandLine
from tests.test_batch import build_transcript, write_recording
from tests.test_processes import Program

FILE_COUNT = 24


@pytest.fixture
def program(audiocli: CommandLine) -> Program:
    return Program(audiocli)


@pytest.fixture
def directory(audiocli: CommandLine, tmp_path: Path) -> Path:
    audiocli.gateway.set_transcript(build_transcript)
    directory = tmp_path / "recordings"
    for number in range(FILE_COUNT):
        write_recording(directory / f"{number % 3}" / f"{number:02}.wav")
    return directory


def list_outputs(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.suffix == ".txt")


def wait_for_outputs(directory: Path, count: int, timeout_s: float = 10) -> None:
    deadline_s = time.monotonic() + timeout_s
    while (output_count := len(list_outputs(directory))) < count:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{output_count} of {count} outputs in {directory} after {timeout_s:g} s")
        time.sleep(0.02)


def are_outputs_correct(directory: Path) -> bool:
    """Return whether every existing output is complete and belongs to its recording."""
    return all(
        path.read_text() == build_transcript(path.with_suffix(".wav").read_bytes(), 0) + "\n"
        for path in list_outputs(directory)
    )


def list_part_files(directory: Path) -> list[Path]:
    return list(directory.rglob(".*.part"))


def count_requests_per_recording(audiocli: CommandLine) -> Counter[str | None]:
    """Count the complete requests. A process that was killed may have sent the head of one and not its body."""
    return Counter(request.audio_sha256 for request in audiocli.gateway.posts if request.complete)


def test_ctrl_c_preserves_finished_items_and_starts_no_further_item(
    program: Program, audiocli: CommandLine, directory: Path
) -> None:
    audiocli.gateway.queue_faults(*[NoFault()] * 6)
    audiocli.gateway.add_default_fault(Stall(None, 30))
    process = program.start("transcribe", directory, "-R", "-j", "4")
    audiocli.gateway.wait_for_requests(10)
    wait_for_outputs(directory, 6)
    # An output appears a moment before its item counts as done, which its result line says.
    assert process.stderr is not None
    result_lines = [process.stderr.readline() for _ in range(6)]

    started_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, remaining_err = process.communicate(timeout=20)
    elapsed_s = time.monotonic() - started_s
    err = b"".join([*result_lines, remaining_err])

    assert process.returncode == 130 and elapsed_s < 2
    assert (len(list_outputs(directory)), are_outputs_correct(directory), list_part_files(directory)) == (6, True, [])
    assert len(audiocli.gateway.posts) == 10
    assert Counter(entry["outcome"] for entry in audiocli.read_ledger_entries()) == {"ok": 6, "cancelled": 4}
    assert b"interrupted: 6 of 24 recordings are stored (6 transcribed), 18 not done" in err and b"Traceback" not in err

    audiocli.gateway.clear_faults()
    r = audiocli("transcribe", directory, "-R")
    assert (r.code, len(r.requests), len(list_outputs(directory))) == (0, FILE_COUNT - 6, FILE_COUNT)


def test_next_run_continues_after_kill_9(program: Program, audiocli: CommandLine, directory: Path) -> None:
    audiocli.gateway.latency_s = 0.05
    random_numbers = random.Random(5)
    max_interrupted = 0
    for _ in range(3):
        requests_before = len(audiocli.gateway.posts)
        process = program.start("transcribe", directory, "-R", "-j", "3")
        try:
            audiocli.gateway.wait_for_requests(requests_before + random_numbers.randint(1, 7))
        finally:
            process.kill()
            process.communicate(timeout=20)
        assert are_outputs_correct(directory)
        max_interrupted += 3

    r = audiocli("transcribe", directory, "-R", "--json")

    assert r.code == 0, r.err
    assert (len(list_outputs(directory)), are_outputs_correct(directory), list_part_files(directory)) == (
        FILE_COUNT,
        True,
        [],
    )
    request_counts = count_requests_per_recording(audiocli)
    # Only items that were in progress at a kill are sent again.
    assert len(request_counts) == FILE_COUNT and sum(request_counts.values()) <= FILE_COUNT + max_interrupted
    assert {entry["outcome"] for entry in audiocli.read_ledger_entries()} <= {"ok", "unknown", "reserved"}
    assert audiocli("transcribe", directory, "-R").requests == []


def test_concurrent_batches_send_each_recording_once(program: Program, audiocli: CommandLine, directory: Path) -> None:
    audiocli.gateway.latency_s = 0.1
    processes = [program.start("transcribe", directory, "-R", "-j", "3", "--json") for _ in range(2)]
    stdouts = [process.communicate(timeout=60)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(count_requests_per_recording(audiocli).values()) == [1] * FILE_COUNT
    summaries = [json.loads(stdout.splitlines()[-1])["summary"] for stdout in stdouts]
    assert sum(summary["transcribed"] for summary in summaries) == FILE_COUNT
    assert all(summary["files"] == FILE_COUNT and summary["failed"] == 0 for summary in summaries)
    assert (len(list_outputs(directory)), are_outputs_correct(directory)) == (FILE_COUNT, True)


def test_batch_with_many_faults_writes_all_outputs_and_accounts_for_the_cost(
    program: Program, audiocli: CommandLine, directory: Path
) -> None:
    (directory / "broken.mp3").write_bytes(b"\x00\x01 no audio " * 50)
    audiocli.gateway.queue_faults(
        *(NoFault(), RateLimitBurst(2, retry_after=0.1), NoFault(), Status(500), Status(502), CutAfter(10)),
        *(
            NoFault(),
            CutBeforeResponse(),
            Status(503, headers={"Retry-After": "0.1"}),
            Stall(5, 1.5),
            NoFault(),
            Status(500),
        ),
    )

    first = program.start("transcribe", directory, "-R", "-j", "4", "--timeout", "1", "--json")
    out, err = first.communicate(timeout=60)
    second = audiocli("transcribe", directory, "-R", "--retry-failed", "--json")

    assert first.returncode == 3, err
    failed = [line for line in map(json.loads, out.splitlines()) if line.get("status") == "failed"]
    assert sorted(line["error"]["exit"] for line in failed) == [7, 7, 7, 8]
    assert second.code == 3 and len(second.requests) == 3
    assert (len(list_outputs(directory)), are_outputs_correct(directory)) == (FILE_COUNT, True)
    # Each request is an entry: three refusals and three failures that are retried, three with an unknown outcome.
    outcomes = Counter(entry["outcome"] for entry in audiocli.read_ledger_entries())
    assert outcomes == {"ok": FILE_COUNT, "refused": 3, "failed": 3, "unknown": 3}
    assert len(audiocli.gateway.posts) == FILE_COUNT + 9
    known_nanousd = sum(entry["cost_nanousd"] or 0 for entry in audiocli.read_ledger_entries())
    billed_without_response = [
        request
        for request in audiocli.gateway.posts
        if request.billed and request.fault in ("CutAfter", "CutBeforeResponse", "Stall")
    ]
    assert (
        known_nanousd + sum(request.cost_nanousd for request in billed_without_response)
        == audiocli.gateway.billed_nanousd
    )
