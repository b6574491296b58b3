"""Look into a recording without decoding it."""

from __future__ import annotations

import math
from pathlib import Path

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from ..audio.formats import looks_like_text, named, sniff, wav_duration
from ..audio.mpeg import gapless, id3_bytes, mpeg_frame
from ..audio.signatures import HEAD_BYTES as MAGIC_BYTES
from ..audio.wav import HEAD_BYTES, wav_promise
from ..errors import RecordingError
from ..types.values import Recording
from .packet_index import copied_formats
from .pyav import best_audio, open_input, reason

# Headers are off by a frame or two, and some by a little more.
BREAK_S, BREAK_SHARE = 0.5, 0.02

_MICROSECONDS = 1_000_000

# What `sniff` cannot tell, libav's demuxers can; these are named otherwise there.
_OF_DEMUXER = {"mov": "mp4", "matroska": "mkv", "mpegts": "ts", "asf": "wma"}
# The headers of these formats tell how long the sound is. The others have theirs reckoned from the size of the file.
_TELLS_DURATION = frozenset({"flac", "m4a", "mp4", "mov", "mkv", "webm", "wma", "aiff", "caf"})


def probe(path: Path) -> Recording:
    """Tell what is in a recording: format (by content, never by name), size, duration, picture.

    The duration is the container's: exact for most, an estimate for mp3 and aac without a header, too long for a file
    that was cut. Raises: RecordingError (empty, not audio, no sound in it), OSError (cannot be read).
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    found = sniff(head[:MAGIC_BYTES])
    if found is not None and found.name == "wav" and (duration_s := wav_duration(head, size_bytes)) is not None:
        if not duration_s:
            raise RecordingError(f"{path}: a WAV file without samples")
        return Recording(path, "wav", size_bytes, duration_s)
    with opened(path) as container:
        stream = audio_track(path, container)
        return Recording(
            path=path,
            format=found.name if found is not None else _of_demuxer(path, container),
            size_bytes=size_bytes,
            duration_s=declared_s(container, stream),
            has_video=has_video(container),
        )


def opened(path: Path) -> InputContainer:
    """Open a recording. Raises: RecordingError (no recording), OSError (cannot be read)."""
    with path.open("rb") as file:
        head = file.read(MAGIC_BYTES)
    if not head:
        raise RecordingError(f"{path}: the file is empty")
    # A playlist is text too, and libav would follow it wherever it leads.
    if looks_like_text(head) and sniff(head) is None:
        raise RecordingError(f"{path}: this is text, not a recording")
    try:
        return open_input(path)
    except FFmpegError as error:
        raise RecordingError(f"{path}: not a recording that can be read: {reason(error)}") from error


def audio_track(path: Path, container: InputContainer) -> AudioStream:
    """Choose the track to listen to. Raises: RecordingError."""
    stream = best_audio(container)
    if stream is None:
        raise RecordingError(f"{path}: there is no audio track in it that can be decoded")
    return stream


def has_video(container: InputContainer) -> bool:
    """Tell whether there is a picture that moves: libav lists cover pictures as video too."""
    return any(not stream.disposition & Disposition.attached_pic for stream in container.streams.video)


def copyable_formats(path: Path) -> tuple[str, ...]:
    """Name what its packets may be copied into; hearing it may tell that they cannot. Raises: as `opened`."""
    with opened(path) as container:
        codec = audio_track(path, container).codec_context
        return copied_formats(path, container.format.name, codec.name, codec.profile)


def declared_s(container: InputContainer, stream: AudioStream) -> float | None:
    """Return the length that the container gives or libav estimates."""
    if stream.duration is not None and stream.time_base is not None:
        duration_s = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration_s = container.duration / _MICROSECONDS
    else:
        return None
    return duration_s if duration_s > 0 else None


def promised_s(path: Path, container: InputContainer, stream: AudioStream) -> float | None:
    """Return the length that the file itself promises; less sound than that means that it broke off."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    found = sniff(head[:MAGIC_BYTES])
    if found is None or (found.name == "mp3" and not _has_header_frame(path)):
        return None
    if found.name == "wav":
        # libav believes the size of the file instead.
        return wav_promise(head)
    if found.name != "mp3" and found.name not in _TELLS_DURATION:
        return None
    if has_video(container) and _is_the_pictures(container, stream):
        return None
    return declared_s(container, stream)


def _is_the_pictures(container: InputContainer, stream: AudioStream) -> bool:
    """Tell whether the length of the sound is none of its own: libav gives it that of the whole file then."""
    if stream.duration is None or stream.time_base is None or container.duration is None:
        return True
    own_s = float(stream.duration * stream.time_base)
    return math.isclose(own_s, container.duration / _MICROSECONDS, abs_tol=0.01)


def break_s(path: Path) -> float | None:
    """Tell where a recording breaks off: how long it is, if that is less than it promises; None: it does not.

    The packets are counted, not decoded: an hour takes about a second. Raises: RecordingError, OSError.
    """
    with opened(path) as container:
        stream = audio_track(path, container)
        promise_s = promised_s(path, container, stream)
        if promise_s is None or stream.time_base is None:
            return None
        end = 0
        try:
            for packet in container.demux(stream):
                if packet.pts is not None:
                    end = max(end, packet.pts + (packet.duration or 0))
        except FFmpegError:
            pass  # a broken end is what is looked for
        there_s = float((end - (stream.start_time or 0)) * stream.time_base)
    return there_s if there_s < promise_s - max(BREAK_S, BREAK_SHARE * promise_s) else None


def _has_header_frame(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(id3_bytes(file.read(10)))
        head = file.read(4096)
    frame = mpeg_frame(head)
    told = gapless(head[: frame.size_bytes]) if frame is not None else None
    return told is not None and bool(told.frames)


def _of_demuxer(path: Path, container: InputContainer) -> str:
    names = container.format.name.split(",")
    known = (row.name for name in names if (row := named(_OF_DEMUXER.get(name, name))) is not None)
    return next(known, path.suffix.lower().removeprefix(".") or names[0])
