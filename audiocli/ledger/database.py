"""The ledger's file: opened, brought up to date, read where it cannot be written, set aside where it is damaged."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from ..errors import LedgerBusy, LedgerDamaged, LedgerUnwritable, MoneyError
from ..private_files import require_regular_file
from .schema import APPLICATION_ID, MIGRATIONS

SQLITE_HEAD = b"SQLite format 3\0"
USUAL_NAME = "ledger.sqlite3"

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def open_to_write(path: Path, *, wait_s: float) -> sqlite3.Connection:
    """Open the ledger, made or migrated where need be. Raises: MoneyError."""
    try:
        require_regular_file(path)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Its threads take turns: the one that works on many recordings has another write its entries.
        database = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise unusable(error, path) from error
    try:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version < len(MIGRATIONS):
            migrate(database, path)
        else:
            _check_owner(database, path, version)
        # WAL lets readers and writers work side by side; FULL keeps every settled entry over a power cut.
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error as error:
        database.close()
        raise unusable(error, path) from error
    except BaseException:
        database.close()
        raise
    return database


def open_to_read(path: Path, *, wait_s: float) -> tuple[sqlite3.Connection, bool]:
    """Open a ledger that cannot be written, such as one on a read-only disk. Raises: MoneyError.

    The second value is False where the newest entries lie beside the file and cannot be reached.
    """
    try:
        require_regular_file(path)
    except OSError as error:
        raise unusable(error, path) from error
    # Beside a ledger in WAL mode SQLite wants to write a little; where it cannot, the file is taken as it is.
    for how in ("mode=ro", "mode=ro&immutable=1"):
        database: sqlite3.Connection | None = None
        try:
            address = f"{path.absolute().as_uri()}?{how}"
            database = sqlite3.connect(address, uri=True, timeout=wait_s, isolation_level=None)
            version = database.execute("PRAGMA user_version").fetchone()[0]
            _check_owner(database, path, version)
            beside = path.with_name(f"{path.name}-wal")
            is_all = "immutable" not in how or not beside.exists() or not beside.stat().st_size
            if version == len(MIGRATIONS):
                return database, is_all
            copy = sqlite3.connect(":memory:", isolation_level=None)
            database.backup(copy)
            database.close()
            migrate(copy, path)
            return copy, is_all
        except sqlite3.Error as error:
            trouble = error
            if database is not None:
                database.close()
        except MoneyError:
            if database is not None:
                database.close()
            raise
    raise unusable(trouble, path) from trouble


def migrate(database: sqlite3.Connection, path: Path) -> None:
    """Bring a ledger up to date, in one transaction. Raises: MoneyError: it is no ledger; sqlite3.Error."""
    database.execute("BEGIN IMMEDIATE")
    try:
        # Read again under the lock: another process may have been first.
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version or database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            _check_owner(database, path, version)
        for change in MIGRATIONS[version:]:
            change(database)
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {max(version, len(MIGRATIONS))}")
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _check_owner(database: sqlite3.Connection, path: Path, version: int) -> None:
    if database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID or not version:
        raise MoneyError(f"{path} is not a ledger of audiocli", hint="name another file in AUDIOCLI_LEDGER")
    if version > len(MIGRATIONS):
        raise MoneyError(f"the ledger {path} was written by a newer audiocli", hint="update audiocli to go on with it")


def unusable(error: Exception, path: Path) -> MoneyError:
    """Say what is wrong with the file, and what can be done about it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in BUSY:
        return LedgerBusy(f"the ledger {path} is being written by another process", hint="try again")
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if code in DAMAGED:
        return LedgerDamaged(
            f"the ledger {path} is damaged: {told}", hint="audiocli usage verify tells what can be read of it"
        )
    if code == sqlite3.SQLITE_FULL:
        return LedgerUnwritable(
            f"the ledger {path} cannot grow: {told}", hint="nothing is sent without it: make room on its disk"
        )
    return LedgerUnwritable(
        f"the ledger {path} cannot be used: {told}",
        hint="nothing is sent without it: make its folder writable, or name another file in AUDIOCLI_LEDGER",
    )


def identity(path: Path) -> tuple[int, int] | None:
    """Tell which file stands at a path; None: none that can be looked at."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def set_aside(path: Path, damaged: tuple[int, int] | None) -> Path | None:
    """Give a damaged ledger another name, with what SQLite keeps beside it; None: another process has done so.

    Raises: MoneyError: it cannot be renamed, or it may never have been a ledger.
    """
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
    try:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            _lock(folder)
            if damaged is None or identity(path) != damaged:
                return None
            if not _was_a_ledger(path):
                raise MoneyError(f"{path} is not a ledger of audiocli", hint="name another file in AUDIOCLI_LEDGER")
            # The ledger last: while it is there, another process sees that this is not done.
            for ending in ("-wal", "-shm", ""):
                beside = path.with_name(path.name + ending)
                if beside.exists():
                    beside.rename(aside.with_name(aside.name + ending))
        finally:
            os.close(folder)
    except OSError as error:
        raise unusable(error, path) from error
    return aside


def _was_a_ledger(path: Path) -> bool:
    """Tell a damaged ledger from a file of somebody's that AUDIOCLI_LEDGER names by mistake."""
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except OSError:
        return False
    mark = int.from_bytes(head[68:72], "big")
    return mark == APPLICATION_ID or (path.name == USUAL_NAME and not (head.startswith(SQLITE_HEAD) and mark))


def _lock(folder: int) -> None:
    """Let one process at a time set a ledger aside; the lock goes with the descriptor."""
    try:
        from fcntl import LOCK_EX, flock
    except ImportError:  # Windows, where a file that is open elsewhere cannot be renamed at all
        return
    flock(folder, LOCK_EX)
