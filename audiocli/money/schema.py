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


MIGRATIONS = (_create, _with_bounds, _with_audio_tokens, _with_jobs)
