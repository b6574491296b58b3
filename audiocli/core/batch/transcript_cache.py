"""Serialize cached transcripts.

A record has everything that is needed to render any output, and the result of the run that produced it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ...gateways.base import as_count, as_list, as_number, as_object, as_text, read_json
from ...text.format_names import MARKED_FORMATS
from ...text.subtitle_formats import build_document, parse_document
from ...text.transcript_formats import correct, render_formatted
from ...text.transcript_style import MediaSource, TranscriptStyle
from ...types.json import Json
from ...types.ledger import CostSource
from ...types.requests import Timestamps, TranscriptionRequest
from ...types.results import RunResult, TranscriptionResult
from ...types.routes import Route
from ..result_documents import build_transcription_document
from ..transcript_pages import build_page, choose_media, find_result_suspicions, get_title

TRANSCRIPT_VERSION = 1


class CachedTranscript(NamedTuple):
    """A transcript of an earlier run.

    `requested_timestamps` is what was requested, which may differ from what the gateway returned.
    """

    result: TranscriptionResult
    requested_timestamps: Timestamps
    has_raw_response: bool


def serialize_transcript(
    result: TranscriptionResult, requested_timestamps: Timestamps, *, include_raw_response: bool
) -> bytes:
    """Return a transcript as a JSON record. Bytes of the response that are not UTF-8 become surrogate escapes."""
    run = result.run
    record: dict[str, Json] = {
        "version": TRANSCRIPT_VERSION,
        "asked": requested_timestamps.value,
        "transcript": build_document(result.transcript),
        "reply": result.raw_response.decode("utf-8", "surrogateescape") if include_raw_response else None,
        "served": {
            "gateway": run.route.gateway,
            "asked_model": run.route.model,
            "model": run.model,
            "requests": run.request_count,
            "attempts": run.attempt_count,
            "cost_nanousd": run.cost_nanousd,
            "cost_source": run.cost_source.value,
            "generation_ids": list(run.generation_ids),
            "first_byte_s": run.first_byte_s,
            "elapsed_s": run.elapsed_s,
        },
        "warnings": list(result.warnings),
        **_build_verdict(result),
    }
    return json.dumps(record, allow_nan=False).encode()


def serialize_result(result: TranscriptionResult, request: TranscriptionRequest) -> bytes:
    """Return the record of the result of a request."""
    return serialize_transcript(result, request.timestamps, include_raw_response=request.keep_raw_response)


def update_transcript(content: bytes | None, result: TranscriptionResult) -> bytes | None:
    """Return a record with the verdict and the warnings of `result`. None if the record is invalid."""
    record = as_object(read_json(content, keep_surrogates=True)) if content else {}
    if not record:
        return None
    record["warnings"] = list(result.warnings)
    return json.dumps({**record, **_build_verdict(result)}, allow_nan=False).encode()


def _build_verdict(result: TranscriptionResult) -> dict[str, Json]:
    return {
        "is_partial": result.is_partial,
        "partial_reason": result.partial_reason,
        "missing_s": [list(span) for span in result.missing_s],
        "missed_speech_s": result.missed_speech_s,
        "is_accepted": result.is_accepted,
        "is_checked": result.is_checked,
        # Records of earlier versions do not have these.
        **({} if result.silences_s is None else {"silences_s": [list(span) for span in result.silences_s]}),
        **({"speechless_s": [list(span) for span in result.speechless_s]} if result.speechless_s else {}),
    }


def may_be_partial(content: bytes | None) -> bool:
    """Return whether a record is that of a partial transcript, without parsing it.

    Every quotation mark inside a string is escaped, so the bytes that are searched are a key and its value.
    """
    return content is not None and b'"is_partial": true' in content


def parse_transcript(content: bytes | None, route: Route) -> CachedTranscript | None:
    """Parse a record that was stored for `route`. Return None if there is none or it is invalid."""
    record = as_object(read_json(content)) if content else {}
    try:
        requested_timestamps = Timestamps(as_text(record.get("asked")) or "none")
    except ValueError:
        return None
    if record.get("version") != TRANSCRIPT_VERSION or not isinstance(record.get("transcript"), dict):
        return None
    transcript = parse_document(as_object(record["transcript"]))
    stored_run = as_object(record.get("served"))
    raw_text = as_text(record.get("reply"))
    if content and raw_text and "\ufffd" in raw_text:  # perhaps bytes that are not UTF-8
        raw_text = as_text(as_object(read_json(content, keep_surrogates=True)).get("reply"))
    try:
        raw_response = None if raw_text is None else raw_text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
    cost_source = as_text(stored_run.get("cost_source"))
    return CachedTranscript(
        TranscriptionResult(
            run=RunResult(
                route=route,
                model=as_text(stored_run.get("model")) or route.model,
                request_count=as_count(stored_run.get("requests")) or 0,
                attempt_count=as_count(stored_run.get("attempts")) or 0,
                cost_nanousd=as_count(stored_run.get("cost_nanousd")),
                cost_source=CostSource(cost_source) if cost_source in set(CostSource) else CostSource.UNKNOWN,
                generation_ids=tuple(filter(None, map(as_text, as_list(stored_run.get("generation_ids"))))),
                first_byte_s=as_number(stored_run.get("first_byte_s")),
                elapsed_s=as_number(stored_run.get("elapsed_s")) or 0.0,
            ),
            transcript=transcript,
            raw_response=raw_response or b"",
            warnings=tuple(filter(None, map(as_text, as_list(record.get("warnings"))))),
            is_partial=record.get("is_partial") is True,
            # Version 0.1 stored only truncated recordings as partial, with this warning.
            partial_reason=as_text(record.get("partial_reason")) or _find_truncation_warning(record),
            missing_s=tuple(_parse_spans(record.get("missing_s"))),
            missed_speech_s=as_number(record.get("missed_speech_s")),
            is_accepted=record.get("is_accepted") is True,
            is_checked=record.get("is_checked") is not False,
            silences_s=tuple(_parse_spans(record["silences_s"])) if "silences_s" in record else None,
            speechless_s=tuple(_parse_spans(record.get("speechless_s"))),
        ),
        requested_timestamps,
        raw_response is not None,
    )


def _find_truncation_warning(record: Mapping[str, Json]) -> str | None:
    if record.get("is_partial") is not True:
        return None
    warnings = (as_text(warning) or "" for warning in as_list(record.get("warnings")))
    return next((warning for warning in warnings if "breaks off" in warning), "the transcript is partial")


def _parse_spans(value: Json) -> Iterator[tuple[float, float]]:
    for span in map(as_list, as_list(value)):
        numbers = [number for number in map(as_number, span) if number is not None]
        if len(numbers) == 2:
            yield numbers[0], numbers[1]


def render_output(
    result: TranscriptionResult, format: str, style: TranscriptStyle, *, source: Path | None, path: Path | None
) -> bytes:
    """Return the content of the output at `path` of a recording, as `render_transcript` does.

    Raises:
        RecordingError: The recording cannot be embedded.
    """
    media = choose_media(format, source, path, style)
    return render_transcript(result, format, style, title=get_title(source), media=media)


def render_transcript(
    result: TranscriptionResult,
    format: str,
    style: TranscriptStyle,
    *,
    title: str = "",
    media: MediaSource | None = None,
) -> bytes:
    """Return a transcript in one output format. The same arguments always give the same bytes.

    Args:
        title: Name of the recording, for documents.
        media: The recording, for a page that plays it.

    Raises:
        AccessError: The format needs a library that is not installed.
        UsageError: A correction takes too long.
    """
    if format == "verbose_json":
        return result.raw_response
    corrected = result._replace(transcript=correct(result.transcript, style))
    if format == "json":
        document = build_transcription_document(corrected, (), style)
        text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
        return text.encode("utf-8", "replace")
    suspicions = find_result_suspicions(corrected, style) if format in MARKED_FORMATS else ()
    return render_formatted(corrected.transcript, format, style, build_page(corrected, suspicions, media, title))
