"""Measure how long a recording is, and whether it is complete.

Durations in headers are hints. They are wrong for joined files, for variable bit rates without a header and for live
streams. Spending limits, chunk plans and caption times use the counted length.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition

from ..audio.integrity import check_recording
from .pyav import FrameDecoder, open_input

_MICROSECONDS_PER_S = 1_000_000

# FFmpeg's demuxers for streams of frames without a container, which `check_recording` counts seven times faster.
_FRAME_DEMUXERS = frozenset({"mp3", "aac"})
# These containers state the duration without the padding of the encoder. It is used if it differs no more than by that.
_DEMUXERS_WITH_PADDING = ("mov", "matroska", "ogg")
_MAX_PADDING_S = 0.1
# Gaps between container timestamps: smaller ones are rounding, larger ones are invalid timestamps.
_MIN_GAP_S, _MAX_GAP_S = 0.25, 600.0
_TIMESTAMPED_DEMUXERS = ("matroska", "mov", "mpegts", "asf", "avi")
# Durations in headers are off by a frame or two, some by a little more.
_MISSING_AUDIO_S, _MISSING_AUDIO_RATIO = 0.5, 0.02
_INDEX_RATIO = 0.05
# FFmpeg searches this far for the next packet of a transport stream.
_MAX_EXTRA_BYTES = 65_536


class RecordingLength(NamedTuple):
    """How long a recording is, and how sure that is.

    `duration_s` is the length of the audio that is present. If not `is_exact`, the file could not be read to its end,
    and `duration_s` is the longest that it may be. `is_truncated`: the file ends too early.
    """

    duration_s: float
    is_exact: bool
    is_truncated: bool


def measure_length(path: Path, container: InputContainer, stream: AudioStream) -> RecordingLength:
    """Count the packets of a recording: an hour takes up to 0.4 s. They are decoded only if there is no other way.

    Gaps in the timestamps count as audio, because decoding fills them with silence. `duration_s` is 0 if there is no
    packet. The container is at its end afterwards.

    Raises:
        OSError: The file cannot be read.
    """
    report = check_recording(path)
    if container.format.name in _FRAME_DEMUXERS and report.duration_s is not None:
        return RecordingLength(report.duration_s, is_exact=True, is_truncated=report.is_cut_off)
    declared_s = read_declared_duration_s(container, stream)
    counter = PacketCounter(container, stream)
    is_read = counter.read_all()
    if not is_read and not report.is_cut_off:
        longest_s = max(counter.duration_s, declared_s or 0.0, report.duration_s or 0.0)
        return RecordingLength(longest_s, is_exact=False, is_truncated=False)
    duration_s = _decode_duration_s(path, stream) if counter.needs_decoding else counter.duration_s
    is_truncated = report.is_cut_off or is_shorter_than_declared(
        path, container, stream, duration_s, counter.end_position
    )
    has_padding = container.format.name.startswith(_DEMUXERS_WITH_PADDING)
    if has_padding and declared_s is not None and not is_truncated and abs(declared_s - duration_s) <= _MAX_PADDING_S:
        duration_s = declared_s
    return RecordingLength(duration_s, is_exact=True, is_truncated=is_truncated)


def _decode_duration_s(path: Path, stream: AudioStream) -> float:
    """Return the length of the samples of a stream that can be decoded. The file is opened again."""
    with open_input(path) as container:
        frames = FrameDecoder(container, container.streams[stream.index])  # type: ignore[arg-type]
        return sum(frame.samples / frame.sample_rate for frame in frames)


class PacketCounter:
    """Add up the time that the packets of one stream cover.

    Most packets continue where the previous one ended. Their timestamps are exact, while their durations are rounded
    to milliseconds in some containers (Matroska, ASF): three percent of an AC-3 stream. After a jump, as in joined
    files, another span begins.
    """

    def __init__(self, container: InputContainer, stream: AudioStream) -> None:
        self.end_position = 0
        """Offset of the end of the last packet in the file."""
        self.needs_decoding = False
        """Whether there is a packet without a time and a duration, as between joined FLAC files."""
        self._container, self._stream = container, stream
        self._base_s = float(stream.time_base) if stream.time_base is not None else 0.0
        self._finished_ticks, self._gaps_s = 0, 0.0
        self._first_pts: int | None = None

    @property
    def duration_s(self) -> float:
        return self._finished_ticks * self._base_s + self._gaps_s

    def read_all(self) -> bool:
        """Count all packets. Return whether the file could be read to its end."""
        try:
            self.read_until(math.inf)
        except FFmpegError:
            return False
        return True

    def read_until(self, position_s: float) -> Packet[AudioStream] | None:
        """Count the packets before a position. Return the first one after it, or None at the end.

        Raises:
            FFmpegError: The file cannot be read that far.
        """
        gap_detector = GapDetector(self._container)
        max_step = _MIN_GAP_S / self._base_s if self._base_s else 0.0
        max_ticks = _MAX_GAP_S / self._base_s if self._base_s else 0.0
        start, end, position, size, previous_pts, last_step = 0, 0, 0, 0, 0, 0
        is_first = True
        # The gap before the first packet is added to the position later.
        stop_ticks = position_s / self._base_s if self._base_s else math.inf
        try:
            for packet in self._container.demux(self._stream):
                pts, duration = packet.pts, packet.duration or 0
                if not 0 <= duration < max_ticks:
                    duration = last_step  # invalid positions in an Ogg file
                if packet.pos is not None:
                    position, size = packet.pos, packet.size
                if packet.is_discard:
                    continue  # left out by an edit list (MP4): it is decoded, but its samples are dropped
                if pts is None:
                    end += duration
                    self.needs_decoding = self.needs_decoding or (packet.size > 0 and not duration)
                    continue
                if is_first or not -max_step < pts - end < max_step:
                    self._first_pts = pts if self._first_pts is None else self._first_pts
                    self._finished_ticks += end - start
                    gap_s = gap_detector.measure_gap_s(pts * self._base_s, self.duration_s)
                    self._gaps_s += gap_s
                    if gap_s:
                        stop_ticks -= gap_s / self._base_s
                    start = end = pts
                    is_first = False
                else:
                    last_step = pts - previous_pts
                    # Packets that continue begin where the time stamp says.
                    if self._finished_ticks + pts - start > stop_ticks:
                        end = pts
                        return packet
                previous_pts = pts
                # The last packet of some containers has no duration.
                end = max(end, pts + (duration or last_step))
        finally:
            self._finished_ticks += end - start
            self.end_position = position + size
        return None

    def get_start_padding_s(self) -> float:
        """Return the seconds of the first packets that are padding of the encoder, which decoding leaves out."""
        start_time = self._stream.start_time
        if self._first_pts is None or start_time is None:
            return 0.0
        padding_s = (start_time - self._first_pts) * self._base_s
        return padding_s if 0 < padding_s <= _MAX_PADDING_S else 0.0


class GapDetector:
    """Find gaps between timestamps and the audio so far.

    Only containers with a timestamp for each packet are checked. Others derive times from the audio itself.
    """

    def __init__(self, container: InputContainer) -> None:
        self._has_timestamps = container.format.name.startswith(_TIMESTAMPED_DEMUXERS)
        # In a file with video, audio times count from the start of the video.
        has_video_origin = has_video(container) and container.start_time is not None
        self._origin_s: float | None = (container.start_time or 0) / _MICROSECONDS_PER_S if has_video_origin else None

    def measure_gap_s(self, pts_s: float | None, decoded_s: float) -> float:
        """Return the seconds missing before a frame with this timestamp."""
        if pts_s is None or not self._has_timestamps:
            return 0.0
        if self._origin_s is None:
            self._origin_s = pts_s - decoded_s
        gap_s = pts_s - self._origin_s - decoded_s
        return gap_s if _MIN_GAP_S <= gap_s <= _MAX_GAP_S else 0.0


def has_video(container: InputContainer) -> bool:
    """Return whether the container has moving video. FFmpeg lists cover pictures as video, too."""
    return any(not stream.disposition & Disposition.attached_pic for stream in container.streams.video)


def read_declared_duration_s(container: InputContainer, stream: AudioStream) -> float | None:
    """Return the duration that the container states or FFmpeg estimates from the bit rate: a hint."""
    if stream.duration is not None and stream.time_base is not None:
        duration_s = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration_s = container.duration / _MICROSECONDS_PER_S
        if container.format.name.startswith("matroska") and stream.start_time is not None and stream.time_base:
            # Matroska counts from zero, also if the audio starts later.
            duration_s -= float(stream.start_time * stream.time_base)
    else:
        return None
    return duration_s if duration_s > 0 else None


def is_shorter_than_declared(
    path: Path, container: InputContainer, stream: AudioStream, duration_s: float, end_position: int
) -> bool:
    """Return whether a Matroska file has less audio than it states, and other data where the audio should be.

    A program that downloads a file in parts gives it its size at the start, so the container looks complete. If the
    audio fills the file, the stated duration is wrong. The duration is that of the longest track, so a track that ends
    before another one is complete. In other formats, sizes and frames show it.

    Args:
        duration_s: The length of the audio that is present.
        end_position: Offset of the end of the last packet in the file.

    Raises:
        OSError: The file cannot be read.
    """
    if not container.format.name.startswith("matroska") or has_video(container):
        return False
    declared_s = read_declared_duration_s(container, stream)
    if declared_s is None:
        return False
    missing_s = max(_MISSING_AUDIO_S, _MISSING_AUDIO_RATIO * declared_s)
    if duration_s >= declared_s - missing_s:
        return False
    if len(container.streams) > 1:
        ends = _find_track_ends(path)
        end_s = ends[stream.index].end_s if stream.index in ends else 0.0
        if any(other.end_s > end_s + missing_s for other in ends.values()):
            return False
        end_position = max((end.position for end in ends.values()), default=end_position)
    size_bytes = path.stat().st_size
    return size_bytes - end_position > _INDEX_RATIO * size_bytes


class _TrackEnd(NamedTuple):
    """Timestamp of the last packet of a track, and the offset of its end in the file."""

    end_s: float
    position: int


def _find_track_ends(path: Path) -> dict[int, _TrackEnd]:
    """Return where each track ends, by the index of its stream."""
    ends: dict[int, _TrackEnd] = {}
    with open_input(path) as container:
        try:
            for packet in container.demux():
                if packet.pts is None or packet.pos is None or packet.time_base is None:
                    continue
                last = ends.get(packet.stream_index, _TrackEnd(0.0, 0))
                end_s, position = float(packet.pts * packet.time_base), packet.pos + packet.size
                ends[packet.stream_index] = _TrackEnd(max(last.end_s, end_s), max(last.position, position))
        except FFmpegError:
            pass  # the rest of the file is no audio
    return ends


def has_all_audio(path: Path, duration_s: float, end_position: int) -> bool:
    """Return whether a recording that FFmpeg cannot read to its end has no more audio than was read.

    FFmpeg reports an error for bytes after the last frame of AAC or after the last packet of a transport stream.

    Args:
        duration_s: The length of the audio that was read.
        end_position: Offset of the end of the last packet in the file.

    Raises:
        OSError: The file cannot be read.
    """
    report = check_recording(path)
    if report.is_cut_off:
        return False
    if report.duration_s is not None:
        return duration_s >= report.duration_s - _MAX_PADDING_S
    size_bytes = path.stat().st_size
    return size_bytes - end_position <= min(_INDEX_RATIO * size_bytes, _MAX_EXTRA_BYTES)
