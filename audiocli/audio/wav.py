"""WAV, which needs no codec: its header, its length, and both directions between it and raw samples."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, NamedTuple

from ..errors import InvalidResponse
from ..types.values import Pcm

UNKNOWN_SIZE = 0xFFFFFFFF
HEAD_BYTES = 4096
"""How much of a file `wav_duration` wants to see: enough for the chunks that stand before the samples."""

_STREAMED_FROM = 0x7FFF0000
"""Sizes from here on were written by somebody who did not know the size: sox says 0x7FFFFFFF less its header,
OpenAI and FFmpeg 0xFFFFFFFF. A true WAV of 2 GB would be a day of speech."""

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
LARGEST_HEADER = 1 << 20
"""How far the samples may be from the beginning for us to look for them."""


def wav_header(pcm: Pcm, data_bytes: int | None) -> bytes:
    """Make the 44 bytes that stand before the samples. None or over 4 GiB: sizes of 0xFFFFFFFF, "to the end"."""
    if data_bytes is None or data_bytes > UNKNOWN_SIZE - 37:
        riff_bytes = data_bytes = UNKNOWN_SIZE
    else:
        riff_bytes = 36 + data_bytes + data_bytes % 2
    shape = struct.pack("<HHIIHH", _PCM, pcm.channels, pcm.sample_rate_hz, pcm.bytes_per_second, pcm.frame_bytes, 16)
    return struct.pack("<4sI4s4sI16s4sI", b"RIFF", riff_bytes, b"WAVE", b"fmt ", 16, shape, b"data", data_bytes)


class WavShape(NamedTuple):
    """What a WAV header says. `data_bytes` is None where its writer did not know; `codec` is libav's name for it."""

    codec: str | None
    pcm: Pcm
    frame_bytes: int
    data_offset: int
    data_bytes: int | None

    @property
    def bytes_per_second(self) -> int:
        return self.frame_bytes * self.pcm.sample_rate_hz


# Beyond these a header is not believed: nothing that speaks or listens makes such sound.
MOST_CHANNELS = 8
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 1_000, 384_000


class NotWav(ValueError):
    """These bytes are no WAV header, or one without a description of its samples."""


def wav_shape(head: bytes) -> WavShape | None:
    """Read a WAV header; None when `head` ends before the samples begin. Raises: NotWav."""
    if len(head) < 12:
        return None
    if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:12] != b"WAVE":
        raise NotWav("no RIFF header")
    at, described = 12, None
    while at + 8 <= len(head):
        name, size = struct.unpack_from("<4sI", head, at)
        if name == b"data":
            if described is None:
                raise NotWav("samples without a description")
            codec, pcm, frame_bytes = described
            unknown = size == 0 or size >= _STREAMED_FROM
            return WavShape(codec, pcm, frame_bytes, at + 8, None if unknown else size)
        if name == b"fmt ":
            if at + 24 > len(head):
                return None
            described = _described(head[at + 8 : at + 8 + min(size, 40)])
        at += 8 + size + size % 2
    return None


def _described(chunk: bytes) -> tuple[str | None, Pcm, int]:
    if len(chunk) < 16:
        raise NotWav("a broken description of the samples")
    tag, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == _EXTENSIBLE and len(chunk) >= 26:
        tag = int.from_bytes(chunk[24:26], "little")
    if not 1 <= channels <= MOST_CHANNELS or not LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ or not frame_bytes:
        raise NotWav("a broken description of the samples")
    codec = _CODECS.get((tag, bits))
    return (codec if codec and frame_bytes == channels * bits // 8 else None), Pcm(rate, channels), frame_bytes


_CODECS = {
    (_PCM, 8): "pcm_u8",
    (_PCM, 16): "pcm_s16le",
    (_PCM, 24): "pcm_s24le",
    (_PCM, 32): "pcm_s32le",
    (_FLOAT, 32): "pcm_f32le",
    (_FLOAT, 64): "pcm_f64le",
    (_ALAW, 8): "pcm_alaw",
    (_MULAW, 8): "pcm_mulaw",
}


def wav_duration(head: bytes, size_bytes: int) -> float | None:
    """Tell how long a WAV file is from its first `HEAD_BYTES` and its size, so that no codec need be loaded.

    None when this is not a healthy WAV of plain samples: then a codec must look. 0.0 when it holds no samples. A file
    that is shorter than its header says has the length that is there.
    """
    shape = _plain_shape(head)
    if shape is None:
        return None
    there = max(size_bytes - shape.data_offset, 0)
    data_bytes = there if shape.data_bytes is None else min(there, shape.data_bytes)
    return data_bytes // shape.frame_bytes / shape.pcm.sample_rate_hz


def wav_promise(head: bytes) -> float | None:
    """Tell how long a WAV of plain samples says that it is; None when it does not say."""
    shape = _plain_shape(head)
    return None if shape is None or shape.data_bytes is None else shape.data_bytes / shape.bytes_per_second


def _plain_shape(head: bytes) -> WavShape | None:
    try:
        shape = wav_shape(head)
    except NotWav:
        return None
    return None if shape is None or shape.codec is None else shape


class WavReader:
    """Take the header off a WAV of 16-bit samples while it arrives. Any chunking gives the same samples."""

    def __init__(self) -> None:
        self.shape: WavShape | None = None
        self._head = bytearray()
        self._left: int | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Return the bytes of samples in this chunk. Raises: BadAnswer (not a WAV)."""
        if self.shape is None:
            self._head += chunk
            try:
                self.shape = wav_shape(bytes(self._head))
            except NotWav as error:
                raise InvalidResponse(f"the audio is not a WAV file: {error}") from error
            if self.shape is None:
                if len(self._head) > LARGEST_HEADER:
                    raise InvalidResponse("the audio is not a WAV file: no samples in its first megabyte")
                return b""
            self._left = self.shape.data_bytes
            chunk = bytes(self._head[self.shape.data_offset :])
            self._head.clear()
        if self._left is None:
            return chunk
        samples = chunk[: self._left]
        self._left -= len(samples)
        return samples


class PlainEncoder:
    """Write pcm or wav: the `Encoder` of formats that need no codec, with the same methods and promises.

    With a seekable `target` the bytes go there and a WAV gets its true sizes at the end; with None they are returned,
    and a WAV says that its length is unknown.
    """

    def __init__(self, format: str, pcm: Pcm, target: BinaryIO | None = None) -> None:
        if format not in ("pcm", "wav"):
            raise ValueError(f"{format} needs a codec")
        self.slice_bytes = pcm.bytes_per_second
        self._pcm = pcm
        self._target = target
        self._remainder = b""
        self._written = 0
        self._header = wav_header(pcm, None) if format == "wav" else b""
        self._patch = format == "wav"

    def feed(self, samples: bytes) -> bytes:
        """Encode s16le samples, cut anywhere. Raises: OSError (the target's own)."""
        whole = self._remainder + samples if self._remainder else samples
        cut = len(whole) - len(whole) % self._pcm.frame_bytes
        self._remainder = whole[cut:]
        out, self._header = self._header + whole[:cut], b""
        self._written += cut
        return self._put(out)

    def finish(self) -> bytes:
        """Complete the file; half a sample at the end is dropped. Raises: OSError."""
        out = self._put(self._header)
        self._header = b""
        if self._target is not None:
            if self._patch:
                self._target.seek(0)
                self._put(wav_header(self._pcm, self._written))
                self._target.seek(0, os.SEEK_END)
            self._target.flush()
        return out

    def close(self) -> None:
        """Give up; nothing more is written."""
        self._target = None

    def _put(self, out: bytes) -> bytes:
        if self._target is None:
            return out
        write_all(self._target, out)
        return b""


def write_all(target: BinaryIO, out: bytes) -> None:
    """Write every byte, also to an unbuffered file, which may take fewer than it is given."""
    rest = memoryview(out)
    while rest:
        rest = rest[target.write(rest) :]
