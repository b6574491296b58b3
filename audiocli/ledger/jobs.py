"""Store the background jobs in the ledger file, next to their entries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..gateways.base import as_count, as_list, as_number, as_object, as_text, as_unix_time_s, read_json
from ..redaction import remove_user_info
from ..types.jobs import RemoteJob
from ..types.json import Json
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
        details = {name: value for name, value in encode_job(job).items() if name not in ("id", "gateway")}
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

    def restore(self, fields: Mapping[str, Json]) -> None:
        """Save a job that `encode_job` has encoded. It has no entry and no output path here."""
        at_ms = (as_number(fields.get("at_s")) or 0) * 1000
        job = _parse_row((fields.get("id"), fields.get("gateway"), json.dumps(dict(fields)), at_ms))
        self.save(job._replace(entry_id=None, output=None))

    def has_open_entry(self, job: RemoteJob) -> bool:
        """Return whether the entry of a job is still reserved."""
        query = "SELECT 1 FROM entries WHERE id = ? AND outcome = 'reserved'"
        return job.entry_id is not None and any(self._ledger.query(query, (job.entry_id,)))

    def settle(self, job: RemoteJob, settlement: Settlement) -> None:
        """Settle the entry of a job, once."""
        if job.entry_id is not None:
            self._ledger.settle(job.entry_id, settlement)

    def list_all(self) -> list[RemoteJob]:
        """Return every job, oldest first."""
        return [
            _parse_row(row)
            for row in self._ledger.query("SELECT id, gateway, details, at_ms FROM jobs ORDER BY at_ms, id", ())
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


def encode_job(job: RemoteJob) -> dict[str, Json]:
    """Return a job as it is stored, without passwords."""
    fields: dict[str, Any] = {_STORED_NAMES.get(name, name): value for name, value in job._asdict().items()}
    return {**fields, "shape": dict(job.caption_limits), "base_url": remove_user_info(job.base_url)}


def _parse_row(row: tuple[Any, ...]) -> RemoteJob:
    """Parse a stored job. A value that is missing or invalid is unknown, so that one job cannot hide the others."""
    job_id, gateway, details, at_ms = row
    fields = as_object(read_json(details.encode("utf-8", "surrogatepass"))) if isinstance(details, str) else {}
    stored = {name: fields.get(_STORED_NAMES.get(name, name)) for name in RemoteJob._fields}
    submitted_at_s = as_number(stored["submitted_at_s"])
    return RemoteJob(
        id=str(job_id),
        gateway=str(gateway),
        base_url=as_text(stored["base_url"]) or "",
        kind=as_text(stored["kind"]) or "unknown",
        model=as_text(stored["model"]) or "unknown",
        status=as_text(stored["status"]) or "unknown",
        submitted_at_s=(as_number(at_ms) or 0) / 1000 if submitted_at_s is None else submitted_at_s,
        formats=tuple(filter(None, map(as_text, as_list(stored["formats"])))) or ("unknown",),
        request_format=as_text(stored["request_format"]) or "unknown",
        entry_id=as_count(stored["entry_id"]),
        voice=as_text(stored["voice"]),
        output=as_text(stored["output"]),
        polling_url=as_text(stored["polling_url"]),
        expires_at_s=as_unix_time_s(stored["expires_at_s"]),
        reason=as_text(stored["reason"]),
        characters=as_count(stored["characters"]),
        utf8_bytes=as_count(stored["utf8_bytes"]),
        audio_s=as_number(stored["audio_s"]),
        min_nanousd=as_count(stored["min_nanousd"]),
        max_nanousd=as_count(stored["max_nanousd"]),
        is_exact=stored["is_exact"] is True,
        request_id=as_text(stored["request_id"]),
        caption_limits={
            name: number
            for name, value in as_object(stored["caption_limits"]).items()
            if (number := as_number(value)) is not None
        },
        by_word=stored["by_word"] is True,
        expected_nanousd=as_count(stored["expected_nanousd"]),
    )
