"""The tables of the ledger file, and their migrations.

A migration is a function that runs once, inside a transaction. A released migration never changes.
"""

from __future__ import annotations

import sqlite3

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
