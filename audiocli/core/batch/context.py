"""What work on many recordings is given: what is wanted of each, and where it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from ...errors import AudiocliError
from ...outputs.file import FileOutput
from ...storage.manifest import Failure, Fingerprint, Written
from ...text.line_breaking import CaptionLimits
from ...types.values import Route, Timestamps, TranscriptionRequest
from ..chunk_plan import KeptTexts
from ..retry_policy import RetryPolicy

T = TypeVar("T")


class Storage(Protocol):
    """Where sources and outputs are; `sinks.disk.Disk` is this machine's.

    `write` waits for the disk: it is called `aside`, which runs what takes its time off the loop.
    """

    def fingerprint(self, path: Path) -> Fingerprint | None: ...
    async def content(self, path: Path) -> str: ...
    def read(self, path: Path) -> bytes | None: ...
    def open(self, paths: Sequence[Path]) -> list[FileOutput]: ...
    def write(self, sinks: Sequence[FileOutput], contents: Sequence[bytes]) -> None: ...
    async def aside(self, call: Callable[[], T]) -> T: ...


class BatchState(Protocol):
    """Who made what and who is at it; `manifest.Manifest` is this machine's."""

    def content(self, path: Path, now: Fingerprint) -> str | None: ...
    def remember(self, path: Path, before: Fingerprint, content: str) -> None: ...
    def written(self, path: Path) -> Written | None: ...
    def record(self, path: Path, written: Written) -> None: ...
    def claim(self, key: str) -> bool: ...
    def release(self, key: str) -> None: ...
    def failure(self, key: str) -> Failure | None: ...
    def fail(self, key: str, failure: Failure) -> None: ...
    def forgive(self, key: str) -> None: ...


class BatchContext(NamedTuple):
    """Where a task is run. `kept` has whole transcripts, `pieces` those of long recordings under way."""

    storage: Storage
    account: BatchState
    kept: KeptTexts
    pieces: KeptTexts
    folder: Path


class BatchConfig(NamedTuple):
    """What is wanted of every recording; that of `request` is a blank.

    `needs` is how finely times are needed, `request` may ask for more where that is free. `by_piece`: captions are
    timed by the pieces. `forces`: outputs that are not ours, or were edited, are replaced. `resumes` False: what is
    kept is not taken. `retries`: what may have been billed is sent again.
    """

    request: TranscriptionRequest
    routes: tuple[Route, ...]
    skipped: tuple[tuple[Route, AudiocliError], ...]
    shape: CaptionLimits
    by_word: bool
    needs: Timestamps
    policy: RetryPolicy = RetryPolicy()
    tag: str | None = None
    by_piece: bool = False
    longest_s: float | None = None
    splits: bool = True
    carries_context: bool = False
    jobs: int = 8
    forces: bool = False
    resumes: bool = True
    retries: bool = False
