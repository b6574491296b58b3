"""Jobs under way, kept beside the entries of the ledger that they keep open. Part of the same file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..types.jobs import RemoteJob
from .ledger import Ledger

if TYPE_CHECKING:
    from ..types.values import Settlement

# In the place of a process: an entry that waits for a job is not given up when the process ends that handed it in.
MARK = "job "


class Jobs:
    """The table of jobs. Every method raises MoneyError when the ledger cannot be used."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def keep(self, job: RemoteJob) -> None:
        """Write a job down, or what is newly known of it; its entry waits for it from now on."""
        details = {name: value for name, value in job._asdict().items() if name not in ("id", "gateway")}
        details["shape"] = dict(job.shape)
        with self._ledger.transaction() as database:
            database.execute(
                """
                INSERT INTO jobs (id, gateway, at_ms, details) VALUES (?, ?, ?, ?)
                ON CONFLICT (gateway, id) DO UPDATE SET details = excluded.details
                """,
                (job.id, job.gateway, int(job.at_s * 1000), json.dumps(details)),
            )
            if job.entry_id is not None:
                database.execute(
                    "UPDATE entries SET process = ? WHERE id = ? AND outcome = 'reserved'",
                    (MARK + job.ref, job.entry_id),
                )

    def settle(self, job: RemoteJob, settlement: Settlement) -> None:
        """Write how a job ended, once."""
        if job.entry_id is not None:
            self._ledger.settle(job.entry_id, settlement)

    def all(self) -> list[RemoteJob]:
        """Give every job, oldest first."""
        return [_job(row) for row in self._ledger.read("SELECT id, gateway, details FROM jobs ORDER BY at_ms, id", ())]

    def named(self, name: str) -> list[RemoteJob]:
        """Find the jobs of a name, which may have its gateway before it."""
        return [job for job in self.all() if name in (job.id, job.ref)]

    def forget(self, job: RemoteJob) -> None:
        with self._ledger.transaction() as database:
            database.execute("DELETE FROM jobs WHERE id = ? AND gateway = ?", (job.id, job.gateway))
            database.execute(
                "UPDATE entries SET outcome = 'unknown', error = 'the job was forgotten' "
                "WHERE id = ? AND outcome = 'reserved'",
                (job.entry_id,),
            )


def _job(row: tuple[Any, ...]) -> RemoteJob:
    details = {name: value for name, value in json.loads(row[2]).items() if name in RemoteJob._fields}
    return RemoteJob(id=row[0], gateway=row[1], **{**details, "formats": tuple(details["formats"])})
