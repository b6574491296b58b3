"""PyAV helpers: open files safely, and convert decoded frames to samples.

Only the modules of `audiocli.codecs` import `av`.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import av
import av.logging
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet

from ..audio.stereo import CancellationDetector, take_channel
from ..types.audio import PcmFormat

# PyAV raises FFmpeg's errors as exceptions. FFmpeg's log must not go to the terminal.
av.logging.set_level(None)

_BATCH_SAMPLES = 4_096

_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def get_layout_name(channels: int) -> str:
    """Return FFmpeg's name of the default channel layout."""
    return _LAYOUTS.get(channels) or f"{channels}c"


def open_input(source: Path | BinaryIO) -> InputContainer:
    """Open a file for reading.

    A path is never interpreted as a URL, and a playlist disguised as audio cannot open connections. Tags that are not
    UTF-8, common in old MP3 files, are not an error.

    Raises:
        FFmpegError: The file is not a supported recording.
        OSError: The file cannot be read.
    """
    return av.open(
        f"file:{source}" if isinstance(source, Path) else source,
        mode="r",
        metadata_errors="replace",
        container_options={"protocol_whitelist": "file"},
    )


def describe_error(error: FFmpegError) -> str:
    """Return FFmpeg's error message, without the name of our file or buffer."""
    return (error.strerror or "unknown error").lower()


def build_frame(samples: bytes, pcm: PcmFormat, pts: int = 0) -> AudioFrame:
    """Build a frame from complete s16le samples. `pts` is the index of the first sample in its stream."""
    count = len(samples) // pcm.frame_bytes
    frame = AudioFrame(format="s16", layout=get_layout_name(pcm.channels), samples=count, align=1)
    frame.planes[0].update(samples)
    frame.sample_rate = pcm.sample_rate_hz
    frame.time_base = Fraction(1, pcm.sample_rate_hz)
    frame.pts = pts
    return frame


class SampleConverter:
    """Convert decoded frames to s16le samples with one sample rate and at most two channels.

    None keeps the sample rate or channels of the first frame. A stream that changes them later is converted to those of
    its start. Frames are batched before they are resampled: each push through FFmpeg's filters costs 30 µs whatever its
    size, which is half the work for an hour of MP3.

    Stereo is mixed into one channel, except where the channels would cancel out: there, one of them is used. With
    `channel`, an index from 0, the result is that channel. A stream that has fewer channels is mixed.
    """

    def __init__(
        self,
        sample_rate_hz: int | None = None,
        channels: int | None = None,
        batch_samples: int = _BATCH_SAMPLES,
        *,
        channel: int | None = None,
    ) -> None:
        self.pcm: PcmFormat | None = None
        self._rate = sample_rate_hz
        self._channels = channels if channel is None else 1
        self._channel = channel
        self._batch_samples = batch_samples
        self._source_hz: int | None = None
        self._resampled_channels = 0
        self._layout = ""
        self._resampler = AudioResampler()
        self._mixer: _StereoMixer | None = None
        self._fifo = AudioFifo()

    @property
    def canceled_s(self) -> float:
        """Seconds of audio whose two channels would cancel out in a mix."""
        return self._mixer.canceled_s if self._mixer is not None else 0.0

    @property
    def pending_s(self) -> float:
        """Seconds of audio that were pushed and not yet returned."""
        return self._fifo.samples / self._source_hz if self._source_hz else 0.0

    def push(self, frame: AudioFrame) -> bytes:
        """Add a frame. Return samples whenever a batch is complete."""
        # Timestamps of damaged streams run backwards, which FFmpeg's filters reject.
        frame.pts = None
        data = b""
        # The FIFO does not compare layouts, and would read channels that do not exist.
        if frame.layout.name != self._layout:
            data = self.flush()
            self._configure(frame)
        try:
            self._fifo.write(frame)
        except ValueError:
            # The sample format or rate has changed.
            data += self.flush()
            self._configure(frame)
            self._fifo.write(frame)
        return data + self.drain() if self._fifo.samples >= self._batch_samples else data

    def _configure(self, frame: AudioFrame) -> None:
        if self.pcm is None:
            channels = self._channels or min(frame.layout.nb_channels, 2)
            self.pcm = PcmFormat(self._rate or frame.sample_rate, channels)
        has_channel = self._channel is not None and self._channel < frame.layout.nb_channels
        has_mixer = self.pcm.channels == 1 and frame.layout.nb_channels == 2 and not has_channel
        if has_mixer and self._mixer is None:
            self._mixer = _StereoMixer(self.pcm.sample_rate_hz)
        self._resampled_channels = 2 if has_mixer else self.pcm.channels
        layout = get_layout_name(self._resampled_channels)
        if has_channel:
            # The layout of the source, so that no channel is mixed into another.
            self._resampled_channels, layout = frame.layout.nb_channels, frame.layout.name
        self._resampler = AudioResampler(format="s16", layout=layout, rate=self.pcm.sample_rate_hz)
        self._fifo = AudioFifo()
        self._source_hz, self._layout = frame.sample_rate, frame.layout.name

    def drain(self) -> bytes:
        """Return the samples available without ending the stream."""
        frame = self._fifo.read() if self._source_hz else None
        return b"" if frame is None else self._resample(frame)

    def flush(self) -> bytes:
        """Return all remaining samples. The next frame starts a new stream."""
        if self._source_hz is None:
            return b""
        data = self.drain() + self._resample(None)
        self._source_hz, self._layout = None, ""
        return data

    def _resample(self, frame: AudioFrame | None) -> bytes:
        samples = _resample(self._resampler, frame, self._resampled_channels)
        if self._channel is not None and self._channel < self._resampled_channels > 1:
            return take_channel(samples, self._channel, self._resampled_channels)
        if self._mixer is None or self.pcm is None or self._resampled_channels == self.pcm.channels:
            return samples
        return self._mixer.mix(samples)


class _StereoMixer:
    """Mix stereo samples into one channel, or use one channel where they cancel out."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._pcm = PcmFormat(sample_rate_hz, 2)
        self._detector = CancellationDetector(self._pcm)
        self._resampler = AudioResampler(format="s16", layout="mono", rate=sample_rate_hz)

    @property
    def canceled_s(self) -> float:
        return self._detector.canceled_s

    def mix(self, samples: bytes) -> bytes:
        """Return one mono sample for each frame."""
        return b"".join(
            self._mix_all(part) if channel is None else take_channel(part, channel)
            for channel, part in self._detector.split(samples)
        )

    def _mix_all(self, samples: bytes) -> bytes:
        frame = build_frame(samples, self._pcm)
        frame.pts = None
        return _resample(self._resampler, frame, 1)


def _resample(resampler: AudioResampler, frame: AudioFrame | None, channels: int) -> bytes:
    # A plane may be longer than its samples. A pass-through resampler returns None on flush.
    frames = [resampled for resampled in resampler.resample(frame) if resampled is not None]
    return b"".join(memoryview(resampled.planes[0])[: resampled.samples * 2 * channels] for resampled in frames)


def find_audio_stream(container: InputContainer, track: int | None = None) -> AudioStream | None:
    """Return the audio stream that a player would choose, or None if no stream can be decoded.

    `track` is the number of an audio stream, from 1, to use instead.
    """
    if track is not None:
        streams = container.streams.audio[track - 1 : track]
        return next((stream for stream in streams if stream.codec_context is not None), None)
    best = container.streams.best("audio")
    candidates = [best] if isinstance(best, AudioStream) else list(container.streams.audio)
    return next((stream for stream in candidates if stream.codec_context is not None), None)


class FrameDecoder:
    """Decode one audio stream of a container. Damaged packets are skipped.

    `is_truncated` is set if demuxing failed before the end. `packet_count` and `size_bytes` count the packets so far,
    and `end_position` is the offset of the end of the last one in the file. `first_packet` is one that was read before.
    """

    def __init__(
        self, container: InputContainer, stream: AudioStream, first_packet: Packet[AudioStream] | None = None
    ) -> None:
        self.is_truncated = False
        self.packet_count = 0
        self.size_bytes = 0
        self._last_position = self._last_size = 0
        self._container = container
        self._stream = stream
        self._first_packet = first_packet
        stream.codec_context.thread_count = 1

    @property
    def end_position(self) -> int:
        return self._last_position + self._last_size

    def __iter__(self) -> Iterator[AudioFrame]:
        packets = self._container.demux(self._stream)
        if self._first_packet is not None:
            packets = chain((self._first_packet,), packets)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError:
                self.is_truncated = True
                return
            if packet is None:
                return
            self.packet_count += 1
            self.size_bytes += packet.size
            if packet.pos is not None:
                self._last_position, self._last_size = packet.pos, packet.size
            try:
                frames = self._stream.codec_context.decode(packet)
            except FFmpegError:
                continue
            yield from frames
