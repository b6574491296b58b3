"""The manifest: records of inputs and outputs, claims, failures, and damaged files."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from audiocli import process_ids
from audiocli.errors import OutputError, UsageError
from audiocli.storage.manifest import MAX_CLOCK_TICK_NS, FailureRecord, FileFingerprint, Manifest, OutputRecord

FINGERPRINT = FileFingerprint(10, 1_000, 1_000, 7)


@pytest.fixture
def warnings() -> list[str]:
    return []


OPEN_MANIFESTS: list[Manifest] = []


@pytest.fixture(autouse=True)
def close_manifests() -> Iterator[None]:
    yield
    while OPEN_MANIFESTS:
        OPEN_MANIFESTS.pop().close()


def open_manifest(path: Path, warnings: list[str]) -> Manifest:
    OPEN_MANIFESTS.append(Manifest(path, warning=warnings.append))
    return OPEN_MANIFESTS[-1]


@pytest.fixture
def manifest(tmp_path: Path, warnings: list[str]) -> Manifest:
    return open_manifest(tmp_path / "data" / "manifest.sqlite3", warnings)


def reopen(manifest: Manifest, warnings: list[str]) -> Manifest:
    """Open the same file a second time."""
    return open_manifest(manifest.path, warnings)


def test_content_hash_of_unchanged_file_is_found(manifest: Manifest, warnings: list[str]) -> None:
    name = Path(os.fsdecode(b"/x/a\n\xff.mp3"))
    manifest.record_content_hash(name, FINGERPRINT, "hash")

    reopened = reopen(manifest, warnings)

    assert asyncio.run(reopened.get_content_hash(name, FINGERPRINT)) == "hash"
    assert asyncio.run(reopened.get_content_hash(name, FINGERPRINT._replace(mtime_ns=1_001))) is None
    assert asyncio.run(reopened.get_content_hash(name, FINGERPRINT._replace(inode=8))) is None
    assert asyncio.run(reopened.get_content_hash(Path("/x/b.mp3"), FINGERPRINT)) is None


def test_content_hash_of_recently_written_file_is_not_stored(manifest: Manifest, tmp_path: Path) -> None:
    import time

    now_ns = time.time_ns()
    manifest.record_content_hash(tmp_path / "a", FINGERPRINT._replace(mtime_ns=now_ns), "hash")
    manifest.record_content_hash(tmp_path / "b", FINGERPRINT._replace(mtime_ns=now_ns - 2 * MAX_CLOCK_TICK_NS), "hash")

    assert asyncio.run(manifest.get_content_hash(tmp_path / "a", FINGERPRINT._replace(mtime_ns=now_ns))) is None
    older = FINGERPRINT._replace(mtime_ns=now_ns - 2 * MAX_CLOCK_TICK_NS)
    assert asyncio.run(manifest.get_content_hash(tmp_path / "b", older)) == "hash"


def test_last_output_record_is_found(manifest: Manifest, warnings: list[str]) -> None:
    first, second = (
        OutputRecord("recipe", "sha", FINGERPRINT),
        OutputRecord("other", "sha2", FINGERPRINT._replace(size_bytes=11)),
    )
    manifest.record_output(Path("/a.txt"), first)
    manifest.record_output(Path("/a.txt"), second)

    assert reopen(manifest, warnings).get_output(Path("/a.txt")) == second
    assert manifest.get_output(Path("/b.txt")) is None


def claim(manifest: Manifest, key: str) -> bool:
    return asyncio.run(manifest.claim(key))


def test_claimed_item_cannot_be_claimed_again(manifest: Manifest) -> None:
    assert claim(manifest, "one")
    assert not claim(manifest, "one")
    assert claim(manifest, "two")

    asyncio.run(manifest.release("one"))

    assert claim(manifest, "one")


class SlowClaims:
    """Shared claims whose server responds after `may_respond` is set."""

    def __init__(self) -> None:
        self.may_respond = threading.Event()

    def claim(self, key: str) -> bool:
        return self.may_respond.wait(10) and key != "foreign"

    def release(self, key: str) -> None:
        assert self.may_respond.wait(10)

    def close(self) -> None:
        pass


def test_other_work_goes_on_while_a_claim_waits_for_a_server(manifest: Manifest) -> None:
    manifest.shared_claims = claims = SlowClaims()

    async def claim_all() -> list[bool]:
        calls = [asyncio.create_task(manifest.claim(key)) for key in ("one", "one", "foreign")]
        await asyncio.sleep(0)
        claims.may_respond.set()
        return await asyncio.gather(*calls)

    # A key that is being claimed cannot be claimed a second time.
    assert asyncio.run(claim_all()) == [True, False, False]
    manifest.shared_claims = None
    assert (claim(manifest, "one"), claim(manifest, "foreign")) == (False, True)


def test_claim_that_is_cancelled_while_it_waits_is_released(manifest: Manifest) -> None:
    manifest.shared_claims = claims = SlowClaims()

    async def cancel() -> None:
        call = asyncio.create_task(manifest.claim("one"))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        claims.may_respond.set()

    asyncio.run(cancel())

    assert claim(manifest, "one")


def claim_in_process(path: Path, key: str, *, next_statement: str) -> subprocess.Popen[bytes]:
    """Claim a key in another process, which prints the result."""
    program = (
        "import asyncio\nimport sys\nfrom pathlib import Path\nfrom audiocli.storage.manifest import Manifest\n"
        f"manifest = Manifest(Path({str(path)!r}), warning=print)\n"
        f"print(asyncio.run(manifest.claim({key!r})), flush=True)\n{next_statement}\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
    )


def test_claim_ends_with_its_process(manifest: Manifest) -> None:
    process = claim_in_process(manifest.path, "one", next_statement="sys.stdin.read()")
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == b"True\n"

    during = claim(manifest, "one")
    process.kill()
    process.wait()
    afterwards = claim(manifest, "one")

    process.stdin.close()
    process.stdout.close()
    assert (during, afterwards) == (False, True)


def test_claim_of_other_host_expires_after_a_day(manifest: Manifest, warnings: list[str]) -> None:
    import time

    claim(manifest, "young")
    claim(manifest, "old")
    with sqlite3.connect(manifest.path) as database:
        database.execute("UPDATE claims SET host = 'elsewhere', process = '1'")
        day_ago_ms = int(time.time() * 1000) - 25 * 3600 * 1000
        database.execute("UPDATE claims SET at_ms = ? WHERE key = 'old'", (day_ago_ms,))
    database.close()

    reopened = reopen(manifest, warnings)

    assert process_ids.get_host_id() != "elsewhere"
    assert (claim(reopened, "young"), claim(reopened, "old")) == (False, True)


def test_failure_is_recorded_until_it_is_cleared(manifest: Manifest, warnings: list[str]) -> None:
    failure = FailureRecord("cut off \udcff", 7, "cut_off", None)
    manifest.record_failure("one", failure)

    assert reopen(manifest, warnings).get_failure("one") == failure._replace(message="cut off ?")

    manifest.clear_failure("one")
    assert manifest.get_failure("one") is None


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_damaged_manifest_is_moved_aside_and_created_again(
    manifest: Manifest, warnings: list[str], content: bytes
) -> None:
    manifest.path.parent.mkdir(parents=True)
    manifest.path.write_bytes(content)

    manifest.record_output(Path("/a"), OutputRecord("recipe", "sha", FINGERPRINT))

    [damaged_path] = manifest.path.parent.glob("*.damaged-*")
    assert damaged_path.read_bytes() == content
    assert manifest.get_output(Path("/a")) is not None
    assert len(warnings) == 1 and str(damaged_path) in warnings[0]


def test_damage_within_manifest_is_detected(manifest: Manifest, warnings: list[str]) -> None:
    for number in range(300):
        manifest.record_output(Path(f"/{number}"), OutputRecord("recipe" * 10, "sha" * 20, FINGERPRINT))
    manifest.close()
    content = bytearray(manifest.path.read_bytes())
    content[4096 * 3 : 4096 * 6] = os.urandom(4096 * 3)
    manifest.path.write_bytes(content)

    reopened = reopen(manifest, warnings)

    assert reopened.get_output(Path("/1")) is None
    assert len(warnings) == 1


def test_newer_manifest_is_refused(manifest: Manifest, warnings: list[str]) -> None:
    claim(manifest, "one")
    manifest.close()
    with sqlite3.connect(manifest.path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()

    with pytest.raises(UsageError, match="newer"):
        claim(reopen(manifest, warnings), "two")


def test_manifest_that_cannot_be_created_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(OutputError, match="cannot write the manifest"):
        claim(Manifest(tmp_path / "file" / "manifest.sqlite3", warning=print), "one")
