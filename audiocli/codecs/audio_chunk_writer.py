"""Write the chunks of a long recording to files, one at a time when they are needed.

Where packets can be copied, a chunk takes almost no time and keeps its quality. Otherwise it is decoded and encoded
again, small and exact to the sample.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path

from ..audio.chunk_boundaries import SPLIT_RATE_HZ, AudioChunk
from ..errors import RecordingError
from .convert import PcmReader
from .encoder import Encoder
from .packet_index import PacketIndex
from .pcm_spool import MAX_MISSING_BYTES, SPLIT_PCM, PcmSpool
from .stream_copy import StreamCopier

_MAX_STEP_S = 0.02
# Samples kept in memory, because the next chunk may begin before the end of this one. 0.5 MB.
_BUFFER_BYTES = 16 * SPLIT_PCM.bytes_per_second


class AudioChunkWriter:
    """Write chunks of one recording. In order, all chunks need one pass; going back starts a new pass.

    With a `packet_index` from a scan, chunks in one of its formats are copied. All others are encoded as mono at
    `SPLIT_RATE_HZ`, from `spool` if given. `close` closes the spool. Write one chunk at a time, from one thread. Memory
    holds only a few seconds of audio.
    """

    def __init__(self, source: Path, packet_index: PacketIndex | None = None, spool: PcmSpool | None = None) -> None:
        self._sample_source = spool if spool is not None else _DecodedSource(source)
        self._copier = StreamCopier(source, packet_index) if packet_index is not None else None

    def write_chunk(self, chunk: AudioChunk, output_path: Path, format: str) -> ChunkWriting:
        """Write a chunk to a file, in any format that `audio.formats` can write or the index lists."""
        if self._copier is not None and self._copier.can_copy(format):
            return ChunkWriting(self._copier, chunk, output_path, format)
        return ChunkWriting(self._sample_source, chunk, output_path, format)

    def close(self) -> None:
        """Close the recording. Written files remain."""
        self._sample_source.close()
        if self._copier is not None:
            self._copier.close()


class ChunkWriting:
    """Write one chunk. Every step takes at most about 50 ms and yields the seconds done.

    Steps that only seek to the start of the chunk yield 0. The output file is complete after the last step, and removed
    after an error or `close`. `start_s` and `end_s` are then the true position of the audio in the recording: a copy
    begins a few packets early.

    Raises:
        RecordingError: The recording cannot be decoded, or ends before the chunk (it has changed since the scan).
        OutputError: The chunk cannot be encoded.
        OSError: Reading or writing a file failed.
    """

    def __init__(
        self, source: PcmSpool | _DecodedSource | StreamCopier, chunk: AudioChunk, output_path: Path, format: str
    ) -> None:
        self.start_s, self.end_s = chunk.start_s, chunk.end_s
        self._steps = self._run(source, chunk, output_path, format)

    def __iter__(self) -> ChunkWriting:
        return self

    def __next__(self) -> float:
        return next(self._steps)

    def close(self) -> None:
        """Stop, and remove the output file unless it is complete."""
        self._steps.close()

    def _run(
        self, source: PcmSpool | _DecodedSource | StreamCopier, chunk: AudioChunk, output_path: Path, format: str
    ) -> Generator[float, None, None]:
        is_done = False
        try:
            with output_path.open("wb") as file:
                if isinstance(source, StreamCopier):
                    self.start_s, self.end_s = yield from source.copy(chunk, file, format)
                else:
                    with Encoder(format, SPLIT_PCM, file, fast=True) as encoder:
                        yield from _encode_chunk(source, chunk, encoder)
            is_done = True
        finally:
            if not is_done and output_path.is_file():
                output_path.unlink()
        yield chunk.duration_s


def _encode_chunk(
    source: PcmSpool | _DecodedSource, chunk: AudioChunk, encoder: Encoder
) -> Generator[float, None, None]:
    position, step_start = chunk.start, time.perf_counter()
    while position < chunk.end:
        samples = source.read(position, chunk.end)
        encoder.feed(samples)
        position += len(samples) // SPLIT_PCM.frame_bytes
        if time.perf_counter() - step_start >= _MAX_STEP_S:
            yield (position - chunk.start) / SPLIT_RATE_HZ
            step_start = time.perf_counter()
    encoder.finish()


class _DecodedSource:
    """Decoded samples of a recording by position. The last seconds are read again from memory."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._reader = PcmReader(source, SPLIT_RATE_HZ, 1)
        self._buffer = bytearray()
        self._buffer_start = 0

    def read(self, start: int, end: int) -> bytes:
        """Return samples from `start` on, at most one second and up to `end`; b"" while still seeking.

        Raises:
            RecordingError: The recording ends before `start`.
        """
        start_bytes, end_bytes = start * SPLIT_PCM.frame_bytes, end * SPLIT_PCM.frame_bytes
        if start_bytes < self._buffer_start:
            self.close()
            self._reader, self._buffer, self._buffer_start = PcmReader(self._source, SPLIT_RATE_HZ, 1), bytearray(), 0
        if start_bytes >= self._buffer_start + len(self._buffer):
            self._advance(end_bytes)
        offset = start_bytes - self._buffer_start
        return bytes(self._buffer[offset : min(end_bytes - self._buffer_start, offset + SPLIT_PCM.bytes_per_second)])

    def close(self) -> None:
        self._reader.close()

    def _advance(self, end_bytes: int) -> None:
        block = next(self._reader, None)
        if block is None:
            missing_bytes = end_bytes - self._buffer_start - len(self._buffer)
            if missing_bytes > MAX_MISSING_BYTES:
                raise RecordingError(f"{self._source}: shorter than when it was scanned; the file may have changed")
            block = bytes(missing_bytes)  # silence for the few samples that the scan counted in addition
        self._buffer += block
        surplus_bytes = len(self._buffer) - _BUFFER_BYTES
        if surplus_bytes > 0:
            del self._buffer[:surplus_bytes]
            self._buffer_start += surplus_bytes
