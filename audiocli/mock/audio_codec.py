"""Encode speech and inspect uploaded audio.

`AudioCodec` needs no codec library: it encodes pcm and wav, and measures the formats of `audio.integrity`. A subclass
adds formats, and is passed to `MockGateway`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

from ..audio.integrity import create_integrity_checker
from ..types.audio import PcmFormat
from .audio_synthesis import (
    SAMPLE_RATE_HZ,
    UNKNOWN_SIZE,
    build_wav_header,
    expected_pcm,
    iter_pcm_blocks,
    measure_pcm_bytes,
)

BLOCK_BYTES = 256 * 1024
CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "ogg": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
    "mulaw": "audio/basic",
}
_FORMAT_ALIASES = {"mpga": "mp3", "mpeg": "mp3", "mp4": "m4a", "oga": "ogg", "opus": "ogg", "pcm16": "pcm"}
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"RIFF", "wav"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"ID3", "mp3"),
    (0, b"\x1aE\xdf\xa3", "webm"),
    (4, b"ftyp", "m4a"),
)


class UndecodableAudio(ValueError):
    """The upload is not audio."""


@dataclass(frozen=True, slots=True)
class SynthesizedAudio:
    """The audio of a response. `iter_blocks` returns a new iterator at each call."""

    format: str
    size_bytes: int
    iter_blocks: Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Detected format and measured duration of an upload."""

    format: str | None
    duration_s: float


def detect_format(head: bytes) -> str | None:
    """Detect the format from the first bytes."""
    for offset, magic, name in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return name
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"
    return None


def is_declared_as(format_: str | None, claimed: str) -> bool:
    """Return whether a format or an extension names the detected format."""
    return _FORMAT_ALIASES.get(claimed, claimed) == format_


class AudioCodec:
    """Encodes pcm and wav, and measures uploads without decoding them.

    A subclass overrides `formats`, `encode_samples` and `measure_duration_s`.
    """

    formats: frozenset[str] = frozenset({"pcm", "wav"})

    def __init__(self) -> None:
        self._encode_text = lru_cache(maxsize=64)(self._encode_text_uncached)

    def encode_samples(self, pcm: bytes, format_: str, rate_hz: int) -> bytes:
        """Encode mono samples in a format other than pcm and wav, which this class has no encoder for.

        Raises:
            ValueError: The format is not one of `formats`.
        """
        raise ValueError(f"no encoder for {format_}")

    def measure_duration_s(self, file: IO[bytes], format_: str | None) -> float:
        """Return the duration of the packets in an upload that is not a WAV file.

        Raises: UndecodableAudio.
        """
        checker = create_integrity_checker(format_ or "", PcmFormat())
        while block := file.read(BLOCK_BYTES):
            checker.feed(block)
        report = checker.finish()
        if report.problem or report.duration_s is None:
            raise UndecodableAudio(f"unreadable audio: {report.problem or 'unknown format'}")
        return report.duration_s

    def encode(self, pcm: bytes, format_: str, *, rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
        """Encode mono samples as any format, pcm and wav included."""
        if format_ == "pcm":
            return pcm
        if format_ == "wav":
            return build_wav_header(len(pcm), rate_hz=rate_hz) + pcm
        return self.encode_samples(pcm, format_, rate_hz)

    def synthesize(
        self,
        text: str,
        format_: str,
        *,
        speed: float = 1.0,
        rate_hz: int = SAMPLE_RATE_HZ,
        unknown_size: bool = False,
    ) -> SynthesizedAudio:
        """Synthesize a text. pcm and wav are generated while they are sent, other formats immediately."""
        if format_ not in ("pcm", "wav"):
            encoded = self._encode_text(text, format_, speed, rate_hz)
            return SynthesizedAudio(format_, len(encoded), lambda: iter((encoded,)))
        size = measure_pcm_bytes(text, speed=speed, rate_hz=rate_hz)
        header = b"" if format_ == "pcm" else build_wav_header(UNKNOWN_SIZE if unknown_size else size, rate_hz=rate_hz)

        def iter_blocks() -> Iterator[bytes]:
            if header:
                yield header
            yield from iter_pcm_blocks(text, speed=speed, rate_hz=rate_hz)

        return SynthesizedAudio(format_, len(header) + size, iter_blocks)

    def expected_audio(self, text: str, format_: str, *, speed: float = 1.0, rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
        """Return the exact bytes that the gateway sends for a text in a format."""
        return b"".join(self.synthesize(text, format_, speed=speed, rate_hz=rate_hz).iter_blocks())

    def inspect(self, file: IO[bytes], size_bytes: int, *, claimed: str | None = None) -> AudioInfo:
        """Return the format and the duration of the samples or packets, whatever the header says.

        Raises: UndecodableAudio.
        """
        file.seek(0)
        name = detect_format(file.read(16))
        file.seek(0)
        if name is None and claimed in ("pcm", "pcm16"):
            return AudioInfo("pcm", size_bytes / (2 * SAMPLE_RATE_HZ))
        if name == "wav":
            return AudioInfo("wav", _measure_wav_s(file, size_bytes))
        if not size_bytes:
            raise UndecodableAudio("the file is empty")
        return AudioInfo(name, self.measure_duration_s(file, name))

    def _encode_text_uncached(self, text: str, format_: str, speed: float, rate_hz: int) -> bytes:
        return self.encode(expected_pcm(text, speed=speed, rate_hz=rate_hz), format_, rate_hz=rate_hz)


def _measure_wav_s(file: IO[bytes], size_bytes: int) -> float:
    offset, bytes_per_second = 12, 0
    while offset + 8 <= size_bytes:
        file.seek(offset)
        header = file.read(8)
        kind, size = header[:4], int.from_bytes(header[4:], "little")
        if kind == b"fmt ":
            bytes_per_second = int.from_bytes(file.read(12)[8:], "little")
        if kind == b"data" and bytes_per_second:
            return min(size, size_bytes - offset - 8) / bytes_per_second
        offset += 8 + size + size % 2
    raise UndecodableAudio("the wav file has no samples")
