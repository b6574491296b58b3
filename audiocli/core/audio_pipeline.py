"""The way of audio from the wire to one outlet: as it is, behind a header, or decoded and encoded while it arrives."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol, TypeAlias

from ..audio import formats
from ..audio.wav import HEAD_BYTES as WAV_HEAD_BYTES
from ..audio.wav import NotWav, PlainEncoder, wav_shape
from ..threads import run_in_thread
from ..types.values import Pcm
from .run_context import Sink

if TYPE_CHECKING:
    from ..codecs.decoder import Decoder
    from ..codecs.encoder import Encoder

HASHED_BYTES = 1024 * 1024

_Write: TypeAlias = Callable[[bytes], Awaitable[None]]
_Run: TypeAlias = Callable[[Callable[[], bytes]], Awaitable[bytes]]


class Outlet(NamedTuple):
    """One place where the audio is wanted, and in which format; None: as it arrives, samples behind a WAV header.

    Not `is_hashed`: nobody asks for the hash of what it gets.
    """

    sink: Sink
    format: str | None
    is_hashed: bool = True


class Delivered(NamedTuple):
    """What an outlet got; no `sha256` where none was asked for."""

    format: str
    size_bytes: int
    sha256: str


class _Stage(Protocol):
    async def feed(self, chunk: bytes) -> None: ...
    async def finish(self) -> None: ...
    def close(self) -> None: ...


class Delivery:
    """Feeds one outlet. Use: `begin`, `feed` for every chunk, `finish`; `close` in every case."""

    def __init__(self, outlet: Outlet, *, arriving: str, pcm: Pcm) -> None:
        self._sink = outlet.sink
        self._arriving = arriving
        self._pcm = pcm
        self.format = outlet.format or ("wav" if arriving == "pcm" else arriving)
        self._hash = hashlib.sha256()
        self._is_hashed = outlet.is_hashed
        self._size_bytes = 0
        self._is_patched = False
        self._stage: _Stage | None = None

    async def begin(self) -> None:
        self._stage = await self._first_stage()

    async def feed(self, chunk: bytes) -> None:
        assert self._stage is not None
        await self._stage.feed(chunk)

    async def finish(self) -> Delivered:
        assert self._stage is not None
        await self._stage.finish()
        if self._is_patched:
            await self._hash_again()
        return Delivered(self.format, self._size_bytes, self._hash.hexdigest() if self._is_hashed else "")

    def close(self) -> None:
        if self._stage is not None:
            self._stage.close()

    async def _first_stage(self) -> _Stage:
        if formats.fits(self.format, self._arriving):
            await self._sink.begin(self.format, self._pcm)
            if self.format == "wav" and self._sink.file is not None:
                self._is_patched = True
                return _StreamedWav(self._write, self._sink.file)
            return _PassThrough(self._write)
        if self._arriving == "pcm":
            return await self._from_samples(self._pcm)
        return _Decoding(self._arriving, self._from_samples)

    async def _from_samples(self, pcm: Pcm) -> _Stage:
        await self._sink.begin(self.format, pcm)
        if self.format == "pcm":
            return _PassThrough(self._write)
        # An encoder that can go back in its file writes there itself; otherwise what it makes is passed on at once.
        target = self._sink.file
        self._is_patched = target is not None
        if self.format == "wav":
            return _Encoding(PlainEncoder("wav", pcm, target), self._write, _at_once)
        return _Encoding(await run_in_thread(lambda: _encoder(self.format, pcm, target)), self._write, run_in_thread)

    async def _write(self, chunk: bytes) -> None:
        if chunk:
            if self._is_hashed:
                self._hash.update(chunk)
            self._size_bytes += len(chunk)
            await self._sink.write(chunk)

    async def _hash_again(self) -> None:
        """Read a file that was patched once more: its receipt tells what lies there, not what was written first."""
        file = self._sink.file
        assert file is not None
        if not self._is_hashed:
            self._size_bytes = file.seek(0, os.SEEK_END)
            return
        self._hash, self._size_bytes = hashlib.sha256(), 0
        file.seek(0)
        while chunk := file.read(HASHED_BYTES):
            self._hash.update(chunk)
            self._size_bytes += len(chunk)
            await asyncio.sleep(0)


class _PassThrough:
    def __init__(self, write: _Write) -> None:
        self._write = write

    async def feed(self, chunk: bytes) -> None:
        await self._write(chunk)

    async def finish(self) -> None:
        return None

    def close(self) -> None:
        return None


class _StreamedWav(_PassThrough):
    """A WAV as it comes, whose sender could not know its length: in a file the header can be put right at the end."""

    def __init__(self, write: _Write, file: BinaryIO) -> None:
        super().__init__(write)
        self._file = file

    async def finish(self) -> None:
        self._file.seek(0)
        try:
            shape = wav_shape(self._file.read(WAV_HEAD_BYTES))
        except NotWav:
            shape = None
        end = self._file.seek(0, os.SEEK_END)
        if shape is None or shape.data_bytes is not None or end > 0xFFFF_FFFF:
            return
        for at, size_bytes in ((4, end - 8), (shape.data_offset - 4, end - shape.data_offset)):
            self._file.seek(at)
            self._file.write(size_bytes.to_bytes(4, "little"))
        self._file.seek(0, os.SEEK_END)


class _Encoding:
    """Samples through an encoder, in slices short enough to stop between them."""

    def __init__(self, encoder: Encoder | PlainEncoder, write: _Write, run: _Run) -> None:
        self._encoder = encoder
        self._write = write
        self._run = run

    async def feed(self, chunk: bytes) -> None:
        for start in range(0, len(chunk), self._encoder.slice_bytes):
            part = chunk[start : start + self._encoder.slice_bytes]
            await self._write(await self._run(partial(self._encoder.feed, part)))

    async def finish(self) -> None:
        await self._write(await self._run(self._encoder.finish))

    def close(self) -> None:
        self._encoder.close()


class _Decoding:
    """Encoded audio back to samples, then on to the next stage, which is made when their shape is known."""

    def __init__(self, arriving: str, next_stage: Callable[[Pcm], Awaitable[_Stage]]) -> None:
        self._arriving = arriving
        self._make_next = next_stage
        self._decoder: Decoder | None = None
        self._next: _Stage | None = None
        self._frame_bytes = 1
        self._rest = b""

    async def feed(self, chunk: bytes) -> None:
        if self._decoder is None:
            self._decoder = await run_in_thread(lambda: _decoder(self._arriving))
        decoder: Decoder = self._decoder
        for start in range(0, len(chunk), decoder.slice_bytes):
            part = chunk[start : start + decoder.slice_bytes]
            await self._pass_on(await run_in_thread(partial(decoder.feed, part)))

    async def finish(self) -> None:
        if self._decoder is not None:
            rest = self._decoder.finish()
            while (samples := await run_in_thread(lambda: next(rest, None))) is not None:
                await self._pass_on(samples)
        if self._next is not None:
            await self._next.finish()

    def close(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
        if self._next is not None:
            self._next.close()

    async def _pass_on(self, samples: bytes) -> None:
        if not samples:
            return
        if self._next is None:
            assert self._decoder is not None
            assert self._decoder.pcm is not None
            self._frame_bytes = self._decoder.pcm.frame_bytes
            self._next = await self._make_next(self._decoder.pcm)
        # Half a sample at the very end, of a WAV that ends oddly, goes no further.
        whole = self._rest + samples
        cut = len(whole) - len(whole) % self._frame_bytes
        self._rest = whole[cut:]
        await self._next.feed(whole[:cut])


def _encoder(format: str, pcm: Pcm, target: BinaryIO | None) -> Encoder:
    """Load the codec, which takes 60 ms, and make an encoder."""
    from ..codecs.encoder import Encoder

    return Encoder(format, pcm, target)


def _decoder(arriving: str) -> Decoder:
    from ..codecs.decoder import Decoder

    return Decoder(arriving)


async def _at_once(call: Callable[[], bytes]) -> bytes:
    return call()
