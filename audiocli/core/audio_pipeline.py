"""Pipeline from received audio to one output: pass through, add a WAV header, or decode and encode while it arrives."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol, TypeAlias

from ..audio import formats
from ..audio.wav import WAV_PROBE_BYTES, InvalidWav, UncompressedEncoder, parse_wav_header
from ..threads import run_in_thread
from ..types.audio import PcmFormat
from .run_context import AudioWriter

if TYPE_CHECKING:
    from ..codecs.decoder import Decoder
    from ..codecs.encoder import Encoder

HASH_BLOCK_BYTES = 1024 * 1024

_Write: TypeAlias = Callable[[bytes], Awaitable[None]]
_Run: TypeAlias = Callable[[Callable[[], bytes]], Awaitable[bytes]]


class AudioOutput(NamedTuple):
    """An audio writer and the format to write.

    With `format` None the audio is written as received, raw samples as WAV. `compute_hash` fills
    `WrittenAudio.sha256`.
    """

    writer: AudioWriter
    format: str | None
    compute_hash: bool = True


class WrittenAudio(NamedTuple):
    """Audio written to an output. `sha256` is empty unless `AudioOutput.compute_hash` is set."""

    format: str
    size_bytes: int
    sha256: str


class _Stage(Protocol):
    async def feed(self, block: bytes) -> None: ...
    async def finish(self) -> None: ...
    def close(self) -> None: ...


class AudioPipeline:
    """Write received audio to one output: `begin`, `feed` for every block, `finish`, and `close` in every case."""

    def __init__(self, output: AudioOutput, *, source_format: str, pcm: PcmFormat) -> None:
        self._writer = output.writer
        self._source_format = source_format
        self._pcm = pcm
        self.format = output.format or ("wav" if source_format == "pcm" else source_format)
        self._hash = hashlib.sha256()
        self._compute_hash = output.compute_hash
        self._size_bytes = 0
        self._is_patched = False
        self._stage: _Stage | None = None

    async def begin(self) -> None:
        self._stage = await self._build_first_stage()

    async def feed(self, block: bytes) -> None:
        assert self._stage is not None
        await self._stage.feed(block)

    async def finish(self) -> WrittenAudio:
        assert self._stage is not None
        await self._stage.finish()
        if self._is_patched:
            await self._rehash_file()
        return WrittenAudio(self.format, self._size_bytes, self._hash.hexdigest() if self._compute_hash else "")

    def close(self) -> None:
        if self._stage is not None:
            self._stage.close()

    async def _build_first_stage(self) -> _Stage:
        if formats.is_compatible(self.format, self._source_format):
            await self._writer.begin(self.format, self._pcm)
            if self.format == "wav" and self._writer.file is not None:
                self._is_patched = True
                return _StreamedWav(self._write, self._writer.file)
            return _PassThrough(self._write)
        if self._source_format == "pcm":
            return await self._build_encoder_stage(self._pcm)
        return _DecoderStage(self._source_format, self._build_encoder_stage)

    async def _build_encoder_stage(self, pcm: PcmFormat) -> _Stage:
        await self._writer.begin(self.format, pcm)
        if self.format == "pcm":
            return _PassThrough(self._write)
        # An encoder that patches its header writes to the file itself. Otherwise its output is passed on immediately.
        file = self._writer.file
        self._is_patched = file is not None
        if self.format == "wav":
            return _EncoderStage(UncompressedEncoder("wav", pcm, file), self._write, _run_directly)
        return _EncoderStage(
            await run_in_thread(lambda: _create_encoder(self.format, pcm, file)), self._write, run_in_thread
        )

    async def _write(self, block: bytes) -> None:
        if block:
            if self._compute_hash:
                self._hash.update(block)
            self._size_bytes += len(block)
            await self._writer.write(block)

    async def _rehash_file(self) -> None:
        """Compute hash and size again from a file whose header was patched."""
        file = self._writer.file
        assert file is not None
        if not self._compute_hash:
            self._size_bytes = file.seek(0, os.SEEK_END)
            return
        self._hash, self._size_bytes = hashlib.sha256(), 0
        file.seek(0)
        while block := file.read(HASH_BLOCK_BYTES):
            self._hash.update(block)
            self._size_bytes += len(block)
            await asyncio.sleep(0)


class _PassThrough:
    """Write blocks unchanged."""

    def __init__(self, write: _Write) -> None:
        self._write = write

    async def feed(self, block: bytes) -> None:
        await self._write(block)

    async def finish(self) -> None:
        return None

    def close(self) -> None:
        return None


class _StreamedWav(_PassThrough):
    """Pass a streamed WAV through. In a file, write its real length into the header at the end."""

    def __init__(self, write: _Write, file: BinaryIO) -> None:
        super().__init__(write)
        self._file = file

    async def finish(self) -> None:
        self._file.seek(0)
        try:
            header = parse_wav_header(self._file.read(WAV_PROBE_BYTES))
        except InvalidWav:
            header = None
        end = self._file.seek(0, os.SEEK_END)
        if header is None or header.data_bytes is not None or end > 0xFFFF_FFFF:
            return
        for offset, size_bytes in ((4, end - 8), (header.data_offset - 4, end - header.data_offset)):
            self._file.seek(offset)
            self._file.write(size_bytes.to_bytes(4, "little"))
        self._file.seek(0, os.SEEK_END)


class _EncoderStage:
    """Encode samples, in slices short enough for cancellation between them."""

    def __init__(self, encoder: Encoder | UncompressedEncoder, write: _Write, run: _Run) -> None:
        self._encoder = encoder
        self._write = write
        self._run = run

    async def feed(self, block: bytes) -> None:
        for start in range(0, len(block), self._encoder.max_feed_bytes):
            data = block[start : start + self._encoder.max_feed_bytes]
            await self._write(await self._run(partial(self._encoder.feed, data)))

    async def finish(self) -> None:
        await self._write(await self._run(self._encoder.finish))

    def close(self) -> None:
        self._encoder.close()


class _DecoderStage:
    """Decode audio to samples for the next stage, which is created when their PCM format is known."""

    def __init__(self, source_format: str, create_next: Callable[[PcmFormat], Awaitable[_Stage]]) -> None:
        self._source_format = source_format
        self._create_next = create_next
        self._decoder: Decoder | None = None
        self._next: _Stage | None = None
        self._frame_bytes = 1
        self._remainder = b""

    async def feed(self, block: bytes) -> None:
        if self._decoder is None:
            self._decoder = await run_in_thread(lambda: _create_decoder(self._source_format))
        decoder: Decoder = self._decoder
        for start in range(0, len(block), decoder.max_feed_bytes):
            data = block[start : start + decoder.max_feed_bytes]
            await self._feed_next(await run_in_thread(partial(decoder.feed, data)))

    async def finish(self) -> None:
        if self._decoder is not None:
            remaining_samples = self._decoder.finish()
            while (samples := await run_in_thread(lambda: next(remaining_samples, None))) is not None:
                await self._feed_next(samples)
        if self._next is not None:
            await self._next.finish()

    def close(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
        if self._next is not None:
            self._next.close()

    async def _feed_next(self, samples: bytes) -> None:
        if not samples:
            return
        if self._next is None:
            assert self._decoder is not None
            assert self._decoder.pcm is not None
            self._frame_bytes = self._decoder.pcm.frame_bytes
            self._next = await self._create_next(self._decoder.pcm)
        # Pass on whole frames only. An incomplete frame at the end of a truncated WAV is dropped.
        data = self._remainder + samples
        end = len(data) - len(data) % self._frame_bytes
        self._remainder = data[end:]
        await self._next.feed(data[:end])


def _create_encoder(format: str, pcm: PcmFormat, file: BinaryIO | None) -> Encoder:
    """Import the codec, which takes 60 ms, and create an encoder."""
    from ..codecs.encoder import Encoder

    return Encoder(format, pcm, file)


def _create_decoder(source_format: str) -> Decoder:
    from ..codecs.decoder import Decoder

    return Decoder(source_format)


async def _run_directly(call: Callable[[], bytes]) -> bytes:
    return call()
