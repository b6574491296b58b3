"""Sound for the double: a voice that is exact to the sample, its encodings, and an ear for what was uploaded.

The voice sings one tone of 60 ms for each character, and is silent for white space. So a text's length is known
beforehand, and the samples of two texts set end to end are the samples of the joined text (from five characters on).
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

RATE_HZ = 24_000
CHARACTER_S = 0.06
SHORTEST_CHARACTERS = 5
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
_OPEN_END = 0xFFFF_FFFF


@lru_cache(maxsize=4096)
def _tone(character: str, samples: int, rate_hz: int) -> bytes:
    if character.isspace():
        return bytes(2 * samples)
    cycles = 12 + ord(character) % 61
    step = 2 * math.pi * cycles / samples if samples else 0.0
    tone = array("h", (round(8000 * math.sin(step * n)) for n in range(samples)))
    if sys.byteorder == "big":
        tone.byteswap()
    return tone.tobytes()


def pcm_size(text: str, *, speed: float = 1.0, rate_hz: int = RATE_HZ) -> int:
    return 2 * round(CHARACTER_S * rate_hz / speed) * max(len(text), SHORTEST_CHARACTERS)


def pcm_pieces(text: str, *, speed: float = 1.0, rate_hz: int = RATE_HZ) -> Iterator[bytes]:
    """Give the samples in pieces of about 64 KB."""
    samples = round(CHARACTER_S * rate_hz / speed)
    padded = text.ljust(SHORTEST_CHARACTERS)
    stride = max(1, 64 * 1024 // max(1, 2 * samples))
    for start in range(0, len(padded), stride):
        yield b"".join(_tone(character, samples, rate_hz) for character in padded[start : start + stride])


def expected_pcm(text: str, *, speed: float = 1.0, rate_hz: int = RATE_HZ) -> bytes:
    """Give the exact samples that the gateway makes of a text: signed 16-bit little-endian, mono."""
    return b"".join(pcm_pieces(text, speed=speed, rate_hz=rate_hz))


def wav_header(size_bytes: int, *, rate_hz: int = RATE_HZ) -> bytes:
    """Make the 44 bytes before `size_bytes` of mono samples; the size 0xFFFFFFFF leaves the end open."""
    riff = min(size_bytes + 36, _OPEN_END)
    numbers = (riff, 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16, size_bytes)
    widths = (4, 4, 2, 2, 4, 4, 2, 2, 4)
    packed = [number.to_bytes(width, "little") for number, width in zip(numbers, widths, strict=True)]
    return b"".join([b"RIFF", packed[0], b"WAVEfmt ", *packed[1:8], b"data", packed[8]])


@dataclass(frozen=True, slots=True)
class Sound:
    """A reply's audio: its exact size, and its bytes as often as they are wanted."""

    format: str
    size_bytes: int
    pieces: Callable[[], Iterator[bytes]]


def speak(text: str, format_: str, *, speed: float = 1.0, rate_hz: int = RATE_HZ, open_ended: bool = False) -> Sound:
    """Say a text in a format. pcm and wav are made while they are sent, the others at once."""
    if format_ in ("pcm", "wav"):
        size = pcm_size(text, speed=speed, rate_hz=rate_hz)
        header = b"" if format_ == "pcm" else wav_header(_OPEN_END if open_ended else size, rate_hz=rate_hz)

        def pieces() -> Iterator[bytes]:
            if header:
                yield header
            yield from pcm_pieces(text, speed=speed, rate_hz=rate_hz)

        return Sound(format_, len(header) + size, pieces)
    encoded = _encode(text, format_, speed, rate_hz)
    return Sound(format_, len(encoded), lambda: iter((encoded,)))


def expected_audio(text: str, format_: str, *, speed: float = 1.0, rate_hz: int = RATE_HZ) -> bytes:
    """Give the exact bytes that the gateway sends for a text in a format."""
    return b"".join(speak(text, format_, speed=speed, rate_hz=rate_hz).pieces())


@lru_cache(maxsize=64)
def _encode(text: str, format_: str, speed: float, rate_hz: int) -> bytes:
    return encode(expected_pcm(text, speed=speed, rate_hz=rate_hz), format_, rate_hz=rate_hz)


def encode(pcm: bytes, format_: str, *, rate_hz: int = RATE_HZ) -> bytes:
    """Encode mono samples; wav too, so that tests can make recordings of any format."""
    if format_ in ("pcm", "wav"):
        return pcm if format_ == "pcm" else wav_header(len(pcm), rate_hz=rate_hz) + pcm
    import av  # 63 ms, and most tests do without

    container_name, codec = _ENCODERS[format_]
    target = io.BytesIO()
    with av.open(target, "w", format=container_name, options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(codec, rate=rate_hz, layout="mono")
        wanted: Any = stream.codec_context.format
        resampler = av.AudioResampler(
            format=wanted or "s16", layout="mono", rate=rate_hz, frame_size=stream.codec_context.frame_size or None
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
            for ready in resampler.resample(frame):
                container.mux(stream.encode(ready))
        container.mux(stream.encode(None))
    return target.getvalue()


# --- the ear ---------------------------------------------------------------------------------------------------------


class Deaf(ValueError):
    """What was uploaded is not audio."""


@dataclass(frozen=True, slots=True)
class Heard:
    format: str | None
    duration_s: float


_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"RIFF", "wav"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"ID3", "mp3"),
    (0, b"\x1aE\xdf\xa3", "webm"),
    (4, b"ftyp", "m4a"),
)


def sniff(head: bytes) -> str | None:
    """Tell the format from the first bytes."""
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"
    return None


def listen(file: IO[bytes], size_bytes: int, *, claimed: str | None = None) -> Heard:
    """Find the format and the true length of a recording: what is there, not what a header claims. Raises: Deaf."""
    file.seek(0)
    name = sniff(file.read(16))
    file.seek(0)
    if name is None and claimed in ("pcm", "pcm16"):
        return Heard("pcm", size_bytes / (2 * RATE_HZ))
    if name == "wav":
        return Heard("wav", _wav_seconds(file, size_bytes))
    if not size_bytes:
        raise Deaf("the file is empty")
    return Heard(name, _av_seconds(file))


def _wav_seconds(file: IO[bytes], size_bytes: int) -> float:
    at, bytes_per_second = 12, 0
    while at + 8 <= size_bytes:
        file.seek(at)
        header = file.read(8)
        kind, size = header[:4], int.from_bytes(header[4:], "little")
        if kind == b"fmt ":
            bytes_per_second = int.from_bytes(file.read(12)[8:], "little")
        if kind == b"data" and bytes_per_second:
            return min(size, size_bytes - at - 8) / bytes_per_second
        at += 8 + size + size % 2
    raise Deaf("a wav file without samples")


def _av_seconds(file: IO[bytes]) -> float:
    import av

    try:
        with av.open(file, "r") as container:
            if not container.streams.audio:
                raise Deaf("no audio in the file")
            stream = container.streams.audio[0]
            spans = [(packet.pts, packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None]
            if not spans or stream.time_base is None:
                raise Deaf("no audio in the file")
            return float((max(pts + duration for pts, duration in spans) - spans[0][0]) * stream.time_base)
    except (av.FFmpegError, ValueError) as error:
        raise Deaf(f"unreadable audio: {error}") from error
