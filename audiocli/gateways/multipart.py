"""Multipart forms of transcription requests, in OpenAI's format."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..audio import formats
from ..text.languages import find_language_code
from ..types.json import Json
from ..types.requests import RequestBody, Timestamps, TranscriptionRequest
from ..types.routes import Route
from .request_bodies import build_multipart_body


def get_granularities(request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
    """Return the granularities to request. `word` includes `segment`, since some gateways omit segments otherwise."""
    has_words = request.timestamps is Timestamps.WORD and "word" not in route.unsupported
    return ("word", "segment") if has_words else ("segment",)


def build_common_fields(request: TranscriptionRequest) -> list[tuple[str, str]]:
    """Return the optional fields that every gateway with multipart requests accepts."""
    form = []
    if request.language:
        form.append(("language", find_language_code(request.language) or request.language))
    if request.prompt:
        form.append(("prompt", request.prompt))
    if request.temperature is not None:
        form.append(("temperature", encode_scalar(request.temperature)))
    return form


def build_recording_form(form: Sequence[tuple[str, str]], request: TranscriptionRequest) -> RequestBody:
    """Add the recording to a form. The file name states the format and nothing else."""
    recording = request.recording
    upload = formats.find_format(recording.format)
    suffix, media_type = (upload.upload_suffix, upload.media_type) if upload else ("", "application/octet-stream")
    return build_multipart_body(
        form,
        path=recording.path,
        size_bytes=recording.size_bytes,
        file_name=f"audio{suffix}",
        media_type=media_type,
    )


def encode_field(name: str, value: Json) -> list[tuple[str, str]]:
    """Encode a JSON value as form fields like OpenAI's clients: `a[b]` for members, `a[]` for items, no null."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [part for key, item in value.items() for part in encode_field(f"{name}[{key}]", item)]
    if isinstance(value, list):
        return [part for item in value for part in encode_field(name if name.endswith("[]") else f"{name}[]", item)]
    return [(name, encode_scalar(value))]


def encode_scalar(value: Json) -> str:
    """Encode a scalar as text, with numbers as in JSON."""
    return value if isinstance(value, str) else json.dumps(value)
