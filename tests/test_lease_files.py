"""Claims of several machines in a shared directory."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audiocli.errors import OutputError
from audiocli.storage.lease_files import LEASE_S, LeaseFiles


def make_older(directory: Path, seconds: float) -> None:
    """Let the claims look as if their owner had not renewed them for some seconds."""
    for path in directory.glob("*.claim*"):
        past_s = time.time() - seconds
        os.utime(path, (past_s, past_s))


def test_one_owner_has_a_claim(tmp_path: Path) -> None:
    first, second = LeaseFiles(tmp_path), LeaseFiles(tmp_path)

    assert (first.claim("a"), second.claim("a"), second.claim("b")) == (True, False, True)
    first.release("a")
    assert second.claim("a")
    second.close()
    assert (first.claim("a"), first.claim("b")) == (True, True)
    first.close()
    assert list(tmp_path.iterdir()) == []


def test_expired_claim_is_taken_over_once(tmp_path: Path) -> None:
    dead = LeaseFiles(tmp_path)
    dead.claim("a")
    others = [LeaseFiles(tmp_path) for _ in range(3)]
    make_older(tmp_path, LEASE_S - 10)
    assert not any(other.claim("a") for other in others)

    make_older(tmp_path, LEASE_S + 10)

    assert [other.claim("a") for other in others] == [True, False, False]
    # The former owner must not remove what is not its own any more.
    dead.release("a")
    assert not dead.claim("a")
    for other in others:
        other.close()


def expect_renewal(directory: Path) -> None:
    """Let the claim `a` expire, and wait until its owner has renewed it."""
    make_older(directory, LEASE_S + 10)
    deadline_s = time.monotonic() + 10
    while time.time() - (directory / "a.claim").stat().st_mtime > LEASE_S:
        assert time.monotonic() < deadline_s, "not renewed"
        time.sleep(0.01)


def test_owner_renews_its_claims(tmp_path: Path) -> None:
    owner = LeaseFiles(tmp_path, renewal_interval_s=0.01)
    owner.claim("a")
    expect_renewal(tmp_path)

    assert not LeaseFiles(tmp_path).claim("a")
    owner.close()


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(OutputError, match="cannot write claims"):
        LeaseFiles(tmp_path / "file" / "claims").claim("a")


def test_processes_that_take_over_at_once(tmp_path: Path) -> None:
    others = [LeaseFiles(tmp_path) for _ in range(12)]
    for round_number in range(30):
        key = f"k{round_number}"
        LeaseFiles(tmp_path).claim(key)
        make_older(tmp_path, LEASE_S + 10)
        barrier = threading.Barrier(len(others))

        def take(other: LeaseFiles, key: str = key, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return other.claim(key)

        with ThreadPoolExecutor(len(others)) as threads:
            taken = list(threads.map(take, others))

        assert sum(taken) == 1
        others[taken.index(True)].release(key)
        assert list(tmp_path.iterdir()) == []


def test_stopped_owner_does_not_touch_the_claim_of_its_successor(tmp_path: Path) -> None:
    stopped, second, third = [LeaseFiles(tmp_path) for _ in range(3)]
    stopped.claim("a")
    make_older(tmp_path, LEASE_S + 10)
    assert second.claim("a")

    stopped.release("a")

    assert not third.claim("a")
    second.release("a")
    assert third.claim("a")
    third.close()
    assert list(tmp_path.iterdir()) == []


def test_owner_that_ended_while_it_released_leaves_no_claim(tmp_path: Path) -> None:
    dead, second = LeaseFiles(tmp_path), LeaseFiles(tmp_path)
    dead.claim("a")
    make_older(tmp_path, LEASE_S + 10)
    assert second.claim("a")
    (tmp_path / "a.claim").unlink()  # the first half of its release

    owner = LeaseFiles(tmp_path, renewal_interval_s=0.01)
    assert owner.claim("a")
    expect_renewal(tmp_path)

    assert not LeaseFiles(tmp_path).claim("a")
    owner.release("a")
    assert not (tmp_path / "a.claim").exists()
    owner.close()


def test_claim_that_was_taken_over_twice_is_released_as_a_whole(tmp_path: Path) -> None:
    for _ in range(3):
        assert LeaseFiles(tmp_path).claim("a")
        make_older(tmp_path, LEASE_S + 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.claim", "a.claim.1", "a.claim.2"]

    owner = LeaseFiles(tmp_path)
    assert owner.claim("a") and not LeaseFiles(tmp_path).claim("a")
    owner.release("a")

    assert list(tmp_path.iterdir()) == []
