"""Claims of several machines in a shared directory."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from audiocli.errors import OutputError
from audiocli.storage.lease_files import LEASE_S, LeaseFiles


def make_older(directory: Path, seconds: float) -> None:
    """Let the claims look as if their owner had not renewed them for some seconds."""
    for path in directory.glob("*.claim"):
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


def test_owner_renews_its_claims(tmp_path: Path) -> None:
    owner = LeaseFiles(tmp_path, renewal_interval_s=0.01)
    owner.claim("a")
    make_older(tmp_path, LEASE_S + 10)
    deadline_s = time.monotonic() + 10
    while time.time() - (tmp_path / "a.claim").stat().st_mtime > LEASE_S:
        assert time.monotonic() < deadline_s, "not renewed"
        time.sleep(0.01)

    assert not LeaseFiles(tmp_path).claim("a")
    owner.close()


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(OutputError, match="cannot write claims"):
        LeaseFiles(tmp_path / "file" / "claims").claim("a")
