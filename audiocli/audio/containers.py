"""Check WAV, Ogg, FLAC and MP4 streams for truncation, and measure their duration."""

from __future__ import annotations

import re
from typing import NamedTuple

from .byte_reader import NO_AUDIO, ByteReader, IntegrityReport, Parser, skip_to_end
from .mpeg import parse_id3_size
from .wav import MAX_HEADER_BYTES, InvalidWav, WavHeader, parse_wav_header


def check_wav(reader: ByteReader) -> Parser[IntegrityReport]:
    """Compare the sizes in a WAV header with the bytes received.

    Placeholder sizes of writers that stream are not compared.
    """
    head_bytes = 64
    while head_bytes <= MAX_HEADER_BYTES:
        head = yield from reader.peek(head_bytes)
        try:
            header = parse_wav_header(head)
        except InvalidWav:
            return NO_AUDIO
        if header is not None:
            return (yield from _check_wav_data(reader, header))
        if len(head) < head_bytes:
            return NO_AUDIO
        head_bytes *= 2
    yield from skip_to_end(reader)
    return IntegrityReport()


def _check_wav_data(reader: ByteReader, header: WavHeader) -> Parser[IntegrityReport]:
    yield from reader.skip(header.data_offset)
    received_bytes = yield from skip_to_end(reader)
    declared_bytes = header.data_bytes
    data_bytes = received_bytes if declared_bytes is None else min(received_bytes, declared_bytes)
    # Compressed samples (ADPCM, GSM, MP3 in WAV) have no fixed size.
    duration_s = data_bytes / header.bytes_per_second if header.codec else None
    if data_bytes < header.frame_bytes:
        return NO_AUDIO
    return IntegrityReport(
        "truncated" if declared_bytes is not None and received_bytes < declared_bytes else None, duration_s
    )


_OGG_CAPTURE_PATTERN = re.compile(rb"OggS")


def check_ogg(reader: ByteReader) -> Parser[IntegrityReport]:
    """Parse the pages of an Ogg stream with Opus, Vorbis, FLAC or Speex.

    An incomplete page, or a packet that should continue on a missing page, is certain truncation. A missing
    end-of-stream flag is not: servers that stream omit it. The durations of chained streams add up.

    Source: RFC 3533, RFC 7845.
    """
    seconds, position, start, rate = 0.0, 0, 0, 0
    page_count, serial = 0, b""
    is_synced, is_packet_open = True, False
    while len(head := (yield from reader.peek(27))) == 27:
        if head[:5] != b"OggS\x00" or head[5] > 7:
            is_synced = False
            yield from reader.skip(1)
            yield from reader.skip_to(_OGG_CAPTURE_PATTERN, 4)
            continue
        lacing = (yield from reader.peek(27 + head[26]))[27:]
        missing_bytes = yield from reader.skip(27 + head[26])
        packet = (yield from reader.peek(min(sum(lacing), 64))) if head[5] & 2 else b""
        if codec := _parse_ogg_codec(packet):
            seconds += _compute_ogg_seconds(position, start, rate)
            (rate, start), position, serial = codec, 0, head[14:18]
        missing_bytes += yield from reader.skip(sum(lacing))
        granule = int.from_bytes(head[6:14], "little", signed=True)
        if granule > 0 and head[14:18] == serial:
            position = granule
        if missing_bytes and is_synced:
            return IntegrityReport("truncated", seconds + _compute_ogg_seconds(position, start, rate))
        is_packet_open = lacing[-1:] == b"\xff" and not head[5] & 4
        is_synced = True
        page_count += 1
    seconds += _compute_ogg_seconds(position, start, rate)
    if is_packet_open or (is_synced and head and b"OggS".startswith(head[:4])):
        return IntegrityReport("truncated", seconds)
    if seconds:
        return IntegrityReport(None, seconds)
    # Up to three pages may be headers only. More must hold audio, even in a codec that is not parsed here.
    return NO_AUDIO if page_count <= 3 and (rate or not page_count) else IntegrityReport()


def _compute_ogg_seconds(position: int, start: int, rate: int) -> float:
    return max(position - start, 0) / rate if rate else 0.0


def _parse_ogg_codec(packet: bytes) -> tuple[int, int] | None:
    """Parse the first packet of an Ogg stream.

    Return (ticks per second, ticks to skip before the audio), or None for an unknown codec.
    """
    if packet[:8] == b"OpusHead" and len(packet) >= 12:
        return 48_000, int.from_bytes(packet[10:12], "little")
    if packet[:7] == b"\x01vorbis" and len(packet) >= 16:
        rate = int.from_bytes(packet[12:16], "little")
    elif packet[:5] == b"\x7fFLAC" and len(packet) >= 30:
        rate = int.from_bytes(packet[27:30]) >> 4
    elif packet[:8] == b"Speex   " and len(packet) >= 40:
        rate = int.from_bytes(packet[36:40], "little")
    else:
        return None
    return (rate, 0) if rate else None


class FlacStreamInfo(NamedTuple):
    """Fields of a FLAC STREAMINFO block. `samples` is 0 if the writer streamed."""

    block_samples: int
    sample_rate_hz: int
    channels: int
    bits: int
    samples: int


def parse_stream_info(block: bytes) -> FlacStreamInfo | None:
    """Parse the 34 bytes of a STREAMINFO block. Source: RFC 9639 8.2."""
    if len(block) < 34:
        return None
    packed = int.from_bytes(block[10:18])
    rate = packed >> 44
    if not rate:
        return None
    return FlacStreamInfo(
        block_samples=int.from_bytes(block[2:4]),
        sample_rate_hz=rate,
        channels=(packed >> 41 & 7) + 1,
        bits=(packed >> 36 & 31) + 1,
        samples=packed & (1 << 36) - 1,
    )


_FLAC_SYNC = re.compile(rb"\xff[\xf8\xf9]")


def check_flac(reader: ByteReader) -> Parser[IntegrityReport]:
    """Find the last frame of a FLAC stream and compute the duration from its number.

    This also works if STREAMINFO does not state the total. A frame header is accepted if its checksum is right and its
    number is above the one before. A last frame that is incomplete goes unnoticed; only missing frames are reported.
    """
    yield from reader.skip(parse_id3_size((yield from reader.peek(10))))
    if (yield from reader.peek(4)) != b"fLaC":
        return NO_AUDIO
    yield from reader.skip(4)
    streaminfo: FlacStreamInfo | None = None
    is_last = False
    while not is_last:
        head = yield from reader.peek(4)
        if len(head) < 4:
            return NO_AUDIO
        is_last = head[0] >= 0x80
        size = int.from_bytes(head[1:4])
        yield from reader.skip(4)
        if streaminfo is None:
            streaminfo = parse_stream_info((yield from reader.peek(min(size, 34))))
        if (yield from reader.skip(size)):
            return NO_AUDIO
    if streaminfo is None:
        return IntegrityReport()
    frame_start, frame_end = -1, 0
    while (yield from reader.skip_to(_FLAC_SYNC, 2)):
        frame = parse_flac_frame((yield from reader.peek(16)), streaminfo)
        if frame is not None and frame[0] > frame_start:
            frame_start, frame_end = frame
        yield from reader.skip(2)
    if frame_start < 0:
        return NO_AUDIO
    rate = streaminfo.sample_rate_hz
    return IntegrityReport(
        "truncated" if frame_end < streaminfo.samples else None, (streaminfo.samples or frame_end) / rate
    )


def parse_flac_frame(head: bytes, streaminfo: FlacStreamInfo) -> tuple[int, int] | None:
    """Parse a FLAC frame header of up to 16 bytes. Source: RFC 9639 9.1.

    Return the first sample of the frame and the sample after it, or None if this is not a frame header.
    """
    block_code, rate_code = head[2] >> 4 if len(head) > 5 else 0, head[2] & 15 if len(head) > 5 else 15
    if not block_code or rate_code == 15 or head[3] >> 4 > 10 or head[3] & 1:
        return None
    # The frame or sample number is coded like a UTF-8 character, in up to seven bytes.
    number_bytes = 8 - (head[4] ^ 0xFF).bit_length()
    if number_bytes == 1 or number_bytes == 8 or len(head) < 5 + max(number_bytes, 1):
        return None
    number, offset = head[4] & 0x7F >> number_bytes, 5
    for byte in head[5 : 4 + max(number_bytes, 1)]:
        if byte & 0xC0 != 0x80:
            return None
        number, offset = number << 6 | byte & 0x3F, offset + 1
    size_bytes = {6: 1, 7: 2}.get(block_code, 0)
    if size_bytes:
        samples = int.from_bytes(head[offset : offset + size_bytes]) + 1
    elif block_code == 1:
        samples = 192
    else:
        samples = 576 << block_code - 2 if block_code < 6 else 256 << block_code - 8
    offset += size_bytes + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if len(head) <= offset or _compute_crc8(head[:offset]) != head[offset]:
        return None
    start = number if head[1] & 1 else number * streaminfo.block_samples
    return start, start + samples


def _compute_crc8(header: bytes) -> int:
    crc = 0
    for byte in header:
        crc ^= byte
        for _ in range(8):
            crc = crc << 1 & 0xFF ^ (0x07 if crc & 0x80 else 0)
    return crc


_BOX_TYPE = re.compile(rb"[ -~\xa9]{4}")
_REQUIRED_BOXES = (b"mdat", b"moov", b"moof")


def check_mp4(reader: ByteReader) -> Parser[IntegrityReport]:
    """Parse the top-level boxes of an MP4: the index and the media data must both be present and complete.

    The index of a fragmented file has no duration, so none is reported. Source: ISO 14496-12 4.2.
    """
    duration_s: float | None = None
    has_index = has_media = is_fragmented = False
    while len(head := (yield from reader.peek(16))) >= 8:
        size, box_type, header_bytes = int.from_bytes(head[:4]), head[4:8], 8
        if size == 1 and len(head) == 16:
            size, header_bytes = int.from_bytes(head[8:16]), 16
        if not _BOX_TYPE.fullmatch(box_type) or (size and size < header_bytes):
            # Junk after the file, or not MP4.
            yield from skip_to_end(reader)
            break
        if box_type == b"moov" and size:
            # `mvhd` is the first box in `moov`.
            duration_s = _parse_mvhd_seconds((yield from reader.peek(min(size, 1024))))
        if not size:
            yield from skip_to_end(reader)
        elif (yield from reader.skip(size)):
            return (
                IntegrityReport("truncated", duration_s)
                if box_type in _REQUIRED_BOXES
                else _build_mp4_report(has_index, has_media, duration_s)
            )
        has_index = has_index or box_type == b"moov"
        has_media = has_media or box_type == b"mdat"
        is_fragmented = is_fragmented or box_type == b"moof"
    return _build_mp4_report(has_index, has_media, None if is_fragmented else duration_s)


def _build_mp4_report(has_index: bool, has_media: bool, duration_s: float | None) -> IntegrityReport:
    if has_index and has_media:
        return IntegrityReport(None, duration_s)
    return IntegrityReport("truncated" if has_media else "empty", None)


def _parse_mvhd_seconds(moov: bytes) -> float | None:
    offset = moov.find(b"mvhd")
    if offset < 0 or len(moov) < offset + 36:
        return None
    is_64_bit = moov[offset + 4] == 1
    offset += 24 if is_64_bit else 16
    scale, duration = (
        int.from_bytes(moov[offset : offset + 4]),
        int.from_bytes(moov[offset + 4 : offset + (12 if is_64_bit else 8)]),
    )
    is_unknown = duration in (0, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
    return None if is_unknown or not scale else duration / scale
