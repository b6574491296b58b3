"""The Groq dialect: OpenAI's schemas with its own formats and limits."""

from __future__ import annotations

from typing import ClassVar

from .. import model_fixtures
from ..field_validation import Field
from .openai import COMMON_FORM_FIELDS, OpenAI


class Groq(OpenAI):
    name = "groq"
    prefix = "/groq/openai/v1"
    key = "gsk-test"
    models = model_fixtures.GROQ
    upload_refusal_code = "request_too_large"
    default_format = "wav"
    strip_punctuation = False
    report_usage = False
    transcript_fields: ClassVar = {"x_groq": {"id": "req_loopback"}}
    card_fields: ClassVar = {
        "object": "model",
        "created": 1_693_721_698,
        "owned_by": "Groq",
        "active": True,
        "context_window": 448,
        "public_apps": None,
    }
    has_shutdown_dates = False
    speech_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        "input": Field(required=True, min_length=1),
        "voice": Field(required=True),
        "response_format": Field(choices=("flac", "mp3", "mulaw", "ogg", "wav")),
        "sample_rate": Field("number", minimum=8000, maximum=48000),
        "speed": Field("number", minimum=0.5, maximum=5.0),
    }
    form_fields: ClassVar[dict[str, Field]] = COMMON_FORM_FIELDS | {
        "response_format": Field(choices=("json", "text", "verbose_json"))
    }
