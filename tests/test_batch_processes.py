"""Folders and real processes: Ctrl-C, kill -9, and two batches at once."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.gateway import CutAfter, CutBeforeReply, Normal, RateStorm, Stall, Status
from tests.test_batch import heard, record
from tests.test_processes import Program

FILES = 24


@pytest.fixture
def program(audiocli: CommandLine) -> Program:
    return Program(audiocli)


@pytest.fixture
def folder(audiocli: CommandLine, tmp_path: Path) -> Path:
    audiocli.gateway.says(heard)
    folder = tmp_path / "talks"
    for number in range(FILES):
        record(folder / f"{number % 3}" / f"{number:02}.wav")
    return folder


def outputs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix == ".txt")


def are_right(folder: Path) -> bool:
    """Whether every output there is is whole and belongs to its recording."""
    return all(path.read_text() == heard(path.with_suffix(".wav").read_bytes(), 0) + "\n" for path in outputs(folder))


def parts(folder: Path) -> list[Path]:
    return list(folder.rglob(".*.part"))


def sent_of_each(audiocli: CommandLine) -> Counter[str | None]:
    return Counter(seen.audio_sha256 for seen in audiocli.gateway.posts)


def test_ctrl_c_leaves_what_is_finished_and_begins_nothing_more(
    program: Program, audiocli: CommandLine, folder: Path
) -> None:
    audiocli.gateway.script(*[Normal()] * 6)
    audiocli.gateway.always(Stall(None, 30))
    process = program.start("transcribe", folder, "-R", "-j", "4")
    audiocli.gateway.wait_for_requests(10)
    deadline_s = time.monotonic() + 10
    while len(outputs(folder)) < 6 and time.monotonic() < deadline_s:
        time.sleep(0.02)

    started_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    elapsed_s = time.monotonic() - started_s

    assert process.returncode == 130 and elapsed_s < 2
    assert (len(outputs(folder)), are_right(folder), parts(folder)) == (6, True, [])
    assert len(audiocli.gateway.posts) == 10
    assert Counter(entry["outcome"] for entry in audiocli.entries()) == {"ok": 6, "cancelled": 4}
    assert b"interrupted: 6 transcribed; 18 not done" in err and b"Traceback" not in err

    audiocli.gateway.behave()
    r = audiocli("transcribe", folder, "-R")
    assert (r.code, len(r.requests), len(outputs(folder))) == (0, FILES - 6, FILES)


def test_after_kill_9_the_next_run_goes_on(program: Program, audiocli: CommandLine, folder: Path) -> None:
    audiocli.gateway.latency_s = 0.05
    dice = random.Random(5)
    lost = 0
    for _ in range(3):
        before = len(audiocli.gateway.posts)
        process = program.start("transcribe", folder, "-R", "-j", "3")
        try:
            audiocli.gateway.wait_for_requests(before + dice.randint(1, 7))
        finally:
            process.kill()
            process.communicate(timeout=20)
        assert are_right(folder)
        lost += 3

    r = audiocli("transcribe", folder, "-R", "--json")

    assert r.code == 0, r.err
    assert (len(outputs(folder)), are_right(folder), parts(folder)) == (FILES, True, [])
    sent = sent_of_each(audiocli)
    # Only what was under way at a kill is sent a second time.
    assert len(sent) == FILES and sum(sent.values()) <= FILES + lost
    assert {entry["outcome"] for entry in audiocli.entries()} <= {"ok", "unknown", "reserved"}
    assert audiocli("transcribe", folder, "-R").requests == []


def test_two_batches_at_once_send_nothing_twice(program: Program, audiocli: CommandLine, folder: Path) -> None:
    audiocli.gateway.latency_s = 0.1
    processes = [program.start("transcribe", folder, "-R", "-j", "3", "--json") for _ in range(2)]
    told = [process.communicate(timeout=60)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(sent_of_each(audiocli).values()) == [1] * FILES
    summaries = [json.loads(out.splitlines()[-1])["summary"] for out in told]
    assert sum(summary["transcribed"] for summary in summaries) == FILES
    assert all(summary["files"] == FILES and summary["failed"] == 0 for summary in summaries)
    assert (len(outputs(folder)), are_right(folder)) == (FILES, True)


def test_a_bad_day_ends_with_everything_written_and_the_bill_accounted_for(
    program: Program, audiocli: CommandLine, folder: Path
) -> None:
    (folder / "broken.mp3").write_bytes(b"\x00\x01 no sound " * 50)
    audiocli.gateway.script(
        *(Normal(), RateStorm(2, retry_after=0.1), Normal(), Status(500), Status(502), CutAfter(10)),
        *(
            Normal(),
            CutBeforeReply(),
            Status(503, headers={"Retry-After": "0.1"}),
            Stall(5, 1.5),
            Normal(),
            Status(500),
        ),
    )

    first = program.start("transcribe", folder, "-R", "-j", "4", "--timeout", "1", "--json")
    out, err = first.communicate(timeout=60)
    second = audiocli("transcribe", folder, "-R", "--retry-failed", "--json")

    assert first.returncode == 3, err
    failed = [line for line in map(json.loads, out.splitlines()) if line.get("status") == "failed"]
    assert sorted(line["error"]["exit"] for line in failed) == [7, 7, 7, 8]
    assert second.code == 3 and len(second.requests) == 3
    assert (len(outputs(folder)), are_right(folder)) == (FILES, True)
    # Each send is an entry; two refusals, three failures that are tried again, and the three that were lost.
    outcomes = Counter(entry["outcome"] for entry in audiocli.entries())
    assert outcomes == {"ok": FILES, "refused": 3, "failed": 3, "unknown": 3}
    assert len(audiocli.gateway.posts) == FILES + 9
    known = sum(entry["cost_nanousd"] or 0 for entry in audiocli.entries())
    unknown = [
        seen for seen in audiocli.gateway.posts if seen.billed and seen.fault in ("CutAfter", "CutBeforeReply", "Stall")
    ]
    assert known + sum(seen.cost_nanousd for seen in unknown) == audiocli.gateway.bill_nanousd
