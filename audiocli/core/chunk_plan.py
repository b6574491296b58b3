"""How a long recording is cut: heard once, its pieces chosen, and the names that what becomes of them is kept under."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .. import gateways
from ..audio.split_plan import Piece, PieceLimits, plan
from ..codecs.packet_index import Packets
from ..errors import RecordingError, UsageError
from ..threads import run_in_thread
from ..types.values import Recording, Route
from .chunk_formats import CAPTION_PIECE_S, USUAL_PIECE_S, copied_format, encoded_format, longest_piece_s
from .progress import HearingProgress
from .run_context import RunContext
from .transcription import TranscriptionTask
from .uploads import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from ..codecs.pcm_spool import PcmSpool
    from ..codecs.silence import SilenceScan

HASHED_BYTES = 1024 * 1024
KEPT_VERSION = 2


class KeptTexts(Protocol):
    def has(self, name: str) -> bool: ...

    def read(self, name: str) -> bytes | None: ...

    def write(self, name: str, content: bytes) -> None: ...

    def remove(self, names: Sequence[str]) -> None: ...


class LongTranscription(NamedTuple):
    """One `transcribe` in pieces. `longest_s` is the user's own; `by_piece`: pieces are all the times there are."""

    whole: TranscriptionTask
    stash: KeptTexts
    progress: HearingProgress
    jobs: int = 4
    longest_s: float | None = None
    by_piece: bool = False
    carries_context: bool = False
    resumes: bool = True


class Plan(NamedTuple):
    """The pieces of a recording, the format they are cut in, and the names they are kept under.

    `packets` is None where pieces are encoded, not copied; from the `tape`, if what was heard is kept there.
    """

    pieces: tuple[Piece, ...]
    format: str
    packets: Packets | None
    names: tuple[str, ...]
    duration_s: float
    is_complete: bool
    tape: PcmSpool | None = None


def needs_cutting(recording: Recording, routes: Sequence[Route], longest_s: float | None) -> bool:
    """Tell whether a recording is over what one of the routes takes at once."""
    for route in routes:
        limits = gateways.dialect(route.dialect).limits(route)
        if limits.upload_bytes is not None and recording.size_bytes > limits.upload_bytes:
            return True
        longest = min(filter(None, (limits.audio_s, longest_s)), default=None)
        if longest is not None and (recording.duration_s is None or recording.duration_s > longest):
            return True
    return False


async def planned(long: LongTranscription, routes: Sequence[Route], tools: RunContext, *, keeps_sound: bool = False) -> Plan:
    """Hear the recording through, and choose the pieces. Raises: RecordingError; UsageError: they cannot be sent.

    `keeps_sound`: they will be cut, and where they have to be encoded the recording is not decoded twice.
    """
    recording = long.whole.request.recording
    format = encoded_format(routes)
    own_s = min(long.longest_s or USUAL_PIECE_S, CAPTION_PIECE_S if long.by_piece else math.inf)
    tape = await run_in_thread(lambda: _tape(long, routes, own_s)) if keeps_sound else None
    listening = _listen(recording.path, tape)
    try:
        while (heard_s := await run_in_thread(partial(next, listening, None))) is not None:
            long.progress.heard_s = heard_s
        plan = await _chosen(long, routes, tools, listening, format, own_s)
    except BaseException as error:
        if listening.tape is not None:
            listening.tape.close()
        if isinstance(error, OSError):
            raise RecordingError(f"{recording.path} cannot be read any more: {error.strerror}") from error
        raise
    finally:
        listening.close()
    return plan


async def _chosen(
    long: LongTranscription, routes: Sequence[Route], tools: RunContext, listening: SilenceScan, format: str, own_s: float
) -> Plan:
    recording = long.whole.request.recording
    copied = copied_format(listening.packets, routes, own_s)
    packets = listening.packets if copied is not None else None
    format = copied or format
    longest_s = longest_piece_s(format, packets, routes, own_s)
    try:
        cuts = PieceLimits(longest_s)
    except ValueError as error:
        raise UsageError(f"pieces of {longest_s:g} s are too short") from error
    pieces = await run_in_thread(lambda: plan(listening.samples, listening.silences, cuts, pauses=listening.pauses))
    content = await run_in_thread(lambda: _hash(recording.path))
    how = format if packets is None else f"copied {format}"
    names = tuple(_kept_name(long, routes[0], content, piece, how) for piece in pieces)
    long.progress.pieces = len(pieces)
    long.progress.duration_s = listening.seconds
    tools.debug(f"{len(pieces)} pieces of at most {longest_s:.0f} s, as {how}")
    return Plan(pieces, format, packets, names, listening.seconds, listening.complete, listening.tape)


def _kept_name(long: LongTranscription, route: Route, content: str, piece: Piece, how: str) -> str:
    """Name a piece by the sound in it, by how it was cut, and by all that decides what is written down."""
    request = long.whole.request
    told: list[object] = [
        KEPT_VERSION,
        content,
        piece.start,
        piece.end,
        how,
        route.gateway,
        route.base_url,
        route.model,
    ]
    told += [request.timestamps, request.language, request.prompt, request.temperature, request.translates]
    told += [request.diarizes, request.speakers, long.by_piece, long.carries_context, SAMPLE_RATE_HZ]
    told.append(json.dumps(dict(request.options), sort_keys=True))
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def _hash(path: Path) -> str:
    content = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(HASHED_BYTES):
            content.update(chunk)
    return content.hexdigest()


def _tape(long: LongTranscription, routes: Sequence[Route], own_s: float) -> PcmSpool | None:
    """Have a place for what will be heard, unless its packets will be copied, or there is little room."""
    from ..codecs.pcm_spool import PcmSpool, has_room
    from ..codecs.probe import copyable_formats

    recording, folder = long.whole.request.recording, long.whole.folder
    if not recording.duration_s:
        return None
    likely = Packets(copyable_formats(recording.path), ((0.0, 0.0),), recording.size_bytes / recording.duration_s)
    if copied_format(likely, routes, own_s) is not None or not has_room(folder, recording.duration_s):
        return None
    try:
        return PcmSpool(folder)
    except OSError:
        return None  # then it is decoded twice


def _listen(path: Path, tape: PcmSpool | None) -> SilenceScan:
    """Load the codec, which takes 60 ms."""
    from ..codecs.silence import listen

    return listen(path, tape=tape)
