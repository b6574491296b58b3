"""Transcription responses of all gateways. One parser, because they differ only in the fields that they omit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ..errors import InvalidResponse
from ..text.cues import normalize_transcript
from ..text.languages import find_language_code
from ..text.line_breaking import has_visible_text, join_words
from ..text.sounds import locate_entities, remove_events
from ..text.speakers import label_segments
from ..text.untimed import cover_text
from ..types.json import Json
from ..types.ledger import Usage
from ..types.transcripts import Entity, Segment, Transcript, Word
from . import error_responses
from .base import (
    as_count,
    as_list,
    as_nanousd,
    as_number,
    as_object,
    as_text,
    get_media_type,
    parse_upstream_cost,
    quote_invalid_cost,
    read_json,
    remove_bom,
)

# Error messages of proxies in plain text, which may have status 200.
_PROXY_ERROR = re.compile(
    rb"\s*(?:error\b|(?:internal )?server error|bad gateway|gateway time-?out|service (?:temporarily )?unavailable"
    rb"|not found|unauthorized|forbidden|too many requests|upstream )",
    re.IGNORECASE,
)

# `type` of an entry of `words` that is a sound (OpenRouter, official Python client 1.3.84).
_EVENT_TYPE = "audio_event"

# [[hours:]minutes:]seconds, as in captions.
_CLOCK = re.compile(r"\s*(?:(?:(\d{1,4}):)?(\d{1,4}):)?(\d{1,9}(?:[.,]\d{1,9})?)\s*s?\s*")


def parse_response(body: bytes, headers: Mapping[str, str]) -> Transcript:
    """Parse the body of a response with status 200: JSON with or without details, or plain text.

    Raises:
        AttemptError: The body holds an error.
        InvalidResponse: The body is empty, HTML, or has no transcript.
    """
    request_id = error_responses.parse_request_id(headers)
    if not body.strip():
        raise InvalidResponse("200 with an empty body", request_id=request_id)
    payload = read_json(body)
    if isinstance(payload, list) and any(as_text(as_object(item).get("text")) for item in payload):
        payload = {"segments": payload}
    if isinstance(payload, dict):
        error = error_responses.find_embedded_error(payload, headers)
        if error is not None:
            raise error
        return parse_transcript(payload, request_id)
    media_type = get_media_type(headers)
    is_plain_text = payload is None and media_type == "text/plain" and body.lstrip()[:1] not in (b"<", b"{")
    if is_plain_text and not _PROXY_ERROR.match(body):
        # Some servers return text although JSON is requested. The Content-Type decides.
        text = _decode_text(body)
        if text is None:
            raise InvalidResponse("200 with text that is not UTF-8", request_id=request_id)
        return Transcript(text=remove_bom(text).strip())
    is_html = media_type == "text/html" or body.lstrip()[:1] == b"<"
    content = "an HTML page" if is_html else "a body that is not a transcript"
    raise InvalidResponse(f"200 with {content}", request_id=request_id)


def parse_transcript(payload: Mapping[str, Json], request_id: str | None = None) -> Transcript:
    """Parse the JSON object of a transcript.

    Raises:
        InvalidResponse: The object has no transcript.
    """
    segments = tuple(filter(None, map(_parse_segment, as_list(payload.get("segments")))))
    entries = [(as_object(item), _parse_word(as_object(item))) for item in as_list(payload.get("words"))]
    events = tuple(word for item, word in entries if word is not None and item.get("type") == _EVENT_TYPE)
    words = tuple(word for item, word in entries if word is not None and item.get("type") != _EVENT_TYPE)
    segments = tuple(segment._replace(text=remove_bom(segment.text)) for segment in segments[:1]) + segments[1:]
    words = tuple(word._replace(text=remove_bom(word.text)) for word in words[:1]) + words[1:]
    words = tuple(word for word in words if word.text)
    text = as_text(payload.get("text"))
    if text is None and not segments and not words and not events:
        raise InvalidResponse("200 without a transcript", request_id=request_id)
    if events:
        names = [(word.text, item.get("type") == _EVENT_TYPE) for item, word in entries if word is not None]
        text = None if text is None else remove_events(text, names)
        segments = tuple(segment._replace(text=remove_events(segment.text, names)) for segment in segments)
        segments = tuple(segment for segment in segments if has_visible_text(segment.text))
    if text is None or not has_visible_text(text):
        text = join_words([segment.text for segment in segments] or [word.text for word in words])
    covered = cover_text(remove_bom(text).strip(), segments)
    segments = label_segments(covered.text, covered.segments, words)
    return normalize_transcript(
        Transcript(
            text=covered.text,
            language=_parse_language(payload),
            duration_s=_parse_recording_duration_s(payload, covered.segments, words),
            segments=segments,
            words=words,
            usage=parse_usage(payload),
            untimed_letters=covered.untimed_letters,
            events=events,
            entities=_parse_entities(payload, covered.text),
            confidence=_parse_confidence(payload.get("confidence")),
            language_confidence=_parse_confidence(payload.get("language_confidence")),
        )
    )


def _decode_text(body: bytes) -> str | None:
    """Decode a plain text: UTF-8, otherwise Windows-1252 unless it has control characters. None if it is binary."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        text = body.decode("cp1252", "replace")
    return None if any(char < " " and not char.isspace() for char in text) or "\ufffd" in text else text


def parse_usage(payload: Mapping[str, Json]) -> Usage:
    """Parse any of the three formats of `usage`. TheRouter bills the top-level `duration`."""
    usage = as_object(payload.get("usage"))
    audio_s = _parse_duration_s(usage.get("seconds"))
    return Usage(
        cost_nanousd=as_nanousd(usage.get("cost")),
        audio_s=_parse_duration_s(payload.get("duration")) if audio_s is None else audio_s,
        input_tokens=as_count(usage.get("input_tokens")),
        output_tokens=as_count(usage.get("output_tokens")),
        upstream_nanousd=parse_upstream_cost(usage),
        invalid_cost=quote_invalid_cost(usage.get("cost")),
    )


def _parse_duration_s(value: Json) -> float | None:
    """Return a duration; None if it is negative or longer than thirty years."""
    number = as_number(value)
    return number if number is not None and 0 <= number <= 1e9 else None


def _parse_recording_duration_s(
    payload: Mapping[str, Json], segments: tuple[Segment, ...], words: tuple[Word, ...]
) -> float | None:
    """Return the duration of a transcript; None if it is before the end of a segment or word, and so wrong."""
    duration_s = _parse_duration_s(payload.get("duration"))
    ends = (*(segment.end_s for segment in segments), *(word.end_s for word in words))
    end_s = max(filter(math.isfinite, ends), default=0.0)
    return duration_s if duration_s is not None and end_s <= duration_s else None


def _parse_language(payload: Mapping[str, Json]) -> str | None:
    language = as_text(payload.get("language"))
    if language is None:
        languages = as_list(payload.get("languages"))
        language = as_text(as_object(languages[0]).get("code")) if languages else None
    return (find_language_code(language) or language) if language else None


def _parse_segment(value: Json) -> Segment | None:
    """Parse a segment, which may be a text alone. A missing time is NaN. The text must not be lost."""
    item = as_object(value)
    text = as_text(item.get("text")) if item else as_text(value)
    if text is None:
        return None
    return Segment(
        _parse_time_s(item.get("start")),
        _parse_time_s(item.get("end")),
        text,
        _parse_speaker(item),
        as_count(item.get("channel")),
        _parse_confidence(item.get("no_speech_prob")),
        _parse_logarithm(item.get("avg_logprob")),
        as_number(item.get("compression_ratio")),
    )


def _parse_word(item: Mapping[str, Json]) -> Word | None:
    text = as_text(item.get("word")) or as_text(item.get("text"))
    if not text:
        return None
    return Word(
        _parse_time_s(item.get("start")),
        _parse_time_s(item.get("end")),
        text,
        _parse_speaker(item),
        as_count(item.get("channel")),
        _parse_confidence(item.get("confidence")),
    )


def _parse_speaker(item: Mapping[str, Json]) -> str | None:
    """Return the label of the speaker, or else the index or name."""
    for speaker in (item.get("speaker_label"), item.get("speaker")):
        if isinstance(speaker, float) and speaker.is_integer():
            speaker = int(speaker)
        if isinstance(speaker, str | int) and not isinstance(speaker, bool) and str(speaker).strip():
            return str(speaker)
    return None


def _parse_confidence(value: Json) -> float | None:
    number = as_number(value)
    return number if number is not None and 0 <= number <= 1 else None


def _parse_logarithm(value: Json) -> float | None:
    """Return the logarithm of a probability, which is finite and not positive."""
    number = as_number(value)
    return number if number is not None and -1e9 < number <= 0 else None


def _parse_entities(payload: Mapping[str, Json], text: str) -> tuple[Entity, ...]:
    items = [as_object(item) for item in as_list(payload.get("entities"))]
    entities = [Entity(as_text(item.get("type")) or "", as_text(item.get("text")) or "") for item in items]
    return locate_entities(text, [entity for entity in entities if entity.text])


def _parse_time_s(value: Json) -> float:
    """Return a time in seconds, given as a number, as "2.5" or as "00:00:02,500". Return NaN for anything else."""
    number = as_number(value)
    if number is None and isinstance(value, str) and (match := _CLOCK.fullmatch(value)):
        hours, minutes, seconds = match.groups()
        number = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds.replace(",", "."))
    return math.nan if number is None else number
