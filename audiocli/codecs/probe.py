"""Inspect a recording without decoding it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError

from ..audio.formats import find_format, looks_like_text, sniff_format
from ..audio.integrity import check_recording, probe_wav, read_stated_duration_s
from ..audio.signatures import SNIFF_BYTES
from ..audio.wav import WAV_PROBE_BYTES, parse_wav_duration_s
from ..errors import RecordingError
from ..types.audio import AudioTrack, Recording
from .length import has_video, measure_length, read_declared_duration_s
from .pyav import describe_error, find_audio_stream, open_input

# FFmpeg's demuxers detect more formats than `sniff_format`. The names of these demuxers are not our format names.
_FORMATS_BY_DEMUXER = {"mov": "mp4", "matroska": "mkv", "mpegts": "ts", "asf": "wma"}
_DEFAULT_HANDLER_NAMES = frozenset({"soundhandler", "coremediaaudio", "soundmediahandler", "iso-media"})
_MP4_FORMATS = frozenset({"m4a", "m4b", "mp4", "mov"})


def probe(path: Path, track: int | None = None) -> Recording:
    """Return the format (by content, not by name), size and length of a recording, and whether it has video.

    `track` is the number of the audio track to measure, from 1; None is the one that a player chooses.

    The length is measured, not declared (`length.measure_length`), so the file is read once.

    Raises:
        RecordingError: The file is empty, not audio, or has no audio.
        OSError: The file cannot be read.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(WAV_PROBE_BYTES)
    recording = probe_wav(path, head, size_bytes)
    if recording is not None and track in (None, 1):
        if not recording.duration_s:
            raise RecordingError(f"{path}: the WAV file has no samples")
        return recording
    sniffed = sniff_format(head[:SNIFF_BYTES])
    with translate_codec_errors(path), open_recording(path) as container:
        stream = select_audio_track(path, container, track)
        length = measure_length(path, container, stream)
        if not length.duration_s:
            raise RecordingError(f"{path}: the audio track has no audio")
        return Recording(
            path=path,
            format=sniffed.name if sniffed is not None else _identify_demuxer_format(path, container),
            size_bytes=size_bytes,
            duration_s=length.duration_s,
            has_video=has_video(container),
            is_duration_exact=length.is_exact,
            is_truncated=length.is_truncated,
        )


class LengthUnknown(Exception):
    """The headers of a recording do not state its length."""


def probe_reader(file: BinaryIO, path: Path, size_bytes: int, track: int | None = None) -> Recording:
    """Return the format and the length of a recording from its headers, without reading all of it.

    Except for WAV, the length is the one that the file states, so it is an estimate. `path` serves for messages.

    Raises:
        LengthUnknown: The headers do not state the length.
        RecordingError: The file is empty, not audio, or has no audio.
    """
    head = file.read(WAV_PROBE_BYTES)
    if not head:
        raise RecordingError(f"{path}: the file is empty")
    sniffed = sniff_format(head[:SNIFF_BYTES])
    if sniffed is not None and sniffed.name == "wav" and track in (None, 1):
        duration_s = parse_wav_duration_s(head, size_bytes)
        if duration_s:
            return Recording(path, "wav", size_bytes, duration_s)
    if looks_like_text(head) and sniffed is None:
        raise RecordingError(f"{path}: the file is text, not audio")
    if sniffed is not None and sniffed.name in _MP4_FORMATS and track is None:
        # FFmpeg would read the table of samples: 1.3 MB for two hours.
        duration_s = read_stated_duration_s(file, size_bytes, sniffed.name)
        if duration_s:
            return Recording(path, sniffed.name, size_bytes, duration_s, is_duration_exact=False)
    file.seek(0)
    with translate_codec_errors(path), open_input(file) as container:
        stream = select_audio_track(path, container, track)
        declared_s = read_declared_duration_s(container, stream)
        if not declared_s:
            raise LengthUnknown
        return Recording(
            path=path,
            format=sniffed.name if sniffed is not None else _identify_demuxer_format(path, container),
            size_bytes=size_bytes,
            duration_s=declared_s,
            has_video=has_video(container),
            is_duration_exact=False,
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
        raise RecordingError(f"{path}: the recording is damaged, or needs more memory than is available") from error


def select_audio_track(path: Path, container: InputContainer, track: int | None = None) -> AudioStream:
    """Return the audio track to decode: the one with this number, else the one that a player would choose.

    Raises:
        RecordingError: There is none that can be decoded.
    """
    stream = find_audio_stream(container, track)
    if stream is None:
        name = "no audio track" if track is None else f"audio track {track} does not exist, or is not one"
        raise RecordingError(f"{path}: {name} that can be decoded")
    return stream


def list_tracks(path: Path) -> tuple[AudioTrack, ...]:
    """Return the audio tracks of a recording, from its headers. Durations are those that the file states.

    Raises:
        RecordingError: Not a recording, or it has no audio.
        OSError: The file cannot be read.
    """
    with translate_codec_errors(path), open_recording(path) as container:
        default = select_audio_track(path, container)
        return tuple(
            AudioTrack(
                number=number,
                codec=stream.codec_context.name if stream.codec_context is not None else "unknown",
                language=_read_language(stream),
                title=stream.metadata.get("title") or _read_handler_name(stream),
                channels=stream.codec_context.layout.nb_channels if stream.codec_context is not None else 0,
                sample_rate_hz=(stream.codec_context.sample_rate or 0) if stream.codec_context is not None else 0,
                duration_s=read_declared_duration_s(container, stream),
                is_default=stream.index == default.index,
            )
            for number, stream in enumerate(container.streams.audio, 1)
        )


def _read_language(stream: AudioStream) -> str | None:
    language = stream.language or stream.metadata.get("language")
    return None if language in (None, "", "und", "mis", "zxx", "mul") else language


def _read_handler_name(stream: AudioStream) -> str | None:
    """Return the name of an MP4 track. Programs write a default name where the user gives none."""
    name = stream.metadata.get("handler_name")
    return None if not name or name.lower().replace(" ", "") in _DEFAULT_HANDLER_NAMES else name


def _identify_demuxer_format(path: Path, container: InputContainer) -> str:
    names = container.format.name.split(",")
    format_names = (
        format.name for name in names if (format := find_format(_FORMATS_BY_DEMUXER.get(name, name))) is not None
    )
    return next(format_names, path.suffix.lower().removeprefix(".") or names[0])
