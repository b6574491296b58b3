"""The ledger: one entry for every request that may cost something, written before it is sent. Owns sqlite3.

An entry is inserted as `reserved` and settled once, to the outcome of its request. A process that is killed in between
leaves `reserved` behind; such an entry counts as `unknown`, never as free. Amounts are whole nano-dollars, unknown is
NULL. See docs/ledger.md.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import process_ids
from ..errors import LedgerBusy, LedgerDamaged, LedgerUnwritable, MoneyError
from ..types.outcomes import CostSource, Outcome
from . import database
from .budget import SpendingLimit, check
from .schema import QUARTER_MS, counted

if TYPE_CHECKING:
    from ..types.values import Reservation, UnreconciledEntry, Settlement, Usage

PATIENCE_S = 30.0

# How long a request may be under way. Only then is an entry given up whose process cannot be looked at, because it
# runs on another machine or in another container that shares the folder.
UNREACHABLE_AFTER_S = 24 * 3600


class Ledger:
    """The ledger file, opened at its first use. Every method raises MoneyError when the file cannot be used.

    `wait_s` bounds how long one call waits for other writers before LedgerBusy. SQLite waits inside C, where Ctrl-C
    does not reach; who runs a loop waits a little, and longer by trying again. With an `alarm`, which is told of it,
    a damaged file is set aside where an entry has to be written and no cap is in force; without one it stays.
    """

    def __init__(self, path: Path, *, wait_s: float = PATIENCE_S, alarm: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._wait_s = wait_s
        self._alarm = alarm
        self._database: sqlite3.Connection | None = None
        self._is_writable = False
        self._opened: tuple[int, int] | None = None
        self._last_id = 0
        self._left_behind = 0
        self._is_together = False

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database, self._is_writable = None, False

    def reserve(self, charge: Reservation, caps: Sequence[SpendingLimit] = ()) -> int:
        """Write the entry of a request that is about to be sent, if every cap allows it; give its number.

        Caps are looked at and the entry is written in one transaction, so that they hold for any number of processes.
        Raises: CapReached.
        """
        try:
            self._last_id = self._reserve(charge, caps)
        except LedgerDamaged as error:
            if caps:
                error.hint = "what was spent under your caps is in it, so nothing is sent: " + (error.hint or "")
                raise
            if self._alarm is None:
                raise
            self._set_aside(error)
            self._last_id = self._reserve(charge, caps)
        return self._last_id

    def _reserve(self, charge: Reservation, caps: Sequence[SpendingLimit]) -> int:
        if caps:
            self.give_up_lost()
        with self._transaction() as connection:
            for cap in caps:
                check(cap, spent_nanousd=self._spent(connection, cap), most_nanousd=charge.most_nanousd)
            cursor = connection.execute(
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
                    process_ids.here(),
                    process_ids.own(),
                ),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def spent(self, cap: SpendingLimit) -> int:
        """Sum what counts against a cap, in nano-dollars."""
        self.give_up_lost()
        try:
            return self._spent(self._to_read(), cap)
        except sqlite3.Error as error:
            raise database.unusable(error, self.path) from error

    def _spent(self, connection: sqlite3.Connection, cap: SpendingLimit) -> int:
        """Sum the costs; where one is not known, the most it may be counts, and what was reserved as well."""
        each = f"SELECT total({counted('entries')}) FROM entries WHERE"
        if cap.run is not None:
            [(spent,)] = connection.execute(f"{each} run = ?", (cap.run,))
            return int(spent)
        since_ms = cap.since_ms or 0
        quarter = -(-since_ms // QUARTER_MS)
        [(spent,)] = connection.execute("SELECT total(nanousd) FROM spending WHERE quarter >= ?", (quarter,))
        if quarter * QUARTER_MS > since_ms:
            [(before,)] = connection.execute(f"{each} at_ms >= ? AND at_ms < ?", (since_ms, quarter * QUARTER_MS))
            spent += before
        return int(spent)

    def settle(self, entry_id: int, settlement: Settlement) -> None:
        """Write how a request ended, once; what was known before sending stays where nothing is told."""
        if entry_id <= self._left_behind:
            raise MoneyError("the entry is in the ledger that was set aside")
        with self._transaction() as connection:
            connection.execute(
                """
                UPDATE entries SET settled_ms = ?, outcome = ?, model = coalesce(?, model), cost_nanousd = ?,
                    cost_source = ?, status = ?, error = ?,
                    request_id = ?, generation_id = ?, audio_ms = coalesce(?, audio_ms), input_tokens = ?,
                    output_tokens = ?, received_bytes = ?, upstream_nanousd = ?,
                    input_audio_tokens = ?, output_audio_tokens = ?
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
                    settlement.input_audio_tokens,
                    settlement.output_audio_tokens,
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
        with self._transaction() as connection:
            return (
                connection.execute(
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

    def put_off(self, entry_id: int) -> None:
        """Note that a gateway did not know a request, so that others are asked for before it is asked for again."""
        with self._transaction() as connection:
            connection.execute("UPDATE entries SET asked_ms = ? WHERE id = ?", (time.time_ns() // 1_000_000, entry_id))

    def open_of_run(self, run: str) -> list[UnreconciledEntry]:
        """Give the entries of a run whose cost is a guess or unknown and can be asked for."""
        from ..types.values import UnreconciledEntry

        return [
            UnreconciledEntry(*values)
            for values in self.read(
                "SELECT id, gateway, model, generation_id, cost_nanousd FROM entries WHERE run = ? "
                "AND cost_source IN ('estimated', 'unknown') AND outcome <> 'reserved' AND generation_id IS NOT NULL",
                (run,),
            )
        ]

    def costs_of_run(self, run: str) -> list[tuple[int | None, CostSource]]:
        return [
            (cost, CostSource(source))
            for cost, source in self.read("SELECT cost_nanousd, cost_source FROM entries WHERE run = ?", (run,))
        ]

    def give_up_lost(self) -> None:
        """Turn entries whose process is gone from `reserved` to `unknown`, where the ledger can be written."""
        here = process_ids.here()
        lost = [
            entry_id
            for entry_id, at_ms, host, process in self.read(
                "SELECT id, at_ms, host, process FROM entries WHERE outcome = 'reserved' AND process NOT LIKE 'job %'",
                (),
            )
            if (not process_ids.is_alive(process) if host == here else time.time() - at_ms / 1000 > UNREACHABLE_AFTER_S)
        ]
        until_s = time.monotonic() + PATIENCE_S
        while lost and self._is_writable:
            try:
                with self._transaction() as connection:
                    connection.executemany(
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
            yield from self._to_read().execute(sql, tuple(values))
        except sqlite3.Error as error:
            raise database.unusable(error, self.path) from error

    def columns(self) -> list[str]:
        return [str(name) for _, name, *_ in self.read("PRAGMA table_info(entries)", ())]

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Write several things or none. Raises: MoneyError."""
        return self._transaction()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._to_write()
        try:
            if self._is_together:
                yield connection
                return
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise database.unusable(error, self.path) from error

    def _to_write(self) -> sqlite3.Connection:
        if self._database is None or not self._is_writable:
            self.close()
            self._opened = database.identity(self.path)
            self._database, self._is_writable = database.open_to_write(self.path, wait_s=self._wait_s), True
            self._opened = self._opened or database.identity(self.path)
        return self._database

    def _to_read(self) -> sqlite3.Connection:
        """Open it to write, if that can be done: entries that were left behind are given up while it is read."""
        until_s = time.monotonic() + PATIENCE_S
        while self._database is None:
            try:
                return self._to_write()
            except LedgerBusy:
                # Another process brings it up to date.
                if time.monotonic() > until_s:
                    raise
            except LedgerUnwritable:
                if not self.path.is_file():
                    raise
                self._database, is_all = database.open_to_read(self.path, wait_s=self._wait_s)
                if not is_all and self._alarm is not None:
                    self._alarm(f"the newest entries of {self.path} lie in {self.path}-wal and cannot be read here")
        return self._database

    def _set_aside(self, error: LedgerDamaged) -> None:
        """Give the damaged file another name and go on with a new one. Raises: MoneyError."""
        self.close()
        aside = database.set_aside(self.path, self._opened)
        # What this process has under way is in the old file; its numbers are not given again.
        self._left_behind = self._last_id
        if aside is not None and self._alarm is not None:
            self._alarm(
                f"{error.message}. It was set aside as {aside}, and a new one begins: what was spent before is not in "
                f"it. AUDIOCLI_LEDGER={aside} audiocli usage verify tells what can be read of the old one"
            )
        with self._transaction() as connection:
            [(last,)] = connection.execute("SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'entries'")
            if last < self._left_behind:
                connection.execute("DELETE FROM sqlite_sequence WHERE name = 'entries'")
                connection.execute("INSERT INTO sqlite_sequence VALUES ('entries', ?)", (self._left_behind,))


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
