"""Open, migrate and quarantine the SQLite file of the ledger."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from ..errors import LedgerBusy, LedgerDamaged, LedgerUnwritable, MoneyError
from ..private_files import require_regular_file
from .schema import APPLICATION_ID, MIGRATIONS

SQLITE_HEADER = b"SQLite format 3\0"
DEFAULT_FILENAME = "ledger.sqlite3"

DAMAGED_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
WAL_RETRY_INTERVAL_S = 0.01
BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def open_read_write(path: Path, *, wait_s: float) -> sqlite3.Connection:
    """Open the ledger for writing. Create or migrate it if necessary.

    Raises:
        MoneyError: The file cannot be used or is not a ledger.
    """
    try:
        require_regular_file(path)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Several threads use the connection, one at a time: a batch writes its entries in another thread.
        connection = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise convert_error(error, path) from error
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version < len(MIGRATIONS):
            migrate(connection, path)
        else:
            _require_known_ledger(connection, path, version)
        # WAL allows reading during a write. FULL keeps every settled entry after a power failure.
        _enable_wal(connection, wait_s)
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error as error:
        connection.close()
        raise convert_error(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _enable_wal(connection: sqlite3.Connection, wait_s: float) -> None:
    """Switch to WAL. SQLite does not wait for other connections here, whatever its timeout. Raises: sqlite3.Error."""
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if (error.sqlite_errorcode & 0xFF) not in BUSY_CODES or time.monotonic() > deadline_s:
                raise
            time.sleep(WAL_RETRY_INTERVAL_S)


def open_read_only(path: Path, *, wait_s: float) -> tuple[sqlite3.Connection, bool]:
    """Open a ledger that cannot be written, such as one on a read-only disk.

    Return the connection, and False if the newest entries are in a WAL file that cannot be read. An older schema is
    migrated in memory.

    Raises:
        MoneyError: The file cannot be read or is not a ledger.
    """
    try:
        require_regular_file(path)
    except OSError as error:
        raise convert_error(error, path) from error
    # SQLite writes files next to a database in WAL mode. If it cannot, `immutable` reads the main file only.
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        connection: sqlite3.Connection | None = None
        try:
            url = f"{path.absolute().as_uri()}?{mode}"
            connection = sqlite3.connect(url, uri=True, timeout=wait_s, isolation_level=None)
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            _require_known_ledger(connection, path, version)
            wal_path = path.with_name(f"{path.name}-wal")
            is_complete = "immutable" not in mode or not wal_path.exists() or not wal_path.stat().st_size
            if version == len(MIGRATIONS):
                return connection, is_complete
            migrated = sqlite3.connect(":memory:", isolation_level=None)
            connection.backup(migrated)
            connection.close()
            migrate(migrated, path)
            return migrated, is_complete
        except sqlite3.Error as error:
            last_error = error
            if connection is not None:
                connection.close()
        except MoneyError:
            if connection is not None:
                connection.close()
            raise
    raise convert_error(last_error, path) from last_error


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Apply the missing migrations in one transaction.

    Raises:
        MoneyError: The file is not a ledger, or a newer version wrote it.
        sqlite3.Error: A migration failed; nothing is changed.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read the version again under the lock, because another process may have migrated the file.
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version or connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            _require_known_ledger(connection, path, version)
        for migration in MIGRATIONS[version:]:
            migration(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {max(version, len(MIGRATIONS))}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _require_known_ledger(connection: sqlite3.Connection, path: Path, version: int) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID or not version:
        raise MoneyError(f"{path} is not a ledger of audiocli", hint="set AUDIOCLI_LEDGER to another file")
    if version > len(MIGRATIONS):
        raise MoneyError(f"the ledger {path} was written by a newer audiocli", hint="update audiocli to use it")


def convert_error(error: Exception, path: Path) -> MoneyError:
    """Convert an error of SQLite or the file system to a MoneyError with a hint."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in BUSY_CODES:
        return LedgerBusy(f"the ledger {path} is locked by another process", hint="try again")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if code in DAMAGED_CODES:
        return LedgerDamaged(
            f"the ledger {path} is damaged: {reason}", hint="run 'audiocli usage verify' to see what can be read of it"
        )
    if code == sqlite3.SQLITE_FULL:
        return LedgerUnwritable(
            f"cannot write to the ledger {path}: {reason}", hint="nothing is sent without it; free space on its disk"
        )
    return LedgerUnwritable(
        f"cannot use the ledger {path}: {reason}",
        hint="nothing is sent without it; make its directory writable, or set AUDIOCLI_LEDGER to another file",
    )


def get_file_id(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file, or None if there is no accessible file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def quarantine(path: Path, damaged_file_id: tuple[int, int] | None) -> Path | None:
    """Rename a damaged ledger with its WAL and shared-memory files, and return the new path.

    Return None if the file is no longer `damaged_file_id`, because another process has renamed it.

    Raises:
        MoneyError: The file cannot be renamed, or may not be a ledger.
    """
    new_path = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
    try:
        directory_fd = os.open(path.parent, os.O_RDONLY)
        try:
            _lock_directory(directory_fd)
            if damaged_file_id is None or get_file_id(path) != damaged_file_id:
                return None
            if not _may_be_ledger(path):
                raise MoneyError(f"{path} is not a ledger of audiocli", hint="set AUDIOCLI_LEDGER to another file")
            # The ledger is renamed last. As long as it exists, other processes see that the quarantine is incomplete.
            for suffix in ("-wal", "-shm", ""):
                source = path.with_name(path.name + suffix)
                if source.exists():
                    source.rename(new_path.with_name(new_path.name + suffix))
        finally:
            os.close(directory_fd)
    except OSError as error:
        raise convert_error(error, path) from error
    return new_path


def _may_be_ledger(path: Path) -> bool:
    """Return whether a damaged file may be a ledger, and not a file that AUDIOCLI_LEDGER names by mistake."""
    try:
        with path.open("rb") as file:
            header = file.read(72)
    except OSError:
        return False
    application_id = int.from_bytes(header[68:72], "big")
    return application_id == APPLICATION_ID or (
        path.name == DEFAULT_FILENAME and not (header.startswith(SQLITE_HEADER) and application_id)
    )


def _lock_directory(directory_fd: int) -> None:
    """Lock a directory, so that only one process quarantines a ledger. Closing the descriptor releases the lock."""
    try:
        from fcntl import LOCK_EX, flock
    except ImportError:  # Windows, where a file that another process has open cannot be renamed
        return
    flock(directory_fd, LOCK_EX)
