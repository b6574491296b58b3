"""Check containers of recordings that gateways hardly send, by their sizes, packets and frames."""

from __future__ import annotations

import re

from .byte_reader import NO_AUDIO, ByteReader, IntegrityReport, Parser, check_end, skip_to_end

_TRUNCATED = IntegrityReport("truncated")
_COMPLETE = IntegrityReport()
_UNKNOWN_SIZE_32 = 0xFFFFFFFF


def check_au(reader: ByteReader) -> Parser[IntegrityReport]:
    """Compare the size in an AU header with the bytes received. Source: Sun's audio file format (au(4))."""
    head = yield from reader.peek(12)
    if len(head) < 12:
        return _TRUNCATED
    offset, size_bytes = int.from_bytes(head[4:8]), int.from_bytes(head[8:12])
    is_unknown = size_bytes in (0, _UNKNOWN_SIZE_32)
    return _COMPLETE if is_unknown else (yield from _check_skip(reader, offset + size_bytes))


def _check_skip(reader: ByteReader, count: int) -> Parser[IntegrityReport]:
    return _TRUNCATED if (yield from reader.skip(count)) else _COMPLETE


def check_aiff(reader: ByteReader) -> Parser[IntegrityReport]:
    """Look for the complete chunk with the samples. Source: Audio Interchange File Format 1.3 (Apple, 1989)."""
    yield from reader.skip(12)
    while len(head := (yield from reader.peek(8))) == 8:
        size_bytes = int.from_bytes(head[4:])
        if head[:4] == b"SSND" and size_bytes in (0, _UNKNOWN_SIZE_32):
            return _COMPLETE
        if (yield from reader.skip(8 + size_bytes)):
            return _TRUNCATED
        if head[:4] == b"SSND":
            return _COMPLETE
        yield from reader.skip(size_bytes % 2)
    return _TRUNCATED


def check_caf(reader: ByteReader) -> Parser[IntegrityReport]:
    """Look for the complete chunk with the samples, and for the packet table that packets of variable size need.

    Source: Apple Core Audio Format Specification 1.0.
    """
    yield from reader.skip(8)
    has_data = has_table = needs_table = False
    while len(head := (yield from reader.peek(12))) == 12:
        if head[:4] == b"caff" and has_data:
            break  # another file was joined to this one
        size_bytes = int.from_bytes(head[4:], signed=True)
        if head[:4] == b"desc":
            needs_table = int.from_bytes((yield from reader.peek(32))[28:32]) == 0
        if size_bytes < 0:
            return _COMPLETE
        if (yield from reader.skip(12 + size_bytes)):
            return _TRUNCATED
        has_data = has_data or head[:4] == b"data"
        has_table = has_table or head[:4] == b"pakt"
    return _COMPLETE if has_data and (has_table or not needs_table) else _TRUNCATED


def check_w64(reader: ByteReader) -> Parser[IntegrityReport]:
    """Look for the complete chunk with the samples. Source: Sony Pictures Digital, Wave 64 file format 1.2."""
    yield from reader.skip(40)
    while len(head := (yield from reader.peek(24))) == 24:
        size_bytes = int.from_bytes(head[16:], "little")
        is_data = head.startswith(b"data")
        if is_data and (size_bytes <= 24 or size_bytes >= 1 << 62):
            return _COMPLETE
        if size_bytes < 24 or (yield from reader.skip(size_bytes)):
            return _TRUNCATED
        if is_data:
            return _COMPLETE
        yield from reader.skip(-size_bytes % 8)
    return _TRUNCATED


def check_avi(reader: ByteReader) -> Parser[IntegrityReport]:
    """Check that each RIFF chunk is complete. Large files have several (OpenDML AVI 1.02).

    A writer that was stopped leaves the size 0 or a placeholder.
    """
    while (head := (yield from reader.peek(12)))[:4] == b"RIFF" and len(head) == 12:
        size_bytes = int.from_bytes(head[4:8], "little")
        if size_bytes in (0, _UNKNOWN_SIZE_32):
            return IntegrityReport(is_unfinished=True)
        if (yield from reader.skip(8 + size_bytes)):
            return _TRUNCATED
        yield from reader.skip(size_bytes % 2)
    return _COMPLETE


_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_BROADCAST_FLAG = 1


def check_asf(reader: ByteReader) -> Parser[IntegrityReport]:
    """Check that the data object with its packets is complete. A broadcast states no sizes.

    Source: Advanced Systems Format 01.20.06, 3.2 and 5.2.
    """
    header_bytes = int.from_bytes((yield from reader.peek(24))[16:24], "little")
    header = yield from reader.peek(min(header_bytes, 1 << 20))
    properties = header.find(_ASF_FILE_PROPERTIES)
    if len(header) < header_bytes:
        return _TRUNCATED
    flags = int.from_bytes(header[properties + 88 : properties + 92], "little") if properties >= 0 else 0
    yield from reader.skip(header_bytes)
    data_head = yield from reader.peek(50)
    if len(data_head) < 50:
        return _TRUNCATED
    data_bytes = int.from_bytes(data_head[16:24], "little")
    if not data_head.startswith(_ASF_DATA) or flags & _ASF_BROADCAST_FLAG or data_bytes <= 50:
        return _COMPLETE
    return (yield from _check_skip(reader, data_bytes))


_EBML_HEADER, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
# Parents of a live stream, whose size is unknown: their children are parsed instead.
_EBML_PARENTS = frozenset({_SEGMENT, _CLUSTER})
# What may follow a block: children of a cluster and of the segment, padding and a checksum.
_EBML_ELEMENTS = frozenset(
    (
        *(_CLUSTER, 0xE7, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0x5854, 0xEC, 0xBF),
        *(0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367),
    )
)


def check_ebml(reader: ByteReader) -> Parser[IntegrityReport]:
    """Check that the last element of a Matroska or WebM file is complete.

    The segment and the clusters of live streams have no size. Such a stream ends with any complete block. Source: RFC
    8794 (EBML), RFC 9559 (Matroska).
    """
    has_cluster = False
    while head := (yield from reader.peek(12)):
        id_bytes = 9 - head[0].bit_length()
        size_bytes = 9 - head[id_bytes].bit_length() if len(head) > id_bytes else 0
        if id_bytes > 4 or size_bytes > 8 or (has_cluster and int.from_bytes(head[:id_bytes]) not in _EBML_ELEMENTS):
            # Other data follows, or the recording is damaged.
            break
        if not size_bytes or len(head) < id_bytes + size_bytes:
            return _TRUNCATED
        element = int.from_bytes(head[:id_bytes])
        size_mask = (1 << 7 * size_bytes) - 1
        size = int.from_bytes(head[id_bytes : id_bytes + size_bytes]) & size_mask
        has_cluster = has_cluster or element == _CLUSTER
        if size == size_mask:
            if element not in _EBML_PARENTS:
                yield from skip_to_end(reader)
                break
            size = 0
        elif element == _SEGMENT and size:
            if (yield from reader.skip(id_bytes + size_bytes + size)):
                return _TRUNCATED
            return (yield from check_end(reader, None))
        if (yield from reader.skip(id_bytes + size_bytes + size)):
            return _TRUNCATED
    if not reader.position:
        return NO_AUDIO
    return (yield from check_end(reader, None)) if has_cluster else _TRUNCATED


_TS_PACKET_BYTES, _M2TS_PACKET_BYTES = 188, 192


def check_ts(reader: ByteReader) -> Parser[IntegrityReport]:
    """Check that a transport stream ends with a complete packet. Source: ISO 13818-1 2.4.3."""
    head = yield from reader.peek(2 * _M2TS_PACKET_BYTES)
    packet_bytes = _TS_PACKET_BYTES if head[_TS_PACKET_BYTES : _TS_PACKET_BYTES + 1] == b"\x47" else 0
    received_bytes = yield from skip_to_end(reader)
    return _TRUNCATED if packet_bytes and received_bytes % packet_bytes else _COMPLETE


_START_CODE = re.compile(rb"\x00\x00\x01[\xb9-\xff]", re.DOTALL)


def check_program_stream(reader: ByteReader) -> Parser[IntegrityReport]:
    """Check that an MPEG program stream ends with a complete packet. Source: ISO 13818-1 2.5.3, ISO 11172-1 2.4.3."""
    while head := (yield from reader.peek(14)):
        if _START_CODE.match(head) is None:
            is_start = len(head) < 4 and b"\x00\x00\x01".startswith(head[:3]) and any(head)
            if is_start:
                return _TRUNCATED
            yield from reader.skip(1)
            yield from reader.skip_to(_START_CODE, 4)
            continue
        if head[3] == 0xB9:
            yield from reader.skip(4)
            continue
        if head[3] == 0xBA:
            is_mpeg2 = len(head) > 4 and head[4] & 0xC0 == 0x40
            size_bytes = 14 + (head[13] & 7 if len(head) == 14 else 0) if is_mpeg2 else 12
        elif len(head) < 6:
            return _TRUNCATED
        else:
            size_bytes = 6 + int.from_bytes(head[4:6])
        if (yield from reader.skip(size_bytes)):
            return _TRUNCATED
    return _COMPLETE


# Bytes of a frame by its mode, with the mode byte. Source: RFC 4867 5.3; 3GPP TS 26.101 and 26.201, annex A.
_AMR_FRAME_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1)
_AMR_WB_FRAME_BYTES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1)
_AMR_MAGIC, _AMR_WB_MAGIC = b"#!AMR\n", b"#!AMR-WB\n"


def check_amr(reader: ByteReader) -> Parser[IntegrityReport]:
    """Check that an AMR file ends with a complete frame."""
    head = yield from reader.peek(len(_AMR_WB_MAGIC))
    is_wide = head == _AMR_WB_MAGIC
    yield from reader.skip(len(_AMR_WB_MAGIC if is_wide else _AMR_MAGIC))
    sizes = _AMR_WB_FRAME_BYTES if is_wide else _AMR_FRAME_BYTES
    frame_count = 0
    while mode := (yield from reader.peek(1)):
        if (yield from reader.skip(sizes[mode[0] >> 3 & 15])):
            return _TRUNCATED
        frame_count += 1
    return _COMPLETE if frame_count else NO_AUDIO
