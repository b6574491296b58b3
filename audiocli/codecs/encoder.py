"""Samples in, a finished file out: all at once into a seekable file, or byte by byte into a pipe."""

from __future__ import annotations

import os
from types import TracebackType
from typing import BinaryIO, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.error import FFmpegError

from ..audio.formats import Format, named
from ..audio.wav import PlainEncoder, write_all
from ..errors import OutputError
from ..types.values import Pcm
from .pyav import frame_of, layout_name, reason

_RATES = {
    "libmp3lame": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    "libopus": (8_000, 12_000, 16_000, 24_000, 48_000),
    "aac": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000),
}
# Bits per second for one channel of speech, up to a sample rate. Two channels get twice as much, for Opus half more.
_BITRATES = {
    "libmp3lame": ((12_000, 32_000), (16_000, 48_000), (24_000, 64_000), (1 << 20, 96_000)),
    "libopus": ((1 << 20, 32_000),),
    "aac": ((12_000, 32_000), (16_000, 48_000), (24_000, 64_000), (1 << 20, 96_000)),
}
# How hard to try. Times real time for 24 kHz speech, measured with PyAV 18 on one core: Opus 81 at its default of 10,
# 422 at 3; mp3 80 at its default, 102 at 5. For speech nobody hears the difference.
_OPTIONS = {
    "libmp3lame": {"compression_level": "5"},
    "libopus": {"compression_level": "3"},
    "flac": {"compression_level": "5"},
}
# For recognisers alone: times real time for 16 kHz speech, Opus 560 (frames of 60 ms, which halve the overhead, and no
# `voip`, which takes twice as long), mp3 180.
_QUICK_OPTIONS = {
    "libmp3lame": {"compression_level": "9"},
    "libopus": {"compression_level": "0", "frame_duration": "60"},
}
_QUICK_BITRATES = {"libopus": ((1 << 20, 24_000),)}
# libav leaves 8 KB for tags that nobody will add: a third of a short FLAC, and the first thing in a pipe.
_MUXER_OPTIONS = {"flac": {"metadata_header_padding": "0"}}


class Tray:
    """The file that the muxer sees. It never fails.

    libav remembers a failed write in ways that differ by muxer, and PyAV prints a second exception to stderr when one
    is still waiting: so the first failure is kept here, everything after it is dropped, and `Encoder` raises it.
    """

    def __init__(self, target: BinaryIO | None) -> None:
        self.failure: BaseException | None = None
        self._target = target
        self._pieces: list[bytes] = []
        self._dropping = False

    def seekable(self) -> bool:
        return self._target is not None

    def write(self, chunk: bytes) -> int:
        if not self._dropping:
            try:
                if self._target is None:
                    self._pieces.append(chunk)
                else:
                    write_all(self._target, chunk)
            except BaseException as failure:  # noqa: BLE001 (raised by `take`; nothing may pass through libav's C code)
                self.failure, self._dropping = failure, True
        return len(chunk)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if self._target is None or self._dropping:
            return max(offset, 0)
        try:
            return self._target.seek(offset, whence)
        except BaseException as failure:  # noqa: BLE001 (as above)
            self.failure, self._dropping = failure, True
            return max(offset, 0)

    def tell(self) -> int:
        return 0 if self._target is None or self._dropping else self._target.tell()

    def drop(self) -> None:
        """Write nothing from now on."""
        self._dropping = True
        self._target = None
        self._pieces.clear()

    def take(self) -> bytes:
        """Return what a pipe gets. Raises: the target's own failure."""
        if self.failure is not None:
            raise self.failure
        out = b"".join(self._pieces)
        self._pieces.clear()
        return out


class Encoder:
    """Encode s16le samples into any format that `formats` can write.

    With a seekable `target`, empty and at its beginning, the file is written there and its header is corrected at the
    end (sizes, totals, gapless numbers, the index of an m4a); `feed` and `finish` return nothing. With None they return
    what the muxer has made so far, at once. Sample rates that the codec lacks are resampled; more than two channels are
    mixed down. One thread at a time, but not always the same one; libav works without the interpreter's lock.

    Feed at most `slice_bytes` at once where a caller must be able to leave: a second of sound costs 2 to 15 ms. `quick`
    is for what only a recogniser will hear.
    """

    def __init__(self, format: str, pcm: Pcm, target: BinaryIO | None = None, *, quick: bool = False) -> None:
        row = named(format)
        if row is None or not row.writable:
            raise ValueError(f"no encoder for {format}")
        self.slice_bytes = pcm.bytes_per_second
        self._format = row
        self._pcm = pcm
        self._plain = PlainEncoder(row.name, pcm, target) if row.name in ("pcm", "wav") else None
        self._remainder = b""
        self._samples = 0
        self._closed = True
        self._target = target
        if self._plain is None:
            self._tray = Tray(target)
            self._open(row, pcm, quick)
            self._closed = False

    def _open(self, row: Format, pcm: Pcm, quick: bool) -> None:
        codec = row.encoder or ""
        channels = min(pcm.channels, 2)
        rates = _RATES.get(codec, (pcm.sample_rate_hz,))
        rate = next((rate for rate in rates if rate >= pcm.sample_rate_hz), rates[-1])
        options = {**_MUXER_OPTIONS.get(row.name, {}), **({} if self._tray.seekable() else row.pipe_options)}
        self._container = av.open(self._tray, mode="w", format=row.muxer, container_options=options)
        bitrates, tries = (_BITRATES | _QUICK_BITRATES, _OPTIONS | _QUICK_OPTIONS) if quick else (_BITRATES, _OPTIONS)
        stream = self._container.add_stream(codec, rate=rate, options=dict(tries.get(codec, {})))
        self._stream = cast(AudioStream, stream)
        context = self._stream.codec_context
        context.layout = layout_name(channels)
        context.thread_count = 1
        for up_to, bits_per_second in bitrates.get(codec, ()):
            if rate <= up_to:
                more = (3 if codec == "libopus" else 4) if channels == 2 else 2
                context.bit_rate = bits_per_second * more // 2
                break

    def feed(self, samples: bytes) -> bytes:
        """Encode samples, cut anywhere. Raises: the target's own OSError, OutputError (libav refuses)."""
        if self._plain is not None:
            return self._plain.feed(samples)
        whole = self._remainder + samples if self._remainder else samples
        cut = len(whole) - len(whole) % self._pcm.frame_bytes
        self._remainder = whole[cut:]
        if cut:
            self._encode(frame_of(whole[:cut], self._pcm, self._samples))
            self._samples += cut // self._pcm.frame_bytes
        return self._tray.take()

    def finish(self) -> bytes:
        """Complete the file; half a sample at the end is dropped. Raises: as `feed`."""
        if self._plain is not None:
            return self._plain.finish()
        self._encode(None)
        try:
            self._container.close()
        except FFmpegError as error:
            raise self._refusal(error) from error
        finally:
            self._closed = True
        if self._target is not None and self._tray.failure is None:
            self._target.seek(0, os.SEEK_END)
            self._target.flush()
        return self._tray.take()

    def close(self) -> None:
        """Give up: free everything, write nothing more. Harmless after `finish` and when called twice."""
        if self._plain is not None:
            self._plain.close()
        elif not self._closed:
            self._closed = True
            self._tray.drop()
            try:
                self._container.close()
            except FFmpegError:
                pass

    def __del__(self) -> None:
        # A container that is collected writes its trailer then, and PyAV before 17 crashes if its file is gone.
        if not getattr(self, "_closed", True):
            self.close()

    def __enter__(self) -> Encoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _encode(self, frame: AudioFrame | None) -> None:
        """Encode and mux. None flushes the codec."""
        try:
            self._container.start_encoding()
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except FFmpegError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: FFmpegError) -> BaseException:
        return self._tray.failure or OutputError(f"cannot encode {self._format.name}: {reason(error)}")
