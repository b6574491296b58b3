"""Check WAV, Ogg, FLAC and MP4 streams for truncation, and measure their duration."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..types.audio import TELEPHONE_PCM, PcmFormat
from .byte_reader import (
    NO_AUDIO,
    NOT_PADDING,
    TAIL_BYTES,
    ByteReader,
    IntegrityReport,
    Parser,
    build_end_report,
    check_end,
    find_trailing_text,
    skip_to_end,
)
from .flac_frames import measure_frame
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


_WAV_START = re.compile(rb"RIFF.{4}WAVEfmt ", re.DOTALL)
# Chunks that may follow the samples.
_WAV_CHUNKS = frozenset(
    name.encode()
    for name in (
        *("LIST", "fact", "PEAK", "cue ", "smpl", "inst", "plst", "note", "labl", "ltxt", "id3 ", "ID3 ", "bext"),
        *("iXML", "axml", "aXML", "chna", "_PMX", "JUNK", "junk", "PAD ", "FLLR", "afsp", "acid", "DISP", "cart"),
        *("umid", "levl", "minf", "elm1", "regn", "SAUR", "strc", "AFAn", "CDif", "LGWV", "r64m", "MD5 ", "link"),
    )
)


def _check_wav_data(reader: ByteReader, header: WavHeader) -> Parser[IntegrityReport]:
    yield from reader.skip(header.data_offset)
    if header.data_bytes is None:
        return (yield from _check_streamed_samples(reader, header))
    missing_bytes = yield from reader.skip(header.data_bytes)
    data_bytes = header.data_bytes - missing_bytes
    # Compressed samples (ADPCM, GSM, MP3 in WAV) have no fixed size.
    duration_s = data_bytes / header.bytes_per_second if header.codec else None
    if data_bytes < header.frame_bytes:
        return NO_AUDIO
    # Some writers state the size of the file, or that of the RIFF chunk, as the size of the samples.
    if missing_bytes and missing_bytes not in (header.data_offset, header.data_offset - 8):
        return IntegrityReport("truncated", duration_s)
    yield from reader.skip(header.data_bytes % 2 if (yield from reader.peek(1)) == b"\x00" else 0)
    while (chunk := (yield from reader.peek(8)))[:4] in _WAV_CHUNKS and len(chunk) == 8:
        size_bytes = int.from_bytes(chunk[4:], "little")
        if (yield from reader.skip(8 + size_bytes + size_bytes % 2)):
            return IntegrityReport(None, duration_s)
    return (yield from check_end(reader, duration_s))


def _check_streamed_samples(reader: ByteReader, header: WavHeader) -> Parser[IntegrityReport]:
    """Check samples that end with the stream: a second header or text among them is not audio."""
    start = reader.position
    is_joined = yield from reader.skip_to(_WAV_START, 16)
    data_bytes = reader.position - start
    if not is_joined and (text := find_trailing_text(reader.tail[-data_bytes:] if data_bytes else b"")):
        data_bytes -= len(text.encode())
    duration_s = data_bytes / header.bytes_per_second if header.codec else None
    audio_end = start + data_bytes
    yield from skip_to_end(reader)
    if reader.position > audio_end:
        return build_end_report(reader, audio_end, duration_s)
    return NO_AUDIO if data_bytes < header.frame_bytes else IntegrityReport(None, duration_s)


def check_pcm(reader: ByteReader, pcm: PcmFormat) -> Parser[IntegrityReport]:
    """Check raw samples. Only a WAV header or text among them shows that they are not audio."""
    header = WavHeader("pcm_s16le", pcm, pcm.frame_bytes, 0, None)
    report = yield from _check_streamed_samples(reader, header)
    if report.problem == "empty" and reader.position:
        return IntegrityReport("truncated", 0.0)
    if report.problem is None and reader.position % pcm.frame_bytes:
        return IntegrityReport("truncated", reader.position // pcm.frame_bytes / pcm.sample_rate_hz)
    return report


def check_g711(reader: ByteReader) -> Parser[IntegrityReport]:
    """Check raw G.711, whose samples have one byte, as `check_pcm` does."""
    header = WavHeader("pcm_mulaw", TELEPHONE_PCM, 1, 0, None)
    return (yield from _check_streamed_samples(reader, header))


_OGG_CAPTURE_PATTERN = re.compile(rb"OggS")


def check_ogg(reader: ByteReader) -> Parser[IntegrityReport]:
    """Parse the pages of an Ogg stream with Opus, Vorbis, FLAC or Speex.

    An incomplete page, or a packet that should continue on a missing page, is certain truncation. A missing
    end-of-stream flag is not: servers that stream omit it, so the report is `is_unfinished`. The durations of chained
    streams add up.

    Source: RFC 3533, RFC 7845.
    """
    seconds, position, start, rate = 0.0, 0, 0, 0
    page_count, serial = 0, b""
    is_synced, is_packet_open, has_end = True, False, False
    audio_end = 0
    while len(head := (yield from reader.peek(27))) == 27:
        if head[:5] != b"OggS\x00" or head[5] > 7:
            if is_synced and not any(head):
                yield from reader.skip_to(NOT_PADDING, 1)
                audio_end = reader.position
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
        if head[14:18] == serial:
            has_end = bool(head[5] & 4)
        audio_end = reader.position
        is_synced = True
        page_count += 1
    seconds += _compute_ogg_seconds(position, start, rate)
    if is_packet_open or (is_synced and head and b"OggS".startswith(head[:4])):
        return IntegrityReport("truncated", seconds)
    if seconds:
        yield from skip_to_end(reader)
        return build_end_report(reader, audio_end, seconds)._replace(is_unfinished=not has_end)
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


_FLAC_SYNC = re.compile(rb"\xff[\xf8\xf9]|fLaC[\x00\x80]\x00\x00\x22")
_FLAC_MARKER_BYTES = 8
# The largest block is 65,535 samples of eight channels with 32 bits. Frames of this size do not occur.
_MAX_FLAC_FRAME_BYTES = 4 << 20


def check_flac(reader: ByteReader) -> Parser[IntegrityReport]:
    """Find the last frame of a FLAC stream and compute the duration from its number.

    This also works if STREAMINFO does not state the total. A frame header is accepted if its checksum is right and its
    number is above the one before. The checksum of the last frame shows whether it is complete, and where it ends.
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
    last_frame, last_frame_position = bytearray(), 0
    is_joined = False
    while not is_joined and (yield from reader.skip_to(_FLAC_SYNC, _FLAC_MARKER_BYTES, last_frame)):
        head = yield from reader.peek(16)
        frame = parse_flac_header(head, streaminfo)
        if frame is not None and frame.start > frame_start:
            frame_start, frame_end = frame.start, frame.end
            last_frame.clear()
            last_frame_position = reader.position
        is_joined = head[:4] == b"fLaC" and _find_flac_frame_end(last_frame, streaminfo) == len(last_frame)
        step = 0 if is_joined else 2
        last_frame += head[:step]
        del last_frame[_MAX_FLAC_FRAME_BYTES:]
        yield from reader.skip(step)
    if frame_start < 0:
        return NO_AUDIO
    duration_s = (streaminfo.samples or frame_end) / streaminfo.sample_rate_hz
    if frame_end < streaminfo.samples:
        return IntegrityReport("truncated", duration_s)
    frame_bytes = _find_flac_frame_end(last_frame, streaminfo)
    if frame_bytes is None:
        return IntegrityReport("truncated", duration_s)
    yield from skip_to_end(reader)
    return build_end_report(reader, last_frame_position + frame_bytes, duration_s)


def _find_flac_frame_end(data: bytes | bytearray, streaminfo: FlacStreamInfo) -> int | None:
    """Return where the FLAC frame at the start of these bytes ends, without padding after it.

    None if it is incomplete or damaged. The checksum of a complete frame with its own checksum is 0. Source: RFC 9639
    9.3. In the middle of a frame it is 0 by chance, once in 65,536 bytes. Before the end of the bytes, the position
    therefore counts only if bytes follow that are recognized (padding, text, a tag or another file), or if the frame
    has this size.
    """
    crc, is_end, ends = 0, False, []
    for position, byte in enumerate(data, 1):
        crc = (crc << 8 & 0xFFFF) ^ _CRC16_TABLE[crc >> 8 ^ byte]
        # Zeros leave the checksum at 0. The first position of such a run is an end, the others are padding after it.
        if not crc and not is_end:
            ends.append(position)
        is_end = not crc
    if is_end:
        return len(data)  # with padding
    for end in reversed(ends):
        following = bytes(data[end:]).lstrip(b"\x00\t\n\r ")
        if (
            not following
            or following.startswith((b"fLaC", b"TAG", b"ID3", b"APETAGEX", b"RIFF", b"OggS"))
            or find_trailing_text(following[-TAIL_BYTES:])
        ):
            return end
    header = parse_flac_header(bytes(data[:16]), streaminfo) if ends else None
    if header is None:
        return None
    size_bytes = measure_frame(data, header.size_bytes, header.block_samples, streaminfo.bits)
    return None if size_bytes is None or _compute_crc16(data[:size_bytes]) else size_bytes


def _compute_crc16(data: bytes | bytearray) -> int:
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ _CRC16_TABLE[crc >> 8 ^ byte]
    return crc


def _build_crc16_table() -> tuple[int, ...]:
    table = []
    for index in range(256):
        crc = index << 8
        for _ in range(8):
            crc = crc << 1 & 0xFFFF ^ (0x8005 if crc & 0x8000 else 0)
        table.append(crc)
    return tuple(table)


_CRC16_TABLE = _build_crc16_table()


class FlacFrameHeader(NamedTuple):
    """A FLAC frame header. `start` is the number of its first sample. `size_bytes` includes the checksum."""

    start: int
    block_samples: int
    size_bytes: int

    @property
    def end(self) -> int:
        return self.start + self.block_samples


def parse_flac_header(head: bytes, streaminfo: FlacStreamInfo) -> FlacFrameHeader | None:
    """Parse a FLAC frame header of up to 16 bytes. Return None if it is none. Source: RFC 9639 9.1."""
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
    return FlacFrameHeader(start, samples, offset + 1)


def _compute_crc8(header: bytes) -> int:
    crc = 0
    for byte in header:
        crc ^= byte
        for _ in range(8):
            crc = crc << 1 & 0xFF ^ (0x07 if crc & 0x80 else 0)
    return crc


_BOX_TYPE = re.compile(rb"[ -~\xa9]{4}")
_REQUIRED_BOXES = (b"mdat", b"moov", b"moof")
_OPTIONAL_BOXES = frozenset(
    name.encode()
    for name in (
        *("ftyp", "free", "skip", "wide", "udta", "meta", "uuid", "sidx", "ssix", "styp", "mfra", "prft", "emsg"),
        *("pdin", "pnot", "PICT", "bloc", "beam", "junk", "meco", "ilst", "Xtra", "sefd", "inst", "thum"),
    )
)


def check_mp4(reader: ByteReader) -> Parser[IntegrityReport]:
    """Parse the top-level boxes of an MP4: the index and the media data must both be present and complete.

    The index of a fragmented file has no duration, so none is reported. FFmpeg ends fragmented files with a table of
    fragments (`mfra`), and a segment index (`sidx`) states the size of all fragments. Source: ISO 14496-12 4.2, 8.16.
    """
    duration_s: float | None = None
    has_index = has_media = is_fragmented = is_from_ffmpeg = has_end_mark = False
    indexed_end = 0
    while len(head := (yield from reader.peek(16))) >= 8:
        size, box_type, header_bytes = int.from_bytes(head[:4]), head[4:8], 8
        if size == 1 and len(head) == 16:
            size, header_bytes = int.from_bytes(head[8:16]), 16
        is_known = box_type in _REQUIRED_BOXES or box_type in _OPTIONAL_BOXES
        if not _BOX_TYPE.fullmatch(box_type) or (size and size < header_bytes):
            break
        if has_index and has_media and (box_type == b"ftyp" or not is_known):
            break  # another file, or not a box
        start = reader.position
        if box_type == b"moov" and size:
            # `mvhd` is the first box in `moov`.
            moov = yield from reader.peek(min(size, _MAX_MOOV_BYTES))
            duration_s = _parse_mvhd_seconds(moov[:1024])
            is_from_ffmpeg = b"Lavf" in moov
        if box_type == b"sidx" and size:
            sidx = yield from reader.peek(min(size, _MAX_MOOV_BYTES))
            indexed_end = max(indexed_end, start + size + _parse_sidx_bytes(sidx))
        if not size:
            yield from skip_to_end(reader)
        elif (yield from reader.skip(size)):
            if box_type in _REQUIRED_BOXES or is_fragmented:
                return IntegrityReport("truncated", duration_s)
            return _build_mp4_report(has_index, has_media, duration_s)
        has_index = has_index or box_type == b"moov"
        has_media = has_media or box_type == b"mdat"
        is_fragmented = is_fragmented or box_type == b"moof"
        has_end_mark = box_type == b"mfra" or (has_end_mark and box_type in (b"free", b"skip", b"uuid"))
    if is_fragmented:
        duration_s = None
    report = _build_mp4_report(has_index, has_media, duration_s)
    if report.problem is None:
        # The size of a fragment is below 16 MB, so the header of one begins with a zero.
        has_partial_header = is_fragmented and not has_end_mark and 0 < len(head) < 8 and not head[0]
        if indexed_end > reader.position or has_partial_header:
            return IntegrityReport("truncated", duration_s)
        is_unfinished = is_fragmented and is_from_ffmpeg and not has_end_mark and not indexed_end
        return (yield from check_end(reader, duration_s))._replace(is_unfinished=is_unfinished)
    yield from skip_to_end(reader)
    return report


_MAX_MOOV_BYTES = 64 << 10


def _parse_sidx_bytes(sidx: bytes) -> int:
    """Return the bytes between the ends of a segment index and its segments, or 0. Source: ISO 14496-12 8.16.3."""
    if len(sidx) < 32:
        return 0
    is_64_bit = sidx[8] == 1
    first_offset = int.from_bytes(sidx[28:36] if is_64_bit else sidx[24:28])
    offset = 36 if is_64_bit else 28
    count = int.from_bytes(sidx[offset + 2 : offset + 4])
    references = [
        int.from_bytes(sidx[start : start + 4]) & 0x7FFFFFFF
        for start in range(offset + 4, min(offset + 4 + 12 * count, len(sidx)), 12)
    ]
    return first_offset + sum(references) if references else 0


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
