"""Write tags, chapters and a cover into a copy of an audio file. Packets are copied, so no sample changes."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Generator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition

from ..audio.tags import (
    AudioTags,
    Cover,
    build_chapter_comments,
    build_picture_comment,
    clean_tag,
    supports_chapters,
    supports_cover,
    supports_tags,
)
from ..errors import OutputError, RecordingError
from ..text.iso_639 import convert_to_iso_639_2
from .convert import MAX_STEP_S
from .encoder import MuxerOutput
from .pyav import describe_error, find_audio_stream, open_input

_MILLISECOND = Fraction(1, 1000)
# The boxes of an MP4 index without its tables, and the tags.
_INDEX_HEADER_BYTES = 16_384
# Apple's books app files a recording under audiobooks by its kind of media.
_AUDIOBOOK_KIND = "2"


class _Container(NamedTuple):
    """How a format is written.

    `muxer` and `options` are FFmpeg's. `has_comments`: chapters are Vorbis comments. `has_cover_stream`: the cover is a
    stream of its own, otherwise a comment. `needs_iso_639_2`: the language is a code of three letters.
    """

    muxer: str
    options: Mapping[str, str]
    has_comments: bool = False
    has_cover_stream: bool = True
    needs_iso_639_2: bool = False


# The muxer "ipod", which writes .m4a without tags, refuses covers. FFmpeg 8 writes the chapters of Ogg at wrong times
# (1.5 s becomes 2.5 s) and drops those of FLAC, so both get comments.
_CONTAINERS = {
    "mp3": _Container("mp3", {"id3v2_version": "3"}, needs_iso_639_2=True),
    "m4a": _Container("mp4", {"brand": "M4A "}, needs_iso_639_2=True),
    "m4b": _Container("mp4", {"brand": "M4B "}, needs_iso_639_2=True),
    "opus": _Container("ogg", {}, has_comments=True, has_cover_stream=False),
    "ogg": _Container("ogg", {}, has_comments=True, has_cover_stream=False),
    "flac": _Container("flac", {}, has_comments=True),
    # Above 4 GiB the sizes of a WAV need 64 bits.
    "wav": _Container("wav", {"rf64": "auto"}, has_cover_stream=False),
}


class TagWriting:
    """Write a copy of an audio file with tags. Every step takes at most about 50 ms and yields the bytes copied.

    The target is complete after the last step. `warnings` has what the format cannot carry, and a cover that cannot be
    read, from the first step on.

    Raises:
        RecordingError: The source is not a recording.
        OutputError: FFmpeg cannot write the copy.
        OSError: Reading or writing a file failed.
    """

    def __init__(self, source: BinaryIO | Path, target: BinaryIO | Path, format: str, tags: AudioTags) -> None:
        if not supports_tags(format):
            raise ValueError(f"{format} has no tags")
        self.warnings: tuple[str, ...] = ()
        self._source = source
        self._target = target
        self._format = format
        self._container = _CONTAINERS[format]
        self._tags = tags
        self._steps = self._run()

    def __iter__(self) -> TagWriting:
        return self

    def __next__(self) -> int:
        return next(self._steps)

    def close(self) -> None:
        """Stop. A target that was given as a path is removed, unless it is complete."""
        self._steps.close()

    def _run(self) -> Generator[int, None, None]:
        if not isinstance(self._target, Path):
            yield from self._write(self._target)
            return
        is_done = False
        try:
            with self._target.open("w+b") as file:
                yield from self._write(file)
            is_done = True
        finally:
            if not is_done and self._target.is_file():
                self._target.unlink()

    def _write(self, target: BinaryIO) -> Generator[int, None, None]:
        cover = self._open_cover()
        try:
            reserved_bytes = self._estimate_index_bytes()
            if reserved_bytes:
                try:
                    yield from self._copy(target, cover, {"moov_size": str(reserved_bytes)})
                except _IndexTooLarge:
                    pass
                else:
                    return
                target.seek(0)
                target.truncate()
            yield from self._copy(target, cover, {})
        finally:
            if cover is not None:
                cover.close()

    def _open_cover(self) -> InputContainer | None:
        """Open the cover, if the format can carry it."""
        warnings = []
        if self._tags.chapters and not supports_chapters(self._format):
            warnings.append(f"{self._format} files have no chapters")
        container = None
        if self._tags.cover is not None:
            if not supports_chapters(self._format):
                warnings.append(f"{self._format} files have no cover")
            elif not supports_cover(self._format, self._tags.cover.media_type):
                warnings.append(f"the cover is left out: {self._tags.cover.media_type} is not supported")
            else:
                container = _open_picture(self._tags.cover)
                if container is None:
                    warnings.append("the cover is left out: it cannot be read")
        self.warnings = tuple(warnings)
        return container

    def _estimate_index_bytes(self) -> int:
        """Return the bytes to reserve at the start of an MP4 for its index, so that players can start immediately.

        0 if it is unknown. The index has 4 bytes for each packet, and about 40 for each chapter and each MiB of audio.
        """
        if self._container.muxer != "mp4":
            return 0
        with self._open_source() as container:
            packet_count = _require_audio(container).frames
            size_bytes = container.size
        if not packet_count:
            return 0
        cover_bytes = 0 if self._tags.cover is None else len(self._tags.cover.data)
        title_bytes = sum(len(clean_tag(chapter.title).encode()) for chapter in self._tags.chapters)
        return (
            _INDEX_HEADER_BYTES
            + 4 * packet_count
            + 40 * ((size_bytes >> 19) + len(self._tags.chapters))
            + title_bytes
            + cover_bytes
        )

    def _open_source(self) -> InputContainer:
        if not isinstance(self._source, Path):
            self._source.seek(0)
        try:
            return open_input(self._source)
        except FFmpegError as error:
            raise RecordingError(f"the audio cannot be read again: {describe_error(error)}") from error

    def _copy(
        self, target: BinaryIO, cover: InputContainer | None, options: Mapping[str, str]
    ) -> Generator[int, None, None]:
        muxer_output = MuxerOutput(target)
        has_reserved_index = "moov_size" in options
        with self._open_source() as source:
            stream = _require_audio(source)
            output = av.open(
                muxer_output,
                mode="w",
                format=self._container.muxer,
                container_options={**self._container.options, **options},
            )
            is_complete = False
            try:
                copied_bytes, step_start = 0, time.perf_counter()
                copy = self._add_streams(output, stream, cover)
                for packet in source.demux(stream):
                    if packet.dts is None:  # the end of the stream
                        continue
                    copied_bytes += packet.size
                    packet.stream = copy
                    output.mux_one(packet)
                    if time.perf_counter() - step_start >= MAX_STEP_S:
                        muxer_output.take()
                        yield copied_bytes
                        step_start = time.perf_counter()
                is_complete = True
                output.close()
            except FFmpegError as error:
                if muxer_output.error is not None:
                    raise muxer_output.error from error
                if is_complete and has_reserved_index:
                    raise _IndexTooLarge from error
                raise OutputError(f"cannot write the tags of {self._format}: {describe_error(error)}") from error
            finally:
                if not is_complete:
                    muxer_output.discard()
                    _close_quietly(output)
            muxer_output.take()
        target.seek(0, os.SEEK_END)
        target.flush()
        yield copied_bytes

    def _add_streams(self, output: OutputContainer, stream: AudioStream, cover: InputContainer | None) -> AudioStream:
        """Set the tags and write the header and the cover. Return the stream for the packets."""
        copy = output.add_stream_from_template(stream)
        picture = None if cover is None else cover.streams.video[0]
        output.metadata.update(self._build_metadata())
        language = convert_to_iso_639_2(self._tags.language)
        if self._container.muxer == "mp4" and language:
            copy.metadata["language"] = language
        if picture is not None and not self._container.has_cover_stream:
            assert self._tags.cover is not None
            output.metadata["METADATA_BLOCK_PICTURE"] = build_picture_comment(
                self._tags.cover, width=picture.width, height=picture.height
            )
        if supports_chapters(self._format) and not self._container.has_comments:
            output.set_chapters(self._build_chapters())
        if picture is None or not self._container.has_cover_stream:
            output.start_encoding()
            return copy
        assert self._tags.cover is not None
        picture_copy = output.add_stream_from_template(picture)
        # PyAV 16 and 17 accept only the number.
        picture_copy.disposition = cast(Disposition, Disposition.attached_pic.value)
        # What FFmpeg translates into the type "front cover" of ID3v2 and FLAC.
        picture_copy.metadata["comment"] = "Cover (front)"
        output.start_encoding()
        packet: Packet[Any] = Packet(self._tags.cover.data)
        packet.stream, packet.time_base = picture_copy, _MILLISECOND
        packet.pts = packet.dts = 0
        output.mux_one(packet)
        return copy

    def _build_metadata(self) -> dict[str, str]:
        tags = self._tags
        language = convert_to_iso_639_2(tags.language) if self._container.needs_iso_639_2 else tags.language
        values = {
            "title": tags.title,
            "artist": tags.artist,
            "album": tags.album,
            "genre": tags.genre,
            "track": "" if tags.track is None else str(tags.track),
            # In MP4 the language belongs to the stream.
            "language": "" if self._container.muxer == "mp4" else language or "",
            "media_type": _AUDIOBOOK_KIND if self._format == "m4b" else "",
        }
        metadata = {name: clean for name, value in values.items() if (clean := clean_tag(value))}
        return metadata | build_chapter_comments(tags.chapters) if self._container.has_comments else metadata

    def _build_chapters(self) -> list[Any]:
        return [
            {
                "id": index,
                "start": round(chapter.start_s * 1000),
                "end": round(chapter.end_s * 1000),
                "time_base": _MILLISECOND,
                "metadata": {"title": clean_tag(chapter.title)},
            }
            for index, chapter in enumerate(self._tags.chapters)
        ]


class _IndexTooLarge(Exception):
    """The index of an MP4 does not fit into the bytes that were reserved for it."""


def write_tags(source: BinaryIO | Path, target: BinaryIO | Path, format: str, tags: AudioTags) -> TagWriting:
    """Write a copy of an audio file with tags. The target is seekable and empty, and the caller renames it.

    Args:
        source: A complete file.
        target: A file, or the path of a file to create.
        format: The format of both, for which `audio.tags.supports_tags` is true.
        tags: What to write.
    """
    return TagWriting(source, target, format, tags)


def _require_audio(container: InputContainer) -> AudioStream:
    stream = find_audio_stream(container)
    if stream is None:
        raise RecordingError("the audio cannot be read again: it has no audio track")
    return stream


def _open_picture(cover: Cover) -> InputContainer | None:
    """Open a picture as what its MIME type says, so that it cannot be a playlist. Return None if it is damaged."""
    demuxer = {"image/jpeg": "jpeg_pipe", "image/png": "png_pipe"}[cover.media_type]
    try:
        container = av.open(io.BytesIO(cover.data), mode="r", format=demuxer)
    except FFmpegError:
        return None
    if container.streams.video and container.streams.video[0].width and container.streams.video[0].height:
        return container
    container.close()
    return None


def _close_quietly(container: OutputContainer) -> None:
    try:
        container.close()
    except FFmpegError:
        pass
