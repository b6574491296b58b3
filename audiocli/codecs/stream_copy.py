"""The packets of a recording, copied into files of their own.

A decoder needs more than the packets of a piece: what they refer to, and some to run in. So a copy begins a few packets
early, about a tenth of a second, and tells where it truly begins: nothing in it asks a decoder to leave something out,
for not every decoder would.
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

from ..audio.mp3_bit_reservoir import borrowed_bytes, lent, silent_frame, tag_frame, varies
from ..audio.mpeg import mpeg_frame
from ..audio.split_plan import RATE_HZ, Piece
from ..audio.wav import write_all
from ..errors import OutputError, RecordingError
from .encoder import Tray
from .packet_index import Packets, plain_wav
from .probe import audio_track, opened
from .pyav import reason

STEP_S = 0.02
# Of what was read so much is kept, because the next piece may begin before the end of this one.
_KEPT_S = 16.0
# An estimate of where a file ends may be so much more than there is.
_ALLOWED_S = 0.5
_SLICE_BYTES = 1 << 18
_HEAD_BYTES = 1 << 16

_MUXERS = {"m4a": "ipod", "mp4": "mp4", "opus": "ogg", "ogg": "ogg", "webm": "webm"}
# How long before the piece the first packet ends, at least. Opus is itself again after 80 ms, and near to it sooner;
# the others need the packet before.
_RUN_IN_S = {"opus": 0.06}
_RUN_IN_PACKETS = {"aac": 2, "vorbis": 2}


class Span(NamedTuple):
    """Where a copy truly begins and ends in the recording, in seconds. It may begin before the recording does."""

    start_s: float
    end_s: float


class _Held(NamedTuple):
    at_s: float
    end_s: float
    pts: int
    duration: int
    packet: Packet[AudioStream]


class Copier:
    """Copies pieces of one recording, given what was learnt when it was heard.

    In order, all of them cost one reading. One piece at a time, and one thread.
    """

    def __init__(self, source: Path, packets: Packets) -> None:
        self._source = source
        self._packets = packets
        self._reel: _Reel | None = None

    def copies(self, format: str) -> bool:
        """Tell whether pieces can be copied into this format."""
        return format in self._packets.formats

    def copy(self, piece: Piece, target: BinaryIO, format: str) -> Generator[float, None, Span]:
        """Write a piece, in steps that tell how many seconds of it are done. Raises: RecordingError, OSError."""
        if format == "wav":
            return (yield from self._sliced(piece, target))
        start_s = piece.start_s + self._packets.shift_s(piece.start_s)
        end_s = piece.end_s + self._packets.shift_s(piece.end_s)
        if self._reel is None or not self._reel.has(start_s):
            self.close()
            self._reel = _Reel(self._source)
        reel = self._reel
        yield from reel.find(start_s)
        first, before = reel.from_there(start_s)
        writer: _Mpeg | _Muxed
        if format == "mp3":
            writer = _Mpeg(target, first, before, varies=reel.varies)
        else:
            writer = _Muxed(target, first, reel.stream, _MUXERS[format])
        try:
            last_s, begun = first[0].end_s, time.perf_counter()
            for held in reel.up_to(end_s, first):
                writer.write(held)
                last_s = held.end_s
                if time.perf_counter() - begun >= STEP_S:
                    yield min(max(min(last_s, end_s) - start_s, 0.0), piece.duration_s)
                    begun = time.perf_counter()
            if last_s < end_s - _ALLOWED_S:
                raise RecordingError(f"{self._source}: it ends earlier than when it was listened to; was it changed?")
            writer.finish()
        finally:
            writer.close()
        written_s = first[0].at_s + writer.ahead_s
        # The first packet may be ahead by another time than the place that was asked for.
        near_s = written_s - self._packets.shift_s(piece.start_s)
        true_s = written_s - self._packets.shift_s(near_s)
        return Span(true_s, true_s + last_s - written_s)

    def close(self) -> None:
        """Close the recording."""
        if self._reel is not None:
            self._reel.close()
            self._reel = None

    def _sliced(self, piece: Piece, target: BinaryIO) -> Generator[float, None, Span]:
        """Take samples out of a WAV, below its own header."""
        told = plain_wav(self._source)
        if told is None:
            raise RecordingError(f"{self._source}: it is not the WAV file that was listened to; was it changed?")
        header, shape = told
        rate = shape.pcm.sample_rate_hz
        first, last = piece.start * rate // RATE_HZ, -(-piece.end * rate // RATE_HZ)
        with self._source.open("rb") as source:
            there = (source.seek(0, os.SEEK_END) - shape.data_offset) // shape.frame_bytes
            if last > there + 1:
                raise RecordingError(f"{self._source}: it ends earlier than when it was listened to; was it changed?")
            left = (min(last, there) - first) * shape.frame_bytes
            write_all(target, header[:4] + (shape.data_offset - 8 + left + left % 2).to_bytes(4, "little"))
            write_all(target, header[8:-4] + left.to_bytes(4, "little"))
            source.seek(shape.data_offset + first * shape.frame_bytes)
            odd, begun = left % 2, time.perf_counter()
            while left:
                samples = source.read(min(left, _SLICE_BYTES))
                if not samples:
                    raise RecordingError(f"{self._source}: it became shorter while it was cut")
                write_all(target, samples)
                left -= len(samples)
                if time.perf_counter() - begun >= STEP_S:
                    yield piece.duration_s - left / shape.bytes_per_second
                    begun = time.perf_counter()
            write_all(target, bytes(odd))
        return Span(first / rate, last / rate)


class _Reel:
    """The packets of a recording one after another, with the last seconds of those that were read."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._container: InputContainer = opened(source)
        self.stream = audio_track(source, self._container)
        with source.open("rb") as file:
            self.varies = varies(file.read(_HEAD_BYTES))
        codec = self.stream.codec_context.name
        self._run_in_s = _RUN_IN_S.get(codec, 0.0)
        self._run_in_packets = _RUN_IN_PACKETS.get(codec, 1)
        self._unread = self._read()
        self._kept: deque[_Held] = deque()
        self._is_whole = True

    def has(self, at_s: float) -> bool:
        """Tell whether this place, and what a copy from there needs of what is before it, is kept or still ahead."""
        return self._is_whole or self._kept[0].at_s < at_s - 1.0

    def find(self, at_s: float) -> Iterator[float]:
        """Read until the packet of this place is there. Raises: RecordingError: there is none."""
        begun = time.perf_counter()
        while not self._kept or self._kept[-1].end_s <= at_s:
            if self._next() is None:
                raise RecordingError(f"{self._source}: it ends earlier than when it was listened to; was it changed?")
            if time.perf_counter() - begun >= STEP_S:
                yield 0.0
                begun = time.perf_counter()

    def from_there(self, at_s: float) -> tuple[list[_Held], list[_Held]]:
        """Return the packets to copy that were read, and those before them."""
        kept = list(self._kept)
        place = next(place for place, held in enumerate(kept) if held.end_s > at_s)
        ready_s = kept[max(place - self._run_in_packets, 0)].at_s
        ready_s = min(ready_s, at_s - self._run_in_s) if self._run_in_s else ready_s
        while place and kept[place].at_s > ready_s:
            place -= 1
        return kept[place:], kept[:place]

    def up_to(self, end_s: float, first: list[_Held]) -> Iterator[_Held]:
        """Yield some packets and those that follow, up to this time."""
        held: _Held | None
        for held in first:
            if held.at_s >= end_s:
                return
            yield held
        while (held := self._next()) is not None and held.at_s < end_s:
            yield held

    def close(self) -> None:
        self._container.close()

    def _next(self) -> _Held | None:
        held = next(self._unread, None)
        if held is not None:
            self._kept.append(held)
            while self._kept[0].at_s < held.at_s - _KEPT_S:
                self._kept.popleft()
                self._is_whole = False
        return held

    def _read(self) -> Iterator[_Held]:
        base = float(self.stream.time_base or 1)
        due = 0
        try:
            for packet in self._container.demux(self.stream):
                if packet.size:
                    pts = due if packet.pts is None else packet.pts
                    duration = packet.duration or 0
                    due = pts + duration
                    yield _Held(pts * base, due * base, pts, duration, packet)
        except FFmpegError:
            # The recording breaks off here, as it did when it was heard.
            return


class _Mpeg:
    """An mp3: frames one after another, behind one that is silent and has the bits that the first of them borrows."""

    def __init__(self, target: BinaryIO, first: list[_Held], before: list[_Held], *, varies: bool) -> None:
        self._target = target
        self._like = bytes(first[0].packet)
        self._frames, self._bytes = 0, 0
        self._tagged = varies
        self.ahead_s = 0.0
        frame = mpeg_frame(self._like)
        if frame is None:
            return
        if varies:
            self._put(tag_frame(self._like, 0, 0))
            self._frames = 0
        if wanted := borrowed_bytes(self._like):
            self._put(silent_frame(self._like, lent([bytes(held.packet) for held in before[-16:]], wanted)))
            self.ahead_s = -frame.samples / frame.sample_rate_hz

    def write(self, held: _Held) -> None:
        self._put(bytes(held.packet))

    def finish(self) -> None:
        if self._tagged:
            self._target.seek(0)
            write_all(self._target, tag_frame(self._like, self._frames, self._bytes))
            self._target.seek(0, os.SEEK_END)

    def close(self) -> None:
        """There is nothing to free."""

    def _put(self, frame: bytes) -> None:
        write_all(self._target, frame)
        self._frames += 1
        self._bytes += len(frame)


class _Muxed:
    """A container that libav writes."""

    def __init__(self, target: BinaryIO, first: list[_Held], stream: AudioStream, muxer: str) -> None:
        self._tray = Tray(target)
        self._container = av.open(self._tray, mode="w", format=muxer)
        self._stream = self._container.add_stream_from_template(stream)
        self._base = stream.time_base or Fraction(1)
        # The samples that every decoder of Opus leaves out at first, and the packet from which Vorbis gives none.
        codec = stream.codec_context
        self._skipped = 0
        self.ahead_s = 0.0
        if codec.name == "opus":
            self.ahead_s = int.from_bytes((codec.extradata or b"")[10:12], "little") / 48_000
            self._skipped = round(self.ahead_s / self._base)
        elif codec.name == "vorbis":
            self.ahead_s = first[0].end_s - first[0].at_s
        self._origin = first[0].pts + self._skipped

    def write(self, held: _Held) -> None:
        packet = held.packet
        packet.stream = self._stream
        packet.pts = packet.dts = held.pts - self._origin
        packet.duration = held.duration
        packet.time_base = self._base
        try:
            self._container.mux(packet)
        except FFmpegError as error:
            raise self._refusal(error) from error

    def finish(self) -> None:
        try:
            self._container.close()
        except FFmpegError as error:
            raise self._refusal(error) from error
        if self._tray.failure is not None:
            raise self._tray.failure

    def close(self) -> None:
        """Give up; harmless after `finish`."""
        self._tray.drop()
        try:
            self._container.close()
        except FFmpegError:
            pass

    def _refusal(self, error: FFmpegError) -> BaseException:
        return self._tray.failure or OutputError(f"cannot copy a piece of the recording: {reason(error)}")
