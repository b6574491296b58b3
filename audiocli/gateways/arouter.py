"""The ARouter dialect: the format of OpenAI with translation, uploads of at most 10 MB, and lookup of costs.

Source: ARouter's audio guide and API documentation (read 2026-10).
"""

from __future__ import annotations

from collections.abc import Mapping

from ..types.ledger import Usage
from ..types.requests import HttpRequest
from ..types.results import KeyInfo
from ..types.routes import ModelCard, Route
from . import cost_lookup, model_list
from .base import as_identifier, build_auth_headers, build_url
from .openai import OPENAI_MODEL_PREFIXES, SIX_FORMATS, UPLOAD_FORMATS, OpenAI, Traits
from .therouter import SIX_VOICES

# Limits the body, not the recording in it. It is not documented whether it applies to uploads; assume so.
MAX_BODY_BYTES = 10 * 1024 * 1024
FORM_OVERHEAD_BYTES = 64 * 1024

TRAITS = Traits(
    speech_formats=SIX_FORMATS,
    max_text_characters=4096,
    upload_formats=UPLOAD_FORMATS,
    max_upload_bytes=MAX_BODY_BYTES - FORM_OVERHEAD_BYTES,
    accepts_instructions=False,
    supports_stream=False,
    supports_diarization=False,
    chat_upload_formats=("wav", "mp3", "flac", "m4a", "ogg", "opus", "webm"),
    max_chat_bytes=MAX_BODY_BYTES,
)


class ARouter(OpenAI):
    """The ARouter dialect."""

    default_voice: str | None = "nova"
    model_list_has_modalities = True

    def get_traits(self, route: Route) -> Traits:
        return TRAITS

    def may_have_model(self, route: Route) -> bool:
        # A model name without a vendor is routed to OpenAI.
        return "/" in route.model or route.model.startswith(OPENAI_MODEL_PREFIXES)

    def parse_generation_id(self, headers: Mapping[str, str]) -> str | None:
        # It is not documented which header identifies a request; it is one of these.
        return as_identifier(headers.get("x-generation-id")) or as_identifier(headers.get("x-request-id"))

    def build_cost_query(self, generation_id: str, route: Route) -> HttpRequest | None:
        return cost_lookup.build_query(_build_api_url(route, "/generation"), generation_id, route)

    def parse_cost(self, body: bytes) -> Usage | None:
        return cost_lookup.parse_cost(body)

    def build_models_query(self, route: Route) -> HttpRequest | None:
        # Without `all`, the list has text models only.
        if not route.traits.has_model_list:
            return None
        return HttpRequest("GET", build_url(route, "/models?output_modalities=all"), build_auth_headers(route))

    def parse_models(self, body: bytes, route: Route) -> tuple[ModelCard, ...] | None:
        return model_list.parse_models(body, route, self)

    def build_key_query(self, route: Route) -> HttpRequest | None:
        return HttpRequest("GET", build_url(route, "/key"), build_auth_headers(route))

    def parse_key_info(self, body: bytes) -> KeyInfo | None:
        from . import key_info

        return key_info.parse_key_info(body)

    def get_known_voices(self, route: Route) -> tuple[str, ...] | None:
        return SIX_VOICES

    def build_voices_query(self, route: Route) -> HttpRequest | None:
        return None


def _build_api_url(route: Route, path: str) -> str:
    """Return the URL of an endpoint at `/api/v1`, which is next to the base URL at `/v1`."""
    base, question_mark, query = route.base_url.partition("#")[0].partition("?")
    base = base.rstrip("/")
    if base.endswith("/v1"):
        base = f"{base.removesuffix('/v1')}/api/v1"
    return build_url(route._replace(base_url=base + question_mark + query), path)


DIALECT = ARouter()
