"""Is the ledger whole? Looks at the file and at its sums, and changes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..types.outcomes import NANOUSD_PER_USD, CostSource, Outcome
from .schema import APPLICATION_ID, MIGRATIONS, QUARTER_MS, amounts_of, counted, keys_of

# What one request cannot cost; the gateways' own words are not believed beyond it either.
ABSURD_NANOUSD = 10_000 * NANOUSD_PER_USD

WITH_SUMS = 3
TOLD_NUMBERS = 10


class Check(NamedTuple):
    what: str
    is_well: bool
    told: str


class Verified(NamedTuple):
    """`entries` and `cost_nanousd` are those that could be read."""

    checks: tuple[Check, ...]
    entries: int
    cost_nanousd: int

    @property
    def is_well(self) -> bool:
        return all(check.is_well for check in self.checks)


def _words(names: type[Outcome] | type[CostSource]) -> str:
    return ", ".join(f"'{name}'" for name in names)


# What no entry may be, by what is said of it.
RULES = {
    "costs": f"cost_nanousd < 0 OR cost_nanousd > {ABSURD_NANOUSD}",
    "outcomes": f"outcome NOT IN ({_words(Outcome)}) OR (outcome = 'reserved' AND settled_ms IS NOT NULL) "
    "OR (outcome NOT IN ('reserved', 'unknown') AND settled_ms IS NULL)",
    "sources": f"cost_source NOT IN ({_words(CostSource)}) OR (cost_source = 'unknown') <> (cost_nanousd IS NULL)",
    "what was not served": "outcome IN ('refused', 'unsent') AND cost_nanousd <> 0 AND cost_source <> 'reported'",
    "times": "at_ms < 0 OR at_ms > 253402128000000 OR settled_ms < at_ms - 86400000",
}


def verify(path: Path) -> Verified:
    """Check a ledger. Nothing is raised: what cannot be looked at is one more thing that is wrong."""
    if not path.exists():
        return Verified((Check("file", True, "there is none yet"),), 0, 0)
    database = _open(path)
    if isinstance(database, sqlite3.Error):
        return Verified((Check("file", False, str(database)),), 0, 0)
    try:
        checks = tuple(_checks(database))
        return Verified(checks, *_readable(database))
    finally:
        database.close()


def _open(path: Path) -> sqlite3.Connection | sqlite3.Error:
    trouble: sqlite3.Error | None = None
    for how in ("mode=ro", "mode=ro&immutable=1"):
        try:
            database = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=30.0)
        except sqlite3.Error as error:
            trouble = error
            continue
        try:
            database.execute("PRAGMA schema_version").fetchone()
        except sqlite3.Error as error:
            database.close()
            trouble = error
            continue
        return database
    assert trouble is not None
    return trouble


def _checks(database: sqlite3.Connection) -> Iterator[Check]:
    try:
        [(version,)] = database.execute("PRAGMA user_version")
        [(application_id,)] = database.execute("PRAGMA application_id")
        if application_id != APPLICATION_ID or not version:
            yield Check("kind", False, "this is not a ledger of audiocli")
            return
        if version > len(MIGRATIONS):
            yield Check("version", False, f"{version}, written by a newer audiocli: update it")
            return
        yield Check("version", True, f"{version}" + (" (older)" if version < len(MIGRATIONS) else ""))
        told = [str(line) for (line,) in database.execute(f"PRAGMA integrity_check({TOLD_NUMBERS})")]
        yield Check("file", told == ["ok"], "whole" if told == ["ok"] else "; ".join(told))
        for what, wrong in RULES.items():
            found = [number for (number,) in database.execute(f"SELECT id FROM entries NOT INDEXED WHERE {wrong}")]
            some = ", ".join(map(str, found[:TOLD_NUMBERS])) + (" …" if len(found) > TOLD_NUMBERS else "")
            yield Check(what, not found, "as they should be" if not found else f"wrong in {len(found)}: {some}")
        if version >= WITH_SUMS:
            yield _sums(database)
            yield _spending(database)
    except sqlite3.Error as error:
        yield Check("file", False, str(error))


def _sums(database: sqlite3.Connection) -> Check:
    """Hold the sums against the entries themselves."""
    amounts = ", ".join(f"sum({amount})" for amount in amounts_of("entries").values())
    keys = keys_of("entries")
    grouping = ", ".join(str(number + 1) for number in range(7))
    true = f"SELECT {keys}, {amounts} FROM entries NOT INDEXED GROUP BY {grouping}"
    [(wrong,)] = database.execute(
        f"SELECT (SELECT count(*) FROM (SELECT * FROM sums EXCEPT {true})) "
        f"+ (SELECT count(*) FROM ({true} EXCEPT SELECT * FROM sums))"
    )
    return Check("sums of the reports", not wrong, f"{wrong} differ from the entries" if wrong else "agree")


def _spending(database: sqlite3.Connection) -> Check:
    true = f"SELECT at_ms / {QUARTER_MS}, sum({counted('entries')}) FROM entries NOT INDEXED GROUP BY 1"
    [(wrong,)] = database.execute(
        f"SELECT (SELECT count(*) FROM (SELECT * FROM spending WHERE nanousd <> 0 EXCEPT {true})) "
        f"+ (SELECT count(*) FROM (SELECT * FROM ({true}) EXCEPT SELECT * FROM spending))"
    )
    return Check("sums of the caps", not wrong, f"{wrong} differ from the entries" if wrong else "agree")


def _readable(database: sqlite3.Connection) -> tuple[int, int]:
    """Count what can be read, and sum it: one entry by one, past those that are damaged."""
    count = total = 0
    last = 0
    for _ in range(10_000):
        try:
            for number, cost in database.execute(
                "SELECT id, cost_nanousd FROM entries NOT INDEXED WHERE id > ? ORDER BY id", (last,)
            ):
                last, count, total = number, count + 1, total + (cost or 0)
            break
        except sqlite3.Error:
            last = _next(database, last)
            if not last:
                break
    return count, total


def _next(database: sqlite3.Connection, last: int) -> int:
    """Find an entry behind a damaged place, in steps that grow; 0: none can be read."""
    step = 1
    while step < 2**40:
        try:
            database.execute("SELECT id FROM entries NOT INDEXED WHERE id >= ? LIMIT 1", (last + step,)).fetchone()
        except sqlite3.Error:
            step *= 2
            continue
        return last + step - 1
    return 0
