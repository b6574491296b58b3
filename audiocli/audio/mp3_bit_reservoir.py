"""Begin an mp3 in the middle: its frames use bits of those before them.

Source: ISO 11172-3 2.4.1.7 and 2.4.2.7, ISO 13818-3 2.4.1.7 (side information and the bit reservoir).
"""

from __future__ import annotations

from .mpeg import gapless, id3_bytes, mpeg_frame


def _data_offset(frame: bytes) -> int:
    """Tell where the bits of the sound begin: behind header, checksum and side information."""
    mpeg1, mono, has_checksum = frame[1] >> 3 & 3 == 3, frame[3] >> 6 == 3, not frame[1] & 1
    return 4 + 2 * has_checksum + ((17 if mono else 32) if mpeg1 else (9 if mono else 17))


def borrowed_bytes(frame: bytes) -> int:
    """Tell how many bytes of its sound stand in the frames before."""
    at = 4 if frame[1] & 1 else 6
    told = int.from_bytes(frame[at : at + 2])
    return told >> 7 if frame[1] >> 3 & 3 == 3 else told >> 8


def lent(frames: list[bytes], wanted: int) -> bytes:
    """Return the last bytes of sound in some frames: what the next one borrows."""
    data = b""
    for frame in reversed(frames):
        if len(data) >= wanted:
            break
        data = frame[_data_offset(frame) :] + data
    return data[-wanted:] if wanted else b""


def silent_frame(like: bytes, data: bytes) -> bytes:
    """Make a frame that sounds like nothing and has these bytes at its end, where the next one looks for them."""
    head, room = _blank(like, len(data))
    return head + bytes(room - len(data)) + data if head else b""


def tag_frame(like: bytes, frames: int, size_bytes: int) -> bytes:
    """Make the frame that tells how many there are: decoders would reckon it from the first one's bit rate.

    It tells of no padding, so that decoders have none to take off, or to leave.
    """
    told = b"Xing\0\0\0\3" + frames.to_bytes(4) + size_bytes.to_bytes(4)
    head, room = _blank(like, len(told))
    return head + told + bytes(room - len(told)) if head else b""


def _blank(like: bytes, needed: int) -> tuple[bytes, int]:
    """Return the head of a frame without sound, and how many bytes it has room for: the fewest that are enough."""
    for index in range(1, 15):
        # Without a checksum and without padding.
        header = bytes((like[0], like[1] | 1, index << 4 | like[2] & 0x0D, like[3]))
        frame, offset = mpeg_frame(header), _data_offset(header)
        if frame is not None and frame.size_bytes >= offset + needed:
            return header + bytes(offset - 4), frame.size_bytes - offset
    return b"", 0


def varies(head: bytes) -> bool:
    """Tell whether an mp3 that begins like this says that its bit rate varies."""
    head = head[id3_bytes(head[:10]) :]
    frame = mpeg_frame(head[:4])
    first = head[: frame.size_bytes] if frame is not None else b""
    return gapless(first) is not None and b"Info" not in first[:40]
