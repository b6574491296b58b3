"""Look at audio while it passes: is it whole, and how long is it. No bytes are kept and no codec is needed."""

from __future__ import annotations

from collections.abc import Callable

from ..types.values import Pcm
from .byte_reader import EMPTY, IntegrityReport, Parser, ByteReader, rest_bytes
from .containers import flac_stream, mp4_stream, ogg_stream, wav_stream
from .mpeg import adts_stream, mpeg_stream

_WALKS: dict[str, Callable[[ByteReader], Parser[IntegrityReport]]] = {
    "wav": wav_stream,
    "mp3": mpeg_stream,
    "mp2": mpeg_stream,
    "aac": adts_stream,
    "ogg": ogg_stream,
    "opus": ogg_stream,
    "flac": flac_stream,
    "m4a": mp4_stream,
    "mp4": mp4_stream,
    "mov": mp4_stream,
}


class Inspector:
    """Fed all bytes of one body, tells in the end what is wrong with it. Any chunking gives the same finding.

    Nothing is claimed that is not certain: a false "truncated" would have the user pay twice.
    """

    def __init__(self, walk: Callable[[ByteReader], Parser[IntegrityReport]]) -> None:
        self._tap = ByteReader()
        self._walk = walk(self._tap)
        self._finding: IntegrityReport | None = None

    def feed(self, chunk: bytes) -> None:
        if self._finding is None:
            self._tap.push(chunk)
            self._go_on()

    def finish(self) -> IntegrityReport:
        self._tap.end()
        while self._finding is None:
            self._go_on()
        return self._finding

    def _go_on(self) -> None:
        try:
            next(self._walk)
        except StopIteration as end:
            self._finding = end.value
            self._tap.drop_all()


def inspector(format_name: str, pcm: Pcm) -> Inspector:
    """Make the inspector of a format of `audio.formats`; `pcm` is the shape of raw samples and matters to them only.

    Formats without a walker (webm and the like) are only asked whether there is anything at all.
    """
    if format_name == "pcm":
        return Inspector(lambda tap: _pcm_stream(tap, pcm))
    return Inspector(_WALKS.get(format_name, _any_stream))


def _pcm_stream(tap: ByteReader, pcm: Pcm) -> Parser[IntegrityReport]:
    there = yield from rest_bytes(tap)
    if not there:
        return EMPTY
    whole, cut = divmod(there, pcm.frame_bytes)
    return IntegrityReport("truncated" if cut else None, whole / pcm.sample_rate_hz)


def _any_stream(tap: ByteReader) -> Parser[IntegrityReport]:
    return IntegrityReport() if (yield from rest_bytes(tap)) else EMPTY
