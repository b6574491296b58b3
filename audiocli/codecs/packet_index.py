"""What can be cut out of a recording without decoding it, and what hearing it once tells about that."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..audio.wav import HEAD_BYTES, WavShape, wav_duration, wav_shape

# By libav's names of the container and of the codec: what a copied piece can be, the recording's own format first.
# FLAC is not here: its header and its frames tell where in the whole they were. Nor is ADTS, which few gateways take.
_COPIED: dict[tuple[str, str], tuple[str, ...]] = {
    ("mp3", "mp3float"): ("mp3",),
    ("mov", "aac"): ("m4a", "mp4"),
    ("matroska", "aac"): ("m4a", "mp4"),
    ("ogg", "opus"): ("opus", "ogg", "webm"),
    ("ogg", "vorbis"): ("ogg", "webm"),
    ("matroska", "opus"): ("webm", "opus", "ogg"),
    ("matroska", "vorbis"): ("webm", "ogg"),
}
_WAV = ("wav",)

# What a container adds to a packet, at most.
_PACKET_BYTES = 12
_HEADER_BYTES = 16_384
# A piece begins a little before its place and ends with a whole packet.
BESIDES_S = 0.5

_WINDOW_S = 10.0
# Where a decoder gives less or more than the container says, places and times part by more than their rounding.
_TOLERANCE_S = 0.003
_MOST_S, _MOST_SHIFTS = 1.0, 50_000


def copied_formats(source: Path, container: str, codec: str, profile: str | None) -> tuple[str, ...]:
    """Name the formats that pieces can be copied into, given libav's names of what is there; () where they cannot."""
    if container == "wav":
        return _WAV if plain_wav(source) is not None else ()
    # Extended HE-AAC can be decoded from a few packets only.
    if profile is not None and profile.startswith("xHE"):
        return ()
    return _COPIED.get((container.partition(",")[0], codec), ())


def plain_wav(source: Path) -> tuple[bytes, WavShape] | None:
    """Return the header of a WAV and what it says, if its samples can be sliced."""
    with source.open("rb") as file:
        head = file.read(HEAD_BYTES)
    # The sizes of an RF64 stand elsewhere.
    if head[:4] != b"RIFF" or not wav_duration(head, source.stat().st_size):
        return None
    shape = wav_shape(head)
    return None if shape is None else (head[: shape.data_offset], shape)


class Packets(NamedTuple):
    """The packets of a recording, as far as cutting wants to know. `formats` is what a copied piece can be.

    `shifts` are places in the recording and by how much the container's times are ahead from there on, in seconds.
    `bytes_per_s` is that of the busiest ten seconds.
    """

    formats: tuple[str, ...]
    shifts: tuple[tuple[float, float], ...]
    bytes_per_s: float

    def shift_s(self, place_s: float) -> float:
        """Tell how far the container's time is ahead of a place."""
        return self.shifts[max(bisect_right(self.shifts, place_s, key=lambda shift: shift[0]) - 1, 0)][1]

    def longest_s(self, upload_bytes: int) -> float:
        """Tell how long a copied piece may be that is certain to have no more bytes; below 0: none may."""
        # Whichever way a piece lies across the windows, it has a part of two more than fit into it.
        return (upload_bytes - _HEADER_BYTES) / self.bytes_per_s - 2 * _WINDOW_S - BESIDES_S

    def format_for(self, takes: Sequence[Sequence[str]]) -> str | None:
        """Choose the format of copied pieces that everybody takes; None: there is none."""
        return next((name for name in self.formats if all({name, "*"} & set(those) for those in takes)), None)


class PacketStats:
    """Gathers what there is to know of the packets while they are decoded."""

    def __init__(self, formats: tuple[str, ...]) -> None:
        self._formats = formats
        self._shifts: list[tuple[float, float]] = []
        self._window_s, self._busiest = 0.0, 0.0
        self._size_bytes, self._begun_bytes = 0, 0

    def note(self, at_s: float | None, heard_s: float, packets: int, size_bytes: int) -> None:
        """Compare the time that a frame claims with the place it has, and the packets so far with those before."""
        self.count(heard_s, packets, size_bytes)
        if at_s is None:
            self.spoil()
        elif not self._shifts:
            self._shifts.append((heard_s, at_s - heard_s))
        else:
            shift_s = at_s - heard_s
            if abs(shift_s - self._shifts[-1][1]) > _TOLERANCE_S:
                self._shifts.append((heard_s, shift_s))
                if abs(shift_s - self._shifts[0][1]) > _MOST_S or len(self._shifts) > _MOST_SHIFTS:
                    self.spoil()

    def count(self, heard_s: float, packets: int, size_bytes: int) -> None:
        """Count the packets so far, all of them in the end."""
        self._size_bytes = size_bytes + packets * _PACKET_BYTES
        if heard_s >= self._window_s + _WINDOW_S:
            self._busiest = max(self._busiest, (self._size_bytes - self._begun_bytes) / (heard_s - self._window_s))
            self._window_s, self._begun_bytes = heard_s, self._size_bytes

    def spoil(self) -> None:
        """Note that places in copied pieces would not be those in the recording."""
        self._formats = ()

    def packets(self, heard_s: float) -> Packets | None:
        """Return what is known in the end; None: pieces cannot be copied."""
        if not self._formats or not self._shifts or heard_s <= 0:
            return None
        return Packets(self._formats, tuple(self._shifts), max(self._busiest, self._size_bytes / heard_s))
