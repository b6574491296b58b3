"""The SQLite file of the ledger: its tables and migrations, and how it is opened and set aside when damaged.

A migration is a function that runs once, inside a transaction. A released migration never changes.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from ..errors import LedgerBusy, LedgerDamaged, LedgerUnwritable, MoneyError
from ..private_files import require_regular_file
from ..system_limits import OPEN_FILES, is_out_of_files

APPLICATION_ID = 0x4155444C  # "AUDL" identifies a ledger among SQLite files


def _create_entries(connection: sqlite3.Connection) -> None:
    connection.execute(
        """
        CREATE TABLE entries (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at_ms INTEGER NOT NULL,
            settled_ms INTEGER,
            command TEXT NOT NULL,
            gateway TEXT NOT NULL,
            model TEXT NOT NULL,
            outcome TEXT NOT NULL,
            cost_nanousd INTEGER,
            cost_source TEXT NOT NULL,
            estimate_nanousd INTEGER,
            tag TEXT,
            characters INTEGER,
            utf8_bytes INTEGER,
            audio_ms INTEGER,
            input_tokens INTEGER,
            output_tokens INTEGER,
            received_bytes INTEGER,
            status INTEGER,
            error TEXT,
            request_id TEXT,
            generation_id TEXT,
            host TEXT NOT NULL,
            process TEXT NOT NULL
        ) STRICT
        """
    )
    # A covering index for reports.
    connection.execute(
        """
        CREATE INDEX entries_by_time ON entries
            (at_ms, outcome, gateway, model, command, tag, cost_source, cost_nanousd, audio_ms, characters)
        """
    )
    connection.execute("CREATE INDEX entries_open ON entries (outcome, host, process) WHERE outcome = 'reserved'")


def _add_max_cost_and_run(connection: sqlite3.Connection) -> None:
    """Add the maximum cost that spending limits reserve, what providers charge to the user's own keys, and the run."""
    for column in ("most_nanousd INTEGER", "upstream_nanousd INTEGER", "run TEXT"):
        connection.execute(f"ALTER TABLE entries ADD COLUMN {column}")
    # A covering index for spending limits.
    connection.execute(
        "CREATE INDEX entries_by_spending ON entries (at_ms, cost_nanousd, most_nanousd, estimate_nanousd, run)"
    )


# Sums are stored per quarter of an hour, because midnight in every current time zone is a multiple of it.
QUARTER_MS = 900_000

# The maximum that one entry adds to a sum, so that sums fit into 64 bits.
_MAX_COUNTED_NANOUSD = 100_000 * 1_000_000_000

_SUM_KEYS = ("quarter", "gateway", "model", "command", "outcome", "cost_source", "tag")


def build_sum_key(row: str) -> str:
    """Return the SQL for the key of the sum that an entry belongs to. `row` is `entries`, `new` or `old`."""
    names = ", ".join(f"{row}.{name}" for name in _SUM_KEYS[1:-1])
    return f"{row}.at_ms / {QUARTER_MS}, {names}, ifnull({row}.tag, '')"


def build_counted_amount(row: str) -> str:
    """Return the SQL for the amount of an entry that counts against spending limits.

    It is the cost with the charge of the provider. If that is unknown, it is the maximum or estimated cost.
    """
    cost = f"{row}.cost_nanousd + ifnull({row}.upstream_nanousd, 0)"
    return f"min(coalesce({cost}, {row}.most_nanousd, {row}.estimate_nanousd, 0), {_MAX_COUNTED_NANOUSD})"


def build_sum_amounts(row: str) -> dict[str, str]:
    """Return the SQL for what an entry adds to each column of its sum."""
    return {
        "entries": "1",
        "known": f"{row}.cost_nanousd IS NOT NULL",
        "cost_nanousd": f"ifnull({row}.cost_nanousd, 0)",
        "upstream_nanousd": f"ifnull({row}.upstream_nanousd, 0)",
        "audio_ms": f"ifnull({row}.audio_ms, 0)",
        "characters": f"ifnull({row}.characters, 0)",
    }


def _add_sums(connection: sqlite3.Connection) -> None:
    """Add sums of the entries, which triggers update in the transaction of each entry, for limits and reports.

    With a million entries, reading an index takes 70 ms for a limit and 1 to 2 s for a report (2026-11).
    """
    for name in ("entries_by_time", "entries_by_spending"):
        connection.execute(f"DROP INDEX {name}")
    connection.execute("ALTER TABLE entries ADD COLUMN asked_ms INTEGER")
    connection.execute("CREATE INDEX entries_by_time ON entries (at_ms)")
    connection.execute("CREATE INDEX entries_by_run ON entries (run) WHERE run IS NOT NULL")
    amounts = build_sum_amounts("entries")
    columns = ", ".join(f"{name} {'INTEGER' if name == 'quarter' else 'TEXT'} NOT NULL" for name in _SUM_KEYS)
    columns += "".join(f", {name} INTEGER NOT NULL" for name in amounts)
    connection.execute(f"CREATE TABLE sums ({columns}, PRIMARY KEY ({', '.join(_SUM_KEYS)})) STRICT, WITHOUT ROWID")
    connection.execute("CREATE TABLE spending (quarter INTEGER PRIMARY KEY, nanousd INTEGER NOT NULL) STRICT")
    sums = ", ".join(f"sum({amount})" for amount in amounts.values())
    grouping = ", ".join(str(number + 1) for number in range(len(_SUM_KEYS)))
    connection.execute(f"INSERT INTO sums SELECT {build_sum_key('entries')}, {sums} FROM entries GROUP BY {grouping}")
    connection.execute(
        f"INSERT INTO spending SELECT at_ms / {QUARTER_MS}, sum({build_counted_amount('entries')}) "
        "FROM entries GROUP BY 1"
    )
    watched_columns = ", ".join(
        ("at_ms", *_SUM_KEYS[1:], "cost_nanousd", "upstream_nanousd", "most_nanousd", "estimate_nanousd", "audio_ms")
    )
    for event, body in (
        ("INSERT", _build_addition()),
        ("DELETE", _build_subtraction()),
        (f"UPDATE OF {watched_columns}, characters", _build_subtraction() + _build_addition()),
    ):
        name = f"sums_after_{event.split()[0].lower()}"
        connection.execute(f"CREATE TRIGGER {name} AFTER {event} ON entries BEGIN {body} END")


def _build_addition() -> str:
    amounts = build_sum_amounts("new")
    additions = ", ".join(f"{name} = {name} + excluded.{name}" for name in amounts)
    return (
        f"INSERT INTO sums VALUES ({build_sum_key('new')}, {', '.join(amounts.values())}) "
        f"ON CONFLICT ({', '.join(_SUM_KEYS)}) DO UPDATE SET {additions}; "
        f"INSERT INTO spending VALUES (new.at_ms / {QUARTER_MS}, {build_counted_amount('new')}) "
        "ON CONFLICT (quarter) DO UPDATE SET nanousd = nanousd + excluded.nanousd; "
    )


def _build_subtraction() -> str:
    condition = f"({', '.join(_SUM_KEYS)}) = ({build_sum_key('old')})"
    subtractions = ", ".join(f"{name} = {name} - ({amount})" for name, amount in build_sum_amounts("old").items())
    return (
        f"UPDATE sums SET {subtractions} WHERE {condition}; DELETE FROM sums WHERE {condition} AND entries = 0; "
        f"UPDATE spending SET nanousd = nanousd - {build_counted_amount('old')} "
        f"WHERE quarter = old.at_ms / {QUARTER_MS}; "
    )


def _add_audio_tokens(connection: sqlite3.Connection) -> None:
    """Add audio tokens, which chat models price differently from text tokens."""
    for column in ("input_audio_tokens INTEGER", "output_audio_tokens INTEGER"):
        connection.execute(f"ALTER TABLE entries ADD COLUMN {column}")


def _add_jobs(connection: sqlite3.Connection) -> None:
    """Add background jobs, which can be polled by ID later."""
    connection.execute(
        """
        CREATE TABLE jobs (
            gateway TEXT NOT NULL,
            id TEXT NOT NULL,
            at_ms INTEGER NOT NULL,
            details TEXT NOT NULL,
            PRIMARY KEY (gateway, id)
        ) STRICT
        """
    )


MIGRATIONS = (_create_entries, _add_max_cost_and_run, _add_sums, _add_audio_tokens, _add_jobs)


# --- the file --------------------------------------------------------------------------------------------------------

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
    except (sqlite3.Error, UnicodeError) as error:
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
        except (sqlite3.Error, UnicodeError) as error:
            last_error: Exception = error
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
        raise MoneyError(
            f"the ledger {path} was written by a newer version of audiocli", hint="update audiocli to use it"
        )


def is_decoding_error(error: Exception) -> bool:
    """Return whether stored text is not UTF-8, or an error message of SQLite quotes such text: the file is damaged.

    sqlite3 raises OperationalError without a code for the former and UnicodeDecodeError for the latter.
    """
    is_undecodable_value = isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode")
    return isinstance(error, UnicodeDecodeError) or is_undecodable_value


def convert_error(error: Exception, path: Path) -> MoneyError:
    """Convert an error of SQLite or the file system to a MoneyError with a hint."""
    code = sqlite3.SQLITE_CORRUPT if is_decoding_error(error) else getattr(error, "sqlite_errorcode", 0) & 0xFF
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
    if code == sqlite3.SQLITE_CANTOPEN and is_out_of_files():
        return LedgerUnwritable(f"cannot use the ledger {path}: {OPEN_FILES.message}", hint=OPEN_FILES.hint)
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
