"""What the pieces of a long recording are: copied or encoded, in which format, and how long at most."""

from __future__ import annotations

from collections.abc import Sequence

from .. import gateways
from ..audio import split_plan
from ..codecs.packet_index import BESIDES_S, Packets
from ..errors import UsageError
from ..types.values import Route

# What pieces are encoded in: Opus takes half the bytes of mp3, and a third of the time.
ENCODED = ("opus", "ogg", "mp3", "flac", "wav")
# Copying is quick, but what is sent should not be much more than what would be encoded (3,000 bytes a second): up to a
# good mp3, or a WAV that is mono at 16 kHz. And it should not make many more pieces.
MOST_COPIED_BYTES_PER_S = 33_000
SHORTEST_COPIED_S = 300.0
# Where a gateway takes more at once: shorter pieces are sent side by side, and answered before patience ends.
USUAL_PIECE_S = 900.0
# Captions that are timed by pieces alone are as good as the pieces are short.
CAPTION_PIECE_S = 12.0


def encoded_format(routes: Sequence[Route]) -> str:
    """Choose what pieces are encoded in: the smallest that every route takes. Raises: UsageError."""
    for name in ENCODED:
        if all({name, "*"} & set(takes) for takes in _taken(routes)):
            return name
    raise UsageError("the models take no format in common that audiocli makes", hint="name one of them")


def copied_format(packets: Packets | None, routes: Sequence[Route], own_s: float) -> str | None:
    """Choose the format that pieces are copied in; None: they cannot be, or encoding them is better.

    `own_s` is how long a piece may be by the user's own wish.
    """
    if packets is None or packets.bytes_per_s > MOST_COPIED_BYTES_PER_S:
        return None
    format = packets.format_for(_taken(routes))
    if format is None:
        return None
    wanted_s = min(SHORTEST_COPIED_S, longest_piece_s(ENCODED[0], None, routes, own_s) - BESIDES_S)
    return format if longest_piece_s(format, packets, routes, own_s) >= wanted_s else None


def longest_piece_s(format: str, packets: Packets | None, routes: Sequence[Route], own_s: float) -> float:
    """Tell how long a piece may be, copied or (without packets) encoded, by the user's wish and the routes' limits."""
    longest_s = own_s
    for limits in (gateways.dialect(route.dialect).limits(route) for route in routes):
        if limits.audio_s is not None:
            longest_s = min(longest_s, limits.audio_s - (BESIDES_S if packets is not None else 0.0))
        if limits.upload_bytes is not None and packets is not None:
            longest_s = min(longest_s, packets.longest_s(limits.upload_bytes))
        elif limits.upload_bytes is not None:
            longest_s = min(longest_s, split_plan.longest_piece_s(format, limits.upload_bytes))
    return longest_s


def _taken(routes: Sequence[Route]) -> list[tuple[str, ...]]:
    return [gateways.dialect(route.dialect).upload_formats(route) for route in routes]
