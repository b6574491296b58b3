"""Verify the ledger file, its entries and its sums, without changing the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..private_files import require_regular_file
from ..types.ledger import NANOUSD_PER_USD, CostSource, Outcome
from .database import APPLICATION_ID, MIGRATIONS, QUARTER_MS, build_counted_amount, build_sum_amounts, build_sum_key

# The maximum plausible cost of one request. Higher costs reported by gateways are rejected as well.
MAX_REQUEST_COST_NANOUSD = 10_000 * NANOUSD_PER_USD

FIRST_VERSION_WITH_SUMS = 3
MAX_LISTED_IDS = 10


class Check(NamedTuple):
    """The result of one check."""

    name: str
    is_ok: bool
    detail: str


class VerifyReport(NamedTuple):
    """The checks of a ledger, with the number and the total cost of the readable entries.

    `has_estimates`: a part of the total is estimated.
    """

    checks: tuple[Check, ...]
    entries: int
    cost_nanousd: int
    has_estimates: bool = False

    @property
    def is_ok(self) -> bool:
        return all(check.is_ok for check in self.checks)


def _quote_values(values: type[Outcome] | type[CostSource]) -> str:
    return ", ".join(f"'{value}'" for value in values)


# SQL conditions for invalid entries, by the name of the check.
INVALID_ENTRIES = {
    "costs": f"cost_nanousd < 0 OR cost_nanousd > {MAX_REQUEST_COST_NANOUSD}",
    "outcomes": f"outcome NOT IN ({_quote_values(Outcome)}) OR (outcome = 'reserved' AND settled_ms IS NOT NULL) "
    "OR (outcome NOT IN ('reserved', 'unknown') AND settled_ms IS NULL)",
    "sources": f"cost_source NOT IN ({_quote_values(CostSource)}) "
    "OR (cost_source = 'unknown') <> (cost_nanousd IS NULL)",
    "unserved requests": "outcome IN ('refused', 'unsent') AND cost_nanousd <> 0 AND cost_source <> 'reported'",
    "times": "at_ms < 0 OR at_ms > 253402128000000 OR settled_ms < at_ms - 86400000",
}


def verify(path: Path) -> VerifyReport:
    """Verify a ledger. An unreadable file is a failed check, not an error."""
    try:
        path.stat()
        require_regular_file(path)
    except FileNotFoundError:
        return VerifyReport((Check("file", True, "does not exist yet"),), 0, 0)
    except OSError as error:
        return VerifyReport((Check("file", False, str(error.strerror)),), 0, 0)
    connection = _open_read_only(path)
    if isinstance(connection, Exception):
        return VerifyReport((Check("file", False, str(connection)),), 0, 0)
    try:
        checks = tuple(_run_checks(connection))
        return VerifyReport(checks, *_read_totals(connection))
    finally:
        connection.close()


def _open_read_only(path: Path) -> sqlite3.Connection | Exception:
    last_error: Exception | None = None
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        try:
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=30.0)
        except sqlite3.Error as error:
            last_error = error
            continue
        try:
            connection.execute("PRAGMA schema_version").fetchone()
        except (sqlite3.Error, UnicodeError) as error:
            connection.close()
            last_error = error
            continue
        return connection
    assert last_error is not None
    return last_error


def _run_checks(connection: sqlite3.Connection) -> Iterator[Check]:
    try:
        [(version,)] = connection.execute("PRAGMA user_version")
        [(application_id,)] = connection.execute("PRAGMA application_id")
        if application_id != APPLICATION_ID or not version:
            yield Check("kind", False, "not a ledger of audiocli")
            return
        if version > len(MIGRATIONS):
            yield Check(
                "version", False, f"{version}, written by a newer version of audiocli; update audiocli to check it"
            )
            return
        yield Check("version", True, f"{version}" + (" (older)" if version < len(MIGRATIONS) else ""))
        messages = [str(line) for (line,) in connection.execute(f"PRAGMA integrity_check({MAX_LISTED_IDS})")]
        yield Check("file", messages == ["ok"], "ok" if messages == ["ok"] else "; ".join(messages))
        for name, condition in INVALID_ENTRIES.items():
            ids = [
                entry_id for (entry_id,) in connection.execute(f"SELECT id FROM entries NOT INDEXED WHERE {condition}")
            ]
            listed_ids = ", ".join(map(str, ids[:MAX_LISTED_IDS])) + (" …" if len(ids) > MAX_LISTED_IDS else "")
            yield Check(name, not ids, "ok" if not ids else f"invalid in {len(ids)} entries: {listed_ids}")
        if version >= FIRST_VERSION_WITH_SUMS:
            yield _check_sums(connection)
            yield _check_spending(connection)
    except (sqlite3.Error, UnicodeError) as error:
        yield Check("file", False, str(error))


def _check_sums(connection: sqlite3.Connection) -> Check:
    """Compare the sums for reports with the entries."""
    amounts = ", ".join(f"sum({amount})" for amount in build_sum_amounts("entries").values())
    keys = build_sum_key("entries")
    grouping = ", ".join(str(number + 1) for number in range(7))
    expected = f"SELECT {keys}, {amounts} FROM entries NOT INDEXED GROUP BY {grouping}"
    [(differences,)] = connection.execute(
        f"SELECT (SELECT count(*) FROM (SELECT * FROM sums EXCEPT {expected})) "
        f"+ (SELECT count(*) FROM ({expected} EXCEPT SELECT * FROM sums))"
    )
    return Check("report sums", not differences, f"{differences} differ from the entries" if differences else "ok")


def _check_spending(connection: sqlite3.Connection) -> Check:
    """Compare the sums for spending limits with the entries."""
    expected = (
        f"SELECT at_ms / {QUARTER_MS}, sum({build_counted_amount('entries')}) FROM entries NOT INDEXED GROUP BY 1"
    )
    [(differences,)] = connection.execute(
        f"SELECT (SELECT count(*) FROM (SELECT * FROM spending WHERE nanousd <> 0 EXCEPT {expected})) "
        f"+ (SELECT count(*) FROM (SELECT * FROM ({expected}) EXCEPT SELECT * FROM spending))"
    )
    return Check("spending sums", not differences, f"{differences} differ from the entries" if differences else "ok")


def _read_totals(connection: sqlite3.Connection) -> tuple[int, int, bool]:
    """Return the number of readable entries, their total cost, and whether it has estimates. Skip damaged pages."""
    count = cost_nanousd = 0
    has_estimates = False
    last_id = 0
    for _ in range(10_000):
        try:
            for entry_id, entry_cost, source in connection.execute(
                "SELECT id, cost_nanousd, cost_source FROM entries NOT INDEXED WHERE id > ? ORDER BY id", (last_id,)
            ):
                last_id, count, cost_nanousd = entry_id, count + 1, cost_nanousd + (entry_cost or 0)
                has_estimates = has_estimates or (source == CostSource.ESTIMATED and bool(entry_cost))
            break
        except (sqlite3.Error, UnicodeError):
            last_id = _skip_damage(connection, last_id)
            if not last_id:
                break
    return count, cost_nanousd, has_estimates


def _skip_damage(connection: sqlite3.Connection, last_id: int) -> int:
    """Return the ID before the next readable entry, searched in growing steps, or 0 if there is none."""
    step = 1
    while step < 2**40:
        try:
            connection.execute("SELECT id FROM entries NOT INDEXED WHERE id >= ? LIMIT 1", (last_id + step,)).fetchone()
        except (sqlite3.Error, UnicodeError):
            step *= 2
            continue
        return last_id + step - 1
    return 0
