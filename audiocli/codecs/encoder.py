"""Encode samples into a seekable file or, incrementally, into a pipe."""

from __future__ import annotations

import os
from types import TracebackType
from typing import BinaryIO, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.error import FFmpegError

from ..audio.formats import G711_FORMATS, Format, find_format, find_sample_rate
from ..audio.wav import UncompressedEncoder, write_all
from ..errors import OutputError
from ..types.audio import TELEPHONE_PCM, PcmFormat
from .pyav import build_frame, describe_error, get_layout_name

# Bits per second for one channel of speech, up to a sample rate. Two channels get twice as much, for Opus 1.5 times.
_BITRATES = {
    "libmp3lame": ((12_000, 32_000), (16_000, 48_000), (24_000, 64_000), (1 << 20, 96_000)),
    "libopus": ((1 << 20, 32_000),),
    "aac": ((12_000, 32_000), (16_000, 48_000), (24_000, 64_000), (1 << 20, 96_000)),
}
# Encoder effort. Speed as a multiple of real time for 24 kHz speech, measured with PyAV 18 on one core: Opus 81 at its
# default of 10, 422 at 3; MP3 80 at its default, 102 at 5. The difference is inaudible for speech.
_CODEC_OPTIONS = {
    "libmp3lame": {"compression_level": "5"},
    "libopus": {"compression_level": "3"},
    "flac": {"compression_level": "5"},
}
# Encoder effort for speech recognition, as a multiple of real time for 16 kHz speech: Opus 600 (frames of 60 ms, which
# halve the overhead, and no `voip`, which takes twice as long), MP3 260. An upload is slower than either
# (docs/adr/0010-encode-every-chunk.md).
_FAST_CODEC_OPTIONS = {
    "libmp3lame": {"compression_level": "9"},
    "libopus": {"compression_level": "3", "frame_duration": "60"},
}
_FAST_BITRATES = {"libopus": ((1 << 20, 24_000),)}
# FFmpeg reserves 8 KB for tags that are never added: a third of a short FLAC, and the first bytes in a pipe.
# The brand of an audiobook.
_MUXER_OPTIONS = {"flac": {"metadata_header_padding": "0"}, "m4b": {"brand": "M4B "}}


class MuxerOutput:
    """The file object that the muxer writes to. Its methods never raise.

    FFmpeg remembers a failed write in ways that differ by muxer, and PyAV prints a second exception to stderr while one
    is pending. The first error is stored here, later writes are dropped, and `Encoder` raises the error.
    """

    def __init__(self, output: BinaryIO | None) -> None:
        self.error: BaseException | None = None
        self._output = output
        self._blocks: list[bytes] = []
        self._is_discarding = False

    def seekable(self) -> bool:
        return self._output is not None

    def write(self, block: bytes) -> int:
        if not self._is_discarding:
            try:
                if self._output is None:
                    self._blocks.append(block)
                else:
                    write_all(self._output, block)
            except BaseException as error:  # noqa: BLE001 (raised by `take`; it must not pass through FFmpeg's C code)
                self.error, self._is_discarding = error, True
        return len(block)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if self._output is None or self._is_discarding:
            return max(offset, 0)
        try:
            return self._output.seek(offset, whence)
        except BaseException as error:  # noqa: BLE001 (as above)
            self.error, self._is_discarding = error, True
            return max(offset, 0)

    def tell(self) -> int:
        return 0 if self._output is None or self._is_discarding else self._output.tell()

    def discard(self) -> None:
        """Drop all further writes."""
        self._is_discarding = True
        self._output = None
        self._blocks.clear()

    def take(self) -> bytes:
        """Return the bytes written since the last call, for a pipe.

        Raises:
            BaseException: The stored error of the output.
        """
        if self.error is not None:
            raise self.error
        data = b"".join(self._blocks)
        self._blocks.clear()
        return data


class Encoder:
    """Encode s16le samples into any format that `audio.formats` can write.

    With a seekable, empty `output` the file is written there, and its header is corrected at the end (sizes, totals,
    MP3 padding, the index of an M4A); `feed` and `finish` return nothing. With None they return the bytes muxed so
    far. Sample rates that the codec lacks are resampled. More than two channels are mixed down. Use it from one thread
    at a time, not necessarily the same one. FFmpeg releases the GIL.

    Feed at most `max_feed_bytes` per call to keep calls short: one second of audio takes 2 to 15 ms. `fast` reduces the
    quality to what speech recognition needs. With `bit_exact`, equal samples give equal bytes: Ogg streams have no
    random number, and the version of FFmpeg is left out.
    """

    def __init__(
        self,
        format: str,
        pcm: PcmFormat,
        output: BinaryIO | None = None,
        *,
        fast: bool = False,
        bit_exact: bool = False,
    ) -> None:
        spec = find_format(format)
        if spec is None or not spec.is_writable:
            raise ValueError(f"no encoder for {format}")
        self.max_feed_bytes = pcm.bytes_per_second
        self._spec = spec
        self._pcm = pcm
        self._uncompressed = UncompressedEncoder(spec.name, pcm, output) if spec.name in ("pcm", "wav") else None
        self._remainder = b""
        self._sample_count = 0
        self._is_closed = True
        self._output = output
        if self._uncompressed is None:
            self._muxer_output = MuxerOutput(output)
            self._open_container(spec, pcm, fast, bit_exact)
            self._is_closed = False

    def _open_container(self, spec: Format, pcm: PcmFormat, fast: bool, bit_exact: bool) -> None:
        codec = spec.encoder or ""
        channels = min(pcm.channels, TELEPHONE_PCM.channels if spec.name in G711_FORMATS else 2)
        rate = find_sample_rate(spec, pcm.sample_rate_hz)
        options = {**_MUXER_OPTIONS.get(spec.name, {}), **({} if self._muxer_output.seekable() else spec.pipe_options)}
        if bit_exact:
            options["fflags"] = options.get("fflags", "") + "+bitexact"
        self._container = av.open(self._muxer_output, mode="w", format=spec.muxer, container_options=options)
        bitrates, codec_options = (
            (_BITRATES | _FAST_BITRATES, _CODEC_OPTIONS | _FAST_CODEC_OPTIONS) if fast else (_BITRATES, _CODEC_OPTIONS)
        )
        stream = self._container.add_stream(codec, rate=rate, options=dict(codec_options.get(codec, {})))
        self._stream = cast(AudioStream, stream)
        context = self._stream.codec_context
        context.layout = get_layout_name(channels)
        context.thread_count = 1
        for max_rate, bits_per_second in bitrates.get(codec, ()):
            if rate <= max_rate:
                stereo_factor = 1.5 if codec == "libopus" else 2
                context.bit_rate = round(bits_per_second * stereo_factor) if channels == 2 else bits_per_second
                break

    def feed(self, samples: bytes) -> bytes:
        """Encode samples, in blocks of any length.

        Raises:
            OSError: Writing to the output failed.
            OutputError: FFmpeg cannot encode the samples.
        """
        if self._uncompressed is not None:
            return self._uncompressed.feed(samples)
        pending = self._remainder + samples if self._remainder else samples
        end = len(pending) - len(pending) % self._pcm.frame_bytes
        self._remainder = pending[end:]
        if end:
            self._encode(build_frame(pending[:end], self._pcm, self._sample_count))
            self._sample_count += end // self._pcm.frame_bytes
        return self._muxer_output.take()

    def finish(self) -> bytes:
        """Complete the file. An incomplete sample at the end is dropped.

        Raises:
            OSError: Writing to the output failed.
            OutputError: FFmpeg cannot encode the samples.
        """
        if self._uncompressed is not None:
            return self._uncompressed.finish()
        self._encode(None)
        try:
            self._container.close()
        except FFmpegError as error:
            raise self._to_output_error(error) from error
        finally:
            self._is_closed = True
        if self._output is not None and self._muxer_output.error is None:
            self._output.seek(0, os.SEEK_END)
            self._output.flush()
        return self._muxer_output.take()

    def close(self) -> None:
        """Free all resources and write nothing more. Does nothing after `finish` or a previous call."""
        if self._uncompressed is not None:
            self._uncompressed.close()
        elif not self._is_closed:
            self._is_closed = True
            self._muxer_output.discard()
            try:
                self._container.close()
            except FFmpegError:
                pass

    def __del__(self) -> None:
        # A container that is garbage-collected writes its trailer, and PyAV before 17 crashes if its file is gone.
        if not getattr(self, "_is_closed", True):
            self.close()

    def __enter__(self) -> Encoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _encode(self, frame: AudioFrame | None) -> None:
        """Encode and mux a frame. None flushes the codec."""
        try:
            self._container.start_encoding()
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except FFmpegError as error:
            raise self._to_output_error(error) from error

    def _to_output_error(self, error: FFmpegError) -> BaseException:
        return self._muxer_output.error or OutputError(f"cannot encode {self._spec.name}: {describe_error(error)}")
