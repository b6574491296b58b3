"""Deterministic speech, its encodings, and the inspection of uploaded audio.

Each character becomes a tone of 60 ms, white space becomes silence. The duration of a text is therefore known in
advance, and the samples of two concatenated texts are the concatenated samples (from five characters on).
"""

from __future__ import annotations

import io
import math
import sys
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

SAMPLE_RATE_HZ = 24_000
SECONDS_PER_CHARACTER = 0.06
MIN_CHARACTERS = 5
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
_ENCODERS = {
    "mp3": ("mp3", "libmp3lame"),
    "opus": ("ogg", "libopus"),
    "ogg": ("ogg", "libopus"),
    "aac": ("adts", "aac"),
    "flac": ("flac", "flac"),
    "mulaw": ("mulaw", "pcm_mulaw"),
}
_UNKNOWN_SIZE = 0xFFFF_FFFF


@lru_cache(maxsize=4096)
def _synthesize_tone(character: str, samples: int, rate_hz: int) -> bytes:
    if character.isspace():
        return bytes(2 * samples)
    cycles = 12 + ord(character) % 61
    step = 2 * math.pi * cycles / samples if samples else 0.0
    tone = array("h", (round(8000 * math.sin(step * n)) for n in range(samples)))
    if sys.byteorder == "big":
        tone.byteswap()
    return tone.tobytes()


def measure_pcm_bytes(text: str, *, speed: float = 1.0, rate_hz: int = SAMPLE_RATE_HZ) -> int:
    return 2 * round(SECONDS_PER_CHARACTER * rate_hz / speed) * max(len(text), MIN_CHARACTERS)


def iter_pcm_blocks(text: str, *, speed: float = 1.0, rate_hz: int = SAMPLE_RATE_HZ) -> Iterator[bytes]:
    """Yield samples in blocks of about 64 KB."""
    samples = round(SECONDS_PER_CHARACTER * rate_hz / speed)
    padded = text.ljust(MIN_CHARACTERS)
    stride = max(1, 64 * 1024 // max(1, 2 * samples))
    for start in range(0, len(padded), stride):
        yield b"".join(_synthesize_tone(character, samples, rate_hz) for character in padded[start : start + stride])


def expected_pcm(text: str, *, speed: float = 1.0, rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
    """Return the exact samples that the gateway sends for a text: signed 16-bit little-endian, mono."""
    return b"".join(iter_pcm_blocks(text, speed=speed, rate_hz=rate_hz))


def build_wav_header(size_bytes: int, *, rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
    """Return the 44-byte header of `size_bytes` of mono samples; the size 0xFFFFFFFF means unknown."""
    riff = min(size_bytes + 36, _UNKNOWN_SIZE)
    numbers = (riff, 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16, size_bytes)
    widths = (4, 4, 2, 2, 4, 4, 2, 2, 4)
    packed = [number.to_bytes(width, "little") for number, width in zip(numbers, widths, strict=True)]
    return b"".join([b"RIFF", packed[0], b"WAVEfmt ", *packed[1:8], b"data", packed[8]])


@dataclass(frozen=True, slots=True)
class SynthesizedAudio:
    """The audio of a response. `iter_blocks` returns a new iterator at each call."""

    format: str
    size_bytes: int
    iter_blocks: Callable[[], Iterator[bytes]]


def synthesize(
    text: str, format_: str, *, speed: float = 1.0, rate_hz: int = SAMPLE_RATE_HZ, unknown_size: bool = False
) -> SynthesizedAudio:
    """Synthesize a text. pcm and wav are generated while they are sent, other formats immediately."""
    if format_ in ("pcm", "wav"):
        size = measure_pcm_bytes(text, speed=speed, rate_hz=rate_hz)
        header = b"" if format_ == "pcm" else build_wav_header(_UNKNOWN_SIZE if unknown_size else size, rate_hz=rate_hz)

        def iter_blocks() -> Iterator[bytes]:
            if header:
                yield header
            yield from iter_pcm_blocks(text, speed=speed, rate_hz=rate_hz)

        return SynthesizedAudio(format_, len(header) + size, iter_blocks)
    encoded = _encode_text(text, format_, speed, rate_hz)
    return SynthesizedAudio(format_, len(encoded), lambda: iter((encoded,)))


def expected_audio(text: str, format_: str, *, speed: float = 1.0, rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
    """Return the exact bytes that the gateway sends for a text in a format."""
    return b"".join(synthesize(text, format_, speed=speed, rate_hz=rate_hz).iter_blocks())


@lru_cache(maxsize=64)
def _encode_text(text: str, format_: str, speed: float, rate_hz: int) -> bytes:
    return encode(expected_pcm(text, speed=speed, rate_hz=rate_hz), format_, rate_hz=rate_hz)


def encode(pcm: bytes, format_: str, *, rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
    """Encode mono samples as any format, pcm and wav included."""
    if format_ in ("pcm", "wav"):
        return pcm if format_ == "pcm" else build_wav_header(len(pcm), rate_hz=rate_hz) + pcm
    import av  # takes 63 ms, and few tests need it

    container_name, codec = _ENCODERS[format_]
    output = io.BytesIO()
    with av.open(output, "w", format=container_name, options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(codec, rate=rate_hz, layout="mono")
        sample_format: Any = stream.codec_context.format
        resampler = av.AudioResampler(
            format=sample_format or "s16",
            layout="mono",
            rate=rate_hz,
            frame_size=stream.codec_context.frame_size or None,
        )
        frames: list[Any] = []
        for start in range(0, len(pcm), 2 * rate_hz):
            second = pcm[start : start + 2 * rate_hz]
            frame = av.AudioFrame(format="s16", layout="mono", samples=len(second) // 2)
            frame.planes[0].update(second.ljust(frame.planes[0].buffer_size, b"\0"))
            frame.sample_rate = rate_hz
            frame.pts = start // 2
            frames.append(frame)
        for frame in [*frames, None]:
            for resampled in resampler.resample(frame):
                container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
    return output.getvalue()


# --- uploaded audio --------------------------------------------------------------------------------------------------


class UndecodableAudio(ValueError):
    """The upload is not audio."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    format: str | None
    duration_s: float


_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"RIFF", "wav"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"ID3", "mp3"),
    (0, b"\x1aE\xdf\xa3", "webm"),
    (4, b"ftyp", "m4a"),
)


def detect_format(head: bytes) -> str | None:
    """Detect the format from the first bytes."""
    for offset, magic, name in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return name
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"
    return None


def inspect_audio(file: IO[bytes], size_bytes: int, *, claimed: str | None = None) -> AudioInfo:
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
    return AudioInfo(name, _measure_duration_s(file))


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


def _measure_duration_s(file: IO[bytes]) -> float:
    import av

    try:
        with av.open(file, "r") as container:
            if not container.streams.audio:
                raise UndecodableAudio("no audio in the file")
            stream = container.streams.audio[0]
            packets = [
                (packet.pts, packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None
            ]
            if not packets or stream.time_base is None:
                raise UndecodableAudio("no audio in the file")
            return float((max(pts + duration for pts, duration in packets) - packets[0][0]) * stream.time_base)
    except (av.FFmpegError, ValueError) as error:
        raise UndecodableAudio(f"unreadable audio: {error}") from error
