"""The forms of the OpenAI shape: what goes into a multipart transcription, part by part."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..audio import formats
from ..text.languages import code_of
from ..types.values import Body, Json, Route, Timestamps, TranscriptionRequest
from .request_bodies import multipart_body


def granularities(request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
    """Segments are asked for together with words: with `word` alone some gateways leave them out."""
    words = request.timestamps is Timestamps.WORD and "word" not in route.refused
    return ("word", "segment") if words else ("segment",)


def common_form(request: TranscriptionRequest) -> list[tuple[str, str]]:
    """The optional parts of a transcription that every multipart gateway takes."""
    form = []
    if request.language:
        form.append(("language", code_of(request.language) or request.language))
    if request.prompt:
        form.append(("prompt", request.prompt))
    if request.temperature is not None:
        form.append(("temperature", form_text(request.temperature)))
    return form


def recording_form(form: Sequence[tuple[str, str]], request: TranscriptionRequest) -> Body:
    """Add the recording to a form, under a file name that tells its format and nothing else."""
    recording = request.recording
    upload = formats.named(recording.format)
    suffix, media_type = (upload.upload_suffix, upload.media_type) if upload else ("", "application/octet-stream")
    return multipart_body(
        form,
        path=recording.path,
        size_bytes=recording.size_bytes,
        file_name=f"audio{suffix}",
        media_type=media_type,
    )


def form_parts(name: str, value: Json) -> list[tuple[str, str]]:
    """Write a JSON value as form parts like OpenAI's own clients: `a[b]` for members, `a[]` for items, no null."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [part for key, item in value.items() for part in form_parts(f"{name}[{key}]", item)]
    if isinstance(value, list):
        return [part for item in value for part in form_parts(name if name.endswith("[]") else f"{name}[]", item)]
    return [(name, form_text(value))]


def form_text(value: Json) -> str:
    """Write a scalar as the text of a form part; numbers as JSON writes them."""
    return value if isinstance(value, str) else json.dumps(value)
