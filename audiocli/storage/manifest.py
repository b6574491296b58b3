"""The manifest: a SQLite index of source hashes, written outputs, claims and failures.

It holds nothing that cannot be rebuilt. Paid transcripts are stored beside it, one file each
(`storage.paid_results.PaidResultStore`). If the manifest is damaged or lost, files on disk are hashed again, and
nothing is paid for again.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from .. import process_ids
from ..errors import ExitCode, OutputError, UsageError
from ..ledger.database import is_decoding_error
from ..private_files import require_regular_file

APPLICATION_ID = 0x4155444D  # "AUDM": distinguishes a manifest from a ledger and other SQLite files
BUSY_TIMEOUT_S = 5.0

# The longest tick of a file system clock. A file that was modified this recently before it was hashed may be modified
# again without a new time, so its hash is not recorded.
MAX_CLOCK_TICK_NS = 2_000_000_000

# A claim of another machine expires after this time, because its process cannot be checked.
REMOTE_CLAIM_LIFETIME_S = 24 * 3600

T = TypeVar("T")


class FileFingerprint(NamedTuple):
    """Attributes that change when a file changes. Comparing them avoids reading the file."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class OutputRecord(NamedTuple):
    """An output as it was written.

    `settings_fingerprint` is a hash of the transcript name and all settings that decide the content.
    """

    settings_fingerprint: str
    sha256: str
    fingerprint: FileFingerprint


class FailureRecord(NamedTuple):
    """An error of an item that may have been billed. Sending the item again could pay twice."""

    message: str
    exit_code: int
    code: str
    hint: str | None = None


class SharedClaims(Protocol):
    """Claims that processes on other machines respect too: `LeaseFiles` and `LeaseObjects`.

    `claim` and `release` block while a server answers, and are called in threads.
    """

    def claim(self, key: str) -> bool: ...
    def release(self, key: str) -> None: ...
    def close(self) -> None: ...


def _create_tables(database: sqlite3.Connection) -> None:
    columns = "size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, inode INTEGER"
    for statement in (
        # File names are bytes and may not be valid text.
        # `recipe` is the settings fingerprint.
        f"CREATE TABLE sources (path BLOB PRIMARY KEY, {columns}, content TEXT NOT NULL) STRICT, WITHOUT ROWID",
        f"CREATE TABLE outputs (path BLOB PRIMARY KEY, {columns}, sha256 TEXT NOT NULL, recipe TEXT NOT NULL)"
        " STRICT, WITHOUT ROWID",
        "CREATE TABLE claims (key TEXT PRIMARY KEY, host TEXT NOT NULL, process TEXT NOT NULL, at_ms INTEGER NOT NULL)"
        " STRICT, WITHOUT ROWID",
        "CREATE TABLE failures (key TEXT PRIMARY KEY, message TEXT NOT NULL, exit_code INTEGER NOT NULL,"
        " code TEXT NOT NULL, hint TEXT) STRICT, WITHOUT ROWID",
    ):
        database.execute(statement)


MIGRATIONS = (_create_tables,)


class Manifest:
    """The manifest file, opened on first use.

    A damaged file is set aside and replaced by a new one, which is reported through `warning`.

    Raises:
        OutputError: From every method, if the file cannot be used.
        UsageError: From every method, if a newer audiocli wrote the file.
    """

    def __init__(self, path: Path, *, warning: Callable[[str], None]) -> None:
        self.path = path
        self._warning = warning
        self._database: sqlite3.Connection | None = None
        self._claimed_keys: set[str] = set()
        # Claims that processes on other machines respect too.
        self.shared_claims: SharedClaims | None = None

    def open(self) -> None:
        """Open or create the file now instead of on first use."""
        self._run(lambda _: None)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    # --- sources and outputs ------------------------------------------------------------------------------------------
    # Paths are absolute. Those of objects are their URLs.

    async def get_content_hash(self, path: Path | str, fingerprint: FileFingerprint) -> str | None:
        """Return the recorded hash of a file, or None if the file has changed or is unknown."""
        rows = self._read(
            "SELECT size_bytes, mtime_ns, ctime_ns, inode, content FROM sources WHERE path = ?", os.fsencode(path)
        )
        return str(rows[0][4]) if rows and FileFingerprint(*rows[0][:4]) == fingerprint else None

    def record_content_hash(self, path: Path | str, fingerprint: FileFingerprint, content_hash: str) -> None:
        """Record the hash of a file, with the fingerprint that the file had before it was read."""
        if time.time_ns() - max(fingerprint.mtime_ns, fingerprint.ctime_ns) > MAX_CLOCK_TICK_NS:
            statement = "INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?, ?)"
            self._write(statement, os.fsencode(path), *fingerprint, content_hash)

    def get_output(self, path: Path | str) -> OutputRecord | None:
        rows = self._read(
            "SELECT recipe, sha256, size_bytes, mtime_ns, ctime_ns, inode FROM outputs WHERE path = ?",
            os.fsencode(path),
        )
        return OutputRecord(rows[0][0], rows[0][1], FileFingerprint(*rows[0][2:])) if rows else None

    def record_output(self, path: Path | str, output: OutputRecord) -> None:
        self._write(
            "INSERT OR REPLACE INTO outputs VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(os.fsencode(path), *output.fingerprint, output.sha256, output.settings_fingerprint),
        )

    # --- claims and failures ------------------------------------------------------------------------------------------

    async def claim(self, key: str) -> bool:
        """Claim a key for this process. Return False if it is claimed already, here or by another running process."""
        if key in self._claimed_keys:
            return False
        owner = process_ids.get_host_id(), process_ids.get_current_process_id()

        def insert_claim(database: sqlite3.Connection) -> bool:
            with _transaction(database):
                row = database.execute("SELECT host, process, at_ms FROM claims WHERE key = ?", (key,)).fetchone()
                if row is not None and row[:2] != owner and _is_claim_valid(*row):
                    return False
                now_ms = time.time_ns() // 1_000_000
                database.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)", (key, *owner, now_ms))
                return True

        if not self._run(insert_claim):
            return False
        self._claimed_keys.add(key)
        is_granted = False
        try:
            is_granted = self.shared_claims is None or await asyncio.to_thread(self.shared_claims.claim, key)
        finally:
            if not is_granted:
                self._release_own(key)
        return is_granted

    async def release(self, key: str) -> None:
        try:
            if self.shared_claims is not None and key in self._claimed_keys:
                await asyncio.to_thread(self.shared_claims.release, key)
        finally:
            self._release_own(key)

    def _release_own(self, key: str) -> None:
        self._claimed_keys.discard(key)
        self._write("DELETE FROM claims WHERE key = ?", key)

    def get_failure(self, key: str) -> FailureRecord | None:
        rows = self._read("SELECT message, exit_code, code, hint FROM failures WHERE key = ?", key)
        if not rows:
            return None
        failure = FailureRecord(*rows[0])
        # A damaged record must still stop the item from being sent again.
        is_valid = failure.exit_code in set(ExitCode) - {ExitCode.OK, ExitCode.BUG}
        return failure if is_valid else failure._replace(exit_code=ExitCode.INVALID_RESPONSE)

    def record_failure(self, key: str, failure: FailureRecord) -> None:
        values = (value.encode("utf-8", "replace").decode() if isinstance(value, str) else value for value in failure)
        self._write("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)", key, *values)

    def clear_failure(self, key: str) -> None:
        self._write("DELETE FROM failures WHERE key = ?", key)

    # --- database -----------------------------------------------------------------------------------------------------

    def _read(self, sql: str, *values: object) -> list[Any]:
        return self._run(lambda database: database.execute(sql, values).fetchall())

    def _write(self, sql: str, *values: object) -> None:
        self._run(lambda database: database.execute(sql, values))

    def _run(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """Call a function with the open database. If the file is damaged, move it aside and retry once."""
        for is_retry in (False, True):
            try:
                return call(self._open())
            except (sqlite3.Error, UnicodeDecodeError) as error:
                self.close()
                if is_retry or not _is_corruption(error):
                    raise OutputError(
                        f"cannot write the manifest {self.path}: {error}", hint="make its directory writable"
                    ) from error
                self._move_aside(error)
        raise AssertionError

    def _open(self) -> sqlite3.Connection:
        if self._database is not None:
            return self._database
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            require_regular_file(self.path)
        except OSError as error:
            raise OutputError(f"cannot write the manifest {self.path}: {error.strerror}") from error
        database = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        self._database = database
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise UsageError(
                f"the manifest {self.path} was written by a newer version of audiocli", hint="update audiocli"
            )
        if version and (problem := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(f"malformed: {problem}")
        # Rows lost in a power failure are rebuilt from the files on disk, so no fsync is needed.
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        if version < len(MIGRATIONS):
            with _transaction(database):
                # Read again under the lock: another process may have migrated the file.
                version = database.execute("PRAGMA user_version").fetchone()[0]
                for migrate in MIGRATIONS[version:]:
                    migrate(database)
                database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _move_aside(self, error: Exception) -> None:
        new_path = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns() // 1_000_000}")
        try:
            self.path.replace(new_path)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        except FileNotFoundError:
            return  # another process has moved it
        except OSError as move_error:
            raise OutputError(
                f"the manifest {self.path} is damaged and cannot be set aside: {move_error}"
            ) from move_error
        self._warning(f"the manifest is damaged ({error}); set aside as {new_path} and rebuilt from the files on disk")


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    if database.in_transaction:
        database.execute("COMMIT")


def _is_claim_valid(host: str, process_id: str, claimed_at_ms: int) -> bool:
    if host == process_ids.get_host_id():
        return process_ids.is_running(process_id)
    return isinstance(claimed_at_ms, int) and time.time() - claimed_at_ms / 1000 <= REMOTE_CLAIM_LIFETIME_S


def _is_corruption(error: Exception) -> bool:
    if is_decoding_error(error):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    message = str(error)
    return (
        # The statements never change, so an error in one (SQLITE_ERROR) is due to tables that are not those created.
        code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR) or "malformed" in message
    )
