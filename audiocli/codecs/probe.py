"""Inspect a recording without decoding it."""

from __future__ import annotations

import math
from pathlib import Path

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from ..audio.formats import find_format, looks_like_text, parse_wav_duration_s, sniff_format
from ..audio.mpeg import parse_gapless_info, parse_id3_size, parse_mpeg_header
from ..audio.signatures import SNIFF_BYTES
from ..audio.wav import WAV_PROBE_BYTES, parse_declared_wav_duration_s
from ..errors import RecordingError
from ..types.audio import Recording
from .packet_index import list_copyable_formats
from .pyav import describe_error, find_audio_stream, open_input

# Durations in headers are off by a frame or two, some by a little more.
TRUNCATION_TOLERANCE_S, TRUNCATION_TOLERANCE_RATIO = 0.5, 0.02

_MICROSECONDS_PER_S = 1_000_000

# FFmpeg's demuxers detect more formats than `sniff_format`. The names of these demuxers are not our format names.
_FORMATS_BY_DEMUXER = {"mov": "mp4", "matroska": "mkv", "mpegts": "ts", "asf": "wma"}
# The headers of these formats state the duration. For others it is estimated from the file size.
_FORMATS_WITH_DURATION = frozenset({"flac", "m4a", "mp4", "mov", "mkv", "webm", "wma", "aiff", "caf"})


def probe(path: Path) -> Recording:
    """Return the format (by content, not by name), size and duration of a recording, and whether it has video.

    The duration is the container's: exact for most formats, an estimate for MP3 and AAC without a header, too long for
    a truncated file.

    Raises:
        RecordingError: The file is empty, not audio, or has no audio track.
        OSError: The file cannot be read.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(WAV_PROBE_BYTES)
    sniffed = sniff_format(head[:SNIFF_BYTES])
    if (
        sniffed is not None
        and sniffed.name == "wav"
        and (duration_s := parse_wav_duration_s(head, size_bytes)) is not None
    ):
        if not duration_s:
            raise RecordingError(f"{path}: the WAV file has no samples")
        return Recording(path, "wav", size_bytes, duration_s)
    with open_recording(path) as container:
        stream = select_audio_track(path, container)
        return Recording(
            path=path,
            format=sniffed.name if sniffed is not None else _identify_demuxer_format(path, container),
            size_bytes=size_bytes,
            duration_s=read_declared_duration_s(container, stream),
            has_video=has_video(container),
        )


def open_recording(path: Path) -> InputContainer:
    """Open a recording with FFmpeg.

    Raises:
        RecordingError: The file is not a recording.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(SNIFF_BYTES)
    if not head:
        raise RecordingError(f"{path}: the file is empty")
    # A playlist is text too, and FFmpeg would open the files and URLs in it.
    if looks_like_text(head) and sniff_format(head) is None:
        raise RecordingError(f"{path}: the file is text, not audio")
    try:
        return open_input(path)
    except FFmpegError as error:
        raise RecordingError(f"{path}: not a supported recording: {describe_error(error)}") from error


def select_audio_track(path: Path, container: InputContainer) -> AudioStream:
    """Return the audio track to decode.

    Raises:
        RecordingError: There is none that can be decoded.
    """
    stream = find_audio_stream(container)
    if stream is None:
        raise RecordingError(f"{path}: no audio track that can be decoded")
    return stream


def has_video(container: InputContainer) -> bool:
    """Return whether the container has moving video. FFmpeg lists cover pictures as video, too."""
    return any(not stream.disposition & Disposition.attached_pic for stream in container.streams.video)


def probe_copyable_formats(path: Path) -> tuple[str, ...]:
    """Return the formats into which packets may be copied. A scan may still rule them out.

    Raises:
        RecordingError: The file is not a recording.
        OSError: The file cannot be read.
    """
    with open_recording(path) as container:
        codec = select_audio_track(path, container).codec_context
        return list_copyable_formats(path, container.format.name, codec.name, codec.profile)


def read_declared_duration_s(container: InputContainer, stream: AudioStream) -> float | None:
    """Return the duration that the container states or FFmpeg estimates."""
    if stream.duration is not None and stream.time_base is not None:
        duration_s = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration_s = container.duration / _MICROSECONDS_PER_S
    else:
        return None
    return duration_s if duration_s > 0 else None


def read_reliable_duration_s(path: Path, container: InputContainer, stream: AudioStream) -> float | None:
    """Return the duration that the file itself states, or None.

    Less audio than this means that the file is truncated.
    """
    with path.open("rb") as file:
        head = file.read(WAV_PROBE_BYTES)
    sniffed = sniff_format(head[:SNIFF_BYTES])
    if sniffed is None or (sniffed.name == "mp3" and not _has_frame_count(path)):
        return None
    if sniffed.name == "wav":
        # FFmpeg uses the file size instead.
        return parse_declared_wav_duration_s(head)
    if sniffed.name != "mp3" and sniffed.name not in _FORMATS_WITH_DURATION:
        return None
    if has_video(container) and _is_container_duration(container, stream):
        return None
    return read_declared_duration_s(container, stream)


def _is_container_duration(container: InputContainer, stream: AudioStream) -> bool:
    """Return whether the duration of the audio stream is that of the container.

    FFmpeg copies the container's duration if the stream has none.
    """
    if stream.duration is None or stream.time_base is None or container.duration is None:
        return True
    stream_s = float(stream.duration * stream.time_base)
    return math.isclose(stream_s, container.duration / _MICROSECONDS_PER_S, abs_tol=0.01)


def find_truncation_s(path: Path) -> float | None:
    """Return the actual duration of a truncated recording, or None if it is not truncated.

    Counts packets without decoding them: an hour takes about a second.

    Raises:
        RecordingError: The file is not a recording.
        OSError: The file cannot be read.
    """
    with open_recording(path) as container:
        stream = select_audio_track(path, container)
        declared_s = read_reliable_duration_s(path, container, stream)
        if declared_s is None or stream.time_base is None:
            return None
        end_pts = 0
        try:
            for packet in container.demux(stream):
                if packet.pts is not None:
                    end_pts = max(end_pts, packet.pts + (packet.duration or 0))
        except FFmpegError:
            pass  # expected: the recording ends here
        present_s = float((end_pts - (stream.start_time or 0)) * stream.time_base)
    return (
        present_s
        if present_s < declared_s - max(TRUNCATION_TOLERANCE_S, TRUNCATION_TOLERANCE_RATIO * declared_s)
        else None
    )


def _has_frame_count(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(parse_id3_size(file.read(10)))
        head = file.read(4096)
    frame = parse_mpeg_header(head)
    info = parse_gapless_info(head[: frame.size_bytes]) if frame is not None else None
    return info is not None and bool(info.frame_count)


def _identify_demuxer_format(path: Path, container: InputContainer) -> str:
    names = container.format.name.split(",")
    format_names = (
        format.name for name in names if (format := find_format(_FORMATS_BY_DEMUXER.get(name, name))) is not None
    )
    return next(format_names, path.suffix.lower().removeprefix(".") or names[0])
