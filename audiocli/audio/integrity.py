"""Look at audio while it passes: is it whole, and how long is it. No bytes are kept and no codec is needed."""

from __future__ import annotations

from collections.abc import Callable

from ..types.values import Pcm
from .byte_reader import EMPTY, Finding, Steps, Tap, rest_bytes
from .containers import flac_stream, mp4_stream, ogg_stream, wav_stream
from .mpeg import adts_stream, mpeg_stream

_WALKS: dict[str, Callable[[Tap], Steps[Finding]]] = {
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

    def __init__(self, walk: Callable[[Tap], Steps[Finding]]) -> None:
        self._tap = Tap()
        self._walk = walk(self._tap)
        self._finding: Finding | None = None

    def feed(self, chunk: bytes) -> None:
        if self._finding is None:
            self._tap.push(chunk)
            self._go_on()

    def finish(self) -> Finding:
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


def _pcm_stream(tap: Tap, pcm: Pcm) -> Steps[Finding]:
    there = yield from rest_bytes(tap)
    if not there:
        return EMPTY
    whole, cut = divmod(there, pcm.frame_bytes)
    return Finding("truncated" if cut else None, whole / pcm.sample_rate_hz)


def _any_stream(tap: Tap) -> Steps[Finding]:
    return Finding() if (yield from rest_bytes(tap)) else EMPTY
