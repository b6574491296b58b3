"""Inspect a recording without decoding it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from ..audio.byte_reader import IntegrityReport
from ..audio.formats import find_format, looks_like_text, parse_wav_duration_s, sniff_format
from ..audio.integrity import check_recording
from ..audio.signatures import SNIFF_BYTES
from ..audio.wav import WAV_PROBE_BYTES, parse_declared_wav_duration_s
from ..errors import RecordingError
from ..types.audio import Recording
from .pyav import describe_error, find_audio_stream, open_input

# Durations in headers are off by a frame or two, some by a little more.
TRUNCATION_TOLERANCE_S, TRUNCATION_TOLERANCE_RATIO = 0.5, 0.02

_MICROSECONDS_PER_S = 1_000_000

# FFmpeg's demuxers detect more formats than `sniff_format`. The names of these demuxers are not our format names.
_FORMATS_BY_DEMUXER = {"mov": "mp4", "matroska": "mkv", "mpegts": "ts", "asf": "wma"}
# The headers of these formats state the duration. For others it is estimated from the file size.
_FORMATS_WITH_DURATION = frozenset({"flac", "m4a", "mp4", "mov", "mkv", "webm", "wma", "aiff", "caf"})
_MP4_FORMATS = frozenset({"m4a", "mp4", "mov"})


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
    with translate_codec_errors(path), open_recording(path) as container:
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
        sniffed = sniff_format(head)
        if sniffed is not None and check_recording(path).problem == "truncated":
            if sniffed.name in _MP4_FORMATS:
                raise RecordingError(f"{path}: not finished: the index (moov) is missing") from error
            raise RecordingError(
                f"{path}: truncated or damaged: no audio before the end of the {sniffed.name} file"
            ) from error
        raise RecordingError(f"{path}: not a supported recording: {describe_error(error)}") from error


@contextmanager
def translate_codec_errors(path: Path) -> Iterator[None]:
    """Report what FFmpeg raises for a damaged recording as an error of the recording.

    A damaged header may state sizes that no memory holds, and parameters that FFmpeg's filters reject.

    Raises:
        RecordingError: The recording cannot be decoded.
    """
    try:
        yield
    except FFmpegError as error:
        raise RecordingError(f"{path}: the recording is damaged: {describe_error(error)}") from error
    except MemoryError as error:
        raise RecordingError(f"{path}: the recording is damaged, or needs more memory than there is") from error


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
    """Return the duration that the header of the file states, or None.

    Less audio than this means that the file is truncated or damaged. The duration of an MP3 is not reliable: the header
    of the first file remains when files are joined.
    """
    with path.open("rb") as file:
        head = file.read(WAV_PROBE_BYTES)
    sniffed = sniff_format(head[:SNIFF_BYTES])
    if sniffed is None:
        return None
    if sniffed.name == "wav":
        # FFmpeg uses the file size instead.
        return parse_declared_wav_duration_s(head)
    if sniffed.name not in _FORMATS_WITH_DURATION or (
        has_video(container) and _is_container_duration(container, stream)
    ):
        return None
    duration_s = read_declared_duration_s(container, stream)
    if duration_s is not None and container.format.name.startswith("matroska") and stream.start_time is not None:
        # Matroska counts from zero, also if the audio starts later.
        duration_s -= float(stream.start_time * stream.time_base) if stream.time_base is not None else 0.0
    return duration_s


def _is_container_duration(container: InputContainer, stream: AudioStream) -> bool:
    """Return whether the duration of the audio stream is that of the container.

    FFmpeg copies the container's duration if the stream has none.
    """
    if stream.duration is None or stream.time_base is None or container.duration is None:
        return True
    stream_s = float(stream.duration * stream.time_base)
    return math.isclose(stream_s, container.duration / _MICROSECONDS_PER_S, abs_tol=0.01)


def is_cut_off(report: IntegrityReport) -> bool:
    """Return whether a recording ends too early. Unlike a stream of a gateway, a recording has its end mark."""
    return report.problem == "truncated" or report.is_unfinished


def find_truncation_s(path: Path) -> float | None:
    """Return the actual duration of a truncated recording, or None if it is not truncated.

    The structure of the file tells, or a header that states a longer duration. Counts packets without decoding them: an
    hour takes about a second.

    Raises:
        RecordingError: The file is not a recording.
        OSError: The file cannot be read.
    """
    is_cut = is_cut_off(check_recording(path))
    with translate_codec_errors(path), open_recording(path) as container:
        stream = select_audio_track(path, container)
        declared_s = read_reliable_duration_s(path, container, stream)
        if (declared_s is None and not is_cut) or stream.time_base is None:
            return 0.0 if is_cut else None
        end_pts = 0
        try:
            for packet in container.demux(stream):
                if packet.pts is not None:
                    end_pts = max(end_pts, packet.pts + (packet.duration or 0))
        except FFmpegError:
            pass  # expected: the recording ends here
        present_s = max(float((end_pts - (stream.start_time or 0)) * stream.time_base), 0.0)
    if is_cut or declared_s is None:
        return present_s if is_cut else None
    tolerance_s = max(TRUNCATION_TOLERANCE_S, TRUNCATION_TOLERANCE_RATIO * declared_s)
    return present_s if present_s < declared_s - tolerance_s else None


def _identify_demuxer_format(path: Path, container: InputContainer) -> str:
    names = container.format.name.split(",")
    format_names = (
        format.name for name in names if (format := find_format(_FORMATS_BY_DEMUXER.get(name, name))) is not None
    )
    return next(format_names, path.suffix.lower().removeprefix(".") or names[0])
