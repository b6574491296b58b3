"""Transcription replies of all gateways: one reader, since they differ only in what they leave out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from ..errors import InvalidResponse
from ..text.cues import tidy
from ..text.languages import code_of
from ..text.line_breaking import joined
from ..types.values import Json, Segment, Transcript, Usage, Word
from . import error_responses
from .base import (
    as_count,
    as_list,
    as_nanousd,
    as_number,
    as_object,
    as_text,
    media_type,
    nonsense_in,
    read_json,
    upstream_of,
)

# What proxies say in plain text when something broke, under whatever status.
_NO_SPEECH = re.compile(
    rb"\s*(?:error\b|(?:internal )?server error|bad gateway|gateway time-?out|service (?:temporarily )?unavailable"
    rb"|not found|unauthorized|forbidden|too many requests|upstream )",
    re.IGNORECASE,
)


def read(body: bytes, headers: Mapping[str, str]) -> Transcript:
    """Read the body of a 200: JSON of any richness, or plain text.

    Raises: AttemptError (there is an error inside), BadAnswer (empty, HTML, or no transcript in it).
    """
    told = error_responses.request_id(headers)
    if not body.strip():
        raise InvalidResponse("200 with an empty body", request_id=told)
    reply = read_json(body)
    if isinstance(reply, dict):
        error = error_responses.embedded_failure(reply, headers)
        if error is not None:
            raise error
        return from_object(reply, told)
    kind = media_type(headers)
    if reply is None and kind == "text/plain" and body.lstrip()[:1] not in (b"<", b"{") and not _NO_SPEECH.match(body):
        # Asked for JSON, some servers answer `text` all the same; the Content-Type decides.
        try:
            return Transcript(text=body.decode("utf-8").strip())
        except UnicodeDecodeError as error:
            raise InvalidResponse("200 with text that is not UTF-8", request_id=told) from error
    what = "an HTML page" if kind == "text/html" or body.lstrip()[:1] == b"<" else "something that is not a transcript"
    raise InvalidResponse(f"200 with {what}", request_id=told)


def from_object(reply: Mapping[str, Json], request_id: str | None = None) -> Transcript:
    """Read a transcript of any richness. Raises: BadAnswer: there is none in it."""
    segments = tuple(filter(None, (_segment(as_object(item)) for item in as_list(reply.get("segments")))))
    words = tuple(filter(None, (_word(as_object(item)) for item in as_list(reply.get("words")))))
    text = as_text(reply.get("text"))
    if text is None:
        if not segments and not words:
            raise InvalidResponse("200 without a transcript in it", request_id=request_id)
        text = joined([part.text for part in segments] or [word.word for word in words])
    if text.strip() and "".join(joined([part.text for part in segments]).split()) != "".join(text.split()):
        # Segments that do not hold the whole text would lose the rest of it in every format but plain text.
        segments = segments if _covers(segments, text) else ()
    return tidy(
        Transcript(
            text=text.strip(),
            language=_language(reply),
            duration_s=_seconds(reply.get("duration")),
            segments=segments,
            words=words,
            usage=usage(reply),
        )
    )


def _covers(segments: Sequence[Segment], text: str) -> bool:
    """Tell whether segments hold about as much as the text does: spelling may differ, sentences may not be missing."""
    held = sum(len("".join(segment.text.split())) for segment in segments)
    return held >= 0.9 * len("".join(text.split()))


def usage(reply: Mapping[str, Json]) -> Usage:
    """Read any of the three shapes of `usage`; TheRouter bills the top-level `duration`."""
    told = as_object(reply.get("usage"))
    audio_s = _seconds(told.get("seconds"))
    return Usage(
        cost_nanousd=as_nanousd(told.get("cost")),
        audio_s=_seconds(reply.get("duration")) if audio_s is None else audio_s,
        input_tokens=as_count(told.get("input_tokens")),
        output_tokens=as_count(told.get("output_tokens")),
        upstream_nanousd=upstream_of(told),
        nonsense=nonsense_in(told.get("cost")),
    )


def _seconds(value: Json) -> float | None:
    """Read a length; negative ones and those beyond thirty years are nonsense."""
    number = as_number(value)
    return number if number is not None and 0 <= number <= 1e9 else None


def _language(reply: Mapping[str, Json]) -> str | None:
    told = as_text(reply.get("language"))
    if told is None:
        several = as_list(reply.get("languages"))
        told = as_text(as_object(several[0]).get("code")) if several else None
    return (code_of(told) or told) if told else None


def _segment(item: Mapping[str, Json]) -> Segment | None:
    text = as_text(item.get("text"))
    if text is None:
        return None
    # A time that is missing is taken from its neighbours by `tidy`; the text must not be lost with it.
    start_s, end_s = (
        math.nan if time_s is None else time_s for time_s in map(as_number, (item.get("start"), item.get("end")))
    )
    speaker = item.get("speaker")
    if isinstance(speaker, float) and speaker.is_integer():
        speaker = int(speaker)
    name = str(speaker) if isinstance(speaker, str | int) and not isinstance(speaker, bool) else None
    return Segment(start_s, end_s, text, name or None)


def _word(item: Mapping[str, Json]) -> Word | None:
    start_s, end_s = as_number(item.get("start")), as_number(item.get("end"))
    text = as_text(item.get("word")) or as_text(item.get("text"))
    return Word(start_s, end_s, text) if start_s is not None and end_s is not None and text else None
