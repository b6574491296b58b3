"""What progress lines show: the work, the share that is done, its rate, the cost so far and the time left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..console import ProgressState, format_size

if TYPE_CHECKING:
    from ..core.progress import DownloadProgress, Progress, SpeechProgress, TranscriptionProgress, UploadProgress
    from ..types.routes import Route


def describe_request(text: str, uploads: UploadProgress) -> ProgressState:
    """Describe one request: its upload, if that is large, and then `text`."""
    if uploads.sent_bytes >= uploads.total_bytes:
        return ProgressState(text)
    sent, total = format_size(uploads.sent_bytes), format_size(uploads.total_bytes)
    rate = f"{format_size(round(uploads.bytes_per_s))}/s" if uploads.sent_bytes else ""
    details = _join((rate, format_time_left(uploads.remaining_s)))
    return ProgressState(f"uploading: {sent} of {total}", uploads.sent_bytes / uploads.total_bytes, details)


def describe_download(progress: DownloadProgress) -> ProgressState:
    """Describe a download."""
    received = format_size(progress.received_bytes)
    rate = f"{format_size(round(progress.bytes_per_s))}/s" if progress.received_bytes else ""
    if not progress.total_bytes:
        return ProgressState(f"downloading: {received}", None, _join((rate,)))
    share = min(progress.received_bytes / progress.total_bytes, 1.0)
    return ProgressState(f"downloading: {received} of {format_size(progress.total_bytes)}", share, _join((rate,)))


def describe_speech(progress: SpeechProgress, ref: str) -> ProgressState:
    """Describe long speech."""
    audio = f"{progress.audio_s:.0f} s of audio"
    if progress.chunks_per_s and progress.done_chunks:
        audio += f" at {format_speed(progress.audio_s / progress.done_chunks * progress.chunks_per_s)}"
    return _describe_chunks(progress, ref, audio)


def describe_transcription(progress: TranscriptionProgress, ref: str) -> ProgressState:
    """Describe long transcription: first the search for split points, then the chunks."""
    if not progress.total_chunks:
        total = f" of {progress.duration_s:.0f}" if progress.duration_s else ""
        share = min(progress.decoded_s / progress.duration_s, 1.0) if progress.duration_s else None
        return ProgressState(f"finding split points: {progress.decoded_s:.0f}{total} s", share)
    speed = ""
    if progress.chunks_per_s and progress.duration_s:
        speed = format_speed(progress.duration_s / progress.total_chunks * progress.chunks_per_s)
    return _describe_chunks(progress, ref, speed)


def _describe_chunks(progress: Progress, ref: str, rate: str) -> ProgressState:
    from ..costs import format_cost, sum_costs

    cost = f"cost {format_cost(*sum_costs(progress.costs))}" if progress.costs else ""
    details = _join((rate, cost, format_time_left(progress.remaining_s)))
    if not progress.total_chunks:
        return ProgressState(f"{ref}: {progress.done_chunks} chunks", details=details)
    text = f"{progress.done_chunks} of {progress.total_chunks} chunks"
    return ProgressState(text, progress.done_chunks / progress.total_chunks, details)


def _join(details: tuple[str, ...]) -> tuple[str, ...]:
    """Return the details that are known."""
    return tuple(filter(None, details))


def format_speed(speed: float) -> str:
    """Format a speed relative to real time."""
    return f"{speed:.0f} × real time" if speed >= 9.95 else f"{speed:.1f} × real time"


def format_time_left(remaining_s: float | None) -> str:
    """Format the remaining time; "" while it is unknown."""
    if remaining_s is None:
        return ""
    return f"{remaining_s:.0f} s left" if remaining_s < 100 else f"{remaining_s / 60:.0f} min left"


def format_in_progress(routes: Sequence[Route]) -> str:
    """Format what an interruption means for the requests in progress; "" if none of the routes ever costs anything."""
    from .. import gateways

    is_free = all(gateways.load_dialect(route.dialect).is_free for route in routes)
    return "" if is_free else "; requests in progress may be billed"


def format_interruption(progress: Progress, cached_count: int, routes: Sequence[Route], *, can_resume: bool) -> str:
    """Format what an interrupted run of several chunks has cached, and what the finished chunks have cost."""
    from ..costs import format_run_cost, sum_costs

    total = f" of {progress.total_chunks}" if progress.total_chunks else ""
    text = f"interrupted: {cached_count}{total} chunks are cached"
    if progress.costs:
        text += f", {format_run_cost(*sum_costs(progress.costs))}"
    text += format_in_progress(routes)
    return f"{text}; run the same command again to resume" if cached_count and can_resume else text
