"""Progress of operations that consist of chunks, and of batches. The command line renders it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..types.ledger import CostSource
from ..types.requests import HttpRequest

if TYPE_CHECKING:
    from ..types.objects import Location

# A projection from a smaller share of a batch would be far off: short recordings have more overhead than long ones.
MIN_DONE_SHARE = 0.02
# A rate is computed from at least this time.
MIN_ELAPSED_S = 0.001
# Smaller request bodies are sent without progress.
MIN_UPLOAD_BYTES = 5_000_000


class Progress:
    """Counts and costs of chunks.

    `total_chunks` is None while unknown. Of `done_chunks`, `cached_chunks` were reused from an earlier run.
    """

    def __init__(self, total_chunks: int | None = None) -> None:
        self.total_chunks = total_chunks
        self.done_chunks = 0
        self.cached_chunks = 0
        self.costs: list[tuple[int | None, CostSource]] = []
        self._started_s = time.monotonic()

    @property
    def chunks_per_s(self) -> float:
        """The rate so far, without cached chunks."""
        elapsed_s = max(time.monotonic() - self._started_s, MIN_ELAPSED_S)
        return max(self.done_chunks - self.cached_chunks, 0) / elapsed_s

    @property
    def remaining_s(self) -> float | None:
        """Estimated remaining time in seconds at the current rate; None while unknown."""
        rate = self.chunks_per_s
        return None if self.total_chunks is None or not rate else (self.total_chunks - self.done_chunks) / rate


class UploadProgress:
    """Progress of the request body that is being sent, if it has `MIN_UPLOAD_BYTES`. Else `total_bytes` is 0."""

    def __init__(self) -> None:
        self.total_bytes = 0
        self.sent_bytes = 0
        self._started_s = time.monotonic()

    @property
    def bytes_per_s(self) -> float:
        """The rate so far."""
        return self.sent_bytes / max(time.monotonic() - self._started_s, MIN_ELAPSED_S)

    @property
    def remaining_s(self) -> float | None:
        """Estimated remaining time in seconds at the current rate; None while unknown."""
        return (self.total_bytes - self.sent_bytes) / self.bytes_per_s if self.sent_bytes else None

    def track(self, request: HttpRequest) -> HttpRequest:
        """Return a request whose body is counted while it is sent, also if it is sent again."""
        self.total_bytes = self.sent_bytes = 0
        body = request.body
        if body is None or body.size_bytes < MIN_UPLOAD_BYTES:
            return request

        def iter_blocks() -> Iterator[bytes]:
            self.total_bytes, self.sent_bytes, self._started_s = body.size_bytes, 0, time.monotonic()
            for block in body.blocks():
                yield block
                self.sent_bytes += len(block)

        return request._replace(body=body._replace(blocks=iter_blocks))


class DownloadProgress:
    """Progress of a download. `total_bytes` is 0 if the server does not state it."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin, also again."""
        self.total_bytes = self.received_bytes = 0
        self._started_s = time.monotonic()

    @property
    def bytes_per_s(self) -> float:
        """The rate so far."""
        return self.received_bytes / max(time.monotonic() - self._started_s, MIN_ELAPSED_S)


class SpeechProgress(Progress):
    """Progress of long speech. `audio_s` is the length of the audio so far."""

    def __init__(self, total_chunks: int | None) -> None:
        super().__init__(total_chunks)
        self.audio_s = 0.0


class TranscriptionProgress(Progress):
    """Progress of long transcription.

    While the chunks are planned, `decoded_s` of `duration_s` (None if unknown) have been decoded. `source` is the
    recording, if it is one of a batch.
    """

    def __init__(self, duration_s: float | None, source: Location | None = None) -> None:
        super().__init__()
        self.duration_s = duration_s
        self.decoded_s = 0.0
        self.source = source


class BatchProgress:
    """The share of a batch that is done, by seconds of audio.

    The lengths of recordings that are not open yet follow from their sizes, and from the lengths of other recordings
    with the same extension.
    """

    def __init__(self) -> None:
        self._sizes: dict[Location, int] = {}
        self._pending_bytes: Counter[str] = Counter()
        self._measured_bytes: Counter[str] = Counter()
        self._measured_s: dict[str, float] = {}
        self._done_s = 0.0

    def plan(self, source: Location, size_bytes: int) -> None:
        """Add a recording that is to be processed."""
        self._sizes[source] = size_bytes
        self._pending_bytes[source.suffix.lower()] += size_bytes

    def finish(self, source: Location, sent_s: float | None) -> None:
        """Mark a recording as done. `sent_s` is its length in seconds; None if nothing was sent for it."""
        size_bytes, suffix = self._sizes.pop(source, 0), source.suffix.lower()
        self._pending_bytes[suffix] -= size_bytes
        if sent_s is not None:
            self._done_s += sent_s
            self._measured_bytes[suffix] += size_bytes
            self._measured_s[suffix] = self._measured_s.get(suffix, 0.0) + sent_s

    def compute_done_share(self, in_progress: Sequence[TranscriptionProgress]) -> float | None:
        """Return the share of the seconds of audio that is done, from 0 to 1; None while there is no basis for it.

        Without a basis means that less than MIN_DONE_SHARE is done, or that the length of a remaining recording is
        unknown.
        """
        pending_bytes, measured_bytes = Counter(self._pending_bytes), Counter(self._measured_bytes)
        measured_s = dict(self._measured_s)
        done_s, remaining_s = self._done_s, 0.0
        for progress in in_progress:
            if progress.duration_s is None or progress.source not in self._sizes:
                continue
            suffix, size_bytes = progress.source.suffix.lower(), self._sizes[progress.source]
            pending_bytes[suffix] -= size_bytes
            measured_bytes[suffix] += size_bytes
            measured_s[suffix] = measured_s.get(suffix, 0.0) + progress.duration_s
            item_done_s = progress.duration_s * progress.done_chunks / max(progress.total_chunks or 1, 1)
            done_s += item_done_s
            remaining_s += progress.duration_s - item_done_s
        for suffix, size_bytes in pending_bytes.items():
            if size_bytes > 0 and not measured_bytes[suffix]:
                return None
            if size_bytes > 0:
                remaining_s += size_bytes * measured_s[suffix] / measured_bytes[suffix]
        share = done_s / (done_s + remaining_s) if done_s else 0.0
        return share if share >= MIN_DONE_SHARE else None
