"""What is told of finished work in JSON: on stdout, on stderr, and in the files of transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..amounts import usd_number
from ..types.values import Json, RunResult, TranscriptionResult


def served_document(served: RunResult) -> dict[str, Json]:
    """The part of a JSON receipt that tells who served and what it took."""
    document: dict[str, Json] = {
        "gateway": served.route.gateway,
        "model": served.model,
        **({"asked_model": served.route.model} if served.model != served.route.model else {}),
        "voice": served.route.voice,
        "generation_ids": list(served.generation_ids),
        "requests": served.requests,
        "attempts": served.attempts,
        "cost_usd": usd_number(served.cost_nanousd),
        "cost_source": str(served.cost_source),
        "first_byte_s": None if served.first_byte_s is None else round(served.first_byte_s, 3),
        "elapsed_s": round(served.elapsed_s, 3),
    }
    if served.skipped:
        document["routes"] = [
            {"gateway": route.gateway, "model": route.model, "reason": route.reason} for route in served.skipped
        ]
    return document


def transcription_document(receipt: TranscriptionResult, outputs: Sequence[Path]) -> dict[str, Json]:
    from ..text.subtitle_formats import document

    return {
        "ok": True,
        "command": "transcribe",
        **document(receipt.transcript),
        "outputs": [str(path) for path in outputs],
        **served_document(receipt.run),
        "warnings": list(receipt.warnings),
    }
