"""Check audio for truncation and other data, and measure its duration, without a codec.

The same checks judge the responses of gateways, while they stream, and recordings.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ..types.audio import PcmFormat, Recording
from .byte_reader import NO_AUDIO, TAIL_BYTES, ByteReader, IntegrityReport, Parser, skip_to_end
from .containers import check_flac, check_g711, check_mp4, check_ogg, check_pcm, check_wav
from .mpeg import check_adts, check_mpeg, parse_id3_size
from .recording_containers import (
    check_aiff,
    check_amr,
    check_asf,
    check_au,
    check_avi,
    check_caf,
    check_ebml,
    check_program_stream,
    check_ts,
    check_w64,
)
from .signatures import SNIFF_BYTES, sniff_name
from .wav import parse_wav_duration_s

READ_BLOCK_BYTES = 256 * 1024

_CHECKS: dict[str, Callable[[ByteReader], Parser[IntegrityReport]]] = {
    "wav": check_wav,
    "mp3": check_mpeg,
    "mp2": check_mpeg,
    "aac": check_adts,
    "ogg": check_ogg,
    "opus": check_ogg,
    "flac": check_flac,
    "m4a": check_mp4,
    "m4b": check_mp4,
    "mp4": check_mp4,
    "mov": check_mp4,
    "webm": check_ebml,
    "mkv": check_ebml,
    "w64": check_w64,
    "au": check_au,
    "aiff": check_aiff,
    "caf": check_caf,
    "avi": check_avi,
    "wma": check_asf,
    "ts": check_ts,
    "mpeg": check_program_stream,
    "amr": check_amr,
    "ulaw": check_g711,
    "alaw": check_g711,
}


class IntegrityChecker:
    """Incremental integrity check of one body. The result does not depend on block boundaries.

    Only certain problems are reported: a false "truncated" would make the user pay twice.
    """

    def __init__(self, check: Callable[[ByteReader], Parser[IntegrityReport]]) -> None:
        self._reader = ByteReader()
        self._parser = check(self._reader)
        self._report: IntegrityReport | None = None

    @property
    def skippable_bytes(self) -> int:
        """Bytes whose content is not needed. The caller may pass their number to `seek` instead of feeding them."""
        return self._reader.skippable_bytes if self._report is None else 0

    def seek(self, count: int) -> None:
        self._reader.seek(count)

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

    Formats without a parser are only checked for being empty.
    """
    if format_name == "pcm":
        return IntegrityChecker(lambda reader: check_pcm(reader, pcm))
    return IntegrityChecker(_CHECKS.get(format_name, _check_not_empty))


def check_recording(path: Path) -> IntegrityReport:
    """Check a recording by its container, without decoding it. Media data is skipped if its size is enough.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        head = file.read(SNIFF_BYTES)
        format_name = sniff_name(head)
        if tag_bytes := parse_id3_size(head):
            # A tag is mostly before MP3, but sometimes before FLAC or ADTS.
            file.seek(tag_bytes)
            format_name = sniff_name(file.read(SNIFF_BYTES)) or format_name
        check = _CHECKS.get(format_name or "")
        return IntegrityReport() if check is None else _check_file(file, size_bytes, IntegrityChecker(check))


def read_stated_duration_s(file: IO[bytes], size_bytes: int, format_name: str) -> float | None:
    """Return the duration that a container states. Media data is skipped. None: it states none, or is truncated.

    Raises:
        OSError: The file cannot be read.
    """
    check = _CHECKS.get(format_name)
    report = IntegrityReport() if check is None else _check_file(file, size_bytes, IntegrityChecker(check))
    return None if report.is_cut_off else report.duration_s


def probe_wav(path: Path, head: bytes, size_bytes: int) -> Recording | None:
    """Probe a WAV file whose samples have a fixed size. It needs no codec, whose import takes 60 ms and 30 MB.

    Return None for any other file. The duration is 0 if there are no samples.

    Args:
        head: The first `wav.WAV_PROBE_BYTES` of the file, or more.

    Raises:
        OSError: The file cannot be read.
    """
    if sniff_name(head[:SNIFF_BYTES]) != "wav" or (duration_s := parse_wav_duration_s(head, size_bytes)) is None:
        return None
    return Recording(path, "wav", size_bytes, duration_s, is_truncated=check_recording(path).is_cut_off)


def _check_file(file: IO[bytes], size_bytes: int, checker: IntegrityChecker) -> IntegrityReport:
    position = file.seek(0)
    while position < size_bytes:
        # The end is read, because it shows what follows the audio.
        skip_bytes = min(checker.skippable_bytes, size_bytes - TAIL_BYTES - position)
        if skip_bytes > READ_BLOCK_BYTES:
            checker.seek(skip_bytes)
            position = file.seek(position + skip_bytes)
            continue
        block = file.read(READ_BLOCK_BYTES)
        if not block:
            break
        checker.feed(block)
        position += len(block)
    return checker.finish()


def _check_not_empty(reader: ByteReader) -> Parser[IntegrityReport]:
    return IntegrityReport() if (yield from skip_to_end(reader)) else NO_AUDIO
