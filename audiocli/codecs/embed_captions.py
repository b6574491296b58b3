"""Copy a video with captions as one more track. Video and audio are not encoded again."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream

from ..errors import OutputError, RecordingError
from .convert import MAX_STEP_S
from .length import has_video
from .probe import open_recording, translate_codec_errors
from .pyav import describe_error

_MILLISECONDS = Fraction(1, 1000)
_COPIED_TYPES = frozenset({"video", "audio", "subtitle"})


class EmbeddedCue(NamedTuple):
    """One caption, with times in seconds from the start of the video."""

    start_s: float
    end_s: float
    text: str


class VideoContainer(NamedTuple):
    """A container for a video with captions: FFmpeg's muxer, and its caption codec.

    `needs_bibliographic_code`: languages are codes of ISO 639-2/B (Matroska specification; FFmpeg for QuickTime).
    """

    muxer: str
    codec: str
    needs_bibliographic_code: bool = False


MP4 = VideoContainer("mp4", "mov_text")
MOV = VideoContainer("mov", "mov_text", needs_bibliographic_code=True)
MATROSKA = VideoContainer("matroska", "subrip", needs_bibliographic_code=True)


def embed_captions(
    source: Path,
    target: BinaryIO,
    container: VideoContainer,
    cues: Sequence[EmbeddedCue],
    *,
    language: str | None = None,
) -> Generator[float, None, None]:
    """Copy all tracks of a video to `target`, with the cues as a new track. Each step yields the seconds done.

    Args:
        target: A seekable file.
        language: Code of ISO 639-2 of the captions.

    Raises:
        RecordingError: The source cannot be read, or has no video.
        OutputError: The container cannot hold a track of the source.
        OSError: The target cannot be written.
    """
    with translate_codec_errors(source), open_recording(source) as input_container:
        if not has_video(input_container):
            raise RecordingError(f"{source}: no video to write captions into")
        try:
            with av.open(target, "w", format=container.muxer) as output:
                yield from _copy(input_container, output, container, cues, language)
        except (FFmpegError, ValueError) as error:
            reason = describe_error(error) if isinstance(error, FFmpegError) else str(error)
            raise OutputError(
                f"cannot write captions into {source}: {reason}", hint="use -f srt for a file of captions"
            ) from error


def _copy(
    source: InputContainer,
    output: OutputContainer,
    container: VideoContainer,
    cues: Sequence[EmbeddedCue],
    language: str | None,
) -> Generator[float, None, None]:
    output.metadata.update(source.metadata)
    streams = _add_streams(source, output)
    captions = output.add_mux_stream(container.codec, time_base=_MILLISECONDS)
    if language is not None:
        captions.metadata["language"] = language
    chapters = source.chapters()
    if chapters:
        output.set_chapters(chapters)
    # Times of captions count from the start of the video, which need not be zero.
    origin_ms = round((source.start_time or 0) / 1000)
    pending = [_build_packet(cue, container, origin_ms) for cue in cues]
    pending.reverse()
    step_start = time.perf_counter()
    for packet in source.demux():
        position_s = 0.0 if packet.dts is None or packet.time_base is None else float(packet.dts * packet.time_base)
        target_stream = streams.get(packet.stream.index)
        if packet.dts is None or target_stream is None:
            continue
        while pending and (pending[-1].dts or 0) / 1000 <= position_s:
            _mux(output, pending.pop(), captions)
        packet.stream = target_stream
        output.mux(packet)
        if time.perf_counter() - step_start >= MAX_STEP_S:
            yield position_s
            step_start = time.perf_counter()
    while pending:
        _mux(output, pending.pop(), captions)


def _mux(output: OutputContainer, packet: Packet[Stream], stream: Stream) -> None:
    packet.stream = stream
    output.mux(packet)


def _add_streams(source: InputContainer, output: OutputContainer) -> dict[int, Stream]:
    """Add a copy of each track, and return them by the index of the source."""
    streams: dict[int, Stream] = {}
    for stream in source.streams:
        if stream.type not in _COPIED_TYPES or getattr(stream, "codec_context", None) is None:
            continue
        try:
            copy = output.add_stream_from_template(stream)
        except (FFmpegError, ValueError):
            if stream.type != "subtitle":
                raise
            continue  # captions of another kind, which this container cannot hold
        copy.metadata.update(stream.metadata)
        copy.disposition = stream.disposition
        streams[stream.index] = copy
    return streams


def _build_packet(cue: EmbeddedCue, container: VideoContainer, origin_ms: int) -> Packet[Stream]:
    """Build the packet of a cue by hand: the encoder of mov_text does not open without an ASS header (PyAV 18.1)."""
    text = cue.text.encode("utf-8", "replace")
    if container.codec == "mov_text":
        text = text[:0xFFFF].decode("utf-8", "ignore").encode()
        text = len(text).to_bytes(2, "big") + text
    packet: Packet[Stream] = Packet(text)
    packet.pts = packet.dts = origin_ms + round(cue.start_s * 1000)
    packet.duration = max(round((cue.end_s - cue.start_s) * 1000), 1)
    packet.time_base = _MILLISECONDS
    return packet
