"""Transcripts that were paid for, as they are kept: all that any output can be made from, and who served."""

from __future__ import annotations

import json
from typing import NamedTuple

from ...gateways.base import as_count, as_list, as_number, as_object, as_text
from ...gateways.base import read_json as parsed
from ...text.line_breaking import CaptionLimits
from ...text.subtitle_formats import document, read_document, render
from ...types.outcomes import CostSource
from ...types.values import Json, Route, RunResult, Timestamps, TranscriptionResult
from ..result_documents import transcription_document

KEPT_VERSION = 1


class CachedTranscript(NamedTuple):
    """A transcript from an earlier run; `asked` is how finely times were asked for, whatever came."""

    receipt: TranscriptionResult
    asked: Timestamps
    has_reply: bool


def kept_content(receipt: TranscriptionResult, asked: Timestamps, *, keeps_reply: bool) -> bytes:
    """Write a transcript as it is kept. A reply that may not be text survives as escapes."""
    served = receipt.run
    told: dict[str, Json] = {
        "version": KEPT_VERSION,
        "asked": asked.value,
        "transcript": document(receipt.transcript),
        "reply": receipt.reply.decode("utf-8", "surrogateescape") if keeps_reply else None,
        "served": {
            "gateway": served.route.gateway,
            "asked_model": served.route.model,
            "model": served.model,
            "requests": served.requests,
            "attempts": served.attempts,
            "cost_nanousd": served.cost_nanousd,
            "cost_source": served.cost_source.value,
            "generation_ids": list(served.generation_ids),
            "first_byte_s": served.first_byte_s,
            "elapsed_s": served.elapsed_s,
        },
        "warnings": list(receipt.warnings),
        "is_partial": receipt.is_partial,
    }
    return json.dumps(told, allow_nan=False).encode()


def read_kept(content: bytes | None, route: Route) -> CachedTranscript | None:
    """Read a transcript that `route` is known to have served; None: there is none, or it cannot be read."""
    told = as_object(parsed(content)) if content else {}
    try:
        asked = Timestamps(as_text(told.get("asked")) or "none")
    except ValueError:
        return None
    if told.get("version") != KEPT_VERSION or not isinstance(told.get("transcript"), dict):
        return None
    transcript = read_document(as_object(told["transcript"]))
    served = as_object(told.get("served"))
    reply = as_text(told.get("reply"))
    source = as_text(served.get("cost_source"))
    return CachedTranscript(
        TranscriptionResult(
            run=RunResult(
                route=route,
                model=as_text(served.get("model")) or route.model,
                requests=as_count(served.get("requests")) or 0,
                attempts=as_count(served.get("attempts")) or 0,
                cost_nanousd=as_count(served.get("cost_nanousd")),
                cost_source=CostSource(source) if source in set(CostSource) else CostSource.UNKNOWN,
                generation_ids=tuple(filter(None, map(as_text, as_list(served.get("generation_ids"))))),
                first_byte_s=as_number(served.get("first_byte_s")),
                elapsed_s=as_number(served.get("elapsed_s")) or 0.0,
            ),
            transcript=transcript,
            reply=b"" if reply is None else reply.encode("utf-8", "surrogateescape"),
            warnings=tuple(filter(None, map(as_text, as_list(told.get("warnings"))))),
            is_partial=told.get("is_partial") is True,
        ),
        asked,
        reply is not None,
    )


def rendered(receipt: TranscriptionResult, format: str, shape: CaptionLimits, *, by_word: bool) -> bytes:
    """Write a transcript in one format; the same transcript gives the same bytes at any time."""
    if format == "verbose_json":
        return receipt.reply
    if format == "json":
        text = json.dumps(transcription_document(receipt, ()), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    else:
        text = render(receipt.transcript, format, shape=shape, by_word=by_word)
    return text.encode("utf-8", "replace")
