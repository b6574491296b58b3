"""The TheRouter dialect: OpenAI's shapes, and a gateway that may put another model in the place of the one asked for.

Source: TheRouter's "Audio API" page and documentation on transparent routing, errors and async work (read 2026-10).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..types.values import (
    ModelCard,
    Route,
    Service,
    SpeechRequest,
    Timestamps,
    Transcript,
    TranscriptionRequest,
    Usage,
    WireRequest,
)
from . import cost_lookup, model_list
from .base import Limits, as_id, join_url
from .openai import SIX_FORMATS, UPLOAD_BYTES, UPLOAD_FORMATS, OpenAI, Traits

if TYPE_CHECKING:
    from ..types.jobs import JobState

SIX_VOICES = ("alloy", "echo", "fable", "onyx", "nova", "shimmer")
SILICONFLOW_BYTES = 1000

TRAITS = Traits(
    speech_formats=SIX_FORMATS,
    text_characters=4096,
    upload_formats=UPLOAD_FORMATS,
    upload_bytes=UPLOAD_BYTES,
    # The edge gives up after about 100 s.
    audio_s=900.0,
    families=("openai/", "alibaba/", "fishaudio/", "indexteam/"),
    translators=(),
    streams_text=False,
    diarizes=False,
)

# SenseVoice puts what it heard besides words in front of them: <|HAPPY|><|Speech|>.
_TAG = re.compile(r"<\|[^|<>]{0,40}\|>")


class TheRouter(OpenAI):
    usual_voice: str | None = "alloy"
    has_jobs = True

    def traits(self, route: Route) -> Traits:
        return TRAITS

    def plausible(self, route: Route) -> bool:
        return "/" in route.model

    def limits(self, route: Route) -> Limits:
        limits = super().limits(route)
        if _is_siliconflow(route):
            return limits._replace(text_characters=None, text_bytes=SILICONFLOW_BYTES)
        return limits

    def speech_warnings(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        if route.voice and route.voice not in SIX_VOICES and _is_siliconflow(route):
            warnings.append(
                f"{route.ref} does not know the voice {route.voice}: it will speak with its own without saying so"
            )
        if request.speed is not None and not route.model.startswith("openai/"):
            warnings.append(f"--speed has no effect with {route.ref}")
        return (*warnings, *super().speech_warnings(request, route))

    def transcript(self, body: bytes, headers: Mapping[str, str]) -> Transcript:
        told = super().transcript(body, headers)
        return told._replace(
            text=_without_tags(told.text),
            segments=tuple(segment._replace(text=_without_tags(segment.text)) for segment in told.segments),
        )

    def service(self, headers: Mapping[str, str], route: Route) -> Service:
        model, provider = as_id(headers.get("x-router-model")), as_id(headers.get("x-router-provider"))
        fell_back = headers.get("x-router-fallback", "").strip().lower() == "true"
        return Service(model, provider, swapped=fell_back or (model is not None and model != route.model))

    def generation_id(self, headers: Mapping[str, str]) -> str | None:
        return as_id(headers.get("x-router-request-id")) or as_id(headers.get("x-request-id"))

    def generation_query(self, generation_id: str, route: Route) -> WireRequest | None:
        return cost_lookup.query(join_url(route.base_url, "/generation"), generation_id, route)

    def generation_reply(self, body: bytes) -> Usage | None:
        return cost_lookup.read(body)

    def submissions(self, request: WireRequest, route: Route) -> tuple[WireRequest, ...]:
        from . import therouter_jobs

        return therouter_jobs.submissions(request, route)

    def job_query(self, job_id: str, polling_url: str | None, route: Route) -> WireRequest | None:
        from . import therouter_jobs

        return therouter_jobs.query(job_id, polling_url, route)

    def job_content(self, job_id: str, route: Route) -> WireRequest | None:
        from . import therouter_jobs

        return therouter_jobs.content(job_id, route)

    def job_reply(self, body: bytes) -> JobState | None:
        from . import therouter_jobs

        return therouter_jobs.state(body)

    def models_reply(self, body: bytes, route: Route) -> tuple[ModelCard, ...] | None:
        return model_list.cards(body, route, self)

    def voices(self, route: Route) -> tuple[str, ...] | None:
        return SIX_VOICES

    def voices_query(self, route: Route) -> WireRequest | None:
        return None

    def _takes_instructions(self, route: Route) -> bool:
        # Not listed for this gateway, but it says that it passes OpenAI's fields on.
        return route.model.startswith("openai/gpt-4o")

    def _is_detailed(self, request: TranscriptionRequest, route: Route) -> bool:
        # Times are not promised here, so they are asked for only where they are needed.
        needed = request.timestamps_required or request.verbatim or request.timestamps is Timestamps.WORD
        return needed and super()._is_detailed(request, route)


def _is_siliconflow(route: Route) -> bool:
    return not route.model.startswith("openai/")


def _without_tags(text: str) -> str:
    return _TAG.sub("", text).strip()


DIALECT = TheRouter()
