"""A gateway's audio in, samples out: for replies in another format than the one that was asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Protocol, cast

from av.error import FFmpegError

from ..audio.wav import WavReader
from ..errors import InvalidResponse, OutputError
from ..types.values import Pcm
from .pyav import Frames, ToSamples, best_audio, open_input, reason
from .stream_decoder import FRAMEWISE, Framewise

_SPOOL_BYTES = 4 << 20


class _Decoding(Protocol):
    @property
    def pcm(self) -> Pcm | None: ...

    def feed(self, chunk: bytes) -> bytes: ...

    def finish(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class Decoder:
    """Turn the bytes of one reply into s16le samples as they come. Any chunking gives the same samples.

    mp3, aac, flac, wav and pcm are decoded while they arrive. Ogg, m4a, webm and the rest need their whole container:
    they wait in a temporary file, and `finish` yields their samples in slices of a quarter of a second. `pcm` is known
    once samples came, and stays what it is then. `pcm` as an argument is the shape of raw samples, and matters to them
    only. One thread at a time. Feed at most `slice_bytes` at once where a caller must be able to leave.
    """

    slice_bytes = 16_384
    """Two to four seconds of compressed speech, which cost about 5 ms."""

    def __init__(self, format: str, pcm: Pcm | None = None) -> None:
        self._inner: _Decoding
        if format == "pcm":
            self._inner = _Raw(pcm or Pcm())
        elif format == "wav":
            self._inner = _Wav()
        elif format in FRAMEWISE:
            self._inner = Framewise(format)
        else:
            self._inner = _Spooled(format)

    @property
    def pcm(self) -> Pcm | None:
        return self._inner.pcm

    def feed(self, chunk: bytes) -> bytes:
        """Return the samples that this chunk completes. Raises: BadAnswer (this is not the format)."""
        return self._inner.feed(chunk)

    def finish(self) -> Iterator[bytes]:
        """Yield the samples that are left. Raises: BadAnswer (nothing could be decoded)."""
        yield from self._inner.finish()

    def close(self) -> None:
        """Free everything, whatever is left."""
        self._inner.close()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Raw:
    def __init__(self, pcm: Pcm) -> None:
        self._pcm = pcm
        self._any = False

    @property
    def pcm(self) -> Pcm | None:
        return self._pcm

    def feed(self, chunk: bytes) -> bytes:
        self._any = self._any or bool(chunk)
        return chunk

    def finish(self) -> Iterator[bytes]:
        if not self._any:
            raise InvalidResponse("the audio is empty")
        yield b""

    def close(self) -> None:
        pass


class _Wav:
    """Strip the header of a WAV; samples that are not 16-bit go the long way."""

    def __init__(self) -> None:
        self._reader = WavReader()
        self._begun: bytearray | None = bytearray()
        self._long_way: _Spooled | None = None
        self._any = False

    @property
    def pcm(self) -> Pcm | None:
        if self._long_way is not None:
            return self._long_way.pcm
        return None if self._reader.shape is None else self._reader.shape.pcm

    def feed(self, chunk: bytes) -> bytes:
        if self._long_way is not None:
            return self._long_way.feed(chunk)
        if self._begun is not None:
            self._begun += chunk
        samples = self._reader.feed(chunk)
        shape = self._reader.shape
        if self._begun is not None and shape is not None:
            if shape.codec != "pcm_s16le":
                self._long_way = _Spooled("wav")
                return self._long_way.feed(bytes(self._begun))
            self._begun = None
        self._any = self._any or bool(samples)
        return samples

    def finish(self) -> Iterator[bytes]:
        if self._long_way is not None:
            yield from self._long_way.finish()
        elif not self._any:
            raise InvalidResponse("the audio is a WAV file without samples")

    def close(self) -> None:
        if self._long_way is not None:
            self._long_way.close()


class _Spooled:
    """Keep the reply until it is whole: in memory while it is small, else in a file without a name."""

    def __init__(self, format: str) -> None:
        self._format = format
        self._to_samples = ToSamples()
        file = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115 (lives until `close`)
        self._file = cast(BinaryIO, file)

    @property
    def pcm(self) -> Pcm | None:
        return self._to_samples.pcm

    def feed(self, chunk: bytes) -> bytes:
        try:
            self._file.write(chunk)
        except OSError as error:
            raise OutputError(f"cannot keep the audio while it arrives: {error.strerror}") from error
        return b""

    def finish(self) -> Iterator[bytes]:
        self._file.seek(0)
        try:
            with open_input(self._file) as container:
                stream = best_audio(container)
                if stream is not None:
                    yield from _slices(Frames(container, stream), self._to_samples)
        except FFmpegError as error:
            raise InvalidResponse(f"the audio is not valid {self._format}: {reason(error)}") from error
        if self.pcm is None:
            raise InvalidResponse(f"the audio is not valid {self._format}: there is no sound in it")

    def close(self) -> None:
        self._file.close()


def _slices(frames: Frames, to_samples: ToSamples) -> Iterator[bytes]:
    held = bytearray()
    for frame in frames:
        held += to_samples.push(frame)
        if to_samples.pcm is not None and len(held) * 4 >= to_samples.pcm.bytes_per_second:
            yield bytes(held)
            held.clear()
    yield bytes(held) + to_samples.flush()
