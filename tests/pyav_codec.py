"""The codec of the mock gateway with PyAV: all formats, and durations that do not depend on our parsers."""

from __future__ import annotations

import io
from typing import IO, Any

import av

from audiocli.mock import AudioCodec, UndecodableAudio

# Container and codec of each format.
_ENCODERS = {
    "mp3": ("mp3", "libmp3lame"),
    "opus": ("ogg", "libopus"),
    "ogg": ("ogg", "libopus"),
    "aac": ("adts", "aac"),
    "flac": ("flac", "flac"),
    "mulaw": ("mulaw", "pcm_mulaw"),
}


class PyAVCodec(AudioCodec):
    """Encodes every format of the gateways, and measures uploads by their packets."""

    formats = AudioCodec.formats | _ENCODERS.keys()

    def encode_samples(self, pcm: bytes, format_: str, rate_hz: int) -> bytes:
        container_name, codec = _ENCODERS[format_]
        output = io.BytesIO()
        with av.open(output, "w", format=container_name, options={"fflags": "+bitexact"}) as container:
            stream: Any = container.add_stream(codec, rate=rate_hz, layout="mono")
            sample_format: Any = stream.codec_context.format
            resampler = av.AudioResampler(
                format=sample_format or "s16",
                layout="mono",
                rate=rate_hz,
                frame_size=stream.codec_context.frame_size or None,
            )
            frames: list[Any] = []
            for start in range(0, len(pcm), 2 * rate_hz):
                second = pcm[start : start + 2 * rate_hz]
                frame = av.AudioFrame(format="s16", layout="mono", samples=len(second) // 2)
                frame.planes[0].update(second.ljust(frame.planes[0].buffer_size, b"\0"))
                frame.sample_rate = rate_hz
                frame.pts = start // 2
                frames.append(frame)
            for frame in [*frames, None]:
                for resampled in resampler.resample(frame):
                    container.mux(stream.encode(resampled))
            container.mux(stream.encode(None))
        return output.getvalue()

    def measure_duration_s(self, file: IO[bytes], format_: str | None) -> float:
        try:
            with av.open(file, "r") as container:
                if not container.streams.audio:
                    raise UndecodableAudio("no audio in the file")
                stream = container.streams.audio[0]
                packets = [
                    (packet.pts, packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None
                ]
                if not packets or stream.time_base is None:
                    raise UndecodableAudio("no audio in the file")
                return float((max(pts + duration for pts, duration in packets) - packets[0][0]) * stream.time_base)
        except (av.FFmpegError, ValueError) as error:
            raise UndecodableAudio(f"unreadable audio: {error}") from error


CODEC = PyAVCodec()
"""The codec of every mock gateway in the tests. It caches what it encoded."""

encode = CODEC.encode
expected_audio = CODEC.expected_audio
