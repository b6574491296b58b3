"""The ledger: one entry for every request that may cost something.

An entry is inserted as `reserved` before the request is sent, and settled once, with the outcome of the request. If the
process is killed in between, the entry remains `reserved` and later becomes `unknown`, never free. Amounts are integer
nano-dollars; NULL is unknown. See docs/ledger.md.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import process_ids
from ..errors import LedgerBusy, LedgerDamaged, LedgerUnwritable, MoneyError
from ..types.ledger import CostSource, Outcome, Reservation, Settlement
from . import database
from .budget import SpendingLimit, check_limit
from .database import QUARTER_MS, build_counted_amount

if TYPE_CHECKING:
    from ..types.ledger import UnreconciledEntry, Usage

LOCK_TIMEOUT_S = 30.0

# A process on another machine or in another container with the same directory cannot be checked. Its entries expire
# after the maximum duration of a request.
UNREACHABLE_PROCESS_TIMEOUT_S = 24 * 3600


# Estimates of a model are corrected by its newest bills, among the newest entries of all models.
MAX_ESTIMATE_RATIOS = 20
MAX_SEARCHED_ENTRIES = 2000


class Ledger:
    """A ledger file, opened at first use. Every method raises MoneyError if the file cannot be used.

    `wait_s` is the maximum time that one call waits for other writers before it raises LedgerBusy. SQLite waits in C
    code, which Ctrl-C does not interrupt, so an event loop uses a short wait and retries.

    With `warn`, a damaged file is set aside when an entry must be written and no spending limit is in force. `warn`
    receives the message. Without it, the damaged file stays in place.
    """

    def __init__(
        self, path: Path, *, wait_s: float = LOCK_TIMEOUT_S, warn: Callable[[str], None] | None = None
    ) -> None:
        self.path = path
        self._wait_s = wait_s
        self._warn = warn
        self._database: sqlite3.Connection | None = None
        self._is_writable = False
        self._opened_file_id: tuple[int, int] | None = None
        self._last_id = 0
        self._last_quarantined_id = 0
        self._has_shared_transaction = False

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database, self._is_writable = None, False

    def reserve(self, reservation: Reservation, limits: Sequence[SpendingLimit] = ()) -> int:
        """Insert the entry of a request if every spending limit allows it, and return the ID of the entry.

        Limits are checked in the transaction that inserts the entry, so they hold for any number of processes.

        Raises:
            LimitReached: The request could exceed a limit, or its maximum cost is unknown.
        """
        try:
            self._last_id = self._reserve(reservation, limits)
        except LedgerDamaged as error:
            if limits:
                error.hint = "spending limits cannot be checked without it, so nothing is sent; " + (error.hint or "")
                raise
            if self._warn is None:
                raise
            self._quarantine(error)
            self._last_id = self._reserve(reservation, limits)
        return self._last_id

    def _reserve(self, reservation: Reservation, limits: Sequence[SpendingLimit]) -> int:
        if limits:
            self.expire_lost_entries()
        with self.transaction() as connection:
            for limit in limits:
                check_limit(
                    limit,
                    f"{reservation.gateway}:{reservation.model}",
                    spent_nanousd=self._sum_spending(connection, limit),
                    max_nanousd=reservation.max_nanousd,
                )
            cursor = connection.execute(
                """
                INSERT INTO entries (at_ms, command, gateway, model, outcome, cost_source, estimate_nanousd,
                                     most_nanousd, run, tag, characters, utf8_bytes, audio_ms, host, process)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """,
                (
                    time.time_ns() // 1_000_000,
                    reservation.command,
                    reservation.gateway,
                    reservation.model,
                    Outcome.RESERVED,
                    CostSource.UNKNOWN,
                    reservation.estimate_nanousd,
                    reservation.max_nanousd,
                    reservation.run_id,
                    reservation.tag,
                    reservation.characters,
                    reservation.utf8_bytes,
                    _to_ms(reservation.audio_s),
                    process_ids.get_host_id(),
                    process_ids.get_current_process_id(),
                ),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def sum_spending(self, limit: SpendingLimit) -> int:
        """Return the nano-dollars that count against a spending limit."""
        self.expire_lost_entries()
        try:
            return self._sum_spending(self._connect(), limit)
        except sqlite3.Error as error:
            raise database.convert_error(error, self.path) from error

    def has_estimates(self, limit: SpendingLimit) -> bool:
        """Return whether a part of what counts against a limit is an estimate or a maximum."""
        query = "SELECT 1 FROM sums WHERE quarter >= ? AND cost_source IN ('estimated', 'unknown') LIMIT 1"
        return any(self.query(query, ((limit.since_ms or 0) // QUARTER_MS,)))

    def _sum_spending(self, connection: sqlite3.Connection, limit: SpendingLimit) -> int:
        """Add up the costs of entries. An entry without a known cost counts with its maximum."""
        query = f"SELECT total({build_counted_amount('entries')}) FROM entries WHERE"
        if limit.run_id is not None:
            [(spent,)] = connection.execute(f"{query} run = ?", (limit.run_id,))
            return int(spent)
        since_ms = limit.since_ms or 0
        quarter = -(-since_ms // QUARTER_MS)
        [(spent,)] = connection.execute("SELECT total(nanousd) FROM spending WHERE quarter >= ?", (quarter,))
        if quarter * QUARTER_MS > since_ms:
            [(first_quarter_spent,)] = connection.execute(
                f"{query} at_ms >= ? AND at_ms < ?", (since_ms, quarter * QUARTER_MS)
            )
            spent += first_quarter_spent
        return int(spent)

    def settle(self, entry_id: int, settlement: Settlement) -> None:
        """Set the outcome of a reserved entry, once. A model or duration of None leaves the column unchanged."""
        if entry_id <= self._last_quarantined_id:
            raise MoneyError("the entry is in the damaged ledger that was set aside")
        with self.transaction() as connection:
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
                    _to_ms(settlement.audio_s),
                    settlement.input_tokens,
                    settlement.output_tokens,
                    settlement.received_bytes,
                    settlement.upstream_nanousd,
                    settlement.input_audio_tokens,
                    settlement.output_audio_tokens,
                    entry_id,
                ),
            )

    def run_in_transaction(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run several writes in one transaction, with one wait for the disk, and return their results.

        A MoneyError that a call raises is returned in its place. It does not affect the other calls.
        """
        results: list[Any] = []
        with self.transaction():
            self._has_shared_transaction = True
            try:
                for call in calls:
                    try:
                        results.append(call())
                    except MoneyError as error:
                        results.append(error)
            finally:
                self._has_shared_transaction = False
        return results

    def correct_cost(self, entry_id: int, usage: Usage) -> bool:
        """Replace an estimated or unknown cost by the reported one. Return False if the cost was known."""
        with self.transaction() as connection:
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

    def defer(self, entry_id: int) -> None:
        """Move an entry to the end of the reconcile order, because its gateway does not know the request yet."""
        with self.transaction() as connection:
            connection.execute("UPDATE entries SET asked_ms = ? WHERE id = ?", (time.time_ns() // 1_000_000, entry_id))

    def restore(self, entry: UnreconciledEntry) -> None:
        """Insert the entry of a recorded command, with another ID, so that its cost can be requested again."""
        entry_id = self.reserve(Reservation("replay", entry.gateway, entry.model))
        source = CostSource.UNKNOWN if entry.cost_nanousd is None else CostSource.ESTIMATED
        self.settle(entry_id, Settlement(Outcome.OK, entry.cost_nanousd, source, generation_id=entry.generation_id))

    def list_unreconciled(self, run_id: str) -> list[UnreconciledEntry]:
        """Return the entries of a run with an estimated or unknown cost that can be looked up."""
        from ..types.ledger import UnreconciledEntry

        return [
            UnreconciledEntry(*values)
            for values in self.query(
                "SELECT id, gateway, model, generation_id, cost_nanousd FROM entries WHERE run = ? "
                "AND cost_source IN ('estimated', 'unknown') AND outcome <> 'reserved' AND generation_id IS NOT NULL",
                (run_id,),
            )
        ]

    def list_costs(self, run_id: str) -> list[tuple[int | None, CostSource]]:
        """Return the cost and cost source of every entry of a run."""
        return [
            (cost, CostSource(source))
            for cost, source in self.query("SELECT cost_nanousd, cost_source FROM entries WHERE run = ?", (run_id,))
        ]

    def list_estimate_ratios(self, gateway: str, model: str) -> list[float]:
        """Return the ratios of reported to estimated costs of the newest requests of a model, newest first.

        Only the newest entries of the ledger are searched, so that a large ledger costs no time. A missing file is not
        created. An entry whose estimate is the middle of a range is left out: version 0.1 estimated so.
        """
        if database.get_file_id(self.path) is None:
            return []
        rows = self.query(
            """
            SELECT (cost_nanousd + ifnull(upstream_nanousd, 0)) * 1.0 / estimate_nanousd
            FROM (SELECT * FROM entries ORDER BY id DESC LIMIT ?)
            WHERE gateway = ? AND model = ? AND command <> 'chat' AND outcome = 'ok' AND cost_source = 'reported'
                AND cost_nanousd + ifnull(upstream_nanousd, 0) > 0 AND estimate_nanousd > 0
                AND (most_nanousd <= estimate_nanousd OR most_nanousd > 2 * estimate_nanousd + 1)
            ORDER BY id DESC LIMIT ?
            """,
            (MAX_SEARCHED_ENTRIES, gateway, model, MAX_ESTIMATE_RATIOS),
        )
        return [float(ratio) for (ratio,) in rows]

    def expire_lost_entries(self) -> None:
        """Change `reserved` entries of processes that have ended to `unknown`, if the ledger is writable."""
        host_id = process_ids.get_host_id()
        lost_ids = [
            entry_id
            for entry_id, at_ms, host, process in self.query(
                "SELECT id, at_ms, host, process FROM entries WHERE outcome = 'reserved' AND process NOT LIKE 'job %'",
                (),
            )
            if (
                not process_ids.is_running(process)
                if host == host_id
                else time.time() - at_ms / 1000 > UNREACHABLE_PROCESS_TIMEOUT_S
            )
        ]
        deadline_s = time.monotonic() + LOCK_TIMEOUT_S
        while lost_ids and self._is_writable:
            try:
                with self.transaction() as connection:
                    connection.executemany(
                        "UPDATE entries SET outcome = 'unknown', error = 'the process ended before it could tell' "
                        "WHERE id = ? AND outcome = 'reserved'",
                        [(entry_id,) for entry_id in lost_ids],
                    )
                return
            except LedgerBusy:
                if time.monotonic() > deadline_s:
                    raise

    def query(self, sql: str, values: Sequence[object]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a SELECT statement."""
        try:
            yield from self._connect().execute(sql, tuple(values))
        except (sqlite3.Error, UnicodeError) as error:
            raise database.convert_error(error, self.path) from error

    def list_columns(self) -> list[str]:
        """Return the column names of the table `entries`."""
        return [str(name) for _, name, *_ in self.query("PRAGMA table_info(entries)", ())]

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run writes in one transaction.

        Raises:
            MoneyError: The ledger cannot be used. Nothing is written.
        """
        connection = self._connect_read_write()
        try:
            if self._has_shared_transaction:
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
            raise database.convert_error(error, self.path) from error

    def _connect_read_write(self) -> sqlite3.Connection:
        if self._database is None or not self._is_writable:
            self.close()
            self._opened_file_id = database.get_file_id(self.path)
            self._database, self._is_writable = database.open_read_write(self.path, wait_s=self._wait_s), True
            self._opened_file_id = self._opened_file_id or database.get_file_id(self.path)
        return self._database

    def _connect(self) -> sqlite3.Connection:
        """Return a connection, writable if possible, because reports also expire lost entries."""
        deadline_s = time.monotonic() + LOCK_TIMEOUT_S
        while self._database is None:
            try:
                return self._connect_read_write()
            except LedgerBusy:
                # Another process is migrating it.
                if time.monotonic() > deadline_s:
                    raise
            except LedgerUnwritable:
                # SQLite creates an empty file, which stays if the first write fails.
                if database.get_file_id(self.path) is None or not self.path.stat().st_size:
                    raise
                self._database, is_complete = database.open_read_only(self.path, wait_s=self._wait_s)
                if not is_complete and self._warn is not None:
                    self._warn(f"{self.path} is read-only: its newest entries, in {self.path}-wal, cannot be read here")
        return self._database

    def _quarantine(self, error: LedgerDamaged) -> None:
        """Set the damaged file aside and create a new one.

        Raises:
            MoneyError: The file cannot be renamed, or may not be a ledger.
        """
        self.close()
        new_path = database.quarantine(self.path, self._opened_file_id)
        # The open entries of this process are in the old file, so their IDs must not be reused.
        self._last_quarantined_id = self._last_id
        if new_path is not None and self._warn is not None:
            self._warn(
                f"{error.message}. It was set aside as {new_path} and replaced by a new ledger without earlier "
                f"spending. Run 'AUDIOCLI_LEDGER={new_path} audiocli usage verify' to see what can be read of it"
            )
        with self.transaction() as connection:
            [(last_id,)] = connection.execute("SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'entries'")
            if last_id < self._last_quarantined_id:
                connection.execute("DELETE FROM sqlite_sequence WHERE name = 'entries'")
                connection.execute("INSERT INTO sqlite_sequence VALUES ('entries', ?)", (self._last_quarantined_id,))


def _to_ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
