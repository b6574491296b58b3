"""Walk MPEG audio and ADTS: streams of frames without a container, each with its own length in its header."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from .byte_reader import EMPTY, IntegrityReport, Parser, ByteReader, rest_bytes


class Frame(NamedTuple):
    """One frame header. Frames of one stream share `kind`; `size_bytes` is 0 where the header does not tell it."""

    kind: tuple[int, ...]
    size_bytes: int
    samples: int
    sample_rate_hz: int


_MPEG_RATES = (44_100, 48_000, 32_000)
_MPEG1_KBPS = {
    3: (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_MPEG2_KBPS = {
    3: (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    1: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_ADTS_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)


def mpeg_frame(head: bytes) -> Frame | None:
    """Read an MPEG audio frame header (4 bytes). Frames of "free" bit rate do not tell their length.

    Source: ISO 11172-3 2.4.2.3, ISO 13818-3; MPEG 2.5 is version 0.
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bitrate_index, rate_index, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 0 or bitrate_index == 15 or rate_index == 3:
        return None
    rate = _MPEG_RATES[rate_index] >> (3 - version if version else 2)
    bits_per_second = 1000 * (_MPEG1_KBPS if version == 3 else _MPEG2_KBPS)[layer][bitrate_index]
    if layer == 3:
        samples, size = 384, (12 * bits_per_second // rate + padding) * 4
    else:
        samples = 576 if layer == 1 and version != 3 else 1152
        size = samples // 8 * bits_per_second // rate + padding
    return Frame((version, layer, rate_index), size if bitrate_index else 0, samples, rate)


def adts_frame(head: bytes) -> Frame | None:
    """Read an ADTS header (7 bytes). Source: ISO 13818-7 6.2."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return None
    rate_index = head[2] >> 2 & 15
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    if rate_index >= len(_ADTS_RATES) or size < 7:
        return None
    blocks = (head[6] & 3) + 1
    kind = (head[1], head[2] & 0xFD, head[3] & 0xC0)
    return Frame(kind, size, 1024 * blocks, _ADTS_RATES[rate_index])


class Gapless(NamedTuple):
    """What the first frame of an mp3 may say instead of sound: how many frames follow, and how much of them is padding.

    `start` is what the encoder put before the sound; a decoder adds 529 samples of its own. Numbers not told are None.
    """

    frames: int | None
    size_bytes: int | None
    start: int | None
    end: int | None

    @property
    def padding(self) -> int:
        return (self.start or 0) + (self.end or 0)


def gapless(frame: bytes) -> Gapless | None:
    """Read a Xing, Info or VBRI header, given the whole first frame; None when the frame is sound.

    Source: the Xing header as LAME writes it (gabriel.mp3-tech.org/mp3infotag.html).
    """
    if len(frame) < 4:
        return None
    if frame[36:40] == b"VBRI":
        told = frame[46:54]
        return Gapless(int.from_bytes(told[4:]), int.from_bytes(told[:4]), None, None) if len(told) == 8 else None
    mpeg1, mono = frame[1] >> 3 & 3 == 3, frame[3] >> 6 == 3
    at = 4 + ((17 if mono else 32) if mpeg1 else (9 if mono else 17))
    if frame[at : at + 4] not in (b"Xing", b"Info") or len(frame) < at + 8:
        return None
    flags = int.from_bytes(frame[at + 4 : at + 8])
    at += 8
    told_numbers: list[int | None] = [None, None]
    for bit in (0, 1):
        if flags >> bit & 1:
            told_numbers[bit] = int.from_bytes(frame[at : at + 4])
            at += 4
    at += (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
    start = end = None
    if frame[at : at + 4] in (b"LAME", b"Lavf", b"Lavc") and len(frame) >= at + 24:
        both = int.from_bytes(frame[at + 21 : at + 24])
        start, end = both >> 12, both & 0xFFF
    return Gapless(told_numbers[0], told_numbers[1], start, end)


def id3_bytes(head: bytes) -> int:
    """Tell how long the ID3v2 tag is that begins here, from its first ten bytes; 0 when none does."""
    if len(head) < 10 or head[:3] != b"ID3" or any(byte & 0x80 for byte in head[6:10]):
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte
    return 10 + size + (10 if head[5] & 0x10 else 0)


def mpeg_stream(tap: ByteReader) -> Parser[IntegrityReport]:
    """Walk an mp3 (or mp2): skip tags, count frames, tell whether the last one is whole."""
    return (yield from _stream(tap, mpeg_frame, 4, _MPEG_MARK, told=gapless))


def adts_stream(tap: ByteReader) -> Parser[IntegrityReport]:
    """Walk an ADTS stream of AAC."""
    return (yield from _stream(tap, adts_frame, 7, _ADTS_MARK))


# Layer I is left out: two bytes of 0xFF in junk are padding.
_MPEG_MARK = re.compile(rb"\xff[\xe2-\xfd]|ID3")
_ADTS_MARK = re.compile(rb"\xff[\xf0\xf1\xf8\xf9]|ID3")
_TAILS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")


def _stream(
    tap: ByteReader,
    read: Callable[[bytes], Frame | None],
    header_bytes: int,
    mark: re.Pattern[bytes],
    told: Callable[[bytes], Gapless | None] | None = None,
) -> Parser[IntegrityReport]:
    """Count frames. One that is cut is only claimed when it stands where the frame before it said.

    Anything else that is not a frame is junk, in which the next frame counts only if a second one follows it: tags and
    cover pictures are full of bytes that look like a header.
    """
    seconds, frames = 0.0, 0
    kind: tuple[int, ...] | None = None
    header: Gapless | None = None
    untouched = True
    while head := (yield from tap.peek(max(header_bytes, 11))):
        if tag_bytes := id3_bytes(head):
            yield from tap.skip(tag_bytes)
            continue
        if kind is not None and head.startswith(_TAILS):
            yield from rest_bytes(tap)
            break
        frame = read(head)
        if frame is not None and not frame.size_bytes:
            if untouched:
                yield from rest_bytes(tap)
                return IntegrityReport()
            frame = None
        in_step = frame is not None and frame.kind == kind
        if frame is None or not (in_step or (yield from _followed(tap, frame, read, header_bytes))):
            if kind is not None and len(head) < header_bytes and head[:1] == b"\xff":
                return IntegrityReport("truncated", seconds)
            kind, untouched = None, False
            yield from tap.skip(1)
            yield from tap.skip_to(mark, 3)
            continue
        first, kind, untouched = not frames and header is None, frame.kind, False
        if first and told is not None:
            header = told((yield from tap.peek(frame.size_bytes)))
        if (yield from tap.skip(frame.size_bytes)):
            return IntegrityReport("truncated", seconds)
        if first and header is not None:
            padding_s = header.padding / frame.sample_rate_hz
        else:
            frames += 1
            seconds += frame.samples / frame.sample_rate_hz
    if not frames:
        return EMPTY
    if header is None:
        return IntegrityReport(None, seconds)
    if header.frames and header.size_bytes and frames < header.frames and tap.passed < header.size_bytes:
        # More frames and more bytes were promised than came.
        return IntegrityReport("truncated", seconds)
    return IntegrityReport(None, max(seconds - padding_s, 0.0))


def _followed(tap: ByteReader, frame: Frame, read: Callable[[bytes], Frame | None], header_bytes: int) -> Parser[bool]:
    """Tell whether another frame of the same kind, a tag, or exactly the end comes after this one."""
    ahead = yield from tap.peek(frame.size_bytes + 11)
    rest = ahead[frame.size_bytes :]
    if not rest or rest.startswith(_TAILS):
        return len(ahead) >= frame.size_bytes
    after = read(rest)
    return after is not None and after.kind == frame.kind


def repeats(head: bytes) -> bool:
    """Tell whether a second frame of the same kind stands where the first one ends: chance makes one, hardly two."""
    for read, header_bytes in ((mpeg_frame, 4), (adts_frame, 7)):
        first = read(head[:header_bytes])
        if first is None or not first.size_bytes:
            continue
        second = read(head[first.size_bytes : first.size_bytes + header_bytes])
        if second is not None and second.kind == first.kind:
            return True
    return False
