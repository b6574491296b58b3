"""Find what is selected of a recording: ranges, one of several tracks, or each channel separately.

Each range of each channel is a part, which is transcribed like a recording (`selected_transcription`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .. import gateways
from ..audio.chunk_boundaries import compute_max_chunk_s
from ..audio.formats import sniff_format
from ..audio.signatures import SNIFF_BYTES
from ..errors import RecordingError, UsageError
from ..pricing import sum_estimates
from ..storage.response_cache import ResponseCache
from ..text.iso_639 import is_same_language
from ..threads import run_in_thread
from ..types.audio import AudioTrack, Recording, Selection, TimeRange
from ..types.ledger import Estimate
from ..types.routes import Route
from .transcription import estimate, probe_recording
from .verdicts import format_time

# Lossless, and half the size of WAV. Every gateway that needs another format gets it from this one.
PART_FORMAT = "flac"
# Containers that may have several audio tracks.
MULTI_TRACK_FORMATS = frozenset({"mp4", "m4a", "m4b", "mov", "mkv", "mka", "webm", "ts", "avi", "wma", "mpeg", "3gp"})


def list_tracks(path: Path) -> tuple[AudioTrack, ...]:
    """Return the audio tracks of a recording. Raises: RecordingError, OSError."""
    # Imported here because loading the codec takes 60 ms.
    from ..codecs.probe import list_tracks

    return list_tracks(path)


async def resolve_selection(path: Path, name: str, selection: Selection, language: str | None) -> Selection:
    """Return the selection for one recording: with the number of the track, and the indexes of the channels.

    Without a track, one in the requested language is preferred to the one that a player would choose. What selects
    everything is left out, so that equal selections share their paid results.

    Raises:
        UsageError: The recording does not have the track or a channel.
        RecordingError: The recording cannot be read.
    """
    has_channels = bool(selection.channels or selection.split_channels)
    prefers_language = selection.track is None and language is not None and _may_have_tracks(path)
    if selection.track is None and not has_channels and not prefers_language:
        return selection
    try:
        tracks = await run_in_thread(partial(list_tracks, path))
    except OSError as error:
        raise RecordingError(f"cannot read {name}: {error.strerror}") from error
    except RecordingError as error:
        if selection.track is None and not has_channels:
            return selection  # the check of the recording has a better message
        error.message = error.message.replace(str(path), name)
        raise
    track = _choose_track(tracks, selection.track, language, name)
    selection = selection._replace(track=None if track.is_default else track.number)
    if not has_channels:
        return selection
    missing = [channel for channel in selection.channels if channel >= track.channels]
    if missing or len(selection.channel_names) > track.channels:
        count = "one channel" if track.channels == 1 else f"{track.channels} channels"
        wanted = f"--channel {missing[0] + 1}" if missing else f"{len(selection.channel_names)} speakers"
        raise UsageError(f"{wanted}: {name} has {count}")
    if track.channels == 1:
        return selection._replace(channels=(), split_channels=False, channel_names=())
    return selection._replace(channels=selection.channels or tuple(range(track.channels)))


def _may_have_tracks(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            format = sniff_format(file.read(SNIFF_BYTES))
    except OSError:
        return False
    return format is None or format.name in MULTI_TRACK_FORMATS


def _choose_track(
    tracks: Sequence[AudioTrack], wanted: int | str | None, language: str | None, name: str
) -> AudioTrack:
    """Return the wanted track, or the one in the language, or the default one. Raises: UsageError."""
    default = next(track for track in tracks if track.is_default)
    if wanted is None:
        return next((track for track in (default, *tracks) if _has_language(track, language)), default)
    if isinstance(wanted, int):
        found = tracks[wanted - 1] if wanted <= len(tracks) else None
    else:
        found = next((track for track in tracks if _has_language(track, wanted)), None)
    if found is None:
        listed = ", ".join(f"{track.number} ({track.language or 'unknown language'})" for track in tracks)
        raise UsageError(f"--track {wanted}: {name} has no such audio track", hint=f"audio tracks: {listed}")
    return found


async def probe_selected(path: Path, name: str, selection: Selection) -> Recording:
    """Probe a recording, and return it with a resolved selection. It is truncated only if the end is selected.

    Raises:
        RecordingError: The file cannot be read or has no audio.
    """
    recording = await probe_recording(path, name, selection.track if isinstance(selection.track, int) else None)
    ends = [time_range.end_s for time_range in selection.ranges] or [None]
    has_end = any(end_s is None or end_s >= recording.duration_s for end_s in ends)
    return recording._replace(selection=selection, is_truncated=recording.is_truncated and has_end)


def _has_language(track: AudioTrack, language: str | None) -> bool:
    return track.language is not None and language is not None and is_same_language(track.language, language)


def plan_parts(recording: Recording, name: str) -> tuple[Recording, ...]:
    """Return the parts that are transcribed, each with its length and its own selection.

    Raises:
        UsageError: A range starts after the end of the recording.
    """
    selection = recording.selection
    if selection.is_everything:
        return (recording,)
    parts = []
    channels: Sequence[int | None] = selection.channels if selection.split_channels else (None,)
    for channel in channels:
        for time_range in selection.ranges or (None,):
            start_s, end_s = (0.0, None) if time_range is None else time_range
            if start_s >= recording.duration_s and recording.is_duration_exact:
                raise UsageError(
                    f"--range {format_range(TimeRange(start_s, end_s))}: {name} ends at "
                    f"{format_time(recording.duration_s)}"
                )
            stop_s = recording.duration_s if end_s is None else min(end_s, recording.duration_s)
            parts.append(
                recording._replace(
                    duration_s=max(stop_s - start_s, 0.0),
                    is_truncated=recording.is_truncated and (end_s is None or end_s >= recording.duration_s),
                    selection=Selection(
                        ranges=() if time_range is None else (time_range,),
                        track=selection.track,
                        channels=selection.channels if channel is None else (channel,),
                    ),
                )
            )
    return tuple(parts)


def format_range(time_range: TimeRange) -> str:
    """Format a range of a recording for a message."""
    end = "" if time_range.end_s is None else format_time(time_range.end_s)
    return f"{format_time(time_range.start_s)}-{end}"


def estimate_parts(parts: Sequence[Recording], route: Route, cache: ResponseCache) -> Estimate:
    """Estimate the cost of all parts. Each of them is at least one request."""
    return sum_estimates([estimate(part, route, cache) for part in parts])


def count_requests(parts: Sequence[Recording], routes: Sequence[Route], max_chunk_s: float | None) -> int:
    """Estimate how many requests the parts need."""
    limits = [gateways.load_dialect(route.dialect).get_limits(route) for route in routes]
    max_s = min(filter(None, (*(limit.max_audio_s for limit in limits), max_chunk_s)), default=math.inf)
    for max_bytes in filter(None, (limit.max_upload_bytes for limit in limits)):
        if any(not part.selection.is_everything for part in parts):
            max_s = min(max_s, compute_max_chunk_s(PART_FORMAT, max_bytes))
    return sum(max(1, math.ceil(part.duration_s / max_s)) for part in parts)
