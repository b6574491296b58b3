"""Configuration and services of a batch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, TypeVar

from ...errors import AudiocliError
from ...outputs.file import FileOutput
from ...storage.manifest import FailureRecord, FileFingerprint, OutputRecord
from ...storage.paid_results import PaidResultStore
from ...text.transcript_style import TranscriptStyle
from ...types.audio import Selection
from ...types.requests import Timestamps, TranscriptionRequest
from ...types.routes import Route
from ..selection import resolve_selection
from ..verdicts import Acceptance

if TYPE_CHECKING:
    from .object_item import ObjectServices

T = TypeVar("T")


class Storage(Protocol):
    """Access to the sources and outputs; `storage.local.LocalStorage` implements it for the local disk.

    `write` blocks. Call it through `run_in_thread`.
    """

    async def look_up(self, paths: Sequence[Path]) -> None:
        """Find out the versions of outputs whose names were not known before, if they are objects."""
        ...

    def get_fingerprint(self, path: Path) -> FileFingerprint | None: ...
    async def fetch(self, path: Path) -> FileFingerprint | None:
        """Make the content of a source available at its path, and return the fingerprint that the file then has.

        None if the path is the source.
        """
        ...

    async def hash_content(self, path: Path) -> str: ...
    async def has_prefix(self, path: Path, size_bytes: int, content_hash: str) -> bool: ...
    def read(self, path: Path) -> bytes | None: ...
    def open_outputs(self, paths: Sequence[Path]) -> list[FileOutput]: ...
    def write_outputs(self, files: Sequence[FileOutput], contents: Sequence[bytes]) -> None: ...
    async def run_in_thread(self, call: Callable[[], T]) -> T: ...


class BatchState(Protocol):
    """Hashes of sources, written outputs, claims and failures; `storage.manifest.Manifest` implements it.

    Paths are absolute. A path that is a str is the URL of an object.
    """

    async def get_content_hash(self, path: Path | str, fingerprint: FileFingerprint) -> str | None: ...
    def record_content_hash(self, path: Path | str, fingerprint: FileFingerprint, content_hash: str) -> None: ...
    def get_output(self, path: Path | str) -> OutputRecord | None: ...
    def record_output(self, path: Path | str, output: OutputRecord) -> None: ...
    async def claim(self, key: str) -> bool: ...
    async def release(self, key: str) -> None: ...
    def get_failure(self, key: str) -> FailureRecord | None: ...
    def record_failure(self, key: str, failure: FailureRecord) -> None: ...
    def clear_failure(self, key: str) -> None: ...


SelectionResolver: TypeAlias = Callable[[Path, Selection, str | None, str], Awaitable[Selection]]
"""Returns what is selected of a source, from what was requested, the language and the hash of the content."""


async def resolve_file_selection(
    path: Path, requested: Selection, language: str | None, content_hash: str
) -> Selection:
    """Return what is selected of a file. Raises: UsageError, RecordingError."""
    return await resolve_selection(path, str(path), requested, language)


class BatchContext(NamedTuple):
    """Services that every item uses.

    `transcripts` stores complete transcripts, `chunks` those of the chunks of unfinished long recordings.
    Converted recordings and chunk files are created in `upload_directory`. `objects` are the services for object
    stores; None if neither recordings nor outputs are objects.
    """

    storage: Storage
    state: BatchState
    transcripts: PaidResultStore
    chunks: PaidResultStore
    upload_directory: Path
    objects: ObjectServices | None = None
    resolve_selection: SelectionResolver = resolve_file_selection


class BatchConfig(NamedTuple):
    """Settings that all items share. The recording of `request` is a placeholder.

    Attributes:
        former_routes: Routes of earlier default models. Nothing is sent to them, but their transcripts remain valid.
        required_timestamps: What the outputs need; `request` may ask for finer timestamps if they cost nothing.
        time_by_chunk: Make one cue of each chunk, because no model returns timestamps.
        carry_context: Send chunks in order, each with the end of the previous transcript in its prompt.
        force: Replace outputs that were edited or that audiocli did not write.
        strict_timestamps: Fail rather than estimate the times of captions.
        allow_chunk_timing: Whether captions may be made of a transcript that is timed by chunk.
        resume: Use cached transcripts.
        retry_failed: Send requests again that failed in an earlier run and may have been billed.
        acceptance: Empty and partial transcripts that the user accepts.
    """

    request: TranscriptionRequest
    routes: tuple[Route, ...]
    skipped: tuple[tuple[Route, AudiocliError], ...]
    style: TranscriptStyle
    required_timestamps: Timestamps
    time_by_chunk: bool = False
    max_chunk_s: float | None = None
    split: bool = True
    carry_context: bool = False
    concurrency: int = 8
    force: bool = False
    resume: bool = True
    retry_failed: bool = False
    strict_timestamps: bool = False
    allow_chunk_timing: bool = True
    acceptance: Acceptance = Acceptance()
    former_routes: tuple[Route, ...] = ()

    def select(self, selection: Selection) -> BatchConfig:
        """Return the configuration for what is selected of one recording."""
        recording = self.request.recording._replace(selection=selection)
        return self._replace(request=self.request._replace(recording=recording))
