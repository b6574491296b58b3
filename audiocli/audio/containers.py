"""Walk WAV, Ogg, FLAC and MP4: is the file whole, and how long is its sound."""

from __future__ import annotations

import re
from typing import NamedTuple

from .byte_reader import EMPTY, IntegrityReport, Parser, ByteReader, rest_bytes
from .mpeg import id3_bytes
from .wav import LARGEST_HEADER, NotWav, WavShape, wav_shape


def wav_stream(tap: ByteReader) -> Parser[IntegrityReport]:
    """Compare the sizes in the header with the bytes that came; writers who did not know the size are believed."""
    wanted = 64
    while wanted <= LARGEST_HEADER:
        head = yield from tap.peek(wanted)
        try:
            shape = wav_shape(head)
        except NotWav:
            return EMPTY
        if shape is not None:
            return (yield from _wav_samples(tap, shape))
        if len(head) < wanted:
            return EMPTY
        wanted *= 2
    yield from rest_bytes(tap)
    return IntegrityReport()


def _wav_samples(tap: ByteReader, shape: WavShape) -> Parser[IntegrityReport]:
    yield from tap.skip(shape.data_offset)
    there = yield from rest_bytes(tap)
    promised = shape.data_bytes
    sound_bytes = there if promised is None else min(there, promised)
    # Compressed samples (ADPCM, GSM, mp3 in a WAV) have no fixed length each.
    duration_s = sound_bytes / shape.bytes_per_second if shape.codec else None
    if sound_bytes < shape.frame_bytes:
        return EMPTY
    return IntegrityReport("truncated" if promised is not None and there < promised else None, duration_s)


_OGG_MARK = re.compile(rb"OggS")


def ogg_stream(tap: ByteReader) -> Parser[IntegrityReport]:
    """Walk the pages of an Ogg file with Opus, Vorbis, FLAC or Speex.

    A page that is cut, or a packet that was to go on in a page that never came, is certain truncation. A missing
    end-of-stream flag is not: servers that stream leave it out. Streams that follow each other (chained files) add up.
    Source: RFC 3533, RFC 7845.
    """
    seconds, position, start, rate = 0.0, 0, 0, 0
    pages, serial = 0, b""
    in_step, unfinished = True, False
    while len(head := (yield from tap.peek(27))) == 27:
        if head[:5] != b"OggS\x00" or head[5] > 7:
            in_step = False
            yield from tap.skip(1)
            yield from tap.skip_to(_OGG_MARK, 4)
            continue
        table = (yield from tap.peek(27 + head[26]))[27:]
        missing = yield from tap.skip(27 + head[26])
        opening = (yield from tap.peek(min(sum(table), 64))) if head[5] & 2 else b""
        if known := _ogg_codec(opening):
            seconds += _ogg_seconds(position, start, rate)
            (rate, start), position, serial = known, 0, head[14:18]
        missing += yield from tap.skip(sum(table))
        granule = int.from_bytes(head[6:14], "little", signed=True)
        if granule > 0 and head[14:18] == serial:
            position = granule
        if missing and in_step:
            return IntegrityReport("truncated", seconds + _ogg_seconds(position, start, rate))
        unfinished = table[-1:] == b"\xff" and not head[5] & 4
        in_step = True
        pages += 1
    seconds += _ogg_seconds(position, start, rate)
    if unfinished or (in_step and head and b"OggS".startswith(head[:4])):
        return IntegrityReport("truncated", seconds)
    if seconds:
        return IntegrityReport(None, seconds)
    # Three pages may be headers alone; more must hold something, even if it is not understood here.
    return EMPTY if pages <= 3 and (rate or not pages) else IntegrityReport()


def _ogg_seconds(position: int, start: int, rate: int) -> float:
    return max(position - start, 0) / rate if rate else 0.0


def _ogg_codec(opening: bytes) -> tuple[int, int] | None:
    """Read the first packet of a stream: (ticks per second, ticks before the sound)."""
    if opening[:8] == b"OpusHead" and len(opening) >= 12:
        return 48_000, int.from_bytes(opening[10:12], "little")
    if opening[:7] == b"\x01vorbis" and len(opening) >= 16:
        rate = int.from_bytes(opening[12:16], "little")
    elif opening[:5] == b"\x7fFLAC" and len(opening) >= 30:
        rate = int.from_bytes(opening[27:30]) >> 4
    elif opening[:8] == b"Speex   " and len(opening) >= 40:
        rate = int.from_bytes(opening[36:40], "little")
    else:
        return None
    return (rate, 0) if rate else None


class StreamInfo(NamedTuple):
    """The numbers of a FLAC file that stand in its first metadata block; `samples` is 0 when its writer streamed."""

    block_samples: int
    sample_rate_hz: int
    channels: int
    bits: int
    samples: int


def stream_info(block: bytes) -> StreamInfo | None:
    """Read the 34 bytes of a STREAMINFO block. Source: RFC 9639 8.2."""
    if len(block) < 34:
        return None
    packed = int.from_bytes(block[10:18])
    rate = packed >> 44
    if not rate:
        return None
    return StreamInfo(
        block_samples=int.from_bytes(block[2:4]),
        sample_rate_hz=rate,
        channels=(packed >> 41 & 7) + 1,
        bits=(packed >> 36 & 31) + 1,
        samples=packed & (1 << 36) - 1,
    )


_FLAC_MARK = re.compile(rb"\xff[\xf8\xf9]")


def flac_stream(tap: ByteReader) -> Parser[IntegrityReport]:
    """Find the last frame of a FLAC file: its number tells where it stands, also when the total was not written.

    A frame header is told from the noise around it by its checksum and by standing after the one before. A last frame
    that is itself cut goes unnoticed; only whole missing frames are claimed.
    """
    yield from tap.skip(id3_bytes((yield from tap.peek(10))))
    if (yield from tap.peek(4)) != b"fLaC":
        return EMPTY
    yield from tap.skip(4)
    streaminfo: StreamInfo | None = None
    last = False
    while not last:
        head = yield from tap.peek(4)
        if len(head) < 4:
            return EMPTY
        last = head[0] >= 0x80
        size = int.from_bytes(head[1:4])
        yield from tap.skip(4)
        if streaminfo is None:
            streaminfo = stream_info((yield from tap.peek(min(size, 34))))
        if (yield from tap.skip(size)):
            return EMPTY
    if streaminfo is None:
        return IntegrityReport()
    before, end = -1, 0
    while (yield from tap.skip_to(_FLAC_MARK, 2)):
        found = flac_frame((yield from tap.peek(16)), streaminfo)
        if found is not None and found[0] > before:
            before, end = found
        yield from tap.skip(2)
    if before < 0:
        return EMPTY
    rate = streaminfo.sample_rate_hz
    return IntegrityReport("truncated" if end < streaminfo.samples else None, (streaminfo.samples or end) / rate)


def flac_frame(head: bytes, streaminfo: StreamInfo) -> tuple[int, int] | None:
    """Read a FLAC frame header (up to 16 bytes): the samples before it and after it. Source: RFC 9639 9.1."""
    block_code, rate_code = head[2] >> 4 if len(head) > 5 else 0, head[2] & 15 if len(head) > 5 else 15
    if not block_code or rate_code == 15 or head[3] >> 4 > 10 or head[3] & 1:
        return None
    # The number is written like a UTF-8 character, but with up to seven bytes.
    ones = 8 - (head[4] ^ 0xFF).bit_length()
    if ones == 1 or ones == 8 or len(head) < 5 + max(ones, 1):
        return None
    number, at = head[4] & 0x7F >> ones, 5
    for byte in head[5 : 4 + max(ones, 1)]:
        if byte & 0xC0 != 0x80:
            return None
        number, at = number << 6 | byte & 0x3F, at + 1
    extra = {6: 1, 7: 2}.get(block_code, 0)
    if extra:
        samples = int.from_bytes(head[at : at + extra]) + 1
    elif block_code == 1:
        samples = 192
    else:
        samples = 576 << block_code - 2 if block_code < 6 else 256 << block_code - 8
    at += extra + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if len(head) <= at or _crc8(head[:at]) != head[at]:
        return None
    start = number if head[1] & 1 else number * streaminfo.block_samples
    return start, start + samples


def _crc8(header: bytes) -> int:
    crc = 0
    for byte in header:
        crc ^= byte
        for _ in range(8):
            crc = crc << 1 & 0xFF ^ (0x07 if crc & 0x80 else 0)
    return crc


_BOX_NAME = re.compile(rb"[ -~\xa9]{4}")
_SOUND_BOXES = (b"mdat", b"moov", b"moof")


def mp4_stream(tap: ByteReader) -> Parser[IntegrityReport]:
    """Walk the boxes of an MP4: the index and the sound must both be there, and whole.

    A fragmented file has no duration in its index, and none is claimed. Source: ISO 14496-12 4.2.
    """
    duration_s: float | None = None
    index = sound = fragmented = False
    while len(head := (yield from tap.peek(16))) >= 8:
        size, name, header_bytes = int.from_bytes(head[:4]), head[4:8], 8
        if size == 1 and len(head) == 16:
            size, header_bytes = int.from_bytes(head[8:16]), 16
        if not _BOX_NAME.fullmatch(name) or (size and size < header_bytes):
            # Junk after the file, or no MP4 at all.
            yield from rest_bytes(tap)
            break
        if name == b"moov" and size:
            # `mvhd` stands first.
            duration_s = _mvhd_seconds((yield from tap.peek(min(size, 1024))))
        if not size:
            yield from rest_bytes(tap)
        elif (yield from tap.skip(size)):
            return IntegrityReport("truncated", duration_s) if name in _SOUND_BOXES else _mp4(index, sound, duration_s)
        index = index or name == b"moov"
        sound = sound or name == b"mdat"
        fragmented = fragmented or name == b"moof"
    return _mp4(index, sound, None if fragmented else duration_s)


def _mp4(index: bool, sound: bool, duration_s: float | None) -> IntegrityReport:
    if index and sound:
        return IntegrityReport(None, duration_s)
    return IntegrityReport("truncated" if sound else "empty", None)


def _mvhd_seconds(moov: bytes) -> float | None:
    at = moov.find(b"mvhd")
    if at < 0 or len(moov) < at + 36:
        return None
    wide = moov[at + 4] == 1
    at += 24 if wide else 16
    scale, duration = int.from_bytes(moov[at : at + 4]), int.from_bytes(moov[at + 4 : at + (12 if wide else 8)])
    unknown = duration in (0, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
    return None if unknown or not scale else duration / scale
