"""The stored transcript of one recording, which is paid for once."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..errors import OutputError
from ..storage.local import get_fingerprint, hash_file
from ..storage.manifest import FileFingerprint
from ..storage.paid_results import PaidResultStore
from ..types.results import TranscriptionResult
from ..types.routes import Route
from .batch.context import BatchConfig
from .batch.status import compute_claim_key, compute_transcript_name, find_transcript, list_candidates
from .batch.transcript_cache import parse_transcript, serialize_result, update_transcript


class PaidTranscript(NamedTuple):
    """Finds and stores the transcript of a recording under the hash of its content, the settings and the model.

    A batch uses the same names. `fingerprint` is that of the file before it was hashed.
    """

    store: PaidResultStore
    source: Path
    fingerprint: FileFingerprint | None
    content_hash: str
    config: BatchConfig

    def build_name(self, route: Route) -> str:
        return compute_transcript_name(compute_claim_key(self.content_hash, self.config), route)

    def list_names(self) -> list[str]:
        """Return the names of all stored transcripts that may serve the request."""
        return [name for name, _ in list_candidates(self.content_hash, self.config)]

    def find(self) -> tuple[TranscriptionResult, str] | None:
        """Return a stored transcript that serves the request, and its name."""
        return find_transcript(list_candidates(self.content_hash, self.config), self.config, self.store)

    def save(self, result: TranscriptionResult, *, is_known: bool = False) -> bool:
        """Store a result. Return whether it is stored; it is not if the disk is full.

        Nor is it if the source has changed, unless `is_known`: what was sent is the content that was hashed.
        """
        if not is_known and not self.is_unchanged():
            return False
        try:
            self.store.write(self.build_name(result.run.route), serialize_result(result, self.config.request))
        except OutputError:
            return False
        return True

    async def publish(self, result: TranscriptionResult) -> bool:
        """Store a new result, here and for other machines. Return whether it is stored here, as `save` does.

        It replaces one of the same name, which was not sufficient or damaged.

        Raises:
            OutputError: It cannot be shared. The same command tries again.
        """
        if not self.is_unchanged():
            return False
        is_saved = self.save(result)
        content = serialize_result(result, self.config.request)
        await self.store.publish(self.build_name(result.run.route), content, replace=True)
        return is_saved

    def convert_to_stored(self, result: TranscriptionResult) -> TranscriptionResult:
        """Return a new result as a later run would read it, for example with times in milliseconds."""
        stored = parse_transcript(serialize_result(result, self.config.request), result.run.route)
        return result if stored is None else result._replace(transcript=stored.result.transcript)

    def update(self, name: str, result: TranscriptionResult) -> None:
        """Store a new verdict on a stored transcript."""
        content = update_transcript(self.store.read(name), result)
        try:
            if content is not None:
                self.store.write(name, content)
        except OutputError:
            return  # the next run computes it again

    def is_unchanged(self) -> bool:
        """Return whether the source is still the file that was hashed. Its links and its mode do not matter."""
        current = get_fingerprint(self.source)
        if current is None or self.fingerprint is None:
            return False
        return current._replace(ctime_ns=0) == self.fingerprint._replace(ctime_ns=0)


async def open_paid_transcript(store: PaidResultStore, source: Path, config: BatchConfig) -> PaidTranscript:
    """Hash a recording. Raises: RecordingError: it cannot be read."""
    fingerprint = get_fingerprint(source)
    return PaidTranscript(store, source, fingerprint, await hash_file(source), config)
