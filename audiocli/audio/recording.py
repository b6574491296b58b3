"""Recordings on disk: what is in them, whether one hears anything, and their sound in another format.

Long work comes as iterators whose steps take about 50 ms of processor time at most, so that a caller can run each step
in a thread and leave between two. Nothing here may be stepped by two threads at once; different files may.
"""

from __future__ import annotations

import array
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from ..errors import RecordingError
from ..vocabulary import Pcm, Recording
from .encoder import Encoder
from .formats import looks_like_text, named, sniff, wav_duration
from .frames import gapless, id3_bytes, mpeg_frame
from .libav import Frames, ToSamples, best_audio, open_input, reason
from .wavfile import HEAD_BYTES

_SLICE_S = 0.03
_PIECE_S = 0.25
_GAP_S = 0.25
_LONGEST_GAP_S = 600.0
_MICROSECONDS = 1_000_000

# libav's names of demuxers for what `sniff` cannot tell, best guess first.
_OF_DEMUXER = {"mov": "mp4", "matroska": "mkv", "mpegts": "ts", "asf": "wma", "mp3": "mp3", "aac": "aac", "ogg": "ogg"}
# The headers of these tell how long the sound is, rather than how long a file of this size may be.
_TELLS_DURATION = frozenset({"wav", "flac", "m4a", "mp4", "mov", "mkv", "webm", "wma", "aiff", "caf"})


def probe(path: Path) -> Recording:
    """Look into a recording without decoding it.

    The duration is the container's: exact for most, an estimate for an mp3 without a header frame, and too long for a
    file that was cut. Raises: RecordingError (empty, not audio, no sound in it), OSError (cannot be read).
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    _refuse_at_sight(path, head)
    found = sniff(head)
    if found is not None and found.name == "wav" and (duration_s := wav_duration(head, size_bytes)) is not None:
        if not duration_s:
            raise RecordingError(f"{path}: a WAV file without samples")
        return Recording(path, "wav", size_bytes, duration_s, codec="pcm")
    with _opened(path) as container:
        stream = _audio(path, container)
        return Recording(
            path=path,
            format=found.name if found is not None else _of_demuxer(path, container),
            size_bytes=size_bytes,
            duration_s=_declared_s(container, stream),
            has_video=_has_video(container),
            codec=stream.codec_context.name,
        )


def _refuse_at_sight(path: Path, head: bytes) -> None:
    if not head:
        raise RecordingError(f"{path}: the file is empty")
    if looks_like_text(head[:64]) and sniff(head) is None:
        raise RecordingError(f"{path}: this is text, not audio")


def _opened(path: Path) -> InputContainer:
    try:
        return open_input(path)
    except FFmpegError as error:
        if isinstance(error, OSError) and error.errno and error.errno > 0 and not path.is_file():
            raise
        raise RecordingError(f"{path}: not a recording that can be read: {reason(error)}") from error


def _audio(path: Path, container: InputContainer) -> AudioStream:
    stream = best_audio(container)
    if stream is None:
        raise RecordingError(f"{path}: there is no audio track in it that can be decoded")
    return stream


def _has_video(container: InputContainer) -> bool:
    """Cover pictures are video streams to libav, but not to anybody else."""
    return any(not stream.disposition & Disposition.attached_pic for stream in container.streams.video)


def _of_demuxer(path: Path, container: InputContainer) -> str:
    for name in container.format.name.split(","):
        if row := named(_OF_DEMUXER.get(name, name)):
            return row.name
    return path.suffix.lower().removeprefix(".") or container.format.name.split(",")[0]


def _declared_s(container: InputContainer, stream: AudioStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        duration_s = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration_s = container.duration / _MICROSECONDS
    else:
        return None
    return duration_s if duration_s > 0 else None


class Sound:
    """The samples of a recording, in slices of a quarter of a second or more, in the shape that was asked for.

    Stretches that are missing inside the recording (lost packets, a track that starts late) are silence here, so that
    positions are true times. A recording that breaks off is read up to there; `complete` is False then. `seconds` is
    how much has been yielded. Raises, from the first step on: RecordingError, OSError.
    """

    def __init__(self, source: Path, sample_rate_hz: int, channels: int) -> None:
        self.pcm = Pcm(sample_rate_hz, channels)
        self.complete = True
        self._bytes = 0
        self._source = source
        self._slices = self._read()

    @property
    def seconds(self) -> float:
        return self._bytes / self.pcm.bytes_per_second

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._slices)

    def close(self) -> None:
        """Stop reading and close the file."""
        self._slices.close()

    def _read(self):  # type: ignore[no-untyped-def]
        ...


def samples(source: Path, *, sample_rate_hz: int = 16_000, channels: int = 1) -> Sound:
    """Read a recording as s16le samples of one shape, gapless."""
    return Sound(source, sample_rate_hz, channels)
