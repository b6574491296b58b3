"""Recordings in every container, made with PyAV, for tests of damaged and truncated files."""

from __future__ import annotations

import array
import io
import math
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import av


class Container(NamedTuple):
    """How PyAV writes one container.

    `is_pipe`: the muxer cannot seek, as in a live recording. `start_s`: the audio starts late. `has_video`: there is a
    video from 0 to `seconds`. `is_sweep`: the tone rises, so that it tells the position.
    """

    muxer: str
    codec: str
    rate_hz: int = 24_000
    options: tuple[tuple[str, str], ...] = ()
    is_pipe: bool = False
    bit_rate: int | None = None
    start_s: float = 0.0
    has_video: bool = False
    is_sweep: bool = False


CONTAINERS = {
    "wav": Container("wav", "pcm_s16le"),
    "rf64.wav": Container("wav", "pcm_s16le", options=(("rf64", "always"),)),
    "w64": Container("w64", "pcm_s16le"),
    "au": Container("au", "pcm_s16be"),
    "aiff": Container("aiff", "pcm_s16be"),
    "caf": Container("caf", "pcm_s16le"),
    "alac.caf": Container("caf", "alac"),
    "flac": Container("flac", "flac"),
    "opus": Container("ogg", "libopus", 48_000, (("page_duration", "100000"),)),
    "vorbis.ogg": Container("ogg", "vorbis", 48_000, (("page_duration", "100000"), ("strict", "experimental"))),
    "mp3": Container("mp3", "libmp3lame"),
    "xing-less.mp3": Container("mp3", "libmp3lame", options=(("write_xing", "0"),)),
    "mp2": Container("mp2", "mp2"),
    "aac": Container("adts", "aac"),
    "m4a": Container("ipod", "aac"),
    "faststart.m4a": Container("ipod", "aac", options=(("movflags", "faststart"),)),
    "fragmented.m4a": Container(
        "ipod", "aac", options=(("movflags", "empty_moov+default_base_moof"), ("frag_duration", "200000"))
    ),
    "fragmented.mp4": Container(
        "mp4", "aac", options=(("movflags", "frag_keyframe+empty_moov"), ("frag_duration", "200000")), is_pipe=True
    ),
    "mov": Container("mov", "aac"),
    "mkv": Container("matroska", "aac"),
    "webm": Container("webm", "libopus", 48_000),
    "live.webm": Container("webm", "libopus", 48_000, (("live", "1"), ("cluster_time_limit", "500")), is_pipe=True),
    "avi": Container("avi", "libmp3lame"),
    "wma": Container("asf", "wmav2", 44_100),
    "ts": Container("mpegts", "aac"),
    "mpeg": Container("mpeg", "mp2"),
    "amr": Container("amr", "libopencore_amrnb", 8_000),
}


class _Pipe(io.RawIOBase):
    """A file that can only be written in order."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, block: Any) -> int:
        self.content += block
        return len(block)


@cache
def make_recording(name: str, seconds: float = 2.0) -> bytes:
    """Return a recording of a tone with noise in the container `name` of `CONTAINERS`."""
    return encode_recording(CONTAINERS[name], seconds)


@cache
def encode_recording(container: Container, seconds: float) -> bytes:
    """Return a recording of a tone with noise."""
    samples = (_make_sweep if container.is_sweep else _make_samples)(container.rate_hz, seconds)
    if container.is_pipe:
        pipe = _Pipe()
        _encode(pipe, container, samples)
        return bytes(pipe.content)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "recording"
        _encode(str(path), container, samples)
        return path.read_bytes()


@cache
def _make_samples(rate_hz: int, seconds: float) -> array.array[int]:
    rng = random.Random(1)
    return array.array(
        "h", (int(9_000 * math.sin(i * 0.115)) + rng.randrange(-900, 900) for i in range(int(rate_hz * seconds)))
    )


@cache
def _make_sweep(rate_hz: int, seconds: float) -> array.array[int]:
    """Return a tone that rises by 200 Hz in each second."""
    times = (index / rate_hz for index in range(int(rate_hz * seconds)))
    return array.array("h", (int(9_000 * math.sin(2 * math.pi * (300 + 100 * time) * time)) for time in times))


def _encode(target: Any, recording: Container, samples: array.array[int]) -> None:
    muxer, codec, rate_hz, options = recording[:4]
    experimental = {"strict": "experimental"} if codec == "vorbis" else {}
    with av.open(target, "w", format=muxer, options=dict(options)) as container:
        stream: Any = container.add_stream(codec, rate=rate_hz, layout="mono", options=experimental)
        if codec == "vorbis":
            stream.layout = "stereo"
        if codec == "wmav2":
            stream.bit_rate = 64_000
        if recording.bit_rate is not None:
            stream.bit_rate = recording.bit_rate
        video: Any = container.add_stream("mpeg4", rate=5) if recording.has_video else None
        if codec == "libopencore_amrnb":
            stream.bit_rate = 12_200
        stream.open()
        frame = av.AudioFrame(format="s16", layout="mono", samples=len(samples), align=1)
        frame.planes[0].update(samples.tobytes())
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(
            format=stream.codec_context.format.name,
            layout=stream.layout.name,
            rate=rate_hz,
            frame_size=stream.codec_context.frame_size or 1_024,
        )
        packets = [packet for part in (frame, None) for r in resampler.resample(part) for packet in stream.encode(r)]
        packets += stream.encode(None)
        for packet in packets:
            if recording.start_s and packet.pts is not None:
                packet.pts = packet.dts = packet.pts + round(recording.start_s / packet.time_base)
        if video is not None:
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
            picture = av.VideoFrame(64, 64, "yuv420p")
            for index in range(int(5 * (len(samples) / rate_hz + recording.start_s))):
                picture.pts = index
                packets += video.encode(picture)
            packets += video.encode(None)
            packets.sort(key=lambda packet: math.inf if packet.pts is None else packet.pts * packet.time_base)
        for packet in packets:
            if packet.size or muxer != "ogg":  # the Ogg muxer rejects what the FLAC encoder adds for the header
                container.mux(packet)
