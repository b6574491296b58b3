"""The ARouter dialect: OpenAI's shapes with translation, uploads of at most 10 MB, and costs that can be looked up.

Source: ARouter's audio guide and API documentation (read 2026-10).
"""

from __future__ import annotations

from collections.abc import Mapping

from ..types.values import ModelCard, Route, Usage, WireRequest
from . import cost_lookup, model_list
from .base import as_id, bearer, join_url
from .openai import OPENAI_FAMILIES, SIX_FORMATS, UPLOAD_FORMATS, OpenAI, Traits
from .therouter import SIX_VOICES

# The body, not the recording in it; whether it binds uploads too is not told, so it is kept.
BODY_BYTES = 10 * 1024 * 1024
FORM_BYTES = 64 * 1024

TRAITS = Traits(
    speech_formats=SIX_FORMATS,
    text_characters=4096,
    upload_formats=UPLOAD_FORMATS,
    upload_bytes=BODY_BYTES - FORM_BYTES,
    takes_instructions=False,
    streams_text=False,
    diarizes=False,
    chat_uploads=("wav", "mp3", "flac", "m4a", "ogg", "opus", "webm"),
    chat_bytes=BODY_BYTES,
)


class ARouter(OpenAI):
    usual_voice: str | None = "nova"
    tells_modalities = True

    def traits(self, route: Route) -> Traits:
        return TRAITS

    def plausible(self, route: Route) -> bool:
        # A name without a vendor goes to OpenAI.
        return "/" in route.model or route.model.startswith(OPENAI_FAMILIES)

    def generation_id(self, headers: Mapping[str, str]) -> str | None:
        # Which header names a finished request is not told; one of these does.
        return as_id(headers.get("x-generation-id")) or as_id(headers.get("x-request-id"))

    def generation_query(self, generation_id: str, route: Route) -> WireRequest | None:
        return cost_lookup.query(_beside(route.base_url, "/generation"), generation_id, route)

    def generation_reply(self, body: bytes) -> Usage | None:
        return cost_lookup.read(body)

    def models_query(self, route: Route) -> WireRequest | None:
        # Without `all` the list holds models of text alone.
        return WireRequest("GET", join_url(route.base_url, "/models?output_modalities=all"), bearer(route))

    def models_reply(self, body: bytes, route: Route) -> tuple[ModelCard, ...] | None:
        return model_list.cards(body, route, self)

    def voices(self, route: Route) -> tuple[str, ...] | None:
        return SIX_VOICES

    def voices_query(self, route: Route) -> WireRequest | None:
        return None


def _beside(base_url: str, path: str) -> str:
    """Give the address of what lives at `/api/v1`, beside the base at `/v1`."""
    trimmed = base_url.rstrip("/")
    return f"{trimmed.removesuffix('/v1')}/api/v1{path}" if trimmed.endswith("/v1") else trimmed + path


DIALECT = ARouter()
