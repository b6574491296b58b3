"""Read and write WAV without a codec."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, NamedTuple

from ..errors import InvalidResponse
from ..types.audio import PcmFormat

UNKNOWN_SIZE = 0xFFFFFFFF
WAV_PROBE_BYTES = 4096
"""Bytes that `parse_wav_duration_s` needs: enough for the metadata before the samples."""

_MIN_PLACEHOLDER_SIZE = 0x7FFF0000
"""Sizes from here on are placeholders of writers that stream: sox writes 0x7FFFFFFF less its header, OpenAI and FFmpeg
write 0xFFFFFFFF. A real WAV of 2 GB would be a day of speech."""

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
MAX_HEADER_BYTES = 1 << 20
"""Give up if the samples do not start within this many bytes."""


def build_wav_header(pcm: PcmFormat, data_bytes: int | None) -> bytes:
    """Build the 44-byte header of a 16-bit WAV.

    If `data_bytes` is None or above 4 GiB, the sizes are 0xFFFFFFFF, which means "to the end".
    """
    if data_bytes is None or data_bytes > UNKNOWN_SIZE - 37:
        riff_bytes = data_bytes = UNKNOWN_SIZE
    else:
        riff_bytes = 36 + data_bytes + data_bytes % 2
    fmt = struct.pack("<HHIIHH", _PCM, pcm.channels, pcm.sample_rate_hz, pcm.bytes_per_second, pcm.frame_bytes, 16)
    return struct.pack("<4sI4s4sI16s4sI", b"RIFF", riff_bytes, b"WAVE", b"fmt ", 16, fmt, b"data", data_bytes)


class WavHeader(NamedTuple):
    """A parsed WAV header.

    `codec` is FFmpeg's name, or None for samples without a fixed size and for unsupported ones. `data_bytes` is None if
    the writer did not know the size.
    """

    codec: str | None
    pcm: PcmFormat
    frame_bytes: int
    data_offset: int
    data_bytes: int | None

    @property
    def bytes_per_second(self) -> int:
        return self.frame_bytes * self.pcm.sample_rate_hz


# Headers with values beyond these are rejected: no audio in practice has them.
MAX_CHANNELS = 8
MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ = 1_000, 384_000


class InvalidWav(ValueError):
    """The bytes are not a WAV header, or the header does not describe the samples."""


def parse_wav_header(head: bytes) -> WavHeader | None:
    """Parse a WAV header. Return None if `head` ends before the samples begin.

    Raises:
        InvalidWav: Not a WAV header, or an invalid one.
    """
    if len(head) < 12:
        return None
    if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:12] != b"WAVE":
        raise InvalidWav("no RIFF header")
    offset, fmt, long_bytes = 12, None, 0
    while offset + 8 <= len(head):
        name, size = struct.unpack_from("<4sI", head, offset)
        if name == b"data":
            if fmt is None:
                raise InvalidWav("data chunk before fmt chunk")
            codec, pcm, frame_bytes = fmt
            is_unknown = size == 0 or size >= _MIN_PLACEHOLDER_SIZE
            if size == UNKNOWN_SIZE and long_bytes:
                is_unknown, size = False, long_bytes
            return WavHeader(codec, pcm, frame_bytes, offset + 8, None if is_unknown else size)
        if name == b"ds64":
            # The 64-bit size of an RF64 file. Source: EBU Tech 3306 (2009), ITU-R BS.2088.
            if offset + 24 > len(head):
                return None
            long_bytes = int.from_bytes(head[offset + 16 : offset + 24], "little")
        if name == b"fmt ":
            if offset + 24 > len(head):
                return None
            fmt = _parse_fmt(head[offset + 8 : offset + 8 + min(size, 40)])
        offset += 8 + size + size % 2
    return None


def _parse_fmt(fmt: bytes) -> tuple[str | None, PcmFormat, int]:
    if len(fmt) < 16:
        raise InvalidWav("invalid fmt chunk")
    tag, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", fmt)
    if tag == _EXTENSIBLE and len(fmt) >= 26:
        tag = int.from_bytes(fmt[24:26], "little")
    if not 1 <= channels <= MAX_CHANNELS or not MIN_SAMPLE_RATE_HZ <= rate <= MAX_SAMPLE_RATE_HZ or not frame_bytes:
        raise InvalidWav("invalid fmt chunk")
    codec = _CODECS.get((tag, bits))
    return (codec if codec and frame_bytes == channels * bits // 8 else None), PcmFormat(rate, channels), frame_bytes


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


def parse_wav_duration_s(head: bytes, size_bytes: int) -> float | None:
    """Return the duration of a WAV file from its first `WAV_PROBE_BYTES` and its size, without loading a codec.

    Return None if this is not a valid WAV with samples of a fixed size; use a codec then. Return 0.0 if it has no
    samples. For a file that is shorter than its header states, the duration is that of the samples present.
    """
    header = _parse_plain_header(head)
    if header is None:
        return None
    available_bytes = max(size_bytes - header.data_offset, 0)
    data_bytes = available_bytes if header.data_bytes is None else min(available_bytes, header.data_bytes)
    return data_bytes // header.frame_bytes / header.pcm.sample_rate_hz


def parse_declared_wav_duration_s(head: bytes) -> float | None:
    """Return the duration that a WAV header states, or None if it is unknown or the samples have no fixed size."""
    header = _parse_plain_header(head)
    return None if header is None or header.data_bytes is None else header.data_bytes / header.bytes_per_second


def _parse_plain_header(head: bytes) -> WavHeader | None:
    """Parse a WAV header. Return None if it is invalid or its samples have no fixed size."""
    try:
        header = parse_wav_header(head)
    except InvalidWav:
        return None
    return None if header is None or header.codec is None else header


class WavReader:
    """Strip the header of a streamed 16-bit WAV. The samples do not depend on block boundaries."""

    def __init__(self) -> None:
        self.header: WavHeader | None = None
        self._head = bytearray()
        self._remaining_bytes: int | None = None

    def feed(self, block: bytes) -> bytes:
        """Return the bytes of samples in this block.

        Raises:
            InvalidResponse: This is not a WAV file.
        """
        if self.header is None:
            self._head += block
            try:
                self.header = parse_wav_header(bytes(self._head))
            except InvalidWav as error:
                raise InvalidResponse(f"the audio is not a WAV file: {error}") from error
            if self.header is None:
                if len(self._head) > MAX_HEADER_BYTES:
                    raise InvalidResponse("the audio is not a WAV file: no samples in the first 1 MiB")
                return b""
            self._remaining_bytes = self.header.data_bytes
            block = bytes(self._head[self.header.data_offset :])
            self._head.clear()
        if self._remaining_bytes is None:
            return block
        samples = block[: self._remaining_bytes]
        self._remaining_bytes -= len(samples)
        return samples


class UncompressedEncoder:
    """Write pcm or wav: the counterpart of `Encoder` for formats that need no codec, with the same methods.

    With a seekable `output` the bytes are written there, and the sizes in a WAV header are corrected at the end. With
    None the bytes are returned, and a WAV header states an unknown length.
    """

    def __init__(self, format: str, pcm: PcmFormat, output: BinaryIO | None = None) -> None:
        if format not in ("pcm", "wav"):
            raise ValueError(f"{format} needs a codec")
        self.max_feed_bytes = pcm.bytes_per_second
        self._pcm = pcm
        self._output = output
        self._remainder = b""
        self._written_bytes = 0
        self._header = build_wav_header(pcm, None) if format == "wav" else b""
        self._is_wav = format == "wav"

    def feed(self, samples: bytes) -> bytes:
        """Encode s16le samples, in blocks of any length.

        Raises:
            OSError: Writing to the output failed.
        """
        pending = self._remainder + samples if self._remainder else samples
        end = len(pending) - len(pending) % self._pcm.frame_bytes
        self._remainder = pending[end:]
        data, self._header = self._header + pending[:end], b""
        self._written_bytes += end
        return self._emit(data)

    def finish(self) -> bytes:
        """Complete the file. An incomplete sample at the end is dropped.

        Raises:
            OSError: Writing to the output failed.
        """
        data = self._emit(self._header)
        self._header = b""
        if self._output is not None:
            if self._is_wav:
                self._output.seek(0)
                self._emit(build_wav_header(self._pcm, self._written_bytes))
                self._output.seek(0, os.SEEK_END)
            self._output.flush()
        return data

    def close(self) -> None:
        """Abandon the file. Nothing more is written."""
        self._output = None

    def _emit(self, data: bytes) -> bytes:
        if self._output is None:
            return data
        write_all(self._output, data)
        return b""


def write_all(output: BinaryIO, data: bytes) -> None:
    """Write all bytes, also to an unbuffered file, whose `write` may accept fewer."""
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[output.write(remaining) :]
