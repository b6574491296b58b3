"""Deterministic speech: the samples of a text, and WAV headers.

Each character becomes a tone of 60 ms, white space becomes silence. The duration of a text is therefore known in
advance, and the samples of two concatenated texts are the concatenated samples (from five characters on).
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterator
from functools import lru_cache

SAMPLE_RATE_HZ = 24_000
SECONDS_PER_CHARACTER = 0.06
MIN_CHARACTERS = 5
UNKNOWN_SIZE = 0xFFFF_FFFF


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
    riff = min(size_bytes + 36, UNKNOWN_SIZE)
    numbers = (riff, 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16, size_bytes)
    widths = (4, 4, 2, 2, 4, 4, 2, 2, 4)
    packed = [number.to_bytes(width, "little") for number, width in zip(numbers, widths, strict=True)]
    return b"".join([b"RIFF", packed[0], b"WAVEfmt ", *packed[1:8], b"data", packed[8]])
