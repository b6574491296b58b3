"""The ledger: one entry for every request that may cost something, written before it is sent. Owns sqlite3.

An entry is inserted as `reserved` and settled once, to the outcome of its request. A process that is killed in between
leaves `reserved` behind; such an entry counts as `unknown`, never as free. Amounts are whole nano-dollars, unknown is
NULL. See docs/ledger.md.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LedgerBusy, MoneyError
from ..outcomes import CostSource, Outcome
from . import processes
from .budget import Cap, check
from .schema import APPLICATION_ID, MIGRATIONS

if TYPE_CHECKING:
    from ..vocabulary import Charge, Settlement, Usage

PATIENCE_S = 30.0

# How long a request may be under way. Only then is an entry given up whose process cannot be looked at, because it
# runs on another machine or in another container that shares the folder.
UNREACHABLE_AFTER_S = 24 * 3600


class Ledger:
    """The ledger file, opened at its first use. Every method raises MoneyError when the file cannot be used.

    `wait_s` bounds how long one call waits for other writers before LedgerBusy. SQLite waits inside C, where Ctrl-C
    does not reach; who runs a loop waits a little, and longer by trying again.
    """

    def __init__(self, path: Path, *, wait_s: float = PATIENCE_S) -> None:
        self.path = path
        self._wait_s = wait_s
        self._database: sqlite3.Connection | None = None
        self._is_together = False

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def reserve(self, charge: Charge, caps: Sequence[Cap] = ()) -> int:
        """Write the entry of a request that is about to be sent, if every cap allows it; give its number.

        Caps are looked at and the entry is written in one transaction, so that they hold for any number of processes.
        Raises: CapReached.
        """
        if caps:
            self.give_up_lost()
        with self._transaction() as database:
            for cap in caps:
                check(cap, spent_nanousd=self._spent(database, cap), most_nanousd=charge.most_nanousd)
            cursor = database.execute(
                """
                INSERT INTO entries (at_ms, command, gateway, model, outcome, cost_source, estimate_nanousd,
                                     most_nanousd, run, tag, characters, utf8_bytes, audio_ms, host, process)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """,
                (
                    time.time_ns() // 1_000_000,
                    charge.command,
                    charge.gateway,
                    charge.model,
                    Outcome.RESERVED,
                    CostSource.UNKNOWN,
                    charge.estimate_nanousd,
                    charge.most_nanousd,
                    charge.run,
                    charge.tag,
                    charge.characters,
                    charge.utf8_bytes,
                    _ms(charge.audio_s),
                    processes.here(),
                    processes.own(),
                ),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def spent(self, cap: Cap) -> int:
        """Sum what counts against a cap, in nano-dollars."""
        self.give_up_lost()
        return self._spent(self._open(), cap)

    def _spent(self, database: sqlite3.Connection, cap: Cap) -> int:
        """Sum the costs; where one is not known, the most it may be counts, and what was reserved as well."""
        where, value = ("run = ?", cap.run) if cap.run is not None else ("at_ms >= ?", cap.since_ms)
        [(spent,)] = database.execute(
            f"SELECT total(coalesce(cost_nanousd, most_nanousd, estimate_nanousd, 0)) FROM entries WHERE {where}",
            (value,),
        )
        return int(spent)

    def settle(self, entry_id: int, settlement: Settlement) -> None:
        """Write how a request ended, once; what was known before sending stays where nothing is told."""
        with self._transaction() as database:
            database.execute(
                """
                UPDATE entries SET settled_ms = ?, outcome = ?, model = coalesce(?, model), cost_nanousd = ?,
                    cost_source = ?, status = ?, error = ?,
                    request_id = ?, generation_id = ?, audio_ms = coalesce(?, audio_ms), input_tokens = ?,
                    output_tokens = ?, received_bytes = ?, upstream_nanousd = ?
                WHERE id = ? AND outcome = 'reserved'
                """,
                (
                    time.time_ns() // 1_000_000,
                    settlement.outcome,
                    settlement.model,
                    settlement.cost_nanousd,
                    settlement.cost_source,
                    settlement.status,
                    settlement.error,
                    settlement.request_id,
                    settlement.generation_id,
                    _ms(settlement.audio_s),
                    settlement.input_tokens,
                    settlement.output_tokens,
                    settlement.received_bytes,
                    settlement.upstream_nanousd,
                    entry_id,
                ),
            )

    def together(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Make several writes in one transaction, which waits for the disk once.

        What one of them raises stands in its place, and the others are written all the same.
        """
        results: list[Any] = []
        with self._transaction():
            self._is_together = True
            try:
                for call in calls:
                    try:
                        results.append(call())
                    except MoneyError as error:
                        results.append(error)
            finally:
                self._is_together = False
        return results

    def correct(self, entry_id: int, usage: Usage) -> bool:
        """Put the true cost in the place of a guess; False: it was known already."""
        with self._transaction() as database:
            return (
                database.execute(
                    """
                    UPDATE entries SET cost_nanousd = ?, cost_source = 'reported',
                        input_tokens = coalesce(?, input_tokens), output_tokens = coalesce(?, output_tokens),
                        upstream_nanousd = coalesce(?, upstream_nanousd)
                    WHERE id = ? AND cost_source IN ('estimated', 'unknown')
                    """,
                    (usage.cost_nanousd, usage.input_tokens, usage.output_tokens, usage.upstream_nanousd, entry_id),
                ).rowcount
                == 1
            )

    def give_up_lost(self) -> None:
        """Turn entries whose process is gone from `reserved` to `unknown`."""
        here = processes.here()
        lost = [
            entry_id
            for entry_id, at_ms, host, process in self.read(
                "SELECT id, at_ms, host, process FROM entries WHERE outcome = 'reserved'", ()
            )
            if (not processes.is_alive(process) if host == here else time.time() - at_ms / 1000 > UNREACHABLE_AFTER_S)
        ]
        until_s = time.monotonic() + PATIENCE_S
        while lost:
            try:
                with self._transaction() as database:
                    database.executemany(
                        "UPDATE entries SET outcome = 'unknown', error = 'the process ended before it could tell' "
                        "WHERE id = ? AND outcome = 'reserved'",
                        [(entry_id,) for entry_id in lost],
                    )
                return
            except LedgerBusy:
                if time.monotonic() > until_s:
                    raise

    def read(self, sql: str, values: Sequence[object]) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._open().execute(sql, tuple(values))
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = self._open()
        try:
            if self._is_together:
                yield database
                return
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise self._unusable(error) from error

    def _open(self) -> sqlite3.Connection:
        if self._database is not None:
            return self._database
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Its threads take turns: the one that works on many recordings has another write its entries.
            database = sqlite3.connect(self.path, timeout=self._wait_s, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        try:
            self._prepare(database)
        except sqlite3.Error as error:
            database.close()
            raise self._unusable(error) from error
        except BaseException:
            database.close()
            raise
        self._database = database
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 or version < len(MIGRATIONS):
            self._migrate(database)
        elif database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise MoneyError(f"{self.path} is not a ledger of audiocli", hint="name another file in AUDIOCLI_LEDGER")
        elif version > len(MIGRATIONS):
            raise MoneyError(
                f"the ledger {self.path} was written by a newer audiocli", hint="update audiocli to go on with it"
            )
        # WAL lets readers and writers work side by side; FULL keeps every settled entry over a power cut.
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")

    def _migrate(self, database: sqlite3.Connection) -> None:
        database.execute("BEGIN IMMEDIATE")
        try:
            # Read again under the lock: another process may have been first.
            version = database.execute("PRAGMA user_version").fetchone()[0]
            application_id = database.execute("PRAGMA application_id").fetchone()[0]
            if application_id not in (0, APPLICATION_ID) or (
                version == 0 and database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            ):
                raise MoneyError(
                    f"{self.path} is not a ledger of audiocli", hint="name another file in AUDIOCLI_LEDGER"
                )
            for migrate in MIGRATIONS[version:]:
                migrate(database)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")

    def _unusable(self, error: Exception) -> MoneyError:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return LedgerBusy(f"the ledger {self.path} is being written by another process", hint="try again")
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if (isinstance(error, sqlite3.DatabaseError) and "malformed" in told) or "not a database" in told:
            return MoneyError(
                f"the ledger {self.path} is damaged: {told}",
                hint="move it away to start a new one; nothing is sent while it cannot be written",
            )
        return MoneyError(
            f"the ledger {self.path} cannot be used: {told}",
            hint="nothing is sent without it: make its folder writable, or name another file in AUDIOCLI_LEDGER",
        )


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
