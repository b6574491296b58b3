"""Decode the audio of a gateway into samples, if its format differs from the requested one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Protocol, cast

from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.codec import CodecContext
from av.error import FFmpegError
from av.packet import Packet

from ..audio.formats import G711_FORMATS
from ..audio.wav import WavReader
from ..errors import InvalidResponse, OutputError
from ..types.audio import TELEPHONE_PCM, PcmFormat
from .pyav import FrameDecoder, SampleConverter, describe_error, find_audio_stream, open_input
from .stream_decoder import STREAMABLE_FORMATS, StreamDecoder

_SPOOL_BYTES = 4 << 20
_G711_CODECS = {"ulaw": "mulaw", "alaw": "alaw"}


class _DecoderBackend(Protocol):
    """Decoder for one kind of format."""

    @property
    def pcm(self) -> PcmFormat | None: ...

    def feed(self, block: bytes) -> bytes: ...

    def finish(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class Decoder:
    """Decode the bytes of one response into s16le samples. The result does not depend on block boundaries.

    MP3, AAC, FLAC, WAV, PCM and G.711 are decoded while they arrive. Ogg, M4A, WebM and others need the complete
    container: they are spooled to a temporary file, and `finish` yields their samples in slices of a quarter of a
    second. The property `pcm` is set once samples were returned, and does not change afterwards. The argument `pcm`
    describes raw samples and is used for them only. Use it from one thread at a time. Feed at most `max_feed_bytes` per
    call to keep calls short.
    """

    max_feed_bytes = 16_384
    """Two to four seconds of compressed speech, which take about 5 ms to decode."""

    def __init__(self, format: str, pcm: PcmFormat | None = None) -> None:
        self._backend: _DecoderBackend
        if format == "pcm":
            self._backend = _PcmDecoder(pcm or PcmFormat())
        elif format == "wav":
            self._backend = _WavDecoder()
        elif format in G711_FORMATS:
            self._backend = _G711Decoder(format)
        elif format in STREAMABLE_FORMATS:
            self._backend = StreamDecoder(format)
        else:
            self._backend = _SpooledDecoder(format)

    @property
    def pcm(self) -> PcmFormat | None:
        return self._backend.pcm

    def feed(self, block: bytes) -> bytes:
        """Return the samples that this block completes.

        Raises:
            InvalidResponse: The audio is not in this format.
        """
        return self._backend.feed(block)

    def finish(self) -> Iterator[bytes]:
        """Yield the remaining samples.

        Raises:
            InvalidResponse: Nothing could be decoded.
        """
        yield from self._backend.finish()

    def close(self) -> None:
        """Free all resources, also before the end."""
        self._backend.close()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _PcmDecoder:
    def __init__(self, pcm: PcmFormat) -> None:
        self._pcm = pcm
        self._has_data = False

    @property
    def pcm(self) -> PcmFormat | None:
        return self._pcm

    def feed(self, block: bytes) -> bytes:
        self._has_data = self._has_data or bool(block)
        return block

    def finish(self) -> Iterator[bytes]:
        if not self._has_data:
            raise InvalidResponse("the audio is empty")
        yield b""

    def close(self) -> None:
        pass


class _G711Decoder:
    def __init__(self, format: str) -> None:
        self._codec = cast(AudioCodecContext, CodecContext.create(f"pcm_{_G711_CODECS[format]}", "r"))
        self._codec.sample_rate = TELEPHONE_PCM.sample_rate_hz
        self._codec.layout = "mono"
        self._has_data = False

    @property
    def pcm(self) -> PcmFormat | None:
        return TELEPHONE_PCM if self._has_data else None

    def feed(self, block: bytes) -> bytes:
        if not block:
            return b""
        self._has_data = True
        packet = cast("Packet[AudioStream]", Packet(block))
        return b"".join(
            memoryview(frame.planes[0])[: frame.samples * TELEPHONE_PCM.frame_bytes]
            for frame in self._codec.decode(packet)
        )

    def finish(self) -> Iterator[bytes]:
        if not self._has_data:
            raise InvalidResponse("the audio is empty")
        yield b""

    def close(self) -> None:
        pass


class _WavDecoder:
    """Strip the header of a WAV. Samples that are not 16-bit are spooled and decoded by FFmpeg."""

    def __init__(self) -> None:
        self._reader = WavReader()
        self._head: bytearray | None = bytearray()
        self._fallback: _SpooledDecoder | None = None
        self._has_data = False

    @property
    def pcm(self) -> PcmFormat | None:
        if self._fallback is not None:
            return self._fallback.pcm
        return None if self._reader.header is None else self._reader.header.pcm

    def feed(self, block: bytes) -> bytes:
        if self._fallback is not None:
            return self._fallback.feed(block)
        if self._head is not None:
            self._head += block
        samples = self._reader.feed(block)
        header = self._reader.header
        if self._head is not None and header is not None:
            if header.codec != "pcm_s16le":
                self._fallback = _SpooledDecoder("wav")
                return self._fallback.feed(bytes(self._head))
            self._head = None
        self._has_data = self._has_data or bool(samples)
        return samples

    def finish(self) -> Iterator[bytes]:
        if self._fallback is not None:
            yield from self._fallback.finish()
        elif not self._has_data:
            raise InvalidResponse("the audio is a WAV file without samples")

    def close(self) -> None:
        if self._fallback is not None:
            self._fallback.close()


class _SpooledDecoder:
    """Collect the complete response, in memory while it is small, else in an unnamed temporary file."""

    def __init__(self, format: str) -> None:
        self._format = format
        self._converter = SampleConverter()
        file = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115 (lives until `close`)
        self._file = cast(BinaryIO, file)

    @property
    def pcm(self) -> PcmFormat | None:
        return self._converter.pcm

    def feed(self, block: bytes) -> bytes:
        try:
            self._file.write(block)
        except OSError as error:
            raise OutputError(f"cannot buffer the audio: {error.strerror}") from error
        return b""

    def finish(self) -> Iterator[bytes]:
        self._file.seek(0)
        try:
            with open_input(self._file) as container:
                stream = find_audio_stream(container)
                if stream is not None:
                    yield from _decode_slices(FrameDecoder(container, stream), self._converter)
        except FFmpegError as error:
            raise InvalidResponse(f"the audio is not valid {self._format}: {describe_error(error)}") from error
        if self.pcm is None:
            raise InvalidResponse(f"the audio is not valid {self._format}: it contains no audio")

    def close(self) -> None:
        self._file.close()


def _decode_slices(frames: FrameDecoder, converter: SampleConverter) -> Iterator[bytes]:
    buffer = bytearray()
    for frame in frames:
        buffer += converter.push(frame)
        if converter.pcm is not None and len(buffer) * 4 >= converter.pcm.bytes_per_second:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer) + converter.flush()
