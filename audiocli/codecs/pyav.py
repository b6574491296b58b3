"""The ground that the codec rooms share: open without surprises, and turn decoded frames into samples.

Together with `encoder`, `decoder`, `framewise`, `probe` and `convert` this is the codec: nothing else imports `av`.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
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

from ..types.values import Pcm

# Everything libav has to say about a stream ends in an exception of ours; its own words are for nobody's terminal.
av.logging.set_level(None)

_GATHERED_SAMPLES = 4_096

_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def layout_name(channels: int) -> str:
    """Name the usual arrangement of so many channels."""
    return _LAYOUTS.get(channels) or f"{channels}c"


def open_input(source: Path | BinaryIO) -> InputContainer:
    """Open a file for reading. Raises: FFmpegError, OSError.

    A path is never read as a URL, and a playlist that calls itself audio cannot make us open connections. Tags that are
    not UTF-8 are common in old mp3 files and must not matter.
    """
    return av.open(
        f"file:{source}" if isinstance(source, Path) else source,
        mode="r",
        metadata_errors="replace",
        container_options={"protocol_whitelist": "file"},
    )


def reason(error: FFmpegError) -> str:
    """Say what libav found wrong, without the name of our file or buffer."""
    return (error.strerror or "unknown error").lower()


def frame_of(samples: bytes, pcm: Pcm, at: int = 0) -> AudioFrame:
    """Make a frame of whole s16le samples, the first of which is the one at this place in its stream."""
    count = len(samples) // pcm.frame_bytes
    frame = AudioFrame(format="s16", layout=layout_name(pcm.channels), samples=count, align=1)
    frame.planes[0].update(samples)
    frame.sample_rate = pcm.sample_rate_hz
    frame.time_base = Fraction(1, pcm.sample_rate_hz)
    frame.pts = at
    return frame


class ToSamples:
    """Turn decoded frames into s16le bytes of one rate and at most two channels; None keeps those of the first frame.

    A stream that changes its own rate or channels half-way goes on in the shape it began with. Frames are gathered
    before they are resampled: a push through libav's filters costs 30 us whatever its size, which for an hour of mp3
    is half the work.
    """

    def __init__(
        self, sample_rate_hz: int | None = None, channels: int | None = None, gathered: int = _GATHERED_SAMPLES
    ) -> None:
        self.pcm: Pcm | None = None
        self._rate = sample_rate_hz
        self._channels = channels
        self._most_gathered = gathered
        self._source_hz: int | None = None
        self._layout = ""
        self._resampler = AudioResampler()
        self._gathered = AudioFifo()

    @property
    def gathered_s(self) -> float:
        """How much sound is in here and has not come out."""
        return self._gathered.samples / self._source_hz if self._source_hz else 0.0

    def push(self, frame: AudioFrame) -> bytes:
        """Take a frame; return samples now and then."""
        # Times of broken streams run backwards, which libav's filters take badly.
        frame.pts = None
        out = b""
        # The fifo compares all but the layout, and would read channels that are not there.
        if frame.layout.name != self._layout:
            out = self.flush()
            self._begin(frame)
        try:
            self._gathered.write(frame)
        except ValueError:
            # Another format or rate than that of the frames before.
            out += self.flush()
            self._begin(frame)
            self._gathered.write(frame)
        return out + self.drain() if self._gathered.samples >= self._most_gathered else out

    def _begin(self, frame: AudioFrame) -> None:
        if self.pcm is None:
            channels = self._channels or min(frame.layout.nb_channels, 2)
            self.pcm = Pcm(self._rate or frame.sample_rate, channels)
        layout = layout_name(self.pcm.channels)
        self._resampler = AudioResampler(format="s16", layout=layout, rate=self.pcm.sample_rate_hz)
        self._gathered = AudioFifo()
        self._source_hz, self._layout = frame.sample_rate, frame.layout.name

    def drain(self) -> bytes:
        """Return what can be had without an end."""
        gathered = self._gathered.read() if self._source_hz else None
        return b"" if gathered is None else self._resampled(gathered)

    def flush(self) -> bytes:
        """Return all that is left; the next frame starts afresh."""
        if self._source_hz is None:
            return b""
        out = self.drain() + self._resampled(None)
        self._source_hz, self._layout = None, ""
        return out

    def _resampled(self, frame: AudioFrame | None) -> bytes:
        frame_bytes = self.pcm.frame_bytes if self.pcm is not None else 0
        # A plane may be longer than its samples. A resampler with nothing to do answers the flush with None.
        frames = [done for done in self._resampler.resample(frame) if done is not None]
        return b"".join(memoryview(done.planes[0])[: done.samples * frame_bytes] for done in frames)


def best_audio(container: InputContainer) -> AudioStream | None:
    """Choose the audio stream that a player would; None when there is none, or none that can be decoded."""
    best = container.streams.best("audio")
    candidates = [best] if isinstance(best, AudioStream) else list(container.streams.audio)
    return next((stream for stream in candidates if stream.codec_context is not None), None)


class Frames:
    """Decode one audio stream of a container, leaving out what is damaged.

    `broke_off` tells afterwards whether the container itself came to a bad end. `size_bytes` is that of the packets so
    far; `renewed` tells whether one of them brought the decoder a new description of what follows.
    """

    def __init__(self, container: InputContainer, stream: AudioStream) -> None:
        self.broke_off = False
        self.packets = 0
        self.size_bytes = 0
        self.renewed = False
        self._container = container
        self._stream = stream
        stream.codec_context.thread_count = 1

    def __iter__(self) -> Iterator[AudioFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError:
                self.broke_off = True
                return
            if packet is None:
                return
            self.packets += 1
            self.size_bytes += packet.size
            self.renewed = self.renewed or packet.has_sidedata("new_extradata")
            try:
                frames = self._stream.codec_context.decode(packet)
            except FFmpegError:
                continue
            yield from frames
