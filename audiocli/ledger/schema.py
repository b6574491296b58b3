"""The ledger's file: its tables and how an older one becomes a newer one.

A migration is a numbered function that runs once, inside a transaction. Those that were released never change.
"""

from __future__ import annotations

import sqlite3

APPLICATION_ID = 0x4155444C  # "AUDL": tells a ledger from any other SQLite file


def _create(database: sqlite3.Connection) -> None:
    database.execute(
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
    # Reports read this index alone.
    database.execute(
        """
        CREATE INDEX entries_by_time ON entries
            (at_ms, outcome, gateway, model, command, tag, cost_source, cost_nanousd, audio_ms, characters)
        """
    )
    database.execute("CREATE INDEX entries_open ON entries (outcome, host, process) WHERE outcome = 'reserved'")


def _with_bounds(database: sqlite3.Connection) -> None:
    """Caps reserve the most that a request may cost; own keys at a provider are paid there; a run is one command."""
    for column in ("most_nanousd INTEGER", "upstream_nanousd INTEGER", "run TEXT"):
        database.execute(f"ALTER TABLE entries ADD COLUMN {column}")
    # Caps read this index alone.
    database.execute(
        "CREATE INDEX entries_by_spending ON entries (at_ms, cost_nanousd, most_nanousd, estimate_nanousd, run)"
    )


# Sums are kept by the quarter of an hour: every local midnight of today's time zones is one.
QUARTER_MS = 900_000

# Nothing is reserved that is worth more to a sum, so that sums never leave 64 bits.
_MOST_COUNTED = 100_000 * 1_000_000_000

_KEYS = ("quarter", "gateway", "model", "command", "outcome", "cost_source", "tag")


def keys_of(row: str) -> str:
    """Name the sum that an entry belongs to."""
    names = ", ".join(f"{row}.{name}" for name in _KEYS[1:-1])
    return f"{row}.at_ms / {QUARTER_MS}, {names}, ifnull({row}.tag, '')"


def counted(row: str) -> str:
    """Tell what an entry counts against caps: what it cost, with the provider's own bill; else what it may cost."""
    cost = f"{row}.cost_nanousd + ifnull({row}.upstream_nanousd, 0)"
    return f"min(coalesce({cost}, {row}.most_nanousd, {row}.estimate_nanousd, 0), {_MOST_COUNTED})"


def amounts_of(row: str) -> dict[str, str]:
    """Tell what an entry adds to its sum, by column."""
    return {
        "entries": "1",
        "known": f"{row}.cost_nanousd IS NOT NULL",
        "cost_nanousd": f"ifnull({row}.cost_nanousd, 0)",
        "upstream_nanousd": f"ifnull({row}.upstream_nanousd, 0)",
        "audio_ms": f"ifnull({row}.audio_ms, 0)",
        "characters": f"ifnull({row}.characters, 0)",
    }


def _with_sums(database: sqlite3.Connection) -> None:
    """Sums beside the entries, kept by triggers in the transaction of each: caps and reports read these alone.

    Over a million entries, an index of them takes 70 ms for a cap and one to two seconds for a report (2026-11).
    """
    for name in ("entries_by_time", "entries_by_spending"):
        database.execute(f"DROP INDEX {name}")
    database.execute("ALTER TABLE entries ADD COLUMN asked_ms INTEGER")
    database.execute("CREATE INDEX entries_by_time ON entries (at_ms)")
    database.execute("CREATE INDEX entries_by_run ON entries (run) WHERE run IS NOT NULL")
    amounts = amounts_of("entries")
    columns = ", ".join(f"{name} {'INTEGER' if name == 'quarter' else 'TEXT'} NOT NULL" for name in _KEYS)
    columns += "".join(f", {name} INTEGER NOT NULL" for name in amounts)
    database.execute(f"CREATE TABLE sums ({columns}, PRIMARY KEY ({', '.join(_KEYS)})) STRICT, WITHOUT ROWID")
    database.execute("CREATE TABLE spending (quarter INTEGER PRIMARY KEY, nanousd INTEGER NOT NULL) STRICT")
    sums = ", ".join(f"sum({amount})" for amount in amounts.values())
    grouping = ", ".join(str(number + 1) for number in range(len(_KEYS)))
    database.execute(f"INSERT INTO sums SELECT {keys_of('entries')}, {sums} FROM entries GROUP BY {grouping}")
    database.execute(
        f"INSERT INTO spending SELECT at_ms / {QUARTER_MS}, sum({counted('entries')}) FROM entries GROUP BY 1"
    )
    watched = ", ".join(
        ("at_ms", *_KEYS[1:], "cost_nanousd", "upstream_nanousd", "most_nanousd", "estimate_nanousd", "audio_ms")
    )
    for event, body in (
        ("INSERT", _added()),
        ("DELETE", _taken()),
        (f"UPDATE OF {watched}, characters", _taken() + _added()),
    ):
        name = f"sums_after_{event.split()[0].lower()}"
        database.execute(f"CREATE TRIGGER {name} AFTER {event} ON entries BEGIN {body} END")


def _added() -> str:
    amounts = amounts_of("new")
    more = ", ".join(f"{name} = {name} + excluded.{name}" for name in amounts)
    return (
        f"INSERT INTO sums VALUES ({keys_of('new')}, {', '.join(amounts.values())}) "
        f"ON CONFLICT ({', '.join(_KEYS)}) DO UPDATE SET {more}; "
        f"INSERT INTO spending VALUES (new.at_ms / {QUARTER_MS}, {counted('new')}) "
        "ON CONFLICT (quarter) DO UPDATE SET nanousd = nanousd + excluded.nanousd; "
    )


def _taken() -> str:
    here = f"({', '.join(_KEYS)}) = ({keys_of('old')})"
    less = ", ".join(f"{name} = {name} - ({amount})" for name, amount in amounts_of("old").items())
    return (
        f"UPDATE sums SET {less} WHERE {here}; DELETE FROM sums WHERE {here} AND entries = 0; "
        f"UPDATE spending SET nanousd = nanousd - {counted('old')} WHERE quarter = old.at_ms / {QUARTER_MS}; "
    )


def _with_audio_tokens(database: sqlite3.Connection) -> None:
    """Models that talk charge tokens of sound otherwise than those of text."""
    for column in ("input_audio_tokens INTEGER", "output_audio_tokens INTEGER"):
        database.execute(f"ALTER TABLE entries ADD COLUMN {column}")


def _with_jobs(database: sqlite3.Connection) -> None:
    """Work that a gateway does in its own time is asked after by name, also on another day."""
    database.execute(
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


MIGRATIONS = (_create, _with_bounds, _with_sums, _with_audio_tokens, _with_jobs)
