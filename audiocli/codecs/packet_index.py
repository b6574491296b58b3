"""Determine which chunks of a recording can be copied without decoding, from statistics of one scan."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..audio.wav import WAV_PROBE_BYTES, WavHeader, parse_wav_duration_s, parse_wav_header

# FFmpeg's names of container and codec, mapped to the formats of a copied chunk, that of the recording first. FLAC is
# missing: its header and frames state their position in the complete stream. ADTS is missing too: few gateways accept
# it.
_COPYABLE_FORMATS: dict[tuple[str, str], tuple[str, ...]] = {
    ("mp3", "mp3float"): ("mp3",),
    ("mov", "aac"): ("m4a", "mp4"),
    ("matroska", "aac"): ("m4a", "mp4"),
    ("ogg", "opus"): ("opus", "ogg", "webm"),
    ("ogg", "vorbis"): ("ogg", "webm"),
    ("matroska", "opus"): ("webm", "opus", "ogg"),
    ("matroska", "vorbis"): ("webm", "ogg"),
}
_WAV_FORMATS = ("wav",)

# Maximum container overhead per packet.
_MAX_PACKET_OVERHEAD_BYTES = 12
_HEADER_BYTES = 16_384
# A chunk begins a little early and ends with a complete packet.
MARGIN_S = 0.5

_WINDOW_S = 10.0
# Container time and decoded time diverge by more than rounding if a decoder returns fewer or more samples than stated.
_SHIFT_TOLERANCE_S = 0.003
_MAX_SHIFT_S, _MAX_SHIFTS = 1.0, 50_000


def list_copyable_formats(source: Path, container: str, codec: str, profile: str | None) -> tuple[str, ...]:
    """Return the formats into which chunks can be copied, given FFmpeg's names, or ()."""
    if container == "wav":
        return _WAV_FORMATS if read_sliceable_wav(source) is not None else ()
    # Extended HE-AAC can start decoding at few packets only.
    if profile is not None and profile.startswith("xHE"):
        return ()
    return _COPYABLE_FORMATS.get((container.partition(",")[0], codec), ())


def read_sliceable_wav(source: Path) -> tuple[bytes, WavHeader] | None:
    """Return the header bytes of a WAV and the parsed header, or None if its samples cannot be sliced."""
    with source.open("rb") as file:
        head = file.read(WAV_PROBE_BYTES)
    # RF64 stores its sizes elsewhere.
    if head[:4] != b"RIFF" or not parse_wav_duration_s(head, source.stat().st_size):
        return None
    header = parse_wav_header(head)
    return None if header is None else (head[: header.data_offset], header)


class PacketIndex(NamedTuple):
    """Packet data of a recording, as needed for splitting. `formats` lists the formats of a copied chunk.

    `shifts` are pairs of a position and the offset of container time from there on, in seconds. `bytes_per_s` is
    the byte rate of the ten seconds with the most bytes.
    """

    formats: tuple[str, ...]
    shifts: tuple[tuple[float, float], ...]
    bytes_per_s: float

    def get_shift_s(self, position_s: float) -> float:
        """Return the offset of container time at a position."""
        return self.shifts[max(bisect_right(self.shifts, position_s, key=lambda shift: shift[0]) - 1, 0)][1]

    def compute_max_chunk_s(self, max_bytes: int) -> float:
        """Return the maximum length of a copied chunk of at most `max_bytes`; negative if none fits."""
        # Whatever its alignment, a chunk overlaps at most two more windows than fit into it.
        return (max_bytes - _HEADER_BYTES) / self.bytes_per_s - 2 * _WINDOW_S - MARGIN_S

    def choose_format(self, accepted_formats: Sequence[Sequence[str]]) -> str | None:
        """Return the first chunk format that every route accepts, or None."""
        return next(
            (name for name in self.formats if all({name, "*"} & set(formats) for formats in accepted_formats)), None
        )


class PacketStats:
    """Collect packet statistics during decoding."""

    def __init__(self, formats: tuple[str, ...]) -> None:
        self._formats = formats
        self._shifts: list[tuple[float, float]] = []
        self._window_start_s, self._max_bytes_per_s = 0.0, 0.0
        self._size_bytes, self._window_start_bytes = 0, 0

    def add_frame(self, pts_s: float | None, decoded_s: float, packet_count: int, size_bytes: int) -> None:
        """Record the timestamp of a frame, and count the packets so far."""
        self.count_packets(decoded_s, packet_count, size_bytes)
        if pts_s is None:
            self.disable_copying()
        elif not self._shifts:
            self._shifts.append((decoded_s, pts_s - decoded_s))
        else:
            shift_s = pts_s - decoded_s
            if abs(shift_s - self._shifts[-1][1]) > _SHIFT_TOLERANCE_S:
                self._shifts.append((decoded_s, shift_s))
                if abs(shift_s - self._shifts[0][1]) > _MAX_SHIFT_S or len(self._shifts) > _MAX_SHIFTS:
                    self.disable_copying()

    def count_packets(self, decoded_s: float, packet_count: int, size_bytes: int) -> None:
        """Count the packets so far."""
        self._size_bytes = size_bytes + packet_count * _MAX_PACKET_OVERHEAD_BYTES
        if decoded_s >= self._window_start_s + _WINDOW_S:
            self._max_bytes_per_s = max(
                self._max_bytes_per_s,
                (self._size_bytes - self._window_start_bytes) / (decoded_s - self._window_start_s),
            )
            self._window_start_s, self._window_start_bytes = decoded_s, self._size_bytes

    def disable_copying(self) -> None:
        """Disable copying, because positions in copied chunks would be wrong."""
        self._formats = ()

    def build_index(self, decoded_s: float) -> PacketIndex | None:
        """Return the packet index, or None if chunks cannot be copied."""
        if not self._formats or not self._shifts or decoded_s <= 0:
            return None
        return PacketIndex(self._formats, tuple(self._shifts), max(self._max_bytes_per_s, self._size_bytes / decoded_s))
