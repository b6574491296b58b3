"""The ARouter dialect: OpenAI's schemas, OpenRouter's model list, 10 MB uploads and rate limits in headers."""

from __future__ import annotations

import re
import time
from typing import Any, ClassVar

from . import chat_replies, model_fixtures
from .base import Headers, ParsedRequest, RequestInfo, Response, Task, json_response
from .billing import Billing
from .cost_records import build_arouter_generation, build_arouter_key
from .field_validation import Field, FieldPolicy, Findings, Refusal
from .model_fixtures import Model
from .openai_like import SPEECH_FORMATS, OpenAI

REQUESTS_PER_WINDOW = 1000
WINDOW_S = 10
INITIAL_BALANCE_USD = 25.0
_BCP_47 = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_ERROR_TYPES = {401: "authentication_error", 402: "payment_required", 403: "permission_error", 429: "rate_limit_error"}
_MODALITIES = ("all", "text", "image", "audio", "embeddings")
_GRANULARITIES = Field("list", choices=("word", "segment"))


class ARouter(OpenAI):
    """ARouter. The generation ID is the value of `x-request-id`."""

    name = "arouter"
    prefix = "/arouter/v1"
    outer_prefix = "/arouter/api/v1"
    keys = frozenset({"lr_live_test"})
    models = model_fixtures.AROUTER
    field_policy = FieldPolicy(unknown_fields="warn")
    max_upload_bytes = 10_485_760
    strip_punctuation = False
    chat_dialect: ClassVar[chat_replies.ChatDialect | None] = chat_replies.ChatDialect(
        audio_formats=("wav", "mp3", "ogg", "flac", "m4a", "webm"), report_cost=True
    )
    speech_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        "input": Field(required=True, min_length=1),
        "voice": Field(required=True),
        "response_format": Field(choices=SPEECH_FORMATS),
        "speed": Field("number", minimum=0.25, maximum=4.0),
    }
    form_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        "language": Field(),
        "prompt": Field(),
        "response_format": Field(choices=("json", "text", "srt", "verbose_json", "vtt")),
        "temperature": Field("number", minimum=0, maximum=1),
        "timestamp_granularities": _GRANULARITIES,
        "timestamp_granularities[]": _GRANULARITIES,
    }

    def build_error_body(self, refusal: Refusal, request_info: RequestInfo) -> Any:
        kind = "server_error" if refusal.status >= 500 else _ERROR_TYPES.get(refusal.status, "invalid_request_error")
        return {"error": {"message": refusal.message, "type": kind}}

    def resolve_unknown_model(self, model: str, findings: Findings) -> Model | None:
        """Resolve a name without an author as a model of OpenAI."""
        openai_model = self.models.get(f"openai/{model}")
        if openai_model is None:
            findings.refuse(400, f"Unknown model: {model}", "model")
        return openai_model

    def build_form_task(
        self, request: ParsedRequest, values: dict[str, Any], model: Model, findings: Findings, *, translate: bool
    ) -> Task | None:
        if "timestamp_granularities" in values:
            requested = values.pop("timestamp_granularities")
            values["timestamp_granularities[]"] = [*values.get("timestamp_granularities[]", ()), *requested]
        for name in ("prompt", "temperature"):
            if translate and name in values:
                findings.warn(f"{name} is not a documented field of translations")
        return super().build_form_task(request, values, model, findings, translate=translate)

    def check_language(self, language: Any, findings: Findings) -> None:
        if isinstance(language, str) and not _BCP_47.fullmatch(language):
            findings.refuse(400, f"Invalid language '{language}'", "language")

    # --- responses ---------------------------------------------------------------------------------------------------

    def make_generation_id(self, task: Task, request_info: RequestInfo) -> str:
        return f"req_{request_info.serial}"

    def build_task_headers(self, task: Task, request_info: RequestInfo, generation_id: str | None) -> Headers:
        return ()

    def build_common_headers(self, request_info: RequestInfo, task: Task | None, status: int) -> Headers:
        remaining = 0 if status == 429 else max(0, REQUESTS_PER_WINDOW - int(request_info.serial))
        return (
            ("x-request-id", f"req_{request_info.serial}"),
            ("X-RateLimit-Limit", str(REQUESTS_PER_WINDOW)),
            ("X-RateLimit-Remaining", str(remaining)),
            ("X-RateLimit-Reset", str(int(time.time()) + WINDOW_S)),
        )

    def build_usage(self, task: Task) -> None:
        return None

    def handle_get(self, request: ParsedRequest, billing: Billing) -> Response | Refusal:
        if request.path == "/models":
            return self._list_models(request.query.get("output_modalities", "text").split(","))
        if request.path == "/key":
            return json_response(200, {"data": build_arouter_key(billing)})
        if request.path == "/../api/v1/balance":
            balance_usd = INITIAL_BALANCE_USD - billing.total_nanousd(self.name) / 1e9
            return json_response(200, {"balance": balance_usd, "currency": "USD"})
        if request.path == "/../api/v1/generation":
            charge = self.find_charge(request, billing)
            return charge if isinstance(charge, Refusal) else json_response(200, build_arouter_generation(charge))
        return Refusal(404, f"Not found: {request.path}")

    def _list_models(self, modalities: list[str]) -> Response | Refusal:
        if any(modality not in _MODALITIES for modality in modalities):
            return Refusal(400, f"Invalid output_modalities: {','.join(modalities)}", "output_modalities")
        cards = [model_fixtures.build_narrow_card(model) for model in self.models.values()]
        if "all" not in modalities:
            cards = [card for card in cards if set(modalities) & set(card["architecture"]["output_modalities"])]
        return json_response(200, {"data": cards})
