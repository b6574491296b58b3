"""Decode mp3, ADTS and FLAC while they arrive: streams that can be cut into frames without a container."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.codec import CodecContext
from av.error import FFmpegError
from av.packet import Packet

from ..audio.containers import stream_info
from ..audio.mpeg import Gapless, gapless, id3_bytes
from ..errors import InvalidResponse
from ..types.values import Pcm
from .pyav import ToSamples, reason

_DECODER_DELAY = 529
"""Samples of silence that an mp3 decoder itself puts first. Source: LAME's technical FAQ, as libav counts it."""

_LARGEST_HEAD = 64 << 20


class Framewise:
    """Samples of a stream of frames. Damaged frames are left out, as every player does."""

    def __init__(self, format: str) -> None:
        codec, self._begin = _KINDS[format]
        self._format = format
        # Two contexts: a parser that runs ahead overwrites the rate that frames are stamped with.
        self._parser = cast(AudioCodecContext, CodecContext.create(codec, "r"))
        self._codec = cast(AudioCodecContext, CodecContext.create(codec, "r"))
        self._codec.thread_count = 1
        self._to_samples = ToSamples()
        self._padding = _Padding() if format == "mp3" else None
        self._head: bytearray | None = bytearray()
        self._frames = 0
        self._damage: FFmpegError | None = None

    @property
    def pcm(self) -> Pcm | None:
        return self._to_samples.pcm

    def feed(self, chunk: bytes) -> bytes:
        if self._head is not None:
            self._head += chunk
            start = self._begin(self._head, self._codec)
            if start is None:
                if len(self._head) > _LARGEST_HEAD:
                    raise InvalidResponse(f"the audio is not valid {self._format}: no sound behind its tags")
                return b""
            chunk, self._head = bytes(self._head[start:]), None
        # To the parser an empty chunk would be the end of the stream.
        return self._decoded(self._parser.parse(chunk)) if chunk else b""

    def finish(self) -> Iterator[bytes]:
        """Yield what parser, codec and resampler still hold. Raises: BadAnswer (nothing could be decoded)."""
        # The FLAC parser holds several frames, and gives back one at each flush.
        while packets := self._parser.parse(None):
            yield self._decoded(packets)
        yield self._decoded([None])
        rest = self._to_samples.flush()
        if self.pcm is None:
            what = reason(self._damage) if self._damage else "there is no sound in it"
            raise InvalidResponse(f"the audio is not valid {self._format}: {what}") from self._damage
        yield rest if self._padding is None else self._padding.cut(rest, self.pcm) + self._padding.rest(self._frames)

    def close(self) -> None:
        self._head = None

    def _decoded(self, packets: Sequence[Packet[AudioStream] | None]) -> bytes:
        out = bytearray()
        for packet in packets:
            if self._padding is not None and packet is not None and self._padding.is_header(packet):
                continue
            try:
                for frame in self._codec.decode(packet):
                    self._frames += 1
                    out += self._to_samples.push(frame)
            except FFmpegError as error:
                self._damage = error
        out += self._to_samples.drain()
        if self._padding is None or self.pcm is None:
            return bytes(out)
        return self._padding.cut(bytes(out), self.pcm)


class _Padding:
    """Leave out what the header frame of an mp3 declares as padding, at both ends.

    The end is only cut when as many frames came as the header says: other numbers belong to another file.
    """

    def __init__(self) -> None:
        self._untouched = True
        self._told: Gapless | None = None
        self._to_skip: int | None = None
        self._held = b""

    def is_header(self, packet: Packet[AudioStream]) -> bool:
        first, self._untouched = self._untouched, False
        if first:
            self._told = gapless(bytes(packet))
        return first and self._told is not None

    def cut(self, samples: bytes, pcm: Pcm) -> bytes:
        if self._told is None or self._told.start is None or self._told.end is None:
            return samples
        if self._to_skip is None:
            self._to_skip = (self._told.start + _DECODER_DELAY) * pcm.frame_bytes
        skipped, samples = samples[: self._to_skip], self._held + samples[self._to_skip :]
        self._to_skip -= len(skipped)
        keep = max(len(samples) - max(self._told.end - _DECODER_DELAY, 0) * pcm.frame_bytes, 0)
        self._held = samples[keep:]
        return samples[:keep]

    def rest(self, frames: int) -> bytes:
        whole = self._told is not None and self._told.frames == frames
        return b"" if whole else self._held


def _begin_mp3(head: bytearray, codec: AudioCodecContext) -> int | None:
    """Pass the ID3 tag, in whose cover picture the parser would find frames."""
    if len(head) < 10 and head and b"ID3".startswith(head[:3]):
        return None
    tag_bytes = id3_bytes(bytes(head[:10]))
    return None if len(head) < tag_bytes else tag_bytes


def _begin_flac(head: bytearray, codec: AudioCodecContext) -> int | None:
    """Pass the metadata, and give the codec the block that describes the samples."""
    at = id3_bytes(bytes(head[:10])) + 4
    while len(head) >= at + 4:
        size = int.from_bytes(head[at + 1 : at + 4])
        block = bytes(head[at + 4 : at + 4 + size])
        if len(block) < size:
            return None
        if head[at] & 0x7F == 0 and stream_info(block) is not None:
            codec.extradata = block[:34]
        if head[at] & 0x80:
            return at + 4 + size
        at += 4 + size
    return None


_KINDS: dict[str, tuple[str, Callable[[bytearray, AudioCodecContext], int | None]]] = {
    "mp3": ("mp3float", _begin_mp3),
    "mp2": ("mp2float", _begin_mp3),
    "aac": ("aac", _begin_mp3),
    "flac": ("flac", _begin_flac),
}
FRAMEWISE = frozenset(_KINDS)
