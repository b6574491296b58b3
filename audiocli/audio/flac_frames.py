"""Measure a FLAC frame by parsing its bits, without decoding the samples. Source: RFC 9639 9.2.

The size of a frame is stated nowhere. It shows whether bytes after the last frame belong to it.
"""

from __future__ import annotations

_SAMPLE_BITS = {1: 8, 2: 12, 4: 16, 5: 20, 6: 24, 7: 32}
# Channel assignments with a side channel, whose samples have one more bit: its index.
_SIDE_CHANNELS = {8: 1, 9: 0, 10: 1}
_MAX_FIXED_ORDER = 4


def measure_frame(data: bytes | bytearray, header_bytes: int, block_samples: int, default_bits: int) -> int | None:
    """Return the size in bytes of the frame at the start of these bytes, with its checksum.

    None if the frame is incomplete, or is not a frame.

    Args:
        data: The frame and what follows it.
        header_bytes: Size of the header, with its checksum.
        block_samples: Samples of each channel.
        default_bits: Bits of a sample, if the header refers to STREAMINFO.
    """
    assignment = data[3] >> 4
    channels = assignment + 1 if assignment < 8 else 2
    sample_bits = _SAMPLE_BITS.get(data[3] >> 1 & 7, default_bits)
    bits = f"{int.from_bytes(data):0{8 * len(data)}b}"
    position = 8 * header_bytes
    try:
        for channel in range(channels):
            is_side = _SIDE_CHANNELS.get(assignment) == channel
            position = _skip_subframe(bits, position, block_samples, sample_bits + is_side)
    except (ValueError, IndexError):
        return None  # the bits end, or are no frame
    end = -(-position // 8) + 2
    return end if end <= len(data) else None


def _skip_subframe(bits: str, position: int, block_samples: int, sample_bits: int) -> int:
    """Return where the subframe of one channel ends. Raises: ValueError: it has no valid end."""
    kind, has_wasted_bits = _read(bits, position, 7), bits[position + 7] == "1"
    position += 8
    if has_wasted_bits:
        start, position = position, bits.index("1", position) + 1
        sample_bits -= position - start
    if kind == 0:
        return position + sample_bits
    if kind == 1:
        return position + block_samples * sample_bits
    if 8 <= kind <= 8 + _MAX_FIXED_ORDER:
        order = kind - 8
        position += order * sample_bits
    elif 32 <= kind < 64:
        order = kind - 31
        position += order * sample_bits
        # The precision of the coefficients, the shift, and the coefficients.
        position += 9 + order * (_read(bits, position, 4) + 1)
    else:
        raise ValueError("reserved kind of subframe")
    return _skip_residual(bits, position, block_samples, order)


def _skip_residual(bits: str, position: int, block_samples: int, order: int) -> int:
    """Return where the residual of a subframe ends. Raises: ValueError: it has no valid end."""
    parameter_bits = 4 + _read(bits, position, 2)
    if parameter_bits > 5:
        raise ValueError("reserved coding of the residual")
    partition_order = _read(bits, position + 2, 4)
    position += 6
    for partition in range(1 << partition_order):
        count = (block_samples >> partition_order) - (order if partition == 0 else 0)
        parameter = _read(bits, position, parameter_bits)
        position += parameter_bits
        if parameter == (1 << parameter_bits) - 1:
            position += 5 + count * _read(bits, position, 5)
            continue
        step = 1 + parameter
        for _ in range(count):
            position = bits.index("1", position) + step
    return position


def _read(bits: str, position: int, count: int) -> int:
    """Return an unsigned number. Raises: ValueError: the bits end before."""
    return int(bits[position : position + count].ljust(count, "x"), 2)
