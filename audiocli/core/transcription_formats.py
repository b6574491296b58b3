"""Choose the format and the maximum length of the chunks of a long recording."""

from __future__ import annotations

from collections.abc import Sequence

from .. import gateways
from ..audio import chunk_boundaries
from ..codecs.packet_index import MARGIN_S, PacketIndex
from ..errors import UsageError
from ..types.routes import Route

# Formats for encoded chunks, in order of preference. Opus takes half the bytes of mp3 and a third of the time.
ENCODED_FORMATS = ("opus", "ogg", "mp3", "flac", "wav")
# A stream copy is fast, but should not send much more than an encoded chunk (3,000 bytes/s). This is the rate of a
# high-quality mp3 or of a mono WAV at 16 kHz.
MAX_COPIED_BYTES_PER_S = 33_000
# A stream copy should not need many more chunks either.
MIN_COPIED_CHUNK_S = 300.0
# Used even if a gateway accepts more: shorter chunks are sent concurrently and answered before a timeout.
DEFAULT_MAX_CHUNK_S = 900.0
# When each chunk becomes one cue, short chunks give accurate cues.
MAX_CAPTION_CHUNK_S = 12.0


def choose_encoded_format(routes: Sequence[Route]) -> str:
    """Return the format with the smallest files that every route accepts.

    Raises:
        UsageError: The routes have no format in common.
    """
    for format in ENCODED_FORMATS:
        if all({format, "*"} & set(accepted) for accepted in _list_accepted_formats(routes)):
            return format
    raise UsageError(
        "the models have no input format in common that audiocli can encode", hint="use only one of the models"
    )


def choose_copied_format(packet_index: PacketIndex | None, routes: Sequence[Route], requested_s: float) -> str | None:
    """Return the format for a stream copy, or None if copying is not possible or encoding is better.

    `requested_s` is the maximum length that the user allows.
    """
    if packet_index is None or packet_index.bytes_per_s > MAX_COPIED_BYTES_PER_S:
        return None
    format = packet_index.choose_format(_list_accepted_formats(routes))
    if format is None:
        return None
    min_useful_s = min(
        MIN_COPIED_CHUNK_S, compute_max_chunk_s(ENCODED_FORMATS[0], None, routes, requested_s) - MARGIN_S
    )
    return format if compute_max_chunk_s(format, packet_index, routes, requested_s) >= min_useful_s else None


def compute_max_chunk_s(
    format: str, packet_index: PacketIndex | None, routes: Sequence[Route], requested_s: float
) -> float:
    """Return the maximum length of a chunk in seconds, given the user's maximum and the limits of the routes.

    Chunks are stream copies if there is a `packet_index`, otherwise they are encoded.
    """
    max_chunk_s = requested_s
    for limits in (gateways.load_dialect(route.dialect).get_limits(route) for route in routes):
        if limits.max_audio_s is not None:
            max_chunk_s = min(max_chunk_s, limits.max_audio_s - (MARGIN_S if packet_index is not None else 0.0))
        if limits.max_upload_bytes is not None and packet_index is not None:
            max_chunk_s = min(max_chunk_s, packet_index.compute_max_chunk_s(limits.max_upload_bytes))
        elif limits.max_upload_bytes is not None:
            max_chunk_s = min(max_chunk_s, chunk_boundaries.compute_max_chunk_s(format, limits.max_upload_bytes))
    return max_chunk_s


def _list_accepted_formats(routes: Sequence[Route]) -> list[tuple[str, ...]]:
    return [gateways.load_dialect(route.dialect).get_upload_formats(route) for route in routes]
