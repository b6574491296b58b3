"""Find stereo whose channels cancel out when they are mixed into one, without a codec.

A microphone with swapped wires, or a balanced signal recorded as stereo, inverts the phase of one channel. Mixed into
one channel, such a recording is silent.
"""

from __future__ import annotations

import array
import sys
from itertools import groupby
from operator import add
from pathlib import Path

from ..types.audio import PcmFormat
from .wav import WAV_PROBE_BYTES, InvalidWav, parse_wav_header

MIN_CANCELED_S = 0.5
"""Less is an effect of music, and not worth a warning."""

# A mix this far below the louder channel (-16 dB) has lost it. Independent channels lose 3 dB.
_MAX_MIX_SHARE = 0.15
# Mean absolute sample value (-60 dBFS). Below, noise decides, and the previous decision holds.
_MIN_LEVEL = 32
# Every thirteenth sample of a channel is enough.
_SAMPLE_STEP = 13
_SLICES_PER_S = 20
# A WAV is checked in this many slices. It cancels out if this share of them does.
_WAV_SLICES = 200
_MIN_CANCELED_SHARE = 0.05
# A channel is replaced by the other one only if that is this much louder.
_CHANNEL_HYSTERESIS = 2.0


class CancellationDetector:
    """Find the parts of a stream of stereo samples whose channels must not be mixed."""

    def __init__(self, pcm: PcmFormat) -> None:
        if pcm.channels != 2:
            raise ValueError("needs two channels")
        self._pcm = pcm
        self._channel: int | None = None
        self._canceled_frames = 0
        self.is_audible = False
        """Whether any samples were loud enough for a decision."""

    @property
    def canceled_s(self) -> float:
        """Seconds of audio whose channels cancel out."""
        return self._canceled_frames / self._pcm.sample_rate_hz

    def split(self, samples: bytes) -> list[tuple[int | None, bytes]]:
        """Split complete interleaved s16le frames where the decision changes, with a resolution of 50 ms.

        Each part comes with the channel to use instead of a mix (0 or 1), or None if it can be mixed.
        """
        slice_bytes = self._pcm.sample_rate_hz // _SLICES_PER_S * self._pcm.frame_bytes
        slices = (samples[start : start + slice_bytes] for start in range(0, len(samples), slice_bytes))
        return [(channel, b"".join(parts)) for channel, parts in groupby(slices, self._choose_channel)]

    def _choose_channel(self, samples: bytes) -> int | None:
        values = array.array("h", samples)
        if sys.byteorder == "big":
            values.byteswap()
        left, right = values[:: 2 * _SAMPLE_STEP], values[1 :: 2 * _SAMPLE_STEP]
        levels = sum(map(abs, left)), sum(map(abs, right))
        louder = 1 if levels[1] > levels[0] else 0
        if left and levels[louder] >= _MIN_LEVEL * len(left):
            self.is_audible = True
            if sum(map(abs, map(add, left, right))) / 2 >= _MAX_MIX_SHARE * levels[louder]:
                self._channel = None
            else:
                self._canceled_frames += len(values) // 2
                if self._channel is None or levels[louder] > _CHANNEL_HYSTERESIS * levels[1 - louder]:
                    self._channel = louder
        return self._channel


def take_channel(samples: bytes, channel: int, channel_count: int = 2) -> bytes:
    """Return the samples of one channel. `channel` counts from 0."""
    return array.array("h", samples)[channel::channel_count].tobytes()


def find_wav_cancellation(path: Path) -> bool | None:
    """Return whether the channels of a WAV cancel out, from samples of the complete file: a few milliseconds.

    Return None if this needs a codec: another format, or samples that are not 16-bit.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        try:
            header = parse_wav_header(file.read(WAV_PROBE_BYTES))
        except InvalidWav:
            return None
        if header is None or header.codec is None:
            return None
        if header.pcm.channels != 2:
            return False
        if header.codec != "pcm_s16le":
            return None
        slice_frames = header.pcm.sample_rate_hz // _SLICES_PER_S
        end = file.seek(0, 2)
        if header.data_bytes is not None:
            end = min(end, header.data_offset + header.data_bytes)
        frame_count = (end - header.data_offset) // header.frame_bytes
        audible_count = canceled_count = 0
        for start in range(0, frame_count, max(slice_frames, frame_count // _WAV_SLICES)):
            file.seek(header.data_offset + start * header.frame_bytes)
            samples = file.read(min(slice_frames, frame_count - start) * header.frame_bytes)
            detector = CancellationDetector(header.pcm)
            detector.split(samples)
            canceled_count += detector.canceled_s > 0
            audible_count += detector.is_audible
    return 0 < audible_count * _MIN_CANCELED_SHARE <= canceled_count


def describe_cancellation(canceled_s: float, duration_s: float) -> str | None:
    """Return the warning for a recording of this length, or None if hardly anything canceled out."""
    if not 0 < min(MIN_CANCELED_S, duration_s / 2) <= canceled_s:
        return None
    extent = "" if canceled_s > duration_s / 2 else f" for {canceled_s:.0f} s"
    return f"the channels cancel out when mixed (inverted phase){extent}; only one of them is used"
