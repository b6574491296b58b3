"""Pipeline from received audio to one output: pass through, add a WAV header, or decode and encode while it arrives.

Samples may be processed before they are encoded, and the complete file may get tags.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol, TypeAlias, cast

from ..audio import formats
from ..audio.wav import WAV_PROBE_BYTES, InvalidWav, UncompressedEncoder, parse_wav_header, write_all
from ..errors import AudiocliError, OutputError
from ..threads import run_in_thread
from ..types.audio import PcmFormat
from .run_context import AudioWriter

if TYPE_CHECKING:
    from ..audio.processing import Processing
    from ..audio.tags import AudioTags
    from ..codecs.decoder import Decoder
    from ..codecs.encoder import Encoder
    from ..codecs.processing import LoudnessNormalizer, SampleProcessor

HASH_BLOCK_BYTES = 1024 * 1024
# A limiter that cannot reach the requested loudness falls short of it by more than this.
MAX_LOUDNESS_ERROR_LU = 1.0

_Write: TypeAlias = Callable[[bytes], Awaitable[None]]
_Run: TypeAlias = Callable[[Callable[[], bytes]], Awaitable[bytes]]


class AudioOutput(NamedTuple):
    """An audio writer and the format to write.

    With `format` None the audio is written as received, raw and processed samples as WAV. `compute_hash` fills
    `WrittenAudio.sha256`.

    Attributes:
        processing: What is done to the samples before they are encoded.
        tags: Called when the audio is complete. Only outputs for which `can_tag` is true get the tags.
        scratch_directory: Where temporary files are made, for the loudness and for tags. None: the temporary directory
            of the system.
    """

    writer: AudioWriter
    format: str | None
    compute_hash: bool = True
    processing: Processing | None = None
    tags: Callable[[], AudioTags] | None = None
    scratch_directory: Path | None = None


class WrittenAudio(NamedTuple):
    """Audio written to an output.

    `sha256` is empty unless `AudioOutput.compute_hash` is set. `duration_s` is that of processed samples, and None if
    there was no processing. `warnings` has what could not be done.
    """

    format: str
    size_bytes: int
    sha256: str
    duration_s: float | None = None
    warnings: tuple[str, ...] = ()


def can_tag(output: AudioOutput) -> bool:
    """Return whether an output can get tags: a file, not a pipe or a player, in a format that has tags."""
    from ..audio.tags import supports_tags

    return output.writer.file is not None and output.format is not None and supports_tags(output.format)


class _Stage(Protocol):
    async def feed(self, block: bytes) -> None: ...
    async def finish(self) -> None: ...
    def close(self) -> None: ...


class AudioPipeline:
    """Write received audio to one output: `begin`, `feed` for every block, `finish`, and `close` in every case."""

    def __init__(self, output: AudioOutput, *, source_format: str, pcm: PcmFormat) -> None:
        processing = output.processing
        self._writer = output.writer
        self._source_format = source_format
        self._pcm = pcm
        self._processing = processing if processing is not None and processing.is_active else None
        self._processing_stage: _ProcessingStage | None = None
        self._tags = output.tags
        self._scratch_directory = output.scratch_directory
        self._warnings: list[str] = []
        needs_wav = source_format in formats.RAW_FORMATS or self._processing is not None
        self.format = output.format or ("wav" if needs_wav else source_format)
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
        if self._tags is not None:
            await self._write_tags(self._tags())
        if self._is_patched:
            await self._rehash_file()
        return WrittenAudio(
            self.format,
            self._size_bytes,
            self._hash.hexdigest() if self._compute_hash else "",
            None if self._processing_stage is None else self._processing_stage.duration_s,
            tuple(self._warnings),
        )

    def close(self) -> None:
        if self._stage is not None:
            self._stage.close()

    async def _build_first_stage(self) -> _Stage:
        if self._processing is not None:
            if self._source_format == "pcm":
                return await self._build_processing_stage(self._pcm)
            return _DecoderStage(self._source_format, self._build_processing_stage)
        if formats.is_compatible(self.format, self._source_format):
            await self._writer.begin(self.format, self._pcm)
            if self.format == "wav" and self._writer.file is not None:
                self._is_patched = True
                return _StreamedWav(self._write, self._writer.file)
            return _PassThrough(self._write)
        if self._source_format == "pcm":
            return await self._build_encoder_stage(self._pcm)
        return _DecoderStage(self._source_format, self._build_encoder_stage)

    async def _build_processing_stage(self, pcm: PcmFormat) -> _Stage:
        processing = self._processing
        assert processing is not None
        processor = await run_in_thread(lambda: _create_processor(processing, pcm))
        stage = await self._build_encoder_stage(processor.pcm)
        target_lufs, directory = processing.loudness_lufs, self._scratch_directory
        if target_lufs is not None:
            try:
                normalizer = await run_in_thread(lambda: _create_normalizer(processor.pcm, target_lufs, directory))
            except OSError as error:
                self._warnings.append(_build_loudness_warning(error))
            else:
                stage = _LoudnessStage(normalizer, target_lufs, stage, self._warnings)
        self._processing_stage = _ProcessingStage(processor, stage)
        return self._processing_stage

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

    async def _write_tags(self, tags: AudioTags) -> None:
        """Replace the complete file by a copy with tags. If that fails, the file stays as it is."""
        from ..audio.tags import supports_tags

        file = self._writer.file
        if file is None or not supports_tags(self.format):
            return
        try:
            copy = await self._write_tagged_copy(file, tags)
        except (OSError, AudiocliError) as error:
            file.seek(0, os.SEEK_END)
            reason = error.message if isinstance(error, AudiocliError) else error.strerror
            self._warnings.append(f"the tags were not written: {reason}")
            return
        with copy:
            await _copy_back(copy, file)
        self._is_patched = True

    async def _write_tagged_copy(self, file: BinaryIO, tags: AudioTags) -> BinaryIO:
        """Return a temporary file with the audio and the tags."""
        from ..codecs.tags import write_tags

        if self._scratch_directory is not None:
            self._scratch_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file_object = tempfile.TemporaryFile(dir=self._scratch_directory, buffering=0)  # noqa: SIM115 (closed by the caller)
        copy = cast(BinaryIO, file_object)
        writing = write_tags(file, copy, self.format, tags)
        try:
            while await run_in_thread(lambda: next(writing, None)) is not None:
                pass
        except BaseException:
            writing.close()
            copy.close()
            raise
        self._warnings += writing.warnings
        return copy

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


class _ProcessingStage:
    """Change tempo and sample rate, and count the samples that come out."""

    def __init__(self, processor: SampleProcessor, next_stage: _Stage) -> None:
        self._processor = processor
        self._next = next_stage
        self._size_bytes = 0

    @property
    def duration_s(self) -> float:
        return self._size_bytes / self._processor.pcm.bytes_per_second

    async def feed(self, block: bytes) -> None:
        for start in range(0, len(block), self._processor.max_feed_bytes):
            data = block[start : start + self._processor.max_feed_bytes]
            await self._feed_next(await run_in_thread(partial(self._processor.feed, data)))

    async def finish(self) -> None:
        await self._feed_next(await run_in_thread(self._processor.finish))
        await self._next.finish()

    def close(self) -> None:
        self._next.close()

    async def _feed_next(self, samples: bytes) -> None:
        self._size_bytes += len(samples)
        await self._next.feed(samples)


class _LoudnessStage:
    """Hold all samples back, and pass them on with another loudness at the end.

    If there is no disk space to hold them, they are passed on unchanged: they are paid for.
    """

    def __init__(
        self, normalizer: LoudnessNormalizer, target_lufs: float, next_stage: _Stage, warnings: list[str]
    ) -> None:
        self._normalizer = normalizer
        self._target_lufs = target_lufs
        self._next = next_stage
        self._warnings = warnings
        self._is_bypassed = False

    async def feed(self, block: bytes) -> None:
        for start in range(0, len(block), self._normalizer.max_feed_bytes):
            data = block[start : start + self._normalizer.max_feed_bytes]
            if not self._is_bypassed:
                try:
                    await run_in_thread(partial(self._normalizer.feed, data))
                    continue
                except OSError as error:
                    self._warnings.append(_build_loudness_warning(error))
                    self._is_bypassed = True
                    for samples in self._normalizer.read_back():
                        await self._next.feed(samples)
            await self._next.feed(data)

    async def finish(self) -> None:
        if not self._is_bypassed:
            steps = self._normalizer.finish()
            while (samples := await self._read_step(steps)) is not None:
                await self._next.feed(samples)
            self._warn_about_loudness(self._normalizer.final_lufs)
        await self._next.finish()

    def close(self) -> None:
        self._normalizer.close()
        self._next.close()

    async def _read_step(self, steps: Iterator[bytes]) -> bytes | None:
        try:
            return await run_in_thread(lambda: next(steps, None))
        except OSError as error:
            raise OutputError(f"cannot read the buffered audio: {error.strerror}") from error

    def _warn_about_loudness(self, final_lufs: float | None) -> None:
        if final_lufs is None:
            self._warnings.append("the loudness is unchanged: there is too little audio to measure it")
        elif final_lufs < self._target_lufs - MAX_LOUDNESS_ERROR_LU:
            self._warnings.append(
                f"the loudness is {final_lufs:.1f} LUFS: {self._target_lufs:g} is not possible without distortion"
            )


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


def _create_processor(processing: Processing, pcm: PcmFormat) -> SampleProcessor:
    from ..codecs.processing import SampleProcessor

    return SampleProcessor(processing, pcm)


def _create_normalizer(pcm: PcmFormat, target_lufs: float, directory: Path | None) -> LoudnessNormalizer:
    from ..codecs.processing import LoudnessNormalizer

    return LoudnessNormalizer(pcm, target_lufs, directory)


def _build_loudness_warning(error: OSError) -> str:
    return f"the loudness is unchanged: cannot buffer the audio: {error.strerror}"


async def _copy_back(copy: BinaryIO, file: BinaryIO) -> None:
    """Replace the content of a file by that of a copy, in blocks."""
    copy.seek(0)
    file.seek(0)
    while block := copy.read(HASH_BLOCK_BYTES):
        write_all(file, block)
        await asyncio.sleep(0)
    file.truncate(file.tell())


def _create_decoder(source_format: str) -> Decoder:
    from ..codecs.decoder import Decoder

    return Decoder(source_format)


async def _run_directly(call: Callable[[], bytes]) -> bytes:
    return call()
