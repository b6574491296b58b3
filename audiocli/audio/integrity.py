"""Check audio for truncation and measure its duration while it streams, without storing it and without a codec."""

from __future__ import annotations

from collections.abc import Callable

from ..types.audio import PcmFormat
from .byte_reader import NO_AUDIO, ByteReader, IntegrityReport, Parser, skip_to_end
from .containers import check_flac, check_mp4, check_ogg, check_wav
from .mpeg import check_adts, check_mpeg

_CHECKS: dict[str, Callable[[ByteReader], Parser[IntegrityReport]]] = {
    "wav": check_wav,
    "mp3": check_mpeg,
    "mp2": check_mpeg,
    "aac": check_adts,
    "ogg": check_ogg,
    "opus": check_ogg,
    "flac": check_flac,
    "m4a": check_mp4,
    "mp4": check_mp4,
    "mov": check_mp4,
}


class IntegrityChecker:
    """Incremental integrity check of one body. The result does not depend on block boundaries.

    Only certain problems are reported: a false "truncated" would make the user pay twice.
    """

    def __init__(self, check: Callable[[ByteReader], Parser[IntegrityReport]]) -> None:
        self._reader = ByteReader()
        self._parser = check(self._reader)
        self._report: IntegrityReport | None = None

    def feed(self, block: bytes) -> None:
        if self._report is None:
            self._reader.feed(block)
            self._advance()

    def finish(self) -> IntegrityReport:
        self._reader.feed_eof()
        while self._report is None:
            self._advance()
        return self._report

    def _advance(self) -> None:
        try:
            next(self._parser)
        except StopIteration as end:
            self._report = end.value
            self._reader.discard_all()


def create_integrity_checker(format_name: str, pcm: PcmFormat) -> IntegrityChecker:
    """Create the checker for a format of `audio.formats`. `pcm` describes raw samples and is used for them only.

    Formats without a parser (such as webm) are only checked for being empty.
    """
    if format_name == "pcm":
        return IntegrityChecker(lambda reader: _check_pcm(reader, pcm))
    return IntegrityChecker(_CHECKS.get(format_name, _check_not_empty))


def _check_pcm(reader: ByteReader, pcm: PcmFormat) -> Parser[IntegrityReport]:
    received_bytes = yield from skip_to_end(reader)
    if not received_bytes:
        return NO_AUDIO
    frame_count, extra_bytes = divmod(received_bytes, pcm.frame_bytes)
    return IntegrityReport("truncated" if extra_bytes else None, frame_count / pcm.sample_rate_hz)


def _check_not_empty(reader: ByteReader) -> Parser[IntegrityReport]:
    return IntegrityReport() if (yield from skip_to_end(reader)) else NO_AUDIO
