"""JSON documents of results, as printed with `--json` and written to transcript files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..costs import to_usd
from ..types.json import Json
from ..types.results import RunResult, TranscriptionResult

if TYPE_CHECKING:
    from ..text.transcript_style import TranscriptStyle
    from ..types.objects import Location


def build_run_document(run: RunResult) -> dict[str, Json]:
    """Return the fields that every result has: route, cost and time."""
    document: dict[str, Json] = {
        "gateway": run.route.gateway,
        "model": run.model,
        **({"asked_model": run.route.model} if run.model != run.route.model else {}),
        "voice": run.route.voice,
        "generation_ids": list(run.generation_ids),
        "requests": run.request_count,
        "attempts": run.attempt_count,
        "cost_usd": to_usd(run.cost_nanousd),
        "cost_source": str(run.cost_source),
        **({"reported_cost_usd": to_usd(run.reported_nanousd)} if run.reported_nanousd is not None else {}),
        "first_byte_s": None if run.first_byte_s is None else round(run.first_byte_s, 3),
        "elapsed_s": round(run.elapsed_s, 3),
    }
    if run.skipped:
        document["routes"] = [
            {"gateway": route.gateway, "model": route.model, "reason": route.reason} for route in run.skipped
        ]
    return document


def build_partial_document(*, is_partial: bool, reason: str | None) -> dict[str, Json]:
    """Return the fields of a transcript that covers a part of its recording only; none if it covers all of it.

    A transcript file has these fields, and an earlier version wrote the same bytes for a complete transcript.
    """
    return {"is_partial": True, "partial_reason": reason} if is_partial else {}


def build_transcription_document(
    result: TranscriptionResult, outputs: Sequence[Location], style: TranscriptStyle
) -> dict[str, Json]:
    """Return the fields of a transcript, which has its corrections already."""
    from ..text.subtitle_formats import build_document
    from .transcript_pages import build_quality_document, find_result_suspicions

    return {
        "ok": True,
        "command": "transcribe",
        **build_document(result.transcript),
        **build_partial_document(is_partial=result.is_partial, reason=result.partial_reason),
        **build_quality_document(find_result_suspicions(result, style)),
        "outputs": [str(path) for path in outputs],
        **build_run_document(result.run),
        "warnings": list(result.warnings),
    }
