"""Build the frames that an MP3 needs to start in the middle.

Its frames use bits of previous frames (the bit reservoir).

Source: ISO 11172-3 2.4.1.7 and 2.4.2.7, ISO 13818-3 2.4.1.7 (side information and the bit reservoir).
"""

from __future__ import annotations

from .mpeg import parse_gapless_info, parse_id3_size, parse_mpeg_header


def _compute_main_data_offset(frame: bytes) -> int:
    """Return the offset of the main data, after header, checksum and side information."""
    is_mpeg1, is_mono, has_checksum = frame[1] >> 3 & 3 == 3, frame[3] >> 6 == 3, not frame[1] & 1
    return 4 + 2 * has_checksum + ((17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17))


def parse_reservoir_bytes(frame: bytes) -> int:
    """Return how many bytes of main data precede this frame (`main_data_begin`)."""
    offset = 4 if frame[1] & 1 else 6
    main_data_begin = int.from_bytes(frame[offset : offset + 2])
    return main_data_begin >> 7 if frame[1] >> 3 & 3 == 3 else main_data_begin >> 8


def read_reservoir_tail(frames: list[bytes], count: int) -> bytes:
    """Return the last `count` bytes of main data in some frames, which the next frame refers to."""
    data = b""
    for frame in reversed(frames):
        if len(data) >= count:
            break
        data = frame[_compute_main_data_offset(frame) :] + data
    return data[-count:] if count else b""


def build_silent_frame(template: bytes, data: bytes) -> bytes:
    """Build a silent frame that ends with these bytes, where the next frame looks for them.

    Return b"" if no frame is large enough.
    """
    header, capacity = _build_empty_frame(template, len(data))
    return header + bytes(capacity - len(data)) + data if header else b""


def build_xing_frame(template: bytes, frame_count: int, size_bytes: int) -> bytes:
    """Build the frame that states the frame count. Decoders would otherwise estimate it from the first bit rate.

    It declares no padding, so that decoders trim nothing.
    """
    tag = b"Xing\0\0\0\3" + frame_count.to_bytes(4) + size_bytes.to_bytes(4)
    header, capacity = _build_empty_frame(template, len(tag))
    return header + tag + bytes(capacity - len(tag)) if header else b""


def _build_empty_frame(template: bytes, min_bytes: int) -> tuple[bytes, int]:
    """Return the header of the smallest frame without audio that holds at least `min_bytes`, and its capacity in bytes.

    Return (b"", 0) if no frame is large enough.
    """
    for bitrate_index in range(1, 15):
        # No checksum, no padding.
        header = bytes((template[0], template[1] | 1, bitrate_index << 4 | template[2] & 0x0D, template[3]))
        frame, offset = parse_mpeg_header(header), _compute_main_data_offset(header)
        if frame is not None and frame.size_bytes >= offset + min_bytes:
            return header + bytes(offset - 4), frame.size_bytes - offset
    return b"", 0


def has_vbr_header(head: bytes) -> bool:
    """Return whether an MP3 that begins with these bytes declares a variable bit rate."""
    head = head[parse_id3_size(head[:10]) :]
    frame = parse_mpeg_header(head[:4])
    first = head[: frame.size_bytes] if frame is not None else b""
    return parse_gapless_info(first) is not None and b"Info" not in first[:40]
