"""Copy the packets of a recording to other files, without decoding.

A decoder needs more than the packets of a chunk: those they refer to, and some preroll. A copy therefore begins a few
packets early, about a tenth of a second, and returns its true start time. It has no edit list, because not every
decoder honors one.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet

from ..audio.chunk_boundaries import SPLIT_RATE_HZ, AudioChunk
from ..audio.mp3_bit_reservoir import (
    build_silent_frame,
    build_xing_frame,
    has_vbr_header,
    parse_reservoir_bytes,
    read_reservoir_tail,
)
from ..audio.mpeg import parse_mpeg_header
from ..audio.wav import write_all
from ..errors import OutputError, RecordingError
from .encoder import MuxerOutput
from .packet_index import PacketIndex, read_sliceable_wav
from .probe import open_recording, select_audio_track
from .pyav import describe_error

MAX_STEP_S = 0.02
# Packets kept in memory, because the next chunk may begin before the end of this one.
_BUFFER_S = 16.0
# A file may end this much before its estimated duration.
_END_TOLERANCE_S = 0.5
_BLOCK_BYTES = 1 << 18
_PROBE_BYTES = 1 << 16

_MUXERS = {"m4a": "ipod", "mp4": "mp4", "opus": "ogg", "ogg": "ogg", "webm": "webm"}
# Minimum preroll before the chunk. Opus converges after 80 ms, and nearly so after 60 ms. The others need the previous
# packet.
_PREROLL_S = {"opus": 0.06}
_PREROLL_PACKETS = {"aac": 2, "vorbis": 2}


class CopiedSpan(NamedTuple):
    """True time range of a copy in the recording, in seconds. It may begin before the recording does."""

    start_s: float
    end_s: float


class _BufferedPacket(NamedTuple):
    start_s: float
    end_s: float
    pts: int
    duration: int
    packet: Packet[AudioStream]


class StreamCopier:
    """Copy chunks of one recording, given the packet index of a scan.

    In order, all chunks need one pass. Copy one chunk at a time, from one thread.
    """

    def __init__(self, source: Path, packet_index: PacketIndex) -> None:
        self._source = source
        self._packet_index = packet_index
        self._reader: _PacketReader | None = None

    def can_copy(self, format: str) -> bool:
        """Return whether chunks can be copied into this format."""
        return format in self._packet_index.formats

    def copy(self, chunk: AudioChunk, output: BinaryIO, format: str) -> Generator[float, None, CopiedSpan]:
        """Write a chunk, in steps that yield the seconds done, and return its true time range.

        Raises:
            RecordingError: The recording has changed since the scan.
            OutputError: The packets cannot be muxed.
            OSError: Reading or writing a file failed.
        """
        if format == "wav":
            return (yield from self._copy_wav(chunk, output))
        start_s = chunk.start_s + self._packet_index.get_shift_s(chunk.start_s)
        end_s = chunk.end_s + self._packet_index.get_shift_s(chunk.end_s)
        if self._reader is None or not self._reader.can_seek(start_s):
            self.close()
            self._reader = _PacketReader(self._source)
        reader = self._reader
        yield from reader.seek(start_s)
        first_packets, earlier_packets = reader.split_at(start_s)
        writer: _Mp3Writer | _ContainerWriter
        if format == "mp3":
            writer = _Mp3Writer(output, first_packets, earlier_packets, is_vbr=reader.has_vbr_header)
        else:
            writer = _ContainerWriter(output, first_packets, reader.stream, _MUXERS[format])
        try:
            copied_end_s, step_start = first_packets[0].end_s, time.perf_counter()
            for buffered in reader.read_until(end_s, first_packets):
                writer.write(buffered)
                copied_end_s = buffered.end_s
                if time.perf_counter() - step_start >= MAX_STEP_S:
                    yield min(max(min(copied_end_s, end_s) - start_s, 0.0), chunk.duration_s)
                    step_start = time.perf_counter()
            if copied_end_s < end_s - _END_TOLERANCE_S:
                raise RecordingError(f"{self._source}: shorter than when it was scanned; the file may have changed")
            writer.finish()
        finally:
            writer.close()
        written_s = first_packets[0].start_s + writer.lead_s
        # The shift at the first packet may differ from the shift at the requested position.
        approximate_s = written_s - self._packet_index.get_shift_s(chunk.start_s)
        true_s = written_s - self._packet_index.get_shift_s(approximate_s)
        return CopiedSpan(true_s, true_s + copied_end_s - written_s)

    def close(self) -> None:
        """Close the recording."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _copy_wav(self, chunk: AudioChunk, output: BinaryIO) -> Generator[float, None, CopiedSpan]:
        """Copy samples of a WAV, after its own header."""
        wav = read_sliceable_wav(self._source)
        if wav is None:
            raise RecordingError(f"{self._source}: not the WAV file that was scanned; the file may have changed")
        head, wav_header = wav
        rate = wav_header.pcm.sample_rate_hz
        first_frame, end_frame = chunk.start * rate // SPLIT_RATE_HZ, -(-chunk.end * rate // SPLIT_RATE_HZ)
        with self._source.open("rb") as source:
            available_frames = (source.seek(0, os.SEEK_END) - wav_header.data_offset) // wav_header.frame_bytes
            if end_frame > available_frames + 1:
                raise RecordingError(f"{self._source}: shorter than when it was scanned; the file may have changed")
            remaining_bytes = (min(end_frame, available_frames) - first_frame) * wav_header.frame_bytes
            write_all(
                output,
                head[:4] + (wav_header.data_offset - 8 + remaining_bytes + remaining_bytes % 2).to_bytes(4, "little"),
            )
            write_all(output, head[8:-4] + remaining_bytes.to_bytes(4, "little"))
            source.seek(wav_header.data_offset + first_frame * wav_header.frame_bytes)
            padding_bytes, step_start = remaining_bytes % 2, time.perf_counter()
            while remaining_bytes:
                samples = source.read(min(remaining_bytes, _BLOCK_BYTES))
                if not samples:
                    raise RecordingError(f"{self._source}: the file was truncated while it was being read")
                write_all(output, samples)
                remaining_bytes -= len(samples)
                if time.perf_counter() - step_start >= MAX_STEP_S:
                    yield chunk.duration_s - remaining_bytes / wav_header.bytes_per_second
                    step_start = time.perf_counter()
            write_all(output, bytes(padding_bytes))
        return CopiedSpan(first_frame / rate, end_frame / rate)


class _PacketReader:
    """Read the packets of a recording in order, and keep those of the last seconds."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._container: InputContainer = open_recording(source)
        self.stream = select_audio_track(source, self._container)
        with source.open("rb") as file:
            self.has_vbr_header = has_vbr_header(file.read(_PROBE_BYTES))
        codec = self.stream.codec_context.name
        self._preroll_s = _PREROLL_S.get(codec, 0.0)
        self._preroll_packets = _PREROLL_PACKETS.get(codec, 1)
        self._packets = self._read()
        self._buffer: deque[_BufferedPacket] = deque()
        self._has_start = True

    def can_seek(self, time_s: float) -> bool:
        """Return whether this position and its preroll are in the buffer or still ahead."""
        return self._has_start or self._buffer[0].start_s < time_s - 1.0

    def seek(self, time_s: float) -> Iterator[float]:
        """Read until the packet at this position is in the buffer.

        Raises:
            RecordingError: The recording ends before it.
        """
        step_start = time.perf_counter()
        while not self._buffer or self._buffer[-1].end_s <= time_s:
            if self._next() is None:
                raise RecordingError(f"{self._source}: shorter than when it was scanned; the file may have changed")
            if time.perf_counter() - step_start >= MAX_STEP_S:
                yield 0.0
                step_start = time.perf_counter()

    def split_at(self, time_s: float) -> tuple[list[_BufferedPacket], list[_BufferedPacket]]:
        """Return the buffered packets to copy, and those before them."""
        packets = list(self._buffer)
        index = next(index for index, buffered in enumerate(packets) if buffered.end_s > time_s)
        preroll_start_s = packets[max(index - self._preroll_packets, 0)].start_s
        preroll_start_s = min(preroll_start_s, time_s - self._preroll_s) if self._preroll_s else preroll_start_s
        while index and packets[index].start_s > preroll_start_s:
            index -= 1
        return packets[index:], packets[:index]

    def read_until(self, end_s: float, first_packets: list[_BufferedPacket]) -> Iterator[_BufferedPacket]:
        """Yield these packets and the following ones, up to a time."""
        buffered: _BufferedPacket | None
        for buffered in first_packets:
            if buffered.start_s >= end_s:
                return
            yield buffered
        while (buffered := self._next()) is not None and buffered.start_s < end_s:
            yield buffered

    def close(self) -> None:
        self._container.close()

    def _next(self) -> _BufferedPacket | None:
        buffered = next(self._packets, None)
        if buffered is not None:
            self._buffer.append(buffered)
            while self._buffer[0].start_s < buffered.start_s - _BUFFER_S:
                self._buffer.popleft()
                self._has_start = False
        return buffered

    def _read(self) -> Iterator[_BufferedPacket]:
        time_base = float(self.stream.time_base or 1)
        next_pts = 0
        try:
            for packet in self._container.demux(self.stream):
                if packet.size:
                    pts = next_pts if packet.pts is None else packet.pts
                    duration = packet.duration or 0
                    next_pts = pts + duration
                    yield _BufferedPacket(pts * time_base, next_pts * time_base, pts, duration, packet)
        except FFmpegError:
            # The recording is truncated here, as it was during the scan.
            return


class _Mp3Writer:
    """Write MP3 frames, after a silent frame with the bits that the first one refers to.

    `lead_s` is where the decoded audio starts, relative to the first packet.
    """

    def __init__(
        self,
        output: BinaryIO,
        first_packets: list[_BufferedPacket],
        earlier_packets: list[_BufferedPacket],
        *,
        is_vbr: bool,
    ) -> None:
        self._output = output
        self._template = bytes(first_packets[0].packet)
        self._frame_count, self._byte_count = 0, 0
        self._has_xing_frame = is_vbr
        self.lead_s = 0.0
        frame = parse_mpeg_header(self._template)
        if frame is None:
            return
        if is_vbr:
            self._write_frame(build_xing_frame(self._template, 0, 0))
            self._frame_count = 0
        if reservoir_bytes := parse_reservoir_bytes(self._template):
            self._write_frame(
                build_silent_frame(
                    self._template,
                    read_reservoir_tail(
                        [bytes(buffered.packet) for buffered in earlier_packets[-16:]], reservoir_bytes
                    ),
                )
            )
            self.lead_s = -frame.samples / frame.sample_rate_hz

    def write(self, buffered: _BufferedPacket) -> None:
        self._write_frame(bytes(buffered.packet))

    def finish(self) -> None:
        if self._has_xing_frame:
            self._output.seek(0)
            write_all(self._output, build_xing_frame(self._template, self._frame_count, self._byte_count))
            self._output.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Do nothing: there are no resources to free."""

    def _write_frame(self, frame: bytes) -> None:
        write_all(self._output, frame)
        self._frame_count += 1
        self._byte_count += len(frame)


class _ContainerWriter:
    """Write packets to a container with FFmpeg. `lead_s` is as in `_Mp3Writer`."""

    def __init__(self, output: BinaryIO, first_packets: list[_BufferedPacket], stream: AudioStream, muxer: str) -> None:
        self._muxer_output = MuxerOutput(output)
        self._container = av.open(self._muxer_output, mode="w", format=muxer)
        self._stream = self._container.add_stream_from_template(stream)
        self._time_base = stream.time_base or Fraction(1)
        # Samples that every Opus decoder skips at the start, and the packet from which Vorbis returns none.
        codec = stream.codec_context
        self._skip_ticks = 0
        self.lead_s = 0.0
        if codec.name == "opus":
            self.lead_s = int.from_bytes((codec.extradata or b"")[10:12], "little") / 48_000
            self._skip_ticks = round(self.lead_s / self._time_base)
        elif codec.name == "vorbis":
            self.lead_s = first_packets[0].end_s - first_packets[0].start_s
        self._origin_pts = first_packets[0].pts + self._skip_ticks

    def write(self, buffered: _BufferedPacket) -> None:
        packet = buffered.packet
        packet.stream = self._stream
        packet.pts = packet.dts = buffered.pts - self._origin_pts
        packet.duration = buffered.duration
        packet.time_base = self._time_base
        try:
            self._container.mux(packet)
        except FFmpegError as error:
            raise self._to_output_error(error) from error

    def finish(self) -> None:
        try:
            self._container.close()
        except FFmpegError as error:
            raise self._to_output_error(error) from error
        if self._muxer_output.error is not None:
            raise self._muxer_output.error

    def close(self) -> None:
        """Abandon the file. Does nothing after `finish`."""
        self._muxer_output.discard()
        try:
            self._container.close()
        except FFmpegError:
            pass

    def _to_output_error(self, error: FFmpegError) -> BaseException:
        return self._muxer_output.error or OutputError(f"cannot copy a chunk of the recording: {describe_error(error)}")
