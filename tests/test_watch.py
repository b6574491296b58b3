"""Test a watched directory: arrivals, changes, spending limits, SIGTERM and a restart."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audiocli.cli.batch import BatchPlan, plan_batch
from audiocli.core.batch.arrivals import QUIET_S, ArrivalTracker, FileState
from audiocli.file_watcher import is_remote
from audiocli.mock import Status
from tests.conftest import CommandLine, Result
from tests.gateway_contract import SPEECH
from tests.requirements import require_packages
from tests.test_processes import Program

DEADLINE_S = 30.0


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    directory = tmp_path / "inbox"
    directory.mkdir()
    return directory


@pytest.fixture
def watch(audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Run a watch with short times. `actions` run in a thread; SIGTERM follows them."""
    require_packages("watchfiles", extras="watch")
    monkeypatch.setattr("audiocli.core.batch.arrivals.QUIET_S", 0.1)
    monkeypatch.setattr("audiocli.cli.watch.LIMIT_POLL_INTERVAL_S", 0.05)
    monkeypatch.setattr("audiocli.file_watcher.DEBOUNCE_MS", 50)
    # Without the handler of the watch, SIGTERM would end the tests.
    previous = signal.signal(signal.SIGTERM, lambda number, frame: None)
    failures: list[BaseException] = []

    def run(*argv: str | Path, actions: Callable[[], None]) -> Result:
        is_done = threading.Event()

        def act() -> None:
            try:
                actions()
            except BaseException as error:  # noqa: BLE001 - raised in the thread of the test
                failures.append(error)
            deadline_s = time.monotonic() + DEADLINE_S
            while not is_done.wait(0.2) and time.monotonic() < deadline_s:
                os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=act)
        thread.start()
        try:
            result = audiocli("transcribe", *argv, "--watch")
        finally:
            is_done.set()
            thread.join()
        for failure in failures:
            raise failure
        return result

    yield run
    signal.signal(signal.SIGTERM, previous)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(what)
        time.sleep(0.01)


def wait_for(path: Path) -> None:
    wait_until(path.exists, str(path))


def make_recording(number: int) -> bytes:
    return SPEECH[:-2] + number.to_bytes(2, "little")


def test_arrivals_are_transcribed_once(watch: Callable[..., Result], inbox: Path) -> None:
    (inbox / "old.wav").write_bytes(make_recording(1))

    def arrive() -> None:
        wait_for(inbox / "old.txt")
        with (inbox / "slow.wav").open("wb") as file:
            for start in range(0, len(SPEECH), len(SPEECH) // 10):
                file.write(make_recording(2)[start : start + len(SPEECH) // 10])
                file.flush()
                time.sleep(0.03)
        wait_for(inbox / "slow.txt")
        (inbox / "moved.part").write_bytes(make_recording(3))
        (inbox / "moved.part").rename(inbox / "moved.wav")
        wait_for(inbox / "moved.txt")

    result = watch(inbox, "-f", "txt", actions=arrive)

    assert result.code == 0, result.err
    assert sorted(path.name for path in inbox.glob("*.txt")) == ["moved.txt", "old.txt", "slow.txt"]
    assert len(result.posts) == 3
    assert {request.audio_size_bytes for request in result.posts} == {len(SPEECH)}


def test_skipped_model_is_reported_once(watch: Callable[..., Result], inbox: Path) -> None:
    (inbox / "a.wav").write_bytes(make_recording(1))

    def arrive() -> None:
        wait_for(inbox / "a.txt")
        (inbox / "b.wav").write_bytes(make_recording(2))
        wait_for(inbox / "b.txt")

    models = ("-m", "openai:whisper-1", "-m", "openrouter:openai/whisper-large-v3")
    result = watch(inbox, "-f", "txt", *models, actions=arrive)

    assert (result.code, len(result.posts), result.err.count("skipping openai:whisper-1")) == (0, 2, 1), result.err


def test_new_subdirectory_is_watched_with_recursion(watch: Callable[..., Result], inbox: Path) -> None:
    def arrive() -> None:
        (inbox / "deep" / "er").mkdir(parents=True)
        (inbox / "deep" / "er" / "talk.wav").write_bytes(SPEECH)
        (inbox / "deep" / "notes.md").write_text("no recording")
        wait_for(inbox / "deep" / "er" / "talk.srt")

    result = watch(inbox, "-R", "-f", "srt", actions=arrive)

    assert (result.code, len(result.posts)) == (0, 1), result.err


def test_recording_that_arrives_between_listing_and_watching_is_transcribed(
    watch: Callable[..., Result], inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_before_arrival(*args: Any, **options: Any) -> BatchPlan:
        batch = plan_batch(*args, **options)
        (inbox / "talk.wav").write_bytes(SPEECH)
        monkeypatch.setattr("audiocli.cli.watch.plan_batch", plan_batch)
        return batch

    monkeypatch.setattr("audiocli.cli.watch.plan_batch", list_before_arrival)

    result = watch(inbox, "-f", "txt", actions=lambda: wait_for(inbox / "talk.txt"))

    assert (result.code, len(result.posts)) == (0, 1), result.err


def test_failed_recording_is_sent_again_when_it_changes(
    watch: Callable[..., Result], audiocli: CommandLine, inbox: Path
) -> None:
    (inbox / "talk.wav").write_bytes(make_recording(1))
    audiocli.gateway.queue_faults(Status(400))

    def repair() -> None:
        wait_until(lambda: len(audiocli.gateway.posts) == 1, "the first request")
        (inbox / "other.wav").write_bytes(make_recording(2))
        wait_for(inbox / "other.txt")
        assert len(audiocli.gateway.posts) == 2
        (inbox / "talk.wav").write_bytes(make_recording(3) + b"\0\0")
        wait_for(inbox / "talk.txt")

    result = watch(inbox, "-f", "txt", actions=repair)

    assert result.code == 0, result.err
    assert len(result.posts) == 3


def test_spending_limit_pauses_until_it_allows_more(
    watch: Callable[..., Result], audiocli: CommandLine, inbox: Path
) -> None:
    prices = '[prices]\n"openrouter:openai/whisper-large-v3" = { per = "minute", usd = 0.006 }\n'
    audiocli.write_config(f"{prices}[budget]\nday = 0.0003\n")
    (inbox / "a.wav").write_bytes(make_recording(1))

    def raise_limit() -> None:
        wait_for(inbox / "a.txt")
        (inbox / "b.wav").write_bytes(make_recording(2))
        time.sleep(0.5)
        assert len(audiocli.gateway.posts) == 1
        audiocli.write_config(f"{prices}[budget]\nday = 5\n")
        wait_for(inbox / "b.txt")

    result = watch(inbox, "-f", "txt", actions=raise_limit)

    assert result.code == 0, result.err
    assert result.err.count("paused until the spending limit allows more") == 1
    assert len(result.posts) == 2


def test_limit_of_the_run_ends_the_watch(watch: Callable[..., Result], audiocli: CommandLine, inbox: Path) -> None:
    audiocli.write_config('[prices]\n"openrouter:openai/whisper-large-v3" = { per = "minute", usd = 0.006 }\n')
    for number in range(3):
        (inbox / f"{number}.wav").write_bytes(make_recording(number))

    def wait() -> None:
        wait_until(lambda: len(audiocli.gateway.posts) == 1, "the first request")
        time.sleep(0.5)

    result = watch(inbox, "-f", "txt", "-j", "1", "--max-cost", "0.0003", actions=wait)

    assert result.code == 5, result.err
    assert len(result.posts) == 1


def test_removed_directory_is_reported_once(watch: Callable[..., Result], inbox: Path) -> None:
    def remove() -> None:
        (inbox / "a.wav").write_bytes(SPEECH)
        wait_for(inbox / "a.txt")
        inbox.rename(inbox.with_name("gone"))
        time.sleep(0.5)
        inbox.with_name("gone").rename(inbox)

    result = watch(inbox, "-f", "txt", actions=remove)

    assert result.code == 0, result.err
    assert len(result.posts) == 1


@pytest.mark.parametrize(
    "argv",
    [
        ["-n"],
        ["--verify-only"],
        ["--fail-fast"],
        ["--no-resume"],
        ["--files-from", "-"],
        ["-o", "x.txt"],
        ["--background"],
    ],
)
def test_options_that_cannot_be_repeated_are_refused(audiocli: CommandLine, inbox: Path, argv: list[str]) -> None:
    require_packages("watchfiles", extras="watch")

    result = audiocli("transcribe", inbox, "--watch", *argv)

    assert result.code == 2, result.err


def test_watch_needs_a_source(audiocli: CommandLine) -> None:
    require_packages("watchfiles", extras="watch")

    assert audiocli("transcribe", "--watch", terminal="in").code == 2


def test_missing_library_is_named(audiocli: CommandLine, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "watchfiles", None)

    result = audiocli("transcribe", inbox, "--watch")

    assert result.code == 4 and "audiocli[watch]" in result.err


def test_sigterm_ends_a_process_with_0_and_a_restart_continues(audiocli: CommandLine, inbox: Path) -> None:
    require_packages("watchfiles", extras="watch")
    program = Program(audiocli)
    codes = []
    for number in range(2):
        (inbox / f"{number}.wav").write_bytes(make_recording(number))
        process = program.start("transcribe", inbox, "--watch", "-f", "txt")
        try:
            wait_for(inbox / f"{number}.txt")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        codes.append(process.returncode)

    assert codes == [0, 0]
    assert len(audiocli.gateway.posts) == 2


# --- arrivals --------------------------------------------------------------------------------------------------------

A, B = Path("a.wav"), Path("b.wav")


def test_file_is_ready_after_it_was_quiet() -> None:
    tracker = ArrivalTracker()

    assert tracker.update({A: FileState(10, 1)}, 0.0) == []
    assert tracker.compute_wait_s(0.5) == QUIET_S - 0.5
    assert tracker.update({A: FileState(20, 2)}, 1.9) == []
    assert tracker.update({A: FileState(20, 2)}, 1.9 + QUIET_S - 0.1) == []
    assert tracker.update({A: FileState(20, 2)}, 1.9 + QUIET_S) == [A]
    tracker.mark_processed([A])
    assert tracker.update({A: FileState(20, 2)}, 100.0) == []
    assert tracker.compute_wait_s(100.0) is None
    assert tracker.update({A: FileState(20, 3)}, 101.0) == []
    assert tracker.update({A: FileState(20, 3)}, 104.0) == [A]


def test_old_files_are_ready_at_the_start() -> None:
    found = {A: FileState(10, 5), B: FileState(10, 50)}

    assert ArrivalTracker().update(found, 0.0, modified_before_ns=20) == [A]


def test_empty_file_is_not_ready_and_not_waited_for() -> None:
    tracker = ArrivalTracker()

    tracker.update({A: FileState(0, 1)}, 0.0)

    assert tracker.update({A: FileState(0, 1)}, 10.0) == []
    assert tracker.compute_wait_s(10.0) is None


def test_file_that_returns_is_new() -> None:
    tracker = ArrivalTracker()
    tracker.update({A: FileState(10, 1)}, 0.0)
    tracker.update({A: FileState(10, 1)}, 3.0)
    tracker.mark_processed([A])
    tracker.update({}, 4.0)

    assert tracker.update({A: FileState(10, 1)}, 5.0) == []
    assert tracker.update({A: FileState(10, 1)}, 8.0) == [A]


def test_every_state_is_processed_at_most_once() -> None:
    rng = random.Random(7)
    tracker = ArrivalTracker()
    states = {Path(str(number)): FileState(1, 0) for number in range(5)}
    processed: list[tuple[Path, FileState]] = []
    for step in range(400):
        path = Path(str(rng.randrange(5)))
        if rng.random() < 0.3:
            states[path] = FileState(rng.randrange(1, 9), step)
        ready = tracker.update(states, step * 0.5)
        processed += [(path, states[path]) for path in ready]
        tracker.mark_processed(ready)
    assert len(processed) == len(set(processed)) > 20


MOUNTS = """/dev/vda / ext4 rw 0 0
server:/media /mnt/media nfs4 rw 0 0
//nas/my\\040share /mnt/my\\040share cifs rw 0 0
/dev/sdb /mnt/media/local xfs rw 0 0
sshfs#host: /home/me/remote fuse.sshfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/me/talks", False),
        ("/mnt/media", True),
        ("/mnt/media/a/b", True),
        ("/mnt/mediathek", False),
        ("/mnt/media/local/x", False),
        ("/mnt/my share/x", True),
        ("/home/me/remote/x", True),
    ],
)
def test_network_file_systems_are_recognized(path: str, expected: bool) -> None:
    assert is_remote(Path(path), MOUNTS) == expected
