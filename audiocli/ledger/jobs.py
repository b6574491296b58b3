"""Store the background jobs in the ledger file, next to their entries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..types.jobs import RemoteJob
from .ledger import Ledger

if TYPE_CHECKING:
    from ..types.ledger import Settlement

# Replaces the process ID of an entry with a background job, which does not expire when the submitting process ends.
JOB_PROCESS_PREFIX = "job "

# Fields of `RemoteJob` whose names in the stored details differ. The stored names do not change.
_STORED_NAMES = {
    "submitted_at_s": "at_s",
    "request_format": "wire",
    "expires_at_s": "expires_s",
    "min_nanousd": "least_nanousd",
    "max_nanousd": "most_nanousd",
    "is_exact": "is_certain",
    "caption_limits": "shape",
}


class JobStore:
    """The table of background jobs. Every method raises MoneyError if the ledger cannot be used."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def save(self, job: RemoteJob) -> None:
        """Insert or update a job. Its reserved entry then waits for the job and not for this process."""
        details = {
            _STORED_NAMES.get(name, name): value
            for name, value in job._asdict().items()
            if name not in ("id", "gateway")
        }
        details["shape"] = dict(job.caption_limits)
        with self._ledger.transaction() as connection:
            connection.execute(
                """
                INSERT INTO jobs (id, gateway, at_ms, details) VALUES (?, ?, ?, ?)
                ON CONFLICT (gateway, id) DO UPDATE SET details = excluded.details
                """,
                (job.id, job.gateway, int(job.submitted_at_s * 1000), json.dumps(details)),
            )
            if job.entry_id is not None:
                connection.execute(
                    "UPDATE entries SET process = ? WHERE id = ? AND outcome = 'reserved'",
                    (JOB_PROCESS_PREFIX + job.ref, job.entry_id),
                )

    def settle(self, job: RemoteJob, settlement: Settlement) -> None:
        """Settle the entry of a job, once."""
        if job.entry_id is not None:
            self._ledger.settle(job.entry_id, settlement)

    def list_all(self) -> list[RemoteJob]:
        """Return every job, oldest first."""
        return [
            _parse_row(row)
            for row in self._ledger.query("SELECT id, gateway, details FROM jobs ORDER BY at_ms, id", ())
        ]

    def find(self, name: str) -> list[RemoteJob]:
        """Return the jobs with an ID, as `ID` or `GATEWAY:ID`."""
        return [job for job in self.list_all() if name in (job.id, job.ref)]

    def delete(self, job: RemoteJob) -> None:
        """Delete a job. If its entry is still reserved, the outcome becomes `unknown`."""
        with self._ledger.transaction() as connection:
            connection.execute("DELETE FROM jobs WHERE id = ? AND gateway = ?", (job.id, job.gateway))
            connection.execute(
                "UPDATE entries SET outcome = 'unknown', error = 'the job was forgotten' "
                "WHERE id = ? AND outcome = 'reserved'",
                (job.entry_id,),
            )


def _parse_row(row: tuple[Any, ...]) -> RemoteJob:
    stored = json.loads(row[2])
    names = {name: _STORED_NAMES.get(name, name) for name in RemoteJob._fields}
    details = {name: stored[stored_name] for name, stored_name in names.items() if stored_name in stored}
    return RemoteJob(id=row[0], gateway=row[1], **{**details, "formats": tuple(details["formats"])})
