"""Write the chunks of a long recording to files, one at a time when they are needed.

Chunks are encoded as mono at `SPLIT_RATE_HZ`: small, and exact to the sample (docs/adr/0010-encode-every-chunk.md says
why packets are not copied).
"""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path

from ..audio.chunk_boundaries import SPLIT_RATE_HZ, AudioChunk
from ..errors import RecordingError
from .convert import MAX_STEP_S, PcmReader
from .encoder import Encoder
from .pcm_spool import MAX_MISSING_BYTES, SPLIT_PCM, PcmSpool

# Samples kept in memory, because the next chunk may begin before the end of this one. 0.5 MB.
_BUFFER_BYTES = 16 * SPLIT_PCM.bytes_per_second


class AudioChunkWriter:
    """Write chunks of one recording. In order, all chunks need one pass; going back starts a new pass.

    Samples come from `spool` if given, else from the recording. `close` closes the spool. Write one chunk at a time,
    from one thread. Memory holds only a few seconds of audio.
    """

    def __init__(self, source: Path, spool: PcmSpool | None = None) -> None:
        self._sample_source = spool if spool is not None else _DecodedSource(source)

    def write_chunk(self, chunk: AudioChunk, output_path: Path, format: str) -> ChunkWriting:
        """Write a chunk to a file, in any format that `audio.formats` can write."""
        return ChunkWriting(self._sample_source, chunk, output_path, format)

    def close(self) -> None:
        """Close the recording. Written files remain."""
        self._sample_source.close()


class ChunkWriting:
    """Write one chunk. Every step takes at most about 50 ms and yields the seconds done.

    Steps that only seek to the start of the chunk yield 0. The output file is complete after the last step, and removed
    after an error or `close`.

    Raises:
        RecordingError: The recording cannot be decoded, or ends before the chunk (it has changed since the scan).
        OutputError: The chunk cannot be encoded.
        OSError: Reading or writing a file failed.
    """

    def __init__(self, source: PcmSpool | _DecodedSource, chunk: AudioChunk, output_path: Path, format: str) -> None:
        self._steps = self._run(source, chunk, output_path, format)

    def __iter__(self) -> ChunkWriting:
        return self

    def __next__(self) -> float:
        return next(self._steps)

    def close(self) -> None:
        """Stop, and remove the output file unless it is complete."""
        self._steps.close()

    def _run(
        self, source: PcmSpool | _DecodedSource, chunk: AudioChunk, output_path: Path, format: str
    ) -> Generator[float, None, None]:
        is_done = False
        try:
            with output_path.open("wb") as file, Encoder(format, SPLIT_PCM, file, fast=True) as encoder:
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
        if time.perf_counter() - step_start >= MAX_STEP_S:
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
