"""The manifest: what is remembered of files, who has what in hand, and what becomes of a file that is damaged."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from audiocli import process_ids
from audiocli.errors import OutputError, UsageError
from audiocli.storage.manifest import TICK_NS, Failure, Fingerprint, Manifest, Written

OLD = Fingerprint(10, 1_000, 1_000, 7)


@pytest.fixture
def told() -> list[str]:
    return []


HANDS: list[Manifest] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while HANDS:
        HANDS.pop().close()


def in_hand(path: Path, told: list[str]) -> Manifest:
    HANDS.append(Manifest(path, tell=told.append))
    return HANDS[-1]


@pytest.fixture
def manifest(tmp_path: Path, told: list[str]) -> Manifest:
    return in_hand(tmp_path / "data" / "manifest.sqlite3", told)


def again(manifest: Manifest, told: list[str]) -> Manifest:
    """The same file in another hand."""
    return in_hand(manifest.path, told)


def test_a_file_that_has_not_changed_is_known(manifest: Manifest, told: list[str]) -> None:
    name = Path(os.fsdecode(b"/x/a\n\xff.mp3"))
    manifest.remember(name, OLD, "hash")

    other = again(manifest, told)

    assert other.content(name, OLD) == "hash"
    assert other.content(name, OLD._replace(mtime_ns=1_001)) is None
    assert other.content(name, OLD._replace(inode=8)) is None
    assert other.content(Path("/x/b.mp3"), OLD) is None


def test_a_file_that_was_written_a_moment_ago_is_not_trusted_to_stay(manifest: Manifest, tmp_path: Path) -> None:
    import time

    now_ns = time.time_ns()
    manifest.remember(tmp_path / "a", OLD._replace(mtime_ns=now_ns), "hash")
    manifest.remember(tmp_path / "b", OLD._replace(mtime_ns=now_ns - 2 * TICK_NS), "hash")

    assert manifest.content(tmp_path / "a", OLD._replace(mtime_ns=now_ns)) is None
    assert manifest.content(tmp_path / "b", OLD._replace(mtime_ns=now_ns - 2 * TICK_NS)) == "hash"


def test_outputs_are_remembered_as_they_were_written(manifest: Manifest, told: list[str]) -> None:
    first, second = Written("recipe", "sha", OLD), Written("other", "sha2", OLD._replace(size_bytes=11))
    manifest.record(Path("/a.txt"), first)
    manifest.record(Path("/a.txt"), second)

    assert again(manifest, told).written(Path("/a.txt")) == second
    assert manifest.written(Path("/b.txt")) is None


def test_what_somebody_has_in_hand_is_not_taken(manifest: Manifest) -> None:
    assert manifest.claim("one")
    assert not manifest.claim("one")
    assert manifest.claim("two")

    manifest.release("one")

    assert manifest.claim("one")


def claim_elsewhere(path: Path, key: str, *, then: str) -> subprocess.Popen[bytes]:
    """Claim in a process of its own, which says so on its standard output."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom audiocli.storage.manifest import Manifest\n"
        f"manifest = Manifest(Path({str(path)!r}), tell=print)\n"
        f"print(manifest.claim({key!r}), flush=True)\n{then}\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
    )


def test_a_claim_ends_with_its_process(manifest: Manifest) -> None:
    process = claim_elsewhere(manifest.path, "one", then="sys.stdin.read()")
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == b"True\n"

    while_it_lives = manifest.claim("one")
    process.kill()
    process.wait()
    afterwards = manifest.claim("one")

    process.stdin.close()
    process.stdout.close()
    assert (while_it_lives, afterwards) == (False, True)


def test_a_claim_of_another_machine_holds_for_a_day(manifest: Manifest, told: list[str]) -> None:
    import time

    manifest.claim("young")
    manifest.claim("old")
    with sqlite3.connect(manifest.path) as database:
        database.execute("UPDATE claims SET host = 'elsewhere', process = '1'")
        day_ago_ms = int(time.time() * 1000) - 25 * 3600 * 1000
        database.execute("UPDATE claims SET at_ms = ? WHERE key = 'old'", (day_ago_ms,))
    database.close()

    other = again(manifest, told)

    assert process_ids.here() != "elsewhere"
    assert (other.claim("young"), other.claim("old")) == (False, True)


def test_failures_are_remembered_until_they_are_forgiven(manifest: Manifest, told: list[str]) -> None:
    failure = Failure("cut off \udcff", 7, "cut_off", None)
    manifest.fail("one", failure)

    assert again(manifest, told).failure("one") == failure._replace(message="cut off ?")

    manifest.forgive("one")
    assert manifest.failure("one") is None


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_manifest_is_set_aside_and_begun_anew(manifest: Manifest, told: list[str], content: bytes) -> None:
    manifest.path.parent.mkdir(parents=True)
    manifest.path.write_bytes(content)

    manifest.record(Path("/a"), Written("recipe", "sha", OLD))

    [aside] = manifest.path.parent.glob("*.damaged-*")
    assert aside.read_bytes() == content
    assert manifest.written(Path("/a")) is not None
    assert len(told) == 1 and str(aside) in told[0]


def test_a_manifest_that_is_damaged_in_its_middle_is_noticed(manifest: Manifest, told: list[str]) -> None:
    for number in range(300):
        manifest.record(Path(f"/{number}"), Written("recipe" * 10, "sha" * 20, OLD))
    manifest.close()
    content = bytearray(manifest.path.read_bytes())
    content[4096 * 3 : 4096 * 6] = os.urandom(4096 * 3)
    manifest.path.write_bytes(content)

    other = again(manifest, told)

    assert other.written(Path("/1")) is None
    assert len(told) == 1


def test_the_manifest_of_a_newer_audiocli_is_left_alone(manifest: Manifest, told: list[str]) -> None:
    manifest.claim("one")
    manifest.close()
    with sqlite3.connect(manifest.path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()

    with pytest.raises(UsageError, match="newer"):
        again(manifest, told).claim("two")


def test_a_manifest_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(OutputError, match="keep account"):
        Manifest(tmp_path / "file" / "manifest.sqlite3", tell=print).claim("one")
