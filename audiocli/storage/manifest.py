"""The manifest: what was written, from which content, and who is at work on what. Owns its sqlite3 file.

It is an index and no more. Transcripts that were paid for lie beside it, a file each (`sinks.pieces.Stash`), so that a
manifest that is damaged or lost is made anew by hashing what is on disk, and nothing is paid for again.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .. import process_ids
from ..errors import OutputError, UsageError
from ..private_files import require_regular_file

APPLICATION_ID = 0x4155444D  # "AUDM": tells a manifest from a ledger and any other SQLite file
PATIENCE_S = 5.0

# A file that was written this shortly before it was hashed may have been written again within one tick of its clock.
TICK_NS = 2_000_000_000

# How long a claim may be held by a process that cannot be looked at, because it runs on another machine.
UNREACHABLE_AFTER_S = 24 * 3600

T = TypeVar("T")


class Fingerprint(NamedTuple):
    """What tells, without reading it, that a file is the one that was read before."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class Written(NamedTuple):
    """An output as it was written; `recipe` names the transcript and all that decides how it looks."""

    recipe: str
    sha256: str
    fingerprint: Fingerprint


class Failure(NamedTuple):
    """How work on some content failed, where sending it again may be paid for twice."""

    message: str
    exit_code: int
    code: str
    hint: str | None = None


def _create(database: sqlite3.Connection) -> None:
    fingerprint = "size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, inode INTEGER"
    for statement in (
        # Names of files are bytes, and need not be text.
        f"CREATE TABLE sources (path BLOB PRIMARY KEY, {fingerprint}, content TEXT NOT NULL) STRICT, WITHOUT ROWID",
        f"CREATE TABLE outputs (path BLOB PRIMARY KEY, {fingerprint}, sha256 TEXT NOT NULL, recipe TEXT NOT NULL)"
        " STRICT, WITHOUT ROWID",
        "CREATE TABLE claims (key TEXT PRIMARY KEY, host TEXT NOT NULL, process TEXT NOT NULL, at_ms INTEGER NOT NULL)"
        " STRICT, WITHOUT ROWID",
        "CREATE TABLE failures (key TEXT PRIMARY KEY, message TEXT NOT NULL, exit_code INTEGER NOT NULL,"
        " code TEXT NOT NULL, hint TEXT) STRICT, WITHOUT ROWID",
    ):
        database.execute(statement)


MIGRATIONS = (_create,)


class Manifest:
    """The manifest file, opened at its first use.

    One that is damaged is set aside and begun anew, which `tell` says. Every method raises OutputError when the file
    cannot be used, and UsageError when a newer audiocli wrote it.
    """

    def __init__(self, path: Path, *, tell: Callable[[str], None]) -> None:
        self.path = path
        self._tell = tell
        self._database: sqlite3.Connection | None = None
        self._held: set[str] = set()

    def open(self) -> None:
        """Have the file ready, before anything depends on it."""
        self._do(lambda _: None)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    # --- what is on disk ---------------------------------------------------------------------------------------------

    def content(self, path: Path, now: Fingerprint) -> str | None:
        """Give the hash of a file that has not changed since it was read; None: it has to be read."""
        rows = self._read(
            "SELECT size_bytes, mtime_ns, ctime_ns, inode, content FROM sources WHERE path = ?", os.fsencode(path)
        )
        return str(rows[0][4]) if rows and Fingerprint(*rows[0][:4]) == now else None

    def remember(self, path: Path, before: Fingerprint, content: str) -> None:
        """Keep the hash of a file, as it was before it was read."""
        if time.time_ns() - max(before.mtime_ns, before.ctime_ns) > TICK_NS:
            self._write("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?, ?)", os.fsencode(path), *before, content)

    def written(self, path: Path) -> Written | None:
        rows = self._read(
            "SELECT recipe, sha256, size_bytes, mtime_ns, ctime_ns, inode FROM outputs WHERE path = ?",
            os.fsencode(path),
        )
        return Written(rows[0][0], rows[0][1], Fingerprint(*rows[0][2:])) if rows else None

    def record(self, path: Path, written: Written) -> None:
        self._write(
            "INSERT OR REPLACE INTO outputs VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(os.fsencode(path), *written.fingerprint, written.sha256, written.recipe),
        )

    # --- who is at work ----------------------------------------------------------------------------------------------

    def claim(self, key: str) -> bool:
        """Take some work; False: it is in somebody's hands, here or in another process that is alive."""
        if key in self._held:
            return False
        own = process_ids.here(), process_ids.own()

        def take(database: sqlite3.Connection) -> bool:
            with _transaction(database):
                row = database.execute("SELECT host, process, at_ms FROM claims WHERE key = ?", (key,)).fetchone()
                if row is not None and row[:2] != own and _is_held(*row):
                    return False
                now_ms = time.time_ns() // 1_000_000
                database.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)", (key, *own, now_ms))
                return True

        if self._do(take):
            self._held.add(key)
        return key in self._held

    def release(self, key: str) -> None:
        self._held.discard(key)
        self._write("DELETE FROM claims WHERE key = ?", key)

    def failure(self, key: str) -> Failure | None:
        rows = self._read("SELECT message, exit_code, code, hint FROM failures WHERE key = ?", key)
        return Failure(*rows[0]) if rows else None

    def fail(self, key: str, failure: Failure) -> None:
        plain = (text.encode("utf-8", "replace").decode() if isinstance(text, str) else text for text in failure)
        self._write("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)", key, *plain)

    def forgive(self, key: str) -> None:
        self._write("DELETE FROM failures WHERE key = ?", key)

    # --- the file ----------------------------------------------------------------------------------------------------

    def _read(self, sql: str, *values: object) -> list[Any]:
        return self._do(lambda database: database.execute(sql, values).fetchall())

    def _write(self, sql: str, *values: object) -> None:
        self._do(lambda database: database.execute(sql, values))

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Work with the file; one that turns out to be damaged is set aside, once."""
        for is_last in (False, True):
            try:
                return work(self._open())
            except sqlite3.Error as error:
                self.close()
                if is_last or not _is_damage(error):
                    raise OutputError(
                        f"cannot keep account of what is done in {self.path}: {error}", hint="make its folder writable"
                    ) from error
                self._set_aside(error)
        raise AssertionError

    def _open(self) -> sqlite3.Connection:
        if self._database is not None:
            return self._database
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            require_regular_file(self.path)
        except OSError as error:
            raise OutputError(f"cannot keep account of what is done in {self.path}: {error.strerror}") from error
        database = sqlite3.connect(self.path, timeout=PATIENCE_S, isolation_level=None)
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
            raise UsageError(f"the manifest {self.path} was written by a newer audiocli", hint="update audiocli")
        if version and (found := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(f"malformed: {found}")
        # What a power cut takes is made anew from what is on disk, so nothing has to wait for the disk.
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        if version < len(MIGRATIONS):
            with _transaction(database):
                # Read again under the lock: another process may have been first.
                version = database.execute("PRAGMA user_version").fetchone()[0]
                for migrate in MIGRATIONS[version:]:
                    migrate(database)
                database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _set_aside(self, error: sqlite3.Error) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns() // 1_000_000}")
        try:
            self.path.replace(aside)
            for ending in ("-wal", "-shm"):
                self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        except FileNotFoundError:
            return  # another process was first
        except OSError as second:
            raise OutputError(f"the manifest {self.path} is damaged, and cannot be set aside: {second}") from second
        self._tell(f"the manifest is damaged ({error}): set aside as {aside}, and made anew from what is on disk")


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


def _is_held(host: str, process: str, at_ms: int) -> bool:
    if host == process_ids.here():
        return process_ids.is_alive(process)
    return time.time() - at_ms / 1000 <= UNREACHABLE_AFTER_S


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    told = str(error)
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "malformed" in told or "no such table" in told
