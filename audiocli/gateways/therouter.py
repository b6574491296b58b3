"""The TheRouter dialect: the format of OpenAI. The gateway may substitute another model for the requested one.

Source: TheRouter's "Audio API" page and documentation on transparent routing, errors and async work (read 2026-10).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..types.ledger import Usage
from ..types.requests import HttpRequest, SpeechRequest, Timestamps, TranscriptionRequest
from ..types.results import ServedModel
from ..types.routes import ModelCard, Route
from ..types.transcripts import Transcript
from . import cost_lookup, model_list
from .base import Limits, apply_configured_limits, as_identifier, build_url
from .openai import MAX_UPLOAD_BYTES, SIX_FORMATS, UPLOAD_FORMATS, OpenAI, Traits

if TYPE_CHECKING:
    from ..types.jobs import JobState

SIX_VOICES = ("alloy", "echo", "fable", "onyx", "nova", "shimmer")
SILICONFLOW_MAX_BYTES = 1000

TRAITS = Traits(
    speech_formats=SIX_FORMATS,
    max_text_characters=4096,
    upload_formats=UPLOAD_FORMATS,
    max_upload_bytes=MAX_UPLOAD_BYTES,
    # The gateway times out after about 100 s.
    max_audio_s=900.0,
    model_prefixes=("openai/", "alibaba/", "fishaudio/", "indexteam/"),
    translation_models=(),
    supports_stream=False,
    supports_diarization=False,
)

# SenseVoice puts tags before the text: <|HAPPY|><|Speech|>.
_TAG = re.compile(r"<\|[^|<>]{0,40}\|>")


class TheRouter(OpenAI):
    """The TheRouter dialect."""

    default_voice: str | None = "alloy"
    supports_jobs = True

    def get_traits(self, route: Route) -> Traits:
        return TRAITS

    def may_have_model(self, route: Route) -> bool:
        return "/" in route.model

    def get_limits(self, route: Route) -> Limits:
        limits = super().get_limits(route)
        if _is_siliconflow(route):
            limits = limits._replace(max_text_characters=None, max_text_bytes=SILICONFLOW_MAX_BYTES)
            return apply_configured_limits(limits, route)
        return limits

    def get_speech_warnings(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        if route.voice and route.voice not in SIX_VOICES and _is_siliconflow(route):
            warnings.append(f"{route.ref} has no voice {route.voice!r} and will use another one without reporting it")
        if request.speed is not None and not route.model.startswith("openai/"):
            warnings.append(f"--speed has no effect with {route.ref}")
        return (*warnings, *super().get_speech_warnings(request, route))

    def parse_transcript(self, body: bytes, headers: Mapping[str, str]) -> Transcript:
        transcript = super().parse_transcript(body, headers)
        return transcript._replace(
            text=_remove_tags(transcript.text),
            segments=tuple(segment._replace(text=_remove_tags(segment.text)) for segment in transcript.segments),
        )

    def parse_served_model(self, headers: Mapping[str, str], route: Route) -> ServedModel:
        model, provider = as_identifier(headers.get("x-router-model")), as_identifier(headers.get("x-router-provider"))
        fell_back = headers.get("x-router-fallback", "").strip().lower() == "true"
        return ServedModel(model, provider, is_substituted=fell_back or (model is not None and model != route.model))

    def parse_generation_id(self, headers: Mapping[str, str]) -> str | None:
        return as_identifier(headers.get("x-router-request-id")) or as_identifier(headers.get("x-request-id"))

    def build_cost_query(self, generation_id: str, route: Route) -> HttpRequest | None:
        return cost_lookup.build_query(build_url(route, "/generation"), generation_id, route)

    def parse_cost(self, body: bytes) -> Usage | None:
        return cost_lookup.parse_cost(body)

    def build_job_submission(self, request: HttpRequest, route: Route) -> HttpRequest | None:
        from . import therouter_jobs

        return therouter_jobs.build_submission(request, route)

    def build_job_query(self, job_id: str, polling_url: str | None, route: Route) -> HttpRequest | None:
        from . import therouter_jobs

        return therouter_jobs.build_query(job_id, polling_url, route)

    def build_job_result_query(self, job_id: str, route: Route) -> HttpRequest | None:
        from . import therouter_jobs

        return therouter_jobs.build_result_query(job_id, route)

    def parse_job_state(self, body: bytes) -> JobState | None:
        from . import therouter_jobs

        return therouter_jobs.parse_state(body)

    def parse_models(self, body: bytes, route: Route) -> tuple[ModelCard, ...] | None:
        return model_list.parse_models(body, route, self)

    def get_known_voices(self, route: Route) -> tuple[str, ...] | None:
        return SIX_VOICES

    def build_voices_query(self, route: Route) -> HttpRequest | None:
        return None

    def _accepts_instructions(self, route: Route) -> bool:
        # Not documented for this gateway, but it states that it forwards OpenAI's fields.
        return route.model.startswith("openai/gpt-4o")

    def _uses_verbose_json(self, request: TranscriptionRequest, route: Route) -> bool:
        # Timestamps are not documented for this gateway, so they are requested only if they are required.
        is_required = request.timestamps_required or request.keep_raw_response or request.timestamps is Timestamps.WORD
        return is_required and super()._uses_verbose_json(request, route)


def _is_siliconflow(route: Route) -> bool:
    return not route.model.startswith("openai/")


def _remove_tags(text: str) -> str:
    return _TAG.sub("", text).strip()


DIALECT = TheRouter()
