"""Decode MP3, ADTS and FLAC while they arrive: streams that can be parsed into frames without a container."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.codec import CodecContext
from av.error import FFmpegError
from av.packet import Packet

from ..audio.containers import parse_stream_info
from ..audio.mpeg import GaplessInfo, parse_gapless_info, parse_id3_size
from ..errors import InvalidResponse
from ..types.audio import PcmFormat
from .pyav import SampleConverter, describe_error

_DECODER_DELAY = 529
"""Samples of silence that an MP3 decoder inserts at the start. Source: LAME's technical FAQ; FFmpeg uses it too."""

_MAX_HEAD_BYTES = 64 << 20


class StreamDecoder:
    """Decode a stream of frames into samples. Damaged frames are skipped, as players do."""

    def __init__(self, format: str) -> None:
        codec, self._find_start = _CODECS[format]
        self._format = format
        # Two contexts: a parser that runs ahead overwrites the sample rate of the frames.
        self._parser = cast(AudioCodecContext, CodecContext.create(codec, "r"))
        self._codec = cast(AudioCodecContext, CodecContext.create(codec, "r"))
        self._codec.thread_count = 1
        self._converter = SampleConverter()
        self._trimmer = _PaddingTrimmer() if format == "mp3" else None
        self._head: bytearray | None = bytearray()
        self._frame_count = 0
        self._decode_error: FFmpegError | None = None

    @property
    def pcm(self) -> PcmFormat | None:
        return self._converter.pcm

    def feed(self, block: bytes) -> bytes:
        if self._head is not None:
            self._head += block
            start = self._find_start(self._head, self._codec)
            if start is None:
                if len(self._head) > _MAX_HEAD_BYTES:
                    raise InvalidResponse(f"the audio is not valid {self._format}: no audio after its tags")
                return b""
            block, self._head = bytes(self._head[start:]), None
        # The parser takes an empty block as the end of the stream.
        return self._decode(self._parser.parse(block)) if block else b""

    def finish(self) -> Iterator[bytes]:
        """Yield the samples that parser, codec and resampler still hold.

        Raises:
            InvalidResponse: Nothing could be decoded.
        """
        # The FLAC parser holds several frames and returns one per flush.
        while packets := self._parser.parse(None):
            yield self._decode(packets)
        yield self._decode([None])
        samples = self._converter.flush()
        if self.pcm is None:
            reason = describe_error(self._decode_error) if self._decode_error else "it contains no audio"
            raise InvalidResponse(f"the audio is not valid {self._format}: {reason}") from self._decode_error
        yield (
            samples
            if self._trimmer is None
            else self._trimmer.trim(samples, self.pcm) + self._trimmer.flush(self._frame_count)
        )

    def close(self) -> None:
        self._head = None

    def _decode(self, packets: Sequence[Packet[AudioStream] | None]) -> bytes:
        samples = bytearray()
        for packet in packets:
            if self._trimmer is not None and packet is not None and self._trimmer.read_header(packet):
                continue
            try:
                for frame in self._codec.decode(packet):
                    self._frame_count += 1
                    samples += self._converter.push(frame)
            except FFmpegError as error:
                self._decode_error = error
        samples += self._converter.drain()
        if self._trimmer is None or self.pcm is None:
            return bytes(samples)
        return self._trimmer.trim(bytes(samples), self.pcm)


class _PaddingTrimmer:
    """Remove the padding that the header frame of an MP3 declares, at both ends.

    The end is trimmed only if the number of frames matches the header: otherwise the header belongs to another file.
    """

    def __init__(self) -> None:
        self._is_at_start = True
        self._info: GaplessInfo | None = None
        self._skip_bytes: int | None = None
        self._pending = b""

    def read_header(self, packet: Packet[AudioStream]) -> bool:
        """Read the padding if this is the first packet and a header. Return whether it is, because it has no audio."""
        is_first, self._is_at_start = self._is_at_start, False
        if is_first:
            self._info = parse_gapless_info(bytes(packet))
        return is_first and self._info is not None

    def trim(self, samples: bytes, pcm: PcmFormat) -> bytes:
        if self._info is None or self._info.start_padding is None or self._info.end_padding is None:
            return samples
        if self._skip_bytes is None:
            self._skip_bytes = (self._info.start_padding + _DECODER_DELAY) * pcm.frame_bytes
        skipped, samples = samples[: self._skip_bytes], self._pending + samples[self._skip_bytes :]
        self._skip_bytes -= len(skipped)
        keep_bytes = max(len(samples) - max(self._info.end_padding - _DECODER_DELAY, 0) * pcm.frame_bytes, 0)
        self._pending = samples[keep_bytes:]
        return samples[:keep_bytes]

    def flush(self, frame_count: int) -> bytes:
        is_complete_file = self._info is not None and self._info.frame_count == frame_count
        return b"" if is_complete_file else self._pending


def _skip_mp3_tag(head: bytearray, codec: AudioCodecContext) -> int | None:
    """Return the end of the ID3 tag. The parser would find frames in its cover picture."""
    if len(head) < 10 and head and b"ID3".startswith(head[:3]):
        return None
    tag_bytes = parse_id3_size(bytes(head[:10]))
    return None if len(head) < tag_bytes else tag_bytes


def _read_flac_metadata(head: bytearray, codec: AudioCodecContext) -> int | None:
    """Return the end of the metadata, and pass STREAMINFO to the codec."""
    offset = parse_id3_size(bytes(head[:10])) + 4
    while len(head) >= offset + 4:
        size = int.from_bytes(head[offset + 1 : offset + 4])
        block = bytes(head[offset + 4 : offset + 4 + size])
        if len(block) < size:
            return None
        if head[offset] & 0x7F == 0 and parse_stream_info(block) is not None:
            codec.extradata = block[:34]
        if head[offset] & 0x80:
            return offset + 4 + size
        offset += 4 + size
    return None


_CODECS: dict[str, tuple[str, Callable[[bytearray, AudioCodecContext], int | None]]] = {
    "mp3": ("mp3float", _skip_mp3_tag),
    "mp2": ("mp2float", _skip_mp3_tag),
    "aac": ("aac", _skip_mp3_tag),
    "flac": ("flac", _read_flac_metadata),
}
STREAMABLE_FORMATS = frozenset(_CODECS)
